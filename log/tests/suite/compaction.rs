//! Compaction in the account: what each pass may take, noted before it runs, so that all else must be there for ever.
//!
//! Other steps come between the pieces of a pass, as other threads do.

use crate::keys::{is_tombstone, key_of, text_of};
use crate::lookup::timestamp_of;
use crate::model::{Entry, PartitionModel};
use crate::sim::{Sim, directory, try_read_all};
use crate::step::Step;
use crate::transactions::{Naive, marked_by, owner_of};
use crate::verify::check_present;
use headwater_log::batch;
use headwater_log::clock::Clock;
use headwater_log::metadata::TopicSettings;
use headwater_log::{Offset, Partition, ReadError, ReadLimit, Role};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Passes that one step runs at most: each takes something or makes something clean, so they come to an end.
const PASSES_MAX: usize = 200;

impl Sim {
    /// Compaction until nothing is due, with the next of these steps between every two pieces of it.
    pub(crate) fn compact(&mut self, between: &[Step]) {
        let (log, mut steps) = (self.log().clone(), between.iter());
        for pass in 0.. {
            assert!(pass < PASSES_MAX, "compaction comes to an end: {:?}", log.stats().compaction);
            self.allow_compaction();
            let readers = self.begin_reading();
            let inside = RefCell::new((&mut *self, &mut steps));
            let any = log.step_compaction_between(&|| {
                let (sim, steps) = &mut *inside.borrow_mut();
                if let Some(step) = steps.next().filter(|_| !sim.disk.is_stopped()) {
                    sim.step(step);
                    // Another directory's pass begins later, with what has come since.
                    sim.allow_compaction();
                }
                false
            });
            self.end_reading(readers);
            if !any || self.disk.is_stopped() {
                break;
            }
        }
        self.check_compacted();
    }

    /// Notes what a pass may take that begins now.
    pub(crate) fn allow_compaction(&mut self) {
        let (log, now_ms) = (self.log().clone(), self.clock.wall_ms());
        for (name, topic) in &mut self.model.topics {
            let Some(there) = log.topic(name) else { continue };
            let settings = topic.settings.last().expect("one at least").clone();
            if !settings.cleanup.compacts() {
                continue;
            }
            for (partition, model) in there.partitions().iter().zip(&mut topic.partitions) {
                if partition.missing().is_none() {
                    model.allow_compaction(partition, &settings, now_ms);
                }
            }
        }
    }

    /// Readers that have read the first half of a partition.
    fn begin_reading(&self) -> Vec<(std::sync::Arc<Partition>, Offset)> {
        let topics = self.log().topics();
        let partitions = topics.iter().flat_map(|topic| topic.partitions());
        let half = |p: &std::sync::Arc<Partition>| {
            let at = p.positions();
            let middle = i64::midpoint(at.log_start.get(), at.high_watermark.get());
            let middle = Offset::new(middle).expect("not negative");
            let next = p.read(middle, 1, ReadLimit::HighWatermark).ok()?.next;
            Some((p.clone(), next))
        };
        partitions.filter_map(half).collect()
    }

    /// Each of them can go on from where it was, over whatever has become of the log.
    fn end_reading(&self, readers: Vec<(std::sync::Arc<Partition>, Offset)>) {
        for (partition, from) in readers {
            if partition.positions().log_start > from || self.disk.is_stopped() {
                continue;
            }
            match partition.read(from, 1, ReadLimit::HighWatermark) {
                Ok(read) => {
                    let end = read.positions.high_watermark;
                    assert!(
                        read.next > from || from >= end,
                        "{partition:?} stands still at {from}"
                    );
                }
                Err(error) => {
                    let excused = self.disk.has_failed()
                        || self.disk.is_stopped()
                        || error == ReadError::Deleted;
                    assert!(excused, "{partition:?} from {from}: {error}");
                }
            }
        }
    }

