//! Messages to the client: a short queue in front of the client's window and the socket.
//!
//! Invariant: the queue is bounded in messages and bytes; what does not fit is not kept but read again from the log.
//! Order is kept across QoS 0 and 1, so a full window holds QoS 0 back too. [MQTT-4.6.0-6]

use super::subscriptions::Matched;
use crate::codec::{
    EncodeError, Packet, PacketId, Publish, PublishProperties, QoS, SubscriptionIdentifiers,
    UserPropertiesBuf, Version, encode,
};
use crate::counters::DropCause;
use crate::limits::Limits;
use crate::store::Message;
use bytes::BytesMut;
use hashbrown::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

/// A message on its way to one subscriber.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    pub(crate) matched: Matched,
}

impl Delivery {
    /// The lower of what it was published and subscribed with. [MQTT-3.8.4-8]
    pub(crate) fn qos(&self) -> QoS {
        self.message.qos.min(self.matched.qos)
    }

    fn bytes(&self) -> usize {
        self.message.topic.len() + self.message.payload.len()
    }
}

/// The sending half of a session.
#[derive(Debug)]
pub(crate) struct Outbound {
    version: Version,
    queue: VecDeque<Delivery>,
    queue_bytes: usize,
    queue_messages_max: usize,
    queue_bytes_max: usize,
    /// Packet identifiers sent and not acknowledged.
    inflight: HashSet<u16>,
    window: usize,
    last_id: u16,
    packet_bytes_max: u32,
}

/// What one [`Outbound::pump`] did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Pumped {
    /// Messages written, by QoS 0 and 1.
    pub(crate) sent: [u64; 2],
    /// Messages dropped: cause and topic.
    pub(crate) dropped: Vec<(DropCause, Box<str>)>,
}

impl Outbound {
    pub(crate) fn new(
        version: Version,
        window: u16,
        packet_bytes_max: u32,
        limits: &Limits,
    ) -> Self {
        Self {
            version,
            queue: VecDeque::new(),
            queue_bytes: 0,
            queue_messages_max: limits.queue_messages_max.max(1),
            queue_bytes_max: limits.queue_bytes_max,
            inflight: HashSet::new(),
            window: usize::from(window),
            last_id: 0,
            packet_bytes_max,
        }
    }

    /// Largest packet the client takes.
    pub(crate) fn packet_bytes_max(&self) -> u32 {
        self.packet_bytes_max
    }

    /// Whether one more message fits. A message larger than the queue's bytes fits an empty queue.
    pub(crate) fn has_room_for(&self, message: &Message) -> bool {
        self.queue.is_empty()
            || (self.queue.len() < self.queue_messages_max
                && self.queue_bytes + message.topic.len() + message.payload.len()
                    <= self.queue_bytes_max)
    }

