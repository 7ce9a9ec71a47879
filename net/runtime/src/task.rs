//! Tasks of one core, and the budget that background work keeps.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::core::{self, Backend};
use crate::time::{Instant, now, sleep};

/// Runs `future` on this core, beside the caller.
///
/// A panic inside it ends this task alone: it is logged at ERROR, counted in [`panics`] and given to whoever awaits
/// the handle. It is a bug all the same.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let shared = Rc::new(RefCell::new(Shared { output: None, waker: None }));
    let handle = JoinHandle { shared: shared.clone() };
    let task = async move {
        let output = AssertUnwindSafe(future).catch_unwind().await.map_err(|payload| report_panic(&*payload));
        let waker = {
            let mut shared = shared.borrow_mut();
            shared.output = Some(output);
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    };
    spawn_boxed(Box::pin(task));
    handle
}

#[track_caller]
fn spawn_boxed(task: LocalBoxFuture<'static, ()>) {
    match &core::current().backend {
        Backend::Ring(driver) => driver.spawn(task),
        Backend::Sim(driver) => driver.spawn(task),
    }
}

/// Logs and counts a panic that was caught on this core.
pub(crate) fn report_panic(payload: &(dyn Any + Send)) -> Panicked {
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value without text".to_owned());
    let core = core::current();
    core.panics.set(core.panics.get() + 1);
    tracing::error!(core = core.id.0, %message, "a task panicked; this is a bug in heizer, please report it");
    Panicked { message }
}

/// Panics caught on this core so far.
pub fn panics() -> u64 {
    core::current().panics.get()
}

/// The task panicked instead of finishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    message: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task panicked: {}", self.message)
    }
}

impl std::error::Error for Panicked {}

struct Shared<T> {
    output: Option<Result<T, Panicked>>,
    waker: Option<Waker>,
}

/// The output of a spawned task. Dropping the handle lets the task run on.
pub struct JoinHandle<T> {
    shared: Rc<RefCell<Shared<T>>>,
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.shared.borrow_mut();
        match shared.output.take() {
            Some(output) => Poll::Ready(output),
            None => {
                shared.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> JoinHandle<T> {
    /// Whether the task has ended and its output waits here.
    pub fn is_finished(&self) -> bool {
        self.shared.borrow().output.is_some()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}

/// Lets I/O, timers, messages and other tasks run before the caller goes on.
pub async fn yield_now() {
    match &core::current().backend {
        Backend::Ring(driver) => driver.yield_now().await,
        Backend::Sim(driver) => driver.yield_now().await,
    }
}

/// The longest stretch that background work may run without letting others in. Timers and sockets elsewhere on the
/// core are late by just that much.
pub const SLICE_MAX: Duration = Duration::from_micros(100);

/// Keeps a background task within a share of its core.
///
/// The executor runs every ready task once a pass and knows no shares, so long work counts its own time: it calls
/// [`Pacer::checkpoint`] every few microseconds of work.
#[derive(Debug)]
pub struct Pacer {
    share_percent: u32,
    slice_started: Instant,
}

impl Pacer {
    /// A budget of `share_percent` (1 to 100) of the core.
    pub fn new(share_percent: u32) -> Pacer {
        assert!((1..=100).contains(&share_percent), "a share is 1 to 100 percent");
        Pacer { share_percent, slice_started: now() }
    }

    /// Goes on at once within the slice; at its end yields, and sleeps as long as the share demands.
    pub async fn checkpoint(&mut self) {
        if let Backend::Sim(driver) = &core::current().backend {
            driver.worked();
        }
        let worked = now().saturating_duration_since(self.slice_started);
        if worked < SLICE_MAX {
            return;
        }
        // What is beyond was spent waiting, for the disk or for a CPU that others had: nothing to rest from.
        let worked = worked.min(2 * SLICE_MAX);
        let rest = worked * (100 - self.share_percent) / self.share_percent;
        if rest.is_zero() {
            yield_now().await;
        } else {
            sleep(rest).await;
        }
        self.slice_started = now();
    }
}
