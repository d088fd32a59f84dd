//! Metadata made up from what is left of it: records in the journal, and the names of folders.
//!
//! A folder's name tells topic, partition and handle. A record in the journal tells the rest; what no record tells is set so that
//! nothing is deleted because of it: no retention, no compaction. The configuration sets what it names when the node starts.
//!
//! Invariant: every handle that a file or a frame names belongs to some partition afterwards, or to a topic that was deleted, or
//! its folder goes aside: the start that follows removes what belongs to nobody.
//! Neighbours: [`super::ring`] has the records, `metadata` applies what is decided here.

use super::ring::Ring;
use crate::metadata::{
    DirectoryMetadata, DirectoryNumber, DirectoryState, MetadataRecord, MetadataState,
    PartitionHandle, PartitionMetadata, TopicMetadata, TopicSettings, topic_records,
};
use crate::node::FOLDER_TOPIC_BYTES_MAX;
use crate::{LeaderEpoch, TopicId, TopicName};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// No folder's name is believed to be of a partition above this.
const PARTITIONS_MAX: usize = 100_000;
/// Producer ids that may have been given out without a trace.
const PRODUCER_IDS_LEAP: i64 = 1 << 32;

/// A partition's folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Which of the directories it is in.
    pub(super) directory: usize,
    topic: TopicName,
    number: usize,
    handle: u64,
}

impl Folder {
    /// `None` for a name that is not a partition's.
    pub(super) fn of(path: PathBuf, directory: usize) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_owned();
        let (rest, handle) = name.rsplit_once('.')?;
        let (topic, number) = rest.rsplit_once('-')?;
        let folder = Self {
            directory,
            topic: TopicName::new(topic)?,
            number: number.parse().ok().filter(|n| *n < PARTITIONS_MAX)?,
            handle: u64::from_str_radix(handle, 16).ok().filter(|h| *h < u64::MAX)?,
            path,
        };
        Some(folder)
    }

    /// Whether its name may be only the beginning of the topic's.
    fn is_cut(&self) -> bool {
        self.topic.as_str().len() >= FOLDER_TOPIC_BYTES_MAX
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) state: MetadataState,
    /// Above every sequence that was ever used.
    pub(super) sequence: u64,
    /// Folders that belong to no partition now.
    pub(super) strays: Vec<PathBuf>,
    /// What a person should know, a sentence each.
    pub(super) notes: Vec<String>,
}

/// One of the directories.
pub(super) struct Seat<'a> {
    pub(super) id: [u8; 16],
    pub(super) ring: &'a Ring,
}

