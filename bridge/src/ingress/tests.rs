//! Acknowledgements after their point, order, back-pressure, limits and refusals, over the real log.

use super::*;
use crate::route::Fallback;
use crate::testing::{
    Node, RouteExt, accepted, config, publish, publisher, route, topic_rule, uplink,
};
use headwater_config::{Ack, Config, Durability};
use headwater_log::{Offset, TopicName};
use headwater_mqtt::codec::{PublishProperties, QoS};
use headwater_mqtt::{Settled, Store};

fn routed(routes: Vec<headwater_config::Route>) -> Config {
    Config { routes, ..config() }
}

fn payloads(node: &Node, topic: &str) -> Vec<String> {
    let all = node.delivered();
    let of_topic = all.iter().filter(|message| &*message.topic == topic);
    of_topic.map(|message| String::from_utf8(message.payload.to_vec()).unwrap()).collect()
}

#[test]
fn an_acknowledgement_comes_after_its_point_and_not_before() {
    let mut node = Node::new(Config {
        uplinks: vec![uplink("dc", "mirrored")],
        ..routed(vec![
            route("memory", "memory").ack(Ack::Memory, None),
            route("default", "default"),
            route("fsync", "fsync").ack(Ack::Fsync, None),
            route("mirrored", "mirrored").ack(Ack::Mirrored, Some("dc")),
        ])
    });
    let take = |topic| node.take(publish(topic, b"x"));
    let (memory, default, fsync, mirrored) =
        (take("memory"), take("default"), take("fsync"), take("mirrored"));
    // Nothing is committed before the log's threads run.
    assert_eq!(node.settled(&memory), Settled::Passed);
    for ticket in [&default, &fsync, &mirrored] {
        assert_eq!(node.settled(ticket), Settled::Waiting);
    }
    assert!(node.delivered().is_empty(), "nothing is visible before it is committed");
    node.start();
    for ticket in [&default, &fsync] {
        assert_eq!(node.settle(ticket), Settled::Passed);
        let (topic, partition, offset) = node.place(ticket);
        let positions = node.partition(&topic, partition.try_into().unwrap()).positions();
        assert!(positions.synced.get() > offset);
    }
    let (topic, partition, offset) = node.place(&mirrored);
    let partition = node.partition(&topic, partition.try_into().unwrap());
    node.wait_for("the mirrored message is synced", || {
        (partition.positions().synced.get() > offset).then_some(())
    });
    assert_eq!(node.settled(&mirrored), Settled::Waiting, "stored, but not in the centre");
    let hold = partition.hold("uplink/dc");
    hold.advance(Offset::new(offset).unwrap());
    assert_eq!(node.settled(&mirrored), Settled::Waiting, "the end is exclusive");
    hold.advance(Offset::new(offset + 1).unwrap());
    assert_eq!(node.settled(&mirrored), Settled::Passed);
}

#[test]
fn an_acknowledgement_waits_for_every_copy() {
    let mut node = Node::new(Config {
        topics: vec![topic_rule("fast", |spec| spec.durability = Durability::Memory)],
        ..routed(vec![
            route("a/#", "fast").ack(Ack::Memory, None).goes_on(),
            route("a/{x}", "slow").key("{x}"),
        ])
    });
    let ticket = node.take(publish("a/b", b"1"));
    assert_eq!(node.settled(&ticket), Settled::Waiting, "the copy is not synced");
    assert_eq!(node.place(&ticket).0, "fast");
    node.start();
    assert_eq!(node.settle(&ticket), Settled::Passed);
    node.wait_for("the message is visible", || (!node.delivered().is_empty()).then_some(()));
    assert_eq!(payloads(&node, "a/b"), ["1"], "a copy is not delivered a second time");
    let copies: i64 = (0..4).map(|p| node.partition("slow", p).positions().log_end.get()).sum();
    assert_eq!(copies, 1);
}

