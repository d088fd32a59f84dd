//! A partition: appends, positions, and the one reader (steps 7, 8 and 11).
//!
//! Batches pass through four places: the open batch, sealed in the tail, committed in the tail, written to a segment. Two locks:
//! `state` is short and never held over a system call; `writer` is the commit and checkpoint side, taken before `state`.
//!
//! Invariant: `log_start <= high_watermark <= log_end`. No pointer goes back but, on a follower that is truncated, `written`
//! and `synced` with the log end, never below the high watermark; elsewhere the log end goes back only with a new epoch.
//! Neighbours: `append` fills the open batch, `commit` takes what waits, `read` serves, `hold` keeps retention back, `replica`
//! is for partitions that are not alone.

mod append;
pub(crate) mod bulk;
mod commit;
mod compacted;
mod compress;
mod cut;
pub(crate) mod epochs;
mod error;
mod hold;
mod labels;
mod lookup;
mod lost;
mod positions;
pub(crate) mod producers;
mod read;
pub(crate) mod replay;
pub(crate) mod replica;
mod state;
pub(crate) mod sync;
mod transactions;
mod writer;

pub(crate) use commit::Taken;
pub use error::{AppendError, ReadError};
pub use hold::Hold;
pub use labels::Labelled;
use positions::Points;
pub use positions::{AckPoint, Loss, Positions, ReadLimit, Settled};
pub use producers::{Origin, VerificationGuard};
pub use replica::{ReplicaError, Role, Truncated};
pub(crate) use writer::{PlanError, SEGMENT_BYTES_LIMIT};

use crate::metadata::{Durability, TopicSettings};
use crate::segment::Segment;
use crate::segment::txnindex::AbortedTransaction;
use crate::shared::Shared;
use crate::{LeaderEpoch, Offset, PartitionId, Position, TopicId, TopicName};
use bytes::Bytes;
use compacted::Compacted;
use parking_lot::{Mutex, RwLock};
use state::State;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use writer::Writer;

/// One partition of one topic. Shared as `Arc<Partition>`; every method may be called from any thread.
pub struct Partition {
    /// Itself, for the commit queue.
    me: Weak<Partition>,
    topic: TopicName,
    topic_id: TopicId,
    id: PartitionId,
    handle: u64,
    folder: PathBuf,
    /// The metadata record that made it, 0 for one that a start found.
    created: u64,
    shared: Arc<Shared>,
    /// The topic's: one for all its partitions.
    settings: RwLock<Arc<TopicSettings>>,
    /// The durability in force, which follows the settings only over a checkpoint.
    memory: AtomicBool,
    batch_bytes_max: AtomicUsize,
    condition: AtomicU8,
    role: AtomicU8,
    points: Points,
    state: Mutex<State>,
    writer: Mutex<Writer>,
    /// Held over the removal of segment files, which the writer need not wait for; taken before `writer`.
    removal: Mutex<()>,
    segments: RwLock<Vec<Arc<Segment>>>,
    /// Some segment may hold an abort marker.
    aborts: AtomicBool,
    compacted: Compacted,
    holds: Mutex<Vec<(String, Arc<Hold>)>>,
    /// Offsets whose records were lost to damage: first and end of each, rising.
    lost: RwLock<Vec<(i64, i64)>>,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.id)
    }
}

/// Whether a partition takes appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Condition {
    Well = 0,
    /// No room: refused until a probe finds some.
    Full = 1,
    Deleted = 2,
    /// Acknowledged records are missing here: nothing is added behind them.
    Damaged = 3,
    /// Its directory is not in use: nothing is known of what it holds.
    Missing = 4,
}

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first record. For a duplicate: of the original.
    pub base: Position,
    /// Position of the last record: wait for this one with [`Partition::settled`].
    pub last: Position,
    /// The batch was here already (same producer id, epoch and sequence).
    pub duplicate: bool,
}

/// What a read found.
#[derive(Debug, Clone)]
pub struct ReadOutcome {
    /// Whole batches in offset order. The first may begin below the offset asked for.
    pub batches: Vec<Bytes>,
    /// Positions when the read was made.
    pub positions: Positions,
    /// The offset to ask for next.
    pub next: Offset,
    /// For readers of committed data: the aborted transactions that overlap with what was read. Batches that one of them
    /// [covers](AbortedTransaction::covers) are to be left out, and control batches.
    pub aborted: Vec<AbortedTransaction>,
}

/// The answer of a lookup by timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetAndTimestamp {
    /// Offset of the record.
    pub offset: Offset,
    /// Its timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Epoch it was appended in.
    pub epoch: LeaderEpoch,
}

/// What the log knows of one producer in one partition (Kafka's DescribeProducers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Producer id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of its last record; -1 when none is known in its epoch.
    pub last_sequence: i32,
    /// Largest timestamp of its last batch.
    pub last_timestamp_ms: i64,
    /// Offset of its last record, where one is known in its epoch.
    pub last_offset: Option<Offset>,
    /// Epoch of the coordinator that ended its last transaction; -1 before the first.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub open_from: Option<Offset>,
}

