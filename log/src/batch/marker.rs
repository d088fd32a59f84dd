//! Control batches that end a transaction (KIP-98): what a coordinator writes into every partition of a transaction.
//!
//! One record in a batch with the transactional and the control bit, no sequence. All big-endian:
//!
//! | part | bytes |
//! |---|---|
//! | key | version i16 = 0, type i16 (0 abort, 1 commit; others are not ends of transactions) |
//! | value | version i16 = 0, coordinator epoch i32; a later version may say more behind it |
//!
//! Invariant: what is not exactly the end of a transaction is read as none, never as one.
//! Neighbours: `partition::transactions` appends markers, `partition::producers` folds them into the producers' state.

use super::{
    ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, BatchBuilder, BatchHeader, Seal, put_crc, records,
};
use crate::record::{Headers, RecordParts};
use bytes::{Bytes, BytesMut};

const TYPE_ABORT: i16 = 0;
const TYPE_COMMIT: i16 = 1;

/// How a transaction ended, as its marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransaction {
    /// Committed, or else aborted.
    pub commit: bool,
    /// Epoch of the coordinator that wrote the marker: an older one is a zombie's.
    pub coordinator_epoch: i32,
}

/// A marker to append with [`crate::Partition::append_marker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionMarker {
    /// Whose transaction.
    pub producer_id: i64,
    /// The producer's epoch: the transaction's own, or the next one.
    pub producer_epoch: i16,
    /// How it ends, and who says so.
    pub end: EndTransaction,
    /// The epoch is one higher than the transaction's, always (KIP-890, transaction version 2): a marker that comes late
    /// can then not end the producer's next transaction.
    pub bumps_epoch: bool,
    /// When, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

impl TransactionMarker {
    /// The batch, not placed yet.
    pub(crate) fn encode(&self) -> BytesMut {
        let kind = if self.end.commit { TYPE_COMMIT } else { TYPE_ABORT };
        let mut key = [0; 4];
        key[2..].copy_from_slice(&kind.to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.end.coordinator_epoch.to_be_bytes());
        let mut builder = BatchBuilder::new();
        let record = RecordParts {
            timestamp_ms: self.timestamp_ms,
            key: Some(&key),
            value: Some(&value),
            headers: Headers::EMPTY,
        };
        builder.push(&record, usize::MAX);
        let seal = Seal { node_slot: self.producer_epoch, base_sequence: -1, ..Seal::default() };
        let mut batch = builder.seal(seal).map_or_else(BytesMut::new, |b| BytesMut::from(&b[..]));
        let attributes = ATTRIBUTE_CONTROL | ATTRIBUTE_TRANSACTIONAL;
        batch[21..23].copy_from_slice(&attributes.to_be_bytes());
        batch[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        put_crc(&mut batch);
        batch
    }
}

/// What a control batch says of its producer's transaction; `None` for batches that are not control batches, other kinds of
/// control records, and control batches that compaction has emptied.
#[must_use]
pub fn end_of(batch: &Bytes) -> Option<EndTransaction> {
    if !BatchHeader::parse(batch).ok()?.is_control() {
        return None;
    }
    let record = records(batch).ok()?.next()?.ok()?;
    let (key, value) = (record.key?, record.value?);
    let commit = match i16::from_be_bytes(*key.get(2..)?.first_chunk()?) {
        TYPE_ABORT => false,
        TYPE_COMMIT => true,
        _ => return None,
    };
    let coordinator_epoch = i32::from_be_bytes(*value.get(2..)?.first_chunk()?);
    Some(EndTransaction { commit, coordinator_epoch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::verify;

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        for commit in [false, true] {
            let end = EndTransaction { commit, coordinator_epoch: 17 };
            let marker = TransactionMarker {
                producer_id: 4711,
                producer_epoch: 3,
                end,
                bumps_epoch: false,
                timestamp_ms: 1_000,
            };
            let bytes = marker.encode().freeze();
            let header = verify(&bytes).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch), (4711, 3));
            assert_eq!((header.base_sequence, header.record_count), (-1, 1));
            assert_eq!(header.max_timestamp, 1_000);
            // Kafka's own: 61 bytes of header, 17 of the record.
            assert_eq!(bytes.len(), 78);
            assert_eq!(end_of(&bytes), Some(end));
        }
    }

    #[test]
    fn what_is_no_end_of_a_transaction_is_none() {
        let end = EndTransaction { commit: true, coordinator_epoch: 1 };
        let marker = TransactionMarker {
            producer_id: 1,
            producer_epoch: 0,
            end,
            bumps_epoch: false,
            timestamp_ms: 0,
        };
        let batch = marker.encode();
        // The type of a leader change: the key's last byte, behind length, attributes, two deltas and the key's length.
        let mut other = batch.clone();
        other[61 + 5 + 3] = 2;
        put_crc(&mut other);
        assert_eq!(end_of(&other.freeze()), None);
        let mut data = batch.clone();
        data[22] &= !(ATTRIBUTE_CONTROL as u8);
        put_crc(&mut data);
        assert_eq!(end_of(&data.freeze()), None);
        assert_eq!(end_of(&batch.freeze().slice(..70)), None);
    }
}
