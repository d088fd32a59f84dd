//! CreateTopics (19) and CreatePartitions (37).

use super::error::check;
use super::{ClientError, Connection};
use crate::message;
use crate::wire::Versions;
use crate::wire::messages::create_partitions_request::CreatePartitionsTopic;
use crate::wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use crate::wire::messages::{CreatePartitionsRequest, CreateTopicsRequest};
use std::time::Duration;

/// A topic to create.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// Its replicas; `None` leaves it to the cluster (KIP-464).
    pub replication_factor: Option<i16>,
    /// Settings that differ from the cluster's defaults.
    pub configs: Vec<(String, String)>,
}

/// What became of one topic.
#[derive(Debug, Clone)]
pub struct TopicOutcome {
    /// Its name.
    pub name: String,
    /// Done, or why not.
    pub result: Result<(), ClientError>,
}

impl Connection {
    /// Creates topics. This must be the controller's connection at brokers that do not forward (before 2.8).
    ///
    /// # Errors
    /// [`ClientError`] for the whole; per topic in its outcome.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        timeout: Duration,
    ) -> Result<Vec<TopicOutcome>, ClientError> {
        let config = |(name, value): &(String, String)| {
            message!(CreatableTopicConfig {
                name: name.as_str().into(),
                value: Some(value.as_str().into()),
            })
        };
        let topic = |t: &NewTopic| {
            message!(CreatableTopic {
                name: t.name.as_str().into(),
                num_partitions: t.partitions,
                replication_factor: t.replication_factor.unwrap_or(-1),
                configs: t.configs.iter().map(config).collect(),
            })
        };
        let request = message!(CreateTopicsRequest {
            topics: topics.iter().map(topic).collect(),
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        });
        let answer = self.call(Versions::new(4, 7), &request).await?;
        let outcome = |t: crate::wire::messages::create_topics_response::CreatableTopicResult| {
            let result = check(t.error_code, t.error_message.as_deref());
            TopicOutcome { name: t.name.into_string(), result }
        };
        Ok(answer.topics.into_iter().map(outcome).collect())
    }

    /// Grows a topic to `count` partitions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_partitions(
        &self,
        topic: &str,
        count: i32,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let topic = message!(CreatePartitionsTopic {
            name: topic.into(),
            count: count,
            // Null leaves the placement to the broker; an empty list would be a placement of nothing.
            assignments: None,
        });
        let request = message!(CreatePartitionsRequest {
            topics: vec![topic],
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        });
        let answer = self.call(Versions::new(0, 3), &request).await?;
        match answer.results.first() {
            Some(result) => check(result.error_code, result.error_message.as_deref()),
            None => Err(self.protocol("a CreatePartitions answer without the topic".to_owned())),
        }
    }
}
