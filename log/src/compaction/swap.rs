//! A swap: one finished output takes the place of adjacent segments, at once for readers and for every crash.
//!
//! Body of journal frame 7, little-endian:
//!
//! | byte | field |
//! |---|---|
//! | 0 | number u64 of the swap in its partition, one more than the one before |
//! | 8 | bytes u64 of the output; its base is the first input's |
//! | 16 | its max timestamp i64, base offset of the batch that has it i64, last append i64, first append i64 (as in the catalog) |
//! | 48 | horizon i64: when its tombstones may go, `i64::MIN` for none |
//! | 56 | u32 count of inputs, (base i64, bytes u64) each |
//! | .. | u32 count of aborted transactions that its transaction index names, (producer id, first, last, last stable) i64 each |
//!
//! Section 3 of a partition in the catalog: number u64 of the last swap that the segments above stand for; cleaned to i64; u32
//! count of segments that have something to say: base i64, flags u8 (1: sparse), horizon i64.
//!
//! In order: the output is written as `<base>.<number>.cleaned` and synced, its folder too; the frame is synced; then, by the
//! committer, the first input's hints are removed, the output is renamed over it, the list of segments changes; then, by the
//! cleaner, the other inputs' files are removed, which nobody opens any more. The folder is synced by the next checkpoint, which is
//! the first that does not need the frame.
//! The number is what tells a frame that the catalog has overtaken from one that is still to be carried out: files are never
//! asked whether they look swapped when the catalog knows. The output needs no CRC of its own: it was synced before the frame,
//! and its batches have theirs.
//!
//! Invariant: an output's name is used once, so what is found under it after a crash is that output or nothing.
//! Neighbours: `pass` makes outputs, `commit` journals and calls, `recovery` finishes, `partition::compacted` does the files.

use crate::catalog::SegmentEntry;
use crate::encoding::{Fields, Put};
use crate::partition::SEGMENT_BYTES_LIMIT;
use crate::segment::Segment;
use crate::{AbortedTransaction, Offset, Partition};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What a name of an output ends with.
pub(crate) const CLEANED: &str = ".cleaned";

/// The name of an output until it takes its inputs' place.
pub(crate) fn cleaned_path(folder: &Path, base: Offset, number: u64) -> PathBuf {
    folder.join(format!("{:020}.{number:x}{CLEANED}", base.get()))
}

/// A swap, as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) number: u64,
    /// Base and bytes of each.
    pub(crate) inputs: Vec<(i64, u64)>,
    pub(crate) output: SegmentEntry,
    pub(crate) horizon_ms: Option<i64>,
    pub(crate) aborted: Vec<AbortedTransaction>,
}

const NO_HORIZON: i64 = i64::MIN;

impl Swap {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.number);
        out.put_u64(self.output.bytes);
        out.put_i64(self.output.max_timestamp);
        out.put_i64(self.output.max_timestamp_base);
        out.put_i64(self.output.last_append_ms);
        out.put_i64(self.output.first_append_ms);
        out.put_i64(self.horizon_ms.unwrap_or(NO_HORIZON));
        out.put_u32(self.inputs.len() as u32);
        for (base, bytes) in &self.inputs {
            out.put_i64(*base);
            out.put_u64(*bytes);
        }
        out.put_u32(self.aborted.len() as u32);
        for aborted in &self.aborted {
            out.put_i64(aborted.producer_id);
            out.put_i64(aborted.first.get());
            out.put_i64(aborted.last.get());
            out.put_i64(aborted.last_stable.get());
        }
    }

    /// `None` for anything that was not written whole by [`Swap::encode`].
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut f = Fields::new(bytes);
        let number = f.number()?;
        let mut output = SegmentEntry {
            base: 0,
            bytes: f.u64().filter(|bytes| *bytes <= SEGMENT_BYTES_LIMIT)?,
            max_timestamp: f.i64()?,
            max_timestamp_base: f.i64()?,
            last_append_ms: f.i64()?,
            first_append_ms: f.i64()?,
        };
        let horizon_ms = Some(f.i64()?).filter(|ms| *ms != NO_HORIZON);
        let count = f.count(16)?;
        let mut inputs = Vec::with_capacity(count);
        for _ in 0..count {
            inputs.push((f.i64().filter(|base| *base >= 0)?, f.u64()?));
        }
        output.base = inputs.first()?.0;
        let count = f.count(32)?;
        let mut aborted = Vec::with_capacity(count);
        for _ in 0..count {
            let producer_id = f.i64()?;
            let (first, last) = (Offset::new(f.i64()?)?, Offset::new(f.i64()?)?);
            let last_stable = Offset::new(f.i64()?)?;
            aborted.push(AbortedTransaction { producer_id, first, last, last_stable });
        }
        let rising = inputs.is_sorted_by(|a, b| a.0 < b.0);
        (rising && f.rest().is_empty()).then_some(Self {
            number,
            inputs,
            output,
            horizon_ms,
            aborted,
        })
    }

    /// Where its inputs stand in a list of segments, whole and side by side, and none of them the active one.
    pub(crate) fn place_in(&self, segments: &[Arc<Segment>]) -> Option<usize> {
        let first = segments.iter().position(|s| s.base().get() == self.output.base)?;
        let found = segments.get(first..first + self.inputs.len())?;
        let same = found
            .iter()
            .zip(&self.inputs)
            .all(|(s, (base, bytes))| s.base().get() == *base && s.written() == *bytes);
        (same && first + self.inputs.len() < segments.len()).then_some(first)
    }
}

