//! Open segment files, bounded: ten thousand partitions must not need ten thousand descriptors.
//!
//! Invariant: at most `open_max` files are kept open here; a file in use stays open until its user lets go.

use crate::disk::{Disk, DiskFile, OpenMode};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Which segment: partition handle and base offset.
pub(crate) type Key = (u64, i64);

/// The cache: least recently used goes first.
#[derive(Debug)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    open_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<Key, (Arc<dyn DiskFile>, u64)>,
    tick: u64,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, open_max: usize) -> Self {
        Self { disk, open_max, open: Mutex::default() }
    }

    /// The open file of a segment, for reading and writing; it must exist.
    pub(crate) fn get(&self, key: Key, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        open.tick += 1;
        let tick = open.tick;
        if let Some((file, used)) = open.files.get_mut(&key) {
            *used = tick;
            return Ok(Arc::clone(file));
        }
        drop(open);
        let file = self.disk.open(path, OpenMode::Write)?;
        self.put(key, Arc::clone(&file));
        Ok(file)
    }

    /// Keeps a file that was just made.
    pub(crate) fn put(&self, key: Key, file: Arc<dyn DiskFile>) {
        let mut open = self.open.lock();
        open.tick += 1;
        let tick = open.tick;
        if open.files.len() >= self.open_max
            && let Some(oldest) =
                open.files.iter().min_by_key(|(_, (_, used))| *used).map(|(k, _)| *k)
        {
            open.files.remove(&oldest);
        }
        open.files.insert(key, (file, tick));
    }

    /// Lets go of a segment that is removed.
    pub(crate) fn forget(&self, key: Key) {
        self.open.lock().files.remove(&key);
    }
}
