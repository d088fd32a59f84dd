//! The node: metadata and what stands for it, above the data directories.
//!
//! Every metadata record is journalled in every directory with its sequence, so that any one of them alone brings back all
//! metadata. A change is *committed* when all directories in use have synced it: the later loss of any one loses nothing. Before
//! the node goes on without a directory that failed, it says so in a record of its own; which is how a later start tells a
//! directory that was left behind from one that is ahead.
//!
//! Invariant: metadata records are queued for the journals in the order in which they were applied, under one lock.
//! Neighbours: `directory` has the files, `engine` holds both, `recovery` makes them.

use crate::journal::{BLOCK_BYTES, CYCLE_BYTES_MAX};
use crate::log::{LogOptions, Topic};
use crate::metadata::{
    Command, DirectoryNumber, Limits, MetadataRecord, MetadataState, Offer, Refusal, TopicMetadata,
    decide,
};
use crate::partition::Partition;
use crate::partition::replay::Identity;
use crate::retention::LogClock;
use crate::shared::{Budget, Common, Shared};
use crate::{LeaderEpoch, PartitionId, TopicName};
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a topic's name in its partitions' folder names: leaves room for a partition number and a handle.
pub(crate) const FOLDER_TOPIC_BYTES_MAX: usize = 200;

/// Bytes that a partition takes in the record of metadata that makes it; the rest of the record is less than a hundred such.
const PARTITION_RECORD_BYTES: usize = 10;

/// Sizes that follow from the options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// A cycle takes no more batches above this.
    pub(crate) cycle_bytes_max: u64,
    /// Metadata frames of one cycle take at most this much, and one record on top, which is no larger.
    pub(crate) control_bytes_max: usize,
    /// Partitions of the cycle before that a cycle names.
    pub(crate) ends_max: usize,
    /// What each directory has for itself: one that is slow takes nothing from the others.
    pub(crate) budget: Budget,
}

impl Sizes {
    pub(crate) fn of(options: &LogOptions) -> Self {
        let file = options.journal_file_bytes;
        let cycle_bytes_max = CYCLE_BYTES_MAX.min(file - BLOCK_BYTES);
        let ends_max = (file as usize / 16 / 24).min(2048);
        let directories = options.dirs.len().max(1);
        Self {
            cycle_bytes_max,
            control_bytes_max: (cycle_bytes_max as usize / 4).min(1 << 20),
            ends_max,
            budget: Budget {
                uncommitted_bytes_max: options.uncommitted_bytes_max / directories,
                tail_bytes_max: options.tail_bytes_max / directories,
                journal_batch_bytes_max: file as usize - 3 * BLOCK_BYTES as usize - ends_max * 24,
                reserved_bytes: options.reserved_bytes,
                open_files_max: (options.open_files_max / directories).max(1),
            },
        }
    }
}

/// Topics by name, as readers see them.
pub(crate) type Topics = BTreeMap<TopicName, Topic>;

/// Metadata and what stands for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metadata {
    pub(crate) state: MetadataState,
    /// Sequence of the last record decided.
    pub(crate) sequence: u64,
}

pub(crate) struct Node {
    pub(crate) options: LogOptions,
    pub(crate) limits: Sizes,
    pub(crate) common: Common,
    /// The first directory's id.
    pub(crate) id: [u8; 16],
    /// By number; those that are missing too, offline.
    pub(crate) directories: Vec<Arc<Shared>>,
    metadata: Mutex<Metadata>,
    topics: RwLock<Arc<Topics>>,
    version: AtomicU64,
    log_clock: Mutex<LogClock>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("directories", &self.directories).finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn new(
        options: LogOptions,
        common: Common,
        id: [u8; 16],
        directories: Vec<Arc<Shared>>,
        metadata: Metadata,
        topics: Topics,
        log_clock: LogClock,
    ) -> Self {
        Self {
            limits: Sizes::of(&options),
            options,
            common,
            id,
            directories,
            metadata: Mutex::new(metadata),
            topics: RwLock::new(Arc::new(topics)),
            version: AtomicU64::new(1),
            log_clock: Mutex::new(log_clock),
        }
    }

