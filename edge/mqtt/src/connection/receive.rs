//! Steps 1 and 2: from the socket to whole packets.
//!
//! All connections of a shard read into one buffer; a connection keeps bytes of its own only for the front of a packet
//! whose rest has not come, or for packets that the append path has no room for. Invariant: those bytes are bounded by
//! one packet and one read, and memory for a packet grows with what has come, never with what its length promises.

use super::{Close, Connection, State};
use crate::codec::ReasonCode;
use crate::counters::RefuseCause;
use crate::store::Store;
use std::io::ErrorKind;
use std::rc::Rc;
use tokio::io::Interest;
use tokio::time::Instant;

/// Bytes that the front of a large packet grows by.
const GROW_BYTES: usize = 64 * 1024;

/// What a read brought.
enum Read {
    Bytes(usize),
    Nothing,
    Ended,
}

impl<S: Store> Connection<S> {
    /// Reads once and handles what is whole. `true`: there may be more to read at once.
    pub(super) fn receive(self: &Rc<Self>) -> bool {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.closing.is_some() || state.blocked_since.is_some() {
            return false;
        }
        let mut input = self.shard.input.borrow_mut();
        let kept = state.unread.len();
        if kept > input.len() / 2 || state.unread_wanted > input.len() {
            return self.receive_large(state);
        }
        let (front, room) = input.split_at_mut(kept);
        front.copy_from_slice(&state.unread);
        let room_bytes = room.len();
        match self.read(room) {
            Read::Nothing => false,
            Read::Ended => {
                self.close(state, Close::Quiet);
                false
            }
            Read::Bytes(read) => {
                let now = Instant::now();
                state.last_read = now;
                let data = input.get(..kept + read).unwrap_or_default();
                let handled = self.handle(state, data, now);
                let rest = data.get(handled..).unwrap_or_default();
                if rest.is_empty() {
                    state.unread = Vec::new();
                } else {
                    state.unread.clear();
                    state.unread.extend_from_slice(rest);
                }
                self.account_read(state);
                read == room_bytes
            }
        }
    }

    /// A packet that the shared buffer is too small for is gathered in the connection's own.
    fn receive_large(self: &Rc<Self>, state: &mut State<S::Ticket>) -> bool {
        let mut own = std::mem::take(&mut state.unread);
        let kept = own.len();
        own.resize(kept + GROW_BYTES, 0);
        let read = self.read(own.get_mut(kept..).unwrap_or_default());
        let mut more = false;
        match read {
            Read::Nothing => own.truncate(kept),
            Read::Ended => self.close(state, Close::Quiet),
            Read::Bytes(read) => {
                own.truncate(kept + read);
                more = read == GROW_BYTES;
                let now = Instant::now();
                state.last_read = now;
                if own.len() >= state.unread_wanted {
                    let handled = self.handle(state, &own, now);
                    own.drain(..handled);
                    own.shrink_to(if own.is_empty() { 0 } else { GROW_BYTES });
                }
            }
        }
        state.unread = own;
        self.account_read(state);
        more
    }

    /// Counts what a read left behind; the connection that makes it too much ends.
    fn account_read(&self, state: &mut State<S::Ticket>) {
        let before = state.counted_bytes;
        self.account(state);
        let limits = &self.shard.shared.limits;
        let is_more = state.counted_bytes > before && !self.may_buffer(0);
        let pending = self.shard.counters.pending.get();
        if is_more || pending > limits.pending_per_shard_max as u64 {
            self.close_for_room(state);
        }
    }

    /// Packets that waited, for the append path or behind the CONNECT.
    pub(super) fn handle_unread(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.closing.is_some() || state.draining.is_some() {
            return;
        }
        let now = Instant::now();
        let mut own = std::mem::take(&mut state.unread);
        let handled = self.handle(state, &own, now);
        own.drain(..handled);
        if own.is_empty() {
            own = Vec::new();
        }
        state.unread = own;
        self.account_read(state);
        // The client could not know that it was not read: its silence begins now.
        state.last_read = now;
    }

    /// One read from the socket. A short one tells the reactor that the socket is drained, which saves the system call
    /// that would only say so.
    fn read(&self, into: &mut [u8]) -> Read {
        match self.stream.try_read(into) {
            Ok(0) => Read::Ended,
            Ok(read) => {
                self.shard.counters.bytes_in.add(read as u64);
                if cfg!(target_os = "linux") && read < into.len() {
                    // epoll reports the next arrival, and the peer's end, by itself.
                    let drained: std::io::Result<()> = self
                        .stream
                        .try_io(Interest::READABLE, || Err(ErrorKind::WouldBlock.into()));
                    debug_assert!(drained.is_err(), "the closure says so");
                }
                Read::Bytes(read)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Read::Nothing
            }
            Err(_) => Read::Ended,
        }
    }

    /// Handles whole packets and writes the answers. Returns the bytes that are done with.
    fn handle(self: &Rc<Self>, state: &mut State<S::Ticket>, data: &[u8], now: Instant) -> usize {
        let handled = {
            let mut out = self.shard.output.borrow_mut();
            out.clear();
            let handled = self.handle_packets(state, data, now, &mut out);
            // What needs no wait (memory topics, refusals) is answered with the same write.
            self.take_settled(state, self.shard.ns(now), &mut out);
            if !out.is_empty() {
                self.send(state, &out);
            }
            handled
        };
        if !state.session.inbound.is_idle() && !state.listed_waiting {
            state.listed_waiting = true;
            self.shard.waiting.borrow_mut().push(self.clone());
        }
        if state.session.outbound.can_send() {
            self.pump(state);
        }
        handled
    }

    /// Stops reading until the append path has room.
    pub(super) fn block(self: &Rc<Self>, state: &mut State<S::Ticket>, now: Instant) {
        let wait = self.shard.shared.limits.backpressure_wait;
        let since = match state.blocked_since {
            Some(since) => since,
            None => {
                self.shard.counters.blocked.add(1);
                *state.blocked_since.insert(now)
            }
        };
        let due = since + wait;
        state.retry_at = Some(if due > now { due } else { now + wait });
        if !state.listed_blocked {
            state.listed_blocked = true;
            self.shard.blocked.borrow_mut().push(self.clone());
        }
    }

    pub(super) fn unblock(&self, state: &mut State<S::Ticket>) {
        if state.blocked_since.take().is_some() {
            state.retry_at = None;
            self.shard.counters.blocked.sub(1);
        }
    }

    /// Ends the connection with a reason code.
    pub(super) fn end(
        &self,
        state: &mut State<S::Ticket>,
        reason: ReasonCode,
        cause: RefuseCause,
        detail: &'static str,
    ) {
        self.close(state, Close::Told { reason, detail, cause });
    }
}
