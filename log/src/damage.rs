//! Damage that was met while the log ran: which offsets of which partitions could not be read, kept over restarts until a repair.
//!
//! It is a report, no verdict: every read looks at the bytes itself, so what is listed here and can be read again is served. The
//! catalog keeps the ranges (section 7 of a partition), and a new one asks for a checkpoint, so that a restart still knows. A range
//! is forgotten when the log start passes it, when a truncation or the topic's deletion takes it, and by `headwater log repair`.
//!
//! Invariant: ranges of a partition do not overlap: damage that is met again is not counted again. There are at most
//! [`PLACES_MAX`] in a directory; further ones are answered to their readers all the same.
//! Neighbours: `partition::read`, `partition::lookup` and `compaction` note, `stats` tells, `partition::lost` has what a repair
//! has found lost for good.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Places that are remembered.
pub(crate) const PLACES_MAX: usize = 100;

/// One place.
#[derive(Debug)]
struct Met {
    /// First offset that cannot be read, and the next that can.
    first: i64,
    end: i64,
    /// A sentence for a person.
    what: String,
}

/// What a directory's partitions have.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// By handle; rising in each.
    met: Mutex<BTreeMap<u64, Vec<Met>>>,
    /// The catalog does not have all of it.
    unsaved: AtomicBool,
}

impl Damage {
    /// Somebody could not read `first..end`. Says so once per place.
    pub(crate) fn note(&self, handle: u64, first: i64, end: i64, what: impl FnOnce() -> String) {
        let mut met = self.met.lock();
        let count: usize = met.values().map(Vec::len).sum();
        let known = met.get(&handle).is_some_and(|places| {
            places.iter().any(|place| place.first <= first && end <= place.end)
        });
        if known || first >= end {
            return;
        }
        let places = met.entry(handle).or_default();
        let overlaps = |place: &mut Met| place.first < end && first < place.end;
        let same: Vec<Met> = places.extract_if(.., overlaps).collect();
        let what = match same.first() {
            Some(place) => place.what.clone(),
            None if count >= PLACES_MAX => return,
            None => {
                let what = what();
                tracing::error!("{what}");
                what
            }
        };
        let first = same.iter().map(|place| place.first).fold(first, i64::min);
        let end = same.iter().map(|place| place.end).fold(end, i64::max);
        places.push(Met { first, end, what });
        places.sort_by_key(|place| place.first);
        self.unsaved.store(true, Ordering::Release);
    }

    /// Takes what the catalog has of a partition.
    pub(crate) fn restore(&self, handle: u64, name: &str, ranges: &[(i64, i64)]) {
        let place = |(first, end): &(i64, i64)| Met {
            first: *first,
            end: *end,
            what: format!(
                "{name}: offsets {first} to {} were found damaged before this start; stop the node and run `headwater log repair`",
                end - 1
            ),
        };
        if !ranges.is_empty() {
            self.met.lock().insert(handle, ranges.iter().map(place).collect());
        }
    }

    /// What lies in a log from `start` to `end`; forgets the rest.
    pub(crate) fn within(&self, handle: u64, start: i64, end: i64) -> Vec<(i64, i64)> {
        let mut met = self.met.lock();
        let Some(places) = met.get_mut(&handle) else { return Vec::new() };
        places.retain(|place| place.end > start && place.first < end);
        let ranges = places.iter().map(|place| (place.first, place.end)).collect();
        if places.is_empty() {
            met.remove(&handle);
        }
        ranges
    }

    /// A partition is gone.
    pub(crate) fn forget(&self, handle: u64) {
        self.met.lock().remove(&handle);
    }

    /// All of it, a sentence each.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let met = self.met.lock();
        met.values().flatten().map(|place| place.what.clone()).collect()
    }

    /// Whether a checkpoint is wanted so that a restart knows; asked once.
    pub(crate) fn take_unsaved(&self) -> bool {
        self.unsaved.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_met_again_is_one_place_and_there_is_an_end_to_them() {
        let damage = Damage::default();
        let said = std::cell::Cell::new(0);
        let note = |handle, first, end| {
            damage.note(handle, first, end, || {
                said.set(said.get() + 1);
                format!("{handle}: {first}")
            });
        };
        note(1, 10, 12);
        assert!(damage.take_unsaved() && !damage.take_unsaved());
        note(1, 11, 12);
        assert!(!damage.take_unsaved(), "nothing new");
        note(1, 8, 11);
        note(1, 12, 14);
        note(2, 10, 12);
        note(2, 12, 12);
        assert_eq!(damage.within(1, 0, 100), [(8, 12), (12, 14)]);
        assert_eq!((damage.sentences().len(), said.get()), (3, 3), "what grew is not said again");
        note(1, 11, 13);
        assert_eq!(damage.within(1, 0, 100), [(8, 14)], "what lies between is one place");
        assert_eq!(damage.within(1, 14, 100), [], "the log start has passed it");
        assert_eq!(damage.within(1, 0, 100), []);
        damage.forget(2);
        assert!(damage.sentences().is_empty());
        for handle in 0..2 * PLACES_MAX as u64 {
            note(handle, 1, 2);
        }
        assert_eq!(damage.sentences().len(), PLACES_MAX);
    }
}
