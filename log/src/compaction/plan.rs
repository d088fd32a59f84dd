//! Which part of which partition is worth compacting now: pure, from what each partition says of itself.
//!
//! The *cleanable* part is what lies below every limit: sealed segments, the persisted checkpoint, the high watermark, the last
//! stable offset, every hold's checkpoint (compaction removes records as retention does, so it never passes an uplink either),
//! and `compaction_lag_ms_min`. It is *clean* up to where the last pass came to, *dirty* behind it.
//!
//! Invariant: nothing outside the cleanable part is ever in a plan. Neighbours: `cleaner` asks, `pass` carries out.

use crate::metadata::TopicSettings;

/// A segment, as far as a plan is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) base: i64,
    pub(crate) bytes: u64,
    /// Log clock at its first and last append.
    pub(crate) first_append_ms: i64,
    pub(crate) last_append_ms: i64,
    /// Log clock from which on all tombstones that a pass has stamped here may go.
    pub(crate) horizon_ms: Option<i64>,
}

/// A partition, as far as a plan is concerned. Ends are exclusive.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// In order, the active one last.
    pub(crate) segments: Vec<SegmentFacts>,
    pub(crate) log_start: i64,
    /// The last pass came to here.
    pub(crate) cleaned_to: i64,
    /// Nothing at or above this may be touched: checkpoint, high watermark, last stable offset and holds.
    pub(crate) limit: i64,
}

/// The log clock, and whether age may be judged by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) ms: i64,
    pub(super) trusted: bool,
}

/// Why a partition is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Tombstones whose time is over wait to go.
    Horizon,
    /// So much of it is dirty, in thousandths.
    Dirty(u16),
    /// Its oldest dirty record has waited for `compaction_lag_ms_max`.
    Lag(u16),
}

/// What could be compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// The first so many segments are cleanable.
    pub(super) segments: usize,
    /// Where the dirty part begins, and where the cleanable part ends.
    pub(super) dirty_from: i64,
    pub(super) end: i64,
    /// Dirty bytes in thousandths of the cleanable ones.
    pub(super) dirty_permille: u16,
    /// `None`: not worth it yet.
    pub(super) due: Option<Due>,
}

/// Plans for one partition; `None` when it has nothing that may be compacted.
pub(super) fn plan(facts: &Facts, settings: &TopicSettings, now: Now) -> Option<Plan> {
    let lag_min = i64::try_from(settings.compaction_lag_ms_min).unwrap_or(i64::MAX);
    let sealed = facts.segments.windows(2);
    let cleanable = sealed
        .take_while(|pair| {
            pair[1].base <= facts.limit
                && (lag_min == 0 || now.ms.saturating_sub(pair[0].last_append_ms) >= lag_min)
        })
        .count();
    let end = facts.segments.get(cleanable)?.base;
    let segments = &facts.segments[..cleanable];
    segments.first()?;
    // As Kafka: what is below the log start was never cleaned and need not be.
    let dirty_from = facts.cleaned_to.max(facts.log_start).min(end);
    let dirty: Vec<_> = dirty_part(facts, cleanable, dirty_from).collect();
    let dirty_bytes: u64 = dirty.iter().map(|s| s.bytes).sum();
    let all_bytes: u64 = segments.iter().map(|s| s.bytes).sum();
    let ratio = u128::from(dirty_bytes) * 1000 / u128::from(all_bytes.max(1));
    let dirty_permille = ratio.min(1000) as u16;
    let waited = dirty.first().map(|s| now.ms.saturating_sub(s.first_append_ms));
    let lag_max = settings.compaction_lag_ms_max.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    let over = now.trusted
        && segments.iter().filter_map(|s| s.horizon_ms).any(|horizon| horizon <= now.ms);
    let due = if dirty_bytes > 0 && waited.zip(lag_max).is_some_and(|(ms, max)| ms > max) {
        Some(Due::Lag(dirty_permille))
    } else if dirty_bytes > 0 && dirty_permille >= settings.dirty_ratio_permille {
        Some(Due::Dirty(dirty_permille))
    } else {
        over.then_some(Due::Horizon)
    };
    Some(Plan { segments: cleanable, dirty_from, end, dirty_permille, due })
}

/// Segments of the cleanable part that reach beyond `dirty_from`.
fn dirty_part(
    facts: &Facts,
    cleanable: usize,
    dirty_from: i64,
) -> impl Iterator<Item = SegmentFacts> {
    let pairs = facts.segments.windows(2).take(cleanable);
    pairs.filter(move |pair| pair[1].base > dirty_from).map(|pair| pair[0])
}

/// Splits adjacent segments into groups that each become one file of at most `bytes_max` (a larger one stays alone).
pub(super) fn group(segments: &[SegmentFacts], end: i64, bytes_max: u64) -> Vec<usize> {
    let (mut groups, mut bytes, mut first) = (Vec::new(), 0, 0);
    for (i, segment) in segments.iter().enumerate() {
        let next = segments.get(i + 1).map_or(end, |s| s.base);
        let fits = groups.last().is_some_and(|n| {
            *n < GROUP_MAX
                && bytes + segment.bytes <= bytes_max
                && next - first <= i64::from(i32::MAX)
        });
        match groups.last_mut().filter(|_| fits) {
            Some(count) => *count += 1,
            None => {
                groups.push(1);
                (bytes, first) = (0, segment.base);
            }
        }
        bytes += segment.bytes;
    }
    groups
}

