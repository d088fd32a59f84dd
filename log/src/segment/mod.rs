//! Segments: Kafka's files of one partition, `topics/<topic>-<partition>.<handle>/<20 digits>.*`.
//!
//! A `.log` holds whole record batches back to back, exactly as Kafka writes them, so Kafka's own tools read it. `.index` and
//! `.timeindex` are Kafka's too (`index` has their tables), so are `.txnindex` (`txnindex`) and `.snapshot`
//! (`partition::producers::snapshot`); `.labels` is Headwater's (`labels`). All but the log are hints: never synced, and a missing
//! or wrong one is made again from it.
//!
//! A segment is rolled when its bytes, its age on the log clock (Kafka takes the records' timestamps, which a device may have
//! wrong; retention runs on the log clock, and so does this), an index of it, or its offsets (31 bits above its base) would
//! be more than they may.
//!
//! Invariant: a `.log` only grows while the process runs, and only with bytes that the journal has synced (`memory` topics:
//! with bytes whose loss is allowed); bytes below `written` never change, so they are read without a lock. Who cuts or
//! replaces one all the same lets go of what is loaded of it and removes its hints first.
//! Neighbours: `partition` writes and reads, `recovery` cuts, `retention` removes.

pub(crate) mod cache;
pub(crate) mod files;
pub(crate) mod index;
pub(crate) mod indexes;
pub(crate) mod label_indexes;
pub(crate) mod labels;
pub(crate) mod read;
pub(crate) mod scan;
pub(crate) mod txnindex;

use crate::Offset;
use crate::catalog::SegmentEntry;
use crate::disk::Disk;
use index::Growing;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use txnindex::Aborted;

/// One segment in this process's life. Compaction and topics made again give several the same name in turn: what is kept of
/// one, an open file or an index, must never pass for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64);

impl Key {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Files that follow from a segment's bytes alone: removed where they are cut or replaced, made again when they are missing.
pub(crate) const HINTS: [&str; 3] = ["index", "timeindex", "labels"];
/// Everything that a segment leaves behind when its log is removed.
pub(crate) const EXTENSIONS: [&str; 6] =
    ["log", "index", "timeindex", "labels", "txnindex", "snapshot"];

const NO_HORIZON: i64 = i64::MIN;

/// One segment. Shared by the writer and by readers.
#[derive(Debug)]
pub(crate) struct Segment {
    key: Key,
    base: Offset,
    /// Bytes in the file (its page cache): what readers may read.
    written: AtomicU64,
    times: Mutex<Times>,
    /// The indexes while it grows; `None` until somebody needs them, and when it is sealed. Whoever makes index files of
    /// this segment holds the lock.
    growing: Mutex<Option<Growing>>,
    sealed: AtomicBool,
    /// Compacted: offsets may have holes.
    sparse: AtomicBool,
    /// When the tombstones that compaction has met here may go, on the log clock.
    horizon_ms: AtomicI64,
    /// Held by who makes its label index.
    labelling: Mutex<()>,
    /// Another has its name, or will: no hint of it is written any more. Set under both locks.
    retired: AtomicBool,
    /// Transactions whose abort markers lie here.
    aborted: Mutex<Aborted>,
}

/// What retention and lookups by time want to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Largest record timestamp, and base offset of the batch that has it.
    pub(crate) max_timestamp: i64,
    pub(crate) max_timestamp_base: i64,
    /// Log clock at the first and the last append.
    pub(crate) first_append_ms: i64,
    pub(crate) last_append_ms: i64,
}

impl Segment {
    pub(crate) fn new(base: Offset, now_ms: i64) -> Self {
        Self {
            key: Key::next(),
            base,
            written: AtomicU64::new(0),
            times: Mutex::new(Times {
                max_timestamp: i64::MIN,
                max_timestamp_base: base.get(),
                first_append_ms: now_ms,
                last_append_ms: now_ms,
            }),
            growing: Mutex::new(Some(Growing::default())),
            sealed: AtomicBool::new(false),
            sparse: AtomicBool::new(false),
            labelling: Mutex::default(),
            horizon_ms: AtomicI64::new(NO_HORIZON),
            retired: AtomicBool::new(false),
            aborted: Mutex::default(),
        }
    }

