//! Room kept back for the log's own small state, so that a full disk does not stay full.
//!
//! When the disk is full, publishers are refused; but the log must still note how far uplinks and retention have come, or nothing
//! could ever be deleted again. Log starts, deletions and all metadata need only the journal's pre-written files and the catalogs,
//! which are reserved ahead; checkpoints of uplinks and the like are records in internal topics, and need segments. For those, and
//! for a catalog that outgrows its file, there are some files of nothing: `ballast/NN`, reserved (fallocate) and empty. One
//! is removed each time that internal state meets a full disk, and made again when there is room. Until all of them are there again
//! nobody else gets room: what a file of ballast gave back is not for publishers.
//!
//! A filesystem that cannot reserve has no ballast. Invariant: losing these files, or finding some, never matters.
//! Neighbours: `partition::writer` and `checkpoint` ask for it, `retention` makes it again.

use crate::disk::{Disk, OpenMode};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Files that the ballast consists of.
const FILES: u64 = 16;
/// A file is not smaller than this: the first piece of a segment fits.
const FILE_BYTES_MIN: u64 = 64 << 10;
/// Of the filesystem, no more than this part is kept back.
const PART_OF_DISK: u64 = 100;

/// As far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Not looked at since the start.
    Unknown = 0,
    Whole = 1,
    /// Some of it was given, or there has been no room for it.
    Missing = 2,
    /// There is none: it was not asked for, or the disk is too small.
    None = 3,
}

#[derive(Debug)]
pub(crate) struct Ballast {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    bytes: u64,
    state: AtomicU8,
}

impl Ballast {
    /// For a directory; `bytes` of 0 keeps nothing back.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &Path, bytes: u64) -> Self {
        let state = if bytes == 0 { State::None } else { State::Unknown };
        Self { disk, folder: dir.join("ballast"), bytes, state: AtomicU8::new(state as u8) }
    }

    /// Whether others than the log itself may have room.
    pub(crate) fn is_whole(&self) -> bool {
        self.state.load(Ordering::Acquire) != State::Missing as u8
    }

    /// Gives a file's room back to the filesystem; `false` when nothing is left.
    pub(crate) fn give(&self) -> bool {
        if self.state.load(Ordering::Acquire) == State::None as u8 {
            return false;
        }
        self.set(State::Missing);
        (0..FILES).any(|number| self.disk.remove_file(&self.file(number)).is_ok())
    }

    /// Makes what is missing, as far as there is room. Cheap while all of it is there.
    pub(crate) fn restore(&self) {
        let state = self.state.load(Ordering::Acquire);
        if state == State::Unknown as u8 || state == State::Missing as u8 {
            self.set(self.make().unwrap_or(State::Missing));
        }
    }

    fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    fn make(&self) -> io::Result<State> {
        match self.disk.create_dir(&self.folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let part = self.disk.space(&self.folder)?.total_bytes / PART_OF_DISK;
        let file_bytes = self.bytes.min(part) / FILES;
        if file_bytes < FILE_BYTES_MIN {
            return Ok(State::None);
        }
        for number in 0..FILES {
            let path = self.file(number);
            match self.disk.open(&path, OpenMode::Read) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => {
                    other?;
                    continue;
                }
            }
            let made = self.disk.open(&path, OpenMode::Truncate);
            if let Err(e) = made.and_then(|file| file.reserve(0, file_bytes)) {
                // Half a file would be taken for a whole one.
                let _ = self.disk.remove_file(&path);
                return Err(e);
            }
        }
        Ok(State::Whole)
    }

    fn file(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:02}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fake::FakeDisk;

    #[test]
    fn it_is_given_piece_by_piece_and_made_again_when_there_is_room() {
        let disk = FakeDisk::new(1);
        disk.create_dir(Path::new("/d")).unwrap();
        // Somebody else's, so that 1 % of the disk is enough.
        let others = 127 << 20;
        disk.open(Path::new("/others"), OpenMode::Create).unwrap().reserve(0, others).unwrap();
        let used = || disk.used_bytes() - others;
        let ballast = Ballast::new(Arc::new(disk.clone()), Path::new("/d"), 1 << 20);
        assert!(ballast.is_whole(), "a start waits for nothing");
        ballast.restore();
        assert!(ballast.is_whole());
        assert_eq!(used(), 1 << 20);
        disk.set_capacity(Some(disk.used_bytes()));
        assert!(ballast.give() && !ballast.is_whole());
        assert_eq!(used(), (1 << 20) - (64 << 10));
        disk.set_capacity(Some(disk.used_bytes() + (32 << 10)));
        ballast.restore();
        assert!(!ballast.is_whole(), "there is no room for a whole file");
        let given = (0..40).take_while(|_| ballast.give()).count();
        assert_eq!(given, 15, "then nothing is left");
        assert_eq!(used(), 0);
        disk.set_capacity(None);
        ballast.restore();
        assert!(ballast.is_whole());
        assert_eq!(used(), 1 << 20);
        // A process that begins with what another has left.
        let next = Ballast::new(Arc::new(disk.clone()), Path::new("/d"), 1 << 20);
        assert!(next.give());
        next.restore();
        assert_eq!((next.is_whole(), used()), (true, 1 << 20));
    }

    #[test]
    fn a_small_disk_goes_without() {
        let disk = FakeDisk::new(1);
        disk.create_dir(Path::new("/d")).unwrap();
        disk.set_capacity(Some(50 << 20));
        let ballast = Ballast::new(Arc::new(disk.clone()), Path::new("/d"), 16 << 20);
        ballast.restore();
        assert_eq!((ballast.is_whole(), ballast.give(), disk.used_bytes()), (true, false, 0));
    }
}
