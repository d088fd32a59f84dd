//! gzip, RFC 1952: one member is written; several are read, as Java's `GZIPInputStream` does.

use super::Failure;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::io::{self, Read as _, Write as _};

pub(super) fn compress(level: i8, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let level = flate2::Compression::new(u32::from(level.unsigned_abs()));
    let mut encoder = GzEncoder::new(out, level);
    encoder.write_all(plain)?;
    encoder.finish().map(drop)
}

pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut plain = Vec::with_capacity(limit_bytes.min(bytes.len().saturating_mul(4)));
    let mut decoder = MultiGzDecoder::new(bytes);
    loop {
        if plain.len() == plain.capacity() {
            let more = plain.len().max(4096).min(limit_bytes - plain.len());
            if more == 0 {
                // At the limit: the stream has to end here.
                return match decoder.read(&mut [0]) {
                    Ok(0) => Ok(plain),
                    Ok(_) => Err(Failure::TooLarge),
                    Err(_) => Err(Failure::Malformed),
                };
            }
            plain.reserve_exact(more);
        }
        let room = (plain.capacity() - plain.len()) as u64;
        let before = plain.len();
        let read = (&mut decoder).take(room).read_to_end(&mut plain);
        match read {
            Err(_) => return Err(Failure::Malformed),
            Ok(_) if plain.len() == before => return Ok(plain),
            Ok(_) => {}
        }
    }
}
