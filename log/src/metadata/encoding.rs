//! Metadata records as bytes: in journal frames, and as a list in the catalog.
//!
//! | byte | content |
//! |---|---|
//! | 0 | kind u8: 1 topic created, 2 settings changed, 3 partitions added, 4 topic deleted, 5 producer ids taken, 6 handles taken, 7 epoch started, 8 directory |
//! | 1 | version of that kind u8: the lowest that can say it; kind 1 up to 2, kinds 2 and 3 up to 1, else 0 |
//! | 2 | the fields below, to the end |
//!
//! | kind | fields, big-endian |
//! |---|---|
//! | 1 | id 16 bytes, name (u8 length, bytes), settings, handles (u32 count, u64 each); version 2 also directories (u16 per handle) |
//! | 2 | id, settings |
//! | 3 | id, handles; version 1 also directories (u16 per handle) |
//! | 4 | id |
//! | 5 | i64 next |
//! | 6 | u64 next |
//! | 7 | i32 epoch |
//! | 8 | u16 number, id 16 bytes, u8 state (0 present, 1 absent, 2 gone), u32 changes of it |
//!
//! Partitions without directories are in number 0: all are, as long as there is only one.
//!
//! Settings: u8 flags (bit 0 fsync, 1 retention time, 2 retention bytes, 3 compact, 4 delete though compacting, 5 compaction
//! lag max, 6 compression level), u64 retention ms, u64 retention bytes, u64 segment bytes, u64 segment ms, u32 batch bytes
//! max; from version 1 on also u8 codec, i8 compression level, u64 delete retention ms, u64 compaction lag min ms, u64 compaction
//! lag max ms, u16 dirty ratio in thousandths, u32 index bytes max. What has a flag is 0 without it; version 0 has bits 0 to
//! 3, and defaults for what it lacks.
//! A list is u32 count, then u32 length and bytes of each record.
//!
//! Invariant: nothing is reserved for a count before the bytes for it are there. A kind or version this
//! program does not know was written by a newer one, and is said to be.

use super::{
    Cleanup, Codec, Compression, DirectoryMetadata, DirectoryNumber, DirectoryState, Durability,
    MetadataRecord, PartitionHandle, PartitionMetadata, TopicMetadata, TopicSettings,
};
use crate::{LeaderEpoch, TopicId, TopicName};

/// The newest version of each kind, from kind 1 on.
const VERSIONS: [u8; 8] = [2, 1, 1, 0, 0, 0, 0, 0];

const FLAG_FSYNC: u8 = 1;
const FLAG_RETENTION_MS: u8 = 2;
const FLAG_RETENTION_BYTES: u8 = 4;
const FLAG_COMPACT: u8 = 8;
const FLAG_DELETE_TOO: u8 = 16;
const FLAG_LAG_MAX: u8 = 32;
const FLAG_LEVEL: u8 = 64;
/// By version.
const FLAGS_KNOWN: [u8; 2] = [15, 127];

