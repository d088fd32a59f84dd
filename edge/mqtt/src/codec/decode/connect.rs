//! CONNECT (section 3.1) and CONNACK (section 3.2).

use super::properties::{connack_properties, connect_properties, will_properties};
use super::{CUT_SHORT, Context, TOO_LONG, reason};
use crate::codec::error::{DecodeError, Place, Violation};
use crate::codec::packet::{ConnAck, Connect, PacketType, QoS, Version, Will};
use crate::codec::properties::{ConnAckProperties, ConnectProperties, WillProperties};
use crate::codec::reason::ReasonCode;
use crate::codec::wire::{Reader, malformed};

const CLEAN_START: u8 = 1 << 1;
const WILL: u8 = 1 << 2;
const WILL_RETAIN: u8 = 1 << 5;
const PASSWORD: u8 = 1 << 6;
const USER_NAME: u8 = 1 << 7;

/// Parses a CONNECT; its errors know the version once it is read, because it decides the answer.
pub(super) fn connect<'a>(
    body: &mut Reader<'a>,
    minimal_length: bool,
) -> Result<Connect<'a>, DecodeError> {
    let version = protocol(body)?;
    fields(body, version, minimal_length).map_err(|e| e.at(Place::Connect(version)))
}

fn protocol(body: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = body.prefixed().ok_or(CUT_SHORT)?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(malformed("MQTT-3.1.2-1", "the protocol name is neither MQTT nor MQIsdp"));
    }
    let level = body.u8().ok_or(CUT_SHORT)?;
    match (name, level) {
        (b"MQIsdp", 3) => Ok(Version::V3),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => Err(DecodeError::new(
            Violation::UnsupportedProtocolVersion,
            "MQTT-3.1.2-2",
            "the protocol version is not one of 3.1, 3.1.1 and 5",
        )
        // Whoever speaks a version after 5 is taken to read its CONNACK, everybody else the older one.
        .at(Place::Connect(if level > 5 { Version::V5 } else { Version::V311 }))),
    }
}

fn fields<'a>(
    body: &mut Reader<'a>,
    version: Version,
    minimal_length: bool,
) -> Result<Connect<'a>, DecodeError> {
    if version == Version::V5 && !minimal_length {
        return Err(malformed("MQTT-1.5.5-1", "the remaining length is not minimal"));
    }
    let flags = body.u8().ok_or(CUT_SHORT)?;
    check_flags(flags, version)?;
    let keep_alive_s = body.u16().ok_or(CUT_SHORT)?;
    let properties = match version {
        Version::V5 => connect_properties(body)?,
        _ => ConnectProperties::default(),
    };
    let clean_start = flags & CLEAN_START != 0;
    let client_id = client_id(body, version, clean_start)?;
    let will = if flags & WILL != 0 { Some(will(body, version, flags)?) } else { None };
    // MQTT 3.1: "the Remaining Length field takes precedence over the User Name flag".
    let may_lack = version == Version::V3;
    let user_name = if flags & USER_NAME != 0 && !(may_lack && body.left() == 0) {
        Some(body.string()?)
    } else {
        None
    };
    let password = if flags & PASSWORD != 0 && !(may_lack && body.left() == 0) {
        Some(body.prefixed().ok_or(CUT_SHORT)?)
    } else {
        None
    };
    if body.left() != 0 {
        return Err(TOO_LONG);
    }
    Ok(Connect {
        version,
        clean_start,
        keep_alive_s,
        client_id,
        will,
        user_name,
        password,
        properties,
    })
}

fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    // MQTT 3.1 calls bit 0 unused, and the will's bits without a will disregarded.
    if flags & WILL != 0 {
        if will_qos(flags).is_none() {
            return Err(malformed("MQTT-3.1.2-12", "the will's QoS is 3"));
        }
    } else if version != Version::V3 {
        if flags >> 3 & 0b11 != 0 {
            return Err(malformed("MQTT-3.1.2-11", "a will QoS without a will"));
        }
        if flags & WILL_RETAIN != 0 {
            return Err(malformed("MQTT-3.1.2-13", "will retain without a will"));
        }
    }
    if flags & 1 != 0 && version != Version::V3 {
        return Err(malformed("MQTT-3.1.2-3", "the reserved connect flag is set"));
    }
    if flags & PASSWORD != 0 && flags & USER_NAME == 0 && version != Version::V5 {
        // The number is 3.1.1's; MQTT 5 allows it.
        return Err(malformed("MQTT-3.1.2-22", "a password without a user name"));
    }
    Ok(())
}

const fn will_qos(flags: u8) -> Option<QoS> {
    QoS::from_bits(flags >> 3 & 0b11)
}

fn client_id<'a>(
    body: &mut Reader<'a>,
    version: Version,
    clean_start: bool,
) -> Result<&'a str, DecodeError> {
    let client_id = body.string()?;
    // More than 23 characters are taken in every version: MQTT 3.1's limit helps nobody and breaks devices.
    let may_be_empty = match version {
        Version::V3 => false,
        Version::V311 => clean_start,
        Version::V5 => true,
    };
    if client_id.is_empty() && !may_be_empty {
        return Err(DecodeError::new(
            Violation::ClientIdentifierNotValid,
            "MQTT-3.1.3-8",
            "an empty client identifier",
        ));
    }
    Ok(client_id)
}

fn will<'a>(body: &mut Reader<'a>, version: Version, flags: u8) -> Result<Will<'a>, DecodeError> {
    let properties = match version {
        Version::V5 => will_properties(body)?,
        _ => WillProperties::default(),
    };
    let topic = body.topic_name()?;
    let payload = body.prefixed().ok_or(CUT_SHORT)?;
    Ok(Will {
        topic,
        payload,
        qos: will_qos(flags).ok_or(malformed("MQTT-3.1.2-12", "the will's QoS is 3"))?,
        retain: flags & WILL_RETAIN != 0,
        properties,
    })
}

pub(super) fn connack<'a>(cx: Context, body: &mut Reader<'a>) -> Result<ConnAck<'a>, DecodeError> {
    let flags = body.u8().ok_or(CUT_SHORT)?;
    let code = body.u8().ok_or(CUT_SHORT)?;
    if cx.version != Version::V3 && flags & !1 != 0 {
        return Err(malformed("MQTT-3.2.2-1", "reserved CONNACK flags are set"));
    }
    let reason = if cx.is_v5() {
        reason(cx, PacketType::ConnAck, code, "MQTT-3.2.2-8")?
    } else {
        ReasonCode::from_connect_return_code(code)
            .ok_or(malformed("3.2.2.3", "the CONNACK return code is reserved"))?
    };
    // MQTT 3.1 calls the byte unused.
    let session_present = cx.version != Version::V3 && flags & 1 != 0;
    if session_present && reason != ReasonCode::Success {
        return Err(malformed("MQTT-3.2.2-6", "session present on a refused connection"));
    }
    let properties =
        if cx.is_v5() { connack_properties(body)? } else { ConnAckProperties::default() };
    Ok(ConnAck { session_present, reason, properties })
}
