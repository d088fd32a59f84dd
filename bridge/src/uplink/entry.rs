//! One partition of an uplink, as the task holds it: the state machine with its source, its hold, the batches read
//! ahead, and the checkpoints on their way to the disk.

use super::checkpoint::{Key, Target};
use super::mirror::{Mirror, Note, Now, Passed, Timing};
use super::store::{Store, Written};
use bytes::Bytes;
use headwater_log::batch::BatchHeader;
use headwater_log::{Hold, Offset, Partition, Position, ReadLimit, ReadOutcome, Settled};
use std::collections::VecDeque;
use std::sync::Arc;

/// The same reason of the same partition is logged again after this long.
const LOG_AGAIN_MS: u64 = 600_000;

/// A batch that was read ahead.
#[derive(Debug)]
struct Buffered {
    header: BatchHeader,
    bytes: Bytes,
    /// The end of a transaction, a part of an aborted one, or without a record: not for the centre.
    left_out: bool,
}

/// A partition and its mirror.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) source: Arc<Partition>,
    pub(crate) hold: Arc<Hold>,
    pub(crate) key: Key,
    /// The topic at the centre.
    pub(crate) target: String,
    /// The node that leads the target partition.
    pub(crate) leader: Option<i32>,
    pub(crate) mirror: Mirror,
    buffer: VecDeque<Buffered>,
    buffer_bytes: usize,
    /// Offsets were just passed over: the anchor behind them waits to be made durable.
    pub(crate) passed_over: bool,
    /// A read of the disk is under way.
    pub(crate) reading: bool,
    /// A read failed: not again before this moment.
    pub(crate) read_after_ms: u64,
    /// Damage that the last read met: offsets that cannot be read, first and end.
    pub(crate) damage: Option<(Offset, Offset)>,
    /// A new anchor on its way to the disk.
    anchoring: Option<(Written, Offset)>,
    /// Progress on its way to the disk.
    progress: Option<(Written, Offset)>,
    /// The source topic was deleted.
    pub(crate) gone: bool,
    /// The source cannot be read, or the centre has no such partition.
    pub(crate) trouble: Option<String>,
    logged: Option<(String, u64)>,
    /// The timestamp of the first record to send when this was taken up, and its offset.
    first: (Offset, Option<i64>),
}

impl Entry {
    /// Takes a partition up where its checkpoint says, or at the start of its log. Blocks for one read.
    pub(crate) fn new(
        source: Arc<Partition>,
        key: Key,
        target: String,
        store: &Store,
        timing: Timing,
        now: Now,
    ) -> Self {
        let hold = source.hold(&super::hold_name(&key.uplink));
        // Store::open has decoded every checkpoint once: an error here cannot be.
        let checkpoint = store.get(&key).ok().flatten();
        let start = source.positions().log_start;
        let start = Position { epoch: source.epoch_of(start).unwrap_or_default(), offset: start };
        let from = checkpoint.as_ref().map_or(start.offset, |c| c.acked.offset);
        let oldest = first_timestamp_ms(&source, from);
        let mut mirror = Mirror::new(timing, start, checkpoint, oldest, now);
        if let Some(end) = diverged(&source, mirror.acked_position()) {
            mirror.cut_to(end);
        }
        hold.advance(mirror.acked());
        hold.checkpoint(mirror.acked());
        Self {
            source,
            hold,
            key,
            target,
            leader: None,
            mirror,
            buffer: VecDeque::new(),
            buffer_bytes: 0,
            passed_over: false,
            reading: false,
            read_after_ms: 0,
            damage: None,
            anchoring: None,
            progress: None,
            gone: false,
            trouble: None,
            logged: None,
            first: (from, oldest),
        }
    }

    /// Exclusive end of what may be sent.
    pub(crate) fn end(&self) -> Offset {
        let positions = self.source.positions();
        positions.synced.min(positions.last_stable)
    }

