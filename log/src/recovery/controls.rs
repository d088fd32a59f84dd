//! What the journal says of partitions beside their batches, gathered by a recovery's first pass.
//!
//! Truncations are not applied in turn. What a partition has in the end follows from where each of them cut: of what the catalog
//! describes, all below the lowest; of the batches in a cycle, all below the lowest of the later ones. So a file is cut once, and
//! nothing is written that goes again.
//!
//! Invariant: a truncation that the catalog's entry has behind it counts no more.
//! Neighbours: `recovery` fills it and asks, `partition::cut` cuts.

use crate::Offset;
use crate::compaction::Swap;
use crate::journal::cycle::{Extent, Frame};
use crate::partition::replica::Leadership;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct PartitionControls {
    /// Where log starts moved to, by handle.
    pub(super) log_starts: BTreeMap<u64, i64>,
    /// What is known last of replicas, by handle.
    pub(super) leaderships: BTreeMap<u64, Leadership>,
    /// Compaction swaps in order, by handle.
    pub(super) swaps: BTreeMap<u64, Vec<Swap>>,
    /// Extents with their cycles, by handle.
    extents: BTreeMap<u64, Vec<(u64, Extent)>>,
    /// By handle: (cycle, offset) in order.
    truncations: BTreeMap<u64, Vec<(u64, Offset)>>,
}

impl PartitionControls {
    /// Notes a frame of the cycle of this number. `lost` is the cycle before it, if that cannot be read.
    pub(super) fn note(&mut self, frame: Frame<'_>, number: u64, lost: Option<u64>) {
        match frame {
            Frame::LogStart { handle, offset } => {
                let start = self.log_starts.entry(handle).or_default();
                *start = offset.max(*start);
            }
            Frame::Truncate { handle, offset } => {
                self.truncations.entry(handle).or_default().push((number, offset));
            }
            Frame::Ends(ends) => {
                let Some(lost) = lost else { return };
                for end in ends.iter().filter(|end| end.first == end.end) {
                    let to = Offset::new(end.end).unwrap_or_default();
                    self.truncations.entry(end.handle).or_default().push((lost, to));
                }
            }
            Frame::Leadership { handle, leadership } => {
                self.leaderships.insert(handle, leadership);
            }
            Frame::Swap { handle, swap } => self.swaps.entry(handle).or_default().push(swap),
            Frame::Extent { handle, extent } => {
                self.extents.entry(handle).or_default().push((number, extent));
            }
            Frame::Metadata { .. } | Frame::Batches { .. } => {}
        }
    }

    /// Forgets truncations that are done, and those of partitions that are gone: `done` says up to which cycle a partition has
    /// them behind it. Returns the lowest end of each partition that has some left.
    pub(super) fn lowest_ends(&mut self, done: impl Fn(u64) -> Option<u64>) -> Vec<(u64, Offset)> {
        self.truncations.retain(|handle, truncations| {
            let Some(done) = done(*handle) else { return false };
            truncations.retain(|(cycle, _)| *cycle > done);
            !truncations.is_empty()
        });
        let lowest = |all: &Vec<(u64, Offset)>| all.iter().map(|(_, to)| *to).min();
        self.truncations.iter().filter_map(|(handle, all)| Some((*handle, lowest(all)?))).collect()
    }

    /// Where the truncations behind this cycle leave the partition's log at most. (One in the cycle itself stands before its
    /// batches.)
    pub(super) fn truncated(&self, handle: u64, cycle: u64) -> Option<Offset> {
        let later = self.truncations.get(&handle)?.iter().filter(|(number, _)| *number > cycle);
        later.map(|(_, to)| *to).min()
    }

    /// By partition the offsets that lie in one segment: from its base to the end of an extent in it, as far as truncations have
    /// left that.
    pub(super) fn spans(&self) -> Vec<(u64, Vec<(Offset, Offset)>)> {
        let span = |handle: u64, (cycle, extent): &(u64, Extent)| {
            let limit = self.truncated(handle, *cycle).unwrap_or(extent.end);
            (extent.segment, extent.end.min(limit))
        };
        let of = |(handle, extents): (&u64, &Vec<_>)| {
            (*handle, extents.iter().map(|e| span(*handle, e)).collect())
        };
        self.extents.iter().map(of).collect()
    }

    /// Whether there is a truncation of this partition.
    pub(super) fn truncates(&self, handle: u64) -> bool {
        self.truncations.contains_key(&handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_lies_below_every_later_truncation() {
        let o = |n| Offset::new(n).unwrap();
        let mut controls = PartitionControls::default();
        let truncate = |handle, n| Frame::Truncate { handle, offset: o(n) };
        controls.note(truncate(1, 50), 10, None);
        controls.note(truncate(1, 70), 20, None);
        controls.note(truncate(1, 60), 30, None);
        controls.note(truncate(2, 5), 10, None);
        controls.note(truncate(3, 5), 10, None);
        let end = |n| crate::journal::cycle::End { handle: 4, first: n, end: n };
        controls.note(Frame::Ends(vec![end(8)]), 41, Some(40));
        controls.note(Frame::Ends(vec![end(7)]), 42, None);
        let done = |handle| [None, Some(10), Some(10), None, Some(0)][handle as usize];
        assert_eq!(controls.lowest_ends(done), [(1, o(60)), (4, o(8))]);
        assert_eq!(controls.truncated(1, 5), Some(o(60)));
        assert_eq!(controls.truncated(1, 20), Some(o(60)));
        assert_eq!(controls.truncated(1, 30), None);
        assert_eq!(controls.truncated(4, 39), Some(o(8)));
        assert!(!controls.truncates(2) && !controls.truncates(3), "done, and gone");
    }
}
