//! A log on the fake disk, driven step by step, and checked against the ledger after every step and crash.

use crate::keys::text_of;
use crate::model::{Entry, Model, PartitionModel};
use crate::transactions::marker_value;
use bytes::Bytes;
use headwater_log::batch;
use headwater_log::clock::fake::FakeClock;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::Record;
use headwater_log::{
    CompactionOptions, DirectoryStats, Log, LogOptions, OpenError, Partition, ReadError, ReadLimit,
    Recovery, Role,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// How the last life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Only the process died.
    Kill,
    /// The power went.
    Power,
}

pub(crate) fn options() -> LogOptions {
    LogOptions {
        dirs: vec![PathBuf::from("/data")],
        journal_file_bytes: 32 << 10,
        journal_files: 3,
        commit_delay: Duration::ZERO,
        commit_delay_max: Duration::from_millis(100),
        journal_bytes_per_day: None,
        bulk_bytes: 0,
        uncommitted_bytes_max: 1 << 20,
        tail_bytes_max: 8 << 10,
        memory_sync: Duration::from_secs(1),
        reserved_bytes: 0,
        open_files_max: 256,
        labeller: Some(crate::lookup::LABELLER),
        producer_id_expiration: Duration::from_secs(86_400),
        topics_max: 100,
        partitions_max: 1_000,
        max_bytes: None,
        // Keys are few: a map of the smallest size has room for all.
        compaction: CompactionOptions { memory_bytes: 0, bytes_per_second: None },
        min_free: None,
    }
}

pub(crate) fn settings(durability: Durability) -> TopicSettings {
    TopicSettings {
        durability,
        retention_ms: None,
        retention_bytes: None,
        segment_bytes: 8 << 10,
        segment_ms: 3_600_000,
        batch_bytes_max: 4 << 10,
        ..TopicSettings::default()
    }
}

/// A failing run prints what the disk was asked to do, with `HEADWATER_TRACE` set.
impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("HEADWATER_TRACE").is_some() {
            let trace = [&self.past[..], &self.disk.trace()[..]].concat();
            eprintln!("{}\n{:#?}", trace.join("\n"), self.disk.files());
        }
    }
}

pub(crate) struct Sim {
    pub(crate) disk: FakeDisk,
    pub(crate) clock: FakeClock,
    pub(crate) options: LogOptions,
    pub(crate) log: Option<Log>,
    pub(crate) model: Model,
    /// What the disks of earlier lives were asked to do, and by which steps.
    pub(crate) past: Vec<String>,
    /// Offsets that were refused or lost with a reason, to know that something was loud.
    pub(crate) refused: usize,
    /// The disk has an end.
    pub(crate) tight: bool,
    /// Every record has a key and a value, as the fixtures of released formats have them.
    pub(crate) plain: bool,
    /// This life is about compaction.
    pub(crate) keyed: bool,
    /// Some operation failed, in this life or one before: partitions may have been lost with a reason.
    pub(crate) faulty: bool,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            disk: FakeDisk::new(seed),
            clock: FakeClock::new(1_800_000_000_000),
            options: options(),
            log: None,
            model: Model { epoch: -1, ..Model::default() },
            past: vec![],
            refused: 0,
            tight: false,
            plain: false,
            keyed: false,
            faulty: false,
        }
    }

    /// The account as it stands, on another disk: the world after a crash.
    pub(crate) fn on(&self, disk: FakeDisk) -> Self {
        Self {
            disk,
            clock: self.clock.clone(),
            options: self.options.clone(),
            log: None,
            model: self.model.clone(),
            past: [&self.past[..], &self.disk.trace()[..], &["--- the end".to_owned()]].concat(),
            refused: 0,
            tight: self.tight,
            plain: self.plain,
            keyed: self.keyed,
            faulty: self.faulty || self.disk.has_failed(),
        }
    }

    pub(crate) fn open(&mut self) -> Result<Recovery, OpenError> {
        let disk = Arc::new(self.disk.clone());
        let (log, recovery) = Log::open(self.options.clone(), disk, Arc::new(self.clock.clone()))?;
        self.log = Some(log);
        self.hold_again();
        Ok(recovery)
    }

    pub(crate) fn log(&self) -> &Log {
        self.log.as_ref().expect("the log is open")
    }

    pub(crate) fn partition(&self, topic: &str, partition: usize) -> Option<Arc<Partition>> {
        self.log().topic(topic)?.partitions().get(partition).cloned()
    }

    pub(crate) fn part(&mut self, topic: &str, partition: usize) -> &mut PartitionModel {
        let topic = self.model.topics.get_mut(topic).expect("known to the ledger");
        &mut topic.partitions[partition]
    }
}

/// The directory that holds a partition.
pub(crate) fn directory(log: &Log, partition: &Partition) -> DirectoryStats {
    let mut all = log.stats().directories.into_iter();
    all.find(|d| d.number == Some(partition.directory())).expect("a directory for each partition")
}

/// Every record that can be read from the log start on: offset, epoch, value.
pub(crate) fn read_all(partition: &Partition) -> Vec<(i64, Entry)> {
    try_read_all(partition).unwrap_or_else(|e| {
        let (topic, id) = (partition.topic(), partition.id());
        panic!("{topic}-{id}: {e}, {:?}", partition.positions())
    })
}

pub(crate) fn try_read_all(partition: &Partition) -> Result<Vec<(i64, Entry)>, ReadError> {
    let start = partition.positions().log_start;
    let mut from = start;
    let mut found = vec![];
    let limit = match partition.role() {
        Role::Alone => ReadLimit::HighWatermark,
        // A replica's readers see less.
        Role::Leader | Role::Follower => ReadLimit::Written,
    };
    loop {
        let read = partition.read(from, 3_000, limit)?;
        if read.batches.is_empty() && read.next == from {
            break;
        }
        found.extend(read.batches.iter().flat_map(entries_of).filter(|(at, _)| *at >= start.get()));
        assert!(read.next > from, "a reader that stands still");
        from = read.next;
    }
    Ok(found)
}

/// What a batch has, as the account has it.
pub(crate) fn entries_of(bytes: &Bytes) -> Vec<(i64, Entry)> {
    let header = batch::verify(bytes).expect("a served batch is whole");
    let entry = |record: Result<Record, _>| {
        let record = record.expect("a served record is whole");
        let value = match header.is_control() {
            true => marker_value(&header, bytes),
            false => text_of(&record),
        };
        (record.offset, Entry { epoch: header.partition_leader_epoch, value })
    };
    batch::records(bytes).expect("a served batch is whole").map(entry).collect()
}
