//! The codecs against themselves, against other writers, and against damage.

use super::*;
use crate::batch::{
    BatchBuilder, HEADER_BYTES, PLAIN_BYTES_MAX, RECORD_BYTES_MIN, Seal,
    compressed as compressed_batch, put_crc, records, verify,
};
use crate::record::{Headers, RecordParts};
use bytes::Bytes;

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn compressed(codec: Codec, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress(Compression { codec, level: None }, plain, &mut out).unwrap();
    out
}

/// Text that compresses, and bytes that do not, of every length that meets a block's end.
fn plains() -> Vec<Vec<u8>> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 32) as u8
        };
        (0..length).map(|_| next()).collect()
    };
    let text: Vec<u8> =
        b"{\"line\":7,\"temperature\":21.5}".iter().copied().cycle().take(300_000).collect();
    let mut all = Vec::new();
    for length in [0, 1, 5, 1000, 32 << 10, (32 << 10) + 1, 64 << 10, (64 << 10) + 1, 300_000] {
        all.push(text[..length].to_vec());
        all.push(noise(length));
    }
    all
}

#[test]
fn what_is_compressed_is_undone_exactly_at_its_limit() {
    for codec in CODECS {
        for plain in plains() {
            let bytes = compressed(codec, &plain);
            assert_eq!(decompress(codec, &bytes, plain.len()).unwrap(), plain, "{codec}");
            assert_eq!(decompress(codec, &bytes, PLAIN_BYTES_MAX).unwrap(), plain, "{codec}");
            if !plain.is_empty() {
                let limit_bytes = plain.len() - 1;
                assert_eq!(
                    decompress(codec, &bytes, limit_bytes),
                    Err(BatchError::PlainTooLarge { limit_bytes }),
                    "{codec}, {} bytes",
                    plain.len()
                );
            }
        }
    }
}

#[test]
fn every_level_is_undone_and_one_beyond_the_range_is_its_end() {
    let plain = &plains()[8];
    for codec in CODECS {
        let mut sizes = Vec::new();
        for level in i8::MIN..=i8::MAX {
            let mut out = b"kept".to_vec();
            compress(Compression { codec, level: Some(level) }, plain, &mut out).unwrap();
            assert_eq!(&out[..4], b"kept");
            assert_eq!(&decompress(codec, &out[4..], PLAIN_BYTES_MAX).unwrap(), plain);
            sizes.push(out.len());
        }
        let differ = sizes.iter().any(|size| *size != sizes[0]);
        assert_eq!(differ, codec.levels().is_some(), "{codec} has levels, or none");
    }
}

#[test]
fn a_stream_that_is_cut_or_goes_on_is_refused() {
    let plain = &plains()[6];
    for codec in CODECS {
        let bytes = compressed(codec, plain);
        for length in 0..bytes.len() {
            let cut = decompress(codec, &bytes[..length], PLAIN_BYTES_MAX);
            // Snappy's framing has no end: a cut between two blocks is for the records' count to find.
            let between = codec == Codec::Snappy && matches!(length, 16);
            assert_eq!(cut.is_ok(), between, "{codec} cut at {length}");
        }
        let mut longer = bytes.clone();
        longer.push(b'x');
        assert!(decompress(codec, &longer, PLAIN_BYTES_MAX).is_err(), "{codec} with a byte behind");
    }
}

#[test]
fn no_flipped_bit_panics_or_takes_more_than_the_limit() {
    let plain = &plains()[6];
    let limit = plain.len() + 100;
    for codec in CODECS {
        let bytes = compressed(codec, plain);
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            if let Ok(found) = decompress(codec, &broken, limit) {
                assert!(found.len() <= limit && found.capacity() <= 2 * limit, "{codec} bit {bit}");
            }
        }
    }
}

#[test]
fn a_bomb_is_refused_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    for codec in CODECS {
        let bomb = compressed(codec, &zeros);
        let limit_bytes = 100_000;
        let found = decompress(codec, &bomb, limit_bytes);
        assert_eq!(found, Err(BatchError::PlainTooLarge { limit_bytes }), "{codec}");
    }
}

