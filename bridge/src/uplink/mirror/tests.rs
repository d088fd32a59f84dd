//! The state machine in a table of situations, and against a model of a broker: its duplicate check over five batches, replicas that lag,
//! leaders that fail, connections that break with requests still under way, producers that are forgotten, and
//! a process that is killed at any moment and comes back with an old checkpoint.

use super::*;
use crate::uplink::sequence::Sequence;
use headwater_kafka::client::ProducerIdentity;
use headwater_log::{LeaderEpoch, Offset};
use std::collections::{BTreeMap, VecDeque};

const HOUR_MS: i64 = 3_600_000;

/// A small generator (splitmix64), so that a failure names the seed that repeats it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

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

#[derive(Debug, Clone)]
struct Request {
    producer: ProducerIdentity,
    sequence: i32,
    /// Source offsets of the records; `base` names the batch.
    base: i64,
    count: i32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    Ours { producer: i64, sequence: i32, source: i64 },
    Foreign,
}

#[derive(Debug, Clone, Default)]
struct Remembered {
    last: i32,
    /// First sequence, last sequence, base offset of the last five batches.
    batches: VecDeque<(i32, i32, i64)>,
}

/// A partition's leader.
#[derive(Debug, Default)]
struct Broker {
    log: Vec<Entry>,
    /// Where batches end.
    ends: Vec<usize>,
    high_watermark: usize,
    producers: BTreeMap<i64, Remembered>,
    next_producer: i64,
}

enum Handled {
    /// Answer when the replicas have everything below this.
    Stored {
        base: i64,
        end: usize,
    },
    Sequence,
}

impl Broker {
    fn handle(&mut self, r: &Request) -> Handled {
        let last = Sequence::new(r.sequence).unwrap().plus(i64::from(r.count) - 1).get();
        if let Some(known) = self.producers.get(&r.producer.id) {
            let copy = known.batches.iter().find(|b| (b.0, b.1) == (r.sequence, last));
            if let Some((_, _, base)) = copy {
                return Handled::Stored { base: *base, end: *base as usize + r.count as usize };
            }
            if Sequence::new(known.last).unwrap().plus(1).get() != r.sequence {
                return Handled::Sequence;
            }
        }
        let base = self.log.len() as i64;
        let known = self.producers.entry(r.producer.id).or_default();
        known.last = last;
        known.batches.push_back((r.sequence, last, base));
        if known.batches.len() > WINDOW {
            known.batches.pop_front();
        }
        for i in 0..i64::from(r.count) {
            let sequence = Sequence::new(r.sequence).unwrap().plus(i).get();
            self.log.push(Entry::Ours { producer: r.producer.id, sequence, source: r.base + i });
        }
        self.ends.push(self.log.len());
        Handled::Stored { base, end: self.log.len() }
    }

    fn write_foreign(&mut self) {
        self.log.push(Entry::Foreign);
        self.ends.push(self.log.len());
    }

    /// Another replica leads: what was not replicated is gone, the memory of producers follows the log.
    fn fail_over(&mut self) {
        self.log.truncate(self.high_watermark);
        self.ends.retain(|end| *end <= self.high_watermark);
        let end = self.log.len() as i64;
        self.producers.retain(|id, known| {
            known.batches.retain(|(_, last, base)| {
                let stored = *base < end;
                stored && self.log.iter().any(|e| matches!(e, Entry::Ours { producer, sequence, .. } if producer == id && sequence == last))
            });
            match known.batches.back() {
                Some((_, last, _)) => {
                    known.last = *last;
                    true
                }
                // All five are gone: take the last one from the log, as a replica would.
                None => {
                    let last = self.log.iter().rev().find_map(|e| match e {
                        Entry::Ours { producer, sequence, .. } if producer == id => Some(*sequence),
                        _ => None,
                    });
                    known.last = last.unwrap_or(0);
                    last.is_some()
                }
            }
        });
    }

    fn evidence(&mut self, q: &Question, source_end: i64) -> Evidence {
        let remembered = q.producer.and_then(|p| self.producers.get(&p.id)).map(|k| k.last);
        let scan = q.producer.is_some() && (q.scan || remembered.is_none());
        let visible = &self.log[..self.high_watermark];
        let floor = (q.floor.max(0) as usize).min(visible.len());
        let found = visible[floor..].iter().rev().find_map(|e| match e {
            Entry::Ours { producer, sequence, .. }
                if Some(*producer) == q.producer.map(|p| p.id) =>
            {
                Some(*sequence)
            }
            _ => None,
        });
        let fresh = q.fresh.then(|| {
            self.next_producer += 1;
            ProducerIdentity { id: self.next_producer, epoch: 0 }
        });
        Evidence {
            remembered,
            scanned: scan,
            floor_gone: false,
            found: found.filter(|_| scan),
            end: self.high_watermark as i64,
            fresh,
            source_end,
            source_start: 0,
        }
    }
}

