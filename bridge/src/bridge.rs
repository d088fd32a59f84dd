//! The bridge itself: what it holds, how it starts, and the MQTT front's trait over it.
//!
//! Invariant: all that MQTT knows of the log it knows through [`Store`]. Neighbours: [`crate::ingress`] (steps 5 to 7),
//! [`crate::ticket`] (step 10), [`crate::streams`] (step 11), [`crate::ledger`].
//!
//! The process makes one after the log is open: `Bridge::new(config, log)` applies the config's topics. It runs
//! [`Bridge::keep_ledger`] as a task, and calls [`Bridge::flush_ledger`] once more before it closes the log.

use crate::arrival::{Arrivals, Moment};
use crate::ingress::{Parts, SHARDS, Shard};
use crate::ledger::{Dropped, Ledger};
use crate::route::{Fallback, Router};
use crate::streams::{self, Since, Streams, number};
use crate::ticket::Ticket;
use crate::topics::{self, TopicMaker, TopicsError};
use headwater_config::Config;
use headwater_log::{Log, Partition};
use headwater_mqtt::codec::Publish;
use headwater_mqtt::{Message, Outcome, Publisher, ReadFailure, Settled, Store, StreamId};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Stored messages went before their time to make room on the disk.
const CAUSE_SPACE: &str = "space";
/// How often the ledger is written.
const LEDGER_INTERVAL: Duration = Duration::from_secs(1);

/// Where MQTT meets the log. Shared as `Arc<Bridge>`.
#[derive(Debug)]
pub struct Bridge {
    pub(crate) log: Log,
    router: RwLock<Arc<Router>>,
    routes_version: AtomicU64,
    pub(crate) shards: [Mutex<Shard>; SHARDS],
    pub(crate) maker: TopicMaker,
    pub(crate) parts: Parts,
    pub(crate) counters: Live,
    streams: Streams,
    ledger: Ledger,
    arrivals: Arrivals,
}

/// Counters as they run.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) fallbacks: [AtomicU64; Fallback::ALL.len()],
    pub(crate) nowhere: AtomicU64,
    expired: AtomicU64,
    unreadable: AtomicU64,
    ledger_records: AtomicU64,
}

/// Counters since the start, read at one moment (for metrics).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records stored in topic `mqtt` instead of the topic their route names, by cause, all causes.
    pub fallbacks: Vec<(&'static str, u64)>,
    /// Messages refused because no single uplink carries their topic and their route says `mirrored`.
    pub mirrored_nowhere: u64,
    /// Messages dropped, by cause, as reported to the ledger.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Messages not delivered because they had expired, once per read of them.
    pub expired: u64,
    /// Records made here that this version cannot read as messages, once per read of them.
    pub unreadable: u64,
    /// Ledger records written.
    pub ledger_records: u64,
}

impl Bridge {
    /// Applies the config's topics to an open log (before [`Log::start`] or after) and makes the bridge ready.
    ///
    /// # Errors
    /// [`TopicsError`]: the process does not start.
    pub fn new(config: Arc<Config>, log: Log) -> Result<Arc<Self>, TopicsError> {
        topics::apply(&config, &log)?;
        let clock = log.clock();
        let newest_ms = if clock.is_trusted() { i64::MIN } else { newest_timestamp_ms(&log) };
        let arrivals = Arrivals::new(&**clock, newest_ms);
        let bridge = Self {
            router: RwLock::new(Arc::new(Router::new(config))),
            routes_version: AtomicU64::new(0),
            shards: Default::default(),
            maker: TopicMaker::default(),
            parts: Parts::default(),
            counters: Live::default(),
            streams: Streams::default(),
            ledger: Ledger::default(),
            arrivals,
            log,
        };
        bridge.refresh_streams(Since::Now);
        Ok(Arc::new(bridge))
    }

    /// Changes the config: topics first, then routes; each call of publish sees one of the two.
    ///
    /// # Errors
    /// [`TopicsError`]; the routes are then as they were.
    pub fn set_config(&self, config: Arc<Config>) -> Result<(), TopicsError> {
        topics::apply(&config, &self.log)?;
        // Topics that the old routes made meanwhile are new as a whole; those that only the new ones write are not.
        self.refresh_streams(Since::Creation);
        *self.router.write() = Arc::new(Router::new(config));
        self.routes_version.fetch_add(1, Ordering::AcqRel);
        self.refresh_streams(Since::Now);
        Ok(())
    }

    /// The routes in force.
    #[must_use]
    pub fn router(&self) -> Arc<Router> {
        Arc::clone(&self.router.read())
    }

    /// Moves when the routes change.
    pub(crate) fn routes_version(&self) -> u64 {
        self.routes_version.load(Ordering::Acquire)
    }

    /// The log below.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What happens to messages on an MQTT topic, with the partitions that topics really have.
    #[must_use]
    pub fn explain(&self, mqtt_topic: &str) -> crate::Explanation {
        crate::explain(&self.router(), mqtt_topic, &|topic| {
            let topic = self.log.topic(topic)?;
            u32::try_from(topic.partitions().len()).ok()
        })
    }

