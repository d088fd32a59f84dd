//! A small Kafka client: what the uplink needs of one, and what `demo` and the tests read a centre with.
//!
//! It exists because no client crate can send a *ready-made* record batch. Records are never copied
//! here: a Produce request is header bytes and batches, written vectored.
//!
//! Invariants: a request's outcome is `Ok`, a definite refusal, or [`ClientError::Lost`], which says that
//! it may or may not have been carried out. Requests on one connection are sent and answered in order.
//! Frames are bounded before they are read.
//!
//! Neighbours: `wire` encodes and decodes; `bridge::uplink` decides what to send and what an error means.
//!
//! Entry points: [`Client::connect`] tries the bootstrap list in turn; [`Client::metadata`] learns the
//! cluster; [`Client::broker`] gives the one connection to a node; [`Connection`] has a method per API.
//!
//! References: <https://kafka.apache.org/protocol>, KIP-511, KIP-664 (DescribeProducers), KIP-464.

mod admin;
mod cluster;
mod connection;
mod error;
mod fetch;
mod produce;
mod producers;

pub use admin::{NewTopic, TopicOutcome};
pub use cluster::{Broker, Client, Metadata, MetadataPartition, MetadataTopic};
pub use connection::Connection;
pub use error::{ClientError, ProduceVerdict, produce_verdict};
pub use fetch::{FetchPartition, Fetched};
pub use produce::{ProduceBatch, ProduceOutcome};
pub use producers::{ActiveProducer, PartitionEnd, PartitionProducers, ProducerIdentity};

use std::time::Duration;

/// Limits and names of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// `HOST:PORT` of some brokers, tried in turn.
    pub bootstrap: Vec<String>,
    /// What the client calls itself in every request.
    pub client_id: String,
    /// A connection that takes longer than this (name lookup and ApiVersions included) is given up.
    pub connect_timeout: Duration,
    /// A request without an answer for this long ends its connection.
    pub request_timeout: Duration,
    /// Requests sent and not answered, per connection; more wait.
    pub in_flight_max: usize,
    /// Largest response accepted.
    pub frame_bytes_max: usize,
}

impl ClientOptions {
    /// Defaults for a link that may be slow: 10 s to connect, 30 s for an answer, frames of 64 MiB.
    #[must_use]
    pub fn new(bootstrap: Vec<String>, client_id: &str) -> Self {
        Self {
            bootstrap,
            client_id: client_id.to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            in_flight_max: 16,
            frame_bytes_max: 64 << 20,
        }
    }
}
