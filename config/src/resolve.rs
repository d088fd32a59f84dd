//! From values to settings: what no single key can be wrong about, only several together.
//!
//! Two listeners on one port, a route to an illegal topic, an acknowledgement that asks for more than the topic gives,
//! an uplink to nowhere. Invariant: what has a problem already is skipped, never reported twice. Neighbours:
//! [`crate::values`] before; the routes and uplinks have a file of their own, [`crate::wiring`].

use crate::glob::Glob;
use crate::keys::{self, SECTIONS, SECTIONS_LATER};
use crate::report::{Origin, Problems};
use crate::settings::{
    Cleanup, Codec, Config, DiskBudget, Durability, HostPort, Limits, Listener, LogFormat, Logging,
    Protocol, Site, Storage, TopicDefaults, TopicRule, TopicSpec,
};
use crate::tree::{Table, Value, default_listeners};
use crate::values::{self, Values, did_you_mean};
use crate::wiring;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Makes the settings; what is wrong is in `problems`, and the result is to be used only if that is empty.
pub(crate) fn resolve(root: &Table, problems: &mut Problems) -> Config {
    unknown_sections(root, problems);
    let site = one(root, "site", problems);
    let storage = one(root, "storage", problems);
    let defaults = one(root, "topic_defaults", problems);
    let limits = one(root, "limits", problems);
    let logging = one(root, "logging", problems);
    let topics = many(root, "topic", problems);
    let routes = many(root, "route", problems);
    let uplinks = many(root, "uplink", problems);
    let listeners = if root.contains_key("listener") {
        many(root, "listener", problems)
    } else {
        values::tables("listener", "listener", &default_listeners(), problems)
    };

    if let Some((_, node)) = root.get("listener").filter(|_| listeners.is_empty())
        && matches!(&node.value, Value::List(list) if list.is_empty())
    {
        let help = "leave it out for the built-in listeners, or write [[listener]]".into();
        problems.add(&node.origin, "listener", "is empty: nobody could connect".into(), Some(help));
    }
    let site = resolve_site(&site, !uplinks.is_empty(), uplinks.first(), problems);
    let listeners = resolve_listeners(&listeners, problems);
    let topic_defaults = TopicDefaults {
        auto_create: defaults.bool("auto_create"),
        spec: topic_spec(&defaults, None, problems),
    };
    let topics = resolve_topics(&topics, &topic_defaults.spec, problems);
    let mut config = Config {
        site,
        storage: resolve_storage(&storage, problems),
        listeners,
        topic_defaults,
        topics,
        routes: Vec::new(),
        uplinks: Vec::new(),
        limits: resolve_limits(&limits),
        logging: resolve_logging(&logging, problems),
    };
    config.uplinks = wiring::uplinks(&uplinks, &config, problems);
    config.routes = wiring::routes(&routes, &config, problems);
    config
}

fn unknown_sections(root: &Table, problems: &mut Problems) {
    for (name, (at, _)) in root {
        if SECTIONS.iter().any(|s| s.name == name) {
            continue;
        }
        if SECTIONS_LATER.contains(&name.as_str()) {
            problems.add(at, name, "is not in this version".into(), Some("leave it out".into()));
        } else {
            let help = did_you_mean(name, SECTIONS.iter().map(|s| s.name));
            problems.add(at, name, "unknown section".into(), Some(help));
        }
    }
}

fn one(root: &Table, section: &'static str, problems: &mut Problems) -> Values {
    let (table, origin) = match root.get(section) {
        None => (None, &Origin::Default),
        Some((_, node)) => match &node.value {
            Value::Table(table) => (Some(table), &node.origin),
            other => {
                let help = Some(format!("write [{section}]"));
                problems.add(&node.origin, section, format!("is {}", other.kind()), help);
                (None, &node.origin)
            }
        },
    };
    values::read(section, section, table, origin, problems)
}

fn many(root: &Table, section: &'static str, problems: &mut Problems) -> Vec<Values> {
    match root.get(section) {
        None => Vec::new(),
        Some((_, node)) => values::tables(section, section, node, problems),
    }
}

