//! Arbitrary legal packets of every version.
//!
//! Packets borrow; what they borrow is leaked here, which a test process can afford.

use headwater_mqtt::codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId, PacketType, Publish,
    PublishProperties, QoS, ReasonCode, ReasonCodes, Receiver, RetainHandling, SubAck, Subscribe,
    SubscribeProperties, Subscription, SubscriptionIdentifiers, SubscriptionOptions, Subscriptions,
    TopicFilters, UnsubAck, Unsubscribe, UserProperties, UserPropertiesBuf, Version, Will,
    WillProperties,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

/// A packet and the side that receives it.
pub(crate) type Sent = (Receiver, Packet<'static>);

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn text() -> impl Strategy<Value = &'static str> {
    // Never U+0000. A few long ones, so that lengths of two and three bytes come up.
    prop_oneof![
        8 => "[^\0]{0,12}",
        1 => "[a-zé😀]{100,200}",
        1 => Just("x".repeat(17_000)),
    ]
    .prop_map(|s| leak(s).as_str())
}

fn data() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(|v| leak(v).as_slice())
}

pub(crate) fn topic() -> impl Strategy<Value = &'static str> {
    "[^\0+#]{1,20}".prop_map(|s| leak(s).as_str())
}

fn filter() -> impl Strategy<Value = &'static str> {
    let level = prop_oneof![3 => "[^\0+#/$]{0,6}", 1 => Just("+".to_owned())];
    (vec(level, 1..5), any::<bool>(), of("[^\0+#/]{1,5}")).prop_map(|(levels, rest, share)| {
        let mut filter = levels.join("/");
        if rest {
            filter.push_str("/#");
        } else if filter.is_empty() {
            filter.push('x');
        }
        if let Some(name) = share {
            filter = format!("$share/{name}/{filter}");
        }
        leak(filter).as_str()
    })
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|n| PacketId::new(n).unwrap())
}

pub(crate) fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn user_properties() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..4).prop_map(|pairs| {
        let mut buf = UserPropertiesBuf::default();
        for (name, value) in pairs {
            buf.push(name, value).unwrap();
        }
        leak(buf).as_properties()
    })
}

/// A legal reason code of a packet.
fn reason(packet_type: PacketType, receiver: Receiver) -> impl Strategy<Value = ReasonCode> {
    let legal: Vec<ReasonCode> =
        ReasonCode::ALL.iter().copied().filter(|r| r.is_legal(packet_type, receiver)).collect();
    proptest::sample::select(legal)
}

fn format_indicator() -> impl Strategy<Value = Option<u8>> {
    of(0..=1u8)
}

fn authentication() -> impl Strategy<Value = (Option<&'static str>, Option<&'static [u8]>)> {
    of((text(), of(data()))).prop_map(|a| match a {
        None => (None, None),
        Some((method, data)) => (Some(method), data),
    })
}

fn will_properties() -> impl Strategy<Value = WillProperties<'static>> {
    let fields = (
        of(any::<u32>()),
        format_indicator(),
        of(any::<u32>()),
        of(text()),
        of(topic()),
        of(data()),
        user_properties(),
    );
    fields.prop_map(|(delay, format, expiry, content_type, response, correlation, user)| {
        WillProperties {
            delay_interval_s: delay,
            payload_format_indicator: format,
            message_expiry_interval_s: expiry,
            content_type,
            response_topic: response,
            correlation_data: correlation,
            user_properties: user,
        }
    })
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties<'static>> {
    let fields = (
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(1..=u32::MAX),
        of(any::<u16>()),
        of(any::<bool>()),
        of(any::<bool>()),
        authentication(),
        user_properties(),
    );
    fields.prop_map(|(expiry, receive, size, alias, response, problem, (method, data), user)| {
        ConnectProperties {
            session_expiry_interval_s: expiry,
            receive_maximum: receive,
            maximum_packet_size_bytes: size,
            topic_alias_maximum: alias,
            request_response_information: response,
            request_problem_information: problem,
            user_properties: user,
            authentication_method: method,
            authentication_data: data,
        }
    })
}

