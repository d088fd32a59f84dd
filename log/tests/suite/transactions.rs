//! Transactions in the account: whose records and markers are where, so what readers of committed data must see.
//!
//! The records of a transaction and its markers say in their values what they are; [`Naive`] folds the whole history, record
//! by record, and knows nothing of snapshots, indexes and positions.

use crate::clients::client_batch;
use crate::crash::case;
use crate::lookup::timestamp_of;
use crate::model::{Entry, PartitionModel};
use crate::sim::{End, Random, Sim, settings, try_read_all};
use crate::step::Step;
use bytes::{Bytes, BytesMut};
use headwater_log::batch::marker::{EndTransaction, TransactionMarker, end_of};
use headwater_log::batch::{self, BatchHeader};
use headwater_log::disk::fake::Outcome;
use headwater_log::metadata::Durability;
use headwater_log::{AppendError, Offset, Partition, ReadError, ReadLimit};
use std::collections::BTreeMap;

/// Transactional producers of a partition.
pub(crate) const PRODUCERS: i64 = 3;
const FIRST_PRODUCER: i64 = 6_000;

fn offset(at: i64) -> Offset {
    Offset::new(at).expect("not negative")
}

/// A marker, as the account has it.
pub(crate) fn marker_value(header: &BatchHeader, batch: &Bytes) -> Vec<u8> {
    let end = end_of(batch).expect("control batches here are markers");
    marker_text(header.producer_id, end)
}

fn marker_text(producer: i64, end: EndTransaction) -> Vec<u8> {
    let kind = if end.commit { "commit" } else { "abort" };
    format!("{kind}~{producer}~{}", end.coordinator_epoch).into_bytes()
}

fn is_marker(value: &[u8]) -> bool {
    value.starts_with(b"commit~") || value.starts_with(b"abort~")
}

