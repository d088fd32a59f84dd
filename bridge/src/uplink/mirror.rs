//! One partition's mirror as a pure state machine: what to send next, with which sequence, and what an
//! answer, a silence or a restart means. No I/O, no clock: `now` and answers in, [`Want`] out.
//!
//! Invariants:
//! 1. A batch is sent under a (producer, anchor) only after the checkpoint that names them is durable.
//! 2. At most [`WINDOW`] batches are unanswered, the number a broker remembers for its duplicate check; only
//!    one while the broker is not known to remember this producer, or when it may forget it at any moment.
//! 3. After an answer that leaves a batch's fate open, nothing is sent before the centre was asked what it has.
//! 4. `acked` only grows, and only by what the centre's in-sync replicas hold.
//!
//! Why 2: a broker accepts *any* sequence from a producer it has no state for, and it forgets a producer
//! whose newest record is older than a day (`producer.id.expiration.ms` counts by record timestamp). A first
//! batch refused and a second one accepted would be a silent gap.
//!
//! Why an unknown producer id is used on, and not replaced at once: requests of a lost connection may still
//! arrive. Under the same id and sequences they and the repeated ones cancel out; under a new id they would
//! be duplicates. A new id is taken only when the centre refuses the old one, and after those requests can
//! no longer be under way, or when the data directory came from another machine: a twin of it may use the old one.
//!
//! What compaction took. A batch with holes is sent with its records alone (`batch::dense`), so it takes fewer sequences than
//! offsets: the mirror then stands *inside* it, behind as many offsets as there were records, and passes over the rest in a recorded
//! step, with a new anchor, before anything else is sent. Whatever a crash leaves of that, the sequences tell where it stands.
//!
//! Neighbours: `task` drives it, `centre` gathers the [`Evidence`], `checkpoint` is its durable part.

mod resume;
mod vocabulary;

pub(crate) use vocabulary::{Answer, Evidence, Note, Now, Offer, Passed, Question, Timing, Want};

use super::checkpoint::{Anchor, Cause, Checkpoint, Step, Target};
use super::sequence::Sequence;
use headwater_kafka::client::ProducerIdentity;
use headwater_log::batch::BatchHeader;
use headwater_log::{LeaderEpoch, Offset, Position};
use std::collections::VecDeque;

/// Batches of one producer that a broker remembers per partition (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
pub(crate) const WINDOW: usize = 5;

/// Strikes of [`Answer::Sequence`] without progress after which the producer id is replaced.
const STRIKES_MAX: u8 = 2;

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// What the centre has is not known.
    Unresolved {
        not_before: u64,
    },
    /// It was asked.
    Asking,
    /// A new anchor is being made durable.
    Anchoring {
        handed_out: bool,
    },
    Streaming {
        not_before: u64,
    },
    /// An answer was bad: wait for the others.
    Draining,
    Stopped {
        reason: String,
        until: u64,
    },
}

#[derive(Debug, Clone)]
struct Flight {
    base: i64,
    /// Behind its records, had they no holes between them.
    end: i64,
    epoch: LeaderEpoch,
    bytes: u64,
    timestamp_ms: i64,
    old: bool,
    answer: Option<Answer>,
}

/// The mirror of one partition.
#[derive(Debug)]
pub(crate) struct Mirror {
    timing: Timing,
    phase: Phase,
    target: Option<Target>,
    checkpoint: Option<Checkpoint>,
    /// Where to begin without a checkpoint.
    start: Position,
    next: i64,
    flight: VecDeque<Flight>,
    /// The next batch must end here: it is sent again to learn that the replicas have it.
    probe_end: Option<i64>,
    /// The leader is known to remember our producer.
    remembered: bool,
    /// The batch last offered was old.
    old: bool,
    /// Take a new producer id at the next question.
    renew: bool,
    /// The source lost records that were mirrored: what follows is another history, begun under a new producer id.
    cut: bool,
    strikes: u8,
    failures: u32,
    last_uncertain: Option<u64>,
    refresh: bool,
    changed: bool,
    last_error: Option<String>,
    notes: Vec<Note>,
    acked_records: u64,
    acked_bytes: u64,
    retries: u64,
}

