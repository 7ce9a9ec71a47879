//! One core's ring and the handle to it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::LocalBoxFuture;
use io_uring::{IoUring, opcode, squeue, types};

use super::flusher::Polls;
use super::mailbox::Mailbox;
use super::op::{Op, Operations};
use crate::core::{Core, Message};
use crate::cores::CoreId;
use crate::time::Instant;

/// Completions that belong to no operation of the table.
pub(super) const DOORBELL: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
const CANCEL: u64 = u64::MAX - 2;
/// From here up a completion tells that ringing core `user_data - RANG` succeeded or failed.
const RANG: u64 = u64::MAX - (1 << 17);

/// The monotonic clock, counted from the start of the runtime; shared by its cores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start_ns: u64,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { start_ns: monotonic_ns() }
    }

    pub(crate) fn now(self) -> Instant {
        Instant::from_nanos(monotonic_ns() - self.start_ns)
    }

    fn timespec(self, at: Instant) -> types::Timespec {
        let ns = self.start_ns.saturating_add(at.as_nanos());
        types::Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32)
    }
}

fn monotonic_ns() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC)
}

/// CPU time, of user and kernel, that the calling thread has used so far. A system call.
pub(crate) fn thread_cpu_time() -> Duration {
    Duration::from_nanos(read_clock(libc::CLOCK_THREAD_CPUTIME_ID))
}

fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec, which `spec` is.
    let status = unsafe { libc::clock_gettime(clock, &raw mut spec) };
    assert_eq!(status, 0, "clocks of the kernel's own always answer");
    spec.tv_sec as u64 * 1_000_000_000 + spec.tv_nsec as u64
}

/// A core's handle to its ring; clones share it.
#[derive(Clone)]
pub(crate) struct Driver {
    pub(super) inner: Rc<Inner>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driver")
    }
}

pub(super) struct Inner {
    id: CoreId,
    ring: RefCell<IoUring>,
    pub(super) operations: RefCell<Operations>,
    mailboxes: Arc<[Mailbox]>,
    clock: Clock,
    /// Tells the flusher whether other tasks ran.
    polls: Polls,
    /// The deadlines that a TIMEOUT is armed for, the earliest last; each was earlier than all before it.
    armed: RefCell<Vec<Instant>>,
    /// What queued TIMEOUT entries point to, each at an address of its own; the kernel copies it when they are
    /// submitted.
    #[expect(clippy::vec_box, reason = "the kernel holds pointers to the elements")]
    timespecs: RefCell<Vec<Box<types::Timespec>>>,
    /// Operations on files, of those under way.
    pub(super) file_operations: Cell<usize>,
    /// Completions on their way from the ring to their tasks.
    reaped: RefCell<Vec<(u64, i32)>>,
    /// The core has ended: the ring is not entered any more.
    pub(super) closed: Cell<bool>,
}

impl Driver {
    /// Makes the ring of core `id` and tells the mailbox.
    pub(crate) fn new(
        id: CoreId,
        entries: u32,
        clock: Clock,
        mailboxes: Arc<[Mailbox]>,
    ) -> io::Result<Driver> {
        let ring = build_ring(entries)?;
        mailboxes[usize::from(id.0)].set_ring(ring.as_raw_fd());
        let inner = Inner {
            id,
            ring: RefCell::new(ring),
            operations: RefCell::default(),
            mailboxes,
            clock,
            polls: Polls::default(),
            armed: RefCell::default(),
            timespecs: RefCell::default(),
            file_operations: Cell::new(0),
            reaped: RefCell::default(),
            closed: Cell::new(false),
        };
        Ok(Driver { inner: Rc::new(inner) })
    }

    pub(crate) fn now(&self) -> Instant {
        self.inner.clock.now()
    }

    pub(crate) fn wall_clock_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// What the flusher knows other tasks' polls by.
    pub(crate) fn polls(&self) -> Polls {
        self.inner.polls.clone()
    }

    pub(crate) fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        glommio::spawn_local(self.inner.polls.watch(task)).detach();
    }

    /// One trip through the ring: whatever has completed runs first.
    pub(crate) fn yield_now(&self) -> impl Future<Output = ()> + use<> {
        let nop = Op::submit(&self.inner, (), |()| opcode::Nop::new().build());
        async move {
            let (result, ()) = nop.await;
            debug_assert!(result.is_ok());
        }
    }

    /// The mailboxes of all cores, for a thread that is none.
    pub(crate) fn mailboxes(&self) -> Arc<[Mailbox]> {
        self.inner.mailboxes.clone()
    }

    pub(crate) fn post(&self, to: CoreId, message: Message) {
        if self.inner.mailboxes[usize::from(to.0)].put(message) {
            self.inner.ring_core(to);
        }
    }

    /// Messages that wait for core `to`.
    pub(crate) fn waiting_messages(&self, to: CoreId) -> usize {
        self.inner.mailboxes[usize::from(to.0)].len()
    }

    /// Reads, writes and syncs of files that the kernel has not completed.
    pub(crate) fn file_operations(&self) -> usize {
        self.inner.file_operations.get()
    }

    /// Asks the kernel to end everything under way and waits for it, so that no operation outlives its buffers; then
    /// stops the flusher. The scheduler looks for the end of its main only when nothing is runnable, and without
    /// completions nothing stays runnable for long.
    pub(crate) async fn drain(&self) {
        const ROUNDS_MAX: u32 = 1_000;
        for _ in 0..ROUNDS_MAX {
            if self.inner.operations.borrow().in_flight() == 0 {
                self.inner.closed.set(true);
                return;
            }
            let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build();
            self.inner.push(cancel.user_data(CANCEL));
            self.inner.turn(true);
        }
        self.inner.closed.set(true);
        tracing::warn!(
            operations = self.inner.operations.borrow().in_flight(),
            "operations left at shutdown"
        );
    }
}

