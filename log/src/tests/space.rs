//! A directory that has less room than it is given to keep.

use super::faults::{Rig, first};
use super::life::fill;
use super::{append, settings, topic};
use crate::metadata::{Cleanup, Refusal, TopicSettings};
use crate::{EarlyRemoval, Log, Offset, Partition, Share, TopicName};
use std::sync::Arc;

/// Two partitions of about 400 KB each, the first one older, and a checkpoint.
fn filled(rig: &Rig, settings: TopicSettings) -> (Log, Vec<Arc<Partition>>) {
    let (log, _) = rig.open();
    let partitions = topic(&log, "t", 2, settings);
    for partition in &partitions {
        fill(rig, &log, partition, 1500);
    }
    log.step_checkpoint().unwrap();
    rig.clock.advance_ms(6000);
    (log, partitions)
}

fn sizes(partitions: &[Arc<Partition>]) -> Vec<u64> {
    partitions.iter().map(|p| p.size_bytes()).collect()
}

#[test]
fn the_limit_takes_the_oldest_segments_of_all_and_says_so_once() {
    let mut rig = Rig::new();
    rig.options.max_bytes = Some(Share::Bytes(400_000));
    let (log, partitions) = filled(&rig, settings());
    log.step_upkeep();
    let left = sizes(&partitions);
    assert!(left.iter().sum::<u64>() <= 400_000, "{left:?}");
    assert!(left[0] < left[1], "the older partition gave more: {left:?}");
    let removed = log.take_early_removals();
    let expected: Vec<_> = partitions
        .iter()
        .filter(|p| p.positions().log_start > Offset::ZERO)
        .map(|p| EarlyRemoval {
            topic: p.topic().clone(),
            partition: p.id(),
            first: Offset::ZERO,
            end: p.positions().log_start,
        })
        .collect();
    assert!(!removed.is_empty());
    assert_eq!(removed, expected);
    assert!(log.take_early_removals().is_empty());
}

#[test]
fn what_is_held_compacted_or_headwaters_own_is_not_given_up_for_room() {
    let mut rig = Rig::new();
    rig.options.max_bytes = Some(Share::Bytes(1_000));
    let (log, _) = rig.open();
    let compacted = TopicSettings { cleanup: Cleanup::Compact, ..settings() };
    let held = topic(&log, "held", 1, settings())[0].clone();
    let kept = topic(&log, "kept", 1, compacted)[0].clone();
    let own = topic(&log, "__headwater_own", 1, settings())[0].clone();
    for partition in [&held, &kept, &own] {
        fill(&rig, &log, partition, 500);
    }
    let hold = held.hold("uplink");
    log.step_checkpoint().unwrap();
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    for partition in [&held, &kept, &own] {
        assert_eq!(partition.positions().log_start, Offset::ZERO, "{partition:?}");
    }
    assert!(log.take_early_removals().is_empty());
    hold.checkpoint(held.positions().log_end);
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    assert!(held.positions().log_start > Offset::ZERO);
    assert_eq!(kept.positions().log_start, Offset::ZERO);
}

#[test]
fn somebody_else_who_fills_the_filesystem_makes_the_oldest_go_early() {
    let mut rig = Rig::new();
    rig.options.min_free = Some(Share::Percent(10));
    let total = 8 << 20;
    rig.disk.set_capacity(Some(total));
    let (log, partitions) = filled(&rig, settings());
    log.step_upkeep();
    assert!(log.take_early_removals().is_empty(), "there is room");
    let before = sizes(&partitions);
    let others = total - rig.disk.used_bytes() - total / 10 + 200_000;
    rig.disk.plant("/others/file", &vec![1; others as usize]);
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    let free = total - rig.disk.used_bytes();
    assert!(free >= total / 10, "{free} of {total}");
    let left = sizes(&partitions);
    assert!(left[0] < before[0] && left.iter().sum::<u64>() > 300_000, "{before:?}, {left:?}");
}

