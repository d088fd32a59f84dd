//! `/metrics`: what the node counts, in Prometheus' words.
//!
//! Rendered from counters kept per shard and summed here. Invariant: the number of series does not grow with clients,
//! MQTT topics or partitions: the 200 largest topics have theirs, the rest is one. Neighbours: every part's counters.

use super::render::{Kind, Page, SERIES_MAX};
use crate::node::Parts;
use headwater_bridge::uplink::{UplinkState, UplinkStatus};
use headwater_log::{CompactionStats, LogStats, Topic};
use headwater_mqtt::counters::{
    DropCause, LATENCY_BUCKETS, RefuseCause, ShardCounters, latency_bound,
};
use std::sync::Arc;

/// Topics with series of their own.
const TOPICS_MAX: usize = 200;

/// Uplinks with series of their own.
const UPLINKS_MAX: usize = 100;

/// The topic label of all others together; not a legal topic name.
const OTHER_TOPICS: &str = "(other)";

/// Series of `/metrics/detailed`: every partition there can be of one topic.
const DETAILED_SERIES_MAX: usize = 100_000;

/// The whole page.
pub(super) fn render(parts: &Parts) -> String {
    let mut page = Page::new(SERIES_MAX);
    page.family("headwater_build_info", Kind::Gauge, "The version that runs.");
    page.series("headwater_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let trusted = if parts.clock.is_trusted() { 1.0 } else { 0.0 };
    page.single(
        "headwater_clock_trusted",
        Kind::Gauge,
        "1 when somebody has set the wall clock.",
        trusted,
    );
    mqtt(&mut page, &parts.mqtt.counters());
    log(&mut page, &parts.log.stats());
    bridge(&mut page, parts);
    uplinks(&mut page, parts);
    kafka(&mut page, parts);
    topics(&mut page, parts);
    page.finish()
}

fn mqtt(page: &mut Page, shards: &[Arc<ShardCounters>]) {
    let sum =
        |get: &dyn Fn(&ShardCounters) -> u64| shards.iter().map(|s| get(s)).sum::<u64>() as f64;
    type Get = fn(&ShardCounters) -> u64;
    let gauges: [(&str, &str, Get); 5] = [
        ("headwater_mqtt_connections", "MQTT clients connected.", |s| s.connections.get()),
        ("headwater_mqtt_handshakes", "Sockets that have not finished CONNECT.", |s| {
            s.handshakes.get()
        }),
        ("headwater_mqtt_subscriptions", "Subscriptions.", |s| s.subscriptions.get()),
        ("headwater_mqtt_sessions_behind", "Subscribers that read the log to catch up.", |s| {
            s.behind.get()
        }),
        (
            "headwater_mqtt_connections_blocked",
            "Connections not read while the log is full.",
            |s| s.blocked.get(),
        ),
    ];
    for (name, help, get) in gauges {
        page.single(name, Kind::Gauge, help, sum(&get));
    }
    // Their limits are per shard, so the fullest one is what counts.
    let most = |get: Get| shards.iter().map(|s| get(s)).max().map_or(0.0, |most| most as f64);
    let fullest: [(&str, &str, Get); 2] = [
        (
            "headwater_mqtt_shard_pending_max",
            "QoS 1 messages that wait for their acknowledgement, in the shard with most; see `pending_per_shard_max`.",
            |s| s.pending.get(),
        ),
        (
            "headwater_mqtt_shard_buffered_bytes_max",
            "Bytes that connections keep, in the shard with most; see `buffered_bytes_per_shard_max`.",
            |s| s.buffered_bytes.get(),
        ),
    ];
    for (name, help, get) in fullest {
        page.single(name, Kind::Gauge, help, most(get));
    }
    let totals: [(&str, &str, Get); 4] = [
        ("headwater_mqtt_connects_total", "Connections accepted by a CONNACK.", |s| {
            s.connected.get()
        }),
        ("headwater_mqtt_acknowledged_total", "QoS 1 messages acknowledged.", |s| {
            s.acknowledged.get()
        }),
        ("headwater_mqtt_received_bytes_total", "Bytes read from MQTT sockets.", |s| {
            s.bytes_in.get()
        }),
        ("headwater_mqtt_sent_bytes_total", "Bytes written to MQTT sockets.", |s| {
            s.bytes_out.get()
        }),
    ];
    for (name, help, get) in totals {
        page.single(name, Kind::Counter, help, sum(&get));
    }
    let name = "headwater_mqtt_messages_received_total";
    page.family(name, Kind::Counter, "Messages taken from MQTT clients.");
    for (qos, label) in ["0", "1", "2"].iter().enumerate() {
        page.series(name, &[("qos", label)], sum(&|s| s.messages_in[qos].get()));
    }
    let name = "headwater_mqtt_messages_sent_total";
    page.family(name, Kind::Counter, "Messages sent to MQTT clients.");
    for (qos, label) in ["0", "1", "2"].iter().enumerate() {
        page.series(name, &[("qos", label)], sum(&|s| s.messages_out[qos].get()));
    }
    let name = "headwater_mqtt_dropped_total";
    page.family(name, Kind::Counter, "Messages dropped, by cause; ranges are in the ledger.");
    for cause in DropCause::ALL {
        page.series(name, &[("cause", cause.label())], sum(&|s| s.dropped(*cause)));
    }
    let name = "headwater_mqtt_refused_total";
    page.family(name, Kind::Counter, "Connections and packets refused, by cause.");
    for cause in RefuseCause::ALL {
        page.series(name, &[("cause", cause.label())], sum(&|s| s.refused(*cause)));
    }
    let counts = shards
        .iter()
        .map(|s| s.ack_latency.buckets())
        .fold([0; LATENCY_BUCKETS], |all: [u64; LATENCY_BUCKETS], one| {
            std::array::from_fn(|i| all[i] + one[i])
        });
    let buckets = counts.iter().enumerate();
    let buckets = buckets.map(|(i, n)| (latency_bound(i).map(|d| d.as_secs_f64()), *n));
    page.histogram(
        "headwater_mqtt_ack_latency_seconds",
        "From the read of a QoS 1 PUBLISH to the write of its PUBACK.",
        buckets,
        shards.iter().map(|s| s.ack_latency.sum().as_secs_f64()).sum(),
    );
}

fn log(page: &mut Page, stats: &LogStats) {
    log_counters(page, stats);
    log_gauges(page, stats);
    log_times(page, stats);
    compaction(page, &stats.compaction);
    let name = "headwater_log_directory_offline";
    page.family(name, Kind::Gauge, "1 while a data directory is offline; /health says why.");
    for directory in &stats.directories {
        let path = directory.path.display().to_string();
        let offline = f64::from(u8::from(directory.offline.is_some()));
        page.series(name, &[("dir", &path)], offline);
    }
    log_histograms(page, stats);
    page.single(
        "headwater_log_damaged_places",
        Kind::Gauge,
        "Damaged places in segments that readers met and no repair has mended since, at most 100 per directory; /health names them.",
        stats.damage.len() as f64,
    );
}

fn log_counters(page: &mut Page, stats: &LogStats) {
    let counters: [(&str, &str, u64); 12] = [
        ("headwater_log_commits_total", "Commit cycles ended.", stats.cycles),
        ("headwater_log_journal_bytes_total", "Bytes written to the journal.", stats.journal_bytes),
        (
            "headwater_log_committed_bytes_total",
            "Record bytes committed; over commits, the size of a commit.",
            stats.committed_bytes,
        ),
        (
            "headwater_log_bulk_bytes_total",
            "Of them, those that went past the journal because much waited for one partition.",
            stats.bulk_bytes,
        ),
        (
            "headwater_log_ring_waits_total",
            "Commits that waited for a full ring.",
            stats.ring_waits,
        ),
        ("headwater_log_checkpoints_total", "Checkpoints ended.", stats.checkpoints),
        (
            "headwater_log_compress_plain_bytes_total",
            "Bytes of batches made here before their topic's codec.",
            stats.compress_plain_bytes,
        ),
        (
            "headwater_log_compress_stored_bytes_total",
            "Bytes of the same batches as stored.",
            stats.compress_stored_bytes,
        ),
        (
            "headwater_log_compress_skipped_total",
            "Batches stored uncompressed because too much waited for the codec.",
            stats.compress_skipped,
        ),
        (
            "headwater_log_indexes_rebuilt_total",
            "Segments whose indexes were missing or wrong, and made again.",
            stats.indexes_rebuilt,
        ),
        (
            "headwater_log_label_indexes_built_total",
            "Label indexes built, after sealing or for want of one that was right.",
            stats.label_indexes_built,
        ),
        (
            "headwater_log_producers_expired_total",
            "Idempotent producers forgotten after a long silence.",
            stats.producers_expired,
        ),
    ];
    for (name, help, value) in counters {
        page.single(name, Kind::Counter, help, value as f64);
    }
}

fn log_gauges(page: &mut Page, stats: &LogStats) {
    let gauges: [(&str, &str, f64); 14] = [
        (
            "headwater_log_journal_used_bytes",
            "Bytes of the ring that no checkpoint has released.",
            stats.journal_used_bytes as f64,
        ),
        ("headwater_log_journal_size_bytes", "Bytes of the ring.", stats.journal_size_bytes as f64),
        (
            "headwater_log_uncommitted_bytes",
            "Bytes appended and not committed.",
            stats.uncommitted_bytes as f64,
        ),
        (
            "headwater_log_oldest_uncommitted_seconds",
            "Age of the oldest append that is not committed.",
            stats.oldest_uncommitted_ns as f64 / 1e9,
        ),
        (
            "headwater_log_sync_seconds_max",
            "The slowest sync so far.",
            stats.sync_ns_max as f64 / 1e9,
        ),
        ("headwater_log_open_files", "Segment files kept open.", stats.open_files as f64),
        (
            "headwater_log_indexes_loaded",
            "Sealed segments whose indexes are loaded.",
            stats.indexes_loaded as f64,
        ),
        (
            "headwater_log_producers",
            "Idempotent producers remembered, one per partition that they wrote to.",
            stats.producers as f64,
        ),
        (
            "headwater_log_open_transactions",
            "Open transactions, one per partition that they wrote to.",
            stats.open_transactions as f64,
        ),
        (
            "headwater_log_open_transaction_seconds_max",
            "Time since the open transaction that waits longest was last written to.",
            stats.oldest_transaction_ms as f64 / 1e3,
        ),
        (
            "headwater_log_offline",
            "1 when every data directory is offline.",
            f64::from(u8::from(stats.offline.is_some())),
        ),
        (
            "headwater_log_commit_delay_seconds",
            "What a commit beginning now would wait for more to come.",
            stats.delay_now_ns as f64 / 1e9,
        ),
        (
            "headwater_log_journal_day_bytes",
            "Bytes written to the journal in the last 24 hours, or since the start.",
            stats.journal_day_bytes as f64,
        ),
        (
            "headwater_log_disk_full",
            "1 while appends are refused because the disk is full.",
            f64::from(u8::from(stats.disk_full)),
        ),
    ];
    for (name, help, value) in gauges {
        page.single(name, Kind::Gauge, help, value);
    }
}

fn log_times(page: &mut Page, stats: &LogStats) {
    let spent: [(&str, &str, u64); 5] = [
        (
            "headwater_log_ring_wait_seconds_total",
            "Time that commits waited for room in the ring.",
            stats.ring_wait_ns,
        ),
        (
            "headwater_log_commit_delay_seconds_total",
            "Time that commits waited for more to come.",
            stats.delay_ns,
        ),
        (
            "headwater_log_bulk_seconds_total",
            "Time of writing and syncing what went past the journal.",
            stats.bulk_ns,
        ),
        ("headwater_log_checkpoint_seconds_total", "Time of checkpoints.", stats.checkpoint_ns),
        (
            "headwater_log_checkpoint_pause_seconds_total",
            "Of it, what checkpoints left to the syncs of commits.",
            stats.checkpoint_pause_ns,
        ),
    ];
    for (name, help, ns) in spent {
        page.single(name, Kind::Counter, help, ns as f64 / 1e9);
    }
}

fn log_histograms(page: &mut Page, stats: &LogStats) {
    // Bucket i holds syncs of at most 64 us << i; the last one the rest.
    let last = stats.sync_histogram.len() - 1;
    let bound = |i: usize| (i < last).then(|| 64e-6 * (1_u64 << i) as f64);
    page.histogram(
        "headwater_log_sync_seconds",
        "Time of the journal's fdatasync, one per commit.",
        stats.sync_histogram.iter().enumerate().map(|(i, n)| (bound(i), *n)),
        stats.sync_ns as f64 / 1e9,
    );
    // Bucket i holds commits of at most 1 KiB << i.
    let bound = |i: usize| (i < last).then(|| (1024_u64 << i) as f64);
    page.histogram(
        "headwater_log_commit_bytes",
        "Bytes of record batches per commit.",
        stats.size_histogram.iter().enumerate().map(|(i, n)| (bound(i), *n)),
        stats.committed_bytes as f64,
    );
}

fn compaction(page: &mut Page, stats: &CompactionStats) {
    let series: [(&str, Kind, &str, f64); 10] = [
        (
            "headwater_log_compaction_passes_total",
            Kind::Counter,
            "Compaction passes ended, each over one partition.",
            stats.passes as f64,
        ),
        (
            "headwater_log_compaction_failures_total",
            Kind::Counter,
            "Compaction passes given up because of an error.",
            stats.failures as f64,
        ),
        (
            "headwater_log_compaction_read_bytes_total",
            Kind::Counter,
            "Bytes of segments that compaction read.",
            stats.read_bytes as f64,
        ),
        (
            "headwater_log_compaction_written_bytes_total",
            Kind::Counter,
            "Bytes of compacted segments written.",
            stats.written_bytes as f64,
        ),
        (
            "headwater_log_compaction_removed_bytes_total",
            Kind::Counter,
            "Bytes by which compaction made the log smaller.",
            stats.removed_bytes as f64,
        ),
        (
            "headwater_log_compaction_keyless_records_total",
            Kind::Counter,
            "Records dropped from compacted topics because they have no key.",
            stats.keyless_records as f64,
        ),
        (
            "headwater_log_compaction_seconds_total",
            Kind::Counter,
            "Time spent on compaction, its pauses included.",
            stats.ns as f64 / 1e9,
        ),
        (
            "headwater_log_compaction_since_last_seconds",
            Kind::Gauge,
            "Time since a pass last ended; -1 before there was one.",
            stats.since_last_ns.map_or(-1.0, |ns| ns as f64 / 1e9),
        ),
        (
            "headwater_log_compaction_dirty_ratio_max",
            Kind::Gauge,
            "Part of the dirtiest compacted partition that may be compacted and is not.",
            stats.dirty_permille_max as f64 / 1e3,
        ),
        (
            "headwater_log_compaction_uncleanable_partitions",
            Kind::Gauge,
            "Partitions that are not compacted because of damage in them.",
            stats.uncleanable as f64,
        ),
    ];
    for (name, kind, help, value) in series {
        page.single(name, kind, help, value);
    }
}

fn bridge(page: &mut Page, parts: &Parts) {
    let counters = parts.bridge.counters();
    let name = "headwater_route_fallbacks_total";
    page.family(
        name,
        Kind::Counter,
        "Messages stored in topic mqtt instead of their route's, by cause.",
    );
    for (cause, count) in &counters.fallbacks {
        page.series(name, &[("cause", cause)], *count as f64);
    }
    let name = "headwater_ledger_dropped_total";
    page.family(name, Kind::Counter, "Messages reported to the ledger as dropped, by cause.");
    for (cause, count) in &counters.dropped {
        page.series(name, &[("cause", cause)], *count as f64);
    }
    let singles: [(&str, &str, u64); 4] = [
        (
            "headwater_route_mirrored_nowhere_total",
            "Messages refused because no single uplink carries their topic.",
            counters.mirrored_nowhere,
        ),
        (
            "headwater_expired_total",
            "Messages not delivered because they had expired.",
            counters.expired,
        ),
        (
            "headwater_unreadable_total",
            "Stored messages this version cannot read.",
            counters.unreadable,
        ),
        (
            "headwater_ledger_records_total",
            "Records written to the ledger.",
            counters.ledger_records,
        ),
    ];
    for (name, help, value) in singles {
        page.single(name, Kind::Counter, help, value as f64);
    }
}

fn uplinks(page: &mut Page, parts: &Parts) {
    let statuses = parts.uplinks.lock().statuses();
    type Get = fn(&UplinkStatus) -> f64;
    let families: [(&str, Kind, &str, Get); 10] = [
        (
            "headwater_uplink_lag_records",
            Kind::Gauge,
            "Records stored here that the centre has not acknowledged.",
            |s| s.lag_records() as f64,
        ),
        ("headwater_uplink_lag_bytes", Kind::Gauge, "Their bytes.", |s| s.lag_bytes() as f64),
        (
            "headwater_uplink_lag_seconds",
            Kind::Gauge,
            "Age of the oldest record that the centre has not acknowledged.",
            |s| s.lag_ms() as f64 / 1e3,
        ),
        (
            "headwater_uplink_connected",
            Kind::Gauge,
            "1 while the centre and every leader that is needed can be reached.",
            |s| f64::from(u8::from(!matches!(s.state, UplinkState::Connecting(_)))),
        ),
        (
            "headwater_uplink_stopped_partitions",
            Kind::Gauge,
            "Partitions the centre refuses.",
            |s| s.topics.iter().map(|t| t.stopped.len()).sum::<usize>() as f64,
        ),
        (
            "headwater_uplink_memory_bytes",
            Kind::Gauge,
            "Bytes of batches read ahead, or sent and unanswered.",
            |s| s.memory_bytes as f64,
        ),
        (
            "headwater_uplink_acknowledged_records_total",
            Kind::Counter,
            "Records that the centre has acknowledged.",
            |s| s.acked_records as f64,
        ),
        ("headwater_uplink_acknowledged_bytes_total", Kind::Counter, "Their bytes.", |s| {
            s.acked_bytes as f64
        }),
        ("headwater_uplink_retries_total", Kind::Counter, "Attempts repeated.", |s| {
            s.retries as f64
        }),
        (
            "headwater_uplink_foreign_writes_total",
            Kind::Counter,
            "Times that somebody else wrote into a target topic.",
            |s| s.foreign_steps as f64,
        ),
    ];
    for (name, kind, help, get) in families {
        page.family(name, kind, help);
        for status in statuses.iter().take(UPLINKS_MAX) {
            page.series(name, &[("uplink", &status.name)], get(status));
        }
    }
}

fn kafka(page: &mut Page, parts: &Parts) {
    let figures = parts.door.figures();
    page.single(
        "headwater_kafka_connections",
        Kind::Gauge,
        "Kafka clients connected.",
        figures.connections_open as f64,
    );
    let counters: [(&str, &str, u64); 6] = [
        (
            "headwater_kafka_connects_total",
            "Kafka connections accepted.",
            figures.connections_total,
        ),
        (
            "headwater_kafka_connections_refused_total",
            "Kafka connections closed because too many were open.",
            figures.connections_refused,
        ),
        (
            "headwater_kafka_connections_malformed_total",
            "Kafka connections closed because of what the peer sent.",
            figures.connections_malformed,
        ),
        ("headwater_kafka_received_bytes_total", "Bytes of Kafka requests.", figures.bytes_in),
        ("headwater_kafka_sent_bytes_total", "Bytes of Kafka responses.", figures.bytes_out),
        ("headwater_kafka_batches_total", "Batches appended for producers.", figures.batches_in),
    ];
    for (name, help, value) in counters {
        page.single(name, Kind::Counter, help, value as f64);
    }
    let name = "headwater_kafka_requests_total";
    page.family(name, Kind::Counter, "Kafka requests, by API.");
    for (api, count) in &figures.requests {
        page.series(name, &[("api", api)], *count as f64);
    }
    let name = "headwater_kafka_errors_total";
    page.family(name, Kind::Counter, "Errors in Kafka responses, by code.");
    for (error, count) in &figures.errors {
        page.series(name, &[("error", error)], *count as f64);
    }
}

/// What is said of a topic.
#[derive(Debug, Default, Clone, Copy)]
struct Size {
    bytes: u64,
    records: u64,
    appended: u64,
}

impl Size {
    fn of(topic: &Topic) -> Self {
        let mut size = Self::default();
        for partition in topic.partitions() {
            let positions = partition.positions();
            let (start, end) = (positions.log_start.get(), positions.high_watermark.get());
            size.bytes += partition.size_bytes();
            size.records += u64::try_from(end.saturating_sub(start)).unwrap_or(0);
            size.appended += u64::try_from(end).unwrap_or(0);
        }
        size
    }
}

fn topics(page: &mut Page, parts: &Parts) {
    let all = parts.log.topics();
    let mut sizes: Vec<(String, Size)> =
        all.iter().map(|t| (t.name().as_str().to_owned(), Size::of(t))).collect();
    page.single(
        "headwater_topics",
        Kind::Gauge,
        "Topics, internal ones included.",
        all.len() as f64,
    );
    sizes.sort_by_key(|(_, size)| std::cmp::Reverse(size.bytes));
    if sizes.len() > TOPICS_MAX {
        let rest = sizes.split_off(TOPICS_MAX);
        let rest = rest.iter().fold(Size::default(), |all, (_, one)| Size {
            bytes: all.bytes + one.bytes,
            records: all.records + one.records,
            appended: all.appended + one.appended,
        });
        sizes.push((OTHER_TOPICS.into(), rest));
    }
    type Get = fn(&Size) -> u64;
    let families: [(&str, Kind, &str, Get); 3] = [
        ("headwater_topic_bytes", Kind::Gauge, "Bytes on disk, of the largest topics.", |s| {
            s.bytes
        }),
        ("headwater_topic_records", Kind::Gauge, "Records that can be read.", |s| s.records),
        ("headwater_topic_appended_records_total", Kind::Counter, "Records ever stored.", |s| {
            s.appended
        }),
    ];
    for (name, kind, help, get) in families {
        page.family(name, kind, help);
        for (topic, size) in &sizes {
            page.series(name, &[("topic", topic)], get(size) as f64);
        }
    }
}

/// The partitions of one topic; `None` when there is no such topic.
pub(super) fn render_partitions(parts: &Parts, topic: &str) -> Option<String> {
    let topic = parts.log.topic(topic)?;
    let mut page = Page::new(DETAILED_SERIES_MAX);
    let rows: Vec<(String, headwater_log::Positions, u64)> = topic
        .partitions()
        .iter()
        .map(|p| (p.id().get().to_string(), p.positions(), p.size_bytes()))
        .collect();
    type Get = fn(&headwater_log::Positions, u64) -> f64;
    let families: [(&str, &str, Get); 8] = [
        ("headwater_partition_log_start_offset", "First offset.", |p, _| p.log_start.get() as f64),
        ("headwater_partition_log_end_offset", "Next offset to be assigned.", |p, _| {
            p.log_end.get() as f64
        }),
        ("headwater_partition_written_offset", "Written to the kernel up to here.", |p, _| {
            p.written.get() as f64
        }),
        ("headwater_partition_synced_offset", "Synced up to here.", |p, _| p.synced.get() as f64),
        ("headwater_partition_high_watermark", "Readers see up to here.", |p, _| {
            p.high_watermark.get() as f64
        }),
        (
            "headwater_partition_last_stable_offset",
            "Readers of committed data see up to here.",
            |p, _| p.last_stable.get() as f64,
        ),
        ("headwater_partition_leader_epoch", "The current leader epoch.", |p, _| {
            f64::from(p.epoch.get())
        }),
        ("headwater_partition_bytes", "Bytes on disk.", |_, bytes| bytes as f64),
    ];
    for (name, help, get) in families {
        page.family(name, Kind::Gauge, help);
        for (partition, positions, bytes) in &rows {
            let labels = [("topic", topic.name().as_str()), ("partition", partition.as_str())];
            page.series(name, &labels, get(positions, *bytes));
        }
    }
    Some(page.finish())
}
