//! What many partitions cost that nobody writes to, and how long a start takes after a crash.
//!
//! A crash here is a log that is dropped with its ring full. The files' pages are dropped from the kernel's memory first, as far
//! as it lets them go. Neighbours: `commit` has partitions that are written to.

use super::Bench;
use super::measure::{anonymous_bytes, now_ns};
use super::place::{Place, open, options, record};
use super::table::{Aim, Cell, Column, Report};
use anyhow::Context;
use headwater_log::Recovery;
use std::fs::File;
use std::path::Path;

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
    ("replayed_mib", "replayed MiB"),
    ("cycles", "cycles"),
    ("seconds", "seconds"),
];

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

/// The start after a crash with the ring full.
pub(super) fn after_a_crash(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    report.table(
        "start",
        "start after a crash, the ring nearly full, files not in memory",
        START_COLUMNS,
    );
    line(bench, report, 1, 100, 64 << 20)?;
    line(bench, report, 1, 64 << 10, 64 << 20)?;
    let took = line(bench, report, CRASH_PARTITIONS, 64 << 10, bench.log_gib << 30)?;
    let what = format!("seconds to start with {} GiB in 1,000 partitions", bench.log_gib);
    report.aim(&what, took, Aim::AtMost(2.0));
    Ok(())
}

fn line(
    bench: &Bench,
    report: &mut Report,
    partitions: u32,
    bytes: usize,
    log_bytes: u64,
) -> anyhow::Result<f64> {
    let place = Place::new(&bench.root, "start", partitions)?;
    let value = vec![7; bytes];
    let mut written = 0;
    let mut turn = 0;
    // Rounds over the partitions of about a cycle each; the last ones without a checkpoint.
    let per_round = (1 << 20) / bytes;
    let mut filling = false;
    loop {
        for _ in 0..per_round {
            let partition = &place.topic.partitions()[turn % partitions as usize];
            place.append_stepped(partition, &[record(&value)])?;
            (turn, written) = (turn + 1, written + bytes as u64);
        }
        place.commit()?;
        place.log.step_upkeep();
        let stats = place.log.stats();
        let used = stats.journal_used_bytes as f64 / stats.journal_size_bytes as f64;
        filling |= written >= log_bytes;
        if filling && used > RING_PART {
            break;
        }
        if !filling && used > 0.5 {
            place.log.step_checkpoint().map_err(anyhow::Error::msg)?;
        }
    }
    let home = place.crash();
    forget_pages(&home.0)?;
    let begin = now_ns();
    let (log, recovery) = open(options(&home.0))?;
    let took = (now_ns() - begin) as f64 / 1e9;
    report_start(report, written, partitions, &recovery, took);
    drop(log);
    Ok(took)
}

fn report_start(
    report: &mut Report,
    written: u64,
    partitions: u32,
    recovery: &Recovery,
    took: f64,
) {
    report.row(&[
        Cell::Count(written >> 20),
        Cell::Count(u64::from(partitions)),
        Cell::Count(recovery.bytes_replayed >> 20),
        Cell::Count(recovery.cycles_replayed),
        Cell::Number(took, 3),
    ]);
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
