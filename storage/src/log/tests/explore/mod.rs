//! Crash exploration (contract L8): a scenario of random operations is run to its end once, and then again for every
//! disk operation that it took, at which the power goes or the process dies. What is opened then is checked against
//! a plain list of batches; in half of the cases it goes down once more on the way there.
//!
//! | file | what is in it |
//! |---|---|
//! | `operations.rs` | what is done to the log: the list to extend |
//! | `model.rs` | what the log should be, and what was promised |
//! | `checks.rs` | what must hold of a log that was opened again |
//! | `faults.rs` | the same on disks that fail or lie |
//!
//! [`crate::exploring`] has the variables that ask for more, or for one failure again.

mod checks;
mod faults;
mod model;
mod operations;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::rc::Rc;

use heizer_runtime::sim::{DiskFaults, NodeId, Sim};
use heizer_runtime::task::JoinHandle;

use super::*;
use crate::config::Level;
use crate::exploring::{Dice, Exploration};
use checks::{Depth, Fingerprint};
use model::{Ending, Model};
use operations::{Operation, config};

/// Bytes of chunks that the logs under test may keep: few, so that the disk is read.
const TAIL_CACHE_MAX: usize = 30_000;

/// An operation did not come to its end.
#[derive(Debug)]
struct Trouble(String);

impl<E: Error> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        Trouble(error.to_string())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a test has exercised.
#[derive(Copy, Clone, Debug, Default)]
struct Tally {
    power_cuts: u64,
    kills: u64,
    ends_in_recovery: u64,
    appends: u64,
    reads: u64,
    truncations: u64,
    /// Calls that have deleted records.
    deletions: u64,
    /// Segments that retention removed.
    retained: u64,
    /// Recoveries that had to cut something off.
    cuts: u64,
    /// Operations that a disk made fail.
    troubles: u64,
    lies: u64,
    /// Batches that a client would have refused.
    refused: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.power_cuts += other.power_cuts;
        self.kills += other.kills;
        self.ends_in_recovery += other.ends_in_recovery;
        self.appends += other.appends;
        self.reads += other.reads;
        self.truncations += other.truncations;
        self.deletions += other.deletions;
        self.retained += other.retained;
        self.cuts += other.cuts;
        self.troubles += other.troubles;
        self.lies += other.lies;
        self.refused += other.refused;
    }
}

/// A log beside its model; outlives the node that it runs on.
#[derive(Default)]
struct Bench {
    model: RefCell<Model>,
    log: RefCell<Option<Rc<Log>>>,
    /// The log notes itself in a checkpoint log, in all its lives.
    noting: Cell<bool>,
    home: RefCell<Option<Rc<LogDir>>>,
    /// Retention and deletions run beside other operations.
    beside: RefCell<Vec<JoinHandle<Result<(), Trouble>>>>,
    /// What is read need not be right: the disk may lie.
    untrusted: Cell<bool>,
    /// Nor need it be from the present.
    stale: Cell<bool>,
    tally: Cell<Tally>,
}

impl Bench {
    fn log(&self) -> Rc<Log> {
        self.log.borrow().clone().expect("it was opened")
    }

    fn untrusted(&self) -> bool {
        self.untrusted.get()
    }

    fn count(&self, what: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        what(&mut tally);
        self.tally.set(tally);
    }

    async fn open(&self, config: LogConfig, mode: OpenMode) -> Result<RecoveryReport, Trouble> {
        let home = self.home().await?;
        let (log, report) = Log::open(&home, NAME, TOPIC_ID, config, mode).await?;
        assert_eq!((report.log_start, report.log_end), (log.log_start(), log.log_end()));
        self.count(|tally| tally.cuts += u64::from(report.cut.is_some()));
        *self.log.borrow_mut() = Some(log);
        Ok(report)
    }

    /// The data directory, as this life of the node uses it.
    async fn home(&self) -> Result<Rc<LogDir>, Trouble> {
        if let Some(home) = self.home.borrow().clone() {
            return Ok(home);
        }
        let home = home(TAIL_CACHE_MAX);
        if self.noting.get() {
            home.open_checkpoints().await?;
        }
        *self.home.borrow_mut() = Some(home.clone());
        Ok(home)
    }

    /// Waits for what runs beside.
    async fn settled(&self) -> Result<(), Trouble> {
        let mut outcome = Ok(());
        for task in self.beside.take() {
            let ended = task.await.unwrap_or_else(|panicked| panic!("{panicked}"));
            outcome = outcome.and(ended);
        }
        outcome
    }

