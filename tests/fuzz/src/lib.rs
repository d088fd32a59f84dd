//! A small data directory on the fake disk: what the `directory` target changes, and where seeds of the files come from.

use headwater_log::clock::fake::FakeClock;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::metadata::TopicSettings;
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{Log, LogOptions, TopicName};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Partitions of the topic.
pub const PARTITIONS: usize = 2;

/// A ring of small files.
#[must_use]
pub fn options() -> LogOptions {
    LogOptions {
        dirs: vec![PathBuf::from("/data")],
        journal_file_bytes: 32 << 10,
        journal_files: 3,
        commit_delay: Duration::ZERO,
        bulk_bytes: 4 << 20,
        uncommitted_bytes_max: 1 << 20,
        tail_bytes_max: 8 << 10,
        memory_sync: Duration::from_secs(1),
        topics_max: 100,
        partitions_max: 1_000,
        max_bytes: None,
        min_free: None,
        ..LogOptions::default()
    }
}

/// What the record at an offset holds.
#[must_use]
pub fn value(partition: i32, offset: i64) -> String {
    format!("{partition}/{offset} {}", "v".repeat(20))
}

/// Two partitions with a checkpoint behind some segments, and cycles behind it.
#[must_use]
pub fn populated() -> FakeDisk {
    let disk = FakeDisk::new(1);
    let clock = Arc::new(FakeClock::new(1_800_000_000_000));
    let (log, _) = Log::open(options(), Arc::new(disk.clone()), clock).expect("a new directory");
    let settings = TopicSettings { segment_bytes: 2 << 10, ..TopicSettings::default() };
    let name = TopicName::new("t").expect("legal");
    let (topic, _) = log.create_topic(&name, PARTITIONS as u32, settings).expect("it is new");
    for round in 0..40 {
        for partition in topic.partitions() {
            for _ in 0..2 {
                let offset = partition.positions().log_end.get();
                let value = value(partition.id().get(), offset);
                let record = RecordParts {
                    timestamp_ms: 1_800_000_000_000 + offset,
                    key: Some(b"k"),
                    value: Some(value.as_bytes()),
                    headers: Headers::EMPTY,
                };
                partition.append(&[record]).expect("there is room");
            }
        }
        log.step_commit();
        if round == 30 {
            log.step_checkpoint().expect("the disk is well");
        }
    }
    disk
}
