//! A directory's partitions brought back: files cut to the checkpoint, the journal's batches applied again by offset.
//!
//! Invariant: what is served afterwards was acknowledged, or was never refused: no byte counts that is not in an intact cycle,
//! below a checkpoint, or (`memory` topics) in an intact batch that follows the others.
//! Neighbours: `read` found what there is; `partition::replay` applies.

use super::damaged;
use super::parts::Stopwatch;
use super::read::{Read, parse};
use crate::LeaderEpoch;
use crate::Offset;
use crate::batch::{self, BatchHeader, HEADER_BYTES};
use crate::catalog::PartitionEntry;
use crate::checkpoint::Checkpointer;
use crate::commit::Committer;
use crate::directory::{Directory, Wanted, aside};
use crate::encoding::crc32c;
use crate::journal::cycle::{Extent, Frame};
use crate::journal::ring::Slot;
use crate::journal::{self, BLOCK_BYTES, Journal, Maker, Mark};
use crate::log::{OpenError, Recovery};
use crate::metadata::MetadataState;
use crate::node::{Node, identity};
use crate::pace::{Pace, PaceLimits};
use crate::partition::replay::Applied;
use crate::partition::{Partition, PlanError};
use crate::retention::Upkeep;
use crate::shared::Shared;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) type ByHandle = HashMap<u64, Arc<Partition>>;

/// A directory on its way from what was read to what is served.
pub(super) struct Start {
    pub(super) read: Box<Read>,
    pub(super) shared: Arc<Shared>,
    pub(super) partitions: ByHandle,
    pub(super) report: Recovery,
    /// What the cycles behind the checkpoint take in the journal.
    journal_bytes: u64,
    /// Partitions with replayed batches that are not written yet, and the bytes of those.
    gathered: BTreeSet<u64>,
    gathered_bytes: usize,
}

impl Start {
    pub(super) fn new(mut read: Box<Read>, shared: Arc<Shared>) -> Self {
        let report = Recovery {
            created: read.created,
            unclean: !read.catalog.clean && !read.created,
            findings: std::mem::take(&mut read.findings),
            parts: read.parts,
            ..Recovery::default()
        };
        // A start may be cut short and its folders be there unsynced: the first checkpoint syncs them.
        shared.topics_dirty.store(true, Ordering::Release);
        Self {
            read,
            shared,
            partitions: HashMap::new(),
            report,
            journal_bytes: 0,
            gathered: BTreeSet::new(),
            gathered_bytes: 0,
        }
    }

    /// Brings back what the node's metadata says is here. From here on the directory is changed.
    pub(super) fn run(&mut self, metadata: &MetadataState) -> Result<(), OpenError> {
        let clock = Arc::clone(&self.shared.clock);
        let mut watch = Stopwatch::new(&*clock);
        self.secure()?;
        self.report.parts.sync = watch.lap();
        self.put_deleted_aside(metadata)?;
        self.make_partitions(metadata);
        let partitions = self.partitions.clone();
        self.finish_swaps(&partitions)?;
        for (handle, partition) in &partitions {
            let moved = self.read.controls.log_starts.get(handle).copied().unwrap_or(0);
            let start = partition.log_start().get().max(moved);
            partition.drop_removed(start).map_err(self.io(partition.folder()))?;
        }
        self.replay_replicas(&partitions);
        for (handle, spans) in self.read.controls.spans() {
            if let Some(partition) = partitions.get(&handle) {
                partition.keep_layout(spans);
            }
        }
        self.replay_batches(&partitions)?;
        self.settle(&partitions)?;
        if let Some(reason) = self.shared.offline() {
            return Err(self.io(&self.read.dir)(io::Error::other(reason)));
        }
        self.shared.recovering.store(false, Ordering::Release);
        // Once all batches are there: a log start never stands above the end.
        for (handle, offset) in &self.read.controls.log_starts {
            if let Some(partition) = partitions.get(handle) {
                partition.replay_log_start(*offset);
            }
        }
        self.report.parts.replay = watch.lap();
        Ok(())
    }

