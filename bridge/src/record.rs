//! Step 6: a PUBLISH becomes a record, and a record a message again (ARCHITECTURE.md, "A stored
//! MQTT message").
//!
//! Step 6 of the life of a PUBLISH; from [`crate::route`]; to the log's append. Invariant: nothing a device sent is lost
//! or altered on the way through the log, and a record describes itself: reading it back needs no route. Only a batch
//! made here is trusted ([`headwater_log::batch::BatchHeader::is_made_here`]; the caller checks it): in a Kafka client's
//! record a header called `hw` is that client's own.
//!
//! # Headers, in this order
//! | header | value | present |
//! |---|---|---|
//! | `mqtt.topic` | MQTT topic | unless it is the key, byte for byte |
//! | `content-type` | content type | MQTT 5, where given |
//! | `mqtt.response-topic` | response topic | MQTT 5, where given |
//! | `mqtt.correlation-data` | correlation data | MQTT 5, where given |
//! | user properties | their values | in order, duplicates kept |
//! | the route's headers | expanded | where the route has any |
//! | `hw` | below | always, last |
//!
//! A user property whose name is `hw`, `content-type` or begins with `mqtt.` is stored as `user.NAME`; so that this can
//! be undone, one whose name is already such an escape gets one more `user.` in front. [MQTT-3.3.2-17] and
//! [MQTT-3.3.2-18] want user properties delivered unaltered and in order, so the route's own headers, which are for
//! Kafka, are counted in `hw` and left out of what subscribers get.
//!
//! # The header `hw`
//! | bytes | content |
//! |---|---|
//! | 0 | version, 1. A higher one means that an older reader must not guess: such a record is not a message |
//! | 1 | flags: bits 0-1 QoS (never 3), bit 2 RETAIN, bit 3 copy (not for subscribers), bit 4 the clock was not trusted, bit 5 payload format indicator given, bit 6 its value, bit 7 zero |
//! | 2.. | fields up to the end: u8 tag, unsigned LEB128 length (at most 3 bytes), value. Unknown tags are skipped |
//!
//! | tag | value |
//! |---|---|
//! | 1 | client identifier of the publisher, UTF-8 |
//! | 2 | u32 big-endian: message expiry interval in seconds, counted from the record's timestamp |
//! | 3 | u16 big-endian: how many headers directly before `hw` came from the route; absent for none |
//! | 4 | evidence for exactly-once from the publisher, kept free: u16 big-endian packet identifier, u32 big-endian count of its uses |

use headwater_log::Labeller;
use headwater_log::batch::{BatchHeader, RecordView};
use headwater_log::record::{Headers, Record};
use headwater_mqtt::codec::{Publish, QoS};
use headwater_mqtt::{Message, StreamId};

/// The header that ends every stored MQTT message.
pub const HW: &str = "hw";
/// The header that holds the MQTT topic where the key does not.
pub const MQTT_TOPIC: &str = "mqtt.topic";
const CONTENT_TYPE: &str = "content-type";
const RESPONSE_TOPIC: &str = "mqtt.response-topic";
const CORRELATION_DATA: &str = "mqtt.correlation-data";
const ESCAPE: &str = "user.";

/// The version of `hw` written here, and the highest understood.
const VERSION: u8 = 1;
const QOS_BITS: u8 = 0b0000_0011;
const RETAIN: u8 = 1 << 2;
const COPY: u8 = 1 << 3;
const CLOCK_UNTRUSTED: u8 = 1 << 4;
const FORMAT_GIVEN: u8 = 1 << 5;
const FORMAT_VALUE: u8 = 1 << 6;

const TAG_PUBLISHER: u8 = 1;
const TAG_EXPIRY: u8 = 2;
const TAG_ROUTE_HEADERS: u8 = 3;

/// A field of `hw` is at most as long as an MQTT string, so its length fits three LEB128 bytes.
const FIELD_LENGTH_BYTES_MAX: usize = 3;

/// What the bridge, not the device, says about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// A copy stored by a further route: not for subscribers.
    pub copy: bool,
    /// The timestamp is an estimate.
    pub clock_untrusted: bool,
}

/// One header that a route adds, expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteHeader {
    /// Its name: never reserved (checked with the config).
    pub name: Box<str>,
    /// Its value.
    pub value: Box<str>,
}

/// Memory that [`write_headers`] uses again and again.
#[derive(Debug, Default)]
pub struct Scratch {
    hw: Vec<u8>,
    name: String,
}

/// Whether a header of this name has a meaning of its own in a stored MQTT message.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name == HW || name == CONTENT_TYPE || name.starts_with("mqtt.")
}

