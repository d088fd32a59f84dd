//! Reads tables by the table of keys: unknown keys, wrong types and bounds are all found in one pass.
//!
//! Invariant: reading goes on after an error, with the default in place of what was wrong, so that every problem of a
//! configuration is in one report and none is an echo of another. Neighbours: [`crate::tree`] before,
//! [`crate::resolve`] after.

use crate::keys::{self, Key, Kind, Presence};
use crate::report::{Origin, Problems};
use crate::settings::DiskBudget;
use crate::tree::{Node, Table, Value, parse_value};
use crate::units::{parse_bytes, parse_duration, parse_percent};
use std::collections::BTreeMap;
use std::time::Duration;

/// A value of the kind its key asks for.
#[derive(Debug, Clone)]
enum Typed {
    /// Left out, or wrong (a problem then) without a default.
    Absent,
    Text(String),
    Bool(bool),
    Integer(u64),
    /// `None` is no limit.
    Bytes(Option<u64>),
    Budget(DiskBudget),
    /// `None` is no end.
    Time(Option<Duration>),
    Texts(Vec<(String, Origin)>),
    Names(Vec<(String, String, Origin)>),
    Tables(Vec<Values>),
}

#[derive(Debug, Clone)]
struct Entry {
    typed: Typed,
    origin: Origin,
    /// Written by somebody, rightly or wrongly.
    given: bool,
}

/// One table that has been read.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    path: String,
    origin: Origin,
    entries: BTreeMap<&'static str, Entry>,
}

/// Reads one table of the given section.
pub(crate) fn read(
    section: &'static str,
    path: &str,
    table: Option<&Table>,
    origin: &Origin,
    problems: &mut Problems,
) -> Values {
    let empty = Table::new();
    let table = table.unwrap_or(&empty);
    for (name, (at, _)) in table {
        if !keys::of(section).any(|k| k.name == name) {
            let known = keys::of(section).filter(|k| k.kind != Kind::Later).map(|k| k.name);
            let help = did_you_mean(name, known);
            problems.add(at, &join(path, name), "unknown key".into(), Some(help));
        }
    }
    let mut entries = BTreeMap::new();
    for key in keys::of(section) {
        let entry = match table.get(key.name) {
            Some((name_at, node)) => read_key(key, path, name_at, node, problems),
            None => left_out(key, path, origin, problems),
        };
        entries.insert(key.name, entry);
    }
    Values { path: path.to_owned(), origin: origin.clone(), entries }
}

fn left_out(key: &Key, path: &str, table_at: &Origin, problems: &mut Problems) -> Entry {
    let typed = match key.default {
        Presence::Default(text) => default_of(key, text),
        Presence::Optional(_) => Typed::Absent,
        Presence::Required(example) => {
            let help = format!("{} For example `{}`", key.doc, written(key, example));
            let message = format!("is missing from this [[{}]]", key.section);
            problems.add(table_at, &join(path, key.name), message, Some(help));
            Typed::Absent
        }
    };
    // Given, as far as echoes are concerned: that a required key is missing has been said.
    Entry { typed, origin: table_at.clone(), given: matches!(key.default, Presence::Required(_)) }
}

fn default_of(key: &Key, text: &str) -> Typed {
    let node = Node { value: Value::Raw(text.to_owned()), origin: Origin::Default };
    // The table of keys is tested as a whole: no default is wrong.
    typed(key, key.name, &node, &mut Problems::new(None)).unwrap_or(Typed::Absent)
}

fn read_key(
    key: &Key,
    path: &str,
    name_at: &Origin,
    node: &Node,
    problems: &mut Problems,
) -> Entry {
    let path = join(path, key.name);
    if key.kind == Kind::Later {
        let message = format!("is not in this version ({})", key.doc.trim_end_matches('.'));
        problems.add(name_at, &path, message, Some("leave it out".into()));
        return Entry { typed: Typed::Absent, origin: node.origin.clone(), given: true };
    }
    let read = typed(key, &path, node, problems);
    let typed = read.unwrap_or_else(|()| match key.default {
        Presence::Default(text) => default_of(key, text),
        Presence::Optional(_) | Presence::Required(_) => Typed::Absent,
    });
    Entry { typed, origin: node.origin.clone(), given: true }
}

