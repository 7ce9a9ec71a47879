//! Messages of the formats v0 and v1, which Apache Kafka wrote before 0.11 and which no broker takes any more.
//!
//! ```text
//!  0 offset     i64      12 CRC-32 of the rest u32     v0: 18 key, value, each behind its length as i32
//!  8 size       i32      16 magic 0 or 1       i8      v1: 18 timestamp i64, then key and value
//!                        17 attributes         i8
//! ```

use bytes::Bytes;

/// Bytes up to the attributes, and including them.
const PREFIX_BYTES: usize = 18;
/// Bytes in front of what the size field counts.
pub(super) const SIZE_END: usize = 12;
const CRC_AT: usize = 12;
const CRC_FROM: usize = 16;
const TIMESTAMP_BYTES: usize = 8;
/// Key and value at their least: two lengths.
const LENGTHS_BYTES: usize = 8;
const COMPRESSION_BITS: u8 = 0b111;
const LOG_APPEND_TIME_BIT: u8 = 1 << 3;

/// One message; if it is compressed, the wrapper around a set of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyMessage {
    /// Its offset; the wrapper's is that of the last message inside.
    pub offset: i64,
    /// 0 or 1.
    pub magic: u8,
    /// The CRC-32 (not CRC32C) that it holds.
    pub crc: u32,
    /// Compression and, in v1, timestamp type.
    pub attributes: u8,
    /// In ms; -1 in v0.
    pub timestamp: i64,
    /// Bytes in all.
    pub size: usize,
}

/// What a message that is not compressed carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyRecord {
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
}

impl LegacyMessage {
    /// Parses what stands in front of key and value. The reason if it makes no sense.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else {
            return Err(format!("{} bytes are no message", bytes.len()));
        };
        let size = i32::from_be_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]);
        let (magic, attributes) = (prefix[16], prefix[17]);
        let timestamp_bytes = if magic == 0 { 0 } else { TIMESTAMP_BYTES };
        let least = PREFIX_BYTES - SIZE_END + timestamp_bytes + LENGTHS_BYTES;
        let Some(size) = usize::try_from(size).ok().filter(|&size| size >= least) else {
            return Err(format!("a message of format v{magic} with a size of {size}"));
        };
        let offset = i64::from_be_bytes(*prefix.first_chunk().expect("eighteen bytes"));
        if offset < 0 {
            return Err(format!("a message of format v{magic} with offset {offset}"));
        }
        let timestamp = match bytes[PREFIX_BYTES..].first_chunk::<TIMESTAMP_BYTES>() {
            Some(timestamp) if magic == 1 => i64::from_be_bytes(*timestamp),
            _ => -1,
        };
        let crc = u32::from_be_bytes([prefix[CRC_AT], prefix[13], prefix[14], prefix[15]]);
        Ok(Self { offset, magic, crc, attributes, timestamp, size: SIZE_END + size })
    }

    /// Kafka's id of the compression.
    pub fn compression_id(&self) -> i8 {
        (self.attributes & COMPRESSION_BITS) as i8
    }

    /// Whether the broker gave the timestamp.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    pub(super) fn crc_matches(&self, bytes: &[u8]) -> bool {
        crc32(&bytes[CRC_FROM..self.size]) == self.crc
    }

    /// Key and value; `None` if it is compressed or does not fill its size.
    pub(super) fn record(&self, bytes: &Bytes) -> Option<LegacyRecord> {
        if self.compression_id() != 0 {
            return None;
        }
        let start = PREFIX_BYTES + if self.magic == 0 { 0 } else { TIMESTAMP_BYTES };
        let (key, rest) = nullable(bytes.slice(start..self.size))?;
        let (value, rest) = nullable(rest)?;
        rest.is_empty().then_some(LegacyRecord { key, value })
    }
}

/// Bytes behind their length, null where that is negative, and what follows.
fn nullable(bytes: Bytes) -> Option<(Option<Bytes>, Bytes)> {
    let length = i32::from_be_bytes(*bytes.first_chunk()?);
    let rest = bytes.slice(4..);
    let Ok(length) = usize::try_from(length) else { return Some((None, rest)) };
    (length <= rest.len()).then(|| (Some(rest.slice(..length)), rest.slice(length..)))
}

/// The CRC-32 of IEEE 802.3, bit by bit: nothing but data of long ago needs it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A whole message.
    pub(in crate::inspect) fn message(
        offset: i64,
        magic: u8,
        timestamp: i64,
        key: &[u8],
        value: &[u8],
    ) -> Vec<u8> {
        let mut body = vec![magic, 0];
        if magic == 1 {
            body.extend(timestamp.to_be_bytes());
        }
        for part in [key, value] {
            body.extend(i32::try_from(part.len()).expect("small").to_be_bytes());
            body.extend(part);
        }
        let size = i32::try_from(body.len() + 4).expect("small");
        [&offset.to_be_bytes()[..], &size.to_be_bytes(), &crc32(&body).to_be_bytes(), &body].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_the_one_of_ieee_802_3() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926, "the check value of the CRC catalogue");
    }

    #[test]
    fn messages_of_both_formats_are_read_and_damage_is_seen() {
        for (magic, timestamp) in [(0, -1), (1, 77)] {
            let whole = testing::message(5, magic, timestamp, b"key", b"value");
            let message = LegacyMessage::parse(&whole).expect("a message");
            assert_eq!((message.offset, message.timestamp, message.size), (5, timestamp, whole.len()));
            assert!(message.crc_matches(&whole));
            let record = message.record(&whole.clone().into()).expect("not compressed");
            assert_eq!(
                (record.key.as_deref(), record.value.as_deref()),
                (Some(&b"key"[..]), Some(&b"value"[..]))
            );
            let mut damaged = whole.clone();
            *damaged.last_mut().expect("not empty") ^= 1;
            assert!(!message.crc_matches(&damaged));
        }
        for bytes in [&[0; 17][..], &[0; 40], &[0xff; 40]] {
            assert!(LegacyMessage::parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
