//! The sparse offset index of a segment: where to begin looking for an offset.
//!
//! Invariant: entries rise strictly in offset and byte. An index is a hint: what it points to is checked before it is believed.

use super::scan::Scan;
use super::{Segment, path};
use crate::Offset;
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::disk::{Disk, DiskFile, OpenMode, read_full_at};
use std::io::{self, IoSlice};
use std::path::Path;

/// Log bytes between two entries at least (Kafka's `index.interval.bytes`).
const INTERVAL_BYTES: u64 = 4096;

/// One entry: last offset of a batch less the segment's base, and the byte where the batch begins.
type Entry = (u32, u32);

/// Entries of one segment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    since: u64,
}

/// Whether a segment's index is in memory.
#[derive(Debug)]
pub(crate) enum IndexState {
    Unknown,
    Known(Index),
}

impl Index {
    /// Notes a batch as it is appended.
    pub(crate) fn note(&mut self, last: i64, at: u64, bytes: usize) {
        if self.since > INTERVAL_BYTES
            && let (Ok(last), Ok(at)) = (u32::try_from(last), u32::try_from(at))
        {
            self.entries.push((last, at));
            self.since = 0;
        }
        self.since += bytes as u64;
    }

    /// A byte where a batch begins at or before the one that has `offset`.
    pub(crate) fn floor(&self, offset: i64) -> u64 {
        let next = self.entries.partition_point(|(last, _)| i64::from(*last) <= offset);
        next.checked_sub(1).and_then(|i| self.entries.get(i)).map_or(0, |(_, at)| u64::from(*at))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * 8);
        for (last, at) in &self.entries {
            out.extend_from_slice(&last.to_be_bytes());
            out.extend_from_slice(&at.to_be_bytes());
        }
        out
    }

    fn decode(bytes: &[u8], log_bytes: u64) -> Option<Self> {
        let (entries, []) = bytes.as_chunks::<8>() else { return None };
        let entries: Vec<Entry> = entries
            .iter()
            .map(|e| {
                let [a, b, c, d, e, f, g, h] = *e;
                (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
            })
            .collect();
        let rising = entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1);
        let inside = entries.last().is_none_or(|(_, at)| u64::from(*at) < log_bytes);
        (rising && inside).then_some(Self { entries, since: 0 })
    }

    /// Made anew from the log, past what is damaged in it.
    fn rebuild(file: &dyn DiskFile, base: Offset, log_bytes: u64) -> io::Result<Self> {
        let mut index = Self::default();
        let mut scan = Scan::new(file, 0, log_bytes);
        let mut next = base.get();
        while let Some(step) = scan.next()? {
            match step {
                Ok(at) if at.header.base_offset >= next => {
                    next = at.header.last_offset() + 1;
                    index.note(next - 1 - base.get(), at.byte, at.header.size_bytes());
                }
                Ok(at) => {
                    scan.seek(at.byte);
                    scan.resync(next)?;
                }
                Err(_) => {
                    scan.resync(next)?;
                }
            }
        }
        Ok(index)
    }

    /// Whether the last entry points at the batch it names: catches an index of another life of the file.
    fn fits(&self, file: &dyn DiskFile, base: Offset) -> io::Result<bool> {
        let Some((last, at)) = self.entries.last() else { return Ok(true) };
        let mut head = [0; HEADER_BYTES];
        let n = read_full_at(file, &mut head, u64::from(*at))?;
        Ok(BatchHeader::parse_alone(&head[..n])
            .is_ok_and(|h| h.last_offset() - base.get() == i64::from(*last)))
    }
}

impl Segment {
    /// Runs `look` on the index, loading or rebuilding it first if need be.
    pub(crate) fn with_index<T>(
        &self,
        disk: &dyn Disk,
        folder: &Path,
        file: &dyn DiskFile,
        sealed: bool,
        look: impl FnOnce(&Index) -> T,
    ) -> io::Result<T> {
        let mut state = self.index.lock();
        if let IndexState::Known(index) = &*state {
            return Ok(look(index));
        }
        let index = self.load(disk, folder, file, sealed)?;
        let answer = look(&index);
        *state = IndexState::Known(index);
        Ok(answer)
    }

    fn load(
        &self,
        disk: &dyn Disk,
        folder: &Path,
        file: &dyn DiskFile,
        sealed: bool,
    ) -> io::Result<Index> {
        let bytes = self.written();
        let name = path(folder, self.base(), "index");
        if sealed
            && let Ok(stored) = disk.open(&name, OpenMode::Read)
            && let Ok(size) = stored.size_bytes()
            // Eight bytes per interval at most, or it is not an index of this log.
            && size <= bytes / INTERVAL_BYTES * 8
        {
            let mut raw = vec![0; size as usize];
            let n = read_full_at(&*stored, &mut raw, 0)?;
            if let Some(index) = Index::decode(&raw[..n], bytes)
                && index.fits(file, self.base())?
                && (bytes < 4 * INTERVAL_BYTES || !index.entries.is_empty())
            {
                return Ok(index);
            }
        }
        let index = Index::rebuild(file, self.base(), bytes)?;
        if sealed {
            // A hint: if it cannot be written the next reader makes it again.
            let _ = store(disk, &name, &index);
        }
        Ok(index)
    }

    /// Writes the index of a segment that is sealed now and drops it from memory.
    pub(crate) fn seal_index(&self, disk: &dyn Disk, folder: &Path) {
        // A reader that makes it anew meanwhile has it in memory then, and commits do not wait for it.
        let Some(mut state) = self.index.try_lock() else { return };
        if let IndexState::Known(index) = &*state
            && store(disk, &path(folder, self.base(), "index"), index).is_ok()
        {
            *state = IndexState::Unknown;
        }
    }

    /// Gives the memory of a loaded index back.
    pub(crate) fn unload_index(&self) {
        *self.index.lock() = IndexState::Unknown;
    }
}

fn store(disk: &dyn Disk, name: &Path, index: &Index) -> io::Result<()> {
    let file = disk.open(name, OpenMode::Truncate)?;
    file.write_at(&[IoSlice::new(&index.encode())], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_never_overshoot() {
        let mut index = Index::default();
        for i in 0..100u64 {
            index.note(i as i64 * 10 + 9, i * 1000, 1000);
        }
        for offset in 0..1000 {
            let at = index.floor(offset);
            assert!(at / 1000 * 10 <= offset as u64, "offset {offset} at {at}");
            assert!(offset as u64 - at / 1000 * 10 < 70, "offset {offset} at {at}");
        }
        let bytes = index.encode();
        assert_eq!(Index::decode(&bytes, 100_000).unwrap().entries, index.entries);
        assert_eq!(Index::decode(&bytes[1..], 100_000), None);
        assert_eq!(Index::decode(&bytes, 50_000), None, "points beyond the log");
        let mut wrong = bytes.clone();
        wrong[..8].copy_from_slice(&bytes[8..16]);
        assert_eq!(Index::decode(&wrong, 100_000), None, "does not rise");
    }
}
