//! What a data directory says, before anything in it is changed: identity, last checkpoint, journal, metadata.
//!
//! Invariant: nothing here writes, but for the holder's name in the lock.
//! Neighbours: `join` compares what several directories say; `replay` goes on from here.

use super::controls::PartitionControls;
use super::damaged;
use super::parts::{RecoveryParts, Stopwatch};
use crate::catalog::Catalog;
use crate::create::{create, make_folders, take_lock, was_never_started};
use crate::disk::{Disk, LockGuard, OpenMode};
use crate::journal::cycle::{Frame, frames, unknown_kind};
use crate::journal::replay::{Chain, Found, read_frames, walk};
use crate::journal::ring::Slot;
use crate::journal::{self, Opened};
use crate::log::{LogOptions, OpenError};
use crate::metadata::{MetadataError, MetadataRecord, MetadataState, decode_all};
use crate::node::Metadata;
use crate::shared::Common;
use crate::superblock::Superblock;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The file by which a person says that an empty folder in the place of a lost directory is to be begun anew.
pub(super) const ASKED: &str = "headwater.new";

/// What stands at a path.
pub(super) enum Place {
    /// Nothing, or a directory whose first start never came to its end.
    Empty {
        /// It is to be taken even where a directory is missing.
        asked: bool,
    },
    Directory(Box<Read>),
}

/// A directory that was read.
pub(super) struct Read {
    pub(super) dir: PathBuf,
    pub(super) superblock: Superblock,
    pub(super) lock: Box<dyn LockGuard>,
    pub(super) catalog: Catalog,
    pub(super) ring: Ring,
    pub(super) chain: Chain,
    pub(super) metadata: Metadata,
    /// What the journal says of partitions beside their batches.
    pub(super) controls: PartitionControls,
    pub(super) findings: Vec<String>,
    pub(super) created: bool,
    /// Damage took records of metadata out of the journal.
    pub(super) holed: bool,
    /// What the reading took.
    pub(super) parts: RecoveryParts,
}

pub(super) struct Ring {
    pub(super) slots: Vec<Slot>,
    /// Files that cannot be written to: their cycles count, then they are made again.
    pub(super) unfinished: BTreeSet<u32>,
}

/// Looks at a path, and locks and reads what is there.
pub(super) fn look(common: &Common, dir: &Path) -> Result<Place, OpenError> {
    let (disk, watch) = (&*common.disk, Stopwatch::new(&*common.clock));
    let there = |name: &str| {
        let path = dir.join(name);
        match disk.open(&path, OpenMode::Read) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(OpenError::Io { path, source }),
        }
    };
    if there("superblock")? {
        let lock = take_lock(disk, dir)?;
        if let Some(known) = identify(disk, dir)? {
            return Ok(Place::Directory(Box::new(Read::of(disk, dir, known, lock, watch)?)));
        }
    }
    Ok(Place::Empty { asked: there(ASKED)? })
}

/// Who a directory is and what its last checkpoint says; nothing of one that was never started.
fn identify(disk: &dyn Disk, dir: &Path) -> Result<Option<(Superblock, Catalog)>, OpenError> {
    let Some(superblock) = Superblock::read(disk, dir)? else { return Ok(None) };
    let catalog = Catalog::read(disk, dir, &superblock.directory_id)?;
    if was_never_started(catalog.as_ref()) {
        return Ok(None);
    }
    let none = || damaged(dir, "neither catalog.a nor catalog.b is intact".to_owned());
    Ok(Some((superblock, catalog.ok_or_else(none)?)))
}

/// Makes a directory where `look` found none.
pub(super) fn begin(
    common: &Common,
    dir: &Path,
    options: &LogOptions,
) -> Result<Box<Read>, OpenError> {
    let (disk, watch) = (&*common.disk, Stopwatch::new(&*common.clock));
    make_folders(disk, dir)?;
    let lock = take_lock(disk, dir)?;
    // Looked at again: until the lock was taken, another process may have made it.
    if let Some(known) = identify(disk, dir)? {
        return Ok(Box::new(Read::of(disk, dir, known, lock, watch)?));
    }
    let made = create(disk, dir, options)?;
    let mut read = Read::of(disk, dir, made, lock, watch)?;
    read.created = true;
    match disk.remove_file(&dir.join(ASKED)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(OpenError::Io { path: dir.join(ASKED), source })
        }
        _ => Ok(Box::new(read)),
    }
}

impl Read {
    fn of(
        disk: &dyn Disk,
        dir: &Path,
        (superblock, catalog): (Superblock, Catalog),
        lock: Box<dyn LockGuard>,
        mut watch: Stopwatch<'_>,
    ) -> Result<Self, OpenError> {
        let id = superblock.directory_id;
        let parts = RecoveryParts { catalog: watch.lap(), ..RecoveryParts::default() };
        let ring = open_ring(disk, dir, id)?;
        let chain = walk(&ring.slots, &id, catalog.mark)
            .map_err(|source| OpenError::Io { path: dir.join("journal"), source })?;
        if let Some(version) = chain.newer {
            let detail = format!("a cycle of its journal has version {version}");
            return Err(OpenError::FromTheFuture { dir: dir.to_owned(), detail });
        }
        let state = catalog_metadata(dir, &catalog)?;
        let sequence = catalog.metadata_sequence;
        let mut read = Self {
            dir: dir.to_owned(),
            superblock,
            lock,
            catalog,
            ring,
            chain,
            metadata: Metadata { state, sequence },
            controls: PartitionControls::default(),
            findings: Vec::new(),
            created: false,
            holed: false,
            parts,
        };
        read.report_gaps();
        read.controls()?;
        read.parts.ring = watch.lap();
        Ok(read)
    }

