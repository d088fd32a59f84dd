//! A partition as one replica of several.

use super::faults::{Rig, first};
use super::{append, settings, topic, values};
use crate::batch::{self, BatchBuilder, BatchHeader, Seal};
use crate::disk::fake::{Fault, Outcome};
use crate::metadata::{Durability, TopicSettings};
use crate::record::{Headers, RecordParts};
use crate::{
    AckPoint, AppendError, LeaderEpoch, Log, Loss, Offset, Partition, Position, ReadLimit,
    ReplicaError, Role, Settled,
};
use bytes::Bytes;
use std::sync::Arc;

fn e(n: i32) -> LeaderEpoch {
    LeaderEpoch::new(n).unwrap()
}

fn o(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

fn commit(log: &Log) {
    while log.step_commit() {}
}

/// A batch as a leader has it.
fn placed(base: i64, epoch: i32, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        let record = RecordParts {
            timestamp_ms: 1_000 + base,
            key: None,
            value: Some(value.as_bytes()),
            headers: Headers::EMPTY,
        };
        builder.push(&record, usize::MAX).unwrap();
    }
    let seal = Seal { base_offset: o(base), epoch: e(epoch), node_slot: 3, base_sequence: 7 };
    builder.seal(seal).unwrap()
}

/// Epoch and first value of each batch up to the log end.
fn batches(partition: &Partition) -> Vec<(i64, i32, String)> {
    let mut found = Vec::new();
    let mut from = partition.positions().log_start;
    loop {
        let read = partition.read(from, 1, ReadLimit::Written).unwrap();
        let Some(bytes) = read.batches.first() else { return found };
        let header = batch::verify(bytes).unwrap();
        let record = batch::records(bytes).unwrap().next().unwrap().unwrap();
        let value = String::from_utf8_lossy(&record.value.unwrap()).into_owned();
        found.push((header.base_offset, header.partition_leader_epoch, value));
        from = read.next;
    }
}

/// A follower in epoch 10 with one topic, small segments.
fn follower(rig: &Rig, settings: TopicSettings) -> (Log, Arc<Partition>) {
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings)[0].clone();
    p.become_follower(e(10)).unwrap();
    commit(&log);
    (log, p)
}

fn small() -> TopicSettings {
    TopicSettings { segment_bytes: 400, ..settings() }
}

#[test]
fn a_leadership_is_in_force_once_it_is_synced_and_never_older_than_one_that_is_known() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    let alone = append(&p, "alone");
    commit(&log);
    assert_eq!(p.role(), Role::Alone);
    let current = p.positions().epoch;
    let fenced = |found| Err(ReplicaError::Fenced { current, found });
    assert_eq!(p.become_leader(current), fenced(current));
    assert_eq!(p.become_follower(current), fenced(current));
    let waiting = append(&p, "waiting");
    p.become_leader(e(10)).unwrap();
    let record =
        RecordParts { timestamp_ms: 0, key: None, value: Some(b"x"), headers: Headers::EMPTY };
    assert_eq!(p.append(&[record]).unwrap_err(), AppendError::NotLeader);
    assert_eq!(p.role(), Role::Follower);
    assert_eq!(p.settled(AckPoint::HighWatermark, waiting.last), Settled::Lost(Loss::Fenced));
    commit(&log);
    assert_eq!(p.role(), Role::Leader);
    assert_eq!(p.become_leader(e(10)), Ok(()));
    assert_eq!(p.become_follower(e(10)), {
        let current = e(10);
        Err(ReplicaError::Fenced { current, found: current })
    });
    let at = append(&p, "led");
    assert_eq!((at.base.offset, at.base.epoch), (o(2), e(10)));
    commit(&log);
    assert_eq!(p.epoch_of(o(1)), Some(current), "what was open kept its epoch");
    assert_eq!(p.settled(AckPoint::Synced, at.last), Settled::Passed);
    assert_eq!(p.settled(AckPoint::HighWatermark, at.last), Settled::Waiting);
    assert_eq!(p.settled(AckPoint::HighWatermark, alone.last), Settled::Passed);
    assert_eq!(values(&p), ["alone"], "readers wait for the high watermark");
    assert_eq!(p.advance_high_watermark(o(99)), o(3), "not above what is committed");
    assert_eq!(p.advance_high_watermark(o(2)), o(3), "never back");
    assert_eq!(p.settled(AckPoint::HighWatermark, at.last), Settled::Passed);
    assert_eq!(values(&p), ["alone", "waiting", "led"]);
    p.become_follower(e(11)).unwrap();
    assert_eq!(p.append(&[record]).unwrap_err(), AppendError::NotLeader);
}

