//! Upkeep: retention by time and size, `memory` syncs, room for full partitions, removal of what was deleted.
//!
//! Retention runs on the log clock, which never goes back, and deletes nothing by time while the wall clock is not trusted or
//! after it jumped. It never passes a hold, and removes only segments that lie wholly below the persisted checkpoint.
//!
//! Invariant: the moved log start is synced in the journal before a file is removed.
//! Neighbours: `commit` syncs the log start, `partition` says what a segment holds.

use crate::Offset;
use crate::directory::Directory;
use crate::partition::Partition;
use crate::partition::sync::{MemoryDirty, sync_all};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Wall time that differs this much from what monotonic time makes of the last reading has jumped.
const JUMP_MS: i64 = 60_000;
/// After a jump nothing is deleted by time for this long.
const SETTLE_MS: i64 = 3_600_000;

/// Append time that never goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogClock {
    now_ms: i64,
    read_at_ns: u64,
    /// Wall time less the log clock's at the last reading; `None` before the first trusted one.
    wall_ms: Option<i64>,
    /// Nothing is deleted by time before this (log clock).
    settled_at_ms: i64,
    trusted: bool,
}

impl LogClock {
    /// Goes on from what the catalog says.
    pub(crate) fn resume(last_ms: i64, monotonic_ns: u64) -> Self {
        Self {
            now_ms: last_ms,
            read_at_ns: monotonic_ns,
            wall_ms: None,
            settled_at_ms: i64::MIN,
            trusted: false,
        }
    }

    /// Reads the clocks; returns the log clock.
    pub(crate) fn tick(&mut self, wall_ms: i64, monotonic_ns: u64, trusted: bool) -> i64 {
        let passed = monotonic_ns.saturating_sub(self.read_at_ns) / 1_000_000;
        let passed = i64::try_from(passed).unwrap_or(0);
        if passed > 0 {
            // What is left of a millisecond counts next time.
            self.read_at_ns += passed.unsigned_abs() * 1_000_000;
        }
        self.now_ms = self.now_ms.saturating_add(passed);
        self.trusted = trusted;
        if !trusted {
            self.wall_ms = None;
            return self.now_ms;
        }
        if let Some(before) = self.wall_ms {
            let jump = wall_ms.saturating_sub(before.saturating_add(passed));
            if jump.abs() > JUMP_MS {
                self.settled_at_ms = self.now_ms.saturating_add(SETTLE_MS);
            }
        }
        self.wall_ms = Some(wall_ms);
        // A jump is not followed until it has lasted.
        if self.now_ms >= self.settled_at_ms {
            self.now_ms = self.now_ms.max(wall_ms);
        }
        self.now_ms
    }

    /// Whether age may be judged now.
    pub(crate) fn may_delete(&self) -> bool {
        self.trusted && self.now_ms >= self.settled_at_ms
    }
}

/// The upkeep's own state.
#[derive(Debug)]
pub(crate) struct Upkeep {
    sweep: bool,
    memory_synced_ns: u64,
    retained_ns: u64,
    expired_ns: u64,
    /// Since when there has been something to checkpoint.
    dirty_since_ns: Option<u64>,
    /// No label index is built before this.
    label_at_ns: u64,
}

/// Retention looks at all partitions this often.
const RETENTION_INTERVAL_NS: u64 = 5_000_000_000;
/// Label indexes are built from so many bytes of log per second, so that the disk is there for others.
const LABEL_BYTES_PER_S: u64 = 64 << 20;
/// Producers that may have expired are looked for this often.
const EXPIRY_INTERVAL_NS: u64 = 60_000_000_000;
/// A directory that was written to is checkpointed at least this often, so that a start has little to replay.
const CHECKPOINT_INTERVAL_NS: u64 = 60_000_000_000;

impl Upkeep {
    pub(crate) fn new() -> Self {
        Self {
            sweep: true,
            memory_synced_ns: 0,
            retained_ns: 0,
            expired_ns: 0,
            dirty_since_ns: None,
            label_at_ns: 0,
        }
    }

