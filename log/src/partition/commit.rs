//! What the committer does with one partition (step 8): take what waits, publish it, cut it when there is no room.
//!
//! Invariant: only the committer moves `committed`, so between `take` and `publish` nobody else cuts or publishes.

use super::bulk::BULK_BYTES_MAX;
use super::state::{Stage, TailBatch};
use super::writer::Writer;
use super::{Condition, Loss, Partition, PlanError};
use crate::disk::OpenMode;
use crate::{LeaderEpoch, Offset};
use parking_lot::MutexGuard;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Room that is made ahead for the batches that a partition gives to a cycle.
const BATCHES_EXPECTED_MAX: usize = 64;

/// How long a full partition refuses before room is looked for again.
const PROBE_INTERVAL_NS: u64 = 1_000_000_000;
/// A probe that finds this much room lets appends in again.
const PROBE_BYTES: u64 = 256 << 10;

/// What a partition gave to a cycle.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) partition: Arc<Partition>,
    pub(crate) batches: Vec<TailBatch>,
    pub(crate) bytes: usize,
    /// More waits than fitted.
    pub(crate) more: bool,
    /// So much that it goes straight to the segment: the cycle has its extents only.
    pub(crate) bulk: bool,
}

impl Taken {
    pub(crate) fn first(&self) -> Offset {
        self.batches.first().map_or(Offset::ZERO, |b| b.base)
    }

    pub(crate) fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |b| b.last.plus(1))
    }
}

impl Partition {
    pub(super) fn join_queue(&self) {
        if let Some(me) = self.me.upgrade() {
            self.shared.queue.add(me, &*self.shared.clock);
        }
    }

    /// Queues it again, for what did not fit or came while it was not looked at.
    pub(crate) fn requeue(&self) {
        let mut state = self.state.lock();
        if state.waiting_bytes() > 0 && !std::mem::replace(&mut state.queued, true) {
            drop(state);
            self.join_queue();
        }
    }

    /// Seals the open batch, hands it to the compressor if the topic has a codec, and takes waiting batches of at most `room`
    /// bytes (at least one if `force`), giving each its place. Where `bulk_at` bytes wait they are taken for the segment, whatever
    /// room a cycle has.
    pub(crate) fn take(
        self: &Arc<Self>,
        room: usize,
        force: bool,
        bulk_at: usize,
    ) -> Result<Option<Taken>, PlanError> {
        let mut writer = self.writer.lock();
        let compression = self.settings.read().compression;
        let mut batches;
        let (mut bytes, mut more) = (0, false);
        let (mut room, mut force, mut bulk) = (room, force, false);
        {
            let mut state = self.state.lock();
            if state.bulk.is_under_way() {
                // It counts as queued until that has ended, and is queued again then.
                return Ok(None);
            }
            state.queued = false;
            if !matches!(self.condition(), Condition::Well | Condition::Full) {
                return Ok(None);
            }
            if self.is_replicated() && state.replica.holds_back() {
                return Ok(None);
            }
            let epoch = self.epoch();
            if !state.is_compressing() {
                state.seal(epoch);
            }
            self.offer_sealed(&mut state, compression);
            let from = state.position(state.committed);
            if state.waiting_bytes() >= bulk_at && self.takes_bulk(&mut state, bulk_at) {
                (room, force, bulk) = (BULK_BYTES_MAX, true, true);
            }
            batches = Vec::with_capacity((state.tail.len() - from).min(BATCHES_EXPECTED_MAX));
            for batch in state.tail.iter().skip(from) {
                // It comes back with the partition queued again.
                if batch.stage == Stage::Compressing {
                    break;
                }
                if bytes + batch.bytes.len() > room && !(force && batches.is_empty()) {
                    more = true;
                    break;
                }
                bytes += batch.bytes.len();
                batches.push(batch.clone());
            }
        }
        if batches.is_empty() {
            let partition = Arc::clone(self);
            return Ok(more.then_some(Taken { partition, batches, bytes, more, bulk: false }));
        }
        self.plan(&mut writer, &mut batches)?;
        Ok(Some(Taken { partition: Arc::clone(self), batches, bytes, more, bulk }))
    }

    /// The cycle is in the kernel: `acks=1` may be answered.
    pub(crate) fn note_written(&self, end: Offset) {
        self.points.written.fetch_max(end.get(), Ordering::AcqRel);
    }

    /// The cycle is synced: readers see it. Returns the bytes that wait for their segment.
    pub(crate) fn publish(&self, taken: &Taken) -> usize {
        let end = taken.end();
        let mut state = self.state.lock();
        if self.condition() == Condition::Deleted {
            // What it had was given back when it ended.
            return 0;
        }
        let from = state.position(state.committed);
        for (batch, placed) in state.tail.iter_mut().skip(from).zip(&taken.batches) {
            assert_eq!(batch.base, placed.base, "a cycle publishes what it took");
            batch.segment = placed.segment;
        }
        state.committed = end;
        state.sealed_bytes = state.sealed_bytes.saturating_sub(taken.bytes);
        state.pending_bytes += taken.bytes;
        self.shared.uncommitted_bytes.fetch_sub(taken.bytes, Ordering::Relaxed);
        let cost = taken.batches.iter().map(TailBatch::cost_bytes).sum();
        self.shared.tail_bytes.fetch_add(cost, Ordering::Relaxed);
        if !self.is_memory() {
            self.points.written.fetch_max(end.get(), Ordering::AcqRel);
            self.points.synced.fetch_max(end.get(), Ordering::AcqRel);
            self.show(end);
            state.producers.settle(self.decided_end());
        }
        state.pending_bytes
    }

