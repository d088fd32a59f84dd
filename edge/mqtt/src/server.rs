//! What all shards of a node share: the store, the limits, who holds which client identifier, and the wish to stop.
//!
//! Invariant: connection and handshake slots are counted before anything is allocated for a socket, and given back by
//! dropping. Neighbours: the process makes one [`Shared`], then one [`crate::Shard`] per thread.

use crate::counters::ShardCounters;
use crate::limits::Limits;
use crate::registry::Registry;
use crate::store::Store;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The MQTT server of a node, without its threads.
pub struct Shared<S: Store> {
    pub(crate) store: Arc<S>,
    pub(crate) limits: Limits,
    pub(crate) registry: Arc<Registry>,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) handshakes: Arc<AtomicUsize>,
    pub(crate) stop: watch::Sender<Option<Duration>>,
    shards: Mutex<Vec<Arc<ShardCounters>>>,
    names: RandomState,
    names_given: AtomicU64,
}

impl<S: Store> std::fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("limits", &self.limits)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl<S: Store> Shared<S> {
    /// A server on this store. Nothing runs until shards are made.
    #[must_use]
    pub fn new(store: Arc<S>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            store,
            limits,
            registry: Arc::default(),
            connections: Arc::default(),
            handshakes: Arc::default(),
            stop: watch::Sender::new(None),
            shards: Mutex::default(),
            names: RandomState::new(),
            names_given: AtomicU64::new(0),
        })
    }

    /// The counters of every shard made so far, for the metrics. Gauges and counters are summed by the caller.
    #[must_use]
    pub fn counters(&self) -> Vec<Arc<ShardCounters>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The limits it runs with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Begins the graceful end: no new connection, no more reading; connections wait up to `drain` for the
    /// acknowledgements they owe, then leave with Server shutting down. Await [`crate::Shard::drained`] on each shard.
    pub fn stop(&self, drain: Duration) {
        self.stop.send_replace(Some(drain));
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    pub(crate) fn add_shard(&self) -> Arc<ShardCounters> {
        let counters = Arc::<ShardCounters>::default();
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).push(counters.clone());
        counters
    }

    /// A client identifier nobody else has: 64 random bits of this process and a number, twice over.
    pub(crate) fn assign_client_id(&self) -> Arc<str> {
        let number = self.names_given.fetch_add(1, Ordering::Relaxed);
        let (a, b) = (self.names.hash_one(number), self.names.hash_one((number, "second half")));
        format!("hw-{a:016x}{b:016x}").into()
    }
}

/// One of a limited number; dropping gives it back.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// `None`: all `max` are taken.
    pub(crate) fn take(counter: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let taken = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < max).then_some(count + 1)
        });
        taken.is_ok().then(|| Self(counter.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back() {
        let counter = Arc::new(AtomicUsize::new(0));
        let one = Slot::take(&counter, 2).unwrap();
        let _two = Slot::take(&counter, 2).unwrap();
        assert!(Slot::take(&counter, 2).is_none());
        drop(one);
        assert!(Slot::take(&counter, 2).is_some());
    }
}
