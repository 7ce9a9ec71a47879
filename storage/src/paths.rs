//! Names and small text files of a partition's directory, as Kafka has them.

use std::path::{Path, PathBuf};

pub(crate) const LOG: &str = "log";
/// Files for segments to come: out of the log, and made ahead (`crate::recycle`).
pub(crate) const RECYCLED: &str = "log.recycled";
pub(crate) const SPARE: &str = "log.spare";
pub(crate) const INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
pub(crate) const SNAPSHOT: &str = "snapshot";
pub(crate) const EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const METADATA: &str = "partition.metadata";
/// The log start offset, where it lies inside a segment. Kafka keeps one such file per data directory; ours is per
/// partition, so that deleting records of one partition rewrites a few bytes and no other partition's line.
pub(crate) const LOG_START: &str = "log-start-offset-checkpoint";

/// Where compaction goes on: everything below is clean. Kafka keeps one such file per data directory; ours is per
/// partition, so that it goes when its partition goes and is written by the partition's core alone.
pub(crate) const CLEANER_OFFSET: &str = "cleaner-offset-checkpoint";

const OFFSET_DIGITS: usize = 20;

/// `<dir>/<offset in 20 digits>.<suffix>`
pub(crate) fn numbered(dir: &Path, offset: i64, suffix: &str) -> PathBuf {
    dir.join(format!("{offset:0OFFSET_DIGITS$}.{suffix}"))
}

/// Offset and suffix of a numbered file's name.
pub(crate) fn parse_numbered(name: &str) -> Option<(i64, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    let all_digits = digits.len() == OFFSET_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { Some((digits.parse().ok()?, suffix)) } else { None }
}

/// The text of `partition.metadata`.
pub(crate) fn encode_metadata(topic_id: [u8; 16]) -> Vec<u8> {
    format!("version: 0\ntopic_id: {}", encode_id(topic_id)).into_bytes()
}

/// The topic id out of `partition.metadata`.
pub(crate) fn decode_metadata(text: &[u8]) -> Option<[u8; 16]> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    if lines.next()?.trim() != "version: 0" {
        return None;
    }
    decode_id(lines.next()?.strip_prefix("topic_id:")?.trim())
}

/// The text of a checkpoint of one offset: the log start's, the cleaner's.
pub(crate) fn encode_offset(offset: i64) -> Vec<u8> {
    format!("0\n{offset}\n").into_bytes()
}

/// The offset out of a checkpoint of one offset.
pub(crate) fn decode_offset(text: &[u8]) -> Option<i64> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    if lines.next()? != "0" {
        return None;
    }
    lines.next()?.parse().ok().filter(|&offset| offset >= 0)
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const ID_DIGITS: usize = 22;

/// An id as Kafka writes it, of topics and directories alike: URL-safe base64 without padding.
pub fn encode_id(id: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(id);
    // 128 bits in digits of 6: 21 whole ones, and the last two bits, padded on the right, in the 22nd.
    let digit = |at: usize| {
        let shifted = if at < ID_DIGITS - 1 { bits >> (128 - 6 * (at + 1)) } else { bits << 4 };
        char::from(BASE64_URL[(shifted & 63) as usize])
    };
    (0..ID_DIGITS).map(digit).collect()
}

/// The id that Kafka writes like this.
pub fn decode_id(text: &str) -> Option<[u8; 16]> {
    if text.len() != ID_DIGITS {
        return None;
    }
    let mut bits: u128 = 0;
    for (at, byte) in text.bytes().enumerate() {
        let digit = BASE64_URL.iter().position(|&known| known == byte)? as u128;
        bits = if at < ID_DIGITS - 1 { bits << 6 | digit } else { bits << 2 | digit >> 4 };
    }
    Some(bits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_names_round_trip_and_others_are_left_alone() {
        let path = numbered(Path::new("/d/t-0"), 42, LOG);
        assert_eq!(path, Path::new("/d/t-0/00000000000000000042.log"));
        assert_eq!(parse_numbered("00000000000000000042.log"), Some((42, "log")));
        assert_eq!(parse_numbered("00000000000000000042.log.tmp"), Some((42, "log.tmp")));
        for name in
            ["42.log", "leader-epoch-checkpoint", "0000000000000000004x.log", "99999999999999999999.log"]
        {
            assert_eq!(parse_numbered(name), None, "{name}");
        }
    }

    #[test]
    fn ids_are_kafkas_base64() {
        let id = [0x9b, 0x2c, 0x11, 0, 0xff, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xef];
        // From python: base64.urlsafe_b64encode(bytes([...])).rstrip(b"=")
        assert_eq!(encode_id(id), "mywRAP8FBgcICQoLDA0O7w");
        assert_eq!(decode_metadata(&encode_metadata(id)), Some(id));
        assert_eq!(decode_metadata(b"version: 0\ntopic_id: short\n"), None);
        assert_eq!(decode_metadata(b"version: 1\ntopic_id: mywRAP8FBgcICQoLDA0O7w\n"), None);
    }
}
