//! Packets that look odd and are legal, and exactly how many bytes are still needed.

use crate::bytes::To::{Client, NewServer, Server};
use crate::bytes::{accepted, binary, packet, properties, text};
use headwater_mqtt::codec::Version::{self, V3, V5, V311};
use headwater_mqtt::codec::{
    Ack, Decoded, Decoder, Packet, PacketId, Publish, QoS, ReasonCode, RetainHandling,
};

const VERSIONS: [Version; 3] = [V3, V311, V5];

fn publish(version: Version, bytes: &[u8]) -> Publish<'_> {
    match accepted(Server(version), bytes) {
        Packet::Publish(publish) => publish,
        other => panic!("{other:?}"),
    }
}

#[test]
fn topics_of_every_shape() {
    let long = "x".repeat(65_535);
    let topics = [
        "a",
        "/",
        "//",
        "/a/",
        "é/x",
        "温度/ß/😀",
        "\u{FEFF}a",
        "\u{FFFF}",
        "\u{1}\u{7F}",
        " ",
        "$SYS/x",
        "a/$b",
        "$share/g/a",
        "$share",
        &long,
    ];
    for version in VERSIONS {
        let none: &[u8] = if version == V5 { &[0] } else { &[] };
        for topic in topics {
            let bytes = packet(0x30, &[&text(topic), none, b"payload"]);
            let publish = publish(version, &bytes);
            assert_eq!((publish.topic, publish.payload), (topic, &b"payload"[..]));
        }
    }
}

#[test]
fn filters_of_every_shape() {
    let filters = [
        "#",
        "+",
        "/",
        "+/+",
        "/+",
        "+/",
        "a/+/#",
        "é/#",
        "温度/+/😀",
        "$SYS/#",
        "//#",
        "$shared/x",
        "$sharex",
        "$share/g/#",
        "$share/é/+/b",
        "$share/g//",
    ];
    for version in VERSIONS {
        let none: &[u8] = if version == V5 { &[0] } else { &[] };
        let mut body = [&[0, 1][..], none].concat();
        for filter in filters {
            body.extend(text(filter));
            body.push(1);
        }
        let bytes = packet(0x82, &[&body]);
        let Packet::Subscribe(subscribe) = accepted(Server(version), &bytes) else { panic!() };
        let found: Vec<&str> = subscribe.subscriptions.iter().map(|s| s.filter).collect();
        assert_eq!(found, filters);
    }
}

#[test]
fn acknowledgements_may_leave_out_what_is_empty() {
    let of = |bytes: &'static [u8]| accepted(Server(V5), bytes);
    let id = PacketId::new(258).unwrap();
    let bare = Packet::PubAck(Ack::new(id, ReasonCode::Success));
    assert_eq!(of(&[0x40, 2, 1, 2]), bare);
    assert_eq!(of(&[0x40, 3, 1, 2, 0]), bare);
    assert_eq!(of(&[0x40, 4, 1, 2, 0, 0]), bare);
    let refused = Packet::PubRec(Ack::new(id, ReasonCode::QuotaExceeded));
    assert_eq!(of(&[0x50, 3, 1, 2, 0x97]), refused);
    for bytes in [&[0xE0, 0][..], &[0xE0, 1, 0], &[0xE0, 2, 0, 0]] {
        let Packet::Disconnect(disconnect) = accepted(Server(V5), bytes) else { panic!() };
        assert_eq!(disconnect.reason, ReasonCode::Success);
    }
    assert!(matches!(accepted(Client(V5), &[0xF0, 0]), Packet::Auth(_)));
}

#[test]
fn user_properties_keep_order_and_duplicates_between_others() {
    let section = properties(&[
        b"\x26\0\x01k\0\x011",
        &[0x0B, 0x80, 0x01],
        b"\x26\0\x01k\0\x012",
        &[0x02, 0, 0, 0, 9],
        b"\x26\0\x00\0\x00",
        &[0x0B, 7],
        b"\x03\0\x01\x26",
    ]);
    let bytes = packet(0x30, &[&text("t"), &section, b"p"]);
    let Packet::Publish(publish) = accepted(Client(V5), &bytes) else { panic!() };
    let pairs: Vec<_> = publish.properties.user_properties.iter().collect();
    assert_eq!(pairs, [("k", "1"), ("k", "2"), ("", "")]);
    assert_eq!(publish.properties.user_properties.get("k"), Some("1"));
    // rumqttc's codec cuts the payload of a PUBLISH with two subscription identifiers.
    let identifiers: Vec<_> = publish.properties.subscription_identifiers.iter().collect();
    assert_eq!(identifiers, [128, 7]);
    assert_eq!(publish.payload, b"p");
    assert_eq!(publish.properties.content_type, Some("\x26"));
}

