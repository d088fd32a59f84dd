//! The log of a node, as the rest of the process sees it.
//!
//! Invariant: everything here may be called from any thread at any time; nothing but `open`, `close`, `note_machine`,
//! `next_producer_id` and the steps waits for a disk.
//! Neighbours: `engine` does the work, `recovery` opens, `threads` runs.

use crate::clock::Clock;
use crate::disk::Disk;
use crate::engine::Engine;
use crate::metadata::{Command, Refusal, TopicMetadata, TopicSettings};
use crate::superblock::Superblock;
use crate::threads::Threads;
use crate::{Partition, PartitionId, TopicId, TopicName};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// All that `Log::open` needs to know.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The data directory; made if missing.
    pub dir: PathBuf,
    /// Bytes of one journal file; the ring has `journal_files` of them.
    pub journal_file_bytes: u64,
    /// Files in the ring.
    pub journal_files: u32,
    /// Wait this long after the first append of a cycle, to gather more per sync. Zero: no wait.
    pub commit_delay: Duration,
    /// Bytes that may be appended and not yet committed; above it appends answer `Busy`.
    pub uncommitted_bytes_max: usize,
    /// Bytes of committed batches kept in memory for readers at the tail, over all partitions.
    pub tail_bytes_max: usize,
    /// Sync files of `memory` topics this often.
    pub memory_sync: Duration,
    /// Limit on topics, internal ones not counted.
    pub topics_max: u32,
    /// Limit on partitions, internal ones not counted.
    pub partitions_max: u32,
    /// Bytes that all topics may take on disk; above it the oldest segments that nobody holds go first.
    pub max_bytes: Option<u64>,
}

/// What recovery found and did.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// The directory was new.
    pub created: bool,
    /// The last process did not close it.
    pub unclean: bool,
    /// Topics found.
    pub topics: u32,
    /// Partitions found.
    pub partitions: u32,
    /// Journal cycles applied again.
    pub cycles_replayed: u64,
    /// Bytes applied again.
    pub bytes_replayed: u64,
    /// Findings that need a person, one sentence each: damage, lost ranges, a copied directory.
    pub findings: Vec<String>,
    /// The directory was last used on another machine: it was moved, or copied. The ids that this log gives to producers
    /// are then others than its twin's, and uplinks must take new ones at their centres. Said at every start until
    /// [`Log::note_machine`].
    pub moved_machine: bool,
    /// How long it took.
    pub took: Duration,
}

/// Why a data directory was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("data directory {dir} is in use by process {holder}")]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as that process wrote it.
        holder: String,
    },
    /// A newer Headwater wrote it.
    #[error("data directory {dir} was written by a newer version: {detail}")]
    FromTheFuture {
        /// The directory.
        dir: PathBuf,
        /// Which file, which version, which is supported.
        detail: String,
    },
    /// A file that must be right is not.
    #[error("data directory {dir} is damaged: {detail}")]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// File, byte, what was expected.
        detail: String,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was being opened, read or written.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

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
    /// Bytes of the ring in use (not yet released by a checkpoint).
    pub journal_used_bytes: u64,
    /// Bytes of the ring.
    pub journal_size_bytes: u64,
    /// Commits that had to wait for a full ring.
    pub ring_waits: u64,
    /// Bytes appended and not committed.
    pub uncommitted_bytes: u64,
    /// Nanoseconds since the oldest uncommitted append, zero when there is none.
    pub oldest_uncommitted_ns: u64,
    /// Checkpoints ended.
    pub checkpoints: u64,
    /// The directory is offline, with the reason.
    pub offline: Option<String>,
    /// Damaged places in segments that readers met since the start, a sentence each; at most 100.
    pub damage: Vec<String>,
    /// Some partition refuses appends because the disk is full.
    pub disk_full: bool,
}

/// The log of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    engine: Arc<Engine>,
}

/// A topic and its partitions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Topic {
    inner: Arc<TopicInner>,
}

#[derive(Debug)]
struct TopicInner {
    name: TopicName,
    id: TopicId,
    settings: TopicSettings,
    partitions: Vec<Arc<Partition>>,
}

