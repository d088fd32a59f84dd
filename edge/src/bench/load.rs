//! The load: MQTT 3.1.1 connections that write packets encoded beforehand and count what comes back.
//!
//! Hand-written and on one thread, so that the server is the bottleneck and not this. Invariant: every acknowledgement
//! is checked (type, packet identifier, order), so that a server that cheats fails. Neighbours: [`super`].

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A run without any progress for so long has failed.
const STALLED: Duration = Duration::from_secs(60);

/// What is sent, and how.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) server: SocketAddr,
    pub(super) connections: u32,
    pub(super) per_write: u32,
    pub(super) qos: u8,
    pub(super) payload_bytes: u32,
    pub(super) window: u32,
}

/// What was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) messages: u64,
    pub(super) took: Duration,
    /// From the write of a message to the read of its acknowledgement.
    pub(super) latency_us: Histogram<u64>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// `per_write` PUBLISH packets.
    packets: Vec<u8>,
    packet_bytes: usize,
    payload_bytes: usize,
    /// Where a packet's identifier stands in it.
    id_at: usize,
    /// A single QoS 1 packet, that ends a run of QoS 0.
    last: Vec<u8>,
    next_id: u16,
    next_ack: u16,
    /// Read buffer; missing only after an error.
    buffer: Vec<u8>,
    /// Bytes of a PUBACK that has not come whole.
    partial: Vec<u8>,
}

impl Load {
    /// Opens the connections.
    pub(super) async fn connect(&self) -> anyhow::Result<Vec<Connection>> {
        let mut all = Vec::new();
        for number in 0..self.connections {
            let connection = self.open(number).await;
            all.push(connection.with_context(|| format!("connection {number}"))?);
        }
        Ok(all)
    }

    async fn open(&self, number: u32) -> anyhow::Result<Connection> {
        let mut stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        // BBR, where it is the system's default, paces a loopback link to a fraction of what it can do.
        let _ = socket2::SockRef::from(&stream).set_tcp_congestion(b"cubic");
        let client_id = format!("bench-{}-{number}", std::process::id());
        let mut connect = vec![0x10, u8::try_from(12 + client_id.len())?];
        connect.extend_from_slice(&[0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0]);
        put_text(&mut connect, &client_id)?;
        stream.write_all(&connect).await?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).await?;
        ensure!(connack == [0x20, 2, 0, 0], "CONNECT was answered with {connack:02x?}");

        let topic = format!("bench/{number}");
        let payload = vec![b'x'; self.payload_bytes as usize];
        let packet = publish(self.qos, &topic, &payload)?;
        let id_at = packet.len() - payload.len() - 2;
        let packet_bytes = packet.len();
        Ok(Connection {
            stream,
            packets: packet.repeat(self.per_write as usize),
            packet_bytes,
            payload_bytes: payload.len(),
            id_at,
            last: publish(1, &topic, &payload)?,
            next_id: 1,
            next_ack: 1,
            buffer: vec![0; 16 * 1024],
            partial: Vec::new(),
        })
    }

    /// Sends `messages` in all over the connections; returns when all are acknowledged.
    pub(super) async fn send(
        &self,
        connections: &mut Vec<Connection>,
        messages: u64,
    ) -> anyhow::Result<Sent> {
        let count = connections.len() as u64;
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for (i, connection) in connections.drain(..).enumerate() {
            let share = messages / count + u64::from((i as u64) < messages % count);
            let load = self.clone();
            tasks.spawn(async move {
                let mut connection = connection;
                let sent = match load.qos {
                    0 => connection.send_qos0(share, load.per_write).await,
                    _ => connection.send_qos1(share, load.per_write, load.window).await,
                };
                sent.map(|latency| (connection, latency))
            });
        }
        let mut latency_us = histogram()?;
        while let Some(ended) = tasks.join_next().await {
            let (connection, latency) = ended??;
            latency_us.add(latency)?;
            connections.push(connection);
        }
        Ok(Sent { messages, took: began.elapsed(), latency_us })
    }
}

impl Connection {
    /// QoS 0 has no answer: one message at QoS 1 behind it says that all of it was taken.
    async fn send_qos0(&mut self, count: u64, per_write: u32) -> anyhow::Result<Histogram<u64>> {
        let mut left = count.saturating_sub(1);
        while left > 0 {
            let n = left.min(u64::from(per_write));
            let bytes = usize::try_from(n)? * self.packet_bytes;
            let write = self.stream.write_all(&self.packets[..bytes]);
            tokio::time::timeout(STALLED, write).await.context("the server takes nothing")??;
            left -= n;
        }
        let mut last = std::mem::take(&mut self.last);
        let at = last.len() - self.payload_bytes - 2;
        last[at..at + 2].copy_from_slice(&self.next_id.to_be_bytes());
        self.stream.write_all(&last).await?;
        self.last = last;
        self.next_id = after(self.next_id);
        let mut acks = 0;
        while acks == 0 {
            acks = self.read_acks().await?;
        }
        histogram()
    }

