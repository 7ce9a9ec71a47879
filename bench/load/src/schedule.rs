//! When records are due in an open loop, and which batches they make. No I/O, no clock: times are arguments.

use std::collections::VecDeque;

const NS_PER_S: f64 = 1e9;

/// The records of one producer on a fixed schedule: a stall delays none of those behind it.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    phase_ns: f64,
    next: u64,
}

impl Schedule {
    /// That of producer `index` of `count`, which together make `rate` records a second, evenly in turns.
    pub(crate) fn new(start_ns: u64, rate: f64, index: usize, count: usize) -> Schedule {
        let group_interval_ns = NS_PER_S / rate;
        Schedule {
            start_ns,
            interval_ns: group_interval_ns * count as f64,
            phase_ns: group_interval_ns * index as f64,
            next: 0,
        }
    }

    /// When the next record is due. From its number, so that nothing adds up.
    pub(crate) fn next_due_ns(&self) -> u64 {
        self.start_ns + (self.phase_ns + self.interval_ns * self.next as f64) as u64
    }

    /// The next record, if it is due: its number and when it was.
    pub(crate) fn take(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        let due_ns = self.next_due_ns();
        if due_ns > now_ns {
            return None;
        }
        self.next += 1;
        Some((self.next - 1, due_ns))
    }
}

/// A record that waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) due_ns: u64,
    /// The number of its key, where it has one.
    pub(crate) key: Option<u32>,
}

/// Records that are due, by lane (a partition of this producer), until they are sent.
#[derive(Debug)]
pub(crate) struct Accumulator {
    lanes: Vec<VecDeque<Waiting>>,
    batch_records_max: usize,
    linger_ns: u64,
    /// Lanes with a whole batch, an entry for each.
    full: VecDeque<usize>,
    /// Lanes with records, with the time that their first was due when the entry was made; stale ones among them.
    open: VecDeque<(usize, u64)>,
    waiting: usize,
    /// Where records without a key go until their batch is closed.
    sticky: usize,
}

impl Accumulator {
    /// Nothing waits yet.
    pub(crate) fn new(lanes: usize, batch_records_max: usize, linger_ns: u64, sticky: usize) -> Accumulator {
        Accumulator {
            lanes: vec![VecDeque::new(); lanes],
            batch_records_max,
            linger_ns,
            full: VecDeque::new(),
            open: VecDeque::new(),
            waiting: 0,
            sticky: sticky % lanes,
        }
    }

    /// Records that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// A record for `lane`, or for the one whose turn it is.
    pub(crate) fn push(&mut self, lane: Option<usize>, record: Waiting) {
        let at = lane.unwrap_or(self.sticky);
        let records = &mut self.lanes[at];
        if records.is_empty() {
            self.open.push_back((at, record.due_ns));
        }
        records.push_back(record);
        self.waiting += 1;
        if records.len().is_multiple_of(self.batch_records_max) {
            self.full.push_back(at);
            self.move_on(at);
        }
    }

    /// The next batch that is full or has lingered, or just the next with `at_once`: its lane and records.
    pub(crate) fn take(&mut self, now_ns: u64, at_once: bool) -> Option<(usize, Vec<Waiting>)> {
        let lane = match self.full.pop_front() {
            Some(lane) => lane,
            None => {
                let (lane, due_ns) = self.first_open()?;
                if !at_once && due_ns.saturating_add(self.linger_ns) > now_ns {
                    return None;
                }
                self.open.pop_front();
                lane
            }
        };
        let records = &mut self.lanes[lane];
        let count = records.len().min(self.batch_records_max);
        let batch: Vec<Waiting> = records.drain(..count).collect();
        if let Some(first) = records.front() {
            self.open.push_back((lane, first.due_ns));
        }
        self.waiting -= batch.len();
        self.move_on(lane);
        Some((lane, batch))
    }

    /// When the next batch has lingered, unless it becomes full before.
    pub(crate) fn next_deadline_ns(&mut self) -> Option<u64> {
        let (_, due_ns) = self.first_open()?;
        Some(due_ns.saturating_add(self.linger_ns))
    }

    /// The first entry that is not stale.
    fn first_open(&mut self) -> Option<(usize, u64)> {
        while let Some(&(lane, due_ns)) = self.open.front() {
            if self.lanes[lane].front().is_some_and(|first| first.due_ns == due_ns) {
                return Some((lane, due_ns));
            }
            self.open.pop_front();
        }
        None
    }