/// Why bytes are not a metadata record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The bytes end inside a field.
    #[error("metadata record is cut short")]
    Short,
    /// Bytes are left over.
    #[error("metadata record has {0} bytes too many")]
    Trailing(usize),
    /// A newer version wrote it.
    #[error(
        "metadata record of kind {kind}, version {version} is newer than this program (kinds 1 to 8, versions 0 to 2)"
    )]
    FromTheFuture {
        /// Its kind.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// A field is out of its bounds.
    #[error("metadata record field {0} is out of bounds")]
    Field(&'static str),
}

impl MetadataRecord {
    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut start = |kind: u8, version: u8| out.extend_from_slice(&[kind, version]);
        match self {
            Self::TopicCreated(topic) => {
                start(1, 1 + u8::from(are_spread(&topic.partitions)));
                out.extend_from_slice(topic.id.as_bytes());
                let name = topic.name.as_str().as_bytes();
                // A topic name has at most 249 bytes.
                out.push(name.len() as u8);
                out.extend_from_slice(name);
                put_settings(out, &topic.settings);
                put_partitions(out, &topic.partitions);
            }
            Self::SettingsChanged { id, settings } => {
                start(2, 1);
                out.extend_from_slice(id.as_bytes());
                put_settings(out, settings);
            }
            Self::PartitionsAdded { id, partitions } => {
                start(3, u8::from(are_spread(partitions)));
                out.extend_from_slice(id.as_bytes());
                put_partitions(out, partitions);
            }
            Self::TopicDeleted { id } => {
                start(4, 0);
                out.extend_from_slice(id.as_bytes());
            }
            Self::ProducerIdsTaken { next } => {
                start(5, 0);
                out.extend_from_slice(&next.to_be_bytes());
            }
            Self::HandlesTaken { next } => {
                start(6, 0);
                out.extend_from_slice(&next.to_be_bytes());
            }
            Self::EpochStarted { epoch } => {
                start(7, 0);
                out.extend_from_slice(&epoch.get().to_be_bytes());
            }
            Self::DirectorySet(directory) => {
                start(8, 0);
                out.extend_from_slice(&directory.number.get().to_be_bytes());
                out.extend_from_slice(&directory.id);
                out.push(match directory.state {
                    DirectoryState::Present => 0,
                    DirectoryState::Absent => 1,
                    DirectoryState::Gone => 2,
                });
                out.extend_from_slice(&directory.changes.to_be_bytes());
            }
        }
    }

    /// Reads a record that takes up all of `bytes`.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MetadataError> {
        let mut reader = Reader { rest: bytes };
        let [kind, version] = reader.array()?;
        let newest = usize::from(kind).checked_sub(1).and_then(|at| VERSIONS.get(at));
        if newest.is_none_or(|newest| version > *newest) {
            return Err(MetadataError::FromTheFuture { kind, version });
        }
        let record = match kind {
            1 => {
                let id = reader.id()?;
                let name = reader.name()?;
                let settings = reader.settings(version.min(1))?;
                let partitions = reader.partitions(version >= 2)?;
                Self::TopicCreated(TopicMetadata { name, id, settings, partitions })
            }
            2 => Self::SettingsChanged { id: reader.id()?, settings: reader.settings(version)? },
            3 => {
                let id = reader.id()?;
                Self::PartitionsAdded { id, partitions: reader.partitions(version >= 1)? }
            }
            4 => Self::TopicDeleted { id: reader.id()? },
            5 => {
                let next = i64::from_be_bytes(reader.array()?);
                if next < 0 {
                    return Err(MetadataError::Field("next producer id"));
                }
                Self::ProducerIdsTaken { next }
            }
            6 => Self::HandlesTaken { next: reader.u64()? },
            7 => {
                let epoch = LeaderEpoch::new(i32::from_be_bytes(reader.array()?));
                Self::EpochStarted { epoch: epoch.ok_or(MetadataError::Field("epoch"))? }
            }
            _ => {
                let number = DirectoryNumber::new(u16::from_be_bytes(reader.array()?));
                let id = reader.array()?;
                let state = match reader.array()? {
                    [0] => DirectoryState::Present,
                    [1] => DirectoryState::Absent,
                    [2] => DirectoryState::Gone,
                    _ => return Err(MetadataError::Field("directory state")),
                };
                let changes = reader.u32()?;
                Self::DirectorySet(DirectoryMetadata { number, id, state, changes })
            }
        };
        match reader.rest.len() {
            0 => Ok(record),
            trailing => Err(MetadataError::Trailing(trailing)),
        }
    }
}

/// Whether it takes more than handles to say where they are.
fn are_spread(partitions: &[PartitionMetadata]) -> bool {
    partitions.iter().any(|p| p.directory != DirectoryNumber::FIRST)
}

