//! Where to go on: after a start, and after an answer that left a batch's fate open.
//!
//! Invariant: what counts as acknowledged here was seen below the target's high watermark, or is sent again so that the
//! answer to the duplicate shows it. A new producer id begins only after its checkpoint is durable. Where the data
//! directory came from another machine, what is above the end it came with was never ours, however much the centre has.

use super::{Evidence, Mirror, Note, Now, Phase, Question, Want};
use crate::uplink::checkpoint::{Anchor, Checkpoint, Target};
use crate::uplink::sequence::Sequence;
use headwater_log::{Offset, Position};

impl Mirror {
    pub(super) fn want_question(&mut self, not_before: u64, now: Now) -> Want {
        let Some(target) = self.target.clone() else { return Want::Wait(None) };
        let same = !self.cut && self.checkpoint.as_ref().is_some_and(|c| c.target == target);
        let moved = self.checkpoint.is_some() && !same;
        let mut not_before = not_before;
        // Where a late request could not be recognised as a duplicate it must not be under way any more.
        if let Some(since) = self.last_uncertain.filter(|_| self.renews() || self.old || moved) {
            not_before = not_before.max(since + self.timing.settle_ms);
        }
        if now.mono_ms < not_before {
            return Want::Wait(Some(not_before));
        }
        let known = self.checkpoint.as_ref().filter(|_| same);
        let question = Question {
            target,
            producer: known.map(|c| c.producer),
            floor: known.map_or(0, |c| c.floor),
            scan: self.renews() || self.old,
            fresh: known.is_none() || self.renews(),
        };
        self.phase = Phase::Asking;
        Want::Ask(question)
    }

    /// The question could not be answered.
    pub(crate) fn not_answered(&mut self, now: Now, reason: &str) {
        if self.phase == Phase::Asking {
            self.last_error = Some(reason.to_owned());
            self.ask_again(now);
        }
    }

    pub(super) fn ask_again(&mut self, now: Now) {
        self.phase = Phase::Unresolved { not_before: now.mono_ms + self.next_delay_ms() };
    }

    pub(super) fn next_delay_ms(&mut self) -> u64 {
        let (first, longest) = self.timing.retry_ms;
        let delay = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.retries += 1;
        delay
    }

    /// The centre's state is known: go on from what it has.
    pub(crate) fn answered(&mut self, asked: &Question, evidence: &Evidence, now: Now) {
        if self.phase != Phase::Asking {
            return;
        }
        let target = asked.target.clone();
        if self.target.as_ref() != Some(&target) {
            return self.ask_again(now);
        }
        let Some(checkpoint) = &self.checkpoint else {
            return self.anchor(target, self.start, evidence, now);
        };
        if self.cut {
            let from = checkpoint.acked;
            return self.anchor(target, from, evidence, now);
        }
        if checkpoint.target != target {
            let from = checkpoint.acked;
            self.notes.push(Note::OtherTarget { from: from.offset.get() });
            return self.anchor(target, from, evidence, now);
        }
        let acked = checkpoint.acked.offset.get();
        let at = |last: i32| {
            let last = Sequence::new(last)?;
            let end = acked + checkpoint.sequence_at(acked).distance_to(last.plus(1));
            // Beyond the end that the directory came with it is a twin's, who has other records there.
            Some(checkpoint.moved.map_or(end, |moved| end.min(moved.get())))
        };
        let remembered = evidence.remembered.and_then(at);
        let found = evidence.found.and_then(at).filter(|found| *found > acked);
        if !evidence.scanned && remembered.is_none() {
            return self.ask_again(now);
        }
        if evidence.scanned {
            self.go_on_from_search(found.unwrap_or(acked), remembered, evidence, now);
        } else if let Some(resume) = remembered {
            self.go_on_from_memory(resume, acked, evidence, now);
        }
    }

