//! What is checked of a batch before the partition sees it, and the form of old versions' refusals.

use super::*;

/// A batch of two records, as a client makes it; the CRC is the partition's to check.
fn batch(change: impl FnOnce(&mut BytesMut)) -> Bytes {
    let records: &[u8] = b"\x10\0\0\0\x02k\x02v\0\x10\0\0\x02\x02k\x02w\0";
    let mut bytes = BytesMut::new();
    bytes.put_i64(0); // base offset
    bytes.put_i32(i32::try_from(61 - 12 + records.len()).unwrap());
    bytes.put_i32(-1); // leader epoch
    bytes.put_i8(2); // magic
    bytes.put_u32(0); // CRC
    bytes.put_i16(0); // attributes
    bytes.put_i32(1); // last offset delta
    bytes.put_i64(1_000);
    bytes.put_i64(1_000);
    bytes.put_i64(-1); // producer id
    bytes.put_i16(-1);
    bytes.put_i32(-1);
    bytes.put_i32(2); // records
    bytes.put_slice(records);
    change(&mut bytes);
    bytes.freeze()
}

fn code_of(bytes: &Bytes, version: i16) -> Option<ErrorCode> {
    check(bytes, version).err().map(|refused| refused.code)
}

#[test]
fn an_ordinary_batch_passes() {
    assert_eq!(code_of(&batch(|_| {}), 3), None);
    let idempotent = batch(|b| {
        b[43..51].copy_from_slice(&7_i64.to_be_bytes());
        b[51..53].copy_from_slice(&0_i16.to_be_bytes());
        b[53..57].copy_from_slice(&0_i32.to_be_bytes());
    });
    assert_eq!(code_of(&idempotent, 11), None);
}

#[test]
fn each_broken_field_has_its_code() {
    let attributes = |bits: i16| batch(|b| b[21..23].copy_from_slice(&bits.to_be_bytes()));
    let producer = |id: i64| batch(|b| b[43..51].copy_from_slice(&id.to_be_bytes()));
    let cases: [(&str, Bytes, ErrorCode); 13] = [
        ("two batches", batch(|b| b.extend_from_slice(&b.clone())), ErrorCode::InvalidRecord),
        ("cut", batch(|b| b.truncate(70)), ErrorCode::CorruptMessage),
        ("cut in the header", batch(|b| b.truncate(30)), ErrorCode::CorruptMessage),
        ("magic 1", batch(|b| b[16] = 1), ErrorCode::InvalidRecord),
        ("base offset", batch(|b| b[7] = 5), ErrorCode::InvalidRecord),
        ("count 3", batch(|b| b[60] = 3), ErrorCode::InvalidRecord),
        ("count 0", batch(|b| b[57..61].fill(0)), ErrorCode::InvalidRecord),
        ("control", attributes(0x20), ErrorCode::InvalidRecord),
        ("transactional", attributes(0x10), ErrorCode::InvalidTxnState),
        ("log append time", attributes(LOG_APPEND_TIME), ErrorCode::InvalidTimestamp),
        ("codec 5", attributes(5), ErrorCode::InvalidRecord),
        ("made here", producer(-2), ErrorCode::InvalidRecord),
        ("no sequence", producer(9), ErrorCode::InvalidRecord),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(code_of(&bytes, 11), Some(expected), "{name}");
    }
}

#[test]
fn zstd_needs_version_7() {
    let zstd = batch(|b| b[21..23].copy_from_slice(&4_i16.to_be_bytes()));
    assert_eq!(code_of(&zstd, 6), Some(ErrorCode::UnsupportedCompressionType));
    assert_eq!(code_of(&zstd, 7), None);
}
