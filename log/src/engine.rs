//! The engine behind [`crate::Log`]: metadata, the committer and the checkpointer, and what joins them.
//!
//! Invariant: metadata records are queued for the journal in the order in which they were applied, under one lock.
//! Neighbours: `log` is its public face, `threads` runs its steps, `recovery` makes it.

use crate::checkpoint::Checkpointer;
use crate::clock::Clock;
use crate::commit::Committer;
use crate::disk::LockGuard;
use crate::journal::{BLOCK_BYTES, CYCLE_BYTES_MAX, Maker, Mark};
use crate::log::{LogOptions, Topic};
use crate::metadata::{
    Command, Limits, MetadataRecord, MetadataState, Refusal, TopicMetadata, decide,
};
use crate::partition::Partition;
use crate::partition::replay::Identity;
use crate::retention::{LogClock, Upkeep};
use crate::shared::Shared;
use crate::{LeaderEpoch, PartitionId, TopicName};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a topic's name in its partitions' folder names: leaves room for a partition number and a handle.
const FOLDER_TOPIC_BYTES_MAX: usize = 200;
/// Producer ids taken from the metadata at a time.
const PRODUCER_IDS_PER_BLOCK: u32 = 1000;

/// Sizes that follow from the options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// A cycle takes no more batches above this.
    pub(crate) cycle_bytes_max: u64,
    /// Metadata frames of one cycle take at most this much.
    pub(crate) control_bytes_max: usize,
    /// Partitions of the cycle before that a cycle names.
    pub(crate) ends_max: usize,
    /// The largest batch that fits a cycle of its own.
    pub(crate) batch_bytes_max: usize,
}

impl Sizes {
    pub(crate) fn of(options: &LogOptions) -> Self {
        let file = options.journal_file_bytes;
        let cycle_bytes_max = CYCLE_BYTES_MAX.min(file - BLOCK_BYTES);
        let ends_max = (file as usize / 16 / 24).min(2048);
        Self {
            cycle_bytes_max,
            control_bytes_max: (cycle_bytes_max as usize / 4).min(1 << 20),
            ends_max,
            batch_bytes_max: file as usize - 3 * BLOCK_BYTES as usize - ends_max * 24,
        }
    }
}

/// Topics by name, as readers see them.
pub(crate) type Topics = BTreeMap<TopicName, Topic>;

/// Metadata and what stands for it.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) state: MetadataState,
    /// Sequence of the last record decided.
    pub(crate) sequence: u64,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) options: LogOptions,
    pub(crate) limits: Sizes,
    pub(crate) shared: Arc<Shared>,
    pub(crate) directory_id: [u8; 16],
    pub(crate) metadata: Mutex<Metadata>,
    pub(crate) topics: RwLock<Arc<Topics>>,
    pub(crate) version: AtomicU64,
    pub(crate) committer: Mutex<Committer>,
    pub(crate) checkpointer: Mutex<Checkpointer>,
    pub(crate) maker: Arc<Maker>,
    /// The last cycle that is wholly published.
    pub(crate) mark: Mutex<Mark>,
    pub(crate) committed_sequence: AtomicU64,
    pub(crate) log_clock: Mutex<LogClock>,
    pub(crate) upkeep: Mutex<Upkeep>,
    pub(crate) full: Mutex<Vec<Arc<Partition>>>,
    /// Ids given out from the current block: (next, end).
    pub(crate) producer_ids: Mutex<(i64, i64)>,
    pub(crate) wanted: Wanted,
    pub(crate) lock: Mutex<Option<Box<dyn LockGuard>>>,
}

/// What the background threads are asked for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) state: Mutex<WantedState>,
    pub(crate) changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct WantedState {
    pub(crate) checkpoint: bool,
    /// A journal file ahead of need.
    pub(crate) file: bool,
    pub(crate) stop: bool,
}

