//! A tail of 64 KiB, cut at every byte and with a bit of every byte flipped: what is served afterwards is an exact prefix of
//! what was appended, or the loss is said aloud; never a record that was not appended.
//!
//! The tail is in the journal (an `fsync` topic after its checkpoint) or in the segment (a `memory` topic). `HEADWATER_EVERY=1`
//! visits every byte; without it a sample of them, which is what a run without optimisation has time for.

use crate::keys::text_of;
use crate::sim::{Sim, settings};
use crate::step::Step;
use headwater_log::batch;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::{Offset, OpenError, Partition, ReadError, ReadLimit};

const TAIL_BYTES: usize = 64 << 10;
/// Bytes between two that are visited, when not all are.
const STRIDE: usize = 977;

/// A killed life with a long tail behind its last checkpoint: the state before the tail, and after it.
struct Tail {
    before: Sim,
    after: Sim,
    /// The file that has the tail, the byte where it begins, and the byte behind it.
    path: String,
    from: usize,
    to: usize,
    /// Values in offset order.
    values: Vec<Vec<u8>>,
    /// How many of them were there before the tail.
    base: usize,
}

fn life(durability: Durability) -> Tail {
    let mut sim = Sim::new(5);
    // One file of the ring holds the whole tail.
    sim.options.journal_file_bytes = 128 << 10;
    sim.options.journal_files = 2;
    sim.open().expect("a new directory");
    let settings = TopicSettings { segment_bytes: 1 << 20, ..settings(durability) };
    let append = Step::Append { topic: "sensors", partition: 0, records: 4, bytes: 700 };
    sim.run(&[
        Step::Create { topic: "sensors", partitions: 1, settings },
        append.clone(),
        Step::Commit,
        Step::Checkpoint,
    ]);
    let before = sim.on(sim.disk.after_kill());
    let base = sim.model.topics["sensors"].partitions[0].history.len();
    let extension = if durability == Durability::Memory { ".log" } else { ".journal" };
    loop {
        sim.run(&[append.clone(), Step::Commit]);
        let grown =
            sim.disk.files().into_iter().filter(|f| f.ends_with(extension)).find_map(|path| {
                let new = sim.disk.contents(&path).expect("listed");
                let old = before.disk.contents(&path).unwrap_or_default();
                let differs = |at: &usize| old.get(*at).copied().unwrap_or(0) != new[*at];
                let from = (0..new.len()).find(differs)?;
                let to = (0..new.len()).rev().find(differs)? + 1;
                Some((path, from, to))
            });
        let Some((path, from, to)) = grown else { continue };
        if to - from < TAIL_BYTES {
            continue;
        }
        let after = sim.on(sim.disk.after_kill());
        let history = &after.model.topics["sensors"].partitions[0].history;
        let values = history.iter().map(|given| given[0].value.clone()).collect();
        return Tail { before, after, path, from, to, values, base };
    }
}

/// Opens the log over the tail as `spoiled` and checks what it serves.
fn check(tail: &Tail, spoiled: &[u8], name: &str) {
    // Segments as they were at the checkpoint, so that nothing but the tail says what is there.
    let mut sim = tail.after.on(tail.before.disk.after_kill());
    sim.disk.plant(&tail.path, spoiled);
    let recovery = match sim.open() {
        Ok(recovery) => recovery,
        Err(OpenError::Damaged { .. }) => return,
        Err(other) => panic!("{name}: {other}"),
    };
    let partition = sim.partition("sensors", 0).expect("it is older than the tail");
    let loud = !recovery.findings.is_empty();
    let (found, gap) = served(&partition);
    assert!(loud || gap.is_none(), "{name}: a gap behind a silent start: {gap:?}");
    for (offset, value) in &found {
        let appended = tail.values.get(*offset as usize);
        assert!(appended == Some(value), "{name}: offset {offset} was appended otherwise");
    }
    let below = found.iter().filter(|(offset, _)| *offset < tail.base as i64).count();
    assert_eq!(below, tail.base, "{name}: records below the checkpoint are gone");
    let damage = sim.log().stats().damage;
    assert!(loud || damage.is_empty(), "{name}: damage is met after a silent start: {damage:?}");
}

type Served = Vec<(i64, Vec<u8>)>;

/// All that a reader gets, and the first gap that it was told of. Offsets go on one by one but for that.
fn served(partition: &Partition) -> (Served, Option<ReadError>) {
    let (mut found, mut gap, mut from) = (Served::new(), None, Offset::ZERO);
    loop {
        match partition.read(from, 1 << 20, ReadLimit::HighWatermark) {
            Ok(outcome) if outcome.batches.is_empty() => return (found, gap),
            Ok(outcome) => {
                let records = outcome.batches.iter().flat_map(|batch| {
                    batch::records(batch).expect("whole").map(|record| record.expect("whole"))
                });
                let before = found.len() as i64;
                found.extend(records.map(|r| (r.offset, text_of(&r))));
                assert_eq!(found.len() as i64 - before, outcome.next.get() - from.get());
                from = outcome.next;
            }
            Err(error) => {
                let next = match &error {
                    ReadError::Damaged { next_good, .. } => *next_good,
                    other => panic!("{other}"),
                };
                gap = gap.or(Some(error));
                match next.filter(|next| *next > from) {
                    Some(next) => from = next,
                    None => return (found, gap),
                }
            }
        }
    }
}

fn visit(durability: Durability) {
    let tail = life(durability);
    let whole = tail.after.disk.contents(&tail.path).expect("listed");
    let stride = if std::env::var_os("HEADWATER_EVERY").is_some() { 1 } else { STRIDE };
    check(&tail, &whole, "the whole tail");
    for at in (tail.from..tail.to).step_by(stride) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        check(&tail, &flipped, &format!("{durability:?}, a bit of byte {at} flipped"));
        // What lay in the file before is behind the cut: zeros, as nothing was there.
        let mut cut = whole.clone();
        match durability {
            Durability::Memory => cut.truncate(at),
            Durability::Fsync => cut[at..].fill(0),
        }
        check(&tail, &cut, &format!("{durability:?}, cut at byte {at}"));
    }
}

#[test]
fn a_journal_tail_spoiled_anywhere_is_a_prefix_or_a_refusal() {
    visit(Durability::Fsync);
}

#[test]
fn a_segment_tail_spoiled_anywhere_is_a_prefix_or_a_refusal() {
    visit(Durability::Memory);
}
