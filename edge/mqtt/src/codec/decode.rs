//! Bytes to packets: the fixed header, and which packet may come when.
//!
//! Invariant: a packet is parsed whole before it is handed out. `Incomplete` is said only of a frame whose last byte is
//! not there yet and whose length is within the limit.
//!
//! - `connect`: CONNECT and CONNACK; `publish`: PUBLISH and its acknowledgements; `subscribe`: the four packets of
//!   subscriptions; `session`: DISCONNECT and AUTH; `properties`: MQTT 5's properties for all of them

mod connect;
mod properties;
mod publish;
mod session;
mod subscribe;

use super::error::{DecodeError, Place, Violation};
use super::packet::{Packet, PacketType, Version};
use super::reason::ReasonCode;
use super::wire::{Reader, malformed, protocol_error};

/// Which side receives, that is, decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Receiver {
    /// Packets of clients.
    Server,
    /// Packets of a server.
    Client,
}

/// What the front of a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "packets are borrowed and short-lived; a box per packet would cost more"
)]
pub enum Decoded<'a> {
    /// A whole, legal packet.
    Packet {
        /// It.
        packet: Packet<'a>,
        /// Bytes it takes at the front of the input: consume that many.
        bytes: usize,
    },
    /// The front of a packet, nothing wrong with it so far.
    Incomplete {
        /// Bytes, counted from the front of the input, that must be there before it is worth trying again. Never more
        /// than `packet_bytes_max`, so that a buffer may be reserved for it.
        bytes_min: usize,
    },
}

/// How to decode: the state of a connection as far as the codec needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoder {
    receiver: Receiver,
    version: Option<Version>,
    packet_bytes_max: u32,
}

/// Fixed header and body of one frame.
struct Frame<'a> {
    first: u8,
    packet_type: PacketType,
    body: &'a [u8],
    bytes: usize,
    minimal_length: bool,
}

/// What the parsers of single packets need to know. The version is [`Version::V5`] in a CONNECT until it is known.
#[derive(Debug, Clone, Copy)]
struct Context {
    receiver: Receiver,
    version: Version,
}

impl Context {
    const fn is_v5(self) -> bool {
        matches!(self.version, Version::V5)
    }
}

/// A field that the packet is too short for.
const CUT_SHORT: DecodeError = malformed("2.1.4", "the packet is too short for its fields");

/// Bytes behind the last field.
const TOO_LONG: DecodeError = malformed("2.1.4", "the packet is longer than its fields");

/// Smallest packet: a type and a remaining length of 0.
const PACKET_BYTES_MIN: usize = 2;

impl Decoder {
    /// A server's decoder on a new connection: the first packet must be a CONNECT. [MQTT-3.1.0-1] When one was
    /// decoded, call [`Decoder::set_version`].
    #[must_use]
    pub const fn server(packet_bytes_max: u32) -> Self {
        Self { receiver: Receiver::Server, version: None, packet_bytes_max }
    }

    /// A client's decoder: it knows the version it asked for.
    #[must_use]
    pub const fn client(version: Version, packet_bytes_max: u32) -> Self {
        Self { receiver: Receiver::Client, version: Some(version), packet_bytes_max }
    }

    /// From now on packets of this version, and no CONNECT any more. [MQTT-3.1.0-2]
    pub const fn set_version(&mut self, version: Version) {
        self.version = Some(version);
    }

