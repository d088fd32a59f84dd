//! Routes and uplinks: what they promise must be kept by the topics and centres that they name.
//!
//! Invariant: a route's acknowledgement never asks for more than every topic it can lead to gives. Neighbours:
//! [`crate::resolve`] calls this once topics and limits are known.

use crate::glob::Glob;
use crate::pattern::Pattern;
use crate::report::{Origin, Problems};
use crate::resolve::{short, size, time};
use crate::settings::{
    Ack, Config, Durability, HostPort, Protocol, Route, Uplink, UplinkTopic, is_topic_name,
};
use crate::template::Template;
use crate::values::{Values, did_you_mean};

/// Reads the uplinks. Call before [`routes`].
pub(crate) fn uplinks(all: &[Values], config: &Config, problems: &mut Problems) -> Vec<Uplink> {
    let mut uplinks: Vec<Uplink> = Vec::new();
    for v in all {
        let name = v.text("name").unwrap_or_default().to_owned();
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !name.is_empty() && (name.len() > 100 || !name.bytes().all(legal)) {
            let help = "it could be 1 to 100 letters, digits, `.`, `_` and `-`";
            add(v, "name", format!("{name:?} is not a name for an uplink"), help, problems);
        }
        if !name.is_empty() && uplinks.iter().any(|u| u.name == name) {
            let help = "its name is what its checkpoint is kept under: each needs one of its own";
            add(v, "name", format!("there is an uplink {name:?} already"), help, problems);
        }
        let backoff = (time(v, "reconnect_backoff_min"), time(v, "reconnect_backoff_max"));
        if backoff.0 > backoff.1 {
            let message = "is above reconnect_backoff_max".to_owned();
            add(v, "reconnect_backoff_min", message, "make it smaller", problems);
        }
        uplinks.push(Uplink {
            name,
            bootstrap: bootstrap(v, config, problems),
            topics: uplink_topics(v, config, problems),
            replication_factor: v
                .is_given("replication_factor")
                .then(|| short(v, "replication_factor"))
                .filter(|n| *n > 0),
            backoff,
            request_timeout: time(v, "request_timeout"),
            connect_timeout: time(v, "connect_timeout"),
            request_bytes_max: size(v, "request_bytes_max"),
        });
    }
    uplinks
}

fn bootstrap(v: &Values, config: &Config, problems: &mut Problems) -> Vec<HostPort> {
    let Some(texts) = v.texts("bootstrap") else { return Vec::new() };
    let path = v.path_of("bootstrap");
    if texts.is_empty() {
        let help = "name one broker of the centre at least, as in [\"kafka-1:9092\"]";
        add(v, "bootstrap", "is empty: the uplink leads nowhere".into(), help, problems);
    }
    let own: Vec<HostPort> = config
        .listeners
        .iter()
        .filter(|l| l.protocol == Protocol::Kafka && l.bind.port() != 0)
        .flat_map(|l| {
            let bound = HostPort { host: l.bind.ip().to_string(), port: l.bind.port() };
            l.advertised.clone().into_iter().chain([bound])
        })
        .collect();
    let mut all = Vec::new();
    for (i, (text, at)) in texts.iter().enumerate() {
        let path = format!("{path}[{i}]");
        match HostPort::parse(text) {
            Ok(broker) if own.contains(&broker) => {
                let message = format!("{broker} is this node's own Kafka listener");
                let help = "name a broker of the centre: a node cannot be mirrored to itself";
                problems.add(at, &path, message, Some(help.into()));
            }
            Ok(broker) => all.push(broker),
            Err(why) => problems.add(at, &path, why, Some("as in \"kafka-1:9092\"".into())),
        }
    }
    all
}

fn uplink_topics(v: &Values, config: &Config, problems: &mut Problems) -> Vec<UplinkTopic> {
    let Some(tables) = v.tables("topics") else { return Vec::new() };
    if tables.is_empty() && v.is_given("topics") {
        let help = "name one topic at least, as in [{ from = \"*\", to = \"{site}.{topic}\" }]";
        add(v, "topics", "is empty: the uplink would mirror nothing".into(), help, problems);
    }
    let site = config.site.name.as_deref();
    let mut all: Vec<UplinkTopic> = Vec::new();
    for t in tables {
        let from = t.text("from").and_then(|text| {
            let glob = Glob::new(text).filter(|_| !text.starts_with("__headwater_"));
            if glob.is_none() {
                let help =
                    "it could be 1 to 249 of A-Z a-z 0-9 . _ -, with `*` and `?` as wildcards";
                add(t, "from", format!("{text:?} is not a topic name"), help, problems);
            }
            glob
        });
        let to = t.text("to").and_then(|text| match Template::for_uplink(text, site) {
            Ok(template) => Some(template),
            // That the site has no name is said once, by the site.
            Err(crate::template::TemplateError::NoSite) => None,
            Err(why) => {
                let help = "as in \"{site}.{topic}\"";
                add(t, "to", format!("{text:?}: {why}"), help, problems);
                None
            }
        });
        let (Some(from), Some(to)) = (from, to) else { continue };
        target_is_legal(t, &from, &to, &all, problems);
        all.push(UplinkTopic { from, to });
    }
    all
}

