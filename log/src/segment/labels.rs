//! The label index of a sealed segment: which of its blocks hold records of a label.
//!
//! A label is whatever the [`Labeller`] says of a record; the log knows its 64-bit hash and nothing else. A block is a run of
//! whole batches, [`BLOCK_BYTES`] and more. `<20 digits>.labels`, little-endian:
//!
//! | byte | field |
//! |---|---|
//! | 0 | magic `HWLABELS` |
//! | 8 | version u32 = 1 |
//! | 12 | id u32 of the labeller |
//! | 16 | u64: bytes of the log |
//! | 24 | u32: byte of the log where its last batch begins |
//! | 28 | u32, u32: CRC of its first batch and of its last, as their headers say |
//! | 36 | u32: count of blocks, B; 0: look at everything |
//! | 40 | u32: count of labels, L |
//! | 44 | u32: bytes of lists, P |
//! | 48 | u32: bytes of the first list, which is of blocks to be looked at for every label: damaged ones |
//! | 52 | B times u32: base offset of a block's first batch, less the segment's |
//! | | L times, rising: hash u64, u32 byte among the lists where the label's begins (it ends where the next begins); an empty list: look at everything |
//! | | P bytes of lists: LEB128, the first block, then each one's distance to the one before |
//! | | CRC-32C u32 of all before it |
//!
//! It takes [`SHARE`] of its segment's bytes at most. A label that is in most blocks has an empty list; if there are too many
//! labels the whole segment is to be looked at.
//!
//! Invariant: a hint and never a truth: it may send a reader where nothing is, but a block that holds a label, or that could not
//! be read when the index was made, is never left out. One that is missing, damaged, of another labeller or of another log is
//! made again, by [`build`] alone.
//! Neighbours: `label_indexes` loads and builds, `partition::labels` answers readers.

use super::read::Reading;
use super::scan::{At, verify_in_pieces};
use crate::batch::{self, BatchHeader, HEADER_BYTES, RecordView};
use crate::disk::{DiskFile, read_full_at};
use crate::encoding::{Fields, Put, crc32c};
use bytes::Bytes;
use std::collections::HashMap;
use std::io;

const MAGIC: &[u8; 8] = b"HWLABELS";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 52;
const CRC_BYTES: usize = 4;
const BLOCK_ENTRY_BYTES: usize = 4;
const LABEL_ENTRY_BYTES: usize = 12;

/// A block ends with the batch that makes it this long.
const BLOCK_BYTES: u64 = 4096;
/// The index takes at most this part of the log's bytes.
const SHARE: u64 = 20;
/// More labels than this in a segment are not kept apart while an index is made: 16 MiB of memory, about.
const LABELS_MAX: usize = 1 << 17;
/// Nor more bytes of lists than this, or than the index may have: compressed batches hold labels by the thousand in each block.
const LIST_BYTES_MAX: usize = 16 << 20;
/// The log is read in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// Says which label a record has: a pure function, supplied by who knows what records mean.
#[derive(Debug, Clone, Copy)]
pub struct Labeller {
    /// Names the function: an index made by another is made again. Change it with the function.
    pub id: u32,
    /// The label of a record, given its batch's header. `None`: nobody looks for it by label.
    pub label: for<'a> fn(&BatchHeader, &RecordView<'a>) -> Option<&'a [u8]>,
}

/// A label's name in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelHash(u64);

impl LabelHash {
    /// CRC-64/NVME: fixed for ever, and fast. Labels that share a hash cost a reader a look, nothing else.
    #[must_use]
    pub fn of(label: &[u8]) -> Self {
        Self(crc_fast::crc64_nvme(label))
    }
}

/// Blocks, as they are noted: rising, each once.
#[derive(Debug, Default)]
struct List {
    last: Option<u32>,
    count: u32,
    bytes: Vec<u8>,
}

impl List {
    fn note(&mut self, block: u32) {
        let mut rest = match self.last {
            Some(last) if last == block => return,
            Some(last) => block - last,
            None => block,
        };
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
        self.last = Some(block);
        self.count += 1;
    }
}

