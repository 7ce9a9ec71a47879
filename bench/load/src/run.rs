//! A run: topics, backlog, warm-up, the measured window, and reading what is left.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures::future::select;
use heizer_runtime::task::JoinHandle;
use heizer_runtime::time::{Instant, now, sleep_until};
use heizer_runtime::{host, random};

use crate::cluster::{Cluster, Edge};
use crate::consumer::{Fetcher, Progress, Span, Then, places_of};
use crate::failure::Failure;
use crate::group::Group;
use crate::producer::{Keys, Pace, Producer, Task};
use crate::report::{
    BrokerReport, ConsumedReport, CpuReport, ProducedReport, Report, SecondReport, latencies,
};
use crate::stage::Stage;
use crate::template::{Shape, Template};
use crate::value::Pattern;
use crate::verify::Rules;
use crate::watch::{Usage, Watched};
use crate::workload::{Backlog, Begin, Consumers, Producers, Spread, Until, Workload};

const SECOND: Duration = Duration::from_secs(1);
/// The last second of a phase may be told this much too early.
const ALMOST: Duration = Duration::from_millis(100);
/// How often a condition is looked at that nobody announces.
const LOOK: Duration = Duration::from_millis(20);
/// One connection for so many partitions produces the backlog.
const BACKLOG_PLACES: usize = 4;
const BACKLOG_IN_FLIGHT: usize = 4;
/// How long members of groups may take until each partition has its member.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// Readers to whom nothing has come for so long will not get what they lack.
const NOTHING_MORE_AFTER: Duration = Duration::from_secs(10);
/// A group that has been settled for so long stays so.
const SETTLED_FOR: Duration = Duration::from_millis(500);

/// What the command line says beside the workload.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) bootstrap: Vec<String>,
    /// The process whose costs are reported.
    pub(crate) watch_pid: Option<u32>,
    /// No line a second.
    pub(crate) quiet: bool,
}

/// Runs a workload from beginning to end.
pub(crate) async fn run(workload: Workload, options: Options) -> Result<Report, Failure> {
    let watched = options.watch_pid.map(Watched::process).transpose()?;
    let cluster = Cluster::prepare(&options.bootstrap, &workload.topic).await?;
    let rules = Rules {
        run: random::u64() as u32,
        pattern: Pattern::new(),
        compacted: workload.topic.is_compacted(),
    };
    let stage = Stage::new(rules, cluster.places.len());
    let mut run = Run {
        workload,
        options,
        cluster,
        stage,
        watched,
        producers_so_far: 0,
        progress: Vec::new(),
        catching_up: Vec::new(),
        groups: Vec::new(),
        clients: Vec::new(),
        timeline: Vec::new(),
        broker_cpu_s: 0.0,
        resident_max_mib: 0.0,
    };
    run.produce_backlog().await?;
    run.start_tail_consumers().await?;
    let producers = run.start_producers().await?;
    run.pass("warm-up", run.workload.warmup_s, |_| false).await?;
    let measured = run.measure().await?;
    run.finish(producers).await?;
    Ok(run.report(&measured))
}

struct Run {
    workload: Workload,
    options: Options,
    cluster: Cluster,
    stage: Rc<Stage>,
    watched: Option<Watched>,
    /// Numbers given to producers.
    producers_so_far: u32,
    /// Of consumers that are to read everything.
    progress: Vec<Rc<Progress>>,
    /// Of consumers with `until = "end"`.
    catching_up: Vec<Rc<Progress>>,
    groups: Vec<Rc<Group>>,
    clients: Vec<JoinHandle<Option<()>>>,
    timeline: Vec<SecondReport>,
    /// At the last tick.
    broker_cpu_s: f64,
    resident_max_mib: f64,
}

/// The window.
struct Measured {
    seconds: f64,
    client_cpu: CpuReport,
    broker: Option<BrokerReport>,
    caught_up_s: Option<f64>,
}

impl Run {
    /// Fills the topics at full speed.
    async fn produce_backlog(&mut self) -> Result<(), Failure> {
        let Some(backlog) = self.workload.backlog.clone() else { return Ok(()) };
        let places: Vec<usize> = (0..self.cluster.places.len()).collect();
        let records = backlog.bytes.div_ceil((backlog.record_bytes * places.len()) as u64);
        let template =
            Rc::new(Template::new(backlog_shape(&backlog, &self.workload), &self.stage.rules.pattern));
        let mut handles = Vec::new();
        for places in places.chunks(BACKLOG_PLACES) {
            let task = Task {
                number: self.next_number(),
                template: Rc::clone(&template),
                acks: heizer_client::Acks::All,
                idempotence: false,
                in_flight: BACKLOG_IN_FLIGHT,
                places: places.to_vec(),
                keys: None,
                pace: Pace::Closed { records_max: Some(records) },
            };
            let producer = Producer::connect(&self.stage, &self.cluster.places, task).await?;
            handles.push(self.stage.launch(producer.run(0)));
        }
        let limit_s = self.workload.limit_s;
        let done = self.pass("backlog", limit_s, |_| handles.iter().all(JoinHandle::is_finished)).await?;
        if !done {
            return Err(Failure::new(format!(
                "the backlog of {} bytes was not produced within limit_s = {limit_s}; make it smaller, or limit_s larger",
                backlog.bytes
            )));
        }
        Ok(())
    }

