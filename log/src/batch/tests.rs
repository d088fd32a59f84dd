//! Batches: what is built is read back; what is damaged or hostile is refused.

use super::*;
use crate::record::{Headers, Record, RecordParts};
use bytes::Bytes;
use proptest::prelude::*;

const SEAL: Seal = Seal {
    base_offset: Offset::ZERO,
    epoch: LeaderEpoch::new(3).unwrap(),
    node_slot: 0,
    base_sequence: 17,
};

fn parts(record: &Record, headers: &Headers) -> (i64, Option<Vec<u8>>, Option<Vec<u8>>, Headers) {
    let copy = |part: &Option<Bytes>| part.as_ref().map(|part| part.to_vec());
    (record.timestamp_ms, copy(&record.key), copy(&record.value), headers.clone())
}

/// Encodes with the builder, checking the announced sizes on the way.
fn build(records: &[(Record, Headers)]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for (i, (record, headers)) in records.iter().enumerate() {
        let (timestamp_ms, key, value, headers) = parts(record, headers);
        let parts = RecordParts {
            timestamp_ms,
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
        };
        let announced = builder.size_bytes_with(&parts);
        assert_eq!(builder.push(&parts, announced - 1), None, "one byte too small");
        assert_eq!(builder.push(&parts, announced), Some(u32::try_from(i).unwrap()));
        assert_eq!(builder.size_bytes(), announced);
    }
    let size = builder.size_bytes();
    let batch = builder.seal(SEAL).expect("there are records");
    assert_eq!(batch.len(), size);
    assert!(builder.is_empty());
    batch
}

fn one_batch() -> Bytes {
    let mut headers = Headers::default();
    headers.push("content-type", b"json");
    headers.push("hw", &[1, 0]);
    let record = |offset: i64, key: Option<&'static [u8]>, value: Option<&'static [u8]>| Record {
        offset,
        timestamp_ms: 1_700_000_000_000 + offset,
        key: key.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
        headers: vec![],
    };
    build(&[
        (record(0, Some(b"plant/1"), Some(b"21.5")), headers),
        (record(1, None, None), Headers::default()),
        (record(2, Some(b""), Some(b"")), Headers::default()),
    ])
}

#[test]
fn a_sealed_batch_is_what_kafka_expects() {
    let batch = one_batch();
    let header = verify(&batch).unwrap();
    assert_eq!(header.size_bytes(), batch.len());
    assert_eq!((header.record_count, header.last_offset_delta), (3, 2));
    assert_eq!(
        (header.base_timestamp, header.max_timestamp),
        (1_700_000_000_000, 1_700_000_000_002)
    );
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (-2, 0, 17));
    assert_eq!((header.partition_leader_epoch, header.attributes), (3, 0));
    assert!(header.is_made_here());
    let read: Vec<_> = records(&batch).unwrap().map(Result::unwrap).collect();
    assert_eq!(read[0].headers[0], (Bytes::from("content-type"), Some(Bytes::from("json"))));
    assert_eq!((read[1].key.clone(), read[1].value.clone()), (None, None));
    assert_eq!(
        (read[2].key.clone(), read[2].value.clone()),
        (Some(Bytes::new()), Some(Bytes::new()))
    );
    assert_eq!(read[2].offset, 2);
}

#[test]
fn a_batch_of_kafkas_own_producer_is_read() {
    // kafka-clients 3.9: one record, key "k", value "v", header h=x, no producer id, offset 0.
    let mut bytes = vec![];
    bytes.extend_from_slice(&0i64.to_be_bytes());
    let body: &[u8] = &[
        0, 0, 0, 0, 0, 0, // attributes, last offset delta
        0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0, // base timestamp 1_700_000_000_000
        0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0, // max timestamp
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // producer id, epoch
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, // base sequence, count
        0x18, 0, 0, 0, 0x02, b'k', 0x02, b'v', 0x02, 0x02, b'h', 0x02, b'x',
    ];
    bytes.extend_from_slice(&i32::try_from(body.len() + 9).unwrap().to_be_bytes());
    bytes.extend_from_slice(&(-1i32).to_be_bytes());
    bytes.push(2);
    bytes.extend_from_slice(&crc_fast::crc32_iscsi(body).to_be_bytes());
    bytes.extend_from_slice(body);
    let header = verify(&bytes).unwrap();
    assert_eq!(header.check_from_client(), Ok(()));
    let read: Vec<_> = records(&Bytes::from(bytes)).unwrap().map(Result::unwrap).collect();
    assert_eq!(
        read,
        [Record {
            offset: 0,
            timestamp_ms: 1_700_000_000_000,
            key: Some(Bytes::from("k")),
            value: Some(Bytes::from("v")),
            headers: vec![(Bytes::from("h"), Some(Bytes::from("x")))],
        }]
    );
}

