//! Vectors that hold in more than one version: fixed header, directions, CONNECT, PUBLISH, subscriptions.

use crate::bytes::To::{Client, NewServer, Server};
use crate::bytes::{BYTES_MAX, Refused, To, binary, check_refused, packet, refusal, text};
use headwater_mqtt::codec::Version::{self, V3, V5, V311};
use headwater_mqtt::codec::Violation::{self, Malformed, ProtocolError};

const VERSIONS: [Version; 3] = [V3, V311, V5];

struct Table(Vec<Refused>);

impl Table {
    fn add(&mut self, to: To, what: &str, tag: &'static str, violation: Violation, bytes: Vec<u8>) {
        self.0.push(Refused { to, what: what.to_owned(), tag, violation, bytes });
    }
}

/// An empty property section in MQTT 5, nothing below.
fn none(version: Version) -> &'static [u8] {
    if version == V5 { &[0] } else { &[] }
}

#[test]
fn fixed_header() {
    let mut t = Table(Vec::new());
    for version in VERSIONS {
        for to in [Server(version), Client(version)] {
            t.add(to, "type 0", "2.1.2", Malformed, vec![0x00, 0]);
            t.add(
                to,
                "a remaining length of five bytes",
                "2.1.4",
                Malformed,
                vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01],
            );
            t.add(to, "QoS 3", "MQTT-3.3.1-4", Malformed, packet(0x36, &[&text("a"), &[0, 1]]));
            t.add(
                to,
                "DUP at QoS 0",
                "MQTT-3.3.1-2",
                Malformed,
                packet(0x38, &[&text("a"), none(version)]),
            );
        }
        if version == V5 {
            continue;
        }
        for to in [Server(version), Client(version)] {
            t.add(to, "AUTH below 5", "2.1.2", Malformed, vec![0xF0, 0]);
        }
    }
    for version in [V311, V5] {
        let filter = [&[0, 1][..], none(version), &text("a")].concat();
        for (first, tag) in [
            (0x41, "MQTT-2.1.3-1"),
            (0x42, "MQTT-2.1.3-1"),
            (0x58, "MQTT-2.1.3-1"),
            (0x60, "MQTT-3.6.1-1"),
            (0x6A, "MQTT-3.6.1-1"),
            (0x71, "MQTT-2.1.3-1"),
        ] {
            for to in [Server(version), Client(version)] {
                t.add(to, "flags of an ack", tag, Malformed, vec![first, 2, 0, 1]);
            }
        }
        t.add(
            Server(version),
            "flags of SUBSCRIBE",
            "MQTT-3.8.1-1",
            Malformed,
            packet(0x80, &[&filter, &[0]]),
        );
        t.add(
            Server(version),
            "flags of UNSUBSCRIBE",
            "MQTT-3.10.1-1",
            Malformed,
            packet(0xA0, &[&filter]),
        );
        t.add(Server(version), "flags of PINGREQ", "MQTT-2.1.3-1", Malformed, vec![0xC1, 0]);
        t.add(Server(version), "flags of DISCONNECT", "MQTT-3.14.1-1", Malformed, vec![0xE1, 0]);
        t.add(Client(version), "flags of CONNACK", "MQTT-2.1.3-1", Malformed, vec![0x21, 2, 0, 0]);
        t.add(Client(version), "flags of PINGRESP", "MQTT-2.1.3-1", Malformed, vec![0xD4, 0]);
        t.add(
            Client(version),
            "flags of SUBACK",
            "MQTT-2.1.3-1",
            Malformed,
            packet(0x92, &[&[0, 1], none(version), &[0]]),
        );
    }
    t.add(Server(V5), "flags of AUTH", "MQTT-3.15.1-1", Malformed, vec![0xF2, 0]);
    t.add(
        Server(V5),
        "a remaining length that is not minimal",
        "MQTT-1.5.5-1",
        Malformed,
        vec![0x40, 0x82, 0x00, 0, 1],
    );
    t.add(NewServer, "flags of CONNECT", "MQTT-2.1.3-1", Malformed, vec![0x12, 0]);
    check_refused(&t.0);
}

