//! One file of the fake disk: what readers see, what is on the medium, and what lies between.

use super::world::{Cut, Random};
use std::collections::BTreeSet;

/// Torn at this: no disk writes less.
const SECTOR_BYTES: usize = 512;
/// The filesystem gives out room in these.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// A change to the contents since the last sync.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Bytes at a place.
    Write(usize, Vec<u8>),
    /// A new length.
    Truncate(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
            Self::Truncate(len) => bytes.resize(*len, 0),
        }
    }

    /// Applies what of the change falls into one sector.
    fn apply_in(&self, sector: usize, bytes: &mut [u8; SECTOR_BYTES]) {
        let start = sector * SECTOR_BYTES;
        match self {
            Self::Write(at, data) => {
                let from = (*at).max(start);
                let to = (at + data.len()).min(start + SECTOR_BYTES);
                if from < to {
                    bytes[from - start..to - start].copy_from_slice(&data[from - at..to - at]);
                }
            }
            Self::Truncate(len) => {
                let keep = len.saturating_sub(start).min(SECTOR_BYTES);
                bytes[keep..].fill(0);
            }
        }
    }

    /// The sectors it touches, given the length before it.
    fn sectors(&self, len_before: usize) -> std::ops::Range<usize> {
        let (from, to) = match self {
            Self::Write(at, data) => (*at, at + data.len()),
            Self::Truncate(len) => (*len, len_before.max(*len)),
        };
        from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES)
    }

    fn len_after(&self, len: usize) -> usize {
        match self {
            Self::Write(at, data) => len.max(at + data.len()),
            Self::Truncate(len) => *len,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct FileNode {
    /// What readers see.
    pub(super) now: Vec<u8>,
    /// What is on the medium.
    durable: Vec<u8>,
    /// What is not yet there, with the number of the change.
    pending: Vec<(u64, Change)>,
    /// Blocks that are allocated, by number.
    pub(super) blocks: BTreeSet<u64>,
}

impl FileNode {
    /// A file whose contents are synced.
    pub(super) fn synced(bytes: &[u8]) -> Self {
        let mut file = Self { now: bytes.to_vec(), durable: bytes.to_vec(), ..Self::default() };
        file.blocks = blocks(0, bytes.len() as u64).collect();
        file
    }

    pub(super) fn change(&mut self, number: u64, change: Change) {
        if let Change::Truncate(len) = change {
            self.blocks.split_off(&(len as u64).div_ceil(BLOCK_BYTES));
        }
        change.apply(&mut self.now);
        self.pending.push((number, change));
    }

    pub(super) fn sync(&mut self) {
        for (_, change) in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that failed: some of the pages reached the medium, none are dirty any more, and the cache
    /// may have dropped them too (what Linux does; fsyncgate).
    pub(super) fn lose(&mut self, random: &mut Random) {
        self.durable = self.cut(Cut::Chaos, random);
        self.pending.clear();
        if random.below(2) == 0 {
            self.now.clone_from(&self.durable);
        }
    }

    /// The file that a crash leaves.
    pub(super) fn crashed(&self, cut: Cut, random: &mut Random) -> Self {
        let mut left = Self::synced(&self.cut(cut, random));
        left.blocks.extend(&self.blocks);
        left
    }

    fn cut(&self, cut: Cut, random: &mut Random) -> Vec<u8> {
        match cut {
            Cut::After(last) => self.prefix(last),
            Cut::Inside(torn) => {
                let mut bytes = self.prefix(torn - 1);
                if let Some((_, change)) = self.pending.iter().find(|(number, _)| *number == torn) {
                    tear(&mut bytes, change, random);
                }
                bytes
            }
            Cut::Chaos => self.chaos(random),
        }
    }

    /// All changes up to one of them, in order.
    fn prefix(&self, last: u64) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (_, change) in self.pending.iter().take_while(|(number, _)| *number <= last) {
            change.apply(&mut bytes);
        }
        bytes
    }

    /// Each sector as it was at some moment since the last sync, and the length at some other.
    fn chaos(&self, random: &mut Random) -> Vec<u8> {
        let mut lens = vec![self.durable.len()];
        let mut touched = BTreeSet::new();
        for (_, change) in &self.pending {
            let len = lens[lens.len() - 1];
            touched.extend(change.sectors(len));
            lens.push(change.len_after(len));
        }
        let len_max = lens.iter().copied().max().unwrap_or(0);
        let mut bytes = self.durable.clone();
        bytes.resize(len_max.next_multiple_of(SECTOR_BYTES), 0);
        for sector in touched {
            let start = sector * SECTOR_BYTES;
            let Some(place) = bytes.get_mut(start..start + SECTOR_BYTES) else { continue };
            let mut content = [0; SECTOR_BYTES];
            content.copy_from_slice(place);
            for (_, change) in &self.pending[..some_of(self.pending.len(), random)] {
                change.apply_in(sector, &mut content);
            }
            place.copy_from_slice(&content);
        }
        let len = lens[some_of(self.pending.len(), random)];
        bytes.truncate(len);
        bytes
    }
}

/// Blocks that bytes `at..at + len` touch.
pub(super) fn blocks(at: u64, len: u64) -> std::ops::Range<u64> {
    at / BLOCK_BYTES..(at + len).div_ceil(BLOCK_BYTES)
}

/// None, all, or any number up to `count`.
fn some_of(count: usize, random: &mut Random) -> usize {
    match random.below(3) {
        0 => 0,
        1 => count,
        _ => random.below(count as u64 + 1) as usize,
    }
}

/// One change of which only some sectors arrived.
fn tear(bytes: &mut Vec<u8>, change: &Change, random: &mut Random) {
    match change {
        Change::Truncate(len) => {
            if random.below(2) == 0 {
                bytes.resize(*len, 0);
            }
        }
        Change::Write(at, data) => {
            let end = at + data.len();
            let mut from = *at;
            while from < end {
                let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                if random.below(2) == 0 {
                    Change::Write(from, data[from - at..to - at].to_vec()).apply(bytes);
                }
                from = to;
            }
        }
    }
}
