//! A log on the fake disk, driven step by step, and checked against the ledger after every step and crash.

use crate::lookup::timestamp_of;
use crate::model::{Change, Entry, Model, PartitionModel, Sent, TopicModel};
use crate::replica::{Replica, collect_truncation};
use crate::transactions::marker_value;
use bytes::BytesMut;
use headwater_log::batch::compression::{Codec, Compression};
use headwater_log::batch::{self, BatchBuilder, Seal};
use headwater_log::clock::fake::FakeClock;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{
    AckPoint, AppendError, DirectoryStats, LeaderEpoch, Log, LogOptions, Loss, Offset, OpenError,
    Partition, Position, ReadError, ReadLimit, Recovery, Role, Settled, TopicId, TopicName,
};
use std::collections::BTreeMap;
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

/// One thing a client or time does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create {
        topic: &'static str,
        partitions: u32,
        settings: TopicSettings,
    },
    Grow {
        topic: &'static str,
        partitions: u32,
    },
    Alter {
        topic: &'static str,
        settings: TopicSettings,
    },
    Delete {
        topic: &'static str,
    },
    /// Records through the open batch.
    Append {
        topic: &'static str,
        partition: usize,
        records: usize,
        bytes: usize,
    },
    /// A batch of an idempotent producer.
    Produce {
        topic: &'static str,
        partition: usize,
        records: usize,
        bytes: usize,
    },
    /// The last batch of that producer once more.
    Repeat {
        topic: &'static str,
        partition: usize,
    },
    /// Records within a transaction of one of the partition's producers.
    InTransaction {
        topic: &'static str,
        partition: usize,
        producer: i64,
        records: usize,
    },
    /// The end of that producer's transaction.
    Marker {
        topic: &'static str,
        partition: usize,
        producer: i64,
        commit: bool,
    },
    /// A reader of committed data reads all that it may.
    ReadCommitted {
        topic: &'static str,
        partition: usize,
    },
    /// DeleteRecords below this part (of 8) of the partition.
    Trim {
        topic: &'static str,
        partition: usize,
        eighths: u32,
    },
    /// Lookups by time and by label, compared with a scan.
    LookUp {
        topic: &'static str,
        partition: usize,
    },
    /// An index file of the partition is emptied, cut, filled or turned, in a way that follows from the number.
    Spoil {
        topic: &'static str,
        partition: usize,
        how: u32,
    },
    /// What happens to one replica of several.
    Replica {
        topic: &'static str,
        partition: usize,
        what: Replica,
    },
    /// An uplink's hold, and what it has a durable checkpoint of: this part (of 8) of what is left.
    Hold {
        topic: &'static str,
        partition: usize,
        eighths: u32,
    },
    /// From now on the disk has this much room left, or as much as anybody wants.
    Room {
        kib: Option<u32>,
    },
    /// Time passes.
    Wait {
        ms: u32,
    },
    /// The disk of this data directory dies.
    Die {
        directory: usize,
    },
    /// One cycle of the commit thread.
    Commit,
    /// One turn of the housekeeping thread.
    Housekeep,
    /// A checkpoint.
    Checkpoint,
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
        compaction: Default::default(),
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

    pub(crate) fn run(&mut self, steps: &[Step]) {
        for step in steps {
            if self.disk.is_stopped() {
                break;
            }
            self.step(step);
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        self.disk.note(&format!("{step:?}"));
        match *step {
            Step::Create { topic, partitions, ref settings } => {
                self.create(topic, partitions, settings);
            }
            Step::Grow { topic, partitions } => self.grow(topic, partitions),
            Step::Alter { topic, ref settings } => self.alter(topic, settings),
            Step::Delete { topic } => self.delete(topic),
            Step::Append { topic, partition, records, bytes } => {
                self.append(topic, partition, records, bytes);
            }
            Step::Produce { topic, partition, records, bytes } => {
                self.produce(topic, partition, records, bytes);
            }
            Step::Repeat { topic, partition } => self.repeat(topic, partition),
            Step::InTransaction { topic, partition, producer, records } => {
                self.in_transaction(topic, partition, producer, records);
            }
            Step::Marker { topic, partition, producer, commit } => {
                self.mark(topic, partition, producer, commit);
            }
            Step::ReadCommitted { topic, partition } => self.read_committed(topic, partition),
            Step::Trim { topic, partition, eighths } => self.trim(topic, partition, eighths),
            Step::LookUp { topic, partition } => self.look_up(topic, partition),
            Step::Spoil { topic, partition, how } => self.spoil(topic, partition, how),
            Step::Die { directory } => self.disk.kill_below(&self.options.dirs[directory]),
            Step::Hold { topic, partition, eighths } => self.hold(topic, partition, eighths),
            Step::Room { kib } => self.limit(kib),
            Step::Replica { topic, partition, what } => self.replica(topic, partition, what),
            Step::Wait { ms } => self.clock.advance_ms(ms),
            Step::Commit => {
                let log = self.log().clone();
                while log.step_commit() {}
            }
            Step::Housekeep => {
                self.allow_retention();
                self.log().step_upkeep();
            }
            // An error takes the log offline, which shows.
            Step::Checkpoint => drop(self.log().step_checkpoint()),
        }
        self.collect();
    }

    fn create(&mut self, topic: &str, partitions: u32, settings: &TopicSettings) {
        let name = TopicName::new(topic).expect("legal");
        match self.log().create_topic(&name, partitions, settings.clone()) {
            Ok((created, cycle)) => {
                let there = self.model.topics.insert(
                    topic.to_owned(),
                    TopicModel {
                        id: created.id(),
                        settings: vec![settings.clone()],
                        partitions: vec![PartitionModel::default(); partitions as usize],
                        created: false,
                        memory: settings.durability == Durability::Memory,
                    },
                );
                assert!(there.is_none(), "{topic} was created twice");
                self.model
                    .pending
                    .push((cycle, Change::Created(created.id(), partitions as usize)));
            }
            Err(_) => self.refused += 1,
        }
    }

    fn grow(&mut self, topic: &str, partitions: u32) {
        let name = TopicName::new(topic).expect("legal");
        match self.log().add_partitions(&name, partitions) {
            Ok((_, cycle)) => {
                let model = self.model.topics.get_mut(topic).expect("it exists");
                model.partitions.resize_with(partitions as usize, PartitionModel::default);
                let change = Change::Grown(model.id, partitions as usize);
                self.model.pending.push((cycle, change));
            }
            Err(_) => self.refused += 1,
        }
    }

    fn alter(&mut self, topic: &str, settings: &TopicSettings) {
        let name = TopicName::new(topic).expect("legal");
        match self.log().alter_topic(&name, settings.clone()) {
            Ok(cycle) => {
                let model = self.model.topics.get_mut(topic).expect("it exists");
                model.settings.push(settings.clone());
                model.memory |= settings.durability == Durability::Memory;
                let change = Change::Altered(model.id, settings.clone());
                self.model.pending.push((cycle, change));
            }
            Err(_) => self.refused += 1,
        }
    }

    fn delete(&mut self, topic: &str) {
        let name = TopicName::new(topic).expect("legal");
        match self.log().delete_topic(&name) {
            Ok(cycle) => {
                let model = self.model.topics.remove(topic).expect("it exists");
                let id = model.id;
                self.model.graves.push((topic.to_owned(), model, false));
                self.model.pending.push((cycle, Change::Deleted(id)));
            }
            Err(_) => self.refused += 1,
        }
    }

    pub(crate) fn values(
        &mut self,
        topic: &str,
        partition: usize,
        records: usize,
        bytes: usize,
    ) -> Vec<Vec<u8>> {
        (0..records)
            .map(|_| {
                self.model.next_value += 1;
                let mut value =
                    format!("{topic}/{partition}#{}|", self.model.next_value).into_bytes();
                let fill = b'a' + (self.model.next_value % 26) as u8;
                value.resize(value.len().max(bytes), fill);
                value
            })
            .collect()
    }

    fn append(&mut self, topic: &str, partition: usize, records: usize, bytes: usize) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            let record =
                RecordParts { timestamp_ms: 0, key: None, value: None, headers: Headers::EMPTY };
            let refused = target.append(&[record]);
            let refuses = matches!(refused, Err(AppendError::Offline(_) | AppendError::NotLeader));
            assert!(refuses, "{refused:?}");
            assert!(target.read(Offset::ZERO, 1, ReadLimit::HighWatermark).is_err());
            return;
        }
        let values = self.values(topic, partition, records, bytes);
        let mut headers = Headers::default();
        headers.push("h", b"x");
        let parts: Vec<RecordParts<'_>> = values
            .iter()
            .map(|value| RecordParts {
                timestamp_ms: timestamp_of(value),
                key: Some(b"k"),
                value: Some(value),
                headers: &headers,
            })
            .collect();
        match target.append(&parts) {
            Ok(appended) => {
                assert!(!appended.duplicate);
                let end = appended.base.offset.get() + records as i64;
                assert_eq!(appended.last.offset.get() + 1, end);
                self.note(topic, partition, appended.base, appended.last, &values);
            }
            Err(error) => self.note_refusal(&error),
        }
    }

    pub(crate) fn note(
        &mut self,
        topic: &str,
        partition: usize,
        base: Position,
        last: Position,
        values: &[Vec<u8>],
    ) {
        let epoch = base.epoch.get();
        if !self.part(topic, partition).replicated {
            self.model.epoch = self.model.epoch.max(epoch);
        }
        let model = self.part(topic, partition);
        let last_epoch = model.end.checked_sub(1).and_then(|at| model.history.get(at as usize));
        let last_epoch = last_epoch.and_then(|candidates| candidates.last()).map_or(0, |e| e.epoch);
        assert!(epoch >= last_epoch, "epoch {epoch} after {last_epoch}");
        model.appended(base.offset.get(), epoch, values);
        model.pending.push((last, last.offset.get() + 1));
    }

    pub(crate) fn part(&mut self, topic: &str, partition: usize) -> &mut PartitionModel {
        let topic = self.model.topics.get_mut(topic).expect("known to the ledger");
        &mut topic.partitions[partition]
    }

    pub(crate) fn note_refusal(&mut self, error: &AppendError) {
        assert!(
            matches!(
                error,
                AppendError::Busy
                    | AppendError::DiskFull
                    | AppendError::Offline(_)
                    | AppendError::NotLeader
            ),
            "{error}"
        );
        self.refused += usize::from(*error != AppendError::NotLeader);
    }

    fn produce(&mut self, topic: &str, partition: usize, records: usize, bytes: usize) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            return;
        }
        let values = self.values(topic, partition, records, bytes);
        let producer_id = 5_000;
        let sequence = self.part(topic, partition).next_sequence();
        match target.append_batch(client_batch(producer_id, sequence, &values)) {
            Ok(appended) => {
                assert!(!appended.duplicate, "sequence {sequence} is new");
                self.note(topic, partition, appended.base, appended.last, &values);
                let base = appended.base.offset.get();
                let sent = Sent { producer_id, sequence, base, values, cut: false };
                self.part(topic, partition).sent.push(sent);
            }
            Err(error) => self.note_refusal(&error),
        }
    }

    fn repeat(&mut self, topic: &str, partition: usize) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            return;
        }
        let start = target.positions().log_start.get();
        let Some(sent) = self.part(topic, partition).last_sent().cloned() else { return };
        if sent.base < start {
            return;
        }
        match target.append_batch(client_batch(sent.producer_id, sent.sequence, &sent.values)) {
            Ok(appended) if appended.duplicate => {
                assert_eq!(appended.base.offset.get(), sent.base, "the original's place");
            }
            // The tail it stood in was cut: it is a new batch then.
            Ok(appended) => {
                self.note(topic, partition, appended.base, appended.last, &sent.values);
                let base = appended.base.offset.get();
                self.part(topic, partition).sent.push(Sent { base, ..sent });
            }
            Err(error) => self.note_refusal(&error),
        }
    }

    fn trim(&mut self, topic: &str, partition: usize, eighths: u32) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            return;
        }
        let positions = target.positions();
        let room = positions.high_watermark.get() - positions.log_start.get();
        let before = positions.log_start.get() + room * i64::from(eighths) / 8;
        target.delete_before(Offset::new(before).expect("not negative"));
        let id = target.topic_id();
        let model = self.part(topic, partition);
        model.start_max = model.start_max.max(before);
        let cycles = cycles(self.log(), &target);
        self.model.pending.push((cycles, Change::Trimmed(id, partition, before)));
    }

    /// Notes what the log acknowledges now, and checks its pointers.
    pub(crate) fn collect(&mut self) {
        let log = self.log().clone();
        let Model { topics, pending, graves, .. } = &mut self.model;
        pending.retain(|(cycle, change)| {
            // A trim is durable when the cycle after it has ended.
            let done = match change {
                Change::Trimmed(id, partition, _) => {
                    let topic = log.topics().into_iter().find(|topic| topic.id() == *id);
                    topic.is_some_and(|t| cycles(&log, &t.partitions()[*partition]) > *cycle)
                }
                _ => matches!(log.committed(*cycle), Ok(true)),
            };
            if !done {
                return true;
            }
            match change {
                Change::Created(id, count) | Change::Grown(id, count) => {
                    if let Some(topic) = by_id(topics, graves, *id) {
                        topic.created = true;
                        let new = topic.partitions.iter_mut().take(*count);
                        new.for_each(|partition| partition.created = true);
                    }
                }
                Change::Altered(id, settings) => {
                    if let Some(topic) = by_id(topics, graves, *id)
                        && let Some(at) = topic.settings.iter().position(|s| s == settings)
                    {
                        topic.settings.drain(..at);
                    }
                }
                Change::Deleted(id) => {
                    if let Some(grave) = graves.iter_mut().find(|(_, topic, _)| topic.id == *id) {
                        grave.2 = true;
                    }
                }
                Change::Trimmed(id, partition, before) => {
                    if let Some((_, topic)) = topics.iter_mut().find(|(_, t)| t.id == *id) {
                        let model = &mut topic.partitions[*partition];
                        model.start_acked = model.start_acked.max(*before);
                    }
                }
            }
            false
        });
        for (name, model) in topics {
            let Some(topic) = log.topic(name) else { panic!("topic {name} is gone") };
            assert_eq!(topic.id(), model.id);
            let durable = !model.memory;
            for (partition, model) in topic.partitions().iter().zip(&mut model.partitions) {
                self.refused += collect_partition(partition, model, durable);
            }
        }
    }
}

