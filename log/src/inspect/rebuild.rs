//! A directory's catalog made again when neither of its slots can be read.
//!
//! | what | from where | what is lost of it |
//! |---|---|---|
//! | topics, settings, ids, where partitions are | another directory of the same log | nothing |
//! | the same, without another directory | records that the journal's files still hold, then the names of folders | settings and ids of topics made long ago; partitions that never had a record; the full name of a topic above 200 bytes |
//! | records below the last checkpoint | segment files | what is damaged in them |
//! | records behind it | the journal, applied by the start that follows | what is damaged in it |
//! | epochs, producers, transactions, the node's sequences | the batches | producers whose batches are all deleted |
//! | log starts | the journal's newer cycles, else where the first segment begins | deletions within that segment: those records are back |
//! | age of segments | nowhere | retention by age begins anew |
//! | a replica's role, high watermark | the journal's newer cycles | a partition whose role is not in them is alone again |
//! | the progress of compaction | nowhere | everything is compacted again |
//!
//! In order: what cannot be explained goes aside, so that the start that follows does not remove it; the damaged slots go aside; the
//! new catalog is written and synced. Cut short anywhere before that, there is still no catalog, and this begins again.
//!
//! Invariant: nothing that is found whole is left out without being said and kept.
//! Neighbours: [`super::repair`] calls it before anything is started; [`super::mend`] goes on with what is damaged.

mod names;
mod partition;
mod ring;

use super::finding::Finding;
use super::quarantine::Quarantine;
use super::survey::{InspectError, Survey};
use crate::TopicId;
use crate::catalog::{Catalog, Found, PartitionEntry};
use crate::disk::Disk;
use crate::journal::cycle::{self, Frame};
use crate::journal::replay;
use crate::metadata::{Durability, MetadataRecord, MetadataState, TopicMetadata, encode_all};
use names::{Folder, Made, Seat};
use ring::{Ring, Unread};
use std::path::{Path, PathBuf};

/// A rebuilt catalog is numbered from here on: above what a directory has that was never started.
const SEQUENCE: u64 = 2;

/// A directory without a catalog.
struct Bare<'a> {
    index: usize,
    survey: &'a Survey,
    id: [u8; 16],
    ring: Ring,
}

/// Writes a catalog for each directory that has none which can be read. The superblocks and the ring's files are right.
pub(super) fn catalogs(
    disk: &dyn Disk,
    surveys: &[Survey],
    quarantines: &mut [Quarantine<'_>],
    now_ms: i64,
) -> Result<(), InspectError> {
    let mut bare = Vec::new();
    for (index, survey) in surveys.iter().enumerate() {
        let Ok(Some(superblock)) = survey.superblock else { continue };
        if survey.catalog().is_none() && !survey.was_never_made() {
            let id = superblock.directory_id;
            let ring = Ring::read(&survey.slots, &id).map_err(|e| unread(&survey.dir, e))?;
            bare.push(Bare { index, survey, id, ring });
        }
    }
    let Some(first) = bare.first() else { return Ok(()) };
    let beyond = |why: String| InspectError::BeyondRepair { dir: first.survey.dir.clone(), why };
    let mut folders = Vec::new();
    for (i, bare) in bare.iter().enumerate() {
        folders.extend(folders_in(disk, &bare.survey.dir, i)?);
    }
    let mut made = match known(surveys)? {
        Some(made) => {
            let strange =
                bare.iter().find(|bare| made.state.directories().all(|d| d.id != bare.id));
            if let Some(strange) = strange {
                let dir = strange.survey.dir.display();
                return Err(beyond(format!(
                    "{dir} is not a directory of the log that the others are of"
                )));
            }
            made
        }
        None => {
            let seats: Vec<_> =
                bare.iter().map(|bare| Seat { id: bare.id, ring: &bare.ring }).collect();
            let random = || TopicId::from_bytes(disk.random_id().unwrap_or_default());
            names::make(&seats, &folders, random).map_err(beyond)?
        }
    };
    let mut described = Vec::with_capacity(bare.len());
    let mut producer_ids = 0;
    for bare in &bare {
        let quarantine = &mut quarantines[bare.index];
        let what = "neither slot of the catalog can be read: it is made again";
        quarantine.note(format!("{}: {what}", bare.survey.dir.display()))?;
        if bare.index == first.index {
            for note in &made.notes {
                quarantine.note(note.clone())?;
            }
        }
        for stray in made.strays.iter().filter(|stray| stray.starts_with(&bare.survey.dir)) {
            quarantine.put(stray, "it belongs to no partition that is known")?;
        }
        let (entries, ids) = describe(disk, bare, &made.state, now_ms, quarantine)?;
        producer_ids = producer_ids.max(ids);
        described.push(entries);
    }
    if producer_ids > made.state.next_producer_id() {
        // Higher than what is known: it cannot fail.
        let _ = made.state.apply(&MetadataRecord::ProducerIdsTaken { next: producer_ids });
    }
    for (bare, entries) in bare.iter().zip(described) {
        write(disk, bare, &made, entries, now_ms, &mut quarantines[bare.index])?;
    }
    Ok(())
}

/// Says what a directory without a catalog means, for `verify`.
pub(super) fn advise(mut finding: Finding) -> Finding {
    finding.advice = "`headwater log repair` makes the catalog again from the journal, the folders and the segments, and says what \
                      it cannot know; name all directories of the node";
    finding
}

fn unread(dir: &Path, error: Unread) -> InspectError {
    match error {
        Unread::Io(source) => InspectError::Io { path: dir.join("journal"), source },
        Unread::Newer(detail) => InspectError::FromTheFuture { dir: dir.to_owned(), detail },
    }
}

/// Folders of partitions in a directory.
fn folders_in(disk: &dyn Disk, dir: &Path, index: usize) -> Result<Vec<Folder>, InspectError> {
    let topics = dir.join("topics");
    let entries = match disk.list(&topics) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(InspectError::io(&topics))?,
    };
    let mut folders: Vec<Folder> = entries
        .iter()
        .filter(|entry| entry.is_dir && !entry.name.ends_with(".deleted"))
        .filter_map(|entry| Folder::of(topics.join(&entry.name), index))
        .collect();
    folders.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(folders)
}

