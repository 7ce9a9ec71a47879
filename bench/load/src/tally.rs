//! What is counted: the measured window, and each second for itself.

use std::ops::Range;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies are told apart to three digits up to this; longer ones count as this.
const LATENCY_US_MAX: u64 = 60_000_000;
const LATENCY_DIGITS: u8 = 3;
const BYTES_PER_MB: f64 = 1e6;

/// All counts of a run. Times are ns on the run's clock.
pub(crate) struct Tally {
    /// The window; empty before it opens, without end while it is open.
    window: Range<u64>,
    pub(crate) produced: Produced,
    pub(crate) consumed: Consumed,
    pub(crate) ack_us: Latency,
    pub(crate) end_to_end_us: Latency,
    /// Records that fetches brought, within the window or not.
    pub(crate) arrived: u64,
    /// Since the last [`Tally::take_second`].
    second: Second,
}

/// What brokers have taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Produced {
    pub(crate) records: u64,
    /// Of values.
    pub(crate) bytes: u64,
    pub(crate) batches: u64,
    pub(crate) requests: u64,
}

/// What brokers have given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Consumed {
    pub(crate) records: u64,
    /// Of values.
    pub(crate) bytes: u64,
    /// Fetches that were answered; of members of groups, polls.
    pub(crate) fetches: u64,
    pub(crate) fetches_with_data: u64,
}

/// One second, measured or not.
pub(crate) struct Second {
    pub(crate) produced_records: u64,
    pub(crate) produced_bytes: u64,
    pub(crate) consumed_records: u64,
    pub(crate) consumed_bytes: u64,
    pub(crate) ack_us: Latency,
    pub(crate) end_to_end_us: Latency,
}

/// A distribution of latencies in microseconds.
pub(crate) struct Latency(Histogram<u64>);

/// What a result says of a distribution.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LatencySummary {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) p99_99: u64,
    pub(crate) max: u64,
    /// Percentile and latency, ever closer to 100.
    pub(crate) curve: Vec<(f64, u64)>,
}

/// How the records of a request count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    /// On a schedule: a record counts when it was due within the window.
    Open,
    /// As fast as answers come: a record counts when its answer came within the window.
    Closed,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            window: u64::MAX..u64::MAX,
            produced: Produced::default(),
            consumed: Consumed::default(),
            ack_us: Latency::new(),
            end_to_end_us: Latency::new(),
            arrived: 0,
            second: Second::new(),
        }
    }

    /// From now on it counts.
    pub(crate) fn open(&mut self, now_ns: u64) {
        self.window = now_ns..u64::MAX;
    }

    /// From now on nothing counts any more but what was due before.
    pub(crate) fn close(&mut self, now_ns: u64) {
        self.window.end = now_ns;
    }

    /// A request with one batch was answered, or, with `answered` false, handed over for good. Bytes are of its values.
    pub(crate) fn add_produced(
        &mut self,
        how: Loop,
        now_ns: u64,
        bytes: u64,
        due_ns: &[u64],
        answered: bool,
    ) {
        let records = due_ns.len() as u64;
        self.second.produced_records += records;
        self.second.produced_bytes += bytes;
        let counted = match how {
            Loop::Closed if self.window.contains(&now_ns) => records,
            Loop::Closed => 0,
            Loop::Open => due_ns.iter().filter(|due| self.window.contains(due)).count() as u64,
        };
        if counted > 0 {
            self.produced.records += counted;
            self.produced.bytes += bytes / records * counted;
            self.produced.batches += 1;
            self.produced.requests += 1;
        }
        if !answered {
            return;
        }
        for run in due_ns.chunk_by(|one, two| one == two) {
            let (due, records) = (run[0], run.len() as u64);
            let latency_us = now_ns.saturating_sub(due) / 1_000;
            self.second.ack_us.add(latency_us, records);
            let counts = match how {
                Loop::Open => self.window.contains(&due),
                Loop::Closed => counted > 0,
            };
            if counts {
                self.ack_us.add(latency_us, records);
            }
        }
    }

    /// `records` records of this run that were due at the same time have arrived.
    pub(crate) fn add_arrival(&mut self, now_ns: u64, due_ns: u64, records: u64) {
        let latency_us = now_ns.saturating_sub(due_ns) / 1_000;
        self.second.end_to_end_us.add(latency_us, records);
        if self.window.contains(&due_ns) {
            self.end_to_end_us.add(latency_us, records);
        }
    }

    /// A fetch was answered with so many records, of anybody, and bytes of values.
    pub(crate) fn add_fetch(&mut self, now_ns: u64, records: u64, bytes: u64) {
        self.arrived += records;
        self.second.consumed_records += records;
        self.second.consumed_bytes += bytes;
        if self.window.contains(&now_ns) {
            self.consumed.records += records;
            self.consumed.bytes += bytes;
            self.consumed.fetches += 1;
            self.consumed.fetches_with_data += u64::from(records > 0);
        }
    }

    /// What was counted since the last call.
    pub(crate) fn take_second(&mut self) -> Second {
        std::mem::replace(&mut self.second, Second::new())
    }
}

