//! Random messages: every generated type implements [`Random`] in tests.

use bytes::Bytes;
use bytestring::ByteString;
use uuid::Uuid;

/// Makes a value that `version` can express, so that a round trip returns it unchanged.
pub(crate) trait Random: Sized {
    fn random(g: &mut Gen, version: i16) -> Self;
}

/// A seeded source (splitmix64): the seed replays the test.
pub(crate) struct Gen(u64);

impl Gen {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// The length of an array.
    pub(crate) fn len(&mut self) -> usize {
        self.below(4)
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        if self.one_in(4) { Uuid::nil() } else { Uuid::from_u64_pair(self.next(), self.next()) }
    }

    pub(crate) fn string(&mut self) -> ByteString {
        const ALPHABET: [char; 8] = ['a', 'Z', '0', '-', ' ', 'é', '火', '🔥'];
        // Now and then long enough for a length varint of two bytes.
        let len = if self.one_in(16) { 100 + self.below(100) } else { self.below(12) };
        (0..len).map(|_| ALPHABET[self.below(ALPHABET.len())]).collect::<String>().into()
    }

    /// Sometimes large enough to be spliced.
    pub(crate) fn bytes(&mut self) -> Bytes {
        let len = if self.one_in(8) { 1000 + self.below(3000) } else { self.below(40) };
        (0..len).map(|_| self.next() as u8).collect()
    }
}
