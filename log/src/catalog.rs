//! The catalog: what a checkpoint says, in one of two slots, so that a start reads one file and walks no folder.
//!
//! Files `catalog.a` and `catalog.b`, written in turn; the intact one with the higher sequence counts. Little-endian:
//!
//! | byte | field |
//! |---|---|
//! | 0 | magic `HWCATALG` |
//! | 8 | version u32 = 2 |
//! | 12 | zero u32 |
//! | 16 | sequence u64 |
//! | 24 | length u64 of what follows the 40 bytes |
//! | 32 | CRC-32C u32 of what follows |
//! | 36 | CRC-32C u32 of bytes 0..36 |
//! | 40 | directory id 16 bytes; flags u8 (1: closed cleanly); generation u64; checkpointed cycle u64; its CRC u32; file u32 and byte u64 where the next cycle begins; log clock i64 ms; metadata sequence u64; metadata (u32 length, list of records); u32 count of partitions |
//!
//! Per partition: handle u64; flags u8 (1: `memory` durability, 2: offline, 4: bulk, its files may have more than the catalog and the journal say); log start i64; end i64; node's next sequence i32;
//! u32 count of segments: base i64, bytes u64, max timestamp i64, base offset of the batch that has it i64, last append (log
//! clock) i64, first append i64; u32 count of epochs: epoch i32, start i64. In version 1 the table of producers follows
//! (`partition::producers::encoding`). From version 2 on: u32 length, and so many bytes of sections, u8 tag, u32 length, content:
//!
//! | tag | content |
//! |---|---|
//! | 1 transactions | producers (`partition::producers::encoding`); u32 count of segments with aborted transactions, of each: base i64, then as in `segment::txnindex` |
//! | 2 replica | of a replicated partition: leadership, 16 bytes as in the journal (`partition::replica`); u64 cycle of the last truncation that the entry has behind it |
//! | 3 compaction | `compaction::swap` has its table |
//! | 6 lost | u32 count of ranges of offsets whose records were lost to damage: first i64, end i64 (exclusive), rising |
//! | 7 damaged | as 6: what readers could not read, and no repair has judged yet (a report, which no reader relies upon) |
//!
//! Behind the partitions, from version 2 on, sections of the directory as a whole, in the same form:
//!
//! | tag | content |
//! |---|---|
//! | 1 account | what the journal wrote, and its budget (`pace`) |
//!
//! Invariant: a slot is overwritten only when the other one is intact and newer than it.
//! Neighbours: `checkpoint` writes, `recovery` reads.

use crate::compaction::swap::CompactedEntry;
use crate::disk::{Disk, OpenMode, read_full_at};
use crate::encoding::{Fields, Put, crc32c};
use crate::journal::Mark;
use crate::log::OpenError;
use crate::metadata::{MetadataState, decode_all};
use crate::pace::Account;
use crate::partition::SEGMENT_BYTES_LIMIT;
use crate::partition::epochs::Epochs;
use crate::partition::producers::Producers;
use crate::partition::replica::{LEADERSHIP_BYTES, Leadership};
use crate::segment::txnindex::Aborted;
use std::io::{self, IoSlice};
use std::path::Path;

const MAGIC: &[u8; 8] = b"HWCATALG";
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 40;
/// The slots.
pub(crate) const NAMES: [&str; 2] = ["catalog.a", "catalog.b"];

/// Room for a slot is reserved in pieces of this size.
const RESERVE_BYTES: u64 = 64 << 10;

const FLAG_CLEAN: u8 = 1;
const FLAG_MEMORY: u8 = 1;
const FLAG_OFFLINE: u8 = 2;
const FLAG_BULK: u8 = 4;

const SECTION_TRANSACTIONS: u8 = 1;
const SECTION_REPLICA: u8 = 2;
const SECTION_COMPACTED: u8 = 3;
const SECTION_LOST: u8 = 6;
const SECTION_DAMAGED: u8 = 7;

/// Of the directory as a whole.
const DIRECTORY_ACCOUNT: u8 = 1;

/// A segment as the catalog knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) base: i64,
    pub(crate) bytes: u64,
    pub(crate) max_timestamp: i64,
    pub(crate) max_timestamp_base: i64,
    pub(crate) last_append_ms: i64,
    pub(crate) first_append_ms: i64,
}