    /// Decides a command, applies its records and queues them for the journals. Returns the sequence to wait for.
    pub(crate) fn command(&self, command: &Command) -> Result<u64, Refusal> {
        let offers = match command {
            Command::CreateTopic { .. } | Command::AddPartitions { .. } => self.offers(),
            _ => Vec::new(),
        };
        let mut metadata = self.metadata.lock();
        self.admit()?;
        self.command_locked(&mut metadata, &offers, command)
    }

    /// A block of producer ids: the first, and the sequence to wait for before one is given out.
    pub(crate) fn take_producer_ids(&self, count: u32) -> Result<(i64, u64), Refusal> {
        let mut metadata = self.metadata.lock();
        self.admit()?;
        let first = metadata.state.next_producer_id();
        let command = Command::TakeProducerIds { count };
        Ok((first, self.command_locked(&mut metadata, &[], &command)?))
    }

    /// A new leader epoch, for a partition whose tail was cut; to be used once the metadata record of this sequence is committed.
    pub(crate) fn next_epoch(&self) -> (LeaderEpoch, u64) {
        let mut metadata = self.metadata.lock();
        // Refused only when offline, where no epoch matters any more.
        let _ = self.command_locked(&mut metadata, &[], &Command::StartEpoch);
        (metadata.state.epoch(), metadata.sequence)
    }

    /// Whether a command from outside may go on now. With the metadata locked.
    fn admit(&self) -> Result<(), Refusal> {
        if self.is_closing() {
            return Err(Refusal::Offline("it is being closed".to_owned()));
        }
        Ok(())
    }

    /// Lets nothing new begin: what has begun ends before this returns.
    pub(crate) fn begin_closing(&self) {
        self.common.closing.store(true, Ordering::Release);
        drop(self.metadata.lock());
        for partition in self.partitions() {
            partition.finish_append();
        }
    }

    fn is_closing(&self) -> bool {
        self.common.closing.load(Ordering::Acquire)
    }

    /// Where new partitions may go.
    fn offers(&self) -> Vec<Offer> {
        let online = self.directories.iter().filter(|d| !d.is_offline());
        let offer = |d: &Arc<Shared>| Offer {
            directory: d.number,
            // A filesystem that does not say counts as full: the others come first.
            free_bytes: d.disk.space(&d.path).map_or(0, |space| space.free_bytes),
        };
        online.map(offer).collect()
    }

    fn command_locked(
        &self,
        metadata: &mut Metadata,
        offers: &[Offer],
        command: &Command,
    ) -> Result<u64, Refusal> {
        if let Some(reason) = self.offline() {
            return Err(Refusal::Offline(reason));
        }
        self.leave_failed(metadata)?;
        self.decide(metadata, offers, command)
    }

    fn decide(
        &self,
        metadata: &mut Metadata,
        offers: &[Offer],
        command: &Command,
    ) -> Result<u64, Refusal> {
        let limits = Limits {
            topics_max: self.options.topics_max,
            partitions_max: self.options.partitions_max,
        };
        let records = decide(&metadata.state, limits, offers, command)?;
        self.check_fits(&records)?;
        for record in &records {
            self.apply(metadata, record)?;
        }
        if !records.is_empty() {
            self.wake();
        }
        Ok(metadata.sequence)
    }

    /// Refuses what no cycle could take: the directories would have to stop at it.
    fn check_fits(&self, records: &[MetadataRecord]) -> Result<(), Refusal> {
        let bytes_max = self.limits.control_bytes_max;
        let mut encoded = Vec::new();
        for record in records {
            encoded.clear();
            record.encode(&mut encoded);
            if encoded.len() > bytes_max {
                let partitions = (bytes_max / PARTITION_RECORD_BYTES).saturating_sub(100);
                let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
                return Err(Refusal::Limit(
                    partitions,
                    "partitions at once with journal files this small",
                ));
            }
        }
        Ok(())
    }

