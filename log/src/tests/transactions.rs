//! Transactions through a partition's life: verification, truncation, deletion, expiry, lost hints.

use super::faults::{Rig, first};
use super::{append, settings, topic};
use crate::batch::marker::{EndTransaction, TransactionMarker};
use crate::batch::{self, BatchBuilder, BatchHeader, Seal};
use crate::metadata::{Durability, TopicSettings};
use crate::record::{Headers, RecordParts};
use crate::{
    AckPoint, AppendError, LeaderEpoch, Log, Offset, Origin, Partition, ReadLimit, Settled,
};
use bytes::BytesMut;

fn o(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

/// A transactional batch of `records` records, as a client sends it.
fn batch_of(producer: i64, epoch: i16, sequence: i32, records: usize) -> BytesMut {
    let mut builder = BatchBuilder::new();
    let value = [7; 100];
    for _ in 0..records {
        let record = RecordParts {
            timestamp_ms: 1000,
            key: None,
            value: Some(&value),
            headers: Headers::EMPTY,
        };
        builder.push(&record, 1 << 20).unwrap();
    }
    let mut bytes = BytesMut::from(&builder.seal(Seal::default()).unwrap()[..]);
    batch::readdress(&mut bytes, producer, epoch, sequence);
    bytes[22] |= 0x10;
    let crc = crate::encoding::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn marker(producer: i64, epoch: i16, commit: bool) -> TransactionMarker {
    TransactionMarker {
        producer_id: producer,
        producer_epoch: epoch,
        end: EndTransaction { commit, coordinator_epoch: 0 },
        bumps_epoch: false,
        timestamp_ms: 1000,
    }
}

fn stable(p: &Partition) -> (i64, i64) {
    let positions = p.positions();
    (positions.last_stable.get(), positions.high_watermark.get())
}

/// (producer, first, last) of what readers of everything that is stable leave out.
fn aborted(p: &Partition) -> Vec<(i64, i64, i64)> {
    let positions = p.positions();
    let found = p.aborted(positions.log_start, positions.last_stable).unwrap();
    found.iter().map(|t| (t.producer_id, t.first.get(), t.last.get())).collect()
}

#[test]
fn a_marker_in_a_memory_topic_counts_once_it_is_synced_and_is_not_lost_then() {
    for synced in [false, true] {
        let mut rig = Rig::new();
        let (log, _) = rig.open();
        let memory = TopicSettings { durability: Durability::Memory, ..settings() };
        let p = topic(&log, "t", 1, memory)[0].clone();
        append(&p, "mqtt");
        p.append_batch(batch_of(5, 0, 0, 2)).unwrap();
        log.step_commit();
        log.step_checkpoint().unwrap();
        log.step_upkeep();
        append(&p, "mqtt");
        let ended = p.append_marker(&marker(5, 0, true)).unwrap();
        log.step_commit();
        assert_eq!(stable(&p), (1, 5), "nobody is shown what a power cut would open again");
        assert_eq!(p.settled(AckPoint::HighWatermark, ended.last), Settled::Passed);
        assert_eq!(p.settled(AckPoint::Synced, ended.last), Settled::Waiting);
        if synced {
            // Long before `memory_sync` is over.
            log.step_upkeep();
            assert_eq!(p.settled(AckPoint::Synced, ended.last), Settled::Passed);
            assert_eq!(stable(&p), (5, 5));
        }
        drop((log, p));
        rig.crash();
        let (log, _) = rig.open();
        let p = first(&log);
        assert_eq!(stable(&p), if synced { (5, 5) } else { (1, 3) });
        // The coordinator was not told that it is there: it writes it again.
        p.append_marker(&marker(5, 0, true)).unwrap();
        log.step_commit();
        log.step_upkeep();
        let (stable, end) = stable(&p);
        assert_eq!(stable, end);
    }
}

#[test]
fn committed_readers_stop_at_what_is_open_and_leave_out_what_was_aborted() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    append(&p, "mqtt");
    p.append_batch(batch_of(5, 0, 0, 2)).unwrap();
    p.append_batch(batch_of(6, 0, 0, 1)).unwrap();
    append(&p, "mqtt");
    assert_eq!(stable(&p), (0, 0), "nothing is committed");
    log.step_commit();
    assert_eq!(stable(&p), (1, 5));
    let read = p.read(o(0), 1 << 20, ReadLimit::LastStable).unwrap();
    assert_eq!((read.next.get(), read.batches.len()), (1, 1));
    let read = p.read(o(0), 1 << 20, ReadLimit::HighWatermark).unwrap();
    assert_eq!(read.next.get(), 5, "the others see it all");
    p.append_marker(&marker(5, 0, false)).unwrap();
    assert_eq!(stable(&p), (1, 5), "its end is not below the high watermark");
    log.step_commit();
    assert_eq!(stable(&p), (3, 6));
    assert_eq!(aborted(&p), [(5, 1, 5)]);
    p.append_marker(&marker(6, 0, true)).unwrap();
    log.step_commit();
    assert_eq!(stable(&p), (7, 7));
    // From memory, then out of the file, then as another process.
    for round in 0..3 {
        let read = p.read(o(0), 1 << 20, ReadLimit::LastStable).unwrap();
        let shown = read
            .batches
            .iter()
            .map(|b| BatchHeader::parse(b).unwrap())
            .filter(|h| !h.is_control() && !read.aborted.iter().any(|txn| txn.covers(h)));
        assert_eq!(shown.map(|h| h.base_offset).collect::<Vec<_>>(), [0, 3, 4], "round {round}");
        log.step_checkpoint().unwrap();
        p.evict(o(7));
    }
    assert_eq!(log.stats().open_transactions, 0);
}

/// KIP-890: a batch gets in only while the coordinator's answer is about the transaction that is meant.
#[test]
fn a_batch_that_was_not_verified_opens_no_transaction() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    let refused = |found: Result<crate::Appended, AppendError>| {
        assert!(matches!(found, Err(AppendError::InvalidTransaction { .. })), "{found:?}");
    };
    let early = p.verify_transaction(5, 0, 0, false).unwrap();
    let same = p.verify_transaction(5, 0, 0, false).unwrap();
    assert_eq!(early, same, "one question, however often asked");
    // The coordinator aborts meanwhile: the answer is about a transaction that is over.
    p.append_marker(&marker(5, 0, false)).unwrap();
    refused(p.append_batch_from(batch_of(5, 0, 0, 1), Origin::Verified(early)));
    let guard = p.verify_transaction(5, 0, 0, false).unwrap();
    refused(p.append_batch_from(batch_of(5, 0, 0, 1), Origin::Verified(early)));
    p.append_batch_from(batch_of(5, 0, 0, 1), Origin::Verified(guard)).unwrap();
    assert_eq!(p.verify_transaction(5, 0, 1, false), None, "it is open");
    p.append_batch_from(batch_of(5, 0, 1, 1), Origin::Verified(guard)).unwrap();
    // Old epochs are told so, not that their transaction is unknown: they may recover (KIP-360).
    p.append_marker(&marker(5, 1, true)).unwrap();
    let old = p.append_batch_from(batch_of(5, 0, 2, 1), Origin::Verified(guard));
    assert!(matches!(old, Err(AppendError::ProducerFenced { .. })), "{old:?}");
    // A later batch must not overtake an earlier one that is still being verified.
    let guard = p.verify_transaction(8, 0, 4, false).unwrap();
    assert_eq!(p.verify_transaction(8, 0, 2, false), Some(guard));
    let over = p.append_batch_from(batch_of(8, 0, 4, 1), Origin::Verified(guard));
    assert!(matches!(over, Err(AppendError::OutOfOrderSequence { expected: 2, .. })), "{over:?}");
    p.append_batch_from(batch_of(8, 0, 2, 2), Origin::Verified(guard)).unwrap();
    // With an epoch per transaction the first sequence is 0.
    let guard = p.verify_transaction(9, 3, 6, true).unwrap();
    let gap = p.append_batch_from(batch_of(9, 3, 6, 1), Origin::Verified(guard));
    assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { expected: 0, .. })), "{gap:?}");
}

