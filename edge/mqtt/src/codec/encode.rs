//! Packets to bytes.
//!
//! Each layout is written once, against a [`Sink`] that either counts or writes: the first pass checks and counts, the
//! second writes what is known to fit. Invariant: what is written, this module's decoder accepts on the other side; on
//! an error the buffer is as before.
//!
//! - `packet`: the layout of each packet; `properties`: MQTT 5's properties; `sink`: counting and writing

mod packet;
mod properties;
mod sink;

use super::error::EncodeError;
use super::packet::{Packet, PacketId, Publish, Version};
use super::wire::VARINT_MAX;
use bytes::{BufMut, BytesMut};
use sink::{Count, Sink};

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
    if let Packet::Publish(publish) = packet {
        encode_publish_header(publish, publish.payload.len(), version, packet_bytes_max, out)?;
        out.put_slice(publish.payload);
        return Ok(());
    }
    let body_bytes = count(packet, version)?;
    let bytes = frame_bytes(body_bytes, packet_bytes_max)?;
    let before = out.len();
    out.reserve(bytes);
    out.put_u8(packet::first_byte(packet));
    let written = out.put_varint(body_bytes).and_then(|()| packet::put(packet, version, out));
    written.inspect_err(|_| out.truncate(before))
}

/// Bytes that [`encode`] would append, fixed header included.
///
/// # Errors
/// [`EncodeError::Illegal`] as [`encode`], and [`EncodeError::TooLarge`] for what no packet can hold.
pub fn encoded_bytes(packet: &Packet<'_>, version: Version) -> Result<usize, EncodeError> {
    frame_bytes(count(packet, version)?, u32::MAX)
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
    let mut counted = Count::default();
    packet::put_publish_header(publish, version, &mut counted)?;
    let body_bytes = counted.bytes.saturating_add(payload_bytes);
    let bytes = frame_bytes(body_bytes, packet_bytes_max)?;
    let before = out.len();
    out.reserve(bytes - payload_bytes);
    out.put_u8(packet::publish_first_byte(publish));
    let written =
        out.put_varint(body_bytes).and_then(|()| packet::put_publish_header(publish, version, out));
    written.inspect_err(|_| out.truncate(before))
}

/// Checks the packet and counts its body.
fn count(packet: &Packet<'_>, version: Version) -> Result<usize, EncodeError> {
    let mut counted = Count::default();
    packet::put(packet, version, &mut counted)?;
    Ok(counted.bytes)
}

/// Bytes of the whole packet, if that is possible and the peer takes it.
fn frame_bytes(body_bytes: usize, packet_bytes_max: u32) -> Result<usize, EncodeError> {
    let bytes = 1 + sink::varint_bytes(body_bytes) + body_bytes;
    let body_bytes_max = VARINT_MAX as usize;
    if body_bytes > body_bytes_max || bytes > packet_bytes_max as usize {
        let bytes_max = (packet_bytes_max as usize).min(1 + 4 + body_bytes_max);
        return Err(EncodeError::TooLarge { bytes, bytes_max });
    }
    Ok(bytes)
}

const fn illegal(tag: &'static str, detail: &'static str) -> EncodeError {
    EncodeError::Illegal { tag, detail }
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
