//! The properties of MQTT 5 (section 2.2.2): what each packet may carry.
//!
//! Lists stay checked wire bytes. Invariant: a [`UserProperties`] or [`SubscriptionIdentifiers`] exists only over bytes
//! that were checked by the decoder or written by a buffer of this module.

use super::error::EncodeError;
use super::packet::QoS;
use super::wire::{self, Reader};

/// Identifiers of table 2-4.
pub(super) mod id {
    pub(in super::super) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(in super::super) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(in super::super) const CONTENT_TYPE: u8 = 0x03;
    pub(in super::super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in super::super) const CORRELATION_DATA: u8 = 0x09;
    pub(in super::super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(in super::super) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(in super::super) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(in super::super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(in super::super) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(in super::super) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(in super::super) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(in super::super) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(in super::super) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(in super::super) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(in super::super) const SERVER_REFERENCE: u8 = 0x1C;
    pub(in super::super) const REASON_STRING: u8 = 0x1F;
    pub(in super::super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in super::super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in super::super) const TOPIC_ALIAS: u8 = 0x23;
    pub(in super::super) const MAXIMUM_QOS: u8 = 0x24;
    pub(in super::super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(in super::super) const USER_PROPERTY: u8 = 0x26;
    pub(in super::super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(in super::super) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(in super::super) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub(in super::super) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// Largest Subscription Identifier: what a variable byte integer holds.
pub(super) const SUBSCRIPTION_IDENTIFIER_MAX: u32 = wire::VARINT_MAX;

/// Properties of a CONNECT (section 3.1.2.11). What is absent has the protocol's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectProperties<'a> {
    /// Seconds the session outlives the connection; absent is 0, `u32::MAX` is for ever.
    pub session_expiry_interval_s: Option<u32>,
    /// QoS 1 and 2 messages the client takes unacknowledged; never 0; absent is 65,535.
    pub receive_maximum: Option<u16>,
    /// Largest packet the client takes, in bytes; never 0; absent is no limit.
    pub maximum_packet_size_bytes: Option<u32>,
    /// Highest topic alias the client takes; absent is 0.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the CONNACK may bring Response Information; absent is no.
    pub request_response_information: Option<bool>,
    /// Whether reason strings and user properties are welcome outside PUBLISH, CONNACK and DISCONNECT; absent is yes.
    /// [MQTT-3.1.2-29]
    pub request_problem_information: Option<bool>,
    /// In order, duplicates kept.
    pub user_properties: UserProperties<'a>,
    /// Starts extended authentication.
    pub authentication_method: Option<&'a str>,
    /// Only with a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// Properties of a will (section 3.1.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WillProperties<'a> {
    /// Seconds between the end of the connection and the will; absent is 0.
    pub delay_interval_s: Option<u32>,
    /// Payload is UTF-8 (1) rather than unspecified bytes (0).
    pub payload_format_indicator: Option<u8>,
    /// Seconds the message lives.
    pub message_expiry_interval_s: Option<u32>,
    /// MIME type by convention.
    pub content_type: Option<&'a str>,
    /// A topic name for the answer.
    pub response_topic: Option<&'a str>,
    /// Opaque to the server.
    pub correlation_data: Option<&'a [u8]>,
    /// In order, duplicates kept.
    pub user_properties: UserProperties<'a>,
}

/// Properties of a CONNACK (section 3.2.2.3). What is absent has the protocol's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnAckProperties<'a> {
    /// Seconds, where the server chose another value than the client.
    pub session_expiry_interval_s: Option<u32>,
    /// QoS 1 and 2 messages the server takes unacknowledged; never 0; absent is 65,535.
    pub receive_maximum: Option<u16>,
    /// Highest QoS the server takes. 2 is said by absence only.
    pub maximum_qos: Option<QoS>,
    /// Absent is yes.
    pub retain_available: Option<bool>,
    /// Largest packet the server takes, in bytes; never 0; absent is no limit.
    pub maximum_packet_size_bytes: Option<u32>,
    /// Where the client gave none.
    pub assigned_client_identifier: Option<&'a str>,
    /// Highest topic alias the server takes; absent is 0.
    pub topic_alias_maximum: Option<u16>,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// In order, duplicates kept.
    pub user_properties: UserProperties<'a>,
    /// Absent is yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Absent is yes.
    pub subscription_identifiers_available: Option<bool>,
    /// Absent is yes.
    pub shared_subscription_available: Option<bool>,
    /// Seconds, where the server chose another value than the client.
    pub server_keep_alive_s: Option<u16>,
    /// Basis for response topics.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// As in the CONNECT.
    pub authentication_method: Option<&'a str>,
    /// Only with a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// Properties of a PUBLISH (MQTT 5, section 3.3.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishProperties<'a> {
    /// Payload is UTF-8 (1) rather than unspecified bytes (0).
    pub payload_format_indicator: Option<u8>,
    /// Seconds the message lives.
    pub message_expiry_interval_s: Option<u32>,
    /// Never 0.
    pub topic_alias: Option<u16>,
    /// A topic name for the answer.
    pub response_topic: Option<&'a str>,
    /// Opaque to the server.
    pub correlation_data: Option<&'a [u8]>,
    /// In order, duplicates kept.
    pub user_properties: UserProperties<'a>,
    /// Only from server to client.
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// MIME type by convention.
    pub content_type: Option<&'a str>,
}

/// Properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AckProperties<'a> {
    /// For people.
    pub reason_string: Option<&'a str>,
    /// In order, duplicates kept.
    pub user_properties: UserProperties<'a>,
}

/// Properties of a SUBSCRIBE (section 3.8.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscribeProperties<'a> {
    /// 1 to 268,435,455.
    pub subscription_identifier: Option<u32>,
    /// In order, duplicates kept.
    pub user_properties: UserProperties<'a>,
}

/// Properties of a DISCONNECT (section 3.14.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DisconnectProperties<'a> {
    /// Only from a client. [MQTT-3.14.2-2]
    pub session_expiry_interval_s: Option<u32>,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// In order, duplicates kept.
    pub user_properties: UserProperties<'a>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
}

