//! Large appends, one after another, each waited for: what a connector that loads a file does.
//!
//! Neighbours: `commit` has small ones.

use super::Bench;
use super::measure::{Bare, cpu_ns, device_bytes, now_ns};
use super::place::{Place, is_synced, record};
use super::table::{Aim, Cell, Column, Report};
use std::collections::VecDeque;
use std::time::Duration;

const COLUMNS: &[Column] = &[
    ("append_bytes", " append B"),
    ("in_flight", "in flight"),
    ("bare_mb_per_second", "bare MB/s"),
    ("mb_per_second", "  MB/s"),
    ("part", "part of bare"),
    ("cpu_ms_per_mb", "cpu ms/MB"),
    ("device_per_byte", "device/byte"),
];
const PAUSE: Duration = Duration::from_micros(50);

/// Fills the table.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    report.table(
        "stream",
        "large appends to one partition, threads running; the bare disk writes and syncs as much, by turns of a fifth of a second",
        COLUMNS,
    );
    let one = line(bench, report, 1 << 20, 1)?;
    let bulk = line(bench, report, 1 << 20, 16)?;
    report.aim("appends of 1 MiB one at a time, part of the bare disk", one, Aim::AtLeast(0.35));
    report.aim("appends of 1 MiB, 16 waiting, part of the bare disk", bulk, Aim::AtLeast(0.75));
    Ok(())
}

fn line(bench: &Bench, report: &mut Report, bytes: usize, in_flight: usize) -> anyhow::Result<f64> {
    let place = Place::new(&bench.root, "stream", 1)?;
    let mut bare = Bare::new(&place.dir().join("bare"), bytes)?;
    let running = place.log.start();
    let partition = &place.topic.partitions()[0];
    let value = vec![7; bytes];
    let mut waiting = VecDeque::new();
    let (mut ours, mut ours_ns, mut ours_cpu, mut bares) = (0u64, 0, 0, Vec::new());
    let before = place.log.stats();
    let mut device = 0;
    let start = now_ns();
    while now_ns() - start < 3 * bench.line_ns {
        let (begin, begin_cpu) = (now_ns(), cpu_ns());
        let device_before = device_bytes(&bench.root).unwrap_or(0);
        while now_ns() - begin < 200_000_000 {
            match partition.append(&[record(&value)]) {
                Ok(appended) => {
                    ours += 1;
                    waiting.push_back(appended);
                }
                Err(headwater_log::AppendError::Busy) => std::thread::sleep(PAUSE),
                Err(error) => return Err(error.into()),
            }
            drain(partition, &mut waiting, in_flight - 1)?;
        }
        drain(partition, &mut waiting, 0)?;
        ours_ns += now_ns() - begin;
        ours_cpu += cpu_ns() - begin_cpu;
        device += device_bytes(&bench.root).unwrap_or(0) - device_before;
        let begin = now_ns();
        while now_ns() - begin < 200_000_000 {
            bares.push(bare.write()?);
        }
    }
    let total = ours as f64 * bytes as f64;
    anyhow::ensure!(place.log.stats().cycles > before.cycles, "something was committed");
    let rate = total / ours_ns as f64 * 1e3;
    let bare_ns: u64 = bares.iter().sum();
    let bare_rate = bares.len() as f64 * bytes as f64 / bare_ns as f64 * 1e3;
    report.row(&[
        Cell::Count(bytes as u64),
        Cell::Count(in_flight as u64),
        Cell::Number(bare_rate, 0),
        Cell::Number(rate, 0),
        Cell::Number(rate / bare_rate, 2),
        Cell::Number(ours_cpu as f64 / total, 2),
        Cell::Number(device as f64 / total, 2),
    ]);
    running.close().map_err(anyhow::Error::msg)?;
    Ok(rate / bare_rate)
}

fn drain(
    partition: &headwater_log::Partition,
    waiting: &mut VecDeque<headwater_log::Appended>,
    keep: usize,
) -> anyhow::Result<()> {
    while waiting.len() > keep {
        let Some(appended) = waiting.front() else { break };
        if is_synced(partition, appended)? {
            waiting.pop_front();
        } else {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}
