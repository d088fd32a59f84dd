//! Route patterns: MQTT topic filters whose single levels may be named, as in `plant/{line}/+/telemetry/#`.
//!
//! Step 6 of the life of a PUBLISH uses them through the bridge. Pure; a pattern that parsed always matches or does
//! not, and captures exactly [`Pattern::names`] many levels. Neighbours: [`crate::template`] is filled from captures.

use std::fmt;

/// Bytes of an MQTT topic or filter, at most (a two-byte length on the wire).
const FILTER_BYTES_MAX: usize = 65_535;

/// A parsed route pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    levels: Vec<Level>,
    /// Whether `#` ends it.
    rest: bool,
    names: Vec<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(Box<str>),
    /// `+`
    Any,
    /// `{name}`
    Capture,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// [MQTT-4.7.3-1]: at least one character.
    #[error("an empty pattern matches nothing: `#` matches every topic")]
    Empty,
    /// [MQTT-4.7.3-3]
    #[error("a pattern has at most {FILTER_BYTES_MAX} bytes")]
    TooLong,
    /// [MQTT-4.7.3-2]
    #[error("a pattern must not contain the NUL character")]
    Nul,
    /// Shared subscriptions are made by subscribers, not by routes.
    #[error("`$share/` belongs to a subscription, not to a route: leave out `$share/GROUP/`")]
    Shared,
    /// [MQTT-4.7.1-1]
    #[error("`#` must be the last level and stand alone in it, but stands in {0:?}")]
    HashInside(String),
    /// [MQTT-4.7.1-2]
    #[error("`+` must fill its level, but stands in {0:?}")]
    PlusInside(String),
    /// Half a level cannot be captured.
    #[error("a capture must fill its level, as in `plant/{{line}}/x`, but level {0:?} holds more")]
    CaptureInside(String),
    /// `{` without `}`, or the other way round.
    #[error("a brace is not closed or not opened in level {0:?}")]
    Brace(String),
    /// Not a name.
    #[error("{0:?} is not a name for a capture: letters, digits and `_`, beginning with a letter")]
    Name(String),
    /// Taken by the templates.
    #[error("a capture cannot be called {0:?}: templates use that name for something else")]
    Reserved(String),
    /// The same name twice.
    #[error("the capture {0:?} stands twice in the pattern")]
    Twice(String),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`PatternError`], the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > FILTER_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        if text.contains('\0') {
            return Err(PatternError::Nul);
        }
        if text == "$share" || text.starts_with("$share/") {
            return Err(PatternError::Shared);
        }
        let mut pattern =
            Self { text: text.into(), levels: Vec::new(), rest: false, names: Vec::new() };
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level == "#" && levels.peek().is_none() {
                pattern.rest = true;
            } else {
                pattern.push_level(level)?;
            }
        }
        Ok(pattern)
    }

    fn push_level(&mut self, level: &str) -> Result<(), PatternError> {
        if level == "+" {
            self.levels.push(Level::Any);
            return Ok(());
        }
        if level.contains('#') {
            return Err(PatternError::HashInside(level.into()));
        }
        if level.contains('+') {
            return Err(PatternError::PlusInside(level.into()));
        }
        if !level.contains(['{', '}']) {
            self.levels.push(Level::Literal(level.into()));
            return Ok(());
        }
        let (open, close) = (level.find('{'), level.find('}'));
        let (Some(open), Some(close)) = (open, close) else {
            return Err(PatternError::Brace(level.into()));
        };
        if close < open {
            return Err(PatternError::Brace(level.into()));
        }
        if open != 0 || close + 1 != level.len() {
            return Err(PatternError::CaptureInside(level.into()));
        }
        let name = &level[1..close];
        if !is_name(name) {
            return Err(PatternError::Name(name.into()));
        }
        if name == "site" || name == "topic" {
            return Err(PatternError::Reserved(name.into()));
        }
        if self.names.iter().any(|n| &**n == name) {
            return Err(PatternError::Twice(name.into()));
        }
        self.names.push(name.into());
        self.levels.push(Level::Capture);
        Ok(())
    }

    /// The text it was parsed from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of its captures, in the order in which [`Pattern::matches`] yields them.
    #[must_use]
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Whether an MQTT topic name matches. `captures` is cleared, and holds one level per name if it does.
    ///
    /// As for subscriptions, `#` matches its parent level too (section 4.7.1.2), and a pattern that begins with a wildcard
    /// or a capture does not match a topic that begins with `$` [MQTT-4.7.2-1].
    pub fn matches<'t>(&self, topic: &'t str, captures: &mut Vec<&'t str>) -> bool {
        captures.clear();
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Literal(_))) {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in &self.levels {
            let Some(level) = levels.next() else { return false };
            match wanted {
                Level::Literal(text) if **text == *level => {}
                Level::Literal(_) => return false,
                Level::Any => {}
                Level::Capture => captures.push(level),
            }
        }
        self.rest || levels.next().is_none()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a text can name a capture.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches<'t>(pattern: &str, topic: &'t str) -> Option<Vec<&'t str>> {
        let mut captures = vec!["stale"];
        Pattern::parse(pattern).unwrap().matches(topic, &mut captures).then_some(captures)
    }

    #[test]
    fn levels_match_as_in_subscriptions() {
        for (pattern, topic, expected) in [
            ("plant/{line}/{device}/telemetry/#", "plant/a/b/telemetry/x/y", Some(vec!["a", "b"])),
            ("plant/{line}/telemetry/#", "plant/a/telemetry", Some(vec!["a"])),
            ("plant/{line}", "plant/a/b", None),
            ("plant/{line}", "plant", None),
            ("plant/+/x", "plant//x", Some(vec![])),
            ("{a}", "", Some(vec![""])),
            ("/{a}", "/b", Some(vec!["b"])),
            ("#", "a/b", Some(vec![])),
            ("#", "$SYS/x", None),
            ("+/x", "$SYS/x", None),
            ("{a}/x", "$SYS/x", None),
            ("$SYS/#", "$SYS/x", Some(vec![])),
            ("é/{x}", "é/ü", Some(vec!["ü"])),
            ("a", "A", None),
            ("a/", "a", None),
            ("$shared/x", "$shared/x", Some(vec![])),
        ] {
            assert_eq!(matches(pattern, topic), expected, "{pattern} against {topic}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        use PatternError::*;
        for (text, error) in [
            ("", Empty),
            ("a\0b", Nul),
            ("$share/g/a", Shared),
            ("a/#/b", HashInside("#".into())),
            ("a/b#", HashInside("b#".into())),
            ("a+/b", PlusInside("a+".into())),
            ("x-{a}/b", CaptureInside("x-{a}".into())),
            ("{a}{b}", CaptureInside("{a}{b}".into())),
            ("{a", Brace("{a".into())),
            ("a}", Brace("a}".into())),
            ("}{", Brace("}{".into())),
            ("{}", Name("".into())),
            ("{1a}", Name("1a".into())),
            ("{a b}", Name("a b".into())),
            ("{site}", Reserved("site".into())),
            ("{a}/{a}", Twice("a".into())),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
        assert_eq!(Pattern::parse(&"a".repeat(65_536)), Err(TooLong));
    }
}
