//! The session without I/O: order, windows, limits, and what CONNECT comes to.

use super::outbound::Outbound;
use super::*;
use crate::codec::{
    Connect, ConnectProperties, Decoded, Decoder, Packet, PacketId, QoS, ReasonCode,
    SubscriptionOptions,
};
use crate::counters::DropCause;
use crate::filter::TopicFilter;
use crate::store::{Message, Refusal, Settled};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

fn message(number: u64, qos: QoS, payload: usize) -> Arc<Message> {
    Arc::new(Message {
        topic: "t".into(),
        payload: Bytes::from(vec![b'x'; payload]),
        qos,
        retain: false,
        publisher: Some("me".into()),
        expires_at_ms: None,
        payload_format_indicator: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        stream: StreamId(0),
        offset: number,
    })
}

fn granted(qos: QoS, identifier: Option<u32>) -> Granted {
    Granted::new(SubscriptionOptions { qos, ..SubscriptionOptions::default() }, identifier)
}

fn delivery(number: u64, qos: QoS) -> Delivery {
    let mut matched = Matched::default();
    matched.add(&granted(QoS::AtLeastOnce, None));
    Delivery { message: message(number, qos, 1), matched }
}

fn outbound(window: u16) -> Outbound {
    Outbound::new(Version::V311, window, u32::MAX, &Limits::default())
}

/// Packet identifiers of the PUBLISHes in `bytes`; `None` for QoS 0.
fn sent(bytes: &[u8]) -> Vec<Option<u16>> {
    let (mut at, mut ids) = (0, Vec::new());
    while at < bytes.len() {
        match Decoder::client(Version::V311, u32::MAX).decode(&bytes[at..]).unwrap() {
            Decoded::Packet { packet: Packet::Publish(publish), bytes } => {
                ids.push(publish.packet_id.map(PacketId::get));
                at += bytes;
            }
            other => panic!("{other:?}"),
        }
    }
    ids
}

/// Acknowledgements leave in the order of arrival, whatever settles first.
#[test]
fn acknowledgements_leave_in_order() {
    let mut inbound: Inbound<u32> = Inbound::new(10);
    let id = |n| PacketId::new(n).unwrap();
    inbound.accepted(id(5), 50, 1);
    inbound.refused(id(6), ReasonCode::QuotaExceeded, 1);
    inbound.accepted(id(7), 70, 2);
    assert_eq!(inbound.room(), 7);
    let only_70 = |t: &u32| if *t == 70 { Settled::Passed } else { Settled::Waiting };
    assert_eq!(inbound.next_settled(only_70), None);
    assert_eq!(
        inbound.next_settled(|_| Settled::Passed),
        Some(Verdict::Acknowledge { packet_id: id(5), read_at_ns: 1, ticket: 50 })
    );
    assert_eq!(
        inbound.next_settled(only_70),
        Some(Verdict::Refuse { packet_id: id(6), reason: ReasonCode::QuotaExceeded })
    );
    assert_eq!(
        inbound.next_settled(|_| Settled::Failed(Refusal::Offline)),
        Some(Verdict::Refuse { packet_id: id(7), reason: ReasonCode::UnspecifiedError })
    );
    assert_eq!((inbound.next_settled(|_| Settled::Passed), inbound.room()), (None, 10));
    assert!(inbound.is_idle());
}

#[test]
fn aliases_are_bounded_and_change() {
    let mut aliases = Aliases::new(2);
    assert_eq!(aliases.look_up(0, "a"), AliasUse::Invalid);
    assert_eq!(aliases.look_up(3, "a"), AliasUse::Invalid);
    assert_eq!(aliases.look_up(2, ""), AliasUse::Unknown);
    assert_eq!(aliases.look_up(2, "a"), AliasUse::Set);
    aliases.set(2, "a");
    assert_eq!(aliases.look_up(2, ""), AliasUse::Known("a"));
    assert_eq!(aliases.look_up(2, "a"), AliasUse::Known("a"));
    assert_eq!(aliases.look_up(1, ""), AliasUse::Unknown);
    assert_eq!(aliases.look_up(2, "b"), AliasUse::Set);
    assert_eq!(Aliases::new(0).look_up(1, "a"), AliasUse::Invalid);
}

