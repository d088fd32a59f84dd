//! One connection: frames in, responses out, in the order of the requests.
//!
//! Produce requests are appended as they come, up to `requests_in_flight_max` of them wait for
//! their ack point at a time; any other request waits until those before it are answered, so that
//! it sees what Kafka would show it. No future per request: the list of waiting requests is looked
//! at once per commit cycle.
//!
//! Invariant: a response is written only when all before it are written.
//! Neighbours: `wire::FrameReader` below, `produce` and `apis` do the work.

use super::{Door, apis, produce};
use crate::wire::{
    ApiKey, FrameError, FrameReader, Limits, RequestHead, WireError, decode_request_head,
};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Requests of at most so many bytes need no share of the memory for large requests.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// Requests other than Produce are never larger.
const PLAIN_BYTES_MAX: usize = 1 << 20;

/// Elements of one array in a request: Kafka clients name every partition that they read.
const ARRAY_ELEMENTS_MAX: usize = 20_000;

/// The memory for large requests is shared out in units of so many bytes.
pub(super) const MEMORY_UNIT_BYTES: usize = 4 << 10;

/// How long a stopping process waits for the acknowledgements under way on a connection.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Slices handed to the system in one write.
const SLICES_MAX: usize = 64;

/// Why a connection ended before its peer ended it in order.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// Reading failed, or the frame is not allowed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What is in the frame is not a request, or has no answer.
    #[error("api key {api_key} version {api_version}: {error}")]
    Malformed { api_key: i16, api_version: i16, error: WireError },
    /// Kafka closes the connection, too.
    #[error("api key {api_key} version {api_version} is not served")]
    Unsupported { api_key: i16, api_version: i16 },
    /// A producer that does not want answers is told of errors so (acks=0).
    #[error("a batch was refused and its producer wants no response: {0}")]
    Unanswered(crate::wire::ErrorCode),
    /// Writing failed.
    #[error("writing: {0}")]
    Write(std::io::Error),
    /// Nothing came, or nothing was taken, for too long.
    #[error("{0}")]
    TooSlow(&'static str),
    /// The peer went away during a request.
    #[error("peer went away during a request")]
    Gone,
    /// The process is stopping.
    #[error("stopping")]
    Stopping,
}

impl Ended {
    /// Whether connections end so every day; otherwise the peer sent what it should not have.
    pub(super) fn is_ordinary(&self) -> bool {
        match self {
            Self::Frame(FrameError::Io(_))
            | Self::Write(_)
            | Self::Gone
            | Self::Stopping
            | Self::TooSlow(_) => true,
            Self::Frame(FrameError::Length { .. } | FrameError::Truncated { .. })
            | Self::Malformed { .. }
            | Self::Unsupported { .. }
            | Self::Unanswered(_) => false,
        }
    }
}

/// A request with its header read.
struct Request {
    head: RequestHead,
    body: Bytes,
}

/// The state of one connection.
pub(super) struct Connection<S> {
    door: Door,
    stream: S,
    reader: FrameReader,
    shutdown: watch::Receiver<bool>,
    moved: watch::Receiver<u64>,
    /// Produce requests that wait for their ack point, oldest first.
    waiting: VecDeque<produce::Pending>,
    /// A request that waits until `waiting` is empty.
    held: Option<Request>,
    /// When the last request had come.
    heard_at: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(door: Door, stream: S, shutdown: watch::Receiver<bool>) -> Self {
        Self {
            reader: FrameReader::new(door.settings().request_bytes_max),
            moved: door.log().moved(),
            stream,
            shutdown,
            waiting: VecDeque::new(),
            held: None,
            heard_at: Instant::now(),
            door,
        }
    }

    /// Serves until the end. Ends with `Ok` when the peer closed between two requests.
    pub(super) async fn run(mut self) -> Result<(), Ended> {
        // Cloned, so that a request read in part can keep its share while `self` is used otherwise.
        let door = self.door.clone();
        let mut share = None;
        loop {
            self.write_settled().await?;
            if self.waiting.is_empty()
                && let Some(request) = self.held.take()
            {
                self.answer(request).await?;
                continue;
            }
            match self.next_event(&door, &mut share).await? {
                Event::Moved | Event::Silent => {}
                Event::Frame(Some(frame)) => {
                    self.heard_at = Instant::now();
                    self.begin(frame).await?;
                    share = None;
                }
                Event::Frame(None) => return self.drain(Ok(())).await,
                Event::Stopping => return self.drain(Err(Ended::Stopping)).await,
            }
        }
    }