/// The directory that holds a partition.
pub(crate) fn directory(log: &Log, partition: &Partition) -> DirectoryStats {
    let mut all = log.stats().directories.into_iter();
    all.find(|d| d.number == Some(partition.directory())).expect("a directory for each partition")
}

/// Commit cycles of the directory that holds a partition.
fn cycles(log: &Log, partition: &Partition) -> u64 {
    directory(log, partition).cycles
}

/// A topic may be deleted, and made again under its name, before its creation is committed.
fn by_id<'a>(
    topics: &'a mut BTreeMap<String, TopicModel>,
    graves: &'a mut [(String, TopicModel, bool)],
    id: TopicId,
) -> Option<&'a mut TopicModel> {
    let live = topics.values_mut().find(|topic| topic.id == id);
    live.or_else(|| graves.iter_mut().map(|(_, topic, _)| topic).find(|topic| topic.id == id))
}

fn collect_partition(partition: &Partition, model: &mut PartitionModel, durable: bool) -> usize {
    if partition.missing().is_some() {
        return 0;
    }
    let name = format!("{}-{}", partition.topic(), partition.id());
    let mut lost = 0;
    collect_truncation(partition, model);
    model.replicated_acked |= partition.role() == Role::Leader;
    model.pending.retain(|(position, end)| {
        match partition.settled(AckPoint::HighWatermark, *position) {
            Settled::Passed => model.shown_end = model.shown_end.max(*end),
            // The high watermark of a replica moves by itself.
            Settled::Waiting | Settled::Lost(Loss::Fenced) => {}
            Settled::Lost(Loss::Truncated) => return false,
            Settled::Lost(_) => {
                lost += 1;
                return false;
            }
        }
        match partition.settled(AckPoint::Synced, *position) {
            Settled::Passed => {
                model.acked_end = model.acked_end.max(*end);
                false
            }
            Settled::Waiting => true,
            Settled::Lost(Loss::Fenced | Loss::Truncated) => false,
            Settled::Lost(_) => {
                lost += 1;
                false
            }
        }
    });
    let p = partition.positions();
    assert!(p.log_start <= p.high_watermark && p.high_watermark <= p.log_end, "{name}: {p:?}");
    assert!(p.log_start <= p.last_stable && p.last_stable <= p.high_watermark, "{name}: {p:?}");
    assert!(p.synced <= p.written && p.written <= p.log_end, "{name}: {p:?}");
    assert!(!durable || p.high_watermark <= p.synced, "{name}: {p:?}");
    assert!(p.high_watermark.get() >= model.shown_end, "{name}: {p:?} took back {model:?}");
    assert!(p.log_end.get() <= model.end, "{name}: {p:?} has what nobody appended");
    model.cut(p.log_end.get());
    assert!(p.log_start.get() <= model.start_max, "{name}: {p:?} lost its start");
    model.shown_end = p.high_watermark.get();
    model.watermark_max = model.watermark_max.max(model.shown_end);
    // Offline or not, what is shown as synced is acknowledged.
    model.acked_end = model.acked_end.max(p.synced.get()).min(model.truncating.unwrap_or(i64::MAX));
    lost
}

