//! Reads from the page cache through the log's one reader, CRC checks included.
//!
//! Neighbours: `start` has reads by a start.

use super::Bench;
use super::measure::{cpu_ns, now_ns};
use super::place::{Place, record, settings};
use super::table::{Aim, Cell, Column, Report};
use anyhow::Context;
use headwater_log::metadata::TopicSettings;
use headwater_log::{Offset, ReadLimit, TopicName};

const COLUMNS: &[Column] = &[
    ("batch_bytes", "batch B"),
    ("read_bytes", " read B"),
    ("pass", "pass"),
    ("gb_per_second", " GB/s"),
    ("cpu_ms_per_gb", "cpu ms/GB"),
];
/// Log that is read, over and over.
const LOG_BYTES: usize = 128 << 20;

/// Fills the table.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    report.table("read", "reads of one partition from end to end, from the page cache", COLUMNS);
    let mut best = 0.0f64;
    for (batch, read) in [(4 << 10, 1 << 20), (64 << 10, 1 << 20), (1 << 20, 4 << 20)] {
        best = best.max(line(bench, report, batch, read)?);
    }
    report.aim("reads from the page cache, GB/s", best, Aim::AtLeast(2.0));
    Ok(())
}

fn line(bench: &Bench, report: &mut Report, batch: usize, read: usize) -> anyhow::Result<f64> {
    // Nothing is kept in memory: every read is one of a file.
    let place = Place::with(&bench.root, "read", 1, |options| options.tail_bytes_max = 0)?;
    // A batch has room for one of these records.
    let settings = TopicSettings { batch_bytes_max: batch as u32, ..settings() };
    let name = TopicName::new("read").context("a topic's name")?;
    let topic = place.log.create_topic(&name, 1, settings).context("creating a topic")?.0;
    let partition = &topic.partitions()[0];
    let value = vec![7; batch - 128];
    for n in 1..=LOG_BYTES / batch {
        place.append_stepped(partition, &[record(&value)])?;
        if (n * batch).is_multiple_of(4 << 20) {
            place.commit()?;
            place.keep_up()?;
        }
    }
    place.commit()?;
    place.log.step_checkpoint().map_err(anyhow::Error::msg)?;
    let mut best = 0.0;
    for pass in ["first", "next"] {
        let (mut bytes, start, start_cpu) = (0usize, now_ns(), cpu_ns());
        while bytes == 0 || (pass == "next" && now_ns() - start < bench.line_ns) {
            let mut from = Offset::ZERO;
            let end = partition.positions().high_watermark;
            while from < end {
                let outcome = partition.read(from, read, ReadLimit::HighWatermark)?;
                bytes += outcome.batches.iter().map(|b| b.len()).sum::<usize>();
                anyhow::ensure!(outcome.next > from, "a read below the end goes on");
                from = outcome.next;
            }
        }
        best = bytes as f64 / (now_ns() - start) as f64;
        report.row(&[
            Cell::Count(batch as u64),
            Cell::Count(read as u64),
            Cell::Text(pass.to_owned()),
            Cell::Number(best, 2),
            Cell::Number((cpu_ns() - start_cpu) as f64 / bytes as f64 * 1e3, 0),
        ]);
    }
    Ok(best)
}
