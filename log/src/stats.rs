//! What the log says of itself: counters and gauges, summed over the data directories.
//!
//! Invariant: reading them takes no lock that a commit holds over a system call.
//! Neighbours: `shared` counts; the process makes metrics and health of it.

use crate::Partition;
use crate::engine::Engine;
use crate::shared::Shared;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters and gauges of the log, read at one moment (for metrics and health).
#[derive(Debug, Clone, Default)]
pub struct LogStats {
    /// Commit cycles ended.
    pub cycles: u64,
    /// Bytes of journal written, padding included.
    pub journal_bytes: u64,
    /// Record bytes committed.
    pub committed_bytes: u64,
    /// Nanoseconds spent in the journal's fdatasync, in all.
    pub sync_ns: u64,
    /// The slowest sync so far, nanoseconds.
    pub sync_ns_max: u64,
    /// Histogram of sync times: count of syncs of at most 2^(i) * 64 us, i = 0.., the last is the rest.
    pub sync_histogram: [u64; 16],
    /// Histogram of commit sizes: count of cycles with at most 2^(i) KiB of batches, i = 0.., the last is the rest.
    pub size_histogram: [u64; 16],
    /// Bytes of batches made here that went to their topic's codec, before it.
    pub compress_plain_bytes: u64,
    /// Bytes of the same batches as they were stored.
    pub compress_stored_bytes: u64,
    /// Batches stored as they are because too much waited for the codec.
    pub compress_skipped: u64,
    /// Bytes that went straight to their segment, past the journal, because much waited for one partition.
    pub bulk_bytes: u64,
    /// Nanoseconds that writing and syncing them took.
    pub bulk_ns: u64,
    /// Bytes of the ring in use (not yet released by a checkpoint).
    pub journal_used_bytes: u64,
    /// Bytes of the ring.
    pub journal_size_bytes: u64,
    /// Commits that had to wait for a full ring.
    pub ring_waits: u64,
    /// Nanoseconds that commits waited for it.
    pub ring_wait_ns: u64,
    /// Nanoseconds that commits waited for more to come: the commit delay.
    pub delay_ns: u64,
    /// Nanoseconds that a commit beginning now would wait; the longest of all directories.
    pub delay_now_ns: u64,
    /// Bytes written to the journals in the last 24 hours, or since the start.
    pub journal_day_bytes: u64,
    /// Nanoseconds that checkpoints took, in all.
    pub checkpoint_ns: u64,
    /// Of them, what they left to the commits' syncs.
    pub checkpoint_pause_ns: u64,
    /// Bytes appended and not committed.
    pub uncommitted_bytes: u64,
    /// Nanoseconds since the oldest uncommitted append, zero when there is none.
    pub oldest_uncommitted_ns: u64,
    /// Checkpoints ended.
    pub checkpoints: u64,
    /// Why nothing can be written at all, if so: every directory is offline. See `directories` for one alone.
    pub offline: Option<String>,
    /// Damaged places in segments that readers met and no repair has mended since, a sentence each; at most 100 in a directory.
    pub damage: Vec<String>,
    /// Some partition refuses appends because the disk is full.
    pub disk_full: bool,
    /// Segment files open now, beside those in use at this moment.
    pub open_files: u64,
    /// Sealed segments whose offset and time indexes are loaded now.
    pub indexes_loaded: u64,
    /// Sealed segments whose offset and time indexes were made anew because the stored ones were missing or wrong.
    pub indexes_rebuilt: u64,
    /// Label indexes built since the start, after sealing or because a reader found none that was right.
    pub label_indexes_built: u64,
    /// Idempotent and transactional producers remembered, in all partitions together.
    pub producers: u64,
    /// Producers forgotten because they had been silent for too long.
    pub producers_expired: u64,
    /// Open transactions, one per partition that they have written to.
    pub open_transactions: u64,
    /// Milliseconds since the open transaction that waits longest was last written to, on the log clock; zero with none open.
    pub oldest_transaction_ms: u64,
    /// What compaction has done.
    pub compaction: CompactionStats,
    /// Each data directory, by number; then configured paths that are not used.
    pub directories: Vec<DirectoryStats>,
}

/// What compaction has done since the start.
#[derive(Debug, Clone, Default)]
pub struct CompactionStats {
    /// Passes ended, each over one partition.
    pub passes: u64,
    /// Passes given up because of an error.
    pub failures: u64,
    /// Bytes of segments read.
    pub read_bytes: u64,
    /// Bytes of compacted segments written.
    pub written_bytes: u64,
    /// Bytes by which the log became smaller.
    pub removed_bytes: u64,
    /// Records dropped because they have no key.
    pub keyless_records: u64,
    /// Nanoseconds spent.
    pub ns: u64,
    /// Nanoseconds since the last pass ended; `None` before there was one.
    pub since_last_ns: Option<u64>,
    /// The dirtiest partition's dirty part, in thousandths of what may be compacted of it.
    pub dirty_permille_max: u64,
    /// Partitions that are left alone because of damage.
    pub uncleanable: u64,
}

