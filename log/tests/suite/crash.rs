//! A scripted life, ended after every single operation, in every way that the disk may end it.

use crate::replica::Replica;
use crate::sim::{End, Sim, settings};
use crate::step::Step;
use headwater_log::batch::compression::{Codec, Compression};
use headwater_log::disk::fake::{FakeDisk, Fault, Outcome};
use headwater_log::metadata::{Cleanup, Durability, TopicSettings};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Journal rotation, segment rolls, checkpoints, topics made and deleted and made again, both durabilities,
/// deletion of records and retention, producers that repeat themselves, transactions committed and aborted, replicas that
/// follow, are cut back and lead, a topic that is compacted; and one that is written in bulk.
pub(crate) fn script() -> Vec<Step> {
    use Step::{
        Alter, Append, Checkpoint, Commit, Create, Delete, Grow, Housekeep, InTransaction, LookUp,
        Marker, Produce, ReadCommitted, Repeat, Spoil, Trim, Wait,
    };
    let fsync = settings(Durability::Fsync);
    let zstd = Compression { codec: Codec::Zstd, level: None };
    let memory = TopicSettings { compression: zstd, ..settings(Durability::Memory) };
    let lz4 = Compression { codec: Codec::Lz4, level: None };
    let limited = TopicSettings { retention_ms: Some(5_000), compression: lz4, ..fsync.clone() };
    let append = |topic, partition, records| Append { topic, partition, records, bytes: 300 };
    let produce = |topic, partition, records| Produce { topic, partition, records, bytes: 200 };
    let mut steps = vec![
        Create { topic: "sensors", partitions: 2, settings: fsync.clone() },
        append("sensors", 0, 3),
        Commit,
        Create { topic: "fast", partitions: 1, settings: memory },
        append("fast", 0, 4),
        append("sensors", 1, 2),
        Commit,
        produce("sensors", 0, 2),
        Repeat { topic: "sensors", partition: 0 },
        Commit,
        Checkpoint,
        Create { topic: "again", partitions: 1, settings: fsync.clone() },
        append("again", 0, 5),
        Create {
            topic: "bulky",
            partitions: 1,
            settings: TopicSettings { segment_ms: 5_000, ..fsync.clone() },
        },
        append("bulky", 0, 11),
        Commit,
    ];
    // Each transaction lies over two rounds and two partitions, its markers in one cycle or in two.
    let begin = |partition| InTransaction { topic: "sensors", partition, producer: 0, records: 2 };
    let end = |partition, commit| Marker { topic: "sensors", partition, producer: 0, commit };
    // Enough for several segments of 8 KiB and once around the ring of 3 x 32 KiB.
    for round in 0..20 {
        steps.extend([
            append("sensors", 0, 6),
            Commit,
            produce("sensors", 1, 5),
            append("fast", 0, 5),
            Commit,
            Wait { ms: 400 },
            Housekeep,
        ]);
        match round % 4 {
            0 => steps.extend([begin(0), begin(1)]),
            1 => steps.extend([
                end(0, round % 8 == 1),
                Commit,
                end(1, round % 8 == 1),
                ReadCommitted { topic: "sensors", partition: 0 },
            ]),
            _ => {}
        }
        match round {
            2 => steps.extend([Delete { topic: "again" }, Commit]),
            4 => steps.extend([
                Create { topic: "again", partitions: 2, settings: fsync.clone() },
                append("again", 0, 1),
                Commit,
                Housekeep,
            ]),
            6 => steps.extend([
                Trim { topic: "sensors", partition: 0, eighths: 5 },
                Commit,
                Housekeep,
            ]),
            8 => steps.extend([
                Alter { topic: "sensors", settings: limited.clone() },
                Commit,
                Grow { topic: "sensors", partitions: 3 },
                append("sensors", 2, 2),
                Commit,
            ]),
            10 => steps.extend([Wait { ms: 20_000 }, Housekeep, Commit, Housekeep]),
            11 => {
                steps.extend([Delete { topic: "fast" }, append("sensors", 2, 1), Commit, Housekeep])
            }
            // Index files are read, found missing or wrong, and made again.
            5 | 14 => steps.extend([
                LookUp { topic: "sensors", partition: 0 },
                LookUp { topic: "sensors", partition: 1 },
            ]),
            13 => steps.extend((0..12).map(|how| Spoil { topic: "sensors", partition: 1, how })),
            12 => steps.push(Checkpoint),
            // More dirty files than are synced one by one.
            15 => {
                steps.push(Create { topic: "wide", partitions: 7, settings: fsync.clone() });
                steps.extend((0..7).map(|partition| append("wide", partition, 1)));
                steps.extend([Commit, Checkpoint]);
            }
            _ => {}
        }
        steps.extend(replicas(round));
        steps.extend(keyed(round));
        steps.extend(bulk(round));
    }
    steps.push(append("sensors", 0, 1));
    steps
}

