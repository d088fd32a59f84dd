//! Compaction over the fake disk, stepped: what stays, what goes, when, and what a reader sees of it.

use crate::batch::{self, BatchBuilder, BatchHeader, Seal};
use crate::clock::fake::FakeClock;
use crate::compaction::CompactionOptions;
use crate::disk::fake::FakeDisk;
use crate::metadata::{Cleanup, Codec, Compression, TopicSettings};
use crate::record::{Headers, RecordParts};
use crate::tests::{options, settings};
use crate::{Log, LogOptions, Offset, Partition, ReadLimit, TopicName};
use bytes::{Bytes, BytesMut};
use std::path::Path;
use std::sync::Arc;

mod beside;

struct Bench {
    disk: FakeDisk,
    clock: FakeClock,
    options: LogOptions,
    log: Log,
    partition: Arc<Partition>,
}

fn compacted() -> TopicSettings {
    TopicSettings {
        cleanup: Cleanup::Compact,
        segment_bytes: 4 << 10,
        delete_retention_ms: 10_000,
        dirty_ratio_permille: 1,
        ..settings()
    }
}

type Seen = (i64, String, Option<String>);

impl Bench {
    fn new(settings: TopicSettings) -> Self {
        let disk = FakeDisk::new(7);
        let clock = FakeClock::new(1_800_000_000_000);
        let mut options = options(Path::new("/data"));
        options.tail_bytes_max = 0;
        let opened = Log::open(options.clone(), Arc::new(disk.clone()), Arc::new(clock.clone()));
        let (log, _) = opened.unwrap();
        let name = TopicName::new("t").unwrap();
        let partition = log.create_topic(&name, 1, settings).unwrap().0.partitions()[0].clone();
        Self { disk, clock, options, log, partition }
    }

    /// Another process on what this one left.
    fn reopened(self) -> Self {
        let disk = self.disk.after_kill();
        self.on(disk)
    }

    /// Another process on this disk.
    fn on(self, disk: FakeDisk) -> Self {
        let Self { clock, options, log, partition, .. } = self;
        drop((log, partition));
        let opened = Log::open(options.clone(), Arc::new(disk.clone()), Arc::new(clock.clone()));
        let (log, recovery) = opened.unwrap();
        assert_eq!(recovery.findings, [""; 0]);
        let partition = log.topic("t").unwrap().partitions()[0].clone();
        Self { disk, clock, options, log, partition }
    }

    fn commit(&self) {
        while self.log.step_commit() {}
    }

    fn put(&self, key: &str, value: Option<&str>) {
        let record = RecordParts {
            timestamp_ms: self.clock_ms(),
            key: Some(key.as_bytes()),
            value: value.map(str::as_bytes),
            headers: Headers::EMPTY,
        };
        self.partition.append(&[record]).unwrap();
        self.commit();
    }

    fn clock_ms(&self) -> i64 {
        use crate::clock::Clock;
        self.clock.wall_ms()
    }

    /// Enough for a segment of its own, and a checkpoint behind it: everything before is sealed.
    fn fill(&self, name: &str) {
        for i in 0..5 {
            self.put(&format!("fill {name} {i}"), Some(&"x".repeat(900)));
        }
        self.log.step_checkpoint().unwrap();
    }

    fn seen(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for bytes in self.batches() {
            let text = |part: Option<Bytes>| part.map(|b| String::from_utf8(b.to_vec()).unwrap());
            for record in batch::records(&bytes).unwrap() {
                let record = record.unwrap();
                seen.push((record.offset, text(record.key).unwrap(), text(record.value)));
            }
        }
        seen
    }

    /// Without those of `fill`.
    fn own(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|(_, key, _)| !key.starts_with("fill")).collect()
    }

    fn batches(&self) -> Vec<Bytes> {
        let (mut from, mut all) = (self.partition.positions().log_start, Vec::new());
        loop {
            let read = self.partition.read(from, 3_000, ReadLimit::HighWatermark).unwrap();
            if read.batches.is_empty() && read.next == from {
                assert_eq!(from, self.partition.positions().high_watermark);
                return all;
            }
            for bytes in &read.batches {
                batch::verify(bytes).unwrap();
            }
            from = read.next;
            all.extend(read.batches);
        }
    }

    fn compact(&self) {
        assert!(self.log.step_compaction(), "a pass is due");
        assert!(!self.log.step_compaction(), "and one is enough");
    }
}

