//! The server over real TCP, against a store that the tests control: acknowledgements, delivery, what is refused.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking, as the test does")]

mod support;

use headwater_mqtt::Limits;
use headwater_mqtt::codec::{
    Acknowledgement, Connect, ConnectProperties, Disconnect, Packet, PacketId, Publish,
    PublishProperties, QoS, ReasonCode, SubscriptionOptions, TopicFilters, Unsubscribe,
    UserProperties, UserPropertiesBuf, Version, Will, WillProperties,
};
use headwater_mqtt::counters::{DropCause, RefuseCause};
use headwater_mqtt::{Refusal, Shared};
use std::time::Duration;
use support::client::{Client, connect, publish, qos};
use support::store::MemoryStore;
use support::{Server, on_shard_thread, until};
use tokio::io::AsyncWriteExt;

const VERSIONS: [Version; 3] = [Version::V3, Version::V311, Version::V5];

fn numbered(id: u16) -> String {
    format!("message {id}")
}

#[test]
fn qos_1_is_acknowledged_after_its_commit_and_in_order() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        server.store.state().commit_at_once = false;
        for version in VERSIONS {
            let mut client = Client::connect(server.address, version, "a").await;
            // Topics of both streams, so that a later message may be committed before an earlier one.
            let payloads: Vec<String> = (1..=20).map(numbered).collect();
            let topics: Vec<String> = (1..=20).map(|i| format!("t/{}", i % 5)).collect();
            let packets: Vec<Packet<'_>> = (1..=20u16)
                .map(|id| {
                    let at = usize::from(id) - 1;
                    Packet::Publish(publish(&topics[at], payloads[at].as_bytes(), id))
                })
                .collect();
            client.send_all(&packets).await;
            client.expect_nothing().await;
            assert_eq!(server.store.uncommitted(), 20);
            for _ in 0..20 {
                server.store.commit_one();
            }
            for id in 1..=20 {
                assert_eq!(client.next().await.puback(), id);
            }
            client.expect_nothing().await;
        }
    });
}

#[test]
fn an_acknowledgement_waits_for_those_before_it() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        server.store.state().commit_at_once = false;
        let mut client = Client::connect(server.address, Version::V311, "a").await;
        // Find two topics that live in different streams; the second stream is committed first.
        let first = "one";
        client.send(&Packet::Publish(publish(first, b"x", 1))).await;
        client.expect_nothing().await;
        let other = (0..64)
            .map(|i| format!("other/{i}"))
            .find(|topic| MemoryStore::stream_of(topic, 2) != MemoryStore::stream_of(first, 2))
            .unwrap();
        client.send(&Packet::Publish(publish(&other, b"y", 2))).await;
        client.expect_nothing().await;
        server.store.commit_stream(MemoryStore::stream_of(&other, 2));
        client.expect_nothing().await;
        server.store.commit();
        assert_eq!(client.next().await.puback(), 1);
        assert_eq!(client.next().await.puback(), 2);
    });
}

#[test]
fn messages_reach_subscribers_only_when_committed() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let mut subscriber = Client::connect(server.address, Version::V5, "sub").await;
        let granted = subscriber.subscribe(&[("plant/+/é/#", qos(QoS::ExactlyOnce))]).await;
        assert_eq!(granted, [ReasonCode::GrantedQoS1]);
        server.store.state().commit_at_once = false;
        let mut publisher = Client::connect(server.address, Version::V311, "pub").await;
        publisher.send(&Packet::Publish(publish("plant/7/é/x", b"hot", 1))).await;
        publisher.expect_nothing().await;
        subscriber.expect_nothing().await;
        server.store.commit();
        let frame = subscriber.next().await;
        let message = frame.publish();
        assert_eq!((message.topic, message.payload), ("plant/7/é/x", &b"hot"[..]));
        assert_eq!((message.qos, message.retain, message.dup), (QoS::AtLeastOnce, false, false));
        assert_eq!(publisher.next().await.puback(), 1);
    });
}

#[test]
fn every_version_hears_every_version_with_all_properties() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let mut properties = UserPropertiesBuf::default();
        properties.push("unit", "°C").unwrap();
        properties.push("unit", "K").unwrap();
        for to in VERSIONS {
            let mut subscriber = Client::connect(server.address, to, "sub").await;
            subscriber.subscribe(&[("#", qos(QoS::AtLeastOnce))]).await;
            for from in VERSIONS {
                let mut publisher = Client::connect(server.address, from, "pub").await;
                let full = PublishProperties {
                    payload_format_indicator: Some(1),
                    message_expiry_interval_s: Some(60),
                    response_topic: Some("answer/here"),
                    correlation_data: Some(b"\x00\x01"),
                    user_properties: properties.as_properties(),
                    content_type: Some("text/plain"),
                    ..PublishProperties::default()
                };
                let sent = Publish {
                    properties: if from == Version::V5 { full } else { Default::default() },
                    ..publish("é/x", b"21.5", 5)
                };
                publisher.send(&Packet::Publish(sent)).await;
                assert_eq!(publisher.next().await.puback(), 5);
                let frame = subscriber.next().await;
                let got = frame.publish();
                assert_eq!((got.topic, got.payload, got.qos), ("é/x", &b"21.5"[..], sent.qos));
                let wanted =
                    if to == Version::V5 { sent.properties } else { PublishProperties::default() };
                assert_eq!(got.properties, wanted, "{from:?} to {to:?}");
            }
        }
    });
}

