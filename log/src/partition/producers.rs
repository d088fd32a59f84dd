//! What a partition remembers of idempotent producers (KIP-98): enough to recognise a batch that is sent again.
//!
//! Invariant: of each producer the last five batches are known, as many as a client may have in flight; what was appended and
//! then cut with an uncommitted tail is forgotten with it, but not that it is still missing.

use super::{AppendError, Producer};
use crate::batch::{BatchHeader, sequence_plus};
use crate::encoding::{Fields, Put};
use crate::{LeaderEpoch, Offset, Position};
use std::collections::HashMap;

/// Batches remembered per producer: Kafka's `max.in.flight.requests.per.connection` with idempotence.
const BATCHES_MAX: usize = 5;
/// Producers remembered per partition; beyond it the one that wrote longest ago is forgotten.
const PRODUCERS_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    first_sequence: i32,
    last_sequence: i32,
    epoch: LeaderEpoch,
    base: Offset,
    last: Offset,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    epoch: i16,
    /// `None` while nothing is known: any sequence may come.
    next_sequence: Option<i32>,
    last_timestamp_ms: i64,
    batches: Vec<Known>,
}

/// All producers of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    entries: HashMap<i64, Entry>,
}

/// What a sequence means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sequence {
    New,
    /// Here already, from the first to the last position.
    Duplicate(Position, Position),
}