    /// What happens next: positions moved, a frame is whole, or the process stops. Cancel-safe.
    async fn next_event<'d>(
        &mut self,
        door: &'d Door,
        share: &mut Option<Share<'d>>,
    ) -> Result<Event, Ended> {
        let settings = door.settings();
        let reads = self.held.is_none() && self.waiting.len() < settings.requests_in_flight_max;
        // A large frame under way has a deadline of its own.
        let may_be_silent = self.waiting.is_empty() && share.is_none();
        let silent_at = self.heard_at + settings.idle_max;
        // `sleep_until` needs a moment also where the branch is off.
        let due = self.waiting.front().map_or(silent_at, |pending| pending.deadline);
        let event = tokio::select! {
            biased;
            () = stopping(&mut self.shutdown) => Event::Stopping,
            changed = self.moved.changed(), if !self.waiting.is_empty() => {
                changed.map(|()| Event::Moved).map_err(|_| Ended::Stopping)?
            }
            () = sleep_until(due), if !self.waiting.is_empty() => Event::Moved,
            frame = next_frame(&mut self.reader, &mut self.stream, door, share), if reads => {
                Event::Frame(frame?)
            }
            () = sleep_until(silent_at), if may_be_silent => Event::Silent,
        };
        match event {
            Event::Silent if share.is_none() => Err(Ended::TooSlow("no request for too long")),
            event => Ok(event),
        }
    }

    /// Begins a request: Produce at once, any other when those before it are answered.
    async fn begin(&mut self, frame: Bytes) -> Result<(), Ended> {
        let frame_bytes = frame.len();
        let limits = Limits {
            array_elements_max: ARRAY_ELEMENTS_MAX,
            ..Limits::for_frames_of(self.door.settings().request_bytes_max)
        };
        let (head, body) = decode_request_head(frame, limits, apis::has_tags)
            .map_err(|error| Ended::Malformed { api_key: -1, api_version: -1, error })?;
        let key = ApiKey(head.api_key);
        self.door.shared.figures.request(key, frame_bytes);
        let served = apis::find(key).is_some_and(|api| api.versions.contains(head.api_version));
        if !served && key != ApiKey::API_VERSIONS {
            return Err(Ended::Unsupported {
                api_key: head.api_key,
                api_version: head.api_version,
            });
        }
        if key == ApiKey::PRODUCE {
            return self.produce(&head, body, limits).await;
        }
        self.held = Some(Request { head, body });
        Ok(())
    }

    async fn produce(
        &mut self,
        head: &RequestHead,
        body: Bytes,
        limits: Limits,
    ) -> Result<(), Ended> {
        let malformed = |error| Ended::Malformed {
            api_key: head.api_key,
            api_version: head.api_version,
            error,
        };
        let work = produce::begin(&self.door, head, body, limits);
        let begun = tokio::select! {
            begun = work => begun.map_err(malformed)?,
            () = stopping(&mut self.shutdown) => return Err(Ended::Stopping),
        };
        match begun {
            produce::Begun::Waits(pending) => self.waiting.push_back(pending),
            produce::Begun::Silent(Ok(())) => {}
            produce::Begun::Silent(Err(code)) => return Err(Ended::Unanswered(code)),
        }
        Ok(())
    }

    /// Writes the responses of the oldest Produce requests, as far as they have passed their ack point.
    async fn write_settled(&mut self) -> Result<(), Ended> {
        // Marked as seen before looking: what moves while we look wakes us again.
        self.moved.borrow_and_update();
        let now = Instant::now();
        let mut frames = Vec::new();
        while let Some(pending) = self.waiting.front_mut() {
            if !pending.settle(&self.door, now) {
                break;
            }
            let Some(pending) = self.waiting.pop_front() else { break };
            let frame = pending.encode().map_err(|error| Ended::Malformed {
                api_key: ApiKey::PRODUCE.0,
                api_version: -1,
                error,
            })?;
            frames.push(frame);
        }
        if frames.is_empty() { Ok(()) } else { self.write(frames).await }
    }

    /// Answers a request that is not Produce. The peer may go away, or the process stop, meanwhile.
    async fn answer(&mut self, request: Request) -> Result<(), Ended> {
        let limits = Limits {
            array_elements_max: ARRAY_ELEMENTS_MAX,
            ..Limits::for_frames_of(PLAIN_BYTES_MAX)
        };
        let Request { head, body } = request;
        let answer = Box::pin(apis::answer(&self.door, &head, body, limits));
        let answered = tokio::select! {
            // What needs no waiting is answered also to a peer that has ended its own side.
            biased;
            answered = answer => answered,
            () = gone(&mut self.reader, &mut self.stream) => return Err(Ended::Gone),
            () = stopping(&mut self.shutdown) => return Err(Ended::Stopping),
        };
        let frames = answered.map_err(|error| Ended::Malformed {
            api_key: head.api_key,
            api_version: head.api_version,
            error,
        })?;
        // A long poll is not silence of the peer.
        self.heard_at = Instant::now();
        self.write(frames).await
    }

    /// Writes whole frames. A peer that takes nothing for too long ends the connection.
    async fn write(&mut self, frames: Vec<Bytes>) -> Result<(), Ended> {
        let bytes = frames.iter().map(Bytes::len).sum();
        let stall_max = self.door.settings().stall_max;
        let mut left: VecDeque<Bytes> = frames.into();
        while !left.is_empty() {
            let slices: Vec<IoSlice<'_>> =
                left.iter().take(SLICES_MAX).map(|piece| IoSlice::new(piece)).collect();
            let wrote = timeout_at(Instant::now() + stall_max, self.stream.write_vectored(&slices));
            let wrote = wrote
                .await
                .map_err(|_| Ended::TooSlow("a response was not taken for too long"))?
                .map_err(Ended::Write)?;
            if wrote == 0 {
                return Err(Ended::Write(std::io::ErrorKind::WriteZero.into()));
            }
            advance(&mut left, wrote);
        }
        let flush = timeout_at(Instant::now() + stall_max, self.stream.flush());
        flush
            .await
            .map_err(|_| Ended::TooSlow("a response was not taken for too long"))?
            .map_err(Ended::Write)?;
        self.door.shared.figures.response(bytes);
        Ok(())
    }

    /// Reads no more; answers what waits for its ack point, for a bounded time.
    async fn drain(&mut self, end: Result<(), Ended>) -> Result<(), Ended> {
        let stop_at = Instant::now() + STOP_MAX;
        loop {
            self.write_settled().await?;
            if self.waiting.is_empty() {
                return end;
            }
            let moved = timeout_at(stop_at, self.moved.changed()).await;
            if !matches!(moved, Ok(Ok(()))) {
                return end;
            }
        }
    }
}