/// A partition as the catalog knows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionEntry {
    pub(crate) handle: u64,
    pub(crate) memory: bool,
    pub(crate) offline: bool,
    pub(crate) log_start: i64,
    pub(crate) end: i64,
    pub(crate) node_sequence: i32,
    pub(crate) segments: Vec<SegmentEntry>,
    pub(crate) epochs: Epochs,
    pub(crate) producers: Producers,
    /// Aborted transactions of the segments that have any, by base offset.
    pub(crate) aborted: Vec<(i64, Aborted)>,
    /// Of a replicated partition.
    pub(crate) leadership: Option<Leadership>,
    /// The journal's truncations up to this cycle are done: batches before it are in the entry, or gone.
    pub(crate) truncated_in: u64,
    pub(crate) compacted: CompactedEntry,
    /// Batches may have been written to its segments that no journal entry names.
    pub(crate) bulk: bool,
    /// Offsets whose records were lost to damage, as a repair found: first and end of each.
    pub(crate) lost: Vec<(i64, i64)>,
    /// Offsets that readers could not read.
    pub(crate) damaged: Vec<(i64, i64)>,
}

/// The whole catalog.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    pub(crate) sequence: u64,
    pub(crate) clean: bool,
    pub(crate) mark: Mark,
    pub(crate) log_clock_ms: i64,
    pub(crate) metadata_sequence: u64,
    pub(crate) metadata: Vec<u8>,
    pub(crate) partitions: Vec<PartitionEntry>,
    /// What the journal has written.
    pub(crate) account: Option<Account>,
}

/// What a slot turned out to be.
#[derive(Debug)]
pub(crate) enum Found {
    Absent,
    /// Its CRC is wrong, it is cut short, or another directory's.
    Damaged,
    Intact(Box<Catalog>),
}

impl Catalog {
    fn encode(&self, directory_id: &[u8; 16]) -> Vec<u8> {
        let mut out = vec![0; HEAD_BYTES];
        out.extend_from_slice(directory_id);
        out.put_u8(if self.clean { FLAG_CLEAN } else { 0 });
        out.put_u64(self.mark.generation);
        out.put_u64(self.mark.cycle);
        out.put_u32(self.mark.crc);
        out.put_u32(self.mark.slot);
        out.put_u64(self.mark.at);
        out.put_i64(self.log_clock_ms);
        out.put_u64(self.metadata_sequence);
        out.put_u32(self.metadata.len() as u32);
        out.extend_from_slice(&self.metadata);
        out.put_u32(self.partitions.len() as u32);
        for partition in &self.partitions {
            partition.encode(&mut out);
        }
        if let Some(account) = &self.account {
            let mut content = Vec::new();
            account.encode(&mut content);
            put_section(&mut out, DIRECTORY_ACCOUNT, &content);
        }
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(MAGIC);
        head.put_u32(VERSION);
        head.put_u32(0);
        head.put_u64(self.sequence);
        head.put_u64((out.len() - HEAD_BYTES) as u64);
        head.put_u32(crc32c(&out[HEAD_BYTES..]));
        let crc = crc32c(&head);
        head.put_u32(crc);
        out[..HEAD_BYTES].copy_from_slice(&head);
        out
    }

