//! Properties over arbitrary packets and arbitrary bytes.

use crate::strategies::{Sent, publish, sent, version};
use bytes::BytesMut;
use headwater_mqtt::codec::{
    Ack, Acknowledgement, Decoded, Decoder, EncodeError, Packet, PacketId, ReasonCode, Receiver,
    Version, encode, encode_publish_header, encoded_bytes,
};
use proptest::prelude::*;

fn encoded(packet: &Packet<'_>, version: Version) -> BytesMut {
    let mut out = BytesMut::new();
    encode(packet, version, u32::MAX, &mut out).unwrap();
    out
}

/// A decoder of the side, on a connection on which this packet may come next.
fn decoder(receiver: Receiver, version: Version, first: u8) -> Decoder {
    match receiver {
        Receiver::Client => Decoder::client(version, u32::MAX),
        Receiver::Server => {
            let mut decoder = Decoder::server(u32::MAX);
            if first >> 4 != 1 {
                decoder.set_version(version);
            }
            decoder
        }
    }
}

fn with_version() -> impl Strategy<Value = (Version, Sent)> {
    version().prop_flat_map(|version| sent(version).prop_map(move |sent| (version, sent)))
}

/// Every decoder there is.
fn decoders(packet_bytes_max: u32) -> Vec<(Option<Version>, Decoder)> {
    let mut all = vec![(None, Decoder::server(packet_bytes_max))];
    for version in [Version::V3, Version::V311, Version::V5] {
        let mut server = Decoder::server(packet_bytes_max);
        server.set_version(version);
        all.push((Some(version), server));
        all.push((Some(version), Decoder::client(version, packet_bytes_max)));
    }
    all
}