#[test]
fn after_a_restart_a_replica_leads_nothing_and_keeps_its_high_watermark() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    p.become_leader(e(10)).unwrap();
    commit(&log);
    for value in ["a", "b", "c"] {
        append(&p, value);
        commit(&log);
    }
    p.advance_high_watermark(o(1));
    log.step_checkpoint().unwrap();
    p.advance_high_watermark(o(2));
    // By the journal: every few seconds.
    rig.clock.advance_ms(6_000);
    log.step_upkeep();
    commit(&log);
    rig.crash();
    for _ in 0..2 {
        let (log, _) = rig.open();
        let p = first(&log);
        let at = p.positions();
        assert_eq!((p.role(), at.epoch), (Role::Follower, e(10)));
        assert_eq!((at.high_watermark, at.log_end), (o(2), o(3)));
        assert!(matches!(p.become_leader(e(10)), Err(ReplicaError::Fenced { .. })));
        assert_eq!(p.become_follower(e(10)), Ok(()));
        // The second time from the catalog alone.
        rig.crash();
    }
    let (log, _) = rig.open();
    let p = first(&log);
    p.become_leader(e(11)).unwrap();
    commit(&log);
    assert_eq!(append(&p, "d").base, Position { epoch: e(11), offset: o(3) });
    let fresh = topic(&log, "u", 1, settings())[0].clone();
    assert!(fresh.positions().epoch > e(10), "a node's own epochs are above those it was given");
}

#[test]
fn a_followers_batch_is_stored_as_it_is_and_must_follow_the_log_end() {
    let rig = Rig::new();
    let (log, p) = follower(&rig, settings());
    let batch = placed(0, 4, &["a", "b"]);
    let at = p.append_as_follower(batch.clone()).unwrap();
    assert_eq!((at.base.offset, at.last), (o(0), Position { epoch: e(4), offset: o(1) }));
    for base in [0, 1, i64::MAX / 2] {
        let refused = p.append_as_follower(placed(base, 4, &["x"])).unwrap_err();
        assert_eq!(refused, ReplicaError::NotNext { expected: o(2), found: o(base) });
    }
    let refused = p.append_as_follower(placed(2, 3, &["x"])).unwrap_err();
    assert_eq!(refused, ReplicaError::Fenced { current: e(4), found: e(3) });
    let refused = p.append_as_follower(placed(2, 11, &["x"])).unwrap_err();
    assert_eq!(refused, ReplicaError::Fenced { current: e(10), found: e(11) });
    let mut bad = placed(2, 4, &["x"]).to_vec();
    *bad.last_mut().unwrap() ^= 1;
    assert!(matches!(
        p.append_as_follower(bad.into()),
        Err(ReplicaError::Append(AppendError::Corrupt(_)))
    ));
    commit(&log);
    p.append_as_follower(placed(2, 9, &["c"])).unwrap();
    commit(&log);
    assert_eq!(p.positions().synced, o(3));
    let read = p.read(o(0), 1, ReadLimit::Written).unwrap();
    assert_eq!(read.batches[0], batch);
    assert_eq!(p.end_of_epoch(e(4)), Some((e(4), o(2))));
    p.become_leader(e(12)).unwrap();
    commit(&log);
    assert_eq!(p.append_as_follower(placed(3, 9, &["x"])), Err(ReplicaError::NotFollower));
    assert_eq!(p.truncate_to(o(1)), Err(ReplicaError::NotFollower));
}