/// What may go wrong in a run.
#[derive(Debug, Clone, Copy)]
struct Faults {
    /// The records are old: the broker may forget the producer at any moment.
    old: bool,
    /// Somebody else writes to the target.
    foreign: bool,
    /// Leaders fail, replicas lag.
    failover: bool,
}

struct World {
    random: Random,
    now: Now,
    source: Vec<BatchHeader>,
    mirror: Mirror,
    saved: Option<Checkpoint>,
    persisting: Option<Checkpoint>,
    broker: Broker,
    /// Requests of the open connection, in order.
    wire: VecDeque<Request>,
    /// Handled and waiting for the replicas: (batch, base, end).
    waiting: VecDeque<(i64, i64, usize)>,
    /// Requests of connections that are gone, with the moment they can no longer arrive.
    stragglers: Vec<(u64, VecDeque<Request>)>,
    question: Option<Question>,
    faults: Faults,
    anchors_seen: Vec<(ProducerIdentity, Anchor)>,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut random = Random(seed);
        let wall = 100 * HOUR_MS;
        let timestamp = if faults.old { wall - 20 * HOUR_MS } else { wall };
        let now = Now { mono_ms: 0, wall_ms: Some(wall) };
        let mut base = random.below(20) as i64;
        let start = Position { epoch: LeaderEpoch::default(), offset: Offset::new(base).unwrap() };
        let source = (0..10 + random.below(40))
            .map(|_| {
                let count = 1 + random.below(6) as i32;
                let h = header(base, count, timestamp);
                base += i64::from(count);
                h
            })
            .collect();
        let mirror = Mirror::new(Timing::default(), start, None, Some(timestamp), now);
        let broker = Broker { next_producer: 100, ..Broker::default() };
        let mut world = Self {
            random,
            now,
            source,
            mirror,
            saved: None,
            persisting: None,
            broker,
            wire: VecDeque::new(),
            waiting: VecDeque::new(),
            stragglers: Vec::new(),
            question: None,
            faults,
            anchors_seen: Vec::new(),
        };
        world.mirror.set_target(&target(1), now);
        world
    }

    fn start(&self) -> i64 {
        self.source[0].base_offset
    }

    fn end(&self) -> i64 {
        self.source.last().unwrap().last_offset() + 1
    }

    /// What the shell does.
    fn drive(&mut self) {
        match self.mirror.want(self.now) {
            Want::Wait(_) => {}
            Want::Ask(question) => self.question = Some(question),
            Want::Persist(checkpoint) => self.persisting = Some(checkpoint),
            Want::Batch(offset) => {
                let Some(h) = self.source.iter().find(|h| h.last_offset() >= offset).copied()
                else {
                    return;
                };
                if let Offer::Send { producer, sequence } = self.mirror.offer(&h, 100, self.now) {
                    let saved = self.saved.as_ref().expect("nothing is sent before a checkpoint");
                    assert_eq!(saved.producer, producer, "invariant 1");
                    assert_eq!(saved.sequence_at(h.base_offset), sequence, "invariant 1");
                    let count = h.record_count;
                    let base = h.base_offset;
                    let sequence = sequence.get();
                    self.wire.push_back(Request { producer, sequence, base, count });
                    assert!(self.mirror.in_flight() <= WINDOW, "invariant 2");
                }
            }
        }
    }

    fn serve_wire(&mut self) {
        let Some(request) = self.wire.front().cloned() else { return };
        if !self.faults.old && self.random.one_in(20) {
            // Not enough replicas: refused before it was appended.
            self.wire.pop_front();
            let refused = Answer::NotStored("NOT_ENOUGH_REPLICAS".to_owned());
            self.mirror.on_answer(request.base, refused, self.now);
            return;
        }
        self.wire.pop_front();
        match self.broker.handle(&request) {
            Handled::Stored { base, end } => self.waiting.push_back((request.base, base, end)),
            Handled::Sequence => {
                let answer = Answer::Sequence("OUT_OF_ORDER".to_owned());
                self.mirror.on_answer(request.base, answer, self.now);
            }
        }
    }

    fn answer(&mut self) {
        while let Some((batch, base, end)) = self.waiting.front().copied() {
            if end > self.broker.high_watermark {
                return;
            }
            self.waiting.pop_front();
            if self.random.one_in(30) {
                // The broker's own time ran out: it is there, but it says it does not know.
                let answer = Answer::Unknown("REQUEST_TIMED_OUT".to_owned());
                self.mirror.on_answer(batch, answer, self.now);
            } else {
                self.mirror.on_answer(batch, Answer::Stored(Some(base)), self.now);
            }
        }
    }

    fn disconnect(&mut self) {
        let open: Vec<i64> =
            self.waiting.iter().map(|w| w.0).chain(self.wire.iter().map(|r| r.base)).collect();
        self.waiting.clear();
        let kept = self.random.below(self.wire.len() as u64 + 1) as usize;
        let mut late = std::mem::take(&mut self.wire);
        late.truncate(kept);
        let until = self.now.mono_ms + Timing::default().settle_ms - 1;
        self.stragglers.push((until, late));
        for batch in open {
            self.mirror.on_answer(batch, Answer::Unknown("lost".to_owned()), self.now);
        }
        if let Some(question) = self.question.take() {
            drop(question);
            self.mirror.not_answered(self.now, "lost");
        }
    }

    fn crash(&mut self) {
        self.disconnect();
        self.persisting = None;
        let moved = self.random.one_in(4).then(|| Offset::new(self.end())).flatten();
        if let Some(saved) = self.saved.as_mut().filter(|_| moved.is_some()) {
            // The card goes on in another machine.
            saved.moved = moved;
        }
        let start =
            Position { epoch: LeaderEpoch::default(), offset: Offset::new(self.start()).unwrap() };
        let acked = self.saved.as_ref().map_or(self.start(), |c| c.acked.offset.get());
        let oldest = self.source.iter().find(|h| h.last_offset() >= acked);
        let timing = Timing::default();
        let oldest = oldest.map(|h| h.max_timestamp);
        self.mirror = Mirror::new(timing, start, self.saved.clone(), oldest, self.now);
        self.mirror.set_target(&target(1), self.now);
    }

    fn make_durable(&mut self) {
        if let Some(checkpoint) = self.persisting.take() {
            self.anchors_seen.push((checkpoint.producer, checkpoint.anchor));
            self.saved = Some(checkpoint);
            self.mirror.durable();
        } else if let Some(progress) = self.mirror.take_progress() {
            self.saved = Some(progress.clone());
        }
    }

    fn answer_question(&mut self) {
        if let Some(question) = self.question.take() {
            let evidence = self.broker.evidence(&question, self.end());
            self.mirror.answered(&question, &evidence, self.now);
        }
    }

    fn deliver_straggler(&mut self) {
        let now = self.now.mono_ms;
        self.stragglers.retain(|(until, requests)| *until > now && !requests.is_empty());
        if self.stragglers.is_empty() {
            return;
        }
        let index = self.random.below(self.stragglers.len() as u64) as usize;
        if let Some(request) = self.stragglers[index].1.pop_front() {
            // Its answer goes nowhere.
            self.broker.handle(&request);
        }
    }

    fn step(&mut self, calm: bool) {
        self.now.mono_ms += 1 + self.random.below(if calm { 2_000 } else { 80 });
        match self.random.below(if calm { 9 } else { 16 }) {
            0..=3 => self.drive(),
            4 => self.serve_wire(),
            5 => self.answer(),
            6 => self.make_durable(),
            7 => self.answer_question(),
            8 => {
                // Replicas copy whole batches, so the high watermark stands between two.
                let missing = self.broker.log.len() - self.broker.high_watermark;
                let up_to =
                    self.broker.high_watermark + self.random.below(missing as u64 + 1) as usize;
                let ends = self.broker.ends.iter().copied().filter(|end| *end <= up_to);
                self.broker.high_watermark =
                    ends.max().unwrap_or(0).max(self.broker.high_watermark);
                if calm || !self.faults.failover {
                    self.broker.high_watermark = self.broker.log.len();
                }
            }
            9 | 10 => self.deliver_straggler(),
            11 if self.random.one_in(3) => self.disconnect(),
            12 if self.random.one_in(6) => self.crash(),
            13 if self.faults.foreign => self.broker.write_foreign(),
            14 if self.faults.old => self.broker.producers.clear(),
            15 if self.faults.failover && self.random.one_in(4) => {
                self.disconnect();
                self.broker.fail_over();
            }
            _ => {}
        }
    }

    fn check_nothing_acknowledged_is_missing(&self) {
        let visible: Vec<i64> = self.broker.log[..self.broker.high_watermark]
            .iter()
            .filter_map(|e| match e {
                Entry::Ours { source, .. } => Some(*source),
                Entry::Foreign => None,
            })
            .collect();
        let acked = self.mirror.acked().get();
        for offset in self.start()..acked {
            assert!(visible.contains(&offset), "acknowledged {offset} is not in the centre");
        }
    }

    fn run(mut self) {
        for _ in 0..400 {
            self.step(false);
        }
        self.check_nothing_acknowledged_is_missing();
        for _ in 0..60_000 {
            if self.mirror.acked().get() == self.end() && self.mirror.in_flight() == 0 {
                break;
            }
            self.step(true);
        }
        assert_eq!(
            self.mirror.acked().get(),
            self.end(),
            "stuck in {:?} after {:?}",
            self.mirror.phase,
            self.mirror.notes.first()
        );
        let found: Vec<i64> = self
            .broker
            .log
            .iter()
            .filter_map(|e| match e {
                Entry::Ours { source, .. } => Some(*source),
                Entry::Foreign => None,
            })
            .collect();
        let expected: Vec<i64> = (self.start()..self.end()).collect();
        assert_eq!(found, expected, "each record once, in order");
        if !self.faults.foreign {
            let steps = self.mirror.checkpoint.as_ref().map(|c| c.steps.len());
            assert_eq!(steps, Some(1), "a constant delta");
        }
    }
}

