//! Topic settings under Kafka's configuration keys, both ways.
//!
//! Invariant: a key or value that would have no effect here is refused, never taken and ignored.
//! Keys whose only supported value is Kafka's default are accepted with that value.
//! Neighbours: `create_topics` reads them, `describe_configs` shows them.

use headwater_log::metadata::{Cleanup, Durability, TopicSettings};

/// Kafka's `ConfigDef.Type` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

/// A setting as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: &'static str,
    pub(super) value: String,
    pub(super) kind: Kind,
    pub(super) text: &'static str,
}

/// Headwater's own key: `memory` or `fsync`.
const DURABILITY: &str = "headwater.durability";

/// Bounds of a batch: Kafka's smallest useful one and what fits a segment here.
const BATCH_BYTES: std::ops::RangeInclusive<i64> = 1024..=(64 << 20);

/// Bounds of a segment: Kafka's smallest, and what a 32-bit position in it can reach.
const SEGMENT_BYTES: std::ops::RangeInclusive<i64> = (1 << 14)..=(i32::MAX as i64);

/// Bounds of an index: Kafka allows less than an entry, which would close a segment at each batch.
const INDEX_BYTES: std::ops::RangeInclusive<i64> = 1024..=(1 << 30);

/// Everything that DescribeConfigs shows for a topic.
pub(super) fn entries(settings: &TopicSettings) -> Vec<Entry> {
    let entry = |key, value: String, kind, text| Entry { key, value, kind, text };
    let limit = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
    let durability = match settings.durability {
        Durability::Memory => "memory",
        Durability::Fsync => "fsync",
    };
    vec![
        entry(
            "cleanup.policy",
            match settings.cleanup {
                Cleanup::Delete => "delete",
                Cleanup::Compact => "compact",
                Cleanup::CompactAndDelete => "compact,delete",
            }
            .to_owned(),
            Kind::List,
            "delete old segments, or keep the newest record per key",
        ),
        entry(
            "compression.type",
            "producer".to_owned(),
            Kind::Text,
            "batches keep the codec of their producer",
        ),
        entry(
            DURABILITY,
            durability.to_owned(),
            Kind::Text,
            "when a record counts as stored: memory (written) or fsync (synced)",
        ),
        entry(
            "max.message.bytes",
            settings.batch_bytes_max.to_string(),
            Kind::Int,
            "largest record batch, bytes",
        ),
        entry(
            "message.timestamp.type",
            "CreateTime".to_owned(),
            Kind::Text,
            "timestamps are the producer's",
        ),
        entry("min.insync.replicas", "1".to_owned(), Kind::Int, "one node holds every partition"),
        entry(
            "retention.bytes",
            limit(settings.retention_bytes),
            Kind::Long,
            "bytes kept per partition, -1 without limit",
        ),
        entry(
            "retention.ms",
            limit(settings.retention_ms),
            Kind::Long,
            "milliseconds that records are kept, -1 for ever",
        ),
        entry(
            "segment.bytes",
            settings.segment_bytes.to_string(),
            Kind::Int,
            "bytes of one segment file",
        ),
        entry(
            "segment.index.bytes",
            settings.index_bytes_max.to_string(),
            Kind::Int,
            "bytes of an index at which its segment is closed",
        ),
        entry(
            "segment.ms",
            settings.segment_ms.to_string(),
            Kind::Long,
            "milliseconds after which a segment is closed",
        ),
    ]
}

