//! The readers of the engine's own files, each as a function of bytes, for `tests/fuzz` and nothing else.
//!
//! Most files end in a CRC that no fuzzer would ever hit: it is made to fit here, so that what lies behind it is reached.
//! Invariant: what is asserted is what the formats promise: nothing panics, nothing is reserved that the bytes do not hold, and
//! what was read can be written and read again as the same. Neighbours: every module that has a byte table.

use crate::Offset;
use crate::batch::{BatchHeader, put_crc};
use crate::catalog::{Catalog, Found};
use crate::disk::fake::FakeDisk;
use crate::disk::{Disk, OpenMode};
use crate::encoding::{Fields, crc32c};
use crate::journal::cycle::{self, CycleBuilder, End, Header};
use crate::journal::ring::Slot;
use crate::journal::{self, Mark, Opened, replay};
use crate::metadata::{self, MetadataState};
use crate::partition::epochs::Epochs;
use crate::partition::producers::Producers;
use crate::segment::index::{Offsets, Times};
use crate::segment::indexes::Indexes;
use crate::segment::labels::{LabelHash, Labels};
use crate::segment::read::{Reading, Trust};
use crate::segment::scan::Scan;
use crate::segment::txnindex;
use crate::segment::{Segment, txnindex::Aborted};
use crate::superblock::Superblock;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/d";
const DIRECTORY_ID: [u8; 16] = [7; 16];
const BLOCK: usize = journal::BLOCK_BYTES as usize;

fn put<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}

fn disk_with(files: &[(&str, &[u8])]) -> Arc<FakeDisk> {
    let disk = FakeDisk::new(1);
    for dir in [DIR, "/d/journal"] {
        let _ = disk.create_dir(Path::new(dir));
    }
    for (name, bytes) in files {
        disk.plant(Path::new(DIR).join(name), bytes);
    }
    Arc::new(disk)
}

/// The body of a catalog slot, of version 1 or 2 by its first byte.
pub fn catalog(input: &[u8]) {
    let Some((choice, body)) = input.split_first() else { return };
    let mut slot = b"HWCATALG".to_vec();
    slot.extend_from_slice(&(1 + u32::from(choice & 1)).to_le_bytes());
    slot.extend_from_slice(&[0; 4]);
    slot.extend_from_slice(&2u64.to_le_bytes());
    slot.extend_from_slice(&(body.len() as u64).to_le_bytes());
    slot.extend_from_slice(&crc32c(body).to_le_bytes());
    slot.extend_from_slice(&crc32c(&slot).to_le_bytes());
    slot.extend_from_slice(body);
    let id: [u8; 16] = body.first_chunk().copied().unwrap_or(DIRECTORY_ID);
    let disk = disk_with(&[("catalog.a", &slot)]);
    let read = |disk: &FakeDisk| match Catalog::read_slot(disk, Path::new(DIR), "catalog.a", &id) {
        Ok(Found::Intact(catalog)) => Some(catalog),
        _ => None,
    };
    let Some(catalog) = read(&disk) else { return };
    let written = |catalog: &Catalog| {
        let disk = disk_with(&[]);
        catalog.write(&*disk, Path::new(DIR), &id).expect("there is room");
        let bytes = disk.contents(Path::new(DIR).join("catalog.a")).expect("it was written");
        (read(&disk), bytes)
    };
    let (again, bytes) = written(&catalog);
    let again = again.expect("what was read can be read again");
    assert_eq!(written(&again).1, bytes, "and is the same");
}

/// A superblock.
pub fn superblock(input: &[u8]) {
    let mut bytes = input.to_vec();
    bytes.resize(60, 0);
    let crc = crc32c(&bytes[..56]);
    put(&mut bytes, 56, crc.to_le_bytes());
    let disk = disk_with(&[("superblock", &bytes), ("cut", input)]);
    let dir = Path::new(DIR);
    if let Ok(Some(read)) = Superblock::read(&*disk, dir) {
        read.write(&*disk, dir).expect("there is room");
        assert_eq!(Superblock::read(&*disk, dir).expect("it is right"), Some(read));
    }
    disk.plant(dir.join("superblock"), input);
    let _ = Superblock::read(&*disk, dir);
}

/// A snapshot of metadata, and its records one after another.
pub fn metadata(input: &[u8]) {
    let Ok(records) = metadata::decode_all(input) else { return };
    let encoded = |records: &[_]| {
        let mut out = Vec::new();
        metadata::encode_all(records, &mut out);
        out
    };
    assert_eq!(metadata::decode_all(&encoded(&records)).as_ref(), Ok(&records));
    let mut state = MetadataState::default();
    for record in &records {
        if state.apply(record).is_err() {
            return;
        }
    }
    let mut again = MetadataState::default();
    for record in state.snapshot() {
        again.apply(&record).expect("a snapshot applies");
    }
    assert_eq!(again, state, "a snapshot is the state");
}

