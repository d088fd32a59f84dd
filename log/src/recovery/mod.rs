//! Opening a log: from whatever a crash left in its data directories to what can be served.
//!
//! In each directory: lock; superblock; catalog; the ring's files; walk the chain; metadata to its final state (`read`). Then, over
//! all: which of them are this log's, and whose metadata is the truth (`join`). In each again: batches applied again by offset;
//! `memory` files scanned; files cut to what counts (`replay`); at last a new leader epoch, and in each directory a new generation
//! and a checkpoint, with the metadata of all. Nothing is changed before everything that can be refused (another process, a newer
//! version) has been looked at, and nothing that a second recovery would need is lost when this one is cut short: the catalogs are
//! written last.
//!
//! A directory that cannot be used is left as it is; its partitions stay known, and answer that they are offline.
//!
//! Invariant: nothing is served before every directory in use has the whole metadata.
//! Neighbours: `create` makes new directories, `catalog`, `journal::replay`, `partition::replay`.

mod controls;
mod join;
mod parts;
mod read;
mod replay;

use crate::checkpoint::CheckpointError;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::disk::Disk;
use crate::engine::{Engine, Unused};
use crate::journal::BLOCK_BYTES;
use crate::log::{LogOptions, OpenError, Recovery, Topic};
use crate::metadata::{DirectoryNumber, DirectoryState, MetadataRecord};
use crate::node::{Metadata, Node, Sizes, Topics, directory, identity};
use crate::partition::Partition;
use crate::retention::LogClock;
use crate::shared::{Common, Shared};
use join::{Candidate, Claim, Fate};
pub use parts::RecoveryParts;
use parts::Stopwatch;
use read::{Place, Read};
use replay::{ByHandle, Start};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A journal file holds a batch, its header and the block of the file's head.
const JOURNAL_FILE_BYTES_MIN: u64 = 64 << 10;

/// Opens or creates the directories of a log.
pub(crate) fn open(
    mut options: LogOptions,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
) -> Result<(Engine, Recovery), OpenError> {
    let began = clock.monotonic_ns();
    options.journal_file_bytes =
        (options.journal_file_bytes / BLOCK_BYTES * BLOCK_BYTES).max(JOURNAL_FILE_BYTES_MIN);
    // With one file alone no cycle could be written while a checkpoint runs.
    options.journal_files = options.journal_files.max(2);
    let common = Common::new(disk, clock, options.labeller);
    let opening = Opening::gather(options, common)?;
    let (engine, mut report) = opening.run()?;
    let took = engine.node.common.clock.monotonic_ns().saturating_sub(began);
    report.took = Duration::from_nanos(took);
    for finding in &report.findings {
        tracing::error!(%finding, "recovery");
    }
    Ok((engine, report))
}

pub(crate) fn damaged(dir: &Path, detail: String) -> OpenError {
    OpenError::Damaged { dir: dir.to_owned(), detail }
}

/// The directories that a log is opened with, and what they say.
struct Opening {
    options: LogOptions,
    common: Common,
    metadata: Metadata,
    /// The first directory's id.
    id: [u8; 16],
    seats: Vec<(DirectoryNumber, Box<Read>)>,
    /// Paths that are not used, and why.
    left: Vec<Unused>,
    /// The error of the first that failed.
    error: Option<OpenError>,
    report: Recovery,
}

