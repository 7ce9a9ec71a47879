//! What one core counts of requests: by API, in arrays of fixed size.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use heizer_runtime::time::{Instant, now};
use heizer_wire::{ApiKey, ErrorCode};

use super::core::CoreMetrics;

/// Upper bounds of the latency buckets, in microseconds. What took longer falls into one more.
pub(super) const BUCKETS_US: [u64; 17] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000, 30_000_000,
];
const BUCKETS: usize = BUCKETS_US.len() + 1;
const APIS: usize = ApiKey::ALL.len();
const ERRORS: usize = ErrorCode::ALL.len();
/// API keys lie below this; Kafka's largest is in the nineties.
const API_KEYS_MAX: usize = 128;

/// The place of each API in the arrays, by its key.
const PLACES: [u8; API_KEYS_MAX] = {
    assert!(APIS < u8::MAX as usize);
    let mut places = [u8::MAX; API_KEYS_MAX];
    let mut at = 0;
    while at < APIS {
        places[ApiKey::ALL[at] as usize] = at as u8;
        at += 1;
    }
    places
};

fn place(api: ApiKey) -> usize {
    usize::from(PLACES[api as usize])
}

/// Error codes lie side by side, from -1 on; those that are not Kafka's count as UNKNOWN_SERVER_ERROR.
fn error_place(code: i16) -> usize {
    let code = ErrorCode::from_code(code).code();
    usize::try_from(code + 1).expect("no error code is below -1")
}

/// Requests of one core, since its start.
#[derive(Debug)]
pub struct RequestMetrics {
    by_api: [ApiMetrics; APIS],
}

#[derive(Debug)]
struct ApiMetrics {
    taken: Cell<u64>,
    in_flight: Cell<u64>,
    failures: Cell<u64>,
    took_us: Cell<u64>,
    buckets: [Cell<u64>; BUCKETS],
    errors: [Cell<u64>; ERRORS],
}

impl ApiMetrics {
    fn new() -> ApiMetrics {
        ApiMetrics {
            taken: Cell::default(),
            in_flight: Cell::default(),
            failures: Cell::default(),
            took_us: Cell::default(),
            buckets: [const { Cell::new(0) }; BUCKETS],
            errors: [const { Cell::new(0) }; ERRORS],
        }
    }

    fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        CoreMetrics::add(&self.buckets[bucket], 1);
        CoreMetrics::add(&self.took_us, us);
    }
}

impl RequestMetrics {
    /// All at zero.
    pub(super) fn new() -> RequestMetrics {
        RequestMetrics { by_api: std::array::from_fn(|_| ApiMetrics::new()) }
    }

    fn of(&self, api: ApiKey) -> &ApiMetrics {
        &self.by_api[place(api)]
    }

    /// Goes over the errors of one answer.
    pub fn tally(&self, api: ApiKey) -> Tally<'_> {
        Tally { metrics: self.of(api), any: false }
    }

    pub(super) fn read(&self) -> RequestFigures {
        let cells = |cells: &[Cell<u64>]| cells.iter().map(Cell::get).collect();
        let read = |metrics: &ApiMetrics| ApiFigures {
            taken: metrics.taken.get(),
            in_flight: metrics.in_flight.get(),
            failures: metrics.failures.get(),
            took_us: metrics.took_us.get(),
            buckets: cells(&metrics.buckets),
            errors: cells(&metrics.errors),
        };
        RequestFigures { by_api: self.by_api.iter().map(read).collect() }
    }
}

/// The errors of one answer, which counts as failed where it has any.
#[derive(Debug)]
pub struct Tally<'a> {
    metrics: &'a ApiMetrics,
    any: bool,
}

impl Tally<'_> {
    /// One more error.
    pub fn error(&mut self, code: i16) {
        self.any = true;
        CoreMetrics::add(&self.metrics.errors[error_place(code)], 1);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        if self.any {
            CoreMetrics::add(&self.metrics.failures, 1);
        }
    }
}

/// A request that was taken up, from then until it is answered or given up.
#[derive(Debug)]
pub struct UnderWay {
    metrics: Rc<CoreMetrics>,
    api: ApiKey,
    began: Instant,
}

impl UnderWay {
    /// Counts a request of `api` that began at `began`.
    pub fn new(metrics: &Rc<CoreMetrics>, api: ApiKey, began: Instant) -> UnderWay {
        let of_api = metrics.requests.of(api);
        CoreMetrics::add(&of_api.taken, 1);
        CoreMetrics::add(&of_api.in_flight, 1);
        UnderWay { metrics: metrics.clone(), api, began }
    }

    /// Which API it is of.
    pub fn api(&self) -> ApiKey {
        self.api
    }

    /// Goes over the errors of its answer.
    pub fn tally(&self) -> Tally<'_> {
        self.metrics.requests.tally(self.api)
    }

    /// The request has its answer: how long it took is told.
    pub fn answered(self) {
        self.metrics.requests.of(self.api).record(now() - self.began);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let in_flight = &self.metrics.requests.of(self.api).in_flight;
        in_flight.set(in_flight.get() - 1);
    }
}