#[test]
fn a_topic_alias_may_stand_for_the_topic() {
    let bytes = packet(0x32, &[&text(""), &[0, 1], &properties(&[&[0x23, 0xFF, 0xFF]])]);
    let publish = publish(V5, &bytes);
    assert_eq!((publish.topic, publish.properties.topic_alias), ("", Some(65_535)));
    assert_eq!(publish.qos, QoS::AtLeastOnce);
}

#[test]
fn a_password_alone_is_legal_in_version_5_only() {
    let bytes = packet(0x10, &[&text("MQTT"), &[5, 0x42, 0, 0, 0], &text(""), &binary(b"\xFF")]);
    let Packet::Connect(connect) = accepted(NewServer, &bytes) else { panic!() };
    assert_eq!((connect.user_name, connect.password), (None, Some(&b"\xFF"[..])));
}

#[test]
fn version_3_1_is_read_as_it_was_written() {
    // Reserved bit, will bits without a will, flags for a user name and password that are not there.
    let bytes = packet(0x10, &[&text("MQIsdp"), &[3, 0xF9, 0, 30], &text("c")]);
    let Packet::Connect(connect) = accepted(NewServer, &bytes) else { panic!() };
    assert_eq!((connect.version, connect.client_id), (V3, "c"));
    assert_eq!((connect.will, connect.user_name, connect.password), (None, None, None));
    // DUP on a repeated SUBSCRIBE, UNSUBSCRIBE and PUBREL.
    accepted(Server(V3), &packet(0x8A, &[&[0, 1], &text("a"), &[1]]));
    accepted(Server(V3), &packet(0xAA, &[&[0, 1], &text("a")]));
    accepted(Server(V3), &[0x6A, 2, 0, 1]);
    // A client identifier of more than 23 characters.
    let id = "x".repeat(60);
    accepted(NewServer, &packet(0x10, &[&text("MQIsdp"), &[3, 2, 0, 30], &text(&id)]));
}

#[test]
fn a_long_remaining_length_is_legal_below_version_5() {
    accepted(Server(V311), &[0x40, 0x82, 0x80, 0x00, 0, 1]);
    let connect = packet(0x10, &[&text("MQTT"), &[4, 2, 0, 0], &text("c")]);
    let mut stretched = connect.clone();
    stretched.splice(1..2, [connect[1] | 0x80, 0]);
    accepted(NewServer, &stretched);
}

#[test]
fn options_are_read_bit_by_bit() {
    let bytes = packet(0x82, &[&[0, 1, 0], &text("a"), &[0b10_1110]]);
    let Packet::Subscribe(subscribe) = accepted(Server(V5), &bytes) else { panic!() };
    let options = subscribe.subscriptions.iter().next().unwrap().options;
    assert_eq!(options.qos, QoS::ExactlyOnce);
    assert!(options.no_local && options.retain_as_published);
    assert_eq!(options.retain_handling, RetainHandling::DoNotSend);
    assert_eq!(options.bits(), 0b10_1110);
}

#[test]
fn incomplete_is_said_at_every_cut_and_is_never_more_than_what_is_missing() {
    let whole = packet(0x32, &[&text("a/b"), &[0, 1, 0], &[7; 300]]);
    let decoder = Server(V5).decoder();
    for cut in 0..whole.len() {
        match decoder.decode(&whole[..cut]) {
            Ok(Decoded::Incomplete { bytes_min }) => {
                assert!(cut < bytes_min && bytes_min <= whole.len(), "{cut}: {bytes_min}");
                // Once the length is there, exactly.
                assert!(cut < 3 || bytes_min == whole.len());
            }
            other => panic!("{cut}: {other:?}"),
        }
    }
}

#[test]
fn a_packet_exactly_at_the_limit_is_taken() {
    let whole = packet(0x30, &[&text("a"), &[0], &[7; 200]]);
    let decoder = Decoder::client(V5, whole.len() as u32);
    assert!(matches!(decoder.decode(&whole), Ok(Decoded::Packet { .. })));
    let decoder = Decoder::client(V5, whole.len() as u32 - 1);
    assert!(decoder.decode(&whole).is_err());
}

#[test]
fn packets_that_follow_are_left_alone() {
    let mut bytes = packet(0x30, &[&text("a"), b"one"]);
    let first = bytes.len();
    bytes.extend([0xC0, 0]);
    let decoder = Server(V311).decoder();
    let Ok(Decoded::Packet { packet, bytes: taken }) = decoder.decode(&bytes) else { panic!() };
    assert_eq!(taken, first);
    assert!(matches!(packet, Packet::Publish(p) if p.payload == b"one"));
    let rest = decoder.decode(&bytes[taken..]).unwrap();
    assert_eq!(rest, Decoded::Packet { packet: Packet::PingReq, bytes: 2 });
}