fn connect(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let will = (topic(), data(), qos(), any::<bool>(), will_properties());
    let fields = (
        (any::<bool>(), any::<u16>(), text(), of(will)),
        (of(text()), of(data()), connect_properties()),
    );
    fields.prop_map(move |((clean, keep_alive_s, id, will), (user, password, properties))| {
        let is_v5 = version == Version::V5;
        let will = will.map(|(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties: if is_v5 { properties } else { WillProperties::default() },
        });
        let may_be_empty = is_v5 || (version == Version::V311 && clean);
        Packet::Connect(Connect {
            version,
            clean_start: clean,
            keep_alive_s,
            client_id: if id.is_empty() && !may_be_empty { "c" } else { id },
            will,
            user_name: user,
            password: if is_v5 || user.is_some() { password } else { None },
            properties: if is_v5 { properties } else { ConnectProperties::default() },
        })
    })
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties<'static>> {
    let numbers = (
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)]),
        of(1..=u32::MAX),
        of(any::<u16>()),
        of(any::<u16>()),
    );
    let flags = (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>()));
    let texts = (of(text()), of(text()), of(text()), of(text()), authentication());
    (numbers, flags, texts, user_properties()).prop_map(|(numbers, flags, texts, user)| {
        ConnAckProperties {
            session_expiry_interval_s: numbers.0,
            receive_maximum: numbers.1,
            maximum_qos: numbers.2,
            maximum_packet_size_bytes: numbers.3,
            topic_alias_maximum: numbers.4,
            server_keep_alive_s: numbers.5,
            retain_available: flags.0,
            wildcard_subscription_available: flags.1,
            subscription_identifiers_available: flags.2,
            shared_subscription_available: flags.3,
            assigned_client_identifier: texts.0,
            reason_string: texts.1,
            response_information: texts.2,
            server_reference: texts.3,
            authentication_method: texts.4.0,
            authentication_data: texts.4.1,
            user_properties: user,
        }
    })
}

fn connack(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let reason = reason(PacketType::ConnAck, Receiver::Client);
    (any::<bool>(), reason, connack_properties()).prop_map(move |(present, reason, properties)| {
        let is_v5 = version == Version::V5;
        // Below version 5, one of the codes that come back as they were.
        let plain = reason.connect_return_code().and_then(ReasonCode::from_connect_return_code);
        let reason = if is_v5 { reason } else { plain.unwrap_or(ReasonCode::Success) };
        Packet::ConnAck(ConnAck {
            session_present: present && reason == ReasonCode::Success && version != Version::V3,
            reason,
            properties: if is_v5 { properties } else { ConnAckProperties::default() },
        })
    })
}

fn publish_properties(to: Receiver) -> impl Strategy<Value = PublishProperties<'static>> {
    let identifiers = vec(1..=268_435_455u32, 0..3);
    let fields = (
        format_indicator(),
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(topic()),
        of(data()),
        user_properties(),
        identifiers,
        of(text()),
    );
    fields.prop_map(move |(format, expiry, alias, response, correlation, user, ids, content)| {
        let ids: &'static Vec<u32> = leak(if to == Receiver::Client { ids } else { vec![] });
        PublishProperties {
            payload_format_indicator: format,
            message_expiry_interval_s: expiry,
            topic_alias: alias,
            response_topic: response,
            correlation_data: correlation,
            user_properties: user,
            subscription_identifiers: SubscriptionIdentifiers::new(ids),
            content_type: content,
        }
    })
}

pub(crate) fn publish(version: Version, to: Receiver) -> impl Strategy<Value = Publish<'static>> {
    let fields = (
        (topic(), any::<bool>(), data(), qos(), packet_id()),
        (any::<bool>(), any::<bool>(), publish_properties(to)),
    );
    fields.prop_map(move |((topic, by_alias, payload, qos, id), (retain, dup, properties))| {
        let is_v5 = version == Version::V5;
        let properties = if is_v5 { properties } else { PublishProperties::default() };
        let by_alias = by_alias && properties.topic_alias.is_some();
        let acknowledged = qos != QoS::AtMostOnce;
        Publish {
            topic: if by_alias { "" } else { topic },
            payload,
            qos,
            retain,
            dup: dup && acknowledged,
            packet_id: acknowledged.then_some(id),
            properties,
        }
    })
}

fn ack_properties(version: Version) -> impl Strategy<Value = AckProperties<'static>> {
    (of(text()), user_properties()).prop_map(move |(reason_string, user_properties)| {
        if version == Version::V5 {
            AckProperties { reason_string, user_properties }
        } else {
            AckProperties::default()
        }
    })
}

fn ack(version: Version, packet_type: PacketType) -> impl Strategy<Value = Packet<'static>> {
    let reason = reason(packet_type, Receiver::Server);
    (packet_id(), reason, ack_properties(version)).prop_map(
        move |(packet_id, reason, properties)| {
            let reason = if version == Version::V5 { reason } else { ReasonCode::Success };
            let ack = Ack { packet_id, reason, properties };
            match packet_type {
                PacketType::PubAck => Packet::PubAck(ack),
                PacketType::PubRec => Packet::PubRec(ack),
                PacketType::PubRel => Packet::PubRel(ack),
                _ => Packet::PubComp(ack),
            }
        },
    )
}

