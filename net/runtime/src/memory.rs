//! Whole blocks of memory for the disk: small ones from the allocator, large ones mapped and kept for the next user.
//!
//! A broker under load takes and frees buffers of up to a megabyte thousands of times a second. Fresh memory costs a
//! page fault and a zeroed page every 4 KiB, which is more than the copy into it, so each thread keeps what was
//! freed on it, up to a bound.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr::{self, NonNull};

/// Direct files want addresses, lengths and offsets in multiples of this.
pub const BLOCK_BYTES: usize = 4096;

/// From here on memory is mapped, and kept when it is freed.
const MAPPED_BYTES_MIN: usize = 64 << 10;
/// Nothing larger is kept.
const KEPT_BYTES_EACH_MAX: usize = 4 << 20;
/// Most that a thread keeps.
pub const KEPT_BYTES_MAX: usize = 8 << 20;

const _: () = assert!(MAPPED_BYTES_MIN.is_multiple_of(BLOCK_BYTES) && KEPT_BYTES_EACH_MAX <= KEPT_BYTES_MAX);

/// One allocation of whole blocks, every byte of it initialised. Hands out its address only; who may touch which bytes
/// is the business of its owners.
pub(crate) struct Memory {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: a `Memory` is an address and a length; nothing in it belongs to the thread that allocated it, and both the
// global allocator and munmap free from any thread.
unsafe impl Send for Memory {}
// SAFETY: through a shared `Memory` one can only learn the address. Every access goes through an unsafe block of its
// owners, which argue for themselves.
unsafe impl Sync for Memory {}

impl Memory {
    /// At least `bytes` zero bytes.
    pub(crate) fn zeroed(bytes: usize) -> Memory {
        let (memory, used_before) = Memory::take(bytes);
        if used_before {
            // SAFETY: the memory was just taken and nobody else knows it; all of its capacity is allocated.
            unsafe { memory.start.as_ptr().write_bytes(0, memory.capacity) };
        }
        memory
    }

    /// At least `bytes` bytes, zeros or whatever an earlier user has left.
    pub(crate) fn any(bytes: usize) -> Memory {
        Memory::take(bytes).0
    }

    /// The address of the first byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes allocated: a multiple of [`BLOCK_BYTES`], at least one.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Memory, and whether somebody has used it before.
    fn take(bytes: usize) -> (Memory, bool) {
        let capacity = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        if capacity < MAPPED_BYTES_MIN {
            return (Memory::allocate(capacity), false);
        }
        match KEPT.try_with(|kept| kept.borrow_mut().take(capacity)) {
            Ok(Some(memory)) => (memory, true),
            Ok(None) | Err(_) => (Memory::map(capacity), false),
        }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES).expect("a buffer's size is far below isize::MAX")
    }

    fn allocate(capacity: usize) -> Memory {
        let layout = Memory::layout(capacity);
        // SAFETY: the layout's size is at least one block, so not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Memory { start, capacity }
    }

    /// Pages that the kernel zeroes as they are first touched.
    fn map(capacity: usize) -> Memory {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), capacity, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            handle_alloc_error(Memory::layout(capacity));
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address zero");
        Memory { start, capacity }
    }

    fn free(&self) {
        if self.capacity < MAPPED_BYTES_MIN {
            // SAFETY: `start` came from `alloc_zeroed` with this very layout and is freed once.
            unsafe { dealloc(self.start.as_ptr(), Memory::layout(self.capacity)) };
        } else {
            // SAFETY: `start` is a mapping of this very length, which nobody uses any more.
            let status = unsafe { libc::munmap(self.start.as_ptr().cast(), self.capacity) };
            debug_assert_eq!(status, 0, "a whole mapping can be unmapped");
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let keep = (MAPPED_BYTES_MIN..=KEPT_BYTES_EACH_MAX).contains(&self.capacity);
        // At the end of the thread there is nothing to keep it in.
        let kept = keep && KEPT.try_with(|kept| kept.borrow_mut().put(self)).is_ok();
        if !kept {
            self.free();
        }
    }
}

/// Bytes that this thread keeps for the next users of large buffers.
pub fn kept_bytes() -> usize {
    KEPT.try_with(|kept| kept.borrow().bytes).unwrap_or(0)
}

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { memories: VecDeque::new(), bytes: 0 }) };
}

