//! The disk seam: the system calls the engine makes, so that a fake disk can lose, tear and reorder them.
//!
//! Every byte the log reads or writes passes through [`Disk`] and [`DiskFile`]; nothing else in this crate names `std::fs`.
//! Invariant: an implementation promises no more than POSIX does. Written bytes survive a crash of the machine only after
//! [`DiskFile::sync_data`], a name (created, renamed, removed) only after [`Disk::sync_dir`] on its folder, and after a failed
//! sync nothing is known of the bytes it should have covered.
//! Neighbours: `journal`, `segment`, `catalog`, `superblock` above it; the kernel below.

#[cfg(any(test, feature = "simulation"))]
pub mod fake;
mod map;

pub use map::Map;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// What [`Disk::open`] does about a file that exists, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; opened for reading.
    Read,
    /// Must exist; opened for reading and writing.
    Write,
    /// Made if missing, kept as it is otherwise; opened for reading and writing.
    Create,
    /// Made, or emptied; opened for reading and writing.
    Truncate,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The last part of the path. Names that are not UTF-8 are not ours and are left out of a listing.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Room on a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that an unprivileged process may still take.
    pub free_bytes: u64,
}

/// The answer to [`Disk::lock`].
#[derive(Debug)]
pub enum Lock {
    /// Ours until the guard is dropped or the process ends.
    Held(Box<dyn LockGuard>),
    /// Somebody else's: what the holder wrote into the file.
    InUse(String),
}

/// Keeps a lock; dropping it lets go.
pub trait LockGuard: Debug + Send + Sync {}

/// A directory tree, at the level of system calls, and what identifies the machine it is in.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file. Errors are the system's (`NotFound`, `StorageFull`, ...).
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// The bytes of a whole file of at most `bytes_max`, mapped where the kernel can. Only for files that are never written
    /// again nor cut under this inode while the map lives: to be made anew they are removed first ([`Map`] says why).
    fn map(&self, path: &Path, bytes_max: u64) -> io::Result<Map> {
        Map::read(&*self.open(path, OpenMode::Read)?, bytes_max)
    }
    /// Takes an exclusive lock on the file (made if missing) and writes `holder` into it.
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Lock>;
    /// Keeps others from taking the lock, beside others that do the same, and changes nothing: for those who only read. A
    /// file that is not there is nobody's.
    fn lock_shared(&self, path: &Path) -> io::Result<Lock>;
    /// Makes one folder; `AlreadyExists` if there is one.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file or folder, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Room on the filesystem that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// The filesystem that holds `path`, to sync it as a whole. `None` where the system would not report that a sync failed.
    fn filesystem(&self, path: &Path) -> io::Result<Option<Box<dyn Filesystem>>> {
        let _ = path;
        Ok(None)
    }
    /// The machine's identity, to notice a card that was moved or cloned. `None` where it has none.
    fn machine_id(&self) -> Option<[u8; 16]>;
    /// Sixteen unpredictable bytes, for ids.
    fn random_id(&self) -> io::Result<[u8; 16]>;
}

/// A filesystem, from the moment it was looked up on.
pub trait Filesystem: Debug + Send + Sync {
    /// Makes all that was written before the call durable: bytes, lengths and names of all files (syncfs). Fails when any
    /// write-back since it was looked up has failed. Never to be called again after it failed.
    fn sync(&self) -> io::Result<()>;
}

