//! A partition's side of compressing: which sealed batches go to the compressor, and what comes back.
//!
//! Invariant: only a batch sealed here is changed, and only while no cycle has taken it.
//! Neighbours: `crate::compressor` does the work, `commit` stops in front of a batch that is away.

use super::Partition;
use super::state::{Stage, State};
use crate::batch::compression::{Codec, Compression};
use crate::compressor::Job;
use bytes::Bytes;
use std::sync::atomic::Ordering;

/// Batches below this stay as they are: one small record does not become smaller.
const BATCH_BYTES_MIN: usize = 512;

impl Partition {
    /// Hands the batches that were sealed since the last cycle to the compressor; those that it does not take are ready.
    pub(super) fn offer_sealed(&self, state: &mut State, compression: Compression) {
        let committed = state.committed;
        let counters = &self.shared.counters;
        // Oldest first: they come back in that order.
        let from = state.position(committed);
        for batch in state.tail.iter_mut().skip(from).filter(|b| b.stage == Stage::Sealed) {
            batch.stage = Stage::Ready;
            if compression.codec == Codec::None || batch.bytes.len() < BATCH_BYTES_MIN {
                continue;
            }
            let Some(partition) = self.me.upgrade() else { continue };
            let job = Job { partition, plain: batch.bytes.clone(), compression };
            if self.shared.compressor.offer(job) {
                batch.stage = Stage::Compressing;
            } else {
                counters.compress_skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A batch came back: `small` in its place, or `plain` as it was when that is no smaller. It may have been cut meanwhile.
    pub(crate) fn take_compressed(&self, plain: &Bytes, small: Option<Bytes>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // By its memory, which the compressor has kept: after a cut another batch may have its offsets.
        let batch = state.tail.iter_mut().rev().find(|b| {
            b.stage == Stage::Compressing
                && b.bytes.as_ptr() == plain.as_ptr()
                && b.bytes.len() == plain.len()
        });
        let Some(batch) = batch else { return };
        batch.stage = Stage::Ready;
        let small = small.unwrap_or_else(|| plain.clone());
        let counters = &self.shared.counters;
        counters.compress_plain_bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
        counters.compress_stored_bytes.fetch_add(small.len() as u64, Ordering::Relaxed);
        let saved = plain.len() - small.len();
        batch.bytes = small;
        state.sealed_bytes -= saved;
        self.shared.uncommitted_bytes.fetch_sub(saved, Ordering::Relaxed);
        let join = !std::mem::replace(&mut state.queued, true);
        if join {
            self.join_queue();
        }
    }
}
