//! The thread for what is not on a device's path: HTTP, uplinks, the ledger of what was dropped, the watch on progress.
//!
//! Invariant: nothing here can delay an acknowledgement, but for `mirrored` ones, which wait for an uplink by design.
//! Neighbours: [`crate::http`], [`headwater_bridge`].

use super::listeners::Bound;
use super::shards::{runtime, spawn};
use super::{Parts, StartError, UplinkLeft};
use crate::http::{self, Progress};
use headwater_config::Config;
use headwater_log::batch::BatchHeader;
use headwater_log::{Log, Offset, Partition, ReadLimit};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

/// How often progress is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long the parts may take to end.
const END_MAX: Duration = Duration::from_secs(5);

/// What the uplinks owe their centres.
#[derive(Debug)]
pub(crate) struct Uplinks {
    config: Arc<Config>,
}

/// How far behind one uplink is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Lag {
    /// The uplink.
    pub(crate) uplink: String,
    /// Committed records that the centre has not acknowledged.
    pub(crate) records: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Records acknowledged by the centre so far, over all partitions: moves as long as there is progress.
    pub(crate) reached: u64,
    /// Age of the oldest record that the centre has not acknowledged.
    pub(crate) age: Duration,
    /// Partitions it carries.
    pub(crate) partitions: u32,
}

impl Uplinks {
    /// Registers what retention must keep for each uplink. Call before the log's threads start.
    pub(crate) fn register(config: &Arc<Config>, log: &Log) -> Self {
        let uplinks = Self { config: config.clone() };
        for lag in uplinks.lag(log) {
            tracing::debug!("uplink {} carries {} partitions", lag.uplink, lag.partitions);
        }
        uplinks
    }

    /// How far behind each uplink is.
    pub(crate) fn lag(&self, log: &Log) -> Vec<Lag> {
        if self.config.uplinks.is_empty() {
            return Vec::new();
        }
        let topics = log.topics();
        let of = |uplink: &headwater_config::Uplink| {
            let mut lag = Lag { uplink: uplink.name.clone(), ..Lag::default() };
            let carried = topics
                .iter()
                .filter(|t| !t.name().is_internal())
                .filter(|t| uplink.target_of(t.name().as_str()).is_some());
            for partition in carried.flat_map(|t| t.partitions()) {
                add_lag(&mut lag, &uplink.name, partition, log.clock().wall_ms());
            }
            lag
        };
        self.config.uplinks.iter().map(of).collect()
    }

    /// What a stop leaves to be mirrored.
    pub(crate) fn left(&self, log: &Log) -> Vec<UplinkLeft> {
        let left =
            |lag: Lag| UplinkLeft { name: lag.uplink, records: lag.records, bytes: lag.bytes };
        self.lag(log).into_iter().map(left).collect()
    }
}

fn add_lag(lag: &mut Lag, uplink: &str, partition: &Arc<Partition>, now_ms: i64) {
    let reached = partition.hold(&format!("uplink/{uplink}")).reached();
    let positions = partition.positions();
    let behind = positions.last_stable.get().saturating_sub(reached.get()).max(0);
    lag.partitions += 1;
    lag.records += u64::try_from(behind).unwrap_or(0);
    lag.reached += u64::try_from(reached.get()).unwrap_or(0);
    if behind > 0 {
        lag.bytes += partition.bytes_after(reached);
        lag.age = lag.age.max(age_of(partition, reached, now_ms));
    }
}

/// Age of the batch that holds `from`. A read: of one batch, from memory at the tail.
fn age_of(partition: &Partition, from: Offset, now_ms: i64) -> Duration {
    let read = partition.read(from, 1, ReadLimit::SyncedAndStable);
    let oldest = read.ok().and_then(|found| BatchHeader::parse(found.batches.first()?).ok());
    let age_ms = oldest.map_or(0, |header| now_ms.saturating_sub(header.base_timestamp));
    Duration::from_millis(u64::try_from(age_ms).unwrap_or(0))
}

/// Starts the thread; it ends after `stopping` becomes true.
pub(super) fn start(
    parts: Arc<Parts>,
    progress: Arc<Progress>,
    http: Vec<Bound>,
    stopping: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let runtime = runtime()?;
    let run = move || LocalSet::new().block_on(&runtime, run(parts, progress, http, stopping));
    spawn("background".into(), run)
}

async fn run(
    parts: Arc<Parts>,
    progress: Arc<Progress>,
    http: Vec<Bound>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    tasks.spawn_local(parts.bridge.clone().keep_ledger());
    tasks.spawn_local(keep_watch(parts.clone(), progress.clone()));
    let mut ending = JoinSet::new();
    for bound in http {
        ending.spawn_local(http::serve(bound, parts.clone(), progress.clone(), stopping.clone()));
    }
    // Every other task runs until it is dropped.
    let _ = stopping.wait_for(|stop| *stop).await;
    tasks.shutdown().await;
    let ended = async { while ending.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(END_MAX, ended).await;
}

/// Looks at the uplinks' progress, so that health can say how long one has stood still.
async fn keep_watch(parts: Arc<Parts>, progress: Arc<Progress>) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        progress.look(&parts.uplinks.lag(&parts.log), parts.clock.monotonic_ns());
    }
}
