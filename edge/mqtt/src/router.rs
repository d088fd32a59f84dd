//! Step 11 for live subscribers: committed messages of all streams, read once per shard, matched once per message.
//!
//! Invariant: `positions` is where every live session of the shard stands; a session that cannot take a message leaves
//! with exactly that position and comes back at exactly a later one, on the same thread, so that nothing is missed or
//! sent twice. With no subscription on the shard nothing is read. Neighbours: `shard` runs it after each commit,
//! `connection` takes what it hands out and catches up by itself when it could not.

use crate::connection::Connection;
use crate::filter::TopicFilter;
use crate::session::{Delivery, Granted, Matched, Positions, is_own};
use crate::shard::{ConnectionKey, Inner};
use crate::store::{Message, ReadFailure, Store, StreamId};
use crate::tree::SubscriptionTree;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one read of a stream.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// How long a stream that could not be read is left alone.
pub(crate) const UNREADABLE_PAUSE: Duration = Duration::from_secs(1);

/// The subscriptions of a shard and how far they were served.
#[derive(Debug, Default)]
pub(crate) struct Router {
    tree: SubscriptionTree<ConnectionKey, Granted>,
    positions: Positions,
    /// Streams with a read under way elsewhere, or left alone for a while.
    paused: Vec<StreamId>,
}

impl Router {
    /// Adds or replaces a subscription.
    pub(crate) fn insert(&mut self, filter: &TopicFilter, key: ConnectionKey, granted: Granted) {
        self.tree.insert(filter, key, granted);
    }

    /// Takes a subscription out.
    pub(crate) fn remove(&mut self, filter: &TopicFilter, key: ConnectionKey) {
        self.tree.remove(filter, key);
    }

    /// Where live sessions stand.
    pub(crate) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Fixes where a new subscription starts: at the ends there are now. `None`: live sessions stand there too.
    /// `Some(ends)`: they are still behind that.
    pub(crate) fn start_positions<S: Store>(&mut self, store: &S) -> Option<Positions> {
        let streams = store.streams();
        let ends = Positions::new((0..streams).map(|s| store.end(StreamId(s))).collect());
        if self.tree.is_empty() && self.paused.is_empty() {
            self.positions = ends;
            return None;
        }
        self.positions.extend(streams, |stream| store.first(stream));
        let is_there = ends.iter().all(|(stream, end)| self.positions.get(stream) == Some(end));
        (!is_there).then_some(ends)
    }
}

impl<S: Store> Inner<S> {
    /// Reads what was committed and hands it to the sessions it matches.
    pub(crate) fn route(self: &Rc<Self>) {
        if self.router.borrow().tree.is_empty() {
            return;
        }
        let streams = self.shared.store.streams();
        {
            let mut router = self.router.borrow_mut();
            router.positions.extend(streams, |stream| self.shared.store.first(stream));
        }
        for stream in (0..streams).map(StreamId) {
            self.route_stream(stream);
        }
        self.pump_dirty();
    }

    fn route_stream(self: &Rc<Self>, stream: StreamId) {
        let store = &self.shared.store;
        let mut messages = self.messages.take();
        // Not further than what is there now: who appends faster than this reads would keep it here for ever.
        let end = store.end(stream);
        loop {
            let from = {
                let router = self.router.borrow();
                if router.paused.contains(&stream) {
                    break;
                }
                router.positions.get(stream).unwrap_or(u64::MAX)
            };
            if from >= end {
                break;
            }
            if !store.is_in_memory(stream, from) {
                self.route_cold(stream, from);
                break;
            }
            messages.clear();
            let read = store.read(stream, from, READ_BYTES, &mut messages);
            if !self.routed(stream, from, read, &messages) {
                break;
            }
        }
        messages.clear();
        self.messages.replace(messages);
    }

