//! Headwater's partition log: Kafka's record batches and file layout behind one commit journal.

mod ballast;
pub mod batch;
mod bulk;
mod catalog;
mod checkpoint;
pub mod clock;
mod commit;
mod compaction;
mod compressor;
mod create;
mod damage;
mod directory;
pub mod disk;
mod encoding;
mod engine;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod fuzzing;
mod ids;
pub mod inspect;
mod journal;
mod log;
pub mod metadata;
mod node;
mod pace;
mod partition;
pub mod record;
mod recovery;
mod retention;
mod segment;
mod shared;
mod space;
mod stats;
mod superblock;
#[cfg(test)]
mod tests;
mod threads;

pub use compaction::CompactionOptions;
pub use ids::{LeaderEpoch, Offset, PartitionId, Position, TopicId, TopicName};
pub use log::{Log, LogOptions, OpenError, Recovery, Running, Topic};
pub use partition::{
    AckPoint, AppendError, Appended, Hold, Labelled, Loss, OffsetAndTimestamp, Origin, Partition,
    Positions, Producer, ReadError, ReadLimit, ReadOutcome, ReplicaError, Role, Settled, Truncated,
    VerificationGuard,
};
pub use recovery::RecoveryParts;
pub use segment::labels::{LabelHash, Labeller};
pub use segment::txnindex::AbortedTransaction;
pub use space::{EarlyRemoval, Share};
pub use stats::{CompactionStats, DirectoryStats, LogStats};
