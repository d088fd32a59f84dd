//! Templates: texts with `{names}` in them, for topics, keys and headers of routes and for the `to` of uplinks.
//!
//! Pure. Invariant: every name is known when the template is made, so an expansion cannot fail; whether the *result* is
//! a legal topic name is checked by who uses it. Neighbours: [`crate::pattern`] supplies the captures.

use crate::pattern::{Pattern, is_name};
use std::fmt;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// Index into the pattern's captures.
    Capture(usize),
    /// The name of the topic that an uplink mirrors.
    Topic,
}

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}`, or the other way round.
    #[error("a brace is not closed or not opened")]
    Brace,
    /// Nothing of that name here.
    #[error("{{{name}}} is not known here: {}", Known(.known))]
    Unknown {
        /// As written.
        name: String,
        /// What could stand there.
        known: Vec<String>,
    },
    /// `{site}` without a `[site] name`.
    #[error("{{site}} needs `[site] name`, which is not set")]
    NoSite,
}

struct Known<'a>(&'a [String]);

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(|n| format!("{{{n}}}")).collect();
        write!(f, "it could be {}", names.join(", "))
    }
}

impl Template {
    /// A template of a route: its pattern's captures and `{site}`, which is filled in now.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn for_route(
        text: &str,
        pattern: &Pattern,
        site: Option<&str>,
    ) -> Result<Self, TemplateError> {
        let names: Vec<&str> = pattern.names().iter().map(|n| &**n).collect();
        Self::parse(text, &names, false, site)
    }

    /// The `to` of an uplink: `{topic}`, and `{site}`, which is filled in now.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn for_uplink(text: &str, site: Option<&str>) -> Result<Self, TemplateError> {
        Self::parse(text, &[], true, site)
    }

    fn parse(
        text: &str,
        names: &[&str],
        topic: bool,
        site: Option<&str>,
    ) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let inner = rest[at..].strip_prefix('{').ok_or(TemplateError::Brace)?;
            let end = inner.find(['{', '}']).ok_or(TemplateError::Brace)?;
            let after = inner[end..].strip_prefix('}').ok_or(TemplateError::Brace)?;
            let name = &inner[..end];
            if name == "site" {
                literal.push_str(site.ok_or(TemplateError::NoSite)?);
            } else {
                let part = if topic && name == "topic" {
                    Some(Part::Topic)
                } else {
                    names.iter().position(|n| *n == name).map(Part::Capture)
                };
                let part = part.ok_or_else(|| unknown(name, names, topic))?;
                flush(&mut literal, &mut parts);
                parts.push(part);
            }
            rest = after;
        }
        literal.push_str(rest);
        flush(&mut literal, &mut parts);
        Ok(Self { text: text.into(), parts })
    }

    /// The text it was parsed from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The result, when it is always the same (`{site}` is fixed too).
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether the result depends on the mirrored topic's name.
    #[must_use]
    pub fn uses_topic(&self) -> bool {
        self.parts.contains(&Part::Topic)
    }

    /// Appends the expansion. `captures` is what the route's pattern captured; a missing one expands to nothing.
    pub fn expand(&self, captures: &[&str], out: &mut String) {
        self.expand_with(captures, "", out);
    }

    /// The name that a mirrored topic gets in the centre.
    #[must_use]
    pub fn expand_topic(&self, topic: &str) -> String {
        let mut out = String::new();
        self.expand_with(&[], topic, &mut out);
        out
    }

    fn expand_with(&self, captures: &[&str], topic: &str, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Capture(index) => out.push_str(captures.get(*index).copied().unwrap_or("")),
                Part::Topic => out.push_str(topic),
            }
        }
    }

    /// The expansions as a glob: whatever is not fixed as `*`.
    #[must_use]
    pub fn as_glob(&self) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => &**text,
                Part::Capture(_) | Part::Topic => "*",
            })
            .collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn flush(literal: &mut String, parts: &mut Vec<Part>) {
    if !literal.is_empty() {
        parts.push(Part::Text(std::mem::take(literal).into()));
    }
}

fn unknown(name: &str, names: &[&str], topic: bool) -> TemplateError {
    if !is_name(name) {
        return TemplateError::Brace;
    }
    let mut known: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    if topic {
        known.push("topic".into());
    }
    known.push("site".into());
    TemplateError::Unknown { name: name.into(), known }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str, pattern: &str, topic: &str) -> String {
        let pattern = Pattern::parse(pattern).unwrap();
        let mut captures = Vec::new();
        assert!(pattern.matches(topic, &mut captures));
        let mut out = String::new();
        Template::for_route(text, &pattern, Some("plant-7")).unwrap().expand(&captures, &mut out);
        out
    }

    #[test]
    fn captures_and_site_are_filled_in() {
        assert_eq!(expand("telemetry.{line}", "p/{line}/#", "p/seven/x"), "telemetry.seven");
        assert_eq!(expand("{b}-{site}-{a}{a}", "{a}/{b}", "x/y"), "y-plant-7-xx");
        assert_eq!(expand("plain", "#", "x"), "plain");
        assert_eq!(expand("", "#", "x"), "");
    }

    #[test]
    fn uplink_targets() {
        let to = Template::for_uplink("{site}.{topic}", Some("s1")).unwrap();
        assert_eq!(to.expand_topic("alarms"), "s1.alarms");
        assert!(to.uses_topic());
        assert_eq!(to.literal(), None);
        assert_eq!(Template::for_uplink("{site}.x", Some("s1")).unwrap().literal(), Some("s1.x"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let pattern = Pattern::parse("p/{line}/{dev}").unwrap();
        let parse = |text| Template::for_route(text, &pattern, None).unwrap_err();
        for text in ["{", "}", "a{b", "a}b", "{{line}}", "{}", "{a b}"] {
            assert_eq!(parse(text), TemplateError::Brace, "{text}");
        }
        assert_eq!(parse("{site}"), TemplateError::NoSite);
        let unknown = parse("{topic}");
        assert_eq!(
            unknown.to_string(),
            "{topic} is not known here: it could be {line}, {dev}, {site}"
        );
        assert_eq!(
            Template::for_uplink("{line}", None).unwrap_err().to_string(),
            "{line} is not known here: it could be {topic}, {site}"
        );
    }
}
