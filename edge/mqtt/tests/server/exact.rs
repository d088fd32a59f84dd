//! No gap, no duplicate, order per topic: whatever the interleaving of publishing, committing, slow reading, reads from
//! disk and late subscribing. Random, from seeds that a failure prints.

use crate::support::client::{Client, connect, publish, qos};
use crate::support::store::MemoryStore;
use crate::support::{Server, on_shard_thread};
use headwater_mqtt::Limits;
use headwater_mqtt::codec::{Acknowledgement, Connect, ConnectProperties, Packet, QoS, Version};
use std::cell::RefCell;
use std::rc::Rc;

const TOPICS: usize = 5;
const STEPS: usize = 600;

/// A small generator (xorshift), so that a seed says everything.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What a subscriber got: per topic the numbers, in order.
type Got = Rc<RefCell<[Vec<u64>; TOPICS]>>;

/// Messages per topic that subscribers may see.
fn committed(store: &MemoryStore) -> [u64; TOPICS] {
    std::array::from_fn(|topic| store.committed_of(&format!("s/{topic}")))
}

/// Reads and acknowledges, slowly, until every topic has had its last message.
async fn subscriber(
    mut client: Client,
    got: Got,
    lasts: Rc<RefCell<Option<[u64; TOPICS]>>>,
    seed: u64,
) {
    let mut random = Random(seed | 1);
    loop {
        let done = lasts.borrow().is_some_and(|lasts| {
            got.borrow().iter().zip(lasts).all(|(got, last)| got.last() == Some(&last))
        });
        if done {
            client.expect_nothing().await;
            return;
        }
        let frame = client.next().await;
        let message = frame.publish();
        let topic: usize = message.topic.strip_prefix("s/").unwrap().parse().unwrap();
        got.borrow_mut()[topic].push(frame.text().parse().unwrap());
        for _ in 0..random.below(12) {
            tokio::task::yield_now().await;
        }
        if let Some(id) = message.packet_id {
            client.send_bytes(&Acknowledgement::PubAck.success(id)).await;
        }
    }
}

async fn connected(server: &Server, name: &str, window: u16) -> Client {
    let properties = ConnectProperties { receive_maximum: Some(window), ..Default::default() };
    let connect = Connect { properties, ..connect(Version::V5, name) };
    Client::connect_with(server.address, &connect).await.0
}

async fn run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let limits = Limits {
        queue_messages_max: 1 + random.below(6) as usize,
        queue_bytes_max: 20 + random.below(200) as usize,
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    server.store.state().commit_at_once = false;
    let mut publisher = Client::connect(server.address, Version::V311, "pub").await;
    let lasts = Rc::new(RefCell::new(None));
    let mut subscribers = Vec::new();
    let mut next = [0u64; TOPICS];
    for step in 0..STEPS {
        match random.below(10) {
            0..5 => {
                let topic = random.below(TOPICS as u64) as usize;
                let (name, text) = (format!("s/{topic}"), next[topic].to_string());
                next[topic] += 1;
                let id = u16::try_from(step + 1).unwrap();
                publisher.send(&Packet::Publish(publish(&name, text.as_bytes(), id))).await;
            }
            5..7 => server.store.commit_one(),
            7 => server.store.commit(),
            8 => server.store.forget_memory(),
            _ => tokio::task::yield_now().await,
        }
        // At the start, in the middle, and late; later ones with overlapping filters.
        if step % 150 == 0 {
            let window = 1 + random.below(5) as u16;
            let mut client = connected(&server, &format!("sub-{step}"), window).await;
            let before = committed(&server.store);
            let filters = [("s/+", qos(QoS::AtLeastOnce)), ("#", qos(QoS::AtMostOnce))];
            client.subscribe(&filters[..1 + usize::from(step >= 300)]).await;
            let got = Got::default();
            let reading = subscriber(client, got.clone(), lasts.clone(), random.below(1 << 40));
            subscribers.push((before, got, tokio::task::spawn_local(reading)));
        }
    }
    server.store.commit();
    for (topic, next) in next.iter_mut().enumerate() {
        let (name, text) = (format!("s/{topic}"), next.to_string());
        publisher
            .send(&Packet::Publish(publish(&name, text.as_bytes(), 9_000 + topic as u16)))
            .await;
    }
    *lasts.borrow_mut() = Some(next);
    for (before, got, reading) in subscribers {
        loop {
            server.store.commit();
            if reading.is_finished() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        reading.await.unwrap();
        for (topic, got) in got.borrow().iter().enumerate() {
            let wanted: Vec<u64> = (before[topic]..=next[topic]).collect();
            assert_eq!(*got, wanted, "seed {seed}, topic {topic}");
        }
    }
    assert_eq!(server.store.state().lost, [], "seed {seed}");
}

#[test]
fn every_subscriber_gets_every_message_once_and_in_order() {
    for seed in 0..25 {
        on_shard_thread(run(seed));
    }
}
