//! The ring's writer: where the next cycle goes, which files are free, and making the files that are missing.
//!
//! Invariant: `write` never touches a file that holds a cycle newer than the last release.

use super::cycle::{CycleBuilder, Header};
use super::{BLOCK_BYTES, create};
use crate::disk::{Disk, DiskFile};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file of which this part is used is being filled.
const FILLING_PART: u64 = 8;

/// One file of the ring.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) size_bytes: u64,
    /// The newest cycle in it that a recovery may need; `None` when it is free.
    pub(crate) last_cycle: Option<u64>,
}

/// A point in the chain: everything up to `cycle`, and where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub(crate) generation: u64,
    pub(crate) cycle: u64,
    /// CRC of that cycle's header.
    pub(crate) crc: u32,
    pub(crate) slot: u32,
    pub(crate) at: u64,
}

/// Makes files of the ring, from whichever thread needs one.
#[derive(Debug)]
pub(crate) struct Maker {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    directory_id: [u8; 16],
    file_bytes: u64,
    made: Mutex<Made>,
    /// Files that the ring does not have yet: not made, or made ahead.
    outside: AtomicU64,
    /// Those that were made ahead.
    ahead: AtomicU64,
}

#[derive(Debug)]
struct Made {
    /// Numbers of the files that do not exist yet.
    missing: VecDeque<u32>,
    ready: Vec<Slot>,
}

impl Maker {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        directory_id: [u8; 16],
        file_bytes: u64,
        missing: VecDeque<u32>,
    ) -> Self {
        let count = missing.len() as u64;
        Self {
            disk,
            dir,
            directory_id,
            file_bytes,
            made: Mutex::new(Made { missing, ready: Vec::new() }),
            outside: AtomicU64::new(count),
            ahead: AtomicU64::new(0),
        }
    }

    /// Makes one file ahead of need. `false` when there is nothing left to make.
    pub(crate) fn make_one(&self) -> io::Result<bool> {
        let mut made = self.made.lock();
        self.make_locked(&mut made)
    }

    fn make_locked(&self, made: &mut Made) -> io::Result<bool> {
        let Some(&number) = made.missing.front() else { return Ok(false) };
        let file = create(&*self.disk, &self.dir, number, self.directory_id, self.file_bytes)?;
        made.missing.pop_front();
        made.ready.push(Slot { number, file, size_bytes: self.file_bytes, last_cycle: None });
        self.ahead.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// A file made ahead, or made now.
    fn take(&self) -> io::Result<Option<Slot>> {
        let mut made = self.made.lock();
        if made.ready.is_empty() {
            self.make_locked(&mut made)?;
        }
        let slot = made.ready.pop();
        if slot.is_some() {
            self.ahead.fetch_sub(1, Ordering::Relaxed);
            self.outside.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(slot)
    }

    fn outside_bytes(&self) -> u64 {
        self.outside.load(Ordering::Relaxed) * self.file_bytes
    }

    /// Whether a file could be made ahead, and none is.
    fn could_make(&self) -> bool {
        self.ahead.load(Ordering::Relaxed) == 0 && self.outside.load(Ordering::Relaxed) > 0
    }
}

/// The journal of a running log. Owned by the committer.
#[derive(Debug)]
pub(crate) struct Journal {
    directory_id: [u8; 16],
    maker: Arc<Maker>,
    slots: Vec<Slot>,
    current: usize,
    mark: Mark,
    /// Where in the current file what a recovery may need begins.
    needed_from: u64,
    /// The last cycle before those of the current file.
    entered_after: u64,
    synced_through: u64,
}

/// Whether a cycle has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Ready,
    /// Every file holds cycles that a recovery would need: checkpoint first.
    Full,
    /// As `Full`, and the disk has no room for a file that is missing: a checkpoint may not be enough.
    DiskFull,
}

impl Journal {
    /// Goes on after a checkpoint that covers everything: all files are free, cycles are numbered on.
    /// `mark.slot` names the file to begin with.
    pub(crate) fn new(
        directory_id: [u8; 16],
        maker: Arc<Maker>,
        slots: Vec<Slot>,
        mark: Mark,
    ) -> Self {
        let current = slots.iter().position(|s| s.number == mark.slot).unwrap_or(0);
        Self {
            directory_id,
            maker,
            slots,
            current,
            mark,
            needed_from: mark.at,
            entered_after: mark.cycle,
            synced_through: mark.cycle,
        }
    }

