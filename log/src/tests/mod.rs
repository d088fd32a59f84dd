//! The engine as a whole, stepped on one thread, over the machine's own disk and over the fake one.

mod bulk;
mod compression;
mod directories;
mod faults;
mod life;
mod lookup;
mod replica;
mod space;
mod transactions;

use crate::clock::{Clock, SystemClock};
use crate::disk::SystemDisk;
use crate::metadata::{Durability, TopicSettings};
use crate::record::{Headers, RecordParts};
use crate::{
    AckPoint, AppendError, Log, LogOptions, Offset, OpenError, Partition, ReadLimit, Recovery,
    Settled, TopicName,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn options(dir: &Path) -> LogOptions {
    LogOptions {
        dirs: vec![dir.to_owned()],
        journal_file_bytes: 1 << 20,
        journal_files: 3,
        commit_delay: Duration::ZERO,
        commit_delay_max: Duration::from_millis(100),
        journal_bytes_per_day: None,
        bulk_bytes: 0,
        uncommitted_bytes_max: 1 << 20,
        tail_bytes_max: 1 << 20,
        memory_sync: Duration::from_secs(1),
        reserved_bytes: 0,
        open_files_max: 256,
        labeller: None,
        producer_id_expiration: Duration::from_secs(86_400),
        topics_max: 100,
        partitions_max: 1000,
        max_bytes: None,
        compaction: Default::default(),
        min_free: None,
    }
}

pub(crate) fn settings() -> TopicSettings {
    TopicSettings {
        durability: Durability::Fsync,
        retention_ms: None,
        retention_bytes: None,
        segment_bytes: 64 << 10,
        segment_ms: u64::MAX,
        batch_bytes_max: 100_000,
        ..TopicSettings::default()
    }
}

fn open(options: LogOptions) -> (Log, Recovery) {
    Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock)).unwrap()
}

fn topic(log: &Log, name: &str, partitions: u32, settings: TopicSettings) -> Vec<Arc<Partition>> {
    let name = TopicName::new(name).unwrap();
    log.create_topic(&name, partitions, settings).unwrap().0.partitions().to_vec()
}

fn append(partition: &Partition, value: &str) -> crate::Appended {
    let record = RecordParts {
        timestamp_ms: SystemClock.wall_ms(),
        key: Some(b"k"),
        value: Some(value.as_bytes()),
        headers: Headers::EMPTY,
    };
    partition.append(&[record]).unwrap()
}

/// All values from the log start, read in small pieces.
fn values(partition: &Partition) -> Vec<String> {
    let mut values = Vec::new();
    let mut from = partition.positions().log_start;
    loop {
        let outcome = partition.read(from, 1000, ReadLimit::HighWatermark).unwrap();
        if outcome.batches.is_empty() {
            return values;
        }
        for batch in &outcome.batches {
            crate::batch::verify(batch).unwrap();
            for record in crate::batch::records(batch).unwrap() {
                let record = record.unwrap();
                if record.offset >= from.get() {
                    assert_eq!(record.offset, from.get());
                    from = from.plus(1);
                    values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
        }
        assert_eq!(outcome.next, from);
    }
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("value {i} {}", "x".repeat(i % 300))).collect()
}

#[test]
fn an_append_is_acknowledged_read_and_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recovery) = open(options(dir.path()));
    assert!(recovery.created && !recovery.unclean);
    let p = &topic(&log, "t", 2, settings())[1];
    let at = append(p, "one");
    assert_eq!(p.settled(AckPoint::Appended, at.last), Settled::Passed);
    assert_eq!(p.settled(AckPoint::HighWatermark, at.last), Settled::Waiting);
    assert!(p.read(Offset::ZERO, 1000, ReadLimit::HighWatermark).unwrap().batches.is_empty());
    assert!(log.step_commit());
    assert!(!log.step_commit());
    assert_eq!(p.settled(AckPoint::HighWatermark, at.last), Settled::Passed);
    assert_eq!(values(p), ["one"]);
    append(p, "never committed");
    drop(log.start());
    drop(log);
    let (log, recovery) = open(options(dir.path()));
    assert!(recovery.unclean && recovery.findings.is_empty(), "{recovery:?}");
    assert_eq!((recovery.topics, recovery.partitions), (1, 2));
    let p = &log.topic("t").unwrap().partitions()[1].clone();
    assert!(p.positions().epoch > at.last.epoch);
    assert_eq!(p.settled(AckPoint::HighWatermark, at.last), Settled::Passed);
    let all = values(p);
    assert!(all == ["one"] || all == ["one", "never committed"], "{all:?}");
}

