//! Step 6: routes decide where a message is stored, under which key, and what its acknowledgement waits for.
//!
//! Step 6 of the life of a PUBLISH; from [`crate::ingress`], which keeps the answers per MQTT topic; to
//! [`crate::record`]. Pure: the same config and MQTT topic always give the same answer; whether there is room for one
//! more topic is asked of the caller. Invariant: every MQTT topic has exactly one primary destination, and that is a
//! legal topic. Neighbour: [`crate::explain`] shows the same answer to people.
//!
//! The first route that matches is the primary one, and final unless it says `continue`; routes after it that match too
//! store marked copies. No match: topic `mqtt`, key the MQTT topic. An expansion that cannot be a topic goes to topic
//! `mqtt` under the MQTT topic as key, with the route's headers and acknowledgement: no message is lost to a strange name.
//! A key that expands to nothing means a record without a key, whose partition comes from the MQTT topic.

use crate::partitioner;
use crate::record::RouteHeader;
use headwater_config::{Ack, Config, DEFAULT_TOPIC, Glob, Route, is_topic_name};
use headwater_log::{AckPoint, TopicName};
use std::sync::Arc;

/// A config's routes, ready to be asked.
#[derive(Debug, Clone)]
pub struct Router {
    config: Arc<Config>,
    /// Per route: the topics its template can make.
    writes: Vec<Writes>,
    default_topic: TopicName,
}

#[derive(Debug, Clone)]
enum Writes {
    One(Box<str>),
    Glob(Glob),
    /// A template whose fixed parts alone cannot be in a topic name.
    Nothing,
}

/// Where one MQTT topic goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The record that subscribers see.
    pub primary: Destination,
    /// Marked copies by routes after it; all of them are waited for.
    pub copies: Vec<Destination>,
}

/// One place where a message is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Index of the route in the config; `None` is the built-in last one.
    pub route: Option<usize>,
    /// The log topic.
    pub topic: TopicName,
    /// Why this is topic `mqtt` instead of what the route's template makes.
    pub fallback: Option<Fallback>,
    /// The record's key.
    pub key: Key,
    /// Headers that the route adds, in its order.
    pub headers: Vec<RouteHeader>,
    /// What the acknowledgement waits for.
    pub ack: AckRule,
}

/// The key of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The MQTT topic.
    MqttTopic,
    /// What the route's template made.
    Text(Box<str>),
    /// None.
    Absent,
}

/// What an acknowledgement waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AckRule {
    /// A point in this node's log.
    Log(AckPoint),
    /// The centre of the uplink of this name.
    Mirrored {
        /// Its name.
        uplink: Box<str>,
    },
    /// `mirrored`, where no uplink (or no single one) carries the topic. It could never be kept, so the message is refused.
    Nowhere,
}

/// Why a message is in topic `mqtt` although its route names another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// The expansion is not `[A-Za-z0-9._-]{1,249}`, or it is `.` or `..`.
    IllegalName,
    /// The expansion begins with `__`.
    ReservedName,
    /// `limits.topics_per_route_max` is reached.
    RouteFull,
    /// `limits.topics_max` or `limits.partitions_max` is reached.
    NodeFull,
    /// A topic exists whose name differs only in `.` against `_`, which Kafka's metrics cannot tell apart.
    Collision,
}

impl Fallback {
    /// All causes, in the order of [`Fallback::index`].
    pub const ALL: [Self; 5] =
        [Self::IllegalName, Self::ReservedName, Self::RouteFull, Self::NodeFull, Self::Collision];

    /// A dense number, for counters.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::IllegalName => 0,
            Self::ReservedName => 1,
            Self::RouteFull => 2,
            Self::NodeFull => 3,
            Self::Collision => 4,
        }
    }

    /// The cause as in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IllegalName => "illegal_name",
            Self::ReservedName => "reserved_name",
            Self::RouteFull => "topics_per_route_max",
            Self::NodeFull => "topics_max",
            Self::Collision => "name_collides",
        }
    }
}

impl Key {
    /// The key's bytes.
    #[must_use]
    pub fn bytes<'a>(&'a self, mqtt_topic: &'a str) -> Option<&'a [u8]> {
        match self {
            Self::MqttTopic => Some(mqtt_topic.as_bytes()),
            Self::Text(text) => Some(text.as_bytes()),
            Self::Absent => None,
        }
    }

    /// The partition, in `0..partitions`: of the key, without one of the MQTT topic, so that MQTT's order holds.
    #[must_use]
    pub fn partition(&self, mqtt_topic: &str, partitions: u32) -> u32 {
        partitioner::partition(self.bytes(mqtt_topic).unwrap_or(mqtt_topic.as_bytes()), partitions)
    }
}

/// Asked whether a message may go to a topic that the given route names; it may make the topic.
pub type Room<'a> = dyn FnMut(usize, &TopicName) -> Result<(), Fallback> + 'a;

