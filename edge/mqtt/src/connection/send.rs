//! Step 10 and the end of step 11: acknowledgements and messages to the socket.
//!
//! What a wake has for one connection is encoded into the shard's buffer and leaves in one write; only what the socket
//! does not take is copied into the connection's own buffer, which is bounded.

use super::{Close, Connection, State};
use crate::codec::{
    Ack, AckProperties, Acknowledgement, Packet, PacketId, QoS, ReasonCode, UserPropertiesBuf,
    Version, encode,
};
use crate::counters::{DropCause, RefuseCause};
use crate::session::{Cursor, Delivery, Positions, Verdict};
use crate::store::{Message, Store};
use bytes::{Buf, BytesMut};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long the last bytes of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes of a peer that are read and thrown away after the last word, so that it is not reset away.
const FAREWELL_READ_BYTES: usize = 4 * 1024 * 1024;

impl<S: Store> Connection<S> {
    /// Writes bytes, or keeps what the socket does not take.
    pub(super) fn send(&self, state: &mut State<S::Ticket>, bytes: &[u8]) {
        let mut rest = bytes;
        if state.unwritten.is_empty() {
            while !rest.is_empty() {
                match self.stream.try_write(rest) {
                    Ok(0) => return self.close(state, Close::Quiet),
                    Ok(written) => {
                        self.shard.counters.bytes_out.add(written as u64);
                        rest = rest.get(written..).unwrap_or_default();
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return self.close(state, Close::Quiet),
                }
            }
            if rest.is_empty() {
                return;
            }
            // From now on the task waits for room.
            state.stalled_since = Some(Instant::now());
            self.wake();
        }
        if !self.may_buffer(rest.len()) {
            return self.close_for_room(state);
        }
        state.unwritten.extend_from_slice(rest);
        self.account(state);
        if state.unwritten.len() > self.shard.shared.limits.write_buffer_bytes_max {
            self.close(
                state,
                Close::Told {
                    reason: ReasonCode::QuotaExceeded,
                    detail: "client does not read",
                    cause: RefuseCause::NotReading,
                },
            );
        }
    }

    /// The socket has room: what is kept first, then messages that wait.
    pub(super) fn flush(&self) {
        let mut state = self.state.borrow_mut();
        while !state.unwritten.is_empty() {
            match self.stream.try_write(&state.unwritten) {
                Ok(0) => return self.close(&mut state, Close::Quiet),
                Ok(written) => {
                    self.shard.counters.bytes_out.add(written as u64);
                    state.unwritten.advance(written);
                    state.stalled_since = Some(Instant::now());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(&mut state, Close::Quiet),
            }
        }
        state.unwritten = BytesMut::new();
        state.stalled_since = None;
        self.pump(&mut state);
        self.account(&mut state);
    }

    /// Step 10: writes the acknowledgements that are due, oldest first. `true`: more are owed.
    pub(crate) fn settle(&self, now_ns: u64) -> bool {
        let mut state = self.state.borrow_mut();
        let mut out = self.shard.output.borrow_mut();
        out.clear();
        self.take_settled(&mut state, now_ns, &mut out);
        if !out.is_empty() {
            self.send(&mut state, &out);
        }
        self.account(&mut state);
        state.listed_waiting = !state.session.inbound.is_idle() && state.closing.is_none();
        if state.draining.is_some() && state.session.inbound.is_idle() {
            self.close_for_shutdown(&mut state);
        }
        state.listed_waiting
    }

    pub(super) fn close_for_room(&self, state: &mut State<S::Ticket>) {
        self.close(
            state,
            Close::Told {
                reason: ReasonCode::QuotaExceeded,
                detail: "the server keeps as much as it may",
                cause: RefuseCause::ShardFull,
            },
        );
    }

    pub(super) fn close_for_shutdown(&self, state: &mut State<S::Ticket>) {
        self.close(
            state,
            Close::Told {
                reason: ReasonCode::ServerShuttingDown,
                detail: "server is shutting down",
                cause: RefuseCause::Shutdown,
            },
        );
    }

    /// Encodes the acknowledgements that are due.
    pub(super) fn take_settled(
        &self,
        state: &mut State<S::Ticket>,
        now_ns: u64,
        out: &mut BytesMut,
    ) {
        let store = &self.shard.shared.store;
        let counters = &self.shard.counters;
        // Messages of one read share their time: one entry in the histogram for all of them.
        let (mut run_ns, mut run, mut acknowledged) = (0, 0u64, 0u64);
        while state.closing.is_none() {
            let settled = state.session.inbound.next_settled(|ticket| store.settled(ticket));
            let Some(verdict) = settled else { break };
            match verdict {
                Verdict::Acknowledge { packet_id, read_at_ns, ticket } => {
                    if read_at_ns != run_ns {
                        record(counters, now_ns, run_ns, run);
                        (run_ns, run) = (read_at_ns, 0);
                    }
                    run += 1;
                    acknowledged += 1;
                    if state.session.receipts {
                        self.encode_receipt(state, packet_id, &ticket, out);
                    } else {
                        out.extend_from_slice(&Acknowledgement::PubAck.success(packet_id));
                    }
                }
                Verdict::Refuse { packet_id, reason } => {
                    self.refuse_message(state, packet_id, reason, out);
                }
            }
        }
        record(counters, now_ns, run_ns, run);
        counters.acknowledged.add(acknowledged);
    }

    /// A PUBACK that says where the message went, as far as the client takes packets that large.
    fn encode_receipt(
        &self,
        state: &State<S::Ticket>,
        packet_id: PacketId,
        ticket: &S::Ticket,
        out: &mut BytesMut,
    ) {
        let mut facts = UserPropertiesBuf::default();
        self.shard.shared.store.receipt(ticket, &mut |name, value| {
            // What cannot be said in a property is left out; the acknowledgement stands.
            let _ = facts.push(name, value);
        });
        let packet = Packet::PubAck(Ack {
            packet_id,
            reason: ReasonCode::Success,
            properties: AckProperties {
                user_properties: facts.as_properties(),
                ..AckProperties::default()
            },
        });
        let bytes_max = state.session.outbound.packet_bytes_max();
        if encode(&packet, state.session.version, bytes_max, out).is_err() {
            // [MQTT-3.4.2-3]
            out.extend_from_slice(&Acknowledgement::PubAck.success(packet_id));
        }
    }

    /// MQTT 5 has words for it; below, the connection ends without an acknowledgement.
    fn refuse_message(
        &self,
        state: &mut State<S::Ticket>,
        packet_id: PacketId,
        reason: ReasonCode,
        out: &mut BytesMut,
    ) {
        if state.session.version != Version::V5 {
            let detail = "a message was refused, and MQTT 3 cannot say so";
            return self.close(state, Close::Told { reason, detail, cause: RefuseCause::Message });
        }
        self.shard.counters.add_refused(RefuseCause::Message, 1);
        let mut ack = Ack::new(packet_id, reason);
        if state.session.problem_information {
            ack.properties.reason_string = reason_string(reason);
        }
        let bytes_max = state.session.outbound.packet_bytes_max();
        if encode(&Packet::PubAck(ack), Version::V5, bytes_max, out).is_err() {
            // [MQTT-3.4.2-2]: without the words. Five bytes: a client that takes less cannot be answered.
            let bare = Packet::PubAck(Ack::new(packet_id, reason));
            let _ = encode(&bare, Version::V5, u32::MAX, out);
        }
    }

    /// A live message from the router: into the queue, or the session falls behind at exactly this message.
    pub(crate) fn offer(self: &Rc<Self>, delivery: Delivery, positions: &Positions) {
        let mut state = self.state.borrow_mut();
        if state.closing.is_some() || state.session.is_behind() {
            return;
        }
        if !self.has_room_for(&state, &delivery.message) {
            self.pump(&mut state);
        }
        if !self.has_room_for(&state, &delivery.message) {
            let mut from = positions.clone();
            from.set(delivery.message.stream, delivery.message.offset);
            return self.fall_behind(&mut state, from);
        }
        state.session.outbound.push(delivery);
        self.account(&mut state);
        if !state.listed_dirty {
            state.listed_dirty = true;
            self.shard.dirty.borrow_mut().push(self.clone());
        }
    }

    /// Whether a message may be queued: in this queue, and among all that the shard keeps. One always may.
    pub(super) fn has_room_for(&self, state: &State<S::Ticket>, message: &Message) -> bool {
        let outbound = &state.session.outbound;
        outbound.is_empty()
            || (outbound.has_room_for(message)
                && self.may_buffer(message.topic.len() + message.payload.len()))
    }

    /// From here on the session reads the log on its own, from these positions.
    pub(super) fn fall_behind(self: &Rc<Self>, state: &mut State<S::Ticket>, from: Positions) {
        state.session.cursor = Cursor::Behind(from);
        state.catch_up = super::CatchUp::Ready;
        self.shard.counters.behind.add(1);
        if !state.listed_behind {
            state.listed_behind = true;
            self.shard.behind.borrow_mut().push(self.clone());
        }
        self.wake();
    }

    /// Writes what the router offered in this round.
    pub(crate) fn pump_offered(&self) {
        let mut state = self.state.borrow_mut();
        state.listed_dirty = false;
        self.pump(&mut state);
        self.account(&mut state);
    }

    /// Encodes and writes messages until the queue is empty, the window full, or the socket full.
    pub(super) fn pump(&self, state: &mut State<S::Ticket>) {
        let limits = &self.shard.shared.limits;
        let mut now_ms = None;
        while state.closing.is_none()
            && state.unwritten.len() < limits.write_buffer_bytes
            && state.session.outbound.can_send()
        {
            let now_ms = *now_ms.get_or_insert_with(|| self.shard.shared.store.now_ms());
            let mut out = self.shard.output.borrow_mut();
            out.clear();
            let pumped = state.session.outbound.pump(&mut out, limits.write_buffer_bytes, now_ms);
            for (qos, sent) in pumped.sent.iter().enumerate() {
                self.shard.counters.messages_out[qos].add(*sent);
            }
            for (cause, topic) in &pumped.dropped {
                self.drop_messages(*cause, topic, 1);
            }
            self.send(state, &out);
        }
    }

    /// Counts, and records in the ledger.
    pub(super) fn drop_messages(&self, cause: DropCause, topic: &str, count: u64) {
        self.shard.counters.add_dropped(cause, count);
        self.shard.shared.store.dropped(cause.label(), topic, count);
    }

    pub(super) fn count_in(&self, qos: QoS, count: u64) {
        self.shard.counters.messages_in[qos as usize].add(count);
    }
}

fn record(counters: &crate::counters::ShardCounters, now_ns: u64, read_at_ns: u64, count: u64) {
    if count > 0 {
        let elapsed = Duration::from_nanos(now_ns.saturating_sub(read_at_ns));
        counters.ack_latency.record(elapsed, count);
    }
}

/// The words to a reason that a PUBACK may carry.
const fn reason_string(reason: ReasonCode) -> Option<&'static str> {
    match reason {
        ReasonCode::QuotaExceeded => Some("the disk is full"),
        ReasonCode::TopicNameInvalid => Some("topics that begin with $ belong to the server"),
        ReasonCode::NotAuthorized => Some("not allowed to publish here"),
        ReasonCode::UnspecifiedError => Some("the log cannot take this message"),
        _ => None,
    }
}

/// Writes the last bytes, ends the sending side, and reads on for a moment: closing with unread bytes would reset the
/// connection and take the last word away from the peer. Bounded in time and bytes.
pub(crate) async fn finish(stream: &TcpStream, last: &[u8]) {
    let work = async {
        let mut rest = last;
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        socket_shutdown(stream)?;
        let mut left = FAREWELL_READ_BYTES;
        let mut sink = [0u8; 2048];
        while left > 0 {
            stream.ready(Interest::READABLE).await?;
            match stream.try_read(&mut sink) {
                Ok(0) => break,
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    // Whatever happens here, the connection is over.
    let _ = tokio::time::timeout(FAREWELL, Box::pin(work)).await;
}

fn socket_shutdown(stream: &TcpStream) -> std::io::Result<()> {
    socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write)
}