/// Appends a list of records.
pub fn encode_all(records: &[MetadataRecord], out: &mut Vec<u8>) {
    out.extend_from_slice(&(records.len() as u32).to_be_bytes());
    for record in records {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        record.encode(out);
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Reads a list of records that takes up all of `bytes`.
///
/// # Errors
/// [`MetadataError`] of the first record that does not read.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<MetadataRecord>, MetadataError> {
    let mut reader = Reader { rest: bytes };
    let count = reader.u32()? as usize;
    // Length, kind and version are there for each, so a count beyond that is wrong.
    if count > reader.rest.len() / 6 {
        return Err(MetadataError::Short);
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let length = reader.u32()? as usize;
        records.push(MetadataRecord::decode(reader.take(length)?)?);
    }
    match reader.rest.len() {
        0 => Ok(records),
        trailing => Err(MetadataError::Trailing(trailing)),
    }
}

fn put_settings(out: &mut Vec<u8>, settings: &TopicSettings) {
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    out.push(
        flag(settings.durability == Durability::Fsync, FLAG_FSYNC)
            | flag(settings.retention_ms.is_some(), FLAG_RETENTION_MS)
            | flag(settings.retention_bytes.is_some(), FLAG_RETENTION_BYTES)
            | flag(settings.cleanup.compacts(), FLAG_COMPACT)
            | flag(settings.cleanup == Cleanup::CompactAndDelete, FLAG_DELETE_TOO)
            | flag(settings.compaction_lag_ms_max.is_some(), FLAG_LAG_MAX)
            | flag(settings.compression.level.is_some(), FLAG_LEVEL),
    );
    out.extend_from_slice(&settings.retention_ms.unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&settings.retention_bytes.unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&settings.segment_bytes.to_be_bytes());
    out.extend_from_slice(&settings.segment_ms.to_be_bytes());
    out.extend_from_slice(&settings.batch_bytes_max.to_be_bytes());
    out.push(settings.compression.codec as u8);
    out.extend_from_slice(&settings.compression.level.unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&settings.delete_retention_ms.to_be_bytes());
    out.extend_from_slice(&settings.compaction_lag_ms_min.to_be_bytes());
    out.extend_from_slice(&settings.compaction_lag_ms_max.unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&settings.dirty_ratio_permille.to_be_bytes());
    out.extend_from_slice(&settings.index_bytes_max.to_be_bytes());
}

fn put_partitions(out: &mut Vec<u8>, partitions: &[PartitionMetadata]) {
    out.extend_from_slice(&(partitions.len() as u32).to_be_bytes());
    for partition in partitions {
        out.extend_from_slice(&partition.handle.get().to_be_bytes());
    }
    if are_spread(partitions) {
        for partition in partitions {
            out.extend_from_slice(&partition.directory.get().to_be_bytes());
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], MetadataError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(MetadataError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MetadataError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(MetadataError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, MetadataError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, MetadataError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn id(&mut self) -> Result<TopicId, MetadataError> {
        Ok(TopicId::from_bytes(self.array()?))
    }

    fn name(&mut self) -> Result<TopicName, MetadataError> {
        let [length] = self.array()?;
        let name = std::str::from_utf8(self.take(usize::from(length))?);
        name.ok().and_then(TopicName::new).ok_or(MetadataError::Field("name"))
    }

    fn settings(&mut self, version: u8) -> Result<TopicSettings, MetadataError> {
        let [flags] = self.array()?;
        if FLAGS_KNOWN.get(usize::from(version)).is_none_or(|known| flags & !known != 0) {
            return Err(MetadataError::Field("settings flags"));
        }
        let optional = |flag: u8, value: u64, name| match (flags & flag != 0, value) {
            (true, value) => Ok(Some(value)),
            (false, 0) => Ok(None),
            (false, _) => Err(MetadataError::Field(name)),
        };
        let durability =
            if flags & FLAG_FSYNC != 0 { Durability::Fsync } else { Durability::Memory };
        let cleanup = match (flags & FLAG_COMPACT != 0, flags & FLAG_DELETE_TOO != 0) {
            (false, false) => Cleanup::Delete,
            (true, false) => Cleanup::Compact,
            (true, true) => Cleanup::CompactAndDelete,
            (false, true) => return Err(MetadataError::Field("settings flags")),
        };
        let settings = TopicSettings {
            durability,
            retention_ms: optional(FLAG_RETENTION_MS, self.u64()?, "retention ms")?,
            retention_bytes: optional(FLAG_RETENTION_BYTES, self.u64()?, "retention bytes")?,
            segment_bytes: self.u64()?,
            segment_ms: self.u64()?,
            batch_bytes_max: self.u32()?,
            cleanup,
            ..TopicSettings::default()
        };
        if version == 0 {
            return Ok(settings);
        }
        let [codec, level] = self.array()?;
        let codec = Codec::from_number(codec).ok_or(MetadataError::Field("codec"))?;
        let level = match (flags & FLAG_LEVEL != 0, i8::from_be_bytes([level])) {
            (true, level) => Some(level),
            (false, 0) => None,
            (false, _) => return Err(MetadataError::Field("compression level")),
        };
        Ok(TopicSettings {
            compression: Compression { codec, level },
            delete_retention_ms: self.u64()?,
            compaction_lag_ms_min: self.u64()?,
            compaction_lag_ms_max: optional(FLAG_LAG_MAX, self.u64()?, "compaction lag max ms")?,
            dirty_ratio_permille: u16::from_be_bytes(self.array()?),
            index_bytes_max: self.u32()?,
            ..settings
        })
    }

    fn partitions(&mut self, spread: bool) -> Result<Vec<PartitionMetadata>, MetadataError> {
        let count = self.u32()? as usize;
        let bytes = self.take(count.checked_mul(8).ok_or(MetadataError::Short)?)?;
        let (handles, _) = bytes.as_chunks();
        let at = |raw: &[u8; 8], directory| PartitionMetadata {
            handle: PartitionHandle::new(u64::from_be_bytes(*raw)),
            directory,
        };
        if !spread {
            return Ok(handles.iter().map(|raw| at(raw, DirectoryNumber::FIRST)).collect());
        }
        // No overflow: there are eight times as many bytes before.
        let (directories, _) = self.take(count * 2)?.as_chunks();
        let numbers = directories.iter().map(|raw| DirectoryNumber::new(u16::from_be_bytes(*raw)));
        Ok(handles.iter().zip(numbers).map(|(raw, directory)| at(raw, directory)).collect())
    }
}
