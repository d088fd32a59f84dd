//! One batch of a compacted log: which of its records stay, and the bytes of what is left (Kafka's `MemoryRecords.filterTo`).
//!
//! What stays keeps its offset, timestamp, key, value, headers; the batch keeps its base and last offset, its leader epoch, its
//! producer's id, epoch and base sequence, so that the last sequence still follows from it, and its codec. A batch of which nothing
//! goes is kept byte for byte.
//!
//! **Delete horizon** (KIP-534): the pass that first keeps a tombstone writes into its batch until when: attribute bit 6 says
//! that the header's base timestamp is that time, and the records' timestamp deltas count from it.
//!
//! Invariant: a record is never invented, moved or changed; what comes out has been made from bytes whose CRC was checked.
//! Neighbours: `pass` walks and decides what each record is worth, [`crate::batch`] has the header's layout.

use crate::batch::compression::{Codec, Compression, compress, decompress};
use crate::batch::{
    self, ATTRIBUTE_CODEC, ATTRIBUTE_DELETE_HORIZON, BatchError, BatchHeader, HEADER_BYTES,
    PLAIN_BYTES_MAX, varint,
};
use bytes::Bytes;

/// A record as far as compaction looks at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordView<'a> {
    pub(super) offset: i64,
    timestamp_ms: i64,
    /// `None` is a record without a key.
    pub(super) key: Option<&'a [u8]>,
    /// Not a tombstone.
    pub(super) has_value: bool,
    /// Length and all.
    whole: &'a [u8],
    attributes: u8,
    /// From the offset delta on.
    rest: &'a [u8],
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rewritten {
    /// As it is. In both: until when it keeps tombstones, if it has any; [`UNSTAMPED`] when that is not known yet.
    Verbatim {
        horizon_ms: Option<i64>,
    },
    /// With these bytes.
    Changed {
        bytes: Vec<u8>,
        horizon_ms: Option<i64>,
    },
    Gone,
}

/// The horizon of tombstones that have none yet: they get it as soon as the clock is trusted.
pub(super) const UNSTAMPED: i64 = 0;

/// What is to be done with one batch beside judging its records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    /// An empty batch stays when no record does.
    pub(super) retain_empty: bool,
    /// The horizon for a batch that has none and keeps a tombstone. `None`: the clock is not to be trusted now.
    pub(super) new_horizon_ms: Option<i64>,
    /// A marker of a transaction that is empty gets a horizon as a tombstone does.
    pub(super) ends_empty_transaction: bool,
    /// The topic's own compression, for the level at which its codec is used again.
    pub(super) compression: Compression,
}

/// The records of a batch whose CRC was checked, as they stand in an uncompressed one.
#[derive(Debug)]
pub(super) struct Body {
    records: Bytes,
    header: BatchHeader,
}

impl Body {
    pub(super) fn of(batch: &Bytes, header: &BatchHeader) -> Result<Self, BatchError> {
        let records = match header.codec() {
            Codec::None => batch.slice(HEADER_BYTES..header.size_bytes()),
            codec => {
                let stored = &batch[HEADER_BYTES..header.size_bytes()];
                Bytes::from(decompress(codec, stored, PLAIN_BYTES_MAX)?)
            }
        };
        Ok(Self { records, header: *header })
    }

    /// Its records one after another; ends after an error.
    pub(super) fn records(&self) -> impl Iterator<Item = Result<RecordView<'_>, BatchError>> {
        let (mut at, mut read, mut delta_min) = (0, 0u32, 0);
        let count = self.header.record_count.unsigned_abs();
        std::iter::from_fn(move || {
            if read >= count {
                let left = read == count && at != self.records.len();
                read = u32::MAX;
                return left.then_some(Err(BatchError::Record(count)));
            }
            let parsed = view(&self.records[at..], &self.header, delta_min);
            let Some((record, delta)) = parsed else {
                let index = std::mem::replace(&mut read, u32::MAX);
                return Some(Err(BatchError::Record(index)));
            };
            at += record.whole.len();
            read += 1;
            delta_min = delta + 1;
            Some(Ok(record))
        })
    }
}

/// The record at the front of `bytes`, and its offset delta.
fn view<'a>(
    bytes: &'a [u8],
    header: &BatchHeader,
    delta_min: i64,
) -> Option<(RecordView<'a>, i64)> {
    let (length, prefix) = varint::read_i32(bytes)?;
    let end = prefix.checked_add(usize::try_from(length).ok()?)?;
    let whole = bytes.get(..end)?;
    let (attributes, fields) = whole.get(prefix..)?.split_first()?;
    let (timestamp_delta, used) = varint::read_i64(fields)?;
    let rest = &fields[used..];
    let (delta, used) = varint::read_i32(rest)?;
    let delta = i64::from(delta);
    if delta < delta_min || delta > i64::from(header.last_offset_delta) {
        return None;
    }
    let (key, behind) = part(&rest[used..])?;
    let (value, _headers) = part(behind)?;
    let timestamp_ms = if header.is_log_append_time() {
        header.max_timestamp
    } else {
        header.base_timestamp.wrapping_add(timestamp_delta)
    };
    let record = RecordView {
        offset: header.base_offset + delta,
        timestamp_ms,
        key,
        has_value: value.is_some(),
        whole,
        attributes: *attributes,
        rest,
    };
    Some((record, delta))
}

