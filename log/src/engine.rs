//! The engine behind [`crate::Log`]: the node, and the data directories that are open.
//!
//! Invariant: what is asked of all directories is asked of each; the failure of one is not the failure of another.
//! Neighbours: `log` is its public face, `threads` runs its steps, `recovery` makes it.

use crate::commit::Committer;
use crate::directory::Directory;
use crate::metadata::Refusal;
use crate::node::Node;
use parking_lot::{Mutex, MutexGuard};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Producer ids taken from the metadata at a time.
const PRODUCER_IDS_PER_BLOCK: u32 = 1000;

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) node: Arc<Node>,
    /// Those that could be opened, by number.
    pub(crate) directories: Vec<Arc<Directory>>,
    /// Ids given out from the current block: (next, end).
    producer_ids: Mutex<(i64, i64)>,
    /// Configured paths that are none of this log's directories.
    pub(crate) unused: Vec<Unused>,
}

/// A configured path that is not used, and why.
#[derive(Debug, Clone)]
pub(crate) struct Unused {
    pub(crate) path: PathBuf,
    pub(crate) why: String,
}

impl Engine {
    pub(crate) fn new(
        node: Arc<Node>,
        directories: Vec<Arc<Directory>>,
        unused: Vec<Unused>,
    ) -> Self {
        Self { node, directories, producer_ids: Mutex::new((0, 0)), unused }
    }

    /// One commit cycle in each directory, and a second one for what the first left to the compressor; where nothing waits, what
    /// is on its way to a segment goes on. `false` when nothing did.
    pub(crate) fn step_commit(&self) -> bool {
        let mut stepped = false;
        for directory in &self.directories {
            let mut committer = directory.committer.lock();
            stepped |= committer.step(directory);
            if directory.shared.compressor.run_waiting() {
                stepped |= committer.step(directory);
            }
            stepped = stepped || directory.shared.bulk.run_one(&directory.shared);
        }
        stepped
    }

    /// Runs cycles until the record of this sequence is committed.
    fn commit_until(&self, sequence: u64) -> Result<(), Refusal> {
        while self.node.committed() < sequence {
            if let Some(reason) = self.node.offline() {
                return Err(Refusal::Offline(reason));
            }
            self.node.note_failures();
            for directory in &self.directories {
                let committed = || directory.shared.committed_sequence.load(Ordering::Acquire);
                if committed() >= sequence || directory.shared.is_offline() {
                    continue;
                }
                let stepped = directory.committer.lock().step(directory);
                let full = || directory.shared.counters.partitions_full.load(Ordering::Relaxed) > 0;
                let waits = committed() < sequence && !directory.shared.is_offline();
                // Nothing was written though this record waits: there is no room for it now.
                if waits && (!stepped || full()) {
                    return Err(Refusal::Offline("the disk is full".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// The next producer id, from a block that is durable.
    pub(crate) fn next_producer_id(&self) -> Result<i64, Refusal> {
        let mut block = self.producer_ids.lock();
        if block.0 == block.1 {
            let (first, sequence) = self.node.take_producer_ids(PRODUCER_IDS_PER_BLOCK)?;
            self.commit_until(sequence)?;
            *block = (first, first + i64::from(PRODUCER_IDS_PER_BLOCK));
        }
        let id = block.0;
        block.0 += 1;
        Ok(id)
    }

    /// Commits what waits, checkpoints, lets go of the directories. Leaves the log offline, whatever comes.
    ///
    /// # Errors
    /// The first directory's that failed; the others have ended in order.
    pub(crate) fn close(&self) -> Result<(), String> {
        self.node.begin_closing();
        // All of them: what one still decides (an epoch) is committed in the others before they end.
        let mut committers: Vec<_> = self.directories.iter().map(|d| d.committer.lock()).collect();
        loop {
            let pairs = self.directories.iter().zip(&mut committers);
            let step = |(d, committer): (&Arc<Directory>, &mut MutexGuard<'_, Committer>)| {
                let compressed = d.shared.compressor.run_waiting();
                committer.step(d) || compressed || d.shared.bulk.run_one(&d.shared)
            };
            let stepped: Vec<bool> = pairs.map(step).collect();
            if !stepped.contains(&true) {
                break;
            }
        }
        let mut ended = Ok(());
        for (directory, committer) in self.directories.iter().zip(&mut committers) {
            ended = ended.and(directory.end(committer));
            directory.shared.close();
            *directory.lock.lock() = None;
        }
        ended
    }
}
