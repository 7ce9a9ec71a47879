//! What is counted by topic, and which topics have series of their own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use uuid::Uuid;

use super::core::CoreMetrics;

/// What one core has counted of a topic since it began to know it.
#[derive(Debug, Default)]
pub struct TopicCounters {
    /// Bytes of batches appended, by clients or by the broker itself.
    pub appended_bytes: Cell<u64>,
    /// Records of these.
    pub appended_records: Cell<u64>,
    /// Bytes of batches sent to whoever fetched them.
    pub fetched_bytes: Cell<u64>,
    /// Partitions in produce requests that were answered with an error.
    pub produce_failures: Cell<u64>,
    /// Partitions in fetch requests that were answered with an error.
    pub fetch_failures: Cell<u64>,
}

impl TopicCounters {
    /// Counts an appended batch.
    pub fn count_append(&self, bytes: u64, records: u64) {
        CoreMetrics::add(&self.appended_bytes, bytes);
        CoreMetrics::add(&self.appended_records, records);
    }

    fn read(&self) -> TopicCounts {
        TopicCounts {
            appended_bytes: self.appended_bytes.get(),
            appended_records: self.appended_records.get(),
            fetched_bytes: self.fetched_bytes.get(),
            produce_failures: self.produce_failures.get(),
            fetch_failures: self.fetch_failures.get(),
        }
    }
}

/// What [`TopicCounters`] had come to at some moment, of one core or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicCounts {
    /// Bytes of batches appended.
    pub appended_bytes: u64,
    /// Records of these.
    pub appended_records: u64,
    /// Bytes of batches sent.
    pub fetched_bytes: u64,
    /// Failures of produce requests.
    pub produce_failures: u64,
    /// Failures of fetch requests.
    pub fetch_failures: u64,
}

impl TopicCounts {
    /// Adds other ones.
    pub(super) fn add(&mut self, other: TopicCounts) {
        self.appended_bytes += other.appended_bytes;
        self.appended_records += other.appended_records;
        self.fetched_bytes += other.fetched_bytes;
        self.produce_failures += other.produce_failures;
        self.fetch_failures += other.fetch_failures;
    }

    /// The greater of both, each for itself.
    fn max(self, other: TopicCounts) -> TopicCounts {
        TopicCounts {
            appended_bytes: self.appended_bytes.max(other.appended_bytes),
            appended_records: self.appended_records.max(other.appended_records),
            fetched_bytes: self.fetched_bytes.max(other.fetched_bytes),
            produce_failures: self.produce_failures.max(other.produce_failures),
            fetch_failures: self.fetch_failures.max(other.fetch_failures),
        }
    }
}

/// The counters of one core's topics. There is an entry for topics that exist and for no others.
#[derive(Debug, Default)]
pub struct TopicTable {
    by_id: RefCell<BTreeMap<Uuid, Rc<TopicCounters>>>,
}

impl TopicTable {
    /// The counters of a topic that exists.
    pub fn of(&self, topic_id: Uuid) -> Rc<TopicCounters> {
        self.by_id.borrow_mut().entry(topic_id).or_default().clone()
    }

    /// Forgets a topic that is gone.
    pub fn forget(&self, topic_id: Uuid) {
        self.by_id.borrow_mut().remove(&topic_id);
    }

    /// Forgets topics that are gone, once no partition counts for them any more: a request that was under way may have
    /// brought one back.
    pub fn retain(&self, exists: impl Fn(Uuid) -> bool) {
        self.by_id.borrow_mut().retain(|id, counters| Rc::strong_count(counters) > 1 || exists(*id));
    }

    /// What was counted of a topic.
    pub fn counts(&self, topic_id: Uuid) -> TopicCounts {
        self.by_id.borrow().get(&topic_id).map(|counters| counters.read()).unwrap_or_default()
    }

