//! A data directory that came from another machine: alone, and as the copy of one that is still at work.

use super::*;

/// Offsets up to 20 were acknowledged under producer 7; then the directory, which ended at 40, was moved or copied.
fn moved() -> Streaming {
    let mut before = Streaming::new();
    before.store(10);
    let checkpoint = before.mirror.checkpoint.clone().unwrap();
    from(Checkpoint { moved: Offset::new(40), ..checkpoint }, before.now)
}

fn from(checkpoint: Checkpoint, now: Now) -> Streaming {
    let start = checkpoint.anchor.source;
    let mut mirror = Mirror::new(Timing::default(), start, Some(checkpoint), None, now);
    mirror.set_target(&target(1), now);
    Streaming { mirror, now }
}

fn searched(found: Option<i32>, remembered: Option<i32>) -> Evidence {
    Evidence { scanned: true, found, remembered, end: 700, ..Evidence::default() }
}

#[test]
fn what_the_other_machine_sent_counts_and_then_a_new_producer_begins() {
    let mut s = moved();
    let Want::Wait(Some(until)) = s.mirror.want(s.now) else { panic!("late requests first") };
    assert_eq!(until, s.now.mono_ms + Timing::default().settle_ms);
    let question = s.settle(searched(Some(19), Some(19)), 8);
    assert_eq!(question.producer.map(|p| p.id), Some(7), "what has it got of the old one");
    assert!(question.scan && question.fresh);
    assert_eq!(s.mirror.take_notes(), [Note::OtherMachine { from: 30 }]);
    let checkpoint = s.mirror.checkpoint.clone().unwrap();
    assert_eq!((checkpoint.producer.id, checkpoint.anchor.source.offset.get()), (8, 30));
    assert_eq!(checkpoint.moved, None);
    assert_eq!(s.send(30), 0, "a new id begins at 0");
}

#[test]
fn what_a_twin_has_sent_beyond_the_copy_is_not_taken_for_ours() {
    let mut s = moved();
    // The twin is at offset 90 of its own records; ours go to 1,000.
    s.settle(searched(Some(79), Some(89)), 8);
    assert_eq!(s.mirror.acked().get(), 40, "from here on the records are others");
    assert_eq!(s.send(40), 0);
}

#[test]
fn a_crash_before_the_new_producer_is_durable_renews_again() {
    let mut s = moved();
    let stored = s.mirror.checkpoint.clone().unwrap();
    s.now.mono_ms += 40_000;
    let Want::Ask(question) = s.mirror.want(s.now) else { panic!("no question") };
    // Without a fresh id it asks again; what may be stored meanwhile keeps the mark.
    let evidence = Evidence { source_end: 1_000, ..searched(Some(19), None) };
    s.mirror.answered(&question, &evidence, s.now);
    assert_eq!(s.mirror.take_progress().map(|c| (c.producer.id, c.moved)), Some((7, stored.moved)));
    s.now.mono_ms += 40_000;
    let Want::Ask(question) = s.mirror.want(s.now) else { panic!("no question") };
    let fresh = Some(ProducerIdentity { id: 8, epoch: 0 });
    s.mirror.answered(&question, &Evidence { fresh, ..evidence }, s.now);
    assert!(matches!(s.mirror.want(s.now), Want::Persist(_)));
    assert_eq!(s.mirror.take_progress(), None, "the anchor first");
    assert_eq!(s.offer(30), Offer::Later, "nothing is sent before it is durable");

    let mut again = from(stored, s.now);
    let question = again.settle(searched(Some(19), None), 9);
    assert!(question.fresh && question.scan);
    let checkpoint = again.mirror.checkpoint.clone().unwrap();
    assert_eq!((checkpoint.producer.id, checkpoint.moved), (9, None));
}
