//! The layers as one tree: the file, over it the environment, over it `--set`. Every node knows where it came from.
//!
//! Invariant: layering never loses a place, so that an error in a value names the line, the variable or the argument that
//! brought it. (The `config` crate reads the environment; its own merging of layers would forget the
//! places, and serde stops at its first error.)
//! Neighbours: [`crate::values`] reads the tree by the table of keys.

use crate::keys::{LISTENERS_DEFAULT, SECTIONS};
use crate::report::{Origin, Problems};
use config::Source;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Nesting of a value; the deepest that has a meaning is 4.
const DEPTH_MAX: usize = 8;

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// A value as written.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<Node>),
    Table(Table),
    /// From the environment or `--set`: its kind is the key's.
    Raw(String),
    /// What no key takes: a float, a date.
    Other(&'static str),
}

/// A table: names with their own places, and what they stand for.
pub(crate) type Table = BTreeMap<String, (Origin, Node)>;

impl Value {
    /// What it is, for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Raw(_) => "text",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// Reads a file. Syntax errors become problems; what could be read is returned anyway.
pub(crate) fn parse_file(text: &str, problems: &mut Problems) -> Table {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        problems.add(&Origin::File(span), "", error.message().to_owned(), None);
    }
    // A recovered tree holds guesses: judging those would add errors that are none.
    if !errors.is_empty() {
        return Table::new();
    }
    from_table(table.get_ref(), 0, &|span| Origin::File(span))
}

/// Reads a TOML value given as text, every part of which has the same origin.
pub(crate) fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let parsed = DeValue::parse(text).ok()?;
    Some(from_value(&parsed, 0, &|_| origin.clone()))
}

fn from_table(table: &DeTable<'_>, depth: usize, at: &dyn Fn(Range<usize>) -> Origin) -> Table {
    table
        .iter()
        .map(|(name, value)| {
            let node = from_value(value, depth + 1, at);
            (name.get_ref().to_string(), (at(name.span()), node))
        })
        .collect()
}

fn from_value(
    value: &Spanned<DeValue<'_>>,
    depth: usize,
    at: &dyn Fn(Range<usize>) -> Origin,
) -> Node {
    let origin = at(value.span());
    let value = match value.get_ref() {
        _ if depth > DEPTH_MAX => Value::Other("a value nested too deeply"),
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix())
            .map_or(Value::Other("an integer out of range"), Value::Integer),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(list) => {
            Value::List(list.iter().map(|v| from_value(v, depth + 1, at)).collect())
        }
        DeValue::Table(table) => Value::Table(from_table(table, depth, at)),
    };
    Node { value, origin }
}

/// Puts the environment's variables `HEADWATER_SECTION__KEY` into the tree.
pub(crate) fn overlay_environment(
    root: &mut Table,
    variables: &[(String, String)],
    problems: &mut Problems,
) {
    let variables = variables.iter().cloned().collect();
    let environment =
        config::Environment::with_prefix("HEADWATER").prefix_separator("_").separator("__");
    let found = match environment.source(Some(variables)).collect() {
        Ok(found) => found,
        Err(error) => {
            return problems.add(&Origin::Default, "the environment", error.to_string(), None);
        }
    };
    for (path, value) in found.into_iter().collect::<BTreeMap<_, _>>() {
        let name = format!("HEADWATER_{}", path.to_ascii_uppercase().replace('.', "__"));
        let value = value.to_string();
        let origin = Origin::Variable { name, value: value.clone() };
        if !path.contains('.') {
            // Other programs may use the prefix; a section's name behind it is a slip.
            let slip = SECTIONS.iter().find(|s| {
                path == s.name || path.strip_prefix(s.name).is_some_and(|r| r.starts_with('_'))
            });
            if let Some(section) = slip {
                let help = format!(
                    "two underscores stand between section and key: HEADWATER_{}__KEY",
                    section.name.to_ascii_uppercase()
                );
                problems.add(&origin, &path, "names no key".into(), Some(help));
            }
            continue;
        }
        let path: Vec<&str> = path.split('.').collect();
        put(root, &path, &value, &origin, problems);
    }
}

/// Puts `--set KEY=VALUE` arguments into the tree.
pub(crate) fn overlay_arguments(root: &mut Table, arguments: &[String], problems: &mut Problems) {
    for argument in arguments {
        let origin = Origin::Argument(argument.clone());
        let Some((path, value)) = argument.split_once('=') else {
            let help = Some("as in `--set storage.dir=/var/lib/headwater`".into());
            problems.add(&origin, argument, "is not KEY=VALUE".into(), help);
            continue;
        };
        let path: Vec<&str> = path.trim().split('.').collect();
        put(root, &path, value.trim(), &origin, problems);
    }
}

fn put(root: &mut Table, path: &[&str], value: &str, origin: &Origin, problems: &mut Problems) {
    let dotted = path.join(".");
    let Some((first, rest)) = path.split_first() else { return };
    if *first == "listener" && !rest.is_empty() && !root.contains_key("listener") {
        root.insert("listener".into(), (Origin::Default, default_listeners()));
    }
    if let Err(why) = put_into(root, first, rest, value, origin) {
        problems.add(origin, &dotted, why, None);
    }
}

fn put_into(
    table: &mut Table,
    name: &str,
    rest: &[&str],
    value: &str,
    origin: &Origin,
) -> Result<(), String> {
    let raw = || Node { value: Value::Raw(value.to_owned()), origin: origin.clone() };
    let Some((next, rest)) = rest.split_first() else {
        table.insert(name.to_owned(), (origin.clone(), raw()));
        return Ok(());
    };
    let is_index = next.bytes().all(|b| b.is_ascii_digit()) && !next.is_empty();
    let (_, node) = table.entry(name.to_owned()).or_insert_with(|| {
        let value = if is_index { Value::List(Vec::new()) } else { Value::Table(Table::new()) };
        (origin.clone(), Node { value, origin: origin.clone() })
    });
    match &mut node.value {
        Value::Table(inner) => put_into(inner, next, rest, value, origin),
        Value::List(items) if is_index => {
            let count = items.len();
            let index = next.parse::<usize>().ok().filter(|i| *i <= count);
            let index = index.ok_or_else(|| format!("there are only {count} of {name}"))?;
            let Some((key, rest)) = rest.split_first() else {
                return Err(format!(
                    "name a key of {name} number {index}, as in {name}.{index}.KEY"
                ));
            };
            if index == count {
                let value = Value::Table(Table::new());
                items.push(Node { value, origin: origin.clone() });
            }
            match &mut items[index].value {
                Value::Table(inner) => put_into(inner, key, rest, value, origin),
                _ => Err(format!("{name} number {index} is not a table")),
            }
        }
        Value::List(_) => Err(format!("`{name}` is a list: name one of it by its number, from 0")),
        _ => Err(format!("`{name}` has no keys")),
    }
}

/// The listeners of a file that names none.
pub(crate) fn default_listeners() -> Node {
    let listeners = LISTENERS_DEFAULT.iter().map(|(protocol, bind)| {
        let text = |t: &str| {
            let node = Node { value: Value::Text(t.to_owned()), origin: Origin::Default };
            (Origin::Default, node)
        };
        let table = [("protocol", protocol), ("bind", bind)];
        let table = table.into_iter().map(|(name, value)| (name.to_owned(), text(value)));
        Node { value: Value::Table(table.collect()), origin: Origin::Default }
    });
    Node { value: Value::List(listeners.collect()), origin: Origin::Default }
}
