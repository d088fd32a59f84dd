//! One client's connection past CONNECT: one task, one socket, one session.
//!
//! The task sleeps until the socket, the shard or a deadline has something for it; acknowledgements and live messages
//! are written from the shard's own wake without waking the task. Invariant: nothing waits in memory without a limit,
//! and a peer that does not read, or says nothing, is gone after a bounded time. Neighbours: `handshake` makes it,
//! `receive` takes packets in, `send` writes, `catch_up` reads the log for a session that fell behind.

mod catch_up;
mod packets;
mod receive;
mod send;

pub(crate) use send::finish;

use crate::codec::{
    Decoder, Disconnect, DisconnectProperties, Packet, ReasonCode, Version, encode,
};
use crate::counters::RefuseCause;
use crate::registry::Claim;
use crate::server::Slot;
use crate::session::{Cursor, Negotiated, Session};
use crate::shard::{ConnectionKey, Inner};
use crate::store::{Publisher, Store, StreamId};
use bytes::BytesMut;
use catch_up::ColdRead;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// A connection of a shard.
pub(crate) struct Connection<S: Store> {
    shard: Rc<Inner<S>>,
    key: ConnectionKey,
    stream: TcpStream,
    peer: SocketAddr,
    publisher: Publisher,
    decoder: Decoder,
    silence_max: Option<Duration>,
    /// Whether the client may name a session expiry in its DISCONNECT. (3.14.2.2.2)
    expiry_asked: bool,
    state: RefCell<State<S::Ticket>>,
    waker: RefCell<Option<Waker>>,
    retained_seen: Cell<bool>,
}

pub(crate) struct State<T> {
    session: Session<T>,
    /// Bytes read and not yet handled: the front of a packet, or packets that wait for the append path.
    unread: Vec<u8>,
    /// How many bytes `unread` must have before it is worth looking at again.
    unread_wanted: usize,
    /// Bytes for the socket that it did not take yet.
    unwritten: BytesMut,
    /// Since when the socket has taken nothing.
    stalled_since: Option<Instant>,
    last_read: Instant,
    /// Since when the append path has been full for this connection.
    blocked_since: Option<Instant>,
    /// When to offer the messages again even without a wake: then QoS 0 has waited long enough.
    retry_at: Option<Instant>,
    /// The append path may have room again.
    retry: bool,
    /// Catching up waits for this (the router, or a pause after a failed read).
    catch_up: CatchUp,
    /// The stream to look at first when catching up: one that cannot be read must not hold up the others.
    catch_up_stream: StreamId,
    /// Leaving: no more reading; acknowledgements owed may still come until then.
    draining: Option<Instant>,
    closing: Option<Close>,
    /// In the shard's lists.
    listed_waiting: bool,
    listed_dirty: bool,
    listed_behind: bool,
    listed_blocked: bool,
    /// This connection's part of the shard's gauges.
    counted_bytes: usize,
    counted_pending: usize,
}

impl<S: Store> Drop for Connection<S> {
    fn drop(&mut self) {
        self.shard.shared.store.withdrawn(&self.publisher);
    }
}

/// Whether a session that is behind can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CatchUp {
    Ready,
    /// Until the shard's next wake.
    Waiting,
    /// A stream could not be read.
    Until(Instant),
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// The client said DISCONNECT or is gone: nothing to say.
    Quiet,
    /// The server ends it: MQTT 5 clients are told why. [MQTT-4.13.1-1]
    Told { reason: ReasonCode, detail: &'static str, cause: RefuseCause },
}

/// What the handshake found out.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) negotiated: Negotiated,
    pub(crate) client_id: Arc<str>,
    pub(crate) claim: Claim,
    pub(crate) slot: Slot,
    /// What came behind the CONNECT already.
    pub(crate) unread: Vec<u8>,
}

/// What a task has to do.
#[derive(Debug, Default)]
struct Due {
    read: bool,
    write: bool,
    retry: bool,
    catch_up: bool,
    cold: Option<catch_up::ColdResult>,
}