    /// The version, once known.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// Decodes the packet at the front of `input`. Consumes nothing itself; borrows from `input`; allocates nothing.
    ///
    /// # Errors
    /// [`DecodeError`]: for a type, flags or length that no more bytes could mend as soon as they are there, for the
    /// rest when the packet is there whole. Nothing that follows on the connection can be trusted.
    #[inline]
    pub fn decode<'a>(&self, input: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
        let frame = match self.frame(input) {
            Ok(Ok(frame)) => frame,
            Ok(Err(bytes_min)) => return Ok(Decoded::Incomplete { bytes_min }),
            Err(error) => return Err(error.at(self.place())),
        };
        match self.packet(&frame) {
            Ok(packet) => Ok(Decoded::Packet { packet, bytes: frame.bytes }),
            Err(error) => Err(error.at(self.place())),
        }
    }

    const fn place(&self) -> Place {
        match self.version {
            Some(version) => Place::Established(version),
            None => Place::NoVersion,
        }
    }

    /// Finds the frame; the inner error is how many bytes are needed.
    #[inline]
    fn frame<'a>(&self, input: &'a [u8]) -> Result<Result<Frame<'a>, usize>, DecodeError> {
        let Some(&first) = input.first() else { return Ok(Err(PACKET_BYTES_MIN)) };
        let packet_type = self.packet_type(first)?;
        let mut remaining = 0usize;
        let mut length_bytes = 0usize;
        let last = loop {
            let Some(&byte) = input.get(1 + length_bytes) else {
                return Ok(Err(input.len() + 1));
            };
            remaining |= usize::from(byte & 0x7F) << (7 * length_bytes);
            length_bytes += 1;
            if byte & 0x80 == 0 {
                break byte;
            }
            if length_bytes == 4 {
                return Err(malformed("2.1.4", "the remaining length is longer than four bytes"));
            }
        };
        let minimal_length = last != 0 || length_bytes == 1;
        // Below version 5 the protocol does not ask for the shortest form; for a CONNECT the version is not known yet.
        if !minimal_length && self.version == Some(Version::V5) {
            return Err(malformed("MQTT-1.5.5-1", "the remaining length is not minimal"));
        }
        let start = 1 + length_bytes;
        let bytes = start + remaining;
        if bytes > self.packet_bytes_max as usize {
            return Err(DecodeError::new(
                Violation::PacketTooLarge,
                "MQTT-3.2.2-15",
                "the packet is larger than the receiver's limit",
            ));
        }
        match input.get(start..bytes) {
            Some(body) => Ok(Ok(Frame { first, packet_type, body, bytes, minimal_length })),
            None => Ok(Err(bytes)),
        }
    }

    /// Judges the first byte: type, direction, reserved flags.
    #[inline]
    fn packet_type(&self, first: u8) -> Result<PacketType, DecodeError> {
        if first >> 4 == PacketType::Publish as u8 && self.version.is_some() {
            // Either side may send it at any time: the short way for what comes most.
            self.check_flags(PacketType::Publish, first & 0x0F)?;
            return Ok(PacketType::Publish);
        }
        let (packet_type, from_client, from_server) = match first >> 4 {
            1 => (PacketType::Connect, true, false),
            2 => (PacketType::ConnAck, false, true),
            3 => (PacketType::Publish, true, true),
            4 => (PacketType::PubAck, true, true),
            5 => (PacketType::PubRec, true, true),
            6 => (PacketType::PubRel, true, true),
            7 => (PacketType::PubComp, true, true),
            8 => (PacketType::Subscribe, true, false),
            9 => (PacketType::SubAck, false, true),
            10 => (PacketType::Unsubscribe, true, false),
            11 => (PacketType::UnsubAck, false, true),
            12 => (PacketType::PingReq, true, false),
            13 => (PacketType::PingResp, false, true),
            // Below version 5 only a client disconnects. (3.1.1, 3.14)
            14 => (PacketType::Disconnect, true, self.version == Some(Version::V5)),
            15 if self.version.is_none_or(|v| v == Version::V5) => (PacketType::Auth, true, true),
            _ => return Err(malformed("2.1.2", "the packet type is reserved")),
        };
        if self.receiver == Receiver::Server {
            match (self.version, packet_type) {
                (None, PacketType::Connect) => {}
                (None, _) => {
                    return Err(protocol_error("MQTT-3.1.0-1", "the first packet is no CONNECT"));
                }
                (Some(_), PacketType::Connect) => {
                    return Err(protocol_error("MQTT-3.1.0-2", "a second CONNECT"));
                }
                (Some(_), _) => {}
            }
        }
        let may_come = match self.receiver {
            Receiver::Server => from_client,
            Receiver::Client => from_server,
        };
        if !may_come {
            return Err(protocol_error("2.1.2", "this side may not send this packet type"));
        }
        self.check_flags(packet_type, first & 0x0F)?;
        Ok(packet_type)
    }

    #[inline]
    fn check_flags(&self, packet_type: PacketType, flags: u8) -> Result<(), DecodeError> {
        let (expected, tag) = match packet_type {
            PacketType::Publish => {
                return match flags & 0b0110 {
                    0b0110 => Err(malformed("MQTT-3.3.1-4", "QoS 3")),
                    0 if flags & 0b1000 != 0 => {
                        Err(malformed("MQTT-3.3.1-2", "DUP on a PUBLISH of QoS 0"))
                    }
                    _ => Ok(()),
                };
            }
            PacketType::PubRel => (0b0010, "MQTT-3.6.1-1"),
            PacketType::Subscribe => (0b0010, "MQTT-3.8.1-1"),
            PacketType::Unsubscribe => (0b0010, "MQTT-3.10.1-1"),
            PacketType::Disconnect => (0, "MQTT-3.14.1-1"),
            PacketType::Auth => (0, "MQTT-3.15.1-1"),
            _ => (0, "MQTT-2.1.3-1"),
        };
        // MQTT 3.1 calls these bits unused, and sets DUP on a repeated PUBREL, SUBSCRIBE and UNSUBSCRIBE.
        if flags != expected && self.version != Some(Version::V3) {
            return Err(malformed(tag, "reserved flags of the fixed header are set"));
        }
        Ok(())
    }

    #[inline]
    fn packet<'a>(&self, frame: &Frame<'a>) -> Result<Packet<'a>, DecodeError> {
        let cx = Context { receiver: self.receiver, version: self.version.unwrap_or(Version::V5) };
        let mut body = Reader::new(frame.body);
        let packet = match frame.packet_type {
            PacketType::Publish => Packet::Publish(publish::publish(cx, frame.first, &mut body)?),
            PacketType::PubAck => Packet::PubAck(publish::ack(cx, frame.packet_type, &mut body)?),
            PacketType::PubRec => Packet::PubRec(publish::ack(cx, frame.packet_type, &mut body)?),
            PacketType::PubRel => Packet::PubRel(publish::ack(cx, frame.packet_type, &mut body)?),
            PacketType::PubComp => Packet::PubComp(publish::ack(cx, frame.packet_type, &mut body)?),
            PacketType::Connect => {
                Packet::Connect(connect::connect(&mut body, frame.minimal_length)?)
            }
            PacketType::ConnAck => Packet::ConnAck(connect::connack(cx, &mut body)?),
            PacketType::Subscribe => Packet::Subscribe(subscribe::subscribe(cx, &mut body)?),
            PacketType::SubAck => Packet::SubAck(subscribe::suback(cx, &mut body)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(subscribe::unsubscribe(cx, &mut body)?),
            PacketType::UnsubAck => Packet::UnsubAck(subscribe::unsuback(cx, &mut body)?),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => Packet::Disconnect(session::disconnect(cx, &mut body)?),
            PacketType::Auth => Packet::Auth(session::auth(cx, &mut body)?),
        };
        if body.left() != 0 {
            return Err(TOO_LONG);
        }
        Ok(packet)
    }
}

/// Reads a reason code and judges whether this packet may carry it.
fn reason(
    cx: Context,
    packet_type: PacketType,
    byte: u8,
    tag: &'static str,
) -> Result<ReasonCode, DecodeError> {
    let reason = ReasonCode::from_byte(byte)
        .ok_or(malformed(tag, "the reason code is not one of the protocol's"))?;
    if !reason.is_legal(packet_type, cx.receiver) {
        return Err(protocol_error(tag, "the reason code is not one for this packet"));
    }
    Ok(reason)
}
