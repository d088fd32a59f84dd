//! A partition at a start and at a checkpoint: made from the catalog, given journal frames again, described for the catalog.
//!
//! Invariant: what [`Partition::entry`] describes is exactly what its files hold: nothing that is not committed and written.

use super::bulk::Bulk;
use super::compacted::Compacted;
use super::producers::Producers;
use super::state::{State, TailBatch};
use super::writer::Writer;
use super::{Condition, Partition, PlanError, Points, Role};
use crate::batch::{self, BatchError, BatchHeader};
use crate::catalog::PartitionEntry;
use crate::journal::cycle::Extent;
use crate::metadata::TopicSettings;
use crate::segment::scan::Scan;
use crate::segment::{EXTENSIONS, Segment, path, remove_hints};
use crate::shared::Shared;
use crate::{LeaderEpoch, Offset, PartitionId, TopicId, TopicName};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicUsize, Ordering};

/// Who a partition is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) topic: TopicName,
    pub(crate) topic_id: TopicId,
    pub(crate) id: PartitionId,
    pub(crate) handle: u64,
    pub(crate) folder: PathBuf,
    pub(crate) created: u64,
}

/// What came of applying one batch again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Added,
    /// The files had it already.
    Known,
    /// The files have another batch at its offsets.
    Other,
    /// Offsets from here to the batch are missing.
    Missing(Offset),
}

