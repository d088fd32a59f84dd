//! The commit cycle (step 8): one journal write and one sync for everything that waits, whatever the number of partitions.
//!
//! From the partitions' open batches; to readers and waiters, who are told once per cycle. [`Committer::step`] is one cycle and
//! knows no threads; whoever holds the committer may run it.
//!
//! Invariant: nothing is published before the sync of the cycle that holds it has ended, and after a failed write or sync
//! nothing is published ever again.
//! Neighbours: `partition::commit` gives and takes batches, `journal` writes, `checkpoint` is run inline when the ring is full.

use crate::Offset;
use crate::bulk::{Job, Stage};
use crate::checkpoint::CheckpointError;
use crate::compaction::SwapRequest;
use crate::compaction::swap::Outcome;
use crate::directory::Directory;
use crate::journal::cycle::{End, batches_overhead};
use crate::journal::ring::Room;
use crate::journal::{CycleBuilder, Journal};
use crate::partition::{Condition, Partition, PlanError, Taken};
use crate::shared::{Controls, PartitionControl, Shared};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A partition with at least this much committed and unwritten is written to its segment after the cycle.
const FLUSH_BYTES: usize = 64 << 10;
/// A `memory` topic's partition writes at most this much per cycle.
const MEMORY_BYTES_MAX: usize = 4 << 20;
/// A partition's control frame takes at most this.
const CONTROL_BYTES_MAX: usize = 64;
/// A cycle keeps this much for its header and padding.
const CYCLE_MARGIN_BYTES: u64 = 8 << 10;

/// The committer's own state.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) journal: Journal,
    cycle: CycleBuilder,
    waiting: Vec<Arc<Partition>>,
    /// Partitions whose making is not synced in all directories, nor will be with this cycle.
    unmade: Vec<Arc<Partition>>,
    /// Partitions deleted here, with the record that did it, which other directories have not synced yet.
    undeleted: Vec<(u64, Arc<Partition>)>,
    /// What the cycle before committed, named again in the next one.
    previous: Vec<End>,
    /// Committed batches in memory, oldest first: (partition, end).
    resident: VecDeque<(Arc<Partition>, Offset)>,
}

/// What one cycle gathered.
#[derive(Default)]
struct Gathered {
    journalled: Vec<Taken>,
    unjournalled: Vec<Taken>,
    again: Vec<Arc<Partition>>,
    metadata: VecDeque<(u64, Vec<u8>)>,
    controls: VecDeque<(Arc<Partition>, PartitionControl)>,
    deleted: Vec<(u64, Arc<Partition>)>,
    swaps: Vec<Arc<SwapRequest>>,
    bulk: Vec<Arc<Job>>,
}

impl Committer {
    pub(crate) fn new(journal: Journal) -> Self {
        Self {
            journal,
            cycle: CycleBuilder::default(),
            waiting: Vec::new(),
            unmade: Vec::new(),
            undeleted: Vec::new(),
            previous: Vec::new(),
            resident: VecDeque::new(),
        }
    }

    /// Runs one cycle. `false` when nothing waited, the log is offline, or there is no room for what waits.
    pub(crate) fn step(&mut self, directory: &Directory) -> bool {
        let shared = &directory.shared;
        if shared.is_offline() {
            return false;
        }
        directory.node.note_failures();
        shared.queue.take(&mut self.waiting);
        let mut journalled = shared.committed_sequence.load(Ordering::Acquire);
        let control_bytes_max = directory.node.limits.control_bytes_max;
        let controls =
            take_controls(&mut shared.controls.lock(), control_bytes_max, &mut journalled);
        self.follow_metadata(directory, journalled);
        if self.waiting.is_empty() && controls.is_empty() {
            return false;
        }
        directory.node.tick_log_clock(shared);
        match self.cycle(directory, controls) {
            Ok(written) => written,
            Err(reason) => {
                shared.go_offline(reason);
                false
            }
        }
    }