#[test]
fn deleted_records_of_an_open_transaction_hold_nobody_back_below_the_log_start() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    p.append_batch(batch_of(5, 0, 0, 4)).unwrap();
    append(&p, "mqtt");
    log.step_commit();
    assert_eq!(stable(&p), (0, 5));
    p.delete_before(o(2));
    assert_eq!(stable(&p), (2, 5), "what is left of it is still not decided");
    p.delete_before(o(5));
    log.step_commit();
    assert_eq!(stable(&p), (5, 5));
    append(&p, "mqtt");
    log.step_commit();
    assert_eq!(stable(&p), (5, 6), "as Kafka: the transaction is open");
    drop(log);
    rig.crash();
    let (log, _) = rig.open();
    let p = first(&log);
    assert_eq!(stable(&p), (5, 6));
    p.append_marker(&marker(5, 0, false)).unwrap();
    log.step_commit();
    assert_eq!(stable(&p), (7, 7));
}

fn small() -> TopicSettings {
    TopicSettings { segment_bytes: 1_000, ..settings() }
}

/// Producers 5 and 6 in turn, of three segments at least; what 5 does is aborted.
fn fill(log: &Log, p: &Partition, rounds: i32) {
    for round in 0..rounds {
        for producer in [5, 6] {
            p.append_batch(batch_of(producer, 0, round * 2, 2)).unwrap();
        }
        log.step_commit();
        p.append_marker(&marker(5, 0, false)).unwrap();
        p.append_marker(&marker(6, 0, true)).unwrap();
        log.step_commit();
    }
}

