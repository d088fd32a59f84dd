//! Which leader epoch each offset was appended in (KIP-101): the table that tells whether a position still means its record,
//! and where two replicas that differ have their last record in common (KIP-279).
//!
//! It is kept in the catalog and made up from the batches behind it, so there is no file of its own: Kafka's
//! `leader-epoch-checkpoint` is read by no tool of Kafka's.
//!
//! Invariant: epochs and start offsets both rise strictly; an entry is made by the first append of its epoch only. (Kafka also
//! makes one when a leadership begins; until something is appended in it, both tables give the same answers.)
//! Neighbours: `replica` truncates by it, `append` and `replay` note in it.

use crate::encoding::{Fields, Put};
use crate::{LeaderEpoch, Offset};

/// Entries kept; beyond them the oldest are forgotten. A node that starts every day gets there after eleven years.
const ENTRIES_MAX: usize = 4096;

/// The table: (epoch, first offset appended in it).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// Notes an append at `base` in `epoch`.
    pub(crate) fn appended(&mut self, epoch: LeaderEpoch, base: Offset) {
        if self.entries.last().is_none_or(|(last, _)| *last < epoch) {
            if self.entries.len() >= ENTRIES_MAX {
                self.entries.remove(0);
            }
            // Most partitions have one, for ever: a list begins with room for four by itself.
            self.entries.reserve_exact(usize::from(self.entries.is_empty()));
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

    /// The largest epoch at most `epoch`, and where it ends (KIP-101's OffsetsForLeaderEpoch), in a log from `start` to `end`.
    /// An epoch older than all that are known ended where the oldest of them begins, or the log does: what it had is deleted
    /// (as Kafka's LeaderEpochFileCache answers, so that a follower goes on from there).
    pub(crate) fn end_of(
        &self,
        epoch: LeaderEpoch,
        start: Offset,
        end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let next = self.entries.partition_point(|(e, _)| *e <= epoch);
        let next_start = self.entries.get(next).map(|(_, first)| *first);
        match next.checked_sub(1).and_then(|at| self.entries.get(at)) {
            Some((found, _)) => Some((*found, next_start.unwrap_or(end))),
            None => Some((epoch, next_start?.max(start))),
        }
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
        assert_eq!(table.end_of(e(9), o(0), o(0)), None);
        table.appended(e(2), o(0));
        table.appended(e(2), o(5));
        table.appended(e(5), o(10));
        assert_eq!(table.end_of(e(1), o(0), o(20)), Some((e(1), o(0))));
        assert_eq!(table.end_of(e(1), o(3), o(20)), Some((e(1), o(3))), "the log starts later");
        assert_eq!(table.end_of(e(2), o(0), o(20)), Some((e(2), o(10))));
        assert_eq!(table.end_of(e(4), o(0), o(20)), Some((e(2), o(10))));
        assert_eq!(table.end_of(e(7), o(0), o(20)), Some((e(5), o(20))));
        assert_eq!((table.of(o(9)), table.of(o(10))), (Some(e(2)), Some(e(5))));
        let mut cut = table.clone();
        cut.cut(o(10));
        assert_eq!(cut.end_of(e(5), o(0), o(10)), Some((e(2), o(10))));
        table.start_at(o(10));
        assert_eq!(table.of(o(9)), None);
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        assert_eq!(Epochs::decode(&mut Fields::new(&bytes)), Some(table));
    }

    /// SplitMix64.
    fn random(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    }

    /// The table against a plain list of every record's epoch, over random appends, cuts and log starts.
    #[test]
    fn the_table_answers_as_a_list_of_all_records_does() {
        for mut seed in 0..300u64 {
            let (mut table, mut epochs, mut start) = (Epochs::default(), Vec::<i32>::new(), 0usize);
            let mut epoch = 0;
            for _ in 0..40 {
                match random(&mut seed) % 6 {
                    0 => epoch += 1 + (random(&mut seed) % 3) as i32,
                    1 => {
                        let room = (epochs.len() - start) as u64;
                        let end = start + (random(&mut seed) % (room + 1)) as usize;
                        epochs.truncate(end);
                        table.cut(o(end as i64));
                    }
                    2 => {
                        let room = (epochs.len() - start) as u64;
                        start += (random(&mut seed) % (room / 3 + 1)) as usize;
                        table.start_at(o(start as i64));
                    }
                    _ => {
                        table.appended(e(epoch), o(epochs.len() as i64));
                        epochs.extend(vec![epoch; 1 + (random(&mut seed) % 4) as usize]);
                    }
                }
                let end = o(epochs.len() as i64);
                for (offset, wanted) in epochs.iter().enumerate().skip(start) {
                    assert_eq!(table.of(o(offset as i64)), Some(e(*wanted)));
                }
                let here = &epochs[start..];
                for asked in 0..=epoch {
                    let Some(first) = here.first() else { continue };
                    let higher = here.iter().position(|found| *found > asked);
                    let ends = higher.map_or(end, |at| o((start + at) as i64));
                    let floor = here.iter().rev().find(|found| **found <= asked);
                    let wanted = match floor {
                        Some(floor) => (e(*floor), ends),
                        None => (e(asked), o(start as i64)),
                    };
                    // Below the log's first epoch the table may remember more than the records that are left.
                    let found = table.end_of(e(asked), o(start as i64), end);
                    if asked >= *first {
                        assert_eq!(found, Some(wanted));
                    } else {
                        assert_eq!(found.map(|(_, at)| at), Some(wanted.1));
                    }
                }
            }
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Epochs::default();
        for n in 0..ENTRIES_MAX as i32 + 10 {
            table.appended(e(n), o(i64::from(n)));
        }
        assert_eq!(table.entries.len(), ENTRIES_MAX);
        assert_eq!(table.of(o(9)), None);
        assert_eq!(table.of(o(10)), Some(e(10)));
    }
}
