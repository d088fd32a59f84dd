//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (sections 3.8 to 3.11).

use super::properties::{ack_properties, subscribe_properties, unsubscribe_properties};
use super::publish::packet_id;
use super::{CUT_SHORT, Context, reason};
use crate::codec::error::DecodeError;
use crate::codec::packet::{
    ListOf, PacketType, ReasonCodes, SubAck, Subscribe, SubscriptionOptions, Subscriptions,
    TopicFilters, UnsubAck, Unsubscribe, Version,
};
use crate::codec::properties::{AckProperties, SubscribeProperties, UserProperties};
use crate::codec::topic;
use crate::codec::wire::{Reader, malformed, protocol_error};

pub(super) fn subscribe<'a>(
    cx: Context,
    body: &mut Reader<'a>,
) -> Result<Subscribe<'a>, DecodeError> {
    let packet_id = packet_id(body)?;
    let properties =
        if cx.is_v5() { subscribe_properties(body)? } else { SubscribeProperties::default() };
    let list = body.rest();
    let mut filters = Reader::new(list);
    if filters.left() == 0 {
        return Err(protocol_error("MQTT-3.8.3-2", "a SUBSCRIBE without a topic filter"));
    }
    while filters.left() != 0 {
        let is_shared = filter(cx, &mut filters)?;
        let options = options(cx, filters.u8().ok_or(CUT_SHORT)?)?;
        if is_shared && options.no_local {
            return Err(protocol_error("MQTT-3.8.3-4", "No Local on a shared subscription"));
        }
    }
    Ok(Subscribe { packet_id, properties, subscriptions: Subscriptions(ListOf::Wire(list)) })
}

/// Checks one filter; says whether it is of a shared subscription. Below version 5 there are none in the protocol.
fn filter(cx: Context, filters: &mut Reader<'_>) -> Result<bool, DecodeError> {
    let filter = filters.string()?;
    topic::check_filter(filter).map_err(topic::TopicError::as_decode_error)?;
    if !cx.is_v5() {
        return Ok(false);
    }
    let shared = topic::split_share(filter).map_err(topic::TopicError::as_decode_error)?;
    Ok(shared.is_some())
}

fn options(cx: Context, byte: u8) -> Result<SubscriptionOptions, DecodeError> {
    let reserved = if cx.is_v5() { 0b1100_0000 } else { 0b1111_1100 };
    if byte & reserved != 0 {
        return Err(malformed("MQTT-3.8.3-5", "reserved bits of the subscription options are set"));
    }
    SubscriptionOptions::from_bits(byte).ok_or(if byte & 0b11 == 0b11 {
        protocol_error("3.8.3.1", "a maximum QoS of 3")
    } else {
        protocol_error("3.8.3.1", "a retain handling of 3")
    })
}

pub(super) fn suback<'a>(cx: Context, body: &mut Reader<'a>) -> Result<SubAck<'a>, DecodeError> {
    let packet_id = packet_id(body)?;
    let properties = if cx.is_v5() { ack_properties(body)? } else { AckProperties::default() };
    let codes = body.rest();
    if codes.is_empty() {
        return Err(protocol_error("MQTT-3.9.3-1", "a SUBACK without a reason code"));
    }
    for byte in codes {
        let is_legal_before_5 = matches!(byte, 0..=2 | 0x80);
        if cx.is_v5() {
            reason(cx, PacketType::SubAck, *byte, "MQTT-3.9.3-2")?;
        } else if !is_legal_before_5 {
            // 0x80 is 3.1.1's; servers of 3.1 send it too, and it can mean nothing else.
            return Err(malformed("MQTT-3.9.3-2", "the SUBACK return code is reserved"));
        }
    }
    Ok(SubAck { packet_id, properties, reasons: ReasonCodes(ListOf::Wire(codes)) })
}

pub(super) fn unsubscribe<'a>(
    cx: Context,
    body: &mut Reader<'a>,
) -> Result<Unsubscribe<'a>, DecodeError> {
    let packet_id = packet_id(body)?;
    let user_properties =
        if cx.is_v5() { unsubscribe_properties(body)? } else { UserProperties::default() };
    let list = body.rest();
    let mut filters = Reader::new(list);
    if filters.left() == 0 {
        return Err(protocol_error("MQTT-3.10.3-2", "an UNSUBSCRIBE without a topic filter"));
    }
    while filters.left() != 0 {
        filter(cx, &mut filters)?;
    }
    Ok(Unsubscribe { packet_id, user_properties, filters: TopicFilters(ListOf::Wire(list)) })
}

pub(super) fn unsuback<'a>(
    cx: Context,
    body: &mut Reader<'a>,
) -> Result<UnsubAck<'a>, DecodeError> {
    let packet_id = packet_id(body)?;
    if cx.version != Version::V5 {
        let reasons = ReasonCodes::new(&[]);
        return Ok(UnsubAck { packet_id, properties: AckProperties::default(), reasons });
    }
    let properties = ack_properties(body)?;
    let codes = body.rest();
    if codes.is_empty() {
        return Err(protocol_error("MQTT-3.11.3-1", "an UNSUBACK without a reason code"));
    }
    for byte in codes {
        reason(cx, PacketType::UnsubAck, *byte, "MQTT-3.11.3-2")?;
    }
    Ok(UnsubAck { packet_id, properties, reasons: ReasonCodes(ListOf::Wire(codes)) })
}
