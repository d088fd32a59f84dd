//! The threads of an open log, for each directory: commit, checkpoint, upkeep, one that makes journal files ahead of need, one
//! that compresses, one that writes what goes straight to segments, and one that compacts.
//!
//! Invariant: a thread only loops a step that could be run by anybody; no state lives here but the wish to stop.
//! Neighbours: `commit`, `checkpoint`, `retention`, `compressor`, `bulk` and `compaction::cleaner` have the steps.

use crate::checkpoint::Speed;
use crate::directory::Directory;
use crate::engine::Engine;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The commit thread looks up from its sleep this often even if nobody wakes it.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// A round of upkeep starts this often.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(500);
/// The cleaner looks for something to do this often (Kafka's `log.cleaner.backoff.ms`).
const COMPACTION_INTERVAL: Duration = Duration::from_secs(15);

/// Handles of the threads; ends them when dropped.
#[derive(Debug)]
pub(crate) struct Threads {
    engine: Arc<Engine>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    pub(crate) fn start(engine: &Arc<Engine>) -> Self {
        let mut handles = Vec::new();
        for directory in &engine.directories {
            let mut spawn = |name: &str, run: fn(&Directory)| {
                let of_thread = Arc::clone(directory);
                let name = match directory.shared.number.get() {
                    0 => format!("headwater-{name}"),
                    number => format!("headwater-{name}-{number}"),
                };
                let thread = std::thread::Builder::new().name(name.clone());
                match thread.spawn(move || run(&of_thread)) {
                    Ok(handle) => handles.push(handle),
                    Err(e) => directory.shared.go_offline(format!("starting {name}: {e}")),
                }
            };
            spawn("commit", run_commit);
            spawn("checkpoint", run_checkpoint);
            spawn("upkeep", run_upkeep);
            spawn("ring", run_maker);
            spawn("compress", run_compressor);
            spawn("bulk", run_bulk);
            spawn("compact", run_cleaner);
        }
        Self { engine: Arc::clone(engine), handles: Mutex::new(handles) }
    }

    /// Ends in order; see [`crate::Running::close`].
    pub(crate) fn close(&self) -> Result<(), String> {
        self.join();
        self.engine.close()
    }

    fn join(&self) {
        for directory in &self.engine.directories {
            directory.wanted.state.lock().stop = true;
            directory.wanted.changed.notify_all();
            directory.shared.queue.hurry();
            directory.shared.queue.wake();
            directory.shared.compressor.stop();
            directory.shared.bulk.stop();
        }
        for handle in self.handles.lock().drain(..) {
            let name = handle.thread().name().unwrap_or_default().to_owned();
            if handle.join().is_err() {
                // Which state it left behind nobody knows.
                for directory in &self.engine.directories {
                    directory.shared.go_offline(format!("thread {name} panicked"));
                }
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.join();
        for directory in &self.engine.directories {
            directory.shared.close();
            *directory.lock.lock() = None;
        }
    }
}

impl Directory {
    fn stopping(&self) -> bool {
        self.wanted.state.lock().stop
    }
}

fn run_commit(directory: &Directory) {
    let shared = &directory.shared;
    while !directory.stopping() {
        if shared.is_offline() {
            shared.queue.sleep(SLEEP_MAX);
            continue;
        }
        if shared.queue.is_waiting() {
            let delay = directory.pace.lock().delay(shared.clock.monotonic_ns());
            if !delay.is_zero() {
                shared.gather(delay);
            }
        }
        if !directory.committer.lock().step(directory) {
            shared.queue.sleep(SLEEP_MAX);
        }
    }
}

fn run_checkpoint(directory: &Directory) {
    loop {
        {
            let mut wanted = directory.wanted.state.lock();
            while !wanted.checkpoint && !wanted.stop {
                directory.wanted.changed.wait(&mut wanted);
            }
            if wanted.stop {
                return;
            }
            wanted.checkpoint = false;
        }
        // An error has taken the directory offline and been reported there.
        let _ = directory.step_checkpoint(Speed::Half);
    }
}

fn run_upkeep(directory: &Directory) {
    let interval = UPKEEP_INTERVAL.min(directory.node.options.memory_sync);
    loop {
        directory.upkeep_step();
        let mut wanted = directory.wanted.state.lock();
        if wanted.stop {
            return;
        }
        directory.wanted.changed.wait_for(&mut wanted, interval.max(Duration::from_millis(10)));
        if wanted.stop {
            return;
        }
    }
}

fn run_cleaner(directory: &Directory) {
    // Whoever serves comes first. A system that does not allow it has the rate limit.
    let _ = rustix::process::nice(10);
    let pause = |time: Duration| {
        let mut wanted = directory.wanted.state.lock();
        if !time.is_zero() {
            directory.wanted.changed.wait_while_for(&mut wanted, |wanted| !wanted.stop, time);
        }
        wanted.stop
    };
    loop {
        while directory.compaction_step(&pause) {}
        if pause(COMPACTION_INTERVAL) {
            return;
        }
    }
}

fn run_maker(directory: &Directory) {
    loop {
        {
            let mut wanted = directory.wanted.state.lock();
            while !wanted.file && !wanted.stop {
                directory.wanted.changed.wait(&mut wanted);
            }
            if wanted.stop {
                return;
            }
        }
        directory.make_file();
    }
}

fn run_compressor(directory: &Directory) {
    directory.shared.compressor.run_until_stopped();
}

fn run_bulk(directory: &Directory) {
    directory.shared.bulk.run_until_stopped(&directory.shared);
}
