//! Full disks, failing disks, damaged files.

use super::{append, numbered, options, settings, topic, values};
use crate::batch;
use crate::clock::Clock;
use crate::clock::fake::FakeClock;
use crate::disk::fake::{FakeDisk, Fault, Outcome};
use crate::disk::{Disk, OpenMode};
use crate::metadata::{Durability, TopicSettings};
use crate::record::{Headers, RecordParts};
use crate::{
    AckPoint, AppendError, LeaderEpoch, Log, LogOptions, Loss, Offset, OpenError, Partition,
    ReadError, ReadLimit, Recovery, Settled,
};
use std::path::Path;
use std::sync::Arc;

pub(super) struct Rig {
    pub(super) disk: FakeDisk,
    pub(super) clock: Arc<FakeClock>,
    pub(super) options: LogOptions,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self {
            disk: FakeDisk::new(7),
            clock: Arc::new(FakeClock::new(1_800_000_000_000)),
            options: options(Path::new("/data")),
        }
    }

    pub(super) fn try_open(&self) -> Result<(Log, Recovery), OpenError> {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        Log::open(self.options.clone(), disk, clock)
    }

    pub(super) fn open(&self) -> (Log, Recovery) {
        self.try_open().unwrap()
    }

    /// The machine loses power; what was not synced may be gone.
    pub(super) fn crash(&mut self) {
        self.disk = self.disk.after_crash(Outcome::DropAll, 1);
    }
}

pub(super) fn first(log: &Log) -> Arc<Partition> {
    log.topic("t").unwrap().partitions()[0].clone()
}

fn big(partition: &Partition) -> Result<crate::Appended, AppendError> {
    partition.append(&[RecordParts {
        timestamp_ms: 0,
        key: None,
        value: Some(&[7; 50_000]),
        headers: Headers::EMPTY,
    }])
}

#[test]
fn an_error_in_a_segment_that_begins_below_the_log_start_is_the_disks() {
    let mut rig = Rig::new();
    rig.options.tail_bytes_max = 0;
    let (log, _) = rig.open();
    let p = &topic(&log, "t", 1, settings())[0];
    for value in ["one", "two", "three"] {
        append(p, value);
        log.step_commit();
    }
    p.delete_before(Offset::new(1).unwrap());
    log.step_commit();
    log.step_checkpoint().unwrap();
    rig.disk.fail_read(rig.disk.reads() + 1);
    let read = p.read(Offset::new(1).unwrap(), 1, ReadLimit::HighWatermark);
    // Out of range would have a consumer begin elsewhere.
    assert!(matches!(read, Err(ReadError::Io { .. })), "{read:?}");
    assert_eq!(values(p), ["two", "three"]);
}

#[test]
fn a_full_disk_refuses_loses_nothing_acknowledged_and_goes_on_when_there_is_room() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    for value in numbered(0..10) {
        append(&p, &value);
    }
    log.step_commit();
    rig.disk.set_capacity(Some(rig.disk.used_bytes() + 8192));
    let mut lost = None;
    for _ in 0..20 {
        let Ok(at) = big(&p) else { break };
        log.step_commit();
        match p.settled(AckPoint::HighWatermark, at.last) {
            Settled::Passed => {}
            other => lost = Some((at, other)),
        }
    }
    let (at, state) = lost.expect("the disk is full by now");
    assert_eq!(state, Settled::Lost(Loss::DiskFull));
    assert_eq!(p.positions().log_end, at.base.offset, "cut back to what is committed");
    assert!(p.positions().epoch > at.base.epoch);
    assert_eq!(big(&p), Err(AppendError::DiskFull));
    assert!(log.stats().disk_full && log.stats().offline.is_none());
    assert_eq!(log.stats().uncommitted_bytes, 0);
    log.step_upkeep();
    assert_eq!(big(&p), Err(AppendError::DiskFull), "still full");
    rig.disk.set_capacity(None);
    log.step_upkeep();
    assert_eq!(big(&p), Err(AppendError::DiskFull), "probed once a second at most");
    rig.clock.advance_ms(1001);
    // The epoch that began with the cut, before anything is appended in it.
    log.step_commit();
    log.step_upkeep();
    let again = big(&p).unwrap();
    assert!(!log.stats().disk_full);
    log.step_commit();
    assert_eq!(p.settled(AckPoint::Synced, again.last), Settled::Passed);
    // The lost record's offset is taken by another record now: its waiter must not be told that it passed.
    assert_eq!(p.settled(AckPoint::Synced, at.last), Settled::Lost(Loss::DiskFull));
    assert_eq!(again.last.offset, at.last.offset);
    let count = values(&p).len();
    drop(log);
    let mut rig = rig;
    rig.crash();
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    assert_eq!(values(&first(&log)).len(), count);
    assert!(first(&log).positions().epoch > again.last.epoch);
}

