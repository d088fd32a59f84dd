//! CreatePartitions (key 37), versions 0-3: more partitions for a topic (KIP-195).
//!
//! v1 and v3 change quota errors only, v2 adds tagged fields.
//! Invariant: partitions are never taken away, and success is answered when the change is durable.
//! Neighbours: `headwater_log::Log::add_partitions`.

use super::{Door, NODE_ID, lookup};
use crate::message;
use crate::wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_request,
    create_partitions_response,
};
use crate::wire::{ErrorCode, Versions};
use std::time::Duration;
use tokio::time::Instant;

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(0, 3);

/// A request waits no longer for the disk, whatever it says.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Adds to each topic by itself.
pub(super) async fn answer(
    door: &Door,
    request: CreatePartitionsRequest,
    _version: i16,
) -> CreatePartitionsResponse {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let outcome = match add(door, &topic, request.validate_only) {
            Ok(Some(cycle)) => door.durable(cycle, deadline).await,
            Ok(None) => Ok(()),
            Err(failure) => Err(failure),
        };
        let (code, text) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err((code, text)) => (code, Some(text.into())),
        };
        results.push(message!(create_partitions_response::CreatePartitionsTopicResult {
            name: topic.name,
            error_code: door.code(code),
            error_message: text,
        }));
    }
    message!(CreatePartitionsResponse { results: results })
}

/// The cycle to wait for, `None` when only checked.
fn add(
    door: &Door,
    asked: &create_partitions_request::CreatePartitionsTopic,
    validate_only: bool,
) -> Result<Option<u64>, (ErrorCode, String)> {
    let topic = lookup::topic(door, &asked.name).ok_or_else(|| {
        (ErrorCode::UnknownTopicOrPartition, "no such topic or partition".to_owned())
    })?;
    if let Err(reason) = door.shared.topics.client_may_change(topic.name()) {
        return Err((ErrorCode::PolicyViolation, reason));
    }
    let have = topic.partitions().len();
    let wanted = usize::try_from(asked.count).unwrap_or(0);
    if wanted <= have {
        let text = format!("topic {} has {have} partitions already", topic.name());
        return Err((ErrorCode::InvalidPartitions, text));
    }
    if let Some(assignments) = &asked.assignments {
        let here = assignments.iter().all(|assignment| assignment.broker_ids == [NODE_ID]);
        if !here || assignments.len() != wanted - have {
            let text = format!("new partitions can only be assigned to node {NODE_ID}, each once");
            return Err((ErrorCode::InvalidReplicaAssignment, text));
        }
    }
    if validate_only {
        return Ok(None);
    }
    let partitions = asked.count.unsigned_abs();
    door.log()
        .add_partitions(topic.name(), partitions)
        .map(|(_, cycle)| Some(cycle))
        .map_err(|refusal| lookup::refusal_code(&refusal))
}