impl Partition {
    /// A partition as the catalog knew it; an entry with nothing in it for a new one.
    pub(crate) fn new(
        identity: Identity,
        settings: Arc<TopicSettings>,
        entry: Option<PartitionEntry>,
        epoch: LeaderEpoch,
        shared: &Arc<Shared>,
    ) -> Arc<Self> {
        let known = entry.is_some();
        let entry = entry.unwrap_or_default();
        let start = entry.log_start;
        let end = Offset::new(entry.end).unwrap_or_default();
        let last = entry.segments.len().saturating_sub(1);
        let sealed = |(i, s)| Arc::new(Segment::from_entry(s, i < last));
        let segments: Vec<_> = entry.segments.iter().enumerate().map(sealed).collect();
        let planned = segments.last().map_or(0, |s| s.written());
        let newest = segments.last().map_or(Offset::ZERO, |s| s.base());
        let mut writer = Writer::resumed(planned, !segments.is_empty(), newest);
        writer.in_catalog = known;
        // Lost at the very end: what comes next does not follow what its segment has.
        if entry.lost.last().is_some_and(|(_, lost_to)| *lost_to == entry.end) {
            writer.force_roll();
        }
        writer.producers = entry.producers.clone();
        writer.folded = end;
        if start == end.get() && planned > 0 {
            // Nothing is left to read, perhaps since the end moved up over lost records: no segment has a hole in its middle.
            writer.force_roll();
        }
        let mut state = State::new(end, entry.epochs, entry.producers, entry.node_sequence);
        state.bulk = Bulk::of_catalog(entry.bulk);
        for (base, aborted) in &entry.aborted {
            // One that lies with no segment of the catalog's would be of no use to anybody.
            if let Some(segment) = segments.iter().find(|s| s.base().get() == *base) {
                segment.set_aborted(aborted.clone());
            }
        }
        if entry.offline {
            state.damage = Some(format!(
                "acknowledged records of {}-{} at offset {end} were lost to damage",
                identity.topic, identity.id
            ));
        }
        let name = format!("{}-{}", identity.topic, identity.id);
        shared.damage.restore(identity.handle, &name, &entry.damaged);
        let condition = if entry.offline { Condition::Damaged } else { Condition::Well };
        let memory = if known {
            entry.memory
        } else {
            settings.durability == crate::metadata::Durability::Memory
        };
        let partition = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            topic: identity.topic,
            topic_id: identity.topic_id,
            id: identity.id,
            handle: identity.handle,
            folder: identity.folder,
            created: identity.created,
            shared: Arc::clone(shared),
            settings: RwLock::new(Arc::clone(&settings)),
            memory: AtomicBool::new(memory),
            batch_bytes_max: AtomicUsize::new(0),
            condition: AtomicU8::new(condition as u8),
            role: AtomicU8::new(Role::Alone as u8),
            points: Points {
                log_start: AtomicI64::new(start),
                log_start_synced: AtomicI64::new(start),
                epoch: AtomicI32::new(epoch.get()),
                ..Points::default()
            },
            state: Mutex::new(state),
            writer: Mutex::new(writer),
            removal: Mutex::new(()),
            compacted: Compacted::from_entry(&entry.compacted, &segments),
            segments: RwLock::new(segments),
            aborts: AtomicBool::new(!entry.aborted.is_empty()),
            holds: Mutex::default(),
            lost: RwLock::new(entry.lost),
        });
        partition.set_settings(&settings);
        partition.publish_replayed();
        if let Some(leadership) = entry.leadership {
            partition.replay_leadership(&leadership);
            partition.state.lock().replica.truncated_in = entry.truncated_in;
        }
        partition
    }

    /// Applies one batch of a journal frame, whose CRC is checked here once more.
    pub(crate) fn replay(&self, bytes: Bytes) -> Result<Applied, BatchError> {
        let header = batch::verify(&bytes)?;
        let mut state = self.state.lock();
        if header.last_offset() < state.end.get() {
            let epoch = Offset::new(header.base_offset).and_then(|base| state.epochs.of(base));
            let same = epoch.is_none_or(|epoch| epoch.get() == header.partition_leader_epoch);
            return Ok(if same { Applied::Known } else { Applied::Other });
        }
        if header.base_offset != state.end.get() {
            return if header.base_offset > state.end.get() {
                Ok(Applied::Missing(state.end))
            } else {
                Err(BatchError::Field("baseOffset"))
            };
        }
        self.note_batch(&mut state, &header, bytes);
        Ok(Applied::Added)
    }

    /// Gives replayed batches their places and writes them; those of `extent` are taken where they are.
    pub(crate) fn settle_replayed(&self, extent: Option<&Extent>) -> Result<(), PlanError> {
        let mut writer = self.writer.lock();
        let mut batches = {
            let state = self.state.lock();
            if state.sealed_bytes == 0 {
                return Ok(());
            }
            let from = state.position(state.committed);
            state.tail.iter().skip(from).cloned().collect::<Vec<_>>()
        };
        self.plan(&mut writer, &mut batches)?;
        let in_place = extent.is_some_and(|e| {
            let segments = self.segments.read();
            let there = segments.iter().any(|s| s.base() == e.segment && s.written() == e.byte);
            let first = batches.first().is_some_and(|b| b.base == e.first);
            there && first && batches.iter().all(|b| b.segment == e.segment)
        });
        {
            let mut state = self.state.lock();
            let from = state.position(state.committed);
            for (batch, placed) in state.tail.iter_mut().skip(from).zip(&batches) {
                batch.segment = placed.segment;
            }
            state.committed = state.end;
            state.pending_bytes += state.sealed_bytes;
            let cost = batches.iter().map(TailBatch::cost_bytes).sum();
            self.shared.tail_bytes.fetch_add(cost, Ordering::Relaxed);
            state.sealed_bytes = 0;
        }
        self.flush_placed(&mut writer, in_place).map_err(PlanError::Io)?;
        let end = self.state.lock().flushed;
        self.evict(end);
        Ok(())
    }

    /// Ends the replay: what was applied is what there is. Cuts the active file to it.
    pub(crate) fn publish_replayed(&self) {
        let state = self.state.lock();
        let end = state.end.get();
        for point in [&self.points.log_end, &self.points.written, &self.points.synced] {
            point.store(end, Ordering::Release);
        }
        // A replica's is what was last known of it.
        let known = self.points.high_watermark.load(Ordering::Acquire);
        let high_watermark = if self.is_replicated() { known.min(end) } else { end };
        self.points.high_watermark.store(high_watermark, Ordering::Release);
    }

    /// Cuts the active file to what counts: bytes of cycles that never were lie beyond, and room that was reserved.
    pub(crate) fn cut_file(&self) -> Result<(), String> {
        let mut writer = self.writer.lock();
        let Some(active) = self.segments.read().last().cloned() else { return Ok(()) };
        let name = path(&self.folder, active.base(), "log");
        let say = |e: std::io::Error| format!("cutting {}: {e}", name.display());
        let file = self.open_segment(&active).map_err(say)?;
        let size = file.size_bytes().map_err(say)?;
        if size < active.written() {
            return Err(format!(
                "{} has {size} bytes, its checkpoint says {}",
                name.display(),
                active.written()
            ));
        }
        file.truncate(active.written()).map_err(say)?;
        if !writer.dirty.iter().any(|s| Arc::ptr_eq(s, &active)) {
            writer.dirty.push(active);
        }
        Ok(())
    }

    /// Takes whole, verified batches that follow the end in the files: for `memory` topics, whose bytes no journal has, and to
    /// make up for a damaged cycle. Stops at `limit` and at the first thing that does not fit. Returns the new end.
    pub(crate) fn adopt(&self, limit: Option<Offset>) -> std::io::Result<Offset> {
        let mut writer = self.writer.lock();
        loop {
            let end = self.state.lock().end;
            let Some(active) = self.segments.read().last().cloned() else {
                if !self.adopt_file(&mut writer, end)? {
                    return Ok(end);
                }
                continue;
            };
            let file = self.open_segment(&active)?;
            let size = file.size_bytes()?;
            // Of the life before, which may have had other records where this one goes on.
            if let Err(e) = remove_hints(&*self.shared.disk, &self.folder, active.base()) {
                return Err(self.fail_start("removing hints of", e));
            }
            let mut scan = Scan::new(&*file, active.written(), size);
            let mut adopted = false;
            while let Some(Ok(at)) = scan.next()? {
                let mut state = self.state.lock();
                // After a truncation older bytes may lie behind newer ones.
                let epoch = LeaderEpoch::new(at.header.partition_leader_epoch);
                let fits = at.header.base_offset == state.end.get()
                    && state.epochs.last() <= epoch
                    && limit.is_none_or(|limit| at.header.last_offset() < limit.get());
                let mut bytes = vec![0; at.header.size_bytes()];
                if !fits
                    || crate::disk::read_full_at(&*file, &mut bytes, at.byte)? < bytes.len()
                    || batch::verify(&bytes).is_err()
                {
                    break;
                }
                // Written over themselves: a sync that failed before may have left them in the kernel's memory alone, held to
                // be clean, where the next sync would not see them.
                if let Err(e) = file.write_at(&[std::io::IoSlice::new(&bytes)], at.byte) {
                    return Err(self.fail_start("writing", e));
                }
                let (base, last) = (state.end, Offset::new(at.header.last_offset()));
                let bytes = Bytes::from(bytes);
                self.note_batch(&mut state, &at.header, bytes.clone());
                state.tail.pop_back();
                state.aborted.clear();
                state.sealed_bytes = 0;
                state.committed = state.end;
                state.flushed = state.end;
                drop(state);
                if let Err(e) = self.fold_written(&mut writer, Some(&active), [&bytes].into_iter())
                {
                    return Err(self.fail_start("reading producers of", e));
                }
                writer.folded = last.unwrap_or(base).plus(1);
                let note = (base, last.unwrap_or(base), at.header.max_timestamp, bytes.len());
                active.note_written(&[note]);
                adopted = true;
            }
            if adopted && !writer.dirty.iter().any(|s| Arc::ptr_eq(s, &active)) {
                writer.dirty.push(Arc::clone(&active));
            }
            writer.replan(active.written());
            let end = self.state.lock().end;
            let whole = active.written() == size;
            if !whole || limit.is_some_and(|l| end >= l) || !self.adopt_file(&mut writer, end)? {
                return Ok(end);
            }
        }
    }

    /// The records are there: it is this start that fails, nothing is lost.
    fn fail_start(&self, what: &str, error: std::io::Error) -> std::io::Error {
        self.shared.go_offline(format!("{what} {self:?}: {error}"));
        error
    }

    /// Takes the segment file that begins at `end`, if there is one.
    fn adopt_file(&self, writer: &mut Writer, end: Offset) -> std::io::Result<bool> {
        if self.segments.read().last().is_some_and(|s| s.base() >= end) {
            return Ok(false);
        }
        let name = path(&self.folder, end, "log");
        match self.shared.disk.open(&name, crate::disk::OpenMode::Write) {
            Ok(file) if file.size_bytes()? > 0 => {
                let now = self.shared.log_clock_ms.load(Ordering::Relaxed);
                let segment = Arc::new(Segment::new(end, now));
                self.shared.files.put(segment.key(), file);
                {
                    let mut segments = self.segments.write();
                    // Read to its end.
                    if let Some(whole) = segments.last() {
                        whole.set_sealed(true);
                    }
                    segments.push(segment);
                }
                self.store_snapshot(writer, end);
                writer.resume_folder();
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether the active file holds at least what the checkpoint says; otherwise what is applied goes to a new segment.
    pub(crate) fn check_active(&self) -> Result<(), String> {
        let mut writer = self.writer.lock();
        let Some(active) = self.segments.read().last().cloned() else { return Ok(()) };
        let name = path(&self.folder, active.base(), "log");
        let why = match self.open_segment(&active).and_then(|file| file.size_bytes()) {
            Ok(size) if size >= active.written() => return Ok(()),
            Ok(size) => format!(
                "{} has {size} bytes, its checkpoint says {}",
                name.display(),
                active.written()
            ),
            Err(e) => format!("{}: {e}", name.display()),
        };
        writer.force_roll();
        Err(why)
    }

    /// Forgets segments below the log start whose files were removed since the checkpoint. The last that the catalog names
    /// may be one of them.
    pub(crate) fn drop_removed(&self, log_start: i64) -> std::io::Result<()> {
        let mut writer = self.writer.lock();
        let end = self.state.lock().end;
        let mut segments = self.segments.write();
        let ends: Vec<Offset> = segments.iter().skip(1).map(|s| s.base()).chain([end]).collect();
        let active = segments.last().map(|s| s.base());
        let mut kept = Vec::with_capacity(segments.len());
        for (segment, end) in segments.iter().zip(ends) {
            let removed = end.get() <= log_start
                && match self.open_segment(segment) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
                    other => other.map(|_| false)?,
                };
            if !removed {
                kept.push(Arc::clone(segment));
            }
        }
        *segments = kept;
        if segments.last().map(|s| s.base()) != active {
            writer.force_roll();
        }
        Ok(())
    }

    /// The clock goes on from here. While the replay ran it stood where the checkpoint left it, so what was replayed would
    /// pass for older than it is, and be compacted or removed before its time; now it passes for as old as this start.
    pub(crate) fn note_replayed(&self) {
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        self.writer.lock().dirty.iter().for_each(|segment| segment.note_append(now_ms));
    }

    /// Goes on at `offset`, behind records that are lost.
    pub(crate) fn skip_to(&self, offset: Offset) {
        let mut writer = self.writer.lock();
        let mut state = self.state.lock();
        state.end = offset;
        state.committed = offset;
        state.flushed = offset;
        state.producers.forget_sequences();
        writer.producers.forget_sequences();
        writer.folded = offset;
        writer.force_roll();
    }

    /// Knows of no producer any more: no record is left.
    fn forget_producers(&self) {
        let mut writer = self.writer.lock();
        let mut state = self.state.lock();
        (writer.producers, state.producers) = (Producers::default(), Producers::default());
    }

    /// Removes segment files that no longer count: this start may have rolled elsewhere than the process before it.
    pub(crate) fn remove_strays(&self) -> std::io::Result<()> {
        let known: Vec<i64> = self.segments.read().iter().map(|s| s.base().get()).collect();
        let entries = match self.shared.disk.list(&self.folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let base = entry.name.split('.').next().and_then(|base| base.parse::<i64>().ok());
            if base.is_some_and(|base| !known.contains(&base)) {
                self.shared.disk.remove_file(&self.folder.join(entry.name))?;
            }
        }
        Ok(())
    }

    /// Acknowledged records are missing from `end` on: nothing more is taken, what is before is served.
    pub(crate) fn set_damaged(&self, why: String) {
        let mut state = self.state.lock();
        state.damage = Some(why);
        self.set_condition(Condition::Damaged);
    }

    /// Why it takes no records, if acknowledged ones are missing.
    pub(crate) fn damage(&self) -> Option<String> {
        self.state.lock().damage.clone()
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.condition() == Condition::Damaged
    }

    pub(crate) fn end_offset(&self) -> Offset {
        self.state.lock().end
    }

    /// Starts the epoch of this start of the node.
    pub(crate) fn start_epoch(&self, epoch: LeaderEpoch) {
        let mut state = self.state.lock();
        state.replica.truncated_in = 0;
        // A replica's are given elsewhere; it leads in none that it knows already.
        if !self.is_replicated() {
            self.points.epoch.store(epoch.get(), Ordering::Release);
        } else if let Some(last) = state.epochs.last() {
            self.points.epoch.fetch_max(last.get(), Ordering::AcqRel);
        }
    }

    /// The newest epoch that is known here.
    pub(crate) fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.state.lock().epochs.last().max(self.is_replicated().then(|| self.epoch()))
    }

    /// Replays a moved log start. It never goes back: where a `memory` topic lost its tail to below it, the end moves up to it.
    pub(crate) fn replay_log_start(&self, offset: i64) {
        // A `memory` topic may have lost records that were deleted for good before: their offsets are not given out again.
        if let Some(start) = Offset::new(offset).filter(|start| *start > self.end_offset()) {
            self.skip_to(start);
            // Nothing is left of any transaction, and its end may be among what was lost: it must not hold readers back.
            self.forget_producers();
            self.publish_replayed();
        }
        self.points.log_start.fetch_max(offset, Ordering::AcqRel);
        self.points.high_watermark.fetch_max(offset, Ordering::AcqRel);
        self.note_log_start_synced(offset);
    }

    pub(crate) fn note_log_start_synced(&self, offset: i64) {
        self.points.log_start_synced.fetch_max(offset, Ordering::AcqRel);
    }

    /// A checkpoint with this entry was persisted.
    pub(crate) fn note_checkpoint(&self, entry: &PartitionEntry) {
        self.note_marked(entry);
        let mut writer = self.writer.lock();
        writer.in_catalog = true;
        let (truncated_in, uncovered) = {
            let state = self.state.lock();
            (state.replica.truncated_in, state.replica.uncovered)
        };
        if entry.truncated_in < truncated_in {
            // It describes what has been cut since.
            return;
        }
        let newest = entry.segments.last().and_then(|s| Offset::new(s.base));
        writer.checkpointed = writer.checkpointed.max(newest.unwrap_or_default());
        drop(writer);
        if uncovered {
            self.end_truncation();
        }
        // Not before: until the catalog names it and the folder of all topics is synced, a crash may not find the file.
        if entry.memory {
            self.points.synced.fetch_max(entry.end, Ordering::AcqRel);
        }
    }

    pub(super) fn entry(&self, writer: &Writer) -> PartitionEntry {
        let state = self.state.lock();
        let end = state.flushed;
        assert_eq!(end, writer.folded, "the producers are those of what the files hold");
        let mut epochs = state.epochs.clone();
        epochs.cut(end);
        let mut producers = writer.producers.clone();
        producers.settle(self.decided_end());
        let unwritten = state.tail.iter().skip(state.position(end));
        let mut waiting = unwritten.filter_map(|b| b.node_sequence);
        let node_sequence = waiting.next().unwrap_or(if state.open.is_empty() {
            state.node_sequence
        } else {
            state.open_sequence
        });
        let log_start = self.log_start().min(end);
        epochs.start_at(log_start);
        let segments = self.segments.read();
        PartitionEntry {
            handle: self.handle,
            memory: self.is_memory(),
            offline: self.condition() == Condition::Damaged,
            log_start: log_start.get(),
            end: end.get(),
            node_sequence,
            segments: segments.iter().filter(|s| s.written() > 0).map(|s| s.entry()).collect(),
            epochs,
            producers,
            leadership: self.leadership(),
            truncated_in: state.replica.truncated_in,
            lost: self.lost_between(log_start, end),
            damaged: self.shared.damage.within(self.handle, log_start.get(), end.get()),
            aborted: segments
                .iter()
                .filter(|s| s.written() > 0)
                .map(|s| (s.base().get(), s.aborted_entry()))
                .filter(|(_, aborted)| aborted.count() > 0)
                .collect(),
            compacted: self.compacted_entry(writer),
            bulk: state.bulk.is_marked(),
        }
    }
}

