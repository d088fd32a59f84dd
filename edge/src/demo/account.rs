//! The account: published = acknowledged = stored = mirrored, by reading both logs from their beginning.
//!
//! Invariant: no counter of the node is believed; each message is looked for by its device and number, in the edge's
//! log through the log's reader and in the centre's through its log or, for a real Kafka, through Kafka's protocol.
//! Neighbours: `devices` has the publishers' ledger.

use super::devices::{Ledger, Numbers};
use super::plant::TOPICS;
use anyhow::{Context, ensure};
use bytes::Bytes;
use headwater_kafka::client::{Client, ClientOptions, FetchPartition};
use headwater_log::batch::{self, BatchHeader};
use headwater_log::record::Record;
use headwater_log::{Log, ReadLimit};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// How long a broker may keep a fetch that finds nothing.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// What was read of one topic.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Per device, how often each number was there.
    seen: BTreeMap<String, Vec<u32>>,
    /// Records that no device of this run sent.
    strangers: u64,
    /// Records that came out of order within their device.
    disordered: u64,
}

impl Tally {
    fn add(&mut self, record: &Record) {
        let value = record.value.as_deref().unwrap_or_default();
        let message: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
        let number = message["n"].as_u64().and_then(|n| usize::try_from(n).ok());
        // A number is bounded by what devices can have sent in the longest demo.
        let (Some(device), Some(number)) =
            (message["device"].as_str(), number.filter(|n| *n < 100_000_000))
        else {
            self.strangers += 1;
            return;
        };
        let seen = self.seen.entry(device.to_owned()).or_default();
        if number < seen.len() {
            self.disordered += u64::from(seen[number] == 0);
        } else {
            seen.resize(number + 1, 0);
        }
        seen[number] += 1;
    }

    fn add_batches(&mut self, bytes: &Bytes) -> anyhow::Result<Option<i64>> {
        let mut rest = bytes.clone();
        let mut next = None;
        // The last batch of a fetch may be cut short: it comes again, whole.
        while let Ok(header) = BatchHeader::parse(&rest) {
            if rest.len() < header.size_bytes() {
                break;
            }
            let one = rest.split_to(header.size_bytes());
            batch::verify(&one)?;
            for record in batch::records(&one)? {
                self.add(&record?);
            }
            next = Some(header.last_offset() + 1);
        }
        Ok(next)
    }

    fn unique(&self) -> u64 {
        self.seen.values().flatten().filter(|n| **n > 0).count() as u64
    }

    fn twice(&self) -> u64 {
        self.seen.values().flatten().map(|n| u64::from(n.saturating_sub(1))).sum()
    }

    /// Acknowledged messages that are not there.
    fn lost(&self, ledger: &BTreeMap<String, Numbers>) -> u64 {
        let mut lost = 0;
        for (device, numbers) in ledger {
            let seen = self.seen.get(device).map_or(&[][..], Vec::as_slice);
            let is_there = |i: usize| seen.get(i).is_some_and(|n| *n > 0);
            lost +=
                numbers.iter().enumerate().filter(|(i, acked)| **acked && !is_there(*i)).count();
        }
        lost as u64
    }
}

/// Reads a topic of a node in this process.
pub(super) fn read_log(log: &Log, topic: &str) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let Some(topic) = log.topic(topic) else { return Ok(tally) };
    for partition in topic.partitions() {
        let mut from = partition.positions().log_start;
        while from < partition.positions().high_watermark {
            let read = partition.read(from, READ_BYTES, ReadLimit::HighWatermark)?;
            for batch in &read.batches {
                tally.add_batches(batch)?;
            }
            ensure!(read.next > from, "reading {} stands still at {from}", topic.name());
            from = read.next;
        }
    }
    Ok(tally)
}

/// Reads a topic of a Kafka cluster, by Kafka's protocol.
pub(super) async fn read_kafka(centre: &str, topic: &str) -> anyhow::Result<Tally> {
    let options = ClientOptions::new(vec![centre.to_owned()], "headwater-demo");
    let client = Client::connect(options).await?;
    let metadata = client.metadata(Some(&[topic.to_owned()])).await?;
    let found = metadata.topics.first().context("the centre did not answer for the topic")?;
    let mut tally = Tally::default();
    for partition in &found.partitions {
        let leader = partition.leader.with_context(|| format!("{topic} has no leader"))?;
        let broker = client.broker(leader).await?;
        let mut offset = 0;
        loop {
            let from = FetchPartition { topic: topic.into(), partition: partition.id, offset };
            let fetched = broker.fetch(&from, READ_BYTES, FETCH_WAIT).await?;
            match tally.add_batches(&fetched.records)? {
                Some(next) => offset = next,
                None => ensure!(offset >= fetched.high_watermark, "reading {topic} stands still"),
            }
            if offset >= fetched.high_watermark {
                break;
            }
        }
    }
    Ok(tally)
}

