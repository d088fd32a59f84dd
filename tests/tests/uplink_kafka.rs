//! The client and the uplink against real Apache Kafka: what goes in comes out there once, in order, byte for byte.

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use headwater_bridge::uplink::{MEMORY_BYTES_MAX, UplinkState, Uplinks, hold_name};
use headwater_config::Config;
use headwater_kafka::client::{
    Client, ClientOptions, Connection, FetchPartition, NewTopic, ProduceBatch, ProducerIdentity,
};
use headwater_kafka::wire::ErrorCode;
use headwater_log::batch::{self, BatchBuilder, BatchHeader, HEADER_BYTES, Seal};
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{
    AppendError, Log, LogOptions, Offset, Partition, ReadLimit, Running, TopicName,
};
use headwater_tests::files::TestDir;
use headwater_tests::kafka::{Kafka, Stop, VERSIONS};
use headwater_tests::wait_for;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn client(kafka: &Kafka) -> Client {
    Client::new(ClientOptions::new(vec![kafka.address()], "headwater-tests"))
}

#[expect(clippy::disallowed_methods, reason = "records for a real broker carry real time")]
fn wall_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("before the year 292 million")
}

/// A batch as a log would hold it, addressed to another cluster.
fn batch_of(values: &[&str], producer: ProducerIdentity, sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new();
    let mut headers = Headers::default();
    headers.push("mqtt.topic", b"plant/1/temperature");
    for value in values {
        let record = RecordParts {
            timestamp_ms: wall_ms(),
            key: Some(b"device"),
            value: Some(value.as_bytes()),
            headers: &headers,
        };
        builder.push(&record, 1 << 20).expect("it fits");
    }
    let sealed = builder.seal(Seal::default()).expect("records were pushed");
    let mut copy = BytesMut::from(&sealed[..]);
    batch::readdress(&mut copy, producer.id, producer.epoch, sequence);
    copy.freeze()
}

/// Every batch of a partition, header and records.
async fn batches_of(
    connection: &Connection,
    topic: &str,
    partition: i32,
) -> Result<Vec<(BatchHeader, Bytes)>> {
    let end = connection.list_offsets(&[(topic.into(), partition)], false).await?;
    let end = end.into_iter().next().context("one partition")?.offset?;
    let mut from = FetchPartition { topic: topic.into(), partition, offset: 0 };
    let mut found = Vec::new();
    while from.offset < end {
        let fetched = connection.fetch(&from, 1 << 20, Duration::from_millis(100)).await?;
        let mut rest = fetched.records;
        while let Ok(header) = BatchHeader::parse(&rest) {
            if header.size_bytes() > rest.len() {
                break;
            }
            let one = rest.split_to(header.size_bytes());
            if header.last_offset() >= from.offset {
                from.offset = header.last_offset() + 1;
                found.push((header, one.slice(HEADER_BYTES..)));
            }
        }
    }
    Ok(found)
}

#[test]
fn the_client_speaks_with_kafka() {
    for version in VERSIONS {
        let kafka = Kafka::start(version);
        block_on(speak(&kafka)).unwrap_or_else(|e| panic!("Kafka {version}: {e:#}"));
    }
}