fn transactional(producer: i64, sequence: i32, values: &[Vec<u8>]) -> BytesMut {
    let mut bytes = client_batch(producer, sequence, values);
    bytes[22] |= 0x10;
    let crc = crc_fast::crc32_iscsi(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// What a text says before its first `~`, and the producer behind that.
fn read_text(text: &[u8]) -> Option<(&str, i64)> {
    let mut parts = text.split(|byte| matches!(byte, b'~' | b'|'));
    let kind = std::str::from_utf8(parts.next()?).ok()?;
    let producer = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    Some((kind, producer))
}

/// The producer in whose transaction a record is.
pub(crate) fn owner_of(text: &[u8]) -> Option<i64> {
    read_text(text).filter(|(kind, _)| *kind == "txn").map(|(_, producer)| producer)
}

/// The producer whose transaction ends here.
pub(crate) fn marked_by(text: &[u8]) -> Option<i64> {
    let end = read_text(text).filter(|(kind, _)| matches!(*kind, "commit" | "abort"));
    end.map(|(_, producer)| producer)
}

/// What a history says of transactions.
#[derive(Debug, Default)]
pub(crate) struct Naive {
    open: BTreeMap<i64, i64>,
    /// Producer, first offset, the marker's.
    aborted: Vec<(i64, i64, i64)>,
    /// Offset and producer of each transactional record that is not decided, then of each that was committed.
    undecided: Vec<(i64, i64)>,
    /// Offsets that readers of committed data see, rising.
    pub(crate) shown: Vec<i64>,
}

impl Naive {
    fn began_below(&self, start: i64, last: i64) -> bool {
        self.aborted.iter().any(|(_, first, marker)| *marker == last && *first < start)
    }

    /// Of a history's records below `end`, and its markers below `decided`.
    pub(crate) fn of(model: &PartitionModel, end: i64, decided: i64) -> Self {
        let mut naive = Self::default();
        for (at, candidates) in model.history.iter().enumerate().take(end as usize) {
            let counts = |entry: &&Entry| (at as i64) < decided || !is_marker(&entry.value);
            if let Some(entry) = candidates.last().filter(counts) {
                naive.take(at as i64, entry);
            }
        }
        naive.shown.sort_unstable();
        naive
    }

    fn take(&mut self, at: i64, entry: &Entry) {
        match read_text(&entry.value) {
            Some(("txn", producer)) => {
                self.open.entry(producer).or_insert(at);
                self.undecided.push((at, producer));
            }
            Some((kind @ ("commit" | "abort"), producer)) => {
                let first = self.open.remove(&producer);
                if let Some(first) = first.filter(|_| kind == "abort") {
                    self.aborted.push((producer, first, at));
                }
                let (mine, others) = self.undecided.iter().partition(|(_, id)| *id == producer);
                self.undecided = others;
                let mine: Vec<(i64, i64)> = mine;
                if kind == "commit" {
                    self.shown.extend(mine.iter().map(|(at, _)| *at));
                }
            }
            _ => self.shown.push(at),
        }
    }
}

/// What readers of committed data are shown must be what the history says, exactly.
pub(crate) fn check_committed(
    partition: &Partition,
    model: &PartitionModel,
) -> Result<(), ReadError> {
    let p = partition.positions();
    let name = format!("{}-{} {p:?}", partition.topic(), partition.id());
    let (start, end) = (p.log_start.get(), p.high_watermark.get());
    // A marker of a `memory` topic counts when it is synced.
    let naive = Naive::of(model, end, end.min(p.synced.get()));
    let first_open = naive.open.values().copied().min();
    // Where the files are not synced at once, a deletion may outlive the records it deleted: nobody knows of their transaction.
    if partition.durability() == Durability::Memory && first_open.is_some_and(|at| at < start) {
        return Ok(());
    }
    let stable = first_open.map_or(end, |first| first.max(start));
    // One of which nothing is left may be forgotten with a start: there is nothing that a reader could be shown of it.
    let left = |id: &i64| naive.undecided.iter().any(|(at, of)| of == id && *at >= start);
    let first_left = naive.open.iter().filter(|(id, _)| left(id)).map(|(_, at)| *at).min();
    let forgotten = first_left.map_or(end, |first| first.max(start));
    let stable = if p.last_stable.get() == forgotten { forgotten } else { stable };
    assert_eq!(p.last_stable.get(), stable, "{name}: {naive:?}");
    let present: Vec<i64> = try_read_all(partition)?.into_iter().map(|(at, _)| at).collect();
    for from in [start, start + (stable - start) / 2, stable] {
        let overlaps = |(_, first, last): &(i64, i64, i64)| *last >= from && *first < stable;
        // Of one that began below the log start a list made anew does not know where it began, nor, if nothing is left of
        // it, that it was: what is read tells whether enough is known.
        let whole = |txn: &(i64, i64, i64)| !naive.began_below(start, txn.2);
        let known = naive.aborted.iter().filter(|txn| overlaps(txn) && whole(txn));
        let known: Vec<_> = known.copied().collect();
        let found = partition.aborted(offset(from), offset(stable))?;
        let found = found.iter().map(|txn| (txn.producer_id, txn.first.get(), txn.last.get()));
        let mut found: Vec<_> = found.filter(whole).collect();
        found.sort_unstable();
        assert!(found.is_sorted_by(|a, b| a < b), "{name} from {from}: {found:?} twice");
        // A list made anew knows of what compaction has left, and where that begins.
        let is_of = |txn: &(i64, i64, i64), whole: &(i64, i64, i64)| {
            (txn.0, txn.2) == (whole.0, whole.2)
                && (txn.1 == whole.1 || txn.1 > whole.1 && !model.gone.is_empty())
        };
        let all_known = found.iter().all(|txn| known.iter().any(|whole| is_of(txn, whole)));
        assert!(all_known, "{name} from {from}: {found:?}, {naive:?}");
        // Nobody needs to know of one of which compaction left nothing.
        let is_left = |(producer, first, last): &&(i64, i64, i64)| {
            let mine = |at: i64| {
                (*first..*last).contains(&at) && owner_of(model.text(at)) == Some(*producer)
            };
            model.gone.is_empty() || present.iter().any(|at| mine(*at))
        };
        for txn in known.iter().filter(is_left) {
            let told = found.iter().any(|found| is_of(found, txn));
            assert!(told, "{name} from {from}: {txn:?} of {naive:?} in {found:?}");
        }
    }
    let is_there = |at: &i64| present.binary_search(at).is_ok();
    let wanted = naive.shown.iter().filter(|at| (start..stable).contains(at) && is_there(at));
    assert_eq!(read_committed(partition)?, wanted.copied().collect::<Vec<i64>>(), "{name}");
    Ok(())
}

/// Offsets that a reader of committed data sees.
fn read_committed(partition: &Partition) -> Result<Vec<i64>, ReadError> {
    let start = partition.positions().log_start;
    let (mut from, mut seen) = (start, vec![]);
    loop {
        let read = partition.read(from, 3_000, ReadLimit::LastStable)?;
        assert!(read.next <= read.positions.last_stable, "{partition:?} from {from}");
        if read.batches.is_empty() && read.next == from {
            return Ok(seen);
        }
        for bytes in &read.batches {
            let header = batch::verify(bytes).expect("a served batch is whole");
            if header.is_control() || read.aborted.iter().any(|txn| txn.covers(&header)) {
                continue;
            }
            let records = batch::records(bytes).expect("a served batch is whole");
            let offsets = records.map(|record| record.expect("a served record is whole").offset);
            seen.extend(offsets.filter(|at| *at >= start.get()));
        }
        from = read.next;
    }
}

impl Sim {
    /// A batch within a transaction of one of the partition's producers, which it may begin.
    pub(crate) fn in_transaction(
        &mut self,
        topic: &str,
        partition: usize,
        producer: i64,
        records: usize,
    ) {
        let Some(target) = self.partition(topic, partition) else { return };
        let producer = FIRST_PRODUCER + producer;
        let values: Vec<Vec<u8>> = self
            .values(topic, partition, records, 40)
            .iter()
            .map(|value| [format!("txn~{producer}~").as_bytes(), value].concat())
            .collect();
        // The log's own word for it: whether it is right is what the other producer's steps find out.
        let known = target.producers().into_iter().find(|p| p.id == producer);
        let sequence = known.map_or(0, |p| p.last_sequence + 1);
        let appended = target.append_batch(transactional(producer, sequence, &values));
        if self.is_keyless(topic, &values, &appended) {
            return;
        }
        match appended {
            Ok(appended) => {
                assert!(!appended.duplicate);
                self.note(topic, partition, appended.base, appended.last, &values);
            }
            Err(error) => self.note_refusal(&error),
        }
    }

    /// Ends a producer's transaction, if one is open.
    pub(crate) fn mark(&mut self, topic: &str, partition: usize, producer: i64, commit: bool) {
        let Some(target) = self.partition(topic, partition) else { return };
        self.model.next_value += 1;
        // A coordinator is never older than the one before it.
        let coordinator_epoch = self.model.next_value as i32;
        let end = EndTransaction { commit, coordinator_epoch };
        let value = marker_text(FIRST_PRODUCER + producer, end);
        let marker = TransactionMarker {
            producer_id: FIRST_PRODUCER + producer,
            producer_epoch: 0,
            end,
            bumps_epoch: false,
            timestamp_ms: timestamp_of(&value),
        };
        match target.append_marker(&marker) {
            Ok(appended) => {
                self.note(topic, partition, appended.base, appended.last, &[value]);
                let zombie = EndTransaction { coordinator_epoch: coordinator_epoch - 1, commit };
                let late = target.append_marker(&TransactionMarker { end: zombie, ..marker });
                assert!(matches!(late, Err(AppendError::CoordinatorFenced { .. })), "{late:?}");
            }
            Err(error) => self.note_refusal(&error),
        }
    }

    /// A reader of committed data reads it all.
    pub(crate) fn read_committed(&mut self, topic: &str, partition: usize) {
        let Some(target) = self.partition(topic, partition) else { return };
        if target.missing().is_some() {
            return;
        }
        let model = &self.model.topics[topic].partitions[partition];
        if let Err(e) = check_committed(&target, model) {
            // Making a lost hint again is a change to the disk too.
            let excused = self.disk.has_failed() || self.disk.is_stopped();
            assert!(excused, "{target:?}: {e}");
        }
    }
}

/// Crash point 22: the coordinator dies between the markers of one transaction. It writes them again, to every partition: where
/// one was already it changes nothing, and everywhere the transaction ends as it was decided.
#[test]
fn a_marker_in_some_partitions_only_is_made_good() {
    use Step::{Append, Commit, Create, InTransaction, Marker};
    let topic = "sensors";
    let begin: Vec<Step> =
        [Create { topic, partitions: 3, settings: settings(Durability::Fsync) }, Commit]
            .into_iter()
            .chain((0..3).flat_map(|partition| {
                [
                    Append { topic, partition, records: 1, bytes: 10 },
                    InTransaction { topic, partition, producer: 0, records: 2 },
                    Append { topic, partition, records: 1, bytes: 10 },
                ]
            }))
            .chain([Commit])
            .collect();
    for commit in [false, true] {
        let mark = |partition| Marker { topic, partition, producer: 0, commit };
        let steps = [mark(0), Commit, mark(1), Commit, mark(2), Commit];
        for died_after in 0..=steps.len() {
            for (i, outcome) in Outcome::ALL.into_iter().enumerate() {
                case(&format!("commit {commit}, died after {died_after}, {outcome:?}"), || {
                    let mut sim = Sim::new(7);
                    sim.open().expect("a new directory");
                    sim.run(&begin);
                    sim.run(&steps[..died_after]);
                    let mut sim = sim.on(sim.disk.after_crash(outcome, i as u64));
                    sim.open().expect("it opens again");
                    sim.check(End::Power);
                    let stable = |sim: &Sim, partition| {
                        let p = sim.partition(topic, partition).expect("it is there");
                        (p.positions().last_stable.get(), p.positions().high_watermark.get())
                    };
                    // What has no marker yet is held back, what has one is not.
                    for partition in 0..3 {
                        let (last_stable, high_watermark) = stable(&sim, partition);
                        let marked = died_after > 2 * partition + 1;
                        assert!(!marked || last_stable == high_watermark, "{partition}");
                        let begun = high_watermark == 4;
                        assert!(!begun || last_stable == 1, "{partition}: {last_stable}");
                    }
                    sim.run(&[mark(0), mark(1), mark(2), Commit]);
                    for partition in 0..3 {
                        let (last_stable, high_watermark) = stable(&sim, partition);
                        assert_eq!(last_stable, high_watermark);
                        sim.read_committed(topic, partition);
                    }
                });
            }
        }
    }
}

/// Interleaved producers over many segments, with cuts by a full disk, restarts, lost and rotten hints: against [`Naive`].
#[test]
fn transactions_are_what_a_naive_fold_says() {
    let (mut records, mut cuts) = (0, 0);
    for seed in 0..40 {
        case(&format!("seed {seed}"), || {
            let (end, cut) = naive_life(seed);
            (records, cuts) = (records + end, cuts + cut);
        });
    }
    assert!(records > 40 * 250 && cuts > 40, "{records} records, {cuts} cuts");
}

/// Answers with the log end, and how often a tail was cut.
fn naive_life(seed: u64) -> (i64, u32) {
    let mut random = Random(seed);
    let mut sim = Sim::new(seed);
    let topic = "sensors";
    let mut cuts = 0;
    sim.open().expect("a new directory");
    let small = headwater_log::metadata::TopicSettings {
        segment_bytes: 4 << 10,
        ..settings(Durability::Fsync)
    };
    sim.step(&Step::Create { topic, partitions: 1, settings: small });
    for round in 0..60 {
        for _ in 0..random.below(12) {
            let producer = random.below(PRODUCERS as u64) as i64;
            let records = 1 + random.below(4) as usize;
            let step = match random.below(8) {
                0 => Step::Append { topic, partition: 0, records, bytes: 200 },
                1 => Step::Produce { topic, partition: 0, records, bytes: 100 },
                2 => Step::Marker { topic, partition: 0, producer, commit: true },
                3 => Step::Marker { topic, partition: 0, producer, commit: false },
                4 => Step::Trim { topic, partition: 0, eighths: random.below(3) as u32 },
                5 => Step::Commit,
                _ => Step::InTransaction { topic, partition: 0, producer, records },
            };
            sim.step(&step);
        }
        match round % 6 {
            1 => {
                // No room for what waits: it is cut.
                sim.disk.set_capacity(Some(sim.disk.used_bytes()));
                sim.step(&Step::Commit);
                cuts += u32::from(sim.log().stats().disk_full);
                sim.disk.set_capacity(None);
                sim.clock.advance_ms(5_000);
                sim.step(&Step::Commit);
                sim.step(&Step::Housekeep);
            }
            2 => sim.step(&Step::Checkpoint),
            3 => sim.step(&Step::Housekeep),
            4 => {
                let end = if random.below(2) == 0 { End::Kill } else { End::Power };
                let disk = match end {
                    End::Kill => sim.disk.after_kill(),
                    End::Power => sim.disk.after_crash(Outcome::Chaos, random.next()),
                };
                spoil_hints(&disk, &mut random);
                sim = sim.on(disk);
                sim.open().expect("it opens again");
                sim.check(end);
            }
            _ => {}
        }
        sim.read_committed(topic, 0);
    }
    (sim.model.topics[topic].partitions[0].end, cuts)
}

/// Some of the hints are gone, cut or rotten.
fn spoil_hints(disk: &headwater_log::disk::fake::FakeDisk, random: &mut Random) {
    let is_hint = |path: &String| path.ends_with(".txnindex") || path.ends_with(".snapshot");
    for path in disk.files().into_iter().filter(is_hint) {
        let mut bytes = disk.contents(&path).expect("it is listed");
        match random.below(6) {
            0 => bytes.clear(),
            1 => bytes.truncate(random.below(50) as usize),
            2 => {
                let at = random.below(bytes.len().max(1) as u64) as usize;
                bytes.iter_mut().skip(at).take(3).for_each(|byte| *byte ^= 0x5a);
            }
            _ => continue,
        }
        disk.plant(&path, &bytes);
    }
}
