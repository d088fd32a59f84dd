//! The state machine in a table of situations; `world` has it against a model of a broker, `moved` in a directory that changed machines.

use super::*;
use crate::uplink::sequence::Sequence;
use headwater_kafka::client::ProducerIdentity;
use headwater_log::{LeaderEpoch, Offset};

mod moved;
mod passed;
mod world;

const HOUR_MS: i64 = 3_600_000;

fn header(base: i64, count: i32, timestamp: i64) -> BatchHeader {
    BatchHeader {
        base_offset: base,
        batch_length: 49 + count * 10,
        partition_leader_epoch: 1,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id: -2,
        producer_epoch: 0,
        base_sequence: -1,
        record_count: count,
    }
}

fn target(topic_id: u8) -> Target {
    Target { cluster_id: "c".to_owned(), topic: "t".to_owned(), topic_id: [topic_id; 16] }
}

/// A mirror that streams from offset 10 under producer 7, with batches of ten records.
struct Streaming {
    mirror: Mirror,
    now: Now,
}

impl Streaming {
    fn new() -> Self {
        let now = Now { mono_ms: 0, wall_ms: Some(100 * HOUR_MS) };
        let start = Position { epoch: LeaderEpoch::default(), offset: Offset::new(10).unwrap() };
        let mirror = Mirror::new(Timing::default(), start, None, None, now);
        let mut streaming = Self { mirror, now };
        streaming.mirror.set_target(&target(1), now);
        streaming.settle(Evidence { end: 500, ..Evidence::default() }, 7);
        streaming
    }

    /// Answers the question, makes the anchor durable.
    fn settle(&mut self, evidence: Evidence, fresh: i64) -> Question {
        self.now.mono_ms += 40_000;
        let Want::Ask(question) = self.mirror.want(self.now) else {
            panic!("no question in {:?}", self.mirror.phase)
        };
        let fresh = question.fresh.then_some(ProducerIdentity { id: fresh, epoch: 0 });
        let evidence = Evidence { fresh, source_end: 1_000, ..evidence };
        self.mirror.answered(&question, &evidence, self.now);
        if let Want::Persist(_) = self.mirror.want(self.now) {
            self.mirror.durable();
        }
        question
    }

    fn offer(&mut self, base: i64) -> Offer {
        self.now.mono_ms += 20_000;
        self.mirror.offer(&header(base, 10, 100 * HOUR_MS), 1_000, 0, self.now)
    }

    fn send(&mut self, base: i64) -> i32 {
        match self.offer(base) {
            Offer::Send { sequence, .. } => sequence.get(),
            other => panic!("{other:?} for {base} in {:?}", self.mirror.phase),
        }
    }

    fn answer(&mut self, base: i64, answer: Answer) {
        self.mirror.on_answer(base, answer, self.now);
    }

    /// Sends and has stored, at a delta of 490.
    fn store(&mut self, base: i64) {
        self.send(base);
        self.answer(base, Answer::Stored(Some(base + 490)));
    }
}

#[test]
fn one_batch_at_first_five_once_the_centre_remembers() {
    let mut s = Streaming::new();
    assert_eq!(s.send(10), 0);
    assert_eq!(s.offer(20), Offer::Later, "no state at the broker yet");
    s.answer(10, Answer::Stored(Some(500)));
    for (i, base) in (20..70).step_by(10).enumerate() {
        assert_eq!(s.send(base), 10 * (i as i32 + 1));
    }
    assert_eq!(s.offer(70), Offer::Later, "the window is five");
    assert_eq!(s.mirror.acked().get(), 20);
    // Answers may only move the end of what is stored without a gap.
    s.answer(30, Answer::Stored(Some(520)));
    assert_eq!(s.mirror.acked().get(), 20);
    s.answer(20, Answer::Stored(Some(510)));
    assert_eq!(s.mirror.acked().get(), 40);
    assert_eq!(s.mirror.take_counts(), (30, 3_000, 0));
    assert_eq!(s.mirror.checkpoint.as_ref().unwrap().floor, 530);
}

