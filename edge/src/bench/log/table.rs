//! Tables as they fill, for people; one JSON object at the end, for programs.
//!
//! Invariant: both outputs have the same figures. Neighbours: every measurement fills one [`Report`].

use super::super::Output;
use serde_json::{Map, Value, json};
use std::path::Path;

/// One figure.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    /// A word.
    Text(String),
    /// A whole number.
    Count(u64),
    /// A number and how many decimals of it mean something.
    Number(f64, usize),
    /// Not measured here.
    Missing,
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(n) => n.to_string(),
            Self::Number(n, decimals) => format!("{n:.decimals$}"),
            Self::Missing => "-".to_owned(),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Count(n) => json!(n),
            Self::Number(n, _) => json!(n),
            Self::Missing => Value::Null,
        }
    }
}

/// A column: its name for programs, and for people (as wide as it is to be).
pub(super) type Column = (&'static str, &'static str);

/// What an aim asks of a figure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

/// All tables and aims of a run.
#[derive(Debug)]
pub(super) struct Report {
    output: Output,
    columns: &'static [Column],
    name: &'static str,
    tables: Map<String, Value>,
    aims: Vec<Value>,
    lines: Vec<String>,
}

impl Report {
    pub(super) fn new(output: Output, root: &Path) -> Self {
        let mut tables = Map::new();
        tables.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
        tables.insert("folder".to_owned(), json!(root.display().to_string()));
        if output == Output::Text {
            println!("files in {}", root.display());
        }
        Self { output, columns: &[], name: "", tables, aims: Vec::new(), lines: Vec::new() }
    }

    /// Begins a table.
    pub(super) fn table(&mut self, name: &'static str, about: &str, columns: &'static [Column]) {
        self.name = name;
        self.columns = columns;
        self.tables.insert(name.to_owned(), json!([]));
        if self.output == Output::Text {
            println!("\n{about}");
            let heads: Vec<&str> = columns.iter().map(|(_, head)| *head).collect();
            println!("{}", heads.join("  "));
        }
    }

    /// Adds a line to the table; the cells are in the order of the columns.
    pub(super) fn row(&mut self, cells: &[Cell]) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        if self.output == Output::Text {
            let texts: Vec<String> = cells
                .iter()
                .zip(self.columns)
                .map(|(cell, (_, head))| {
                    format!("{:>width$}", cell.text(), width = head.chars().count())
                })
                .collect();
            println!("{}", texts.join("  "));
        }
        let row: Map<String, Value> = cells
            .iter()
            .zip(self.columns)
            .map(|(cell, (key, _))| ((*key).to_owned(), cell.value()))
            .collect();
        if let Some(Value::Array(rows)) = self.tables.get_mut(self.name) {
            rows.push(Value::Object(row));
        }
    }

    /// Holds a figure against what the log aims at.
    pub(super) fn aim(&mut self, what: &str, found: f64, aim: Aim) {
        let (met, word, bound) = match aim {
            Aim::AtMost(bound) => (found <= bound, "at most", bound),
            Aim::AtLeast(bound) => (found >= bound, "at least", bound),
        };
        let verdict = if met { "met" } else { "MISSED" };
        self.lines.push(format!("{verdict:>6}  {what}: {found:.2}, aim {word} {bound}"));
        self.aims.push(json!({
            "what": what, "found": found, "aim": format!("{word} {bound}"), "met": met,
        }));
    }

    /// Prints what is still to be printed.
    pub(super) fn finish(mut self) {
        match self.output {
            Output::Text if self.lines.is_empty() => {}
            Output::Text => println!("\naims\n{}", self.lines.join("\n")),
            Output::Json => {
                self.tables.insert("aims".to_owned(), Value::Array(self.aims));
                println!("{}", Value::Object(self.tables));
            }
        }
    }
}
