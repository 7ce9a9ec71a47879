//! Durable writes of many logs at once: one flush of the device for all of them, and a bound on what is in flight
//! (DESIGN §4).
//!
//! A write that waits for its own flush (`RWF_DSYNC`) is the fastest way for one log. Many of them keep the device busy
//! with flushes, each of which would have done for all. So where several logs want it at once and the device allows it,
//! each writes plainly and joins one flush. That is sound only for *settled* blocks, which see
//! [`DeviceSync`]: everything else the file system must be told of, by the file's own sync.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use futures::channel::oneshot;
use heizer_runtime::fs::{Device, DeviceSync};
use heizer_runtime::sync::Event;
use heizer_runtime::task;

/// From so many durable writes at a time on they share a flush. Measured with batches of 2 KiB on a disk with a volatile
/// cache: with 10 writes under way sharing takes a sixth less of the broker's CPU and of the time, with 6 the two are
/// level in CPU, and one or two are faster by themselves.
const SHARED_FROM: usize = 4;
/// So many flush writes of one core are in flight in one directory at most, and so many bytes unless one write alone
/// is larger. More would only wait in the device's queue, out of order.
const WRITES_MAX: usize = 256;
const WRITE_BYTES_MAX: u64 = 32 << 20;
/// So many segments are zeroed ahead at a time: that must not hold up the writes it is to speed up.
const ZEROINGS_MAX: usize = 32;

/// How a write gets onto stable storage.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// By the file's own sync, as part of the write.
    File,
    /// By a flush of the device that begins when the write is complete.
    Shared,
    /// By being complete.
    Nothing,
}

/// How durable writes of a core in one directory were made durable so far.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushCounts {
    /// Writes with their file's own sync.
    pub by_file: u64,
    /// Writes that joined a flush of the device.
    pub shared: u64,
    /// Writes that were durable by being complete.
    pub by_nothing: u64,
    /// Flushes of the device.
    pub device_flushes: u64,
}

/// Writes of logs that a core has to do with in one directory, at this moment.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteQueue {
    /// Under way.
    pub under_way: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Waiting for their turn.
    pub waiting: usize,
}

/// A flush of the device that has not begun, or is under way, and what came of it.
#[derive(Default)]
struct Round {
    outcome: RefCell<Option<Result<(), Arc<io::Error>>>>,
    ended: Event,
}

/// One core's durable writes in one data directory. Owned by its [`LogDir`](crate::LogDir).
pub(crate) struct SharedFlush {
    dir: PathBuf,
    /// Looked at with the first durable write.
    device: RefCell<Option<Rc<Device>>>,
    /// What who joins now waits for: the next flush to begin.
    next: RefCell<Rc<Round>>,
    /// A task runs that begins the next flush.
    flushing: Cell<bool>,
    /// [`SHARED_FROM`], but in tests.
    shared_from: Cell<usize>,
    /// Durable writes begun and not yet durable.
    under_way: Rc<Cell<usize>>,
    writers: Rc<Writers>,
    zeroings: Rc<Cell<usize>>,
    turns: Rc<Turns>,
    counts: Cell<FlushCounts>,
}

impl SharedFlush {
    /// For the data directory `dir`, which need not be looked at yet.
    pub(crate) fn new(dir: &Path) -> Rc<Self> {
        Rc::new(Self {
            dir: dir.to_owned(),
            device: RefCell::default(),
            next: RefCell::default(),
            flushing: Cell::new(false),
            shared_from: Cell::new(SHARED_FROM),
            under_way: Rc::default(),
            writers: Rc::default(),
            zeroings: Rc::default(),
            turns: Rc::default(),
            counts: Cell::default(),
        })
    }

    /// Lets fewer writes share a flush than it takes to be worth it.
    #[cfg(test)]
    pub(crate) fn share_from(&self, writes: usize) {
        self.shared_from.set(writes);
    }

    pub(crate) fn counts(&self) -> FlushCounts {
        self.counts.get()
    }

    pub(crate) fn queue(&self) -> WriteQueue {
        let Turns { writes, bytes, waiting } = &*self.turns;
        WriteQueue { under_way: writes.get(), bytes: bytes.get(), waiting: waiting.borrow().len() }
    }