/// A value, an error, or a need for more that is honest; and a value can be written again and means the same.
fn check_bytes(bytes: &[u8]) {
    const BYTES_MAX: u32 = 1_000;
    for (version, decoder) in decoders(BYTES_MAX) {
        match decoder.decode(bytes) {
            Err(_) => {}
            Ok(Decoded::Incomplete { bytes_min }) => {
                assert!(bytes_min > bytes.len() && bytes_min <= BYTES_MAX as usize);
            }
            Ok(Decoded::Packet { packet, bytes: taken }) => {
                assert!((2..=bytes.len()).contains(&taken));
                let version = match packet {
                    Packet::Connect(connect) => connect.version,
                    _ => version.unwrap(),
                };
                let again = encoded(&packet, version);
                let Ok(Decoded::Packet { packet: second, .. }) = decoder.decode(&again) else {
                    panic!("{packet:?} does not survive: {again:02x?}");
                };
                assert_eq!(packet, second);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_encoded_is_decoded((version, (receiver, packet)) in with_version()) {
        let bytes = encoded(&packet, version);
        prop_assert_eq!(encoded_bytes(&packet, version), Ok(bytes.len()));
        let decoder = decoder(receiver, version, bytes[0]);
        let found = decoder.decode(&bytes);
        prop_assert_eq!(found, Ok(Decoded::Packet { packet, bytes: bytes.len() }));
        // Every shorter prefix wants more; it is never taken and never an error.
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            if cut < bytes.len() {
                let found = decoder.decode(&bytes[..cut]);
                let wants_more = matches!(
                    found, Ok(Decoded::Incomplete { bytes_min }) if bytes_min <= bytes.len()
                );
                prop_assert!(wants_more, "{:?}", found);
            }
        }
    }

    #[test]
    fn the_peers_limit_is_kept((version, (_, packet)) in with_version()) {
        let bytes = encoded(&packet, version);
        let mut out = BytesMut::from(&b"before"[..]);
        let max = u32::try_from(bytes.len()).unwrap();
        let refused = encode(&packet, version, max - 1, &mut out);
        let expected = EncodeError::TooLarge { bytes: bytes.len(), bytes_max: bytes.len() - 1 };
        prop_assert_eq!(refused, Err(expected));
        prop_assert_eq!(&out[..], &b"before"[..]);
        prop_assert_eq!(encode(&packet, version, max, &mut out), Ok(()));
        prop_assert_eq!(&out[6..], &bytes[..]);
    }

    #[test]
    fn a_publish_header_and_its_payload_are_the_publish(
        (version, publish) in version()
            .prop_flat_map(|v| publish(v, Receiver::Client).prop_map(move |p| (v, p)))
    ) {
        let whole = encoded(&Packet::Publish(publish), version);
        let mut header = BytesMut::new();
        let payload_bytes = publish.payload.len();
        encode_publish_header(&publish, payload_bytes, version, u32::MAX, &mut header).unwrap();
        header.extend_from_slice(publish.payload);
        prop_assert_eq!(header, whole);
    }

    #[test]
    fn below_version_5_properties_are_left_out(publish in publish(Version::V5, Receiver::Client)) {
        for version in [Version::V3, Version::V311] {
            let packet = Packet::Publish(publish);
            let mut out = BytesMut::new();
            let result = encode(&packet, version, u32::MAX, &mut out);
            if publish.topic.is_empty() {
                // A topic alias cannot be said there.
                let is_refused = matches!(result, Err(EncodeError::Illegal { .. }));
                prop_assert!(is_refused);
                prop_assert!(out.is_empty());
                continue;
            }
            let decoder = Decoder::client(version, u32::MAX);
            let Ok(Decoded::Packet { packet: Packet::Publish(found), .. }) = decoder.decode(&out)
            else { panic!("{:02x?}", out) };
            let plain = headwater_mqtt::codec::Publish {
                properties: Default::default(), ..publish
            };
            prop_assert_eq!(found, plain);
        }
    }

    #[test]
    fn changed_packets_do_no_harm(
        (version, (_, packet)) in with_version(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
        tail in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut bytes = encoded(&packet, version).to_vec();
        bytes.truncate(1_200);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(index) = cut {
            let at = index.index(bytes.len());
            bytes.truncate(at);
        }
        bytes.extend(tail);
        check_bytes(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        check_bytes(&bytes);
    }

    #[test]
    fn any_body_behind_a_good_header_does_no_harm(
        first in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(body);
        check_bytes(&bytes);
    }

    #[test]
    fn any_body_behind_a_connect_does_no_harm(
        level in 3..=5u8,
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let name: &[u8] = if level == 3 { b"\0\x06MQIsdp" } else { b"\0\x04MQTT" };
        let mut bytes = vec![0x10, (name.len() + 1 + body.len()) as u8];
        bytes.extend_from_slice(name);
        bytes.push(level);
        bytes.extend(body);
        check_bytes(&bytes);
    }
}

#[test]
fn the_short_acknowledgements_are_those_of_the_encoder() {
    let id = PacketId::new(0xBEEF).unwrap();
    let ack = Ack::new(id, ReasonCode::Success);
    for (short, packet) in [
        (Acknowledgement::PubAck, Packet::PubAck(ack)),
        (Acknowledgement::PubRec, Packet::PubRec(ack)),
        (Acknowledgement::PubRel, Packet::PubRel(ack)),
        (Acknowledgement::PubComp, Packet::PubComp(ack)),
    ] {
        for version in [Version::V3, Version::V311, Version::V5] {
            assert_eq!(short.success(id)[..], encoded(&packet, version)[..]);
        }
    }
}

#[test]
fn what_a_version_cannot_say_is_refused() {
    let id = PacketId::new(1).unwrap();
    let failed = Packet::PubAck(Ack::new(id, ReasonCode::QuotaExceeded));
    let mut out = BytesMut::new();
    for version in [Version::V3, Version::V311] {
        assert!(encode(&failed, version, u32::MAX, &mut out).is_err());
    }
    assert!(out.is_empty());
    encode(&failed, Version::V5, u32::MAX, &mut out).unwrap();
    assert_eq!(&out[..], [0x40, 3, 0, 1, 0x97]);
    // Not every reason is one of every packet.
    let wrong = Packet::PubAck(Ack::new(id, ReasonCode::ServerUnavailable));
    assert!(encode(&wrong, Version::V5, u32::MAX, &mut out).is_err());
    assert_eq!(out.len(), 5);
}
