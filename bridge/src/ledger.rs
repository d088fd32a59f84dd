//! The ledger of what was dropped: cause, topic, range, count, time (ARCHITECTURE.md, invariant 8).
//!
//! Invariant: whatever is dropped is counted for ever (per cause) and listed in the log's topic `__headwater_ledger`,
//! aggregated, in bounded memory: entries wait here for the next flush, about a second; while the log takes nothing (a
//! full disk) they go on adding up. Over [`ENTRIES_MAX`] entries or [`BYTES_MAX`] bytes of names, further topics of a
//! cause are added up in one entry without a name. Neighbours: [`crate::ingress`] and the MQTT front report drops.
//!
//! # A ledger record
//! Key: the log topic or the MQTT topic (nothing when unknown); 16 partitions, by murmur2 of the key. Value: a JSON object
//! of version 1:
//!
//! | member | content | present |
//! |---|---|---|
//! | `version` | 1 | always |
//! | `cause` | why, as in the metrics | always |
//! | `mqtt_topic` | MQTT topic of messages that were not stored | for those |
//! | `topic`, `partition` | the log's, of stored messages that somebody will not see, or nobody because they are gone | for those |
//! | `subscriber` | client identifier of who will not see them; `uplink/NAME` for an uplink | for those |
//! | `from`, `to` | offsets, the end exclusive; the smallest range that holds all | for stored ones |
//! | `count` | messages | always |
//! | `first_ms`, `last_ms` | when, milliseconds since the Unix epoch | always |

use crate::partitioner;
use crate::topics::LEDGER_TOPIC;
use hashbrown::HashMap;
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{AppendError, Log, Offset, Partition, ReadError, ReadLimit, batch};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;

/// Entries waiting for a flush, at most (one unnamed one per cause may come on top).
pub(crate) const ENTRIES_MAX: usize = 4_096;
/// Bytes of names in them, at most.
pub(crate) const BYTES_MAX: usize = 1 << 20;
/// Bytes of one read of the ledger, and of all reads of a partition.
const READ_BYTES: usize = 256 << 10;
const READ_BYTES_MAX: usize = 4 << 20;
/// Records that cannot be read any more (as the MQTT front names it).
const CAUSE_DAMAGED: &str = "damaged";
/// The version of a ledger record's value.
const VERSION: u32 = 1;

/// Which messages were dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Dropped {
    /// Messages that were not stored.
    Published { mqtt_topic: Box<str> },
    /// Stored messages that a subscriber will not see.
    Delivery { topic: Box<str>, partition: i32, subscriber: Box<str> },
    /// Stored messages that went before their time.
    Stored { topic: Box<str>, partition: i32 },
    /// Too many to name.
    Unnamed,
}

impl Dropped {
    fn bytes(&self) -> usize {
        match self {
            Self::Published { mqtt_topic } => mqtt_topic.len(),
            Self::Delivery { topic, subscriber, .. } => topic.len() + subscriber.len(),
            Self::Stored { topic, .. } => topic.len(),
            Self::Unnamed => 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    count: u64,
    range: Option<(u64, u64)>,
    first_ms: i64,
    last_ms: i64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.range = match (self.range, other.range) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
    }
}

/// Drops on their way into the log.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    waiting: Mutex<Waiting>,
    /// Only one flush at a time, or two would write the same entries.
    flushing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: HashMap<(&'static str, Dropped), Sum>,
    bytes: usize,
    totals: BTreeMap<&'static str, u64>,
}

impl Waiting {
    fn add(&mut self, cause: &'static str, what: Dropped, sum: &Sum) {
        let mut key = (cause, what);
        if let Some(there) = self.entries.get_mut(&key) {
            return there.add(sum);
        }
        let bytes = key.1.bytes();
        if self.entries.len() >= ENTRIES_MAX || self.bytes + bytes > BYTES_MAX {
            key.1 = Dropped::Unnamed;
            if let Some(there) = self.entries.get_mut(&key) {
                return there.add(&Sum { range: None, ..*sum });
            }
            self.entries.insert(key, Sum { range: None, ..*sum });
        } else {
            self.bytes += bytes;
            self.entries.insert(key, *sum);
        }
    }
}

#[derive(Serialize)]
struct Value<'a> {
    version: u32,
    cause: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mqtt_topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriber: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    count: u64,
    first_ms: i64,
    last_ms: i64,
}

