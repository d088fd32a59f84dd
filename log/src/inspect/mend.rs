//! Segments of one partition: what is whole goes on being served, what is not goes aside, and the offsets in between are known
//! to be lost.
//!
//! A damaged segment becomes one new segment per unbroken run of good batches (a compacted one, where holes are legal, stays one).
//! Order, so that a crash at any point leaves a directory that can be mended again: the new files are written beside the old
//! as `<20 digits>.log.mended` and synced; then the catalog names them and the lost offsets; then the old files are
//! moved aside and the new ones take their names.
//!
//! Invariant: a new file holds batches of the old one, each of which was whole, byte for byte but for a leader epoch that rotted:
//! it lies outside the CRC, and the catalog knows it too.
//! Neighbours: [`super::segment`] finds the runs, [`super::repair`] runs this over all partitions, [`super::quarantine`].

use super::quarantine::Quarantine;
use super::segment::{Bounds, Step, Walk};
use super::survey::InspectError;
use crate::catalog::{PartitionEntry, SegmentEntry};
use crate::disk::{Disk, DiskFile, OpenMode, read_full_at};
use crate::partition::epochs::Epochs;
use crate::segment::{HINTS, path};
use crate::{LeaderEpoch, Offset};
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

const PIECE_BYTES: usize = 1 << 20;
/// Where a batch has its leader epoch.
const EPOCH_AT: u64 = 12;
/// What a new file is called until the catalog names it.
const MENDED: &str = "log.mended";

/// Good batches without a break.
#[derive(Debug)]
struct Run {
    entry: SegmentEntry,
    end: i64,
    /// Bytes of the old file: from, to.
    pieces: Vec<(u64, u64)>,
    /// Leader epochs that are to be other ones: where the batch begins in the new file, and the epoch.
    epochs: Vec<(u64, LeaderEpoch)>,
}

/// Judges a partition's segments anew, and writes what is whole of the damaged ones beside them. `entry` says afterwards what
/// there will be; `false` when it is as it was. `sparse`: segments in which compaction may have left holes.
pub(crate) fn partition(
    disk: &dyn Disk,
    folder: &Path,
    name: &str,
    entry: &mut PartitionEntry,
    sparse: &BTreeSet<i64>,
    quarantine: &mut Quarantine<'_>,
) -> Result<bool, InspectError> {
    let mut segments = Vec::with_capacity(entry.segments.len());
    let mut lost: Vec<(i64, i64)> = Vec::new();
    let mut next = entry.log_start;
    let mut changed = entry.offline;
    for (i, segment) in entry.segments.iter().enumerate() {
        let end = entry.segments.get(i + 1).map_or(entry.end, |next| next.base);
        let holes = sparse.contains(&segment.base);
        if segment.base > next && !holes {
            lost.push((next, segment.base));
        }
        let bounds = Bounds { base: segment.base, end, holes };
        let file = path(folder, Offset::new(segment.base).unwrap_or_default(), "log");
        let found = runs(disk, &file, segment, bounds, &entry.epochs)?;
        let is_same = |run: &Run| run.entry == *segment && run.epochs.is_empty();
        let whole = matches!(&found.runs[..], [run] if is_same(run)) && found.lost.is_empty();
        lost.extend(&found.lost);
        next = end;
        if whole {
            segments.push(*segment);
            continue;
        }
        changed = true;
        let left: u64 = found.runs.iter().map(|run| run.entry.bytes).sum();
        quarantine.note(format!(
            "{name}: {left} of {} bytes of {} are whole and go on being served",
            segment.bytes,
            file.display()
        ))?;
        for run in found.runs {
            for (byte, epoch) in &run.epochs {
                quarantine.note(format!(
                    "{name}: the batch at byte {byte} gets leader epoch {epoch} again"
                ))?;
            }
            write(disk, folder, &file, &run)?;
            segments.push(run.entry);
        }
    }
    if next < entry.end {
        lost.push((next, entry.end));
    }
    let mut known = joined(std::mem::take(&mut entry.lost));
    lost.retain(|(first, end)| !known.iter().any(|(from, to)| from <= first && end <= to));
    for (first, end) in &lost {
        changed = true;
        quarantine.note(format!("{name}: offsets {first} to {} are lost", end - 1))?;
    }
    entry.offline = false;
    // Judged: it is among what is lost, or it is whole.
    entry.damaged.clear();
    known.extend(lost);
    entry.lost = joined(known);
    // What was known of aborted transactions holds for each part.
    let bases: Vec<i64> = segments.iter().map(|s| s.base).collect();
    let mut aborted = Vec::new();
    for base in &bases {
        let known = entry.aborted.iter().rev().find(|(of, _)| of <= base);
        if let Some((of, list)) = known
            && (of == base || !bases.contains(of) || entry.segments.iter().all(|s| s.base != *base))
        {
            aborted.push((*base, list.clone()));
        }
    }
    entry.aborted = aborted;
    entry.segments = segments;
    Ok(changed)
}