impl Mirror {
    /// A mirror that begins at `start`, or goes on from a durable checkpoint. `oldest_ms` is the timestamp of the
    /// first batch to send, where there is one.
    pub(crate) fn new(
        timing: Timing,
        start: Position,
        checkpoint: Option<Checkpoint>,
        oldest_ms: Option<i64>,
        now: Now,
    ) -> Self {
        let next = checkpoint.as_ref().map_or(start.offset, |c| c.acked.offset).get();
        let last_uncertain = checkpoint.is_some().then_some(now.mono_ms);
        let mut mirror = Self {
            timing,
            phase: Phase::Unresolved { not_before: 0 },
            target: None,
            checkpoint,
            start,
            next,
            flight: VecDeque::new(),
            probe_end: None,
            remembered: false,
            old: false,
            renew: false,
            cut: false,
            strikes: 0,
            failures: 0,
            last_uncertain,
            refresh: false,
            changed: false,
            last_error: None,
            notes: Vec::new(),
            acked_records: 0,
            acked_bytes: 0,
            retries: 0,
        };
        mirror.old = oldest_ms.is_some_and(|timestamp| mirror.is_old(timestamp, now));
        mirror
    }

    /// The source has lost what it had from `end` on, and was mirrored: its history goes on differently from there
    /// (KIP-101). Call before anything else.
    pub(crate) fn cut_to(&mut self, end: Position) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        let lost = checkpoint.acked.offset.get() - end.offset.get();
        if lost <= 0 {
            return;
        }
        self.notes.push(Note::SourceLost { from: end.offset.get(), records: lost });
        checkpoint.acked = end;
        self.next = end.offset.get();
        self.cut = true;
    }

    /// The epoch of the record before [`Mirror::acked`], where it was found out in another way than by an answer.
    pub(crate) fn set_acked_epoch(&mut self, epoch: LeaderEpoch) {
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.acked.epoch = epoch;
        }
    }

    /// Where the checkpoint stands, with the epoch in which its last record was appended.
    pub(crate) fn acked_position(&self) -> Position {
        self.checkpoint.as_ref().map_or(self.start, |c| c.acked)
    }

    /// Whether the next question ends with a new producer id.
    fn renews(&self) -> bool {
        self.renew || self.checkpoint.as_ref().is_some_and(|c| c.moved.is_some())
    }

    /// Exclusive end of what the centre has acknowledged.
    pub(crate) fn acked(&self) -> Offset {
        self.acked_position().offset
    }

    /// The state to make durable when it is convenient, if it has changed since the last call.
    pub(crate) fn take_progress(&mut self) -> Option<&Checkpoint> {
        if matches!(self.phase, Phase::Anchoring { .. }) || !std::mem::take(&mut self.changed) {
            return None;
        }
        self.checkpoint.as_ref()
    }

    /// The progress taken last was not stored.
    pub(crate) fn put_progress_back(&mut self) {
        self.changed = true;
    }

    /// Whether there is progress that [`Mirror::take_progress`] would give.
    pub(crate) fn has_progress(&self) -> bool {
        self.changed && !matches!(self.phase, Phase::Anchoring { .. })
    }

    /// Things to tell, oldest first.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Whether who leads should be asked again.
    pub(crate) fn take_refresh(&mut self) -> bool {
        std::mem::take(&mut self.refresh)
    }

    /// Records, bytes and retries since the last call.
    pub(crate) fn take_counts(&mut self) -> (u64, u64, u64) {
        let counts = (self.acked_records, self.acked_bytes, self.retries);
        (self.acked_records, self.acked_bytes, self.retries) = (0, 0, 0);
        counts
    }

    /// Why it stands still, if it was refused.
    pub(crate) fn stopped(&self) -> Option<&str> {
        match &self.phase {
            Phase::Stopped { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// The last bad answer since progress was made.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Whether it is sending.
    pub(crate) fn is_streaming(&self) -> bool {
        matches!(self.phase, Phase::Streaming { .. })
    }

    /// Unanswered batches.
    pub(crate) fn in_flight(&self) -> usize {
        self.flight.iter().filter(|f| f.answer.is_none()).count()
    }

    /// The timestamp of the oldest batch sent and not acknowledged.
    pub(crate) fn oldest_in_flight_ms(&self) -> Option<i64> {
        self.flight.front().map(|flight| flight.timestamp_ms)
    }

    /// The centre as metadata shows it. Another topic id or cluster than before means: ask, then begin anew there.
    pub(crate) fn set_target(&mut self, target: &Target, now: Now) {
        if self.target.as_ref() == Some(target) {
            return;
        }
        let first = self.target.replace(target.clone()).is_none();
        if !first && matches!(self.phase, Phase::Streaming { .. }) {
            self.phase = Phase::Draining;
            self.decide(now);
        }
    }

    /// What to do now.
    pub(crate) fn want(&mut self, now: Now) -> Want {
        if let Phase::Stopped { until, .. } = self.phase {
            if now.mono_ms < until {
                return Want::Wait(Some(until));
            }
            self.phase = Phase::Unresolved { not_before: 0 };
        }
        let room = self.flight.len() < self.window();
        match &mut self.phase {
            Phase::Unresolved { not_before } => {
                let not_before = *not_before;
                self.want_question(not_before, now)
            }
            Phase::Anchoring { handed_out } if !*handed_out => match &self.checkpoint {
                Some(checkpoint) => {
                    *handed_out = true;
                    Want::Persist(checkpoint.clone())
                }
                None => Want::Wait(None),
            },
            Phase::Streaming { not_before } if now.mono_ms < *not_before => {
                Want::Wait(Some(*not_before))
            }
            Phase::Streaming { .. } if room => Want::Batch(self.next),
            _ => Want::Wait(None),
        }
    }

    fn window(&self) -> usize {
        if self.remembered && !self.old { WINDOW } else { 1 }
    }

    /// The batch for [`Want::Batch`], of `size_bytes`; of one with holes the records alone are sent. `source_start` is the first
    /// offset that the source still has.
    pub(crate) fn offer(
        &mut self,
        header: &BatchHeader,
        size_bytes: usize,
        source_start: i64,
        now: Now,
    ) -> Offer {
        let whole_end = header.last_offset() + 1;
        let (producer, sequence) = match self.line_up(header, source_start, now) {
            Ok(address) => address,
            Err(answer) => return answer,
        };
        if header.is_control() || header.record_count == 0 {
            return self.skip_to(whole_end, epoch_of(header), Passed::LeftOut);
        }
        let end = end_of_records(header);
        self.probe_end = None;
        self.next = end;
        // A delete horizon stands where the base timestamp was (KIP-534).
        let horizon = header.delete_horizon_ms().is_some();
        self.flight.push_back(Flight {
            base: header.base_offset,
            end,
            epoch: epoch_of(header),
            bytes: size_bytes as u64,
            timestamp_ms: if horizon { header.max_timestamp } else { header.base_timestamp },
            old: self.old,
            answer: None,
        });
        Offer::Send { producer, sequence }
    }

    /// The batch for [`Want::Batch`], and all up to `to`, are nothing to mirror: ends of transactions, what was aborted, and what
    /// compaction emptied. Passed over at once, in one recorded step.
    pub(crate) fn leave_out(
        &mut self,
        header: &BatchHeader,
        to: i64,
        source_start: i64,
        now: Now,
    ) -> Offer {
        match self.line_up(header, source_start, now) {
            Ok(_) => self.skip_to(to, epoch_of(header), Passed::LeftOut),
            Err(answer) => answer,
        }
    }

    /// Whether this batch is what comes next, and how it would be sent.
    fn line_up(
        &mut self,
        header: &BatchHeader,
        source_start: i64,
        now: Now,
    ) -> Result<(ProducerIdentity, Sequence), Offer> {
        let sending =
            matches!(self.phase, Phase::Streaming { not_before } if not_before <= now.mono_ms);
        self.old =
            self.is_old(header.max_timestamp, now) || self.flight.iter().any(|flight| flight.old);
        if !sending || self.flight.len() >= self.window() {
            return Err(Offer::Later);
        }
        let end = end_of_records(header);
        let Some(checkpoint) = &self.checkpoint else { return Err(Offer::Drop) };
        let floor = checkpoint.anchor.source.offset.get();
        if let Some(expected) = self.probe_end {
            if end != expected || header.base_offset < floor {
                return Err(self.differs(header, now));
            }
        } else if header.base_offset != self.next {
            return Err(self.jump(header, source_start, now));
        }
        Ok((checkpoint.producer, checkpoint.sequence_at(header.base_offset)))
    }

    fn is_old(&self, timestamp_ms: i64, now: Now) -> bool {
        now.wall_ms.is_none_or(|wall| wall.saturating_sub(timestamp_ms) > self.timing.old_after_ms)
    }

    /// The stored batches do not begin where the mirror stands.
    fn jump(&mut self, header: &BatchHeader, source_start: i64, now: Now) -> Offer {
        if header.base_offset > self.next {
            // The log's reader passes over offsets in silence only where compaction took them; all else it tells.
            return self.skip_to(header.base_offset, epoch_of(header), Passed::Compacted);
        }
        let untouched = self.checkpoint.as_ref().is_some_and(|c| {
            c.acked.offset == c.anchor.source.offset && c.acked.offset.get() == self.next
        });
        // All its records are in the centre, fewer than it has offsets. (At the start of the log it may as well be that nothing is.)
        let sent = header.has_holes() && end_of_records(header) == self.next;
        if sent && (!untouched || source_start < self.next) {
            return self.skip_to(header.last_offset() + 1, epoch_of(header), Passed::Compacted);
        }
        if untouched && self.flight.is_empty() && !self.remembered {
            // Nothing was sent under this anchor, and the log starts inside a batch: begin with all of it.
            return self.move_anchor(header.base_offset, epoch_of(header), None);
        }
        self.differs(header, now)
    }

    fn differs(&mut self, header: &BatchHeader, now: Now) -> Offer {
        let (base, end) = (header.base_offset, header.last_offset() + 1);
        let reason = format!(
            "the stored batch {base}..{end} is not one that was mirrored up to {}: the data directory has another history",
            self.next
        );
        self.probe_end = None;
        self.halt(reason, now);
        Offer::Drop
    }

    /// Whether [`Mirror::skip_to`] would be carried out now.
    pub(crate) fn can_skip(&self) -> bool {
        self.flight.is_empty() && matches!(self.phase, Phase::Streaming { .. })
    }

    /// The source has nothing (to mirror) between where the mirror stands and `to`.
    pub(crate) fn skip_to(&mut self, to: i64, epoch: LeaderEpoch, passed: Passed) -> Offer {
        if !self.can_skip() {
            return Offer::Later;
        }
        if let (Some(end), Some(checkpoint)) = (self.probe_end.take(), &mut self.checkpoint) {
            // The batch that was to be sent again is gone here; the centre has it.
            self.next = end;
            checkpoint.acked.offset = Offset::new(end).unwrap_or(checkpoint.acked.offset);
            self.changed = true;
        }
        let from = self.next;
        if to <= from {
            return Offer::Drop;
        }
        self.notes.push(Note::Skipped { from, to, passed });
        self.move_anchor(to, epoch, Some(from))
    }

    /// Ties the next sequence to another source offset; offsets from `skipped` on are passed over.
    fn move_anchor(&mut self, to: i64, epoch: LeaderEpoch, skipped: Option<i64>) -> Offer {
        let (Some(checkpoint), Some(offset)) = (&mut self.checkpoint, Offset::new(to)) else {
            return Offer::Drop;
        };
        let sequence = checkpoint.sequence_at(self.next);
        let source = Position { epoch, offset };
        checkpoint.anchor = Anchor { source, sequence };
        // What the centre lost and gets again was acknowledged beyond it.
        if checkpoint.acked.offset < offset || skipped.is_none() {
            checkpoint.acked = source;
        }
        if let (Some(from), Some(delta)) = (skipped, checkpoint.delta()) {
            checkpoint.push_step(Step {
                from: to,
                delta: delta - (to - from),
                cause: Cause::Skipped,
            });
        }
        self.next = to;
        self.phase = Phase::Anchoring { handed_out: false };
        Offer::Drop
    }

    /// What became of the batch that begins at `base`.
    pub(crate) fn on_answer(&mut self, base: i64, answer: Answer, now: Now) {
        let Some(flight) = self.flight.iter_mut().find(|f| f.base == base && f.answer.is_none())
        else {
            return;
        };
        let good = matches!(answer, Answer::Stored(_));
        if let Answer::Unknown(_) = answer {
            self.last_uncertain = Some(now.mono_ms);
        }
        flight.answer = Some(answer);
        if !good && matches!(self.phase, Phase::Streaming { .. }) {
            self.phase = Phase::Draining;
        }
        self.advance();
        self.decide(now);
    }

    /// Takes what is stored from the front.
    fn advance(&mut self) {
        while let Some(flight) = self.flight.front() {
            let Some(Answer::Stored(target_base)) = flight.answer else { return };
            let Some(flight) = self.flight.pop_front() else { return };
            self.remembered = true;
            self.failures = 0;
            self.strikes = 0;
            self.last_error = None;
            self.check_delta(&flight, target_base);
            let Some(checkpoint) = &mut self.checkpoint else { return };
            let Some(end) = Offset::new(flight.end) else { return };
            if end > checkpoint.acked.offset {
                let before = flight.base.max(checkpoint.acked.offset.get());
                self.acked_records += u64::try_from(flight.end - before).unwrap_or(0);
                self.acked_bytes += flight.bytes;
                checkpoint.acked = Position { epoch: flight.epoch, offset: end };
                if let Some(delta) = checkpoint.delta() {
                    checkpoint.floor = checkpoint.floor.max(flight.end.saturating_add(delta));
                }
                self.changed = true;
            }
        }
    }

    /// Every answer's base offset must be the source's plus the delta; what is not is a recorded step.
    fn check_delta(&mut self, flight: &Flight, target_base: Option<i64>) {
        let (Some(checkpoint), Some(target_base)) = (&mut self.checkpoint, target_base) else {
            return;
        };
        let delta = target_base - flight.base;
        let known = checkpoint.delta();
        if known == Some(delta) {
            return;
        }
        let cause = if known.is_some() { Cause::Foreign } else { Cause::Start };
        checkpoint.push_step(Step { from: flight.base, delta, cause });
        if let Some(known) = known {
            self.notes.push(Note::Foreign { from: flight.base, delta });
            // Offsets never go back in a topic that is still the same one.
            self.refresh |= delta < known;
            if delta < known {
                checkpoint.floor = target_base;
            }
        }
    }

    /// After a bad answer, once nothing is unanswered: what now?
    fn decide(&mut self, now: Now) {
        if self.phase != Phase::Draining || self.flight.iter().any(|f| f.answer.is_none()) {
            return;
        }
        let open = self.flight.iter().any(|f| matches!(f.answer, Some(Answer::Unknown(_))));
        // Answers behind the first bad one follow from it.
        let first = self.flight.drain(..).find_map(|f| match f.answer {
            Some(Answer::Stored(_)) | None => None,
            bad => bad,
        });
        self.next = self.acked().get();
        self.probe_end = None;
        let moved = self.checkpoint.as_ref().map(|c| &c.target) != self.target.as_ref();
        match first {
            Some(Answer::Fatal(reason)) => return self.halt(reason, now),
            Some(Answer::Sequence(reason)) => {
                self.last_error = Some(reason);
                self.strikes = self.strikes.saturating_add(1);
                self.renew |= self.strikes >= STRIKES_MAX;
                self.refresh = true;
                return self.ask_again(now);
            }
            Some(Answer::Unknown(reason) | Answer::NotStored(reason)) => {
                self.last_error = Some(reason);
            }
            Some(Answer::Stored(_)) | None => {}
        }
        if open || moved {
            self.ask_again(now);
        } else {
            self.phase = Phase::Streaming { not_before: now.mono_ms + self.next_delay_ms() };
        }
    }

    fn halt(&mut self, reason: String, now: Now) {
        let until = now.mono_ms + self.timing.refused_retry_ms;
        if self.in_flight() > 0 {
            self.last_uncertain = Some(now.mono_ms);
        }
        self.notes.push(Note::Stopped { reason: reason.clone() });
        self.flight.clear();
        self.next = self.acked().get();
        self.probe_end = None;
        self.phase = Phase::Stopped { reason, until };
    }

    /// Asks for fresh metadata with the next look (an answer said that the leader moved).
    pub(crate) fn ask_refresh(&mut self) {
        self.refresh = true;
    }
}

/// Behind the records of a batch, counted from its base: where the sequences stand once it is stored.
fn end_of_records(header: &BatchHeader) -> i64 {
    header.base_offset + i64::from(header.record_count)
}

fn epoch_of(header: &BatchHeader) -> LeaderEpoch {
    LeaderEpoch::new(header.partition_leader_epoch).unwrap_or_default()
}

#[cfg(test)]
mod tests;
