//! The fifteen packets of MQTT, borrowed from the bytes they were decoded from.
//!
//! Invariant: a value that came out of the decoder is legal; one built by hand is checked by the encoder. Lists
//! (filters, reason codes, user properties) stay checked wire bytes, so that decoding allocates nothing.

use super::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UserProperties, WillProperties,
};
use super::reason::ReasonCode;
use super::wire;

/// A version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1 (`MQIsdp`, level 3).
    V3 = 3,
    /// MQTT 3.1.1 (`MQTT`, level 4).
    V311 = 4,
    /// MQTT 5.0 (`MQTT`, level 5).
    V5 = 5,
}

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

impl QoS {
    /// `None` above 2.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
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

/// Control packet types: the upper half of the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// Any packet. Which side may send it, and in which version, is the decoder's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// Its type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

/// CONNECT (section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that the client wants to speak.
    pub version: Version,
    /// Clean Start; Clean Session below version 5.
    pub clean_start: bool,
    /// Seconds; 0 turns the mechanism off.
    pub keep_alive_s: u16,
    /// May be empty: the server then makes one up (not in 3.1; in 3.1.1 only with `clean_start`).
    pub client_id: &'a str,
    /// Message to publish if the connection ends without a DISCONNECT.
    pub will: Option<Will<'a>>,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// All absent below version 5.
    pub properties: ConnectProperties<'a>,
}

/// The will inside a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// Application message.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// Whether to retain it.
    pub retain: bool,
    /// All absent below version 5.
    pub properties: WillProperties<'a>,
}

/// CONNACK (section 3.2). Below version 5 the reason is mapped to and from the return codes 0 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Only with [`ReasonCode::Success`]. [MQTT-3.2.2-6]
    pub session_present: bool,
    /// Outcome.
    pub reason: ReasonCode,
    /// All absent below version 5.
    pub properties: ConnAckProperties<'a>,
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

/// PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Of the PUBLISH.
    pub packet_id: PacketId,
    /// Always [`ReasonCode::Success`] below version 5.
    pub reason: ReasonCode,
    /// All absent below version 5.
    pub properties: AckProperties<'a>,
}

impl Ack<'_> {
    /// An acknowledgement without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: AckProperties::default() }
    }
}

/// SUBSCRIBE (section 3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// To be answered by a SUBACK.
    pub packet_id: PacketId,
    /// All absent below version 5.
    pub properties: SubscribeProperties<'a>,
    /// At least one. [MQTT-3.8.3-2]
    pub subscriptions: Subscriptions<'a>,
}

/// What to send when a subscription is made (section 3.8.3.1). 3 is a protocol error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Retained messages are sent.
    #[default]
    Send = 0,
    /// Sent only if the subscription did not exist before.
    SendIfNew = 1,
    /// Not sent.
    DoNotSend = 2,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// A valid topic filter; with `$share/name/` still in front ([`super::topic::split_share`]).
    pub filter: &'a str,
    /// Its options.
    pub options: SubscriptionOptions,
}

/// Subscription options (section 3.8.3.1). Below version 5 only the quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionOptions {
    /// Highest quality of service to send with.
    pub qos: QoS,
    /// Do not send the client its own messages. Never on a shared subscription. [MQTT-3.8.3-4]
    pub no_local: bool,
    /// Keep the RETAIN flag of what is forwarded.
    pub retain_as_published: bool,
    /// Retained messages at subscribe.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    /// The options byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }

    /// `None` for QoS 3, retain handling 3 or a reserved bit.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & 0b1100_0000 != 0 {
            return None;
        }
        let Some(qos) = QoS::from_bits(bits & 0b11) else { return None };
        let retain_handling = match (bits >> 4) & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        };
        Some(Self {
            qos,
            no_local: bits & 0b100 != 0,
            retain_as_published: bits & 0b1000 != 0,
            retain_handling,
        })
    }
}

/// The filters of a SUBSCRIBE: checked wire bytes, or a list that was built here. Iterate with [`Subscriptions::iter`].
#[derive(Debug, Clone, Copy)]
pub struct Subscriptions<'a>(pub(super) ListOf<'a, Subscription<'a>>);

/// The filters of an UNSUBSCRIBE: checked wire bytes, or a list that was built here.
#[derive(Debug, Clone, Copy)]
pub struct TopicFilters<'a>(pub(super) ListOf<'a, &'a str>);

