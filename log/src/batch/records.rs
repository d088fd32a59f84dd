//! The records inside a batch, read one after another without copying.
//!
//! ```text
//! record: length varint · attributes i8 · timestamp delta varlong · offset delta varint
//!         · key length varint (-1 null) · key · value length varint (-1 null) · value
//!         · header count varint · headers
//! header: name length varint · name · value length varint (-1 null) · value
//! ```
//! Compressed records are undone first, as a whole, [`PLAIN_BYTES_MAX`] bytes at most: this is the only place where a stored
//! batch is decompressed, and only those who need its records come here. Invariant: every length is checked against the bytes
//! that are there before anything is sliced or reserved. Neighbours: the header's checks are in [`super`], the encoder in [`super::builder`].

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

impl Records {
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
        let (length, used) = varint::read_i32(self.plain.get(self.at..)?)?;
        let start = self.at + used;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        let mut cursor = Cursor { bytes: self.plain.get(start..end)?, at: 0 };
        let _attributes = cursor.take(1)?;
        let timestamp_delta = cursor.varlong()?;
        let offset_delta = i64::from(cursor.varint()?);
        if offset_delta < self.delta_min || offset_delta > i64::from(self.header.last_offset_delta)
        {
            return None;
        }
        let share = |part: Option<&[u8]>| part.map(|part| self.plain.slice_ref(part));
        let key = share(cursor.nullable()?);
        let value = share(cursor.nullable()?);
        let count = usize::try_from(cursor.varint()?).ok()?;
        // A header takes two bytes at least: no more can be there, whatever the count says.
        if count > cursor.rest() / 2 {
            return None;
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = share(Some(cursor.nullable()??))?;
            headers.push((name, share(cursor.nullable()?)));
        }
        if cursor.rest() != 0 {
            return None;
        }
        let timestamp_ms = if self.header.is_log_append_time() {
            self.header.max_timestamp
        } else {
            self.header.base_timestamp.wrapping_add(timestamp_delta)
        };
        let offset = self.header.base_offset + offset_delta;
        Some((Record { offset, timestamp_ms, key, value, headers }, end))
    }
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
