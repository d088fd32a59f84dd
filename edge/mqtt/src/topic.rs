//! Topic names: what a PUBLISH is addressed to.
//!
//! Invariant: a [`TopicName`] holds no wildcard, no NUL, is not empty and fits a length field of two bytes, so that
//! whoever has one need not check again. Neighbours: `filter` matches them, the codec checks those it decodes itself.

use std::fmt;

/// Longest topic name or filter in bytes: the wire's length field has two bytes. [MQTT-4.7.3-3]
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// A checked topic name. Case and every byte count: no normalisation. [MQTT-4.7.3-4]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Box<str>);

/// Why a string is not a topic name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// [MQTT-4.7.3-1]
    #[error("a topic name must not be empty")]
    Empty,
    /// [MQTT-4.7.3-3]
    #[error("a topic name has at most 65535 bytes")]
    TooLong,
    /// [MQTT-3.3.2-2], [MQTT-4.7.3-2]
    #[error("a topic name must not contain '+', '#' or NUL, byte {at} does")]
    BadCharacter {
        /// Byte offset of the first offender.
        at: usize,
    },
}

impl TopicName {
    /// Checks and copies.
    ///
    /// # Errors
    /// [`TopicNameError`].
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        Self::check(name)?;
        Ok(Self(name.into()))
    }

    /// Checks without copying.
    ///
    /// # Errors
    /// [`TopicNameError`].
    pub fn check(name: &str) -> Result<(), TopicNameError> {
        if name.is_empty() {
            return Err(TopicNameError::Empty);
        }
        if name.len() > TOPIC_BYTES_MAX {
            return Err(TopicNameError::TooLong);
        }
        match name.bytes().position(|b| matches!(b, b'+' | b'#' | 0)) {
            Some(at) => Err(TopicNameError::BadCharacter { at }),
            None => Ok(()),
        }
    }

    /// The name as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the server keeps topics of this name for itself: clients neither publish to them nor reach them by a
/// leading wildcard. [MQTT-4.7.2-1]
#[must_use]
pub fn is_server_topic(name: &str) -> bool {
    name.starts_with('$')
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "/", "a//b", "é/x", "日本/温度", " ", "$SYS/x", "a b"] {
            assert_eq!(TopicName::new(good).map(|t| t.as_str().to_owned()), Ok(good.to_owned()));
        }
        assert_eq!(TopicName::check(""), Err(TopicNameError::Empty));
        assert_eq!(TopicName::check("a/+"), Err(TopicNameError::BadCharacter { at: 2 }));
        assert_eq!(TopicName::check("é#"), Err(TopicNameError::BadCharacter { at: 2 }));
        assert_eq!(TopicName::check("a\0"), Err(TopicNameError::BadCharacter { at: 1 }));
        assert_eq!(TopicName::check(&"x".repeat(65_536)), Err(TopicNameError::TooLong));
        assert_eq!(TopicName::check(&"x".repeat(65_535)), Ok(()));
    }
}
