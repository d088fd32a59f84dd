//! The named limits of the MQTT front and what happens at each.
//!
//! Invariant: every queue, buffer and count that a client can fill has its limit here. Neighbours: the process fills
//! this from its configuration; `session` and `connection` obey it.

use std::time::Duration;

/// Limits of one node. Counts are inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the node. The next CONNECT is answered with Server busy (3.x: return code 3).
    pub connections_max: usize,
    /// Connections that have not yet finished CONNECT. The next socket is closed at once.
    pub handshakes_max: usize,
    /// Time from accept to the whole CONNECT, takeover of the client identifier included; then the socket is closed.
    pub connect_timeout: Duration,
    /// Bytes of a CONNECT packet. A larger one closes the socket before it is read.
    pub connect_bytes_max: usize,
    /// Bytes of any later packet from a client; announced as Maximum Packet Size. A larger one ends the connection with
    /// Packet too large.
    pub packet_bytes_max: usize,
    /// QoS 1 messages of a client that may wait for their acknowledgement; announced as Receive Maximum. One more ends
    /// an MQTT 5 connection with Receive Maximum exceeded. [MQTT-3.3.4-9]
    pub receive_max: u16,
    /// The same for clients below MQTT 5, which cannot be told; one more closes the connection.
    pub receive_max_v3: u16,
    /// Messages of all clients of one shard that may wait for their acknowledgement (an acknowledgement that waits for
    /// a distant centre may wait for hours). The connection that brings one more ends with Quota exceeded.
    pub pending_per_shard_max: usize,
    /// Topic aliases a client may use, announced as Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Largest keep-alive a client may ask for, in seconds; MQTT 5 clients are told the lower value (Server Keep Alive),
    /// and it applies to those that ask for none. 0: no limit.
    pub keep_alive_s_max: u16,
    /// Subscriptions of one session. The next is answered with Quota exceeded (3.x: 0x80).
    pub subscriptions_max: usize,
    /// QoS 1 messages sent to a client and not yet acknowledged, also bounded by its own Receive Maximum.
    pub inflight_max: u16,
    /// Messages that wait for a subscriber; one more and it reads the log from its position instead.
    pub queue_messages_max: usize,
    /// Payload and topic bytes that wait for a subscriber; as above. One message alone may be larger.
    pub queue_bytes_max: usize,
    /// Encoded bytes that wait for a client's socket before messages stay in the queue.
    pub write_buffer_bytes: usize,
    /// Encoded bytes that wait for a client's socket; more (acknowledgements for a client that does not read) ends the
    /// connection.
    pub write_buffer_bytes_max: usize,
    /// Bytes that all connections of one shard may keep: fronts of packets, messages queued, bytes for sockets. Above it
    /// a subscriber reads the log instead of queueing, and the connection that needs more ends with Quota exceeded.
    pub buffered_bytes_per_shard_max: usize,
    /// A client whose socket takes nothing for this long is disconnected.
    pub write_timeout: Duration,
    /// How long a QoS 0 message waits for a full append path (reading stops for that long) before it is dropped.
    pub backpressure_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            handshakes_max: 1_000,
            connect_timeout: Duration::from_secs(10),
            connect_bytes_max: 16 * 1024,
            packet_bytes_max: 1_000_000,
            receive_max: 4_096,
            receive_max_v3: 20_000,
            pending_per_shard_max: 1_000_000,
            topic_alias_max: 32,
            keep_alive_s_max: 0,
            subscriptions_max: 1_000,
            inflight_max: 256,
            queue_messages_max: 256,
            queue_bytes_max: 256 * 1024,
            write_buffer_bytes: 64 * 1024,
            write_buffer_bytes_max: 1024 * 1024,
            buffered_bytes_per_shard_max: 128 * 1024 * 1024,
            write_timeout: Duration::from_secs(30),
            backpressure_wait: Duration::from_secs(1),
        }
    }
}