#[test]
fn overlapping_filters_are_one_delivery_with_all_identifiers() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let mut client = Client::connect(server.address, Version::V5, "a").await;
        client.subscribe_with(Some(1), &[("a/#", qos(QoS::AtMostOnce))]).await;
        client.subscribe_with(Some(2), &[("a/+", qos(QoS::AtLeastOnce))]).await;
        client.subscribe_with(Some(3), &[("a/c", qos(QoS::AtLeastOnce))]).await;
        client.publish("a/b", "x").await;
        let frame = client.next().await;
        let message = frame.publish();
        let mut identifiers: Vec<u32> =
            message.properties.subscription_identifiers.iter().collect();
        identifiers.sort_unstable();
        assert_eq!(identifiers, [1, 2]);
        assert_eq!(message.qos, QoS::AtLeastOnce);
        client.expect_nothing().await;
        // At QoS 0 the lower one counts: that of the message.
        client.send(&Packet::Publish(publish("a/c/d", b"y", 0))).await;
        let frame = client.next().await;
        assert_eq!(frame.publish().qos, QoS::AtMostOnce);
        client.expect_nothing().await;
    });
}

#[test]
fn no_local_and_retain_as_published() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let mut own = Client::connect(server.address, Version::V5, "own").await;
        let options = SubscriptionOptions {
            no_local: true,
            retain_as_published: true,
            ..qos(QoS::AtLeastOnce)
        };
        own.subscribe(&[("n/#", options)]).await;
        own.publish("n/1", "mine").await;
        own.expect_nothing().await;
        let mut other = Client::connect(server.address, Version::V311, "other").await;
        let retained = Publish { retain: true, ..publish("n/1", b"theirs", 1) };
        other.send(&Packet::Publish(retained)).await;
        assert_eq!(other.next().await.puback(), 1);
        let frame = own.next().await;
        assert_eq!((frame.text().as_str(), frame.publish().retain), ("theirs", true));
        // Another subscriber without the option sees no flag.
        let mut plain = Client::connect(server.address, Version::V5, "plain").await;
        plain.subscribe(&[("n/#", qos(QoS::AtMostOnce))]).await;
        other.send(&Packet::Publish(retained)).await;
        assert!(!plain.next().await.publish().retain);
    });
}

#[test]
fn unsubscribing_ends_delivery_and_answers_per_filter() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let mut client = Client::connect(server.address, Version::V5, "a").await;
        client.subscribe(&[("a", qos(QoS::AtLeastOnce)), ("b", qos(QoS::AtLeastOnce))]).await;
        let packet_id = PacketId::new(3).unwrap();
        client
            .send(&Packet::Unsubscribe(Unsubscribe {
                packet_id,
                user_properties: UserProperties::default(),
                filters: TopicFilters::new(&["a", "c"]),
            }))
            .await;
        let frame = client.next().await;
        let Packet::UnsubAck(unsuback) = frame.packet() else { panic!("not an UNSUBACK") };
        assert_eq!(unsuback.packet_id, packet_id);
        let reasons: Vec<_> = unsuback.reasons.iter().collect();
        assert_eq!(reasons, [ReasonCode::Success, ReasonCode::NoSubscriptionExisted]);
        client.publish("a", "not for me").await;
        client.publish("b", "for me").await;
        assert_eq!(client.next().await.text(), "for me");
        let subscriptions: u64 =
            server.shared.counters().iter().map(|c| c.subscriptions.get()).sum();
        assert_eq!(subscriptions, 1);
    });
}

#[test]
fn filters_that_cannot_be_granted_are_answered() {
    on_shard_thread(async {
        let limits = Limits { subscriptions_max: 2, ..Limits::default() };
        let server = Server::start(limits).await;
        let deep = "a/".repeat(200);
        let wanted = [
            ("$share/g/a", ReasonCode::SharedSubscriptionsNotSupported),
            (deep.as_str(), ReasonCode::QuotaExceeded),
            ("one", ReasonCode::GrantedQoS1),
            ("two", ReasonCode::GrantedQoS1),
            ("two", ReasonCode::GrantedQoS1),
            ("three", ReasonCode::QuotaExceeded),
        ];
        for version in [Version::V5, Version::V311] {
            let mut client = Client::connect(server.address, version, "a").await;
            let filters: Vec<_> = wanted.iter().map(|(f, _)| (*f, qos(QoS::AtLeastOnce))).collect();
            let reasons = client.subscribe(&filters).await;
            for ((filter, wanted), reason) in wanted.iter().zip(reasons) {
                let wanted = match version {
                    Version::V5 => *wanted,
                    _ if wanted.is_error() => ReasonCode::UnspecifiedError,
                    _ => *wanted,
                };
                assert_eq!(reason, wanted, "{filter}");
            }
        }
    });
}

