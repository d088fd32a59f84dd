//! Compaction: the newest record of each key stays, in Kafka's semantics (LogCleaner, KIP-58, KIP-354, KIP-534).
//!
//! One cleaner per data directory, on a thread of its own, takes the dirtiest partition that is due (`plan`), notes the newest
//! offset of each key of the dirty part in a map of fixed size (`offset_map`), and writes each group of adjacent segments again
//! without what that makes superfluous (`pass`, `rewrite`). An output is complete and synced under a name of its own,
//! `<base>.<swap>.cleaned`, before the journal says that it takes its inputs' place; only then files are renamed and removed
//! (`swap`). A crash before that leaves an orphan, a crash after it is finished by recovery.
//!
//! What stays keeps offset, timestamp and batch; offsets may then have holes, in segments that are marked *sparse* and nowhere
//! else. A tombstone stays for `delete_retention_ms` after a pass first kept it, by the log clock, and stays as long as that
//! clock is not trusted. Damage is never compacted away: a partition in which it is met is left alone until a restart.
//!
//! Invariant: a record goes only when a newer record of its key, its tombstone's horizon, or its transaction's abort says so, and
//! only from below every limit of `plan`; at every moment the files, the journal and the catalog together say exactly which
//! segments there are.
//! Neighbours: `commit` journals a swap and carries it out, `recovery` finishes it, `partition` reads past holes.

mod cleaner;
mod offset_map;
mod pass;
mod plan;
mod rewrite;
pub(crate) mod swap;
#[cfg(test)]
mod tests;
mod transactions;

pub(crate) use cleaner::{Cleaner, CompactionCounters};
pub(crate) use plan::{Facts, SegmentFacts};
pub(crate) use swap::{Swap, SwapRequest};

use std::path::{Path, PathBuf};

/// How compaction may use the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionOptions {
    /// Memory of the map of keys, of which one pass at a time has one. What does not fit waits for the next pass.
    pub memory_bytes: usize,
    /// Bytes read and written per second, at most. `None`: as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

impl Default for CompactionOptions {
    /// 157,000 keys per pass, and a quarter of what a slow SD card writes.
    fn default() -> Self {
        Self { memory_bytes: 4 << 20, bytes_per_second: Some(4 << 20) }
    }
}

/// Why a pass was given up. Its outputs are removed, unless the log went offline with one in the journal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// The log is being closed.
    #[error("stopped")]
    Stopped,
    /// Segments were removed or cut meanwhile, or the topic was deleted: there is something else to plan.
    #[error("its segments changed meanwhile")]
    Overtaken,
    /// The disk refused. Another try later may do better.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A batch does not pass its checks: the partition is left alone, nothing of it is compacted away.
    #[error("damaged batch in {} at byte {byte}: {reason}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Byte in it.
        byte: u64,
        /// The offset that should stand there.
        offset: i64,
        /// What is wrong.
        reason: crate::batch::BatchError,
    },
    /// The log takes no writes any more.
    #[error("{0}")]
    Offline(String),
}

impl PassError {
    fn disk(path: &Path) -> impl Fn(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Disk { path: path.clone(), source }
    }
}
