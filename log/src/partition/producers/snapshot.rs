//! `<20 digits>.snapshot`: Kafka's file of the producers' state at an offset, so that a truncation or a lost index is made good
//! from there and not from the beginning of the log (KIP-98).
//!
//! Big-endian:
//!
//! | byte | field |
//! |---|---|
//! | 0 | version i16 = 1 |
//! | 2 | CRC-32C u32 of what follows |
//! | 6 | count of producers i32 |
//! | 10 | of each 46 bytes: id i64, epoch i16, last sequence i32, last offset i64 (-1: none known), offset delta of the last batch i32, last timestamp i64, coordinator epoch i32, first offset of the open transaction i64 (-1: none) |
//!
//! A hint: never synced; one that is missing or wrong is passed over for the one before it.
//! Invariant: nothing is reserved for a count before the bytes for it are there.

use super::{Entry, Known, Producers};
use crate::Offset;
use crate::batch::sequence_plus;
use crate::encoding::crc32c;

const VERSION: i16 = 1;
const HEAD_BYTES: usize = 6;
const ENTRY_BYTES: usize = 46;

impl Producers {
    /// The file's content.
    pub(crate) fn to_snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + 4 + self.entries.len() * ENTRY_BYTES);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let count = i32::try_from(self.entries.len()).unwrap_or(i32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(id, _)| **id);
        for (id, entry) in entries {
            let last = entry.batches.last();
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&entry.epoch.to_be_bytes());
            out.extend_from_slice(&last.map_or(-1, Known::last_sequence).to_be_bytes());
            out.extend_from_slice(&last.map_or(-1, |b| b.last().get()).to_be_bytes());
            out.extend_from_slice(&last.map_or(0, |b| b.delta).to_be_bytes());
            out.extend_from_slice(&entry.last_timestamp_ms.to_be_bytes());
            out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&entry.open.map_or(-1, Offset::get).to_be_bytes());
        }
        let crc = crc32c(&out[HEAD_BYTES..]);
        out[2..HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// The state at `at`; `None` when the bytes are not a whole snapshot of that offset. Producers count as having written now.
    pub(crate) fn from_snapshot(bytes: &[u8], at: Offset, now_ms: i64) -> Option<Self> {
        let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let [v0, v1, c0, c1, c2, c3] = *head;
        if i16::from_be_bytes([v0, v1]) != VERSION
            || u32::from_be_bytes([c0, c1, c2, c3]) != crc32c(body)
        {
            return None;
        }
        let (count, body) = body.split_first_chunk::<4>()?;
        let (entries, []) = body.as_chunks::<ENTRY_BYTES>() else { return None };
        if usize::try_from(i32::from_be_bytes(*count)).ok()? != entries.len() {
            return None;
        }
        let mut read = Self::default();
        for bytes in entries {
            let (id, entry) = entry(bytes, now_ms)?;
            if entry.last_offset >= at || entry.open.is_some_and(|first| first >= at) {
                return None;
            }
            read.insert(id, entry);
        }
        Some(read)
    }
}

fn entry(bytes: &[u8; ENTRY_BYTES], now_ms: i64) -> Option<(i64, Entry)> {
    let long = |at: usize| Some(i64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let int = |at: usize| Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let (last_sequence, last_offset, delta) = (int(10)?, long(14)?, int(22)?);
    let open = Offset::new(long(38)?);
    let batches = match Offset::new(last_offset) {
        Some(last) => vec![Known {
            // The sequence before the first one may be on the other side of the wrap.
            first_sequence: match last_sequence {
                -1 => -1,
                last => sequence_plus(last, delta.wrapping_neg()),
            },
            delta: Some(delta).filter(|d| *d >= 0)?,
            base: Offset::new(last.get() - i64::from(delta))?,
        }],
        None => Vec::new(),
    };
    let last_offset = batches.last().map(Known::last).max(open).unwrap_or_default();
    let entry = Entry {
        epoch: i16::from_be_bytes([bytes[8], bytes[9]]),
        coordinator_epoch: int(34)?,
        last_timestamp_ms: long(26)?,
        last_append_ms: now_ms,
        last_offset,
        open,
        batches,
    };
    Some((long(0)?, entry))
}
