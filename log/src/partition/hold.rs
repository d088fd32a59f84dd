//! Holds: what keeps retention from deleting records that somebody has still to see.
//!
//! Invariant: neither end of a hold ever goes back.
//! Neighbours: uplinks move it, `retention`, `space` and `compaction` stop at it.

use crate::Offset;
use crate::shared::Shared;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Holds retention back for one reader that must see every record, such as an uplink.
///
/// `checkpointed` is what retention respects; `reached` is what an `ack = "mirrored"` waits for.
#[derive(Debug)]
pub struct Hold {
    reached: AtomicI64,
    checkpointed: AtomicI64,
    /// Offsets that the reader will never have, first and end; the newest ones.
    passed_over: Mutex<VecDeque<(i64, i64)>>,
    shared: Arc<Shared>,
}

/// Ranges remembered: whoever waits for a record in an older one has long gone.
const PASSED_OVER_MAX: usize = 64;

impl Hold {
    pub(super) fn new(start: Offset, shared: &Arc<Shared>) -> Self {
        Self {
            reached: AtomicI64::new(start.get()),
            checkpointed: AtomicI64::new(start.get()),
            passed_over: Mutex::default(),
            shared: Arc::clone(shared),
        }
    }

    /// Next offset that the reader has not been acknowledged for by its target (exclusive end).
    #[must_use]
    pub fn reached(&self) -> Offset {
        Offset::new(self.reached.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// Moves `reached` forward (never back) and wakes those who wait. Call once per response, not per record.
    pub fn advance(&self, end: Offset) {
        if self.reached.fetch_max(end.get(), Ordering::AcqRel) < end.get() {
            self.shared.notify();
        }
    }

    /// Notes that the reader goes on behind `end` without the records from `first` on, which cannot be read or were deleted:
    /// nobody may be told that it has them. Call before [`Hold::advance`] passes them.
    pub fn pass_over(&self, first: Offset, end: Offset) {
        let mut ranges = self.passed_over.lock();
        if ranges.len() >= PASSED_OVER_MAX {
            ranges.pop_front();
        }
        ranges.push_back((first.get(), end.get()));
    }

    /// Whether the reader went on without this record.
    #[must_use]
    pub fn has_passed_over(&self, offset: Offset) -> bool {
        let ranges = self.passed_over.lock();
        ranges.iter().any(|(first, end)| (*first..*end).contains(&offset.get()))
    }

    /// What the reader's durable checkpoint says (exclusive end).
    #[must_use]
    pub fn checkpointed(&self) -> Offset {
        Offset::new(self.checkpointed.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// Moves `checkpointed` forward (never back). Call only after the checkpoint record is synced.
    pub fn checkpoint(&self, end: Offset) {
        self.checkpointed.fetch_max(end.get(), Ordering::AcqRel);
    }
}
