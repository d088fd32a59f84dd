//! The commit delay that spares flash: how long a cycle waits so that the journal keeps to its bytes per day. Pure.
//!
//! Every cycle is padded to 4 KiB, so a trickle of small messages costs many times its bytes; waiting puts more of them into one
//! cycle. A budget gives each byte a time: a day divided by the bytes of a day. Cycles are written on that schedule, as in a
//! leaky bucket (ITU-T I.371, GCRA): an hour's share may be used up at once, and what has been overdrawn, an hour's share at most,
//! is made up for. The wait is bounded, so that a budget too small for the load is missed, and never an acknowledgement's
//! deadline: what was appended is always written.
//!
//! Invariant: `now` is an argument, and never read here.
//! Neighbours: the commit thread waits, `commit` notes what it wrote, `stats` shows both.

use std::time::Duration;

const HOUR_NS: u64 = 3_600_000_000_000;
const DAY_NS: u64 = 24 * HOUR_NS;
/// How much of the budget may be used at once after a quiet time, and overdrawn in a busy one.
const BURST_NS: u64 = HOUR_NS;
const HOURS: u64 = 24;

/// How long cycles wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PaceLimits {
    /// Every cycle waits this long for more.
    pub(crate) delay: Duration,
    /// No cycle waits longer than this for the sake of the budget.
    pub(crate) delay_max: Duration,
    /// The journal of one directory should write no more than this in a day.
    pub(crate) bytes_per_day: Option<u64>,
}

/// Keeps one journal's account.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: PaceLimits,
    /// When all that was written would have been written on schedule.
    on_schedule_ns: u64,
    /// Bytes by hour, the newest of them `hour`.
    hours: [u64; HOURS as usize],
    hour: u64,
}

impl Pace {
    pub(crate) fn new(limits: PaceLimits, now_ns: u64) -> Self {
        let hours = [0; HOURS as usize];
        Self { limits, on_schedule_ns: now_ns.saturating_sub(BURST_NS), hours, hour: 0 }
    }

    /// How long the next cycle waits.
    pub(crate) fn delay(&self, now_ns: u64) -> Duration {
        let early = Duration::from_nanos(self.on_schedule_ns.saturating_sub(now_ns));
        early.min(self.limits.delay_max).max(self.limits.delay)
    }

    /// A cycle of so many bytes was written.
    pub(crate) fn wrote(&mut self, bytes: u64, now_ns: u64) {
        self.turn(now_ns);
        self.hours[(self.hour % HOURS) as usize] += bytes;
        let Some(budget) = self.limits.bytes_per_day else { return };
        let share = u128::from(bytes) * u128::from(DAY_NS) / u128::from(budget.max(1));
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        let from = self.on_schedule_ns.max(now_ns.saturating_sub(BURST_NS));
        self.on_schedule_ns = from.saturating_add(share).min(now_ns.saturating_add(BURST_NS));
    }

    /// Bytes written in the last 24 hours, the hour that runs included.
    pub(crate) fn day_bytes(&mut self, now_ns: u64) -> u64 {
        self.turn(now_ns);
        self.hours.iter().sum()
    }

    /// Forgets hours that lie more than a day back.
    fn turn(&mut self, now_ns: u64) {
        let hour = now_ns / HOUR_NS;
        let passed = hour.saturating_sub(self.hour).min(HOURS);
        for gone in 0..passed {
            self.hours[((hour - gone) % HOURS) as usize] = 0;
        }
        self.hour = self.hour.max(hour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const DELAY_MAX: Duration = Duration::from_millis(100);

    fn pace(bytes_per_day: Option<u64>) -> Pace {
        let limits = PaceLimits { delay: Duration::ZERO, delay_max: DELAY_MAX, bytes_per_day };
        Pace::new(limits, 10 * DAY_NS)
    }

    /// Writes a cycle as soon as it may be, for so long; the bytes written and the longest wait.
    fn trickle(pace: &mut Pace, from_ns: u64, ns: u64) -> (u64, Duration) {
        let (mut now, mut bytes, mut longest) = (from_ns, 0, Duration::ZERO);
        while now < from_ns + ns {
            let delay = pace.delay(now);
            longest = longest.max(delay);
            // The sync takes its time too.
            now += delay.as_nanos() as u64 + MS;
            pace.wrote(4096, now);
            bytes += 4096;
        }
        (bytes, longest)
    }

    #[test]
    fn without_a_budget_only_the_configured_delay_counts() {
        let mut free = pace(None);
        let (bytes, longest) = trickle(&mut free, 10 * DAY_NS, 10_000 * MS);
        assert_eq!((bytes, longest), (10_000 * 4096, Duration::ZERO));
        let delay = Duration::from_millis(3);
        let limits = PaceLimits { delay, delay_max: DELAY_MAX, bytes_per_day: None };
        assert_eq!(Pace::new(limits, 0).delay(5), delay);
        let longer = PaceLimits { delay: Duration::from_secs(1), ..limits };
        assert_eq!(
            Pace::new(longer, 0).delay(5),
            longer.delay,
            "the maximum is the budget's alone"
        );
    }

    #[test]
    fn a_trickle_is_kept_to_the_budget_and_a_quiet_time_is_saved_up() {
        // 10 GiB a day: a cycle of 4 KiB each 33 ms.
        let budget = 10 << 30;
        let mut paced = pace(Some(budget));
        let from = 10 * DAY_NS;
        assert_eq!(paced.delay(from), Duration::ZERO, "a start has an hour's share");
        let (bytes, longest) = trickle(&mut paced, from, 5 * HOUR_NS);
        let share = budget / 24;
        assert!(bytes <= 6 * share + 8192, "{bytes} are more than six hours' {share}");
        assert!(bytes >= 6 * share * 99 / 100, "{bytes} of six hours' {share}");
        assert!(longest < Duration::from_millis(40), "{longest:?}");
        assert_eq!(paced.day_bytes(from + 5 * HOUR_NS), bytes);
        // After half an hour of quiet half an hour's share may be used at once.
        let later = from + 11 * HOUR_NS / 2;
        let (bytes, _) = trickle(&mut paced, later, HOUR_NS / 2);
        assert!((share * 99 / 100..share * 101 / 100).contains(&bytes), "{bytes} of {share}");
    }

    #[test]
    fn no_wait_is_longer_than_the_maximum_and_debt_is_bounded() {
        let mut paced = pace(Some(1 << 20));
        let from = 10 * DAY_NS;
        paced.wrote(1 << 40, from);
        assert_eq!(paced.delay(from), DELAY_MAX);
        assert_eq!(
            paced.delay(from + BURST_NS + 1),
            Duration::ZERO,
            "an hour is the most it costs"
        );
    }

    #[test]
    fn a_day_is_what_the_last_24_hours_wrote() {
        let mut pace = pace(None);
        for hour in 0..30 {
            pace.wrote(10, hour * HOUR_NS + 1);
        }
        assert_eq!(pace.day_bytes(29 * HOUR_NS + 2), 240);
        assert_eq!(pace.day_bytes(40 * HOUR_NS), 130);
        assert_eq!(pace.day_bytes(400 * HOUR_NS), 0);
        pace.wrote(5, 400 * HOUR_NS + 1);
        assert_eq!(pace.day_bytes(400 * HOUR_NS + 2), 5);
    }
}
