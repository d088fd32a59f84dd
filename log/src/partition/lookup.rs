//! Lookups by timestamp and by size, as Kafka's ListOffsets means them, and moving the log start.
//!
//! The first record with a timestamp of at least the one asked for, in the order of offsets: timestamps are the producers' and
//! may go back. Segments are skipped by their largest timestamp, batches by the time index, then by their headers; what is left is
//! one batch, whose records are read, decompressed if need be.
//!
//! Invariant: like the reader, a lookup never tells of anything below the log start, or at or above the high watermark.
//! Neighbours: `segment::read` follows the indexes, `read` fetches the batch, the Kafka door and uplinks ask.

use super::{OffsetAndTimestamp, Partition, Positions, ReadError, ReadLimit};
use crate::batch::{self, BatchHeader};
use crate::segment::Segment;
use crate::segment::read::Trust;
use crate::segment::scan::At;
use crate::shared::PartitionControl;
use crate::{LeaderEpoch, Offset};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a look into one place found.
enum Looked {
    /// A batch that may have it.
    Batch(Offset),
    /// Nothing below this offset.
    NotBefore(Offset),
}

impl Partition {
    /// The first record whose timestamp is at least `timestamp_ms` (Kafka's ListOffsets). Blocks.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
    ) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        self.check_present()?;
        let Positions { log_start, high_watermark, .. } = self.positions();
        let mut from = log_start;
        // Each round passes a batch or a segment, or is the last.
        while from < high_watermark {
            let looked = match self.look_in_tail(timestamp_ms, from) {
                Ok(looked) => looked,
                Err(memory) => self.look_in_segment(timestamp_ms, from, memory)?,
            };
            let base = match looked {
                Looked::Batch(base) => base.max(from),
                Looked::NotBefore(offset) => {
                    from = offset.max(from.plus(1));
                    continue;
                }
            };
            if base >= high_watermark {
                break;
            }
            let outcome = self.read(base, 1, ReadLimit::HighWatermark)?;
            let Some(batch) = outcome.batches.first() else { break };
            if let Some(found) = in_batch(batch, from, |timestamp| timestamp >= timestamp_ms) {
                return Ok(Some(found));
            }
            from = outcome.next;
        }
        Ok(None)
    }

    /// Looks among the batches in memory if they reach back to `from`; else says where they begin.
    fn look_in_tail(&self, timestamp_ms: i64, from: Offset) -> Result<Looked, Offset> {
        let state = self.state.lock();
        if !state.reaches_back(from) {
            return Err(state.memory_start());
        }
        let mut batches = state.tail.iter().skip(state.position(from));
        let found = batches.find(|b| b.max_timestamp >= timestamp_ms).map(|b| b.base);
        Ok(found.map_or(Looked::NotBefore(state.end), Looked::Batch))
    }

    /// Looks in the segment that has `from`, for what memory does not have: `memory` is where that begins.
    fn look_in_segment(
        &self,
        timestamp_ms: i64,
        from: Offset,
        memory: Offset,
    ) -> Result<Looked, ReadError> {
        let Some((segment, next)) = self.segment_of(from) else {
            // Retention has just taken it, or damage: nothing is to be found before the first segment.
            let first = self.segments.read().first().map(|s| s.base());
            return Ok(Looked::NotBefore(first.unwrap_or(memory).min(memory)));
        };
        let found = if segment.times().max_timestamp >= timestamp_ms {
            let trust = self.trust();
            self.read_segment(&segment, next, |r| r.batch_by_time(timestamp_ms, from, trust))?
        } else {
            None
        };
        let base = found.and_then(|at| Offset::new(at.header.base_offset));
        // The last of its batches may be in memory alone, though another segment is begun.
        let end = next.map_or(memory, |next| next.min(memory));
        Ok(base.map_or(Looked::NotBefore(end), Looked::Batch))
    }

    fn trust(&self) -> Trust {
        if self.shared.is_offline() { Trust::Failed } else { Trust::Well }
    }

    /// The first of the records with the largest timestamp (Kafka's ListOffsets -3, KIP-734). Blocks.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn offset_of_max_timestamp(&self) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        self.check_present()?;
        let Positions { log_start, high_watermark, .. } = self.positions();
        if log_start >= high_watermark {
            return Ok(None);
        }
        // The first batch may have lost its newest record to DeleteRecords: only its records tell.
        let outcome = self.read(log_start, 1, ReadLimit::HighWatermark)?;
        let first = outcome.batches.first().and_then(|batch| newest_in(batch, log_start));
        let behind = outcome.next;
        let mut best: Option<(i64, Offset)> = None;
        let mut consider = |timestamp: i64, base: Offset| {
            if base < high_watermark && best.is_none_or(|(t, _)| timestamp > t) {
                best = Some((timestamp, base));
            }
        };
        // The tail first: what leaves it meanwhile is in a segment by the time those are looked at.
        let mut in_tail = Vec::new();
        let memory = {
            let state = self.state.lock();
            let batches = state.tail.iter().skip(state.position(behind));
            let batches = batches.filter(|b| b.base >= behind && b.base < high_watermark);
            let newest =
                batches.reduce(|a, b| if b.max_timestamp > a.max_timestamp { b } else { a });
            in_tail.extend(newest.map(|b| (b.max_timestamp, b.base)));
            state.memory_start()
        };
        let segments = self.segments.read().clone();
        for (i, segment) in segments.iter().enumerate() {
            let next = segments.get(i + 1).map(|s| s.base());
            if segment.written() == 0 || next.is_some_and(|next| next <= behind) {
                continue;
            }
            let span = behind..high_watermark;
            if let Some(at) = self.newest_in_segment(segment, next, span, memory)? {
                consider(at.0, at.1);
            }
        }
        for (timestamp, base) in in_tail {
            consider(timestamp, base);
        }
        let Some((timestamp, base)) =
            best.filter(|(t, _)| first.is_none_or(|f| *t > f.timestamp_ms))
        else {
            return Ok(first);
        };
        let outcome = self.read(base, 1, ReadLimit::HighWatermark)?;
        Ok(outcome.batches.first().and_then(|batch| in_batch(batch, base, |t| t >= timestamp)))
    }

    /// The newest batch of a segment with offsets in `span`, memory's from `memory` on left out: timestamp and base offset.
    fn newest_in_segment(
        &self,
        segment: &Arc<Segment>,
        next: Option<Offset>,
        span: Range<Offset>,
        memory: Offset,
    ) -> Result<Option<(i64, Offset)>, ReadError> {
        let times = segment.times();
        let base = Offset::new(times.max_timestamp_base).unwrap_or_default();
        if span.contains(&base) {
            return Ok(Some((times.max_timestamp, base)));
        }
        let (trust, limit) = (self.trust(), span.end.min(memory));
        let found =
            self.read_segment(segment, next, |r| r.newest_batch(span.start, limit, trust))?;
        let place = |at: At| Some((at.header.max_timestamp, Offset::new(at.header.base_offset)?));
        Ok(found.and_then(place))
    }

    /// Deletes records below `before` (Kafka's DeleteRecords): journalled first, whole segments removed later.
    /// Never above the high watermark. Durable once the next commit cycle has ended.
    pub fn delete_before(&self, before: Offset) {
        let before = before.min(self.high_watermark()).get();
        if self.points.log_start.fetch_max(before, Ordering::AcqRel) < before {
            self.state.lock().epochs.start_at(self.log_start());
            self.control(PartitionControl::LogStart(before));
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
        let Some((segment, next)) = self.segment_of(from) else { return behind + in_memory };
        let byte = self.read_segment(&segment, next, |r| r.byte_of(from)).unwrap_or(0);
        segment.written().saturating_sub(byte) + behind + in_memory
    }
}