    fn decode(body: &[u8], directory_id: &[u8; 16], head: &Head) -> Option<Self> {
        if body.len() as u64 != head.length || crc32c(body) != head.crc {
            return None;
        }
        let mut f = Fields::new(body);
        if &f.array::<16>()? != directory_id {
            return None;
        }
        let clean = f.u8()? & FLAG_CLEAN != 0;
        let (generation, cycle, crc) = (f.number()?, f.number()?, f.u32()?);
        let mark = Mark { generation, cycle, crc, slot: f.u32()?, at: f.number()? };
        let log_clock_ms = f.i64()?;
        let metadata_sequence = f.number()?;
        let length = f.u32()? as usize;
        let metadata = f.take(length)?.to_vec();
        let count = f.count(41)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(PartitionEntry::decode(&mut f, head.version, log_clock_ms)?);
        }
        let mut account = None;
        while head.version > 1 && !f.rest().is_empty() {
            let (tag, length) = (f.u8()?, f.u32()? as usize);
            let mut section = Fields::new(f.take(length)?);
            match tag {
                DIRECTORY_ACCOUNT => account = Some(Account::decode(&mut section)?),
                _ => return None,
            }
            if !section.rest().is_empty() {
                return None;
            }
        }
        let sequence = head.sequence;
        f.rest().is_empty().then_some(Self {
            sequence,
            account,
            clean,
            mark,
            log_clock_ms,
            metadata_sequence,
            metadata,
            partitions,
        })
    }

    /// The newest intact slot; `None` when there is none.
    pub(crate) fn read(
        disk: &dyn Disk,
        dir: &Path,
        directory_id: &[u8; 16],
    ) -> Result<Option<Self>, OpenError> {
        let mut newest: Option<Self> = None;
        for name in NAMES {
            if let Found::Intact(catalog) = Self::read_slot(disk, dir, name, directory_id)?
                && newest.as_ref().is_none_or(|c| c.sequence <= catalog.sequence)
            {
                newest = Some(*catalog);
            }
        }
        Ok(newest)
    }

    /// The metadata in it, as far as it applies.
    pub(crate) fn state(&self) -> MetadataState {
        let mut state = MetadataState::default();
        let records = decode_all(&self.metadata).unwrap_or_default();
        // What does not apply keeps a start from coming this far.
        let _ = records.iter().try_for_each(|record| state.apply(record));
        state
    }

    /// The id of the directory that a slot was written for, if it is whole.
    pub(crate) fn directory_id(disk: &dyn Disk, dir: &Path, name: &str) -> Option<[u8; 16]> {
        let file = disk.open(&dir.join(name), OpenMode::Read).ok()?;
        let mut id = [0; 16];
        let n = read_full_at(&*file, &mut id, HEAD_BYTES as u64).ok()?;
        let found = Self::read_slot(disk, dir, name, &id).ok()?;
        (n == id.len() && matches!(found, Found::Intact(_))).then_some(id)
    }

    /// One slot, whatever the other one holds.
    pub(crate) fn read_slot(
        disk: &dyn Disk,
        dir: &Path,
        name: &str,
        directory_id: &[u8; 16],
    ) -> Result<Found, OpenError> {
        let path = dir.join(name);
        let io = |source| OpenError::Io { path: path.clone(), source };
        let file = match disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
            Err(e) => return Err(io(e)),
        };
        let mut head = [0; HEAD_BYTES];
        let n = read_full_at(&*file, &mut head, 0).map_err(io)?;
        let Some(head) = Head::decode(&head[..n], dir, name)? else { return Ok(Found::Damaged) };
        // The file may be of any length; what counts of it is in there, or the slot is not whole.
        let there = file.size_bytes().map_err(io)?.saturating_sub(HEAD_BYTES as u64);
        if head.length > there {
            return Ok(Found::Damaged);
        }
        let mut body = vec![0; usize::try_from(head.length).unwrap_or(0)];
        let n = read_full_at(&*file, &mut body, HEAD_BYTES as u64).map_err(io)?;
        let catalog = Self::decode(&body[..n], directory_id, &head);
        Ok(catalog.map_or(Found::Damaged, |catalog| Found::Intact(Box::new(catalog))))
    }

    /// Writes the slot of this sequence and syncs it.
    pub(crate) fn write(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        directory_id: &[u8; 16],
    ) -> io::Result<()> {
        let bytes = self.encode(directory_id);
        let file = disk.open(&dir.join(NAMES[(self.sequence % 2) as usize]), OpenMode::Create)?;
        // Twice what it takes now, so that it can grow on a disk that is full by then. Only a precaution.
        let _ = file.reserve(0, (bytes.len() as u64 * 2).next_multiple_of(RESERVE_BYTES));
        // The file keeps the largest length it ever had: `length` says what counts.
        file.write_at(&[IoSlice::new(&bytes)], 0)?;
        file.sync_data()
    }
}

struct Head {
    version: u32,
    sequence: u64,
    length: u64,
    crc: u32,
}

impl Head {
    fn decode(bytes: &[u8], dir: &Path, name: &str) -> Result<Option<Self>, OpenError> {
        let mut f = Fields::new(bytes);
        if f.array::<8>().as_ref() != Some(MAGIC) {
            return Ok(None);
        }
        let version = f.u32();
        if let Some(version) = version.filter(|v| *v > VERSION) {
            return Err(OpenError::FromTheFuture {
                dir: dir.to_owned(),
                detail: format!("{name} has version {version}, this program knows {VERSION}"),
            });
        }
        let read = (|| {
            f.u32()?;
            let version = version?;
            let head = Self { version, sequence: f.number()?, length: f.u64()?, crc: f.u32()? };
            (f.u32()? == crc32c(bytes.get(..HEAD_BYTES - 4)?)).then_some(head)
        })();
        Ok(read)
    }
}

fn put_section(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.put_u8(tag);
    out.put_u32(content.len() as u32);
    out.extend_from_slice(content);
}

fn encode_ranges(ranges: &[(i64, i64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + ranges.len() * 16);
    out.put_u32(ranges.len() as u32);
    for (first, end) in ranges {
        out.put_i64(*first);
        out.put_i64(*end);
    }
    out
}

fn decode_ranges(f: &mut Fields<'_>) -> Option<Vec<(i64, i64)>> {
    let count = f.count(16)?;
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        ranges.push((f.i64()?, f.i64()?));
    }
    (ranges.iter().all(|(first, end)| first < end) && ranges.is_sorted()).then_some(ranges)
}

