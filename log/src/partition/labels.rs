//! Reading by label: what a reader that is owed few records of many can pass over.
//!
//! Invariant: what is passed over was found, in an index of all of it, to have none of the labels; where there is no such index
//! everything is read.
//! Neighbours: `segment::labels` has the index, `retention` builds it after sealing, sessions that catch up ask.

use super::{Partition, Positions, ReadError, ReadLimit};
use crate::Offset;
use crate::segment::Segment;
use crate::segment::labels::LabelHash;
use std::sync::{Arc, Weak};

/// Sealed segments that wait for their label index; of what is more the index is built by its first reader.
const WAITING_MAX: usize = 4_096;

/// Where a reader that looks for labels goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labelled {
    /// No record from where it asked to here has one of the labels. At the limit: there is nothing more now.
    pub next: Offset,
    /// Records from `next` to here (exclusive) may have one; what is behind is worth asking for again.
    pub until: Offset,
}

impl Partition {
    /// Where a reader at `from` that only wants records with one of these labels goes on, below `limit`. Blocks: an index
    /// may have to be read, or built from its segment.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_with_labels(
        &self,
        from: Offset,
        labels: &[LabelHash],
        limit: ReadLimit,
    ) -> Result<Labelled, ReadError> {
        let positions = self.check(&self.state.lock(), from)?;
        let Positions { log_start, .. } = positions;
        let limit = limit.of(&positions).max(from);
        let mut next = from.max(log_start);
        // Each round passes a segment, or is the last.
        while next < limit {
            let Some((segment, Some(behind))) = self.segment_of(next) else {
                return Ok(Labelled { next, until: limit });
            };
            if !segment.is_sealed() {
                return Ok(Labelled { next, until: behind.min(limit) });
            }
            let base = segment.base();
            let found = self.read_segment(&segment, Some(behind), |reading| {
                let Some(labels_of) = self.shared.labels.of(reading)? else {
                    return Ok(Some((next.get() - base.get(), None)));
                };
                Ok(labels_of.next(next.get() - base.get(), labels))
            })?;
            let at = |relative: i64| Offset::new(base.get() + relative).unwrap_or(behind);
            if let Some((first, end)) = found {
                let until = end.map_or(behind, at).min(limit);
                // Both are in this segment, or the index lies and the segment is read.
                let first = Some(at(first)).filter(|f| *f >= next && *f < behind).unwrap_or(next);
                return Ok(Labelled { next: first.min(limit), until: until.max(first.min(limit)) });
            }
            next = behind;
        }
        Ok(Labelled { next: limit, until: limit })
    }

    /// Lets the upkeep build the label index of a segment that is sealed now.
    pub(crate) fn label_later(&self, segment: &Arc<Segment>) {
        if self.shared.labels.is_on() {
            let mut waiting = self.shared.unlabelled.lock();
            if waiting.len() < WAITING_MAX {
                waiting.push_back((Weak::clone(&self.me), Arc::downgrade(segment)));
            }
        }
    }

    /// Builds the label index of a sealed segment, if it has none; the bytes that were read for it.
    pub(crate) fn label(&self, segment: &Arc<Segment>) -> Result<u64, ReadError> {
        let base = segment.base();
        let Some((found, Some(behind))) = self.segment_of(base) else { return Ok(0) };
        // Another has its place by now.
        if !Arc::ptr_eq(&found, segment) || !segment.is_sealed() {
            return Ok(0);
        }
        self.read_segment(segment, Some(behind), |reading| {
            self.shared.labels.of(reading).map(drop)
        })?;
        Ok(segment.written())
    }
}