impl Router {
    /// Makes the routes of a valid config ready.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let writes = config.routes.iter().map(Writes::of).collect();
        let default_topic = default_topic();
        Self { config, writes, default_topic }
    }

    /// The config it was made from.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Where an MQTT topic (a valid topic name) goes.
    pub fn resolve(&self, mqtt_topic: &str, room: &mut Room<'_>) -> Resolution {
        let mut captures = Vec::new();
        let mut found = Vec::new();
        for (index, route) in self.config.routes.iter().enumerate() {
            if route.mqtt.matches(mqtt_topic, &mut captures) {
                found.push(self.destination(index, route, &captures, room));
                if !route.goes_on {
                    break;
                }
            }
        }
        if found.is_empty() {
            found.push(Destination {
                route: None,
                topic: self.default_topic.clone(),
                fallback: None,
                key: Key::MqttTopic,
                headers: Vec::new(),
                ack: AckRule::Log(AckPoint::HighWatermark),
            });
        }
        let primary = found.remove(0);
        Resolution { primary, copies: found }
    }

    fn destination(
        &self,
        index: usize,
        route: &Route,
        captures: &[&str],
        room: &mut Room<'_>,
    ) -> Destination {
        let mut name = String::new();
        route.topic.expand(captures, &mut name);
        let topic = topic_name(&name).and_then(|topic| room(index, &topic).map(|()| topic));
        let (topic, fallback) = match topic {
            Ok(topic) => (topic, None),
            Err(cause) => (self.default_topic.clone(), Some(cause)),
        };
        let key = match &route.key {
            Some(template) if fallback.is_none() => {
                let mut key = String::new();
                template.expand(captures, &mut key);
                if key.is_empty() { Key::Absent } else { Key::Text(key.into()) }
            }
            _ => Key::MqttTopic,
        };
        let headers = route.headers.iter().map(|(name, template)| {
            let mut value = String::new();
            template.expand(captures, &mut value);
            RouteHeader { name: name.as_str().into(), value: value.into() }
        });
        let ack = self.ack_rule(route, &topic);
        Destination { route: Some(index), key, headers: headers.collect(), ack, topic, fallback }
    }

    fn ack_rule(&self, route: &Route, topic: &TopicName) -> AckRule {
        match route.ack {
            None => AckRule::Log(AckPoint::HighWatermark),
            Some(Ack::Memory) => AckRule::Log(AckPoint::Appended),
            Some(Ack::Fsync) => AckRule::Log(AckPoint::Synced),
            Some(Ack::Mirrored) => {
                let wanted = route.ack_uplink.as_deref();
                let mut carrying = self.uplinks_of(topic.as_str());
                let found = match wanted {
                    Some(name) => carrying.find(|uplink| *uplink == name),
                    None => carrying.next().filter(|_| carrying.next().is_none()),
                };
                found.map_or(AckRule::Nowhere, |name| AckRule::Mirrored { uplink: name.into() })
            }
        }
    }

    /// The names of the uplinks that carry a topic.
    pub fn uplinks_of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a str> {
        self.config
            .uplinks
            .iter()
            .filter(move |uplink| uplink.target_of(topic).is_some())
            .map(|uplink| uplink.name.as_str())
    }

    /// Whether some route, or the built-in last one, can store messages in a topic of this name.
    #[must_use]
    pub fn writes(&self, topic: &str) -> bool {
        topic == DEFAULT_TOPIC
            || (0..self.writes.len()).any(|route| self.route_writes(route, topic))
    }

    /// Whether this route can store messages in a topic of this name, other than by falling back.
    #[must_use]
    pub fn route_writes(&self, route: usize, topic: &str) -> bool {
        is_topic_name(topic)
            && match &self.writes[route] {
                Writes::One(name) => **name == *topic,
                Writes::Glob(glob) => glob.matches(topic),
                Writes::Nothing => false,
            }
    }

    /// Whether this route always writes the same topic (and so is not limited in how many it makes).
    #[must_use]
    pub fn is_fixed(&self, route: usize) -> bool {
        matches!(self.writes[route], Writes::One(_))
    }
}

impl Writes {
    fn of(route: &Route) -> Self {
        match route.topic.literal() {
            Some(name) => Self::One(name.into()),
            None => Glob::new(&route.topic.as_glob()).map_or(Self::Nothing, Self::Glob),
        }
    }
}

/// Topic `mqtt`.
pub(crate) fn default_topic() -> TopicName {
    TopicName::new(DEFAULT_TOPIC).expect("a legal topic name")
}

fn topic_name(name: &str) -> Result<TopicName, Fallback> {
    if name.starts_with("__") {
        return Err(Fallback::ReservedName);
    }
    match TopicName::new(name) {
        Some(topic) if is_topic_name(name) => Ok(topic),
        _ => Err(Fallback::IllegalName),
    }
}

#[cfg(test)]
mod tests;
