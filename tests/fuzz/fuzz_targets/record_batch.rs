//! Any bytes as a record batch: as they are, and with a CRC that fits, so that what lies behind it is reached.

#![no_main]

use bytes::Bytes;
use headwater_log::batch::{self, BatchHeader, HEADER_BYTES};
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
    // On its way to another cluster it stays a batch of the same records.
    batch::readdress(&mut input, 4_711, 3, 17);
    let after = batch::verify(&input).expect("a readdressed batch is whole");
    assert_eq!(
        (after.base_offset, after.producer_id, after.producer_epoch, after.base_sequence),
        (0, 4_711, 3, 17)
    );
    assert_eq!(after.record_count, header.record_count);
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
