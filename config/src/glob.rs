//! Globs over topic names: `*` for any run of characters, `?` for one. `[[topic]] name` and an uplink's `from`.
//!
//! Pure. Neighbours: [`crate::settings`]. Internal topics (`__headwater_*`) are never matched.

use std::fmt;

/// A glob over topic names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// `None` unless it is 1 to 249 of `A-Z a-z 0-9 . _ - * ?`, and for the two names that cannot be topics.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-*?".contains(&b);
        let ok = (1..=249).contains(&text.len())
            && text != "."
            && text != ".."
            && text.bytes().all(legal);
        ok.then(|| Self(text.into()))
    }

    /// The text it was made from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one name it stands for, when it has neither `*` nor `?`.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(&self.0)
    }

    /// Whether a topic of this name matches. An internal topic never does.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        !topic.starts_with("__headwater_") && matches(self.0.as_bytes(), topic.as_bytes())
    }

    /// Whether some name matches both.
    pub(crate) fn meets(&self, other: &str) -> bool {
        meets(self.0.as_bytes(), other.as_bytes())
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Linear but for the last `*` seen, to which it returns: at most glob times name steps.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                g += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    g = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

/// Whether two globs have a name in common: reachability over pairs of places, each visited once.
fn meets(a: &[u8], b: &[u8]) -> bool {
    let width = b.len() + 1;
    let mut seen = vec![false; (a.len() + 1) * width];
    let mut open = vec![(0, 0)];
    while let Some((i, j)) = open.pop() {
        if std::mem::replace(&mut seen[i * width + j], true) {
            continue;
        }
        match (a.get(i), b.get(j)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                open.push((i + 1, j));
                if j < b.len() {
                    open.push((i, j + 1));
                }
            }
            (_, Some(b'*')) => {
                open.push((i, j + 1));
                if i < a.len() {
                    open.push((i + 1, j));
                }
            }
            (Some(&x), Some(&y)) if x == y || x == b'?' || y == b'?' => open.push((i + 1, j + 1)),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match() {
        for (glob, name, expected) in [
            ("*", "a", true),
            ("*", "__headwater_ledger", false),
            ("__*", "__consumer_offsets", true),
            ("telemetry.*", "telemetry.a.b", true),
            ("telemetry.*", "telemetry", false),
            ("*a*b*", "xxaxxbx", true),
            ("*a*b*", "xxbxxax", false),
            ("?", "ab", false),
            ("a?c", "abc", true),
            ("abc", "abc", true),
            ("a*****", "a", true),
        ] {
            assert_eq!(Glob::new(glob).unwrap().matches(name), expected, "{glob} {name}");
        }
        for wrong in ["", ".", "..", "a b", "é", "[a]"] {
            assert_eq!(Glob::new(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn two_globs_meet() {
        for (a, b, expected) in [
            ("telemetry.*", "*.hall", true),
            ("telemetry.*", "alarms.*", false),
            ("a?c", "ab*", true),
            ("*", "x", true),
            ("a*", "b*", false),
            ("abc", "abc", true),
            ("abc", "ab", false),
        ] {
            assert_eq!(Glob::new(a).unwrap().meets(b), expected, "{a} {b}");
            assert_eq!(meets(b.as_bytes(), a.as_bytes()), expected, "{b} {a}");
        }
    }
}
