//! Vectors of MQTT 5: the property table, property values, reason codes, shared subscriptions.

use crate::bytes::To::{Client, NewServer, Server};
use crate::bytes::{
    Refused, To, accepted, binary, check_refused, packet, properties, refusal, text,
};
use headwater_mqtt::codec::Version::V5;
use headwater_mqtt::codec::Violation::{self, Malformed, ProtocolError, TopicAliasInvalid};

/// Where properties can stand: a letter, who receives, and the packet around a property section.
struct Carrier {
    letter: char,
    to: To,
    wrap: fn(&[u8]) -> Vec<u8>,
}

fn connect(section: &[u8]) -> Vec<u8> {
    packet(0x10, &[&text("MQTT"), &[5, 2, 0, 0], section, &text("c")])
}

fn will(section: &[u8]) -> Vec<u8> {
    let head = [&text("MQTT")[..], &[5, 6, 0, 0, 0], &text("c")].concat();
    packet(0x10, &[&head, section, &text("w"), &text("")])
}

fn publish(section: &[u8]) -> Vec<u8> {
    packet(0x30, &[&text("t"), section])
}

fn ack(first: u8, section: &[u8]) -> Vec<u8> {
    packet(first, &[&[0, 1, 0], section])
}

/// U and u are PUBLISH to the server and to the client, D and d DISCONNECT.
const CARRIERS: &[Carrier] = &[
    Carrier { letter: 'C', to: NewServer, wrap: connect },
    Carrier { letter: 'W', to: NewServer, wrap: will },
    Carrier { letter: 'A', to: Client(V5), wrap: |s| packet(0x20, &[&[0, 0], s]) },
    Carrier { letter: 'U', to: Server(V5), wrap: publish },
    Carrier { letter: 'u', to: Client(V5), wrap: publish },
    Carrier { letter: '4', to: Server(V5), wrap: |s| ack(0x40, s) },
    Carrier { letter: '5', to: Server(V5), wrap: |s| ack(0x50, s) },
    Carrier { letter: '6', to: Server(V5), wrap: |s| ack(0x62, s) },
    Carrier { letter: '7', to: Server(V5), wrap: |s| ack(0x70, s) },
    Carrier {
        letter: 'S',
        to: Server(V5),
        wrap: |s| packet(0x82, &[&[0, 1], s, &text("f"), &[0]]),
    },
    Carrier { letter: 's', to: Client(V5), wrap: |s| packet(0x90, &[&[0, 1], s, &[0]]) },
    Carrier { letter: 'N', to: Server(V5), wrap: |s| packet(0xA2, &[&[0, 1], s, &text("f")]) },
    Carrier { letter: 'n', to: Client(V5), wrap: |s| packet(0xB0, &[&[0, 1], s, &[0]]) },
    Carrier { letter: 'D', to: Server(V5), wrap: |s| packet(0xE0, &[&[0], s]) },
    Carrier { letter: 'd', to: Client(V5), wrap: |s| packet(0xE0, &[&[0x81], s]) },
    Carrier { letter: 'X', to: Server(V5), wrap: |s| packet(0xF0, &[&[0x18], s]) },
];

/// Table 2-4: identifier, a legal value, where it may stand, whether it may repeat.
const PROPERTIES: &[(u8, &[u8], &str, bool)] = &[
    (0x01, &[1], "WUu", false),
    (0x02, &[0, 0, 0, 9], "WUu", false),
    (0x03, b"\0\x01m", "WUu", false),
    (0x08, b"\0\x01r", "WUu", false),
    (0x09, b"\0\x01\xFF", "WUu", false),
    (0x0B, &[7], "uS", false),
    (0x11, &[0, 0, 0, 9], "CAD", false),
    (0x12, b"\0\x01i", "A", false),
    (0x13, &[0, 9], "A", false),
    (0x15, b"\0\x01m", "CAX", false),
    (0x16, b"\0\x01\xFF", "CAX", false),
    (0x17, &[1], "C", false),
    (0x18, &[0, 0, 0, 9], "W", false),
    (0x19, &[1], "C", false),
    (0x1A, b"\0\x01r", "A", false),
    (0x1C, b"\0\x01r", "ADd", false),
    (0x1F, b"\0\x01r", "A4567snDdX", false),
    (0x21, &[0, 9], "CA", false),
    (0x22, &[0, 9], "CA", false),
    (0x23, &[0, 9], "Uu", false),
    (0x24, &[1], "A", false),
    (0x25, &[1], "A", false),
    (0x26, b"\0\x01k\0\x01v", "CWAUu4567SsNnDdX", true),
    (0x27, &[0, 0, 0, 9], "CA", false),
    (0x28, &[1], "A", false),
    (0x29, &[1], "A", false),
    (0x2A, &[1], "A", false),
];