fn some(offset: i64, key: &str, value: &str) -> Seen {
    (offset, key.to_owned(), Some(value.to_owned()))
}

#[test]
fn the_newest_record_of_each_key_stays_where_it_was() {
    let bench = Bench::new(compacted());
    for i in 0..10 {
        bench.put(["a", "b", "c"][i % 3], Some(&format!("value {i}")));
    }
    bench.fill("1");
    bench.put("a", Some("newest, and not yet sealed"));
    let before = bench.partition.size_bytes();
    bench.compact();
    let wanted = [some(7, "b", "value 7"), some(8, "c", "value 8"), some(9, "a", "value 9")];
    assert_eq!(bench.own()[..3], wanted, "what is not sealed does not count yet");
    assert!(bench.partition.size_bytes() < before);
    let again = bench.reopened();
    assert_eq!(again.own()[..3], wanted, "after a crash");
    again.log.step_checkpoint().unwrap();
    let again = again.reopened();
    assert_eq!(again.own()[..3], wanted, "from the catalog");
    again.fill("2");
    again.fill("3");
    again.compact();
    let wanted = [some(7, "b", "value 7"), some(8, "c", "value 8")];
    assert_eq!(again.own()[..2], wanted, "a clean part is cleaned again");
    assert_eq!(again.own().len(), 3);
    // A read that begins in a hole begins at what comes next.
    let read = again.partition.read(Offset::ZERO, 1, ReadLimit::HighWatermark).unwrap();
    assert_eq!(BatchHeader::parse(&read.batches[0]).unwrap().base_offset, 7);
}

#[test]
fn a_tombstone_stays_until_its_horizon_and_goes_by_itself() {
    let bench = Bench::new(compacted());
    bench.put("gone", Some("value"));
    bench.put("kept", Some("value"));
    bench.put("gone", None);
    bench.fill("1");
    bench.fill("2");
    bench.compact();
    let tombstone = (2, "gone".to_owned(), None);
    assert_eq!(bench.own(), [some(1, "kept", "value"), tombstone.clone()]);
    let header = BatchHeader::parse(&bench.batches()[1]).unwrap();
    let now = bench.clock_ms();
    assert_eq!(header.delete_horizon_ms(), Some(now + 10_000));
    let stamped = batch::records(&bench.batches()[1]).unwrap().next().unwrap().unwrap();
    assert_eq!(stamped.timestamp_ms, now, "the record's own time is what it was");
    bench.clock.advance_ms(9_999);
    assert!(!bench.log.step_compaction());
    bench.clock.advance_ms(1);
    bench.compact();
    assert_eq!(bench.own(), [some(1, "kept", "value")]);
    assert_eq!(bench.reopened().own(), [some(1, "kept", "value")]);
}

#[test]
fn no_tombstone_gets_or_has_its_time_by_a_clock_that_is_not_trusted() {
    let bench = Bench::new(compacted());
    bench.clock.set_trusted(false);
    bench.put("gone", None);
    bench.put("other", Some("1"));
    bench.put("other", Some("2"));
    bench.fill("1");
    bench.fill("2");
    bench.compact();
    assert_eq!(bench.own().len(), 2, "but compaction goes on");
    assert_eq!(BatchHeader::parse(&bench.batches()[0]).unwrap().delete_horizon_ms(), None);
    bench.log.step_checkpoint().unwrap();
    let bench = bench.reopened();
    assert!(!bench.log.step_compaction());
    bench.clock.set_trusted(true);
    bench.compact();
    assert!(BatchHeader::parse(&bench.batches()[0]).unwrap().delete_horizon_ms().is_some());
    bench.clock.advance_ms(10_000);
    bench.compact();
    assert_eq!(bench.own(), [some(2, "other", "2")]);
}

