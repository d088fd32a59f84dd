//! The walk along the chain after a start: which cycles count, and what the end of the chain means.
//!
//! The walk reads only. A cycle counts when its header is intact, of the expected generation and number, names the CRC of the one
//! before, and its frames match their CRC. Where the chain ends, two cases differ: a *torn tail* was never acknowledged; a
//! bad cycle at or below the `synced_through` of a later intact one was, and is reported as lost.
//!
//! Invariant: no cycle of another generation or of a file's former life is ever returned.

use super::BLOCK_BYTES;
use super::cycle::{HEADER_BYTES, Header};
use super::ring::{Mark, Slot};
use crate::disk::read_full_at;
use crate::encoding::crc32c;
use std::io::{self, IoSlice};

/// A cycle that counts, and where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) header: Header,
    pub(crate) slot: usize,
    pub(crate) at: u64,
}

/// Cycles that were synced and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// First and last number.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// File of the ring, and byte in it, where the first should stand.
    pub(crate) slot: u32,
    pub(crate) at: u64,
}

/// What the walk found.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) cycles: Vec<Found>,
    pub(crate) gaps: Vec<Gap>,
    /// A cycle of a newer version stands where the next one should.
    pub(crate) newer: Option<u16>,
    /// Where the last counting cycle ends.
    pub(crate) end: Mark,
}

/// Walks from the cycle after `from`.
pub(crate) fn walk(slots: &[Slot], directory_id: &[u8; 16], from: Mark) -> io::Result<Chain> {
    let mut chain = Chain { end: from, ..Chain::default() };
    let reader = Reader { slots, directory_id, generation: from.generation };
    let mut here = slots.iter().position(|s| s.number == from.slot);
    loop {
        // No run gets there; a header may say so all the same.
        let Some(expected) = chain.end.cycle.checked_add(1) else { return Ok(chain) };
        let links = |h: &Header| h.number == expected && h.previous_crc == chain.end.crc;
        // Behind the last cycle, or first in another file when it did not fit there.
        let mut place = None;
        if let Some(slot) = here {
            place = reader.intact(slot, chain.end.at, links)?;
        }
        for slot in 0..slots.len() {
            if place.is_none() {
                place = reader.intact(slot, BLOCK_BYTES, links)?;
            }
        }
        let found = match place {
            Some(found) => found,
            None => match reader.later(here, &chain.end)? {
                Some(later) => {
                    chain.gaps.push(Gap {
                        first: expected,
                        last: later.header.number - 1,
                        slot: chain.end.slot,
                        at: chain.end.at,
                    });
                    later
                }
                None => {
                    chain.newer = reader.newer(here, chain.end.at)?;
                    return Ok(chain);
                }
            },
        };
        here = Some(found.slot);
        chain.end.cycle = found.header.number;
        chain.end.crc = found.header.crc;
        chain.end.slot = slots[found.slot].number;
        chain.end.at = found.at + found.header.size_bytes();
        chain.cycles.push(found);
    }
}

/// Reads the frames of a cycle that the walk found.
pub(crate) fn read_frames(slots: &[Slot], found: &Found, into: &mut Vec<u8>) -> io::Result<bool> {
    into.resize(found.header.length as usize, 0);
    let n = read_full_at(&*slots[found.slot].file, into, found.at + HEADER_BYTES as u64)?;
    Ok(n == into.len() && crc32c(into) == found.header.frames_crc)
}

/// Writes those cycles over themselves of which no later one says that they were synced: what was read may stand in the kernel's
/// memory alone.
pub(crate) fn rewrite_unsynced(slots: &[Slot], chain: &Chain) -> io::Result<()> {
    let synced = chain.cycles.last().map_or(0, |last| last.header.synced_through);
    for found in chain.cycles.iter().filter(|found| found.header.number > synced) {
        let file = &*slots[found.slot].file;
        // It lies within its file, which the walk has checked.
        let mut bytes = vec![0; found.header.size_bytes() as usize];
        let n = read_full_at(file, &mut bytes, found.at)?;
        file.write_at(&[IoSlice::new(&bytes[..n])], found.at)?;
    }
    Ok(())
}

struct Reader<'a> {
    slots: &'a [Slot],
    directory_id: &'a [u8; 16],
    generation: u64,
}

impl Reader<'_> {
    /// The header at this place, of whatever generation.
    fn header(&self, slot: usize, at: u64) -> io::Result<Option<Header>> {
        let slot = &self.slots[slot];
        if at < BLOCK_BYTES || at + BLOCK_BYTES > slot.size_bytes {
            return Ok(None);
        }
        let mut head = [0; HEADER_BYTES];
        let n = read_full_at(&*slot.file, &mut head, at)?;
        Ok(Header::decode(&head[..n], self.directory_id)
            .filter(|h| at + h.size_bytes() <= slot.size_bytes))
    }

    /// The version of a newer program's cycle behind the chain's end, or first in a file.
    fn newer(&self, here: Option<usize>, at: u64) -> io::Result<Option<u16>> {
        let fronts = (0..self.slots.len()).map(|slot| (slot, BLOCK_BYTES));
        for (slot, at) in here.map(|slot| (slot, at)).into_iter().chain(fronts) {
            let mut head = [0; HEADER_BYTES];
            let n = read_full_at(&*self.slots[slot].file, &mut head, at)?;
            if let Some(version) = Header::newer_version(&head[..n], self.directory_id) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// The cycle at this place, if it is of the chain's generation, its header passes `wanted` and it is intact.
    fn intact(
        &self,
        slot: usize,
        at: u64,
        wanted: impl Fn(&Header) -> bool,
    ) -> io::Result<Option<Found>> {
        let wanted = |h: &Header| h.generation == self.generation && wanted(h);
        let Some(header) = self.header(slot, at)?.filter(wanted) else { return Ok(None) };
        let found = Found { header, slot, at };
        let mut frames = Vec::new();
        Ok(read_frames(self.slots, &found, &mut frames)?.then_some(found))
    }

    /// The first intact cycle beyond the end of the chain that proves an earlier one was synced.
    fn later(&self, here: Option<usize>, end: &Mark) -> io::Result<Option<Found>> {
        let mut best: Option<Found> = None;
        for slot in 0..self.slots.len() {
            // Begun before the chain's end, and left: the chain came through, or it is of a former life.
            let begun = self.header(slot, BLOCK_BYTES)?.map(|first| first.number);
            if Some(slot) != here && begun.is_some_and(|first| first <= end.cycle) {
                continue;
            }
            if let Some(found) = self.first_later(slot, end)?
                && best.is_none_or(|b| found.header.number < b.header.number)
            {
                best = Some(found);
            }
        }
        Ok(best)
    }

    /// As [`Reader::later`], in one file. A bad cycle's length is not to be believed: the next one may begin at any block. What
    /// stands within an intact one, of a former life too, is a client's bytes and never a cycle.
    fn first_later(&self, slot: usize, end: &Mark) -> io::Result<Option<Found>> {
        let (mut at, mut frames) = (BLOCK_BYTES, Vec::new());
        while at < self.slots[slot].size_bytes {
            let mut step = BLOCK_BYTES;
            if let Some(header) = self.header(slot, at)? {
                let found = Found { header, slot, at };
                if read_frames(self.slots, &found, &mut frames)? {
                    let later = header.number > end.cycle + 1 && header.synced_through > end.cycle;
                    if later && header.generation == self.generation {
                        return Ok(Some(found));
                    }
                    step = header.size_bytes();
                }
            }
            at += step;
        }
        Ok(None)
    }
}
