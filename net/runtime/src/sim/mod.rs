//! The double: the same code on one thread, in virtual time, on disks and a network in memory.
//!
//! A [`Sim`] holds nodes of one or more cores each. Everything that could go either way (which ready task runs next,
//! how long I/O takes, what a crash leaves on a disk, where a stream is cut into segments) is drawn from one seed, so
//! a run can be had again from its seed, and [`Sim::schedule_hash`] tells two runs apart. When nothing is ready, time
//! jumps to the next thing that happens; when nothing ever will, the simulation panics and says who is waiting.
//!
//! | file | what it simulates |
//! |---|---|
//! | `world.rs` | tasks, time, messages between cores, starts and crashes |
//! | `disk.rs` | directories, and which of their changes a crash undoes |
//! | `inode.rs` | contents of a file, and which sectors a crash takes back |
//! | `fs.rs` | latency and faults of file operations |
//! | `lies.rs` | what a disk does other than it reports |
//! | `net.rs` | connections, latency, segments, cuts |
//! | `rng.rs` | the seed's decisions |

mod disk;
mod fs;
mod inode;
mod lies;
mod net;
mod rng;
#[cfg(test)]
mod tests;
mod world;

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

pub use self::disk::DiskFaults;
pub(crate) use self::fs::{SimDevice, SimDisk, SimFile};
pub use self::lies::{DiskLie, LieKind};
pub(crate) use self::net::{SimListener, SimStream};

use self::disk::Disk;
use self::world::{CoreKey, End, LifeState, Node, Step, World};
use crate::core::Message;
use crate::cores::CoreId;
use crate::fs::DeviceSync;
use crate::time::Instant;

/// The kinds of devices that nodes get in turn.
const DEVICE_SYNCS: [DeviceSync; 3] = [DeviceSync::SharedFlush, DeviceSync::PerFile, DeviceSync::NoCache];

/// What a wall clock shows when a simulation starts: 2026-01-01T00:00:00Z.
pub const EPOCH_MS: i64 = 1_767_225_600_000;

/// A busy task that yields lets this much time pass.
const YIELD_NS: (u64, u64) = (100, 2_000);

/// How long background work between two of its checkpoints may take.
const WORK_NS: (u64, u64) = (100, 40_000);

/// A run that came this far, both in its time and in steps, is taken for one that never ends.
const RUN_MAX: Duration = Duration::from_secs(3600);
const RUN_STEPS_MAX: u64 = 20_000_000;

/// A simulated machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// The node's own address; it answers to what it binds on it or on 0.0.0.0. The first node's is 10.0.0.1.
    ///
    /// 127.0.0.1 is one and the same for all nodes: a node that connects to it reaches whoever bound the port there.
    pub fn ip(self) -> IpAddr {
        net::node_ip(self.0)
    }

    /// The number of the node, counted from zero in order of creation.
    pub fn index(self) -> usize {
        self.0
    }
}

/// A simulated world of nodes. Owned by a test, which drives it from outside of any task.
pub struct Sim {
    world: Rc<World>,
    /// Panics of mains, to be passed on to whoever drives the simulation.
    panicked: Rc<RefCell<Option<Box<dyn Any + Send>>>>,
    run_steps_max: u64,
}

impl Sim {
    /// An empty world, all of whose decisions come from `seed`.
    pub fn new(seed: u64) -> Sim {
        Sim { world: World::new(seed), panicked: Rc::default(), run_steps_max: RUN_STEPS_MAX }
    }

    /// The seed it was made from.
    pub fn seed(&self) -> u64 {
        self.world.seed
    }

    /// Adds a node of `cores` cores with an empty disk, whose [`DeviceSync`] follows from the seed.
    pub fn node(&mut self, cores: usize) -> NodeId {
        assert!(cores > 0, "a node has at least one core");
        let mut nodes = self.world.nodes.borrow_mut();
        let node = Node::new(cores);
        // Not drawn: it must not move the decisions that follow.
        node.disk.borrow_mut().device_sync =
            DEVICE_SYNCS[(self.world.seed as usize).wrapping_add(nodes.len()) % 3];
        nodes.push(node);
        NodeId(nodes.len() - 1)
    }