#[test]
fn slices_keep_their_order_per_topic_and_answer_one_for_one() {
    let mut node = Node::new(routed(vec![
        route("one/{x}", "one").key("{x}"),
        route("two/#", "two").goes_on(),
        route("two/#", "copies"),
    ]));
    let topics = ["one/a", "one/a", "one/b", "two/a", "three", "one/a", "three", "two/a"];
    let sent: Vec<(&str, String)> =
        (0..200).map(|i| (topics[i * 7 % topics.len()], i.to_string())).collect();
    let messages: Vec<Publish<'_>> =
        sent.iter().map(|(topic, payload)| publish(topic, payload.as_bytes())).collect();
    let mut tickets = Vec::new();
    for slice in messages.chunks(33) {
        let outcomes = node.offer(slice);
        assert_eq!(outcomes.len(), slice.len());
        tickets.extend(outcomes.into_iter().map(accepted));
    }
    let mut places: Vec<_> = tickets.iter().map(|ticket| node.place(ticket)).collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), sent.len(), "every message has a place of its own");
    node.start();
    for ticket in &tickets {
        assert_eq!(node.settle(ticket), Settled::Passed);
    }
    for topic in ["one/a", "one/b", "two/a", "three"] {
        let expected: Vec<&str> =
            sent.iter().filter(|(t, _)| *t == topic).map(|(_, p)| p.as_str()).collect();
        assert_eq!(payloads(&node, topic), expected, "{topic}");
    }
}

#[test]
fn a_receipt_names_the_record() {
    let mut node = Node::new(config());
    let tickets: Vec<Ticket> = (0..3).map(|_| node.take(publish("a", b"x"))).collect();
    node.start();
    node.settle(&tickets[2]);
    let expected = crate::partitioner::partition(b"a", 4);
    for (offset, ticket) in (0..).zip(&tickets) {
        assert_eq!(node.place(ticket), ("mqtt".into(), expected.cast_signed(), offset));
    }
}

#[test]
fn a_full_append_path_takes_fewer_and_nothing_twice() {
    let mut node = Node::new(Config {
        storage: headwater_config::Storage { uncommitted_bytes_max: 4_096, ..config().storage },
        ..routed(vec![route("two/#", "two").goes_on(), route("two/#", "copies")])
    });
    let sent: Vec<String> = (0..64).map(|i| format!("{i:0>300}")).collect();
    let messages: Vec<Publish<'_>> = sent
        .iter()
        .enumerate()
        .map(|(i, payload)| publish(if i % 2 == 0 { "one" } else { "two/a" }, payload.as_bytes()))
        .collect();
    let first = node.offer(&messages);
    assert!(!first.is_empty() && first.len() < messages.len(), "took {}", first.len());
    assert!(node.offer(&messages[first.len()..]).is_empty(), "still full");
    let mut tickets: Vec<Ticket> = first.into_iter().map(accepted).collect();
    node.start();
    while tickets.len() < messages.len() {
        let rest = &messages[tickets.len()..];
        let more = node.wait_for("there is room again", || {
            Some(node.offer(rest)).filter(|outcomes| !outcomes.is_empty())
        });
        tickets.extend(more.into_iter().map(accepted));
    }
    for ticket in &tickets {
        assert_eq!(node.settle(ticket), Settled::Passed);
    }
    let odd: Vec<String> = sent.iter().skip(1).step_by(2).cloned().collect();
    let even: Vec<String> = sent.iter().step_by(2).cloned().collect();
    assert_eq!(payloads(&node, "one"), even);
    assert_eq!(payloads(&node, "two/a"), odd);
    let copies: i64 = (0..4).map(|p| node.partition("copies", p).positions().log_end.get()).sum();
    assert_eq!(copies, 32);
}

