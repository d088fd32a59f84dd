//! What a durable append costs: `cargo bench -p headwater-log`.
//!
//! Four tables, each line a few seconds:
//! 1. encoding a record into the open batch, and sealing it;
//! 2. one commit of one batch in each of 1, 16 and 256 partitions, against a bare pwrite + fdatasync of as
//!    many bytes, by turns, on the same disk: the cost per commit should follow the bytes, not the partitions;
//! 3. the same with a file and a sync per partition, which is what a commit would cost without a journal;
//! 4. appends from one thread with the commit thread running: messages acknowledged per second, CPU time each.
//!
//! `HEADWATER_BENCH_DIR` puts the files on another disk, `HEADWATER_BENCH_MS` sets the time per line.
//! Figures are of the machine it runs on: compare lines of one run, not runs.

use headwater_log::batch::{BatchBuilder, Seal};
use headwater_log::clock::{Clock, SystemClock};
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{
    AckPoint, AppendError, LeaderEpoch, Log, LogOptions, Offset, Settled, Topic, TopicName,
};
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn main() {
    // `cargo test --benches` runs this file too, to see that it builds.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let root = std::env::var_os("HEADWATER_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(&root).expect("a directory for the benchmark");
    println!("disk under {}, 2 x {} ms per line\n", root.display(), line_ns() / 1_000_000);
    encoding();
    commits(dir.path());
    threaded(dir.path());
}

fn line_ns() -> u64 {
    let ms = std::env::var("HEADWATER_BENCH_MS").ok().and_then(|text| text.parse().ok());
    ms.unwrap_or(1_500) * 1_000_000
}

fn now_ns() -> u64 {
    SystemClock.monotonic_ns()
}

fn cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Nanoseconds of single runs, sorted.
struct Times(Vec<u64>);

impl Times {
    fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn us(&self, hundredths: usize) -> f64 {
        let at = (self.0.len() * hundredths / 100).min(self.0.len() - 1);
        self.0[at] as f64 / 1_000.0
    }
}

fn parts<'a>(value: &'a [u8], headers: &'a Headers) -> RecordParts<'a> {
    RecordParts {
        timestamp_ms: 1_800_000_000_000,
        key: Some(b"plant/7/line/3"),
        value: Some(value),
        headers,
    }
}

fn encoding() {
    println!("encode into the open batch, seal every 256 records (CRC-32C, no I/O); CPU time");
    println!("{:>10} {:>12} {:>12} {:>10}", "payload B", "push ns", "seal ns/rec", "GB/s");
    for bytes in [64, 256, 1_024] {
        let value = vec![7; bytes];
        let mut headers = Headers::default();
        headers.push("hw", &[1, 0]);
        let mut builder = BatchBuilder::new();
        let (mut push, mut seal, mut records, mut size) = (0, 0, 0u64, 0);
        while push + seal < line_ns() / 4 {
            let start = cpu_ns();
            for _ in 0..256 {
                builder.push(&parts(&value, &headers), 1 << 20).expect("fits");
            }
            let middle = cpu_ns();
            let (base_offset, epoch) = (Offset::ZERO, LeaderEpoch::default());
            let sealed = builder.seal(Seal { base_offset, epoch, node_slot: 0, base_sequence: 0 });
            size += std::hint::black_box(sealed).map_or(0, |batch| batch.len());
            (push, seal, records) =
                (push + middle - start, seal + cpu_ns() - middle, records + 256);
        }
        let per = |ns: u64| ns as f64 / records as f64;
        let rate = size as f64 / (push + seal) as f64;
        println!("{bytes:>10} {:>12.1} {:>12.1} {rate:>10.2}", per(push), per(seal));
    }
    println!();
}

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        dirs: vec![dir.to_owned()],
        journal_file_bytes: 64 << 20,
        journal_files: 4,
        commit_delay: Duration::ZERO,
        uncommitted_bytes_max: 64 << 20,
        tail_bytes_max: 32 << 20,
        memory_sync: Duration::from_secs(1),
        open_files_max: 256,
        topics_max: 100,
        partitions_max: 1_000,
        max_bytes: None,
    }
}

fn topic(log: &Log, partitions: u32) -> Topic {
    let settings = TopicSettings {
        durability: Durability::Fsync,
        retention_ms: None,
        retention_bytes: Some(64 << 20),
        segment_bytes: 16 << 20,
        segment_ms: 3_600_000,
        batch_bytes_max: 1 << 20,
        ..TopicSettings::default()
    };
    let name = TopicName::new("bench").expect("legal");
    log.create_topic(&name, partitions, settings).expect("created").0
}

/// A file as the journal's are: written once with zeros, then over and over.
fn written_file(path: &Path, bytes: u64) -> File {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.expect("a file on the disk");
    let zeros = vec![0; 1 << 20];
    for at in (0..bytes).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).expect("room");
    }
    file.sync_all().expect("synced");
    file
}

fn commits(dir: &Path) {
    println!(
        "one commit: a batch of one record in each partition, then one cycle; us, median and p99"
    );
    println!(
        "{:>8} {:>6} {:>10} {:>15} {:>15} {:>15} {:>6} {:>9} {:>9}",
        "record B",
        "parts",
        "bytes",
        "bare sync",
        "sync per file",
        "headwater",
        "ratio",
        "commits/s",
        "cpu us"
    );
    for bytes in [100, 1 << 10, 64 << 10] {
        for partitions in [1, 16, 256] {
            commit_line(dir, bytes, partitions);
        }
    }
    println!();
}