/// Segments that become one file, at most: a swap is one journal frame and a handful of system calls on the commit thread.
const GROUP_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(base: i64, bytes: u64, at_ms: i64) -> SegmentFacts {
        SegmentFacts {
            base,
            bytes,
            first_append_ms: at_ms,
            last_append_ms: at_ms + 5,
            horizon_ms: None,
        }
    }

    fn facts() -> Facts {
        Facts {
            segments: (0..5).map(|i| segment(i * 10, 100, i * 100)).collect(),
            log_start: 0,
            cleaned_to: 0,
            limit: 50,
        }
    }

    const NOW: Now = Now { ms: 1_000, trusted: true };

    #[test]
    fn the_active_segment_and_what_is_above_the_limit_are_never_taken() {
        let settings = TopicSettings::default();
        let plan_of = |facts: &Facts| plan(facts, &settings, NOW);
        let all = plan_of(&facts()).unwrap();
        assert_eq!((all.segments, all.dirty_from, all.end), (4, 0, 40));
        assert_eq!(all.due, Some(Due::Dirty(1000)));
        let held = plan_of(&Facts { limit: 29, ..facts() }).unwrap();
        assert_eq!((held.segments, held.end), (2, 20), "a segment is taken whole or not at all");
        assert_eq!(plan_of(&Facts { limit: 9, ..facts() }), None);
        let one = Facts { segments: vec![segment(0, 100, 0)], ..facts() };
        assert_eq!(plan_of(&one), None, "the active one alone");
        assert_eq!(plan_of(&Facts { segments: vec![], ..facts() }), None);
    }

    #[test]
    fn it_is_due_when_enough_is_dirty_or_has_waited_long_enough() {
        let mut settings = TopicSettings { dirty_ratio_permille: 500, ..TopicSettings::default() };
        let clean = |cleaned_to, settings: &TopicSettings| {
            plan(&Facts { cleaned_to, ..facts() }, settings, NOW).unwrap()
        };
        assert_eq!(clean(20, &settings).due, Some(Due::Dirty(500)));
        assert_eq!(clean(30, &settings).due, None);
        assert_eq!(clean(30, &settings).dirty_permille, 250);
        // The dirty segment was begun at 300.
        settings.compaction_lag_ms_max = Some(700);
        assert_eq!(clean(30, &settings).due, None);
        settings.compaction_lag_ms_max = Some(699);
        assert_eq!(clean(30, &settings).due, Some(Due::Lag(250)));
        assert_eq!(clean(40, &settings).due, None, "nothing is dirty");
        settings.dirty_ratio_permille = 0;
        assert_eq!(clean(40, &settings).due, None, "nor at a ratio of nothing");
    }

    #[test]
    fn young_segments_wait() {
        let settings = TopicSettings { compaction_lag_ms_min: 800, ..TopicSettings::default() };
        // Last appended to at 5, 105, 205.
        let plan = plan(&facts(), &settings, NOW).unwrap();
        assert_eq!((plan.segments, plan.end), (2, 20));
    }

    #[test]
    fn tombstones_go_by_themselves_when_the_clock_is_trusted() {
        let mut facts = Facts { cleaned_to: 40, ..facts() };
        facts.segments[1].horizon_ms = Some(1_000);
        let settings = TopicSettings::default();
        assert_eq!(plan(&facts, &settings, NOW).unwrap().due, Some(Due::Horizon));
        let early = Now { ms: 999, ..NOW };
        assert_eq!(plan(&facts, &settings, early).unwrap().due, None);
        let blind = Now { trusted: false, ..NOW };
        assert_eq!(plan(&facts, &settings, blind).unwrap().due, None);
    }

    #[test]
    fn the_log_start_counts_as_cleaned() {
        let facts = Facts { log_start: 25, ..facts() };
        let plan = plan(&facts, &TopicSettings::default(), NOW).unwrap();
        assert_eq!((plan.dirty_from, plan.dirty_permille), (25, 500));
    }

    #[test]
    fn groups_fill_a_segment_and_no_more() {
        let sizes = |sizes: &[u64]| -> Vec<SegmentFacts> {
            sizes.iter().enumerate().map(|(i, n)| segment(i as i64 * 10, *n, 0)).collect()
        };
        assert_eq!(group(&sizes(&[40, 40, 40, 200, 10, 10]), 60, 100), [2, 1, 1, 2]);
        assert_eq!(group(&[], 0, 100), [0usize; 0]);
        assert_eq!(group(&sizes(&[1; 70]), 700, 100), [32, 32, 6]);
        let distant = [
            segment(0, 1, 0),
            segment(i64::from(i32::MAX) - 5, 1, 0),
            segment(i64::from(i32::MAX), 1, 0),
        ];
        assert_eq!(
            group(&distant, 1 << 40, 100),
            [2, 1],
            "offsets in a segment are i32 from its base"
        );
    }
}
