//! Ten thousand partitions and a thousand descriptors: a real process under `ulimit -n` appends to all, rolls, and reads all back;
//! it ends in the middle of a life, with a tenth of the partitions in the ring, and the next one starts from that in little memory.
//!
//! The normal run has 2,000 partitions under 256 descriptors; `HEADWATER_PARTITIONS=10000` runs the full size under 1,024.

use crate::sim::{options, settings};
use headwater_log::batch;
use headwater_log::clock::SystemClock;
use headwater_log::disk::{DirEntry, Disk, DiskFile, Lock, OpenMode, Space, SystemDisk};
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{Log, LogOptions, Offset, Partition, ReadLimit, Recovery, TopicName};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const CHILD: &str = "HEADWATER_HANDLES_DIR";
/// Set in the process that starts from what the first one left.
const AGAIN: &str = "HEADWATER_HANDLES_AGAIN";
/// One partition of so many has a record more than the last checkpoint knows of.
const ACTIVE_EVERY: usize = 10;
/// What a start may take at its height: for each partition, and besides (a catalog as it is read and as it is written, a cycle).
const PEAK_BYTES_PER_PARTITION: usize = 6 << 10;
const PEAK_BYTES: usize = 16 << 20;
/// Rounds of appends; a segment is full after two.
const ROUNDS: i64 = 3;

/// The machine's disk without its syncs, of which there are thousands here and which are not what this is about.
#[derive(Debug)]
struct Unsynced;

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn DiskFile>);

