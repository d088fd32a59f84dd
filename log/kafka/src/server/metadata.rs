//! Metadata (key 3), versions 0-12: brokers, topics, partitions, and creation on first mention.
//!
//! v1 adds controller and internal topics, v2 the cluster id (KIP-78), v4 whether topics may be made
//! (KIP-204), v5 offline replicas (KIP-112), v7 the leader epoch (KIP-320), v8 authorized operations
//! (KIP-430), v9 tagged fields, v10 topic ids (KIP-516), v11 drops the cluster's operations
//! (KIP-700), v12 asks by topic id.
//! Invariant: Headwater's own topics are absent, by listing, by name and by id.
//! Neighbours: `TopicRules` says what a new topic is made with.

use super::{Door, NODE_ID, lookup};
use crate::message;
use crate::wire::messages::{
    MetadataRequest, MetadataResponse, StrBytes, Uuid, metadata_request, metadata_response,
};
use crate::wire::{ErrorCode, Versions};
use headwater_log::metadata::Refusal;
use headwater_log::{Partition, Topic, TopicName};
use std::time::Duration;
use tokio::time::Instant;

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(0, 12);

/// Nobody asked which operations are allowed.
pub(super) const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Everything that Kafka knows for a topic: read, write, create, delete, alter, describe, configs (bits of
/// `AclOperation`): without an authorizer everybody may do everything.
const TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;

/// The same for the cluster: create, alter, describe, cluster action, configs, idempotent write.
pub(super) const CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// How long a client waits for its new topic to be durable before it is told that there is no leader yet.
const CREATE_MAX: Duration = Duration::from_secs(5);

/// Describes the topics asked for; makes missing ones where the client and the rules allow it.
pub(super) async fn answer(
    door: &Door,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let operations = if request.include_topic_authorized_operations {
        TOPIC_OPERATIONS
    } else {
        OPERATIONS_UNKNOWN
    };
    // Version 0 has no null array: there an empty one asks for all topics.
    let asked = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    let topics = match asked {
        None => {
            let all = door.log().topics();
            let seen = all.iter().filter(|topic| !topic.name().is_internal());
            seen.map(|topic| describe(topic, operations)).collect()
        }
        Some(asked) => {
            let mut topics = Vec::with_capacity(asked.len());
            for wanted in asked {
                topics.push(one(door, wanted, request.allow_auto_topic_creation, operations).await);
            }
            topics
        }
    };
    let cluster_operations = request.include_cluster_authorized_operations && version <= 10;
    message!(MetadataResponse {
        brokers: vec![message!(metadata_response::MetadataResponseBroker {
            node_id: NODE_ID,
            host: door.advertised.0.as_str().into(),
            port: i32::from(door.advertised.1),
        })],
        cluster_id: Some(door.cluster_id().into()),
        controller_id: NODE_ID,
        topics: topics,
        cluster_authorized_operations: if cluster_operations {
            CLUSTER_OPERATIONS
        } else {
            OPERATIONS_UNKNOWN
        },
    })
}

async fn one(
    door: &Door,
    wanted: metadata_request::MetadataRequestTopic,
    may_create: bool,
    operations: i32,
) -> metadata_response::MetadataResponseTopic {
    let failed = |name: Option<StrBytes>, code| {
        // Versions below 12 cannot say null.
        message!(metadata_response::MetadataResponseTopic {
            error_code: door.code(code),
            topic_id: wanted.topic_id,
            name: Some(name.unwrap_or_default()),
        })
    };
    let Some(name) = wanted.name.clone() else {
        let topics = door.log().topics();
        let found = topics.iter().find(|topic| {
            !topic.name().is_internal() && topic.id().as_bytes() == wanted.topic_id.as_bytes()
        });
        return match found {
            Some(topic) => describe(topic, operations),
            None => failed(None, ErrorCode::UnknownTopicId),
        };
    };
    if let Some(topic) = lookup::topic(door, &name) {
        return describe(&topic, operations);
    }
    let Some(legal) = TopicName::new(&name) else {
        return failed(Some(name), ErrorCode::InvalidTopicException);
    };
    if !may_create || legal.is_internal() || !door.shared.topics.auto_create(&legal) {
        return failed(Some(name), ErrorCode::UnknownTopicOrPartition);
    }
    match create(door, &legal).await {
        Ok(topic) => describe(&topic, operations),
        Err(code) => failed(Some(name), code),
    }
}

/// Makes a topic, or finds the one that another connection has just made.
async fn create(door: &Door, name: &TopicName) -> Result<Topic, ErrorCode> {
    let rule = door.shared.topics.rule(name);
    match door.log().create_topic(name, rule.partitions, rule.settings) {
        Ok((topic, cycle)) => {
            tracing::info!(topic = %name, partitions = rule.partitions, "topic made for a client");
            let durable = door.durable(cycle, Instant::now() + CREATE_MAX).await;
            durable.map(|()| topic).map_err(|(code, _)| match code {
                ErrorCode::RequestTimedOut => ErrorCode::LeaderNotAvailable,
                other => other,
            })
        }
        Err(Refusal::TopicExists(_)) => {
            lookup::topic(door, name.as_str()).ok_or(ErrorCode::UnknownTopicOrPartition)
        }
        Err(refusal) => {
            tracing::warn!(topic = %name, %refusal, "topic not made for a client");
            Err(lookup::refusal_code(&refusal).0)
        }
    }
}

fn describe(topic: &Topic, operations: i32) -> metadata_response::MetadataResponseTopic {
    let partition = |log: &Partition| {
        message!(metadata_response::MetadataResponsePartition {
            partition_index: log.id().get(),
            leader_id: NODE_ID,
            leader_epoch: log.positions().epoch.get(),
            replica_nodes: vec![NODE_ID],
            isr_nodes: vec![NODE_ID],
        })
    };
    message!(metadata_response::MetadataResponseTopic {
        name: Some(topic.name().as_str().into()),
        topic_id: Uuid::from_bytes(*topic.id().as_bytes()),
        topic_authorized_operations: operations,
        partitions: topic.partitions().iter().map(|log| partition(log)).collect(),
    })
}
