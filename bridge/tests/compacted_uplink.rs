//! A new uplink on a topic that is compacted already, against the project's own Kafka door: every record that is left, once, in
//! order, and nothing said to be lost. The door checks what Kafka's LogValidator checks, so a batch with holes would be refused.

use headwater_bridge::uplink::{Uplinks, hold_name};
use headwater_kafka::server::{Door, DoorSettings, NewTopic, TopicRules};
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Cleanup, Codec, Compression, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{Log, LogOptions, Offset, Partition, ReadLimit, TopicName, batch};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Topics of one partition.
struct One;

impl TopicRules for One {
    fn rule(&self, _name: &TopicName) -> NewTopic {
        NewTopic { partitions: 1, settings: TopicSettings::default() }
    }

    fn auto_create(&self, _name: &TopicName) -> bool {
        true
    }

    fn client_may_change(&self, _name: &TopicName) -> Result<(), String> {
        Ok(())
    }
}

fn open(dir: &Path) -> Log {
    let options = LogOptions {
        dirs: vec![dir.to_owned()],
        journal_file_bytes: 1 << 20,
        // What is in memory is not compacted: readers shall meet the files.
        tail_bytes_max: 1 << 10,
        ..LogOptions::default()
    };
    Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock)).expect("a directory").0
}

/// Batches of several records over a few keys, some of which come once only.
fn fill(log: &Log, partition: &Partition, rounds: std::ops::Range<u32>) {
    for round in rounds {
        let texts: Vec<(String, String)> = (0..9)
            .map(|i| {
                let key = if (round + i) % 7 == 0 {
                    1_000 + round * 10 + i
                } else {
                    (round * 3 + i) % 13
                };
                (format!("key {key}"), format!("{round} {i} {}", "v".repeat(40)))
            })
            .collect();
        let records: Vec<RecordParts<'_>> = texts
            .iter()
            .map(|(key, value)| RecordParts {
                timestamp_ms: 1_800_000_000_000,
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                headers: Headers::EMPTY,
            })
            .collect();
        partition.append(&records).expect("room");
        while log.step_commit() {}
    }
}

/// Offset, key and value of every record; how many batches have holes, or nothing.
fn contents(partition: &Partition) -> (Vec<(i64, String, String)>, usize) {
    let (mut from, mut found, mut holes) = (Offset::ZERO, Vec::new(), 0);
    let end = partition.positions().high_watermark;
    while from < end {
        let read = partition.read(from, 1 << 20, ReadLimit::HighWatermark).expect("readable");
        for bytes in &read.batches {
            holes += usize::from(batch::verify(bytes).expect("whole").has_holes());
            for record in batch::records(bytes).expect("whole") {
                let record = record.expect("whole");
                let text = |b: Option<bytes::Bytes>| {
                    String::from_utf8(b.unwrap_or_default().to_vec()).expect("text")
                };
                found.push((record.offset, text(record.key), text(record.value)));
            }
        }
        from = read.next;
    }
    (found, holes)
}

fn compacted(log: &Log, codec: Codec) -> Arc<Partition> {
    let name = TopicName::new(&format!("state.{codec}")).expect("legal");
    let settings = TopicSettings {
        cleanup: Cleanup::Compact,
        compression: Compression { codec, level: None },
        segment_bytes: 8 << 10,
        dirty_ratio_permille: 1,
        ..TopicSettings::default()
    };
    let partition =
        log.create_topic(&name, 1, settings).expect("a topic").0.partitions()[0].clone();
    fill(log, &partition, 0..200);
    partition
}

#[test]
fn a_new_uplink_mirrors_what_compaction_has_left() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let centre = open(&dir.path().join("centre"));
    let serving = centre.start();
    let log = open(&dir.path().join("edge"));
    let sources: Vec<_> =
        [Codec::None, Codec::Zstd].into_iter().map(|codec| compacted(&log, codec)).collect();
    log.step_checkpoint().expect("a checkpoint");
    while log.step_compaction() {
        while log.step_commit() {}
    }
    for source in &sources {
        assert!(contents(source).1 > 20, "compaction has left holes");
        // And some that are whole behind them.
        fill(&log, source, 200..220);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let door = Door::new(centre.clone(), DoorSettings::default(), Box::new(One));
        let door = door.listening_at("127.0.0.1", port);
        let (_stop, stopping) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (door, stopping) = (door.clone(), stopping.clone());
                tokio::spawn(async move { door.serve(stream, peer, stopping).await });
            }
        });
        let config = headwater_config::from_toml(&format!(
            "[site]\nname = \"plant\"\n[[uplink]]\nname = \"dc\"\nbootstrap = [\"127.0.0.1:{port}\"]\n\
             topics = [{{ from = \"state.*\", to = \"{{site}}.{{topic}}\" }}]\n"
        ))
        .expect("a config");
        let mut uplinks = Uplinks::open(&config.uplinks, &log).expect("checkpoints");
        let running = log.start();
        uplinks.start(&tokio::runtime::Handle::current());
        let mut moved = log.moved();
        let hold = hold_name("dc");
        let ended = |s: &Arc<Partition>| s.hold(&hold).reached() >= s.positions().log_end;
        let all = async {
            while !sources.iter().all(ended) {
                let _ = tokio::time::timeout(Duration::from_millis(50), moved.changed()).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
        assert!(ended.is_ok(), "{:#?}", uplinks.statuses());
        uplinks.shutdown(Duration::from_secs(5)).await;
        running.close().expect("the log closes");
    });
    for source in &sources {
        let name = format!("plant.{}", source.topic());
        let target = centre.topic(&name).expect("the uplink made it").partitions()[0].clone();
        let values = |found: Vec<(i64, String, String)>| {
            found.into_iter().map(|(_, key, value)| (key, value)).collect::<Vec<_>>()
        };
        let (there, holes) = contents(&target);
        assert_eq!(holes, 0, "the centre's offsets follow each other");
        assert_eq!(values(there), values(contents(source).0), "{name}");
    }
    serving.close().expect("the centre closes");
}
