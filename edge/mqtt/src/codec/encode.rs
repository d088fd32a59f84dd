//! Packets to bytes.

use super::error::EncodeError;
use super::packet::{Packet, PacketId, Publish, Version};
use bytes::BytesMut;

/// Appends `packet` in the form of `version`. MQTT 5 properties are left out below version 5.
///
/// `packet_bytes_max` is what the peer takes (Maximum Packet Size), `u32::MAX` where it named none.
///
/// # Errors
/// [`EncodeError`]; `out` is then unchanged.
pub fn encode(
    packet: &Packet<'_>,
    version: Version,
    packet_bytes_max: u32,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let _ = (packet, version, packet_bytes_max, out);
    unimplemented!()
}

/// Bytes that [`encode`] would append, fixed header included.
///
/// # Errors
/// [`EncodeError::Illegal`] as [`encode`], and [`EncodeError::TooLarge`] for what no packet can hold.
pub fn encoded_bytes(packet: &Packet<'_>, version: Version) -> Result<usize, EncodeError> {
    let _ = (packet, version);
    unimplemented!()
}

/// Appends a PUBLISH up to its payload, so that the payload can be written from where it lies. `publish.payload` is
/// ignored; `payload_bytes` is what will follow.
///
/// # Errors
/// [`EncodeError`]; `out` is then unchanged.
pub fn encode_publish_header(
    publish: &Publish<'_>,
    payload_bytes: usize,
    version: Version,
    packet_bytes_max: u32,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let _ = (publish, payload_bytes, version, packet_bytes_max, out);
    unimplemented!()
}

/// The four packets that acknowledge, in their four-byte form: success and no properties, the same in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub enum Acknowledgement {
    PubAck = 0x40,
    PubRec = 0x50,
    PubRel = 0x62,
    PubComp = 0x70,
}

impl Acknowledgement {
    /// The packet that says success.
    #[must_use]
    pub const fn success(self, packet_id: PacketId) -> [u8; 4] {
        let [high, low] = packet_id.get().to_be_bytes();
        [self as u8, 2, high, low]
    }
}