impl Engine {
    /// Decides a command, applies its records and queues them for the journal. Returns the sequence to wait for.
    pub(crate) fn command(&self, command: &Command) -> Result<u64, Refusal> {
        let mut metadata = self.metadata.lock();
        self.admit()?;
        self.command_locked(&mut metadata, command)
    }

    /// Whether a command from outside may go on now. With the metadata locked.
    fn admit(&self) -> Result<(), Refusal> {
        self.shared.refuses().map_or(Ok(()), |reason| Err(Refusal::Offline(reason)))
    }

    fn command_locked(&self, metadata: &mut Metadata, command: &Command) -> Result<u64, Refusal> {
        if let Some(reason) = self.shared.offline() {
            return Err(Refusal::Offline(reason));
        }
        let limits = Limits {
            topics_max: self.options.topics_max,
            partitions_max: self.options.partitions_max,
        };
        let records = decide(&metadata.state, limits, command)?;
        for record in &records {
            self.apply(metadata, record)?;
        }
        if !records.is_empty() {
            self.shared.queue.wake();
        }
        Ok(metadata.sequence)
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
            self.shared.go_offline(format!("metadata: {e}"));
            Refusal::Offline(e.to_string())
        })?;
        metadata.sequence += 1;
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        {
            let mut controls = self.shared.controls.lock();
            controls.metadata.push_back((metadata.sequence, encoded));
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
        let present = topics.get(name).map(|t| t.partitions().to_vec()).unwrap_or_default();
        let epoch = metadata.state.epoch();
        let topic = self.make_topic(wanted, present, epoch);
        Arc::make_mut(&mut topics).insert(name.clone(), topic);
        drop(topics);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    fn make_topic(
        &self,
        wanted: &TopicMetadata,
        mut partitions: Vec<Arc<Partition>>,
        epoch: LeaderEpoch,
    ) -> Topic {
        for partition in &partitions {
            partition.set_settings(&wanted.settings);
        }
        for (number, handle) in wanted.partitions.iter().enumerate().skip(partitions.len()) {
            let identity = identity(&self.options.dir, wanted, number, handle.get());
            let settings = wanted.settings.clone();
            partitions.push(Partition::new(identity, settings, None, epoch, &self.shared));
        }
        Topic::new(wanted, partitions)
    }

    fn remove_topic(&self, name: &TopicName, sequence: u64) {
        let mut topics = self.topics.write();
        let Some(topic) = Arc::make_mut(&mut topics).remove(name) else { return };
        drop(topics);
        let mut controls = self.shared.controls.lock();
        for partition in topic.partitions() {
            partition.end();
            controls.deleted.push((sequence, Arc::clone(partition)));
        }
        drop(controls);
        self.version.fetch_add(1, Ordering::AcqRel);
        self.shared.notify();
    }

    /// All partitions of all topics.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        let topics = Arc::clone(&self.topics.read());
        topics.values().flat_map(|t| t.partitions().iter().cloned()).collect()
    }

    /// A new leader epoch, for a partition whose tail was cut.
    pub(crate) fn next_epoch(&self) -> LeaderEpoch {
        let mut metadata = self.metadata.lock();
        // Refused only when offline, where no epoch matters any more.
        let _ = self.command_locked(&mut metadata, &Command::StartEpoch);
        metadata.state.epoch()
    }

    pub(crate) fn note_full(&self, partition: &Arc<Partition>) {
        self.full.lock().push(Arc::clone(partition));
    }

    /// Runs cycles until the record of this sequence is synced.
    pub(crate) fn commit_until(&self, sequence: u64) -> Result<(), Refusal> {
        while self.committed_sequence.load(Ordering::Acquire) < sequence {
            if let Some(reason) = self.shared.offline() {
                return Err(Refusal::Offline(reason));
            }
            let stepped = self.committer.lock().step(self);
            let waits = self.committed_sequence.load(Ordering::Acquire) < sequence;
            // Nothing was written though this record waits: there is no room for it now.
            if waits && !self.shared.is_offline() && (!stepped || self.full_disk()) {
                return Err(Refusal::Offline("the disk is full".to_owned()));
            }
        }
        Ok(())
    }

    fn full_disk(&self) -> bool {
        self.shared.counters.partitions_full.load(Ordering::Relaxed) > 0
    }

    /// The next producer id, from a block that is durable.
    pub(crate) fn next_producer_id(&self) -> Result<i64, Refusal> {
        let mut block = self.producer_ids.lock();
        if block.0 == block.1 {
            let (first, sequence) = {
                let mut metadata = self.metadata.lock();
                self.admit()?;
                let first = metadata.state.next_producer_id();
                let count = PRODUCER_IDS_PER_BLOCK;
                let command = Command::TakeProducerIds { count };
                (first, self.command_locked(&mut metadata, &command)?)
            };
            self.commit_until(sequence)?;
            *block = (first, first + i64::from(PRODUCER_IDS_PER_BLOCK));
        }
        let id = block.0;
        block.0 += 1;
        Ok(id)
    }

    /// Moves a deleted partition's folder aside; the upkeep removes what is in it.
    pub(crate) fn put_aside(&self, partition: &Partition) {
        // Whoever is writing or removing files by their names ends first: a topic made again has the same ones.
        let _exclusive = partition.exclusive_files();
        partition.forget_files();
        let aside = aside(&self.options.dir, partition.handle());
        match self.shared.disk.rename(partition.folder(), &aside) {
            Ok(()) => self.upkeep.lock().sweep(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            // The next start moves it.
            Err(e) => {
                tracing::warn!(?partition, error = %e, "could not move a deleted topic aside");
            }
        }
    }

    pub(crate) fn ask_checkpoint(&self) {
        let mut state = self.wanted.state.lock();
        if !std::mem::replace(&mut state.checkpoint, true) {
            self.wanted.changed.notify_all();
        }
    }

    pub(crate) fn ask_file(&self) {
        let mut state = self.wanted.state.lock();
        if !std::mem::replace(&mut state.file, true) {
            self.wanted.changed.notify_all();
        }
    }

    /// Makes a journal file if one is asked for.
    pub(crate) fn make_file(&self) {
        if !std::mem::take(&mut self.wanted.state.lock().file) {
            return;
        }
        if let Err(e) = self.maker.make_one() {
            // Commits use the files there are, and checkpoint more often.
            tracing::warn!(error = %e, "could not make a journal file ahead of need");
        }
    }

    /// Moves the log clock on.
    pub(crate) fn tick_log_clock(&self) {
        let clock: &dyn Clock = &*self.shared.clock;
        let now =
            self.log_clock.lock().tick(clock.wall_ms(), clock.monotonic_ns(), clock.is_trusted());
        self.shared.log_clock_ms.store(now, Ordering::Relaxed);
    }
}

/// Where a deleted partition's folder waits for its removal.
pub(crate) fn aside(dir: &std::path::Path, handle: u64) -> PathBuf {
    dir.join("topics").join(format!("{handle:016x}.deleted"))
}

/// Who the partition of this number is.
pub(crate) fn identity(
    dir: &std::path::Path,
    topic: &TopicMetadata,
    number: usize,
    handle: u64,
) -> Identity {
    Identity {
        topic: topic.name.clone(),
        topic_id: topic.id,
        id: PartitionId::new(i32::try_from(number).unwrap_or(i32::MAX)).unwrap_or_default(),
        handle,
        folder: dir.join("topics").join(folder_name(&topic.name, number, handle)),
    }
}

/// `<topic>-<partition>.<handle>`: Kafka's name, and what tells a topic from one that had its name before. A crash may leave
/// both folders, and records of the old one must never be taken for the new one's. A file name has at most 255 bytes, so a
/// long topic name is cut; the handle is enough.
fn folder_name(topic: &TopicName, number: usize, handle: u64) -> String {
    let name = topic.as_str();
    format!("{}-{number}.{handle:x}", &name[..name.len().min(FOLDER_TOPIC_BYTES_MAX)])
}
