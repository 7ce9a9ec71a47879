//! Producers: each a connection of its own, its partitions ("lanes"), and its loop.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use heizer_client::{Acks, ClientError, Connection, partition_for_key};
use heizer_runtime::time::{Instant, now, sleep_until, wall_clock_ms};
use heizer_wire::messages::{
    ApiVersionsRequest, InitProducerIdRequest, PartitionProduceData, ProduceRequest, ProduceResponse,
    TopicProduceData,
};
use heizer_wire::{ApiKey, ErrorCode};

use crate::cluster::{self, Place};
use crate::failure::Failure;
use crate::schedule::{Accumulator, Schedule, Waiting};
use crate::stage::Stage;
use crate::tally::Loop;
use crate::template::{Batch, Identity, Template, key};

/// Later versions name topics by id.
const PRODUCE_VERSION_MAX: i16 = 12;
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// How long a broker may take until it gives identities away.
const IDENTITY_WITHIN: Duration = Duration::from_secs(30);
/// A producer that sleeps looks this often whether it is to end.
const LOOK_UP: Duration = Duration::from_millis(100);

/// What a producer is to do.
pub(crate) struct Task {
    /// Its number within the run.
    pub(crate) number: u32,
    pub(crate) template: Rc<Template>,
    pub(crate) acks: Acks,
    pub(crate) idempotence: bool,
    pub(crate) in_flight: usize,
    /// The places that it writes to, by their index.
    pub(crate) places: Vec<usize>,
    /// The keys of each place and the place of each key, where there are keys.
    pub(crate) keys: Option<Rc<Keys>>,
    pub(crate) pace: Pace,
}

/// When a producer sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Whenever there is room, so many records to each lane, or without end.
    Closed { records_max: Option<u64> },
    /// By the schedule of member `index` of a group.
    Open { rate: f64, index: usize, count: usize, linger_ns: u64 },
}

/// Which key belongs where.
pub(crate) struct Keys {
    /// By the number of a key.
    place_of: Vec<usize>,
    /// By place.
    at: Vec<Vec<u32>>,
}

impl Keys {
    /// `count` keys over topics of so many partitions each, as Kafka's partitioner has it.
    pub(crate) fn new(count: usize, topics: usize, partitions: usize) -> Keys {
        let mut at = vec![Vec::new(); topics * partitions];
        let place_of = (0..count as u32).map(|number| {
            let partition = partition_for_key(&key(number), partitions) as usize;
            (number as usize % topics) * partitions + partition
        });
        let place_of: Vec<usize> = place_of.collect();
        for (number, &place) in place_of.iter().enumerate() {
            at[place].push(number as u32);
        }
        Keys { place_of, at }
    }

    /// Places that have a key at all.
    pub(crate) fn places(&self) -> impl Iterator<Item = usize> {
        self.at.iter().enumerate().filter(|(_, keys)| !keys.is_empty()).map(|(place, _)| place)
    }
}

/// A producer that is connected.
pub(crate) struct Producer {
    stage: Rc<Stage>,
    task: Task,
    links: Vec<Connection>,
    lanes: Vec<Lane>,
    identity: Option<Identity>,
    how: Loop,
}

/// A partition that it writes to.
struct Lane {
    index: usize,
    place: Place,
    /// The connection to its leader.
    link: usize,
    /// Of the next record.
    sequence: u64,
    /// Of the next key among the lane's.
    key_turn: usize,
}

/// A request that was answered.
struct Sent {
    lane: usize,
    due_ns: Vec<u64>,
}

impl Producer {
    /// Connects to the leaders of its places, and gets its identity.
    pub(crate) async fn connect(
        stage: &Rc<Stage>,
        places: &[Place],
        task: Task,
    ) -> Result<Producer, Failure> {
        let mut links: Vec<Connection> = Vec::new();
        let mut lanes = Vec::new();
        for &index in &task.places {
            let place = places[index].clone();
            let link = match links.iter().position(|link| link.addr() == place.leader) {
                Some(link) => link,
                None => {
                    links.push(cluster::connect(&place.leader).await?);
                    links.len() - 1
                }
            };
            lanes.push(Lane { index, place, link, sequence: 0, key_turn: task.number as usize });
        }
        let identity = if task.idempotence { Some(identify(&links[0]).await?) } else { None };
        let how = match task.pace {
            Pace::Closed { .. } => Loop::Closed,
            Pace::Open { .. } => Loop::Open,
        };
        Ok(Producer { stage: Rc::clone(stage), task, links, lanes, identity, how })
    }

