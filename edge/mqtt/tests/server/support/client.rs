//! A client that says exactly what a test wants it to say, over real TCP.

use bytes::{Buf, BytesMut};
use headwater_mqtt::codec::{
    ConnAck, Connect, ConnectProperties, Decoded, Decoder, Packet, PacketId, Publish,
    PublishProperties, QoS, ReasonCode, Subscribe, SubscribeProperties, Subscription,
    SubscriptionOptions, Subscriptions, Version, encode,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) version: Version,
    input: BytesMut,
}

/// A whole packet as it came.
pub(crate) struct Frame {
    bytes: Vec<u8>,
    version: Version,
}

impl Frame {
    pub(crate) fn packet(&self) -> Packet<'_> {
        match Decoder::client(self.version, u32::MAX).decode(&self.bytes) {
            Ok(Decoded::Packet { packet, bytes }) if bytes == self.bytes.len() => packet,
            other => panic!("not a packet: {other:?}"),
        }
    }

    pub(crate) fn connack(&self) -> ConnAck<'_> {
        match self.packet() {
            Packet::ConnAck(connack) => connack,
            other => panic!("not a CONNACK: {other:?}"),
        }
    }

    pub(crate) fn publish(&self) -> Publish<'_> {
        match self.packet() {
            Packet::Publish(publish) => publish,
            other => panic!("not a PUBLISH: {other:?}"),
        }
    }

    /// Payload of a PUBLISH, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.publish().payload).into_owned()
    }

    /// Packet identifier of a PUBACK that says success.
    pub(crate) fn puback(&self) -> u16 {
        match self.packet() {
            Packet::PubAck(ack) if ack.reason == ReasonCode::Success => ack.packet_id.get(),
            other => panic!("not a PUBACK: {other:?}"),
        }
    }

    /// Reason of a DISCONNECT.
    pub(crate) fn disconnect(&self) -> ReasonCode {
        match self.packet() {
            Packet::Disconnect(disconnect) => disconnect.reason,
            other => panic!("not a DISCONNECT: {other:?}"),
        }
    }
}

/// A CONNECT with nothing special in it.
pub(crate) fn connect(version: Version, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 0,
        client_id,
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A PUBLISH with nothing special in it; identifier 0 is QoS 0.
pub(crate) fn publish<'a>(topic: &'a str, payload: &'a [u8], packet_id: u16) -> Publish<'a> {
    let packet_id = PacketId::new(packet_id);
    Publish {
        topic,
        payload,
        qos: if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        retain: false,
        dup: false,
        packet_id,
        properties: PublishProperties::default(),
    }
}

impl Client {
    /// Opens a socket and says nothing.
    pub(crate) async fn open(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, version, input: BytesMut::new() }
    }

    /// Connects, and fails if it is refused.
    pub(crate) async fn connect(address: SocketAddr, version: Version, client_id: &str) -> Self {
        let (client, connack) = Self::connect_with(address, &connect(version, client_id)).await;
        assert_eq!(connack.connack().reason, ReasonCode::Success);
        assert!(!connack.connack().session_present);
        client
    }

    /// Connects and returns the CONNACK.
    pub(crate) async fn connect_with(address: SocketAddr, connect: &Connect<'_>) -> (Self, Frame) {
        let mut client = Self::open(address, connect.version).await;
        client.send(&Packet::Connect(*connect)).await;
        let connack = client.next().await;
        (client, connack)
    }

    pub(crate) async fn send(&mut self, packet: &Packet<'_>) {
        self.send_all(std::slice::from_ref(packet)).await;
    }

    /// Several packets in one write.
    pub(crate) async fn send_all(&mut self, packets: &[Packet<'_>]) {
        let mut out = BytesMut::new();
        for packet in packets {
            encode(packet, self.version, u32::MAX, &mut out).unwrap();
        }
        self.send_bytes(&out).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.unwrap().unwrap();
    }

    /// The next packet; fails if the connection ends instead.
    pub(crate) async fn next(&mut self) -> Frame {
        self.next_or_end().await.expect("the connection ended")
    }

    /// The next packet, or `None` at the end of the connection.
    pub(crate) async fn next_or_end(&mut self) -> Option<Frame> {
        loop {
            match Decoder::client(self.version, u32::MAX).decode(&self.input) {
                Ok(Decoded::Packet { bytes, .. }) => {
                    let frame =
                        Frame { bytes: self.input[..bytes].to_vec(), version: self.version };
                    self.input.advance(bytes);
                    return Some(frame);
                }
                Ok(Decoded::Incomplete { .. }) => {}
                Err(error) => panic!("the server sent {:?}: {error}", &self.input[..]),
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            match read.expect("nothing came") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Fails unless the next packet is the answer to a PINGREQ sent now: nothing else was on its way.
    pub(crate) async fn expect_nothing(&mut self) {
        self.send(&Packet::PingReq).await;
        let frame = self.next().await;
        assert!(matches!(frame.packet(), Packet::PingResp), "{:?}", frame.packet());
    }

    /// Subscribes and returns the reasons of the SUBACK.
    pub(crate) async fn subscribe(
        &mut self,
        filters: &[(&str, SubscriptionOptions)],
    ) -> Vec<ReasonCode> {
        self.subscribe_with(None, filters).await
    }

    pub(crate) async fn subscribe_with(
        &mut self,
        identifier: Option<u32>,
        filters: &[(&str, SubscriptionOptions)],
    ) -> Vec<ReasonCode> {
        let list: Vec<_> = filters
            .iter()
            .map(|(filter, options)| Subscription { filter, options: *options })
            .collect();
        let packet_id = PacketId::new(77).unwrap();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties: SubscribeProperties {
                subscription_identifier: identifier,
                ..SubscribeProperties::default()
            },
            subscriptions: Subscriptions::new(&list),
        }))
        .await;
        let frame = self.next().await;
        match frame.packet() {
            Packet::SubAck(suback) => {
                assert_eq!(suback.packet_id, packet_id);
                suback.reasons.iter().collect()
            }
            other => panic!("not a SUBACK: {other:?}"),
        }
    }

    /// Publishes with QoS 1 and waits for the PUBACK.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &str) {
        self.send(&Packet::Publish(publish(topic, payload.as_bytes(), 9))).await;
        assert_eq!(self.next().await.puback(), 9);
    }
}

/// Options that only ask for a QoS.
pub(crate) fn qos(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}
