//! Directories made by somebody who knows the formats: every sum fits, and numbers are what no program would write. Whatever
//! such a directory says, it is refused or it is opened and used; nothing panics, stands still or takes the memory of its words.

use crate::directory::{fixture, plant_folder};
use crate::sim::{Random, options};
use headwater_log::clock::fake::FakeClock;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{LabelHash, Log, Offset, ReadError, ReadLimit};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

const NOW_MS: i64 = 1_800_000_000_000;
const CATALOG_HEAD_BYTES: usize = 40;
const CYCLE_HEADER_BYTES: usize = 64;
const BLOCK_BYTES: usize = 4096;

fn crc(bytes: &[u8]) -> [u8; 4] {
    crc_fast::crc32_iscsi(bytes).to_le_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"))
}

/// Puts a number somewhere that means nothing there, or something else.
fn spoil(bytes: &mut [u8], random: &mut Random) {
    let widths = [1, 2, 4, 8, 8, 8];
    let width = widths[random.below(6) as usize];
    if bytes.len() < width {
        return;
    }
    let at = random.below((bytes.len() - width + 1) as u64) as usize;
    let values = [
        0,
        1,
        2,
        u64::MAX,
        u64::MAX - 1,
        i64::MAX as u64,
        i64::MAX as u64 - 1,
        i64::MIN as u64,
        u64::from(u32::MAX),
        i32::MAX as u64,
        1 << 40,
        random.next(),
        random.below(300),
    ];
    let value = values[random.below(values.len() as u64) as usize];
    let bytes = &mut bytes[at..at + width];
    let raw = match random.below(5) {
        0 => value.to_be_bytes()[8 - width..].to_vec(),
        1 if width == 8 => {
            let old = u64::from_le_bytes((&*bytes).try_into().expect("eight"));
            old.wrapping_add(random.below(9)).wrapping_sub(4).to_le_bytes().to_vec()
        }
        _ => value.to_le_bytes()[..width].to_vec(),
    };
    bytes.copy_from_slice(&raw);
}

fn spoil_catalog(disk: &FakeDisk, name: &str, random: &mut Random) {
    let Some(mut bytes) = disk.contents(name) else { return };
    if bytes.len() < CATALOG_HEAD_BYTES + 16 {
        return;
    }
    let length = u64_at(&bytes, 24) as usize;
    let end = CATALOG_HEAD_BYTES + length;
    for _ in 0..1 + random.below(3) {
        spoil(&mut bytes[CATALOG_HEAD_BYTES + 16..end], random);
    }
    if random.below(20) == 0 {
        bytes[16..24].copy_from_slice(&(u64::MAX - random.below(2)).to_le_bytes());
    }
    let body = crc(&bytes[CATALOG_HEAD_BYTES..end]);
    bytes[32..36].copy_from_slice(&body);
    let head = crc(&bytes[..36]);
    bytes[36..40].copy_from_slice(&head);
    disk.plant(name, &bytes);
}

/// Spoils a cycle, and makes the chain behind it fit again.
fn spoil_journal(disk: &FakeDisk, names: &[String], random: &mut Random) {
    let mut files: Vec<Vec<u8>> =
        names.iter().map(|name| disk.contents(name).expect("listed")).collect();
    let mut cycles = Vec::new();
    for (file, bytes) in files.iter().enumerate() {
        for at in (BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES) {
            if bytes[at..].starts_with(b"HWCY") {
                cycles.push((u64_at(bytes, at + 32), file, at));
            }
        }
    }
    cycles.sort_unstable();
    if cycles.is_empty() {
        return;
    }
    let chosen = random.below(cycles.len() as u64) as usize;
    let header_too = random.below(4) == 0;
    let mut renamed: HashMap<usize, [u8; 4]> = HashMap::new();
    for (i, (_, file, at)) in cycles.iter().enumerate() {
        let bytes = &mut files[*file][*at..];
        let before = u32_at(bytes, 60);
        if let Some(new) = renamed.get(&u32_at(bytes, 48)) {
            bytes[48..52].copy_from_slice(new);
        }
        let length = u32_at(bytes, 52).min(bytes.len() - CYCLE_HEADER_BYTES);
        let frames = CYCLE_HEADER_BYTES..CYCLE_HEADER_BYTES + length;
        if i == chosen {
            spoil(&mut bytes[frames.clone()], random);
            mend_batches(&mut bytes[frames.clone()]);
            if header_too {
                spoil(&mut bytes[24..60], random);
            }
        }
        let length = u32_at(bytes, 52).min(bytes.len() - CYCLE_HEADER_BYTES);
        bytes[52..56].copy_from_slice(&(length as u32).to_le_bytes());
        let sum = crc(&bytes[CYCLE_HEADER_BYTES..CYCLE_HEADER_BYTES + length]);
        bytes[56..60].copy_from_slice(&sum);
        let sum = crc(&bytes[..60]);
        bytes[60..64].copy_from_slice(&sum);
        renamed.insert(before, sum);
    }
    for (name, bytes) in names.iter().zip(&files) {
        disk.plant(name, bytes);
    }
}

/// The CRCs of batches in frames of kind 3.
fn mend_batches(frames: &mut [u8]) {
    let mut at = 0;
    while at + 16 <= frames.len() {
        let end = (at + 16 + u32_at(frames, at + 4)).min(frames.len());
        if frames[at] == 3 {
            mend_log(&mut frames[at + 16..end]);
        }
        at = end;
    }
}

