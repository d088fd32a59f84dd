//! The one table of keys: section, name, kind with its bounds, default, an example, and what it means.
//!
//! Everything that is said about a key comes from here: the checks of a file, the choices in an error, and the commented
//! file of `headwater check --defaults`. Invariant: a default is written as a user would write it and is read by the
//! same code. Neighbours: [`crate::values`] reads by this table, [`crate::defaults`] prints it.

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text; empty is refused.
    Text,
    /// `true` or `false`.
    Bool,
    /// An integer within inclusive bounds.
    Integer(u64, u64),
    /// Bytes within inclusive bounds; where a word is given it stands for "no limit".
    Bytes(u64, u64, Option<&'static str>),
    /// Bytes, or a share of the filesystem.
    Budget,
    /// Milliseconds within inclusive bounds; where a word is given it stands for "no end".
    Time(u64, u64, Option<&'static str>),
    /// One of these words; the second list holds words of later versions.
    Choice(&'static [&'static str], &'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A table of texts under names of the user's choice.
    Names,
    /// A list of tables, described by the section named `SECTION.KEY`.
    Tables,
    /// Known, but not to this version.
    Later,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// The table it stands in: `limits`, `listener`, `uplink.topics`.
    pub(crate) section: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
    /// What it must be.
    pub(crate) kind: Kind,
    /// What it is when it is left out.
    pub(crate) default: Presence,
    /// What it means.
    pub(crate) doc: &'static str,
}

/// What holds when a key is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// This value (for a duration, size, choice or text without quotes).
    Default(&'static str),
    /// Nothing; the example shows one.
    Optional(&'static str),
    /// An error; the example shows one.
    Required(&'static str),
}

/// How a section is written.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: &'static str,
    /// `[[name]]` rather than `[name]`.
    pub(crate) many: bool,
    /// What it is for.
    pub(crate) doc: &'static str,
}

/// The sections that stand at the top of a file, in the order in which they are printed.
pub(crate) const SECTIONS: [Section; 9] = [
    Section { name: "site", many: false, doc: "Who this node is." },
    Section { name: "storage", many: false, doc: "Where and how messages are kept." },
    Section {
        name: "listener",
        many: true,
        doc: "Where the node listens. Any listener of the file replaces all three built-in ones.",
    },
    Section {
        name: "topic_defaults",
        many: false,
        doc: "What a topic gets that no [[topic]] names, and what those leave out.",
    },
    Section {
        name: "topic",
        many: true,
        doc: "Settings of one topic, or of all whose names match. An exact name wins over a glob, then the first in the \
              file.",
    },
    Section {
        name: "route",
        many: true,
        doc: "Where MQTT messages go. The first match is final unless it says `continue`; without a match: topic `mqtt`.",
    },
    Section { name: "uplink", many: true, doc: "A central Kafka cluster to mirror to." },
    Section {
        name: "limits",
        many: false,
        doc: "Named maxima. What is above one is refused, and counted by its cause.",
    },
    Section { name: "logging", many: false, doc: "What the process says on standard error." },
];

/// Sections of later versions.
pub(crate) const SECTIONS_LATER: [&str; 4] = ["connector", "access", "user", "downlink"];

use Kind::{Bool, Budget, Bytes, Choice, Integer, Later, Names, Tables, Text, Texts, Time};
use Presence::{Default, Optional, Required};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const YEARS_100: u64 = 36_500 * DAY;

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    default: Presence,
    doc: &'static str,
) -> Key {
    Key { section, name, kind, default, doc }
}

/// Every key.
#[rustfmt::skip]
pub(crate) const KEYS: &[Key] = &[
    key("site", "name", Text, Optional("plant-7"),
        "Name of the site: letters, digits, `.`, `_`, `-`. Fills `{site}`. Required with an uplink."),

    key("storage", "dir", Text, Default("./headwater-data"),
        "Data directory; made if it is missing. Relative to where the process starts."),
    key("storage", "dirs", Texts, Optional("[\"/mnt/a\", \"/mnt/b\"]"),
        "Several data directories, on disks of their own, instead of `dir`. Each has its own journal; partitions are spread over them, and one that fails takes only its own partitions offline."),
    key("storage", "max_bytes", Budget, Default("80%"),
        "What the topics in each data directory may take, as a size or a share of that directory's own filesystem. Above it the oldest segments go."),
    key("storage", "min_free", Budget, Default("2%"),
        "What must stay free on each data directory's own filesystem, whoever fills it, as a size or a share of it. Below it the oldest segments go."),
    key("storage", "commit_delay", Time(0, 10 * SECOND, None), Default("0ms"),
        "Wait this long after the first append of a commit cycle: fewer syncs, later acknowledgements."),
    key("storage", "commit_delay_max", Time(0, 10 * SECOND, None), Default("100ms"),
        "The longest wait for the sake of `journal_bytes_per_day`."),
    key("storage", "journal_bytes_per_day", Bytes(64 * MIB, 1 << 50, None), Optional("20GiB"),
        "What the journal of one directory should write in a day, to spare flash: commits then wait up to `commit_delay_max` and share their blocks of 4 KiB. Left out: no limit."),
    key("storage", "journal_file_bytes", Bytes(MIB, GIB, None), Default("16MiB"),
        "Size of one file of the commit journal."),
    key("storage", "journal_files", Integer(2, 64), Default("4"),
        "Files in the commit journal's ring."),
    key("storage", "open_files_max", Integer(16, 1_000_000), Optional("256"),
        "Segment files kept open, whatever the number of partitions. Left out: a quarter of what the system lets the process open."),
    key("storage", "reserved_bytes", Bytes(0, GIB, None), Default("16MiB"),
        "Room kept back in each data directory, so that a full disk can still note what may be deleted; at most 1 % of it."),
    key("storage", "memory_sync", Time(10, HOUR, None), Default("1s"),
        "How often topics with durability \"memory\" are synced."),
    key("storage", "producer_id_expiration", Time(60 * SECOND, YEARS_100, None), Default("1d"),
        "Idempotent and transactional producers are forgotten after so long without a record."),
    key("storage", "bulk_bytes", Bytes(0, GIB, None), Default("4MiB"),
        "A partition with so much to commit writes it straight to its log, past the journal. 0: everything goes through the journal."),
    key("storage", "uncommitted_bytes_max", Bytes(MIB, 4 * GIB, None), Default("32MiB"),
        "Bytes that may be appended and not yet committed; above it producers wait."),
    key("storage", "tail_bytes_max", Bytes(0, 16 * GIB, None), Default("32MiB"),
        "Bytes of the newest batches kept in memory for readers, over all partitions."),
    key("storage", "compaction_memory_bytes", Bytes(64 * KIB, GIB, None), Default("4MiB"),
        "Memory for the keys of one compaction pass: 24 bytes each. What does not fit waits for the next pass."),
    key("storage", "compaction_bytes_per_second", Bytes(64 * KIB, u64::MAX, Some("unlimited")), Default("4MiB"),
        "What compaction may read and write per second."),

    key("listener", "protocol", Choice(&["mqtt", "kafka", "http"], &[]), Required("mqtt"),
        "What is spoken."),
    key("listener", "bind", Text, Required("0.0.0.0:1883"),
        "Address and port; port 0 takes a free one. An IPv6 address stands in brackets."),
    key("listener", "advertised", Text, Optional("gateway-7.plant:9092"),
        "Kafka only: HOST:PORT that clients are told to connect to. Required where `bind` is a wildcard address."),
    key("listener", "tls", Later, Optional(""), "Encryption."),
    key("listener", "transport", Choice(&["tcp"], &["websocket"]), Default("tcp"), "What MQTT runs over."),
    key("listener", "anonymous", Later, Optional(""), "Access without credentials."),

    key("topic_defaults", "auto_create", Bool, Default("true"),
        "Whether Kafka clients make a topic by naming it. (Routes always do.)"),
    key("topic_defaults", "partitions", Integer(1, 1_000), Default("4"),
        "Partitions of a new topic."),
    key("topic_defaults", "durability", Choice(&["memory", "fsync"], &["replicated"]), Default("fsync"),
        "When a message counts as stored: written to the kernel, or synced to disk."),
    key("topic_defaults", "retention", Time(SECOND, YEARS_100, Some("forever")), Default("7d"),
        "Delete segments older than this; never what an uplink has not mirrored yet."),
    key("topic_defaults", "retention_bytes", Bytes(MIB, u64::MAX, Some("unlimited")), Default("unlimited"),
        "Delete the oldest segments above this size, per partition."),
    key("topic_defaults", "segment_bytes", Bytes(64 * KIB, 2 * GIB - 1, None), Default("32MiB"),
        "Begin a new segment at this size."),
    key("topic_defaults", "index_bytes_max", Bytes(KIB, GIB, None), Default("10MiB"),
        "Begin a new segment when an index of the current one would be larger (Kafka's segment.index.bytes)."),
    key("topic_defaults", "segment_time", Time(SECOND, YEARS_100, None), Default("1d"),
        "Begin a new segment when the first record of the current one is older than this."),
    key("topic_defaults", "batch_bytes_max", Bytes(KIB, 128 * MIB, None), Default("1048588B"),
        "Largest record batch (Kafka's max.message.bytes)."),
    key("topic_defaults", "cleanup", Choice(&["delete", "compact", "compact,delete"], &[]), Default("delete"),
        "What becomes of old records: segments go by age and size, or the newest record of each key stays, or both."),
    key("topic_defaults", "tombstone_retention", Time(0, YEARS_100, None), Default("1d"),
        "How long a compacted topic keeps a tombstone that compaction has met (Kafka's delete.retention.ms)."),
    key("topic_defaults", "compaction_lag", Time(0, YEARS_100, None), Default("0ms"),
        "Records younger than this are not compacted (Kafka's min.compaction.lag.ms)."),
    key("topic_defaults", "compaction_lag_max", Time(SECOND, YEARS_100, Some("unlimited")), Default("unlimited"),
        "Records older than this are compacted whatever else (Kafka's max.compaction.lag.ms)."),
    key("topic_defaults", "compaction_dirty_percent", Integer(0, 100), Default("50"),
        "Compact when this part of what may be has not been yet (Kafka's min.cleanable.dirty.ratio)."),
    key("topic_defaults", "compression", Choice(&["none", "gzip", "snappy", "lz4", "zstd"], &[]), Optional("zstd"),
        "Codec of the batches made of MQTT messages; left out: none. A Kafka client's batch keeps its own."),
    key("topic_defaults", "compression_level", Integer(1, 22), Optional("3"),
        "The codec's level: gzip 1 to 9, zstd 1 to 22; snappy and lz4 have none. Left out: the codec's default (6, 3)."),

    key("topic", "name", Text, Required("telemetry"),
        "Name of the topic, or a glob over names: `*` for any run of characters, `?` for one."),
    key("topic", "partitions", Integer(1, 1_000), Optional("4"), "As in [topic_defaults]."),
    key("topic", "durability", Choice(&["memory", "fsync"], &["replicated"]), Optional("fsync"), "As in [topic_defaults]."),
    key("topic", "retention", Time(SECOND, YEARS_100, Some("forever")), Optional("7d"), "As in [topic_defaults]."),
    key("topic", "retention_bytes", Bytes(MIB, u64::MAX, Some("unlimited")), Optional("10GiB"), "As in [topic_defaults]."),
    key("topic", "segment_bytes", Bytes(64 * KIB, 2 * GIB - 1, None), Optional("32MiB"), "As in [topic_defaults]."),
    key("topic", "index_bytes_max", Bytes(KIB, GIB, None), Optional("10MiB"), "As in [topic_defaults]."),
    key("topic", "segment_time", Time(SECOND, YEARS_100, None), Optional("1d"), "As in [topic_defaults]."),
    key("topic", "batch_bytes_max", Bytes(KIB, 128 * MIB, None), Optional("1048588B"), "As in [topic_defaults]."),
    key("topic", "cleanup", Choice(&["delete", "compact", "compact,delete"], &[]), Optional("compact"), "As in [topic_defaults]."),
    key("topic", "tombstone_retention", Time(0, YEARS_100, None), Optional("1d"), "As in [topic_defaults]."),
    key("topic", "compaction_lag", Time(0, YEARS_100, None), Optional("0ms"), "As in [topic_defaults]."),
    key("topic", "compaction_lag_max", Time(SECOND, YEARS_100, Some("unlimited")), Optional("7d"), "As in [topic_defaults]."),
    key("topic", "compaction_dirty_percent", Integer(0, 100), Optional("50"), "As in [topic_defaults]."),
    key("topic", "compression", Choice(&["none", "gzip", "snappy", "lz4", "zstd"], &[]), Optional("zstd"), "As in [topic_defaults]."),
    key("topic", "compression_level", Integer(1, 22), Optional("3"), "As in [topic_defaults]."),
    key("topic", "mqtt", Later, Optional(""), "MQTT topic of records made by Kafka clients."),

    key("route", "mqtt", Text, Required("plant/{line}/{device}/telemetry/#"),
        "MQTT topics: levels, `{name}` to capture one, `+` for any one, `#` for the rest."),
    key("route", "topic", Text, Required("telemetry"),
        "Topic to store in; `{name}` of the pattern and `{site}` are filled in."),
    key("route", "key", Text, Optional("{device}"),
        "Key of the record, which chooses its partition. Left out: the MQTT topic."),
    key("route", "headers", Names, Optional("{ line = \"{line}\" }"),
        "Headers to add to the record."),
    key("route", "ack", Choice(&["memory", "fsync", "mirrored"], &["replicated"]), Optional("fsync"),
        "What the acknowledgement waits for; at most what the topic's durability gives, or `mirrored`. Left out: the \
         topic's durability."),
    key("route", "ack_uplink", Text, Optional("dc"),
        "With ack = \"mirrored\": which uplink. May be left out where exactly one carries the topic."),
    key("route", "continue", Bool, Default("false"),
        "Whether later routes may store copies of the message."),

    key("uplink", "name", Text, Required("dc"), "Name of the uplink: letters, digits, `.`, `_`, `-`."),
    key("uplink", "bootstrap", Texts, Required("[\"kafka-1:9092\"]"), "Brokers to ask first, as HOST:PORT."),
    key("uplink", "topics", Tables, Required("[{ from = \"telemetry\", to = \"{site}.telemetry\" }]"), "What goes where."),
    key("uplink", "replication_factor", Integer(1, 32), Optional("3"),
        "Replicas of topics that the uplink makes in the centre. Left out: the centre's default."),
    key("uplink", "reconnect_backoff_min", Time(10, HOUR, None), Default("250ms"),
        "Wait before the first attempt to connect again; doubled each time, with jitter."),
    key("uplink", "reconnect_backoff_max", Time(10, HOUR, None), Default("30s"),
        "Longest wait between attempts to connect."),
    key("uplink", "connect_timeout", Time(100, 10 * 60 * SECOND, None), Default("10s"), "Time for a connection to be made."),
    key("uplink", "request_timeout", Time(100, 10 * 60 * SECOND, None), Default("30s"), "Time for an answer to come."),
    key("uplink", "request_bytes_max", Bytes(16 * KIB, 64 * MIB, None), Default("1MiB"), "Size of one produce request, about."),
    key("uplink", "lane", Later, Optional(""), "Priorities among the topics of an uplink."),
    key("uplink", "tls", Later, Optional(""), "Encryption."),

    key("uplink.topics", "from", Text, Required("telemetry"), "Name of a topic here, or a glob over names."),
    key("uplink.topics", "to", Text, Default("{topic}"), "Its name in the centre; `{site}` and `{topic}` are filled in."),
    key("uplink.topics", "lane", Choice(&["live"], &[]), Default("live"), "The lane it travels in; there is one."),
    key("uplink.topics", "backfill_to", Later, Optional(""), "Target of a backlog sent newest first."),

    key("limits", "shards", Integer(0, 256), Default("0"), "Threads that serve connections; 0 is one per core."),
    key("limits", "connections_max", Integer(1, 1_000_000), Default("10000"), "MQTT connections."),
    key("limits", "packet_bytes_max", Bytes(128, 64 * MIB, None), Default("1000000B"),
        "One MQTT packet. The default fits a central Kafka's default of 1048588 for a batch."),
    key("limits", "receive_maximum", Integer(1, 65_535), Default("4096"),
        "QoS 1 messages that an MQTT 5 client may have unacknowledged."),
    key("limits", "receive_maximum_v3", Integer(1, 65_535), Default("20000"),
        "The same below MQTT 5, where a client cannot be told: one above it is disconnected."),
    key("limits", "topic_alias_max", Integer(0, 65_535), Default("32"), "Topic aliases that an MQTT 5 client may use."),
    key("limits", "subscriptions_per_session_max", Integer(1, 1_000_000), Default("1000"), "Subscriptions of one session."),
    key("limits", "outgoing_inflight_max", Integer(1, 65_535), Default("256"),
        "Messages sent to one subscriber and not acknowledged."),
    key("limits", "outgoing_messages_max", Integer(1, 1_000_000), Default("256"),
        "Messages waiting in memory for one subscriber; above it the subscriber reads the log instead."),
    key("limits", "outgoing_bytes_max", Bytes(4 * KIB, GIB, None), Default("256KiB"),
        "Bytes waiting in memory for one subscriber; as above."),
    key("limits", "write_buffer_bytes_max", Bytes(64 * KIB, GIB, None), Default("1MiB"),
        "Bytes waiting for one MQTT client's socket; above it the client is disconnected."),
    key("limits", "pending_per_shard_max", Integer(1, 100_000_000), Default("1000000"),
        "QoS 1 messages of all clients of one thread that wait for their acknowledgement."),
    key("limits", "buffered_bytes_per_shard_max", Bytes(MIB, 1 << 40, None), Default("128MiB"),
        "Bytes that all MQTT connections of one thread keep: parts of packets, queues, what sockets do not take."),
    key("limits", "handshakes_max", Integer(1, 1_000_000), Default("1000"),
        "MQTT connections that have not finished CONNECT."),
    key("limits", "connect_bytes_max", Bytes(256, MIB, None), Default("16KiB"), "One CONNECT packet."),
    key("limits", "connect_timeout", Time(100, 10 * 60 * SECOND, None), Default("10s"), "Time for CONNECT to arrive."),
    key("limits", "write_timeout", Time(100, 10 * 60 * SECOND, None), Default("30s"),
        "A subscriber whose socket takes nothing for this long is disconnected."),
    key("limits", "backpressure_wait", Time(0, 60 * SECOND, None), Default("1s"),
        "How long a QoS 0 message waits for a full append path before it is dropped and counted."),
    key("limits", "keep_alive_max", Time(SECOND, 65_535 * SECOND, None), Default("65535s"),
        "Longest keep-alive; an MQTT 5 client that asks for more is told this one."),
    key("limits", "topics_max", Integer(1, 100_000), Default("1000"), "Topics."),
    key("limits", "topics_per_route_max", Integer(1, 100_000), Default("100"),
        "Topics made by one route's template; further messages go to topic `mqtt`."),
    key("limits", "partitions_max", Integer(1, 100_000), Default("10000"), "Partitions of all topics together."),
    key("limits", "kafka_connections_max", Integer(1, 100_000), Default("1000"), "Kafka connections."),
    key("limits", "kafka_frame_bytes_max", Bytes(64 * KIB, 100 * MIB, None), Default("16MiB"), "One Kafka request."),
    key("limits", "kafka_request_memory_bytes_max", Bytes(MIB, 16 * GIB, None), Default("64MiB"),
        "Large Kafka requests being received at a time, over all connections; above it connections wait."),
    key("limits", "kafka_requests_in_flight_max", Integer(1, 1_024), Default("16"),
        "Produce requests of one connection that wait for their acknowledgement; above it reading stops."),
    key("limits", "kafka_fetch_bytes_max", Bytes(64 * KIB, 100 * MIB, None), Default("8MiB"), "One Kafka fetch response, about."),
    key("limits", "kafka_idle_timeout", Time(SECOND, 7 * DAY, None), Default("10m"),
        "A Kafka connection without a request for this long is closed."),
    key("limits", "http_connections_max", Integer(1, 100_000), Default("64"), "HTTP connections."),
    key("limits", "http_body_bytes_max", Bytes(0, 64 * MIB, None), Default("64KiB"), "Body of one HTTP request."),
    key("limits", "http_timeout", Time(100, 10 * 60 * SECOND, None), Default("10s"), "Time for one HTTP request."),

    key("logging", "level", Text, Default("info"),
        "error, warn, info, debug or trace; or directives as in RUST_LOG, which wins where it is set."),
    key("logging", "format", Choice(&["human", "json"], &[]), Default("human"), "How lines look."),
];

/// The listeners of a node whose file names none.
pub(crate) const LISTENERS_DEFAULT: [(&str, &str); 3] =
    [("mqtt", "127.0.0.1:1883"), ("kafka", "127.0.0.1:9092"), ("http", "127.0.0.1:8080")];

/// The keys of one section, in the order of the table.
pub(crate) fn of(section: &str) -> impl Iterator<Item = &'static Key> + Clone {
    KEYS.iter().filter(move |k| k.section == section)
}