/// Whether a user property of this name needs one more [`ESCAPE`] in front, so that every stored name has one meaning.
fn needs_escape(name: &str) -> bool {
    let mut rest = name;
    while let Some(inner) = rest.strip_prefix(ESCAPE) {
        rest = inner;
    }
    is_reserved(rest)
}

/// Whether two messages of one publisher that say the same here have the same headers, given the same route and topic.
#[must_use]
pub fn same_headers(a: &Publish<'_>, b: &Publish<'_>) -> bool {
    a.qos == b.qos && a.retain == b.retain && is_plain(a) && is_plain(b)
}

fn is_plain(publish: &Publish<'_>) -> bool {
    let p = &publish.properties;
    p.payload_format_indicator.is_none()
        && p.message_expiry_interval_s.is_none()
        && p.response_topic.is_none()
        && p.correlation_data.is_none()
        && p.content_type.is_none()
        && p.user_properties.is_empty()
}

/// Writes the headers of one message into `headers`, which is cleared first. Allocates only to grow what it is given.
///
/// The record's key is `key`, its value the payload as it is (an empty payload is an empty value, never null).
pub fn write_headers(
    publish: &Publish<'_>,
    client_id: &str,
    key: Option<&[u8]>,
    route_headers: &[RouteHeader],
    marks: Marks,
    scratch: &mut Scratch,
    headers: &mut Headers,
) {
    headers.clear();
    let p = &publish.properties;
    if key != Some(publish.topic.as_bytes()) {
        headers.push(MQTT_TOPIC, publish.topic.as_bytes());
    }
    if let Some(content_type) = p.content_type {
        headers.push(CONTENT_TYPE, content_type.as_bytes());
    }
    if let Some(topic) = p.response_topic {
        headers.push(RESPONSE_TOPIC, topic.as_bytes());
    }
    if let Some(data) = p.correlation_data {
        headers.push(CORRELATION_DATA, data);
    }
    for (name, value) in p.user_properties.iter() {
        if needs_escape(name) {
            scratch.name.clear();
            scratch.name.push_str(ESCAPE);
            scratch.name.push_str(name);
            headers.push(&scratch.name, value.as_bytes());
        } else {
            headers.push(name, value.as_bytes());
        }
    }
    for header in route_headers {
        headers.push(&header.name, header.value.as_bytes());
    }
    write_hw(publish, client_id, route_headers.len(), marks, &mut scratch.hw);
    headers.push(HW, &scratch.hw);
}

fn write_hw(
    publish: &Publish<'_>,
    client_id: &str,
    route_headers: usize,
    marks: Marks,
    out: &mut Vec<u8>,
) {
    let mut flags = publish.qos as u8;
    let mut set = |condition: bool, bit: u8| flags |= if condition { bit } else { 0 };
    set(publish.retain, RETAIN);
    set(marks.copy, COPY);
    set(marks.clock_untrusted, CLOCK_UNTRUSTED);
    set(publish.properties.payload_format_indicator.is_some(), FORMAT_GIVEN);
    set(publish.properties.payload_format_indicator == Some(1), FORMAT_VALUE);
    out.clear();
    out.extend_from_slice(&[VERSION, flags]);
    write_field(TAG_PUBLISHER, client_id.as_bytes(), out);
    if let Some(interval_s) = publish.properties.message_expiry_interval_s {
        write_field(TAG_EXPIRY, &interval_s.to_be_bytes(), out);
    }
    if route_headers > 0 {
        let count = u16::try_from(route_headers).unwrap_or(u16::MAX);
        debug_assert_eq!(usize::from(count), route_headers, "a route adds at most 65535 headers");
        write_field(TAG_ROUTE_HEADERS, &count.to_be_bytes(), out);
    }
}

fn write_field(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let mut length = value.len();
    debug_assert!(length < 1 << (7 * FIELD_LENGTH_BYTES_MAX), "fields are MQTT strings or less");
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(value);
}

/// Why a record is not a message for subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// A copy that a further route stored: its primary record is the message.
    Copy,
    /// It expired before it was read.
    Expired,
    /// It does not end with `hw`: no MQTT message (a connector's, for instance).
    NotMqtt,
    /// Its `hw` is of a later version.
    Version(u8),
    /// It contradicts the table above.
    Malformed,
}

