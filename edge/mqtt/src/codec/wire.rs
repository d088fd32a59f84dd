//! Integers, strings and lengths of section 1.5, read from and written to bytes.
//!
//! Invariant: no length is believed before it was compared with what is there; a reader never panics.

use super::error::{DecodeError, EncodeError, Violation};
use super::properties::id;
use super::topic::{self, TopicError};

/// Largest variable byte integer. [MQTT-1.5.5-1]
pub(super) const VARINT_MAX: u32 = 268_435_455;

/// Reads from the front of a slice. Methods that return `Option` say `None` at the end of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

pub(super) const fn malformed(tag: &'static str, detail: &'static str) -> DecodeError {
    DecodeError::new(Violation::Malformed, tag, detail)
}

pub(super) const fn protocol_error(tag: &'static str, detail: &'static str) -> DecodeError {
    DecodeError::new(Violation::ProtocolError, tag, detail)
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub(super) const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Gives the last byte back.
    pub(super) const fn step_back(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    /// Reads a byte if it is this one.
    #[inline]
    pub(super) fn skip_if(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(bytes)?)?;
        self.at += bytes;
        Some(taken)
    }

    /// The rest.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at = self.bytes.len();
        rest
    }

    /// A variable byte integer in its minimal form. [MQTT-1.5.5-1]
    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for i in 0..4 {
            let Some(byte) = self.u8() else {
                return Err(malformed("1.5.5", "variable byte integer is cut short"));
            };
            value |= u32::from(byte & 0x7F) << (7 * i);
            if byte & 0x80 == 0 {
                if byte == 0 && i > 0 {
                    return Err(malformed("MQTT-1.5.5-1", "variable byte integer is not minimal"));
                }
                return Ok(value);
            }
        }
        Err(malformed("1.5.5", "variable byte integer is longer than four bytes"))
    }

    /// Length-prefixed bytes. (1.5.6)
    #[inline]
    pub(super) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let length = ahead.u16()?;
        let bytes = ahead.take(usize::from(length))?;
        *self = ahead;
        Some(bytes)
    }

    /// A string, checked. (1.5.4)
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.prefixed().ok_or(malformed("1.5.4", "a string is cut short"))?;
        // Ill-formed sequences, surrogates among them. U+FEFF and non-characters are legal. [MQTT-1.5.4-3]
        let string = std::str::from_utf8(bytes)
            .map_err(|_| malformed("MQTT-1.5.4-1", "a string is not UTF-8"))?;
        if bytes.contains(&0) {
            return Err(malformed("MQTT-1.5.4-2", "a string contains U+0000"));
        }
        Ok(string)
    }

    /// A topic name.
    pub(super) fn topic_name(&mut self) -> Result<&'a str, DecodeError> {
        let name = self.topic_name_or_empty()?;
        if name.is_empty() {
            return Err(TopicError::Empty.as_decode_error());
        }
        Ok(name)
    }

    /// A topic name, or nothing where a topic alias stands for it.
    #[inline]
    pub(super) fn topic_name_or_empty(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.prefixed().ok_or(malformed("1.5.4", "a string is cut short"))?;
        let name = std::str::from_utf8(bytes)
            .map_err(|_| malformed("MQTT-1.5.4-1", "a string is not UTF-8"))?;
        match topic::check_name_characters(name) {
            Ok(()) => Ok(name),
            Err(error) => Err(error.as_decode_error()),
        }
    }

    /// A string that was checked before. `None` at the end.
    pub(super) fn checked_string(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.prefixed()?).ok()
    }
}

/// Skips one property, identifier included. `None` at the end or for an unknown identifier.
pub(super) fn skip_property(reader: &mut Reader<'_>) -> Option<()> {
    match reader.u8()? {
        id::PAYLOAD_FORMAT_INDICATOR
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_SUBSCRIPTION_AVAILABLE
        | id::SUBSCRIPTION_IDENTIFIER_AVAILABLE
        | id::SHARED_SUBSCRIPTION_AVAILABLE => {
            reader.u8()?;
        }
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            reader.u16()?;
        }
        id::MESSAGE_EXPIRY_INTERVAL
        | id::SESSION_EXPIRY_INTERVAL
        | id::WILL_DELAY_INTERVAL
        | id::MAXIMUM_PACKET_SIZE => {
            reader.u32()?;
        }
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::CORRELATION_DATA
        | id::ASSIGNED_CLIENT_IDENTIFIER
        | id::AUTHENTICATION_METHOD
        | id::AUTHENTICATION_DATA
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => {
            reader.prefixed()?;
        }
        id::SUBSCRIPTION_IDENTIFIER => {
            reader.varint().ok()?;
        }
        id::USER_PROPERTY => {
            reader.prefixed()?;
            reader.prefixed()?;
        }
        _ => return None,
    }
    Some(())
}

/// Bytes that fit a two-byte length.
#[derive(Debug, Clone, Copy)]
pub(super) struct LengthPrefixed<'a> {
    length: u16,
    bytes: &'a [u8],
}

impl<'a> LengthPrefixed<'a> {
    pub(super) fn bytes(bytes: &'a [u8]) -> Result<Self, EncodeError> {
        let length = u16::try_from(bytes.len()).map_err(|_| EncodeError::Illegal {
            tag: "1.5.4",
            detail: "a string or binary value is longer than 65,535 bytes",
        })?;
        Ok(Self { length, bytes })
    }

    pub(super) fn string(string: &'a str) -> Result<Self, EncodeError> {
        if string.as_bytes().contains(&0) {
            return Err(EncodeError::Illegal {
                tag: "MQTT-1.5.4-2",
                detail: "a string contains U+0000",
            });
        }
        Self::bytes(string.as_bytes())
    }

    pub(super) fn append_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(self.bytes);
    }
}
