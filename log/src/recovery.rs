//! Opening a data directory: from whatever a crash left to a log that can be served.
//!
//! In order: lock; superblock; catalog; the ring's files; walk the chain; metadata to its final state; batches applied again by
//! offset; `memory` files scanned; files cut to what counts; a new generation and a new leader epoch; a checkpoint. Nothing in
//! the directory is changed before everything that can be refused (another process, a newer version) has been looked at, and
//! nothing that a second recovery would need is lost when this one is cut short: the catalog is written last.
//!
//! Invariant: what is served afterwards was acknowledged, or was never refused: no byte counts that is not in an intact cycle,
//! below a checkpoint, or (`memory` topics) in an intact batch that follows the others.
//! Neighbours: `create` makes new directories, `catalog`, `journal::replay`, `partition::replay`.

use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::catalog::{Catalog, PartitionEntry};
use crate::checkpoint::{CheckpointError, Checkpointer};
use crate::clock::Clock;
use crate::commit::Committer;
use crate::create::{create, make_folders, take_lock, was_never_started};
use crate::directory::{Directory, Wanted, aside};
use crate::disk::{Disk, LockGuard};
use crate::engine::Engine;
use crate::journal::cycle::{Frame, frames};
use crate::journal::replay::{Chain, read_frames, walk};
use crate::journal::ring::Slot;
use crate::journal::{self, BLOCK_BYTES, Journal, Maker, Mark, Opened};
use crate::log::{LogOptions, OpenError, Recovery, Topic};
use crate::metadata::{DirectoryNumber, MetadataError, MetadataRecord, MetadataState, decode_all};
use crate::node::{Metadata, Node, Sizes, Topics, identity};
use crate::partition::replay::Applied;
use crate::partition::{Partition, PlanError};
use crate::retention::{LogClock, Upkeep};
use crate::shared::{Common, Shared};
use crate::superblock::Superblock;
use crate::{LeaderEpoch, Offset};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A journal file holds a batch, its header and the block of the file's head.
const JOURNAL_FILE_BYTES_MIN: u64 = 64 << 10;
/// Replayed batches are written when this much has gathered in a partition.
const REPLAY_FLUSH_BYTES: usize = 256 << 10;

/// Opens or creates a data directory.
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
    let dir = options.dirs.first().cloned().unwrap_or_default();
    make_folders(&*disk, &dir)?;
    let lock = take_lock(&*disk, &dir)?;
    let mut report = Recovery::default();
    let superblock = match Superblock::read(&*disk, &dir)? {
        Some(superblock) if !was_never_started(&*disk, &dir, &superblock)? => superblock,
        _ => {
            report.created = true;
            create(&*disk, &dir, &options)?
        }
    };
    let id = superblock.directory_id;
    let catalog = Catalog::read(&*disk, &dir, &id)?
        .ok_or_else(|| damaged(&dir, "neither catalog.a nor catalog.b is intact".to_owned()))?;
    let ring = open_ring(&*disk, &dir, id)?;
    report.unclean = !catalog.clean && !report.created;
    let chain = walk(&ring.slots, &id, catalog.mark)
        .map_err(|source| OpenError::Io { path: dir.join("journal"), source })?;
    let start = Start {
        common: Common::new(Arc::clone(&disk), clock),
        dir,
        options,
        disk,
        id,
        lock,
        catalog,
        ring,
        chain,
        log_starts: BTreeMap::new(),
        report,
    };
    let (engine, mut report) = start.run(&superblock)?;
    let took = engine.node.common.clock.monotonic_ns().saturating_sub(began);
    report.took = Duration::from_nanos(took);
    Ok((engine, report))
}

pub(crate) fn damaged(dir: &Path, detail: String) -> OpenError {
    OpenError::Damaged { dir: dir.to_owned(), detail }
}

