//! Offsets without a record for the centre: ends of transactions, what was aborted, deleted, or taken by compaction.

use super::*;

#[test]
fn a_control_batch_and_a_deleted_range_are_recorded_steps() {
    let mut s = Streaming::new();
    s.store(10);
    let marker = BatchHeader { attributes: 0x30, ..header(20, 1, 100 * HOUR_MS) };
    assert_eq!(s.mirror.offer(&marker, 70, 0, s.now), Offer::Drop);
    let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
    assert_eq!((anchor.anchor.source.offset.get(), anchor.anchor.sequence.get()), (21, 10));
    s.mirror.durable();
    assert_eq!(s.send(21), 10, "no sequence is left out");
    s.answer(21, Answer::Stored(Some(510)));
    assert_eq!(s.mirror.checkpoint.as_ref().unwrap().delta(), Some(489));
    assert_eq!(s.mirror.skip_to(50, epoch_of(&marker), Passed::Lost), Offer::Drop);
    let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
    assert_eq!((anchor.acked.offset.get(), anchor.delta()), (50, Some(470)));
    let notes = s.mirror.take_notes();
    let control = Note::Skipped { from: 20, to: 21, passed: Passed::LeftOut };
    assert_eq!(notes, [control, Note::Skipped { from: 31, to: 50, passed: Passed::Lost }]);
}

#[test]
fn what_was_aborted_is_passed_over_in_one_step_when_nothing_is_under_way() {
    let mut s = Streaming::new();
    s.store(10);
    s.send(20);
    let aborted = header(30, 10, 100 * HOUR_MS);
    assert_eq!(s.mirror.leave_out(&aborted, 75, 0, s.now), Offer::Later, "20..30 is under way");
    s.answer(20, Answer::Stored(Some(510)));
    assert_eq!(s.mirror.leave_out(&aborted, 75, 0, s.now), Offer::Drop);
    let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
    assert_eq!((anchor.anchor.source.offset.get(), anchor.anchor.sequence.get()), (75, 20));
    s.mirror.durable();
    assert_eq!(s.send(75), 20, "no sequence is left out");
    s.answer(75, Answer::Stored(Some(520)));
    assert_eq!(
        s.mirror.take_notes(),
        [Note::Skipped { from: 30, to: 75, passed: Passed::LeftOut }]
    );
    assert!(s.mirror.stopped().is_none());
}

#[test]
fn a_log_that_starts_inside_a_batch_is_begun_with_all_of_it() {
    let mut s = Streaming::new();
    assert_eq!(s.offer(5), Offer::Drop);
    let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
    assert_eq!((anchor.anchor.source.offset.get(), anchor.anchor.sequence.get()), (5, 0));
    s.mirror.durable();
    assert_eq!(s.send(5), 0);
}

/// Ten offsets from `base` on, of which compaction left three records.
fn three_of_ten(base: i64) -> BatchHeader {
    BatchHeader { record_count: 3, ..header(base, 10, 100 * HOUR_MS) }
}

#[test]
fn a_batch_with_holes_is_sent_alone_and_its_holes_are_a_recorded_step() {
    let mut s = Streaming::new();
    s.store(10);
    let holes = three_of_ten(20);
    let sent = s.mirror.offer(&holes, 70, 0, s.now);
    assert!(matches!(sent, Offer::Send { sequence, .. } if sequence.get() == 10), "{sent:?}");
    assert_eq!(s.offer(30), Offer::Later, "its sequence depends on what becomes of that one");
    s.answer(20, Answer::Stored(Some(510)));
    assert_eq!(s.mirror.acked().get(), 23, "behind as many as there were records");
    assert_eq!(s.offer(30), Offer::Drop);
    let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
    assert_eq!((anchor.anchor.source.offset.get(), anchor.anchor.sequence.get()), (30, 13));
    assert_eq!((anchor.acked.offset.get(), anchor.delta()), (30, Some(483)));
    s.mirror.durable();
    assert_eq!(s.send(30), 13, "no sequence is left out");
    s.answer(30, Answer::Stored(Some(513)));
    let skipped = Note::Skipped { from: 23, to: 30, passed: Passed::Compacted };
    assert_eq!(s.mirror.take_notes(), [skipped]);
}

#[test]
fn a_batch_with_holes_at_the_end_of_the_log_is_passed_when_it_is_read_again() {
    let mut s = Streaming::new();
    s.store(10);
    let holes = three_of_ten(20);
    assert!(matches!(s.mirror.offer(&holes, 70, 0, s.now), Offer::Send { .. }));
    assert_eq!(s.mirror.offer(&holes, 70, 0, s.now), Offer::Later);
    s.answer(20, Answer::Stored(Some(510)));
    assert_eq!(s.mirror.want(s.now), Want::Batch(23));
    assert_eq!(s.mirror.offer(&holes, 70, 0, s.now), Offer::Drop);
    assert_eq!(s.mirror.acked().get(), 30);
}

#[test]
fn a_restart_inside_a_batch_with_holes_sends_none_of_it_twice() {
    for (renewed, remembered) in [(false, Some(12)), (false, None), (true, None)] {
        let mut s = Streaming::new();
        s.store(10);
        assert!(matches!(s.mirror.offer(&three_of_ten(20), 70, 0, s.now), Offer::Send { .. }));
        // The process dies; the centre has the batch.
        let mut checkpoint = s.mirror.checkpoint.clone().unwrap();
        checkpoint.moved = renewed.then(|| Offset::new(1_000)).flatten();
        let start = Position { epoch: LeaderEpoch::default(), offset: Offset::new(10).unwrap() };
        s.mirror = Mirror::new(Timing::default(), start, Some(checkpoint), None, s.now);
        s.mirror.set_target(&target(1), s.now);
        let scanned = remembered.is_none();
        let found = scanned.then_some(12);
        s.settle(Evidence { remembered, scanned, found, end: 513, ..Evidence::default() }, 8);
        s.now.mono_ms += 20_000;
        let offered = s.mirror.offer(&three_of_ten(20), 70, 10, s.now);
        if remembered.is_some() {
            // Once more, so that its duplicate shows that the replicas have it.
            assert!(matches!(offered, Offer::Send { sequence, .. } if sequence.get() == 10));
            s.answer(20, Answer::Stored(Some(510)));
            assert_eq!(s.mirror.offer(&three_of_ten(20), 70, 10, s.now), Offer::Drop);
        } else {
            assert_eq!(offered, Offer::Drop, "{renewed}");
        }
        let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
        let sequence = if renewed { 0 } else { 13 };
        assert_eq!(anchor.anchor.sequence.get(), sequence);
        assert_eq!(anchor.acked.offset.get(), 30);
        s.mirror.durable();
        assert_eq!(s.send(30), sequence);
    }
}
