//! Transactions at the log's level (KIP-98, KIP-890): markers, verification, what of them readers of committed data must know.
//!
//! Which partitions a transaction has, and how it ends, is the coordinator's to know and to make durable; a partition knows from
//! its batches whose transaction is open. So a coordinator that is told nothing (a crash between its decision and a marker, a
//! marker in some partitions only) writes the marker again, everywhere: ended twice is ended once.
//!
//! In a `memory` topic the high watermark is ahead of what is synced. A marker counts there when it is synced, for readers as for the
//! coordinator, and its sync is asked for at once: a power cut may take a transaction's records, as it may take all that is not
//! synced, but not the end of one that somebody knows to have ended, which nobody would write again.
//!
//! Invariant: the last stable offset never passes an open transaction's first record at or above the log start, nor that of one
//! whose marker is not synced, or lies at or above the high watermark.
//! Neighbours: `producers` has the rules, `segment::txnindex` the lists of what was aborted, `writer` fills them.

use super::producers::{Origin, PRODUCERS_MAX, Producers, Sequence, VerificationGuard};
use super::state::State;
use super::writer::Writer;
use super::{AppendError, Appended, Partition, ReadError};
use crate::Offset;
use crate::batch::marker::TransactionMarker;
use crate::batch::{BatchError, BatchHeader};
use crate::disk::{OpenMode, read_full_at};
use crate::segment::scan::Scan;
use crate::segment::txnindex::{self, Aborted, AbortedTransaction};
use crate::segment::{Segment, path};
use bytes::Bytes;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Questions to the coordinator whose answers are waited for (KIP-890). At most as many as producers; the oldest gives way.
#[derive(Debug, Default)]
pub(crate) struct Verifications {
    last_guard: u64,
    by_producer: HashMap<i64, Verification>,
}

#[derive(Debug)]
struct Verification {
    guard: u64,
    epoch: i16,
    /// The lowest sequence seen since: a higher one must not overtake it, or it could never be appended.
    lowest_sequence: i32,
    bumps_epoch: bool,
    since_ms: i64,
}

impl Verifications {
    /// The producer's transaction has begun, or ended: answers that come later mean nothing.
    pub(crate) fn done(&mut self, producer_id: i64) {
        self.by_producer.remove(&producer_id);
    }

    fn begin(
        &mut self,
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        bumps_epoch: bool,
        now_ms: i64,
    ) -> VerificationGuard {
        if self.by_producer.len() >= PRODUCERS_MAX && !self.by_producer.contains_key(&producer_id) {
            let oldest = self.by_producer.iter().min_by_key(|(_, v)| v.guard).map(|(id, _)| *id);
            oldest.map(|id| self.by_producer.remove(&id));
        }
        self.last_guard += 1;
        let new = Verification {
            guard: self.last_guard,
            epoch,
            lowest_sequence: sequence,
            bumps_epoch,
            since_ms: now_ms,
        };
        let known = self.by_producer.entry(producer_id).or_insert(new);
        if epoch == known.epoch {
            known.lowest_sequence = known.lowest_sequence.min(sequence);
        } else if epoch > known.epoch {
            (known.epoch, known.lowest_sequence) = (epoch, sequence);
        }
        VerificationGuard(known.guard)
    }

    fn expire(&mut self, now_ms: i64, after_ms: i64) {
        self.by_producer.retain(|_, v| now_ms.saturating_sub(v.since_ms) < after_ms);
    }
}

impl State {
    /// Judges a batch: its producer's epoch and sequence, and whether its transaction is known to the coordinator.
    pub(crate) fn check_producer(
        &self,
        header: &BatchHeader,
        origin: Origin,
    ) -> Result<Sequence, AppendError> {
        let (producer_id, found) = (header.producer_id, header.base_sequence);
        let judged = self.producers.check(header, origin)?;
        if matches!(judged, Sequence::Duplicate(..)) || !header.is_transactional() {
            return Ok(judged);
        }
        let verification = self.verifications.by_producer.get(&producer_id);
        if let Origin::Verified(VerificationGuard(guard)) = origin
            && !self.producers.is_open(producer_id, header.producer_epoch)
            && verification.is_none_or(|v| v.guard != guard)
        {
            let reason = "it is not part of a transaction that its coordinator knows";
            return Err(AppendError::InvalidTransaction { producer_id, reason });
        }
        let Some(verification) = verification.filter(|_| origin != Origin::Coordinator) else {
            return Ok(judged);
        };
        let known = self.producers.epoch_of(producer_id).is_some_and(|(_, batches)| batches);
        let expected = match verification {
            // Its epoch is of this transaction alone, so its first sequence is 0 (KIP-890).
            v if v.bumps_epoch && !known => 0,
            v => v.lowest_sequence,
        };
        if found > expected {
            return Err(AppendError::OutOfOrderSequence { producer_id, expected, found });
        }
        Ok(judged)
    }
}

