//! The settings of a node, with every default applied and every unit undone.
//!
//! Invariant: a [`Config`] exists only when all of it is valid together; nothing downstream checks it again.
//! Neighbours: [`crate::keys`] says what each key means, [`crate::resolve`] makes this out of values.

use crate::glob::Glob;
use crate::pattern::Pattern;
use crate::template::Template;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// All settings of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who this node is.
    pub site: Site,
    /// Where and how it stores.
    pub storage: Storage,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// What a topic gets that no `[[topic]]` names, and what those leave out.
    pub topic_defaults: TopicDefaults,
    /// Topics named in the file, in its order.
    pub topics: Vec<TopicRule>,
    /// Routes in the order of the file; the built-in last one (topic `mqtt`) is not among them.
    pub routes: Vec<Route>,
    /// Centres to mirror to.
    pub uplinks: Vec<Uplink>,
    /// Named maxima.
    pub limits: Limits,
    /// What the process says about itself.
    pub logging: Logging,
}

/// `[site]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Name of the site, legal in topic names. Present whenever there is an uplink.
    pub name: Option<String>,
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Data directories, at least one, all different, none within another.
    pub dirs: Vec<PathBuf>,
    /// What the topics in each data directory may take.
    pub max_bytes: DiskBudget,
    /// What must stay free on each data directory's filesystem.
    pub min_free: DiskBudget,
    /// Wait after the first append of a commit cycle.
    pub commit_delay: Duration,
    /// The longest wait for the sake of `journal_bytes_per_day`.
    pub commit_delay_max: Duration,
    /// What one directory's journal should write in a day.
    pub journal_bytes_per_day: Option<u64>,
    /// Bytes of one journal file.
    pub journal_file_bytes: u64,
    /// Files of the journal's ring.
    pub journal_files: u32,
    /// Room kept back for the log's own state on a full disk.
    pub reserved_bytes: u64,
    /// How often files of `memory` topics are synced.
    pub memory_sync: Duration,
    /// Segment files kept open; `None` follows from what the system allows.
    pub open_files_max: Option<u32>,
    /// Idempotent producers are forgotten after so long without a record.
    pub producer_id_expiration: Duration,
    /// What waits for one partition, from which on it goes past the journal; 0 is never.
    pub bulk_bytes: usize,
    /// Bytes appended and not committed, at most.
    pub uncommitted_bytes_max: usize,
    /// Bytes of committed batches kept in memory for readers at the tail, at most.
    pub tail_bytes_max: usize,
    /// Memory of compaction's map of keys.
    pub compaction_memory_bytes: usize,
    /// Bytes that compaction may read and write per second; `None` is unbounded.
    pub compaction_bytes_per_second: Option<u64>,
}

impl Storage {
    /// The data directories in one line.
    #[must_use]
    pub fn show_dirs(&self) -> String {
        let dirs: Vec<String> = self.dirs.iter().map(|dir| dir.display().to_string()).collect();
        dirs.join(", ")
    }
}

/// A part of the filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBudget {
    /// Percent of the filesystem that holds the data directory, 1 to 100.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// MQTT 3.1, 3.1.1 and 5 over TCP.
    Mqtt,
    /// Kafka's protocol over TCP.
    Kafka,
    /// Health, metrics and administration.
    Http,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mqtt => "mqtt",
            Self::Kafka => "kafka",
            Self::Http => "http",
        })
    }
}

/// `[[listener]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What is spoken.
    pub protocol: Protocol,
    /// Address to bind; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Address that Kafka clients are told to connect to. `None`: the bound one (never a wildcard then).
    pub advertised: Option<HostPort>,
}

/// A host name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Host name, IPv4 address, or IPv6 address without its brackets.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

impl HostPort {
    /// Parses `host:port` or `[v6]:port`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not HOST:PORT: {why}");
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let host = match host.strip_prefix('[') {
            Some(v6) => {
                let v6 = v6.strip_suffix(']').ok_or_else(|| wrong("`[` without `]`"))?;
                v6.parse::<std::net::Ipv6Addr>()
                    .map_err(|_| wrong("what stands in brackets is not an IPv6 address"))?;
                v6
            }
            None if host.contains(':') => {
                return Err(wrong("an IPv6 address stands in brackets, as in [::1]:9092"));
            }
            None => host,
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if host.is_empty() || host.len() > 255 || !host.bytes().all(legal) {
            return Err(wrong("the host is not a name or an address"));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Self { host: host.into(), port }),
            _ => Err(wrong("the port is not a number from 1 to 65535")),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// When a topic's high watermark moves, and so what its default acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Written to the kernel.
    Memory,
    /// Synced to disk.
    Fsync,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Fsync => "fsync",
        })
    }
}