/// Ranges that meet or overlap become one: what two segments lost side by side is later seen as one hole.
fn joined(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let meets = next.0 <= before.1;
        if meets {
            before.1 = before.1.max(next.1);
        }
        meets
    });
    ranges
}

struct Found {
    runs: Vec<Run>,
    lost: Vec<(i64, i64)>,
}

fn runs(
    disk: &dyn Disk,
    name: &Path,
    segment: &SegmentEntry,
    bounds: Bounds,
    epochs: &Epochs,
) -> Result<Found, InspectError> {
    let (mut runs, mut lost): (Vec<Run>, Vec<(i64, i64)>) = (Vec::new(), Vec::new());
    let file = match disk.open(name, OpenMode::Read) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Found { runs, lost: vec![(bounds.base, bounds.end)] });
        }
        file => file.map_err(InspectError::io(name))?,
    };
    let size = file.size_bytes().map_err(InspectError::io(name))?;
    let mut walk = Walk::new(&*file, bounds, segment.bytes.min(size));
    // Where the offsets end that a hole of a compacted segment may stand for.
    let mut damaged_from = None;
    loop {
        let before = walk.offset();
        match walk.next() {
            Ok(None) => break,
            // Sectors that cannot be read: nothing behind them is served from here.
            Err(_) => {
                damaged_from = damaged_from.or(Some(before));
                break;
            }
            Ok(Some(Step::Damage { .. })) => damaged_from = damaged_from.or(Some(before)),
            Ok(Some(Step::Batch(whole))) => {
                let header = whole.header;
                if let Some(first) = damaged_from.take() {
                    lost.push((first, header.base_offset));
                }
                let follows = runs
                    .last()
                    .is_some_and(|run: &Run| bounds.holes || run.end == header.base_offset);
                if !follows {
                    runs.push(Run {
                        entry: SegmentEntry {
                            base: if bounds.holes { bounds.base } else { header.base_offset },
                            bytes: 0,
                            max_timestamp: i64::MIN,
                            max_timestamp_base: header.base_offset,
                            ..*segment
                        },
                        end: header.base_offset,
                        pieces: Vec::new(),
                        epochs: Vec::new(),
                    });
                }
                let Some(run) = runs.last_mut() else { continue };
                match run.pieces.last_mut() {
                    Some(piece) if piece.1 == whole.byte => piece.1 = whole.end(),
                    _ => run.pieces.push((whole.byte, whole.end())),
                }
                // No CRC covers it, so a batch with a wrong one is whole.
                let known = Offset::new(header.base_offset).and_then(|base| epochs.of(base));
                if let Some(epoch) = known.filter(|e| e.get() != header.partition_leader_epoch) {
                    run.epochs.push((run.entry.bytes, epoch));
                }
                run.entry.bytes += header.size_bytes() as u64;
                run.end = header.last_offset() + 1;
                if header.max_timestamp > run.entry.max_timestamp {
                    run.entry.max_timestamp = header.max_timestamp;
                    run.entry.max_timestamp_base = header.base_offset;
                }
            }
        }
    }
    let reached = walk.offset();
    let short = size < segment.bytes && !bounds.holes;
    if let Some(first) = damaged_from {
        lost.push((first, bounds.end));
    } else if reached < bounds.end && (short || !bounds.holes) {
        lost.push((reached, bounds.end));
    }
    Ok(Found { runs, lost })
}

