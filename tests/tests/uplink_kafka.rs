//! The client and the uplink against real Apache Kafka: what goes in comes out there once, in order, byte for byte.

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use headwater_kafka::client::{
    Client, ClientOptions, Connection, FetchPartition, NewTopic, ProduceBatch, ProducerIdentity,
};
use headwater_kafka::wire::ErrorCode;
use headwater_log::batch::{self, BatchBuilder, BatchHeader, HEADER_BYTES, Seal};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{LeaderEpoch, Offset};
use headwater_tests::kafka::{Kafka, VERSIONS};
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
    let seal = Seal {
        base_offset: Offset::ZERO,
        epoch: LeaderEpoch::default(),
        node_slot: 0,
        base_sequence: 0,
    };
    let sealed = builder.seal(seal).expect("records were pushed");
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
