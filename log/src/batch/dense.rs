//! The records that compaction left in a batch, as a batch of their own: offsets follow each other, as a producer's must
//! (Kafka's LogValidator refuses a batch whose last offset delta is not its record count less one).
//!
//! Invariant: of a record nothing changes but its offset delta; codec, timestamps and whatever else the header says stay.
//! Neighbours: uplinks send these, `compaction::rewrite` makes what they are made from.

use super::compression::{Codec, Compression, compress, decompress};
use super::{BatchError, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, put_crc, varint};
use super::{PLAIN_BYTES_MAX, RECORD_BYTES_MIN};

/// The same records with offset deltas from 0 on, without a hole.
///
/// # Errors
/// [`BatchError`] for a batch that cannot be opened, and for one without records.
pub fn dense(batch: &[u8]) -> Result<Vec<u8>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let stored = batch.get(HEADER_BYTES..header.size_bytes()).ok_or(BatchError::Short)?;
    let opened = match header.codec() {
        Codec::None => None,
        codec => Some(decompress(codec, stored, PLAIN_BYTES_MAX)?),
    };
    let plain = opened.as_deref().unwrap_or(stored);
    let count = header.record_count.unsigned_abs();
    if count == 0 || count as usize > plain.len() / RECORD_BYTES_MIN {
        return Err(BatchError::Field("recordCount"));
    }
    // Deltas only become smaller, so no record grows.
    let (mut records, mut rest) = (Vec::with_capacity(plain.len()), plain);
    for index in 0..count {
        rest = renumber(rest, index, &mut records).ok_or(BatchError::Record(index))?;
    }
    if !rest.is_empty() {
        return Err(BatchError::Record(count));
    }
    let mut out = batch[..HEADER_BYTES].to_vec();
    let compression = Compression { codec: header.codec(), level: None };
    compress(compression, &records, &mut out)
        .map_err(|_| BatchError::Refused("no memory to compress it again"))?;
    let length = i32::try_from(out.len() - LENGTH_PREFIX_BYTES);
    let length = length.map_err(|_| BatchError::Field("batchLength"))?;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[23..27].copy_from_slice(&(header.record_count - 1).to_be_bytes());
    put_crc(&mut out);
    Ok(out)
}

/// Copies the record at the front under another offset delta; what comes behind it.
fn renumber<'a>(bytes: &'a [u8], delta: u32, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (length, prefix) = varint::read_i32(bytes)?;
    let end = prefix.checked_add(usize::try_from(length).ok()?)?;
    let (whole, behind) = bytes.split_at_checked(end)?;
    // Attributes and timestamp delta, then the offset delta.
    let (_, fields) = whole.get(prefix..)?.split_first()?;
    let (_, timestamp_bytes) = varint::read_i64(fields)?;
    let (front, offset) = whole[prefix..].split_at_checked(1 + timestamp_bytes)?;
    let (_, offset_bytes) = varint::read_i32(offset)?;
    let rest = &offset[offset_bytes..];
    let delta = i64::from(delta);
    let length = front.len() + varint::size_bytes(delta) + rest.len();
    let mut number = [0; varint::VARLONG_BYTES_MAX];
    let n = varint::put(&mut number, 0, length as i64);
    out.extend_from_slice(&number[..n]);
    out.extend_from_slice(front);
    let n = varint::put(&mut number, 0, delta);
    out.extend_from_slice(&number[..n]);
    out.extend_from_slice(rest);
    Some(behind)
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, Seal, compressed, records, verify};
    use super::*;
    use crate::record::{Headers, RecordParts};
    use crate::{LeaderEpoch, Offset};
    use bytes::Bytes;

    /// A batch at offset 1,000 whose records have these offset deltas, as compaction leaves it.
    fn holey(deltas: &[u32], last: u32, codec: Codec) -> Bytes {
        let mut builder = BatchBuilder::new();
        for delta in 0..=last {
            let value = format!("value {delta}").repeat(8);
            let record = RecordParts {
                timestamp_ms: 5_000 + i64::from(delta),
                key: Some(b"key"),
                value: Some(value.as_bytes()),
                headers: Headers::EMPTY,
            };
            builder.push(&record, usize::MAX).unwrap();
        }
        let base_offset = Offset::new(1_000).unwrap();
        let epoch = LeaderEpoch::default();
        let whole =
            builder.seal(Seal { base_offset, epoch, node_slot: 0, base_sequence: 0 }).unwrap();
        let (mut kept, mut rest) = (whole[..HEADER_BYTES].to_vec(), &whole[HEADER_BYTES..]);
        for delta in 0..=last {
            let (length, prefix) = varint::read_i32(rest).unwrap();
            let (record, behind) = rest.split_at(prefix + length as usize);
            if deltas.contains(&delta) {
                kept.extend_from_slice(record);
            }
            rest = behind;
        }
        let length = (kept.len() - LENGTH_PREFIX_BYTES) as i32;
        kept[8..12].copy_from_slice(&length.to_be_bytes());
        kept[57..61].copy_from_slice(&(deltas.len() as i32).to_be_bytes());
        put_crc(&mut kept);
        let smaller = compressed(&kept, Compression { codec, level: None });
        smaller.map_or(Bytes::from(kept), Bytes::from)
    }

    #[test]
    fn the_records_are_the_same_and_their_offsets_follow_each_other() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let stored = holey(&[3, 70, 199], 300, codec);
            let before = verify(&stored).unwrap();
            assert_eq!((before.codec(), before.last_offset_delta), (codec, 300));
            let dense = Bytes::from(dense(&stored).unwrap());
            let after = verify(&dense).unwrap();
            let expected = BatchHeader {
                batch_length: after.batch_length,
                crc: after.crc,
                last_offset_delta: 2,
                ..before
            };
            assert_eq!(after, expected);
            let was = records(&stored).unwrap().map(Result::unwrap);
            let is: Vec<_> = records(&dense).unwrap().map(Result::unwrap).collect();
            assert_eq!(is.len(), 3);
            for (i, (was, is)) in was.zip(is).enumerate() {
                assert_eq!(is.offset, 1_000 + i as i64);
                assert_eq!(
                    (is.timestamp_ms, is.key, is.value),
                    (was.timestamp_ms, was.key, was.value)
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_opened_is_refused() {
        let stored = holey(&[1, 2], 2, Codec::None);
        for cut in 0..stored.len() {
            assert!(dense(&stored[..cut]).is_err());
        }
        let mut empty = stored.to_vec();
        empty[57..61].fill(0);
        assert!(dense(&empty).is_err());
    }
}
