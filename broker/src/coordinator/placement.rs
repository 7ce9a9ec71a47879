//! Which partition of an internal topic a coordinator key belongs to.

/// The partition of `__consumer_offsets` (or of `__transaction_state`) that serves `key`: Java's
/// `String.hashCode`, which runs over UTF-16 units, without its sign bit, modulo the partition count.
///
/// # Panics
/// If `partitions` is not positive.
#[must_use]
pub fn partition_for(key: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    let hash =
        key.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % partitions
}

#[cfg(test)]
mod tests {
    use super::partition_for;

    /// Values as a JVM prints them.
    #[test]
    fn hash_is_javas_string_hash_without_its_sign() {
        let hash = |key: &str| partition_for(key, i32::MAX);
        assert_eq!(hash(""), 0);
        assert_eq!(hash("a"), 97);
        assert_eq!(hash("ab"), 97 * 31 + 98);
        assert_eq!(hash("hello"), 99_162_322);
        // "polygenelubricants".hashCode() is Integer.MIN_VALUE: the sign bit goes, zero remains.
        assert_eq!(hash("polygenelubricants"), 0);
    }

    #[test]
    fn characters_beyond_the_basic_plane_count_as_two_units() {
        // U+1F525 is the pair D83D DD25.
        assert_eq!(partition_for("\u{1F525}", i32::MAX), 0xD83D * 31 + 0xDD25);
    }

    #[test]
    fn result_is_a_partition() {
        for key in ["", "group", "ärger", "connect-cluster", "polygenelubricants"] {
            assert!((0..50).contains(&partition_for(key, 50)), "{key}");
        }
    }
}
