//! The one reader (step 11): from memory at the tail, from verified segment bytes elsewhere.
//!
//! Invariant: nothing at or above the reader's limit is returned, and nothing whose CRC does not match.
//! Neighbours: `segment::read` reads one file, `lost` knows the gaps, `transactions` what was aborted.

use super::state::State;
use super::{Condition, Partition, Positions, ReadError, ReadLimit, ReadOutcome};
use crate::Offset;
use crate::batch::BatchError;
use crate::segment::read::{Damage, Read, Reading};
use crate::segment::{Segment, path};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

impl ReadLimit {
    pub(super) fn of(self, positions: &Positions) -> Offset {
        match self {
            Self::HighWatermark => positions.high_watermark,
            Self::LastStable => positions.last_stable,
            Self::SyncedAndStable => positions.last_stable.min(positions.synced),
            Self::Written => positions.written,
        }
    }
}

impl Partition {
    /// Reads whole batches from `from`, at most `bytes_max` of them but at least one, up to `limit`. Served from memory at the
    /// tail (never blocks there); from the files otherwise: call it from a thread that may block, or ask
    /// [`Partition::is_in_memory`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(
        &self,
        from: Offset,
        bytes_max: usize,
        limit: ReadLimit,
    ) -> Result<ReadOutcome, ReadError> {
        let state = self.state.lock();
        let positions = self.check(&state, from)?;
        let end = limit.of(&positions);
        if from >= end {
            let (batches, aborted) = (Vec::new(), Vec::new());
            return Ok(ReadOutcome { batches, positions, next: from, aborted });
        }
        if let Some((batches, next)) = from_tail(&state, from, end, bytes_max) {
            let aborted = match limit {
                ReadLimit::HighWatermark => Vec::new(),
                _ => self.aborted_in_tail(&state, from, next),
            };
            return Ok(ReadOutcome { batches, positions, next, aborted });
        }
        drop(state);
        let end = self.before_lost(from, end)?;
        loop {
            let segments = self.segments.read().clone();
            let (batches, next) = self.read_segments(from, end, bytes_max)?;
            let aborted = match limit {
                ReadLimit::HighWatermark => Vec::new(),
                _ => self.aborted(from, next)?,
            };
            // A segment that was removed or replaced meanwhile took its list with it.
            if limit == ReadLimit::HighWatermark
                || same_segments(&segments, &self.segments.read(), from, next)
            {
                return Ok(ReadOutcome { batches, positions, next, aborted });
            }
        }
    }

    pub(super) fn check(&self, state: &State, offset: Offset) -> Result<Positions, ReadError> {
        if self.condition() == Condition::Deleted {
            return Err(ReadError::Deleted);
        }
        self.check_present()?;
        let positions = self.positions_locked(state);
        if offset < positions.log_start || offset > positions.log_end {
            let (log_start, log_end) = (positions.log_start, positions.log_end);
            return Err(ReadError::OutOfRange { offset, log_start, log_end });
        }
        Ok(positions)
    }

    fn read_segments(
        &self,
        from: Offset,
        limit: Offset,
        bytes_max: usize,
    ) -> Result<(Vec<Bytes>, Offset), ReadError> {
        let (mut batches, mut next, mut bytes) = (Vec::new(), from, 0);
        // Each round ends a segment, so this ends with the last one.
        while next < limit && bytes < bytes_max.max(1) {
            let Some((segment, behind)) = self.segment_of(next) else { break };
            let left = bytes_max.saturating_sub(bytes);
            let read = match self.read_segment(&segment, behind, |r| r.read(next, limit, left)) {
                Ok(read) => read,
                Err(_) if !batches.is_empty() => break,
                Err(e) => return Err(e),
            };
            match read {
                Read::Batches(found, end) => {
                    if found.is_empty() {
                        if end <= next {
                            break;
                        }
                        // Compaction left nothing here.
                        next = end;
                        continue;
                    }
                    // A further segment's first batch may be larger than what is left.
                    let size: usize = found.iter().map(Bytes::len).sum();
                    if !batches.is_empty() && bytes + size > bytes_max {
                        break;
                    }
                    bytes += size;
                    next = end;
                    batches.extend(found);
                }
                Read::Damaged(_) if !batches.is_empty() => break,
                Read::Damaged(damage) => return Err(self.damaged(&segment, next, damage)),
            }
        }
        if batches.is_empty() && next == from {
            // Below the limit there is always a batch, unless retention has just taken it, or it is lost.
            self.check(&self.state.lock(), from)?;
            let Some((segment, _)) = self.segment_of(from) else {
                return self.before_the_first(from);
            };
            let byte = segment.written();
            let damage = Damage { byte, reason: BatchError::Short, next_good: None };
            return Err(self.damaged(&segment, from, damage));
        }
        Ok((batches, next))
    }

    /// Offsets below the first segment: none is there yet, or the one that had them is gone.
    fn before_the_first(&self, from: Offset) -> Result<(Vec<Bytes>, Offset), ReadError> {
        let first = self.segments.read().first().cloned();
        match first {
            Some(first) if first.base() > from => {
                let next_good = Some(first.base());
                let damage = Damage { byte: 0, reason: BatchError::Short, next_good };
                Err(self.damaged(&first, from, damage))
            }
            _ => Ok((Vec::new(), from)),
        }
    }

    /// The segment that has `offset`, and the base of the one behind it, if there is one.
    pub(super) fn segment_of(&self, offset: Offset) -> Option<(Arc<Segment>, Option<Offset>)> {
        let segments = self.segments.read();
        let next = segments.partition_point(|s| s.base() <= offset);
        let segment = segments.get(next.checked_sub(1)?)?;
        Some((Arc::clone(segment), segments.get(next).map(|s| s.base())))
    }

    /// Runs `read` on an open segment. A segment that retention has just removed shows as out of range.
    pub(super) fn read_segment<T>(
        &self,
        segment: &Arc<Segment>,
        next: Option<Offset>,
        read: impl FnOnce(&Reading<'_>) -> io::Result<T>,
    ) -> Result<T, ReadError> {
        let (mut segment, mut next) = (Arc::clone(segment), next);
        let file = loop {
            let file = self.open_segment(&segment);
            // Compaction may have put another file under its name since it was looked up.
            if !segment.is_retired() {
                break file;
            }
            match self.segment_of(segment.base()) {
                Some((there, _)) if Arc::ptr_eq(&there, &segment) => break file,
                Some((there, behind)) => (segment, next) = (there, behind),
                None => break Err(io::ErrorKind::NotFound.into()),
            }
        };
        let answer = file.and_then(|file| {
            read(&Reading {
                segment: &segment,
                file: &*file,
                indexes: &self.shared.indexes,
                folder: &self.folder,
                next,
            })
        });
        answer.map_err(|e| {
            // Its base may lie below the log start and what is read above it: only one that lies below whole is gone.
            let last = next.map_or(i64::MAX, |next| next.get() - 1);
            let start = Offset::new(self.log_start().get().min(last)).unwrap_or_default();
            if let Err(gone) = self.check(&self.state.lock(), segment.base().max(start)) {
                return gone;
            }
            let file = path(&self.folder, segment.base(), "log").display().to_string();
            ReadError::Io { file, error: e.to_string() }
        })
    }

    /// Opens the segment that has `from`, lets something happen, and says how many of its batches it can read then.
    #[cfg(test)]
    pub(crate) fn read_while(&self, from: Offset, happens: &dyn Fn()) -> usize {
        let (segment, next) = self.segment_of(from).expect("it has a segment");
        let mut batches = 0;
        let read = self.read_segment(&segment, next, |reading| {
            happens();
            reading.batches(|_| {
                batches += 1;
                Ok(true)
            })
        });
        read.expect("it is open");
        batches
    }

    fn damaged(&self, segment: &Arc<Segment>, first: Offset, damage: Damage) -> ReadError {
        // Behind a damaged end of a segment the next segment begins.
        let behind = {
            let segments = self.segments.read();
            let next = segments.partition_point(|s| s.base() <= segment.base());
            segments.get(next).map(|s| s.base())
        };
        let Positions { high_watermark: end, log_end, .. } = self.positions();
        let here = |next: &Offset| *next > first && *next <= behind.unwrap_or(log_end);
        let next_good = damage.next_good.filter(here).or(behind);
        let next_good = next_good.or_else(|| {
            let state = self.state.lock();
            state.tail.front().map(|b| b.base).filter(|base| *base > first)
        });
        // Nothing behind it at all: what comes next comes after everything there was.
        let next_good = next_good.or(Some(end)).filter(|next| *next > first);
        let file = path(&self.folder, segment.base(), "log").display().to_string();
        let (byte, reason) = (damage.byte, damage.reason);
        let error = ReadError::Damaged { file, byte, reason, first, next_good };
        let end = next_good.unwrap_or(first.plus(1));
        self.shared.damage.note(self.handle, first.get(), end.get(), || error.to_string());
        error
    }

    /// Whether a read from this offset is served from memory (no disk access).
    #[must_use]
    pub fn is_in_memory(&self, from: Offset) -> bool {
        self.state.lock().reaches_back(from)
    }
}

