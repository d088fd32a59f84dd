//! MQTT 5's properties, read: which are legal where, how often, and with which values. (2.2.2)
//!
//! Invariant: an identifier that is unknown or not for this packet is malformed (2.2.2.2); a property that may come
//! once and comes twice is a protocol error.

use super::{Context, Receiver};
use crate::codec::error::{DecodeError, Violation};
use crate::codec::packet::QoS;
use crate::codec::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, SubscriptionIdentifiers, UserProperties,
    WillProperties, id,
};
use crate::codec::wire::{Reader, malformed, protocol_error};

const NOT_HERE: DecodeError =
    malformed("2.2.2.2", "a property that is unknown or not one for this packet");
const CUT_SHORT: DecodeError = malformed("2.2.2.2", "a property is cut short");

/// The property section of one packet.
struct Section<'a> {
    bytes: &'a [u8],
    reader: Reader<'a>,
    /// From the first user property to the last. User properties are legal wherever properties are.
    user: Option<(usize, usize)>,
}

impl<'a> Section<'a> {
    /// Reads the property length and cuts the section off the front of `body`. (2.2.2.1)
    fn open(body: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let length = body.varint()?;
        let bytes = body
            .take(length as usize)
            .ok_or(malformed("2.2.2.1", "the property length is longer than the packet"))?;
        Ok(Self { bytes, reader: Reader::new(bytes), user: None })
    }

    /// The identifier of the next property that is no user property.
    fn next(&mut self) -> Option<Result<u8, DecodeError>> {
        loop {
            let start = self.reader.position();
            let identifier = self.reader.u8()?;
            if identifier != id::USER_PROPERTY {
                return Some(Ok(identifier));
            }
            if let Err(error) = self.reader.string().and_then(|_| self.reader.string()) {
                return Some(Err(error));
            }
            let first = self.user.map_or(start, |(first, _)| first);
            self.user = Some((first, self.reader.position()));
        }
    }

    fn user_properties(&self) -> UserProperties<'a> {
        let bytes = self.user.and_then(|(first, end)| self.bytes.get(first..end));
        UserProperties(bytes.unwrap_or_default())
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.reader.u8().ok_or(CUT_SHORT)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.reader.u16().ok_or(CUT_SHORT)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.reader.u32().ok_or(CUT_SHORT)
    }

    fn string(&mut self) -> Result<&'a str, DecodeError> {
        self.reader.string()
    }

    fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        self.reader.prefixed().ok_or(CUT_SHORT)
    }

    /// A byte that says no or yes.
    fn flag(&mut self, tag: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(protocol_error(tag, "the value of a property is neither 0 nor 1")),
        }
    }

    fn payload_format_indicator(&mut self) -> Result<u8, DecodeError> {
        self.flag("3.3.2.3.2").map(u8::from)
    }

    /// A number that may not be 0.
    fn nonzero_u16(&mut self, tag: &'static str) -> Result<u16, DecodeError> {
        let value = self.u16()?;
        if value == 0 { Err(zero(tag)) } else { Ok(value) }
    }

    fn nonzero_u32(&mut self, tag: &'static str) -> Result<u32, DecodeError> {
        let value = self.u32()?;
        if value == 0 { Err(zero(tag)) } else { Ok(value) }
    }

    fn subscription_identifier(&mut self, tag: &'static str) -> Result<u32, DecodeError> {
        let value = self.reader.varint()?;
        if value == 0 { Err(zero(tag)) } else { Ok(value) }
    }
}

const fn zero(tag: &'static str) -> DecodeError {
    protocol_error(tag, "the value of a property is 0")
}

/// Sets a property that may come once.
fn once<T>(field: &mut Option<T>, value: T) -> Result<(), DecodeError> {
    if field.is_some() {
        return Err(protocol_error("2.2.2", "a property that may come once comes twice"));
    }
    *field = Some(value);
    Ok(())
}

fn authentication_is_whole(method: Option<&str>, data: Option<&[u8]>) -> Result<(), DecodeError> {
    if data.is_some() && method.is_none() {
        return Err(protocol_error(
            "3.1.2.11.10",
            "authentication data without an authentication method",
        ));
    }
    Ok(())
}