async fn speak(kafka: &Kafka) -> Result<()> {
    let client = client(kafka);
    let topic = NewTopic {
        name: "spoken".to_owned(),
        partitions: 2,
        replication_factor: None,
        configs: vec![("max.message.bytes".to_owned(), "2000".to_owned())],
    };
    let missing = client.metadata(Some(&["spoken".to_owned()])).await?;
    ensure!(missing.topics[0].code == 3, "unknown topics are said to be: {missing:?}");
    let any = client.any().await?;
    any.create_topics(std::slice::from_ref(&topic), TIMEOUT).await?[0].result.clone()?;
    let again = any.create_topics(&[topic], TIMEOUT).await?[0].result.clone();
    ensure!(again.is_err_and(|e| e.to_string().contains("TOPIC_ALREADY_EXISTS")));
    any.create_partitions("spoken", 3, TIMEOUT).await?;
    let metadata = loop {
        // A broker hears of what its controller has done a moment later.
        let metadata = client.metadata(Some(&["spoken".to_owned()])).await?;
        if metadata.topics[0].partitions.iter().filter(|p| p.leader.is_some()).count() == 3 {
            break metadata;
        }
        tokio::task::yield_now().await;
    };
    ensure!(metadata.topics[0].id != [0; 16] && !metadata.cluster_id.is_empty());
    let leader = metadata.topics[0].partitions[1].leader.context("a leader")?;
    let connection = client.broker(leader).await?;

    let producer = loop {
        match connection.init_producer_id().await {
            // A broker that has just started has no block of ids yet.
            Err(e) if e.code().is_some_and(ErrorCode::is_retriable) => {}
            producer => break producer?,
        }
    };
    let send = |values: &[&str], sequence| {
        let batch = batch_of(values, producer, sequence);
        let batch = ProduceBatch { topic: "spoken".into(), partition: 1, batch };
        connection.produce(&[batch], TIMEOUT)
    };
    // Pipelined: three requests before the first answer.
    let answers = [send(&["a", "b"], 0)?, send(&["c"], 2)?, send(&["d"], 3)?];
    for (answer, base) in answers.into_iter().zip([0, 2, 3]) {
        let outcome = answer.await?;
        ensure!(outcome[0].code == 0 && outcome[0].base_offset == base, "{outcome:?}");
    }
    let duplicate = send(&["c"], 2)?.await?;
    ensure!(duplicate[0].code == 0 && duplicate[0].base_offset == 2, "{duplicate:?}");
    let gap = send(&["x"], 9)?.await?;
    ensure!(gap[0].code == 45, "OUT_OF_ORDER_SEQUENCE_NUMBER: {gap:?}");
    let large = send(&["x".repeat(3_000).as_str()], 4)?.await?;
    ensure!(large[0].code == 10, "MESSAGE_TOO_LARGE: {large:?}");

    let at = [("spoken".into(), 1)];
    let described = connection.describe_producers(&at).await?;
    let active = described[0].producers.clone()?;
    ensure!(active.len() == 1 && active[0].producer == producer && active[0].last_sequence == 3);
    ensure!(connection.list_offsets(&at, true).await?[0].offset.clone()? == 0);
    ensure!(connection.list_offsets(&at, false).await?[0].offset.clone()? == 4);
    let found = batches_of(&connection, "spoken", 1).await?;
    let bases: Vec<_> = found.iter().map(|(h, _)| (h.base_offset, h.base_sequence)).collect();
    ensure!(bases == [(0, 0), (2, 2), (3, 3)], "{bases:?}");
    let beyond = FetchPartition { topic: "spoken".into(), partition: 1, offset: 99 };
    let beyond = connection.fetch(&beyond, 1_000, Duration::ZERO).await;
    ensure!(beyond.is_err_and(|e| e.to_string().contains("OFFSET_OUT_OF_RANGE")));
    Ok(())
}

/// A node without listeners: a log and its uplinks, killed by dropping them.
struct Node {
    log: Log,
    _running: Running,
    uplinks: Uplinks,
    // Dropped last: the uplinks' tasks end in the middle of whatever they do.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Node {
    fn start(dir: &Path, config: &Config) -> Self {
        let options = LogOptions {
            dirs: vec![dir.join("data")],
            journal_file_bytes: 4 << 20,
            journal_files: 4,
            commit_delay: Duration::ZERO,
            commit_delay_max: Duration::from_millis(100),
            journal_bytes_per_day: None,
            bulk_bytes: 4 << 20,
            uncommitted_bytes_max: 16 << 20,
            tail_bytes_max: 2 << 20,
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
        let (log, _) =
            Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock)).expect("the log opens");
        for name in ["telemetry", "alarms"] {
            let name = TopicName::new(name).expect("legal");
            if log.topic(name.as_str()).is_none() {
                log.create_topic(&name, PARTITIONS, settings()).expect("a topic");
            }
        }
        let mut uplinks = Uplinks::open(&config.uplinks, &log).expect("checkpoints");
        let running = log.start();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        uplinks.start(runtime.handle());
        Self { log, _running: running, uplinks, runtime: Some(runtime) }
    }

    /// As kill -9: no checkpoint, no goodbye.
    fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    fn partition(&self, topic: &str, partition: usize) -> Arc<Partition> {
        self.log.topic(topic).expect("created").partitions()[partition].clone()
    }

    fn acked(&self) -> u64 {
        self.uplinks.statuses()[0].acked_records
    }
}

