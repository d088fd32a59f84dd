//! Bytes that are not what they were: newer versions, rot in segments and in the journal, torn tails.

use crate::sim::{End, Sim, read_all, settings};
use crate::step::Step;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::metadata::Durability;
use headwater_log::{Offset, OpenError, ReadError, ReadLimit};
use std::collections::BTreeMap;

/// A directory with some records below and some above the last checkpoint, as a killed process leaves it.
fn left_behind(below: usize, above: usize) -> Sim {
    let mut sim = Sim::new(3);
    sim.open().expect("new");
    sim.step(&Step::Create {
        topic: "sensors",
        partitions: 1,
        settings: settings(Durability::Fsync),
    });
    let append = Step::Append { topic: "sensors", partition: 0, records: 2, bytes: 300 };
    for _ in 0..below {
        sim.run(&[append.clone(), Step::Commit]);
    }
    sim.step(&Step::Checkpoint);
    for _ in 0..above {
        sim.run(&[append.clone(), Step::Commit]);
    }
    sim.on(sim.disk.after_kill())
}

fn contents(disk: &FakeDisk) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<_, _> = disk
        .files()
        .into_iter()
        .map(|path| (path.clone(), disk.contents(&path).expect("it is listed")))
        .collect();
    // Taking the lock is not a change of the directory.
    files.retain(|path, _| !path.ends_with(".lock"));
    files
}

fn files(disk: &FakeDisk, part: &str) -> Vec<String> {
    disk.files().into_iter().filter(|path| path.contains(part)).collect()
}

fn flip(disk: &FakeDisk, path: &str, byte: usize) {
    let mut bytes = disk.contents(path).expect("the file is there");
    bytes[byte] ^= 0x10;
    disk.plant(path, &bytes);
}

#[test]
fn a_directory_from_the_future_is_refused_and_left_alone() {
    for part in ["superblock", "catalog", ".journal"] {
        let sim = left_behind(3, 3);
        let named = files(&sim.disk, part);
        assert!(!named.is_empty(), "{part}: {:?}", sim.disk.files());
        for path in named {
            let mut sim = sim.on(sim.disk.after_kill());
            let mut bytes = sim.disk.contents(&path).expect("listed");
            // All three have an eight-byte magic number, then their version.
            bytes[8..12].copy_from_slice(&99u32.to_le_bytes());
            sim.disk.plant(&path, &bytes);
            let before = contents(&sim.disk);
            match sim.open() {
                Err(OpenError::FromTheFuture { detail, .. }) => {
                    assert!(detail.contains("99"), "{detail}");
                }
                other => panic!("{path}: {other:?}"),
            }
            assert_eq!(contents(&sim.disk), before, "{path}: nothing was changed");
        }
    }
}

/// The last cycle of a killed log, changed and with CRCs that fit.
fn last_cycle_changed(sim: &Sim, change: impl Fn(&mut [u8])) -> Sim {
    let sim = sim.on(sim.disk.after_kill());
    let path = files(&sim.disk, ".journal")
        .into_iter()
        .find(|path| {
            sim.disk.contents(path).is_some_and(|bytes| bytes[4096..].starts_with(b"HWCY"))
        })
        .expect("one is in use");
    let mut bytes = sim.disk.contents(&path).expect("listed");
    let last = (4096..bytes.len())
        .step_by(4096)
        .rfind(|at| bytes[*at..].starts_with(b"HWCY"))
        .expect("there are cycles");
    let cycle = &mut bytes[last..];
    change(cycle);
    let length = u32::from_le_bytes([cycle[52], cycle[53], cycle[54], cycle[55]]) as usize;
    let crc = crc_fast::crc32_iscsi(&cycle[64..64 + length]);
    cycle[56..60].copy_from_slice(&crc.to_le_bytes());
    let crc = crc_fast::crc32_iscsi(&cycle[..60]);
    cycle[60..64].copy_from_slice(&crc.to_le_bytes());
    sim.disk.plant(&path, &bytes);
    sim
}

#[test]
fn a_newer_cycle_and_a_newer_frame_are_refused_and_left_alone() {
    let life = left_behind(3, 3);
    let version: fn(&mut [u8]) = |cycle| cycle[4] = 9;
    let kind: fn(&mut [u8]) = |cycle| cycle[64] = 77;
    for (change, said) in [(version, "version 9"), (kind, "frame of kind 77")] {
        let mut sim = last_cycle_changed(&life, change);
        let before = contents(&sim.disk);
        match sim.open() {
            Err(OpenError::FromTheFuture { detail, .. }) => {
                assert!(detail.contains(said), "{detail}");
            }
            other => panic!("{said}: {other:?}"),
        }
        assert_eq!(contents(&sim.disk), before, "{said}: nothing was changed");
    }
}

