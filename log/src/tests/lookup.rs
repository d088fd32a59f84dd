//! Looking things up: by offset, by time and by label, equal to a plain scan, whatever became of the indexes.

use super::faults::{Rig, first};
use super::{settings, topic};
use crate::batch::{self, BatchBuilder, BatchHeader, RecordView, Seal};
use crate::disk::fake::{FakeDisk, Fault};
use crate::disk::{Disk, OpenMode};
use crate::metadata::{Codec, Compression, TopicSettings};
use crate::record::{Headers, Record, RecordParts};
use crate::{LabelHash, Labeller, Log, Offset, Partition, ReadError, ReadLimit};
use bytes::BytesMut;
use std::io::IoSlice;
use std::sync::Arc;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn key<'a>(_: &BatchHeader, record: &RecordView<'a>) -> Option<&'a [u8]> {
    record.key
}

const LABELLER: Labeller = Labeller { id: 7, label: key };
const LABELS: u64 = 30;

fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.options.labeller = Some(LABELLER);
    rig.options.tail_bytes_max = 16 << 10;
    rig
}

/// A few records as one batch, through the open batch or as a client's, compressed or not.
fn add(p: &Partition, random: &mut Random, now_ms: i64) {
    let count = 1 + random.below(12);
    let records: Vec<(i64, String, Vec<u8>)> = (0..count)
        .map(|_| {
            let timestamp_ms = now_ms + random.below(400) as i64 - 200;
            // Some labels are everywhere, most are rare.
            let label = random.below(LABELS).min(random.below(LABELS)).min(random.below(LABELS));
            (timestamp_ms, format!("label {label}"), vec![b'v'; random.below(120) as usize])
        })
        .collect();
    let mut builder = BatchBuilder::new();
    for (timestamp_ms, key, value) in &records {
        let record = RecordParts {
            timestamp_ms: *timestamp_ms,
            key: Some(key.as_bytes()),
            value: Some(value),
            headers: Headers::EMPTY,
        };
        builder.push(&record, 1 << 20).unwrap();
    }
    let mut bytes = BytesMut::from(&builder.seal(Seal::default()).unwrap()[..]);
    batch::readdress(&mut bytes, -1, -1, -1);
    let codec = [Codec::None, Codec::Lz4, Codec::Zstd][random.below(3) as usize];
    let smaller = batch::compressed(&bytes, Compression { codec, level: None });
    p.append_batch(smaller.map_or(bytes, |b| BytesMut::from(&b[..]))).unwrap();
}

/// Grows a log of several segments, its start somewhere in a batch.
fn grow(rig: &Rig, log: &Log, p: &Partition, random: &mut Random) {
    for i in 0..700 {
        add(p, random, 1_000_000 + i);
        if random.below(3) == 0 {
            while log.step_commit() {}
        }
        if random.below(100) == 0 {
            log.step_checkpoint().unwrap();
        }
        if random.below(60) == 0 {
            rig.clock.advance_ms(1000);
            log.step_upkeep();
        }
    }
    while log.step_commit() {}
    let end = p.positions().high_watermark.get() as u64;
    p.delete_before(Offset::new(random.below(end / 3) as i64).unwrap());
    while log.step_commit() {}
    assert!(p.segments_and_checkpoint().0.len() > 3);
}

/// A log that has grown, and all of its records.
fn grown(rig: &Rig, random: &mut Random) -> (Log, Arc<Partition>, Vec<Record>) {
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    grow(rig, &log, &p, random);
    let all = scan(&p);
    (log, p, all)
}

fn scan(p: &Partition) -> Vec<Record> {
    let start = p.positions().log_start;
    let (mut from, mut found) = (start, Vec::new());
    loop {
        let outcome = p.read(from, 30_000, ReadLimit::HighWatermark).unwrap();
        if outcome.batches.is_empty() {
            return found;
        }
        for batch in &outcome.batches {
            let records = batch::records(batch).unwrap().map(Result::unwrap);
            found.extend(records.filter(|r| r.offset >= start.get()));
        }
        from = outcome.next;
    }
}