    /// Whether half of the queue is free: time to read more of the log.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.queue.len() <= self.queue_messages_max / 2
            && self.queue_bytes <= self.queue_bytes_max / 2
    }

    /// Bytes of the messages in the queue.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that may be added before the queue is full.
    pub(crate) fn room_bytes(&self) -> usize {
        self.queue_bytes_max.saturating_sub(self.queue_bytes)
    }

    /// Adds a message. Ask [`Outbound::has_room_for`] first.
    pub(crate) fn push(&mut self, delivery: Delivery) {
        debug_assert!(self.has_room_for(&delivery.message), "the caller asked");
        self.queue_bytes += delivery.bytes();
        self.queue.push_back(delivery);
    }

    /// PUBACK from the client. `false`: nothing of that identifier was in flight. [MQTT-4.4.0-1]
    pub(crate) fn acknowledge(&mut self, packet_id: PacketId) -> bool {
        let there = self.inflight.remove(&packet_id.get());
        if self.inflight.is_empty() && self.inflight.capacity() > IDLE_CAPACITY {
            self.inflight = HashSet::new();
        }
        there
    }

    /// Whether the window lets one more QoS 1 message out. [MQTT-3.3.4-9]
    fn has_window(&self) -> bool {
        self.inflight.len() < self.window
    }

    /// Whether a [`Outbound::pump`] with an empty buffer would write something.
    pub(crate) fn can_send(&self) -> bool {
        self.queue.front().is_some_and(|next| next.qos() == QoS::AtMostOnce || self.has_window())
    }

    /// Encodes messages into `out` until it holds `out_bytes`, the queue is empty or the window is full.
    pub(crate) fn pump(&mut self, out: &mut BytesMut, out_bytes: usize, now_ms: i64) -> Pumped {
        let mut pumped = Pumped::default();
        let mut user_properties = UserPropertiesBuf::default();
        while out.len() < out_bytes && self.can_send() {
            let Some(delivery) = self.queue.pop_front() else { break };
            self.queue_bytes -= delivery.bytes();
            if delivery.message.expires_at_ms.is_some_and(|at| at <= now_ms) {
                pumped.dropped.push((DropCause::Expired, delivery.message.topic.clone()));
                continue;
            }
            match self.write(&delivery, &mut user_properties, now_ms, out) {
                Ok(()) => pumped.sent[usize::from(delivery.qos() > QoS::AtMostOnce)] += 1,
                Err(error) => {
                    // [MQTT-3.1.2-25]: as if it had been sent. An illegal packet would come from a stored message that
                    // no MQTT client could have published; it is as undeliverable.
                    if let EncodeError::Illegal { tag, detail } = error {
                        tracing::warn!(topic = %delivery.message.topic, tag, detail, "stored message cannot be sent");
                    }
                    pumped.dropped.push((
                        DropCause::SubscriberPacketTooLarge,
                        delivery.message.topic.clone(),
                    ));
                }
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > IDLE_CAPACITY {
            self.queue = VecDeque::new();
        }
        pumped
    }

    fn write(
        &mut self,
        delivery: &Delivery,
        user_properties: &mut UserPropertiesBuf,
        now_ms: i64,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let message = &*delivery.message;
        let packet_id = (delivery.qos() > QoS::AtMostOnce).then(|| self.free_id());
        user_properties.clear();
        if self.version == Version::V5 {
            for (name, value) in &message.user_properties {
                user_properties.push(name, value)?;
            }
        }
        let publish = Publish {
            topic: &message.topic,
            payload: &message.payload,
            qos: delivery.qos().min(QoS::AtLeastOnce),
            retain: message.retain && delivery.matched.retain_as_published,
            dup: false,
            packet_id,
            properties: PublishProperties {
                payload_format_indicator: message.payload_format_indicator,
                message_expiry_interval_s: message.expires_at_ms.map(|at| seconds_left(at, now_ms)),
                topic_alias: None,
                response_topic: message.response_topic.as_deref(),
                correlation_data: message.correlation_data.as_deref(),
                user_properties: user_properties.as_properties(),
                subscription_identifiers: SubscriptionIdentifiers::new(
                    delivery.matched.identifiers.as_slice(),
                ),
                content_type: message.content_type.as_deref(),
            },
        };
        encode(&Packet::Publish(publish), self.version, self.packet_bytes_max, out)?;
        if let Some(id) = packet_id {
            self.inflight.insert(id.get());
            self.last_id = id.get();
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn begin_ids_after(&mut self, last_id: u16) {
        self.last_id = last_id;
    }

    /// The next identifier that is not in flight. Ends: the window is smaller than the number of identifiers.
    fn free_id(&self) -> PacketId {
        let mut id = self.last_id;
        loop {
            id = id.wrapping_add(1);
            if let Some(packet_id) = PacketId::new(id)
                && !self.inflight.contains(&id)
            {
                return packet_id;
            }
        }
    }
}

/// Entries that an idle queue may keep room for.
const IDLE_CAPACITY: usize = 32;

/// What is left of a message's life, in whole seconds, at least one. [MQTT-3.3.2-6]
fn seconds_left(expires_at_ms: i64, now_ms: i64) -> u32 {
    let left_ms = expires_at_ms.saturating_sub(now_ms).max(1);
    u32::try_from((left_ms - 1) / 1_000 + 1).unwrap_or(u32::MAX)
}