    fn next_number(&mut self) -> u32 {
        self.producers_so_far += 1;
        self.producers_so_far - 1
    }

    /// Consumers that are there from the start, and stay.
    async fn start_tail_consumers(&mut self) -> Result<(), Failure> {
        for settings in self.workload.consumers.clone() {
            if settings.until == Until::End {
                continue;
            }
            if settings.group.is_empty() {
                for fetcher in self.connect_consumers(&settings).await? {
                    if settings.from != Begin::Replay {
                        self.progress.push(Rc::clone(fetcher.progress()));
                    }
                    self.clients.push(self.stage.launch(fetcher.run()));
                }
            } else {
                self.start_group(&settings).await?;
            }
        }
        Ok(())
    }

    async fn start_group(&mut self, settings: &Consumers) -> Result<(), Failure> {
        let topic = &self.workload.topic;
        let group = Group::new(&self.stage, settings, topic, &self.cluster.places, &self.options.bootstrap);
        for index in 0..settings.count {
            self.clients.push(self.stage.launch(Rc::clone(&group).run_member(index)));
        }
        let deadline = now() + JOIN_WITHIN;
        let mut settled_since = None;
        while settled_since.is_none_or(|since: Instant| now() < since + SETTLED_FOR) {
            self.stage.failed()?;
            if now() > deadline {
                return Err(Failure::new(format!(
                    "group {} has not come to rest within {} s; is somebody else in it?",
                    settings.group,
                    JOIN_WITHIN.as_secs()
                )));
            }
            sleep_until(now() + LOOK).await;
            settled_since = group.is_settled().then(|| settled_since.unwrap_or_else(now));
        }
        self.groups.push(group);
        Ok(())
    }

    /// The consumers of one group of the workload, connected, their partitions assigned by hand.
    async fn connect_consumers(&self, settings: &Consumers) -> Result<Vec<Fetcher>, Failure> {
        let spans = self.spans(settings).await?;
        let mut fetchers = Vec::new();
        for index in 0..settings.count {
            let places = places_of(index, settings.assign, spans.len());
            let own: Vec<Span> = places.into_iter().map(|place| spans[place]).collect();
            fetchers.extend(Fetcher::connect(&self.stage, settings, &self.cluster.places, &own).await?);
        }
        Ok(fetchers)
    }

    /// What there is to read of each place.
    async fn spans(&self, settings: &Consumers) -> Result<Vec<Span>, Failure> {
        let earliest = self.cluster.offsets(Edge::Earliest).await?;
        let latest = self.cluster.offsets(Edge::Latest).await?;
        let replayed = settings.replay_bytes.div_ceil(self.record_bytes() as u64) as i64;
        let span = |place: usize| {
            let (earliest, latest) = (earliest[place], latest[place]);
            let (start, then) = match (settings.from, settings.until) {
                (Begin::End, _) => (latest, Then::Wait),
                (Begin::Beginning, Until::Stopped) => (earliest, Then::Wait),
                (Begin::Beginning, Until::End) => (earliest, Then::End(latest)),
                (Begin::Replay, _) => (earliest.max(latest - replayed), Then::Again(latest)),
            };
            let at_the_end = settings.from == Begin::End;
            Span {
                place,
                start,
                then,
                acked_before: if at_the_end { self.stage.acked(place) } else { 0 },
                // Retention may have taken the first records of this run.
                from_the_start: at_the_end || (settings.from == Begin::Beginning && start == 0),
            }
        };
        let spans: Vec<Span> = (0..self.cluster.places.len()).map(span).collect();
        if settings.from == Begin::Replay && spans.iter().any(|span| span.then == Then::Again(span.start)) {
            return Err(Failure::new(
                "consumers are to replay partitions that hold nothing; give a [backlog]",
            ));
        }
        Ok(spans)
    }

    fn record_bytes(&self) -> usize {
        let backlog = self.workload.backlog.as_ref().map(|backlog| backlog.record_bytes);
        backlog.or(self.workload.producers.first().map(|group| group.record_bytes)).unwrap_or(1)
    }

