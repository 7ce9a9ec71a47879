//! The executor: tasks of all cores of all nodes on one thread, in seeded order, on virtual time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::LocalBoxFuture;

use super::Driver;
use super::disk::Disk;
use super::net::Network;
use super::rng::{Seeded, mix};
use crate::core::{self, Backend, Core, Message};
use crate::cores::{self, CoreId};
use crate::time::Instant;

/// What one poll of a task may cost in virtual time: more than nothing, so that no loop can stop the clock.
const POLL_NS: (u64, u64) = (20, 200);
/// A message's way to another core.
const MESSAGE_NS: (u64, u64) = (200, 20_000);
/// Of in-flight disk operations, how many take effect when their node crashes.
const IN_FLIGHT_SURVIVAL_PPM: u32 = 500_000;

pub(super) type TaskId = u64;

/// A core of a node: the unit of scheduling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CoreKey {
    pub(super) node: usize,
    pub(super) core: CoreId,
}

/// How an operation under way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Completed,
    /// Its node crashed; it may have taken effect all the same, but nothing it promises holds.
    Crashed,
}

/// Something that happens at a point of virtual time.
pub(super) enum Occurrence {
    Message(CoreKey, Message),
    /// A disk operation of a core completes.
    Disk(CoreKey, Box<dyn FnOnce(Fate)>),
    /// Something happens on the network, whose wires outlive nodes.
    Network(Box<dyn FnOnce()>),
}

impl Occurrence {
    fn node(&self) -> Option<usize> {
        match self {
            Occurrence::Message(key, _) | Occurrence::Disk(key, _) => Some(key.node),
            Occurrence::Network(_) => None,
        }
    }
}

struct Task {
    core: CoreKey,
    /// Out while it is being polled.
    future: Option<LocalBoxFuture<'static, ()>>,
    wake: Arc<TaskWake>,
    /// It yielded in its last poll.
    yielded: bool,
    spawned_at: &'static Location<'static>,
}

type Woken = Arc<Mutex<Vec<TaskId>>>;

struct TaskWake {
    id: TaskId,
    queued: AtomicBool,
    woken: Woken,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

/// The runnable tasks of one core.
///
/// As on a real core every ready task gets its turn before any has a second one: a round is picked from in any
/// order, a task that wakes during it joins it or, by seed, the next one, and who yields always waits for the next.
#[derive(Default)]
struct Ready {
    round: Vec<TaskId>,
    next_round: Vec<TaskId>,
}

/// One machine: cores while it is up, and a disk that stays.
pub(super) struct Node {
    pub(super) core_count: usize,
    pub(super) life: Option<Life>,
    pub(super) disk: Rc<RefCell<Disk>>,
    /// Disk operations that have taken effect, in all lives.
    pub(super) disk_operations: u64,
    /// At which of them the node goes down, and how.
    pub(super) ends_at: Option<(u64, End)>,
}

impl Node {
    pub(super) fn new(core_count: usize) -> Node {
        let disk = Rc::new(RefCell::new(Disk::new()));
        Node { core_count, life: None, disk, disk_operations: 0, ends_at: None }
    }

    /// Counts an operation that is about to take effect; gives the end that comes with it.
    fn count_disk_operation(&mut self) -> Option<End> {
        self.disk_operations += 1;
        self.ends_at.filter(|&(at, _)| at == self.disk_operations).map(|(_, end)| end)
    }
}

/// A node between start and crash.
pub(super) struct Life {
    pub(super) cores: Vec<Rc<Core>>,
    state: Rc<LifeState>,
}

impl Life {
    fn core(&self, key: CoreKey) -> Rc<Core> {
        self.cores[usize::from(key.core.0)].clone()
    }
}

/// How a node goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process dies; the machine finishes its writes and closes its connections.
    Killed,
    /// The machine dies: connections break, and the disk keeps what was synced and some of the rest.
    PowerCut,
}

/// What all cores of a running node share.
#[derive(Default)]
pub(super) struct LifeState {
    /// Being dropped: what its destructors still start is dropped too.
    pub(super) ended: Cell<bool>,
    /// When the last message of each pair of cores arrives; the next may not be earlier.
    last_message: RefCell<BTreeMap<(CoreId, CoreId), u64>>,
}

/// What a step of the simulation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Progress,
    DeadlineReached,
    /// Nothing is ready and nothing will ever be.
    Deadlock,
}

