//! bench
use std::process::ExitCode;
#[derive(Debug, clap::Subcommand)]
pub(crate) enum What {
    Mqtt {},
}
pub(crate) fn run(_o: What) -> ExitCode {
    ExitCode::SUCCESS
}
