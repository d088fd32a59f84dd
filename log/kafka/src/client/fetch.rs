//! Fetch (key 1): whole batches from a partition, without a session (KIP-227) and without a group.
//!
//! Versions 4 to 12: topics by name, and record batches as they lie in the log.

use super::error::check;
use super::{ClientError, Connection};
use crate::message;
use crate::wire::Versions;
use crate::wire::messages::fetch_request::{FetchPartition as WirePartition, FetchTopic};
use crate::wire::messages::{FetchRequest, StrBytes};
use bytes::Bytes;
use std::time::Duration;

/// Where to read.
#[derive(Debug, Clone)]
pub struct FetchPartition {
    /// The topic's name.
    pub topic: StrBytes,
    /// The partition's number.
    pub partition: i32,
    /// First offset wanted; the first batch may begin below it.
    pub offset: i64,
}

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// Whole batches one after another; the last may be cut short by the broker.
    pub records: Bytes,
    /// Next offset that readers may see.
    pub high_watermark: i64,
    /// First offset there is, -1 where the broker does not say.
    pub log_start: i64,
}

impl Connection {
    /// Reads from one partition: waits up to `wait` for a first byte, answers at most about `bytes_max`
    /// (but at least one batch). Uncommitted transactions are read too.
    ///
    /// # Errors
    /// [`ClientError`]; OFFSET_OUT_OF_RANGE comes as [`ClientError::Refused`].
    pub async fn fetch(
        &self,
        from: &FetchPartition,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Fetched, ClientError> {
        let bytes_max = i32::try_from(bytes_max).unwrap_or(i32::MAX);
        let partition = message!(WirePartition {
            partition: from.partition,
            current_leader_epoch: -1,
            fetch_offset: from.offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: bytes_max,
        });
        let topic = message!(FetchTopic { topic: from.topic.clone(), partitions: vec![partition] });
        let request = message!(FetchRequest {
            replica_id: -1,
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: bytes_max,
            session_id: 0,
            session_epoch: -1,
            topics: vec![topic],
        });
        let answer = self.call(Versions::new(4, 12), &request).await?;
        check(answer.error_code, None)?;
        let mut partitions = answer.responses.into_iter().flat_map(|t| t.partitions);
        let Some(found) = partitions.next() else {
            return Err(self.protocol("a Fetch answer without the partition".to_owned()));
        };
        check(found.error_code, None)?;
        Ok(Fetched {
            records: found.records.unwrap_or_default(),
            high_watermark: found.high_watermark,
            log_start: found.log_start_offset,
        })
    }
}
