//! `headwater log`: looking into a data directory that no process uses, and mending it.
//!
//! Invariant: exit code 0: well; 1: damage was found, or it could not be mended; 2: wrong use. Answers go to standard
//! output, progress and errors to standard error. Neighbours: [`headwater_log::inspect`] does the work.

mod dump;
mod printed;
mod progress;
mod repair;
mod shown;
mod verify;

use headwater_log::inspect::InspectError;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) use printed::{Output, print_line};
pub(crate) use progress::Bar;

/// Wrong use.
const WRONG: u8 = 2;

/// Says why there is no answer, and how one could be had.
fn refuse(error: &InspectError) -> ExitCode {
    eprintln!("error: {error}");
    match error {
        InspectError::InUse { .. } => {
            eprintln!(
                "what a running node has lost and why: GET /health and /ledger of its HTTP listener"
            );
        }
        InspectError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            eprintln!("run it as the user that the node runs as");
        }
        InspectError::BeyondRepair { .. } => return ExitCode::FAILURE,
        _ => {}
    }
    ExitCode::from(WRONG)
}

/// What to do with a data directory.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum What {
    /// Read every byte of a data directory that no process uses, and say what is damaged. Changes nothing.
    Verify(Directories),
    /// Print what is in a data directory that no process uses: records, batches, indexes, journal, catalog. Changes nothing.
    Dump(dump::Options),
    /// Say how a damaged data directory that no process uses can be served again, and do it with --apply. Deletes nothing:
    /// what is damaged goes into DIR/quarantine.
    Repair(repair::Options),
}

/// Where to look.
#[derive(Debug, clap::Args)]
pub(crate) struct Directories {
    /// Data directory (`storage.dir`); all of them where a node has several.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs one of them.
pub(crate) fn run(what: &What) -> ExitCode {
    match what {
        What::Verify(options) => verify::run(options),
        What::Dump(options) => dump::run(options),
        What::Repair(options) => repair::run(options),
    }
}
