//! What the tests of the process share: configurations on free ports, the smallest MQTT and HTTP clients.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of this")]

use headwater::{Node, Seams};
use headwater_config::{Config, Protocol};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Three loopback listeners on free ports, data below `dir`, and `more`.
pub(crate) fn config(dir: &Path, more: &str) -> Config {
    let text = format!(
        "[storage]\ndir = {:?}\njournal_file_bytes = \"1MiB\"\n\
         [[listener]]\nprotocol = \"mqtt\"\nbind = \"127.0.0.1:0\"\n\
         [[listener]]\nprotocol = \"kafka\"\nbind = \"127.0.0.1:0\"\n\
         [[listener]]\nprotocol = \"http\"\nbind = \"127.0.0.1:0\"\n{more}\n",
        dir.join("data")
    );
    headwater_config::from_toml(&text).unwrap_or_else(|report| panic!("{report}"))
}

/// A node on it.
pub(crate) fn start(dir: &Path, more: &str) -> Node {
    Node::start(config(dir, more), Seams::default()).unwrap()
}

/// An MQTT 3.1.1 client that has been accepted.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn connect(node: &Node, id: &str) -> Self {
        let mut stream = TcpStream::connect(node.address(Protocol::Mqtt).unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut packet = vec![0x10, 12 + id.len() as u8, 0, 4];
        packet.extend_from_slice(b"MQTT\x04\x02\x00\x00");
        packet.extend_from_slice(&[0, id.len() as u8]);
        packet.extend_from_slice(id.as_bytes());
        stream.write_all(&packet).unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
        Self(stream)
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str) {
        let rest = 2 + topic.len() + 2 + payload.len();
        let mut packet = vec![0x32, u8::try_from(rest).unwrap(), 0, topic.len() as u8];
        packet.extend_from_slice(topic.as_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet.extend_from_slice(payload.as_bytes());
        self.0.write_all(&packet).unwrap();
        let mut puback = [0; 4];
        self.0.read_exact(&mut puback).unwrap();
        assert_eq!(puback, [0x40, 2, 0, 1]);
    }

    /// Whether the node has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 64]), Ok(0) | Err(_))
    }
}

/// Sends `request` as it stands; everything that comes back until the connection ends.
pub(crate) fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// GET: status and body.
pub(crate) fn get(node: &Node, path: &str) -> (u16, String) {
    let address = node.address(Protocol::Http).unwrap();
    let answer =
        http(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let status = answer.split(' ').nth(1).expect("a status line").parse().unwrap();
    (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}
