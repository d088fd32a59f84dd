//! The files of a partition are Kafka's: its own dump tool reads ours, and we read those of its broker.

use bytes::{Bytes, BytesMut};
use headwater_log::batch::compression::{Codec, Compression};
use headwater_log::batch::marker::{EndTransaction, TransactionMarker};
use headwater_log::batch::{self, BatchBuilder, BatchHeader, Seal};
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Cleanup, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{Log, LogOptions, Partition, TopicName};
use headwater_tests::files::TestDir;
use headwater_tests::kafka::{Kafka, Stop, VERSIONS};
use headwater_tests::tools;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
/// Batches of each kind, and records in one: enough for index entries and several segments.
const BATCHES: usize = 24;
const RECORDS: usize = 40;
const TIMESTAMP_MS: i64 = 1_800_000_000_000;

fn kafka_name(codec: Codec) -> &'static str {
    if codec == Codec::None { "none" } else { codec.name() }
}

/// Records that compress to about half; every one its own key, or the same few over and over.
fn records(batch: usize, keys: usize) -> Vec<(String, String)> {
    let noise = |n: usize| (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let value = |n: usize| {
        let words = (0..8).map(|word| format!("{:016x}", noise(n * 8 + word)));
        format!("value {n} {}", words.collect::<String>())
    };
    let numbers = batch * RECORDS..(batch + 1) * RECORDS;
    numbers.map(|n| (format!("key-{}", n % keys), value(n))).collect()
}

fn parts<'a>(records: &'a [(String, String)], first: usize) -> Vec<RecordParts<'a>> {
    let part = |(i, (key, value)): (usize, &'a (String, String))| RecordParts {
        timestamp_ms: TIMESTAMP_MS + (first + i) as i64,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        headers: Headers::EMPTY,
    };
    records.iter().enumerate().map(part).collect()
}

/// A batch as a client sends it.
fn client_batch(
    number: usize,
    codec: Codec,
    producer: (i64, i32),
    transactional: bool,
) -> BytesMut {
    let records = records(number, usize::MAX);
    let mut builder = BatchBuilder::new();
    for record in parts(&records, number * RECORDS) {
        builder.push(&record, usize::MAX).expect("no limit");
    }
    let plain = builder.seal(Seal::default()).expect("not empty");
    let compressed = batch::compressed(&plain, Compression { codec, level: None });
    let mut bytes = BytesMut::from(compressed.as_deref().unwrap_or(&plain));
    batch::readdress(&mut bytes, producer.0, 0, producer.1);
    if transactional {
        bytes[22] |= 0x10;
        let crc = crc_fast::crc32_iscsi(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    bytes
}

fn partition(log: &Log, name: &str, settings: &TopicSettings) -> Arc<Partition> {
    let name = TopicName::new(name).expect("legal");
    let (topic, _) = log.create_topic(&name, 1, settings.clone()).expect("it is new");
    topic.partitions()[0].clone()
}

fn commit(log: &Log) {
    while log.step_commit() {}
}

/// Topics of every kind of batch: made here, of clients, of transactions, and what compaction leaves.
fn populate(log: &Log) {
    let settings = TopicSettings { segment_bytes: 24 << 10, ..TopicSettings::default() };
    for codec in CODECS {
        let compression = Compression { codec, level: None };
        let of = TopicSettings { compression, ..settings.clone() };
        let here = partition(log, &format!("here-{}", kafka_name(codec)), &of);
        let client = partition(log, &format!("client-{}", kafka_name(codec)), &settings);
        for number in 0..BATCHES {
            let records = records(number, usize::MAX);
            here.append(&parts(&records, number * RECORDS)).expect("there is room");
            let producer = (9, (number * RECORDS) as i32);
            client.append_batch(client_batch(number, codec, producer, false)).expect("legal");
            commit(log);
        }
    }
    let transactions = partition(log, "transactions", &settings);
    for number in 0..BATCHES {
        let producer = (77, (number * RECORDS) as i32);
        transactions.append_batch(client_batch(number, Codec::Lz4, producer, true)).expect("legal");
        let marker = TransactionMarker {
            producer_id: 77,
            producer_epoch: 0,
            end: EndTransaction { commit: number % 3 != 0, coordinator_epoch: 1 },
            bumps_epoch: false,
            timestamp_ms: TIMESTAMP_MS,
        };
        transactions.append_marker(&marker).expect("it is open");
        commit(log);
    }
    let compact = TopicSettings {
        cleanup: Cleanup::Compact,
        dirty_ratio_permille: 0,
        compression: Compression { codec: Codec::Zstd, level: None },
        ..settings
    };
    let compacted = partition(log, "compacted", &compact);
    for number in 0..BATCHES {
        let records = records(number, 300);
        compacted.append(&parts(&records, number * RECORDS)).expect("there is room");
        commit(log);
    }
}

fn open(dir: &Path) -> Log {
    let options = LogOptions { dirs: vec![dir.to_owned()], ..LogOptions::default() };
    Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock)).expect("it opens").0
}

