//! The first look at a directory: whether it is one, whether somebody uses it, and its files apart from the partitions'.
//!
//! Invariant: nothing is changed; another process cannot start on the directory while a [`Survey`] lives.
//! Neighbours: [`super::verify`] judges what is found here.

use super::overlay::Overlay;
use crate::catalog::{self, Catalog, Found};
use crate::clock::Clock;
use crate::disk::{Disk, Lock, LockGuard};
use crate::journal::{self, ring::Slot};
use crate::log::{LogOptions, OpenError};
use crate::superblock::Superblock;
use crate::{Log, Recovery};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is nothing to say of a directory.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A process is running on it.
    #[error(
        "{} is in use by process {holder}: stop that first, what it writes meanwhile would look like damage",
        dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as that process wrote it.
        holder: String,
    },
    /// There is no data directory at that path.
    #[error("{} is not a data directory: {why}", dir.display())]
    NotADirectory {
        /// The path.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// What is damaged cannot be found again in anything that is there.
    #[error("{} is beyond repair: {why}", dir.display())]
    BeyondRepair {
        /// The directory.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A newer Headwater wrote it: this one cannot judge it.
    #[error("data directory {} was written by a newer version: {detail}", dir.display())]
    FromTheFuture {
        /// The directory.
        dir: PathBuf,
        /// Which file, which version, which is supported.
        detail: String,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl InspectError {
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}

/// What stands in the folders of a directory, partitions left aside.
pub(crate) struct Survey {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    /// `Err`: why it cannot be used; `Ok(None)`: there is none.
    pub(crate) superblock: Result<Option<Superblock>, String>,
    /// The two slots, by name. Empty while the superblock cannot be read.
    pub(crate) catalogs: Vec<(&'static str, Found)>,
    /// The ring's files that have a good head, and (number, why) of those that do not.
    pub(crate) slots: Vec<Slot>,
    pub(crate) unfinished: Vec<u32>,
    _lock: Option<Box<dyn LockGuard>>,
}

impl Survey {
    /// Looks. The directory cannot be started while the answer lives.
    pub(crate) fn take(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, InspectError> {
        let names = match disk.list(dir) {
            Ok(entries) => entries.into_iter().map(|e| e.name).collect::<Vec<_>>(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let why = "there is nothing at this path".to_owned();
                return Err(InspectError::NotADirectory { dir: dir.to_owned(), why });
            }
            Err(e) => return Err(InspectError::io(dir)(e)),
        };
        let known = ["superblock", "catalog.a", "catalog.b", "journal"];
        if !names.iter().any(|name| known.contains(&&**name)) {
            let why = "it has no superblock, no catalog and no journal".to_owned();
            return Err(InspectError::NotADirectory { dir: dir.to_owned(), why });
        }
        let lock = hold(&*disk, dir)?;
        Self::look(disk, dir, Some(lock))
    }

    /// As [`Survey::take`], for who holds the lock already.
    pub(crate) fn look(
        disk: Arc<dyn Disk>,
        dir: &Path,
        lock: Option<Box<dyn LockGuard>>,
    ) -> Result<Self, InspectError> {
        let superblock = match Superblock::read(&*disk, dir) {
            Ok(superblock) => Ok(superblock),
            Err(OpenError::Damaged { detail, .. }) => Err(detail),
            Err(other) => return Err(refused(other)),
        };
        let mut survey = Self {
            dir: dir.to_owned(),
            disk,
            superblock,
            catalogs: Vec::new(),
            slots: Vec::new(),
            unfinished: Vec::new(),
            _lock: lock,
        };
        if let Ok(Some(Superblock { directory_id, .. })) = survey.superblock {
            survey.look_at_catalogs(&directory_id)?;
            survey.look_at_ring(directory_id)?;
        }
        Ok(survey)
    }

    fn look_at_catalogs(&mut self, id: &[u8; 16]) -> Result<(), InspectError> {
        for name in catalog::NAMES {
            let found = Catalog::read_slot(&*self.disk, &self.dir, name, id).map_err(refused)?;
            self.catalogs.push((name, found));
        }
        Ok(())
    }

    fn look_at_ring(&mut self, id: [u8; 16]) -> Result<(), InspectError> {
        // Files of the ring are opened for writing, which a read-only filesystem refuses and nobody here wants.
        let disk = Overlay::new(Arc::clone(&self.disk));
        for number in ring_numbers(&disk, &self.dir)? {
            let (file, size_bytes) = match journal::open(&disk, &self.dir, number, id) {
                Ok(journal::Opened::File(file, size)) => (file, size),
                Ok(journal::Opened::Unfinished(file, size)) => {
                    self.unfinished.push(number);
                    (file, size)
                }
                Err(OpenError::Damaged { .. }) => {
                    self.unfinished.push(number);
                    continue;
                }
                Err(other) => return Err(refused(other)),
            };
            self.slots.push(Slot { number, file, size_bytes, last_cycle: None });
        }
        Ok(())
    }

    /// Whether its making did not get to its end: nothing was ever served from it, and a start makes it again.
    pub(crate) fn was_never_made(&self) -> bool {
        let topics = self.disk.list(&self.dir.join("topics"));
        let none = match topics {
            Err(e) => e.kind() == io::ErrorKind::NotFound,
            Ok(topics) => topics.is_empty(),
        };
        matches!(self.superblock, Ok(None)) && none
    }

    /// The newest intact catalog.
    pub(crate) fn catalog(&self) -> Option<&Catalog> {
        let intact = self.catalogs.iter().filter_map(|(_, found)| match found {
            Found::Intact(catalog) => Some(&**catalog),
            _ => None,
        });
        intact.max_by_key(|catalog| catalog.sequence)
    }
}

/// Looks at all directories of a log.
pub(crate) fn take_all(
    disk: &Arc<dyn Disk>,
    dirs: &[PathBuf],
) -> Result<Vec<Survey>, InspectError> {
    dirs.iter().map(|dir| Survey::take(Arc::clone(disk), dir)).collect()
}

/// Starts the directories on an overlay: what is written is forgotten. The log is not to be used for appends.
pub(crate) fn start(
    disk: &Arc<dyn Disk>,
    dirs: &[PathBuf],
    clock: Arc<dyn Clock>,
) -> Result<(Log, Recovery, Arc<Overlay>), OpenError> {
    let overlay = Arc::new(Overlay::new(Arc::clone(disk)));
    let options = LogOptions { dirs: dirs.to_vec(), ..LogOptions::default() };
    let (log, recovery) = Log::open(options, Arc::clone(&overlay) as Arc<dyn Disk>, clock)?;
    Ok((log, recovery, overlay))
}

/// Numbers of the files in the journal's folder, rising.
pub(crate) fn ring_numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u32>, InspectError> {
    let folder = dir.join("journal");
    let entries = match disk.list(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries.map_err(InspectError::io(&folder))?,
    };
    let number = |name: &str| name.strip_suffix(".journal").and_then(|n| n.parse().ok());
    let mut numbers: Vec<u32> = entries.iter().filter_map(|e| number(&e.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Keeps the directory from being started.
pub(crate) fn hold(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn LockGuard>, InspectError> {
    let path = dir.join("headwater.lock");
    match disk.lock_shared(&path).map_err(InspectError::io(&path))? {
        Lock::Held(guard) => Ok(guard),
        Lock::InUse(holder) => Err(InspectError::InUse { dir: dir.to_owned(), holder }),
    }
}

/// What keeps a directory from being judged at all. Damage does not: it is what is looked for.
pub(crate) fn refused(error: OpenError) -> InspectError {
    match error {
        OpenError::InUse { dir, holder } => InspectError::InUse { dir, holder },
        OpenError::FromTheFuture { dir, detail } => InspectError::FromTheFuture { dir, detail },
        OpenError::Io { path, source } => InspectError::Io { path, source },
        OpenError::Damaged { dir, detail } => {
            InspectError::Io { path: dir, source: io::Error::other(detail) }
        }
    }
}