    /// What stands in metadata that another directory has not synced must not be built upon: that directory may be the only one
    /// that the next start finds. A new partition commits nothing until all know of it, and a deleted one keeps its files.
    /// Nor does one whose making has no room in this cycle: here metadata has come to `journalled` when it is synced.
    fn follow_metadata(&mut self, directory: &Directory, journalled: u64) {
        let others = directory.node.committed_beside(Some(&directory.shared));
        let known = others.min(journalled);
        self.waiting.append(&mut self.unmade);
        self.unmade = self.waiting.extract_if(.., |p| p.created() > known).collect();
        for (_, partition) in self.undeleted.extract_if(.., |(deletion, _)| *deletion <= others) {
            directory.put_aside(&partition);
        }
    }

    /// `false` when the cycle was taken back: who loops over steps must not try again at once, it would be for ever.
    fn cycle(&mut self, directory: &Directory, controls: Controls) -> Result<bool, String> {
        let shared = &directory.shared;
        self.cycle.clear();
        self.previous.truncate(directory.node.limits.ends_max);
        self.cycle.ends(&self.previous);
        let empty_bytes = self.cycle.length();
        let mut gathered = self.gather_controls(directory, controls);
        // A deletion is synced and carried out before anything else happens, so that a topic made again under
        // its name finds the place free.
        if gathered.deleted.is_empty() {
            self.switch_durability(directory)?;
            let controls = self.cycle.length() > empty_bytes;
            self.gather_batches(directory, &mut gathered, controls)?;
        }
        for taken in &gathered.unjournalled {
            taken.partition.publish(taken);
            taken.partition.flush()?;
            if taken.partition.publish_written(taken.end()) {
                directory.ask_memory_sync();
            }
            shared.memory_bytes_since_checkpoint.fetch_add(taken.bytes as u64, Ordering::Relaxed);
        }
        if !gathered.unjournalled.is_empty() && !gathered.journalled.is_empty() {
            // Readers of `memory` topics need not wait for the sync.
            shared.notify();
        }
        if self.cycle.length() > empty_bytes && !self.write(directory, &gathered)? {
            self.take_back(directory, gathered);
            return Ok(false);
        }
        self.publish(directory, gathered)?;
        Ok(true)
    }

    fn gather_controls(&mut self, directory: &Directory, controls: Controls) -> Gathered {
        let mut gathered = Gathered::default();
        for (sequence, record) in &controls.metadata {
            self.cycle.metadata(*sequence, record);
        }
        gathered.metadata = controls.metadata;
        for (partition, control) in &controls.partitions {
            let handle = partition.handle();
            match control {
                PartitionControl::LogStart(offset) => self.cycle.log_start(handle, *offset),
                PartitionControl::Truncate(to) => {
                    partition.cancel_bulk();
                    self.cycle.truncate(handle, to.get());
                }
                PartitionControl::Leadership(leadership) => {
                    self.cycle.leadership(handle, leadership);
                }
            }
        }
        gathered.controls = controls.partitions;
        gathered.deleted = controls.deleted;
        for request in controls.swaps {
            // A truncation is carried out first, and may make an input the active segment again.
            let truncated = gathered.controls.iter().any(|(partition, control)| {
                matches!(control, PartitionControl::Truncate(_))
                    && Arc::ptr_eq(partition, &request.partition)
            });
            if truncated || !request.partition.is_current(&request.swap) {
                request.set_outcome(Outcome::Dropped);
                continue;
            }
            self.cycle.swap(request.partition.handle(), &request.swap);
            gathered.swaps.push(request);
        }
        for job in controls.bulk {
            if self.gather_extents(directory, &job) {
                gathered.bulk.push(job);
            } else {
                directory.shared.bulk.done(&job);
            }
        }
        gathered
    }

    /// Puts the extents of a job into the cycle; `false` when it came to nothing.
    fn gather_extents(&mut self, directory: &Directory, job: &Job) -> bool {
        let partition = job.partition();
        match job.stage() {
            _ if partition.condition() == Condition::Deleted => return false,
            Stage::Synced(extents) if !extents.is_empty() => {
                for extent in &extents {
                    self.cycle.extent(partition.handle(), extent);
                }
                return true;
            }
            Stage::Full => self.full(directory, partition),
            Stage::Waiting | Stage::Synced(_) | Stage::Cancelled => {}
        }
        partition.end_bulk();
        false
    }

