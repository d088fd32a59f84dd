//! What subscribers see: only messages made here, only of topics that routes write, and where they begin.

use super::*;
use crate::testing::{Node, START_MS, config, publish, route, topic_rule};
use headwater_config::Config;
use headwater_log::batch::marker::{EndTransaction, TransactionMarker};
use headwater_log::batch::{BatchBuilder, Seal};
use headwater_log::record::{Headers, RecordParts};
use headwater_mqtt::Store;
use headwater_mqtt::codec::PublishProperties;

fn topics_of(node: &Node) -> Vec<String> {
    let all = 0..node.bridge.streams();
    let partitions = all.filter_map(|n| node.bridge.stream(StreamId(n)));
    let mut topics: Vec<String> = partitions.map(|p| p.topic().to_string()).collect();
    topics.dedup();
    topics
}

#[test]
fn streams_are_the_partitions_that_routes_can_write() {
    let node = Node::new(Config {
        topics: vec![topic_rule("kafka-only", |_| {})],
        routes: vec![route("t/{x}", "t.{x}"), route("f", "fixed")],
        ..config()
    });
    assert_eq!(topics_of(&node), ["fixed", "mqtt"]);
    assert_eq!(node.bridge.streams(), 8);
    node.take(publish("t/a", b"x"));
    assert_eq!(topics_of(&node), ["fixed", "mqtt", "t.a"], "numbers are only added");
    let name = headwater_log::TopicName::new("fixed").unwrap();
    node.log.add_partitions(&name, 6).unwrap();
    assert_eq!(node.bridge.streams(), 14);
    assert_eq!(node.bridge.stream(StreamId(12)).unwrap().topic().as_str(), "fixed");
}

#[test]
fn followers_begin_at_the_end_of_what_was_there_and_at_the_start_of_what_is_new() {
    let mut node = Node::new(Config { routes: vec![route("t/{x}", "t.{x}")], ..config() });
    node.start();
    let old = node.take(publish("t/old", b"x"));
    node.settle(&old);
    let (_, partition, _) = node.place(&old);
    let of = |node: &Node, topic: &str| {
        let all = 0..node.bridge.streams();
        let found = all.map(StreamId).find(|n| {
            let p = node.bridge.stream(*n).unwrap();
            (p.topic().as_str(), p.id().get()) == (topic, partition)
        });
        found.unwrap()
    };
    assert_eq!(node.bridge.first(of(&node, "t.old")), 0);
    let (disk, clock) = node.close();
    let mut node =
        Node::on(disk, clock, Config { routes: vec![route("t/{x}", "t.{x}")], ..config() });
    node.start();
    assert_eq!(node.bridge.first(of(&node, "t.old")), 1);
    assert_eq!(node.bridge.end(of(&node, "t.old")), 1);
    let new = node.take(publish("t/new", b"x"));
    node.settle(&new);
    assert_eq!(node.bridge.first(of(&node, "t.new")), 0);
    assert_eq!(node.delivered().len(), 2);
}

/// One record without a key.
fn batch_of(value: &[u8], headers: &Headers) -> bytes::BytesMut {
    let mut builder = BatchBuilder::new();
    let record = RecordParts { timestamp_ms: START_MS, key: None, value: Some(value), headers };
    builder.push(&record, 1 << 20).unwrap();
    bytes::BytesMut::from(&builder.seal(Seal::default()).unwrap()[..])
}

#[test]
fn a_kafka_clients_record_is_not_trusted() {
    let mut node = Node::new(config());
    node.start();
    let partition = node.partition("mqtt", 0);
    let mut headers = Headers::default();
    headers.push("mqtt.topic", b"forged");
    headers.push("hw", &[1, 0]);
    let mut batch = batch_of(b"forged", &headers);
    batch::readdress(&mut batch, -1, -1, -1);
    let appended = partition.append_batch(batch).unwrap();
    node.wait_for("it is committed", || {
        (partition.positions().high_watermark > appended.last.offset).then_some(())
    });
    assert!(node.delivered().is_empty());
    assert_eq!(node.bridge.counters().unreadable, 0);
}