    /// Whether something waits that was not acknowledged.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.gone && self.mirror.acked() < self.end()
    }

    /// The batch read ahead that holds `offset`, if there is one. Batches below it are dropped.
    pub(crate) fn buffered(&mut self, offset: i64) -> Option<(BatchHeader, Bytes)> {
        while let Some(Buffered { header, bytes, .. }) = self.buffer.front() {
            if header.last_offset() >= offset {
                return Some((*header, bytes.clone()));
            }
            self.pop();
        }
        None
    }

    /// Where what was read ahead goes on after what is not for the centre, if it begins with that (exclusive end).
    pub(crate) fn left_out_to(&self) -> Option<i64> {
        let left_out = self.buffer.iter().take_while(|batch| batch.left_out);
        left_out.last().map(|batch| batch.header.last_offset() + 1)
    }

    /// Takes the front of what was read ahead.
    pub(crate) fn pop(&mut self) {
        if let Some(batch) = self.buffer.pop_front() {
            self.buffer_bytes -= batch.bytes.len();
        }
    }

    /// Forgets what was read ahead.
    pub(crate) fn clear_buffer(&mut self) {
        self.buffer.clear();
        self.buffer_bytes = 0;
    }

    /// Bytes read ahead.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Keeps batches that were read. An error names the one that is not a batch.
    pub(crate) fn fill(&mut self, read: ReadOutcome) -> Result<(), String> {
        for bytes in read.batches {
            let header = BatchHeader::parse(&bytes).map_err(|e| {
                format!("a batch of {} {}: {e}", self.source.topic(), self.source.id())
            })?;
            self.buffer_bytes += bytes.len();
            let left_out = header.is_control()
                || header.record_count == 0
                || read.aborted.iter().any(|t| t.covers(&header));
            self.buffer.push_back(Buffered { header, bytes, left_out });
        }
        Ok(())
    }

    /// Notes the epoch of what is acknowledged, when that did not come with an answer.
    pub(crate) fn note_epoch(&mut self) {
        let last = Offset::new(self.mirror.acked().get() - 1);
        if let Some(epoch) = last.and_then(|last| self.source.epoch_of(last)) {
            self.mirror.set_acked_epoch(epoch);
        }
    }

    /// The centre has the partition, led by `leader`.
    pub(crate) fn set_target(&mut self, target: &Target, leader: Option<i32>, now: Now) {
        self.trouble = None;
        self.leader = leader;
        self.mirror.set_target(target, now);
    }

    /// Hands a new anchor to the store.
    pub(crate) fn persist(&mut self, store: &mut Store, anchor: &super::checkpoint::Checkpoint) {
        match store.put(&self.key, anchor) {
            Ok(written) => self.anchoring = Some((written, anchor.acked.offset)),
            Err(_) => self.mirror.not_durable(),
        }
    }

    /// Hands progress to the store, if there is any and none is on its way.
    pub(crate) fn persist_progress(&mut self, store: &mut Store) {
        if self.progress.is_some() || self.gone {
            return;
        }
        let Some(checkpoint) = self.mirror.take_progress() else { return };
        let acked = checkpoint.acked.offset;
        match store.put(&self.key, checkpoint) {
            Ok(written) => self.progress = Some((written, acked)),
            Err(_) => self.mirror.put_progress_back(),
        }
    }

    /// Looks whether checkpoints became durable. Answers whether the mirror may have something new to do.
    pub(crate) fn poll_durable(&mut self) -> bool {
        if let Some((written, acked)) = &self.progress {
            match written.settled() {
                Settled::Waiting => {}
                Settled::Passed => {
                    self.hold.checkpoint(*acked);
                    self.progress = None;
                }
                Settled::Lost(_) => {
                    self.progress = None;
                    self.mirror.put_progress_back();
                }
            }
        }
        let Some((written, acked)) = &self.anchoring else { return false };
        match written.settled() {
            Settled::Waiting => return false,
            Settled::Passed => {
                self.hold.advance(*acked);
                self.hold.checkpoint(*acked);
                self.mirror.durable();
            }
            Settled::Lost(_) => self.mirror.not_durable(),
        }
        self.anchoring = None;
        true
    }

    /// Whether a checkpoint is not yet on disk.
    pub(crate) fn is_persisting(&self) -> bool {
        self.anchoring.is_some() || self.progress.is_some()
    }

    /// Why it stands still.
    pub(crate) fn stopped(&self) -> Option<&str> {
        self.mirror.stopped().or(self.trouble.as_deref())
    }

    /// When the oldest unacknowledged record was made, as far as it is known without the disk.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        let acked = self.mirror.acked();
        self.mirror.oldest_in_flight_ms().or_else(|| {
            let front = self.buffer.front().filter(|b| b.header.base_offset <= acked.get());
            front.map(|batch| batch.header.base_timestamp).or_else(|| {
                let near = self.source.is_in_memory(acked) && acked < self.end();
                let near = near.then(|| first_timestamp_ms(&self.source, acked)).flatten();
                near.or(self.first.1.filter(|_| self.first.0 == acked))
            })
        })
    }

    /// Tells people what the mirror has to tell. Answers how often somebody else wrote to the target.
    pub(crate) fn log_notes(&mut self, now: Now) -> u64 {
        let mut foreign = 0;
        for note in self.mirror.take_notes() {
            let (uplink, topic, partition) =
                (self.key.uplink.as_str(), self.source.topic().as_str(), self.source.id().get());
            match note {
                Note::Foreign { from, delta } => {
                    foreign += 1;
                    // The delta differs each time; who writes there is the news, and that only once in a while.
                    if is_news(&mut self.logged, "somebody else writes to the target", now) {
                        tracing::warn!(
                            uplink,
                            topic,
                            partition,
                            target = self.target,
                            from,
                            delta,
                            "somebody else writes to the target topic: offsets there differ by {delta} from {from} on"
                        );
                    }
                }
                Note::Skipped { from, to, passed: Passed::Lost } => tracing::warn!(
                    uplink,
                    topic,
                    partition,
                    from,
                    to,
                    "records were deleted or damaged here before they were mirrored: {from}..{to} will not be in the centre"
                ),
                Note::Skipped { .. } => {}
                Note::SourceLost { from, records } => tracing::error!(
                    uplink,
                    topic,
                    partition,
                    from,
                    records,
                    "{records} records from {from} on are in the centre and were lost here; what is stored from there on follows them"
                ),
                Note::OtherTarget { from } => tracing::warn!(
                    uplink,
                    topic,
                    partition,
                    target = self.target,
                    from,
                    "the target topic is another one than before: mirroring goes on there from {from}"
                ),
                Note::TargetLost { records } => tracing::error!(
                    uplink,
                    topic,
                    partition,
                    target = self.target,
                    records,
                    "the centre has lost {records} records that it had acknowledged; they are sent again"
                ),
                Note::NewProducer { from } => tracing::warn!(
                    uplink,
                    topic,
                    partition,
                    from,
                    "the centre refused our producer id: a new one is used from {from} on"
                ),
                Note::OtherMachine { from } => tracing::warn!(
                    uplink,
                    topic,
                    partition,
                    from,
                    "the data directory came from another machine: a new producer id is used from {from} on"
                ),
                Note::Doubtful { from } => tracing::warn!(
                    uplink,
                    topic,
                    partition,
                    from,
                    "the centre has deleted the part that could hold the newest records: some after {from} may be there twice"
                ),
                Note::Stopped { reason } => {
                    if is_news(&mut self.logged, &reason, now) {
                        tracing::error!(
                            uplink,
                            topic,
                            partition,
                            target = self.target,
                            "mirroring of this partition has stopped: {reason}"
                        );
                    }
                }
            }
        }
        foreign
    }
}