/// First and last offset and record count of each batch up to the log end.
fn spans(partition: &Partition) -> Vec<(i64, i64, i32)> {
    let (mut found, mut from) = (Vec::new(), partition.positions().log_start);
    while from < partition.positions().log_end {
        let read = partition.read(from, 1, ReadLimit::Written).unwrap();
        let header = batch::verify(&read.batches[0]).unwrap();
        found.push((header.base_offset, header.last_offset(), header.record_count));
        from = read.next;
    }
    found
}

#[test]
fn a_hole_that_the_leaders_compaction_left_is_taken_over_and_survives_every_kind_of_end() {
    for durability in [Durability::Fsync, Durability::Memory] {
        for checkpoint in 0..4 {
            let mut rig = Rig::new();
            let (log, p) = follower(&rig, TopicSettings { durability, ..small() });
            let far = i64::from(i32::MAX) + 100;
            let bases = [(5, 3), (7, 3), (40, 4), (41, 8), (far, 8), (far + 1, 9)];
            for (i, (base, epoch)) in bases.into_iter().enumerate() {
                let at = p.append_as_follower(placed(base, epoch, &["a"])).unwrap();
                assert_eq!(at.base, Position { offset: o(base), epoch: e(epoch) });
                commit(&log);
                if i == checkpoint {
                    log.step_checkpoint().unwrap();
                }
            }
            p.advance_high_watermark(o(42));
            let mut wanted = vec![(0, 4, 0), (5, 5, 1), (6, 6, 0), (7, 7, 1), (8, 39, 0)];
            wanted.extend([(40, 40, 1), (41, 41, 1)]);
            wanted.extend([(42, far - 59, 0), (far - 58, far - 1, 0)]);
            wanted.extend([(far, far, 1), (far + 1, far + 1, 1)]);
            assert_eq!(spans(&p), wanted);
            assert_eq!(p.end_of_epoch(e(3)), Some((e(3), o(40))), "a hole is of the epoch before");
            assert_eq!(p.end_of_epoch(e(4)), Some((e(4), o(41))));
            drop((log, p));
            // A `memory` topic's files are all there after a kill, and the power takes what was never synced.
            match durability {
                Durability::Memory => rig.disk = rig.disk.after_kill(),
                _ => rig.crash(),
            }
            let (log, recovery) = rig.open();
            assert!(recovery.findings.is_empty(), "{recovery:?}");
            let p = first(&log);
            assert_eq!(spans(&p), wanted);
            p.become_follower(e(10)).unwrap();
            assert_eq!(p.truncate_to(o(100)), Ok(o(42)), "a hole goes as a whole");
            commit(&log);
            log.step_checkpoint().unwrap();
            p.append_as_follower(placed(50, 10, &["b"])).unwrap();
            commit(&log);
            wanted.truncate(7);
            wanted.extend([(42, 49, 0), (50, 50, 1)]);
            assert_eq!(spans(&p), wanted);
            drop((log, p));
            rig.disk = rig.disk.after_kill();
            let (log, recovery) = rig.open();
            assert!(recovery.findings.is_empty(), "{recovery:?}");
            assert_eq!(spans(&first(&log)), wanted);
        }
    }
}

/// A follower with ten batches of two, the first six in files (two segments each), a high watermark of 4.
fn filled(rig: &Rig, settings: TopicSettings) -> (Log, Arc<Partition>) {
    let (log, p) = follower(rig, settings);
    for i in 0..10 {
        let value = format!("old {i} {}", "x".repeat(60));
        p.append_as_follower(placed(i * 2, 5 + (i / 4) as i32, &[&value, "y"])).unwrap();
        commit(&log);
        if i == 5 {
            log.step_checkpoint().unwrap();
        }
    }
    assert_eq!(p.advance_high_watermark(o(4)), o(4));
    (log, p)
}