/// The bytes of a journal file behind its head; by the first byte, cycles are chained so that all of them count.
pub fn journal(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else { return };
    if let Some(frames) = cycle::frames(input) {
        assert!(frames.len() <= input.len() / cycle::FRAME_HEADER_BYTES);
    }
    let mut file = journal_head();
    file.extend_from_slice(input);
    file.resize(file.len().next_multiple_of(BLOCK).max(2 * BLOCK), 0);
    mend_cycles(&mut file[BLOCK..], choice & 1 != 0);
    let disk = disk_with(&[("journal/0000.journal", &file)]);
    let opened = journal::open(&*disk, Path::new(DIR), 0, DIRECTORY_ID).expect("its head is right");
    let (Opened::File(file, size_bytes) | Opened::Unfinished(file, size_bytes)) = opened;
    let slots = [Slot { number: 0, file, size_bytes, last_cycle: None }];
    let from = Mark { generation: 1, cycle: 0, crc: 0, slot: 0, at: journal::BLOCK_BYTES };
    let chain = replay::walk(&slots, &DIRECTORY_ID, from).expect("the disk is well");
    let mut frames = Vec::new();
    let mut last = 0;
    for found in &chain.cycles {
        assert!(found.header.number > last, "numbers rise");
        last = found.header.number;
        assert!(found.at + found.header.size_bytes() <= size_bytes);
        if replay::read_frames(&slots, found, &mut frames).expect("the disk is well") {
            let _ = cycle::frames(&frames);
        }
    }
}

fn journal_head() -> Vec<u8> {
    let mut head = b"HWJOURNL".to_vec();
    head.extend_from_slice(&1u32.to_le_bytes());
    head.extend_from_slice(&0u32.to_le_bytes());
    head.extend_from_slice(&DIRECTORY_ID);
    head.extend_from_slice(&crc32c(&head).to_le_bytes());
    head.resize(BLOCK, 0);
    head
}

fn mend_cycles(blocks: &mut [u8], chained: bool) {
    let (mut at, mut number, mut previous) = (0, 0u64, 0u32);
    while at + BLOCK <= blocks.len() {
        let room = blocks.len() - at - cycle::HEADER_BYTES;
        let block = &mut blocks[at..];
        if !block.starts_with(b"HWCY") {
            at += BLOCK;
            continue;
        }
        number += 1;
        put(block, 8, DIRECTORY_ID);
        if chained {
            put(block, 24, 1u64.to_le_bytes());
            put(block, 32, number.to_le_bytes());
            put(block, 48, previous.to_le_bytes());
        }
        let length = u32::from_le_bytes([block[52], block[53], block[54], block[55]]);
        let length = (length as usize).min(room);
        put(block, 52, (length as u32).to_le_bytes());
        let frames = crc32c(&block[cycle::HEADER_BYTES..cycle::HEADER_BYTES + length]);
        put(block, 56, frames.to_le_bytes());
        previous = crc32c(&block[..60]);
        put(block, 60, previous.to_le_bytes());
        at += (cycle::HEADER_BYTES + length).next_multiple_of(BLOCK);
    }
}

/// A journal with a cycle of each kind of frame, behind the byte that chooses.
#[must_use]
pub fn journal_seed(batch: &bytes::Bytes) -> Vec<u8> {
    let mut out = vec![1];
    let mut cycle = CycleBuilder::default();
    for number in 1..=2 {
        cycle.clear();
        cycle.ends(&[End { handle: 3, first: 0, end: 5 }]);
        cycle.metadata(9, b"\x03\x01record");
        cycle.log_start(3, 40);
        cycle.truncate(3, 41);
        cycle.batches(3, [batch, batch].into_iter());
        let mut header = Header {
            generation: 1,
            number,
            synced_through: number - 1,
            previous_crc: 0,
            length: 0,
            frames_crc: 0,
            crc: 0,
        };
        cycle.finish(&DIRECTORY_ID, &mut header, |slices| {
            for slice in slices {
                out.extend_from_slice(slice);
            }
        });
    }
    out
}

/// An offset index and a time index.
pub fn index(input: &[u8]) {
    let (offsets, times) = (Offsets(input), Times(input));
    let newest = times.last().map_or(-1, |(timestamp, _)| timestamp);
    let plausible = offsets.are_plausible(1 << 31);
    for look in [0, 1, 1 << 20, i64::from(u32::MAX), i64::MAX, -1, newest] {
        let found = offsets.floor(look);
        assert!(!plausible || found.is_none_or(|e| i64::from(e.last) <= look));
        let found = times.floor(look);
        assert!(!times.are_plausible(newest) || found.is_none_or(|(t, _)| t <= look));
    }
}