    /// Compaction's outputs to their places, before anything asks what segments there are.
    fn finish_swaps(&mut self, partitions: &ByHandle) -> Result<(), OpenError> {
        for (handle, swaps) in std::mem::take(&mut self.read.controls.swaps) {
            // A deleted topic's find no partition.
            let Some(partition) = partitions.get(&handle) else { continue };
            let findings = partition.finish_swaps(&swaps).map_err(self.io(partition.folder()))?;
            self.report.findings.extend(findings);
        }
        Ok(())
    }

    fn io(&self, path: &Path) -> impl Fn(io::Error) -> OpenError + use<> {
        let path = path.to_owned();
        move |source| OpenError::Io { path: path.clone(), source }
    }

    /// Makes durable what was read. A killed process leaves bytes that were written and never synced: nothing may be changed
    /// on the word of a catalog or a cycle that a power cut could still take back. The catalog is written again, byte for
    /// byte, because a sync that failed once says nothing about pages that the kernel holds to be clean; and so is the last
    /// cycle, the only one of which no other says that it was synced.
    fn secure(&self) -> Result<(), OpenError> {
        let (dir, disk) = (&self.read.dir, &*self.shared.disk);
        self.read
            .catalog
            .write(disk, dir, &self.read.superblock.directory_id)
            .map_err(self.io(dir))?;
        disk.sync_dir(dir).map_err(self.io(dir))?;
        let journal = dir.join("journal");
        disk.sync_dir(&journal).map_err(self.io(&journal))?;
        if self.report.unclean {
            let slots = &self.read.ring.slots;
            journal::replay::rewrite_unsynced(slots, &self.read.chain)
                .map_err(self.io(&journal))?;
            for slot in slots {
                let path = journal::path(dir, slot.number);
                slot.file.sync_data().map_err(self.io(&path))?;
            }
        }
        Ok(())
    }

    /// Moves folders that belong to no partition aside: of deleted topics, and of topics whose making was never synced.
    fn put_deleted_aside(&self, after: &MetadataState) -> Result<(), OpenError> {
        // A lost cycle may have made a topic: its folder is kept for whoever looks into the damage.
        if !self.read.chain.gaps.is_empty() {
            return Ok(());
        }
        let (dir, disk) = (&self.read.dir, &*self.shared.disk);
        let live: BTreeSet<PathBuf> = after
            .topics()
            .flat_map(|t| t.partitions.iter().enumerate().map(move |(n, p)| (t, n, p)))
            .filter(|(_, _, p)| p.directory == self.shared.number)
            .map(|(t, n, p)| identity(dir, t, n, p.handle.get(), 0).folder)
            .collect();
        let topics = dir.join("topics");
        for entry in disk.list(&topics).map_err(self.io(&topics))? {
            let folder = topics.join(&entry.name);
            if !entry.is_dir || entry.name.ends_with(".deleted") || live.contains(&folder) {
                continue;
            }
            // The handle is the last part of the name, and what the folder is called aside.
            let handle =
                entry.name.rsplit('.').next().and_then(|h| u64::from_str_radix(h, 16).ok());
            let Some(handle) = handle else { continue };
            // Nothing refers to it: if it cannot be moved now, it can at another start.
            if let Err(e) = disk.rename(&folder, &aside(dir, handle)) {
                tracing::warn!(folder = %folder.display(), error = %e, "could not move a folder aside");
            }
        }
        Ok(())
    }

    fn make_partitions(&mut self, metadata: &MetadataState) {
        let mut entries: HashMap<u64, PartitionEntry> =
            self.read.catalog.partitions.drain(..).map(|e| (e.handle, e)).collect();
        for topic in metadata.topics() {
            let settings = Arc::new(topic.settings.clone());
            for (number, placed) in topic.partitions.iter().enumerate() {
                if placed.directory != self.shared.number {
                    continue;
                }
                let handle = placed.handle.get();
                let partition = Partition::new(
                    identity(&self.read.dir, topic, number, handle, 0),
                    Arc::clone(&settings),
                    entries.remove(&handle),
                    LeaderEpoch::default(),
                    &self.shared,
                );
                self.partitions.insert(handle, partition);
            }
        }
    }