impl Disk for Unsynced {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(SystemDisk.open(path, mode)?)))
    }
    fn map(&self, path: &Path, bytes_max: u64) -> io::Result<headwater_log::disk::Map> {
        SystemDisk.map(path, bytes_max)
    }
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Lock> {
        SystemDisk.lock(path, holder)
    }
    fn lock_shared(&self, path: &Path) -> io::Result<Lock> {
        SystemDisk.lock_shared(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        SystemDisk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove_dir(path)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        SystemDisk.list(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        SystemDisk.space(path)
    }
    fn machine_id(&self) -> Option<[u8; 16]> {
        SystemDisk.machine_id()
    }
    fn random_id(&self) -> io::Result<[u8; 16]> {
        SystemDisk.random_id()
    }
}

impl DiskFile for UnsyncedFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buf, at)
    }
    fn write_at(&self, bufs: &[IoSlice<'_>], at: u64) -> io::Result<()> {
        self.0.write_at(bufs, at)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn reserve(&self, at: u64, len: u64) -> io::Result<()> {
        self.0.reserve(at, len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn size_bytes(&self) -> io::Result<u64> {
        self.0.size_bytes()
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn many_partitions_need_few_descriptors() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = PathBuf::from(dir);
        return if std::env::var_os(AGAIN).is_some() { live_again(&dir) } else { live(&dir) };
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limit = if number("HEADWATER_PARTITIONS", 2_000) > 2_000 { 1_024 } else { 256 };
    let exe = std::env::current_exe().expect("this program");
    for again in [false, true] {
        let mut child = Command::new("sh");
        child
            .args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")])
            .arg(&exe)
            .args(["--exact", "handles::many_partitions_need_few_descriptors", "--nocapture"])
            .env(CHILD, dir.path())
            .env("HEADWATER_HANDLES", limit.to_string());
        if again {
            child.env(AGAIN, "yes");
        }
        let output = child.output().expect("a shell");
        let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        assert!(output.status.success(), "{}{}", said[0], said[1]);
        assert!(said[0].contains("1 passed"), "it ran: {}", said[0]);
        said[0]
            .lines()
            .filter(|line| line.starts_with("start"))
            .for_each(|line| println!("{line}"));
    }
}

fn open(dir: &Path) -> (Log, Recovery) {
    let options = LogOptions {
        dirs: vec![dir.to_owned()],
        journal_file_bytes: 8 << 20,
        bulk_bytes: 4 << 20,
        uncommitted_bytes_max: 256 << 20,
        tail_bytes_max: 1 << 20,
        open_files_max: number("HEADWATER_HANDLES", 256) / 4,
        partitions_max: 20_000,
        ..options()
    };
    Log::open(options, Arc::new(Unsynced), Arc::new(SystemClock)).expect("opens")
}

/// What the process under the limit does.
fn live(dir: &Path) {
    let (partitions, handles) =
        (number("HEADWATER_PARTITIONS", 2_000), number("HEADWATER_HANDLES", 256));
    let (log, _) = open(dir);
    let name = TopicName::new("wide").expect("legal");
    let settings = TopicSettings { segment_bytes: 1_500, ..settings(Durability::Fsync) };
    let count = u32::try_from(partitions).expect("few enough");
    let (topic, _) = log.create_topic(&name, count, settings).expect("created");
    for round in 0..ROUNDS {
        for (i, partition) in topic.partitions().iter().enumerate() {
            append(partition, &value(i, round), round);
        }
        while log.step_commit() {}
        log.step_checkpoint().expect("a checkpoint");
    }
    check(&log, topic.partitions(), handles, |_| ROUNDS);
    log.step_close().expect("closed");
    drop((topic, log));
    let (log, _) = open(dir);
    let topic = log.topic("wide").expect("there");
    check(&log, topic.partitions(), handles, |_| ROUNDS);
    for (i, partition) in topic.partitions().iter().enumerate().step_by(ACTIVE_EVERY) {
        append(partition, &value(i, ROUNDS), ROUNDS);
    }
    while log.step_commit() {}
}

/// What the next process does under the limit.
fn live_again(dir: &Path) {
    let before = memory_bytes("VmRSS:");
    let (log, recovery) = open(dir);
    let peak = memory_bytes("VmHWM:").saturating_sub(before);
    let topic = log.topic("wide").expect("there");
    let count = topic.partitions().len();
    println!(
        "start with {count} partitions, {} of them in the ring: {} ms, {} KiB of memory at its height, {} files open",
        count.div_ceil(ACTIVE_EVERY),
        recovery.took.as_millis(),
        peak >> 10,
        std::fs::read_dir("/proc/self/fd").expect("Linux").count()
    );
    assert!(recovery.unclean && recovery.cycles_replayed > 0, "{recovery:?}");
    assert!(peak <= count * PEAK_BYTES_PER_PARTITION + PEAK_BYTES, "{peak} bytes");
    let rounds = |i: usize| ROUNDS + i64::from(i.is_multiple_of(ACTIVE_EVERY));
    check(&log, topic.partitions(), number("HEADWATER_HANDLES", 256), rounds);
}

/// Resident memory of this process, as proc(5) calls it by `name`.
fn memory_bytes(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

fn value(partition: usize, round: i64) -> Vec<u8> {
    format!("{partition} {round} {}", "x".repeat(500)).into_bytes()
}

fn append(partition: &Partition, value: &[u8], timestamp_ms: i64) {
    let record =
        RecordParts { timestamp_ms, key: None, value: Some(value), headers: Headers::EMPTY };
    partition.append(&[record]).expect("room");
}

/// Every record of every partition is read, and found by its time.
fn check(log: &Log, partitions: &[Arc<Partition>], handles: usize, rounds: impl Fn(usize) -> i64) {
    for (i, partition) in partitions.iter().enumerate() {
        let mut from = Offset::ZERO;
        for round in 0..rounds(i) {
            let read = partition.read(from, 1, ReadLimit::HighWatermark).expect("readable");
            let records = batch::records(&read.batches[0]).expect("readable");
            let values: Vec<_> = records.map(|r| r.expect("whole").value).collect();
            assert_eq!(values, [Some(value(i, round).into())], "{partition:?}");
            let found = partition.offset_for_timestamp(round).expect("found");
            assert_eq!(found.map(|f| f.offset), Some(from));
            from = read.next;
        }
        assert_eq!(from, partition.positions().high_watermark);
        let open = log.stats().open_files;
        assert!(open <= handles as u64 / 4, "{open} files are kept open");
    }
    assert!(log.stats().offline.is_none());
}
