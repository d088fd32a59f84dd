//! Packets that the encoder refuses, so that no caller's mistake reaches a peer. Nothing is written then.

use bytes::BytesMut;
use headwater_mqtt::codec::Version::{V3, V5, V311};
use headwater_mqtt::codec::{
    Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Decoded, Decoder,
    Disconnect, EncodeError, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode,
    ReasonCodes, SubAck, Subscribe, SubscribeProperties, Subscription, SubscriptionIdentifiers,
    SubscriptionOptions, Subscriptions, TopicFilters, UnsubAck, Unsubscribe, UserProperties,
    UserPropertiesBuf, Version, Will, encode,
};

const VERSIONS: [Version; 3] = [V3, V311, V5];

fn check(packet: Packet<'_>, version: Version, expected: &str) {
    let mut out = BytesMut::from(&b"before"[..]);
    match encode(&packet, version, u32::MAX, &mut out) {
        Err(EncodeError::Illegal { tag, .. }) => {
            assert_eq!(tag, expected, "{version:?} {packet:?}");
        }
        other => panic!("{version:?} {packet:?}: {other:?}, {expected} expected"),
    }
    assert_eq!(&out[..], b"before", "{packet:?}");
}

fn id() -> PacketId {
    PacketId::new(1).unwrap()
}

fn publish() -> Publish<'static> {
    Publish {
        topic: "a",
        payload: b"p",
        qos: QoS::AtMostOnce,
        retain: false,
        dup: false,
        packet_id: None,
        properties: PublishProperties::default(),
    }
}

fn connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 0,
        client_id: "c",
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn connack() -> ConnAck<'static> {
    ConnAck {
        session_present: false,
        reason: ReasonCode::Success,
        properties: ConnAckProperties::default(),
    }
}

#[test]
fn publishes() {
    let long = "x".repeat(65_536);
    for version in VERSIONS {
        let p = |publish, tag| check(Packet::Publish(publish), version, tag);
        p(Publish { dup: true, ..publish() }, "MQTT-3.3.1-2");
        p(Publish { packet_id: Some(id()), ..publish() }, "MQTT-2.2.1-2");
        p(Publish { qos: QoS::AtLeastOnce, ..publish() }, "MQTT-2.2.1-2");
        p(Publish { topic: "", ..publish() }, "MQTT-4.7.3-1");
        p(Publish { topic: "a/#", ..publish() }, "MQTT-3.3.2-2");
        p(Publish { topic: "a\0", ..publish() }, "MQTT-4.7.3-2");
        p(Publish { topic: &long, ..publish() }, "MQTT-4.7.3-3");
    }
    let with = |properties, tag| {
        check(Packet::Publish(Publish { properties, ..publish() }), V5, tag);
    };
    let none = PublishProperties::default();
    with(PublishProperties { topic_alias: Some(0), ..none }, "MQTT-3.3.2-8");
    with(PublishProperties { payload_format_indicator: Some(2), ..none }, "3.3.2.3.2");
    with(PublishProperties { response_topic: Some("+"), ..none }, "MQTT-3.3.2-2");
    with(PublishProperties { response_topic: Some(""), ..none }, "MQTT-4.7.3-1");
    with(PublishProperties { content_type: Some("\0"), ..none }, "MQTT-1.5.4-2");
    with(PublishProperties { content_type: Some(&long), ..none }, "1.5.4");
    with(PublishProperties { correlation_data: Some(long.as_bytes()), ..none }, "1.5.4");
    for bad in [&[0][..], &[1, 268_435_456]] {
        let subscription_identifiers = SubscriptionIdentifiers::new(bad);
        with(PublishProperties { subscription_identifiers, ..none }, "3.8.2.1.2");
    }
}

#[test]
fn user_properties() {
    let long = "x".repeat(65_536);
    let mut buf = UserPropertiesBuf::default();
    buf.push("k", "v").unwrap();
    for (name, value) in [("k\0", "v"), ("k", "\0"), (long.as_str(), ""), ("", long.as_str())] {
        assert!(buf.push(name, value).is_err());
    }
    let pairs: Vec<_> = buf.as_properties().iter().collect();
    assert_eq!(pairs, [("k", "v")], "a refused pair leaves nothing behind");
    buf.clear();
    assert!(buf.as_properties().is_empty());
}

#[test]
fn connects() {
    for version in VERSIONS {
        let c = |connect, tag| check(Packet::Connect(connect), version, tag);
        c(Connect { client_id: "\0", ..connect(version) }, "MQTT-1.5.4-2");
        c(Connect { user_name: Some("\0"), ..connect(version) }, "MQTT-1.5.4-2");
        let will = Will {
            topic: "#",
            payload: b"",
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Default::default(),
        };
        c(Connect { will: Some(will), ..connect(version) }, "MQTT-3.3.2-2");
        let other = if version == V5 { V311 } else { V5 };
        c(connect(other), "MQTT-3.1.2-2");
        if version != V5 {
            c(Connect { password: Some(b"p"), ..connect(version) }, "MQTT-3.1.2-22");
            let kept = Connect { clean_start: false, client_id: "", ..connect(version) };
            c(kept, "MQTT-3.1.3-8");
        }
    }
    check(Packet::Connect(Connect { client_id: "", ..connect(V3) }), V3, "MQTT-3.1.3-8");
    let with = |properties, tag| {
        check(Packet::Connect(Connect { properties, ..connect(V5) }), V5, tag);
    };
    let none = ConnectProperties::default();
    with(ConnectProperties { receive_maximum: Some(0), ..none }, "3.1.2.11");
    with(ConnectProperties { maximum_packet_size_bytes: Some(0), ..none }, "3.1.2.11");
    with(ConnectProperties { authentication_data: Some(b"d"), ..none }, "3.1.2.11.10");
}

