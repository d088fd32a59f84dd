//! Takeover, keep-alive, clients that do not read, and the end.

use crate::*;

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

#[test]
fn what_a_shard_keeps_is_bounded_over_all_its_connections() {
    on_shard_thread(async {
        let limits = Limits {
            buffered_bytes_per_shard_max: 300_000,
            pending_per_shard_max: 10,
            ..Limits::default()
        };
        let server = Server::start(limits).await;
        let gauges = || {
            let counters = server.shared.counters();
            let sum = |f: fn(&ShardCounters) -> u64| counters.iter().map(|c| f(c)).sum::<u64>();
            (sum(|c| c.buffered_bytes.get()), sum(|c| c.pending.get()))
        };
        // Fronts of large packets whose rest never comes: the one that is too much goes.
        let mut packet = bytes::BytesMut::new();
        let large = Packet::Publish(publish("big", &[0; 150_000], 1));
        headwater_mqtt::codec::encode(&large, Version::V5, u32::MAX, &mut packet).unwrap();
        let mut keeping = Vec::new();
        for number in 0..3 {
            let mut client =
                Client::connect(server.address, Version::V5, &format!("c{number}")).await;
            client.send_bytes(&packet[..140_000]).await;
            if number < 2 {
                until(|| gauges().0 == (number + 1) * 140_000).await;
            }
            keeping.push(client);
        }
        let mut last = keeping.pop().unwrap();
        assert_eq!(last.next().await.disconnect(), ReasonCode::QuotaExceeded);
        until(|| gauges().0 == 280_000).await;
        // The others are still served.
        let mut first = keeping.remove(0);
        first.send_bytes(&packet[140_000..]).await;
        assert_eq!(first.next().await.puback(), 1);
        until(|| gauges().0 == 140_000).await;
        // Acknowledgements that do not come are bounded in the same way.
        server.store.state().commit_at_once = false;
        for id in 1..=8 {
            first.send(&Packet::Publish(publish("a", b"x", id))).await;
        }
        first.expect_nothing().await;
        assert_eq!(gauges().1, 8);
        let mut other = Client::connect(server.address, Version::V5, "other").await;
        for id in 1..=3 {
            other.send(&Packet::Publish(publish("a", b"x", id))).await;
        }
        assert_eq!(other.next().await.disconnect(), ReasonCode::QuotaExceeded);
        until(|| gauges().1 == 8).await;
        server.store.commit();
        for id in 1..=8 {
            assert_eq!(first.next().await.puback(), id);
        }
        drop((first, keeping));
        until(|| gauges() == (0, 0)).await;
        assert_eq!(server.refused(RefuseCause::ShardFull), 2);
    });
}

#[test]
fn stopping_does_not_wait_for_an_append_path_that_stays_full() {
    on_shard_thread(async {
        let limits = Limits { backpressure_wait: Duration::from_millis(50), ..Limits::default() };
        let server = Server::start(limits).await;
        {
            let mut state = server.store.state();
            state.commit_at_once = false;
            state.room = 1;
        }
        let mut client = Client::connect(server.address, Version::V5, "a").await;
        let packets = [1, 2].map(|id| Packet::Publish(publish("a", b"x", id)));
        client.send_all(&packets).await;
        let blocked = || server.shared.counters().iter().map(|c| c.blocked.get()).sum::<u64>();
        until(|| blocked() == 1).await;
        server.shared.stop(Duration::from_secs(10));
        until(|| blocked() == 0).await;
        server.store.commit();
        assert_eq!(client.next().await.puback(), 1);
        assert_eq!(client.next().await.disconnect(), ReasonCode::ServerShuttingDown);
        assert_eq!(
            server.store.state().taken.len(),
            1,
            "the second was neither stored nor answered"
        );
        drop(client);
        server.shard.drained().await;
    });
}
