//! Bytes written to the device per acknowledged byte of records: what a flash card is worn by.
//!
//! A small commit costs a block of the journal, 4 KiB, whatever it holds; so wear depends on how many records share a commit,
//! which is to say on the rate, and on `commit_delay`. Every record is written twice: to the journal, then to its segment.
//! Neighbours: `commit` has the times.

use super::Bench;
use super::measure::{device_bytes, now_ns};
use super::place::{Place, is_synced, record};
use super::table::{Cell, Column, Report};
use headwater_log::AppendError;
use std::time::Duration;

const COLUMNS: &[Column] = &[
    ("record_bytes", "record B"),
    ("records_per_second", "records/s"),
    ("commit_delay_ms", "delay ms"),
    ("partitions", "partitions"),
    ("commits_per_second", "commits/s"),
    ("journal_per_byte", "journal/byte"),
    ("device_per_byte", "device/byte"),
    ("gb_per_day", "GB/day"),
];
/// Enough to make all files of the ring, which is done once in a directory's life.
const WARM_UP_APPENDS: usize = 60;

#[derive(Debug, Clone, Copy)]
struct Load {
    bytes: usize,
    /// Records per second; `None` for as many as go.
    rate: Option<u64>,
    delay_ms: u64,
    partitions: u32,
}

/// Fills the table.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    report.table(
        "wear",
        "bytes written per acknowledged byte of records: by the journal, and to the device (by everybody: nothing else should write)",
        COLUMNS,
    );
    let load = |bytes, rate, delay_ms, partitions| Load { bytes, rate, delay_ms, partitions };
    for load in [
        load(100, Some(10), 0, 1),
        load(100, Some(100), 0, 1),
        load(100, Some(1_000), 0, 1),
        load(100, Some(1_000), 50, 1),
        load(100, Some(1_000), 50, 64),
        load(1 << 10, Some(1_000), 0, 1),
        load(1 << 10, Some(1_000), 50, 64),
        load(64 << 10, Some(100), 0, 1),
        load(100, None, 0, 1),
        load(1 << 10, None, 0, 64),
        load(64 << 10, None, 0, 64),
    ] {
        line(bench, report, load)?;
    }
    Ok(())
}

fn line(bench: &Bench, report: &mut Report, load: Load) -> anyhow::Result<()> {
    let place = Place::with(&bench.root, "wear", load.partitions, |options| {
        options.commit_delay = Duration::from_millis(load.delay_ms);
    })?;
    let large = vec![7; 1 << 20];
    for _ in 0..WARM_UP_APPENDS {
        place.append_stepped(&place.topic.partitions()[0], &[record(&large)])?;
        place.commit()?;
        place.keep_up()?;
    }
    place.log.step_checkpoint().map_err(anyhow::Error::msg)?;
    let running = place.log.start();
    let value = vec![7; load.bytes];
    let (before, device_before) = (place.log.stats(), device_bytes(&bench.root));
    let (start, mut sent) = (now_ns(), 0u64);
    let mut last = None;
    let time_ns = 3 * bench.line_ns;
    while now_ns() - start < time_ns {
        let due = load.rate.map_or(u64::MAX, |rate| (now_ns() - start) * rate / 1_000_000_000 + 1);
        if sent >= due {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        let partition = &place.topic.partitions()[(sent % u64::from(load.partitions)) as usize];
        match partition.append(&[record(&value)]) {
            Ok(appended) => {
                sent += 1;
                last = Some((partition, appended));
            }
            Err(AppendError::Busy) => std::thread::sleep(Duration::from_micros(50)),
            Err(error) => return Err(error.into()),
        }
    }
    while let Some((partition, appended)) = &last
        && !is_synced(partition, appended)?
    {
        std::thread::sleep(Duration::from_micros(50));
    }
    let seconds = (now_ns() - start) as f64 / 1e9;
    let after = place.log.stats();
    running.close().map_err(anyhow::Error::msg)?;
    let acknowledged = (sent * load.bytes as u64) as f64;
    let journal = (after.journal_bytes - before.journal_bytes) as f64;
    let device =
        device_bytes(&bench.root).zip(device_before).map(|(after, before)| (after - before) as f64);
    report.row(&[
        Cell::Count(load.bytes as u64),
        Cell::Number(sent as f64 / seconds, 0),
        Cell::Count(load.delay_ms),
        Cell::Count(u64::from(load.partitions)),
        Cell::Number((after.cycles - before.cycles) as f64 / seconds, 0),
        Cell::Number(journal / acknowledged, 2),
        device.map_or(Cell::Missing, |d| Cell::Number(d / acknowledged, 2)),
        device.map_or(Cell::Missing, |d| Cell::Number(d / seconds * 86_400.0 / 1e9, 1)),
    ]);
    Ok(())
}
