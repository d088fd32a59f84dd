//! `repair`: what is whole is served again, what is lost is met as a gap, nothing is deleted, and a power cut in the middle of
//! it leaves something that can be repaired.

use crate::inspect::{closed, files};
use crate::keys::text_of;
use crate::sim::Sim;
use crate::step::Step;
use headwater_log::disk::fake::{FakeDisk, Outcome};
use headwater_log::inspect::{self, InspectError, Repaired};
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::{Offset, Partition, ReadError, ReadLimit, batch};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Sim {
    pub(crate) fn repair(&self, apply: bool) -> Result<Repaired, InspectError> {
        let (disk, clock) = (Arc::new(self.disk.clone()), Arc::new(self.clock.clone()));
        inspect::repair(disk, clock, &self.options.dirs, apply, &mut |_| {})
    }
}

/// Values by their offsets.
type Records = BTreeMap<i64, Vec<u8>>;

/// Offsets that can be read, with their values, and the gaps, of a partition.
fn read(partition: &Partition) -> (Records, Vec<(i64, i64)>) {
    let (mut records, mut gaps) = (BTreeMap::new(), Vec::new());
    let positions = partition.positions();
    let mut next = positions.log_start;
    while next < positions.high_watermark {
        match partition.read(next, 1 << 20, ReadLimit::HighWatermark) {
            Ok(found) => {
                assert!(found.next > next, "{partition:?} stands still at {next}");
                for bytes in &found.batches {
                    for record in batch::records(bytes).expect("whole") {
                        let record = record.expect("whole");
                        records.insert(record.offset, text_of(&record));
                    }
                }
                next = found.next;
            }
            Err(ReadError::Damaged { first, next_good, .. }) => {
                let good = next_good.expect("there is a way on");
                assert!(first == next && good > next, "{first} {good} at {next}");
                gaps.push((first.get(), good.get()));
                next = good;
            }
            Err(other) => panic!("{other}"),
        }
    }
    (records, gaps)
}

fn partitions(sim: &Sim) -> BTreeMap<String, Arc<Partition>> {
    let topics = sim.log().topics();
    let all = topics.iter().flat_map(|topic| topic.partitions());
    all.map(|p| (format!("{}-{}", p.topic(), p.id().get()), Arc::clone(p))).collect()
}

/// Everything, quarantine and lock left aside.
fn contents(disk: &FakeDisk) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<_, _> = disk
        .files()
        .into_iter()
        .map(|path| (path.clone(), disk.contents(&path).expect("listed")))
        .collect();
    files.retain(|path, _| !path.ends_with(".lock") && !path.contains("/quarantine/"));
    files
}

/// One way in which a directory is damaged.
struct Damage {
    name: &'static str,
    /// `None` removes the file.
    change: fn(Vec<u8>) -> Option<Vec<u8>>,
    files: fn(&FakeDisk) -> Vec<String>,
    /// No record is lost by it.
    harmless: bool,
}

fn logs(disk: &FakeDisk) -> Vec<String> {
    files(disk, "/sensors-0").into_iter().filter(|f| f.ends_with(".log")).collect()
}

fn sealed(disk: &FakeDisk) -> Vec<String> {
    vec![logs(disk).remove(1)]
}

fn first(disk: &FakeDisk) -> Vec<String> {
    vec![logs(disk).remove(0)]
}

fn last(disk: &FakeDisk) -> Vec<String> {
    vec![logs(disk).pop().expect("active")]
}

fn catalogs(_disk: &FakeDisk) -> Vec<String> {
    vec!["/data/catalog.a".to_owned(), "/data/catalog.b".to_owned()]
}

fn superblock(_disk: &FakeDisk) -> Vec<String> {
    vec!["/data/superblock".to_owned()]
}

fn flipped(at: usize) -> impl Fn(Vec<u8>) -> Option<Vec<u8>> {
    move |mut bytes| {
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 0x20;
        Some(bytes)
    }
}