#[test]
fn directions() {
    let mut t = Table(Vec::new());
    for version in VERSIONS {
        let server_only = [
            ("CONNACK", packet(0x20, &[&[0, 0], none(version)])),
            ("SUBACK", packet(0x90, &[&[0, 1], none(version), &[0]])),
            ("UNSUBACK", packet(0xB0, &[&[0, 1], none(version)])),
            ("PINGRESP", vec![0xD0, 0]),
        ];
        for (what, bytes) in server_only {
            t.add(Server(version), what, "2.1.2", ProtocolError, bytes);
        }
        let client_only = [
            ("CONNECT", packet(0x10, &[&text("MQTT"), &[4, 2, 0, 0, 0, 0]])),
            ("SUBSCRIBE", packet(0x82, &[&[0, 1], none(version), &text("a"), &[0]])),
            ("UNSUBSCRIBE", packet(0xA2, &[&[0, 1], none(version), &text("a")])),
            ("PINGREQ", vec![0xC0, 0]),
        ];
        for (what, bytes) in client_only {
            t.add(Client(version), what, "2.1.2", ProtocolError, bytes);
        }
        let again = packet(0x10, &[&text("MQTT"), &[4, 2, 0, 0, 0, 0]]);
        t.add(Server(version), "a second CONNECT", "MQTT-3.1.0-2", ProtocolError, again);
        if version != V5 {
            t.add(Client(version), "DISCONNECT", "2.1.2", ProtocolError, vec![0xE0, 0]);
        }
    }
    for first in [0x30, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0, 0xF0] {
        let what = format!("{first:02x} before a CONNECT");
        t.add(NewServer, &what, "MQTT-3.1.0-1", ProtocolError, vec![first, 2, 0, 1]);
    }
    check_refused(&t.0);
}

/// A CONNECT of a version: flags, then what follows the keep-alive.
fn connect(version: Version, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    let name = if version == V3 { "MQIsdp" } else { "MQTT" };
    let head = [text(name), vec![version as u8, flags, 0, 60], none(version).to_vec()].concat();
    packet(0x10, &[&[head.as_slice()], rest].concat())
}

