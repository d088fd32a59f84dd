//! What it costs to mirror a record, in CPU time of the whole process, kernel included.
//!
//! `cargo bench -p headwater-bridge --bench uplink` mirrors a backlog of 1 KB records into a second process, which is
//! Headwater's own Kafka door; `HEADWATER_CENTRE=HOST:PORT` names a real Kafka instead, `HEADWATER_RECORDS` another
//! number of records, `HEADWATER_SMALL=1` batches of 32 records as a quiet site stores them. The backlog is written and synced before the clock starts, so only the uplink works then.

use headwater_bridge::uplink::Uplinks;
use headwater_kafka::server::{Door, DoorSettings, NewTopic, TopicRules};
use headwater_log::clock::{Clock, SystemClock};
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{AppendError, Log, LogOptions, ReadLimit, TopicName};
use rustix::time::{ClockId, clock_gettime};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const PARTITIONS: u32 = 4;
const VALUE_BYTES: usize = 1_000;
/// Records of one append: what one read of a busy connection brings.
const SLICE: usize = 32;
/// Set for the process that plays the centre: its data directory.
const CENTRE: &str = "HEADWATER_BENCH_CENTRE";

/// CPU time of this process, all threads, user and kernel.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn open(dir: &Path) -> Log {
    let options = LogOptions {
        dirs: vec![dir.to_owned()],
        journal_file_bytes: 16 << 20,
        journal_files: 4,
        commit_delay: Duration::ZERO,
        commit_delay_max: Duration::from_millis(100),
        journal_bytes_per_day: None,
        bulk_bytes: 4 << 20,
        uncommitted_bytes_max: 32 << 20,
        tail_bytes_max: 32 << 20,
        memory_sync: Duration::from_secs(1),
        reserved_bytes: 0,
        open_files_max: 256,
        labeller: None,
        producer_id_expiration: Duration::from_secs(86_400),
        topics_max: 100,
        partitions_max: 1_000,
        max_bytes: None,
        min_free: None,
        compaction: Default::default(),
    };
    Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock)).expect("a new log").0
}

fn settings() -> TopicSettings {
    TopicSettings {
        durability: Durability::Fsync,
        retention_ms: None,
        retention_bytes: None,
        segment_bytes: 64 << 20,
        segment_ms: 604_800_000,
        batch_bytes_max: 1_048_588,
        ..TopicSettings::default()
    }
}

struct Anything;

impl TopicRules for Anything {
    fn rule(&self, _name: &TopicName) -> NewTopic {
        NewTopic { partitions: PARTITIONS, settings: settings() }
    }

    fn auto_create(&self, _name: &TopicName) -> bool {
        true
    }

    fn client_may_change(&self, _name: &TopicName) -> Result<(), String> {
        Ok(())
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The other process: a door over a log, until it is killed.
fn serve(dir: &Path) {
    let log = open(dir);
    let running = log.start();
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let door = Door::new(log, DoorSettings::default(), Box::new(Anything));
        let door = door.listening_at("127.0.0.1", port);
        println!("{port}");
        let (_stop, stopping) = tokio::sync::watch::channel(false);
        while let Ok((stream, peer)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket");
            let (door, stopping) = (door.clone(), stopping.clone());
            tokio::spawn(async move { door.serve(stream, peer, stopping).await });
        }
    });
    drop(running);
}