/// One row of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) topic: String,
    pub(super) published: u64,
    pub(super) acknowledged: u64,
    pub(super) stored: u64,
    pub(super) mirrored: u64,
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) strangers: u64,
    pub(super) disordered: u64,
}

impl Row {
    /// Makes the row of a topic. `resent` is how many messages the publishers themselves sent again.
    pub(super) fn new(index: usize, ledger: &Ledger, stored: &Tally, mirrored: &Tally) -> Self {
        let numbers = &ledger.topics[index];
        let count = |wanted: fn(&bool) -> bool| {
            numbers.values().flatten().filter(|acked| wanted(acked)).count() as u64
        };
        Self {
            topic: TOPICS[index].to_owned(),
            published: count(|_| true),
            acknowledged: count(|acked| *acked),
            stored: stored.unique(),
            mirrored: mirrored.unique(),
            lost: stored.lost(numbers).max(mirrored.lost(numbers)),
            twice: stored.twice().max(mirrored.twice()),
            strangers: stored.strangers + mirrored.strangers,
            disordered: stored.disordered + mirrored.disordered,
        }
    }

    /// Whether it adds up; what the publishers sent again may be there twice.
    pub(super) fn adds_up(&self, resent: u64) -> bool {
        self.published == self.acknowledged
            && self.acknowledged == self.stored
            && self.stored == self.mirrored
            && self.lost == 0
            && self.twice <= resent
            && self.strangers == 0
            && self.disordered <= resent
    }
}

/// The account as a table.
pub(super) fn table(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<12} {:>10} {:>13} {:>10} {:>10} {:>6} {:>6}\n",
        "topic", "published", "acknowledged", "stored", "mirrored", "lost", "twice"
    );
    for row in rows {
        out.push_str(&format!(
            "{:<12} {:>10} {:>13} {:>10} {:>10} {:>6} {:>6}\n",
            row.topic,
            row.published,
            row.acknowledged,
            row.stored,
            row.mirrored,
            row.lost,
            row.twice
        ));
        if row.strangers + row.disordered > 0 {
            out.push_str(&format!(
                "  {} records that no device sent, {} out of order\n",
                row.strangers, row.disordered
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(device: &str, n: u64) -> Record {
        Record {
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: Some(format!("{{\"device\":\"{device}\",\"n\":{n}}}").into()),
            headers: Vec::new(),
        }
    }

    fn tally(records: &[(&str, u64)]) -> Tally {
        let mut tally = Tally::default();
        for (device, n) in records {
            tally.add(&record(device, *n));
        }
        tally
    }

    fn ledger(acked: &[(&str, &[bool])]) -> Ledger {
        let mut ledger = Ledger::default();
        for (device, numbers) in acked {
            ledger.topics[0].insert((*device).to_owned(), numbers.to_vec());
        }
        ledger
    }

    #[test]
    fn it_adds_up_only_when_all_are_there_once() {
        let ledger = ledger(&[("a", &[true, true]), ("b", &[true])]);
        let all = [("a", 0), ("a", 1), ("b", 0)];
        let right = Row::new(0, &ledger, &tally(&all), &tally(&all));
        assert!(right.adds_up(0), "{right:?}");
        let cases: [&[(&str, u64)]; 4] = [
            &[("a", 0), ("b", 0)],
            &[("a", 0), ("a", 1), ("a", 1), ("b", 0)],
            &[("a", 1), ("a", 0), ("b", 0)],
            &[("a", 0), ("a", 1), ("b", 0), ("c", 0)],
        ];
        for wrong in cases {
            assert!(!Row::new(0, &ledger, &tally(wrong), &tally(&all)).adds_up(0), "{wrong:?}");
            assert!(!Row::new(0, &ledger, &tally(&all), &tally(wrong)).adds_up(0), "{wrong:?}");
        }
        let lost = Row::new(0, &ledger, &tally(&all), &tally(cases[0]));
        assert_eq!((lost.lost, lost.mirrored), (1, 2));
    }

    #[test]
    fn what_was_not_acknowledged_does_not_add_up() {
        let ledger = ledger(&[("a", &[true, false])]);
        let all = tally(&[("a", 0), ("a", 1)]);
        assert!(!Row::new(0, &ledger, &all, &tally(&[("a", 0), ("a", 1)])).adds_up(0));
    }

    #[test]
    fn a_record_of_somebody_else_is_a_stranger() {
        let mut tally = Tally::default();
        tally.add(&Record { value: Some(Bytes::from_static(b"not json")), ..record("a", 0) });
        tally.add(&Record { value: None, ..record("a", 0) });
        assert_eq!((tally.strangers, tally.unique()), (2, 0));
    }
}
