//! The config's topics, applied to a log that is new, and to one that has topics.

use super::*;
use crate::testing::{Node, config, open_log, publish, route, topic_rule};
use headwater_config::Config;
use headwater_log::clock::fake::FakeClock;
use headwater_log::disk::fake::FakeDisk;

fn with_topics(topics: Vec<headwater_config::TopicRule>) -> Config {
    Config { topics, ..config() }
}

fn names(log: &Log) -> Vec<String> {
    log.topics().iter().map(|topic| topic.name().to_string()).collect()
}

#[test]
fn a_start_makes_what_is_named() {
    let node = Node::new(Config {
        topics: vec![topic_rule("plain", |spec| spec.partitions = 2), topic_rule("glob*", |_| {})],
        routes: vec![route("a", "routed"), route("t/{x}", "t.{x}")],
        ..config()
    });
    assert_eq!(names(&node.log), [LEDGER_TOPIC, "mqtt", "plain", "routed"]);
    assert_eq!(node.log.topic(LEDGER_TOPIC).unwrap().partitions().len(), 16);
    assert_eq!(node.log.topic("plain").unwrap().partitions().len(), 2);
    assert_eq!(node.log.topic("mqtt").unwrap().partitions().len(), 4);
}

#[test]
fn settings_follow_the_config_and_partitions_only_grow() {
    let node = Node::new(with_topics(vec![
        topic_rule("plain", |spec| spec.partitions = 2),
        topic_rule("kept", |spec| spec.retention_bytes = Some(5 << 20)),
    ]));
    let log = &node.log;
    let again = with_topics(vec![topic_rule("plain", |spec| {
        spec.partitions = 6;
        spec.retention = None;
    })]);
    apply(&again, log).unwrap();
    let plain = log.topic("plain").unwrap();
    assert_eq!(plain.partitions().len(), 6);
    assert_eq!(plain.settings().retention_ms, None);
    let kept = log.topic("kept").unwrap();
    assert_eq!(kept.settings().retention_bytes, Some(5 << 20), "not named: as it was");
    let version = log.metadata_version();
    apply(&again, log).unwrap();
    assert_eq!(log.metadata_version(), version, "nothing to do, nothing done");
    let fewer = with_topics(vec![
        topic_rule("new", |_| {}),
        topic_rule("plain", |spec| spec.partitions = 3),
        topic_rule("kept", |spec| spec.partitions = 1),
    ]);
    match apply(&fewer, log) {
        Err(TopicsError::FewerPartitions(which)) => {
            assert_eq!(which.len(), 2, "all of them are said");
            assert_eq!((which[0].has, which[0].wanted), (6, 3));
        }
        other => panic!("{other:?}"),
    }
    assert!(log.topic("new").is_none(), "nothing was changed");
}

#[test]
fn a_glob_gives_settings_and_not_partitions_to_what_exists() {
    let (disk, clock) = (FakeDisk::new(1), FakeClock::new(0));
    let log = open_log(&disk, &clock, &config());
    let name = TopicName::new("made.by.kafka").unwrap();
    log.create_topic(&name, 9, (&crate::testing::spec()).into()).unwrap();
    let rule = topic_rule("made.*", |spec| {
        spec.partitions = 2;
        spec.retention_bytes = Some(7 << 20);
    });
    apply(&with_topics(vec![rule]), &log).unwrap();
    let topic = log.topic("made.by.kafka").unwrap();
    assert_eq!(topic.partitions().len(), 9);
    assert_eq!(topic.settings().retention_bytes, Some(7 << 20));
}

#[test]
fn a_topic_made_by_a_route_has_its_settings() {
    let node = Node::new(Config {
        topics: vec![topic_rule("t.*", |spec| {
            spec.partitions = 3;
            spec.segment_bytes = 2 << 20;
        })],
        routes: vec![route("t/{x}", "t.{x}")],
        ..config()
    });
    node.take(publish("t/a", b"x"));
    let topic = node.log.topic("t.a").unwrap();
    assert_eq!((topic.partitions().len(), topic.settings().segment_bytes), (3, 2 << 20));
}
