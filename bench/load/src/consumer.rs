//! Consumers whose partitions are assigned by hand: fetch sessions (KIP-227), one fetch under way to each leader.
//!
//! As an ordinary consumer does, a fetcher asks for what comes next as soon as it has an answer, and looks into the
//! answer while the next is on its way.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures::future::{Either, FutureExt, LocalBoxFuture, select};
use heizer_client::{ClientError, Connection};
use heizer_runtime::collections::HashMap;
use heizer_runtime::task::yield_now;
use heizer_runtime::time::now;
use heizer_wire::messages::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use heizer_wire::{ApiKey, ErrorCode};

use crate::cluster::{self, CONSUMER_REPLICA_ID, Place};
use crate::failure::Failure;
use crate::producer::refused;
use crate::stage::Stage;
use crate::verify::{Track, next_position};
use crate::workload::{Consumers, Spread};

/// Later versions name topics by id.
const FETCH_VERSION_MAX: i16 = 12;
/// A broker may throw a session out to make room; one that always does is of no use.
const SESSION_RESTARTS_MAX: u32 = 1_000;
/// Answers of this size are looked into only when the next request is in the socket.
const LARGE_BYTES: usize = 16 << 10;

/// Where a reader of a partition begins, and what it is to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// The place's index.
    pub(crate) place: usize,
    pub(crate) start: i64,
    pub(crate) then: Then,
    /// What this run had been acknowledged in front of the start.
    pub(crate) acked_before: u64,
    /// Nothing of this run comes before the start.
    pub(crate) from_the_start: bool,
}

/// What a reader does when it has read what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Waits for more.
    Wait,
    /// At this offset it is done.
    End(i64),
    /// At this offset it begins again.
    Again(i64),
}

/// A connection to one leader, and the partitions that one consumer reads there.
pub(crate) struct Fetcher {
    stage: Rc<Stage>,
    settings: Consumers,
    connection: Connection,
    parts: Vec<Part>,
    by_name: HashMap<(ByteString, i32), usize>,
    session: Session,
    progress: Rc<Progress>,
}

/// How far a fetcher has come, for whoever waits for it.
pub(crate) struct Progress {
    parts: Vec<PartProgress>,
    done: Cell<bool>,
}

impl Progress {
    /// It has read all that it was to read.
    pub(crate) fn is_done(&self) -> bool {
        self.done.get()
    }

    /// Records of this run, per place, that it has not come by yet.
    pub(crate) fn unread(&self, stage: &Stage) -> u64 {
        let lacks = |part: &PartProgress| {
            let due = stage.acked(part.place) - part.acked_before;
            due.saturating_sub(part.advanced.get())
        };
        self.parts.iter().map(lacks).sum()
    }
}

struct PartProgress {
    place: usize,
    /// What had been acknowledged in front of where the reader began.
    acked_before: u64,
    /// [`Track::advanced`].
    advanced: Cell<u64>,
}

struct Part {
    place: Place,
    span: Span,
    position: i64,
    /// The position has changed since the broker was told.
    moved: bool,
    track: Track,
}

/// KIP-227: the broker remembers what is read, and is told of changes alone.
#[derive(Debug, Default)]
struct Session {
    id: i32,
    /// 0 asks for a new session.
    epoch: i32,
    restarts: u32,
}

/// Records of one partition that came with an answer.
struct Arrived {
    part: usize,
    position: i64,
    records: Bytes,
}

