//! `headwater explain`: what would happen to a message, and why, as data and as text.
//!
//! Invariant: it shows the answer of [`Router::resolve`], never a second opinion. Pure: it asks no running node, so a
//! limit on the number of topics does not show here. Neighbours: [`crate::route`]; the command line prints it.

use crate::route::{AckRule, Destination, Key, Router};
use headwater_config::Durability;
use headwater_log::AckPoint;
use std::fmt;

/// What happens to messages on one MQTT topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The MQTT topic.
    pub mqtt_topic: String,
    /// Where it is stored for subscribers and Kafka clients.
    pub primary: Stored,
    /// Marked copies.
    pub copies: Vec<Stored>,
    /// Every route in the order of the file, with what became of it.
    pub routes: Vec<Verdict>,
}

/// One place where a message is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Number of the route in the file, from 1; `None` is the built-in last one.
    pub route: Option<usize>,
    /// The log topic.
    pub topic: String,
    /// Why the topic is not what the route's template says.
    pub fallback: Option<&'static str>,
    /// The partition, and of how many.
    pub partition: (u32, u32),
    /// The record's key.
    pub key: Option<String>,
    /// Headers that the route adds.
    pub headers: Vec<(String, String)>,
    /// The header `mqtt.topic` is stored (the key is something else).
    pub topic_header: bool,
    /// The ack point, as in the config: `memory`, `fsync`, `mirrored`.
    pub ack: String,
    /// What it means, in a sentence.
    pub ack_meaning: String,
    /// Uplinks that carry it: name, and the topic's name in the centre.
    pub uplinks: Vec<(String, String)>,
}

/// What became of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Number in the file, from 1.
    pub route: usize,
    /// Its pattern.
    pub pattern: String,
    /// Whether it stores the message.
    pub stores: bool,
    /// Why, or why not.
    pub because: String,
}

/// Explains an MQTT topic name. `partitions` tells how many a topic has where that is known (from a running node);
/// else the config's number counts.
#[must_use]
pub fn explain(
    router: &Router,
    mqtt_topic: &str,
    partitions: &dyn Fn(&str) -> Option<u32>,
) -> Explanation {
    let resolution = router.resolve(mqtt_topic, &mut |_, _| Ok(()));
    let stored = |d: &Destination| stored(router, mqtt_topic, d, partitions);
    Explanation {
        mqtt_topic: mqtt_topic.to_owned(),
        primary: stored(&resolution.primary),
        copies: resolution.copies.iter().map(stored).collect(),
        routes: verdicts(router, mqtt_topic),
    }
}

fn stored(
    router: &Router,
    mqtt_topic: &str,
    destination: &Destination,
    partitions: &dyn Fn(&str) -> Option<u32>,
) -> Stored {
    let config = router.config();
    let topic = destination.topic.as_str();
    let spec = config.topic(topic);
    let count = partitions(topic).unwrap_or(spec.partitions).max(1);
    let (ack, ack_meaning) = ack(&destination.ack, spec.durability);
    let key = match &destination.key {
        Key::MqttTopic => Some(mqtt_topic.to_owned()),
        Key::Text(text) => Some(text.to_string()),
        Key::Absent => None,
    };
    Stored {
        route: destination.route.map(|index| index + 1),
        topic: topic.to_owned(),
        fallback: destination.fallback.map(|cause| cause.as_str()),
        partition: (destination.key.partition(mqtt_topic, count), count),
        topic_header: key.as_deref() != Some(mqtt_topic),
        key,
        headers: destination
            .headers
            .iter()
            .map(|h| (h.name.to_string(), h.value.to_string()))
            .collect(),
        ack: ack.to_owned(),
        ack_meaning,
        uplinks: config
            .uplinks
            .iter()
            .filter_map(|u| u.target_of(topic).map(|(_, target)| (u.name.clone(), target)))
            .collect(),
    }
}

