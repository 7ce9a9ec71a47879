//! Tests that explore: under many seeds a scenario is run to its end once, and then again for each of its disk
//! operations, at which its node goes down.
//!
//! | variable | what it asks for |
//! |---|---|
//! | `HEIZER_SIM_SEEDS=200` | so many seeds, with every disk operation of each; 0: seeds without end |
//! | `HEIZER_SIM_SEED=17` | this seed alone, with every disk operation |
//! | `HEIZER_SIM_AT=120` | of those, this operation alone |

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The seeds of one test, and how to have a failure again.
pub(crate) struct Exploration {
    test: &'static str,
    seeds: u64,
    points_a_seed: u64,
}

impl Exploration {
    /// `test` is the name that `cargo test` knows it by. Unless the environment asks for more, it takes `seeds` seeds
    /// and of each about `points_a_seed` disk operations.
    pub(crate) fn new(test: &'static str, seeds: u64, points_a_seed: u64) -> Exploration {
        Exploration { test, seeds, points_a_seed }
    }

    /// Whether this is the run that everybody does, which has to prove that it explored enough.
    pub(crate) fn is_default(&self) -> bool {
        ["HEIZER_SIM_SEEDS", "HEIZER_SIM_SEED", "HEIZER_SIM_AT"].iter().all(|name| number(name).is_none())
    }

    /// The seeds in order.
    pub(crate) fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        let (first, count) = match (number("HEIZER_SIM_SEED"), number("HEIZER_SIM_SEEDS")) {
            (Some(seed), _) => (seed, 1),
            (None, Some(0)) => (0, u64::MAX),
            (None, count) => (0, count.unwrap_or(self.seeds)),
        };
        (0..count).map(move |at| first + at)
    }

    /// At which of the `operations` disk operations of a seed's scenario it goes down, counted from one.
    pub(crate) fn points(&self, seed: u64, operations: u64) -> Vec<u64> {
        if let Some(at) = number("HEIZER_SIM_AT") {
            return vec![at];
        }
        let stride = if self.is_default() { (operations / self.points_a_seed).max(1) } else { 1 };
        // Another seed starts at another one, so that all kinds of operations have their turn.
        (1 + seed % stride..=operations).step_by(usize::try_from(stride).expect("small")).collect()
    }

    /// Runs one attempt; should it fail, says how to have it again.
    pub(crate) fn attempt<T>(&self, seed: u64, at: Option<u64>, run: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let at = at.map(|at| format!("HEIZER_SIM_AT={at} ")).unwrap_or_default();
            let test = self.test;
            eprintln!("seed {seed} fails; again: HEIZER_SIM_SEED={seed} {at}cargo test -p heizer-storage --lib {test}");
            resume_unwind(panic)
        })
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

/// A test's own decisions (SplitMix64; Steele, Lea, Flood 2014): what it does next must not depend on what the
/// simulation has drawn so far.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Seeds that differ in a bit give sequences that have nothing to do with one another.
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x5eed)
    }

    /// Uniform in `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several, each as likely as the others.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let at = self.below(choices.len() as u64);
        choices[usize::try_from(at).expect("an index")]
    }
}