    /// The last cycle written and where the next one goes.
    pub(crate) const fn mark(&self) -> Mark {
        self.mark
    }

    /// Finds a place for a cycle of this size, moving on to a free file if need be.
    pub(crate) fn make_room(&mut self, bytes: u64) -> io::Result<Room> {
        if self.slots.get(self.current).is_some_and(|s| self.mark.at + bytes <= s.size_bytes) {
            return Ok(Room::Ready);
        }
        let fits = |s: &Slot| s.last_cycle.is_none() && BLOCK_BYTES + bytes <= s.size_bytes;
        // In the ring's order, so that wear spreads over all files.
        let n = self.slots.len();
        let next = (1..=n).map(|i| (self.current + i) % n).find(|&i| fits(&self.slots[i]));
        let next = match next {
            Some(next) => next,
            None => match self.maker.take() {
                Err(e) => match e.kind() {
                    // No room for another file: the ring has to do with those it has.
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        return Ok(Room::DiskFull);
                    }
                    _ => return Err(e),
                },
                Ok(Some(slot)) => {
                    self.slots.push(slot);
                    self.slots.len() - 1
                }
                Ok(None) => return Ok(Room::Full),
            },
        };
        if BLOCK_BYTES + bytes > self.slots[next].size_bytes {
            return Ok(Room::Full);
        }
        self.current = next;
        self.mark.slot = self.slots[next].number;
        self.mark.at = BLOCK_BYTES;
        self.needed_from = BLOCK_BYTES;
        self.entered_after = self.mark.cycle;
        Ok(Room::Ready)
    }

    /// Writes one cycle where [`Journal::make_room`] found a place. Not durable yet.
    pub(crate) fn write(&mut self, cycle: &mut CycleBuilder) -> io::Result<u64> {
        let size = cycle.size_bytes();
        let slot = &mut self.slots[self.current];
        assert!(self.mark.at + size <= slot.size_bytes, "room was made for the cycle");
        let mut header = Header {
            generation: self.mark.generation,
            number: self.mark.cycle + 1,
            synced_through: self.synced_through,
            previous_crc: self.mark.crc,
            length: 0,
            frames_crc: 0,
            crc: 0,
        };
        let at = self.mark.at;
        cycle.finish(&self.directory_id, &mut header, |slices| slot.file.write_at(slices, at))?;
        slot.last_cycle = Some(header.number);
        self.mark.cycle = header.number;
        self.mark.crc = header.crc;
        self.mark.at += size;
        Ok(size)
    }

    /// Makes everything written durable: the one sync of a commit.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.slots[self.current].file.sync_data()?;
        self.synced_through = self.mark.cycle;
        Ok(())
    }

    /// A checkpoint that covers everything up to this point was persisted: files that hold nothing newer are free.
    pub(crate) fn release(&mut self, covered: Mark) {
        for slot in &mut self.slots {
            if slot.last_cycle.is_some_and(|last| last <= covered.cycle) {
                slot.last_cycle = None;
            }
        }
        // Not a point of the same file's former life.
        let here = self.slots.get(self.current).is_some_and(|s| s.number == covered.slot);
        if here && covered.cycle > self.entered_after {
            self.needed_from = self.needed_from.max(covered.at);
        }
    }

    /// Whether the file being written fills up and no other is ready: the next one should be made.
    pub(crate) fn wants_file(&self) -> bool {
        let filling = self
            .slots
            .get(self.current)
            .is_none_or(|s| self.mark.at - BLOCK_BYTES > s.size_bytes / FILLING_PART);
        let free = self.slots.iter().enumerate();
        let mut free = free.filter(|(i, s)| *i != self.current && s.last_cycle.is_none());
        filling && free.next().is_none() && self.maker.could_make()
    }

    /// Bytes that a recovery would have to read at most.
    pub(crate) fn used_bytes(&self) -> u64 {
        let full = self
            .slots
            .iter()
            .enumerate()
            .filter(|(i, s)| *i != self.current && s.last_cycle.is_some());
        let current = match self.slots.get(self.current) {
            Some(slot) if slot.last_cycle.is_some() => self.mark.at - self.needed_from,
            _ => 0,
        };
        full.map(|(_, s)| s.size_bytes).sum::<u64>() + current
    }

    /// Bytes of the whole ring, files not made yet included.
    pub(crate) fn ring_bytes(&self) -> u64 {
        self.slots.iter().map(|s| s.size_bytes).sum::<u64>() + self.maker.outside_bytes()
    }
}