fn value(cause: &str, what: &Dropped, sum: &Sum) -> Vec<u8> {
    let mut value = Value {
        version: VERSION,
        cause,
        mqtt_topic: None,
        topic: None,
        partition: None,
        subscriber: None,
        from: sum.range.map(|(from, _)| from),
        to: sum.range.map(|(_, to)| to),
        count: sum.count,
        first_ms: sum.first_ms,
        last_ms: sum.last_ms,
    };
    match what {
        Dropped::Published { mqtt_topic } => value.mqtt_topic = Some(mqtt_topic),
        Dropped::Delivery { topic, partition, subscriber } => {
            value.topic = Some(topic);
            value.partition = Some(*partition);
            value.subscriber = Some(subscriber);
        }
        Dropped::Stored { topic, partition } => {
            value.topic = Some(topic);
            value.partition = Some(*partition);
        }
        Dropped::Unnamed => {}
    }
    // Strings and numbers alone cannot fail to serialise.
    serde_json::to_vec(&value).unwrap_or_default()
}

impl Ledger {
    /// Counts messages that were dropped now.
    pub(crate) fn add(
        &self,
        cause: &'static str,
        what: Dropped,
        count: u64,
        range: Option<(u64, u64)>,
        now_ms: i64,
    ) {
        let sum = Sum { count, range, first_ms: now_ms, last_ms: now_ms };
        let mut waiting = self.waiting.lock();
        let total = waiting.totals.entry(cause).or_default();
        *total = total.saturating_add(count);
        waiting.add(cause, what, &sum);
    }

    /// Messages dropped since the start, by cause.
    pub(crate) fn totals(&self) -> BTreeMap<&'static str, u64> {
        self.waiting.lock().totals.clone()
    }

    /// Appends what waits to the log. What the log does not take now goes on waiting. Returns the records appended.
    pub(crate) fn flush(&self, log: &Log, now_ms: i64) -> usize {
        let _one = self.flushing.lock();
        let entries = {
            let mut waiting = self.waiting.lock();
            waiting.bytes = 0;
            std::mem::take(&mut waiting.entries)
        };
        let mut appended = 0;
        for ((cause, what), sum) in entries {
            match append(log, cause, &what, &sum, now_ms) {
                Ok(()) => appended += 1,
                Err(error) => {
                    tracing::debug!(cause, %error, "a ledger entry waits");
                    self.waiting.lock().add(cause, what, &sum);
                }
            }
        }
        appended
    }
}

