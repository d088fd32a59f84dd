//! Topic settings under Kafka's configuration keys, both ways.
//!
//! Invariant: a key or value that would have no effect here is refused, never taken and ignored.
//! Keys whose only supported value is Kafka's default are accepted with that value.
//! Neighbours: `create_topics` reads them, `describe_configs` shows them.

use headwater_log::batch::compression::{Codec, Compression};
use headwater_log::metadata::{Cleanup, Durability, TopicSettings};

/// Kafka's `ConfigDef.Type` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text = 2,
    Int = 3,
    Long = 5,
    Double = 6,
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

/// Kafka's keys of a topic's codec and its levels (KIP-390), with Kafka's defaults.
const COMPRESSION: &str = "compression.type";
const GZIP_LEVEL: &str = "compression.gzip.level";
const GZIP_LEVEL_DEFAULT: i64 = -1;
/// Kafka's default is the fast mode, and the only one here.
const LZ4_LEVEL: &str = "compression.lz4.level";
const LZ4_LEVEL_DEFAULT: i64 = 9;
const ZSTD_LEVEL: &str = "compression.zstd.level";
const ZSTD_LEVEL_DEFAULT: i64 = 3;

/// Kafka's way to say that nothing is compacted for its age alone.
const LAG_UNLIMITED: u64 = i64::MAX as u64;

/// Bounds of a batch: Kafka's smallest useful one and what fits a segment here.
const BATCH_BYTES: std::ops::RangeInclusive<i64> = 1024..=(64 << 20);

/// Bounds of a segment: Kafka's smallest, and what a 32-bit position in it can reach.
const SEGMENT_BYTES: std::ops::RangeInclusive<i64> = (1 << 14)..=(i32::MAX as i64);

/// Bounds of an index: Kafka allows less than an entry, which would close a segment at each batch.
const INDEX_BYTES: std::ops::RangeInclusive<i64> = 1024..=(1 << 30);

/// Everything that DescribeConfigs shows for a topic.
pub(super) fn entries(settings: &TopicSettings) -> Vec<Entry> {
    let parts =
        [cleanup(settings), compression(settings), acceptance(settings), segments(settings)];
    parts.concat()
}

fn entry(key: &'static str, value: String, kind: Kind, text: &'static str) -> Entry {
    Entry { key, value, kind, text }
}

fn cleanup(settings: &TopicSettings) -> Vec<Entry> {
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
            "delete.retention.ms",
            settings.delete_retention_ms.to_string(),
            Kind::Long,
            "milliseconds that a tombstone stays once compaction has met it",
        ),
        entry(
            "max.compaction.lag.ms",
            settings.compaction_lag_ms_max.unwrap_or(LAG_UNLIMITED).to_string(),
            Kind::Long,
            "milliseconds after which a record is compacted whatever else",
        ),
        entry(
            "min.cleanable.dirty.ratio",
            (f64::from(settings.dirty_ratio_permille) / 1000.0).to_string(),
            Kind::Double,
            "compact when this part of what may be has not been yet",
        ),
        entry(
            "min.compaction.lag.ms",
            settings.compaction_lag_ms_min.to_string(),
            Kind::Long,
            "milliseconds before a record may be compacted",
        ),
    ]
}

fn compression(settings: &TopicSettings) -> Vec<Entry> {
    vec![
        entry(
            GZIP_LEVEL,
            level_shown(settings, Codec::Gzip, GZIP_LEVEL_DEFAULT),
            Kind::Int,
            "level of compression.type = gzip, -1 for its default",
        ),
        entry(LZ4_LEVEL, LZ4_LEVEL_DEFAULT.to_string(), Kind::Int, "lz4 has one level here"),
        entry(
            COMPRESSION,
            match settings.compression.codec {
                Codec::None => "producer",
                codec => codec.name(),
            }
            .to_owned(),
            Kind::Text,
            "codec of batches made of MQTT messages; a producer's batches keep theirs",
        ),
        entry(
            ZSTD_LEVEL,
            level_shown(settings, Codec::Zstd, ZSTD_LEVEL_DEFAULT),
            Kind::Int,
            "level of compression.type = zstd",
        ),
    ]
}

fn acceptance(settings: &TopicSettings) -> Vec<Entry> {
    let durability = match settings.durability {
        Durability::Memory => "memory",
        Durability::Fsync => "fsync",
    };
    vec![
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
    ]
}

