//! Other cores: calling them, telling them, and the room each keeps.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;

use crate::core::{self, Backend, CallAnswer, Core, Message, PendingCall};
use crate::task;

/// A core of this process (or simulated node), counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The core that runs the caller.
pub fn current() -> CoreId {
    core::current().id
}

/// How many cores there are.
pub fn count() -> usize {
    core::current().core_count
}

/// Every core, in order.
pub fn all() -> impl Iterator<Item = CoreId> {
    (0..count()).map(|index| CoreId(u16::try_from(index).expect("core counts fit u16")))
}

/// The callee could not answer: it panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreGone;

impl fmt::Display for CoreGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other core did not finish the call")
    }
}

impl std::error::Error for CoreGone {}

/// Runs `f` and its future on `core` and brings the output back.
///
/// On the caller's own core it runs inline. On another one, calls from one core start in the order in which they
/// were made: `f` is called and its future polled once before the next one's. Dropping the returned future does not
/// cancel the call.
pub async fn call<F, Fut, T>(core: CoreId, f: F) -> Result<T, CoreGone>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let here = core::current();
    if core == here.id {
        return Ok(f().await);
    }
    let key = here.calls.borrow_mut().insert(PendingCall { waker: None, answer: None, abandoned: false });
    let origin = here.id;
    post(&here, core, Box::new(move || start_call(origin, key, f)));
    let waiting = Waiting { core: here, key, done: false };
    let answer = waiting.await.ok_or(CoreGone)?;
    Ok(*answer.downcast::<T>().expect("a call is answered with its own type"))
}

/// Runs on the callee's core: one poll at once, which keeps the order and often suffices; a task for the rest.
fn start_call<F, Fut, T>(origin: CoreId, key: usize, f: F)
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let mut future = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(future) => Box::pin(AssertUnwindSafe(future).catch_unwind()),
        Err(payload) => {
            task::report_panic(&*payload);
            return answer_call(origin, key, None);
        }
    };
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => answer_call(origin, key, outcome(output)),
        Poll::Pending => {
            task::spawn(async move { answer_call(origin, key, outcome(future.await)) });
        }
    }
}

fn outcome<T: Send + 'static>(output: std::thread::Result<T>) -> CallAnswer {
    match output {
        Ok(output) => Some(Box::new(output)),
        Err(payload) => {
            task::report_panic(&*payload);
            None
        }
    }
}

fn answer_call(origin: CoreId, key: usize, answer: CallAnswer) {
    let complete = move || {
        let core = core::current();
        let mut calls = core.calls.borrow_mut();
        if calls[key].abandoned {
            calls.remove(key);
            return;
        }
        let call = &mut calls[key];
        call.answer = Some(answer);
        let waker = call.waker.take();
        drop(calls);
        if let Some(waker) = waker {
            waker.wake();
        }
    };
    post(&core::current(), origin, Box::new(complete));
}

struct Waiting {
    core: Rc<Core>,
    key: usize,
    done: bool,
}

impl Future for Waiting {
    type Output = CallAnswer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallAnswer> {
        let mut calls = self.core.calls.borrow_mut();
        let call = &mut calls[self.key];
        let Some(answer) = call.answer.take() else {
            call.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        calls.remove(self.key);
        drop(calls);
        self.done = true;
        Poll::Ready(answer)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut calls = self.core.calls.borrow_mut();
        if calls[self.key].answer.is_some() {
            calls.remove(self.key);
        } else {
            calls[self.key].abandoned = true;
        }
    }
}

/// Runs `f` on `core` some time soon, after everything sent there before; at once when it is the caller's own.
pub fn cast<F: FnOnce() + Send + 'static>(core: CoreId, f: F) {
    let here = core::current();
    if core == here.id {
        f();
    } else {
        post(&here, core, Box::new(f));
    }
}

/// Messages that wait for `core` to run them: one that grows has stalled, or has more to do than it can.
pub fn waiting_messages(core: CoreId) -> usize {
    let here = core::current();
    assert!(usize::from(core.0) < here.core_count, "there is no core {core}");
    match &here.backend {
        Backend::Ring(driver) => driver.waiting_messages(core),
        Backend::Sim(driver) => driver.waiting_messages(core),
    }
}

fn post(here: &Core, to: CoreId, message: Message) {
    assert!(usize::from(to.0) < here.core_count, "there is no core {to}");
    match &here.backend {
        Backend::Ring(driver) => driver.post(to, message),
        Backend::Sim(driver) => driver.post(to, message),
    }
}

/// Runs a message that arrived at the current core; a panic in it is caught like a task's.
pub(crate) fn run_message(message: Message) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(message)) {
        task::report_panic(&*payload);
    }
}

/// Makes `room` this core's singleton of its type: where messages from other cores find its state. One that was set
/// before gives way.
pub fn set_room<T: 'static>(room: Rc<T>) {
    let core = core::current();
    let mut rooms = core.rooms.borrow_mut();
    rooms.retain(|other| !other.is::<T>());
    rooms.push(room);
}

/// Takes this core's room of type `T` away.
pub fn take_room<T: 'static>() -> Option<Rc<T>> {
    let room = try_room::<T>();
    core::current().rooms.borrow_mut().retain(|other| !other.is::<T>());
    room
}

/// This core's room.
///
/// # Panics
/// When none of type `T` was set.
pub fn room<T: 'static>() -> Rc<T> {
    try_room().expect("this core has no room of that type")
}

/// This core's room, if one of type `T` was set.
pub fn try_room<T: 'static>() -> Option<Rc<T>> {
    let room: Option<Rc<dyn Any>> =
        core::current().rooms.borrow().iter().find(|room| room.is::<T>()).cloned();
    room.and_then(|room| room.downcast::<T>().ok())
}

/// Runs `f` on every core, this one included, and waits for all; outputs in core order.
pub async fn call_all<F, Fut, T>(f: F) -> Result<Vec<T>, CoreGone>
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let calls = all().map(|core| {
        let f = f.clone();
        call(core, f)
    });
    let joined = pin!(futures::future::try_join_all(calls));
    joined.await
}
