//! The state of metadata, the records that change it, and the pure step from one to the other.
//!
//! Invariant: a record applies whole or not at all, and the same records give the same state anywhere.
//! Neighbours: `decide` makes records, `encoding` has their bytes, `node` and `recovery` apply them.

use super::TopicSettings;
use crate::{LeaderEpoch, TopicId, TopicName};
use std::collections::BTreeMap;

/// Names one partition of one life of a topic in journal frames. Never reused, so that a topic deleted
/// and made again under its name cannot receive old frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionHandle(u64);

impl PartitionHandle {
    /// From the raw number, as on disk.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The raw number, as on disk.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Names one data directory of a node: its place in the order in which they joined. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DirectoryNumber(u16);

impl DirectoryNumber {
    /// The first directory that a node ever had.
    pub const FIRST: Self = Self(0);

    /// From the raw number, as on disk.
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value)
    }

    /// The raw number, as on disk.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Whether the node goes on with a directory or without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryState {
    /// In use: what is decided is journalled there too.
    Present,
    /// Missing or failed: metadata has gone on without it. What it says of metadata counts no more.
    Absent,
    /// Was absent and held no partition: it is forgotten.
    Gone,
}

/// One data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryMetadata {
    /// Its number.
    pub number: DirectoryNumber,
    /// What its superblock says.
    pub id: [u8; 16],
    /// Whether it is in use.
    pub state: DirectoryState,
    /// How often that has changed: a directory that knows of more changes of its own has been taken in again since.
    pub changes: u32,
}

/// One partition: its handle, and where it lives. Neither ever changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Its name in journal frames.
    pub handle: PartitionHandle,
    /// The directory that holds it.
    pub directory: DirectoryNumber,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: TopicName,
    /// Its identity, never reused.
    pub id: TopicId,
    /// Its settings.
    pub settings: TopicSettings,
    /// Index = partition number.
    pub partitions: Vec<PartitionMetadata>,
}

/// All metadata of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataState {
    /// Empty as long as there is only the one that everything began with.
    directories: BTreeMap<DirectoryNumber, DirectoryMetadata>,
    topics: BTreeMap<TopicName, TopicMetadata>,
    names: BTreeMap<TopicId, TopicName>,
    /// The next handle to give out. Rises for ever, also past deleted topics.
    next_handle: u64,
    /// The first producer id that was never given out.
    next_producer_id: i64,
    /// The epoch of this start of the node.
    epoch: LeaderEpoch,
}

/// One change, as it is journalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A topic came into being.
    TopicCreated(TopicMetadata),
    /// A topic got these settings.
    SettingsChanged {
        /// Which topic.
        id: TopicId,
        /// All its settings from now on.
        settings: TopicSettings,
    },
    /// A topic got more partitions, numbered on from its last one.
    PartitionsAdded {
        /// Which topic.
        id: TopicId,
        /// The new ones.
        partitions: Vec<PartitionMetadata>,
    },
    /// A topic is gone, with all its records.
    TopicDeleted {
        /// Which topic.
        id: TopicId,
    },
    /// Producer ids below this one may have been given out.
    ProducerIdsTaken {
        /// The first that was not.
        next: i64,
    },
    /// Partition handles below this one may have been given out.
    HandlesTaken {
        /// The first that was not.
        next: u64,
    },
    /// A new leader epoch began, for every partition.
    EpochStarted {
        /// The epoch.
        epoch: LeaderEpoch,
    },
    /// A directory joined the node, or is now in this state.
    DirectorySet(DirectoryMetadata),
}

/// A record contradicts the state: the journal or the catalog is not this directory's, or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The topic's name or id is taken.
    #[error("metadata record creates topic {0}, which exists")]
    Exists(TopicName),
    /// There is no topic with that id.
    #[error("metadata record names topic id {0:02x?}, which does not exist")]
    Unknown([u8; 16]),
    /// A number that only rises would go back, or a handle would be used twice.
    #[error("metadata record takes {0} back from {1} to {2}")]
    Backwards(&'static str, u64, u64),
    /// The directory is not one of this node's, has another id, or is forgotten though it holds partitions.
    #[error("metadata record does not fit directory {0}")]
    Directory(u16),
}

