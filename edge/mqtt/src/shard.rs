//! One thread's share of the server: its connections, its router, its buffers, and the one task that wakes on commits.
//!
//! Invariant: everything here lives on one thread and no borrow is held across an await. Neighbours: the process makes
//! one per current-thread runtime and hands it sockets; `connection` has a task per socket.

use crate::codec::Publish;
use crate::connection::Connection;
use crate::counters::{RefuseCause, ShardCounters};
use crate::handshake;
use crate::router::Router;
use crate::server::{Shared, Slot};
use crate::session::Granted;
use crate::store::{Message, Outcome, Store};
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes of the read buffer that all connections of a shard share.
const INPUT_BYTES: usize = 64 * 1024;

/// One shard. Cheap to clone; belongs to the thread that made it.
pub struct Shard<S: Store>(Rc<Inner<S>>);

impl<S: Store> std::fmt::Debug for Shard<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard").field("sockets", &self.0.sockets.get()).finish_non_exhaustive()
    }
}

impl<S: Store> Clone for Shard<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A connection's place in its shard's table. Used again after the connection is gone and its subscriptions with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionKey(u32);

pub(crate) struct Inner<S: Store> {
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) router: RefCell<Router>,
    pub(crate) connections: RefCell<ConnectionTable<S>>,
    /// Connections whose messages wait for the store.
    pub(crate) waiting: RefCell<Vec<Rc<Connection<S>>>>,
    /// Connections that do not read because the append path was full.
    pub(crate) blocked: RefCell<Vec<Rc<Connection<S>>>>,
    /// Connections that read the log on their own.
    pub(crate) behind: RefCell<Vec<Rc<Connection<S>>>>,
    /// Connections that were offered messages which are not written yet.
    pub(crate) dirty: RefCell<Vec<Rc<Connection<S>>>>,
    /// Read buffer.
    pub(crate) input: RefCell<Box<[u8]>>,
    /// Write buffer.
    pub(crate) output: RefCell<BytesMut>,
    /// Memory that is used again, always left empty.
    pub(crate) batch: Cell<Vec<Publish<'static>>>,
    pub(crate) outcomes: Cell<Vec<Outcome<S::Ticket>>>,
    pub(crate) messages: Cell<Vec<Arc<Message>>>,
    pub(crate) matches: Cell<Vec<(ConnectionKey, Granted)>>,
    /// Sockets in whatever state, and who waits for them to be gone.
    sockets: Cell<usize>,
    drained: Notify,
    started: Instant,
}

impl<S: Store> Shard<S> {
    /// A shard on the current thread. Call within a `LocalSet` (or local runtime): it starts its task there.
    #[must_use]
    pub fn new(shared: Arc<Shared<S>>) -> Self {
        let counters = shared.add_shard();
        let inner = Rc::new(Inner {
            shared,
            counters,
            router: RefCell::default(),
            connections: RefCell::new(ConnectionTable::new()),
            waiting: RefCell::default(),
            blocked: RefCell::default(),
            behind: RefCell::default(),
            dirty: RefCell::default(),
            input: RefCell::new(vec![0; INPUT_BYTES].into()),
            output: RefCell::default(),
            batch: Cell::default(),
            outcomes: Cell::default(),
            messages: Cell::default(),
            matches: Cell::default(),
            sockets: Cell::new(0),
            drained: Notify::new(),
            started: Instant::now(),
        });
        tokio::task::spawn_local(inner.clone().follow_commits());
        tokio::task::spawn_local(inner.clone().follow_stop());
        Self(inner)
    }