/// What must stand beside a property: the method beside authentication data, and in every AUTH.
fn company(carrier: &Carrier, id: u8) -> &'static [u8] {
    if id != 0x15 && (id == 0x16 || carrier.letter == 'X') { b"\x15\0\x01m" } else { &[] }
}

#[test]
fn the_property_table_holds_for_every_packet_and_property() {
    let mut refused = Vec::new();
    for carrier in CARRIERS {
        for (id, value, places, repeats) in PROPERTIES {
            let one = [&[*id], *value].concat();
            let company = company(carrier, *id);
            let what = format!("property {id:02x} in {}", carrier.letter);
            let alone = (carrier.wrap)(&properties(&[company, &one]));
            if !places.contains(carrier.letter) {
                let (tag, violation) = match (*id, carrier.letter) {
                    (0x0B, 'U') => ("MQTT-3.3.4-6", ProtocolError),
                    (0x11, 'd') => ("MQTT-3.14.2-2", ProtocolError),
                    _ => ("2.2.2.2", Malformed),
                };
                refused.push(Refused { to: carrier.to, what, tag, violation, bytes: alone });
                continue;
            }
            accepted(carrier.to, &alone);
            let twice = (carrier.wrap)(&properties(&[company, &one, &one]));
            if *repeats || (*id == 0x0B && carrier.letter == 'u') {
                accepted(carrier.to, &twice);
            } else {
                let what = format!("{what}, twice");
                let (tag, violation) = ("2.2.2", ProtocolError);
                refused.push(Refused { to: carrier.to, what, tag, violation, bytes: twice });
            }
            // Cut at every byte of the value: never taken.
            for end in 1..one.len() {
                let cut = (carrier.wrap)(&properties(&[company, &one[..end]]));
                assert!(refusal(carrier.to, &cut).is_some(), "{what} cut at {end}: {cut:02x?}");
            }
        }
    }
    assert!(refused.len() > 300);
    check_refused(&refused);
}

#[test]
fn property_sections_are_whole() {
    let mut refused = Vec::new();
    for carrier in CARRIERS {
        let mut add = |what: &str, tag, section: &[u8]| {
            refused.push(Refused {
                to: carrier.to,
                what: format!("{what} in {}", carrier.letter),
                tag,
                violation: Malformed,
                bytes: (carrier.wrap)(section),
            });
        };
        add("length beyond the packet", "2.2.2.1", &[127]);
        add("length of five bytes", "1.5.5", &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F]);
        add("length that is not minimal", "MQTT-1.5.5-1", &[0x80, 0]);
        add("property 0x00", "2.2.2.2", &[1, 0]);
        add("property 0x04", "2.2.2.2", &[1, 4]);
        add("property 0x2B", "2.2.2.2", &[1, 0x2B]);
        add("property 0xFF", "2.2.2.2", &[1, 0xFF]);
        add("user property without a value", "1.5.4", &[4, 0x26, 0, 1, b'k']);
        add("user property without anything", "1.5.4", &[1, 0x26]);
        add("user property: NUL", "MQTT-1.5.4-2", b"\x07\x26\0\x01\0\0\x01v");
        add("user property: not UTF-8", "MQTT-1.5.4-1", b"\x07\x26\0\x01k\0\x01\xFF");
        add("user property: a surrogate", "MQTT-1.5.4-1", b"\x09\x26\0\x01k\0\x03\xED\xA0\x80");
    }
    check_refused(&refused);
}

