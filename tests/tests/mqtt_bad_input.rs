//! What a server must survive: bytes that are wrong, lengths that lie, clients that fall silent. Against the real
//! program, over TCP, with packets written by hand, so that nothing here shares a mistake with the codec.

mod mqtt_raw;

use headwater_tests::{node::Node, wait_for};
use mqtt_raw::{Raw, V3, V5, V311, packet, text};
use std::time::Duration;

const VERSIONS: [u8; 3] = [V3, V311, V5];

/// Proves that the node still serves: a new client publishes at QoS 1 and is acknowledged.
fn assert_lives(node: &mut Node) {
    assert!(node.exited().is_none(), "the node ended:\n{}", node.log());
    let mut client = Raw::connected(node.mqtt, V311, "alive");
    client.send(&packet(0x32, &[&text("bad/input/alive"), &[0, 7], b"still here"]));
    assert_eq!(client.frame(), Some(vec![0x40, 2, 0, 7]));
}

/// Resident memory of the node.
fn resident_bytes(node: &Node) -> u64 {
    let pid = node.pid().expect("the node runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib * 1024
}

fn refused(node: &Node, cause: &str) -> f64 {
    let (_, page) = node.get("/metrics").expect("the node answers");
    page.lines()
        .filter(|line| line.starts_with("headwater_mqtt_refused_total"))
        .filter(|line| line.contains(&format!("\"{cause}\"")))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

/// An empty property section in MQTT 5, nothing below.
fn none(version: u8) -> &'static [u8] {
    if version == V5 { &[0] } else { &[] }
}

/// Illegal packets of every type that a connected client may try, with the reason of MQTT 5's DISCONNECT.
fn illegal_packets(version: u8) -> Vec<(&'static str, Vec<u8>, u8)> {
    let none = none(version);
    let id = [&[0, 1][..], none].concat();
    let mut all = vec![
        ("type 0", vec![0x00, 0], 0x81),
        ("a second CONNECT", packet(0x10, &[&text("MQTT"), &[version, 2, 0, 0]]), 0x82),
        ("CONNACK", packet(0x20, &[&[0, 0], none]), 0x82),
        ("PUBLISH, QoS 3", packet(0x36, &[&text("a"), &id]), 0x81),
        ("PUBLISH, DUP at QoS 0", packet(0x38, &[&text("a"), none]), 0x81),
        ("PUBLISH, wildcard +", packet(0x30, &[&text("a/+"), none]), 0x81),
        ("PUBLISH, wildcard #", packet(0x30, &[&text("#"), none]), 0x81),
        ("PUBLISH, NUL", packet(0x30, &[&text("a\0b"), none]), 0x81),
        ("PUBLISH, not UTF-8", packet(0x30, &[&[0, 2, 0xC3, 0x28], none]), 0x81),
        ("PUBLISH, surrogate", packet(0x30, &[&[0, 3, 0xED, 0xA0, 0x80], none]), 0x81),
        ("PUBLISH, topic cut short", packet(0x30, &[&[0, 9, b'a']]), 0x81),
        ("PUBLISH, no body", vec![0x30, 0], 0x81),
        ("PUBLISH, packet id 0", packet(0x32, &[&text("a"), &[0, 0], none]), 0x82),
        ("PUBACK, packet id 0", vec![0x40, 2, 0, 0], 0x82),
        ("PUBACK, cut short", vec![0x40, 1, 0], 0x81),
        ("PUBREC, packet id 0", vec![0x50, 2, 0, 0], 0x82),
        ("PUBREC, cut short", vec![0x50, 0], 0x81),
        ("PUBREL, packet id 0", vec![0x62, 2, 0, 0], 0x82),
        ("PUBREL, cut short", vec![0x62, 1, 0], 0x81),
        ("PUBCOMP, packet id 0", vec![0x70, 2, 0, 0], 0x82),
        ("PUBCOMP, cut short", vec![0x70, 1, 9], 0x81),
        ("SUBSCRIBE without a filter", packet(0x82, &[&id]), 0x82),
        ("SUBSCRIBE, packet id 0", packet(0x82, &[&[0, 0], none, &text("a"), &[0]]), 0x82),
        ("SUBSCRIBE, empty filter", packet(0x82, &[&id, &text(""), &[0]]), 0x81),
        ("SUBSCRIBE, # in the middle", packet(0x82, &[&id, &text("a/#/b"), &[0]]), 0x81),
        ("SUBSCRIBE, + in a level", packet(0x82, &[&id, &text("é+"), &[0]]), 0x81),
        ("SUBSCRIBE, reserved option", packet(0x82, &[&id, &text("a"), &[0x80]]), 0x81),
        ("SUBSCRIBE, QoS 3", packet(0x82, &[&id, &text("a"), &[3]]), 0x82),
        ("SUBSCRIBE, no options", packet(0x82, &[&id, &text("a")]), 0x81),
        ("SUBACK", packet(0x90, &[&id, &[0]]), 0x82),
        ("UNSUBSCRIBE without a filter", packet(0xA2, &[&id]), 0x82),
        ("UNSUBSCRIBE, bad filter", packet(0xA2, &[&id, &text("a#")]), 0x81),
        ("UNSUBACK", packet(0xB0, &[&id, &[0]]), 0x82),
        ("PINGREQ with a body", vec![0xC0, 1, 0], 0x81),
        ("PINGRESP", vec![0xD0, 0], 0x82),
        ("a remaining length of five bytes", vec![0x30, 0x80, 0x80, 0x80, 0x80, 1], 0x81),
    ];
    if version == V5 {
        all.extend(illegal_in_5());
    } else {
        all.push(("DISCONNECT with a body", vec![0xE0, 1, 0], 0x81));
        all.push(("AUTH", vec![0xF0, 0], 0x81));
        all.push(("PUBLISH without a topic", packet(0x30, &[&text("")]), 0x81));
    }
    if version != V3 {
        all.push(("PUBACK, flags", vec![0x4F, 2, 0, 1], 0x81));
        all.push(("PUBREL, flags", vec![0x60, 2, 0, 1], 0x81));
        all.push(("SUBSCRIBE, flags", packet(0x80, &[&id, &text("a"), &[0]]), 0x81));
        all.push(("UNSUBSCRIBE, flags", packet(0xA0, &[&id, &text("a")]), 0x81));
        all.push(("PINGREQ, flags", vec![0xC8, 0], 0x81));
        all.push(("DISCONNECT, flags", vec![0xE2, 0], 0x81));
    }
    all
}

fn illegal_in_5() -> Vec<(&'static str, Vec<u8>, u8)> {
    let topic = text("a");
    vec![
        ("PUBLISH: neither topic nor alias", packet(0x30, &[&text(""), &[0]]), 0x82),
        ("PUBLISH: alias 0", packet(0x30, &[&topic, &[3, 0x23, 0, 0]]), 0x94),
        ("PUBLISH: alias above the maximum", packet(0x30, &[&topic, &[3, 0x23, 255, 255]]), 0x94),
        ("PUBLISH: unknown alias", packet(0x30, &[&text(""), &[3, 0x23, 0, 1]]), 0x82),
        ("PUBLISH: subscription identifier", packet(0x30, &[&topic, &[2, 0x0B, 1]]), 0x82),
        ("PUBLISH: property twice", packet(0x30, &[&topic, &[4, 1, 1, 1, 1]]), 0x82),
        ("PUBLISH: property of CONNECT", packet(0x30, &[&topic, &[3, 0x21, 0, 9]]), 0x81),
        ("PUBLISH: unknown property", packet(0x30, &[&topic, &[1, 0x7F]]), 0x81),
        ("PUBLISH: property cut short", packet(0x30, &[&topic, &[2, 0x02, 0]]), 0x81),
        ("PUBLISH: property length lies", packet(0x30, &[&topic, &[0xFF, 0xFF, 0x7F]]), 0x81),
        ("PUBLISH: response topic #", packet(0x30, &[&topic, b"\x04\x08\0\x01#"]), 0x81),
        ("PUBLISH: payload format 2", packet(0x30, &[&topic, &[2, 1, 2]]), 0x82),
        ("PUBACK: reason of DISCONNECT", vec![0x40, 3, 0, 1, 0x8E], 0x82),
        ("PUBACK: unknown reason", vec![0x40, 3, 0, 1, 0x03], 0x81),
        ("PUBREL: reason 0x80", vec![0x62, 3, 0, 1, 0x80], 0x82),
        ("SUBSCRIBE: retain handling 3", packet(0x82, &[&[0, 1, 0], &topic, &[0x30]]), 0x82),
        ("SUBSCRIBE: identifier 0", packet(0x82, &[&[0, 1, 2, 0x0B, 0], &topic, &[0]]), 0x82),
        (
            "SUBSCRIBE: No Local, shared",
            packet(0x82, &[&[0, 1, 0], &text("$share/g/a"), &[4]]),
            0x82,
        ),
        ("SUBSCRIBE: $share//a", packet(0x82, &[&[0, 1, 0], &text("$share//a"), &[0]]), 0x81),
        ("DISCONNECT: a server's reason", vec![0xE0, 1, 0x8E], 0x82),
        ("DISCONNECT: unknown reason", vec![0xE0, 1, 0x7F], 0x81),
        ("AUTH without a method", vec![0xF0, 1, 0x18], 0x82),
        ("AUTH that says success", vec![0xF0, 0], 0x82),
        ("a length that is not minimal", vec![0xC0, 0x80, 0], 0x81),
    ]
}

#[test]
fn an_illegal_packet_of_every_type_ends_its_connection_and_nothing_else() {
    let mut node = Node::start("illegal", "");
    let mut sent = 0.0;
    for version in VERSIONS {
        for (what, bytes, reason) in illegal_packets(version) {
            let mut client = Raw::connected(node.mqtt, version, "bad");
            client.send(&bytes);
            if version == V5 {
                let frame = client.frame();
                let frame = frame.unwrap_or_else(|| panic!("{what}: closed without a DISCONNECT"));
                assert_eq!((frame[0], frame[2]), (0xE0, reason), "{what}: {frame:02x?}");
            }
            assert_eq!(client.frame(), None, "version {version}, {what}: nothing more");
            sent += 1.0;
        }
    }
    assert_lives(&mut node);
    assert_eq!(refused(&node, "protocol"), sent, "each is counted with its cause");
}

#[test]
fn an_illegal_connect_is_answered_as_its_version_says() {
    let mut node = Node::start("connects", "");
    let of = |name: &str, level: u8, flags: u8, rest: &[&[u8]]| {
        packet(0x10, &[&[&text(name)[..], &[level, flags, 0, 0]], rest].concat())
    };
    let id = text("c");
    // CONNACK: session present 0, then the code. Empty: closed without one.
    let five = |code: u8| vec![0, code];
    for (what, bytes, answer) in [
        ("another protocol", of("HTTP", 4, 2, &[&id]), vec![]),
        ("not MQTT at all", b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![]),
        ("a TLS hello", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3], vec![]),
        ("no CONNECT first", packet(0x30, &[&text("a"), b"x"]), vec![]),
        ("level 6", of("MQTT", 6, 2, &[&[0], &id]), five(0x84)),
        ("level 2", of("MQTT", 2, 2, &[&id]), vec![0, 1]),
        ("5: reserved flag", of("MQTT", 5, 3, &[&[0], &id]), five(0x81)),
        ("5: receive maximum 0", of("MQTT", 5, 2, &[&[3, 0x21, 0, 0], &id]), five(0x82)),
        ("5: client id with NUL", of("MQTT", 5, 2, &[&[0], &text("a\0")]), five(0x81)),
        ("5: property twice", of("MQTT", 5, 2, &[&[4, 0x17, 1, 0x17, 1], &id]), five(0x82)),
        ("5: no client id", of("MQTT", 5, 2, &[&[0]]), five(0x81)),
        ("5: will topic #", of("MQTT", 5, 6, &[&[0], &id, &[0], &text("#"), &[0, 0]]), five(0x81)),
        ("4: reserved flag", of("MQTT", 4, 3, &[&id]), vec![]),
        ("4: will QoS 3", of("MQTT", 4, 0x1E, &[&id, &text("w"), &[0, 0]]), vec![]),
        ("4: password alone", of("MQTT", 4, 0x42, &[&id, &text("p")]), vec![]),
        ("4: no client id, session kept", of("MQTT", 4, 0, &[&text("")]), vec![0, 2]),
        ("3: no client id", of("MQIsdp", 3, 2, &[&text("")]), vec![0, 2]),
        ("4: bytes behind", of("MQTT", 4, 2, &[&id, &[1, 2, 3]]), vec![]),
    ] {
        let mut client = Raw::open(node.mqtt);
        client.send(&bytes);
        let found = client.frame();
        let found = found.as_deref().map_or(&[][..], |frame| {
            assert_eq!(frame[0], 0x20, "{what}: {frame:02x?}");
            &frame[2..4]
        });
        assert_eq!(found, answer, "{what}");
        assert_eq!(client.frame(), None, "{what}: closed");
    }
    assert_lives(&mut node);
}

