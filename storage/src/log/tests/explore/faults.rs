//! Disks that fail and disks that lie. The log may fail with them, but it never panics, and nothing that it serves
//! passes for a batch that nobody appended. (A disk that loses writes may bring a batch back that was cut off: by its
//! checksum it is as good as another.) On a healthy disk again, what was acknowledged is there, as far as no lie
//! has damaged it.

use std::time::Duration;

use heizer_runtime::sim::DiskLie;
use heizer_runtime::time;

use super::*;
use crate::log::ReadResult;
use crate::paths::{self, LOG};

/// So many operations per million are hit at most by a kind of error, and by a kind of lie.
const ERROR_MAX_PPM: u64 = 60_000;
const LIE_MAX_PPM: u64 = 200_000;

/// A log waits for room on a full disk, and nobody here makes any: it is given up after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What kinds of faults a run has.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kinds {
    /// Errors and full disks: whoever heeds them comes to no harm.
    Honest,
    LyingReads,
    LyingWrites,
    All,
}

impl Kinds {
    fn faults(self, dice: &mut Dice) -> DiskFaults {
        let mut rate = |in_force: bool, max: u64| {
            let ppm = if in_force && dice.chance(60) { dice.below(max) } else { 0 };
            u32::try_from(ppm).expect("a share of a million")
        };
        let honest = matches!(self, Kinds::Honest | Kinds::All);
        let reads = matches!(self, Kinds::LyingReads | Kinds::All);
        let writes = matches!(self, Kinds::LyingWrites | Kinds::All);
        let mut faults = DiskFaults {
            read_error_ppm: rate(honest, ERROR_MAX_PPM),
            write_error_ppm: rate(honest, ERROR_MAX_PPM),
            sync_error_ppm: rate(honest, ERROR_MAX_PPM),
            no_space_ppm: rate(honest, ERROR_MAX_PPM),
            short_transfer_ppm: 100_000,
            lost_write_ppm: rate(writes, LIE_MAX_PPM),
            misdirected_write_ppm: rate(writes, LIE_MAX_PPM),
            misdirected_read_ppm: rate(reads, LIE_MAX_PPM),
            corrupt_read_ppm: rate(reads, LIE_MAX_PPM),
            ..DiskFaults::default()
        };
        if honest && dice.chance(20) {
            faults.capacity_bytes = 20_000 << dice.below(5);
        }
        faults
    }
}

impl Bench {
    /// What a disk that lies has given is what was appended, or a client refuses it.
    pub(super) fn judge(&self, read: &ReadResult) {
        let judged = self.model.borrow().judge_untrusted(&read.parts.concat().into(), self.stale.get());
        match judged {
            Ok(refused) => self.count(|tally| tally.refused += u64::from(refused)),
            Err(what) => panic!("a read from {} served what nobody appended: {what}", read.first_offset),
        }
    }

    /// Carries out everything that can still be.
    async fn carry_on(self: &Rc<Self>, operations: &[Operation]) {
        for operation in operations {
            let outcome = in_time(operation.carry_out(self)).await;
            self.count(|tally| tally.troubles += u64::from(outcome.is_err()));
            if outcome.is_err() && operation.wants_the_log_alone() {
                // Nobody can say what there is until it is opened again.
                break;
            }
        }
        if in_time(self.settled()).await.is_err() {
            self.count(|tally| tally.troubles += 1);
        }
    }

    /// Reads what there is, wherever reading gets to.
    async fn read_untrusted(&self, max_bytes: usize) {
        let log = self.log();
        let (mut at, end) = (log.log_start(), log.log_end());
        while at < end {
            match log.read(at, max_bytes, end, true).await {
                Ok(read) if read.next_offset > at => {
                    self.judge(&read);
                    self.count(|tally| tally.reads += 1);
                    at = read.next_offset;
                }
                _ => at += 1,
            }
        }
    }
}

async fn in_time(work: impl Future<Output = Result<(), Trouble>>) -> Result<(), Trouble> {
    time::timeout(PATIENCE, work).await.unwrap_or_else(|elapsed| Err(elapsed.into()))
}

/// Runs a seed: some operations on a healthy disk, some on the faulty one, an end, perhaps an opening on the faulty
/// disk, and one on the healthy one.
fn run(seed: u64, kinds: Kinds) -> Tally {
    let mut scenario = Scenario::new(seed);
    let mut dice = Dice::new(!seed);
    let healthy = usize::try_from(dice.below(10)).expect("small").min(scenario.operations.len());
    let faulty = scenario.operations.split_off(healthy);
    let faults = kinds.faults(&mut dice);
    let ending = dice.one_of(&[Ending::PowerCut, Ending::Kill]);
    let mut life = scenario.start();
    life.run_on_faulty_disk(faulty, faults, kinds);
    life.end_now(ending);
    life.bench.ended(ending);
    if dice.chance(50) {
        life.open_on_faulty_disk(ending, &mut dice);
    }
    life.sim.set_disk_faults(life.node, DiskFaults::default());
    life.open_on_healthy_disk(ending, &mut dice);
    assert_eq!(life.sim.panics(), 0);
    let lies = life.sim.disk_lies(life.node).len();
    life.bench.count(|tally| tally.lies += lies as u64);
    life.bench.tally.get()
}

