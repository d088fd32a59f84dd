//! Records per second: one appender, the log's own threads, a bounded number unacknowledged. And the encoding alone.
//!
//! Neighbours: `commit` has a commit on its own.

use super::Bench;
use super::measure::{cpu_ns, now_ns};
use super::place::{Place, is_synced, record};
use super::table::{Cell, Column, Report};
use headwater_log::batch::{BatchBuilder, Seal};
use headwater_log::{AppendError, Appended, LeaderEpoch, Offset};
use std::collections::VecDeque;
use std::time::Duration;

/// Records that may be unacknowledged.
const WINDOW: usize = 20_000;
/// Records of one batch, where the encoding is measured alone.
const BATCH_RECORDS: u32 = 256;
/// How long an appender waits before it looks again.
const PAUSE: Duration = Duration::from_micros(50);

/// Fills both tables.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    encoding(bench, report)?;
    report.table(
        "appenders",
        "threads running, one appender, at most 20,000 records unacknowledged",
        &[
            ("record_bytes", "record B"),
            ("partitions", "partitions"),
            ("per_append", "per append"),
            ("records_per_second", "records/s"),
            ("mb_per_second", "  MB/s"),
            ("records_per_commit", "per commit"),
            ("cpu_ns", "cpu ns/record"),
        ],
    );
    for (bytes, per_append) in [(100, 1), (100, 32), (1 << 10, 1), (1 << 10, 32), (64 << 10, 1)] {
        for partitions in [1, 64, 1_000] {
            line(bench, report, bytes, per_append, partitions)?;
        }
    }
    Ok(())
}

fn encoding(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let columns: &[Column] = &[
        ("record_bytes", "record B"),
        ("push_ns", "push ns"),
        ("seal_ns", "seal ns"),
        ("gb_per_second", " GB/s"),
    ];
    report.table(
        "encoding",
        "encoding a record into the open batch, and its part of the seal (header, CRC); CPU time",
        columns,
    );
    for bytes in [64, 256, 1_024] {
        let value = vec![7; bytes];
        let mut builder = BatchBuilder::new();
        let (mut push, mut seal, mut size) = (0, 0, 0);
        let mut batches = 0u64;
        let start = now_ns();
        while now_ns() - start < bench.line_ns / 4 {
            let begin = cpu_ns();
            for _ in 0..BATCH_RECORDS {
                let pushed = builder.push(&record(&value), 1 << 20);
                anyhow::ensure!(pushed.is_some(), "a batch of {BATCH_RECORDS} records fits");
            }
            let middle = cpu_ns();
            let (base_offset, epoch) = (Offset::ZERO, LeaderEpoch::default());
            let sealed = builder.seal(Seal { base_offset, epoch, node_slot: 0, base_sequence: 0 });
            size += std::hint::black_box(sealed).map_or(0, |batch| batch.len());
            (push, seal, batches) = (push + middle - begin, seal + cpu_ns() - middle, batches + 1);
        }
        let per = |ns: u64| ns as f64 / (batches * u64::from(BATCH_RECORDS)) as f64;
        report.row(&[
            Cell::Count(bytes as u64),
            Cell::Number(per(push), 1),
            Cell::Number(per(seal), 1),
            Cell::Number(size as f64 / (push + seal) as f64, 2),
        ]);
    }
    Ok(())
}

fn line(
    bench: &Bench,
    report: &mut Report,
    bytes: usize,
    per_append: usize,
    partitions: usize,
) -> anyhow::Result<()> {
    let place = Place::new(&bench.root, "appenders", partitions as u32)?;
    let running = place.log.start();
    let value = vec![7; bytes];
    let records = vec![record(&value); per_append];
    let mut waiting: VecDeque<(usize, Appended)> = VecDeque::new();
    let settle = |waiting: &mut VecDeque<(usize, Appended)>, keep: usize| {
        while waiting.len() * per_append > keep {
            let Some((partition, appended)) = waiting.front() else { break };
            if is_synced(&place.topic.partitions()[*partition], appended)? {
                waiting.pop_front();
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        anyhow::Ok(())
    };
    let (start, start_cpu, before) = (now_ns(), cpu_ns(), place.log.stats().cycles);
    let (mut messages, mut turn) = (0u64, 0usize);
    while now_ns() - start < bench.line_ns {
        let partition = turn % partitions;
        match place.topic.partitions()[partition].append(&records) {
            Ok(appended) => {
                turn += 1;
                messages += per_append as u64;
                waiting.push_back((partition, appended));
                settle(&mut waiting, WINDOW)?;
            }
            Err(AppendError::Busy) => std::thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    settle(&mut waiting, 0)?;
    let (ns, cpu) = ((now_ns() - start) as f64, (cpu_ns() - start_cpu) as f64);
    let cycles = (place.log.stats().cycles - before).max(1) as f64;
    let n = messages as f64;
    report.row(&[
        Cell::Count(bytes as u64),
        Cell::Count(partitions as u64),
        Cell::Count(per_append as u64),
        Cell::Number(n / ns * 1e9, 0),
        Cell::Number(n * bytes as f64 / ns * 1e3, 1),
        Cell::Number(n / cycles, 1),
        Cell::Number(cpu / n, 0),
    ]);
    running.close().map_err(anyhow::Error::msg)
}