#[test]
fn with_no_subscription_nothing_is_read() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let mut client = Client::connect(server.address, Version::V5, "a").await;
        for i in 0..10 {
            client.publish("a", &numbered(i)).await;
        }
        assert_eq!(server.store.state().reads, 0);
        // And a subscriber starts at the end, not at the beginning.
        client.subscribe(&[("a", qos(QoS::AtLeastOnce))]).await;
        client.publish("a", "new").await;
        assert_eq!(client.next().await.text(), "new");
    });
}

#[test]
fn a_slow_subscriber_reads_the_log_and_misses_nothing() {
    on_shard_thread(async {
        let limits = Limits { queue_messages_max: 8, ..Limits::default() };
        let server = Server::start(limits).await;
        let mut slow = Client::open(server.address, Version::V5).await;
        let properties = ConnectProperties { receive_maximum: Some(2), ..Default::default() };
        slow.send(&Packet::Connect(Connect { properties, ..connect(Version::V5, "slow") })).await;
        slow.next().await.connack();
        slow.subscribe(&[("s/#", qos(QoS::AtLeastOnce))]).await;
        let mut fast = Client::connect(server.address, Version::V5, "fast").await;
        fast.subscribe(&[("s/#", qos(QoS::AtLeastOnce))]).await;
        let mut publisher = Client::connect(server.address, Version::V5, "pub").await;
        let mut per_topic = [0u32; 4];
        for i in 0..200u16 {
            let topic = usize::from(i) % 4;
            publisher.publish(&format!("s/{topic}"), &numbered(i)).await;
            let frame = fast.next().await;
            assert_eq!(frame.text(), numbered(i));
            let ack = frame.publish().packet_id.unwrap();
            fast.send_bytes(&Acknowledgement::PubAck.success(ack)).await;
            if i == 100 {
                // What is behind now is only on disk.
                for stream in &mut server.store.state().streams {
                    stream.in_memory = 40;
                }
            }
        }
        let behind = || server.shared.counters().iter().map(|c| c.behind.get()).sum::<u64>();
        assert_eq!(behind(), 1, "the slow one is behind, the fast one is not");
        for i in 0..200u32 {
            if i == 150 {
                // Live messages go on while it catches up.
                for j in 200..220u16 {
                    publisher.publish(&format!("s/{}", j % 4), &numbered(j)).await;
                }
            }
            read_one(&mut slow, &mut per_topic).await;
        }
        for _ in 200..220 {
            read_one(&mut slow, &mut per_topic).await;
        }
        assert_eq!(per_topic, [55; 4]);
        until(|| behind() == 0).await;
        assert!(server.store.state().cold_reads > 0);
        publisher.publish("s/0", &numbered(220)).await;
        read_one(&mut slow, &mut per_topic).await;
        slow.expect_nothing().await;
        assert_eq!(server.store.state().lost, []);
    });
}

/// Reads one message, checks that it is the next of its topic, and acknowledges it.
async fn read_one(client: &mut Client, per_topic: &mut [u32; 4]) {
    let frame = client.next().await;
    let message = frame.publish();
    let topic: usize = message.topic.strip_prefix("s/").unwrap().parse().unwrap();
    let number = per_topic[topic] * 4 + topic as u32;
    assert_eq!(frame.text(), format!("message {number}"));
    per_topic[topic] += 1;
    let ack = message.packet_id.unwrap();
    client.send_bytes(&Acknowledgement::PubAck.success(ack)).await;
}

#[test]
fn retention_that_passes_a_slow_subscriber_is_a_recorded_loss() {
    on_shard_thread(async {
        let limits = Limits { queue_messages_max: 4, ..Limits::default() };
        let server = Server::start(limits).await;
        let properties = ConnectProperties { receive_maximum: Some(1), ..Default::default() };
        let slow = Connect { properties, ..connect(Version::V5, "slow") };
        let (mut slow, _) = Client::connect_with(server.address, &slow).await;
        slow.subscribe(&[("s", qos(QoS::AtLeastOnce))]).await;
        let mut publisher = Client::connect(server.address, Version::V5, "pub").await;
        for i in 0..50 {
            publisher.publish("s", &numbered(i)).await;
        }
        for stream in &mut server.store.state().streams {
            stream.start = 30;
        }
        let mut got = Vec::new();
        while got.last() != Some(&numbered(49)) {
            let frame = slow.next().await;
            got.push(frame.text());
            let ack = frame.publish().packet_id.unwrap();
            slow.send_bytes(&Acknowledgement::PubAck.success(ack)).await;
        }
        // One in flight, four queued, then what retention left.
        let wanted: Vec<String> = (0..5).chain(30..50).map(numbered).collect();
        assert_eq!(got, wanted);
        let lost = server.store.state().lost.clone();
        assert_eq!(lost, [("retention", "slow".to_owned(), 5, 30)]);
        assert_eq!(server.dropped(DropCause::Retention), 25);
    });
}