    /// Reads all that compaction may have been at.
    fn check_compacted(&self) {
        for (name, topic) in &self.model.topics {
            let there = self.log().topic(name).expect("known to the ledger");
            for (partition, model) in there.partitions().iter().zip(&topic.partitions) {
                if model.gone.is_empty() || partition.missing().is_some() || self.disk.is_stopped()
                {
                    continue;
                }
                match check_contents(partition).and_then(|()| try_read_all(partition)) {
                    Ok(found) => {
                        let p = partition.positions();
                        // As far as it is read of one that is a replica.
                        let alone = partition.role() == Role::Alone;
                        let end = if alone { p.high_watermark } else { p.written };
                        check_present(partition, model, &found, p.log_start.get(), end.get());
                    }
                    // A directory may have died without anybody having noticed.
                    Err(_) if self.disk.has_failed() || self.disk.is_stopped() => {}
                    Err(error) => {
                        let offline = directory(self.log(), partition).offline;
                        panic!("{partition:?}: {error}, offline: {offline:?}");
                    }
                }
            }
        }
    }
}

/// What a pass has written again has the keys and the times that it had.
fn check_contents(partition: &Partition) -> Result<(), ReadError> {
    let mut from = partition.positions().log_start;
    loop {
        let read = partition.read(from, 3_000, ReadLimit::HighWatermark)?;
        if read.next == from {
            return Ok(());
        }
        for bytes in &read.batches {
            let records = batch::records(bytes).expect("a served batch is whole");
            if records.batch().is_control() {
                continue;
            }
            for record in records {
                let record = record.expect("a served record is whole");
                let text = text_of(&record);
                assert_eq!(record.key.as_deref(), key_of(&text).as_deref(), "{record:?}");
                assert_eq!(record.timestamp_ms, timestamp_of(&text), "{record:?}");
            }
        }
        from = read.next;
    }
}

impl PartitionModel {
    /// The text of the record that is at this offset, or was last.
    pub(crate) fn text(&self, offset: i64) -> &[u8] {
        self.history.get(offset as usize).and_then(|all| all.last()).map_or(b"", |e| &e.value)
    }

    /// What a pass may take that begins now. Below every hold, what is synced and decided, and older than the lag: records of aborted
    /// transactions; those of a key that has a newer one there; those without a key, which it cannot judge. Tombstones and
    /// transactions' ends only when a pass had them before it, so long ago as the topic says.
    fn allow_compaction(&mut self, partition: &Partition, settings: &TopicSettings, now_ms: i64) {
        let p = partition.positions();
        let limit = p.high_watermark.min(p.last_stable).min(p.synced).get();
        let lag_ms = settings.compaction_lag_ms_min as i64;
        let young = |at: &i64| now_ms - self.appended_ms[*at as usize] < lag_ms;
        let limit = limit.min(self.held.unwrap_or(i64::MAX));
        let limit = (p.log_start.get()..limit).find(young).unwrap_or(limit);
        let naive = Naive::of(self, p.high_watermark.get(), p.high_watermark.min(p.synced).get());
        let mut newest = BTreeMap::new();
        for at in naive.shown.iter().copied().filter(|at| *at < limit) {
            let newest = newest.entry(key_of(self.text(at))).or_insert(at);
            *newest = at.max(*newest);
        }
        for at in p.log_start.get()..limit {
            let text = self.text(at);
            let shown = naive.shown.binary_search(&at).is_ok();
            let marker = marked_by(text).is_some();
            let superseded = shown && newest.get(&key_of(text)).is_some_and(|newest| *newest > at);
            let keyless = shown && key_of(text).is_none();
            let aborted = !shown && !marker;
            let with_horizon = marker || shown && is_tombstone(text);
            if superseded || keyless || aborted {
                self.gone.insert(at);
            } else if with_horizon {
                let horizon = self.horizons.entry(at).or_insert(i64::MAX);
                if *horizon <= now_ms {
                    self.gone.insert(at);
                }
                *horizon = (*horizon).min(now_ms + settings.delete_retention_ms as i64);
            }
        }
    }
}

/// A transaction's end is there as long as a record of it is.
pub(crate) fn check_ends(name: &str, model: &PartitionModel, found: &[(i64, Entry)], end: i64) {
    let is_there = |at: i64| found.binary_search_by_key(&at, |(offset, _)| *offset).is_ok();
    let mut owned: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for at in 0..end {
        let text = model.text(at);
        if let Some(producer) = owner_of(text) {
            owned.entry(producer).or_default().push(at);
        } else if let Some(producer) = marked_by(text) {
            let records = owned.remove(&producer).unwrap_or_default();
            let left = records.iter().find(|at| is_there(**at));
            assert!(
                left.is_none() || is_there(at),
                "{name}: the end at {at} is gone and {left:?} of its transaction is there"
            );
        }
    }
}