fn short(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    bytes.truncate(bytes.len() - 10);
    Some(bytes)
}

const fn damage(
    name: &'static str,
    change: fn(Vec<u8>) -> Option<Vec<u8>>,
    files: fn(&FakeDisk) -> Vec<String>,
) -> Damage {
    Damage { name, change, files, harmless: false }
}

const fn harmless(damage: Damage) -> Damage {
    Damage { harmless: true, ..damage }
}

const DAMAGES: [Damage; 15] = [
    damage("a bit in a sealed segment", |b| flipped(2_000)(b), sealed),
    damage("the first batch", |b| flipped(70)(b), first),
    damage("a base offset", |b| flipped(6)(b), sealed),
    damage("a missing segment", |_| None, sealed),
    damage("the first segment is missing", |_| None, first),
    damage("a segment of zeros", |b| Some(vec![0; b.len()]), sealed),
    damage("the last segment is short", short, last),
    damage("the last segment is missing", |_| None, last),
    harmless(damage("a leader epoch", |b| flipped(15)(b), sealed)),
    harmless(damage("the superblock", |b| flipped(30)(b), superblock)),
    harmless(damage("both catalogs", |b| flipped(60)(b), catalogs)),
    harmless(damage("both catalogs are missing", |_| None, catalogs)),
    harmless(damage(
        "superblock and catalogs",
        |b| flipped(41)(b),
        |d| [superblock(d), catalogs(d)].concat(),
    )),
    // The ring still has everything that the segments had.
    harmless(damage(
        "catalogs and a sealed segment",
        |b| flipped(200)(b),
        |d| [catalogs(d), sealed(d)].concat(),
    )),
    harmless(damage("catalogs and the last segment", short_or_none, |d| {
        [catalogs(d), last(d)].concat()
    })),
];

/// Catalogs go, a segment is cut short.
fn short_or_none(bytes: Vec<u8>) -> Option<Vec<u8>> {
    if bytes.starts_with(b"HWCATALG") { None } else { short(bytes) }
}

fn damaged(whole: &Sim, damage: &Damage) -> Sim {
    let sim = whole.on(whole.disk.after_kill());
    for path in (damage.files)(&sim.disk) {
        match (damage.change)(sim.disk.contents(&path).expect("there")) {
            Some(bytes) => sim.disk.plant(&path, &bytes),
            None => {
                let disk: &dyn headwater_log::disk::Disk = &sim.disk;
                disk.remove_file(path.as_ref()).expect("removed");
                let folder = std::path::Path::new(&path).parent().expect("a folder");
                disk.sync_dir(folder).expect("synced");
            }
        }
    }
    sim
}

