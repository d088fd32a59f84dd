//! The life of topics: retention, holds, deletion, settings, lookups, idempotent producers.

use super::faults::{Rig, first};
use super::{append, numbered, settings, topic, values};
use crate::batch::{self, BatchBuilder, Seal};
use crate::clock::Clock;
use crate::metadata::{Durability, TopicSettings};
use crate::record::{Headers, RecordParts};
use crate::{
    AckPoint, AppendError, Loss, Offset, Partition, ReadError, ReadLimit, Settled, TopicName,
};
use bytes::BytesMut;

fn o(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

/// A batch as an idempotent client sends it.
fn client_batch(producer: i64, epoch: i16, sequence: i32, records: usize) -> BytesMut {
    let mut builder = BatchBuilder::new();
    for i in 0..records {
        let value = format!("client {producer} {}", sequence as usize + i);
        let record = RecordParts {
            timestamp_ms: 1000 + i as i64,
            key: None,
            value: Some(value.as_bytes()),
            headers: Headers::EMPTY,
        };
        builder.push(&record, 1 << 20).unwrap();
    }
    let mut bytes = BytesMut::from(&builder.seal(Seal::default()).unwrap()[..]);
    batch::readdress(&mut bytes, producer, epoch, sequence);
    bytes
}

#[test]
fn a_batch_sent_again_is_recognised_also_after_a_crash() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    append(&p, "mqtt");
    let one = p.append_batch(client_batch(9, 0, 0, 3)).unwrap();
    assert_eq!((one.base.offset.get(), one.last.offset.get()), (1, 3));
    let again = p.append_batch(client_batch(9, 0, 0, 3)).unwrap();
    assert!(again.duplicate && again.base == one.base && again.last == one.last);
    assert_eq!(
        p.settled(AckPoint::HighWatermark, again.last),
        Settled::Waiting,
        "waits for the original"
    );
    log.step_commit();
    log.step_checkpoint().unwrap();
    let two = p.append_batch(client_batch(9, 0, 3, 2)).unwrap();
    log.step_commit();
    p.append_batch(client_batch(9, 0, 5, 1)).unwrap();
    drop(log);
    rig.crash();
    let (log, _) = rig.open();
    let p = first(&log);
    let end = p.positions().log_end;
    for (sequence, records, original) in [(0, 3, one), (3, 2, two)] {
        let again = p.append_batch(client_batch(9, 0, sequence, records)).unwrap();
        assert!(again.duplicate);
        assert_eq!((again.base, again.last), (original.base, original.last));
        assert_eq!(p.settled(AckPoint::HighWatermark, again.last), Settled::Passed);
    }
    assert_eq!(p.positions().log_end, end);
    assert!(matches!(
        p.append_batch(client_batch(9, 0, 7, 1)),
        Err(AppendError::OutOfOrderSequence { .. })
    ));
    assert_eq!(p.producers().len(), 1);
}

#[test]
fn batches_that_a_broker_would_refuse_are_refused() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    let mut bad = client_batch(9, 0, 0, 3);
    bad[70] ^= 1;
    assert!(matches!(p.append_batch(bad), Err(AppendError::Corrupt(_))));
    let mut trailing = client_batch(9, 0, 0, 3);
    trailing.extend_from_slice(b"x");
    assert!(matches!(p.append_batch(trailing), Err(AppendError::Corrupt(_))));
    assert!(matches!(
        p.append_batch(client_batch(9, 0, 0, 20_000)),
        Err(AppendError::TooLarge { .. })
    ));
    let large = RecordParts {
        timestamp_ms: 0,
        key: None,
        value: Some(&[0; 100_000]),
        headers: Headers::EMPTY,
    };
    let small = RecordParts { value: Some(b"small"), ..large };
    assert!(matches!(p.append(&[small, large]), Err(AppendError::TooLarge { .. })));
    assert!(p.append(&[]).is_err());
    assert_eq!(p.positions().log_end, Offset::ZERO, "nothing was stored");
    log.step_commit();
    // The largest record that fits is stored, and one byte more is not.
    let value = vec![0; 100_000];
    let overhead = BatchBuilder::new().size_bytes_with(&large) - 100_000;
    let fits = RecordParts { value: Some(&value[..100_000 - overhead]), ..large };
    let over = RecordParts { value: Some(&value[..100_001 - overhead]), ..large };
    assert!(matches!(p.append(&[over]), Err(AppendError::TooLarge { .. })));
    p.append(&[small, fits, small]).unwrap();
    log.step_commit();
    assert_eq!(values(&p).len(), 3);
}