    /// Syncs `memory` topics at the next step.
    pub(crate) fn sync_memory_soon(&mut self) {
        self.memory_synced_ns = 0;
    }

    /// Runs retention at the next step: the disk is full.
    pub(crate) fn retain_soon(&mut self) {
        self.retained_ns = 0;
    }

    /// Looks for removed folders at the next step.
    pub(crate) fn sweep(&mut self) {
        self.sweep = true;
    }
}

impl Directory {
    /// One round of upkeep. Cheap when there is nothing to do.
    pub(crate) fn upkeep_step(&self) {
        if self.shared.is_offline() {
            return;
        }
        self.node.note_failures();
        self.node.tick_log_clock(&self.shared);
        let now = self.shared.clock.monotonic_ns();
        // One lock at a time: a checkpoint holds the second, for as long as it syncs, while it takes the first, and
        // the commit thread takes the first, and `upkeep`, in each of its cycles.
        let committed = self.mark.lock().cycle;
        let covered = self.checkpointer.lock().cycle;
        let (sweep, sync, retain, expire, checkpoint) = {
            let mut upkeep = self.upkeep.lock();
            let due = |at: u64, every: u64| at == 0 || now.saturating_sub(at) >= every;
            let sync_every =
                u64::try_from(self.node.options.memory_sync.as_nanos()).unwrap_or(u64::MAX);
            let sync = due(upkeep.memory_synced_ns, sync_every);
            let retain = due(upkeep.retained_ns, RETENTION_INTERVAL_NS);
            let expire = due(upkeep.expired_ns, EXPIRY_INTERVAL_NS);
            if expire {
                upkeep.expired_ns = now.max(1);
            }
            if sync {
                upkeep.memory_synced_ns = now.max(1);
            }
            if retain {
                upkeep.retained_ns = now.max(1);
            }
            let dirty = committed > covered
                || self.shared.memory_bytes_since_checkpoint.load(Ordering::Relaxed) > 0;
            let since = upkeep.dirty_since_ns.filter(|_| dirty);
            upkeep.dirty_since_ns = dirty.then(|| since.unwrap_or(now));
            let checkpoint =
                since.is_some_and(|at| now.saturating_sub(at) >= CHECKPOINT_INTERVAL_NS);
            (std::mem::take(&mut upkeep.sweep), sync, retain, expire, checkpoint)
        };
        if sweep {
            self.sweep();
        }
        if sync {
            self.sync_memory_topics();
        }
        self.probe_full();
        if retain {
            self.partitions().iter().for_each(|p| p.journal_high_watermark());
            self.retain();
        }
        if expire {
            self.expire_producers();
        }
        // Damage that was met is known after a restart once a catalog has it.
        if checkpoint || self.shared.damage.take_unsaved() {
            self.ask_checkpoint();
        }
        self.label_one(now);
    }

    /// Builds the label index of one sealed segment, if the last one is long enough ago.
    fn label_one(&self, now_ns: u64) {
        if now_ns < self.upkeep.lock().label_at_ns {
            return;
        }
        let Some((partition, segment)) = self.shared.unlabelled.lock().pop_front() else { return };
        // Removed meanwhile, with its topic or by retention.
        let (Some(partition), Some(segment)) = (partition.upgrade(), segment.upgrade()) else {
            return;
        };
        match partition.label(&segment) {
            Ok(bytes) => {
                let pause_ns = bytes.saturating_mul(1_000_000_000) / LABEL_BYTES_PER_S;
                self.upkeep.lock().label_at_ns = now_ns.saturating_add(pause_ns);
            }
            // Who needs it builds it, or meets the same error and tells.
            Err(error) => tracing::debug!(?partition, %error, "no label index"),
        }
    }

    /// Forgets producers that have been silent for too long. No record of it is needed: what a crash brings back expires again.
    fn expire_producers(&self) {
        let after = self.node.options.producer_id_expiration.as_millis();
        let after_ms = i64::try_from(after).unwrap_or(i64::MAX);
        let expired: usize = self.partitions().iter().map(|p| p.expire_producers(after_ms)).sum();
        self.shared.counters.producers_expired.fetch_add(expired as u64, Ordering::Relaxed);
    }

