//! A bounded cache that gives way by second chance (CLOCK): every operation takes constant time, however much it holds.
//!
//! Invariant: it never holds more than its bound, and every key has exactly one slot.
//! Neighbours: `files` keeps open files in one, `indexes` what is loaded of sealed segments.

use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    /// Asked for since the hand last passed.
    used: bool,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    slots: Vec<Slot<K, V>>,
    places: HashMap<K, usize>,
    hand: usize,
    max: usize,
}

impl<K: Hash + Eq + Copy, V> Cache<K, V> {
    /// Holds at most `max` values, one at least.
    pub(crate) fn new(max: usize) -> Self {
        Self { slots: Vec::new(), places: HashMap::new(), hand: 0, max: max.max(1) }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        let slot = self.slots.get_mut(*self.places.get(key)?)?;
        slot.used = true;
        Some(&slot.value)
    }

    /// Keeps a value; returns what gave way to it: the one under this key before, or one not asked for lately. The caller
    /// drops it outside of its lock.
    pub(crate) fn put(&mut self, key: K, value: V) -> Option<V> {
        if let Some(place) = self.places.get(&key) {
            let slot = self.slots.get_mut(*place)?;
            slot.used = true;
            return Some(std::mem::replace(&mut slot.value, value));
        }
        let slot = Slot { key, value, used: false };
        if self.slots.len() < self.max {
            self.places.insert(key, self.slots.len());
            self.slots.push(slot);
            return None;
        }
        // Each step of the hand takes back what one `get` gave: the steps are paid for by the gets before.
        while std::mem::take(&mut self.slots[self.hand].used) {
            self.hand = (self.hand + 1) % self.slots.len();
        }
        let old = std::mem::replace(&mut self.slots[self.hand], slot);
        self.places.remove(&old.key);
        self.places.insert(key, self.hand);
        self.hand = (self.hand + 1) % self.slots.len();
        Some(old.value)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.places.remove(key)?;
        let gone = self.slots.swap_remove(place);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.key, place);
        }
        if self.hand >= self.slots.len() {
            self.hand = 0;
        }
        Some(gone.value)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_gives_way() {
        let mut cache = Cache::new(3);
        for key in 0..3 {
            assert_eq!(cache.put(key, key * 10), None);
        }
        assert_eq!(cache.get(&0), Some(&0));
        assert_eq!(cache.put(3, 30), Some(10), "0 was asked for, 1 was not");
        assert_eq!(cache.get(&0), Some(&0));
        assert_eq!(cache.put(3, 31), Some(30), "its own older value");
        assert_eq!(cache.remove(&0), Some(0));
        assert_eq!(cache.len(), 2);
    }

    proptest! {
        #[test]
        fn never_above_its_bound_and_never_a_wrong_value(
            max in 1usize..6,
            steps in proptest::collection::vec((0u8..3, 0u8..12), 0..200),
        ) {
            let mut cache = Cache::new(max);
            let mut newest = HashMap::new();
            for (i, (what, key)) in steps.into_iter().enumerate() {
                match what {
                    0 => {
                        cache.put(key, i);
                        newest.insert(key, i);
                        prop_assert_eq!(cache.get(&key), Some(&i), "what was put is there");
                    }
                    1 => drop(cache.remove(&key)),
                    _ => if let Some(found) = cache.get(&key) {
                        prop_assert_eq!(newest.get(&key), Some(found));
                    },
                }
                prop_assert!(cache.len() <= max);
                prop_assert_eq!(cache.places.len(), cache.slots.len());
                prop_assert!(cache.places.iter().all(|(k, at)| cache.slots[*at].key == *k));
            }
        }
    }
}