#[test]
fn a_slow_qos_0_subscriber_is_moved_on_when_memory_is_left() {
    on_shard_thread(async {
        let limits = Limits {
            queue_messages_max: 4,
            write_buffer_bytes: 1,
            write_buffer_bytes_max: 1 << 30,
            ..Limits::default()
        };
        let server = Server::start(limits).await;
        let mut slow = Client::connect(server.address, Version::V311, "slow").await;
        slow.subscribe(&[("s", qos(QoS::AtMostOnce))]).await;
        let mut publisher = Client::connect(server.address, Version::V311, "pub").await;
        // The client does not read: its socket buffers fill, then the queue, then it is behind.
        let big = "x".repeat(500_000);
        let behind = || server.shared.counters().iter().map(|c| c.behind.get()).sum::<u64>();
        let mut sent = 0u64;
        while behind() == 0 {
            publisher.publish("s", &big).await;
            sent += 1;
            assert!(sent < 200, "the socket took 100 MB");
        }
        for _ in 0..5 {
            publisher.publish("s", &big).await;
            sent += 1;
        }
        for stream in &mut server.store.state().streams {
            stream.in_memory = sent;
        }
        let mut got = 0u64;
        // Nothing more may come before it is moved on, so wait for whichever is first.
        loop {
            tokio::select! {
                frame = slow.next() => {
                    frame.publish();
                    got += 1;
                }
                () = until(|| behind() == 0) => break,
            }
        }
        publisher.publish("s", "last").await;
        loop {
            let text = slow.next().await.text();
            if text == "last" {
                break;
            }
            got += 1;
        }
        let dropped = server.dropped(DropCause::SlowSubscriber);
        assert!(dropped >= 5, "{dropped}");
        assert_eq!(got + dropped, sent);
        assert_eq!(server.store.state().lost.len(), 1);
    });
}

#[test]
fn a_message_too_large_for_its_subscriber_is_dropped_with_its_cause() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let properties =
            ConnectProperties { maximum_packet_size_bytes: Some(100), ..Default::default() };
        let small = Connect { properties, ..connect(Version::V5, "small") };
        let (mut small, _) = Client::connect_with(server.address, &small).await;
        small.subscribe(&[("a", qos(QoS::AtLeastOnce))]).await;
        let mut publisher = Client::connect(server.address, Version::V5, "pub").await;
        publisher.publish("a", &"x".repeat(100)).await;
        publisher.publish("a", "fits").await;
        assert_eq!(small.next().await.text(), "fits");
        assert_eq!(server.dropped(DropCause::SubscriberPacketTooLarge), 1);
        let dropped = server.store.state().dropped.clone();
        assert_eq!(dropped, [("subscriber_packet_too_large", "a".to_owned(), 1)]);
    });
}

#[test]
fn expired_messages_are_not_sent_and_others_say_what_is_left() {
    on_shard_thread(async {
        let limits = Limits { queue_messages_max: 100, ..Limits::default() };
        let server = Server::start(limits).await;
        let properties = ConnectProperties { receive_maximum: Some(1), ..Default::default() };
        let slow = Connect { properties, ..connect(Version::V5, "slow") };
        let (mut slow, _) = Client::connect_with(server.address, &slow).await;
        slow.subscribe(&[("a", qos(QoS::AtLeastOnce))]).await;
        let mut publisher = Client::connect(server.address, Version::V5, "pub").await;
        for (payload, expiry) in [("first", None), ("short", Some(5)), ("long", Some(60))] {
            let properties =
                PublishProperties { message_expiry_interval_s: expiry, ..Default::default() };
            let packet = Publish { properties, ..publish("a", payload.as_bytes(), 1) };
            publisher.send(&Packet::Publish(packet)).await;
            assert_eq!(publisher.next().await.puback(), 1);
        }
        let first = slow.next().await;
        assert_eq!(first.text(), "first");
        server.store.set_now_ms(1_000_000 + 9_500);
        let ack = first.publish().packet_id.unwrap();
        slow.send_bytes(&Acknowledgement::PubAck.success(ack)).await;
        let long = slow.next().await;
        assert_eq!(long.text(), "long");
        assert_eq!(long.publish().properties.message_expiry_interval_s, Some(51));
        assert_eq!(server.dropped(DropCause::Expired), 1);
    });
}

#[test]
fn more_unacknowledged_messages_than_announced_end_the_connection() {
    on_shard_thread(async {
        let limits = Limits { receive_max: 3, receive_max_v3: 3, ..Limits::default() };
        let server = Server::start(limits).await;
        server.store.state().commit_at_once = false;
        let (mut client, connack) =
            Client::connect_with(server.address, &connect(Version::V5, "a")).await;
        assert_eq!(connack.connack().properties.receive_maximum, Some(3));
        for id in 1..=3 {
            client.send(&Packet::Publish(publish("a", b"x", id))).await;
        }
        // QoS 0 does not count.
        client.send(&Packet::Publish(publish("a", b"x", 0))).await;
        client.expect_nothing().await;
        client.send(&Packet::Publish(publish("a", b"x", 4))).await;
        assert_eq!(client.next().await.disconnect(), ReasonCode::ReceiveMaximumExceeded);
        assert!(client.next_or_end().await.is_none());
        let mut old = Client::connect(server.address, Version::V311, "b").await;
        for id in 1..=4 {
            old.send(&Packet::Publish(publish("a", b"x", id))).await;
        }
        assert!(old.next_or_end().await.is_none());
        assert_eq!(server.refused(RefuseCause::ReceiveMax), 2);
    });
}

