//! Headwater's partition log: Kafka's record batches and file layout behind one commit journal.

pub mod batch;
pub mod clock;
pub mod disk;
mod ids;
mod log;
pub mod metadata;
mod partition;
pub mod record;

pub use ids::{LeaderEpoch, Offset, PartitionId, Position, TopicId, TopicName};
pub use log::{Log, LogOptions, LogStats, OpenError, Recovery, Running, Topic};
pub use partition::{
    AckPoint, AppendError, Appended, Hold, Loss, OffsetAndTimestamp, Partition, Positions,
    Producer, ReadError, ReadLimit, ReadOutcome, Settled,
};
