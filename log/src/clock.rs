//! The clock seam: wall time and monotonic time, both fakeable.

/// Reads time. One of the three seams (clock, disk, network) through which a node meets the world.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump; see [`Clock::is_trusted`].
    fn wall_ms(&self) -> i64;
    /// Nanoseconds since an arbitrary start; never goes back.
    fn monotonic_ns(&self) -> u64;
    /// Whether wall time has been set by somebody (network time, a battery clock) since boot.
    fn is_trusted(&self) -> bool;
}

/// The machine's own clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        unimplemented!()
    }
    fn monotonic_ns(&self) -> u64 {
        unimplemented!()
    }
    fn is_trusted(&self) -> bool {
        unimplemented!()
    }
}
