//! The data directory as a whole: one holder, a full disk, producer ids, and fixtures of this version's formats.

use crate::clients::client_batch;
use crate::sim::{End, Sim, options, read_all, settings};
use crate::step::Step;
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{AckPoint, AppendError, Log, LogOptions, OpenError, Settled, TopicName};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn append(topic: &'static str, records: usize) -> Step {
    Step::Append { topic, partition: 0, records, bytes: 300 }
}

fn create(topic: &'static str) -> Step {
    Step::Create { topic, partitions: 1, settings: settings(Durability::Fsync) }
}

#[test]
fn a_second_process_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = LogOptions { dirs: vec![dir.path().to_owned()], ..options() };
    let open = || Log::open(options.clone(), Arc::new(SystemDisk), Arc::new(SystemClock));
    let (log, _) = open().expect("free");
    match open() {
        Err(OpenError::InUse { holder, .. }) => {
            assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    drop(log);
    open().expect("free again");
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let mut sim = Sim::new(9);
    sim.open().expect("new");
    sim.run(&[create("sensors"), append("sensors", 2), Step::Commit, Step::Checkpoint]);
    sim.disk.set_capacity(Some(sim.disk.used_bytes() + (96 << 10)));
    let mut full = false;
    for _ in 0..2_000 {
        sim.run(&[append("sensors", 3), Step::Commit, Step::Housekeep]);
        assert_eq!(sim.log().stats().offline, None, "a full disk is not a broken one");
        if sim.refused > 3 {
            full = true;
            break;
        }
    }
    assert!(full, "the disk never filled");
    let partition = sim.partition("sensors", 0).expect("there");
    assert!(sim.log().stats().disk_full);
    let acked = sim.part("sensors", 0).acked_end;
    assert_eq!(read_all(&partition).len() as i64, acked, "all that was acknowledged can be read");
    // A power cut on a full disk loses nothing either.
    for seed in 0..10 {
        let left = sim.disk.after_crash(headwater_log::disk::fake::Outcome::Chaos, seed);
        let mut other = sim.on(left);
        other.open().expect("a full disk opens");
        other.check(End::Power);
    }
    sim.disk.set_capacity(None);
    let refused = sim.refused;
    for _ in 0..20 {
        sim.run(&[Step::Wait { ms: 1_000 }, Step::Housekeep, append("sensors", 1), Step::Commit]);
    }
    assert!(sim.refused < refused + 20, "it goes on when there is room");
    assert!(sim.part("sensors", 0).acked_end > acked);
    assert!(!sim.log().stats().disk_full);
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut sim = Sim::new(4);
    let mut given = BTreeSet::new();
    for life in 0..4 {
        sim.open().expect("opens");
        let running = sim.log().start();
        for _ in 0..5 {
            let id = sim.log().next_producer_id().expect("a producer id");
            assert!(id >= 0 && given.insert(id), "{id} was given before");
        }
        let left = if life % 2 == 0 {
            sim.disk.after_crash(headwater_log::disk::fake::Outcome::DropAll, life)
        } else {
            running.close().expect("closes");
            sim.disk.after_kill()
        };
        sim = sim.on(left);
    }
}

#[test]
fn appends_of_many_threads_are_durable_and_in_order() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = LogOptions {
        dirs: vec![dir.path().to_owned()],
        journal_file_bytes: 1 << 20,
        bulk_bytes: 0,
        uncommitted_bytes_max: 16 << 20,
        ..options()
    };
    let (log, _) =
        Log::open(options.clone(), Arc::new(SystemDisk), Arc::new(SystemClock)).expect("new");
    let name = TopicName::new("sensors").expect("legal");
    let settings = TopicSettings { segment_bytes: 256 << 10, ..settings(Durability::Fsync) };
    let (topic, _) = log.create_topic(&name, 4, settings).expect("created");
    let running = log.start();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let topic = topic.clone();
            scope.spawn(move || {
                let mut last = vec![];
                for i in 0..2_000u32 {
                    let value = [thread.to_be_bytes(), i.to_be_bytes()].concat();
                    let record = RecordParts {
                        timestamp_ms: 1,
                        key: None,
                        value: Some(&value),
                        headers: Headers::EMPTY,
                    };
                    let partition = &topic.partitions()[i as usize % 4];
                    loop {
                        match partition.append(&[record]) {
                            Ok(appended) => {
                                last.push((Arc::clone(partition), appended.last));
                                break;
                            }
                            Err(AppendError::Busy) => std::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                for (partition, position) in last {
                    while partition.settled(AckPoint::Synced, position) == Settled::Waiting {
                        std::thread::yield_now();
                    }
                    assert_eq!(
                        partition.settled(AckPoint::HighWatermark, position),
                        Settled::Passed
                    );
                }
            });
        }
    });
    // As a crash: no close.
    drop((running, topic, log));
    let (log, recovery) =
        Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock)).expect("opens again");
    assert!(recovery.unclean && recovery.findings.is_empty(), "{recovery:?}");
    let topic = log.topic("sensors").expect("there");
    let mut seen = 0;
    for partition in topic.partitions() {
        let mut next = [None::<u32>; 4];
        for (_, entry) in read_all(partition) {
            let number =
                |at: usize| u32::from_be_bytes(entry.value[at..at + 4].try_into().unwrap());
            let (thread, i) = (number(0) as usize, number(4));
            assert!(next[thread].is_none_or(|next| i >= next), "thread {thread} out of order");
            next[thread] = Some(i + 1);
            seen += 1;
        }
    }
    assert_eq!(seen, 8_000, "every append once");
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What the fixtures hold; never to be changed, only added to for a later version.
fn fixture_life(sim: &mut Sim, clean: bool) {
    sim.open().expect("new");
    let memory = settings(Durability::Memory);
    sim.run(&[
        create("sensors"),
        Step::Create { topic: "fast", partitions: 2, settings: memory },
        append("sensors", 40),
        Step::Produce { topic: "sensors", partition: 0, records: 3, bytes: 50 },
        Step::Append { topic: "fast", partition: 1, records: 5, bytes: 50 },
        Step::Commit,
        Step::Trim { topic: "sensors", partition: 0, eighths: 1 },
        Step::Commit,
        Step::Wait { ms: 2_000 },
        Step::Housekeep,
        Step::Checkpoint,
        append("sensors", 6),
        Step::Grow { topic: "sensors", partitions: 2 },
        create("again"),
        Step::Commit,
        Step::Append { topic: "sensors", partition: 1, records: 2, bytes: 10 },
        Step::Delete { topic: "again" },
        Step::Commit,
    ]);
    if clean {
        sim.log().step_close().expect("closes");
    }
}

