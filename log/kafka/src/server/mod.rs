//! The Kafka door: Kafka clients produce to and read from the log here.
//!
//! # What the process does
//! ```text
//! let door = Door::new(log.clone(), settings, topics);      // once per process
//! let here = door.listening_at("gateway-7.plant", 9092);    // once per listener: its advertised address
//! here.serve(stream, peer, shutdown.clone()).await;         // one local task per accepted connection
//! let figures = door.figures();                             // for the metrics page
//! ```
//! `shutdown` is a watch that becomes `true`: the connection then reads no more, waits briefly for
//! acknowledgements under way and ends. `serve` never fails: why a connection ended is in the log.
//! Reads that miss memory run on the runtime's blocking pool, at most [`DoorSettings::cold_reads_max`]
//! at a time over all connections; the runtime needs time and I/O enabled.
//!
//! # Invariants
//! - A response to a Produce request leaves only after its ack point is passed (ARCHITECTURE.md, invariant 1),
//!   and responses leave in the order of the requests of a connection.
//! - Every buffer is bounded by [`DoorSettings`]. Bytes from the network can end their own
//!   connection, never panic and never allocate by a length that was not checked.
//!
//! Steps: `connection` reads frames and keeps the order, `apis` is the table of what is advertised,
//! one module per API key answers it. Neighbours: `headwater_log` below, the process above.

mod api_versions;
mod apis;
mod configs;
mod connection;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_producers;
mod fetch;
mod figures;
mod find_coordinator;
mod init_producer_id;
mod list_offsets;
mod lookup;
mod metadata;
mod offset_for_leader_epoch;
mod produce;
mod sasl_handshake;
mod settings;

pub use figures::DoorFigures;
pub use settings::{DoorSettings, NewTopic, TopicRules};

use crate::wire::ErrorCode;
use figures::Figures;
use headwater_log::Log;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

/// The only node there is: its id in every response.
const NODE_ID: i32 = 0;

/// Serves the Kafka protocol from a log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    shared: Arc<Shared>,
    /// Where clients are told to connect.
    advertised: Arc<(String, u16)>,
}

