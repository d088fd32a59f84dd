//! Checkpoints: what makes files of the journal free again and the next start short.
//!
//! In order: capture the last published cycle; write and sync every segment; sync folders; write the older catalog slot and sync
//! it; only then may the ring release files up to that cycle. A partition may be described further on than the captured cycle
//! (commits go on meanwhile): replay skips what the files have.
//!
//! Invariant: the captured cycle never goes back, and a catalog is written only when all that it describes is synced.
//! Neighbours: `commit` runs it inline at a full ring, the checkpoint thread at half of it, `recovery` reads the result.

use crate::catalog::{Catalog, PartitionEntry};
use crate::directory::Directory;
use crate::journal::Mark;
use crate::metadata::encode_all;
use crate::partition::sync::sync_all;
use crate::partition::{Condition, Partition};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

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

/// How much of the disk's time a checkpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speed {
    Full,
    /// After each partition's syncs it waits as long as they took. A limit that needs no figure: on a card that syncs 8 MiB in
    /// a second it waits that second, on a fast disk next to nothing.
    Half,
}

/// Syncs that take less than this leave no gap worth waiting for.
const PAUSE_NS_MIN: u64 = 1_000_000;
/// No pause is longer than this.
const PAUSE_NS_MAX: u64 = 1_000_000_000;

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
        self.checkpoint_at(clean, Speed::Full)
    }

    /// A commit waits for room in the ring: the checkpoint that runs takes all of the disk's time from now on.
    pub(crate) fn hurry(&self) {
        self.wanted.state.lock().hurry = true;
        self.wanted.changed.notify_all();
    }

    fn checkpoint_at(&self, clean: bool, speed: Speed) -> Result<Mark, CheckpointError> {
        let mut checkpointer = self.checkpointer.lock();
        let began = self.shared.clock.monotonic_ns();
        let result = self.run_checkpoint(&mut checkpointer, clean, speed);
        self.wanted.state.lock().hurry = false;
        let took = self.shared.clock.monotonic_ns().saturating_sub(began);
        self.shared.counters.checkpoint_ns.fetch_add(took, Ordering::Relaxed);
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
    pub(crate) fn step_checkpoint(&self, speed: Speed) -> Result<(), String> {
        if let Some(reason) = self.shared.offline() {
            return Err(reason);
        }
        let mark = self.checkpoint_at(false, speed).map_err(|e| e.to_string())?;
        let mut committer = self.committer.lock();
        committer.journal.release(mark);
        let used = committer.journal.used_bytes();
        self.shared.counters.journal_used_bytes.store(used, Ordering::Relaxed);
        Ok(())
    }

    /// Describes the partitions, and makes durable what they are then described to hold.
    fn flush_and_sync(
        &self,
        partitions: &[Arc<Partition>],
        speed: Speed,
    ) -> Result<Vec<PartitionEntry>, String> {
        let described = partitions.iter().map(|p| p.begin_checkpoint());
        let (entries, dirty): (Vec<_>, Vec<_>) =
            described.collect::<Result<Vec<_>, String>>()?.into_iter().unzip();
        sync_all(&self.shared, partitions.iter().zip(&dirty), |took_ns| {
            if speed == Speed::Half && took_ns >= PAUSE_NS_MIN {
                self.pause(took_ns);
            }
        })?;
        Ok(entries)
    }

    fn run_checkpoint(
        &self,
        last: &mut Checkpointer,
        clean: bool,
        speed: Speed,
    ) -> Result<Mark, CheckpointError> {
        self.wanted.state.lock().checkpoint = false;
        let mark = *self.mark.lock();
        assert!(mark.cycle >= last.cycle, "checkpoints only move forward");
        self.shared.memory_bytes_since_checkpoint.store(0, Ordering::Relaxed);
        self.shared.bulk_bytes_since_checkpoint.store(0, Ordering::Relaxed);
        // The metadata before the partitions: a topic made meanwhile is replayed, not described without its making.
        // One deleted meanwhile would be described half: then the description begins again, without it.
        let (metadata, metadata_sequence, partitions, entries) = loop {
            let (metadata, metadata_sequence, partitions) = {
                let metadata = self.node.metadata();
                let mut bytes = Vec::new();
                encode_all(&metadata.state.snapshot(), &mut bytes);
                (bytes, metadata.sequence, self.partitions())
            };
            let entries =
                self.flush_and_sync(&partitions, speed).map_err(CheckpointError::Failed)?;
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
            account: self.pace.lock().account(self.shared.clock.monotonic_ns()),
        };
        loop {
            let written = catalog.write(disk, dir, &self.id);
            match written.map_err(|e| CheckpointError::of(&e, "writing the catalog")) {
                // It has outgrown its file on a full disk: some room is kept back for that.
                Err(CheckpointError::Full) if self.shared.ballast.give() => {}
                other => break other?,
            }
        }
        for (partition, entry) in partitions.iter().zip(&catalog.partitions) {
            partition.note_checkpoint(entry);
        }
        // `memory` topics are synced now, and truncations of theirs are over.
        self.shared.notify();
        last.sequence = catalog.sequence;
        last.cycle = mark.cycle;
        self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(mark)
    }

    /// Leaves the disk to others for so long, unless the checkpoint is waited for or the ring runs full meanwhile.
    fn pause(&self, took_ns: u64) {
        let counters = &self.shared.counters;
        let used = counters.journal_used_bytes.load(Ordering::Relaxed);
        let scarce = used > counters.journal_size_bytes.load(Ordering::Relaxed) / 4 * 3;
        let began = self.shared.clock.monotonic_ns();
        let mut state = self.wanted.state.lock();
        if !scarce && !state.hurry && !state.stop {
            let pause = Duration::from_nanos(took_ns.min(PAUSE_NS_MAX));
            self.wanted.changed.wait_for(&mut state, pause);
        }
        drop(state);
        let paused = self.shared.clock.monotonic_ns().saturating_sub(began);
        counters.checkpoint_pause_ns.fetch_add(paused, Ordering::Relaxed);
    }
}
