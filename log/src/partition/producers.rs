//! What a partition knows of its producers (KIP-98, KIP-360, KIP-890): sequences, epochs, open transactions.
//!
//! The state at an offset is a fold over the batches below it: [`Producers::check`] and [`Producers::check_marker`] judge what a
//! client or a coordinator brings, [`Producers::apply`] takes what was appended, replayed or read back, without judging.
//! So a partition keeps it twice, at its end and at what its files hold, and makes any other one from a snapshot.
//!
//! Per producer the last five batches are known, as many as a client may have in flight. At most [`PRODUCERS_MAX`] producers:
//! beyond it the one is forgotten that wrote longest ago and has no open transaction; when all have one, a new producer is
//! refused as busy. Neither that nor the expiry ever forgets an open transaction.
//!
//! Invariant: `open` holds exactly the entries' open transactions, by their first offsets.
//! Neighbours: `transactions` asks what is stable, `snapshot` has the file, `catalog` the state at a checkpoint.

mod encoding;
mod snapshot;
#[cfg(test)]
mod tests;

use super::{AppendError, Producer};
use crate::batch::marker::{EndTransaction, TransactionMarker};
use crate::batch::{BatchHeader, sequence_plus};
use crate::segment::txnindex::AbortedTransaction;
use crate::{Offset, batch};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// Batches remembered per producer: Kafka's `max.in.flight.requests.per.connection` with idempotence.
const BATCHES_MAX: usize = 5;
/// Producers remembered per partition.
pub(crate) const PRODUCERS_MAX: usize = 4096;

/// A remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// -1 for a batch without a sequence: a coordinator's.
    first_sequence: i32,
    /// Last offset less `base`, and last sequence less the first.
    delta: i32,
    base: Offset,
}

impl Known {
    fn last(&self) -> Offset {
        self.base.plus(self.delta.unsigned_abs())
    }

    fn last_sequence(&self) -> i32 {
        match self.first_sequence {
            -1 => -1,
            first => sequence_plus(first, self.delta),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    epoch: i16,
    /// Of the coordinator that wrote the last marker; -1 before the first.
    coordinator_epoch: i32,
    /// Largest timestamp of the last batch, or the marker's.
    last_timestamp_ms: i64,
    /// Log clock when it wrote last: what the expiry goes by.
    last_append_ms: i64,
    /// Last offset that it wrote, or that a marker of it has: who wrote longest ago has the lowest.
    last_offset: Offset,
    /// First offset of its open transaction.
    open: Option<Offset>,
    /// Of the current epoch, the newest last.
    batches: Vec<Known>,
}

/// A transaction whose marker readers may not see yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Completed {
    first: Offset,
    /// The marker's offset.
    last: Offset,
}

/// All producers of a partition, as of some offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    entries: HashMap<i64, Entry>,
    open: BTreeMap<Offset, i64>,
    /// In the order of their markers; those that readers may see are let go of.
    completed: Vec<Completed>,
}

/// What a sequence means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sequence {
    New,
    /// Here already, from the first to the last offset.
    Duplicate(Offset, Offset),
}

/// Who appends a batch, and what is known of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client; whether the coordinator knows of the transaction was not asked.
    Client,
    /// A client; the coordinator knows of the transaction (KIP-890).
    Verified(VerificationGuard),
    /// A group coordinator's offsets within a transaction: no sequences.
    Coordinator,
}

/// Names one question to the transaction coordinator, so that an old answer cannot let a batch in after the transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationGuard(pub(super) u64);

