//! A session that fell behind reads the log from its own positions until it stands where the live ones stand.
//!
//! Invariant: it joins only when its position equals the router's in every stream, on the shard's thread, so that the
//! hand-over leaves no gap and repeats nothing. Reads that touch the disk run on the pool, one at a time per session.

use super::{CatchUp, Connection, State};
use crate::counters::DropCause;
use crate::router::{READ_BYTES, UNREADABLE_PAUSE};
use crate::session::{Cursor, Delivery};
use crate::store::{Message, ReadFailure, Store, StreamId};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What a read on the pool brought.
#[derive(Debug)]
pub(super) struct ColdResult {
    stream: StreamId,
    from: u64,
    next: Result<u64, ReadFailure>,
    messages: Vec<Arc<Message>>,
}

/// At most one read on the pool.
#[derive(Debug, Default)]
pub(super) struct ColdRead(Option<(StreamId, u64, JoinHandle<Answer>)>);

type Answer = (Result<u64, ReadFailure>, Vec<Arc<Message>>);

impl ColdRead {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<ColdResult> {
        let (stream, from, read) = self.0.as_mut()?;
        let Poll::Ready(answer) = Pin::new(read).poll(cx) else { return None };
        let (stream, from) = (*stream, *from);
        self.0 = None;
        // A panic in the store: as unreadable, and tried again after a pause.
        let (next, messages) = answer.unwrap_or_else(|error| {
            (Err(ReadFailure::Damaged { detail: error.to_string(), next: None }), Vec::new())
        });
        Some(ColdResult { stream, from, next, messages })
    }
}

impl<S: Store> Connection<S> {
    /// Whether the next step of catching up can be made now.
    pub(super) fn can_catch_up(&self, state: &State<S::Ticket>, cold: &ColdRead) -> bool {
        state.session.is_behind()
            && state.catch_up == CatchUp::Ready
            && cold.0.is_none()
            && state.draining.is_none()
            && state.session.outbound.is_half_empty()
            && state.unwritten.len() < self.shard.shared.limits.write_buffer_bytes
    }

    /// One step: a read of one stream, or joining the live sessions.
    pub(super) fn catch_up(self: &Rc<Self>, cold: &mut ColdRead) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some((stream, from, live)) = self.next_to_read(state) else {
            return self.join(state);
        };
        let store = &self.shard.shared.store;
        let bytes_max = state.session.outbound.room_bytes().clamp(4 * 1024, READ_BYTES);
        if store.is_in_memory(stream, from) {
            let mut messages = self.shard.messages.take();
            messages.clear();
            let next = store.read(stream, from, bytes_max, &mut messages);
            self.take_read(state, stream, from, next, &messages);
            messages.clear();
            self.shard.messages.set(messages);
        } else if state.session.subscriptions.has_acknowledged() {
            let store = store.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut messages = Vec::new();
                let next = store.read(stream, from, bytes_max, &mut messages);
                (next, messages)
            });
            cold.0 = Some((stream, from, read));
        } else {
            // Nobody was promised what is no longer in memory: at QoS 0 a slow subscriber goes on at the live position.
            let cause = DropCause::SlowSubscriber;
            self.shard.counters.add_dropped(cause, live - from);
            store.lost(cause.label(), self.client_id(), stream, from, live);
            self.move_to(state, stream, live);
        }
    }

    /// A read on the pool ended.
    pub(super) fn caught_up(self: &Rc<Self>, result: ColdResult) {
        let mut state = self.state.borrow_mut();
        let ColdResult { stream, from, next, messages } = result;
        self.take_read(&mut state, stream, from, next, &messages);
    }

    /// The next stream, in turn, in which the session stands before the live sessions: where, and where they are.
    fn next_to_read(&self, state: &mut State<S::Ticket>) -> Option<(StreamId, u64, u64)> {
        let router = self.shard.router.borrow();
        let store = &self.shard.shared.store;
        let Cursor::Behind(positions) = &mut state.session.cursor else { return None };
        let live = router.positions();
        positions.extend(live.streams(), |stream| store.first(stream));
        let streams = live.streams();
        let first = state.catch_up_stream.0 % streams.max(1);
        let found = (first..streams).chain(0..first).map(StreamId).find_map(|stream| {
            let (from, live) = (positions.get(stream)?, live.get(stream)?);
            (from < live).then_some((stream, from, live))
        });
        if let Some((stream, ..)) = found {
            state.catch_up_stream = StreamId(stream.0.wrapping_add(1));
        }
        found
    }

    /// The session stands where the live ones stand: it is one of them, unless a subscription of it starts later.
    fn join(&self, state: &mut State<S::Ticket>) {
        if !state.session.is_behind() {
            return;
        }
        let router = self.shard.router.borrow();
        let is_past = |since: &crate::session::Positions| {
            since.iter().all(|(stream, start)| {
                router.positions().get(stream).is_some_and(|live| live >= start)
            })
        };
        let all_started =
            state.session.subscriptions.iter().all(|(_, s)| s.since.as_deref().is_none_or(is_past));
        if !all_started {
            state.catch_up = CatchUp::Waiting;
            return;
        }
        state.session.subscriptions.forget_since();
        state.session.cursor = Cursor::Live;
        self.shard.counters.behind.sub(1);
    }

    fn move_to(&self, state: &mut State<S::Ticket>, stream: StreamId, next: u64) {
        if let Cursor::Behind(positions) = &mut state.session.cursor {
            positions.set(stream, next);
        }
    }

    /// Queues what of a read is for this session, and moves its position past it.
    fn take_read(
        self: &Rc<Self>,
        state: &mut State<S::Ticket>,
        stream: StreamId,
        from: u64,
        next: Result<u64, ReadFailure>,
        messages: &[Arc<Message>],
    ) {
        let Cursor::Behind(positions) = &state.session.cursor else { return };
        if positions.get(stream) != Some(from) {
            // It unsubscribed from everything and fell behind again while the read was under way.
            return;
        }
        let Some(live) = self.shard.router.borrow().positions().get(stream) else { return };
        let next = match next {
            Ok(next) if next > from => next,
            Ok(_) => return self.pause_catch_up(state),
            Err(failure) => {
                let client = self.client_id();
                match self.shard.skip_unreadable(stream, from, &failure, client) {
                    Some(next) => next,
                    None => return self.pause_catch_up(state),
                }
            }
        };
        // What the live sessions have not had yet is the router's to deliver.
        let mut reached = next.min(live);
        for message in messages {
            if message.offset < from || message.offset >= live {
                continue;
            }
            let Some(matched) =
                state.session.subscriptions.matched(message, &self.publisher.client_id)
            else {
                continue;
            };
            if !self.has_room_for(state, message) {
                self.pump(state);
            }
            if !self.has_room_for(state, message) {
                reached = message.offset;
                break;
            }
            state.session.outbound.push(Delivery { message: message.clone(), matched });
        }
        self.move_to(state, stream, reached);
        self.pump(state);
        self.account(state);
    }

    fn pause_catch_up(&self, state: &mut State<S::Ticket>) {
        state.catch_up = CatchUp::Until(Instant::now() + UNREADABLE_PAUSE);
    }
}