struct Shared {
    log: Log,
    settings: DoorSettings,
    topics: Box<dyn TopicRules>,
    cluster_id: String,
    figures: Figures,
    connections: Semaphore,
    /// Memory for large requests, in units of [`connection::MEMORY_UNIT_BYTES`].
    request_memory: Semaphore,
    cold_reads: Arc<Semaphore>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Door {
    /// A door onto `log`. `topics` says what a topic is made with that the configuration does not name.
    #[must_use]
    pub fn new(log: Log, settings: DoorSettings, topics: Box<dyn TopicRules>) -> Self {
        let settings = settings.within_bounds();
        let cluster_id = cluster_id(log.directory_id());
        let memory = settings.request_memory_bytes_max / connection::MEMORY_UNIT_BYTES;
        let shared = Shared {
            log,
            topics,
            cluster_id,
            figures: Figures::default(),
            connections: Semaphore::new(settings.connections_max),
            request_memory: Semaphore::new(memory),
            cold_reads: Arc::new(Semaphore::new(settings.cold_reads_max)),
            settings,
        };
        Self { shared: Arc::new(shared), advertised: Arc::new(("127.0.0.1".to_owned(), 9092)) }
    }

    /// The same door, telling its clients to connect to `host` and `port`.
    #[must_use]
    pub fn listening_at(&self, host: &str, port: u16) -> Self {
        Self { shared: self.shared.clone(), advertised: Arc::new((host.to_owned(), port)) }
    }

    /// Serves one connection until the peer ends it, misbehaves, or `shutdown` becomes true.
    ///
    /// Dropping the future closes the connection; what was appended stays appended.
    pub async fn serve<S>(&self, stream: S, peer: SocketAddr, shutdown: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Ok(_permit) = self.shared.connections.try_acquire() else {
            self.shared.figures.connection_refused();
            tracing::warn!(
                %peer, connections_max = self.shared.settings.connections_max,
                "kafka connection refused: too many are open"
            );
            return;
        };
        self.shared.figures.connection_opened();
        let ended = connection::Connection::new(self.clone(), stream, shutdown).run().await;
        self.shared.figures.connection_closed();
        match ended {
            Ok(()) => tracing::debug!(%peer, "kafka connection ended"),
            Err(ended) if ended.is_ordinary() => {
                tracing::debug!(%peer, %ended, "kafka connection ended");
            }
            Err(ended) => {
                self.shared.figures.connection_malformed();
                tracing::warn!(%peer, %ended, "kafka connection closed");
            }
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn figures(&self) -> DoorFigures {
        self.shared.figures.read()
    }

    /// The cluster id that clients see: the data directory's id in base64url, 22 characters.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    fn log(&self) -> &Log {
        &self.shared.log
    }

    fn settings(&self) -> &DoorSettings {
        &self.shared.settings
    }

    /// The number of `code` for a response; anything but `None` is counted.
    fn code(&self, code: ErrorCode) -> i16 {
        self.shared.figures.error(code);
        code.code()
    }

    /// Waits until a metadata change is synced: an error code when that fails or takes too long.
    async fn durable(
        &self,
        cycle: u64,
        deadline: tokio::time::Instant,
    ) -> Result<(), (ErrorCode, String)> {
        let mut moved = self.log().moved();
        loop {
            moved.borrow_and_update();
            match self.log().committed(cycle) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(refusal) => return Err(lookup::refusal_code(&refusal)),
            }
            tokio::select! {
                changed = moved.changed() => if changed.is_err() {
                    return Err((ErrorCode::KafkaStorageError, "the log is closed".to_owned()));
                },
                () = tokio::time::sleep_until(deadline) => {
                    let text = "the change is not durable yet".to_owned();
                    return Err((ErrorCode::RequestTimedOut, text));
                }
            }
        }
    }
}

/// Runs work that may wait for the disk on the pool for blocking work, a bounded number at a time.
async fn cold<T, F>(door: &Door, work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    in_turn(Arc::clone(&door.shared.cold_reads), work).await
}

/// As [`cold`]. When the client that asked has gone away the work goes on, and keeps its turn until it has ended.
async fn in_turn<T, F>(turns: Arc<Semaphore>, work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    // Never closed; should it be, the read goes on without its turn.
    let turn = turns.acquire_owned().await;
    let work = move || {
        let _turn = turn;
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // A broken invariant of the log: this connection's task ends with it, the process lives.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

/// Sixteen bytes in base64url without padding, as Kafka prints its UUIDs.
fn cluster_id(id: [u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(22);
    for chunk in id.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(bits);
        for place in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * place)) & 0x3f;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{cluster_id, in_turn};
    use std::sync::Arc;
    use tokio::sync::{Semaphore, oneshot};

    #[test]
    fn work_whose_client_went_away_keeps_its_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let turns = Arc::new(Semaphore::new(1));
            let (began, begun) = oneshot::channel();
            let (go_on, wait) = oneshot::channel::<()>();
            let client = tokio::spawn(in_turn(Arc::clone(&turns), move || {
                began.send(()).unwrap();
                wait.blocking_recv().unwrap();
            }));
            begun.await.unwrap();
            client.abort();
            assert!(client.await.unwrap_err().is_cancelled());
            assert_eq!(turns.available_permits(), 0, "it is still at work");
            go_on.send(()).unwrap();
            assert_eq!(in_turn(Arc::clone(&turns), || 7).await, 7);
        });
    }

    #[test]
    fn cluster_ids_are_22_characters_of_base64url() {
        assert_eq!(cluster_id([0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(cluster_id([0xff; 16]), "_____________________w");
        let counted: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(cluster_id(counted), "AAECAwQFBgcICQoLDA0ODw");
    }
}