impl Opening {
    /// Reads what there is, makes what is new, and settles who is who.
    fn gather(options: LogOptions, common: Common) -> Result<Self, OpenError> {
        let mut error = None;
        let mut places = Vec::with_capacity(options.dirs.len());
        for dir in &options.dirs {
            places.push(match read::look(&common, dir) {
                Ok(place) => Ok(place),
                // Whoever runs two processes, or an old program, must hear of it, not lose half of what there is.
                Err(e @ (OpenError::InUse { .. } | OpenError::FromTheFuture { .. })) => {
                    return Err(e);
                }
                Err(e) => {
                    let why = e.to_string();
                    error.get_or_insert(e);
                    Err(why)
                }
            });
        }
        let plan = join::plan(&places.iter().map(candidate).collect::<Vec<_>>());
        if plan.truth.is_none()
            && let Some(error) = error
        {
            // What failed may hold everything: nothing is begun beside it.
            return Err(error);
        }
        let truth = plan.truth.and_then(|at| match &places[at] {
            Ok(Place::Directory(read)) => Some((read.metadata.clone(), read.superblock)),
            _ => None,
        });
        let (mut members, mut joining, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for ((place, fate), dir) in places.into_iter().zip(plan.fates).zip(&options.dirs) {
            match (fate, place) {
                (Fate::Member(number), Ok(Place::Directory(read))) => members.push((number, read)),
                (Fate::Joins, Ok(Place::Directory(read))) => joining.push(read),
                (Fate::Joins, Ok(Place::Empty { .. })) => match read::begin(&common, dir, &options)
                {
                    Ok(read) => joining.push(read),
                    Err(e) => {
                        left.push(Unused { path: dir.clone(), why: e.to_string() });
                        error.get_or_insert(e);
                    }
                },
                (Fate::Left(why), _) => left.push(Unused { path: dir.clone(), why }),
                (fate, _) => unreachable!("{} cannot be {fate:?}", dir.display()),
            }
        }
        let (mut metadata, first) = match truth {
            Some((metadata, superblock)) => (metadata, superblock.directory_id),
            None if joining.is_empty() => {
                let none = || io::Error::new(io::ErrorKind::InvalidInput, "no data directory");
                return Err(
                    error.unwrap_or_else(|| OpenError::Io { path: PathBuf::new(), source: none() })
                );
            }
            None => {
                // A new log: the first directory is the one that everything begins with.
                let read = joining.remove(0);
                let id = read.superblock.directory_id;
                members.push((DirectoryNumber::FIRST, read));
                (Metadata::default(), id)
            }
        };
        let present: Vec<_> = members.iter().map(|(number, _)| *number).collect();
        let ids: Vec<_> = joining.iter().map(|read| read.superblock.directory_id).collect();
        let changes = join::changes(&metadata.state, first, &present, &ids);
        // The new ones come last, in their order.
        let numbers = changes[changes.len() - ids.len()..].iter().map(|d| d.number);
        members.extend(numbers.zip(joining));
        members.sort_by_key(|(number, _)| *number);
        let records = changes.into_iter().map(MetadataRecord::DirectorySet);
        let dir = options.dirs.first().cloned().unwrap_or_default();
        apply(&mut metadata, &dir, records)?;
        let id = metadata.state.directories().next().map_or(first, |d| d.id);
        let report = Recovery { created: true, ..Recovery::default() };
        Ok(Self { options, common, metadata, id, seats: members, left, error, report })
    }

    fn run(mut self) -> Result<(Engine, Recovery), OpenError> {
        let directories = self.share();
        let mut starts = Vec::new();
        for (number, read) in std::mem::take(&mut self.seats) {
            let mut start = Start::new(read, Arc::clone(directory(&directories, number)));
            match start.run(&self.metadata.state) {
                Ok(()) => starts.push(start),
                Err(e) => self.fail(&start.shared, e),
            }
        }
        let moved = starts.iter().any(|s| self.is_moved(s));
        self.leave(&directories, &starts)?;
        let partitions: ByHandle = starts.iter().flat_map(|s| s.partitions.clone()).collect();
        self.start_epoch(&partitions, moved)?;
        let topics = self.topics(&directories, &partitions);
        self.report.topics = topics.len() as u32;
        self.report.partitions = topics.values().map(|t| t.partitions().len() as u32).sum();
        self.report.moved_machine = moved;
        if moved {
            self.report.findings.push(
                "this data directory was last used on another machine; if it was copied, do not run both"
                    .to_owned(),
            );
        }
        self.finish(directories, starts, topics)
    }

    /// What each directory's partitions share; one that is missing has it too.
    fn share(&mut self) -> Vec<Arc<Shared>> {
        let sizes = Sizes::of(&self.options);
        let log_clock_ms = self.log_clock_ms();
        let mut directories = Vec::new();
        let known: Vec<_> = self.metadata.state.directories().copied().collect();
        // A log that has only ever had one directory has no list of them.
        let numbers = match &known[..] {
            [] => vec![(DirectoryNumber::FIRST, [0; 16], DirectoryState::Present)],
            known => known.iter().map(|d| (d.number, d.id, d.state)).collect(),
        };
        for (number, id, state) in numbers {
            let seat = self.seats.iter().find(|(n, _)| *n == number);
            let (path, missing) = match seat {
                Some((_, read)) => (read.dir.clone(), None),
                None if state == DirectoryState::Gone => continue,
                // Most likely it is the one that should be where nothing can be used.
                None if !self.left.is_empty() => {
                    let unused = self.left.remove(0);
                    (unused.path, Some(unused.why))
                }
                None => {
                    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
                    let why = format!("no configured path is directory {} ({hex})", number.get());
                    (PathBuf::from(format!("directory {}", number.get())), Some(why))
                }
            };
            let shared = Shared::new(&self.common, number, path, sizes.budget, log_clock_ms);
            if missing.is_none()
                && let (Some(limit), Ok(space)) =
                    (self.options.min_free, shared.disk.space(&shared.path))
                && !limit.can_stay_free(space)
            {
                self.say(
                    &shared.path,
                    "`min_free` is more than its filesystem has: it is not kept",
                );
            }
            if let Some(why) = missing {
                self.say(&shared.path, &format!("it is not in use: {why}"));
                shared.go_offline(why);
                // Its absence is in the metadata before anything is served.
                shared.absent_since.store(1, Ordering::Release);
            }
            directories.push(Arc::new(shared));
        }
        for unused in std::mem::take(&mut self.left) {
            self.say(&unused.path, &format!("it is not in use: {}", unused.why));
            self.left.push(unused);
        }
        directories
    }

    fn log_clock_ms(&self) -> i64 {
        self.seats.iter().map(|(_, read)| read.catalog.log_clock_ms).max().unwrap_or(0)
    }

    /// A finding about one of several directories says which.
    fn say(&mut self, dir: &Path, finding: &str) {
        let alone = self.options.dirs.len() == 1;
        let dir = dir.display();
        let text = if alone { finding.to_owned() } else { format!("{dir}: {finding}") };
        self.report.findings.push(text);
    }

    fn fail(&mut self, shared: &Shared, error: OpenError) {
        self.say(&shared.path, &format!("it is not in use: {error}"));
        shared.go_offline(error.to_string());
        self.error.get_or_insert(error);
    }

    /// Metadata goes on without those that failed since it was settled.
    fn leave(&mut self, directories: &[Arc<Shared>], starts: &[Start]) -> Result<(), OpenError> {
        if starts.is_empty() {
            let lost = || damaged(Path::new(""), "no directory can be used".to_owned());
            return Err(self.error.take().unwrap_or_else(lost));
        }
        let present: Vec<_> = starts.iter().map(|s| s.shared.number).collect();
        let changes = join::changes(&self.metadata.state, self.id, &present, &[]);
        for change in &changes {
            directory(directories, change.number).absent_since.store(1, Ordering::Release);
        }
        let records = changes.into_iter().map(MetadataRecord::DirectorySet);
        let dir = starts[0].read.dir.clone();
        apply(&mut self.metadata, &dir, records)
    }

    /// Whether a directory was last used on another machine: a card that was moved or cloned.
    fn is_moved(&self, start: &Start) -> bool {
        let here = self.common.disk.machine_id().unwrap_or_default();
        let there = start.read.superblock.machine_id;
        here != there && there != [0; 16]
    }

    /// The epoch of this start; after a move also producer ids that a twin does not have.
    fn start_epoch(&mut self, partitions: &ByHandle, moved: bool) -> Result<(), OpenError> {
        let newest = partitions.values().filter_map(|p| p.last_epoch()).max().unwrap_or_default();
        let epoch = self.metadata.state.epoch().max(newest).next();
        let mut records = vec![MetadataRecord::EpochStarted { epoch }];
        let dir = self.options.dirs.first().cloned().unwrap_or_default();
        if moved {
            let random = self.common.disk.random_id();
            let random = random.map_err(|source| OpenError::Io { path: dir.clone(), source })?;
            let leap = i64::from(u32::from_le_bytes([random[0], random[1], random[2], random[3]]));
            let next = self.metadata.state.next_producer_id().saturating_add(leap);
            records.push(MetadataRecord::ProducerIdsTaken { next });
        }
        apply(&mut self.metadata, &dir, records)?;
        for partition in partitions.values() {
            partition.start_epoch(epoch);
            // A start has everything synced: the settings' durability holds from here.
            partition.switch_durability();
        }
        Ok(())
    }

    /// All topics; partitions of directories that are not in use say so.
    fn topics(&self, directories: &[Arc<Shared>], partitions: &ByHandle) -> Topics {
        let state = &self.metadata.state;
        let mut topics = Topics::new();
        for wanted in state.topics() {
            let mut all = Vec::with_capacity(wanted.partitions.len());
            let settings = Arc::new(wanted.settings.clone());
            for (number, placed) in wanted.partitions.iter().enumerate() {
                all.push(match partitions.get(&placed.handle.get()) {
                    Some(partition) => Arc::clone(partition),
                    None => {
                        let shared = directory(directories, placed.directory);
                        let handle = placed.handle.get();
                        let identity = identity(&shared.path, wanted, number, handle, 0);
                        let settings = Arc::clone(&settings);
                        let missing =
                            Partition::new(identity, settings, None, state.epoch(), shared);
                        missing.set_missing();
                        missing
                    }
                });
            }
            topics.insert(wanted.name.clone(), Topic::new(wanted, all));
        }
        topics
    }

    /// Begins the new generations, and makes all that was done durable in each directory.
    fn finish(
        mut self,
        directories: Vec<Arc<Shared>>,
        starts: Vec<Start>,
        topics: Topics,
    ) -> Result<(Engine, Recovery), OpenError> {
        let log_clock = LogClock::resume(
            starts.iter().map(|s| s.read.catalog.log_clock_ms).max().unwrap_or(0),
            self.common.clock.monotonic_ns(),
        );
        for start in &starts {
            self.report.created &= start.report.created;
            self.report.unclean |= start.report.unclean;
            self.report.cycles_replayed += start.report.cycles_replayed;
            self.report.bytes_replayed += start.report.bytes_replayed;
            self.report.parts += start.report.parts;
            for finding in &start.report.findings {
                let alone = self.options.dirs.len() == 1;
                let dir = start.read.dir.display();
                let text = if alone { finding.clone() } else { format!("{dir}: {finding}") };
                self.report.findings.push(text);
            }
        }
        let sequence = self.metadata.sequence;
        let node = Arc::new(Node::new(
            self.options.clone(),
            self.common.clone(),
            self.id,
            directories,
            Metadata { state: std::mem::take(&mut self.metadata.state), sequence },
            topics,
            log_clock,
        ));
        let mut open = Vec::with_capacity(starts.len());
        for start in starts {
            let directory = start.finish(&node);
            node.tick_log_clock(&directory.shared);
            directory.partitions().iter().for_each(|p| p.note_replayed());
            let mut watch = Stopwatch::new(&*node.common.clock);
            let done = first_checkpoint(&directory, sequence);
            self.report.parts.sync += watch.lap();
            match done {
                Ok(()) => open.push(Arc::new(directory)),
                Err(e) => {
                    for partition in directory.partitions() {
                        partition.set_missing();
                    }
                    self.fail(&directory.shared, e);
                }
            }
        }
        if open.is_empty()
            && let Some(error) = self.error
        {
            return Err(error);
        }
        Ok((Engine::new(node, open, self.left), self.report))
    }
}

/// Writes both slots of the catalog. With one alone, the other would still be of the generation before: should the new one rot,
/// a start would take that for the last and see nothing of what was committed since.
fn first_checkpoint(directory: &Directory, sequence: u64) -> Result<(), OpenError> {
    let written = directory.checkpoint(false).and_then(|_| match directory.checkpoint(false) {
        // It has no room to grow into: the next checkpoint tries again.
        Err(CheckpointError::Full) => Ok(()),
        other => other.map(drop),
    });
    written.map_err(|e| OpenError::Io {
        path: directory.path().to_owned(),
        source: match e {
            CheckpointError::Full => io::ErrorKind::StorageFull.into(),
            CheckpointError::Failed(why) => io::Error::other(why),
        },
    })?;
    directory.shared.committed_sequence.store(sequence, Ordering::Release);
    Ok(())
}

fn candidate(place: &Result<Place, String>) -> Candidate<'_> {
    match place {
        Ok(Place::Directory(read)) => Candidate::Claim(Claim {
            id: read.superblock.directory_id,
            metadata: &read.metadata,
            holed: read.holed,
            holds_partitions: !read.catalog.partitions.is_empty(),
        }),
        Ok(Place::Empty { asked }) => Candidate::Empty { asked: *asked },
        Err(why) => Candidate::Failed(why.clone()),
    }
}

fn apply(
    metadata: &mut Metadata,
    dir: &Path,
    records: impl IntoIterator<Item = MetadataRecord>,
) -> Result<(), OpenError> {
    for record in records {
        let applied = metadata.state.apply(&record);
        applied.map_err(|e| damaged(dir, format!("starting: {e}")))?;
        metadata.sequence += 1;
    }
    Ok(())
}
