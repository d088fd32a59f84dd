//! Topic names: what a PUBLISH is addressed to.
//!
//! Invariant: a [`TopicName`] holds no wildcard, no NUL, is not empty and fits a length field of two bytes, so that
//! whoever has one need not check again. Neighbours: `filter` matches them, the codec checks those it decodes itself.

use crate::codec::topic::{TopicError, check_name};
use std::fmt;

/// A checked topic name. Case and every byte count: no normalisation. [MQTT-4.7.3-4]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Box<str>);

impl TopicName {
    /// Checks and copies.
    ///
    /// # Errors
    /// [`TopicError`].
    pub fn new(name: &str) -> Result<Self, TopicError> {
        check_name(name)?;
        Ok(Self(name.into()))
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
        assert_eq!(TopicName::new(""), Err(TopicError::Empty));
        assert_eq!(TopicName::new("a/+"), Err(TopicError::Wildcard));
        assert_eq!(TopicName::new("é#"), Err(TopicError::Wildcard));
        assert_eq!(TopicName::new("a\0"), Err(TopicError::Nul));
        assert_eq!(TopicName::new(&"x".repeat(65_536)), Err(TopicError::TooLong));
        assert!(TopicName::new(&"x".repeat(65_535)).is_ok());
        assert!(is_server_topic("$SYS") && !is_server_topic("a/$SYS"));
    }
}
