//! Kafka's RecordBatch, version 2 (magic 2): the header, its checks, and the records inside.
//!
//! | byte | field | in the CRC |
//! |---|---|---|
//! | 0 | base offset i64 | no |
//! | 8 | batch length i32: bytes after this field | no |
//! | 12 | partition leader epoch i32 | no |
//! | 16 | magic i8 = 2 | no |
//! | 17 | CRC-32C u32 | no |
//! | 21 | attributes i16 | yes |
//! | 23 | last offset delta i32 | yes |
//! | 27 | base timestamp i64 | yes |
//! | 35 | max timestamp i64 | yes |
//! | 43 | producer id i64 | yes |
//! | 51 | producer epoch i16 | yes |
//! | 53 | base sequence i32 | yes |
//! | 57 | record count i32 | yes |
//! | 61 | records | yes |
//!
//! All big-endian (KIP-98). Invariant: no bytes, whatever they are, make this module panic or reserve
//! more than they hold. Neighbours: partitions append and read these, segments store them verbatim.

mod builder;
pub mod compression;
mod dense;
pub mod marker;
mod records;
#[cfg(test)]
mod tests;
pub(crate) mod varint;

pub use builder::{BatchBuilder, Seal};
pub use dense::dense;
pub use records::{RecordView, Records, records};

use crate::{LeaderEpoch, Offset};
use bytes::Bytes;
use compression::{Codec, Compression};

/// Bytes of a batch's header, up to the first record.
pub const HEADER_BYTES: usize = 61;

/// Plain bytes that the records of one batch may have: what a reader holds in memory for one compressed batch, at most.
/// Sixteen producers' batches at Kafka's default size, compressed to a thirtieth, are half of it. A client's batch beyond it
/// is refused.
pub const PLAIN_BYTES_MAX: usize = 32 << 20;

/// Bytes before those that `batch_length` counts.
const LENGTH_PREFIX_BYTES: usize = 12;

/// A record's length, attributes, two deltas, two lengths and header count.
const RECORD_BYTES_MIN: usize = 7;

const CRC_AT: usize = 17;
pub(crate) const CRC_FROM: usize = 21;

pub(crate) const ATTRIBUTE_CODEC: i16 = 0x07;
const ATTRIBUTE_LOG_APPEND_TIME: i16 = 0x08;
const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
const ATTRIBUTE_CONTROL: i16 = 0x20;
pub(crate) const ATTRIBUTE_DELETE_HORIZON: i16 = 0x40;

/// The producer id of batches made by Headwater itself from MQTT messages and connectors.
pub const PRODUCER_ID_MADE_HERE: i64 = -2;

/// The fixed header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes after this field: the whole batch is 12 bytes more.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch (outside the CRC).
    pub partition_leader_epoch: i32,
    /// CRC-32C of everything from `attributes` to the end.
    pub crc: u32,
    /// Compression (bits 0-2), LogAppendTime (3), transactional (4), control (5), delete horizon (6).
    pub attributes: i16,
    /// Offset of the last record less `base_offset`.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, milliseconds since the Unix epoch.
    pub base_timestamp: i64,
    /// Largest timestamp in the batch.
    pub max_timestamp: i64,
    /// -1 none, -2 made here, else a producer's.
    pub producer_id: i64,
    /// Epoch of the producer id.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 without a producer.
    pub base_sequence: i32,
    /// Records in the batch.
    pub record_count: i32,
}