    async fn send_qos1(
        &mut self,
        count: u64,
        per_write: u32,
        window: u32,
    ) -> anyhow::Result<Histogram<u64>> {
        let mut latency = histogram()?;
        let mut writes: VecDeque<(Instant, u64)> = VecDeque::new();
        let (mut sent, mut acked) = (0, 0);
        while acked < count {
            while sent < count {
                let n = (count - sent).min(u64::from(per_write));
                if sent + n - acked > u64::from(window) {
                    break;
                }
                let bytes = self.number(usize::try_from(n)?);
                writes.push_back((Instant::now(), n));
                self.stream.write_all(&self.packets[..bytes]).await?;
                sent += n;
            }
            let mut acks = self.read_acks().await?;
            acked += acks;
            let now = Instant::now();
            while acks > 0 {
                let Some((at, waiting)) = writes.front_mut() else {
                    anyhow::bail!("more acknowledgements than messages");
                };
                let n = acks.min(*waiting);
                let us = u64::try_from((now - *at).as_micros())?;
                latency.record_n(us.clamp(1, LATENCY_US_MAX), n)?;
                acks -= n;
                *waiting -= n;
                if *waiting == 0 {
                    writes.pop_front();
                }
            }
        }
        Ok(latency)
    }

    /// Gives the first `n` packets their identifiers; the bytes they take.
    fn number(&mut self, n: usize) -> usize {
        for packet in self.packets.chunks_exact_mut(self.packet_bytes).take(n) {
            packet[self.id_at..self.id_at + 2].copy_from_slice(&self.next_id.to_be_bytes());
            self.next_id = after(self.next_id);
        }
        n * self.packet_bytes
    }

    /// Reads once; how many acknowledgements came.
    async fn read_acks(&mut self) -> anyhow::Result<u64> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        let read = self.stream.read(&mut buffer[kept..]);
        let read =
            tokio::time::timeout(STALLED, read).await.context("no acknowledgement comes")??;
        ensure!(read > 0, "the server closed the connection");
        let bytes = &buffer[..kept + read];
        let packets = bytes.chunks_exact(4);
        self.partial.clear();
        self.partial.extend_from_slice(packets.remainder());
        let mut acks = 0;
        for packet in packets {
            let [high, low] = self.next_ack.to_be_bytes();
            ensure!(
                packet == [0x40, 2, high, low],
                "{packet:02x?} came instead of the PUBACK of {}",
                self.next_ack
            );
            self.next_ack = after(self.next_ack);
            acks += 1;
        }
        self.buffer = buffer;
        Ok(acks)
    }
}

/// The longest latency that is told apart.
const LATENCY_US_MAX: u64 = 60_000_000;

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?)
}

/// Identifiers run from 1 to 65535. [MQTT-2.2.1-3]
fn after(id: u16) -> u16 {
    id.checked_add(1).unwrap_or(1)
}

fn put_text(packet: &mut Vec<u8>, text: &str) -> anyhow::Result<()> {
    packet.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
    packet.extend_from_slice(text.as_bytes());
    Ok(())
}

/// A PUBLISH, with identifier 0 where it has one.
fn publish(qos: u8, topic: &str, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    put_text(&mut body, topic)?;
    if qos > 0 {
        body.extend_from_slice(&[0, 0]);
    }
    body.extend_from_slice(payload);
    let mut packet = vec![0x30 | qos << 1];
    let mut rest = body.len();
    loop {
        let byte = u8::try_from(rest & 0x7f)?;
        rest >>= 7;
        packet.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(&body);
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_the_standard_writes_them() {
        assert_eq!(publish(1, "a/b", b"hi").unwrap(), b"\x32\x09\x00\x03a/b\x00\x00hi");
        assert_eq!(
            publish(0, "a/b", b"hi").unwrap(),
            b"\x30\x07\x00\x03a/b"[..].iter().chain(b"hi").copied().collect::<Vec<_>>()
        );
        let long = publish(0, "t", &[0; 200]).unwrap();
        assert_eq!(&long[..3], &[0x30, 0xcb, 0x01]);
        assert_eq!((after(1), after(65_535)), (2, 1));
    }
}