impl Kind {
    /// What a value can be, for people.
    pub(crate) fn describe(&self) -> String {
        use crate::units::{show_bytes, show_duration};
        let time = |ms: &u64| show_duration(std::time::Duration::from_millis(*ms));
        let or = |word: &Option<&str>| word.map_or(String::new(), |w| format!(", or \"{w}\""));
        match self {
            Text => "text".into(),
            Bool => "true or false".into(),
            Integer(min, max) => format!("an integer from {min} to {max}"),
            Bytes(min, u64::MAX, word) => {
                format!("a size of at least {}{}", show_bytes(*min), or(word))
            }
            Bytes(min, max, word) => {
                format!("a size from {} to {}{}", show_bytes(*min), show_bytes(*max), or(word))
            }
            Budget => "a size, or a share from \"1%\" to \"100%\"".into(),
            Time(min, max, word) => {
                format!("a time from {} to {}{}", time(min), time(max), or(word))
            }
            Choice(words, _) => {
                let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
                match quoted.as_slice() {
                    [one] => one.clone(),
                    [init @ .., last] => format!("{} or {last}", init.join(", ")),
                    [] => String::new(),
                }
            }
            Texts => "a list of texts".into(),
            Names => "a table of texts".into(),
            Tables => "a list of tables".into(),
            Later => "not in this version".into(),
        }
    }
}
