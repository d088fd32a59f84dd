//! Any bytes, to every decoder: as a stream of packets, as a server would read it. Whatever is decoded can be encoded
//! again, in the same version, to a packet that means the same; a need for more bytes is honest and bounded.

#![no_main]

use bytes::BytesMut;
use headwater_mqtt::codec::{Decoded, Decoder, Packet, Version, encode};
use libfuzzer_sys::fuzz_target;

const BYTES_MAX: u32 = 100_000;

/// Reads packet after packet until an error or the end.
fn drain(mut decoder: Decoder, mut input: &[u8]) {
    loop {
        match decoder.decode(input) {
            Err(error) => {
                // What would be sent must be there to be sent.
                let _ = (error.answer(), error.to_string());
                return;
            }
            Ok(Decoded::Incomplete { bytes_min }) => {
                assert!(bytes_min > input.len(), "{bytes_min} of {} bytes", input.len());
                assert!(bytes_min <= BYTES_MAX as usize);
                return;
            }
            Ok(Decoded::Packet { packet, bytes }) => {
                assert!(bytes >= 2 && bytes <= input.len());
                let version = match packet {
                    Packet::Connect(connect) => connect.version,
                    _ => decoder.version().expect("only a CONNECT comes before a version"),
                };
                write_again(&decoder, &packet, version);
                decoder.set_version(version);
                input = &input[bytes..];
            }
        }
    }
}

fn write_again(decoder: &Decoder, packet: &Packet<'_>, version: Version) {
    let mut out = BytesMut::new();
    encode(packet, version, u32::MAX, &mut out).expect("what was decoded is legal");
    let again = decoder.decode(&out).expect("what was encoded is legal");
    assert_eq!(again, Decoded::Packet { packet: *packet, bytes: out.len() });
}

fuzz_target!(|input: &[u8]| {
    drain(Decoder::server(BYTES_MAX), input);
    for version in [Version::V3, Version::V311, Version::V5] {
        let mut server = Decoder::server(BYTES_MAX);
        server.set_version(version);
        drain(server, input);
        drain(Decoder::client(version, BYTES_MAX), input);
    }
});
