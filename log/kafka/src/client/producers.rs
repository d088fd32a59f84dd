//! InitProducerId (22), DescribeProducers (61) and ListOffsets (2): what a resuming producer asks.

use super::error::check;
use super::{ClientError, Connection};
use crate::message;
use crate::wire::Versions;
use crate::wire::messages::describe_producers_request::TopicRequest;
use crate::wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use crate::wire::messages::{
    DescribeProducersRequest, InitProducerIdRequest, ListOffsetsRequest, StrBytes,
};

/// An idempotent producer's name at a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProducerIdentity {
    /// Producer id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// A producer that a partition's leader remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Id and epoch.
    pub producer: ProducerIdentity,
    /// Sequence of the last record it appended there, -1 for none.
    pub last_sequence: i32,
}

/// The producers of one partition, or why the broker does not say.
#[derive(Debug, Clone)]
pub struct PartitionProducers {
    /// The topic's name.
    pub topic: StrBytes,
    /// The partition's number.
    pub partition: i32,
    /// Those the leader remembers.
    pub producers: Result<Vec<ActiveProducer>, ClientError>,
}

/// One end of one partition, or why the broker does not say.
#[derive(Debug, Clone)]
pub struct PartitionEnd {
    /// The topic's name.
    pub topic: StrBytes,
    /// The partition's number.
    pub partition: i32,
    /// The offset asked for.
    pub offset: Result<i64, ClientError>,
}

impl Connection {
    /// A producer id of our own, without a transactional id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn init_producer_id(&self) -> Result<ProducerIdentity, ClientError> {
        let request = message!(InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: -1,
            producer_epoch: -1,
        });
        let answer = self.call(Versions::new(0, 4), &request).await?;
        check(answer.error_code, None)?;
        Ok(ProducerIdentity { id: answer.producer_id, epoch: answer.producer_epoch })
    }

    /// The producers that the leader of each partition remembers. Partitions of one topic stand together.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Unsupported`] before Kafka 2.8: read the tail instead.
    pub async fn describe_producers(
        &self,
        partitions: &[(StrBytes, i32)],
    ) -> Result<Vec<PartitionProducers>, ClientError> {
        let topic = |of: &[(StrBytes, i32)]| {
            message!(TopicRequest {
                name: of[0].0.clone(),
                partition_indexes: of.iter().map(|(_, partition)| *partition).collect(),
            })
        };
        let topics = partitions.chunk_by(|a, b| a.0 == b.0).map(topic).collect();
        let request = message!(DescribeProducersRequest { topics: topics });
        let answer = self.call(Versions::new(0, 0), &request).await?;
        let mut found = Vec::with_capacity(partitions.len());
        for topic in answer.topics {
            for p in topic.partitions {
                let active = p.active_producers.iter().map(|a| ActiveProducer {
                    // The schema has an int32 here, an int16 everywhere else.
                    producer: ProducerIdentity {
                        id: a.producer_id,
                        epoch: i16::try_from(a.producer_epoch).unwrap_or(-1),
                    },
                    last_sequence: a.last_sequence,
                });
                let producers =
                    check(p.error_code, p.error_message.as_deref()).map(|()| active.collect());
                let topic = topic.name.clone();
                found.push(PartitionProducers { topic, partition: p.partition_index, producers });
            }
        }
        Ok(found)
    }

    /// The first (`earliest`) or the next offset that readers see in each partition: its log start or its
    /// high watermark. Partitions of one topic stand together.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_offsets(
        &self,
        partitions: &[(StrBytes, i32)],
        earliest: bool,
    ) -> Result<Vec<PartitionEnd>, ClientError> {
        let timestamp = if earliest { -2 } else { -1 };
        let partition = |(_, index): &(StrBytes, i32)| {
            message!(ListOffsetsPartition {
                partition_index: *index,
                current_leader_epoch: -1,
                timestamp: timestamp,
            })
        };
        let topic = |of: &[(StrBytes, i32)]| {
            message!(ListOffsetsTopic {
                name: of[0].0.clone(),
                partitions: of.iter().map(partition).collect(),
            })
        };
        let topics = partitions.chunk_by(|a, b| a.0 == b.0).map(topic).collect();
        let request = message!(ListOffsetsRequest { replica_id: -1, topics: topics });
        let answer = self.call(Versions::new(1, 8), &request).await?;
        let mut found = Vec::with_capacity(partitions.len());
        for topic in answer.topics {
            for p in topic.partitions {
                let offset = check(p.error_code, None).map(|()| p.offset);
                let topic = topic.name.clone();
                found.push(PartitionEnd { topic, partition: p.partition_index, offset });
            }
        }
        Ok(found)
    }
}
