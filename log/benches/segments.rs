//! Reading segments: what the CRC of every read costs, and what the label index saves. `cargo bench -p headwater-log --bench
//! segments`.
//!
//! 1. A log of 10 million records of 64 bytes in 64 MiB segments, page cache warm, read in pieces of 1 MiB as Fetch does; beside
//!    it the same bytes by pread alone, and their CRC alone: the cost of checking every read.
//! 2. A session that is owed 1,000 of the 10 million, by label: found through the label indexes by a process that has just
//!    opened the log, with the files out of the page cache and in it; beside it the scan that it saves.
//!
//! `HEADWATER_BENCH_DIR` puts the files on another disk, `HEADWATER_BENCH_RECORDS` makes fewer records.
//! Figures are of the machine it runs on: compare lines of one run, not runs.

use headwater_log::batch::{self, BatchHeader, RecordView};
use headwater_log::clock::{Clock, SystemClock};
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{
    LabelHash, Labeller, Log, LogOptions, Offset, Partition, ReadLimit, TopicName,
};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PAYLOAD_BYTES: usize = 64;
const LABELS: u64 = 10_000;
const HITS: u64 = 1_000;
const READ_BYTES: usize = 1 << 20;

fn label<'a>(_: &BatchHeader, record: &RecordView<'a>) -> Option<&'a [u8]> {
    record.key
}

fn main() {
    // `cargo test --benches` runs this file too, to see that it builds.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let root = std::env::var_os("HEADWATER_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(&root).expect("a directory for the benchmark");
    let records = std::env::var("HEADWATER_BENCH_RECORDS").ok();
    let records = records.and_then(|text| text.parse().ok()).unwrap_or(10_000_000);
    let log_bytes = fill(dir.path(), records);
    throughput(dir.path(), log_bytes);
    labels(dir.path(), records);
}

fn now_ns() -> u64 {
    SystemClock.monotonic_ns()
}

/// CPU time of the process: what other programs take of the machine does not count.
fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

fn open(dir: &Path) -> (Log, Arc<Partition>) {
    let options = LogOptions {
        dirs: vec![dir.join("log")],
        journal_file_bytes: 16 << 20,
        journal_files: 2,
        tail_bytes_max: 1 << 20,
        labeller: Some(Labeller { id: 1, label }),
        ..LogOptions::default()
    };
    let opened = Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock));
    let log = opened.expect("the directory opens").0;
    let name = TopicName::new("bench").expect("legal");
    let settings = TopicSettings {
        durability: Durability::Memory,
        retention_ms: None,
        segment_bytes: 64 << 20,
        ..TopicSettings::default()
    };
    let topic =
        log.topic("bench").or_else(|| log.create_topic(&name, 1, settings).ok().map(|t| t.0));
    let partition = Arc::clone(&topic.expect("made").partitions()[0]);
    (log, partition)
}

/// Writes the records; returns the bytes of log.
fn fill(dir: &Path, records: u64) -> u64 {
    let (log, partition) = open(dir);
    let keys: Vec<String> = (0..=LABELS).map(|i| format!("plant/7/line/{i}/state")).collect();
    let value = [7; PAYLOAD_BYTES];
    let (start, every) = (now_ns(), (records / HITS).max(1));
    for at in (0..records).step_by(256) {
        let part: Vec<RecordParts<'_>> = (at..(at + 256).min(records))
            .map(|i| {
                // The label that is asked for comes once in so many; the others in no order.
                let key = if i % every == every / 2 {
                    LABELS
                } else {
                    (i.wrapping_mul(2_654_435_761) >> 7) % LABELS
                };
                RecordParts {
                    timestamp_ms: 1_800_000_000_000 + i as i64,
                    key: Some(keys[key as usize].as_bytes()),
                    value: Some(&value),
                    headers: Headers::EMPTY,
                }
            })
            .collect();
        partition.append(&part).expect("room");
        while log.step_commit() {}
    }
    let bytes = partition.size_bytes();
    let seconds = (now_ns() - start) as f64 / 1e9;
    println!(
        "{records} records, payloads of {PAYLOAD_BYTES} B, {LABELS} labels, batches of 256: {:.2} GB of log, written in {seconds:.1} s",
        bytes as f64 / 1e9
    );
    log.step_close().expect("closed");
    bytes
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let topics = std::fs::read_dir(dir.join("log/topics")).expect("there").flatten();
    let mut found: Vec<PathBuf> = topics
        .flat_map(|topic| std::fs::read_dir(topic.path()).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

/// The best of three runs, bytes per nanosecond of CPU time.
fn best(mut run: impl FnMut() -> u64) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = cpu_ns();
        let bytes = std::hint::black_box(run());
        best = best.min((cpu_ns() - start) as f64 / bytes as f64);
    }
    1.0 / best
}

