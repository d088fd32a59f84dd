//! One partition described anew from its files.
//!
//! A segment file holds nothing that was not committed, so every whole batch in it that follows the one before counts. Where the
//! files end or are torn and the journal has all that comes behind, the description ends there, and the next start applies the rest.
//! Where it has not, what is damaged stays described, so that the mending that follows finds it and says what is lost.
//!
//! What files cannot tell: where deleted records ended within the first segment, how old a segment is (it counts as new), and
//! whether offsets that are missing between two segments were lost or compacted away (they count as lost, unless compaction is
//! seen in the segment).
//!
//! Invariant: an offset that is described, or known to be lost, is never given out again.
//! Neighbours: [`super`] asks for each folder; [`crate::inspect::mend`] judges what is described.

use super::ring::Ring;
use crate::batch::{self, BatchHeader, HEADER_BYTES};
use crate::catalog::{PartitionEntry, SegmentEntry};
use crate::compaction::swap::{CompactedEntry, cleaned_path};
use crate::disk::{Disk, DiskFile, OpenMode, read_full_at};
use crate::inspect::mend::set_aside;
use crate::inspect::quarantine::Quarantine;
use crate::inspect::segment::{Bounds, Step, Walk};
use crate::inspect::survey::InspectError;
use crate::partition::epochs::Epochs;
use crate::partition::producers::Producers;
use crate::segment::path;
use crate::segment::txnindex::Aborted;
use crate::{AbortedTransaction, LeaderEpoch, Offset};
use bytes::Bytes;
use std::io;
use std::path::Path;

/// Looked at together for bytes that are not zero.
const PIECE_BYTES: usize = 64 << 10;

/// What a partition is called, and what is known of it beside its files.
pub(super) struct Known<'a> {
    pub(super) folder: &'a Path,
    pub(super) name: String,
    pub(super) handle: u64,
    /// Its records bypass the journal. A torn end of it was never promised to anybody, but cannot be told from a rotten one: it
    /// is said to be lost.
    pub(super) memory: bool,
    /// Its topic is compacted: offsets may be missing anywhere.
    pub(super) compacts: bool,
    pub(super) now_ms: i64,
}

/// What the batches up to a point say.
#[derive(Debug, Clone, Default)]
struct Folded {
    epochs: Epochs,
    /// Base of the batch that began the last epoch, and of the last batch.
    epoch_base: i64,
    last_base: i64,
    producers: Producers,
    node_sequence: i32,
    producer_ids: i64,
}

/// A segment's file, read once.
#[derive(Debug)]
struct Scanned {
    entry: SegmentEntry,
    /// Offset behind the last whole batch.
    next: i64,
    /// Whole batches, in bytes.
    whole_bytes: u64,
    /// Offsets are missing between batches that stand side by side.
    sparse: bool,
    /// What stands behind the last whole batch, if that is not nothing.
    tail: Option<u64>,
    /// The journal has everything from `next` on: nothing behind it was looked at.
    covered: bool,
    aborted: Vec<AbortedTransaction>,
    folded: Folded,
}

/// The partition's description, and one above the highest producer id in it.
pub(super) fn describe(
    disk: &dyn Disk,
    known: &Known<'_>,
    ring: &Ring,
    quarantine: &mut Quarantine<'_>,
) -> Result<(PartitionEntry, i64), InspectError> {
    clear_swaps(disk, known, ring, quarantine)?;
    let bases = bases(disk, known.folder)?;
    let covered_from = ring.covered_from(known.handle);
    let mut entry = PartitionEntry {
        handle: known.handle,
        memory: known.memory,
        compacted: CompactedEntry {
            swaps: ring.swaps(known.handle).first().map_or(0, |swap| swap.number.saturating_sub(1)),
            ..CompactedEntry::default()
        },
        ..PartitionEntry::default()
    };
    let start = bases.first().copied().or(covered_from).unwrap_or(0);
    (entry.log_start, entry.end) = (start, start);
    let mut folded = Folded::default();
    // What is missing before a segment is legal, or will be found when the one before it is mended.
    let (mut sparse, mut told) = (known.compacts, false);
    for (i, &base) in bases.iter().enumerate() {
        let covered = covered_from.is_some_and(|from| entry.end >= from);
        if base > entry.end && covered {
            // The rest of the files goes on behind a gap that the journal fills.
            set_aside_from(disk, known, &bases[i..], quarantine)?;
            break;
        }
        if base > entry.end && !sparse && !told {
            lose(&mut entry, known, base, quarantine)?;
        }
        let end = bases.get(i + 1).copied().unwrap_or(i64::MAX);
        let scanned = scan(disk, known, base, end, covered_from, &folded)?;
        sparse = known.compacts || scanned.sparse;
        told = scanned.tail.is_some();
        entry.end = entry.end.max(base);
        take(&mut entry, &scanned, sparse);
        folded = scanned.folded.clone();
        if scanned.covered {
            if scanned.tail.is_some() {
                let log = path(known.folder, Offset::new(base).unwrap_or_default(), "log");
                quarantine.copy(&log, "its end is damaged, and written again from the journal")?;
            }
            set_aside_from(disk, known, &bases[i + 1..], quarantine)?;
            break;
        }
        if i + 1 == bases.len() && told {
            close(disk, known, &mut entry, &scanned, quarantine)?;
        }
    }
    entry.epochs = folded.epochs;
    entry.producers = folded.producers;
    entry.node_sequence = folded.node_sequence;
    Ok((entry, folded.producer_ids))
}