impl Fetcher {
    /// Connects one consumer: a fetcher for each leader of its partitions.
    pub(crate) async fn connect(
        stage: &Rc<Stage>,
        settings: &Consumers,
        places: &[Place],
        spans: &[Span],
    ) -> Result<Vec<Fetcher>, Failure> {
        let mut fetchers: Vec<Fetcher> = Vec::new();
        for &span in spans {
            let place = places[span.place].clone();
            let at = match fetchers.iter().position(|fetcher| fetcher.connection.addr() == place.leader) {
                Some(at) => at,
                None => {
                    let connection = cluster::connect(&place.leader).await?;
                    fetchers.push(Fetcher::new(stage, settings, connection));
                    fetchers.len() - 1
                }
            };
            let track = if span.from_the_start { Track::from_the_start() } else { Track::from_anywhere() };
            let fetcher = &mut fetchers[at];
            fetcher.by_name.insert((place.topic.clone(), place.partition), fetcher.parts.len());
            fetcher.parts.push(Part { place, span, position: span.start, moved: true, track });
        }
        for fetcher in &mut fetchers {
            let of_part = |part: &Part| PartProgress {
                place: part.span.place,
                acked_before: part.span.acked_before,
                advanced: Cell::new(0),
            };
            let parts = fetcher.parts.iter().map(of_part).collect();
            fetcher.progress = Rc::new(Progress { parts, done: Cell::new(false) });
        }
        Ok(fetchers)
    }

    fn new(stage: &Rc<Stage>, settings: &Consumers, connection: Connection) -> Fetcher {
        Fetcher {
            stage: Rc::clone(stage),
            settings: settings.clone(),
            connection,
            parts: Vec::new(),
            by_name: HashMap::default(),
            session: Session::default(),
            progress: Rc::new(Progress { parts: Vec::new(), done: Cell::new(false) }),
        }
    }

    pub(crate) fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }

    /// Fetches until it is done, or told to stop.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let mut asked = (!self.is_done()).then(|| self.ask());
        while let Some(answer) = asked.take() {
            let stopping = self.stage.stopping().listen();
            if self.stage.consumers_stop() {
                return Ok(());
            }
            let response = match select(answer, stopping).await {
                Either::Left((response, _)) => response?,
                Either::Right(_) => return Ok(()),
            };
            let now_ns = now().as_nanos();
            let arrived = self.take(response)?;
            if !self.is_done() {
                asked = Some(self.ask());
                if arrived.iter().map(|arrived| arrived.records.len()).sum::<usize>() >= LARGE_BYTES {
                    yield_now().await;
                }
            }
            self.look_into(arrived, now_ns);
        }
        self.progress.done.set(true);
        Ok(())
    }

    fn ask(&mut self) -> LocalBoxFuture<'static, Result<FetchResponse, ClientError>> {
        let wait = Duration::from_millis(self.settings.fetch_max_wait_ms.into());
        let request = self.request();
        self.connection.request_with(&request, FETCH_VERSION_MAX, wait).boxed_local()
    }

    /// Every partition is where it was to be read to.
    fn is_done(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.span.then, Then::End(end) if part.position >= end))
    }

    /// The next fetch: all partitions for a new session, else those that have moved.
    fn request(&mut self) -> FetchRequest {
        let mut topics: Vec<FetchTopic> = Vec::new();
        let all = self.session.epoch == 0;
        for part in self.parts.iter_mut().filter(|part| all || part.moved) {
            part.moved = false;
            let wanted = FetchPartition {
                partition: part.place.partition,
                fetch_offset: part.position,
                partition_max_bytes: self.settings.partition_max_bytes,
                ..Default::default()
            };
            match topics.last_mut() {
                Some(last) if last.topic == part.place.topic => last.partitions.push(wanted),
                _ => {
                    let topic = part.place.topic.clone();
                    topics.push(FetchTopic { topic, partitions: vec![wanted], ..Default::default() });
                }
            }
        }
        FetchRequest {
            replica_id: CONSUMER_REPLICA_ID,
            max_wait_ms: self.settings.fetch_max_wait_ms as i32,
            min_bytes: self.settings.fetch_min_bytes,
            max_bytes: self.settings.fetch_max_bytes,
            session_id: self.session.id,
            session_epoch: self.session.epoch,
            topics,
            ..Default::default()
        }
    }

    /// Moves positions on by an answer; what came with it.
    fn take(&mut self, response: FetchResponse) -> Result<Vec<Arrived>, Failure> {
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => self.session.follow(response.session_id),
            ErrorCode::FetchSessionIdNotFound | ErrorCode::InvalidFetchSessionEpoch => {
                self.session.start_over(self.connection.addr())?;
                return Ok(Vec::new());
            }
            code => {
                return Err(Failure::new(format!("{}: Fetch: {code}", self.connection.addr())));
            }
        }
        let mut arrived = Vec::with_capacity(response.responses.len());
        for topic in response.responses {
            for data in topic.partitions {
                let at = self.find(&topic.topic, data.partition_index).ok_or_else(|| {
                    let addr = self.connection.addr();
                    Failure::new(format!(
                        "{addr}: Fetch: {}-{} was not asked for",
                        topic.topic, data.partition_index
                    ))
                })?;
                let part = &mut self.parts[at];
                match ErrorCode::from_code(data.error_code) {
                    ErrorCode::None => {}
                    code => return Err(refused(&part.place, ApiKey::Fetch, code, None)),
                }
                let records = data.records.unwrap_or_default().to_bytes();
                let position = part.position;
                part.position = next_position(&records, position);
                part.moved = part.position != position;
                if part.moved {
                    arrived.push(Arrived { part: at, position, records });
                }
                if let Then::Again(end) = part.span.then
                    && part.position >= end
                {
                    part.position = part.span.start;
                }
            }
        }
        Ok(arrived)
    }

    fn find(&self, topic: &ByteString, partition: i32) -> Option<usize> {
        // Mostly all partitions of one topic are read, or a single one.
        let guess = usize::try_from(partition).ok()?.min(self.parts.len() - 1);
        let guessed = &self.parts[guess].place;
        if guessed.partition == partition && guessed.topic == *topic {
            return Some(guess);
        }
        self.by_name.get(&(topic.clone(), partition)).copied()
    }

    fn look_into(&mut self, arrived: Vec<Arrived>, now_ns: u64) {
        let mut tally = self.stage.tally.borrow_mut();
        let mut verdict = self.stage.verdict.borrow_mut();
        let (mut records, mut bytes) = (0, 0);
        for Arrived { part: at, position, records: batches } in arrived {
            let part = &mut self.parts[at];
            let rules = &self.stage.rules;
            let found = part.track.examine(batches, position, now_ns, rules, &mut tally, &mut verdict);
            records += found.records;
            bytes += found.bytes;
            self.progress.parts[at].advanced.set(part.track.advanced());
            if matches!(part.span.then, Then::Again(_)) && part.position == part.span.start {
                part.track.jump();
            }
        }
        tally.add_fetch(now_ns, records, bytes);
    }
}