fn resolve_site(
    site: &Values,
    needed: bool,
    uplink: Option<&Values>,
    problems: &mut Problems,
) -> Site {
    let name = site.text("name").map(str::to_owned);
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match &name {
        Some(name) if name.len() > 100 || !name.bytes().all(legal) => {
            let help = "it could be 1 to 100 letters, digits, `.`, `_` and `-`: it becomes part of topic names";
            problems.add(
                site.origin("name"),
                &site.path_of("name"),
                format!("{name:?} is not a name for a site"),
                Some(help.into()),
            );
        }
        None if needed && !site.is_given("name") => {
            let at = uplink.map_or(&Origin::Default, Values::table_origin);
            let help = "write [site] and name = \"plant-7\": the centre must be able to tell its sites apart";
            problems.add(at, "site.name", "is required with an uplink".into(), Some(help.into()));
        }
        _ => {}
    }
    Site { name }
}

/// Data directories that a node may have.
const DIRS_MAX: usize = 16;

/// `dir`, or all of `dirs`.
fn data_dirs(v: &Values, problems: &mut Problems) -> Vec<PathBuf> {
    let one = || vec![PathBuf::from(v.text("dir").unwrap_or_default())];
    let Some(all) = v.texts("dirs") else { return one() };
    let path = v.path_of("dirs");
    let mut add = |at: &Origin, what: String, help: &str| {
        problems.add(at, &path, what, Some(help.to_owned()));
    };
    if v.is_given("dir") {
        add(v.origin("dirs"), "stands beside `dir`".to_owned(), "write one of the two");
    }
    if all.is_empty() || all.len() > DIRS_MAX {
        let help = format!("name from 1 to {DIRS_MAX}, or leave it out");
        add(v.origin("dirs"), format!("names {} directories", all.len()), &help);
        return one();
    }
    let whole = |text: &str| std::path::absolute(text).unwrap_or_else(|_| text.into());
    for (i, (text, at)) in all.iter().enumerate() {
        for (other, _) in &all[..i] {
            let (a, b) = (whole(text), whole(other));
            if a == b {
                add(
                    at,
                    format!("names {text} twice"),
                    "each directory stands once, on a disk of its own",
                );
            } else if a.starts_with(&b) || b.starts_with(&a) {
                let what = format!("names {text} and {other}, one within the other");
                add(at, what, "directories stand beside each other, on disks of their own");
            }
        }
    }
    all.iter().map(|(text, _)| PathBuf::from(text)).collect()
}

/// A whole filesystem that is to stay free would take all that is stored.
fn min_free(v: &Values, problems: &mut Problems) -> DiskBudget {
    let min_free = v.budget("min_free").unwrap_or(DiskBudget::Percent(2));
    if min_free == DiskBudget::Percent(100) {
        let message = "is all of the filesystem: nothing could be stored".to_owned();
        let help = "it could be 1% to 99%, or a size".to_owned();
        problems.add(v.origin("min_free"), &v.path_of("min_free"), message, Some(help));
    }
    min_free
}

fn resolve_storage(v: &Values, problems: &mut Problems) -> Storage {
    Storage {
        dirs: data_dirs(v, problems),
        max_bytes: v.budget("max_bytes").unwrap_or(DiskBudget::Percent(80)),
        min_free: min_free(v, problems),
        commit_delay: time(v, "commit_delay"),
        commit_delay_max: time(v, "commit_delay_max"),
        journal_bytes_per_day: v.bytes("journal_bytes_per_day").flatten(),
        journal_file_bytes: bytes(v, "journal_file_bytes"),
        journal_files: count(v, "journal_files"),
        reserved_bytes: bytes(v, "reserved_bytes"),
        memory_sync: time(v, "memory_sync"),
        open_files_max: v.integer("open_files_max").and_then(|n| u32::try_from(n).ok()),
        producer_id_expiration: time(v, "producer_id_expiration"),
        bulk_bytes: size(v, "bulk_bytes"),
        uncommitted_bytes_max: size(v, "uncommitted_bytes_max"),
        tail_bytes_max: size(v, "tail_bytes_max"),
        compaction_memory_bytes: size(v, "compaction_memory_bytes"),
        compaction_bytes_per_second: v.bytes("compaction_bytes_per_second").flatten(),
    }
}