/// Files with this extension, by topic, in order.
fn files(topics: &Path, extension: &str) -> BTreeMap<String, Vec<PathBuf>> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for folder in std::fs::read_dir(topics).expect("it is there") {
        let folder = folder.expect("readable").path();
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        if !folder.is_dir() || name.starts_with("__") {
            continue;
        }
        let topic = name.rsplit_once('-').map_or(name.clone(), |(topic, _)| topic.to_owned());
        let mut of_topic: Vec<PathBuf> = std::fs::read_dir(&folder)
            .expect("readable")
            .map(|file| file.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .collect();
        of_topic.sort();
        found.entry(topic).or_default().extend(of_topic);
    }
    found
}

fn dump(version: &str, files: &[PathBuf], options: &[&str]) -> String {
    let class = if version.starts_with('3') {
        "kafka.tools.DumpLogSegments"
    } else {
        "org.apache.kafka.tools.DumpLogSegments"
    };
    let list: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    tools::run(Kafka::class_of(version, class).args(options).arg("--files").arg(list.join(",")))
}

/// Whether a part of the tool's output is of a file of this topic.
fn is_of(part: &str, topic: &str) -> bool {
    part.lines().next().is_some_and(|path| path.contains(&format!("/{topic}-0.")))
}

/// Checks what the tool says of one topic's segments: all batches valid, of this codec, and every record there.
fn check_dump(version: &str, topic: &str, said: &str, codec: &str, records: usize) {
    assert!(!said.contains("isvalid: false"), "{version} {topic}: {said}");
    assert!(!said.contains("Found mismatches"), "{version} {topic}: {said}");
    let lines = |what: &str| said.lines().filter(|line| line.contains(what)).count();
    assert!(lines("isvalid: true") > 0, "{version} {topic}: {said}");
    let of_codec = said.lines().filter(|line| {
        line.contains("baseOffset:")
            && line.to_lowercase().contains(&format!("compresscodec: {codec} "))
    });
    assert!(of_codec.count() > 0, "{version} {topic}: none is {codec}: {said}");
    assert_eq!(lines("payload: value"), records, "{version} {topic}");
}

