//! Each rule of Kafka's ProducerAppendInfo and ProducerStateManager, by itself.

use super::*;
use crate::encoding::Fields;

const ID: i64 = 7;

fn o(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

fn header(epoch: i16, sequence: i32, records: i32) -> BatchHeader {
    BatchHeader {
        base_offset: 0,
        batch_length: 49,
        partition_leader_epoch: 0,
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: ID,
        producer_epoch: epoch,
        base_sequence: sequence,
        record_count: records,
    }
}

fn transactional(epoch: i16, sequence: i32) -> BatchHeader {
    BatchHeader { attributes: 0x10, ..header(epoch, sequence, 1) }
}

fn of(producer_id: i64, header: BatchHeader) -> BatchHeader {
    BatchHeader { producer_id, ..header }
}

fn marker(epoch: i16, commit: bool, coordinator_epoch: i32) -> TransactionMarker {
    TransactionMarker {
        producer_id: ID,
        producer_epoch: epoch,
        end: EndTransaction { commit, coordinator_epoch },
        bumps_epoch: false,
        timestamp_ms: 0,
    }
}

impl Producers {
    fn judge(&self, header: &BatchHeader) -> Result<Sequence, AppendError> {
        self.check(header, Origin::Client)
    }

    fn data(&mut self, header: &BatchHeader, base: i64) {
        assert_eq!(self.apply(header, o(base), None, 0), None);
    }

    fn end(&mut self, marker: &TransactionMarker, at: i64) -> Option<AbortedTransaction> {
        self.check_marker(marker).unwrap();
        let header = BatchHeader {
            attributes: 0x30,
            ..of(marker.producer_id, header(marker.producer_epoch, -1, 1))
        };
        self.apply(&header, o(at), Some(marker.end), 0)
    }
}

#[test]
fn duplicates_gaps_and_fences() {
    let mut p = Producers::default();
    for i in 0..7 {
        let h = header(0, i * 10, 10);
        assert_eq!(p.judge(&h), Ok(Sequence::New));
        p.data(&h, i64::from(i) * 10);
    }
    assert_eq!(p.judge(&header(0, 30, 10)), Ok(Sequence::Duplicate(o(30), o(39))));
    let gap =
        |expected, found| Err(AppendError::OutOfOrderSequence { producer_id: ID, expected, found });
    assert_eq!(p.judge(&header(0, 10, 10)), gap(70, 10), "older than the last five");
    assert_eq!(p.judge(&header(0, 60, 9)), gap(70, 60), "another batch at a known sequence");
    assert_eq!(p.judge(&header(0, 80, 10)), gap(70, 80));
    assert_eq!(p.judge(&header(1, 70, 1)), gap(0, 70), "a new epoch starts at 0");
    assert_eq!(p.judge(&header(1, 0, 1)), Ok(Sequence::New));
    p.data(&header(1, 0, 1), 70);
    let fenced = Err(AppendError::ProducerFenced { producer_id: ID, current: 1, found: 0 });
    assert_eq!(p.judge(&header(0, 60, 10)), fenced, "a duplicate of a fenced epoch is fenced too");
    assert_eq!(p.judge(&header(1, 1, 1)), Ok(Sequence::New));
}

#[test]
fn an_unknown_producer_may_start_at_any_sequence() {
    let mut p = Producers::default();
    assert_eq!(p.judge(&header(3, 41, 1)), Ok(Sequence::New));
    p.data(&header(3, 41, 1), 0);
    assert_eq!(p.judge(&header(3, 42, 1)), Ok(Sequence::New));
    assert!(p.judge(&header(3, 40, 1)).is_err());
    let no_producer = BatchHeader { producer_id: -1, producer_epoch: -1, ..header(0, -1, 1) };
    assert_eq!(p.judge(&no_producer), Ok(Sequence::New));
    assert_eq!(p.apply(&no_producer, o(1), None, 0), None);
    assert_eq!(p.list().len(), 1);
}

#[test]
fn sequences_wrap_from_the_largest_to_zero() {
    let mut p = Producers::default();
    p.data(&header(0, i32::MAX - 1, 2), 0);
    assert_eq!(p.judge(&header(0, 0, 1)), Ok(Sequence::New));
    assert!(p.judge(&header(0, 1, 1)).is_err());
    // And within a batch: MAX, 0, 1.
    let mut p = Producers::default();
    let across = header(0, i32::MAX, 3);
    p.data(&across, 0);
    assert_eq!(across.last_sequence(), 1);
    assert_eq!(p.judge(&header(0, 2, 1)), Ok(Sequence::New));
    assert_eq!(p.judge(&across), Ok(Sequence::Duplicate(o(0), o(2))));
    let read = Producers::from_snapshot(&p.to_snapshot(), o(3), 0).unwrap();
    assert_eq!(read.judge(&across), Ok(Sequence::Duplicate(o(0), o(2))));
}

#[test]
fn a_transaction_opens_with_its_first_batch_and_ends_with_its_marker() {
    let mut p = Producers::default();
    assert_eq!(p.first_unstable(o(100)), None);
    p.data(&transactional(0, 0), 10);
    p.data(&of(8, transactional(0, 0)), 11);
    p.data(&transactional(0, 1), 12);
    assert!(p.is_open(ID, 0) && !p.is_open(ID, 1));
    assert_eq!(p.first_unstable(o(100)), Some(o(10)));
    let aborted = p.end(&marker(0, false, 4), 13).unwrap();
    let wanted = AbortedTransaction {
        producer_id: ID,
        first: o(10),
        last: o(13),
        // What the other one still has open.
        last_stable: o(11),
    };
    assert_eq!(aborted, wanted);
    assert_eq!(p.first_unstable(o(13)), Some(o(10)), "the marker is not seen yet");
    assert_eq!(p.first_unstable(o(14)), Some(o(11)));
    p.settle(o(14));
    assert_eq!(p.first_unstable(o(14)), Some(o(11)));
    let other = TransactionMarker { producer_id: 8, ..marker(0, true, 4) };
    assert_eq!(p.end(&other, 14), None, "committed");
    p.settle(o(15));
    assert_eq!(p.first_unstable(o(15)), None);
    // The sequence goes on behind the marker, in the same epoch.
    assert_eq!(p.judge(&transactional(0, 2)), Ok(Sequence::New));
    assert_eq!(p.list()[0].coordinator_epoch, 4);
}

#[test]
fn a_marker_again_changes_nothing() {
    let mut p = Producers::default();
    p.data(&transactional(0, 0), 0);
    assert!(p.end(&marker(0, false, 1), 1).is_some());
    assert_eq!(p.end(&marker(0, false, 1), 2), None);
    p.settle(o(3));
    assert_eq!(p.first_unstable(o(3)), None);
    assert_eq!(p.end(&marker(0, true, 1), 3), None, "nor one of the other kind");
}

#[test]
fn zombies_are_fenced() {
    let mut p = Producers::default();
    p.data(&transactional(3, 0), 0);
    let old = marker(2, true, 1);
    let fenced = AppendError::ProducerFenced { producer_id: ID, current: 3, found: 2 };
    assert_eq!(p.check_marker(&old), Err(fenced));
    p.end(&marker(3, true, 5), 1);
    let fenced = AppendError::CoordinatorFenced { producer_id: ID, current: 5, found: 4 };
    assert_eq!(p.check_marker(&marker(3, true, 4)), Err(fenced));
    assert_eq!(p.check_marker(&marker(3, true, 6)), Ok(()));
    assert_eq!(p.check_marker(&marker(4, true, 5)), Ok(()));
}

/// KIP-360: an abort with a higher epoch fences the producer it came from, and its next epoch begins at 0.
#[test]
fn a_marker_may_bump_the_epoch() {
    let mut p = Producers::default();
    p.data(&transactional(0, 17), 0);
    assert!(p.end(&marker(1, false, 0), 1).is_some());
    assert!(matches!(p.judge(&transactional(0, 18)), Err(AppendError::ProducerFenced { .. })));
    let gap = AppendError::OutOfOrderSequence { producer_id: ID, expected: 0, found: 18 };
    assert_eq!(p.judge(&transactional(1, 18)), Err(gap));
    assert_eq!(p.judge(&transactional(1, 0)), Ok(Sequence::New));
    assert_eq!((p.list()[0].last_sequence, p.list()[0].last_offset), (-1, None));
}

/// KIP-890: with an epoch per transaction a late marker cannot end the next one, and a repeated one does no harm.
#[test]
fn a_late_marker_does_not_end_the_next_transaction() {
    let mut p = Producers::default();
    p.data(&transactional(0, 0), 0);
    let first = TransactionMarker { bumps_epoch: true, ..marker(1, true, 0) };
    p.end(&first, 1);
    assert_eq!(p.check_marker(&first), Ok(()), "nothing is open: the same once more");
    p.data(&transactional(1, 0), 2);
    let fenced = AppendError::ProducerFenced { producer_id: ID, current: 1, found: 1 };
    assert_eq!(p.check_marker(&first), Err(fenced));
    assert_eq!(p.check_marker(&marker(1, true, 0)), Ok(()), "older coordinators end it so");
    let second = TransactionMarker { bumps_epoch: true, ..marker(2, true, 0) };
    assert_eq!(p.check_marker(&second), Ok(()));
}

#[test]
fn inside_a_transaction_only_its_own_batches_are_taken() {
    let mut p = Producers::default();
    p.data(&transactional(0, 0), 0);
    let refused = p.judge(&header(0, 1, 1));
    assert!(matches!(refused, Err(AppendError::InvalidTransaction { .. })), "{refused:?}");
    assert_eq!(p.judge(&transactional(0, 1)), Ok(Sequence::New));
    p.end(&marker(0, true, 0), 1);
    assert_eq!(p.judge(&header(0, 1, 1)), Ok(Sequence::New));
}

#[test]
fn a_coordinators_offsets_have_no_sequences() {
    let mut p = Producers::default();
    let offsets = BatchHeader { base_sequence: -1, ..transactional(2, 0) };
    for at in 0..8 {
        assert_eq!(p.check(&offsets, Origin::Coordinator), Ok(Sequence::New));
        p.data(&offsets, at);
    }
    assert!(p.is_open(ID, 2));
    let old = BatchHeader { producer_epoch: 1, ..offsets };
    assert!(p.check(&old, Origin::Coordinator).is_err());
    assert_eq!((p.list()[0].last_sequence, p.list()[0].last_offset), (-1, Some(o(7))));
}

#[test]
fn who_wrote_longest_ago_is_forgotten_unless_its_transaction_is_open() {
    let mut p = Producers::default();
    p.data(&of(0, transactional(0, 0)), 0);
    for id in 1..PRODUCERS_MAX as i64 + 10 {
        let h = of(id, header(0, 0, 1));
        assert_eq!(p.judge(&h), Ok(Sequence::New));
        p.data(&h, id);
    }
    assert_eq!(p.list().len(), PRODUCERS_MAX);
    assert_eq!((p.list()[0].id, p.list()[1].id), (0, 11));
    assert!(p.is_open(0, 0));
}

#[test]
fn where_all_have_a_transaction_open_a_new_producer_waits() {
    let mut p = Producers::default();
    for id in 0..PRODUCERS_MAX as i64 {
        p.data(&of(id, transactional(0, 0)), id);
    }
    let new = of(1 << 40, header(0, 0, 1));
    assert_eq!(p.judge(&new), Err(AppendError::Busy));
    assert_eq!(p.judge(&of(3, transactional(0, 1))), Ok(Sequence::New));
    let ends = TransactionMarker { producer_id: 3, ..marker(0, true, 0) };
    p.end(&ends, PRODUCERS_MAX as i64);
    assert_eq!(p.judge(&new), Ok(Sequence::New));
    p.data(&new, PRODUCERS_MAX as i64 + 1);
    assert_eq!(p.list().len(), PRODUCERS_MAX);
    assert!(p.list().iter().all(|producer| producer.id != 3));
}

#[test]
fn producers_expire_by_the_log_clock_but_not_with_an_open_transaction() {
    let mut p = Producers::default();
    p.apply(&of(1, header(0, 0, 1)), o(0), None, 1_000);
    p.apply(&of(2, transactional(0, 0)), o(1), None, 1_000);
    // A record's own timestamp may be years old: it does not count.
    p.apply(&of(3, BatchHeader { max_timestamp: -5, ..header(0, 0, 1) }), o(2), None, 1_500);
    assert_eq!(p.expire(1_999, 1_000), 0);
    assert_eq!(p.expire(2_000, 1_000), 1);
    assert_eq!(p.list().iter().map(|p| p.id).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(p.expire(i64::MAX, 1_000), 1);
    assert_eq!(p.figures(), (1, 1, Some(1_000)));
    p.end(&TransactionMarker { producer_id: 2, ..marker(0, true, 0) }, 3);
    assert_eq!(p.expire(i64::MAX, 1_000), 1);
    assert!(p.list().is_empty());
}

/// What the catalog holds is the whole state.
#[test]
fn the_catalogs_form_is_the_state() {
    let mut p = Producers::default();
    for i in 0..7 {
        p.apply(&of(5, header(2, i, 1)), o(i64::from(i)), None, 77);
    }
    p.data(&transactional(0, 0), 7);
    p.data(&of(8, transactional(1, 9)), 8);
    p.end(&TransactionMarker { producer_id: 8, ..marker(1, false, 3) }, 9);
    let mut bytes = Vec::new();
    p.encode(&mut bytes);
    let mut fields = Fields::new(&bytes);
    assert_eq!(Producers::decode(&mut fields), Some(p.clone()));
    assert!(fields.rest().is_empty());
    for end in 0..bytes.len() {
        assert_eq!(Producers::decode(&mut Fields::new(&bytes[..end])), None, "cut at {end}");
    }
}

/// Kafka's snapshot has the last batch of each producer, which is what it continues from.
#[test]
fn a_snapshot_is_kafkas_and_goes_on_where_it_was_taken() {
    let mut p = Producers::default();
    for i in 0..7 {
        p.data(&of(5, header(2, i * 3, 3)), i64::from(i) * 3);
    }
    p.data(&transactional(0, 4), 21);
    let bytes = p.to_snapshot();
    assert_eq!(bytes.len(), 10 + 2 * 46);
    assert_eq!((bytes[1], bytes[9]), (1, 2));
    let wanted: Vec<u8> = [
        &5i64.to_be_bytes()[..],
        &2i16.to_be_bytes(),
        &20i32.to_be_bytes(),
        &20i64.to_be_bytes(),
        &2i32.to_be_bytes(),
        &0i64.to_be_bytes(),
        &(-1i32).to_be_bytes(),
        &(-1i64).to_be_bytes(),
    ]
    .concat();
    assert_eq!(bytes[10..56], wanted);
    let read = Producers::from_snapshot(&bytes, o(22), 9).unwrap();
    assert_eq!(read.judge(&of(5, header(2, 21, 1))), Ok(Sequence::New));
    assert_eq!(
        read.judge(&of(5, header(2, 18, 3))),
        Ok(Sequence::Duplicate(o(18), o(20))),
        "the last batch is known"
    );
    assert!(read.is_open(ID, 0));
    assert_eq!(read.first_unstable(o(100)), Some(o(21)));
    assert_eq!(Producers::from_snapshot(&bytes, o(21), 9), None, "of a later offset");
    for at in 0..bytes.len() {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x10;
        assert_eq!(Producers::from_snapshot(&wrong, o(22), 9), None, "byte {at}");
        assert_eq!(Producers::from_snapshot(&bytes[..at], o(22), 9), None, "cut at {at}");
    }
    let empty = Producers::default().to_snapshot();
    assert_eq!(Producers::from_snapshot(&empty, o(0), 0), Some(Producers::default()));
}

#[test]
fn lost_records_leave_transactions_open_and_sequences_free() {
    let mut p = Producers::default();
    p.data(&transactional(0, 0), 0);
    p.data(&of(8, header(0, 0, 1)), 1);
    p.forget_sequences();
    assert_eq!(p.list().iter().map(|p| p.id).collect::<Vec<_>>(), [ID]);
    assert_eq!(p.first_unstable(o(9)), Some(o(0)));
    assert_eq!(p.judge(&of(8, header(0, 50, 1))), Ok(Sequence::New));
}
