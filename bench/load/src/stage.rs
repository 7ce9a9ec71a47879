//! What all clients of a run share. It belongs to the run's core.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use heizer_runtime::sync::Event;
use heizer_runtime::task::{JoinHandle, spawn};

use crate::failure::Failure;
use crate::tally::Tally;
use crate::verify::{Rules, Verdict};

/// See the module.
pub(crate) struct Stage {
    pub(crate) rules: Rules,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) verdict: RefCell<Verdict>,
    /// Of each place: records of this run that a broker has taken.
    acked: Vec<Cell<u64>>,
    /// Producers send what was due and end.
    producers_stop: Cell<bool>,
    /// Consumers end.
    consumers_stop: Cell<bool>,
    /// Announced when consumers are to end.
    stopping: Event,
    failure: RefCell<Option<Failure>>,
    /// Announced when a client has ended, by itself or in failure.
    news: Event,
}

impl Stage {
    /// For so many places.
    pub(crate) fn new(rules: Rules, places: usize) -> Rc<Stage> {
        Rc::new(Stage {
            rules,
            tally: RefCell::new(Tally::new()),
            verdict: RefCell::default(),
            acked: (0..places).map(|_| Cell::new(0)).collect(),
            producers_stop: Cell::new(false),
            consumers_stop: Cell::new(false),
            stopping: Event::new(),
            failure: RefCell::new(None),
            news: Event::new(),
        })
    }

    /// Runs a client beside the others. Its failure, the first of all, is the run's.
    pub(crate) fn launch<T: 'static>(
        self: &Rc<Stage>,
        client: impl Future<Output = Result<T, Failure>> + 'static,
    ) -> JoinHandle<Option<T>> {
        let stage = Rc::clone(self);
        spawn(async move {
            let outcome = client.await;
            let done = match outcome {
                Ok(done) => Some(done),
                Err(failure) => {
                    stage.failure.borrow_mut().get_or_insert(failure);
                    None
                }
            };
            stage.news.notify_all();
            done
        })
    }

    /// The first failure of a client.
    pub(crate) fn failed(&self) -> Result<(), Failure> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    pub(crate) fn news(&self) -> &Event {
        &self.news
    }

    pub(crate) fn stop_producers(&self) {
        self.producers_stop.set(true);
    }

    pub(crate) fn producers_stop(&self) -> bool {
        self.producers_stop.get()
    }

    pub(crate) fn stop_consumers(&self) {
        self.consumers_stop.set(true);
        self.stopping.notify_all();
    }

    pub(crate) fn consumers_stop(&self) -> bool {
        self.consumers_stop.get()
    }

    pub(crate) fn stopping(&self) -> &Event {
        &self.stopping
    }

    /// A broker has taken `records` records for `place`.
    pub(crate) fn add_acked(&self, place: usize, records: u64) {
        self.acked[place].set(self.acked[place].get() + records);
    }

    pub(crate) fn acked(&self, place: usize) -> u64 {
        self.acked[place].get()
    }
}
