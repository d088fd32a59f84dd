//! Why an append or a read was refused: in each variant what the caller can do.
//!
//! Invariant: who gets one of these has changed nothing, and knows from its variant whether to wait, to give up or to go elsewhere.
//! Neighbours: `append` and `read` make them; the bridge and the Kafka door turn them into their protocols' codes.

use crate::Offset;

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
