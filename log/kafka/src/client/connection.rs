//! One connection to one broker: pipelined requests, answered in order.
//!
//! Invariant: the request at the front has a deadline, and when it passes the connection ends: an answer
//! that comes later than that can no longer be told from the next one's, and what lies behind it waits for it.
//! Neighbours: `produce`, `fetch`, `admin`, `producers` put a method per API on [`Connection`].

use super::{ClientError, ClientOptions};
use crate::message;
use crate::wire::messages::{ApiVersionsRequest, RequestResponsePair, StrBytes};
use crate::wire::{
    ApiKey, ErrorCode, FrameReader, Limits, Versions, decode_api_versions_response,
    decode_response, encode_request, negotiate,
};
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// Kernel keep-alive: the first probe after this much silence, then every [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The ApiVersions request sent first; brokers without it answer version 0 (KIP-511).
const API_VERSIONS_VERSION: i16 = 3;

/// A connection to a broker. Cheap to clone; it ends when the last clone is dropped, on an error, or when
/// an answer is overdue.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<Outgoing>,
}

#[derive(Debug)]
struct Shared {
    address: String,
    client_id: StrBytes,
    limits: Limits,
    request_timeout: Duration,
    versions: BTreeMap<i16, Versions>,
    correlation: AtomicI32,
    permits: Arc<Semaphore>,
    pending: Mutex<VecDeque<Pending>>,
    /// Wakes the reader when something became pending.
    sent: Notify,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Outgoing {
    frame: Frame,
    pending: Pending,
}

#[derive(Debug)]
struct Pending {
    correlation: i32,
    deadline: Instant,
    reply: oneshot::Sender<Result<Bytes, ClientError>>,
    /// Held until the answer is here: the bound on requests in flight.
    _permit: Option<OwnedSemaphorePermit>,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Enqueued {
    answer: oneshot::Receiver<Result<Bytes, ClientError>>,
    address: String,
}

impl Enqueued {
    pub(crate) async fn answer(self) -> Result<Bytes, ClientError> {
        let lost = |_| ClientError::Lost { address: self.address, reason: "closed".to_owned() };
        self.answer.await.map_err(lost)?
    }
}

/// A request ready to be written: pieces that are never joined.
#[derive(Debug, Default)]
pub(crate) struct Frame(VecDeque<Bytes>);

impl Frame {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.0.push_back(piece);
        }
    }
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        !self.0.is_empty()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.0) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(front) = self.0.front_mut() {
            if bytes < front.len() {
                front.advance(bytes);
                return;
            }
            bytes -= front.len();
            self.0.pop_front();
        }
    }
}

impl Connection {
    /// Connects to `address` (`HOST:PORT`), tries each address the name has, and asks for the API versions.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], or [`ClientError::Protocol`] when the peer does not speak Kafka.
    pub async fn open(address: &str, options: &ClientOptions) -> Result<Self, ClientError> {
        let unreachable =
            |reason: String| ClientError::Unreachable { address: address.to_owned(), reason };
        match timeout(options.connect_timeout, Self::open_unbounded(address, options)).await {
            Ok(opened) => opened,
            Err(_) => Err(unreachable(format!(
                "no connection within {} ms",
                options.connect_timeout.as_millis()
            ))),
        }
    }

    async fn open_unbounded(address: &str, options: &ClientOptions) -> Result<Self, ClientError> {
        let unreachable = |e: std::io::Error| ClientError::Unreachable {
            address: address.to_owned(),
            reason: e.to_string(),
        };
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        set_options(&stream, options.request_timeout).map_err(unreachable)?;
        let (mut read, mut write) = stream.into_split();
        let limits = Limits::for_frames_of(options.frame_bytes_max);
        let mut frames = FrameReader::new(options.frame_bytes_max);
        let client_id = StrBytes::from(options.client_id.as_str());
        let versions =
            learn_versions(address, &client_id, limits, &mut frames, &mut read, &mut write).await?;
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            client_id,
            limits,
            request_timeout: options.request_timeout,
            versions,
            correlation: AtomicI32::new(1),
            permits: Arc::new(Semaphore::new(options.in_flight_max.max(1))),
            pending: Mutex::new(VecDeque::new()),
            sent: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let (requests, outgoing) = mpsc::unbounded_channel();
        tokio::spawn(run(shared.clone(), frames, read, write, outgoing));
        Ok(Self { shared, requests })
    }