impl Producers {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.completed.is_empty()
    }

    /// Judges a batch as Kafka's ProducerAppendInfo does.
    ///
    /// A coordinator's offsets are not recognised when they come again: they have no sequences.
    pub(crate) fn check(
        &self,
        header: &BatchHeader,
        origin: Origin,
    ) -> Result<Sequence, AppendError> {
        if header.producer_id < 0 {
            return Ok(Sequence::New);
        }
        let Some(entry) = self.entries.get(&header.producer_id) else {
            // With no state for a producer any sequence may come.
            return if self.has_room() { Ok(Sequence::New) } else { Err(AppendError::Busy) };
        };
        if origin != Origin::Coordinator
            && let Some(known) = entry.duplicate(header)
        {
            return Ok(Sequence::Duplicate(known.base, known.last()));
        }
        entry.check_epoch(header.producer_id, header.producer_epoch)?;
        if origin != Origin::Coordinator {
            entry.check_sequence(header)?;
        }
        if entry.open.is_some() && !header.is_transactional() {
            return Err(AppendError::InvalidTransaction {
                producer_id: header.producer_id,
                reason: "its transaction is open, and the batch does not belong to it",
            });
        }
        Ok(Sequence::New)
    }

    /// Whether one more producer can be remembered.
    fn has_room(&self) -> bool {
        self.entries.len() < PRODUCERS_MAX || self.open.len() < self.entries.len()
    }

    /// Judges a marker: zombies of producers and of coordinators are fenced.
    pub(crate) fn check_marker(&self, marker: &TransactionMarker) -> Result<(), AppendError> {
        let id = marker.producer_id;
        let Some(entry) = self.entries.get(&id) else {
            return if self.has_room() { Ok(()) } else { Err(AppendError::Busy) };
        };
        entry.check_epoch(id, marker.producer_epoch)?;
        // Of the open transaction's own epoch, it is a late one of the transaction before. With none open it is the same
        // marker again, and may be: nothing is ended twice (KIP-890).
        if marker.bumps_epoch && marker.producer_epoch == entry.epoch && entry.open.is_some() {
            let (current, found) = (entry.epoch, marker.producer_epoch);
            return Err(AppendError::ProducerFenced { producer_id: id, current, found });
        }
        let (current, found) = (entry.coordinator_epoch, marker.end.coordinator_epoch);
        if found < current {
            return Err(AppendError::CoordinatorFenced { producer_id: id, current, found });
        }
        Ok(())
    }

    /// Whether this producer has an open transaction in this epoch.
    pub(crate) fn is_open(&self, producer_id: i64, epoch: i16) -> bool {
        self.entries.get(&producer_id).is_some_and(|e| e.open.is_some() && e.epoch == epoch)
    }

    /// The epoch last seen, and whether a batch of it is remembered.
    pub(crate) fn epoch_of(&self, producer_id: i64) -> Option<(i16, bool)> {
        self.entries.get(&producer_id).map(|e| (e.epoch, !e.batches.is_empty()))
    }

    /// Takes a batch at its place. `now_ms` is the log clock. Answers with the transaction that it aborts.
    pub(crate) fn apply(
        &mut self,
        header: &BatchHeader,
        base: Offset,
        end: Option<EndTransaction>,
        now_ms: i64,
    ) -> Option<AbortedTransaction> {
        if header.producer_id < 0 {
            return None;
        }
        match end {
            Some(end) => self.apply_marker(header, base, end, now_ms),
            // Other control records are nobody's.
            None if header.is_control() => None,
            None => {
                self.apply_data(header, base, now_ms);
                None
            }
        }
    }

    /// [`Producers::apply`] for a batch as it is stored.
    pub(crate) fn apply_stored(
        &mut self,
        bytes: &Bytes,
        now_ms: i64,
    ) -> Option<AbortedTransaction> {
        let header = BatchHeader::parse(bytes).ok()?;
        let end = if header.is_control() { batch::marker::end_of(bytes) } else { None };
        self.apply(&header, Offset::new(header.base_offset)?, end, now_ms)
    }

    fn apply_data(&mut self, header: &BatchHeader, base: Offset, now_ms: i64) {
        let id = header.producer_id;
        let entry = self.entry(id, header.producer_epoch, base);
        entry.set_epoch(header.producer_epoch);
        if entry.batches.len() == BATCHES_MAX {
            entry.batches.remove(0);
        }
        let known = Known {
            first_sequence: header.base_sequence.max(-1),
            delta: header.last_offset_delta,
            base,
        };
        entry.batches.push(known);
        entry.last_timestamp_ms = header.max_timestamp;
        entry.last_append_ms = entry.last_append_ms.max(now_ms);
        entry.last_offset = known.last();
        if header.is_transactional() && entry.open.is_none() {
            entry.open = Some(base);
            self.open.insert(base, id);
        }
    }

    fn apply_marker(
        &mut self,
        header: &BatchHeader,
        last: Offset,
        end: EndTransaction,
        now_ms: i64,
    ) -> Option<AbortedTransaction> {
        let id = header.producer_id;
        let entry = self.entry(id, header.producer_epoch, last);
        entry.set_epoch(header.producer_epoch);
        entry.coordinator_epoch = end.coordinator_epoch;
        entry.last_timestamp_ms = header.max_timestamp;
        entry.last_append_ms = entry.last_append_ms.max(now_ms);
        entry.last_offset = last;
        // A marker without a transaction changes nothing for readers.
        let first = entry.open.take()?;
        self.open.remove(&first);
        self.completed.push(Completed { first, last });
        (!end.commit).then(|| AbortedTransaction {
            producer_id: id,
            first,
            last,
            last_stable: self.open.first_key_value().map_or(last.plus(1), |(first, _)| *first),
        })
    }

    fn entry(&mut self, id: i64, epoch: i16, at: Offset) -> &mut Entry {
        if self.entries.len() >= PRODUCERS_MAX && !self.entries.contains_key(&id) {
            let idle = self.entries.iter().filter(|(_, e)| e.open.is_none());
            if let Some(oldest) = idle.min_by_key(|(_, e)| e.last_offset).map(|(id, _)| *id) {
                self.entries.remove(&oldest);
            }
        }
        self.entries.entry(id).or_insert_with(|| Entry {
            epoch,
            coordinator_epoch: -1,
            last_timestamp_ms: -1,
            last_append_ms: 0,
            last_offset: at,
            open: None,
            batches: Vec::new(),
        })
    }

    /// The first offset whose outcome readers do not know, if there is one: of an open transaction, or of one whose marker is not
    /// below `decided`.
    pub(crate) fn first_unstable(&self, decided: Offset) -> Option<Offset> {
        let open = self.open.first_key_value().map(|(first, _)| *first);
        let unseen = self.completed.iter().filter(|c| c.last >= decided).map(|c| c.first);
        unseen.chain(open).min()
    }

    /// Lets go of completed transactions whose markers lie below the end of what is decided for readers, which never goes back.
    pub(crate) fn settle(&mut self, decided: Offset) {
        let seen = self.completed.partition_point(|c| c.last < decided);
        self.completed.drain(..seen);
    }

    /// Whether there are completed transactions whose markers readers may not see yet.
    pub(crate) fn has_unsettled(&self) -> bool {
        !self.completed.is_empty()
    }

    /// Forgets producers that wrote nothing for so long, on the log clock; returns how many.
    pub(crate) fn expire(&mut self, now_ms: i64, after_ms: i64) -> usize {
        let before = self.entries.len();
        self.entries
            .retain(|_, e| e.open.is_some() || now_ms.saturating_sub(e.last_append_ms) < after_ms);
        before - self.entries.len()
    }

    /// What every producer sent last may be among lost records: any sequence may come next (as Kafka does where it knows
    /// nothing). A transaction that is open stays so, since nobody knows whether its end was among them; what would continue
    /// it is refused, so that it is aborted.
    pub(crate) fn forget_sequences(&mut self) {
        self.entries.retain(|_, e| e.open.is_some());
        for entry in self.entries.values_mut() {
            entry.batches.clear();
        }
        self.completed.clear();
    }

    /// For Kafka's DescribeProducers, and for compaction.
    pub(crate) fn list(&self) -> Vec<Producer> {
        let mut all: Vec<Producer> = self
            .entries
            .iter()
            .map(|(id, e)| Producer {
                id: *id,
                epoch: e.epoch,
                last_sequence: e.batches.last().map_or(-1, Known::last_sequence),
                last_timestamp_ms: e.last_timestamp_ms,
                last_offset: e.batches.last().map(Known::last),
                coordinator_epoch: e.coordinator_epoch,
                open_from: e.open,
            })
            .collect();
        all.sort_by_key(|p| p.id);
        all
    }

    /// How many producers there are, how many of them have a transaction open, and when the one that wrote longest ago of
    /// those did (log clock).
    pub(crate) fn figures(&self) -> (usize, usize, Option<i64>) {
        let open = self.open.values().filter_map(|id| self.entries.get(id));
        (self.entries.len(), self.open.len(), open.map(|e| e.last_append_ms).min())
    }
}

impl Entry {
    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    fn duplicate(&self, header: &BatchHeader) -> Option<&Known> {
        let (first, last) = (header.base_sequence, header.last_sequence());
        let same = |b: &&Known| b.first_sequence == first && b.last_sequence() == last;
        self.batches.iter().find(same).filter(|_| header.producer_epoch == self.epoch)
    }

    fn check_epoch(&self, producer_id: i64, found: i16) -> Result<(), AppendError> {
        let current = self.epoch;
        if found < current {
            return Err(AppendError::ProducerFenced { producer_id, current, found });
        }
        Ok(())
    }

    fn check_sequence(&self, header: &BatchHeader) -> Result<(), AppendError> {
        let expected = match self.batches.last() {
            // A new epoch starts its sequences anew.
            _ if header.producer_epoch != self.epoch => 0,
            Some(last) if last.first_sequence >= 0 => sequence_plus(last.last_sequence(), 1),
            // The epoch is a marker's: nothing was written in it yet (KIP-360).
            _ => 0,
        };
        let (producer_id, found) = (header.producer_id, header.base_sequence);
        if found != expected {
            return Err(AppendError::OutOfOrderSequence { producer_id, expected, found });
        }
        Ok(())
    }
}