    /// Brings replicas to what the journal knows of them, and cuts what the catalog describes to where truncations left it.
    fn replay_replicas(&mut self, partitions: &ByHandle) {
        let controls = &mut self.read.controls;
        for (handle, leadership) in &controls.leaderships {
            if let Some(partition) = partitions.get(handle) {
                partition.replay_leadership(leadership);
            }
        }
        for (handle, to) in controls.lowest_ends(|h| Some(partitions.get(&h)?.truncated_in())) {
            let Some(partition) = partitions.get(&handle) else { continue };
            if let Err(e) = partition.replay_truncation(to) {
                self.lose(partition, format!("truncating {partition:?}: {e}"));
            }
        }
    }

    /// Second pass: batches by offset, log starts, and what a lost cycle held.
    fn replay_batches(&mut self, partitions: &ByHandle) -> Result<(), OpenError> {
        let cycles = std::mem::take(&mut self.read.chain.cycles);
        let mut checked = BTreeSet::new();
        for found in &cycles {
            let mut bytes = Vec::new();
            self.read.read_cycle(found, &mut bytes)?;
            let bytes = Bytes::from(bytes);
            let number = found.header.number;
            let after_gap = self.read.chain.gaps.iter().any(|g| g.last + 1 == number);
            for frame in parse(&self.read.dir, number, &bytes)? {
                match frame {
                    Frame::Ends(ends) if after_gap => {
                        for end in ends {
                            if let Some(partition) = partitions.get(&end.handle) {
                                let to = self.read.controls.truncated(end.handle, number - 1);
                                let end = Offset::new(end.end).unwrap_or_default();
                                self.make_up(partition, to.map_or(end, |to| end.min(to)))?;
                            }
                        }
                    }
                    Frame::Metadata { .. }
                    | Frame::LogStart { .. }
                    | Frame::Swap { .. }
                    | Frame::Truncate { .. }
                    | Frame::Leadership { .. }
                    | Frame::Ends(_) => {}
                    Frame::Batches { handle, .. } | Frame::Extent { handle, .. } => {
                        // A deleted topic's frames find no partition.
                        let Some(partition) = partitions.get(&handle) else { continue };
                        if number < partition.truncated_in() {
                            continue;
                        }
                        if checked.insert(handle)
                            && let Err(why) = partition.check_active()
                        {
                            self.lose(partition, why);
                        }
                        let limit = self.read.controls.truncated(handle, number);
                        match frame {
                            Frame::Batches { at, bytes: batches, .. } => {
                                let batches = bytes.slice(at..at + batches.len());
                                self.apply(partition, batches, limit)?;
                            }
                            Frame::Extent { extent, .. } => {
                                self.apply_extent(partition, &extent, limit)?;
                            }
                            _ => {}
                        }
                    }
                }
            }
            self.journal_bytes += found.header.size_bytes();
            self.report.cycles_replayed += 1;
            self.report.bytes_replayed += bytes.len() as u64;
            // As much as the tails of a running log may take: a ring may be larger than the memory, and a write for each batch
            // would take longer than all the rest.
            if self.gathered_bytes >= self.shared.tail_bytes_max {
                self.place_gathered(partitions)?;
            }
        }
        Ok(())
    }

    /// Writes what has gathered, in the order in which the partitions were made: their files lie in about that order, too.
    fn place_gathered(&mut self, partitions: &ByHandle) -> Result<(), OpenError> {
        self.gathered_bytes = 0;
        for handle in std::mem::take(&mut self.gathered) {
            if let Some(partition) = partitions.get(&handle) {
                self.place(partition, None)?;
            }
        }
        Ok(())
    }