    /// Gives `node`, which is down, another number of cores.
    pub fn set_cores(&mut self, node: NodeId, cores: usize) {
        assert!(cores > 0, "a node has at least one core");
        assert!(!self.is_up(node), "a machine is rebuilt while it is down");
        self.world.nodes.borrow_mut()[node.0].core_count = cores;
    }

    /// Runs `main` on each core of `node`, which comes up if it is down. It makes progress when the simulation is
    /// driven. A panic of a main is passed on by whatever drives it.
    pub fn start<F, Fut>(&mut self, node: NodeId, main: F)
    where
        F: Fn() -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.world.boot(node.0);
        let main = Rc::new(main);
        for core in self.cores_of(node) {
            let (main, panicked) = (main.clone(), self.panicked.clone());
            let task = async move {
                if let Err(payload) = AssertUnwindSafe(async move { main().await }).catch_unwind().await {
                    *panicked.borrow_mut() = Some(payload);
                }
            };
            self.world.spawn(core, Box::pin(task));
        }
    }

    /// Drives the simulation until `future`, which runs on core 0 of `node`, is done. The node comes up if it is down.
    /// Other tasks stay as they are and go on when the simulation is driven again.
    ///
    /// # Panics
    /// When `future` or a main panics, when nothing will ever happen any more, when `node` goes down, and when `future`
    /// takes more than an hour and twenty million steps: the message names the seed and the waiting tasks.
    #[track_caller]
    pub fn run<F>(&mut self, node: NodeId, future: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        match self.run_until_down(node, future) {
            Some(output) => output,
            None => self.give_up("the node of the future that is waited for went down"),
        }
    }

    /// Like [`run`](Self::run), but `None` when `node` goes down before `future` is done, at the disk operation that
    /// [`crash_at_disk_operation`](Self::crash_at_disk_operation) or its sibling has set.
    #[track_caller]
    pub fn run_until_down<F>(&mut self, node: NodeId, future: F) -> Option<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.world.boot(node.0);
        let output = Rc::new(RefCell::new(None));
        let written = output.clone();
        let task = async move {
            let outcome = AssertUnwindSafe(future).catch_unwind().await;
            *written.borrow_mut() = Some(outcome);
        };
        self.world.spawn(CoreKey { node: node.0, core: CoreId(0) }, Box::pin(task));
        let (started, mut steps) = (self.world.now(), 0);
        loop {
            let step = self.world.step(None);
            steps += 1;
            self.pass_panic_on();
            let outcome = output.borrow_mut().take();
            match outcome {
                Some(Ok(output)) => return Some(output),
                Some(Err(payload)) => resume_unwind(payload),
                None if !self.is_up(node) => return None,
                None if step == Step::Deadlock => self.give_up("nothing will ever happen any more"),
                None if steps > self.run_steps_max && self.world.now() - started > RUN_MAX => {
                    self.give_up("the future that is waited for doesn't end")
                }
                None => {}
            }
        }
    }

    /// Drives the simulation for `duration` of its time, whether or not anything happens.
    pub fn run_for(&mut self, duration: Duration) {
        let deadline = (self.world.now() + duration).as_nanos();
        while self.world.step(Some(deadline)) == Step::Progress {
            self.pass_panic_on();
        }
        self.pass_panic_on();
    }

    /// Cuts the power of `node`: its tasks, timers and connections are gone, its disk keeps what was synced and a
    /// seeded part of what was not. [`Sim::start`] or [`Sim::run`] bring it up again. Nothing happens when it is down.
    pub fn crash(&mut self, node: NodeId) {
        self.world.end(node.0, End::PowerCut);
    }

    /// Kills the process on `node` as SIGKILL does: its tasks and timers are gone, its connections closed, and its disk
    /// keeps everything, though what was not synced may still be lost in a later [`Sim::crash`] of the new process.
    pub fn kill(&mut self, node: NodeId) {
        self.world.end(node.0, End::Killed);
    }

    /// How many operations of `node` on its disk have taken effect so far, in all its lives: reads, writes, syncs,
    /// opens, queries and changes of directories, each piece of a short transfer for itself.
    pub fn disk_operations(&self, node: NodeId) -> u64 {
        self.world.nodes.borrow()[node.0].disk_operations
    }

    /// Cuts the power of `node`, as [`crash`](Self::crash) does, at its `nth` disk operation from now (the next one is
    /// the first), unless it goes down before: in the moment when that takes effect, by the seed just after it or while
    /// it is under way, when it may have taken effect in part. Takes the place of an end set before.
    pub fn crash_at_disk_operation(&mut self, node: NodeId, nth: u64) {
        self.end_at_disk_operation(node, nth, End::PowerCut);
    }

    /// Kills the process on `node`, as [`kill`](Self::kill) does, at its `nth` disk operation from now: the disk keeps
    /// that one and all that are under way. Takes the place of an end set before.
    pub fn kill_at_disk_operation(&mut self, node: NodeId, nth: u64) {
        self.end_at_disk_operation(node, nth, End::Killed);
    }

    /// Takes back what [`crash_at_disk_operation`](Self::crash_at_disk_operation) or its sibling has set, if it has not
    /// come about.
    pub fn cancel_end(&mut self, node: NodeId) {
        self.world.nodes.borrow_mut()[node.0].ends_at = None;
    }

    fn end_at_disk_operation(&mut self, node: NodeId, nth: u64, end: End) {
        assert!(nth > 0, "the next operation is the first");
        let mut nodes = self.world.nodes.borrow_mut();
        let at = nodes[node.0].disk_operations + nth;
        nodes[node.0].ends_at = Some((at, end));
    }

    /// Whether `node` is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.world.nodes.borrow()[node.0].life.is_some()
    }

    /// Asks `node` to shut down, as SIGTERM does.
    pub fn request_shutdown(&mut self, node: NodeId) {
        if let Some(life) = &self.world.nodes.borrow()[node.0].life {
            life.cores.iter().for_each(|core| core.shutdown.request());
        }
    }

    /// Holds back all that `from` sends to `to`, also of connections there are, until healed.
    pub fn cut_one_way(&mut self, from: NodeId, to: NodeId) {
        self.world.network.cut(from.0, to.0);
    }

    /// Cuts both ways between two nodes.
    pub fn cut(&mut self, one: NodeId, other: NodeId) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Heals both ways between two nodes; what was held back arrives.
    pub fn heal(&mut self, one: NodeId, other: NodeId) {
        self.world.network.heal(&self.world, one.0, other.0);
        self.world.network.heal(&self.world, other.0, one.0);
    }

    /// Heals every cut.
    pub fn heal_all(&mut self) {
        self.world.network.heal_all(&self.world);
    }

    /// What goes wrong with the disk of `node` from now on.
    pub fn set_disk_faults(&mut self, node: NodeId, faults: DiskFaults) {
        self.world.nodes.borrow()[node.0].disk.borrow_mut().faults = faults;
    }

    /// The device at `path` dies: from now on every operation on what lies there or below, open files included, fails
    /// with EIO. What was there durably is there again after [`Sim::revive_device`].
    pub fn kill_device(&mut self, node: NodeId, path: &Path) {
        self.world.nodes.borrow()[node.0].disk.borrow_mut().dead.push(path.to_owned());
    }

    /// The device at `path` is back.
    pub fn revive_device(&mut self, node: NodeId, path: &Path) {
        self.world.nodes.borrow()[node.0].disk.borrow_mut().dead.retain(|dead| dead != path);
    }

    /// Gives `node`, which is down, a device of another kind under its disk.
    pub fn set_device_sync(&mut self, node: NodeId, sync: DeviceSync) {
        assert!(!self.is_up(node), "a machine is rebuilt while it is down");
        self.world.nodes.borrow()[node.0].disk.borrow_mut().device_sync = sync;
    }

    /// Every lie that the disk of `node` has told so far, in order; see [`DiskFaults`].
    pub fn disk_lies(&self, node: NodeId) -> Vec<DiskLie> {
        self.world.nodes.borrow()[node.0].disk.borrow().lies.clone()
    }

    /// Bit rot: flips a bit of the byte at `offset` of a file.
    pub fn flip_bit(&mut self, node: NodeId, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let nodes = self.world.nodes.borrow();
        let inode = nodes[node.0].disk.borrow().file(path)?;
        let mut inode = inode.borrow_mut();
        if offset >= inode.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        inode.flip_bit(offset, bit % 8);
        Ok(())
    }

    /// The simulation's time.
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// Panics of tasks, calls and messages that were caught so far, on all nodes. Each is a bug of the code under test.
    pub fn panics(&self) -> u64 {
        self.world.panics()
    }

    /// A digest of every scheduling decision so far: equal for equal seeds and equal code.
    pub fn schedule_hash(&self) -> u64 {
        self.world.schedule_hash()
    }

    fn cores_of(&self, node: NodeId) -> impl Iterator<Item = CoreKey> + use<> {
        let count = self.world.nodes.borrow()[node.0].core_count;
        let id = |core| CoreId(u16::try_from(core).expect("core counts fit u16"));
        (0..count).map(move |core| CoreKey { node: node.0, core: id(core) })
    }

    fn pass_panic_on(&self) {
        let panicked = self.panicked.borrow_mut().take();
        if let Some(payload) = panicked {
            resume_unwind(payload);
        }
    }

    #[track_caller]
    fn give_up(&self, why: &str) -> ! {
        let tasks = self.world.describe_tasks();
        panic!("simulation of seed {} at {:?}: {why}; tasks:{tasks}", self.world.seed, self.world.now());
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // Destructors of half-done tasks may panic in turn, which would abort and hide the first panic's test.
        if std::thread::panicking() {
            return;
        }
        // Tasks and cores hold the world; without this they would keep each other.
        let nodes = self.world.nodes.borrow().len();
        (0..nodes).for_each(|node| self.world.end(node, End::PowerCut));
        self.world.discard_occurrences();
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.world.seed)
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

