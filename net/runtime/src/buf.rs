//! Memory that the disk can read and write directly: 4 KiB-aligned, never moved.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use bytes::Bytes;

use crate::memory::Memory;

pub use crate::memory::{BLOCK_BYTES, KEPT_BYTES_MAX, kept_bytes};

/// An owned buffer for reading from and writing to files.
///
/// `len` is what its user asked for; `capacity` is at least that rounded up to whole blocks.
pub struct AlignedBuf {
    memory: Memory,
    len: usize,
}

impl AlignedBuf {
    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self { memory: Memory::zeroed(len), len }
    }

    /// A buffer of `len` bytes to be read into: zeros, or what an earlier buffer has held.
    pub fn for_reading(len: usize) -> Self {
        Self { memory: Memory::any(len), len }
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes allocated: a multiple of [`BLOCK_BYTES`].
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Shortens to `len` bytes; does nothing when it is not longer than that.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes in use as shared, immutable bytes, without copying. They keep the whole capacity allocated.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= capacity` bytes from `start` are allocated and initialised, owned
        // by `self`, and borrowed with it.
        unsafe { std::slice::from_raw_parts(self.memory.start(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the borrow exclusive, since `memory` is never shared.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("len", &self.len).field("capacity", &self.capacity()).finish()
    }
}

/// Append-only memory: one writer appends, any number of readers, on any core, hold [`Bytes`] of what is
/// already written. It never reallocates, so what readers hold never moves.
///
/// Every byte is written at most once, and before anybody can see it: `len` only grows, `append` writes at and
/// above `len`, `slice` gives out what lies below it. That discipline is what makes sharing sound.
pub struct Chunk {
    memory: Arc<Memory>,
    len: usize,
    /// Everything that was written when somebody last asked for more than the previous view held. Slices are
    /// taken from it by reference count; it is renewed (one small allocation) at most once per append.
    view: RefCell<Bytes>,
}

impl Chunk {
    /// An empty chunk; `capacity` is rounded up to whole blocks (at least one).
    pub fn new(capacity: usize) -> Self {
        Self { memory: Arc::new(Memory::any(capacity)), len: 0, view: RefCell::default() }
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes there is room for in all.
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Bytes there is still room for.
    pub fn remaining(&self) -> usize {
        self.capacity() - self.len
    }

    /// Copies as much of `bytes` as there is room for and returns how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.remaining());
        // SAFETY: `len + count <= capacity`, so the target is allocated. Nobody else can read or write it: the
        // views readers hold end at or below `len`, and `&mut self` excludes another append, since a `Chunk`
        // cannot be cloned. `bytes` is a live shared borrow, so it overlaps no byte that is yet unwritten.
        unsafe {
            let target = self.memory.start().add(self.len);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, count);
        }
        self.len += count;
        count
    }

    /// The bytes of `range`, shared, not copied. They keep the chunk's memory alive and may go to other cores.
    ///
    /// # Panics
    /// When `range` reaches beyond [`len`](Self::len).
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "chunk slice {range:?} beyond its {} bytes",
            self.len
        );
        let mut view = self.view.borrow_mut();
        if range.end > view.len() {
            *view = Bytes::from_owner(Written { memory: self.memory.clone(), len: self.len });
        }
        view.slice(range)
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("len", &self.len).field("capacity", &self.capacity()).finish()
    }
}

/// The written beginning of a chunk: the owner behind the [`Bytes`] that it gives out.
///
/// It ends at what was written when it was made, and not at the capacity: a reference that covered bytes yet to
/// be written would be invalidated by writing them.
struct Written {
    memory: Arc<Memory>,
    len: usize,
}

impl AsRef<[u8]> for Written {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are allocated as long as `memory` lives, initialised, and never written
        // again (see `Chunk`). Another core comes by them only through a hand-over of the `Bytes`, which orders
        // the writes before its reads.
        unsafe { std::slice::from_raw_parts(self.memory.start(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(bytes: &[u8]) -> bool {
        bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES)
    }

    #[test]
    fn a_buffer_is_aligned_zeroed_and_rounded_up_to_blocks() {
        for (len, capacity) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (12288, 12288)] {
            let buf = AlignedBuf::zeroed(len);
            assert_eq!((buf.len(), buf.capacity()), (len, capacity));
            assert!(aligned(&buf));
            assert!(buf.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_frozen_buffer_keeps_its_bytes_and_address() {
        let mut buf = AlignedBuf::zeroed(5000);
        buf[..3].copy_from_slice(b"abc");
        buf[4999] = b'z';
        let address = buf.as_ptr();
        buf.truncate(4097);
        buf.truncate(5000);
        let bytes = buf.freeze();
        assert_eq!((bytes.len(), bytes.as_ptr()), (4097, address));
        assert_eq!(&bytes[..4], b"abc\0");
        let tail = bytes.slice(4090..);
        drop(bytes);
        assert_eq!(&tail[..], &[0; 7]);
    }

    #[test]
    fn readers_keep_what_they_hold_while_the_writer_appends_and_after_it_is_gone() {
        let mut chunk = Chunk::new(BLOCK_BYTES);
        assert_eq!(chunk.append(b"hello "), 6);
        let hello = chunk.slice(0..5);
        assert_eq!(chunk.append(b"world"), 5);
        let world = chunk.slice(6..11);
        let both = chunk.slice(0..11);
        assert!(aligned(&both));
        assert_eq!(hello.as_ptr(), both.as_ptr(), "slices are not copies");
        let fill = vec![7; BLOCK_BYTES];
        assert_eq!(chunk.append(&fill), BLOCK_BYTES - 11);
        assert_eq!((chunk.append(b"x"), chunk.remaining()), (0, 0));
        assert!(chunk.slice(11..BLOCK_BYTES).iter().all(|&byte| byte == 7));
        drop(chunk);
        assert_eq!((&hello[..], &world[..], &both[..]), (&b"hello"[..], &b"world"[..], &b"hello world"[..]));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test is about another thread")]
    fn another_thread_reads_what_was_written_while_the_writer_goes_on() {
        let mut chunk = Chunk::new(2 * BLOCK_BYTES);
        let readers: Vec<_> = (0..4_u8)
            .map(|round| {
                let from = chunk.len();
                chunk.append(&[round; 500]);
                let bytes = chunk.slice(from..chunk.len());
                std::thread::spawn(move || bytes.iter().all(|&byte| byte == round))
            })
            .collect();
        chunk.append(&[9; 500]);
        for reader in readers {
            assert!(reader.join().expect("the reader does not panic"));
        }
    }

    #[test]
    fn slices_without_an_append_between_them_share_one_view() {
        let mut chunk = Chunk::new(BLOCK_BYTES);
        chunk.append(b"abcdef");
        let owners = || Arc::strong_count(&chunk.memory);
        let first = chunk.slice(0..3);
        assert_eq!(owners(), 2);
        let second = chunk.slice(3..6);
        assert_eq!(owners(), 2);
        assert_eq!((&first[..], &second[..]), (&b"abc"[..], &b"def"[..]));
        assert!(chunk.slice(6..6).is_empty());
    }

    #[test]
    #[should_panic(expected = "beyond its 3 bytes")]
    fn a_slice_beyond_what_is_written_is_a_bug() {
        let mut chunk = Chunk::new(BLOCK_BYTES);
        chunk.append(b"abc");
        chunk.slice(0..4);
    }
}
