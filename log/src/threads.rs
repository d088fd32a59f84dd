//! The threads of an open log: commit, checkpoint, upkeep, and one that makes journal files ahead of need.
//!
//! Invariant: a thread only loops a step that could be run by anybody; no state lives here but the wish to stop.
//! Neighbours: `commit`, `checkpoint` and `retention` have the steps.

use crate::commit::Committer;
use crate::engine::Engine;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The commit thread looks up from its sleep this often even if nobody wakes it.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// A round of upkeep starts this often.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Handles of the threads; ends them when dropped.
#[derive(Debug)]
pub(crate) struct Threads {
    engine: Arc<Engine>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    pub(crate) fn start(engine: &Arc<Engine>) -> Self {
        let mut handles = Vec::new();
        let mut spawn = |name: &str, run: fn(&Engine)| {
            let engine_of_thread = Arc::clone(engine);
            let thread = std::thread::Builder::new().name(format!("headwater-{name}"));
            match thread.spawn(move || run(&engine_of_thread)) {
                Ok(handle) => handles.push(handle),
                Err(e) => engine.shared.go_offline(format!("starting the {name} thread: {e}")),
            }
        };
        spawn("commit", run_commit);
        spawn("checkpoint", run_checkpoint);
        spawn("upkeep", run_upkeep);
        spawn("ring", run_maker);
        Self { engine: Arc::clone(engine), handles: Mutex::new(handles) }
    }

    /// Ends in order; see [`crate::Running::close`].
    pub(crate) fn close(&self) -> Result<(), String> {
        self.join();
        self.engine.close()
    }

    fn join(&self) {
        self.engine.wanted.state.lock().stop = true;
        self.engine.wanted.changed.notify_all();
        self.engine.shared.queue.wake();
        for handle in self.handles.lock().drain(..) {
            if handle.join().is_err() {
                self.engine.shared.go_offline("a thread of the log panicked".to_owned());
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.join();
        self.engine.shared.close();
        *self.engine.lock.lock() = None;
    }
}

impl Engine {
    fn stopping(&self) -> bool {
        self.wanted.state.lock().stop
    }

    /// Commits what waits, checkpoints, lets go of the directory.
    pub(crate) fn close(&self) -> Result<(), String> {
        let ended = self.end();
        *self.lock.lock() = None;
        ended
    }

    /// Leaves the log offline, whatever comes.
    fn end(&self) -> Result<(), String> {
        self.shared.begin_closing();
        drop(self.metadata.lock());
        for partition in self.partitions() {
            partition.finish_append();
        }
        // Held to the end: a cycle after the last checkpoint would be one that a clean start does not look for.
        let mut committer = self.committer.lock();
        let ended = self.end_locked(&mut committer);
        self.shared.close();
        ended
    }

    fn end_locked(&self, committer: &mut Committer) -> Result<(), String> {
        if let Some(reason) = self.shared.offline() {
            return Err(reason);
        }
        while committer.step(self) {}
        if let Some(reason) = self.shared.offline() {
            return Err(reason);
        }
        self.checkpoint(true).map_err(|e| e.to_string())?;
        Ok(())
    }
}

fn run_commit(engine: &Engine) {
    let delay = engine.options.commit_delay;
    while !engine.stopping() {
        if engine.shared.is_offline() {
            engine.shared.queue.sleep(SLEEP_MAX);
            continue;
        }
        if !delay.is_zero() && engine.shared.queue.is_waiting() {
            // Gathers more per sync, unless the memory for it is running out.
            let filling =
                engine.shared.uncommitted_bytes.load(std::sync::atomic::Ordering::Relaxed);
            if filling < engine.shared.uncommitted_bytes_max / 2 {
                std::thread::sleep(delay);
            }
        }
        if !engine.committer.lock().step(engine) {
            engine.shared.queue.sleep(SLEEP_MAX);
        }
    }
}

fn run_checkpoint(engine: &Engine) {
    loop {
        {
            let mut wanted = engine.wanted.state.lock();
            while !wanted.checkpoint && !wanted.stop {
                engine.wanted.changed.wait(&mut wanted);
            }
            if wanted.stop {
                return;
            }
            wanted.checkpoint = false;
        }
        if engine.shared.is_offline() {
            continue;
        }
        // An error has taken the log offline and been reported there.
        if let Ok(cycle) = engine.checkpoint(false) {
            engine.committer.lock().journal.release(cycle);
        }
    }
}

fn run_upkeep(engine: &Engine) {
    let interval = UPKEEP_INTERVAL.min(engine.options.memory_sync);
    loop {
        engine.upkeep_step();
        let mut wanted = engine.wanted.state.lock();
        if wanted.stop {
            return;
        }
        engine.wanted.changed.wait_for(&mut wanted, interval.max(Duration::from_millis(10)));
        if wanted.stop {
            return;
        }
    }
}

fn run_maker(engine: &Engine) {
    loop {
        {
            let mut wanted = engine.wanted.state.lock();
            while !wanted.file && !wanted.stop {
                engine.wanted.changed.wait(&mut wanted);
            }
            if wanted.stop {
                return;
            }
        }
        engine.make_file();
    }
}
