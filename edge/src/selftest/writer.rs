//! The writer: appends to all partitions and says what is durable, until it is killed or the power goes.
//!
//! Invariant: a line is printed only after the log has said that its records are synced.

use super::account::{self, value};
use super::folder::Own;
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{AckPoint, Log, Partition, Position, Settled};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Records of one append at most.
const RECORDS_MAX: u64 = 20;
/// Threads that append.
const THREADS: usize = 4;

/// Writes for ever: it ends with its reader, or by force.
pub(super) fn run(parent: &Path, partitions: u32) -> anyhow::Result<()> {
    let folder = Own::resume(parent)?;
    let (log, topic, _) = account::open(&folder.log(), partitions)?;
    let _running = log.start();
    let all = topic.partitions();
    let mut line = std::io::stdout();
    writeln!(line, "open {}", all.len())?;
    line.flush()?;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mine: Vec<_> =
                all.iter().enumerate().filter(|(i, _)| i % THREADS == thread).collect();
            let log = &log;
            scope.spawn(move || {
                if let Err(error) = write(log, &mine, thread) {
                    eprintln!("error: {error:#}");
                    std::process::exit(1);
                }
            });
        }
    });
    Ok(())
}

fn write(log: &Log, mine: &[(usize, &Arc<Partition>)], thread: usize) -> anyhow::Result<()> {
    let mut random = account::Random(u64::from(std::process::id()) << 8 | thread as u64);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut moved = log.moved();
    let mut values = Vec::new();
    loop {
        let mut waiting: Vec<(usize, Position)> = Vec::with_capacity(mine.len());
        for (index, (number, partition)) in mine.iter().enumerate() {
            // Not all in each round: commits of all sizes.
            if random.next().is_multiple_of(4) {
                continue;
            }
            let count = 1 + random.next() % RECORDS_MAX;
            let first = partition.positions().log_end.get();
            values.resize(count as usize, Vec::new());
            for (i, bytes) in values.iter_mut().enumerate() {
                value(*number as u32, first + i as i64, bytes);
            }
            let records: Vec<RecordParts<'_>> = values
                .iter()
                .map(|value| RecordParts {
                    timestamp_ms: log.clock().wall_ms(),
                    key: None,
                    value: Some(value),
                    headers: Headers::EMPTY,
                })
                .collect();
            let appended = partition.append(&records)?;
            anyhow::ensure!(appended.base.offset.get() == first, "offsets are not continuous");
            waiting.push((index, appended.last));
        }
        let mut lines = String::new();
        for (index, position) in waiting {
            let (number, partition) = mine[index];
            loop {
                moved.mark_unchanged();
                match partition.settled(AckPoint::Synced, position) {
                    Settled::Passed => break,
                    Settled::Waiting => runtime.block_on(moved.changed())?,
                    Settled::Lost(why) => anyhow::bail!("partition {number}: {why:?}"),
                }
            }
            lines += &format!("durable {number} {}\n", position.offset.get() + 1);
        }
        let mut out = std::io::stdout().lock();
        out.write_all(lines.as_bytes())?;
        out.flush()?;
    }
}
