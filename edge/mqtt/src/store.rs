//! Step 5: the one trait through which MQTT meets the rest of the process.
//!
//! `bridge` implements it, this crate owns it, and nothing in it names Kafka.

use crate::codec::{Publish, QoS};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where published messages go and delivered messages come from.
///
/// No method blocks but [`Store::read`], and that only where [`Store::is_in_memory`] says no.
pub trait Store: Send + Sync + 'static {
    /// What an acknowledgement waits for: a few words, no allocation in the common case.
    type Ticket: Send + 'static;

    /// Takes messages of one connection, in order, and pushes one outcome for each it took.
    ///
    /// Fewer outcomes than messages: the append path is full. The caller keeps the rest, stops reading the connection
    /// (keep-alive suspended), waits for [`Store::moved`] and offers the rest again. Topics are names (aliases resolved;
    /// an alias that is still among the properties means nothing). QoS 0 messages that are refused come back by
    /// [`Store::dropped`], from the caller.
    fn publish(
        &self,
        from: &Publisher,
        messages: &[Publish<'_>],
        outcomes: &mut Vec<Outcome<Self::Ticket>>,
    );

    /// The messages of this connection that were offered and not taken are not offered again: they were dropped, or the
    /// connection has ended. Without this call the first message of its next [`Store::publish`] is the first of those.
    fn withdrawn(&self, from: &Publisher) {
        let _ = from;
    }

    /// Whether the acknowledgement of this ticket may be sent. Cheap; asked once per [`Store::moved`].
    fn settled(&self, ticket: &Self::Ticket) -> Settled;

    /// Names where the message went, for clients that asked for receipts: calls `pair(name, value)` per fact.
    fn receipt(&self, ticket: &Self::Ticket, pair: &mut dyn FnMut(&str, &str));

    /// Moves at least once whenever a ticket may have settled or a stream may have grown; not once per message.
    fn moved(&self) -> tokio::sync::watch::Receiver<u64>;

    /// How many streams there are now: their ids are `0..streams()`. Streams are never removed, only added.
    fn streams(&self) -> u32;

    /// Where whoever followed all streams when this one was added must begin to read it: its end at that time, 0 for one
    /// that was empty. (A stream made from a topic that held records already says where it stood.)
    fn first(&self, stream: StreamId) -> u64 {
        let _ = stream;
        0
    }

    /// Exclusive end of what subscribers may see of a stream.
    fn end(&self, stream: StreamId) -> u64;

    /// Reads messages from `from` up to [`Store::end`] or about `bytes_max`, into `out`, in order. Returns the offset to
    /// go on from (past records that are not messages for subscribers too).
    ///
    /// # Errors
    /// [`ReadFailure`]; `out` is then unchanged.
    fn read(
        &self,
        stream: StreamId,
        from: u64,
        bytes_max: usize,
        out: &mut Vec<Arc<Message>>,
    ) -> Result<u64, ReadFailure>;

    /// Whether a read from here is served from memory.
    fn is_in_memory(&self, stream: StreamId, from: u64) -> bool;

    /// Records that messages were dropped: into the ledger of dropped messages, with cause. `count` messages on `topic`.
    fn dropped(&self, cause: &'static str, topic: &str, count: u64);

    /// Records that a subscriber will never see the range `from..to` of a stream (retention passed it, damage, or a slow
    /// QoS 0 subscriber that was moved to the end): into the ledger, with cause. Offsets, exclusive end.
    fn lost(&self, cause: &'static str, subscriber: &str, stream: StreamId, from: u64, to: u64) {
        let _ = (subscriber, stream);
        self.dropped(cause, "", to.saturating_sub(from));
    }

    /// Milliseconds since the Unix epoch, on the clock that [`Message::expires_at_ms`] was reckoned with.
    fn now_ms(&self) -> i64;
}

/// One partition of one log topic that holds messages for subscribers, as a small dense number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// Who publishes.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// The client identifier.
    pub client_id: Arc<str>,
    /// The connection, by a number that no other of this process ever has: a client that comes back is another one.
    pub connection: u64,
}

impl Publisher {
    /// A new connection of a client.
    #[must_use]
    pub fn new(client_id: Arc<str>) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        Self { client_id, connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed) }
    }
}

/// What became of one published message.
#[derive(Debug)]
pub enum Outcome<T> {
    /// Taken; acknowledge when the ticket settles. (QoS 0: forget the ticket.)
    Accepted(T),
    /// Not taken and never will be.
    Refused(Refusal),
}

/// Why a message was refused; the session maps it to a reason code, or closes the connection below MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The disk is full (0x97, Quota exceeded).
    DiskFull,
    /// Too large for the log topic (0x95 on the connection, or 0x80).
    TooLarge,
    /// The log is offline (0x88 / close).
    Offline,
    /// The route says no (0x87, Not authorized).
    NotAuthorized,
}

/// The state of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Not yet.
    Waiting,
    /// Acknowledge.
    Passed,
    /// Never: answer with this refusal, or close without an acknowledgement.
    Failed(Refusal),
}

/// A stored message on its way to subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name.
    pub topic: Box<str>,
    /// Application message; shares memory with the stored batch.
    pub payload: Bytes,
    /// QoS it was published with.
    pub qos: QoS,
    /// RETAIN flag it was published with.
    pub retain: bool,
    /// Client identifier of the publisher, for No Local.
    pub publisher: Option<Box<str>>,
    /// Milliseconds since the Unix epoch at which it expires.
    pub expires_at_ms: Option<i64>,
    /// 0 or 1, where given.
    pub payload_format_indicator: Option<u8>,
    /// MIME type, where given.
    pub content_type: Option<Box<str>>,
    /// Topic for the answer, where given.
    pub response_topic: Option<Box<str>>,
    /// Correlation data, where given.
    pub correlation_data: Option<Bytes>,
    /// User properties in order.
    pub user_properties: Vec<(Box<str>, Box<str>)>,
    /// Stream it was read from.
    pub stream: StreamId,
    /// Its offset there.
    pub offset: u64,
}

/// Why a stream could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// Records below this offset are gone (retention): go on from there and record the loss.
    #[error("records below {first} are gone")]
    Gone {
        /// First offset there is.
        first: u64,
    },
    /// A damaged part: go on from `next` and record the loss. `None`: the rest is not readable now.
    #[error("stream is damaged: {detail}")]
    Damaged {
        /// For the log.
        detail: String,
        /// Where reading can go on.
        next: Option<u64>,
    },
}