/// What is wrong with the bytes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header or than `batch_length` says.
    #[error("batch is cut short")]
    Short,
    /// `magic` is not 2.
    #[error("record batch magic {0} is not supported, only 2 is")]
    Magic(i8),
    /// A field contradicts another or its bounds.
    #[error("batch header field {0} is out of bounds")]
    Field(&'static str),
    /// The CRC does not match.
    #[error("batch CRC {found:08x} is not the {stored:08x} stored in it")]
    Crc {
        /// In the header.
        stored: u32,
        /// Computed from the bytes.
        found: u32,
    },
    /// A record does not parse.
    #[error("record {0} of the batch is malformed")]
    Record(u32),
    /// It was damaged, and a repair has put it aside.
    #[error("its records were lost to damage and are in quarantine")]
    Quarantined,
    /// A client's batch that Kafka's broker would refuse.
    #[error("batch is refused: {0}")]
    Refused(&'static str),
    /// The records' bytes are not one whole stream of the codec.
    #[error("the records are not a whole {0} stream")]
    Stream(Codec),
    /// The records are larger, uncompressed, than a reader holds in memory.
    #[error("the records have more than {limit_bytes} bytes uncompressed")]
    PlainTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
}

impl BatchHeader {
    /// Reads a header from the front of `bytes` and checks its fields against each other, not the CRC.
    /// The whole batch must be there; bytes after it are not looked at.
    ///
    /// # Errors
    /// [`BatchError`] for anything that is not a whole, legal version 2 header.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let header = Self::parse_alone(bytes)?;
        if bytes.len() < header.size_bytes() {
            return Err(BatchError::Short);
        }
        Ok(header)
    }

    /// As [`BatchHeader::parse`], but only the [`HEADER_BYTES`] need to be there: for those who read
    /// a header to learn how much more to read.
    ///
    /// # Errors
    /// As [`BatchHeader::parse`].
    pub fn parse_alone(bytes: &[u8]) -> Result<Self, BatchError> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(BatchError::Short)?;
        // Magic first: the layout of everything else depends on it.
        if bytes[16] != 2 {
            return Err(BatchError::Magic(bytes[16].cast_signed()));
        }
        let header = Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            crc: u32::from_be_bytes(field(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(field(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BatchError> {
        let wrong = |field| Err(BatchError::Field(field));
        if self.batch_length < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
            return wrong("batchLength");
        }
        if self.base_offset < 0 {
            return wrong("baseOffset");
        }
        if Codec::from_number(self.codec_number()).is_none() {
            return wrong("attributes");
        }
        // None at all in a batch that compaction emptied and kept for its producer's last sequence.
        let empty = self.record_count == 0 && self.size_bytes() == HEADER_BYTES;
        if self.record_count <= 0 && !empty {
            return wrong("recordCount");
        }
        // Compaction leaves gaps, so the delta may be larger than the count says, never smaller.
        if self.last_offset_delta < (self.record_count - 1).max(0)
            || self.base_offset.checked_add(i64::from(self.last_offset_delta) + 1).is_none()
        {
            return wrong("lastOffsetDelta");
        }
        // An uncompressed batch cannot hold more than that.
        let records_bytes = self.size_bytes() - HEADER_BYTES;
        if self.codec() == Codec::None
            && self.record_count as usize > records_bytes / RECORD_BYTES_MIN
        {
            return wrong("recordCount");
        }
        Ok(())
    }

    /// Checks what Kafka's broker checks in a batch that a client hands in (LogValidator): base
    /// offset 0, no gaps, no control batch, a sequence where there is a producer id. A producer id
    /// below -1 is refused as well, since only Headwater's own batches carry -2.
    ///
    /// # Errors
    /// [`BatchError::Refused`].
    pub fn check_from_client(&self) -> Result<(), BatchError> {
        let refused = |why| Err(BatchError::Refused(why));
        if self.base_offset != 0 {
            return refused("base offset is not 0");
        }
        if self.last_offset_delta != self.record_count - 1 {
            return refused("last offset delta does not match the record count");
        }
        if self.producer_id >= 0 && self.base_sequence < 0 {
            return refused("producer id without a sequence");
        }
        self.check_from_coordinator()
    }

    /// As [`BatchHeader::check_from_client`], for what a group coordinator writes within a producer's transaction: no
    /// sequence is asked for.
    ///
    /// # Errors
    /// [`BatchError::Refused`].
    pub fn check_from_coordinator(&self) -> Result<(), BatchError> {
        let refused = |why| Err(BatchError::Refused(why));
        if self.is_control() {
            return refused("clients may not write control batches");
        }
        if self.producer_id < -1 {
            return refused("producer id is below -1");
        }
        if self.producer_id >= 0 && self.producer_epoch < 0 {
            return refused("producer id without an epoch");
        }
        if self.producer_id < 0 && self.is_transactional() {
            return refused("transactional batch without a producer id");
        }
        if self.delete_horizon_ms().is_some() {
            return refused("only compaction sets a delete horizon");
        }
        Ok(())
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        LENGTH_PREFIX_BYTES + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// Whether compaction took records out of it: its offsets have holes, or it has no record at all.
    #[must_use]
    pub fn has_holes(&self) -> bool {
        i64::from(self.record_count) <= i64::from(self.last_offset_delta)
    }

    /// Offset of the last record (inclusive).
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Sequence of the last record, wrapping from 2^31-1 to 0 as Kafka's does.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        sequence_plus(self.base_sequence, self.last_offset_delta)
    }

    /// Whether this batch was made by Headwater itself: only there is the `hw` header trusted.
    #[must_use]
    pub fn is_made_here(&self) -> bool {
        self.producer_id == PRODUCER_ID_MADE_HERE
    }

    /// How the records are compressed.
    #[must_use]
    pub fn codec(&self) -> Codec {
        // Numbers that mean nothing are refused by `check`.
        Codec::from_number(self.codec_number()).unwrap_or_default()
    }

    fn codec_number(&self) -> u8 {
        (self.attributes & ATTRIBUTE_CODEC) as u8
    }

    /// Whether the timestamps are the broker's: every record has `max_timestamp` then.
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    /// Until when compaction keeps the tombstones of this batch, once it has met them (KIP-534): the base timestamp is that
    /// time then, and timestamp deltas count from it.
    #[must_use]
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & ATTRIBUTE_DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether the batch holds a control record (a transaction's end) and no messages.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }
}

/// The sequence `records` after `sequence`, wrapping from 2^31-1 to 0 (Kafka's `incrementSequence`).
#[must_use]
pub fn sequence_plus(sequence: i32, records: i32) -> i32 {
    sequence.wrapping_add(records) & i32::MAX
}

/// Checks the header and the CRC of the batch at the front of `bytes`.
///
/// # Errors
/// [`BatchError`]; nothing of the batch may be used then.
pub fn verify(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let found = crc_fast::crc32_iscsi(&bytes[CRC_FROM..header.size_bytes()]);
    if found == header.crc {
        Ok(header)
    } else {
        Err(BatchError::Crc { stored: header.crc, found })
    }
}

/// Gives a batch its place in a partition, in place: base offset and leader epoch lie outside the CRC.
///
/// # Panics
/// Never on a batch that [`verify`] accepted.
pub fn place(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
    batch[..8].copy_from_slice(&base_offset.get().to_be_bytes());
    batch[12..16].copy_from_slice(&epoch.get().to_be_bytes());
}

/// Sets the largest timestamp and makes the CRC anew, in place. The slice is exactly one batch that [`verify`] accepted.
pub(crate) fn set_max_timestamp(batch: &mut [u8], max_timestamp: i64) {
    batch[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
    put_crc(batch);
}

/// Replaces what lies outside or inside the CRC for a batch that goes to another cluster, in place.
/// `base_offset` 0, the given producer id, epoch and sequence, the LogAppendTime, transactional and delete horizon bits cleared,
/// CRC made anew. The leader epoch becomes -1, which is what a client sends.
///
/// # Panics
/// Never on a batch that [`verify`] accepted.
pub fn readdress(batch: &mut [u8], producer_id: i64, producer_epoch: i16, base_sequence: i32) {
    let size = BatchHeader::parse(batch).map_or(batch.len(), |header| header.size_bytes());
    let batch = &mut batch[..size];
    batch[..8].copy_from_slice(&0i64.to_be_bytes());
    batch[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    // Sent outside of any transaction of the target: a source's transaction is decided here before it is sent there.
    let dropped = ATTRIBUTE_LOG_APPEND_TIME | ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_DELETE_HORIZON;
    let attributes = i16::from_be_bytes([batch[21], batch[22]]) & !dropped;
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[43..51].copy_from_slice(&producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&producer_epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&base_sequence.to_be_bytes());
    put_crc(batch);
}

/// The same batch with its records compressed; `None` when that would not make it smaller, or the batch is not an
/// uncompressed one. Offsets, counts and timestamps stay; length, attributes and CRC are made anew.
#[must_use]
pub fn compressed(batch: &[u8], compression: Compression) -> Option<Vec<u8>> {
    let header = BatchHeader::parse(batch).ok()?;
    if compression.codec == Codec::None || header.codec() != Codec::None {
        return None;
    }
    let plain = batch.get(HEADER_BYTES..header.size_bytes())?;
    let mut out = batch[..HEADER_BYTES].to_vec();
    compression::compress(compression, plain, &mut out).ok()?;
    if out.len() >= header.size_bytes() {
        return None;
    }
    let length = i32::try_from(out.len() - LENGTH_PREFIX_BYTES).ok()?;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    let attributes = header.attributes | i16::from(compression.codec as u8);
    out[21..23].copy_from_slice(&attributes.to_be_bytes());
    put_crc(&mut out);
    // It stays in memory for readers at the tail: what was room for the worst case is given back.
    out.shrink_to_fit();
    Some(out)
}

/// A batch without records that takes the offsets from `base` to `last` (inclusive), as compaction leaves one. `None` when they are
/// more than a batch can take.
pub(crate) fn empty(base: Offset, last: Offset, epoch: LeaderEpoch) -> Option<Bytes> {
    let delta = i32::try_from(last.get().checked_sub(base.get())?).ok().filter(|d| *d >= 0)?;
    let mut out = [0; HEADER_BYTES];
    out[8..12].copy_from_slice(&((HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32).to_be_bytes());
    out[16] = 2;
    out[23..27].copy_from_slice(&delta.to_be_bytes());
    // No timestamps, no producer, no sequence: -1 each.
    out[27..57].fill(0xff);
    place(&mut out, base, epoch);
    put_crc(&mut out);
    Some(Bytes::copy_from_slice(&out))
}

/// Writes the CRC of the bytes behind it. The slice is exactly one batch.
pub(crate) fn put_crc(batch: &mut [u8]) {
    let crc = crc_fast::crc32_iscsi(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}

/// `N` bytes at a constant place of the header.
fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&header[at..at + N]);
    value
}
