//! Fetch (1): read on the partitions' cores, gathered here; a fetch that finds too little waits for news.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heizer_runtime::cores::{self, CoreId};
use heizer_runtime::{random, time};
use heizer_wire::messages::{
    FetchEpochEndOffset, FetchLeaderIdAndEpoch, FetchPartitionData, FetchRequest, FetchResponse,
    FetchableTopicResponse,
};
use heizer_wire::{ApiKey, ErrorCode, Records};
use uuid::Uuid;

use super::{Call, error_code};
use crate::error::PartitionError;
use crate::fetch_session::{FetchItem, Plan, TopicKey};
use crate::metadata::{MetadataImage, TopicImage};
use crate::metrics::CoreMetrics;
use crate::partition::Ends;
use crate::shard::{Wait, Watched, here};

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
    bytes: usize,
    /// The client's log has gone another way: the epoch up to which it agrees, and where that ends (KIP-595).
    diverging: Option<(i32, i64)>,
}

/// What the answer says of one partition.
enum Row {
    Found(Found),
    Failed(ErrorCode, Option<Ends>),
}

/// One item of the plan with its place in the cluster.
struct Place {
    item: FetchItem,
    topic: Result<Arc<TopicImage>, ErrorCode>,
    owner: CoreId,
}

pub(super) async fn handle(call: Call, request: FetchRequest) -> FetchResponse {
    let planned = call.shard.sessions.borrow_mut().plan(&request, call.version, random::u64());
    let plan = match planned {
        Ok(plan) => plan,
        Err(code) => return FetchResponse { error_code: code.into(), ..FetchResponse::default() },
    };
    let deadline = time::now() + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let image = call.shard.image();
    let places = places(&call, &image, &plan);
    let bytes_max =
        usize::try_from(request.max_bytes).unwrap_or(0).min(call.shard.config().fetch_max_bytes as usize);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    loop {
        let rows = read_all(&call, &places, bytes_max).await;
        let bytes: usize =
            rows.iter().map(|row| if let Row::Found(found) = row { found.bytes } else { 0 }).sum();
        let urgent = places.is_empty()
            || !call.shard.is_ready()
            || rows.iter().any(|row| match row {
                Row::Found(found) => found.diverging.is_some(),
                Row::Failed(..) => true,
            });
        let rest = deadline.saturating_duration_since(time::now());
        if urgent || bytes >= bytes_min || rest.is_zero() {
            CoreMetrics::add(&call.shard.metrics.record_bytes_out, bytes as u64);
            if rows.iter().any(|row| matches!(row, Row::Failed(..))) {
                call.shard.metrics.count_error(ApiKey::Fetch);
            }
            return respond(&call, &image, plan, places, rows);
        }
        let watched = watched(&places, &rows);
        drop(rows);
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

/// Reads every place, each owner core in one call, with what is left of `bytes_max` after those before it. The first
/// batch of the answer comes whatever its size (contract F1).
async fn read_all(call: &Call, places: &[Place], bytes_max: usize) -> Vec<Row> {
    let mut rows: Vec<Option<Row>> = places.iter().map(|_| None).collect();
    let mut left = bytes_max;
    let mut empty = true;
    for (owner, targets) in targets(call, places, &mut rows) {
        let (at, targets): (Vec<usize>, Vec<Target>) = targets.into_iter().unzip();
        let count = targets.len();
        let called = cores::call(owner, move || read_here(targets, left, empty)).await;
        let answers = called
            .unwrap_or_else(|gone| (0..count).map(|_| Row::Failed(error_code(&gone.into()), None)).collect());
        for (at, row) in at.into_iter().zip(answers) {
            if let Row::Found(found) = &row {
                left = left.saturating_sub(found.bytes);
                empty &= found.bytes == 0;
            }
            rows[at] = Some(row);
        }
    }
    rows.into_iter().map(|row| row.expect("every place was read or refused")).collect()
}

/// The targets of each owner core in the order of the places; what is refused here gets its row at once.
fn targets(
    call: &Call,
    places: &[Place],
    rows: &mut [Option<Row>],
) -> BTreeMap<CoreId, Vec<(usize, Target)>> {
    let mut by_owner: BTreeMap<CoreId, Vec<(usize, Target)>> = BTreeMap::new();
    for (at, place) in places.iter().enumerate() {
        match target(call, place) {
            Ok(target) => by_owner.entry(place.owner).or_default().push((at, target)),
            Err(code) => rows[at] = Some(Row::Failed(code, None)),
        }
    }
    by_owner
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
        current_leader_epoch: item.current_leader_epoch,
        last_fetched_epoch: item.last_fetched_epoch,
    })
}

