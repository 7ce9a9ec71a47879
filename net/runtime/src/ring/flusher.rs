//! The task that turns the ring, once a scheduler pass, and lets the core sleep.

use std::future::{Future, poll_fn};
use std::os::fd::{AsRawFd, FromRawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{Either, select};
use glommio::io::BufferedFile;

use super::driver::Driver;
use crate::core::{Backend, Core};
use crate::time::Instant;

/// Returns when the core has ended. Passes without work end in sleep after `spin`.
pub(crate) async fn flush_until_closed(core: Rc<Core>, spin: Duration) {
    let Backend::Ring(driver) = &core.backend else { unreachable!("the flusher drives a ring") };
    let mut bell = Bell::new(driver);
    let mut idle_since: Option<Instant> = None;
    driver.inner.end_sleep();
    while !driver.inner.closed.get() {
        let mut busy = driver.inner.run_messages();
        busy |= driver.inner.run_timers(&core);
        busy |= driver.inner.turn(false);
        if busy {
            idle_since = None;
            next_pass().await;
            continue;
        }
        if !spin.is_zero() {
            let now = driver.now();
            if now < *idle_since.get_or_insert(now) + spin {
                next_pass().await;
                continue;
            }
        }
        if driver.inner.prepare_sleep() {
            bell.wait(driver).await;
            driver.inner.end_sleep();
        }
        idle_since = None;
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

/// The ring's eventfd as glommio sees it. Its only purpose is to end the sleep of a parked executor.
struct Bell {
    eventfd: Rc<BufferedFile>,
    read: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Bell {
    fn new(driver: &Driver) -> Bell {
        // SAFETY: the descriptor is duplicated, so that glommio's closing of its file leaves ours open.
        let file = unsafe { BufferedFile::from_raw_fd(libc::dup(driver.inner.eventfd.as_raw_fd())) };
        Bell { eventfd: Rc::new(file), read: None }
    }

    /// Waits for a completion or for a task of this core that has work for the ring. A read that is still pending
    /// stays for the next sleep: a signal between two sleeps then ends the next one early, which is harmless.
    async fn wait(&mut self, driver: &Driver) {
        let eventfd = &self.eventfd;
        let read = self.read.get_or_insert_with(|| Box::pin(read_eventfd(eventfd.clone())));
        let rung = match select(read, pin!(driver.inner.kicked())).await {
            Either::Left(((), _)) => true,
            Either::Right(((), _)) => false,
        };
        if rung {
            self.read = None;
        }
    }
}

async fn read_eventfd(eventfd: Rc<BufferedFile>) {
    if let Err(error) = eventfd.read_at(0, 8).await {
        tracing::error!(%error, "the wake-up descriptor cannot be read");
    }
}