#[test]
fn a_connect_that_never_comes_ends_at_its_deadline() {
    let mut node = Node::start("deadline", "[limits]\nconnect_timeout = \"700ms\"\n");
    let mut silent: Vec<Raw> = Vec::new();
    for start in [
        &[][..],
        &[0x10],
        &[0x10, 0xFF],
        // 16,000 bytes promised, within the limit of a CONNECT; a few come.
        &[0x10, 0x80, 0x7D, 0, 4, b'M', b'Q', b'T', b'T', 5, 2],
    ] {
        let mut client = Raw::open(node.mqtt);
        client.send(start);
        silent.push(client);
    }
    // One that drips does not get more time than one that says nothing.
    let mut drip = Raw::open(node.mqtt);
    let connect = packet(0x10, &[&text("MQTT"), &[4, 2, 0, 0], &text(&"x".repeat(200))]);
    let dripped = connect.iter().take_while(|byte| {
        std::thread::sleep(Duration::from_millis(20));
        drip.try_send(&[**byte])
    });
    assert!(dripped.count() < connect.len(), "a CONNECT of one byte per 20 ms was waited for");
    for client in &mut silent {
        assert_eq!(client.frame(), None);
    }
    assert_eq!(refused(&node, "connect_timeout"), 5.0);
    assert_lives(&mut node);
}

