//! What the process says on standard error: lines for people, or JSON.
//!
//! Invariant: `RUST_LOG` wins over the configuration where it is set. Neighbours: everything logs through `tracing`.

use headwater_config::{LogFormat, Logging};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Whether the level, or `RUST_LOG` in its place, can be understood.
pub(crate) fn check(logging: &Logging) -> Result<(), String> {
    let (name, directives) = directives(logging);
    EnvFilter::try_new(&directives)
        .map(drop)
        .map_err(|why| format!("{name}: {directives:?} are not log directives: {why}"))
}

/// Begins to log. Later calls in the same process change nothing.
pub(crate) fn start(logging: &Logging) {
    let (_, directives) = directives(logging);
    let filter = EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A test that starts two nodes in one process has one log.
    let _ = match logging.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Human => {
            let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_target(false).with_ansi(ansi).try_init()
        }
    };
}

fn directives(logging: &Logging) -> (&'static str, String) {
    match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.trim().is_empty() => ("RUST_LOG", directives),
        _ => ("logging.level", logging.level.clone()),
    }
}