    /// A read that touches the disk runs on the pool; the stream is paused meanwhile.
    fn route_cold(self: &Rc<Self>, stream: StreamId, from: u64) {
        self.router.borrow_mut().paused.push(stream);
        let (inner, store) = (self.clone(), self.shared.store.clone());
        tokio::task::spawn_local(async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut messages = Vec::new();
                let next = store.read(stream, from, READ_BYTES, &mut messages);
                (next, messages)
            });
            // A panic in the store: as unreadable, and tried again.
            let (next, messages) = read.await.unwrap_or_else(|error| {
                (Err(ReadFailure::Damaged { detail: error.to_string(), next: None }), Vec::new())
            });
            inner.router.borrow_mut().paused.retain(|paused| *paused != stream);
            inner.routed(stream, from, next, &messages);
            inner.route();
        });
    }

    /// Hands out what was read and moves the position. `false`: nothing more for now.
    fn routed(
        self: &Rc<Self>,
        stream: StreamId,
        from: u64,
        read: Result<u64, ReadFailure>,
        messages: &[Arc<Message>],
    ) -> bool {
        let next = match read {
            Ok(next) => {
                self.distribute(messages);
                next
            }
            Err(failure) => {
                match self.skip_unreadable(stream, from, &failure, "all live subscribers") {
                    Some(next) => next,
                    None => {
                        self.pause(stream);
                        return false;
                    }
                }
            }
        };
        self.router.borrow_mut().positions.set(stream, next.max(from));
        next > from
    }

    /// Where to go on after a failed read, with the loss recorded. `None`: not now.
    pub(crate) fn skip_unreadable(
        &self,
        stream: StreamId,
        from: u64,
        failure: &ReadFailure,
        subscriber: &str,
    ) -> Option<u64> {
        use crate::counters::DropCause;
        let (cause, next) = match failure {
            ReadFailure::Gone { first } => (DropCause::Retention, *first),
            ReadFailure::Damaged { next: Some(next), .. } => (DropCause::Damaged, *next),
            ReadFailure::Damaged { next: None, detail } => {
                tracing::error!(stream = stream.0, from, detail, "stream cannot be read now");
                return None;
            }
        };
        if next <= from {
            return None;
        }
        tracing::warn!(stream = stream.0, from, next, %failure, subscriber, "messages lost");
        self.counters.add_dropped(cause, next - from);
        self.shared.store.lost(cause.label(), subscriber, stream, from, next);
        Some(next)
    }

    fn pause(self: &Rc<Self>, stream: StreamId) {
        self.router.borrow_mut().paused.push(stream);
        let inner = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(UNREADABLE_PAUSE).await;
            inner.router.borrow_mut().paused.retain(|paused| *paused != stream);
            inner.route();
        });
    }

    fn distribute(self: &Rc<Self>, messages: &[Arc<Message>]) {
        let router = self.router.borrow();
        let connections = self.connections.borrow();
        let mut matches: Vec<(ConnectionKey, Granted)> = self.matches.take();
        for message in messages {
            matches.clear();
            router.tree.for_each_match(&message.topic, |key, granted| {
                matches.push((key, *granted));
            });
            if matches.len() > 1 {
                matches.sort_unstable_by_key(|(key, _)| *key);
            }
            for same in matches.chunk_by(|a, b| a.0 == b.0) {
                let Some(connection) = same.first().and_then(|(key, _)| connections.get(*key))
                else {
                    continue;
                };
                deliver(connection, message, same, router.positions());
            }
        }
        matches.clear();
        self.matches.replace(matches);
    }
}

/// One message to one session: all its matching filters become one delivery.
fn deliver<S: Store>(
    connection: &Rc<Connection<S>>,
    message: &Arc<Message>,
    filters: &[(ConnectionKey, Granted)],
    positions: &Positions,
) {
    let mut matched: Option<Matched> = None;
    for (_, granted) in filters {
        if !is_own(granted, message, connection.client_id()) {
            matched.get_or_insert_default().add(granted);
        }
    }
    if let Some(matched) = matched {
        connection.offer(Delivery { message: message.clone(), matched }, positions);
    }
}
