//! Metadata as a log of records: one pure `decide`, one pure `apply` (ARCHITECTURE.md, invariant 12).
//!
//! A command is decided against the state into records; the records are journalled, then applied.
//! Only records are stored, since two versions might decide one command differently. Invariant: what
//! [`decide`] returns, [`apply`] takes without error, and `snapshot` replays to an equal state.
//! Neighbours: the engine journals the records and keeps their snapshot in the catalog.

mod decide;
mod encoding;
mod state;
#[cfg(test)]
mod tests;

pub use crate::batch::compression::{Codec, Compression};
pub use decide::{Command, Limits, Offer, decide};
pub use encoding::{MetadataError, decode_all, encode_all};
pub(crate) use state::topic_records;
pub use state::{
    ApplyError, DirectoryMetadata, DirectoryNumber, DirectoryState, MetadataRecord, MetadataState,
    PartitionHandle, PartitionMetadata, TopicMetadata,
};

/// When a topic's high watermark moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Written to the kernel; synced every `memory_sync`; bypasses the journal.
    Memory,
    /// Synced by the journal.
    Fsync,
}

/// A topic's settings. Every field has its final value: defaults are resolved by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// When the high watermark moves.
    pub durability: Durability,
    /// Delete segments older than this, by append time on the log clock. `None` keeps for ever.
    pub retention_ms: Option<u64>,
    /// Delete the oldest segments above this size, per partition. `None` is unbounded.
    pub retention_bytes: Option<u64>,
    /// Roll a segment at this size.
    pub segment_bytes: u64,
    /// Roll a segment whose first record is older than this.
    pub segment_ms: u64,
    /// Largest batch accepted (Kafka's `max.message.bytes`).
    pub batch_bytes_max: u32,
    /// What becomes of old records (Kafka's `cleanup.policy`).
    pub cleanup: Cleanup,
    /// Codec of the batches made here. A client's batches keep theirs.
    pub compression: Compression,
    /// A tombstone is kept this long after a compaction first kept it (Kafka's `delete.retention.ms`).
    pub delete_retention_ms: u64,
    /// Records younger than this are not compacted (Kafka's `min.compaction.lag.ms`).
    pub compaction_lag_ms_min: u64,
    /// Records older than this make a partition due for compaction, however clean it is. `None`: never (Kafka's
    /// `max.compaction.lag.ms`).
    pub compaction_lag_ms_max: Option<u64>,
    /// Compact when this part of a log, in thousandths of its bytes, has not been compacted yet (Kafka's
    /// `min.cleanable.dirty.ratio`).
    pub dirty_ratio_permille: u16,
    /// Roll a segment when an index of it would be larger than this (Kafka's `segment.index.bytes`).
    pub index_bytes_max: u32,
}

impl Default for TopicSettings {
    /// What a topic has that says nothing: kept for seven days, uncompressed, synced.
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            segment_bytes: 64 << 20,
            segment_ms: 604_800_000,
            batch_bytes_max: 1_048_588,
            cleanup: Cleanup::Delete,
            compression: Compression::default(),
            delete_retention_ms: 86_400_000,
            compaction_lag_ms_min: 0,
            compaction_lag_ms_max: None,
            dirty_ratio_permille: 500,
            index_bytes_max: 10 << 20,
        }
    }
}

/// What becomes of old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Segments go by age and size.
    Delete,
    /// The newest record of each key stays.
    Compact,
    /// Both.
    CompactAndDelete,
}

impl Cleanup {
    /// Whether the newest record of each key is what stays.
    #[must_use]
    pub fn compacts(self) -> bool {
        self != Self::Delete
    }

    /// Whether segments go by age and size.
    #[must_use]
    pub fn deletes(self) -> bool {
        self != Self::Compact
    }
}

/// Why metadata refused a command. The caller maps it to its protocol's code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A topic of that name exists.
    #[error("topic {0} exists already")]
    TopicExists(String),
    /// No such topic.
    #[error("topic {0} does not exist")]
    UnknownTopic(String),
    /// The name is not a legal topic name.
    #[error("{0:?} is not a legal topic name: 1 to 249 of A-Z a-z 0-9 . _ -, not . or ..")]
    IllegalName(String),
    /// The name differs from an existing one only in `.` against `_` (Kafka: INVALID_TOPIC_EXCEPTION,
    /// because its metrics could not tell the two apart).
    #[error("topic {name} collides with existing topic: {existing}")]
    Collision {
        /// The name asked for.
        name: String,
        /// The topic that is there.
        existing: String,
    },
    /// Zero, fewer than there are, or more than the limit.
    #[error("{0} partitions are not possible: {1}")]
    Partitions(i32, String),
    /// `topics_max` or `partitions_max` is reached.
    #[error("the limit of {0} {1} is reached")]
    Limit(u32, &'static str),
    /// The log takes no writes: its directory is offline or it is closing.
    #[error("the log is offline: {0}")]
    Offline(String),
}

impl From<&headwater_config::TopicSpec> for TopicSettings {
    /// What the configuration says of a topic; its partition count is an argument of its own.
    fn from(spec: &headwater_config::TopicSpec) -> Self {
        let ms = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            durability: match spec.durability {
                headwater_config::Durability::Memory => Durability::Memory,
                headwater_config::Durability::Fsync => Durability::Fsync,
            },
            retention_ms: spec.retention.map(ms),
            retention_bytes: spec.retention_bytes,
            segment_bytes: spec.segment_bytes,
            segment_ms: ms(spec.segment_time),
            batch_bytes_max: spec.batch_bytes_max,
            compression: Compression {
                codec: match spec.compression {
                    headwater_config::Codec::None => Codec::None,
                    headwater_config::Codec::Gzip => Codec::Gzip,
                    headwater_config::Codec::Snappy => Codec::Snappy,
                    headwater_config::Codec::Lz4 => Codec::Lz4,
                    headwater_config::Codec::Zstd => Codec::Zstd,
                },
                level: spec.compression_level.and_then(|level| i8::try_from(level).ok()),
            },
            index_bytes_max: spec.index_bytes_max,
            cleanup: match spec.cleanup {
                headwater_config::Cleanup::Delete => Cleanup::Delete,
                headwater_config::Cleanup::Compact => Cleanup::Compact,
                headwater_config::Cleanup::CompactAndDelete => Cleanup::CompactAndDelete,
            },
            delete_retention_ms: ms(spec.tombstone_retention),
            compaction_lag_ms_min: ms(spec.compaction_lag),
            compaction_lag_ms_max: spec.compaction_lag_max.map(ms),
            dirty_ratio_permille: u16::from(spec.compaction_dirty_percent) * 10,
        }
    }
}
