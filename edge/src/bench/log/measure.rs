//! Clocks and counters of this process, and the bare file that everything is held against.
//!
//! Invariant: reading a counter changes none of the others measurably. Neighbours: every table.

use headwater_log::clock::{Clock, SystemClock};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Monotonic nanoseconds.
pub(super) fn now_ns() -> u64 {
    SystemClock.monotonic_ns()
}

/// CPU time of this process, all threads, user and system.
pub(super) fn cpu_ns() -> u64 {
    super::super::child::own_cpu().as_nanos() as u64
}

/// Bytes that the block device below this folder was given to write, by everybody. `None` where there is no single one.
///
/// What the kernel counts for the process (/proc/self/io) says nothing here: where it keeps files in large pages, up to 2 MiB,
/// it counts a whole one for each write of 4 KiB, of which only the 4 KiB go to the device.
pub(super) fn device_bytes(folder: &Path) -> Option<u64> {
    let device = std::fs::metadata(folder).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    // Documentation/block/stat.rst: the seventh field is sectors written, of 512 bytes whatever the device.
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

/// Anonymous memory of this process: its heap and stacks; mapped files are the kernel's.
pub(super) fn anonymous_bytes() -> Option<u64> {
    field("/proc/self/smaps_rollup", "Anonymous:").map(|kib| kib * 1024)
}

/// How far the resident memory of this process rises from a moment on.
#[derive(Debug)]
pub(super) struct PeakMemory {
    before_bytes: u64,
}

impl PeakMemory {
    /// From now on.
    pub(super) fn begin() -> Self {
        // proc(5): 5 sets the peak back to what there is now. Where that is not allowed the peak of the whole run is told.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { before_bytes: resident("VmRSS:") }
    }

    /// The rise until now, in bytes.
    pub(super) fn end(&self) -> u64 {
        resident("VmHWM:").saturating_sub(self.before_bytes)
    }
}

fn resident(name: &str) -> u64 {
    field("/proc/self/status", name).map_or(0, |kib| kib * 1024)
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Nanoseconds of single runs, sorted.
#[derive(Debug)]
pub(super) struct Times(Vec<u64>);

impl Times {
    pub(super) fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Microseconds at this quantile; 0 where nothing was measured.
    pub(super) fn us(&self, quantile: f64) -> f64 {
        let at = (self.0.len() as f64 * quantile) as usize;
        self.0.get(at.min(self.0.len().saturating_sub(1))).map_or(0.0, |ns| *ns as f64 / 1e3)
    }

    pub(super) fn median_us(&self) -> f64 {
        self.us(0.5)
    }
}

/// A file as the journal's are: written once with zeros, then over and over, a sync after each write.
#[derive(Debug)]
pub(super) struct Bare {
    file: File,
    block: Vec<u8>,
    at: u64,
    size_bytes: u64,
}

impl Bare {
    /// For writes of so many bytes, padded to 4 KiB as the journal's are.
    pub(super) fn new(path: &Path, write_bytes: usize) -> io::Result<Self> {
        let block = vec![5; write_bytes.next_multiple_of(4096)];
        let size_bytes = (2 * block.len() as u64).max(32 << 20);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < size_bytes {
            file.write_all_at(&zeros, at)?;
            at += zeros.len() as u64;
        }
        file.sync_all()?;
        Ok(Self { file, block, at: 0, size_bytes })
    }

    /// Writes and syncs once; how long it took, in nanoseconds.
    pub(super) fn write(&mut self) -> io::Result<u64> {
        let begin = now_ns();
        self.file.write_all_at(&self.block, self.at)?;
        self.file.sync_data()?;
        let took = now_ns() - begin;
        let next = self.at + self.block.len() as u64;
        self.at = if next + self.block.len() as u64 > self.size_bytes { 0 } else { next };
        Ok(took)
    }
}
