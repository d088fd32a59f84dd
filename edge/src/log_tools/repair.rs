//! `headwater log repair DIR...`: says what it would do; with `--apply`, does it.

use super::verify::finding;
use super::{Bar, Directories, Output, print_line, refuse};
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::inspect::{self, Repaired};
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;

/// Options of `log repair`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    directories: Directories,
    /// Do it. Without this nothing is changed.
    #[arg(long)]
    apply: bool,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let dirs = &options.directories.dirs;
    let names: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let mut bar = Bar::new(names.join(" "));
    let watch = &mut |p: inspect::Progress| bar.show(p.done_bytes, p.total_bytes);
    let (disk, clock) = (Arc::new(SystemDisk), Arc::new(SystemClock));
    let repaired = inspect::repair(disk, clock, dirs, options.apply, watch);
    drop(bar);
    let repaired = match repaired {
        Ok(repaired) => repaired,
        Err(error) => return refuse(&error),
    };
    say(options, &repaired);
    // A dry run that finds something to do answers no: the directory is not well.
    let well = if options.apply { repaired.after.is_well() } else { repaired.done.is_empty() };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(options: &Options, repaired: &Repaired) {
    if options.directories.output == Output::Json {
        let findings =
            |verdict: &inspect::Verdict| verdict.findings.iter().map(finding).collect::<Vec<_>>();
        let object = json!({
            "dirs": options.directories.dirs,
            "applied": options.apply,
            "before": findings(&repaired.before),
            "done": repaired.done,
            "quarantine": repaired.quarantine,
            "after": findings(&repaired.after),
            "well": repaired.after.is_well(),
        });
        print_line(&object.to_string());
        return;
    }
    if repaired.done.is_empty() {
        print_line("nothing to do: the directory is well");
        return;
    }
    for found in &repaired.before.findings {
        print_line(&format!("found: {found}"));
    }
    let verb = if options.apply { "done" } else { "would do" };
    for done in &repaired.done {
        print_line(&format!("{verb}: {done}"));
    }
    match (options.apply, repaired.after.is_well()) {
        (true, true) => print_line("the directory is well; what was damaged is in quarantine"),
        (false, true) => {
            print_line("nothing was changed; `--apply` does it, and the directory is well then")
        }
        (_, false) => {
            for found in &repaired.after.findings {
                print_line(&format!("still: {found}"));
            }
            print_line("this does not make the directory well")
        }
    };
}