impl MetadataState {
    /// The topic of that name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&TopicMetadata> {
        self.topics.get(&TopicName::new(name)?)
    }

    /// The topic with that id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&TopicMetadata> {
        self.topics.get(self.names.get(&id)?)
    }

    /// All topics in the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &TopicMetadata> {
        self.topics.values()
    }

    /// All directories in the order in which they joined; none while there has been only one.
    pub fn directories(&self) -> impl Iterator<Item = &DirectoryMetadata> {
        self.directories.values()
    }

    /// How many partitions a directory holds.
    #[must_use]
    pub fn partitions_in(&self, directory: DirectoryNumber) -> usize {
        let all = self.topics.values().flat_map(|topic| &topic.partitions);
        all.filter(|partition| partition.directory == directory).count()
    }

    /// The epoch of this start.
    #[must_use]
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The first producer id that was never given out.
    #[must_use]
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// The first partition handle that was never given out.
    #[must_use]
    pub fn next_handle(&self) -> u64 {
        self.next_handle
    }

    /// Applies one record. The state is unchanged after an error.
    ///
    /// # Errors
    /// [`ApplyError`]: never for a record that [`super::decide`] returned for this state.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), ApplyError> {
        match record {
            MetadataRecord::TopicCreated(topic) => {
                if self.topics.contains_key(&topic.name) || self.names.contains_key(&topic.id) {
                    return Err(ApplyError::Exists(topic.name.clone()));
                }
                self.next_handle = self.handles_after(&topic.partitions)?;
                self.names.insert(topic.id, topic.name.clone());
                self.topics.insert(topic.name.clone(), topic.clone());
            }
            MetadataRecord::SettingsChanged { id, settings } => {
                self.topic_mut(*id)?.settings = settings.clone();
            }
            MetadataRecord::PartitionsAdded { id, partitions } => {
                let next_handle = self.handles_after(partitions)?;
                self.topic_mut(*id)?.partitions.extend_from_slice(partitions);
                self.next_handle = next_handle;
            }
            MetadataRecord::TopicDeleted { id } => {
                let name = self.names.remove(id).ok_or(ApplyError::Unknown(*id.as_bytes()))?;
                self.topics.remove(&name);
            }
            MetadataRecord::ProducerIdsTaken { next } => {
                if *next < self.next_producer_id {
                    let (from, to) = (self.next_producer_id, *next);
                    return Err(ApplyError::Backwards("producer ids", from as u64, to as u64));
                }
                self.next_producer_id = *next;
            }
            MetadataRecord::HandlesTaken { next } => {
                if *next < self.next_handle {
                    return Err(ApplyError::Backwards("handles", self.next_handle, *next));
                }
                self.next_handle = *next;
            }
            MetadataRecord::EpochStarted { epoch } => {
                if *epoch < self.epoch {
                    let (from, to) = (self.epoch.get() as u64, epoch.get() as u64);
                    return Err(ApplyError::Backwards("epoch", from, to));
                }
                self.epoch = *epoch;
            }
            MetadataRecord::DirectorySet(directory) => self.set_directory(directory)?,
        }
        Ok(())
    }

    fn set_directory(&mut self, directory: &DirectoryMetadata) -> Result<(), ApplyError> {
        let number = directory.number;
        let fits = match self.directories.get(&number) {
            Some(known) => known.id == directory.id && known.state != DirectoryState::Gone,
            None => usize::from(number.0) == self.directories.len(),
        };
        let held = directory.state == DirectoryState::Gone && self.partitions_in(number) > 0;
        if !fits || held {
            return Err(ApplyError::Directory(number.0));
        }
        self.directories.insert(number, *directory);
        Ok(())
    }

    /// Records that make an equal state out of an empty one.
    #[must_use]
    pub fn snapshot(&self) -> Vec<MetadataRecord> {
        let topics = topic_records(self.topics.values());
        let directories = self.directories.values().map(|d| MetadataRecord::DirectorySet(*d));
        let mut records: Vec<_> = directories.chain(topics).collect();
        records.push(MetadataRecord::HandlesTaken { next: self.next_handle });
        records.push(MetadataRecord::ProducerIdsTaken { next: self.next_producer_id });
        records.push(MetadataRecord::EpochStarted { epoch: self.epoch });
        records
    }

    /// What `next_handle` is after these, which must all be new and rising, and in directories that there are.
    fn handles_after(&self, partitions: &[PartitionMetadata]) -> Result<u64, ApplyError> {
        let mut next = self.next_handle;
        for PartitionMetadata { handle, directory } in partitions {
            let there = match self.directories.get(directory) {
                Some(known) => known.state != DirectoryState::Gone,
                None => self.directories.is_empty() && *directory == DirectoryNumber::FIRST,
            };
            if !there {
                return Err(ApplyError::Directory(directory.0));
            }
            if handle.0 < next || handle.0 == u64::MAX {
                return Err(ApplyError::Backwards("handles", next, handle.0));
            }
            next = handle.0 + 1;
        }
        Ok(next)
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut TopicMetadata, ApplyError> {
        let name = self.names.get(&id).ok_or(ApplyError::Unknown(*id.as_bytes()))?;
        self.topics.get_mut(name).ok_or(ApplyError::Unknown(*id.as_bytes()))
    }
}

/// Records that make these topics, in the order of their handles, since each record must use handles that were not used before;
/// a topic that grew later gets its later partitions in a record of their own.
pub(crate) fn topic_records<'a>(
    topics: impl Iterator<Item = &'a TopicMetadata>,
) -> Vec<MetadataRecord> {
    let mut records: Vec<(PartitionHandle, MetadataRecord)> = Vec::new();
    for topic in topics {
        let follows = |a: &PartitionMetadata, b: &PartitionMetadata| {
            a.handle.0.checked_add(1) == Some(b.handle.0)
        };
        let mut runs = topic.partitions.chunk_by(follows);
        let first = runs.next().unwrap_or_default().to_vec();
        let key = first.first().map_or(PartitionHandle(0), |p| p.handle);
        let created = TopicMetadata { partitions: first, ..topic.clone() };
        records.push((key, MetadataRecord::TopicCreated(created)));
        for run in runs {
            let (id, partitions) = (topic.id, run.to_vec());
            records.push((run[0].handle, MetadataRecord::PartitionsAdded { id, partitions }));
        }
    }
    records.sort_by_key(|(handle, _)| *handle);
    records.into_iter().map(|(_, record)| record).collect()
}