#[test]
fn a_part_that_is_offered_again_is_not_stored_twice() {
    let node = Node::new(Config {
        storage: headwater_config::Storage { uncommitted_bytes_max: 200, ..config().storage },
        ..routed(vec![route("a", "primary").goes_on(), route("a", "copy")])
    });
    // The primary record alone fills the append path: the copy meets it full.
    let payload = [7; 300];
    assert!(node.offer(&[publish("a", &payload)]).is_empty());
    assert!(node.offer(&[publish("a", &payload)]).is_empty());
    let ends = |topic: &str| -> i64 {
        (0..4).map(|p| node.partition(topic, p).positions().log_end.get()).sum()
    };
    assert_eq!((ends("primary"), ends("copy")), (1, 0));
    let part = node.bridge.parts.take(&publisher("pump-1"), &publish("a", &payload)).unwrap();
    assert_eq!(part.waits.len(), 1);
}

#[test]
fn a_part_serves_no_message_but_the_one_that_is_offered_again() {
    let node = Node::new(Config {
        storage: headwater_config::Storage { uncommitted_bytes_max: 200, ..config().storage },
        ..routed(vec![route("a", "primary").goes_on(), route("a", "copy")])
    });
    let primary =
        || -> i64 { (0..4).map(|p| node.partition("primary", p).positions().log_end.get()).sum() };
    let commit = || while node.log.step_commit() {};
    let payload = [7; 300];
    let message = publish("a", &payload);
    let once = |from: &Publisher| {
        let mut outcomes = Vec::new();
        node.bridge.publish(from, &[message], &mut outcomes);
        outcomes.len()
    };
    let (first, second) = (Publisher::new("pump-1".into()), Publisher::new("pump-1".into()));
    assert_eq!((once(&first), primary()), (0, 1));
    commit();
    assert_eq!((once(&second), primary()), (0, 2), "another connection's message is another");
    commit();
    assert_eq!((once(&second), primary()), (1, 2), "its own is not stored twice");
    commit();
    assert_eq!((once(&second), primary()), (0, 3), "a part is used once");
    node.bridge.withdrawn(&second);
    commit();
    assert_eq!((once(&second), primary()), (0, 4), "the message before was dropped");
    // Another message in its place: the part is gone for good.
    commit();
    let other = [8; 10];
    node.bridge.publish(&second, &[publish("b", &other)], &mut Vec::new());
    commit();
    assert_eq!((once(&second), primary()), (0, 5), "what was offered first was another message");
    node.bridge.withdrawn(&first);
    node.bridge.withdrawn(&second);
    assert_eq!(node.bridge.parts.parts.lock().len(), 0, "nothing outlives the connections");
}

#[test]
fn metadata_changes_are_followed() {
    let mut node = Node::new(routed(vec![route("a", "t")]));
    node.start();
    let name = TopicName::new("t").unwrap();
    assert_eq!(node.place(&node.take(publish("a", b"1"))).0, "t");
    node.log.add_partitions(&name, 64).unwrap();
    let expected = crate::partitioner::partition(b"a", 64).cast_signed();
    assert_eq!(node.place(&node.take(publish("a", b"2"))).1, expected);
    node.log.delete_topic(&name).unwrap();
    let ticket = node.take(publish("a", b"3"));
    assert_eq!(node.settle(&ticket), Settled::Passed);
    assert_eq!(
        node.place(&ticket),
        ("t".into(), crate::partitioner::partition(b"a", 4).cast_signed(), 0)
    );
    assert_eq!(payloads(&node, "a"), ["3"], "the deleted topic's streams are empty");
}

#[test]
fn routes_change_between_calls() {
    let node = Node::new(routed(vec![route("a", "before")]));
    assert_eq!(node.place(&node.take(publish("a", b"1"))).0, "before");
    node.bridge.set_config(Arc::new(routed(vec![route("a", "after")]))).unwrap();
    assert_eq!(node.place(&node.take(publish("a", b"2"))).0, "after");
}

