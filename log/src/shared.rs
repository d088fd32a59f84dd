//! What every partition of one data directory shares: the seams, the commit queue, budgets, the offline switch, counters.
//!
//! A directory that is missing has one too, offline from the start: its partitions stay known, and say why they do not answer.
//!
//! Invariant: a partition is in the queue at most once (its own flag says so), so the queue is as long as there are partitions.
//! Lock order in this crate: committer, checkpointer, metadata, a partition's writer, its state, the queue; never backwards.
//! Neighbours: partitions put themselves into the queue; `commit` takes it; `node` has one of these per directory.

use crate::ballast::Ballast;
use crate::bulk::{Bulk, Job};
use crate::clock::Clock;
use crate::compaction::{CompactionCounters, SwapRequest};
use crate::compressor::Compressor;
use crate::damage::Damage;
use crate::disk::{Disk, Filesystem};
use crate::metadata::DirectoryNumber;
use crate::partition::replica::Leadership;
use crate::segment::files::Files;
use crate::segment::indexes::Indexes;
use crate::segment::label_indexes::LabelIndexes;
use crate::segment::labels::Labeller;
use crate::segment::txnindex::Lists;
use crate::segment::{Key, Segment};
use crate::space::EarlyRemovals;
use crate::{Offset, Partition};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// What all directories of a node share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) labeller: Option<Labeller>,
    /// Counts movements of positions, holds and metadata, wherever they are.
    pub(crate) moved: watch::Sender<u64>,
    /// The log is being closed: no more appends and commands. Looked at under the lock of what it guards.
    pub(crate) closing: Arc<AtomicBool>,
}

impl Common {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        labeller: Option<Labeller>,
    ) -> Self {
        Self { disk, clock, labeller, moved: watch::Sender::new(0), closing: Arc::default() }
    }
}

/// Sizes that each directory has for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) uncommitted_bytes_max: usize,
    pub(crate) tail_bytes_max: usize,
    /// The largest batch that a journal file has room for.
    pub(crate) journal_batch_bytes_max: usize,
    /// Kept back for the log's own state.
    pub(crate) reserved_bytes: u64,
    pub(crate) open_files_max: usize,
}

/// Shared by all partitions of a directory.
pub(crate) struct Shared {
    pub(crate) number: DirectoryNumber,
    pub(crate) path: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The last metadata record that is synced here.
    pub(crate) committed_sequence: AtomicU64,
    /// The metadata record that says that the node goes on without this directory; 0 while it is in use.
    pub(crate) absent_since: AtomicU64,
    /// To sync as a whole; `None` where that would hide a failure.
    pub(crate) filesystem: Option<Box<dyn Filesystem>>,
    pub(crate) files: Files,
    pub(crate) ballast: Ballast,
    pub(crate) indexes: Indexes,
    pub(crate) labels: LabelIndexes,
    /// Sealed segments that wait for their label index.
    pub(crate) unlabelled: Mutex<VecDeque<(Weak<Partition>, Weak<Segment>)>>,
    pub(crate) aborted: Lists,
    pub(crate) queue: Queue,
    pub(crate) compressor: Compressor,
    pub(crate) bulk: Bulk,
    pub(crate) uncommitted_bytes: AtomicUsize,
    pub(crate) uncommitted_bytes_max: usize,
    /// Bytes of batches in the partitions' memory tails, committed ones only.
    pub(crate) tail_bytes: AtomicUsize,
    pub(crate) tail_bytes_max: usize,
    /// The largest batch that a journal file has room for.
    pub(crate) journal_batch_bytes_max: usize,
    /// The log clock at the last cycle or upkeep, for appends that need a coarse one.
    pub(crate) log_clock_ms: AtomicI64,
    pub(crate) moved: watch::Sender<u64>,
    pub(crate) counters: Counters,
    pub(crate) memory_bytes_since_checkpoint: AtomicU64,
    /// What a recovery would have to read of segments beside the ring.
    pub(crate) bulk_bytes_since_checkpoint: AtomicU64,
    /// Folders were made since the topics' folder was last synced.
    pub(crate) topics_dirty: AtomicBool,
    /// Held while that folder is synced, so that who finds it clean finds it synced.
    topics_sync: Mutex<()>,
    pub(crate) controls: Mutex<Controls>,
    pub(crate) early: Mutex<EarlyRemovals>,
    /// Recovery is under way: files keep what they have, it may be needed to make up for damage in the journal.
    pub(crate) recovering: AtomicBool,
    closing: Arc<AtomicBool>,
    offline: AtomicBool,
    offline_reason: Mutex<Option<String>>,
    pub(crate) damage: Damage,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// What waits for a cycle beside batches, in the order it was decided.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    /// Encoded metadata records with their sequence.
    pub(crate) metadata: VecDeque<(u64, Vec<u8>)>,
    /// What happened to partitions.
    pub(crate) partitions: VecDeque<(Arc<Partition>, PartitionControl)>,
    /// Partitions of deleted topics, with the sequence of the deletion.
    pub(crate) deleted: Vec<(u64, Arc<Partition>)>,
    /// Outputs of compaction that are to take their inputs' place.
    pub(crate) swaps: Vec<Arc<SwapRequest>>,
    /// What is in its segment, and waits for its entry.
    pub(crate) bulk: VecDeque<Arc<Job>>,
}

