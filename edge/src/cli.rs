//! The command line: `headwater run | check | explain | demo | log | selftest | bench`.
//!
//! Invariant: exit codes are 0 well, 1 the answer is no, 2 wrong use or configuration; what is for programs goes to
//! standard output, what is for people about the run to standard error. Neighbours: [`crate::sources`] finds the
//! configuration, [`crate::Node`] runs.

use crate::node::{Node, Seams, StartError};
use crate::sources::{self, ConfigError};
use crate::{bench, demo, log_tools, logging, selftest};
use clap::{Args, Parser, Subcommand};
use headwater_bridge::topics::TopicsError;
use headwater_config::Config;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Wrong use or configuration.
const WRONG: u8 = 2;

/// The log at the edge: MQTT in, a durable Kafka-compatible log on disk, mirrored to central clusters.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a node: SIGTERM or SIGINT ends it, a second one at once.
    Run(ConfigArgs),
    /// Check a configuration: every error at once, with its line and what it could have been.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print every key with its meaning, bounds and default, as a commented file.
        #[arg(long)]
        defaults: bool,
    },
    /// Say what happens to messages on an MQTT topic: route, topic, partition, key, headers, acknowledgement, uplink.
    Explain {
        /// The topic name of a PUBLISH, such as plant/7/press/telemetry.
        mqtt_topic: String,
        #[command(flatten)]
        config: ConfigArgs,
        /// How the answer is written.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Show the main job: devices, a node, a centre, a cut of the link between them, and an account at the end.
    Demo(demo::Options),
    /// Look into a data directory that no process uses.
    Log {
        #[command(subcommand)]
        what: log_tools::What,
    },
    /// Find out whether this disk keeps what it confirms.
    Selftest(selftest::Options),
    /// Measure: load from another process's point of view.
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Configuration file [default: ./headwater.toml if it is there, else built-in defaults].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key, as in --set storage.dir=/var/lib/headwater or --set listener.0.bind=127.0.0.1:11883.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => with_config(&args, run),
        Command::Check { defaults: true, .. } => {
            print(&headwater_config::defaults_file());
            ExitCode::SUCCESS
        }
        Command::Check { config, .. } => with_config(&config, |config, found| {
            print(&checked(&config, &found));
            ExitCode::SUCCESS
        }),
        Command::Explain { mqtt_topic, config, output } => {
            with_config(&config, |config, _| explain(config, &mqtt_topic, output))
        }
        Command::Demo(options) => demo::run(options),
        Command::Log { what } => log_tools::run(&what),
        Command::Selftest(options) => selftest::run(&options),
        Command::Bench { what } => bench::run(what),
    }
}

fn with_config(
    args: &ConfigArgs,
    then: impl FnOnce(Config, sources::Found) -> ExitCode,
) -> ExitCode {
    match sources::load(args.config.as_deref(), &args.set) {
        Ok((config, found)) => then(config, found),
        Err(ConfigError::Wrong(report)) => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            eprint!("{}", report.render(colour, 100));
            ExitCode::from(WRONG)
        }
        Err(other) => {
            eprintln!("error: {other}");
            ExitCode::from(WRONG)
        }
    }
}

fn run(config: Config, found: sources::Found) -> ExitCode {
    logging::start(&config.logging);
    match &found {
        sources::Found::File(path) => {
            tracing::info!("headwater {} with {}", env!("CARGO_PKG_VERSION"), path.display());
        }
        sources::Found::Defaults => {
            tracing::info!("headwater {} with built-in defaults", env!("CARGO_PKG_VERSION"));
        }
    }
    let mut signals = match crate::signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("error: cannot listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let node = match Node::start(config, Seams::default()) {
        Ok(node) => node,
        Err(error) => return not_started(&error),
    };
    let signal = signals.wait();
    tracing::info!("{signal}: stopping; a second signal ends the process at once");
    let stopped = node.shutdown();
    for left in stopped.left.iter().filter(|left| left.records > 0) {
        tracing::info!(
            "uplink {}: {} records, {} bytes are left to mirror",
            left.name,
            left.records,
            left.bytes
        );
    }
    match stopped.failed {
        None => {
            tracing::info!("stopped: everything is committed and checkpointed");
            ExitCode::SUCCESS
        }
        Some(why) => {
            tracing::error!("stopped as after a crash, nothing acknowledged is lost: {why}");
            ExitCode::FAILURE
        }
    }
}