/// A client's batch with these records.
fn client(compression: Compression, records: &[(Option<&str>, Option<&str>)]) -> BytesMut {
    let mut builder = BatchBuilder::new();
    for (i, (key, value)) in records.iter().enumerate() {
        let record = RecordParts {
            timestamp_ms: 1_700_000_000_000 + i as i64,
            key: key.map(str::as_bytes),
            value: value.map(str::as_bytes),
            headers: Headers::EMPTY,
        };
        builder.push(&record, usize::MAX).unwrap();
    }
    let mut bytes = BytesMut::from(&builder.seal(Seal::default()).unwrap()[..]);
    batch::readdress(&mut bytes, -1, -1, -1);
    batch::compressed(&bytes, compression).map_or(bytes, |bytes| BytesMut::from(&bytes[..]))
}

#[test]
fn what_is_left_of_a_batch_keeps_its_codec_its_times_and_its_offsets() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bench = Bench::new(compacted());
        let long = "long ".repeat(100);
        let records = [
            (Some("a"), Some("first")),
            (Some("b"), Some(long.as_str())),
            (Some("a"), Some("second")),
            (Some("c"), None),
            (Some("d"), Some(long.as_str())),
            (Some("d"), Some("last")),
        ];
        bench.partition.append_batch(client(Compression { codec, level: None }, &records)).unwrap();
        bench.commit();
        let before = BatchHeader::parse(&bench.batches()[0]).unwrap();
        assert_eq!(before.codec(), codec);
        bench.fill("1");
        bench.fill("2");
        bench.compact();
        let left = bench.batches()[0].clone();
        let header = BatchHeader::parse(&left).unwrap();
        assert_eq!(header.codec(), codec);
        assert_eq!(header.record_count, 4);
        assert_eq!((header.base_offset, header.last_offset()), (0, 5));
        assert_eq!(header.max_timestamp, before.max_timestamp);
        assert_eq!(header.partition_leader_epoch, before.partition_leader_epoch);
        let times: Vec<_> = batch::records(&left)
            .unwrap()
            .map(|r| r.map(|r| (r.offset, r.timestamp_ms - 1_700_000_000_000)).unwrap())
            .collect();
        assert_eq!(times, [(1, 1), (2, 2), (3, 3), (5, 5)], "{codec:?}");
    }
}

#[test]
fn what_a_hold_or_the_lag_protects_is_left_alone() {
    let bench = Bench::new(TopicSettings { compaction_lag_ms_min: 60_000, ..compacted() });
    let hold = bench.partition.hold("uplink");
    bench.put("a", Some("1"));
    bench.put("a", Some("2"));
    bench.fill("1");
    bench.fill("2");
    assert!(!bench.log.step_compaction(), "too young");
    bench.clock.advance_ms(60_000);
    assert!(!bench.log.step_compaction(), "the hold stands at 0");
    hold.checkpoint(Offset::new(1).unwrap());
    assert!(!bench.log.step_compaction(), "and in the middle of the first segment");
    hold.checkpoint(bench.partition.positions().high_watermark);
    bench.compact();
    assert_eq!(bench.own(), [some(1, "a", "2")]);
}

#[test]
fn a_map_that_is_too_small_takes_several_passes() {
    let mut bench = Bench::new(compacted());
    bench.options.compaction = CompactionOptions { memory_bytes: 0, bytes_per_second: None };
    bench.log.step_close().unwrap();
    let bench = bench.reopened();
    for round in 0..3 {
        for i in 0..70 {
            bench.put(&format!("key {i}"), Some(&format!("value {round}")));
        }
    }
    bench.fill("1");
    bench.fill("2");
    let mut passes = 0;
    while bench.log.step_compaction() {
        passes += 1;
        assert!(passes < 50);
    }
    assert!(passes > 2, "{passes}");
    let wanted: Vec<_> = (0..70).map(|i| some(140 + i, &format!("key {i}"), "value 2")).collect();
    assert_eq!(bench.own(), wanted);
}

