//! SaslHandshake (key 17), versions 0-1: refused, no listener of this version asks for SASL.
//!
//! v1 moves what follows into SaslAuthenticate requests (KIP-152).
//! Invariant: nobody is ever told that they are authenticated here.
//! Neighbours: `apis` dispatches to it.

use super::Door;
use crate::message;
use crate::wire::messages::{SaslHandshakeRequest, SaslHandshakeResponse};
use crate::wire::{ErrorCode, Versions};

/// Advertised, so that a secured client gets this answer in place of a closed connection.
pub(super) const VERSIONS: Versions = Versions::new(0, 1);

/// ILLEGAL_SASL_STATE, as Kafka answers on a listener without SASL.
pub(super) async fn answer(
    door: &Door,
    _request: SaslHandshakeRequest,
    _version: i16,
) -> SaslHandshakeResponse {
    message!(SaslHandshakeResponse { error_code: door.code(ErrorCode::IllegalSaslState) })
}