impl Partition {
    /// Takes a batch that was judged when it was appended.
    pub(super) fn note_batch(&self, state: &mut State, header: &BatchHeader, bytes: Bytes) {
        let base = state.end;
        let epoch = LeaderEpoch::new(header.partition_leader_epoch).unwrap_or_default();
        let end = batch::marker::end_of(&bytes);
        state.push_batch(header, base, bytes);
        state.epochs.appended(epoch, base);
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        state.note_producer(header, base, end, now_ms);
    }

    /// The segments, and the base of the newest one that the persisted checkpoint names.
    pub(crate) fn segments_and_checkpoint(&self) -> (Vec<Arc<Segment>>, Offset) {
        let checkpointed = self.writer.lock().checkpointed;
        (self.segments.read().clone(), checkpointed)
    }

    /// Whether the persisted catalog names it.
    pub(crate) fn is_in_catalog(&self) -> bool {
        self.writer.lock().in_catalog
    }

    /// Room that is reserved for the active segment beyond its end.
    pub(crate) fn spare_bytes(&self) -> u64 {
        self.writer.lock().spare_bytes()
    }

    /// Removes the files of segments that lie wholly below the log start and the persisted checkpoint.
    pub(crate) fn remove_dead_segments(&self) -> std::io::Result<()> {
        let start = self.points.log_start_synced.load(Ordering::Acquire);
        // Not beside the renaming of a deleted topic's folder: the files would be those of one made again.
        let _removal = self.removal.lock();
        loop {
            if self.condition() == Condition::Deleted {
                return Ok(());
            }
            let dead = {
                let writer = self.writer.lock();
                let mut segments = self.segments.write();
                let end = segments.get(1).map(|next| next.base());
                if writer
                    .pinned
                    .is_some_and(|first| segments.first().is_some_and(|s| s.base() == first))
                {
                    return Ok(());
                }
                if !end.is_some_and(|end| end.get() <= start && end <= writer.checkpointed) {
                    return Ok(());
                }
                segments.remove(0)
            };
            self.shared.forget_segment(dead.key());
            let disk = &*self.shared.disk;
            for extension in EXTENSIONS {
                match disk.remove_file(&path(&self.folder, dead.base(), extension)) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
    }
}
