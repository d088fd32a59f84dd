//! Delivery: committed messages to the sessions they match, to slow ones too.

use crate::*;

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