    /// The node is down: what the log has said up to then is what it promised.
    fn ended(&self, ending: Ending) {
        if let Some(log) = self.log.borrow_mut().take() {
            self.model.borrow_mut().promised(log.end_at(Level::Written), log.end_at(Level::Durable));
        }
        self.beside.borrow_mut().clear();
        self.home.borrow_mut().take();
        self.count(|tally| match ending {
            Ending::PowerCut => tally.power_cuts += 1,
            Ending::Kill => tally.kills += 1,
        });
    }

    /// Opens the log after `ending` and holds what comes back against the model's promises.
    async fn recover(&self, config: LogConfig, ending: Ending) -> Result<Fingerprint, Trouble> {
        self.open(config, OpenMode::Unclean).await?;
        let log = self.log();
        let is_new = log.sizes().bytes == 0 && log.producer_count() == 0;
        self.model.borrow_mut().opened(ending, log.log_start(), log.log_end(), is_new);
        Ok(Fingerprint::of(&log))
    }
}

/// What one seed does to a log.
struct Scenario {
    seed: u64,
    config: LogConfig,
    faults: DiskFaults,
    operations: Vec<Operation>,
}

impl Scenario {
    fn new(seed: u64) -> Scenario {
        let mut dice = Dice::new(seed);
        let config = config(&mut dice);
        let short_transfer_ppm = dice.one_of(&[0, 300_000]);
        let count = 10 + dice.below(50);
        let operations = (0..count).map(|_| Operation::choose(&mut dice)).collect();
        let faults = DiskFaults { short_transfer_ppm, ..DiskFaults::default() };
        Scenario { seed, config, faults, operations }
    }

    /// Runs it and goes down: at a disk operation, or at its end.
    fn run(&self, end: Option<(u64, Ending)>) -> Life {
        let mut life = self.make();
        let before = life.sim.disk_operations(life.node);
        if let Some((at, ending)) = end {
            life.end_at(at, ending);
        }
        let ending = end.map_or(Ending::Kill, |(_, ending)| ending);
        if let Some(outcome) = life.carry_out(self) {
            outcome.expect("nothing fails on a disk without faults");
            life.end_now(ending);
        }
        life.operations = life.sim.disk_operations(life.node) - before;
        life.bench.ended(ending);
        life
    }

    /// Runs it to its end and stays up.
    fn start(&self) -> Life {
        let mut life = self.make();
        let outcome = life.carry_out(self).expect("nothing ends it");
        outcome.expect("nothing fails on a disk without faults");
        life
    }

    fn make(&self) -> Life {
        let mut sim = Sim::new(self.seed);
        let node = sim.node(1);
        sim.run(node, make_data_dir());
        sim.set_disk_faults(node, self.faults);
        let bench = Rc::new(Bench::default());
        bench.noting.set(!self.seed.is_multiple_of(4));
        Life { sim, node, bench, config: self.config.clone(), operations: 0 }
    }
}

/// A node that is down, and the log on its disk.
struct Life {
    sim: Sim,
    node: NodeId,
    bench: Rc<Bench>,
    config: LogConfig,
    /// Disk operations that the scenario took.
    operations: u64,
}

impl Life {
    /// `None`: it went down on the way.
    fn carry_out(&mut self, scenario: &Scenario) -> Option<Result<(), Trouble>> {
        let (bench, config) = (self.bench.clone(), self.config.clone());
        let operations = scenario.operations.clone();
        self.sim.run_until_down(self.node, async move {
            bench.open(config, OpenMode::Unclean).await?;
            for operation in &operations {
                operation.carry_out(&bench).await?;
            }
            bench.settled().await
        })
    }

    fn end_at(&mut self, at: u64, ending: Ending) {
        match ending {
            Ending::PowerCut => self.sim.crash_at_disk_operation(self.node, at),
            Ending::Kill => self.sim.kill_at_disk_operation(self.node, at),
        }
    }

    fn end_now(&mut self, ending: Ending) {
        match ending {
            Ending::PowerCut => self.sim.crash(self.node),
            Ending::Kill => self.sim.kill(self.node),
        }
        self.bench.home.borrow_mut().take();
    }

    /// Brings the log up again, goes down on the way in half of the cases, and checks it; then goes on with it, and
    /// checks once more.
    fn recover_and_check(&mut self, ending: Ending, dice: &mut Dice) {
        while dice.chance(50) && self.goes_down_in_recovery(ending, dice) {
            self.bench.count(|tally| tally.ends_in_recovery += 1);
        }
        self.check_twice(ending, dice);
        if dice.chance(50) {
            self.go_on(dice);
            self.end_now(Ending::PowerCut);
            self.bench.ended(Ending::PowerCut);
            self.check_twice(Ending::PowerCut, dice);
        }
        assert_eq!(self.sim.panics(), 0);
    }

