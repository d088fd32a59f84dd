//! What is written, and what was reported as durable.
//!
//! A record's bytes follow from its partition and offset alone, so that any of them can be checked without being remembered.
//!
//! | line on standard output | meaning |
//! |---|---|
//! | `open N` | the log is open and has N partitions |
//! | `durable P END` | in partition P everything below offset END is synced |
//!
//! Invariant: a line counts only when it ends.

use anyhow::Context;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::{Log, LogOptions, Offset, Partition, ReadLimit, Recovery, Topic, TopicName};
use headwater_log::{batch, clock::SystemClock, disk::SystemDisk};
use std::path::Path;
use std::sync::Arc;

const TOPIC: &str = "selftest";
/// Bytes of a record at most.
const RECORD_BYTES_MAX: u64 = 1_500;
const READ_BYTES: usize = 4 << 20;
/// Bytes of log per partition that retention leaves, with the segment being written.
const KEPT_BYTES: u64 = 1 << 20;

/// What each partition was said to have.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    /// By partition: everything below is durable.
    durable: Vec<i64>,
    /// By partition: everything below was read and was right.
    checked: Vec<i64>,
}

/// The bytes of one record.
pub(super) fn value(partition: u32, offset: i64, out: &mut Vec<u8>) {
    let seed = (u64::from(partition) << 40) ^ offset.unsigned_abs();
    let mut random = Random(seed);
    let length = random.next() % RECORD_BYTES_MAX;
    out.clear();
    while (out.len() as u64) < length {
        out.extend_from_slice(&random.next().to_le_bytes());
    }
    out.truncate(length as usize);
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Some of the appends are as large as this.
const BULK_BYTES: usize = 12 << 10;

/// Opens the log under test.
pub(super) fn open(dir: &Path, partitions: u32) -> anyhow::Result<(Log, Topic, Recovery)> {
    let options = LogOptions {
        dirs: vec![dir.to_owned()],
        // A small ring comes round often: more checkpoints, more reuse.
        journal_file_bytes: 4 << 20,
        // The larger appends go past the journal.
        bulk_bytes: BULK_BYTES,
        ..LogOptions::default()
    };
    let (log, recovery) = Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock))?;
    let topic = match log.topic(TOPIC) {
        Some(topic) => topic,
        None => {
            let name = TopicName::new(TOPIC).context("a legal name")?;
            let settings = TopicSettings {
                durability: Durability::Fsync,
                retention_ms: None,
                retention_bytes: Some(KEPT_BYTES),
                segment_bytes: KEPT_BYTES,
                ..TopicSettings::default()
            };
            log.create_topic(&name, partitions, settings)?.0
        }
    };
    Ok((log, topic, recovery))
}

impl Account {
    pub(super) fn new(partitions: u32) -> Self {
        let zeros = vec![0; partitions as usize];
        Self { durable: zeros.clone(), checked: zeros }
    }

    /// Takes one whole line of the writer's; others are not ours.
    pub(super) fn note(&mut self, line: &str) {
        let mut words = line.split(' ');
        if words.next() != Some("durable") {
            return;
        }
        let (Some(Ok(partition)), Some(Ok(end))) =
            (words.next().map(str::parse::<usize>), words.next().map(str::parse::<i64>))
        else {
            return;
        };
        if let Some(durable) = self.durable.get_mut(partition) {
            *durable = end.max(*durable);
        }
    }

    /// Records reported as durable.
    pub(super) fn records(&self) -> u64 {
        self.durable.iter().map(|end| end.unsigned_abs()).sum()
    }

    /// What lies below these ends is not looked at: it was written in another way.
    pub(super) fn begin_at(&mut self, topic: &Topic) {
        let ends = topic.partitions().iter().map(|p| p.positions().log_end.get());
        self.checked = ends.collect();
        self.durable.clone_from(&self.checked);
    }

    /// Looks whether everything that was durable is there, and whether everything that is there is right, from where the last
    /// look ended, or all of it. `Err`: what is not, for people.
    pub(super) fn check(&mut self, topic: &Topic, all: bool) -> Result<(), String> {
        if topic.partitions().len() < self.durable.len() {
            // Nothing may have been acknowledged before the topic was durable.
            if self.records() > 0 {
                return Err(format!("{} partitions are gone", self.durable.len()));
            }
            return Ok(());
        }
        for (number, partition) in topic.partitions().iter().enumerate().take(self.durable.len()) {
            let positions = partition.positions();
            let (end, owed) = (positions.log_end.get(), self.durable[number]);
            if end < owed {
                return Err(format!(
                    "partition {number}: offsets {end} to {} were durable and are gone",
                    owed - 1
                ));
            }
            let from = if all { 0 } else { self.checked[number] };
            let from = Offset::new(from).unwrap_or_default().max(positions.log_start);
            read(partition, number as u32, from, end)?;
            self.checked[number] = end;
            // What a check has seen after a restart is durable: it must never go again.
            self.durable[number] = end;
        }
        Ok(())
    }
}

fn read(partition: &Partition, number: u32, from: Offset, end: i64) -> Result<(), String> {
    let (mut next, mut expected, mut wanted) = (from, from.get(), Vec::new());
    while next.get() < end {
        let read = partition
            .read(next, READ_BYTES, ReadLimit::HighWatermark)
            .map_err(|e| format!("partition {number}: {e}"))?;
        for bytes in &read.batches {
            let records = batch::records(bytes).map_err(|e| format!("partition {number}: {e}"))?;
            for record in records {
                let record = record.map_err(|e| format!("partition {number}: {e}"))?;
                if record.offset < expected {
                    continue;
                }
                value(number, record.offset, &mut wanted);
                if record.offset != expected || record.value.as_deref() != Some(&wanted[..]) {
                    return Err(format!(
                        "partition {number}: offset {expected} is not what was written"
                    ));
                }
                expected += 1;
            }
        }
        if read.next <= next {
            return Err(format!("partition {number}: offset {next} cannot be read"));
        }
        next = read.next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_when_they_are_whole_and_never_go_back() {
        let mut account = Account::new(2);
        for line in [
            "open 2",
            "durable 0 7",
            "durable 1 3",
            "durable 0 5",
            "durable 9 9",
            "durable",
            "durable 1",
        ] {
            account.note(line);
        }
        assert_eq!(account.durable, [7, 3]);
        assert_eq!(account.records(), 10);
    }

    #[test]
    fn what_is_missing_or_other_than_written_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (log, topic, _) = open(&dir.path().join("log"), 2).unwrap();
        let mut bytes = Vec::new();
        for offset in 0..5 {
            // The last one is not what its offset says.
            value(0, offset + i64::from(offset == 4), &mut bytes);
            let record = headwater_log::record::RecordParts {
                timestamp_ms: 1,
                key: None,
                value: Some(&bytes),
                headers: headwater_log::record::Headers::EMPTY,
            };
            topic.partitions()[0].append(&[record]).unwrap();
            while log.step_commit() {}
        }
        let mut account = Account::new(2);
        let wrong = account.check(&topic, true).unwrap_err();
        assert!(wrong.contains("offset 4"), "{wrong}");
        account.begin_at(&topic);
        assert_eq!(account.check(&topic, false), Ok(()));
        account.note("durable 1 1");
        let gone = account.check(&topic, false).unwrap_err();
        assert!(gone.contains("gone"), "{gone}");
    }
}
