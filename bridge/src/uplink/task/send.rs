//! Requests: which batches go into one, and what their answers mean.
//!
//! Invariant: a batch takes its sequence and its place in the connection's order in the same breath.

use super::{Event, MEMORY_BYTES_MAX, Produced, Sent, Task};
use crate::uplink::entry::Entry;
use crate::uplink::mirror::{Answer, Now, Offer, Passed, Want};
use bytes::BytesMut;
use headwater_kafka::client::{
    ClientError, Connection, ProduceBatch, ProduceOutcome, ProduceVerdict, produce_verdict,
};
use headwater_log::{Offset, ReadError, ReadLimit, ReadOutcome, batch};
use std::time::Duration;
use tokio::task::JoinSet;

/// Requests unanswered per leader. More would not help: a partition has at most five.
const REQUESTS_MAX: usize = 5;
/// Bytes of one read of the log.
pub(super) const READ_BYTES: usize = 256 << 10;
/// A read that failed is tried again after this long.
const READ_AGAIN_MS: u64 = 5_000;
/// How long the centre may wait for its replicas.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(15);

impl Task {
    /// Sends what there is to send: per leader and request at most one batch of each partition.
    pub(super) fn send(&mut self, now: Now, events: &mut JoinSet<Event>) {
        if self.stopping {
            return;
        }
        let nodes: Vec<i32> = self.leaders.keys().copied().collect();
        for node in nodes {
            while let Some(leader) = self.leaders.get(&node) {
                let Some(connection) = leader.connection.clone().filter(|c| !c.is_closed()) else {
                    break;
                };
                if leader.requests >= REQUESTS_MAX || !self.send_one(node, &connection, now, events)
                {
                    break;
                }
            }
        }
    }