/// The blocks of a list, rising. Bytes that are no list end it.
#[derive(Debug)]
struct Blocks<'a> {
    list: &'a [u8],
    last: Option<u32>,
}

impl Iterator for Blocks<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (mut value, mut shift) = (0u32, 0);
        loop {
            let (byte, rest) = self.list.split_first()?;
            self.list = rest;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
        self.last = Some(self.last.unwrap_or(0).checked_add(value)?);
        self.last
    }
}

/// What is gathered on a walk over the log.
#[derive(Debug, Default)]
struct Gathered {
    blocks: Vec<u32>,
    block_at: u64,
    always: List,
    /// Hashed once more, under a key of this process: who chooses labels can choose their CRCs.
    lists: HashMap<u64, List>,
    first: Option<u32>,
    last: (u64, u32),
    /// Bytes of the lists, and how many they may have.
    list_bytes: usize,
    list_bytes_max: usize,
    overflow: bool,
}

impl Gathered {
    /// A batch begins: it may begin a block.
    fn begin(&mut self, relative: u32, at: u64) {
        if self.blocks.is_empty() || at - self.block_at >= BLOCK_BYTES {
            self.blocks.push(relative);
            self.block_at = at;
        }
    }

    fn block(&self) -> u32 {
        (self.blocks.len() as u32).saturating_sub(1)
    }

    fn note(&mut self, hash: u64) {
        let block = self.block();
        if self.lists.len() >= LABELS_MAX && !self.lists.contains_key(&hash) {
            self.overflow = true;
            return;
        }
        let list = self.lists.entry(hash).or_default();
        let before = list.bytes.len();
        list.note(block);
        self.list_bytes += list.bytes.len() - before;
        self.overflow |= self.list_bytes > self.list_bytes_max;
    }
}

/// Makes the index of a sealed segment.
pub(crate) fn build(reading: &Reading<'_>, labeller: &Labeller) -> io::Result<Vec<u8>> {
    let log_bytes = reading.segment.written();
    let base = reading.segment.base().get();
    let list_bytes_max = LIST_BYTES_MAX.max(cap(log_bytes));
    let mut gathered = Gathered { list_bytes_max, ..Gathered::default() };
    let mut piece = Piece { bytes: Bytes::new(), at: 0 };
    let mut at = 0;
    reading.batches(|found| {
        if found.byte != at {
            // What lies between was hopped over: it may hold anything, and whoever looks there shall meet it.
            if gathered.blocks.is_empty() {
                gathered.begin(0, at);
            }
            let block = gathered.block();
            gathered.always.note(block);
        }
        at = found.end();
        let relative = u32::try_from(found.header.base_offset - base).unwrap_or(u32::MAX);
        gathered.begin(relative, found.byte);
        gathered.first.get_or_insert(found.header.crc);
        gathered.last = (found.byte, found.header.crc);
        let labelled = piece.batch(reading.file, &found, log_bytes)?;
        if labelled.is_none_or(|batch| !label(&mut gathered, &batch, labeller)) {
            let block = gathered.block();
            gathered.always.note(block);
        }
        Ok(!gathered.overflow)
    })?;
    if at != log_bytes && !gathered.overflow {
        let block = gathered.block();
        gathered.always.note(block);
    }
    Ok(encode(gathered, labeller.id, log_bytes))
}

/// Notes the labels of a batch; whether all its records could be read.
fn label(gathered: &mut Gathered, batch: &Bytes, labeller: &Labeller) -> bool {
    let Ok(mut records) = batch::records(batch) else { return false };
    let header = *records.batch();
    if header.is_control() {
        return true;
    }
    while let Some(view) = records.next_view() {
        let Ok(view) = view else { return false };
        if let Some(label) = (labeller.label)(&header, &view) {
            gathered.note(LabelHash::of(label).0);
        }
    }
    true
}

/// The log, read in large pieces.
struct Piece {
    bytes: Bytes,
    at: u64,
}

