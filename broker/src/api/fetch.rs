//! Fetch (1): read on the partitions' cores, gathered here; a fetch that finds too little waits for news.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heizer_runtime::collections::HashMap;
use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::fs::FileRegion;
use heizer_runtime::{random, time};
use heizer_server::Reply;
use heizer_storage::StorageError;
use heizer_wire::messages::{
    FetchEpochEndOffset, FetchLeaderIdAndEpoch, FetchPartitionData, FetchRequest, FetchResponse,
    FetchableTopicResponse,
};
use heizer_wire::{ApiKey, DecodeError, ErrorCode, Message, Reader, Records, encode_response_around};
use uuid::Uuid;

use super::{Call, error_code};
use crate::error::PartitionError;
use crate::fetch_budget::{FetchClaim, REGION_BYTES};
use crate::fetch_session::{FetchItem, Plan, TopicKey};
use crate::metadata::{MetadataImage, TopicImage};
use crate::metrics::{CoreMetrics, TopicCounters};
use crate::partition::Ends;
use crate::shard::{Wait, Watched, by_owner, here};

/// The isolation level that wants to be told of aborted transactions.
const READ_COMMITTED: i8 = 1;

/// One partition's part of a read, on its way to the owner core.
#[derive(Clone, Debug)]
struct Target {
    topic_id: Uuid,
    partition: i32,
    offset: i64,
    bytes_max: usize,
    current_leader_epoch: i32,
    last_fetched_epoch: i32,
}

/// What an owner core read of one partition.
#[derive(Debug)]
struct Found {
    ends: Ends,
    parts: Vec<Bytes>,
    /// The batches as a part of a file, instead of `parts`.
    region: Option<FileRegion>,
    bytes: usize,
    /// The client's log has gone another way: the epoch up to which it agrees, and where that ends (KIP-595).
    diverging: Option<(i32, i64)>,
}

impl Found {
    fn nothing(ends: Ends) -> Found {
        Found { ends, parts: Vec::new(), region: None, bytes: 0, diverging: None }
    }

    /// Bytes of the budget that it holds until it has left.
    fn memory(&self) -> usize {
        if self.region.is_some() { REGION_BYTES } else { self.bytes }
    }
}

/// How much a response may still hold.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Bytes that the client takes.
    bytes: usize,
    /// Those of them that may be in our memory.
    memory: usize,
    /// Nothing was found yet, so the next batch comes whatever its size (contract F1).
    empty: bool,
}

impl Room {
    fn take(&mut self, found: &Found) {
        self.bytes = self.bytes.saturating_sub(found.bytes);
        self.memory = self.memory.saturating_sub(found.memory());
        self.empty &= found.bytes == 0;
    }
}

/// What the answer says of one partition.
enum Row {
    Found(Found),
    Failed(ErrorCode),
}

/// One item of the plan with its place in the cluster.
struct Place {
    item: FetchItem,
    topic: Result<Arc<TopicImage>, ErrorCode>,
    owner: CoreId,
}

pub(super) async fn reply(call: Call, correlation_id: i32, mut reader: Reader) -> Result<Reply, DecodeError> {
    let version = call.version;
    let request = FetchRequest::decode(&mut reader, version)?;
    let Answer { response, regions, claim } = handle(call, request).await;
    let (frame, places) = encode_response_around(correlation_id, ApiKey::Fetch, version, &response);
    let files = places.into_iter().map(|(before, at)| (before, regions[at].clone())).collect();
    Ok(Reply::send_around(frame, files, claim))
}

#[derive(Default)]
struct Answer {
    response: FetchResponse,
    /// What of the records lies in files: their tokens are indexes into this.
    regions: Vec<FileRegion>,
    /// The claim on the core's memory that the answer keeps until it has left.
    claim: Option<FetchClaim>,
}