fn throughput(dir: &Path, log_bytes: u64) {
    let logs = files(dir, "log");
    let mut buffer = vec![0; READ_BYTES];
    let pread = best(|| {
        let mut bytes = 0;
        for path in &logs {
            let file = File::open(path).expect("there");
            let mut at = 0;
            while let Ok(n @ 1..) = file.read_at(&mut buffer, at) {
                at += n as u64;
            }
            bytes += at;
        }
        assert!(bytes >= log_bytes, "all of it");
        bytes
    });
    let crc = best(|| {
        for _ in 0..200 {
            std::hint::black_box(crc_of(&buffer));
        }
        200 * buffer.len() as u64
    });
    let (log, partition) = open(dir);
    let reader = best(|| {
        let end = partition.positions().high_watermark;
        let (mut from, mut bytes) = (Offset::ZERO, 0);
        while from < end {
            let read =
                partition.read(from, READ_BYTES, ReadLimit::HighWatermark).expect("readable");
            bytes += read.batches.iter().map(|b| b.len() as u64).sum::<u64>();
            from = read.next;
        }
        bytes
    });
    let unchecked = 1.0 / (1.0 / reader - 1.0 / crc);
    println!(
        "\npage cache warm, GB per second of CPU time: pread of 1 MiB {pread:.2}, CRC-32C alone {crc:.2}, the log's reader, CRC of every batch {reader:.2}, and without the CRC {unchecked:.2}"
    );
    log.step_close().expect("closed");
}

/// The CRC of a batch that is all of `bytes`: what verifying computes.
fn crc_of(bytes: &[u8]) -> bool {
    let mut header = [0; batch::HEADER_BYTES];
    header[16] = 2;
    // Not a batch: the checks refuse it, so the CRC is taken of the bytes themselves.
    BatchHeader::parse(&header).is_err() && crc_fast::crc32_iscsi(bytes) == 0
}

/// Takes the files out of the page cache, as far as the kernel lets go.
fn forget(dir: &Path) {
    for extension in ["log", "index", "timeindex", "labels"] {
        for path in files(dir, extension) {
            let file = File::open(path).expect("there");
            file.sync_all().expect("synced");
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}

/// Reads what may have the label: (records found, batches read, bytes read).
fn look(partition: &Partition, name: &[u8]) -> (u64, u64, u64) {
    let end = partition.positions().high_watermark;
    let hash = [LabelHash::of(name)];
    let (mut from, mut hits, mut batches, mut bytes) = (Offset::ZERO, 0, 0, 0);
    while from < end {
        let way =
            partition.next_with_labels(from, &hash, ReadLimit::HighWatermark).expect("readable");
        let mut at = way.next;
        while at < way.until {
            // What no index tells of, the segment that still grows, is read in large pieces; a block batch by batch.
            let bytes_max = if way.until == end { READ_BYTES } else { 1 };
            let read = partition.read(at, bytes_max, ReadLimit::HighWatermark).expect("readable");
            for batch in &read.batches {
                batches += 1;
                bytes += batch.len() as u64;
                let mut records = batch::records(batch).expect("readable");
                while let Some(Ok(view)) = records.next_view() {
                    hits += u64::from(view.key == Some(name));
                }
            }
            at = read.next;
        }
        from = way.until;
    }
    (hits, batches, bytes)
}

fn labels(dir: &Path, records: u64) {
    let name = format!("plant/7/line/{LABELS}/state").into_bytes();
    {
        // The first look builds what the upkeep has not.
        let (log, partition) = open(dir);
        let start = cpu_ns();
        std::hint::black_box(look(&partition, b"nobody's label"));
        let sealed: u64 = files(dir, "labels").len() as u64;
        let log_bytes: u64 =
            files(dir, "log").iter().filter_map(|p| Some(p.metadata().ok()?.len())).sum();
        let index_bytes: u64 =
            files(dir, "labels").iter().filter_map(|p| Some(p.metadata().ok()?.len())).sum();
        let seconds = (cpu_ns() - start) as f64 / 1e9;
        println!(
            "\nlabel indexes of {sealed} segments: built in {seconds:.2} s of CPU time ({:.0} MB/s of log), {:.2} % of the log",
            log_bytes as f64 / seconds / 1e6,
            index_bytes as f64 * 100.0 / log_bytes as f64
        );
        log.step_close().expect("closed");
    }
    println!(
        "{:<32} {:>9} {:>9} {:>8} {:>10} {:>8}",
        format!("{HITS} of {records} by label"),
        "ms",
        "cpu ms",
        "found",
        "batches",
        "MB read"
    );
    let line = |what: &str, partition: &Partition| {
        let (start, start_cpu) = (now_ns(), cpu_ns());
        let (hits, batches, bytes) = look(partition, &name);
        let (ms, cpu_ms) = ((now_ns() - start) as f64 / 1e6, (cpu_ns() - start_cpu) as f64 / 1e6);
        let mb = bytes as f64 / 1e6;
        println!("{what:<32} {ms:>9.1} {cpu_ms:>9.1} {hits:>8} {batches:>10} {mb:>8.1}");
        assert_eq!(hits, records / (records / HITS).max(1));
    };
    forget(dir);
    {
        let (log, partition) = open(dir);
        line("opened anew, files not cached", &partition);
        line("again", &partition);
        log.step_close().expect("closed");
    }
    let (log, partition) = open(dir);
    line("opened anew, files cached", &partition);
    let (start, start_cpu) = (now_ns(), cpu_ns());
    let (mut from, mut hits) = (Offset::ZERO, 0);
    while from < partition.positions().high_watermark {
        let read = partition.read(from, READ_BYTES, ReadLimit::HighWatermark).expect("readable");
        for batch in &read.batches {
            let mut records = batch::records(batch).expect("readable");
            while let Some(Ok(view)) = records.next_view() {
                hits += u64::from(view.key == Some(&name[..]));
            }
        }
        from = read.next;
    }
    let (ms, cpu_ms) = ((now_ns() - start) as f64 / 1e6, (cpu_ns() - start_cpu) as f64 / 1e6);
    println!("{:<32} {ms:>9.1} {cpu_ms:>9.1} {hits:>8}", "the scan it saves, cached");
    log.step_close().expect("closed");
}
