//! Topic names and topic filters (section 4.7) and the grammar of shared subscriptions (section 4.8.2).

use super::error::{DecodeError, EncodeError};
use super::wire::malformed;

/// What is wrong with a topic name or filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.detail())]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    Empty,
    /// [MQTT-4.7.3-3]
    TooLong,
    /// [MQTT-4.7.3-2]
    Nul,
    /// [MQTT-3.3.2-2]
    Wildcard,
    /// [MQTT-4.7.1-1]
    MultiLevel,
    /// [MQTT-4.7.1-2]
    SingleLevel,
    /// [MQTT-4.8.2-1, MQTT-4.8.2-2]
    Shared,
}

impl TopicError {
    /// The normative statement.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Empty => "MQTT-4.7.3-1",
            Self::TooLong => "MQTT-4.7.3-3",
            Self::Nul => "MQTT-4.7.3-2",
            Self::Wildcard => "MQTT-3.3.2-2",
            Self::MultiLevel => "MQTT-4.7.1-1",
            Self::SingleLevel => "MQTT-4.7.1-2",
            Self::Shared => "MQTT-4.8.2-1",
        }
    }

    /// As an error of the packet that holds the topic.
    pub(super) const fn as_decode_error(self) -> DecodeError {
        malformed(self.tag(), self.detail())
    }

    /// As an error of the packet that is to hold the topic.
    pub(super) const fn as_encode_error(self) -> EncodeError {
        EncodeError::Illegal { tag: self.tag(), detail: self.detail() }
    }

    /// What it is, in words.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Empty => "a topic is empty",
            Self::TooLong => "a topic is longer than 65,535 bytes",
            Self::Nul => "a topic contains U+0000",
            Self::Wildcard => "a topic name contains a wildcard",
            Self::MultiLevel => "# is not alone in the last level of a filter",
            Self::SingleLevel => "+ is not alone in its level of a filter",
            Self::Shared => "a shared subscription is not $share/NAME/FILTER",
        }
    }
}

/// Checks a topic name, as in a PUBLISH.
///
/// # Errors
/// [`TopicError`]
pub fn check_name(name: &str) -> Result<(), TopicError> {
    check_length(name)?;
    check_name_characters(name)
}

/// The part of [`check_name`] that looks at characters.
#[inline]
pub(super) fn check_name_characters(name: &str) -> Result<(), TopicError> {
    // Without an early exit, so that it becomes vector code: names are short and good ones are the rule.
    let is_bad = name.bytes().fold(false, |bad, b| bad | (b == 0) | (b == b'+') | (b == b'#'));
    if !is_bad {
        return Ok(());
    }
    Err(if name.as_bytes().contains(&0) { TopicError::Nul } else { TopicError::Wildcard })
}

/// Checks a topic filter, as in a SUBSCRIBE, without looking at `$share`.
///
/// # Errors
/// [`TopicError`]
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    check_length(filter)?;
    let bytes = filter.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        let opens = i == 0 || bytes.get(i - 1) == Some(&b'/');
        match byte {
            0 => return Err(TopicError::Nul),
            b'#' if !opens || i + 1 != bytes.len() => return Err(TopicError::MultiLevel),
            b'+' if !opens || !matches!(bytes.get(i + 1), None | Some(b'/')) => {
                return Err(TopicError::SingleLevel);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes `$share/NAME/FILTER` apart: `Ok(None)` for a filter that does not begin with `$share/` (and is not `$share`
/// alone), `Ok(Some((name, filter)))` for a well-formed shared one.
///
/// # Errors
/// [`TopicError::Shared`] for a name that is empty or has a wildcard in it, or without a filter behind it; what
/// [`check_filter`] says about the filter.
pub fn split_share(filter: &str) -> Result<Option<(&str, &str)>, TopicError> {
    let Some(rest) = filter.strip_prefix("$share") else { return Ok(None) };
    let Some(rest) = rest.strip_prefix('/') else {
        // "$share" alone has no name; "$shared/x" is an ordinary filter.
        return if rest.is_empty() { Err(TopicError::Shared) } else { Ok(None) };
    };
    let (name, filter) = rest.split_once('/').ok_or(TopicError::Shared)?;
    if name.is_empty() || filter.is_empty() || name.contains(['+', '#']) {
        return Err(TopicError::Shared);
    }
    check_filter(filter)?;
    Ok(Some((name, filter)))
}

fn check_length(topic: &str) -> Result<(), TopicError> {
    match topic.len() {
        0 => Err(TopicError::Empty),
        1..=65_535 => Ok(()),
        _ => Err(TopicError::TooLong),
    }
}
