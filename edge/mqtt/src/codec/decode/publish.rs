//! PUBLISH (section 3.3) and its four acknowledgements (sections 3.4 to 3.7).

use super::properties::{ack_properties, publish_properties};
use super::{CUT_SHORT, Context, reason};
use crate::codec::error::DecodeError;
use crate::codec::packet::{Ack, PacketId, PacketType, Publish, QoS};
use crate::codec::properties::{AckProperties, PublishProperties};
use crate::codec::reason::ReasonCode;
use crate::codec::wire::{Reader, malformed, protocol_error};

#[inline]
pub(super) fn publish<'a>(
    cx: Context,
    first: u8,
    body: &mut Reader<'a>,
) -> Result<Publish<'a>, DecodeError> {
    let qos = QoS::from_bits(first >> 1 & 0b11).ok_or(malformed("MQTT-3.3.1-4", "QoS 3"))?;
    let topic = body.topic_name_or_empty()?;
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(packet_id(body)?),
    };
    let properties =
        if cx.is_v5() { publish_properties(cx, body)? } else { PublishProperties::default() };
    if topic.is_empty() && properties.topic_alias.is_none() {
        return Err(if cx.is_v5() {
            protocol_error("3.3.2.1", "neither a topic name nor a topic alias")
        } else {
            malformed("MQTT-4.7.3-1", "the topic name is empty")
        });
    }
    Ok(Publish {
        topic,
        payload: body.rest(),
        qos,
        retain: first & 1 != 0,
        dup: first & 0b1000 != 0,
        packet_id,
        properties,
    })
}

/// A packet identifier. [MQTT-2.2.1-3]
#[inline]
pub(super) fn packet_id(body: &mut Reader<'_>) -> Result<PacketId, DecodeError> {
    PacketId::new(body.u16().ok_or(CUT_SHORT)?)
        .ok_or(protocol_error("MQTT-2.2.1-3", "the packet identifier is 0"))
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(super) fn ack<'a>(
    cx: Context,
    packet_type: PacketType,
    body: &mut Reader<'a>,
) -> Result<Ack<'a>, DecodeError> {
    let packet_id = packet_id(body)?;
    let mut ack =
        Ack { packet_id, reason: ReasonCode::Success, properties: AckProperties::default() };
    // Reason code and properties may be left out, from the back. (3.4.2.1, 3.4.2.2.1)
    if cx.is_v5() {
        let tag = match packet_type {
            PacketType::PubAck => "MQTT-3.4.2-1",
            PacketType::PubRec => "MQTT-3.5.2-1",
            PacketType::PubRel => "MQTT-3.6.2-1",
            _ => "MQTT-3.7.2-1",
        };
        if let Some(byte) = body.u8() {
            ack.reason = reason(cx, packet_type, byte, tag)?;
        }
        if body.left() != 0 {
            ack.properties = ack_properties(body)?;
        }
    }
    Ok(ack)
}