impl<S: Store> Connection<S> {
    fn new(
        shard: Rc<Inner<S>>,
        key: ConnectionKey,
        established: Established,
        now: Instant,
    ) -> (Self, Claim, Slot) {
        let Established { stream, peer, negotiated, client_id, claim, slot, unread } = established;
        let limits = &shard.shared.limits;
        let mut decoder =
            Decoder::server(u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX));
        decoder.set_version(negotiated.version);
        let session = Session::new(&negotiated, limits);
        let state = RefCell::new(State {
            session,
            unread_wanted: 0,
            retry: !unread.is_empty(),
            unread,
            unwritten: BytesMut::new(),
            stalled_since: None,
            last_read: now,
            blocked_since: None,
            retry_at: None,
            catch_up: CatchUp::Ready,
            catch_up_stream: StreamId(0),
            draining: None,
            closing: None,
            listed_waiting: false,
            listed_dirty: false,
            listed_behind: false,
            listed_blocked: false,
            counted_bytes: 0,
            counted_pending: 0,
        });
        let connection = Self {
            shard,
            key,
            stream,
            peer,
            publisher: Publisher::new(client_id),
            decoder,
            silence_max: negotiated.silence_max,
            expiry_asked: negotiated.session_expiry_interval_s.is_some(),
            state,
            waker: RefCell::default(),
            retained_seen: Cell::new(false),
        };
        (connection, claim, slot)
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.publisher.client_id
    }

    /// Lets the connection's own task look again.
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The append path may have room again.
    pub(crate) fn retry(&self) {
        let mut state = self.state.borrow_mut();
        state.listed_blocked = false;
        state.retry = true;
        self.wake();
    }

    /// The router moved: a session that is behind may go on. `false`: it is behind no more.
    pub(crate) fn resume(&self) -> bool {
        let mut state = self.state.borrow_mut();
        if state.closing.is_some() || !state.session.is_behind() {
            state.listed_behind = false;
            return false;
        }
        if state.catch_up == CatchUp::Waiting {
            state.catch_up = CatchUp::Ready;
            self.wake();
        }
        true
    }

    /// No more reading; leave when nothing is owed, at `deadline` at the latest.
    pub(crate) fn drain(&self, deadline: Instant) {
        let mut state = self.state.borrow_mut();
        state.draining = Some(deadline);
        // What waits for the append path was not acknowledged: the client sends it again elsewhere, or later.
        state.unread = Vec::new();
        self.unblock(&mut state);
        self.wake();
    }

    /// Brings the shard's gauges up to date. Whoever changed what they count calls it, once per packet run or wake.
    fn account(&self, state: &mut State<S::Ticket>) {
        if state.closing.is_some() {
            // The last counts are given back when it leaves; it may have left.
            return;
        }
        let bytes =
            state.unread.len() + state.unwritten.len() + state.session.outbound.queued_bytes();
        let pending = state.session.inbound.len();
        let counters = &self.shard.counters;
        counters.buffered_bytes.add(bytes as u64);
        counters.buffered_bytes.sub(state.counted_bytes as u64);
        counters.pending.add(pending as u64);
        counters.pending.sub(state.counted_pending as u64);
        (state.counted_bytes, state.counted_pending) = (bytes, pending);
    }

    /// Whether the shard may keep more bytes.
    fn may_buffer(&self, bytes: usize) -> bool {
        let max = self.shard.shared.limits.buffered_bytes_per_shard_max;
        self.shard.counters.buffered_bytes.get().saturating_add(bytes as u64) <= max as u64
    }

    fn close(&self, state: &mut State<S::Ticket>, close: Close) {
        if state.closing.is_none() {
            state.closing = Some(close);
            self.wake();
        }
    }
}