/// Where the source's history leaves the one that was mirrored up to `acked`, if it does (KIP-101): after a loss here,
/// other records stand at the offsets of the lost ones.
fn diverged(source: &Partition, acked: Position) -> Option<Position> {
    let positions = source.positions();
    if acked.offset <= positions.log_start {
        return None;
    }
    let known =
        source.end_of_epoch(acked.epoch).map(|(epoch, end)| Position { epoch, offset: end });
    let end = Position { epoch: positions.epoch, offset: positions.log_end };
    known.filter(|k| k.offset < acked.offset).or((end.offset < acked.offset).then_some(end))
}

/// Whether a sentence was not logged lately; if so, it is from now on.
fn is_news(logged: &mut Option<(String, u64)>, reason: &str, now: Now) -> bool {
    let known = logged.as_ref().is_some_and(|(sentence, at)| {
        sentence == reason && now.mono_ms < at.saturating_add(LOG_AGAIN_MS)
    });
    if !known {
        *logged = Some((reason.to_owned(), now.mono_ms));
    }
    !known
}

/// The first timestamp of the batch at `offset`, or nothing where there is none to read.
fn first_timestamp_ms(source: &Partition, offset: Offset) -> Option<i64> {
    let read = source.read(offset, 1, ReadLimit::SyncedAndStable).ok()?;
    let first = read.batches.first()?;
    let header = BatchHeader::parse(first).ok()?;
    // A delete horizon stands where the base timestamp was (KIP-534).
    let horizon = header.delete_horizon_ms().is_some();
    Some(if horizon { header.max_timestamp } else { header.base_timestamp })
}