pub(super) fn connect_properties<'a>(
    body: &mut Reader<'a>,
) -> Result<ConnectProperties<'a>, DecodeError> {
    let mut p = ConnectProperties::default();
    let mut s = Section::open(body)?;
    while let Some(identifier) = s.next() {
        match identifier? {
            id::SESSION_EXPIRY_INTERVAL => once(&mut p.session_expiry_interval_s, s.u32()?)?,
            id::RECEIVE_MAXIMUM => once(&mut p.receive_maximum, s.nonzero_u16("3.1.2.11.3")?)?,
            id::MAXIMUM_PACKET_SIZE => {
                once(&mut p.maximum_packet_size_bytes, s.nonzero_u32("3.1.2.11.4")?)?;
            }
            id::TOPIC_ALIAS_MAXIMUM => once(&mut p.topic_alias_maximum, s.u16()?)?,
            id::REQUEST_RESPONSE_INFORMATION => {
                once(&mut p.request_response_information, s.flag("3.1.2.11.6")?)?;
            }
            id::REQUEST_PROBLEM_INFORMATION => {
                once(&mut p.request_problem_information, s.flag("3.1.2.11.7")?)?;
            }
            id::AUTHENTICATION_METHOD => once(&mut p.authentication_method, s.string()?)?,
            id::AUTHENTICATION_DATA => once(&mut p.authentication_data, s.binary()?)?,
            _ => return Err(NOT_HERE),
        }
    }
    authentication_is_whole(p.authentication_method, p.authentication_data)?;
    p.user_properties = s.user_properties();
    Ok(p)
}

pub(super) fn will_properties<'a>(
    body: &mut Reader<'a>,
) -> Result<WillProperties<'a>, DecodeError> {
    let mut p = WillProperties::default();
    let mut s = Section::open(body)?;
    while let Some(identifier) = s.next() {
        match identifier? {
            id::WILL_DELAY_INTERVAL => once(&mut p.delay_interval_s, s.u32()?)?,
            id::PAYLOAD_FORMAT_INDICATOR => {
                once(&mut p.payload_format_indicator, s.payload_format_indicator()?)?;
            }
            id::MESSAGE_EXPIRY_INTERVAL => once(&mut p.message_expiry_interval_s, s.u32()?)?,
            id::CONTENT_TYPE => once(&mut p.content_type, s.string()?)?,
            id::RESPONSE_TOPIC => once(&mut p.response_topic, s.reader.topic_name()?)?,
            id::CORRELATION_DATA => once(&mut p.correlation_data, s.binary()?)?,
            _ => return Err(NOT_HERE),
        }
    }
    p.user_properties = s.user_properties();
    Ok(p)
}

pub(super) fn connack_properties<'a>(
    body: &mut Reader<'a>,
) -> Result<ConnAckProperties<'a>, DecodeError> {
    let mut p = ConnAckProperties::default();
    let mut s = Section::open(body)?;
    while let Some(identifier) = s.next() {
        match identifier? {
            id::SESSION_EXPIRY_INTERVAL => once(&mut p.session_expiry_interval_s, s.u32()?)?,
            id::RECEIVE_MAXIMUM => once(&mut p.receive_maximum, s.nonzero_u16("3.2.2.3.3")?)?,
            id::MAXIMUM_QOS => {
                let qos = if s.flag("3.2.2.3.4")? { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                once(&mut p.maximum_qos, qos)?;
            }
            id::RETAIN_AVAILABLE => once(&mut p.retain_available, s.flag("3.2.2.3.5")?)?,
            id::MAXIMUM_PACKET_SIZE => {
                once(&mut p.maximum_packet_size_bytes, s.nonzero_u32("3.2.2.3.6")?)?;
            }
            id::ASSIGNED_CLIENT_IDENTIFIER => {
                once(&mut p.assigned_client_identifier, s.string()?)?;
            }
            id::TOPIC_ALIAS_MAXIMUM => once(&mut p.topic_alias_maximum, s.u16()?)?,
            id::REASON_STRING => once(&mut p.reason_string, s.string()?)?,
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                once(&mut p.wildcard_subscription_available, s.flag("3.2.2.3.11")?)?;
            }
            id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => {
                once(&mut p.subscription_identifiers_available, s.flag("3.2.2.3.12")?)?;
            }
            id::SHARED_SUBSCRIPTION_AVAILABLE => {
                once(&mut p.shared_subscription_available, s.flag("3.2.2.3.13")?)?;
            }
            id::SERVER_KEEP_ALIVE => once(&mut p.server_keep_alive_s, s.u16()?)?,
            id::RESPONSE_INFORMATION => once(&mut p.response_information, s.string()?)?,
            id::SERVER_REFERENCE => once(&mut p.server_reference, s.string()?)?,
            id::AUTHENTICATION_METHOD => once(&mut p.authentication_method, s.string()?)?,
            id::AUTHENTICATION_DATA => once(&mut p.authentication_data, s.binary()?)?,
            _ => return Err(NOT_HERE),
        }
    }
    authentication_is_whole(p.authentication_method, p.authentication_data)?;
    p.user_properties = s.user_properties();
    Ok(p)
}

#[inline]
pub(super) fn publish_properties<'a>(
    cx: Context,
    body: &mut Reader<'a>,
) -> Result<PublishProperties<'a>, DecodeError> {
    if body.skip_if(0) {
        return Ok(PublishProperties::default());
    }
    publish_section(cx, Section::open(body)?)
}

