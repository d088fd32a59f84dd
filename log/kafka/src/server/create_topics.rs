//! CreateTopics (key 19), versions 2-7.
//!
//! v2 is the first with the throttle time, v4 takes -1 for the defaults (KIP-464), v5 answers with the
//! topic's configuration and tagged fields (KIP-525), v7 with its id (KIP-516).
//! Invariant: success is answered when the creation is durable, and a name twice in a request is
//! refused both times, as Kafka does.
//! Neighbours: `configs` reads the settings, `TopicRules` has the defaults.

use super::{Door, NODE_ID, NewTopic, configs, lookup};
use crate::message;
use crate::wire::messages::{
    CreateTopicsRequest, CreateTopicsResponse, Uuid, create_topics_request, create_topics_response,
};
use crate::wire::{ErrorCode, Versions};
use headwater_log::metadata::TopicSettings;
use headwater_log::{TopicId, TopicName};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(2, 7);

/// Topics in one request; Kafka has no limit, a gateway with a thousand topics has.
const TOPICS_MAX: usize = 1_000;

/// A request waits no longer for the disk, whatever it says.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// `ConfigSource`: set for this topic, or a default.
pub(super) const SOURCE_TOPIC: i8 = 1;
pub(super) const SOURCE_DEFAULT: i8 = 5;

/// Why a topic was not made, for its line in the response.
type Failure = (ErrorCode, String);

/// A topic that was made, or would have been.
struct Made {
    id: Option<TopicId>,
    plan: NewTopic,
    defaults: TopicSettings,
}

/// Makes the topics one after the other; each succeeds or fails by itself.
pub(super) async fn answer(
    door: &Door,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
    let mut named = BTreeMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_insert(0_u32) += 1;
    }
    let too_many = request.topics.len() > TOPICS_MAX;
    let mut made = Vec::with_capacity(request.topics.len());
    let mut last_cycle = None;
    for topic in &request.topics {
        let outcome = if too_many {
            Err((ErrorCode::PolicyViolation, format!("at most {TOPICS_MAX} topics per request")))
        } else if named.get(&topic.name).is_some_and(|times| *times > 1) {
            Err((ErrorCode::InvalidRequest, "the topic is named twice".to_owned()))
        } else {
            plan(door, topic, version).and_then(|(name, plan, defaults)| {
                if request.validate_only {
                    return Ok(Made { id: None, plan, defaults });
                }
                let settings = plan.settings.clone();
                let (topic, cycle) = door
                    .log()
                    .create_topic(&name, plan.partitions, settings)
                    .map_err(|refusal| lookup::refusal_code(&refusal))?;
                tracing::info!(topic = %name, partitions = plan.partitions, "topic created");
                last_cycle = Some(cycle);
                Ok(Made { id: Some(topic.id()), plan, defaults })
            })
        };
        made.push(outcome);
    }
    // Cycles are synced in order: the last one's end is the end of all.
    let durable = match last_cycle {
        Some(cycle) => door.durable(cycle, deadline).await,
        None => Ok(()),
    };
    let results = request.topics.iter().zip(made).map(|(topic, outcome)| {
        let outcome = outcome.and_then(|made| match (&durable, made.id) {
            (Err(failure), Some(_)) => Err(failure.clone()),
            _ => Ok(made),
        });
        result(door, topic, outcome, version)
    });
    message!(CreateTopicsResponse { topics: results.collect() })
}

/// What the request asks for, checked, and the settings that it did not ask for.
fn plan(
    door: &Door,
    topic: &create_topics_request::CreatableTopic,
    version: i16,
) -> Result<(TopicName, NewTopic, TopicSettings), Failure> {
    let fail = |code, text: String| Err((code, text));
    let Some(name) = TopicName::new(&topic.name) else {
        let text = "a topic name has 1 to 249 of A-Z a-z 0-9 . _ - and is not . or ..";
        return fail(ErrorCode::InvalidTopicException, text.to_owned());
    };
    if name.is_internal() {
        let text = "names that begin with __headwater_ are Headwater's own";
        return fail(ErrorCode::InvalidTopicException, text.to_owned());
    }
    // First: a client that makes sure of a topic is content with this answer.
    if door.log().topic(&topic.name).is_some() {
        return fail(ErrorCode::TopicAlreadyExists, format!("topic {name} exists already"));
    }
    if let Err(reason) = door.shared.topics.client_may_change(&name) {
        return fail(ErrorCode::PolicyViolation, reason);
    }
    let rule = door.shared.topics.rule(&name);
    let partitions = match (partitions_asked(topic, version)?, topic.assignments.len()) {
        (None, 0) => rule.partitions,
        (Some(partitions), _) => partitions,
        (None, _) => assigned(topic)?,
    };
    let mut settings = rule.settings.clone();
    let configs = topic.configs.iter().map(|c| (c.name.as_str(), c.value.as_deref()));
    configs::set_all(&mut settings, configs).map_err(|text| (ErrorCode::InvalidConfig, text))?;
    Ok((name, NewTopic { partitions, settings }, rule.settings))
}

