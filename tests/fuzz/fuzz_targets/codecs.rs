//! Any bytes as a stream of each codec: the first byte chooses codec and limit, the rest is the stream.

#![no_main]

use headwater_log::batch::compression::{Codec, Compression, compress, decompress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, stream)) = input.split_first() else { return };
    let codec = Codec::from_number(1 + (choice & 3)).expect("four codecs");
    let limit_bytes = 1 << (choice >> 4);
    if let Ok(plain) = decompress(codec, stream, limit_bytes) {
        assert!(plain.len() <= limit_bytes, "{codec} keeps its limit");
    }
    // The same bytes as what is compressed.
    let mut out = Vec::new();
    compress(Compression { codec, level: Some((choice >> 2) as i8 & 3) }, stream, &mut out)
        .expect("memory");
    assert_eq!(decompress(codec, &out, stream.len()).as_deref(), Ok(stream), "{codec}");
});
