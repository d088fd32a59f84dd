//! From an accepted socket to a session: CONNECT under a deadline, a size cap and a count of unfinished handshakes.
//!
//! Invariant: until the CONNACK a client costs a slot, one small buffer and no more time than the deadline; a claim on
//! its identifier is held before the CONNACK says so. Neighbours: `shard` starts it, `connection` takes over.

use crate::codec::{Answer, Connect, DecodeError, Decoded, Decoder, Packet, ReasonCode, Version};
use crate::codec::{ConnAck, ConnAckProperties, encode};
use crate::connection::{self, Established};
use crate::counters::RefuseCause;
use crate::registry::Claim;
use crate::server::Slot;
use crate::session::{ConnectRefused, Negotiated, negotiate};
use crate::shard::{Inner, OpenSocket};
use crate::store::Store;
use bytes::BytesMut;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why no session came of a socket.
enum Failed {
    /// The peer is gone.
    Gone,
    /// Nothing to say but to close.
    Closed(RefuseCause, &'static str),
    /// A CONNACK, then close.
    Answered {
        version: Version,
        packet: Option<BytesMut>,
        cause: RefuseCause,
        detail: &'static str,
    },
}

/// What a client and the server agreed on.
struct Agreed {
    negotiated: Negotiated,
    client_id: Arc<str>,
    claim: Claim,
    slot: Slot,
    unread: Vec<u8>,
}

/// Runs one socket from accept to its end.
pub(crate) async fn run<S: Store>(
    shard: Rc<Inner<S>>,
    stream: TcpStream,
    peer: SocketAddr,
    handshake: Slot,
    open: OpenSocket<S>,
) {
    // Acknowledgements are small and waited for; a refusal only costs latency.
    let _ = stream.set_nodelay(true);
    shard.counters.handshakes.add(1);
    let deadline = shard.shared.limits.connect_timeout;
    let mut stop = shard.shared.stop.subscribe();
    let agreed = Box::pin(async {
        tokio::select! {
            agreed = timeout(deadline, agree(&shard, &stream)) => agreed.unwrap_or(Err(
                Failed::Closed(RefuseCause::ConnectTimeout, "no whole CONNECT in time"),
            )),
            _ = stop.wait_for(Option::is_some) => {
                Err(Failed::Closed(RefuseCause::Shutdown, "server is shutting down"))
            }
        }
    })
    .await;
    drop(stop);
    shard.counters.handshakes.sub(1);
    drop(handshake);
    match agreed {
        Ok(Agreed { negotiated, client_id, claim, slot, unread }) => {
            tracing::debug!(%peer, client = &*client_id, version = ?negotiated.version, "connected");
            let established =
                Established { stream, peer, negotiated, client_id, claim, slot, unread };
            Box::pin(connection::run(shard, established)).await;
        }
        Err(Failed::Gone) => {}
        Err(Failed::Closed(cause, detail)) => {
            shard.counters.add_refused(cause, 1);
            tracing::info!(%peer, detail, "connection closed before CONNACK");
        }
        Err(Failed::Answered { version, packet, cause, detail }) => {
            shard.counters.add_refused(cause, 1);
            tracing::info!(%peer, ?version, detail, "CONNECT refused");
            if let Some(packet) = packet {
                Box::pin(connection::finish(&stream, &packet)).await;
            }
        }
    }
    drop(open);
}

async fn agree<S: Store>(shard: &Rc<Inner<S>>, stream: &TcpStream) -> Result<Agreed, Failed> {
    let limits = &shard.shared.limits;
    let decoder = Decoder::server(u32::try_from(limits.connect_bytes_max).unwrap_or(u32::MAX));
    let mut unread = Vec::new();
    let (negotiated, given, bytes) = loop {
        stream.readable().await.map_err(|_| Failed::Gone)?;
        read_some(shard, stream, &mut unread)?;
        match decoder.decode(&unread) {
            Ok(Decoded::Incomplete { .. }) => {}
            Ok(Decoded::Packet { packet: Packet::Connect(connect), bytes }) => {
                let negotiated = negotiate(&connect, limits).map_err(refused)?;
                break (negotiated, client_id_of(&connect), bytes);
            }
            // [MQTT-3.1.0-1]; the decoder says so itself.
            Ok(Decoded::Packet { .. }) => {
                let detail = "the first packet is not a CONNECT";
                return Err(Failed::Closed(RefuseCause::Protocol, detail));
            }
            Err(error) => return Err(undecodable(&error)),
        }
    };
    unread.drain(..bytes);
    let refuse = |reason, cause, detail| {
        refused(ConnectRefused { version: negotiated.version, reason, detail, cause })
    };
    let Some(slot) = Slot::take(&shard.shared.connections, limits.connections_max) else {
        let detail = "too many connections";
        return Err(refuse(ReasonCode::ServerBusy, RefuseCause::ConnectionsMax, detail));
    };
    let client_id = given.unwrap_or_else(|| shard.shared.assign_client_id());
    let Ok(claim) = shard.shared.registry.claim(&client_id).await else {
        let detail = "a later connection uses this client identifier";
        return Err(refuse(ReasonCode::ServerBusy, RefuseCause::TakenOver, detail));
    };
    if shard.shared.is_stopping() {
        let detail = "server is shutting down";
        return Err(refuse(ReasonCode::ServerUnavailable, RefuseCause::Shutdown, detail));
    }
    let mut connack = BytesMut::new();
    let packet = negotiated.connack(&client_id, limits);
    if encode(&packet, negotiated.version, negotiated.packet_bytes_max, &mut connack).is_err() {
        // [MQTT-3.1.2-24]: the client takes no packet that large, and nothing in it may be left out.
        let detail = "the CONNACK does not fit the client's maximum packet size";
        return Err(Failed::Closed(RefuseCause::PacketTooLarge, detail));
    }
    write_all(stream, &connack).await?;
    shard.counters.bytes_out.add(connack.len() as u64);
    Ok(Agreed { negotiated, client_id, claim, slot, unread })
}

fn client_id_of(connect: &Connect<'_>) -> Option<Arc<str>> {
    (!connect.client_id.is_empty()).then(|| connect.client_id.into())
}

/// One read through the shard's buffer, so that an unfinished handshake keeps only what has come.
fn read_some<S: Store>(
    shard: &Rc<Inner<S>>,
    stream: &TcpStream,
    unread: &mut Vec<u8>,
) -> Result<(), Failed> {
    let mut input = shard.input.borrow_mut();
    // The decoder refuses a CONNECT above the limit from its first bytes; what follows a CONNECT may be read with it.
    let most = shard.shared.limits.connect_bytes_max.min(input.len());
    match stream.try_read(input.get_mut(..most).unwrap_or_default()) {
        Ok(0) => Err(Failed::Gone),
        Ok(read) => {
            shard.counters.bytes_in.add(read as u64);
            unread.extend_from_slice(input.get(..read).unwrap_or_default());
            Ok(())
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(())
        }
        Err(_) => Err(Failed::Gone),
    }
}

async fn write_all(stream: &TcpStream, bytes: &[u8]) -> Result<(), Failed> {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.writable().await.map_err(|_| Failed::Gone)?;
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Err(Failed::Gone),
        }
    }
    Ok(())
}

fn refused(refused: ConnectRefused) -> Failed {
    let mut bytes = BytesMut::new();
    let packet = refused.packet().and_then(|packet| {
        encode(&packet, refused.version, u32::MAX, &mut bytes).is_ok().then_some(bytes)
    });
    Failed::Answered {
        version: refused.version,
        packet,
        cause: refused.cause,
        detail: refused.detail,
    }
}

fn undecodable(error: &DecodeError) -> Failed {
    let cause = match error.reason() {
        ReasonCode::PacketTooLarge => RefuseCause::PacketTooLarge,
        ReasonCode::ClientIdentifierNotValid => RefuseCause::ClientId,
        _ => RefuseCause::Protocol,
    };
    let Answer::ConnAck(version, reason) = error.answer() else {
        return Failed::Closed(cause, error.detail);
    };
    let packet = Packet::ConnAck(ConnAck {
        session_present: false,
        reason,
        properties: ConnAckProperties {
            reason_string: Some(error.detail),
            ..ConnAckProperties::default()
        },
    });
    let mut bytes = BytesMut::new();
    let encoded = encode(&packet, version, u32::MAX, &mut bytes).is_ok().then_some(bytes);
    Failed::Answered { version, packet: encoded, cause, detail: error.detail }
}