impl Piece {
    /// The bytes of a batch whose CRC is right.
    fn batch(&mut self, file: &dyn DiskFile, found: &At, end: u64) -> io::Result<Option<Bytes>> {
        let size = found.header.size_bytes();
        let inside =
            found.byte >= self.at && found.byte + size as u64 <= self.at + self.bytes.len() as u64;
        if !inside {
            // Not for the word of a header alone: a length that lies takes no memory.
            if size > PIECE_BYTES && verify_in_pieces(file, found)?.is_err() {
                return Ok(None);
            }
            let left = usize::try_from(end - found.byte).unwrap_or(usize::MAX);
            let mut bytes = vec![0; left.min(size.max(PIECE_BYTES))];
            let n = read_full_at(file, &mut bytes, found.byte)?;
            bytes.truncate(n);
            *self = Self { bytes: bytes.into(), at: found.byte };
        }
        let from = (found.byte - self.at) as usize;
        let batch = self.bytes.slice(from..(from + size).min(self.bytes.len()));
        Ok(batch::verify(&batch).is_ok().then_some(batch))
    }
}

fn encode(gathered: Gathered, labeller: u32, log_bytes: u64) -> Vec<u8> {
    let Gathered { blocks, always, lists, first, last, overflow, .. } = gathered;
    let cap = cap(log_bytes);
    let mut lists: Vec<(u64, List)> = lists.into_iter().collect();
    for (_, list) in &mut lists {
        // Who looks for it skips less than half: not worth its bytes.
        if list.count as usize > blocks.len() / 2 {
            list.bytes.clear();
        }
    }
    let fixed = HEAD_BYTES
        + blocks.len() * BLOCK_ENTRY_BYTES
        + lists.len() * LABEL_ENTRY_BYTES
        + always.bytes.len()
        + CRC_BYTES;
    let mut total = fixed + lists.iter().map(|(_, list)| list.bytes.len()).sum::<usize>();
    if total > cap {
        // The longest lists skip the least for their bytes.
        lists.sort_unstable_by_key(|(_, list)| std::cmp::Reverse(list.bytes.len()));
        for (_, list) in &mut lists {
            if total <= cap {
                break;
            }
            total -= list.bytes.len();
            list.bytes.clear();
        }
    }
    let scan = overflow || total > cap || u32::try_from(total).is_err();
    let (blocks, always, mut lists) =
        if scan { (Vec::new(), List::default(), Vec::new()) } else { (blocks, always, lists) };
    lists.sort_unstable_by_key(|(hash, _)| *hash);
    let list_bytes = always.bytes.len() + lists.iter().map(|(_, l)| l.bytes.len()).sum::<usize>();
    let mut out = Vec::with_capacity(if scan { HEAD_BYTES + CRC_BYTES } else { total });
    out.extend_from_slice(MAGIC);
    out.put_u32(VERSION);
    out.put_u32(labeller);
    out.put_u64(log_bytes);
    // A segment is rolled before its bytes are more than 31 bits.
    out.put_u32(last.0 as u32);
    out.put_u32(first.unwrap_or_default());
    out.put_u32(last.1);
    out.put_u32(blocks.len() as u32);
    out.put_u32(lists.len() as u32);
    out.put_u32(list_bytes as u32);
    out.put_u32(always.bytes.len() as u32);
    for block in &blocks {
        out.put_u32(*block);
    }
    let mut at = always.bytes.len() as u32;
    for (hash, list) in &lists {
        out.put_u64(*hash);
        out.put_u32(at);
        at += list.bytes.len() as u32;
    }
    out.extend_from_slice(&always.bytes);
    for (_, list) in &lists {
        out.extend_from_slice(&list.bytes);
    }
    let crc = crc32c(&out);
    out.put_u32(crc);
    out
}

fn cap(log_bytes: u64) -> usize {
    usize::try_from(log_bytes / SHARE).unwrap_or(usize::MAX)
}

/// The most that an index of a log of this length can have.
pub(crate) fn bytes_max(log_bytes: u64) -> u64 {
    (log_bytes / SHARE).max((HEAD_BYTES + CRC_BYTES) as u64)
}