/// Two topics here must not become one there: offsets there follow those here, partition by partition.
fn target_is_legal(
    t: &Values,
    from: &Glob,
    to: &Template,
    others: &[UplinkTopic],
    problems: &mut Problems,
) {
    let example = to.expand_topic(from.literal().unwrap_or("x"));
    if !is_topic_name(&example) {
        let help = "it could be 1 to 249 of A-Z a-z 0-9 . _ -, not beginning with `__`";
        add(t, "to", format!("makes {example:?}, which is not a topic name"), help, problems);
    } else if from.literal().is_none() && !to.uses_topic() {
        let message = format!("{from} can match many topics, and all would become {example:?}");
        add(t, "to", message, "put {topic} into it", problems);
    } else if let Some(other) = others.iter().find(|o| {
        let same = o.from.literal().is_some() && o.to.expand_topic(o.from.as_str()) == example;
        same && from.literal().is_some() && o.from != *from
    }) {
        let message = format!("{:?} is the target of {} already", example, other.from);
        add(t, "to", message, "give each topic a target of its own", problems);
    } else if others.iter().any(|o| o.from == *from) {
        let message = format!("{from} stands in this uplink already");
        add(t, "from", message, "the first entry that matches is the one", problems);
    }
}

/// Reads the routes, once topics and uplinks are known.
pub(crate) fn routes(all: &[Values], config: &Config, problems: &mut Problems) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for v in all {
        let Some(mqtt) = v.text("mqtt").and_then(|text| pattern(v, text, problems)) else {
            // What can be said without the captures is said all the same.
            if let Some(topic) = v.text("topic") {
                leads_to_a_topic(v, topic, &without_names(topic), problems);
            }
            continue;
        };
        if let Some(earlier) = routes.iter().find(|r| r.mqtt == mqtt && !r.goes_on) {
            let message =
                format!("is never reached: an earlier route takes {:?}", earlier.mqtt.as_str());
            add(
                v,
                "mqtt",
                message,
                "say `continue = true` in the earlier one, or leave one out",
                problems,
            );
        }
        let site = config.site.name.as_deref();
        let topic = template(v, "topic", &mqtt, site, problems);
        let key = template(v, "key", &mqtt, site, problems);
        let headers = headers(v, &mqtt, site, problems);
        let Some(topic) = topic else { continue };
        let example =
            topic.literal().map_or_else(|| topic.as_glob().replace('*', "x"), str::to_owned);
        if !leads_to_a_topic(v, topic.as_str(), &example, problems) {
            continue;
        }
        let ack = match v.text("ack") {
            Some("memory") => Some(Ack::Memory),
            Some("fsync") => Some(Ack::Fsync),
            Some("mirrored") => Some(Ack::Mirrored),
            _ => None,
        };
        if ack == Some(Ack::Fsync) {
            ack_is_kept(v, &topic, config, problems);
        }
        let ack_uplink = ack_uplink(v, ack, &topic, config, problems);
        let goes_on = v.bool("continue");
        routes.push(Route { mqtt, topic, key, headers, ack, ack_uplink, goes_on });
    }
    routes
}

fn pattern(v: &Values, text: &str, problems: &mut Problems) -> Option<Pattern> {
    match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(why) => {
            let help = "as in \"plant/{line}/+/telemetry/#\"";
            add(v, "mqtt", format!("{text:?}: {why}"), help, problems);
            None
        }
    }
}

fn template(
    v: &Values,
    key: &str,
    pattern: &Pattern,
    site: Option<&str>,
    problems: &mut Problems,
) -> Option<Template> {
    let text = v.text(key)?;
    checked_template(text, pattern, site, v.origin(key), &v.path_of(key), problems)
}

fn checked_template(
    text: &str,
    pattern: &Pattern,
    site: Option<&str>,
    at: &Origin,
    path: &str,
    problems: &mut Problems,
) -> Option<Template> {
    match Template::for_route(text, pattern, site) {
        Ok(template) => Some(template),
        Err(why) => {
            let help =
                "`{name}` stands for a level that the route's pattern captures under that name";
            problems.add(at, path, format!("{text:?}: {why}"), Some(help.into()));
            None
        }
    }
}