#[test]
fn a_topic_made_again_under_its_name_starts_empty_and_stays_so() {
    let mut rig = Rig::new();
    let name = TopicName::new("t").unwrap();
    for checkpoint in [false, true] {
        let (log, _) = rig.open();
        let p = topic(&log, "t", 1, settings())[0].clone();
        for value in numbered(0..50) {
            append(&p, &value);
            log.step_commit();
        }
        if checkpoint {
            log.step_checkpoint().unwrap();
        }
        let waiting = append(&p, "waits");
        log.delete_topic(&name).unwrap();
        assert_eq!(p.settled(AckPoint::Synced, waiting.last), Settled::Lost(Loss::Deleted));
        assert!(matches!(p.read(o(0), 1, ReadLimit::HighWatermark), Err(ReadError::Deleted)));
        let again = topic(&log, "t", 1, settings())[0].clone();
        append(&again, "new life");
        while log.step_commit() {}
        log.step_upkeep();
        assert_eq!(values(&again), ["new life"]);
        assert_eq!(log.stats().uncommitted_bytes, 0);
        drop(log);
        for _ in 0..2 {
            rig.crash();
            let (log, recovery) = rig.open();
            assert!(recovery.findings.is_empty(), "{recovery:?}");
            assert_eq!(values(&first(&log)), ["new life"]);
            log.step_upkeep();
            let left: Vec<_> =
                rig.disk.files().into_iter().filter(|f| f.contains("deleted")).collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let (log, _) = rig.open_again();
        log.delete_topic(&name).unwrap();
        while log.step_commit() {}
        log.step_close().unwrap();
    }
}

impl Rig {
    fn open_again(&mut self) -> (crate::Log, crate::Recovery) {
        self.disk = self.disk.after_kill();
        self.open()
    }
}

pub(super) fn fill(rig: &Rig, log: &crate::Log, p: &Partition, records: usize) {
    for value in numbered(0..records) {
        append(p, &value);
        log.step_commit();
        rig.clock.advance_ms(1000);
    }
}

#[test]
fn retention_by_size_never_passes_a_hold_nor_the_checkpoint() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let small = TopicSettings { retention_bytes: Some(100_000), ..settings() };
    let p = topic(&log, "t", 1, small)[0].clone();
    let hold = p.hold("dc");
    assert_eq!(p.hold("dc").checkpointed(), Offset::ZERO);
    fill(&rig, &log, &p, 2000);
    log.step_upkeep();
    assert_eq!(p.positions().log_start, Offset::ZERO, "held");
    log.step_checkpoint().unwrap();
    hold.checkpoint(o(700));
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    let start = p.positions().log_start.get();
    assert!((1..=700).contains(&start), "{start}");
    let first_file = format!("/{start:020}.log");
    let logs: Vec<_> = rig.disk.files().into_iter().filter(|f| f.ends_with(".log")).collect();
    assert!(logs[0].ends_with(&first_file), "{logs:?}");
    assert!(matches!(
        p.read(o(start - 1), 1, ReadLimit::HighWatermark),
        Err(ReadError::OutOfRange { .. })
    ));
    hold.checkpoint(o(2000));
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    assert!(p.positions().log_start.get() > 1000);
    assert!((100_000..200_000).contains(&p.size_bytes()), "{}", p.size_bytes());
    let expected = numbered(0..2000);
    assert_eq!(values(&p), expected[p.positions().log_start.get() as usize..]);
    let start = p.positions().log_start;
    drop(log);
    rig.crash();
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty());
    assert_eq!(first(&log).positions().log_start, start);
    assert_eq!(values(&first(&log)), expected[start.get() as usize..]);
}

#[test]
fn retention_by_time_waits_for_a_clock_that_can_be_trusted() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let short = TopicSettings { retention_ms: Some(3_600_000), ..settings() };
    let p = topic(&log, "t", 1, short)[0].clone();
    fill(&rig, &log, &p, 2000);
    log.step_checkpoint().unwrap();
    rig.clock.set_trusted(false);
    rig.clock.advance_ms(2 * 3_600_000);
    log.step_upkeep();
    assert_eq!(p.positions().log_start, Offset::ZERO, "an untrusted clock deletes nothing");
    rig.clock.set_trusted(true);
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    let start = p.positions().log_start.get();
    assert!(start > 1500, "{start}");
    // A year ahead within a moment: somebody set the clock wrong.
    fill(&rig, &log, &p, 1000);
    log.step_checkpoint().unwrap();
    rig.clock.jump_to_ms(rig.clock.wall_ms() + 31_536_000_000);
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    assert_eq!(p.positions().log_start.get(), start);
}