fn resolve_limits(v: &Values) -> Limits {
    Limits {
        shards: count(v, "shards"),
        connections_max: count(v, "connections_max"),
        packet_bytes_max: small(v, "packet_bytes_max"),
        receive_maximum: short(v, "receive_maximum"),
        receive_maximum_v3: short(v, "receive_maximum_v3"),
        topic_alias_max: short(v, "topic_alias_max"),
        subscriptions_per_session_max: count(v, "subscriptions_per_session_max"),
        outgoing_inflight_max: short(v, "outgoing_inflight_max"),
        outgoing_messages_max: count(v, "outgoing_messages_max"),
        outgoing_bytes_max: small(v, "outgoing_bytes_max"),
        write_buffer_bytes_max: small(v, "write_buffer_bytes_max"),
        pending_per_shard_max: count(v, "pending_per_shard_max"),
        buffered_bytes_per_shard_max: bytes(v, "buffered_bytes_per_shard_max"),
        handshakes_max: count(v, "handshakes_max"),
        connect_bytes_max: small(v, "connect_bytes_max"),
        write_timeout: time(v, "write_timeout"),
        backpressure_wait: time(v, "backpressure_wait"),
        connect_timeout: time(v, "connect_timeout"),
        keep_alive_max: time(v, "keep_alive_max"),
        topics_max: count(v, "topics_max"),
        topics_per_route_max: count(v, "topics_per_route_max"),
        partitions_max: count(v, "partitions_max"),
        kafka_connections_max: count(v, "kafka_connections_max"),
        kafka_frame_bytes_max: small(v, "kafka_frame_bytes_max"),
        kafka_request_memory_bytes_max: bytes(v, "kafka_request_memory_bytes_max"),
        kafka_requests_in_flight_max: count(v, "kafka_requests_in_flight_max"),
        kafka_fetch_bytes_max: small(v, "kafka_fetch_bytes_max"),
        kafka_idle_timeout: time(v, "kafka_idle_timeout"),
        http_connections_max: count(v, "http_connections_max"),
        http_body_bytes_max: small(v, "http_body_bytes_max"),
        http_timeout: time(v, "http_timeout"),
    }
}

fn resolve_logging(v: &Values, problems: &mut Problems) -> Logging {
    let level = v.text("level").unwrap_or("info").to_owned();
    // Directives (`headwater=debug,info`) are left to their parser; a single word is one of five.
    let words = ["error", "warn", "info", "debug", "trace", "off"];
    if !level.contains(['=', ',', '[']) && !words.contains(&level.as_str()) {
        let help = did_you_mean(&level, words.into_iter());
        let message = format!("{level:?} is none of its values");
        problems.add(v.origin("level"), &v.path_of("level"), message, Some(help));
    }
    let format = match v.text("format") {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Human,
    };
    Logging { level, format }
}