/// The value of a node as its key's kind; what is wrong has been added to the problems.
fn typed(key: &Key, path: &str, node: &Node, problems: &mut Problems) -> Result<Typed, ()> {
    let node = &unwrap_raw(key.kind, node);
    let result = match (key.kind, &node.value) {
        (Kind::Text, Value::Text(text)) if text.is_empty() => Err("is empty".to_owned()),
        (Kind::Text, Value::Text(text)) => Ok(Typed::Text(text.clone())),
        (Kind::Bool, Value::Bool(b)) => Ok(Typed::Bool(*b)),
        (Kind::Integer(min, max), Value::Integer(n)) => match u64::try_from(*n) {
            Ok(n) if (min..=max).contains(&n) => Ok(Typed::Integer(n)),
            _ => Err(format!("{n} is out of bounds")),
        },
        (Kind::Bytes(min, max, word), value) => bytes(value, min, max, word).map(Typed::Bytes),
        (Kind::Budget, value) => budget(value).map(Typed::Budget),
        (Kind::Time(min, max, word), value) => time(value, min, max, word).map(Typed::Time),
        (Kind::Choice(words, later), Value::Text(text)) => choice(text, words, later),
        (Kind::Texts, Value::List(list)) => return texts(path, list, problems),
        (Kind::Names, Value::Table(table)) => return names(path, table, problems),
        (Kind::Tables, Value::List(_)) => {
            let section = nested_section(key);
            return Ok(Typed::Tables(tables(section, path, node, problems)));
        }
        (_, value) => Err(format!("is {}", value.kind())),
    };
    result.map_err(|why| {
        let help = match key.kind {
            Kind::Text => key.doc.to_owned(),
            kind => format!("it could be {}", kind.describe()),
        };
        problems.add(&node.origin, path, why, Some(help));
    })
}

/// A text from the environment or `--set` as what the key's kind would be in a file.
fn unwrap_raw(kind: Kind, node: &Node) -> Node {
    let Value::Raw(text) = &node.value else { return node.clone() };
    let origin = &node.origin;
    let quoted = text.len() >= 2 && (text.starts_with('"') || text.starts_with('\''));
    let as_toml = || parse_value(text, origin);
    let as_text = || Node { value: Value::Text(text.clone()), origin: origin.clone() };
    match kind {
        Kind::Texts if !text.starts_with('[') => {
            let items = text.split(',').map(str::trim).filter(|t| !t.is_empty());
            let items = items
                .map(|t| Node { value: Value::Text(t.to_owned()), origin: origin.clone() })
                .collect();
            Node { value: Value::List(items), origin: origin.clone() }
        }
        Kind::Bool | Kind::Integer(..) | Kind::Texts | Kind::Names | Kind::Tables => {
            as_toml().unwrap_or_else(as_text)
        }
        _ if quoted => as_toml().unwrap_or_else(as_text),
        _ => as_text(),
    }
}

fn bytes(value: &Value, min: u64, max: u64, word: Option<&str>) -> Result<Option<u64>, String> {
    let bytes = match value {
        Value::Text(text) if Some(text.as_str()) == word => return Ok(None),
        Value::Text(text) => parse_bytes(text)?,
        Value::Integer(n) => u64::try_from(*n).map_err(|_| format!("{n} is out of bounds"))?,
        other => return Err(format!("is {}", other.kind())),
    };
    if (min..=max).contains(&bytes) {
        Ok(Some(bytes))
    } else {
        Err(format!("{} is out of bounds", crate::units::show_bytes(bytes)))
    }
}

fn budget(value: &Value) -> Result<DiskBudget, String> {
    if let Value::Text(text) = value
        && let Some(percent) = parse_percent(text)
    {
        return percent.map(DiskBudget::Percent);
    }
    // Below this, not even the journal and one segment fit.
    let bytes = bytes(value, 64 << 20, u64::MAX, None)?;
    Ok(DiskBudget::Bytes(bytes.unwrap_or(u64::MAX)))
}

fn time(value: &Value, min: u64, max: u64, word: Option<&str>) -> Result<Option<Duration>, String> {
    let time = match value {
        Value::Text(text) if Some(text.as_str()) == word => return Ok(None),
        Value::Text(text) => parse_duration(text)?,
        Value::Integer(n) => return Err(format!("{n} lacks a unit of time, as in \"{n}s\"")),
        other => return Err(format!("is {}", other.kind())),
    };
    if (Duration::from_millis(min)..=Duration::from_millis(max)).contains(&time) {
        Ok(Some(time))
    } else {
        Err(format!("{} is out of bounds", crate::units::show_duration(time)))
    }
}

fn choice(text: &str, words: &[&str], later: &[&str]) -> Result<Typed, String> {
    if words.contains(&text) {
        return Ok(Typed::Text(text.to_owned()));
    }
    Err(match text {
        "replicated" if later.contains(&text) => {
            "\"replicated\" needs replicas, which are not in this version".into()
        }
        _ if later.contains(&text) => format!("{text:?} is not in this version"),
        _ => format!("{text:?} is none of its values"),
    })
}

fn texts(path: &str, list: &[Node], problems: &mut Problems) -> Result<Typed, ()> {
    let mut all = Ok(Vec::new());
    for (i, node) in list.iter().enumerate() {
        match &node.value {
            Value::Text(text) => {
                if let Ok(found) = &mut all {
                    found.push((text.clone(), node.origin.clone()));
                }
            }
            other => {
                let message = format!("is {}", other.kind());
                problems.add(
                    &node.origin,
                    &format!("{path}[{i}]"),
                    message,
                    Some("it could be text".into()),
                );
                all = Err(());
            }
        }
    }
    all.map(Typed::Texts)
}

