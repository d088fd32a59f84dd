//! Loading, writing and making anew the offset and time indexes of segments; a bounded number of them is loaded.
//!
//! A segment that grows has its indexes in memory ([`Growing`]), or nowhere until a reader needs them. When it is sealed both
//! files are written; a reader of a sealed segment gets them mapped ([`crate::disk::Map`] has the rules). Missing, implausible
//! or lying ones are made anew from the log, by [`Growing`] too: there is one way to make an index.
//!
//! Invariant: a file that may be mapped is never written to: it is unlinked and made again, under the segment's lock.
//! Neighbours: `index` has the formats, `read` asks, `partition::writer` seals.

use super::cache::Cache;
use super::index::{Growing, INTERVAL_BYTES, Offsets, Times};
use super::scan::Scan;
use super::{Key, Segment, path};
use crate::disk::{Disk, DiskFile, Map, OpenMode};
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sealed segments whose indexes are loaded: addresses are short in 32 bits, and nothing is mapped there.
const LOADED_MAX: usize = if cfg!(target_pointer_width = "64") { 256 } else { 16 };

/// Both indexes of a sealed segment.
#[derive(Debug)]
pub(crate) struct Sealed {
    offsets: Map,
    times: Map,
}

impl Sealed {
    pub(crate) fn offsets(&self) -> Offsets<'_> {
        Offsets(&self.offsets)
    }

    pub(crate) fn times(&self) -> Times<'_> {
        Times(&self.times)
    }
}

/// The loaded ones of a log.
#[derive(Debug)]
pub(crate) struct Indexes {
    disk: Arc<dyn Disk>,
    loaded: Mutex<Cache<Key, Arc<Sealed>>>,
    /// Made anew because the stored ones were missing or wrong.
    pub(crate) rebuilt: AtomicU64,
}

impl Indexes {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        let loaded = Mutex::new(Cache::new(LOADED_MAX));
        Self { disk, loaded, rebuilt: AtomicU64::new(0) }
    }

    /// Runs `look` on the indexes of a growing segment, which are made first if need be: as far as the batch with `target`
    /// (an offset less the base), so that a reader who follows a log that it has just opened does not wait for all of it.
    pub(crate) fn of_growing<T>(
        &self,
        segment: &Segment,
        file: &dyn DiskFile,
        target: i64,
        look: impl FnOnce(Offsets<'_>, Times<'_>) -> T,
    ) -> io::Result<T> {
        let mut state = segment.growing.lock();
        let growing = state.get_or_insert_default();
        // What was written while another reader was at this, or before this process.
        extend(growing, segment, file, target)?;
        let answer = look(growing.offsets(), growing.times());
        if segment.is_sealed() {
            // Since this reader looked: others get it from the files.
            *state = None;
        }
        Ok(answer)
    }

    /// The indexes of a sealed segment: loaded, else from their files, else made anew.
    pub(crate) fn of_sealed(
        &self,
        segment: &Segment,
        file: &dyn DiskFile,
        folder: &Path,
    ) -> io::Result<Arc<Sealed>> {
        if let Some(sealed) = self.loaded.lock().get(&segment.key()) {
            return Ok(Arc::clone(sealed));
        }
        // One at a time makes them; who waited finds them made.
        let mut growing = segment.growing.lock();
        if let Some(sealed) = self.loaded.lock().get(&segment.key()) {
            return Ok(Arc::clone(sealed));
        }
        let sealed = match growing.take().filter(|g| g.covered == segment.written()) {
            Some(whole) => self.store(segment, folder, whole),
            None => match self.load(segment, file, folder)? {
                Some(sealed) => sealed,
                None => self.rebuild(segment, file, folder)?,
            },
        };
        Ok(self.keep(segment.key(), sealed))
    }

    /// Makes them anew because they were found to lie: `than` are the ones that did.
    pub(crate) fn anew(
        &self,
        segment: &Segment,
        file: &dyn DiskFile,
        folder: &Path,
        than: &Arc<Sealed>,
    ) -> io::Result<Arc<Sealed>> {
        let _one = segment.growing.lock();
        // Another reader may have found it first.
        if let Some(sealed) =
            self.loaded.lock().get(&segment.key()).filter(|s| !Arc::ptr_eq(s, than))
        {
            return Ok(Arc::clone(sealed));
        }
        let sealed = self.rebuild(segment, file, folder)?;
        Ok(self.keep(segment.key(), sealed))
    }

    fn keep(&self, key: Key, sealed: Sealed) -> Arc<Sealed> {
        let sealed = Arc::new(sealed);
        let evicted = self.loaded.lock().put(key, Arc::clone(&sealed));
        // Unmapping is a system call: not under the lock.
        drop(evicted);
        sealed
    }

    /// Lets go of what is loaded of a segment that is removed, cut or replaced.
    pub(crate) fn forget(&self, key: Key) {
        let gone = self.loaded.lock().remove(&key);
        drop(gone);
    }

    /// How many segments' indexes are loaded.
    pub(crate) fn count(&self) -> usize {
        self.loaded.lock().len()
    }

    fn load(
        &self,
        segment: &Segment,
        file: &dyn DiskFile,
        folder: &Path,
    ) -> io::Result<Option<Sealed>> {
        let log_bytes = segment.written();
        let map = |extension| {
            // Twelve bytes per interval at most, one entry for the end, or it is not an index of this log.
            let bytes_max = (log_bytes / INTERVAL_BYTES + 1) * 12;
            // Whatever the reason that it cannot be had, it can be made.
            self.disk.map(&path(folder, segment.base(), extension), bytes_max).ok()
        };
        let (Some(offsets), Some(times)) = (map("index"), map("timeindex")) else {
            return Ok(None);
        };
        let plausible = Offsets(&offsets).are_plausible(log_bytes)
            && Times(&times).are_plausible(segment.times().max_timestamp)
            && reaches_the_end(&Offsets(&offsets), segment, file)?;
        Ok(plausible.then_some(Sealed { offsets, times }))
    }

    fn rebuild(&self, segment: &Segment, file: &dyn DiskFile, folder: &Path) -> io::Result<Sealed> {
        let mut growing = Growing::default();
        extend(&mut growing, segment, file, i64::MAX)?;
        self.rebuilt.fetch_add(1, Ordering::Relaxed);
        Ok(self.store(segment, folder, growing))
    }

    fn store(&self, segment: &Segment, folder: &Path, growing: Growing) -> Sealed {
        let (offsets, times) = growing.finish();
        let put = |extension, bytes: Vec<u8>| {
            if segment.is_retired() {
                return bytes.into();
            }
            let name = path(folder, segment.base(), extension);
            let stored = write_anew(&*self.disk, &name, &bytes);
            // Hints: if one cannot be written this process has it in memory, and another makes it again.
            let mapped = stored.and_then(|()| self.disk.map(&name, bytes.len() as u64)).ok();
            mapped.filter(|map| map.len() == bytes.len()).unwrap_or_else(|| bytes.into())
        };
        Sealed { offsets: put("index", offsets), times: put("timeindex", times) }
    }

    /// Writes the indexes of a segment that is sealed now, and lets go of their memory.
    pub(crate) fn seal(&self, segment: &Segment, folder: &Path) {
        segment.set_sealed(true);
        // A reader that is at them meanwhile has them made again at need, and commits do not wait for it.
        let Some(mut growing) = segment.growing.try_lock() else { return };
        let whole = growing.take().filter(|g| g.covered == segment.written());
        let Some(whole) = whole.filter(|_| !segment.is_retired()) else { return };
        let (offsets, times) = whole.finish();
        for (extension, bytes) in [("index", offsets), ("timeindex", times)] {
            // Hints: what cannot be written is made again by who needs it.
            let _ = write_anew(&*self.disk, &path(folder, segment.base(), extension), &bytes);
        }
    }
}

