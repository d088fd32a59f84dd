//! The task of one uplink: one loop over a closed set of events. It does the I/O that the state machines ask for.
//!
//! Invariants: requests to one leader go over one connection, in the order in which their batches got their sequences;
//! what was read ahead, is being read, or is unanswered stays below [`MEMORY_BYTES_MAX`] and one read or request; a pass
//! over the partitions happens at most every [`LINGER`] because the log moved.
//! Neighbours: `entry` (one partition), `centre` (questions), `mirror` (decisions).

mod send;

use super::backoff::Backoff;
use super::centre::{self, Ask, Cluster, Found, Wanted};
use super::checkpoint::{Key, Target};
use super::entry::Entry;
use super::mirror::{Now, Timing, Want};
use super::status::{Row, Shared};
use super::store::Store;
use crate::ledger;
use headwater_config::Uplink;
use headwater_kafka::client::{
    Client, ClientError, ClientOptions, Connection, ProduceOutcome, ProducerIdentity,
};
use headwater_log::{Log, PartitionId, ReadError, ReadOutcome, TopicId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Bytes of batches in memory per uplink: read ahead, or copied, sent and unanswered.
pub const MEMORY_BYTES_MAX: usize = 8 << 20;

/// The log moves with every commit: a look at most this often gathers more per request.
const LINGER: Duration = Duration::from_millis(3);
/// Progress is written this often.
const PROGRESS_MS: u64 = 1_000;
/// Metadata is asked again this often without a reason, and at most this often with one.
const SURVEY_MS: u64 = 300_000;
const SURVEY_MS_MIN: u64 = 250;
/// A question is about at most this many partitions.
const ASKS_MAX: usize = 500;

/// Something that was waited for.
enum Event {
    Surveyed(Result<Cluster, ClientError>),
    Connected(i32, Result<Connection, ClientError>),
    Resolved(i32, Vec<Found>, Option<ProducerIdentity>),
    Produced(Produced),
    Read(usize, Result<ReadOutcome, ReadError>),
}

struct Produced {
    node: i32,
    sent: Vec<Sent>,
    bytes: usize,
    result: Result<Vec<ProduceOutcome>, ClientError>,
}

/// A batch under way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    entry: usize,
    base: i64,
}

/// A node that leads partitions.
#[derive(Debug)]
struct Leader {
    connection: Option<Connection>,
    connecting: bool,
    retry_at_ms: u64,
    backoff: Backoff,
    requests: usize,
    /// Where the next round begins, so that every partition gets its turn.
    turn: usize,
}

/// The task. Made by [`super::Uplinks::open`], run by [`super::Uplinks::start`].
#[derive(Debug)]
pub(crate) struct Task {
    config: Uplink,
    timing: Timing,
    log: Log,
    store: Arc<Mutex<Store>>,
    shared: Arc<Shared>,
    client: Arc<Client>,
    entries: Vec<Entry>,
    known_metadata: Option<u64>,
    leaders: BTreeMap<i32, Leader>,
    spare: Option<ProducerIdentity>,
    surveying: bool,
    survey_at_ms: u64,
    survey_backoff: Backoff,
    surveyed_at_ms: u64,
    unreachable: Option<String>,
    unreachable_logged: bool,
    unanswered_bytes: usize,
    progress_at_ms: u64,
    stopping: bool,
}

impl Task {
    /// Takes up every partition that matches now. Blocks for short reads.
    pub(crate) fn new(
        config: Uplink,
        log: Log,
        store: &Arc<Mutex<Store>>,
        shared: &Arc<Shared>,
    ) -> Self {
        let bootstrap = config.bootstrap.iter().map(ToString::to_string).collect();
        let options = ClientOptions {
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            ..ClientOptions::new(bootstrap, &format!("headwater-uplink-{}", config.name))
        };
        let seed = seed(&log, &config.name);
        let (first, longest) = config.backoff;
        let backoff = Backoff::new(millis(first), millis(longest), seed);
        let timing = Timing {
            // The kernel gives up on unacknowledged bytes after this long, also those of a dead process.
            settle_ms: millis(config.request_timeout) + 5_000,
            ..Timing::default()
        };
        let mut task = Self {
            timing,
            client: Arc::new(Client::new(options)),
            config,
            log,
            store: store.clone(),
            shared: shared.clone(),
            entries: Vec::new(),
            known_metadata: None,
            leaders: BTreeMap::new(),
            spare: None,
            surveying: false,
            survey_at_ms: 0,
            survey_backoff: backoff,
            surveyed_at_ms: 0,
            unreachable: Some("not yet connected".to_owned()),
            unreachable_logged: false,
            unanswered_bytes: 0,
            progress_at_ms: 0,
            stopping: false,
        };
        task.discover(task.now());
        task.publish_rows();
        task
    }