/// Every lookup by time gives what a scan gives.
fn check_times(p: &Partition, all: &[Record]) {
    let low = all.iter().map(|r| r.timestamp_ms).min().unwrap();
    let high = all.iter().map(|r| r.timestamp_ms).max().unwrap();
    for wanted in ((low - 2)..=(high + 2)).step_by(11) {
        let expected = all.iter().find(|r| r.timestamp_ms >= wanted);
        let found = p.offset_for_timestamp(wanted).unwrap();
        assert_eq!(
            found.map(|f| (f.offset.get(), f.timestamp_ms)),
            expected.map(|r| (r.offset, r.timestamp_ms)),
            "first at or after {wanted}"
        );
    }
    let newest = all.iter().find(|r| r.timestamp_ms == high).unwrap();
    let found = p.offset_of_max_timestamp().unwrap().unwrap();
    assert_eq!((found.offset.get(), found.timestamp_ms), (newest.offset, high));
}

/// Reads what the label index says may have one of the labels: their records, and how many batches were read.
fn by_label(p: &Partition, labels: &[&str]) -> (Vec<i64>, usize) {
    let hashes: Vec<_> = labels.iter().map(|l| LabelHash::of(l.as_bytes())).collect();
    let std::ops::Range { start, end } = span(p);
    let (mut from, mut found, mut batches) = (start, Vec::new(), 0);
    while from < end {
        let way = p.next_with_labels(from, &hashes, ReadLimit::HighWatermark).unwrap();
        assert!(from <= way.next && way.next <= way.until && way.until <= end, "{way:?}");
        let mut at = way.next;
        while at < way.until {
            let outcome = p.read(at, 1, ReadLimit::HighWatermark).unwrap();
            batches += outcome.batches.len();
            for batch in &outcome.batches {
                for record in batch::records(batch).unwrap().map(Result::unwrap) {
                    let label = record.key.as_deref().unwrap_or_default();
                    if record.offset >= start.get()
                        && labels.iter().any(|l| l.as_bytes() == label)
                        && found.last().is_none_or(|last| *last < record.offset)
                    {
                        found.push(record.offset);
                    }
                }
            }
            at = outcome.next;
        }
        from = at.max(way.until);
    }
    (found, batches)
}

fn span(p: &Partition) -> std::ops::Range<Offset> {
    let positions = p.positions();
    positions.log_start..positions.high_watermark
}

fn check_labels(p: &Partition, all: &[Record]) {
    let names: Vec<String> = (0..=LABELS).step_by(3).map(|i| format!("label {i}")).collect();
    let sets = names.iter().map(|n| vec![n.as_str()]).chain([vec!["label 25", "label 28"]]);
    for labels in sets {
        let wanted = |r: &&Record| labels.iter().any(|l| r.key.as_deref() == Some(l.as_bytes()));
        let expected: Vec<i64> = all.iter().filter(wanted).map(|r| r.offset).collect();
        assert_eq!(by_label(p, &labels).0, expected, "{labels:?}");
    }
}

fn hint_files(rig: &Rig, extension: &str) -> Vec<String> {
    rig.disk.files().into_iter().filter(|f| f.ends_with(extension)).collect()
}

#[test]
fn lookups_by_time_and_label_equal_a_scan() {
    for seed in 0..8 {
        let mut random = Random(seed);
        let mut rig = rig();
        let (log, p, all) = grown(&rig, &mut random);
        check_times(&p, &all);
        check_labels(&p, &all);
        drop((p, log));
        // As a killed process leaves it, and as a power cut does.
        rig.disk = rig.disk.after_kill();
        for _ in 0..2 {
            let (log, _) = rig.open();
            let p = first(&log);
            let all = scan(&p);
            check_times(&p, &all);
            check_labels(&p, &all);
            drop((p, log));
            rig.crash();
        }
    }
}

/// A failed sync may have dropped what it should have covered: from a file, not from memory.
#[test]
fn after_a_failed_sync_a_lookup_answers_what_memory_knows_or_an_error() {
    let (mut refused, mut told) = (0, 0);
    for seed in 0..40 {
        let mut rig = rig();
        rig.disk = FakeDisk::new(seed);
        rig.options.tail_bytes_max = if seed % 2 == 0 { 12 << 10 } else { 64 << 10 };
        let (log, _) = rig.open();
        let p = topic(&log, "t", 1, settings())[0].clone();
        let mut random = Random(seed);
        for i in 0..60 {
            add(&p, &mut random, 1_000_000 + i * 100);
            while log.step_commit() {}
            if i == 20 {
                log.step_checkpoint().unwrap();
            }
        }
        let all = scan(&p);
        // The first change of a checkpoint writes what is in memory alone, the second syncs the segment.
        rig.disk.fail_change(rig.disk.changes() + 2, Fault::Eio);
        log.step_checkpoint().unwrap_err();
        for record in &all {
            let expected = all.iter().find(|r| r.timestamp_ms >= record.timestamp_ms).unwrap();
            match p.offset_for_timestamp(record.timestamp_ms) {
                Ok(found) => {
                    assert_eq!(found.map(|f| f.offset.get()), Some(expected.offset), "{seed}");
                    told += 1;
                }
                Err(_) => refused += 1,
            }
        }
        if let Ok(newest) = p.offset_of_max_timestamp() {
            let newest = newest.unwrap();
            let high = all.iter().map(|r| r.timestamp_ms).max().unwrap();
            assert_eq!(newest.timestamp_ms, high, "{seed}");
        }
    }
    assert!(refused > 0 && told > 0, "{refused} refused, {told} told");
}

