//! Asking every core what it has to tell, and noticing those that do not answer.
//!
//! Each core is asked twice at the same time: what it can tell at once, and what it has to look up. To a core that does
//! not answer no second question goes before it has answered the first, so that questions do not pile up there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{LocalBoxFuture, join_all};
use futures::lock::Mutex;
use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::sync::Event;
use heizer_runtime::task::{self, Pacer};
use heizer_runtime::time::{self, Instant};

use super::exposition::render;
use super::figures::{Bounds, CoreFigures, Holdings};
use super::merge::{BrokerRow, CoreRow, Scrape};
use super::topics::TopicBoard;

/// A core that does not answer within this time is stalled.
const STALLED_AFTER: Duration = Duration::from_millis(300);
/// What a core looks up is waited for so long; then what it found the last time is shown.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(2);
/// Percent of the core that putting the text together may take.
const SHARE: u32 = 50;

/// What a core is asked, on that core.
#[derive(Clone, Copy, Debug)]
pub struct Questions {
    /// What it can tell at once.
    pub figures: fn() -> CoreFigures,
    /// What it has to look up, giving way to others.
    pub holdings: fn(Bounds) -> LocalBoxFuture<'static, Holdings>,
}

/// Asks the cores of a broker. Lives on the core of the admin listener, as long as that.
#[derive(Debug)]
pub struct Scraper {
    questions: Questions,
    bounds: Bounds,
    started: Instant,
    cores: Vec<Asked>,
    board: Mutex<TopicBoard>,
}

/// One core, and what it has told last.
#[derive(Debug)]
struct Asked {
    core: CoreId,
    figures: Rc<Told<CoreFigures>>,
    holdings: Rc<Told<Holdings>>,
}

impl Scraper {
    /// For all cores of this broker.
    pub fn new(questions: Questions, bounds: Bounds) -> Scraper {
        let asked = |core| Asked { core, figures: Rc::default(), holdings: Rc::default() };
        Scraper {
            questions,
            bounds,
            started: time::now(),
            cores: cores::all().map(asked).collect(),
            board: Mutex::new(TopicBoard::new(bounds.topics)),
        }
    }

    /// The text of all metrics.
    pub async fn scrape(&self, broker: BrokerRow) -> String {
        let begun = time::now();
        self.cores.iter().for_each(|asked| self.ask(asked));
        let heard = join_all(self.cores.iter().map(|asked| asked.figures.heard(begun, STALLED_AFTER))).await;
        let looked_up = self.cores.iter().zip(&heard).map(|(asked, heard)| {
            let patience = if *heard { LOOKED_UP_WITHIN } else { Duration::ZERO };
            asked.holdings.heard(begun, patience)
        });
        join_all(looked_up).await;
        let rows = self.cores.iter().zip(heard).map(|(asked, heard)| self.row(asked, heard)).collect();
        let holdings: Vec<_> = self.cores.iter().filter_map(|asked| asked.holdings.last()).collect();
        let mut pacer = Pacer::new(SHARE);
        let mut board = self.board.lock().await;
        let scrape = Scrape::put_together(broker, rows, &holdings, self.bounds, &mut board, &mut pacer).await;
        drop(board);
        render(scrape, &mut pacer).await
    }

    fn ask(&self, asked: &Asked) {
        let Questions { figures, holdings } = self.questions;
        let bounds = self.bounds;
        if asked.core == cores::current() {
            asked.figures.tell(figures());
        } else {
            asked.figures.ask(asked.core, move || async move { figures() });
        }
        asked.holdings.ask(asked.core, move || holdings(bounds));
    }

    fn row(&self, asked: &Asked, heard: bool) -> CoreRow {
        let silent = match heard {
            true => Duration::ZERO,
            false => time::now() - asked.figures.at.get().unwrap_or(self.started),
        };
        let mailbox = cores::waiting_messages(asked.core);
        CoreRow { figures: asked.figures.last(), silent, stalled: !heard, mailbox }
    }
}

/// A core's last answer to one question.
#[derive(Debug)]
struct Told<T> {
    answer: RefCell<Option<Arc<T>>>,
    at: Cell<Option<Instant>>,
    /// The question is on its way, or its answer.
    asking: Cell<bool>,
    news: Event,
}

impl<T> Default for Told<T> {
    fn default() -> Told<T> {
        Told {
            answer: RefCell::default(),
            at: Cell::default(),
            asking: Cell::default(),
            news: Event::default(),
        }
    }
}