/// Batches of clients' transactions, committed, aborted or open, and their markers, between messages.
#[test]
fn transactions_of_kafka_clients_do_not_break_what_subscribers_read() {
    let mut node = Node::new(config());
    node.start();
    let first = node.take(publish("a", b"before"));
    node.settle(&first);
    let (topic, number, _) = node.place(&first);
    let partition = node.partition(&topic, number.try_into().unwrap());
    let client = |sequence| {
        let mut batch = batch_of(b"of a client", Headers::EMPTY);
        batch::readdress(&mut batch, 9, 0, sequence);
        batch[22] |= 0x10;
        let crc = crc_fast::crc32_iscsi(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        batch
    };
    let marker = |commit| TransactionMarker {
        producer_id: 9,
        producer_epoch: 0,
        end: EndTransaction { commit, coordinator_epoch: 0 },
        bumps_epoch: false,
        timestamp_ms: START_MS,
    };
    partition.append_batch(client(0)).unwrap();
    partition.append_marker(&marker(false)).unwrap();
    partition.append_batch(client(1)).unwrap();
    partition.append_marker(&marker(true)).unwrap();
    let second = node.take(publish("a", b"behind"));
    node.settle(&second);
    let values = |node: &Node| -> Vec<Vec<u8>> {
        node.delivered().iter().map(|message| message.payload.to_vec()).collect()
    };
    assert_eq!(values(&node), [b"before".to_vec(), b"behind".to_vec()]);
    // What is open holds back what stands behind it: the order of a partition is one (invariant 2).
    partition.append_batch(client(2)).unwrap();
    let third = node.take(publish("a", b"held back"));
    node.settle(&third);
    assert_eq!(values(&node).len(), 2);
    let ended = partition.append_marker(&marker(true)).unwrap();
    node.wait_for("it is committed", || {
        (partition.positions().last_stable > ended.last.offset).then_some(())
    });
    assert_eq!(values(&node).len(), 3);
    assert_eq!(node.bridge.counters().unreadable, 0);
}

#[test]
fn expired_messages_are_left_out() {
    let mut node = Node::new(config());
    let properties =
        PublishProperties { message_expiry_interval_s: Some(10), ..PublishProperties::default() };
    let ticket =
        node.take(headwater_mqtt::codec::Publish { properties, ..publish("a", b"short-lived") });
    node.start();
    node.settle(&ticket);
    let seen = node.delivered();
    assert_eq!(seen[0].expires_at_ms, Some(START_MS + 10_000));
    assert_eq!(node.bridge.now_ms(), START_MS);
    node.clock.advance_ms(10_000);
    assert!(node.delivered().is_empty());
    assert_eq!(node.bridge.counters().expired, 1);
}

#[test]
fn reading_begins_inside_a_batch_and_below_the_start_is_gone() {
    let mut node = Node::new(config());
    let messages: Vec<_> = (0..10).map(|_| publish("a", b"x")).collect();
    let tickets = node.offer(&messages);
    node.start();
    let last = crate::testing::accepted(tickets.into_iter().last().unwrap());
    node.settle(&last);
    let (_, partition, _) = node.place(&last);
    let stream = StreamId(u32::try_from(partition).unwrap());
    let mut out = Vec::new();
    assert_eq!(node.bridge.read(stream, 7, 1 << 16, &mut out), Ok(10));
    assert_eq!(out.iter().map(|m| m.offset).collect::<Vec<_>>(), [7, 8, 9]);
    let partition = node.bridge.stream(stream).unwrap();
    partition.delete_before(Offset::new(5).unwrap());
    node.wait_for("records are deleted", || {
        (partition.positions().log_start.get() == 5).then_some(())
    });
    out.clear();
    let gone = node.bridge.read(stream, 2, 1 << 16, &mut out);
    assert_eq!(gone, Err(ReadFailure::Gone { first: 5 }));
    let gone = node.bridge.read(stream, 99, 1 << 16, &mut out);
    assert_eq!(gone, Err(ReadFailure::Gone { first: 10 }));
    assert!(out.is_empty());
}

#[test]
fn compressed_batches_are_delivered_and_memory_counts_what_is_in_them() {
    let mut config = config();
    config.topic_defaults.spec.compression = headwater_config::Codec::Zstd;
    let mut node = Node::new(config);
    let payload = vec![b'x'; 2_000];
    let messages: Vec<_> = (0..20).map(|_| publish("a", &payload)).collect();
    let before = node.offer(&messages);
    node.start();
    node.settle(&crate::testing::accepted(before.into_iter().last().unwrap()));
    let last = node.offer(&messages).into_iter().last().unwrap();
    let last = crate::testing::accepted(last);
    node.settle(&last);
    assert_eq!(node.delivered().len(), 40);
    let (_, partition, _) = node.place(&last);
    let stream = StreamId(u32::try_from(partition).unwrap());
    let stored = node.bridge.stream(stream).unwrap();
    let read = stored.read(Offset::ZERO, 1 << 16, ReadLimit::HighWatermark).unwrap();
    assert!(read.batches.len() > 1, "both were read at once, as they are small");
    let header = BatchHeader::parse(&read.batches[0]).unwrap();
    assert_eq!(header.codec(), batch::compression::Codec::Zstd);
    // The first batch has more than was asked for: the second one is for the next read.
    let mut out = Vec::new();
    assert_eq!(node.bridge.read(stream, 0, 10_000, &mut out), Ok(20));
    assert_eq!(out.len(), 20);
}

#[test]
fn what_was_dropped_is_in_the_ledger() {
    let mut node = Node::new(config());
    node.start();
    node.bridge.dropped("backpressure", "a/b", 3);
    node.bridge.dropped("backpressure", "a/b", 2);
    node.bridge.lost("retention", "reader", StreamId(1), 10, 30);
    node.bridge.flush_ledger();
    let counters = node.bridge.counters();
    assert_eq!(counters.dropped.get("backpressure"), Some(&5));
    assert_eq!(counters.dropped.get("retention"), Some(&20));
    assert_eq!(counters.ledger_records, 2);
    let mut found = Vec::new();
    node.wait_for("the ledger is committed", || {
        found.clear();
        for partition in node.log.topic(crate::topics::LEDGER_TOPIC).unwrap().partitions() {
            let read = partition.read(Offset::ZERO, 1 << 20, ReadLimit::SyncedAndStable).unwrap();
            for bytes in &read.batches {
                for record in batch::records(bytes).unwrap() {
                    let value = record.unwrap().value.unwrap();
                    found.push(serde_json::from_slice::<serde_json::Value>(&value).unwrap());
                }
            }
        }
        (found.len() == 2).then_some(())
    });
    found.sort_by_key(|value| value["cause"].to_string());
    assert_eq!(
        found,
        [
            serde_json::json!({"version": 1, "cause": "backpressure", "mqtt_topic": "a/b",
                "count": 5, "first_ms": START_MS, "last_ms": START_MS}),
            serde_json::json!({"version": 1, "cause": "retention", "topic": "mqtt",
                "partition": 1, "subscriber": "reader", "from": 10, "to": 30, "count": 20,
                "first_ms": START_MS, "last_ms": START_MS}),
        ]
    );
    node.bridge.flush_ledger();
    assert_eq!(node.bridge.counters().ledger_records, 2, "nothing is written twice");
}

#[test]
fn timestamps_go_on_from_the_newest_record_while_the_clock_is_not_trusted() {
    let mut node = Node::new(config());
    node.start();
    node.settle(&node.take(publish("a", b"trusted")));
    let (disk, clock) = node.close();
    // The gateway boots in 1970.
    clock.jump_to_ms(1_000);
    clock.set_trusted(false);
    let mut node = Node::on(disk, clock, config());
    node.start();
    node.clock.advance_ms(250);
    let ticket = node.take(publish("a", b"untrusted"));
    node.settle(&ticket);
    let (topic, partition, offset) = node.place(&ticket);
    let partition = node.partition(&topic, partition.try_into().unwrap());
    let at = Offset::new(offset).unwrap();
    let read = partition.read(at, 1 << 16, ReadLimit::LastStable).unwrap();
    let record = batch::records(&read.batches[0]).unwrap().last().unwrap().unwrap();
    assert_eq!(record.value.as_deref(), Some(&b"untrusted"[..]));
    assert_eq!(record.timestamp_ms, START_MS + 250);
    let hw = record.headers.last().unwrap().1.clone().unwrap();
    assert_eq!(hw[1] & 0b0001_0000, 0b0001_0000, "the record says that its time is an estimate");
}

#[test]
fn failures_say_where_reading_goes_on() {
    let offset = |n| Offset::new(n).unwrap();
    let damaged = |next_good| ReadError::Damaged {
        file: "telemetry-0/00.log".into(),
        byte: 4_096,
        reason: BatchError::Short,
        first: offset(7),
        next_good,
    };
    match failure(&damaged(Some(offset(9)))) {
        ReadFailure::Damaged { detail, next } => {
            assert_eq!(next, Some(9));
            assert!(detail.contains("telemetry-0/00.log") && detail.contains("4096"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(failure(&damaged(None)), ReadFailure::Damaged { next: None, .. }));
    let io = ReadError::Io { file: "f".into(), error: "EIO".into() };
    assert!(matches!(failure(&io), ReadFailure::Damaged { next: None, .. }));
}
