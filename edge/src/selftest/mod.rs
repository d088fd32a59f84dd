//! `headwater selftest`: does this disk, in this machine, keep what it confirms?
//!
//! `--crash` starts this program again as a writer, kills it with SIGKILL at random moments, opens what it left and looks for
//! every record that the writer had reported as durable; the report came over a pipe, so the account lies outside what is
//! tested. It also measures whether a flush takes the time that writing takes. A kill is not a power cut: the kernel survives
//! it. For that there are `--write`, whose account goes to another machine, and `--check`, for after the plug was pulled.
//!
//! Invariant: nothing outside the folder `headwater-selftest` is touched, and that only if it is ours.
//! Neighbours: `headwater_log` is what is tested, [`crate::cli`] calls.

mod account;
mod crash;
mod flush;
mod folder;
mod power;
mod writer;

use crate::log_tools::Output;
use crate::sources;
use headwater_config::Config;
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `selftest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    mode: Mode,
    /// A folder on the disk to test; a folder `headwater-selftest` is made in it, and removed [default: beside storage.dir].
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// With --crash: how long.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// With --crash: end after so many restarts, if the time is not over before.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rounds: Option<u64>,
    /// Partitions that are written to.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    partitions: u32,
    /// With --crash: write so much log first, in GiB, so that restarts meet it.
    #[arg(long, default_value_t = 0, value_name = "GIB", value_parser = clap::value_parser!(u64).range(0..=10_000))]
    fill: u64,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Mode {
    /// Write, kill, check, again and again; then say what this disk is worth.
    #[arg(long)]
    crash: bool,
    /// Write until the power goes, and print what is durable: keep that on another machine.
    #[arg(long)]
    write: bool,
    /// After --write and a power cut: read what was printed from standard input, and look whether all of it is there.
    #[arg(long)]
    check: bool,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> ExitCode {
    let done = match &options.dir {
        Some(dir) => Ok(dir.clone()),
        None => beside_the_storage(),
    };
    let done = done.and_then(|dir| match () {
        () if options.mode.write => writer::run(&dir, options.partitions).map(|()| true),
        () if options.mode.check => power::check(&dir, options),
        () => crash(&dir, options),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The nearest folder above the configured data directory that is there: the same filesystem, unless it is yet to be mounted.
fn beside_the_storage() -> anyhow::Result<PathBuf> {
    let (config, _): (Config, _) = sources::load(None, &[])?;
    let dir = std::path::absolute(&config.storage.dirs[0])?;
    let there = dir.ancestors().skip(1).find(|above| above.is_dir());
    Ok(there.unwrap_or(Path::new("/")).to_owned())
}

fn crash(dir: &Path, options: &Options) -> anyhow::Result<bool> {
    let shows = std::io::stderr().is_terminal();
    let folder = folder::Own::make(dir)?;
    let flushes = flush::measure(folder.path())?;
    let outcome = crash::run(&folder, options, &mut |done| {
        if shows {
            eprint!("\r\x1b[K{done}");
        }
    });
    if shows {
        eprint!("\r\x1b[K");
    }
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            folder.keep();
            return Err(error);
        }
    };
    let well = outcome.lost.is_none() && flushes.verdict.is_well();
    if outcome.lost.is_some() {
        folder.keep();
    }
    match options.output {
        Output::Json => println!(
            "{}",
            json!({
                "well": well,
                "dir": dir,
                "seed": outcome.seed,
                "restarts": outcome.rounds,
                "lost": outcome.lost,
                "records_acknowledged": outcome.acknowledged,
                "partitions": options.partitions,
                "log_bytes": outcome.log_bytes,
                "recovery_ms_p50": outcome.recovery_ms(0.5),
                "recovery_ms_p99": outcome.recovery_ms(0.99),
                "recovery_ms_max": outcome.recovery_ms(1.0),
                "recoveries_cut_short": outcome.cut_short,
                "flush": flushes.object(),
            })
        ),
        Output::Text => {
            match &outcome.lost {
                None => println!(
                    "The disk keeps what it confirms: {0} of {0} restarts lost nothing ({1} records in {2} partitions).",
                    outcome.rounds, outcome.acknowledged, options.partitions
                ),
                Some(lost) => println!(
                    "RECORDS WERE LOST at restart {}: {lost}\nThe folder is kept: {}",
                    outcome.rounds,
                    folder.path().display()
                ),
            }
            println!(
                "Restarts took {} ms (median; 99 of 100: {}), {} ms at most.",
                outcome.recovery_ms(0.5),
                outcome.recovery_ms(0.99),
                outcome.recovery_ms(1.0)
            );
            println!("{flushes}");
            println!(
                "A killed process is not a power cut. To see one: headwater selftest --help, --write and --check."
            );
        }
    }
    Ok(well)
}