#[test]
fn a_cycle_that_needs_a_file_the_disk_has_no_room_for_waits_for_room() {
    let mut rig = Rig::new();
    rig.options.journal_file_bytes = 64 << 10;
    let (log, _) = rig.open();
    topic(&log, "t", 1, settings());
    log.step_close().unwrap();
    drop(log);
    // From now on files are larger than the only one there is.
    rig.options.journal_file_bytes = 1 << 20;
    let (log, _) = rig.open();
    let p = first(&log);
    let kept = append(&p, "kept");
    log.step_commit();
    assert_eq!(p.settled(AckPoint::Synced, kept.last), Settled::Passed);
    rig.disk.set_capacity(Some(rig.disk.used_bytes() + (512 << 10)));
    let lost = [big(&p).unwrap(), big(&p).unwrap()];
    assert!(!log.step_commit(), "who loops over steps must not try again at once");
    assert_eq!(log.stats().offline, None);
    for at in &lost {
        assert_eq!(p.settled(AckPoint::Synced, at.last), Settled::Lost(Loss::DiskFull));
    }
    assert_eq!(big(&p), Err(AppendError::DiskFull));
    rig.disk.set_capacity(None);
    rig.clock.advance_ms(1001);
    log.step_commit();
    log.step_upkeep();
    let again = [big(&p).unwrap(), big(&p).unwrap()];
    while log.step_commit() {}
    assert_eq!(p.settled(AckPoint::Synced, again[1].last), Settled::Passed);
    drop(log);
    rig.crash();
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    assert_eq!(first(&log).positions().high_watermark.get(), 3);
}

#[test]
fn one_full_partition_does_not_stop_the_ring_nor_the_others() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let partitions = topic(&log, "t", 2, settings());
    // The second partition has room reserved; the first has no file yet.
    append(&partitions[1], "there");
    log.step_commit();
    rig.disk.set_capacity(Some(rig.disk.used_bytes()));
    let lost = append(&partitions[0], "no room");
    let kept = append(&partitions[1], "room was reserved");
    log.step_commit();
    assert_eq!(partitions[0].settled(AckPoint::Synced, lost.last), Settled::Lost(Loss::DiskFull));
    assert_eq!(partitions[1].settled(AckPoint::Synced, kept.last), Settled::Passed);
    assert_eq!(values(&partitions[1]), ["there", "room was reserved"]);
}

#[test]
fn a_failed_sync_takes_the_log_offline_and_is_not_retried() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    let kept = append(&p, "kept");
    log.step_commit();
    let at = append(&p, "lost");
    // The cycle is one write and one sync; the partition has its file already.
    rig.disk.fail_change(rig.disk.changes() + 2, Fault::Eio);
    assert!(!log.step_commit());
    assert!(rig.disk.has_failed());
    assert_eq!(p.settled(AckPoint::Synced, at.last), Settled::Lost(Loss::Offline));
    assert_eq!(p.settled(AckPoint::Synced, kept.last), Settled::Passed);
    let changes = rig.disk.changes();
    assert!(matches!(big(&p), Err(AppendError::Offline(_))));
    assert!(!log.step_commit());
    assert!(log.step_checkpoint().is_err());
    log.step_upkeep();
    assert_eq!(rig.disk.changes(), changes, "nothing touches the disk any more");
    assert_eq!(values(&p), ["kept"], "what is committed is still served");
    assert!(log.stats().offline.is_some());
}