#[test]
fn the_crc_is_castagnoli() {
    // RFC 3720, B.4: 32 bytes of zeroes.
    assert_eq!(crc_fast::crc32_iscsi(&[0; 32]), 0x8a91_36aa);
}

#[test]
fn every_flipped_bit_inside_the_crc_is_found() {
    let batch = one_batch();
    for bit in CRC_AT * 8..batch.len() * 8 {
        let mut broken = batch.to_vec();
        broken[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&broken).is_err(), "bit {bit}");
    }
}

#[test]
fn every_cut_is_short() {
    let batch = one_batch();
    for length in 0..batch.len() {
        assert_eq!(verify(&batch[..length]), Err(BatchError::Short), "{length}");
    }
}

#[test]
fn fields_out_of_bounds_are_named() {
    let broken = |at: usize, bytes: &[u8]| {
        let mut batch = one_batch().to_vec();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        BatchHeader::parse(&batch).unwrap_err()
    };
    assert_eq!(broken(0, &(-1i64).to_be_bytes()), BatchError::Field("baseOffset"));
    assert_eq!(broken(0, &i64::MAX.to_be_bytes()), BatchError::Field("lastOffsetDelta"));
    assert_eq!(broken(8, &48i32.to_be_bytes()), BatchError::Field("batchLength"));
    assert_eq!(broken(8, &i32::MIN.to_be_bytes()), BatchError::Field("batchLength"));
    assert_eq!(broken(8, &i32::MAX.to_be_bytes()), BatchError::Short);
    assert_eq!(broken(16, &[1]), BatchError::Magic(1));
    assert_eq!(broken(21, &[0, 7]), BatchError::Field("attributes"));
    assert_eq!(broken(23, &1i32.to_be_bytes()), BatchError::Field("lastOffsetDelta"));
    assert_eq!(broken(23, &(-1i32).to_be_bytes()), BatchError::Field("lastOffsetDelta"));
    assert_eq!(broken(57, &0i32.to_be_bytes()), BatchError::Field("recordCount"));
    let mut many = one_batch()[23..HEADER_BYTES].to_vec();
    many[..4].copy_from_slice(&99i32.to_be_bytes());
    many[34..].copy_from_slice(&100i32.to_be_bytes());
    assert_eq!(broken(23, &many), BatchError::Field("recordCount"), "more than can be there");
}

#[test]
fn what_a_client_may_not_send_is_refused() {
    let refused = |at: usize, bytes: &[u8]| {
        let mut batch = one_batch().to_vec();
        batch[43..51].copy_from_slice(&7i64.to_be_bytes());
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        let header = BatchHeader::parse(&batch).unwrap();
        matches!(header.check_from_client(), Err(BatchError::Refused(_)))
    };
    assert!(!refused(0, &[]), "the batch itself is legal");
    assert!(refused(0, &1i64.to_be_bytes()), "base offset");
    assert!(refused(23, &9i32.to_be_bytes()), "gaps");
    assert!(refused(21, &ATTRIBUTE_CONTROL.to_be_bytes()), "control");
    assert!(refused(43, &(-2i64).to_be_bytes()), "producer id of our own batches");
    assert!(refused(51, &(-1i16).to_be_bytes()), "epoch");
    assert!(refused(53, &(-1i32).to_be_bytes()), "sequence");
}

