//! demo
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub(crate) struct Options {}
pub(crate) fn run(_o: Options) -> ExitCode {
    ExitCode::SUCCESS
}
