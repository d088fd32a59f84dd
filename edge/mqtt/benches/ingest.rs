//! The cost of the front alone: `cargo bench -p headwater-mqtt --bench ingest`.
//!
//! Real TCP over loopback, 50 connections, 64-byte payloads, a store that counts and moves its position every 200 us as
//! a commit thread would. Prints messages per second and CPU seconds of the shard's thread per million messages; the
//! difference to `headwater bench mqtt` is routes, log and disk. Linux only (it reads the scheduler's accounts).

use bytes::BytesMut;
use headwater_mqtt::codec::{
    Connect, ConnectProperties, Packet, PacketId, Publish, PublishProperties, QoS, Version, encode,
};
use headwater_mqtt::{
    Limits, Message, Outcome, Publisher, ReadFailure, Settled, Shard, Shared, Store, StreamId,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::watch;

const CONNECTIONS: usize = 50;
const PAYLOAD: [u8; 64] = [7; 64];
const MEASURE: Duration = Duration::from_secs(3);
const COMMIT_EVERY: Duration = Duration::from_micros(200);

/// Counts, and acknowledges what was counted before the last "commit".
struct Counting {
    taken: AtomicU64,
    committed: AtomicU64,
    moved: watch::Sender<u64>,
}

impl Store for Counting {
    type Ticket = u64;

    fn publish(&self, _: &Publisher, messages: &[Publish<'_>], out: &mut Vec<Outcome<u64>>) {
        let first = self.taken.fetch_add(messages.len() as u64, Ordering::AcqRel);
        out.extend((first..).take(messages.len()).map(Outcome::Accepted));
    }
    fn settled(&self, ticket: &u64) -> Settled {
        match *ticket < self.committed.load(Ordering::Acquire) {
            true => Settled::Passed,
            false => Settled::Waiting,
        }
    }
    fn receipt(&self, _: &u64, _: &mut dyn FnMut(&str, &str)) {}
    fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
    fn streams(&self) -> u32 {
        0
    }
    fn end(&self, _: StreamId) -> u64 {
        0
    }
    fn read(
        &self,
        _: StreamId,
        from: u64,
        _: usize,
        _: &mut Vec<Arc<Message>>,
    ) -> Result<u64, ReadFailure> {
        Ok(from)
    }
    fn is_in_memory(&self, _: StreamId, _: u64) -> bool {
        true
    }
    fn dropped(&self, _: &'static str, _: &str, _: u64) {}
    fn now_ms(&self) -> i64 {
        0
    }
}

/// Nanoseconds that a thread of this process has run.
fn cpu_ns(thread: u64) -> u64 {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default()
}

fn this_thread() -> u64 {
    let link = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    link.file_name().and_then(|n| n.to_str()?.parse().ok()).unwrap_or_default()
}

fn start_shard(shared: Arc<Shared<Counting>>) -> (u64, SocketAddr) {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let _ = send.send((this_thread(), listener.local_addr()?));
            let shard = Shard::new(shared);
            loop {
                let (stream, peer) = listener.accept().await?;
                shard.serve(stream, peer);
            }
        })
    });
    receive.recv().unwrap_or_else(|_| panic!("the shard did not start"))
}

fn connected(address: SocketAddr, name: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut out = BytesMut::new();
    let connect = Packet::Connect(Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive_s: 0,
        client_id: &format!("bench-{name}"),
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    });
    encode(&connect, Version::V311, u32::MAX, &mut out).map_err(std::io::Error::other)?;
    stream.write_all(&out)?;
    stream.read_exact(&mut [0; 4])?;
    Ok(stream)
}

fn batch(qos: QoS, per_write: u16, name: usize) -> BytesMut {
    let mut out = BytesMut::new();
    for id in 1..=per_write {
        let publish = Packet::Publish(Publish {
            topic: &format!("plant/line-{}/press-{}/telemetry", name % 4, name),
            payload: &PAYLOAD,
            qos,
            retain: false,
            dup: false,
            packet_id: PacketId::new(id).filter(|_| qos == QoS::AtLeastOnce),
            properties: PublishProperties::default(),
        });
        if let Err(error) = encode(&publish, Version::V311, u32::MAX, &mut out) {
            panic!("{error}");
        }
    }
    out
}

/// Writes batches on its connections in turn, two under way on each, until told to stop.
fn publisher(
    address: SocketAddr,
    names: std::ops::Range<usize>,
    qos: QoS,
    per_write: u16,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let mut connections = Vec::new();
    for name in names {
        connections.push((connected(address, name)?, batch(qos, per_write, name)));
    }
    let mut acks = vec![0; 4 * usize::from(per_write)];
    if qos == QoS::AtLeastOnce {
        for (stream, batch) in &mut connections {
            stream.write_all(batch)?;
        }
    }
    while !stop.load(Ordering::Relaxed) {
        for (stream, batch) in &mut connections {
            stream.write_all(batch)?;
            if qos == QoS::AtLeastOnce {
                stream.read_exact(&mut acks)?;
            }
        }
    }
    Ok(())
}

fn measure(qos: QoS, per_write: u16) {
    let store = Arc::new(Counting {
        taken: AtomicU64::new(0),
        committed: AtomicU64::new(0),
        moved: watch::Sender::new(0),
    });
    let shared = Shared::new(store.clone(), Limits::default());
    let (thread, address) = start_shard(shared);
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    let (committing, stopped) = (store.clone(), stop.clone());
    threads.push(std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            std::thread::sleep(COMMIT_EVERY);
            let taken = committing.taken.load(Ordering::Acquire);
            if committing.committed.swap(taken, Ordering::AcqRel) != taken {
                committing.moved.send_modify(|count| *count += 1);
            }
        }
    }));
    for half in [0..CONNECTIONS / 2, CONNECTIONS / 2..CONNECTIONS] {
        let stop = stop.clone();
        threads.push(std::thread::spawn(move || {
            if let Err(error) = publisher(address, half, qos, per_write, &stop) {
                println!("a publisher ended: {error}");
            }
        }));
    }
    std::thread::sleep(Duration::from_millis(500));
    let (messages, cpu) = (store.taken.load(Ordering::Relaxed), cpu_ns(thread));
    std::thread::sleep(MEASURE);
    let messages = (store.taken.load(Ordering::Relaxed) - messages) as f64;
    let cpu = (cpu_ns(thread) - cpu) as f64 / 1e9;
    println!(
        "qos {} at {per_write:2} per write: {:9.0} msg/s, {:.3} CPU-s per million (shard thread, {:.0} % busy)",
        qos as u8,
        messages / MEASURE.as_secs_f64(),
        cpu / messages * 1e6,
        cpu / MEASURE.as_secs_f64() * 100.0,
    );
    stop.store(true, Ordering::Relaxed);
    // Publishers may wait for acknowledgements that the stopped commit thread will not give: the process ends anyway.
}

fn main() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        for per_write in [1, 32] {
            measure(qos, per_write);
        }
    }
}
