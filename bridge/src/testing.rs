//! Configs for this crate's tests, made by hand so that they need no file.

use headwater_config::pattern::Pattern;
use headwater_config::template::Template;
use headwater_config::{
    Ack, Config, DiskBudget, Durability, Glob, HostPort, LogFormat, Logging, Route, Site, Storage,
    TopicDefaults, TopicRule, TopicSpec, Uplink, UplinkTopic,
};
use std::time::Duration;

pub(crate) const SITE: &str = "plant-7";

/// A config without routes, topics and uplinks.
pub(crate) fn config() -> Config {
    Config {
        site: Site { name: Some(SITE.into()) },
        storage: Storage {
            dir: "unused".into(),
            max_bytes: DiskBudget::Percent(80),
            commit_delay: Duration::ZERO,
            journal_file_bytes: 1 << 20,
            journal_files: 4,
            memory_sync: Duration::from_secs(1),
            uncommitted_bytes_max: 1 << 24,
            tail_bytes_max: 1 << 24,
        },
        listeners: Vec::new(),
        topic_defaults: TopicDefaults { auto_create: true, spec: spec() },
        topics: Vec::new(),
        routes: Vec::new(),
        uplinks: Vec::new(),
        limits: Config::default().limits,
        logging: Logging { level: "info".into(), format: LogFormat::Human },
    }
}

pub(crate) fn spec() -> TopicSpec {
    TopicSpec {
        partitions: 4,
        durability: Durability::Fsync,
        retention: Some(Duration::from_secs(7 * 24 * 3_600)),
        retention_bytes: None,
        segment_bytes: 1 << 20,
        segment_time: Duration::from_secs(3_600),
        batch_bytes_max: 1 << 20,
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
            lane: "live".into(),
        }],
        replication_factor: None,
        backoff: (Duration::from_millis(1), Duration::from_millis(1)),
        request_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        request_bytes_max: 1 << 20,
    }
}
