//! Acknowledgements: after the commit, in order, bounded, and what happens when the append path is full.

use crate::*;

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