#[test]
fn a_batch_is_placed_without_touching_the_crc() {
    let mut batch = one_batch().to_vec();
    place(&mut batch, Offset::new(1_000).unwrap(), LeaderEpoch::new(9).unwrap());
    let header = verify(&batch).unwrap();
    assert_eq!((header.base_offset, header.partition_leader_epoch), (1_000, 9));
    let read = records(&Bytes::from(batch)).unwrap().last().unwrap().unwrap();
    assert_eq!(read.offset, 1_002);
}

#[test]
fn a_batch_is_readdressed_for_another_cluster() {
    let mut batch = one_batch().to_vec();
    batch[22] |= 0x08;
    place(&mut batch, Offset::new(1_000).unwrap(), LeaderEpoch::new(9).unwrap());
    readdress(&mut batch, 4_001, 2, i32::MAX - 1);
    let header = verify(&batch).unwrap();
    assert_eq!((header.base_offset, header.partition_leader_epoch), (0, -1));
    assert_eq!((header.producer_id, header.producer_epoch), (4_001, 2));
    assert_eq!((header.base_sequence, header.last_sequence()), (i32::MAX - 1, 0));
    assert!(!header.is_log_append_time());
    assert_eq!(header.check_from_client(), Ok(()));
    assert_eq!(records(&Bytes::from(batch)).unwrap().count(), 3);
}

#[test]
fn bytes_behind_the_records_are_malformed() {
    let mut batch = one_batch().to_vec();
    batch.push(0);
    let length = i32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let read: Vec<_> = records(&Bytes::from(batch)).unwrap().collect();
    assert_eq!(read.len(), 4);
    assert_eq!(read[3], Err(BatchError::Record(3)));
}

#[test]
fn a_header_count_beyond_the_record_reserves_nothing() {
    let mut batch = one_batch().to_vec();
    // The last record's header count, its last byte: 2^30 headers would be 64 GiB.
    batch.pop();
    batch.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0x07]);
    let at = batch.len() - 11;
    assert_eq!(batch[at + 1], 0, "attributes of the last record");
    batch[at] = 2 * 10;
    let length = i32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let read: Vec<_> = records(&Bytes::from(batch)).unwrap().collect();
    assert_eq!(read[2], Err(BatchError::Record(2)));
}

fn any_record() -> impl Strategy<Value = (Record, Headers)> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from);
    let header = ("[a-z.-]{0,12}", bytes(20));
    (
        any::<i64>(),
        proptest::option::of(bytes(200)),
        proptest::option::of(bytes(300)),
        proptest::collection::vec(header, 0..4),
    )
        .prop_map(|(timestamp_ms, key, value, list)| {
            let mut headers = Headers::default();
            for (name, value) in &list {
                headers.push(name, value);
            }
            let list = list.into_iter().map(|(name, value)| (name.into(), Some(value))).collect();
            (Record { offset: 0, timestamp_ms, key, value, headers: list }, headers)
        })
}

proptest! {
    #[test]
    fn what_is_built_is_read(mut list in proptest::collection::vec(any_record(), 1..70)) {
        for (i, (record, _)) in list.iter_mut().enumerate() {
            record.offset = i64::try_from(i).unwrap();
        }
        let batch = build(&list);
        verify(&batch).unwrap();
        let read: Vec<_> = records(&batch).unwrap().map(Result::unwrap).collect();
        let wanted: Vec<_> = list.into_iter().map(|(record, _)| record).collect();
        prop_assert_eq!(read, wanted);
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = verify(&bytes);
        if bytes.len() > HEADER_BYTES {
            // A legal header over random records.
            bytes[..HEADER_BYTES].copy_from_slice(&one_batch()[..HEADER_BYTES]);
            let length = i32::try_from(bytes.len() - 12).unwrap();
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
        }
        if let Ok(read) = records(&Bytes::from(bytes)) {
            for record in read {
                let _ = record;
            }
        }
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0usize..200, byte: u8) {
        let mut bytes = one_batch().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = verify(&bytes);
        if let Ok(read) = records(&Bytes::from(bytes)) {
            prop_assert!(read.count() <= 4);
        }
    }
}
