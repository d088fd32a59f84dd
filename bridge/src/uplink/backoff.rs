//! Waits between attempts: doubling, with jitter, so that a thousand sites do not return in the same second.

/// A series of waits. Pure: the caller says when it starts anew, which it does on progress, not on a connection.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first_ms: u64,
    longest_ms: u64,
    attempts: u32,
    random: u64,
}

impl Backoff {
    /// `seed` only needs to differ between sites.
    pub(crate) fn new(first_ms: u64, longest_ms: u64, seed: u64) -> Self {
        Self { first_ms: first_ms.max(1), longest_ms: longest_ms.max(1), attempts: 0, random: seed }
    }

    /// The next wait: between half and all of first * 2^n.
    pub(crate) fn next_ms(&mut self) -> u64 {
        let full =
            self.first_ms.saturating_mul(1 << self.attempts.min(20)).min(self.longest_ms).max(1);
        self.attempts = self.attempts.saturating_add(1);
        // Knuth's multiplicative generator is random enough for this.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        full / 2 + (self.random >> 33) % (full - full / 2 + 1)
    }

    /// Progress was made.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew() {
        let mut backoff = Backoff::new(250, 30_000, 7);
        for attempt in 0..40 {
            let full = (250u64 << attempt.min(20)).min(30_000);
            let wait = backoff.next_ms();
            assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
        }
        backoff.reset();
        assert!(backoff.next_ms() <= 250);
    }

    #[test]
    fn two_sites_do_not_wait_alike() {
        let series = |seed| {
            let mut backoff = Backoff::new(250, 30_000, seed);
            (0..8).map(|_| backoff.next_ms()).collect::<Vec<_>>()
        };
        assert_ne!(series(1), series(2));
    }
}
