//! What the process tells the door: limits, and the rules for new topics.
//!
//! Invariant: every limit has a default that fits a gateway of 512 MB and a lower bound below which
//! ordinary clients would not work. Neighbours: `edge` fills them from `[limits]` and `[[topic]]`.

use headwater_log::TopicName;
use headwater_log::metadata::TopicSettings;
use std::time::Duration;

/// The door's limits. Each says what happens when it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorSettings {
    /// Connections open at a time; one more is closed at once.
    pub connections_max: usize,
    /// Bytes of a Produce request; a longer frame closes its connection. Other requests: 1 MiB.
    pub request_bytes_max: usize,
    /// Bytes of large requests (above 64 KiB) being received at a time, over all connections; above
    /// it connections wait before they read on.
    pub request_memory_bytes_max: usize,
    /// Produce requests of one connection that wait for their ack point; above it reading stops.
    pub requests_in_flight_max: usize,
    /// Bytes of records in one Fetch response, whatever the client allows.
    pub fetch_bytes_max: usize,
    /// Reads from files at a time, over all connections; further ones wait.
    pub cold_reads_max: usize,
    /// A connection without a request for so long is closed (Kafka's `connections.max.idle.ms`).
    pub idle_max: Duration,
    /// A peer that takes nothing of a response for so long is closed, as is one that needs longer
    /// than this to send a request above 64 KiB.
    pub stall_max: Duration,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            connections_max: 1_000,
            request_bytes_max: 16 << 20,
            request_memory_bytes_max: 64 << 20,
            requests_in_flight_max: 16,
            fetch_bytes_max: 8 << 20,
            cold_reads_max: 4,
            idle_max: Duration::from_secs(600),
            stall_max: Duration::from_secs(30),
        }
    }
}

impl DoorSettings {
    /// Raises what would keep every client out, and lowers what no frame can hold.
    pub(super) fn within_bounds(mut self) -> Self {
        self.connections_max = self.connections_max.clamp(1, 1 << 20);
        self.request_bytes_max = self.request_bytes_max.clamp(1 << 16, 1 << 30);
        self.request_memory_bytes_max =
            self.request_memory_bytes_max.clamp(self.request_bytes_max + (1 << 16), 1 << 40);
        self.requests_in_flight_max = self.requests_in_flight_max.clamp(1, 1024);
        self.fetch_bytes_max = self.fetch_bytes_max.clamp(1 << 16, 1 << 30);
        self.cold_reads_max = self.cold_reads_max.clamp(1, 64);
        self
    }
}

/// What a topic is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Partitions, at least 1.
    pub partitions: u32,
    /// Settings, defaults resolved.
    pub settings: TopicSettings,
}

/// What the configuration says about topics that clients ask for. Implemented by the process.
pub trait TopicRules: Send + Sync + 'static {
    /// What a topic of this name is made with: the first `[[topic]]` rule that matches, else the defaults.
    fn rule(&self, name: &TopicName) -> NewTopic;

    /// Whether a client that asks for the topic's metadata, or produces to it, makes it.
    fn auto_create(&self, name: &TopicName) -> bool;

    /// Whether clients may make this topic, delete it or add partitions to it.
    ///
    /// # Errors
    /// Why not, for the client: it is told with POLICY_VIOLATION.
    fn client_may_change(&self, name: &TopicName) -> Result<(), String>;
}