/// The settings of a topic; what is left out comes from `defaults`, or from the table of keys where that is `None`.
fn topic_spec(v: &Values, defaults: Option<&TopicSpec>, problems: &mut Problems) -> TopicSpec {
    let inherit = |given: Option<u64>, f: fn(&TopicSpec) -> u64| {
        given.or(defaults.map(f)).unwrap_or_default()
    };
    let partitions = inherit(v.integer("partitions"), |d| d.partitions.into());
    let index = inherit(v.bytes("index_bytes_max").flatten(), |d| d.index_bytes_max.into());
    let batch = inherit(v.bytes("batch_bytes_max").flatten(), |d| d.batch_bytes_max.into());
    let (compression, compression_level) = compression(v, defaults, problems);
    TopicSpec {
        partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
        durability: match (v.text("durability"), defaults) {
            (Some("memory"), _) => Durability::Memory,
            (None, Some(defaults)) => defaults.durability,
            _ => Durability::Fsync,
        },
        retention: v.time("retention").unwrap_or(defaults.and_then(|d| d.retention)),
        retention_bytes: v
            .bytes("retention_bytes")
            .unwrap_or(defaults.and_then(|d| d.retention_bytes)),
        segment_bytes: inherit(v.bytes("segment_bytes").flatten(), |d| d.segment_bytes),
        index_bytes_max: u32::try_from(index).unwrap_or(u32::MAX),
        segment_time: v
            .time("segment_time")
            .flatten()
            .or(defaults.map(|d| d.segment_time))
            .unwrap_or_default(),
        batch_bytes_max: u32::try_from(batch).unwrap_or(u32::MAX),
        cleanup: match v.text("cleanup") {
            Some("compact") => Cleanup::Compact,
            Some("compact,delete") => Cleanup::CompactAndDelete,
            Some(_) => Cleanup::Delete,
            None => defaults.map(|d| d.cleanup).unwrap_or_default(),
        },
        tombstone_retention: v
            .time("tombstone_retention")
            .flatten()
            .or(defaults.map(|d| d.tombstone_retention))
            .unwrap_or_default(),
        compaction_lag: v
            .time("compaction_lag")
            .flatten()
            .or(defaults.map(|d| d.compaction_lag))
            .unwrap_or_default(),
        compaction_lag_max: v
            .time("compaction_lag_max")
            .unwrap_or(defaults.and_then(|d| d.compaction_lag_max)),
        compaction_dirty_percent: v
            .integer("compaction_dirty_percent")
            .and_then(|percent| u8::try_from(percent).ok())
            .or(defaults.map(|d| d.compaction_dirty_percent))
            .unwrap_or_default(),
        compression,
        compression_level,
    }
}

/// Codec and level. A level is inherited together with its codec only.
fn compression(
    v: &Values,
    defaults: Option<&TopicSpec>,
    problems: &mut Problems,
) -> (Codec, Option<u8>) {
    let inherited = defaults.map_or((Codec::None, None), |d| (d.compression, d.compression_level));
    let codec = match v.text("compression") {
        Some("gzip") => Codec::Gzip,
        Some("snappy") => Codec::Snappy,
        Some("lz4") => Codec::Lz4,
        Some("zstd") => Codec::Zstd,
        Some(_) => Codec::None,
        None => inherited.0,
    };
    let Some(level) = v.integer("compression_level") else {
        return (codec, if codec == inherited.0 { inherited.1 } else { None });
    };
    let level = u8::try_from(level).unwrap_or(u8::MAX);
    let help = match codec.level_max() {
        Some(max) if level <= max => return (codec, Some(level)),
        Some(max) => format!("it could be 1 to {max}"),
        None => "levels are for compression = \"gzip\" (1 to 9) and \"zstd\" (1 to 22)".to_owned(),
    };
    let name = format!("{codec:?}").to_lowercase();
    let message = format!("compression = \"{name}\" has no level {level}");
    let path = v.path_of("compression_level");
    problems.add(v.origin("compression_level"), &path, message, Some(help));
    (codec, None)
}

fn resolve_topics(
    topics: &[Values],
    defaults: &TopicSpec,
    problems: &mut Problems,
) -> Vec<TopicRule> {
    let mut rules: Vec<TopicRule> = Vec::new();
    for v in topics {
        let Some(name) = v.text("name") else { continue };
        let (at, path) = (v.origin("name"), v.path_of("name"));
        let Some(glob) = Glob::new(name) else {
            let help = "it could be 1 to 249 of A-Z a-z 0-9 . _ -, with `*` and `?` as wildcards";
            problems.add(at, &path, format!("{name:?} is not a topic name"), Some(help.into()));
            continue;
        };
        if name.starts_with("__") {
            let message = format!("{name:?} is a name for internal topics");
            problems.add(
                at,
                &path,
                message,
                Some("names of your own do not begin with `__`".into()),
            );
            continue;
        }
        if rules.iter().any(|r| r.name == glob) {
            let message = format!("{name:?} has a [[topic]] already");
            problems.add(at, &path, message, Some("put all its keys into one".into()));
            continue;
        }
        rules.push(TopicRule { name: glob, spec: topic_spec(v, Some(defaults), problems) });
    }
    rules
}

