//! Bytes to packets.

use super::error::DecodeError;
use super::packet::{Packet, Version};

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

    /// The limit on whole packets, fixed header included. (Small before authentication.)
    pub const fn set_packet_bytes_max(&mut self, packet_bytes_max: u32) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// The version, once known.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// Decodes the packet at the front of `input`. Consumes nothing itself; borrows from `input`; allocates nothing.
    ///
    /// # Errors
    /// [`DecodeError`] as soon as the bytes at hand can not become a legal packet, even if more were to come.
    pub fn decode<'a>(&self, input: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
        let _ = (input, self.receiver, self.packet_bytes_max);
        unimplemented!()
    }
}