#[test]
fn a_full_window_holds_everything_back_in_order() {
    let mut outbound = outbound(2);
    for (number, qos) in [(0, 1), (1, 0), (2, 1), (3, 1), (4, 0)] {
        let qos = if qos == 1 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        outbound.push(delivery(number, qos));
    }
    let mut out = BytesMut::new();
    let pumped = outbound.pump(&mut out, usize::MAX, 0);
    assert_eq!(pumped.sent, [1, 2]);
    assert_eq!(sent(&out), [Some(1), None, Some(2)]);
    assert!(!outbound.can_send());
    assert!(!outbound.acknowledge(PacketId::new(9).unwrap()), "never sent");
    assert!(outbound.acknowledge(PacketId::new(2).unwrap()));
    assert!(!outbound.acknowledge(PacketId::new(2).unwrap()), "acknowledged before");
    out.clear();
    outbound.pump(&mut out, usize::MAX, 0);
    assert_eq!(sent(&out), [Some(3), None]);
}

proptest! {
    /// Whatever the client acknowledges in whatever order: the window is never exceeded, no identifier is used twice
    /// at a time, none is 0, all messages leave, in order.
    #[test]
    fn windows_and_identifiers(window in 1u16..6, picks in prop::collection::vec(any::<u16>(), 300)) {
        let mut outbound = outbound(window);
        // Begin shortly before the identifiers wrap.
        outbound.begin_ids_after(65_500);
        let mut inflight = BTreeSet::new();
        let mut order = VecDeque::new();
        for (number, pick) in picks.into_iter().enumerate() {
            let delivery = delivery(number as u64, QoS::AtLeastOnce);
            if outbound.has_room_for(&delivery.message) {
                outbound.push(delivery);
            }
            let mut out = BytesMut::new();
            outbound.pump(&mut out, usize::MAX, 0);
            for id in sent(&out) {
                let id = id.unwrap();
                prop_assert!(id != 0 && inflight.insert(id), "{id} is in flight already");
                order.push_back(id);
            }
            prop_assert!(inflight.len() <= usize::from(window));
            if pick % 3 != 0 && let Some(id) = inflight.iter().nth(usize::from(pick) % inflight.len().max(1)).copied() {
                inflight.remove(&id);
                prop_assert!(outbound.acknowledge(PacketId::new(id).unwrap()));
            }
        }
    }
}

#[test]
fn the_queue_is_bounded_in_messages_and_bytes() {
    let limits = Limits { queue_messages_max: 3, queue_bytes_max: 100, ..Limits::default() };
    let mut outbound = Outbound::new(Version::V5, 1, u32::MAX, &limits);
    let put = |outbound: &mut Outbound, payload| {
        let message = message(0, QoS::AtLeastOnce, payload);
        let fits = outbound.has_room_for(&message);
        if fits {
            let mut matched = Matched::default();
            matched.add(&granted(QoS::AtLeastOnce, None));
            outbound.push(Delivery { message, matched });
        }
        fits
    };
    assert!(put(&mut outbound, 1_000), "one message may be larger than the queue");
    assert!(!put(&mut outbound, 1));
    outbound.pump(&mut BytesMut::new(), usize::MAX, 0);
    assert!(put(&mut outbound, 40) && put(&mut outbound, 40) && !put(&mut outbound, 40));
    assert!(!outbound.is_half_empty());
    assert!(put(&mut outbound, 1) && !put(&mut outbound, 1), "three messages are all");
}

#[test]
fn what_is_too_large_or_too_old_is_dropped_and_takes_no_identifier() {
    let mut outbound = Outbound::new(Version::V5, 10, 60, &Limits::default());
    let mut old = Arc::unwrap_or_clone(message(1, QoS::AtLeastOnce, 1));
    old.expires_at_ms = Some(1_000);
    let mut matched = Matched::default();
    matched.add(&granted(QoS::AtLeastOnce, Some(7)));
    let large = message(0, QoS::AtLeastOnce, 60);
    let good = message(2, QoS::AtLeastOnce, 1);
    for message in [large, Arc::new(old), good] {
        outbound.push(Delivery { message, matched: matched.clone() });
    }
    let mut out = BytesMut::new();
    let pumped = outbound.pump(&mut out, usize::MAX, 1_000);
    let causes: Vec<_> = pumped.dropped.iter().map(|(cause, _)| *cause).collect();
    assert_eq!(causes, [DropCause::SubscriberPacketTooLarge, DropCause::Expired]);
    let decoded = Decoder::client(Version::V5, u32::MAX).decode(&out).unwrap();
    let Decoded::Packet { packet: Packet::Publish(publish), .. } = decoded else {
        panic!("{decoded:?}")
    };
    assert_eq!(publish.packet_id, PacketId::new(1));
    assert_eq!(publish.properties.subscription_identifiers.iter().collect::<Vec<_>>(), [7]);
}