#[test]
fn damage_in_the_middle_of_a_segment_is_named_and_the_rest_is_served() {
    let mut rig = Rig::new();
    rig.options.tail_bytes_max = 0;
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, TopicSettings { segment_bytes: 1 << 20, ..settings() })[0].clone();
    let expected = numbered(0..300);
    for value in &expected {
        append(&p, value);
        log.step_commit();
    }
    log.step_close().unwrap();
    drop(log);
    let is_first = |f: &String| f.contains("/t-0.") && f.ends_with("/00000000000000000000.log");
    let name = &*rig.disk.files().into_iter().find(is_first).unwrap();
    let sound = rig.disk.contents(name).unwrap();
    // The batch of offset 150: once in its records, once in its length.
    let starts: Vec<usize> = std::iter::successors(Some(0), |at| {
        let header = batch::BatchHeader::parse(&sound[*at..]).unwrap();
        Some(at + header.size_bytes()).filter(|at| *at < sound.len())
    })
    .collect();
    for (byte, in_batch) in [(70, 150), (9, 150), (16, 150), (70, 0), (9, 0), (70, 299), (8, 299)] {
        let mut bytes = sound.clone();
        bytes[starts[in_batch] + byte] ^= 0x11;
        rig.disk.plant(name, &bytes);
        let (log, recovery) = rig.open();
        assert_eq!(recovery.cycles_replayed, 0);
        let p = first(&log);
        let mut from = Offset::ZERO;
        let mut served = 0;
        let mut damage = None;
        while from < p.positions().high_watermark {
            match p.read(from, 3000, ReadLimit::HighWatermark) {
                Ok(outcome) => {
                    for batch in &outcome.batches {
                        served += batch::verify(batch).unwrap().record_count;
                    }
                    assert!(outcome.next > from);
                    from = outcome.next;
                }
                Err(ReadError::Damaged { file, byte, first, next_good, .. }) => {
                    assert!(damage.is_none(), "one damaged place");
                    assert_eq!(file, name);
                    assert_eq!(byte, starts[in_batch] as u64);
                    assert_eq!(first.get(), in_batch as i64);
                    damage = Some(next_good);
                    match next_good {
                        Some(next) => from = next,
                        None => break,
                    }
                }
                Err(e) => panic!("{e}"),
            }
        }
        let next_good = damage.expect("the damage is found");
        if in_batch == 299 {
            assert_eq!(served, 299);
        } else {
            assert_eq!(next_good.unwrap().get(), in_batch as i64 + 1);
            assert_eq!(served, 299);
        }
        assert_eq!(rig.disk.contents(name).unwrap(), bytes, "nothing is overwritten");
        drop(log.start());
    }
}

#[test]
fn a_message_that_is_itself_a_batch_is_not_where_reading_goes_on() {
    let mut rig = Rig::new();
    rig.options.tail_bytes_max = 0;
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    append(&p, "one");
    log.step_commit();
    let one = p.read(Offset::ZERO, 1, ReadLimit::HighWatermark).unwrap().batches[0].clone();
    // The batch of offset 1 holds batches of offsets before it and far behind, all of them intact.
    let mut value = one.to_vec();
    for offset in [1 << 40, i64::MAX - 1] {
        let mut other = one.to_vec();
        batch::place(&mut other, Offset::new(offset).unwrap(), LeaderEpoch::default());
        value.extend_from_slice(&other);
    }
    let record =
        RecordParts { timestamp_ms: 0, key: None, value: Some(&value), headers: Headers::EMPTY };
    p.append(&[record]).unwrap();
    log.step_commit();
    append(&p, "three");
    log.step_close().unwrap();
    drop(log);
    let is_log = |f: &String| f.contains("/t-0.") && f.ends_with(".log");
    let name = &*rig.disk.files().into_iter().find(is_log).unwrap();
    let sound = rig.disk.contents(name).unwrap();
    // In its length, in its CRC.
    for byte in [9, 18] {
        let mut bytes = sound.clone();
        bytes[one.len() + byte] ^= 1;
        rig.disk.plant(name, &bytes);
        let (log, _) = rig.open();
        let p = first(&log);
        let read = p.read(Offset::new(1).unwrap(), 1000, ReadLimit::HighWatermark);
        let Err(ReadError::Damaged { first, next_good, .. }) = read else { panic!("{read:?}") };
        assert_eq!((first.get(), next_good.map(Offset::get)), (1, Some(2)), "byte {byte}");
        let read = p.read(next_good.unwrap(), 1000, ReadLimit::HighWatermark).unwrap();
        assert_eq!(read.next.get(), 3);
        drop(log.start());
    }
}