#[test]
fn segments_roll_the_ring_turns_and_starts_of_all_kinds_find_everything() {
    let dir = tempfile::tempdir().unwrap();
    let expected = numbered(0..6000);
    let mut done = 0;
    for start in 0..6 {
        let (log, recovery) = open(options(dir.path()));
        assert!(recovery.findings.is_empty(), "{recovery:?}");
        assert_eq!(recovery.unclean, start > 0 && start % 2 == 1);
        let p = match log.topic("t") {
            Some(t) => t.partitions()[0].clone(),
            None => topic(&log, "t", 1, settings())[0].clone(),
        };
        assert_eq!(values(&p), expected[..done]);
        for i in 0..1000 {
            append(&p, &expected[done]);
            done += 1;
            if i % 7 == 6 {
                log.step_commit();
            }
            if i == 500 {
                log.step_checkpoint().unwrap();
            }
        }
        log.step_commit();
        assert_eq!(values(&p), expected[..done]);
        if start % 2 == 1 {
            log.step_close().unwrap();
        } else {
            drop(log.start());
        }
    }
    let (log, recovery) = open(options(dir.path()));
    assert_eq!(recovery.cycles_replayed, 0);
    assert_eq!(values(&log.topic("t").unwrap().partitions()[0]), expected);
}

#[test]
fn a_second_process_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _) = open(options(dir.path()));
    let again = Log::open(options(dir.path()), Arc::new(SystemDisk), Arc::new(SystemClock));
    match again {
        Err(OpenError::InUse { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn appends_wait_when_the_memory_for_them_is_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions { uncommitted_bytes_max: 10_000, ..options(dir.path()) });
    let p = &topic(&log, "t", 1, settings())[0];
    let record = RecordParts {
        timestamp_ms: 0,
        key: None,
        value: Some(&[7; 6000]),
        headers: Headers::EMPTY,
    };
    p.append(&[record]).unwrap();
    p.append(&[record]).unwrap();
    assert_eq!(p.append(&[record]), Err(AppendError::Busy));
    log.step_commit();
    assert_eq!(log.stats().uncommitted_bytes, 0);
    p.append(&[record]).unwrap();
}

#[test]
fn a_running_log_commits_by_itself_and_closes_clean() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(options(dir.path()));
    let running = log.start();
    let partitions = topic(&log, "t", 4, settings());
    let expected = numbered(0..400);
    for (i, value) in expected.iter().enumerate() {
        append(&partitions[i % 4], value);
    }
    let id = log.next_producer_id().unwrap();
    assert_eq!(log.next_producer_id().unwrap(), id + 1);
    running.close().unwrap();
    assert!(matches!(
        partitions[0].append(&[RecordParts {
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Headers::EMPTY
        }]),
        Err(AppendError::Offline(_))
    ));
    drop(log);
    let (log, recovery) = open(options(dir.path()));
    assert!(!recovery.unclean);
    assert_eq!(recovery.cycles_replayed, 0);
    for (i, p) in log.topic("t").unwrap().partitions().iter().enumerate() {
        let mine: Vec<_> = expected.iter().skip(i).step_by(4).cloned().collect();
        assert_eq!(values(p), mine);
    }
    assert!(log.next_producer_id().unwrap() > id + 1);
}

#[test]
fn what_was_acknowledged_while_the_log_closed_is_there_after_a_clean_start() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let dir = dir.path().join(round.to_string());
        let (log, _) = open(options(&dir));
        let memory = TopicSettings { durability: Durability::Memory, ..settings() };
        let p = topic(&log, "t", 1, memory)[0].clone();
        append(&p, "first");
        while log.step_commit() {}
        let begun = std::sync::Barrier::new(3);
        let taken = std::thread::scope(|scope| {
            // Takes whatever is taken, until nothing is.
            let appender = scope.spawn(|| {
                let record = RecordParts {
                    timestamp_ms: 0,
                    key: None,
                    value: Some(b"v"),
                    headers: Headers::EMPTY,
                };
                begun.wait();
                let mut last = None;
                loop {
                    match p.append(&[record]) {
                        Ok(at) => last = Some(at.last),
                        Err(AppendError::Busy) => std::thread::yield_now(),
                        Err(_) => return last,
                    }
                }
            });
            scope.spawn(|| {
                begun.wait();
                while log.stats().offline.is_none() {
                    log.step_commit();
                }
            });
            begun.wait();
            log.step_close().unwrap();
            appender.join().unwrap()
        });
        drop(log);
        let (log, recovery) = open(options(&dir));
        assert!(!recovery.unclean);
        let p = log.topic("t").unwrap().partitions()[0].clone();
        let end = taken.map_or(1, |last| last.offset.get() + 1);
        assert_eq!(p.positions().log_end.get(), end, "round {round}");
    }
}
