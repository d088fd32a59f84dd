//! What a server answers to what it refuses. [MQTT-4.13.1-1, MQTT-3.1.4-1]

use crate::bytes::To::{NewServer, Server};
use crate::bytes::{To, packet, properties, refusal, text};
use headwater_mqtt::codec::Version::{V3, V5, V311};
use headwater_mqtt::codec::{Answer, Decoder, ReasonCode};

fn answer(to: To, bytes: &[u8]) -> Answer {
    refusal(to, bytes).unwrap().answer()
}

#[test]
fn a_bad_connect_is_answered_in_its_own_version() {
    let reserved = |level: u8, properties: &[u8]| {
        packet(0x10, &[&text("MQTT"), &[level, 3, 0, 0], properties, &text("c")])
    };
    assert_eq!(
        answer(NewServer, &reserved(5, &[0])),
        Answer::ConnAck(V5, ReasonCode::MalformedPacket)
    );
    // 3.1.1: no return code says "malformed". [MQTT-3.1.4-1]
    assert_eq!(answer(NewServer, &reserved(4, &[])), Answer::Close);
    let zero =
        packet(0x10, &[&text("MQTT"), &[5, 2, 0, 0], &properties(&[&[0x21, 0, 0]]), &text("c")]);
    assert_eq!(answer(NewServer, &zero), Answer::ConnAck(V5, ReasonCode::ProtocolError));
}

#[test]
fn an_unknown_version_is_told_so_in_a_form_it_can_read() {
    let of = |name: &str, level: u8| packet(0x10, &[&text(name), &[level, 2, 0, 0, 0, 0]]);
    let unsupported = ReasonCode::UnsupportedProtocolVersion;
    assert_eq!(answer(NewServer, &of("MQTT", 6)), Answer::ConnAck(V5, unsupported));
    assert_eq!(answer(NewServer, &of("MQTT", 3)), Answer::ConnAck(V311, unsupported));
    assert_eq!(answer(NewServer, &of("MQIsdp", 5)), Answer::ConnAck(V311, unsupported));
    assert_eq!(unsupported.connect_return_code(), Some(1));
    // Whatever speaks another protocol gets nothing.
    assert_eq!(answer(NewServer, &of("AMQP", 4)), Answer::Close);
    assert_eq!(answer(NewServer, b"GET / HTTP/1.1\r\n"), Answer::Close);
    assert_eq!(answer(NewServer, &[0x16, 3, 1, 2, 0]), Answer::Close);
}

#[test]
fn an_empty_client_id_is_rejected_by_return_code_2() {
    let empty = |name: &str, level: u8| packet(0x10, &[&text(name), &[level, 0, 0, 0, 0, 0]]);
    let reason = ReasonCode::ClientIdentifierNotValid;
    assert_eq!(answer(NewServer, &empty("MQTT", 4)), Answer::ConnAck(V311, reason));
    assert_eq!(answer(NewServer, &empty("MQIsdp", 3)), Answer::ConnAck(V3, reason));
    assert_eq!(reason.connect_return_code(), Some(2));
}

#[test]
fn an_established_connection_gets_a_disconnect_in_version_5_only() {
    let of = |bytes: &[u8]| answer(Server(V5), bytes);
    assert_eq!(of(&[0x41, 2, 0, 1]), Answer::Disconnect(ReasonCode::MalformedPacket));
    assert_eq!(of(&[0x20, 2, 0, 0]), Answer::Disconnect(ReasonCode::ProtocolError));
    assert_eq!(of(&[0x10, 0]), Answer::Disconnect(ReasonCode::ProtocolError));
    let alias = packet(0x30, &[&text("a"), &properties(&[&[0x23, 0, 0]])]);
    assert_eq!(of(&alias), Answer::Disconnect(ReasonCode::TopicAliasInvalid));
    let large = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
    assert_eq!(of(&large), Answer::Disconnect(ReasonCode::PacketTooLarge));
    for version in [V3, V311] {
        assert_eq!(answer(Server(version), &[0x20, 2, 0, 0]), Answer::Close);
        assert_eq!(answer(Server(version), &large), Answer::Close);
    }
    // Before a CONNECT nobody knows the version.
    assert_eq!(Decoder::server(100).decode(&large).unwrap_err().answer(), Answer::Close);
    assert_eq!(Decoder::server(100).decode(&[0xC0, 0]).unwrap_err().answer(), Answer::Close);
}

#[test]
fn an_error_says_what_and_where() {
    let error = refusal(Server(V5), &[0x41, 2, 0, 1]).unwrap();
    assert_eq!(error.to_string(), "reserved flags of the fixed header are set [MQTT-2.1.3-1]");
}