enum Event {
    /// Look at what waits.
    Moved,
    /// A request; `None`: the peer has ended its side.
    Frame(Option<Bytes>),
    /// Nothing came for `idle_max`.
    Silent,
    /// The process stops.
    Stopping,
}

/// A connection's share of the memory for large requests, while it receives one.
struct Share<'d> {
    _permit: SemaphorePermit<'d>,
    /// By when the request must have come.
    until: Instant,
}

/// The next frame. A large one gets its share of the memory first, and only Produce may be that large.
/// Cancel-safe: the share stays in `share`, the bytes in the reader.
async fn next_frame<'d, S: AsyncRead + Unpin>(
    reader: &mut FrameReader,
    stream: &mut S,
    door: &'d Door,
    share: &mut Option<Share<'d>>,
) -> Result<Option<Bytes>, Ended> {
    let Some(length) = reader.length(stream).await? else { return Ok(None) };
    if length > SMALL_BYTES_MAX && share.is_none() {
        let front = reader.front(stream, 2).await?;
        if length > PLAIN_BYTES_MAX && front != ApiKey::PRODUCE.0.to_be_bytes() {
            let announced = i32::try_from(length).unwrap_or(i32::MAX);
            let limit_bytes = PLAIN_BYTES_MAX;
            return Err(FrameError::Length { length: announced, limit_bytes }.into());
        }
        let units = u32::try_from(length.div_ceil(MEMORY_UNIT_BYTES)).unwrap_or(u32::MAX);
        // Never closed, and `DoorSettings` keeps the whole above the largest request.
        if let Ok(permit) = door.shared.request_memory.acquire_many(units).await {
            let until = Instant::now() + door.settings().stall_max;
            *share = Some(Share { _permit: permit, until });
        }
    }
    let body = reader.body(stream);
    match share {
        None => Ok(Some(body.await?)),
        Some(share) => match timeout_at(share.until, body).await {
            Ok(body) => Ok(Some(body?)),
            Err(_) => Err(Ended::TooSlow("a large request did not come in time")),
        },
    }
}

/// Resolves when the peer closed or broke the stream; never when it sent another request.
async fn gone<S: AsyncRead + Unpin>(reader: &mut FrameReader, stream: &mut S) {
    if let Ok(Some(_)) = reader.length(stream).await {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the process stops: the watch is true, or its sender is gone.
async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which is a stop, too.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Drops the first `wrote` bytes.
fn advance(left: &mut VecDeque<Bytes>, mut wrote: usize) {
    while let Some(piece) = left.front_mut() {
        if piece.len() > wrote {
            piece.advance(wrote);
            return;
        }
        wrote -= piece.len();
        left.pop_front();
    }
}
