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

/// A loopback port that was free a moment ago.
///
/// # Panics
/// When the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("no free loopback port");
    listener.local_addr().expect("a bound socket has an address").port()
}
