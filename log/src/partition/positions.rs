//! The log pointers of a partition, and whether a position has passed one (ARCHITECTURE.md has them in their order).
//!
//! Invariant: a waiter that sees a pointer pass sees the epoch it belongs to as well, so that no record is taken for another that
//! had its offset before.
//! Neighbours: `commit` moves most of them, `replica` the high watermark of a replica, `lookup` the log start.

use super::state::State;
use super::{Condition, Partition};
use crate::{LeaderEpoch, Offset, Position};
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

/// The pointers that waiters look at without a lock. Each is stored after the epoch it belongs to.
#[derive(Debug, Default)]
pub(super) struct Points {
    pub(super) log_start: AtomicI64,
    /// The log start that the journal has synced: files below it may go.
    pub(super) log_start_synced: AtomicI64,
    pub(super) log_end: AtomicI64,
    pub(super) written: AtomicI64,
    pub(super) synced: AtomicI64,
    pub(super) high_watermark: AtomicI64,
    pub(super) epoch: AtomicI32,
}

/// The log pointers of a partition, at one moment: `log_start <= high_watermark <= log_end`,
/// `synced <= written <= log_end`. Ends are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// First offset that can be read.
    pub log_start: Offset,
    /// Next offset to be assigned.
    pub log_end: Offset,
    /// Written to the kernel up to here (survives a crash of the process).
    pub written: Offset,
    /// Synced up to here (survives a crash of the machine).
    pub synced: Offset,
    /// Readers see up to here.
    pub high_watermark: Offset,
    /// Readers of committed data see up to here: where the earliest transaction begins that is open, or whose end is not yet
    /// below the high watermark and synced; else the high watermark.
    pub last_stable: Offset,
    /// The current leader epoch.
    pub epoch: LeaderEpoch,
}

/// What a reader may see (ARCHITECTURE.md, invariant 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLimit {
    /// Kafka's read_uncommitted.
    HighWatermark,
    /// MQTT subscribers, connectors, Kafka's read_committed.
    LastStable,
    /// The uplink: the last stable offset, and synced.
    SyncedAndStable,
    /// Followers: all that is written here, above the high watermark too.
    Written,
}

/// What a waiter waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckPoint {
    /// Assigned an offset.
    Appended,
    /// Written to the kernel: Kafka's acks=1.
    Written,
    /// Synced here.
    Synced,
    /// Below the high watermark: Kafka's acks=all, a route's default.
    HighWatermark,
}

/// Whether a waited-for position was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Not yet.
    Waiting,
    /// Reached: acknowledge.
    Passed,
    /// Never will be: do not acknowledge.
    Lost(Loss),
}

/// Why a position will never be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The disk is full: the tail was cut before it was committed. Room may come.
    DiskFull,
    /// The directory is offline after an I/O error; a restart is needed.
    Offline,
    /// The topic was deleted.
    Deleted,
    /// This replica does not lead any more: whether the record stays is decided elsewhere.
    Fenced,
    /// The log was truncated below it: the leader does not have the record.
    Truncated,
}

impl Partition {
    /// All pointers at one moment.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.positions_locked(&self.state.lock())
    }

    pub(super) fn positions_locked(&self, state: &State) -> Positions {
        let point = |p: &AtomicI64| Offset::new(p.load(Ordering::Acquire)).unwrap_or_default();
        let high_watermark = point(&self.points.high_watermark);
        let log_start = point(&self.points.log_start);
        // What was deleted of an open transaction can never be shown: its rest begins at the log start.
        let unstable = state.producers.first_unstable(self.decided_end());
        let last_stable =
            unstable.map_or(high_watermark, |first| first.max(log_start).min(high_watermark));
        Positions {
            log_start,
            log_end: point(&self.points.log_end),
            written: point(&self.points.written),
            synced: point(&self.points.synced),
            high_watermark,
            last_stable,
            epoch: self.epoch(),
        }
    }

    /// Whether the record at `position` has passed `point`. Cheap (a few atomic loads): for waiters that are woken once per cycle.
    #[must_use]
    pub fn settled(&self, point: AckPoint, position: Position) -> Settled {
        let at = match point {
            AckPoint::Appended => &self.points.log_end,
            AckPoint::Written => &self.points.written,
            AckPoint::Synced => &self.points.synced,
            AckPoint::HighWatermark => &self.points.high_watermark,
        };
        // The pointer before the epoch: a pointer that counts records of a newer epoch is seen with that epoch.
        let passed = position.offset.get() < at.load(Ordering::Acquire);
        if self.points.epoch.load(Ordering::Acquire) != position.epoch.get()
            && let Some(loss) = self.cut_off(position)
        {
            return Settled::Lost(loss);
        }
        if passed {
            return Settled::Passed;
        }
        match self.condition() {
            Condition::Deleted => Settled::Lost(Loss::Deleted),
            Condition::Missing => Settled::Lost(Loss::Offline),
            _ if self.shared.is_offline() => Settled::Lost(Loss::Offline),
            _ => self.fenced(point, position).map_or(Settled::Waiting, Settled::Lost),
        }
    }

    /// Why a position of an older epoch names no record any more, if its epoch's tail was cut below it.
    fn cut_off(&self, position: Position) -> Option<Loss> {
        if position.offset < self.log_start() {
            return None;
        }
        let state = self.state.lock();
        let end = state.epochs.end_of(position.epoch, self.log_start(), state.end);
        let there =
            end.is_some_and(|(epoch, end)| epoch == position.epoch && position.offset < end);
        (!there).then(|| state.loss.clone())
    }

    pub(super) fn epoch(&self) -> LeaderEpoch {
        LeaderEpoch::new(self.points.epoch.load(Ordering::Acquire)).unwrap_or_default()
    }

    pub(crate) fn log_start(&self) -> Offset {
        Offset::new(self.points.log_start.load(Ordering::Acquire)).unwrap_or_default()
    }

    pub(crate) fn high_watermark(&self) -> Offset {
        Offset::new(self.points.high_watermark.load(Ordering::Acquire)).unwrap_or_default()
    }
}
