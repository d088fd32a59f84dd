//! Any bytes as a record batch: as they are, with a CRC that fits, so that what lies behind it is reached, and with its
//! records compressed by each codec, which changes nothing of what is read.

#![no_main]

use bytes::Bytes;
use headwater_log::batch::compression::{Codec, Compression};
use headwater_log::batch::{self, BatchError, BatchHeader, HEADER_BYTES};
use headwater_log::record::Record;
use libfuzzer_sys::fuzz_target;

const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

/// Reads a batch as the log and the uplink do.
fn read(mut input: Vec<u8>) {
    let Ok(header) = batch::verify(&input) else { return };
    assert!((HEADER_BYTES..=input.len()).contains(&header.size_bytes()));
    let _ = header.check_from_client();
    if let Ok(records) = batch::records(&Bytes::from(input.clone())) {
        let mut offsets = header.base_offset..=header.last_offset();
        let mut count = 0;
        let mut whole = true;
        for record in records {
            let Ok(record) = record else {
                whole = false;
                break;
            };
            assert!(offsets.contains(&record.offset), "{} in {offsets:?}", record.offset);
            if record.offset < header.last_offset() {
                offsets = record.offset + 1..=header.last_offset();
            }
            count += 1;
        }
        assert!(!whole || count == header.record_count);
    }
    same_when_compressed(&input);
    // On its way to another cluster it stays a batch of the same records.
    batch::readdress(&mut input, 4_711, 3, 17);
    let after = batch::verify(&input).expect("a readdressed batch is whole");
    assert_eq!(
        (after.base_offset, after.producer_id, after.producer_epoch, after.base_sequence),
        (0, 4_711, 3, 17)
    );
    assert_eq!(after.record_count, header.record_count);
}

/// What a reader gets out of a batch.
fn outcome(batch: Vec<u8>) -> Result<Vec<Result<Record, BatchError>>, BatchError> {
    batch::records(&Bytes::from(batch)).map(Iterator::collect)
}

fn same_when_compressed(input: &[u8]) {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let compression = Compression { codec, level: None };
        let Some(small) = batch::compressed(input, compression) else { continue };
        let header = batch::verify(&small).expect("a compressed batch is whole");
        assert!(small.len() < input.len() && header.codec() == codec);
        assert_eq!(outcome(small), outcome(input.to_vec()), "{codec}");
    }
}

fuzz_target!(|input: &[u8]| {
    read(input.to_vec());
    if let Ok(header) = BatchHeader::parse(input) {
        let mut mended = input[..header.size_bytes()].to_vec();
        let crc = crc_fast::crc32_iscsi(&mended[CRC_FROM..]);
        mended[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        read(mended);
    }
});