fn headers(
    v: &Values,
    pattern: &Pattern,
    site: Option<&str>,
    problems: &mut Problems,
) -> Vec<(String, Template)> {
    let mut all = Vec::new();
    for (name, text, at) in v.names("headers") {
        let path = format!("{}.{name}", v.path_of("headers"));
        if name.is_empty() || name.len() > 255 {
            let message = "a header's name has 1 to 255 bytes".to_owned();
            problems.add(at, &path, message, Some("choose another name".into()));
        } else if name == "hw" || name == "content-type" || name.starts_with("mqtt.") {
            let message = format!("{name:?} is a header that Headwater writes itself");
            let help = "`hw`, `content-type` and `mqtt.*` are taken: choose another name";
            problems.add(at, &path, message, Some(help.into()));
        } else if let Some(template) = checked_template(text, pattern, site, at, &path, problems) {
            all.push((name.clone(), template));
        }
    }
    all
}

/// `example` is the topic with an `x` for each capture: no level can mend what the fixed parts spoil.
fn leads_to_a_topic(v: &Values, topic: &str, example: &str, problems: &mut Problems) -> bool {
    let legal = is_topic_name(example);
    if !legal {
        let message = format!("{topic:?} leads to {example:?}, which is not a topic name");
        let help = if example.starts_with("__") {
            "names that begin with `__` are for internal topics"
        } else {
            "it could be 1 to 249 of A-Z a-z 0-9 . _ -"
        };
        add(v, "topic", message, help, problems);
    }
    legal
}

/// A template with an `x` for each pair of braces.
fn without_names(template: &str) -> String {
    let mut parts = template.split('{');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('x');
        out.push_str(part.split_once('}').map_or("", |(_, rest)| rest));
    }
    out
}

/// `ack = "fsync"` on a topic that never syncs before its high watermark moves.
fn ack_is_kept(v: &Values, topic: &Template, config: &Config, problems: &mut Problems) {
    let culprit = match topic.literal() {
        Some(name) => {
            (config.topic(name).durability == Durability::Memory).then(|| name.to_owned())
        }
        None => {
            let names = topic.as_glob();
            let rule = config
                .topics
                .iter()
                .find(|rule| rule.spec.durability == Durability::Memory && rule.name.meets(&names));
            let by_default = config.topic_defaults.spec.durability == Durability::Memory;
            rule.map(|r| r.name.to_string()).or(by_default.then_some(names))
        }
    };
    if let Some(name) = culprit {
        let message =
            format!("\"fsync\" asks for more than topic {name} gives, which is \"memory\"");
        let help = "it could be \"memory\" here, or durability = \"fsync\" in the topic";
        add(v, "ack", message, help, problems);
    }
}

fn ack_uplink(
    v: &Values,
    ack: Option<Ack>,
    topic: &Template,
    config: &Config,
    problems: &mut Problems,
) -> Option<String> {
    let named = v.text("ack_uplink");
    if ack != Some(Ack::Mirrored) {
        if named.is_some() {
            let help = "write ack = \"mirrored\", or leave it out";
            add(v, "ack_uplink", "is for ack = \"mirrored\"".into(), help, problems);
        }
        return None;
    }
    let carries = |uplink: &&Uplink| match topic.literal() {
        Some(name) => uplink.topics.iter().any(|t| t.from.matches(name)),
        None => uplink.topics.iter().any(|t| t.from.meets(&topic.as_glob())),
    };
    let names = || config.uplinks.iter().map(|u| u.name.as_str());
    if let Some(named) = named {
        let Some(uplink) = config.uplinks.iter().find(|u| u.name == named) else {
            let help = if config.uplinks.is_empty() {
                "there is no [[uplink]]".into()
            } else {
                did_you_mean(named, names())
            };
            add(v, "ack_uplink", format!("there is no uplink {named:?}"), &help, problems);
            return None;
        };
        if !carries(&uplink) {
            let message = format!("uplink {named:?} does not carry topic {:?}", topic.as_str());
            add(v, "ack_uplink", message, "add the topic to its `topics`", problems);
        }
        return Some(named.to_owned());
    }
    let carriers: Vec<&Uplink> = config.uplinks.iter().filter(carries).collect();
    match carriers.as_slice() {
        [one] => Some(one.name.clone()),
        [] => {
            let message =
                format!("\"mirrored\" needs an uplink that carries topic {:?}", topic.as_str());
            add(v, "ack", message, "add the topic to an uplink's `topics`", problems);
            None
        }
        several => {
            let names: Vec<&str> = several.iter().map(|u| u.name.as_str()).collect();
            let message = "\"mirrored\" leaves open by which uplink".to_owned();
            add(v, "ack", message, &format!("write ack_uplink: {}", names.join(" or ")), problems);
            None
        }
    }
}

fn add(v: &Values, key: &str, message: String, help: &str, problems: &mut Problems) {
    problems.add(v.origin(key), &v.path_of(key), message, Some(help.to_owned()));
}
