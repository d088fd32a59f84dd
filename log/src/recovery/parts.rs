//! How long the parts of a recovery take: what a slow start is blamed on.
//!
//! Invariant: the laps of a stopwatch lie end to end, so that nothing between them goes uncounted.
//! Neighbours: [`super::read`] and [`super::replay`] do what is timed; [`crate::Recovery`] tells of it.

use crate::clock::Clock;
use std::ops::AddAssign;
use std::time::Duration;

/// Where the time of a recovery went, over all directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryParts {
    /// Superblock, lock and catalog read.
    pub catalog: Duration,
    /// The journal's chain walked and checked, metadata brought to its final state.
    pub ring: Duration,
    /// Partitions made from the catalog, batches applied again, files written and cut.
    pub replay: Duration,
    /// What was read made durable before anything is changed, and what was written before anything is served.
    pub sync: Duration,
}

impl AddAssign for RecoveryParts {
    fn add_assign(&mut self, other: Self) {
        self.catalog += other.catalog;
        self.ring += other.ring;
        self.replay += other.replay;
        self.sync += other.sync;
    }
}

/// Tells how long each of several things took that follow one another.
pub(super) struct Stopwatch<'a> {
    clock: &'a dyn Clock,
    last_ns: u64,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn new(clock: &'a dyn Clock) -> Self {
        Self { clock, last_ns: clock.monotonic_ns() }
    }

    /// The time since the last lap ended.
    pub(super) fn lap(&mut self) -> Duration {
        let now = self.clock.monotonic_ns();
        let before = std::mem::replace(&mut self.last_ns, now);
        Duration::from_nanos(now.saturating_sub(before))
    }
}
