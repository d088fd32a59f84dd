//! The files' side of compaction: what a partition says of itself to the planner, and an output taking its inputs' place.
//!
//! Readers that have an input open go on with it: its file is unlinked, not changed. An input is retired before the swap; whoever
//! opens a retired one by name asks the list of segments afterwards whether it is still that file's (`read_segment`): files and
//! list change under one lock.
//!
//! Invariant: the list of segments, the files and the number of the last swap change together, under the writer's lock, so that
//! a checkpoint never describes one without the others. Neighbours: `compaction` decides, `commit` and `recovery` call.

use super::writer::Writer;
use super::{Condition, Partition, ReadError};
use crate::compaction::swap::{CLEANED, CompactedEntry, Swap, cleaned_path};
use crate::compaction::{Facts, PassError, SegmentFacts};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::segment::txnindex::Aborted;
use crate::segment::{EXTENSIONS, Segment, path, remove_hints};
use crate::{AbortedTransaction, Offset};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// How far compaction has come.
#[derive(Debug, Default)]
pub(super) struct Compacted {
    /// Number of the last swap that was carried out, or found impossible.
    swaps: AtomicU64,
    /// Everything below has been through a pass.
    cleaned_to: AtomicI64,
}

impl Compacted {
    /// What the catalog says; marks the segments that it names.
    pub(super) fn from_entry(entry: &CompactedEntry, segments: &[Arc<Segment>]) -> Self {
        for (base, sparse, horizon_ms) in &entry.segments {
            let Some(segment) = segments.iter().find(|s| s.base().get() == *base) else { continue };
            if *sparse {
                segment.set_sparse();
            }
            segment.set_horizon(*horizon_ms);
        }
        Self { swaps: AtomicU64::new(entry.swaps), cleaned_to: AtomicI64::new(entry.cleaned_to) }
    }
}

/// Keeps the inputs of a swap from being removed one by one while it is on its way.
pub(crate) struct Pinned<'a>(&'a Partition);

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.0.writer.lock().pinned = None;
    }
}

