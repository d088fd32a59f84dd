//! Counters of one shard, read by the process for its metrics.
//!
//! Invariant: only the shard's own thread writes them, so that an addition is a load and a store and never a locked
//! instruction; readers may be a little behind. Neighbours: every module here adds, the process sums and renders.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only from the shard's thread.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Subtracts. Only from the shard's thread.
    pub fn sub(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Relaxed);
    }

    /// The value, from any thread.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! causes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])+ $variant,)+ }

        impl $name {
            /// All, in the order of [`ShardCounters`]' arrays.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value of the metric's `cause` label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

causes! {
    /// Why a message was taken from a client, or was owed to one, and went nowhere.
    DropCause {
        /// QoS 0, and the append path stayed full.
        Backpressure = "backpressure",
        /// QoS 0, and the disk is full.
        DiskFull = "disk_full",
        /// QoS 0, and the log refused it otherwise.
        Refused = "refused",
        /// Larger than the subscriber's Maximum Packet Size. [MQTT-3.1.2-25]
        SubscriberPacketTooLarge = "subscriber_packet_too_large",
        /// Its expiry interval passed before it was sent. [MQTT-3.3.2-5]
        Expired = "expired",
        /// A subscriber at QoS 0 fell behind what is in memory and was moved to the end.
        SlowSubscriber = "slow_subscriber",
        /// Retention passed a subscriber's position.
        Retention = "retention",
        /// A damaged part of the log lay before a subscriber's position.
        Damaged = "damaged",
    }
}

causes! {
    /// Why a connection or a packet was refused, or a connection ended by the server.
    RefuseCause {
        /// A malformed packet or a protocol error.
        Protocol = "protocol",
        /// No whole CONNECT in time.
        ConnectTimeout = "connect_timeout",
        /// Too many connections.
        ConnectionsMax = "connections_max",
        /// Too many unfinished CONNECTs.
        HandshakesMax = "handshakes_max",
        /// A CONNECT that asks for what this server does not have.
        Unsupported = "unsupported",
        /// A client identifier that is not valid.
        ClientId = "client_id",
        /// Another connection took the client identifier.
        TakenOver = "taken_over",
        /// Nothing from the client for one and a half times its keep-alive.
        KeepAlive = "keep_alive",
        /// More unacknowledged messages than allowed.
        ReceiveMax = "receive_max",
        /// A packet above the limit.
        PacketTooLarge = "packet_too_large",
        /// A peer that does not read.
        NotReading = "not_reading",
        /// A shard keeps as many bytes or unacknowledged messages as it may.
        ShardFull = "shard_full",
        /// A message that the log refused: disk full, offline, too large, not authorized.
        Message = "message",
        /// A filter that was not granted.
        Subscription = "subscription",
        /// The server is shutting down.
        Shutdown = "shutdown",
    }
}

/// Buckets of the acknowledgement latency: at most `64 us << i` in bucket i, the rest in the last.
pub const LATENCY_BUCKETS: usize = 18;

/// Upper bound of a bucket (inclusive); `None` for the last.
#[must_use]
pub const fn latency_bound(bucket: usize) -> Option<Duration> {
    if bucket + 1 < LATENCY_BUCKETS { Some(Duration::from_micros(64 << bucket)) } else { None }
}

/// Time from the read of a QoS 1 PUBLISH to the write of its acknowledgement.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [Counter; LATENCY_BUCKETS],
    sum_ns: Counter,
}

impl Latency {
    /// Adds `count` acknowledgements that took `elapsed`.
    pub fn record(&self, elapsed: Duration, count: u64) {
        let units = elapsed.as_nanos().div_ceil(64_000).max(1);
        // Bucket i holds units in (2^(i-1), 2^i].
        let bucket = (u128::BITS - (units - 1).leading_zeros()) as usize;
        self.buckets[bucket.min(LATENCY_BUCKETS - 1)].add(count);
        let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.add(ns.saturating_mul(count));
    }

    /// Counts per bucket.
    #[must_use]
    pub fn buckets(&self) -> [u64; LATENCY_BUCKETS] {
        std::array::from_fn(|i| self.buckets[i].get())
    }

    /// Sum of all latencies.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.get())
    }
}

/// What one shard counts. Gauges say so; all else only grows.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Gauge: connections past CONNECT.
    pub connections: Counter,
    /// Gauge: sockets that have not finished CONNECT.
    pub handshakes: Counter,
    /// Connections accepted by a CONNACK.
    pub connected: Counter,
    /// Gauge: subscriptions.
    pub subscriptions: Counter,
    /// Gauge: sessions that read the log because they fell behind.
    pub behind: Counter,
    /// Gauge: connections whose reading is stopped by a full append path.
    pub blocked: Counter,
    /// Gauge: QoS 1 messages that wait for their acknowledgement.
    pub pending: Counter,
    /// Gauge: bytes that connections keep (see [`crate::Limits::buffered_bytes_per_shard_max`]).
    pub buffered_bytes: Counter,
    /// Messages taken from clients, by QoS.
    pub messages_in: [Counter; 3],
    /// Messages sent to clients, by QoS.
    pub messages_out: [Counter; 3],
    /// Acknowledgements sent (PUBACK with success).
    pub acknowledged: Counter,
    /// Bytes read from sockets.
    pub bytes_in: Counter,
    /// Bytes written to sockets.
    pub bytes_out: Counter,
    /// Time to acknowledge.
    pub ack_latency: Latency,
    dropped: [Counter; DropCause::ALL.len()],
    refused: [Counter; RefuseCause::ALL.len()],
}

impl ShardCounters {
    /// Counts dropped messages.
    pub fn add_dropped(&self, cause: DropCause, count: u64) {
        self.dropped[cause as usize].add(count);
    }

    /// Dropped messages of a cause.
    #[must_use]
    pub fn dropped(&self, cause: DropCause) -> u64 {
        self.dropped[cause as usize].get()
    }

    /// Counts refusals.
    pub fn add_refused(&self, cause: RefuseCause, count: u64) {
        self.refused[cause as usize].add(count);
    }

    /// Refusals of a cause.
    #[must_use]
    pub fn refused(&self, cause: RefuseCause) -> u64 {
        self.refused[cause as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_their_buckets() {
        let latency = Latency::default();
        latency.record(Duration::ZERO, 1);
        latency.record(Duration::from_micros(64), 1);
        latency.record(Duration::from_nanos(64_001), 1);
        latency.record(Duration::from_micros(128), 1);
        latency.record(Duration::from_secs(1_000), 5);
        let buckets = latency.buckets();
        assert_eq!((buckets[0], buckets[1], buckets[LATENCY_BUCKETS - 1]), (2, 2, 5));
        assert_eq!(buckets.iter().sum::<u64>(), 9);
        for bucket in 0..LATENCY_BUCKETS - 1 {
            let bound = latency_bound(bucket).unwrap();
            let one = Latency::default();
            one.record(bound, 1);
            assert_eq!(one.buckets()[bucket], 1, "{bound:?} is inclusive");
        }
        assert_eq!(latency_bound(LATENCY_BUCKETS - 1), None);
    }

    #[test]
    fn causes_have_their_own_cells() {
        let counters = ShardCounters::default();
        counters.add_dropped(DropCause::Expired, 3);
        counters.add_refused(RefuseCause::Shutdown, 1);
        for cause in DropCause::ALL {
            assert_eq!(counters.dropped(*cause), u64::from(*cause == DropCause::Expired) * 3);
        }
        assert_eq!(counters.refused(RefuseCause::Shutdown), 1);
    }
}
