//! Hash maps whose seeds come from the core's random source, so that a simulation replays their order.

use std::hash::BuildHasher;

use ahash::{AHasher, RandomState};

use crate::{core, random};

/// A hash map; construct it with `HashMap::default()`.
pub type HashMap<K, V> = std::collections::HashMap<K, V, SeededState>;

/// A hash set; construct it with `HashSet::default()`.
pub type HashSet<K> = std::collections::HashSet<K, SeededState>;

/// Builds hashers from seeds of [`crate::random`].
#[derive(Clone, Debug)]
pub struct SeededState(RandomState);

impl Default for SeededState {
    fn default() -> SeededState {
        // Outside of a core (plain unit tests) order is fixed.
        if core::try_current().is_none() {
            return SeededState(RandomState::with_seeds(1, 2, 3, 4));
        }
        SeededState(RandomState::with_seeds(random::u64(), random::u64(), random::u64(), random::u64()))
    }
}

impl BuildHasher for SeededState {
    type Hasher = AHasher;

    fn build_hasher(&self) -> AHasher {
        self.0.build_hasher()
    }
}
