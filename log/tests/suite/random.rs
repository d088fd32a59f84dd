//! Random lives: random steps, faults and ends, from a seed. `HEADWATER_SEEDS=N` runs more of them,
//! `HEADWATER_SEED=S` exactly one.

use crate::TOPICS;
use crate::crash::case;
use crate::model::TopicModel;
use crate::replica::Replica;
use crate::sim::{End, Random, Sim, settings};
use crate::step::Step;
use crate::transactions::PRODUCERS;
use headwater_log::Share;
use headwater_log::batch::compression::{Codec, Compression};
use headwater_log::disk::fake::{Fault, Outcome};
use headwater_log::metadata::{Cleanup, Durability, TopicSettings};

const SEEDS: u64 = 300;

#[test]
fn random_lives() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds = match number("HEADWATER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HEADWATER_SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    let mut compacted = (0, 0);
    for seed in seeds {
        let replay =
            format!("HEADWATER_SEED={seed} cargo test -p headwater-log --test suite random_lives");
        case(&replay, || {
            let (passes, bytes) = lives(seed, false);
            compacted = (compacted.0 + passes, compacted.1 + bytes);
        });
    }
    println!("compaction: {} passes took {} bytes", compacted.0, compacted.1);
    assert!(!many || compacted.0 > SEEDS / 2 && compacted.1 > 50 * SEEDS, "{compacted:?}");
}

/// Lives of which no operation failed end in rot and a repair.
#[test]
fn rotten_lives() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds = match number("HEADWATER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HEADWATER_ROTTEN_SEEDS").unwrap_or(SEEDS / 2),
    };
    for seed in seeds {
        let replay =
            format!("HEADWATER_SEED={seed} cargo test -p headwater-log --test suite rotten_lives");
        case(&replay, || {
            lives(seed, true);
        });
    }
}

/// Answers with what compaction did: its passes, and by how many bytes the log got smaller.
fn lives(seed: u64, rot: bool) -> (u64, u64) {
    let mut random = Random(seed);
    let mut sim = Sim::new(seed);
    sim.options.journal_files = 2 + random.below(3) as u32;
    sim.options.bulk_bytes = [0, 900][(seed % 2) as usize];
    if random.below(3) == 0 {
        sim.options.dirs.push("/more".into());
    }
    sim.options.reserved_bytes = [0, 1 << 20][random.below(2) as usize];
    if random.below(3) == 0 {
        sim.options.max_bytes = Some(Share::Bytes(20_000));
    }
    if random.below(3) == 0 {
        sim.options.min_free = Some(Share::Bytes(40_000));
    }
    sim.keyed = random.below(4) == 0;
    let mut compacted = (0, 0);
    let mut end = End::Kill;
    // The directory that the log has gone on without: until it is back, the other one must not fail too.
    let mut behind = None;
    for _ in 0..1 + random.below(4) {
        let base = sim.disk.changes();
        let mut stop = u64::MAX;
        if let Some(directory) = behind {
            match random.below(3) {
                0 => sim.disk.kill_below(&sim.options.dirs[directory]),
                1 => sim.disk.unmount(DIRECTORIES[directory], true),
                _ => {}
            }
        }
        match random.below(if behind.is_some() { 1 } else { 4 }) {
            0 => stop = base + 1 + random.below(300),
            1 => {
                let fault = [Fault::Eio, Fault::Enospc, Fault::Short][random.below(3) as usize];
                sim.disk.fail_change(base + 1 + random.below(300), fault);
            }
            _ => {}
        }
        sim.disk.stop_after(stop);
        if random.below(2) == 0 {
            sim.limit(None);
        }
        let opened = sim.open();
        // The power may go when one of two directories is open already.
        if opened.is_ok() && !sim.disk.is_stopped() {
            // A stop in the middle of the check would only stop the check.
            sim.disk.stop_after(u64::MAX);
            sim.check(end);
            end = End::Kill;
            sim.disk.stop_after(stop.max(sim.disk.changes()));
            behind = lost(&sim);
            for _ in 0..10 + random.below(70) {
                if sim.disk.is_stopped() {
                    break;
                }
                // Noted at once: when the power goes, all are offline.
                behind = behind.or_else(|| lost(&sim));
                let step = match behind {
                    None if sim.options.dirs.len() > 1 && random.below(60) == 0 => {
                        Step::Die { directory: random.below(2) as usize }
                    }
                    _ => step(&mut random, &sim),
                };
                // What no checkpoint covers is not compacted.
                if matches!(step, Step::Compact { .. }) && random.below(2) == 0 {
                    sim.step(&Step::Checkpoint);
                }
                sim.step(&step);
            }
            behind = behind.or_else(|| lost(&sim));
            let stats = sim.log().stats().compaction;
            compacted = (compacted.0 + stats.passes, compacted.1 + stats.removed_bytes);
        } else {
            let reason = sim.disk.is_stopped() || sim.disk.has_failed() || sim.tight;
            assert!(reason, "no reason not to open: {opened:?}");
        }
        // A failed sync may lose what the kernel had, as a power cut does.
        if sim.disk.has_failed() {
            end = End::Power;
        }
        let disk = if random.below(3) == 0 {
            sim.disk.after_kill()
        } else {
            end = End::Power;
            let outcome = Outcome::ALL[random.below(5) as usize];
            sim.disk.after_crash(outcome, random.next())
        };
        for name in DIRECTORIES {
            disk.unmount(name, false);
        }
        sim = sim.on(disk);
        sim.verify_is_well();
    }
    sim.limit(None);
    if rot && !sim.faulty {
        sim.rot_and_repair(end, &mut random);
        return compacted;
    }
    sim.reopen_and_check(end);
    let directories = sim.log().stats().directories;
    let lost = directories.iter().filter(|d| d.offline.is_some());
    assert_eq!(lost.count(), 0, "all are back: {directories:?}");
    compacted
}

