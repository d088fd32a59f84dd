//! Steps 3 to 5: packets to the session, slices of messages to the store.
//!
//! Invariant: packets take effect in the order in which they came. A run of PUBLISHes goes to the store as one slice;
//! whatever else comes ends the run first; and where the append path is full, everything from that message on waits.

use super::{Connection, State};
use crate::codec::{
    Ack, AckProperties, Decoded, Decoder, Disconnect, Packet, PacketId, Publish, QoS, ReasonCode,
    ReasonCodes, SubAck, Subscribe, UnsubAck, Unsubscribe, Version, Violation, encode,
};
use crate::counters::{DropCause, RefuseCause};
use crate::filter::{TopicFilter, TopicFilterError, is_shared};
use crate::session::{
    AliasUse, Aliases, Cursor, Granted, Inbound, Positions, SessionSubscription, reason_of,
};
use crate::store::{Outcome, Refusal, Store};
use crate::topic::is_server_topic;
use bytes::BytesMut;
use std::rc::Rc;
use tokio::time::Instant;

/// Messages of one call of the store.
const RUN_MESSAGES_MAX: usize = 512;

/// What ended a run of messages.
#[expect(
    clippy::large_enum_variant,
    reason = "one per run, on the stack; a box per packet would cost more"
)]
enum Stop<'a> {
    /// The end of the input, or of its last whole packet.
    End { bytes_wanted: usize },
    /// The run is as long as it may be.
    Full,
    /// A packet that is no PUBLISH, and its bytes.
    Packet(Packet<'a>, usize),
    /// A PUBLISH that sets a topic alias: set it, then look again.
    SetAlias(u16, &'a str),
    /// A PUBLISH to a topic of the server's, and its bytes.
    ServerTopic(Option<PacketId>, usize),
    /// The connection ends.
    Fatal(Violated),
}

/// A rule that a client broke.
#[derive(Debug, Clone, Copy)]
struct Violated {
    reason: ReasonCode,
    cause: RefuseCause,
    detail: &'static str,
}

/// Why a PUBLISH is not part of a run.
enum Apart {
    SetAlias(u16),
    ServerTopic,
    Fatal(Violated),
}

/// How a run is collected.
struct Collector<'c> {
    decoder: &'c Decoder,
    version: Version,
    /// Messages with QoS 1 that may still come.
    room: usize,
}