    fn report_gaps(&mut self) {
        for gap in &self.chain.gaps {
            self.findings.push(format!(
                "journal cycles {} to {}, which had been synced, cannot be read: {} at byte {}",
                gap.first,
                gap.last,
                journal::path(&self.dir, gap.slot).display(),
                gap.at
            ));
        }
    }

    /// First pass: metadata, log starts and leaderships to their final state, and all truncations.
    fn controls(&mut self) -> Result<(), OpenError> {
        let mut bytes = Vec::new();
        for found in self.chain.cycles.clone() {
            self.read_cycle(&found, &mut bytes)?;
            let number = found.header.number;
            let lost = self.chain.gaps.iter().map(|g| g.last).find(|last| last + 1 == number);
            for frame in parse(&self.dir, number, &bytes)? {
                let (sequence, record) = match frame {
                    Frame::Metadata { sequence, record } => (sequence, record),
                    other => {
                        self.controls.note(other, number, lost);
                        continue;
                    }
                };
                if sequence <= self.metadata.sequence {
                    continue;
                }
                self.holed |= sequence != self.metadata.sequence + 1;
                let what = format!("metadata in cycle {}", found.header.number);
                let record = MetadataRecord::decode(record)
                    .map_err(|e| metadata_error(&self.dir, &what, e))?;
                match self.metadata.state.apply(&record) {
                    Ok(()) => {}
                    // A cycle before it is lost: so may be what this record builds upon.
                    Err(e) if !self.chain.gaps.is_empty() => {
                        self.findings.push(format!("{what} does not apply: {e}"));
                    }
                    Err(e) => return Err(damaged(&self.dir, format!("{what}: {e}"))),
                }
                self.metadata.sequence = sequence;
            }
        }
        Ok(())
    }

    pub(super) fn read_cycle(&self, found: &Found, bytes: &mut Vec<u8>) -> Result<(), OpenError> {
        let path = journal::path(&self.dir, self.ring.slots[found.slot].number);
        let whole = read_frames(&self.ring.slots, found, bytes)
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        if !whole {
            return Err(damaged(
                &self.dir,
                format!("{} at byte {} changed while it was read", path.display(), found.at),
            ));
        }
        Ok(())
    }
}

fn open_ring(disk: &dyn Disk, dir: &Path, id: [u8; 16]) -> Result<Ring, OpenError> {
    let folder = dir.join("journal");
    let entries =
        disk.list(&folder).map_err(|source| OpenError::Io { path: folder.clone(), source })?;
    let (mut slots, mut unfinished) = (Vec::new(), BTreeSet::new());
    for entry in entries {
        let Some(number) = entry.name.strip_suffix(".journal").and_then(|n| n.parse().ok()) else {
            continue;
        };
        let (file, size_bytes) = match journal::open(disk, dir, number, id)? {
            Opened::File(file, size) => (file, size),
            Opened::Unfinished(file, size) => {
                unfinished.insert(number);
                (file, size)
            }
        };
        slots.push(Slot { number, file, size_bytes, last_cycle: None });
    }
    slots.sort_by_key(|s| s.number);
    Ok(Ring { slots, unfinished })
}

fn catalog_metadata(dir: &Path, catalog: &Catalog) -> Result<MetadataState, OpenError> {
    let mut state = MetadataState::default();
    if catalog.metadata.is_empty() {
        return Ok(state);
    }
    let records = decode_all(&catalog.metadata)
        .map_err(|e| metadata_error(dir, "metadata in the catalog", e))?;
    for record in &records {
        let applied = state.apply(record);
        applied.map_err(|e| damaged(dir, format!("metadata in the catalog: {e}")))?;
    }
    Ok(state)
}

fn metadata_error(dir: &Path, what: &str, error: MetadataError) -> OpenError {
    let (dir, detail) = (dir.to_owned(), format!("{what}: {error}"));
    match error {
        MetadataError::FromTheFuture { .. } => OpenError::FromTheFuture { dir, detail },
        _ => OpenError::Damaged { dir, detail },
    }
}

pub(super) fn parse<'a>(
    dir: &Path,
    cycle: u64,
    bytes: &'a [u8],
) -> Result<Vec<Frame<'a>>, OpenError> {
    frames(bytes).ok_or_else(|| match unknown_kind(bytes) {
        Some(kind) => OpenError::FromTheFuture {
            dir: dir.to_owned(),
            detail: format!("journal cycle {cycle} has a frame of kind {kind}"),
        },
        None => damaged(dir, format!("frames of journal cycle {cycle} do not parse")),
    })
}
