//! The memory that requests of one core may hold.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A fixed number of bytes, shared by all connections of one core: reserve before reading, wait in line when it is
/// spent. Cloning gives another handle on the same budget.
///
/// A part of it, the *slot*, serves one frame at a time, whole: the first in line takes it when the shared part is
/// spent. So frames that each hold a piece of the shared part and wait for more can't block one another for ever,
/// and a frame larger than the shared part gets through.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared_total: usize,
    slot_total: usize,
    shared_used: Cell<usize>,
    slot_taken: Cell<bool>,
    slot_used: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
    waits: Cell<u64>,
}

/// One place in the line.
#[derive(Debug)]
struct Waiter {
    bytes: usize,
    granted: Cell<Option<Source>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Shared,
    Slot,
}

impl MemoryBudget {
    /// A budget of `total` bytes whose slot takes frames of up to `frame_bytes_max`, but not more than half of it.
    pub fn new(total: usize, frame_bytes_max: usize) -> MemoryBudget {
        let slot_total = frame_bytes_max.min(total / 2);
        MemoryBudget {
            inner: Rc::new(Inner {
                shared_total: total - slot_total,
                slot_total,
                shared_used: Cell::new(0),
                slot_taken: Cell::new(false),
                slot_used: Cell::new(0),
                waiting: RefCell::new(VecDeque::new()),
                waits: Cell::new(0),
            }),
        }
    }

    /// The largest frame that is certain to get through; a larger one has to be refused.
    pub fn frame_bytes_max(&self) -> usize {
        self.inner.slot_total
    }

    /// Bytes that there are in all.
    pub fn total(&self) -> usize {
        self.inner.shared_total + self.inner.slot_total
    }

    /// Bytes reserved now.
    pub fn used(&self) -> usize {
        self.inner.shared_used.get() + self.inner.slot_used.get()
    }

    /// Reservations waiting in line now.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.borrow().len()
    }

    /// Reservations that had to wait, so far.
    pub fn waits(&self) -> u64 {
        self.inner.waits.get()
    }

    /// An empty reservation, to be grown.
    pub fn reservation(&self) -> Reservation {
        Reservation { inner: Rc::clone(&self.inner), shared: 0, slot: 0, holds_slot: false }
    }

    /// Reserves `bytes`, waiting in line when the budget is spent.
    ///
    /// # Panics
    /// When `bytes` exceed [`MemoryBudget::frame_bytes_max`]: such a frame has to be refused before.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let mut reservation = self.reservation();
        reservation.grow(bytes).await;
        reservation
    }
}