/// An open file. Calls may come from several threads at once.
pub trait DiskFile: Debug + Send + Sync {
    /// Reads at most `buf.len()` bytes from byte `at`; 0 at the end of the file (pread).
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of `bufs` one behind the other from byte `at`, growing the file if need be (pwritev).
    /// After an error any part of them may have been written.
    fn write_at(&self, bufs: &[IoSlice<'_>], at: u64) -> io::Result<()>;
    /// Makes the written bytes and the length durable (fdatasync). Never to be called again after it failed.
    fn sync_data(&self) -> io::Result<()>;
    /// Reserves room for bytes `at..at + len` without changing the length (fallocate, KEEP_SIZE), so that
    /// writing there cannot meet a full disk. `StorageFull` when there is no room.
    fn reserve(&self, at: u64, len: u64) -> io::Result<()>;
    /// Cuts, or grows with zeros, to `len` bytes; room reserved beyond is given back.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn size_bytes(&self) -> io::Result<u64>;
}

/// Fills `buf` from byte `at`; the number of bytes read is less only at the end of the file.
///
/// # Errors
/// The system's.
pub fn read_full_at(file: &dyn DiskFile, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], at + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// The machine's own filesystem.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemDisk;

#[derive(Debug)]
struct SystemFile(File);

/// A folder, open since before the first write that is to be reported: an open file remembers which failures it has seen.
#[derive(Debug)]
struct SystemFilesystem(File);

impl Filesystem for SystemFilesystem {
    fn sync(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.0)?;
        // Not every filesystem (FAT) makes the device empty its cache at a syncfs; all do at an fsync.
        self.0.sync_all()
    }
}

/// Linux reports failed write-backs at syncfs since 5.8 (`syncfs(2)`); before, a file's own fsync alone told.
fn syncfs_reports_failures() -> bool {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy().into_owned();
    system.sysname().to_bytes() == b"Linux" && is_at_least(&release, (5, 8))
}

fn is_at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= wanted,
        _ => false,
    }
}

/// The lock lives as long as the open file (flock). `None`: there was no file to lock.
#[derive(Debug)]
struct SystemLock(#[expect(dead_code, reason = "held for its descriptor")] Option<File>);

impl LockGuard for SystemLock {}

impl Disk for SystemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = File::options();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::Create => options.write(true).create(true).truncate(false),
            OpenMode::Truncate => options.write(true).create(true).truncate(true),
        };
        Ok(Arc::new(SystemFile(options.open(path)?)))
    }

    #[cfg(target_pointer_width = "64")]
    fn map(&self, path: &Path, bytes_max: u64) -> io::Result<Map> {
        Map::kernel(&File::open(path)?, bytes_max)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Lock> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0)?;
                match file.write_all_at(holder.as_bytes(), 0) {
                    // A full disk must not keep a node from starting: the name in the lock is a courtesy.
                    Err(e) if e.kind() == io::ErrorKind::StorageFull => {}
                    other => other?,
                }
                Ok(Lock::Held(Box::new(SystemLock(Some(file)))))
            }
            Err(Errno::WOULDBLOCK) => in_use(&file),
            Err(e) => Err(e.into()),
        }
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Lock> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Lock::Held(Box::new(SystemLock(None))));
            }
            Err(e) => return Err(e),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Lock::Held(Box::new(SystemLock(Some(file))))),
            Err(Errno::WOULDBLOCK) => in_use(&file),
            Err(e) => Err(e.into()),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn filesystem(&self, path: &Path) -> io::Result<Option<Box<dyn Filesystem>>> {
        if !syncfs_reports_failures() {
            return Ok(None);
        }
        Ok(Some(Box::new(SystemFilesystem(File::open(path)?))))
    }

    fn machine_id(&self) -> Option<[u8; 16]> {
        let text = std::fs::read_to_string("/etc/machine-id").ok()?;
        let text = text.trim();
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
    }

    fn random_id(&self) -> io::Result<[u8; 16]> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        Ok(id)
    }
}

/// Somebody else's lock: what they wrote into the file.
fn in_use(file: &File) -> io::Result<Lock> {
    // A foreign file can be of any length: the first bytes are enough to name the holder.
    let mut text = [0; 128];
    let n = file.read_at(&mut text, 0)?;
    Ok(Lock::InUse(String::from_utf8_lossy(&text[..n]).trim().to_owned()))
}

