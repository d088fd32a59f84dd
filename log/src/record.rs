//! One record: what a caller hands in ([`RecordParts`]) and what a reader gets out ([`Record`]).
//!
//! Invariant: [`Headers`] always holds exactly `count` whole headers. Neighbours: [`crate::batch`]
//! encodes and decodes records; bridge and the Kafka door fill in the parts.

use crate::batch::varint;
use bytes::Bytes;

/// A record to append. Borrowed, so that an append copies each byte once, into the open batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordParts<'a> {
    /// Milliseconds since the Unix epoch (CreateTime).
    pub timestamp_ms: i64,
    /// `None` is a record without a key.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, already in wire form.
    pub headers: &'a Headers,
}

/// Record headers in wire form (without their count), written once and appended many times.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Headers {
    count: u32,
    encoded: Vec<u8>,
}

impl Headers {
    /// No headers.
    pub const EMPTY: &'static Self = &Self { count: 0, encoded: Vec::new() };

    /// Adds one header at the end.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let mut length = [0; varint::VARLONG_BYTES_MAX];
        let at = varint::put(&mut length, 0, name.len() as i64);
        self.encoded.extend_from_slice(&length[..at]);
        self.encoded.extend_from_slice(name.as_bytes());
        let at = varint::put(&mut length, 0, value.len() as i64);
        self.encoded.extend_from_slice(&length[..at]);
        self.encoded.extend_from_slice(value);
        self.count += 1;
    }

    /// Removes all, keeping the memory.
    pub fn clear(&mut self) {
        self.count = 0;
        self.encoded.clear();
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Their bytes: per header varint name length, name, varint value length, value.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

/// A record read back. Its parts share the batch's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// `None` is a record without a key.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order, duplicates kept. A header's value may be null on the wire.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}