    /// A `memory` topic's batches are in the kernel: that is all its high watermark asks for.
    /// Whether a transaction's end waits for a sync.
    pub(crate) fn publish_written(&self, end: Offset) -> bool {
        self.points.written.fetch_max(end.get(), Ordering::AcqRel);
        self.show(end);
        let mut state = self.state.lock();
        state.producers.settle(self.decided_end());
        state.producers.has_unsettled()
    }

    /// Moves the high watermark of a partition that is alone.
    fn show(&self, end: Offset) {
        if !self.is_replicated() {
            self.points.high_watermark.fetch_max(end.get(), Ordering::AcqRel);
        }
    }

    /// No room: forgets what is not committed, in a new epoch (with the sequence of the metadata record that gives it), so
    /// that those who wait for it learn that it is lost. A replica gets no epoch here: it stops leading.
    pub(crate) fn cut(&self, epoch: Option<(LeaderEpoch, u64)>) {
        let mut writer = self.writer.lock();
        let mut state = self.state.lock();
        if self.condition() == Condition::Deleted {
            return;
        }
        let bytes = state.cut();
        state.refold(&writer.producers, self.shared.log_clock_ms.load(Ordering::Relaxed));
        self.unplan(&mut writer, &state);
        state.probe_at_ns = self.shared.clock.monotonic_ns().saturating_add(PROBE_INTERVAL_NS);
        self.shared.uncommitted_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.set_condition(Condition::Full);
        state.loss = Loss::DiskFull;
        match epoch {
            Some((epoch, sequence)) => {
                state.epoch_sequence = sequence;
                // The epoch first: see `settled`.
                self.points.epoch.store(epoch.get(), Ordering::Release);
            }
            None => self.resign(&mut state),
        }
        self.points.log_end.store(state.end.get(), Ordering::Release);
    }

    /// Looks for room if it is time to; appends are let in again when there is some, and when the epoch they begin is durable:
    /// metadata is synced up to `synced_sequence`.
    pub(crate) fn probe(&self, synced_sequence: u64) -> bool {
        if self.condition() != Condition::Full {
            return false;
        }
        let now = self.shared.clock.monotonic_ns();
        {
            let mut state = self.state.lock();
            if now < state.probe_at_ns || synced_sequence < state.epoch_sequence {
                return false;
            }
            state.probe_at_ns = now.saturating_add(PROBE_INTERVAL_NS);
        }
        let writer = self.writer.lock();
        if !self.has_room() {
            return false;
        }
        drop(writer);
        {
            // Under the lock of `end` and `cut`: a topic deleted meanwhile must not come to life again.
            let _state = self.state.lock();
            if self.condition() != Condition::Full {
                return false;
            }
            self.set_condition(Condition::Well);
        }
        tracing::info!(partition = ?self, "there is room on the disk again");
        true
    }

    /// Whether a piece of the disk can be had, tried on a file of its own beside the topics.
    fn has_room(&self) -> bool {
        if !self.has_reserve() && !self.shared.ballast.is_whole() {
            return false;
        }
        let Some(topics) = self.folder.parent() else { return false };
        let name = topics.join("room.probe");
        let disk = &*self.shared.disk;
        let room = disk
            .open(&name, OpenMode::Truncate)
            .and_then(|file| {
                file.reserve(0, PROBE_BYTES)?;
                file.truncate(0)
            })
            .is_ok();
        let _ = disk.remove_file(&name);
        room
    }

    /// Lets go of batches in memory that end at or below `through` and are in a segment; returns the bytes.
    pub(crate) fn evict(&self, through: Offset) -> usize {
        let mut state = self.state.lock();
        let through = through.min(state.flushed);
        let mut bytes = 0;
        while state.tail.front().is_some_and(|b| b.last < through) {
            bytes += state.tail.pop_front().map_or(0, |b| b.cost_bytes());
        }
        // Readers of the tail need no list but this one, and only what concerns the tail.
        let from = state.tail.front().map_or(through, |b| b.base);
        if state.tail.is_empty() {
            // Most partitions of a large node are idle most of the time.
            state.tail = VecDeque::new();
        }
        state.aborted.retain(|txn| txn.last >= from);
        self.shared.tail_bytes.fetch_sub(bytes, Ordering::Relaxed);
        bytes
    }

    /// Whether everything below `end` is in a segment.
    pub(crate) fn is_flushed(&self, end: Offset) -> bool {
        self.state.lock().flushed >= end
    }

    /// Ends the partition: its topic was deleted. Readers and writers are told; files are removed by the committer.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        self.set_condition(Condition::Deleted);
        self.shared.damage.forget(self.handle);
        let waiting = state.cut();
        self.shared.uncommitted_bytes.fetch_sub(waiting, Ordering::Relaxed);
        let tail: usize = state.tail.iter().map(TailBatch::cost_bytes).sum();
        self.shared.tail_bytes.fetch_sub(tail, Ordering::Relaxed);
        state.tail.clear();
        state.pending_bytes = 0;
    }

    /// Keeps this partition's writer and its removal of segments out, while its folder changes its name.
    pub(crate) fn exclusive_files(&self) -> (MutexGuard<'_, ()>, MutexGuard<'_, Writer>) {
        (self.removal.lock(), self.writer.lock())
    }

    /// Files of this partition as they are now; for removal.
    pub(crate) fn forget_files(&self) {
        for segment in self.segments.write().drain(..) {
            self.shared.forget_segment(segment.key());
        }
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}