    async fn device(&self) -> Rc<Device> {
        if let Some(device) = self.device.borrow().clone() {
            return device;
        }
        let device = Rc::new(Device::open(&self.dir).await);
        // Another write may have come first; one of two open files goes.
        self.device.borrow_mut().get_or_insert(device).clone()
    }

    /// Waits for a flush write's turn, in order of arrival. It lasts until the guard is dropped.
    pub(crate) async fn turn(&self, bytes: u64) -> Turn {
        Turns::take(&self.turns, bytes).await
    }

    /// Says how a durable write is to be done that begins now: `settled` is whether all its blocks are, and `pieces` how
    /// many writes it is at once. The guard is held until it is durable, and told when it joins a flush.
    pub(crate) async fn begin(&self, settled: bool, pieces: u64) -> (Means, DurableWrite) {
        let device = self.device().await;
        let counted = Counted::new(&self.under_way);
        let crowded = self.under_way.get() >= self.shared_from.get();
        let means = means(device.sync(), settled, crowded, pieces);
        let mut counts = self.counts.get();
        match means {
            Means::File => counts.by_file += 1,
            Means::Shared => counts.shared += 1,
            Means::Nothing => counts.by_nothing += 1,
        }
        self.counts.set(counts);
        let writing = (means == Means::Shared).then(|| Writing::new(&self.writers));
        (means, DurableWrite { _counted: counted, writing })
    }

    /// Waits for the end of a flush of the device that begins after this call, for `write`, which is complete. While
    /// one is under way everybody who comes joins the next; and a flush waits for the writes that were begun before it
    /// and want to join, or else most would just miss it.
    ///
    /// # Errors
    /// The flush failed, for all who joined it: what they wrote may be lost.
    pub(crate) async fn join(self: &Rc<Self>, mut write: DurableWrite) -> io::Result<()> {
        let round = self.next.borrow().clone();
        write.writing = None;
        if !self.flushing.replace(true) {
            let shared = self.clone();
            drop(task::spawn(async move { shared.flush_while_joined().await }));
        }
        loop {
            let ended = round.ended.listen();
            if let Some(outcome) = &*round.outcome.borrow() {
                return outcome.clone().map_err(|error| io::Error::new(error.kind(), error));
            }
            ended.await;
        }
    }

    /// One flush after the other, as long as somebody has joined the next.
    async fn flush_while_joined(self: Rc<Self>) {
        let device = self.device().await;
        loop {
            self.writers.wait_for_those_of_now().await;
            let round = self.next.take();
            if Rc::strong_count(&round) == 1 {
                // Nobody: between this look and the flag nothing is awaited.
                self.flushing.set(false);
                return;
            }
            let outcome = device.flush().await.map_err(Arc::new);
            *round.outcome.borrow_mut() = Some(outcome);
            round.ended.notify_all();
            let mut counts = self.counts.get();
            counts.device_flushes += 1;
            self.counts.set(counts);
        }
    }

    /// Leave to zero one more segment ahead, until the guard is dropped.
    pub(crate) fn may_zero(&self) -> Option<Counted> {
        (self.zeroings.get() < ZEROINGS_MAX).then(|| Counted::new(&self.zeroings))
    }
}

/// How a write becomes durable that is or is not one of many at a time.
fn means(device: DeviceSync, settled: bool, crowded: bool, pieces: u64) -> Means {
    match device {
        _ if !settled => Means::File,
        DeviceSync::PerFile => Means::File,
        DeviceSync::NoCache => Means::Nothing,
        // Each piece would have a flush of its own.
        DeviceSync::SharedFlush if crowded || pieces > 1 => Means::Shared,
        DeviceSync::SharedFlush => Means::File,
    }
}

/// A durable write from its beginning to its end.
pub(crate) struct DurableWrite {
    _counted: Counted,
    /// It is still writing, and will join a flush.
    writing: Option<Writing>,
}

/// How many write plainly before they join a flush: those that the next flush waits for, and those that came later.
#[derive(Default)]
struct Writers {
    generation: Cell<u64>,
    awaited: Cell<usize>,
    later: Cell<usize>,
    done: Event,
}

impl Writers {
    async fn wait_for_those_of_now(&self) {
        assert_eq!(self.awaited.get(), 0, "one flush at a time");
        self.generation.set(self.generation.get() + 1);
        self.awaited.set(self.later.take());
        loop {
            let done = self.done.listen();
            if self.awaited.get() == 0 {
                return;
            }
            done.await;
        }
    }
}