/// What happens in a round to a topic that is compacted: segments become one, tombstones and transactions' ends go in their time,
/// its log start moves, and the rest of the log does not wait for the cleaner.
fn keyed(round: u32) -> Vec<Step> {
    let (topic, partition, producer) = ("keyed", 0, 1);
    let append = |records| Step::Append { topic, partition, records, bytes: 100 };
    let compact = Step::Compact { between: vec![] };
    let marker = Step::Marker { topic, partition, producer, commit: round % 8 == 1 };
    let mut steps = match round {
        0 => {
            let settings = TopicSettings {
                cleanup: Cleanup::Compact,
                segment_bytes: 1_000,
                delete_retention_ms: 2_000,
                dirty_ratio_permille: 1,
                ..settings(Durability::Fsync)
            };
            vec![Step::Create { topic, partitions: 1, settings }]
        }
        _ if round.is_multiple_of(4) => {
            vec![Step::InTransaction { topic, partition, producer, records: 3 }]
        }
        _ if round % 4 == 1 => vec![marker],
        _ => vec![Step::Produce { topic, partition, records: 1, bytes: 100 }],
    };
    steps.extend([append(3), Step::Commit]);
    match round {
        3 | 9 | 12 => steps.extend([Step::Checkpoint, compact]),
        // What others do meanwhile; then all that has had its time goes.
        16 => steps.extend([
            Step::Checkpoint,
            Step::Compact {
                between: vec![
                    append(1),
                    Step::Trim { topic, partition, eighths: 1 },
                    Step::Commit,
                    Step::Checkpoint,
                    append(2),
                    Step::Commit,
                ],
            },
            Step::Wait { ms: 2_000 },
            Step::Housekeep,
            compact,
        ]),
        _ => {}
    }
    steps
}

/// One partition with so much to commit that it goes past the journal, once a catalog allows it: between cycles of its own that
/// do not, over the end of a segment, with everything that may come between its three parts.
fn bulk(round: u32) -> Vec<Step> {
    let append = |records| Step::Append { topic: "bulky", partition: 0, records, bytes: 300 };
    match round {
        1 | 2 => vec![append(11), Step::Turn, Step::Turn, append(1), Step::Turn, Step::Commit],
        3 => vec![append(11), Step::Turn, Step::Checkpoint, Step::Turn, Step::Checkpoint],
        5 => vec![append(2), Step::Commit, append(11), append(11), Step::Commit],
        7 => vec![
            append(12),
            Step::Turn,
            Step::Trim { topic: "bulky", partition: 0, eighths: 4 },
            Step::Turn,
            Step::Turn,
            Step::Housekeep,
        ],
        // Some of them past the age of a segment, which a recovery would see otherwise.
        12 | 16 => vec![append(3), Step::Commit, Step::Wait { ms: 6_000 }, append(11)],
        17 => vec![append(11), Step::Turn, Step::Delete { topic: "bulky" }, Step::Commit],
        _ => vec![],
    }
}

