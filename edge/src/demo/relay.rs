//! The WAN of the demo: a relay between the edge node and the centre that can be cut and mended.
//!
//! A Kafka client goes where the brokers say, so the relay rewrites the addresses in Metadata responses to its own, one
//! listener per broker; all else passes as it is. Invariant: while the link is cut not one byte passes, and connections
//! are closed at once. Neighbours: the uplink's client on one side, the centre on the other.

use bytes::{Bytes, BytesMut};
use headwater_kafka::wire::messages::MetadataRequest;
use headwater_kafka::wire::{ApiKey, FrameReader, Limits, decode_response, encode_response};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

const FRAME_BYTES_MAX: usize = 100 << 20;

/// State of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Cut,
    Over,
}

/// The relay, on a thread of its own.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    link: watch::Sender<Link>,
    thread: JoinHandle<()>,
}

impl Relay {
    /// A relay to the broker at `centre` (`HOST:PORT`) and to those it names.
    pub(super) fn start(centre: String) -> anyhow::Result<Self> {
        let (link, state) = watch::channel(Link::Up);
        let (ready, is_ready) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            LocalSet::new().block_on(&runtime, async move {
                let relays = Relays { known: Rc::default(), state };
                let address = relays.address_of(&centre).await;
                let mut state = relays.state.clone();
                // The starter waits for this; it cannot have gone.
                let _ = ready.send(address);
                let _ = state.wait_for(|link| *link == Link::Over).await;
            });
        };
        let thread = std::thread::Builder::new().name("relay".into()).spawn(run)?;
        let address = is_ready.blocking_recv()??;
        Ok(Self { address, link, thread })
    }

    /// Where the edge node finds the centre.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the link.
    pub(super) fn cut(&self) {
        self.link.send_replace(Link::Cut);
    }

    /// Mends it.
    pub(super) fn mend(&self) {
        self.link.send_replace(Link::Up);
    }

    /// Ends it.
    pub(super) fn stop(self) {
        self.link.send_replace(Link::Over);
        // A panic there has been printed by its thread; the account has been made.
        let _ = self.thread.join();
    }
}

/// The relays, one per broker, made as brokers become known.
#[derive(Clone)]
struct Relays {
    known: Rc<RefCell<HashMap<String, SocketAddr>>>,
    state: watch::Receiver<Link>,
}

impl Relays {
    /// Where the relay to this broker listens; made if there is none.
    async fn address_of(&self, broker: &str) -> std::io::Result<SocketAddr> {
        if let Some(address) = self.known.borrow().get(broker) {
            return Ok(*address);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        self.known.borrow_mut().insert(broker.to_owned(), address);
        tokio::task::spawn_local(self.clone().accept(listener, broker.to_owned()));
        Ok(address)
    }

    async fn accept(self, listener: TcpListener, broker: String) {
        while let Ok((edge, _)) = listener.accept().await {
            // Dropped at once while the link is cut.
            if *self.state.borrow() == Link::Up {
                tokio::task::spawn_local(self.clone().pass(edge, broker.clone()));
            }
        }
    }

    /// One connection, until either side or the link ends it.
    async fn pass(self, edge: TcpStream, broker: String) {
        let mut state = self.state.clone();
        tokio::select! {
            _ = state.wait_for(|link| *link != Link::Up) => {}
            ended = self.both_ways(edge, &broker) => if let Err(error) = ended {
                tracing::debug!(%error, broker, "the relay lost a connection");
            }
        }
    }

    async fn both_ways(&self, mut edge: TcpStream, broker: &str) -> anyhow::Result<()> {
        let mut centre = TcpStream::connect(broker).await?;
        for stream in [&edge, &centre] {
            stream.set_nodelay(true)?;
            // Where BBR is the system's default it paces loopback links.
            let _ = socket2::SockRef::from(stream).set_tcp_congestion(b"cubic");
        }
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let (mut edge_in, mut edge_out) = edge.split();
        let (mut centre_in, mut centre_out) = centre.split();
        let up = async {
            let mut frames = FrameReader::new(FRAME_BYTES_MAX);
            while let Some(frame) = frames.frame(&mut edge_in).await? {
                if let Some((correlation, version)) = metadata_request(&frame) {
                    asked.lock().insert(correlation, version);
                }
                write_frame(&mut centre_out, &frame).await?;
            }
            anyhow::Ok(())
        };
        let down = async {
            let mut frames = FrameReader::new(FRAME_BYTES_MAX);
            while let Some(frame) = frames.frame(&mut centre_in).await? {
                let correlation = headwater_kafka::wire::correlation_of(&frame);
                let version = correlation.and_then(|c| asked.lock().remove(&c));
                match correlation.zip(version) {
                    Some((correlation, version)) => {
                        let whole = self.rewrite(frame, correlation, version).await?;
                        edge_out.write_all(&whole).await?;
                    }
                    None => write_frame(&mut edge_out, &frame).await?,
                }
            }
            anyhow::Ok(())
        };
        tokio::select! { ended = up => ended, ended = down => ended }
    }

    /// The Metadata response with every broker's address replaced by its relay's; with its length.
    async fn rewrite(&self, frame: Bytes, correlation: i32, version: i16) -> anyhow::Result<Bytes> {
        let limits = Limits::for_frames_of(FRAME_BYTES_MAX);
        let mut answer = decode_response::<MetadataRequest>(frame, correlation, version, limits)?;
        for broker in &mut answer.brokers {
            let address = self.address_of(&format!("{}:{}", &*broker.host, broker.port)).await?;
            broker.host = address.ip().to_string().as_str().into();
            broker.port = i32::from(address.port());
        }
        Ok(encode_response::<MetadataRequest>(correlation, version, &answer)?)
    }
}

/// Correlation id and version, of a Metadata request.
fn metadata_request(frame: &[u8]) -> Option<(i32, i16)> {
    let [k0, k1, v0, v1, c0, c1, c2, c3] = *frame.first_chunk::<8>()?;
    let key = ApiKey(i16::from_be_bytes([k0, k1]));
    let version = i16::from_be_bytes([v0, v1]);
    (key == ApiKey::METADATA).then(|| (i32::from_be_bytes([c0, c1, c2, c3]), version))
}

async fn write_frame<W: AsyncWrite + Unpin>(out: &mut W, frame: &[u8]) -> anyhow::Result<()> {
    let mut whole = BytesMut::with_capacity(4 + frame.len());
    whole.extend_from_slice(&u32::try_from(frame.len())?.to_be_bytes());
    whole.extend_from_slice(frame);
    out.write_all(&whole).await?;
    Ok(())
}
