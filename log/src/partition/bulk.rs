//! A partition's side of bulk: when much waits, its batches are written to the segment before the journal knows of them.
//!
//! Invariant: while a job is under way nothing else is committed here, so what is planned for its batches stays theirs, and the
//! bytes in front of them do not change.
//! Neighbours: `crate::bulk` has the order of things; `commit` takes, `writer` plans and reserves.

use super::state::State;
use super::{Condition, Partition, PlanError, Taken};
use crate::Offset;
use crate::bulk::Job;
use crate::catalog::PartitionEntry;
use crate::journal::cycle::Extent;
use crate::segment::{Segment, path};
use std::io::{self, IoSlice};
use std::sync::{Arc, Weak};

/// A job takes no more than this, but for a batch that is larger by itself. Bounds the memory of a recovery, which reads an
/// extent as a whole, and lets the next megabytes gather while these are written.
pub(super) const BULK_BYTES_MAX: usize = 8 << 20;

/// Whether this partition's batches may go to its segment ahead of the journal.
#[derive(Debug, Default)]
pub(super) enum Bulk {
    /// The catalog does not say that they may.
    #[default]
    Unmarked,
    /// The next catalog will.
    Asked,
    Marked,
    UnderWay(Weak<Job>),
}

impl Bulk {
    pub(super) fn of_catalog(marked: bool) -> Self {
        if marked { Self::Marked } else { Self::Unmarked }
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self, Self::UnderWay(_))
    }

    /// Whether a catalog written now is to say that bytes may lie beyond what it describes.
    pub(super) fn is_marked(&self) -> bool {
        !matches!(self, Self::Unmarked)
    }
}

impl Partition {
    /// Whether what waits is to be taken in bulk.
    pub(super) fn takes_bulk(&self, state: &mut State, bulk_at: usize) -> bool {
        if self.topic.is_internal() || self.is_memory() || self.is_replicated() {
            return false;
        }
        let ready = state.ready_bytes();
        match state.bulk {
            _ if ready < bulk_at => false,
            Bulk::Marked => true,
            Bulk::Unmarked => {
                state.bulk = Bulk::Asked;
                self.shared.bulk.wish();
                false
            }
            Bulk::Asked | Bulk::UnderWay(_) => false,
        }
    }

    /// Whether something is on its way to the segment ahead of the journal.
    pub(crate) fn is_in_bulk(&self) -> bool {
        self.state.lock().bulk.is_under_way()
    }

    /// A catalog with this entry was persisted.
    pub(super) fn note_marked(&self, entry: &PartitionEntry) {
        let mut state = self.state.lock();
        if entry.bulk && matches!(state.bulk, Bulk::Asked) {
            state.bulk = Bulk::Marked;
        }
    }

    pub(crate) fn begin_bulk(&self, job: &Arc<Job>) {
        let mut state = self.state.lock();
        state.bulk = Bulk::UnderWay(Arc::downgrade(job));
        // Appends need not wake the commit thread for nothing.
        state.queued = true;
    }

    /// Cycles take from it again.
    pub(crate) fn end_bulk(&self) {
        let mut state = self.state.lock();
        state.bulk = Bulk::Marked;
        state.queued = false;
        drop(state);
        self.requeue();
    }

    /// A truncation is journalled: what is on its way must not be, and is not written any more when this returns.
    pub(crate) fn cancel_bulk(&self) {
        let job = match &self.state.lock().bulk {
            Bulk::UnderWay(job) => job.upgrade(),
            _ => None,
        };
        // Without the partition's locks: the thread that writes it takes them.
        let Some(job) = job else { return };
        job.cancel();
        let mut writer = self.writer.lock();
        self.unplan(&mut writer, &self.state.lock());
    }

    /// Writes batches behind what is committed, and syncs them: file by file, and the names that lead to them.
    /// None for a deleted topic.
    pub(crate) fn write_extents(&self, taken: &Taken) -> Result<Vec<Extent>, PlanError> {
        match self.try_write_extents(taken) {
            // Its files are being moved aside and removed.
            Err(_) if self.condition() == Condition::Deleted => Ok(Vec::new()),
            other => other,
        }
    }