/// An index, checked, wherever its bytes are.
#[derive(Debug)]
pub(crate) struct Labels<B> {
    bytes: B,
    blocks: usize,
    labels: usize,
    always_bytes: usize,
    list_bytes: usize,
}

impl<B: std::ops::Deref<Target = [u8]>> Labels<B> {
    /// `None` for what is no index made by this labeller of this log.
    pub(crate) fn open(bytes: B, id: u32, reading: &Reading<'_>) -> io::Result<Option<Self>> {
        let Some((labels, identity)) = Self::decode(bytes, id) else { return Ok(None) };
        let log_bytes = reading.segment.written();
        let head_at = |at: u64| -> io::Result<Option<BatchHeader>> {
            let mut head = [0; HEADER_BYTES];
            let n = read_full_at(reading.file, &mut head, at)?;
            Ok(BatchHeader::parse_alone(&head[..n]).ok())
        };
        let ours = identity.log_bytes == log_bytes
            // A log of which nothing could be read has neither.
            && head_at(0)?.is_none_or(|h| h.crc == identity.first_crc)
            && head_at(u64::from(identity.last_at))?.is_none_or(|h| h.crc == identity.last_crc);
        Ok(ours.then_some(labels))
    }

    fn decode(bytes: B, id: u32) -> Option<(Self, Identity)> {
        let (content, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
        if crc32c(content) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut f = Fields::new(content);
        if &f.array::<8>()? != MAGIC || f.u32()? != VERSION || f.u32()? != id {
            return None;
        }
        let identity = Identity {
            log_bytes: f.u64()?,
            last_at: f.u32()?,
            first_crc: f.u32()?,
            last_crc: f.u32()?,
        };
        let (blocks, labels) = (f.u32()? as usize, f.u32()? as usize);
        let (list_bytes, always_bytes) = (f.u32()? as usize, f.u32()? as usize);
        f.take(blocks.checked_mul(BLOCK_ENTRY_BYTES)?)?;
        f.take(labels.checked_mul(LABEL_ENTRY_BYTES)?)?;
        f.take(list_bytes)?;
        if !f.rest().is_empty() || always_bytes > list_bytes {
            return None;
        }
        Some((Self { bytes, blocks, labels, always_bytes, list_bytes }, identity))
    }

    fn block(&self, block: usize) -> u32 {
        let entries = self.bytes[HEAD_BYTES..].as_chunks::<BLOCK_ENTRY_BYTES>().0;
        entries.get(block).map_or(u32::MAX, |entry| u32::from_le_bytes(*entry))
    }

    fn label(&self, place: usize) -> Option<(u64, usize)> {
        let from = HEAD_BYTES + self.blocks * BLOCK_ENTRY_BYTES;
        let entries = self.bytes[from..].as_chunks::<LABEL_ENTRY_BYTES>().0;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *entries.get(place)?;
        let list = u32::from_le_bytes([i, j, k, l]) as usize;
        Some((u64::from_le_bytes([a, b, c, d, e, f, g, h]), list))
    }

    fn lists(&self) -> &[u8] {
        let end = self.bytes.len() - CRC_BYTES;
        &self.bytes[end - self.list_bytes..end]
    }

    /// The list of a label: `None` when it is nowhere, empty when everything is to be looked at.
    fn list(&self, hash: LabelHash) -> Option<&[u8]> {
        let (mut low, mut high) = (0, self.labels);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.label(middle)?.0 < hash.0 { low = middle + 1 } else { high = middle }
        }
        let (found, start) = self.label(low).filter(|_| low < self.labels)?;
        if found != hash.0 {
            return None;
        }
        let next = self.label(low + 1).filter(|_| low + 1 < self.labels);
        let end = next.map_or(self.list_bytes, |(_, start)| start);
        // Bounds that make no sense passed the CRC: a bug, and everything is looked at.
        Some(self.lists().get(start..end).unwrap_or_default())
    }

