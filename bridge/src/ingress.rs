//! Steps 5 to 7: published messages into the log.
//!
//! Steps 5 to 7 of the life of a PUBLISH; from the MQTT session, a slice at a time; to the log's append. Invariant: a
//! ticket is given only for a message of which every record, copies included, was appended; a message that is offered
//! again after a full append path is not stored twice where its first record already is. Order holds: messages of one
//! slice are appended in their order. Neighbours: [`crate::route`] decides, [`crate::record`] writes, [`crate::ticket`]
//! waits.

use crate::Bridge;
use crate::arrival::Moment;
use crate::cache::Cache;
use crate::record::{Marks, Scratch, same_headers, write_headers};
use crate::route::{AckRule, Destination, Resolution, Router};
use crate::ticket::{Target, Ticket, Until, Wait};
use crate::topics::NoTopic;
use hashbrown::HashMap;
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{AppendError, Appended, Position};
use headwater_mqtt::codec::Publish;
use headwater_mqtt::{Outcome, Publisher, Refusal};
use parking_lot::Mutex;
use std::cell::Cell;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Groups of threads that share a cache; a process has as many busy threads as cores, so on most gateways one each.
pub(crate) const SHARDS: usize = 8;

/// Messages appended under one lock, at most.
const RUN_MAX: usize = 256;

/// Bytes of payloads and headers appended under one lock, about: far below what may be uncommitted, or a run could be
/// too large for the append path for ever.
const RUN_BYTES_MAX: usize = 256 << 10;

/// Headers larger than this give their memory back.
const HEADERS_KEPT_BYTES_MAX: usize = 4 << 10;

/// Messages with copies of which only a part is stored yet, at most; over it such a part may be stored again.
const PARTS_MAX: usize = 1_024;

/// All places for one MQTT topic.
#[derive(Debug)]
pub(crate) struct Resolved {
    primary: Arc<Target>,
    copies: Vec<Arc<Target>>,
}

/// What one group of threads keeps between calls.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    cache: Cache<Answer>,
    run: Run,
}

/// The cached answer for one MQTT topic.
#[derive(Debug)]
enum Answer {
    /// One record.
    One(Arc<Target>),
    /// A record and its copies.
    Many(Arc<Resolved>),
    /// The route's acknowledgement could never be kept.
    Nowhere,
}

impl Answer {
    /// Memory it takes, about.
    fn bytes(&self) -> usize {
        match self {
            Self::One(target) => target.bytes(),
            Self::Many(resolved) => {
                resolved.primary.bytes() + resolved.copies.iter().map(|c| c.bytes()).sum::<usize>()
            }
            Self::Nowhere => 0,
        }
    }
}

/// Consecutive messages for one partition, with memory that is used again.
#[derive(Debug, Default)]
struct Run {
    targets: Vec<Arc<Target>>,
    /// Index into `headers` per message: plain messages of one topic share them.
    headers_of: Vec<usize>,
    headers: Vec<Headers>,
    headers_used: usize,
    bytes: usize,
    scratch: Scratch,
}

/// The append path is full.
struct Busy;

/// The index of this thread's shard.
pub(crate) fn shard_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    }
    INDEX.get()
}