    /// The address it was opened with.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Whether it has ended; every further call answers [`ClientError::Lost`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// The version of an API to use: the highest that the broker and `ours` have.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`].
    pub fn version(&self, key: ApiKey, ours: Versions) -> Result<i16, ClientError> {
        let theirs = self.shared.versions.get(&key.0).copied();
        theirs.and_then(|theirs| negotiate(ours, theirs)).ok_or_else(|| ClientError::Unsupported {
            address: self.shared.address.clone(),
            api_key: key.0,
        })
    }

    /// Sends a request at the highest common version and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Lost`] leaves the outcome open. Dropping the future does not take the
    /// request back.
    pub async fn call<R: RequestResponsePair>(
        &self,
        ours: Versions,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let version = self.version(ApiKey::of::<R>(), ours)?;
        let correlation = self.next_correlation();
        let mut frame = BytesMut::new();
        encode_request(&mut frame, correlation, Some(&self.shared.client_id), version, request)
            .map_err(|e| self.protocol(e.to_string()))?;
        let mut pieces = Frame::default();
        pieces.push(frame.freeze());
        let answer = self.exchange(correlation, pieces, self.shared.request_timeout).await?;
        decode_response::<R>(answer, correlation, version, self.shared.limits)
            .map_err(|e| self.protocol(e.to_string()))
    }

    /// Sends a ready frame and waits for the answer's frame (without its length).
    async fn exchange(
        &self,
        correlation: i32,
        frame: Frame,
        within: Duration,
    ) -> Result<Bytes, ClientError> {
        let permits = self.shared.permits.clone();
        let permit = permits.acquire_owned().await.map_err(|_| self.lost("closed"))?;
        self.enqueue(correlation, frame, within, Some(permit)).answer().await
    }

