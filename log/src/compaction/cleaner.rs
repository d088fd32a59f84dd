//! The cleaner of one data directory: which partition next, how fast, and what becomes of one that fails.
//!
//! Invariant: one pass at a time in a directory; closing the log ends it within one piece of I/O; a partition whose pass failed is
//! left alone for a while, one with damage until a restart. Neighbours: `threads` loops [`Directory::compaction_step`].

use super::PassError;
use super::pass::{Done, LastOfProducer, Pass};
use super::plan::{Due, Now, Plan, plan};
use super::swap::{Outcome, Swap, SwapRequest};
use crate::Partition;
use crate::directory::Directory;
use crate::segment::Segment;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A partition whose pass failed is left alone for so long.
const RETRY_AFTER_NS: u64 = 60_000_000_000;
/// Bytes are paid for with a pause when so many nanoseconds of them have gathered: not once per small piece.
const PAUSE_NS_MIN: u64 = 20_000_000;

/// The cleaner's own state.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// What a crash left of a pass was looked for.
    swept: bool,
    /// By handle: not before this (monotonic ns); never, while this process runs, for damage.
    waits: HashMap<u64, u64>,
}

/// Sums and gauges for [`crate::LogStats`].
#[derive(Debug, Default)]
pub(crate) struct CompactionCounters {
    pub(crate) passes: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) removed_bytes: AtomicU64,
    pub(crate) keyless_records: AtomicU64,
    pub(crate) ns: AtomicU64,
    /// Monotonic time at the end of the last pass, 0 before there was one.
    pub(crate) last_ns: AtomicU64,
    /// The dirtiest partition at the last look, in thousandths.
    pub(crate) dirty_permille_max: AtomicU64,
    /// Partitions that are left alone because of damage.
    pub(crate) uncleanable: AtomicU64,
}

/// How fast a pass may go, and whether it is to end.
pub(crate) struct Pace<'a> {
    bytes_per_second: Option<u64>,
    /// Waits so long, or until there is something to stop for; `true` to stop.
    pause: &'a dyn Fn(Duration) -> bool,
    owed_ns: AtomicU64,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(bytes_per_second: Option<u64>, pause: &'a dyn Fn(Duration) -> bool) -> Self {
        Self { bytes_per_second, pause, owed_ns: AtomicU64::new(0) }
    }

    /// Pays for bytes that are about to be read or written.
    pub(super) fn spend(&self, bytes: usize) -> Result<(), PassError> {
        let cost = self.bytes_per_second.map_or(0, |rate| {
            let ns = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
            u64::try_from(ns).unwrap_or(u64::MAX)
        });
        let owed = self.owed_ns.load(Ordering::Relaxed).saturating_add(cost);
        let due = if owed >= PAUSE_NS_MIN { owed } else { 0 };
        self.owed_ns.store(owed - due, Ordering::Relaxed);
        if (self.pause)(Duration::from_nanos(due)) { Err(PassError::Stopped) } else { Ok(()) }
    }
}

impl Directory {
    /// Compacts the partition that needs it most, if one does; `false` when none is due.
    pub(crate) fn compaction_step(&self, pause: &dyn Fn(Duration) -> bool) -> bool {
        let mut cleaner = self.cleaner.lock();
        if self.shared.is_offline() {
            return false;
        }
        let partitions = self.partitions();
        if !std::mem::replace(&mut cleaner.swept, true) {
            for partition in &partitions {
                partition.remove_leftovers();
            }
        }
        let now_ns = self.shared.clock.monotonic_ns();
        cleaner.waits.retain(|_, until| *until > now_ns);
        let Some((partition, plan)) = self.dirtiest(&partitions, &cleaner) else { return false };
        let counters = &self.shared.counters.compaction;
        match self.compact(&partition, plan, pause) {
            Ok(()) => {
                counters.passes.fetch_add(1, Ordering::Relaxed);
                counters.last_ns.store(self.shared.clock.monotonic_ns().max(1), Ordering::Relaxed);
            }
            Err(PassError::Stopped | PassError::Offline(_)) => return false,
            Err(PassError::Overtaken) => {}
            // Its folder was moved aside.
            Err(PassError::Disk { .. }) if partition.is_deleted() => {}
            Err(error @ PassError::Disk { .. }) => {
                tracing::warn!(?partition, %error, "compaction gave up; it is tried again later");
                counters.failures.fetch_add(1, Ordering::Relaxed);
                cleaner.waits.insert(partition.handle(), now_ns.saturating_add(RETRY_AFTER_NS));
            }
            Err(error @ PassError::Damaged { offset, .. }) => {
                tracing::error!(?partition, %error, "it is not compacted");
                partition.note_damage_at(offset, &error);
                counters.failures.fetch_add(1, Ordering::Relaxed);
                counters.uncleanable.fetch_add(1, Ordering::Relaxed);
                cleaner.waits.insert(partition.handle(), u64::MAX);
            }
        }
        let ns = self.shared.clock.monotonic_ns().saturating_sub(now_ns);
        counters.ns.fetch_add(ns, Ordering::Relaxed);
        true
    }