impl Second {
    fn new() -> Second {
        Second {
            produced_records: 0,
            produced_bytes: 0,
            consumed_records: 0,
            consumed_bytes: 0,
            ack_us: Latency::new(),
            end_to_end_us: Latency::new(),
        }
    }
}

impl Latency {
    fn new() -> Latency {
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS);
        Latency(histogram.expect("the bounds are constants that fit"))
    }

    fn add(&mut self, latency_us: u64, records: u64) {
        self.0.saturating_record_n(latency_us, records);
    }

    /// The latency that this share of records does not exceed, in per cent.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        self.0.value_at_quantile(percent / 100.0)
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }

    pub(crate) fn summary(&self) -> LatencySummary {
        let at = |percent| self.percentile(percent);
        LatencySummary {
            count: self.count(),
            mean: if self.count() == 0 { 0.0 } else { self.0.mean() },
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            max: self.max(),
            curve: curve_percentiles(self.count()).map(|percent| (percent, at(percent))).collect(),
        }
    }
}

/// Percentiles ever closer to 100, eight to each power of ten that is left above, from 0 up to 99.999, but no closer
/// than one record of `count` can tell.
fn curve_percentiles(count: u64) -> impl Iterator<Item = f64> {
    let steps_per_decade = 8_i32;
    (0..=5 * steps_per_decade)
        .map(move |step| 10_f64.powf(f64::from(-step) / f64::from(steps_per_decade)))
        .take_while(move |above| above * count as f64 >= 1.0)
        .map(|above| (100.0 * (1.0 - above) * 1e5).round() / 1e5)
}

/// Of bytes: how many MB of 10^6.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / BYTES_PER_MB
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn on_a_schedule_a_record_counts_by_when_it_was_due() {
        let mut tally = Tally::new();
        tally.add_produced(Loop::Open, 5 * MS, 200, &[MS, 2 * MS], true);
        assert_eq!((tally.produced.records, tally.ack_us.count()), (0, 0), "the window is not open");
        tally.open(10 * MS);
        tally.close(20 * MS);
        tally.add_produced(Loop::Open, 90 * MS, 300, &[9 * MS, 10 * MS, 19 * MS], true);
        tally.add_produced(Loop::Open, 90 * MS, 100, &[20 * MS], true);
        assert_eq!((tally.produced.records, tally.produced.bytes, tally.produced.requests), (2, 200, 1));
        assert_eq!(tally.ack_us.count(), 2);
        let max = tally.ack_us.max();
        assert!((80_000..80_100).contains(&max), "from when it was due, long after the window: {max}");
    }

    #[test]
    fn in_a_closed_loop_a_record_counts_by_when_it_was_answered() {
        let mut tally = Tally::new();
        tally.open(10 * MS);
        tally.add_produced(Loop::Closed, 12 * MS, 200, &[5 * MS, 5 * MS], true);
        tally.close(20 * MS);
        tally.add_produced(Loop::Closed, 21 * MS, 200, &[15 * MS, 15 * MS], true);
        assert_eq!((tally.produced.records, tally.produced.batches, tally.ack_us.count()), (2, 1, 2));
        assert!((7_000..7_010).contains(&tally.ack_us.max()));
    }

    #[test]
    fn what_is_not_answered_has_no_latency() {
        let mut tally = Tally::new();
        tally.open(0);
        tally.add_produced(Loop::Closed, MS, 100, &[0], false);
        assert_eq!((tally.produced.records, tally.ack_us.count()), (1, 0));
    }

    #[test]
    fn arrivals_count_by_when_they_were_due_and_fetches_by_when_they_came() {
        let mut tally = Tally::new();
        tally.open(10 * MS);
        tally.close(20 * MS);
        tally.add_arrival(15 * MS, 9 * MS, 1);
        tally.add_arrival(25 * MS, 19 * MS, 3);
        tally.add_fetch(25 * MS, 3, 300);
        tally.add_fetch(15 * MS, 1, 100);
        tally.add_fetch(16 * MS, 0, 0);
        assert_eq!(tally.end_to_end_us.count(), 3);
        let consumed = tally.consumed;
        let counts = (consumed.records, consumed.bytes, consumed.fetches, consumed.fetches_with_data);
        assert_eq!(counts, (1, 100, 2, 1));
        assert_eq!(tally.take_second().consumed_records, 4);
        assert_eq!(tally.take_second().consumed_records, 0);
    }

    #[test]
    fn a_curve_goes_as_far_as_its_count_can_tell() {
        let last = |count| curve_percentiles(count).last();
        assert_eq!(last(0), None);
        assert_eq!(last(1), Some(0.0));
        assert_eq!(last(100), Some(99.0));
        assert_eq!(last(u64::MAX), Some(99.999));
        assert_eq!(curve_percentiles(u64::MAX).count(), 41);
    }

    #[test]
    fn a_latency_beyond_the_longest_counts_as_the_longest() {
        let mut latency = Latency::new();
        latency.add(10 * LATENCY_US_MAX, 1);
        assert!(latency.max() >= LATENCY_US_MAX);
    }
}
