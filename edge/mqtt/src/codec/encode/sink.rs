//! Counting and writing with the same code.

use super::illegal;
use crate::codec::error::EncodeError;
use crate::codec::topic;
use crate::codec::wire::VARINT_MAX;
use bytes::BytesMut;

/// Takes the fields of a packet in order. The counting one checks values; the writing one comes after it and does not.
pub(super) trait Sink: Sized {
    /// Whether values are checked here.
    const CHECKS: bool;

    fn slice(&mut self, bytes: &[u8]);

    /// Takes note of bytes that a count already knows; `false` from a writer, which needs them themselves.
    fn is_enough(&mut self, counted: &Count) -> bool;

    fn byte(&mut self, byte: u8) {
        self.slice(&[byte]);
    }

    fn number_u16(&mut self, value: u16) {
        self.slice(&value.to_be_bytes());
    }

    fn number_u32(&mut self, value: u32) {
        self.slice(&value.to_be_bytes());
    }

    /// A variable byte integer in its minimal form. [MQTT-1.5.5-1]
    fn put_varint(&mut self, value: usize) -> Result<(), EncodeError> {
        if value > VARINT_MAX as usize {
            return Err(illegal("1.5.5", "a length or number is above 268,435,455"));
        }
        let mut left = value;
        loop {
            let [low, ..] = left.to_le_bytes();
            left >>= 7;
            if left == 0 {
                self.byte(low & 0x7F);
                return Ok(());
            }
            self.byte(low | 0x80);
        }
    }

    /// Length-prefixed bytes.
    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let length = u16::try_from(bytes.len())
            .map_err(|_| illegal("1.5.4", "a string or binary value is over 65,535 bytes"))?;
        self.number_u16(length);
        self.slice(bytes);
        Ok(())
    }

    fn string(&mut self, string: &str) -> Result<(), EncodeError> {
        if Self::CHECKS && string.as_bytes().contains(&0) {
            return Err(illegal("MQTT-1.5.4-2", "a string contains U+0000"));
        }
        self.binary(string.as_bytes())
    }

    fn topic_name(&mut self, name: &str) -> Result<(), EncodeError> {
        if Self::CHECKS {
            topic::check_name(name).map_err(topic::TopicError::as_encode_error)?;
        }
        self.binary(name.as_bytes())
    }
}

/// Counts and checks.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) bytes: usize,
}

impl Sink for Count {
    const CHECKS: bool = true;

    #[inline]
    fn slice(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
    }

    fn is_enough(&mut self, counted: &Count) -> bool {
        self.bytes += counted.bytes;
        true
    }
}

impl Sink for BytesMut {
    const CHECKS: bool = false;

    #[inline]
    fn slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn is_enough(&mut self, _counted: &Count) -> bool {
        false
    }
}

/// Bytes of a variable byte integer.
pub(super) const fn varint_bytes(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}
