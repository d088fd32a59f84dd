//! The configuration in the words of the crates that obey it.
//!
//! Invariant: nothing is decided here; a limit means here what the table of keys says it means. Neighbours:
//! [`headwater_config`] on one side, the log, the MQTT front and the Kafka door on the other.

use super::descriptors;
use headwater_config::{Config, DiskBudget, Limits};
use headwater_kafka::server::{DoorSettings, NewTopic, TopicRules};
use headwater_log::{LogOptions, Share, TopicName};

use std::sync::Arc;
use std::time::Duration;

/// `[storage]` and the limits on topics.
pub(crate) fn log_options(config: &Config) -> LogOptions {
    let storage = &config.storage;
    LogOptions {
        dirs: storage.dirs.clone(),
        journal_file_bytes: storage.journal_file_bytes,
        journal_files: storage.journal_files,
        commit_delay: storage.commit_delay,
        commit_delay_max: storage.commit_delay_max,
        journal_bytes_per_day: storage.journal_bytes_per_day,
        bulk_bytes: storage.bulk_bytes,
        uncommitted_bytes_max: storage.uncommitted_bytes_max,
        tail_bytes_max: storage.tail_bytes_max,
        memory_sync: storage.memory_sync,
        reserved_bytes: storage.reserved_bytes,
        labeller: Some(headwater_bridge::record::LABELLER),
        open_files_max: storage
            .open_files_max
            .map_or_else(descriptors::segment_files, u64::from)
            .try_into()
            .unwrap_or(usize::MAX),
        producer_id_expiration: storage.producer_id_expiration,
        topics_max: config.limits.topics_max,
        partitions_max: config.limits.partitions_max,
        max_bytes: Some(share(storage.max_bytes)),
        min_free: Some(share(storage.min_free)),
        compaction: headwater_log::CompactionOptions {
            memory_bytes: storage.compaction_memory_bytes,
            bytes_per_second: storage.compaction_bytes_per_second,
        },
    }
}

fn share(budget: DiskBudget) -> Share {
    match budget {
        DiskBudget::Bytes(bytes) => Share::Bytes(bytes),
        DiskBudget::Percent(percent) => Share::Percent(percent),
    }
}

/// `[limits]` for the MQTT front.
pub(crate) fn mqtt_limits(limits: &Limits) -> headwater_mqtt::Limits {
    let keep_alive_s = u16::try_from(limits.keep_alive_max.as_secs()).unwrap_or(u16::MAX);
    headwater_mqtt::Limits {
        connections_max: size(limits.connections_max),
        handshakes_max: size(limits.handshakes_max),
        connect_timeout: limits.connect_timeout,
        connect_bytes_max: size(limits.connect_bytes_max),
        packet_bytes_max: size(limits.packet_bytes_max),
        receive_max: limits.receive_maximum,
        receive_max_v3: limits.receive_maximum_v3,
        topic_alias_max: limits.topic_alias_max,
        // The largest there is, is no limit: then a client without keep-alive stays without.
        keep_alive_s_max: if keep_alive_s == u16::MAX { 0 } else { keep_alive_s },
        subscriptions_max: size(limits.subscriptions_per_session_max),
        inflight_max: limits.outgoing_inflight_max,
        queue_messages_max: size(limits.outgoing_messages_max),
        queue_bytes_max: size(limits.outgoing_bytes_max),
        write_buffer_bytes_max: size(limits.write_buffer_bytes_max),
        pending_per_shard_max: size(limits.pending_per_shard_max),
        buffered_bytes_per_shard_max: usize::try_from(limits.buffered_bytes_per_shard_max)
            .unwrap_or(usize::MAX),
        write_timeout: limits.write_timeout,
        backpressure_wait: limits.backpressure_wait,
        ..headwater_mqtt::Limits::default()
    }
}

/// `[limits]` for the Kafka door.
pub(crate) fn door_settings(limits: &Limits) -> DoorSettings {
    DoorSettings {
        connections_max: size(limits.kafka_connections_max),
        request_bytes_max: size(limits.kafka_frame_bytes_max),
        request_memory_bytes_max: usize::try_from(limits.kafka_request_memory_bytes_max)
            .unwrap_or(usize::MAX),
        requests_in_flight_max: size(limits.kafka_requests_in_flight_max),
        fetch_bytes_max: size(limits.kafka_fetch_bytes_max),
        idle_max: limits.kafka_idle_timeout,
        stall_max: limits.write_timeout,
        ..DoorSettings::default()
    }
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// What the configuration says about topics that Kafka clients ask for.
#[derive(Debug)]
pub(crate) struct Rules {
    config: Arc<Config>,
}

impl Rules {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self { config }
    }
}

impl TopicRules for Rules {
    fn rule(&self, name: &TopicName) -> NewTopic {
        let spec = self.config.topic(name.as_str());
        NewTopic { partitions: spec.partitions, settings: spec.into() }
    }

    fn auto_create(&self, name: &TopicName) -> bool {
        self.config.topic_defaults.auto_create && !name.as_str().starts_with("__")
    }

    /// The file is the truth for a topic that it names: one deleted would come back empty with the next start, and more
    /// partitions than it says would keep the process from starting. A glob only says with what topics are made.
    fn client_may_change(&self, name: &TopicName) -> Result<(), String> {
        let named = self.config.topics.iter().any(|t| t.name.literal() == Some(name.as_str()));
        if !named {
            return Ok(());
        }
        Err(format!(
            "the configuration names topic {name} ([[topic]] name = \"{name}\"): it is changed there, not by clients"
        ))
    }
}

/// How long a thread of a runtime's pool stays when it has nothing to do.
pub(crate) const POOL_KEEP_ALIVE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate on its own, in its tests and examples, has the limits that the table of keys gives to a node.
    #[test]
    fn a_limit_has_one_default() {
        let config = headwater_config::from_toml("").expect("an empty file is a config");
        assert_eq!(mqtt_limits(&config.limits), headwater_mqtt::Limits::default());
        assert_eq!(door_settings(&config.limits), DoorSettings::default());
    }
}