/// Opens what was repaired: whole but for the gaps, which are loud, and growing behind them.
fn check(whole: &BTreeMap<String, Records>, mut sim: Sim, name: &str) -> usize {
    sim.open().unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut lost = 0;
    let there = partitions(&sim);
    for (id, before) in whole {
        let Some(partition) = there.get(id) else {
            assert!(before.is_empty(), "{name}: {id} is gone");
            continue;
        };
        let (records, gaps) = read(partition);
        for (offset, value) in before {
            let in_a_gap = gaps.iter().any(|(first, end)| (*first..*end).contains(offset));
            assert_eq!(records.contains_key(offset), !in_a_gap, "{name}: {id} offset {offset}");
            lost += usize::from(in_a_gap);
            assert!(in_a_gap || records[offset] == *value, "{name}: {id} offset {offset}");
        }
        assert_eq!(partition.positions().log_end.get(), before.len() as i64, "{name}: {id}");
    }
    for topic in ["sensors", "states"] {
        sim.model.topics.get_mut(topic).expect("known").partitions.clear();
        let partition = &partitions(&sim)[&format!("{topic}-0")];
        let end = partition.positions().log_end;
        let record = headwater_log::record::RecordParts {
            timestamp_ms: 1,
            key: None,
            value: Some(b"new"),
            headers: headwater_log::record::Headers::EMPTY,
        };
        let appended = partition.append(&[record]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(appended.base.offset, end, "{name}");
        while sim.log().step_commit() {}
        assert_eq!(read(partition).0[&end.get()], b"new", "{name}");
    }
    sim.log().step_close().expect("closed");
    let sim = sim.on(sim.disk.after_kill());
    let verdict = sim.verify().expect("judged");
    assert!(verdict.is_well(), "{name}: {:#?}", verdict.findings);
    lost
}

fn whole() -> (Sim, BTreeMap<String, Records>) {
    let sim = closed();
    let mut opened = sim.on(sim.disk.after_kill());
    opened.open().expect("well");
    let records = partitions(&opened).into_iter().map(|(id, p)| (id, read(&p).0)).collect();
    (sim, records)
}

#[test]
fn what_is_whole_is_served_again_and_the_rest_is_a_loud_gap() {
    let (sim, records) = whole();
    assert!(sim.repair(true).expect("nothing to do").done.is_empty());
    for damage in &DAMAGES {
        let name = damage.name;
        let sim = damaged(&sim, damage);
        let before = contents(&sim.disk);
        let dry = sim.repair(false).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(contents(&sim.disk), before, "{name}: a dry run changes nothing");
        assert!(!dry.done.is_empty() && dry.after.is_well(), "{name}: {:#?}", dry.after.findings);
        let wet = sim.repair(true).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(wet.done, dry.done, "{name}: what was said is what is done");
        assert!(wet.after.is_well(), "{name}: {:#?}", wet.after.findings);
        let again = sim.repair(true).expect("again");
        assert!(again.done.is_empty(), "{name}: {:#?}", again.done);
        // What was damaged is all there, somewhere.
        let kept: Vec<Vec<u8>> =
            sim.disk.files().iter().filter_map(|path| sim.disk.contents(path)).collect();
        for file in (damage.files)(&sim.disk) {
            if let Some(bytes) = before.get(&file) {
                assert!(kept.contains(bytes), "{name}: {file} is in quarantine");
            }
        }
        let lost = check(&records, sim.on(sim.disk.after_kill()), name);
        assert!(lost <= 30, "{name}: {lost} records are more than a segment has");
        assert_eq!(lost == 0, damage.harmless, "{name}: {lost}");
    }
}

#[test]
fn a_power_cut_in_the_middle_of_a_repair_leaves_what_can_be_repaired() {
    let (sim, records) = whole();
    for damage in &DAMAGES {
        let base = damaged(&sim, damage);
        let whole_run = base.on(base.disk.after_kill());
        whole_run.repair(true).expect("repaired");
        let expected = check(&records, whole_run.on(whole_run.disk.after_kill()), damage.name);
        let (from, to) = (base.disk.changes(), whole_run.disk.changes());
        for change in from..to {
            for outcome in [Outcome::ALL[0], Outcome::ALL[(change % 5) as usize]] {
                let cut = base.on(base.disk.after_kill());
                cut.disk.stop_after(change);
                assert!(cut.repair(true).is_err(), "{}: stopped at {change}", damage.name);
                let left = cut.on(cut.disk.after_crash(outcome, change));
                let name = format!("{}, cut after change {change}, {outcome:?}", damage.name);
                let repaired = left.repair(true).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(repaired.after.is_well(), "{name}: {:#?}", repaired.after.findings);
                let lost = check(&records, left.on(left.disk.after_kill()), &name);
                assert_eq!(lost, expected, "{name}");
            }
        }
    }
}

#[test]
fn damage_beyond_repair_is_said_and_nothing_is_touched() {
    let sim = closed();
    for name in files(&sim.disk, "/data/") {
        let hopeless = ["superblock", "catalog", ".journal"];
        if hopeless.iter().any(|part| name.contains(part)) {
            sim.disk.plant(&name, b"nothing");
        }
    }
    let before = contents(&sim.disk);
    assert!(matches!(sim.repair(true), Err(InspectError::BeyondRepair { .. })));
    assert_eq!(contents(&sim.disk), before);
}

#[test]
fn an_index_that_lies_goes_aside_and_is_made_again() {
    let mut sim = Sim::new(5);
    sim.open().expect("new");
    let settings = crate::sim::settings(Durability::Fsync);
    let settings = TopicSettings { segment_bytes: 32 << 10, ..settings };
    for topic in ["sensors", "states"] {
        sim.step(&Step::Create { topic, partitions: 1, settings: settings.clone() });
        let append = Step::Append { topic, partition: 0, records: 2, bytes: 300 };
        for _ in 0..80 {
            sim.run(&[append.clone(), Step::Commit]);
        }
    }
    let records = partitions(&sim).into_iter().map(|(id, p)| (id, read(&p).0)).collect();
    sim.log().step_close().expect("closed");
    let sim = sim.on(sim.disk.after_kill());
    let path = files(&sim.disk, ".index").into_iter().next().expect("sealed segments have one");
    let mut bytes = sim.disk.contents(&path).expect("there");
    assert!(bytes.len() > 8, "more than one entry: {}", bytes.len());
    bytes[3] = bytes[3].wrapping_add(1);
    sim.disk.plant(&path, &bytes);
    assert!(!sim.verify().expect("judged").is_well());
    let repaired = sim.repair(true).expect("repaired");
    assert!(repaired.after.is_well(), "{:#?}", repaired.after.findings);
    assert_eq!(check(&records, sim.on(sim.disk.after_kill()), "index"), 0);
}

#[test]
fn offsets_lost_with_the_journal_are_a_gap_and_the_partition_takes_records_again() {
    let mut sim = Sim::new(11);
    sim.open().expect("new");
    let settings = crate::sim::settings(Durability::Fsync);
    sim.step(&Step::Create { topic: "sensors", partitions: 1, settings });
    let append = Step::Append { topic: "sensors", partition: 0, records: 2, bytes: 300 };
    for _ in 0..3 {
        sim.run(&[append.clone(), Step::Commit]);
    }
    sim.step(&Step::Checkpoint);
    let checkpointed: BTreeMap<_, _> = contents(&sim.disk);
    for _ in 0..5 {
        sim.run(&[append.clone(), Step::Commit]);
    }
    let sim = sim.on(sim.disk.after_kill());
    let journal = files(&sim.disk, ".journal").remove(0);
    let mut bytes = sim.disk.contents(&journal).expect("there");
    let cycles: Vec<usize> =
        (4096..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"HWCY")).collect();
    bytes[cycles[cycles.len() - 3] + 70] ^= 1;
    sim.disk.plant(&journal, &bytes);
    for path in files(&sim.disk, ".log") {
        sim.disk.plant(&path, checkpointed.get(&path).map_or(&[][..], |b| b));
    }
    assert!(!sim.verify().expect("judged").is_well());
    let repaired = sim.repair(true).expect("repaired");
    assert!(repaired.after.is_well(), "{:#?}", repaired.after.findings);
    assert!(!repaired.quarantine.is_empty(), "the ring's files are kept");
    let mut sim = sim.on(sim.disk.after_kill());
    sim.open().expect("well");
    let partition = &partitions(&sim)["sensors-0"];
    let (records, gaps) = read(partition);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let lost: i64 = gaps.iter().map(|(first, end)| end - first).sum();
    assert_eq!(records.len() as i64 + lost, 16);
    let record = headwater_log::record::RecordParts {
        timestamp_ms: 1,
        key: None,
        value: Some(b"new"),
        headers: headwater_log::record::Headers::EMPTY,
    };
    let appended = partition.append(&[record]).expect("it takes records again");
    assert_eq!(appended.base.offset, Offset::new(16).expect("legal"));
}
