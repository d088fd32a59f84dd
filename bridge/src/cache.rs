//! Answers of the router, kept per MQTT topic in bounded memory.
//!
//! Invariant: never more than [`BYTES_MAX`] of keys and answers, whatever names devices invent. Two generations: when the
//! young one is full the old one is dropped and the young one takes its place; what is used moves to the young one, so
//! what is in use stays. Neighbour: [`crate::ingress`], which has one cache per group of threads.

use hashbrown::HashMap;
use std::sync::Arc;

/// Bytes of one cache, about: both generations together.
pub(crate) const BYTES_MAX: usize = 4 << 20;

/// What an entry costs beside its key and its answer, about: counts and the table's slot.
const ENTRY_BYTES: usize = 96;

/// Answers with what they cost.
type Entries<V> = HashMap<Box<str>, (Arc<V>, usize)>;

/// A bounded map from MQTT topic to `V`.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    young: Entries<V>,
    old: Entries<V>,
    young_bytes: usize,
    /// The log's metadata and the routes that the answers were made under.
    made_under: (u64, u64),
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_bytes: 0,
            made_under: (u64::MAX, u64::MAX),
        }
    }
}

impl<V> Cache<V> {
    /// Forgets everything unless it was made under these versions of metadata and routes.
    pub(crate) fn keep_if_made_under(&mut self, metadata: u64, routes: u64) {
        if self.made_under != (metadata, routes) {
            self.clear();
            self.made_under = (metadata, routes);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.young_bytes = 0;
    }

    /// The answer for a topic.
    pub(crate) fn get(&mut self, topic: &str) -> Option<Arc<V>> {
        if let Some((value, _)) = self.young.get(topic) {
            return Some(Arc::clone(value));
        }
        let (topic, (value, bytes)) = self.old.remove_entry(topic)?;
        let found = Arc::clone(&value);
        self.put(topic, value, bytes);
        Some(found)
    }

    /// Remembers the answer for a topic; the answer itself takes `value_bytes`.
    pub(crate) fn insert(&mut self, topic: &str, value: Arc<V>, value_bytes: usize) {
        self.put(topic.into(), value, topic.len() + ENTRY_BYTES + value_bytes);
    }

    fn put(&mut self, topic: Box<str>, value: Arc<V>, bytes: usize) {
        if self.young_bytes + bytes > BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(topic, (value, bytes)).is_none() {
            self.young_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_what_is_used_stays() {
        let mut cache = Cache::default();
        cache.keep_if_made_under(1, 1);
        cache.insert("used", Arc::new(0), 0);
        for i in 0..100_000u32 {
            cache.insert(&format!("{i:0>100}"), Arc::new(i), 60);
            assert!(cache.young_bytes <= BYTES_MAX / 2);
            if i % 1_000 == 0 {
                assert_eq!(cache.get("used").as_deref(), Some(&0), "after {i}");
            }
        }
        let held = cache.young.len() + cache.old.len();
        assert!((held - 1) * (100 + 60 + ENTRY_BYTES) <= BYTES_MAX, "{held}");
        assert_eq!(cache.get(&format!("{:0>100}", 0)), None);
    }

    #[test]
    fn another_version_forgets() {
        let mut cache = Cache::default();
        cache.keep_if_made_under(1, 1);
        cache.insert("a", Arc::new(1), 0);
        cache.keep_if_made_under(1, 1);
        assert!(cache.get("a").is_some());
        cache.keep_if_made_under(2, 1);
        assert!(cache.get("a").is_none());
        cache.insert("a", Arc::new(1), 0);
        cache.keep_if_made_under(2, 2);
        assert!(cache.get("a").is_none());
    }
}