/// The whole simulated world.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) rng: Seeded,
    pub(super) network: Network,
    pub(super) nodes: RefCell<Vec<Node>>,
    now_ns: Cell<u64>,
    hash: Cell<u64>,
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    last_task: Cell<TaskId>,
    woken: Woken,
    ready: RefCell<BTreeMap<CoreKey, Ready>>,
    occurrences: RefCell<BTreeMap<(u64, u64), Occurrence>>,
    last_occurrence: Cell<u64>,
    yielded: Cell<bool>,
    /// Panics caught on cores that are gone.
    past_panics: Cell<u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> Rc<World> {
        Rc::new(World {
            seed,
            rng: Seeded::new(seed),
            network: Network::default(),
            nodes: RefCell::default(),
            now_ns: Cell::new(0),
            hash: Cell::new(mix(seed)),
            tasks: RefCell::default(),
            last_task: Cell::new(0),
            woken: Woken::default(),
            ready: RefCell::default(),
            occurrences: RefCell::default(),
            last_occurrence: Cell::new(0),
            yielded: Cell::new(false),
            past_panics: Cell::new(0),
        })
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(self.now_ns.get())
    }

    /// Lets a drawn time pass, and tells how long it was.
    pub(super) fn advance(&self, (low, high): (u64, u64)) -> Duration {
        let passed = self.rng.between(low, high);
        self.now_ns.set(self.now_ns.get() + passed);
        Duration::from_nanos(passed)
    }

    pub(super) fn schedule_hash(&self) -> u64 {
        self.hash.get()
    }

    fn fold(&self, decision: [u64; 3]) {
        let folded = decision.iter().fold(self.hash.get(), |hash, part| mix(hash.rotate_left(7) ^ part));
        self.hash.set(folded);
    }

    /// The task being polled goes behind the others of its core.
    pub(super) fn current_task_yields(&self) {
        self.yielded.set(true);
    }

    /// Brings a node up, unless it is.
    pub(super) fn boot(self: &Rc<Self>, node: usize) {
        let mut nodes = self.nodes.borrow_mut();
        let machine = &mut nodes[node];
        if machine.life.is_some() {
            return;
        }
        let state = Rc::new(LifeState::default());
        let boot_core = |index| {
            let id = CoreId(u16::try_from(index).expect("core counts fit u16"));
            let driver =
                Driver::new(self.clone(), CoreKey { node, core: id }, state.clone(), machine.disk.clone());
            Core::new(id, machine.core_count, self.rng.next(), Backend::Sim(driver))
        };
        let cores = (0..machine.core_count).map(boot_core).collect();
        machine.life = Some(Life { cores, state });
        self.fold([1, node as u64, self.now_ns.get()]);
    }

    /// The core of something that goes when its node goes down.
    fn running_core(&self, key: CoreKey) -> Rc<Core> {
        let nodes = self.nodes.borrow();
        nodes[key.node].life.as_ref().expect("its node is up").core(key)
    }

    /// Takes a node down.
    pub(super) fn end(self: &Rc<Self>, node: usize, end: End) {
        let life = {
            let mut nodes = self.nodes.borrow_mut();
            nodes[node].ends_at = None;
            nodes[node].life.take()
        };
        let Some(life) = life else { return };
        self.fold([2, node as u64, self.now_ns.get()]);
        life.state.ended.set(true);
        if end == End::PowerCut {
            self.network.crash(self, node);
        }
        self.end_operations(node, &life, end);
        self.drop_tasks(node, &life);
        self.network.close_listeners(self, node);
        if end == End::PowerCut {
            let disk = self.nodes.borrow()[node].disk.clone();
            disk.borrow_mut().crash(&self.rng);
        }
    }

    fn end_operations(&self, node: usize, life: &Life, end: End) {
        let under_way = take_where(&mut self.occurrences.borrow_mut(), |what| what.node() == Some(node));
        for what in under_way {
            match what {
                Occurrence::Disk(key, complete) => {
                    let _entered = core::enter(life.core(key));
                    match end {
                        End::Killed => complete(Fate::Completed),
                        End::PowerCut if self.rng.chance(IN_FLIGHT_SURVIVAL_PPM) => complete(Fate::Crashed),
                        End::PowerCut => drop(complete),
                    }
                }
                Occurrence::Message(key, message) => {
                    let _entered = core::enter(life.core(key));
                    drop(message);
                }
                Occurrence::Network(_) => unreachable!("the network is no node's"),
            }
        }
    }

    /// Drops tasks and rooms, each on its core, since destructors may look at it.
    fn drop_tasks(&self, node: usize, life: &Life) {
        let tasks = take_where(&mut self.tasks.borrow_mut(), |task| task.core.node == node);
        for task in tasks {
            let _entered = core::enter(life.core(task.core));
            drop(task);
        }
        self.ready.borrow_mut().retain(|key, _| key.node != node);
        for core in &life.cores {
            let _entered = core::enter(core.clone());
            drop(core.rooms.take());
            self.past_panics.set(self.past_panics.get() + core.panics.get());
        }
    }

    #[track_caller]
    pub(super) fn spawn(&self, core: CoreKey, future: LocalBoxFuture<'static, ()>) {
        let id = self.last_task.get() + 1;
        self.last_task.set(id);
        let wake = Arc::new(TaskWake { id, queued: AtomicBool::new(false), woken: self.woken.clone() });
        wake.wake_by_ref();
        let task = Task { core, future: Some(future), wake, yielded: false, spawned_at: Location::caller() };
        self.tasks.borrow_mut().insert(id, task);
    }

    /// Sends a message to another core of the same node.
    pub(super) fn post(&self, from: CoreKey, to: CoreId, state: &LifeState, message: Message) {
        let mut last = state.last_message.borrow_mut();
        let last = last.entry((from.core, to)).or_default();
        let (low, high) = MESSAGE_NS;
        *last = (self.now_ns.get() + self.rng.between(low, high)).max(*last);
        self.at(*last, Occurrence::Message(CoreKey { node: from.node, core: to }, message));
    }

    /// Lets something happen at `at_ns`, after everything that was to happen at the same time before.
    pub(super) fn at(&self, at_ns: u64, what: Occurrence) {
        let order = self.last_occurrence.get() + 1;
        self.last_occurrence.set(order);
        self.occurrences.borrow_mut().insert((at_ns, order), what);
    }

    /// A disk operation of a core that takes effect after `latency_ns`, whether or not somebody waits for it.
    pub(super) fn submit<T: 'static, F>(
        &self,
        key: CoreKey,
        latency_ns: u64,
        effect: F,
    ) -> impl Future<Output = T> + use<T, F>
    where
        F: FnOnce(Fate) -> T + 'static,
    {
        let (done, wait) = oneshot::channel();
        let complete = move |fate| {
            // Nobody may be waiting any more.
            let _ = done.send(effect(fate));
        };
        self.at(self.now_ns.get() + latency_ns, Occurrence::Disk(key, Box::new(complete)));
        async move {
            match wait.await {
                Ok(output) => output,
                // The node crashed, and the waiting task is about to be dropped.
                Err(oneshot::Canceled) => std::future::pending().await,
            }
        }
    }

    /// Lets one thing happen: a poll of a ready task, or the passing of time.
    pub(super) fn step(self: &Rc<Self>, deadline_ns: Option<u64>) -> Step {
        if deadline_ns.is_some_and(|deadline| deadline <= self.now_ns.get()) {
            return Step::DeadlineReached;
        }
        self.happen();
        self.wake_sleepers();
        self.sort_woken();
        if let Some(id) = self.pick() {
            self.poll(id);
            return Step::Progress;
        }
        match (self.next_due(), deadline_ns) {
            (Some(due), deadline) if deadline.is_none_or(|deadline| due < deadline) => {
                self.now_ns.set(due.max(self.now_ns.get()));
                Step::Progress
            }
            (_, Some(deadline)) => {
                self.now_ns.set(deadline);
                Step::DeadlineReached
            }
            (_, None) => Step::Deadlock,
        }
    }

    /// Everything that is due happens, in order.
    fn happen(self: &Rc<Self>) {
        loop {
            let due = {
                let mut occurrences = self.occurrences.borrow_mut();
                match occurrences.first_entry() {
                    Some(first) if first.key().0 <= self.now_ns.get() => first.remove_entry(),
                    _ => return,
                }
            };
            let ((at, order), what) = due;
            self.fold([3, at, order]);
            match what {
                Occurrence::Network(happen) => happen(),
                Occurrence::Disk(key, complete) => self.complete_disk_operation(key, complete),
                Occurrence::Message(key, message) => {
                    let _entered = core::enter(self.running_core(key));
                    cores::run_message(message);
                }
            }
        }
    }

    /// An operation takes effect, and its node may go down in that moment: just after it, or while it is one of those
    /// under way.
    fn complete_disk_operation(self: &Rc<Self>, key: CoreKey, complete: Box<dyn FnOnce(Fate)>) {
        let end = self.nodes.borrow_mut()[key.node].count_disk_operation();
        if end == Some(End::PowerCut) && self.rng.below(2) == 0 {
            self.at(self.now_ns.get(), Occurrence::Disk(key, complete));
        } else {
            let _entered = core::enter(self.running_core(key));
            complete(Fate::Completed);
        }
        if let Some(end) = end {
            self.end(key.node, end);
        }
    }

    fn wake_sleepers(&self) {
        let mut due = Vec::new();
        for life in self.nodes.borrow().iter().filter_map(|node| node.life.as_ref()) {
            for core in &life.cores {
                due.extend(core.timers.borrow_mut().take_due(self.now()));
            }
        }
        due.into_iter().for_each(Waker::wake);
    }

    fn next_due(&self) -> Option<u64> {
        let nodes = self.nodes.borrow();
        let cores = nodes.iter().filter_map(|node| node.life.as_ref()).flat_map(|life| &life.cores);
        let timers = cores.filter_map(|core| core.timers.borrow().next_deadline().map(Instant::as_nanos));
        let occurrence = self.occurrences.borrow().first_key_value().map(|((at, _), _)| *at);
        timers.chain(occurrence).min()
    }

    /// Puts the tasks woken since into their cores' queues.
    fn sort_woken(&self) {
        let woken = std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
        let (tasks, mut ready) = (self.tasks.borrow(), self.ready.borrow_mut());
        for id in woken {
            let Some(task) = tasks.get(&id) else { continue };
            let queue = ready.entry(task.core).or_default();
            let waits = task.yielded || self.rng.below(2) == 0;
            if waits { queue.next_round.push(id) } else { queue.round.push(id) }
        }
    }

    /// A core by seed among those with ready tasks, and one of its tasks by seed.
    fn pick(&self) -> Option<TaskId> {
        let mut ready = self.ready.borrow_mut();
        if ready.is_empty() {
            return None;
        }
        let chosen = self.rng.index(ready.len());
        let (key, queue) = ready.iter_mut().nth(chosen).expect("an index below the length");
        let key = *key;
        if queue.round.is_empty() {
            std::mem::swap(&mut queue.round, &mut queue.next_round);
        }
        let task = queue.round.swap_remove(self.rng.index(queue.round.len()));
        if queue.round.is_empty() && queue.next_round.is_empty() {
            ready.remove(&key);
        }
        Some(task)
    }

    fn poll(&self, id: TaskId) {
        let (key, mut future, wake) = {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(&id).expect("ready tasks exist");
            let future = task.future.take().expect("a task is polled by one poll at a time");
            (task.core, future, task.wake.clone())
        };
        self.fold([4 + key.node as u64, u64::from(key.core.0), id]);
        wake.queued.store(false, Ordering::Relaxed);
        self.yielded.set(false);
        let core = self.running_core(key);
        let entered = core::enter(core.clone());
        let waker = Waker::from(wake);
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(future);
            self.tasks.borrow_mut().remove(&id);
        } else {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(&id).expect("only this removes it");
            task.future = Some(future);
            task.yielded = self.yielded.get();
        }
        drop(entered);
        core.load.worked(self.advance(POLL_NS));
    }

    /// Messages on their way to a core.
    pub(super) fn messages(&self, to: CoreKey) -> usize {
        let occurrences = self.occurrences.borrow();
        occurrences.values().filter(|what| matches!(what, Occurrence::Message(key, _) if *key == to)).count()
    }

    /// Disk operations of a core that are under way.
    pub(super) fn disk_operations(&self, of: CoreKey) -> usize {
        let occurrences = self.occurrences.borrow();
        occurrences.values().filter(|what| matches!(what, Occurrence::Disk(key, _) if *key == of)).count()
    }

    /// Panics caught on all cores so far.
    pub(super) fn panics(&self) -> u64 {
        let nodes = self.nodes.borrow();
        let cores = nodes.iter().filter_map(|node| node.life.as_ref()).flat_map(|life| &life.cores);
        cores.map(|core| core.panics.get()).sum::<u64>() + self.past_panics.get()
    }

    /// Drops what was still to happen, at the end of the world.
    pub(super) fn discard_occurrences(&self) {
        loop {
            // A dropped stream closes, which puts another segment on its way.
            let left = std::mem::take(&mut *self.occurrences.borrow_mut());
            if left.is_empty() {
                return;
            }
            drop(left);
        }
    }

    /// Where the tasks that wait for ever were spawned.
    pub(super) fn describe_tasks(&self) -> String {
        let mut text = String::new();
        for (id, task) in &*self.tasks.borrow() {
            let CoreKey { node, core } = task.core;
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  task {id} of node {node} core {core}, spawned at {}", task.spawned_at);
        }
        text
    }
}

/// Takes the values that are wanted out of a map, in order.
fn take_where<K: Copy + Ord, V>(map: &mut BTreeMap<K, V>, wanted: impl Fn(&V) -> bool) -> Vec<V> {
    let keys: Vec<K> = map.iter().filter(|(_, value)| wanted(value)).map(|(key, _)| *key).collect();
    keys.iter().filter_map(|key| map.remove(key)).collect()
}