impl Controls {
    pub(crate) fn is_empty(&self) -> bool {
        self.metadata.is_empty()
            && self.partitions.is_empty()
            && self.deleted.is_empty()
            && self.swaps.is_empty()
            && self.bulk.is_empty()
    }
}

/// What is synced in the journal before it counts for a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PartitionControl {
    /// Nothing below is readable any more.
    LogStart(i64),
    /// What is at or above goes.
    Truncate(Offset),
    /// Who leads, and the high watermark.
    Leadership(Leadership),
}

/// Sums since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) cycles: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) committed_bytes: AtomicU64,
    pub(crate) sync_ns: AtomicU64,
    pub(crate) sync_ns_max: AtomicU64,
    pub(crate) sync_histogram: [AtomicU64; 16],
    pub(crate) size_histogram: [AtomicU64; 16],
    pub(crate) journal_used_bytes: AtomicU64,
    pub(crate) journal_size_bytes: AtomicU64,
    pub(crate) ring_waits: AtomicU64,
    pub(crate) ring_wait_ns: AtomicU64,
    /// What commits waited for more to come, or for the journal's bytes per day.
    pub(crate) delay_ns: AtomicU64,
    pub(crate) checkpoint_ns: AtomicU64,
    /// Of it, what checkpoints left to the commits' syncs.
    pub(crate) checkpoint_pause_ns: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) producers_expired: AtomicU64,
    pub(crate) partitions_full: AtomicUsize,
    pub(crate) compaction: CompactionCounters,
    /// Bytes that went straight to their segment, and what writing and syncing them took.
    pub(crate) bulk_bytes: AtomicU64,
    pub(crate) bulk_ns: AtomicU64,
    /// Batches that went through the compressor: their bytes before and after.
    pub(crate) compress_plain_bytes: AtomicU64,
    pub(crate) compress_stored_bytes: AtomicU64,
    /// Batches stored as they are because too much waited for the compressor.
    pub(crate) compress_skipped: AtomicU64,
}