    /// Takes a socket over: a task of its own reads its CONNECT under a deadline, then serves it. Returns at once;
    /// the socket is closed at once where too many others have not finished their CONNECT.
    pub fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let inner = &self.0;
        if inner.shared.is_stopping() {
            inner.counters.add_refused(RefuseCause::Shutdown, 1);
            return;
        }
        let Some(slot) = Slot::take(&inner.shared.handshakes, inner.shared.limits.handshakes_max)
        else {
            inner.counters.add_refused(RefuseCause::HandshakesMax, 1);
            return;
        };
        let open = inner.socket();
        tokio::task::spawn_local(handshake::run(inner.clone(), stream, peer, slot, open));
    }

    /// Whether [`Shared::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.shared.is_stopping()
    }

    /// Waits until no socket is left. After [`Shared::stop`] that is soon.
    pub async fn drained(&self) {
        loop {
            let changed = self.0.drained.notified();
            if self.0.sockets.get() == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// Counts a socket as long as it lives.
pub(crate) struct OpenSocket<S: Store>(Rc<Inner<S>>);

impl<S: Store> Drop for OpenSocket<S> {
    fn drop(&mut self) {
        self.0.sockets.set(self.0.sockets.get() - 1);
        if self.0.sockets.get() == 0 {
            self.0.drained.notify_waiters();
        }
    }
}

impl<S: Store> Inner<S> {
    fn socket(self: &Rc<Self>) -> OpenSocket<S> {
        self.sockets.set(self.sockets.get() + 1);
        OpenSocket(self.clone())
    }

    /// Nanoseconds since the shard was made.
    pub(crate) fn ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The one task that waits for the store.
    async fn follow_commits(self: Rc<Self>) {
        let mut moved = self.shared.store.moved();
        moved.mark_changed();
        while moved.changed().await.is_ok() {
            self.on_moved();
            // Commits may come faster than they are followed; the connections must get their turn in between.
            tokio::task::yield_now().await;
        }
    }

    /// Step 10: what waited may go on.
    fn on_moved(self: &Rc<Self>) {
        let now_ns = self.ns(Instant::now());
        let mut waiting = self.waiting.take();
        waiting.retain(|connection| connection.settle(now_ns));
        // Nothing was listed meanwhile: settling reads no socket.
        self.waiting.replace(waiting);
        self.route();
        for connection in self.blocked.take() {
            connection.retry();
        }
        let behind = self.behind.take();
        for connection in behind {
            if connection.resume() {
                self.behind.borrow_mut().push(connection);
            }
        }
    }

    /// Writes what the router offered.
    pub(crate) fn pump_dirty(&self) {
        let mut dirty = self.dirty.take();
        for connection in dirty.drain(..) {
            connection.pump_offered();
        }
        let mut list = self.dirty.borrow_mut();
        if list.is_empty() {
            *list = dirty;
        }
    }

    async fn follow_stop(self: Rc<Self>) {
        let mut stop = self.shared.stop.subscribe();
        let Ok(wish) = stop.wait_for(Option::is_some).await.map(|wish| *wish) else { return };
        let deadline = Instant::now() + wish.unwrap_or_default();
        let connections = self.connections.borrow().all();
        for connection in connections {
            connection.drain(deadline);
        }
    }
}

/// Connections by key.
pub(crate) struct ConnectionTable<S: Store> {
    slots: Vec<Option<Rc<Connection<S>>>>,
    free: Vec<ConnectionKey>,
}

impl<S: Store> ConnectionTable<S> {
    fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Puts in what `make` makes of its key.
    pub(crate) fn insert(
        &mut self,
        make: impl FnOnce(ConnectionKey) -> Rc<Connection<S>>,
    ) -> Rc<Connection<S>> {
        let key = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            let index = u32::try_from(self.slots.len() - 1);
            ConnectionKey(index.unwrap_or(u32::MAX))
        });
        let connection = make(key);
        if let Some(slot) = self.slots.get_mut(key.0 as usize) {
            debug_assert!(slot.is_none(), "keys are given once");
            *slot = Some(connection.clone());
        }
        connection
    }

    pub(crate) fn get(&self, key: ConnectionKey) -> Option<&Rc<Connection<S>>> {
        self.slots.get(key.0 as usize)?.as_ref()
    }

    pub(crate) fn remove(&mut self, key: ConnectionKey) {
        if self.slots.get_mut(key.0 as usize).and_then(Option::take).is_some() {
            self.free.push(key);
        }
    }

    fn all(&self) -> Vec<Rc<Connection<S>>> {
        self.slots.iter().flatten().cloned().collect()
    }
}