async fn handle(call: Call, request: FetchRequest) -> Answer {
    let planned = call.shard.sessions.borrow_mut().plan(&request, call.version, random::u64(), time::now());
    let plan = match planned {
        Ok(plan) => plan,
        Err(code) => {
            call.shard.metrics.requests.tally(ApiKey::Fetch).error(code.into());
            let response = FetchResponse { error_code: code.into(), ..FetchResponse::default() };
            return Answer { response, ..Answer::default() };
        }
    };
    let deadline = time::now() + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let image = call.shard.image();
    let places = places(&call, &image, &plan);
    let bytes_max =
        usize::try_from(request.max_bytes).unwrap_or(0).min(call.shard.config().fetch_max_bytes as usize);
    // More than a response may hold is not worth waiting for.
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max);
    let budget = &call.shard.fetch_budget;
    loop {
        let rest = deadline.saturating_duration_since(time::now());
        // While there is no memory for an answer the fetch waits, as if there were nothing to read.
        let claim = match budget.try_claim(call.connection.id, bytes_max) {
            None => time::timeout(rest, budget.claim(call.connection.id, bytes_max)).await.ok(),
            claim => claim,
        };
        let room = claim.as_ref().map(FetchClaim::bytes);
        let rows = read_all(&call, &places, bytes_max, room).await;
        let bytes: usize =
            rows.iter().map(|row| if let Row::Found(found) = row { found.bytes } else { 0 }).sum();
        let urgent = places.is_empty()
            || !call.shard.is_ready()
            || rows.iter().any(|row| match row {
                Row::Found(found) => found.diverging.is_some(),
                Row::Failed(..) => true,
            });
        let rest = deadline.saturating_duration_since(time::now());
        if urgent || bytes >= bytes_min.min(room.unwrap_or(0)) || rest.is_zero() {
            CoreMetrics::add(&call.shard.metrics.record_bytes_out, bytes as u64);
            count(&call, &places, &rows);
            let told_of_aborts = request.isolation_level == READ_COMMITTED;
            let memory =
                rows.iter().map(|row| if let Row::Found(found) = row { found.memory() } else { 0 }).sum();
            let claim = claim.filter(|_| bytes > 0).map(|mut claim| {
                claim.settle(memory);
                claim
            });
            return Answer { claim, ..respond(&call, &image, plan, places, rows, told_of_aborts) };
        }
        let watched = watched(&places, &rows);
        drop((rows, claim));
        let mut wait = Wait::register(&call.shard, watched);
        // Whether news or the deadline: what there is then is read and answered.
        let _ = time::timeout(rest, wait.news()).await;
    }
}

fn places(call: &Call, image: &MetadataImage, plan: &Plan) -> Vec<Place> {
    let place = |item: &FetchItem| {
        let topic = match &item.topic {
            TopicKey::Name(name) => image.topic_named(name).ok_or(ErrorCode::UnknownTopicOrPartition),
            TopicKey::Id(id) => image.topic(*id).ok_or(ErrorCode::UnknownTopicId),
        };
        let owner = match topic {
            Ok(topic) => call.shard.node().owner(topic.record.id, item.partition),
            Err(_) => call.shard.core(),
        };
        Place { item: item.clone(), topic: topic.cloned(), owner }
    };
    plan.items.iter().map(place).collect()
}

/// Reads every place, each owner core in one call, with what is left of `bytes_max` after those before it: the core of
/// the first place first, so that the turns that sessions and clients take count between cores too. The first batch of
/// the answer comes whatever its size (contract F1), unless there is no memory for any: None.
async fn read_all(call: &Call, places: &[Place], bytes_max: usize, memory: Option<usize>) -> Vec<Row> {
    let mut rows: Vec<Option<Row>> = places.iter().map(|_| None).collect();
    let mut room = match memory {
        Some(memory) => Room { bytes: bytes_max, memory, empty: true },
        None => Room { bytes: 0, memory: 0, empty: false },
    };
    for (owner, targets) in targets(call, places, &mut rows) {
        let (at, targets): (Vec<usize>, Vec<Target>) = targets.into_iter().unzip();
        let count = targets.len();
        let called = cores::call(owner, move || read_here(targets, room)).await;
        let answers =
            called.unwrap_or_else(|gone| (0..count).map(|_| Row::Failed(error_code(&gone.into()))).collect());
        for (at, row) in at.into_iter().zip(answers) {
            if let Row::Found(found) = &row {
                room.take(found);
            }
            rows[at] = Some(row);
        }
    }
    rows.into_iter().map(|row| row.expect("every place was read or refused")).collect()
}

/// The targets of each owner core in the order of the places; what is refused here gets its row at once.
fn targets(call: &Call, places: &[Place], rows: &mut [Option<Row>]) -> Vec<(CoreId, Vec<(usize, Target)>)> {
    let owners = by_owner(places.iter().map(|place| place.owner));
    let mut there = |at: usize| match target(call, &places[at]) {
        Ok(target) => Some((at, target)),
        Err(code) => {
            rows[at] = Some(Row::Failed(code));
            None
        }
    };
    let targets =
        owners.into_iter().map(|(owner, at)| (owner, at.into_iter().filter_map(&mut there).collect()));
    targets.filter(|(_, targets): &(_, Vec<_>)| !targets.is_empty()).collect()
}

