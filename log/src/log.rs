//! The log of a node, as the rest of the process sees it.
//!
//! Invariant: everything here may be called from any thread at any time; nothing but `open`, `close`, `note_machine`,
//! `next_producer_id` and the steps waits for a disk.
//! Neighbours: `engine` does the work, `recovery` opens, `threads` runs.

use crate::checkpoint::Speed;
use crate::clock::Clock;
use crate::compaction::CompactionOptions;
use crate::disk::Disk;
use crate::engine::Engine;
use crate::metadata::{Command, Refusal, TopicMetadata, TopicSettings};
use crate::recovery::RecoveryParts;
use crate::segment::labels::Labeller;
use crate::space::{EarlyRemoval, Share};
use crate::stats::LogStats;
use crate::superblock::Superblock;
use crate::threads::Threads;
use crate::{Partition, PartitionId, TopicId, TopicName};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// All that `Log::open` needs to know.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The data directories, at least one; made if missing. Each has its own journal and commit thread, and new partitions
    /// are spread over them. The budgets of memory below are shared out evenly.
    pub dirs: Vec<PathBuf>,
    /// Bytes of one journal file; the ring has `journal_files` of them.
    pub journal_file_bytes: u64,
    /// Files in the ring.
    pub journal_files: u32,
    /// Wait this long after the first append of a cycle, to gather more per sync. Zero: no wait.
    pub commit_delay: Duration,
    /// A longer wait, up to this, keeps the journal to `journal_bytes_per_day`.
    pub commit_delay_max: Duration,
    /// Bytes that the journal of each directory should not exceed in a day. `None`: flash wear does not matter.
    pub journal_bytes_per_day: Option<u64>,
    /// A partition with so much to commit writes it straight to its segment, past the journal, which gets an entry about it.
    /// 0: everything goes through the journal.
    pub bulk_bytes: usize,
    /// Bytes that may be appended and not yet committed; above it appends answer `Busy`.
    pub uncommitted_bytes_max: usize,
    /// Bytes of committed batches kept in memory for readers at the tail, over all partitions.
    pub tail_bytes_max: usize,
    /// Sync files of `memory` topics this often.
    pub memory_sync: Duration,
    /// Says which label a record has, so that readers can look for some; `None`: they read everything.
    pub labeller: Option<Labeller>,
    /// Segment files kept open over all directories; those in use at a moment count on top.
    pub open_files_max: usize,
    /// Idempotent and transactional producers that wrote nothing for so long are forgotten, on the log clock, unless a
    /// transaction of theirs is open.
    pub producer_id_expiration: Duration,
    /// Room kept back in each directory for the log's own small state on a full disk; at most 1 % of it. 0: none.
    pub reserved_bytes: u64,
    /// Limit on topics, internal ones not counted.
    pub topics_max: u32,
    /// Limit on partitions, internal ones not counted.
    pub partitions_max: u32,
    /// Bytes that the topics of one directory may take on disk; above it the oldest segments that nobody holds go first.
    pub max_bytes: Option<Share>,
    /// What must stay free on a directory's filesystem, whoever fills it; below it as above `max_bytes`.
    pub min_free: Option<Share>,
    /// How compaction may use the machine.
    pub compaction: CompactionOptions,
}

