//! Against a model of a broker: its duplicate check over five batches, replicas that lag, leaders that fail, connections that break
//! with requests still under way, producers that are forgotten, and a process that is killed at any moment and comes back with an old
//! checkpoint.

use super::*;
use std::collections::{BTreeMap, VecDeque};

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
    /// Compaction has left holes in the source, in its batches and between them.
    holes: bool,
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
                let mut h = header(base, count, timestamp);
                if faults.holes && random.one_in(2) {
                    h.record_count = random.below(count as u64 + 1) as i32;
                }
                base += i64::from(count);
                if faults.holes && random.one_in(4) {
                    base += random.below(9) as i64;
                }
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

    /// What becomes of the source's records at the centre: a batch's without its holes.
    fn records(&self) -> impl Iterator<Item = i64> + '_ {
        self.source.iter().flat_map(|h| h.base_offset..h.base_offset + i64::from(h.record_count))
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
                let (start, now) = (self.start(), self.now);
                if h.record_count == 0 {
                    self.mirror.leave_out(&h, h.last_offset() + 1, start, now);
                } else if let Offer::Send { producer, sequence } =
                    self.mirror.offer(&h, 100, start, now)
                {
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
        for offset in self.records().filter(|offset| *offset < acked) {
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
        let expected: Vec<i64> = self.records().collect();
        assert_eq!(found, expected, "each record once, in order");
        self.check_translation();
        if !self.faults.foreign && !self.faults.holes {
            let steps = self.mirror.checkpoint.as_ref().map(|c| c.steps.len());
            assert_eq!(steps, Some(1), "a constant delta");
        }
    }
}

impl World {
    /// The recorded steps tell where each batch is at the centre.
    fn check_translation(&self) {
        let Some(checkpoint) = self.mirror.checkpoint.as_ref().filter(|_| !self.faults.foreign)
        else {
            return;
        };
        for h in self.source.iter().filter(|h| h.record_count > 0) {
            let step = checkpoint.steps.iter().rev().find(|step| step.from <= h.base_offset);
            // Only the newest steps are kept.
            let Some(step) = step else { continue };
            let at = usize::try_from(h.base_offset + step.delta).unwrap();
            let there = self.broker.log.get(at);
            assert!(
                matches!(there, Some(Entry::Ours { source, .. }) if *source == h.base_offset),
                "{} is not at {at}: {:?}",
                h.base_offset,
                checkpoint.steps
            );
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
    run_seeds(0..3_000, Faults { old: false, foreign: false, failover: false, holes: false });
}

#[test]
fn never_a_duplicate_never_a_gap_when_others_write_and_leaders_fail() {
    run_seeds(0..3_000, Faults { old: false, foreign: true, failover: true, holes: false });
}

#[test]
fn never_a_duplicate_never_a_gap_when_the_centre_forgets_the_producer() {
    run_seeds(0..3_000, Faults { old: true, foreign: true, failover: false, holes: false });
}

#[test]
fn never_a_duplicate_never_a_gap_where_compaction_has_been() {
    for (old, foreign, failover) in
        [(false, false, false), (false, true, true), (true, true, false), (true, false, false)]
    {
        run_seeds(0..2_000, Faults { old, foreign, failover, holes: true });
    }
}
