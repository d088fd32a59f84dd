//! MQTT 5's properties, written. (2.2.2)
//!
//! Invariant: only values that `decode::properties` accepts are written.

use super::illegal;
use super::sink::{Count, Sink};
use crate::codec::error::EncodeError;
use crate::codec::packet::QoS;
use crate::codec::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SUBSCRIPTION_IDENTIFIER_MAX, SubscribeProperties, UserProperties,
    WillProperties, id,
};

type Done = Result<(), EncodeError>;

/// The properties of one packet.
pub(super) trait Properties {
    fn put<S: Sink>(&self, sink: &mut S) -> Done;
}

/// Writes the property length and the properties.
pub(super) fn section<S: Sink, P: Properties>(properties: &P, sink: &mut S) -> Done {
    let mut counted = Count::default();
    properties.put(&mut counted)?;
    sink.put_varint(counted.bytes)?;
    if counted.bytes == 0 || sink.is_enough(&counted) {
        return Ok(());
    }
    properties.put(sink)
}

/// Whether the section would be empty: some packets then leave it out.
pub(super) fn is_empty<P: Properties>(properties: &P) -> Result<bool, EncodeError> {
    let mut counted = Count::default();
    properties.put(&mut counted)?;
    Ok(counted.bytes == 0)
}

fn byte<S: Sink>(sink: &mut S, identifier: u8, value: Option<u8>) {
    if let Some(value) = value {
        sink.slice(&[identifier, value]);
    }
}

fn flag<S: Sink>(sink: &mut S, identifier: u8, value: Option<bool>) {
    byte(sink, identifier, value.map(u8::from));
}

fn short<S: Sink>(sink: &mut S, identifier: u8, value: Option<u16>) {
    if let Some(value) = value {
        sink.byte(identifier);
        sink.number_u16(value);
    }
}

fn long<S: Sink>(sink: &mut S, identifier: u8, value: Option<u32>) {
    if let Some(value) = value {
        sink.byte(identifier);
        sink.number_u32(value);
    }
}

fn string<S: Sink>(sink: &mut S, identifier: u8, value: Option<&str>) -> Done {
    let Some(value) = value else { return Ok(()) };
    sink.byte(identifier);
    sink.string(value)
}

fn binary<S: Sink>(sink: &mut S, identifier: u8, value: Option<&[u8]>) -> Done {
    let Some(value) = value else { return Ok(()) };
    sink.byte(identifier);
    sink.binary(value)
}

fn response_topic<S: Sink>(sink: &mut S, value: Option<&str>) -> Done {
    let Some(value) = value else { return Ok(()) };
    sink.byte(id::RESPONSE_TOPIC);
    sink.topic_name(value)
}

fn user_properties<S: Sink>(sink: &mut S, properties: &UserProperties<'_>) -> Done {
    for (name, value) in properties.iter() {
        sink.byte(id::USER_PROPERTY);
        sink.binary(name.as_bytes())?;
        sink.binary(value.as_bytes())?;
    }
    Ok(())
}

fn subscription_identifier<S: Sink>(sink: &mut S, identifier: u32) -> Done {
    if !(1..=SUBSCRIPTION_IDENTIFIER_MAX).contains(&identifier) {
        return Err(illegal("3.8.2.1.2", "a subscription identifier of 0 or above 268,435,455"));
    }
    sink.byte(id::SUBSCRIPTION_IDENTIFIER);
    sink.put_varint(identifier as usize)
}

fn payload_format_indicator<S: Sink>(sink: &mut S, value: Option<u8>) -> Done {
    if value.is_some_and(|v| v > 1) {
        return Err(illegal("3.3.2.3.2", "a payload format indicator that is neither 0 nor 1"));
    }
    byte(sink, id::PAYLOAD_FORMAT_INDICATOR, value);
    Ok(())
}

fn limits<S: Sink>(
    sink: &mut S,
    receive_maximum: Option<u16>,
    maximum_packet_size_bytes: Option<u32>,
) -> Done {
    if receive_maximum == Some(0) || maximum_packet_size_bytes == Some(0) {
        return Err(illegal("3.1.2.11", "a receive maximum or maximum packet size of 0"));
    }
    short(sink, id::RECEIVE_MAXIMUM, receive_maximum);
    long(sink, id::MAXIMUM_PACKET_SIZE, maximum_packet_size_bytes);
    Ok(())
}