#[test]
fn subscriptions_that_started_later_do_not_see_what_was_before() {
    let mut subscriptions = Subscriptions::new(2);
    let filter = |f| TopicFilter::new(f).unwrap();
    let since = Some(Rc::new(Positions::new(vec![10])));
    let first = SessionSubscription { granted: granted(QoS::AtMostOnce, Some(1)), since: None };
    let later = SessionSubscription { granted: granted(QoS::AtLeastOnce, Some(2)), since };
    assert!(subscriptions.insert(filter("t"), first));
    assert!(subscriptions.insert(filter("#"), later));
    let third = SessionSubscription { granted: granted(QoS::AtMostOnce, None), since: None };
    assert!(!subscriptions.insert(filter("x"), third));
    let at = |offset| subscriptions.matched(&message(offset, QoS::AtLeastOnce, 1), "me").unwrap();
    assert_eq!((at(9).qos, at(9).identifiers.as_slice()), (QoS::AtMostOnce, &[1][..]));
    let mut both = at(10).identifiers.as_slice().to_vec();
    both.sort_unstable();
    assert_eq!((at(10).qos, both), (QoS::AtLeastOnce, vec![1, 2]));
}

fn connect(version: Version, client_id: &str, clean_start: bool) -> Connect<'_> {
    Connect {
        version,
        clean_start,
        keep_alive_s: 10,
        client_id,
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

#[test]
fn empty_client_identifiers_follow_their_version() {
    let limits = Limits::default();
    let reason = |connect| negotiate(&connect, &limits).map_err(|refused| refused.reason);
    let invalid = Err(ReasonCode::ClientIdentifierNotValid);
    assert_eq!(reason(connect(Version::V3, "", true)), invalid);
    // [MQTT-3.1.3-8]
    assert_eq!(reason(connect(Version::V311, "", false)), invalid);
    assert!(reason(connect(Version::V311, "", true)).unwrap().assign_client_id);
    assert!(reason(connect(Version::V5, "", false)).unwrap().assign_client_id);
    assert!(!reason(connect(Version::V5, "a", false)).unwrap().assign_client_id);
}

#[test]
fn keep_alives_are_bounded_where_the_client_can_be_told() {
    let limits = Limits { keep_alive_s_max: 20, ..Limits::default() };
    let agreed = |version, keep_alive_s| {
        let connect = Connect { keep_alive_s, ..connect(version, "a", true) };
        let agreed = negotiate(&connect, &limits).unwrap();
        (agreed.silence_max.map(|d| d.as_millis()), agreed.server_keep_alive_s)
    };
    assert_eq!(agreed(Version::V5, 10), (Some(15_000), None));
    assert_eq!(agreed(Version::V5, 60), (Some(30_000), Some(20)));
    assert_eq!(agreed(Version::V5, 0), (Some(30_000), Some(20)));
    assert_eq!(agreed(Version::V311, 60), (Some(90_000), None));
    assert_eq!(agreed(Version::V311, 0), (None, None));
}

#[test]
fn authentication_methods_are_refused() {
    let properties =
        ConnectProperties { authentication_method: Some("SCRAM"), ..ConnectProperties::default() };
    let connect = Connect { properties, ..connect(Version::V5, "a", true) };
    let refused = negotiate(&connect, &Limits::default()).unwrap_err();
    assert_eq!(refused.reason, ReasonCode::BadAuthenticationMethod);
    assert!(refused.packet().is_some());
}

#[test]
fn positions_grow_with_the_streams() {
    let mut positions = Positions::new(vec![3]);
    positions.set(StreamId(1), 9);
    assert_eq!(positions.get(StreamId(1)), None);
    positions.extend(3, |stream| u64::from(stream.0) * 10);
    positions.extend(2, |_| 99);
    positions.set(StreamId(0), 4);
    let all: Vec<_> = positions.iter().map(|(s, next)| (s.0, next)).collect();
    assert_eq!(all, [(0, 4), (1, 10), (2, 20)]);
}
