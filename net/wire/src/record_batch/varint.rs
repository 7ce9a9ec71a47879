//! Zigzag varints of records, over a byte slice.

use super::RecordError;

/// A position in the bytes of records. Reads never go past the end.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) position: usize,
}

impl Cursor<'_> {
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecordError> {
        let byte = *self.bytes.get(self.position).ok_or(RecordError::Truncated)?;
        self.position += 1;
        Ok(byte)
    }

    /// Skips `len` bytes and returns where they start.
    pub(super) fn skip(&mut self, len: usize) -> Result<usize, RecordError> {
        if len > self.remaining() {
            return Err(RecordError::Truncated);
        }
        let start = self.position;
        self.position += len;
        Ok(start)
    }

    /// A signed varint of 32 bits.
    pub(super) fn varint(&mut self) -> Result<i32, RecordError> {
        let raw = self.unsigned(5)?;
        let raw = u32::try_from(raw).map_err(|_| RecordError::Varint)?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// A signed varint of 64 bits.
    pub(super) fn varlong(&mut self) -> Result<i64, RecordError> {
        let raw = self.unsigned(10)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn unsigned(&mut self, bytes_max: u32) -> Result<u64, RecordError> {
        let mut value = 0u64;
        for index in 0..bytes_max {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if index == 9 && bits > 1 {
                return Err(RecordError::Varint);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Varint)
    }
}

/// Appends a signed varint (of 32 or 64 bits: the encoding is the same).
pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = (value << 1) as u64 ^ (value >> 63) as u64;
    while raw >= 0x80 {
        out.push((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Bytes that [`put_varint`] appends.
pub(super) fn varint_len(value: i64) -> usize {
    let raw = (value << 1) as u64 ^ (value >> 63) as u64;
    (64 - (raw | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_edge() {
        for shift in 0..64 {
            for value in [1i64 << shift, (1i64 << shift).wrapping_sub(1), -(1i64 << (shift.min(62)))] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value));
                assert_eq!(Cursor { bytes: &out, position: 0 }.varlong(), Ok(value));
                let narrow = Cursor { bytes: &out, position: 0 }.varint();
                assert_eq!(narrow.ok(), i32::try_from(value).ok());
            }
        }
    }

    #[test]
    fn varints_of_too_many_bytes_are_refused() {
        let endless = [0xff; 11];
        assert_eq!(Cursor { bytes: &endless, position: 0 }.varint(), Err(RecordError::Varint));
        assert_eq!(Cursor { bytes: &endless, position: 0 }.varlong(), Err(RecordError::Varint));
        assert_eq!(Cursor { bytes: &endless[..3], position: 0 }.varlong(), Err(RecordError::Truncated));
    }
}
