//! The timestamp of a message: wall time, or an estimate while nobody vouches for the wall clock.
//!
//! Invariant: while the clock is not trusted (a gateway without a battery clock boots in 1970) timestamps go on from the
//! last trusted time, or from the newest record there is, with monotonic time, and every record says so. Neighbours:
//! [`crate::ingress`] reads it once per call; [`crate::record`] stores the flag.

use headwater_log::clock::Clock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

const NS_PER_MS: u64 = 1_000_000;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Milliseconds since the Unix epoch.
    pub(crate) ms: i64,
    /// It is an estimate.
    pub(crate) untrusted: bool,
}

/// The last moment that was trusted. The two numbers are written only while the clock is trusted and read only while it
/// is not, so that a reader never meets half of a change.
#[derive(Debug)]
pub(crate) struct Arrivals {
    trusted_ms: AtomicI64,
    at_ns: AtomicU64,
}

impl Arrivals {
    /// `newest_ms`: the newest timestamp stored, or anything small. It counts only while the clock was never trusted.
    pub(crate) fn new(clock: &dyn Clock, newest_ms: i64) -> Self {
        let start_ms = clock.wall_ms();
        let trusted_ms = if clock.is_trusted() { start_ms } else { start_ms.max(newest_ms) };
        Self { trusted_ms: AtomicI64::new(trusted_ms), at_ns: AtomicU64::new(clock.monotonic_ns()) }
    }

    /// Now.
    pub(crate) fn now(&self, clock: &dyn Clock) -> Moment {
        let at_ns = clock.monotonic_ns();
        if clock.is_trusted() {
            let ms = clock.wall_ms();
            self.trusted_ms.store(ms, Ordering::Relaxed);
            self.at_ns.store(at_ns, Ordering::Relaxed);
            return Moment { ms, untrusted: false };
        }
        let since_ns = at_ns.saturating_sub(self.at_ns.load(Ordering::Relaxed));
        let since_ms = i64::try_from(since_ns / NS_PER_MS).unwrap_or(i64::MAX);
        let ms = self.trusted_ms.load(Ordering::Relaxed).saturating_add(since_ms);
        Moment { ms, untrusted: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    struct Fake(Mutex<(i64, u64, bool)>);

    impl Clock for Fake {
        fn wall_ms(&self) -> i64 {
            self.0.lock().0
        }
        fn monotonic_ns(&self) -> u64 {
            self.0.lock().1
        }
        fn is_trusted(&self) -> bool {
            self.0.lock().2
        }
    }

    #[test]
    fn an_untrusted_clock_is_estimated_and_flagged() {
        let clock = Fake(Mutex::new((100, 0, false)));
        let arrivals = Arrivals::new(&clock, 5_000);
        *clock.0.lock() = (103, 3 * NS_PER_MS, false);
        assert_eq!(arrivals.now(&clock), Moment { ms: 5_003, untrusted: true });
        *clock.0.lock() = (9_000_000, 10 * NS_PER_MS, true);
        assert_eq!(arrivals.now(&clock), Moment { ms: 9_000_000, untrusted: false });
        *clock.0.lock() = (12, 14 * NS_PER_MS, false);
        assert_eq!(arrivals.now(&clock), Moment { ms: 9_000_004, untrusted: true });
    }

    #[test]
    fn a_trusted_clock_is_believed_even_behind_the_newest_record() {
        let clock = Fake(Mutex::new((100, 0, true)));
        let arrivals = Arrivals::new(&clock, 5_000);
        assert_eq!(arrivals.now(&clock), Moment { ms: 100, untrusted: false });
    }
}