impl Bridge {
    /// Step 5. See [`headwater_mqtt::Store::publish`].
    pub(crate) fn take(
        &self,
        from: &Publisher,
        messages: &[Publish<'_>],
        outcomes: &mut Vec<Outcome<Ticket>>,
    ) {
        let now = self.now();
        let mut shard = self.shards[shard_index()].lock();
        shard.cache.keep_if_made_under(self.log.metadata_version(), self.routes_version());
        // Taken out whatever becomes of the message: a part is met by the very next offer of its connection or by none.
        let mut part = messages.first().and_then(|first| self.parts.take(from, first));
        let mut rest = messages;
        while !rest.is_empty() {
            match self.take_some(&mut shard, from, rest, part.take(), now, outcomes) {
                Ok(taken) => rest = &rest[taken..],
                Err(Busy) => return,
            }
        }
    }

    /// See [`headwater_mqtt::Store::withdrawn`].
    pub(crate) fn withdraw(&self, from: &Publisher) {
        self.parts.remove(from);
    }

    /// Takes at least the first message and pushes as many outcomes as it returns.
    fn take_some(
        &self,
        shard: &mut Shard,
        from: &Publisher,
        messages: &[Publish<'_>],
        part: Option<Part>,
        now: Moment,
        outcomes: &mut Vec<Outcome<Ticket>>,
    ) -> Result<usize, Busy> {
        let first = &messages[0];
        let target = match self.answer(shard, first.topic) {
            Err(refusal) => {
                outcomes.push(Outcome::Refused(refusal));
                return Ok(1);
            }
            Ok(answer) => match &*answer {
                Answer::Nowhere => {
                    self.counters.nowhere.fetch_add(1, Ordering::Relaxed);
                    outcomes.push(Outcome::Refused(Refusal::NotAuthorized));
                    return Ok(1);
                }
                Answer::Many(resolved) => {
                    let part = part.unwrap_or_else(|| Part {
                        resolved: Arc::clone(resolved),
                        waits: Vec::new(),
                    });
                    outcomes.push(self.take_with_copies(shard, from, first, part, now)?);
                    return Ok(1);
                }
                Answer::One(target) => Arc::clone(target),
            },
        };
        self.gather(shard, from, messages, target, now);
        let taken = shard.run.targets.len();
        match shard.run.append(&messages[..taken], now) {
            Ok(appended) => {
                for (index, target) in (0u32..).zip(shard.run.targets.drain(..)) {
                    self.count(&target);
                    let offset = appended.base.offset.plus(index);
                    let position = Position { epoch: appended.base.epoch, offset };
                    outcomes.push(Outcome::Accepted(Ticket::one(target, position)));
                }
                Ok(taken)
            }
            Err(AppendError::Busy) => Err(Busy),
            Err(_) => self.take_one_by_one(shard, from, &messages[..taken], now, outcomes),
        }
    }

    /// Fills the run with the first message and those after it that go to the same partition, without copies.
    fn gather(
        &self,
        shard: &mut Shard,
        from: &Publisher,
        messages: &[Publish<'_>],
        first: Arc<Target>,
        now: Moment,
    ) {
        shard.run.clear();
        shard.run.push(from, &messages[0], None, first, now);
        for pair in messages.windows(2).take(RUN_MAX - 1) {
            let [before, message] = pair else { return };
            if shard.run.bytes >= RUN_BYTES_MAX {
                return;
            }
            let last = shard.run.last();
            let target = if before.topic == message.topic {
                Arc::clone(last)
            } else {
                let partition = Arc::clone(&last.partition);
                // A message that cannot be resolved ends the run; its turn comes next, and its outcome with it.
                let Ok(answer) = self.answer(shard, message.topic) else { return };
                match &*answer {
                    Answer::One(target) if Arc::ptr_eq(&target.partition, &partition) => {
                        Arc::clone(target)
                    }
                    _ => return,
                }
            };
            shard.run.push(from, message, Some(before), target, now);
        }
    }

    /// After a refused run: each message alone, so that one of them cannot refuse the others.
    fn take_one_by_one(
        &self,
        shard: &mut Shard,
        from: &Publisher,
        messages: &[Publish<'_>],
        now: Moment,
        outcomes: &mut Vec<Outcome<Ticket>>,
    ) -> Result<usize, Busy> {
        // A topic may have been deleted since it was looked up.
        shard.cache.clear();
        for (taken, message) in messages.iter().enumerate() {
            let answer = match self.answer(shard, message.topic) {
                Ok(answer) => answer,
                Err(refusal) => {
                    outcomes.push(Outcome::Refused(refusal));
                    continue;
                }
            };
            let Answer::One(target) = &*answer else {
                // The answer changed just now; the caller's loop asks again and finds this one in the cache.
                return Ok(taken);
            };
            shard.run.clear();
            shard.run.push(from, message, None, Arc::clone(target), now);
            match shard.run.append(std::slice::from_ref(message), now) {
                Ok(appended) => {
                    self.count(target);
                    outcomes
                        .push(Outcome::Accepted(Ticket::one(Arc::clone(target), appended.last)));
                }
                Err(AppendError::Busy) if taken == 0 => return Err(Busy),
                Err(AppendError::Busy) => return Ok(taken),
                Err(error) => outcomes.push(Outcome::Refused(refusal(&error))),
            }
        }
        Ok(messages.len())
    }

    /// A message with copies, of which a part may be stored: every record of it, or an outcome that is never acknowledged.
    fn take_with_copies(
        &self,
        shard: &mut Shard,
        from: &Publisher,
        message: &Publish<'_>,
        part: Part,
        now: Moment,
    ) -> Result<Outcome<Ticket>, Busy> {
        let Part { resolved, mut waits } = part;
        let stored = waits.len();
        let targets = std::iter::once(&resolved.primary).chain(&resolved.copies);
        for target in targets.skip(stored) {
            shard.run.clear();
            shard.run.push(from, message, None, Arc::clone(target), now);
            match shard.run.append(std::slice::from_ref(message), now) {
                Ok(appended) => {
                    self.count(target);
                    waits.push(Wait { target: Arc::clone(target), position: appended.last });
                }
                Err(AppendError::Busy) => {
                    if !waits.is_empty() {
                        let resolved = Arc::clone(&resolved);
                        self.parts.insert(from, message, Part { resolved, waits });
                    }
                    return Err(Busy);
                }
                Err(error) => {
                    shard.cache.clear();
                    return Ok(Outcome::Refused(refusal(&error)));
                }
            }
        }
        Ok(Outcome::Accepted(Ticket::all(waits)))
    }

    fn count(&self, target: &Target) {
        if let Some(cause) = target.fallback {
            self.counters.fallbacks[cause.index()].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Step 6: the cached answer for an MQTT topic, or a new one; makes topics.
    fn answer(&self, shard: &mut Shard, topic: &str) -> Result<Arc<Answer>, Refusal> {
        if let Some(answer) = shard.cache.get(topic) {
            return Ok(answer);
        }
        let router = self.router();
        let mut offline = false;
        let resolution = router.resolve(topic, &mut |route, name| match self
            .maker
            .ensure(&self.log, &router, route, name)
        {
            Ok(()) => Ok(()),
            Err(NoTopic::Fallback(cause)) => Err(cause),
            Err(NoTopic::Offline) => {
                offline = true;
                Ok(())
            }
        });
        if offline {
            return Err(Refusal::Offline);
        }
        let answer = Arc::new(self.targets(&router, topic, resolution)?);
        // Making a topic has moved the metadata's version: what is remembered now is remembered under the new one.
        shard.cache.keep_if_made_under(self.log.metadata_version(), self.routes_version());
        shard.cache.insert(topic, Arc::clone(&answer), answer.bytes());
        Ok(answer)
    }

    fn targets(
        &self,
        router: &Router,
        topic: &str,
        resolution: Resolution,
    ) -> Result<Answer, Refusal> {
        let Resolution { primary, copies } = resolution;
        let mut targets = Vec::with_capacity(1 + copies.len());
        for (index, destination) in std::iter::once(primary).chain(copies).enumerate() {
            if destination.ack == AckRule::Nowhere {
                return Ok(Answer::Nowhere);
            }
            targets.push(Arc::new(self.target(router, topic, destination, index > 0)?));
        }
        let primary = targets.remove(0);
        if targets.is_empty() {
            return Ok(Answer::One(primary));
        }
        Ok(Answer::Many(Arc::new(Resolved { primary, copies: targets })))
    }

    fn target(
        &self,
        router: &Router,
        mqtt_topic: &str,
        destination: Destination,
        copy: bool,
    ) -> Result<Target, Refusal> {
        let name = destination.topic.as_str();
        let topic = match self.log.topic(name) {
            Some(topic) => topic,
            // Deleted since the start (only topic `mqtt` is not made on the way here).
            None => self.make_again(router, &destination)?,
        };
        let partitions = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
        let index = destination.key.partition(mqtt_topic, partitions) as usize;
        let partition = Arc::clone(topic.partitions().get(index).ok_or(Refusal::Offline)?);
        let until = match destination.ack {
            AckRule::Log(point) => Until::Log(point),
            AckRule::Mirrored { uplink } => {
                Until::Mirrored(partition.hold(&format!("uplink/{uplink}")))
            }
            AckRule::Nowhere => return Err(Refusal::NotAuthorized),
        };
        Ok(Target {
            partition,
            key: destination.key,
            headers: destination.headers,
            until,
            fallback: destination.fallback,
            copy,
        })
    }

    fn make_again(
        &self,
        router: &Router,
        destination: &Destination,
    ) -> Result<headwater_log::Topic, Refusal> {
        let name = &destination.topic;
        let (partitions, settings) = crate::topics::settings_for(router.config(), name.as_str());
        if let Err(refusal) = self.log.create_topic(name, partitions, settings) {
            tracing::warn!(topic = name.as_str(), %refusal, "a topic could not be made");
        }
        // No place for the message at all: the quota of topics, or an offline log.
        self.log.topic(name.as_str()).ok_or(match self.log.stats().offline {
            Some(_) => Refusal::Offline,
            None => Refusal::DiskFull,
        })
    }
}

impl Run {
    fn clear(&mut self) {
        self.targets.clear();
        self.headers_of.clear();
        for headers in &mut self.headers[..self.headers_used] {
            if headers.encoded().len() > HEADERS_KEPT_BYTES_MAX {
                *headers = Headers::default();
            }
        }
        self.headers_used = 0;
        self.bytes = 0;
    }

    /// The target of the message pushed last. There is one.
    fn last(&self) -> &Arc<Target> {
        &self.targets[self.targets.len() - 1]
    }

    /// Adds a message; `before` is the one added last, if it is of the same publisher and call.
    fn push(
        &mut self,
        from: &Publisher,
        message: &Publish<'_>,
        before: Option<&Publish<'_>>,
        target: Arc<Target>,
        now: Moment,
    ) {
        let same = before.is_some_and(|before| {
            Arc::ptr_eq(self.last(), &target) && same_headers(before, message)
        });
        if !same {
            if self.headers_used == self.headers.len() {
                self.headers.push(Headers::default());
            }
            write_headers(
                message,
                &from.client_id,
                target.key.bytes(message.topic),
                &target.headers,
                Marks { copy: target.copy, clock_untrusted: now.untrusted },
                &mut self.scratch,
                &mut self.headers[self.headers_used],
            );
            self.headers_used += 1;
        }
        let headers_at = self.headers_used - 1;
        self.bytes += message.payload.len() + self.headers[headers_at].encoded().len();
        self.headers_of.push(headers_at);
        self.targets.push(target);
    }

    /// Step 7: appends the run, all or nothing.
    fn append(&self, messages: &[Publish<'_>], now: Moment) -> Result<Appended, AppendError> {
        debug_assert_eq!(messages.len(), self.targets.len(), "one target per message");
        let partition = &self.last().partition;
        if let [message] = messages {
            return partition.append(&[self.record(0, message, now)]);
        }
        let records: Vec<RecordParts<'_>> =
            (0..).zip(messages).map(|(index, message)| self.record(index, message, now)).collect();
        partition.append(&records)
    }

    fn record<'a>(
        &'a self,
        index: usize,
        message: &'a Publish<'_>,
        now: Moment,
    ) -> RecordParts<'a> {
        RecordParts {
            timestamp_ms: now.ms,
            key: self.targets[index].key.bytes(message.topic),
            value: Some(message.payload),
            headers: &self.headers[self.headers_of[index]],
        }
    }
}

fn refusal(error: &AppendError) -> Refusal {
    match error {
        AppendError::DiskFull => Refusal::DiskFull,
        AppendError::TooLarge { .. } => Refusal::TooLarge,
        AppendError::Offline(_)
        | AppendError::Deleted
        | AppendError::NotLeader
        | AppendError::Busy
        | AppendError::Keyless { .. }
        | AppendError::Corrupt(_)
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::ProducerFenced { .. }
        | AppendError::InvalidTransaction { .. }
        | AppendError::CoordinatorFenced { .. } => Refusal::Offline,
    }
}

/// Messages with copies that met a full append path after their first record: when they are offered again, the rest is
/// stored.
///
/// At most one per connection, the message it offers next. Its next offer takes the part out, and so does the word that
/// there will be none ([`headwater_mqtt::Store::withdrawn`]): a later message, be it the same byte for byte, never passes
/// for one that is stored already. When in doubt a message is stored again.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    count: AtomicUsize,
    /// By connection, with a hash of the message.
    parts: Mutex<HashMap<u64, (u64, Part)>>,
    hasher: hashbrown::DefaultHashBuilder,
}

#[derive(Debug)]
struct Part {
    resolved: Arc<Resolved>,
    waits: Vec<Wait>,
}

impl Parts {
    fn hash(&self, message: &Publish<'_>) -> u64 {
        let id = message.packet_id.map(headwater_mqtt::codec::PacketId::get);
        self.hasher.hash_one((message.topic, message.payload, id))
    }

    /// Takes the connection's part out and returns it if it is this message's.
    fn take(&self, from: &Publisher, message: &Publish<'_>) -> Option<Part> {
        let (hash, part) = self.remove(from)?;
        (hash == self.hash(message)).then_some(part)
    }

    fn remove(&self, from: &Publisher) -> Option<(u64, Part)> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut parts = self.parts.lock();
        let part = parts.remove(&from.connection);
        self.count.store(parts.len(), Ordering::Release);
        part
    }

    fn insert(&self, from: &Publisher, message: &Publish<'_>, part: Part) {
        let mut parts = self.parts.lock();
        if parts.len() >= PARTS_MAX {
            parts.clear();
        }
        parts.insert(from.connection, (self.hash(message), part));
        self.count.store(parts.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