/// The number of partitions, `None` for the default; checks the replication factor, too.
fn partitions_asked(
    topic: &create_topics_request::CreatableTopic,
    version: i16,
) -> Result<Option<u32>, Failure> {
    let assigned = !topic.assignments.is_empty();
    if assigned && (topic.num_partitions != -1 || topic.replication_factor != -1) {
        let text = "with an assignment, partitions and replication factor must be -1";
        return Err((ErrorCode::InvalidRequest, text.to_owned()));
    }
    if topic.replication_factor != 1 && topic.replication_factor != -1 {
        let text = format!(
            "replication factor {} is not possible: there is one node",
            topic.replication_factor
        );
        return Err((ErrorCode::InvalidReplicationFactor, text));
    }
    match topic.num_partitions {
        -1 if assigned || version >= 4 => Ok(None),
        1.. => Ok(Some(topic.num_partitions.unsigned_abs())),
        other => {
            let text = format!("{other} partitions are not possible");
            Err((ErrorCode::InvalidPartitions, text))
        }
    }
}

/// The number of partitions in a manual assignment: 0, 1, 2, ..., each on this node alone.
fn assigned(topic: &create_topics_request::CreatableTopic) -> Result<u32, Failure> {
    let mut indexes: Vec<i32> = Vec::with_capacity(topic.assignments.len());
    for assignment in &topic.assignments {
        if assignment.broker_ids != [NODE_ID] {
            let text = format!("partitions can only be assigned to node {NODE_ID}");
            return Err((ErrorCode::InvalidReplicaAssignment, text));
        }
        indexes.push(assignment.partition_index);
    }
    indexes.sort_unstable();
    if !indexes.iter().copied().eq(0..i32::try_from(indexes.len()).unwrap_or(i32::MAX)) {
        let text = "assigned partitions must be 0, 1, 2, ... without gaps".to_owned();
        return Err((ErrorCode::InvalidReplicaAssignment, text));
    }
    Ok(u32::try_from(indexes.len()).unwrap_or(u32::MAX))
}

fn result(
    door: &Door,
    topic: &create_topics_request::CreatableTopic,
    outcome: Result<Made, Failure>,
    version: i16,
) -> create_topics_response::CreatableTopicResult {
    let made = match outcome {
        Ok(made) => made,
        Err((code, text)) => {
            return message!(create_topics_response::CreatableTopicResult {
                name: topic.name.clone(),
                error_code: door.code(code),
                error_message: Some(text.into()),
                num_partitions: -1,
                replication_factor: -1,
                configs: Some(Vec::new()),
            });
        }
    };
    let defaults = configs::entries(&made.defaults);
    let shown = configs::entries(&made.plan.settings).into_iter().zip(defaults);
    let configs = shown.map(|(entry, default)| {
        let source = if entry == default { SOURCE_DEFAULT } else { SOURCE_TOPIC };
        message!(create_topics_response::CreatableTopicConfigs {
            name: entry.key.into(),
            value: Some(entry.value.into()),
            config_source: source,
        })
    });
    let id =
        made.id.filter(|_| version >= 7).map_or(Uuid::ZERO, |id| Uuid::from_bytes(*id.as_bytes()));
    message!(create_topics_response::CreatableTopicResult {
        name: topic.name.clone(),
        topic_id: id,
        num_partitions: i32::try_from(made.plan.partitions).unwrap_or(i32::MAX),
        replication_factor: 1,
        configs: Some(configs.collect()),
    })
}
