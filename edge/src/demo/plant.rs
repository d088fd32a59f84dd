//! The plant of the demo: its machines, what they measure, and the configurations of its node and of the centre.
//!
//! Invariant: each message says which device sent it and its number there, so that the account can find every one.
//! Neighbours: `devices` publishes, `account` reads back.

use headwater_config::{Config, Report};
use std::net::SocketAddr;
use std::path::Path;

/// The uplink's name.
pub(super) const UPLINK: &str = "centre";

/// The topics of the edge node, in the order of the account.
pub(super) const TOPICS: [&str; 2] = ["telemetry", "alarms"];

const MACHINES: [&str; 5] = ["press", "oven", "pump", "conveyor", "robot"];
const LINES: usize = 8;

/// Above this a machine sends an alarm, in hundredths of a degree.
const ALARM_CENTIDEGREES: i64 = 9_300;

/// The edge node: devices in, two topics, an uplink through `link`.
pub(super) fn edge(dir: &Path, site: &str, link: SocketAddr) -> Result<Config, Report> {
    let dir = toml_text(&dir.display().to_string());
    headwater_config::from_toml(&format!(
        r#"
        [site]
        name = "{site}"
        [storage]
        dir = {dir}
        [[listener]]
        protocol = "mqtt"
        bind = "127.0.0.1:0"
        [[listener]]
        protocol = "kafka"
        bind = "127.0.0.1:0"
        [[topic]]
        name = "alarms"
        partitions = 2
        [[route]]
        mqtt = "plant/{{line}}/{{device}}/telemetry"
        topic = "telemetry"
        key = "{{device}}"
        headers = {{ line = "{{line}}" }}
        [[route]]
        mqtt = "plant/{{line}}/{{device}}/alarm"
        topic = "alarms"
        key = "{{device}}"
        [[uplink]]
        name = "{UPLINK}"
        bootstrap = ["{link}"]
        reconnect_backoff_min = "100ms"
        reconnect_backoff_max = "2s"
        topics = [
            {{ from = "telemetry", to = "{{site}}.telemetry" }},
            {{ from = "alarms", to = "{{site}}.alarms" }},
        ]
        "#
    ))
}

/// The centre, where no real Kafka is given: a second node with its Kafka door.
pub(super) fn centre(dir: &Path) -> Result<Config, Report> {
    let dir = toml_text(&dir.display().to_string());
    headwater_config::from_toml(&format!(
        r#"
        [storage]
        dir = {dir}
        [[listener]]
        protocol = "kafka"
        bind = "127.0.0.1:0"
        "#
    ))
}

fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What a device measures, from a small generator of its own: the same every time.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    line: usize,
    state: u64,
    centidegrees: i64,
    /// Messages made so far, per topic of [`TOPICS`].
    made: [u64; 2],
}

/// A message of a machine.
#[derive(Debug)]
pub(super) struct Reading {
    /// Index into [`TOPICS`].
    pub(super) topic: usize,
    pub(super) mqtt_topic: String,
    pub(super) payload: String,
}

impl Machine {
    pub(super) fn new(number: usize) -> Self {
        let kind = MACHINES[number % MACHINES.len()];
        Self {
            name: format!("{kind}-{number:03}"),
            line: 1 + number % LINES,
            state: number as u64 + 1,
            centidegrees: 6_000 + (number as i64 * 37) % 2_500,
            made: [0; 2],
        }
    }

    /// The next reading: telemetry, and an alarm in its place now and then.
    pub(super) fn next(&mut self, now_ms: i64) -> Reading {
        // A random walk that is drawn back to 75 degrees.
        let step = i64::try_from(self.random() % 201).unwrap_or(100) - 100;
        self.centidegrees += step * 3 + (7_500 - self.centidegrees) / 16;
        let topic =
            usize::from(self.centidegrees > ALARM_CENTIDEGREES || self.random().is_multiple_of(97));
        let n = self.made[topic];
        self.made[topic] += 1;
        let vibration = 0.4 + (self.random() % 260) as f64 / 100.0;
        let power = 1.5 + (self.random() % 640) as f64 / 100.0;
        let (name, line) = (&self.name, self.line);
        let degrees = self.centidegrees as f64 / 100.0;
        let (level, payload) = if topic == 0 {
            let payload = format!(
                r#"{{"device":"{name}","n":{n},"t":{now_ms},"temperature_c":{degrees:.2},"vibration_mm_s":{vibration:.2},"power_kw":{power:.2}}}"#
            );
            ("telemetry", payload)
        } else {
            let payload = format!(
                r#"{{"device":"{name}","n":{n},"t":{now_ms},"alarm":"temperature","temperature_c":{degrees:.2}}}"#
            );
            ("alarm", payload)
        };
        Reading { topic, mqtt_topic: format!("plant/line-{line}/{name}/{level}"), payload }
    }

    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_are_right() {
        let link = "127.0.0.1:9".parse().unwrap();
        let edge = edge(Path::new("/tmp/with \"quotes\""), "demo-1", link).unwrap();
        assert_eq!(edge.uplinks[0].target_of("alarms").unwrap().1, "demo-1.alarms");
        assert_eq!(edge.storage.dirs, [Path::new("/tmp/with \"quotes\"")]);
        assert_eq!(centre(Path::new("x")).unwrap().listeners.len(), 1);
    }

    #[test]
    fn readings_are_numbered_per_topic_and_are_json() {
        let mut machine = Machine::new(7);
        let mut next = [0_u64; 2];
        for _ in 0..1_000 {
            let reading = machine.next(5);
            let json: serde_json::Value = serde_json::from_str(&reading.payload).unwrap();
            assert_eq!(json["n"], next[reading.topic]);
            assert_eq!(json["device"], machine.name.as_str());
            next[reading.topic] += 1;
        }
        assert!(next[1] > 0 && next[0] > next[1] * 10, "{next:?}");
    }
}
