//! One commit: a record in each of so many partitions, made durable, against a bare write and sync of as many bytes.
//!
//! The log is stepped on this thread, so that a commit is a commit and not a hand-off; checkpoints run between the commits and
//! are counted on their own. Neighbours: `appenders` has the threads.

use super::Bench;
use super::measure::{Bare, Times, cpu_ns, now_ns};
use super::place::{Place, is_synced, record};
use super::table::{Aim, Cell, Column, Report};

const COLUMNS: &[Column] = &[
    ("record_bytes", "record B"),
    ("partitions", "partitions"),
    ("of_partitions", "    of"),
    ("directories", "dirs"),
    ("bare_us", " bare us"),
    ("bare_us_p99", "     p99"),
    ("commit_us", "commit us"),
    ("commit_us_p99", "      p99"),
    ("ratio", "ratio"),
    ("cpu_us", "  cpu us"),
    ("bare_cpu_us", "bare cpu"),
    ("checkpoint_ms", "checkpt ms"),
    ("commits_per_second", "commits/s"),
    ("mb_per_second", " MB/s"),
];

/// Fewer runs than this say nothing.
const RUNS_MIN: usize = 5;

#[derive(Debug, Clone, Copy)]
struct Load {
    bytes: usize,
    /// Those that are written to, of how many there are.
    partitions: usize,
    of: u32,
    /// Data directories, all on the one disk: what a second journal and sync cost, not what a second disk gives.
    directories: usize,
}

struct Line {
    ratio: f64,
    commit_us: f64,
}

/// Fills the table.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    report.table(
        "commit",
        "one commit: a record in each partition, then write and sync; medians; checkpoints apart, but within commits/s",
        COLUMNS,
    );
    let mut small = Vec::new();
    for bytes in [100, 1 << 10, 64 << 10] {
        let mut of_size = Vec::new();
        for (partitions, of, directories) in
            [(1, 1, 1), (64, 64, 1), (1_000, 1_000, 1), (1_000, 10_000, 1), (64, 64, 2)]
        {
            of_size.push(line(bench, report, Load { bytes, partitions, of, directories })?);
        }
        small.push((bytes, of_size));
    }
    for (bytes, lines) in &small {
        let [one, many, ..] = &lines[..] else { continue };
        let what = format!("commit of {bytes} B in 1 partition, times the bare disk");
        report.aim(&what, one.ratio, Aim::AtMost(1.5));
        if *bytes <= 1 << 10 {
            let what = format!("commit of {bytes} B in each of 64 partitions, times one in 1");
            report.aim(&what, many.commit_us / one.commit_us, Aim::AtMost(2.0));
        }
    }
    Ok(())
}

fn line(bench: &Bench, report: &mut Report, load: Load) -> anyhow::Result<Line> {
    let Load { bytes, partitions, of, directories } = load;
    let place = Place::with(&bench.root, "commit", of, |options| {
        let first = options.dirs[0].clone();
        options.dirs = (0..directories).map(|n| first.join(format!("dir-{n}"))).collect();
    })?;
    let total = bytes * partitions;
    let mut bare = Bare::new(&place.dir().join("bare"), total)?;
    let value = vec![7; bytes];
    // Spread over all there are, as real ones would be.
    let every = of as usize / partitions;
    let active: Vec<_> = place.topic.partitions().iter().step_by(every).take(partitions).collect();
    let commit = || -> anyhow::Result<()> {
        let mut last = None;
        for partition in &active {
            last = Some((partition, place.append_stepped(partition, &[record(&value)])?));
        }
        place.commit()?;
        if let Some((partition, appended)) = last {
            anyhow::ensure!(is_synced(partition, &appended)?, "a commit that is not synced");
        }
        Ok(())
    };
    // The first makes files.
    commit()?;
    place.keep_up()?;
    let (mut ours, mut bares, mut checkpoints) = (vec![], vec![], vec![]);
    let (mut cpu, mut bare_cpu) = (0, 0);
    let start = now_ns();
    while now_ns() - start < bench.line_ns || ours.len() < RUNS_MIN {
        let (begin, begin_cpu) = (now_ns(), cpu_ns());
        commit()?;
        ours.push(now_ns() - begin);
        let middle_cpu = cpu_ns();
        cpu += middle_cpu - begin_cpu;
        bares.push(bare.write()?);
        bare_cpu += cpu_ns() - middle_cpu;
        let begin = now_ns();
        if place.keep_up()? {
            checkpoints.push(now_ns() - begin);
        }
    }
    let n = ours.len() as f64;
    let all_ns = (ours.iter().sum::<u64>() + checkpoints.iter().sum::<u64>()) as f64;
    let per_second = n / all_ns * 1e9;
    let (ours, bares, checkpoints) = (Times::of(ours), Times::of(bares), Times::of(checkpoints));
    let ratio = ours.median_us() / bares.median_us();
    report.row(&[
        Cell::Count(bytes as u64),
        Cell::Count(partitions as u64),
        Cell::Count(u64::from(of)),
        Cell::Count(directories as u64),
        Cell::Number(bares.median_us(), 0),
        Cell::Number(bares.us(0.99), 0),
        Cell::Number(ours.median_us(), 0),
        Cell::Number(ours.us(0.99), 0),
        Cell::Number(ratio, 2),
        Cell::Number(cpu as f64 / n / 1e3, 1),
        Cell::Number(bare_cpu as f64 / n / 1e3, 1),
        Cell::Number(checkpoints.median_us() / 1e3, 1),
        Cell::Number(per_second, 0),
        Cell::Number(per_second * total as f64 / 1e6, 1),
    ]);
    Ok(Line { ratio, commit_us: ours.median_us() })
}