/// Properties of an AUTH (section 3.15.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuthProperties<'a> {
    /// As in the CONNECT.
    pub authentication_method: Option<&'a str>,
    /// The method's own.
    pub authentication_data: Option<&'a [u8]>,
    /// For people.
    pub reason_string: Option<&'a str>,
    /// In order, duplicates kept.
    pub user_properties: UserProperties<'a>,
}

/// User properties as checked wire bytes; iterating yields (name, value) in order.
///
/// The bytes are those from the first user property to the last of a packet, with other properties between them where
/// the sender mixed them.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a>(pub(super) &'a [u8]);

impl<'a> UserProperties<'a> {
    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || {
            loop {
                if reader.u8()? == id::USER_PROPERTY {
                    return Some((reader.checked_string()?, reader.checked_string()?));
                }
                reader.step_back();
                wire::skip_property(&mut reader)?;
            }
        })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl std::fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Subscription identifiers as checked wire bytes, or a list that was built here.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIdentifiers<'a> {
    pub(super) wire: &'a [u8],
    pub(super) built: &'a [u32],
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// A list to be encoded; the encoder checks the bounds (1 to 268,435,455).
    #[must_use]
    pub const fn new(list: &'a [u32]) -> Self {
        Self { wire: &[], built: list }
    }

    /// The identifiers in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        let mut reader = Reader::new(self.wire);
        let from_wire = std::iter::from_fn(move || {
            loop {
                if reader.u8()? == id::SUBSCRIPTION_IDENTIFIER {
                    return reader.varint().ok();
                }
                reader.step_back();
                wire::skip_property(&mut reader)?;
            }
        });
        from_wire.chain(self.built.iter().copied())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty() && self.built.is_empty()
    }
}

impl PartialEq for SubscriptionIdentifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIdentifiers<'_> {}

impl std::fmt::Debug for SubscriptionIdentifiers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A buffer to build user properties in; reuse it to keep the memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserPropertiesBuf(Vec<u8>);

impl UserPropertiesBuf {
    /// Forgets the pairs, keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a pair at the end.
    ///
    /// # Errors
    /// [`EncodeError::Illegal`] for a string over 65,535 bytes or with U+0000 in it; nothing is added then.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), EncodeError> {
        let name = wire::LengthPrefixed::string(name)?;
        let value = wire::LengthPrefixed::string(value)?;
        self.0.push(id::USER_PROPERTY);
        name.append_to(&mut self.0);
        value.append_to(&mut self.0);
        Ok(())
    }

    /// The pairs, to put into a packet.
    #[must_use]
    pub fn as_properties(&self) -> UserProperties<'_> {
        UserProperties(&self.0)
    }
}