    /// Puts changed durabilities into force: with a checkpoint between, so that a recovery finds each byte in one place.
    fn switch_durability(&mut self, directory: &Directory) -> Result<(), String> {
        let switching: Vec<_> = self
            .waiting
            .iter()
            .filter(|p| p.wants_other_durability() && !p.is_in_bulk())
            .cloned()
            .collect();
        if switching.is_empty() {
            return Ok(());
        }
        for partition in &switching {
            partition.switch_durability();
        }
        match directory.checkpoint(false) {
            Ok(mark) => self.journal.release(mark),
            Err(CheckpointError::Failed(reason)) => return Err(reason),
            Err(CheckpointError::Full) => {
                for partition in &switching {
                    partition.keep_durability();
                }
            }
        }
        Ok(())
    }

    fn gather_batches(
        &mut self,
        directory: &Directory,
        gathered: &mut Gathered,
        controls: bool,
    ) -> Result<(), String> {
        let cycle_bytes_max = directory.node.limits.cycle_bytes_max;
        let bulk_at = self.bulk_at(directory);
        for partition in std::mem::take(&mut self.waiting) {
            let memory = partition.is_memory();
            let left = cycle_bytes_max.saturating_sub(self.cycle.size_bytes() + CYCLE_MARGIN_BYTES);
            let left = usize::try_from(left).unwrap_or(0).saturating_sub(batches_overhead());
            let room = if memory { MEMORY_BYTES_MAX } else { left };
            // A batch larger than a cycle usually is goes alone; appends made sure that a file has room for it.
            let force = memory || (gathered.journalled.is_empty() && !controls);
            match partition.take(room, force, bulk_at) {
                Ok(None) => {}
                Ok(Some(taken)) => {
                    if taken.more {
                        gathered.again.push(partition);
                    }
                    if taken.batches.is_empty() {
                        continue;
                    }
                    if taken.bulk {
                        let shared = &directory.shared;
                        shared.bulk.add(taken, shared.clock.monotonic_ns());
                    } else if memory {
                        gathered.unjournalled.push(taken);
                    } else {
                        let frames = taken.batches.iter().map(|b| &b.bytes);
                        self.cycle.batches(taken.partition.handle(), frames);
                        gathered.journalled.push(taken);
                    }
                }
                Err(PlanError::Full) => self.full(directory, &partition),
                Err(PlanError::Io(reason)) => return Err(reason),
            }
        }
        Ok(())
    }

    /// From so many bytes on a partition is taken in bulk. Not where a recovery would have more than another ring to read: the
    /// journal waits for its checkpoints.
    fn bulk_at(&self, directory: &Directory) -> usize {
        let since = directory.shared.bulk_bytes_since_checkpoint.load(Ordering::Relaxed);
        match directory.node.options.bulk_bytes {
            0 => usize::MAX,
            bytes if since < self.journal.ring_bytes() => bytes,
            _ => usize::MAX,
        }
    }

    /// The ring is full and the disk too: nothing of the cycle can be kept but its control entries, which wait.
    fn take_back(&mut self, directory: &Directory, gathered: Gathered) {
        {
            let mut waiting = directory.shared.controls.lock();
            for entry in gathered.metadata.into_iter().rev() {
                waiting.metadata.push_front(entry);
            }
            for entry in gathered.controls.into_iter().rev() {
                waiting.partitions.push_front(entry);
            }
            waiting.deleted.splice(0..0, gathered.deleted);
            waiting.swaps.splice(0..0, gathered.swaps);
            for job in gathered.bulk.into_iter().rev() {
                waiting.bulk.push_front(job);
            }
        }
        for taken in gathered.journalled {
            self.full(directory, &taken.partition);
        }
        for taken in gathered.unjournalled {
            // Published all the same: their memory is accounted for.
            self.resident.push_back((Arc::clone(&taken.partition), taken.end()));
        }
        for partition in gathered.again {
            partition.requeue();
        }
        directory.shared.queue.committed();
        directory.shared.notify();
    }

