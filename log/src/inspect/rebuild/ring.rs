//! What the ring's files still say when no catalog tells where in them to begin.
//!
//! Every block is looked at. The newest run of cycles that follow each other is what a start applies again; records of metadata
//! count from older cycles too, for they say what once was decided. The run begins at the oldest cycle from which the chain leads to
//! the newest: a recovery skips what the files have, so beginning too early costs time alone. Beginning before files of the ring
//! that were written over meanwhile would not: a truncation would be applied, and the batches behind it would be missing. So a
//! break between two files counts as rot only where rotten bytes stand in its place.
//!
//! Invariant: reads only; memory grows with the number of cycles and partitions, not with their bytes.
//! Neighbours: [`super`] puts it together; `journal::replay` walks from the mark.

use crate::compaction::Swap;
use crate::disk::read_full_at;
use crate::encoding::crc32c;
use crate::journal::cycle::{self, Frame, HEADER_BYTES, Header};
use crate::journal::ring::Slot;
use crate::journal::{BLOCK_BYTES, Mark};
use crate::metadata::MetadataRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A cycle that is whole.
#[derive(Debug, Clone, Copy)]
struct At {
    header: Header,
    at: u64,
}

/// Cycles of the newest generation in one file, rising from its front.
#[derive(Debug)]
struct Run {
    slot: usize,
    cycles: Vec<At>,
    /// Blocks behind the last one, where what stands there may have been a cycle of this life of the file; else none.
    rotten_behind: u64,
}

impl Run {
    fn first(&self) -> u64 {
        self.cycles.first().map_or(0, |c| c.header.number)
    }

    fn last(&self) -> u64 {
        self.cycles.last().map_or(0, |c| c.header.number)
    }

