//! `headwater demo`: the main job in one command, with an account at the end that adds up.
//!
//! An edge node, a centre (a second node, or a real Kafka with `--central`), a link between them that is cut for a
//! third of the time, and simulated devices over real TCP. Invariant: exit code 0 only if every message published is
//! acknowledged, stored and mirrored, once, by reading both logs. Neighbours: the modules here, in the order of a
//! message's way: `plant`, `devices`, `relay`, `view`, `account`.

mod account;
mod devices;
mod plant;
mod relay;
mod view;

use crate::node::{Node, Seams};
use crate::{logging, scratch, signals};
use account::Row;
use anyhow::Context;
use devices::{Devices, Fleet, Ledger};
use headwater_config::{LogFormat, Logging, Protocol};
use headwater_log::Log;
use headwater_log::clock::Clock;
use relay::Relay;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use view::{Moment, View};

/// How long the backlog may take to drain at the end.
const DRAIN_MAX: Duration = Duration::from_secs(120);

const LOOK: Duration = Duration::from_millis(50);

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A real Kafka as the centre [default: a second node in this process].
    #[arg(long, value_name = "HOST:PORT", value_parser = central)]
    central: Option<String>,
    /// Simulated devices.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    devices: u32,
    /// Seconds that they publish.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=86_400))]
    seconds: u32,
    /// Messages per device and second.
    #[arg(long, default_value_t = 5.0, value_parser = rate)]
    rate: f64,
    /// Keep the data here [default: a temporary folder].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Leave the link to the centre alone.
    #[arg(long)]
    no_outage: bool,
}

fn central(text: &str) -> Result<String, String> {
    headwater_config::HostPort::parse(text).map(|address| address.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=1_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate from 0.01 to 1000".into()),
    }
}

