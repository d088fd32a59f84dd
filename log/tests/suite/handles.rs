//! Ten thousand partitions and a thousand descriptors: a real process under `ulimit -n` appends to all, rolls, and reads all back.
//!
//! The normal run has 2,000 partitions under 256 descriptors; `HEADWATER_PARTITIONS=10000` runs the full size under 1,024.

use crate::sim::{options, settings};
use headwater_log::batch;
use headwater_log::clock::SystemClock;
use headwater_log::disk::{DirEntry, Disk, DiskFile, Lock, OpenMode, Space, SystemDisk};
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{Log, LogOptions, Offset, Partition, ReadLimit, TopicName};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const CHILD: &str = "HEADWATER_HANDLES_DIR";
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
        return live(&PathBuf::from(dir));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limit = if number("HEADWATER_PARTITIONS", 2_000) > 2_000 { 1_024 } else { 256 };
    let exe = std::env::current_exe().expect("this program");
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")])
        .arg(exe)
        .args(["--exact", "handles::many_partitions_need_few_descriptors", "--nocapture"])
        .env(CHILD, dir.path())
        .env("HEADWATER_HANDLES", limit.to_string())
        .output()
        .expect("a shell");
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    assert!(output.status.success(), "{}{}", said[0], said[1]);
    assert!(said[0].contains("1 passed"), "it ran: {}", said[0]);
}

/// What the process under the limit does.
fn live(dir: &Path) {
    let (partitions, handles) =
        (number("HEADWATER_PARTITIONS", 2_000), number("HEADWATER_HANDLES", 256));
    let options = LogOptions {
        dirs: vec![dir.to_owned()],
        journal_file_bytes: 8 << 20,
        bulk_bytes: 4 << 20,
        uncommitted_bytes_max: 256 << 20,
        tail_bytes_max: 1 << 20,
        open_files_max: handles / 4,
        partitions_max: 20_000,
        ..options()
    };
    let open = || {
        let opened = Log::open(options.clone(), Arc::new(Unsynced), Arc::new(SystemClock));
        opened.expect("opens").0
    };
    let log = open();
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
    check(&log, topic.partitions(), handles);
    log.step_close().expect("closed");
    drop((topic, log));
    let log = open();
    check(&log, log.topic("wide").expect("there").partitions(), handles);
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
fn check(log: &Log, partitions: &[Arc<Partition>], handles: usize) {
    for (i, partition) in partitions.iter().enumerate() {
        let mut from = Offset::ZERO;
        for round in 0..ROUNDS {
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