impl Partition {
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.shared.disk
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.condition() == Condition::Deleted
    }

    /// Number of the last swap.
    pub(crate) fn swaps(&self) -> u64 {
        self.compacted.swaps.load(Ordering::Acquire)
    }

    /// A pass has come to here.
    pub(crate) fn note_cleaned_to(&self, offset: i64) {
        let end = self.high_watermark().get();
        self.compacted.cleaned_to.store(offset.min(end), Ordering::Release);
    }

    /// The segments, and what a plan is made from.
    pub(crate) fn compaction_facts(&self) -> (Vec<Arc<Segment>>, Facts) {
        let (segments, checkpointed) = self.segments_and_checkpoint();
        let positions = self.positions();
        let limit = [positions.high_watermark, positions.last_stable, positions.synced]
            .into_iter()
            .chain(self.held_from())
            .fold(checkpointed, Offset::min);
        let facts = segments.iter().map(|s| SegmentFacts {
            base: s.base().get(),
            bytes: s.written(),
            first_append_ms: s.times().first_append_ms,
            last_append_ms: s.times().last_append_ms,
            horizon_ms: s.horizon_ms(),
        });
        let facts = Facts {
            segments: facts.collect(),
            log_start: positions.log_start.get(),
            cleaned_to: self.compacted.cleaned_to.load(Ordering::Acquire),
            limit: limit.get(),
        };
        (segments, facts)
    }

    /// Transactions that were aborted and overlap with these offsets.
    pub(crate) fn aborted_within(
        &self,
        from: i64,
        to: i64,
    ) -> Result<Vec<AbortedTransaction>, PassError> {
        let offset = |n| Offset::new(n).unwrap_or_default();
        self.aborted(offset(from), offset(to)).map_err(|e| match e {
            ReadError::Deleted | ReadError::OutOfRange { .. } => PassError::Overtaken,
            e => PassError::Disk {
                path: self.folder.clone(),
                source: io::Error::other(e.to_string()),
            },
        })
    }

    /// Of each producer that is known: its epoch, and the last offset of its last batch of records.
    pub(crate) fn last_of_producers(&self) -> Vec<(i64, i16, Option<i64>)> {
        let producers = self.producers();
        producers.iter().map(|p| (p.id, p.epoch, p.last_offset.map(Offset::get))).collect()
    }

    /// A descriptor of its own: as long as it is open, unlinking the file costs nothing.
    pub(crate) fn open_input(&self, segment: &Segment) -> io::Result<Arc<dyn DiskFile>> {
        self.shared.disk.open(&path(&self.folder, segment.base(), "log"), OpenMode::Read)
    }

    /// Keeps a swap's inputs where they are, and retires them; `None` when they no longer are there.
    pub(crate) fn pin(&self, swap: &Swap) -> Option<Pinned<'_>> {
        let inputs = {
            let mut writer = self.writer.lock();
            let segments = self.segments.read();
            let first = swap.place_in(&segments).filter(|_| !self.is_deleted())?;
            writer.pinned = Offset::new(swap.output.base);
            segments[first..first + swap.inputs.len()].to_vec()
        };
        // May wait for a reader who makes an index: without a lock that a commit needs.
        inputs.iter().for_each(|input| input.retire());
        Some(Pinned(self))
    }

    /// Whether a swap can still be carried out. With the committer held, which is all that cuts segments.
    pub(crate) fn is_current(&self, swap: &Swap) -> bool {
        swap.number == self.swaps() + 1
            && !self.is_deleted()
            && swap.place_in(&self.segments.read()).is_some()
    }

    /// Carries a swap out whose frame is synced; `false` when its inputs are gone. By the committer, before the cycle counts as
    /// published: a checkpoint that captures the cycle describes the output, and syncs the folder. Commits wait for this, so it is
    /// no more than five system calls; [`Partition::remove_inputs`] does the rest. An error takes the directory offline, before
    /// anybody else has the writer: no checkpoint may describe what is half swapped, and the next start finishes it.
    pub(crate) fn swap_in(&self, swap: &Swap, output: &Arc<Segment>) -> Result<bool, String> {
        let mut writer = self.writer.lock();
        let done = self.swap_in_locked(&mut writer, swap, output);
        done.inspect_err(|reason| self.shared.go_offline(reason.clone()))
    }

    fn swap_in_locked(
        &self,
        writer: &mut Writer,
        swap: &Swap,
        output: &Arc<Segment>,
    ) -> Result<bool, String> {
        let mut segments = self.segments.write();
        self.compacted.swaps.store(swap.number, Ordering::Release);
        if self.is_deleted() {
            return Ok(false);
        }
        let Some(first) = swap.place_in(&segments) else { return Ok(false) };
        let inputs = first..first + swap.inputs.len();
        let cleaned = cleaned_path(&self.folder, output.base(), swap.number);
        let log = path(&self.folder, output.base(), "log");
        let placed = self
            .remove_first_hints(output.base())
            .and_then(|()| self.disk().rename(&cleaned, &log));
        placed.map_err(|e| format!("compaction of {self:?}: {e}"))?;
        for input in &segments[inputs.clone()] {
            self.shared.forget_segment(input.key());
        }
        segments.splice(inputs, [Arc::clone(output)]);
        writer.folder_dirty = true;
        self.label_later(output);
        Ok(true)
    }

    /// Before the output comes: under its name nothing must be left that was derived from an input.
    fn remove_first_hints(&self, base: Offset) -> io::Result<()> {
        remove_hints(self.disk(), &self.folder, base)?;
        absent(self.disk().remove_file(&path(&self.folder, base, "txnindex")))
    }

    /// Removes what no segment has any more, once the output is in its place. Nobody opens these files: what is left after a crash
    /// or an error takes room until [`Partition::remove_leftovers`].
    pub(crate) fn remove_inputs(&self, swap: &Swap) {
        // Nor is what has gone from the files served from memory, if it is there still.
        let end = self.segment_of(Offset::new(swap.output.base).unwrap_or_default());
        if let Some((_, Some(end))) = end {
            self.evict(end);
        }
        // Not beside the renaming of a deleted topic's folder.
        let _removal = self.removal.lock();
        if self.is_deleted() {
            return;
        }
        if let Err(e) = self.remove_other_inputs(swap) {
            tracing::warn!(partition = ?self, error = %e, "could not remove a compacted segment");
        }
    }

    fn remove_other_inputs(&self, swap: &Swap) -> io::Result<()> {
        for (base, _) in swap.inputs.iter().skip(1) {
            let base = Offset::new(*base).unwrap_or_default();
            for extension in EXTENSIONS {
                absent(self.disk().remove_file(&path(&self.folder, base, extension)))?;
            }
        }
        Ok(())
    }

    /// Recovery: carries out what the journal says was decided, whatever of it was done before the crash. Again and again, if it
    /// is cut short itself. Returns what a person should know.
    pub(crate) fn finish_swaps(&self, swaps: &[Swap]) -> io::Result<Vec<String>> {
        let mut writer = self.writer.lock();
        let mut segments = self.segments.write();
        let new = swaps.partition_point(|swap| swap.number <= self.swaps());
        let swaps = &swaps[new..];
        let mut findings = Vec::new();
        for (swap, fate) in swaps.iter().zip(fates(swaps, &segments)) {
            self.compacted.swaps.store(swap.number, Ordering::Release);
            let base = Offset::new(swap.output.base).unwrap_or_default();
            let cleaned = cleaned_path(&self.folder, base, swap.number);
            match fate {
                // Its inputs were cut off before it could be carried out.
                None => {
                    absent(self.disk().remove_file(&cleaned))?;
                    continue;
                }
                // The next one's output was made, and its folder synced, after this one was carried out.
                Some(Fate::Superseded) => {}
                Some(Fate::Last) => {
                    if let Err(finding) = self.finish_files(swap, &cleaned, base)? {
                        findings.push(finding);
                        continue;
                    }
                }
            }
            let Some(first) = swap.place_in(&segments) else { continue };
            let inputs = first..first + swap.inputs.len();
            for input in &segments[inputs.clone()] {
                self.shared.forget_segment(input.key());
            }
            segments.splice(inputs, [output_of(swap)]);
            writer.folder_dirty = true;
        }
        Ok(findings)
    }

    fn finish_files(
        &self,
        swap: &Swap,
        cleaned: &Path,
        base: Offset,
    ) -> io::Result<Result<(), String>> {
        let log = path(&self.folder, base, "log");
        let size = |name: &Path| match self.disk().open(name, OpenMode::Read) {
            Ok(file) => file.size_bytes().map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        };
        let (output, there, wanted) = (size(cleaned)?, size(&log)?, swap.output.bytes);
        if output == Some(wanted) {
            self.remove_first_hints(base)?;
            self.disk().rename(cleaned, &log)?;
        } else if output.is_none() && (there == Some(wanted) || there.is_none()) {
            // Renamed before the crash; and not there at all if retention took it since, which the log start then tells.
            self.remove_first_hints(base)?;
        } else {
            return Ok(Err(format!(
                "{self:?}: the compacted segment {} should have {wanted} bytes and has {output:?}; what it was made from stays",
                cleaned.display(),
            )));
        }
        self.remove_other_inputs(swap)?;
        Ok(Ok(()))
    }

    /// Whether this is still one of the segments, and its name its own.
    pub(super) fn is_listed(&self, segment: &Arc<Segment>) -> bool {
        self.segments.read().iter().any(|s| Arc::ptr_eq(s, segment))
    }

    /// Writes the indexes of an output that is in its place.
    pub(crate) fn seal_output(&self, output: &Segment) {
        self.shared.indexes.seal(output, &self.folder);
        output.store_aborted(self.disk(), &self.folder);
    }

    /// Removes what a crash left of a pass: outputs that no frame speaks of, and inputs whose output the catalog has.
    pub(crate) fn remove_leftovers(&self) {
        let entries = match self.disk().list(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => {
                return tracing::warn!(partition = ?self, error = %e, "could not look for leftovers");
            }
        };
        // After the files: one that came meanwhile is here, or lies behind all of these.
        let bases: Vec<i64> = self.segments.read().iter().map(|s| s.base().get()).collect();
        let newest = bases.last().copied().unwrap_or(0);
        let is_input = |name: &str| {
            let base = name.split('.').next().and_then(|base| base.parse::<i64>().ok());
            base.is_some_and(|base| base < newest && bases.binary_search(&base).is_err())
        };
        let left = entries.iter().filter(|e| e.name.ends_with(CLEANED) || is_input(&e.name));
        for entry in left {
            let removed = absent(self.disk().remove_file(&self.folder.join(&entry.name)));
            if let Err(e) = removed {
                tracing::warn!(partition = ?self, file = entry.name, error = %e, "could not remove a leftover");
            }
        }
    }

    /// What the catalog keeps. With the writer locked.
    pub(super) fn compacted_entry(&self, _writer: &Writer) -> CompactedEntry {
        let segments = self.segments.read();
        let marked = segments.iter().filter(|s| s.is_sparse() || s.horizon_ms().is_some());
        CompactedEntry {
            swaps: self.swaps(),
            cleaned_to: self.compacted.cleaned_to.load(Ordering::Acquire),
            segments: marked.map(|s| (s.base().get(), s.is_sparse(), s.horizon_ms())).collect(),
        }
    }
}

/// What is to be done for a swap that the journal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// A later one took its output as input.
    Superseded,
    Last,
}

/// Follows swaps over a list of segments; `None` for one whose inputs are not there when its turn comes.
fn fates(swaps: &[Swap], segments: &[Arc<Segment>]) -> Vec<Option<Fate>> {
    let mut segments = segments.to_vec();
    let mut fates: Vec<Option<Fate>> = Vec::with_capacity(swaps.len());
    for swap in swaps {
        let place = swap.place_in(&segments);
        if let Some(first) = place {
            for (before, fate) in swaps.iter().zip(&mut fates) {
                let taken = swap.inputs.iter().any(|(base, _)| *base == before.output.base);
                *fate = fate.map(|fate| if taken { Fate::Superseded } else { fate });
            }
            segments.splice(first..first + swap.inputs.len(), [output_of(swap)]);
        }
        fates.push(place.map(|_| Fate::Last));
    }
    fates
}

fn output_of(swap: &Swap) -> Arc<Segment> {
    let segment = Segment::from_entry(&swap.output, true);
    segment.set_sparse();
    segment.set_horizon(swap.horizon_ms);
    segment.set_aborted(Aborted::Here(swap.aborted.clone()));
    Arc::new(segment)
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