/// Bytes held from a [`MemoryBudget`]; dropping it gives them back and wakes who waits.
#[derive(Debug)]
pub struct Reservation {
    inner: Rc<Inner>,
    shared: usize,
    slot: usize,
    holds_slot: bool,
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.shared + self.slot
    }

    /// Adds `bytes`, waiting in line when the budget is spent. Dropping the future leaves the line.
    ///
    /// # Panics
    /// When the reservation would exceed [`MemoryBudget::frame_bytes_max`].
    pub fn grow(&mut self, bytes: usize) -> impl Future<Output = ()> + '_ {
        assert!(self.bytes() + bytes <= self.inner.slot_total, "a reservation above the largest frame");
        Grow { reservation: self, bytes, waiter: None }
    }

    fn take(&mut self, source: Source, bytes: usize) {
        match source {
            Source::Shared => self.shared += bytes,
            Source::Slot => {
                self.slot += bytes;
                self.holds_slot = true;
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.inner.give_back(Source::Shared, self.shared);
        if self.holds_slot {
            self.inner.give_back(Source::Slot, self.slot);
        }
        self.inner.serve_line();
    }
}

impl Inner {
    /// Takes `bytes` from the shared part, else from the slot when it is free.
    fn try_take(&self, bytes: usize) -> Option<Source> {
        if bytes <= self.shared_total - self.shared_used.get() {
            self.shared_used.set(self.shared_used.get() + bytes);
            return Some(Source::Shared);
        }
        if self.slot_taken.get() {
            return None;
        }
        self.slot_taken.set(true);
        self.slot_used.set(bytes);
        Some(Source::Slot)
    }

    fn give_back(&self, source: Source, bytes: usize) {
        match source {
            Source::Shared => {
                assert!(bytes <= self.shared_used.get(), "more given back than was taken");
                self.shared_used.set(self.shared_used.get() - bytes);
            }
            Source::Slot => {
                assert!(self.slot_taken.get() && bytes == self.slot_used.get(), "the slot has one holder");
                self.slot_used.set(0);
                self.slot_taken.set(false);
            }
        }
    }

    /// Serves the line strictly from its head, so that nobody is overtaken for ever.
    fn serve_line(&self) {
        loop {
            let head = self.waiting.borrow().front().map(Rc::clone);
            let Some(head) = head else { return };
            let Some(source) = self.try_take(head.bytes) else { return };
            self.waiting.borrow_mut().pop_front();
            head.granted.set(Some(source));
            let waker = head.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

struct Grow<'a> {
    reservation: &'a mut Reservation,
    bytes: usize,
    waiter: Option<Rc<Waiter>>,
}

impl Future for Grow<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(waiter) = &this.waiter {
            if let Some(source) = waiter.granted.take() {
                this.waiter = None;
                this.reservation.take(source, this.bytes);
                return Poll::Ready(());
            }
            *waiter.waker.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let inner = Rc::clone(&this.reservation.inner);
        if this.reservation.holds_slot {
            // Whoever holds the slot never waits again: that is what makes it the way out of a full budget.
            inner.slot_used.set(inner.slot_used.get() + this.bytes);
            this.reservation.take(Source::Slot, this.bytes);
            return Poll::Ready(());
        }
        if inner.waiting.borrow().is_empty()
            && let Some(source) = inner.try_take(this.bytes)
        {
            this.reservation.take(source, this.bytes);
            return Poll::Ready(());
        }
        let waiter = Rc::new(Waiter {
            bytes: this.bytes,
            granted: Cell::new(None),
            waker: RefCell::new(Some(cx.waker().clone())),
        });
        inner.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        inner.waits.set(inner.waits.get() + 1);
        this.waiter = Some(waiter);
        Poll::Pending
    }
}

impl Drop for Grow<'_> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let inner = Rc::clone(&self.reservation.inner);
        match waiter.granted.take() {
            Some(source) => inner.give_back(source, waiter.bytes),
            None => inner.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter)),
        }
        inner.serve_line();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_line_is_served_in_order_and_the_slot_opens_a_full_budget() {
        let budget = MemoryBudget::new(100, 50);
        let first = budget.reserve(30).now_or_never().expect("room for the first");
        let second = budget.reserve(30).now_or_never().expect("the slot takes the second");
        assert_eq!(budget.used(), 60);
        let mut third = Box::pin(budget.reserve(40));
        let mut fourth = Box::pin(budget.reserve(10));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none(), "a small one doesn't overtake");
        assert_eq!((budget.waiting(), budget.waits(), budget.total()), (2, 2, 100));
        drop(second);
        let third = third.now_or_never().expect("the slot is free again");
        let fourth = fourth.now_or_never().expect("it fits into what is shared");
        drop((first, third, fourth));
        assert_eq!((budget.used(), budget.waiting(), budget.waits()), (0, 0, 2));
    }

    #[test]
    fn two_frames_that_hold_pieces_never_block_each_other_for_ever() {
        let budget = MemoryBudget::new(100, 50);
        let mut one = budget.reservation();
        let mut two = budget.reservation();
        one.grow(25).now_or_never().unwrap();
        two.grow(25).now_or_never().unwrap();
        one.grow(10).now_or_never().expect("takes the slot");
        let mut blocked = Box::pin(two.grow(25));
        assert!(blocked.as_mut().now_or_never().is_none());
        one.grow(15).now_or_never().expect("the holder of the slot never waits");
        drop(one);
        blocked.now_or_never().expect("goes on once the first is done");
        drop(two);
        assert_eq!(budget.used(), 0);
        assert_eq!(budget.waiting(), 0);
    }

    #[test]
    fn leaving_the_line_gives_back_what_was_granted_meanwhile() {
        let budget = MemoryBudget::new(100, 50);
        let first = budget.reserve(50).now_or_never().unwrap();
        let second = budget.reserve(50).now_or_never().unwrap();
        let mut third = Box::pin(budget.reserve(50));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(budget.used(), 100);
        drop(third);
        assert_eq!(budget.used(), 50);
        drop(second);
        assert_eq!(budget.used(), 0);
    }
}
