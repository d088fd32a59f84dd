//! Step 6, its last part: which partition a key belongs to, as Kafka's Java client decides it.
//!
//! Invariant: a device's messages land in the partition in which a Java producer, Kafka Streams or a table keyed the same
//! way expects them, on every site and for ever; so the hash is Java's murmur2 with Kafka's seed, and its result is made
//! positive by masking, not by `abs` (`Utils.toPositive`). Neighbour: [`crate::route`] says which bytes are hashed.

/// Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// Kafka's murmur2 of `bytes`, with Java's `int` as its unsigned twin.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    // Java's `data.length` is an `int`; a key is bounded by the packet size, far below.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut h = SEED ^ length;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (shift, byte) in (0..).step_by(8).zip(tail) {
        h ^= u32::from(*byte) << shift;
    }
    if !tail.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition, in `0..partitions`, of a key. `partitions` is at least 1.
#[must_use]
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    debug_assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn kafkas_own_vectors() {
        for (key, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn masked_not_negated() {
        // murmur2("21") is negative: `abs` would give 973932308 % 4 = 0.
        assert_eq!(partition(b"21", 4), (0x7fff_ffff & (-973_932_308_i32).cast_unsigned()) % 4);
        assert_eq!(partition(b"21", 1), 0);
        assert_eq!(partition(b"", 7), (murmur2(b"") & 0x7fff_ffff) % 7);
    }
}