fn in_carrier(letter: char, tag: &'static str, violation: Violation, property: &[u8]) -> Refused {
    let carrier = CARRIERS.iter().find(|c| c.letter == letter).unwrap();
    Refused {
        to: carrier.to,
        what: format!("{property:02x?} in {letter}"),
        tag,
        violation,
        bytes: (carrier.wrap)(&properties(&[property])),
    }
}

#[test]
fn property_values() {
    let p = ProtocolError;
    let mut table = vec![
        in_carrier('C', "3.1.2.11.3", p, &[0x21, 0, 0]),
        in_carrier('C', "3.1.2.11.4", p, &[0x27, 0, 0, 0, 0]),
        in_carrier('C', "3.1.2.11.6", p, &[0x19, 2]),
        in_carrier('C', "3.1.2.11.7", p, &[0x17, 2]),
        in_carrier('C', "3.1.2.11.7", p, &[0x17, 0xFF]),
        in_carrier('C', "3.1.2.11.10", p, b"\x16\0\x01d"),
        in_carrier('A', "3.1.2.11.10", p, b"\x16\0\x01d"),
        in_carrier('A', "3.2.2.3.3", p, &[0x21, 0, 0]),
        in_carrier('A', "3.2.2.3.4", p, &[0x24, 2]),
        in_carrier('A', "3.2.2.3.5", p, &[0x25, 2]),
        in_carrier('A', "3.2.2.3.6", p, &[0x27, 0, 0, 0, 0]),
        in_carrier('A', "3.2.2.3.11", p, &[0x28, 2]),
        in_carrier('A', "3.2.2.3.12", p, &[0x29, 2]),
        in_carrier('A', "3.2.2.3.13", p, &[0x2A, 2]),
        in_carrier('S', "3.8.2.1.2", p, &[0x0B, 0]),
        in_carrier('u', "3.3.2.3.8", p, &[0x0B, 0]),
        in_carrier('S', "MQTT-1.5.5-1", Malformed, &[0x0B, 0x81, 0]),
        in_carrier('S', "1.5.5", Malformed, &[0x0B, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
        in_carrier('X', "3.15.2.2.2", p, b"\x16\0\x01d"),
        in_carrier('X', "3.15.2.2.2", p, b"\x1F\0\x01d"),
    ];
    for letter in ['W', 'U', 'u'] {
        table.push(in_carrier(letter, "3.3.2.3.2", p, &[0x01, 2]));
        table.push(in_carrier(letter, "MQTT-3.3.2-2", Malformed, b"\x08\0\x01#"));
        table.push(in_carrier(letter, "MQTT-3.3.2-2", Malformed, b"\x08\0\x03a/+"));
        table.push(in_carrier(letter, "MQTT-4.7.3-1", Malformed, b"\x08\0\0"));
        table.push(in_carrier(letter, "MQTT-4.7.3-2", Malformed, b"\x08\0\x01\0"));
        table.push(in_carrier(letter, "MQTT-1.5.4-2", Malformed, b"\x03\0\x01\0"));
    }
    for letter in ['U', 'u'] {
        table.push(in_carrier(letter, "MQTT-3.3.2-8", TopicAliasInvalid, &[0x23, 0, 0]));
    }
    check_refused(&table);
}

/// Bytes that a packet may carry as reason code, from the tables of the specification, as (first byte, codes).
const CODES_FROM_EITHER: &[(u8, &[u8])] = &[
    (0x40, &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
    (0x50, &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
    (0x62, &[0, 0x92]),
    (0x70, &[0, 0x92]),
];
const CONNACK_CODES: &[u8] = &[
    0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
    0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];
const SUBACK_CODES: &[u8] = &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const UNSUBACK_CODES: &[u8] = &[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
const DISCONNECT_OF_CLIENT: &[u8] =
    &[0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
const DISCONNECT_OF_SERVER: &[u8] = &[
    0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
    0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

#[test]
fn every_byte_as_the_reason_code_of_every_packet() {
    let method = properties(&[b"\x15\0\x01m"]);
    for code in 0..=u8::MAX {
        let judge = |to: To, bytes: &[u8], legal: &[u8]| {
            let found = refusal(to, bytes).is_none();
            assert_eq!(found, legal.contains(&code), "{code:02x} to {to:?}: {bytes:02x?}");
        };
        for (first, legal) in CODES_FROM_EITHER {
            for to in [Server(V5), Client(V5)] {
                judge(to, &[*first, 3, 0, 1, code], legal);
                judge(to, &[*first, 4, 0, 1, code, 0], legal);
            }
        }
        judge(Client(V5), &[0x20, 3, 0, code, 0], CONNACK_CODES);
        judge(Client(V5), &[0x90, 4, 0, 1, 0, code], SUBACK_CODES);
        judge(Client(V5), &[0x90, 5, 0, 1, 0, 0, code], SUBACK_CODES);
        judge(Client(V5), &[0xB0, 4, 0, 1, 0, code], UNSUBACK_CODES);
        judge(Server(V5), &[0xE0, 1, code], DISCONNECT_OF_CLIENT);
        judge(Client(V5), &[0xE0, 1, code], DISCONNECT_OF_SERVER);
        judge(Server(V5), &packet(0xF0, &[&[code], &method]), &[0x18, 0x19]);
        judge(Client(V5), &packet(0xF0, &[&[code], &method]), &[0, 0x18]);
    }
}

#[test]
fn the_rest_of_version_5() {
    let r = |to, what: &str, tag, violation, bytes| Refused {
        to,
        what: what.to_owned(),
        tag,
        violation,
        bytes,
    };
    let subscribe = |filter: &str, bits: u8| packet(0x82, &[&[0, 1, 0], &text(filter), &[bits]]);
    let mut table = vec![
        r(Server(V5), "retain handling 3", "3.8.3.1", ProtocolError, subscribe("a", 0x30)),
        r(
            Server(V5),
            "No Local, shared",
            "MQTT-3.8.3-4",
            ProtocolError,
            subscribe("$share/g/a", 4),
        ),
        r(
            Server(V5),
            "AUTH from a client says success",
            "MQTT-3.15.2-1",
            ProtocolError,
            vec![0xF0, 0],
        ),
        r(Server(V5), "AUTH without a method", "3.15.2.2.2", ProtocolError, vec![0xF0, 1, 0x18]),
        r(Server(V5), "AUTH without a method", "3.15.2.2.2", ProtocolError, vec![0xF0, 2, 0x19, 0]),
        r(Server(V5), "bytes behind a PUBACK", "2.1.4", Malformed, vec![0x40, 5, 0, 1, 0, 0, 9]),
        r(Server(V5), "bytes behind a DISCONNECT", "2.1.4", Malformed, vec![0xE0, 3, 0, 0, 9]),
        r(Server(V5), "SUBSCRIBE without properties", "1.5.5", Malformed, vec![0x82, 2, 0, 1]),
        r(Client(V5), "SUBACK without properties", "1.5.5", Malformed, vec![0x90, 2, 0, 1]),
        r(
            Client(V5),
            "UNSUBACK without codes",
            "MQTT-3.11.3-1",
            ProtocolError,
            vec![0xB0, 3, 0, 1, 0],
        ),
        r(Client(V5), "CONNACK without properties", "1.5.5", Malformed, vec![0x20, 2, 0, 0]),
        r(
            Server(V5),
            "PUBLISH without properties",
            "1.5.5",
            Malformed,
            packet(0x30, &[&text("a")]),
        ),
        r(
            NewServer,
            "CONNECT without properties",
            "1.5.5",
            Malformed,
            packet(0x10, &[&text("MQTT"), &[5, 2, 0, 0]]),
        ),
    ];
    for filter in
        ["$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"]
    {
        // Some are no filter at all, before they are no shared one.
        let tag = match filter {
            "$share/g#/a" => "MQTT-4.7.1-1",
            _ => "MQTT-4.8.2-1",
        };
        table.push(r(Server(V5), filter, tag, Malformed, subscribe(filter, 0)));
        let unsubscribe = packet(0xA2, &[&[0, 1, 0], &text(filter)]);
        table.push(r(Server(V5), filter, tag, Malformed, unsubscribe));
    }
    let bytes = packet(0xA2, &[&[0, 1, 0], &binary(b"$share/g/a#")]);
    table.push(r(Server(V5), "filter in a share", "MQTT-4.7.1-1", Malformed, bytes));
    check_refused(&table);
}