    fn probe_full(&self) {
        // First what is kept back, then whoever was refused.
        self.shared.ballast.restore();
        let synced = self.node.committed();
        self.full.lock().retain(|p| {
            p.probe(synced);
            p.condition() == crate::partition::Condition::Full
        });
    }

    fn sync_memory_topics(&self) {
        // Not beside a checkpoint, which would describe as synced what is only being synced here.
        let _checkpointer = self.checkpointer.lock();
        let (mut partitions, mut ends, mut dirty) = (Vec::new(), Vec::new(), Vec::new());
        for partition in self.partitions().into_iter().filter(|p| p.is_memory()) {
            match partition.begin_memory_sync() {
                MemoryDirty::Clean => {}
                MemoryDirty::NotInCatalog => self.ask_checkpoint(),
                MemoryDirty::Below(end, files) => {
                    partitions.push(partition);
                    ends.push(end);
                    dirty.push(files);
                }
            }
        }
        if partitions.is_empty() {
            return;
        }
        // The catalog may know a partition from a time when it had no folder yet: the folder's name, too.
        let synced = sync_all(&self.shared, partitions.iter().zip(&dirty), |_| {})
            .and_then(|()| self.shared.sync_topics(&self.path().join("topics")));
        if let Err(reason) = synced {
            return self.shared.go_offline(reason);
        }
        for (partition, end) in partitions.iter().zip(ends) {
            partition.end_memory_sync(end);
        }
        self.shared.notify();
    }

    /// Deletes what has outlived its topic's retention, then what is above the directory's limits (`space`).
    pub(crate) fn retain(&self) {
        let partitions = self.partitions();
        let may_delete = self.node.may_delete();
        let now_ms = self.shared.log_clock_ms.load(Ordering::Relaxed);
        let mut moved = false;
        for partition in &partitions {
            if let Some(before) = partition.expired_before(may_delete.then_some(now_ms)) {
                partition.delete_before(before);
                moved = true;
            }
        }
        moved |= self.make_room(&partitions);
        let deletable = partitions.iter().any(|p| p.has_dead_segments());
        if !moved && !deletable {
            return;
        }
        // The moved log starts are synced before a file goes.
        while self.committer.lock().step(self) {}
        if self.shared.is_offline() {
            return;
        }
        for partition in &partitions {
            if let Err(e) = partition.remove_dead_segments() {
                tracing::warn!(?partition, error = %e, "could not remove an old segment");
            }
        }
    }

    /// Removes folders that belong to no topic: deleted ones, and what a crash left half made.
    fn sweep(&self) {
        let topics = self.path().join("topics");
        let disk = &*self.shared.disk;
        let Ok(entries) = disk.list(&topics) else { return };
        let live: std::collections::HashSet<_> =
            self.partitions().iter().map(|p| p.folder().to_owned()).collect();
        let waiting: std::collections::HashSet<_> = {
            let controls = self.shared.controls.lock();
            controls.deleted.iter().map(|(_, p)| p.folder().to_owned()).collect()
        };
        for entry in entries {
            let path = topics.join(&entry.name);
            if live.contains(&path) || waiting.contains(&path) {
                continue;
            }
            let removed = if !entry.is_dir {
                disk.remove_file(&path)
            } else if entry.name.ends_with(".deleted") || is_empty(disk, &path) {
                remove_folder(disk, &path)
            } else {
                continue;
            };
            if let Err(e) = removed {
                tracing::warn!(path = %path.display(), error = %e, "could not remove a deleted topic's folder");
            }
        }
    }
}

