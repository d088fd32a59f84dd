//! FindCoordinator (key 10), versions 0-4: there is no coordinator in this version.
//!
//! v1 adds the kind of key and the error message (KIP-98), v3 tagged fields, v4 many keys at a time
//! (KIP-699).
//! Invariant: the answer is final for the client. COORDINATOR_NOT_AVAILABLE would be retried for ever
//! by every client without a word to its user; UNSUPPORTED_VERSION ends with an error that is shown.
//! Neighbours: `apis` dispatches to it.

use super::Door;
use crate::message;
use crate::wire::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response,
};
use crate::wire::{ErrorCode, Versions};

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(0, 4);

/// The key is a group's id.
const KEY_GROUP: i8 = 0;

/// Says that groups and transactions are not served.
pub(super) async fn answer(
    door: &Door,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let text = if request.key_type == KEY_GROUP {
        "consumer groups are not served by this version of Headwater: assign partitions instead"
    } else {
        "transactions are not served by this version of Headwater"
    };
    if version < 4 {
        return message!(FindCoordinatorResponse {
            error_code: door.code(ErrorCode::UnsupportedVersion),
            error_message: (version >= 1).then(|| text.into()),
            node_id: -1,
            port: -1,
        });
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        message!(find_coordinator_response::Coordinator {
            key: key,
            node_id: -1,
            port: -1,
            error_code: door.code(ErrorCode::UnsupportedVersion),
            error_message: Some(text.into()),
        })
    });
    message!(FindCoordinatorResponse { coordinators: coordinators.collect() })
}