/// Names of the data directories, as they are configured.
const DIRECTORIES: [&str; 2] = ["data", "more"];

/// The directory that is offline while another goes on.
fn lost(sim: &Sim) -> Option<usize> {
    let stats = sim.log().stats();
    let lost = stats.directories.iter().find(|d| d.offline.is_some());
    let lost = lost.filter(|_| stats.offline.is_none())?;
    sim.options.dirs.iter().position(|dir| *dir == lost.path)
}

/// Of a life that is about compaction: segments fill soon, and nearly all of them is compacted.
fn keyed_settings(random: &mut Random) -> TopicSettings {
    TopicSettings {
        cleanup: [Cleanup::Compact, Cleanup::CompactAndDelete][random.below(2) as usize],
        segment_bytes: 1 << 10,
        ..any_settings(random)
    }
}

fn any_settings(random: &mut Random) -> TopicSettings {
    let durability = if random.below(3) == 0 { Durability::Memory } else { Durability::Fsync };
    TopicSettings {
        retention_ms: (random.below(4) == 0).then_some(3_000),
        retention_bytes: (random.below(4) == 0).then_some(12_000),
        cleanup: [Cleanup::Delete, Cleanup::Delete, Cleanup::Compact, Cleanup::CompactAndDelete]
            [random.below(4) as usize],
        compaction_lag_ms_min: [0, 0, 1_000][random.below(3) as usize],
        compaction_lag_ms_max: (random.below(4) == 0).then_some(2_000),
        delete_retention_ms: [0, 500, 3_000][random.below(3) as usize],
        dirty_ratio_permille: [1, 500][random.below(2) as usize],
        segment_bytes: [2 << 10, 8 << 10, 64 << 10][random.below(3) as usize],
        segment_ms: [2_000, 3_600_000][random.below(2) as usize],
        compression: Compression {
            codec: Codec::from_number(random.below(5) as u8).expect("there are five"),
            level: None,
        },
        ..settings(durability)
    }
}

