//! Compaction beside what others do with the same partition: readers, truncations, a checkpoint, a crash between its steps.

use super::{Bench, client, compacted, some};
use crate::batch;
use crate::disk::fake::Outcome;
use crate::metadata::{Compression, TopicSettings};
use crate::{LeaderEpoch, Offset, Partition, ReadLimit};
use std::cell::Cell;

const ROLL_MS: u32 = 60_000;

/// A replica that has led, with two sealed segments below its high watermark and one above it, all of them in the catalog.
fn replica() -> (Bench, Offset) {
    replica_after(|_| {})
}

fn replica_after(begin: impl Fn(&Bench)) -> (Bench, Offset) {
    let bench = Bench::new(TopicSettings { segment_ms: u64::from(ROLL_MS), ..compacted() });
    begin(&bench);
    for value in ["1", "2", "3"] {
        bench.put("a", Some(value));
        bench.put("b", Some(value));
    }
    bench.clock.advance_ms(ROLL_MS);
    bench.put("c", Some("1"));
    bench.put("c", Some("2"));
    bench.put("d", Some("1"));
    bench.partition.become_leader(epoch(&bench.partition)).unwrap();
    bench.commit();
    let high_watermark = bench.partition.positions().high_watermark;
    bench.clock.advance_ms(ROLL_MS);
    bench.put("a", Some("not replicated"));
    bench.log.step_checkpoint().unwrap();
    bench.partition.become_follower(epoch(&bench.partition)).unwrap();
    bench.commit();
    assert_eq!(bench.partition.positions().high_watermark, high_watermark);
    (bench, high_watermark)
}

fn epoch(partition: &Partition) -> LeaderEpoch {
    partition.positions().epoch.next()
}

const BEFORE: [(i64, &str, &str); 4] = [(4, "a", "3"), (5, "b", "3"), (7, "c", "2"), (8, "d", "1")];

fn check_all(bench: &Bench) {
    let wanted: Vec<_> = BEFORE.iter().map(|(at, key, value)| some(*at, key, value)).collect();
    assert_eq!(bench.seen(), wanted);
    for from in 0..=bench.partition.positions().high_watermark.get() {
        bench.partition.read(Offset::new(from).unwrap(), 1, ReadLimit::HighWatermark).unwrap();
    }
}

#[test]
fn a_compacted_segment_that_is_active_again_still_has_its_holes() {
    let (bench, end) = replica();
    bench.compact();
    bench.partition.truncate_to(end).unwrap();
    bench.commit();
    assert_eq!(bench.partition.positions().log_end, end);
    check_all(&bench);
    let bench = bench.reopened();
    check_all(&bench);
    bench.log.step_checkpoint().unwrap();
    check_all(&bench.reopened());
}

#[test]
fn a_swap_gives_way_to_a_truncation_in_the_same_cycle() {
    let (bench, end) = replica();
    // The last piece of the pass: what is asked for now goes into the cycle that the swap would go into.
    let pieces = Cell::new(0);
    let count = |stop_at: Option<u32>, act: &dyn Fn()| {
        pieces.set(0);
        bench.log.step_compaction_between(&|| {
            pieces.set(pieces.get() + 1);
            let last = Some(pieces.get()) == stop_at;
            if last {
                act();
            }
            stop_at.is_none()
                && bench.disk.files().iter().any(|f| f.ends_with(".cleaned"))
                && pieces.get() == 5
        })
    };
    assert!(!count(None, &|| {}), "given up at the fifth piece: {}", pieces.get());
    let truncate = || assert_eq!(bench.partition.truncate_to(end), Ok(end));
    assert!(count(Some(5), &truncate));
    assert_eq!(bench.partition.swaps(), 0, "{} pieces", pieces.get());
    bench.commit();
    assert_eq!(bench.seen().len(), 9);
    let bench = bench.reopened();
    assert_eq!(bench.seen().len(), 9, "nothing was taken");
}