/// Runs the demo.
pub(crate) fn run(options: Options) -> ExitCode {
    // Warnings only: an uplink that says it has lost its centre is part of the show.
    logging::start(&Logging { level: "error".into(), format: LogFormat::Human });
    match demo(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that runs.
struct Stage {
    edge: Node,
    centre: Option<Node>,
    relay: Relay,
    site: String,
    clock: Arc<dyn Clock>,
}

fn demo(options: &Options) -> anyhow::Result<bool> {
    let mut signals = signals::listen()?;
    let temporary = match &options.data_dir {
        Some(dir) => {
            // The account reads whole logs: those of an earlier run would not add up.
            anyhow::ensure!(
                !dir.join("edge").exists(),
                "{} holds the data of an earlier demo: name another folder, or look into that one with \
                 `headwater run --set storage.dir={}`",
                dir.display(),
                dir.join("edge").display()
            );
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            None
        }
        None => Some(scratch::folder(None)?),
    };
    let data = match (&options.data_dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => PathBuf::from("."),
    };
    let stage = Stage::set(options, &data)?;
    let mut view = View::new();
    stage.introduce(options, &data, &mut view);
    let ledger = stage.play(options, &mut view, &mut signals)?;
    let right = stage.settle(options, &ledger, &mut view)?;
    stage.end(options, &mut view);
    Ok(right)
}

impl Stage {
    fn set(options: &Options, data: &Path) -> anyhow::Result<Self> {
        let seams = Seams::default();
        let clock = seams.clock.clone();
        // Topics of its own at the centre, whoever used it before.
        let site = format!("demo-{:x}", clock.wall_ms().unsigned_abs());
        let centre = match &options.central {
            Some(_) => None,
            None => {
                let config = plant::centre(&data.join("centre"))?;
                Some(Node::start(config, seams.clone()).context("starting the centre")?)
            }
        };
        let address = match (&options.central, &centre) {
            (Some(address), _) => address.clone(),
            (None, centre) => centre
                .as_ref()
                .and_then(|node| node.address(Protocol::Kafka))
                .context("the centre has no Kafka listener")?
                .to_string(),
        };
        let relay = Relay::start(address).context("starting the link to the centre")?;
        let config = plant::edge(&data.join("edge"), &site, relay.address())?;
        let edge = Node::start(config, seams).context("starting the edge node")?;
        Ok(Self { edge, centre, relay, site, clock })
    }

    fn introduce(&self, options: &Options, data: &Path, view: &mut View) {
        let mqtt = self.edge.address(Protocol::Mqtt);
        let kafka = self.edge.address(Protocol::Kafka);
        let centre = options.central.as_deref().unwrap_or("a second node in this process");
        let show = |a: Option<std::net::SocketAddr>| a.map_or(String::new(), |a| a.to_string());
        view.say(&format!(
            "edge node: MQTT on {}, Kafka on {}, data in {}\ncentre: {centre}\n\
             {} devices publish at QoS 1 for {} s, {} messages/s each; every PUBACK comes after its fdatasync",
            show(mqtt),
            show(kafka),
            data.display(),
            options.devices,
            options.seconds,
            options.rate,
        ));
    }

    /// The time in which devices publish. Ends early at a signal.
    fn play(
        &self,
        options: &Options,
        view: &mut View,
        signals: &mut signals::Signals,
    ) -> anyhow::Result<Ledger> {
        let fleet = Fleet {
            devices: usize::try_from(options.devices)?,
            rate: options.rate,
            mqtt: self.edge.address(Protocol::Mqtt).context("the node has no MQTT listener")?,
        };
        let devices = Devices::start(fleet, self.clock.clone())?;
        let length = Duration::from_secs(u64::from(options.seconds));
        let mut pace = Pace::new(self.clock.clone());
        let mut is_cut = false;
        while pace.elapsed() < length {
            if signals.has_come() {
                view.say("-- a signal: ending early, with the account of what was published --");
                break;
            }
            let third = length / 3;
            let cut = !options.no_outage && pace.elapsed() >= third && pace.elapsed() < third * 2;
            if cut != is_cut {
                is_cut = cut;
                if cut {
                    self.relay.cut();
                    view.say("-- the link to the centre is cut: devices notice nothing --");
                } else {
                    self.relay.mend();
                    view.say("-- the link is back: the backlog drains --");
                }
            }
            let link = if is_cut { "cut" } else { "up" };
            if let Some(moment) = self.look(&devices, &mut pace, view.period(), link, options) {
                view.show(&moment);
            }
            std::thread::sleep(LOOK);
        }
        if is_cut {
            self.relay.mend();
        }
        let figures = devices.figures.clone();
        let ledger = devices.stop()?;
        let resent = figures.resent.load(Ordering::Relaxed);
        if resent > 0 {
            view.say(&format!(
                "{resent} messages were sent again by devices that had lost their connection"
            ));
        }
        Ok(Ledger { resent, ..ledger })
    }

    fn look(
        &self,
        devices: &Devices,
        pace: &mut Pace,
        period: Duration,
        link: &'static str,
        options: &Options,
    ) -> Option<Moment> {
        let since = pace.due(period)?;
        let figures = &devices.figures;
        let acknowledged = figures.acknowledged.load(Ordering::Relaxed);
        let (p50_us, p99_us) = {
            let mut latency = figures.latency_us.lock();
            let quantiles = (latency.value_at_quantile(0.5), latency.value_at_quantile(0.99));
            latency.reset();
            quantiles
        };
        let (stored, mirrored) = progress(self.edge.log());
        let per_second =
            acknowledged.saturating_sub(pace.acknowledged) as f64 / since.as_secs_f64();
        pace.acknowledged = acknowledged;
        Some(Moment {
            at: pace.elapsed(),
            devices: (figures.connected.load(Ordering::Relaxed), u64::from(options.devices)),
            per_second,
            published: figures.published.load(Ordering::Relaxed),
            acknowledged,
            stored,
            mirrored,
            p50_us,
            p99_us,
            link,
        })
    }

    /// Waits for the backlog to drain, then makes the account.
    fn settle(&self, options: &Options, ledger: &Ledger, view: &mut View) -> anyhow::Result<bool> {
        let pace = Pace::new(self.clock.clone());
        let (mut stored, mut mirrored) = progress(self.edge.log());
        if mirrored < stored {
            view.say(&format!(
                "devices have stopped; {} records are left to mirror",
                stored - mirrored
            ));
        }
        while mirrored < stored && pace.elapsed() < DRAIN_MAX {
            std::thread::sleep(LOOK);
            (stored, mirrored) = progress(self.edge.log());
        }
        view.say("\nthe account, by reading both logs from their beginning:");
        let mut rows = Vec::new();
        for (index, topic) in plant::TOPICS.iter().enumerate() {
            let stored = account::read_log(self.edge.log(), topic)?;
            let target = format!("{}.{topic}", self.site);
            let mirrored = match (&self.centre, &options.central) {
                (Some(centre), _) => account::read_log(centre.log(), &target)?,
                (None, Some(centre)) => {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    runtime.block_on(account::read_kafka(centre, &target))?
                }
                (None, None) => anyhow::bail!("there is no centre"),
            };
            rows.push(Row::new(index, ledger, &stored, &mirrored));
        }
        view.say(account::table(&rows).trim_end());
        let right = rows.iter().all(|row| row.adds_up(ledger.resent));
        view.say(if right {
            "it adds up: published = acknowledged = stored = mirrored, zero lost, zero twice"
        } else {
            "IT DOES NOT ADD UP"
        });
        Ok(right)
    }

    fn end(self, options: &Options, view: &mut View) {
        let _ = self.edge.shutdown();
        self.relay.stop();
        if let Some(centre) = self.centre {
            let _ = centre.shutdown();
        }
        let mut next = String::from("\nwhat to try next:\n");
        let run = match &options.data_dir {
            Some(dir) => {
                let edge = dir.join("edge");
                format!("  headwater run --set storage.dir={}\n", edge.display())
            }
            None => "  headwater run\n".to_owned(),
        };
        next.push_str(&run);
        next.push_str(
            "  mosquitto_pub -p 1883 -q 1 -t plant/line-1/press-000/telemetry -m hello\n",
        );
        next.push_str("  kcat -C -b 127.0.0.1:9092 -t mqtt -o beginning -e -f '%k: %s\\n'");
        if let Some(centre) = &options.central {
            let topic = format!("{}.telemetry", self.site);
            next.push_str(&format!("\n  kcat -C -b {centre} -t {topic} -o beginning -e | head"));
        }
        view.say(&next);
    }
}

/// Records stored at the edge, and those of them that the centre has acknowledged.
fn progress(log: &Log) -> (u64, u64) {
    let hold = headwater_bridge::uplink::hold_name(plant::UPLINK);
    let topics = plant::TOPICS.iter().filter_map(|name| log.topic(name));
    topics.fold((0, 0), |(stored, mirrored), topic| {
        topic.partitions().iter().fold((stored, mirrored), |(stored, mirrored), partition| {
            let end = partition.positions().high_watermark.get();
            let reached = partition.hold(&hold).reached().get();
            let count = |n: i64| u64::try_from(n).unwrap_or(0);
            (stored + count(end), mirrored + count(reached.min(end)))
        })
    })
}

/// Time since a start, and since the last look.
struct Pace {
    clock: Arc<dyn Clock>,
    began_ns: u64,
    looked_ns: u64,
    acknowledged: u64,
}

impl Pace {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let now_ns = clock.monotonic_ns();
        Self { clock, began_ns: now_ns, looked_ns: now_ns, acknowledged: 0 }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.clock.monotonic_ns().saturating_sub(self.began_ns))
    }

    /// The time since the last look, once it is a period; then a new one begins.
    fn due(&mut self, period: Duration) -> Option<Duration> {
        let now_ns = self.clock.monotonic_ns();
        let since = Duration::from_nanos(now_ns.saturating_sub(self.looked_ns));
        if since < period {
            return None;
        }
        self.looked_ns = now_ns;
        Some(since)
    }
}
