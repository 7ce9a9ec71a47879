//! The byte encoding shared by the stream's records, the messages between nodes and the replicated commands:
//! unsigned LEB128 integers and length-prefixed bytes. Every length is checked against what remains before
//! anything is allocated.

use bytes::Bytes;

/// Bytes that don't decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ended inside a field, or a length claims more than remains.
    #[error("input is shorter than its fields claim")]
    Short,
    /// A field holds a value outside its range.
    #[error("invalid value for {0}")]
    Invalid(&'static str),
    /// The version or kind byte is one this build doesn't know.
    #[error("unknown version or kind {0}")]
    Unknown(u8),
    /// Bytes are left over after the last field.
    #[error("{0} bytes left over")]
    Trailing(usize),
}

/// Appends fields to a growing buffer.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// An empty writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Writer {
        Writer { out: Vec::with_capacity(capacity) }
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) {
        self.out.push(v);
    }

    /// A flag, as one byte.
    pub fn bool(&mut self, v: bool) {
        self.out.push(u8::from(v));
    }

    /// An unsigned integer, LEB128: 1 to 10 bytes.
    pub fn u64(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.out.push((v as u8) | 0x80);
            v >>= 7;
        }
        self.out.push(v as u8);
    }

    /// An unsigned integer, LEB128.
    pub fn u32(&mut self, v: u32) {
        self.u64(u64::from(v));
    }

    /// A signed integer, zigzag then LEB128.
    pub fn i64(&mut self, v: i64) {
        self.u64(((v << 1) ^ (v >> 63)) as u64);
    }

    /// A signed integer, zigzag then LEB128.
    pub fn i32(&mut self, v: i32) {
        self.i64(i64::from(v));
    }

    /// A count or length.
    pub fn len(&mut self, v: usize) {
        self.u64(v as u64);
    }

    /// Length-prefixed bytes.
    pub fn bytes(&mut self, v: &[u8]) {
        self.len(v.len());
        self.out.extend_from_slice(v);
    }

    /// Length-prefixed UTF-8.
    pub fn str(&mut self, v: &str) {
        self.bytes(v.as_bytes());
    }

    /// A flag, then UTF-8 when there is some.
    pub fn opt_str(&mut self, v: Option<&str>) {
        self.bool(v.is_some());
        if let Some(v) = v {
            self.str(v);
        }
    }

    /// Sixteen raw bytes, such as a uuid.
    pub fn array16(&mut self, v: &[u8; 16]) {
        self.out.extend_from_slice(v);
    }

    /// What has been written.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.out)
    }
}

/// Takes fields off a slice.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `input`.
    pub fn new(input: &'a [u8]) -> Reader<'a> {
        Reader { rest: input }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        if n > self.rest.len() {
            return Err(DecodeError::Short);
        }
        let (head, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    /// A flag: 0 or 1.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("flag")),
        }
    }

    /// An unsigned LEB128 integer.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid("varint"))
    }

    /// An unsigned LEB128 integer of at most 32 bits.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.u64()?).map_err(|_| DecodeError::Invalid("u32"))
    }

    /// A zigzag integer.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        let v = self.u64()?;
        Ok(((v >> 1) as i64) ^ -((v & 1) as i64))
    }

    /// A zigzag integer of at most 32 bits.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        i32::try_from(self.i64()?).map_err(|_| DecodeError::Invalid("i32"))
    }

    /// The count of items that follow, each of which takes at least `item_bytes_min` (≥ 1) bytes: a count that
    /// can't fit into what remains is refused, so that it may be used to reserve memory.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, DecodeError> {
        assert!(item_bytes_min > 0);
        let n = usize::try_from(self.u64()?).map_err(|_| DecodeError::Short)?;
        if n > self.rest.len() / item_bytes_min {
            return Err(DecodeError::Short);
        }
        Ok(n)
    }

    /// Length-prefixed bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = self.count(1)?;
        self.take(n)
    }

    /// Length-prefixed UTF-8.
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Invalid("UTF-8"))
    }

    /// A flag, then UTF-8 when it is set.
    pub fn opt_str(&mut self) -> Result<Option<&'a str>, DecodeError> {
        if self.bool()? { self.str().map(Some) } else { Ok(None) }
    }

    /// Sixteen raw bytes.
    pub fn array16(&mut self) -> Result<[u8; 16], DecodeError> {
        Ok(self.take(16)?.try_into().expect("take(16) yields 16 bytes"))
    }

    /// Ends the reading: everything must have been read.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_survive_the_round_trip_at_their_edges() {
        for v in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut w = Writer::new();
            w.u64(v);
            w.i64(v as i64);
            let b = w.finish();
            let mut r = Reader::new(&b);
            assert_eq!(r.u64(), Ok(v));
            assert_eq!(r.i64(), Ok(v as i64));
            assert_eq!(r.finish(), Ok(()));
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_before_allocating() {
        let mut w = Writer::new();
        w.u64(u64::MAX);
        let b = w.finish();
        assert_eq!(Reader::new(&b).bytes(), Err(DecodeError::Short));
        assert_eq!(Reader::new(&b).count(8), Err(DecodeError::Short));
        assert_eq!(Reader::new(&[0xff; 11]).u64(), Err(DecodeError::Invalid("varint")));
    }
}