#[test]
fn a_full_append_path_stops_reading_and_loses_nothing_at_qos_1() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        {
            let mut state = server.store.state();
            state.commit_at_once = false;
            state.room = 2;
        }
        // A keep-alive that runs out while the server does not read: it is suspended.
        let patient = Connect { keep_alive_s: 1, ..connect(Version::V311, "a") };
        let (mut client, _) = Client::connect_with(server.address, &patient).await;
        let payloads: Vec<String> = (1..=6).map(numbered).collect();
        let packets: Vec<_> = (1..=6u16)
            .map(|id| Packet::Publish(publish("a", payloads[usize::from(id) - 1].as_bytes(), id)))
            .chain([Packet::PingReq])
            .collect();
        client.send_all(&packets).await;
        let blocked = || server.shared.counters().iter().map(|c| c.blocked.get()).sum::<u64>();
        until(|| blocked() == 1).await;
        tokio::time::sleep(Duration::from_millis(1_800)).await;
        assert_eq!(server.store.uncommitted(), 2);
        for id in [1, 3, 5] {
            until(|| server.store.uncommitted() == 2).await;
            if id == 5 {
                // Only now is what came behind them handled.
                assert!(matches!(client.next().await.packet(), Packet::PingResp));
            }
            server.store.commit();
            assert_eq!(client.next().await.puback(), id);
            assert_eq!(client.next().await.puback(), id + 1);
        }
        assert_eq!(blocked(), 0);
        assert_eq!(server.store.state().taken, payloads);
        assert_eq!(server.refused(RefuseCause::KeepAlive), 0);
    });
}

#[test]
fn qos_0_waits_for_a_full_append_path_and_is_then_dropped() {
    on_shard_thread(async {
        let limits = Limits { backpressure_wait: Duration::from_millis(200), ..Limits::default() };
        let server = Server::start(limits).await;
        {
            let mut state = server.store.state();
            state.commit_at_once = false;
            state.room = 1;
        }
        let mut client = Client::connect(server.address, Version::V5, "a").await;
        let packets: Vec<_> = [("kept", 0), ("dropped 1", 0), ("dropped 2", 0), ("kept too", 7)]
            .map(|(payload, id)| Packet::Publish(publish("a", payload.as_bytes(), id)))
            .into();
        client.send_all(&packets).await;
        until(|| server.dropped(DropCause::Backpressure) == 2).await;
        assert_eq!(server.store.state().dropped, [("backpressure", "a".to_owned(), 2)]);
        server.store.commit();
        until(|| server.store.uncommitted() == 1).await;
        server.store.commit();
        assert_eq!(client.next().await.puback(), 7);
        assert_eq!(server.store.state().taken, ["kept", "kept too"]);
    });
}

#[test]
fn a_full_disk_is_said_in_version_5_and_closes_below() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        server.store.state().refuse = Some(Refusal::DiskFull);
        let mut new = Client::connect(server.address, Version::V5, "new").await;
        new.send(&Packet::Publish(publish("a", b"x", 1))).await;
        let frame = new.next().await;
        let Packet::PubAck(ack) = frame.packet() else { panic!("not a PUBACK") };
        assert_eq!((ack.packet_id.get(), ack.reason), (1, ReasonCode::QuotaExceeded));
        assert!(ack.properties.reason_string.is_some());
        let mut old = Client::connect(server.address, Version::V311, "old").await;
        old.send(&Packet::Publish(publish("a", b"x", 1))).await;
        assert!(old.next_or_end().await.is_none());
        new.send(&Packet::Publish(publish("a", b"x", 0))).await;
        new.expect_nothing().await;
        assert_eq!(server.dropped(DropCause::DiskFull), 1);
        // The same for what was taken and could not be committed.
        server.store.state().refuse = None;
        server.store.state().commit_at_once = false;
        new.send(&Packet::Publish(publish("a", b"x", 2))).await;
        new.expect_nothing().await;
        server.store.state().fail = Some(Refusal::DiskFull);
        server.store.wake();
        let frame = new.next().await;
        let Packet::PubAck(ack) = frame.packet() else { panic!("not a PUBACK") };
        assert_eq!((ack.packet_id.get(), ack.reason), (2, ReasonCode::QuotaExceeded));
        // And it goes on when there is room.
        server.store.state().fail = None;
        new.send(&Packet::Publish(publish("a", b"x", 3))).await;
        new.expect_nothing().await;
        server.store.commit();
        assert_eq!(new.next().await.puback(), 3);
    });
}

#[test]
fn receipts_say_where_a_message_went() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let mut asked = UserPropertiesBuf::default();
        asked.push("headwater-receipt", "1").unwrap();
        let properties =
            ConnectProperties { user_properties: asked.as_properties(), ..Default::default() };
        let (mut client, _) = Client::connect_with(
            server.address,
            &Connect { properties, ..connect(Version::V5, "a") },
        )
        .await;
        client.send(&Packet::Publish(publish("a", b"x", 1))).await;
        let frame = client.next().await;
        let Packet::PubAck(ack) = frame.packet() else { panic!("not a PUBACK") };
        assert_eq!(ack.properties.user_properties.get("topic"), Some("memory"));
        assert_eq!(ack.properties.user_properties.get("offset"), Some("0"));
        assert!(ack.properties.user_properties.get("partition").is_some());
    });
}

