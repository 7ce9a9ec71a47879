//! SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, 2012), under a key nobody can guess.
//!
//! Two keys of one round that share a hash would cost the older one its value. With a secret key a client cannot make
//! such keys, and by chance a billion of them meet with odds of 2^-69.

/// A hash function out of the family.
#[derive(Clone, Debug)]
pub(crate) struct KeyHasher {
    k0: u64,
    k1: u64,
}

struct Sip {
    v: [u64; 4],
}

impl Sip {
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.v;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32).wrapping_add(*d);
        *c = c.wrapping_add(*b);
        *d = d.rotate_left(21) ^ *a;
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.round());
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.rounds(2);
        self.v[0] ^= word;
    }

    fn output(&self) -> u64 {
        self.v.iter().fold(0, |out, word| out ^ word)
    }
}

impl KeyHasher {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        let (words, _) = key.as_chunks::<8>();
        Self { k0: u64::from_le_bytes(words[0]), k1: u64::from_le_bytes(words[1]) }
    }

    pub(crate) fn hash(&self, bytes: &[u8]) -> [u64; 2] {
        let mut sip = Sip {
            v: [
                self.k0 ^ 0x736f_6d65_7073_6575,
                self.k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
                self.k0 ^ 0x6c79_6765_6e65_7261,
                self.k1 ^ 0x7465_6462_7974_6573,
            ],
        };
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| sip.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = (bytes.len() & 0xff) as u8;
        sip.word(u64::from_le_bytes(last));
        sip.v[2] ^= 0xee;
        sip.rounds(4);
        let first = sip.output();
        sip.v[1] ^= 0xdd;
        sip.rounds(4);
        [first, sip.output()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first vectors of the reference implementation: key 00 01 … 0f, input 00 01 … of growing length.
    #[test]
    fn hashes_are_those_of_the_reference() {
        let hasher = KeyHasher::new(std::array::from_fn(|at| at as u8));
        let input: Vec<u8> = (0..16).collect();
        let table = [
            (0, 0xe6a8_25ba_047f_81a3_u64, 0x9302_55c7_1472_f66d_u64),
            (1, 0x44af_996b_d8c1_87da, 0x45fc_229b_1159_7634),
        ];
        for (length, first, second) in table {
            assert_eq!(hasher.hash(&input[..length]), [first, second], "{length} bytes");
        }
        let mut all: Vec<_> = (0..=16).map(|length| hasher.hash(&input[..length])).collect();
        all.push(KeyHasher::new([7; 16]).hash(&[]));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
