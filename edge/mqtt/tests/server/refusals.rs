//! What is refused, and how the protocol says so.

use crate::*;

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
        let lost = ["a", "a", "b", "a"].map(|topic| Packet::Publish(publish(topic, b"x", 0)));
        new.send_all(&lost).await;
        new.expect_nothing().await;
        assert_eq!(server.dropped(DropCause::DiskFull), 4);
        let in_ledger = server.store.state().dropped.clone();
        let wanted = [("a", 2), ("b", 1), ("a", 1)].map(|(t, n)| ("disk_full", t.to_owned(), n));
        assert_eq!(in_ledger, wanted);
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