/// Whether a folder holds nothing but empty files: what a topic leaves whose making was never committed.
fn is_empty(disk: &dyn crate::disk::Disk, folder: &Path) -> bool {
    disk.list(folder).is_ok_and(|entries| {
        entries.iter().all(|e| {
            !e.is_dir
                && disk
                    .open(&folder.join(&e.name), crate::disk::OpenMode::Read)
                    .and_then(|file| file.size_bytes())
                    .is_ok_and(|size| size == 0)
        })
    })
}

fn remove_folder(disk: &dyn crate::disk::Disk, folder: &Path) -> io::Result<()> {
    for entry in disk.list(folder)? {
        // A partition's folder holds no folders.
        disk.remove_file(&folder.join(entry.name))?;
    }
    disk.remove_dir(folder)
}

impl Partition {
    /// Segments that were sealed when the persisted checkpoint was taken: (first offset behind it, segment), oldest first.
    pub(crate) fn removable(&self) -> Vec<(Offset, Arc<crate::segment::Segment>)> {
        let (segments, checkpointed) = self.segments_and_checkpoint();
        let mut removable = Vec::new();
        for pair in segments.windows(2) {
            let end = pair[1].base();
            if end > checkpointed {
                break;
            }
            removable.push((end, Arc::clone(&pair[0])));
        }
        removable
    }

    /// What retention may take, and no hold needs: the end of it.
    pub(crate) fn releasable_end(&self) -> Offset {
        let held = self.held_from().unwrap_or(self.high_watermark());
        held.min(self.high_watermark())
    }

    /// Where the log starts after what has expired is gone; `None` when nothing has.
    fn expired_before(&self, now_ms: Option<i64>) -> Option<Offset> {
        let settings = self.settings();
        if !settings.cleanup.deletes() {
            return None;
        }
        let limit = self.releasable_end();
        let mut size = self.size_bytes().saturating_sub(self.dead_bytes());
        let mut before = None;
        let start = self.log_start();
        for (end, segment) in self.removable() {
            if end <= start {
                continue;
            }
            let age_ms = now_ms.map(|now| now.saturating_sub(segment.times().last_append_ms));
            let too_old = match (age_ms, settings.retention_ms) {
                (Some(age), Some(limit)) => age > i64::try_from(limit).unwrap_or(i64::MAX),
                _ => false,
            };
            // As Kafka: a segment goes when what is left without it still has the size.
            let rest = size.saturating_sub(segment.written());
            let too_much =
                settings.retention_bytes.is_some_and(|limit| rest >= limit && size > limit);
            if end > limit || !(too_old || too_much) {
                break;
            }
            size = rest;
            before = Some(end);
        }
        before
    }

    /// Bytes of segments that lie below the log start and are not removed yet.
    pub(crate) fn dead_bytes(&self) -> u64 {
        let start = self.log_start();
        self.removable().iter().filter(|(end, _)| *end <= start).map(|(_, s)| s.written()).sum()
    }

    fn has_dead_segments(&self) -> bool {
        let start = self.log_start();
        self.removable().first().is_some_and(|(end, _)| *end <= start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_log_clock_never_goes_back_and_waits_after_a_jump() {
        let mut clock = LogClock::resume(1_000_000, 0);
        assert_eq!(clock.tick(5, MS, false), 1_000_001, "an unset wall clock is not read");
        assert!(!clock.may_delete());
        assert_eq!(
            clock.tick(2_000_000, 2 * MS, true),
            2_000_000,
            "the first trusted reading counts"
        );
        assert!(clock.may_delete());
        assert_eq!(
            clock.tick(1_999_000, 3 * MS, true),
            2_000_001,
            "small steps back are ridden out"
        );
        assert!(clock.may_delete());
        let year = 31_536_000_000;
        let jumped = clock.tick(2_000_000 + year, 4 * MS, true);
        assert_eq!(jumped, 2_000_002, "a jump is not followed at once");
        assert!(!clock.may_delete());
        let hour = 3_600_000;
        let later = clock.tick(2_000_000 + year + hour, (4 + hour as u64) * MS, true);
        assert_eq!(later, 2_000_000 + year + hour, "but once it has lasted");
        assert!(clock.may_delete());
    }
}