    /// Runs until told to stop.
    pub(crate) async fn run(mut self: Box<Self>, mut stop: watch::Receiver<Option<Duration>>) {
        let mut events: JoinSet<Event> = JoinSet::new();
        let mut moved = self.log.moved();
        loop {
            moved.mark_unchanged();
            let now = self.now();
            let wake_ms = self.pass(now, &mut events);
            let passed = Instant::now();
            let wake = passed + Duration::from_millis(wake_ms.saturating_sub(now.mono_ms));
            tokio::select! {
                Some(event) = events.join_next(), if !events.is_empty() => {
                    self.on_join(event);
                    // Whatever else is there already belongs to the same pass.
                    while let Some(event) = events.try_join_next() {
                        self.on_join(event);
                    }
                }
                Ok(()) = after(passed + LINGER, moved.changed()) => {}
                () = sleep_until(wake) => {}
                Ok(()) = stop.changed() => break,
            }
        }
        let deadline = stop.borrow().unwrap_or_default();
        self.wind_down(Instant::now() + deadline, events).await;
    }

    fn on_join(&mut self, event: Result<Event, tokio::task::JoinError>) {
        // Our own tasks neither panic nor are they cancelled while the loop runs.
        if let Ok(event) = event {
            let now = self.now();
            self.on_event(event, now);
        }
    }

    fn now(&self) -> Now {
        let clock = self.log.clock();
        Now {
            mono_ms: clock.monotonic_ns() / 1_000_000,
            wall_ms: clock.is_trusted().then(|| clock.wall_ms()),
        }
    }

    /// Does all that can be done now; answers when to look again at the latest.
    fn pass(&mut self, now: Now, events: &mut JoinSet<Event>) -> u64 {
        let mut wake = now.mono_ms + PROGRESS_MS;
        self.discover(now);
        self.survey(now, &mut wake, events);
        let asks = self.poll_entries(now, &mut wake, events);
        self.ask(asks, now, events);
        self.send(now, events);
        // An anchor that this left to be made durable does not wait for an event: there may be none for a second.
        let again =
            self.entries.iter_mut().fold(false, |any, e| std::mem::take(&mut e.passed_over) | any);
        if again {
            wake = now.mono_ms;
        }
        if now.mono_ms >= self.progress_at_ms {
            self.progress_at_ms = now.mono_ms + PROGRESS_MS;
            self.persist_progress();
            self.publish_rows();
        }
        wake
    }

    /// Takes up topics and partitions that appeared, lets go of those that were deleted.
    fn discover(&mut self, now: Now) {
        let version = self.log.metadata_version();
        if self.known_metadata == Some(version) {
            return;
        }
        self.known_metadata = Some(version);
        let topics = self.log.topics();
        let alive: BTreeSet<TopicId> = topics.iter().map(headwater_log::Topic::id).collect();
        for entry in &mut self.entries {
            if !entry.gone && !alive.contains(&entry.key.topic) {
                entry.gone = true;
                entry.clear_buffer();
                // A checkpoint that stays is only a few bytes too many.
                let _ = self.store.lock().remove(&entry.key);
            }
        }
        let known: BTreeSet<(TopicId, PartitionId)> =
            self.entries.iter().map(|e| (e.key.topic, e.key.partition)).collect();
        for topic in &topics {
            let Some((_, target)) = self.config.target_of(topic.name().as_str()) else { continue };
            for partition in topic.partitions() {
                let key = Key {
                    uplink: self.config.name.clone(),
                    topic: topic.id(),
                    partition: partition.id(),
                };
                // What its data directory holds is mirrored when that is back; until then its positions mean nothing.
                let missing = partition.missing().is_some();
                if !missing && !known.contains(&(key.topic, key.partition)) {
                    let store = self.store.lock();
                    let source = partition.clone();
                    let entry = Entry::new(source, key, target.clone(), &store, self.timing, now);
                    drop(store);
                    self.entries.push(entry);
                    self.survey_at_ms = 0;
                }
            }
        }
    }