/// What a core, or all of them together, had counted of requests at some moment.
#[derive(Clone, Debug)]
pub struct RequestFigures {
    /// In the order of [`ApiKey::ALL`].
    by_api: Vec<ApiFigures>,
}

/// The part of one API.
#[derive(Clone, Debug)]
pub(super) struct ApiFigures {
    pub(super) taken: u64,
    pub(super) in_flight: u64,
    pub(super) failures: u64,
    pub(super) took_us: u64,
    /// How many fell into each of [`BUCKETS_US`] and the one above.
    pub(super) buckets: Vec<u64>,
    errors: Vec<u64>,
}

impl RequestFigures {
    /// Adds another core's.
    pub(super) fn merge(&mut self, other: &RequestFigures) {
        for (sum, more) in self.by_api.iter_mut().zip(&other.by_api) {
            sum.taken += more.taken;
            sum.in_flight += more.in_flight;
            sum.failures += more.failures;
            sum.took_us = sum.took_us.wrapping_add(more.took_us);
            add_each(&mut sum.buckets, &more.buckets);
            add_each(&mut sum.errors, &more.errors);
        }
    }

    /// The APIs that were asked for at all.
    pub(super) fn apis(&self) -> impl Iterator<Item = (&'static str, &ApiFigures)> {
        let all = ApiKey::ALL.iter().zip(&self.by_api);
        all.filter(|(_, figures)| figures.taken > 0).map(|(api, figures)| (api.name(), figures))
    }
}

impl ApiFigures {
    /// The errors there were, by Kafka's name.
    pub(super) fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = ErrorCode::ALL.iter().zip(&self.errors);
        all.filter(|(_, count)| **count > 0).map(|(code, count)| (code.name(), *count))
    }
}

pub(super) fn add_each(sums: &mut [u64], amounts: &[u64]) {
    for (sum, amount) in sums.iter_mut().zip(amounts) {
        *sum = sum.wrapping_add(*amount);
    }
}

#[cfg(test)]
mod tests {
    use heizer_runtime::sim;

    use super::*;

    #[test]
    fn every_api_and_every_error_code_has_a_place_of_its_own() {
        let places: Vec<usize> = ApiKey::ALL.iter().map(|api| place(*api)).collect();
        assert_eq!(places, (0..APIS).collect::<Vec<_>>());
        let places: Vec<usize> = ErrorCode::ALL.iter().map(|code| error_place(code.code())).collect();
        assert_eq!(places, (0..ERRORS).collect::<Vec<_>>());
        assert_eq!(error_place(i16::MAX), error_place(-1), "an unknown one is UNKNOWN_SERVER_ERROR");
    }

    #[test]
    fn requests_are_in_flight_until_they_are_answered_or_given_up() {
        sim::block_on(1, async {
            let metrics = Rc::new(CoreMetrics::new());
            let begin = |api| UnderWay::new(&metrics, api, now());
            let (answered, given_up, waits) =
                (begin(ApiKey::Produce), begin(ApiKey::Produce), begin(ApiKey::Fetch));
            answered.answered();
            drop(given_up);
            let figures = metrics.requests.read();
            let row = |figures: &ApiFigures| {
                (figures.taken, figures.in_flight, figures.buckets.iter().sum::<u64>())
            };
            let rows: Vec<(&str, (u64, u64, u64))> =
                figures.apis().map(|(api, figures)| (api, row(figures))).collect();
            assert_eq!(rows, [("Fetch", (1, 1, 0)), ("Produce", (2, 0, 1))]);
            drop(waits);
        });
    }

    #[test]
    fn latencies_fall_into_the_bucket_whose_bound_they_do_not_pass() {
        let metrics = ApiMetrics::new();
        for us in [0, 100, 101, 1_500, 30_000_000, 30_000_001] {
            metrics.record(Duration::from_micros(us));
        }
        let filled: Vec<usize> = (0..BUCKETS).filter(|at| metrics.buckets[*at].get() > 0).collect();
        assert_eq!(filled, [0, 1, 4, 16, 17]);
        assert_eq!((metrics.buckets[0].get(), metrics.took_us.get()), (2, 60_001_702));
    }

    #[test]
    fn an_answer_fails_once_however_many_errors_it_has() {
        let metrics = RequestMetrics::new();
        let mut tally = metrics.tally(ApiKey::Fetch);
        [3, 3, 56].into_iter().for_each(|code| tally.error(code));
        drop(tally);
        drop(metrics.tally(ApiKey::Fetch));
        let mut figures = metrics.read();
        figures.merge(&metrics.read());
        let fetch = &figures.by_api[place(ApiKey::Fetch)];
        assert_eq!(fetch.failures, 2);
        let errors: Vec<_> = fetch.errors().collect();
        assert_eq!(errors, [("UNKNOWN_TOPIC_OR_PARTITION", 4), ("KAFKA_STORAGE_ERROR", 2)]);
    }
}