/// What an acknowledgement waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ack {
    /// Appended in the process.
    Memory,
    /// Synced to disk here.
    Fsync,
    /// Acknowledged by the centre of an uplink.
    Mirrored,
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Fsync => "fsync",
            Self::Mirrored => "mirrored",
        })
    }
}

/// Codec of the batches made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// As they are.
    #[default]
    None,
    /// gzip
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// The highest level it takes, from 1 on; `None` when it has none.
    #[must_use]
    pub fn level_max(self) -> Option<u8> {
        match self {
            Self::Gzip => Some(9),
            Self::Zstd => Some(22),
            Self::None | Self::Snappy | Self::Lz4 => None,
        }
    }
}

/// What becomes of old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cleanup {
    /// Segments go by age and size.
    #[default]
    Delete,
    /// The newest record of each key stays.
    Compact,
    /// Both.
    CompactAndDelete,
}

/// Settings of one topic, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Partitions it is made with.
    pub partitions: u32,
    /// When its high watermark moves.
    pub durability: Durability,
    /// Age at which segments are deleted; `None` keeps them for ever.
    pub retention: Option<Duration>,
    /// Bytes per partition above which the oldest segments are deleted; `None` is unbounded.
    pub retention_bytes: Option<u64>,
    /// Size at which a segment is rolled.
    pub segment_bytes: u64,
    /// Size of an index at which its segment is rolled.
    pub index_bytes_max: u32,
    /// Age at which a segment is rolled.
    pub segment_time: Duration,
    /// Largest batch.
    pub batch_bytes_max: u32,
    /// What becomes of old records.
    pub cleanup: Cleanup,
    /// How long a tombstone that compaction has met stays.
    pub tombstone_retention: Duration,
    /// Younger records are not compacted.
    pub compaction_lag: Duration,
    /// Older records are compacted whatever else; `None` never.
    pub compaction_lag_max: Option<Duration>,
    /// Compact when this part has not been, in hundredths.
    pub compaction_dirty_percent: u8,
    /// Codec of the batches made here.
    pub compression: Codec,
    /// Its level, `None` for its default.
    pub compression_level: Option<u8>,
}

/// `[topic_defaults]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDefaults {
    /// Whether producers and metadata requests make topics that are missing. (Routes always do.)
    pub auto_create: bool,
    /// The settings.
    pub spec: TopicSpec,
}

/// `[[topic]]`: settings for the topics that a glob matches, completed from the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRule {
    /// Which topics.
    pub name: Glob,
    /// Their settings.
    pub spec: TopicSpec,
}

/// `[[route]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which MQTT topics.
    pub mqtt: Pattern,
    /// Template of the log topic.
    pub topic: Template,
    /// Template of the record's key; `None` is the MQTT topic.
    pub key: Option<Template>,
    /// Headers to add, in the order of their names.
    pub headers: Vec<(String, Template)>,
    /// What the acknowledgement waits for; `None` is the topic's durability.
    pub ack: Option<Ack>,
    /// For `mirrored`: which uplink. Filled in when exactly one can carry the topic.
    pub ack_uplink: Option<String>,
    /// Whether later routes may store marked copies.
    pub goes_on: bool,
}

/// `[[uplink]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Brokers to ask first; never empty.
    pub bootstrap: Vec<HostPort>,
    /// What goes where; never empty.
    pub topics: Vec<UplinkTopic>,
    /// Replicas of topics made in the centre; `None` leaves it to the centre.
    pub replication_factor: Option<u16>,
    /// Waits between attempts to connect: first and longest.
    pub backoff: (Duration, Duration),
    /// How long to wait for an answer.
    pub request_timeout: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// Bytes of one produce request, about, at most.
    pub request_bytes_max: usize,
}

impl Uplink {
    /// The entry that mirrors a topic of this name, and the name it gets. The first that matches.
    #[must_use]
    pub fn target_of(&self, topic: &str) -> Option<(&UplinkTopic, String)> {
        let entry = self.topics.iter().find(|t| t.from.matches(topic))?;
        Some((entry, entry.to.expand_topic(topic)))
    }
}