#[test]
fn old_records_go_one_at_a_time_and_wait_for_late_requests() {
    let mut s = Streaming::new();
    s.store(10);
    s.now.wall_ms = Some(113 * HOUR_MS);
    assert_eq!(s.send(20), 10);
    assert_eq!(s.offer(30), Offer::Later);
    s.answer(20, Answer::Unknown("lost".to_owned()));
    let lost_at = s.now.mono_ms;
    s.now.mono_ms += 1_000;
    let Want::Wait(Some(until)) = s.mirror.want(s.now) else { panic!("it must wait") };
    assert_eq!(until, lost_at + Timing::default().settle_ms);
    let question = s.settle(Evidence { scanned: true, found: Some(19), ..Evidence::default() }, 8);
    assert!(question.scan);
    assert_eq!(s.mirror.acked().get(), 30, "the search has found it");
}

#[test]
fn an_untrusted_clock_counts_as_old() {
    let mut s = Streaming::new();
    s.store(10);
    s.now.wall_ms = None;
    s.send(20);
    assert_eq!(s.offer(30), Offer::Later);
}

#[test]
fn a_refused_batch_is_sent_again_and_what_follows_it_too() {
    let mut s = Streaming::new();
    s.store(10);
    s.send(20);
    s.send(30);
    s.answer(20, Answer::NotStored("NOT_ENOUGH_REPLICAS".to_owned()));
    assert_eq!(s.offer(40), Offer::Later, "it drains");
    s.answer(30, Answer::Sequence("OUT_OF_ORDER".to_owned()));
    assert_eq!(s.mirror.last_error(), Some("NOT_ENOUGH_REPLICAS"));
    s.now.mono_ms += 1_000;
    assert_eq!(s.mirror.want(s.now), Want::Batch(20));
    assert_eq!((s.send(20), s.send(30)), (10, 20), "the same sequences");
}

#[test]
fn what_is_refused_for_good_stops_loudly_and_is_tried_again() {
    let mut s = Streaming::new();
    s.store(10);
    s.send(20);
    s.answer(20, Answer::Fatal("MESSAGE_TOO_LARGE (10)".to_owned()));
    assert_eq!(s.mirror.stopped(), Some("MESSAGE_TOO_LARGE (10)"));
    let stopped = Note::Stopped { reason: "MESSAGE_TOO_LARGE (10)".to_owned() };
    assert_eq!(s.mirror.take_notes(), [stopped]);
    assert_eq!(s.offer(30), Offer::Later, "nothing is skipped");
    s.now.mono_ms += 61_000;
    s.settle(Evidence { remembered: Some(9), ..Evidence::default() }, 8);
    assert_eq!(s.mirror.want(s.now), Want::Batch(20));
}

#[test]
fn what_the_leader_remembers_is_sent_once_more_before_it_counts() {
    let mut s = Streaming::new();
    s.store(10);
    s.send(20);
    s.send(30);
    s.answer(20, Answer::Unknown("lost".to_owned()));
    s.answer(30, Answer::Unknown("lost".to_owned()));
    s.settle(Evidence { remembered: Some(29), ..Evidence::default() }, 8);
    assert_eq!(s.mirror.acked().get(), 20, "the leader may forget what is not replicated");
    assert_eq!(s.mirror.want(s.now), Want::Batch(39), "the batch that ends there");
    assert_eq!(s.send(30), 20);
    assert_eq!(s.offer(40), Offer::Later);
    s.answer(30, Answer::Stored(Some(520)));
    assert_eq!(s.mirror.acked().get(), 40);
}

#[test]
fn another_history_under_the_checkpoint_stops() {
    let mut s = Streaming::new();
    s.store(10);
    s.send(20);
    s.answer(20, Answer::Unknown("lost".to_owned()));
    // The leader has five records of a batch that has ten here.
    s.settle(Evidence { remembered: Some(14), ..Evidence::default() }, 8);
    assert_eq!(s.offer(20), Offer::Drop);
    assert!(s.mirror.stopped().is_some_and(|r| r.contains("another history")));
}

