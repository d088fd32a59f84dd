//! What one published message costs in the bridge and the log's append, in CPU time of the publishing thread.
//!
//! `cargo bench -p headwater-bridge`: 64-byte payloads, slices of 1 and 32, over the real log on disk with its commit
//! thread running beside. Calls that meet a full append path are waited out and not counted.

use headwater_bridge::{Bridge, Ticket};
use headwater_config::from_toml;
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::{Log, LogOptions};
use headwater_mqtt::codec::{PacketId, Publish, PublishProperties, QoS};
use headwater_mqtt::{Outcome, Publisher, Store};
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PAYLOAD: [u8; 64] = [b'x'; 64];
const MESSAGES: u64 = 2_000_000;
const ROUNDS: u32 = 5;

/// CPU time of this thread.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn open(dir: &Path, config: &headwater_config::Config) -> Log {
    let options = LogOptions {
        dirs: vec![dir.to_owned()],
        journal_file_bytes: config.storage.journal_file_bytes,
        journal_files: config.storage.journal_files,
        commit_delay: config.storage.commit_delay,
        commit_delay_max: config.storage.commit_delay_max,
        journal_bytes_per_day: config.storage.journal_bytes_per_day,
        bulk_bytes: config.storage.bulk_bytes,
        uncommitted_bytes_max: config.storage.uncommitted_bytes_max,
        tail_bytes_max: config.storage.tail_bytes_max,
        memory_sync: config.storage.memory_sync,
        reserved_bytes: config.storage.reserved_bytes,
        open_files_max: 256,
        labeller: None,
        producer_id_expiration: config.storage.producer_id_expiration,
        topics_max: config.limits.topics_max,
        partitions_max: config.limits.partitions_max,
        max_bytes: None,
        min_free: None,
        compaction: Default::default(),
    };
    Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock)).expect("a new log").0
}

/// Nanoseconds of CPU per message: the best of a few rounds, for the machine may be busy otherwise.
fn measure(bridge: &Bridge, topics: &[&str], slice: usize) -> f64 {
    let from = Publisher::new("bench-device-0001".into());
    let messages: Vec<Publish<'_>> = (0..slice)
        .map(|i| Publish {
            topic: topics[i % topics.len()],
            payload: &PAYLOAD,
            qos: QoS::AtLeastOnce,
            retain: false,
            dup: false,
            packet_id: PacketId::new(1),
            properties: PublishProperties::default(),
        })
        .collect();
    let mut outcomes: Vec<Outcome<Ticket>> = Vec::with_capacity(slice);
    let calls = MESSAGES / slice as u64;
    let round = || {
        let mut spent = Duration::ZERO;
        let mut taken = 0usize;
        for _ in 0..calls {
            let before = cpu();
            bridge.publish(&from, &messages, &mut outcomes);
            let after = cpu();
            if outcomes.len() == slice {
                spent += after.saturating_sub(before);
                taken += slice;
            } else {
                std::thread::sleep(Duration::from_millis(2));
            }
            outcomes.clear();
        }
        spent.as_nanos() as f64 / taken as f64
    };
    std::iter::repeat_with(round).take(ROUNDS as usize).fold(f64::INFINITY, f64::min)
}

/// What reading the thread's clock twice costs: it is inside every measurement.
fn clock_ns() -> f64 {
    let (start, reads) = (cpu(), 200_000u32);
    for _ in 0..reads {
        std::hint::black_box(cpu());
    }
    (cpu() - start).as_nanos() as f64 / f64::from(reads)
}

fn main() {
    let config = from_toml(
        "[[route]]\nmqtt = \"plant/{line}/{device}/telemetry/#\"\ntopic = \"telemetry\"\nkey = \"{device}\"\n\
         [[topic]]\nname = \"telemetry\"\nretention_bytes = \"64MiB\"\n[storage]\nmax_bytes = \"2GiB\"\n",
    )
    .expect("a valid config");
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), &config);
    let bridge = Bridge::new(Arc::new(config), log.clone()).expect("a bridge");
    let running = log.start();
    let clock = clock_ns();
    println!("(reading the clock: {clock:.0} ns per call, taken off below)");
    let one = ["plant/line-1/press/telemetry/temperature"];
    let many: Vec<String> =
        (0..32).map(|i| format!("plant/line-1/device-{i}/telemetry/temperature")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (what, topics, slice) in [
        ("slice of 32, one MQTT topic", &one[..], 32),
        ("slice of 32, 32 MQTT topics over 4 partitions", &many, 32),
        ("slice of 1", &one, 1),
    ] {
        let ns = measure(&bridge, topics, slice) - clock / slice as f64;
        println!("{what}: {ns:.0} ns of CPU per message");
    }
    if let Err(error) = running.close() {
        println!("the log did not close well: {error}");
    }
}