#[test]
fn more_room_than_the_filesystem_has_takes_nothing_and_is_said() {
    let mut rig = Rig::new();
    rig.disk.set_capacity(Some(8 << 20));
    for slip in [Share::Bytes(100 << 30), Share::Percent(100)] {
        rig.options.min_free = Some(slip);
        let (log, recovery) = rig.open();
        assert!(recovery.findings.iter().any(|f| f.contains("min_free")), "{recovery:?}");
        if log.topic("t").is_none() {
            let p = &topic(&log, "t", 1, settings())[0];
            fill(&rig, &log, p, 1500);
        }
        log.step_checkpoint().unwrap();
        rig.clock.advance_ms(6000);
        log.step_upkeep();
        assert!(log.take_early_removals().is_empty());
        assert_eq!(first(&log).positions().log_start, Offset::ZERO);
        log.step_close().unwrap();
    }
}

#[test]
fn segments_that_no_checkpoint_has_sealed_go_after_the_next_one() {
    let mut rig = Rig::new();
    rig.options.max_bytes = Some(Share::Bytes(20_000));
    let (log, _) = rig.open();
    let small = TopicSettings { segment_bytes: 8 << 10, ..settings() };
    let p = topic(&log, "t", 1, small)[0].clone();
    // Not so many that the journal's ring asks for a checkpoint by itself.
    fill(&rig, &log, &p, 300);
    log.step_upkeep();
    assert_eq!(p.positions().log_start, Offset::ZERO);
    log.step_checkpoint().unwrap();
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    assert!(p.size_bytes() <= 20_000, "{}", p.size_bytes());
}

#[test]
fn a_full_disk_makes_room_for_itself_at_once() {
    let mut rig = Rig::new();
    rig.options.min_free = Some(Share::Bytes(300_000));
    let (log, _) = filled(&rig, settings());
    let p = first(&log);
    rig.disk.set_capacity(Some(rig.disk.used_bytes() + 8192));
    let value = "v".repeat(50_000);
    let mut refused = false;
    for _ in 0..20 {
        let at = append(&p, &value);
        while log.step_commit() {}
        if p.positions().log_end <= at.base.offset {
            refused = true;
            break;
        }
    }
    assert!(refused && log.stats().disk_full);
    // Not at the next round of retention: now.
    log.step_upkeep();
    assert!(!log.take_early_removals().is_empty());
    rig.clock.advance_ms(1001);
    log.step_upkeep();
    append(&p, &value);
    while log.step_commit() {}
    assert!(!log.stats().disk_full);
}

#[test]
fn a_topic_of_more_partitions_than_a_cycle_can_name_is_refused_and_nothing_stops() {
    let mut rig = Rig::new();
    rig.options.journal_file_bytes = 64 << 10;
    rig.options.partitions_max = 100_000;
    let (log, _) = rig.open();
    let name = |n: &str| TopicName::new(n).unwrap();
    let refused = log.create_topic(&name("wide"), 7_000, settings());
    assert!(matches!(refused, Err(Refusal::Limit(1_000..1_500, _))), "{refused:?}");
    log.create_topic(&name("t"), 1_000, settings()).unwrap();
    assert!(matches!(log.add_partitions(&name("t"), 9_000), Err(Refusal::Limit(..))));
    log.add_partitions(&name("t"), 2_000).unwrap();
    while log.step_commit() {}
    assert_eq!(log.stats().offline, None);
    append(&first(&log), "goes on");
    assert!(log.step_commit());
}

#[test]
fn a_share_is_of_each_directorys_own_filesystem() {
    let mut rig = Rig::new();
    rig.options.dirs = vec!["/large".into(), "/small".into()];
    rig.options.max_bytes = Some(Share::Percent(3));
    rig.disk.set_size_below("/large", 40 << 20);
    rig.disk.set_size_below("/small", 10 << 20);
    let (log, _) = rig.open();
    let all = topic(&log, "t", 24, settings());
    let of = |number| all.iter().find(|p| p.directory() == number).unwrap();
    let (large, small) = (of(0), of(1));
    for partition in [large, small] {
        fill(&rig, &log, partition, 1500);
    }
    log.step_checkpoint().unwrap();
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    assert_eq!(large.positions().log_start, Offset::ZERO, "three hundredths of 40 MB are room");
    assert!(small.positions().log_start > Offset::ZERO);
    assert!(small.size_bytes() <= 300 << 10, "{} of 300 KB", small.size_bytes());
}
