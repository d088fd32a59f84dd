//! Topics: the config's settings as the log's, applied at start, and made when a route first needs one.
//!
//! Invariant: removing a topic from the config never deletes it, and a start never takes partitions away.
//! Neighbours: [`crate::ingress`] asks [`TopicMaker::ensure`] on a message's way in; the process makes the topics that
//! Kafka clients ask for by the same `[[topic]]` rules.

use crate::route::{Fallback, Router, default_topic};
use headwater_config::Config;
use headwater_log::metadata::{Durability, Refusal, TopicSettings};
use headwater_log::{Log, Topic, TopicName};
use parking_lot::Mutex;
use std::time::Duration;

/// Partitions of every internal topic, for ever.
pub const INTERNAL_PARTITIONS: u32 = 16;

/// What was dropped: see [`crate::ledger`].
pub const LEDGER_TOPIC: &str = "__headwater_ledger";

/// Bytes of the ledger kept per partition.
const LEDGER_BYTES_MAX: u64 = 4 << 20;
const LEDGER_SEGMENT_BYTES: u64 = 1 << 20;
const LEDGER_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Why the config's topics could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// The config asks for fewer partitions than there are: it must be changed (exit code 2).
    #[error("{}", fewer(.0))]
    FewerPartitions(Vec<FewerPartitions>),
    /// The log refused.
    #[error("topic {topic}: {refusal}")]
    Refused {
        /// The topic.
        topic: String,
        /// Why.
        refusal: Refusal,
    },
}

/// A topic that has more partitions than the config says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FewerPartitions {
    /// The topic.
    pub topic: String,
    /// How many it has.
    pub has: u32,
    /// How many the config says.
    pub wanted: u32,
}

fn fewer(topics: &[FewerPartitions]) -> String {
    let each = topics.iter().map(|t| {
        format!(
            "[[topic]] {} says partitions = {}, but it has {}, and partitions cannot be taken away: \
             say {} or more, or delete the topic",
            t.topic, t.wanted, t.has, t.has
        )
    });
    each.collect::<Vec<_>>().join("\n")
}

/// Partitions and settings of a topic of this name, when it is made now.
#[must_use]
pub fn settings_for(config: &Config, topic: &str) -> (u32, TopicSettings) {
    let spec = config.topic(topic);
    (spec.partitions, spec.into())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Settings of the ledger: always durable, bounded by size and age.
fn ledger_settings() -> TopicSettings {
    TopicSettings {
        durability: Durability::Fsync,
        retention_ms: Some(millis(LEDGER_AGE_MAX)),
        retention_bytes: Some(LEDGER_BYTES_MAX),
        segment_bytes: LEDGER_SEGMENT_BYTES,
        segment_ms: millis(LEDGER_AGE_MAX),
        batch_bytes_max: 1 << 20,
        ..TopicSettings::default()
    }
}

/// Brings the log's topics to what the config says: the ledger, topic `mqtt`, every `[[topic]]` with a plain name and
/// every route's fixed topic exist; settings of topics that a `[[topic]]` names are the config's; topics that it names
/// plainly have at least its partitions. A glob says with how many partitions topics are made, not how many they have.
///
/// # Errors
/// [`TopicsError`]; with [`TopicsError::FewerPartitions`] nothing was changed.
pub fn apply(config: &Config, log: &Log) -> Result<(), TopicsError> {
    let plain = || config.topics.iter().filter_map(|rule| Some((rule.name.literal()?, &rule.spec)));
    let too_few: Vec<FewerPartitions> = plain()
        .filter_map(|(name, spec)| {
            let has = partitions_of(&log.topic(name)?);
            (has > spec.partitions).then(|| FewerPartitions {
                topic: name.to_owned(),
                has,
                wanted: spec.partitions,
            })
        })
        .collect();
    if !too_few.is_empty() {
        return Err(TopicsError::FewerPartitions(too_few));
    }
    create_missing(log, LEDGER_TOPIC, INTERNAL_PARTITIONS, ledger_settings())?;
    let fixed = config.routes.iter().filter_map(|route| route.topic.literal());
    let default_topic = default_topic();
    for name in plain().map(|(name, _)| name).chain(fixed).chain([default_topic.as_str()]) {
        let (partitions, settings) = settings_for(config, name);
        create_missing(log, name, partitions, settings)?;
    }
    for (name, spec) in plain() {
        if log.topic(name).is_some_and(|topic| partitions_of(&topic) < spec.partitions) {
            let name = legal(name)?;
            log.add_partitions(&name, spec.partitions).map_err(|r| refused(name.as_str(), r))?;
        }
    }
    for topic in log.topics() {
        let name = topic.name();
        let wanted = settings_for(config, name.as_str()).1;
        if config.names_topic(name.as_str()) && *topic.settings() != wanted {
            log.alter_topic(name, wanted).map_err(|r| refused(name.as_str(), r))?;
        }
    }
    Ok(())
}

fn create_missing(
    log: &Log,
    name: &str,
    partitions: u32,
    settings: TopicSettings,
) -> Result<(), TopicsError> {
    if log.topic(name).is_some() {
        return Ok(());
    }
    match log.create_topic(&legal(name)?, partitions, settings) {
        Ok(_) | Err(Refusal::TopicExists(_)) => Ok(()),
        Err(refusal) => Err(refused(name, refusal)),
    }
}

fn legal(name: &str) -> Result<TopicName, TopicsError> {
    TopicName::new(name).ok_or_else(|| refused(name, Refusal::IllegalName(name.to_owned())))
}

fn refused(topic: &str, refusal: Refusal) -> TopicsError {
    TopicsError::Refused { topic: topic.to_owned(), refusal }
}

fn partitions_of(topic: &Topic) -> u32 {
    u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX)
}

