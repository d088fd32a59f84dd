//! Checkpoints: what makes files of the journal free again and the next start short.
//!
//! In order: capture the last published cycle; write and sync every segment; sync folders; write the older catalog slot and sync
//! it; only then may the ring release files up to that cycle. A partition may be described further on than the captured cycle
//! (commits go on meanwhile): replay skips what the files have.
//!
//! Invariant: the captured cycle never goes back, and a catalog is written only when all that it describes is synced.
//! Neighbours: `commit` runs it inline at a full ring, the checkpoint thread at half of it, `recovery` reads the result.

use crate::catalog::Catalog;
use crate::engine::Engine;
use crate::metadata::encode_all;
use std::sync::atomic::Ordering;

/// The checkpointer's own state.
#[derive(Debug, Default)]
pub(crate) struct Checkpointer {
    /// Sequence of the last catalog written.
    pub(crate) sequence: u64,
    /// Cycle that the last one covers.
    pub(crate) cycle: u64,
}

impl Engine {
    /// Runs one checkpoint and returns the cycle up to which the ring may be released. An error takes the log offline.
    pub(crate) fn checkpoint(&self, clean: bool) -> Result<u64, String> {
        let mut checkpointer = self.checkpointer.lock();
        let result = self.run_checkpoint(&mut checkpointer, clean);
        if let Err(reason) = &result {
            self.shared.go_offline(reason.clone());
        }
        result
    }

    fn run_checkpoint(&self, last: &mut Checkpointer, clean: bool) -> Result<u64, String> {
        self.wanted.state.lock().checkpoint = false;
        let mark = *self.mark.lock();
        assert!(mark.cycle >= last.cycle, "checkpoints only move forward");
        self.shared.memory_bytes_since_checkpoint.store(0, Ordering::Relaxed);
        // The metadata before the partitions: a topic made meanwhile is replayed, not described without its making.
        let (metadata, metadata_sequence, partitions) = {
            let metadata = self.metadata.lock();
            let mut bytes = Vec::new();
            encode_all(&metadata.state.snapshot(), &mut bytes);
            (bytes, metadata.sequence, self.partitions())
        };
        let mut entries = Vec::with_capacity(partitions.len());
        for partition in &partitions {
            entries.push(partition.checkpoint()?);
        }
        let dir = &self.options.dir;
        let disk = &*self.shared.disk;
        if self.shared.topics_dirty.swap(false, Ordering::AcqRel) {
            let topics = dir.join("topics");
            disk.sync_dir(&topics).map_err(|e| format!("syncing {}: {e}", topics.display()))?;
        }
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
            .write(disk, dir, &self.directory_id)
            .map_err(|e| format!("writing the catalog: {e}"))?;
        for (partition, entry) in partitions.iter().zip(&catalog.partitions) {
            partition.note_checkpoint(entry);
        }
        last.sequence = catalog.sequence;
        last.cycle = mark.cycle;
        self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(mark.cycle)
    }
}
