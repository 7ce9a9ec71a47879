//! Which partition a record goes to.

use std::collections::BTreeMap;

/// Kafka's default: records with a key by murmur2 of the key, so that all clients agree; records without one stick
/// to a partition until a batch's worth of bytes went there, then move to another.
#[derive(Debug)]
pub(crate) struct Partitioner {
    sticky_bytes: usize,
    sticky: BTreeMap<String, Sticky>,
}

#[derive(Debug)]
struct Sticky {
    partition: usize,
    bytes: usize,
}

impl Partitioner {
    pub(crate) fn new(sticky_bytes: usize) -> Partitioner {
        Partitioner { sticky_bytes, sticky: BTreeMap::new() }
    }

    /// The partition, of `count`, for a record of `bytes` bytes. `random` is used when a new one is to be stuck to.
    pub(crate) fn choose(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        bytes: usize,
        count: usize,
        random: impl FnOnce() -> u64,
    ) -> i32 {
        assert!(count > 0, "a topic has partitions");
        if let Some(key) = key {
            return partition_for_key(key, count);
        }
        if let Some(sticky) = self.sticky.get_mut(topic)
            && sticky.bytes < self.sticky_bytes
            && sticky.partition < count
        {
            sticky.bytes += bytes;
            return sticky.partition as i32;
        }
        let previous = self.sticky.get(topic).map(|sticky| sticky.partition);
        let partition = match previous {
            // Another one, if there is any.
            Some(previous) if count > 1 && previous < count => {
                (previous + 1 + (random() % (count as u64 - 1)) as usize) % count
            }
            _ => (random() % count as u64) as usize,
        };
        self.sticky.insert(topic.to_owned(), Sticky { partition, bytes });
        partition as i32
    }
}

/// The partition, of `count`, that every Kafka client gives to this key.
pub fn partition_for_key(key: &[u8], count: usize) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % count as i32
}

/// The hash that Kafka's clients spread keys with: MurmurHash2, 32 bits, with Kafka's seed.
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        k ^= k >> SHIFT;
        k = k.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ k;
    }
    for (at, &byte) in tail.iter().enumerate() {
        hash ^= u32::from(byte) << (8 * at);
    }
    if !tail.is_empty() {
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^= hash >> 15;
    hash as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_in_kafka() {
        let table = [
            ("21", -973932308),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
        ];
        for (key, hash) in table {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn records_without_a_key_stick_for_a_batch_and_then_move_on() {
        let mut partitioner = Partitioner::new(100);
        let first = partitioner.choose("t", None, 60, 3, || 1);
        assert_eq!(partitioner.choose("t", None, 60, 3, || unreachable!()), first);
        let second = partitioner.choose("t", None, 60, 3, || 7);
        assert_ne!(second, first);
        assert_eq!(partitioner.choose("t", None, 10, 1, || 5), 0, "the topic shrank to one partition");
        assert_eq!(partitioner.choose("u", Some(b"abc"), 10, 7, || unreachable!()), 479470107 % 7);
    }
}