    /// How many topics there are counters for.
    pub fn len(&self) -> usize {
        self.by_id.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which topics have series of their own. Whatever the others count is added up, and never falls: a topic that has come
/// to the others stays with them, and what it has counted stays when it goes.
///
/// Lives on the core that is asked for metrics. All topics are gone over in each pass: [`TopicBoard::begin`], then
/// [`TopicBoard::seen`] for each of them, [`TopicBoard::release`], and [`TopicBoard::admit`] for those that are new.
#[derive(Debug)]
pub struct TopicBoard {
    own_max: usize,
    own: usize,
    pass: u64,
    seats: BTreeMap<Uuid, Seat>,
    gone: TopicCounts,
}

#[derive(Debug)]
struct Seat {
    own: bool,
    /// The last pass in which the topic was there.
    seen: u64,
    counts: TopicCounts,
}

impl TopicBoard {
    /// A board that gives `own_max` topics series of their own.
    pub fn new(own_max: usize) -> TopicBoard {
        TopicBoard { own_max, own: 0, pass: 0, seats: BTreeMap::new(), gone: TopicCounts::default() }
    }

    /// A pass over all topics begins.
    pub fn begin(&mut self) {
        self.pass += 1;
    }

    /// A topic is there and has counted so much: whether it has series of its own; none for one that is new. While it
    /// goes, one core has forgotten it before another: `counts` becomes what it has been, if that was more.
    pub fn seen(&mut self, topic_id: Uuid, counts: &mut TopicCounts) -> Option<bool> {
        let seat = self.seats.get_mut(&topic_id)?;
        *counts = counts.max(seat.counts);
        (seat.seen, seat.counts) = (self.pass, *counts);
        Some(seat.own)
    }

    /// Topics that were not seen in this pass are gone.
    pub fn release(&mut self) {
        let TopicBoard { own, pass, seats, gone, .. } = self;
        seats.retain(|_, seat| {
            if seat.seen == *pass {
                return true;
            }
            match seat.own {
                true => *own -= 1,
                false => gone.add(seat.counts),
            }
            false
        });
    }

    /// A new topic: whether it gets series of its own.
    pub fn admit(&mut self, topic_id: Uuid, counts: TopicCounts) -> bool {
        let own = self.own < self.own_max;
        self.own += usize::from(own);
        self.seats.insert(topic_id, Seat { own, seen: self.pass, counts });
        own
    }

    /// What topics have counted that are gone and had no series of their own.
    pub fn gone(&self) -> TopicCounts {
        self.gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn bytes(appended_bytes: u64) -> TopicCounts {
        TopicCounts { appended_bytes, ..TopicCounts::default() }
    }

    /// One pass over these topics: those with series of their own, and what the others come to.
    fn pass(board: &mut TopicBoard, topics: &[(u128, u64)]) -> (Vec<u128>, u64) {
        board.begin();
        let mut seats: Vec<(u128, TopicCounts, Option<bool>)> = Vec::new();
        for (topic, counted) in topics {
            let mut counts = bytes(*counted);
            let seat = board.seen(id(*topic), &mut counts);
            seats.push((*topic, counts, seat));
        }
        board.release();
        for (topic, counts, seat) in &mut seats {
            seat.get_or_insert_with(|| board.admit(id(*topic), *counts));
        }
        let own = seats.iter().filter(|seat| seat.2 == Some(true)).map(|seat| seat.0).collect();
        let others = seats.iter().filter(|seat| seat.2 == Some(false));
        let rest: u64 = others.map(|seat| seat.1.appended_bytes).sum();
        (own, rest + board.gone().appended_bytes)
    }

    #[test]
    fn what_the_others_count_never_falls_and_a_free_seat_goes_to_who_comes_next() {
        let mut board = TopicBoard::new(2);
        assert_eq!(pass(&mut board, &[(1, 5), (2, 6)]), (vec![1, 2], 0));
        assert_eq!(pass(&mut board, &[(1, 5), (2, 7), (3, 10), (4, 20)]), (vec![1, 2], 30));
        // The third goes with all that it had counted, the first without.
        assert_eq!(pass(&mut board, &[(2, 8), (4, 21)]), (vec![2], 31));
        assert_eq!(pass(&mut board, &[(2, 8), (4, 22), (5, 1), (6, 100)]), (vec![2, 5], 132));
        // One core has forgotten them, another one not yet.
        assert_eq!(pass(&mut board, &[(2, 3), (4, 2), (5, 1), (6, 100)]), (vec![2, 5], 132));
        assert_eq!(pass(&mut board, &[]), (vec![], 132));
        assert_eq!(board.seats.len(), 0, "nothing is kept of topics that are gone");
        assert_eq!(pass(&mut board, &[(7, 1)]), (vec![7], 132));
    }

    #[test]
    fn a_topic_is_forgotten_when_it_is_gone_and_nobody_counts_for_it() {
        let table = TopicTable::default();
        let (first, second) = (table.of(id(1)), table.of(id(2)));
        first.count_append(100, 3);
        table.of(id(1)).count_append(20, 1);
        drop(second);
        table.retain(|_| false);
        let expected = TopicCounts { appended_bytes: 120, appended_records: 4, ..TopicCounts::default() };
        assert_eq!((table.counts(id(1)), table.len()), (expected, 1));
        assert_eq!(table.counts(id(2)), TopicCounts::default());
        drop(first);
        table.retain(|topic| topic == id(1));
        assert_eq!(table.len(), 1);
        table.retain(|_| false);
        assert!(table.is_empty());
        drop(table.of(id(3)));
        table.forget(id(3));
        assert!(table.is_empty());
    }
}
