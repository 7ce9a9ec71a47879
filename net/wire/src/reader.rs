use bytes::Bytes;
use bytestring::ByteString;
use uuid::Uuid;

/// Longest string Kafka accepts, also in the compact encoding.
pub(crate) const STRING_BYTES_MAX: usize = i16::MAX as usize;
/// What decoded arrays may take for each byte of the frame, over [`ARRAY_BYTES_FREE`].
const ARRAY_BYTES_PER_BYTE_MAX: usize = 32;
/// Array memory every frame may use, however small it is.
const ARRAY_BYTES_FREE: usize = 16 * 1024;
/// Array memory no frame may exceed, however large it is.
const ARRAY_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Most that is reserved for one array before its elements have been seen.
const PREALLOCATED_BYTES_MAX: usize = 16 * 1024;

/// Why bytes are not the message they claim to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A value reaches past the end of the frame (or of its tagged field).
    #[error("{needed} bytes needed, {remaining} remain")]
    Truncated {
        /// Bytes that the value takes.
        needed: usize,
        /// Bytes left.
        remaining: usize,
    },
    /// A length or count that is negative or larger than its type allows.
    #[error("invalid length {0}")]
    InvalidLength(i64),
    /// An array whose elements cannot fit into what remains.
    #[error("array of {count} elements in {remaining} bytes")]
    ArrayTooLong {
        /// Elements claimed.
        count: usize,
        /// Bytes left.
        remaining: usize,
    },
    /// The arrays of the frame would take more memory than a frame of its size may.
    #[error("frame asks for too much memory")]
    MemoryExceeded,
    /// A variable-length integer of more bytes or bits than its type has.
    #[error("malformed varint")]
    Varint,
    /// A string that is not UTF-8.
    #[error("string is not UTF-8")]
    Utf8,
    /// Null where this version has none.
    #[error("unexpected null")]
    UnexpectedNull,
    /// A tagged field that doesn't end where its size says.
    #[error("tagged field {0} does not fill its size")]
    TaggedField(u32),
    /// A version without a schema.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// The message's name.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// An API key without a schema.
    #[error("unknown api key {0}")]
    UnknownApiKey(i16),
}

/// A position in a frame. Checks every length before it allocates or slices.
#[derive(Clone, Debug)]
pub struct Reader {
    frame: Bytes,
    position: usize,
    /// Where reading stops: the frame's end, or a tagged field's.
    end: usize,
    /// Array memory this frame may still use, in bytes.
    array_bytes_left: usize,
}

impl Reader {
    /// Reads `frame` from its first byte. Decoded arrays may take 32 bytes for each byte of the frame (and
    /// 16 KiB), at most 128 MiB.
    pub fn new(frame: Bytes) -> Self {
        let for_size = frame.len().saturating_mul(ARRAY_BYTES_PER_BYTE_MAX).saturating_add(ARRAY_BYTES_FREE);
        Self::with_array_bytes_max(frame, for_size.min(ARRAY_BYTES_MAX))
    }

    /// Reads `frame` from its first byte; decoded arrays may take `array_bytes_max` bytes of memory in total.
    /// Strings and records need none of their own, they are slices of the frame.
    pub fn with_array_bytes_max(frame: Bytes, array_bytes_max: usize) -> Self {
        Self { position: 0, end: frame.len(), frame, array_bytes_left: array_bytes_max }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Offset of the next byte in the frame.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next `len` bytes as a slice of the frame.
    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let start = self.advance(len)?;
        Ok(self.frame.slice(start..start + len))
    }

    fn advance(&mut self, len: usize) -> Result<usize, DecodeError> {
        let remaining = self.remaining();
        if len > remaining {
            return Err(DecodeError::Truncated { needed: len, remaining });
        }
        let start = self.position;
        self.position += len;
        Ok(start)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let start = self.advance(N)?;
        let mut value = [0; N];
        value.copy_from_slice(&self.frame[start..start + N]);
        Ok(value)
    }

    /// A byte; anything but 0 is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    /// One byte, signed.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.fixed()?))
    }

    /// Two bytes, big-endian.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.fixed()?))
    }

    /// Four bytes, big-endian.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    /// Eight bytes, big-endian.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    /// Eight bytes, big-endian.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_be_bytes(self.fixed()?))
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.fixed()?))
    }

    /// An unsigned varint of at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(DecodeError::Varint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A length that may be null: compact (varint of length + 1), or an int32.
    fn length32(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize));
        }
        match self.i32()? {
            -1 => Ok(None),
            length => {
                usize::try_from(length).map(Some).map_err(|_| DecodeError::InvalidLength(length.into()))
            }
        }
    }

    /// A string, or null; a slice of the frame.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<ByteString>, DecodeError> {
        let length = if flexible {
            self.uvarint()?.checked_sub(1).map(|length| length as usize)
        } else {
            match self.i16()? {
                -1 => None,
                length => {
                    Some(usize::try_from(length).map_err(|_| DecodeError::InvalidLength(length.into()))?)
                }
            }
        };
        let Some(length) = length else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(DecodeError::InvalidLength(length as i64));
        }
        let bytes = self.take(length)?;
        ByteString::try_from(bytes).map(Some).map_err(|_| DecodeError::Utf8)
    }

    /// Bytes, or null; a slice of the frame.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.length32(flexible)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// An array, or null. `element_bytes_min` (at least 1) is the fewest bytes one element takes on the wire.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length32(flexible)? else { return Ok(None) };
        let remaining = self.remaining();
        if count > remaining / element_bytes_min {
            return Err(DecodeError::ArrayTooLong { count, remaining });
        }
        let memory = count.saturating_mul(size_of::<T>());
        self.array_bytes_left =
            self.array_bytes_left.checked_sub(memory).ok_or(DecodeError::MemoryExceeded)?;
        let mut list = Vec::with_capacity(count.min(PREALLOCATED_BYTES_MAX / size_of::<T>().max(1)));
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(Some(list))
    }

    /// A struct behind a byte that says whether it is there (negative: null).
    pub fn nullable_struct<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.i8()? < 0 { Ok(None) } else { read(self).map(Some) }
    }

    /// Reads the tagged fields of a struct. `known` reads the field of a tag and says so; a field that it
    /// does not know is skipped.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            let remaining = self.remaining();
            if size > remaining {
                return Err(DecodeError::Truncated { needed: size, remaining });
            }
            let outer_end = std::mem::replace(&mut self.end, self.position + size);
            if !known(self, tag)? {
                self.position = self.end;
            }
            if self.position != self.end {
                return Err(DecodeError::TaggedField(tag));
            }
            self.end = outer_end;
        }
        Ok(())
    }

    /// Skips the tagged fields of a struct that knows none.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields(|_, _| Ok(false))
    }
}
