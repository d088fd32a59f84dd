//! Which leader epoch each offset was appended in (KIP-101): the table that tells whether a position still means its record.
//!
//! Invariant: epochs and start offsets both rise strictly; an entry is made by the first append of its epoch only.

use crate::encoding::{Fields, Put};
use crate::{LeaderEpoch, Offset};

/// The table: (epoch, first offset appended in it).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// Notes an append at `base` in `epoch`.
    pub(crate) fn appended(&mut self, epoch: LeaderEpoch, base: Offset) {
        if self.entries.last().is_none_or(|(last, _)| *last < epoch) {
            self.entries.push((epoch, base));
        }
    }

    /// Forgets what was appended at or above `end`.
    pub(crate) fn cut(&mut self, end: Offset) {
        self.entries.retain(|(_, start)| *start < end);
    }

    /// Forgets epochs that lie wholly below the log start.
    pub(crate) fn start_at(&mut self, start: Offset) {
        let keep = self.entries.partition_point(|(_, first)| *first <= start).saturating_sub(1);
        self.entries.drain(..keep);
    }

    /// The largest epoch at most `epoch`, and where it ends (KIP-101's OffsetsForLeaderEpoch).
    pub(crate) fn end_of(&self, epoch: LeaderEpoch, end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let next = self.entries.partition_point(|(e, _)| *e <= epoch);
        let (found, _) = *self.entries.get(next.checked_sub(1)?)?;
        Some((found, self.entries.get(next).map_or(end, |(_, start)| *start)))
    }

    /// The epoch of the record at `offset`.
    pub(crate) fn of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let next = self.entries.partition_point(|(_, start)| *start <= offset);
        Some(self.entries.get(next.checked_sub(1)?)?.0)
    }

    /// The newest epoch that was appended in.
    pub(crate) fn last(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.entries.len() as u32);
        for (epoch, start) in &self.entries {
            out.put_i32(epoch.get());
            out.put_i64(start.get());
        }
    }

    pub(crate) fn decode(f: &mut Fields<'_>) -> Option<Self> {
        let count = f.count(12)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push((LeaderEpoch::new(f.i32()?)?, Offset::new(f.i64()?)?));
        }
        entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1).then_some(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e(n: i32) -> LeaderEpoch {
        LeaderEpoch::new(n).unwrap()
    }
    fn o(n: i64) -> Offset {
        Offset::new(n).unwrap()
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let mut table = Epochs::default();
        assert_eq!(table.end_of(e(9), o(0)), None);
        table.appended(e(2), o(0));
        table.appended(e(2), o(5));
        table.appended(e(5), o(10));
        assert_eq!(table.end_of(e(1), o(20)), None);
        assert_eq!(table.end_of(e(2), o(20)), Some((e(2), o(10))));
        assert_eq!(table.end_of(e(4), o(20)), Some((e(2), o(10))));
        assert_eq!(table.end_of(e(7), o(20)), Some((e(5), o(20))));
        assert_eq!((table.of(o(9)), table.of(o(10))), (Some(e(2)), Some(e(5))));
        let mut cut = table.clone();
        cut.cut(o(10));
        assert_eq!(cut.end_of(e(5), o(10)), Some((e(2), o(10))));
        table.start_at(o(10));
        assert_eq!(table.of(o(9)), None);
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        assert_eq!(Epochs::decode(&mut Fields::new(&bytes)), Some(table));
    }
}