    /// Goes on without the directories that have failed, and says so in the others' journals.
    pub(crate) fn note_failures(&self) {
        let failed =
            |d: &Arc<Shared>| d.is_offline() && d.absent_since.load(Ordering::Acquire) == 0;
        if self.directories.len() > 1 && !self.is_closing() && self.directories.iter().any(failed) {
            let mut metadata = self.metadata.lock();
            // Refused only when all are offline: then nothing goes on.
            let _ = self.leave_failed(&mut metadata);
        }
    }

    fn leave_failed(&self, metadata: &mut Metadata) -> Result<(), Refusal> {
        if self.directories.len() == 1 || self.is_closing() || self.offline().is_some() {
            return Ok(());
        }
        for directory in &self.directories {
            if directory.is_offline() && directory.absent_since.load(Ordering::Acquire) == 0 {
                let leave = Command::LeaveDirectory { number: directory.number };
                let sequence = self.decide(metadata, &[], &leave)?;
                directory.absent_since.store(sequence, Ordering::Release);
            }
        }
        Ok(())
    }

    fn apply(&self, metadata: &mut Metadata, record: &MetadataRecord) -> Result<(), Refusal> {
        let deleted = match record {
            MetadataRecord::TopicDeleted { id } => {
                metadata.state.topic_by_id(*id).map(|t| t.name.clone())
            }
            _ => None,
        };
        // `decide` promises records that apply; if it broke its word the log must not go on.
        metadata.state.apply(record).map_err(|e| {
            for directory in &self.directories {
                directory.go_offline(format!("metadata: {e}"));
            }
            Refusal::Offline(e.to_string())
        })?;
        metadata.sequence += 1;
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        for directory in self.directories.iter().filter(|d| !d.is_offline()) {
            let mut controls = directory.controls.lock();
            controls.metadata.push_back((metadata.sequence, encoded.clone()));
        }
        match record {
            MetadataRecord::TopicCreated(topic) => self.place_topic(metadata, &topic.name),
            MetadataRecord::SettingsChanged { id, .. }
            | MetadataRecord::PartitionsAdded { id, .. } => {
                if let Some(name) = metadata.state.topic_by_id(*id).map(|t| t.name.clone()) {
                    self.place_topic(metadata, &name);
                }
            }
            MetadataRecord::TopicDeleted { .. } => {
                if let Some(name) = deleted {
                    self.remove_topic(&name, metadata.sequence);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes the topic that readers see equal to its metadata.
    fn place_topic(&self, metadata: &Metadata, name: &TopicName) {
        let Some(wanted) = metadata.state.topic(name.as_str()) else { return };
        let mut topics = self.topics.write();
        let mut partitions = topics.get(name).map(|t| t.partitions().to_vec()).unwrap_or_default();
        let settings = Arc::new(wanted.settings.clone());
        for partition in &partitions {
            partition.set_settings(&settings);
        }
        for (number, placed) in wanted.partitions.iter().enumerate().skip(partitions.len()) {
            let shared = directory(&self.directories, placed.directory);
            let handle = placed.handle.get();
            let identity = identity(&shared.path, wanted, number, handle, metadata.sequence);
            let settings = Arc::clone(&settings);
            let epoch = metadata.state.epoch();
            partitions.push(Partition::new(identity, settings, None, epoch, shared));
        }
        Arc::make_mut(&mut topics).insert(name.clone(), Topic::new(wanted, partitions));
        drop(topics);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    fn remove_topic(&self, name: &TopicName, sequence: u64) {
        let mut topics = self.topics.write();
        let Some(topic) = Arc::make_mut(&mut topics).remove(name) else { return };
        drop(topics);
        for partition in topic.partitions() {
            partition.end();
            let shared = partition.shared();
            // What is in a directory that is offline goes when it comes back.
            if !shared.is_offline() {
                shared.controls.lock().deleted.push((sequence, Arc::clone(partition)));
            }
        }
        self.version.fetch_add(1, Ordering::AcqRel);
        self.common.moved.send_modify(|n| *n += 1);
    }

    /// The metadata, as it is now.
    pub(crate) fn metadata(&self) -> MutexGuard<'_, Metadata> {
        self.metadata.lock()
    }

    pub(crate) fn topics(&self) -> Arc<Topics> {
        Arc::clone(&self.topics.read())
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// All partitions of all topics.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics().values().flat_map(|t| t.partitions().iter().cloned()).collect()
    }

    /// Why nothing at all can be written, if so: the first directory's reason.
    pub(crate) fn offline(&self) -> Option<String> {
        let mut reasons = self.directories.iter().map(|d| d.offline());
        let first = reasons.next().flatten()?;
        reasons.all(|reason| reason.is_some()).then_some(first)
    }

    /// The last metadata record that is committed: all directories in use have synced it.
    pub(crate) fn committed(&self) -> u64 {
        self.committed_beside(None)
    }

    /// As [`Node::committed`], as far as the other directories are concerned.
    pub(crate) fn committed_beside(&self, me: Option<&Shared>) -> u64 {
        let (mut in_use, mut left_at, mut left_behind) = (u64::MAX, 0, u64::MAX);
        for directory in &self.directories {
            if me.is_some_and(|me| me.number == directory.number) {
                continue;
            }
            let committed = directory.committed_sequence.load(Ordering::Acquire);
            match directory.absent_since.load(Ordering::Acquire) {
                0 => in_use = in_use.min(committed),
                since => {
                    left_at = left_at.max(since);
                    left_behind = left_behind.min(committed);
                }
            }
        }
        // A directory counts until it is durable elsewhere that it no longer does.
        if in_use >= left_at { in_use } else { in_use.min(left_behind) }
    }

    /// Wakes the commit threads of all directories.
    pub(crate) fn wake(&self) {
        for directory in &self.directories {
            directory.queue.wake();
        }
    }

    /// Moves the log clock on, as the partitions of a directory see it.
    pub(crate) fn tick_log_clock(&self, directory: &Shared) {
        let clock = &*self.common.clock;
        let now =
            self.log_clock.lock().tick(clock.wall_ms(), clock.monotonic_ns(), clock.is_trusted());
        directory.log_clock_ms.store(now, Ordering::Relaxed);
    }

    /// Whether age may be judged now.
    pub(crate) fn may_delete(&self) -> bool {
        self.log_clock.lock().may_delete()
    }
}

/// The directory of that number. Metadata names only those that it has, and there is one of these for each.
pub(crate) fn directory(directories: &[Arc<Shared>], number: DirectoryNumber) -> &Arc<Shared> {
    let found = directories.iter().find(|d| d.number == number);
    let Some(found) = found else { unreachable!("directory {number:?} is not in the metadata") };
    found
}

/// Who the partition of this number is. `created` is the metadata record that made it, 0 for one that a start found.
pub(crate) fn identity(
    dir: &Path,
    topic: &TopicMetadata,
    number: usize,
    handle: u64,
    created: u64,
) -> Identity {
    Identity {
        topic: topic.name.clone(),
        topic_id: topic.id,
        id: PartitionId::new(i32::try_from(number).unwrap_or(i32::MAX)).unwrap_or_default(),
        handle,
        folder: dir.join("topics").join(folder_name(&topic.name, number, handle)),
        created,
    }
}

/// `<topic>-<partition>.<handle>`: Kafka's name, and what tells a topic from one that had its name before. A crash may leave
/// both folders, and records of the old one must never be taken for the new one's. A file name has at most 255 bytes, so a
/// long topic name is cut; the handle is enough.
fn folder_name(topic: &TopicName, number: usize, handle: u64) -> String {
    let name = topic.as_str();
    format!("{}-{number}.{handle:x}", &name[..name.len().min(FOLDER_TOPIC_BYTES_MAX)])
}