/// A batch as a Kafka client sends it.
pub(crate) fn client_batch(producer_id: i64, sequence: i32, values: &[Vec<u8>]) -> BytesMut {
    let mut builder = BatchBuilder::new();
    for value in values {
        let record = RecordParts {
            timestamp_ms: timestamp_of(value),
            key: None,
            value: Some(value),
            headers: Headers::EMPTY,
        };
        builder.push(&record, usize::MAX).expect("no limit");
    }
    let seal = Seal {
        base_offset: Offset::ZERO,
        epoch: LeaderEpoch::default(),
        node_slot: 0,
        base_sequence: 0,
    };
    let mut bytes = BytesMut::from(&builder.seal(seal).expect("not empty")[..]);
    batch::readdress(&mut bytes, producer_id, 0, sequence);
    // A producer that tries one codec after the other.
    let codec = Codec::from_number((sequence % 5) as u8).expect("there are five");
    match batch::compressed(&bytes, Compression { codec, level: None }) {
        Some(small) => BytesMut::from(&small[..]),
        None => bytes,
    }
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
        if read.batches.is_empty() {
            assert_eq!(read.next, from);
            break;
        }
        for bytes in &read.batches {
            let header = batch::verify(bytes).expect("a served batch is whole");
            for record in batch::records(bytes).expect("a served batch is whole") {
                let record = record.expect("a served record is whole");
                if record.offset >= start.get() {
                    let value = match header.is_control() {
                        true => marker_value(&header, bytes),
                        false => record.value.expect("no tombstones here").to_vec(),
                    };
                    found.push((
                        record.offset,
                        Entry { epoch: header.partition_leader_epoch, value },
                    ));
                }
            }
        }
        assert!(read.next > from, "a reader that stands still");
        from = read.next;
    }
    Ok(found)
}
