//! The commit delay that spares flash: how long a cycle waits so that the journal keeps to its bytes per day. Pure.
//!
//! Every cycle is padded to 4 KiB, so a trickle of small messages costs many times its bytes; waiting puts more of them into one
//! cycle. A budget gives each byte a time: a day divided by the bytes of a day. Cycles are written on that schedule, as in a
//! leaky bucket (ITU-T I.371, GCRA): an hour's share may be used up at once, and what has been overdrawn, an hour's share at most,
//! is made up for. The wait is bounded, so that a budget too small for the load is missed, and never an acknowledgement's
//! deadline: what was appended is always written.
//!
//! The account goes on over a restart, or a device that is restarted every hour would write a day's budget in each. Each checkpoint
//! notes it (section 1 of the catalog), and a start adds what the journal has behind the checkpoint. Little-endian:
//!
//! | byte | field |
//! |---|---|
//! | 0 | i64 ns by which what was written is ahead of the schedule; negative: so much is saved up |
//! | 8 | u64 bytes written in the hour that runs, then in each of the 23 before it |
//!
//! Time that passed meanwhile counts as far as a trusted clock vouches for it, otherwise not at all.
//!
//! Invariant: `now` is an argument, and never read here.
//! Neighbours: the commit thread waits, `commit` notes what it wrote, `stats` shows both, `checkpoint` and `recovery` keep it.

use crate::encoding::{Fields, Put};
use std::time::Duration;

const HOUR_NS: u64 = 3_600_000_000_000;
const DAY_NS: u64 = 24 * HOUR_NS;
/// How much of the budget may be used at once after a quiet time, and overdrawn in a busy one.
const BURST_NS: i64 = HOUR_NS as i64;
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

/// What of a journal's account outlives a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    ahead_ns: i64,
    /// The hour that runs first.
    hours: [u64; HOURS as usize],
}

impl Account {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_i64(self.ahead_ns);
        self.hours.iter().for_each(|bytes| out.put_u64(*bytes));
    }

    pub(crate) fn decode(f: &mut Fields<'_>) -> Option<Self> {
        let ahead_ns = f.i64()?;
        let mut hours = [0; HOURS as usize];
        for bytes in &mut hours {
            *bytes = f.u64()?;
        }
        Some(Self { ahead_ns, hours })
    }
}

/// Keeps one journal's account.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: PaceLimits,
    /// When all that was written would have been written on schedule.
    /// Below zero where an hour before now the machine's clock had not begun.
    on_schedule_ns: i64,
    /// Bytes by hour, the newest of them `hour`.
    hours: [u64; HOURS as usize],
    hour: u64,
}

impl Pace {
    pub(crate) fn new(limits: PaceLimits, now_ns: u64) -> Self {
        let hours = [0; HOURS as usize];
        Self { limits, on_schedule_ns: signed(now_ns) - BURST_NS, hours, hour: 0 }
    }

    /// Goes on with an account that was noted so long ago.
    pub(crate) fn resume(
        limits: PaceLimits,
        account: &Account,
        passed: Duration,
        now_ns: u64,
    ) -> Self {
        let mut pace = Self::new(limits, now_ns);
        let passed_ns = i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX);
        let ahead_ns = account.ahead_ns.saturating_sub(passed_ns).clamp(-BURST_NS, BURST_NS);
        pace.on_schedule_ns = signed(now_ns) + ahead_ns;
        pace.hour = now_ns / HOUR_NS;
        let gone = passed.as_secs() / 3600;
        for (age, bytes) in (gone..HOURS).zip(account.hours) {
            pace.hours[((pace.hour + HOURS - age) % HOURS) as usize] = bytes;
        }
        pace
    }

    /// The account as it is now; `None` while nothing was ever written.
    pub(crate) fn account(&mut self, now_ns: u64) -> Option<Account> {
        self.turn(now_ns);
        let ages = std::array::from_fn(|age| (self.hour + HOURS - age as u64) % HOURS);
        let hours = ages.map(|at: u64| self.hours[at as usize]);
        let ahead_ns = (self.on_schedule_ns - signed(now_ns)).max(-BURST_NS);
        (hours != [0; HOURS as usize] || ahead_ns > -BURST_NS)
            .then_some(Account { ahead_ns, hours })
    }

    /// How long the next cycle waits.
    pub(crate) fn delay(&self, now_ns: u64) -> Duration {
        let early = u64::try_from(self.on_schedule_ns - signed(now_ns)).unwrap_or(0);
        let early = Duration::from_nanos(early);
        early.min(self.limits.delay_max).max(self.limits.delay)
    }

    /// A cycle of so many bytes was written.
    pub(crate) fn wrote(&mut self, bytes: u64, now_ns: u64) {
        self.turn(now_ns);
        self.hours[(self.hour % HOURS) as usize] += bytes;
        let Some(budget) = self.limits.bytes_per_day else { return };
        let share = u128::from(bytes) * u128::from(DAY_NS) / u128::from(budget.max(1));
        let share = i64::try_from(share).unwrap_or(i64::MAX);
        let from = self.on_schedule_ns.max(signed(now_ns) - BURST_NS);
        self.on_schedule_ns = from.saturating_add(share).min(signed(now_ns) + BURST_NS);
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

/// Monotonic time, of which 292 years fit, and an hour more to be added.
fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX).min(i64::MAX / 2)
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
    fn a_restart_gives_no_new_budget() {
        let budget = 10 << 30;
        let limits = pace(Some(budget)).limits;
        let (mut paced, mut now, mut bytes) = (pace(Some(budget)), 10 * DAY_NS, 0);
        for hour in 0..23 {
            let (written, _) = trickle(&mut paced, now, HOUR_NS);
            bytes += written;
            let account = paced.account(now + HOUR_NS).unwrap();
            let mut encoded = Vec::new();
            account.encode(&mut encoded);
            assert_eq!(Account::decode(&mut Fields::new(&encoded)), Some(account));
            // The machine's own clock begins anew, as it does with a machine.
            now = 5 * MS + hour;
            paced = Pace::resume(limits, &account, Duration::ZERO, now);
        }
        assert!(bytes <= budget + 24 * 8192, "{bytes} of 23 hours and a start's share: {budget}");
        assert_eq!(paced.day_bytes(now), bytes);
        let account = paced.account(now).unwrap();
        // Half an hour without it was saved up; a day of it is forgotten.
        let mut later = Pace::resume(limits, &account, Duration::from_secs(1800), now);
        let (saved, _) = trickle(&mut later, now, MS);
        assert!(saved < 8192, "{saved}");
        let ahead = |a: Account| a.ahead_ns;
        let gained = ahead(account) - ahead(later.account(now).unwrap());
        assert!((1_790_000_000_000..=1_800_000_000_000).contains(&gained), "{gained}");
        let mut next_day = Pace::resume(limits, &account, Duration::from_secs(86_400), now);
        assert_eq!((next_day.account(now), next_day.day_bytes(now)), (None, 0));
    }

    #[test]
    fn no_wait_is_longer_than_the_maximum_and_debt_is_bounded() {
        let mut paced = pace(Some(1 << 20));
        let from = 10 * DAY_NS;
        paced.wrote(1 << 40, from);
        assert_eq!(paced.delay(from), DELAY_MAX);
        assert_eq!(paced.delay(from + HOUR_NS + 1), Duration::ZERO, "an hour is the most it costs");
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