#[test]
fn rot_in_a_segment_is_reported_exactly_and_the_rest_is_served() {
    let mut sim = left_behind(30, 2);
    let segments = files(&sim.disk, ".log");
    assert!(segments.len() >= 2, "sealed ones and an active one: {segments:?}");
    let path = &segments[0];
    let bytes = sim.disk.contents(path).expect("listed");
    let wanted = sim.model.topics["sensors"].partitions[0].history.clone();
    // Somewhere inside the third batch, behind its header.
    let size =
        |at: usize| 12 + u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    let third = size(0) + size(size(0));
    flip(&sim.disk, path, third + 80);
    let rotten = sim.disk.contents(path);
    sim.open().expect("damage does not keep the log from opening");
    let partition = sim.partition("sensors", 0).expect("there");
    let read =
        |from: i64| partition.read(Offset::new(from).unwrap(), 1 << 20, ReadLimit::HighWatermark);
    let good = read(0).expect("what is before the damage");
    assert_eq!(good.next.get(), 4, "two batches of two");
    let next = match read(4) {
        Err(ReadError::Damaged { file, byte, first, next_good, .. }) => {
            assert!(path.ends_with(&file) || file.ends_with(path.as_str()), "{file} is {path}");
            assert_eq!(byte, third as u64);
            assert_eq!(first.get(), 4);
            next_good.expect("the batch behind it is whole")
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(next.get(), 6);
    let rest = read(6).expect("what is behind the damage");
    assert!(rest.next.get() > 6 && !rest.batches.is_empty());
    assert_eq!(partition.positions().log_end.get(), wanted.len() as i64);
    sim.run(&[
        Step::Append { topic: "sensors", partition: 0, records: 1, bytes: 10 },
        Step::Commit,
        Step::Checkpoint,
    ]);
    assert_eq!(partition.positions().high_watermark.get(), wanted.len() as i64 + 1);
    assert_eq!(sim.disk.contents(path), rotten, "the evidence is kept");
    assert!(matches!(read(5), Err(ReadError::Damaged { .. })), "nothing of it is served");
}

#[test]
fn rot_in_the_last_segment_below_the_checkpoint_stays_local() {
    let mut sim = left_behind(4, 2);
    let path = files(&sim.disk, ".log").pop().expect("a segment");
    flip(&sim.disk, &path, 80);
    sim.open().expect("damage does not keep the log from opening");
    let partition = sim.partition("sensors", 0).expect("there");
    assert_eq!(partition.positions().log_end.get(), 12);
    let read =
        |from: i64| partition.read(Offset::new(from).unwrap(), 1 << 20, ReadLimit::HighWatermark);
    assert!(matches!(read(0), Err(ReadError::Damaged { byte: 0, .. })));
    assert_eq!(read(2).expect("the rest").next.get(), 12);
}

/// The journal's bytes before and after the last commit: where it was written.
fn last_cycle() -> (Sim, Sim, String, usize, usize) {
    let before = left_behind(3, 3);
    let mut sim = before.on(before.disk.after_kill());
    // The same life once more, and one commit further.
    sim = {
        let longer = left_behind(3, 4);
        sim.model = longer.model.clone();
        sim.on(longer.disk.after_kill())
    };
    for path in files(&sim.disk, ".journal") {
        let old = before.disk.contents(&path).unwrap_or_default();
        let new = sim.disk.contents(&path).expect("listed");
        let differ: Vec<usize> =
            (0..new.len()).filter(|at| old.get(*at) != Some(&new[*at])).collect();
        if let (Some(first), Some(last)) = (differ.first(), differ.last()) {
            return (before, sim, path, first / 4096 * 4096, last + 1);
        }
    }
    panic!("the last commit wrote no journal");
}

#[test]
fn a_tail_torn_at_every_byte_is_cut_whole() {
    let (before, after, path, from, to) = last_cycle();
    let new = after.disk.contents(&path).expect("listed");
    let old = before.disk.contents(&path).expect("the same file");
    let mut ends = [0, 0];
    for cut in from..=to {
        // The journal up to `cut`, old bytes behind; segments as they were before the commit, and as after.
        for disk in [&before.disk, &after.disk] {
            let mut sim = after.on(disk.after_kill());
            let mut torn = old.clone();
            torn[..cut].copy_from_slice(&new[..cut]);
            sim.disk.plant(&path, &torn);
            let part = sim.part("sensors", 0);
            let acked = part.end - 2;
            (part.acked_end, part.shown_end) = (acked, acked);
            sim.open().expect("a torn tail is no damage");
            let end = sim.partition("sensors", 0).expect("there").positions().log_end.get();
            assert!(end == acked || end == acked + 2, "cut at {cut}: {end}");
            assert!(cut < to || end == acked + 2, "a whole cycle counts");
            ends[usize::from(end > acked)] += 1;
            if cut % 64 == 0 || cut > to - 8 {
                sim.check(End::Power);
            }
        }
    }
    assert!(ends[0] > 600 && ends[1] > 0, "{ends:?}");
}

#[test]
fn a_rotten_cycle_below_the_synced_mark_is_never_lost_in_silence() {
    // Cycle by cycle above the checkpoint; the last is a torn tail, all before it were acknowledged.
    let whole = left_behind(3, 5);
    let path = files(&whole.disk, ".journal").remove(0);
    let bytes = whole.disk.contents(&path).expect("listed");
    let cycles: Vec<usize> =
        (4096..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"HWCY")).collect();
    assert!(cycles.len() >= 5, "{cycles:?}");
    let acked = whole.model.topics["sensors"].partitions[0].acked_end;
    for &at in &cycles[cycles.len() - 5..cycles.len() - 1] {
        for byte in [at + 3, at + 40, at + 70] {
            // Segments intact: all is salvaged or the loss is said. Segments behind: the loss is said.
            for empty in [false, true] {
                let mut sim = whole.on(whole.disk.after_kill());
                flip(&sim.disk, &path, byte);
                if empty {
                    let checkpointed = left_behind(3, 0);
                    for path in files(&sim.disk, ".log") {
                        let old = checkpointed.disk.contents(&path).unwrap_or_default();
                        sim.disk.plant(&path, &old);
                    }
                }
                match sim.open() {
                    Ok(recovery) => {
                        let partition = sim.partition("sensors", 0).expect("there");
                        let found = if recovery.findings.is_empty() {
                            read_all(&partition).len() as i64
                        } else {
                            acked
                        };
                        assert_eq!(found, acked, "cycle at {at}, byte {byte}: lost in silence");
                        assert!(!empty || !recovery.findings.is_empty(), "nothing to salvage from");
                    }
                    Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{error}"),
                }
            }
        }
    }
}

/// A directory with a rotten third batch (offsets 4 and 5) below the checkpoint, and that segment as it was.
fn rotten() -> (Sim, String, Vec<u8>) {
    let sim = left_behind(30, 2);
    let path = files(&sim.disk, ".log").remove(0);
    let bytes = sim.disk.contents(&path).expect("listed");
    let size = |at: usize| {
        12 + u32::from_be_bytes(bytes[at + 8..at + 12].try_into().expect("four bytes")) as usize
    };
    flip(&sim.disk, &path, size(0) + size(size(0)) + 80);
    (sim, path, bytes)
}

#[test]
fn damage_that_was_met_is_one_place_and_known_after_a_restart_until_a_repair() {
    let (mut sim, path, bytes) = rotten();
    sim.open().expect("opens");
    let damaged = |sim: &Sim, from: i64| {
        let partition = sim.partition("sensors", 0).expect("there");
        let read = partition.read(Offset::new(from).unwrap(), 1 << 20, ReadLimit::HighWatermark);
        matches!(read, Err(ReadError::Damaged { .. }))
    };
    let known = |sim: &Sim| sim.log().stats().damage;
    assert_eq!(known(&sim), [""; 0]);
    // From the middle first, then from its beginning, and again.
    for from in [5, 4, 5, 4] {
        assert!(damaged(&sim, from));
        assert_eq!(known(&sim).len(), 1, "{:?}", known(&sim));
    }
    sim.step(&Step::Checkpoint);
    let mut sim = sim.on(sim.disk.after_kill());
    sim.open().expect("opens");
    assert_eq!(known(&sim).len(), 1);
    assert!(known(&sim)[0].contains("sensors-0: offsets 4 to 5"), "{:?}", known(&sim));
    assert!(damaged(&sim, 4) && damaged(&sim, 5));
    assert_eq!(known(&sim).len(), 1, "met again after the restart");
    sim.log().step_close().expect("closed");

    // The bytes are what they were: only the memory of it is left, and a repair takes that.
    let whole = sim.on(sim.disk.after_kill());
    whole.disk.plant(&path, &bytes);
    let verdict = whole.verify().expect("judged");
    assert!(verdict.is_well() && verdict.findings.len() == 1, "{:#?}", verdict.findings);
    assert_eq!(whole.repair(true).expect("repaired").done.len(), 2);
    assert!(whole.verify().expect("judged").findings.is_empty());

    // The bytes are still rotten: a repair finds them lost for good.
    let mut sim = sim.on(sim.disk.after_kill());
    assert!(sim.repair(true).expect("repaired").after.is_well());
    sim.open().expect("opens");
    assert_eq!(known(&sim), [""; 0], "it is mended");
    assert!(damaged(&sim, 4), "and a gap for ever");
    assert_eq!(known(&sim), [""; 0]);
}

#[test]
fn damage_is_forgotten_when_the_log_start_has_passed_it() {
    let (mut sim, _, _) = rotten();
    sim.open().expect("opens");
    let partition = sim.partition("sensors", 0).expect("there");
    let read = partition.read(Offset::new(4).unwrap(), 1, ReadLimit::HighWatermark);
    assert!(read.is_err() && sim.log().stats().damage.len() == 1);
    let trim = Step::Trim { topic: "sensors", partition: 0, eighths: 1 };
    sim.run(&[trim, Step::Commit, Step::Checkpoint]);
    assert!(partition.positions().log_start.get() >= 6);
    assert_eq!(sim.log().stats().damage, [""; 0]);
    let mut sim = sim.on(sim.disk.after_kill());
    sim.open().expect("opens");
    assert_eq!(sim.log().stats().damage, [""; 0]);
}