/// The kernel takes at most this many slices in one pwritev (IOV_MAX).
const SLICES_MAX: usize = 1024;

impl DiskFile for SystemFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        let mut at = at;
        for chunk in bufs.chunks(SLICES_MAX) {
            let mut owned: Vec<IoSlice<'_>> = chunk.to_vec();
            let mut rest = &mut owned[..];
            // Empty slices in front would make a finished write look like a refused one.
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match rustix::io::pwritev(&self.0, rest, at) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => {
                        at += n as u64;
                        IoSlice::advance_slices(&mut rest, n);
                    }
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // No loop over EINTR: a failed sync is never retried (ARCHITECTURE.md, invariant 10).
        self.0.sync_data()
    }

    fn reserve(&self, at: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, at, len) {
            Ok(()) => Ok(()),
            // A filesystem that cannot reserve: the best left is to look whether there is room now.
            Err(Errno::OPNOTSUPP) => {
                let stat = rustix::fs::fstatvfs(&self.0)?;
                if stat.f_bavail.saturating_mul(stat.f_frsize) < len {
                    return Err(Errno::NOSPC.into());
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_more_slices_than_the_kernel_takes_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = SystemDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_be_bytes().to_vec()).collect();
        let mut slices: Vec<IoSlice<'_>> = vec![IoSlice::new(&[])];
        slices.extend(parts.iter().map(|p| IoSlice::new(p)));
        file.write_at(&slices, 5).unwrap();
        let mut back = vec![0; 12_000];
        assert_eq!(read_full_at(&*file, &mut back, 5).unwrap(), 12_000);
        assert_eq!(back, parts.concat());
        assert_eq!(file.size_bytes().unwrap(), 12_005);
    }

    #[test]
    fn a_second_lock_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = SystemDisk.lock(&path, "4711\n").unwrap();
        assert!(matches!(first, Lock::Held(_)));
        match SystemDisk.lock(&path, "4712\n").unwrap() {
            Lock::InUse(holder) => assert_eq!(holder, "4711"),
            Lock::Held(_) => panic!("two holders"),
        }
        assert!(matches!(SystemDisk.lock_shared(&path).unwrap(), Lock::InUse(_)));
        drop(first);
        let reader = SystemDisk.lock_shared(&path).unwrap();
        assert!(matches!(SystemDisk.lock_shared(&path).unwrap(), Lock::Held(_)));
        assert!(matches!(SystemDisk.lock(&path, "4712\n").unwrap(), Lock::InUse(_)));
        assert_eq!(std::fs::read(&path).unwrap(), b"4711\n", "readers change nothing");
        drop(reader);
        assert!(matches!(SystemDisk.lock(&path, "4712\n").unwrap(), Lock::Held(_)));
        let nowhere = dir.path().join("nowhere");
        assert!(matches!(SystemDisk.lock_shared(&nowhere).unwrap(), Lock::Held(_)));
        assert!(!nowhere.exists());
    }

    #[test]
    fn versions_of_the_kernel_compare_as_numbers() {
        for (release, reports) in [
            ("5.8.0", true),
            ("5.10.103-v7l+", true),
            ("6.18.44-fc", true),
            ("5.7.19", false),
            ("4.19.0-27-amd64", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(is_at_least(release, (5, 8)), reports, "{release}");
        }
    }

    #[test]
    fn a_filesystem_is_synced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let filesystem = SystemDisk.filesystem(dir.path()).unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        if let Some(filesystem) = filesystem {
            filesystem.sync().unwrap();
        }
        assert!(SystemDisk.filesystem(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn reserving_keeps_the_length() {
        let dir = tempfile::tempdir().unwrap();
        let file = SystemDisk.open(&dir.path().join("f"), OpenMode::Create).unwrap();
        file.reserve(0, 1 << 16).unwrap();
        assert_eq!(file.size_bytes().unwrap(), 0);
    }
}
