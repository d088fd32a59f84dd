//! What is wrong with a configuration: every problem with its place, its key and what it could have been.
//!
//! Invariant: a report is never empty. Neighbours: [`crate::tree`], [`crate::values`] and [`crate::resolve`] add to it;
//! the command prints it and ends with exit code 2.

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Built in.
    Default,
    /// Bytes of the file.
    File(Range<usize>),
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// The text after `--set`.
    Argument(String),
}

/// One problem.
#[derive(Debug, Clone)]
pub struct Problem {
    key: String,
    message: String,
    help: Option<String>,
    origin: Origin,
    source: Option<Arc<NamedSource<String>>>,
    span: Range<usize>,
}

impl Problem {
    /// The key's path, such as `limits.connections_max` or `route[1].ack`; empty for a syntax error.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What it could have been.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// `FILE:LINE:COLUMN`, `environment variable NAME` or `--set`; lines and columns count from 1.
    #[must_use]
    pub fn place(&self) -> String {
        match (&self.origin, &self.source) {
            (Origin::Variable { name, .. }, _) => format!("environment variable {name}"),
            (Origin::Argument(_), _) => "--set".into(),
            (Origin::File(span), Some(source)) => {
                let before = source.inner().get(..span.start).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                format!("{}:{line}:{column}", source.name())
            }
            (Origin::File(_) | Origin::Default, _) => "built-in defaults".into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.key, self.message)
        }
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_deref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        // An empty span draws nothing: point at one character at least.
        let len = self.span.len().max(1);
        let label = LabeledSpan::new_primary_with_span(Some("here".into()), (self.span.start, len));
        Some(Box::new(std::iter::once(label)))
    }
}

/// All problems of a configuration; never empty.
#[derive(Debug)]
pub struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// The problems, those of the file first and in its order.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// As text for a terminal `width` columns wide, in colour or plain.
    #[must_use]
    pub fn render(&self, colour: bool, width: usize) -> String {
        let theme =
            if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width);
        let mut out = String::new();
        for problem in &self.problems {
            let text = miette::Report::new(problem.clone());
            if handler.render_report(&mut out, text.as_ref()).is_err() {
                // Only a formatter that refuses to write gets here, and a String does not.
                out.push_str(&problem.to_string());
            }
            out.push('\n');
        }
        let n = self.problems.len();
        out.push_str(&format!("{n} error{} in the configuration\n", if n == 1 { "" } else { "s" }));
        out
    }
}

impl fmt::Display for Report {
    /// One line per problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: {problem}", problem.place())?;
            if let Some(help) = &problem.help {
                write!(f, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// Problems while they are being found.
#[derive(Debug)]
pub(crate) struct Problems {
    file: Option<Arc<NamedSource<String>>>,
    found: Vec<Problem>,
}

impl Problems {
    /// None yet. The file is shown around the places in it.
    pub(crate) fn new(file: Option<(&str, &str)>) -> Self {
        let file = file.map(|(name, text)| Arc::new(NamedSource::new(name, text.to_owned())));
        Self { file, found: Vec::new() }
    }

    /// Adds one. `key` is its path, empty for a syntax error.
    pub(crate) fn add(&mut self, at: &Origin, key: &str, message: String, help: Option<String>) {
        let (source, span) = match at {
            Origin::Default => (None, 0..0),
            Origin::File(span) => (self.file.clone(), span.clone()),
            Origin::Variable { name, value } => {
                let text = format!("{name}={value}");
                let span = name.len() + 1..text.len();
                (Some(Arc::new(NamedSource::new("environment", text))), span)
            }
            Origin::Argument(argument) => {
                let text = format!("--set {argument}");
                let span = "--set ".len()..text.len();
                (Some(Arc::new(NamedSource::new("command line", text))), span)
            }
        };
        self.found.push(Problem {
            key: key.to_owned(),
            message,
            help,
            origin: at.clone(),
            source,
            span,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The report; call only when there is a problem.
    pub(crate) fn into_report(mut self) -> Report {
        debug_assert!(!self.found.is_empty());
        self.found.sort_by_key(|p| (!matches!(p.origin, Origin::File(_)), p.span.start));
        Report { problems: self.found }
    }
}