/// Bases of the segments that have a log, rising.
fn bases(disk: &dyn Disk, folder: &Path) -> Result<Vec<i64>, InspectError> {
    let files = disk.list(folder).map_err(InspectError::io(folder))?;
    let base = |name: &str| name.strip_suffix(".log")?.parse().ok().filter(|base: &i64| *base >= 0);
    let mut bases: Vec<i64> = files.iter().filter_map(|file| base(&file.name)).collect();
    bases.sort_unstable();
    bases.dedup();
    Ok(bases)
}

/// Segments behind the point from which on the journal has everything.
fn set_aside_from(
    disk: &dyn Disk,
    known: &Known<'_>,
    bases: &[i64],
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    for base in bases {
        let why = "what it holds is applied again from the journal";
        set_aside(disk, known.folder, *base, why, quarantine)?;
    }
    Ok(())
}

/// Inputs of a compaction whose output has its place already.
fn clear_swaps(
    disk: &dyn Disk,
    known: &Known<'_>,
    ring: &Ring,
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    let size = |name: &Path| match disk.open(name, OpenMode::Read) {
        Ok(file) => file.size_bytes().map(Some).map_err(InspectError::io(name)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(InspectError::io(name)(e)),
    };
    let log = |base: i64| path(known.folder, Offset::new(base).unwrap_or_default(), "log");
    for swap in ring.swaps(known.handle) {
        let base = Offset::new(swap.output.base).unwrap_or_default();
        let waits = size(&cleaned_path(known.folder, base, swap.number))?.is_some();
        if waits || size(&log(swap.output.base))? != Some(swap.output.bytes) {
            continue;
        }
        for (input, bytes) in swap.inputs.iter().skip(1) {
            if size(&log(*input))?.is_some_and(|size| size >= *bytes) {
                let why = "a compaction put another segment in its place";
                set_aside(disk, known.folder, *input, why, quarantine)?;
            }
        }
    }
    Ok(())
}

/// Adds a segment to the description.
fn take(entry: &mut PartitionEntry, scanned: &Scanned, sparse: bool) {
    let mut segment = scanned.entry;
    if !scanned.covered
        && let Some(tail) = scanned.tail
    {
        segment.bytes = tail;
    }
    if segment.bytes == 0 {
        return;
    }
    entry.end = entry.end.max(scanned.next);
    if sparse {
        entry.compacted.segments.push((segment.base, true, None));
    }
    if !scanned.aborted.is_empty() {
        entry.aborted.push((segment.base, Aborted::Here(scanned.aborted.clone())));
    }
    entry.segments.push(segment);
}

/// Notes that nothing has the offsets from the end to `to`.
fn lose(
    entry: &mut PartitionEntry,
    known: &Known<'_>,
    to: i64,
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    let (first, name) = (entry.end, &known.name);
    quarantine.note(format!("{name}: offsets {first} to {} are lost", to - 1))?;
    entry.lost.push((first, to));
    entry.end = to;
    Ok(())
}

/// The last segment ends with bytes that are no batch, and the journal does not have what they were.
fn close(
    disk: &dyn Disk,
    known: &Known<'_>,
    entry: &mut PartitionEntry,
    scanned: &Scanned,
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    let name = path(known.folder, Offset::new(scanned.entry.base).unwrap_or_default(), "log");
    let io = InspectError::io(&name);
    let file = disk.open(&name, OpenMode::Read).map_err(&io)?;
    let mut head = [0; HEADER_BYTES];
    let n = read_full_at(&*file, &mut head, scanned.entry.bytes).map_err(&io)?;
    // Its header may be whole where its records are not: then it tells how many they were.
    let header = BatchHeader::parse_alone(&head[..n]).ok();
    let end = header.filter(|h| h.base_offset == scanned.next).map(|h| h.last_offset() + 1);
    let to = end.filter(|end| *end - scanned.next <= 1 << 20).unwrap_or(scanned.next + 1);
    if end != Some(to) {
        let (name, at) = (&known.name, scanned.next);
        quarantine.note(format!(
            "{name}: what stands behind offset {} is damaged, and how many records it was cannot be told: offset {at} stands for \
             them",
            at - 1
        ))?;
    }
    // That they are lost is found, and said, when the segment is mended.
    entry.end = to;
    Ok(())
}

/// Reads a segment's file: as one without holes, and again as a compacted one if more of it is whole then.
fn scan(
    disk: &dyn Disk,
    known: &Known<'_>,
    base: i64,
    end: i64,
    covered_from: Option<i64>,
    before: &Folded,
) -> Result<Scanned, InspectError> {
    let name = path(known.folder, Offset::new(base).unwrap_or_default(), "log");
    let io = InspectError::io(&name);
    let file = disk.open(&name, OpenMode::Read).map_err(&io)?;
    let walk = |holes| {
        let bounds = Bounds { base, end, holes };
        walk(&*file, bounds, covered_from, before, known.now_ms).map_err(&io)
    };
    let dense = walk(false)?;
    let size = file.size_bytes().map_err(&io)?;
    if dense.next == end || dense.whole_bytes == size {
        return Ok(dense);
    }
    let sparse = walk(true)?;
    Ok(if sparse.whole_bytes > dense.whole_bytes { sparse } else { dense })
}

fn walk(
    file: &dyn DiskFile,
    bounds: Bounds,
    covered_from: Option<i64>,
    before: &Folded,
    now_ms: i64,
) -> io::Result<Scanned> {
    let size = file.size_bytes()?;
    let mut scanned = Scanned {
        entry: SegmentEntry {
            base: bounds.base,
            bytes: 0,
            max_timestamp: i64::MIN,
            max_timestamp_base: bounds.base,
            last_append_ms: now_ms,
            first_append_ms: now_ms,
        },
        next: bounds.base,
        whole_bytes: 0,
        sparse: false,
        tail: None,
        covered: false,
        aborted: Vec::new(),
        folded: before.clone(),
    };
    let mut walk = Walk::new(file, bounds, size);
    let mut damaged = false;
    loop {
        let step = match walk.next() {
            Ok(step) => step,
            // A sector that cannot be read: what stands behind it may be, but not by this walk.
            Err(_) => {
                scanned.tail = Some(size);
                break;
            }
        };
        match step {
            None => break,
            Some(Step::Damage { .. }) => {
                if covered_from.is_some_and(|from| scanned.next >= from) {
                    scanned.covered = true;
                    scanned.tail = written_to(file, scanned.entry.bytes, size)?;
                    return Ok(scanned);
                }
                damaged = true;
            }
            Some(Step::Batch(whole)) => {
                let header = whole.header;
                scanned.sparse |= header.base_offset > scanned.next && !damaged;
                damaged = false;
                scanned.note(file, whole.byte, &header, now_ms)?;
                scanned.entry.bytes = whole.end();
            }
        }
    }
    if damaged && scanned.next < bounds.end {
        scanned.tail = written_to(file, scanned.entry.bytes, size)?;
    }
    Ok(scanned)
}

impl Scanned {
    fn note(
        &mut self,
        file: &dyn DiskFile,
        byte: u64,
        header: &BatchHeader,
        now_ms: i64,
    ) -> io::Result<()> {
        self.whole_bytes += header.size_bytes() as u64;
        self.next = header.last_offset() + 1;
        if header.max_timestamp > self.entry.max_timestamp {
            self.entry.max_timestamp = header.max_timestamp;
            self.entry.max_timestamp_base = header.base_offset;
        }
        let Some(base) = Offset::new(header.base_offset) else { return Ok(()) };
        let folded = &mut self.folded;
        let epoch = LeaderEpoch::new(header.partition_leader_epoch).unwrap_or_default();
        folded.note_epoch(epoch, base);
        if header.is_made_here() {
            folded.node_sequence = batch::sequence_plus(header.last_sequence(), 1);
        }
        folded.producer_ids = folded.producer_ids.max(header.producer_id.saturating_add(1));
        let marker = if header.is_control() && header.producer_id >= 0 {
            let mut bytes = vec![0; header.size_bytes()];
            read_full_at(file, &mut bytes, byte)?;
            batch::marker::end_of(&Bytes::from(bytes))
        } else {
            None
        };
        self.aborted.extend(folded.producers.apply(header, base, marker, now_ms));
        Ok(())
    }
}

impl Folded {
    /// No CRC covers a batch's epoch. One that is lower than those before it is wrong, unless it is only one batch before it that
    /// is higher: then that one is.
    fn note_epoch(&mut self, epoch: LeaderEpoch, base: Offset) {
        if self.epochs.last().is_some_and(|last| epoch < last) && self.epoch_base == self.last_base
        {
            self.epochs.cut(Offset::new(self.last_base).unwrap_or_default());
        }
        let before = self.epochs.last();
        self.epochs.appended(epoch, base);
        if self.epochs.last() != before {
            self.epoch_base = base.get();
        }
        self.last_base = base.get();
    }
}

/// Where the last byte that is not zero ends, from `from` on; `None` where all are.
fn written_to(file: &dyn DiskFile, from: u64, size: u64) -> io::Result<Option<u64>> {
    let mut piece = vec![0; PIECE_BYTES];
    let (mut at, mut end) = (from, None);
    while at < size {
        let want = (size - at).min(PIECE_BYTES as u64) as usize;
        let n = read_full_at(file, &mut piece[..want], at)?;
        if let Some(last) = piece[..n].iter().rposition(|byte| *byte != 0) {
            end = Some(at + last as u64 + 1);
        }
        if n < want {
            break;
        }
        at += n as u64;
    }
    Ok(end)
}
