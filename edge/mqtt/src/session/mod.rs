//! Step 3: what the server knows about one client, as a state machine without I/O.
//!
//! Time enters as an argument, bytes leave through a buffer that the caller owns. A session ends with its connection;
//! sessions that outlive it come with their own records in the log. Invariant: acknowledgements leave in the order in
//! which their PUBLISH came in. [MQTT-4.6.0-2] Neighbours: `connection` feeds it packets, `router` feeds it messages.

mod connect;
mod inbound;
mod outbound;
mod subscriptions;

pub(crate) use connect::{ConnectRefused, Negotiated, negotiate};
pub(crate) use inbound::{AliasUse, Aliases, Inbound, Verdict, reason_of};
pub(crate) use outbound::{Delivery, Outbound};
pub(crate) use subscriptions::{Granted, Matched, SessionSubscription, Subscriptions, is_own};

use crate::codec::Version;
use crate::limits::Limits;
use crate::store::StreamId;

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session<T> {
    /// Version the client speaks.
    pub(crate) version: Version,
    /// Whether it asked for receipts (`headwater-receipt: 1`).
    pub(crate) receipts: bool,
    /// Whether reason strings are welcome outside CONNACK and DISCONNECT. [MQTT-3.1.2-29]
    pub(crate) problem_information: bool,
    /// Messages from the client.
    pub(crate) inbound: Inbound<T>,
    /// Topic aliases of the client.
    pub(crate) aliases: Aliases,
    /// Messages to the client.
    pub(crate) outbound: Outbound,
    /// What it subscribed to.
    pub(crate) subscriptions: Subscriptions,
    /// Where it reads.
    pub(crate) cursor: Cursor,
}

/// Where a session gets its messages from.
#[derive(Debug, Default)]
pub(crate) enum Cursor {
    /// From the router, which matched them.
    #[default]
    Live,
    /// From the log, on its own: it fell behind, or subscribed while the router was behind.
    Behind(Positions),
}

/// The next offset per stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Positions(Vec<u64>);

impl Positions {
    pub(crate) fn new(next: Vec<u64>) -> Self {
        Self(next)
    }

    /// `None` for a stream that was added later.
    pub(crate) fn get(&self, stream: StreamId) -> Option<u64> {
        self.0.get(usize::try_from(stream.0).ok()?).copied()
    }

    /// Panics never: a stream beyond the end is ignored, [`Positions::extend`] adds it first.
    pub(crate) fn set(&mut self, stream: StreamId, next: u64) {
        if let Some(slot) = usize::try_from(stream.0).ok().and_then(|index| self.0.get_mut(index)) {
            *slot = next;
        }
    }

    /// Adds the streams up to `streams`, each at the offset that `first` gives.
    pub(crate) fn extend(&mut self, streams: u32, first: impl Fn(StreamId) -> u64) {
        let known = self.streams();
        self.0.extend((known..streams).map(|stream| first(StreamId(stream))));
    }

    /// How many streams it covers.
    pub(crate) fn streams(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// All streams with their next offset.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (StreamId, u64)> + '_ {
        (0u32..).map(StreamId).zip(self.0.iter().copied())
    }
}

impl<T> Session<T> {
    /// A fresh session as CONNECT agreed on.
    pub(crate) fn new(agreed: &Negotiated, limits: &Limits) -> Self {
        let receive_max = match agreed.version {
            Version::V5 => limits.receive_max,
            Version::V3 | Version::V311 => limits.receive_max_v3,
        };
        let alias_max = if agreed.version == Version::V5 { limits.topic_alias_max } else { 0 };
        Self {
            version: agreed.version,
            receipts: agreed.receipts,
            problem_information: agreed.problem_information,
            inbound: Inbound::new(receive_max),
            aliases: Aliases::new(alias_max),
            outbound: Outbound::new(
                agreed.version,
                agreed.receive_maximum.min(limits.inflight_max).max(1),
                agreed.packet_bytes_max,
                limits,
            ),
            subscriptions: Subscriptions::new(limits.subscriptions_max),
            cursor: Cursor::Live,
        }
    }

    /// Whether it reads the log on its own.
    pub(crate) fn is_behind(&self) -> bool {
        matches!(self.cursor, Cursor::Behind(_))
    }
}

#[cfg(test)]
mod tests;