    /// Applies a frame's batches, those only that end at or below `limit`.
    fn apply(
        &mut self,
        partition: &Arc<Partition>,
        frame: Bytes,
        limit: Option<Offset>,
    ) -> Result<(), OpenError> {
        let mut at = 0;
        while at < frame.len() {
            let size = BatchHeader::parse_alone(&frame[at..(at + HEADER_BYTES).min(frame.len())])
                .map(|h| (h.size_bytes(), h.base_offset, h.last_offset()));
            let (size, base, last) = size.map_err(|e| {
                damaged(&self.read.dir, format!("{partition:?} in the journal: {e}"))
            })?;
            let end = (at + size).min(frame.len());
            if limit.is_some_and(|limit| last >= limit.get()) {
                break;
            }
            // A part of the cycle: as soon as the partitions' batches are written, nobody holds it any more.
            let batch = frame.slice(at..end);
            let applied = partition.replay(batch.clone());
            let applied = match applied {
                Ok(Applied::Missing(_)) => {
                    self.make_up(partition, Offset::new(base).unwrap_or_default())?;
                    partition.replay(batch)
                }
                other => other,
            };
            match applied {
                Ok(Applied::Other) if !partition.is_damaged() => {
                    // Only a truncation whose cycle is lost leaves two batches for an offset.
                    self.lose(partition, format!("{partition:?}: offset {base} was given twice"));
                }
                Ok(_) => {}
                Err(e) => {
                    let why = format!("{partition:?} in the journal: {e}");
                    return Err(damaged(&self.read.dir, why));
                }
            }
            at = end;
        }
        self.gathered.insert(partition.handle());
        self.gathered_bytes += frame.len();
        Ok(())
    }

    /// Applies the batches of an extent where they lie, if they are those that were synced.
    fn apply_extent(
        &mut self,
        partition: &Arc<Partition>,
        extent: &Extent,
        limit: Option<Offset>,
    ) -> Result<(), OpenError> {
        let end = limit.map_or(extent.end, |limit| limit.min(extent.end));
        // What the catalog has is not looked at: compaction may have replaced the file. What was cut is not there.
        if partition.end_offset() >= end || end <= extent.first {
            return Ok(());
        }
        // Also: they lie behind what the journal had before.
        self.place(partition, None)?;
        let (bytes, why) = match partition.read_extent(extent) {
            Ok(bytes) if bytes.len() < extent.length as usize => (bytes, "its file ends there"),
            // Where a truncation cut into them only a part is as it was.
            Ok(bytes) if end == extent.end && crc32c(&bytes) != extent.crc => {
                (bytes, "their CRC is wrong")
            }
            Ok(bytes) => (bytes, ""),
            Err(e) => {
                tracing::error!(?partition, error = %e, "an extent cannot be read");
                (Vec::new(), "it cannot be read")
            }
        };
        let mut intact = intact_bytes(&bytes, extent.first, end);
        if !why.is_empty() && intact == extent.length as usize {
            // What is wrong is in a header, outside the batch's own CRC: nobody knows in which.
            intact = 0;
        }
        self.report.bytes_replayed += intact as u64;
        self.apply(partition, Bytes::from(bytes).slice(..intact), limit)?;
        self.place(partition, Some(extent))?;
        let reached = partition.end_offset();
        if reached >= end {
            return Ok(());
        }
        partition.skip_to(end);
        let why = format!(
            "{partition:?}: acknowledged records at offsets {reached} to {} are lost: they were synced to segment {} from byte {} on, and {why}",
            end.get() - 1,
            extent.segment,
            extent.byte
        );
        self.lose(partition, why);
        Ok(())
    }

    /// `extent`: what was applied is that, and where it belongs.
    fn place(&self, partition: &Partition, extent: Option<&Extent>) -> Result<(), OpenError> {
        partition.settle_replayed(extent).map_err(|e| {
            let source = match e {
                PlanError::Full => io::Error::from(io::ErrorKind::StorageFull),
                PlanError::Io(why) => io::Error::other(why),
            };
            OpenError::Io { path: partition.folder().to_owned(), source }
        })
    }