impl Producers {
    /// Judges a client's batch as Kafka's ProducerAppendInfo does.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Sequence, AppendError> {
        if header.producer_id < 0 {
            return Ok(Sequence::New);
        }
        let Some(entry) = self.entries.get(&header.producer_id) else { return Ok(Sequence::New) };
        let (found, producer_id) = (header.base_sequence, header.producer_id);
        if header.producer_epoch < entry.epoch {
            let (current, found) = (entry.epoch, header.producer_epoch);
            return Err(AppendError::ProducerFenced { producer_id, current, found });
        }
        if header.producer_epoch > entry.epoch {
            // A new epoch starts its sequences anew.
            return match found {
                0 => Ok(Sequence::New),
                _ => Err(AppendError::OutOfOrderSequence { producer_id, expected: 0, found }),
            };
        }
        let same =
            |b: &&Known| b.first_sequence == found && b.last_sequence == header.last_sequence();
        if let Some(b) = entry.batches.iter().find(same) {
            let at = |offset| Position { epoch: b.epoch, offset };
            return Ok(Sequence::Duplicate(at(b.base), at(b.last)));
        }
        match entry.next_sequence {
            Some(expected) if expected != found => {
                Err(AppendError::OutOfOrderSequence { producer_id, expected, found })
            }
            _ => Ok(Sequence::New),
        }
    }

    /// Notes a batch that was appended at `base`, checked before or replayed.
    pub(crate) fn appended(&mut self, header: &BatchHeader, base: Offset, epoch: LeaderEpoch) {
        if header.producer_id < 0 {
            return;
        }
        if self.entries.len() >= PRODUCERS_MAX && !self.entries.contains_key(&header.producer_id) {
            let oldest = self.entries.iter().min_by_key(|(id, e)| (e.last_timestamp_ms, **id));
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.entries.remove(&oldest);
            }
        }
        let entry = self.entries.entry(header.producer_id).or_insert(Entry {
            epoch: header.producer_epoch,
            next_sequence: None,
            last_timestamp_ms: 0,
            batches: Vec::with_capacity(BATCHES_MAX),
        });
        if entry.epoch != header.producer_epoch {
            entry.epoch = header.producer_epoch;
            entry.batches.clear();
        }
        if entry.batches.len() == BATCHES_MAX {
            entry.batches.remove(0);
        }
        entry.next_sequence = Some(sequence_plus(header.last_sequence(), 1));
        entry.last_timestamp_ms = header.max_timestamp;
        entry.batches.push(Known {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            epoch,
            base,
            last: base.plus(header.last_offset_delta.unsigned_abs()),
        });
    }

    /// Forgets batches at or above `end`; the first of them is what each producer must send next.
    pub(crate) fn cut(&mut self, end: Offset) {
        for entry in self.entries.values_mut() {
            if let Some(first) = entry.batches.iter().position(|b| b.base >= end) {
                entry.next_sequence = Some(entry.batches[first].first_sequence);
                entry.batches.truncate(first);
            }
        }
    }

    /// For Kafka's DescribeProducers.
    pub(crate) fn list(&self) -> Vec<Producer> {
        let mut all: Vec<Producer> = self
            .entries
            .iter()
            .map(|(id, e)| Producer {
                id: *id,
                epoch: e.epoch,
                last_sequence: e.batches.last().map_or(-1, |b| b.last_sequence),
                last_timestamp_ms: e.last_timestamp_ms,
            })
            .collect();
        all.sort_by_key(|p| p.id);
        all
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.entries.len() as u32);
        let mut ids: Vec<_> = self.entries.keys().copied().collect();
        ids.sort_unstable();
        for (id, entry) in ids.iter().filter_map(|id| Some((id, self.entries.get(id)?))) {
            out.put_i64(*id);
            out.put_i16(entry.epoch);
            out.put_i32(entry.next_sequence.unwrap_or(-1));
            out.put_i64(entry.last_timestamp_ms);
            out.put_u8(entry.batches.len() as u8);
            for b in &entry.batches {
                out.put_i32(b.first_sequence);
                out.put_i32(b.last_sequence);
                out.put_i32(b.epoch.get());
                out.put_i64(b.base.get());
                out.put_i64(b.last.get());
            }
        }
    }

    pub(crate) fn decode(f: &mut Fields<'_>) -> Option<Self> {
        let count = f.count(23)?;
        let mut entries = HashMap::with_capacity(count);
        for _ in 0..count {
            let (id, epoch, next, last_timestamp_ms) = (f.i64()?, f.i16()?, f.i32()?, f.i64()?);
            let n = usize::from(f.u8()?);
            if n > BATCHES_MAX {
                return None;
            }
            let mut batches = Vec::with_capacity(BATCHES_MAX);
            for _ in 0..n {
                batches.push(Known {
                    first_sequence: f.i32()?,
                    last_sequence: f.i32()?,
                    epoch: LeaderEpoch::new(f.i32()?)?,
                    base: Offset::new(f.i64()?)?,
                    last: Offset::new(f.i64()?)?,
                });
            }
            let next_sequence = (next >= 0).then_some(next);
            entries.insert(id, Entry { epoch, next_sequence, last_timestamp_ms, batches });
        }
        Some(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(epoch: i16, sequence: i32, records: i32) -> BatchHeader {
        BatchHeader {
            base_offset: 0,
            batch_length: 49,
            partition_leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: records - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: records,
        }
    }
    fn o(n: i64) -> Offset {
        Offset::new(n).unwrap()
    }

    #[test]
    fn duplicates_gaps_and_fences() {
        let mut p = Producers::default();
        let epoch = LeaderEpoch::new(3).unwrap();
        for i in 0..7 {
            let h = header(0, i * 10, 10);
            assert_eq!(p.check(&h), Ok(Sequence::New));
            p.appended(&h, o(i64::from(i) * 10), epoch);
        }
        let at = |offset| Position { epoch, offset: o(offset) };
        assert_eq!(p.check(&header(0, 30, 10)), Ok(Sequence::Duplicate(at(30), at(39))));
        assert!(matches!(
            p.check(&header(0, 10, 10)),
            Err(AppendError::OutOfOrderSequence { expected: 70, .. })
        ));
        assert!(matches!(p.check(&header(0, 80, 10)), Err(AppendError::OutOfOrderSequence { .. })));
        assert!(matches!(
            p.check(&header(1, 70, 1)),
            Err(AppendError::OutOfOrderSequence { expected: 0, .. })
        ));
        assert_eq!(p.check(&header(1, 0, 1)), Ok(Sequence::New));
        let mut bytes = Vec::new();
        p.encode(&mut bytes);
        assert_eq!(Producers::decode(&mut Fields::new(&bytes)), Some(p.clone()));
        p.cut(o(50));
        assert_eq!(p.check(&header(0, 40, 10)), Ok(Sequence::Duplicate(at(40), at(49))));
        assert!(matches!(
            p.check(&header(0, 60, 10)),
            Err(AppendError::OutOfOrderSequence { expected: 50, .. })
        ));
        assert_eq!(p.check(&header(0, 50, 10)), Ok(Sequence::New));
        p.appended(&header(1, 0, 1), o(50), epoch);
        assert!(matches!(
            p.check(&header(0, 50, 10)),
            Err(AppendError::ProducerFenced { current: 1, .. })
        ));
    }

    #[test]
    fn producers_are_bounded() {
        let mut p = Producers::default();
        for id in 0..PRODUCERS_MAX as i64 + 10 {
            let h = BatchHeader { producer_id: id, max_timestamp: id, ..header(0, 0, 1) };
            p.appended(&h, o(id), LeaderEpoch::default());
        }
        assert_eq!(p.list().len(), PRODUCERS_MAX);
        assert_eq!(p.list()[0].id, 10);
    }
}
