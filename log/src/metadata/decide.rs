//! What a command does to a state: records, or a refusal. Pure: ids that must be random come in.

use super::{
    MetadataRecord, MetadataState, PartitionHandle, Refusal, TopicMetadata, TopicSettings,
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
}

/// Decides a command. Applying the records in order carries it out; nothing is changed here. A command
/// that asks for what is so already gives no records.
///
/// # Errors
/// [`Refusal`], with nothing to apply.
pub fn decide(
    state: &MetadataState,
    limits: Limits,
    command: &Command,
) -> Result<Vec<MetadataRecord>, Refusal> {
    match command {
        Command::CreateTopic { name, id, partitions, settings } => {
            create(state, limits, name, *id, *partitions, settings)
        }
        Command::AlterTopic { name, settings } => {
            let topic = known(state, name)?;
            if topic.settings == *settings {
                return Ok(vec![]);
            }
            let (id, settings) = (topic.id, settings.clone());
            Ok(vec![MetadataRecord::SettingsChanged { id, settings }])
        }
        Command::AddPartitions { name, partitions } => add(state, limits, name, *partitions),
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
    }
}

fn create(
    state: &MetadataState,
    limits: Limits,
    name: &TopicName,
    id: TopicId,
    partitions: u32,
    settings: &TopicSettings,
) -> Result<Vec<MetadataRecord>, Refusal> {
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
    let topic = TopicMetadata {
        name: name.clone(),
        id,
        settings: settings.clone(),
        partitions: new_handles(state, partitions)?,
    };
    Ok(vec![MetadataRecord::TopicCreated(topic)])
}

fn add(
    state: &MetadataState,
    limits: Limits,
    name: &TopicName,
    partitions: u32,
) -> Result<Vec<MetadataRecord>, Refusal> {
    let topic = known(state, name)?;
    let present = topic.partitions.len() as u32;
    if partitions <= present {
        let why = format!("topic {name} has {present} already");
        return Err(Refusal::Partitions(shown(partitions), why));
    }
    check_partitions(state, limits, name, present, partitions)?;
    let partitions = new_handles(state, partitions - present)?;
    Ok(vec![MetadataRecord::PartitionsAdded { id: topic.id, partitions }])
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

fn new_handles(state: &MetadataState, count: u32) -> Result<Vec<PartitionHandle>, Refusal> {
    let first = state.next_handle();
    let end = first.checked_add(u64::from(count)).ok_or(Refusal::Limit(count, "handles"))?;
    Ok((first..end).map(PartitionHandle::new).collect())
}

fn shown(partitions: u32) -> i32 {
    i32::try_from(partitions).unwrap_or(i32::MAX)
}
