//! Topic filters: what a SUBSCRIBE asks for, and the plain matcher that every other matcher must agree with.
//!
//! Invariant: a [`TopicFilter`] has `#` only as its whole last level and `+` only as a whole level. Neighbours:
//! [`crate::tree`] matches one topic against many filters at once; sessions that catch up use [`TopicFilter::matches`].

use crate::codec::topic::{TopicError, check_filter};
use crate::topic::is_server_topic;
use std::borrow::Borrow;
use std::fmt;

/// Most levels of a filter. The specification has no limit; this server has one, because the depth of the subscription
/// tree, and of the walk through it, follows the deepest filter.
pub const FILTER_LEVELS_MAX: usize = 128;

/// A checked topic filter, shared-subscription prefix not included.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Box<str>);

/// Why a string is not a topic filter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicFilterError {
    /// The protocol does not allow it.
    #[error(transparent)]
    Illegal(#[from] TopicError),
    /// A limit of this server.
    #[error("a topic filter has at most {FILTER_LEVELS_MAX} levels here")]
    TooManyLevels,
}

impl TopicFilter {
    /// Checks and copies.
    ///
    /// # Errors
    /// [`TopicFilterError`].
    pub fn new(filter: &str) -> Result<Self, TopicFilterError> {
        check_filter(filter)?;
        if filter.split('/').count() > FILTER_LEVELS_MAX {
            return Err(TopicFilterError::TooManyLevels);
        }
        Ok(Self(filter.into()))
    }

    /// The filter as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the topic name matches. [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.2-1]
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        let mut filter_levels = self.0.split('/');
        let mut topic_levels = topic.split('/');
        let mut first = true;
        loop {
            let (wanted, found) = (filter_levels.next(), topic_levels.next());
            if first && is_server_topic(topic) && matches!(wanted, Some("+" | "#")) {
                return false;
            }
            first = false;
            match (wanted, found) {
                // "sport/#" also matches "sport": the parent level itself.
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(wanted), Some(found)) if wanted == found => {}
                _ => return false,
            }
        }
    }
}

/// Whether this is a shared subscription, `$share/NAME/FILTER`, well formed or not. [MQTT-4.8.2-1]
#[must_use]
pub fn is_shared(filter: &str) -> bool {
    filter == "$share" || filter.starts_with("$share/")
}

/// Hashes and compares as its text does.
impl Borrow<str> for TopicFilter {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for good in ["#", "+", "+/#", "a/+/b", "/", "//", "a//#", "é/+", "$SYS/#", "+/+"] {
            assert!(TopicFilter::new(good).is_ok(), "{good}");
        }
        let check = |filter: &str| TopicFilter::new(filter).map(|_| ());
        let illegal = |error| Err(TopicFilterError::Illegal(error));
        assert_eq!(check(""), illegal(TopicError::Empty));
        assert_eq!(check("a#"), illegal(TopicError::MultiLevel));
        assert_eq!(check("a/#/b"), illegal(TopicError::MultiLevel));
        assert_eq!(check("#/"), illegal(TopicError::MultiLevel));
        assert_eq!(check("a+/b"), illegal(TopicError::SingleLevel));
        assert_eq!(check("++"), illegal(TopicError::SingleLevel));
        assert_eq!(check("a\0"), illegal(TopicError::Nul));
        assert_eq!(check(&"x".repeat(65_536)), illegal(TopicError::TooLong));
        assert_eq!(check(&"/".repeat(127)), Ok(()));
        assert_eq!(check(&"/".repeat(128)), Err(TopicFilterError::TooManyLevels));
    }

    /// The examples of section 4.7 of the specification, and non-ASCII levels.
    #[test]
    fn the_specification_examples_match() {
        let table: &[(&str, &str, bool)] = &[
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b/c", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("é/+", "é/x", true),
            ("+/x", "é/x", true),
            ("日/#", "日", true),
            ("日/#", "本", false),
            ("a/b", "a/B", false),
            ("a", "a/", false),
        ];
        for (filter, topic, wanted) in table {
            let filter = TopicFilter::new(filter).unwrap();
            assert_eq!(filter.matches(topic), *wanted, "{filter} against {topic}");
        }
    }

    #[test]
    fn shared_filters_are_recognised() {
        assert!(is_shared("$share/g/a"));
        assert!(is_shared("$share"));
        assert!(!is_shared("$shared/a"));
        assert!(!is_shared("a/$share/b"));
    }
}