impl Collector<'_> {
    /// Decodes PUBLISHes from the front of `data` into `run`; returns the bytes they take and what came then.
    fn collect<'a: 'n, 'n>(
        mut self,
        data: &'a [u8],
        aliases: &'n Aliases,
        run: &mut Vec<Publish<'n>>,
    ) -> (usize, Stop<'a>) {
        let mut at = 0;
        loop {
            if run.len() >= RUN_MESSAGES_MAX {
                return (at, Stop::Full);
            }
            let rest = data.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return (at, Stop::End { bytes_wanted: 0 });
            }
            match self.decoder.decode(rest) {
                Ok(Decoded::Packet { packet: Packet::Publish(publish), bytes }) => {
                    match self.check(&publish, aliases) {
                        Ok(topic) => run.push(Publish { topic, ..publish }),
                        Err(Apart::SetAlias(alias)) => {
                            return (at, Stop::SetAlias(alias, publish.topic));
                        }
                        Err(Apart::ServerTopic) => {
                            return (at, Stop::ServerTopic(publish.packet_id, bytes));
                        }
                        Err(Apart::Fatal(violated)) => return (at, Stop::Fatal(violated)),
                    }
                    at += bytes;
                }
                Ok(Decoded::Packet { packet, bytes }) => return (at, Stop::Packet(packet, bytes)),
                Ok(Decoded::Incomplete { bytes_min }) => {
                    return (at, Stop::End { bytes_wanted: bytes_min });
                }
                Err(error) => {
                    let cause = match error.violation {
                        Violation::PacketTooLarge => RefuseCause::PacketTooLarge,
                        _ => RefuseCause::Protocol,
                    };
                    let (reason, detail) = (error.reason(), error.detail);
                    return (at, Stop::Fatal(Violated { reason, cause, detail }));
                }
            }
        }
    }

    /// Step 3 for one PUBLISH: counts it and gives its topic, aliases resolved.
    fn check<'n>(&mut self, publish: &Publish<'n>, aliases: &'n Aliases) -> Result<&'n str, Apart> {
        use RefuseCause::{Protocol, ReceiveMax, Unsupported};
        let fatal = |reason, cause, detail| Err(Apart::Fatal(Violated { reason, cause, detail }));
        if publish.qos == QoS::ExactlyOnce {
            // [MQTT-3.2.2-11]: Maximum QoS 1 was announced; MQTT 3 can only be closed.
            return fatal(ReasonCode::QoSNotSupported, Unsupported, "QoS 2 is not available");
        }
        if publish.retain && self.version == Version::V5 {
            // [MQTT-3.2.2-14]: Retain Available 0 was announced.
            let detail = "retained messages are not available";
            return fatal(ReasonCode::RetainNotSupported, Unsupported, detail);
        }
        let topic = match publish.properties.topic_alias {
            None => publish.topic,
            Some(alias) => match aliases.look_up(alias, publish.topic) {
                AliasUse::Known(topic) => topic,
                AliasUse::Set => return Err(Apart::SetAlias(alias)),
                AliasUse::Invalid => {
                    let detail = "topic alias is not valid";
                    return fatal(ReasonCode::TopicAliasInvalid, Protocol, detail);
                }
                AliasUse::Unknown => {
                    let detail = "topic alias was never set";
                    return fatal(ReasonCode::ProtocolError, Protocol, detail);
                }
            },
        };
        if publish.packet_id.is_some() {
            let Some(room) = self.room.checked_sub(1) else {
                // [MQTT-3.3.4-9]
                let detail = "more unacknowledged messages than announced";
                return fatal(ReasonCode::ReceiveMaximumExceeded, ReceiveMax, detail);
            };
            self.room = room;
        }
        if is_server_topic(topic) {
            return Err(Apart::ServerTopic);
        }
        Ok(topic)
    }
}

/// An empty list with the memory of another: lifetimes of its elements do not matter while there are none.
fn recycle<'b>(mut list: Vec<Publish<'_>>) -> Vec<Publish<'b>> {
    list.clear();
    list.into_iter().map(|_| unreachable!("the list is empty")).collect()
}

impl<S: Store> Connection<S> {
    /// Handles the whole packets of `data`; answers go to `out`. Returns the bytes that are done with.
    pub(super) fn handle_packets(
        self: &Rc<Self>,
        state: &mut State<S::Ticket>,
        data: &[u8],
        now: Instant,
        out: &mut BytesMut,
    ) -> usize {
        let mut at = 0;
        state.unread_wanted = 0;
        while state.closing.is_none() {
            let rest = data.get(at..).unwrap_or_default();
            let session = &mut state.session;
            let collector = Collector {
                decoder: &self.decoder,
                version: session.version,
                room: session.inbound.room(),
            };
            let mut run = recycle(self.shard.batch.take());
            let (bytes, stop) = collector.collect(rest, &session.aliases, &mut run);
            let taken = self.publish(&mut session.inbound, &run, now);
            let waits = run.len() > taken;
            let overdue =
                if waits { self.drop_overdue(state.blocked_since, &run, taken, now) } else { 0 };
            // The run borrows from the alias table, which may change from here on.
            self.shard.batch.set(recycle(run));
            if taken > 0 {
                self.unblock(state);
            }
            if waits {
                at += self.bytes_of(rest, taken + overdue);
                if overdue > 0 {
                    continue;
                }
                self.block(state, now);
                return at;
            }
            at += bytes;
            match stop {
                Stop::End { bytes_wanted } => {
                    state.unread_wanted = bytes_wanted;
                    break;
                }
                Stop::Full => {}
                Stop::SetAlias(alias, topic) => state.session.aliases.set(alias, topic),
                Stop::Packet(packet, bytes) => {
                    self.handle_packet(state, &packet, out);
                    at += bytes;
                }
                Stop::ServerTopic(packet_id, bytes) => {
                    self.refuse_server_topic(state, packet_id, now);
                    at += bytes;
                }
                Stop::Fatal(Violated { reason, cause, detail }) => {
                    self.end(state, reason, cause, detail);
                }
            }
        }
        self.unblock(state);
        at
    }