const PARTITIONS: u32 = 3;
const TOPICS: [&str; 2] = ["telemetry", "alarms"];

fn settings() -> TopicSettings {
    TopicSettings {
        durability: Durability::Fsync,
        retention_ms: None,
        retention_bytes: None,
        segment_bytes: 1 << 20,
        segment_ms: 3_600_000,
        batch_bytes_max: 1 << 20,
        ..TopicSettings::default()
    }
}

fn config(kafka: &Kafka) -> Config {
    config_with(kafka, "")
}

fn config_with(kafka: &Kafka, more: &str) -> Config {
    let text = format!(
        r#"
        [site]
        name = "plant-7"
        [[uplink]]
        name = "dc"
        bootstrap = ["127.0.0.1:1", "{}"]
        topics = [{{ from = "*", to = "{{site}}.{{topic}}" }}]
        {more}
        "#,
        kafka.address()
    );
    headwater_config::from_toml(&text).expect("a config")
}

/// A small generator, so that a failure can be repeated from the seed it prints.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Appends messages as the bridge would, and batches as Kafka's clients made them.
fn append(node: &Node, random: &mut Random, made_elsewhere: &[Bytes], records: u64) {
    let mut headers = Headers::default();
    headers.push("mqtt.topic", b"plant/line-1/press/temperature");
    let mut left = records;
    while left > 0 {
        let topic = TOPICS[random.below(2) as usize];
        let partition = node.partition(topic, random.below(u64::from(PARTITIONS)) as usize);
        let appended = if random.below(5) == 0 {
            let batch = &made_elsewhere[random.below(made_elsewhere.len() as u64) as usize];
            // As every producer without idempotence sends it.
            let mut copy = BytesMut::from(&batch[..]);
            batch::readdress(&mut copy, -1, -1, -1);
            partition.append_batch(copy)
        } else {
            let value = vec![b'v'; random.below(900) as usize];
            let record = RecordParts {
                timestamp_ms: wall_ms(),
                key: Some(b"press"),
                value: Some(&value),
                headers: &headers,
            };
            let count = 1 + random.below(40) as usize;
            partition.append(&vec![record; count.min(left as usize)])
        };
        match appended {
            Ok(appended) => {
                let count = appended.last.offset.get() - appended.base.offset.get() + 1;
                left = left.saturating_sub(count as u64);
            }
            Err(AppendError::Busy) => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
}

/// Batches of each codec, made by librdkafka and taken out of a real Kafka.
fn made_elsewhere(kafka: &Kafka) -> Vec<Bytes> {
    let lines: String =
        (0..200).map(|i| format!("{i}: some text that a codec can shorten\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let mut kcat = Command::new("kcat")
            .args(["-P", "-b", &kafka.address(), "-t", "made", "-p", "0", "-z", codec])
            .stdin(Stdio::piped())
            .spawn()
            .expect("kcat is installed");
        let mut input = kcat.stdin.take().expect("a pipe");
        input.write_all(lines.as_bytes()).expect("kcat reads");
        drop(input);
        assert!(kcat.wait().expect("it is ours").success());
    }
    let read = async {
        let client = client(kafka);
        let metadata = client.metadata(Some(&["made".to_owned()])).await?;
        let leader = metadata.topics[0].partitions[0].leader.context("a leader")?;
        let connection = client.broker(leader).await?;
        let from = FetchPartition { topic: "made".into(), partition: 0, offset: 0 };
        let mut rest = connection.fetch(&from, 8 << 20, TIMEOUT).await?.records;
        let mut batches = Vec::new();
        while let Ok(header) = BatchHeader::parse(&rest) {
            batches.push(rest.split_to(header.size_bytes()));
        }
        Ok::<_, anyhow::Error>(batches)
    };
    let batches = block_on(read).expect("what kcat made can be read");
    let codecs: BTreeSet<i16> =
        batches.iter().map(|b| BatchHeader::parse(b).expect("whole").attributes & 7).collect();
    assert_eq!(codecs.len(), 5, "every codec: {codecs:?}");
    batches
}

/// Every stored batch stands in the target once, in order, its records untouched, at a constant delta.
fn compare(node: &Node, kafka: &Kafka) -> Result<u64> {
    let client = client(kafka);
    let names: Vec<String> = TOPICS.iter().map(|t| format!("plant-7.{t}")).collect();
    let mut records = 0;
    for (topic, name) in TOPICS.iter().zip(&names) {
        for number in 0..PARTITIONS {
            let partition = node.partition(topic, number as usize);
            let end = partition.positions().high_watermark;
            let mut from = Offset::ZERO;
            let mut stored = Vec::new();
            while from < end {
                let read = partition.read(from, 1 << 20, ReadLimit::HighWatermark)?;
                for bytes in read.batches {
                    let header = batch::verify(&bytes)?;
                    stored.push((header, bytes.slice(HEADER_BYTES..)));
                }
                from = read.next;
            }
            let there = block_on(async {
                let metadata = client.metadata(Some(std::slice::from_ref(name))).await?;
                let leader = metadata.topics[0].partitions[number as usize].leader;
                let connection = client.broker(leader.context("a leader")?).await?;
                batches_of(&connection, name, number as i32).await
            });
            client.disconnect();
            let there = there?;
            let place = format!("{name} {number}");
            ensure!(
                there.len() == stored.len(),
                "{place}: {} batches for {}",
                there.len(),
                stored.len()
            );
            for ((ours, body), (theirs, their_body)) in stored.iter().zip(&there) {
                ensure!(body == their_body, "{place}: the records at {} differ", ours.base_offset);
                ensure!(
                    ours.base_offset == theirs.base_offset,
                    "{place}: delta at {}",
                    ours.base_offset
                );
                ensure!(theirs.producer_id >= 0, "{place}: the uplink's own producer id");
                records += ours.record_count as u64;
            }
        }
    }
    Ok(records)
}

fn mirrored(node: &Node) -> Option<()> {
    let status = &node.uplinks.statuses()[0];
    (status.lag_records() == 0 && status.topics.len() == TOPICS.len()).then_some(())
}

#[test]
fn every_record_arrives_once_while_the_node_is_killed_and_kafka_stops() {
    for version in VERSIONS {
        let mut kafka = Kafka::start(version);
        let made = made_elsewhere(&kafka);
        let dir = TestDir::new("uplink");
        let config = config(&kafka);
        let seed = u64::from(std::process::id());
        println!("Kafka {version}, seed {seed}");
        let mut random = Random(seed);
        let mut node = Node::start(dir.path(), &config);
        for round in 0..14 {
            let records = 2_000 + random.below(4_000);
            append(&node, &mut random, &made, records);
            // Somewhere in the middle of what it does: after some part of this was acknowledged.
            let kafka_is_off = round % 5 == 4;
            if kafka_is_off {
                kafka.stop(if round == 4 { Stop::Clean } else { Stop::Kill });
                append(&node, &mut random, &made, 3_000);
                assert!(node.uplinks.statuses()[0].memory_bytes <= 2 * MEMORY_BYTES_MAX as u64);
            } else {
                let some = random.below(1_500);
                wait_for("some acknowledgements", Duration::from_secs(60), || {
                    (node.acked() >= some || mirrored(&node).is_some()).then_some(())
                });
            }
            node.kill();
            if kafka_is_off {
                kafka.start_again();
            }
            node = Node::start(dir.path(), &config);
        }
        wait_for("the backlog to drain", Duration::from_secs(120), || mirrored(&node));
        let records = compare(&node, &kafka).unwrap_or_else(|e| {
            panic!("Kafka {version}, seed {seed}: {e:#}; {:#?}", node.uplinks.statuses())
        });
        assert!(records > 30_000, "{records}");
        node.kill();
    }
}

/// Appends `count` records of `bytes` each to one partition of a topic and waits until they are synced.
fn append_to(node: &Node, topic: &str, count: usize, bytes: usize) {
    let partition = node.partition(topic, 0);
    let value = vec![b'x'; bytes];
    let record = RecordParts {
        timestamp_ms: wall_ms(),
        key: Some(b"press"),
        value: Some(&value),
        headers: Headers::EMPTY,
    };
    let last = partition.append(&vec![record; count]).expect("there is room").last;
    wait_for("a commit", Duration::from_secs(10), || {
        (partition.positions().synced > last.offset).then_some(())
    });
}

fn acked_of(node: &Node, topic: &str) -> i64 {
    node.partition(topic, 0).hold(&hold_name("dc")).reached().get()
}

/// What an operator at the centre may do to the topics, and a topic that appears while the uplink runs.
#[test]
fn topics_grow_appear_refuse_and_are_written_to_by_others() {
    let version = VERSIONS[1];
    let kafka = Kafka::start(version);
    let centre = client(&kafka);
    let small = NewTopic {
        name: "plant-7.alarms".to_owned(),
        partitions: 1,
        replication_factor: None,
        configs: vec![("max.message.bytes".to_owned(), "2000".to_owned())],
    };
    block_on(async {
        let any = centre.any().await?;
        let made = any.create_topics(&[small], TIMEOUT).await?;
        made[0].result.clone()
    })
    .expect("a topic with one partition and small batches");
    centre.disconnect();
    let dir = TestDir::new("uplink-topics");
    let node = Node::start(dir.path(), &config(&kafka));
    let patience = Duration::from_secs(60);

    // One partition there, three here: it is grown. A batch that is too large stops its partition and no other.
    append_to(&node, "alarms", 10, 10);
    append_to(&node, "telemetry", 10, 10);
    wait_for("both topics", patience, || {
        (acked_of(&node, "alarms") == 10 && acked_of(&node, "telemetry") == 10).then_some(())
    });
    append_to(&node, "alarms", 1, 5_000);
    append_to(&node, "alarms", 1, 10);
    let stopped = wait_for("the partition to stop", patience, || {
        let status = node.uplinks.statuses().remove(0);
        let topic = status.topics.iter().find(|t| t.topic == "alarms")?;
        matches!(status.state, UplinkState::Stopped(_)).then_some(topic.stopped.first()?.clone())
    });
    assert!(stopped.0 == 0 && stopped.1.contains("MESSAGE_TOO_LARGE"), "{stopped:?}");
    append_to(&node, "telemetry", 10, 10);
    wait_for("the others to go on", patience, || {
        (acked_of(&node, "telemetry") == 20).then_some(())
    });
    assert_eq!(acked_of(&node, "alarms"), 10, "nothing was skipped");
    let lag = node.uplinks.statuses()[0].lag_records();
    assert_eq!(lag, 2, "and both wait");

    // Somebody else writes there.
    let mut kcat = Command::new("kcat")
        .args(["-P", "-b", &kafka.address(), "-t", "plant-7.telemetry", "-p", "0"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kcat is installed");
    kcat.stdin.take().expect("a pipe").write_all(b"not ours\n").expect("kcat reads");
    assert!(kcat.wait().expect("it is ours").success());
    append_to(&node, "telemetry", 10, 10);
    wait_for("the step to be seen", patience, || {
        (acked_of(&node, "telemetry") == 30 && node.uplinks.statuses()[0].foreign_steps == 1)
            .then_some(())
    });

    // A topic appears, and one gets more partitions.
    let name = TopicName::new("later").expect("legal");
    node.log.create_topic(&name, 1, settings()).expect("a topic");
    append_to(&node, "later", 5, 100);
    wait_for("the new topic", patience, || (acked_of(&node, "later") == 5).then_some(()));
    node.log.add_partitions(&name, 2).expect("more partitions");
    let second = node.partition("later", 1);
    let record = RecordParts {
        timestamp_ms: wall_ms(),
        key: None,
        value: Some(b"x"),
        headers: Headers::EMPTY,
    };
    second.append(&[record]).expect("there is room");
    wait_for("the new partition", patience, || {
        (second.hold(&hold_name("dc")).reached().get() == 1).then_some(())
    });
    let count = block_on(async {
        let metadata = centre.metadata(Some(&["plant-7.later".to_owned()])).await?;
        Ok::<_, anyhow::Error>(metadata.topics[0].partitions.len())
    });
    assert_eq!(count.expect("metadata"), 2);
    node.kill();
}

#[test]
fn a_shutdown_leaves_a_checkpoint_of_all_that_was_acknowledged() {
    let kafka = Kafka::start(VERSIONS[0]);
    let dir = TestDir::new("uplink-shutdown");
    let config = config(&kafka);
    let mut node = Node::start(dir.path(), &config);
    append_to(&node, "telemetry", 100, 100);
    wait_for("the records", Duration::from_secs(60), || {
        (acked_of(&node, "telemetry") == 100).then_some(())
    });
    let runtime = node.runtime.take().expect("it runs");
    let left = runtime.block_on(node.uplinks.shutdown(Duration::from_secs(5)));
    assert_eq!(left[0].lag_records(), 0);
    let hold = node.partition("telemetry", 0).hold(&hold_name("dc"));
    assert_eq!(hold.checkpointed().get(), 100, "retention may go on");
    drop(runtime);
    drop(hold);
    node.kill();
    let node = Node::start(dir.path(), &config);
    assert_eq!(acked_of(&node, "telemetry"), 100, "known before anything is asked");
    node.kill();
}

/// A backlog of yesterday's: the centre may forget our producer at any moment, so the target itself is searched for
/// what has arrived, after the time in which a late request could still come.
#[test]
fn a_backlog_of_yesterday_arrives_once_while_the_node_is_killed() {
    let kafka = Kafka::start(VERSIONS[0]);
    let dir = TestDir::new("uplink-old");
    let config = config_with(&kafka, "request_timeout = \"1s\"");
    let mut node = Node::start(dir.path(), &config);
    let record = RecordParts {
        timestamp_ms: wall_ms() - 20 * 3_600_000,
        key: Some(b"press"),
        value: Some(&[b'x'; 300]),
        headers: Headers::EMPTY,
    };
    let mut expected = 0;
    for round in 1..=3 {
        for i in 0..300 {
            let partition = node.partition(TOPICS[i % 2], 0);
            let last = partition.append(&[record; 3]).expect("there is room").last;
            expected += 3;
            // A batch each.
            wait_for("a commit", Duration::from_secs(10), || {
                (partition.positions().synced > last.offset).then_some(())
            });
        }
        wait_for("some acknowledgements", Duration::from_secs(60), || {
            (node.acked() >= 100 * round || mirrored(&node).is_some()).then_some(())
        });
        node.kill();
        node = Node::start(dir.path(), &config);
    }
    wait_for("the backlog to drain", Duration::from_secs(120), || mirrored(&node));
    let records = compare(&node, &kafka).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(records, expected);
    node.kill();
}
