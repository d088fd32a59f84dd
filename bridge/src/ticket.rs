//! Step 10: what an acknowledgement waits for.
//!
//! Step 10 of the life of a PUBLISH; from [`crate::ingress`]; to the MQTT session's list of pending acknowledgements.
//! Invariant: a ticket passes only when every record of its message has reached the ack point of its own route, and a
//! record whose position was lost never passes, whatever is stored at its offset later. Neighbour: the log says what
//! became of a position.

use crate::record::RouteHeader;
use crate::route::{Fallback, Key};
use headwater_log::{AckPoint, Hold, Loss, Partition, Position, Settled as LogSettled};
use headwater_mqtt::{Refusal, Settled};
use std::sync::Arc;

/// One place where messages of one MQTT topic are stored: a destination, resolved down to its partition.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) partition: Arc<Partition>,
    pub(crate) key: Key,
    pub(crate) headers: Vec<RouteHeader>,
    pub(crate) until: Until,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) copy: bool,
}

/// The point that an acknowledgement waits for.
#[derive(Debug)]
pub(crate) enum Until {
    /// In this node's log.
    Log(AckPoint),
    /// An uplink's centre.
    Mirrored(Arc<Hold>),
}

/// What the acknowledgement of one message waits for. Three words in the common case.
#[derive(Debug)]
pub struct Ticket(Waits);

#[derive(Debug)]
enum Waits {
    One(Wait),
    /// With copies: the primary record first.
    All(Box<[Wait]>),
}

/// One record on its way to its ack point.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    pub(crate) target: Arc<Target>,
    pub(crate) position: Position,
}

impl Target {
    /// Memory it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let key = match &self.key {
            Key::Text(text) => text.len(),
            Key::MqttTopic | Key::Absent => 0,
        };
        let headers: usize = self.headers.iter().map(|h| h.name.len() + h.value.len() + 32).sum();
        size_of::<Self>() + key + headers
    }
}

impl Ticket {
    /// Waits for one record.
    pub(crate) fn one(target: Arc<Target>, position: Position) -> Self {
        Self(Waits::One(Wait { target, position }))
    }

    /// Waits for all of them; the first is the primary record.
    pub(crate) fn all(waits: Vec<Wait>) -> Self {
        debug_assert!(!waits.is_empty(), "a message has a primary record");
        Self(Waits::All(waits.into()))
    }

    fn waits(&self) -> &[Wait] {
        match &self.0 {
            Waits::One(wait) => std::slice::from_ref(wait),
            Waits::All(waits) => waits,
        }
    }

    /// Whether the acknowledgement may be sent: a failure anywhere decides, then a wait anywhere.
    pub(crate) fn settled(&self) -> Settled {
        let mut all = Settled::Passed;
        for wait in self.waits() {
            match wait.settled() {
                Settled::Failed(refusal) => return Settled::Failed(refusal),
                Settled::Waiting => all = Settled::Waiting,
                Settled::Passed => {}
            }
        }
        all
    }

    /// The facts of a receipt: where the primary record is.
    pub(crate) fn receipt(&self, pair: &mut dyn FnMut(&str, &str)) {
        let Some(primary) = self.waits().first() else { return };
        let partition = &primary.target.partition;
        pair("topic", partition.topic().as_str());
        pair("partition", &partition.id().to_string());
        pair("offset", &primary.position.offset.to_string());
    }
}

impl Wait {
    fn settled(&self) -> Settled {
        let partition = &self.target.partition;
        match &self.target.until {
            Until::Log(point) => settled(partition.settled(*point, self.position)),
            // The log is asked first: after a lost tail another record can be at this offset and be mirrored.
            Until::Mirrored(hold) => {
                match settled(partition.settled(AckPoint::Synced, self.position)) {
                    Settled::Passed if hold.reached() <= self.position.offset => Settled::Waiting,
                    // Lost to damage, or deleted, before the centre had it.
                    Settled::Passed if hold.has_passed_over(self.position.offset) => {
                        Settled::Failed(Refusal::Offline)
                    }
                    other => other,
                }
            }
        }
    }
}

fn settled(log: LogSettled) -> Settled {
    match log {
        LogSettled::Waiting => Settled::Waiting,
        LogSettled::Passed => Settled::Passed,
        LogSettled::Lost(Loss::DiskFull) => Settled::Failed(Refusal::DiskFull),
        LogSettled::Lost(Loss::Offline | Loss::Deleted | Loss::Fenced | Loss::Truncated) => {
            Settled::Failed(Refusal::Offline)
        }
    }
}
