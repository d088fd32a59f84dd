//! Cutting a partition back: its memory, its segments' files, and what is known of them.
//!
//! Two do it. The committer, when a truncation's cycle is synced, before the mark that a checkpoint captures moves past it; and
//! a recovery, which finds by how much at most the journal's truncations cut what its catalog describes, and cuts that before
//! it applies any batch. Both leave the same, so it does not matter how far the first came.
//!
//! Segments that begin at or above the cut are removed; the one that has it is cut to the byte and is the active one again. A
//! checkpoint syncs both before it describes the partition.
//!
//! Invariant: nothing below the high watermark is cut, so no reader is in what goes.
//! Neighbours: `replica` decides, `commit` and `recovery` call, `segment` has the files.

use super::state::State;
use super::writer::Writer;
use super::{Condition, Loss, Partition, ReadError};
use crate::Offset;
use crate::segment::read::Reading;
use crate::segment::{EXTENSIONS, Segment, path, remove_hints};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a cut took out of memory.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Bytes that waited for a commit.
    pub(super) waiting_bytes: usize,
    /// Memory of committed batches.
    pub(super) tail_bytes: usize,
}

impl State {
    /// Forgets what was appended at or above `end`, where a batch begins. The producers are put right afterwards:
    /// [`State::refold`], [`Partition::truncate_producers`].
    pub(super) fn cut_to(&mut self, end: Offset) -> Dropped {
        let waiting_before = self.waiting_bytes();
        let mut tail_bytes = 0;
        if !self.open.is_empty() && self.open_base >= end {
            self.node_sequence = self.open_sequence;
            self.open = crate::batch::BatchBuilder::new();
        }
        while let Some(batch) = self.tail.pop_back_if(|b| b.base >= end) {
            if let Some(sequence) = batch.node_sequence {
                self.node_sequence = sequence;
            }
            if batch.base >= self.committed {
                self.sealed_bytes -= batch.bytes.len();
                continue;
            }
            tail_bytes += batch.cost_bytes();
            if batch.base >= self.flushed {
                self.pending_bytes -= batch.bytes.len();
            }
        }
        self.end = self.end.min(end);
        self.committed = self.committed.min(end);
        self.flushed = self.flushed.min(end);
        self.epochs.cut(end);
        self.aborted.retain(|txn| txn.last < end);
        Dropped { waiting_bytes: waiting_before - self.waiting_bytes(), tail_bytes }
    }
}

impl Partition {
    /// Where the batch begins that has `offset`, if one has.
    pub(super) fn batch_start(&self, offset: Offset) -> Result<Offset, ReadError> {
        {
            let state = self.state.lock();
            if offset >= state.end {
                return Ok(offset);
            }
            if let Some(batch) = state.tail.get(state.position(offset))
                && (batch.base <= offset || offset >= state.flushed)
            {
                return Ok(batch.base.min(offset));
            }
        }
        let Some((segment, next)) = self.segment_of(offset) else { return Ok(offset) };
        let found = self.read_segment(&segment, next, |r| r.find(offset))?;
        Ok(found.1.map_or(offset, |base| base.min(offset)))
    }

    /// Carries out a truncation whose journal frame is synced, in this cycle. An error takes the directory offline, before
    /// anybody else has the writer: no checkpoint may describe what is half cut.
    pub(crate) fn truncate(&self, to: Offset, cycle: u64) -> Result<(), String> {
        // Not beside the removal of segments from below.
        let _removal = self.removal.lock();
        let mut writer = self.writer.lock();
        let cut = self.truncate_locked(&mut writer, to, cycle);
        cut.inspect_err(|reason| self.shared.go_offline(reason.clone()))
    }