#[test]
fn connect_of_every_version() {
    let mut t = Table(Vec::new());
    let unsupported = Violation::UnsupportedProtocolVersion;
    for (name, level) in [("MQTT", 3), ("MQTT", 6), ("MQTT", 0x84), ("MQIsdp", 4), ("MQIsdp", 5)] {
        let bytes = packet(0x10, &[&text(name), &[level, 2, 0, 0, 0, 0]]);
        t.add(NewServer, &format!("{name} {level}"), "MQTT-3.1.2-2", unsupported, bytes);
    }
    for name in ["MQTS", "mqtt", "", "MQTTT"] {
        let bytes = packet(0x10, &[&text(name), &[4, 2, 0, 0, 0, 0]]);
        t.add(NewServer, name, "MQTT-3.1.2-1", Malformed, bytes);
    }
    for version in VERSIONS {
        let id = text("c");
        let mut add = |what: &str, tag, violation, bytes| {
            t.add(NewServer, &format!("{version:?}: {what}"), tag, violation, bytes);
        };
        let will_properties = none(version);
        add("no client id", "1.5.4", Malformed, connect(version, 2, &[]));
        add("client id cut short", "1.5.4", Malformed, connect(version, 2, &[&[0, 5, b'a']]));
        add(
            "client id not UTF-8",
            "MQTT-1.5.4-1",
            Malformed,
            connect(version, 2, &[&binary(b"\xC3\x28")]),
        );
        add(
            "client id with a surrogate",
            "MQTT-1.5.4-1",
            Malformed,
            connect(version, 2, &[&binary(b"\xED\xA0\x80")]),
        );
        add("client id with NUL", "MQTT-1.5.4-2", Malformed, connect(version, 2, &[&text("a\0")]));
        add("bytes behind", "2.1.4", Malformed, connect(version, 2, &[&id, &[0]]));
        add(
            "will QoS 3",
            "MQTT-3.1.2-12",
            Malformed,
            connect(version, 0x1E, &[&id, will_properties, &text("w"), &text("")]),
        );
        add(
            "will topic with a wildcard",
            "MQTT-3.3.2-2",
            Malformed,
            connect(version, 6, &[&id, will_properties, &text("w/#"), &text("")]),
        );
        add(
            "will topic empty",
            "MQTT-4.7.3-1",
            Malformed,
            connect(version, 6, &[&id, will_properties, &text(""), &text("")]),
        );
        add(
            "will topic with NUL",
            "MQTT-4.7.3-2",
            Malformed,
            connect(version, 6, &[&id, will_properties, &text("w\0"), &text("")]),
        );
        add(
            "will without a payload",
            "2.1.4",
            Malformed,
            connect(version, 6, &[&id, will_properties, &text("w")]),
        );
        add(
            "user name not UTF-8",
            "MQTT-1.5.4-1",
            Malformed,
            connect(version, 0x82, &[&id, &binary(b"\xFF")]),
        );
        add("user name cut short", "1.5.4", Malformed, connect(version, 0x82, &[&id, &[0, 3]]));
        add(
            "password cut short",
            "2.1.4",
            Malformed,
            connect(version, 0xC2, &[&id, &text("u"), &[0, 3, 1]]),
        );
        if version != V3 {
            add("reserved flag", "MQTT-3.1.2-3", Malformed, connect(version, 3, &[&id]));
            add("will QoS, no will", "MQTT-3.1.2-11", Malformed, connect(version, 0x0A, &[&id]));
            add("will retain, no will", "MQTT-3.1.2-13", Malformed, connect(version, 0x22, &[&id]));
            add("no user name", "1.5.4", Malformed, connect(version, 0x82, &[&id]));
            add("no password", "2.1.4", Malformed, connect(version, 0xC2, &[&id, &text("u")]));
        }
        if version != V5 {
            let bytes = connect(version, 0x42, &[&id, &text("p")]);
            add("password without a user name", "MQTT-3.1.2-22", Malformed, bytes);
            let bytes = connect(version, 0, &[&text("")]);
            let violation = Violation::ClientIdentifierNotValid;
            add("no client id, session kept", "MQTT-3.1.3-8", violation, bytes);
        }
    }
    let empty = connect(V3, 2, &[&text("")]);
    let violation = Violation::ClientIdentifierNotValid;
    t.add(NewServer, "3.1: empty client id", "MQTT-3.1.3-8", violation, empty);
    for body in [&[][..], &[0], &[0, 4, b'M'], &[0, 4, b'M', b'Q', b'T', b'T']] {
        t.add(NewServer, "cut in the protocol", "2.1.4", Malformed, packet(0x10, &[body]));
    }
    let bytes = packet(0x10, &[&text("MQTT"), &[4]]);
    t.add(NewServer, "no flags", "2.1.4", Malformed, bytes);
    let bytes = packet(0x10, &[&text("MQTT"), &[4, 2, 0]]);
    t.add(NewServer, "keep-alive cut short", "2.1.4", Malformed, bytes);
    let mut stretched = connect(V5, 2, &[&text("c")]);
    let length = stretched[1];
    stretched.splice(1..2, [length | 0x80, 0]);
    t.add(NewServer, "5: length not minimal", "MQTT-1.5.5-1", Malformed, stretched);
    check_refused(&t.0);
}

#[test]
fn publish_of_every_version() {
    let mut t = Table(Vec::new());
    for version in VERSIONS {
        for to in [Server(version), Client(version)] {
            let none = none(version);
            let mut add =
                |what: &str, tag, violation, bytes| t.add(to, what, tag, violation, bytes);
            for topic in ["+", "#", "a/+/b", "a/#", "a+", "é/#"] {
                let bytes = packet(0x30, &[&text(topic), none]);
                add("topic with a wildcard", "MQTT-3.3.2-2", Malformed, bytes);
            }
            let bytes = packet(0x30, &[&text("a\0b"), none]);
            add("topic with NUL", "MQTT-4.7.3-2", Malformed, bytes);
            let bytes = packet(0x30, &[&binary(b"a\xFF"), none]);
            add("topic not UTF-8", "MQTT-1.5.4-1", Malformed, bytes);
            let bytes = packet(0x30, &[&binary(b"\xED\xBF\xBF"), none]);
            add("topic with a surrogate", "MQTT-1.5.4-1", Malformed, bytes);
            let bytes = packet(0x30, &[&binary(b"\xC0\x80"), none]);
            add("topic with an overlong NUL", "MQTT-1.5.4-1", Malformed, bytes);
            let (tag, violation) = if version == V5 {
                ("3.3.2.1", ProtocolError)
            } else {
                ("MQTT-4.7.3-1", Malformed)
            };
            add("no topic", tag, violation, packet(0x30, &[&text(""), none]));
            add("topic cut short", "1.5.4", Malformed, packet(0x30, &[&[0, 9], b"abc"]));
            add("empty body", "1.5.4", Malformed, vec![0x30, 0]);
            add("half a topic length", "1.5.4", Malformed, vec![0x30, 1, 0]);
            for first in [0x32, 0x34] {
                let bytes = packet(first, &[&text("a"), &[0, 0], none]);
                add("packet id 0", "MQTT-2.2.1-3", ProtocolError, bytes);
                add("no packet id", "2.1.4", Malformed, packet(first, &[&text("a")]));
                add("half a packet id", "2.1.4", Malformed, packet(first, &[&text("a"), &[0]]));
            }
        }
    }
    check_refused(&t.0);
}