#[test]
fn a_length_of_268_mb_costs_nothing() {
    let mut node = Node::start("huge", "");
    // As CONNECT: refused before anything of it comes.
    for _ in 0..50 {
        let mut client = Raw::open(node.mqtt);
        client.send(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
        assert_eq!(client.frame(), None);
    }
    // One byte above the limit of a CONNECT, far below that of a packet.
    let mut client = Raw::open(node.mqtt);
    client.send(&[0x10, 0xFE, 0x7F]);
    assert_eq!(client.frame(), None);
    // On a connection: 0x95 where the version has a word for it.
    let before = resident_bytes(&node);
    let mut promised: Vec<Raw> = Vec::new();
    for version in VERSIONS {
        let mut client = Raw::connected(node.mqtt, version, &format!("huge-{version}"));
        client.send(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b'a']);
        if version == V5 {
            let frame = client.frame().expect("a DISCONNECT");
            assert_eq!((frame[0], frame[2]), (0xE0, 0x95), "{frame:02x?}");
        }
        assert_eq!(client.frame(), None);
    }
    // Within the limit, promised by many and never sent: memory follows what comes, not what is promised.
    for number in 0..200 {
        let mut client = Raw::connected(node.mqtt, V311, &format!("promise-{number}"));
        client.send(&[0x30, 0xB8, 0x84, 0x3D, 0, 1, b'a', 1, 2, 3]);
        promised.push(client);
    }
    assert_lives(&mut node);
    let grown = resident_bytes(&node).saturating_sub(before);
    assert!(grown < 32 << 20, "200 promises of 1 MB took {grown} bytes");
    assert_eq!(refused(&node, "packet_too_large"), 54.0);
    drop(promised);
}

