//! Making what was written to segments durable: file by file, or the filesystem as a whole where many files are dirty.
//!
//! One sync of the filesystem costs about as much as those of a dozen files, and a checkpoint of 1,000 partitions has 1,000.
//! Invariant: a file is dirty from the write that made it so until a sync that began afterwards; what failed to be synced is
//! never tried again, since the directory goes offline.
//! Neighbours: `checkpoint` and `retention` gather the dirty files of a directory and sync them with [`sync_all`].

use super::{Condition, Partition};
use crate::Offset;
use crate::catalog::PartitionEntry;
use crate::segment::{Segment, path};
use crate::shared::Shared;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Up to so many files and folders are synced one by one.
const SYNC_EACH_MAX: usize = 12;

/// Files of a partition that were written to, and its folder if names in it changed.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    segments: Vec<Arc<Segment>>,
    folder: bool,
}

/// What a `memory` partition has to sync.
#[derive(Debug)]
pub(crate) enum MemoryDirty {
    Clean,
    /// Only a checkpoint would make the files findable after a crash.
    NotInCatalog,
    /// Once this is synced, everything below the offset is.
    Below(Offset, Dirty),
}

impl Dirty {
    fn count(&self) -> usize {
        self.segments.len() + usize::from(self.folder)
    }
}

/// Makes everything in `dirty` durable; after each partition whose files are synced by themselves `between` is told how many
/// nanoseconds that took, and may wait.
///
/// # Errors
/// What failed: the directory must go offline.
pub(crate) fn sync_all<'a>(
    shared: &Shared,
    dirty: impl Iterator<Item = (&'a Arc<Partition>, &'a Dirty)> + Clone,
    mut between: impl FnMut(u64),
) -> Result<(), String> {
    let count: usize = dirty.clone().map(|(_, d)| d.count()).sum();
    if count > SYNC_EACH_MAX
        && let Some(filesystem) = &shared.filesystem
    {
        return filesystem.sync().map_err(|e| format!("syncing the filesystem: {e}"));
    }
    for (partition, dirty) in dirty {
        let began = shared.clock.monotonic_ns();
        partition.sync_each(dirty)?;
        between(shared.clock.monotonic_ns().saturating_sub(began));
    }
    Ok(())
}

impl Partition {
    /// Flushes, and describes what the files hold once what is dirty is synced. Runs beside appends and commits.
    pub(crate) fn begin_checkpoint(&self) -> Result<(PartitionEntry, Dirty), String> {
        let mut writer = self.writer.lock();
        if let Some(reason) = self.shared.offline() {
            // What failed may have left this partition half done.
            return Err(reason);
        }
        self.flush_locked(&mut writer)?;
        let segments = std::mem::take(&mut writer.dirty);
        let dirty = Dirty { segments, folder: std::mem::take(&mut writer.folder_dirty) };
        Ok((self.entry(&writer), dirty))
    }

    /// What a `memory` partition has to sync between checkpoints.
    pub(crate) fn begin_memory_sync(&self) -> MemoryDirty {
        let mut writer = self.writer.lock();
        if writer.dirty.is_empty() {
            return MemoryDirty::Clean;
        }
        if !writer.in_catalog {
            return MemoryDirty::NotInCatalog;
        }
        let segments = std::mem::take(&mut writer.dirty);
        let dirty = Dirty { segments, folder: std::mem::take(&mut writer.folder_dirty) };
        MemoryDirty::Below(self.state.lock().flushed, dirty)
    }

    /// A `memory` partition's files are synced below `end`, and so are the names that lead to them.
    pub(crate) fn end_memory_sync(&self, end: Offset) {
        // A truncation meanwhile has cut it; nothing is appended again before the checkpoint that this one keeps out.
        let mut state = self.state.lock();
        self.points.synced.fetch_max(end.min(state.end).get(), Ordering::AcqRel);
        state.producers.settle(self.decided_end());
    }

    fn sync_each(&self, dirty: &Dirty) -> Result<(), String> {
        for segment in &dirty.segments {
            let synced = self.open_segment(segment).and_then(|file| file.sync_data());
            match synced {
                // Deleted or truncated meanwhile: its bytes matter no more.
                Err(e) if e.kind() == io::ErrorKind::NotFound && !self.has_segment(segment) => {}
                other => other.map_err(|e| {
                    format!("syncing {}: {e}", path(&self.folder, segment.base(), "log").display())
                })?,
            }
        }
        if dirty.folder {
            match self.shared.disk.sync_dir(&self.folder) {
                Err(e)
                    if e.kind() == io::ErrorKind::NotFound
                        && self.condition() == Condition::Deleted => {}
                other => other.map_err(|e| format!("syncing {}: {e}", self.folder.display()))?,
            }
        }
        Ok(())
    }

    fn has_segment(&self, segment: &Segment) -> bool {
        self.condition() != Condition::Deleted
            && self.segments.read().iter().any(|s| s.base() == segment.base())
    }
}
