//! Label indexes at work: loaded from their files, built where they are missing or wrong, a bounded number of them mapped.
//!
//! They are built after sealing, by the upkeep and at its pace, and by a reader that needs one and finds none: by the same
//! [`LabelIndexes::of`].
//!
//! Invariant: one at a time builds that of a segment, and none is written of a segment whose name is another's.
//! Neighbours: `labels` has the format, `partition::labels` and `retention` call.

use super::cache::Cache;
use super::indexes::write_anew;
use super::labels::{Labeller, Labels, build, bytes_max};
use super::read::Reading;
use super::{Key, path};
use crate::disk::{Disk, Map};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Label indexes that are loaded: up to a twentieth of a segment each, and in 32 bits they are not mapped.
const LOADED_MAX: usize = if cfg!(target_pointer_width = "64") { 256 } else { 4 };

/// Those of a directory.
#[derive(Debug)]
pub(crate) struct LabelIndexes {
    disk: Arc<dyn Disk>,
    labeller: Option<Labeller>,
    loaded: Mutex<Cache<Key, Arc<Labels<Map>>>>,
    /// Built since the start.
    pub(crate) built: AtomicU64,
}

impl LabelIndexes {
    pub(crate) fn new(disk: Arc<dyn Disk>, labeller: Option<Labeller>) -> Self {
        let loaded = Mutex::new(Cache::new(LOADED_MAX));
        Self { disk, labeller, loaded, built: AtomicU64::new(0) }
    }

    /// Whether there are any: somebody says what a label is.
    pub(crate) fn is_on(&self) -> bool {
        self.labeller.is_some()
    }

    /// The index of a sealed segment: loaded, else from its file, else built. `None` without a labeller.
    pub(crate) fn of(&self, reading: &Reading<'_>) -> io::Result<Option<Arc<Labels<Map>>>> {
        let Some(labeller) = &self.labeller else { return Ok(None) };
        let segment = reading.segment;
        if let Some(labels) = self.loaded.lock().get(&segment.key()) {
            return Ok(Some(Arc::clone(labels)));
        }
        let _one = segment.labelling.lock();
        if let Some(labels) = self.loaded.lock().get(&segment.key()) {
            return Ok(Some(Arc::clone(labels)));
        }
        let name = path(reading.folder, segment.base(), "labels");
        // Whatever the reason that it cannot be had, it can be made.
        let stored = self.disk.map(&name, bytes_max(segment.written())).ok();
        let stored = match stored {
            Some(map) => Labels::open(map, labeller.id, reading)?,
            None => None,
        };
        let labels = match stored {
            Some(labels) => labels,
            None => {
                let bytes = build(reading, labeller)?;
                self.built.fetch_add(1, Ordering::Relaxed);
                // A hint: if it cannot be written this process has it in memory, and another builds it again.
                let written =
                    !segment.is_retired() && write_anew(&*self.disk, &name, &bytes).is_ok();
                let mapped = written.then(|| self.disk.map(&name, bytes.len() as u64).ok());
                let same = mapped.flatten().filter(|map| map[..] == bytes[..]);
                let map = same.unwrap_or_else(|| bytes.into());
                let labels = Labels::open(map, labeller.id, reading)?;
                labels
                    .ok_or_else(|| io::Error::other("a label index does not open as it was made"))?
            }
        };
        let labels = Arc::new(labels);
        let evicted = self.loaded.lock().put(segment.key(), Arc::clone(&labels));
        // Unmapping is a system call: not under the lock.
        drop(evicted);
        Ok(Some(labels))
    }

    /// Lets go of what is loaded of a segment that is removed, cut or replaced.
    pub(crate) fn forget(&self, key: Key) {
        let gone = self.loaded.lock().remove(&key);
        drop(gone);
    }
}