impl Partition {
    /// Ends the producer's transaction, if one is open here, with a control batch: replays of a marker change nothing. Readers
    /// of committed data go on once it is below the high watermark and synced, and a coordinator waits for
    /// [`super::AckPoint::Synced`] too, whatever the topic's durability: until then it writes the marker again after a crash.
    ///
    /// # Errors
    /// [`AppendError::ProducerFenced`] and [`AppendError::CoordinatorFenced`] for a zombie's; else as an append. Nothing is
    /// stored then.
    pub fn append_marker(&self, marker: &TransactionMarker) -> Result<Appended, AppendError> {
        if marker.producer_id < 0 || marker.producer_epoch < 0 {
            return Err(BatchError::Refused("marker without a producer").into());
        }
        let batch = marker.encode();
        let header = BatchHeader::parse(&batch)?;
        let state = self.state.lock();
        self.check_leads()?;
        state.producers.check_marker(marker)?;
        self.admit(&state)?;
        Ok(self.push(state, batch, &header, Some(marker.end)))
    }

    /// Notes that the coordinator is about to be asked whether a transaction has this partition, for a first batch with this
    /// sequence; `None` when the transaction is open here, which answers it. The guard lets the batch in
    /// ([`Origin::Verified`]) unless the transaction begins or ends here before. `bumps_epoch`: the coordinator takes a new epoch
    /// per transaction (KIP-890, transaction version 2).
    #[must_use]
    pub fn verify_transaction(
        &self,
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        bumps_epoch: bool,
    ) -> Option<VerificationGuard> {
        let mut state = self.state.lock();
        if state.producers.is_open(producer_id, epoch) {
            return None;
        }
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        Some(state.verifications.begin(producer_id, epoch, sequence, bumps_epoch, now_ms))
    }