#[test]
fn a_segment_that_the_checkpoint_has_as_the_active_one_stays() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let hour = 3_600_000;
    let short = TopicSettings { retention_ms: Some(hour), segment_ms: hour, ..settings() };
    let p = topic(&log, "t", 1, short)[0].clone();
    fill(&rig, &log, &p, 10);
    log.step_checkpoint().unwrap();
    // Nothing for a while; then one message rolls, and all before it is too old.
    rig.clock.advance_ms(2 * 3_600_000);
    fill(&rig, &log, &p, 1);
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    let again = numbered(0..10).into_iter().chain(numbered(0..1)).collect::<Vec<_>>();
    assert_eq!(values(&p), again);
    drop(log);
    rig.crash();
    let (log, recovery) = rig.open();
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    let p = first(&log);
    assert_eq!(values(&p), again);
    // Beyond it: now it may go.
    rig.clock.advance_ms(2 * 3_600_000);
    fill(&rig, &log, &p, 1);
    log.step_checkpoint().unwrap();
    rig.clock.advance_ms(6000);
    log.step_upkeep();
    assert_eq!(p.positions().log_start, o(11));
    assert_eq!(values(&p).len(), 1);
}

#[test]
fn delete_records_is_at_once_and_for_good() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    fill(&rig, &log, &p, 100);
    append(&p, "uncommitted");
    p.delete_before(o(40));
    assert_eq!(p.positions().log_start, o(40));
    p.delete_before(o(1000));
    assert_eq!(p.positions().log_start, o(100), "not beyond the high watermark");
    log.step_commit();
    drop(log);
    rig.crash();
    let (log, _) = rig.open();
    assert_eq!(first(&log).positions().log_start, o(100));
    assert_eq!(values(&first(&log)), ["uncommitted"]);
}

#[test]
fn a_changed_durability_loses_nothing_whenever_the_power_goes() {
    for (from, to) in
        [(Durability::Memory, Durability::Fsync), (Durability::Fsync, Durability::Memory)]
    {
        let mut rig = Rig::new();
        let (log, _) = rig.open();
        let before = TopicSettings { durability: from, ..settings() };
        let p = topic(&log, "t", 1, before.clone())[0].clone();
        fill(&rig, &log, &p, 200);
        let name = TopicName::new("t").unwrap();
        log.alter_topic(&name, TopicSettings { durability: to, ..before }).unwrap();
        assert_eq!(p.durability(), from);
        fill(&rig, &log, &p, 200);
        assert_eq!(p.durability(), to);
        if to == Durability::Memory {
            rig.clock.advance_ms(1001);
            log.step_upkeep();
        }
        assert_eq!(p.positions().synced.get(), 400);
        drop(log);
        rig.crash();
        let (log, recovery) = rig.open();
        assert!(recovery.findings.is_empty(), "{recovery:?}");
        assert_eq!(values(&first(&log)).len(), 400);
        assert_eq!(first(&log).durability(), to);
    }
}

#[test]
fn lookups_by_time_and_size_agree_with_what_is_stored() {
    for tail in [0, 1 << 20] {
        let mut rig = Rig::new();
        rig.options.tail_bytes_max = tail;
        let (log, _) = rig.open();
        let p = topic(&log, "t", 1, settings())[0].clone();
        assert_eq!(p.offset_for_timestamp(0).unwrap(), None);
        assert_eq!(p.offset_of_max_timestamp().unwrap(), None);
        let mut sizes = Vec::new();
        for i in 0..1000i64 {
            // Rising by tens, but for one record from the future in the middle.
            let timestamp_ms = if i == 500 { 1_000_000 } else { i * 10 };
            let record = RecordParts {
                timestamp_ms,
                key: None,
                value: Some(&[1; 200]),
                headers: Headers::EMPTY,
            };
            p.append(&[record]).unwrap();
            if i % 3 == 0 {
                log.step_commit();
            }
            sizes.push(p.size_bytes());
        }
        log.step_commit();
        let at = |ms| p.offset_for_timestamp(ms).unwrap().map(|f| (f.offset.get(), f.timestamp_ms));
        assert_eq!(at(0), Some((0, 0)));
        assert_eq!(at(4990), Some((499, 4990)));
        assert_eq!(at(4991), Some((500, 1_000_000)));
        assert_eq!(at(9990), Some((500, 1_000_000)));
        assert_eq!(at(1_000_001), None);
        let max = p.offset_of_max_timestamp().unwrap().unwrap();
        assert_eq!((max.offset.get(), max.timestamp_ms), (500, 1_000_000));
        let total = p.size_bytes();
        assert_eq!(p.bytes_after(Offset::ZERO), total);
        assert_eq!(p.bytes_after(o(1000)), 0);
        let half = p.bytes_after(o(500));
        assert!(half.abs_diff(total / 2) < 10_000, "{half} of {total}");
        assert_eq!(p.epoch_of(o(3)), Some(p.positions().epoch));
        assert_eq!(p.end_of_epoch(p.positions().epoch).unwrap().1, o(1000));
        assert!(p.is_in_memory(o(999)) || tail == 0);
    }
}

