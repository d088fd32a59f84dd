//! Producers in the catalog: section 1 of a partition's entry, and what version 1 of the catalog had instead.
//!
//! Section 1, little-endian: u32 count of producers, of each: id i64, epoch i16, coordinator epoch i32, last timestamp i64, last
//! append (log clock) i64, last offset i64, first offset of the open transaction i64 (-1 none), u8 count of batches: first
//! sequence i32, delta i32, base offset i64. Then u32 count of transactions completed at or above the high watermark: first
//! offset i64, the marker's i64.
//!
//! Invariant: what is read is what the rules of [`super`] could have made: counts within their limits, offsets not negative.

use super::{BATCHES_MAX, Completed, Entry, Known, Producers};
use crate::Offset;
use crate::encoding::{Fields, Put};

/// Bytes of a producer without batches.
const ENTRY_BYTES_MIN: usize = 47;

impl Producers {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.entries.len() as u32);
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(id, _)| **id);
        for (id, entry) in entries {
            out.put_i64(*id);
            out.put_i16(entry.epoch);
            out.put_i32(entry.coordinator_epoch);
            out.put_i64(entry.last_timestamp_ms);
            out.put_i64(entry.last_append_ms);
            out.put_i64(entry.last_offset.get());
            out.put_i64(entry.open.map_or(-1, Offset::get));
            out.put_u8(entry.batches.len() as u8);
            for known in &entry.batches {
                out.put_i32(known.first_sequence);
                out.put_i32(known.delta);
                out.put_i64(known.base.get());
            }
        }
        out.put_u32(self.completed.len() as u32);
        for completed in &self.completed {
            out.put_i64(completed.first.get());
            out.put_i64(completed.last.get());
        }
    }

    pub(crate) fn decode(f: &mut Fields<'_>) -> Option<Self> {
        let mut read = Self::default();
        for _ in 0..f.count(ENTRY_BYTES_MIN)? {
            let id = f.i64().filter(|id| *id >= 0)?;
            let entry = Entry {
                epoch: f.i16()?,
                coordinator_epoch: f.i32()?,
                last_timestamp_ms: f.i64()?,
                last_append_ms: f.i64()?,
                last_offset: Offset::new(f.i64()?)?,
                open: match f.i64()? {
                    -1 => None,
                    first => Some(Offset::new(first)?),
                },
                batches: decode_batches(f)?,
            };
            read.insert(id, entry);
        }
        for _ in 0..f.count(16)? {
            let (first, last) = (Offset::new(f.i64()?)?, Offset::new(f.i64()?)?);
            read.completed.push(Completed { first, last });
        }
        read.completed.is_sorted_by_key(|c| c.last).then_some(read)
    }

    /// The table as version 1 had it, in the middle of an entry: of each u32 count of producers: id i64, epoch i16, next sequence
    /// i32 (-1 unknown), last timestamp i64, u8 count of batches: first and last sequence i32, leader epoch i32, first and last
    /// offset i64.
    pub(crate) fn decode_version_1(f: &mut Fields<'_>, now_ms: i64) -> Option<Self> {
        let mut read = Self::default();
        for _ in 0..f.count(23)? {
            let (id, epoch) = (f.i64()?, f.i16()?);
            let (_next_sequence, last_timestamp_ms) = (f.i32()?, f.i64()?);
            let count = usize::from(f.u8()?);
            if count > BATCHES_MAX {
                return None;
            }
            let mut batches = Vec::with_capacity(count);
            for _ in 0..count {
                let (first_sequence, _last, _epoch) = (f.i32()?, f.i32()?, f.i32()?);
                let (base, last) = (Offset::new(f.i64()?)?, Offset::new(f.i64()?)?);
                let delta = i32::try_from(last.get() - base.get()).ok().filter(|d| *d >= 0)?;
                batches.push(Known { first_sequence, delta, base });
            }
            // Of a producer whose batches were all cut nothing is known: any sequence may come.
            let Some(last_offset) = batches.last().map(Known::last) else { continue };
            let entry = Entry {
                epoch,
                coordinator_epoch: -1,
                last_timestamp_ms,
                last_append_ms: now_ms,
                last_offset,
                open: None,
                batches,
            };
            read.insert(id, entry);
        }
        Some(read)
    }

    pub(super) fn insert(&mut self, id: i64, entry: Entry) {
        if let Some(first) = entry.open {
            self.open.insert(first, id);
        }
        self.entries.insert(id, entry);
    }
}

fn decode_batches(f: &mut Fields<'_>) -> Option<Vec<Known>> {
    let count = usize::from(f.u8()?);
    if count > BATCHES_MAX {
        return None;
    }
    let mut batches = Vec::with_capacity(count);
    for _ in 0..count {
        let (first_sequence, delta, base) = (f.i32()?, f.i32()?, Offset::new(f.i64()?)?);
        if first_sequence < -1 || delta < 0 {
            return None;
        }
        batches.push(Known { first_sequence, delta, base });
    }
    Some(batches)
}
