//! A node: the log, what feeds it and what it feeds, on their threads.
//!
//! Start order: listeners are bound, the log is opened and recovered, the bridge applies the configuration's topics,
//! uplinks register what retention must keep, the log's threads start, and only then is a connection accepted. The end
//! goes the other way. Invariant: [`Node::shutdown`] returns after everything acknowledged is synced and checkpointed;
//! a node that is dropped without it is a crash, which loses nothing acknowledged. Neighbours: `listeners`, `shards`,
//! `background` are its threads; [`crate::http`] looks at [`Parts`].

mod background;
mod descriptors;
mod listeners;
mod shards;
pub(crate) mod translate;

pub(crate) use listeners::Bound;

use crate::http;
use headwater_bridge::Bridge;
use headwater_bridge::topics::TopicsError;
use headwater_bridge::uplink::{self, StoreError, Uplinks};
use headwater_config::{Config, Protocol};
use headwater_kafka::server::Door;
use headwater_log::clock::{Clock, SystemClock};
use headwater_log::disk::{Disk, SystemDisk};
use headwater_log::{Log, OpenError, Recovery, Running};
use headwater_mqtt::Shared;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// How long connections may take to leave when the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The machine, as a node sees it; tests put fakes here.
#[derive(Clone)]
pub struct Seams {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Default for Seams {
    fn default() -> Self {
        Self { disk: Arc::new(SystemDisk), clock: Arc::new(SystemClock) }
    }
}

impl std::fmt::Debug for Seams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seams").finish_non_exhaustive()
    }
}

/// A bound listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where; the real port where the configuration said 0.
    pub bound: SocketAddr,
    /// Where clients are told to connect (Kafka).
    pub advertised: String,
}

/// Why a node did not start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Listeners that could not be bound, one line each.
    #[error("{0}")]
    Bind(String),
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The configuration does not fit what is stored: exit code 2 where it is the configuration that must change.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// What the uplinks had remembered cannot be used: sending without it would send things twice.
    #[error("the uplinks' checkpoints: {0}")]
    Uplinks(#[from] StoreError),
    /// A thread or runtime could not be made.
    #[error("{what}: {why}")]
    System {
        /// What was being made.
        what: &'static str,
        /// The system's answer.
        why: std::io::Error,
    },
}

/// What an uplink had not mirrored when the node stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkLeft {
    /// The uplink.
    pub name: String,
    /// Records that the centre has not acknowledged.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How a node ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stopped {
    /// Per uplink, what is left to mirror after the next start.
    pub left: Vec<UplinkLeft>,
    /// What went wrong on the way; the directory is then left as after a crash.
    pub failed: Option<String>,
}

/// What the parts of a running node share.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) log: Log,
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) mqtt: Arc<Shared<Bridge>>,
    pub(crate) door: Door,
    pub(crate) uplinks: Mutex<Uplinks>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A running node.
