//! What stands in a record's value, so that whoever reads it can tell everything that may have gone wrong with it.
//!
//! ```text
//!  0 magic        u32     16 sequence u64   of this producer in this partition, from 0
//!  4 run          u32     24 due      u64   ns on the run's clock
//!  8 producer     u32     32 random   u32   so many bytes of filler are random, the rest zeros
//! 12 position     u32     36 check    u32   of all of the above and of the value's length
//! 40 filler: the pattern from `position` on, around its end
//! ```

/// The header in front of the filler, and the least that a value may have.
pub(crate) const VALUE_BYTES_MIN: usize = 40;
const MAGIC: u32 = 0x485a_4c44;
/// Longer than the windows of gzip, snappy and lz4, so that a batch holds nothing twice that they could find, and
/// short enough for a second-level cache.
const PATTERN_BYTES: usize = 256 << 10;

/// The header of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Tells this run's records from those of an earlier one.
    pub(crate) run: u32,
    /// The producer's number within the run.
    pub(crate) producer: u32,
    /// Where in the pattern the filler begins.
    pub(crate) position: u32,
    /// Bytes of the filler that come from the pattern.
    pub(crate) random_bytes: u32,
    /// Number of the record among those of its producer in its partition.
    pub(crate) sequence: u64,
    /// When it was due.
    pub(crate) due_ns: u64,
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Nobody here has written it.
    Foreign,
    /// It has been written here, and not like this.
    Corrupt,
}

impl Stamp {
    /// Writes the header into the beginning of a value.
    pub(crate) fn write(&self, value: &mut [u8]) {
        let header = value.first_chunk_mut::<VALUE_BYTES_MIN>().expect("a value has room for its header");
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&self.run.to_le_bytes());
        header[8..12].copy_from_slice(&self.producer.to_le_bytes());
        header[12..16].copy_from_slice(&self.position.to_le_bytes());
        header[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        header[24..32].copy_from_slice(&self.due_ns.to_le_bytes());
        header[32..36].copy_from_slice(&self.random_bytes.to_le_bytes());
        let check = self.check(value.len());
        value[36..40].copy_from_slice(&check.to_le_bytes());
    }

    /// Reads the header and compares the filler.
    pub(crate) fn read(value: &[u8], pattern: &Pattern) -> Result<Stamp, Unreadable> {
        let Some(header) = value.first_chunk::<VALUE_BYTES_MIN>() else { return Err(Unreadable::Foreign) };
        if u32_at(header, 0) != MAGIC {
            return Err(Unreadable::Foreign);
        }
        let stamp = Stamp {
            run: u32_at(header, 4),
            producer: u32_at(header, 8),
            position: u32_at(header, 12),
            sequence: u64_at(header, 16),
            due_ns: u64_at(header, 24),
            random_bytes: u32_at(header, 32),
        };
        let filler = &value[VALUE_BYTES_MIN..];
        let whole = u32_at(header, 36) == stamp.check(value.len())
            && pattern.matches(filler, stamp.position as usize, stamp.random_bytes as usize);
        if whole { Ok(stamp) } else { Err(Unreadable::Corrupt) }
    }

    fn check(&self, value_bytes: usize) -> u32 {
        let halves = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let mut sum = 0x9e37_79b9_7f4a_7c15_u64 ^ value_bytes as u64;
        for word in [
            halves(self.run, self.producer),
            halves(self.position, self.random_bytes),
            self.sequence,
            self.due_ns,
        ] {
            sum = (sum ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            sum ^= sum >> 32;
        }
        sum as u32
    }
}

fn u32_at(header: &[u8; VALUE_BYTES_MIN], at: usize) -> u32 {
    u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(header: &[u8; VALUE_BYTES_MIN], at: usize) -> u64 {
    u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"))
}

/// Random bytes, the same in every run.
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    /// Made once for a run.
    pub(crate) fn new() -> Pattern {
        let mut state = 0_u64;
        let words = (0..PATTERN_BYTES / 8).flat_map(|_| splitmix(&mut state).to_le_bytes());
        Pattern(words.collect())
    }

    /// Where the filler of a batch's `index`th value begins: behind that of the one before.
    pub(crate) fn position(index: usize, value_bytes: usize) -> u32 {
        (index.wrapping_mul(value_bytes) % PATTERN_BYTES) as u32
    }

    /// Fills `filler`: `random_bytes` from `position` on, then zeros.
    pub(crate) fn fill(&self, filler: &mut [u8], position: usize, random_bytes: usize) {
        let (mut random, zeros) = filler.split_at_mut(random_bytes);
        zeros.fill(0);
        let mut from = position % PATTERN_BYTES;
        while !random.is_empty() {
            let count = random.len().min(PATTERN_BYTES - from);
            let (now, later) = random.split_at_mut(count);
            now.copy_from_slice(&self.0[from..from + count]);
            random = later;
            from = 0;
        }
    }

    fn matches(&self, filler: &[u8], position: usize, random_bytes: usize) -> bool {
        let Some((mut random, zeros)) = filler.split_at_checked(random_bytes) else { return false };
        let mut from = position % PATTERN_BYTES;
        while !random.is_empty() {
            let count = random.len().min(PATTERN_BYTES - from);
            let (now, later) = random.split_at(count);
            if now != &self.0[from..from + count] {
                return false;
            }
            random = later;
            from = 0;
        }
        zeros.iter().all(|&byte| byte == 0)
    }
}

/// The next number of a sequence that looks random (Steele, Lea and Flood, 2014).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp =
        Stamp { run: 7, producer: 3, position: 0, random_bytes: 0, sequence: 1 << 40, due_ns: u64::MAX };

    fn value(stamp: Stamp, bytes: usize, pattern: &Pattern) -> Vec<u8> {
        let mut value = vec![0xff; bytes];
        pattern.fill(&mut value[VALUE_BYTES_MIN..], stamp.position as usize, stamp.random_bytes as usize);
        stamp.write(&mut value);
        value
    }

    #[test]
    fn what_was_written_is_read_at_every_size_and_around_the_patterns_end() {
        let pattern = Pattern::new();
        for bytes in [40, 41, 100, 5_000, 2 * PATTERN_BYTES + 40] {
            for position in [0, 1, PATTERN_BYTES as u32 - 3] {
                for random_bytes in [0, (bytes as u32 - 40) / 2, bytes as u32 - 40] {
                    let stamp = Stamp { position, random_bytes, ..STAMP };
                    assert_eq!(Stamp::read(&value(stamp, bytes, &pattern), &pattern), Ok(stamp));
                }
            }
        }
    }

    #[test]
    fn a_changed_bit_is_noticed_wherever_it_is() {
        let pattern = Pattern::new();
        let sound = value(Stamp { random_bytes: 20, ..STAMP }, 80, &pattern);
        for bit in 0..sound.len() * 8 {
            let mut changed = sound.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 32 { Unreadable::Foreign } else { Unreadable::Corrupt };
            assert_eq!(Stamp::read(&changed, &pattern), Err(expected), "bit {bit}");
        }
        assert_eq!(Stamp::read(&sound[..79], &pattern), Err(Unreadable::Corrupt), "a zero less");
        assert_eq!(Stamp::read(&sound[..50], &pattern), Err(Unreadable::Corrupt), "less than is random");
        assert_eq!(Stamp::read(&sound[..39], &pattern), Err(Unreadable::Foreign));
    }

    #[test]
    fn fillers_of_one_batch_lie_at_different_places() {
        let places: std::collections::BTreeSet<u32> = (0..64).map(|at| Pattern::position(at, 1024)).collect();
        assert_eq!(places.len(), 64);
    }
}
