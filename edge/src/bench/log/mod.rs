//! `headwater bench log`: what durability costs on this disk, by turns with a bare file that is written and synced.
//!
//! Everything goes through the public API of the log, in this process, on the files of a folder that is removed afterwards.
//! Each figure of ours stands beside one of the disk itself taken in the same second, because a disk that others use, too,
//! swings by a factor of two: ratios and CPU time are what to compare, within one run.
//! Invariant: a figure counts only what the log says is synced.
//! Neighbours: one module per table; `measure` has the clocks and counters, `table` the output, `place` makes logs.

mod appenders;
mod commit;
mod compact;
mod measure;
mod place;
mod read;
mod start;
mod stream;
mod table;
mod wear;

use super::Output;
use crate::scratch;
use anyhow::Context;
use std::path::PathBuf;
use table::Report;

/// Options of `bench log`.
#[derive(Debug, clap::Args)]
pub(crate) struct LogBenchOptions {
    /// What to measure [default: all].
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// Where the files are made, and removed from afterwards [default: a temporary folder on a disk].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Time for each line of a table.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// GiB of log, in 1,000 partitions, that starts are measured with.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    log_gib: u64,
    /// With the starts: before one that is to find nothing in memory, have the kernel drop all that it caches, inodes and folders
    /// too (as root: it slows down the whole machine for a while). Without it only the pages of the log's own files go.
    #[arg(long)]
    drop_caches: bool,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// One commit, by record size and partitions.
    Commit,
    /// Records per second with the commit thread running, and the CPU time of one.
    Appenders,
    /// Large appends one after another, each synced.
    Stream,
    /// Bytes written to the device per acknowledged byte.
    Wear,
    /// Reads from the page cache.
    Read,
    /// Compaction at full speed.
    Compact,
    /// Memory of idle partitions.
    Idle,
    /// Starts, after a crash and after an orderly end.
    Start,
}

/// What a table's measurement needs to know.
#[derive(Debug)]
struct Bench {
    root: PathBuf,
    line_ns: u64,
    log_gib: u64,
    drop_caches: bool,
}

impl Bench {
    /// Makes the kernel forget what it caches, if that was asked for.
    fn forget_all(&self) -> anyhow::Result<()> {
        if self.drop_caches {
            // Documentation/admin-guide/sysctl/vm.rst: 3 is pages, folder entries and inodes.
            std::fs::write("/proc/sys/vm/drop_caches", "3").context("/proc/sys/vm/drop_caches")?;
        }
        Ok(())
    }
}

type Measure = fn(&Bench, &mut Report) -> anyhow::Result<()>;

/// Runs the benchmark and prints what it finds.
pub(super) fn run(options: &LogBenchOptions) -> anyhow::Result<()> {
    if let Some(parent) = &options.data_dir {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let folder = scratch::folder(options.data_dir.as_deref())?;
    let bench = Bench {
        root: folder.path().to_owned(),
        line_ns: options.seconds * 1_000_000_000,
        log_gib: options.log_gib,
        drop_caches: options.drop_caches,
    };
    let mut report = Report::new(options.output, &bench.root);
    let wanted = |section| options.sections.is_empty() || options.sections.contains(&section);
    // Idle partitions first: memory that other tables gave back would be taken again unseen.
    let all: [(Section, Measure); 8] = [
        (Section::Idle, start::idle),
        (Section::Commit, commit::measure),
        (Section::Appenders, appenders::measure),
        (Section::Stream, stream::measure),
        (Section::Wear, wear::measure),
        (Section::Read, read::measure),
        (Section::Compact, compact::measure),
        (Section::Start, start::starts),
    ];
    for (section, measure) in all {
        if wanted(section) {
            measure(&bench, &mut report)?;
        }
    }
    report.finish();
    Ok(())
}