fn ack(rule: &AckRule, durability: Durability) -> (&'static str, String) {
    match rule {
        AckRule::Log(AckPoint::Appended) => {
            ("memory", "when it is in this process's memory: lost if the process dies".into())
        }
        AckRule::Log(AckPoint::Synced) => {
            ("fsync", "when it is synced to this node's disk".into())
        }
        AckRule::Log(_) => match durability {
            Durability::Fsync => (
                "fsync",
                "when it is synced to this node's disk (the topic's durability)".into(),
            ),
            Durability::Memory => (
                "memory",
                "when it is written to the kernel: lost if the machine dies (the topic's durability)"
                    .into(),
            ),
        },
        AckRule::Mirrored { uplink } => {
            ("mirrored", format!("when the centre of uplink {uplink} has acknowledged it"))
        }
        AckRule::Nowhere => (
            "mirrored",
            "never: no single uplink carries this topic, so the message is refused".into(),
        ),
    }
}

fn verdicts(router: &Router, mqtt_topic: &str) -> Vec<Verdict> {
    let mut final_route = None;
    let mut primary = None;
    let mut verdicts = Vec::new();
    for (index, route) in router.config().routes.iter().enumerate() {
        let number = index + 1;
        let matches = route.mqtt.matches(mqtt_topic, &mut Vec::new());
        let (stores, because) = match (matches, final_route) {
            (false, _) => (false, why_not(route.mqtt.as_str(), mqtt_topic)),
            (true, Some(earlier)) => {
                (false, format!("it matches, but route {earlier} before it is final"))
            }
            (true, None) if primary.is_some() => (true, "it matches: a marked copy".to_owned()),
            (true, None) => {
                primary = Some(number);
                (true, "it is the first that matches".to_owned())
            }
        };
        if stores && !route.goes_on {
            final_route = Some(number);
        }
        verdicts.push(Verdict { route: number, pattern: route.mqtt.to_string(), stores, because });
    }
    verdicts
}

/// Why a pattern does not match, in words. Told from the texts, as a person would.
fn why_not(pattern: &str, mqtt_topic: &str) -> String {
    let is_wild = |level: &str| level == "+" || level == "#" || level.starts_with('{');
    let wanted: Vec<&str> = pattern.split('/').collect();
    let found: Vec<&str> = mqtt_topic.split('/').collect();
    if mqtt_topic.starts_with('$') && wanted.first().is_some_and(|level| is_wild(level)) {
        return "a wildcard or capture in the first level does not stand for `$`".to_owned();
    }
    for (index, level) in wanted.iter().enumerate() {
        if *level == "#" {
            break;
        }
        match found.get(index) {
            None => return format!("the topic ends before level {} (`{level}`)", index + 1),
            Some(have) if !is_wild(level) && have != level => {
                return format!("level {} is `{have}`, not `{level}`", index + 1);
            }
            Some(_) => {}
        }
    }
    format!("the topic has {} levels, the pattern {}", found.len(), wanted.len())
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.mqtt_topic)?;
        write_stored(f, "stored", &self.primary)?;
        for copy in &self.copies {
            write_stored(f, "copy", copy)?;
        }
        if self.routes.is_empty() {
            return writeln!(f, "  routes     none in the config: the built-in last one");
        }
        for (index, verdict) in self.routes.iter().enumerate() {
            let label = if index == 0 { "routes" } else { "" };
            let sign = if verdict.stores { "+" } else { "-" };
            writeln!(
                f,
                "  {label:<10} {sign} {}. `{}`: {}",
                verdict.route, verdict.pattern, verdict.because
            )?;
        }
        Ok(())
    }
}

