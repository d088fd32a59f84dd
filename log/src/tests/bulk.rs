//! What goes past the journal: when it counts, and what a crash, damage or a truncation makes of it.

use super::faults::{Rig, first};
use super::{append, settings, topic, values};
use crate::catalog::Catalog;
use crate::disk::fake::{Fault, Outcome};
use crate::metadata::TopicSettings;
use crate::superblock::Superblock;
use crate::{AckPoint, AppendError, Appended, Log, Loss, Partition, Settled};
use std::path::Path;
use std::sync::Arc;

fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.options.bulk_bytes = 8_000;
    rig
}

fn much(p: &Partition, name: &str) -> (Vec<String>, Appended) {
    let all: Vec<String> = (0..12).map(|i| format!("{name} {i} {}", "x".repeat(900))).collect();
    let last = all.iter().map(|value| append(p, value)).last().unwrap();
    (all, last)
}

fn commit(log: &Log) {
    while log.step_commit() {}
}

/// A partition that the catalog says may be written in bulk, and what is in it.
fn marked(log: &Log, settings: TopicSettings) -> (Arc<Partition>, Vec<String>) {
    let p = topic(log, "t", 1, settings)[0].clone();
    let (all, _) = much(&p, "first");
    commit(log);
    assert_eq!(log.stats().bulk_bytes, 0, "no catalog says yet that this may be");
    log.step_checkpoint().unwrap();
    (p, all)
}

fn log_file(rig: &Rig, base: u64) -> String {
    let end = format!("/{base:020}.log");
    rig.disk.files().into_iter().find(|f| f.contains("/t-0.") && f.ends_with(&end)).unwrap()
}

#[test]
fn much_is_written_once_and_counts_when_its_entry_is_synced() {
    let mut rig = rig();
    let (log, _) = rig.open();
    let (p, mut all) = marked(&log, settings());
    let before = log.stats();
    let (more, at) = much(&p, "bulk");
    assert!(log.step_commit(), "taken");
    append(&p, "while it is under way");
    for _ in 0..2 {
        assert_eq!(p.settled(AckPoint::Written, at.last), Settled::Waiting);
        assert_eq!(values(&p), all, "nothing is shown before its entry is synced");
        assert!(log.step_commit(), "what came meanwhile waits; then it is written");
    }
    assert_eq!(p.settled(AckPoint::Synced, at.last), Settled::Passed);
    let after = log.stats();
    assert!(after.bulk_bytes > 10_800);
    assert_eq!(after.journal_bytes - before.journal_bytes, 4096, "one cycle, with an extent");
    assert!(after.uncommitted_bytes < 200, "what came meanwhile");
    commit(&log);
    all.extend(more);
    all.push("while it is under way".to_owned());
    assert_eq!(values(&p), all);
    rig.crash();
    let (log, recovery) = rig.open();
    assert!(recovery.unclean && recovery.findings.is_empty(), "{recovery:?}");
    assert_eq!(values(&first(&log)), all);
}

#[test]
fn without_its_entry_an_extent_never_was() {
    let mut rig = rig();
    let (log, _) = rig.open();
    let (p, mut all) = marked(&log, settings());
    much(&p, "synced, and not journalled");
    assert!(log.step_commit() && log.step_commit());
    drop(log);
    rig.disk = rig.disk.after_kill();
    let written = rig.disk.contents(log_file(&rig, 0)).unwrap().len() as u64;
    let (log, recovery) = rig.open();
    assert!(recovery.unclean && recovery.findings.is_empty(), "{recovery:?}");
    let p = first(&log);
    assert_eq!(values(&p), all);
    let left = rig.disk.contents(log_file(&rig, 0)).unwrap().len() as u64;
    assert!(left == p.size_bytes() && left < written, "cut: {left} of {written} bytes");
    append(&p, "after");
    commit(&log);
    all.push("after".to_owned());
    rig.crash();
    assert_eq!(values(&first(&rig.open().0)), all);
}

#[test]
fn a_recovery_finds_extents_where_they_lie_whatever_time_it_is_and_however_often_it_ends() {
    // Segments end by size, and by age: a replay knows no time.
    for (segment_bytes, segment_ms) in [(16 << 10, 60_000), (64 << 10, 3_000)] {
        let settings =
            TopicSettings { batch_bytes_max: 3_000, segment_bytes, segment_ms, ..settings() };
        finds_extents(settings);
    }
}