    fn full(&self, directory: &Directory, partition: &Arc<Partition>) {
        tracing::warn!(?partition, "the disk is full: what is not committed is lost");
        // A replica's epochs are not given here: it leads no more, and gets the same records again as a follower.
        partition.cut((!partition.is_replicated()).then(|| directory.node.next_epoch()));
        directory.note_full(partition);
    }

    /// Writes and syncs the cycle; `false` when there is no room for it, nor for a checkpoint that would make some.
    fn write(&mut self, directory: &Directory, gathered: &Gathered) -> Result<bool, String> {
        let shared = &directory.shared;
        let say = |what| move |e: std::io::Error| format!("{what} the journal: {e}");
        let size = self.cycle.size_bytes();
        loop {
            let room = self.journal.make_room(size).map_err(say("making room in"))?;
            if room == Room::Ready {
                break;
            }
            shared.counters.ring_waits.fetch_add(1, Ordering::Relaxed);
            let before = self.journal.used_bytes();
            let began = shared.clock.monotonic_ns();
            directory.hurry();
            let checkpoint = directory.checkpoint(false);
            let waited = shared.clock.monotonic_ns().saturating_sub(began);
            shared.counters.ring_wait_ns.fetch_add(waited, Ordering::Relaxed);
            match checkpoint {
                Ok(mark) => self.journal.release(mark),
                Err(CheckpointError::Full) => return Ok(false),
                Err(CheckpointError::Failed(reason)) => return Err(reason),
            }
            if self.journal.used_bytes() < before {
                continue;
            }
            // Nothing more to release. The file that the cycle needs can be made when the disk has room again.
            if room == Room::DiskFull {
                return Ok(false);
            }
            return Err(format!("the journal's files have no room for a cycle of {size} bytes"));
        }
        let bytes = self.journal.write(&mut self.cycle).map_err(say("writing"))?;
        for taken in &gathered.journalled {
            taken.partition.note_written(taken.end());
        }
        for job in &gathered.bulk {
            job.partition().note_written(job.taken.end());
        }
        let began = shared.clock.monotonic_ns();
        directory.pace.lock().wrote(bytes, began);
        self.journal.sync().map_err(say("syncing"))?;
        shared.counters.note_sync(shared.clock.monotonic_ns().saturating_sub(began));
        shared.counters.journal_bytes.fetch_add(bytes, Ordering::Relaxed);
        shared.counters.cycles.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn publish(&mut self, directory: &Directory, gathered: Gathered) -> Result<(), String> {
        let shared = &directory.shared;
        self.previous.clear();
        let mut committed = 0;
        let mut full = Vec::new();
        for taken in &gathered.journalled {
            let end = End {
                handle: taken.partition.handle(),
                first: taken.first().get(),
                end: taken.end().get(),
            };
            self.previous.push(end);
            committed += taken.bytes;
            if taken.partition.publish(taken) >= FLUSH_BYTES {
                full.push(Arc::clone(&taken.partition));
            }
        }
        for job in &gathered.bulk {
            committed += job.taken.bytes;
            self.publish_bulk(shared, job)?;
        }
        committed += gathered.unjournalled.iter().map(|t| t.bytes).sum::<usize>();
        shared.counters.note_committed(committed);
        if let Some((sequence, _)) = gathered.metadata.back() {
            shared.committed_sequence.fetch_max(*sequence, Ordering::AcqRel);
            if directory.node.directories.len() > 1 {
                // The others may have waited for it.
                directory.node.wake();
            }
        }
        self.carry_out(directory, &gathered.controls)?;
        // Before a checkpoint can capture this cycle: it would describe the inputs without a frame that says what became of
        // them.
        for request in &gathered.swaps {
            let done = request.partition.swap_in(&request.swap, &request.segment)?;
            request.set_outcome(if done { Outcome::Done } else { Outcome::Dropped });
        }
        // After everything of the cycle is published: a checkpoint that captures it finds it all committed.
        *directory.mark.lock() = self.journal.mark();
        shared.queue.committed();
        shared.notify();
        self.undeleted.extend(gathered.deleted);
        self.follow_metadata(directory, shared.committed_sequence.load(Ordering::Acquire));
        for partition in full {
            partition.flush()?;
        }
        let bulk = gathered.bulk.iter().map(|job| &job.taken);
        for taken in gathered.journalled.iter().chain(&gathered.unjournalled).chain(bulk) {
            self.resident.push_back((Arc::clone(&taken.partition), taken.end()));
        }
        self.evict(directory)?;
        for partition in gathered.again {
            partition.requeue();
        }
        let used = self.journal.used_bytes();
        shared.counters.journal_used_bytes.store(used, Ordering::Relaxed);
        let ring = self.journal.ring_bytes();
        shared.counters.journal_size_bytes.store(ring, Ordering::Relaxed);
        let memory = shared.memory_bytes_since_checkpoint.load(Ordering::Relaxed);
        let bulk = shared.bulk_bytes_since_checkpoint.load(Ordering::Relaxed);
        if used.max(memory).max(bulk) * 2 > ring || shared.bulk.takes_wish() {
            directory.ask_checkpoint();
        }
        if self.journal.wants_file() {
            directory.ask_file();
        }
        Ok(())
    }

    fn publish_bulk(&mut self, shared: &Shared, job: &Job) -> Result<(), String> {
        let taken = &job.taken;
        let handle = taken.partition.handle();
        self.previous.push(End { handle, first: taken.first().get(), end: taken.end().get() });
        taken.partition.publish_extents(taken)?;
        shared.bulk.done(job);
        let bytes = taken.bytes as u64;
        shared.bulk_bytes_since_checkpoint.fetch_add(bytes, Ordering::Relaxed);
        shared.counters.bulk_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// What is synced now counts for its partition.
    fn carry_out(
        &mut self,
        directory: &Directory,
        controls: &VecDeque<(Arc<Partition>, PartitionControl)>,
    ) -> Result<(), String> {
        for (partition, control) in controls {
            match control {
                PartitionControl::LogStart(offset) => partition.note_log_start_synced(*offset),
                PartitionControl::Leadership(leadership) => partition.note_leadership(leadership),
                PartitionControl::Truncate(to) => {
                    partition.truncate(*to, self.journal.mark().cycle)?;
                    let (handle, to) = (partition.handle(), to.get());
                    self.previous.push(End { handle, first: to, end: to });
                    if partition.is_memory() {
                        directory.ask_checkpoint();
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps the memory of the tails below its limit: oldest batches first, written to their segments if they are not yet.
    fn evict(&mut self, directory: &Directory) -> Result<(), String> {
        while directory.shared.tail_bytes.load(Ordering::Relaxed) > directory.shared.tail_bytes_max
        {
            let Some((partition, end)) = self.resident.pop_front() else { return Ok(()) };
            if !partition.is_flushed(end) {
                partition.flush()?;
            }
            partition.evict(end);
        }
        Ok(())
    }
}

/// Takes what one cycle has room for, in order; up to and with the first deletion. `journalled` is the metadata record up to which
/// the journal has come, and then will have.
fn take_controls(waiting: &mut Controls, bytes_max: usize, journalled: &mut u64) -> Controls {
    let count = waiting.partitions.len().min(bytes_max / CONTROL_BYTES_MAX);
    let mut taken = Controls {
        partitions: waiting.partitions.drain(..count).collect(),
        swaps: std::mem::take(&mut waiting.swaps),
        bulk: std::mem::take(&mut waiting.bulk),
        ..Controls::default()
    };
    let mut bytes = 0;
    loop {
        // Those too whose record went with a cycle that ran between the two of them being queued.
        taken
            .deleted
            .extend(waiting.deleted.extract_if(.., |(deletion, _)| *deletion <= *journalled));
        if bytes >= bytes_max || !taken.deleted.is_empty() {
            return taken;
        }
        let Some((sequence, record)) = waiting.metadata.pop_front() else { return taken };
        bytes += record.len();
        *journalled = sequence;
        taken.metadata.push_back((sequence, record));
    }
}