impl<T: Send + 'static> Told<T> {
    /// Asks `core`, unless that is done already.
    fn ask<F, Fut>(self: &Rc<Self>, core: CoreId, question: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        if self.asking.replace(true) {
            return;
        }
        let told = self.clone();
        drop(task::spawn(async move {
            // A core that has panicked over the question has logged that, and counts as one that does not answer.
            let answer = cores::call(core, question).await;
            told.asking.set(false);
            if let Ok(answer) = answer {
                told.tell(answer);
            }
        }));
    }

    fn tell(&self, answer: T) {
        *self.answer.borrow_mut() = Some(Arc::new(answer));
        self.at.set(Some(time::now()));
        self.news.notify_all();
    }

    fn last(&self) -> Option<Arc<T>> {
        self.answer.borrow().clone()
    }

    /// Waits for an answer that came after `begun`, and says whether there was one in time.
    async fn heard(&self, begun: Instant, patience: Duration) -> bool {
        let heard = async {
            loop {
                let news = self.news.listen();
                if self.at.get().is_some_and(|at| at >= begun) {
                    return;
                }
                news.await;
            }
        };
        time::timeout(patience, heard).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use heizer_runtime::load;
    use heizer_runtime::sim::Sim;
    use heizer_server::ServerMetrics;

    use super::super::core::CoreMetrics;
    use super::super::figures::{LogDirFigures, PoolFigures};
    use super::super::process::ProcessFigures;
    use super::*;

    /// What a core of these tests is like.
    #[derive(Default)]
    struct Room {
        /// It does not answer.
        broken: Cell<bool>,
        /// It never finds what it has to look up.
        lost: Cell<bool>,
        asked: Cell<u32>,
    }

    fn figures() -> CoreFigures {
        let room = cores::room::<Room>();
        assert!(!room.broken.get(), "a test lets it panic");
        let metrics = CoreMetrics::new();
        CoreMetrics::add(&metrics.records_in, 10);
        CoreFigures {
            counted: metrics.snapshot(&ServerMetrics::default()),
            load: load::load(),
            file_operations: 0,
            pools: [PoolFigures::default(); 5],
            raft: None,
        }
    }

    fn holdings(_: Bounds) -> LocalBoxFuture<'static, Holdings> {
        Box::pin(async {
            let room = cores::room::<Room>();
            room.asked.set(room.asked.get() + 1);
            if room.lost.get() {
                std::future::pending::<()>().await;
            }
            let dir = LogDirFigures { dir: format!("/{}", cores::current()), ..LogDirFigures::default() };
            Holdings { dirs: vec![dir], ..Holdings::default() }
        })
    }

    async fn scrape(scraper: &Scraper) -> (String, Duration) {
        let begun = time::now();
        let process = ProcessFigures::default();
        let text = scraper.scrape(BrokerRow { ready: true, uptime: Duration::ZERO, process }).await;
        (text, time::now() - begun)
    }

    async fn change(core: CoreId, change: fn(&Room)) {
        cores::call(core, move || async move { change(&cores::room::<Room>()) }).await.expect("it answers");
    }

    fn on_two_cores<F: Future<Output = ()> + 'static>(test: impl FnOnce(Scraper) -> F + 'static) {
        let mut sim = Sim::new(3);
        let node = sim.node(2);
        sim.run(node, async move {
            cores::call_all(|| async { cores::set_room(Rc::new(Room::default())) })
                .await
                .expect("they answer");
            let bounds = Bounds { topics: 1, partitions: 1, groups: 1, lags: 1 };
            test(Scraper::new(Questions { figures, holdings }, bounds)).await;
        });
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|other| other == line), "{line} is missing in:\n{text}");
    }

    #[test]
    fn every_core_is_asked_and_added_up() {
        on_two_cores(|scraper| async move {
            let (text, took) = scrape(&scraper).await;
            has(&text, "heizer_produced_records_total 20");
            has(&text, "heizer_core_stalled{core=\"0\"} 0");
            has(&text, "heizer_core_stalled{core=\"1\"} 0");
            has(&text, "heizer_core_silent_seconds{core=\"1\"} 0.0");
            has(&text, "heizer_log_dir_offline{dir=\"/0\"} 0");
            has(&text, "heizer_log_dir_offline{dir=\"/1\"} 0");
            assert!(took < Duration::from_millis(100), "{took:?}");
        });
    }

    #[test]
    fn a_core_that_does_not_answer_is_stalled_within_a_second_and_its_counters_stay() {
        on_two_cores(|scraper| async move {
            scrape(&scraper).await;
            change(CoreId(1), |room| room.broken.set(true)).await;
            time::sleep(Duration::from_secs(5)).await;
            let (text, took) = scrape(&scraper).await;
            assert!(took < Duration::from_secs(1), "{took:?}");
            has(&text, "heizer_core_stalled{core=\"0\"} 0");
            has(&text, "heizer_core_stalled{core=\"1\"} 1");
            has(&text, "heizer_produced_records_total 20");
            has(&text, "heizer_log_dir_offline{dir=\"/1\"} 0");
            let silent =
                text.lines().find_map(|line| line.strip_prefix("heizer_core_silent_seconds{core=\"1\"} "));
            assert!(silent.and_then(|seconds| seconds.parse::<f64>().ok()).expect("told") > 5.0);
            change(CoreId(1), |room| room.broken.set(false)).await;
            has(&scrape(&scraper).await.0, "heizer_core_stalled{core=\"1\"} 0");
        });
    }

    #[test]
    fn a_core_that_looks_for_ever_is_shown_by_what_it_found_before_and_asked_once() {
        on_two_cores(|scraper| async move {
            scrape(&scraper).await;
            change(CoreId(1), |room| room.lost.set(true)).await;
            for _ in 0..3 {
                let (text, took) = scrape(&scraper).await;
                assert!(took < LOOKED_UP_WITHIN + Duration::from_secs(1), "{took:?}");
                has(&text, "heizer_core_stalled{core=\"1\"} 0");
                has(&text, "heizer_log_dir_offline{dir=\"/1\"} 0");
            }
            change(CoreId(1), |room| assert_eq!(room.asked.get(), 2)).await;
        });
    }

    #[test]
    fn several_may_ask_at_the_same_time() {
        on_two_cores(|scraper| async move {
            let texts = join_all((0..10).map(|_| scrape(&scraper))).await;
            texts.iter().for_each(|(text, _)| has(text, "heizer_produced_records_total 20"));
        });
    }
}