fn authentication<S: Sink>(sink: &mut S, method: Option<&str>, data: Option<&[u8]>) -> Done {
    if data.is_some() && method.is_none() {
        return Err(illegal("3.1.2.11.10", "authentication data without a method"));
    }
    string(sink, id::AUTHENTICATION_METHOD, method)?;
    binary(sink, id::AUTHENTICATION_DATA, data)
}

impl Properties for ConnectProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) -> Done {
        long(sink, id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval_s);
        limits(sink, self.receive_maximum, self.maximum_packet_size_bytes)?;
        short(sink, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        flag(sink, id::REQUEST_RESPONSE_INFORMATION, self.request_response_information);
        flag(sink, id::REQUEST_PROBLEM_INFORMATION, self.request_problem_information);
        authentication(sink, self.authentication_method, self.authentication_data)?;
        user_properties(sink, &self.user_properties)
    }
}

impl Properties for WillProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) -> Done {
        long(sink, id::WILL_DELAY_INTERVAL, self.delay_interval_s);
        payload_format_indicator(sink, self.payload_format_indicator)?;
        long(sink, id::MESSAGE_EXPIRY_INTERVAL, self.message_expiry_interval_s);
        string(sink, id::CONTENT_TYPE, self.content_type)?;
        response_topic(sink, self.response_topic)?;
        binary(sink, id::CORRELATION_DATA, self.correlation_data)?;
        user_properties(sink, &self.user_properties)
    }
}

impl Properties for ConnAckProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) -> Done {
        long(sink, id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval_s);
        limits(sink, self.receive_maximum, self.maximum_packet_size_bytes)?;
        if self.maximum_qos == Some(QoS::ExactlyOnce) {
            return Err(illegal("3.2.2.3.4", "a maximum QoS of 2 is said by leaving it out"));
        }
        byte(sink, id::MAXIMUM_QOS, self.maximum_qos.map(|q| q as u8));
        flag(sink, id::RETAIN_AVAILABLE, self.retain_available);
        string(sink, id::ASSIGNED_CLIENT_IDENTIFIER, self.assigned_client_identifier)?;
        short(sink, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        string(sink, id::REASON_STRING, self.reason_string)?;
        flag(sink, id::WILDCARD_SUBSCRIPTION_AVAILABLE, self.wildcard_subscription_available);
        flag(sink, id::SUBSCRIPTION_IDENTIFIER_AVAILABLE, self.subscription_identifiers_available);
        flag(sink, id::SHARED_SUBSCRIPTION_AVAILABLE, self.shared_subscription_available);
        short(sink, id::SERVER_KEEP_ALIVE, self.server_keep_alive_s);
        string(sink, id::RESPONSE_INFORMATION, self.response_information)?;
        string(sink, id::SERVER_REFERENCE, self.server_reference)?;
        authentication(sink, self.authentication_method, self.authentication_data)?;
        user_properties(sink, &self.user_properties)
    }
}

impl Properties for PublishProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) -> Done {
        payload_format_indicator(sink, self.payload_format_indicator)?;
        long(sink, id::MESSAGE_EXPIRY_INTERVAL, self.message_expiry_interval_s);
        if self.topic_alias == Some(0) {
            return Err(illegal("MQTT-3.3.2-8", "a topic alias of 0"));
        }
        short(sink, id::TOPIC_ALIAS, self.topic_alias);
        response_topic(sink, self.response_topic)?;
        binary(sink, id::CORRELATION_DATA, self.correlation_data)?;
        user_properties(sink, &self.user_properties)?;
        for identifier in self.subscription_identifiers.iter() {
            subscription_identifier(sink, identifier)?;
        }
        string(sink, id::CONTENT_TYPE, self.content_type)
    }
}

impl Properties for AckProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) -> Done {
        string(sink, id::REASON_STRING, self.reason_string)?;
        user_properties(sink, &self.user_properties)
    }
}

impl Properties for SubscribeProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) -> Done {
        if let Some(identifier) = self.subscription_identifier {
            subscription_identifier(sink, identifier)?;
        }
        user_properties(sink, &self.user_properties)
    }
}

impl Properties for UserProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) -> Done {
        user_properties(sink, self)
    }
}

impl Properties for DisconnectProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) -> Done {
        long(sink, id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval_s);
        string(sink, id::REASON_STRING, self.reason_string)?;
        user_properties(sink, &self.user_properties)?;
        string(sink, id::SERVER_REFERENCE, self.server_reference)
    }
}

impl Properties for AuthProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) -> Done {
        authentication(sink, self.authentication_method, self.authentication_data)?;
        string(sink, id::REASON_STRING, self.reason_string)?;
        user_properties(sink, &self.user_properties)
    }
}
