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
mod commit;
mod compacted;
mod compress;
mod cut;
pub(crate) mod epochs;
mod hold;
mod labels;
mod lookup;
mod lost;
pub(crate) mod producers;
mod read;
pub(crate) mod replay;
pub(crate) mod replica;
mod state;
pub(crate) mod sync;
mod transactions;
mod writer;

pub(crate) use commit::Taken;
pub use hold::Hold;
pub use labels::Labelled;
pub use producers::{Origin, VerificationGuard};
pub use replica::{ReplicaError, Role, Truncated};
pub(crate) use writer::PlanError;

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
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicUsize, Ordering};
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

/// The pointers that waiters look at without a lock. Each is stored after the epoch it belongs to.
#[derive(Debug, Default)]
struct Points {
    log_start: AtomicI64,
    /// The log start that the journal has synced: files below it may go.
    log_start_synced: AtomicI64,
    log_end: AtomicI64,
    written: AtomicI64,
    synced: AtomicI64,
    high_watermark: AtomicI64,
    epoch: AtomicI32,
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

/// The log pointers of a partition, at one moment: `log_start <= high_watermark <= log_end`,
/// `synced <= written <= log_end`. Ends are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// First offset that can be read.
    pub log_start: Offset,
    /// Next offset to be assigned.
    pub log_end: Offset,
    /// Written to the kernel up to here (survives a crash of the process).
    pub written: Offset,
    /// Synced up to here (survives a crash of the machine).
    pub synced: Offset,
    /// Readers see up to here.
    pub high_watermark: Offset,
    /// Readers of committed data see up to here: where the earliest transaction begins that is open, or whose end is not yet
    /// below the high watermark and synced; else the high watermark.
    pub last_stable: Offset,
    /// The current leader epoch.
    pub epoch: LeaderEpoch,
}

/// What a reader may see (ARCHITECTURE.md, invariant 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLimit {
    /// Kafka's read_uncommitted.
    HighWatermark,
    /// MQTT subscribers, connectors, Kafka's read_committed.
    LastStable,
    /// The uplink: the last stable offset, and synced.
    SyncedAndStable,
    /// Followers: all that is written here, above the high watermark too.
    Written,
}

/// What a waiter waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckPoint {
    /// Assigned an offset.
    Appended,
    /// Written to the kernel: Kafka's acks=1.
    Written,
    /// Synced here.
    Synced,
    /// Below the high watermark: Kafka's acks=all, a route's default.
    HighWatermark,
}

/// Whether a waited-for position was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Not yet.
    Waiting,
    /// Reached: acknowledge.
    Passed,
    /// Never will be: do not acknowledge.
    Lost(Loss),
}

/// Why a position will never be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The disk is full: the tail was cut before it was committed. Room may come.
    DiskFull,
    /// The directory is offline after an I/O error; a restart is needed.
    Offline,
    /// The topic was deleted.
    Deleted,
    /// This replica does not lead any more: whether the record stays is decided elsewhere.
    Fenced,
    /// The log was truncated below it: the leader does not have the record.
    Truncated,
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