/// One-liner for tests: a fresh one-node, one-core simulation running `future` to completion.
#[track_caller]
pub fn block_on<F>(seed: u64, future: F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    let mut sim = Sim::new(seed);
    let node = sim.node(1);
    sim.run(node, future)
}

/// A simulated core's side of the seam that the facades look through.
pub(crate) struct Driver {
    world: Rc<World>,
    key: CoreKey,
    state: Rc<LifeState>,
    disk: SimDisk,
}

impl Driver {
    fn new(world: Rc<World>, key: CoreKey, state: Rc<LifeState>, disk: Rc<RefCell<Disk>>) -> Driver {
        let disk = SimDisk::new(world.clone(), key, disk);
        Driver { world, key, state, disk }
    }

    #[track_caller]
    pub(crate) fn spawn(&self, future: LocalBoxFuture<'static, ()>) {
        if !self.state.ended.get() {
            self.world.spawn(self.key, future);
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.world.now()
    }

    pub(crate) fn wall_clock_ms(&self) -> i64 {
        EPOCH_MS + i64::try_from(self.world.now().as_millis()).expect("a simulation is short")
    }

    /// Goes behind the ready tasks of this core, and lets a little time pass.
    pub(crate) fn yield_now(&self) -> YieldNow {
        YieldNow { world: self.world.clone(), yielded: false }
    }

    /// Work of unknown length was done: virtual time stands still while code runs, so it is drawn here.
    pub(crate) fn worked(&self) {
        let took = self.world.advance(WORK_NS);
        crate::core::current().load.worked(took);
    }

    /// Messages on their way to core `to` of this node.
    pub(crate) fn waiting_messages(&self, to: CoreId) -> usize {
        self.world.messages(CoreKey { node: self.key.node, core: to })
    }

    /// Disk operations of this core that are under way.
    pub(crate) fn disk_operations(&self) -> usize {
        self.world.disk_operations(self.key)
    }

    pub(crate) fn post(&self, to: CoreId, message: Message) {
        if !self.state.ended.get() {
            self.world.post(self.key, to, &self.state, message);
        }
    }

    pub(crate) fn disk(&self) -> &SimDisk {
        &self.disk
    }

    pub(crate) fn bind(&self, addr: SocketAddr) -> io::Result<SimListener> {
        SimListener::bind(self.world.clone(), self.key.node, addr)
    }

    pub(crate) async fn connect(&self, addr: SocketAddr) -> io::Result<SimStream> {
        SimStream::connect(self.world.clone(), self.key.node, addr).await
    }
}

/// Pending once.
pub(crate) struct YieldNow {
    world: Rc<World>,
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        self.world.advance(YIELD_NS);
        self.world.current_task_yields();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