struct Ring {
    slots: Vec<Slot>,
    /// Files that cannot be written to: their cycles count, then they are made again.
    unfinished: BTreeSet<u32>,
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

struct Start {
    options: LogOptions,
    dir: PathBuf,
    common: Common,
    disk: Arc<dyn Disk>,
    id: [u8; 16],
    lock: Box<dyn LockGuard>,
    catalog: Catalog,
    ring: Ring,
    chain: Chain,
    /// Where the journal moved log starts to, by handle.
    log_starts: BTreeMap<u64, i64>,
    report: Recovery,
}

type ByHandle = HashMap<u64, Arc<Partition>>;

impl Start {
    fn run(mut self, superblock: &Superblock) -> Result<(Engine, Recovery), OpenError> {
        let state = self.catalog_metadata()?;
        let mut metadata = Metadata { state, sequence: self.catalog.metadata_sequence };
        self.report_gaps();
        self.replay_controls(&mut metadata)?;
        // Nothing is refused from here on; now the directory may be changed.
        self.secure()?;
        let moved = self.check_machine(superblock);
        self.put_deleted_aside(&metadata.state)?;
        let shared = self.shared();
        let (topics, partitions) = self.make_topics(&metadata.state, &shared);
        for (handle, partition) in &partitions {
            let moved = self.log_starts.get(handle).copied().unwrap_or(0);
            let start = partition.log_start().get().max(moved);
            partition.drop_removed(start).map_err(self.io(partition.folder()))?;
        }
        self.replay_batches(&partitions)?;
        self.settle(&partitions)?;
        if let Some(reason) = shared.offline() {
            return Err(self.io(&self.dir)(io::Error::other(reason)));
        }
        shared.recovering.store(false, Ordering::Release);
        // Once all batches are there: a log start never stands above the end.
        for (handle, offset) in &self.log_starts {
            if let Some(partition) = partitions.get(handle) {
                partition.replay_log_start(*offset);
            }
        }
        self.start_epoch(&mut metadata, &partitions, moved)?;
        self.report.topics = topics.len() as u32;
        self.report.partitions = partitions.len() as u32;
        // The superblock keeps the other machine's id until `Log::note_machine`: a start cut short before its leap over
        // producer ids is durable, or before the uplinks have noted the move, must leap and say so again.
        self.finish(metadata, topics, shared)
    }

    /// Makes durable what was read. A killed process leaves bytes that were written and never synced: nothing may be changed
    /// on the word of a catalog or a cycle that a power cut could still take back. The catalog is written again, byte for
    /// byte, because a sync that failed once says nothing about pages that the kernel holds to be clean.
    fn secure(&self) -> Result<(), OpenError> {
        let dir = &self.dir;
        self.catalog.write(&*self.disk, dir, &self.id).map_err(self.io(dir))?;
        self.disk.sync_dir(dir).map_err(self.io(dir))?;
        let journal = dir.join("journal");
        self.disk.sync_dir(&journal).map_err(self.io(&journal))?;
        if self.report.unclean {
            for slot in &self.ring.slots {
                let path = journal::path(dir, slot.number);
                slot.file.sync_data().map_err(self.io(&path))?;
            }
        }
        Ok(())
    }

    fn io(&self, path: &Path) -> impl Fn(io::Error) -> OpenError + use<> {
        let path = path.to_owned();
        move |source| OpenError::Io { path: path.clone(), source }
    }

    fn metadata_error(&self, what: &str, error: MetadataError) -> OpenError {
        let (dir, detail) = (self.dir.clone(), format!("{what}: {error}"));
        match error {
            MetadataError::FromTheFuture { .. } => OpenError::FromTheFuture { dir, detail },
            _ => OpenError::Damaged { dir, detail },
        }
    }

    fn catalog_metadata(&self) -> Result<MetadataState, OpenError> {
        let mut state = MetadataState::default();
        if self.catalog.metadata.is_empty() {
            return Ok(state);
        }
        let records = decode_all(&self.catalog.metadata)
            .map_err(|e| self.metadata_error("metadata in the catalog", e))?;
        for record in &records {
            state
                .apply(record)
                .map_err(|e| damaged(&self.dir, format!("metadata in the catalog: {e}")))?;
        }
        Ok(state)
    }

    fn report_gaps(&mut self) {
        for gap in &self.chain.gaps {
            self.report.findings.push(format!(
                "journal cycles {} to {}, which had been synced, cannot be read: {} at byte {}",
                gap.first,
                gap.last,
                journal::path(&self.dir, gap.slot).display(),
                gap.at
            ));
        }
    }

    /// First pass: metadata and log starts to their final state.
    fn replay_controls(&mut self, metadata: &mut Metadata) -> Result<(), OpenError> {
        let mut bytes = Vec::new();
        for found in &self.chain.cycles {
            self.read_cycle(found, &mut bytes)?;
            for frame in parse(&self.dir, found.header.number, &bytes)? {
                if let Frame::LogStart { handle, offset } = frame {
                    let start = self.log_starts.entry(handle).or_default();
                    *start = offset.max(*start);
                }
                let Frame::Metadata { sequence, record } = frame else { continue };
                if sequence <= metadata.sequence {
                    continue;
                }
                let what = format!("metadata in cycle {}", found.header.number);
                let record =
                    MetadataRecord::decode(record).map_err(|e| self.metadata_error(&what, e))?;
                match metadata.state.apply(&record) {
                    Ok(()) => {}
                    // A cycle before it is lost: so may be what this record builds upon.
                    Err(e) if !self.chain.gaps.is_empty() => {
                        self.report.findings.push(format!("{what} does not apply: {e}"));
                    }
                    Err(e) => return Err(damaged(&self.dir, format!("{what}: {e}"))),
                }
                metadata.sequence = sequence;
            }
        }
        Ok(())
    }

