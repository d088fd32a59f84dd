//! What an inspection has to say of one place: file, byte, what, which offsets, and what to do about it.

use std::fmt;
use std::path::PathBuf;

/// Whether somebody has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// What a crash, a full disk or a move leaves behind, and the next start tidies up by itself. Nothing acknowledged is missing.
    Notice,
    /// Something is not as it was written. Records may be missing.
    Damage,
}

/// Offsets of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// First offset that cannot be read.
    pub first: i64,
    /// The next one that can (exclusive end); `None` when nothing behind it can.
    pub end: Option<i64>,
}

/// One place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether somebody has to act.
    pub severity: Severity,
    /// File or folder.
    pub file: PathBuf,
    /// Byte in it, where that is known.
    pub byte: Option<u64>,
    /// What is there.
    pub what: String,
    /// Records that cannot be read because of it.
    pub lost: Option<Lost>,
    /// What to do.
    pub advice: &'static str,
}

impl Finding {
    pub(crate) fn damage(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Damage,
            file: file.into(),
            byte: None,
            what: what.into(),
            lost: None,
            advice: "`headwater log repair` moves what is damaged aside and serves the rest",
        }
    }

    pub(crate) fn notice(
        file: impl Into<PathBuf>,
        what: impl Into<String>,
        advice: &'static str,
    ) -> Self {
        let severity = Severity::Notice;
        Self { severity, byte: None, lost: None, file: file.into(), what: what.into(), advice }
    }

    pub(crate) fn at(mut self, byte: u64) -> Self {
        self.byte = Some(byte);
        self
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, first, end } = self;
        match end {
            Some(end) if *end == first + 1 => write!(f, "offset {first} of {topic}-{partition}"),
            Some(end) => write!(f, "offsets {first} to {} of {topic}-{partition}", end - 1),
            None => write!(f, "offsets from {first} on of {topic}-{partition}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(byte) = self.byte {
            write!(f, " at byte {byte}")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(lost) = &self.lost {
            write!(f, "; {lost} cannot be read")?;
        }
        Ok(())
    }
}
