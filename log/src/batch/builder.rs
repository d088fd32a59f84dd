//! The open batch of a partition: records are encoded in place as they come, the header when it is sealed.
//!
//! Step 7 and 8 of a PUBLISH; from a partition's append, to the commit cycle. Invariant: the size is
//! known to the byte before a record is taken, so a limit is checked first and nothing is undone.
//! Neighbours: [`super::records`] reads what is written here.

use super::{HEADER_BYTES, PRODUCER_ID_MADE_HERE, put_crc, varint};
use crate::record::RecordParts;
use crate::{LeaderEpoch, Offset};
use bytes::Bytes;

/// Room for a record's length, attributes, both deltas and the key's length.
const PREFIX_BYTES_MAX: usize = 3 * varint::VARINT_BYTES_MAX + 1 + varint::VARLONG_BYTES_MAX;

/// Memory that a new open batch starts with at most, whatever its predecessor grew to. As large as an open batch gets: growing from
/// 64 KiB cost as much as the records themselves, in pages that were given back and faulted in again (0.40 to 0.55 ms for 1 MiB of
/// 1 KB records, and 0.23 without; measured). What is not written to is not resident.
const CAPACITY_HINT_BYTES_MAX: usize = 512 * 1024;

/// A batch that takes records. Attributes are 0: uncompressed, CreateTime.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    /// A gap of [`HEADER_BYTES`] once there is a record, then the records.
    buffer: Vec<u8>,
    records: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    capacity_hint: usize,
}

/// What the header of a sealed batch says beside what its records say. The default is for a batch that gets its place later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seal {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Epoch in which the offsets were assigned.
    pub epoch: LeaderEpoch,
    /// Slot of the node that took the messages in (0 alone); stored as the producer epoch.
    pub node_slot: i16,
    /// That node's sequence of the first record in this partition; stored as the base sequence.
    pub base_sequence: i32,
}

impl BatchBuilder {
    /// An empty batch; takes memory with its first record.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            records: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            capacity_hint: 0,
        }
    }

    /// Whether no record was added since the last seal.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Records added since the last seal.
    #[must_use]
    pub const fn record_count(&self) -> u32 {
        self.records
    }

    /// Bytes the batch would have, sealed now. Zero while it is empty.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Largest timestamp of the records added; meaningless while the batch is empty.
    #[must_use]
    pub const fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp
    }

    /// Bytes the batch would have, sealed after this record.
    #[must_use]
    pub fn size_bytes_with(&self, record: &RecordParts<'_>) -> usize {
        let body = self.body_bytes(record);
        self.buffer.len().max(HEADER_BYTES) + varint::size_bytes(body as i64) + body
    }

    /// Adds a record and returns its offset delta; `None`, and nothing changed, when the batch would
    /// have more than `size_bytes_max` bytes.
    pub fn push(&mut self, record: &RecordParts<'_>, size_bytes_max: usize) -> Option<u32> {
        let body = self.body_bytes(record);
        let size = self.buffer.len().max(HEADER_BYTES) + varint::size_bytes(body as i64) + body;
        // All lengths on the wire are i32.
        if size > size_bytes_max.min(i32::MAX as usize) {
            return None;
        }
        if self.records == 0 {
            self.buffer.reserve(size.max(self.capacity_hint));
            self.buffer.resize(HEADER_BYTES, 0);
            self.base_timestamp = record.timestamp_ms;
            self.max_timestamp = record.timestamp_ms;
        } else {
            self.grow_to(size);
            self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
        }
        self.encode(record, body);
        debug_assert_eq!(self.buffer.len(), size, "the size announced is the size written");
        let delta = self.records;
        self.records += 1;
        Some(delta)
    }

    /// Fills in header and CRC, hands the batch out and starts an empty one. `None` when there is no record.
    pub fn seal(&mut self, seal: Seal) -> Option<Bytes> {
        if self.records == 0 {
            return None;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        // The next batch of a partition is likely to be about as large as this one.
        self.capacity_hint = buffer.len().min(CAPACITY_HINT_BYTES_MAX);
        let length = i32::try_from(buffer.len() - 12).unwrap_or(i32::MAX);
        let count = i32::try_from(self.records).unwrap_or(i32::MAX);
        put(&mut buffer, 0, &seal.base_offset.get().to_be_bytes());
        put(&mut buffer, 8, &length.to_be_bytes());
        put(&mut buffer, 12, &seal.epoch.get().to_be_bytes());
        put(&mut buffer, 16, &[2]);
        put(&mut buffer, 21, &0i16.to_be_bytes());
        put(&mut buffer, 23, &(count - 1).to_be_bytes());
        put(&mut buffer, 27, &self.base_timestamp.to_be_bytes());
        put(&mut buffer, 35, &self.max_timestamp.to_be_bytes());
        put(&mut buffer, 43, &PRODUCER_ID_MADE_HERE.to_be_bytes());
        put(&mut buffer, 51, &seal.node_slot.to_be_bytes());
        put(&mut buffer, 53, &seal.base_sequence.to_be_bytes());
        put(&mut buffer, 57, &count.to_be_bytes());
        put_crc(&mut buffer);
        self.records = 0;
        // A batch stays in memory as long as readers are at the tail: give back what it does not use.
        if buffer.capacity() - buffer.len() > buffer.len() / 4 {
            buffer.shrink_to_fit();
        }
        Some(Bytes::from(buffer))
    }

    /// Makes room for so many bytes. By a quarter: what doubling leaves unused is more than a sealed batch may keep.
    fn grow_to(&mut self, size_bytes: usize) {
        let capacity = self.buffer.capacity();
        if size_bytes > capacity {
            let wanted = size_bytes.max(capacity + capacity / 4);
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
    }

    /// Bytes of the record after its length field.
    fn body_bytes(&self, record: &RecordParts<'_>) -> usize {
        let part = |part: Option<&[u8]>| match part {
            Some(part) => varint::size_bytes(part.len() as i64) + part.len(),
            None => 1,
        };
        1 + varint::size_bytes(self.timestamp_delta(record))
            + varint::size_bytes(i64::from(self.records))
            + part(record.key)
            + part(record.value)
            + varint::size_bytes(i64::from(record.headers.count()))
            + record.headers.encoded().len()
    }

    fn timestamp_delta(&self, record: &RecordParts<'_>) -> i64 {
        if self.records == 0 { 0 } else { record.timestamp_ms.wrapping_sub(self.base_timestamp) }
    }

    fn encode(&mut self, record: &RecordParts<'_>, body: usize) {
        let mut prefix = [0; PREFIX_BYTES_MAX];
        let mut at = varint::put(&mut prefix, 0, body as i64);
        at += 1; // attributes: none are defined for records
        at = varint::put(&mut prefix, at, self.timestamp_delta(record));
        at = varint::put(&mut prefix, at, i64::from(self.records));
        at = varint::put(&mut prefix, at, record.key.map_or(-1, |key| key.len() as i64));
        self.buffer.extend_from_slice(&prefix[..at]);
        self.buffer.extend_from_slice(record.key.unwrap_or_default());
        let mut length = [0; varint::VARINT_BYTES_MAX];
        let at = varint::put(&mut length, 0, record.value.map_or(-1, |value| value.len() as i64));
        self.buffer.extend_from_slice(&length[..at]);
        self.buffer.extend_from_slice(record.value.unwrap_or_default());
        let at = varint::put(&mut length, 0, i64::from(record.headers.count()));
        self.buffer.extend_from_slice(&length[..at]);
        self.buffer.extend_from_slice(record.headers.encoded());
    }
}

fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    buffer[at..at + bytes.len()].copy_from_slice(bytes);
}