    /// Puts a ready frame behind those before it, at once. Who calls this bounds what is in flight.
    pub(crate) fn enqueue(
        &self,
        correlation: i32,
        frame: Frame,
        within: Duration,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Enqueued {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + within;
        let pending = Pending { correlation, deadline, reply, _permit: permit };
        // A closed channel drops the frame and with it the reply: the answer is then that it was lost.
        let _ = self.requests.send(Outgoing { frame, pending });
        Enqueued { answer, address: self.shared.address.clone() }
    }

    pub(crate) fn next_correlation(&self) -> i32 {
        self.shared.correlation.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn client_id(&self) -> &StrBytes {
        &self.shared.client_id
    }

    pub(crate) fn limits(&self) -> Limits {
        self.shared.limits
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.shared.request_timeout
    }

    pub(crate) fn protocol(&self, reason: String) -> ClientError {
        ClientError::Protocol { address: self.shared.address.clone(), reason }
    }

    fn lost(&self, reason: &str) -> ClientError {
        ClientError::Lost { address: self.shared.address.clone(), reason: reason.to_owned() }
    }
}

/// A link that has died in silence must be noticed: probes while idle, a bound on unacknowledged bytes.
fn set_options(stream: &TcpStream, unacknowledged: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    Ok(())
}

/// The first exchange on a connection, before the tasks exist.
async fn learn_versions(
    address: &str,
    client_id: &StrBytes,
    limits: Limits,
    frames: &mut FrameReader,
    read: &mut OwnedReadHalf,
    write: &mut OwnedWriteHalf,
) -> Result<BTreeMap<i16, Versions>, ClientError> {
    let failed = |reason: String| ClientError::Protocol { address: address.to_owned(), reason };
    let request = message!(ApiVersionsRequest {
        client_software_name: "headwater".into(),
        client_software_version: env!("CARGO_PKG_VERSION").into(),
    });
    for version in [API_VERSIONS_VERSION, 0] {
        let mut frame = BytesMut::new();
        let request = if version == 0 { ApiVersionsRequest::default() } else { request.clone() };
        encode_request(&mut frame, 0, Some(client_id), version, &request)
            .map_err(|e| failed(e.to_string()))?;
        write.write_all(&frame).await.map_err(|e| failed(e.to_string()))?;
        let answer = frames.frame(read).await.map_err(|e| failed(e.to_string()))?;
        let answer = answer.ok_or_else(|| failed("closed during the first exchange".to_owned()))?;
        let answer = decode_api_versions_response(answer, 0, version, limits)
            .map_err(|e| failed(e.to_string()))?;
        if answer.error_code == ErrorCode::UnsupportedVersion.code() && version > 0 {
            continue;
        }
        super::error::check(answer.error_code, None)?;
        let range = |k: &crate::wire::messages::api_versions_response::ApiVersion| {
            (k.api_key, Versions::new(k.min_version, k.max_version))
        };
        return Ok(answer.api_keys.iter().map(range).collect());
    }
    Err(failed("no version of ApiVersions in common".to_owned()))
}

/// The task of a connection: reads and writes until either ends, then fails all that is pending.
async fn run(
    shared: Arc<Shared>,
    frames: FrameReader,
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
) {
    let mut outgoing = outgoing;
    let reason = tokio::select! {
        reason = read_all(&shared, frames, read) => reason,
        reason = write_all(&shared, write, &mut outgoing) => reason,
    };
    shared.closed.store(true, Ordering::Release);
    outgoing.close();
    let fail = |pending: Pending| {
        let lost = ClientError::Lost { address: shared.address.clone(), reason: reason.clone() };
        // A caller that has gone does not want the answer.
        let _ = pending.reply.send(Err(lost));
    };
    let waiting = std::mem::take(&mut *shared.pending.lock());
    waiting.into_iter().for_each(fail);
    while let Some(unsent) = outgoing.recv().await {
        fail(unsent.pending);
    }
}

async fn write_all(
    shared: &Shared,
    mut write: OwnedWriteHalf,
    outgoing: &mut mpsc::UnboundedReceiver<Outgoing>,
) -> String {
    while let Some(Outgoing { mut frame, pending }) = outgoing.recv().await {
        // Before the first byte: the answer may be here before the last one is written.
        shared.pending.lock().push_back(pending);
        shared.sent.notify_one();
        if let Err(error) = write.write_all_buf(&mut frame).await {
            return error.to_string();
        }
    }
    "closed here".to_owned()
}

async fn read_all(shared: &Shared, mut frames: FrameReader, mut read: OwnedReadHalf) -> String {
    loop {
        let deadline = shared.pending.lock().front().map(|front| front.deadline);
        let frame = match deadline {
            Some(deadline) => match timeout_at(deadline, frames.frame(&mut read)).await {
                Ok(frame) => frame,
                Err(_) => return "no answer in time".to_owned(),
            },
            None => tokio::select! {
                frame = frames.frame(&mut read) => frame,
                () = shared.sent.notified() => continue,
            },
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return "closed by the broker".to_owned(),
            Err(error) => return error.to_string(),
        };
        let found = crate::wire::correlation_of(&frame);
        let Some(pending) = shared.pending.lock().pop_front() else {
            return "an answer to no request".to_owned();
        };
        if found != Some(pending.correlation) {
            let reason = format!("answer {found:?} where {} was due", pending.correlation);
            let lost =
                ClientError::Lost { address: shared.address.clone(), reason: reason.clone() };
            let _ = pending.reply.send(Err(lost));
            return reason;
        }
        let _ = pending.reply.send(Ok(frame));
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
