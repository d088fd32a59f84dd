//! `<20 digits>.txnindex`: Kafka's list of the transactions whose abort marker lies in a segment (KIP-98).
//!
//! 34 bytes each, big-endian, in the order of their markers:
//!
//! | byte | field |
//! |---|---|
//! | 0 | version i16 = 0 |
//! | 2 | producer id i64 |
//! | 10 | first offset of the transaction i64, which may lie in an earlier segment |
//! | 18 | last offset i64: the marker's |
//! | 26 | last stable offset i64 when the marker was written: what begins below it was decided by then |
//!
//! Written when a segment is sealed, never synced, and left out when there is nothing to list. The format has no sum of its own,
//! and a list that lacks a transaction would show aborted records as good ones: so the catalog has the count and the CRC-32C
//! of each segment's list (and the list itself of the active one), and a file that does not match is made again by a scan.
//!
//! Invariant: what a list in memory and a file that matches the catalog say is exactly what a scan would find.
//! Neighbours: `partition::transactions` reads and rebuilds, `partition::writer` adds while it writes batches.

use super::cache::Cache;
use super::{Key, Segment, path};
use crate::Offset;
use crate::disk::{Disk, OpenMode, read_full_at};
use crate::encoding::{Fields, Put, crc32c};
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

const VERSION: i16 = 0;
const ENTRY_BYTES: usize = 34;
/// Lists that are kept when they were read from their files.
const LISTS_MAX: usize = 64;

/// An aborted transaction: a reader of committed data leaves its producer's transactional batches from `first` to `last` out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbortedTransaction {
    /// First offset of the transaction in this partition.
    pub first: Offset,
    /// Offset of the abort marker.
    pub last: Offset,
    /// Whose it was.
    pub producer_id: i64,
    /// The last stable offset that the marker led to.
    pub last_stable: Offset,
}

impl AbortedTransaction {
    /// Whether this batch belongs to it.
    #[must_use]
    pub fn covers(&self, header: &crate::batch::BatchHeader) -> bool {
        header.producer_id == self.producer_id
            && header.is_transactional()
            && !header.is_control()
            && (self.first.get()..self.last.get()).contains(&header.base_offset)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&VERSION.to_be_bytes());
        for field in [self.producer_id, self.first.get(), self.last.get(), self.last_stable.get()] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let (version, fields) = bytes.split_first_chunk::<2>()?;
        let (fields, _) = fields.as_chunks::<8>();
        let [producer_id, first, last, last_stable] = fields else { return None };
        let offset = |bytes: &[u8; 8]| Offset::new(i64::from_be_bytes(*bytes));
        let read = Self {
            producer_id: i64::from_be_bytes(*producer_id),
            first: offset(first)?,
            last: offset(last)?,
            last_stable: offset(last_stable)?,
        };
        (i16::from_be_bytes(*version) == VERSION && read.first <= read.last).then_some(read)
    }
}

/// A list as the file has it.
pub(crate) fn encode(list: &[AbortedTransaction]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * ENTRY_BYTES);
    list.iter().for_each(|txn| txn.encode(&mut out));
    out
}

/// The list in these bytes; `None` when they are not one.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<AbortedTransaction>> {
    let (entries, []) = bytes.as_chunks::<ENTRY_BYTES>() else { return None };
    let list: Vec<_> = entries.iter().map(AbortedTransaction::decode).collect::<Option<_>>()?;
    list.is_sorted_by(|a, b| a.last < b.last).then_some(list)
}

/// What a segment knows of its list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Aborted {
    /// The file does not have it.
    Here(Vec<AbortedTransaction>),
    /// The file has it: so many entries with this sum.
    InFile { count: u32, crc: u32 },
}

impl Default for Aborted {
    fn default() -> Self {
        Self::Here(Vec::new())
    }
}

impl Aborted {
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Here(list) => list.len(),
            Self::InFile { count, .. } => *count as usize,
        }
    }

    /// For the catalog: count u32, CRC-32C u32, u8 1 when the list follows here.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Here(list) => {
                let bytes = encode(list);
                out.put_u32(list.len() as u32);
                out.put_u32(crc32c(&bytes));
                out.put_u8(1);
                out.extend_from_slice(&bytes);
            }
            Self::InFile { count, crc } => {
                out.put_u32(*count);
                out.put_u32(*crc);
                out.put_u8(0);
            }
        }
    }

    pub(crate) fn decode(f: &mut Fields<'_>) -> Option<Self> {
        let (count, crc, here) = (f.u32()?, f.u32()?, f.u8()?);
        if here == 0 {
            return Some(Self::InFile { count, crc });
        }
        let bytes = f.take((count as usize).checked_mul(ENTRY_BYTES)?)?;
        (crc32c(bytes) == crc).then_some(())?;
        decode(bytes).map(Self::Here)
    }
}

/// Lists that were read from their files: a bounded number of them is kept.
#[derive(Debug)]
pub(crate) struct Lists(Mutex<Cache<Key, Arc<Vec<AbortedTransaction>>>>);

impl Default for Lists {
    fn default() -> Self {
        Self(Mutex::new(Cache::new(LISTS_MAX)))
    }
}

impl Lists {
    pub(crate) fn get(&self, key: Key) -> Option<Arc<Vec<AbortedTransaction>>> {
        self.0.lock().get(&key).cloned()
    }

    pub(crate) fn keep(&self, key: Key, list: Arc<Vec<AbortedTransaction>>) {
        let gone = self.0.lock().put(key, list);
        drop(gone);
    }

