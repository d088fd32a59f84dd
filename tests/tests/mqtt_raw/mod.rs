//! MQTT by hand: bytes in, bytes out, over a blocking socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Protocol levels.
pub(crate) const V3: u8 = 3;
pub(crate) const V311: u8 = 4;
pub(crate) const V5: u8 = 5;

/// Longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A packet with the right remaining length in front of `parts`.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    let mut left = body.len();
    while left > 127 {
        out.push((left % 128) as u8 | 0x80);
        left /= 128;
    }
    out.push(left as u8);
    out.extend(body);
    out
}

/// A length-prefixed string.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

/// One socket.
pub(crate) struct Raw(TcpStream);

impl Raw {
    /// Opens it and says nothing.
    pub(crate) fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Self(stream)
    }

    /// A plain CONNECT.
    pub(crate) fn connect_packet(version: u8, client_id: &str) -> Vec<u8> {
        let name = if version == V3 { "MQIsdp" } else { "MQTT" };
        let none: &[u8] = if version == V5 { &[0] } else { &[] };
        packet(0x10, &[&text(name), &[version, 2, 0, 0], none, &text(client_id)])
    }

    /// Connects, and fails if it is refused.
    pub(crate) fn connected(port: u16, version: u8, client_id: &str) -> Self {
        let mut raw = Self::open(port);
        raw.send(&Self::connect_packet(version, client_id));
        let connack = raw.frame().expect("a CONNACK");
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
        raw
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the node reads");
    }

    /// Sends to a peer that may have closed; whether it was taken.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&mut self) {
        // The peer may have closed already.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// The next packet as it came; `None` at the end.
    pub(crate) fn frame(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![self.byte()?];
        let mut length = 0usize;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte().expect("a whole length");
            frame.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = frame.len();
        frame.resize(start + length, 0);
        self.0.read_exact(&mut frame[start..]).expect("a whole packet");
        Some(frame)
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => None,
            Ok(_) => Some(byte[0]),
            // Closed with bytes of ours unread.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset) => None,
            Err(error) => panic!("the node neither answered nor closed: {error}"),
        }
    }

    /// Whether the peer still holds it open. Only for a socket on which nothing is sent.
    pub(crate) fn is_open(&mut self) -> bool {
        self.0.set_nonblocking(true).expect("a socket option");
        let mut byte = [0];
        let read = self.0.read(&mut byte);
        self.0.set_nonblocking(false).expect("a socket option");
        matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}