    /// Produces until it is told to stop, or has sent all it is to send; then waits for the last answer. Schedules
    /// begin at `start_ns`.
    pub(crate) async fn run(mut self, start_ns: u64) -> Result<(), Failure> {
        match self.task.pace {
            Pace::Closed { records_max } => self.run_closed(records_max).await?,
            Pace::Open { rate, index, count, linger_ns } => {
                let schedule = Schedule::new(start_ns, rate, index, count);
                let lingering =
                    Accumulator::new(self.lanes.len(), self.batch_records_max(), linger_ns, index);
                self.run_open(schedule, lingering).await?;
            }
        }
        if self.task.acks == Acks::None {
            // Requests on a connection are answered in order: behind this answer all is where it belongs.
            for link in &self.links {
                link.request(&ApiVersionsRequest::default()).await?;
            }
        }
        Ok(())
    }

    async fn run_closed(&mut self, records_max: Option<u64>) -> Result<(), Failure> {
        let mut answers = FuturesUnordered::new();
        let mut turn = self.task.number as usize;
        loop {
            while answers.len() < self.task.in_flight && !self.stage.producers_stop() {
                let Some((lane, records)) = self.next_turn(&mut turn, records_max) else { break };
                let due_ns = vec![now().as_nanos(); records];
                let keys = self.keys_of(lane, records);
                match self.task.acks {
                    Acks::None => self.send_unanswered(lane, due_ns, &keys).await?,
                    _ => answers.push(self.send(lane, due_ns, &keys)),
                }
            }
            match answers.next().await {
                Some(sent) => self.settle(&sent?, true),
                None => return Ok(()),
            }
        }
    }

    /// The next lane that has something to send, and how many records.
    fn next_turn(&self, turn: &mut usize, records_max: Option<u64>) -> Option<(usize, usize)> {
        for _ in 0..self.lanes.len() {
            let lane = *turn % self.lanes.len();
            *turn += 1;
            let left = records_max.map_or(u64::MAX, |most| most - self.lanes[lane].sequence);
            if left > 0 {
                return Some((
                    lane,
                    self.batch_records_max().min(usize::try_from(left).unwrap_or(usize::MAX)),
                ));
            }
        }
        None
    }

    fn keys_of(&mut self, lane: usize, records: usize) -> Vec<u32> {
        let Some(keys) = &self.task.keys else { return Vec::new() };
        let lane = &mut self.lanes[lane];
        let here = &keys.at[lane.index];
        let turn = lane.key_turn;
        lane.key_turn = turn.wrapping_add(records);
        (0..records).map(|at| here[turn.wrapping_add(at) % here.len()]).collect()
    }

    async fn run_open(&mut self, mut schedule: Schedule, mut waiting: Accumulator) -> Result<(), Failure> {
        let mut answers = FuturesUnordered::new();
        let lane_of = self.lanes_by_place();
        let mut stopped = false;
        loop {
            let now_ns = now().as_nanos();
            if !stopped {
                self.admit(&mut schedule, &mut waiting, &lane_of, now_ns);
                stopped = self.stage.producers_stop();
            }
            while answers.len() < self.task.in_flight
                && let Some((lane, batch)) = waiting.take(now_ns, stopped)
            {
                let due_ns = batch.iter().map(|record| record.due_ns).collect();
                let keys: Vec<u32> = batch.iter().filter_map(|record| record.key).collect();
                match self.task.acks {
                    Acks::None => self.send_unanswered(lane, due_ns, &keys).await?,
                    _ => answers.push(self.send(lane, due_ns, &keys)),
                }
            }
            if stopped && waiting.waiting() == 0 && answers.is_empty() {
                return Ok(());
            }
            // Without room, and when nothing becomes due any more, only an answer changes anything.
            let mut wake = now() + LOOK_UP;
            if !stopped && answers.len() < self.task.in_flight {
                let next_ns = waiting.next_deadline_ns().unwrap_or(u64::MAX).min(schedule.next_due_ns());
                wake = wake.min(Instant::from_nanos(next_ns));
            }
            if answers.is_empty() {
                sleep_until(wake).await;
            } else if let Either::Left((Some(sent), _)) = select(answers.next(), sleep_until(wake)).await {
                self.settle(&sent?, true);
            }
        }
    }