#[test]
fn acknowledgements_of_every_version() {
    let mut t = Table(Vec::new());
    for version in VERSIONS {
        for to in [Server(version), Client(version)] {
            for first in [0x40, 0x50, 0x62, 0x70] {
                let what = format!("{first:02x}");
                t.add(to, &what, "MQTT-2.2.1-3", ProtocolError, vec![first, 2, 0, 0]);
                t.add(to, &what, "2.1.4", Malformed, vec![first, 0]);
                t.add(to, &what, "2.1.4", Malformed, vec![first, 1, 0]);
                if version != V5 {
                    t.add(to, &what, "2.1.4", Malformed, vec![first, 3, 0, 1, 0]);
                }
            }
        }
        t.add(Server(version), "PINGREQ with a body", "2.1.4", Malformed, vec![0xC0, 1, 0]);
        t.add(Client(version), "PINGRESP with a body", "2.1.4", Malformed, vec![0xD0, 1, 0]);
        if version != V5 {
            t.add(Server(version), "DISCONNECT with a body", "2.1.4", Malformed, vec![0xE0, 1, 0]);
        }
    }
    check_refused(&t.0);
}

#[test]
fn subscriptions_of_every_version() {
    let mut t = Table(Vec::new());
    for version in VERSIONS {
        let to = Server(version);
        let head = [&[0, 1][..], none(version)].concat();
        for (filter, tag) in [
            (text(""), "MQTT-4.7.3-1"),
            (text("a\0"), "MQTT-1.5.4-2"),
            (text("#/a"), "MQTT-4.7.1-1"),
            (text("a/#/b"), "MQTT-4.7.1-1"),
            (text("a#"), "MQTT-4.7.1-1"),
            (text("a/b#"), "MQTT-4.7.1-1"),
            (text("##"), "MQTT-4.7.1-1"),
            (text("a+"), "MQTT-4.7.1-2"),
            (text("+a"), "MQTT-4.7.1-2"),
            (text("a/b+/c"), "MQTT-4.7.1-2"),
            (text("a/+b"), "MQTT-4.7.1-2"),
            (text("++"), "MQTT-4.7.1-2"),
            (text("é+"), "MQTT-4.7.1-2"),
            (binary(b"a\xFF"), "MQTT-1.5.4-1"),
            (binary(b"\xED\xA0\x80"), "MQTT-1.5.4-1"),
        ] {
            let subscribe = packet(0x82, &[&head, &filter, &[0]]);
            t.add(to, "SUBSCRIBE filter", tag, Malformed, subscribe);
            let unsubscribe = packet(0xA2, &[&head, &filter]);
            t.add(to, "UNSUBSCRIBE filter", tag, Malformed, unsubscribe);
            let second = packet(0x82, &[&head, &text("ok"), &[0], &filter, &[0]]);
            t.add(to, "second filter", tag, Malformed, second);
        }
        let bytes = packet(0x82, &[&head]);
        t.add(to, "SUBSCRIBE without a filter", "MQTT-3.8.3-2", ProtocolError, bytes);
        let bytes = packet(0xA2, &[&head]);
        t.add(to, "UNSUBSCRIBE without a filter", "MQTT-3.10.3-2", ProtocolError, bytes);
        let bytes = packet(0x82, &[&head, &text("a")]);
        t.add(to, "filter without options", "2.1.4", Malformed, bytes);
        let bytes = packet(0x82, &[&head, &text("a"), &[0], &text("b")]);
        t.add(to, "second filter without options", "2.1.4", Malformed, bytes);
        let bytes = packet(0x82, &[&head, &[0, 9, b'a']]);
        t.add(to, "filter cut short", "1.5.4", Malformed, bytes);
        let bytes = packet(0xA2, &[&head, &[0, 9, b'a']]);
        t.add(to, "UNSUBSCRIBE filter cut short", "1.5.4", Malformed, bytes);
        let bytes = packet(0x82, &[&head, &text("a"), &[3]]);
        t.add(to, "options: QoS 3", "3.8.3.1", ProtocolError, bytes);
        for bits in [0x40, 0x80, 0xC1] {
            let bytes = packet(0x82, &[&head, &text("a"), &[bits]]);
            t.add(to, "options: reserved", "MQTT-3.8.3-5", Malformed, bytes);
        }
        if version != V5 {
            for bits in [0x04, 0x08, 0x10, 0x20, 0x81] {
                let bytes = packet(0x82, &[&head, &text("a"), &[bits]]);
                t.add(to, "options of MQTT 5", "MQTT-3.8.3-5", Malformed, bytes);
            }
        }
        for first in [0x82, 0xA2] {
            let zero = packet(first, &[&[0, 0], none(version), &text("a"), &[0]]);
            t.add(to, "packet id 0", "MQTT-2.2.1-3", ProtocolError, zero);
            t.add(to, "no packet id", "2.1.4", Malformed, vec![first, 0]);
            t.add(to, "half a packet id", "2.1.4", Malformed, vec![first, 1, 0]);
        }
        let to = Client(version);
        let bytes = packet(0x90, &[&[0, 0], none(version), &[0]]);
        t.add(to, "SUBACK with id 0", "MQTT-2.2.1-3", ProtocolError, bytes);
        let bytes = packet(0x90, &[&[0, 1], none(version)]);
        t.add(to, "SUBACK without codes", "MQTT-3.9.3-1", ProtocolError, bytes);
        let bytes = packet(0x90, &[&[0, 1], none(version), &[3]]);
        t.add(to, "SUBACK with code 3", "MQTT-3.9.3-2", Malformed, bytes);
        t.add(to, "UNSUBACK without an id", "2.1.4", Malformed, vec![0xB0, 0]);
        if version != V5 {
            let bytes = packet(0x90, &[&[0, 1], &[0x87]]);
            t.add(to, "SUBACK with a code of MQTT 5", "MQTT-3.9.3-2", Malformed, bytes);
            t.add(to, "UNSUBACK with a body", "2.1.4", Malformed, vec![0xB0, 3, 0, 1, 0]);
            t.add(to, "CONNACK code 6", "3.2.2.3", Malformed, vec![0x20, 2, 0, 6]);
            t.add(to, "CONNACK too long", "2.1.4", Malformed, vec![0x20, 3, 0, 0, 0]);
        }
        t.add(to, "CONNACK too short", "2.1.4", Malformed, vec![0x20, 1, 0]);
        if version != V3 {
            let bytes = packet(0x20, &[&[2, 0], none(version)]);
            t.add(to, "CONNACK flags", "MQTT-3.2.2-1", Malformed, bytes);
            let code = if version == V5 { 0x87 } else { 5 };
            let bytes = packet(0x20, &[&[1, code], none(version)]);
            t.add(to, "session present, refused", "MQTT-3.2.2-6", Malformed, bytes);
        }
    }
    check_refused(&t.0);
}