impl Session {
    /// After an answer without an error.
    fn follow(&mut self, id: i32) {
        if id == 0 {
            // The broker has no room for a session: everything is asked for each time.
            *self = Session { restarts: self.restarts, ..Session::default() };
        } else {
            self.id = id;
            self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        }
    }

    fn start_over(&mut self, addr: &str) -> Result<(), Failure> {
        self.restarts += 1;
        if self.restarts > SESSION_RESTARTS_MAX {
            return Err(Failure::new(format!(
                "{addr}: the broker throws fetch sessions out all the time; give it more slots, or use fewer consumers"
            )));
        }
        *self = Session { restarts: self.restarts, ..Session::default() };
        Ok(())
    }
}

/// Where consumer `index` begins: every place, or that which falls to it.
pub(crate) fn places_of(index: usize, spread: Spread, places: usize) -> Vec<usize> {
    match spread {
        Spread::All => (0..places).collect(),
        Spread::Spread => vec![index % places],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_up_and_starts_over() {
        let mut session = Session::default();
        session.follow(9);
        session.follow(9);
        assert_eq!((session.id, session.epoch), (9, 2));
        session.epoch = i32::MAX;
        session.follow(9);
        assert_eq!(session.epoch, 1, "KIP-227: behind the greatest comes 1");
        session.start_over("a:1").expect("a first time");
        assert_eq!((session.id, session.epoch), (0, 0));
        session.follow(0);
        assert_eq!((session.id, session.epoch), (0, 0), "no session was given");
        assert!((0..SESSION_RESTARTS_MAX).any(|_| session.start_over("a:1").is_err()));
    }
}
