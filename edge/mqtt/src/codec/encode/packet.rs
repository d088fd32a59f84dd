//! The layout of each packet's variable header and payload, written.

use super::illegal;
use super::properties::{is_empty, section};
use super::sink::Sink;
use crate::codec::decode::Receiver;
use crate::codec::error::EncodeError;
use crate::codec::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketType, Publish, QoS, SubAck, Subscribe,
    UnsubAck, Unsubscribe, Version,
};
use crate::codec::reason::ReasonCode;
use crate::codec::topic;

type Done = Result<(), EncodeError>;

/// Type and flags. [MQTT-2.1.3-1]
pub(super) fn first_byte(packet: &Packet<'_>) -> u8 {
    let flags = match packet {
        Packet::Publish(publish) => return publish_first_byte(publish),
        Packet::PubRel(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) => 0b0010,
        _ => 0,
    };
    (packet.packet_type() as u8) << 4 | flags
}

pub(super) const fn publish_first_byte(publish: &Publish<'_>) -> u8 {
    (PacketType::Publish as u8) << 4
        | (publish.dup as u8) << 3
        | (publish.qos as u8) << 1
        | publish.retain as u8
}

/// Everything behind the fixed header.
pub(super) fn put<S: Sink>(packet: &Packet<'_>, version: Version, sink: &mut S) -> Done {
    match packet {
        Packet::Connect(connect) => put_connect(connect, version, sink),
        Packet::ConnAck(connack) => put_connack(connack, version, sink),
        Packet::Publish(publish) => {
            put_publish_header(publish, version, sink)?;
            sink.slice(publish.payload);
            Ok(())
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            put_ack(ack, packet.packet_type(), version, sink)
        }
        Packet::Subscribe(subscribe) => put_subscribe(subscribe, version, sink),
        Packet::SubAck(suback) => put_suback(suback, version, sink),
        Packet::Unsubscribe(unsubscribe) => put_unsubscribe(unsubscribe, version, sink),
        Packet::UnsubAck(unsuback) => put_unsuback(unsuback, version, sink),
        Packet::PingReq | Packet::PingResp => Ok(()),
        Packet::Disconnect(disconnect) => put_disconnect(disconnect, version, sink),
        Packet::Auth(auth) => put_auth(auth, version, sink),
    }
}

/// Refuses a reason code that neither side may send in this packet.
fn check_reason(reason: ReasonCode, packet_type: PacketType) -> Done {
    if reason.is_legal(packet_type, Receiver::Client)
        || reason.is_legal(packet_type, Receiver::Server)
    {
        return Ok(());
    }
    Err(illegal("2.4", "the reason code is not one for this packet"))
}

fn put_connect<S: Sink>(connect: &Connect<'_>, version: Version, sink: &mut S) -> Done {
    if connect.version != version {
        return Err(illegal("MQTT-3.1.2-2", "a CONNECT of another version than the connection's"));
    }
    if version != Version::V5 && connect.password.is_some() && connect.user_name.is_none() {
        return Err(illegal("MQTT-3.1.2-22", "a password without a user name"));
    }
    let may_be_empty = match version {
        Version::V3 => false,
        Version::V311 => connect.clean_start,
        Version::V5 => true,
    };
    if connect.client_id.is_empty() && !may_be_empty {
        return Err(illegal("MQTT-3.1.3-8", "an empty client identifier"));
    }
    let name: &[u8] = if version == Version::V3 { b"MQIsdp" } else { b"MQTT" };
    sink.binary(name)?;
    sink.byte(version as u8);
    let will = connect.will.map_or(0, |w| 1 << 2 | (w.qos as u8) << 3 | u8::from(w.retain) << 5);
    sink.byte(
        u8::from(connect.clean_start) << 1
            | will
            | u8::from(connect.password.is_some()) << 6
            | u8::from(connect.user_name.is_some()) << 7,
    );
    sink.number_u16(connect.keep_alive_s);
    if version == Version::V5 {
        section(&connect.properties, sink)?;
    }
    sink.string(connect.client_id)?;
    if let Some(will) = &connect.will {
        if version == Version::V5 {
            section(&will.properties, sink)?;
        }
        sink.topic_name(will.topic)?;
        sink.binary(will.payload)?;
    }
    if let Some(user_name) = connect.user_name {
        sink.string(user_name)?;
    }
    if let Some(password) = connect.password {
        sink.binary(password)?;
    }
    Ok(())
}

