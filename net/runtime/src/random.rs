//! The only source of randomness: each core has its own, seeded by the kernel or by the simulation.

use rand::Rng;

use crate::core;

/// A uniform number.
pub fn u64() -> u64 {
    core::current().rng.borrow_mut().next_u64()
}

/// A uniform number below `bound`.
pub fn below(bound: u64) -> u64 {
    assert!(bound > 0, "nothing lies below zero");
    // The bias of a 64-bit multiply-shift is below 2^-32 for every bound in use here.
    ((u128::from(u64()) * u128::from(bound)) >> 64) as u64
}

/// Uniform bytes. Not for secrets.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    core::current().rng.borrow_mut().fill_bytes(&mut bytes);
    bytes
}
