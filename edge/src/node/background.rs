//! The thread for what is not on a device's path: HTTP, uplinks, the ledger of what was dropped, the watch on progress.
//!
//! Invariant: nothing here can delay an acknowledgement, but for `mirrored` ones, which wait for an uplink by design.
//! Neighbours: [`crate::http`], [`headwater_bridge`].

use super::listeners::Bound;
use super::shards::{runtime, spawn};
use super::{Parts, StartError};
use crate::http::{self, Progress};
use headwater_bridge::uplink::Uplinks;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

/// How often progress is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long the parts may take to end.
const END_MAX: Duration = Duration::from_secs(5);

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
    parts.uplinks.lock().start(&tokio::runtime::Handle::current());
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
    stop_uplinks(&parts).await;
    let ended = async { while ending.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(END_MAX, ended).await;
}

/// Lets the uplinks checkpoint what the centres have acknowledged, while the log still commits.
async fn stop_uplinks(parts: &Parts) {
    // Taken out of the lock for the wait; nothing asks for their state in the meantime but health, which sees none.
    let Ok(empty) = Uplinks::open(&[], &parts.log) else { return };
    let mut uplinks = std::mem::replace(&mut *parts.uplinks.lock(), empty);
    uplinks.shutdown(END_MAX).await;
    *parts.uplinks.lock() = uplinks;
}

/// Looks at the uplinks' progress, so that health can say how long one has stood still.
async fn keep_watch(parts: Arc<Parts>, progress: Arc<Progress>) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        progress.look(&parts.uplinks.lock().statuses(), parts.clock.monotonic_ns());
    }
}