    /// Records up to `end` were acknowledged and their cycle is lost: the segment may have them.
    fn make_up(&mut self, partition: &Arc<Partition>, end: Offset) -> Result<(), OpenError> {
        self.place(partition, None)?;
        if partition.end_offset() >= end {
            return Ok(());
        }
        let from = partition.end_offset();
        // After a truncation the files may have both lives of an offset.
        let reached = match self.read.controls.truncates(partition.handle()) {
            true => from,
            false => partition.adopt(Some(end)).unwrap_or(from),
        };
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
            self.place(&partition, None)?;
            // A partition that no catalog names has the durability in force that it was made with, whatever the settings ask for
            // since: it is scanned too. One that the journal has is found to have nothing more.
            let unjournalled = partition.is_memory() || !partition.is_in_catalog();
            let scan = self.report.unclean && unjournalled && !partition.is_damaged();
            // After a truncation nothing is appended to a `memory` topic until a catalog describes it.
            let limit = self.read.controls.truncated(partition.handle(), 0);
            if scan && let Err(e) = partition.adopt(limit) {
                self.lose(&partition, format!("{partition:?}: {e}"));
                continue;
            }
            let truncated = self.read.controls.truncates(partition.handle());
            let changed = scan
                || truncated
                || partition.end_offset() != before
                || self.report.unclean && partition.may_have_more();
            if changed && !partition.is_damaged() {
                let cut = partition.cut_file().and_then(|()| {
                    partition.remove_strays().map_err(|e| format!("{partition:?}: {e}"))
                });
                if let Err(why) = cut {
                    self.lose(&partition, why);
                }
            }
            partition.keep_layout(Vec::new());
            partition.publish_replayed();
        }
        Ok(())
    }

    fn catalog_end(&self, partition: &Partition) -> Offset {
        // Positions are published once the replay of a partition has ended: until then they are the catalog's.
        partition.positions().log_end
    }

    /// Begins a new generation of the journal. Nothing is written until the first checkpoint, which must follow.
    pub(super) fn finish(self, node: &Arc<Node>) -> Directory {
        let Self { read, shared, journal_bytes, .. } = self;
        let Read { dir, superblock, lock, catalog, ring, chain, .. } = *read;
        let (options, id) = (&node.options, superblock.directory_id);
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
        let maker = Maker::new(
            Arc::clone(&shared.disk),
            dir.clone(),
            id,
            options.journal_file_bytes,
            missing,
        );
        let maker = Arc::new(maker);
        let journal = Journal::new(id, Arc::clone(&maker), slots, mark);
        shared.counters.journal_size_bytes.store(journal.ring_bytes(), Ordering::Relaxed);
        let limits = PaceLimits {
            delay: options.commit_delay,
            delay_max: options.commit_delay_max,
            bytes_per_day: options.journal_bytes_per_day,
        };
        let now_ns = shared.clock.monotonic_ns();
        let mut pace = match &catalog.account {
            Some(account) => {
                let wall_ms = shared.clock.is_trusted().then(|| shared.clock.wall_ms());
                let passed_ms = wall_ms.map_or(0, |ms| ms.saturating_sub(catalog.log_clock_ms));
                let passed = Duration::from_millis(u64::try_from(passed_ms).unwrap_or(0));
                Pace::resume(limits, account, passed, now_ns)
            }
            None => Pace::new(limits, now_ns),
        };
        // Written after the account was noted.
        pace.wrote(journal_bytes, now_ns);
        Directory {
            node: Arc::clone(node),
            id,
            committer: Mutex::new(Committer::new(journal)),
            checkpointer: Mutex::new(Checkpointer {
                sequence: catalog.sequence,
                cycle: mark.cycle,
            }),
            maker,
            mark: Mutex::new(mark),
            pace: Mutex::new(pace),
            upkeep: Mutex::new(Upkeep::new()),
            cleaner: Mutex::default(),
            full: Mutex::default(),
            wanted: Wanted::default(),
            lock: Mutex::new(Some(lock)),
            shared,
        }
    }
}

/// Bytes of the batches at the front that are intact, follow one another from `first` on and end at or below `end`.
fn intact_bytes(bytes: &[u8], first: Offset, end: Offset) -> usize {
    let (mut at, mut next) = (0, first.get());
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match batch::verify(rest) {
            Ok(header) if header.base_offset == next && header.last_offset() < end.get() => {
                at += header.size_bytes();
                next = header.last_offset() + 1;
            }
            _ => break,
        }
    }
    at
}