    /// Blocks before its first cycle, where others must have stood.
    fn rotten_before(&self) -> u64 {
        self.cycles.first().map_or(0, |c| (c.at - BLOCK_BYTES) / BLOCK_BYTES)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Where a start begins.
    pub(super) mark: Mark,
    /// Cycles that it applies.
    pub(super) cycles: u64,
    /// Metadata by sequence, with the generation that journalled it.
    pub(super) records: BTreeMap<u64, (u64, MetadataRecord)>,
    /// Partitions that the run has batches of.
    pub(super) handles: BTreeSet<u64>,
    /// Offsets that the run has without a break up to its end: (first, end) by handle.
    covered: BTreeMap<u64, (i64, i64)>,
    /// Compaction swaps of the run, in order, by handle.
    swaps: BTreeMap<u64, Vec<Swap>>,
    /// One above the highest producer id in it.
    pub(super) producer_ids: i64,
}

/// Why a ring is not read.
#[derive(Debug)]
pub(super) enum Unread {
    Io(io::Error),
    /// A newer program wrote it.
    Newer(String),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Ring {
    /// Looks at every block of the ring's files.
    pub(super) fn read(slots: &[Slot], id: &[u8; 16]) -> Result<Self, Unread> {
        let mut ring = Self::default();
        let mut all: Vec<Vec<At>> = Vec::with_capacity(slots.len());
        let mut bytes = Vec::new();
        for slot in slots {
            all.push(ring.read_file(slot, id, &mut bytes)?);
        }
        let newest = all.iter().flatten().map(|c| c.header.generation).max();
        let Some(generation) = newest else { return Ok(ring) };
        let mut runs: Vec<Run> = Vec::new();
        for (slot, cycles) in all.into_iter().enumerate() {
            runs.extend(run(slots, slot, cycles, generation, id)?);
        }
        runs.sort_by_key(Run::first);
        let mut from = runs.len() - 1;
        while from > 0 && joins(&runs[from - 1], &runs[from]) {
            from -= 1;
        }
        let first = runs[from].cycles[0];
        ring.mark = Mark {
            generation,
            cycle: first.header.number.saturating_sub(1),
            crc: first.header.previous_crc,
            slot: slots[runs[from].slot].number,
            at: first.at,
        };
        for run in &runs[from..] {
            for cycle in &run.cycles {
                if read_frames(&slots[run.slot], cycle, &mut bytes)? {
                    ring.cycles += 1;
                    ring.note(&bytes);
                }
            }
        }
        Ok(ring)
    }

    /// The cycles of one file that are whole, in its order; their metadata is noted.
    fn read_file(
        &mut self,
        slot: &Slot,
        id: &[u8; 16],
        bytes: &mut Vec<u8>,
    ) -> Result<Vec<At>, Unread> {
        let mut cycles = Vec::new();
        let mut at = BLOCK_BYTES;
        while at + BLOCK_BYTES <= slot.size_bytes {
            let mut head = [0; HEADER_BYTES];
            let n = read_full_at(&*slot.file, &mut head, at)?;
            if let Some(version) = Header::newer_version(&head[..n], id) {
                return Err(Unread::Newer(format!("a cycle of its journal has version {version}")));
            }
            let header = Header::decode(&head[..n], id)
                .filter(|header| at + header.size_bytes() <= slot.size_bytes);
            let found = header.map(|header| At { header, at });
            let Some(found) = found.filter(|_| n == head.len()) else {
                at += BLOCK_BYTES;
                continue;
            };
            if !read_frames(slot, &found, bytes)? {
                // Its length is not to be believed.
                at += BLOCK_BYTES;
                continue;
            }
            let Some(frames) = cycle::frames(bytes) else {
                if let Some(kind) = cycle::unknown_kind(bytes) {
                    let number = found.header.number;
                    let what = format!("journal cycle {number} has a frame of kind {kind}");
                    return Err(Unread::Newer(what));
                }
                at += BLOCK_BYTES;
                continue;
            };
            for frame in frames {
                let Frame::Metadata { sequence, record } = frame else { continue };
                let Ok(record) = MetadataRecord::decode(record) else { continue };
                let generation = found.header.generation;
                let known = self.records.get(&sequence);
                if known.is_none_or(|(before, _)| *before <= generation) {
                    self.records.insert(sequence, (generation, record));
                }
            }
            at += found.header.size_bytes();
            cycles.push(found);
        }
        Ok(cycles)
    }

    /// Takes the frames of a cycle of the run.
    fn note(&mut self, bytes: &[u8]) {
        for frame in cycle::frames(bytes).into_iter().flatten() {
            match frame {
                Frame::Batches { handle, bytes, .. } => {
                    let mut at = 0;
                    while let Ok(header) = crate::batch::BatchHeader::parse(&bytes[at..]) {
                        let (first, end) = (header.base_offset, header.last_offset() + 1);
                        let known = self.covered.entry(handle).or_insert((first, first));
                        if known.1 != first {
                            // A truncation, or a cycle that is lost: what counts begins anew.
                            known.0 = first;
                        }
                        known.1 = end;
                        self.producer_ids = self.producer_ids.max(header.producer_id + 1);
                        at += header.size_bytes();
                    }
                    self.handles.insert(handle);
                }
                // Its batches are in the segment, and only there.
                Frame::Extent { handle, .. } => {
                    self.handles.insert(handle);
                }
                Frame::Swap { handle, swap } => self.swaps.entry(handle).or_default().push(swap),
                _ => {}
            }
        }
    }

    /// From this offset on the journal has every batch of the partition.
    pub(super) fn covered_from(&self, handle: u64) -> Option<i64> {
        self.covered.get(&handle).map(|(first, _)| *first)
    }

    /// Compaction swaps of a partition.
    pub(super) fn swaps(&self, handle: u64) -> &[Swap] {
        self.swaps.get(&handle).map_or(&[], |swaps| swaps)
    }
}

fn read_frames(slot: &Slot, cycle: &At, into: &mut Vec<u8>) -> io::Result<bool> {
    // Checked against the file's size.
    into.resize(cycle.header.length as usize, 0);
    let n = read_full_at(&*slot.file, into, cycle.at + HEADER_BYTES as u64)?;
    Ok(n == into.len() && crc32c(into) == cycle.header.frames_crc)
}

/// The file's cycles up to where those of its former life begin.
fn run(
    slots: &[Slot],
    slot: usize,
    cycles: Vec<At>,
    generation: u64,
    id: &[u8; 16],
) -> io::Result<Option<Run>> {
    let mut run = Run { slot, cycles: Vec::new(), rotten_behind: 0 };
    for cycle in cycles {
        if cycle.header.generation != generation
            || run.cycles.last().is_some_and(|last| last.header.number >= cycle.header.number)
        {
            break;
        }
        run.cycles.push(cycle);
    }
    let Some(last) = run.cycles.last() else { return Ok(None) };
    let (number, behind) = (last.header.number, last.at + last.header.size_bytes());
    if behind + BLOCK_BYTES <= slots[slot].size_bytes {
        let mut block = [0; HEADER_BYTES];
        read_full_at(&*slots[slot].file, &mut block, behind)?;
        // A header that is whole may have rotten frames, or be of the file's former life.
        let header = Header::decode(&block, id);
        let ours = header.is_none_or(|h| h.generation == generation && h.number > number);
        if ours && block != [0; HEADER_BYTES] {
            run.rotten_behind = (slots[slot].size_bytes - behind) / BLOCK_BYTES;
        }
    }
    Ok(Some(run))
}

/// Whether one file's cycles lead to the next one's, but for those that may have rotted in between.
fn joins(before: &Run, after: &Run) -> bool {
    let missing = after.first().checked_sub(before.last() + 1);
    missing.is_some_and(|missing| missing <= before.rotten_behind + after.rotten_before())
}
