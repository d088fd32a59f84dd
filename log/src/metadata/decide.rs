//! What a command does to a state: records, or a refusal. Pure: ids that must be random come in.
//!
//! Invariant: records that are decided apply to the state they were decided on.
//! Neighbours: `state` applies them, `node` has both done under one lock.

use super::{
    DirectoryMetadata, DirectoryNumber, DirectoryState, MetadataRecord, MetadataState,
    PartitionHandle, PartitionMetadata, Refusal, TopicMetadata, TopicSettings,
};
use crate::{TopicId, TopicName};

/// How much metadata there may be. Internal topics are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Topics at most.
    pub topics_max: u32,
    /// Partitions at most, over all topics.
    pub partitions_max: u32,
}

/// A directory that takes new partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Which.
    pub directory: DirectoryNumber,
    /// Room on its filesystem.
    pub free_bytes: u64,
}

/// What somebody wants changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a topic.
    CreateTopic {
        /// Its name.
        name: TopicName,
        /// Its identity: random, never used before.
        id: TopicId,
        /// How many partitions, at least one.
        partitions: u32,
        /// Its settings.
        settings: TopicSettings,
    },
    /// Give a topic these settings.
    AlterTopic {
        /// Which topic.
        name: TopicName,
        /// All its settings from now on.
        settings: TopicSettings,
    },
    /// Let a topic have this many partitions in all (Kafka's CreatePartitions): more than it has.
    AddPartitions {
        /// Which topic.
        name: TopicName,
        /// How many in all.
        partitions: u32,
    },
    /// Delete a topic with all its records.
    DeleteTopic {
        /// Which topic.
        name: TopicName,
    },
    /// Take a block of producer ids: from [`MetadataState::next_producer_id`] on.
    TakeProducerIds {
        /// How many.
        count: u32,
    },
    /// Begin the next leader epoch: at every start, and after a cut of an unsynced tail.
    StartEpoch,
    /// Go on without a directory.
    LeaveDirectory {
        /// Which.
        number: DirectoryNumber,
    },
}

/// Decides a command. Applying the records in order carries it out; nothing is changed here. A command
/// that asks for what is so already gives no records.
///
/// # Errors
/// [`Refusal`], with nothing to apply.
pub fn decide(
    state: &MetadataState,
    limits: Limits,
    offers: &[Offer],
    command: &Command,
) -> Result<Vec<MetadataRecord>, Refusal> {
    match command {
        Command::CreateTopic { name, id, partitions, settings } => {
            let count = check_new(state, limits, name, *id, *partitions)?;
            let topic = TopicMetadata {
                name: name.clone(),
                id: *id,
                settings: settings.clone(),
                partitions: place(state, offers, name, count)?,
            };
            Ok(vec![MetadataRecord::TopicCreated(topic)])
        }
        Command::AlterTopic { name, settings } => {
            let topic = known(state, name)?;
            if topic.settings == *settings {
                return Ok(vec![]);
            }
            let (id, settings) = (topic.id, settings.clone());
            Ok(vec![MetadataRecord::SettingsChanged { id, settings }])
        }
        Command::AddPartitions { name, partitions } => {
            let topic = known(state, name)?;
            let count = check_more(state, limits, topic, *partitions)?;
            let partitions = place(state, offers, name, count)?;
            Ok(vec![MetadataRecord::PartitionsAdded { id: topic.id, partitions }])
        }
        Command::DeleteTopic { name } => {
            let id = known(state, name)?.id;
            Ok(vec![MetadataRecord::TopicDeleted { id }])
        }
        Command::TakeProducerIds { count } => {
            let next = state.next_producer_id().checked_add(i64::from(*count));
            let next = next.ok_or(Refusal::Limit(*count, "producer ids"))?;
            Ok(vec![MetadataRecord::ProducerIdsTaken { next }])
        }
        Command::StartEpoch => {
            Ok(vec![MetadataRecord::EpochStarted { epoch: state.epoch().next() }])
        }
        Command::LeaveDirectory { number } => {
            let leaves =
                |d: &&DirectoryMetadata| d.number == *number && d.state == DirectoryState::Present;
            let left = state.directories().find(leaves);
            let left = left.map(|d| DirectoryMetadata {
                state: DirectoryState::Absent,
                changes: d.changes.saturating_add(1),
                ..*d
            });
            Ok(left.map(MetadataRecord::DirectorySet).into_iter().collect())
        }
    }
}

