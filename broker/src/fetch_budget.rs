//! The memory that answers to fetches hold on one core, from their reads until they have left: clients that ask and
//! do not read must not make it grow without bound (DESIGN §8).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use heizer_runtime::collections::HashMap;
use heizer_runtime::sync::Event;

/// What a connection gets that holds nothing yet, also when the budget is spent: consumers that take minutes between two
/// polls leave answers unread for as long, and must not keep the others from reading on.
const FLOOR_BYTES: usize = 64 << 10;

/// What a part of a file takes of the budget, whatever its length: it is no memory but the words that describe it.
pub const REGION_BYTES: usize = 1 << 10;

/// A number of bytes that the fetches of one core's connections share. One connection gets no more than a quarter.
#[derive(Debug)]
pub struct FetchBudget {
    total: usize,
    used: Cell<usize>,
    by_connection: RefCell<HashMap<u64, usize>>,
    freed: Event,
    waiting: Cell<usize>,
    waits: Cell<u64>,
}

impl FetchBudget {
    /// A budget of `total` bytes.
    pub fn new(total: usize) -> Rc<FetchBudget> {
        Rc::new(FetchBudget {
            total,
            used: Cell::new(0),
            by_connection: RefCell::default(),
            freed: Event::default(),
            waiting: Cell::new(0),
            waits: Cell::new(0),
        })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// Bytes that there are in all. First batches that are larger than what was claimed go beyond.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Fetches that wait for memory now.
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Fetches that had to wait, so far.
    pub fn waits(&self) -> u64 {
        self.waits.get()
    }

    /// Up to `wanted` bytes for `connection`, at least one; waits while there are none.
    pub async fn claim(self: &Rc<Self>, connection: u64, wanted: usize) -> FetchClaim {
        let mut waiting = None;
        loop {
            let freed = self.freed.listen();
            if let Some(claim) = self.try_claim(connection, wanted) {
                return claim;
            }
            waiting.get_or_insert_with(|| Waiting::new(self));
            freed.await;
        }
    }

    /// As [`FetchBudget::claim`], without waiting.
    pub fn try_claim(self: &Rc<Self>, connection: u64, wanted: usize) -> Option<FetchClaim> {
        let bytes = self.room(connection).min(wanted.max(1));
        (bytes > 0).then(|| {
            let mut claim = FetchClaim { budget: self.clone(), connection, bytes: 0 };
            claim.settle(bytes);
            claim
        })
    }

    fn room(&self, connection: u64) -> usize {
        let own = self.by_connection.borrow().get(&connection).copied().unwrap_or(0);
        let room = self.total.saturating_sub(self.used()).min((self.total / 4).saturating_sub(own));
        if own == 0 { room.max(FLOOR_BYTES) } else { room }
    }

    fn change(&self, connection: u64, from: usize, to: usize) {
        let mut by_connection = self.by_connection.borrow_mut();
        let own = by_connection.entry(connection).or_default();
        *own = *own + to - from;
        if *own == 0 {
            by_connection.remove(&connection);
        }
        self.used.set(self.used() + to - from);
        if to < from {
            self.freed.notify_all();
        }
    }
}

/// One of those who wait, as long as it is held.
struct Waiting(Rc<FetchBudget>);

impl Waiting {
    fn new(budget: &Rc<FetchBudget>) -> Waiting {
        budget.waiting.set(budget.waiting() + 1);
        budget.waits.set(budget.waits() + 1);
        Waiting(budget.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting() - 1);
    }
}

/// Bytes of a [`FetchBudget`]; dropping it gives them back.
#[derive(Debug)]
pub struct FetchClaim {
    budget: Rc<FetchBudget>,
    connection: u64,
    bytes: usize,
}

impl FetchClaim {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What was read in the end. A first batch that is larger than what was claimed is held all the same.
    pub fn settle(&mut self, bytes: usize) {
        self.budget.change(self.connection, self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for FetchClaim {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_connection_gets_a_quarter_and_waits_for_its_own_answers_to_leave() {
        let budget = FetchBudget::new(4 * MIB);
        let mut first = budget.claim(1, 3 * MIB).now_or_never().expect("there is room");
        assert_eq!(first.bytes(), MIB);
        let mut waiting = Box::pin(budget.claim(1, MIB));
        assert!((&mut waiting).now_or_never().is_none(), "its quarter is spent");
        assert_eq!((budget.waiting(), budget.waits()), (1, 1));
        assert_eq!(budget.claim(2, 30).now_or_never().expect("another's quarter").bytes(), 30);
        first.settle(MIB - 20);
        let second = waiting.now_or_never().expect("what the first did not need");
        assert_eq!((second.bytes(), budget.used()), (20, MIB));
        assert_eq!((budget.waiting(), budget.waits()), (0, 1));
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }

    // contract F1
    #[test]
    fn whoever_holds_nothing_gets_something_of_a_spent_budget() {
        let budget = FetchBudget::new(4 * MIB);
        let mut large = budget.claim(1, 0).now_or_never().expect("there is room");
        large.settle(9 * MIB);
        let floor = budget.claim(2, MIB).now_or_never().expect("the floor");
        assert_eq!(floor.bytes(), FLOOR_BYTES);
        assert!(budget.try_claim(2, MIB).is_none(), "but once");
        drop(large);
        assert_eq!(budget.try_claim(2, MIB).expect("there is room again").bytes(), MIB - FLOOR_BYTES);
    }
}