#[test]
fn indexes_that_are_missing_or_wrong_are_made_again() {
    let mut random = Random(99);
    let rig = rig();
    let (log, p, all) = grown(&rig, &mut random);
    check_labels(&p, &all);
    log.step_close().unwrap();
    drop((p, log));
    for extension in ["index", "timeindex", "labels"] {
        let files = hint_files(&rig, &format!(".{extension}"));
        assert!(files.len() > 2, "{extension}: {files:?}");
        let whole: Vec<Vec<u8>> = files.iter().map(|f| rig.disk.contents(f).unwrap()).collect();
        for damage in 0..12 {
            let mut damaged = Rig { disk: rig.disk.after_kill(), ..self::rig() };
            for (name, bytes) in files.iter().zip(&whole) {
                let mut bytes = bytes.clone();
                let at = random.below(bytes.len() as u64) as usize;
                match damage {
                    0 => {
                        damaged.disk.remove_file(name.as_ref()).unwrap();
                        continue;
                    }
                    1 => bytes.clear(),
                    2 => bytes.truncate(at),
                    3 => bytes.fill(0),
                    4 => bytes = whole[random.below(whole.len() as u64) as usize].clone(),
                    5 => bytes.extend_from_slice(&[7; 24]),
                    6 => bytes.truncate(bytes.len() / 12 / 2 * 12),
                    7 => bytes.truncate(bytes.len() / 8 / 2 * 8),
                    8 => bytes = vec![0xff; bytes.len() * 100],
                    _ => bytes[at] ^= 1 << random.below(8),
                }
                damaged.disk.plant(name, &bytes);
            }
            let (log, _) = damaged.open();
            let p = first(&log);
            assert_eq!(scan(&p), all, "{extension}, damage {damage}");
            check_times(&p, &all);
            check_labels(&p, &all);
            assert!(log.stats().damage.is_empty(), "the log itself is well");
            if damage == 0 {
                let stats = log.stats();
                let made = if extension == "labels" {
                    stats.label_indexes_built
                } else {
                    stats.indexes_rebuilt
                };
                assert!(made >= files.len() as u64 - 1, "{extension}: {stats:?}");
                for (name, bytes) in files.iter().zip(&whole) {
                    let again = damaged.disk.contents(name);
                    // Those below the log start are asked for by nobody.
                    assert!(again.is_none() || again.as_ref() == Some(bytes), "{name}");
                }
            }
            drop((p, log));
            // What was made again is right: it is used as it is.
            damaged.disk = damaged.disk.after_kill();
            let (log, _) = damaged.open();
            assert_eq!(scan(&first(&log)), all);
            check_times(&first(&log), &all);
            check_labels(&first(&log), &all);
            assert_eq!(log.stats().indexes_rebuilt, 0, "{extension}, damage {damage}");
            assert_eq!(log.stats().label_indexes_built, 0, "{extension}, damage {damage}");
        }
    }
}

#[test]
fn a_label_index_of_another_labeller_is_made_again() {
    let mut random = Random(5);
    let mut rig = rig();
    let (log, p, all) = grown(&rig, &mut random);
    check_labels(&p, &all);
    log.step_close().unwrap();
    drop((p, log));
    fn constant<'a>(_: &BatchHeader, record: &RecordView<'a>) -> Option<&'a [u8]> {
        record.key.map(|_| &b"one for all"[..])
    }
    rig.options.labeller = Some(Labeller { id: 8, label: constant });
    rig.disk = rig.disk.after_kill();
    let (log, _) = rig.open();
    let p = first(&log);
    let all = scan(&p).len();
    let hash = [LabelHash::of(b"one for all")];
    let span = span(&p);
    let way = p.next_with_labels(span.start, &hash, ReadLimit::HighWatermark).unwrap();
    assert_eq!(way.next, span.start);
    assert!(log.stats().label_indexes_built > 0 && all > 0);
    let none = [LabelHash::of(b"nobody")];
    let way = p.next_with_labels(span.start, &none, ReadLimit::HighWatermark).unwrap();
    let active = p.segments_and_checkpoint().0.last().unwrap().base();
    assert_eq!(way.next, active, "only what is not sealed may have it");
}