/// What a follower has after it was cut to `to` and got one batch of epoch 9.
fn expected(to: i64) -> Vec<(i64, i32, String)> {
    let old = |i: i64| (i * 2, 5 + (i / 4) as i32, format!("old {i} {}", "x".repeat(60)));
    let mut all: Vec<_> = (0..to / 2).map(old).collect();
    all.push((to, 9, "new".to_owned()));
    all
}

#[test]
fn a_truncation_is_exact_in_memory_in_files_and_after_every_kind_of_end() {
    for durability in [Durability::Fsync, Durability::Memory] {
        for to in [4, 6, 8, 10, 12, 14, 16, 18] {
            for checkpoint in [false, true] {
                let mut rig = Rig::new();
                let (log, p) = filled(&rig, TopicSettings { durability, ..small() });
                assert_eq!(p.truncate_to(o(to + 1)), Ok(o(to)), "where the batch begins");
                assert!(p.is_truncating());
                let refused = p.append_as_follower(placed(to, 9, &["new"]));
                assert_eq!(refused, Err(ReplicaError::Truncating));
                commit(&log);
                if durability == Durability::Memory {
                    assert!(p.is_truncating(), "not before a catalog has it");
                    log.step_checkpoint().unwrap();
                }
                assert!(!p.is_truncating());
                let at = p.positions();
                assert_eq!((at.log_end, at.synced, at.high_watermark), (o(to), o(to), o(4)));
                p.append_as_follower(placed(to, 9, &["new"])).unwrap();
                commit(&log);
                if checkpoint || durability == Durability::Memory {
                    log.step_checkpoint().unwrap();
                }
                assert_eq!(batches(&p), expected(to));
                let epoch = p.epoch_of(o(to - 1)).unwrap();
                assert_eq!(p.end_of_epoch(e(8)), Some((epoch, o(to))));
                for outcome in Outcome::ALL {
                    let left = rig.disk.after_crash(outcome, to as u64);
                    let before = std::mem::replace(&mut rig.disk, left);
                    for _ in 0..2 {
                        let (log, recovery) = rig.open();
                        assert!(recovery.findings.is_empty(), "{recovery:?}");
                        assert_eq!(batches(&first(&log)), expected(to), "{outcome:?}");
                        rig.crash();
                    }
                    rig.disk = before;
                }
            }
        }
    }
}

#[test]
fn a_truncation_that_is_not_synced_has_not_happened() {
    let mut rig = Rig::new();
    let (_log, p) = filled(&rig, small());
    p.truncate_to(o(6)).unwrap();
    rig.crash();
    let (log, _) = rig.open();
    assert_eq!(first(&log).positions().log_end, o(20));
}

#[test]
fn nothing_below_the_high_watermark_is_cut_and_nothing_shown_meanwhile() {
    let rig = Rig::new();
    let (log, p) = filled(&rig, small());
    let refused = p.truncate_to(o(3)).unwrap_err();
    assert_eq!(refused, ReplicaError::BelowHighWatermark { offset: o(2), high_watermark: o(4) });
    assert_eq!(p.truncate_to(o(25)), Ok(o(20)), "nothing to cut");
    assert!(!p.is_truncating());
    p.truncate_to(o(8)).unwrap();
    assert_eq!(p.truncate_to(o(6)), Err(ReplicaError::Truncating));
    assert_eq!(p.advance_high_watermark(o(12)), o(8), "what is to go is not shown");
    commit(&log);
    assert_eq!(p.positions().log_end, o(8));
    let lost = Position { epoch: e(6), offset: o(9) };
    assert_eq!(p.settled(AckPoint::Synced, lost), Settled::Lost(Loss::Truncated));
    let kept = Position { epoch: e(5), offset: o(7) };
    assert_eq!(p.settled(AckPoint::Synced, kept), Settled::Passed);
}

#[test]
fn what_is_not_committed_is_cut_too_and_its_memory_given_back() {
    let rig = Rig::new();
    let (log, p) = filled(&rig, small());
    for i in 0..3 {
        p.append_as_follower(placed(20 + i, 9, &["waits"])).unwrap();
    }
    p.truncate_to(o(21)).unwrap();
    commit(&log);
    assert_eq!(p.positions().log_end, o(21));
    assert_eq!(p.positions().synced, o(21), "what is left of it is committed");
    p.append_as_follower(placed(21, 9, &["again"])).unwrap();
    p.truncate_to(o(4)).unwrap();
    commit(&log);
    assert_eq!((log.stats().uncommitted_bytes, batches(&p).len()), (0, 2));
}