/// On the owner core.
async fn read_here(targets: Vec<Target>, bytes_max: usize, mut empty: bool) -> Vec<Row> {
    let shard = here();
    let mut left = bytes_max;
    let mut rows = Vec::with_capacity(targets.len());
    for target in targets {
        let partition = shard.partition(target.topic_id, target.partition);
        let ends = partition.as_ref().ok().map(|partition| partition.ends());
        let read = match partition {
            Ok(partition) => read_one(&partition, &target, target.bytes_max.min(left), empty).await,
            Err(error) => Err(error),
        };
        rows.push(match read {
            Ok(found) => {
                left = left.saturating_sub(found.bytes);
                empty &= found.bytes == 0;
                Row::Found(found)
            }
            Err(error) => {
                if matches!(error, PartitionError::Storage(_)) {
                    tracing::error!(partition = target.partition, %error, "a fetch cannot be read");
                }
                Row::Failed(error_code(&error), ends)
            }
        });
    }
    rows
}

async fn read_one(
    partition: &crate::partition::Partition,
    target: &Target,
    bytes_max: usize,
    at_least_one: bool,
) -> Result<Found, PartitionError> {
    partition.check_epoch(target.current_leader_epoch)?;
    let ends = partition.ends();
    if let Some(diverging) = diverging(partition, target) {
        return Ok(Found { ends, parts: Vec::new(), bytes: 0, diverging: Some(diverging) });
    }
    if target.offset < ends.log_start || target.offset > partition.log_end_offset() {
        return Err(PartitionError::OffsetOutOfRange {
            offset: target.offset,
            log_start: ends.log_start,
            log_end: partition.log_end_offset(),
        });
    }
    // Between the high watermark and the log end there is nothing to read yet, which is no error.
    if target.offset >= ends.high_watermark || (bytes_max == 0 && !at_least_one) {
        return Ok(Found { ends, parts: Vec::new(), bytes: 0, diverging: None });
    }
    let read = partition.read(target.offset, bytes_max, at_least_one).await?;
    Ok(Found { ends, bytes: read.bytes, parts: read.parts, diverging: None })
}

/// contract R7: whether what the client fetched last belongs to another history than ours.
fn diverging(partition: &crate::partition::Partition, target: &Target) -> Option<(i32, i64)> {
    if target.last_fetched_epoch < 0 {
        return None;
    }
    let end = partition.log().end_offset_for_epoch(target.last_fetched_epoch);
    match end {
        Some(end) if end.epoch < target.last_fetched_epoch || end.end_offset < target.offset => {
            Some((end.epoch, end.end_offset))
        }
        Some(_) => None,
        None => Some((-1, -1)),
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
) -> FetchResponse {
    let mut sessions = call.shard.sessions.borrow_mut();
    let mut responses: Vec<(TopicKey, FetchableTopicResponse)> = Vec::new();
    let mut moved = false;
    for (place, row) in places.into_iter().zip(rows) {
        let FetchItem { topic: key, partition, .. } = place.item;
        let news = match &row {
            Row::Found(found) => {
                let data = found.bytes > 0 || found.diverging.is_some();
                let Ends { high_watermark, log_start } = found.ends;
                sessions.tell(plan.session_id, &key, partition, high_watermark, log_start, data)
            }
            Row::Failed(code, _) => {
                moved |= *code == ErrorCode::NotLeaderOrFollower || *code == ErrorCode::FencedLeaderEpoch;
                sessions.tell_error(plan.session_id, &key, partition);
                true
            }
        };
        if plan.incremental && !news {
            continue;
        }
        let data = partition_data(partition, place.topic.ok().as_deref(), row);
        match responses.iter_mut().rev().find(|(topic, _)| *topic == key) {
            Some((_, response)) => response.partitions.push(data),
            None => {
                let (topic, topic_id) = match &key {
                    TopicKey::Name(name) => (name.clone(), Uuid::nil()),
                    TopicKey::Id(id) => (Default::default(), *id),
                };
                responses.push((key, FetchableTopicResponse { topic, topic_id, partitions: vec![data] }));
            }
        }
    }
    FetchResponse {
        session_id: plan.session_id,
        responses: responses.into_iter().map(|(_, response)| response).collect(),
        node_endpoints: if moved { endpoints(image) } else { Vec::new() },
        ..FetchResponse::default()
    }
}

fn partition_data(partition_index: i32, topic: Option<&TopicImage>, row: Row) -> FetchPartitionData {
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
            records: Some(found.parts.into_iter().collect()),
            ..blank
        },
        Row::Failed(code, ends) => {
            let mut data = FetchPartitionData { error_code: code.into(), ..blank };
            if let Some(ends) = ends {
                data.log_start_offset = ends.log_start;
            }
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