    /// One request. Answers whether there was anything to send.
    fn send_one(
        &mut self,
        node: i32,
        connection: &Connection,
        now: Now,
        events: &mut JoinSet<Event>,
    ) -> bool {
        let count = self.entries.len();
        let turn = self.leaders.get(&node).map_or(0, |l| l.turn);
        let (mut batches, mut sent, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut last = turn;
        let mut held = self.memory_bytes();
        for step in 0..count {
            let index = (turn + step) % count;
            if self.entries[index].leader != Some(node) || self.entries[index].gone {
                continue;
            }
            if bytes >= self.config.request_bytes_max
                || self.unanswered_bytes + bytes >= MEMORY_BYTES_MAX
            {
                break;
            }
            let room = self.config.request_bytes_max - bytes;
            let entry = &mut self.entries[index];
            if held + bytes < MEMORY_BYTES_MAX {
                let before = entry.buffer_bytes();
                read_if_in_memory(entry, index, now, events);
                held += entry.buffer_bytes().saturating_sub(before);
            }
            if let Some((batch, base)) = take_batch(entry, room, bytes, now) {
                bytes += batch.batch.len();
                batches.push(batch);
                sent.push(Sent { entry: index, base });
                last = index + 1;
            }
        }
        if batches.is_empty() {
            return false;
        }
        // Partitions of one topic stand together; entries of a topic are mostly neighbours already.
        let mut order: Vec<usize> = (0..batches.len()).collect();
        order.sort_by(|a, b| batches[*a].topic.cmp(&batches[*b].topic));
        let batches: Vec<ProduceBatch> = order.iter().map(|i| batches[*i].clone()).collect();
        let sent: Vec<Sent> = order.iter().map(|i| sent[*i]).collect();
        if let Some(leader) = self.leaders.get_mut(&node) {
            leader.requests += 1;
            leader.turn = last;
        }
        self.unanswered_bytes += bytes;
        match connection.produce(&batches, REPLICA_TIMEOUT) {
            Ok(answer) => {
                events.spawn(async move {
                    let result = answer.await;
                    Event::Produced(Produced { node, sent, bytes, result })
                });
            }
            Err(error) => {
                self.on_produced(Produced { node, sent, bytes, result: Err(error) }, now);
            }
        }
        true
    }

    pub(super) fn on_produced(&mut self, produced: Produced, now: Now) {
        self.unanswered_bytes = self.unanswered_bytes.saturating_sub(produced.bytes);
        if let Some(leader) = self.leaders.get_mut(&produced.node) {
            leader.requests = leader.requests.saturating_sub(1);
        }
        let mut counts = (0, 0, 0);
        for (place, sent) in produced.sent.iter().enumerate() {
            let entry = &mut self.entries[sent.entry];
            let answer = match &produced.result {
                Ok(outcomes) => {
                    let here = |o: &&ProduceOutcome| {
                        o.partition == entry.source.id().get() && *o.topic == *entry.target
                    };
                    // Answers mostly stand where their batches stood.
                    let outcome =
                        outcomes.get(place).filter(here).or_else(|| outcomes.iter().find(here));
                    outcome.map_or_else(
                        || Answer::Unknown("an answer without the partition".to_owned()),
                        |outcome| answer_of(outcome, entry),
                    )
                }
                Err(ClientError::Unreachable { reason, .. }) => Answer::NotStored(reason.clone()),
                Err(error) => Answer::Unknown(error.to_string()),
            };
            if !matches!(answer, Answer::Stored(_)) {
                entry.clear_buffer();
            }
            entry.mirror.on_answer(sent.base, answer, now);
            let acked = entry.mirror.acked();
            entry.hold.advance(acked);
            let (records, bytes, retries) = entry.mirror.take_counts();
            counts = (counts.0 + records, counts.1 + bytes, counts.2 + retries);
        }
        // Progress, not a connection, is what ends a series of waits.
        if let Some(leader) = self.leaders.get_mut(&produced.node).filter(|_| counts.0 > 0) {
            leader.backoff.reset();
        }
        let mut state = self.shared.state.lock();
        state.acked_records += counts.0;
        state.acked_bytes += counts.1;
        state.retries += counts.2;
        if counts.0 > 0 {
            state.last_progress_ms = Some(self.log.clock().wall_ms());
        }
    }
}

/// Reads ahead where that costs nothing but the look.
fn read_if_in_memory(entry: &mut Entry, index: usize, now: Now, events: &mut JoinSet<Event>) {
    if !entry.mirror.is_streaming() {
        return;
    }
    let Want::Batch(offset) = entry.mirror.want(now) else { return };
    let near = Offset::new(offset).is_some_and(|offset| entry.source.is_in_memory(offset));
    if near && entry.buffered(offset).is_none() {
        read(entry, index, offset, now, events);
    }
}

/// The next batch of a partition, addressed and copied, if it may be sent and fits.
fn take_batch(
    entry: &mut Entry,
    room: usize,
    used: usize,
    now: Now,
) -> Option<(ProduceBatch, i64)> {
    if !entry.mirror.is_streaming() {
        return None;
    }
    let Want::Batch(offset) = entry.mirror.want(now) else { return None };
    let (header, bytes) = entry.buffered(offset)?;
    if bytes.len() > room && used > 0 {
        return None;
    }
    let source_start = entry.source.positions().log_start.get();
    if let Some(to) = entry.left_out_to() {
        if entry.mirror.leave_out(&header, to, source_start, now) == Offer::Drop {
            entry.clear_buffer();
            entry.passed_over = true;
        }
        return None;
    }
    match entry.mirror.offer(&header, bytes.len(), source_start, now) {
        Offer::Later => None,
        Offer::Drop => {
            entry.clear_buffer();
            entry.passed_over = true;
            None
        }
        Offer::Send { producer, sequence } => {
            entry.pop();
            // The one copy of a batch on its way: the stored one is shared with every other reader.
            let copy = match header.has_holes() {
                true => batch::dense(&bytes).map(|dense| BytesMut::from(&dense[..])),
                false => Ok(BytesMut::from(&bytes[..])),
            };
            let mut copy = match copy {
                Ok(copy) => copy,
                Err(error) => {
                    let reason = format!("the compacted batch at {}: {error}", header.base_offset);
                    entry.mirror.on_answer(header.base_offset, Answer::Fatal(reason), now);
                    return None;
                }
            };
            batch::readdress(&mut copy, producer.id, producer.epoch, sequence.get());
            let (topic, partition) = (entry.target.as_str().into(), entry.source.id().get());
            Some((ProduceBatch { topic, partition, batch: copy.freeze() }, header.base_offset))
        }
    }
}

/// Reads from `offset` into the entry: at once from memory, through a thread that may block from the disk.
pub(super) fn read(
    entry: &mut Entry,
    index: usize,
    offset: i64,
    now: Now,
    events: &mut JoinSet<Event>,
) {
    let Some(from) = Offset::new(offset) else { return };
    if entry.reading || from >= entry.end() || now.mono_ms < entry.read_after_ms {
        return;
    }
    let source = entry.source.clone();
    if source.is_in_memory(from) {
        // Nothing in memory is damaged.
        on_read(entry, source.read(from, READ_BYTES, ReadLimit::SyncedAndStable), now);
        return;
    }
    entry.reading = true;
    events.spawn(async move {
        let read = move || source.read(from, READ_BYTES, ReadLimit::SyncedAndStable);
        let gone = |_| Err(ReadError::Deleted);
        Event::Read(index, tokio::task::spawn_blocking(read).await.unwrap_or_else(gone))
    });
}

/// Takes what a read found. Answers which records are given up, if any: they are damaged, and stay so.
pub(super) fn on_read(
    entry: &mut Entry,
    result: Result<ReadOutcome, ReadError>,
    now: Now,
) -> Option<(Offset, Offset)> {
    let damage = entry.damage.take();
    let mut given_up = None;
    let failed = match result {
        Ok(read) => {
            entry.clear_buffer();
            entry.fill(read).err()
        }
        Err(ReadError::OutOfRange { log_start, offset, .. }) if offset < log_start => {
            // Somebody deleted records that were not mirrored: DeleteRecords, never retention.
            let epoch = entry.source.epoch_of(log_start).unwrap_or_default();
            entry.hold.pass_over(offset, log_start);
            entry.mirror.skip_to(log_start.get(), epoch, Passed::Lost);
            None
        }
        Err(ReadError::Deleted) => None,
        Err(error) => {
            if let ReadError::Damaged { first, next_good: Some(next), .. } = error {
                // The second look found the same: it is on the disk, not in a cable. One batch must not stop a partition for
                // good; what is lost is said, listed in the ledger, and a step in the checkpoint.
                if damage == Some((first, next)) && entry.mirror.can_skip() {
                    entry.hold.pass_over(first, next);
                    let epoch = entry.source.epoch_of(next).unwrap_or_default();
                    entry.mirror.skip_to(next.get(), epoch, Passed::Lost);
                    given_up = Some((first, next));
                } else {
                    entry.damage = Some((first, next));
                }
            }
            given_up.is_none().then(|| error.to_string())
        }
    };
    match failed {
        None => entry.trouble = None,
        Some(reason) => {
            entry.trouble = Some(reason);
            entry.read_after_ms = now.mono_ms + READ_AGAIN_MS;
        }
    }
    given_up
}

fn answer_of(outcome: &ProduceOutcome, entry: &mut Entry) -> Answer {
    let message = outcome.message.clone();
    match produce_verdict(outcome.code) {
        ProduceVerdict::Stored => {
            Answer::Stored((outcome.base_offset >= 0).then_some(outcome.base_offset))
        }
        ProduceVerdict::NotStored { refresh } => {
            if refresh {
                entry.mirror.ask_refresh();
            }
            Answer::NotStored(message)
        }
        ProduceVerdict::Unknown => Answer::Unknown(message),
        ProduceVerdict::Sequence => Answer::Sequence(message),
        ProduceVerdict::Fatal => Answer::Fatal(message),
    }
}