/// Sets one key. `None` as the value keeps the default, as in Kafka.
///
/// # Errors
/// The text for INVALID_CONFIG.
pub(super) fn set(
    settings: &mut TopicSettings,
    key: &str,
    value: Option<&str>,
) -> Result<(), String> {
    let known = entries(settings).iter().any(|entry| entry.key == key);
    if !known {
        let keys: Vec<_> = entries(settings).iter().map(|entry| entry.key).collect();
        return Err(format!("unknown topic config {key:?}; known are {}", keys.join(", ")));
    }
    let Some(value) = value.map(str::trim) else { return Ok(()) };
    match key {
        "cleanup.policy" => {
            let choices = ["delete", "compact", "compact,delete", "delete,compact"];
            settings.cleanup = match choice(key, value, &choices)? {
                0 => Cleanup::Delete,
                1 => Cleanup::Compact,
                _ => Cleanup::CompactAndDelete,
            };
        }
        DURABILITY => {
            let fsync = choice(key, value, &["memory", "fsync"])? == 1;
            settings.durability = if fsync { Durability::Fsync } else { Durability::Memory };
        }
        "max.message.bytes" => {
            let bytes = number(key, value, BATCH_BYTES)?;
            settings.batch_bytes_max = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
        "retention.bytes" => {
            settings.retention_bytes = u64::try_from(number(key, value, -1..=i64::MAX)?).ok();
        }
        "retention.ms" => {
            settings.retention_ms = u64::try_from(number(key, value, -1..=i64::MAX)?).ok();
        }
        "segment.bytes" => {
            settings.segment_bytes = number(key, value, SEGMENT_BYTES)?.unsigned_abs();
        }
        "segment.index.bytes" => {
            let bytes = number(key, value, INDEX_BYTES)?;
            settings.index_bytes_max = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
        "segment.ms" => {
            settings.segment_ms = number(key, value, 1..=i64::MAX)?.unsigned_abs();
        }
        // What is left has one value only.
        "compression.type" => drop(choice(key, value, &["producer"])?),
        "message.timestamp.type" => drop(choice(key, value, &["CreateTime"])?),
        _ => drop(number(key, value, 1..=1)?),
    }
    Ok(())
}

fn choice(key: &str, value: &str, choices: &[&str]) -> Result<usize, String> {
    choices.iter().position(|choice| *choice == value).ok_or_else(|| {
        format!("{key}: {value:?} is not possible here, only {}", choices.join(" or "))
    })
}

fn number(key: &str, value: &str, bounds: std::ops::RangeInclusive<i64>) -> Result<i64, String> {
    value.parse().ok().filter(|number| bounds.contains(number)).ok_or_else(|| {
        format!("{key}: {value:?} is not a number from {} to {}", bounds.start(), bounds.end())
    })
}

#[cfg(test)]
pub(super) fn sample() -> TopicSettings {
    TopicSettings {
        durability: Durability::Fsync,
        retention_ms: Some(604_800_000),
        retention_bytes: None,
        segment_bytes: 64 << 20,
        segment_ms: 604_800_000,
        batch_bytes_max: 1_048_588,
        ..TopicSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_set() {
        let mut settings = sample();
        for entry in entries(&sample()) {
            set(&mut settings, entry.key, Some(&entry.value)).unwrap();
        }
        assert_eq!(settings, sample());
    }

    #[test]
    fn values_reach_the_settings() {
        let mut settings = sample();
        for (key, value) in [
            ("retention.ms", "-1"),
            ("retention.bytes", "1000000"),
            ("cleanup.policy", "compact"),
            ("headwater.durability", "memory"),
            ("max.message.bytes", "2048"),
            ("segment.bytes", "1048576"),
            ("segment.index.bytes", "2097152"),
            ("segment.ms", "1000"),
        ] {
            set(&mut settings, key, Some(value)).unwrap();
        }
        let expected = TopicSettings {
            durability: Durability::Memory,
            retention_ms: None,
            retention_bytes: Some(1_000_000),
            segment_bytes: 1 << 20,
            segment_ms: 1000,
            index_bytes_max: 2 << 20,
            batch_bytes_max: 2048,
            cleanup: Cleanup::Compact,
            ..TopicSettings::default()
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        for (key, value) in [
            ("unclean.leader.election.enable", "true"),
            ("retention.ms", "soon"),
            ("retention.ms", "-2"),
            ("segment.bytes", "10"),
            ("segment.bytes", "4294967296"),
            ("segment.index.bytes", "4"),
            ("compression.type", "lz4"),
            ("cleanup.policy", "keep"),
            ("min.insync.replicas", "2"),
            ("message.timestamp.type", "LogAppendTime"),
            ("max.message.bytes", "0"),
        ] {
            let mut settings = sample();
            assert!(set(&mut settings, key, Some(value)).is_err(), "{key}={value}");
            assert_eq!(settings, sample());
        }
    }
}
