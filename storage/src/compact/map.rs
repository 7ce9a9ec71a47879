//! From each key's hash to the last offset it was seen at, in memory that is set aside before.

use super::hash::KeyHasher;

/// Words of a slot: the hash's two, and the offset plus one, so that a slot of zeros is free.
const SLOT_WORDS: usize = 3;
const SLOT_BYTES: usize = SLOT_WORDS * size_of::<u64>();
/// Of 100 slots so many are used at most: beyond that probing gets long.
const LOAD_PERCENT: usize = 90;
/// A map of fewer slots would hardly get anywhere.
const SLOTS_MIN: usize = 16;

/// The keys of one round. Fixed in size; when it is full, it takes new offsets of known keys and no more keys.
pub(crate) struct OffsetMap {
    hasher: KeyHasher,
    /// Zeros straight from the system: pages that no key falls into are never touched.
    words: Vec<u64>,
    keys: usize,
    keys_max: usize,
    latest: i64,
}

impl OffsetMap {
    /// An empty map within `bytes` of memory, under a hash chosen by `seed`.
    pub(crate) fn new(bytes: usize, seed: [u8; 16]) -> Self {
        let slots = (bytes / SLOT_BYTES).max(SLOTS_MIN);
        Self {
            hasher: KeyHasher::new(seed),
            words: vec![0; slots * SLOT_WORDS],
            keys: 0,
            keys_max: slots * LOAD_PERCENT / 100,
            latest: -1,
        }
    }

    /// Notes `key` at `offset`, which is above every offset noted before. `false`: there is no room for it.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hasher.hash(key);
        let slot = self.find(hash);
        if self.words[slot + 2] == 0 {
            if self.keys == self.keys_max {
                return false;
            }
            self.keys += 1;
            self.words[slot] = hash[0];
            self.words[slot + 1] = hash[1];
        }
        self.words[slot + 2] = offset.unsigned_abs() + 1;
        self.latest = offset;
        true
    }

    /// The last offset of `key`, if it was noted.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let noted = self.words[self.find(self.hasher.hash(key)) + 2];
        noted.checked_sub(1).map(|offset| offset as i64)
    }

    /// The map knows of every key up to this offset, -1 if it is empty.
    pub(crate) fn latest(&self) -> i64 {
        self.latest
    }

    /// Everything up to `offset` was seen, whether it had a key or not.
    pub(crate) fn advance(&mut self, offset: i64) {
        self.latest = self.latest.max(offset);
    }

    /// Where the words of the slot start that has `hash`, or would take it.
    fn find(&self, hash: [u64; 2]) -> usize {
        let slots = self.words.len() / SLOT_WORDS;
        let mut slot = ((u128::from(hash[0]) * slots as u128) >> 64) as usize;
        loop {
            let at = slot * SLOT_WORDS;
            // There is always a free one: keys_max is below the number of slots.
            if self.words[at + 2] == 0 || self.words[at..at + 2] == hash {
                return at;
            }
            slot = if slot + 1 == slots { 0 } else { slot + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_key_has_its_last_offset_until_the_map_is_full_and_known_ones_go_on() {
        let slots = 1000;
        let mut map = OffsetMap::new(slots * SLOT_BYTES, [3; 16]);
        let mut model = BTreeMap::new();
        let mut offset = 0;
        loop {
            let key = format!("key-{}", offset * 7919 % 1303);
            if !map.put(key.as_bytes(), offset) {
                assert!(!model.contains_key(&key));
                break;
            }
            model.insert(key, offset);
            offset += 1;
        }
        assert_eq!((model.len(), map.latest()), (slots * LOAD_PERCENT / 100, offset - 1));
        assert!(map.put(b"key-0", offset), "a known key goes on when the map is full");
        model.insert("key-0".to_owned(), offset);
        for (key, offset) in &model {
            assert_eq!(map.get(key.as_bytes()), Some(*offset), "{key}");
        }
        assert_eq!((map.get(b"never"), map.get(b"")), (None, None));
        map.advance(offset + 9);
        assert_eq!(map.latest(), offset + 9);
    }

    #[test]
    fn the_smallest_map_takes_something_and_ends() {
        let mut map = OffsetMap::new(0, [0; 16]);
        let taken = (0..100).take_while(|offset| map.put(&[*offset as u8], *offset)).count();
        assert_eq!(taken, SLOTS_MIN * LOAD_PERCENT / 100);
        assert_eq!(map.get(&[0]), Some(0), "offset 0 is an offset");
    }
}