/// Why an append was refused. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The memory for uncommitted bytes is used up, or every producer that can be remembered has a transaction open: wait until
    /// positions move, then try again.
    #[error("append path is full")]
    Busy,
    /// The disk is full: refuse.
    #[error("disk is full")]
    DiskFull,
    /// The directory is offline.
    #[error("log is offline: {0}")]
    Offline(String),
    /// The topic was deleted.
    #[error("topic was deleted")]
    Deleted,
    /// Another replica leads, or none does yet (Kafka's NOT_LEADER_OR_FOLLOWER).
    #[error("this replica does not lead")]
    NotLeader,
    /// A record or batch above `batch_bytes_max`.
    #[error("{size_bytes} bytes are more than the {limit_bytes} allowed")]
    TooLarge {
        /// What was given.
        size_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// A compacted topic takes no record without a key: it could only drop it.
    #[error("a compacted topic takes no record without a key")]
    Keyless {
        /// Which records of the batch have none, from 0 on; the first hundred.
        records: Vec<u32>,
    },
    /// The batch is not what Kafka would accept.
    #[error(transparent)]
    Corrupt(#[from] crate::batch::BatchError),
    /// A sequence gap for this producer id (Kafka's OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error("sequence {found} of producer {producer_id} is not the expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// Expected next sequence.
        expected: i32,
        /// Sequence in the batch.
        found: i32,
    },
    /// An older epoch of this producer id (Kafka's INVALID_PRODUCER_EPOCH).
    #[error("producer {producer_id} epoch {found} is fenced by {current}")]
    ProducerFenced {
        /// The producer.
        producer_id: i64,
        /// Current epoch.
        current: i16,
        /// Epoch in the batch.
        found: i16,
    },
    /// The batch does not belong to an open or verified transaction, or not to the open one (Kafka's INVALID_TXN_STATE).
    #[error("batch of producer {producer_id} is refused: {reason}")]
    InvalidTransaction {
        /// The producer.
        producer_id: i64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A marker of a coordinator that has a successor (Kafka's TRANSACTION_COORDINATOR_FENCED).
    #[error("coordinator epoch {found} for producer {producer_id} is fenced by {current}")]
    CoordinatorFenced {
        /// The producer.
        producer_id: i64,
        /// The successor's epoch.
        current: i32,
        /// Epoch in the marker.
        found: i32,
    },
}

/// Why a read failed. Nothing is returned then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Below the log start or above the log end.
    #[error("offset {offset} is outside {log_start}..={log_end}")]
    OutOfRange {
        /// What was asked.
        offset: Offset,
        /// First readable.
        log_start: Offset,
        /// End.
        log_end: Offset,
    },
    /// A batch on disk does not pass its checks. Nothing of it is served.
    #[error(
        "damaged batch in {file} at byte {byte}: {reason}; offsets {first}..{next_good:?} are not readable"
    )]
    Damaged {
        /// Path of the segment.
        file: String,
        /// Byte in it.
        byte: u64,
        /// What is wrong.
        reason: crate::batch::BatchError,
        /// First offset lost.
        first: Offset,
        /// Where reading can go on, if known.
        next_good: Option<Offset>,
    },
    /// The disk answered with an error.
    #[error("reading {file}: {error}")]
    Io {
        /// Path of the file.
        file: String,
        /// The system's message.
        error: String,
    },
    /// The topic was deleted.
    #[error("topic was deleted")]
    Deleted,
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

    /// All pointers at one moment.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.positions_locked(&self.state.lock())
    }

    fn positions_locked(&self, state: &State) -> Positions {
        let point = |p: &AtomicI64| Offset::new(p.load(Ordering::Acquire)).unwrap_or_default();
        let high_watermark = point(&self.points.high_watermark);
        let log_start = point(&self.points.log_start);
        // What was deleted of an open transaction can never be shown: its rest begins at the log start.
        let unstable = state.producers.first_unstable(self.decided_end());
        let last_stable =
            unstable.map_or(high_watermark, |first| first.max(log_start).min(high_watermark));
        Positions {
            log_start,
            log_end: point(&self.points.log_end),
            written: point(&self.points.written),
            synced: point(&self.points.synced),
            high_watermark,
            last_stable,
            epoch: self.epoch(),
        }
    }

    /// Whether the record at `position` has passed `point`. Cheap (a few atomic loads): for waiters that are woken once per cycle.
    #[must_use]
    pub fn settled(&self, point: AckPoint, position: Position) -> Settled {
        let at = match point {
            AckPoint::Appended => &self.points.log_end,
            AckPoint::Written => &self.points.written,
            AckPoint::Synced => &self.points.synced,
            AckPoint::HighWatermark => &self.points.high_watermark,
        };
        // The pointer before the epoch: a pointer that counts records of a newer epoch is seen with that epoch.
        let passed = position.offset.get() < at.load(Ordering::Acquire);
        if self.points.epoch.load(Ordering::Acquire) != position.epoch.get()
            && let Some(loss) = self.cut_off(position)
        {
            return Settled::Lost(loss);
        }
        if passed {
            return Settled::Passed;
        }
        match self.condition() {
            Condition::Deleted => Settled::Lost(Loss::Deleted),
            Condition::Missing => Settled::Lost(Loss::Offline),
            _ if self.shared.is_offline() => Settled::Lost(Loss::Offline),
            _ => self.fenced(point, position).map_or(Settled::Waiting, Settled::Lost),
        }
    }

    /// Why a position of an older epoch names no record any more, if its epoch's tail was cut below it.
    fn cut_off(&self, position: Position) -> Option<Loss> {
        if position.offset < self.log_start() {
            return None;
        }
        let state = self.state.lock();
        let end = state.epochs.end_of(position.epoch, self.log_start(), state.end);
        let there =
            end.is_some_and(|(epoch, end)| epoch == position.epoch && position.offset < end);
        (!there).then(|| state.loss.clone())
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

    fn epoch(&self) -> LeaderEpoch {
        LeaderEpoch::new(self.points.epoch.load(Ordering::Acquire)).unwrap_or_default()
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

    pub(crate) fn log_start(&self) -> Offset {
        Offset::new(self.points.log_start.load(Ordering::Acquire)).unwrap_or_default()
    }

    pub(crate) fn high_watermark(&self) -> Offset {
        Offset::new(self.points.high_watermark.load(Ordering::Acquire)).unwrap_or_default()
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