/// The first record at or above `start` that is wanted.
fn in_batch(
    batch: &Bytes,
    start: Offset,
    wanted: impl Fn(i64) -> bool,
) -> Option<OffsetAndTimestamp> {
    let header = BatchHeader::parse(batch).ok()?;
    match batch::records(batch) {
        Ok(mut records) => {
            while let Some(Ok(record)) = records.next_view() {
                if wanted(record.timestamp_ms) && record.offset >= start.get() {
                    return answer(&header, record.offset, record.timestamp_ms);
                }
            }
            None
        }
        // Its CRC is right, but no reader could open it: taken by a version that did not look inside.
        Err(_) if wanted(header.max_timestamp) => {
            answer(&header, header.base_offset.max(start.get()), header.max_timestamp)
        }
        Err(_) => None,
    }
}

/// The first of the newest records at or above `start`.
fn newest_in(batch: &Bytes, start: Offset) -> Option<OffsetAndTimestamp> {
    let header = BatchHeader::parse(batch).ok()?;
    let Ok(mut records) = batch::records(batch) else {
        return in_batch(batch, start, |_| true);
    };
    let mut newest: Option<(i64, i64)> = None;
    while let Some(Ok(record)) = records.next_view() {
        if record.offset >= start.get() && newest.is_none_or(|(t, _)| record.timestamp_ms > t) {
            newest = Some((record.timestamp_ms, record.offset));
        }
    }
    let (timestamp_ms, offset) = newest?;
    answer(&header, offset, timestamp_ms)
}

fn answer(header: &BatchHeader, offset: i64, timestamp_ms: i64) -> Option<OffsetAndTimestamp> {
    let epoch = LeaderEpoch::new(header.partition_leader_epoch).unwrap_or_default();
    Some(OffsetAndTimestamp { offset: Offset::new(offset)?, timestamp_ms, epoch })
}