fn subscription(version: Version) -> impl Strategy<Value = Subscription<'static>> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    (filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(filter, qos, no_local, retain_as_published, retain_handling)| {
            let no_local = no_local && !filter.starts_with("$share/");
            let options = if version == Version::V5 {
                SubscriptionOptions { qos, no_local, retain_as_published, retain_handling }
            } else {
                SubscriptionOptions { qos, ..SubscriptionOptions::default() }
            };
            Subscription { filter, options }
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let properties = (of(1..=268_435_455u32), user_properties());
    (packet_id(), properties, vec(subscription(version), 1..5)).prop_map(
        move |(packet_id, (subscription_identifier, user_properties), list)| {
            let properties = if version == Version::V5 {
                SubscribeProperties { subscription_identifier, user_properties }
            } else {
                SubscribeProperties::default()
            };
            let subscriptions = Subscriptions::new(leak(list));
            Packet::Subscribe(Subscribe { packet_id, properties, subscriptions })
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    (packet_id(), user_properties(), vec(filter(), 1..5)).prop_map(
        move |(packet_id, user_properties, list)| {
            let is_v5 = version == Version::V5;
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                user_properties: if is_v5 { user_properties } else { UserProperties::default() },
                filters: TopicFilters::new(leak(list)),
            })
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let codes = vec(reason(PacketType::SubAck, Receiver::Client), 1..5);
    (packet_id(), ack_properties(version), codes).prop_map(
        move |(packet_id, properties, mut codes)| {
            if version != Version::V5 {
                for code in &mut codes {
                    if code.is_error() {
                        *code = ReasonCode::UnspecifiedError;
                    }
                }
            }
            Packet::SubAck(SubAck { packet_id, properties, reasons: ReasonCodes::new(leak(codes)) })
        },
    )
}

fn unsuback(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let codes = vec(reason(PacketType::UnsubAck, Receiver::Client), 1..5);
    (packet_id(), ack_properties(version), codes).prop_map(move |(packet_id, properties, codes)| {
        let codes = if version == Version::V5 { codes } else { vec![] };
        Packet::UnsubAck(UnsubAck { packet_id, properties, reasons: ReasonCodes::new(leak(codes)) })
    })
}

fn disconnect(version: Version, to: Receiver) -> impl Strategy<Value = Packet<'static>> {
    let reason = reason(PacketType::Disconnect, to);
    let fields = (reason, of(any::<u32>()), of(text()), user_properties(), of(text()));
    fields.prop_map(move |(reason, expiry, reason_string, user_properties, server_reference)| {
        if version != Version::V5 {
            return Packet::Disconnect(Disconnect::new(ReasonCode::Success));
        }
        let session_expiry_interval_s = if to == Receiver::Server { expiry } else { None };
        Packet::Disconnect(Disconnect {
            reason,
            properties: DisconnectProperties {
                session_expiry_interval_s,
                reason_string,
                user_properties,
                server_reference,
            },
        })
    })
}

fn auth(to: Receiver) -> impl Strategy<Value = Packet<'static>> {
    let fields = (reason(PacketType::Auth, to), text(), of(data()), of(text()), user_properties());
    fields.prop_map(|(reason, method, authentication_data, reason_string, user_properties)| {
        Packet::Auth(Auth {
            reason,
            properties: AuthProperties {
                authentication_method: Some(method),
                authentication_data,
                reason_string,
                user_properties,
            },
        })
    })
}

/// Any legal packet of a version, with the side that may receive it.
pub(crate) fn sent(version: Version) -> BoxedStrategy<Sent> {
    let server = |s: BoxedStrategy<Packet<'static>>| s.prop_map(|p| (Receiver::Server, p)).boxed();
    let client = |s: BoxedStrategy<Packet<'static>>| s.prop_map(|p| (Receiver::Client, p)).boxed();
    let mut all = vec![
        server(connect(version).boxed()),
        client(connack(version).boxed()),
        server(publish(version, Receiver::Server).prop_map(Packet::Publish).boxed()),
        client(publish(version, Receiver::Client).prop_map(Packet::Publish).boxed()),
        server(subscribe(version).boxed()),
        client(suback(version).boxed()),
        server(unsubscribe(version).boxed()),
        client(unsuback(version).boxed()),
        server(Just(Packet::PingReq).boxed()),
        client(Just(Packet::PingResp).boxed()),
        server(disconnect(version, Receiver::Server).boxed()),
    ];
    let acks = [PacketType::PubAck, PacketType::PubRec, PacketType::PubRel, PacketType::PubComp];
    for packet_type in acks {
        all.push(server(ack(version, packet_type).boxed()));
        all.push(client(ack(version, packet_type).boxed()));
    }
    if version == Version::V5 {
        all.push(client(disconnect(version, Receiver::Client).boxed()));
        all.push(server(auth(Receiver::Server).boxed()));
        all.push(client(auth(Receiver::Client).boxed()));
    }
    proptest::strategy::Union::new(all).boxed()
}

/// Any version.
pub(crate) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V3), Just(Version::V311), Just(Version::V5)]
}
