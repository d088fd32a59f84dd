//! Room in a data directory: what its topics take, how much that may be, and what goes first when it is too much.
//!
//! Two limits, each a size or a share of the filesystem that holds the directory: what its topics may take (`max_bytes`), and
//! what must stay free there, whoever fills it (`min_free`). They are looked at with every round of retention, and at once when
//! a partition has met a full disk. In this order go:
//!
//! 1. segments that have expired, or are over their topic's `retention_bytes`: retention takes them in any case;
//! 2. whole segments of topics that delete, the one that was appended to longest ago first, whatever its topic.
//!
//! Compacted topics shrink by compaction alone, Headwater's own topics give nothing, a segment that is being appended to stays,
//! and **no hold is passed**: what an uplink has still to send is not given up here. When nothing more may go, the disk fills,
//! and publishers are refused until there is room. What goes before its time is noted, for the ledger.
//!
//! A segment may go only when the persisted checkpoint has it sealed; where that is what keeps it, a checkpoint is asked for.
//!
//! Invariant: the log start moves in the journal before a file goes, as for all retention.
//! Neighbours: `retention` runs it and removes files, `partition` says what it has, the bridge writes the ledger.

use crate::directory::Directory;
use crate::disk::Space;
use crate::partition::Partition;
use crate::{Offset, PartitionId, TopicName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Indexes and labels take about this part of what they index.
const INDEX_PART: u64 = 128;

/// A size, or a share of a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Bytes.
    Bytes(u64),
    /// Percent of the whole filesystem.
    Percent(u8),
}

impl Share {
    /// In bytes, of a filesystem of that size.
    #[must_use]
    pub fn of(self, total_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => total_bytes / 100 * u64::from(percent),
        }
    }

    /// Whether that could be free on the filesystem with nothing on it. If not it is a slip, and not worth all that is stored.
    pub(crate) fn can_stay_free(self, space: Space) -> bool {
        self.of(space.total_bytes) < space.total_bytes / 100 * 100
    }
}

/// Records that went before their time to make room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlyRemoval {
    /// Their topic.
    pub topic: TopicName,
    /// Their partition.
    pub partition: PartitionId,
    /// The first of them.
    pub first: Offset,
    /// Behind the last.
    pub end: Offset,
}

/// Early removals that nobody has taken yet; as many as there are partitions at most, since those of one adjoin.
#[derive(Debug, Default)]
pub(crate) struct EarlyRemovals {
    ranges: BTreeMap<(TopicName, PartitionId), (Offset, Offset)>,
}

impl EarlyRemovals {
    fn note(&mut self, partition: &Partition, first: Offset, end: Offset) {
        let key = (partition.topic().clone(), partition.id());
        let range = self.ranges.entry(key).or_insert((first, end));
        *range = (range.0.min(first), range.1.max(end));
    }

    pub(crate) fn take(&mut self) -> Vec<EarlyRemoval> {
        let ranges = std::mem::take(&mut self.ranges).into_iter();
        ranges
            .map(|((topic, partition), (first, end))| EarlyRemoval { topic, partition, first, end })
            .collect()
    }
}

impl Directory {
    /// Bytes above the limits, not counting what goes anyway.
    fn over_bytes(&self, partitions: &[Arc<Partition>]) -> u64 {
        let options = &self.node.options;
        if options.max_bytes.is_none() && options.min_free.is_none() {
            return 0;
        }
        // A filesystem that does not say has no share; a size counts all the same.
        let space = self.shared.disk.space(self.path()).ok();
        let of = |share: Share| match (share, space) {
            (Share::Bytes(bytes), _) => Some(bytes),
            (share, Some(space)) => Some(share.of(space.total_bytes)),
            (Share::Percent(_), None) => None,
        };
        let dead: u64 = partitions.iter().map(|p| p.dead_bytes()).sum();
        let over_max = options.max_bytes.and_then(of).map_or(0, |limit| {
            let used: u64 = partitions.iter().map(|p| p.disk_bytes()).sum();
            used.saturating_sub(dead).saturating_sub(limit)
        });
        let min_free =
            options.min_free.zip(space).filter(|(share, space)| share.can_stay_free(*space));
        let over_free = min_free.map_or(0, |(share, space)| {
            share.of(space.total_bytes).saturating_sub(space.free_bytes).saturating_sub(dead)
        });
        over_max.max(over_free)
    }

    /// Moves log starts so that the directory comes below its limits; returns whether any moved.
    pub(crate) fn make_room(&self, partitions: &[Arc<Partition>]) -> bool {
        let mut over = self.over_bytes(partitions);
        if over == 0 {
            return false;
        }
        let mut oldest: Vec<_> = partitions
            .iter()
            .flat_map(|p| p.removable_for_room().into_iter().map(move |found| (found, p)))
            .collect();
        // Stable, and ages rise within a partition: its segments keep their order.
        oldest.sort_by_key(|((age_ms, ..), _)| *age_ms);
        let mut moved = false;
        for ((_, end, bytes), partition) in oldest {
            if over == 0 {
                break;
            }
            self.shared.early.lock().note(partition, partition.log_start(), end);
            partition.delete_before(end);
            moved = true;
            over = over.saturating_sub(bytes);
        }
        if over > 0 {
            // Segments that were rolled since the last one may go after the next.
            self.ask_checkpoint();
        }
        moved
    }
}

impl Partition {
    /// Bytes that its files take, reserved room and indexes included.
    fn disk_bytes(&self) -> u64 {
        let bytes = self.size_bytes();
        bytes + bytes / INDEX_PART + self.spare_bytes()
    }

    /// Segments that may go to make room, oldest first: when each was last appended to (never before the one before it), where
    /// the log starts then, its bytes.
    fn removable_for_room(&self) -> Vec<(i64, Offset, u64)> {
        if self.topic().is_internal() || !self.settings().cleanup.deletes() {
            return Vec::new();
        }
        let (start, limit) = (self.log_start(), self.releasable_end());
        let mut age_ms = i64::MIN;
        let removable = self.removable().into_iter().filter(|(end, _)| *end > start);
        removable
            .take_while(|(end, _)| *end <= limit)
            .map(|(end, segment)| {
                age_ms = age_ms.max(segment.times().last_append_ms);
                let bytes = segment.written();
                (age_ms, end, bytes + bytes / INDEX_PART)
            })
            .collect()
    }
}
