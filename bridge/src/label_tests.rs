//! The log's label index over MQTT messages: every record of a topic is found through it, as a scan finds it.

use crate::record;
use crate::testing::{Node, RouteExt, config, publish, route};
use headwater_config::{Config, TopicDefaults, TopicSpec};
use headwater_log::{LabelHash, Offset, Partition, ReadLimit, batch};
use headwater_mqtt::StreamId;

const TOPICS: usize = 25;

fn name(i: usize) -> String {
    // Half of them are the record's key, half travel in a header.
    if i.is_multiple_of(2) { format!("keyed/{i}") } else { format!("line/{i}/pump") }
}

/// Offsets of the messages of a topic in `from..until`.
fn messages(p: &Partition, topic: &str, from: Offset, until: Offset) -> (Vec<i64>, usize) {
    let (mut at, mut found, mut batches) = (from, Vec::new(), 0);
    while at < until {
        let read = p.read(at, 1, ReadLimit::LastStable).unwrap();
        for bytes in &read.batches {
            batches += 1;
            for record in batch::records(bytes).unwrap().map(Result::unwrap) {
                let message = record::read(&record, StreamId(0), 0);
                if message.is_ok_and(|m| &*m.topic == topic) && record.offset >= at.get() {
                    found.push(record.offset);
                }
            }
        }
        at = read.next;
    }
    (found, batches)
}

#[test]
fn every_message_of_a_topic_is_found_through_the_label_index() {
    let defaults = config().topic_defaults;
    let spec = TopicSpec { segment_bytes: 64 << 10, partitions: 1, ..defaults.spec };
    let node = Node::new(Config {
        topic_defaults: TopicDefaults { spec, ..defaults },
        routes: vec![
            route("keyed/#", "telemetry"),
            route("line/{line}/#", "telemetry").key("{line}").header("mqtt-like", "{line}"),
        ],
        ..config()
    });
    let payload = [b'x'; 64];
    for i in 0..6_000usize {
        // The higher its number, the rarer the topic.
        let topic = name((i * 7_919 % 997) % TOPICS * (i % 5) / 4);
        node.take(publish(&topic, &payload));
        if i % 9 == 0 {
            while node.log.step_commit() {}
        }
    }
    while node.log.step_commit() {}
    node.log.step_checkpoint().unwrap();
    let p = node.partition("telemetry", 0);
    let (start, end) = (p.positions().log_start, p.positions().last_stable);
    let (mut hits, mut read_in_all, mut scanned_in_all) = (0, 0, 0);
    for i in 0..TOPICS {
        let topic = name(i);
        let (expected, scanned) = messages(&p, &topic, start, end);
        let hash = [LabelHash::of(topic.as_bytes())];
        let (mut from, mut found, mut read) = (start, Vec::new(), 0);
        while from < end {
            let way = p.next_with_labels(from, &hash, ReadLimit::LastStable).unwrap();
            let (offsets, batches) = messages(&p, &topic, way.next, way.until);
            found.extend(offsets);
            read += batches;
            from = way.until;
        }
        found.dedup();
        assert_eq!(found, expected, "{topic}");
        hits += found.len();
        read_in_all += read;
        scanned_in_all += scanned;
    }
    assert_eq!(hits, 6_000, "every message has one topic");
    assert!(node.log.stats().label_indexes_built > 3);
    assert!(read_in_all < scanned_in_all, "{read_in_all} of {scanned_in_all} batches");
}