#[test]
fn topic_aliases_stand_for_their_topics_even_when_they_change() {
    on_shard_thread(async {
        let limits = Limits { topic_alias_max: 2, ..Limits::default() };
        let server = Server::start(limits).await;
        let mut subscriber = Client::connect(server.address, Version::V311, "sub").await;
        subscriber.subscribe(&[("#", qos(QoS::AtMostOnce))]).await;
        let (mut client, connack) =
            Client::connect_with(server.address, &connect(Version::V5, "a")).await;
        assert_eq!(connack.connack().properties.topic_alias_maximum, Some(2));
        let aliased = |topic: &'static str, alias| {
            let properties =
                PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
            Packet::Publish(Publish { properties, ..publish(topic, b"x", 0) })
        };
        // All in one write, so that they are handled in one go.
        let steps = [("one", 1), ("", 1), ("two", 2), ("", 1), ("three", 1), ("", 1), ("", 2)];
        let packets: Vec<_> = steps.map(|(topic, alias)| aliased(topic, alias)).into();
        client.send_all(&packets).await;
        // Two streams: order holds per topic, so compare what came as a set.
        let mut got = Vec::new();
        for _ in 0..7 {
            got.push(subscriber.next().await.publish().topic.to_owned());
        }
        got.sort_unstable();
        assert_eq!(got, ["one", "one", "one", "three", "three", "two", "two"]);
        client.send(&aliased("four", 3)).await;
        assert_eq!(client.next().await.disconnect(), ReasonCode::TopicAliasInvalid);
    });
}

#[test]
fn what_is_not_available_is_refused_by_the_protocols_own_means() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let refused = |packet: Packet<'static>, wanted: ReasonCode| {
            let address = server.address;
            async move {
                let mut client = Client::connect(address, Version::V5, "a").await;
                client.send(&packet).await;
                assert_eq!(client.next().await.disconnect(), wanted);
                assert!(client.next_or_end().await.is_none());
                let mut client = Client::connect(address, Version::V311, "b").await;
                client.send(&packet).await;
                let answer = client.next_or_end().await;
                (answer.is_none(), client)
            }
        };
        let twice = Publish { qos: QoS::ExactlyOnce, ..publish("a", b"x", 1) };
        let (closed, _) = refused(Packet::Publish(twice), ReasonCode::QoSNotSupported).await;
        assert!(closed);
        // Below MQTT 5 a retained message is stored and delivered like any other.
        let retained = Publish { retain: true, ..publish("a", b"x", 1) };
        let (closed, mut client) =
            refused(Packet::Publish(retained), ReasonCode::RetainNotSupported).await;
        assert!(!closed);
        client.expect_nothing().await;
        let mut client = Client::connect(server.address, Version::V5, "c").await;
        client.send(&Packet::Publish(publish("$SYS/x", b"x", 4))).await;
        let frame = client.next().await;
        let Packet::PubAck(ack) = frame.packet() else { panic!("not a PUBACK") };
        assert_eq!((ack.packet_id.get(), ack.reason), (4, ReasonCode::TopicNameInvalid));
        let mut client = Client::connect(server.address, Version::V5, "d").await;
        client
            .send(&Packet::PubRec(headwater_mqtt::codec::Ack::new(
                PacketId::new(1).unwrap(),
                ReasonCode::Success,
            )))
            .await;
        assert_eq!(client.next().await.disconnect(), ReasonCode::ProtocolError);
        assert_eq!(server.store.state().taken, ["x"]);
    });
}

#[test]
fn wills_are_refused_with_their_reason() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let will = |qos, retain| Will {
            topic: "w",
            payload: b"gone",
            qos,
            retain,
            properties: WillProperties::default(),
        };
        let table = [
            (will(QoS::ExactlyOnce, false), ReasonCode::QoSNotSupported),
            (will(QoS::AtLeastOnce, true), ReasonCode::RetainNotSupported),
            (will(QoS::AtLeastOnce, false), ReasonCode::ImplementationSpecificError),
        ];
        for (will, wanted) in table {
            let packet = Connect { will: Some(will), ..connect(Version::V5, "a") };
            let (mut client, connack) = Client::connect_with(server.address, &packet).await;
            let connack = connack.connack();
            assert_eq!(connack.reason, wanted);
            assert!(connack.properties.reason_string.is_some());
            assert!(client.next_or_end().await.is_none());
            let mut old = Client::open(server.address, Version::V311).await;
            let packet = Connect { will: Some(will), ..connect(Version::V311, "a") };
            old.send(&Packet::Connect(packet)).await;
            assert!(old.next_or_end().await.is_none());
        }
        assert_eq!(server.refused(RefuseCause::Unsupported), 6);
    });
}