fn commit_line(dir: &Path, bytes: usize, partitions: u32) {
    let home = dir.join(format!("commit-{bytes}-{partitions}"));
    let (log, _) = Log::open(options(&home), Arc::new(SystemDisk), Arc::new(SystemClock))
        .expect("a new directory");
    let topic = topic(&log, partitions);
    while log.step_commit() {}
    let bare = written_file(&home.join("bare"), 32 << 20);
    let files: Vec<File> = (0..partitions.min(64))
        .map(|i| written_file(&home.join(format!("bare-{i}")), 1 << 20))
        .collect();
    let total = bytes * partitions as usize;
    let block = vec![5; total.next_multiple_of(4096)];
    let value = vec![7; bytes];
    let (mut ours, mut bares, mut each, mut cpu, mut at) = (vec![], vec![], vec![], 0, 0);
    let start = now_ns();
    while now_ns() - start < line_ns() * 2 || ours.len() < 20 {
        let (begin, begin_cpu) = (now_ns(), cpu_ns());
        for partition in topic.partitions() {
            partition.append(&[parts(&value, Headers::EMPTY)]).expect("room");
        }
        while log.step_commit() {}
        ours.push(now_ns() - begin);
        cpu += cpu_ns() - begin_cpu;
        let begin = now_ns();
        bare.write_all_at(&block, at).expect("written");
        bare.sync_data().expect("synced");
        bares.push(now_ns() - begin);
        at = if at + 2 * block.len() as u64 > 32 << 20 { 0 } else { at + block.len() as u64 };
        // Every tenth time is enough for the slow one.
        if ours.len() % 10 == 1 {
            let begin = now_ns();
            let piece = vec![5; bytes.next_multiple_of(4096)];
            for i in 0..partitions as usize {
                let file = &files[i % files.len()];
                file.write_all_at(&piece, (i / files.len() * piece.len()) as u64).expect("written");
                file.sync_data().expect("synced");
            }
            each.push(now_ns() - begin);
        }
        log.step_upkeep();
    }
    let n = ours.len() as f64;
    let (ours, bares, each) = (Times::of(ours), Times::of(bares), Times::of(each));
    let pair = |times: &Times| format!("{:.0} / {:.0}", times.us(50), times.us(99));
    let mean_us = ours.0.iter().sum::<u64>() as f64 / n / 1_000.0;
    println!(
        "{bytes:>8} {partitions:>6} {total:>10} {:>15} {:>15} {:>15} {:>6.2} {:>9.0} {:>9.0}",
        pair(&bares),
        pair(&each),
        pair(&ours),
        ours.us(50) / bares.us(50),
        1e6 / mean_us,
        cpu as f64 / n / 1_000.0,
    );
    drop((topic, log));
    std::fs::remove_dir_all(&home).expect("removed");
}

fn threaded(dir: &Path) {
    println!("commit thread running, one appender, at most 20,000 messages unacknowledged");
    println!(
        "{:>8} {:>6} {:>10} {:>12} {:>9} {:>12} {:>11}",
        "record B", "parts", "per append", "msg/s", "MB/s", "msg/commit", "cpu ns/msg"
    );
    for (bytes, per_append) in [(100, 1), (100, 32), (1 << 10, 1), (1 << 10, 32), (64 << 10, 1)] {
        for partitions in [1, 16, 256] {
            threaded_line(dir, bytes, per_append, partitions);
        }
    }
}

fn threaded_line(dir: &Path, bytes: usize, per_append: usize, partitions: u32) {
    let home = dir.join(format!("threaded-{bytes}-{per_append}-{partitions}"));
    let (log, _) = Log::open(options(&home), Arc::new(SystemDisk), Arc::new(SystemClock))
        .expect("a new directory");
    let topic = topic(&log, partitions);
    let running = log.start();
    let value = vec![7; bytes];
    let records = vec![parts(&value, Headers::EMPTY); per_append];
    let mut waiting = VecDeque::new();
    let (start, start_cpu, before) = (now_ns(), cpu_ns(), log.stats().cycles);
    let mut messages = 0u64;
    let mut turn = 0;
    let settle = |waiting: &mut VecDeque<(usize, _)>, keep: usize| {
        while waiting.len() * per_append > keep {
            let Some(&(partition, position)) = waiting.front() else { return };
            let partition: &Arc<headwater_log::Partition> = &topic.partitions()[partition];
            match partition.settled(AckPoint::Synced, position) {
                Settled::Passed => {
                    waiting.pop_front();
                }
                Settled::Waiting => std::thread::sleep(Duration::from_micros(50)),
                Settled::Lost(loss) => panic!("{loss:?}"),
            }
        }
    };
    while now_ns() - start < line_ns() * 2 {
        let partition = turn % partitions as usize;
        turn += 1;
        match topic.partitions()[partition].append(&records) {
            Ok(appended) => {
                messages += per_append as u64;
                waiting.push_back((partition, appended.last));
                settle(&mut waiting, 20_000);
            }
            Err(AppendError::Busy) => std::thread::sleep(Duration::from_micros(50)),
            Err(error) => panic!("{error}"),
        }
    }
    settle(&mut waiting, 0);
    let (ns, cpu) = ((now_ns() - start) as f64, (cpu_ns() - start_cpu) as f64);
    let cycles = (log.stats().cycles - before).max(1) as f64;
    let n = messages as f64;
    println!(
        "{bytes:>8} {partitions:>6} {per_append:>10} {:>12.0} {:>9.1} {:>12.1} {:>11.0}",
        n / ns * 1e9,
        n * bytes as f64 / ns * 1e3,
        n / cycles,
        cpu / n,
    );
    running.close().expect("closed");
    drop((topic, log));
    std::fs::remove_dir_all(&home).expect("removed");
}
