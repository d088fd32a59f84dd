//! FindCoordinator (key 10), versions 0-4: the coordinator of everything is this node.
//!
//! v1 adds the kind of key and the error message (KIP-98), v3 tagged fields, v4 many keys at a time
//! (KIP-699).
//! Invariant: no client waits for ever. Groups and transactions are not served by this version, and
//! an error here would be the wrong place to say so: COORDINATOR_NOT_AVAILABLE is retried for ever
//! without a word, and any other code breaks consumers that only assign partitions (librdkafka asks for
//! its group's coordinator in any case). So the node is named; the group APIs are not in its table,
//! which every client reports at once (`UnsupportedVersionException`, `_UNSUPPORTED_FEATURE`), and
//! InitProducerId refuses transactional ids.
//! Neighbours: `apis`, `init_producer_id`.

use super::{Door, NODE_ID};
use crate::message;
use crate::wire::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response,
};
use crate::wire::{ErrorCode, Versions};

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(0, 4);

/// Kinds of keys: a group's id, a transactional id. Share groups (2, KIP-932) come with version 6.
const KEY_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

/// This node, for every key.
pub(super) async fn answer(
    door: &Door,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let known = KEY_TYPES.contains(&request.key_type);
    let code = if known { ErrorCode::None } else { ErrorCode::InvalidRequest };
    let node_id = if known { NODE_ID } else { -1 };
    let host = if known { door.advertised.0.as_str() } else { "" };
    let port = if known { i32::from(door.advertised.1) } else { -1 };
    if version < 4 {
        return message!(FindCoordinatorResponse {
            error_code: door.code(code),
            node_id: node_id,
            host: host.into(),
            port: port,
        });
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        message!(find_coordinator_response::Coordinator {
            key: key,
            node_id: node_id,
            host: host.into(),
            port: port,
            error_code: door.code(code),
        })
    });
    message!(FindCoordinatorResponse { coordinators: coordinators.collect() })
}