/// Formats of version 0.1, written once by [`fixture_life`] and committed: `HEADWATER_WRITE_FIXTURES=1` makes
/// those that are missing.
#[test]
fn directories_of_every_released_format_are_read() {
    for (name, clean) in [("v0.1-closed", true), ("v0.1-killed", false)] {
        let folder = fixture(name);
        let mut sim = Sim::new(11);
        sim.plain = true;
        fixture_life(&mut sim, clean);
        if !folder.exists() {
            assert!(std::env::var_os("HEADWATER_WRITE_FIXTURES").is_some(), "{name} is missing");
            for path in sim.disk.files().iter().filter(|path| !path.ends_with(".lock")) {
                let to = folder.join(path.trim_start_matches('/'));
                std::fs::create_dir_all(to.parent().expect("a folder")).expect("writable");
                std::fs::write(to, sim.disk.contents(path).expect("listed")).expect("writable");
            }
        }
        let disk = headwater_log::disk::fake::FakeDisk::new(12);
        plant_folder(&disk, &folder, Path::new("/"));
        let mut old = sim.on(disk);
        // Ids are the fixture's own.
        let recovery = old.open().expect("the old directory opens");
        assert_eq!((recovery.unclean, recovery.created), (!clean, false), "{name}");
        assert_eq!(recovery.findings, Vec::<String>::new(), "{name}");
        for (topic, model) in &mut old.model.topics {
            model.id = old.log.as_ref().expect("open").topic(topic).expect("there").id();
        }
        old.check(End::Kill);
        let sent = old.part("sensors", 0).last_sent().cloned().expect("a producer's batch");
        let partition = old.partition("sensors", 0).expect("there");
        let batch = client_batch(sent.producer_id, sent.sequence, &sent.values);
        assert!(partition.append_batch(batch).expect("a repeat").duplicate, "{name}");
        assert_eq!(
            old.log().topic("fast").expect("there").settings().durability,
            Durability::Memory
        );
        assert!(old.log().topic("again").is_none());
    }
}

pub(crate) fn plant_folder(disk: &headwater_log::disk::fake::FakeDisk, from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder of the fixture") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("readable").is_dir() {
            plant_folder(disk, &entry.path(), &target);
        } else {
            disk.plant(&target, &std::fs::read(entry.path()).expect("readable"));
        }
    }
}