/// One of the [`Writers`].
struct Writing {
    writers: Rc<Writers>,
    generation: u64,
}

impl Writing {
    fn new(writers: &Rc<Writers>) -> Self {
        writers.later.set(writers.later.get() + 1);
        Self { writers: writers.clone(), generation: writers.generation.get() }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let awaited = self.generation < self.writers.generation.get();
        let count = if awaited { &self.writers.awaited } else { &self.writers.later };
        count.set(count.get() - 1);
        if awaited && count.get() == 0 {
            self.writers.done.notify_all();
        }
    }
}

/// One of a number of things, as long as it is held.
pub(crate) struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Who may write now, and who waits.
#[derive(Default)]
struct Turns {
    writes: Cell<usize>,
    bytes: Cell<u64>,
    waiting: RefCell<VecDeque<(u64, oneshot::Sender<Turn>)>>,
}

impl Turns {
    async fn take(turns: &Rc<Self>, bytes: u64) -> Turn {
        if turns.waiting.borrow().is_empty() && turns.have_room(bytes) {
            return Turns::give(turns, bytes);
        }
        let (sender, receiver) = oneshot::channel();
        turns.waiting.borrow_mut().push_back((bytes, sender));
        // A turn that somebody no longer waits for comes back with the failed sending of it.
        receiver.await.expect("the queue lives as long as who waits in it")
    }

    fn have_room(&self, bytes: u64) -> bool {
        self.writes.get() == 0
            || (self.writes.get() < WRITES_MAX && self.bytes.get() + bytes <= WRITE_BYTES_MAX)
    }

    fn give(turns: &Rc<Self>, bytes: u64) -> Turn {
        turns.writes.set(turns.writes.get() + 1);
        turns.bytes.set(turns.bytes.get() + bytes);
        Turn { turns: turns.clone(), bytes }
    }

    /// Lets in who waits, as far as there is room.
    fn let_in(turns: &Rc<Self>) {
        loop {
            let sender = {
                let mut waiting = turns.waiting.borrow_mut();
                match waiting.front() {
                    Some(&(bytes, _)) if turns.have_room(bytes) => waiting.pop_front(),
                    _ => return,
                }
            };
            let Some((bytes, sender)) = sender else { return };
            drop(sender.send(Turns::give(turns, bytes)));
        }
    }
}

/// The right to write, given back when dropped.
pub(crate) struct Turn {
    turns: Rc<Turns>,
    bytes: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.writes.set(self.turns.writes.get() - 1);
        self.turns.bytes.set(self.turns.bytes.get() - self.bytes);
        Turns::let_in(&self.turns);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future;
    use heizer_runtime::sim::{DiskFaults, Sim};
    use heizer_runtime::time;

    use super::*;

    #[test]
    fn few_writes_sync_their_files_and_many_share_where_the_device_allows_it() {
        use DeviceSync::{NoCache, PerFile, SharedFlush};
        let table = [
            (SharedFlush, true, false, 1, Means::File),
            (SharedFlush, true, true, 1, Means::Shared),
            (SharedFlush, true, false, 8, Means::Shared),
            (SharedFlush, false, true, 8, Means::File),
            (NoCache, true, false, 1, Means::Nothing),
            (NoCache, false, false, 1, Means::File),
            (PerFile, true, true, 8, Means::File),
        ];
        for (device, settled, crowded, pieces, expected) in table {
            assert_eq!(means(device, settled, crowded, pieces), expected, "{device:?} {settled} {crowded}");
        }
    }

    async fn write_and_join(shared: &Rc<SharedFlush>) -> io::Result<()> {
        let (_, write) = shared.begin(true, 2).await;
        shared.join(write).await
    }

    #[test]
    fn a_flush_waits_for_the_writes_of_its_time_and_not_for_later_ones() {
        let mut sim = Sim::new(0);
        let node = sim.node(1);
        sim.set_device_sync(node, DeviceSync::SharedFlush);
        sim.run(node, async {
            let shared = SharedFlush::new(Path::new("/"));
            let (_, slow) = shared.begin(true, 2).await;
            let quick = task::spawn({
                let shared = shared.clone();
                async move { write_and_join(&shared).await }
            });
            time::sleep(Duration::from_millis(100)).await;
            assert!(!quick.is_finished() && shared.counts().device_flushes == 0);
            let (_, later) = shared.begin(true, 2).await;
            shared.join(slow).await.expect("flushed");
            quick.await.expect("no panic").expect("flushed");
            assert_eq!(shared.counts().device_flushes, 1);
            // One that is given up is not waited for either.
            drop(later);
            write_and_join(&shared).await.expect("flushed");
        });
    }