#[test]
fn a_ring_that_is_full_makes_commits_checkpoint_first() {
    let mut rig = Rig::new();
    rig.options.journal_file_bytes = 64 << 10;
    rig.options.journal_files = 2;
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    fill(&rig, &log, &p, 500);
    assert!(log.stats().ring_waits > 0);
    assert!(log.stats().checkpoints > 1);
    drop(log);
    rig.crash();
    let (log, _) = rig.open();
    assert_eq!(values(&first(&log)), numbered(0..500));
}

#[test]
fn a_card_in_another_machine_is_noticed_until_it_is_noted() {
    let mut rig = Rig::new();
    let (log, _) = rig.open();
    let id = log.next_producer_id().unwrap();
    drop(log);
    rig.crash();
    rig.disk.set_machine_id(Some([9; 16]));
    let (log, recovery) = rig.open();
    assert!(recovery.moved_machine);
    assert_eq!(recovery.findings.len(), 1);
    let leapt = log.next_producer_id().unwrap();
    assert!(leapt > id + 1000);
    drop(log);
    rig.crash();
    rig.disk.set_machine_id(Some([9; 16]));
    let (log, recovery) = rig.open();
    assert!(recovery.moved_machine, "a crash came before anybody had noted it");
    assert!(log.next_producer_id().unwrap() > leapt);
    log.note_machine().unwrap();
    drop(log);
    rig.crash();
    rig.disk.set_machine_id(Some([9; 16]));
    let (_log, recovery) = rig.open();
    assert!(!recovery.moved_machine && recovery.findings.is_empty());
}

#[test]
fn a_durability_asked_for_before_the_first_checkpoint_does_not_hide_what_is_there() {
    let rig = Rig::new();
    let (log, _) = rig.open();
    let memory = TopicSettings { durability: Durability::Memory, ..settings() };
    let p = topic(&log, "t", 1, memory)[0].clone();
    append(&p, "in the kernel");
    while log.step_commit() {}
    log.alter_topic(&TopicName::new("t").unwrap(), settings()).unwrap();
    while log.step_commit() {}
    let mut rig = rig;
    rig.disk = rig.disk.after_kill();
    let (log, _) = rig.open();
    assert_eq!(values(&first(&log)), ["in the kernel"]);
}

#[test]
fn the_journals_account_goes_on_over_clean_and_unclean_ends() {
    let mut rig = Rig::new();
    rig.options.journal_bytes_per_day = Some(64 << 20);
    let mut wanted = 0;
    for start in 0..6 {
        let (log, _) = rig.open();
        assert_eq!(log.stats().journal_day_bytes, wanted, "at start {start}");
        let p = match start {
            0 => topic(&log, "t", 1, settings())[0].clone(),
            _ => first(&log),
        };
        for round in 0..20 {
            append(&p, "a trickle");
            log.step_commit();
            if round == 7 {
                log.step_checkpoint().unwrap();
            }
        }
        wanted += log.stats().journal_bytes;
        assert_eq!(log.stats().journal_day_bytes, wanted);
        if start % 2 == 0 {
            drop((log, p));
            rig.crash();
        } else {
            wanted -= log.stats().journal_bytes;
            log.step_close().unwrap();
            wanted += log.stats().journal_bytes;
        }
    }
    // A trusted clock says that two days have passed.
    rig.clock.advance_ms(2 * 86_400_000);
    assert_eq!(rig.open().0.stats().journal_day_bytes, 0);
}