    pub(crate) fn forget(&self, key: Key) {
        let gone = self.0.lock().remove(&key);
        drop(gone);
    }
}

/// Adds the transactions of a list that overlap with `from..to` to `out`. Answers whether one says that later segments have no
/// more of them.
pub(crate) fn collect(
    list: &[AbortedTransaction],
    from: Offset,
    to: Offset,
    out: &mut Vec<AbortedTransaction>,
) -> bool {
    for txn in list {
        if txn.last >= from && txn.first < to {
            out.push(*txn);
        }
        if txn.last_stable >= to {
            return true;
        }
    }
    false
}

impl Segment {
    /// Notes a transaction whose abort marker was just written here; `false` when the list is in the file.
    pub(crate) fn note_aborted(&self, txn: AbortedTransaction) -> bool {
        match &mut *self.aborted.lock() {
            Aborted::Here(list) => list.push(txn),
            Aborted::InFile { .. } => return false,
        }
        true
    }

    /// Puts a list in the place of the one there is; the file does not have it.
    pub(crate) fn set_aborted(&self, aborted: Aborted) {
        *self.aborted.lock() = aborted;
    }

    /// For the catalog.
    pub(crate) fn aborted_entry(&self) -> Aborted {
        self.aborted.lock().clone()
    }

    /// How many transactions the list has.
    pub(crate) fn aborted_count(&self) -> usize {
        self.aborted.lock().count()
    }

    /// Bytes that the list has or will have in its file.
    pub(crate) fn aborted_bytes(&self) -> u64 {
        (self.aborted_count() * ENTRY_BYTES) as u64
    }

    /// [`collect`], where the list is not in the file alone.
    pub(crate) fn collect_aborted(
        &self,
        from: Offset,
        to: Offset,
        out: &mut Vec<AbortedTransaction>,
    ) -> Option<bool> {
        match &*self.aborted.lock() {
            Aborted::Here(list) => Some(collect(list, from, to, out)),
            Aborted::InFile { .. } => None,
        }
    }

    /// Writes the list to its file. A hint: the catalog holds what could not be written.
    pub(crate) fn store_aborted(&self, disk: &dyn Disk, folder: &Path) {
        let mut aborted = self.aborted.lock();
        let Aborted::Here(list) = &*aborted else { return };
        // Not under a name that is another segment's by now.
        if list.is_empty() || self.is_retired() {
            return;
        }
        let bytes = encode(list);
        let written = disk
            .open(&path(folder, self.base(), "txnindex"), OpenMode::Truncate)
            .and_then(|file| file.write_at(&[IoSlice::new(&bytes)], 0));
        if written.is_ok() {
            *aborted = Aborted::InFile { count: list.len() as u32, crc: crc32c(&bytes) };
        }
    }

    /// The list out of its file, or `None` when that is not what the catalog says.
    pub(crate) fn load_aborted(
        &self,
        disk: &dyn Disk,
        folder: &Path,
    ) -> io::Result<Option<Vec<AbortedTransaction>>> {
        let (count, crc) = match &*self.aborted.lock() {
            Aborted::Here(list) => return Ok(Some(list.clone())),
            Aborted::InFile { count, crc } => (*count, *crc),
        };
        let file = match disk.open(&path(folder, self.base(), "txnindex"), OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let size_bytes = file.size_bytes()?;
        if size_bytes != u64::from(count) * ENTRY_BYTES as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(size_bytes).unwrap_or(0)];
        let read = read_full_at(&*file, &mut bytes, 0)?;
        let whole = read == bytes.len() && crc32c(&bytes) == crc;
        Ok(if whole { decode(&bytes) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(producer_id: i64, first: i64, last: i64, last_stable: i64) -> AbortedTransaction {
        let offset = |n| Offset::new(n).unwrap();
        let (first, last, last_stable) = (offset(first), offset(last), offset(last_stable));
        AbortedTransaction { producer_id, first, last, last_stable }
    }

    #[test]
    fn entries_are_kafkas() {
        let bytes = encode(&[txn(0x0102, 3, 5, 6)]);
        let wanted: Vec<u8> =
            [&[0, 0][..], &[0, 0, 0, 0, 0, 0, 1, 2], &[0; 7], &[3], &[0; 7], &[5]]
                .concat()
                .into_iter()
                .chain([0; 7])
                .chain([6])
                .collect();
        assert_eq!(bytes, wanted);
        assert_eq!(decode(&bytes), Some(vec![txn(0x0102, 3, 5, 6)]));
        assert_eq!(decode(&bytes[1..]), None);
        let two = encode(&[txn(1, 3, 9, 10), txn(2, 1, 9, 10)]);
        assert_eq!(decode(&two), None, "markers have offsets of their own");
    }

    #[test]
    fn a_list_in_the_catalog_is_whole_or_refused() {
        let list = vec![txn(1, 0, 4, 5), txn(2, 3, 9, 10)];
        let mut bytes = Vec::new();
        let in_file = Aborted::InFile { count: 2, crc: crc32c(&encode(&list)) };
        in_file.encode(&mut bytes);
        assert_eq!(Aborted::decode(&mut Fields::new(&bytes)), Some(in_file));
        let here = Aborted::Here(list);
        bytes.clear();
        here.encode(&mut bytes);
        assert_eq!(Aborted::decode(&mut Fields::new(&bytes)), Some(here));
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            let read = Aborted::decode(&mut Fields::new(&wrong));
            assert!(!matches!(read, Some(Aborted::Here(_))), "byte {at}");
        }
    }
}