    fn goes_down_in_recovery(&mut self, ending: Ending, dice: &mut Dice) -> bool {
        // A recovery takes some 10 to 60 operations.
        let most = dice.one_of(&[8, 60]);
        self.end_at(1 + dice.below(most), ending);
        let (bench, config) = (self.bench.clone(), self.config.clone());
        let opened = self.sim.run_until_down(self.node, async move {
            bench.open(config, OpenMode::Unclean).await.expect("it opens");
        });
        // What was opened has promised nothing that anybody has heard of.
        self.bench.log.borrow_mut().take();
        self.bench.home.borrow_mut().take();
        if opened.is_some() {
            self.sim.cancel_end(self.node);
            self.end_now(ending);
        }
        opened.is_none()
    }

    /// Opens the log twice, which must find the same, and checks what is in it.
    fn check_twice(&mut self, ending: Ending, dice: &mut Dice) {
        let (bench, config) = (self.bench.clone(), self.config.clone());
        let once = self.sim.run(self.node, async move { bench.recover(config, ending).await });
        // Its first opening goes on in the background, and a log is not opened beside itself.
        self.end_now(ending);
        self.bench.home.borrow_mut().take();
        let (bench, config) = (self.bench.clone(), self.config.clone());
        let depth = if dice.chance(20) { Depth::All } else { Depth::Samples };
        let mut checked = dice.clone();
        let again = self.sim.run(self.node, async move {
            let again = bench.recover(config, ending).await?;
            bench.check(&mut checked, depth).await?;
            Ok::<_, Trouble>(again)
        });
        assert_eq!(again.expect("it opens"), once.expect("it opens"), "recovery is idempotent");
    }

    /// The log goes on: what was cut off must not come back when it has grown again.
    fn go_on(&mut self, dice: &mut Dice) {
        let operations: Vec<Operation> = (0..2 + dice.below(6))
            .map(|_| if dice.chance(60) { Operation::append(dice) } else { Operation::choose(dice) })
            .collect();
        let bench = self.bench.clone();
        let outcome = self.sim.run(self.node, async move {
            bench.model.borrow_mut().epoch += 1;
            for operation in operations {
                operation.carry_out(&bench).await?;
            }
            bench.settled().await?;
            Ok::<_, Trouble>(bench.log().flush().await?)
        });
        outcome.expect("nothing fails on a disk without faults");
    }
}

/// Explores under many seeds; `proves` says whether a default run has exercised enough.
fn explore(exploration: &Exploration, ending: Ending, proves: impl Fn(&Tally) -> bool) {
    let mut total = Tally::default();
    for seed in exploration.seeds() {
        let scenario = Scenario::new(seed);
        let whole = exploration.attempt(seed, None, || scenario.run(None));
        for at in exploration.points(seed, whole.operations) {
            exploration.attempt(seed, Some(at), || {
                let mut life = scenario.run(Some((at, ending)));
                life.recover_and_check(ending, &mut Dice::new(seed << 20 | at));
                total.add(life.bench.tally.get());
            });
        }
    }
    assert!(!exploration.is_default() || proves(&total), "{total:?} proves nothing");
}

/// contract L8: what was acknowledged at level durable is never what is cut, wherever the power goes.
#[test]
fn what_was_acknowledged_survives_a_power_cut_at_any_disk_operation() {
    let test = "what_was_acknowledged_survives_a_power_cut_at_any_disk_operation";
    explore(&Exploration::new(test, 320, 8), Ending::PowerCut, |tally| {
        tally.power_cuts > 2_500
            && tally.ends_in_recovery > 500
            && tally.appends > 10_000
            && tally.reads > 10_000
            && tally.truncations > 500
            && tally.deletions > 500
            && tally.retained > 50
            && tally.cuts > 0
    });
}

/// DESIGN §4: what was acknowledged at level written survives the process, wherever it ends.
#[test]
fn what_was_acknowledged_survives_the_end_of_the_process_at_any_disk_operation() {
    let test = "what_was_acknowledged_survives_the_end_of_the_process_at_any_disk_operation";
    explore(&Exploration::new(test, 200, 6), Ending::Kill, |tally| {
        tally.kills > 1_000
            && tally.ends_in_recovery > 200
            && tally.appends > 5_000
            && tally.reads > 5_000
            && tally.truncations > 300
            && tally.deletions > 300
            && tally.retained > 20
    });
}