fn write_stored(f: &mut fmt::Formatter<'_>, label: &str, stored: &Stored) -> fmt::Result {
    let (partition, of) = stored.partition;
    let by = stored.route.map_or_else(
        || "no route: the built-in last one".to_owned(),
        |route| format!("route {route}"),
    );
    writeln!(f, "  {label:<10} topic {}, partition {partition} of {of} ({by})", stored.topic)?;
    if let Some(cause) = stored.fallback {
        writeln!(f, "             instead of the route's own topic, because: {cause}")?;
    }
    match &stored.key {
        Some(key) => writeln!(f, "  key        {key}")?,
        None => writeln!(f, "  key        none (the partition is the MQTT topic's)")?,
    }
    let mut label = "headers";
    if stored.topic_header {
        writeln!(f, "  {label:<10} mqtt.topic = the MQTT topic")?;
        label = "";
    }
    for (name, value) in &stored.headers {
        writeln!(f, "  {label:<10} {name} = {value}")?;
        label = "";
    }
    writeln!(f, "  ack        {}: {}", stored.ack, stored.ack_meaning)?;
    match stored.uplinks.as_slice() {
        [] => writeln!(f, "  uplinks    none carries it"),
        uplinks => {
            for (index, (name, target)) in uplinks.iter().enumerate() {
                let label = if index == 0 { "uplinks" } else { "" };
                writeln!(f, "  {label:<10} {name}, as {target}")?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{RouteExt, config, route, uplink};
    use headwater_config::{Ack, Config};
    use std::sync::Arc;

    fn router() -> Router {
        Router::new(Arc::new(Config {
            routes: vec![
                route("$mine/#", "mine"),
                route("plant/{line}/+/telemetry", "telemetry.{line}")
                    .key("{line}")
                    .header("line", "{line}")
                    .ack(Ack::Mirrored, Some("dc"))
                    .goes_on(),
                route("shop/#", "shop"),
                route("plant/{line}", "short"),
                route("plant/a/b/telemetry/x", "longer"),
                route("plant/#", "all"),
                route("#", "rest"),
            ],
            uplinks: vec![uplink("dc", "telemetry.*")],
            ..config()
        }))
    }

    #[test]
    fn it_says_what_happens_and_why() {
        let e = explain(&router(), "plant/a/b/telemetry", &|topic| {
            (topic == "telemetry.a").then_some(9)
        });
        assert_eq!(e.primary.topic, "telemetry.a");
        assert_eq!(e.primary.partition, (crate::partitioner::partition(b"a", 9), 9));
        assert_eq!(e.primary.uplinks, [("dc".to_owned(), "plant-7.telemetry.a".to_owned())]);
        assert_eq!(e.primary.ack, "mirrored");
        assert!(e.primary.topic_header);
        assert_eq!(e.copies.len(), 1);
        assert_eq!(e.copies[0].topic, "all");
        assert_eq!(e.copies[0].partition.1, 4);
        let because: Vec<(bool, &str)> =
            e.routes.iter().map(|v| (v.stores, v.because.as_str())).collect();
        assert_eq!(
            because,
            [
                (false, "level 1 is `plant`, not `$mine`"),
                (true, "it is the first that matches"),
                (false, "level 1 is `plant`, not `shop`"),
                (false, "the topic has 4 levels, the pattern 2"),
                (false, "the topic ends before level 5 (`x`)"),
                (true, "it matches: a marked copy"),
                (false, "it matches, but route 6 before it is final"),
            ]
        );
        let text = e.to_string();
        for line in [
            "topic telemetry.a, partition",
            "mqtt.topic = the MQTT topic",
            "line = a",
            "dc, as plant-7.telemetry.a",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn dollar_topics_and_no_routes() {
        let e = explain(&router(), "$other/x", &|_| None);
        assert_eq!((e.primary.topic.as_str(), e.primary.route), ("mqtt", None));
        assert_eq!(
            e.routes[6].because,
            "a wildcard or capture in the first level does not stand for `$`"
        );
        let none = explain(&Router::new(Arc::new(config())), "x", &|_| None);
        assert!(none.to_string().contains("none in the config"));
        assert!(!none.primary.topic_header);
    }
}