fn publish_section<'a>(
    cx: Context,
    mut s: Section<'a>,
) -> Result<PublishProperties<'a>, DecodeError> {
    let mut p = PublishProperties::default();
    let mut identifiers: Option<(usize, usize)> = None;
    while let Some(identifier) = s.next() {
        match identifier? {
            id::PAYLOAD_FORMAT_INDICATOR => {
                once(&mut p.payload_format_indicator, s.payload_format_indicator()?)?;
            }
            id::MESSAGE_EXPIRY_INTERVAL => once(&mut p.message_expiry_interval_s, s.u32()?)?,
            id::TOPIC_ALIAS => {
                let alias = s.u16()?;
                if alias == 0 {
                    return Err(DecodeError::new(
                        Violation::TopicAliasInvalid,
                        "MQTT-3.3.2-8",
                        "a topic alias of 0",
                    ));
                }
                once(&mut p.topic_alias, alias)?;
            }
            // [MQTT-3.3.2-14]: no wildcards in it.
            id::RESPONSE_TOPIC => once(&mut p.response_topic, s.reader.topic_name()?)?,
            id::CORRELATION_DATA => once(&mut p.correlation_data, s.binary()?)?,
            id::CONTENT_TYPE => once(&mut p.content_type, s.string()?)?,
            id::SUBSCRIPTION_IDENTIFIER => {
                if cx.receiver == Receiver::Server {
                    return Err(protocol_error(
                        "MQTT-3.3.4-6",
                        "a subscription identifier from a client",
                    ));
                }
                let start = s.reader.position() - 1;
                s.subscription_identifier("3.3.2.3.8")?;
                let first = identifiers.map_or(start, |(first, _)| first);
                identifiers = Some((first, s.reader.position()));
            }
            _ => return Err(NOT_HERE),
        }
    }
    p.user_properties = s.user_properties();
    let wire = identifiers.and_then(|(first, end)| s.bytes.get(first..end)).unwrap_or_default();
    p.subscription_identifiers = SubscriptionIdentifiers { wire, built: &[] };
    Ok(p)
}

pub(super) fn ack_properties<'a>(body: &mut Reader<'a>) -> Result<AckProperties<'a>, DecodeError> {
    let mut p = AckProperties::default();
    let mut s = Section::open(body)?;
    while let Some(identifier) = s.next() {
        match identifier? {
            id::REASON_STRING => once(&mut p.reason_string, s.string()?)?,
            _ => return Err(NOT_HERE),
        }
    }
    p.user_properties = s.user_properties();
    Ok(p)
}

pub(super) fn subscribe_properties<'a>(
    body: &mut Reader<'a>,
) -> Result<SubscribeProperties<'a>, DecodeError> {
    let mut p = SubscribeProperties::default();
    let mut s = Section::open(body)?;
    while let Some(identifier) = s.next() {
        match identifier? {
            id::SUBSCRIPTION_IDENTIFIER => {
                once(&mut p.subscription_identifier, s.subscription_identifier("3.8.2.1.2")?)?;
            }
            _ => return Err(NOT_HERE),
        }
    }
    p.user_properties = s.user_properties();
    Ok(p)
}

pub(super) fn unsubscribe_properties<'a>(
    body: &mut Reader<'a>,
) -> Result<UserProperties<'a>, DecodeError> {
    let mut s = Section::open(body)?;
    match s.next() {
        None => Ok(s.user_properties()),
        Some(Err(error)) => Err(error),
        Some(Ok(_)) => Err(NOT_HERE),
    }
}

pub(super) fn disconnect_properties<'a>(
    cx: Context,
    body: &mut Reader<'a>,
) -> Result<DisconnectProperties<'a>, DecodeError> {
    let mut p = DisconnectProperties::default();
    let mut s = Section::open(body)?;
    while let Some(identifier) = s.next() {
        match identifier? {
            id::SESSION_EXPIRY_INTERVAL => {
                if cx.receiver == Receiver::Client {
                    return Err(protocol_error(
                        "MQTT-3.14.2-2",
                        "a session expiry interval in a server's DISCONNECT",
                    ));
                }
                once(&mut p.session_expiry_interval_s, s.u32()?)?;
            }
            id::REASON_STRING => once(&mut p.reason_string, s.string()?)?,
            id::SERVER_REFERENCE => once(&mut p.server_reference, s.string()?)?,
            _ => return Err(NOT_HERE),
        }
    }
    p.user_properties = s.user_properties();
    Ok(p)
}

pub(super) fn auth_properties<'a>(
    body: &mut Reader<'a>,
) -> Result<AuthProperties<'a>, DecodeError> {
    let mut p = AuthProperties::default();
    let mut s = Section::open(body)?;
    while let Some(identifier) = s.next() {
        match identifier? {
            id::AUTHENTICATION_METHOD => once(&mut p.authentication_method, s.string()?)?,
            id::AUTHENTICATION_DATA => once(&mut p.authentication_data, s.binary()?)?,
            id::REASON_STRING => once(&mut p.reason_string, s.string()?)?,
            _ => return Err(NOT_HERE),
        }
    }
    p.user_properties = s.user_properties();
    Ok(p)
}
