//! What the log owes: the ledger that a simulated client keeps of what it appended and what was acknowledged.

use crate::replica::HOLE;
use headwater_log::metadata::TopicSettings;
use headwater_log::{Position, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// A record as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) epoch: i32,
    pub(crate) value: Vec<u8>,
}

/// A batch of an idempotent producer.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) producer_id: i64,
    pub(crate) sequence: i32,
    pub(crate) base: i64,
    pub(crate) values: Vec<Vec<u8>>,
    /// Its records were cut off with an uncommitted tail.
    pub(crate) cut: bool,
}

/// One partition's account.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionModel {
    /// Per offset all records that were ever given it, the latest last: only an uncommitted tail that was
    /// cut leaves more than one.
    pub(crate) history: Vec<Vec<Entry>>,
    /// End offset of what was appended and not cut off again.
    pub(crate) end: i64,
    /// Acknowledged as synced up to here.
    pub(crate) acked_end: i64,
    /// Acknowledged as written to the kernel, or shown to readers, up to here.
    pub(crate) shown_end: i64,
    /// Appended and not yet settled: last position, and the end offset behind it.
    pub(crate) pending: Vec<(Position, i64)>,
    /// The largest offset that a deletion was asked for, or that retention may have reached.
    pub(crate) start_max: i64,
    /// A deletion that has been committed.
    pub(crate) start_acked: i64,
    /// Batches of producers in the order sent.
    pub(crate) sent: Vec<Sent>,
    /// Whether the partition's creation has been acknowledged.
    pub(crate) created: bool,
    /// It was asked to be a replica; and that was durable.
    pub(crate) replicated: bool,
    pub(crate) replicated_acked: bool,
    /// The highest that the high watermark ever was.
    pub(crate) watermark_max: i64,
    /// An uplink's durable checkpoint.
    pub(crate) held: Option<i64>,
    /// A truncation to here that may or may not have happened.
    pub(crate) truncating: Option<i64>,
    /// When the record at each offset was appended.
    pub(crate) appended_ms: Vec<i64>,
    /// Offsets that compaction may have taken.
    pub(crate) gone: BTreeSet<i64>,
    /// From when on it may take a tombstone or a transaction's end, at the earliest.
    pub(crate) horizons: BTreeMap<i64, i64>,
}

impl PartitionModel {
    /// Notes records given offsets from `base` on. A base below the end is a tail that was cut.
    pub(crate) fn appended(&mut self, base: i64, epoch: i32, values: &[Vec<u8>], now_ms: i64) {
        assert!(base <= self.end, "offset {base} leaves a gap after {}", self.end);
        self.cut(base);
        self.appended_ms.resize(base as usize + values.len(), now_ms);
        self.appended_ms[base as usize..].fill(now_ms);
        for (i, value) in values.iter().enumerate() {
            let entry = Entry { epoch, value: value.clone() };
            match self.history.get_mut(base as usize + i) {
                Some(candidates) => candidates.push(entry),
                None => self.history.push(vec![entry]),
            }
        }
        self.end = base + values.len() as i64;
    }

    /// The uncommitted tail from `end` on is gone. A crash may still bring it back.
    pub(crate) fn cut(&mut self, end: i64) {
        if end < self.end {
            assert!(end >= self.acked_end, "cut to {end} below {}", self.acked_end);
            self.end = end;
            self.sent.iter_mut().filter(|sent| sent.base >= end).for_each(|sent| sent.cut = true);
        }
    }

    /// A truncation to `end` was carried out: a crash cannot undo it.
    pub(crate) fn truncated(&mut self, end: i64) {
        self.truncating = None;
        self.end = self.end.min(end);
        self.history.truncate(end as usize);
        self.gone.split_off(&end);
        self.horizons.split_off(&end);
        self.sent.retain(|sent| sent.base < end);
        self.pending.retain(|(_, last)| *last <= end);
    }

    /// Whether this offset never had a record, or may not have had one.
    pub(crate) fn was_hole(&self, offset: i64) -> bool {
        let candidates = &self.history[offset as usize];
        let is_hole = |entry: &Entry| entry.value == HOLE;
        if offset < self.acked_end {
            candidates.last().is_some_and(is_hole)
        } else {
            candidates.iter().any(is_hole)
        }
    }

    /// The last batch of producers that is not cut off.
    pub(crate) fn last_sent(&self) -> Option<&Sent> {
        self.sent.iter().rev().find(|sent| !sent.cut)
    }

    /// The account after a restart: what was found is all there is, and all of it counts as acknowledged.
    pub(crate) fn restart(&mut self, found: &[(i64, Entry)], start: i64, end: i64) {
        self.history.resize(end as usize, vec![]);
        for (offset, entry) in found {
            self.history[*offset as usize] = vec![entry.clone()];
        }
        // Where there is no record, there is a hole, or it was acknowledged and compaction took it.
        for at in start..end {
            if found.binary_search_by_key(&at, |(offset, _)| *offset).is_err() {
                let candidates = &mut self.history[at as usize];
                let hole = candidates.iter().rposition(|entry| entry.value == HOLE);
                let last = hole.or(candidates.len().checked_sub(1));
                *candidates = last.map(|last| candidates.swap_remove(last)).into_iter().collect();
            }
        }
        self.end = end;
        self.truncating = None;
        self.pending.clear();
        (self.acked_end, self.shown_end) = (end, end);
        self.start_acked = start;
        self.start_max = self.start_max.max(start);
        let history = &self.history;
        self.sent.retain(|sent| {
            sent.values.iter().enumerate().all(|(i, value)| {
                let at = sent.base as usize + i;
                history.get(at).is_some_and(|c| c.last().is_some_and(|entry| entry.value == *value))
            })
        });
        self.sent.iter_mut().for_each(|sent| sent.cut = false);
    }

    /// The sequence after it.
    pub(crate) fn next_sequence(&self) -> i32 {
        self.last_sent().map_or(0, |sent| sent.sequence + sent.values.len() as i32)
    }
}

/// One life of a topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicModel {
    pub(crate) id: TopicId,
    /// What its settings may be: the acknowledged ones, then those asked for since.
    pub(crate) settings: Vec<TopicSettings>,
    pub(crate) partitions: Vec<PartitionModel>,
    /// Whether its creation has been acknowledged.
    pub(crate) created: bool,
    /// Whether it was ever asked to be a `memory` topic: then a power cut may take what was shown and not synced.
    pub(crate) memory: bool,
}

/// A change of metadata that waits for its cycle.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Created(TopicId, usize),
    Grown(TopicId, usize),
    Altered(TopicId, TopicSettings),
    Deleted(TopicId),
    Trimmed(TopicId, usize, i64),
}

/// The whole account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) topics: BTreeMap<String, TopicModel>,
    /// Deleted topics, and whether the deletion was acknowledged.
    pub(crate) graves: Vec<(String, TopicModel, bool)>,
    pub(crate) pending: Vec<(u64, Change)>,
    pub(crate) epoch: i32,
    pub(crate) next_value: u64,
}