/// Makes metadata for directories of which none has any. The error says why that cannot be.
pub(super) fn make(
    seats: &[Seat<'_>],
    folders: &[Folder],
    topic_id: impl FnMut() -> TopicId + Copy,
) -> Result<Made, String> {
    let made = attempt(Known::of(seats)?, seats, folders, topic_id);
    made.or_else(|why| {
        // Records between those that are left may be rotten. What folders tell stands by itself.
        let mut known = Known::of(seats)?;
        known.topics.clear();
        let mut made = attempt(known, seats, folders, topic_id)?;
        made.notes.insert(0, format!("what the journal has of topics is not used: {why}"));
        Ok(made)
    })
}

fn attempt(
    mut known: Known,
    seats: &[Seat<'_>],
    folders: &[Folder],
    mut topic_id: impl FnMut() -> TopicId,
) -> Result<Made, String> {
    let mut notes = Vec::new();
    let strays = known.add_folders(folders, &mut topic_id, &mut notes)?;
    known.add_handles(seats, &mut topic_id, &mut notes);
    let mut state = MetadataState::default();
    let topics = topic_records(known.topics.values());
    known.directories.sort_by_key(|d| d.number);
    let directories = known.directories.into_iter().map(MetadataRecord::DirectorySet);
    let next = known.handles.last().map_or(0, |last| last + 1).max(known.next_handle);
    let producers = seats.iter().map(|seat| seat.ring.producer_ids).max().unwrap_or(0);
    let producers = producers.max(known.producer_ids).saturating_add(PRODUCER_IDS_LEAP);
    let rest = [
        MetadataRecord::HandlesTaken { next },
        MetadataRecord::ProducerIdsTaken { next: producers },
        MetadataRecord::EpochStarted { epoch: known.epoch },
    ];
    for record in directories.chain(topics).chain(rest) {
        state.apply(&record).map_err(|e| format!("what is left of its metadata disagrees: {e}"))?;
    }
    Ok(Made { state, sequence: known.sequence + 1, strays, notes })
}

/// What is gathered.
struct Known {
    directories: Vec<DirectoryMetadata>,
    topics: BTreeMap<TopicName, TopicMetadata>,
    /// Of partitions, living and deleted.
    handles: BTreeSet<u64>,
    /// Handles of topics that were deleted.
    dead: BTreeSet<u64>,
    next_handle: u64,
    producer_ids: i64,
    epoch: LeaderEpoch,
    sequence: u64,
}

impl Known {
    /// From the records that the journals hold, the newer of two with one sequence.
    fn of(seats: &[Seat<'_>]) -> Result<Self, String> {
        let mut records: BTreeMap<u64, (u64, &MetadataRecord)> = BTreeMap::new();
        for (sequence, (generation, record)) in seats.iter().flat_map(|seat| &seat.ring.records) {
            let there = records.entry(*sequence).or_insert((*generation, record));
            if there.0 < *generation {
                *there = (*generation, record);
            }
        }
        let mut known = Self {
            directories: directories(seats, records.values().map(|(_, record)| *record))?,
            topics: BTreeMap::new(),
            handles: BTreeSet::new(),
            dead: BTreeSet::new(),
            next_handle: 0,
            producer_ids: 0,
            epoch: LeaderEpoch::default(),
            sequence: records.last_key_value().map_or(0, |(sequence, _)| *sequence),
        };
        for (_, record) in records.values() {
            known.apply(record);
        }
        Ok(known)
    }

    fn apply(&mut self, record: &MetadataRecord) {
        let by_id = |topics: &BTreeMap<TopicName, TopicMetadata>, id: TopicId| {
            topics.values().find(|topic| topic.id == id).map(|topic| topic.name.clone())
        };
        match record {
            MetadataRecord::TopicCreated(topic) => {
                // Its deletion, and whatever came between, is not in the journal any more.
                if let Some(before) = self.topics.insert(topic.name.clone(), topic.clone()) {
                    self.dead.extend(before.partitions.iter().map(|p| p.handle.get()));
                }
                self.handles.extend(topic.partitions.iter().map(|p| p.handle.get()));
            }
            MetadataRecord::SettingsChanged { id, settings } => {
                if let Some(name) = by_id(&self.topics, *id)
                    && let Some(topic) = self.topics.get_mut(&name)
                {
                    topic.settings = settings.clone();
                }
            }
            MetadataRecord::PartitionsAdded { id, partitions } => {
                self.handles.extend(partitions.iter().map(|p| p.handle.get()));
                if let Some(name) = by_id(&self.topics, *id)
                    && let Some(topic) = self.topics.get_mut(&name)
                {
                    topic.partitions.extend_from_slice(partitions);
                }
            }
            MetadataRecord::TopicDeleted { id } => {
                if let Some(topic) = by_id(&self.topics, *id).and_then(|n| self.topics.remove(&n)) {
                    self.dead.extend(topic.partitions.iter().map(|p| p.handle.get()));
                }
            }
            MetadataRecord::ProducerIdsTaken { next } => {
                self.producer_ids = self.producer_ids.max(*next);
            }
            MetadataRecord::HandlesTaken { next } => self.next_handle = self.next_handle.max(*next),
            MetadataRecord::EpochStarted { epoch } => self.epoch = self.epoch.max(*epoch),
            MetadataRecord::DirectorySet(_) => {}
        }
    }

    fn directory(&self, index: usize) -> DirectoryNumber {
        // Without a list there is one directory.
        self.directories.get(index).map_or(DirectoryNumber::FIRST, |d| d.number)
    }

    /// Gives every folder its partition; answers with those that have none.
    fn add_folders(
        &mut self,
        folders: &[Folder],
        topic_id: &mut impl FnMut() -> TopicId,
        notes: &mut Vec<String>,
    ) -> Result<Vec<PathBuf>, String> {
        let mut strays = Vec::new();
        self.drop_former_lives(folders);
        let mut new: BTreeMap<&TopicName, BTreeMap<usize, &Folder>> = BTreeMap::new();
        for folder in folders {
            let handle = PartitionHandle::new(folder.handle);
            if self.dead.contains(&folder.handle) {
                continue;
            }
            let directory = self.directory(folder.directory);
            let mut all = self.topics.values_mut().flat_map(|topic| {
                topic.partitions.iter_mut().enumerate().map(|(n, p)| (&topic.name, n, p))
            });
            if let Some((name, number, partition)) = all.find(|(_, _, p)| p.handle == handle) {
                if (name, number) != (&folder.topic, folder.number) && !folder.is_cut() {
                    let folder = folder.path.display();
                    return Err(format!("{folder} is partition {number} of {name} by its handle"));
                }
                partition.directory = directory;
                continue;
            }
            let there = self.topics.get(&folder.topic).map_or(0, |t| t.partitions.len());
            if folder.number < there {
                strays.push(folder.path.clone());
                continue;
            }
            // Of two lives of a topic the later one counts.
            let others = new.entry(&folder.topic).or_default();
            match others.insert(folder.number, folder) {
                Some(other) if other.handle > folder.handle => {
                    others.insert(folder.number, other);
                    strays.push(folder.path.clone());
                }
                Some(other) => strays.push(other.path.clone()),
                None => {}
            }
        }
        self.handles.extend(folders.iter().map(|folder| folder.handle));
        for (name, found) in new {
            self.add_partitions(name, &found, topic_id, notes)?;
        }
        Ok(strays)
    }

    /// A folder with a higher handle than all of a topic's is of a later topic of its name: the deletion between them is not in the
    /// journal any more.
    fn drop_former_lives(&mut self, folders: &[Folder]) {
        for folder in folders {
            let Some(topic) = self.topics.get(&folder.topic) else { continue };
            let handles: Vec<u64> = topic.partitions.iter().map(|p| p.handle.get()).collect();
            let is_later = handles.iter().all(|handle| *handle < folder.handle);
            let is_dead = self.dead.contains(&folder.handle);
            if is_later && folder.number < handles.len() && !is_dead {
                self.dead.extend(handles);
                self.topics.remove(&folder.topic);
            }
        }
    }

    /// A topic's partitions that only folders tell of, and those between them that never had a folder.
    fn add_partitions(
        &mut self,
        name: &TopicName,
        found: &BTreeMap<usize, &Folder>,
        topic_id: &mut impl FnMut() -> TopicId,
        notes: &mut Vec<String>,
    ) -> Result<(), String> {
        let is_new = !self.topics.contains_key(name);
        let from = self.topics.get(name).map_or(0, |topic| topic.partitions.len());
        let last = found.last_key_value().map_or(0, |(number, _)| *number);
        let mut above = u64::MAX;
        let mut added = Vec::new();
        for number in (from..=last).rev() {
            let (handle, directory) = match found.get(&number) {
                Some(folder) => (folder.handle, self.directory(folder.directory)),
                // The one below is most likely its own: a topic's partitions are made together.
                None => {
                    let mut free = (0..above).rev().filter(|handle| !self.handles.contains(handle));
                    let handle = free.next().ok_or_else(|| {
                        format!("folders of topic {name} have handles that do not rise")
                    })?;
                    (handle, DirectoryNumber::FIRST)
                }
            };
            if handle >= above {
                return Err(format!("folders of topic {name} have handles that do not rise"));
            }
            self.handles.insert(handle);
            above = handle;
            added.push(PartitionMetadata { handle: PartitionHandle::new(handle), directory });
        }
        added.reverse();
        let topic = self.topics.entry(name.clone()).or_insert_with(|| TopicMetadata {
            name: name.clone(),
            id: topic_id(),
            settings: cautious(),
            partitions: Vec::new(),
        });
        topic.partitions.append(&mut added);
        notes.push(match is_new {
            true => format!(
                "topic {name}: known by its folders alone: it gets a new id, at least {} partitions, and settings that delete \
                 nothing, until the configuration or somebody says otherwise",
                last + 1
            ),
            false => format!("topic {name}: partitions {from} to {last} are known by their folders alone"),
        });
        Ok(())
    }

    /// Partitions that only the journal's batches tell of: a partition that is new has no folder yet.
    fn add_handles(
        &mut self,
        seats: &[Seat<'_>],
        topic_id: &mut impl FnMut() -> TopicId,
        notes: &mut Vec<String>,
    ) {
        for (index, seat) in seats.iter().enumerate() {
            for handle in &seat.ring.handles {
                if self.dead.contains(handle) {
                    continue;
                }
                let directory = self.directory(index);
                let mut all = self.topics.values_mut().flat_map(|t| &mut t.partitions);
                if let Some(partition) = all.find(|p| p.handle.get() == *handle) {
                    // Where its batches are is where it is.
                    partition.directory = directory;
                    continue;
                }
                let Some(name) = TopicName::new(&format!("recovered-{handle:x}")) else { continue };
                notes.push(format!(
                    "topic {name}: the journal has records of a partition whose name is lost"
                ));
                self.handles.insert(*handle);
                let handle = PartitionHandle::new(*handle);
                let partitions = vec![PartitionMetadata { handle, directory }];
                let topic =
                    TopicMetadata { name, id: topic_id(), settings: cautious(), partitions };
                self.topics.insert(topic.name.clone(), topic);
            }
        }
    }
}

/// Settings that delete nothing.
fn cautious() -> TopicSettings {
    TopicSettings { retention_ms: None, retention_bytes: None, ..TopicSettings::default() }
}

/// The directories of the log: the given ones in their order, then those that are gone. None where there has only ever been one.
fn directories<'a>(
    seats: &[Seat<'_>],
    records: impl Iterator<Item = &'a MetadataRecord>,
) -> Result<Vec<DirectoryMetadata>, String> {
    let mut known: BTreeMap<DirectoryNumber, DirectoryMetadata> = BTreeMap::new();
    for record in records {
        if let MetadataRecord::DirectorySet(directory) = record {
            known.insert(directory.number, *directory);
        }
    }
    let named = |id: [u8; 16]| seats.iter().any(|seat| seat.id == id);
    let (others, former): (Vec<DirectoryMetadata>, Vec<DirectoryMetadata>) = known
        .values()
        .copied()
        .filter(|d| !named(d.id))
        .partition(|d| d.state == DirectoryState::Present);
    if !others.is_empty() {
        return Err("this log has other directories: name them all".to_owned());
    }
    if seats.len() == 1 && known.is_empty() {
        return Ok(Vec::new());
    }
    let mut given = Vec::with_capacity(seats.len());
    for (i, seat) in seats.iter().enumerate() {
        // Where nothing tells, they are numbered as they were named: as in the configuration.
        let number = known.values().find(|d| d.id == seat.id).map(|d| d.number);
        let number = number.unwrap_or(DirectoryNumber::new(u16::try_from(i).unwrap_or(u16::MAX)));
        let state = DirectoryState::Present;
        given.push(DirectoryMetadata { number, id: seat.id, state, changes: 0 });
    }
    given.extend(former);
    let numbers: BTreeSet<_> = given.iter().map(|d| d.number).collect();
    if !numbers.iter().enumerate().all(|(i, number)| usize::from(number.get()) == i)
        || numbers.len() != given.len()
    {
        return Err("which of its directories is which cannot be told".to_owned());
    }
    Ok(given)
}
