//! `headwater bench`: load, and what it cost the server.
//!
//! The server is a process of its own (a child, unless `--server` names one), so that its CPU time is its own.
//! Invariant: a figure is printed only if every message was acknowledged. Neighbours: `load` makes the load, `child` is
//! the server.

mod child;
mod load;
mod log;

use crate::cli::Output;
use child::Child;
use load::Load;
use log::LogBenchOptions;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum What {
    /// MQTT ingest over loopback into the durable log.
    Mqtt(MqttOptions),
    /// The log on this disk: commits, wear, reads, memory and starts, against a bare file that is written and synced.
    Log(LogBenchOptions),
}

/// Options of `bench mqtt`.
#[derive(Debug, clap::Args)]
pub(crate) struct MqttOptions {
    /// Connections.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Messages per system call.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    per_write: u32,
    /// Quality of service: 0 or 1.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,
    /// Messages in all; a tenth more go before, to warm up.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    messages: u64,
    /// Bytes of payload.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    payload: u32,
    /// Unacknowledged messages per connection [default: 100 at one per write, else 32 writes' worth].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    window: Option<u32>,
    /// A node that runs already (its CPU is then not measured) [default: one started for this].
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<SocketAddr>,
    /// Where the started node keeps its data; removed afterwards [default: a temporary folder on a disk].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Settings of the started node, as for `headwater run`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs a benchmark.
pub(crate) fn run(what: What) -> ExitCode {
    let result = match what {
        What::Mqtt(options) => mqtt(&options),
        What::Log(options) => log::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn mqtt(options: &MqttOptions) -> anyhow::Result<()> {
    let window = options.window.unwrap_or(match options.per_write {
        1 => 100,
        n => n.saturating_mul(32).min(16_384),
    });
    anyhow::ensure!(window >= options.per_write, "--window must hold one write at least");
    let (server, child) = match options.server {
        Some(server) => (server, None),
        None => {
            let child = Child::start(options.data_dir.as_deref(), &options.set)?;
            (child.mqtt(), Some(child))
        }
    };
    let load = Load {
        server,
        connections: options.connections,
        per_write: options.per_write,
        qos: options.qos,
        payload_bytes: options.payload,
        window,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut connections = runtime.block_on(load.connect())?;
    let warm_up = (options.messages / 10).max(u64::from(options.connections));
    runtime.block_on(load.send(&mut connections, warm_up))?;
    let before = child.as_ref().map(Child::cpu).transpose()?;
    let own_before = child::own_cpu();
    let sent = runtime.block_on(load.send(&mut connections, options.messages))?;
    let own = child::own_cpu().saturating_sub(own_before);
    let after = child.as_ref().map(Child::cpu).transpose()?;
    let cpu = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    let resident = child.as_ref().and_then(Child::resident_bytes);
    report(options, window, &sent, cpu, own, resident);
    Ok(())
}

fn report(
    options: &MqttOptions,
    window: u32,
    sent: &load::Sent,
    cpu: Option<Duration>,
    own: Duration,
    resident_bytes: Option<u64>,
) {
    let per_second = sent.messages as f64 / sent.took.as_secs_f64();
    let per_million = |cpu: Duration| cpu.as_secs_f64() / (sent.messages as f64 / 1e6);
    let quantile_us = |q: f64| sent.latency_us.value_at_quantile(q);
    if options.json {
        let figures = json!({
            "qos": options.qos,
            "connections": options.connections,
            "per_write": options.per_write,
            "window": window,
            "payload_bytes": options.payload,
            "messages": sent.messages,
            "seconds": sent.took.as_secs_f64(),
            "messages_per_second": per_second,
            "server_cpu_seconds_per_million": cpu.map(per_million),
            "client_cpu_seconds_per_million": per_million(own),
            "server_resident_bytes": resident_bytes,
            "ack_us_p50": (options.qos > 0).then(|| quantile_us(0.5)),
            "ack_us_p99": (options.qos > 0).then(|| quantile_us(0.99)),
        });
        println!("{figures}");
        return;
    }
    println!(
        "QoS {}, {} connections, {} per write, window {window}, {}-byte payloads",
        options.qos, options.connections, options.per_write, options.payload
    );
    println!(
        "  {per_second:.0} messages/s ({} in {:.2} s), every one {}",
        sent.messages,
        sent.took.as_secs_f64(),
        if options.qos > 0 { "acknowledged" } else { "taken and stored" }
    );
    match cpu {
        Some(cpu) => println!("  server: {:.2} CPU-s per million messages", per_million(cpu)),
        None => println!("  server: CPU not measured, it is not ours"),
    }
    println!("  client: {:.2} CPU-s per million messages", per_million(own));
    if let Some(bytes) = resident_bytes {
        println!("  server memory: {} MB resident", bytes / 1_000_000);
    }
    if options.qos > 0 {
        let (p50, p99) = (quantile_us(0.5), quantile_us(0.99));
        println!("  acknowledged after: p50 {p50} us, p99 {p99} us (from the write)");
    }
}