#[test]
fn a_rotten_cycle_that_was_synced_is_made_up_from_the_segment_or_named() {
    for flush in [true, false] {
        let mut rig = Rig::new();
        // Everything goes to the segments at once, or nothing does.
        rig.options.tail_bytes_max = if flush { 0 } else { 1 << 20 };
        let (log, _) = rig.open();
        let partitions = topic(&log, "t", 2, settings());
        log.step_commit();
        // Behind the file's head and what stands there already.
        let begin = 4096 + log.stats().journal_used_bytes;
        log.step_checkpoint().unwrap();
        let expected = numbered(0..30);
        let mut starts = Vec::new();
        for (i, value) in expected.iter().enumerate() {
            append(&partitions[i % 2], value);
            starts.push(begin + log.stats().journal_used_bytes);
            log.step_commit();
        }
        rig.disk = rig.disk.after_kill();
        let name = "/data/journal/0000.journal";
        let mut bytes = rig.disk.contents(name).unwrap();
        // The cycle of value 10, the sixth record of partition 0.
        bytes[starts[10] as usize + 100] ^= 1;
        rig.disk.plant(name, &bytes);
        let (log, recovery) = rig.open();
        let all = log.topic("t").unwrap();
        let odd: Vec<_> = expected.iter().skip(1).step_by(2).cloned().collect();
        assert_eq!(values(&all.partitions()[1]), odd, "the other partition lost nothing");
        let even: Vec<_> = expected.iter().step_by(2).cloned().collect();
        let p = &all.partitions()[0];
        assert_eq!(recovery.findings.len(), 2, "{recovery:?}");
        if flush {
            assert!(recovery.findings[1].contains("offsets 5 to 5"), "{recovery:?}");
            assert_eq!(values(p), even);
            append(p, "goes on");
        } else {
            assert!(recovery.findings[1].contains("offsets 5 to 5 are lost"), "{recovery:?}");
            let head = p.read(Offset::ZERO, 100_000, ReadLimit::HighWatermark).unwrap();
            assert_eq!(head.next.get(), 5);
            match p.read(head.next, 1, ReadLimit::HighWatermark) {
                Err(ReadError::Damaged { first, next_good, .. }) => {
                    assert_eq!((first.get(), next_good.unwrap().get()), (5, 6));
                }
                other => panic!("{other:?}"),
            }
            let rest = p.read(Offset::new(6).unwrap(), 1 << 20, ReadLimit::HighWatermark).unwrap();
            assert_eq!(rest.next.get(), 15, "what came after the lost record is served");
            let record =
                RecordParts { timestamp_ms: 0, key: None, value: None, headers: Headers::EMPTY };
            assert!(matches!(p.append(&[record]), Err(AppendError::Offline(_))));
        }
    }
}

/// Where the cycles of a journal file begin that stand in it.
fn cycles(rig: &Rig, name: &str) -> Vec<usize> {
    let bytes = rig.disk.contents(name).unwrap_or_default();
    (4096..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"HWCY")).collect()
}

#[test]
fn a_rotten_cycle_that_is_the_first_of_its_file_is_not_taken_for_the_end() {
    let mut rig = Rig::new();
    rig.options.journal_file_bytes = 64 << 10;
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    log.step_commit();
    log.step_checkpoint().unwrap();
    let second = "/data/journal/0001.journal";
    let mut count = 0;
    while cycles(&rig, second).len() < 3 {
        append(&p, "value");
        log.step_commit();
        count += 1;
    }
    rig.disk = rig.disk.after_kill();
    let mut bytes = rig.disk.contents(second).unwrap();
    bytes[4096 + 100] ^= 1;
    rig.disk.plant(second, &bytes);
    let (log, recovery) = rig.open();
    assert_eq!(recovery.findings.len(), 2, "{recovery:?}");
    assert!(recovery.findings[0].contains("cannot be read"), "{recovery:?}");
    let lost = format!("offsets {} to {0} are lost", count - 3);
    assert!(recovery.findings[1].contains(&lost), "{recovery:?}");
    assert_eq!(first(&log).positions().high_watermark.get(), count, "those behind it are there");
}

#[test]
fn no_file_is_changed_on_the_word_of_a_cycle_that_was_not_synced() {
    for seed in 0..20 {
        let mut rig = Rig::new();
        rig.disk = FakeDisk::new(seed);
        let (log, _) = rig.open();
        append(&topic(&log, "t", 1, settings())[0], "kept");
        log.step_commit();
        log.step_checkpoint().unwrap();
        log.delete_topic(&crate::TopicName::new("t").unwrap()).unwrap();
        // The cycle is one write and one sync. The kernel may go on to show what it could not write.
        rig.disk.fail_change(rig.disk.changes() + 2, Fault::Eio);
        assert!(!log.step_commit() && rig.disk.has_failed());
        for operations in 0..12 {
            let mut again = Rig { disk: rig.disk.after_kill(), ..Rig::new() };
            again.disk.stop_after(again.disk.changes() + operations);
            let _ = again.try_open();
            again.disk = again.disk.after_crash(Outcome::KeepAll, seed);
            let (log, recovery) = again.open();
            assert!(recovery.findings.is_empty(), "{recovery:?}");
            if let Some(topic) = log.topic("t") {
                let there = values(&topic.partitions()[0]);
                assert_eq!(there, ["kept"], "seed {seed}, {operations} operations of a start");
            }
        }
    }
}

