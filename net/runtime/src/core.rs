//! The current core: what every facade of this crate consults.
//!
//! A core is one executor with its own timers, random source, mailbox and I/O. On a real machine it is one pinned
//! thread ([`crate::ring`]); in a simulation many cores of many nodes share a thread and the simulator enters one
//! before each poll ([`crate::sim`]).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use slab::Slab;

use crate::cores::CoreId;
use crate::load::Load;
use crate::net::FileSends;
use crate::sync::{Event, Listen};
use crate::time::Instant;
use crate::{ring, sim};

/// Work sent to another core; it runs there between tasks and must not block.
pub(crate) type Message = Box<dyn FnOnce() + Send>;

/// One executor's state, owned by its thread (or by the simulation).
pub(crate) struct Core {
    pub(crate) id: CoreId,
    pub(crate) core_count: usize,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) rng: RefCell<SmallRng>,
    /// The typed singletons of the code that runs here: the core's rooms, one of each type.
    pub(crate) rooms: RefCell<Vec<Rc<dyn Any>>>,
    /// Calls to other cores that wait for their answer.
    pub(crate) calls: RefCell<Slab<PendingCall>>,
    pub(crate) panics: Cell<u64>,
    pub(crate) file_sends: FileSends,
    pub(crate) load: Load,
    pub(crate) shutdown: Shutdown,
    pub(crate) backend: Backend,
}

/// Whether this core was asked to end, and who waits for that.
#[derive(Default)]
pub(crate) struct Shutdown {
    requested: Cell<bool>,
    event: Event,
}

impl Shutdown {
    pub(crate) fn request(&self) {
        self.requested.set(true);
        self.event.notify_all();
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested.get()
    }

    pub(crate) fn listen(&self) -> Listen {
        self.event.listen()
    }
}

/// What drives a core.
pub(crate) enum Backend {
    /// A thread with a ring of its own.
    Ring(ring::Driver),
    /// A simulated core.
    Sim(sim::Driver),
}

/// A caller's half of a call to another core.
pub(crate) struct PendingCall {
    pub(crate) waker: Option<Waker>,
    pub(crate) answer: Option<CallAnswer>,
    /// The caller is gone; the slot is freed when the answer comes.
    pub(crate) abandoned: bool,
}

/// A call's outcome as it travels: `None` when the callee panicked.
pub(crate) type CallAnswer = Option<Box<dyn Any + Send>>;

impl Core {
    pub(crate) fn new(id: CoreId, core_count: usize, seed: u64, backend: Backend) -> Rc<Core> {
        assert!(usize::from(id.0) < core_count);
        Rc::new(Core {
            id,
            core_count,
            timers: RefCell::default(),
            rng: RefCell::new(SmallRng::seed_from_u64(seed)),
            rooms: RefCell::default(),
            calls: RefCell::default(),
            panics: Cell::new(0),
            file_sends: FileSends::default(),
            load: Load::default(),
            shutdown: Shutdown::default(),
            backend,
        })
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// The core whose task is running.
///
/// # Panics
/// Outside of a runtime: everything in this crate runs on a core.
pub(crate) fn current() -> Rc<Core> {
    try_current().expect("called outside of a core: start one with host::run or sim::Sim")
}

/// The core whose task is running, if any.
pub(crate) fn try_current() -> Option<Rc<Core>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// Makes `core` current until the guard drops; the one before is current again then.
pub(crate) fn enter(core: Rc<Core>) -> Entered {
    Entered { previous: CURRENT.with(|current| current.replace(Some(core))) }
}

/// Restores the previously current core.
pub(crate) struct Entered {
    previous: Option<Rc<Core>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let previous = self.previous.take();
        CURRENT.with(|current| *current.borrow_mut() = previous);
    }
}

/// A timer's key in [`Timers`].
pub(crate) type TimerId = u64;

/// The deadlines of one core, earliest first, equal ones in order of creation.
#[derive(Default)]
pub(crate) struct Timers {
    deadlines: BTreeMap<(Instant, TimerId), Waker>,
    last_id: TimerId,
}

impl Timers {
    pub(crate) fn insert(&mut self, at: Instant, waker: Waker) -> TimerId {
        self.last_id += 1;
        self.deadlines.insert((at, self.last_id), waker);
        self.last_id
    }

    /// Replaces the waker of a timer that has not fired; false when it has.
    pub(crate) fn update(&mut self, at: Instant, id: TimerId, waker: &Waker) -> bool {
        match self.deadlines.get_mut(&(at, id)) {
            Some(current) => {
                current.clone_from(waker);
                true
            }
            None => false,
        }
    }

    pub(crate) fn remove(&mut self, at: Instant, id: TimerId) {
        self.deadlines.remove(&(at, id));
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the wakers of everything due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(entry) = self.deadlines.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        due
    }
}
