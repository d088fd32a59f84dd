//! For this crate's tests: configs made by hand, and a bridge over the real log on a disk in memory.

use crate::{Bridge, Ticket};
use headwater_config::pattern::Pattern;
use headwater_config::template::Template;
use headwater_config::{
    Ack, Config, Durability, Glob, HostPort, Route, Site, Storage, TopicDefaults, TopicRule,
    TopicSpec, Uplink, UplinkTopic,
};
use headwater_log::clock::fake::FakeClock;
use headwater_log::disk::fake::FakeDisk;
use headwater_log::{Log, LogOptions, Partition, Running};
use headwater_mqtt::codec::{PacketId, Publish, PublishProperties, QoS};
use headwater_mqtt::{Message, Outcome, Publisher, Refusal, Settled, Store, StreamId};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const SITE: &str = "plant-7";

/// A config without routes, topics and uplinks; small files.
pub(crate) fn config() -> Config {
    let defaults = Config::default();
    Config {
        site: Site { name: Some(SITE.into()) },
        storage: Storage { journal_file_bytes: 1 << 20, ..defaults.storage },
        topic_defaults: TopicDefaults { auto_create: true, spec: spec() },
        ..defaults
    }
}

pub(crate) fn spec() -> TopicSpec {
    TopicSpec {
        compression: headwater_config::Codec::None,
        compression_level: None,
        partitions: 4,
        durability: Durability::Fsync,
        retention: Some(Duration::from_secs(7 * 24 * 3_600)),
        retention_bytes: None,
        segment_bytes: 1 << 20,
        index_bytes_max: 10 << 20,
        segment_time: Duration::from_secs(3_600),
        batch_bytes_max: 1 << 20,
        cleanup: headwater_config::Cleanup::Delete,
        tombstone_retention: Duration::from_secs(86_400),
        compaction_lag: Duration::ZERO,
        compaction_lag_max: None,
        compaction_dirty_percent: 50,
    }
}

/// A final route whose key is the MQTT topic and whose ack point is the topic's durability.
pub(crate) fn route(mqtt: &str, topic: &str) -> Route {
    let pattern = Pattern::parse(mqtt).unwrap();
    Route {
        topic: Template::for_route(topic, &pattern, Some(SITE)).unwrap(),
        mqtt: pattern,
        key: None,
        headers: Vec::new(),
        ack: None,
        ack_uplink: None,
        goes_on: false,
    }
}

pub(crate) trait RouteExt {
    fn key(self, key: &str) -> Self;
    fn header(self, name: &str, value: &str) -> Self;
    fn ack(self, ack: Ack, uplink: Option<&str>) -> Self;
    fn goes_on(self) -> Self;
}

impl RouteExt for Route {
    fn key(mut self, key: &str) -> Self {
        self.key = Some(Template::for_route(key, &self.mqtt, Some(SITE)).unwrap());
        self
    }
    fn header(mut self, name: &str, value: &str) -> Self {
        let value = Template::for_route(value, &self.mqtt, Some(SITE)).unwrap();
        self.headers.push((name.into(), value));
        self
    }
    fn ack(mut self, ack: Ack, uplink: Option<&str>) -> Self {
        self.ack = Some(ack);
        self.ack_uplink = uplink.map(str::to_owned);
        self
    }
    fn goes_on(mut self) -> Self {
        self.goes_on = true;
        self
    }
}

pub(crate) fn topic_rule(name: &str, change: impl FnOnce(&mut TopicSpec)) -> TopicRule {
    let mut spec = spec();
    change(&mut spec);
    TopicRule { name: Glob::new(name).unwrap(), spec }
}

pub(crate) fn uplink(name: &str, from: &str) -> Uplink {
    Uplink {
        name: name.into(),
        bootstrap: vec![HostPort::parse("127.0.0.1:9").unwrap()],
        topics: vec![UplinkTopic {
            from: Glob::new(from).unwrap(),
            to: Template::for_uplink("{site}.{topic}", Some(SITE)).unwrap(),
        }],
        replication_factor: None,
        backoff: (Duration::from_millis(1), Duration::from_millis(1)),
        request_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        request_bytes_max: 1 << 20,
    }
}

/// Where the fake clock of a [`Node`] stands at its start, milliseconds since the Unix epoch.
pub(crate) const START_MS: i64 = 1_800_000_000_000;

/// A bridge over the real log, on a disk and a clock in memory. Nothing is committed before [`Node::start`].
pub(crate) struct Node {
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) log: Log,
    pub(crate) disk: FakeDisk,
    pub(crate) clock: FakeClock,
    running: Option<Running>,
}

impl Node {
    pub(crate) fn new(config: Config) -> Self {
        Self::on(FakeDisk::new(1), FakeClock::new(START_MS), config)
    }

    pub(crate) fn on(disk: FakeDisk, clock: FakeClock, config: Config) -> Self {
        let log = open_log(&disk, &clock, &config);
        let bridge = Bridge::new(Arc::new(config), log.clone()).unwrap();
        Self { bridge, log, disk, clock, running: None }
    }

