//! Keeping to a number of bytes per second that may change meanwhile.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use heizer_runtime::time::{self, Instant};

/// Longest time that one spending is spread over, whatever the rate: below the smallest that anybody would set.
const SPREAD_MAX: Duration = Duration::from_secs(86_400);

/// Bytes per second, positive and perhaps infinite. Clones are the same rate, on one core: whoever keeps to it keeps to
/// a new one at once.
#[derive(Clone, Debug)]
pub struct Rate(Rc<Cell<f64>>);

impl Rate {
    /// So many bytes per second.
    pub fn new(bytes_per_second: f64) -> Rate {
        let rate = Rate(Rc::new(Cell::new(1.0)));
        rate.set(bytes_per_second);
        rate
    }

    /// Another number from now on.
    pub fn set(&self, bytes_per_second: f64) {
        assert!(bytes_per_second > 0.0, "at a rate of nothing nothing ever ends");
        self.0.set(bytes_per_second);
    }

    pub(crate) fn get(&self) -> f64 {
        self.0.get()
    }
}

impl From<f64> for Rate {
    fn from(bytes_per_second: f64) -> Rate {
        Rate::new(bytes_per_second)
    }
}

/// What was spent at a rate.
#[derive(Debug)]
pub(crate) struct Spending {
    rate: Rate,
    /// The rate that `paid_at` was reckoned by.
    reckoned: f64,
    /// What was spent so far is paid for by this time.
    paid_at: Instant,
}

impl Spending {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { reckoned: rate.get(), rate, paid_at: time::now() }
    }

    pub(crate) fn rate(&self) -> &Rate {
        &self.rate
    }

    /// What was not used until now cannot be made up for.
    pub(crate) fn start(&mut self) {
        self.paid_at = self.paid_at.max(time::now());
    }

    pub(crate) fn spend(&mut self, bytes: u64) {
        self.reckon();
        self.owe(bytes as f64);
    }

    /// How long it takes until all is paid for, at the rate as it is now.
    pub(crate) fn ahead(&mut self) -> Duration {
        self.reckon();
        self.paid_at.saturating_duration_since(time::now())
    }

    /// Where the rate has changed: the bytes that are owed stay the same.
    fn reckon(&mut self) {
        let (rate, now) = (self.rate.get(), time::now());
        if rate == self.reckoned {
            return;
        }
        let ahead = self.paid_at.saturating_duration_since(now);
        let before = std::mem::replace(&mut self.reckoned, rate);
        if !ahead.is_zero() {
            self.paid_at = now;
            self.owe(ahead.as_secs_f64() * before);
        }
    }

    fn owe(&mut self, bytes: f64) {
        let took = Duration::try_from_secs_f64(bytes / self.reckoned).unwrap_or(SPREAD_MAX);
        self.paid_at += took.min(SPREAD_MAX);
    }
}

#[cfg(test)]
mod tests {
    use heizer_runtime::sim::block_on;

    use super::*;

    #[test]
    fn a_rate_that_changes_counts_at_once_for_what_was_spent_before() {
        block_on(1, async {
            let mut spending = Spending::new(Rate::new(10.0));
            spending.spend(100);
            assert_eq!(spending.ahead(), Duration::from_secs(10));
            time::sleep(Duration::from_secs(4)).await;
            let left = spending.ahead();
            assert!(left > Duration::from_millis(5_900) && left <= Duration::from_secs(6), "{left:?}");
            spending.rate().set(1_000.0);
            let left = spending.ahead();
            assert!(left > Duration::from_millis(59) && left <= Duration::from_millis(60), "{left:?}");
            spending.rate().set(f64::INFINITY);
            assert_eq!(spending.ahead(), Duration::ZERO);
            spending.rate().set(1.0);
            assert_eq!(spending.ahead(), Duration::ZERO, "nothing is owed");
        });
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        block_on(1, async {
            let mut spending = Spending::new(Rate::new(10.0));
            time::sleep(Duration::from_secs(60)).await;
            spending.start();
            spending.spend(50);
            assert_eq!(spending.ahead(), Duration::from_secs(5));
            spending.rate().set(f64::MIN_POSITIVE);
            assert_eq!(spending.ahead(), SPREAD_MAX, "no rate is too small to be reckoned with");
        });
    }
}
