//! The simulation's one source of decisions.

use std::cell::Cell;

/// A SplitMix64 generator (Steele, Lea, Flood 2014): tiny, and a seed means the same for ever.
#[derive(Debug)]
pub(super) struct Seeded {
    state: Cell<u64>,
}

impl Seeded {
    pub(super) fn new(seed: u64) -> Seeded {
        Seeded { state: Cell::new(seed) }
    }

    pub(super) fn next(&self) -> u64 {
        self.state.set(self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        mix(self.state.get())
    }

    /// Uniform in `0..bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below zero");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform index into something of `len` elements.
    pub(super) fn index(&self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Uniform in `low..=high`.
    pub(super) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True with `per_million` in a million.
    pub(super) fn chance(&self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// How likely, per million, each of a crash's unsynced changes is to survive: as often all or none as any
    /// number between, since the extremes find bugs of their own.
    pub(super) fn survival(&self) -> u32 {
        match self.below(4) {
            0 => 0,
            1 => 1_000_000,
            _ => self.below(1_000_000) as u32,
        }
    }
}

/// A bijection whose every output bit depends on every input bit.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