fn finds_extents(settings: TopicSettings) {
    let mut rig = rig();
    let (log, _) = rig.open();
    let (p, mut all) = marked(&log, settings);
    for round in 0..4 {
        // Over the end of a segment, behind batches that only the journal has.
        append(&p, "between");
        commit(&log);
        all.push("between".to_owned());
        let (more, _) = much(&p, &format!("round {round}"));
        commit(&log);
        all.extend(more);
        rig.clock.advance_ms(2_000);
    }
    assert!(log.stats().bulk_bytes > 40_000);
    let segments =
        rig.disk.files().iter().filter(|f| f.contains("/t-0.") && f.ends_with(".log")).count();
    assert!(segments > 1);
    drop(log);
    rig.clock.advance_ms(60_000);
    rig.crash();
    let disk = rig.disk.clone();
    for stop in 0..200 {
        rig.disk = disk.after_kill();
        rig.disk.stop_after(rig.disk.changes() + stop);
        let ended = rig.try_open().is_ok();
        for outcome in Outcome::ALL {
            let mut again = self::rig();
            again.clock = Arc::clone(&rig.clock);
            again.disk = rig.disk.after_crash(outcome, stop);
            let (log, recovery) = again.open();
            assert!(recovery.findings.is_empty(), "{stop} {outcome:?} {recovery:?}");
            assert_eq!(values(&first(&log)), all, "{stop} {outcome:?}");
        }
        if ended {
            return;
        }
    }
    panic!("the recovery does not end");
}

#[test]
fn bytes_of_an_extent_that_rot_are_a_loud_loss() {
    let mut rig = rig();
    let (log, _) = rig.open();
    let (p, all) = marked(&log, settings_of_small_batches());
    let (more, _) = much(&p, "bulk");
    commit(&log);
    append(&p, "behind");
    commit(&log);
    rig.crash();
    let file = log_file(&rig, 0);
    let mut bytes = rig.disk.contents(&file).unwrap();
    let at = bytes.windows(6).position(|w| w == b"bulk 8").unwrap();
    bytes[at] ^= 1;
    rig.disk.plant(&file, &bytes);
    let (log, recovery) = rig.open();
    let p = first(&log);
    let lost: Vec<_> = recovery.findings.iter().filter(|f| f.contains("are lost")).collect();
    let [lost] = lost[..] else { panic!("{recovery:?}") };
    let from = all.len() + 8 - 8 % 3;
    assert!(lost.contains(&format!("offsets {from} to {} are lost", all.len() + 11)), "{lost}");
    assert!(matches!(
        p.append(&[crate::record::RecordParts {
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: crate::record::Headers::EMPTY,
        }]),
        Err(AppendError::Offline(_))
    ));
    let served = p.read(crate::Offset::ZERO, 1 << 20, crate::ReadLimit::HighWatermark).unwrap();
    let count: usize =
        served.batches.iter().map(|b| crate::batch::records(b).unwrap().count()).sum();
    assert!(count >= from, "{count} of {from} are served");
    assert_eq!(p.positions().log_end.get() as usize, all.len() + more.len() + 1);
}

fn settings_of_small_batches() -> TopicSettings {
    TopicSettings { batch_bytes_max: 3_000, ..settings() }
}

/// Crash point 16: what the catalog has is not looked for where the journal says it was.
#[test]
fn an_extent_that_the_catalog_has_is_passed_over() {
    let mut rig = rig();
    let (log, _) = rig.open();
    let (p, _) = marked(&log, settings());
    let dir = Path::new("/data");
    let id = Superblock::read(&rig.disk, dir).unwrap().unwrap().directory_id;
    let mark = Catalog::read(&rig.disk, dir, &id).unwrap().unwrap().mark;
    much(&p, "bulk");
    commit(&log);
    log.step_checkpoint().unwrap();
    drop(log);
    rig.crash();
    // A checkpoint that captured its cycle before the extent's, and described the partition after it; then its file became
    // another.
    let mut catalog = Catalog::read(&rig.disk, dir, &id).unwrap().unwrap();
    assert!(catalog.partitions.iter().any(|p| p.bulk));
    catalog.mark = mark;
    catalog.sequence += 1;
    catalog.write(&rig.disk, dir, &id).unwrap();
    let file = log_file(&rig, 0);
    let length = rig.disk.contents(&file).unwrap().len();
    rig.disk.plant(&file, &vec![9; length]);
    let (_, recovery) = rig.open();
    assert!(recovery.cycles_replayed >= 1 && recovery.findings.is_empty(), "{recovery:?}");
}

#[test]
fn a_truncation_takes_what_is_on_its_way() {
    for steps in 0..3 {
        let mut rig = rig();
        let (log, _) = rig.open();
        let (p, all) = marked(&log, settings());
        much(&p, "of a life that ends");
        for _ in 0..steps {
            assert!(log.step_commit());
        }
        let hw = p.positions().high_watermark;
        p.become_follower(crate::LeaderEpoch::new(50).unwrap()).unwrap();
        p.truncate_to(hw).unwrap();
        commit(&log);
        assert_eq!(p.positions().log_end, hw, "{steps} steps");
        p.become_leader(crate::LeaderEpoch::new(51).unwrap()).unwrap();
        commit(&log);
        append(&p, "of the next");
        commit(&log);
        p.advance_high_watermark(p.positions().log_end);
        assert_eq!(log.stats().offline, None);
        log.step_checkpoint().unwrap();
        rig.crash();
        let (log, recovery) = rig.open();
        assert!(recovery.findings.is_empty(), "{recovery:?}");
        let p = first(&log);
        p.become_leader(crate::LeaderEpoch::new(60).unwrap()).unwrap();
        commit(&log);
        p.advance_high_watermark(p.positions().log_end);
        assert_eq!(values(&p), [&all[..], &["of the next".to_owned()]].concat());
    }
}

