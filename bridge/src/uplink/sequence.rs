//! Sequence numbers of an idempotent producer: 31 bits, wrapping from 2^31-1 to 0.
//!
//! Invariant: a batch takes one number per record, so under one anchor the sequence of every stored
//! batch follows from its offset (KIP-98; `DefaultRecordBatch.incrementSequence`).

/// A sequence number, `0..=i32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Sequence(i32);

/// How many numbers there are.
const COUNT: i64 = 1 << 31;

impl Sequence {
    /// Where a new producer id begins.
    pub(crate) const ZERO: Self = Self(0);

    /// `None` for a negative number.
    pub(crate) fn new(value: i32) -> Option<Self> {
        (value >= 0).then_some(Self(value))
    }

    /// The raw number, as in a batch's header.
    pub(crate) fn get(self) -> i32 {
        self.0
    }

    /// The number `records` further on; negative goes back.
    pub(crate) fn plus(self, records: i64) -> Self {
        let wrapped = (i64::from(self.0) + records).rem_euclid(COUNT);
        Self(i32::try_from(wrapped).unwrap_or(0))
    }

    /// How far `other` is ahead of this one (negative: behind), taking the shorter way round.
    pub(crate) fn distance_to(self, other: Self) -> i64 {
        let ahead = (i64::from(other.0) - i64::from(self.0)).rem_euclid(COUNT);
        if ahead < COUNT / 2 { ahead } else { ahead - COUNT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_as_in_kafka() {
        let last = Sequence(i32::MAX);
        assert_eq!(last.plus(1), Sequence::ZERO);
        assert_eq!(Sequence(i32::MAX - 2).plus(10), Sequence(7));
        assert_eq!(Sequence::ZERO.plus(-1), last);
        assert_eq!(last.distance_to(Sequence(4)), 5);
        assert_eq!(Sequence(4).distance_to(last), -5);
        assert_eq!(Sequence(100).distance_to(Sequence(90)), -10);
        assert_eq!(Sequence(7).distance_to(Sequence(7)), 0);
        assert_eq!(Sequence::new(-1), None);
    }
}