#[test]
fn connack_announces_the_limits() {
    on_shard_thread(async {
        let limits = Limits { keep_alive_s_max: 30, ..Limits::default() };
        let server = Server::start(limits.clone()).await;
        let properties =
            ConnectProperties { session_expiry_interval_s: Some(3_600), ..Default::default() };
        let packet = Connect { keep_alive_s: 600, properties, ..connect(Version::V5, "") };
        let (mut client, connack) = Client::connect_with(server.address, &packet).await;
        let connack = connack.connack();
        let said = connack.properties;
        assert_eq!(connack.reason, ReasonCode::Success);
        assert_eq!(said.maximum_qos, Some(QoS::AtLeastOnce));
        assert_eq!(said.retain_available, Some(false));
        assert_eq!(said.shared_subscription_available, Some(false));
        assert_eq!(said.session_expiry_interval_s, Some(0));
        assert_eq!(said.receive_maximum, Some(limits.receive_max));
        assert_eq!(said.maximum_packet_size_bytes, Some(1_000_000));
        assert_eq!(said.topic_alias_maximum, Some(limits.topic_alias_max));
        assert_eq!(said.server_keep_alive_s, Some(30));
        assert!(said.assigned_client_identifier.is_some_and(|id| id.len() > 20));
        client.expect_nothing().await;
        // A client that asked for nothing special is told nothing special.
        let (_client, connack) = Client::connect_with(
            server.address,
            &Connect { keep_alive_s: 5, ..connect(Version::V5, "x") },
        )
        .await;
        let said = connack.connack().properties;
        assert_eq!((said.session_expiry_interval_s, said.server_keep_alive_s), (None, None));
        assert_eq!(said.assigned_client_identifier, None);
    });
}

#[test]
fn a_later_connection_takes_the_client_identifier_over_across_shards() {
    let shared = Shared::new(MemoryStore::new(2), Limits::default());
    let (address_out, address_in) = std::sync::mpsc::channel();
    let mut threads = Vec::new();
    for _ in 0..2 {
        let (shared, address_out) = (shared.clone(), address_out.clone());
        threads.push(std::thread::spawn(move || {
            on_shard_thread(async {
                let (shard, address) = support::shard(&shared).await;
                address_out.send(address).unwrap();
                // Served until the test stops the server.
                while !shard.is_stopping() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                shard.drained().await;
            });
        }));
    }
    let addresses = [address_in.recv().unwrap(), address_in.recv().unwrap()];
    on_shard_thread(async {
        let mut holder = Client::connect(addresses[0], Version::V5, "same").await;
        holder.subscribe(&[("a", qos(QoS::AtLeastOnce))]).await;
        for round in 1..6 {
            let next = Client::connect(addresses[round % 2], Version::V5, "same").await;
            assert_eq!(holder.next().await.disconnect(), ReasonCode::SessionTakenOver);
            assert!(holder.next_or_end().await.is_none());
            holder = next;
        }
        // The old session is gone with its subscriptions.
        holder.publish("a", "x").await;
        holder.expect_nothing().await;
        let open: u64 = shared.counters().iter().map(|c| c.connections.get()).sum();
        assert_eq!(open, 1);
        // At the end everybody is told.
        shared.stop(Duration::from_secs(5));
        assert_eq!(holder.next().await.disconnect(), ReasonCode::ServerShuttingDown);
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn many_at_once_never_hold_one_identifier_together() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let mut racers = Vec::new();
        for _ in 0..20 {
            let mut client = Client::open(server.address, Version::V5).await;
            client.send(&Packet::Connect(connect(Version::V5, "same"))).await;
            racers.push(client);
        }
        let mut alive = 0;
        for mut client in racers {
            let reason = client.next().await.connack().reason;
            if reason == ReasonCode::Success {
                client.send(&Packet::PingReq).await;
                while let Some(frame) = client.next_or_end().await {
                    match frame.packet() {
                        Packet::PingResp => {
                            alive += 1;
                            break;
                        }
                        Packet::Disconnect(d) => assert_eq!(d.reason, ReasonCode::SessionTakenOver),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        assert_eq!(alive, 1);
    });
}

#[test]
fn silence_ends_a_connection_after_one_and_a_half_keep_alives() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        let packet = Connect { keep_alive_s: 1, ..connect(Version::V5, "a") };
        let (mut client, _) = Client::connect_with(server.address, &packet).await;
        let begun = tokio::time::Instant::now();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            client.expect_nothing().await;
        }
        let silent = tokio::time::Instant::now();
        assert_eq!(client.next().await.disconnect(), ReasonCode::KeepAliveTimeout);
        let (silence, alive) = (silent.elapsed(), begun.elapsed());
        assert!(silence >= Duration::from_millis(1_400), "{silence:?}");
        assert!(alive >= Duration::from_millis(3_400), "{alive:?}");
        assert_eq!(server.refused(RefuseCause::KeepAlive), 1);
    });
}