#[test]
fn ten_thousand_half_open_connections_are_bounded() {
    let limits = "[limits]\nhandshakes_max = 200\nconnect_timeout = \"3s\"\n";
    let mut node = Node::start("half-open", limits);
    let mut device = Raw::connected(node.mqtt, V5, "device");
    assert_lives(&mut node);
    let before = resident_bytes(&node);
    let mut open: Vec<Raw> = Vec::new();
    let mut most = 0.0f64;
    for number in 0..10_000u16 {
        let mut client = Raw::open(node.mqtt);
        // Half of them begin a CONNECT, half say nothing.
        if number % 2 == 0 {
            client.try_send(&[0x10, 0x80, 0x7D, 0, 4]);
        }
        open.push(client);
        if number % 100 == 99 {
            wait_for("all but the allowed to be closed", Duration::from_secs(10), || {
                open.retain_mut(Raw::is_open);
                (open.len() <= 200).then_some(())
            });
            most = most.max(node.metric("headwater_mqtt_handshakes"));
            // Whoever is connected is served as before.
            device.send(&packet(0x32, &[&text("flood"), &number.to_be_bytes(), &[0], b"x"]));
            let frame = device.frame().expect("a PUBACK");
            assert_eq!((frame[0], &frame[2..4]), (0x40, &number.to_be_bytes()[..]));
        }
    }
    assert!(most <= 200.0, "{most} unfinished handshakes");
    assert!(refused(&node, "handshakes_max") > 0.0);
    let grown = resident_bytes(&node).saturating_sub(before);
    assert!(grown < 32 << 20, "10,000 half-open connections took {grown} bytes");
    // They time out by themselves, and then there is room again.
    wait_for("the silent ones to be gone", Duration::from_secs(20), || {
        open.retain_mut(Raw::is_open);
        (open.is_empty() && node.metric("headwater_mqtt_handshakes") == 0.0).then_some(())
    });
    assert_lives(&mut node);
}

