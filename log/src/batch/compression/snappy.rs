//! Snappy in the framing of xerial's Java library, which is what Kafka means by it.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `82 53 4e 41 50 50 59 00` |
//! | 4 | version i32 = 1 |
//! | 4 | compatible from version i32 = 1 |
//! | 4 | length of a block i32, big-endian; then the block, in snappy's raw format; and so on to the end |
//!
//! Java's reader also takes one raw block without any of this (librdkafka wrote that once), and a second header in place of a
//! length (streams put behind each other).

use super::{Failure, take, take_slice};
use std::io;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const VERSION: i32 = 1;
/// Plain bytes of one block, as xerial's default.
const BLOCK_BYTES: usize = 32 << 10;
/// A block's longest copy is 64 bytes for three; no element does better.
const RATIO_MAX: usize = 22;

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = snap::raw::Encoder::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    for block in plain.chunks(BLOCK_BYTES) {
        let length_at = out.len();
        let start = length_at + 4;
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let length = encoder.compress(block, &mut out[start..])?;
        out.truncate(start + length);
        out[length_at..start].copy_from_slice(&(length as u32).to_be_bytes());
    }
    Ok(())
}

pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut plain = Vec::new();
    if !bytes.starts_with(&MAGIC) {
        block(bytes, &mut plain, limit_bytes)?;
        return Ok(plain);
    }
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(&MAGIC) {
            at += MAGIC.len();
            let version = i32::from_be_bytes(take(bytes, &mut at).ok_or(Failure::Malformed)?);
            let _compatible: [u8; 4] = take(bytes, &mut at).ok_or(Failure::Malformed)?;
            if version < VERSION {
                return Err(Failure::Malformed);
            }
            continue;
        }
        let length = i32::from_be_bytes(take(bytes, &mut at).ok_or(Failure::Malformed)?);
        let length = usize::try_from(length).map_err(|_| Failure::Malformed)?;
        let compressed = take_slice(bytes, &mut at, length).ok_or(Failure::Malformed)?;
        block(compressed, &mut plain, limit_bytes)?;
    }
    Ok(plain)
}

/// One raw block, behind what `plain` holds.
fn block(bytes: &[u8], plain: &mut Vec<u8>, limit_bytes: usize) -> Result<(), Failure> {
    let length = snap::raw::decompress_len(bytes).map_err(|_| Failure::Malformed)?;
    if length > bytes.len().saturating_mul(RATIO_MAX) {
        return Err(Failure::Malformed);
    }
    if length > limit_bytes - plain.len() {
        return Err(Failure::TooLarge);
    }
    let start = plain.len();
    plain.resize(start + length, 0);
    snap::raw::Decoder::new()
        .decompress(bytes, &mut plain[start..])
        .map(drop)
        .map_err(|_| Failure::Malformed)
}
