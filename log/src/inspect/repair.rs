//! `headwater log repair`: makes a damaged directory one that can be served, and says what is lost.
//!
//! In order: the superblock (its id is in the catalogs and in the journal's files); files of the ring that belong elsewhere; a
//! catalog where neither slot can be read ([`super::rebuild`]); then a start, which applies the journal, and an orderly end; then every partition with damage ([`super::mend`]); indexes that
//! disagree with their log go aside and are made again by their next reader; at last `verify`.
//!
//! A dry run is the same on an overlay, so that what it says is what would be done. Each step leaves a directory on which this
//! can run again; run twice, the second does nothing.
//!
//! Invariant: nothing is deleted; offsets are never given out twice; what is lost is in the catalog, and a reader meets it there.
//! Neighbours: [`super::quarantine`] keeps what is taken out, [`super::verify`] judges before and after.

use super::finding::Severity;
use super::held::Held;
use super::mend;
use super::overlay::Overlay;
use super::quarantine::Quarantine;
use super::rebuild;
use super::survey::{self, InspectError, Survey, ring_numbers};
use super::verify::{Progress, Verdict, judge};
use crate::catalog::{self, Catalog};
use crate::clock::Clock;
use crate::disk::{Disk, Lock, LockGuard};
use crate::journal;
use crate::log::OpenError;
use crate::segment::HINTS;
use crate::superblock::Superblock;
use crate::{Log, LogOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was done, or would be.
#[derive(Debug, Clone, Default)]
pub struct Repaired {
    /// What was wrong.
    pub before: Verdict,
    /// What was done about it, a sentence each, in order. Empty: there was nothing to do.
    pub done: Vec<String>,
    /// Where the damaged files are, if any were moved.
    pub quarantine: Vec<PathBuf>,
    /// What is wrong still: nothing, unless the damage is beyond this program.
    pub after: Verdict,
}

/// Repairs the directories of one log, which no process uses; `apply: false` only says what would be done, and changes nothing.
///
/// # Errors
/// [`InspectError`]; what was done until then is in the quarantine's report, and a repair can run again.
pub fn repair(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dirs: &[PathBuf],
    apply: bool,
    watch: &mut dyn FnMut(Progress),
) -> Result<Repaired, InspectError> {
    let surveys = survey::take_all(&disk, dirs)?;
    let before = judge(&disk, &surveys, Arc::clone(&clock), watch)?;
    let mut repaired = Repaired { after: before.clone(), before, ..Repaired::default() };
    let remembers = |survey: &Survey| {
        survey.catalog().is_some_and(|c| c.partitions.iter().any(|p| !p.damaged.is_empty()))
    };
    if repaired.before.is_well() && !is_half_mended(&*disk, dirs) && !surveys.iter().any(remembers)
    {
        return Ok(repaired);
    }
    let _locks: Vec<Box<dyn LockGuard>>;
    let disk: Arc<dyn Disk> = if apply {
        // Shared by the survey until now: given back, and taken for good.
        drop(surveys);
        _locks = dirs.iter().map(|dir| own(&*disk, dir)).collect::<Result<_, _>>()?;
        Arc::new(Held(disk))
    } else {
        Arc::new(Overlay::new(disk))
    };
    let mut broken = Vec::with_capacity(dirs.len());
    let mut quarantines: Vec<_> =
        dirs.iter().map(|dir| Quarantine::new(&*disk, dir, clock.wall_ms())).collect();
    let result = prepare(&disk, dirs, &mut quarantines, clock.wall_ms(), &mut broken);
    for quarantine in &mut quarantines {
        repaired.done.append(&mut quarantine.done);
        repaired.quarantine.extend(quarantine.folder().map(Path::to_owned));
    }
    result?;
    let sparse = settle(&disk, dirs, &clock, &mut repaired.done)?;
    let surveys = survey::take_all(&disk, dirs)?;
    let found = judge(&disk, &surveys, Arc::clone(&clock), watch)?;
    for (survey, broken) in surveys.iter().zip(&broken) {
        let mut quarantine = Quarantine::new(&*disk, &survey.dir, clock.wall_ms());
        let result = keep_orphans(&*disk, survey, *broken, &mut quarantine)
            .and_then(|()| mend_directory(&disk, survey, &found, &sparse, &mut quarantine));
        repaired.done.append(&mut quarantine.done);
        repaired.quarantine.extend(quarantine.folder().map(Path::to_owned));
        result?;
    }
    drop(surveys);
    let surveys = survey::take_all(&disk, dirs)?;
    repaired.after = judge(&disk, &surveys, clock, watch)?;
    Ok(repaired)
}

fn own(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn LockGuard>, InspectError> {
    let path = dir.join("headwater.lock");
    let holder = format!("{} (repair)\n", std::process::id());
    match disk.lock(&path, &holder).map_err(InspectError::io(&path))? {
        Lock::Held(guard) => Ok(guard),
        Lock::InUse(holder) => Err(InspectError::InUse { dir: dir.to_owned(), holder }),
    }
}

/// Whether a repair was cut short between the catalog and the files that it names.
fn is_half_mended(disk: &dyn Disk, dirs: &[PathBuf]) -> bool {
    let folders = dirs.iter().flat_map(|dir| {
        let topics = dir.join("topics");
        let folders = disk.list(&topics).unwrap_or_default().into_iter();
        folders.map(move |entry| topics.join(entry.name))
    });
    folders.into_iter().any(|folder| {
        disk.list(&folder).unwrap_or_default().iter().any(|f| f.name.ends_with(".mended"))
    })
}

/// What must be right before anything can be started, in all directories: superblocks, that the rings are theirs, catalogs.
fn prepare(
    disk: &Arc<dyn Disk>,
    dirs: &[PathBuf],
    quarantines: &mut [Quarantine<'_>],
    now_ms: i64,
    broken: &mut Vec<bool>,
) -> Result<(), InspectError> {
    for (dir, quarantine) in dirs.iter().zip(&mut *quarantines) {
        prepare_identity(disk, dir, quarantine)?;
    }
    let look = |dir: &PathBuf| Survey::look(Arc::clone(disk), dir, None);
    let surveys = dirs.iter().map(look).collect::<Result<Vec<_>, _>>()?;
    rebuild::catalogs(&**disk, &surveys, quarantines, now_ms)?;
    for (dir, quarantine) in dirs.iter().zip(quarantines) {
        broken.push(keep_broken_ring(disk, dir, quarantine)?);
    }
    Ok(())
}

fn prepare_identity(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    let survey = Survey::look(Arc::clone(disk), dir, None)?;
    if survey.was_never_made() {
        return Ok(());
    }
    let id = match survey.superblock {
        Ok(Some(superblock)) => superblock.directory_id,
        _ => {
            let path = dir.join("superblock");
            let Some(id) = known_id(&**disk, dir)? else {
                let why = "the superblock is damaged, and no catalog and no file of the journal tells the directory's id";
                return Err(InspectError::BeyondRepair { dir: dir.to_owned(), why: why.into() });
            };
            if survey.superblock.is_err() {
                quarantine.put(&path, "the superblock is damaged")?;
            }
            quarantine.note(format!(
                "{}: written anew, with the id that catalogs and journal have",
                path.display()
            ))?;
            // No machine's id: whether the directory was moved is not known any more.
            Superblock { directory_id: id, machine_id: [0; 16] }
                .write(&**disk, dir)
                .map_err(survey::refused)?;
            id
        }
    };
    for number in ring_numbers(&**disk, dir)? {
        if let Err(OpenError::Damaged { .. }) = journal::open(&**disk, dir, number, id) {
            let path = journal::path(dir, number);
            quarantine.put(&path, "it belongs to another place or another data directory")?;
        }
    }
    Ok(())
}

/// A ring in which cycles are missing is written over by the start that follows. Answers whether it is one.
fn keep_broken_ring(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    quarantine: &mut Quarantine<'_>,
) -> Result<bool, InspectError> {
    let survey = Survey::look(Arc::clone(disk), dir, None)?;
    let (Some(catalog), Ok(Some(superblock))) = (survey.catalog(), &survey.superblock) else {
        return Ok(false);
    };
    let chain = journal::replay::walk(&survey.slots, &superblock.directory_id, catalog.mark)
        .map_err(InspectError::io(&dir.join("journal")))?;
    if !chain.gaps.is_empty() {
        for slot in &survey.slots {
            let path = journal::path(dir, slot.number);
            quarantine.copy(&path, "cycles in it that had been synced cannot be read")?;
        }
    }
    Ok(!chain.gaps.is_empty())
}

/// The id that a directory's other files were written with.
fn known_id(disk: &dyn Disk, dir: &Path) -> Result<Option<[u8; 16]>, InspectError> {
    for name in catalog::NAMES {
        if let Some(id) = Catalog::directory_id(disk, dir, name) {
            return Ok(Some(id));
        }
    }
    for number in ring_numbers(disk, dir)? {
        if let Some(id) = journal::directory_id(disk, dir, number) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Segments with legal holes, by partition handle.
type Sparse = BTreeMap<u64, BTreeSet<i64>>;

/// Applies the journal and ends in order: from here on the catalog alone says what there is.
fn settle(
    disk: &Arc<dyn Disk>,
    dirs: &[PathBuf],
    clock: &Arc<dyn Clock>,
    done: &mut Vec<String>,
) -> Result<Sparse, InspectError> {
    let options = LogOptions { dirs: dirs.to_vec(), ..LogOptions::default() };
    let opened = Log::open(options, Arc::clone(disk), Arc::clone(clock));
    let (log, recovery) = opened.map_err(|error| match error {
        OpenError::Damaged { dir, detail } => InspectError::BeyondRepair { dir, why: detail },
        other => survey::refused(other),
    })?;
    if recovery.cycles_replayed > 0 {
        done.push(format!("{} cycles of the journal applied", recovery.cycles_replayed));
    }
    done.extend(recovery.findings.iter().cloned());
    let mut sparse = Sparse::new();
    for partition in log.topics().iter().flat_map(|t| t.partitions()) {
        let (segments, _) = partition.segments_and_checkpoint();
        let bases = segments.iter().filter(|s| s.is_sparse()).map(|s| s.base().get());
        sparse.insert(partition.handle(), bases.collect());
    }
    log.step_close().map_err(|why| InspectError::BeyondRepair { dir: dirs[0].clone(), why })?;
    Ok(sparse)
}

/// With cycles of the journal the making of a topic may be lost: the next start but one would remove its folder.
fn keep_orphans(
    disk: &dyn Disk,
    survey: &Survey,
    broken: bool,
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    let Some(catalog) = survey.catalog().filter(|_| broken) else { return Ok(()) };
    let folders = folders(catalog, &survey.dir);
    let topics = survey.dir.join("topics");
    for entry in disk.list(&topics).map_err(InspectError::io(&topics))? {
        let folder = topics.join(&entry.name);
        let known = folders.values().any(|(known, _)| *known == folder);
        if entry.is_dir && !known && !entry.name.ends_with(".deleted") {
            quarantine.put(&folder, "no topic is known that it belongs to")?;
        }
    }
    Ok(())
}

/// Mends every partition of a directory that something was found in.
fn mend_directory(
    disk: &Arc<dyn Disk>,
    survey: &Survey,
    found: &Verdict,
    sparse: &Sparse,
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    let (Some(catalog), Ok(Some(superblock))) = (survey.catalog(), &survey.superblock) else {
        return Ok(());
    };
    let mut catalog = catalog.clone();
    let folders = folders(&catalog, &survey.dir);
    let damaged = |folder: &Path| {
        let damage = found.findings.iter().filter(|f| f.severity == Severity::Damage);
        let inside = damage.filter(|f| f.file.starts_with(folder));
        // Too many to have been told: each is looked at.
        inside.count() > 0 || found.left_out > 0
    };
    let mut changed = false;
    for entry in &mut catalog.partitions {
        let Some((folder, name)) = folders.get(&entry.handle) else { continue };
        mend::swap(&**disk, folder, entry, quarantine)?;
        if !damaged(folder) && !entry.offline {
            if !std::mem::take(&mut entry.damaged).is_empty() {
                changed = true;
                quarantine.note(format!("{name}: what readers found damaged is whole now"))?;
            }
            continue;
        }
        let holes = sparse.get(&entry.handle).cloned().unwrap_or_default();
        changed |= mend::partition(&**disk, folder, name, entry, &holes, quarantine)?;
    }
    if changed {
        quarantine.note("the catalog is written anew: what is lost is known from now on".into())?;
        catalog.sequence += 1;
        catalog
            .write(&**disk, &survey.dir, &superblock.directory_id)
            .map_err(InspectError::io(&survey.dir))?;
        for entry in &catalog.partitions {
            if let Some((folder, _)) = folders.get(&entry.handle) {
                mend::swap(&**disk, folder, entry, quarantine)?;
            }
        }
    }
    for finding in found.findings.iter().filter(|f| f.severity == Severity::Damage) {
        let extension = finding.file.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let is_hint = HINTS.contains(&extension);
        if is_hint && disk.open(&finding.file, crate::disk::OpenMode::Read).is_ok() {
            quarantine.put(&finding.file, "its next reader makes it anew from the log")?;
        }
    }
    Ok(())
}

/// The folder and the name of every partition that the catalog knows, by handle.
fn folders(catalog: &Catalog, dir: &Path) -> BTreeMap<u64, (PathBuf, String)> {
    let state = catalog.state();
    let topics = state.topics();
    topics
        .flat_map(|topic| {
            let partitions = topic.partitions.iter().enumerate();
            partitions.map(move |(number, partition)| {
                let handle = partition.handle.get();
                let identity = crate::node::identity(dir, topic, number, handle, 0);
                (handle, (identity.folder, format!("{}-{number}", topic.name)))
            })
        })
        .collect()
}
