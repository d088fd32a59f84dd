//! From names in a request to partitions of the log, and from the log's refusals to error codes.
//!
//! Invariant: Headwater's own topics (`__headwater_*`) do not exist for clients: every way to a
//! partition goes through here. Neighbours: all APIs.

use super::Door;
use crate::wire::ErrorCode;
use headwater_log::batch::BatchError;
use headwater_log::metadata::Refusal;
use headwater_log::{AppendError, LeaderEpoch, Loss, Partition, PartitionId, ReadError, Topic};
use std::sync::Arc;

/// The topic of that name, unless it is one of Headwater's own.
pub(super) fn topic(door: &Door, name: &str) -> Option<Topic> {
    door.log().topic(name).filter(|topic| !topic.name().is_internal())
}

/// A partition, or Kafka's code for one that is not there.
pub(super) fn partition(topic: Option<&Topic>, index: i32) -> Result<&Arc<Partition>, ErrorCode> {
    PartitionId::new(index)
        .and_then(|id| topic?.partition(id))
        .ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// Refuses what cannot be answered for a partition whose data directory is not in use: its positions mean nothing.
pub(super) fn check_present(log: &Partition) -> Result<(), ErrorCode> {
    log.missing().map_or(Ok(()), |_| Err(ErrorCode::KafkaStorageError))
}

/// Checks the leader epoch that a client believes in (KIP-320); -1 is none.
pub(super) fn check_epoch(asked: i32, current: LeaderEpoch) -> Result<(), ErrorCode> {
    match asked {
        ..0 => Ok(()),
        asked if asked < current.get() => Err(ErrorCode::FencedLeaderEpoch),
        asked if asked > current.get() => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// What Kafka calls a failed read.
pub(super) fn read_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Damaged { .. } => ErrorCode::CorruptMessage,
        ReadError::Io { .. } => ErrorCode::KafkaStorageError,
        ReadError::Deleted => ErrorCode::UnknownTopicOrPartition,
    }
}

/// What Kafka calls a refused append. `Busy` is for the caller to wait out.
pub(super) fn append_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Busy => ErrorCode::RequestTimedOut,
        AppendError::DiskFull | AppendError::Offline(_) => ErrorCode::KafkaStorageError,
        AppendError::Deleted => ErrorCode::UnknownTopicOrPartition,
        AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::Keyless { .. } => ErrorCode::InvalidRecord,
        AppendError::Corrupt(error) => batch_code(error),
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::ProducerFenced { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::InvalidTransaction { .. } => ErrorCode::InvalidTxnState,
        AppendError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
    }
}

/// What Kafka calls a batch that is not one.
pub(super) fn batch_code(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Short | BatchError::Crc { .. } | BatchError::Quarantined => {
            ErrorCode::CorruptMessage
        }
        BatchError::Magic(_)
        | BatchError::Field(_)
        | BatchError::Record(_)
        | BatchError::Stream(_)
        | BatchError::Refused(_) => ErrorCode::InvalidRecord,
        // A Java producer answers this by sending the batch again in two.
        BatchError::PlainTooLarge { .. } => ErrorCode::MessageTooLarge,
    }
}

/// What Kafka calls the loss of records that were appended and not yet acknowledged.
pub(super) fn loss_code(loss: &Loss) -> ErrorCode {
    match loss {
        Loss::DiskFull | Loss::Offline => ErrorCode::KafkaStorageError,
        Loss::Deleted => ErrorCode::UnknownTopicOrPartition,
        Loss::Fenced | Loss::Truncated => ErrorCode::NotLeaderOrFollower,
    }
}

/// What Kafka calls a refused change of metadata, with the text for the client.
pub(super) fn refusal_code(refusal: &Refusal) -> (ErrorCode, String) {
    let code = match refusal {
        Refusal::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        Refusal::UnknownTopic(_) => ErrorCode::UnknownTopicOrPartition,
        Refusal::IllegalName(_) | Refusal::Collision { .. } => ErrorCode::InvalidTopicException,
        Refusal::Partitions(..) => ErrorCode::InvalidPartitions,
        Refusal::Limit(..) => ErrorCode::PolicyViolation,
        Refusal::Offline(_) => ErrorCode::KafkaStorageError,
    };
    (code, refusal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_fenced_below_and_unknown_above() {
        let current = LeaderEpoch::new(4).unwrap();
        assert_eq!(check_epoch(-1, current), Ok(()));
        assert_eq!(check_epoch(4, current), Ok(()));
        assert_eq!(check_epoch(3, current), Err(ErrorCode::FencedLeaderEpoch));
        assert_eq!(check_epoch(5, current), Err(ErrorCode::UnknownLeaderEpoch));
    }

    #[test]
    fn an_unknown_topic_has_no_partition() {
        assert_eq!(partition(None, 0).err(), Some(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(partition(None, -1).err(), Some(ErrorCode::UnknownTopicOrPartition));
    }
}
