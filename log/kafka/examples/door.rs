//! The Kafka door alone: `cargo run -p headwater-kafka --example door -- DIR PORT`, then
//! `echo hello | kcat -P -b 127.0.0.1:PORT -t greetings`.

use anyhow::Context;
use headwater_kafka::server::{Door, DoorSettings, NewTopic, TopicRules};
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::metadata::{Durability, TopicSettings};
use headwater_log::{Log, LogOptions, TopicName};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Every topic may be made, with one partition.
struct Anything;

impl TopicRules for Anything {
    fn rule(&self, _name: &TopicName) -> NewTopic {
        let settings = TopicSettings {
            durability: Durability::Fsync,
            retention_ms: None,
            retention_bytes: None,
            segment_bytes: 64 << 20,
            segment_ms: 604_800_000,
            batch_bytes_max: 1_048_588,
            ..TopicSettings::default()
        };
        NewTopic { partitions: 1, settings }
    }

    fn auto_create(&self, _name: &TopicName) -> bool {
        true
    }

    fn client_may_change(&self, _name: &TopicName) -> Result<(), String> {
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().context("usage: door DIR PORT")?;
    let port: u16 = arguments.next().context("usage: door DIR PORT")?.parse()?;
    let options = LogOptions {
        dirs: vec![dir.into()],
        journal_file_bytes: 16 << 20,
        journal_files: 4,
        commit_delay: Duration::ZERO,
        commit_delay_max: Duration::from_millis(100),
        journal_bytes_per_day: None,
        bulk_bytes: 4 << 20,
        uncommitted_bytes_max: 32 << 20,
        tail_bytes_max: 32 << 20,
        memory_sync: Duration::from_secs(1),
        reserved_bytes: 0,
        open_files_max: 256,
        labeller: None,
        producer_id_expiration: Duration::from_secs(86_400),
        topics_max: 1_000,
        partitions_max: 10_000,
        max_bytes: None,
        compaction: Default::default(),
        min_free: None,
    };
    let (log, recovery) = Log::open(options, Arc::new(SystemDisk), Arc::new(SystemClock))?;
    println!("opened in {:?}, {} topics", recovery.took, recovery.topics);
    let _running = log.start();
    let door = Door::new(log, DoorSettings::default(), Box::new(Anything));
    let door = door.listening_at("127.0.0.1", port);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let (_stop, stopping) = watch::channel(false);
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (door, stopping) = (door.clone(), stopping.clone());
        tokio::spawn(async move { door.serve(stream, peer, stopping).await });
    }
}