#[test]
fn a_packet_over_the_limit_is_refused_before_its_body_comes() {
    let too_large = |to, bytes| Refused {
        to,
        what: "over the limit".to_owned(),
        tag: "MQTT-3.2.2-15",
        violation: Violation::PacketTooLarge,
        bytes,
    };
    let mut table = vec![
        too_large(NewServer, vec![0x10, 0xFF, 0xFF, 0xFF, 0x7F]),
        // One byte over: 1 + 3 + 999,997.
        too_large(Server(V5), vec![0x30, 0xBD, 0x84, 0x3D]),
    ];
    for version in VERSIONS {
        for to in [Server(version), Client(version)] {
            table.push(too_large(to, vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F]));
            table.push(too_large(to, vec![0x40, 0xFF, 0xFF, 0xFF, 0x7F]));
        }
    }
    check_refused(&table);
    assert_eq!(BYTES_MAX, 1_000_000);
}

#[test]
fn what_no_more_bytes_could_mend_is_refused_at_its_first_byte() {
    for version in VERSIONS {
        for first in [0x00, 0x10, 0x20, 0x36, 0x38, 0x90, 0xB0, 0xD0] {
            assert!(refusal(Server(version), &[first]).is_some(), "{first:02x} in {version:?}");
        }
    }
    for first in [0x16, 0x47, 0x30, 0xC0] {
        assert!(refusal(NewServer, &[first]).is_some(), "{first:02x} before a CONNECT");
    }
}
