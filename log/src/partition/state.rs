//! The state under a partition's short lock: the open batch and the tail of sealed ones.
//!
//! Invariant: the tail has no holes; in it, batches below `flushed` are in a segment, below `committed` are durable as the
//! topic promises, and the rest waits. Batches leave at the front only, and only below `flushed`.
//! Neighbours: `append` adds to it, `commit` moves its pointers on, `cut` takes them back, `read` serves from it.

use super::Loss;
use super::bulk::Bulk;
use super::epochs::Epochs;
use super::producers::Producers;
use super::replica::Replica;
use super::transactions::Verifications;
use crate::batch::marker::EndTransaction;
use crate::batch::{BatchBuilder, BatchHeader, Seal, sequence_plus};
use crate::segment::txnindex::AbortedTransaction;
use crate::{LeaderEpoch, Offset};
use bytes::Bytes;
use std::collections::VecDeque;

/// The slot of a node that runs alone.
const NODE_SLOT: i16 = 0;

/// A sealed batch.
#[derive(Debug, Clone)]
pub(crate) struct TailBatch {
    pub(crate) base: Offset,
    pub(crate) last: Offset,
    pub(crate) max_timestamp: i64,
    /// Node's sequence of its first record, if made here.
    pub(crate) node_sequence: Option<i32>,
    pub(crate) bytes: Bytes,
    /// Base offset of the segment it goes to; meaningful once committed.
    pub(crate) segment: Offset,
    pub(crate) stage: Stage,
}

/// How far a sealed batch is on its way to a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Sealed here; the next cycle decides whether it is compressed.
    Sealed,
    /// With the compressor: no cycle takes it.
    Compressing,
    /// Its bytes are final.
    Ready,
}

/// Memory that a batch in the tail takes beside its bytes, about.
const BATCH_COST_BYTES: usize = 128;

impl TailBatch {
    /// What it counts against the memory for tails.
    pub(crate) fn cost_bytes(&self) -> usize {
        self.bytes.len() + BATCH_COST_BYTES
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) open: BatchBuilder,
    pub(crate) open_base: Offset,
    pub(crate) open_sequence: i32,
    pub(crate) tail: VecDeque<TailBatch>,
    /// The log end: next offset to assign.
    pub(crate) end: Offset,
    pub(crate) committed: Offset,
    pub(crate) flushed: Offset,
    /// Bytes of sealed batches that wait for a commit.
    pub(crate) sealed_bytes: usize,
    /// Bytes of committed batches that wait for their segment.
    pub(crate) pending_bytes: usize,
    pub(crate) epochs: Epochs,
    /// As of the log end.
    pub(crate) producers: Producers,
    /// Transactions whose abort markers lie in the tail, or did a moment ago; further ones are with their segments.
    pub(crate) aborted: Vec<AbortedTransaction>,
    pub(crate) verifications: Verifications,
    pub(crate) node_sequence: i32,
    /// In the commit queue.
    pub(crate) queued: bool,
    /// While full: probe for room at this monotonic time.
    pub(crate) probe_at_ns: u64,
    /// An epoch given after a cut is used once this metadata record is synced.
    pub(crate) epoch_sequence: u64,
    /// Why the tail was last cut.
    pub(crate) loss: Loss,
    /// Why it takes no appends, when damaged.
    pub(crate) damage: Option<String>,
    pub(super) replica: Replica,
    pub(super) bulk: Bulk,
}

impl State {
    pub(crate) fn new(end: Offset, epochs: Epochs, producers: Producers, sequence: i32) -> Self {
        Self {
            open: BatchBuilder::new(),
            open_base: end,
            open_sequence: sequence,
            tail: VecDeque::new(),
            end,
            committed: end,
            flushed: end,
            sealed_bytes: 0,
            pending_bytes: 0,
            epochs,
            producers,
            aborted: Vec::new(),
            verifications: Verifications::default(),
            node_sequence: sequence,
            queued: false,
            probe_at_ns: 0,
            epoch_sequence: 0,
            loss: Loss::DiskFull,
            damage: None,
            replica: Replica::default(),
            bulk: Bulk::default(),
        }
    }

    /// Where the batches in memory begin.
    pub(crate) fn memory_start(&self) -> Offset {
        self.tail.front().map_or(self.flushed, |b| b.base.min(self.flushed))
    }

    /// Whether all from `from` on is in memory.
    pub(crate) fn reaches_back(&self, from: Offset) -> bool {
        from >= self.memory_start()
    }

