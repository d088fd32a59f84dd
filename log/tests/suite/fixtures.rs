//! Data directories of version 0.2, written once and committed, with what is in them as text: every later version reads the
//! same. (`directory` has those of 0.1.) `HEADWATER_WRITE_FIXTURES=1` makes those that are missing.
//!
//! They hold every kind of file and of journal frame: codecs, transactions with their lists and snapshots, what compaction
//! leaves and a swap in the journal, a truncated replica, deleted records, a deleted topic, a `memory` topic; two data
//! directories of one log; and extents in the journal of one that was killed.

use crate::clients::client_batch;
use crate::directory::{fixture, plant_folder};
use crate::sim::{options, settings};
use bytes::{Bytes, BytesMut};
use headwater_log::batch::compression::{Codec, Compression};
use headwater_log::batch::marker::{EndTransaction, TransactionMarker};
use headwater_log::batch::{self, BatchBuilder, Seal};
use headwater_log::clock::fake::FakeClock;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::metadata::{Cleanup, Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{LeaderEpoch, Log, LogOptions, Offset, Partition, ReadLimit, TopicName};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NOW_MS: i64 = 1_800_000_000_000;

/// One fixture: how many data directories, and whether the log was closed.
struct Fixture {
    name: &'static str,
    dirs: usize,
    clean: bool,
    /// Much is written at once, past the journal.
    bulk: bool,
}

const FIXTURES: [Fixture; 4] = [
    Fixture { name: "v0.2-closed", dirs: 1, clean: true, bulk: false },
    Fixture { name: "v0.2-killed", dirs: 1, clean: false, bulk: false },
    Fixture { name: "v0.2-two-directories", dirs: 2, clean: false, bulk: false },
    Fixture { name: "v0.2-bulk", dirs: 1, clean: false, bulk: true },
];

impl Fixture {
    fn open(&self, disk: &FakeDisk) -> (Log, headwater_log::Recovery) {
        let dirs = ["/data", "/other"][..self.dirs].iter().map(PathBuf::from).collect();
        let bulk_bytes = if self.bulk { 1_500 } else { 0 };
        let options = LogOptions { dirs, bulk_bytes, ..options() };
        let clock = Arc::new(FakeClock::new(NOW_MS));
        Log::open(options, Arc::new(disk.clone()), clock).expect("it opens")
    }
}

fn topic(log: &Log, name: &str, settings: TopicSettings) -> Arc<Partition> {
    let name = TopicName::new(name).expect("legal");
    log.create_topic(&name, 1, settings).expect("it is new").0.partitions()[0].clone()
}

fn small(durability: Durability) -> TopicSettings {
    TopicSettings { segment_bytes: 2 << 10, ..settings(durability) }
}

fn append(partition: &Partition, count: usize, keys: usize) {
    for i in 0..count {
        let number = partition.positions().log_end.get();
        let key = format!("key-{}", i % keys);
        let value = format!("{number} {}", "v".repeat(60));
        let mut headers = Headers::default();
        headers.push("h", b"x");
        let record = RecordParts {
            timestamp_ms: NOW_MS + number,
            key: Some(key.as_bytes()),
            value: (number % 11 != 10).then_some(value.as_bytes()),
            headers: &headers,
        };
        partition.append(&[record]).expect("there is room");
    }
}

fn commit(log: &Log) {
    while log.step_commit() {}
}

fn transaction(partition: &Partition, sequence: i32, end: Option<bool>) {
    let values: Vec<Vec<u8>> =
        (0..3).map(|i| format!("txn {} {}", sequence + i, "t".repeat(90)).into_bytes()).collect();
    let mut batch = client_batch(7_000, sequence, &values);
    batch[22] |= 0x10;
    let crc = crc_fast::crc32_iscsi(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    partition.append_batch(batch).expect("the next in its sequence");
    let Some(commit) = end else { return };
    let marker = TransactionMarker {
        producer_id: 7_000,
        producer_epoch: 0,
        end: EndTransaction { commit, coordinator_epoch: 2 },
        bumps_epoch: false,
        timestamp_ms: NOW_MS,
    };
    partition.append_marker(&marker).expect("it is open");
}

/// A batch as a leader sends it.
fn leaders_batch(base: i64, epoch: LeaderEpoch, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new();
    let record = RecordParts {
        timestamp_ms: NOW_MS + base,
        key: None,
        value: Some(value.as_bytes()),
        headers: Headers::EMPTY,
    };
    builder.push(&record, usize::MAX).expect("no limit");
    let base_offset = Offset::new(base).expect("not negative");
    let seal = Seal { base_offset, epoch, node_slot: 0, base_sequence: 0 };
    builder.seal(seal).expect("not empty")
}

/// What the fixtures hold; never to be changed, only added to for a later version.
fn life(log: &Log) {
    let zstd = Compression { codec: Codec::Zstd, level: Some(5) };
    let packed = TopicSettings { compression: zstd, ..small(Durability::Fsync) };
    let packed = topic(log, "packed", packed);
    let memory = topic(log, "memory", small(Durability::Memory));
    let clients = topic(log, "clients", small(Durability::Fsync));
    let transactions = topic(log, "transactions", small(Durability::Fsync));
    let replica = topic(log, "replica", small(Durability::Fsync));
    let compacted = TopicSettings {
        cleanup: Cleanup::Compact,
        dirty_ratio_permille: 0,
        ..small(Durability::Fsync)
    };
    let compacted = topic(log, "compacted", compacted);
    let follower = LeaderEpoch::new(100).expect("not negative");
    replica.become_follower(follower).expect("a new epoch");
    for round in 0..12 {
        append(&packed, 8, 100);
        append(&memory, 3, 100);
        append(&compacted, 10, 4);
        let values: Vec<Vec<u8>> = (0..4).map(|i| vec![b'a' + i; 120]).collect();
        clients.append_batch(client_batch(5_000, round * 4, &values)).expect("the next");
        transaction(&transactions, round * 3, Some(round % 3 != 0));
        let batch = leaders_batch(i64::from(round), follower, &format!("replica {round}"));
        replica.append_as_follower(batch).expect("the next");
        commit(log);
        if round == 7 {
            replica.advance_high_watermark(Offset::new(5).expect("not negative"));
            while log.step_compaction() {
                commit(log);
            }
            log.step_upkeep();
            log.step_checkpoint().expect("the disk is well");
        }
    }
    // What the journal alone has: of every kind of frame one.
    replica.truncate_to(Offset::new(9).expect("not negative")).expect("above the high watermark");
    commit(log);
    let later = LeaderEpoch::new(102).expect("not negative");
    replica.become_follower(later).expect("a newer epoch");
    replica.append_as_follower(leaders_batch(9, later, "another")).expect("the next");
    packed.delete_before(Offset::new(30).expect("not negative"));
    transaction(&transactions, 36, None);
    topic(log, "deleted", small(Durability::Fsync));
    commit(log);
    log.delete_topic(&TopicName::new("deleted").expect("legal")).expect("it is there");
    while log.step_compaction() {
        commit(log);
    }
    append(&packed, 1, 1);
    commit(log);
}

/// What the fixture with extents holds: behind the checkpoint some in one segment, some over the end of one, between batches
/// that the journal has.
fn life_in_bulk(log: &Log) {
    let bulky = topic(log, "bulky", small(Durability::Fsync));
    append(&bulky, 20, 5);
    commit(log);
    log.step_checkpoint().expect("the disk is well");
    for round in 0..4 {
        append(&bulky, 1 + round, 5);
        commit(log);
        append(&bulky, 20, 5);
        commit(log);
    }
    assert!(log.stats().bulk_bytes > 6_000, "{:?}", log.stats());
}

/// Everything in the log, in words.
fn describe(log: &Log) -> String {
    let mut out = String::new();
    for topic in log.topics() {
        let partition = &topic.partitions()[0];
        let p = partition.positions();
        let (start, end, stable) = (p.log_start, p.log_end, p.last_stable);
        let (visible, cleanup) = (p.high_watermark, topic.settings().cleanup);
        let codec = topic.settings().compression;
        writeln!(out, "{} {cleanup:?} {codec:?}", topic.name()).expect("text");
        writeln!(out, "  from {start} to {end}, visible {visible}, stable {stable}").expect("text");
        for producer in partition.producers() {
            let (id, epoch, last) = (producer.id, producer.epoch, producer.last_sequence);
            writeln!(out, "  producer {id} epoch {epoch} last sequence {last}").expect("text");
        }
        for txn in partition.aborted(start, end).expect("readable") {
            writeln!(out, "  aborted {txn:?}").expect("text");
        }
        let mut from = start;
        while from < visible {
            let read = partition.read(from, 4096, ReadLimit::HighWatermark).expect("readable");
            for bytes in &read.batches {
                records(bytes, start, &mut out);
            }
            assert!(read.next > from, "a reader that stands still");
            from = read.next;
        }
    }
    out
}

fn records(bytes: &Bytes, start: Offset, out: &mut String) {
    let header = batch::verify(bytes).expect("a served batch is whole");
    let (epoch, codec) = (header.partition_leader_epoch, header.codec());
    for record in batch::records(bytes).expect("a served batch is whole") {
        let record = record.expect("a served record is whole");
        if record.offset < start.get() {
            continue;
        }
        let text = |bytes: Option<Bytes>| match bytes {
            Some(bytes) if bytes.is_ascii() => String::from_utf8_lossy(&bytes).replace('\0', "."),
            Some(bytes) => format!("{bytes:02x?}"),
            None => "null".to_owned(),
        };
        let (offset, at) = (record.offset, record.timestamp_ms);
        let (key, value) = (text(record.key), text(record.value));
        writeln!(out, "  {offset} epoch {epoch} {codec} at {at} {key}={value}").expect("text");
    }
}

fn write_fixture(fixture_of: &Fixture, folder: &Path) {
    let disk = FakeDisk::new(21);
    let (log, _) = fixture_of.open(&disk);
    if fixture_of.bulk {
        life_in_bulk(&log)
    } else {
        life(&log)
    }
    let said = describe(&log);
    if fixture_of.clean {
        log.step_close().expect("the disk is well");
    }
    for path in disk.files().iter().filter(|path| !path.ends_with(".lock")) {
        let to = folder.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("writable");
        std::fs::write(to, disk.contents(path).expect("listed")).expect("writable");
    }
    std::fs::write(folder.join("expected.txt"), said).expect("writable");
}

#[test]
fn directories_of_version_0_2_hold_what_they_held() {
    for of in FIXTURES {
        let folder = fixture(of.name);
        if !folder.exists() {
            let asked = std::env::var_os("HEADWATER_WRITE_FIXTURES").is_some();
            assert!(asked, "{} is missing", of.name);
            write_fixture(&of, &folder);
        }
        let disk = FakeDisk::new(22);
        plant_folder(&disk, &folder, Path::new("/"));
        let expected = std::fs::read_to_string(folder.join("expected.txt")).expect("readable");
        let (log, recovery) = of.open(&disk);
        assert_eq!((recovery.unclean, recovery.created), (!of.clean, false), "{}", of.name);
        assert_eq!(recovery.findings, Vec::<String>::new(), "{}", of.name);
        let found = describe(&log);
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "{}", of.name);
        }
        assert_eq!(found.lines().count(), expected.lines().count(), "{}", of.name);
        if !of.bulk {
            goes_on(&log, of.name);
        }
    }
}

/// The states that decide what is taken next are there, too.
fn goes_on(log: &Log, name: &str) {
    let partition = |name: &str| log.topic(name).expect("there").partitions()[0].clone();
    let values: Vec<Vec<u8>> = (0..4).map(|i| vec![b'a' + i; 120]).collect();
    let again: BytesMut = client_batch(5_000, 44, &values);
    assert!(partition("clients").append_batch(again).expect("a repeat").duplicate, "{name}");
    let transactions = partition("transactions");
    let open = transactions.positions();
    assert!(open.last_stable < open.log_end, "{name}: the open transaction is open");
    transaction(&transactions, 39, Some(true));
    append(&partition("packed"), 2, 2);
    append(&partition("memory"), 2, 2);
    append(&partition("compacted"), 2, 2);
    commit(log);
    let closed = transactions.positions();
    assert_eq!(closed.last_stable, closed.log_end, "{name}");
    log.step_close().expect("the disk is well");
}