fn names(path: &str, table: &Table, problems: &mut Problems) -> Result<Typed, ()> {
    let mut all = Ok(Vec::new());
    for (name, (_, node)) in table {
        match &node.value {
            Value::Text(text) | Value::Raw(text) => {
                if let Ok(found) = &mut all {
                    found.push((name.clone(), text.clone(), node.origin.clone()));
                }
            }
            other => {
                let message = format!("is {}", other.kind());
                problems.add(
                    &node.origin,
                    &join(path, name),
                    message,
                    Some("it could be text".into()),
                );
                all = Err(());
            }
        }
    }
    all.map(Typed::Names)
}

/// The section that describes the tables of a key of kind [`Kind::Tables`].
fn nested_section(key: &Key) -> &'static str {
    // One such key exists; the table's own test sees to it that there is no other.
    debug_assert_eq!((key.section, key.name), ("uplink", "topics"));
    "uplink.topics"
}

/// Reads a list of tables. A problem is added where it is none; the tables that are right are read.
pub(crate) fn tables(
    section: &'static str,
    path: &str,
    node: &Node,
    problems: &mut Problems,
) -> Vec<Values> {
    let node = unwrap_raw(Kind::Tables, node);
    let Value::List(items) = &node.value else {
        let help = format!("write [[{section}]], once for each");
        problems.add(&node.origin, path, format!("is {}", node.value.kind()), Some(help));
        return Vec::new();
    };
    let mut all = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        match &item.value {
            Value::Table(table) => {
                all.push(read(section, &path, Some(table), &item.origin, problems));
            }
            other => {
                let message = format!("is {}", other.kind());
                problems.add(&item.origin, &path, message, Some("it could be a table".into()));
            }
        }
    }
    all
}

/// `section.key = value` as it would be written.
pub(crate) fn written(key: &Key, value: &str) -> String {
    let quoted = match key.kind {
        Kind::Text | Kind::Bytes(..) | Kind::Budget | Kind::Time(..) | Kind::Choice(..) => true,
        Kind::Bool | Kind::Integer(..) | Kind::Texts | Kind::Names | Kind::Tables | Kind::Later => {
            false
        }
    };
    if quoted { format!("{} = \"{value}\"", key.name) } else { format!("{} = {value}", key.name) }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The nearest of the known words, or all of them.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known.clone().map(|k| (distance(word, k), k)).min();
    match nearest {
        // Two edits are one transposition.
        Some((d, k)) if d <= 2.max(1 + word.chars().count() / 4) => format!("did you mean `{k}`?"),
        _ => {
            let all: Vec<&str> = known.collect();
            format!("it could be {}", all.join(", "))
        }
    }
}

/// Edits between two words (Levenshtein); `word` is cut at 64 characters, nothing known is longer.
fn distance(word: &str, known: &str) -> usize {
    let word: Vec<char> = word.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (i, k) in known.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, w) in word.iter().enumerate() {
            let change = diagonal + usize::from(*w != k);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[word.len()]
}

impl Values {
    /// The path of a key of this table.
    pub(crate) fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Where the table begins.
    pub(crate) fn table_origin(&self) -> &Origin {
        &self.origin
    }

    fn entry(&self, name: &str) -> &Entry {
        // Names come from this crate's own code; the table of keys holds each (every load of the defaults reads all).
        &self.entries[name]
    }

    /// Where a value came from (of one that was left out: the table).
    pub(crate) fn origin(&self, name: &str) -> &Origin {
        &self.entry(name).origin
    }

    /// Whether somebody wrote it, rightly or wrongly.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.entry(name).given
    }

    /// A text or a choice.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match &self.entry(name).typed {
            Typed::Text(text) => Some(text),
            _ => None,
        }
    }

    /// True or false; false when absent.
    pub(crate) fn bool(&self, name: &str) -> bool {
        matches!(self.entry(name).typed, Typed::Bool(true))
    }

    /// An integer.
    pub(crate) fn integer(&self, name: &str) -> Option<u64> {
        match self.entry(name).typed {
            Typed::Integer(n) => Some(n),
            _ => None,
        }
    }

    /// A size: `None` absent, `Some(None)` without limit.
    pub(crate) fn bytes(&self, name: &str) -> Option<Option<u64>> {
        match self.entry(name).typed {
            Typed::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A size or share.
    pub(crate) fn budget(&self, name: &str) -> Option<DiskBudget> {
        match self.entry(name).typed {
            Typed::Budget(budget) => Some(budget),
            _ => None,
        }
    }

    /// A time: `None` absent, `Some(None)` without end.
    pub(crate) fn time(&self, name: &str) -> Option<Option<Duration>> {
        match self.entry(name).typed {
            Typed::Time(time) => Some(time),
            _ => None,
        }
    }

    /// A list of texts with their places.
    pub(crate) fn texts(&self, name: &str) -> Option<&[(String, Origin)]> {
        match &self.entry(name).typed {
            Typed::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// A table of texts with their places.
    pub(crate) fn names(&self, name: &str) -> &[(String, String, Origin)] {
        match &self.entry(name).typed {
            Typed::Names(names) => names,
            _ => &[],
        }
    }

    /// A list of tables.
    pub(crate) fn tables(&self, name: &str) -> Option<&[Values]> {
        match &self.entry(name).typed {
            Typed::Tables(tables) => Some(tables),
            _ => None,
        }
    }
}