#[test]
fn connacks() {
    let refused = ConnAck { reason: ReasonCode::NotAuthorized, ..connack() };
    for version in VERSIONS {
        let packet = Packet::ConnAck(ConnAck { session_present: true, ..refused });
        check(packet, version, "MQTT-3.2.2-6");
    }
    // No return code says it: the connection is closed instead.
    for version in [V3, V311] {
        let packet = Packet::ConnAck(ConnAck { reason: ReasonCode::ProtocolError, ..connack() });
        check(packet, version, "MQTT-3.2.2-6");
    }
    let wrong = ConnAck { reason: ReasonCode::SessionTakenOver, ..connack() };
    check(Packet::ConnAck(wrong), V5, "2.4");
    let properties =
        ConnAckProperties { maximum_qos: Some(QoS::ExactlyOnce), ..ConnAckProperties::default() };
    check(Packet::ConnAck(ConnAck { properties, ..connack() }), V5, "3.2.2.3.4");
}

#[test]
fn a_session_is_not_announced_to_a_version_that_has_no_word_for_it() {
    let mut out = BytesMut::new();
    let packet = Packet::ConnAck(ConnAck { session_present: true, ..connack() });
    encode(&packet, V3, u32::MAX, &mut out).unwrap();
    assert_eq!(&out[..], [0x20, 2, 0, 0]);
}

#[test]
fn subscriptions() {
    let options = SubscriptionOptions::default();
    for version in VERSIONS {
        let subscribe = |list: &[Subscription<'_>], tag| {
            let subscriptions = Subscriptions::new(list);
            let properties = SubscribeProperties::default();
            let packet = Subscribe { packet_id: id(), properties, subscriptions };
            check(Packet::Subscribe(packet), version, tag);
        };
        subscribe(&[], "MQTT-3.8.3-2");
        subscribe(&[Subscription { filter: "", options }], "MQTT-4.7.3-1");
        subscribe(&[Subscription { filter: "a/#/b", options }], "MQTT-4.7.1-1");
        subscribe(&[Subscription { filter: "a+", options }], "MQTT-4.7.1-2");
        let unsubscribe = |list: &[&str], tag| {
            let filters = TopicFilters::new(list);
            let user_properties = UserProperties::default();
            let packet = Unsubscribe { packet_id: id(), user_properties, filters };
            check(Packet::Unsubscribe(packet), version, tag);
        };
        unsubscribe(&[], "MQTT-3.10.3-2");
        unsubscribe(&["a", "#a"], "MQTT-4.7.1-1");
        let suback = |list: &[ReasonCode], tag| {
            let reasons = ReasonCodes::new(list);
            let packet = SubAck { packet_id: id(), properties: Default::default(), reasons };
            check(Packet::SubAck(packet), version, tag);
        };
        suback(&[], "MQTT-3.9.3-1");
        suback(&[ReasonCode::ServerBusy], "2.4");
    }
    let shared = SubscriptionOptions { no_local: true, ..options };
    let list = [Subscription { filter: "$share/g/a", options: shared }];
    let packet = Subscribe {
        packet_id: id(),
        properties: SubscribeProperties::default(),
        subscriptions: Subscriptions::new(&list),
    };
    check(Packet::Subscribe(packet), V5, "MQTT-3.8.3-4");
    let reasons = ReasonCodes::new(&[]);
    let packet = UnsubAck { packet_id: id(), properties: Default::default(), reasons };
    check(Packet::UnsubAck(packet), V5, "MQTT-3.11.3-1");
}

#[test]
fn endings() {
    for version in [V3, V311] {
        let packet = Packet::Disconnect(Disconnect::new(ReasonCode::ServerShuttingDown));
        check(packet, version, "3.14");
        let properties = AuthProperties::default();
        let auth = Auth { reason: ReasonCode::ContinueAuthentication, properties };
        check(Packet::Auth(auth), version, "3.15");
    }
    check(Packet::Disconnect(Disconnect::new(ReasonCode::Banned)), V5, "2.4");
    let properties = AuthProperties::default();
    let auth = Auth { reason: ReasonCode::ContinueAuthentication, properties };
    check(Packet::Auth(auth), V5, "3.15.2.2.2");
}

#[test]
fn every_failure_of_a_subscription_is_0x80_below_version_5() {
    let codes = [ReasonCode::GrantedQoS1, ReasonCode::SharedSubscriptionsNotSupported];
    let reasons = ReasonCodes::new(&codes);
    let packet = SubAck { packet_id: id(), properties: Default::default(), reasons };
    let mut out = BytesMut::new();
    encode(&Packet::SubAck(packet), V311, u32::MAX, &mut out).unwrap();
    assert_eq!(&out[..], [0x90, 4, 0, 1, 1, 0x80]);
    let found = Decoder::client(V311, u32::MAX).decode(&out);
    assert!(matches!(found, Ok(Decoded::Packet { packet: Packet::SubAck(_), .. })));
}