/// A nullable part with its length, and what comes behind it.
fn part(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, used) = varint::read_i32(bytes)?;
    let behind = &bytes[used..];
    match length {
        -1 => Some((None, behind)),
        length => {
            let (part, behind) = behind.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Some(part), behind))
        }
    }
}

/// Makes what is left of a batch when `keep` has judged its records.
pub(super) fn rewrite(
    body: &Body,
    batch: &[u8],
    order: Order,
    mut keep: impl FnMut(&RecordView<'_>) -> bool,
) -> Result<Rewritten, BatchError> {
    let header = &body.header;
    let (mut kept, mut tombstones) = (Vec::new(), false);
    for record in body.records() {
        let record = record?;
        if keep(&record) {
            tombstones |= !record.has_value;
            kept.push(record);
        }
    }
    if kept.is_empty() {
        return Ok(match (order.retain_empty, header.record_count) {
            (false, _) => Rewritten::Gone,
            (true, 0) => Rewritten::Verbatim { horizon_ms: None },
            (true, _) => Rewritten::Changed { bytes: emptied(batch), horizon_ms: None },
        });
    }
    let keeps_tombstones = tombstones || order.ends_empty_transaction;
    let stamped = header.delete_horizon_ms();
    let horizon = order.new_horizon_ms.filter(|_| keeps_tombstones && stamped.is_none());
    let horizon_ms = keeps_tombstones.then(|| stamped.or(horizon).unwrap_or(UNSTAMPED));
    if kept.len() == header.record_count.unsigned_abs() as usize && horizon.is_none() {
        return Ok(Rewritten::Verbatim { horizon_ms });
    }
    let mut out =
        Vec::with_capacity(batch.len() + if horizon.is_some() { kept.len() * 4 } else { 0 });
    out.extend_from_slice(&batch[..HEADER_BYTES]);
    let mut records = Vec::with_capacity(body.records.len());
    for record in &kept {
        match horizon {
            None => records.extend_from_slice(record.whole),
            Some(horizon) => put_with_base(&mut records, record, horizon),
        }
    }
    let codec = header.codec();
    let level = order.compression.level.filter(|_| order.compression.codec == codec);
    if compress(Compression { codec, level }, &records, &mut out).is_err() {
        // A codec that got no memory: another pass may.
        return Ok(Rewritten::Verbatim { horizon_ms });
    }
    if let Some(horizon) = horizon {
        set(&mut out, 21, &(header.attributes | ATTRIBUTE_DELETE_HORIZON).to_be_bytes());
        set(&mut out, 27, &horizon.to_be_bytes());
    }
    if !header.is_log_append_time() {
        let newest = kept.iter().map(|r| r.timestamp_ms).max().unwrap_or(header.max_timestamp);
        set(&mut out, 35, &newest.to_be_bytes());
    }
    let count = i32::try_from(kept.len()).unwrap_or(i32::MAX);
    set(&mut out, 57, &count.to_be_bytes());
    finish(&mut out);
    Ok(Rewritten::Changed { bytes: out, horizon_ms })
}

/// The header alone: it says which offsets were here, and what its producer's last sequence was.
pub(super) fn emptied(batch: &[u8]) -> Vec<u8> {
    let mut out = batch[..HEADER_BYTES].to_vec();
    let attributes = i16::from_be_bytes([out[21], out[22]]);
    let attributes = attributes & !(ATTRIBUTE_CODEC | ATTRIBUTE_DELETE_HORIZON);
    set(&mut out, 21, &attributes.to_be_bytes());
    // No record, no timestamp. (Kafka leaves the largest one there, and then answers lookups by time with a batch that has none.)
    set(&mut out, 27, &(-1i64).to_be_bytes());
    set(&mut out, 35, &(-1i64).to_be_bytes());
    set(&mut out, 57, &0i32.to_be_bytes());
    finish(&mut out);
    out
}

/// A record as it stands in a batch with another base timestamp.
fn put_with_base(out: &mut Vec<u8>, record: &RecordView<'_>, base_timestamp: i64) {
    let delta = record.timestamp_ms.wrapping_sub(base_timestamp);
    let length = 1 + varint::size_bytes(delta) + record.rest.len();
    let mut number = [0; varint::VARLONG_BYTES_MAX];
    let n = varint::put(&mut number, 0, length as i64);
    out.extend_from_slice(&number[..n]);
    out.push(record.attributes);
    let n = varint::put(&mut number, 0, delta);
    out.extend_from_slice(&number[..n]);
    out.extend_from_slice(record.rest);
}

/// Length and CRC, when all else is in place.
fn finish(batch: &mut [u8]) {
    let length = i32::try_from(batch.len() - 12).unwrap_or(i32::MAX);
    set(batch, 8, &length.to_be_bytes());
    batch::put_crc(batch);
}

fn set(batch: &mut [u8], at: usize, bytes: &[u8]) {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
}