fn target(call: &Call, place: &Place) -> Result<Target, ErrorCode> {
    let topic = place.topic.as_ref().map_err(|code| *code)?;
    let item = &place.item;
    if usize::try_from(item.partition).map_or(true, |at| at >= topic.partitions.len()) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    let state = topic.partition(item.partition).ok_or(ErrorCode::NotLeaderOrFollower)?;
    if state.leader != call.shard.node().id {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    Ok(Target {
        topic_id: topic.record.id,
        partition: item.partition,
        offset: item.offset,
        bytes_max: usize::try_from(item.bytes_max).unwrap_or(0),
        // Kafka takes any negative epoch of a fetch for none.
        current_leader_epoch: item.current_leader_epoch.max(-1),
        last_fetched_epoch: item.last_fetched_epoch,
    })
}

/// On the owner core.
async fn read_here(targets: Vec<Target>, mut room: Room) -> Vec<Row> {
    let shard = here();
    let mut rows = Vec::with_capacity(targets.len());
    for target in targets {
        let partition = shard.partition(target.topic_id, target.partition);
        let read = match partition {
            Ok(partition) => read_one(&partition, &target, room).await,
            Err(error) => Err(error),
        };
        rows.push(match read {
            Ok(found) => {
                room.take(&found);
                Row::Found(found)
            }
            Err(error) => {
                // Of a damaged segment the log has told once.
                let told = matches!(error, PartitionError::Storage(StorageError::Corrupt { .. }));
                if matches!(error, PartitionError::Storage(_)) && !told {
                    tracing::error!(partition = target.partition, %error, "a fetch cannot be read");
                }
                Row::Failed(error_code(&error))
            }
        });
    }
    rows
}

async fn read_one(
    partition: &crate::partition::Partition,
    target: &Target,
    room: Room,
) -> Result<Found, PartitionError> {
    partition.check_epoch(target.current_leader_epoch)?;
    let ends = partition.ends();
    let out_of_range = || PartitionError::OffsetOutOfRange {
        offset: target.offset,
        log_start: ends.log_start,
        log_end: partition.log_end_offset(),
    };
    if target.last_fetched_epoch >= 0 {
        // An epoch that we know nothing of: whatever the client has read is none of this log.
        let end = partition.log().end_offset_for_epoch(target.last_fetched_epoch).ok_or_else(out_of_range)?;
        // contract R7: what the client fetched last belongs to another history than ours.
        if end.epoch < target.last_fetched_epoch || end.end_offset < target.offset {
            let diverging = Some((end.epoch, end.end_offset));
            return Ok(Found { diverging, ..Found::nothing(ends) });
        }
    }
    if target.offset < ends.log_start || target.offset > partition.log_end_offset() {
        return Err(out_of_range());
    }
    // Between the high watermark and the log end there is nothing to read yet, which is no error, unless nothing ever
    // will be.
    if target.offset >= ends.high_watermark
        && let Some(failed) = partition.log().failed()
    {
        return Err(failed.into());
    }
    let bytes_max = target.bytes_max.min(room.bytes);
    if target.offset >= ends.high_watermark || (bytes_max == 0 && !room.empty) {
        return Ok(Found::nothing(ends));
    }
    let region = partition.log().find_region(target.offset, bytes_max, ends.high_watermark, room.empty).await;
    if let Some(region) = region {
        return Ok(Found { bytes: region.len(), region: Some(region), ..Found::nothing(ends) });
    }
    let bytes_max = bytes_max.min(room.memory);
    if bytes_max == 0 && !room.empty {
        return Ok(Found::nothing(ends));
    }
    let read = partition.read(target.offset, bytes_max, room.empty).await?;
    Ok(Found { bytes: read.bytes, parts: read.parts, ..Found::nothing(ends) })
}

/// Counts what is answered, by topic, and what has failed, by error as well.
fn count(call: &Call, places: &[Place], rows: &[Row]) {
    let metrics = &call.shard.metrics;
    let mut tally = metrics.requests.tally(ApiKey::Fetch);
    // The partitions of a topic stand together, nearly always.
    let mut last: Option<(Uuid, Rc<TopicCounters>)> = None;
    for (place, row) in places.iter().zip(rows) {
        match row {
            Row::Found(found) if found.bytes == 0 => continue,
            Row::Found(_) => {}
            Row::Failed(code) => tally.error((*code).into()),
        }
        let Ok(topic) = &place.topic else { continue };
        let id = topic.record.id;
        if last.as_ref().is_none_or(|(of, _)| *of != id) {
            last = Some((id, metrics.topics.of(id)));
        }
        let (_, counters) = last.as_ref().expect("just made sure of");
        match row {
            Row::Found(found) => CoreMetrics::add(&counters.fetched_bytes, found.bytes as u64),
            Row::Failed(_) => CoreMetrics::add(&counters.fetch_failures, 1),
        }
    }
}

fn watched(places: &[Place], rows: &[Row]) -> Vec<Watched> {
    let one = |(place, row): (&Place, &Row)| match (&place.topic, row) {
        (Ok(topic), Row::Found(found)) => Some(Watched {
            owner: place.owner,
            topic_id: topic.record.id,
            partition: place.item.partition,
            seen: found.ends,
        }),
        _ => None,
    };
    places.iter().zip(rows).filter_map(one).collect()
}

fn respond(
    call: &Call,
    image: &MetadataImage,
    plan: Plan,
    places: Vec<Place>,
    rows: Vec<Row>,
    told_of_aborts: bool,
) -> Answer {
    let mut regions = Vec::new();
    let mut sessions = call.shard.sessions.borrow_mut();
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut by_topic: HashMap<TopicKey, usize> = HashMap::default();
    let mut moved = false;
    for (place, row) in places.into_iter().zip(rows) {
        let FetchItem { topic: key, partition, .. } = place.item;
        let news = match &row {
            Row::Found(found) => {
                let data = found.bytes > 0 || found.diverging.is_some();
                let Ends { high_watermark, log_start } = found.ends;
                sessions.tell(plan.session_id, &key, partition, high_watermark, log_start, data)
            }
            Row::Failed(code) => {
                moved |= *code == ErrorCode::NotLeaderOrFollower || *code == ErrorCode::FencedLeaderEpoch;
                sessions.tell_error(plan.session_id, &key, partition);
                true
            }
        };
        if plan.incremental && !news {
            continue;
        }
        let mut data = partition_data(partition, place.topic.ok().as_deref(), row, &mut regions);
        // contract T2: only whoever reads what is committed is told; no transaction is served yet.
        data.aborted_transactions = told_of_aborts.then(Vec::new);
        let at = *by_topic.entry(key).or_insert_with_key(|key| {
            let (topic, topic_id) = match key {
                TopicKey::Name(name) => (name.clone(), Uuid::nil()),
                TopicKey::Id(id) => (Default::default(), *id),
            };
            responses.push(FetchableTopicResponse { topic, topic_id, partitions: Vec::new() });
            responses.len() - 1
        });
        responses[at].partitions.push(data);
    }
    let response = FetchResponse {
        session_id: plan.session_id,
        responses,
        node_endpoints: if moved { endpoints(image) } else { Vec::new() },
        ..FetchResponse::default()
    };
    Answer { response, regions, claim: None }
}

fn partition_data(
    partition_index: i32,
    topic: Option<&TopicImage>,
    row: Row,
    regions: &mut Vec<FileRegion>,
) -> FetchPartitionData {
    let blank = FetchPartitionData {
        partition_index,
        high_watermark: -1,
        records: Some(Records::new()),
        ..FetchPartitionData::default()
    };
    match row {
        Row::Found(found) => FetchPartitionData {
            high_watermark: found.ends.high_watermark,
            last_stable_offset: found.ends.high_watermark,
            log_start_offset: found.ends.log_start,
            diverging_epoch: found.diverging.map_or_else(
                FetchEpochEndOffset::default,
                |(epoch, end_offset)| FetchEpochEndOffset { epoch, end_offset },
            ),
            records: Some(match found.region {
                Some(region) => {
                    let records = Records::elsewhere(regions.len(), region.len());
                    regions.push(region);
                    records
                }
                None => found.parts.into_iter().collect(),
            }),
            ..blank
        },
        Row::Failed(code) => {
            let mut data = FetchPartitionData { error_code: code.into(), ..blank };
            let leads_elsewhere =
                matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
            if leads_elsewhere && let Some(state) = topic.and_then(|topic| topic.partition(partition_index)) {
                data.current_leader =
                    FetchLeaderIdAndEpoch { leader_id: state.leader, leader_epoch: state.leader_epoch };
            }
            data
        }
    }
}

fn endpoints(image: &MetadataImage) -> Vec<heizer_wire::messages::FetchNodeEndpoint> {
    let endpoint = |broker: &Arc<crate::metadata::BrokerRecord>| heizer_wire::messages::FetchNodeEndpoint {
        node_id: broker.id,
        host: broker.host.as_str().into(),
        port: i32::from(broker.port),
        rack: broker.rack.as_deref().map(Into::into),
    };
    image.brokers().map(endpoint).collect()
}
