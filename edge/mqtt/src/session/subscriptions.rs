//! What one session subscribed to, and how overlapping filters become one delivery.
//!
//! Invariant: a message is delivered once per session, with the highest QoS of all filters that match it and all their
//! subscription identifiers. (3.3.4 leaves the choice; [MQTT-3.3.4-2], [MQTT-3.3.4-3])

use super::Positions;
use crate::codec::{QoS, SubscriptionOptions};
use crate::filter::TopicFilter;
use crate::store::Message;
use hashbrown::HashMap;
use std::rc::Rc;

/// What was granted for one filter: what the subscription tree keeps per subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) identifier: Option<u32>,
}

impl Granted {
    /// The options as this server grants them: at most QoS 1. [MQTT-3.8.4-7]
    pub(crate) fn new(options: SubscriptionOptions, identifier: Option<u32>) -> Self {
        Self {
            qos: options.qos.min(QoS::AtLeastOnce),
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            identifier,
        }
    }
}

/// One subscription of a session.
#[derive(Debug)]
pub(crate) struct SessionSubscription {
    pub(crate) granted: Granted,
    /// Offsets it starts at, where they are not those of the session: messages below are not for it.
    pub(crate) since: Option<Rc<Positions>>,
}

/// All subscriptions of a session.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    by_filter: HashMap<TopicFilter, SessionSubscription>,
    max: usize,
}

/// The sum of all filters of one session that match one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Matched {
    /// Highest granted QoS.
    pub(crate) qos: QoS,
    /// Whether one of them keeps the RETAIN flag.
    pub(crate) retain_as_published: bool,
    /// In no particular order.
    pub(crate) identifiers: Identifiers,
}

/// Subscription identifiers of one delivery; seldom more than one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Identifiers {
    #[default]
    None,
    One(u32),
    Many(Box<[u32]>),
}

impl Identifiers {
    pub(crate) fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    fn push(&mut self, id: u32) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(id),
            Self::One(first) => Self::Many(Box::new([first, id])),
            Self::Many(ids) => {
                let mut ids = ids.into_vec();
                ids.push(id);
                Self::Many(ids.into())
            }
        };
    }
}

impl Matched {
    /// Adds one more matching filter.
    pub(crate) fn add(&mut self, granted: &Granted) {
        self.qos = self.qos.max(granted.qos);
        self.retain_as_published |= granted.retain_as_published;
        if let Some(id) = granted.identifier {
            self.identifiers.push(id);
        }
    }
}

/// Whether No Local keeps this message from the subscriber that published it. [MQTT-3.8.3-3]
pub(crate) fn is_own(granted: &Granted, message: &Message, client_id: &str) -> bool {
    granted.no_local && message.publisher.as_deref() == Some(client_id)
}

impl Subscriptions {
    pub(crate) fn new(max: usize) -> Self {
        Self { by_filter: HashMap::new(), max }
    }

    /// Adds or replaces [MQTT-3.8.4-3]. `false`: the session has as many as it may.
    pub(crate) fn insert(&mut self, filter: TopicFilter, new: SessionSubscription) -> bool {
        if let Some(there) = self.by_filter.get_mut(filter.as_str()) {
            // A replaced subscription goes on where the old one was: nothing in between is lost or repeated.
            there.granted = new.granted;
            return true;
        }
        if self.by_filter.len() >= self.max {
            return false;
        }
        self.by_filter.insert(filter, new);
        true
    }

    /// Takes one out. `None`: there was none.
    pub(crate) fn remove(&mut self, filter: &str) -> Option<TopicFilter> {
        let (filter, _) = self.by_filter.remove_entry(filter)?;
        if self.by_filter.is_empty() {
            self.by_filter = HashMap::new();
        }
        Some(filter)
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicFilter, &SessionSubscription)> {
        self.by_filter.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_filter.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_filter.is_empty()
    }

    /// Whether a loss would break a promise: some subscription has QoS 1.
    pub(crate) fn has_acknowledged(&self) -> bool {
        self.by_filter.values().any(|s| s.granted.qos > QoS::AtMostOnce)
    }

    /// Forgets the start positions: the session has passed them all.
    pub(crate) fn forget_since(&mut self) {
        for subscription in self.by_filter.values_mut() {
            subscription.since = None;
        }
    }

    /// For a session that reads the log on its own: what matches this message. `None`: nothing.
    pub(crate) fn matched(&self, message: &Message, client_id: &str) -> Option<Matched> {
        let mut matched: Option<Matched> = None;
        for (filter, subscription) in &self.by_filter {
            let started = subscription
                .since
                .as_ref()
                .and_then(|since| since.get(message.stream))
                .is_none_or(|start| message.offset >= start);
            if started
                && filter.matches(&message.topic)
                && !is_own(&subscription.granted, message, client_id)
            {
                matched.get_or_insert_default().add(&subscription.granted);
            }
        }
        matched
    }
}