/// Writes a file that a process may have mapped: under a new inode.
pub(crate) fn write_anew(disk: &dyn Disk, name: &Path, bytes: &[u8]) -> io::Result<()> {
    match disk.remove_file(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    disk.open(name, OpenMode::Truncate)?.write_at(&[IoSlice::new(bytes)], 0)
}

/// Indexes what the log has and the index does not, up to the batch with `target` (an offset less the base), past what is
/// damaged in it.
fn extend(
    growing: &mut Growing,
    segment: &Segment,
    file: &dyn DiskFile,
    target: i64,
) -> io::Result<()> {
    let end = segment.written();
    if growing.covered >= end || growing.last >= target {
        return Ok(());
    }
    let base = segment.base().get();
    let mut scan = Scan::new(file, growing.covered, end);
    let mut next = base + growing.last + 1;
    while let Some(step) = scan.next()? {
        match step {
            Ok(at) if at.header.base_offset >= next => {
                next = at.header.last_offset() + 1;
                growing.note_at(base, &at);
                if growing.last >= target {
                    return Ok(());
                }
            }
            Ok(at) => {
                scan.seek(at.byte);
                scan.resync(next)?;
            }
            Err(_) => {
                scan.resync(next)?;
            }
        }
    }
    growing.covered = end;
    Ok(())
}

/// Whether no batch behind the last entry should have one: a file that lost its end is found so.
fn reaches_the_end(
    offsets: &Offsets<'_>,
    segment: &Segment,
    file: &dyn DiskFile,
) -> io::Result<bool> {
    let base = segment.base().get();
    let mut rest = Growing::default();
    let mut scan = Scan::new(file, 0, segment.written());
    if let Some(entry) = offsets.last() {
        scan.seek(u64::from(entry.at));
        match scan.next()? {
            Some(Ok(at)) if at.header.last_offset() - base == i64::from(entry.last) => {
                rest.note_at(base, &at);
            }
            _ => return Ok(false),
        }
    }
    while rest.offsets().0.is_empty() {
        match scan.next()? {
            Some(Ok(at)) => rest.note_at(base, &at),
            // Damage near the end is for who reads it to tell.
            Some(Err(_)) | None => return Ok(true),
        }
    }
    Ok(false)
}
