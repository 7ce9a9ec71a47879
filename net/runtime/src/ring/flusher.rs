//! The task that turns the ring, once a scheduler pass, and puts the core to sleep in it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::core::{Backend, Core};
use crate::time::Instant;

/// Returns when the core has ended. A pass in which nothing ran and nothing came ends in sleep, after `spin`.
///
/// The sleep is the ring's own wait, in the kernel, with this task on the stack: whatever makes a task ready comes
/// through the ring, and `polls` tells that no other task is ready. A scheduler pass runs every ready task once, so one
/// without a poll has left none behind.
pub(crate) async fn flush_until_closed(core: Rc<Core>, polls: Polls, spin: Duration) {
    let Backend::Ring(driver) = &core.backend else { unreachable!("the flusher drives a ring") };
    let ring = &driver.inner;
    let mut idle_since: Option<Instant> = None;
    core.load.idled_until(driver.now());
    while !ring.closed.get() {
        let mut busy = polls.take_any();
        busy |= ring.run_messages();
        let now = driver.now();
        busy |= ring.run_timers(&core, now);
        busy |= ring.turn(false);
        if busy {
            core.load.worked_until(now);
            idle_since = None;
        } else if spin.is_zero() || now >= *idle_since.get_or_insert(now) + spin {
            ring.sleep();
            core.load.idled_until(driver.now());
            idle_since = None;
        } else {
            core.load.idled_until(now);
        }
        next_pass().await;
    }
}

/// Lets every ready task run once.
async fn next_pass() {
    let mut passed = false;
    poll_fn(|cx| {
        if passed {
            return Poll::Ready(());
        }
        passed = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether any task of a core was polled: all of them but the flusher go through [`Polls::watch`].
#[derive(Clone, Default)]
pub(crate) struct Polls {
    any: Rc<Cell<bool>>,
}

impl Polls {
    /// Whether there was a poll since the last time this was asked.
    fn take_any(&self) -> bool {
        self.any.take()
    }

    /// `task`, with its polls noted.
    pub(crate) fn watch<F: Future + Unpin>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        Watched { any: self.any.clone(), task }
    }
}

struct Watched<F> {
    any: Rc<Cell<bool>>,
    task: F,
}

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.any.set(true);
        Pin::new(&mut self.task).poll(cx)
    }
}