fn start_centre(dir: &Path) -> (Child, String) {
    let exe = std::env::current_exe().expect("a program knows its path");
    let mut child = Command::new(exe)
        .env(CENTRE, dir.join("centre"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts once more");
    let mut port = String::new();
    let output = child.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut port).expect("it says its port");
    (child, format!("127.0.0.1:{}", port.trim()))
}

/// Writes the backlog; answers its batches and bytes.
fn fill(log: &Log, records: u64, small: bool) -> (u64, u64) {
    let name = TopicName::new("telemetry").expect("legal");
    let (topic, _) = log.create_topic(&name, PARTITIONS, settings()).expect("a topic");
    let mut headers = Headers::default();
    headers.push("mqtt.topic", b"plant/line-1/press/temperature");
    let value = [b'x'; VALUE_BYTES];
    let record = RecordParts {
        timestamp_ms: SystemClock.wall_ms(),
        key: Some(b"press-17"),
        value: Some(&value),
        headers: &headers,
    };
    let slice = [record; SLICE];
    let mut written = 0;
    while written < records {
        let partition = &topic.partitions()[(written as usize / SLICE) % PARTITIONS as usize];
        match partition.append(&slice) {
            Ok(appended) => {
                written += SLICE as u64;
                // A commit cycle seals the open batches: one for the last partition of a round.
                let round = written.is_multiple_of(u64::from(PARTITIONS) * SLICE as u64);
                while small && round && partition.positions().synced <= appended.last.offset {
                    std::thread::yield_now();
                }
            }
            Err(AppendError::Busy) => std::thread::sleep(Duration::from_micros(200)),
            Err(e) => panic!("{e}"),
        }
    }
    let (mut batches, mut bytes) = (0, 0);
    for partition in topic.partitions() {
        let end = partition.positions().log_end;
        while partition.positions().synced < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut from = headwater_log::Offset::ZERO;
        while from < end {
            let read = partition.read(from, 1 << 20, ReadLimit::SyncedAndStable).expect("read");
            batches += read.batches.len() as u64;
            bytes += read.batches.iter().map(bytes::Bytes::len).sum::<usize>() as u64;
            from = read.next;
        }
    }
    (batches, bytes)
}

fn main() {
    if let Some(dir) = std::env::var_os(CENTRE) {
        return serve(Path::new(&dir));
    }
    let number = std::env::var("HEADWATER_RECORDS").ok().and_then(|n| n.parse().ok());
    let records: u64 = number.unwrap_or(1_000_000);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut child, centre) = match std::env::var("HEADWATER_CENTRE") {
        Ok(centre) => (None, centre),
        Err(_) => {
            let (child, centre) = start_centre(dir.path());
            (Some(child), centre)
        }
    };
    let site = std::process::id();
    let config = headwater_config::from_toml(&format!(
        "[site]\nname = \"bench-{site}\"\n[[uplink]]\nname = \"dc\"\nbootstrap = [\"{centre}\"]\n\
         topics = [{{ from = \"telemetry\", to = \"{{site}}.telemetry\" }}]\n"
    ))
    .expect("a config");
    let log = open(&dir.path().join("edge"));
    let running = log.start();
    let (batches, bytes) = fill(&log, records, std::env::var_os("HEADWATER_SMALL").is_some());
    println!(
        "backlog: {records} records of {VALUE_BYTES} bytes in {batches} batches, {} MB; centre {centre}",
        bytes / 1_000_000
    );
    let runtime = runtime();
    let mut uplinks = Uplinks::open(&config.uplinks, &log).expect("checkpoints");
    let (cpu_before, before) = (cpu(), SystemClock.monotonic_ns());
    uplinks.start(runtime.handle());
    let left = runtime.block_on(async {
        let (mut acked, mut looks) = (0, 0);
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let status = &uplinks.statuses()[0];
            if status.acked_records >= records {
                return uplinks.shutdown(Duration::from_secs(5)).await;
            }
            looks = if status.acked_records > acked { 0 } else { looks + 1 };
            acked = status.acked_records;
            assert!(looks < 1_000, "no progress for 20 s: {status:#?}");
        }
    });
    let seconds = (SystemClock.monotonic_ns() - before) as f64 / 1e9;
    let spent = (cpu() - cpu_before).as_secs_f64();
    let millions = records as f64 / 1e6;
    println!(
        "mirrored in {seconds:.2} s: {:.0} records/s, {:.2} CPU-s per million records; {} left, {} retries",
        records as f64 / seconds,
        spent / millions,
        left[0].lag_records(),
        left[0].retries
    );
    running.close().expect("the log closes");
    if let Some(child) = &mut child {
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }
}
