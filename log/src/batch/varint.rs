//! Kafka's variable-length integers: zigzag, then seven bits a byte, the lowest first (as protobuf's `sint`).
//!
//! Invariant: reading never looks beyond the slice and never accepts more bytes than the width allows
//! (5 for an `i32`, 10 for an `i64`). Used by the record codec beside it and by record headers.

/// Most bytes of an `i32`.
pub(crate) const VARINT_BYTES_MAX: usize = 5;
/// Most bytes of an `i64`.
pub(crate) const VARLONG_BYTES_MAX: usize = 10;

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -((raw & 1).cast_signed())
}

/// Bytes that [`put`] writes. An `i32` has the same encoding as the `i64` of the same value.
pub(crate) const fn size_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Writes `value` at `at` and returns where the next byte goes.
///
/// # Panics
/// When the buffer is too small; callers pass arrays sized by the constants above.
pub(crate) fn put(buffer: &mut [u8], at: usize, value: i64) -> usize {
    let mut raw = zigzag(value);
    let mut at = at;
    while raw >= 0x80 {
        buffer[at] = (raw as u8) | 0x80;
        raw >>= 7;
        at += 1;
    }
    buffer[at] = raw as u8;
    at + 1
}

/// Reads an `i32` from the front of `bytes`: the value and how many bytes it took.
pub(crate) fn read_i32(bytes: &[u8]) -> Option<(i32, usize)> {
    let (raw, used) = read_raw(bytes, VARINT_BYTES_MAX)?;
    // Kafka keeps the low 32 bits; a canonical writer never sets more, so more is malformed here.
    let raw = u32::try_from(raw).ok()?;
    Some(((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()), used))
}

/// Reads an `i64` from the front of `bytes`: the value and how many bytes it took.
pub(crate) fn read_i64(bytes: &[u8]) -> Option<(i64, usize)> {
    let (raw, used) = read_raw(bytes, VARLONG_BYTES_MAX)?;
    Some((unzigzag(raw), used))
}

fn read_raw(bytes: &[u8], bytes_max: usize) -> Option<(u64, usize)> {
    let mut raw = 0u64;
    for (i, &byte) in bytes.iter().take(bytes_max).enumerate() {
        // The tenth byte of an i64 has room for one bit.
        if i == 9 && byte > 1 {
            return None;
        }
        raw |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((raw, i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_encodings_of_kafka() {
        // Values of Kafka's own ByteUtilsTest.
        let cases: [(i64, &[u8]); 9] = [
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (-65, &[0x81, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, wire) in cases {
            let mut buffer = [0; VARLONG_BYTES_MAX];
            let end = put(&mut buffer, 0, value);
            assert_eq!(&buffer[..end], wire, "{value}");
            assert_eq!(size_bytes(value), wire.len(), "{value}");
            assert_eq!(read_i32(wire), Some((i32::try_from(value).unwrap(), wire.len())));
        }
    }

    #[test]
    fn what_is_too_long_or_cut_short_is_refused() {
        assert_eq!(read_i32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), None);
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(read_i32(&[0x80]), None);
        assert_eq!(read_i32(&[]), None);
        assert_eq!(read_i64(&[0xff; 10]), None);
        assert_eq!(read_i64(&[0x80; 11]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value: i64) {
            let mut buffer = [0; VARLONG_BYTES_MAX];
            let end = put(&mut buffer, 0, value);
            prop_assert_eq!(end, size_bytes(value));
            prop_assert_eq!(read_i64(&buffer[..end]), Some((value, end)));
        }
    }
}
