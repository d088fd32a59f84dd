//! The threads that serve connections, and the one that accepts them (steps 1 to 5).
//!
//! One current-thread runtime per core, connections pinned to one. Invariant: the accepting thread only accepts: no byte
//! is read on it, so that no slow or silent peer can keep another out. Neighbours: [`headwater_mqtt::Shard`] and
//! [`headwater_kafka::server::Door`] take the sockets over.

use super::listeners::Bound;
use super::translate::POOL_KEEP_ALIVE;
use super::{DRAIN_MAX, Parts, StartError};
use headwater_config::Protocol;
use headwater_kafka::server::Door;
use headwater_mqtt::Shard;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

/// Accepted sockets on their way to a shard; above it the acceptor waits, and clients in the kernel's backlog.
const HANDOVER_MAX: usize = 256;

/// Wait after a failed accept: the usual cause (no file descriptor left) does not go away by asking again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A socket for a shard.
struct Accepted {
    /// `None` is MQTT; else which listener's door.
    door: Option<Door>,
    stream: std::net::TcpStream,
    peer: SocketAddr,
}

/// Starts the shards and the acceptor; the threads end some time after `stopping` becomes true.
pub(super) fn start(
    parts: &Arc<Parts>,
    listeners: Vec<Bound>,
    stopping: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let count = match parts.config.limits.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => usize::try_from(n).unwrap_or(1),
    };
    let mut threads = Vec::new();
    let mut shards = Vec::new();
    for number in 0..count {
        let (sender, inbox) = mpsc::channel(HANDOVER_MAX);
        let parts = parts.clone();
        let stopping = stopping.clone();
        let runtime = runtime()?;
        let name = format!("shard-{number}");
        let run = move || LocalSet::new().block_on(&runtime, shard(parts, inbox, stopping));
        threads.push(spawn(name, run)?);
        shards.push(sender);
    }
    let doors = listeners.into_iter().map(|b| (door_of(parts, &b), b.listener)).collect();
    let stopping = stopping.clone();
    let runtime = runtime()?;
    let run = move || LocalSet::new().block_on(&runtime, accept_all(doors, shards, stopping));
    threads.push(spawn("accept".into(), run)?);
    Ok(threads)
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(POOL_KEEP_ALIVE)
        .build()
        .map_err(|why| StartError::System { what: "making a runtime", why })
}

pub(super) fn spawn(
    name: String,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(run)
        .map_err(|why| StartError::System { what: "starting a thread", why })
}

fn door_of(parts: &Parts, listener: &Bound) -> Option<Door> {
    let (host, port) = &listener.advertised;
    (listener.protocol == Protocol::Kafka).then(|| parts.door.listening_at(host, *port))
}

/// One shard's life: takes sockets until the acceptor is gone, then waits for its connections to leave.
async fn shard(
    parts: Arc<Parts>,
    mut inbox: mpsc::Receiver<Accepted>,
    stopping: watch::Receiver<bool>,
) {
    let mqtt = Shard::new(parts.mqtt.clone());
    let mut kafka = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = inbox.recv() => accepted,
            Some(ended) = kafka.join_next() => {
                report_panic(ended);
                continue;
            }
        };
        let Some(Accepted { door, stream, peer }) = accepted else { break };
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%peer, %error, "connection lost on its way to its shard");
                continue;
            }
        };
        match door {
            None => mqtt.serve(stream, peer),
            Some(door) => {
                let stopping = stopping.clone();
                kafka.spawn_local(async move { door.serve(stream, peer, stopping).await });
            }
        }
    }
    mqtt.drained().await;
    let left = async {
        while let Some(ended) = kafka.join_next().await {
            report_panic(ended);
        }
    };
    if tokio::time::timeout(DRAIN_MAX, left).await.is_err() {
        tracing::warn!("{} Kafka connections did not leave in time", kafka.len());
    }
}

/// A panic ends one connection, not the shard.
fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a Kafka connection's task ended abnormally");
    }
}

/// Accepts from all listeners until told to stop.
async fn accept_all(
    listeners: Vec<(Option<Door>, std::net::TcpListener)>,
    shards: Vec<mpsc::Sender<Accepted>>,
    stopping: watch::Receiver<bool>,
) {
    let shards = Arc::new(shards);
    let mut tasks = JoinSet::new();
    for (door, listener) in listeners {
        tasks.spawn_local(accept(door, listener, shards.clone(), stopping.clone()));
    }
    drop(shards);
    while tasks.join_next().await.is_some() {}
}

async fn accept(
    door: Option<Door>,
    listener: std::net::TcpListener,
    shards: Arc<Vec<mpsc::Sender<Accepted>>>,
    mut stopping: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot accept connections");
            return;
        }
    };
    let mut next = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let stream = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
        match stream {
            Ok((stream, peer)) => {
                // Small packets both ways: waiting for more to send would only add latency.
                let _ = stream.set_nodelay(true);
                let accepted = Accepted { door: door.clone(), stream, peer };
                if !hand_over(accepted, &shards, &mut next).await {
                    tracing::error!("no shard is left: no more connections are accepted");
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Gives a socket to the next shard that lives; false when none does.
async fn hand_over(
    mut accepted: Accepted,
    shards: &[mpsc::Sender<Accepted>],
    next: &mut usize,
) -> bool {
    for _ in 0..shards.len() {
        let shard = &shards[*next % shards.len()];
        *next = next.wrapping_add(1);
        match shard.send(accepted).await {
            Ok(()) => return true,
            // A shard that panicked: its connections are gone, the others' are not.
            Err(mpsc::error::SendError(back)) => accepted = back,
        }
    }
    false
}