#[test]
fn a_leader_that_the_disk_cut_leads_no_more() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    p.become_leader(e(10)).unwrap();
    commit(&log);
    let value = "v".repeat(50_000);
    rig.disk.set_capacity(Some(rig.disk.used_bytes() + 8192));
    let mut last = append(&p, &value);
    commit(&log);
    while p.role() == Role::Leader {
        last = append(&p, &value);
        commit(&log);
    }
    assert_eq!(p.settled(AckPoint::HighWatermark, last.last), Settled::Lost(Loss::Fenced));
    rig.disk.set_capacity(None);
    rig.clock.advance_ms(2_000);
    log.step_upkeep();
    assert!(matches!(p.become_leader(e(10)), Err(ReplicaError::Fenced { .. })));
    p.become_leader(e(11)).unwrap();
    commit(&log);
    assert_eq!(append(&p, "on").base, Position { epoch: e(11), offset: last.base.offset });
}

/// Copies what a follower does not have from its leader, as a fetcher would.
fn fetch(leader: &Partition, follower: &Partition) {
    loop {
        let from = follower.positions().log_end;
        let read = leader.read(from, 1, ReadLimit::Written).unwrap();
        let Some(bytes) = read.batches.first() else { return };
        follower.append_as_follower(bytes.clone()).unwrap();
    }
}

/// KIP-101 and KIP-279 from end to end: three replicas, leaders that change quickly, followers that have what the next leader
/// does not; each that joins asks for epochs until it may fetch. The reference is the leader's own log.
#[test]
fn followers_come_to_their_leaders_log_whoever_led_before() {
    for mut seed in 0..40u64 {
        let mut random = move |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let rig = Rig::new();
        let (log, _) = rig.open();
        let replicas = topic(&log, "t", 3, small());
        let mut count = 0;
        for epoch in 10..22 {
            let led = random(3) as usize;
            for (i, replica) in replicas.iter().enumerate() {
                match i == led {
                    true => replica.become_leader(e(epoch)).unwrap(),
                    false => replica.become_follower(e(epoch)).unwrap(),
                }
            }
            commit(&log);
            let leader = &replicas[led];
            for replica in replicas.iter().filter(|r| !Arc::ptr_eq(r, leader)) {
                // Some stay away for an epoch.
                if random(3) == 0 {
                    continue;
                }
                let mut asked = replica
                    .positions()
                    .log_end
                    .get()
                    .checked_sub(1)
                    .and_then(|last| replica.epoch_of(Offset::new(last)?));
                let mut rounds = 0;
                while let Some(epoch) = asked {
                    let (found, end) = leader.end_of_epoch(epoch).unwrap_or((e(0), o(0)));
                    let cut = replica.truncate_to_epoch(found, end).unwrap();
                    commit(&log);
                    asked = cut.epoch.filter(|_| !cut.complete);
                    rounds += 1;
                    assert!(rounds < 20, "it ends");
                }
                let (mine, theirs) = (batches(replica), batches(leader));
                assert!(theirs.starts_with(&mine), "{mine:?} is no part of {theirs:?}");
                fetch(leader, replica);
                commit(&log);
                assert_eq!(batches(replica), batches(leader));
            }
            for _ in 0..random(4) {
                count += 1;
                append(leader, &format!("{count}"));
                commit(&log);
            }
        }
    }
}