impl Life {
    fn run_on_faulty_disk(&mut self, operations: Vec<Operation>, faults: DiskFaults, kinds: Kinds) {
        self.bench.untrusted.set(kinds != Kinds::Honest);
        self.bench.stale.set(matches!(kinds, Kinds::LyingWrites | Kinds::All));
        self.sim.set_disk_faults(self.node, faults);
        let bench = self.bench.clone();
        self.sim.run(self.node, async move {
            bench.carry_on(&operations).await;
            if bench.untrusted() {
                let operation = Operation::Evict;
                operation.carry_out(&bench).await.expect("nothing can fail");
                bench.read_untrusted(3_000).await;
            }
        });
    }

    /// It may not open. If it does, a disk that is honest has hidden nothing.
    fn open_on_faulty_disk(&mut self, ending: Ending, dice: &mut Dice) {
        let (bench, config) = (self.bench.clone(), self.config.clone());
        let max_bytes = 1 + usize::try_from(dice.below(20_000)).expect("small");
        let mut dice = dice.clone();
        self.sim.run(self.node, async move {
            if bench.untrusted() {
                if bench.open(config, OpenMode::Unclean).await.is_ok() {
                    bench.read_untrusted(max_bytes).await;
                }
            } else if bench.recover(config, ending).await.is_ok() {
                // Reads may fail; what they return is checked.
                let _ = bench.check(&mut dice, Depth::Samples).await;
            }
        });
        self.end_now(ending);
        if self.bench.untrusted() {
            // The log has said no more than what it was made to believe.
            self.bench.log.borrow_mut().take();
        } else {
            self.bench.ended(ending);
        }
    }

    fn open_on_healthy_disk(&mut self, ending: Ending, dice: &mut Dice) {
        let lies = self.sim.disk_lies(self.node);
        if lies.is_empty() {
            self.bench.untrusted.set(false);
            return self.check_twice(ending, dice);
        }
        let (bench, config) = (self.bench.clone(), self.config.clone());
        let undamaged = undamaged_below(&lies);
        self.sim.run(self.node, async move {
            match bench.open(config, OpenMode::Unclean).await {
                Ok(_) => {
                    bench.read_untrusted(5_000).await;
                    if let Some(below) = undamaged {
                        bench.check_below(ending, below).await;
                    }
                }
                Err(trouble) => assert_eq!(undamaged, None, "damage in a segment alone: {trouble}"),
            }
        });
    }
}

impl Bench {
    /// What was acknowledged is there below `offset`, where no lie has been told.
    async fn check_below(&self, ending: Ending, offset: i64) {
        let log = self.log();
        let (start, end) = (log.log_start(), log.log_end());
        let upto = {
            let model = self.model.borrow();
            let upto = model.promise(ending).min(offset);
            // Where an earlier segment started need not be where a batch does.
            model.at(upto).map_or(upto, |batch| batch.base.min(upto))
        };
        assert!(end >= upto, "{start}..{end}: everything below {upto} was acknowledged and not damaged");
        let mut at = start;
        while at < upto {
            let read = log.read(at, 10_000, upto, true).await.expect("the disk is healthy");
            assert!(read.next_offset > at, "no progress at {at} of {upto}");
            let wrong = self.model.borrow().difference(&read.parts.concat().into(), at, read.next_offset);
            assert_eq!(wrong, None, "from {at}");
            at = read.next_offset;
        }
    }
}

/// Where only segments were damaged by writes that went wrong, the base of the first of them: nothing that lies below
/// may suffer. `None` where other files were, or where somebody was misled in reading.
fn undamaged_below(lies: &[DiskLie]) -> Option<i64> {
    let base = |lie: &DiskLie| {
        let name = lie.path.as_deref()?.file_name()?.to_str()?;
        let (base, suffix) = paths::parse_numbered(name)?;
        (suffix == LOG && lie.kind.is_lasting()).then_some(base)
    };
    lies.iter().map(base).collect::<Option<Vec<i64>>>()?.into_iter().min()
}

fn explore_faults(exploration: &Exploration, kinds: &[Kinds], proves: impl Fn(&Tally) -> bool) {
    let mut total = Tally::default();
    for seed in exploration.seeds() {
        let kinds = Dice::new(seed).one_of(kinds);
        exploration.attempt(seed, None, || total.add(run(seed, kinds)));
    }
    assert!(!exploration.is_default() || proves(&total), "{total:?} proves nothing");
}

/// contract L8: errors of the disk cost what was not acknowledged, and nothing else.
#[test]
fn on_a_disk_that_fails_nothing_acknowledged_is_lost() {
    let test = "on_a_disk_that_fails_nothing_acknowledged_is_lost";
    explore_faults(&Exploration::new(test, 600, 0), &[Kinds::Honest], |tally| {
        tally.troubles > 500 && tally.appends > 3_000 && tally.reads > 1_000
    });
}

/// contract F1: a client can tell every batch that a lying disk has damaged, and the rest is what was appended.
#[test]
fn on_a_disk_that_lies_nothing_is_served_that_a_client_would_take_for_another_batch() {
    let test = "on_a_disk_that_lies_nothing_is_served_that_a_client_would_take_for_another_batch";
    let kinds = [Kinds::LyingReads, Kinds::LyingWrites, Kinds::All];
    explore_faults(&Exploration::new(test, 900, 0), &kinds, |tally| {
        tally.lies > 1_000 && tally.refused > 20 && tally.reads > 3_000
    });
}