#[test]
fn what_a_stream_claims_of_its_size_reserves_nothing() {
    // A raw snappy block that says 4 GiB, a zstd frame that says 2^40 bytes, without the bytes that could hold it.
    let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let mut zstd = compressed(Codec::Zstd, &[7; 300]);
    assert_eq!(zstd[4] & 0xe0, 0x60, "one segment, two bytes of size");
    zstd[4] = 0xe0;
    zstd.splice(5..7, (1_u64 << 40).to_le_bytes());
    for (codec, bytes) in [(Codec::Snappy, &snappy[..]), (Codec::Zstd, &zstd)] {
        let found = decompress(codec, bytes, usize::MAX >> 1);
        assert_eq!(found, Err(BatchError::Stream(codec)));
    }
}

#[test]
fn what_other_writers_make_is_read() {
    let plain = &plains()[6][..];
    // Raw snappy without framing, and two framed streams behind each other.
    let raw = snap::raw::Encoder::new().compress_vec(plain).unwrap();
    assert_eq!(decompress(Codec::Snappy, &raw, PLAIN_BYTES_MAX).unwrap(), plain);
    let twice = [plain, plain].concat();
    for codec in [Codec::Snappy, Codec::Gzip, Codec::Zstd] {
        let bytes = compressed(codec, plain).repeat(2);
        assert_eq!(decompress(codec, &bytes, PLAIN_BYTES_MAX).unwrap(), twice, "{codec}");
    }
    // zstd as a stream: no content size in the header.
    let mut stream = ::zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    io::copy(&mut &plain[..], &mut stream).unwrap();
    let bytes = stream.finish().unwrap();
    assert_eq!(decompress(Codec::Zstd, &bytes, PLAIN_BYTES_MAX).unwrap(), plain);
    let limit_bytes = plain.len() - 1;
    assert!(decompress(Codec::Zstd, &bytes, limit_bytes).is_err());
}

