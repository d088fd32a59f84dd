//! Step 11: partitions that hold messages for subscribers, as small dense numbers, and reading them.
//!
//! Step 11 of the life of a PUBLISH; from the log's reader, at or below the last stable offset; to the MQTT front.
//! Invariant: a number means one partition of one topic (by its id, so that a topic deleted and made again is another
//! one) for as long as the process lives; numbers are only added. Streams are the partitions of every topic that a route
//! can write. Neighbours: [`crate::route`] says which topics those are, [`crate::record`] what a record is to MQTT.

use crate::record::{self, Hidden};
use crate::route::Router;
use bytes::Bytes;
use hashbrown::HashSet;
use headwater_log::batch::{BatchError, BatchHeader};
use headwater_log::{Log, Offset, Partition, PartitionId, ReadError, ReadLimit, TopicId, batch};
use headwater_mqtt::{Message, ReadFailure, StreamId};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers for partitions.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// The sum of the metadata's and the routes' versions that the table was made under: both only rise.
    made_under: AtomicU64,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Index = stream.
    streams: Vec<Stream>,
    known: HashSet<(TopicId, PartitionId)>,
}

#[derive(Debug)]
struct Stream {
    /// `None`: the topic was deleted.
    partition: Option<Arc<Partition>>,
    /// Where those who follow all streams begin with this one.
    first: u64,
}

/// Where new streams are read from by those who follow all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// The process or these routes began: what a topic holds already is of former days.
    Now,
    /// The topic or partition was made since: all of it is new.
    Creation,
}

impl Streams {
    /// Gives numbers to partitions that are new. Cheap while nothing changed.
    pub(crate) fn refresh(
        &self,
        log: &Log,
        versions: u64,
        since: Since,
        router: impl FnOnce() -> Arc<Router>,
    ) {
        // One more than the sum, so that the first call (0 here) always looks.
        let versions = versions.saturating_add(1);
        if self.made_under.load(Ordering::Acquire) >= versions {
            return;
        }
        let router = router();
        let mut table = self.table.write();
        let topics = log.topics();
        for topic in topics.iter().filter(|topic| router.writes(topic.name().as_str())) {
            for partition in topic.partitions() {
                if table.known.insert((topic.id(), partition.id())) {
                    let first = match since {
                        Since::Now => number(partition.positions().last_stable),
                        Since::Creation => 0,
                    };
                    table.streams.push(Stream { partition: Some(Arc::clone(partition)), first });
                }
            }
        }
        let living: HashSet<TopicId> = topics.iter().map(headwater_log::Topic::id).collect();
        for Stream { partition, .. } in &mut table.streams {
            if partition.as_ref().is_some_and(|partition| !living.contains(&partition.topic_id())) {
                *partition = None;
            }
        }
        table.known.retain(|(topic, _)| living.contains(topic));
        self.made_under.fetch_max(versions, Ordering::AcqRel);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.table.read().streams.len()).unwrap_or(u32::MAX)
    }

    /// The partition of a stream, unless its topic was deleted.
    pub(crate) fn get(&self, stream: StreamId) -> Option<Arc<Partition>> {
        self.table.read().streams.get(stream.0 as usize)?.partition.clone()
    }

    /// Where those who follow all streams begin with this one.
    pub(crate) fn first(&self, stream: StreamId) -> u64 {
        self.table.read().streams.get(stream.0 as usize).map_or(0, |stream| stream.first)
    }
}

/// What a read left out, for counters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Messages that had expired.
    pub(crate) expired: u64,
    /// Records made here that contradict the table of [`crate::record`], or are of a later version.
    pub(crate) unreadable: u64,
}

/// Reads messages from `from` into `out`; returns where to go on.
///
/// # Errors
/// [`ReadFailure`]; `out` is unchanged then.
pub(crate) fn read(
    partition: &Partition,
    stream: StreamId,
    from: u64,
    bytes_max: usize,
    now_ms: i64,
    out: &mut Vec<Arc<Message>>,
) -> Result<(u64, LeftOut), ReadFailure> {
    let mut left_out = LeftOut::default();
    let from = i64::try_from(from).ok().and_then(Offset::new).unwrap_or(Offset::ZERO);
    let found = match partition.read(from, bytes_max, ReadLimit::LastStable) {
        Ok(found) => found,
        Err(ReadError::Deleted) => return Ok((number(from), left_out)),
        Err(error) => return Err(failure(&error)),
    };
    let (mut next, mut plain_bytes) = (from, 0);
    for bytes in &found.batches {
        // Compressed batches hold more than was read: memory is bounded by what they are in it.
        if plain_bytes >= bytes_max && next > from {
            return Ok((number(next), left_out));
        }
        let before = out.len();
        match read_batch(bytes, stream, from, now_ms, out, &mut left_out) {
            Ok((end, bytes)) => {
                next = next.max(end);
                plain_bytes += bytes;
            }
            Err((error, end)) => {
                out.truncate(before);
                // What was whole before it is delivered first; the next read meets the damage again.
                if next > from {
                    return Ok((number(next), left_out));
                }
                let detail =
                    format!("{}-{} at offset {from}: {error}", partition.topic(), partition.id());
                return Err(ReadFailure::Damaged { detail, next: end.map(number) });
            }
        }
    }
    Ok((number(found.next.max(next)), left_out))
}

/// Adds the messages of one batch at or above `from`; returns its exclusive end, and the bytes its records take.
fn read_batch(
    bytes: &Bytes,
    stream: StreamId,
    from: Offset,
    now_ms: i64,
    out: &mut Vec<Arc<Message>>,
    left_out: &mut LeftOut,
) -> Result<(Offset, usize), (BatchError, Option<Offset>)> {
    let header = BatchHeader::parse(bytes).map_err(|error| (error, None))?;
    let end = Offset::new(header.last_offset()).map(|last| last.plus(1));
    let Some(end) = end else { return Err((BatchError::Field("base_offset"), None)) };
    // A Kafka client's batch: its `hw`, if any, means nothing here.
    if !header.is_made_here() {
        return Ok((end, 0));
    }
    let records = batch::records(bytes).map_err(|error| (error, Some(end)))?;
    let plain_bytes = records.plain_bytes();
    for record in records {
        let record = record.map_err(|error| (error, Some(end)))?;
        if record.offset < from.get() {
            continue;
        }
        match record::read(&record, stream, now_ms) {
            Ok(message) => out.push(Arc::new(message)),
            Err(Hidden::Copy | Hidden::NotMqtt) => {}
            Err(Hidden::Expired) => left_out.expired += 1,
            Err(Hidden::Version(_) | Hidden::Malformed) => left_out.unreadable += 1,
        }
    }
    Ok((end, plain_bytes))
}

fn failure(error: &ReadError) -> ReadFailure {
    match error {
        ReadError::OutOfRange { offset, log_start, log_end } => {
            // Below the start: retention. Above the end: a tail that was lost; what comes now comes after it.
            let first = if offset < log_start { *log_start } else { *log_end };
            ReadFailure::Gone { first: number(first) }
        }
        ReadError::Damaged { next_good, .. } => {
            ReadFailure::Damaged { detail: error.to_string(), next: next_good.map(number) }
        }
        ReadError::Io { .. } | ReadError::Deleted => {
            ReadFailure::Damaged { detail: error.to_string(), next: None }
        }
    }
}

/// An offset is never negative.
pub(crate) fn number(offset: Offset) -> u64 {
    u64::try_from(offset.get()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