    fn now(&self) -> Now {
        Now {
            ms: self.shared.log_clock_ms.load(Ordering::Relaxed),
            trusted: self.node.may_delete(),
        }
    }

    /// What is due most: by lag first, then by how dirty it is.
    fn dirtiest(
        &self,
        partitions: &[Arc<Partition>],
        cleaner: &Cleaner,
    ) -> Option<(Arc<Partition>, Plan)> {
        self.node.tick_log_clock(&self.shared);
        let now = self.now();
        let mut best: Option<(Due, &Arc<Partition>, Plan)> = None;
        let mut dirty_max = 0;
        for partition in partitions {
            let settings = partition.settings();
            if !settings.cleanup.compacts() || cleaner.waits.contains_key(&partition.handle()) {
                continue;
            }
            let Some(plan) = plan(&partition.compaction_facts().1, &settings, now) else {
                continue;
            };
            dirty_max = dirty_max.max(u64::from(plan.dirty_permille));
            let Some(due) = plan.due else { continue };
            if best.as_ref().is_none_or(|(other, ..)| due > *other) {
                best = Some((due, partition, plan));
            }
        }
        self.shared.counters.compaction.dirty_permille_max.store(dirty_max, Ordering::Relaxed);
        best.map(|(_, partition, plan)| (Arc::clone(partition), plan))
    }

    /// One pass.
    fn compact(
        &self,
        partition: &Arc<Partition>,
        chosen: Plan,
        pause: &dyn Fn(Duration) -> bool,
    ) -> Result<(), PassError> {
        let options = self.node.options.compaction;
        let pace = Pace::new(options.bytes_per_second, pause);
        let settings = partition.settings();
        let now = self.now();
        // Once more, with the segments themselves: what changed since then changes the plan.
        let (segments, facts) = partition.compaction_facts();
        let Some(plan) = plan(&facts, &settings, now).filter(|p| p.due.is_some()) else {
            return Err(PassError::Overtaken);
        };
        let plan = Plan { due: plan.due.max(chosen.due), ..plan };
        let producers = partition.last_of_producers();
        let producers = producers
            .into_iter()
            .map(|(id, epoch, last_offset)| (id, LastOfProducer { epoch, last_offset }))
            .collect();
        let swap = |swap: Swap, segment: Arc<Segment>| self.swap(partition, swap, segment);
        let mut pass = Pass {
            partition,
            segments: segments[..plan.segments].to_vec(),
            facts: facts.segments[..plan.segments].to_vec(),
            plan,
            settings,
            options,
            now,
            producers,
            pace: &pace,
            swap: &swap,
            done: Done::default(),
        };
        let result = pass.run();
        let done = pass.done;
        let counters = &self.shared.counters.compaction;
        counters.read_bytes.fetch_add(done.read_bytes, Ordering::Relaxed);
        counters.written_bytes.fetch_add(done.written_bytes, Ordering::Relaxed);
        counters.removed_bytes.fetch_add(done.removed_bytes, Ordering::Relaxed);
        counters.keyless_records.fetch_add(done.keyless_records, Ordering::Relaxed);
        if let Err(PassError::Offline(reason)) = &result {
            self.shared.go_offline(reason.clone());
        }
        result?;
        partition.note_cleaned_to(done.cleaned_to);
        tracing::debug!(?partition, ?done, "compacted");
        Ok(())
    }

    /// Has the journal say that an output takes its inputs' place, and the committer carry it out.
    fn swap(
        &self,
        partition: &Arc<Partition>,
        swap: Swap,
        segment: Arc<Segment>,
    ) -> Result<(), PassError> {
        let folder = partition.folder();
        // Its name, before the journal speaks of it.
        match self.shared.disk.sync_dir(folder) {
            Err(_) if partition.is_deleted() => return Err(PassError::Overtaken),
            synced => synced
                .map_err(|e| PassError::Offline(format!("syncing {}: {e}", folder.display())))?,
        }
        let _pinned = partition.pin(&swap).ok_or(PassError::Overtaken)?;
        let request = Arc::new(SwapRequest::new(Arc::clone(partition), swap, segment));
        self.shared.controls.lock().swaps.push(Arc::clone(&request));
        loop {
            let stepped = self.committer.lock().step(self);
            match request.outcome() {
                Outcome::Done => {
                    partition.remove_inputs(&request.swap);
                    partition.seal_output(&request.segment);
                    return Ok(());
                }
                Outcome::Dropped => return Err(PassError::Overtaken),
                Outcome::Waiting => {}
            }
            if let Some(reason) = self.shared.offline() {
                return Err(PassError::Offline(reason));
            }
            if stepped {
                continue;
            }
            // No room for a cycle: what was not journalled can be taken back.
            let mut controls = self.shared.controls.lock();
            let before = controls.swaps.len();
            controls.swaps.retain(|other| !Arc::ptr_eq(other, &request));
            if controls.swaps.len() < before {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(PassError::Disk { path: folder.to_owned(), source });
            }
        }
    }
}