#[test]
fn a_producer_is_known_by_its_last_batch_when_all_its_records_are_superseded() {
    let (bench, end) = replica_after(|bench| {
        let mut batch = client(Compression::default(), &[(Some("a"), Some("a producer's"))]);
        batch::readdress(&mut batch, 77, 0, 0);
        bench.partition.append_batch(batch).unwrap();
        bench.commit();
    });
    bench.compact();
    assert_eq!(bench.seen().first(), Some(&some(5, "a", "3")));
    // Without snapshots the producers are those of the files, when a truncation asks for them.
    for file in bench.disk.files().iter().filter(|file| file.ends_with(".snapshot")) {
        bench.disk.plant(file, &[]);
    }
    bench.partition.truncate_to(end).unwrap();
    bench.commit();
    let producers = bench.partition.producers();
    assert_eq!(producers.iter().map(|p| (p.id, p.last_sequence)).collect::<Vec<_>>(), [(77, 0)]);
}

#[test]
fn what_a_start_replays_is_not_older_than_it_is() {
    let bench = Bench::new(TopicSettings { compaction_lag_ms_min: 60_000, ..compacted() });
    bench.log.step_checkpoint().unwrap();
    // The checkpoint's clock is long ago when the records come.
    bench.clock.advance_ms(120_000);
    bench.put("a", Some("1"));
    bench.put("a", Some("2"));
    for i in 0..5 {
        bench.put(&format!("fill {i}"), Some(&"x".repeat(900)));
    }
    let bench = bench.reopened();
    assert!(!bench.log.step_compaction(), "younger than the lag");
    bench.clock.advance_ms(60_000);
    bench.compact();
    assert_eq!(bench.own(), [some(1, "a", "2")]);
}

#[test]
fn a_reader_goes_on_in_the_file_that_it_has_open() {
    let bench = Bench::new(compacted());
    for i in 0..6 {
        bench.put("a", Some(&format!("value {i}")));
    }
    bench.fill("1");
    bench.fill("2");
    let count = |happens: &dyn Fn()| bench.partition.read_while(Offset::ZERO, happens);
    let before = count(&|| {});
    assert_eq!(count(&|| bench.compact()), before, "as it was when it was opened");
    assert!(count(&|| {}) < before);
}

#[test]
fn inputs_that_a_crash_left_behind_the_catalog_are_removed() {
    let bench = Bench::new(compacted());
    for _ in 0..3 {
        bench.fill("1");
    }
    // What the first pass made small, the second puts together.
    bench.compact();
    bench.fill("1");
    let logs = |bench: &Bench| {
        bench.disk.files().into_iter().filter(|f| f.ends_with(".log")).collect::<Vec<_>>()
    };
    let before = logs(&bench);
    let old: Vec<_> = before.iter().map(|f| (f.clone(), bench.disk.contents(f).unwrap())).collect();
    bench.compact();
    let after = logs(&bench);
    assert!(after.len() < before.len(), "{before:?}, {after:?}");
    let seen = bench.seen();
    bench.log.step_checkpoint().unwrap();
    // As if the process had died before it removed them.
    for (file, bytes) in old.iter().filter(|(file, _)| !after.contains(file)) {
        bench.disk.plant(file, bytes);
    }
    let bench = bench.reopened();
    assert_eq!(bench.seen(), seen);
    assert_eq!(logs(&bench), before);
    bench.log.step_compaction();
    assert_eq!(logs(&bench), after);
    assert_eq!(bench.seen(), seen);
}

/// Bench's own reopening is that of a killed process; here the power goes.
#[test]
fn a_power_cut_leaves_the_inputs_or_the_output() {
    for (seed, outcome) in Outcome::ALL.into_iter().enumerate() {
        let bench = Bench::new(compacted());
        for i in 0..10 {
            bench.put("a", Some(&i.to_string()));
        }
        bench.fill("1");
        bench.fill("2");
        bench.compact();
        let seen = bench.seen();
        let disk = bench.disk.after_crash(outcome, seed as u64);
        let bench = bench.on(disk);
        assert_eq!(bench.seen(), seen, "{outcome:?}");
    }
}
