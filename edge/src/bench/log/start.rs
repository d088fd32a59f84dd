//! What many partitions cost that nobody writes to, and how long a start takes after a crash and after an orderly end.
//!
//! A crash here is a log that is dropped with its ring full: what a killed process leaves, which is the same to the disk.
//! Invariant: what is timed is [`headwater_log::Log::open`] alone, whose [`Recovery`] says where the time went.
//! Neighbours: `commit` has partitions that are written to; `headwater selftest --crash` kills real processes.

use super::Bench;
use super::measure::{PeakMemory, anonymous_bytes, cpu_ns};
use super::place::{Home, Place, append_stepped, commit, open, options, record};
use super::table::{Aim, Cell, Column, Report};
use anyhow::Context;
use headwater_log::{Log, Recovery};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

const IDLE_PARTITIONS: u32 = 10_000;
const CRASH_PARTITIONS: u32 = 1_000;
const PARTITIONS_PER_COMMIT: usize = 100;
/// Of the ring, how much is in use at the crash.
const RING_PART: f64 = 0.9;

const IDLE_COLUMNS: &[Column] =
    &[("partitions", "partitions"), ("state", "                  state"), ("bytes", "bytes each")];
const START_COLUMNS: &[Column] = &[
    ("log_mib", "log MiB"),
    ("partitions", "partitions"),
    ("before", "                       before"),
    ("files", "files"),
    ("replayed_mib", "replayed MiB"),
    ("cycles", "cycles"),
    ("ms", "median ms"),
    ("ms_max", "slowest"),
    ("catalog_ms", "catalog"),
    ("ring_ms", "ring"),
    ("replay_ms", "replay"),
    ("sync_ms", "sync"),
    ("cpu_ms", "CPU ms"),
    ("peak_mib", "peak MiB"),
];

/// Starts of each kind that are timed.
const RUNS: usize = 5;

/// How the process before ended, and what the kernel still knows of the files.
struct Kind {
    /// The ring is full of records of this size; an orderly end if there is none.
    crash: Option<usize>,
    cold: bool,
}

const CRASH_LARGE: Kind = Kind { crash: Some(64 << 10), cold: true };
const CRASH_SMALL: Kind = Kind { crash: Some(100), cold: true };

/// One start.
struct Run {
    recovery: Recovery,
    cpu_ns: u64,
    peak_bytes: u64,
}

/// Memory per idle partition.
pub(super) fn idle(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    report.table("idle", "anonymous memory per partition", IDLE_COLUMNS);
    let Some(before) = anonymous_bytes() else { return Ok(()) };
    let place = Place::with(&bench.root, "idle", IDLE_PARTITIONS, |options| {
        options.tail_bytes_max = 0;
    })?;
    let mut row = |state: &str| -> anyhow::Result<f64> {
        let now = anonymous_bytes().context("/proc/self/smaps_rollup")?;
        let each = now.saturating_sub(before) as f64 / f64::from(IDLE_PARTITIONS);
        report.row(&[
            Cell::Count(u64::from(IDLE_PARTITIONS)),
            Cell::Text(state.to_owned()),
            Cell::Number(each, 0),
        ]);
        Ok(each)
    };
    row("never written")?;
    let value = [7; 100];
    // Not all in one commit: what that takes for a moment would stay with the allocator, and count here for ever.
    for some in place.topic.partitions().chunks(PARTITIONS_PER_COMMIT) {
        for partition in some {
            place.append_stepped(partition, &[record(&value)])?;
        }
        place.commit()?;
    }
    place.log.step_checkpoint().map_err(anyhow::Error::msg)?;
    let each = row("written once")?;
    report.aim("bytes of memory per idle partition", each, Aim::AtMost(2_048.0));
    Ok(())
}

/// Starts with the ring full, and after an orderly end.
pub(super) fn starts(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    report.table("start", "starts: median and slowest of 5, parts of the median", START_COLUMNS);
    for kind in [CRASH_SMALL, CRASH_LARGE] {
        let place = Place::new(&bench.root, "start", 1)?;
        let written = fill(&place.log, 64 << 10, 64 << 20)?;
        lines(bench, report, place.crash(), written, &[kind])?;
    }
    let place = Place::new(&bench.root, "start", CRASH_PARTITIONS)?;
    let written = fill(&place.log, 64 << 10, bench.log_gib << 30)?;
    let warm = Kind { cold: false, ..CRASH_LARGE };
    let orderly = Kind { crash: None, cold: true };
    let kinds = [CRASH_LARGE, warm, CRASH_SMALL, orderly];
    let slowest = lines(bench, report, place.crash(), written, &kinds)?;
    let what = format!("seconds to start with {} GiB in 1,000 partitions", bench.log_gib);
    report.aim(&what, slowest.as_secs_f64(), Aim::AtMost(2.0));
    Ok(())
}

