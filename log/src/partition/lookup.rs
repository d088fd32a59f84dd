//! Lookups by timestamp and by size, as Kafka's ListOffsets means them, and moving the log start.
//!
//! Invariant: like the reader, a lookup never tells of anything at or above the high watermark. Inside a compressed batch, which
//! is not opened here, its first record answers.

use super::{OffsetAndTimestamp, Partition, ReadError, ReadLimit};
use crate::batch::{self, BatchHeader};
use crate::{LeaderEpoch, Offset};
use bytes::Bytes;
use std::sync::atomic::Ordering;

impl Partition {
    /// The first record whose timestamp is at least `timestamp_ms` (Kafka's ListOffsets).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
    ) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let mut candidates: Vec<Offset> = Vec::new();
        let segments = self.segments.read().clone();
        for (i, segment) in segments.iter().enumerate() {
            if segment.times().max_timestamp < timestamp_ms {
                continue;
            }
            let sealed = i + 1 < segments.len();
            let found = self.read_segment(segment, sealed, |r| r.batch_by_time(timestamp_ms))?;
            candidates.extend(found.and_then(|at| Offset::new(at.header.base_offset)));
            break;
        }
        // What is not in a segment yet comes after what is.
        {
            let state = self.state.lock();
            let in_tail = state.tail.iter().find(|b| b.max_timestamp >= timestamp_ms);
            candidates.extend(in_tail.map(|b| b.base));
        }
        let Some(base) = candidates.into_iter().min() else { return Ok(None) };
        self.first_record(base.max(self.log_start()), |timestamp| timestamp >= timestamp_ms)
    }

    /// The record with the largest timestamp (Kafka's ListOffsets -3).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn offset_of_max_timestamp(&self) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let start = self.log_start();
        let mut best: Option<(i64, Offset)> = None;
        let mut consider = |timestamp: i64, base: Offset| {
            if best.is_none_or(|(t, _)| timestamp > t) {
                best = Some((timestamp, base));
            }
        };
        for segment in self.segments.read().iter().filter(|s| s.written() > 0) {
            let times = segment.times();
            let base = Offset::new(times.max_timestamp_base).unwrap_or_default();
            consider(times.max_timestamp, base);
        }
        {
            let state = self.state.lock();
            let end = state.committed;
            for batch in state.tail.iter().filter(|b| b.base < end) {
                consider(batch.max_timestamp, batch.base);
            }
        }
        let Some((timestamp, base)) = best else { return Ok(None) };
        self.first_record(base.max(start), |t| t >= timestamp)
    }

    /// The first record from the batch at `base` on that is wanted, below the high watermark.
    fn first_record(
        &self,
        base: Offset,
        wanted: impl Fn(i64) -> bool,
    ) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let start = self.log_start();
        let mut from = base;
        loop {
            let outcome = self.read(from, 1, ReadLimit::HighWatermark)?;
            let Some(batch) = outcome.batches.first() else { return Ok(None) };
            if let Some(found) = in_batch(batch, start, &wanted) {
                return Ok(Some(found));
            }
            from = outcome.next;
        }
    }

    /// Deletes records below `before` (Kafka's DeleteRecords): journalled first, whole segments removed later.
    /// Never above the high watermark. Durable once the next commit cycle has ended.
    pub fn delete_before(&self, before: Offset) {
        let before = before.min(self.high_watermark()).get();
        if self.points.log_start.fetch_max(before, Ordering::AcqRel) < before {
            self.state.lock().epochs.start_at(self.log_start());
            if let Some(me) = self.me.upgrade() {
                self.shared.controls.lock().log_starts.push((me, before));
            }
            self.shared.queue.wake();
        }
    }

    /// Bytes stored between `from` and the high watermark, to within one index interval: an uplink's backlog.
    #[must_use]
    pub fn bytes_after(&self, from: Offset) -> u64 {
        let high_watermark = self.high_watermark();
        if from >= high_watermark {
            return 0;
        }
        let (in_memory, flushed) = {
            let state = self.state.lock();
            let end = state.committed;
            let tail = state.tail.iter().filter(|b| b.base < end && b.last >= from);
            if state.tail.front().is_some_and(|b| b.base <= from) {
                return tail.map(|b| b.bytes.len() as u64).sum();
            }
            let unflushed = tail.filter(|b| b.base >= state.flushed);
            (unflushed.map(|b| b.bytes.len() as u64).sum::<u64>(), state.flushed)
        };
        if from >= flushed {
            return in_memory;
        }
        let segments = self.segments.read().clone();
        let next = segments.partition_point(|s| s.base() <= from);
        let behind: u64 = segments.iter().skip(next).map(|s| s.written()).sum();
        let Some((segment, sealed)) = self.segment_of(from) else { return behind + in_memory };
        let byte = self.read_segment(&segment, sealed, |r| r.byte_of(from)).unwrap_or(0);
        segment.written().saturating_sub(byte) + behind + in_memory
    }
}

fn in_batch(
    batch: &Bytes,
    start: Offset,
    wanted: impl Fn(i64) -> bool,
) -> Option<OffsetAndTimestamp> {
    let header = BatchHeader::parse(batch).ok()?;
    let epoch = LeaderEpoch::new(header.partition_leader_epoch).unwrap_or_default();
    let found = |offset, timestamp_ms| {
        Some(OffsetAndTimestamp { offset: Offset::new(offset)?, timestamp_ms, epoch })
    };
    match batch::records(batch) {
        Ok(mut records) => {
            let record = records.find_map(|r| {
                r.ok().filter(|r| wanted(r.timestamp_ms) && r.offset >= start.get())
            })?;
            found(record.offset, record.timestamp_ms)
        }
        Err(_) if wanted(header.max_timestamp) => {
            found(header.base_offset.max(start.get()), header.max_timestamp)
        }
        Err(_) => None,
    }
}