impl Counters {
    pub(crate) fn note_sync(&self, ns: u64) {
        self.sync_ns.fetch_add(ns, Ordering::Relaxed);
        self.sync_ns_max.fetch_max(ns, Ordering::Relaxed);
        // Bucket i holds syncs of at most 64 us << i.
        let bucket = (0..15).find(|i| ns <= 64_000u64 << i).unwrap_or(15);
        self.sync_histogram[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// A cycle ended that committed so many bytes of batches.
    pub(crate) fn note_committed(&self, bytes: usize) {
        self.committed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        // Bucket i holds cycles of at most 1 KiB << i.
        let bucket = (0..15).find(|i| bytes <= 1024 << i).unwrap_or(15);
        self.size_histogram[bucket].fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(
        common: &Common,
        number: DirectoryNumber,
        path: PathBuf,
        budget: Budget,
        log_clock_ms: i64,
    ) -> Self {
        // Looked up before anything is written: it reports failures from here on.
        let filesystem = match common.disk.filesystem(&path) {
            Ok(filesystem) => filesystem,
            Err(e) => {
                tracing::info!(path = %path.display(), error = %e, "files are synced one by one");
                None
            }
        };
        Self {
            number,
            ballast: Ballast::new(Arc::clone(&common.disk), &path, budget.reserved_bytes),
            path,
            filesystem,
            files: Files::new(Arc::clone(&common.disk), budget.open_files_max),
            disk: Arc::clone(&common.disk),
            clock: Arc::clone(&common.clock),
            indexes: Indexes::new(Arc::clone(&common.disk)),
            labels: LabelIndexes::new(Arc::clone(&common.disk), common.labeller),
            unlabelled: Mutex::default(),
            aborted: Lists::default(),
            committed_sequence: AtomicU64::new(0),
            absent_since: AtomicU64::new(0),
            queue: Queue::default(),
            compressor: Compressor::default(),
            bulk: Bulk::default(),
            uncommitted_bytes: AtomicUsize::new(0),
            uncommitted_bytes_max: budget.uncommitted_bytes_max,
            tail_bytes: AtomicUsize::new(0),
            tail_bytes_max: budget.tail_bytes_max,
            journal_batch_bytes_max: budget.journal_batch_bytes_max,
            log_clock_ms: AtomicI64::new(log_clock_ms),
            moved: common.moved.clone(),
            counters: Counters::default(),
            memory_bytes_since_checkpoint: AtomicU64::new(0),
            bulk_bytes_since_checkpoint: AtomicU64::new(0),
            topics_dirty: AtomicBool::new(false),
            topics_sync: Mutex::default(),
            controls: Mutex::default(),
            early: Mutex::default(),
            recovering: AtomicBool::new(true),
            closing: Arc::clone(&common.closing),
            offline: AtomicBool::new(false),
            offline_reason: Mutex::new(None),
            damage: Damage::default(),
        }
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// Why the directory takes no writes, if it does not.
    pub(crate) fn offline(&self) -> Option<String> {
        if !self.is_offline() {
            return None;
        }
        self.offline_reason.lock().clone()
    }

    /// Takes the directory offline for good: the first reason stays. Wakes all who wait.
    pub(crate) fn go_offline(&self, reason: String) {
        let mut stored = self.offline_reason.lock();
        if stored.is_none() {
            let dir = self.path.display();
            tracing::error!(%dir, %reason, "the data directory is offline until a restart");
            *stored = Some(reason);
        }
        drop(stored);
        self.offline.store(true, Ordering::Release);
        self.moved.send_modify(|n| *n += 1);
        self.queue.hurry();
        self.queue.wake();
    }

    /// Why nothing new is taken, if it is not. Cycles go on while the log is closing.
    pub(crate) fn refuses(&self) -> Option<String> {
        let closing = self.closing.load(Ordering::Acquire);
        self.offline().or_else(|| closing.then(|| "it is being closed".to_owned()))
    }

    /// As [`Shared::go_offline`], for an orderly end: nothing to report.
    pub(crate) fn close(&self) {
        self.offline_reason.lock().get_or_insert_with(|| "it was closed".to_owned());
        self.offline.store(true, Ordering::Release);
        self.moved.send_modify(|n| *n += 1);
    }

    /// Syncs the folder of all topics' folders if a name in it changed.
    pub(crate) fn sync_topics(&self, topics: &Path) -> Result<(), String> {
        let _one = self.topics_sync.lock();
        if self.topics_dirty.swap(false, Ordering::AcqRel) {
            let synced = self.disk.sync_dir(topics);
            synced.map_err(|e| format!("syncing {}: {e}", topics.display()))?;
        }
        Ok(())
    }

    /// Appends grew what is not committed; a commit thread that waits for more learns when there is enough.
    pub(crate) fn note_uncommitted(&self, bytes: usize) {
        let before = self.uncommitted_bytes.fetch_add(bytes, Ordering::Relaxed);
        let enough = self.uncommitted_bytes_max / 2;
        if before < enough && before + bytes >= enough {
            self.queue.hurry();
        }
    }

    /// Lets the next cycle gather more, for so long or until half of the memory for it is used up.
    pub(crate) fn gather(&self, delay: Duration) {
        let enough = || {
            let waiting = self.uncommitted_bytes.load(Ordering::Relaxed);
            waiting >= self.uncommitted_bytes_max / 2
        };
        let began = self.clock.monotonic_ns();
        self.queue.gather(delay, enough);
        let waited = self.clock.monotonic_ns().saturating_sub(began);
        self.counters.delay_ns.fetch_add(waited, Ordering::Relaxed);
    }

    pub(crate) fn notify(&self) {
        self.moved.send_modify(|n| *n += 1);
    }

    /// Lets go of a segment whose files are removed, cut or replaced: the open file, and what is loaded of it.
    pub(crate) fn forget_segment(&self, key: Key) {
        self.files.forget(key);
        self.indexes.forget(key);
        self.labels.forget(key);
        self.aborted.forget(key);
    }
}

/// Partitions with something to commit.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    filled: Condvar,
    /// When the oldest append of the waiting ones was made, and of those being committed; 0 for none.
    oldest_waiting_ns: AtomicU64,
    oldest_committing_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    partitions: Vec<Arc<Partition>>,
    /// Something other than a partition waits (a control entry, the end).
    nudged: bool,
    asleep: bool,
    /// The commit thread waits for more than what has arrived.
    gathering: bool,
}

impl Queue {
    /// Adds a partition whose flag was just set.
    pub(crate) fn add(&self, partition: Arc<Partition>, clock: &dyn Clock) {
        let mut waiting = self.waiting.lock();
        if waiting.partitions.is_empty() {
            self.oldest_waiting_ns.store(clock.monotonic_ns().max(1), Ordering::Relaxed);
        }
        waiting.partitions.push(partition);
        self.wake_locked(waiting);
    }

    /// Wakes the commit thread without a partition.
    pub(crate) fn wake(&self) {
        let mut waiting = self.waiting.lock();
        waiting.nudged = true;
        self.wake_locked(waiting);
    }

    fn wake_locked(&self, mut waiting: parking_lot::MutexGuard<'_, Waiting>) {
        if std::mem::take(&mut waiting.asleep) {
            drop(waiting);
            self.arrived.notify_one();
        }
    }

    /// Takes all partitions; what they hold counts as being committed until [`Queue::committed`].
    pub(crate) fn take(&self, into: &mut Vec<Arc<Partition>>) {
        let mut waiting = self.waiting.lock();
        waiting.nudged = false;
        into.append(&mut waiting.partitions);
        let oldest = self.oldest_waiting_ns.swap(0, Ordering::Relaxed);
        if self.oldest_committing_ns.load(Ordering::Relaxed) == 0 {
            self.oldest_committing_ns.store(oldest, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.lock().partitions.is_empty()
    }

    pub(crate) fn committed(&self) {
        self.oldest_committing_ns.store(0, Ordering::Relaxed);
    }

    /// Sleeps until something waits, at most this long.
    pub(crate) fn sleep(&self, at_most: Duration) {
        let mut waiting = self.waiting.lock();
        if waiting.partitions.is_empty() && !waiting.nudged {
            waiting.asleep = true;
            self.arrived.wait_for(&mut waiting, at_most);
            waiting.asleep = false;
        }
    }

    /// Waits for more to arrive, unless there is enough, or somebody is in a hurry.
    fn gather(&self, at_most: Duration, enough: impl Fn() -> bool) {
        let mut waiting = self.waiting.lock();
        // Looked at with the lock held, which `hurry` takes too: what fills up from here on is noticed.
        if !enough() {
            waiting.gathering = true;
            self.filled.wait_for(&mut waiting, at_most);
            waiting.gathering = false;
        }
    }

    /// Ends the wait for more.
    pub(crate) fn hurry(&self) {
        if self.waiting.lock().gathering {
            self.filled.notify_one();
        }
    }

    /// Nanoseconds since the oldest append that is not committed.
    pub(crate) fn oldest_ns(&self, now_ns: u64) -> u64 {
        let (a, b) = (
            self.oldest_committing_ns.load(Ordering::Relaxed),
            self.oldest_waiting_ns.load(Ordering::Relaxed),
        );
        let oldest = if a == 0 { b } else { a };
        if oldest == 0 { 0 } else { now_ns.saturating_sub(oldest) }
    }
}
