//! LZ4 frames with independent blocks, the only ones that Kafka's Java client reads. All integers little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `04 22 4d 18` |
//! | 1 | flags: version 01 (bits 6-7), blocks independent (5), block checksums (4), content size (3), content checksum (2) |
//! | 1 | largest block (bits 4-6): 4 is 64 KiB, 5 256 KiB, 6 1 MiB, 7 4 MiB |
//! | 8 | content size, with flag 3 |
//! | 1 | header checksum: second byte of xxHash32 of the flags and what follows them |
//! | 4 | length of a block, highest bit for one stored as it is; the block; 4 bytes xxHash32 of it with flag 4; and so on |
//! | 4 | 0, the end |
//! | 4 | xxHash32 of the plain bytes, with flag 2 |
//!
//! The block format is `lz4_flex`'s; the frame is read here because blocks then go straight to their place, the limit holds
//! within a block, and what the crate lets pass is refused: a frame without its end, linked blocks, more frames behind it.
//! (Kafka wrote a wrong header checksum before message format 1; version 2 batches never have it.)

use super::{Failure, take, take_slice};
use lz4_flex::block;
use twox_hash::XxHash32;

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
const FLAGS_VERSION: u8 = 0x40;
const FLAGS_VERSION_MASK: u8 = 0xc0;
const FLAG_INDEPENDENT: u8 = 0x20;
const FLAG_BLOCK_CHECKSUM: u8 = 0x10;
const FLAG_CONTENT_SIZE: u8 = 0x08;
const FLAG_CONTENT_CHECKSUM: u8 = 0x04;
const FLAGS_RESERVED: u8 = 0x03;
/// What is written: blocks of 64 KiB, as Kafka's default.
const BLOCK_BYTES: usize = 64 << 10;
const BLOCK_SIZE_64_KIB: u8 = 4 << 4;
const BLOCK_PLAIN: u32 = 1 << 31;
/// A run's length grows by 255 with each byte.
const RATIO_MAX: usize = 255;

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) {
    let descriptor = [FLAGS_VERSION | FLAG_INDEPENDENT, BLOCK_SIZE_64_KIB];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&descriptor);
    out.push(header_checksum(&descriptor));
    for part in plain.chunks(BLOCK_BYTES) {
        let length_at = out.len();
        let start = length_at + 4;
        out.resize(start + block::get_maximum_output_size(part.len()), 0);
        let length = match block::compress_into(part, &mut out[start..]) {
            Ok(length) if length < part.len() => {
                out.truncate(start + length);
                length as u32
            }
            // It did not help, or (which cannot be) did not fit.
            _ => {
                out.truncate(start);
                out.extend_from_slice(part);
                part.len() as u32 | BLOCK_PLAIN
            }
        };
        out[length_at..start].copy_from_slice(&length.to_le_bytes());
    }
    out.extend_from_slice(&[0; 4]);
}

pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>, Failure> {
    let at = &mut 0;
    let header = Header::read(bytes, at).ok_or(Failure::Malformed)?;
    let mut plain = Vec::new();
    loop {
        let length = u32::from_le_bytes(take(bytes, at).ok_or(Failure::Malformed)?);
        if length == 0 {
            break;
        }
        let stored = (length & !BLOCK_PLAIN) as usize;
        if stored > header.block_bytes_max {
            return Err(Failure::Malformed);
        }
        let data = take_slice(bytes, at, stored).ok_or(Failure::Malformed)?;
        if header.block_checksums {
            let checksum = u32::from_le_bytes(take(bytes, at).ok_or(Failure::Malformed)?);
            if checksum != XxHash32::oneshot(0, data) {
                return Err(Failure::Malformed);
            }
        }
        let room = limit_bytes - plain.len();
        if length & BLOCK_PLAIN != 0 {
            if stored > room {
                return Err(Failure::TooLarge);
            }
            plain.extend_from_slice(data);
        } else {
            put_block(data, &mut plain, header.block_bytes_max, room)?;
        }
    }
    header.check_end(bytes, at, &plain).ok_or(Failure::Malformed)?;
    Ok(plain)
}

/// Undoes one compressed block behind what `plain` holds; `room` bytes at most.
fn put_block(
    data: &[u8],
    plain: &mut Vec<u8>,
    block_bytes_max: usize,
    room: usize,
) -> Result<(), Failure> {
    let possible = block_bytes_max.min(data.len().saturating_mul(RATIO_MAX));
    let start = plain.len();
    plain.resize(start + possible.min(room), 0);
    match block::decompress_into(data, &mut plain[start..]) {
        Ok(length) => {
            plain.truncate(start + length);
            Ok(())
        }
        Err(block::DecompressError::OutputTooSmall { .. }) if room < possible => {
            Err(Failure::TooLarge)
        }
        Err(_) => Err(Failure::Malformed),
    }
}

/// What a frame's header says.
struct Header {
    block_bytes_max: usize,
    block_checksums: bool,
    content_bytes: Option<u64>,
    content_checksum: bool,
}

impl Header {
    /// `None` for anything that is not a legal header.
    fn read(bytes: &[u8], at: &mut usize) -> Option<Self> {
        if take(bytes, at)? != MAGIC {
            return None;
        }
        let descriptor_at = *at;
        let [flags, size] = take(bytes, at)?;
        let block_bytes_max = match size {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return None,
        };
        if flags & FLAGS_VERSION_MASK != FLAGS_VERSION
            || flags & FLAG_INDEPENDENT == 0
            || flags & FLAGS_RESERVED != 0
        {
            return None;
        }
        let content_bytes = match flags & FLAG_CONTENT_SIZE {
            0 => None,
            _ => Some(u64::from_le_bytes(take(bytes, at)?)),
        };
        let expected = header_checksum(&bytes[descriptor_at..*at]);
        let [found] = take(bytes, at)?;
        (found == expected).then_some(Self {
            block_bytes_max,
            block_checksums: flags & FLAG_BLOCK_CHECKSUM != 0,
            content_bytes,
            content_checksum: flags & FLAG_CONTENT_CHECKSUM != 0,
        })
    }

    /// Checks what follows the last block, and that nothing follows that.
    fn check_end(&self, bytes: &[u8], at: &mut usize, plain: &[u8]) -> Option<()> {
        if self.content_bytes.is_some_and(|expected| expected != plain.len() as u64) {
            return None;
        }
        if self.content_checksum
            && u32::from_le_bytes(take(bytes, at)?) != XxHash32::oneshot(0, plain)
        {
            return None;
        }
        (*at == bytes.len()).then_some(())
    }
}

fn header_checksum(descriptor: &[u8]) -> u8 {
    XxHash32::oneshot(0, descriptor).to_le_bytes()[1]
}