    /// The next block that may hold one of the labels at or behind `from` (an offset less the segment's base): its first
    /// offset, and the end of it and of those directly behind it that may, too (`None`: the end of the segment).
    pub(crate) fn next(&self, from: i64, labels: &[LabelHash]) -> Option<(i64, Option<i64>)> {
        let from = u32::try_from(from).unwrap_or(u32::MAX);
        if self.blocks == 0 {
            return Some((i64::from(from), None));
        }
        let (mut low, mut high) = (0, self.blocks);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.block(middle) <= from { low = middle + 1 } else { high = middle }
        }
        let here = low.saturating_sub(1) as u32;
        let lists: Vec<&[u8]> = labels.iter().filter_map(|hash| self.list(*hash)).collect();
        if lists.iter().any(|list| list.is_empty()) {
            return Some((i64::from(from), None));
        }
        let always = self.lists().get(..self.always_bytes).unwrap_or_default();
        let all = lists.iter().chain([&always]);
        let mut all: Vec<_> = all.map(|list| Blocks { list, last: None }.peekable()).collect();
        // Asked for rising blocks: each list is gone through once, however long the run is.
        let mut first = |from: u32| {
            let firsts = all.iter_mut().filter_map(|blocks| {
                while blocks.next_if(|block| *block < from).is_some() {}
                blocks.peek().copied()
            });
            firsts.min()
        };
        let block = first(here)?;
        let mut end = block.saturating_add(1);
        while first(end) == Some(end) && end < u32::MAX {
            end += 1;
        }
        let start = i64::from(self.block(block as usize)).max(i64::from(from));
        let end = ((end as usize) < self.blocks).then(|| i64::from(self.block(end as usize)));
        Some((start, end))
    }
}

/// What ties an index to its log.
struct Identity {
    log_bytes: u64,
    last_at: u32,
    first_crc: u32,
    last_crc: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(blocks: u32, list_bytes_max: usize) -> Gathered {
        Gathered { blocks: (0..blocks).collect(), list_bytes_max, ..Gathered::default() }
    }

    fn opened(gathered: Gathered) -> Labels<Vec<u8>> {
        Labels::decode(encode(gathered, 7, 1 << 30), 7).unwrap().0
    }

    #[test]
    fn a_run_of_blocks_ends_where_no_list_goes_on() {
        let (a, b) = (LabelHash(1), LabelHash(u64::MAX));
        let mut all = gathered(0, usize::MAX);
        for block in 0..400_000 {
            all.begin(10 * block, u64::from(block) * BLOCK_BYTES);
            // Two lists that take turns in one long run, which neither has alone.
            match block {
                100_000..290_000 => all.note([a, b][block as usize % 2].0),
                300_000 => all.always.note(block),
                _ => {}
            }
        }
        let index = opened(all);
        assert_eq!(index.next(7, &[a, b]), Some((1_000_000, Some(2_900_000))));
        assert_eq!(index.next(1_000_005, &[a]), Some((1_000_005, Some(1_000_010))));
        assert_eq!(index.next(2_900_000, &[a, b]), Some((3_000_000, Some(3_000_010))));
        assert_eq!(index.next(3_000_010, &[a, b]), None);
    }

    #[test]
    fn a_list_that_names_the_last_block_there_can_be_is_followed() {
        let mut all = gathered(3, usize::MAX);
        all.always.note(u32::MAX - 1);
        all.always.note(u32::MAX);
        let start = i64::from(u32::MAX);
        assert_eq!(opened(all).next(0, &[]), Some((start, None)));
    }

    #[test]
    fn lists_that_grow_too_long_make_it_an_index_that_says_look_at_everything() {
        let mut all = gathered(1, 1_000);
        for label in 0..2_000 {
            all.note(label);
            assert!(all.list_bytes <= 1_001);
            if all.overflow {
                assert_eq!(label, 1_000);
                let index = opened(all);
                assert_eq!(index.next(5, &[LabelHash(1 << 40)]), Some((5, None)));
                return;
            }
        }
        panic!("no end");
    }
}