/// What a thread keeps for its next users.
struct Kept {
    /// Address and capacity of mappings that nobody uses, the latest at the back.
    memories: VecDeque<(NonNull<u8>, usize)>,
    bytes: usize,
}

impl Kept {
    /// The latest that fits without waste: it may still be in the processor's cache.
    fn take(&mut self, capacity: usize) -> Option<Memory> {
        let fits = |(_, kept): &(NonNull<u8>, usize)| (capacity..=2 * capacity).contains(kept);
        let at = self.memories.iter().rposition(fits)?;
        let (start, capacity) = self.memories.remove(at)?;
        self.bytes -= capacity;
        Some(Memory { start, capacity })
    }

    /// Keeps a mapping. Those that nobody has wanted for longest make room for it: sizes go out of use as partitions
    /// grow, and would fill the place for ever.
    fn put(&mut self, memory: &Memory) {
        while self.bytes + memory.capacity > KEPT_BYTES_MAX {
            self.free_oldest();
        }
        self.bytes += memory.capacity;
        self.memories.push_back((memory.start, memory.capacity));
    }

    fn free_oldest(&mut self) {
        let (start, capacity) = self.memories.pop_front().expect("what is counted is there");
        self.bytes -= capacity;
        // Not dropped as a `Memory`, which would look for this very place.
        let memory = std::mem::ManuallyDrop::new(Memory { start, capacity });
        memory.free();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        while !self.memories.is_empty() {
            self.free_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(memory: &Memory, byte: u8) {
        // SAFETY: the test owns the memory alone, and all of its capacity is allocated.
        unsafe { memory.start().write_bytes(byte, memory.capacity()) };
    }

    fn holds(memory: &Memory, byte: u8) -> bool {
        // SAFETY: allocated and initialised as long as `memory` lives; nobody writes meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts(memory.start(), memory.capacity()) };
        bytes.iter().all(|found| *found == byte)
    }

    #[test]
    fn freed_memory_comes_back_and_is_zeroed_for_who_asks() {
        let first = Memory::any(MAPPED_BYTES_MIN);
        assert!(holds(&first, 0), "new memory is zero");
        fill(&first, 7);
        let address = first.start();
        drop(first);
        let again = Memory::any(MAPPED_BYTES_MIN);
        assert_eq!(again.start(), address);
        drop(again);
        let zeroed = Memory::zeroed(MAPPED_BYTES_MIN);
        assert_eq!(zeroed.start(), address);
        assert!(holds(&zeroed, 0));
    }

    #[test]
    fn a_thread_keeps_no_more_than_its_bound() {
        let many: Vec<Memory> = (0..64).map(|_| Memory::any(1 << 20)).collect();
        let last = many.last().expect("there are some").start();
        drop(many);
        assert_eq!(Memory::any(1 << 20).start(), last);
        KEPT.with(|kept| {
            let kept = kept.borrow();
            assert_eq!(kept.bytes, KEPT_BYTES_MAX);
            assert_eq!(kept.memories.iter().map(|(_, capacity)| capacity).sum::<usize>(), kept.bytes);
        });
        drop(Memory::any(KEPT_BYTES_EACH_MAX * 2));
        drop(Memory::any(1));
    }

    #[test]
    fn sizes_that_nobody_wants_any_more_make_room() {
        let outgrown: Vec<Memory> =
            (0..KEPT_BYTES_MAX / MAPPED_BYTES_MIN).map(|_| Memory::any(MAPPED_BYTES_MIN)).collect();
        drop(outgrown);
        let first = Memory::any(1 << 20);
        let address = first.start();
        drop(first);
        assert_eq!(Memory::any(1 << 20).start(), address);
    }

    #[test]
    fn nothing_twice_as_large_as_needed_is_given() {
        drop(Memory::any(1 << 20));
        let small = Memory::any(MAPPED_BYTES_MIN);
        assert_eq!(small.capacity(), MAPPED_BYTES_MIN);
        let half = Memory::any(1 << 19);
        assert_eq!(half.capacity(), 1 << 20, "half of it is no waste");
    }
}