/// Why a message's topic is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoTopic {
    /// Use topic `mqtt`.
    Fallback(Fallback),
    /// The log takes no writes.
    Offline,
}

/// Makes topics when routes need them, one at a time, within the limits.
#[derive(Debug, Default)]
pub(crate) struct TopicMaker {
    /// For the route counted last: (metadata version, route, topics that it can write).
    counted: Mutex<Option<(u64, usize, usize)>>,
}

impl TopicMaker {
    /// The topic of this name, made if it is missing and there is room.
    pub(crate) fn ensure(
        &self,
        log: &Log,
        router: &Router,
        route: usize,
        name: &TopicName,
    ) -> Result<(), NoTopic> {
        if log.topic(name.as_str()).is_some() {
            return Ok(());
        }
        // Held over the creation, so that two threads cannot both take the last place.
        let mut counted = self.counted.lock();
        let config = router.config();
        if !router.is_fixed(route) {
            let version = log.metadata_version();
            let count = match *counted {
                Some((at, of, count)) if (at, of) == (version, route) => count,
                _ => count_topics(log, router, route),
            };
            *counted = Some((version, route, count));
            let most = usize::try_from(config.limits.topics_per_route_max).unwrap_or(usize::MAX);
            if count >= most {
                return Err(NoTopic::Fallback(Fallback::RouteFull));
            }
        }
        let (partitions, settings) = settings_for(config, name.as_str());
        match log.create_topic(name, partitions, settings) {
            Ok(_) => {
                tracing::info!(topic = name.as_str(), partitions, "made a topic for a route");
                Ok(())
            }
            Err(Refusal::TopicExists(_)) => Ok(()),
            Err(Refusal::Offline(_)) => Err(NoTopic::Offline),
            Err(Refusal::IllegalName(_)) => Err(NoTopic::Fallback(Fallback::IllegalName)),
            Err(Refusal::Collision { .. }) => Err(NoTopic::Fallback(Fallback::Collision)),
            Err(Refusal::Limit(..) | Refusal::Partitions(..) | Refusal::UnknownTopic(_)) => {
                Err(NoTopic::Fallback(Fallback::NodeFull))
            }
        }
    }
}

fn count_topics(log: &Log, router: &Router, route: usize) -> usize {
    log.topics().iter().filter(|topic| router.route_writes(route, topic.name().as_str())).count()
}

#[cfg(test)]
mod tests;