#[test]
fn a_template_makes_at_most_so_many_topics() {
    let mut settings = routed(vec![route("t/{x}", "t.{x}"), route("u/{x}", "u.{x}")]);
    settings.limits.topics_per_route_max = 2;
    let node = Node::new(settings);
    let topic = |mqtt: &str| node.place(&node.take(publish(mqtt, b"x"))).0;
    assert_eq!(topic("t/a"), "t.a");
    assert_eq!(topic("t/b"), "t.b");
    assert_eq!(topic("t/c"), "mqtt", "one too many");
    assert_eq!(topic("t/a"), "t.a", "those that exist go on");
    assert_eq!(topic("u/a"), "u.a", "another route has its own");
    assert_eq!(topic("t/not legal"), "mqtt");
    assert_eq!(topic("t/c"), "mqtt");
    let fallbacks = node.bridge.counters().fallbacks;
    assert!(fallbacks.contains(&(Fallback::RouteFull.as_str(), 2)), "{fallbacks:?}");
    assert!(
        fallbacks.contains(&(Fallback::IllegalName.as_str(), 2))
            || fallbacks.contains(&(Fallback::IllegalName.as_str(), 1)),
        "{fallbacks:?}"
    );
}

#[test]
fn the_node_makes_at_most_so_many_topics() {
    let mut settings = routed(vec![route("t/{x}", "t.{x}"), route("u/{x}", "u.{x}")]);
    settings.limits.topics_max = 3;
    let node = Node::new(settings);
    let topic = |mqtt: &str| node.place(&node.take(publish(mqtt, b"x"))).0;
    assert_eq!((topic("t/a"), topic("u/a")), ("t.a".into(), "u.a".into()));
    assert_eq!(topic("t/b"), "mqtt", "mqtt, t.a and u.a are three");
    assert_eq!(node.bridge.counters().fallbacks[Fallback::NodeFull.index()].1, 1);
    let colliding = Node::new(routed(vec![route("t/{x}", "{x}")]));
    assert_eq!(colliding.place(&colliding.take(publish("t/a.b", b"x"))).0, "a.b");
    assert_eq!(colliding.place(&colliding.take(publish("t/a_b", b"x"))).0, "mqtt");
    assert_eq!(colliding.bridge.counters().fallbacks[Fallback::Collision.index()].1, 1);
}

#[test]
fn hostile_topics_are_stored_whole() {
    let mut node = Node::new(routed(vec![route("x/{x}", "{x}").key("{x}")]));
    let long = "l".repeat(65_535);
    let deep = "/".repeat(1_000);
    let topics =
        ["é/ü", "$internal/x", "a//b", "/", " ", "\u{10ffff}", "x/..", "x/", &long, &deep, "x/é"];
    let tickets: Vec<Ticket> = topics.iter().map(|t| node.take(publish(t, t.as_bytes()))).collect();
    node.start();
    for ticket in &tickets {
        assert_eq!(node.settle(ticket), Settled::Passed);
        assert_eq!(node.place(ticket).0, "mqtt");
    }
    let mut seen: Vec<String> = node.delivered().iter().map(|m| m.topic.to_string()).collect();
    let mut sent: Vec<String> = topics.iter().map(|t| (*t).to_owned()).collect();
    seen.sort();
    sent.sort();
    assert_eq!(seen, sent);
}

#[test]
fn an_empty_payload_stays_one() {
    let mut node = Node::new(config());
    let ticket = node.take(publish("a", b""));
    node.start();
    node.settle(&ticket);
    assert_eq!(payloads(&node, "a"), [""]);
}

#[test]
fn mirrored_to_nowhere_is_refused() {
    let node = Node::new(Config {
        uplinks: vec![uplink("dc", "t.*")],
        ..routed(vec![route("t/{x}", "t.{x}").ack(Ack::Mirrored, Some("dc"))])
    });
    let ticket = node.take(publish("t/a", b"x"));
    assert_eq!(node.settled(&ticket), Settled::Waiting);
    // Falls back to topic `mqtt`, which the uplink does not carry: the promise could never be kept.
    assert_eq!(node.refuse(publish("t/not legal", b"x")), Refusal::NotAuthorized);
    assert_eq!(node.bridge.counters().mirrored_nowhere, 1);
}

