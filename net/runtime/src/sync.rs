//! Waiting for a condition between tasks of one core.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Something that tasks of one core wait for and any of them announces.
///
/// An event carries no state of its own: the condition lives elsewhere. A waiter creates its [`Listen`], checks
/// the condition again, and only then awaits; an announcement after the creation is never missed. Clones are the
/// same event.
#[derive(Clone, Default)]
pub struct Event {
    inner: Rc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// How many announcements there were; a listener waits for it to leave the value it saw at its creation.
    announcements: Cell<u64>,
    /// Those who polled since the last announcement. Emptied by each announcement, so that a slot belongs to
    /// its listener exactly as long as `announcements` has not moved.
    waiting: RefCell<Slab<Waker>>,
}

impl Event {
    /// An event nobody waits for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes every listener created before this call.
    pub fn notify_all(&self) {
        self.inner.announcements.set(self.inner.announcements.get() + 1);
        // Taken out before waking: a waker may run code that listens again.
        let waiting = std::mem::take(&mut *self.inner.waiting.borrow_mut());
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// Resolves at the first [`notify_all`](Self::notify_all) after this call (not: after its first poll).
    pub fn listen(&self) -> Listen {
        Listen { seen: self.inner.announcements.get(), inner: self.inner.clone(), slot: None }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("waiting", &self.inner.waiting.borrow().len()).finish()
    }
}

/// One wait for an [`Event`]; dropping it ends the wait.
#[must_use = "a listener does nothing unless awaited"]
pub struct Listen {
    inner: Rc<Inner>,
    seen: u64,
    slot: Option<usize>,
}

impl Listen {
    fn announced(&self) -> bool {
        self.inner.announcements.get() != self.seen
    }
}

impl Future for Listen {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.announced() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let replaced = match self.slot {
            Some(slot) => Some(std::mem::replace(&mut self.inner.waiting.borrow_mut()[slot], waker)),
            None => {
                let slot = self.inner.waiting.borrow_mut().insert(waker);
                self.slot = Some(slot);
                None
            }
        };
        // Outside the borrow: dropping a waker may drop its task, and with it another listener.
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        if let Some(slot) = self.slot
            && !self.announced()
        {
            let waker = self.inner.waiting.borrow_mut().try_remove(slot);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(listen: &mut Listen, count: &Arc<Count>) -> bool {
        let waker = Waker::from(count.clone());
        pin!(listen).poll(&mut Context::from_waker(&waker)).is_ready()
    }

    #[test]
    fn an_announcement_between_creation_and_first_poll_is_not_missed() {
        let event = Event::new();
        let mut listen = event.listen();
        event.notify_all();
        assert!(poll(&mut listen, &Arc::default()));
    }

    #[test]
    fn an_announcement_wakes_each_waiter_once_and_later_listeners_not_at_all() {
        let event = Event::new();
        let count = Arc::default();
        let mut early = [event.listen(), event.listen()];
        assert!(!poll(&mut early[0], &count));
        assert!(!poll(&mut early[0], &count));
        assert!(!poll(&mut early[1], &count));
        event.notify_all();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        let mut late = event.listen();
        assert!(!poll(&mut late, &count));
        assert!(early.iter_mut().all(|listen| poll(listen, &count)));
    }

    #[test]
    fn a_dropped_listener_leaves_nothing_behind_and_takes_nobody_elses_place() {
        let event = Event::new();
        let count = Arc::default();
        let mut dropped = event.listen();
        assert!(!poll(&mut dropped, &count));
        event.notify_all();
        let mut waiting = event.listen();
        assert!(!poll(&mut waiting, &count));
        // It held the same slot before the announcement.
        drop(dropped);
        assert_eq!(event.inner.waiting.borrow().len(), 1);
        drop(waiting);
        assert!(event.inner.waiting.borrow().is_empty());
    }
}
