//! DISCONNECT (section 3.14) and AUTH (section 3.15).

use super::properties::{auth_properties, disconnect_properties};
use super::{Context, reason};
use crate::codec::error::DecodeError;
use crate::codec::packet::{Auth, Disconnect, PacketType};
use crate::codec::properties::AuthProperties;
use crate::codec::reason::ReasonCode;
use crate::codec::wire::{Reader, protocol_error};

pub(super) fn disconnect<'a>(
    cx: Context,
    body: &mut Reader<'a>,
) -> Result<Disconnect<'a>, DecodeError> {
    let mut disconnect = Disconnect::new(ReasonCode::Success);
    // Reason code and properties may be left out, from the back. (3.14.2.1, 3.14.2.2.1)
    if cx.is_v5() {
        if let Some(byte) = body.u8() {
            disconnect.reason = reason(cx, PacketType::Disconnect, byte, "MQTT-3.14.2-1")?;
        }
        if body.left() != 0 {
            disconnect.properties = disconnect_properties(cx, body)?;
        }
    }
    Ok(disconnect)
}

pub(super) fn auth<'a>(cx: Context, body: &mut Reader<'a>) -> Result<Auth<'a>, DecodeError> {
    // An empty AUTH says success (3.15.2.1), which only a server may.
    let byte = body.u8();
    let reason = reason(cx, PacketType::Auth, byte.unwrap_or(0), "MQTT-3.15.2-1")?;
    if byte.is_none() {
        return Ok(Auth { reason, properties: AuthProperties::default() });
    }
    let properties =
        if body.left() != 0 { auth_properties(body)? } else { AuthProperties::default() };
    if properties.authentication_method.is_none() {
        return Err(protocol_error("3.15.2.2.2", "an AUTH without an authentication method"));
    }
    Ok(Auth { reason, properties })
}
