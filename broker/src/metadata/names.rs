//! Topic names.

/// Longest topic name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Why a topic name is refused; all map to INVALID_TOPIC_EXCEPTION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// No characters.
    #[error("the empty string is not allowed")]
    Empty,
    /// `.` or `..`, which a directory can't be called.
    #[error("'.' and '..' are not allowed")]
    Dots,
    /// Longer than [`TOPIC_NAME_BYTES_MAX`].
    #[error("the length of the name is longer than the maximum allowed length {TOPIC_NAME_BYTES_MAX}")]
    TooLong,
    /// A character other than ASCII letters, digits, `.`, `_` and `-`.
    #[error("the name contains a character other than ASCII alphanumerics, '.', '_' and '-'")]
    Character,
}

/// Checks a topic name by Kafka's rules.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameError> {
    match name {
        "" => return Err(TopicNameError::Empty),
        "." | ".." => return Err(TopicNameError::Dots),
        _ => {}
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(TopicNameError::TooLong);
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.bytes().all(allowed) { Ok(()) } else { Err(TopicNameError::Character) }
}

/// The form in which names collide: metrics turn `.` into `_`, and so two names that differ in nothing else
/// can't both exist.
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        let table = "
            a            ok
            A-b_c.9      ok
            ...          ok
            .            dots
            ..           dots
            a/b          character
            a:b          character
            ä            character";
        for line in table.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (name, expected) = line.split_once(char::is_whitespace).expect("two columns");
            let got = match check_topic_name(name) {
                Ok(()) => "ok",
                Err(TopicNameError::Dots) => "dots",
                Err(TopicNameError::Character) => "character",
                Err(_) => "other",
            };
            assert_eq!(got, expected.trim(), "{name}");
        }
        assert_eq!(check_topic_name(""), Err(TopicNameError::Empty));
        assert_eq!(check_topic_name(&"x".repeat(249)), Ok(()));
        assert_eq!(check_topic_name(&"x".repeat(250)), Err(TopicNameError::TooLong));
    }
}
