//! Step 12: the stored batch, header patched, to a central Kafka. Mode A: idempotent, in order, nothing twice.
//!
//! ```text
//! let mut uplinks = Uplinks::open(&config.uplinks, &log)?;   // after Log::open, before Log::start: registers holds. Blocks.
//! let running = log.start();
//! uplinks.start(&background);                                // a tokio runtime's handle, with I/O and time enabled
//! for status in uplinks.statuses() { .. }                    // any time, from any thread
//! let left = uplinks.shutdown(Duration::from_secs(5)).await; // before running.close(): sends, checkpoints, says what is left
//! ```
//!
//! One task per uplink. It reads what is synced and stable, copies each batch once, gives it the uplink's own
//! producer id and sequence, and sends one batch per partition per request to the leader. The source's producer ids
//! are never forwarded: two sites' would collide, which is silent loss.
//!
//! Invariants: the state machine's (`mirror`); memory is bounded by [`MEMORY_BYTES_MAX`], however long the centre is
//! away; one partition that the centre refuses does not stop another; the hold named [`hold_name`] moves `reached`
//! with each acknowledgement (what `ack = "mirrored"` waits for) and `checkpointed` only when the checkpoint is synced
//! (what retention waits for).
//!
//! Modules in the order of a batch's way: `task` (the loop), `mirror` (what to send), `sequence`, `centre` (what the
//! centre has), `checkpoint` and `store` (what is remembered), `backoff`, `status`.

mod backoff;
mod centre;
mod checkpoint;
mod entry;
mod mirror;
mod sequence;
mod status;
mod store;
mod task;

pub use status::{TopicStatus, UplinkState, UplinkStatus};
pub use store::StoreError;
pub use task::MEMORY_BYTES_MAX;

use headwater_config::Uplink;
use headwater_log::Log;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The name of the hold that an uplink keeps on every partition it mirrors ([`headwater_log::Partition::hold`]).
#[must_use]
pub fn hold_name(uplink: &str) -> String {
    format!("uplink/{uplink}")
}

/// Notes durably, in the checkpoints of all uplinks, that the data directory came from another machine: a twin of it may
/// be at work there, and under its producer ids our batches would be dropped as repetitions of its. Call it after
/// [`Log::open`] has said so and before [`Uplinks::open`]; [`Log::note_machine`] only after it. Blocks.
///
/// # Errors
/// [`StoreError`]; the directory must not be used then.
pub fn note_moved(log: &Log) -> Result<(), StoreError> {
    match store::Store::exists(log) {
        true => store::Store::open(log)?.mark_moved(),
        false => Ok(()),
    }
}

/// The uplinks of a process.
#[derive(Debug)]
pub struct Uplinks {
    log: Log,
    links: Vec<Link>,
    stop: watch::Sender<Option<Duration>>,
}

#[derive(Debug)]
struct Link {
    name: String,
    shared: Arc<status::Shared>,
    task: Option<Box<task::Task>>,
    running: Option<JoinHandle<()>>,
}

impl Link {
    /// One that cannot begin: its holds keep retention back, its status says why.
    fn waiting(config: &Uplink, log: &Log, why: &str) -> Self {
        let hold = hold_name(&config.name);
        let topics = log.topics();
        for topic in topics.iter().filter(|t| config.target_of(t.name().as_str()).is_some()) {
            for partition in topic.partitions() {
                let _held = partition.hold(&hold);
            }
        }
        let why = format!("its checkpoints are in a data directory that is not in use: {why}");
        tracing::error!(uplink = config.name, "mirrors nothing: {why}");
        let shared = Arc::new(status::Shared::default());
        shared.state.lock().unreachable = Some(why);
        Self { name: config.name.clone(), shared, task: None, running: None }
    }
}

impl Uplinks {
    /// Reads the checkpoints and registers the holds of every partition that an uplink mirrors: call it before
    /// [`Log::start`], or retention could pass an uplink. Blocks; connects to nothing.
    ///
    /// When the data directory that holds the checkpoints is not in use, the uplinks send nothing until a start with it,
    /// and hold everything back that they mirror: the rest of the node goes on.
    ///
    /// # Errors
    /// [`StoreError`] when the checkpoints cannot be used: sending without them would send things twice.
    pub fn open(uplinks: &[Uplink], log: &Log) -> Result<Self, StoreError> {
        let (stop, _) = watch::channel(None);
        let mut links = Vec::with_capacity(uplinks.len());
        if let Some(why) = store::missing(log) {
            links.extend(uplinks.iter().map(|config| Link::waiting(config, log, &why)));
        } else if !uplinks.is_empty() {
            let store = Arc::new(Mutex::new(store::Store::open(log)?));
            for config in uplinks {
                let shared = Arc::new(status::Shared::default());
                let task = task::Task::new(config.clone(), log.clone(), &store, &shared);
                let task = Some(Box::new(task));
                let name = config.name.clone();
                links.push(Link { name, shared, task, running: None });
            }
        }
        Ok(Self { log: log.clone(), links, stop })
    }

    /// Starts one task per uplink on `runtime`. Once.
    pub fn start(&mut self, runtime: &Handle) {
        for link in &mut self.links {
            if let Some(task) = link.task.take() {
                link.running = Some(runtime.spawn(task.run(self.stop.subscribe())));
            }
        }
    }

    /// How they are, in the order of the config.
    #[must_use]
    pub fn statuses(&self) -> Vec<UplinkStatus> {
        let clock = self.log.clock();
        self.links.iter().map(|link| link.shared.status(&link.name, &**clock)).collect()
    }

    /// Stops sending, waits up to `deadline` for what is under way, and makes the checkpoints durable. Answers what is left
    /// to mirror. Call it while the log still commits.
    pub async fn shutdown(&mut self, deadline: Duration) -> Vec<UplinkStatus> {
        // Without a running task there is nobody to tell.
        let _ = self.stop.send(Some(deadline));
        for link in &mut self.links {
            if let Some(mut running) = link.running.take() {
                // The task keeps to the deadline itself; twice the time is only for one that is stuck.
                let slack = deadline.saturating_mul(2).max(Duration::from_secs(1));
                if tokio::time::timeout(slack, &mut running).await.is_err() {
                    running.abort();
                }
            }
        }
        self.statuses()
    }
}