#[test]
fn two_strikes_take_a_new_producer_id_after_the_old_requests_are_gone() {
    let mut s = Streaming::new();
    s.store(10);
    for _ in 0..2 {
        s.send(20);
        s.answer(20, Answer::Sequence("UNKNOWN_PRODUCER_ID (59)".to_owned()));
        if !s.mirror.renew {
            s.settle(Evidence { remembered: Some(9), ..Evidence::default() }, 8);
        }
    }
    let question = s.settle(Evidence { scanned: true, end: 510, ..Evidence::default() }, 8);
    assert!(question.fresh && question.scan);
    let notes = s.mirror.take_notes();
    assert_eq!(notes, [Note::NewProducer { from: 20 }]);
    let checkpoint = s.mirror.checkpoint.clone().unwrap();
    assert_eq!((checkpoint.producer.id, checkpoint.anchor.source.offset.get()), (8, 20));
    assert_eq!(s.send(20), 0, "a new id begins at 0");
}

#[test]
fn somebody_elses_write_is_a_recorded_step() {
    let mut s = Streaming::new();
    s.store(10);
    s.send(20);
    s.answer(20, Answer::Stored(Some(513)));
    assert_eq!(s.mirror.take_notes(), [Note::Foreign { from: 20, delta: 493 }]);
    let steps = &s.mirror.checkpoint.as_ref().unwrap().steps;
    let deltas: Vec<_> = steps.iter().map(|s| (s.from, s.delta, s.cause)).collect();
    assert_eq!(deltas, [(10, 490, Cause::Start), (20, 493, Cause::Foreign)]);
    // A duplicate's answer may come without an offset: that says nothing of the delta.
    s.send(30);
    s.answer(30, Answer::Stored(None));
    assert_eq!(s.mirror.checkpoint.as_ref().unwrap().delta(), Some(493));
}

#[test]
fn a_target_made_anew_is_begun_anew() {
    let mut s = Streaming::new();
    s.store(10);
    s.send(20);
    s.mirror.set_target(&target(2), s.now);
    assert_eq!(s.offer(30), Offer::Later);
    s.answer(20, Answer::NotStored("UNKNOWN_TOPIC_OR_PARTITION (3)".to_owned()));
    let question = s.settle(Evidence::default(), 8);
    assert!(question.fresh && question.producer.is_none());
    assert_eq!(s.mirror.take_notes(), [Note::OtherTarget { from: 20 }]);
    assert_eq!(s.mirror.checkpoint.as_ref().unwrap().target, target(2));
    assert_eq!(s.send(20), 0);
}

#[test]
fn records_that_the_centre_lost_are_sent_again() {
    let mut s = Streaming::new();
    s.store(10);
    s.store(20);
    s.send(30);
    s.answer(30, Answer::Unknown("lost".to_owned()));
    // An unclean election: the second batch was acknowledged and is gone.
    s.settle(Evidence { remembered: Some(9), ..Evidence::default() }, 8);
    assert_eq!(s.mirror.take_notes(), [Note::TargetLost { records: 10 }]);
    assert_eq!(s.mirror.acked().get(), 30, "an acknowledgement is never taken back");
    assert_eq!(s.send(20), 10);
    s.answer(20, Answer::Stored(Some(510)));
    assert_eq!(s.send(30), 20);
    s.answer(30, Answer::Stored(Some(520)));
    assert_eq!(s.mirror.acked().get(), 40);
}

#[test]
fn another_history_of_the_source_is_mirrored_from_where_it_parts() {
    let mut s = Streaming::new();
    s.store(10);
    s.store(20);
    let checkpoint = s.mirror.checkpoint.clone();
    let start = Position { epoch: LeaderEpoch::default(), offset: Offset::new(10).unwrap() };
    // The source came back without its second batch, and has appended others since.
    s.mirror = Mirror::new(Timing::default(), start, checkpoint, None, s.now);
    let end = Position { epoch: LeaderEpoch::new(2).unwrap(), offset: Offset::new(20).unwrap() };
    s.mirror.cut_to(end);
    s.mirror.set_target(&target(1), s.now);
    assert_eq!(s.mirror.acked().get(), 20);
    let question = s.settle(Evidence { end: 520, ..Evidence::default() }, 8);
    assert!(question.fresh && question.producer.is_none());
    assert_eq!(s.mirror.take_notes(), [Note::SourceLost { from: 20, records: 10 }]);
    assert_eq!(s.send(20), 0, "under a new id: the old one's sequences are taken");
    s.answer(20, Answer::Stored(Some(520)));
    let steps = &s.mirror.checkpoint.as_ref().unwrap().steps;
    assert_eq!(steps.last().map(|s| (s.from, s.delta, s.cause)), Some((20, 500, Cause::Start)));
}