    #[test]
    fn who_comes_while_a_flush_is_under_way_waits_for_the_next_and_many_share_one() {
        let mut sim = Sim::new(0);
        let node = sim.node(1);
        sim.set_device_sync(node, DeviceSync::SharedFlush);
        sim.run(node, async {
            let shared = SharedFlush::new(Path::new("/"));
            let first = task::spawn({
                let shared = shared.clone();
                async move { write_and_join(&shared).await }
            });
            // The first has begun by now, and takes longer than this.
            time::sleep(Duration::from_micros(20)).await;
            assert!(!first.is_finished());
            let joined = future::join_all((0..50).map(|_| write_and_join(&shared))).await;
            assert!(joined.iter().all(Result::is_ok) && first.is_finished());
            assert_eq!(shared.counts().device_flushes, 2);
            write_and_join(&shared).await.expect("flushed");
            assert_eq!(shared.counts().device_flushes, 3);
        });
    }

    #[test]
    fn a_failed_flush_fails_all_who_joined_it_and_nobody_else() {
        let mut sim = Sim::new(0);
        let node = sim.node(1);
        sim.set_device_sync(node, DeviceSync::SharedFlush);
        let shared = SharedFlush::new(Path::new("/"));
        let joined = shared.clone();
        sim.set_disk_faults(node, DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::default() });
        let failed =
            sim.run(node, async move { future::join_all((0..5).map(|_| write_and_join(&joined))).await });
        assert!(failed.iter().all(Result::is_err));
        sim.set_disk_faults(node, DiskFaults::default());
        sim.run(node, async move { write_and_join(&shared).await.expect("flushed") });
    }

    #[test]
    fn turns_come_in_order_within_both_bounds_and_a_large_write_gets_one_too() {
        let mut sim = Sim::new(0);
        let node = sim.node(1);
        sim.run(node, async {
            let shared = SharedFlush::new(Path::new("/"));
            let order: Rc<RefCell<Vec<usize>>> = Rc::default();
            let held = shared.turn(WRITE_BYTES_MAX * 2).await;
            let wait = |at: usize, bytes: u64| {
                let (shared, order) = (shared.clone(), order.clone());
                task::spawn(async move {
                    let turn = shared.turn(bytes).await;
                    order.borrow_mut().push(at);
                    turn
                })
            };
            let mut waiting = Vec::new();
            for (at, bytes) in [(0, 1), (1, WRITE_BYTES_MAX), (2, 1)] {
                waiting.push(wait(at, bytes));
                time::sleep(Duration::from_micros(1)).await;
            }
            assert!(order.borrow().is_empty());
            drop(held);
            let mut waiting = waiting.into_iter();
            let small = waiting.next().expect("three").await.expect("no panic");
            time::sleep(Duration::from_millis(1)).await;
            // The large one waits, and nobody overtakes it.
            assert_eq!(*order.borrow(), [0]);
            drop(small);
            let large = waiting.next().expect("three").await.expect("no panic");
            time::sleep(Duration::from_millis(1)).await;
            assert_eq!(*order.borrow(), [0, 1]);
            // Who does not wait any more leaves its turn to the next.
            let mut gone = Box::pin(shared.turn(1));
            assert!(futures::poll!(&mut gone).is_pending());
            drop(gone);
            drop(large);
            drop(waiting.next().expect("three").await.expect("no panic"));
            assert_eq!((shared.turns.writes.get(), shared.turns.bytes.get()), (0, 0));
            let many: Vec<Turn> = future::join_all((0..WRITES_MAX).map(|_| shared.turn(1))).await;
            let mut more = Box::pin(shared.turn(1));
            assert!(futures::poll!(&mut more).is_pending());
            let bytes = WRITES_MAX as u64;
            assert_eq!(shared.queue(), WriteQueue { under_way: WRITES_MAX, bytes, waiting: 1 });
            drop(many);
            drop(more.await);
        });
    }
}