/// Serves an established connection to its end.
pub(crate) async fn run<S: Store>(shard: Rc<Inner<S>>, established: Established) {
    let now = Instant::now();
    let mut kept = None;
    let connection = shard.connections.borrow_mut().insert(|key| {
        let (connection, claim, slot) = Connection::new(shard.clone(), key, established, now);
        kept = Some((claim, slot));
        Rc::new(connection)
    });
    let Some((mut claim, slot)) = kept else { return };
    shard.counters.connections.add(1);
    shard.counters.connected.add(1);
    if let Some(wish) = *shard.shared.stop.borrow() {
        connection.drain(now + wish);
    }
    connection.serve(&mut claim).await;
    connection.leave();
    // The session is gone: whoever waits for the identifier may have it.
    drop(claim);
    shard.counters.connections.sub(1);
    connection.farewell().await;
    drop(slot);
}

impl<S: Store> Connection<S> {
    async fn serve(self: &Rc<Self>, claim: &mut Claim) {
        let mut sleep: Option<Pin<Box<Sleep>>> = None;
        let mut cold = ColdRead::default();
        loop {
            let due = poll_fn(|cx| self.poll_due(cx, claim, &mut sleep, &mut cold)).await;
            let Some(due) = due else { return };
            let mut busy = due.catch_up || due.cold.is_some();
            if due.write {
                self.flush();
            }
            if due.retry {
                self.handle_unread();
            }
            if due.read {
                busy |= self.receive();
            }
            if let Some(result) = due.cold {
                self.caught_up(result);
            }
            if due.catch_up {
                self.catch_up(&mut cold);
            }
            if busy {
                // Others of this shard come first.
                tokio::task::yield_now().await;
            }
        }
    }

