//! The devices of the demo: real MQTT clients over real TCP, QoS 1, and the ledger of what they published.
//!
//! Invariant: the ledger is the publishers' own: a message is published when the client wrote it, acknowledged when its
//! PUBACK came, whatever the node's counters say. Neighbours: `plant` says what is sent, `account` reads the ledger.

use super::plant::{Machine, TOPICS};
use hdrhistogram::Histogram;
use headwater_log::clock::Clock;
use parking_lot::Mutex;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

/// Readings that wait in a client to be written; more are not taken (and not counted as published).
const QUEUE_MAX: usize = 64;

/// Devices come one after another, as after a power cut.
const CONNECT_OVER: Duration = Duration::from_secs(1);

/// How long after the last reading acknowledgements are waited for.
const SETTLE_MAX: Duration = Duration::from_secs(30);

const RECONNECT_WAIT: Duration = Duration::from_millis(500);

/// The longest PUBACK that is told apart.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Figures while it runs.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) connected: AtomicU64,
    pub(super) published: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) resent: AtomicU64,
    /// Time to PUBACK since the last look.
    pub(super) latency_us: Mutex<Histogram<u64>>,
}

/// What one device published on one topic: whether each number was acknowledged.
pub(super) type Numbers = Vec<bool>;

/// What was published: per topic of [`TOPICS`] and device.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) topics: [BTreeMap<String, Numbers>; TOPICS.len()],
    /// Messages that the clients sent again after a lost connection.
    pub(super) resent: u64,
}

/// The running devices.
#[derive(Debug)]
pub(super) struct Devices {
    pub(super) figures: Arc<Figures>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<Ledger>,
}

/// What is asked of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fleet {
    pub(super) devices: usize,
    /// Readings per device and second.
    pub(super) rate: f64,
    pub(super) mqtt: SocketAddr,
}

impl Devices {
    /// Starts them on a thread of their own.
    pub(super) fn start(fleet: Fleet, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let figures = Arc::new(Figures {
            connected: AtomicU64::new(0),
            published: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            latency_us: Mutex::new(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?),
        });
        let (stop, stopping) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = figures.clone();
        let run = move || LocalSet::new().block_on(&runtime, run(fleet, shared, clock, stopping));
        let thread = std::thread::Builder::new().name("devices".into()).spawn(run)?;
        Ok(Self { figures, stop, thread })
    }

    /// No more readings; waits for what is owed, and gives the ledger.
    pub(super) fn stop(self) -> anyhow::Result<Ledger> {
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| anyhow::anyhow!("the devices' thread panicked"))
    }
}

async fn run(
    fleet: Fleet,
    figures: Arc<Figures>,
    clock: Arc<dyn Clock>,
    stopping: watch::Receiver<bool>,
) -> Ledger {
    let mut tasks = JoinSet::new();
    for number in 0..fleet.devices {
        let device = Device {
            machine: Machine::new(number),
            figures: figures.clone(),
            clock: clock.clone(),
            account: Rc::default(),
        };
        tasks.spawn_local(device.live(number, fleet, stopping.clone()));
    }
    let mut ledger = Ledger::default();
    while let Some(Ok((name, numbers))) = tasks.join_next().await {
        for (topic, numbers) in ledger.topics.iter_mut().zip(numbers) {
            topic.insert(name.clone(), numbers);
        }
    }
    ledger
}

struct Device {
    machine: Machine,
    figures: Arc<Figures>,
    clock: Arc<dyn Clock>,
    account: Rc<RefCell<Account>>,
}

/// One device's messages.
#[derive(Debug, Default)]
struct Account {
    numbers: [Numbers; TOPICS.len()],
    /// Given to the client and not written yet: topic and number.
    queued: VecDeque<(usize, usize)>,
    /// Written and not acknowledged, by packet identifier.
    inflight: HashMap<u16, (usize, usize, Instant)>,
}

impl Device {
    async fn live(
        mut self,
        number: usize,
        fleet: Fleet,
        mut stopping: watch::Receiver<bool>,
    ) -> (String, [Numbers; TOPICS.len()]) {
        let share = |of: Duration| of.mul_f64(number as f64 / fleet.devices.max(1) as f64);
        tokio::time::sleep(share(CONNECT_OVER)).await;
        let host = fleet.mqtt.ip().to_string();
        let mut options =
            MqttOptions::new(format!("demo-{}", self.machine.name), host, fleet.mqtt.port());
        options.set_keep_alive(Duration::from_secs(60));
        let (client, events) = AsyncClient::new(options, QUEUE_MAX);
        let network = listen(events, self.account.clone(), self.figures.clone());
        let network = tokio::task::spawn_local(network);

        let period = Duration::from_secs_f64(1.0 / fleet.rate);
        let mut ticks = tokio::time::interval_at(Instant::now() + share(period), period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => break,
                _ = ticks.tick() => self.publish(&client),
            }
        }
        let deadline = Instant::now() + SETTLE_MAX;
        while !self.account.borrow().is_settled() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Best effort: the node sees the socket close in any case.
        let _ = client.try_disconnect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        network.abort();
        let numbers = std::mem::take(&mut self.account.borrow_mut().numbers);
        (self.machine.name, numbers)
    }

    fn publish(&mut self, client: &AsyncClient) {
        let mut account = self.account.borrow_mut();
        if account.queued.len() >= QUEUE_MAX {
            return;
        }
        let reading = self.machine.next(self.clock.wall_ms());
        // Queued before it is handed over: the client may write it at once.
        let number = account.numbers[reading.topic].len();
        account.numbers[reading.topic].push(false);
        account.queued.push_back((reading.topic, number));
        let sent = client.try_publish(reading.mqtt_topic, QoS::AtLeastOnce, false, reading.payload);
        // The queue is not full, and the client lives as long as this: it takes what it is given.
        debug_assert!(sent.is_ok());
        self.figures.published.fetch_add(1, Ordering::Relaxed);
    }
}

impl Account {
    fn is_settled(&self) -> bool {
        self.queued.is_empty() && self.inflight.is_empty()
    }
}

/// The network side of one client: its event loop.
async fn listen(mut events: EventLoop, account: Rc<RefCell<Account>>, figures: Arc<Figures>) {
    let mut connected = false;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                connected = true;
                figures.connected.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                let mut account = account.borrow_mut();
                if account.inflight.contains_key(&id) {
                    figures.resent.fetch_add(1, Ordering::Relaxed);
                } else if let Some((topic, number)) = account.queued.pop_front() {
                    account.inflight.insert(id, (topic, number, Instant::now()));
                }
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                let mut account = account.borrow_mut();
                if let Some((topic, number, at)) = account.inflight.remove(&ack.pkid) {
                    account.numbers[topic][number] = true;
                    figures.acknowledged.fetch_add(1, Ordering::Relaxed);
                    let us = u64::try_from(at.elapsed().as_micros()).unwrap_or(LATENCY_US_MAX);
                    let us = us.clamp(1, LATENCY_US_MAX);
                    // Within the bounds of the histogram.
                    let _ = figures.latency_us.lock().record(us);
                }
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a device lost its connection");
                if std::mem::take(&mut connected) {
                    figures.connected.fetch_sub(1, Ordering::Relaxed);
                }
                tokio::time::sleep(RECONNECT_WAIT).await;
            }
        }
    }
}
