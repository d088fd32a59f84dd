//! A clock that stands still until it is told to move. Neighbour: [`crate::disk::fake`].

use super::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Wall time and monotonic time as a test sets them. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct FakeClock {
    wall_ms: Arc<AtomicI64>,
    monotonic_ns: Arc<AtomicU64>,
    trusted: Arc<AtomicBool>,
}

impl FakeClock {
    /// A trusted clock that shows this wall time.
    #[must_use]
    pub fn new(wall_ms: i64) -> Self {
        Self {
            wall_ms: Arc::new(AtomicI64::new(wall_ms)),
            monotonic_ns: Arc::new(AtomicU64::new(1)),
            trusted: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Lets time pass.
    pub fn advance_ms(&self, ms: u32) {
        self.wall_ms.fetch_add(i64::from(ms), Ordering::SeqCst);
        self.monotonic_ns.fetch_add(u64::from(ms) * 1_000_000, Ordering::SeqCst);
    }

    /// Sets wall time alone, as network time does. Monotonic time goes on.
    pub fn jump_to_ms(&self, wall_ms: i64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }

    /// Whether somebody has set the clock.
    pub fn set_trusted(&self, trusted: bool) {
        self.trusted.store(trusted, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::SeqCst)
    }

    fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::SeqCst)
    }
}