    /// Bytes that wait for a commit.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.sealed_bytes + self.open.size_bytes()
    }

    /// Bytes of sealed batches that a cycle could take.
    pub(crate) fn ready_bytes(&self) -> usize {
        let waiting = self.tail.iter().skip(self.position(self.committed));
        waiting.take_while(|b| b.stage != Stage::Compressing).map(|b| b.bytes.len()).sum()
    }

    /// Seals the open batch, if there is one.
    pub(crate) fn seal(&mut self, epoch: LeaderEpoch) {
        let (records, max_timestamp) = (self.open.record_count(), self.open.max_timestamp_ms());
        let seal = Seal {
            base_offset: self.open_base,
            epoch,
            node_slot: NODE_SLOT,
            base_sequence: self.open_sequence,
        };
        let Some(bytes) = self.open.seal(seal) else { return };
        self.sealed_bytes += bytes.len();
        self.reserve_tail();
        self.tail.push_back(TailBatch {
            base: self.open_base,
            last: self.open_base.plus(records - 1),
            max_timestamp,
            node_sequence: Some(self.open_sequence),
            bytes,
            segment: Offset::ZERO,
            stage: Stage::Sealed,
        });
    }

    /// Whether a batch is with the compressor. The open batch stays open then, and grows.
    pub(crate) fn is_compressing(&self) -> bool {
        self.tail.back().is_some_and(|b| b.stage == Stage::Compressing)
    }

    /// Adds a batch that is placed already: a client's, or one read back from the journal.
    pub(crate) fn push_batch(&mut self, header: &BatchHeader, base: Offset, bytes: Bytes) {
        let records = header.last_offset_delta.unsigned_abs();
        self.sealed_bytes += bytes.len();
        let node_sequence = header.is_made_here().then_some(header.base_sequence);
        if node_sequence.is_some() {
            self.node_sequence = sequence_plus(header.last_sequence(), 1);
        }
        self.reserve_tail();
        self.tail.push_back(TailBatch {
            base,
            last: base.plus(records),
            max_timestamp: header.max_timestamp,
            node_sequence,
            bytes,
            segment: Offset::ZERO,
            stage: Stage::Ready,
        });
        self.end = base.plus(records).plus(1);
    }

    /// The first batch of an idle partition takes the room of one, not of the four that a list begins with by itself.
    fn reserve_tail(&mut self) {
        if self.tail.capacity() == 0 {
            self.tail.reserve_exact(1);
        }
    }

    /// Index of the first batch in the tail that ends beyond `offset`.
    ///
    /// Nearly always asked for a place near the end (what is not committed, not flushed, not read): looked for from there, in
    /// steps that double, because with many partitions each further batch that is looked at is a miss of the processor's cache.
    pub(crate) fn position(&self, offset: Offset) -> usize {
        let before = |i: usize| self.tail.get(i).is_some_and(|b| b.last < offset);
        let (mut end, mut step) = (self.tail.len(), 1);
        while end > 0 {
            let start = end.saturating_sub(step);
            if before(start) {
                // The first that is not `before` lies behind `start`, and at `end` at the latest.
                let between = self.tail.range(start..end);
                let (mut low, mut size) = (start, between.len());
                while size > 0 {
                    let half = size / 2;
                    if before(low + half) {
                        low += half + 1;
                        size -= half + 1;
                    } else {
                        size = half;
                    }
                }
                return low;
            }
            (end, step) = (start, step * 2);
        }
        0
    }

    /// Forgets everything that is not committed; returns how many bytes that was.
    pub(crate) fn cut(&mut self) -> usize {
        self.cut_to(self.committed).waiting_bytes
    }

    /// Takes the producers' state back after a cut: what the files hold, and what is left in the tail behind it.
    pub(crate) fn refold(&mut self, flushed: &Producers, now_ms: i64) {
        self.producers = flushed.clone();
        let end = self.end;
        self.aborted.retain(|txn| txn.last < end);
        for batch in self.tail.iter().skip(self.position(self.flushed)) {
            if batch.node_sequence.is_none() {
                self.producers.apply_stored(&batch.bytes, now_ms);
            }
        }
    }

    /// Takes a batch that was appended at `base` into the producers' state.
    pub(crate) fn note_producer(
        &mut self,
        header: &BatchHeader,
        base: Offset,
        end: Option<EndTransaction>,
        now_ms: i64,
    ) {
        self.aborted.extend(self.producers.apply(header, base, end, now_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_tail_is_found_from_its_end() {
        let o = |n: i64| Offset::new(n).expect("not negative");
        let (epochs, producers) = (Epochs::default(), Producers::default());
        let mut state = State::new(o(100), epochs, producers, 0);
        for batches in 0..40 {
            for offset in 90..100 + 3 * batches + 5 {
                let wanted = state.tail.iter().take_while(|b| b.last < o(offset)).count();
                assert_eq!(state.position(o(offset)), wanted, "{offset} in {batches} batches");
            }
            let base = o(100 + 3 * batches);
            state.tail.push_back(TailBatch {
                base,
                last: base.plus(2),
                max_timestamp: 0,
                node_sequence: None,
                bytes: Bytes::new(),
                segment: Offset::ZERO,
                stage: Stage::Ready,
            });
        }
    }
}