/// One data directory at one moment.
#[derive(Debug, Clone)]
pub struct DirectoryStats {
    /// Where it is, or should be.
    pub path: PathBuf,
    /// Its number among the directories of this log; a configured path that is none of them has none.
    pub number: Option<u16>,
    /// Why its partitions take no writes, if so: it is missing, or an I/O error took it offline until a restart.
    pub offline: Option<String>,
    /// Commit cycles ended.
    pub cycles: u64,
    /// Some partition in it refuses appends because the disk is full.
    pub disk_full: bool,
}

impl LogStats {
    /// Adds what the partitions know of their producers.
    fn add_producers(&mut self, partition: &Partition) {
        let (producers, open, waits_ms) = partition.transaction_figures();
        self.producers += producers as u64;
        self.open_transactions += open as u64;
        self.oldest_transaction_ms = self.oldest_transaction_ms.max(waits_ms);
    }

    pub(crate) fn of(engine: &Engine) -> Self {
        let mut all = Self::default();
        for shared in &engine.node.directories {
            all.add(shared);
        }
        for partition in engine.node.partitions() {
            all.add_producers(&partition);
        }
        for directory in &engine.directories {
            let now_ns = directory.shared.clock.monotonic_ns();
            let mut pace = directory.pace.lock();
            let delay_ns = u64::try_from(pace.delay(now_ns).as_nanos()).unwrap_or(u64::MAX);
            all.delay_now_ns = all.delay_now_ns.max(delay_ns);
            all.journal_day_bytes += pace.day_bytes(now_ns);
        }
        if all.directories.iter().all(|d| d.offline.is_some()) {
            all.offline = all.directories.first().and_then(|d| d.offline.clone());
        }
        all.directories.extend(engine.unused.iter().map(|unused| DirectoryStats {
            path: unused.path.clone(),
            number: None,
            offline: Some(unused.why.clone()),
            cycles: 0,
            disk_full: false,
        }));
        all
    }

    fn add(&mut self, shared: &Shared) {
        let c = &shared.counters;
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        self.cycles += get(&c.cycles);
        self.journal_bytes += get(&c.journal_bytes);
        self.committed_bytes += get(&c.committed_bytes);
        self.sync_ns += get(&c.sync_ns);
        self.sync_ns_max = self.sync_ns_max.max(get(&c.sync_ns_max));
        self.compress_plain_bytes += get(&c.compress_plain_bytes);
        self.compress_stored_bytes += get(&c.compress_stored_bytes);
        self.compress_skipped += get(&c.compress_skipped);
        for (sum, bucket) in self.sync_histogram.iter_mut().zip(&c.sync_histogram) {
            *sum += get(bucket);
        }
        for (sum, bucket) in self.size_histogram.iter_mut().zip(&c.size_histogram) {
            *sum += get(bucket);
        }
        self.journal_used_bytes += get(&c.journal_used_bytes);
        self.journal_size_bytes += get(&c.journal_size_bytes);
        self.ring_waits += get(&c.ring_waits);
        self.ring_wait_ns += get(&c.ring_wait_ns);
        self.delay_ns += get(&c.delay_ns);
        self.checkpoint_ns += get(&c.checkpoint_ns);
        self.checkpoint_pause_ns += get(&c.checkpoint_pause_ns);
        self.uncommitted_bytes += shared.uncommitted_bytes.load(Ordering::Relaxed) as u64;
        let now_ns = shared.clock.monotonic_ns();
        let oldest_ns = shared.queue.oldest_ns(now_ns).max(shared.bulk.oldest_ns(now_ns));
        self.oldest_uncommitted_ns = self.oldest_uncommitted_ns.max(oldest_ns);
        self.checkpoints += get(&c.checkpoints);
        self.bulk_bytes += get(&c.bulk_bytes);
        self.bulk_ns += get(&c.bulk_ns);
        self.producers_expired += get(&c.producers_expired);
        self.damage.extend(shared.damage.sentences());
        self.add_compaction(shared);
        let disk_full = c.partitions_full.load(Ordering::Relaxed) > 0;
        self.disk_full |= disk_full;
        self.open_files += shared.files.count() as u64;
        self.indexes_loaded += shared.indexes.count() as u64;
        self.indexes_rebuilt += get(&shared.indexes.rebuilt);
        self.label_indexes_built += get(&shared.labels.built);
        self.directories.push(DirectoryStats {
            path: shared.path.clone(),
            number: Some(shared.number.get()),
            offline: shared.offline(),
            cycles: get(&c.cycles),
            disk_full,
        });
    }

    fn add_compaction(&mut self, shared: &Shared) {
        let c = &shared.counters.compaction;
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let sum = &mut self.compaction;
        sum.passes += get(&c.passes);
        sum.failures += get(&c.failures);
        sum.read_bytes += get(&c.read_bytes);
        sum.written_bytes += get(&c.written_bytes);
        sum.removed_bytes += get(&c.removed_bytes);
        sum.keyless_records += get(&c.keyless_records);
        sum.ns += get(&c.ns);
        let last = Some(get(&c.last_ns)).filter(|at| *at > 0);
        let since = last.map(|at| shared.clock.monotonic_ns().saturating_sub(at));
        sum.since_last_ns = [sum.since_last_ns, since].into_iter().flatten().min();
        sum.dirty_permille_max = sum.dirty_permille_max.max(get(&c.dirty_permille_max));
        sum.uncleanable += get(&c.uncleanable);
    }
}
