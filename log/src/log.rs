//! The log of a node: topics, commit thread, recovery.

use crate::clock::Clock;
use crate::disk::Disk;
use crate::metadata::{Refusal, TopicSettings};
use crate::{Partition, PartitionId, TopicId, TopicName};
use std::path::PathBuf;
use std::sync::Arc;
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
    /// Some partition refuses appends because the disk is full.
    pub disk_full: bool,
}

/// The log of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {}

/// A topic and its partitions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Topic {}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        unimplemented!()
    }
    /// Its id.
    #[must_use]
    pub fn id(&self) -> TopicId {
        unimplemented!()
    }
    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &TopicSettings {
        unimplemented!()
    }
    /// Its partitions; index = partition number.
    #[must_use]
    pub fn partitions(&self) -> &[Arc<Partition>] {
        unimplemented!()
    }
    /// One partition.
    #[must_use]
    pub fn partition(&self, _id: PartitionId) -> Option<&Arc<Partition>> {
        unimplemented!()
    }
}

/// The threads of an open log (commit, checkpoint and retention). Dropping it without `close` is a crash.
#[derive(Debug)]
pub struct Running {}

impl Running {
    /// Commits what was appended, syncs, checkpoints and ends the threads. Blocks.
    ///
    /// # Errors
    /// What failed; the directory is then left as after a crash, which loses nothing acknowledged.
    pub fn close(self) -> Result<(), String> {
        unimplemented!()
    }
}

impl Log {
    /// Opens or creates a data directory: lock, superblock, catalog, journal, replay. Blocks; starts no thread.
    ///
    /// # Errors
    /// [`OpenError`]; the directory is unchanged then.
    pub fn open(
        _options: LogOptions,
        _disk: Arc<dyn Disk>,
        _clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovery), OpenError> {
        unimplemented!()
    }
    /// Starts the threads. Call once, after holds are registered; until then nothing is committed and nothing deleted.
    #[must_use]
    pub fn start(&self) -> Running {
        unimplemented!()
    }
    /// The topic of that name, internal ones included.
    #[must_use]
    pub fn topic(&self, _name: &str) -> Option<Topic> {
        unimplemented!()
    }
    /// All topics, internal ones included, in the order of their names.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        unimplemented!()
    }
    /// Counts changes of metadata: cached lookups are good as long as it stands still.
    #[must_use]
    pub fn metadata_version(&self) -> u64 {
        unimplemented!()
    }
    /// Creates a topic. Usable at once; its creation is journalled ahead of its first record. Who must answer only when
    /// it is durable waits for [`Log::committed`] of the returned cycle.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn create_topic(
        &self,
        _name: &TopicName,
        _partitions: u32,
        _settings: TopicSettings,
    ) -> Result<(Topic, u64), Refusal> {
        unimplemented!()
    }
    /// Changes a topic's settings (all but the partition count).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn alter_topic(&self, _name: &TopicName, _settings: TopicSettings) -> Result<u64, Refusal> {
        unimplemented!()
    }
    /// Adds partitions.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn add_partitions(
        &self,
        _name: &TopicName,
        _partitions: u32,
    ) -> Result<(Topic, u64), Refusal> {
        unimplemented!()
    }
    /// Deletes a topic: journalled first, then its folder is renamed aside and removed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn delete_topic(&self, _name: &TopicName) -> Result<u64, Refusal> {
        unimplemented!()
    }
    /// Whether the given commit cycle (from a metadata change) is synced; an error when it never will be.
    ///
    /// # Errors
    /// The log went offline.
    pub fn committed(&self, _cycle: u64) -> Result<bool, Refusal> {
        unimplemented!()
    }
    /// A block of producer ids for idempotent producers, never given out before or after (durable before return). May wait for a commit.
    ///
    /// # Errors
    /// [`Refusal::Offline`].
    pub fn next_producer_id(&self) -> Result<i64, Refusal> {
        unimplemented!()
    }
    /// A counter that moves whenever positions, holds or metadata moved: once per commit cycle, not per record. Await `changed()`.
    #[must_use]
    pub fn moved(&self) -> tokio::sync::watch::Receiver<u64> {
        unimplemented!()
    }
    /// The directory's id: random, made with it; the Kafka cluster id is derived from it.
    #[must_use]
    pub fn directory_id(&self) -> [u8; 16] {
        unimplemented!()
    }
    /// Counters at this moment.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        unimplemented!()
    }
    /// The clock given to `open`.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        unimplemented!()
    }
}
