//! The newest offset of each key of the dirty part, in a fixed amount of memory.
//!
//! Open addressing over slots of 24 bytes: a 128-bit hash of the key and an offset. The key itself is not kept, so one map
//! serves keys of any length; the hash is SipHash under a random key of this run, so nobody who chooses the keys of records can
//! choose two that collide (Kafka's `SkimpyOffsetMap` does the same with MD5, under no key).
//!
//! Invariant: memory is what was asked for, whatever the keys; a key is either in the map with its newest offset, or was refused
//! because the map is full. Neighbours: `pass` fills it from the dirty part and asks it of every record.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// Slots in use, in hundredths of all: beyond this, probes become long (Kafka's `log.cleaner.io.buffer.load.factor`).
const LOAD_PERCENT: usize = 90;
/// A map of fewer slots would get nowhere.
const SLOTS_MIN: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    /// Negative: the slot is free.
    offset: i64,
}

const FREE: Slot = Slot { hash: [0; 2], offset: -1 };

/// The map.
#[derive(Debug)]
pub(super) struct OffsetMap {
    slots: Vec<Slot>,
    used: usize,
    used_max: usize,
    secret: [u8; 16],
}

/// No room for another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl OffsetMap {
    /// A map that takes about this much memory, and hashes under this secret.
    pub(super) fn new(memory_bytes: usize, secret: [u8; 16]) -> Self {
        let slots = (memory_bytes / size_of::<Slot>()).max(SLOTS_MIN);
        Self { slots: vec![FREE; slots], used: 0, used_max: slots * LOAD_PERCENT / 100, secret }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// The slot that has this hash, or the free one where it would go. Ends, as there always are free slots.
    fn find(&self, hash: [u64; 2]) -> usize {
        let count = self.slots.len();
        let mut at = ((u128::from(hash[0]) * count as u128) >> 64) as usize;
        while self.slots[at].offset >= 0 && self.slots[at].hash != hash {
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        at
    }

    /// Notes the offset of a key; offsets come in rising order.
    pub(super) fn put(&mut self, key: &[u8], offset: i64) -> Result<(), Full> {
        let hash = self.hash(key);
        let at = self.find(hash);
        if self.slots[at].offset < 0 {
            if self.used == self.used_max {
                return Err(Full);
            }
            self.used += 1;
        }
        self.slots[at] = Slot { hash, offset };
        Ok(())
    }

    /// The newest offset of a key, if it is in the dirty part.
    pub(super) fn get(&self, key: &[u8]) -> Option<i64> {
        if self.used == 0 {
            return None;
        }
        Some(self.slots[self.find(self.hash(key))].offset).filter(|offset| *offset >= 0)
    }

    /// Keys in it.
    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_full_map_refuses_new_keys_and_goes_on_with_known_ones() {
        let mut map = OffsetMap::new(0, [7; 16]);
        let mut offset = 0;
        while map.put(&u64::to_be_bytes(offset as u64), offset).is_ok() {
            offset += 1;
        }
        assert_eq!(map.keys(), SLOTS_MIN * LOAD_PERCENT / 100);
        assert_eq!(map.put(b"new", 1_000), Err(Full));
        assert_eq!(map.put(&u64::to_be_bytes(3), 1_000), Ok(()));
        assert_eq!(map.get(&u64::to_be_bytes(3)), Some(1_000));
        assert_eq!(map.get(&u64::to_be_bytes(4)), Some(4));
        assert_eq!(map.get(b"new"), None);
    }

    proptest! {
        #[test]
        fn it_answers_as_a_map_does(keys in proptest::collection::vec(0u16..400, 0..1000), secret: [u8; 16]) {
            let mut map = OffsetMap::new(24 * 600, secret);
            let mut model = HashMap::new();
            for (offset, key) in keys.iter().enumerate() {
                map.put(&key.to_be_bytes(), offset as i64).unwrap();
                model.insert(*key, offset as i64);
            }
            for key in 0u16..500 {
                prop_assert_eq!(map.get(&key.to_be_bytes()), model.get(&key).copied());
            }
            prop_assert_eq!(map.keys(), model.len());
        }
    }
}
