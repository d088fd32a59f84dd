//! Making a new data directory, and telling one that was never finished from one that holds something.
//!
//! Order: folders, a first file of the journal, both catalog slots, their names synced, the superblock last.
//!
//! Invariant: as long as there is a superblock for good, everything else is there for good.
//! Neighbours: `recovery` opens what is made here.

use crate::catalog::Catalog;
use crate::disk::{Disk, Lock, LockGuard};
use crate::journal::{self, BLOCK_BYTES, Mark};
use crate::log::{LogOptions, OpenError};
use crate::recovery::damaged;
use crate::superblock::Superblock;
use std::io;
use std::path::Path;

/// The first start writes a file of this size, so that it serves at once; the others follow in the background.
const FIRST_FILE_BYTES: u64 = 2 << 20;
/// The catalogs of a new directory have smaller sequences; the first start writes this one.
const FIRST_SEQUENCE: u64 = 2;
pub(crate) fn make_folders(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let mut missing = Vec::new();
    let mut at = Some(dir);
    while let Some(folder) = at.filter(|f| !f.as_os_str().is_empty()) {
        match disk.list(folder) {
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(folder),
            Err(source) => return Err(OpenError::Io { path: folder.to_owned(), source }),
        }
        at = folder.parent();
    }
    for folder in missing.into_iter().rev() {
        let io = |source| OpenError::Io { path: folder.to_owned(), source };
        match disk.create_dir(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io(e)),
            _ => {}
        }
        sync_name(disk, folder).map_err(io)?;
    }
    Ok(())
}

/// Makes a folder's own name durable.
fn sync_name(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let parent = match folder.parent() {
        // A relative path of one part stands in the working directory.
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    match disk.sync_dir(parent) {
        // A folder that we may write to and not read.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

pub(crate) fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn LockGuard>, OpenError> {
    let path = dir.join("headwater.lock");
    match disk.lock(&path, &format!("{}\n", std::process::id())) {
        Ok(Lock::Held(guard)) => Ok(guard),
        Ok(Lock::InUse(holder)) => Err(OpenError::InUse { dir: dir.to_owned(), holder }),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

/// Whether the directory with this catalog was made but its first start never got to its first checkpoint. Nothing was served
/// from it then, and the names in it may never have become durable: it is made again.
pub(crate) fn was_never_started(catalog: Option<&Catalog>) -> bool {
    catalog.is_some_and(|catalog| catalog.sequence < FIRST_SEQUENCE)
}

/// Removes what a creation left that did not get to its end.
fn remove_leftovers(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(disk.remove_file(&dir.join("superblock")))?;
    // First of all and for good: as long as it is there, the rest must be.
    disk.sync_dir(dir)?;
    for name in ["superblock.new", "catalog.a", "catalog.b"] {
        gone(disk.remove_file(&dir.join(name)))?;
    }
    let journal = dir.join("journal");
    for entry in disk.list(&journal).unwrap_or_default() {
        gone(disk.remove_file(&journal.join(entry.name)))?;
    }
    gone(disk.remove_dir(&journal))?;
    gone(disk.remove_dir(&dir.join("topics")))
}

/// Makes a new directory; the superblock comes last and makes it one.
pub(crate) fn create(
    disk: &dyn Disk,
    dir: &Path,
    options: &LogOptions,
) -> Result<(Superblock, Catalog), OpenError> {
    let io = |source| OpenError::Io { path: dir.to_owned(), source };
    if disk.list(&dir.join("topics")).is_ok_and(|topics| !topics.is_empty()) {
        return Err(damaged(dir, "there are topics but no superblock".to_owned()));
    }
    remove_leftovers(disk, dir).map_err(io)?;
    disk.create_dir(&dir.join("journal")).map_err(io)?;
    disk.create_dir(&dir.join("topics")).map_err(io)?;
    let superblock = Superblock {
        directory_id: disk.random_id().map_err(io)?,
        machine_id: disk.machine_id().unwrap_or_default(),
    };
    let id = superblock.directory_id;
    let size = options.journal_file_bytes.min(FIRST_FILE_BYTES);
    journal::create(disk, dir, 0, id, size).map_err(io)?;
    let mark = Mark { generation: 0, cycle: 0, crc: 0, slot: 0, at: BLOCK_BYTES };
    let mut catalog = Catalog { clean: true, mark, ..Catalog::default() };
    for sequence in 0..FIRST_SEQUENCE {
        catalog.sequence = sequence;
        catalog.write(disk, dir, &id).map_err(io)?;
    }
    disk.sync_dir(dir).map_err(io)?;
    // Whoever made the folder may not have got as far as this.
    sync_name(disk, dir).map_err(io)?;
    superblock.write(disk, dir)?;
    Ok((superblock, catalog))
}