#[test]
fn a_clean_segment_is_not_written_again() {
    let bench = Bench::new(compacted());
    bench.fill("1");
    bench.fill("2");
    bench.compact();
    assert_eq!(bench.log.stats().compaction.written_bytes, 0);
    assert!(bench.log.stats().compaction.read_bytes > 4_000);
    assert_eq!(bench.seen().len(), 10);
}

#[test]
fn a_segment_of_which_nothing_is_left_says_which_offsets_were_there() {
    let bench = Bench::new(compacted());
    bench.fill("1");
    bench.fill("1");
    bench.fill("1");
    bench.compact();
    let offsets: Vec<i64> = bench.seen().iter().map(|(offset, ..)| *offset).collect();
    assert_eq!(offsets, (7..15).collect::<Vec<_>>());
    for from in 0..15 {
        let from = Offset::new(from).unwrap();
        let read = bench.partition.read(from, 1, ReadLimit::HighWatermark).unwrap();
        assert!(read.next > from, "{from}: {read:?}");
    }
    let written = bench.log.stats().compaction.written_bytes;
    bench.fill("2");
    bench.fill("3");
    bench.compact();
    assert!(bench.log.stats().compaction.written_bytes < written + 8_000);
}

#[test]
fn damage_is_never_compacted_away() {
    let bench = Bench::new(compacted());
    bench.put("a", Some("1"));
    bench.put("a", Some("2"));
    bench.fill("1");
    bench.fill("2");
    let log = bench
        .disk
        .files()
        .into_iter()
        .find(|path| path.ends_with("00000000000000000000.log"))
        .unwrap();
    let mut bytes = bench.disk.contents(&log).unwrap();
    bytes[80] ^= 1;
    bench.disk.plant(&log, &bytes);
    assert!(bench.log.step_compaction());
    assert!(!bench.log.step_compaction(), "left alone");
    let stats = bench.log.stats();
    assert_eq!((stats.compaction.failures, stats.compaction.uncleanable), (1, 1));
    assert_eq!(stats.damage.len(), 1, "{:?}", stats.damage);
    assert_eq!(bench.partition.swaps(), 0);
    let left = bench.disk.files().into_iter().filter(|path| path.contains("cleaned")).count();
    assert_eq!(left, 0);
}

#[test]
fn a_disk_that_is_full_or_fails_ends_the_pass_and_nothing_else() {
    let bench = Bench::new(compacted());
    bench.put("a", Some("1"));
    bench.put("a", Some("2"));
    bench.fill("1");
    bench.fill("2");
    bench.disk.set_capacity(Some(bench.disk.used_bytes()));
    assert!(bench.log.step_compaction());
    assert_eq!(bench.log.stats().compaction.failures, 1);
    assert!(bench.log.stats().offline.is_none());
    bench.disk.set_capacity(None);
    assert!(!bench.log.step_compaction(), "not at once");
    bench.clock.advance_ms(60_000);
    bench.disk.fail_read(bench.disk.reads() + 3);
    assert!(bench.log.step_compaction());
    assert_eq!(bench.log.stats().compaction.failures, 2);
    bench.clock.advance_ms(60_000);
    bench.compact();
    assert_eq!(bench.own(), [some(1, "a", "2")]);
}

#[test]
fn a_reader_keeps_what_it_opened_and_a_lookup_finds_what_is_there() {
    let bench = Bench::new(compacted());
    for i in 0..10 {
        bench.put("a", Some(&format!("{i}")));
        bench.clock.advance_ms(10);
    }
    bench.fill("1");
    bench.fill("2");
    let early = bench.clock_ms() - 1_000;
    bench.compact();
    let found = bench.partition.offset_for_timestamp(early).unwrap().unwrap();
    assert_eq!(found.offset.get(), 9, "the first record that is left");
    let newest = bench.partition.offset_of_max_timestamp().unwrap().unwrap();
    assert!(newest.offset.get() >= 10);
}