#[test]
fn one_message_too_large_refuses_itself_only() {
    let node = Node::new(Config {
        topics: vec![topic_rule("mqtt", |spec| spec.batch_bytes_max = 1_024)],
        ..config()
    });
    let large = vec![0; 2_000];
    let outcomes = node.offer(&[publish("a", b"1"), publish("a", &large), publish("a", b"3")]);
    assert!(
        matches!(
            outcomes.as_slice(),
            [Outcome::Accepted(_), Outcome::Refused(Refusal::TooLarge), Outcome::Accepted(_)]
        ),
        "{outcomes:?}"
    );
}

#[test]
fn refusals_say_what_the_publisher_can_do() {
    assert_eq!(refusal(&AppendError::DiskFull), Refusal::DiskFull);
    assert_eq!(
        refusal(&AppendError::TooLarge { size_bytes: 2, limit_bytes: 1 }),
        Refusal::TooLarge
    );
    assert_eq!(refusal(&AppendError::Offline("io".into())), Refusal::Offline);
    assert_eq!(refusal(&AppendError::Deleted), Refusal::Offline);
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut node = Node::new(config());
    node.start();
    assert_eq!(node.settle(&node.take(publish("a", b"before"))), Settled::Passed);
    node.disk.set_capacity(Some(node.disk.used_bytes()));
    let payload = vec![1; 100_000];
    // What was appended before the disk was found full is never acknowledged; then appends are refused.
    let refused = (0..1_000).find_map(|_| match node.offer(&[publish("a", &payload)]).pop()? {
        Outcome::Refused(refusal) => Some(refusal),
        Outcome::Accepted(ticket) => match node.settle(&ticket) {
            Settled::Failed(refusal) => Some(refusal),
            _ => None,
        },
    });
    assert_eq!(refused, Some(Refusal::DiskFull));
    node.disk.set_capacity(None);
    let ticket = node.wait_for("there is room again", || {
        node.clock.advance_ms(1_000);
        match node.offer(&[publish("a", b"after")]).pop() {
            Some(Outcome::Accepted(ticket)) => Some(ticket),
            _ => None,
        }
    });
    assert_eq!(node.settle(&ticket), Settled::Passed);
    assert_eq!(node.place(&ticket).0, "mqtt");
    let seen = payloads(&node, "a");
    assert_eq!(seen.first().map(String::as_str), Some("before"));
    assert_eq!(seen.last().map(String::as_str), Some("after"));
}

#[test]
fn neighbours_in_a_slice_keep_their_own_headers() {
    let mut node = Node::new(routed(vec![route("k/{x}", "keyed").key("same")]));
    let plain = publish("k/a", b"1");
    let with_type = PublishProperties { content_type: Some("t"), ..PublishProperties::default() };
    let sent = [
        plain,
        plain,
        Publish { retain: true, ..plain },
        Publish { properties: with_type, ..plain },
        plain,
        Publish { topic: "k/b", ..plain },
        Publish { qos: QoS::AtMostOnce, packet_id: None, ..publish("k/b", b"1") },
        plain,
    ];
    let tickets: Vec<Ticket> = node.offer(&sent).into_iter().map(accepted).collect();
    node.start();
    node.settle(tickets.last().unwrap());
    let seen = node.delivered();
    assert_eq!(seen.len(), sent.len());
    for (sent, seen) in sent.iter().zip(&seen) {
        assert_eq!(&*seen.topic, sent.topic);
        assert_eq!((seen.retain, seen.qos), (sent.retain, sent.qos));
        assert_eq!(seen.content_type.as_deref(), sent.properties.content_type);
    }
}