/// A follower that is cut back has the state that it had there, wherever that is, with snapshots and without.
#[test]
fn a_truncation_takes_producers_and_transactions_back() {
    for lost_snapshots in [false, true] {
        let rig = Rig::new();
        let (log, _) = rig.open();
        let p = topic(&log, "t", 1, small())[0].clone();
        p.become_follower(LeaderEpoch::new(90).unwrap()).unwrap();
        log.step_commit();
        // A leader's log, to be followed batch by batch.
        let leader = topic(&log, "leader", 1, small())[0].clone();
        fill(&log, &leader, 12);
        leader.append_batch(batch_of(5, 0, 24, 2)).unwrap();
        log.step_commit();
        let read = leader.read(o(0), 1 << 20, ReadLimit::HighWatermark).unwrap();
        let mut states = vec![];
        for bytes in &read.batches {
            let at = p.positions().log_end;
            states.push((at, p.producers(), p.transaction_figures().1));
            p.append_as_follower(bytes.clone()).unwrap();
            log.step_commit();
        }
        log.step_checkpoint().unwrap();
        if lost_snapshots {
            for file in rig.disk.files().into_iter().filter(|f| f.ends_with(".snapshot")) {
                rig.disk.plant(&file, b"rot");
            }
        }
        for (at, producers, open) in states.into_iter().rev() {
            p.truncate_to(at).unwrap();
            log.step_commit();
            assert_eq!(p.positions().log_end, at);
            assert_eq!((p.producers(), p.transaction_figures().1), (producers, open), "at {at}");
        }
        assert!(p.producers().is_empty());
        // And forward once more, another way: nothing of the first life is in the lists.
        for bytes in read.batches.iter().take(9) {
            p.append_as_follower(bytes.clone()).unwrap();
            log.step_commit();
        }
        p.advance_high_watermark(p.positions().log_end);
        assert_eq!(aborted(&p), [(5, 0, 4), (5, 6, 10)]);
    }
}

/// A list that is missing, cut or rotten is made anew from the log; nothing aborted is ever shown.
#[test]
fn a_lost_list_of_aborted_transactions_is_made_anew() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, small())[0].clone();
    fill(&log, &p, 12);
    let wanted = aborted(&p);
    assert_eq!(wanted.len(), 12);
    log.step_close().unwrap();
    let lists = || rig.disk.files().into_iter().filter(|f| f.ends_with(".txnindex"));
    assert!(lists().count() >= 3);
    for spoil in [&b""[..], b"rot", &[0; 34]] {
        for snapshots in [".snapshot", "none"] {
            for file in rig.disk.files() {
                if file.ends_with(".txnindex") || file.ends_with(snapshots) {
                    rig.disk.plant(&file, spoil);
                }
            }
            let (log, _) = rig.open();
            assert_eq!(aborted(&first(&log)), wanted);
            log.step_close().unwrap();
        }
    }
}

#[test]
fn silent_producers_are_forgotten_on_the_log_clock() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    p.append_batch(batch_of(5, 0, 0, 1)).unwrap();
    p.append_batch(batch_of(6, 0, 0, 1)).unwrap();
    p.append_marker(&marker(6, 0, true)).unwrap();
    log.step_commit();
    let hours = |log: &Log, count: u32| {
        for _ in 0..count {
            rig.clock.advance_ms(3_600_000);
            log.step_upkeep();
        }
    };
    hours(&log, 23);
    assert_eq!(log.stats().producers, 2);
    hours(&log, 2);
    let stats = log.stats();
    assert_eq!((stats.producers, stats.producers_expired), (1, 1), "5 has a transaction open");
    assert_eq!((stats.open_transactions, stats.oldest_transaction_ms), (1, 25 * 3_600_000));
    // Nobody knows it any more: any sequence may come.
    p.append_batch(batch_of(6, 0, 77, 1)).unwrap();
    log.step_commit();
    log.step_checkpoint().unwrap();
    drop(log);
    rig.crash();
    let (log, _) = rig.open();
    assert_eq!(first(&log).producers().len(), 2);
}

/// Before, the place of a producer with more than five batches in a cut tail was lost with them.
#[test]
fn a_cut_tail_gives_each_producer_its_place_back() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    p.append_batch(batch_of(5, 0, 0, 1)).unwrap();
    log.step_commit();
    rig.disk.set_capacity(Some(rig.disk.used_bytes()));
    let large = |sequence| batch_of(5, 0, sequence, 100);
    for i in 0..9 {
        p.append_batch(large(1 + i * 100)).unwrap();
    }
    p.append_marker(&marker(5, 0, false)).unwrap();
    log.step_commit();
    assert_eq!(p.positions().log_end, o(1), "cut");
    assert_eq!(stable(&p), (0, 1), "it is open again");
    rig.disk.set_capacity(None);
    rig.clock.advance_ms(2_000);
    log.step_commit();
    log.step_upkeep();
    let wrong = p.append_batch(large(401));
    assert!(matches!(wrong, Err(AppendError::OutOfOrderSequence { expected: 1, .. })), "{wrong:?}");
    p.append_batch(large(1)).unwrap();
}
