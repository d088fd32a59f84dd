//! Kafka's RecordBatch, version 2 (magic 2): the header, its checks, and the records inside.

use bytes::Bytes;

/// Bytes of a batch's header, up to the first record.
pub const HEADER_BYTES: usize = 61;

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
    /// The records are compressed, which this reader does not undo.
    #[error("batch is compressed with codec {0}")]
    Compressed(u8),
}

impl BatchHeader {
    /// Reads a header from the front of `bytes` and checks its fields against each other, not the CRC.
    ///
    /// # Errors
    /// [`BatchError`] for anything that is not a whole, legal version 2 header.
    pub fn parse(_bytes: &[u8]) -> Result<Self, BatchError> {
        unimplemented!()
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        unimplemented!()
    }

    /// Offset of the last record (inclusive).
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Whether this batch was made by Headwater itself: only there is the `hw` header trusted.
    #[must_use]
    pub fn is_made_here(&self) -> bool {
        self.producer_id == PRODUCER_ID_MADE_HERE
    }
}

/// Checks the header and the CRC of the batch at the front of `bytes`.
///
/// # Errors
/// [`BatchError`]; nothing of the batch may be used then.
pub fn verify(_bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    unimplemented!()
}

/// Replaces what lies outside or inside the CRC for a batch that goes to another cluster, in place.
/// `base_offset` 0, the given producer id, epoch and sequence, the LogAppendTime bit cleared, CRC made anew.
///
/// # Panics
/// Never on a batch that [`verify`] accepted.
pub fn readdress(_batch: &mut [u8], _producer_id: i64, _producer_epoch: i16, _base_sequence: i32) {
    unimplemented!()
}

/// The records of one uncompressed batch.
///
/// # Errors
/// [`BatchError::Compressed`], or what [`BatchHeader::parse`] says.
pub fn records(_batch: &Bytes) -> Result<Records, BatchError> {
    unimplemented!()
}

/// Iterator over a batch's records; slices share the batch's memory.
#[derive(Debug)]
pub struct Records {}

impl Iterator for Records {
    type Item = Result<crate::record::Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}