fn not_started(error: &StartError) -> ExitCode {
    tracing::error!("not started: {error}");
    match error {
        StartError::Topics(TopicsError::FewerPartitions(_)) => ExitCode::from(WRONG),
        _ => ExitCode::FAILURE,
    }
}

/// What a right configuration amounts to, in a few lines.
fn checked(config: &Config, found: &sources::Found) -> String {
    let what = match found {
        sources::Found::File(path) => path.display().to_string(),
        sources::Found::Defaults => "built-in defaults (there is no ./headwater.toml)".into(),
    };
    let listeners: Vec<String> =
        config.listeners.iter().map(|l| format!("{} on {}", l.protocol, l.bind)).collect();
    format!(
        "{what}: right\nlisteners: {}\ndata: {}\n{} topics, {} routes, {} uplinks named\n",
        listeners.join(", "),
        config.storage.show_dirs(),
        config.topics.len(),
        config.routes.len(),
        config.uplinks.len(),
    )
}

fn explain(config: Config, mqtt_topic: &str, output: Output) -> ExitCode {
    if let Some(why) = not_a_topic_name(mqtt_topic) {
        eprintln!("error: {mqtt_topic:?} is not a topic that can be published to: {why}");
        return ExitCode::from(WRONG);
    }
    let router = headwater_bridge::Router::new(Arc::new(config));
    let explanation = headwater_bridge::explain(&router, mqtt_topic, &|_| None);
    match output {
        Output::Text => print(&format!("{explanation}")),
        Output::Json => print(&format!("{:#}\n", explained(&explanation))),
    }
    ExitCode::SUCCESS
}

fn not_a_topic_name(topic: &str) -> Option<&'static str> {
    // [MQTT-3.3.2-2], [MQTT-4.7.3-1] to -3
    match topic {
        "" => Some("it is empty"),
        t if t.contains(['+', '#']) => Some("`+` and `#` belong into filters and routes"),
        t if t.contains('\0') => Some("it contains the NUL character"),
        t if t.len() > 65_535 => Some("it has more than 65535 bytes"),
        _ => None,
    }
}

fn explained(explanation: &headwater_bridge::Explanation) -> serde_json::Value {
    use serde_json::json;
    let stored = |s: &headwater_bridge::explain::Stored| {
        json!({
            "route": s.route,
            "topic": s.topic,
            "fallback": s.fallback,
            "partition": s.partition.0,
            "partitions": s.partition.1,
            "key": s.key,
            "headers": s.headers.iter().map(|(n, v)| json!([n, v])).collect::<Vec<_>>(),
            "mqtt_topic_header": s.topic_header,
            "ack": s.ack,
            "ack_meaning": s.ack_meaning,
            "uplinks": s.uplinks.iter().map(|(u, t)| json!({ "name": u, "topic": t })).collect::<Vec<_>>(),
        })
    };
    let verdicts = explanation.routes.iter().map(|v| {
        json!({ "route": v.route, "pattern": v.pattern, "stores": v.stores, "because": v.because })
    });
    json!({
        "mqtt_topic": explanation.mqtt_topic,
        "primary": stored(&explanation.primary),
        "copies": explanation.copies.iter().map(stored).collect::<Vec<_>>(),
        "routes": verdicts.collect::<Vec<_>>(),
    })
}

/// Prints to standard output; a reader that has gone away (`| head`) is no error.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_published_to_is_not_explained() {
        for wrong in ["", "a/+", "#", "a\0b"] {
            assert!(not_a_topic_name(wrong).is_some(), "{wrong:?}");
        }
        assert_eq!(not_a_topic_name("plant/7/é"), None);
    }
}