    /// Step 5: offers the run to the store and keeps the tickets. Returns how many messages are done with.
    fn publish(
        &self,
        inbound: &mut Inbound<S::Ticket>,
        run: &[Publish<'_>],
        now: Instant,
    ) -> usize {
        if run.is_empty() {
            return 0;
        }
        let mut outcomes = self.shard.outcomes.take();
        self.shard.shared.store.publish(&self.publisher, run, &mut outcomes);
        debug_assert!(outcomes.len() <= run.len(), "one outcome per message");
        let taken = outcomes.len();
        let read_at_ns = self.shard.ns(now);
        let mut by_qos = [0u64; 2];
        // A full disk refuses whole runs: one entry in the ledger per topic and cause in a row, not per message.
        let mut dropped: Option<(DropCause, &str, u64)> = None;
        for (publish, outcome) in run.iter().zip(outcomes.drain(..)) {
            if publish.retain && !self.retained_seen.replace(true) {
                // Only below MQTT 5: stored and delivered like any other, the flag with it.
                let client = self.client_id();
                tracing::info!(
                    client,
                    topic = publish.topic,
                    "retained messages are not kept as such yet"
                );
            }
            match (publish.packet_id, outcome) {
                (None, Outcome::Accepted(_)) => by_qos[0] += 1,
                (Some(packet_id), Outcome::Accepted(ticket)) => {
                    by_qos[1] += 1;
                    inbound.accepted(packet_id, ticket, read_at_ns);
                }
                (None, Outcome::Refused(refusal)) => {
                    let cause = drop_cause(refusal);
                    match &mut dropped {
                        Some((same, topic, count)) if *same == cause && *topic == publish.topic => {
                            *count += 1;
                        }
                        _ => {
                            if let Some((cause, topic, count)) =
                                dropped.replace((cause, publish.topic, 1))
                            {
                                self.drop_messages(cause, topic, count);
                            }
                        }
                    }
                }
                (Some(packet_id), Outcome::Refused(refusal)) => {
                    inbound.refused(packet_id, reason_of(refusal), read_at_ns);
                }
            }
        }
        if let Some((cause, topic, count)) = dropped {
            self.drop_messages(cause, topic, count);
        }
        self.shard.outcomes.set(outcomes);
        self.count_in(QoS::AtMostOnce, by_qos[0]);
        self.count_in(QoS::AtLeastOnce, by_qos[1]);
        taken
    }

    /// Once the append path was full for long enough, the QoS 0 messages at the front of what waits are dropped.
    /// Returns how many. QoS 1 waits as long as it takes.
    fn drop_overdue(
        &self,
        blocked_since: Option<Instant>,
        run: &[Publish<'_>],
        taken: usize,
        now: Instant,
    ) -> usize {
        let wait = self.shard.shared.limits.backpressure_wait;
        if taken > 0 || blocked_since.is_none_or(|since| since + wait > now) {
            return 0;
        }
        let overdue = run.iter().take_while(|publish| publish.packet_id.is_none()).count();
        for same in run.get(..overdue).unwrap_or_default().chunk_by(|a, b| a.topic == b.topic) {
            if let Some(first) = same.first() {
                self.drop_messages(DropCause::Backpressure, first.topic, same.len() as u64);
            }
        }
        if overdue > 0 {
            self.shard.shared.store.withdrawn(&self.publisher);
        }
        overdue
    }

    /// Bytes of the first `packets` packets, which were decoded before.
    fn bytes_of(&self, data: &[u8], packets: usize) -> usize {
        let mut at = 0;
        for _ in 0..packets {
            match self.decoder.decode(data.get(at..).unwrap_or_default()) {
                Ok(Decoded::Packet { bytes, .. }) => at += bytes,
                Ok(Decoded::Incomplete { .. }) | Err(_) => {
                    debug_assert!(false, "decoded a moment ago");
                    break;
                }
            }
        }
        at
    }

    /// Topics that begin with `$` are the server's. (4.7.2) MQTT 5: Topic Name invalid; below, QoS 1 closes.
    fn refuse_server_topic(
        &self,
        state: &mut State<S::Ticket>,
        packet_id: Option<PacketId>,
        now: Instant,
    ) {
        match packet_id {
            Some(packet_id) => {
                let read_at_ns = self.shard.ns(now);
                state.session.inbound.refused(packet_id, ReasonCode::TopicNameInvalid, read_at_ns);
            }
            None => self.shard.counters.add_refused(RefuseCause::Message, 1),
        }
    }

    /// Everything but PUBLISH.
    fn handle_packet(
        self: &Rc<Self>,
        state: &mut State<S::Ticket>,
        packet: &Packet<'_>,
        out: &mut BytesMut,
    ) {
        let protocol_error = |state: &mut State<S::Ticket>, detail| {
            self.end(state, ReasonCode::ProtocolError, RefuseCause::Protocol, detail);
        };
        match packet {
            Packet::PubAck(ack) => {
                if !state.session.outbound.acknowledge(ack.packet_id) {
                    // Harmless: nothing waits for it.
                    tracing::debug!(
                        client = self.client_id(),
                        "PUBACK for a message not in flight"
                    );
                }
            }
            Packet::Subscribe(subscribe) => self.subscribe(state, subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(state, unsubscribe, out),
            Packet::PingReq => {
                // [MQTT-3.12.4-1]
                self.answer(state, &Packet::PingResp, out);
            }
            Packet::PubRel(release) => {
                // Nothing was received with QoS 2, so there is nothing to release.
                let reason = ReasonCode::PacketIdentifierNotFound;
                let known = match state.session.version {
                    Version::V5 => Ack::new(release.packet_id, reason),
                    Version::V3 | Version::V311 => Ack::new(release.packet_id, ReasonCode::Success),
                };
                self.answer(state, &Packet::PubComp(known), out);
            }
            Packet::Disconnect(disconnect) => self.client_disconnects(state, disconnect),
            Packet::PubRec(_) | Packet::PubComp(_) => {
                protocol_error(state, "nothing was sent with QoS 2");
            }
            // [MQTT-4.12.0-6]: only with the method of the CONNECT, and there was none.
            Packet::Auth(_) => protocol_error(state, "no authentication method was agreed on"),
            // The decoder refuses those already.
            Packet::Connect(_)
            | Packet::Publish(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => protocol_error(state, "not a packet for an established server"),
        }
    }

    /// [MQTT-3.14.4-1], [MQTT-3.14.4-2]
    fn client_disconnects(&self, state: &mut State<S::Ticket>, disconnect: &Disconnect<'_>) {
        let expiry = disconnect.properties.session_expiry_interval_s;
        if !self.expiry_asked && expiry.is_some_and(|seconds| seconds > 0) {
            // (3.14.2.2.2)
            let detail = "the session's expiry was 0 in the CONNECT";
            return self.end(state, ReasonCode::ProtocolError, RefuseCause::Protocol, detail);
        }
        self.close(state, super::Close::Quiet);
    }

    fn subscribe(
        self: &Rc<Self>,
        state: &mut State<S::Ticket>,
        subscribe: &Subscribe<'_>,
        out: &mut BytesMut,
    ) {
        let mut reasons = Vec::new();
        let mut first_refused = None;
        // All filters of one packet start at the same positions.
        let start = {
            let mut router = self.shard.router.borrow_mut();
            let ends = router.start_positions(&*self.shard.shared.store);
            ends.map(|ends| (Rc::new(ends), router.positions().clone()))
        };
        for subscription in subscribe.subscriptions.iter() {
            let filter = subscription.filter;
            let granted =
                Granted::new(subscription.options, subscribe.properties.subscription_identifier);
            let reason = if is_shared(filter) {
                // Shared Subscription Available 0 was announced. (3.2.2.3.13)
                ReasonCode::SharedSubscriptionsNotSupported
            } else {
                match TopicFilter::new(filter) {
                    Ok(filter) => self.add_subscription(state, filter, granted, start.as_ref()),
                    Err(TopicFilterError::TooManyLevels) => ReasonCode::QuotaExceeded,
                    Err(_) => ReasonCode::TopicFilterInvalid,
                }
            };
            if reason.is_error() {
                self.shard.counters.add_refused(RefuseCause::Subscription, 1);
                // One line per packet, however many filters are in it.
                first_refused = first_refused.or(Some((filter, reason)));
            }
            reasons.push(reason);
        }
        if let Some((filter, reason)) = first_refused {
            tracing::info!(client = self.client_id(), filter, ?reason, "filter not granted");
        }
        // [MQTT-3.8.4-1], [MQTT-3.8.4-6]
        let packet = Packet::SubAck(SubAck {
            packet_id: subscribe.packet_id,
            properties: AckProperties::default(),
            reasons: ReasonCodes::new(&reasons),
        });
        self.answer(state, &packet, out);
    }

    fn add_subscription(
        self: &Rc<Self>,
        state: &mut State<S::Ticket>,
        filter: TopicFilter,
        granted: Granted,
        start: Option<&(Rc<Positions>, Positions)>,
    ) -> ReasonCode {
        let before = state.session.subscriptions.len();
        let since = match (start, state.session.is_behind()) {
            (Some((ends, _)), _) => Some(ends.clone()),
            // The router is at the ends, the session is not.
            (None, true) => Some(Rc::new(self.shard.router.borrow().positions().clone())),
            (None, false) => None,
        };
        let subscription = SessionSubscription { granted, since };
        if !state.session.subscriptions.insert(filter.clone(), subscription) {
            return ReasonCode::QuotaExceeded;
        }
        self.shard.router.borrow_mut().insert(&filter, self.key, granted);
        if state.session.subscriptions.len() > before {
            self.shard.counters.subscriptions.add(1);
            if let (Some((_, live)), false) = (start, state.session.is_behind()) {
                // Live sessions are still before this subscription's start: it gets there by itself, from where they
                // are, so that its other subscriptions miss nothing.
                self.fall_behind(state, live.clone());
            }
        }
        match granted.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce | QoS::ExactlyOnce => ReasonCode::GrantedQoS1,
        }
    }

    fn unsubscribe(
        &self,
        state: &mut State<S::Ticket>,
        unsubscribe: &Unsubscribe<'_>,
        out: &mut BytesMut,
    ) {
        let mut reasons = Vec::new();
        for filter in unsubscribe.filters.iter() {
            // [MQTT-3.10.4-1]: compared character by character.
            let reason = match state.session.subscriptions.remove(filter) {
                Some(removed) => {
                    self.shard.router.borrow_mut().remove(&removed, self.key);
                    self.shard.counters.subscriptions.sub(1);
                    ReasonCode::Success
                }
                None => ReasonCode::NoSubscriptionExisted,
            };
            reasons.push(reason);
        }
        if state.session.subscriptions.is_empty() && state.session.is_behind() {
            state.session.cursor = Cursor::Live;
            self.shard.counters.behind.sub(1);
        }
        // [MQTT-3.10.4-4], [MQTT-3.10.4-5]
        let packet = Packet::UnsubAck(UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: AckProperties::default(),
            reasons: ReasonCodes::new(&reasons),
        });
        self.answer(state, &packet, out);
    }

    /// Encodes an answer; a client whose Maximum Packet Size does not hold it cannot be served. [MQTT-3.1.2-24]
    fn answer(&self, state: &mut State<S::Ticket>, packet: &Packet<'_>, out: &mut BytesMut) {
        let bytes_max = state.session.outbound.packet_bytes_max();
        if let Err(error) = encode(packet, state.session.version, bytes_max, out) {
            tracing::info!(client = self.client_id(), %error, "answer cannot be sent");
            let detail = "an answer does not fit the client's maximum packet size";
            self.end(state, ReasonCode::PacketTooLarge, RefuseCause::PacketTooLarge, detail);
        }
    }
}

/// What a refused QoS 0 message is counted as.
const fn drop_cause(refusal: Refusal) -> DropCause {
    match refusal {
        Refusal::DiskFull => DropCause::DiskFull,
        Refusal::TooLarge | Refusal::Offline | Refusal::NotAuthorized => DropCause::Refused,
    }
}