impl Topic {
    pub(crate) fn new(metadata: &TopicMetadata, partitions: Vec<Arc<Partition>>) -> Self {
        Self {
            inner: Arc::new(TopicInner {
                name: metadata.name.clone(),
                id: metadata.id,
                settings: metadata.settings.clone(),
                partitions,
            }),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.inner.name
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.inner.id
    }

    /// Its settings, as they were when it was looked up.
    #[must_use]
    pub fn settings(&self) -> &TopicSettings {
        &self.inner.settings
    }

    /// Its partitions; index = partition number.
    #[must_use]
    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.inner.partitions
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> Option<&Arc<Partition>> {
        self.inner.partitions.get(usize::try_from(id.get()).ok()?)
    }
}

/// The threads of an open log (commit, checkpoint and retention). Dropping it without `close` is a crash: nothing more is
/// committed, and the lock on the directory is let go.
#[derive(Debug)]
pub struct Running {
    threads: Threads,
}

impl Running {
    /// Commits what was appended, syncs, checkpoints and ends the threads. Blocks.
    ///
    /// # Errors
    /// What failed; the directory is then left as after a crash, which loses nothing acknowledged.
    pub fn close(self) -> Result<(), String> {
        self.threads.close()
    }
}

impl Log {
    /// Opens or creates a data directory: lock, superblock, catalog, journal, replay. Blocks; starts no thread.
    ///
    /// # Errors
    /// [`OpenError`]; the directory is unchanged then.
    pub fn open(
        options: LogOptions,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovery), OpenError> {
        let (engine, recovery) = crate::recovery::open(options, disk, clock)?;
        Ok((Self { engine: Arc::new(engine) }, recovery))
    }

    /// Makes this machine the one that the directory was last used on. For after [`Recovery::moved_machine`], once all that
    /// follows from it is durable: it is not said again. Blocks.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn note_machine(&self) -> Result<(), OpenError> {
        let engine = &self.engine;
        let machine_id = engine.shared.disk.machine_id().unwrap_or_default();
        Superblock { directory_id: engine.directory_id, machine_id }
            .write(&*engine.shared.disk, &engine.options.dir)
    }

    /// Starts the threads. Call once, after holds are registered; until then nothing is committed and nothing deleted.
    #[must_use]
    pub fn start(&self) -> Running {
        Running { threads: Threads::start(&self.engine) }
    }

    /// Runs one commit cycle on the calling thread; `false` when nothing waited. For a node that is stepped instead of started.
    pub fn step_commit(&self) -> bool {
        self.engine.committer.lock().step(&self.engine)
    }

    /// Runs one checkpoint on the calling thread. For a node that is stepped instead of started.
    ///
    /// # Errors
    /// What failed; the log is offline then.
    pub fn step_checkpoint(&self) -> Result<(), String> {
        if let Some(reason) = self.engine.shared.offline() {
            return Err(reason);
        }
        let cycle = self.engine.checkpoint(false).map_err(|e| e.to_string())?;
        self.engine.committer.lock().journal.release(cycle);
        Ok(())
    }

    /// Runs one round of upkeep on the calling thread: retention, syncs of `memory` topics, probes for room, and one file of
    /// the journal's ring if one will soon be needed. For a node that is stepped instead of started.
    pub fn step_upkeep(&self) {
        self.engine.make_file();
        self.engine.upkeep_step();
    }

    /// Commits what waits, checkpoints and lets the directory go, on the calling thread. For a node that is stepped.
    ///
    /// # Errors
    /// What failed.
    pub fn step_close(&self) -> Result<(), String> {
        self.engine.close()
    }

