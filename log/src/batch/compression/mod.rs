//! The codecs of a batch's records: gzip, snappy, lz4, zstd, each in the framing that Kafka's Java client writes and reads.
//!
//! Invariant: [`decompress`] never holds more plain bytes than its limit, whatever a stream claims of itself, and reserves no
//! more than its codec could make of the bytes that are there. Neighbours: [`super::records`] and compaction read what is undone
//! here, the compressor's thread and compaction call [`compress`]. A stream that Kafka's client would not read is refused as
//! well, since one stored here would stop that client at its offset for ever.

mod gzip;
mod lz4;
mod snappy;
#[cfg(test)]
mod tests;
mod zstd;

use super::BatchError;
use std::io;
use std::ops::RangeInclusive;

/// A codec with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compression {
    /// Which.
    pub codec: Codec,
    /// The codec's own scale; `None` is the codec's default.
    pub level: Option<i8>,
}

/// Kafka's codecs, with their numbers in a batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks in xerial's framing.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard, RFC 8878 (KIP-110).
    Zstd = 4,
}

impl Codec {
    /// From the three lowest bits of a batch's attributes.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Kafka's name of it (`compression.type`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The levels it takes; `None` for a codec that has none. LZ4's slow levels are not offered: zstd's fast ones are
    /// smaller and faster.
    #[must_use]
    pub const fn levels(self) -> Option<RangeInclusive<i8>> {
        match self {
            Self::Gzip => Some(1..=9),
            Self::Zstd => Some(-100..=22),
            Self::None | Self::Snappy | Self::Lz4 => None,
        }
    }

    /// The level where none is asked for; 0 for a codec that has none.
    #[must_use]
    pub const fn level_default(self) -> i8 {
        match self {
            Self::Gzip => 6,
            Self::Zstd => 3,
            Self::None | Self::Snappy | Self::Lz4 => 0,
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Compresses `plain` behind what `out` holds already. A level outside [`Codec::levels`] is taken to its nearest end.
///
/// # Errors
/// Only a codec that gets no memory; what was added to `out` is of no use then.
pub fn compress(compression: Compression, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let codec = compression.codec;
    let level = match (compression.level, codec.levels()) {
        (Some(level), Some(range)) => level.clamp(*range.start(), *range.end()),
        _ => codec.level_default(),
    };
    match codec {
        Codec::None => {
            out.extend_from_slice(plain);
            Ok(())
        }
        Codec::Gzip => gzip::compress(level, plain, out),
        Codec::Snappy => snappy::compress(plain, out),
        Codec::Lz4 => {
            lz4::compress(plain, out);
            Ok(())
        }
        Codec::Zstd => zstd::compress(level, plain, out),
    }
}

/// The plain bytes of a stream, `limit_bytes` of them at most.
///
/// # Errors
/// [`BatchError::Stream`] for bytes that are not one whole stream of `codec`, [`BatchError::PlainTooLarge`] beyond the limit.
pub fn decompress(codec: Codec, bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>, BatchError> {
    let plain = match codec {
        Codec::None if bytes.len() > limit_bytes => Err(Failure::TooLarge),
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => gzip::decompress(bytes, limit_bytes),
        Codec::Snappy => snappy::decompress(bytes, limit_bytes),
        Codec::Lz4 => lz4::decompress(bytes, limit_bytes),
        Codec::Zstd => zstd::decompress(bytes, limit_bytes),
    };
    let mut plain = plain.map_err(|failure| match failure {
        Failure::Malformed => BatchError::Stream(codec),
        Failure::TooLarge => BatchError::PlainTooLarge { limit_bytes },
    })?;
    // Records share this memory for as long as one of them is held.
    if plain.capacity() / 2 > plain.len() {
        plain.shrink_to_fit();
    }
    Ok(plain)
}

/// Why a stream was not undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Malformed,
    TooLarge,
}

/// The `N` bytes at `at`, which moves behind them.
fn take<const N: usize>(bytes: &[u8], at: &mut usize) -> Option<[u8; N]> {
    let taken = bytes.get(*at..)?.first_chunk()?;
    *at += N;
    Some(*taken)
}

/// The next `length` bytes at `at`, which moves behind them.
fn take_slice<'a>(bytes: &'a [u8], at: &mut usize, length: usize) -> Option<&'a [u8]> {
    let taken = bytes.get(*at..)?.get(..length)?;
    *at += length;
    Some(taken)
}