#[test]
fn a_rare_label_is_found_in_few_batches() {
    let mut random = Random(3);
    let rig = rig();
    let (log, _) = rig.open();
    let large = TopicSettings { segment_bytes: 256 << 10, ..settings() };
    let p = topic(&log, "t", 1, large)[0].clone();
    let mut placed = Vec::new();
    for i in 0..6_000 {
        add(&p, &mut random, 1_000_000);
        if i % 1_000 == 500 {
            let record = RecordParts {
                timestamp_ms: 0,
                key: Some(b"rare"),
                value: None,
                headers: Headers::EMPTY,
            };
            placed.push(p.append(&[record]).unwrap().base.offset.get());
        }
        while log.step_commit() {}
        if i % 500 == 0 {
            log.step_checkpoint().unwrap();
            rig.clock.advance_ms(10_000);
            log.step_upkeep();
        }
    }
    let (found, batches) = by_label(&p, &["rare"]);
    assert_eq!(found, placed);
    // The active segment is read as a whole.
    assert!(batches < 1_500, "{batches} of {} batches", 6_000 + placed.len());
    assert!(log.stats().label_indexes_built > 3);
    let built = log.stats().label_indexes_built;
    let files = hint_files(&rig, ".labels");
    for name in &files {
        let log_bytes = rig.disk.contents(name.replace(".labels", ".log")).unwrap().len();
        let bytes = rig.disk.contents(name).unwrap().len();
        assert!(bytes <= log_bytes / 20, "{name}: {bytes} of {log_bytes}");
    }
    assert_eq!(by_label(&p, &["rare"]).0, placed);
    assert_eq!(log.stats().label_indexes_built, built, "built once");
}

#[test]
fn what_cannot_be_read_is_never_passed_over() {
    let mut random = Random(17);
    let rig = rig();
    let (log, p, all) = grown(&rig, &mut random);
    let (segments, _) = p.segments_and_checkpoint();
    log.step_close().unwrap();
    drop((p, log));
    let logs = hint_files(&rig, ".log");
    let name =
        logs.iter().find(|n| n.contains(&format!("{:020}", segments[2].base().get()))).unwrap();
    let bytes = rig.disk.contents(name).unwrap();
    for _ in 0..25 {
        let damaged = Rig { disk: rig.disk.after_kill(), ..self::rig() };
        let mut rotten = bytes.clone();
        rotten[random.below(bytes.len() as u64) as usize] ^= 1 << random.below(8);
        let file = damaged.disk.open(name.as_ref(), OpenMode::Write).unwrap();
        file.write_at(&[IoSlice::new(&rotten)], 0).unwrap();
        for label in hint_files(&damaged, ".labels") {
            damaged.disk.remove_file(label.as_ref()).unwrap();
        }
        let (log, _) = damaged.open();
        let p = first(&log);
        // Where a scan meets damage, a reader by label must meet it too: it looks at each offset that has one, or that is lost.
        let mut lost = Vec::new();
        let mut from = span(&p).start;
        while from < span(&p).end {
            match p.read(from, 1, ReadLimit::HighWatermark) {
                Ok(outcome) => from = outcome.next,
                Err(ReadError::Damaged { first, next_good: Some(next), .. }) => {
                    lost.push((first, next));
                    from = next;
                }
                Err(e) => panic!("{e}"),
            }
        }
        let hash = [LabelHash::of(b"label 29")];
        for (first, next) in lost {
            let way = p.next_with_labels(first, &hash, ReadLimit::HighWatermark).unwrap();
            assert_eq!(way.next, first, "up to {next} is lost: {way:?}");
        }
        for record in all.iter().filter(|r| r.key.as_deref() == Some(b"label 29")) {
            let at = Offset::new(record.offset).unwrap();
            let way = p.next_with_labels(at, &hash, ReadLimit::HighWatermark).unwrap();
            assert_eq!(way.next, at);
        }
    }
}