    /// What is to be done now; `None`: the end.
    fn poll_due(
        &self,
        cx: &mut Context<'_>,
        claim: &mut Claim,
        sleep: &mut Option<Pin<Box<Sleep>>>,
        cold: &mut ColdRead,
    ) -> Poll<Option<Due>> {
        let mut state = self.state.borrow_mut();
        if claim.poll_asked(cx).is_ready() {
            // [MQTT-3.1.4-3]
            state.closing.get_or_insert(Close::Told {
                reason: ReasonCode::SessionTakenOver,
                detail: "another connection uses this client identifier",
                cause: RefuseCause::TakenOver,
            });
        }
        if state.draining.is_some() && state.session.inbound.is_idle() {
            self.close_for_shutdown(&mut state);
        }
        loop {
            if state.closing.is_some() {
                return Poll::Ready(None);
            }
            let mut due = Due {
                retry: std::mem::take(&mut state.retry),
                catch_up: self.can_catch_up(&state, cold),
                cold: cold.poll(cx),
                ..Due::default()
            };
            if state.draining.is_none() && state.blocked_since.is_none() {
                due.read = self.stream.poll_read_ready(cx).is_ready();
            }
            if !state.unwritten.is_empty() {
                due.write = self.stream.poll_write_ready(cx).is_ready();
            }
            if due.retry || due.catch_up || due.cold.is_some() || due.read || due.write {
                return Poll::Ready(Some(due));
            }
            let Some(deadline) = self.next_deadline(&state) else { break };
            let timer = match sleep {
                Some(timer) => {
                    // An earlier wake than needed costs one look; only a later one must be mended.
                    if timer.deadline() > deadline || timer.is_elapsed() {
                        timer.as_mut().reset(deadline);
                    }
                    timer
                }
                None => sleep.insert(Box::pin(tokio::time::sleep_until(deadline))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
            self.on_deadline(&mut state, Instant::now());
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The next moment at which something is to be decided, if nothing else happens.
    fn next_deadline(&self, state: &State<S::Ticket>) -> Option<Instant> {
        let limits = &self.shard.shared.limits;
        let silence = match (state.blocked_since, state.draining) {
            // Keep-alive is suspended: it is the server that does not read.
            (Some(_), _) => state.retry_at,
            (None, Some(deadline)) => Some(deadline),
            (None, None) => self.silence_max.map(|silence| state.last_read + silence),
        };
        let stall = state.stalled_since.map(|since| since + limits.write_timeout);
        let catch_up = match state.catch_up {
            CatchUp::Until(at) => Some(at),
            CatchUp::Ready | CatchUp::Waiting => None,
        };
        [silence, state.draining, stall, catch_up].into_iter().flatten().min()
    }

    fn on_deadline(&self, state: &mut State<S::Ticket>, now: Instant) {
        let limits = &self.shard.shared.limits;
        let told = |reason, detail, cause| Some(Close::Told { reason, detail, cause });
        if state.draining.is_some_and(|deadline| deadline <= now) {
            state.closing = told(
                ReasonCode::ServerShuttingDown,
                "server is shutting down",
                RefuseCause::Shutdown,
            );
            return;
        }
        if state.stalled_since.is_some_and(|since| since + limits.write_timeout <= now) {
            state.closing =
                told(ReasonCode::QuotaExceeded, "client does not read", RefuseCause::NotReading);
            return;
        }
        if matches!(state.catch_up, CatchUp::Until(at) if at <= now) {
            state.catch_up = CatchUp::Ready;
        }
        match state.blocked_since {
            Some(_) => state.retry |= state.retry_at.is_some_and(|at| at <= now),
            None if state.draining.is_none()
                && self.silence_max.is_some_and(|silence| state.last_read + silence <= now) =>
            {
                // [MQTT-3.1.2-22]
                state.closing = told(
                    ReasonCode::KeepAliveTimeout,
                    "nothing from the client for one and a half keep-alive intervals",
                    RefuseCause::KeepAlive,
                );
            }
            None => {}
        }
    }

    /// Takes the session out of the shard: nothing is delivered to it or waits for it from here on.
    fn leave(&self) {
        let mut state = self.state.borrow_mut();
        let mut router = self.shard.router.borrow_mut();
        for (filter, _) in state.session.subscriptions.iter() {
            router.remove(filter, self.key);
        }
        self.shard.counters.subscriptions.sub(state.session.subscriptions.len() as u64);
        if state.session.is_behind() {
            state.session.cursor = Cursor::Live;
            self.shard.counters.behind.sub(1);
        }
        if state.blocked_since.take().is_some() {
            self.shard.counters.blocked.sub(1);
        }
        self.shard.connections.borrow_mut().remove(self.key);
        drop(router);
        let counters = &self.shard.counters;
        counters.buffered_bytes.sub(std::mem::take(&mut state.counted_bytes) as u64);
        counters.pending.sub(std::mem::take(&mut state.counted_pending) as u64);
    }

    /// Says why, as far as the version has words for it, and closes without losing these last bytes.
    async fn farewell(&self) {
        let close = self.state.borrow_mut().closing;
        let Some(Close::Told { reason, detail, cause }) = close else { return };
        self.shard.counters.add_refused(cause, 1);
        let client = self.client_id();
        if matches!(cause, RefuseCause::Shutdown | RefuseCause::TakenOver | RefuseCause::KeepAlive)
        {
            tracing::debug!(client, peer = %self.peer, ?reason, detail, "connection ended");
        } else {
            tracing::info!(client, peer = %self.peer, ?reason, detail, "connection ended");
        }
        let version = self.decoder.version().unwrap_or(Version::V311);
        let mut last = std::mem::take(&mut self.state.borrow_mut().unwritten);
        if version == Version::V5 {
            let packet = Packet::Disconnect(Disconnect {
                reason,
                properties: DisconnectProperties {
                    reason_string: Some(detail),
                    ..DisconnectProperties::default()
                },
            });
            let bytes_max = self.state.borrow().session.outbound.packet_bytes_max();
            let bare = Packet::Disconnect(Disconnect::new(reason));
            if encode(&packet, version, bytes_max, &mut last).is_err() {
                // [MQTT-3.14.2-3]: without the words then; and a client that takes not even that gets nothing.
                let _ = encode(&bare, version, bytes_max, &mut last);
            }
        }
        finish(&self.stream, &last).await;
    }
}