    /// All producers, connected and then let go together.
    async fn start_producers(&mut self) -> Result<Vec<JoinHandle<Option<()>>>, Failure> {
        let mut producers = Vec::new();
        for settings in self.workload.producers.clone() {
            let template = Rc::new(Template::new(shape(&settings), &self.stage.rules.pattern));
            let topic = &self.workload.topic;
            let keys = (settings.keys > 0)
                .then(|| Rc::new(Keys::new(settings.keys, topic.topics, topic.partitions)));
            for index in 0..settings.count {
                let places = match (&keys, settings.partitions) {
                    (Some(keys), Spread::All) => keys.places().collect(),
                    (_, spread) => places_of(index, spread, self.cluster.places.len()),
                };
                let task = Task {
                    number: self.next_number(),
                    template: Rc::clone(&template),
                    acks: settings.acks.acks(),
                    idempotence: settings.idempotence,
                    in_flight: settings.in_flight,
                    places,
                    keys: keys.clone(),
                    pace: pace(&settings, index),
                };
                producers.push(Producer::connect(&self.stage, &self.cluster.places, task).await?);
            }
        }
        let start_ns = now().as_nanos();
        Ok(producers.into_iter().map(|producer| self.stage.launch(producer.run(start_ns))).collect())
    }

    /// The window: until its time is over, or those who catch up have done so.
    async fn measure(&mut self) -> Result<Measured, Failure> {
        let mut catching_up = Vec::new();
        for settings in self.workload.consumers.clone() {
            if settings.until == Until::End {
                catching_up.extend(self.connect_consumers(&settings).await?);
            }
        }
        let before = self.broker_usage()?;
        self.broker_cpu_s = before.map_or(0.0, |usage| usage.user_s + usage.kernel_s);
        let client_before = Watched::myself().cpu_s()?;
        let opened = now();
        self.stage.tally.borrow_mut().open(opened.as_nanos());
        for fetcher in catching_up {
            self.catching_up.push(Rc::clone(fetcher.progress()));
            self.clients.push(self.stage.launch(fetcher.run()));
        }
        let caught_up_s = self.pass_window().await?;
        let closed = now();
        self.stage.tally.borrow_mut().close(closed.as_nanos());
        let client_cpu = CpuReport::between(client_before, Watched::myself().cpu_s()?);
        let after = self.broker_usage()?;
        let broker = before.zip(after);
        let broker =
            broker.map(|(before, after)| BrokerReport::between(&before, &after, self.resident_max_mib));
        let seconds = closed.saturating_duration_since(opened).as_secs_f64();
        Ok(Measured { seconds, client_cpu, broker, caught_up_s })
    }

    /// How long those who catch up took, where there are any.
    async fn pass_window(&mut self) -> Result<Option<f64>, Failure> {
        let started = now();
        let caught_up = |run: &Run| run.catching_up.iter().all(|progress| progress.is_done());
        let passed_s = || now().saturating_duration_since(started).as_secs_f64();
        let Workload { measure_s, limit_s, .. } = self.workload;
        if self.workload.measure_s == 0.0 {
            if !self.pass("window", limit_s, caught_up).await? {
                return Err(Failure::new(format!(
                    "consumers have not caught up within limit_s = {limit_s}; make the backlog smaller, or limit_s larger"
                )));
            }
            return Ok(Some(passed_s()));
        }
        let mut caught_up_s = None;
        if !self.catching_up.is_empty() && self.pass("window", measure_s, caught_up).await? {
            caught_up_s = Some(passed_s());
        }
        self.pass("window", measure_s - passed_s(), |_| false).await?;
        Ok(caught_up_s)
    }

    fn broker_usage(&self) -> Result<Option<Usage>, Failure> {
        self.watched.as_ref().map(Watched::usage).transpose()
    }

    /// Lets the producers send what was due, and the consumers read what there is.
    async fn finish(&mut self, producers: Vec<JoinHandle<Option<()>>>) -> Result<(), Failure> {
        self.stage.stop_producers();
        let limit_s = self.workload.limit_s;
        let sent = self.pass("drain", limit_s, |_| producers.iter().all(JoinHandle::is_finished)).await?;
        if !sent {
            return Err(Failure::new(format!(
                "producers could not send what was due within limit_s = {limit_s} after the window; lower their rate"
            )));
        }
        if !self.stage.rules.compacted {
            let (seen, since) = (Cell::new(0), Cell::new(now()));
            let read = |run: &Run| {
                let arrived = run.stage.tally.borrow().arrived;
                if seen.replace(arrived) != arrived {
                    since.set(now());
                }
                run.unread() == 0 || now() > since.get() + NOTHING_MORE_AFTER
            };
            self.pass("drain", limit_s, read).await?;
            self.stage.verdict.borrow_mut().unread = self.unread();
        }
        self.stage.stop_consumers();
        let ended = |run: &Run| run.clients.iter().all(JoinHandle::is_finished);
        if !self.pass("end", limit_s, ended).await? {
            return Err(Failure::new("consumers have not ended; a group's coordinator may not answer"));
        }
        Ok(())
    }