    fn read_cycle(
        &self,
        found: &journal::replay::Found,
        bytes: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let path = journal::path(&self.dir, self.ring.slots[found.slot].number);
        let whole = read_frames(&self.ring.slots, found, bytes).map_err(self.io(&path))?;
        if !whole {
            return Err(damaged(
                &self.dir,
                format!("{} at byte {} changed while it was read", path.display(), found.at),
            ));
        }
        Ok(())
    }

    /// A card that was moved or cloned: goes on, says so, and takes producer ids that its twin does not have.
    fn check_machine(&mut self, superblock: &Superblock) -> bool {
        let machine_id = self.disk.machine_id().unwrap_or_default();
        if machine_id == superblock.machine_id || superblock.machine_id == [0; 16] {
            return false;
        }
        self.report.findings.push(
            "this data directory was last used on another machine; if it was copied, do not run both"
                .to_owned(),
        );
        self.report.moved_machine = true;
        true
    }

    /// Moves folders that belong to no partition aside: of deleted topics, and of topics whose making was never synced.
    fn put_deleted_aside(&self, after: &MetadataState) -> Result<(), OpenError> {
        // A lost cycle may have made a topic: its folder is kept for whoever looks into the damage.
        if !self.chain.gaps.is_empty() {
            return Ok(());
        }
        let dir = &self.dir;
        let live: BTreeSet<PathBuf> = after
            .topics()
            .flat_map(|t| t.partitions.iter().enumerate().map(move |(n, p)| (t, n, p.handle.get())))
            .map(|(t, n, handle)| identity(dir, t, n, handle, 0).folder)
            .collect();
        let topics = dir.join("topics");
        for entry in self.disk.list(&topics).map_err(self.io(&topics))? {
            let folder = topics.join(&entry.name);
            if !entry.is_dir || entry.name.ends_with(".deleted") || live.contains(&folder) {
                continue;
            }
            // The handle is the last part of the name, and what the folder is called aside.
            let handle =
                entry.name.rsplit('.').next().and_then(|h| u64::from_str_radix(h, 16).ok());
            let Some(handle) = handle else { continue };
            // Nothing refers to it: if it cannot be moved now, it can at another start.
            if let Err(e) = self.disk.rename(&folder, &aside(dir, handle)) {
                tracing::warn!(folder = %folder.display(), error = %e, "could not move a folder aside");
            }
        }
        Ok(())
    }

    fn shared(&self) -> Arc<Shared> {
        let sizes = Sizes::of(&self.options);
        let shared = Shared::new(
            &self.common,
            DirectoryNumber::FIRST,
            self.dir.clone(),
            sizes.budget,
            self.catalog.log_clock_ms,
        );
        // A start may be cut short and its folders be there unsynced: the first checkpoint syncs them.
        shared.topics_dirty.store(true, Ordering::Release);
        Arc::new(shared)
    }

    fn make_topics(&mut self, state: &MetadataState, shared: &Arc<Shared>) -> (Topics, ByHandle) {
        let mut entries: HashMap<u64, PartitionEntry> =
            self.catalog.partitions.drain(..).map(|e| (e.handle, e)).collect();
        let (mut topics, mut by_handle) = (BTreeMap::new(), HashMap::new());
        for wanted in state.topics() {
            let mut partitions = Vec::with_capacity(wanted.partitions.len());
            for (number, placed) in wanted.partitions.iter().enumerate() {
                let handle = placed.handle.get();
                let partition = Partition::new(
                    identity(&self.dir, wanted, number, handle, 0),
                    wanted.settings.clone(),
                    entries.remove(&handle),
                    LeaderEpoch::default(),
                    shared,
                );
                by_handle.insert(handle, Arc::clone(&partition));
                partitions.push(partition);
            }
            topics.insert(wanted.name.clone(), Topic::new(wanted, partitions));
        }
        (topics, by_handle)
    }

