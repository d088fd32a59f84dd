//! The checkpoints of uplinks in a real log on a disk in memory: over restarts, crashes and compaction.

use super::*;
use crate::testing::{config, open_log};
use crate::uplink::checkpoint::{Anchor, Cause, Step, Target};
use crate::uplink::sequence::Sequence;
use headwater_kafka::client::ProducerIdentity;
use headwater_log::clock::fake::FakeClock;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::{LeaderEpoch, PartitionId, TopicId};

fn key(number: u8) -> Key {
    Key {
        uplink: "dc".to_owned(),
        topic: TopicId::from_bytes([number; 16]),
        partition: PartitionId::new(i32::from(number)).unwrap(),
    }
}

fn checkpoint(acked: i64, steps: usize) -> Checkpoint {
    let position =
        |offset| Position { epoch: LeaderEpoch::default(), offset: Offset::new(offset).unwrap() };
    Checkpoint {
        target: Target {
            cluster_id: "c".to_owned(),
            topic: "plant-7.telemetry".to_owned(),
            topic_id: [1; 16],
        },
        producer: ProducerIdentity { id: 7, epoch: 0 },
        anchor: Anchor { source: position(0), sequence: Sequence::ZERO },
        acked: position(acked),
        floor: acked,
        steps: vec![Step { from: 0, delta: 0, cause: Cause::Start }; steps],
        moved: None,
    }
}

struct Machine {
    disk: FakeDisk,
    clock: FakeClock,
}

impl Machine {
    fn new() -> Self {
        Self { disk: FakeDisk::new(7), clock: FakeClock::new(1_800_000_000_000) }
    }

    fn open(&self) -> (Log, Result<Store, StoreError>) {
        let log = open_log(&self.disk, &self.clock, &config());
        let store = Store::open(&log);
        (log, store)
    }
}

impl Machine {
    /// The process is killed and starts again.
    fn open_again(&mut self) -> (Log, Result<Store, StoreError>) {
        self.disk = self.disk.after_kill();
        self.open()
    }
}

fn commit(log: &Log) {
    while log.step_commit() {}
}

#[test]
fn the_newest_checkpoint_that_was_synced_is_the_one() {
    let mut machine = Machine::new();
    let (log, store) = machine.open();
    let mut store = store.unwrap();
    assert_eq!(store.get(&key(1)), Ok(None));
    store.put(&key(1), &checkpoint(10, 1)).unwrap();
    store.put(&key(2), &checkpoint(5, 0)).unwrap();
    let written = store.put(&key(1), &checkpoint(20, 2)).unwrap();
    assert_eq!(written.settled(), Settled::Waiting);
    commit(&log);
    assert_eq!(written.settled(), Settled::Passed);
    store.remove(&key(2)).unwrap();
    commit(&log);
    drop((store, log, written));

    let (_log, store) = machine.open_again();
    let store = store.unwrap();
    assert_eq!(store.get(&key(1)), Ok(Some(checkpoint(20, 2))));
    assert_eq!(store.get(&key(2)), Ok(None), "a tombstone");
}

#[test]
fn the_topic_stays_small_and_loses_nothing() {
    let mut machine = Machine::new();
    let (log, store) = machine.open();
    let mut store = store.unwrap();
    store.put(&key(200), &checkpoint(3, 0)).unwrap();
    for acked in 0..12_000 {
        store.put(&key((acked % 20) as u8), &checkpoint(acked, 64)).unwrap();
        if acked % 100 == 0 {
            commit(&log);
            store.tick();
        }
    }
    commit(&log);
    store.tick();
    let kept: i64 = store
        .topic
        .partitions()
        .iter()
        .map(|p| p.positions().log_end.get() - p.positions().log_start.get())
        .sum();
    assert!(kept < 9_000, "{kept} of 12,001 records are still there");
    commit(&log);
    drop((store, log));

    let (_log, store) = machine.open_again();
    let store = store.unwrap();
    for number in 0..20_u8 {
        let newest = 11_980 + i64::from(number);
        assert_eq!(store.get(&key(number)), Ok(Some(checkpoint(newest, 64))));
    }
    assert_eq!(store.get(&key(200)), Ok(Some(checkpoint(3, 0))), "an old one is not forgotten");
}

#[test]
fn what_this_version_does_not_understand_is_an_error_with_its_place() {
    let mut machine = Machine::new();
    let (log, store) = machine.open();
    let mut store = store.unwrap();
    let mut newer = checkpoint(1, 0).encode();
    newer[0] = 3;
    store.append(&key(1).encode(), Some(&newer)).unwrap();
    commit(&log);
    drop((store, log));
    let error = machine.open_again().1.unwrap_err().to_string();
    assert!(error.starts_with("__headwater_uplinks, partition "), "{error}");
    assert!(error.contains("offset 0") && error.contains("newer Headwater"), "{error}");
}

#[test]
fn a_move_is_noted_in_every_checkpoint_before_the_machine_is() {
    let mut machine = Machine::new();
    let (log, store) = machine.open();
    let mut store = store.unwrap();
    let name = TopicName::new("telemetry").unwrap();
    let (topic, _) = log.create_topic(&name, 1, settings()).unwrap();
    let append = |log: &Log| {
        let topic = log.topic("telemetry").unwrap();
        let headers = Headers::EMPTY;
        let record = RecordParts { timestamp_ms: 1, key: Some(b"k"), value: Some(b"v"), headers };
        topic.partitions()[0].append(&[record]).unwrap();
        commit(log);
    };
    append(&log);
    let partition = PartitionId::new(0).unwrap();
    let key = Key { uplink: "dc".to_owned(), topic: topic.id(), partition };
    store.put(&key, &checkpoint(0, 1)).unwrap();
    commit(&log);
    drop((store, topic, log));

    machine.disk = machine.disk.after_kill();
    machine.disk.set_machine_id(Some([9; 16]));
    let log = open_log(&machine.disk, &machine.clock, &config());
    crate::uplink::note_moved(&log).unwrap();
    // Killed before the machine is noted: by then the copy may have records of its own, which the mark must not take in.
    append(&log);
    drop(log);
    machine.disk = machine.disk.after_kill();
    let log = open_log(&machine.disk, &machine.clock, &config());
    crate::uplink::note_moved(&log).unwrap();
    log.note_machine().unwrap();
    drop(log);

    let (_log, store) = machine.open_again();
    let noted = Checkpoint { moved: Offset::new(1), ..checkpoint(0, 1) };
    assert_eq!(store.unwrap().get(&key), Ok(Some(noted)));
}