    pub(crate) fn start(&mut self) {
        self.running = Some(self.log.start());
    }

    pub(crate) fn close(mut self) -> (FakeDisk, FakeClock) {
        if let Some(running) = self.running.take() {
            running.close().unwrap();
        }
        (self.disk.clone(), self.clock.clone())
    }

    /// Offers messages of one client once.
    pub(crate) fn offer(&self, messages: &[Publish<'_>]) -> Vec<Outcome<Ticket>> {
        let mut outcomes = Vec::new();
        self.bridge.publish(&publisher("pump-1"), messages, &mut outcomes);
        assert!(outcomes.len() <= messages.len());
        outcomes
    }

    /// One message that must be accepted.
    pub(crate) fn take(&self, message: Publish<'_>) -> Ticket {
        let mut outcomes = self.offer(&[message]);
        assert_eq!(outcomes.len(), 1, "{} was not taken", message.topic);
        accepted(outcomes.remove(0))
    }

    /// One message that must be refused.
    pub(crate) fn refuse(&self, message: Publish<'_>) -> Refusal {
        match self.offer(&[message]).as_slice() {
            [Outcome::Refused(refusal)] => *refusal,
            other => panic!("{} was not refused: {other:?}", message.topic),
        }
    }

    pub(crate) fn settled(&self, ticket: &Ticket) -> Settled {
        self.bridge.settled(ticket)
    }

    /// Waits until a ticket settles one way or the other.
    pub(crate) fn settle(&self, ticket: &Ticket) -> Settled {
        self.wait_for("a ticket settles", || match self.settled(ticket) {
            Settled::Waiting => None,
            settled => Some(settled),
        })
    }

    /// Waits for a condition, looking again whenever something moved, and now and then for what moves nothing.
    pub(crate) fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let mut moved = self.bridge.moved();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let until = tokio::time::Instant::now() + Duration::from_secs(20);
            loop {
                moved.mark_unchanged();
                if let Some(found) = look() {
                    return found;
                }
                assert!(tokio::time::Instant::now() < until, "waited in vain until {what}");
                // Either way it is time to look again.
                let _ = tokio::time::timeout(Duration::from_millis(20), moved.changed()).await;
            }
        })
    }

    pub(crate) fn partition(&self, topic: &str, index: usize) -> Arc<Partition> {
        let topic = self.log.topic(topic).unwrap_or_else(|| panic!("no topic {topic}"));
        Arc::clone(&topic.partitions()[index])
    }

    /// (topic, partition, offset) of a ticket, as in its receipt.
    pub(crate) fn place(&self, ticket: &Ticket) -> (String, i32, i64) {
        let mut facts = Vec::new();
        self.bridge
            .receipt(ticket, &mut |name, value| facts.push((name.to_owned(), value.to_owned())));
        let names: Vec<&str> = facts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["topic", "partition", "offset"]);
        (facts[0].1.clone(), facts[1].1.parse().unwrap(), facts[2].1.parse().unwrap())
    }

    /// Every message that subscribers see now, stream by stream.
    pub(crate) fn delivered(&self) -> Vec<Arc<Message>> {
        let mut out = Vec::new();
        for stream in (0..self.bridge.streams()).map(StreamId) {
            let mut at = 0;
            while at < self.bridge.end(stream) {
                let next = self.bridge.read(stream, at, 1 << 16, &mut out).unwrap();
                assert!(next > at, "no progress at {at} of stream {stream:?}");
                at = next;
            }
        }
        out
    }
}

pub(crate) fn open_log(disk: &FakeDisk, clock: &FakeClock, config: &Config) -> Log {
    let options = LogOptions {
        dirs: vec!["/data".into()],
        journal_file_bytes: config.storage.journal_file_bytes,
        journal_files: config.storage.journal_files,
        commit_delay: config.storage.commit_delay,
        commit_delay_max: config.storage.commit_delay_max,
        journal_bytes_per_day: config.storage.journal_bytes_per_day,
        bulk_bytes: config.storage.bulk_bytes,
        uncommitted_bytes_max: config.storage.uncommitted_bytes_max,
        tail_bytes_max: config.storage.tail_bytes_max,
        memory_sync: config.storage.memory_sync,
        reserved_bytes: config.storage.reserved_bytes,
        open_files_max: 256,
        labeller: Some(crate::record::LABELLER),
        producer_id_expiration: config.storage.producer_id_expiration,
        topics_max: config.limits.topics_max,
        partitions_max: config.limits.partitions_max,
        max_bytes: None,
        min_free: None,
        compaction: Default::default(),
    };
    Log::open(options, Arc::new(disk.clone()), Arc::new(clock.clone())).unwrap().0
}

pub(crate) fn publisher(client_id: &str) -> Publisher {
    Publisher { client_id: client_id.into(), connection: 1 }
}

pub(crate) fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish {
        topic,
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: PacketId::new(1),
        properties: PublishProperties::default(),
    }
}

pub(crate) fn accepted(outcome: Outcome<Ticket>) -> Ticket {
    match outcome {
        Outcome::Accepted(ticket) => ticket,
        Outcome::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}