#[test]
fn an_epoch_given_after_a_cut_is_durable_before_it_is_used() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let memory = TopicSettings { durability: Durability::Memory, ..settings() };
    let p = topic(&log, "t", 1, memory)[0].clone();
    commit(&log);
    let value = "v".repeat(50_000);
    rig.disk.set_capacity(Some(rig.disk.used_bytes() + 8192));
    let record = RecordParts {
        timestamp_ms: 0,
        key: None,
        value: Some(value.as_bytes()),
        headers: Headers::EMPTY,
    };
    let before = p.positions().epoch;
    // The cycle that cuts queues the epoch for the next one.
    while p.positions().epoch == before {
        p.append(&[record]).unwrap();
        log.step_commit();
    }
    rig.disk.set_capacity(None);
    rig.clock.advance_ms(2_000);
    log.step_upkeep();
    assert_eq!(p.append(&[record]).unwrap_err(), AppendError::DiskFull);
    log.step_commit();
    rig.clock.advance_ms(2_000);
    log.step_upkeep();
    assert!(p.append(&[record]).is_ok());
}

#[test]
fn headers_of_a_batch_in_a_truncated_segment_follow_each_other() {
    let rig = Rig::new();
    let (log, p) = filled(&rig, small());
    p.truncate_to(o(6)).unwrap();
    commit(&log);
    for i in 0..8 {
        p.append_as_follower(placed(6 + i, 9, &["short"])).unwrap();
        commit(&log);
    }
    log.step_checkpoint().unwrap();
    let mut next = 0;
    for file in rig.disk.files().iter().filter(|f| f.ends_with(".log")) {
        let bytes = rig.disk.contents(file).unwrap();
        let mut at = 0;
        while let Ok(header) = BatchHeader::parse(&bytes[at..]) {
            assert_eq!(header.base_offset, next, "{file} at byte {at}");
            next = header.last_offset() + 1;
            at += header.size_bytes();
        }
    }
    assert_eq!(next, 14, "nothing of the old life lies behind");
}

#[test]
fn what_was_cut_does_not_come_back_whatever_a_crash_left_of_the_files() {
    for durability in [Durability::Fsync, Durability::Memory] {
        for to in [6, 12, 16] {
            let mut rig = Rig::new();
            let (log, p) = filled(&rig, TopicSettings { durability, ..small() });
            p.truncate_to(o(to)).unwrap();
            commit(&log);
            for seed in 0..20 {
                let outcome = Outcome::ALL[seed as usize % 5];
                let left = rig.disk.after_crash(outcome, seed);
                let before = std::mem::replace(&mut rig.disk, left);
                let (log, recovery) = rig.open();
                assert!(recovery.findings.is_empty(), "{recovery:?}");
                let p = first(&log);
                let end = p.positions().log_end;
                assert!(end <= o(to), "{end} after a cut to {to}: {outcome:?}, {seed}");
                assert!(durability == Durability::Memory || end == o(to), "{end}, not {to}");
                let mut all = expected(to);
                all.pop();
                assert!(all.starts_with(&batches(&p)), "{:?}", batches(&p));
                rig.disk = before;
            }
        }
    }
}

#[test]
fn a_checkpoint_beside_a_truncation_that_fails_describes_nothing_of_it() {
    let mut rig = Rig::new();
    let (log, p) = filled(&rig, small());
    let other = topic(&log, "other", 1, settings());
    append(&other[0], "a");
    commit(&log);
    let before = batches(&p);
    assert_eq!(p.truncate_to(o(4)), Ok(o(4)));
    // The cycle is one write and one sync; then the first file goes. A topic that is deleted makes the checkpoint, which has
    // described this partition already, do so again.
    let work = log.clone();
    let beside = || {
        log.delete_topic(&crate::TopicName::new("other").unwrap()).unwrap();
        rig.disk.fail_change(rig.disk.changes() + 3, Fault::Eio);
        commit(&log);
        assert!(rig.disk.has_failed() && log.stats().offline.is_some());
    };
    rig.disk.beside(0, || assert!(work.step_checkpoint().is_err()), beside);
    drop((log, p, other, work));
    rig.disk = rig.disk.after_kill();
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    let kept: Vec<_> = before.into_iter().filter(|(offset, ..)| *offset < 4).collect();
    assert_eq!(batches(&first(&log)), kept, "it was synced in the journal");
}
