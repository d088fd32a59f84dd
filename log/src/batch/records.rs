//! The records inside a batch, read one after another without copying.
//!
//! ```text
//! record: length varint · attributes i8 · timestamp delta varlong · offset delta varint
//!         · key length varint (-1 null) · key · value length varint (-1 null) · value
//!         · header count varint · headers
//! header: name length varint · name · value length varint (-1 null) · value
//! ```
//! Compressed records are undone first, as a whole, [`PLAIN_BYTES_MAX`] bytes at most; only those who need a batch's records come
//! here (compaction, which moves records on as they are, has a walk of its own). Invariant: every length is checked against the
//! bytes that are there before anything is sliced or reserved. Neighbours: the header's checks are in [`super`], the encoder in
//! [`super::builder`].

use super::compression::{Codec, decompress};
use super::{BatchError, BatchHeader, HEADER_BYTES, PLAIN_BYTES_MAX, RECORD_BYTES_MIN, varint};
use crate::record::Record;
use bytes::Bytes;

/// Iterator over a batch's records; slices share the memory of the batch, or of what it was decompressed into. Ends after
/// its first error.
#[derive(Debug)]
pub struct Records {
    plain: Bytes,
    header: BatchHeader,
    at: usize,
    read: u32,
    delta_min: i64,
    ended: bool,
}

/// The records of one batch. Bytes after the batch are not looked at.
///
/// # Errors
/// [`BatchError::Stream`] and [`BatchError::PlainTooLarge`] for compressed records, or what [`BatchHeader::parse`] says.
pub fn records(batch: &Bytes) -> Result<Records, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let stored = batch.slice(HEADER_BYTES..header.size_bytes());
    let plain = match header.codec() {
        Codec::None => stored,
        codec => Bytes::from(decompress(codec, &stored, PLAIN_BYTES_MAX)?),
    };
    // Known for uncompressed records from the header's own check.
    if header.record_count as usize > plain.len() / RECORD_BYTES_MIN {
        return Err(BatchError::Field("recordCount"));
    }
    Ok(Records { plain, header, at: 0, read: 0, delta_min: 0, ended: false })
}

/// A record where it lies: for who looks at many and keeps few.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// `None` is a record without a key.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    header_count: usize,
    headers: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Its headers in order: name, and value where there is one.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut cursor = Cursor { bytes: self.headers, at: 0 };
        // They were walked once when the record was parsed: the count holds.
        (0..self.header_count).map_while(move |_| Some((cursor.nullable()??, cursor.nullable()?)))
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.headers().find(|(found, _)| *found == name).and_then(|(_, value)| value)
    }
}

impl Records {
    /// Bytes of all of them, uncompressed.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        self.plain.len()
    }

    /// The header of their batch.
    #[must_use]
    pub fn batch(&self) -> &BatchHeader {
        &self.header
    }

    /// As [`Iterator::next`], without taking a share of the batch's memory for each part.
    pub fn next_view(&mut self) -> Option<Result<RecordView<'_>, BatchError>> {
        if self.ended {
            return None;
        }
        let index = self.read;
        if i64::from(index) == i64::from(self.header.record_count) {
            self.ended = true;
            return (self.at != self.plain.len()).then_some(Err(BatchError::Record(index)));
        }
        let Some((view, end)) = parse(&self.plain, self.at, &self.header, self.delta_min) else {
            self.ended = true;
            return Some(Err(BatchError::Record(index)));
        };
        self.at = end;
        self.read += 1;
        self.delta_min = view.offset - self.header.base_offset + 1;
        Some(Ok(view))
    }

    fn step(&mut self) -> Option<Result<Record, BatchError>> {
        let index = self.read;
        if i64::from(index) == i64::from(self.header.record_count) {
            // Kafka: "Incorrect declared batch size, records still remaining in file".
            return (self.at != self.plain.len()).then_some(Err(BatchError::Record(index)));
        }
        let Some((record, end)) = self.parse() else {
            return Some(Err(BatchError::Record(index)));
        };
        self.at = end;
        self.read += 1;
        self.delta_min = record.offset - self.header.base_offset + 1;
        Some(Ok(record))
    }

    fn parse(&self) -> Option<(Record, usize)> {
        let (view, end) = parse(&self.plain, self.at, &self.header, self.delta_min)?;
        let share = |part: &[u8]| self.plain.slice_ref(part);
        let mut headers = Vec::with_capacity(view.header_count);
        headers.extend(view.headers().map(|(name, value)| (share(name), value.map(share))));
        let RecordView { offset, timestamp_ms, key, value, .. } = view;
        let (key, value) = (key.map(share), value.map(share));
        Some((Record { offset, timestamp_ms, key, value, headers }, end))
    }
}

/// The record at byte `at`, and the byte behind it. Its offset is at least `delta_min` above its batch's.
fn parse<'a>(
    plain: &'a [u8],
    at: usize,
    header: &BatchHeader,
    delta_min: i64,
) -> Option<(RecordView<'a>, usize)> {
    let (length, used) = varint::read_i32(plain.get(at..)?)?;
    let start = at + used;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    let mut cursor = Cursor { bytes: plain.get(start..end)?, at: 0 };
    let _attributes = cursor.take(1)?;
    let timestamp_delta = cursor.varlong()?;
    let offset_delta = i64::from(cursor.varint()?);
    if offset_delta < delta_min || offset_delta > i64::from(header.last_offset_delta) {
        return None;
    }
    let key = cursor.nullable()?;
    let value = cursor.nullable()?;
    let header_count = usize::try_from(cursor.varint()?).ok()?;
    // A header takes two bytes at least: no more can be there, whatever the count says.
    if header_count > cursor.rest() / 2 {
        return None;
    }
    let headers = &cursor.bytes[cursor.at..];
    for _ in 0..header_count {
        cursor.nullable()??;
        cursor.nullable()?;
    }
    if cursor.rest() != 0 {
        return None;
    }
    let timestamp_ms = if header.is_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(timestamp_delta)
    };
    let offset = header.base_offset + offset_delta;
    Some((RecordView { offset, timestamp_ms, key, value, header_count, headers }, end))
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.step();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(bytes)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn varint(&mut self) -> Option<i32> {
        let (value, used) = varint::read_i32(&self.bytes[self.at..])?;
        self.at += used;
        Some(value)
    }

    fn varlong(&mut self) -> Option<i64> {
        let (value, used) = varint::read_i64(&self.bytes[self.at..])?;
        self.at += used;
        Some(value)
    }

    /// The outer `None` is malformed, the inner one null. Kafka writes null as -1 and reads any
    /// negative length as null; only -1 is taken here.
    fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            length => Some(Some(self.take(usize::try_from(length).ok()?)?)),
        }
    }
}