impl Partition {
    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The topic's id.
    #[must_use]
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// When its high watermark moves.
    #[must_use]
    pub fn durability(&self) -> Durability {
        if self.is_memory() { Durability::Memory } else { Durability::Fsync }
    }

    /// The end offset of the largest epoch that is at most `epoch` (KIP-101), with that epoch. `None` when nothing is known of it.
    /// An epoch before all that are left in the log ended where the log starts.
    #[must_use]
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = self.state.lock();
        // An epoch that nothing was appended in yet ends where the log ends.
        if epoch >= self.epoch() {
            return (epoch == self.epoch()).then_some((epoch, state.end));
        }
        state.epochs.end_of(epoch, self.log_start(), state.end)
    }

    /// The epoch in which the record at `offset` was appended.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let state = self.state.lock();
        if offset >= state.end { None } else { state.epochs.of(offset) }
    }

    /// Active idempotent producers.
    #[must_use]
    pub fn producers(&self) -> Vec<Producer> {
        self.state.lock().producers.list()
    }

    /// The number of the data directory that holds it.
    #[must_use]
    pub fn directory(&self) -> u16 {
        self.shared.number.get()
    }

    /// Why nothing is known of what it holds, if so: its data directory is not in use. Its positions mean nothing then.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let missing = self.condition() == Condition::Missing;
        missing.then(|| self.shared.offline().unwrap_or_default())
    }

    pub(crate) fn set_missing(&self) {
        self.set_condition(Condition::Missing);
    }

    /// Refuses what cannot be answered for a partition that is missing.
    fn check_present(&self) -> Result<(), ReadError> {
        match self.missing() {
            Some(error) => Err(ReadError::Io { file: self.folder.display().to_string(), error }),
            None => Ok(()),
        }
    }

    /// Bytes on disk.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let pending = self.state.lock().pending_bytes as u64;
        self.segments.read().iter().map(|s| s.written()).sum::<u64>() + pending
    }

    /// The hold of this name, made at the current log start if there was none.
    #[must_use]
    pub fn hold(&self, name: &str) -> Arc<Hold> {
        let mut holds = self.holds.lock();
        if let Some((_, hold)) = holds.iter().find(|(n, _)| n == name) {
            return Arc::clone(hold);
        }
        let start = self.points.log_start.load(Ordering::Acquire);
        let hold = Arc::new(Hold::new(Offset::new(start).unwrap_or_default(), &self.shared));
        holds.push((name.to_owned(), Arc::clone(&hold)));
        hold
    }

    /// The lowest offset that somebody's durable checkpoint still needs.
    pub(crate) fn held_from(&self) -> Option<Offset> {
        self.holds.lock().iter().map(|(_, hold)| hold.checkpointed()).min()
    }

    pub(crate) fn handle(&self) -> u64 {
        self.handle
    }

    /// What it shares with the other partitions of its directory.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether that directory holds it.
    pub(crate) fn is_in(&self, directory: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, directory)
    }

    pub(crate) fn created(&self) -> u64 {
        self.created
    }

    pub(crate) fn is_memory(&self) -> bool {
        self.memory.load(Ordering::Acquire)
    }

    pub(crate) fn settings(&self) -> Arc<TopicSettings> {
        Arc::clone(&self.settings.read())
    }

    pub(crate) fn condition(&self) -> Condition {
        match self.condition.load(Ordering::Acquire) {
            1 => Condition::Full,
            2 => Condition::Deleted,
            3 => Condition::Damaged,
            4 => Condition::Missing,
            _ => Condition::Well,
        }
    }

    /// Takes over changed settings; a changed durability waits for the committer.
    pub(crate) fn set_settings(&self, settings: &Arc<TopicSettings>) {
        self.batch_bytes_max.store(
            (settings.batch_bytes_max as usize).min(self.shared.journal_batch_bytes_max),
            Ordering::Relaxed,
        );
        *self.settings.write() = Arc::clone(settings);
    }

    /// Whether the settings ask for another durability than the one in force.
    pub(crate) fn wants_other_durability(&self) -> bool {
        (self.settings.read().durability == Durability::Memory) != self.is_memory()
    }

    /// Puts the durability that the settings ask for into force. Only between a commit and a checkpoint, by the committer.
    pub(crate) fn switch_durability(&self) {
        let memory = self.settings.read().durability == Durability::Memory;
        self.memory.store(memory, Ordering::Release);
    }

    /// Takes [`Partition::switch_durability`] back: the checkpoint did not come about. It is tried again with the next cycle.
    pub(crate) fn keep_durability(&self) {
        self.memory.fetch_xor(true, Ordering::AcqRel);
    }

    fn set_condition(&self, condition: Condition) {
        let before = self.condition.swap(condition as u8, Ordering::AcqRel);
        let full = &self.shared.counters.partitions_full;
        match (before == Condition::Full as u8, condition == Condition::Full) {
            (false, true) => full.fetch_add(1, Ordering::Relaxed),
            (true, false) => full.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}
