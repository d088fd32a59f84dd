//! Whole small files as bytes: mapped by the kernel where that is safe, else read into memory.
//!
//! The only unsafe code of Headwater. What makes it sound, and the process safe from SIGBUS:
//!
//! 1. A map is read-only and shared; nothing here ever writes through one.
//! 2. Only index files of sealed segments are mapped ([`super::Disk::map`] says so to its callers). They are never written
//!    again and never cut: one that is made anew gets a new inode (unlink, create), and the old one lives as long as its map.
//! 3. The file is read once, in pieces, before it is mapped: a medium that cannot give it answers with an error, which the
//!    caller turns into a rebuilt index, and not with a signal at the first touch. A page that the kernel lets go of and
//!    then cannot read again would still be a signal; the start after it meets the error here.
//! 4. Whoever has rights to the directory may cut a file under us all the same; such a person can also kill the process.
//!
//! 32-bit processes would run out of addresses: they get the bytes in memory. So does the fake disk.
//! Neighbours: `segment::indexes` bounds how many maps there are.

use super::{DiskFile, read_full_at};
use std::io;
use std::ops::Deref;

/// Bytes of a file, as they were when it was opened.
#[derive(Debug)]
pub struct Map(Kind);

#[derive(Debug)]
enum Kind {
    Memory(Vec<u8>),
    #[cfg(target_pointer_width = "64")]
    Kernel(memmap2::Mmap),
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Memory(bytes) => bytes,
            #[cfg(target_pointer_width = "64")]
            Kind::Kernel(map) => map,
        }
    }
}

impl From<Vec<u8>> for Map {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Kind::Memory(bytes))
    }
}

fn too_large(size: u64, bytes_max: u64) -> io::Error {
    io::Error::other(format!("{size} bytes are more than the {bytes_max} it can have"))
}

impl Map {
    /// Reads a file of at most `bytes_max` bytes into memory.
    pub(super) fn read(file: &dyn DiskFile, bytes_max: u64) -> io::Result<Self> {
        let size = file.size_bytes()?;
        if size > bytes_max {
            return Err(too_large(size, bytes_max));
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| too_large(size, bytes_max))?];
        let n = read_full_at(file, &mut bytes, 0)?;
        bytes.truncate(n);
        Ok(bytes.into())
    }

    /// Maps a file of at most `bytes_max` bytes, once it has been read without an error.
    #[cfg(target_pointer_width = "64")]
    pub(super) fn kernel(file: &std::fs::File, bytes_max: u64) -> io::Result<Self> {
        use std::os::unix::fs::FileExt;
        let size = file.metadata()?.len();
        if size > bytes_max {
            return Err(too_large(size, bytes_max));
        }
        let mut piece = vec![0; 64 << 10];
        let mut at = 0;
        while at < size {
            match file.read_at(&mut piece, at) {
                Ok(0) => break,
                Ok(n) => at += n as u64,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        // An empty map is not a thing that every kernel gives.
        if at == 0 {
            return Ok(Vec::new().into());
        }
        let length = usize::try_from(at).map_err(|_| too_large(size, bytes_max))?;
        #[expect(
            unsafe_code,
            reason = "the one place; the head of this module says why it is sound"
        )]
        // SAFETY: read-only, of a file that nothing in this process cuts or writes again while the map lives (2 above).
        let map = unsafe { memmap2::MmapOptions::new().len(length).map(file)? };
        Ok(Self(Kind::Kernel(map)))
    }
}

#[cfg(test)]
mod tests {
    use crate::disk::{Disk, OpenMode, SystemDisk};
    use std::io::IoSlice;

    #[test]
    fn a_map_outlives_the_name_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let write = |bytes: &[u8]| {
            let file = SystemDisk.open(&path, OpenMode::Truncate).unwrap();
            file.write_at(&[IoSlice::new(bytes)], 0).unwrap();
        };
        write(&[7; 100_000]);
        let map = SystemDisk.map(&path, 100_000).unwrap();
        std::fs::remove_file(&path).unwrap();
        write(b"made anew");
        assert_eq!(&map[..], &[7; 100_000]);
        assert_eq!(&SystemDisk.map(&path, 100).unwrap()[..], b"made anew");
        assert!(SystemDisk.map(&path, 8).is_err(), "larger than it can be");
        write(b"");
        assert!(SystemDisk.map(&path, 8).unwrap().is_empty());
    }
}