fn step(random: &mut Random, sim: &Sim) -> Step {
    let (topics, partitions) = if sim.keyed { (2, 1) } else { (TOPICS.len() as u64, 3) };
    let topic = TOPICS[random.below(topics) as usize];
    let Some(model) = sim.model.topics.get(topic) else {
        let partitions = 1 + random.below(partitions) as u32;
        let settings = if sim.keyed { keyed_settings } else { any_settings };
        return Step::Create { topic, partitions, settings: settings(random) };
    };
    if sim.keyed && random.below(12) == 0 {
        return Step::Compact { between: vec![] };
    }
    let count = model.partitions.len();
    let partition = random.below(count as u64) as usize;
    let records = 1 + random.below(6) as usize;
    let bytes = random.below(500) as usize;
    let replicated = model.partitions[partition].replicated;
    if random.below(if replicated { 3 } else { 60 }) == 0 {
        let what = match random.below(if replicated { 20 } else { 2 }) {
            0 => Replica::Lead,
            1 | 2 => Replica::Follow,
            3..=5 => Replica::Truncate { eighths: random.below(9) as u32 },
            6..=9 => Replica::Advance { all: random.below(2) == 0 },
            _ => {
                let hole = if random.below(3) == 0 { 1 + random.below(4) as u32 } else { 0 };
                Replica::Fetch { hole, records, bytes }
            }
        };
        return Step::Replica { topic, partition, what };
    }
    if sim.options.bulk_bytes > 0 && random.below(12) == 0 {
        // Nothing is taken in bulk before a catalog allows it.
        return Step::Checkpoint;
    }
    match random.below(50) {
        // A directory that fails for want of room is another life's subject.
        0 | 1 if sim.options.dirs.len() == 1 => {
            let kib = random.below(120) as u32;
            return Step::Room { kib: (random.below(3) > 0).then_some(kib) };
        }
        2 => return Step::Hold { topic, partition, eighths: random.below(9) as u32 },
        3 | 4 => return Step::Compact { between: vec![] },
        5 => {
            let between = (0..random.below(6)).map(|_| plain_step(random, sim));
            return Step::Compact { between: between.collect() };
        }
        _ => {}
    }
    plain(random, model, topic, partition)
}

/// Any step but compaction, which is not begun twice at a time.
fn plain_step(random: &mut Random, sim: &Sim) -> Step {
    loop {
        let step = step(random, sim);
        if !matches!(step, Step::Compact { .. }) {
            return step;
        }
    }
}

fn plain(random: &mut Random, model: &TopicModel, topic: &'static str, partition: usize) -> Step {
    let count = model.partitions.len();
    let (records, bytes) = (1 + random.below(6) as usize, random.below(500) as usize);
    match random.below(40) {
        0 => Step::Delete { topic },
        1 if count < 5 => Step::Grow { topic, partitions: count as u32 + 1 },
        2 => Step::Alter { topic, settings: any_settings(random) },
        3 | 4 => Step::Trim { topic, partition, eighths: random.below(9) as u32 },
        5 | 6 => Step::Repeat { topic, partition },
        7 => Step::Checkpoint,
        8..=10 => Step::Wait { ms: random.below(3_000) as u32 },
        11 | 12 => Step::Housekeep,
        13 if random.below(2) == 0 => Step::LookUp { topic, partition },
        13 => Step::Spoil { topic, partition, how: random.below(1_000) as u32 },
        14..=18 => Step::Produce { topic, partition, records, bytes },
        19..=25 => Step::Append { topic, partition, records, bytes },
        26..=28 => {
            let producer = random.below(PRODUCERS as u64) as i64;
            Step::InTransaction { topic, partition, producer, records }
        }
        29 | 30 => {
            let producer = random.below(PRODUCERS as u64) as i64;
            Step::Marker { topic, partition, producer, commit: random.below(2) == 0 }
        }
        31 => Step::ReadCommitted { topic, partition },
        32..=34 => Step::Turn,
        _ => Step::Commit,
    }
}
