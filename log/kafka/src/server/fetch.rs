//! Fetch (key 1), versions 4-12.
//!
//! v4 brings the isolation level (KIP-98), v5 the log start offset (KIP-107), v7 sessions (KIP-227),
//! v9 the leader epoch (KIP-320), v10 zstd (KIP-110), v11 the rack (KIP-392), v12 tagged fields and
//! the last fetched epoch (KIP-595).
//!
//! Sessions are declined: the answer carries session id 0, with which clients send full requests.
//! Readers of committed data get what lies below the last stable offset, with the aborted transactions that
//! overlap with it: leaving their records out is the client's part (KIP-98).
//! Step 11 for Kafka clients. Invariant: records are the log's own bytes, written from where they
//! are: whole batches, at or below the high watermark (or the last stable offset), never copied.
//! Neighbours: `headwater_log::Partition::read` below, `fetch_response` writes the answer.

#[path = "fetch_response.rs"]
mod response;

use super::{Door, lookup};
use crate::wire::messages::{FetchRequest, fetch_request};
use crate::wire::{ErrorCode, Limits, RequestHead, Versions, WireError, decode_request};
use bytes::Bytes;
use headwater_log::{
    AbortedTransaction, Offset, Partition, Positions, ReadError, ReadLimit, ReadOutcome,
};
use response::{PartitionAnswer, TopicAnswer};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(4, 12);

/// A long poll lasts no longer, whatever the client says.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Kafka's read_committed.
const READ_COMMITTED: i8 = 1;

/// Reads, and waits until there is enough or the time is over; the response's frame, in pieces.
///
/// # Errors
/// [`WireError`]: close the connection.
pub(super) async fn answer(
    door: &Door,
    head: &RequestHead,
    body: Bytes,
    limits: Limits,
) -> Result<Vec<Bytes>, WireError> {
    let request: FetchRequest = decode_request(body, head.api_version, limits)?;
    if request.session_id != 0 {
        // We never gave one out: the client starts over with a full request.
        let code = door.code(ErrorCode::FetchSessionIdNotFound);
        return response::encode(head, code, &[]);
    }
    let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(wait_ms).min(WAIT_MAX);
    let enough = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut moved = door.log().moved();
    loop {
        // Marked as seen before reading: what moves while we read wakes us again.
        moved.borrow_and_update();
        let read = read_all(door, &request).await;
        let late = Instant::now() >= deadline;
        if read.bytes >= enough || read.failed || late || request.topics.is_empty() {
            return response::encode(head, 0, &read.topics);
        }
        tokio::select! {
            changed = moved.changed() => if changed.is_err() {
                return response::encode(head, 0, &read.topics);
            },
            () = sleep_until(deadline) => {}
        }
    }
}

/// One pass over the partitions of a request.
struct ReadAll<'a> {
    topics: Vec<TopicAnswer<'a>>,
    bytes: usize,
    failed: bool,
}

async fn read_all<'a>(door: &Door, request: &'a FetchRequest) -> ReadAll<'a> {
    let asked = usize::try_from(request.max_bytes).unwrap_or(0);
    let bytes_max = asked.min(door.settings().fetch_bytes_max);
    let limit = if request.isolation_level == READ_COMMITTED {
        ReadLimit::LastStable
    } else {
        ReadLimit::HighWatermark
    };
    let mut all = ReadAll { topics: Vec::new(), bytes: 0, failed: false };
    for asked in &request.topics {
        let topic = lookup::topic(door, &asked.topic);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for wanted in &asked.partitions {
            let log = lookup::partition(topic.as_ref(), wanted.partition);
            let budget =
                Budget { left: bytes_max.saturating_sub(all.bytes), first: all.bytes == 0 };
            let answer = match log {
                Ok(log) => read_one(door, log, wanted, limit, budget).await,
                Err(code) => Err(code),
            };
            let (answer, aborted) = answer.unwrap_or_else(|code| {
                all.failed = true;
                (PartitionAnswer::error(wanted.partition, door.code(code)), Vec::new())
            });
            all.bytes += answer.batches.iter().map(Bytes::len).sum::<usize>();
            partitions.push(match limit {
                ReadLimit::LastStable => answer.read_committed(aborted),
                _ => answer,
            });
        }
        all.topics.push(TopicAnswer { name: &asked.topic, partitions });
    }
    all
}

/// What may still be read for a response.
#[derive(Clone, Copy)]
struct Budget {
    left: usize,
    /// Nothing was found yet: one batch is given, however large, or its consumer would never get on.
    first: bool,
}

async fn read_one(
    door: &Door,
    log: &Arc<Partition>,
    wanted: &fetch_request::FetchPartition,
    limit: ReadLimit,
    budget: Budget,
) -> Result<(PartitionAnswer, Vec<AbortedTransaction>), ErrorCode> {
    lookup::check_present(log)?;
    let positions = log.positions();
    lookup::check_epoch(wanted.current_leader_epoch, positions.epoch)?;
    let from = Offset::new(wanted.fetch_offset).ok_or(ErrorCode::OffsetOutOfRange)?;
    if from < positions.log_start || from > positions.log_end {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let end = if limit == ReadLimit::LastStable {
        positions.last_stable
    } else {
        positions.high_watermark
    };
    let wanted_bytes = usize::try_from(wanted.partition_max_bytes).unwrap_or(0);
    let bytes_max = wanted_bytes.min(budget.left);
    if from >= end || (bytes_max == 0 && !budget.first) {
        return Ok((PartitionAnswer::empty(wanted.partition, &positions), Vec::new()));
    }
    let read = read(door, log, from, bytes_max, limit).await.map_err(|error| {
        tracing::debug!(topic = %log.topic(), partition = %log.id(), %error, "fetch failed");
        lookup::read_code(&error)
    })?;
    // The log gives at least one batch; only the first partition with data may exceed the limit so.
    let fits = budget.first || read.batches.first().is_none_or(|batch| batch.len() <= bytes_max);
    let batches = if fits { read.batches } else { Vec::new() };
    Ok((PartitionAnswer::read(wanted.partition, &read.positions, batches), read.aborted))
}

/// Reads here when memory has it, else on the pool for blocking work, a bounded number at a time.
async fn read(
    door: &Door,
    log: &Arc<Partition>,
    from: Offset,
    bytes_max: usize,
    limit: ReadLimit,
) -> Result<ReadOutcome, ReadError> {
    if log.is_in_memory(from) {
        return log.read(from, bytes_max, limit);
    }
    let log = log.clone();
    super::cold(door, move || log.read(from, bytes_max, limit)).await
}

/// The positions of an answer.
fn pointers(positions: &Positions) -> (i64, i64, i64) {
    (positions.high_watermark.get(), positions.last_stable.get(), positions.log_start.get())
}