    fn wanted(&self) -> Vec<Wanted> {
        let mut wanted: BTreeMap<&str, i32> = BTreeMap::new();
        for entry in self.entries.iter().filter(|e| !e.gone) {
            let count = wanted.entry(&entry.target).or_insert(0);
            *count = (*count).max(entry.source.id().get() + 1);
        }
        wanted
            .into_iter()
            .map(|(topic, partitions)| Wanted { topic: topic.to_owned(), partitions })
            .collect()
    }

    fn survey(&mut self, now: Now, wake: &mut u64, events: &mut JoinSet<Event>) {
        let refresh = self.entries.iter_mut().fold(false, |any, e| e.mirror.take_refresh() | any);
        if refresh {
            self.survey_at_ms = self.survey_at_ms.min(self.surveyed_at_ms + SURVEY_MS_MIN);
        }
        if self.surveying || self.stopping {
            return;
        }
        if now.mono_ms < self.survey_at_ms {
            *wake = (*wake).min(self.survey_at_ms);
            return;
        }
        let wanted = self.wanted();
        self.surveying = true;
        let (client, replicas) = (self.client.clone(), self.config.replication_factor);
        events.spawn(
            async move { Event::Surveyed(centre::survey(&client, &wanted, replicas).await) },
        );
    }

    /// Checkpoints, reads and questions of every partition whose leader can be reached.
    fn poll_entries(
        &mut self,
        now: Now,
        wake: &mut u64,
        events: &mut JoinSet<Event>,
    ) -> BTreeMap<i32, Vec<Ask>> {
        let mut asks: BTreeMap<i32, Vec<Ask>> = BTreeMap::new();
        let mut room = MEMORY_BYTES_MAX.saturating_sub(self.memory_bytes());
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            if entry.is_persisting() {
                entry.poll_durable();
            }
            let backlog = entry.has_backlog();
            let Some(node) = entry.leader.filter(|_| backlog && !self.stopping) else { continue };
            if !self.connect(node, now, wake, events) {
                // Memory is for those whose leader is there.
                self.entries[index].clear_buffer();
                continue;
            }
            let entry = &mut self.entries[index];
            match entry.mirror.want(now) {
                Want::Wait(until) => *wake = (*wake).min(until.unwrap_or(u64::MAX)),
                Want::Ask(question) => {
                    let source = entry.source.clone();
                    asks.entry(node).or_default().push(Ask { entry: index, question, source });
                }
                Want::Persist(anchor) => {
                    let store = self.store.clone();
                    entry.persist(&mut store.lock(), &anchor);
                }
                Want::Batch(offset) => {
                    if entry.buffered(offset).is_none() && room > 0 {
                        let before = entry.buffer_bytes();
                        send::read(entry, index, offset, now, events);
                        let under_way = if entry.reading { send::READ_BYTES } else { 0 };
                        let taken = entry.buffer_bytes().saturating_sub(before) + under_way;
                        room = room.saturating_sub(taken);
                    }
                }
            }
        }
        asks
    }

    /// Whether there is a connection to `node`; if not, one is made when it is time.
    fn connect(
        &mut self,
        node: i32,
        now: Now,
        wake: &mut u64,
        events: &mut JoinSet<Event>,
    ) -> bool {
        let (first, longest) = self.config.backoff;
        let log = &self.log;
        let leader = self.leaders.entry(node).or_insert_with(|| Leader {
            connection: None,
            connecting: false,
            retry_at_ms: 0,
            backoff: Backoff::new(
                millis(first),
                millis(longest),
                seed(log, "leader") ^ node as u64,
            ),
            requests: 0,
            turn: 0,
        });
        match &leader.connection {
            Some(connection) if !connection.is_closed() => return true,
            Some(_) => {
                leader.connection = None;
                leader.retry_at_ms = now.mono_ms + leader.backoff.next_ms();
                self.survey_at_ms = self.survey_at_ms.min(leader.retry_at_ms);
            }
            None => {}
        }
        if leader.connecting {
            return false;
        }
        if now.mono_ms < leader.retry_at_ms {
            *wake = (*wake).min(leader.retry_at_ms);
            return false;
        }
        leader.connecting = true;
        let client = self.client.clone();
        events.spawn(async move { Event::Connected(node, client.broker(node).await) });
        false
    }

    fn ask(&mut self, asks: BTreeMap<i32, Vec<Ask>>, now: Now, events: &mut JoinSet<Event>) {
        for (node, mut asks) in asks {
            let Some(connection) = self.leaders.get(&node).and_then(|l| l.connection.clone())
            else {
                for ask in asks {
                    self.entries[ask.entry].mirror.not_answered(now, "the connection has gone");
                }
                continue;
            };
            while !asks.is_empty() {
                let rest = asks.split_off(asks.len().min(ASKS_MAX));
                let (connection, spare) = (connection.clone(), self.spare);
                let these = std::mem::replace(&mut asks, rest);
                events.spawn(async move {
                    let (found, spare) = centre::resolve(&connection, these, spare).await;
                    Event::Resolved(node, found, spare)
                });
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Surveyed(result) => self.on_surveyed(result, now),
            Event::Connected(node, result) => self.on_connected(node, result, now),
            Event::Resolved(node, found, spare) => self.on_resolved(node, found, spare, now),
            Event::Produced(produced) => self.on_produced(produced, now),
            Event::Read(index, result) => {
                let entry = &mut self.entries[index];
                entry.reading = false;
                if let Some((first, end)) = send::on_read(entry, result, now) {
                    let reader = super::hold_name(&entry.key.uplink);
                    ledger::damaged(&self.log, &entry.source, &reader, first, end);
                }
            }
        }
    }

    fn on_surveyed(&mut self, result: Result<Cluster, ClientError>, now: Now) {
        self.surveying = false;
        self.surveyed_at_ms = now.mono_ms;
        let cluster = match result {
            Ok(cluster) => cluster,
            Err(error) => {
                self.survey_at_ms = now.mono_ms + self.survey_backoff.next_ms();
                self.client.disconnect();
                self.set_unreachable(Some(error.to_string()));
                self.shared.state.lock().retries += 1;
                return;
            }
        };
        self.survey_backoff.reset();
        self.survey_at_ms = now.mono_ms + SURVEY_MS;
        self.set_unreachable(None);
        let before = self.shared.state.lock().cluster_id.replace(cluster.id.clone());
        if before.is_some_and(|before| before != cluster.id) {
            // Another cluster's producer ids are not ours.
            self.spare = None;
        }
        let mut leaderless = false;
        for entry in self.entries.iter_mut().filter(|e| !e.gone) {
            let number = entry.source.id().get();
            entry.leader = None;
            match cluster.topics.get(&entry.target) {
                None => {
                    entry.trouble = Some(format!("the centre says nothing of {}", entry.target))
                }
                Some(Err(reason)) => entry.trouble = Some(reason.clone()),
                Some(Ok(topic)) => match topic.leaders.get(usize::try_from(number).unwrap_or(0)) {
                    None => {
                        let has = topic.leaders.len();
                        entry.trouble = Some(format!(
                            "{} has only {has} partitions at the centre",
                            entry.target
                        ));
                    }
                    Some(leader) => {
                        leaderless |= leader.is_none();
                        let target = Target {
                            cluster_id: cluster.id.clone(),
                            topic: entry.target.clone(),
                            topic_id: topic.id,
                        };
                        entry.set_target(&target, *leader, now);
                    }
                },
            }
        }
        let troubled = self.entries.iter().any(|e| !e.gone && e.trouble.is_some());
        if leaderless {
            self.survey_at_ms = now.mono_ms + 1_000;
        } else if troubled {
            self.survey_at_ms = now.mono_ms + 60_000;
        }
    }

    fn on_connected(&mut self, node: i32, result: Result<Connection, ClientError>, now: Now) {
        let Some(leader) = self.leaders.get_mut(&node) else { return };
        leader.connecting = false;
        match result {
            Ok(connection) => {
                leader.connection = Some(connection);
                self.set_unreachable(None);
            }
            Err(error) => {
                leader.retry_at_ms = now.mono_ms + leader.backoff.next_ms();
                self.survey_at_ms = self.survey_at_ms.min(leader.retry_at_ms);
                self.set_unreachable(Some(error.to_string()));
                self.shared.state.lock().retries += 1;
            }
        }
    }

    fn on_resolved(
        &mut self,
        _node: i32,
        found: Vec<Found>,
        spare: Option<ProducerIdentity>,
        now: Now,
    ) {
        self.spare = spare;
        for (ask, evidence) in found {
            let entry = &mut self.entries[ask.entry];
            match evidence {
                Ok(evidence) => {
                    let before = entry.mirror.acked();
                    entry.mirror.answered(&ask.question, &evidence, now);
                    if entry.mirror.acked() > before {
                        entry.note_epoch();
                    }
                }
                Err(error) => {
                    if error.code().is_some() {
                        entry.mirror.ask_refresh();
                    }
                    entry.mirror.not_answered(now, &error.to_string());
                }
            }
            entry.hold.advance(entry.mirror.acked());
        }
    }

    fn set_unreachable(&mut self, reason: Option<String>) {
        match (&reason, self.unreachable_logged) {
            (Some(reason), false) => {
                self.unreachable_logged = true;
                tracing::warn!(uplink = self.config.name, "the centre cannot be reached: {reason}");
            }
            (None, _) if self.unreachable.is_some() => {
                self.unreachable_logged = false;
                tracing::info!(uplink = self.config.name, "connected to the centre");
            }
            _ => {}
        }
        self.shared.state.lock().unreachable.clone_from(&reason);
        self.unreachable = reason;
    }

    fn memory_bytes(&self) -> usize {
        let held = |e: &Entry| e.buffer_bytes() + if e.reading { send::READ_BYTES } else { 0 };
        self.unanswered_bytes + self.entries.iter().map(held).sum::<usize>()
    }

    fn persist_progress(&mut self) {
        let store = self.store.clone();
        let mut store = store.lock();
        for entry in &mut self.entries {
            entry.persist_progress(&mut store);
        }
        store.tick();
    }

    /// Brings the shared status up to date, and tells what there is to tell.
    fn publish_rows(&mut self) {
        let now = self.now();
        let memory_bytes = self.memory_bytes() as u64;
        let foreign: u64 = self.entries.iter_mut().map(|e| e.log_notes(now)).sum();
        let mut state = self.shared.state.lock();
        state.memory_bytes = memory_bytes;
        state.foreign_steps += foreign;
        let failing = self.entries.iter().filter(|e| !e.gone).find_map(|e| e.mirror.last_error());
        state.last_error = failing.map(str::to_owned);
        for entry in &self.entries[state.rows.len()..] {
            state.rows.push(Row {
                source: entry.source.clone(),
                hold: entry.hold.clone(),
                target: entry.target.clone(),
                oldest_ms: None,
                stopped: None,
                gone: false,
            });
        }
        for (row, entry) in state.rows.iter_mut().zip(&self.entries) {
            row.gone = entry.gone;
            row.stopped = entry.stopped().map(str::to_owned);
            row.oldest_ms = match entry.has_backlog() {
                true => entry.oldest_ms().or(row.oldest_ms),
                false => None,
            };
        }
    }

    /// After the last batch was sent: waits for answers, writes the checkpoints, waits for the disk.
    async fn wind_down(&mut self, deadline: Instant, mut events: JoinSet<Event>) {
        self.stopping = true;
        while self.entries.iter().any(|e| e.mirror.in_flight() > 0) {
            match tokio::time::timeout_at(deadline, events.join_next()).await {
                Ok(Some(event)) => self.on_join(event),
                Ok(None) | Err(_) => break,
            }
        }
        let mut moved = self.log.moved();
        loop {
            moved.mark_unchanged();
            self.persist_progress();
            for entry in &mut self.entries {
                entry.poll_durable();
            }
            let waiting = self
                .entries
                .iter()
                .any(|e| e.is_persisting() || (e.mirror.has_progress() && !e.gone));
            let changed = tokio::time::timeout_at(deadline, moved.changed());
            if !waiting || !matches!(changed.await, Ok(Ok(()))) {
                break;
            }
        }
        self.publish_rows();
    }
}

/// Waits until `at`, then for `what`.
async fn after<T>(at: Instant, what: impl Future<Output = T>) -> T {
    sleep_until(at).await;
    what.await
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Differs between sites and uplinks: the directory's id is random.
fn seed(log: &Log, name: &str) -> u64 {
    let directory = log.directory_id();
    let mut seed = name.bytes().fold(0u64, |s, b| s.wrapping_mul(31).wrapping_add(u64::from(b)));
    for byte in directory {
        seed = seed.wrapping_mul(31).wrapping_add(u64::from(byte));
    }
    seed
}
