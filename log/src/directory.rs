//! One data directory of a running node: its journal with the committer, its checkpoints, its upkeep, its lock.
//!
//! Directories know nothing of each other but what the node's metadata says; each has its own commit thread, and one that fails
//! takes only its own partitions offline.
//!
//! Invariant: a partition is committed, checkpointed and kept by the directory that holds it, and by no other.
//! Neighbours: `node` above; `commit`, `checkpoint` and `retention` are its steps, `threads` runs them.

use crate::checkpoint::Checkpointer;
use crate::commit::Committer;
use crate::compaction::Cleaner;
use crate::disk::LockGuard;
use crate::journal::{Maker, Mark};
use crate::node::Node;
use crate::pace::Pace;
use crate::partition::Partition;
use crate::retention::Upkeep;
use crate::shared::Shared;
use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) node: Arc<Node>,
    pub(crate) shared: Arc<Shared>,
    /// What its superblock says.
    pub(crate) id: [u8; 16],
    pub(crate) committer: Mutex<Committer>,
    pub(crate) checkpointer: Mutex<Checkpointer>,
    pub(crate) maker: Arc<Maker>,
    /// The last cycle that is wholly published.
    pub(crate) mark: Mutex<Mark>,
    pub(crate) pace: Mutex<Pace>,
    pub(crate) upkeep: Mutex<Upkeep>,
    /// Before the committer, in the order of locks.
    pub(crate) cleaner: Mutex<Cleaner>,
    pub(crate) full: Mutex<Vec<Arc<Partition>>>,
    pub(crate) wanted: Wanted,
    pub(crate) lock: Mutex<Option<Box<dyn LockGuard>>>,
}

/// What the background threads are asked for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) state: Mutex<WantedState>,
    pub(crate) changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct WantedState {
    pub(crate) checkpoint: bool,
    /// A journal file ahead of need.
    pub(crate) file: bool,
    pub(crate) stop: bool,
    /// Somebody waits for the checkpoint that runs.
    pub(crate) hurry: bool,
}

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The partitions that it holds.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        let topics = self.node.topics();
        let all = topics.values().flat_map(|t| t.partitions());
        all.filter(|p| p.is_in(&self.shared)).cloned().collect()
    }

    pub(crate) fn note_full(&self, partition: &Arc<Partition>) {
        self.full.lock().push(Arc::clone(partition));
        self.upkeep.lock().retain_soon();
    }

    /// Moves a deleted partition's folder aside; the upkeep removes what is in it.
    pub(crate) fn put_aside(&self, partition: &Partition) {
        // Whoever is writing or removing files by their names ends first: a topic made again has the same ones.
        let _exclusive = partition.exclusive_files();
        partition.forget_files();
        let aside = aside(self.path(), partition.handle());
        match self.shared.disk.rename(partition.folder(), &aside) {
            Ok(()) => self.upkeep.lock().sweep(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            // The next start moves it.
            Err(e) => {
                tracing::warn!(?partition, error = %e, "could not move a deleted topic aside");
            }
        }
    }

    pub(crate) fn ask_checkpoint(&self) {
        let mut state = self.wanted.state.lock();
        if !std::mem::replace(&mut state.checkpoint, true) {
            self.wanted.changed.notify_all();
        }
    }

    /// Somebody waits for what `memory` topics have written.
    pub(crate) fn ask_memory_sync(&self) {
        self.upkeep.lock().sync_memory_soon();
        self.wanted.changed.notify_all();
    }

    pub(crate) fn ask_file(&self) {
        let mut state = self.wanted.state.lock();
        if !std::mem::replace(&mut state.file, true) {
            self.wanted.changed.notify_all();
        }
    }

    /// Makes a journal file if one is asked for.
    pub(crate) fn make_file(&self) {
        if !std::mem::take(&mut self.wanted.state.lock().file) {
            return;
        }
        if let Err(e) = self.maker.make_one() {
            // Commits use the files there are, and checkpoint more often.
            tracing::warn!(error = %e, "could not make a journal file ahead of need");
        }
    }

    /// Commits and checkpoints what is left, then lets nothing more through. With the committer held: a cycle after the last
    /// checkpoint would be one that a clean start does not look for.
    pub(crate) fn end(&self, committer: &mut Committer) -> Result<(), String> {
        if let Some(reason) = self.shared.offline() {
            return Err(reason);
        }
        while committer.step(self) || self.shared.bulk.run_one(&self.shared) {}
        if let Some(reason) = self.shared.offline() {
            return Err(reason);
        }
        self.checkpoint(true).map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// Where a deleted partition's folder waits for its removal.
pub(crate) fn aside(dir: &Path, handle: u64) -> PathBuf {
    dir.join("topics").join(format!("{handle:016x}.deleted"))
}