fn mended(folder: &Path, base: i64) -> PathBuf {
    path(folder, Offset::new(base).unwrap_or_default(), MENDED)
}

/// Writes a run beside its segment, and syncs it.
fn write(disk: &dyn Disk, folder: &Path, from: &Path, run: &Run) -> Result<(), InspectError> {
    let name = mended(folder, run.entry.base);
    let io = InspectError::io(&name);
    let source = disk.open(from, OpenMode::Read).map_err(InspectError::io(from))?;
    let file = disk.open(&name, OpenMode::Truncate).map_err(&io)?;
    let mut to = 0;
    for (first, end) in &run.pieces {
        copy(&*source, &*file, *first, *end, to).map_err(&io)?;
        to += end - first;
    }
    for (batch, epoch) in &run.epochs {
        let bytes = epoch.get().to_be_bytes();
        file.write_at(&[IoSlice::new(&bytes)], batch + EPOCH_AT).map_err(&io)?;
    }
    file.sync_data().map_err(&io)?;
    disk.sync_dir(folder).map_err(InspectError::io(folder))
}

fn copy(from: &dyn DiskFile, to: &dyn DiskFile, first: u64, end: u64, at: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut done = 0;
    while first + done < end {
        let want = (end - first - done).min(PIECE_BYTES as u64) as usize;
        if read_full_at(from, &mut piece[..want], first + done)? < want {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(&[IoSlice::new(&piece[..want])], at + done)?;
        done += want as u64;
    }
    Ok(())
}

/// Lets files that the catalog names take their names: what bears them, and what no longer counts, goes aside. For after the
/// catalog was written, and for a repair that was cut short there.
pub(crate) fn swap(
    disk: &dyn Disk,
    folder: &Path,
    entry: &PartitionEntry,
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    let files = match disk.list(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files.map_err(InspectError::io(folder))?,
    };
    for file in &files {
        let Some(base) = file.name.strip_suffix(&format!(".{MENDED}")) else { continue };
        let base: i64 = base.parse().unwrap_or(-1);
        let name = folder.join(&file.name);
        let open = disk.open(&name, OpenMode::Read).map_err(InspectError::io(&name))?;
        let size = open.size_bytes().map_err(InspectError::io(&name))?;
        let named = entry.segments.iter().any(|s| s.base == base && s.bytes == size);
        if !named {
            quarantine.put(&name, "left by a repair that was cut short")?;
            continue;
        }
        set_aside(disk, folder, base, "the damaged segment, as it was", quarantine)?;
        let log = path(folder, Offset::new(base).unwrap_or_default(), "log");
        disk.rename(&name, &log).map_err(InspectError::io(&name))?;
        disk.sync_dir(folder).map_err(InspectError::io(folder))?;
    }
    // Segments of which nothing is whole.
    for file in &files {
        let Some(base) = file.name.strip_suffix(".log").and_then(|b| b.parse::<i64>().ok()) else {
            continue;
        };
        let within = entry.lost.iter().any(|(first, end)| (*first..*end).contains(&base));
        if within && entry.segments.iter().all(|s| s.base != base) {
            set_aside(disk, folder, base, "nothing of it is whole", quarantine)?;
        }
    }
    Ok(())
}

/// Moves a segment's log and its hints, which are those of what it was.
pub(super) fn set_aside(
    disk: &dyn Disk,
    folder: &Path,
    base: i64,
    why: &str,
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    let base = Offset::new(base).unwrap_or_default();
    for extension in HINTS.iter().chain(&["log"]) {
        let name = path(folder, base, extension);
        if disk.open(&name, OpenMode::Read).is_ok() {
            quarantine.put(&name, why)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn ranges_that_meet_are_one() {
        assert_eq!(super::joined(vec![(10, 11), (0, 10), (3, 4), (13, 15)]), [(0, 11), (13, 15)]);
    }
}
