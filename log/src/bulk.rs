//! Bulk: what waits in megabytes for one partition goes straight to its segment, and the journal gets an entry about it.
//!
//! Through the journal every byte is written twice; in bulk once, at the price of a second sync. In order:
//!
//! 1. a cycle that finds `bulk_bytes` waiting for a partition takes batches of up to 8 MiB, gives them their place in the
//!    segment and reserves the room, as for any other, and hands them over; the partition gives nothing to other cycles;
//! 2. on a thread of its own: what was committed before goes to the page cache, the batches behind it, file and names are
//!    synced;
//! 3. the next cycle has an extent (journal frame 8) that says where they lie and what their CRC is; when it is synced they are
//!    committed like any other batches, and the partition goes on.
//!
//! Until 3 nothing refers to the bytes. A crash leaves them beyond the end of a file that is then cut, or in a file that nobody
//! knows, which is removed: the catalog says of which partitions that may be so, and none is taken in bulk before it does.
//! A recovery applies an extent in its turn, as it does batches, once the bytes are found to be those that were synced. Since
//! they are nowhere else, it keeps the layout that they lie in (`partition::writer`), and takes them where they are.
//!
//! Not in bulk: `memory` topics (no journal), internal ones (small, and they may use the room that is kept back), and replicated
//! partitions (a truncation cuts files, in which an extent may lie behind the cut).
//!
//! Invariant: an extent is journalled only when its bytes and the names that lead to them are synced; after a failed sync the
//! directory is offline.
//! Neighbours: `commit` queues and journals, `partition::bulk` does the files, `threads` runs it, `recovery::replay` reads back.

use crate::journal::cycle::Extent;
use crate::partition::{Partition, PlanError, Taken};
use crate::shared::Shared;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Batches of one partition on their way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) taken: Taken,
    began_ns: u64,
    /// Held while they are written.
    stage: Mutex<Stage>,
}

#[derive(Debug, Clone)]
pub(crate) enum Stage {
    Waiting,
    /// To be journalled.
    Synced(Vec<Extent>),
    /// There was no room after all.
    Full,
    /// A truncation came first: they wait for another cycle, as far as they are left.
    Cancelled,
}

impl Job {
    pub(crate) fn partition(&self) -> &Arc<Partition> {
        &self.taken.partition
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage.lock().clone()
    }

    /// Ends it before its cycle. If it is being written, that ends first; nothing is written afterwards.
    pub(crate) fn cancel(&self) {
        *self.stage.lock() = Stage::Cancelled;
    }
}

/// The jobs of one directory, in their order.
#[derive(Debug, Default)]
pub(crate) struct Bulk {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    /// Some partition waits for a catalog that lets it be taken in bulk.
    wish: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Arc<Job>>,
    /// When the oldest that is not committed was taken; as many as are on their way.
    under_way: VecDeque<u64>,
    stop: bool,
}

impl Bulk {
    /// Queues what a cycle has taken.
    pub(crate) fn add(&self, taken: Taken, now_ns: u64) {
        let job = Arc::new(Job { taken, began_ns: now_ns, stage: Mutex::new(Stage::Waiting) });
        job.partition().begin_bulk(&job);
        let mut waiting = self.waiting.lock();
        waiting.under_way.push_back(now_ns);
        waiting.jobs.push_back(job);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Asks for a catalog that lets a partition be taken in bulk.
    pub(crate) fn wish(&self) {
        self.wish.store(true, Ordering::Relaxed);
    }

    /// Whether one is asked for; not again then.
    pub(crate) fn takes_wish(&self) -> bool {
        self.wish.load(Ordering::Relaxed) && self.wish.swap(false, Ordering::Relaxed)
    }

    /// A job is committed, or came to nothing.
    pub(crate) fn done(&self, job: &Job) {
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting.under_way.iter().position(|began| *began == job.began_ns) {
            waiting.under_way.remove(at);
        }
    }

    /// Nanoseconds since the oldest that is on its way was taken.
    pub(crate) fn oldest_ns(&self, now_ns: u64) -> u64 {
        let waiting = self.waiting.lock();
        waiting.under_way.front().map_or(0, |began| now_ns.saturating_sub(*began))
    }

    /// Runs one job on the calling thread; `false` when none waits.
    pub(crate) fn run_one(&self, shared: &Shared) -> bool {
        let job = self.waiting.lock().jobs.pop_front();
        job.is_some_and(|job| {
            run(shared, job);
            true
        })
    }

    /// Runs what comes, until [`Bulk::stop`].
    pub(crate) fn run_until_stopped(&self, shared: &Shared) {
        loop {
            let job = {
                let mut waiting = self.waiting.lock();
                loop {
                    if waiting.stop {
                        // What is left is written by who closes the log.
                        return;
                    }
                    if let Some(job) = waiting.jobs.pop_front() {
                        break job;
                    }
                    self.arrived.wait(&mut waiting);
                }
            };
            run(shared, job);
        }
    }

    /// Ends the thread that runs it.
    pub(crate) fn stop(&self) {
        self.waiting.lock().stop = true;
        self.arrived.notify_all();
    }
}

/// Writes and syncs, and gives the job back to the committer. After an error that is not a full disk the directory is offline.
fn run(shared: &Shared, job: Arc<Job>) {
    let mut stage = job.stage.lock();
    if shared.is_offline() {
        return;
    }
    if matches!(*stage, Stage::Waiting) {
        let began = shared.clock.monotonic_ns();
        *stage = match job.partition().write_extents(&job.taken) {
            Ok(extents) => Stage::Synced(extents),
            Err(PlanError::Full) => Stage::Full,
            Err(PlanError::Io(reason)) => {
                shared.go_offline(reason);
                return;
            }
        };
        let took = shared.clock.monotonic_ns().saturating_sub(began);
        shared.counters.bulk_ns.fetch_add(took, Ordering::Relaxed);
    }
    drop(stage);
    shared.controls.lock().bulk.push_back(job);
    shared.queue.wake();
}
