//! Messages from the client: what waits for its acknowledgement, and topic aliases.
//!
//! Invariant: `pending` is in the order of arrival and only its front ever leaves, so that acknowledgements do too.
//! [MQTT-4.6.0-2]

use crate::codec::{PacketId, ReasonCode};
use crate::store::{Refusal, Settled};
use std::collections::VecDeque;

/// The receiving half of a session. `T` is the store's ticket.
#[derive(Debug)]
pub(crate) struct Inbound<T> {
    pending: VecDeque<Pending<T>>,
    receive_max: usize,
}

#[derive(Debug)]
struct Pending<T> {
    packet_id: PacketId,
    read_at_ns: u64,
    wait: Wait<T>,
}

#[derive(Debug)]
enum Wait<T> {
    Ticket(T),
    /// Refused on arrival; answered in its turn.
    Refused(ReasonCode),
}

/// What became of the oldest message that waited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<T> {
    /// Acknowledge with success.
    Acknowledge {
        /// Of the PUBLISH.
        packet_id: PacketId,
        /// When it was read.
        read_at_ns: u64,
        /// For a receipt.
        ticket: T,
    },
    /// Acknowledge with this reason (MQTT 5), or close (below).
    Refuse {
        /// Of the PUBLISH.
        packet_id: PacketId,
        /// Legal in a PUBACK.
        reason: ReasonCode,
    },
}

impl<T> Inbound<T> {
    pub(crate) fn new(receive_max: u16) -> Self {
        Self { pending: VecDeque::new(), receive_max: usize::from(receive_max) }
    }

    /// How many more messages may come before an acknowledgement leaves. [MQTT-3.3.4-7]
    pub(crate) fn room(&self) -> usize {
        self.receive_max.saturating_sub(self.pending.len())
    }

    /// How many messages wait for their acknowledgement.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether nothing waits for its acknowledgement.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// A message that the store took.
    pub(crate) fn accepted(&mut self, packet_id: PacketId, ticket: T, read_at_ns: u64) {
        self.pending.push_back(Pending { packet_id, read_at_ns, wait: Wait::Ticket(ticket) });
    }

    /// A message that nobody took: its refusal waits for its turn.
    pub(crate) fn refused(&mut self, packet_id: PacketId, reason: ReasonCode, read_at_ns: u64) {
        self.pending.push_back(Pending { packet_id, read_at_ns, wait: Wait::Refused(reason) });
    }

    /// Takes the oldest message if its fate is known. `settled` is asked once.
    pub(crate) fn next_settled(
        &mut self,
        settled: impl FnOnce(&T) -> Settled,
    ) -> Option<Verdict<T>> {
        let front = self.pending.front()?;
        let refusal = match &front.wait {
            Wait::Refused(reason) => Some(*reason),
            Wait::Ticket(ticket) => match settled(ticket) {
                Settled::Waiting => return None,
                Settled::Passed => None,
                Settled::Failed(refusal) => Some(reason_of(refusal)),
            },
        };
        let Pending { packet_id, read_at_ns, wait } = self.pending.pop_front()?;
        if self.pending.is_empty() && self.pending.capacity() > IDLE_CAPACITY {
            // A connection that was busy once should not keep the memory for ever.
            self.pending = VecDeque::new();
        }
        Some(match (refusal, wait) {
            (Some(reason), _) | (None, Wait::Refused(reason)) => {
                Verdict::Refuse { packet_id, reason }
            }
            (None, Wait::Ticket(ticket)) => Verdict::Acknowledge { packet_id, read_at_ns, ticket },
        })
    }
}

/// Entries that an idle queue may keep room for.
const IDLE_CAPACITY: usize = 64;

/// The reason code of a PUBACK that says why. (Table of section 3.4.2.1: 0x88 and 0x95 are not legal there.)
pub(crate) const fn reason_of(refusal: Refusal) -> ReasonCode {
    match refusal {
        Refusal::DiskFull => ReasonCode::QuotaExceeded,
        Refusal::NotAuthorized => ReasonCode::NotAuthorized,
        Refusal::TooLarge | Refusal::Offline => ReasonCode::UnspecifiedError,
    }
}

/// Topic aliases of one direction of one connection. (3.3.2.3.4)
#[derive(Debug)]
pub(crate) struct Aliases {
    names: Vec<Option<Box<str>>>,
    max: u16,
}

/// What a PUBLISH with a topic alias means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AliasUse<'a> {
    /// The alias stands for this topic already.
    Known(&'a str),
    /// The alias is to be set to the PUBLISH's topic first.
    Set,
    /// 0 or above the maximum: Topic Alias invalid. [MQTT-3.3.2-8], [MQTT-3.3.2-9]
    Invalid,
    /// Never set, and no topic to set it to: a protocol error. (3.3.4)
    Unknown,
}

impl Aliases {
    /// None set, up to `max` of them.
    pub(crate) fn new(max: u16) -> Self {
        Self { names: Vec::new(), max }
    }

    /// What `alias` with `topic` (empty where the alias stands for it) means now.
    pub(crate) fn look_up<'a>(&'a self, alias: u16, topic: &str) -> AliasUse<'a> {
        if alias == 0 || alias > self.max {
            return AliasUse::Invalid;
        }
        let known = self.names.get(usize::from(alias) - 1).and_then(Option::as_deref);
        match known {
            Some(known) if topic.is_empty() || topic == known => AliasUse::Known(known),
            None if topic.is_empty() => AliasUse::Unknown,
            _ => AliasUse::Set,
        }
    }

    /// Sets an alias for which [`Aliases::look_up`] said [`AliasUse::Set`].
    pub(crate) fn set(&mut self, alias: u16, topic: &str) {
        debug_assert!(alias != 0 && alias <= self.max, "checked by look_up");
        let index = usize::from(alias).saturating_sub(1);
        if self.names.len() <= index {
            self.names.resize(index + 1, None);
        }
        self.names[index] = Some(topic.into());
    }
}