impl PartitionEntry {
    /// What came with version 2: (tag, content) each.
    fn sections(&self) -> Vec<(u8, Vec<u8>)> {
        let mut sections = Vec::new();
        if !self.producers.is_empty() || !self.aborted.is_empty() {
            sections.push((SECTION_TRANSACTIONS, self.encode_transactions()));
        }
        if let Some(leadership) = &self.leadership {
            let mut content = Vec::with_capacity(LEADERSHIP_BYTES + 8);
            leadership.encode(&mut content);
            content.put_u64(self.truncated_in);
            sections.push((SECTION_REPLICA, content));
        }
        if !self.compacted.is_empty() {
            let mut content = Vec::new();
            self.compacted.encode(&mut content);
            sections.push((SECTION_COMPACTED, content));
        }
        if !self.lost.is_empty() {
            sections.push((SECTION_LOST, encode_ranges(&self.lost)));
        }
        if !self.damaged.is_empty() {
            sections.push((SECTION_DAMAGED, encode_ranges(&self.damaged)));
        }
        sections
    }

    fn encode_transactions(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.producers.encode(&mut out);
        out.put_u32(self.aborted.len() as u32);
        for (base, aborted) in &self.aborted {
            out.put_i64(*base);
            aborted.encode(&mut out);
        }
        out
    }

    fn read_transactions(&mut self, f: &mut Fields<'_>) -> Option<()> {
        self.producers = Producers::decode(f)?;
        for _ in 0..f.count(17)? {
            self.aborted.push((f.i64()?, Aborted::decode(f)?));
        }
        Some(())
    }

    /// A tag that is not known is a later version's, which would have said so in the head: the catalog is damaged then.
    fn read_section(&mut self, tag: u8, content: &[u8]) -> Option<()> {
        let mut f = Fields::new(content);
        match tag {
            SECTION_TRANSACTIONS => self.read_transactions(&mut f)?,
            SECTION_LOST => self.lost = decode_ranges(&mut f)?,
            SECTION_DAMAGED => self.damaged = decode_ranges(&mut f)?,
            SECTION_REPLICA => {
                self.leadership = Some(Leadership::decode(&mut f)?);
                self.truncated_in = f.u64()?;
            }
            SECTION_COMPACTED => {
                self.compacted = CompactedEntry::decode(f.take(content.len())?)?;
            }
            _ => return None,
        }
        f.rest().is_empty().then_some(())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.handle);
        let flag = |on, flag| if on { flag } else { 0 };
        out.put_u8(
            flag(self.memory, FLAG_MEMORY)
                | flag(self.offline, FLAG_OFFLINE)
                | flag(self.bulk, FLAG_BULK),
        );
        out.put_i64(self.log_start);
        out.put_i64(self.end);
        out.put_i32(self.node_sequence);
        out.put_u32(self.segments.len() as u32);
        for segment in &self.segments {
            out.put_i64(segment.base);
            out.put_u64(segment.bytes);
            out.put_i64(segment.max_timestamp);
            out.put_i64(segment.max_timestamp_base);
            out.put_i64(segment.last_append_ms);
            out.put_i64(segment.first_append_ms);
        }
        self.epochs.encode(out);
        let sections = self.sections();
        out.put_u32(sections.iter().map(|(_, content)| content.len() as u32 + 5).sum());
        for (tag, content) in &sections {
            put_section(out, *tag, content);
        }
    }

    fn decode(f: &mut Fields<'_>, version: u32, log_clock_ms: i64) -> Option<Self> {
        let handle = f.u64()?;
        let flags = f.u8()?;
        let (log_start, end, node_sequence) = (f.i64()?, f.i64()?, f.i32()?);
        if log_start < 0 || end < log_start || node_sequence < 0 {
            return None;
        }
        let count = f.count(48)?;
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            segments.push(SegmentEntry {
                base: f.i64().filter(|b| *b >= 0)?,
                bytes: f.u64().filter(|bytes| *bytes <= SEGMENT_BYTES_LIMIT)?,
                max_timestamp: f.i64()?,
                max_timestamp_base: f.i64()?,
                last_append_ms: f.i64()?,
                first_append_ms: f.i64()?,
            });
        }
        if !segments.is_sorted_by(|a, b| a.base < b.base) {
            return None;
        }
        let mut entry = Self {
            handle,
            memory: flags & FLAG_MEMORY != 0,
            offline: flags & FLAG_OFFLINE != 0,
            log_start,
            end,
            node_sequence,
            segments,
            epochs: Epochs::decode(f)?,
            producers: Producers::default(),
            aborted: Vec::new(),
            leadership: None,
            truncated_in: 0,
            compacted: CompactedEntry::default(),
            bulk: flags & FLAG_BULK != 0,
            lost: Vec::new(),
            damaged: Vec::new(),
        };
        if version == 1 {
            entry.producers = Producers::decode_version_1(f, log_clock_ms)?;
        } else {
            let length = f.u32()? as usize;
            let mut sections = Fields::new(f.take(length)?);
            while !sections.rest().is_empty() {
                let (tag, length) = (sections.u8()?, sections.u32()? as usize);
                entry.read_section(tag, sections.take(length)?)?;
            }
        }
        Some(entry)
    }
}