    fn unread(&self) -> u64 {
        let by_hand: u64 = self.progress.iter().map(|progress| progress.unread(&self.stage)).sum();
        by_hand + self.groups.iter().map(|group| group.unread()).sum::<u64>()
    }

    /// Lets time pass, with a line a second: until `done`, or for so many seconds. Whether it is done.
    async fn pass(
        &mut self,
        phase: &str,
        seconds: f64,
        done: impl Fn(&Run) -> bool,
    ) -> Result<bool, Failure> {
        let deadline = now() + Duration::from_secs_f64(seconds.max(0.0));
        self.stage.tally.borrow_mut().take_second();
        let mut tick = now() + SECOND;
        loop {
            let news = self.stage.news().listen();
            self.stage.failed()?;
            if host::shutdown_requested() {
                return Err(Failure::new("interrupted"));
            }
            let is_done = done(self);
            if is_done || now() >= deadline {
                if now() + ALMOST >= tick {
                    self.tell_second(phase)?;
                }
                return Ok(is_done);
            }
            select(news, sleep_until(tick.min(deadline).min(now() + LOOK))).await;
            if now() >= tick {
                tick += SECOND;
                self.tell_second(phase)?;
            }
        }
    }

    fn tell_second(&mut self, phase: &str) -> Result<(), Failure> {
        let second = self.stage.tally.borrow_mut().take_second();
        let mut told = SecondReport::new(self.timeline.len() + 1, &second, self.is_end_to_end());
        if let Some(watched) = &self.watched {
            let (user_s, kernel_s) = watched.cpu_s()?;
            let resident_mib = watched.resident_mib()?;
            told.broker_cpu_s = Some(user_s + kernel_s - self.broker_cpu_s);
            told.resident_mib = Some(resident_mib);
            self.broker_cpu_s = user_s + kernel_s;
            if phase == "window" {
                self.resident_max_mib = self.resident_max_mib.max(resident_mib);
            }
        }
        if !self.options.quiet {
            eprintln!("{}", told.line(phase));
        }
        if phase == "window" {
            self.timeline.push(told);
        }
        Ok(())
    }

    /// Whether somebody follows the producers.
    fn is_end_to_end(&self) -> bool {
        let followed = !self.progress.is_empty() || !self.groups.is_empty();
        followed && !self.workload.producers.is_empty()
    }

    fn report(self, measured: &Measured) -> Report {
        let timeline_latency = if self.is_end_to_end() { "end_to_end" } else { "ack" };
        let tally = self.stage.tally.borrow();
        let (ack_latency_us, end_to_end_us) = latencies(&tally);
        let Measured { seconds, caught_up_s, .. } = *measured;
        Report {
            seconds,
            produced: ProducedReport::new(&tally.produced, seconds),
            ack_latency_us,
            consumed: ConsumedReport::new(&tally.consumed, seconds, caught_up_s),
            end_to_end_us,
            verified: *self.stage.verdict.borrow(),
            client_cpu: measured.client_cpu,
            broker: measured.broker,
            timeline_latency,
            timeline: self.timeline,
            workload: self.workload,
        }
    }
}

fn shape(settings: &Producers) -> Shape {
    Shape {
        record_bytes: settings.record_bytes,
        batch_bytes: settings.batch_bytes,
        random_fraction: settings.random_fraction,
        compression: settings.compression.compression(),
        keyed: settings.keys > 0,
    }
}

/// The backlog looks as what the first producers make, but without keys.
fn backlog_shape(backlog: &Backlog, workload: &Workload) -> Shape {
    let first = workload.producers.first().cloned().unwrap_or_default();
    Shape {
        record_bytes: backlog.record_bytes,
        batch_bytes: backlog.batch_bytes,
        keyed: false,
        ..shape(&first)
    }
}

fn pace(settings: &Producers, index: usize) -> Pace {
    if settings.rate == 0.0 {
        return Pace::Closed { records_max: None };
    }
    let linger_ns = (settings.linger_ms * 1e6) as u64;
    Pace::Open { rate: settings.rate, index, count: settings.count, linger_ns }
}
