//! Building packets from bytes, and the table form of a vector.

use headwater_mqtt::codec::{DecodeError, Decoded, Decoder, Packet, Version, Violation};

/// Large enough for every vector but those about size.
pub(crate) const BYTES_MAX: u32 = 1_000_000;

/// Who receives, and what was agreed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// A server that waits for a CONNECT.
    NewServer,
    /// A server on a connection of this version.
    Server(Version),
    /// A client of this version.
    Client(Version),
}

impl To {
    pub(crate) fn decoder(self) -> Decoder {
        match self {
            Self::NewServer => Decoder::server(BYTES_MAX),
            Self::Server(version) => {
                let mut decoder = Decoder::server(BYTES_MAX);
                decoder.set_version(version);
                decoder
            }
            Self::Client(version) => Decoder::client(version, BYTES_MAX),
        }
    }
}

/// A packet with the right remaining length in front of `parts`.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let byte = (left % 128) as u8;
        left /= 128;
        if left == 0 {
            out.push(byte);
            break;
        }
        out.push(byte | 0x80);
    }
    out.extend(body);
    out
}

/// A length-prefixed string.
pub(crate) fn text(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

/// Length-prefixed bytes.
pub(crate) fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// A property section shorter than 128 bytes.
pub(crate) fn properties(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    assert!(body.len() < 128);
    let mut out = vec![body.len() as u8];
    out.extend(body);
    out
}

/// One packet that must be refused.
pub(crate) struct Refused {
    pub(crate) to: To,
    pub(crate) what: String,
    pub(crate) tag: &'static str,
    pub(crate) violation: Violation,
    pub(crate) bytes: Vec<u8>,
}

/// Runs a table: every vector is refused, for the stated reason, whole, and with anything behind it.
pub(crate) fn check_refused(table: &[Refused]) {
    let mut failures = Vec::new();
    for vector in table {
        let found = refusal(vector.to, &vector.bytes);
        if found.map(|e| (e.violation, e.tag)) != Some((vector.violation, vector.tag)) {
            failures.push(format!(
                "{} [{}] {:?}: {:02x?}: {found:?}",
                vector.what, vector.tag, vector.to, vector.bytes
            ));
        }
        let mut longer = vector.bytes.clone();
        longer.extend_from_slice(&[0xC0, 0]);
        if refusal(vector.to, &longer).is_none() {
            failures.push(format!("{}: taken with a packet behind it", vector.what));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), table.len(), failures.join("\n"));
}

/// The error, if it is one.
pub(crate) fn refusal(to: To, bytes: &[u8]) -> Option<DecodeError> {
    to.decoder().decode(bytes).err()
}

/// The packet, which must be all of the bytes.
pub(crate) fn accepted(to: To, bytes: &[u8]) -> Packet<'_> {
    match to.decoder().decode(bytes) {
        Ok(Decoded::Packet { packet, bytes: taken }) => {
            assert_eq!(taken, bytes.len());
            packet
        }
        other => panic!("{to:?} {bytes:02x?}: {other:?}"),
    }
}