/// With DEFER_TASKRUN completions are worked off when the ring is entered, in one go, and interrupt nobody.
fn build_ring(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .dontfork()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(entries * 4)
        .build(entries)
}

impl Inner {
    pub(super) fn user_data(key: usize) -> u64 {
        let key = key as u64;
        assert!(key < RANG, "more operations than the table can name");
        key
    }

    /// Queues an entry for the flusher's next turn.
    pub(super) fn push(&self, entry: squeue::Entry) {
        let mut ring = self.ring.borrow_mut();
        // SAFETY: entries point into resources of an operation, which outlive its completion (see `op`), or nowhere.
        while unsafe { ring.submission().push(&entry) }.is_err() {
            if let Err(error) = ring.submit()
                && !is_transient(&error)
            {
                panic!("io_uring refused its submission queue: {error}");
            }
        }
    }

    pub(super) fn push_cancel(&self, key: usize) {
        self.push(opcode::AsyncCancel::new(Inner::user_data(key)).build().user_data(CANCEL));
    }

    fn ring_core(&self, to: CoreId) {
        let fd = types::Fd(self.mailboxes[usize::from(to.0)].ring());
        let entry = opcode::MsgRingData::new(fd, 0, DOORBELL, None).build();
        self.push(entry.user_data(RANG + u64::from(to.0)));
    }

    /// Runs what other cores sent, at most one pass' worth; whether there was any.
    pub(super) fn run_messages(&self) -> bool {
        const MESSAGES_PER_PASS_MAX: usize = 256;
        let mailbox = &self.mailboxes[usize::from(self.id.0)];
        let mut ran = false;
        for _ in 0..MESSAGES_PER_PASS_MAX {
            let Some(message) = mailbox.take() else { break };
            crate::cores::run_message(message);
            ran = true;
        }
        ran
    }

    /// Wakes the timers due at `now` and arms the next deadline; whether any was due.
    pub(super) fn run_timers(&self, core: &Core, now: Instant) -> bool {
        if core.timers.borrow().next_deadline().is_none() {
            return false;
        }
        let due = core.timers.borrow_mut().take_due(now);
        let fired = !due.is_empty();
        due.into_iter().for_each(Waker::wake);
        if let Some(next) = core.timers.borrow().next_deadline()
            && self.armed.borrow().last().is_none_or(|armed| next < *armed)
        {
            self.arm(next);
        }
        fired
    }

    /// Has a TIMEOUT complete at `at`, earlier than all that are armed.
    fn arm(&self, at: Instant) {
        self.armed.borrow_mut().push(at);
        let spec = Box::new(self.clock.timespec(at));
        let entry = opcode::Timeout::new(&raw const *spec).flags(types::TimeoutFlags::ABS).build();
        self.timespecs.borrow_mut().push(spec);
        self.push(entry.user_data(TIMER));
    }

    /// Submits what is queued and takes in what has completed; whether there was any of either. Enters the kernel
    /// only where there is something to do, or always with `wait`, then until something completes.
    pub(super) fn turn(&self, wait: bool) -> bool {
        let mut ring = self.ring.borrow_mut();
        let (queued, must_run) = {
            let submission = ring.submission();
            (!submission.is_empty(), submission.taskrun() || submission.cq_overflow())
        };
        if queued || must_run || wait {
            let entered = enter(&mut ring, u32::from(wait));
            if let Err(error) = entered
                && !is_transient(&error)
            {
                panic!("io_uring cannot be entered: {error}");
            }
            if ring.submission().is_empty() {
                self.timespecs.borrow_mut().clear();
            }
        }
        drop(ring);
        self.reap() || queued
    }

    fn reap(&self) -> bool {
        let mut reaped = self.reaped.take();
        reaped.extend(self.ring.borrow_mut().completion().map(|entry| (entry.user_data(), entry.result())));
        let any = !reaped.is_empty();
        for (user_data, result) in reaped.drain(..) {
            self.take_in(user_data, result);
        }
        *self.reaped.borrow_mut() = reaped;
        any
    }

    fn take_in(&self, user_data: u64, result: i32) {
        match user_data {
            DOORBELL | CANCEL => {}
            TIMER => {
                self.armed.borrow_mut().pop();
            }
            rang if rang >= RANG => {
                // A full completion queue of the other core: it is awake or will be rung again.
                if result == -libc::EOVERFLOW || result == -libc::EAGAIN {
                    self.ring_core(CoreId((rang - RANG) as u16));
                }
            }
            key => {
                let (waker, orphan) = self.operations.borrow_mut().complete(key as usize, result);
                drop(orphan);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }

    /// Sleeps until something completes or another core rings, unless there is work.
    pub(super) fn sleep(&self) {
        let mailbox = &self.mailboxes[usize::from(self.id.0)];
        if mailbox.announce_sleep() {
            self.turn(true);
            mailbox.wake_up();
        }
    }
}

/// Submits what is queued, works off what has happened meanwhile, and waits for `wanted` completions.
fn enter(ring: &mut IoUring, wanted: u32) -> io::Result<usize> {
    const IORING_ENTER_GETEVENTS: u32 = 1;
    let queued = ring.submission().len() as u32;
    // SAFETY: without an argument structure (`None`) nothing is pointed to; what queued entries point to is kept by
    // their operations.
    unsafe { ring.submitter().enter::<libc::sigset_t>(queued, wanted, IORING_ENTER_GETEVENTS, None) }
}

/// Errors after which the entries simply go in at the next turn.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}
