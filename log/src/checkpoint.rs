//! Checkpoints: what makes files of the journal free again and the next start short.
//!
//! In order: capture the last published cycle; write and sync every segment; sync folders; write the older catalog slot and sync
//! it; only then may the ring release files up to that cycle. A partition may be described further on than the captured cycle
//! (commits go on meanwhile): replay skips what the files have.
//!
//! Invariant: the captured cycle never goes back, and a catalog is written only when all that it describes is synced.
//! Neighbours: `commit` runs it inline at a full ring, the checkpoint thread at half of it, `recovery` reads the result.

use crate::catalog::Catalog;
use crate::directory::Directory;
use crate::journal::Mark;
use crate::metadata::encode_all;
use crate::partition::Condition;
use std::io;
use std::sync::atomic::Ordering;

/// Why there was no checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    /// No room for the catalog: the one before it still holds, and the journal with it.
    #[error("the disk is full")]
    Full,
    /// The directory is offline.
    #[error("{0}")]
    Failed(String),
}

impl CheckpointError {
    fn of(error: &io::Error, what: &str) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Failed(format!("{what}: {error}")),
        }
    }
}

/// The checkpointer's own state.
#[derive(Debug, Default)]
pub(crate) struct Checkpointer {
    /// Sequence of the last catalog written.
    pub(crate) sequence: u64,
    /// Cycle that the last one covers.
    pub(crate) cycle: u64,
}

impl Directory {
    /// Runs one checkpoint and returns the point of the ring up to which it may be released. An error takes the directory offline.
    ///
    /// A full disk is not an end: what is in the journal stays there, and the next checkpoint tries again.
    pub(crate) fn checkpoint(&self, clean: bool) -> Result<Mark, CheckpointError> {
        let mut checkpointer = self.checkpointer.lock();
        let result = self.run_checkpoint(&mut checkpointer, clean);
        match &result {
            Err(CheckpointError::Failed(reason)) => self.shared.go_offline(reason.clone()),
            Err(CheckpointError::Full) => tracing::warn!("no room on the disk for a checkpoint"),
            Ok(_) => {}
        }
        result
    }

    /// A checkpoint, and the release of the ring's files that it frees.
    ///
    /// # Errors
    /// What failed; the directory is offline then, or its disk is full.
    pub(crate) fn step_checkpoint(&self) -> Result<(), String> {
        if let Some(reason) = self.shared.offline() {
            return Err(reason);
        }
        let mark = self.checkpoint(false).map_err(|e| e.to_string())?;
        let mut committer = self.committer.lock();
        committer.journal.release(mark);
        let used = committer.journal.used_bytes();
        self.shared.counters.journal_used_bytes.store(used, Ordering::Relaxed);
        Ok(())
    }

    fn run_checkpoint(
        &self,
        last: &mut Checkpointer,
        clean: bool,
    ) -> Result<Mark, CheckpointError> {
        self.wanted.state.lock().checkpoint = false;
        let mark = *self.mark.lock();
        assert!(mark.cycle >= last.cycle, "checkpoints only move forward");
        self.shared.memory_bytes_since_checkpoint.store(0, Ordering::Relaxed);
        // The metadata before the partitions: a topic made meanwhile is replayed, not described without its making.
        // One deleted meanwhile would be described half: then the description begins again, without it.
        let (metadata, metadata_sequence, partitions, entries) = loop {
            let (metadata, metadata_sequence, partitions) = {
                let metadata = self.node.metadata();
                let mut bytes = Vec::new();
                encode_all(&metadata.state.snapshot(), &mut bytes);
                (bytes, metadata.sequence, self.partitions())
            };
            let entries = partitions.iter().map(|p| p.checkpoint());
            let entries =
                entries.collect::<Result<Vec<_>, String>>().map_err(CheckpointError::Failed)?;
            if !partitions.iter().any(|p| p.condition() == Condition::Deleted) {
                break (metadata, metadata_sequence, partitions, entries);
            }
        };
        let dir = self.path();
        let disk = &*self.shared.disk;
        self.shared.sync_topics(&dir.join("topics")).map_err(CheckpointError::Failed)?;
        let catalog = Catalog {
            sequence: last.sequence + 1,
            clean,
            mark,
            log_clock_ms: self.shared.log_clock_ms.load(Ordering::Relaxed),
            metadata_sequence,
            metadata,
            partitions: entries,
        };
        catalog
            .write(disk, dir, &self.id)
            .map_err(|e| CheckpointError::of(&e, "writing the catalog"))?;
        for (partition, entry) in partitions.iter().zip(&catalog.partitions) {
            partition.note_checkpoint(entry);
        }
        last.sequence = catalog.sequence;
        last.cycle = mark.cycle;
        self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(mark)
    }
}