    /// The topic of that name, internal ones included.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Topic> {
        let name = TopicName::new(name)?;
        self.engine.topics.read().get(&name).cloned()
    }

    /// All topics, internal ones included, in the order of their names.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        self.engine.topics.read().values().cloned().collect()
    }

    /// Counts changes of metadata: cached lookups are good as long as it stands still.
    #[must_use]
    pub fn metadata_version(&self) -> u64 {
        self.engine.version.load(Ordering::Acquire)
    }

    /// Creates a topic. Usable at once; its creation is journalled ahead of its first record. Who must answer only when
    /// it is durable waits for [`Log::committed`] of the returned cycle.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn create_topic(
        &self,
        name: &TopicName,
        partitions: u32,
        settings: TopicSettings,
    ) -> Result<(Topic, u64), Refusal> {
        let mut id = self
            .engine
            .shared
            .disk
            .random_id()
            .map_err(|e| Refusal::Offline(format!("no randomness for a topic id: {e}")))?;
        // RFC 9562: version 4, variant 10.
        id[6] = (id[6] & 0x0f) | 0x40;
        id[8] = (id[8] & 0x3f) | 0x80;
        let id = TopicId::from_bytes(id);
        let command = Command::CreateTopic { name: name.clone(), id, partitions, settings };
        let sequence = self.engine.command(&command)?;
        Ok((self.known(name)?, sequence))
    }

    fn known(&self, name: &TopicName) -> Result<Topic, Refusal> {
        self.topic(name.as_str()).ok_or_else(|| Refusal::UnknownTopic(name.to_string()))
    }

    /// Changes a topic's settings (all but the partition count). A changed durability comes into force with a checkpoint, at
    /// the next commit of each partition.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn alter_topic(&self, name: &TopicName, settings: TopicSettings) -> Result<u64, Refusal> {
        self.engine.command(&Command::AlterTopic { name: name.clone(), settings })
    }

    /// Adds partitions; `partitions` is how many there are then in all.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn add_partitions(
        &self,
        name: &TopicName,
        partitions: u32,
    ) -> Result<(Topic, u64), Refusal> {
        let command = Command::AddPartitions { name: name.clone(), partitions };
        let sequence = self.engine.command(&command)?;
        Ok((self.known(name)?, sequence))
    }

    /// Deletes a topic: journalled first, then its folder is renamed aside and removed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn delete_topic(&self, name: &TopicName) -> Result<u64, Refusal> {
        self.engine.command(&Command::DeleteTopic { name: name.clone() })
    }

    /// Whether the given commit cycle (from a metadata change) is synced; an error when it never will be.
    ///
    /// # Errors
    /// The log went offline.
    pub fn committed(&self, cycle: u64) -> Result<bool, Refusal> {
        if self.engine.committed_sequence.load(Ordering::Acquire) >= cycle {
            return Ok(true);
        }
        match self.engine.shared.offline() {
            Some(reason) => Err(Refusal::Offline(reason)),
            None => Ok(false),
        }
    }

    /// A producer id for an idempotent producer, never given out before or after (durable before return). May wait for a commit.
    ///
    /// # Errors
    /// [`Refusal::Offline`].
    pub fn next_producer_id(&self) -> Result<i64, Refusal> {
        self.engine.next_producer_id()
    }

    /// A counter that moves whenever positions, holds or metadata moved: once per commit cycle, not per record. Await `changed()`.
    #[must_use]
    pub fn moved(&self) -> tokio::sync::watch::Receiver<u64> {
        self.engine.shared.moved.subscribe()
    }

    /// The directory's id: random, made with it; the Kafka cluster id is derived from it.
    #[must_use]
    pub fn directory_id(&self) -> [u8; 16] {
        self.engine.directory_id
    }

    /// Counters at this moment.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let shared = &self.engine.shared;
        let c = &shared.counters;
        let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let histogram = |counts: &[std::sync::atomic::AtomicU64; 16]| {
            std::array::from_fn(|bucket| get(&counts[bucket]))
        };
        LogStats {
            cycles: get(&c.cycles),
            journal_bytes: get(&c.journal_bytes),
            committed_bytes: get(&c.committed_bytes),
            sync_ns: get(&c.sync_ns),
            sync_ns_max: get(&c.sync_ns_max),
            sync_histogram: histogram(&c.sync_histogram),
            size_histogram: histogram(&c.size_histogram),
            journal_used_bytes: get(&c.journal_used_bytes),
            journal_size_bytes: get(&c.journal_size_bytes),
            ring_waits: get(&c.ring_waits),
            uncommitted_bytes: shared.uncommitted_bytes.load(Ordering::Relaxed) as u64,
            oldest_uncommitted_ns: shared.queue.oldest_ns(shared.clock.monotonic_ns()),
            checkpoints: get(&c.checkpoints),
            offline: shared.offline(),
            damage: shared.damage(),
            disk_full: c.partitions_full.load(Ordering::Relaxed) > 0,
        }
    }

    /// The clock given to `open`.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.engine.shared.clock
    }
}
