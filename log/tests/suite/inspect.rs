//! `verify` at the end of every life: what a crash leaves is never damage, and what is damaged is always found.

use crate::sim::{Sim, settings};
use crate::step::Step;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::inspect::{self, InspectError, Severity, Verdict};
use headwater_log::metadata::Durability;
use std::sync::Arc;

impl Sim {
    /// Verifies the directory as it lies on the disk now.
    pub(crate) fn verify(&self) -> Result<Verdict, InspectError> {
        // Another disk with the same contents: reading must not use up the faults that were asked for.
        let disk = self.disk.after_kill();
        let before = disk.changes();
        let verdict = inspect::verify(
            Arc::new(disk.clone()),
            Arc::new(self.clock.clone()),
            &self.options.dirs,
            &mut |progress| assert!(progress.done_bytes <= progress.total_bytes),
        );
        assert_eq!(disk.changes(), before, "verify changes nothing: {:?}", disk.trace());
        verdict
    }

    /// A crash alone leaves notices at most.
    pub(crate) fn verify_is_well(&self) {
        match self.verify() {
            Ok(verdict) => {
                assert!(verdict.is_well() || self.faulty, "{:#?}", verdict.findings);
            }
            Err(InspectError::NotADirectory { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// A directory with several segments, closed in order.
pub(crate) fn closed() -> Sim {
    let mut sim = Sim::new(5);
    sim.open().expect("new");
    for (topic, durability) in [("sensors", Durability::Fsync), ("states", Durability::Memory)] {
        sim.step(&Step::Create { topic, partitions: 2, settings: settings(durability) });
        let append = Step::Append { topic, partition: 0, records: 2, bytes: 300 };
        for _ in 0..40 {
            sim.run(&[append.clone(), Step::Commit]);
        }
    }
    sim.log().step_close().expect("closed");
    sim.on(sim.disk.after_kill())
}

pub(crate) fn files(disk: &FakeDisk, part: &str) -> Vec<String> {
    disk.files().into_iter().filter(|path| path.contains(part)).collect()
}

#[test]
fn a_directory_in_use_is_not_judged() {
    let sim = closed();
    let mut running = sim.on(sim.disk.after_kill());
    running.open().expect("well");
    let verdict = inspect::verify(
        Arc::new(running.disk.clone()),
        Arc::new(running.clock.clone()),
        &sim.options.dirs,
        &mut |_| {},
    );
    assert!(matches!(verdict, Err(InspectError::InUse { .. })), "{verdict:?}");
    running.verify_is_well();
    let nowhere = inspect::verify(
        Arc::new(sim.disk.clone()),
        Arc::new(sim.clock.clone()),
        &["/data/topics".into()],
        &mut |_| {},
    );
    assert!(matches!(nowhere, Err(InspectError::NotADirectory { .. })), "{nowhere:?}");
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_is_found_at_its_batch() {
    let sim = closed();
    let well = sim.verify().expect("judged");
    assert!(well.is_well() && well.findings.is_empty(), "{:#?}", well.findings);
    assert!(well.figures.segments >= 6 && well.figures.records == 160, "{:?}", well.figures);
    for path in [&files(&sim.disk, "/sensors-0")[1], &files(&sim.disk, "/states-0")[1]] {
        assert!(path.ends_with(".log"), "{path}");
        let bytes = sim.disk.contents(path).expect("listed");
        for at in (0..bytes.len()).step_by(37) {
            // The leader epoch is outside the CRC: a larger one cannot be told from a right one.
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let damaged = sim.on(sim.disk.after_kill());
            damaged.disk.plant(path, &bad);
            let verdict = damaged.verify().expect("judged");
            let epoch = batches(&bytes).any(|start| (start + 12..start + 16).contains(&at));
            assert!(!verdict.is_well() || epoch, "byte {at} of {path}");
            let Some(found) = verdict.findings.first() else { continue };
            assert_eq!(found.severity, Severity::Damage);
            assert!(path.ends_with(found.file.to_str().expect("UTF-8")), "{found:?}");
            let start = batches(&bytes).take_while(|start| *start <= at).last().expect("one");
            if !epoch {
                assert_eq!(found.byte, Some(start as u64), "byte {at}: {found:?}");
                let lost = found.lost.as_ref().expect("offsets are named");
                assert_eq!(lost.end, Some(lost.first + 2), "byte {at}: {found:?}");
            }
        }
    }
}

fn batches(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let at = next.filter(|at| *at < bytes.len())?;
        let size = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().expect("four"));
        next = Some(at + 12 + size as usize);
        Some(at)
    })
}

#[test]
fn missing_and_short_files_are_found_and_hints_are_not_damage() {
    let sim = closed();
    let logs = files(&sim.disk, ".log");
    for path in &logs {
        let bytes = sim.disk.contents(path).expect("listed");
        let short = sim.on(sim.disk.after_kill());
        short.disk.plant(path, &bytes[..bytes.len() - 1]);
        let verdict = short.verify().expect("judged");
        assert!(!verdict.is_well(), "{path} is short");
    }
    for path in files(&sim.disk, ".index") {
        let bytes = sim.disk.contents(&path).expect("listed");
        let torn = sim.on(sim.disk.after_kill());
        torn.disk.plant(&path, &vec![0; bytes.len()]);
        let verdict = torn.verify().expect("judged");
        assert!(verdict.is_well() && verdict.findings.len() == 1, "{:#?}", verdict.findings);
        let mut wrong = bytes.clone();
        wrong[3] += 1;
        torn.disk.plant(&path, &wrong);
        let verdict = torn.verify().expect("judged");
        assert_eq!(verdict.findings.len(), 1, "an index that names another batch: {path}");
        // The last entry is what its readers check.
        assert_eq!(verdict.is_well(), bytes.len() == 8, "{path}");
    }
}

#[test]
fn a_time_index_that_lies_is_a_notice() {
    let sim = closed();
    let path = files(&sim.disk, ".timeindex").remove(0);
    let bytes = sim.disk.contents(&path).expect("listed");
    for at in [0, bytes.len() - 12] {
        let wrong = sim.on(sim.disk.after_kill());
        let mut bad = bytes.clone();
        bad[at] ^= 0x40;
        wrong.disk.plant(&path, &bad);
        let verdict = wrong.verify().expect("judged");
        assert!(verdict.is_well() && verdict.findings.len() == 1, "{:#?}", verdict.findings);
        assert!(path.ends_with(verdict.findings[0].file.to_str().expect("UTF-8")));
    }
}

#[test]
fn catalogs_and_the_superblock_are_judged() {
    let sim = closed();
    for name in ["/data/catalog.a", "/data/catalog.b"] {
        let one = sim.on(sim.disk.after_kill());
        let mut bytes = one.disk.contents(name).expect("there");
        bytes[60] ^= 1;
        one.disk.plant(name, &bytes);
        let verdict = one.verify().expect("judged");
        assert!(!verdict.findings.is_empty());
        one.disk.plant("/data/catalog.a", b"HWCATALG");
        one.disk.plant("/data/catalog.b", b"");
        assert_eq!(one.verify().expect("judged").damage(), 2);
    }
    let none = sim.on(sim.disk.after_kill());
    none.disk.plant("/data/superblock", b"nothing");
    assert!(!none.verify().expect("judged").is_well());
}