fn put_connack<S: Sink>(connack: &ConnAck<'_>, version: Version, sink: &mut S) -> Done {
    if connack.session_present && connack.reason != ReasonCode::Success {
        return Err(illegal("MQTT-3.2.2-6", "session present on a refused connection"));
    }
    // MQTT 3.1 has no such flag.
    sink.byte(u8::from(connack.session_present && version != Version::V3));
    if version == Version::V5 {
        check_reason(connack.reason, PacketType::ConnAck)?;
        sink.byte(connack.reason.byte());
        return section(&connack.properties, sink);
    }
    // [MQTT-3.2.2-6] of 3.1.1: where no return code fits, the connection is closed without a CONNACK.
    let code = connack
        .reason
        .connect_return_code()
        .ok_or(illegal("MQTT-3.2.2-6", "no return code below MQTT 5 says this"))?;
    sink.byte(code);
    Ok(())
}

/// A PUBLISH up to its payload.
pub(super) fn put_publish_header<S: Sink>(
    publish: &Publish<'_>,
    version: Version,
    sink: &mut S,
) -> Done {
    if S::CHECKS {
        check_publish(publish, version)?;
    }
    sink.binary(publish.topic.as_bytes())?;
    if let Some(packet_id) = publish.packet_id {
        sink.number_u16(packet_id.get());
    }
    if version == Version::V5 {
        section(&publish.properties, sink)?;
    }
    Ok(())
}

fn check_publish(publish: &Publish<'_>, version: Version) -> Done {
    let is_aliased = version == Version::V5 && publish.properties.topic_alias.is_some();
    if !(publish.topic.is_empty() && is_aliased) {
        topic::check_name(publish.topic).map_err(topic::TopicError::as_encode_error)?;
    }
    if publish.packet_id.is_some() != (publish.qos != QoS::AtMostOnce) {
        return Err(illegal("MQTT-2.2.1-2", "a packet identifier is there exactly above QoS 0"));
    }
    if publish.dup && publish.qos == QoS::AtMostOnce {
        return Err(illegal("MQTT-3.3.1-2", "DUP on a PUBLISH of QoS 0"));
    }
    Ok(())
}

fn put_ack<S: Sink>(
    ack: &Ack<'_>,
    packet_type: PacketType,
    version: Version,
    sink: &mut S,
) -> Done {
    sink.number_u16(ack.packet_id.get());
    if version != Version::V5 {
        if ack.reason.is_error() {
            return Err(illegal("2.4", "below MQTT 5 an acknowledgement can only say success"));
        }
        return Ok(());
    }
    check_reason(ack.reason, packet_type)?;
    let bare = is_empty(&ack.properties)?;
    if bare && ack.reason == ReasonCode::Success {
        return Ok(());
    }
    sink.byte(ack.reason.byte());
    if bare {
        return Ok(());
    }
    section(&ack.properties, sink)
}

fn put_subscribe<S: Sink>(subscribe: &Subscribe<'_>, version: Version, sink: &mut S) -> Done {
    sink.number_u16(subscribe.packet_id.get());
    if version == Version::V5 {
        section(&subscribe.properties, sink)?;
    }
    let mut any = false;
    for subscription in subscribe.subscriptions.iter() {
        any = true;
        let is_shared = put_filter(subscription.filter, version, sink)?;
        let options = subscription.options;
        if version != Version::V5 {
            sink.byte(options.qos as u8);
            continue;
        }
        if is_shared && options.no_local {
            return Err(illegal("MQTT-3.8.3-4", "No Local on a shared subscription"));
        }
        sink.byte(options.bits());
    }
    if any { Ok(()) } else { Err(illegal("MQTT-3.8.3-2", "a SUBSCRIBE without a topic filter")) }
}

