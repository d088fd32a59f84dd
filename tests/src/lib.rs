//! The harness of Headwater's suites: starts the real program, real Apache Kafka and real clients, on free loopback
//! ports, and stops them by handle.
//!
//! Invariant: a suite waits for conditions ([`wait_for`]), never for time. Neighbours: `tests/tests/` holds the suites,
//! `tests/run` installs what [`tools`] finds.

pub mod files;
pub mod kafka;
pub mod network;
pub mod node;
pub mod tools;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Asks `condition` again and again until it gives a value.
///
/// # Panics
/// When `limit` has passed, naming `what` was waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness runs against real processes in real time"
)]
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A loopback port that nobody listens on and that this process has not handed out before.
///
/// It lies below the range that Linux takes ports of outgoing connections from: between here and its use nobody is given it.
///
/// # Panics
/// When the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..COUNT)
        // Test processes that run side by side begin at different places.
        .map(|_| {
            std::process::id()
                .wrapping_mul(101)
                .wrapping_add(HANDED_OUT.fetch_add(1, Ordering::Relaxed))
        })
        .filter_map(|number| u16::try_from(FIRST + number % COUNT).ok())
        .find(is_free)
        .expect("no free loopback port")
}