impl Default for LogOptions {
    /// What a small node has; only the directories must be named.
    fn default() -> Self {
        Self {
            dirs: Vec::new(),
            journal_file_bytes: 16 << 20,
            journal_files: 4,
            commit_delay: Duration::ZERO,
            commit_delay_max: Duration::from_millis(100),
            journal_bytes_per_day: None,
            bulk_bytes: 4 << 20,
            uncommitted_bytes_max: 64 << 20,
            tail_bytes_max: 16 << 20,
            memory_sync: Duration::from_secs(1),
            labeller: None,
            open_files_max: 256,
            producer_id_expiration: Duration::from_secs(86_400),
            reserved_bytes: 16 << 20,
            topics_max: u32::MAX,
            partitions_max: u32::MAX,
            max_bytes: None,
            compaction: CompactionOptions::default(),
            min_free: None,
        }
    }
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
    /// Where that time went.
    pub parts: RecoveryParts,
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

/// The log of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    pub(crate) engine: Arc<Engine>,
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
        let disk = &*self.engine.node.common.disk;
        let machine_id = disk.machine_id().unwrap_or_default();
        for directory in &self.engine.directories {
            Superblock { directory_id: directory.id, machine_id }.write(disk, directory.path())?;
        }
        Ok(())
    }

    /// Starts the threads. Call once, after holds are registered; until then nothing is committed and nothing deleted.
    #[must_use]
    pub fn start(&self) -> Running {
        Running { threads: Threads::start(&self.engine) }
    }

    /// Runs one commit cycle in each directory on the calling thread; `false` when nothing waited. For a node that is stepped
    /// instead of started.
    pub fn step_commit(&self) -> bool {
        self.engine.step_commit()
    }

    /// Runs one checkpoint on the calling thread. For a node that is stepped instead of started.
    ///
    /// # Errors
    /// What failed; the log is offline then.
    pub fn step_checkpoint(&self) -> Result<(), String> {
        let mut ended = Ok(());
        for directory in &self.engine.directories {
            ended = ended.and(directory.step_checkpoint(Speed::Full));
        }
        ended
    }

    /// Runs one round of upkeep on the calling thread: retention, syncs of `memory` topics, probes for room, and one file of
    /// the journal's ring if one will soon be needed. For a node that is stepped instead of started.
    pub fn step_upkeep(&self) {
        for directory in &self.engine.directories {
            directory.make_file();
            directory.upkeep_step();
        }
    }

    /// Compacts the partition of each directory that needs it most, on the calling thread, at full speed; `false` when none is
    /// due. For a node that is stepped instead of started.
    pub fn step_compaction(&self) -> bool {
        self.step_compaction_between(&|| false)
    }

    /// As [`Log::step_compaction`]; asks `between` before each piece that is read or written, and before an output takes its inputs'
    /// place, whether the pass is to be given up. It may use the log meanwhile, but not compact.
    pub fn step_compaction_between(&self, between: &dyn Fn() -> bool) -> bool {
        let mut any = false;
        for directory in &self.engine.directories {
            any |= directory.compaction_step(&|_| between());
        }
        any
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
        self.engine.node.topics().get(&name).cloned()
    }

    /// All topics, internal ones included, in the order of their names.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        self.engine.node.topics().values().cloned().collect()
    }

    /// Counts changes of metadata: cached lookups are good as long as it stands still.
    #[must_use]
    pub fn metadata_version(&self) -> u64 {
        self.engine.node.version()
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
            .node
            .common
            .disk
            .random_id()
            .map_err(|e| Refusal::Offline(format!("no randomness for a topic id: {e}")))?;
        // RFC 9562: version 4, variant 10.
        id[6] = (id[6] & 0x0f) | 0x40;
        id[8] = (id[8] & 0x3f) | 0x80;
        let id = TopicId::from_bytes(id);
        let command = Command::CreateTopic { name: name.clone(), id, partitions, settings };
        let sequence = self.engine.node.command(&command)?;
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
        self.engine.node.command(&Command::AlterTopic { name: name.clone(), settings })
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
        let sequence = self.engine.node.command(&command)?;
        Ok((self.known(name)?, sequence))
    }

    /// Deletes a topic: journalled first, then its folder is renamed aside and removed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn delete_topic(&self, name: &TopicName) -> Result<u64, Refusal> {
        self.engine.node.command(&Command::DeleteTopic { name: name.clone() })
    }

    /// Whether the given commit cycle (from a metadata change) is synced; an error when it never will be.
    ///
    /// # Errors
    /// The log went offline.
    pub fn committed(&self, cycle: u64) -> Result<bool, Refusal> {
        if self.engine.node.committed() >= cycle {
            return Ok(true);
        }
        match self.engine.node.offline() {
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
        self.engine.node.common.moved.subscribe()
    }

    /// The id of the first directory that this log ever had: random, made with it; the Kafka cluster id is derived from it.
    #[must_use]
    pub fn directory_id(&self) -> [u8; 16] {
        self.engine.node.id
    }

    /// Records that went before their time to make room since this was last asked. Who asks writes it down: it is said once.
    #[must_use]
    pub fn take_early_removals(&self) -> Vec<EarlyRemoval> {
        let directories = self.engine.node.directories.iter();
        directories.flat_map(|d| d.early.lock().take()).collect()
    }

    /// Counters at this moment.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats::of(&self.engine)
    }

    /// The clock given to `open`.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.engine.node.common.clock
    }
}
