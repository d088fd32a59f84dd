//! A partition: appends, positions, and the one reader.

use crate::metadata::Durability;
use crate::record::RecordParts;
use crate::{LeaderEpoch, Offset, PartitionId, Position, TopicId, TopicName};
use bytes::Bytes;
use std::sync::Arc;

/// One partition of one topic. Shared as `Arc<Partition>`; every method may be called from any thread.
#[derive(Debug)]
pub struct Partition {}

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
    /// Readers of committed data see up to here (no transactions yet: the high watermark).
    pub last_stable: Offset,
    /// The current leader epoch.
    pub epoch: LeaderEpoch,
}

/// What a reader may see (design invariant 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLimit {
    /// Kafka's read_uncommitted.
    HighWatermark,
    /// MQTT subscribers, connectors, Kafka's read_committed.
    LastStable,
    /// The uplink: the last stable offset, and synced.
    SyncedAndStable,
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
    /// The memory for uncommitted bytes is used up: wait until positions move, then try again.
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
    /// A record or batch above `batch_bytes_max`.
    #[error("{size_bytes} bytes are more than the {limit_bytes} allowed")]
    TooLarge {
        /// What was given.
        size_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
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

/// What the log knows of one idempotent producer in one partition (Kafka's DescribeProducers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Producer id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Largest timestamp of its last batch.
    pub last_timestamp_ms: i64,
}

/// Holds retention back for one reader that must see every record, such as an uplink.
///
/// `checkpointed` is what retention respects; `reached` is what an `ack = "mirrored"` waits for.
#[derive(Debug)]
pub struct Hold {}

impl Hold {
    /// Next offset that the reader has not been acknowledged for by its target (exclusive end).
    #[must_use]
    pub fn reached(&self) -> Offset {
        unimplemented!()
    }
    /// Moves `reached` forward (never back) and wakes those who wait. Call once per response, not per record.
    pub fn advance(&self, _end: Offset) {
        unimplemented!()
    }
    /// What the reader's durable checkpoint says (exclusive end).
    #[must_use]
    pub fn checkpointed(&self) -> Offset {
        unimplemented!()
    }
    /// Moves `checkpointed` forward (never back). Call only after the checkpoint record is synced.
    pub fn checkpoint(&self, _end: Offset) {
        unimplemented!()
    }
}

impl Partition {
    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        unimplemented!()
    }
    /// The topic's id.
    #[must_use]
    pub fn topic_id(&self) -> TopicId {
        unimplemented!()
    }
    /// Its number.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        unimplemented!()
    }
    /// When its high watermark moves.
    #[must_use]
    pub fn durability(&self) -> Durability {
        unimplemented!()
    }
    /// All pointers at one moment.
    #[must_use]
    pub fn positions(&self) -> Positions {
        unimplemented!()
    }
    /// Adds records to the open batch under one lock (step 7). Either all are appended or none.
    /// The batch is sealed by the next commit cycle, by its size limit, or by any other kind of append.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is stored then.
    pub fn append(&self, _records: &[RecordParts<'_>]) -> Result<Appended, AppendError> {
        unimplemented!()
    }
    /// Appends one batch made by a Kafka client. Checks what Kafka's broker checks, assigns offset and epoch in place.
    ///
    /// # Errors
    /// [`AppendError`]; nothing is stored then.
    pub fn append_batch(&self, _batch: bytes::BytesMut) -> Result<Appended, AppendError> {
        unimplemented!()
    }
    /// Whether the record at `position` has passed `point`. Cheap (a few atomic loads): for waiters that are woken once per cycle.
    #[must_use]
    pub fn settled(&self, _point: AckPoint, _position: Position) -> Settled {
        unimplemented!()
    }
    /// Reads whole batches from `from`, at most `bytes_max` of them but at least one, up to `limit`. Served from memory at the
    /// tail (never blocks there); from the files otherwise: call it from a thread that may block, or ask [`Partition::is_in_memory`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(
        &self,
        _from: Offset,
        _bytes_max: usize,
        _limit: ReadLimit,
    ) -> Result<ReadOutcome, ReadError> {
        unimplemented!()
    }
    /// Whether a read from this offset is served from memory (no disk access).
    #[must_use]
    pub fn is_in_memory(&self, _from: Offset) -> bool {
        unimplemented!()
    }
    /// The first record whose timestamp is at least `timestamp_ms` (Kafka's ListOffsets).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn offset_for_timestamp(
        &self,
        _timestamp_ms: i64,
    ) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        unimplemented!()
    }
    /// The record with the largest timestamp (Kafka's ListOffsets -3).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn offset_of_max_timestamp(&self) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        unimplemented!()
    }
    /// The end offset of the largest epoch that is at most `epoch` (KIP-101), with that epoch. `None` when nothing is known of it.
    #[must_use]
    pub fn end_of_epoch(&self, _epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        unimplemented!()
    }
    /// The epoch in which the record at `offset` was appended.
    #[must_use]
    pub fn epoch_of(&self, _offset: Offset) -> Option<LeaderEpoch> {
        unimplemented!()
    }
    /// Active idempotent producers.
    #[must_use]
    pub fn producers(&self) -> Vec<Producer> {
        unimplemented!()
    }
    /// Bytes on disk.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        unimplemented!()
    }
    /// Bytes stored between `from` and the high watermark, to within one index interval: an uplink's backlog.
    #[must_use]
    pub fn bytes_after(&self, _from: Offset) -> u64 {
        unimplemented!()
    }
    /// Deletes records below `before` (Kafka's DeleteRecords): journalled first, whole segments removed later.
    /// Never above the high watermark. Durable once the next commit cycle has ended.
    pub fn delete_before(&self, _before: Offset) {
        unimplemented!()
    }
    /// The hold of this name, made at the current log start if there was none.
    #[must_use]
    pub fn hold(&self, _name: &str) -> Arc<Hold> {
        unimplemented!()
    }
}