/// A label index of an empty segment.
pub fn labels(input: &[u8]) {
    let mut bytes = input.to_vec();
    if bytes.len() >= 24 {
        put(&mut bytes, 0, *b"HWLABELS");
        put(&mut bytes, 8, 1u32.to_le_bytes());
        put(&mut bytes, 12, 5u32.to_le_bytes());
        put(&mut bytes, 16, 0u64.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    with_segment(&[], |reading| {
        let opened = Labels::open(&bytes[..], 5, reading).expect("the disk is well");
        let Some(index) = opened else { return };
        for from in [0, 1, 77, 4096, i64::from(u32::MAX), i64::MAX] {
            for hashes in [&[LabelHash::of(b"a"), LabelHash::of(b"b")][..], &[]] {
                if let Some((start, end)) = index.next(from, hashes) {
                    assert!(end.is_none_or(|end| end >= 0) && start >= 0);
                }
            }
        }
    });
}

/// The lists of aborted transactions and the states of producers, in files and in the catalog.
pub fn transactions(input: &[u8]) {
    if let Some(list) = txnindex::decode(input) {
        assert_eq!(txnindex::encode(&list), input);
    }
    let mut fields = Fields::new(input);
    if let Some(aborted) = Aborted::decode(&mut fields) {
        let mut out = Vec::new();
        aborted.encode(&mut out);
        assert_eq!(out.len(), input.len() - fields.rest().len());
        assert!(Aborted::decode(&mut Fields::new(&out)).is_some());
    }
    let _ = Epochs::decode(&mut Fields::new(input));
    let _ = Producers::decode_version_1(&mut Fields::new(input), 5);
    if let Some(producers) = Producers::decode(&mut Fields::new(input)) {
        let mut out = Vec::new();
        producers.encode(&mut out);
        let mut again = Vec::new();
        let read = Producers::decode(&mut Fields::new(&out)).expect("what was written");
        read.encode(&mut again);
        assert_eq!(again, out);
    }
    let mut snapshot = input.to_vec();
    if snapshot.len() >= 6 {
        let crc = crc32c(&snapshot[6..]);
        put(&mut snapshot, 2, crc.to_be_bytes());
    }
    let at = Offset::new(1 << 40).unwrap_or_default();
    if let Some(producers) = Producers::from_snapshot(&snapshot, at, 5) {
        let out = producers.to_snapshot();
        let again = Producers::from_snapshot(&out, at, 5).expect("what was written");
        assert_eq!(again.to_snapshot(), out);
    }
}

/// A segment file: walked, searched and read as a reader does; by the first byte, with CRCs that fit.
pub fn segment(input: &[u8]) {
    let Some((choice, log)) = input.split_first() else { return };
    let mut log = log.to_vec();
    if choice & 1 != 0 {
        mend_batches(&mut log);
    }
    with_segment(&log, |reading| {
        let mut scan = Scan::new(reading.file, 0, log.len() as u64);
        let mut at = 0;
        while let Some(step) = scan.next().expect("the disk is well") {
            if step.is_err() && !scan.resync(0).expect("the disk is well") {
                break;
            }
            assert!(scan.at() > at, "a walk that stands still");
            at = scan.at();
        }
        let limit = Offset::new(i64::MAX).unwrap_or_default();
        for from in [0, 1, 40, 1 << 33] {
            let from = Offset::new(from).unwrap_or_default();
            let _ = reading.read(from, limit, 1 << 16).expect("the disk is well");
            let found = reading.batch_by_time(from.get(), from, Trust::Well);
            let _ = found.expect("the disk is well");
        }
    });
}

fn mend_batches(log: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = log.get(at..).and_then(|rest| BatchHeader::parse(rest).ok()) {
        let end = at + header.size_bytes();
        put_crc(&mut log[at..end]);
        at = end;
    }
}

fn with_segment(log: &[u8], run: impl FnOnce(&Reading<'_>)) {
    let disk = disk_with(&[("00000000000000000000.log", log)]);
    let segment = Segment::new(Offset::ZERO, 0);
    segment.note_written(&[(Offset::ZERO, Offset::ZERO, 0, log.len())]);
    let name = Path::new(DIR).join("00000000000000000000.log");
    let file = disk.open(&name, OpenMode::Read).expect("it was planted");
    let indexes = Indexes::new(Arc::clone(&disk) as Arc<dyn Disk>);
    run(&Reading {
        segment: &segment,
        file: &*file,
        indexes: &indexes,
        folder: Path::new(DIR),
        next: None,
    });
}