/// What happens to replicas in a round: one whose batches the journal has, and one that is scanned after a crash.
fn replicas(round: u32) -> Vec<Step> {
    let of = |topic, what| Step::Replica { topic, partition: 0, what };
    // Some behind a hole that the leader's compaction left.
    let fetch =
        |topic, records, bytes| of(topic, Replica::Fetch { hole: round % 3, records, bytes });
    let both = |what: &dyn Fn(&'static str) -> Vec<Step>| [what("small"), what("old")].concat();
    match round {
        1 => {
            let create = |topic, durability| Step::Create {
                topic,
                partitions: 1,
                settings: TopicSettings { segment_bytes: 1_500, ..settings(durability) },
            };
            let mut steps =
                vec![create("small", Durability::Fsync), create("old", Durability::Memory)];
            steps.extend(both(&|topic| vec![of(topic, Replica::Follow), Step::Commit]));
            steps
        }
        2 | 3 | 5 => both(&|topic| {
            vec![
                fetch(topic, 2, 300),
                Step::Commit,
                of(topic, Replica::Advance { all: round == 2 }),
                fetch(topic, 3, 200),
                Step::Commit,
                fetch(topic, 1, 100),
                Step::Commit,
            ]
        }),
        // Shorter ones in the place of what is cut; in one case more than a segment of it.
        4 | 7 | 9 => both(&|topic| {
            vec![
                of(topic, Replica::Truncate { eighths: round % 4 }),
                Step::Commit,
                of(topic, Replica::Follow),
                fetch(topic, 1, 60),
                Step::Checkpoint,
                fetch(topic, 1, 60),
                Step::Commit,
            ]
        }),
        11 | 14 => both(&|topic| {
            vec![
                of(topic, Replica::Lead),
                Step::Commit,
                Step::Append { topic, partition: 0, records: 2, bytes: 100 },
                Step::Commit,
                of(topic, Replica::Advance { all: true }),
            ]
        }),
        12 => both(&|topic| vec![of(topic, Replica::Follow), fetch(topic, 2, 300), Step::Commit]),
        13 => both(&|topic| vec![of(topic, Replica::Truncate { eighths: 0 }), Step::Commit]),
        _ => vec![],
    }
}

/// Runs one case and says which it was if it fails.
pub(crate) fn case(name: &str, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("failed: {name}");
        resume_unwind(panic);
    }
}

/// Changes that the whole script makes, opening included.
fn script_changes(dirs: usize) -> u64 {
    let mut sim = in_dirs(1, dirs);
    sim.open().expect("a new directory");
    sim.run(&script());
    let stats = sim.log().stats();
    assert!(stats.offline.is_none(), "{stats:?}");
    assert!(stats.checkpoints >= 3, "{stats:?}");
    let around = stats.journal_bytes > stats.journal_size_bytes;
    assert!(around || dirs > 1, "once around the ring: {stats:?}");
    assert!(stats.bulk_bytes > 6_000, "past the journal: {stats:?}");
    assert_eq!(sim.refused, 0);
    let compaction = stats.compaction;
    assert!(compaction.passes >= 5 && compaction.removed_bytes > 2_000, "{compaction:?}");
    // Spread over two directories, no checkpoint of one has so many files.
    let wide = sim.disk.trace().iter().any(|line| line.contains("sync filesystem"));
    assert!(wide || dirs > 1, "a checkpoint of many files");
    sim.disk.changes()
}

/// A life in one data directory, or in two.
pub(crate) fn in_dirs(seed: u64, dirs: usize) -> Sim {
    let mut sim = Sim::new(seed);
    sim.options.bulk_bytes = 3_000;
    if dirs == 2 {
        sim.options.dirs.push("/more".into());
    }
    sim
}

/// The script up to one operation.
fn run_to(change: u64, dirs: usize) -> Sim {
    let mut sim = in_dirs(1, dirs);
    sim.disk.stop_after(change);
    if sim.open().is_ok() {
        sim.run(&script());
    }
    sim
}