#[test]
fn a_failed_sync_takes_the_directory_offline_and_a_full_disk_refuses() {
    for (fault, what) in [(Fault::Eio, Loss::Offline), (Fault::Enospc, Loss::DiskFull)] {
        let mut rig = rig();
        let (log, _) = rig.open();
        let (p, mut all) = marked(&log, settings());
        let (_, at) = much(&p, "lost");
        assert!(log.step_commit());
        // The write, or its sync.
        let offset = if fault == Fault::Eio { 2 } else { 1 };
        rig.disk.fail_change(rig.disk.changes() + offset, fault);
        commit(&log);
        assert_eq!(p.settled(AckPoint::Synced, at.last), Settled::Lost(what.clone()));
        assert_eq!(log.stats().offline.is_some(), what == Loss::Offline);
        if what == Loss::DiskFull {
            commit(&log);
            rig.clock.advance_ms(5_000);
            log.step_upkeep();
            let (more, _) = much(&p, "there is room");
            commit(&log);
            all.extend(more);
        }
        assert_eq!(values(&p), all);
        rig.crash();
        let (log, recovery) = rig.open();
        assert!(recovery.findings.is_empty(), "{recovery:?}");
        assert_eq!(values(&first(&log)), all);
    }
}

#[test]
fn a_topic_may_be_deleted_meanwhile_and_a_log_closed() {
    for steps in 0..3 {
        let rig = rig();
        let (log, _) = rig.open();
        let (p, _) = marked(&log, settings());
        much(&p, "of a topic that goes");
        for _ in 0..steps {
            assert!(log.step_commit());
        }
        log.delete_topic(p.topic()).unwrap();
        commit(&log);
        assert_eq!((log.stats().offline, log.stats().uncommitted_bytes), (None, 0));
        let (p, _) = {
            let p = topic(&log, "t", 1, settings())[0].clone();
            commit(&log);
            log.step_checkpoint().unwrap();
            (p.clone(), much(&p, "again"))
        };
        commit(&log);
        log.step_checkpoint().unwrap();
        let (all, _) = much(&p, "at the end");
        log.step_close().unwrap();
        let (log, recovery) = rig.open();
        assert!(!recovery.unclean && recovery.findings.is_empty(), "{recovery:?}");
        assert!(values(&first(&log)).ends_with(&all));
    }
}

#[test]
fn a_rotten_cycle_with_an_extent_is_made_up_from_the_segment() {
    let mut rig = rig();
    let (log, _) = rig.open();
    let (p, mut all) = marked(&log, TopicSettings { segment_bytes: 16 << 10, ..settings() });
    let (more, _) = much(&p, "bulk");
    commit(&log);
    all.extend(more);
    for value in ["behind", "it"] {
        append(&p, value);
        commit(&log);
        all.push(value.to_owned());
    }
    rig.crash();
    let file = "/data/journal/0000.journal";
    let mut bytes = rig.disk.contents(file).unwrap();
    let cycles = (4096..bytes.len()).step_by(4096);
    let with = |at: &usize| bytes[*at..].starts_with(b"HWCY\x02");
    let found: Vec<usize> = cycles.filter(with).collect();
    let [at] = found[..] else { panic!("one cycle has an extent, and says so: {found:?}") };
    bytes[at + 70] ^= 1;
    rig.disk.plant(file, &bytes);
    let (log, recovery) = rig.open();
    assert!(recovery.findings.iter().any(|f| f.contains("taken from the segment")), "{recovery:?}");
    assert_eq!(
        recovery.findings.len(),
        2,
        "that a cycle is lost, and nothing with it: {recovery:?}"
    );
    assert_eq!(values(&first(&log)), all);
}

#[test]
fn an_epoch_that_rots_in_an_extent_is_not_believed() {
    let mut rig = rig();
    let (log, _) = rig.open();
    let (p, all) = marked(&log, settings());
    let before = p.size_bytes() as usize;
    much(&p, "bulk");
    commit(&log);
    rig.crash();
    let file = log_file(&rig, 0);
    let mut bytes = rig.disk.contents(&file).unwrap();
    // Outside the CRC of its batch.
    bytes[before + 15] ^= 1;
    crate::batch::verify(&bytes[before..]).unwrap();
    rig.disk.plant(&file, &bytes);
    let (_, recovery) = rig.open();
    let range = format!("offsets {} to {} are lost", all.len(), all.len() + 11);
    assert!(recovery.findings.iter().any(|f| f.contains(&range)), "{recovery:?}");
}