    /// Second pass: batches by offset, log starts, and what a lost cycle held.
    fn replay_batches(&mut self, partitions: &ByHandle) -> Result<(), OpenError> {
        let mut bytes = Vec::new();
        let cycles = std::mem::take(&mut self.chain.cycles);
        let mut checked = BTreeSet::new();
        for found in &cycles {
            self.read_cycle(found, &mut bytes)?;
            let shared = Bytes::copy_from_slice(&bytes);
            let after_gap = self.chain.gaps.iter().any(|g| g.last + 1 == found.header.number);
            for frame in parse(&self.dir, found.header.number, &bytes)? {
                match frame {
                    Frame::Metadata { .. } | Frame::LogStart { .. } => {}
                    Frame::Ends(ends) if after_gap => {
                        for end in ends {
                            if let Some(partition) = partitions.get(&end.handle) {
                                self.make_up(partition, Offset::new(end.end).unwrap_or_default())?;
                            }
                        }
                    }
                    Frame::Ends(_) => {}
                    Frame::Batches { handle, at, bytes } => {
                        // A deleted topic's frames find no partition.
                        let Some(partition) = partitions.get(&handle) else { continue };
                        if checked.insert(handle)
                            && let Err(why) = partition.check_active()
                        {
                            self.lose(partition, why);
                        }
                        self.apply(partition, shared.slice(at..at + bytes.len()))?;
                    }
                }
            }
            self.report.cycles_replayed += 1;
            self.report.bytes_replayed += bytes.len() as u64;
        }
        Ok(())
    }

    fn apply(&mut self, partition: &Arc<Partition>, frame: Bytes) -> Result<(), OpenError> {
        let mut at = 0;
        while at < frame.len() {
            let size = BatchHeader::parse_alone(&frame[at..(at + HEADER_BYTES).min(frame.len())])
                .map(|h| (h.size_bytes(), h.base_offset));
            let (size, base) =
                size.map_err(|e| damaged(&self.dir, format!("{partition:?} in the journal: {e}")))?;
            let end = (at + size).min(frame.len());
            // A copy of its own: a slice would keep the whole cycle in memory.
            let batch = Bytes::copy_from_slice(&frame[at..end]);
            let applied = partition.replay(batch.clone());
            let applied = match applied {
                Ok(Applied::Missing(_)) => {
                    self.make_up(partition, Offset::new(base).unwrap_or_default())?;
                    partition.replay(batch)
                }
                other => other,
            };
            if let Err(e) = applied {
                return Err(damaged(&self.dir, format!("{partition:?} in the journal: {e}")));
            }
            at = end;
        }
        self.place(partition, REPLAY_FLUSH_BYTES)
    }

    fn place(&self, partition: &Partition, at_least_bytes: usize) -> Result<(), OpenError> {
        partition.settle_replayed(at_least_bytes).map_err(|e| {
            let source = match e {
                PlanError::Full => io::Error::from(io::ErrorKind::StorageFull),
                PlanError::Io(why) => io::Error::other(why),
            };
            OpenError::Io { path: partition.folder().to_owned(), source }
        })
    }

    /// Records up to `end` were acknowledged and their cycle is lost: the segment may have them.
    fn make_up(&mut self, partition: &Arc<Partition>, end: Offset) -> Result<(), OpenError> {
        self.place(partition, 0)?;
        if partition.end_offset() >= end {
            return Ok(());
        }
        let from = partition.end_offset();
        let reached = partition.adopt(Some(end)).unwrap_or(from);
        if reached >= end {
            self.report.findings.push(format!(
                "{partition:?}: offsets {from} to {} were in a damaged part of the journal and are taken from the segment",
                end.get() - 1
            ));
            return Ok(());
        }
        let why = format!(
            "{partition:?}: acknowledged records at offsets {reached} to {} are lost",
            end.get() - 1
        );
        partition.skip_to(end);
        self.lose(partition, why);
        Ok(())
    }

    fn lose(&mut self, partition: &Partition, why: String) {
        let why = format!("{why}; the partition takes no more records");
        self.report.findings.push(why.clone());
        partition.set_damaged(why);
    }

    /// Writes what was applied, scans `memory` files, cuts files to what counts.
    fn settle(&mut self, partitions: &ByHandle) -> Result<(), OpenError> {
        let mut all: Vec<_> = partitions.values().cloned().collect();
        all.sort_by_key(|p| p.handle());
        for partition in all {
            let before = self.catalog_end(&partition);
            self.place(&partition, 0)?;
            let scan = self.report.unclean && partition.is_memory() && !partition.is_damaged();
            if scan && let Err(e) = partition.adopt(None) {
                self.lose(&partition, format!("{partition:?}: {e}"));
                continue;
            }
            if (scan || partition.end_offset() != before) && !partition.is_damaged() {
                let cut = partition.cut_file().and_then(|()| {
                    partition.remove_strays().map_err(|e| format!("{partition:?}: {e}"))
                });
                if let Err(why) = cut {
                    self.lose(&partition, why);
                }
            }
            partition.publish_replayed();
        }
        Ok(())
    }