    /// The leader remembers us up to `resume`. Its memory may be ahead of its replicas, so the last batch is sent
    /// again: the answer to a duplicate comes when the replicas have the original.
    fn go_on_from_memory(&mut self, resume: i64, acked: i64, evidence: &Evidence, now: Now) {
        if resume > evidence.source_end {
            // Not our doing: a copy of this data directory runs elsewhere under the same producer.
            self.renew = true;
            return self.ask_again(now);
        }
        // What is not replicated can be forgotten with the next leader: only an answer shows that it is.
        self.remembered = resume == acked;
        self.probe_end = (resume > acked).then_some(resume);
        self.next = if resume > acked { resume - 1 } else { resume };
        if resume < acked {
            let anchor = self.checkpoint.as_ref().map_or(0, |c| c.anchor.source.offset.get());
            self.notes.push(Note::TargetLost { records: acked - resume });
            if resume < evidence.source_start.max(anchor) {
                self.renew = true;
                return self.ask_again(now);
            }
        }
        self.phase = Phase::Streaming { not_before: 0 };
    }

    /// The target was searched: all up to `resume` is in it, and visible, so its replicas have it.
    fn go_on_from_search(
        &mut self,
        resume: i64,
        remembered: Option<i64>,
        evidence: &Evidence,
        now: Now,
    ) {
        let renews = self.renews();
        let Some(checkpoint) = &mut self.checkpoint else { return };
        let acked = checkpoint.acked;
        let mut resume = resume;
        if let Some(remembered) = remembered.filter(|r| *r > resume && *r <= evidence.source_end) {
            if !evidence.floor_gone {
                // Appended, not yet replicated: it will be seen in a moment.
                return self.ask_again(now);
            }
            resume = remembered;
        } else if evidence.floor_gone && evidence.found.is_none() {
            self.notes.push(Note::Doubtful { from: resume });
        }
        if resume > evidence.source_end {
            self.renew = true;
            resume = acked.offset.get();
        }
        let renews = renews || self.renew;
        if resume > acked.offset.get() {
            checkpoint.acked.offset = Offset::new(resume).unwrap_or(acked.offset);
            if let Some(delta) = checkpoint.delta() {
                checkpoint.floor = checkpoint.floor.max(resume.saturating_add(delta));
            }
            self.changed = true;
        }
        if renews {
            let (target, from) = (checkpoint.target.clone(), checkpoint.acked);
            let offset = from.offset.get();
            self.notes.push(match checkpoint.moved {
                Some(_) => Note::OtherMachine { from: offset },
                None => Note::NewProducer { from: offset },
            });
            return self.anchor(target, from, evidence, now);
        }
        self.next = resume;
        self.probe_end = None;
        self.remembered = evidence.remembered.is_some();
        self.phase = Phase::Streaming { not_before: 0 };
    }

    /// Begins under a new producer id at `source`.
    fn anchor(&mut self, target: Target, source: Position, evidence: &Evidence, now: Now) {
        let Some(producer) = evidence.fresh else {
            self.renew |= !self.cut && self.checkpoint.as_ref().is_some_and(|c| c.target == target);
            return self.ask_again(now);
        };
        let same_target = self.checkpoint.take().filter(|c| c.target == target && !self.cut);
        self.checkpoint = Some(Checkpoint {
            target,
            producer,
            anchor: Anchor { source, sequence: Sequence::ZERO },
            acked: source,
            floor: evidence.end,
            steps: same_target.map_or_else(Vec::new, |c| c.steps),
            moved: None,
        });
        self.next = source.offset.get();
        self.probe_end = None;
        self.remembered = false;
        self.renew = false;
        self.cut = false;
        self.strikes = 0;
        self.phase = Phase::Anchoring { handed_out: false };
    }

    /// The checkpoint given out by [`Want::Persist`] is durable.
    pub(crate) fn durable(&mut self) {
        if self.phase == (Phase::Anchoring { handed_out: true }) {
            let moved = self.checkpoint.as_ref().map(|c| &c.target) != self.target.as_ref();
            self.phase = match moved {
                true => Phase::Unresolved { not_before: 0 },
                false => Phase::Streaming { not_before: 0 },
            };
        }
    }

    /// The checkpoint could not be handed over: ask for it again.
    pub(crate) fn not_durable(&mut self) {
        if let Phase::Anchoring { handed_out } = &mut self.phase {
            *handed_out = false;
        }
    }
}