/// A list in the form in which it is at hand.
#[derive(Debug, Clone, Copy)]
pub(super) enum ListOf<'a, T> {
    /// Checked by the decoder.
    Wire(&'a [u8]),
    /// Checked by the encoder.
    Built(&'a [T]),
}

impl<'a> Subscriptions<'a> {
    /// A list to be encoded.
    #[must_use]
    pub const fn new(list: &'a [Subscription<'a>]) -> Self {
        Self(ListOf::Built(list))
    }

    /// The filters in order.
    pub fn iter(&self) -> impl Iterator<Item = Subscription<'a>> + use<'a> {
        let (mut wire, built) = match self.0 {
            ListOf::Wire(bytes) => (wire::Reader::new(bytes), &[][..]),
            ListOf::Built(list) => (wire::Reader::new(&[]), list),
        };
        let from_wire = std::iter::from_fn(move || {
            let filter = wire.checked_string()?;
            let options = SubscriptionOptions::from_bits(wire.u8()?)?;
            Some(Subscription { filter, options })
        });
        from_wire.chain(built.iter().copied())
    }
}

impl PartialEq for Subscriptions<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Subscriptions<'_> {}

impl<'a> TopicFilters<'a> {
    /// A list to be encoded.
    #[must_use]
    pub const fn new(list: &'a [&'a str]) -> Self {
        Self(ListOf::Built(list))
    }

    /// The filters in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (mut wire, built) = match self.0 {
            ListOf::Wire(bytes) => (wire::Reader::new(bytes), &[][..]),
            ListOf::Built(list) => (wire::Reader::new(&[]), list),
        };
        std::iter::from_fn(move || wire.checked_string()).chain(built.iter().copied())
    }
}

impl PartialEq for TopicFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for TopicFilters<'_> {}

/// SUBACK (section 3.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// All absent below version 5.
    pub properties: AckProperties<'a>,
    /// One per filter, in order. Below version 5 every failure is written as 0x80. [MQTT-3.9.3-1]
    pub reasons: ReasonCodes<'a>,
}

/// UNSUBSCRIBE (section 3.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// To be answered by an UNSUBACK.
    pub packet_id: PacketId,
    /// MQTT 5 user properties.
    pub user_properties: UserProperties<'a>,
    /// At least one. [MQTT-3.10.3-2]
    pub filters: TopicFilters<'a>,
}

/// UNSUBACK (section 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// All absent below version 5.
    pub properties: AckProperties<'a>,
    /// One per filter, in order; none below version 5. [MQTT-3.11.3-1]
    pub reasons: ReasonCodes<'a>,
}

/// Reason codes of a SUBACK or UNSUBACK: checked wire bytes, or a list that was built here.
#[derive(Debug, Clone, Copy)]
pub struct ReasonCodes<'a>(pub(super) ListOf<'a, ReasonCode>);

/// See [`ReasonCodes::iter`].
#[derive(Debug, Clone)]
pub struct ReasonCodesIter<'a> {
    wire: std::slice::Iter<'a, u8>,
    built: std::slice::Iter<'a, ReasonCode>,
}

impl Iterator for ReasonCodesIter<'_> {
    type Item = ReasonCode;

    fn next(&mut self) -> Option<ReasonCode> {
        if let Some(byte) = self.wire.next() {
            return ReasonCode::from_byte(*byte);
        }
        self.built.next().copied()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.wire.len() + self.built.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for ReasonCodesIter<'_> {}

impl<'a> ReasonCodes<'a> {
    /// A list to be encoded.
    #[must_use]
    pub const fn new(list: &'a [ReasonCode]) -> Self {
        Self(ListOf::Built(list))
    }

    /// The codes in order.
    #[must_use]
    pub fn iter(&self) -> ReasonCodesIter<'a> {
        match self.0 {
            ListOf::Wire(bytes) => ReasonCodesIter { wire: bytes.iter(), built: [].iter() },
            ListOf::Built(list) => ReasonCodesIter { wire: [].iter(), built: list.iter() },
        }
    }
}

impl PartialEq for ReasonCodes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ReasonCodes<'_> {}

/// DISCONNECT (section 3.14). Below version 5 only a client sends it, and it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// [`ReasonCode::Success`] is a normal disconnection.
    pub reason: ReasonCode,
    /// All absent below version 5.
    pub properties: DisconnectProperties<'a>,
}

impl Disconnect<'_> {
    /// A DISCONNECT without properties.
    #[must_use]
    pub fn new(reason: ReasonCode) -> Self {
        Self { reason, properties: DisconnectProperties::default() }
    }
}

/// AUTH (section 3.15), only in version 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue, or re-authenticate.
    pub reason: ReasonCode,
    /// The method is there unless the whole packet is empty.
    pub properties: AuthProperties<'a>,
}
