//! Operations under way on the ring, and the future that awaits one.
//!
//! The kernel reads and writes memory that an operation points to until it completes, also when nobody waits any
//! more. So an operation owns its resources in a box of a stable address; a dropped future hands the box over to the
//! table of operations, which keeps it until the completion.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use io_uring::squeue;
use slab::Slab;

use super::driver::Inner;

/// All operations of one ring.
#[derive(Default)]
pub(super) struct Operations {
    slots: Slab<Slot>,
}

enum Slot {
    Waiting(Option<Waker>),
    Done(i32),
    /// Its future is gone; the resources wait for the kernel.
    Orphaned {
        resources: Box<dyn Any>,
        yields_fd: bool,
    },
}

impl Operations {
    fn insert(&mut self) -> usize {
        self.slots.insert(Slot::Waiting(None))
    }

    /// Takes in a completion; the waker of whoever waits. An orphan's resources come back to be dropped outside of
    /// any borrow.
    pub(super) fn complete(&mut self, key: usize, result: i32) -> (Option<Waker>, Option<Box<dyn Any>>) {
        match &mut self.slots[key] {
            slot @ Slot::Waiting(_) => match std::mem::replace(slot, Slot::Done(result)) {
                Slot::Waiting(waker) => (waker, None),
                Slot::Done(_) | Slot::Orphaned { .. } => unreachable!("matched above"),
            },
            Slot::Orphaned { .. } => match self.slots.remove(key) {
                Slot::Orphaned { resources, yields_fd } => {
                    if yields_fd {
                        close_result(result);
                    }
                    (None, Some(resources))
                }
                Slot::Waiting(_) | Slot::Done(_) => unreachable!("matched above"),
            },
            Slot::Done(_) => panic!("operation {key} completed twice"),
        }
    }

    /// Operations that the kernel has not completed.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.iter().filter(|(_, slot)| !matches!(slot, Slot::Done(_))).count()
    }
}

/// Awaits one operation; gives back the kernel's result and the resources.
pub(super) struct Op<R: 'static> {
    inner: Rc<Inner>,
    key: usize,
    /// `None` once completed.
    resources: Option<Box<R>>,
    /// Whether dropping the future asks the kernel to give up: for what may wait for ever.
    cancel_on_drop: bool,
    /// Whether success is a new descriptor, which a dropped future must not leave open.
    yields_fd: bool,
}

/// Closes the descriptor that an operation made and nobody took.
fn close_result(result: i32) {
    if result >= 0 {
        // SAFETY: the kernel has just made this descriptor for us, and whoever would have owned it is gone.
        drop(unsafe { OwnedFd::from_raw_fd(result) });
    }
}

impl<R: 'static> Op<R> {
    /// Queues the entry that `build` makes. Its pointers may refer to what `resources` owns and to nothing else.
    pub(super) fn submit(
        inner: &Rc<Inner>,
        resources: R,
        build: impl FnOnce(&mut R) -> squeue::Entry,
    ) -> Op<R> {
        let mut resources = Box::new(resources);
        let key = inner.operations.borrow_mut().insert();
        let entry = build(&mut resources).user_data(Inner::user_data(key));
        inner.push(entry);
        Op { inner: inner.clone(), key, resources: Some(resources), cancel_on_drop: false, yields_fd: false }
    }

    /// For operations that wait for a peer.
    pub(super) fn cancelled_on_drop(mut self) -> Op<R> {
        self.cancel_on_drop = true;
        self
    }

    /// For operations whose result is a descriptor.
    pub(super) fn yielding_fd(mut self) -> Op<R> {
        self.yields_fd = true;
        self
    }
}

impl<R: 'static> Future for Op<R> {
    type Output = (io::Result<u32>, R);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut operations = this.inner.operations.borrow_mut();
        let result = match &mut operations.slots[this.key] {
            Slot::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            Slot::Done(result) => *result,
            Slot::Orphaned { .. } => unreachable!("only a dropped future leaves an orphan"),
        };
        operations.slots.remove(this.key);
        drop(operations);
        let resources = this.resources.take().expect("polled after completion");
        let result = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u32) };
        Poll::Ready((result, *resources))
    }
}

impl<R: 'static> Drop for Op<R> {
    fn drop(&mut self) {
        let Some(resources) = self.resources.take() else { return };
        let mut operations = self.inner.operations.borrow_mut();
        if let Slot::Done(result) = operations.slots[self.key] {
            operations.slots.remove(self.key);
            if self.yields_fd {
                close_result(result);
            }
            return;
        }
        operations.slots[self.key] = Slot::Orphaned { resources, yields_fd: self.yields_fd };
        drop(operations);
        if self.cancel_on_drop {
            self.inner.push_cancel(self.key);
        }
    }
}

impl<R: 'static> Unpin for Op<R> {}

impl<R: 'static> fmt::Debug for Op<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op").field("key", &self.key).finish_non_exhaustive()
    }
}
