//! Segments: Kafka's files of one partition, `topics/<topic>-<partition>.<handle>/<20 digits>.log` and `.index`.
//!
//! A `.log` holds whole record batches back to back, exactly as Kafka writes them, so Kafka's own tools read it. An `.index`
//! holds, per 4 KiB and more of log, the last offset of a batch less the file's base (i32, big-endian) and the byte where that
//! batch begins (i32, big-endian). Indexes are never synced: a missing or wrong one is made again from the log.
//!
//! Invariant: a `.log` only grows while the process runs, and only with bytes that the journal has synced (`memory` topics:
//! with bytes whose loss is allowed); bytes below `written` never change, so they are read without a lock.
//! Neighbours: `partition` writes and reads, `recovery` cuts, `retention` removes.

pub(crate) mod files;
pub(crate) mod index;
pub(crate) mod read;
pub(crate) mod scan;

use crate::Offset;
use crate::catalog::SegmentEntry;
use index::{Index, IndexState};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// One segment. Shared by the writer and by readers.
#[derive(Debug)]
pub(crate) struct Segment {
    base: Offset,
    /// Bytes in the file (its page cache): what readers may read.
    written: AtomicU64,
    times: Mutex<Times>,
    pub(crate) index: Mutex<IndexState>,
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
            base,
            written: AtomicU64::new(0),
            times: Mutex::new(Times {
                max_timestamp: i64::MIN,
                max_timestamp_base: base.get(),
                first_append_ms: now_ms,
                last_append_ms: now_ms,
            }),
            index: Mutex::new(IndexState::Known(Index::default())),
        }
    }

    pub(crate) fn from_entry(entry: &SegmentEntry) -> Self {
        Self {
            base: Offset::new(entry.base).unwrap_or_default(),
            written: AtomicU64::new(entry.bytes),
            times: Mutex::new(Times {
                max_timestamp: entry.max_timestamp,
                max_timestamp_base: entry.max_timestamp_base,
                first_append_ms: entry.first_append_ms,
                last_append_ms: entry.last_append_ms,
            }),
            index: Mutex::new(IndexState::Unknown),
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

    /// Notes batches that were written at the end of the file: (base, last, max timestamp, bytes) each.
    pub(crate) fn note_written(&self, batches: &[(Offset, Offset, i64, usize)]) {
        // A reader that makes the index anew, over the whole file, must not hold up commits: the index is a hint, and these
        // batches are found from an entry before them.
        let mut index = self.index.try_lock();
        let mut times = self.times.lock();
        let mut at = self.written();
        for (base, last, max_timestamp, bytes) in batches {
            if let Some(IndexState::Known(index)) = index.as_deref_mut() {
                index.note(last.get() - self.base.get(), at, *bytes);
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

/// Path of a segment's file.
pub(crate) fn path(folder: &Path, base: Offset, extension: &str) -> PathBuf {
    folder.join(format!("{:020}.{extension}", base.get()))
}