#[test]
fn any_bytes_leave_the_server_as_it_was() {
    let mut node = Node::start("noise", "");
    // A small generator of our own: the seed is the whole test.
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..600 {
        let version = VERSIONS[round % 3];
        let mut client = if round % 4 == 0 {
            Raw::open(node.mqtt)
        } else {
            Raw::connected(node.mqtt, version, &format!("noise-{}", round % 7))
        };
        // Some noise is pure, some has a packet's first byte and length in front.
        let mut bytes: Vec<u8> = (0..next() % 200).map(|_| next() as u8).collect();
        if round % 2 == 0 {
            bytes.splice(0..0, [(next() % 16) as u8 * 16, bytes.len() as u8 & 0x7F]);
        }
        client.try_send(&bytes);
        if round % 5 != 0 {
            client.finish();
            while client.frame().is_some() {}
        }
    }
    assert_lives(&mut node);
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn packets_may_come_in_single_bytes_and_many_at_once() {
    let node = Node::start("pieces", "");
    let mut bytes = Raw::connect_packet(V5, "pieces");
    for id in 1..=3u8 {
        bytes.extend(packet(0x32, &[&text("pieces/é"), &[0, id, 0], &[id; 300]]));
    }
    bytes.extend([0xC0, 0]);
    let acknowledged = |client: &mut Raw| {
        assert_eq!(client.frame().expect("a CONNACK")[0], 0x20);
        let mut ids = Vec::new();
        let mut pinged = false;
        while ids.len() < 3 || !pinged {
            match client.frame().as_deref() {
                Some([0x40, 2, 0, id]) => ids.push(*id),
                Some([0xD0, 0]) => pinged = true,
                other => panic!("{other:02x?}"),
            }
        }
        assert_eq!(ids, [1, 2, 3]);
    };
    let mut slow = Raw::open(node.mqtt);
    for byte in &bytes {
        slow.send(&[*byte]);
    }
    acknowledged(&mut slow);
    let mut fast = Raw::open(node.mqtt);
    fast.send(&bytes);
    acknowledged(&mut fast);
}

/// The defects of another broker's codec and router that a client could meet: what we owe its users.
mod where_another_broker_fell {
    use super::*;

    #[test]
    fn topics_and_filters_outside_ascii() {
        let mut node = Node::start("unicode", "");
        let filters = ["é/#", "é/+", "温度/ß", "+/x", "😀/😀/#", "\u{FEFF}a"];
        let topics = ["é/x", "温度/ß", "日本/x", "😀/😀/😀", "\u{FEFF}a"];
        let mut subscriber = Raw::connected(node.mqtt, V311, "sub");
        let mut body = vec![0, 1];
        for filter in filters {
            body.extend(text(filter));
            body.push(1);
        }
        subscriber.send(&packet(0x82, &[&body]));
        assert_eq!(subscriber.frame(), Some(packet(0x90, &[&[0, 1], &[1; 6]])));
        let mut publisher = Raw::connected(node.mqtt, V311, "pub");
        for (number, topic) in (1u8..).zip(topics) {
            publisher.send(&packet(0x32, &[&text(topic), &[0, number], topic.as_bytes()]));
            assert_eq!(publisher.frame(), Some(vec![0x40, 2, 0, number]));
        }
        let mut heard: Vec<Vec<u8>> = Vec::new();
        for _ in topics {
            let frame = subscriber.frame().expect("a PUBLISH");
            let length = usize::from(frame[3]);
            heard.push(frame[4..4 + length].to_vec());
            subscriber.send(&[0x40, 2, frame[4 + length], frame[5 + length]]);
        }
        heard.sort();
        let mut expected: Vec<Vec<u8>> = topics.iter().map(|t| t.as_bytes().to_vec()).collect();
        expected.sort();
        assert_eq!(heard, expected);
        assert_lives(&mut node);
    }

    #[test]
    fn packets_of_a_server_from_a_client_leak_nothing() {
        let mut node = Node::start("server-only", "[limits]\nconnections_max = 20\n");
        // More often than there is room for connections: a slot that is not given back shows.
        for round in 0..15 {
            for version in VERSIONS {
                for first in [0x20, 0x90, 0xB0, 0xD0] {
                    let mut client = Raw::connected(node.mqtt, version, &format!("s-{round}"));
                    client.send(&[first, 3, 0, 1, 0]);
                    while client.frame().is_some() {}
                }
            }
        }
        wait_for("the connections to be gone", Duration::from_secs(5), || {
            (node.metric("headwater_mqtt_connections") == 0.0).then_some(())
        });
        assert_lives(&mut node);
    }

    #[test]
    fn a_publish_with_every_property_reaches_every_version() {
        let node = Node::start("versions", "");
        let section: &[u8] =
            b"\x01\x01\x02\0\0\x0E\x10\x03\0\x01t\x08\0\x01r\x09\0\x01\xFF\x26\0\x01k\0\x01v";
        let publish = packet(0x32, &[&text("v"), &[0, 9], &[section.len() as u8], section, b"p"]);
        let mut subscribers: Vec<Raw> = VERSIONS
            .iter()
            .map(|version| {
                let mut client = Raw::connected(node.mqtt, *version, &format!("sub-{version}"));
                client.send(&packet(0x82, &[&[0, 1], none(*version), &text("v"), &[0]]));
                assert_eq!(client.frame().expect("a SUBACK")[0], 0x90);
                client
            })
            .collect();
        let mut publisher = Raw::connected(node.mqtt, V5, "pub");
        publisher.send(&publish);
        assert_eq!(publisher.frame().expect("a PUBACK")[0], 0x40);
        for client in &mut subscribers[..2] {
            assert_eq!(client.frame(), Some(packet(0x30, &[&text("v"), b"p"])));
        }
        let frame = subscribers[2].frame().expect("a PUBLISH");
        for part in [&b"\x03\0\x01t"[..], b"\x08\0\x01r", b"\x09\0\x01\xFF", b"\x26\0\x01k\0\x01v"]
        {
            assert!(frame.windows(part.len()).any(|w| w == part), "{part:02x?} in {frame:02x?}");
        }
    }

    #[test]
    fn a_silent_socket_holds_nobody_up() {
        let mut node = Node::start("silent", "");
        let silent: Vec<Raw> = (0..100).map(|_| Raw::open(node.mqtt)).collect();
        assert_lives(&mut node);
        drop(silent);
    }

    #[test]
    fn a_keep_alive_of_zero_is_taken() {
        let node = Node::start("keep-alive", "");
        let mut client = Raw::connected(node.mqtt, V311, "zero");
        client.send(&[0xC0, 0]);
        assert_eq!(client.frame(), Some(vec![0xD0, 0]));
    }

    #[test]
    fn quality_2_is_refused_with_its_reason_and_never_half_done() {
        let mut node = Node::start("qos-2", "");
        let mut client = Raw::connected(node.mqtt, V5, "five");
        client.send(&packet(0x34, &[&text("a"), &[0, 1, 0], b"x"]));
        let frame = client.frame().expect("a DISCONNECT");
        assert_eq!((frame[0], frame[2]), (0xE0, 0x9B));
        assert_eq!(client.frame(), None);
        let mut client = Raw::connected(node.mqtt, V311, "four");
        client.send(&packet(0x34, &[&text("a"), &[0, 1], b"x"]));
        assert_eq!(client.frame(), None, "closed, and no PUBREC");
        assert_lives(&mut node);
    }
}
