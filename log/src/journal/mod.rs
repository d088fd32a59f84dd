//! The commit journal: a ring of pre-written files that makes one sync enough for any number of partitions (step 8).
//!
//! Files `journal/NNNN.journal`. Byte 0 to 4095 of each, little-endian:
//!
//! | byte | field |
//! |---|---|
//! | 0 | magic `HWJOURNL` |
//! | 8 | version u32 = 1 |
//! | 12 | number of the file u32 |
//! | 16 | directory id, 16 bytes |
//! | 32 | CRC-32C u32 of bytes 0..32 |
//! | 36 | zeros |
//!
//! From byte 4096 on: *cycles* (`cycle` has their table), each padded to 4 KiB, so that no sector with acknowledged bytes is
//! written twice. Cycle numbers rise by one; each names the CRC of the one before and the generation of the run that wrote it,
//! so nothing of a file's former life passes for new.
//!
//! Invariant: a file is written again only after a checkpoint beyond its last cycle was persisted.
//! Neighbours: `commit` writes, `checkpoint` releases, `recovery` walks.

pub(crate) mod cycle;
pub(crate) mod replay;
pub(crate) mod ring;

pub(crate) use cycle::CycleBuilder;
pub(crate) use ring::{Journal, Maker, Mark};

use crate::disk::{Disk, DiskFile, OpenMode, read_full_at};
use crate::encoding::{Fields, Put, crc32c};
use crate::log::OpenError;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Cycles begin and end on multiples of this.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// A cycle takes no more batches above this, padding included, whatever the size of the files; one that is larger goes alone.
pub(crate) const CYCLE_BYTES_MAX: u64 = 4 << 20;

const MAGIC: &[u8; 8] = b"HWJOURNL";
const VERSION: u32 = 1;

/// Path of a file of the ring.
pub(crate) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join("journal").join(format!("{number:04}.journal"))
}

/// Makes and pre-writes a file: real zeros, so that a commit changes no metadata of the filesystem.
pub(crate) fn create(
    disk: &dyn Disk,
    dir: &Path,
    number: u32,
    directory_id: [u8; 16],
    size_bytes: u64,
) -> io::Result<Arc<dyn DiskFile>> {
    let path = path(dir, number);
    let file = disk.open(&path, OpenMode::Truncate)?;
    let made = fill(&*file, number, directory_id, size_bytes)
        .and_then(|()| disk.sync_dir(&dir.join("journal")));
    if let Err(e) = made {
        // Nothing half made stays: neither its bytes nor its name can be relied upon.
        let _ = disk.remove_file(&path);
        return Err(e);
    }
    Ok(file)
}

fn fill(
    file: &dyn DiskFile,
    number: u32,
    directory_id: [u8; 16],
    size_bytes: u64,
) -> io::Result<()> {
    file.reserve(0, size_bytes)?;
    let mut head = Vec::with_capacity(BLOCK_BYTES as usize);
    head.extend_from_slice(MAGIC);
    head.put_u32(VERSION);
    head.put_u32(number);
    head.extend_from_slice(&directory_id);
    let crc = crc32c(&head);
    head.put_u32(crc);
    head.resize(BLOCK_BYTES as usize, 0);
    let zeros = vec![0; (256 << 10).min(size_bytes as usize)];
    let mut at = BLOCK_BYTES;
    while at < size_bytes {
        let n = (size_bytes - at).min(zeros.len() as u64);
        file.write_at(&[IoSlice::new(&zeros[..n as usize])], at)?;
        at += n;
    }
    // The head last: a file with a head is whole.
    file.sync_data()?;
    file.write_at(&[IoSlice::new(&head)], 0)?;
    file.sync_data()
}

/// The id of the directory that a file of the ring was made for, if its head is whole.
pub(crate) fn directory_id(disk: &dyn Disk, dir: &Path, number: u32) -> Option<[u8; 16]> {
    let file = disk.open(&path(dir, number), OpenMode::Read).ok()?;
    let mut head = [0; 36];
    let n = read_full_at(&*file, &mut head, 0).ok()?;
    let mut fields = Fields::new(&head[..n]);
    if fields.array::<8>().as_ref() != Some(MAGIC) || fields.u32()? > VERSION {
        return None;
    }
    fields.u32()?;
    let id = fields.array()?;
    (fields.u32()? == crc32c(&head[..32])).then_some(id)
}

/// What a file in the journal's folder turned out to be.
#[derive(Debug)]
pub(crate) enum Opened {
    /// One of the ring, with its size.
    File(Arc<dyn DiskFile>, u64),
    /// Not finished when the process ended, or its head is damaged: cycles in it still count (each says whose it is), but it
    /// is to be made again.
    Unfinished(Arc<dyn DiskFile>, u64),
}

/// Opens a file of the ring and checks its head.
pub(crate) fn open(
    disk: &dyn Disk,
    dir: &Path,
    number: u32,
    directory_id: [u8; 16],
) -> Result<Opened, OpenError> {
    let path = path(dir, number);
    let io = |source| OpenError::Io { path: path.clone(), source };
    let file = disk.open(&path, OpenMode::Write).map_err(io)?;
    let mut head = [0; 36];
    let n = read_full_at(&*file, &mut head, 0).map_err(io)?;
    let size = file.size_bytes().map_err(io)? / BLOCK_BYTES * BLOCK_BYTES;
    let mut fields = Fields::new(&head[..n]);
    if fields.array::<8>().as_ref() != Some(MAGIC) {
        return Ok(Opened::Unfinished(file, size));
    }
    if let Some(version) = fields.u32().filter(|v| *v > VERSION) {
        return Err(OpenError::FromTheFuture {
            dir: dir.to_owned(),
            detail: format!(
                "{} has version {version}, this program knows {VERSION}",
                path.display()
            ),
        });
    }
    let damaged = |why| OpenError::Damaged {
        dir: dir.to_owned(),
        detail: format!("{}: {why}", path.display()),
    };
    if n < head.len()
        || crc32c(&head[..32]) != u32::from_le_bytes([head[32], head[33], head[34], head[35]])
    {
        return Ok(Opened::Unfinished(file, size));
    }
    if fields.u32() != Some(number) || fields.array::<16>() != Some(directory_id) {
        return Err(damaged("the file belongs to another place or another data directory"));
    }
    if size < 2 * BLOCK_BYTES {
        return Ok(Opened::Unfinished(file, size));
    }
    Ok(Opened::File(file, size))
}