#[test]
fn a_connect_that_never_comes_or_is_too_large_costs_little() {
    on_shard_thread(async {
        let limits = Limits {
            connect_timeout: Duration::from_millis(200),
            handshakes_max: 2,
            ..Limits::default()
        };
        let server = Server::start(limits).await;
        let mut silent = Client::open(server.address, Version::V311).await;
        let mut half = Client::open(server.address, Version::V311).await;
        half.send_bytes(&[0x10, 0x20, 0, 4, b'M']).await;
        let handshakes =
            || server.shared.counters().iter().map(|c| c.handshakes.get()).sum::<u64>();
        until(|| handshakes() == 2).await;
        let mut third = Client::open(server.address, Version::V311).await;
        assert!(third.next_or_end().await.is_none(), "one more than may be unfinished");
        assert!(silent.next_or_end().await.is_none());
        assert!(half.next_or_end().await.is_none());
        assert_eq!(server.refused(RefuseCause::ConnectTimeout), 2);
        assert_eq!(server.refused(RefuseCause::HandshakesMax), 1);
        // A length of 268 MB is refused from its first bytes.
        let mut huge = Client::open(server.address, Version::V311).await;
        huge.send_bytes(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]).await;
        assert!(huge.next_or_end().await.is_none());
        assert_eq!(server.refused(RefuseCause::PacketTooLarge), 1);
        // Something else than a CONNECT.
        let mut ping = Client::open(server.address, Version::V311).await;
        ping.send_bytes(&[0xC0, 0]).await;
        assert!(ping.next_or_end().await.is_none());
        Client::connect(server.address, Version::V311, "a").await;
    });
}

#[test]
fn packets_above_the_limit_end_the_connection_and_large_ones_arrive_in_pieces() {
    on_shard_thread(async {
        let limits = Limits { packet_bytes_max: 300_000, ..Limits::default() };
        let server = Server::start(limits).await;
        let mut client = Client::connect(server.address, Version::V5, "a").await;
        client.subscribe(&[("big", qos(QoS::AtMostOnce))]).await;
        let payload: String = (0..290_000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        client.send(&Packet::Publish(publish("big", payload.as_bytes(), 1))).await;
        let mut seen = [false; 2];
        for _ in 0..2 {
            let frame = client.next().await;
            match frame.packet() {
                Packet::PubAck(_) => seen[0] = true,
                Packet::Publish(message) => seen[1] = message.payload == payload.as_bytes(),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, [true; 2]);
        // In pieces that end inside of packets, byte by byte for a while.
        let mut bytes = bytes::BytesMut::new();
        for id in 2..40 {
            let packet = Packet::Publish(publish("small", b"some payload", id));
            headwater_mqtt::codec::encode(&packet, Version::V5, u32::MAX, &mut bytes).unwrap();
        }
        for piece in bytes.chunks(7) {
            client.stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        for id in 2..40 {
            assert_eq!(client.next().await.puback(), id);
        }
        let too_large = "x".repeat(300_001);
        client.send(&Packet::Publish(publish("big", too_large.as_bytes(), 41))).await;
        assert_eq!(client.next().await.disconnect(), ReasonCode::PacketTooLarge);
    });
}

#[test]
fn one_connection_more_than_allowed_is_told_so() {
    on_shard_thread(async {
        let limits = Limits { connections_max: 1, ..Limits::default() };
        let server = Server::start(limits).await;
        let mut first = Client::connect(server.address, Version::V5, "a").await;
        let (_, connack) = Client::connect_with(server.address, &connect(Version::V5, "b")).await;
        assert_eq!(connack.connack().reason, ReasonCode::ServerBusy);
        let (_, connack) = Client::connect_with(server.address, &connect(Version::V311, "b")).await;
        assert_eq!(connack.connack().reason, ReasonCode::ServerUnavailable);
        first.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
        assert!(first.next_or_end().await.is_none());
        until(|| server.shared.counters().iter().all(|c| c.connections.get() == 0)).await;
        Client::connect(server.address, Version::V5, "b").await;
    });
}

#[test]
fn a_client_that_does_not_read_is_disconnected() {
    on_shard_thread(async {
        let limits = Limits { write_buffer_bytes_max: 64 * 1024, ..Limits::default() };
        let server = Server::start(limits).await;
        let mut client = Client::connect(server.address, Version::V311, "a").await;
        // PINGREQs are answered, the answers never read.
        let pings = [0xC0u8, 0].repeat(32 * 1024);
        for _ in 0..2_000 {
            let sent =
                tokio::time::timeout(Duration::from_secs(5), client.stream.write_all(&pings));
            if !matches!(sent.await, Ok(Ok(()))) || server.refused(RefuseCause::NotReading) > 0 {
                break;
            }
        }
        until(|| server.refused(RefuseCause::NotReading) == 1).await;
    });
}

#[test]
fn stopping_waits_for_the_acknowledgements_that_are_owed() {
    on_shard_thread(async {
        let server = Server::start(Limits::default()).await;
        server.store.state().commit_at_once = false;
        let mut owed = Client::connect(server.address, Version::V5, "owed").await;
        let mut idle = Client::connect(server.address, Version::V5, "idle").await;
        owed.send(&Packet::Publish(publish("a", b"x", 1))).await;
        owed.expect_nothing().await;
        server.shared.stop(Duration::from_secs(10));
        assert_eq!(idle.next().await.disconnect(), ReasonCode::ServerShuttingDown);
        server.store.commit();
        assert_eq!(owed.next().await.puback(), 1);
        assert_eq!(owed.next().await.disconnect(), ReasonCode::ServerShuttingDown);
        drop((owed, idle));
        tokio::time::timeout(Duration::from_secs(5), server.shard.drained()).await.unwrap();
    });
}