fn segments(settings: &TopicSettings) -> Vec<Entry> {
    let limit = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
    vec![
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
        "delete.retention.ms" => {
            settings.delete_retention_ms = number(key, value, 0..=i64::MAX)?.unsigned_abs();
        }
        "max.compaction.lag.ms" => {
            let ms = number(key, value, 1..=i64::MAX)?.unsigned_abs();
            settings.compaction_lag_ms_max = Some(ms).filter(|ms| *ms != LAG_UNLIMITED);
        }
        "min.cleanable.dirty.ratio" => {
            let ratio: f64 = value
                .parse()
                .ok()
                .filter(|r| (0.0..=1.0).contains(r))
                .ok_or_else(|| format!("{key}: {value:?} is not a number from 0 to 1"))?;
            settings.dirty_ratio_permille = (ratio * 1000.0).round() as u16;
        }
        "min.compaction.lag.ms" => {
            settings.compaction_lag_ms_min = number(key, value, 0..=i64::MAX)?.unsigned_abs();
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
        COMPRESSION => {
            let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
            let choices = ["producer", "gzip", "snappy", "lz4", "zstd"];
            let codec = codecs[choice(key, value, &choices)?];
            if codec != settings.compression.codec {
                settings.compression = Compression { codec, level: None };
            }
        }
        GZIP_LEVEL => set_level(settings, key, value, Codec::Gzip, GZIP_LEVEL_DEFAULT)?,
        ZSTD_LEVEL => set_level(settings, key, value, Codec::Zstd, ZSTD_LEVEL_DEFAULT)?,
        // What is left has one value only.
        LZ4_LEVEL => drop(number(key, value, LZ4_LEVEL_DEFAULT..=LZ4_LEVEL_DEFAULT)?),
        "message.timestamp.type" => drop(choice(key, value, &["CreateTime"])?),
        _ => drop(number(key, value, 1..=1)?),
    }
    Ok(())
}

/// Sets many keys, in an order in which each finds what it depends on.
///
/// # Errors
/// As [`set`].
pub(super) fn set_all<'a>(
    settings: &mut TopicSettings,
    configs: impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone,
) -> Result<(), String> {
    // A level belongs to a codec, and clients send their keys in any order.
    let (codecs, rest) = (configs.clone(), configs);
    for (key, value) in codecs.filter(|(key, _)| *key == COMPRESSION) {
        set(settings, key, value)?;
    }
    for (key, value) in rest.filter(|(key, _)| *key != COMPRESSION) {
        set(settings, key, value)?;
    }
    Ok(())
}

fn level_shown(settings: &TopicSettings, codec: Codec, default: i64) -> String {
    let level = settings.compression.level.filter(|_| settings.compression.codec == codec);
    level.map_or(default, i64::from).to_string()
}

/// A level of a codec that the topic does not use would have no effect: only its default is taken then.
fn set_level(
    settings: &mut TopicSettings,
    key: &str,
    value: &str,
    codec: Codec,
    default: i64,
) -> Result<(), String> {
    if value.parse() == Ok(default) {
        if settings.compression.codec == codec {
            settings.compression.level = None;
        }
        return Ok(());
    }
    let range = codec.levels().unwrap_or(0..=0);
    let level = number(key, value, i64::from(*range.start())..=i64::from(*range.end()))?;
    if settings.compression.codec != codec {
        return Err(format!("{key}: would have no effect without {COMPRESSION}={codec}"));
    }
    settings.compression.level = i8::try_from(level).ok();
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
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_set() {
        let mut settings = TopicSettings::default();
        for entry in entries(&TopicSettings::default()) {
            set(&mut settings, entry.key, Some(&entry.value)).unwrap();
        }
        assert_eq!(settings, TopicSettings::default());
    }

    #[test]
    fn values_reach_the_settings() {
        let mut settings = TopicSettings::default();
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
    fn a_level_belongs_to_its_codec() {
        let mut settings = TopicSettings::default();
        let configs = [("compression.zstd.level", Some("19")), ("compression.type", Some("zstd"))];
        set_all(&mut settings, configs.into_iter()).unwrap();
        let zstd = |level| Compression { codec: Codec::Zstd, level };
        assert_eq!(settings.compression, zstd(Some(19)));
        let shown = |settings: &TopicSettings, key: &str| {
            entries(settings).into_iter().find(|entry| entry.key == key).unwrap().value
        };
        assert_eq!(shown(&settings, "compression.type"), "zstd");
        assert_eq!(shown(&settings, "compression.zstd.level"), "19");
        assert_eq!(shown(&settings, "compression.gzip.level"), "-1");
        // What is shown can be set, also where a level is.
        let all = entries(&settings);
        let mut again = TopicSettings::default();
        let pairs = all.iter().map(|entry| (entry.key, Some(entry.value.as_str())));
        set_all(&mut again, pairs).unwrap();
        assert_eq!(again, settings);
        set(&mut settings, "compression.zstd.level", Some("3")).unwrap();
        assert_eq!(settings.compression, zstd(None));
        assert!(set(&mut settings, "compression.gzip.level", Some("7")).is_err());
        set(&mut settings, "compression.zstd.level", Some("-5")).unwrap();
        set(&mut settings, "compression.type", Some("gzip")).unwrap();
        assert_eq!(settings.compression, Compression { codec: Codec::Gzip, level: None });
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
            ("compression.type", "uncompressed"),
            ("compression.type", "lz77"),
            ("compression.gzip.level", "7"),
            ("compression.lz4.level", "3"),
            ("compression.zstd.level", "23"),
            ("cleanup.policy", "keep"),
            ("min.insync.replicas", "2"),
            ("message.timestamp.type", "LogAppendTime"),
            ("max.message.bytes", "0"),
        ] {
            let mut settings = TopicSettings::default();
            assert!(set(&mut settings, key, Some(value)).is_err(), "{key}={value}");
            assert_eq!(settings, TopicSettings::default());
        }
    }
}