/// Reads a record of a batch made here as a message. `now_ms` decides whether it has expired.
///
/// # Errors
/// [`Hidden`]: subscribers do not get this record.
pub fn read(record: &Record, stream: StreamId, now_ms: i64) -> Result<Message, Hidden> {
    let Some(((name, hw), before)) = record.headers.split_last() else {
        return Err(Hidden::NotMqtt);
    };
    if &name[..] != HW.as_bytes() {
        return Err(Hidden::NotMqtt);
    }
    let hw = Hw::parse(hw.as_deref().unwrap_or_default())?;
    if hw.copy {
        return Err(Hidden::Copy);
    }
    let expires_at_ms = hw
        .expiry_interval_s
        .map(|seconds| record.timestamp_ms.saturating_add(i64::from(seconds) * 1_000));
    if expires_at_ms.is_some_and(|at| at <= now_ms) {
        return Err(Hidden::Expired);
    }
    let from_device = before.len().checked_sub(hw.route_headers).ok_or(Hidden::Malformed)?;
    let mut message = Message {
        topic: Box::default(),
        payload: record.value.clone().ok_or(Hidden::Malformed)?,
        qos: hw.qos,
        retain: hw.retain,
        publisher: hw.publisher.map(Box::from),
        expires_at_ms,
        payload_format_indicator: hw.payload_format,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        stream,
        offset: u64::try_from(record.offset).map_err(|_| Hidden::Malformed)?,
    };
    for (name, value) in &before[..from_device] {
        let name = text(name)?;
        let value = value.as_ref().ok_or(Hidden::Malformed)?;
        match name {
            MQTT_TOPIC => message.topic = text(value)?.into(),
            CONTENT_TYPE => message.content_type = Some(text(value)?.into()),
            RESPONSE_TOPIC => message.response_topic = Some(text(value)?.into()),
            CORRELATION_DATA => message.correlation_data = Some(value.clone()),
            // A later version's header without a meaning here.
            name if is_reserved(name) => {}
            name => {
                let inner = name.strip_prefix(ESCAPE).filter(|inner| needs_escape(inner));
                message.user_properties.push((inner.unwrap_or(name).into(), text(value)?.into()));
            }
        }
    }
    if message.topic.is_empty() {
        let key = record.key.as_ref().ok_or(Hidden::Malformed)?;
        message.topic = text(key)?.into();
    }
    // [MQTT-4.7.3-1]: no topic is empty.
    if message.topic.is_empty() { Err(Hidden::Malformed) } else { Ok(message) }
}

fn text(bytes: &[u8]) -> Result<&str, Hidden> {
    std::str::from_utf8(bytes).map_err(|_| Hidden::Malformed)
}

/// What the log's label index knows of a record: its MQTT topic, so that a session finds the messages it is owed.
pub const LABELLER: Labeller = Labeller { id: 1, label };

/// The MQTT topic of a message, as [`read`] finds it. More may have one than are messages: a look more, and no message less.
fn label<'a>(header: &BatchHeader, record: &RecordView<'a>) -> Option<&'a [u8]> {
    // Elsewhere a header of that name is a Kafka client's own.
    if !header.is_made_here() {
        return None;
    }
    record.header(MQTT_TOPIC.as_bytes()).filter(|topic| !topic.is_empty()).or(record.key)
}

/// A parsed `hw`.
#[derive(Debug, PartialEq, Eq)]
struct Hw<'a> {
    qos: QoS,
    retain: bool,
    copy: bool,
    payload_format: Option<u8>,
    publisher: Option<&'a str>,
    expiry_interval_s: Option<u32>,
    route_headers: usize,
}

impl<'a> Hw<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Hidden> {
        let [version, flags, fields @ ..] = bytes else { return Err(Hidden::Malformed) };
        if *version != VERSION {
            return Err(Hidden::Version(*version));
        }
        let qos = match flags & QOS_BITS {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            _ => return Err(Hidden::Malformed),
        };
        let has = |bit: u8| flags & bit != 0;
        let mut hw = Self {
            qos,
            retain: has(RETAIN),
            copy: has(COPY),
            payload_format: has(FORMAT_GIVEN).then_some(u8::from(has(FORMAT_VALUE))),
            publisher: None,
            expiry_interval_s: None,
            route_headers: 0,
        };
        let mut rest = fields;
        while let [tag, after @ ..] = rest {
            let (value, next) = field(after).ok_or(Hidden::Malformed)?;
            match *tag {
                TAG_PUBLISHER => hw.publisher = Some(text(value)?),
                TAG_EXPIRY => {
                    let seconds = <[u8; 4]>::try_from(value).map_err(|_| Hidden::Malformed)?;
                    hw.expiry_interval_s = Some(u32::from_be_bytes(seconds));
                }
                TAG_ROUTE_HEADERS => {
                    let count = <[u8; 2]>::try_from(value).map_err(|_| Hidden::Malformed)?;
                    hw.route_headers = usize::from(u16::from_be_bytes(count));
                }
                _ => {}
            }
            rest = next;
        }
        Ok(hw)
    }
}

/// Splits a length and the value it measures from the front.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0usize;
    for (index, byte) in bytes.iter().take(FIELD_LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes[index + 1..].split_at_checked(length);
        }
    }
    None
}

#[cfg(test)]
mod tests;