    /// The aborted transactions that overlap with the offsets from `from` to below `to`, by first offset, whose markers are
    /// below the high watermark: what a reader of committed data must leave out. [`Partition::read`] gives those of what it
    /// read. May read files.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn aborted(&self, from: Offset, to: Offset) -> Result<Vec<AbortedTransaction>, ReadError> {
        // The tail before the segments: what moves from one to the other meanwhile is met twice, not missed.
        let (mut found, high_watermark) = {
            let state = self.state.lock();
            (self.aborted_in_tail(&state, from, to), self.high_watermark())
        };
        if self.aborts.load(Ordering::Acquire) {
            self.collect_aborted(from, to, &mut found)?;
            found.retain(|txn| txn.last < high_watermark);
            found.sort_unstable();
            found.dedup();
        }
        Ok(found)
    }

    /// Those whose markers lie in the tail and are seen: all, for a reader whose offsets do.
    pub(super) fn aborted_in_tail(
        &self,
        state: &State,
        from: Offset,
        to: Offset,
    ) -> Vec<AbortedTransaction> {
        // What is not seen yet may be cut again.
        let high_watermark = self.high_watermark();
        let overlap = |txn: &&AbortedTransaction| {
            txn.last >= from && txn.first < to && txn.last < high_watermark
        };
        let mut found: Vec<_> = state.aborted.iter().filter(overlap).copied().collect();
        found.sort_unstable();
        found
    }

    fn collect_aborted(
        &self,
        from: Offset,
        to: Offset,
        found: &mut Vec<AbortedTransaction>,
    ) -> Result<(), ReadError> {
        loop {
            let segments = self.segments.read().clone();
            let mut list = Vec::new();
            let collected = self.collect_aborted_of(&segments, from, to, &mut list);
            // Compaction may have put other files under their names meanwhile.
            if segments.iter().filter(|s| s.is_retired()).all(|s| self.is_listed(s)) {
                found.append(&mut list);
                return collected;
            }
        }
    }

    fn collect_aborted_of(
        &self,
        segments: &[Arc<Segment>],
        from: Offset,
        to: Offset,
        found: &mut Vec<AbortedTransaction>,
    ) -> Result<(), ReadError> {
        let first = segments.partition_point(|s| s.base() <= from).saturating_sub(1);
        for (at, segment) in segments.iter().enumerate().skip(first) {
            let ended = match segment.collect_aborted(from, to, found) {
                Some(ended) => ended,
                None => txnindex::collect(&self.aborted_list(&segments[..=at])?, from, to, found),
            };
            if ended {
                break;
            }
        }
        Ok(())
    }

    /// The list of the last of these segments, out of its file, or made anew from the log where the file is missing or wrong.
    fn aborted_list(
        &self,
        segments: &[Arc<Segment>],
    ) -> Result<Arc<Vec<AbortedTransaction>>, ReadError> {
        let Some(segment) = segments.last() else { return Ok(Arc::default()) };
        // One that was read before the segment was added to is too short.
        let known = self.shared.aborted.get(segment.key());
        if let Some(list) = known.filter(|list| list.len() == segment.aborted_count()) {
            return Ok(list);
        }
        let disk = &*self.shared.disk;
        let loaded = segment.load_aborted(disk, &self.folder).and_then(|loaded| match loaded {
            Some(list) => Ok(list),
            None => {
                let mut producers = self.producers_at(segments, segment.base())?;
                let list = self.fold_segment(&mut producers, segment, None)?;
                segment.set_aborted(Aborted::Here(list.clone()));
                segment.store_aborted(disk, &self.folder);
                Ok(list)
            }
        });
        let list = Arc::new(loaded.map_err(|e| ReadError::Io {
            file: path(&self.folder, segment.base(), "txnindex").display().to_string(),
            error: e.to_string(),
        })?);
        self.shared.aborted.keep(segment.key(), Arc::clone(&list));
        Ok(list)
    }

    /// The list of the last of these segments as one that will be added to: those whose markers lie below `end`.
    pub(super) fn aborted_below(
        &self,
        segments: &[Arc<Segment>],
        end: Offset,
    ) -> io::Result<Aborted> {
        let list = self.aborted_list(segments).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Aborted::Here(list.iter().filter(|txn| txn.last < end).copied().collect()))
    }

    /// The producers' state at `end`, which is not above what the files hold: from the newest snapshot that is whole, and the
    /// batches behind it.
    fn producers_at(&self, segments: &[Arc<Segment>], end: Offset) -> io::Result<Producers> {
        let below = segments.partition_point(|s| s.base() <= end);
        let segments = &segments[..below];
        let (from, mut producers) = segments
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, segment)| Some((at, self.load_snapshot(segment.base())?)))
            .unwrap_or_default();
        for segment in &segments[from..] {
            self.fold_segment(&mut producers, segment, Some(end))?;
        }
        Ok(producers)
    }

    /// Takes the batches of a segment below `end` into the state, past what is damaged. Answers with the transactions that they
    /// abort.
    fn fold_segment(
        &self,
        producers: &mut Producers,
        segment: &Segment,
        end: Option<Offset>,
    ) -> io::Result<Vec<AbortedTransaction>> {
        let mut aborted = Vec::new();
        let file = self.open_segment(segment)?;
        // A producer of sealed segments wrote when the segment was last written to, at the latest.
        let now_ms = segment.times().last_append_ms;
        let mut scan = Scan::new(&*file, 0, segment.written());
        while let Some(step) = scan.next()? {
            let Ok(at) = step else {
                scan.resync(0)?;
                continue;
            };
            let Some(base) = Offset::new(at.header.base_offset) else { continue };
            if end.is_some_and(|end| base >= end) {
                break;
            }
            let marker = if at.header.is_control() && at.header.producer_id >= 0 {
                // A marker is less than a hundred bytes: what says to be more is none.
                let mut bytes = vec![0; at.header.size_bytes().min(MARKER_BYTES_MAX)];
                read_full_at(&*file, &mut bytes, at.byte)?;
                crate::batch::marker::end_of(&Bytes::from(bytes))
            } else {
                None
            };
            aborted.extend(producers.apply(&at.header, base, marker, now_ms));
        }
        Ok(aborted)
    }

    /// A whole snapshot of this offset.
    fn load_snapshot(&self, at: Offset) -> Option<Producers> {
        let name = path(&self.folder, at, "snapshot");
        let file = self.shared.disk.open(&name, OpenMode::Read).ok()?;
        // Its size is bounded by what the producers' limit lets in, many times over.
        let size = usize::try_from(file.size_bytes().ok()?).ok()?;
        if size > SNAPSHOT_BYTES_MAX {
            return None;
        }
        let mut bytes = vec![0; size];
        let read = read_full_at(&*file, &mut bytes, 0).ok()?;
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        let loaded = Producers::from_snapshot(&bytes[..read], at, now_ms);
        if loaded.is_none() {
            tracing::warn!(file = %name.display(), "is no snapshot of producers: an earlier one is used");
        }
        loaded
    }

    /// Writes a snapshot of what the files hold, which is where a segment begins. A hint: nothing is lost without it.
    pub(super) fn store_snapshot(&self, writer: &Writer, at: Offset) {
        let name = path(&self.folder, at, "snapshot");
        let stored =
            self.shared.disk.open(&name, OpenMode::Truncate).and_then(|file| {
                file.write_at(&[IoSlice::new(&writer.producers.to_snapshot())], 0)
            });
        if let Err(e) = stored {
            // Not half of one, nor one of before a truncation.
            let _ = self.shared.disk.remove_file(&name);
            tracing::debug!(file = %name.display(), error = %e, "no snapshot of producers");
        }
    }

    /// Takes batches into the state of what the files hold, in their order, as they are written to `segment` and before it
    /// counts them.
    pub(super) fn fold_written<'a>(
        &self,
        writer: &mut Writer,
        segment: Option<&Segment>,
        batches: impl Iterator<Item = &'a Bytes>,
    ) -> io::Result<()> {
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        for bytes in batches {
            let Some(txn) = writer.producers.apply_stored(bytes, now_ms) else { continue };
            let Some(segment) = segment else { continue };
            self.aborts.store(true, Ordering::Release);
            if !segment.note_aborted(txn) {
                // A sealed segment that a restart made the active one again.
                let segments = self.segments_through(segment.base());
                segment.set_aborted(self.aborted_below(&segments, txn.last)?);
                segment.note_aborted(txn);
            }
        }
        writer.producers.settle(self.decided_end());
        Ok(())
    }

    /// Transactions whose markers lie below are decided for readers.
    pub(super) fn decided_end(&self) -> Offset {
        let synced = Offset::new(self.points.synced.load(Ordering::Acquire)).unwrap_or_default();
        self.high_watermark().min(synced)
    }

    fn segments_through(&self, base: Offset) -> Vec<Arc<Segment>> {
        let segments = self.segments.read();
        segments[..segments.partition_point(|s| s.base() <= base)].to_vec()
    }

    /// Brings the producers' state back to `end`, after the tail and the files were cut to it, with the writer's lock held.
    ///
    /// # Errors
    /// The disk's. The state is then what it was, and the caller must not go on.
    pub(super) fn truncate_producers(&self, writer: &mut Writer, end: Offset) -> io::Result<()> {
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        let segments = self.segments.read().clone();
        if end < writer.folded {
            // What never had a producer needs no look at the files to know that it has none.
            if !writer.producers.is_empty() {
                writer.producers = self.producers_at(&segments, end)?;
            }
            writer.folded = end;
        }
        let mut state = self.state.lock();
        state.refold(&writer.producers, now_ms);
        state.verifications = Verifications::default();
        Ok(())
    }

    /// Forgets producers that wrote nothing for this long, on the log clock. Returns how many.
    pub(crate) fn expire_producers(&self, after_ms: i64) -> usize {
        if self.state.lock().producers.is_empty() {
            return 0;
        }
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        let mut writer = self.writer.lock();
        let mut state = self.state.lock();
        state.verifications.expire(now_ms, after_ms);
        writer.producers.expire(now_ms, after_ms);
        state.producers.expire(now_ms, after_ms)
    }

    /// Producers, open transactions, and for how many milliseconds the one that waits longest was not written to.
    pub(crate) fn transaction_figures(&self) -> (usize, usize, u64) {
        let (producers, open, since_ms) = self.state.lock().producers.figures();
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        let waits_ms = since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        (producers, open, u64::try_from(waits_ms).unwrap_or(0))
    }
}

/// What is looked at of a control batch.
const MARKER_BYTES_MAX: usize = 4 << 10;

/// No snapshot of ours is larger; a file that is was not written here.
const SNAPSHOT_BYTES_MAX: usize = 16 << 20;