fn resolve_listeners(listeners: &[Values], problems: &mut Problems) -> Vec<Listener> {
    let mut all: Vec<Listener> = Vec::new();
    for v in listeners {
        let protocol = v.text("protocol").map(|p| match p {
            "kafka" => Protocol::Kafka,
            "http" => Protocol::Http,
            _ => Protocol::Mqtt,
        });
        let bind = v.text("bind").and_then(|text| bind_address(v, text, problems));
        let advertised = advertised(v, protocol, bind, problems);
        let (Some(protocol), Some(bind)) = (protocol, bind) else { continue };
        if let Some(other) = all.iter().find(|other| collide(other.bind, bind)) {
            let message = format!(
                "{bind} is taken by the {} listener on {} already",
                other.protocol, other.bind
            );
            let help = "give each listener a port of its own, or port 0 for a free one";
            problems.add(v.origin("bind"), &v.path_of("bind"), message, Some(help.into()));
        }
        all.push(Listener { protocol, bind, advertised });
    }
    all
}

fn bind_address(v: &Values, text: &str, problems: &mut Problems) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let known = match host {
        "localhost" => format!("127.0.0.1:{port}"),
        "*" | "" => format!("0.0.0.0:{port}"),
        _ => String::new(),
    };
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let help = if known.parse::<SocketAddr>().is_ok() {
                format!("write \"{known}\"")
            } else {
                "it could be IP:PORT, as in \"0.0.0.0:1883\" or \"[::]:1883\"".into()
            };
            let message = format!("{text:?} is not an address to bind");
            problems.add(v.origin("bind"), &v.path_of("bind"), message, Some(help));
            None
        }
    }
}

fn advertised(
    v: &Values,
    protocol: Option<Protocol>,
    bind: Option<SocketAddr>,
    problems: &mut Problems,
) -> Option<HostPort> {
    let path = v.path_of("advertised");
    let Some(text) = v.text("advertised") else {
        let wildcard = bind.filter(|b| b.ip().is_unspecified());
        if let (Some(bind), Some(Protocol::Kafka)) = (wildcard, protocol)
            && !v.is_given("advertised")
        {
            let message = format!("is missing: clients cannot connect to {bind}");
            let help = "write the address that Kafka clients reach this node by, as in \"gateway-7.plant:9092\"";
            problems.add(v.origin("bind"), &path, message, Some(help.into()));
        }
        return None;
    };
    if protocol.is_some_and(|p| p != Protocol::Kafka) {
        let help = "leave it out: only Kafka tells its clients where to connect".into();
        problems.add(v.origin("advertised"), &path, "is for Kafka listeners".into(), Some(help));
        return None;
    }
    match HostPort::parse(text) {
        Ok(address) => Some(address),
        Err(why) => {
            let help = "as in \"gateway-7.plant:9092\"".into();
            problems.add(v.origin("advertised"), &path, why, Some(help));
            None
        }
    }
}

/// Whether the kernel would refuse the second of two binds. A wildcard of IPv6 takes IPv4 too.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

// What a default of the table cannot leave out is never absent; the fallbacks below are never seen.

pub(crate) fn time(v: &Values, name: &str) -> Duration {
    v.time(name).flatten().unwrap_or_default()
}

pub(crate) fn bytes(v: &Values, name: &str) -> u64 {
    v.bytes(name).flatten().unwrap_or_default()
}

pub(crate) fn size(v: &Values, name: &str) -> usize {
    usize::try_from(bytes(v, name)).unwrap_or(usize::MAX)
}

fn small(v: &Values, name: &str) -> u32 {
    u32::try_from(bytes(v, name)).unwrap_or(u32::MAX)
}

fn count(v: &Values, name: &str) -> u32 {
    v.integer(name).map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX))
}

pub(crate) fn short(v: &Values, name: &str) -> u16 {
    v.integer(name).map_or(0, |n| u16::try_from(n).unwrap_or(u16::MAX))
}

/// The section's keys without those of later versions: for what is printed.
pub(crate) fn printed(section: &str) -> impl Iterator<Item = &'static keys::Key> {
    keys::of(section).filter(|k| k.kind != keys::Kind::Later)
}