#[test]
fn kafkas_dump_tool_reads_every_file_of_ours() {
    let dir = TestDir::new("kafka-files");
    let log = open(dir.path());
    populate(&log);
    log.step_checkpoint().expect("the disk is well");
    log.step_upkeep();
    while log.step_compaction() {
        commit(&log);
    }
    log.step_upkeep();
    log.step_close().expect("the disk is well");
    let topics = dir.path().join("topics");
    let logs = files(&topics, "log");
    for version in VERSIONS {
        let every: Vec<PathBuf> = logs.values().flatten().cloned().collect();
        let said = dump(version, &every, &["--deep-iteration", "--print-data-log"]);
        for (topic, logs) in &logs {
            let codec = match topic.split_once('-') {
                Some((_, codec)) => codec,
                None if topic == "transactions" => "lz4",
                None => "zstd",
            };
            assert!(logs.len() > 1, "{topic} has several segments: {logs:?}");
            let said: String = said.split("Dumping ").filter(|part| is_of(part, topic)).collect();
            let all = BATCHES * RECORDS;
            match topic.as_str() {
                "compacted" => {
                    let left = said.lines().filter(|l| l.contains("payload: value")).count();
                    assert!((300..all).contains(&left), "{version}: {left} are left");
                    check_dump(version, topic, &said, codec, left);
                }
                "transactions" => {
                    check_dump(version, topic, &said, codec, all);
                    let ends = |kind| said.lines().filter(|l| l.contains(kind)).count();
                    assert_eq!(ends("endTxnMarker: COMMIT"), BATCHES - BATCHES.div_ceil(3));
                    assert_eq!(ends("endTxnMarker: ABORT"), BATCHES.div_ceil(3));
                }
                _ => check_dump(version, topic, &said, codec, all),
            }
        }
        let all = |extension| files(&topics, extension).into_values().flatten().collect::<Vec<_>>();
        for (extension, options) in [
            ("index", &["--index-sanity-check"][..]),
            ("index", &["--verify-index-only"]),
            ("timeindex", &[]),
        ] {
            let files = all(extension);
            assert!(files.len() > 10, "{extension}: {files:?}");
            let said = dump(version, &files, options);
            assert!(!said.contains("Found") && !said.contains("mismatch"), "{version}: {said}");
            if options == ["--index-sanity-check"] {
                // Compaction leaves segments too small for an entry.
                let well = said.matches("passed sanity check").count();
                assert_eq!(well + said.matches(" is empty.").count(), files.len(), "{said}");
            }
        }
        let aborted = dump(version, &all("txnindex"), &[]);
        // Those of the active segment are listed when it is sealed.
        let listed = aborted.matches("producerId: 77").count();
        assert!((BATCHES.div_ceil(3) - 1..=BATCHES.div_ceil(3)).contains(&listed), "{aborted}");
        let snapshots = dump(version, &all("snapshot"), &[]);
        assert!(snapshots.contains("producerId: 77 producerEpoch: 0"), "{snapshots}");
    }
}

/// Whole batches of a segment file, up to its preallocated end.
fn batches(log: &Path) -> Vec<Bytes> {
    let mut rest = Bytes::from(std::fs::read(log).expect("readable"));
    let mut batches = Vec::new();
    while let Ok(header) = BatchHeader::parse(&rest) {
        let one = rest.split_to(header.size_bytes());
        batch::verify(&one).expect("Kafka's batches are whole");
        batches.push(one);
    }
    assert!(rest.iter().all(|byte| *byte == 0), "{}: what is left is no batch", log.display());
    batches
}

#[test]
fn segments_of_a_real_broker_are_read_with_every_codec() {
    for version in VERSIONS {
        let mut kafka = Kafka::start(version);
        let server = format!("bootstrap.servers={}", kafka.address());
        for codec in CODECS {
            let topic = format!("theirs-{}", kafka_name(codec));
            let compression = format!("compression.type={}", kafka_name(codec));
            tools::run(
                kafka
                    .class("org.apache.kafka.tools.ProducerPerformance")
                    .args(["--topic", &topic, "--num-records", "2000", "--record-size", "300"])
                    .args(["--throughput", "-1", "--producer-props", &server, &compression])
                    .args(["acks=all", "batch.size=65536", "linger.ms=50"]),
            );
        }
        kafka.stop(Stop::Clean);
        let logs = files(&kafka.data(), "log");
        for codec in CODECS {
            let topic = format!("theirs-{}", kafka_name(codec));
            let mut count = 0;
            for bytes in logs[&topic].iter().flat_map(|log| batches(log)) {
                let header = batch::verify(&bytes).expect("it was");
                assert_eq!(header.codec(), codec, "{version}");
                for record in batch::records(&bytes).expect("Kafka wrote it") {
                    let record = record.expect("Kafka wrote it");
                    assert_eq!(
                        record.value.map(|value| value.len()),
                        Some(300),
                        "{version} {codec}"
                    );
                    count += 1;
                }
            }
            assert_eq!(count, 2_000, "{version} {codec}");
        }
    }
}