    /// Takes in what is due.
    fn admit(&self, schedule: &mut Schedule, waiting: &mut Accumulator, lane_of: &[usize], now_ns: u64) {
        while let Some((number, due_ns)) = schedule.take(now_ns) {
            let Some(keys) = &self.task.keys else {
                waiting.push(None, Waiting { due_ns, key: None });
                continue;
            };
            let key = (number as usize + self.task.number as usize * 7_919) % keys.place_of.len();
            let lane = lane_of[keys.place_of[key]];
            waiting.push(Some(lane), Waiting { due_ns, key: Some(key as u32) });
        }
    }

    fn lanes_by_place(&self) -> Vec<usize> {
        let last = self.lanes.iter().map(|lane| lane.index).max().unwrap_or(0);
        let mut lane_of = vec![0; last + 1];
        self.lanes.iter().enumerate().for_each(|(lane, place)| lane_of[place.index] = lane);
        lane_of
    }

    fn batch_records_max(&self) -> usize {
        self.task.template.shape().batch_records_max()
    }

    /// The request with the next batch of a lane.
    fn request(&mut self, lane: usize, due_ns: &[u64], keys: &[u32]) -> ProduceRequest {
        let lane = &mut self.lanes[lane];
        let records = self.task.template.make(&Batch {
            run: self.stage.rules.run,
            producer: self.task.number,
            sequence: lane.sequence,
            timestamp_ms: wall_clock_ms(),
            identity: self.identity,
            due_ns,
            keys,
        });
        lane.sequence += due_ns.len() as u64;
        let partition = PartitionProduceData { index: lane.place.partition, records: Some(records) };
        ProduceRequest {
            acks: match self.task.acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::All => -1,
            },
            timeout_ms: PRODUCE_TIMEOUT_MS,
            topic_data: vec![TopicProduceData {
                name: lane.place.topic.clone(),
                partition_data: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn send(
        &mut self,
        lane: usize,
        due_ns: Vec<u64>,
        keys: &[u32],
    ) -> impl Future<Output = Result<Sent, Failure>> + use<> {
        let request = self.request(lane, &due_ns, keys);
        let link = &self.links[self.lanes[lane].link];
        let answer = link.request_with(&request, PRODUCE_VERSION_MAX, Duration::ZERO);
        let place = self.lanes[lane].place.clone();
        async move {
            check(&place, &answer.await?)?;
            Ok(Sent { lane, due_ns })
        }
    }

    async fn send_unanswered(&mut self, lane: usize, due_ns: Vec<u64>, keys: &[u32]) -> Result<(), Failure> {
        let request = self.request(lane, &due_ns, keys);
        let link = &self.links[self.lanes[lane].link];
        link.send_only(&request, PRODUCE_VERSION_MAX)?;
        // Nothing else holds this producer back.
        link.flushed().await?;
        self.settle(&Sent { lane, due_ns }, false);
        Ok(())
    }

    fn settle(&self, sent: &Sent, answered: bool) {
        let bytes = (sent.due_ns.len() * self.task.template.shape().record_bytes) as u64;
        let now_ns = now().as_nanos();
        self.stage.tally.borrow_mut().add_produced(self.how, now_ns, bytes, &sent.due_ns, answered);
        self.stage.add_acked(self.lanes[sent.lane].index, sent.due_ns.len() as u64);
    }
}

fn check(place: &Place, response: &ProduceResponse) -> Result<(), Failure> {
    let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
    let Some(answer) = answer else {
        return Err(Failure::new(format!("{}: an answer to Produce that names no partition", place.leader)));
    };
    match ErrorCode::from_code(answer.error_code) {
        ErrorCode::None => Ok(()),
        code => Err(refused(place, ApiKey::Produce, code, answer.error_message.as_deref())),
    }
}

/// What a broker said about a place.
pub(crate) fn refused(place: &Place, api: ApiKey, code: ErrorCode, message: Option<&str>) -> Failure {
    ClientError::Broker {
        addr: place.leader.clone(),
        api,
        subject: format!("{}-{}", place.topic, place.partition),
        code,
        message: message.map(str::to_owned),
    }
    .into()
}

/// An identity; a coordinator that is still loading is waited for.
async fn identify(connection: &Connection) -> Result<Identity, Failure> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        ..Default::default()
    };
    let deadline = now() + IDENTITY_WITHIN;
    loop {
        let answer = connection.request(&request).await?;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => return Ok(Identity { id: answer.producer_id, epoch: answer.producer_epoch }),
            code if code.retriable() && now() < deadline => sleep_until(now() + LOOK_UP).await,
            code => return Err(Failure::new(format!("{}: InitProducerId: {code}", connection.addr()))),
        }
    }
}