    fn move_on(&mut self, lane: usize) {
        if self.sticky == lane {
            self.sticky = (lane + 1) % self.lanes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(due_ns: u64) -> Waiting {
        Waiting { due_ns, key: None }
    }

    fn times(batch: Option<(usize, Vec<Waiting>)>) -> Option<(usize, Vec<u64>)> {
        batch.map(|(lane, records)| (lane, records.iter().map(|record| record.due_ns).collect()))
    }

    #[test]
    fn due_times_do_not_shift_when_nobody_asks() {
        let mut prompt = Schedule::new(1_000, 10.0, 0, 1);
        let mut late = prompt.clone();
        let asked: Vec<_> = (0..50_u64).filter_map(|at| prompt.take(1_000 + at * 100_000_000)).collect();
        let after_a_stall: Vec<_> = std::iter::from_fn(|| late.take(1_000 + 49 * 100_000_000)).collect();
        assert_eq!(asked, after_a_stall);
        assert_eq!(asked[49], (49, 1_000 + 4_900_000_000));
        assert_eq!(late.next_due_ns(), 1_000 + 5_000_000_000);
    }

    #[test]
    fn nothing_adds_up_over_a_billion_records() {
        let schedule = Schedule { next: 3_000_000_000, ..Schedule::new(0, 3.0, 0, 1) };
        let expected = 1_000_000_000_000_000_000_u64;
        assert!(schedule.next_due_ns().abs_diff(expected) < 1_000, "{}", schedule.next_due_ns());
    }

    #[test]
    fn producers_of_a_group_take_turns() {
        let mut all: Vec<u64> = (0..4)
            .flat_map(|index| {
                let mut schedule = Schedule::new(0, 1_000.0, index, 4);
                std::iter::from_fn(move || schedule.take(99_999_999).map(|(_, due_ns)| due_ns))
            })
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).map(|at| at * 1_000_000).collect::<Vec<u64>>());
    }

    #[test]
    fn a_batch_goes_when_it_is_full_or_has_lingered() {
        let mut waiting = Accumulator::new(1, 3, 100, 0);
        waiting.push(None, due(10));
        waiting.push(None, due(20));
        assert_eq!(waiting.take(109, false), None);
        assert_eq!(waiting.next_deadline_ns(), Some(110));
        waiting.push(None, due(30));
        waiting.push(None, due(40));
        assert_eq!(times(waiting.take(40, false)), Some((0, vec![10, 20, 30])));
        assert_eq!(waiting.next_deadline_ns(), Some(140));
        assert_eq!(waiting.take(139, false), None);
        assert_eq!(times(waiting.take(140, false)), Some((0, vec![40])));
        assert_eq!(
            (waiting.take(1_000, true), waiting.next_deadline_ns(), waiting.waiting()),
            (None, None, 0)
        );
    }

    #[test]
    fn a_stall_makes_full_batches_and_loses_nothing() {
        let mut waiting = Accumulator::new(1, 3, 0, 0);
        (0..8).for_each(|at| waiting.push(None, due(at)));
        let taken: Vec<_> = std::iter::from_fn(|| times(waiting.take(100, false))).collect();
        assert_eq!(taken, [(0, vec![0, 1, 2]), (0, vec![3, 4, 5]), (0, vec![6, 7])]);
        assert_eq!(waiting.waiting(), 0);
    }

    #[test]
    fn without_keys_lanes_take_turns_batch_by_batch() {
        let mut waiting = Accumulator::new(3, 2, 0, 2);
        (0..3).for_each(|at| waiting.push(None, due(at)));
        assert_eq!(times(waiting.take(9, false)), Some((2, vec![0, 1])), "it was full");
        assert_eq!(times(waiting.take(9, false)), Some((0, vec![2])));
        waiting.push(None, due(3));
        assert_eq!(times(waiting.take(9, false)), Some((1, vec![3])));
    }

    #[test]
    fn a_refilled_lane_does_not_hold_up_those_that_wait_longer() {
        let mut waiting = Accumulator::new(2, 2, 100, 0);
        waiting.push(Some(0), due(1));
        waiting.push(Some(1), due(2));
        waiting.push(Some(0), due(3));
        assert_eq!(times(waiting.take(4, false)), Some((0, vec![1, 3])));
        waiting.push(Some(0), due(50));
        assert_eq!(times(waiting.take(102, false)), Some((1, vec![2])));
        assert_eq!(times(waiting.take(0, true)), Some((0, vec![50])));
    }
}