#[test]
fn a_segment_is_rolled_before_an_index_is_too_large() {
    let rig = rig();
    let (log, _) = rig.open();
    let small = TopicSettings { index_bytes_max: 120, segment_bytes: 10 << 20, ..settings() };
    let p = topic(&log, "t", 1, small)[0].clone();
    let mut random = Random(1);
    for i in 0..4_000 {
        add(&p, &mut random, 1_000 + i);
        if i % 5 == 0 {
            while log.step_commit() {}
        }
    }
    while log.step_commit() {}
    log.step_checkpoint().unwrap();
    let (segments, _) = p.segments_and_checkpoint();
    assert!(segments.len() > 5, "{}", segments.len());
    for extension in ["index", "timeindex"] {
        let sizes: Vec<_> = hint_files(&rig, &format!(".{extension}"))
            .iter()
            .map(|f| rig.disk.contents(f).unwrap().len())
            .collect();
        assert!(sizes.len() >= segments.len() - 1 && sizes.iter().all(|n| *n <= 120), "{sizes:?}");
        assert!(sizes.iter().any(|n| *n >= 64), "not much too early: {sizes:?}");
    }
    let all = scan(&p);
    check_times(&p, &all);
}

#[test]
fn holes_that_compaction_left_are_no_damage() {
    let rig = rig();
    let (log, _) = rig.open();
    let p = topic(&log, "t", 1, settings())[0].clone();
    let mut random = Random(2);
    for i in 0..600 {
        add(&p, &mut random, 1_000 + i);
        while log.step_commit() {}
    }
    log.step_checkpoint().unwrap();
    let all = scan(&p);
    let (segments, _) = p.segments_and_checkpoint();
    log.step_close().unwrap();
    drop((p, log));
    // The middle of a sealed segment goes, and the end of another.
    let mut gone = Vec::new();
    let mut cut = rig.disk.after_kill();
    for (number, keep_end) in [(0, true), (1, false)] {
        let name = hint_files(&rig, ".log")
            .into_iter()
            .find(|n| n.contains(&format!("{:020}", segments[number].base().get())))
            .unwrap();
        let bytes = cut.contents(&name).unwrap();
        let mut batches = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let header = BatchHeader::parse(&bytes[at..]).unwrap();
            batches.push((header, at..at + header.size_bytes()));
            at += header.size_bytes();
        }
        let count = batches.len();
        let taken = if keep_end { count / 3..count / 2 } else { count / 2..count };
        let mut kept = Vec::new();
        for (i, (header, range)) in batches.into_iter().enumerate() {
            if taken.contains(&i) {
                gone.push(header.base_offset..header.last_offset() + 1);
            } else {
                kept.extend_from_slice(&bytes[range]);
            }
        }
        cut.plant(&name, &kept);
        for extension in ["index", "timeindex", "labels"] {
            let _ = cut.remove_file(name.replace("log", extension).as_ref());
        }
    }
    cut = cut.after_kill();
    let rig = Rig { disk: cut, ..self::rig() };
    let (log, _) = rig.open();
    let p = first(&log);
    let (segments, _) = p.segments_and_checkpoint();
    for segment in &segments[..2] {
        segment.set_sparse();
        let name = format!("{:020}.log", segment.base().get());
        let file = rig.disk.files().into_iter().find(|f| f.ends_with(&name)).unwrap();
        segment.shrink_for_test(rig.disk.contents(file).unwrap().len() as u64);
    }
    let left: Vec<Record> =
        all.into_iter().filter(|r| !gone.iter().any(|range| range.contains(&r.offset))).collect();
    assert_eq!(scan(&p), left);
    for range in &gone {
        let from = Offset::new(range.start).unwrap();
        let read = p.read(from, 1, ReadLimit::HighWatermark).unwrap();
        let expected = left.iter().find(|r| r.offset >= range.start).unwrap().offset;
        let records = batch::records(&read.batches[0]).unwrap().map(Result::unwrap);
        assert!(records.map(|r| r.offset).any(|o| o == expected));
    }
    check_labels(&p, &left);
    let wanted = left[left.len() / 2].timestamp_ms;
    let found = p.offset_for_timestamp(wanted).unwrap().unwrap();
    assert_eq!(found.offset.get(), left.iter().find(|r| r.timestamp_ms >= wanted).unwrap().offset);
}
