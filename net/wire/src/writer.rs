use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::Records;
use crate::reader::STRING_BYTES_MAX;
use crate::records::Piece;

/// From this size on, bytes are spliced in as a segment of their own rather than copied.
const SPLICED_BYTES_MIN: usize = 1024;
/// The 4-byte size in front of a frame.
const SIZE_BYTES: usize = 4;

/// Builds a message as a list of segments: what is written, in buffers of the writer's own, and large bytes
/// spliced in between.
#[derive(Debug, Default)]
pub struct Writer {
    /// What precedes the first spliced segment; still mutable, since the frame's size is patched into it.
    head: Option<BytesMut>,
    /// Finished segments after the head.
    segments: Vec<Bytes>,
    /// Where fields are written.
    tail: BytesMut,
    /// Bytes in `head` and `segments`, and those that are elsewhere.
    sealed_bytes: usize,
    /// Where bytes belong that are elsewhere: before how many finished segments after the head, and their token.
    gaps: Vec<(usize, usize)>,
}

impl Writer {
    /// An empty writer without size prefix.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that starts with room for the frame's size, which [`Writer::finish_frame`] fills.
    pub fn frame() -> Self {
        let mut writer = Self { tail: BytesMut::with_capacity(256), ..Self::default() };
        writer.i32(0);
        writer
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.sealed_bytes + self.tail.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segments in order.
    ///
    /// # Panics
    /// When some of the bytes are not here, see [`Records::elsewhere`].
    pub fn finish(self) -> Vec<Bytes> {
        let (segments, gaps) = self.finish_around();
        assert!(gaps.is_empty(), "bytes that are elsewhere need a writer that knows where");
        segments
    }

    /// The segments in order, and where bytes belong between them that are elsewhere: the index of the segment that
    /// they come before, which may be one past the last, and their token; in order.
    fn finish_around(mut self) -> (Vec<Bytes>, Vec<(usize, usize)>) {
        if !self.tail.is_empty() {
            self.seal_tail();
        }
        let mut all = Vec::with_capacity(1 + self.segments.len());
        all.extend(self.head.filter(|head| !head.is_empty()).map(BytesMut::freeze));
        self.gaps.iter_mut().for_each(|(before, _)| *before += all.len());
        all.append(&mut self.segments);
        (all, self.gaps)
    }

    /// The segments of a writer made by [`Writer::frame`], the frame's size filled in.
    pub fn finish_frame(self) -> Vec<Bytes> {
        let (segments, gaps) = self.finish_frame_around();
        assert!(gaps.is_empty(), "bytes that are elsewhere need a writer that knows where");
        segments
    }

    /// As [`Writer::finish_frame`], of a message that may have bytes elsewhere: see [`crate::encode_response_around`].
    pub(crate) fn finish_frame_around(mut self) -> (Vec<Bytes>, Vec<(usize, usize)>) {
        let size = self.len().checked_sub(SIZE_BYTES).expect("made by Writer::frame");
        let size = i32::try_from(size).expect("a frame is smaller than 2 GiB");
        let first = self.head.as_mut().unwrap_or(&mut self.tail);
        first[..SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
        self.finish_around()
    }

    /// The whole message in one piece: free when nothing was spliced in, a copy otherwise.
    pub fn finish_contiguous(self) -> Bytes {
        self.finish().into_iter().collect::<Records>().to_bytes()
    }

    fn seal_tail(&mut self) {
        let sealed = self.tail.split();
        self.sealed_bytes += sealed.len();
        if self.head.is_none() {
            self.head = Some(sealed);
        } else if !sealed.is_empty() {
            self.segments.push(sealed.freeze());
        }
    }

    /// Appends raw bytes: spliced if they are large, else copied.
    pub fn splice(&mut self, bytes: &Bytes) {
        if bytes.len() < SPLICED_BYTES_MIN {
            self.tail.extend_from_slice(bytes);
            return;
        }
        self.seal_tail();
        self.sealed_bytes += bytes.len();
        self.segments.push(bytes.clone());
    }

    /// Appends raw bytes, copied.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// A byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.tail.put_u8(value.into());
    }

    /// One byte.
    pub fn i8(&mut self, value: i8) {
        self.tail.put_i8(value);
    }

    /// Two bytes, big-endian.
    pub fn i16(&mut self, value: i16) {
        self.tail.put_i16(value);
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) {
        self.tail.put_u16(value);
    }

    /// Four bytes, big-endian.
    pub fn i32(&mut self, value: i32) {
        self.tail.put_i32(value);
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.tail.put_u32(value);
    }

    /// Eight bytes, big-endian.
    pub fn i64(&mut self, value: i64) {
        self.tail.put_i64(value);
    }

    /// Eight bytes, big-endian.
    pub fn f64(&mut self, value: f64) {
        self.tail.put_f64(value);
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: &Uuid) {
        self.tail.extend_from_slice(value.as_bytes());
    }

    /// An unsigned varint.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.tail.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(value as u8);
    }

    /// Length and bytes of a string, which is cut at 32,767 bytes (at a character's boundary).
    pub fn string(&mut self, flexible: bool, value: &str) {
        let mut length = value.len().min(STRING_BYTES_MAX);
        while !value.is_char_boundary(length) {
            length -= 1;
        }
        if flexible {
            self.uvarint(length as u32 + 1);
        } else {
            self.i16(length as i16);
        }
        self.raw(&value.as_bytes()[..length]);
    }

    /// A null string.
    pub fn null_string(&mut self, flexible: bool) {
        if flexible { self.uvarint(0) } else { self.i16(-1) }
    }

    /// Null bytes, or a null array.
    pub fn null_bytes(&mut self, flexible: bool) {
        if flexible { self.uvarint(0) } else { self.i32(-1) }
    }

    /// The count of an array, or the length of bytes.
    pub fn array_len(&mut self, flexible: bool, len: usize) {
        let len = i32::try_from(len).expect("an array or bytes field has fewer than 2^31 elements");
        if flexible { self.uvarint(len as u32 + 1) } else { self.i32(len) }
    }

    /// Length and bytes.
    pub fn bytes(&mut self, flexible: bool, value: &Bytes) {
        self.array_len(flexible, value.len());
        self.splice(value);
    }

    /// Length and bytes of all segments.
    pub fn rope(&mut self, flexible: bool, value: &Records) {
        self.array_len(flexible, value.len());
        for piece in value.pieces() {
            match piece {
                Piece::Here(segment) => self.splice(segment),
                Piece::Elsewhere { token, len } => {
                    self.seal_tail();
                    self.sealed_bytes += len;
                    self.gaps.push((self.segments.len(), *token));
                }
            }
        }
    }

    /// One tagged field: tag, size, and what `content` writes.
    pub fn tagged(&mut self, tag: u32, content: impl FnOnce(&mut Self)) {
        let mut inner = Self::new();
        content(&mut inner);
        self.uvarint(tag);
        self.uvarint(u32::try_from(inner.len()).expect("a tagged field is smaller than 4 GiB"));
        for segment in inner.finish() {
            self.splice(&segment);
        }
    }
}
