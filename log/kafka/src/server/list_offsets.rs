//! ListOffsets (key 2), versions 1-8.
//!
//! v1 answers one offset with its timestamp (KIP-79), v2 takes the isolation level (KIP-98), v4 the
//! leader epoch (KIP-320), v6 tagged fields, v7 the largest timestamp, -3 (KIP-734), v8 the
//! earliest local offset, -4 (KIP-405).
//! Invariant: no offset at or above the end that this client may read is ever answered as a record's.
//! Neighbours: `headwater_log::Partition` has the indexes; searches go to the pool for blocking work.

use super::{Door, lookup};
use crate::message;
use crate::wire::messages::{
    ListOffsetsRequest, ListOffsetsResponse, list_offsets_request, list_offsets_response,
};
use crate::wire::{ErrorCode, Versions};
use headwater_log::{LeaderEpoch, Offset, Partition};
use std::sync::Arc;

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(1, 8);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;

/// What was found: nothing is -1 everywhere.
#[derive(Debug, Clone, Copy)]
struct Found {
    timestamp_ms: i64,
    offset: i64,
    epoch: Option<LeaderEpoch>,
}

impl Found {
    const NOTHING: Self = Self { timestamp_ms: -1, offset: -1, epoch: None };

    fn at(offset: Offset, epoch: Option<LeaderEpoch>) -> Self {
        Self { timestamp_ms: -1, offset: offset.get(), epoch }
    }
}

/// Looks every partition up.
pub(super) async fn answer(
    door: &Door,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let committed = request.isolation_level == 1;
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = lookup::topic(door, &asked.name);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for wanted in &asked.partitions {
            let found = match lookup::partition(topic.as_ref(), wanted.partition_index) {
                Ok(log) => find(door, log, wanted, version, committed).await,
                Err(code) => Err(code),
            };
            let (code, found) = match found {
                Ok(found) => (ErrorCode::None, found),
                Err(code) => (code, Found::NOTHING),
            };
            let epoch = found.epoch.filter(|_| version >= 4);
            partitions.push(message!(list_offsets_response::ListOffsetsPartitionResponse {
                partition_index: wanted.partition_index,
                error_code: door.code(code),
                timestamp: found.timestamp_ms,
                offset: found.offset,
                leader_epoch: epoch.map_or(-1, LeaderEpoch::get),
            }));
        }
        topics.push(message!(list_offsets_response::ListOffsetsTopicResponse {
            name: asked.name,
            partitions: partitions,
        }));
    }
    message!(ListOffsetsResponse { topics: topics })
}

async fn find(
    door: &Door,
    log: &Arc<Partition>,
    wanted: &list_offsets_request::ListOffsetsPartition,
    version: i16,
    committed: bool,
) -> Result<Found, ErrorCode> {
    lookup::check_present(log)?;
    let positions = log.positions();
    lookup::check_epoch(wanted.current_leader_epoch, positions.epoch)?;
    let end = if committed { positions.last_stable } else { positions.high_watermark };
    let earliest = || Found::at(positions.log_start, log.epoch_of(positions.log_start));
    let searched = match wanted.timestamp {
        LATEST => return Ok(Found::at(end, Some(positions.epoch))),
        EARLIEST => return Ok(earliest()),
        // Nothing is stored elsewhere: the earliest local offset is the earliest one.
        EARLIEST_LOCAL if version >= 8 => return Ok(earliest()),
        MAX_TIMESTAMP if version >= 7 => {
            let log = log.clone();
            super::cold(door, move || log.offset_of_max_timestamp()).await
        }
        timestamp_ms @ 0.. => {
            let log = log.clone();
            super::cold(door, move || log.offset_for_timestamp(timestamp_ms)).await
        }
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    let found = searched.map_err(|error| {
        tracing::debug!(topic = %log.topic(), partition = %log.id(), %error, "lookup failed");
        lookup::read_code(&error)
    })?;
    Ok(found.filter(|found| found.offset < end).map_or(Found::NOTHING, |found| Found {
        timestamp_ms: found.timestamp_ms,
        offset: found.offset.get(),
        epoch: Some(found.epoch),
    }))
}