/// Ends the script after every `of`-th operation.
fn shard(shard: u64, of: u64, dirs: usize) {
    let total = script_changes(dirs);
    let mut inside_recovery = 0;
    for change in (1..=total).filter(|change| change % of == shard) {
        let sim = run_to(change, dirs);
        let mut ends = vec![(End::Kill, sim.disk.after_kill(), "kill".to_owned())];
        for (i, outcome) in Outcome::ALL.into_iter().enumerate() {
            let seed = change * 8 + i as u64;
            let left = sim.disk.after_crash(outcome, seed);
            ends.push((End::Power, left, format!("{outcome:?}, seed {seed}")));
        }
        for (end, disk, name) in ends {
            let name = format!("stop after change {change}, {name}");
            case(&name, || sim.on(copy(&disk)).reopen_and_check(end));
            // And once more, with a crash at some operation of the recovery.
            let stop = change % 13;
            case(&format!("{name}, then after {stop} in recovery"), || {
                inside_recovery += u64::from(recover_twice(&sim, &disk, end, stop));
            });
        }
    }
    assert!(
        inside_recovery > total / of / 2,
        "{inside_recovery} crashes inside recovery of {total}"
    );
}

fn copy(disk: &FakeDisk) -> FakeDisk {
    disk.after_kill()
}

fn recover_twice(sim: &Sim, disk: &FakeDisk, end: End, stop: u64) -> bool {
    let mut first = sim.on(copy(disk));
    first.disk.stop_after(first.disk.changes() + stop);
    if first.open().is_ok() {
        return false;
    }
    let left = first.disk.after_crash(Outcome::Chaos, stop);
    sim.on(left).reopen_and_check(if end == End::Kill { End::Power } else { end });
    true
}

#[test]
fn a_crash_after_every_operation_0() {
    shard(0, 4, 1);
}

#[test]
fn a_crash_after_every_operation_1() {
    shard(1, 4, 1);
}

#[test]
fn a_crash_after_every_operation_2() {
    shard(2, 4, 1);
}

#[test]
fn a_crash_after_every_operation_3() {
    shard(3, 4, 1);
}

/// Every fifth is enough here: the operations of one directory are those of two.
#[test]
fn a_crash_after_operations_in_two_directories() {
    shard(2, 5, 2);
}

/// The script with one operation failing, to its end; then a power cut.
fn with_fault(fault: Fault, change: u64, dirs: usize) {
    let mut sim = in_dirs(change, dirs);
    sim.disk.fail_change(change, fault);
    if let Err(error) = sim.open() {
        assert!(sim.disk.has_failed(), "{error}");
        sim = sim.on(sim.disk.after_kill());
        sim.open().expect("opens when the fault is gone");
    }
    sim.run(&script());
    for outcome in [Outcome::DropAll, Outcome::KeepAll, Outcome::Chaos] {
        sim.on(sim.disk.after_crash(outcome, change)).reopen_and_check(End::Power);
    }
    // A failed sync may lose what the kernel had, as a power cut does.
    sim.on(sim.disk.after_kill()).reopen_and_check(End::Power);
}

fn every_operation_fails(fault: Fault, dirs: usize) {
    for change in (1..=script_changes(dirs)).step_by(3 * dirs - 2) {
        let name = format!("change {change} fails with {fault:?}");
        case(&name, || with_fault(fault, change, dirs));
    }
}

#[test]
fn every_operation_fails_with_eio() {
    every_operation_fails(Fault::Eio, 1);
}

#[test]
fn every_operation_fails_with_enospc() {
    every_operation_fails(Fault::Enospc, 1);
}

#[test]
fn every_operation_ends_short() {
    every_operation_fails(Fault::Short, 1);
}

#[test]
fn operations_in_two_directories_fail_and_the_other_one_goes_on() {
    every_operation_fails(Fault::Eio, 2);
}
