//! The clock seam: wall time and monotonic time, both fakeable.
//!
//! Invariant: only this module reads the machine's clocks. Whether wall time may be believed matters to retention, which
//! deletes nothing on the word of a clock that nobody has set (gateways without a battery clock boot in 1970).

#[cfg(any(test, feature = "simulation"))]
pub mod fake;

use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
///
/// Wall time is trusted by the first of these that answers: it lies before this program was written: no; systemd's time
/// service says that it has heard from a time server since boot: yes; the kernel set it from a clock with a battery
/// (`/sys/class/rtc/*/hctosys`): yes; that time service runs and has not heard yet: no; nobody can tell (another time
/// daemon, a container): yes. The kernel's own flag (adjtimex) is not asked: daemons that step the clock never clear it.
/// Jumps while running are found by comparing with monotonic time, where retention reads the clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

/// 2026-01-01: any earlier wall time is a clock that was never set.
const PLAUSIBLE_FROM_MS: i64 = 1_767_225_600_000;
/// While the answer is no, the files are looked at again this often.
const RECHECK_NS: u64 = 1_000_000_000;

/// Once somebody has set the clock it stays set; the answer no is looked up again.
static WAS_SET: AtomicBool = AtomicBool::new(false);
static CHECKED_NS: AtomicU64 = AtomicU64::new(0);

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        let now = clock_gettime(ClockId::Realtime);
        now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000)
    }

    fn monotonic_ns(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        // The kernel's monotonic clock starts at boot and is never negative.
        now.tv_sec
            .unsigned_abs()
            .wrapping_mul(1_000_000_000)
            .wrapping_add(now.tv_nsec.unsigned_abs())
    }

    fn is_trusted(&self) -> bool {
        if self.wall_ms() < PLAUSIBLE_FROM_MS {
            return false;
        }
        if WAS_SET.load(Ordering::Relaxed) {
            return true;
        }
        let now = self.monotonic_ns();
        let checked = CHECKED_NS.load(Ordering::Relaxed);
        if checked != 0 && now.saturating_sub(checked) < RECHECK_NS {
            return false;
        }
        CHECKED_NS.store(now, Ordering::Relaxed);
        let set = was_set(Path::new("/run/systemd/timesync"), Path::new("/sys/class/rtc"));
        WAS_SET.store(set, Ordering::Relaxed);
        set
    }
}

/// Whether somebody has set the wall clock since boot, as far as the system's files tell.
fn was_set(timesync: &Path, rtc: &Path) -> bool {
    if timesync.join("synchronized").exists() {
        return true;
    }
    let from_battery = std::fs::read_dir(rtc).is_ok_and(|clocks| {
        clocks.flatten().any(|clock| {
            std::fs::read_to_string(clock.path().join("hctosys"))
                .is_ok_and(|text| text.trim() == "1")
        })
    });
    from_battery || !timesync.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_nobody_has_set_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let (timesync, rtc) = (dir.path().join("timesync"), dir.path().join("rtc"));
        assert!(was_set(&timesync, &rtc), "nobody can tell: believed");
        std::fs::create_dir(&timesync).unwrap();
        assert!(!was_set(&timesync, &rtc), "a time service that has not heard yet");
        std::fs::create_dir_all(rtc.join("rtc0")).unwrap();
        std::fs::write(rtc.join("rtc0/hctosys"), "0\n").unwrap();
        assert!(!was_set(&timesync, &rtc), "a clock without a battery");
        std::fs::write(rtc.join("rtc0/hctosys"), "1\n").unwrap();
        assert!(was_set(&timesync, &rtc));
        std::fs::remove_dir_all(&rtc).unwrap();
        std::fs::write(timesync.join("synchronized"), "").unwrap();
        assert!(was_set(&timesync, &rtc));
    }

    #[test]
    fn monotonic_time_does_not_go_back() {
        let a = SystemClock.monotonic_ns();
        assert!(SystemClock.monotonic_ns() >= a && a > 0);
    }
}
