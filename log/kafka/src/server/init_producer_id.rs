//! InitProducerId (key 22), versions 0-4: an id for an idempotent producer.
//!
//! v2 adds tagged fields, v3 the current id and epoch of a transactional producer (KIP-360), v4
//! PRODUCER_FENCED (KIP-588).
//! Invariant: an id is given out once in the life of a data directory; the log makes it durable first.
//! Neighbours: `headwater_log::Log::next_producer_id`.

use super::Door;
use crate::message;
use crate::wire::messages::{InitProducerIdRequest, InitProducerIdResponse};
use crate::wire::{ErrorCode, Versions};

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(0, 4);

/// A new id with epoch 0. A transactional id is refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
/// nobody may use one here. It is the one code that is final for every client; librdkafka repeats the
/// request after any other until its timeout.
pub(super) async fn answer(
    door: &Door,
    request: InitProducerIdRequest,
    _version: i16,
) -> InitProducerIdResponse {
    let refuse = |code| {
        message!(InitProducerIdResponse {
            error_code: door.code(code),
            producer_id: -1,
            producer_epoch: -1,
        })
    };
    if request.transactional_id.is_some() {
        return refuse(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    let log = door.log().clone();
    // A new block of ids waits for a commit.
    match super::cold(door, move || log.next_producer_id()).await {
        Ok(id) => message!(InitProducerIdResponse { producer_id: id, producer_epoch: 0 }),
        Err(refusal) => {
            tracing::warn!(%refusal, "no producer id");
            refuse(ErrorCode::KafkaStorageError)
        }
    }
}