#[test]
fn a_batch_is_not_acknowledged_ahead_of_the_making_of_its_topic() {
    let mut rig = Rig::new();
    // The metadata of one cycle is bounded by the file: not all of it fits.
    rig.options.journal_file_bytes = 64 << 10;
    let (log, _) = rig.open();
    let name = |n: usize| format!("{n}-{}", "x".repeat(200));
    for n in 0..90 {
        topic(&log, &name(n), 5, settings());
    }
    let last = log.topic(&name(89)).unwrap().partitions()[0].clone();
    let at = append(&last, "value").last;
    let mut steps = 0;
    while last.settled(AckPoint::Synced, at) == Settled::Waiting {
        assert!(log.step_commit());
        steps += 1;
    }
    drop((log, last));
    rig.crash();
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    let topic = log.topic(&name(89)).expect("it has an acknowledged record");
    assert_eq!(values(&topic.partitions()[0]), ["value"]);
    assert!(steps > 1, "more than a cycle has room for");
}

#[test]
fn a_checkpoint_without_room_keeps_the_journal_and_everything_in_it() {
    let mut rig = Rig::new();
    rig.options.journal_file_bytes = 64 << 10;
    rig.options.journal_files = 2;
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, TopicSettings { segment_bytes: 1 << 20, ..settings() })[0].clone();
    let mut acknowledged = 0;
    rig.disk.set_capacity(Some(rig.disk.used_bytes() + (256 << 10)));
    for i in 0..2000 {
        if i % 50 == 0 {
            // Metadata that grows: so does the catalog.
            let name = format!("more-{i}-{}", "x".repeat(200));
            let name = crate::TopicName::new(&name).unwrap();
            let _ = log.create_topic(&name, 20, settings());
        }
        let record = RecordParts {
            timestamp_ms: 0,
            key: None,
            value: Some(&[7; 900]),
            headers: Headers::EMPTY,
        };
        if let Ok(at) = p.append(&[record]) {
            log.step_commit();
            if p.settled(AckPoint::Synced, at.last) == Settled::Passed {
                acknowledged += 1;
            }
        }
        rig.clock.advance_ms(300);
        log.step_upkeep();
    }
    assert_eq!(log.stats().offline, None);
    assert!(log.stats().disk_full);
    assert!(acknowledged > 50, "{acknowledged}");
    assert_eq!(p.positions().high_watermark.get(), acknowledged);
    drop(log);
    rig.crash();
    rig.disk.set_capacity(None);
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    assert_eq!(first(&log).positions().high_watermark.get(), acknowledged);
}

#[test]
fn a_memory_topic_loses_at_most_what_was_not_synced() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let memory = TopicSettings { durability: Durability::Memory, ..settings() };
    let p = topic(&log, "t", 1, memory)[0].clone();
    let expected = numbered(0..600);
    for (i, value) in expected.iter().enumerate() {
        let at = append(&p, value);
        log.step_commit();
        assert_eq!(p.settled(AckPoint::HighWatermark, at.last), Settled::Passed);
        if i == 10 {
            assert_eq!(p.positions().synced.get(), 0);
            rig.clock.advance_ms(1001);
            log.step_upkeep();
            assert_eq!(p.positions().synced.get(), 0, "a catalog must know the partition first");
            log.step_checkpoint().unwrap();
            assert_eq!(p.positions().synced.get(), 11);
        }
        if i == 500 {
            rig.clock.advance_ms(1001);
            log.step_upkeep();
            assert_eq!(p.positions().synced.get(), 501);
        }
    }
    drop(log);
    let killed =
        Rig { disk: rig.disk.after_kill(), clock: rig.clock.clone(), options: rig.options.clone() };
    let (log, recovery) = killed.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    assert_eq!(values(&first(&log)), expected, "the end of the process alone loses nothing");
    rig.crash();
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    let p = first(&log);
    let found = values(&p);
    assert!(found.len() >= 501, "{}", found.len());
    assert_eq!(found, expected[..found.len()]);
    append(&p, "goes on");
    log.step_commit();
    assert_eq!(values(&p).len(), found.len() + 1);
}