    fn try_write_extents(&self, taken: &Taken) -> Result<Vec<Extent>, PlanError> {
        // They lie behind what was committed before, which has to be there first.
        self.flush().map_err(PlanError::Io)?;
        let (segments, named) = {
            let writer = self.writer.lock();
            (self.segments.read().clone(), writer.named)
        };
        let mut extents = Vec::new();
        let mut files = Vec::new();
        for run in taken.batches.chunk_by(|a, b| a.segment == b.segment) {
            let segment = segments.iter().rfind(|s| s.base() == run[0].segment);
            let gone = || PlanError::Io(format!("{self:?} lost a segment that is written to"));
            let segment = segment.ok_or_else(gone)?;
            let slices: Vec<IoSlice<'_>> = run.iter().map(|b| IoSlice::new(&b.bytes)).collect();
            let file = self.open_segment(segment).map_err(|e| self.bulk_error(segment, &e))?;
            let byte = segment.written();
            file.write_at(&slices, byte).map_err(|e| self.bulk_error(segment, &e))?;
            let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
            run.iter().for_each(|b| digest.update(&b.bytes));
            let length: usize = run.iter().map(|b| b.bytes.len()).sum();
            let last = run.last().map_or(run[0].last, |b| b.last);
            extents.push(Extent {
                segment: segment.base(),
                byte,
                // Bounded by what a job takes.
                length: u32::try_from(length).unwrap_or(u32::MAX),
                crc: digest.finalize() as u32,
                first: run[0].base,
                end: last.plus(1),
            });
            files.push((segment, file));
        }
        for (segment, file) in &files {
            file.sync_data().map_err(|e| self.bulk_error(segment, &e))?;
        }
        let newest = files.last().map(|(segment, _)| segment.base());
        if newest > named {
            self.sync_names()?;
            self.writer.lock().named = newest;
        }
        Ok(extents)
    }

    /// Makes the names in the folder durable, and its own.
    fn sync_names(&self) -> Result<(), PlanError> {
        let io = |e: io::Error| PlanError::Io(format!("syncing {}: {e}", self.folder.display()));
        self.shared.disk.sync_dir(&self.folder).map_err(io)?;
        match self.folder.parent() {
            Some(topics) => self.shared.sync_topics(topics).map_err(PlanError::Io),
            None => Ok(()),
        }
    }

    fn bulk_error(&self, segment: &Segment, error: &io::Error) -> PlanError {
        let name = path(&self.folder, segment.base(), "log");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PlanError::Full,
            _ => PlanError::Io(format!("writing and syncing {}: {error}", name.display())),
        }
    }

    /// The cycle that names the extents is synced: their batches are committed, and in their segment.
    pub(crate) fn publish_extents(&self, taken: &Taken) -> Result<(), String> {
        self.publish(taken);
        let mut writer = self.writer.lock();
        self.flush_placed(&mut writer, true)?;
        drop(writer);
        self.end_bulk();
        Ok(())
    }

    /// The bytes of an extent, whatever they are by now; fewer where the file ends.
    pub(crate) fn read_extent(&self, extent: &Extent) -> io::Result<Vec<u8>> {
        let file = self
            .shared
            .disk
            .open(&path(&self.folder, extent.segment, "log"), crate::disk::OpenMode::Read)?;
        // What is not there must not be paid for in memory.
        let size = file.size_bytes()?.saturating_sub(extent.byte);
        let mut bytes = vec![0; size.min(u64::from(extent.length)) as usize];
        let n = crate::disk::read_full_at(&*file, &mut bytes, extent.byte)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    /// A recovery keeps these offsets in the segment that begins with the first of each range: the journal says where in it
    /// some of them lie.
    pub(crate) fn keep_layout(&self, spans: Vec<(Offset, Offset)>) {
        self.writer.lock().kept = spans;
    }

    /// Whether bytes may lie in its files that neither the catalog nor the journal speaks of.
    pub(crate) fn may_have_more(&self) -> bool {
        self.state.lock().bulk.is_marked()
    }
}
