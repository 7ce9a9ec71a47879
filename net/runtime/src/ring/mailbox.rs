//! Messages between cores, and the doorbell that wakes a sleeping one.
//!
//! The receiver announces its sleep, looks again, then sleeps; the sender puts its message, then looks for the
//! announcement. With a full fence between the two steps on either side one of them always sees the other's.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};

use crossbeam_queue::SegQueue;
use io_uring::{IoUring, opcode, types};

use super::driver::DOORBELL;
use crate::core::Message;

/// What other threads may touch of a core.
pub(crate) struct Mailbox {
    messages: SegQueue<Message>,
    sleeping: AtomicBool,
    ring: AtomicI32,
}

impl Mailbox {
    pub(crate) fn new() -> Mailbox {
        Mailbox { messages: SegQueue::new(), sleeping: AtomicBool::new(false), ring: AtomicI32::new(-1) }
    }

    /// Says which ring rings this core; before that nobody sleeps here.
    pub(super) fn set_ring(&self, fd: RawFd) {
        self.ring.store(fd, Ordering::Release);
    }

    /// The ring of this core, once it runs.
    pub(super) fn ring(&self) -> RawFd {
        self.ring.load(Ordering::Acquire)
    }

    /// Puts a message; true when the receiver sleeps and the caller must ring. Of several senders one is told.
    pub(super) fn put(&self, message: Message) -> bool {
        self.messages.push(message);
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Acquire) && self.sleeping.swap(false, Ordering::AcqRel)
    }

    /// Messages that wait. Senders and the receiver may be at it meanwhile.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn take(&self) -> Option<Message> {
        self.messages.pop()
    }

    /// Announces the sleep; false when a message came first, then the announcement is withdrawn.
    pub(super) fn announce_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.messages.is_empty() {
            return true;
        }
        self.wake_up();
        false
    }

    pub(super) fn wake_up(&self) {
        self.sleeping.store(false, Ordering::Release);
    }
}

/// Rings cores from a thread that is not one: the main thread, which waits for signals.
pub(crate) struct Doorbell {
    ring: IoUring,
}

impl Doorbell {
    pub(crate) fn new() -> std::io::Result<Doorbell> {
        Ok(Doorbell { ring: IoUring::new(2)? })
    }

    /// Puts a message into `mailbox` and wakes its core.
    pub(crate) fn send(&mut self, mailbox: &Mailbox, message: Message) {
        if !mailbox.put(message) {
            return;
        }
        let entry = opcode::MsgRingData::new(types::Fd(mailbox.ring()), 0, DOORBELL, None).build();
        // SAFETY: the entry names no memory.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "one entry at a time fits");
        if let Err(error) = self.ring.submit_and_wait(1) {
            tracing::error!(%error, "cannot wake a core");
        }
        self.ring.completion().for_each(drop);
    }
}