/// How many partitions a topic that can be made gets.
fn check_new(
    state: &MetadataState,
    limits: Limits,
    name: &TopicName,
    id: TopicId,
    partitions: u32,
) -> Result<u32, Refusal> {
    if state.topic(name.as_str()).is_some() || state.topic_by_id(id).is_some() {
        return Err(Refusal::TopicExists(name.to_string()));
    }
    if let Some(existing) = state.topics().find(|topic| collide(&topic.name, name)) {
        let (name, existing) = (name.to_string(), existing.name.to_string());
        return Err(Refusal::Collision { name, existing });
    }
    if partitions == 0 {
        return Err(Refusal::Partitions(0, "a topic has at least one".to_owned()));
    }
    if !name.is_internal() {
        let topics = state.topics().filter(|topic| !topic.name.is_internal()).count();
        if topics >= limits.topics_max as usize {
            return Err(Refusal::Limit(limits.topics_max, "topics"));
        }
    }
    check_partitions(state, limits, name, 0, partitions)?;
    Ok(partitions)
}

/// How many partitions a topic gets beside those it has.
fn check_more(
    state: &MetadataState,
    limits: Limits,
    topic: &TopicMetadata,
    partitions: u32,
) -> Result<u32, Refusal> {
    let (name, present) = (&topic.name, topic.partitions.len() as u32);
    if partitions <= present {
        let why = format!("topic {name} has {present} already");
        return Err(Refusal::Partitions(shown(partitions), why));
    }
    check_partitions(state, limits, name, present, partitions)?;
    Ok(partitions - present)
}

fn known<'a>(state: &'a MetadataState, name: &TopicName) -> Result<&'a TopicMetadata, Refusal> {
    state.topic(name.as_str()).ok_or_else(|| Refusal::UnknownTopic(name.to_string()))
}

/// Kafka refuses a name that its metrics could not tell from another's: `.` becomes `_` there.
fn collide(a: &TopicName, b: &TopicName) -> bool {
    let unified = |b: u8| if b == b'.' { b'_' } else { b };
    let (a, b) = (a.as_str(), b.as_str());
    a.len() == b.len() && a.bytes().map(unified).eq(b.bytes().map(unified))
}

/// Numbers are i32 on the wire, whatever the limits say.
fn check_partitions(
    state: &MetadataState,
    limits: Limits,
    name: &TopicName,
    present: u32,
    wanted: u32,
) -> Result<(), Refusal> {
    if i32::try_from(wanted).is_err() {
        return Err(Refusal::Partitions(i32::MAX, "more than Kafka can number".to_owned()));
    }
    if name.is_internal() {
        return Ok(());
    }
    let used: usize = state
        .topics()
        .filter(|topic| !topic.name.is_internal())
        .map(|topic| topic.partitions.len())
        .sum();
    if used as u64 + u64::from(wanted - present) > u64::from(limits.partitions_max) {
        return Err(Refusal::Limit(limits.partitions_max, "partitions"));
    }
    Ok(())
}

/// Gives new partitions their handles and directories.
///
/// Each goes where it has the most room to itself: free bytes over partitions. Directories of one size fill up evenly, a
/// larger or newer one takes more. All internal topics are in one directory, so that the loss of another takes nothing of
/// the node's own state.
fn place(
    state: &MetadataState,
    offers: &[Offer],
    name: &TopicName,
    count: u32,
) -> Result<Vec<PartitionMetadata>, Refusal> {
    let first = state.next_handle();
    let end = first.checked_add(u64::from(count)).ok_or(Refusal::Limit(count, "handles"))?;
    let mut offers: Vec<(Offer, u64)> =
        offers.iter().map(|o| (*o, state.partitions_in(o.directory) as u64)).collect();
    offers.sort_by_key(|(offer, _)| offer.directory);
    if name.is_internal() {
        offers.truncate(1);
    }
    let mut placed = Vec::with_capacity(count as usize);
    for handle in first..end {
        // Of equals the one with fewer partitions, then the first.
        let best = offers.iter_mut().min_by_key(|(offer, held)| {
            (std::cmp::Reverse(offer.free_bytes / (*held + 1)), *held, offer.directory)
        });
        let Some((offer, held)) = best else {
            return Err(Refusal::Offline("no data directory takes new partitions".to_owned()));
        };
        *held += 1;
        let handle = PartitionHandle::new(handle);
        placed.push(PartitionMetadata { handle, directory: offer.directory });
    }
    Ok(placed)
}

fn shown(partitions: u32) -> i32 {
    i32::try_from(partitions).unwrap_or(i32::MAX)
}