/// The newest entries, the newest first: the values of at most `count_max` records that `wanted` takes. Looks at as many of each
/// partition's last records as that, and at 4 MiB. Blocks on the disk.
///
/// # Errors
/// Why a part of the ledger cannot be read; damage in it is passed over.
pub fn newest(
    log: &Log,
    count_max: usize,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> Result<Vec<serde_json::Value>, ReadError> {
    let partitions = log.topic(LEDGER_TOPIC).map(|topic| topic.partitions().to_vec());
    let mut found: Vec<(i64, serde_json::Value)> = Vec::new();
    for partition in partitions.iter().flatten() {
        newest_of(partition, count_max, &wanted, &mut found)?;
    }
    found.sort_by_key(|(at_ms, _)| std::cmp::Reverse(*at_ms));
    found.truncate(count_max);
    Ok(found.into_iter().map(|(_, value)| value).collect())
}

fn newest_of(
    partition: &Partition,
    count_max: usize,
    wanted: &impl Fn(&serde_json::Value) -> bool,
    found: &mut Vec<(i64, serde_json::Value)>,
) -> Result<(), ReadError> {
    let positions = partition.positions();
    let end = positions.high_watermark;
    let count = i64::try_from(count_max).unwrap_or(i64::MAX);
    let from = Offset::new(end.get().saturating_sub(count)).unwrap_or_default();
    let (mut next, mut bytes) = (from.max(positions.log_start), 0);
    while next < end && bytes < READ_BYTES_MAX {
        let read = match partition.read(next, READ_BYTES, ReadLimit::HighWatermark) {
            Ok(read) => read,
            Err(ReadError::Damaged { next_good: Some(good), .. }) if good > next => {
                next = good;
                continue;
            }
            // Retention was faster: there is less than there was.
            Err(ReadError::OutOfRange { log_start, .. }) if log_start > next => {
                next = log_start;
                continue;
            }
            Err(error) => return Err(error),
        };
        bytes += read.batches.iter().map(bytes::Bytes::len).sum::<usize>();
        for record in read.batches.iter().filter_map(|b| batch::records(b).ok()).flatten() {
            let Ok(record) = record else { continue };
            let value = record.value.and_then(|value| serde_json::from_slice(&value).ok());
            if let Some(value) = value.filter(|value| record.offset >= next.get() && wanted(value))
            {
                found.push((record.timestamp_ms, value));
            }
        }
        if read.next <= next {
            break;
        }
        next = read.next;
    }
    Ok(())
}

/// Lists stored records that a reader will not see because they are damaged. At once: such a reader is no client that waits.
pub(crate) fn damaged(log: &Log, source: &Partition, reader: &str, first: Offset, end: Offset) {
    let (topic, partition) = (source.topic().as_str().into(), source.id().get());
    let what = Dropped::Delivery { topic, partition, subscriber: reader.into() };
    let (from, to) = (first.get().unsigned_abs(), end.get().unsigned_abs());
    let now_ms = log.clock().wall_ms();
    let sum = Sum { count: to - from, range: Some((from, to)), first_ms: now_ms, last_ms: now_ms };
    if let Err(error) = append(log, CAUSE_DAMAGED, &what, &sum, now_ms) {
        tracing::error!(%error, reader, from, to, "damaged records could not be listed in the ledger");
    }
}

fn append(
    log: &Log,
    cause: &str,
    what: &Dropped,
    sum: &Sum,
    now_ms: i64,
) -> Result<(), AppendError> {
    let topic = log.topic(LEDGER_TOPIC).ok_or(AppendError::Deleted)?;
    let key = match what {
        Dropped::Published { mqtt_topic } => mqtt_topic.as_bytes(),
        Dropped::Delivery { topic, .. } | Dropped::Stored { topic, .. } => topic.as_bytes(),
        Dropped::Unnamed => b"",
    };
    let partitions = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
    let index = partitioner::partition(key, partitions) as usize;
    let partition = topic.partitions().get(index).ok_or(AppendError::Deleted)?;
    partition.append(&[RecordParts {
        timestamp_ms: now_ms,
        key: Some(key),
        value: Some(&value(cause, what, sum)),
        headers: Headers::EMPTY,
    }])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_log::clock::fake::FakeClock;
    use headwater_log::disk::fake::FakeDisk;

    fn published(topic: &str) -> Dropped {
        Dropped::Published { mqtt_topic: topic.into() }
    }

    #[test]
    fn the_newest_entries_are_read_while_the_log_runs() {
        let config = crate::testing::config();
        let log = crate::testing::open_log(&FakeDisk::new(1), &FakeClock::new(0), &config);
        crate::topics::apply(&config, &log).unwrap();
        let ledger = Ledger::default();
        for at in 0..5 {
            ledger.add("disk_full", published(&format!("a/{at}")), 1, None, at * 10);
            assert_eq!(ledger.flush(&log, at * 10), 1);
        }
        ledger.add("expired", published("b"), 7, None, 100);
        ledger.flush(&log, 100);
        while log.step_commit() {}
        let all = newest(&log, 100, |_| true).unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!((&all[0]["cause"], &all[0]["count"]), (&"expired".into(), &7.into()));
        let full = newest(&log, 2, |entry| entry["cause"] == "disk_full").unwrap();
        let topics: Vec<_> = full.iter().map(|entry| entry["mqtt_topic"].clone()).collect();
        assert_eq!(topics, ["a/4", "a/3"]);
    }

    #[test]
    fn the_value_is_as_documented() {
        let what = Dropped::Delivery { topic: "t".into(), partition: 3, subscriber: "s\"1".into() };
        let sum = Sum { count: 5, range: Some((10, 15)), first_ms: 1, last_ms: 2 };
        assert_eq!(
            String::from_utf8(value("retention", &what, &sum)).unwrap(),
            r#"{"version":1,"cause":"retention","topic":"t","partition":3,"subscriber":"s\"1","from":10,"to":15,"count":5,"first_ms":1,"last_ms":2}"#
        );
        let sum = Sum { range: None, ..sum };
        assert_eq!(
            String::from_utf8(value("disk_full", &published("a/b"), &sum)).unwrap(),
            r#"{"version":1,"cause":"disk_full","mqtt_topic":"a/b","count":5,"first_ms":1,"last_ms":2}"#
        );
    }

    #[test]
    fn entries_add_up_and_memory_is_bounded() {
        let ledger = Ledger::default();
        ledger.add("c", published("a"), 2, None, 10);
        ledger.add("c", published("a"), 3, None, 20);
        {
            let waiting = ledger.waiting.lock();
            let sum = waiting.entries.get(&("c", published("a"))).unwrap();
            assert_eq!(*sum, Sum { count: 5, range: None, first_ms: 10, last_ms: 20 });
        }
        for i in 0..10_000 {
            ledger.add("c", published(&format!("{i:0>300}")), 1, None, 30);
        }
        let waiting = ledger.waiting.lock();
        assert!(waiting.entries.len() <= ENTRIES_MAX + 1 && waiting.bytes <= BYTES_MAX);
        assert_eq!(waiting.entries.values().map(|sum| sum.count).sum::<u64>(), 10_005);
        assert_eq!(waiting.totals.get("c"), Some(&10_005));
        assert!(waiting.entries.contains_key(&("c", Dropped::Unnamed)));
    }

    #[test]
    fn ranges_are_joined() {
        let mut sum = Sum { count: 1, range: Some((5, 6)), first_ms: 5, last_ms: 5 };
        sum.add(&Sum { count: 2, range: Some((1, 3)), first_ms: 3, last_ms: 4 });
        assert_eq!(sum, Sum { count: 3, range: Some((1, 6)), first_ms: 3, last_ms: 5 });
    }
}