pub struct Node {
    parts: Arc<Parts>,
    addresses: Vec<Address>,
    recovery: Recovery,
    running: Running,
    stop: watch::Sender<bool>,
    stop_background: watch::Sender<bool>,
    front: Vec<JoinHandle<()>>,
    background: JoinHandle<()>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts a node. Blocks until it serves. What it found on disk is logged, and in [`Node::recovery`].
    ///
    /// # Errors
    /// [`StartError`]; all of it has been undone then.
    pub fn start(config: Config, seams: Seams) -> Result<Self, StartError> {
        let began_ns = seams.clock.monotonic_ns();
        let config = Arc::new(config);
        descriptors::raise(&config.limits);
        let bound = listeners::bind(&config.listeners);
        let progress = http::Progress::new();
        // The directory first: that another process holds it says more than that its ports are taken.
        let options = translate::log_options(&config);
        let (log, recovery) = Log::open(options, seams.disk.clone(), seams.clock.clone())?;
        let bound = bound.map_err(StartError::Bind)?;
        report_recovery(&config, &recovery);

        if recovery.moved_machine {
            // In this order: a crash in between must find the move said again.
            uplink::note_moved(&log)?;
            log.note_machine()?;
        }
        let bridge = Bridge::new(config.clone(), log.clone())?;
        let uplinks = Mutex::new(Uplinks::open(&config.uplinks, &log)?);
        let running = log.start();
        let mqtt = Shared::new(bridge.clone(), translate::mqtt_limits(&config.limits));
        let door = Door::new(
            log.clone(),
            translate::door_settings(&config.limits),
            Box::new(translate::Rules::new(config.clone())),
        );
        let addresses = bound.iter().map(Bound::address).collect();
        let clock = seams.clock.clone();
        let parts =
            Arc::new(Parts { config: config.clone(), log, bridge, mqtt, door, uplinks, clock });

        let (stop, stopping) = watch::channel(false);
        let (stop_background, stopping_background) = watch::channel(false);
        let (http, front) = bound.into_iter().partition(|b| b.protocol == Protocol::Http);
        let background = background::start(parts.clone(), progress, http, stopping_background)?;
        let front = shards::start(&parts, front, &stopping)?;
        let node =
            Self { parts, addresses, recovery, running, stop, stop_background, front, background };
        node.report_serving(began_ns);
        Ok(node)
    }

    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Where it listens for a protocol: the first such listener.
    #[must_use]
    pub fn address(&self, protocol: Protocol) -> Option<SocketAddr> {
        self.addresses.iter().find(|a| a.protocol == protocol).map(|a| a.bound)
    }

    /// What it found on disk.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Its log, for reading what is stored.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.parts.log
    }

    /// Ends it: no new connections, those there are leave with what they are owed, everything is committed, synced and
    /// checkpointed. Blocks, some seconds at most beyond the last sync.
    #[must_use]
    pub fn shutdown(self) -> Stopped {
        self.stop.send_replace(true);
        self.parts.mqtt.stop(DRAIN_MAX);
        for thread in self.front {
            join(thread);
        }
        self.stop_background.send_replace(true);
        join(self.background);
        self.parts.bridge.flush_ledger();
        let statuses = self.parts.uplinks.lock().statuses();
        let left = statuses.iter().map(|status| UplinkLeft {
            name: status.name.clone(),
            records: status.lag_records(),
            bytes: status.lag_bytes(),
        });
        let left = left.collect();
        let failed = self.running.close().err();
        Stopped { left, failed }
    }

    fn report_serving(&self, began_ns: u64) {
        for address in &self.addresses {
            if address.protocol == Protocol::Kafka {
                tracing::info!("kafka on {}, advertised as {}", address.bound, address.advertised);
            } else {
                tracing::info!("{} on {}", address.protocol, address.bound);
            }
        }
        for uplink in &self.parts.config.uplinks {
            let brokers: Vec<String> = uplink.bootstrap.iter().map(ToString::to_string).collect();
            let topics: Vec<String> =
                uplink.topics.iter().map(|t| format!("{} -> {}", t.from, t.to)).collect();
            tracing::info!(
                "uplink {} to {}: {}",
                uplink.name,
                brokers.join(", "),
                topics.join(", ")
            );
        }
        let took_ns = self.parts.clock.monotonic_ns().saturating_sub(began_ns);
        tracing::info!("serving, {} ms after the start", took_ns / 1_000_000);
    }
}

fn report_recovery(config: &Config, recovery: &Recovery) {
    let dir = config.storage.show_dirs();
    let took_ms = recovery.took.as_millis();
    if recovery.created {
        tracing::info!("data in {dir}: new, made in {took_ms} ms");
    } else {
        tracing::info!(
            "data in {dir}: {} topics, {} partitions; recovered {} cycles, {} bytes, in {took_ms} ms after {}",
            recovery.topics,
            recovery.partitions,
            recovery.cycles_replayed,
            recovery.bytes_replayed,
            if recovery.unclean { "a crash" } else { "a clean stop" },
        );
    }
    for finding in &recovery.findings {
        tracing::warn!("{finding}");
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("?").to_owned();
    if thread.join().is_err() {
        tracing::error!("thread {name} panicked");
    }
}
