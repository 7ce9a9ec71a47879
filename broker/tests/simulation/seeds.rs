//! Running a scenario under many seeds.

use std::env;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

/// Runs `scenario` with `count` seeds, or with those that the environment asks for; tells how to have a failure again.
pub(crate) fn each(test: &str, count: u64, scenario: impl Fn(u64)) {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}: no number")))
    };
    let seeds = match number("HEIZER_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HEIZER_SIM_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scenario(seed))) {
            eprintln!("again: HEIZER_SIM_SEED={seed} cargo test -p heizer-broker --test simulation {test}");
            resume_unwind(panic);
        }
    }
}

/// A scenario's own decisions (splitmix64): those of the simulation must not depend on them.
pub(crate) struct Choices(u64);

impl Choices {
    pub(crate) fn new(seed: u64) -> Choices {
        Choices(seed ^ 0x5eed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(crate) fn micros(&mut self, range: Range<u64>) -> Duration {
        Duration::from_micros(range.start + self.below(range.end - range.start))
    }
}
