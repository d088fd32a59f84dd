//! The log's pointers as types: offsets, epochs, partition numbers, topic names and ids.
//!
//! Kafka's words and widths (all signed on the wire). Constructors check; fields stay private.
//!
//! Invariant: a value that exists is one that Kafka would accept. Neighbours: everything.

use std::fmt;
use std::sync::Arc;

/// The place of one record in a partition. Never negative. An *end* offset is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// `None` for a negative number.
    #[must_use]
    pub const fn new(value: i64) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value)) }
    }

    /// The raw number, as on the wire and on disk.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset `records` further on, saturating at the largest one.
    #[must_use]
    pub const fn plus(self, records: u32) -> Self {
        Self(self.0.saturating_add(records as i64))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the leaderships of a partition; a new one begins at every start of the node, and at
/// every truncation of an unsynced tail, so that (epoch, offset) never names two records. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(i32);

impl LeaderEpoch {
    /// `None` for a negative number.
    #[must_use]
    pub const fn new(value: i32) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value)) }
    }

    /// The raw number, as on the wire and on disk.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The epoch after this one, saturating.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position that outlives a restart: (epoch, offset) (ARCHITECTURE.md, invariant 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The leader epoch in which the record was appended.
    pub epoch: LeaderEpoch,
    /// The record's offset.
    pub offset: Offset,
}

/// The number of a partition within its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionId(i32);

impl PartitionId {
    /// `None` for a negative number.
    #[must_use]
    pub const fn new(value: i32) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value)) }
    }

    /// The raw number, as on the wire and on disk.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A legal Kafka topic name: `[A-Za-z0-9._-]{1,249}`, not `.` and not `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Kafka's limit on a topic name's length, in bytes.
    pub const BYTES_MAX: usize = 249;

    /// `None` where Kafka would refuse the name.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let ok = !name.is_empty()
            && name.len() <= Self::BYTES_MAX
            && name != "."
            && name != ".."
            && name.bytes().all(legal);
        ok.then(|| Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is one of Headwater's own topics (`__headwater_*`), which no client sees.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.0.starts_with("__headwater_")
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic's identity, stable over its life and never reused (a random version 4 UUID).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// From its sixteen bytes, as on the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its sixteen bytes, as on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}
