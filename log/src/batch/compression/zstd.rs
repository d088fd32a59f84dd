//! Zstandard, RFC 8878: one frame with its content size is written; any number of frames is read.
//!
//! Frames are undone in one go into the memory that the plain bytes keep: that memory is the window then, so what a frame
//! asks for as its window reserves nothing.

use super::Failure;
use std::io;

const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Java's decoder takes no window above 2^27 bytes.
const WINDOW_LOG_MAX: u32 = 27;
/// Plain bytes that one block can hold, and the bytes of the smallest block: its header.
const BLOCK_BYTES_MAX: usize = 128 << 10;
const BLOCK_BYTES_MIN: usize = 3;

pub(super) fn compress(level: i8, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.resize(start + ::zstd::zstd_safe::compress_bound(plain.len()), 0);
    let length = ::zstd::bulk::compress_to_buffer(plain, &mut out[start..], i32::from(level))?;
    out.truncate(start + length);
    Ok(())
}

pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>, Failure> {
    // Nothing is no frame, though the library takes it for an empty one.
    if bytes.is_empty() || window_too_large(bytes) {
        return Err(Failure::Malformed);
    }
    // Also a frame that says its size has to have the bytes that could hold it.
    let possible = (bytes.len() / BLOCK_BYTES_MIN + 1).saturating_mul(BLOCK_BYTES_MAX);
    let bound = ::zstd::zstd_safe::decompress_bound(bytes).map_err(|_| Failure::Malformed)?;
    let bound = usize::try_from(bound).unwrap_or(usize::MAX);
    if bound > possible {
        return Err(Failure::Malformed);
    }
    // `bound` is exact for a frame that says its size, else full blocks are assumed: those may fit all the same.
    let capacity = bound.min(limit_bytes);
    ::zstd::bulk::decompress(bytes, capacity)
        .map_err(|_| if bound > limit_bytes { Failure::TooLarge } else { Failure::Malformed })
}

/// Whether the first frame asks for a window that Kafka's Java client refuses.
fn window_too_large(bytes: &[u8]) -> bool {
    let Some(&[a, b, c, d, descriptor, window, ..]) = bytes.first_chunk::<6>() else {
        return false;
    };
    let single_segment = descriptor & 0x20 != 0;
    if [a, b, c, d] != MAGIC || single_segment {
        return false;
    }
    let (exponent, mantissa) = (u32::from(window >> 3), u32::from(window & 7));
    let log = 10 + exponent;
    log > WINDOW_LOG_MAX || log == WINDOW_LOG_MAX && mantissa > 0
}
