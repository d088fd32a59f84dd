//! Compaction at full speed: how many bytes of log a second it goes over, by how much of the log is still wanted.
//!
//! A node compacts at `compaction_bytes_per_second`, in the background; this is what it could do.
//! Neighbours: `read` reads without choosing.

use super::Bench;
use super::measure::{cpu_ns, now_ns};
use super::place::{Place, record, settings};
use super::table::{Cell, Column, Report};
use anyhow::Context;
use headwater_log::metadata::{Cleanup, TopicSettings};
use headwater_log::record::RecordParts;
use headwater_log::{Topic, TopicName};

const COLUMNS: &[Column] = &[
    ("record_bytes", "record B"),
    ("keys", "  keys"),
    ("mb_read", "MB read"),
    ("mb_written", "MB written"),
    ("mb_per_second", "MB/s read"),
    ("cpu_ms_per_mb", "cpu ms/MB"),
];
/// Log that is compacted.
const LOG_BYTES: usize = 128 << 20;

/// Fills the table.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    report.table(
        "compact",
        "compaction of one partition, at full speed, from the page cache",
        COLUMNS,
    );
    for (bytes, keys) in [(100, 1_000), (1 << 10, 1_000), (1 << 10, 100_000)] {
        line(bench, report, bytes, keys)?;
    }
    Ok(())
}

fn topic(place: &Place) -> anyhow::Result<Topic> {
    let settings = TopicSettings {
        cleanup: Cleanup::Compact,
        segment_bytes: 16 << 20,
        compaction_lag_ms_min: 0,
        dirty_ratio_permille: 1,
        ..settings()
    };
    let name = TopicName::new("compacted").context("a topic's name")?;
    Ok(place.log.create_topic(&name, 1, settings).context("creating a topic")?.0)
}

fn line(bench: &Bench, report: &mut Report, bytes: usize, keys: u64) -> anyhow::Result<()> {
    let place = Place::with(&bench.root, "compact", 1, |options| options.tail_bytes_max = 0)?;
    let topic = topic(&place)?;
    let partition = &topic.partitions()[0];
    let value = vec![7; bytes];
    let (mut written, mut n) = (0, 0u64);
    while written < LOG_BYTES {
        // A batch of about a quarter of a MiB.
        for _ in 0..(256 << 10) / bytes {
            let key = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys).to_be_bytes();
            place
                .append_stepped(partition, &[RecordParts { key: Some(&key), ..record(&value) }])?;
            n += 1;
            written += bytes;
        }
        place.commit()?;
        place.keep_up()?;
    }
    // Only what lies below the persisted checkpoint is compacted.
    place.log.step_checkpoint().map_err(anyhow::Error::msg)?;
    let (begin, begin_cpu) = (now_ns(), cpu_ns());
    while place.log.step_compaction() {
        place.commit()?;
    }
    let (ns, cpu) = ((now_ns() - begin) as f64, (cpu_ns() - begin_cpu) as f64);
    let done = place.log.stats().compaction;
    anyhow::ensure!(done.read_bytes > 0, "nothing was compacted");
    report.row(&[
        Cell::Count(bytes as u64),
        Cell::Count(keys),
        Cell::Count(done.read_bytes / 1_000_000),
        Cell::Count(done.written_bytes / 1_000_000),
        Cell::Number(done.read_bytes as f64 / ns * 1e3, 0),
        Cell::Number(cpu / done.read_bytes as f64, 2),
    ]);
    Ok(())
}