/// Whether the segments that hold `from..next` are the same in both lists.
fn same_segments(
    before: &[Arc<Segment>],
    now: &[Arc<Segment>],
    from: Offset,
    next: Offset,
) -> bool {
    let held = |all: &[Arc<Segment>]| {
        let first = all.partition_point(|s| s.base() <= from).saturating_sub(1);
        let end = all.partition_point(|s| s.base() < next);
        all.get(first..end).unwrap_or_default().to_vec()
    };
    let (before, now) = (held(before), held(now));
    before.len() == now.len() && before.iter().zip(&now).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// Batches from the tail, if it reaches back to `from`.
fn from_tail(
    state: &State,
    from: Offset,
    limit: Offset,
    bytes_max: usize,
) -> Option<(Vec<Bytes>, Offset)> {
    if !state.reaches_back(from) {
        return None;
    }
    let (mut batches, mut bytes, mut next) = (Vec::new(), 0, from);
    for batch in state.tail.iter().skip(state.position(from)) {
        let over = bytes + batch.bytes.len() > bytes_max && !batches.is_empty();
        if batch.last >= limit || over {
            break;
        }
        bytes += batch.bytes.len();
        next = batch.last.plus(1);
        batches.push(batch.bytes.clone());
    }
    Some((batches, next))
}