/// A swap on its way through the committer.
#[derive(Debug)]
pub(crate) struct SwapRequest {
    pub(crate) partition: Arc<Partition>,
    pub(crate) swap: Swap,
    pub(crate) segment: Arc<Segment>,
    outcome: AtomicU8,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Outcome {
    Waiting = 0,
    Done = 1,
    /// Its inputs are no longer what they were.
    Dropped = 2,
}

impl SwapRequest {
    pub(crate) fn new(partition: Arc<Partition>, swap: Swap, segment: Arc<Segment>) -> Self {
        Self { partition, swap, segment, outcome: AtomicU8::new(Outcome::Waiting as u8) }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match self.outcome.load(Ordering::Acquire) {
            1 => Outcome::Done,
            2 => Outcome::Dropped,
            _ => Outcome::Waiting,
        }
    }

    pub(crate) fn set_outcome(&self, outcome: Outcome) {
        self.outcome.store(outcome as u8, Ordering::Release);
    }
}

/// What the catalog keeps of a partition's compaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CompactedEntry {
    pub(crate) swaps: u64,
    pub(crate) cleaned_to: i64,
    /// Base, sparse, horizon.
    pub(crate) segments: Vec<(i64, bool, Option<i64>)>,
}

const FLAG_SPARSE: u8 = 1;

impl CompactedEntry {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.swaps);
        out.put_i64(self.cleaned_to);
        out.put_u32(self.segments.len() as u32);
        for (base, sparse, horizon_ms) in &self.segments {
            out.put_i64(*base);
            out.put_u8(if *sparse { FLAG_SPARSE } else { 0 });
            out.put_i64(horizon_ms.unwrap_or(NO_HORIZON));
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut f = Fields::new(bytes);
        let (swaps, cleaned_to) = (f.number()?, f.i64().filter(|offset| *offset >= 0)?);
        let count = f.count(17)?;
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            let (base, flags) = (f.i64()?, f.u8()?);
            let horizon_ms = Some(f.i64()?).filter(|ms| *ms != NO_HORIZON);
            segments.push((base, flags & FLAG_SPARSE != 0, horizon_ms));
        }
        f.rest().is_empty().then_some(Self { swaps, cleaned_to, segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_sections_read_back_and_nothing_else_does() {
        let output = SegmentEntry {
            base: 10,
            bytes: 300,
            max_timestamp: 7,
            max_timestamp_base: 12,
            last_append_ms: 9,
            first_append_ms: 8,
        };
        let o = |n| Offset::new(n).unwrap();
        let (first, last, last_stable) = (o(11), o(15), o(10));
        let aborted = AbortedTransaction { producer_id: 4, first, last, last_stable };
        let swap = Swap {
            number: 3,
            inputs: vec![(10, 400), (20, 100)],
            output,
            horizon_ms: Some(0),
            aborted: vec![aborted],
        };
        let mut bytes = Vec::new();
        swap.encode(&mut bytes);
        assert_eq!(Swap::decode(&bytes), Some(swap.clone()));
        for end in 0..bytes.len() {
            assert_eq!(Swap::decode(&bytes[..end]), None);
        }
        let mut none = Vec::new();
        Swap { inputs: vec![], ..swap }.encode(&mut none);
        assert_eq!(Swap::decode(&none), None);

        let entry = CompactedEntry {
            swaps: 3,
            cleaned_to: 20,
            segments: vec![(10, true, None), (20, false, Some(5))],
        };
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!(CompactedEntry::decode(&bytes), Some(entry));
        for end in 0..bytes.len() {
            assert_eq!(CompactedEntry::decode(&bytes[..end]), None);
        }
    }
}