#[test]
fn a_memory_topic_that_lost_what_was_deleted_goes_on_in_a_segment_of_its_own() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let memory = TopicSettings { durability: Durability::Memory, ..settings() };
    let p = topic(&log, "t", 1, memory)[0].clone();
    append(&p, "synced");
    log.step_commit();
    log.step_checkpoint().unwrap();
    append(&p, "lost");
    append(&p, "lost");
    log.step_commit();
    // The deletion is in the journal, the records are in the kernel only.
    p.delete_before(p.positions().high_watermark);
    log.step_commit();
    drop(log);
    rig.crash();
    // A start that appends nothing, and another one: the first knew of the hole, the second has to, too.
    drop(rig.open());
    rig.crash();
    let (log, _) = rig.open();
    let p = first(&log);
    assert_eq!(p.positions().log_start.get(), 3);
    append(&p, "after");
    log.step_commit();
    log.step_checkpoint().unwrap();
    assert!(p.evict(p.positions().high_watermark) > 0, "read from the file, not from memory");
    assert_eq!(values(&p), ["after"]);
}

#[test]
fn a_full_disk_keeps_room_for_the_logs_own_state_and_gives_it_back() {
    let mut rig = Rig::new();
    rig.options.reserved_bytes = 1 << 20;
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    let own = topic(&log, "__headwater_uplinks", 1, settings())[0].clone();
    append(&p, "one");
    append(&own, "one");
    while log.step_commit() {}
    log.step_upkeep();
    // A disk of which 1 % is enough for it, filled up by somebody else.
    let (capacity, left) = (128 << 20, 4096);
    let filler = rig.disk.open(Path::new("/filler"), OpenMode::Create).unwrap();
    filler.reserve(0, capacity - rig.disk.used_bytes() - left).unwrap();
    rig.disk.set_capacity(Some(capacity));
    while big(&p).is_ok() {
        log.step_commit();
    }
    assert_eq!(big(&p), Err(AppendError::DiskFull));
    // Far more than was reserved for its segment.
    for _ in 0..8 {
        let at = big(&own).unwrap();
        while log.step_commit() {}
        assert_eq!(own.settled(AckPoint::Synced, at.last), Settled::Passed);
        log.step_checkpoint().unwrap();
        rig.clock.advance_ms(1001);
        log.step_upkeep();
        assert_eq!(big(&p), Err(AppendError::DiskFull), "what was kept back is not for others");
    }
    p.delete_before(p.positions().log_end);
    let cycles = log.stats().cycles;
    assert!(log.step_commit() && log.stats().cycles > cycles, "a log start is noted");
    drop(log);
    rig.crash();
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    let own = log.topic("__headwater_uplinks").unwrap().partitions()[0].clone();
    assert_eq!(own.positions().log_end.get(), 9);
    let p = first(&log);
    rig.disk.set_capacity(None);
    log.step_upkeep();
    let at = big(&p).unwrap();
    log.step_commit();
    assert_eq!(p.settled(AckPoint::Synced, at.last), Settled::Passed, "it resumes by itself");
    assert!(rig.disk.files().iter().filter(|f| f.contains("/ballast/")).count() == 16);
}

/// One slot of the catalog rots, the newer or the older one, in a log that was started so often and has had so many checkpoints.
#[test]
fn a_rotten_slot_of_the_catalog_costs_nothing() {
    // 90 times 50 KB are more than the ring has room for.
    let counts = [0, 1, 90].into_iter().flat_map(|n| (0..6).map(move |i| (n, i / 2, i % 2)));
    for (checkpoints, starts, slot) in counts {
        let mut rig = Rig::new();
        let (mut running, _) = rig.open();
        let mut p = topic(&running, "t", 1, settings())[0].clone();
        assert!(running.step_commit());
        for _ in 0..starts {
            rig.disk = rig.disk.after_kill();
            running = rig.open().0;
            p = first(&running);
        }
        for _ in 0..checkpoints {
            big(&p).unwrap();
            assert!(running.step_commit());
            running.step_checkpoint().unwrap();
        }
        big(&p).unwrap();
        assert!(running.step_commit());
        let end = p.positions().synced;
        drop((p, running));
        rig.disk = rig.disk.after_kill();
        let slot = ["/data/catalog.a", "/data/catalog.b"][slot];
        let mut bytes = rig.disk.contents(slot).unwrap();
        bytes[60] ^= 1;
        rig.disk.plant(slot, &bytes);
        let (log, recovery) = rig.open();
        assert_eq!(first(&log).positions().synced, end, "{slot}, {starts} starts: {recovery:?}");
    }
}