/// An lz4 frame of one stored and one compressed block with every optional field.
fn lz4_frame(flags: u8) -> (Vec<u8>, Vec<u8>) {
    use twox_hash::XxHash32;
    let plain = [&b"stored as it is "[..], &[b'z'; 500][..]].concat();
    let mut frame = vec![0x04, 0x22, 0x4d, 0x18, flags, 0x40];
    if flags & 0x08 != 0 {
        frame.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    }
    frame.push((XxHash32::oneshot(0, &frame[4..]) >> 8) as u8);
    let compressed = lz4_flex::block::compress(&plain[16..]);
    for (block, stored) in [(&plain[..16], 1_u32 << 31), (&compressed, 0)] {
        frame.extend_from_slice(&(block.len() as u32 | stored).to_le_bytes());
        frame.extend_from_slice(block);
        if flags & 0x10 != 0 {
            frame.extend_from_slice(&XxHash32::oneshot(0, block).to_le_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    if flags & 0x04 != 0 {
        frame.extend_from_slice(&XxHash32::oneshot(0, &plain).to_le_bytes());
    }
    (frame, plain)
}

#[test]
fn lz4_frames_are_read_and_refused_as_kafkas_client_does() {
    for flags in [0x60, 0x68, 0x64, 0x70, 0x7c] {
        let (frame, plain) = lz4_frame(flags);
        assert_eq!(decompress(Codec::Lz4, &frame, PLAIN_BYTES_MAX).unwrap(), plain, "{flags:02x}");
        // Everything is under some check: header, lengths, content.
        if flags == 0x7c {
            for bit in 0..frame.len() * 8 {
                let mut broken = frame.clone();
                broken[bit / 8] ^= 1 << (bit % 8);
                let found = decompress(Codec::Lz4, &broken, PLAIN_BYTES_MAX);
                assert_eq!(found, Err(BatchError::Stream(Codec::Lz4)), "bit {bit}");
            }
        }
    }
    // Linked blocks, a dictionary, a reserved bit, another version.
    for flags in [0x40, 0x61, 0x62, 0xa0, 0x20] {
        let (frame, _) = lz4_frame(flags);
        let found = decompress(Codec::Lz4, &frame, PLAIN_BYTES_MAX);
        assert_eq!(found, Err(BatchError::Stream(Codec::Lz4)), "{flags:02x}");
    }
}

#[test]
fn a_window_that_javas_decoder_refuses_is_refused() {
    // Streams of one raw block, windows of 2^27 and of the next size.
    let frame = |window: u8| {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, window];
        frame.extend_from_slice(&[(4 << 3) | 1, 0, 0]);
        frame.extend_from_slice(b"byte");
        frame
    };
    assert_eq!(decompress(Codec::Zstd, &frame(17 << 3), 100).unwrap(), b"byte");
    for window in [17 << 3 | 1, 18 << 3, 31 << 3] {
        let found = decompress(Codec::Zstd, &frame(window), 100);
        assert_eq!(found, Err(BatchError::Stream(Codec::Zstd)), "{window:02x}");
    }
}

/// A batch of `count` records, its record bytes replaced by `stream`.
fn batch_of(codec: Codec, count: usize, stream: impl FnOnce(&[u8]) -> Vec<u8>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for i in 0..count {
        let value = format!("value {i}");
        let record = RecordParts {
            timestamp_ms: 1_000 + i as i64,
            key: Some(b"key"),
            value: Some(value.as_bytes()),
            headers: Headers::EMPTY,
        };
        builder.push(&record, 1 << 20).unwrap();
    }
    let plain = builder.seal(Seal::default()).unwrap();
    let mut batch = plain[..HEADER_BYTES].to_vec();
    batch.extend_from_slice(&stream(&plain[HEADER_BYTES..]));
    let length = i32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = codec as u8;
    put_crc(&mut batch);
    verify(&batch).unwrap();
    Bytes::from(batch)
}

#[test]
fn records_of_a_compressed_batch_are_those_of_the_plain_one() {
    let plain: Vec<_> =
        records(&batch_of(Codec::None, 100, <[u8]>::to_vec)).unwrap().map(Result::unwrap).collect();
    assert_eq!(plain.len(), 100);
    for codec in CODECS {
        let batch = batch_of(codec, 100, |plain| compressed(codec, plain));
        let read: Vec<_> = records(&batch).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, plain, "{codec}");
    }
}

#[test]
fn a_batch_is_compressed_where_that_helps() {
    let plain = batch_of(Codec::None, 100, <[u8]>::to_vec);
    let header = verify(&plain).unwrap();
    let read = |batch: &Bytes| records(batch).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    for codec in CODECS {
        let compression = Compression { codec, level: None };
        let small = Bytes::from(compressed_batch(&plain, compression).unwrap());
        let found = verify(&small).unwrap();
        assert!(small.len() < plain.len() * 2 / 3 && found.codec() == codec, "{codec}");
        let same = crate::batch::BatchHeader {
            batch_length: found.batch_length,
            crc: found.crc,
            attributes: found.attributes,
            ..header
        };
        assert_eq!(found, same, "{codec}");
        assert_eq!(read(&small), read(&plain), "{codec}");
        assert_eq!(compressed_batch(&small, compression), None, "once is enough");
        let one = batch_of(Codec::None, 1, <[u8]>::to_vec);
        assert_eq!(compressed_batch(&one, compression), None, "{codec} of one small record");
    }
    assert_eq!(compressed_batch(&plain, Compression::default()), None);
}

#[test]
fn records_that_do_not_parse_are_found_behind_compression() {
    for codec in CODECS {
        let short = batch_of(codec, 3, |plain| compressed(codec, &plain[..plain.len() - 1]));
        assert_eq!(records(&short).unwrap().last().unwrap(), Err(BatchError::Record(2)));
        let long = batch_of(codec, 3, |plain| compressed(codec, &[plain, &[0]].concat()));
        assert_eq!(records(&long).unwrap().last().unwrap(), Err(BatchError::Record(3)));
        let few = batch_of(codec, 3, |plain| compressed(codec, &plain[..2 * RECORD_BYTES_MIN]));
        assert_eq!(records(&few).unwrap_err(), BatchError::Field("recordCount"));
        let no = batch_of(codec, 3, |_| b"\x82SNAPPY\0not a stream".to_vec());
        assert_eq!(records(&no).unwrap_err(), BatchError::Stream(codec));
        let bomb = batch_of(codec, 3, |_| compressed(codec, &vec![0; PLAIN_BYTES_MAX + 1]));
        let limit_bytes = PLAIN_BYTES_MAX;
        assert_eq!(records(&bomb).unwrap_err(), BatchError::PlainTooLarge { limit_bytes });
    }
}