    fn truncate_locked(&self, writer: &mut Writer, to: Offset, cycle: u64) -> Result<(), String> {
        self.cut_lost(to);
        let in_files = {
            let mut state = self.state.lock();
            if self.condition() == Condition::Deleted {
                return Ok(());
            }
            assert!(to >= self.high_watermark(), "{self:?} is cut below what readers were shown");
            let in_files = state.flushed > to;
            let dropped = state.cut_to(to);
            self.shared.uncommitted_bytes.fetch_sub(dropped.waiting_bytes, Ordering::Relaxed);
            self.shared.tail_bytes.fetch_sub(dropped.tail_bytes, Ordering::Relaxed);
            state.loss = Loss::Truncated;
            state.replica.truncated_in = cycle;
            for point in [&self.points.log_end, &self.points.written, &self.points.synced] {
                point.fetch_min(to.get(), Ordering::AcqRel);
            }
            in_files
        };
        if in_files {
            self.cut_files(writer, to).map_err(|e| format!("truncating {self:?}: {e}"))?;
        }
        self.truncate_producers(writer, to).map_err(|e| format!("truncating {self:?}: {e}"))?;
        self.unplan(writer, &self.state.lock());
        if self.is_memory() {
            self.state.lock().replica.uncovered = true;
        } else {
            self.end_truncation();
        }
        Ok(())
    }

    /// Appends go on.
    pub(super) fn end_truncation(&self) {
        {
            let mut state = self.state.lock();
            state.replica.truncating = None;
            state.replica.uncovered = false;
        }
        self.requeue();
        self.shared.notify();
    }

    /// Cuts what the catalog describes to where the journal's truncations leave it at most. Before any batch is applied.
    pub(crate) fn replay_truncation(&self, to: Offset) -> io::Result<()> {
        self.cut_lost(to);
        let mut writer = self.writer.lock();
        {
            let mut state = self.state.lock();
            if state.end <= to {
                return Ok(());
            }
            state.cut_to(to);
        }
        self.cut_files(&mut writer, to)?;
        self.truncate_producers(&mut writer, to)?;
        self.unplan(&mut writer, &self.state.lock());
        self.publish_replayed();
        Ok(())
    }

    /// Removes segments that begin at or above `to`, and cuts the one that has it.
    fn cut_files(&self, writer: &mut Writer, to: Offset) -> io::Result<()> {
        let segments = self.segments.read().clone();
        let (kept, gone) = segments.split_at(segments.partition_point(|s| s.base() < to));
        // From the end on: a crash leaves no hole that a truncation which is replayed would have to know of.
        for segment in gone.iter().rev() {
            segment.retire();
            self.shared.forget_segment(segment.key());
            for extension in EXTENSIONS {
                match self.shared.disk.remove_file(&path(&self.folder, segment.base(), extension)) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        let kept_count = kept.len();
        let mut kept = kept.to_vec();
        if let Some(last) = kept.last_mut() {
            let aborted = self.aborted_below(&segments[..kept_count], to)?;
            *last = self.cut_segment(last, gone.first().map(|s| s.base()), to)?;
            last.set_aborted(aborted);
        }
        writer.dirty.retain(|s| kept.iter().any(|k| k.base() == s.base()));
        writer.dirty.extend(kept.last().cloned());
        writer.cut(kept.last().map_or(Offset::ZERO, |s| s.base()));
        *self.segments.write() = kept;
        Ok(())
    }

    /// Cuts a segment's file; what stands for it then is another segment, as readers of the old one may go on below the cut.
    fn cut_segment(
        &self,
        segment: &Arc<Segment>,
        next: Option<Offset>,
        to: Offset,
    ) -> io::Result<Arc<Segment>> {
        let file = self.open_segment(segment)?;
        let reading = Reading {
            segment,
            file: &*file,
            indexes: &self.shared.indexes,
            folder: &self.folder,
            next,
        };
        let (byte, _) = reading.find(to)?;
        let mut entry = segment.entry();
        entry.bytes = byte;
        if entry.max_timestamp_base >= to.get() {
            (entry.max_timestamp, entry.max_timestamp_base) = reading.max_timestamp(byte)?;
        }
        // The indexes first: they would point beyond the end.
        segment.retire();
        self.shared.forget_segment(segment.key());
        remove_hints(&*self.shared.disk, &self.folder, segment.base())?;
        file.truncate(byte)?;
        let cut = Segment::from_entry(&entry, false);
        if segment.is_sparse() {
            cut.set_sparse();
        }
        cut.set_horizon(segment.horizon_ms());
        Ok(Arc::new(cut))
    }
}