fn run_seeds(seeds: std::ops::Range<u64>, faults: Faults) {
    for seed in seeds {
        let result = std::panic::catch_unwind(|| World::new(seed, faults).run());
        assert!(result.is_ok(), "seed {seed} with {faults:?}; its message is above");
    }
}

#[test]
fn never_a_duplicate_never_a_gap_under_disconnects_and_crashes() {
    run_seeds(0..3_000, Faults { old: false, foreign: false, failover: false });
}

#[test]
fn never_a_duplicate_never_a_gap_when_others_write_and_leaders_fail() {
    run_seeds(0..3_000, Faults { old: false, foreign: true, failover: true });
}

#[test]
fn never_a_duplicate_never_a_gap_when_the_centre_forgets_the_producer() {
    run_seeds(0..3_000, Faults { old: true, foreign: true, failover: false });
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
        self.mirror.offer(&header(base, 10, 100 * HOUR_MS), 1_000, self.now)
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
fn a_control_batch_and_a_deleted_range_are_recorded_steps() {
    let mut s = Streaming::new();
    s.store(10);
    let marker = BatchHeader { attributes: 0x30, ..header(20, 1, 100 * HOUR_MS) };
    assert_eq!(s.mirror.offer(&marker, 70, s.now), Offer::Drop);
    let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
    assert_eq!((anchor.anchor.source.offset.get(), anchor.anchor.sequence.get()), (21, 10));
    s.mirror.durable();
    assert_eq!(s.send(21), 10, "no sequence is left out");
    s.answer(21, Answer::Stored(Some(510)));
    assert_eq!(s.mirror.checkpoint.as_ref().unwrap().delta(), Some(489));
    assert_eq!(s.offer(50), Offer::Drop, "31..50 was deleted");
    let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
    assert_eq!((anchor.acked.offset.get(), anchor.delta()), (50, Some(470)));
    let notes = s.mirror.take_notes();
    let control = Note::Skipped { from: 20, to: 21, control: true };
    assert_eq!(notes, [control, Note::Skipped { from: 31, to: 50, control: false }]);
}

#[test]
fn what_was_aborted_is_passed_over_in_one_step_when_nothing_is_under_way() {
    let mut s = Streaming::new();
    s.store(10);
    s.send(20);
    let aborted = header(30, 10, 100 * HOUR_MS);
    assert_eq!(s.mirror.leave_out(&aborted, 75, s.now), Offer::Later, "20..30 is under way");
    s.answer(20, Answer::Stored(Some(510)));
    assert_eq!(s.mirror.leave_out(&aborted, 75, s.now), Offer::Drop);
    let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
    assert_eq!((anchor.anchor.source.offset.get(), anchor.anchor.sequence.get()), (75, 20));
    s.mirror.durable();
    assert_eq!(s.send(75), 20, "no sequence is left out");
    s.answer(75, Answer::Stored(Some(520)));
    assert_eq!(s.mirror.take_notes(), [Note::Skipped { from: 30, to: 75, control: true }]);
    assert!(s.mirror.stopped().is_none());
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
fn a_log_that_starts_inside_a_batch_is_begun_with_all_of_it() {
    let mut s = Streaming::new();
    assert_eq!(s.offer(5), Offer::Drop);
    let Want::Persist(anchor) = s.mirror.want(s.now) else { panic!("a new anchor first") };
    assert_eq!((anchor.anchor.source.offset.get(), anchor.anchor.sequence.get()), (5, 0));
    s.mirror.durable();
    assert_eq!(s.send(5), 0);
}

#[test]
fn a_compacted_batch_stops() {
    let mut s = Streaming::new();
    let holes = BatchHeader { record_count: 3, ..header(10, 10, 100 * HOUR_MS) };
    assert_eq!(s.mirror.offer(&holes, 70, s.now), Offer::Drop);
    assert!(s.mirror.stopped().is_some_and(|r| r.contains("compacted")));
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

mod moved;
