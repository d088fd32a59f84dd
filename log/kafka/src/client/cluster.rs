//! A cluster: its brokers, who leads what, and at most one connection to each.
//!
//! Invariant: brokers are only what the last Metadata named; the bootstrap list is asked whenever none of
//! them can be reached, so a cluster that has moved wholly is found again.

use super::error::check;
use super::{ClientError, ClientOptions, Connection};
use crate::message;
use crate::wire::Versions;
use crate::wire::messages::metadata_request::MetadataRequestTopic;
use crate::wire::messages::{MetadataRequest, MetadataResponse};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// A broker as Metadata names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Node id.
    pub id: i32,
    /// `HOST:PORT`.
    pub address: String,
}

/// What a cluster said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The cluster's id, empty at brokers that have none.
    pub cluster_id: String,
    /// The controller's node id, -1 for none known.
    pub controller: i32,
    /// Its brokers.
    pub brokers: Vec<Broker>,
    /// The topics asked for.
    pub topics: Vec<MetadataTopic>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataTopic {
    /// Its name.
    pub name: String,
    /// Its id; zero at brokers that have none (before 2.8).
    pub id: [u8; 16],
    /// Why it cannot be used, e.g. UNKNOWN_TOPIC_OR_PARTITION; 0 for none.
    pub code: i16,
    /// Its partitions by number.
    pub partitions: Vec<MetadataPartition>,
}

/// A partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataPartition {
    /// Its number.
    pub id: i32,
    /// The leader's node id, `None` while there is none.
    pub leader: Option<i32>,
}

/// A client of one cluster. Share it behind an `Arc`.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    brokers: BTreeMap<i32, String>,
    connections: BTreeMap<String, Connection>,
    /// Where in the bootstrap list to go on, so that a dead first entry is not always tried first.
    bootstrap_next: usize,
}

impl Client {
    /// A client that has connected to nothing yet.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self { options, state: Mutex::default() }
    }

    /// A client with one working connection.
    ///
    /// # Errors
    /// The last [`ClientError`] when no bootstrap address can be reached.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let client = Self::new(options);
        client.any().await?;
        Ok(client)
    }

    /// A connection to some broker: one that is open, else a known broker, else the bootstrap list in turn.
    ///
    /// # Errors
    /// The last [`ClientError`] when none can be reached.
    pub async fn any(&self) -> Result<Connection, ClientError> {
        let mut candidates = Vec::new();
        {
            let mut state = self.state.lock();
            state.connections.retain(|_, connection| !connection.is_closed());
            if let Some(open) = state.connections.values().next() {
                return Ok(open.clone());
            }
            let count = self.options.bootstrap.len();
            let start = state.bootstrap_next;
            state.bootstrap_next = start.wrapping_add(1) % count.max(1);
            let bootstrap = (0..count).map(|i| self.options.bootstrap[(start + i) % count].clone());
            candidates.extend(bootstrap);
            for address in state.brokers.values() {
                if !candidates.contains(address) {
                    candidates.push(address.clone());
                }
            }
        }
        let mut last = ClientError::Unreachable {
            address: "bootstrap".to_owned(),
            reason: "the list is empty".to_owned(),
        };
        for address in candidates {
            match self.open(&address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The connection to a node that the last [`Client::metadata`] named.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], also for a node that is not known.
    pub async fn broker(&self, id: i32) -> Result<Connection, ClientError> {
        let address = self.state.lock().brokers.get(&id).cloned();
        let Some(address) = address else {
            let address = format!("node {id}");
            return Err(ClientError::Unreachable { address, reason: "is not known".to_owned() });
        };
        self.open(&address).await
    }

    async fn open(&self, address: &str) -> Result<Connection, ClientError> {
        let open = self.state.lock().connections.get(address).cloned();
        if let Some(open) = open.filter(|connection| !connection.is_closed()) {
            return Ok(open);
        }
        let made = Connection::open(address, &self.options).await?;
        let mut state = self.state.lock();
        // Somebody else may have connected meanwhile: one connection per broker keeps requests in order.
        match state.connections.get(address) {
            Some(other) if !other.is_closed() => Ok(other.clone()),
            _ => {
                state.connections.insert(address.to_owned(), made.clone());
                Ok(made)
            }
        }
    }

    /// Asks for topics (`None`: all) and learns the brokers. Creates nothing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn metadata(&self, topics: Option<&[String]>) -> Result<Metadata, ClientError> {
        let connection = self.any().await?;
        let wanted =
            |name: &String| message!(MetadataRequestTopic { name: Some(name.as_str().into()) });
        let request = message!(MetadataRequest {
            topics: topics.map(|names| names.iter().map(wanted).collect()),
            allow_auto_topic_creation: false,
        });
        let answer = connection.call(Versions::new(4, 12), &request).await?;
        check(answer.error_code, None)?;
        let metadata = read(answer);
        let mut state = self.state.lock();
        state.brokers = metadata.brokers.iter().map(|b| (b.id, b.address.clone())).collect();
        Ok(metadata)
    }

    /// Drops every connection; what is under way on them ends as [`ClientError::Lost`] once its holders let go.
    pub fn disconnect(&self) {
        self.state.lock().connections.clear();
    }
}

fn read(answer: MetadataResponse) -> Metadata {
    let address = |host: &str, port: i32| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let brokers =
        answer.brokers.iter().map(|b| Broker { id: b.node_id, address: address(&b.host, b.port) });
    let topics = answer.topics.iter().map(|t| {
        let mut partitions: Vec<_> = t
            .partitions
            .iter()
            .map(|p| MetadataPartition {
                id: p.partition_index,
                leader: (p.leader_id >= 0).then_some(p.leader_id),
            })
            .collect();
        partitions.sort_by_key(|p| p.id);
        MetadataTopic {
            name: t.name.as_deref().unwrap_or_default().to_owned(),
            id: t.topic_id.to_bytes(),
            code: t.error_code,
            partitions,
        }
    });
    Metadata {
        cluster_id: answer.cluster_id.as_deref().unwrap_or_default().to_owned(),
        controller: answer.controller_id,
        brokers: brokers.collect(),
        topics: topics.collect(),
    }
}