/// What the directories with a catalog say: that with the most.
fn known(surveys: &[Survey]) -> Result<Option<Made>, InspectError> {
    let mut best: Option<Made> = None;
    for survey in surveys {
        let (Some(catalog), Ok(Some(superblock))) = (survey.catalog(), &survey.superblock) else {
            continue;
        };
        let (mut state, mut sequence) = (catalog.state(), catalog.metadata_sequence);
        let io = InspectError::io(&survey.dir.join("journal"));
        let chain = replay::walk(&survey.slots, &superblock.directory_id, catalog.mark);
        let mut bytes = Vec::new();
        for found in chain.map_err(&io)?.cycles {
            replay::read_frames(&survey.slots, &found, &mut bytes).map_err(&io)?;
            for frame in cycle::frames(&bytes).into_iter().flatten() {
                let Frame::Metadata { sequence: at, record } = frame else { continue };
                if at > sequence
                    && let Ok(record) = MetadataRecord::decode(record)
                    && state.apply(&record).is_ok()
                {
                    sequence = at;
                }
            }
        }
        if best.as_ref().is_none_or(|best| best.sequence < sequence) {
            best = Some(Made { state, sequence, strays: Vec::new(), notes: Vec::new() });
        }
    }
    Ok(best)
}

/// Every partition of a directory that has files, and one above the highest producer id in them.
fn describe(
    disk: &dyn Disk,
    bare: &Bare<'_>,
    state: &MetadataState,
    now_ms: i64,
    quarantine: &mut Quarantine<'_>,
) -> Result<(Vec<PartitionEntry>, i64), InspectError> {
    let (mut entries, mut producer_ids) = (Vec::new(), 0);
    for (folder, topic, number, handle) in partitions(state, bare) {
        if !disk.list(&folder).is_ok_and(|files| files.iter().any(|f| f.name.ends_with(".log"))) {
            // The start that follows finds it new, and applies what the journal has of it.
            continue;
        }
        let known = partition::Known {
            folder: &folder,
            name: format!("{}-{number}", topic.name),
            handle,
            memory: topic.settings.durability == Durability::Memory,
            compacts: topic.settings.cleanup.compacts(),
            now_ms,
        };
        let (entry, ids) = partition::describe(disk, &known, &bare.ring, quarantine)?;
        let (from, to, segments) = (entry.log_start, entry.end, entry.segments.len());
        let name = &known.name;
        let what = format!("{name}: offsets {from} to {to} (exclusive) in {segments} segments");
        quarantine.note(what)?;
        producer_ids = producer_ids.max(ids);
        entries.push(entry);
    }
    Ok((entries, producer_ids))
}

fn write(
    disk: &dyn Disk,
    bare: &Bare<'_>,
    made: &Made,
    partitions: Vec<PartitionEntry>,
    now_ms: i64,
    quarantine: &mut Quarantine<'_>,
) -> Result<(), InspectError> {
    let dir = &bare.survey.dir;
    let cycles = bare.ring.cycles;
    let what = format!("{}: {cycles} cycles of the journal are applied again", dir.display());
    quarantine.note(what)?;
    for (name, found) in &bare.survey.catalogs {
        if matches!(found, Found::Damaged) {
            quarantine.put(&dir.join(name), "it is damaged")?;
        }
    }
    let mut metadata = Vec::new();
    encode_all(&made.state.snapshot(), &mut metadata);
    let catalog = Catalog {
        sequence: SEQUENCE,
        clean: false,
        mark: bare.ring.mark,
        log_clock_ms: now_ms,
        metadata_sequence: made.sequence,
        metadata,
        partitions,
        ..Catalog::default()
    };
    catalog.write(disk, dir, &bare.id).map_err(InspectError::io(dir))?;
    disk.sync_dir(dir).map_err(InspectError::io(dir))
}

type Placed<'a> = (PathBuf, &'a TopicMetadata, usize, u64);

/// Partitions of a directory, by handle.
fn partitions<'a>(state: &'a MetadataState, bare: &Bare<'_>) -> Vec<Placed<'a>> {
    let number = state.directories().find(|d| d.id == bare.id).map(|d| d.number);
    let number = number.unwrap_or_default();
    let mut all = Vec::new();
    for topic in state.topics() {
        for (n, placed) in topic.partitions.iter().enumerate() {
            if placed.directory == number {
                let handle = placed.handle.get();
                let identity = crate::node::identity(&bare.survey.dir, topic, n, handle, 0);
                all.push((identity.folder, topic, n, handle));
            }
        }
    }
    all.sort_by_key(|(_, _, _, handle)| *handle);
    all
}