    /// As the catalog knows it; `sealed`: all but the last.
    pub(crate) fn from_entry(entry: &SegmentEntry, sealed: bool) -> Self {
        Self {
            key: Key::next(),
            base: Offset::new(entry.base).unwrap_or_default(),
            written: AtomicU64::new(entry.bytes),
            times: Mutex::new(Times {
                max_timestamp: entry.max_timestamp,
                max_timestamp_base: entry.max_timestamp_base,
                first_append_ms: entry.first_append_ms,
                last_append_ms: entry.last_append_ms,
            }),
            growing: Mutex::new(None),
            sealed: AtomicBool::new(sealed),
            sparse: AtomicBool::new(false),
            labelling: Mutex::default(),
            horizon_ms: AtomicI64::new(NO_HORIZON),
            retired: AtomicBool::new(false),
            aborted: Mutex::default(),
        }
    }

    pub(crate) fn entry(&self) -> SegmentEntry {
        let times = self.times();
        SegmentEntry {
            base: self.base.get(),
            bytes: self.written(),
            max_timestamp: times.max_timestamp,
            max_timestamp_base: times.max_timestamp_base,
            last_append_ms: times.last_append_ms,
            first_append_ms: times.first_append_ms,
        }
    }

    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    pub(crate) const fn base(&self) -> Offset {
        self.base
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(crate) fn times(&self) -> Times {
        *self.times.lock()
    }

    /// Notes the plan to append a batch now: times count from here, not from the lazy write.
    pub(crate) fn note_append(&self, now_ms: i64) {
        let mut times = self.times.lock();
        times.last_append_ms = times.last_append_ms.max(now_ms);
    }

    /// Whether it is wholly written, and will not grow any more.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    pub(crate) fn set_sealed(&self, sealed: bool) {
        self.sealed.store(sealed, Ordering::Release);
    }

    /// Whether compaction has left holes between its offsets.
    pub(crate) fn is_sparse(&self) -> bool {
        self.sparse.load(Ordering::Acquire)
    }

    /// Compaction has replaced it: holes between its offsets are legal from here on.
    pub(crate) fn set_sparse(&self) {
        self.sparse.store(true, Ordering::Release);
    }

    /// As if compaction had left so many bytes.
    #[cfg(test)]
    pub(crate) fn shrink_for_test(&self, bytes: u64) {
        self.written.store(bytes, Ordering::Release);
        self.growing.lock().take();
    }

    /// When all tombstones that compaction has met here may go, on the log clock; 0 when some wait for a trusted clock.
    pub(crate) fn horizon_ms(&self) -> Option<i64> {
        Some(self.horizon_ms.load(Ordering::Acquire)).filter(|ms| *ms != NO_HORIZON)
    }

    pub(crate) fn set_horizon(&self, horizon_ms: Option<i64>) {
        self.horizon_ms.store(horizon_ms.unwrap_or(NO_HORIZON), Ordering::Release);
    }

    /// Whether another segment has taken its name, or will.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Lets no hint of it be written from here on: another segment takes its name.
    pub(crate) fn retire(&self) {
        // Whoever writes one now ends first.
        let _labels = self.labelling.lock();
        let _indexes = self.growing.lock();
        self.retired.store(true, Ordering::Release);
    }

    /// Notes batches that were written at the end of the file: (base, last, max timestamp, bytes) each.
    pub(crate) fn note_written(&self, batches: &[(Offset, Offset, i64, usize)]) {
        let mut at = self.written();
        // A reader that makes the indexes, over the whole file, must not hold up commits: what is not noted here is found
        // missing, and made up for, by who looks next.
        let mut growing = self.growing.try_lock();
        let growing = growing.as_deref_mut().and_then(Option::as_mut);
        let mut growing = growing.filter(|growing| growing.covered == at);
        let mut times = self.times.lock();
        for (base, last, max_timestamp, bytes) in batches {
            if let Some(growing) = &mut growing {
                growing.note(last.get() - self.base.get(), *max_timestamp, at, *bytes);
            }
            if *max_timestamp > times.max_timestamp {
                times.max_timestamp = *max_timestamp;
                times.max_timestamp_base = base.get();
            }
            at += *bytes as u64;
        }
        self.written.store(at, Ordering::Release);
    }
}

/// Removes what was derived from a log that is cut or replaced.
pub(crate) fn remove_hints(disk: &dyn Disk, folder: &Path, base: Offset) -> io::Result<()> {
    for extension in HINTS {
        match disk.remove_file(&path(folder, base, extension)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Path of a segment's file.
pub(crate) fn path(folder: &Path, base: Offset, extension: &str) -> PathBuf {
    folder.join(format!("{:020}.{extension}", base.get()))
}