/// One entry of an uplink's `topics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkTopic {
    /// Which topics.
    pub from: Glob,
    /// Template of the name in the centre.
    pub to: Template,
}

/// `[limits]`: the named maxima (invariant 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Threads that serve connections; 0 is one per core.
    pub shards: u32,
    /// MQTT connections.
    pub connections_max: u32,
    /// Bytes of one MQTT packet.
    pub packet_bytes_max: u32,
    /// QoS 1 and 2 messages a client may have unacknowledged (v5 Receive Maximum).
    pub receive_maximum: u16,
    /// The same for clients below version 5, which are disconnected above it.
    pub receive_maximum_v3: u16,
    /// Topic aliases a client may use.
    pub topic_alias_max: u16,
    /// Subscriptions of one session.
    pub subscriptions_per_session_max: u32,
    /// Messages sent to one subscriber and not acknowledged.
    pub outgoing_inflight_max: u16,
    /// Messages waiting in memory for one subscriber.
    pub outgoing_messages_max: u32,
    /// Bytes waiting in memory for one subscriber.
    pub outgoing_bytes_max: u32,
    /// Bytes waiting for one MQTT client's socket.
    pub write_buffer_bytes_max: u32,
    /// QoS 1 messages of all clients of one thread that wait for their acknowledgement.
    pub pending_per_shard_max: u32,
    /// Bytes that all MQTT connections of one thread keep.
    pub buffered_bytes_per_shard_max: u64,
    /// MQTT connections that have not finished CONNECT.
    pub handshakes_max: u32,
    /// Bytes of a CONNECT packet.
    pub connect_bytes_max: u32,
    /// Time for CONNECT to arrive.
    pub connect_timeout: Duration,
    /// A subscriber whose socket takes nothing for this long is disconnected.
    pub write_timeout: Duration,
    /// How long a QoS 0 message waits for a full append path.
    pub backpressure_wait: Duration,
    /// Longest keep-alive granted; a client that asks for more or none is told this one (v5) or keeps its own.
    pub keep_alive_max: Duration,
    /// Topics, internal ones not counted.
    pub topics_max: u32,
    /// Topics made by one route's template.
    pub topics_per_route_max: u32,
    /// Partitions, internal ones not counted.
    pub partitions_max: u32,
    /// Kafka connections.
    pub kafka_connections_max: u32,
    /// Bytes of one Kafka request.
    pub kafka_frame_bytes_max: u32,
    /// Bytes of large Kafka requests being received at a time, over all connections.
    pub kafka_request_memory_bytes_max: u64,
    /// Produce requests of one connection that wait for their acknowledgement.
    pub kafka_requests_in_flight_max: u32,
    /// Bytes of one Kafka fetch response, about.
    pub kafka_fetch_bytes_max: u32,
    /// A Kafka connection without a request for this long is closed.
    pub kafka_idle_timeout: Duration,
    /// HTTP connections.
    pub http_connections_max: u32,
    /// Bytes of one HTTP request's body.
    pub http_body_bytes_max: u32,
    /// Time for one HTTP request.
    pub http_timeout: Duration,
}

/// `[logging]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Level, or directives as in `RUST_LOG` (which wins where it is set).
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// The topic of messages that no route matches, or whose template does not make a legal name.
pub const DEFAULT_TOPIC: &str = "mqtt";

impl Config {
    /// The settings of a topic of this name: an exact `[[topic]]` first, else the first glob that matches, else the
    /// defaults.
    #[must_use]
    pub fn topic(&self, name: &str) -> &TopicSpec {
        let exact = self.topics.iter().find(|t| t.name.literal() == Some(name));
        exact
            .or_else(|| self.topics.iter().find(|t| t.name.matches(name)))
            .map_or(&self.topic_defaults.spec, |rule| &rule.spec)
    }

    /// Whether the TOML names this topic (exactly or by a glob), so that its settings are not to be altered from outside.
    #[must_use]
    pub fn names_topic(&self, name: &str) -> bool {
        self.topics.iter().any(|t| t.name.matches(name))
    }
}

/// Whether a text is a topic name that users may write to: `[A-Za-z0-9._-]{1,249}`, not `.`, `..` or `__*`.
#[must_use]
pub fn is_topic_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.starts_with("__")
        && name.bytes().all(legal)
}
