//! Entries on the disk: length, CRC32C, payload. The CRC also covers the entry's position in the stream, so that
//! bytes left over from elsewhere never pass for an entry.

use bytes::Bytes;

/// Bytes in front of a payload.
pub(crate) const PREFIX_BYTES: usize = 8;

/// What lies at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// An entry with this payload.
    Entry(Bytes),
    /// Nothing more.
    End,
    /// Something that is no entry.
    Bad(&'static str),
}

/// The prefix of an entry at `position` that consists of `parts`.
pub(super) fn prefix(position: u64, parts: &[&[u8]]) -> [u8; PREFIX_BYTES] {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(bytes).expect("the caller keeps to ENTRY_BYTES_MAX");
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..4].copy_from_slice(&length.to_le_bytes());
    prefix[4..].copy_from_slice(&crc(position, length, parts).to_le_bytes());
    prefix
}

fn crc(position: u64, length: u32, parts: &[&[u8]]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&position.to_le_bytes()), &length.to_le_bytes());
    parts.iter().fold(seed, |crc, part| crc32c::crc32c_append(crc, part))
}

/// The entry at the front of `bytes`, which lie at `position` of the stream.
pub(crate) fn parse(position: u64, bytes: &Bytes) -> Frame {
    let Some(&[a, b, c, d, e, f, g, h]) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return if bytes.iter().all(|&byte| byte == 0) { Frame::End } else { Frame::Bad("a cut prefix") };
    };
    let (length, stored) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    if length == 0 {
        return if stored == 0 { Frame::End } else { Frame::Bad("an empty entry") };
    }
    let payload = PREFIX_BYTES..PREFIX_BYTES + length as usize;
    if payload.end > bytes.len() {
        return Frame::Bad("an entry beyond the end");
    }
    let payload = bytes.slice(payload);
    if crc(position, length, &[&payload]) == stored {
        Frame::Entry(payload)
    } else {
        Frame::Bad("CRC does not match")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(position: u64, payload: &[u8]) -> Vec<u8> {
        [&prefix(position, &[payload])[..], payload].concat()
    }

    #[test]
    fn an_entry_holds_only_at_its_position() {
        let bytes = Bytes::from(framed(77, b"hello"));
        assert_eq!(parse(77, &bytes), Frame::Entry(Bytes::from_static(b"hello")));
        assert!(matches!(parse(78, &bytes), Frame::Bad(_)));
        assert_eq!(prefix(5, &[b"he", b"llo"]), prefix(5, &[b"hello"]));
    }

    #[test]
    fn damage_is_seen_and_zeros_are_the_end() {
        let whole = framed(9, b"payload");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            assert!(matches!(parse(9, &damaged.into()), Frame::Bad(_)), "byte {at}");
            if at > 0 {
                assert!(
                    matches!(parse(9, &Bytes::copy_from_slice(&whole[..at])), Frame::Bad(_)),
                    "cut at {at}"
                );
            }
        }
        for zeros in [0, 5, 8, 100] {
            assert_eq!(parse(9, &vec![0; zeros].into()), Frame::End);
        }
    }
}