/// Starts of some kinds with the log in `home`; the time of the slowest.
fn lines(
    bench: &Bench,
    report: &mut Report,
    home: Home,
    log_bytes: u64,
    kinds: &[Kind],
) -> anyhow::Result<Duration> {
    let mut slowest = Duration::ZERO;
    let (mut log, _) = open(options(&home.0))?;
    for kind in kinds {
        let mut runs = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            match kind.crash {
                Some(bytes) => fill_ring(&log, bytes)?,
                None => log.start().close().map_err(anyhow::Error::msg)?,
            }
            drop(log);
            if kind.cold {
                forget_pages(&home.0)?;
                bench.forget_all()?;
            }
            let (peak, cpu) = (PeakMemory::begin(), cpu_ns());
            let (opened, recovery) = open(options(&home.0))?;
            runs.push(Run { recovery, cpu_ns: cpu_ns() - cpu, peak_bytes: peak.end() });
            log = opened;
        }
        runs.sort_by_key(|run| run.recovery.took);
        slowest = slowest.max(runs[RUNS - 1].recovery.took);
        report.row(&cells(log_bytes, kind, &runs));
    }
    Ok(slowest)
}

fn cells(log_bytes: u64, kind: &Kind, runs: &[Run]) -> Vec<Cell> {
    let median = &runs[runs.len() / 2];
    let recovery = &median.recovery;
    let before = match kind.crash {
        Some(bytes) => format!("crash, {bytes} B records"),
        None => "orderly end".to_owned(),
    };
    let ms = |time: Duration| Cell::Number(time.as_secs_f64() * 1e3, 0);
    vec![
        Cell::Count(log_bytes >> 20),
        Cell::Count(u64::from(recovery.partitions)),
        Cell::Text(before),
        Cell::Text(if kind.cold { "cold" } else { "warm" }.to_owned()),
        Cell::Count(recovery.bytes_replayed >> 20),
        Cell::Count(recovery.cycles_replayed),
        ms(recovery.took),
        ms(runs[runs.len() - 1].recovery.took),
        ms(recovery.parts.catalog),
        ms(recovery.parts.ring),
        ms(recovery.parts.replay),
        ms(recovery.parts.sync),
        ms(Duration::from_nanos(median.cpu_ns)),
        Cell::Count(median.peak_bytes >> 20),
    ]
}

/// Appends so many bytes to the topic's partitions in turn, with checkpoints; what was written.
fn fill(log: &Log, record_bytes: usize, bytes: u64) -> anyhow::Result<u64> {
    let mut written = 0;
    rounds(log, record_bytes, |round, used| {
        written += round;
        if used > 0.5 {
            log.step_checkpoint().map_err(anyhow::Error::msg)?;
        }
        Ok(written < bytes)
    })?;
    Ok(written)
}

/// Appends until the ring is nearly full.
fn fill_ring(log: &Log, record_bytes: usize) -> anyhow::Result<()> {
    rounds(log, record_bytes, |_, used| Ok(used < RING_PART))
}

/// Rounds of about a cycle each over the partitions, for as long as `more` says with the bytes of a round and the used part of
/// the ring.
fn rounds(
    log: &Log,
    record_bytes: usize,
    mut more: impl FnMut(u64, f64) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let topic = log.topic("bench").context("the topic")?;
    let value = vec![7; record_bytes];
    // With many partitions a record each: as many batches as there can be.
    let many = topic.partitions().len() > 1;
    let per_round =
        ((1 << 20) / record_bytes).min(if many { topic.partitions().len() } else { usize::MAX });
    let mut turn = 0;
    loop {
        for _ in 0..per_round {
            let partition = &topic.partitions()[turn % topic.partitions().len()];
            append_stepped(log, partition, &[record(&value)])?;
            turn += 1;
        }
        commit(log)?;
        log.step_upkeep();
        let stats = log.stats();
        let used = stats.journal_used_bytes as f64 / stats.journal_size_bytes as f64;
        if !more((per_round * record_bytes) as u64, used)? {
            return Ok(());
        }
    }
}

/// Writes back what is dirty and asks the kernel to forget the files' pages, so that a start reads from the disk.
fn forget_pages(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget_pages(&entry.path())?;
            continue;
        }
        let file = File::open(entry.path())?;
        file.sync_data()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}
