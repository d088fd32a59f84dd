//! Open segment files, bounded: ten thousand partitions must not need ten thousand descriptors.
//!
//! Invariant: at most `open_max` files are kept open here; a file in use stays open until its user lets go.
//! Neighbours: `cache` decides which are closed, `partition` opens through it.

use super::Key;
use super::cache::Cache;
use crate::disk::{Disk, DiskFile, OpenMode};
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The files that were used lately.
#[derive(Debug)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    open: Mutex<Cache<Key, Arc<dyn DiskFile>>>,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, open_max: usize) -> Self {
        Self { disk, open: Mutex::new(Cache::new(open_max)) }
    }

    /// The open file of a segment, for reading and writing; it must exist.
    pub(crate) fn get(&self, key: Key, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().get(&key) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(path, OpenMode::Write)?;
        self.put(key, Arc::clone(&file));
        Ok(file)
    }

    /// Keeps a file that was just made.
    pub(crate) fn put(&self, key: Key, file: Arc<dyn DiskFile>) {
        let closed = self.open.lock().put(key, file);
        // Closing is a system call: not under the lock.
        drop(closed);
    }

    /// Lets go of a segment that is removed.
    pub(crate) fn forget(&self, key: Key) {
        let closed = self.open.lock().remove(&key);
        drop(closed);
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().len()
    }
}
