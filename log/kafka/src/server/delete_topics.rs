//! DeleteTopics (key 20), versions 1-6.
//!
//! v1 adds the throttle time, v4 tagged fields, v5 the message (KIP-599), v6 deletes by id (KIP-516).
//! Invariant: success is answered when the deletion is durable.
//! Neighbours: `headwater_log::Log::delete_topic`.

use super::{Door, lookup};
use crate::message;
use crate::wire::messages::{
    DeleteTopicsRequest, DeleteTopicsResponse, Uuid, delete_topics_request, delete_topics_response,
};
use crate::wire::{ErrorCode, Versions};
use headwater_log::Topic;
use std::time::Duration;
use tokio::time::Instant;

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(1, 6);

/// A request waits no longer for the disk, whatever it says.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Deletes each topic by itself.
pub(super) async fn answer(
    door: &Door,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
    let by_name = request
        .topic_names
        .into_iter()
        .map(|name| message!(delete_topics_request::DeleteTopicState { name: Some(name) }));
    let asked: Vec<_> = by_name.chain(request.topics).collect();
    let mut responses = Vec::with_capacity(asked.len());
    for wanted in asked {
        let topic = find(door, &wanted);
        let outcome = match &topic {
            Ok(topic) => delete(door, topic, deadline).await,
            Err(failure) => Err(failure.clone()),
        };
        let (code, text) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err((code, text)) => (code, Some(text.into())),
        };
        let id = topic.map_or(wanted.topic_id, |topic| Uuid::from_bytes(*topic.id().as_bytes()));
        responses.push(message!(delete_topics_response::DeletableTopicResult {
            name: wanted.name,
            topic_id: if version >= 6 { id } else { Uuid::ZERO },
            error_code: door.code(code),
            error_message: text,
        }));
    }
    message!(DeleteTopicsResponse { responses: responses })
}

fn find(
    door: &Door,
    wanted: &delete_topics_request::DeleteTopicState,
) -> Result<Topic, (ErrorCode, String)> {
    if let Some(name) = &wanted.name {
        return lookup::topic(door, name)
            .ok_or_else(|| (ErrorCode::UnknownTopicOrPartition, "no such topic".to_owned()));
    }
    let mut topics = door.log().topics();
    topics.retain(|topic| {
        !topic.name().is_internal() && topic.id().as_bytes() == wanted.topic_id.as_bytes()
    });
    topics.pop().ok_or_else(|| (ErrorCode::UnknownTopicId, "no topic has that id".to_owned()))
}

async fn delete(door: &Door, topic: &Topic, deadline: Instant) -> Result<(), (ErrorCode, String)> {
    if let Err(reason) = door.shared.topics.client_may_change(topic.name()) {
        return Err((ErrorCode::PolicyViolation, reason));
    }
    let cycle =
        door.log().delete_topic(topic.name()).map_err(|refusal| lookup::refusal_code(&refusal))?;
    tracing::info!(topic = %topic.name(), "topic deleted by a client");
    door.durable(cycle, deadline).await
}