fn mend_log(log: &mut [u8]) {
    let mut at = 0;
    while at + 61 <= log.len() {
        let length = i32::from_be_bytes(log[at + 8..at + 12].try_into().expect("four"));
        let Some(end) = usize::try_from(length).ok().map(|n| at + 12 + n) else { return };
        if end > log.len() || end < at + 61 {
            return;
        }
        let sum = crc_fast::crc32_iscsi(&log[at + 21..end]);
        log[at + 17..at + 21].copy_from_slice(&sum.to_be_bytes());
        at = end;
    }
}

fn spoiled(seed: u64) -> (FakeDisk, bool) {
    let mut random = Random(seed);
    let (name, two) = [
        ("v0.2-killed", false),
        ("v0.2-closed", false),
        ("v0.2-two-directories", true),
        ("v0.1-killed", false),
    ][random.below(4) as usize];
    let disk = FakeDisk::new(1);
    plant_folder(&disk, &fixture(name), Path::new("/"));
    let files = disk.files();
    let of = |part: &str| -> Vec<String> {
        files.iter().filter(|name| name.contains(part)).cloned().collect()
    };
    let kind = random.below(10);
    if kind < 6 {
        let both = of("/catalog.");
        for name in &both {
            spoil_catalog(&disk, name, &mut random);
        }
    }
    if (5..9).contains(&kind) {
        let data = if two && random.below(2) == 0 { "/other/journal/" } else { "/data/journal/" };
        spoil_journal(&disk, &of(data), &mut random);
    }
    if kind > 7 {
        let logs: Vec<String> = of("/topics/");
        for _ in 0..3 {
            let name = &logs[random.below(logs.len() as u64) as usize];
            let mut bytes = disk.contents(name).expect("listed");
            spoil(&mut bytes, &mut random);
            if name.ends_with(".log") {
                mend_log(&mut bytes);
            }
            disk.plant(name, &bytes);
        }
    }
    (disk, two)
}

fn live(disk: &FakeDisk, two: bool) {
    let mut options = options();
    if two {
        options.dirs = ["/data", "/other"].iter().map(Into::into).collect();
    }
    let clock = Arc::new(FakeClock::new(NOW_MS));
    let Ok((log, _)) = Log::open(options, Arc::new(disk.clone()), clock.clone()) else { return };
    for round in 0..3 {
        for topic in log.topics() {
            for p in topic.partitions() {
                use_partition(p);
            }
        }
        while log.step_commit() {}
        let _ = log.step_checkpoint();
        for _ in 0..3 {
            clock.advance_ms(100_000_000);
            log.step_upkeep();
        }
        for _ in 0..4 {
            log.step_compaction();
        }
        let stats = log.stats();
        let _ = format!("{stats:?}");
        if round == 1 {
            let _ = log.next_producer_id();
            for topic in log.topics() {
                let _ = log.add_partitions(topic.name(), 3);
            }
        }
    }
    let _ = log.step_close();
}

fn use_partition(p: &headwater_log::Partition) {
    let positions = p.positions();
    let _ = (p.producers(), p.size_bytes(), p.epoch_of(positions.log_start));
    for at in [Offset::ZERO, positions.log_start, positions.high_watermark] {
        let _ = p.bytes_after(at);
    }
    let last = Offset::new(i64::MAX).expect("not negative");
    for limit in [ReadLimit::HighWatermark, ReadLimit::LastStable, ReadLimit::Written] {
        let _ = p.read(last, 1, limit);
        let mut from = positions.log_start;
        for _ in 0..300 {
            match p.read(from, 700, limit) {
                Ok(read) if read.next > from => from = read.next,
                Err(ReadError::Damaged { next_good: Some(next), .. }) if next > from => from = next,
                _ => break,
            }
        }
    }
    let mut from = positions.log_start;
    let labels = [LabelHash::of(b"key-1")];
    for _ in 0..300 {
        match p.next_with_labels(from, &labels, ReadLimit::HighWatermark) {
            Ok(way) if way.until > from => from = way.until,
            _ => break,
        }
    }
    for time in [i64::MIN, 0, NOW_MS, NOW_MS + 20, i64::MAX] {
        let _ = p.offset_for_timestamp(time);
    }
    let _ = p.offset_of_max_timestamp();
    let record = RecordParts {
        timestamp_ms: NOW_MS,
        key: Some(b"key-1"),
        value: Some(b"after"),
        headers: Headers::EMPTY,
    };
    let _ = p.append(&[record]);
    if positions.high_watermark.get() % 3 == 0 {
        p.delete_before(positions.high_watermark);
    }
}

#[test]
fn numbers_that_no_program_writes_are_refused_or_lived_with() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (from, count) = match number("HEADWATER_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("HEADWATER_SEEDS").unwrap_or(150)),
    };
    for seed in from..from + count {
        if std::env::var("HEADWATER_TRACE").is_ok() {
            eprintln!("HEADWATER_SEED={seed}");
        }
        let caught = std::panic::catch_unwind(|| {
            let (disk, two) = spoiled(seed);
            live(&disk, two);
            live(&disk.after_kill(), two);
        });
        if caught.is_err() {
            if number("HOSTILE_ON").is_some() {
                eprintln!("FAILED SEED {seed}");
                continue;
            }
            panic!("HEADWATER_SEED={seed}");
        }
    }
}