    /// The partition of a stream, unless its topic was deleted.
    #[must_use]
    pub fn stream(&self, stream: StreamId) -> Option<Arc<Partition>> {
        self.streams.get(stream)
    }

    /// Counters at this moment.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let live = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            fallbacks: Fallback::ALL
                .iter()
                .map(|cause| (cause.as_str(), get(&live.fallbacks[cause.index()])))
                .collect(),
            mirrored_nowhere: get(&live.nowhere),
            dropped: self.ledger.totals(),
            expired: get(&live.expired),
            unreadable: get(&live.unreadable),
            ledger_records: get(&live.ledger_records),
        }
    }

    /// Writes what was dropped to the ledger every second, until it is dropped itself.
    pub async fn keep_ledger(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LEDGER_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.flush_ledger();
        }
    }

    /// Appends what waits for the ledger; durable with the next commit cycle.
    pub fn flush_ledger(&self) {
        let now_ms = self.now().ms;
        for removed in self.log.take_early_removals() {
            let range = (removed.first.get().unsigned_abs(), removed.end.get().unsigned_abs());
            let what = Dropped::Stored {
                topic: removed.topic.as_str().into(),
                partition: removed.partition.get(),
            };
            self.ledger.add(CAUSE_SPACE, what, range.1 - range.0, Some(range), now_ms);
        }
        let appended = self.ledger.flush(&self.log, now_ms);
        self.counters.ledger_records.fetch_add(appended as u64, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Moment {
        self.arrivals.now(&**self.log.clock())
    }

    fn refresh_streams(&self, since: Since) {
        let versions = self.log.metadata_version().saturating_add(self.routes_version());
        self.streams.refresh(&self.log, versions, since, || self.router());
    }
}

/// The newest timestamp in the log: the floor of estimates while the clock is not trusted.
fn newest_timestamp_ms(log: &Log) -> i64 {
    let topics = log.topics();
    let partitions = topics.iter().flat_map(|topic| topic.partitions());
    let newest = partitions.filter_map(|p| match p.offset_of_max_timestamp() {
        Ok(found) => found.map(|newest| newest.timestamp_ms),
        Err(error) => {
            tracing::warn!(topic = p.topic().as_str(), %error, "its newest timestamp is unknown");
            None
        }
    });
    newest.max().unwrap_or(i64::MIN)
}

impl Store for Bridge {
    type Ticket = Ticket;

    fn publish(
        &self,
        from: &Publisher,
        messages: &[Publish<'_>],
        outcomes: &mut Vec<Outcome<Ticket>>,
    ) {
        self.take(from, messages, outcomes);
    }

    fn withdrawn(&self, from: &Publisher) {
        self.withdraw(from);
    }

    fn settled(&self, ticket: &Ticket) -> Settled {
        ticket.settled()
    }

    fn receipt(&self, ticket: &Ticket, pair: &mut dyn FnMut(&str, &str)) {
        ticket.receipt(pair);
    }

    fn moved(&self) -> tokio::sync::watch::Receiver<u64> {
        self.log.moved()
    }

    fn streams(&self) -> u32 {
        self.refresh_streams(Since::Creation);
        self.streams.count()
    }

    fn first(&self, stream: StreamId) -> u64 {
        self.streams.first(stream)
    }

    fn end(&self, stream: StreamId) -> u64 {
        self.streams.get(stream).map_or(0, |p| number(p.positions().last_stable))
    }

    fn read(
        &self,
        stream: StreamId,
        from: u64,
        bytes_max: usize,
        out: &mut Vec<Arc<Message>>,
    ) -> Result<u64, ReadFailure> {
        let Some(partition) = self.streams.get(stream) else { return Ok(from) };
        let now_ms = self.now().ms;
        let (next, left_out) = streams::read(&partition, stream, from, bytes_max, now_ms, out)?;
        if left_out != streams::LeftOut::default() {
            self.counters.expired.fetch_add(left_out.expired, Ordering::Relaxed);
            self.counters.unreadable.fetch_add(left_out.unreadable, Ordering::Relaxed);
        }
        Ok(next)
    }

    fn is_in_memory(&self, stream: StreamId, from: u64) -> bool {
        let Some(partition) = self.streams.get(stream) else { return true };
        let from = i64::try_from(from).ok().and_then(headwater_log::Offset::new);
        from.is_some_and(|from| partition.is_in_memory(from))
    }

    fn dropped(&self, cause: &'static str, topic: &str, count: u64) {
        let what = Dropped::Published { mqtt_topic: topic.into() };
        self.ledger.add(cause, what, count, None, self.now().ms);
    }

    fn lost(&self, cause: &'static str, subscriber: &str, stream: StreamId, from: u64, to: u64) {
        let count = to.saturating_sub(from);
        let what = match self.streams.get(stream) {
            Some(partition) => Dropped::Delivery {
                topic: partition.topic().as_str().into(),
                partition: partition.id().get(),
                subscriber: subscriber.into(),
            },
            None => Dropped::Unnamed,
        };
        self.ledger.add(cause, what, count, Some((from, to)), self.now().ms);
    }

    fn now_ms(&self) -> i64 {
        self.now().ms
    }
}