    fn catalog_end(&self, partition: &Partition) -> Offset {
        // Positions are published once the replay of a partition has ended: until then they are the catalog's.
        partition.positions().log_end
    }

    fn start_epoch(
        &mut self,
        metadata: &mut Metadata,
        partitions: &ByHandle,
        moved: bool,
    ) -> Result<(), OpenError> {
        let newest = partitions.values().filter_map(|p| p.last_epoch()).max().unwrap_or_default();
        let epoch = metadata.state.epoch().max(newest).next();
        let mut records = vec![MetadataRecord::EpochStarted { epoch }];
        if moved {
            let random = self.disk.random_id().map_err(self.io(&self.dir))?;
            let leap = i64::from(u32::from_le_bytes([random[0], random[1], random[2], random[3]]));
            let next = metadata.state.next_producer_id().saturating_add(leap);
            records.push(MetadataRecord::ProducerIdsTaken { next });
        }
        for record in records {
            metadata
                .state
                .apply(&record)
                .map_err(|e| damaged(&self.dir, format!("starting an epoch: {e}")))?;
            metadata.sequence += 1;
        }
        for partition in partitions.values() {
            partition.start_epoch(epoch);
            // A start has everything synced: the settings' durability holds from here.
            partition.switch_durability();
        }
        Ok(())
    }

    /// Begins the new generation and makes all that was done durable.
    fn finish(
        self,
        metadata: Metadata,
        topics: Topics,
        shared: Arc<Shared>,
    ) -> Result<(Engine, Recovery), OpenError> {
        let Self { options, dir, common, disk, id, lock, catalog, ring, chain, mut report, .. } =
            self;
        let mut slots: Vec<Slot> =
            ring.slots.into_iter().filter(|s| !ring.unfinished.contains(&s.number)).collect();
        let present: BTreeSet<u32> = slots.iter().map(|s| s.number).collect();
        let missing: VecDeque<u32> =
            (0..options.journal_files).filter(|n| !present.contains(n)).collect();
        for slot in &mut slots {
            slot.last_cycle = None;
        }
        // Where the chain ended the file is begun anew, from the next one on: wear spreads over the ring.
        let slot = slots
            .iter()
            .map(|s| s.number)
            .find(|n| *n > chain.end.slot)
            .or_else(|| slots.first().map(|s| s.number))
            .unwrap_or(0);
        let mark = Mark {
            generation: catalog.mark.generation + 1,
            cycle: chain.end.cycle,
            crc: chain.end.crc,
            slot,
            at: BLOCK_BYTES,
        };
        let maker =
            Maker::new(Arc::clone(&disk), dir.clone(), id, options.journal_file_bytes, missing);
        let maker = Arc::new(maker);
        let journal = Journal::new(id, Arc::clone(&maker), slots, mark);
        shared.counters.journal_size_bytes.store(journal.ring_bytes(), Ordering::Relaxed);
        let log_clock = LogClock::resume(catalog.log_clock_ms, common.clock.monotonic_ns());
        shared.committed_sequence.store(metadata.sequence, Ordering::Release);
        let directories = vec![Arc::clone(&shared)];
        let node = Node::new(options, common, id, directories, metadata, topics, log_clock);
        let directory = Directory {
            node: Arc::new(node),
            id,
            committer: Mutex::new(Committer::new(journal)),
            checkpointer: Mutex::new(Checkpointer {
                sequence: catalog.sequence,
                cycle: mark.cycle,
            }),
            maker,
            mark: Mutex::new(mark),
            upkeep: Mutex::new(Upkeep::new()),
            full: Mutex::default(),
            wanted: Wanted::default(),
            lock: Mutex::new(Some(lock)),
            shared,
        };
        directory.node.tick_log_clock(&directory.shared);
        directory.checkpoint(false).map_err(|e| OpenError::Io {
            path: dir,
            source: match e {
                CheckpointError::Full => io::ErrorKind::StorageFull.into(),
                CheckpointError::Failed(why) => io::Error::other(why),
            },
        })?;
        let engine = Engine::new(Arc::clone(&directory.node), vec![Arc::new(directory)]);
        for finding in &mut report.findings {
            tracing::error!(%finding, "recovery");
        }
        Ok((engine, report))
    }
}

fn parse<'a>(dir: &Path, cycle: u64, bytes: &'a [u8]) -> Result<Vec<Frame<'a>>, OpenError> {
    frames(bytes)
        .ok_or_else(|| damaged(dir, format!("frames of journal cycle {cycle} do not parse")))
}