/// Writes a filter; says whether it is of a shared subscription.
fn put_filter<S: Sink>(filter: &str, version: Version, sink: &mut S) -> Result<bool, EncodeError> {
    let mut is_shared = false;
    if S::CHECKS {
        topic::check_filter(filter).map_err(topic::TopicError::as_encode_error)?;
        if version == Version::V5 {
            let shared = topic::split_share(filter).map_err(topic::TopicError::as_encode_error)?;
            is_shared = shared.is_some();
        }
    }
    sink.binary(filter.as_bytes())?;
    Ok(is_shared)
}

fn put_suback<S: Sink>(suback: &SubAck<'_>, version: Version, sink: &mut S) -> Done {
    sink.number_u16(suback.packet_id.get());
    if version == Version::V5 {
        section(&suback.properties, sink)?;
    }
    if suback.reasons.iter().len() == 0 {
        return Err(illegal("MQTT-3.9.3-1", "a SUBACK without a reason code"));
    }
    for reason in suback.reasons.iter() {
        check_reason(reason, PacketType::SubAck)?;
        // Below version 5 there is one failure. 3.1 has none; what servers of 3.1.1 send is the least misleading there.
        let is_plain_failure = version != Version::V5 && reason.is_error();
        sink.byte(if is_plain_failure { 0x80 } else { reason.byte() });
    }
    Ok(())
}

fn put_unsubscribe<S: Sink>(unsubscribe: &Unsubscribe<'_>, version: Version, sink: &mut S) -> Done {
    sink.number_u16(unsubscribe.packet_id.get());
    if version == Version::V5 {
        section(&unsubscribe.user_properties, sink)?;
    }
    let mut any = false;
    for filter in unsubscribe.filters.iter() {
        any = true;
        put_filter(filter, version, sink)?;
    }
    if any { Ok(()) } else { Err(illegal("MQTT-3.10.3-2", "an UNSUBSCRIBE without a filter")) }
}

fn put_unsuback<S: Sink>(unsuback: &UnsubAck<'_>, version: Version, sink: &mut S) -> Done {
    sink.number_u16(unsuback.packet_id.get());
    if version != Version::V5 {
        // No reason codes there: an UNSUBACK answers every UNSUBSCRIBE. [MQTT-3.10.4-4]
        return Ok(());
    }
    section(&unsuback.properties, sink)?;
    if unsuback.reasons.iter().len() == 0 {
        return Err(illegal("MQTT-3.11.3-1", "an UNSUBACK without a reason code"));
    }
    for reason in unsuback.reasons.iter() {
        check_reason(reason, PacketType::UnsubAck)?;
        sink.byte(reason.byte());
    }
    Ok(())
}

fn put_disconnect<S: Sink>(disconnect: &Disconnect<'_>, version: Version, sink: &mut S) -> Done {
    if version != Version::V5 {
        if disconnect.reason != ReasonCode::Success {
            return Err(illegal("3.14", "below MQTT 5 a DISCONNECT says nothing"));
        }
        return Ok(());
    }
    check_reason(disconnect.reason, PacketType::Disconnect)?;
    if disconnect.reason == ReasonCode::Success && is_empty(&disconnect.properties)? {
        return Ok(());
    }
    sink.byte(disconnect.reason.byte());
    // A property length of 0 could be left out (3.14.2.2.1), but some clients then fail to read the reason.
    section(&disconnect.properties, sink)
}

fn put_auth<S: Sink>(auth: &Auth<'_>, version: Version, sink: &mut S) -> Done {
    if version != Version::V5 {
        return Err(illegal("3.15", "there is no AUTH below MQTT 5"));
    }
    check_reason(auth.reason, PacketType::Auth)?;
    if is_empty(&auth.properties)? && auth.reason == ReasonCode::Success {
        return Ok(());
    }
    if auth.properties.authentication_method.is_none() {
        return Err(illegal("3.15.2.2.2", "an AUTH without an authentication method"));
    }
    sink.byte(auth.reason.byte());
    section(&auth.properties, sink)
}
