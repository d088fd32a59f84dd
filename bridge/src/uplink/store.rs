//! The checkpoints of all uplinks, as records of the internal topic `__headwater_uplinks`.
//!
//! Invariant: a checkpoint counts only when its record is synced; the newest record of a key is the one that
//! holds. A key's partition is Kafka's hash of it over 16, for ever: the newest of two partitions is not defined.
//! Removing a key writes a tombstone.
//!
//! The topic is kept small here: after [`SNAPSHOT_BYTES`] of appends every live key is written again, and what lies
//! before that is deleted once it is synced.

use super::checkpoint::{Checkpoint, CheckpointError, Key};
use crate::partitioner;
use crate::topics::INTERNAL_PARTITIONS;
use headwater_log::batch;
use headwater_log::metadata::{Cleanup, Durability, Refusal, TopicSettings};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{
    AckPoint, AppendError, Log, Offset, Partition, Position, ReadError, ReadLimit, Settled, Topic,
    TopicName,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The internal topic.
const TOPIC: &str = "__headwater_uplinks";
/// Bytes appended after which the live keys are written again.
const SNAPSHOT_BYTES: u64 = 4 << 20;
const READ_BYTES: usize = 1 << 20;
const SEGMENT_BYTES: u64 = 4 << 20;
const BATCH_BYTES_MAX: u32 = 1 << 20;
const DAY_MS: u64 = 24 * 3_600_000;
/// Records of one append while the live keys are written again.
const SNAPSHOT_RECORDS: usize = 256;

/// Why the checkpoints cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The internal topic could not be made.
    #[error("{TOPIC}: {0}")]
    Refused(#[from] Refusal),
    /// It could not be read.
    #[error("{TOPIC}, partition {partition}: {source}")]
    Unreadable {
        /// Which partition.
        partition: i32,
        /// Why.
        source: ReadError,
    },
    /// A record in it is not a checkpoint that this version understands.
    #[error("{TOPIC}, partition {partition}, offset {offset}: {reason}")]
    Malformed {
        /// Which partition.
        partition: i32,
        /// Which record.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// That the directory came from another machine could not be noted in them.
    #[error("{TOPIC}: that the data directory came from another machine cannot be noted: {0}")]
    NotNoted(String),
}

/// Why the checkpoints cannot be read now, though they are not lost: a data directory that holds some is not in use.
pub(crate) fn missing(log: &Log) -> Option<String> {
    log.topic(TOPIC)?.partitions().iter().find_map(|partition| partition.missing())
}

/// A record on its way to the disk.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    partition: Arc<Partition>,
    position: Position,
}

impl Written {
    /// Whether it is synced.
    pub(crate) fn settled(&self) -> Settled {
        self.partition.settled(AckPoint::Synced, self.position)
    }
}

/// The store. Shared by the uplinks behind a lock; no call waits for the disk.
#[derive(Debug)]
pub(crate) struct Store {
    topic: Topic,
    log: Log,
    live: BTreeMap<Vec<u8>, Vec<u8>>,
    appended_bytes: u64,
    /// Per partition: where the rewritten keys begin, and the last of them.
    snapshot: Vec<(Offset, Written)>,
}

impl Store {
    /// Whether there may be checkpoints.
    pub(crate) fn exists(log: &Log) -> bool {
        log.topic(TOPIC).is_some()
    }

    /// Makes the topic if it is missing and reads what it holds. Blocks.
    pub(crate) fn open(log: &Log) -> Result<Self, StoreError> {
        let topic = match log.topic(TOPIC) {
            Some(topic) => topic,
            None => {
                let illegal = || Refusal::IllegalName(TOPIC.to_owned());
                let name = TopicName::new(TOPIC).ok_or_else(illegal)?;
                log.create_topic(&name, INTERNAL_PARTITIONS, settings())?.0
            }
        };
        let mut live = BTreeMap::new();
        for partition in topic.partitions() {
            scan(partition, &mut live)?;
        }
        let log = log.clone();
        Ok(Self { topic, log, live, appended_bytes: 0, snapshot: Vec::new() })
    }

    /// The checkpoint of a partition of an uplink.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Checkpoint>, CheckpointError> {
        self.live.get(&key.encode()).map(|value| Checkpoint::decode(value)).transpose()
    }

    /// Appends a checkpoint. It holds once [`Written::settled`] says so.
    pub(crate) fn put(
        &mut self,
        key: &Key,
        checkpoint: &Checkpoint,
    ) -> Result<Written, AppendError> {
        let (key, value) = (key.encode(), checkpoint.encode());
        let written = self.append(&key, Some(&value))?;
        self.live.insert(key, value);
        Ok(written)
    }

    /// Forgets a partition whose topic is gone.
    pub(crate) fn remove(&mut self, key: &Key) -> Result<(), AppendError> {
        let key = key.encode();
        if self.live.contains_key(&key) {
            self.append(&key, None)?;
            self.live.remove(&key);
        }
        Ok(())
    }

    /// Marks every checkpoint, of configured uplinks or not, as one that came from another machine, and waits until that
    /// is synced. One that has the mark keeps it: nothing was sent since. For a log that is not started yet. Blocks.
    pub(crate) fn mark_moved(&mut self) -> Result<(), StoreError> {
        let failed = |why: String| StoreError::NotNoted(why);
        let mut keys = Vec::with_capacity(self.live.len());
        for key in self.live.keys() {
            keys.push(Key::decode(key).map_err(|e| failed(e.to_string()))?);
        }
        let topics: BTreeMap<_, _> = self.log.topics().into_iter().map(|t| (t.id(), t)).collect();
        for keys in keys.chunks(SNAPSHOT_RECORDS) {
            let mut written = Vec::with_capacity(keys.len());
            for key in keys {
                // A deleted topic's checkpoint is never asked for again.
                let source = topics.get(&key.topic).and_then(|t| t.partition(key.partition));
                let checkpoint = self.get(key).map_err(|e| failed(e.to_string()))?;
                let (Some(source), Some(mut checkpoint)) = (source, checkpoint) else { continue };
                if checkpoint.moved.is_some() {
                    continue;
                }
                let positions = source.positions();
                checkpoint.moved = Some(positions.synced.min(positions.last_stable));
                written.push(self.put(key, &checkpoint).map_err(|e| failed(e.to_string()))?);
            }
            while self.log.step_commit() {}
            if written.iter().any(|w| w.settled() != Settled::Passed) {
                let why = self.log.stats().offline;
                return Err(failed(why.unwrap_or_else(|| "it was not synced".to_owned())));
            }
        }
        Ok(())
    }

    fn partition_of(&self, key: &[u8]) -> Option<Arc<Partition>> {
        let partitions = self.topic.partitions();
        let index = partitioner::partition(key, u32::try_from(partitions.len()).ok()?);
        partitions.get(index as usize).cloned()
    }

    fn append(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<Written, AppendError> {
        let partition = self.partition_of(key).ok_or(AppendError::Deleted)?;
        let timestamp_ms = self.log.clock().wall_ms();
        let record = RecordParts { timestamp_ms, key: Some(key), value, headers: Headers::EMPTY };
        let appended = partition.append(&[record])?;
        self.appended_bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        Ok(Written { partition, position: appended.last })
    }

    /// Keeps the topic small. Call about once a second.
    pub(crate) fn tick(&mut self) {
        if !self.snapshot.is_empty() {
            self.end_snapshot();
        } else if self.appended_bytes > SNAPSHOT_BYTES {
            self.appended_bytes = 0;
            // What was not written again stays where it is, until the next time.
            let _ = self.begin_snapshot();
        }
    }

    fn begin_snapshot(&mut self) -> Result<(), AppendError> {
        let timestamp_ms = self.log.clock().wall_ms();
        let mut by_partition: BTreeMap<usize, Vec<RecordParts<'_>>> = BTreeMap::new();
        for (key, value) in &self.live {
            let index = partitioner::partition(key, INTERNAL_PARTITIONS) as usize;
            by_partition.entry(index).or_default().push(RecordParts {
                timestamp_ms,
                key: Some(key),
                value: Some(value),
                headers: Headers::EMPTY,
            });
        }
        let mut snapshot = Vec::new();
        for (index, partition) in self.topic.partitions().iter().enumerate() {
            let start = partition.positions().log_end;
            let mut last = None;
            let records = by_partition.remove(&index).unwrap_or_default();
            for records in records.chunks(SNAPSHOT_RECORDS) {
                last = Some(partition.append(records)?.last);
            }
            if let Some(position) = last {
                snapshot.push((start, Written { partition: partition.clone(), position }));
            }
        }
        self.snapshot = snapshot;
        Ok(())
    }

    fn end_snapshot(&mut self) {
        if self.snapshot.iter().any(|(_, last)| last.settled() == Settled::Waiting) {
            return;
        }
        for (start, last) in self.snapshot.drain(..) {
            if last.settled() == Settled::Passed {
                last.partition.delete_before(start);
            }
        }
    }
}

fn settings() -> TopicSettings {
    TopicSettings {
        durability: Durability::Fsync,
        retention_ms: None,
        retention_bytes: None,
        segment_bytes: SEGMENT_BYTES,
        segment_ms: DAY_MS,
        batch_bytes_max: BATCH_BYTES_MAX,
        cleanup: Cleanup::Compact,
        ..TopicSettings::default()
    }
}

fn scan(
    partition: &Arc<Partition>,
    live: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<(), StoreError> {
    let number = partition.id().get();
    let malformed =
        |offset, reason: String| StoreError::Malformed { partition: number, offset, reason };
    if let Some(error) = partition.missing() {
        // Not an empty one: what is in it would be sent twice.
        let source = ReadError::Io { file: format!("{TOPIC}-{number}"), error };
        return Err(StoreError::Unreadable { partition: number, source });
    }
    let positions = partition.positions();
    let end = positions.synced.min(positions.last_stable);
    let mut from = positions.log_start;
    while from < end {
        let read = partition
            .read(from, READ_BYTES, ReadLimit::SyncedAndStable)
            .map_err(|source| StoreError::Unreadable { partition: number, source })?;
        for bytes in &read.batches {
            let records =
                batch::records(bytes).map_err(|e| malformed(from.get(), e.to_string()))?;
            for record in records {
                let record = record.map_err(|e| malformed(from.get(), e.to_string()))?;
                let Some(key) = record.key else { continue };
                Key::decode(&key).map_err(|e| malformed(record.offset, e.to_string()))?;
                match record.value {
                    Some(value) => {
                        Checkpoint::decode(&value)
                            .map_err(|e| malformed(record.offset, e.to_string()))?;
                        live.insert(key.to_vec(), value.to_vec());
                    }
                    None => {
                        live.remove(&key[..]);
                    }
                }
            }
        }
        if read.next <= from {
            break;
        }
        from = read.next;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
