//! A broker of a few hundred lines, in memory: enough of each API for the client to be tried against it.

mod admin;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use heizer_runtime::sync::Event;
use heizer_runtime::task::spawn;
use heizer_runtime::time::sleep;
use heizer_server::{Census, Limits, ListenerConfig, MemoryBudget, Reply, Request, Server, Service};
use heizer_wire::messages::*;
use heizer_wire::record_batch::{BatchHeader, set_base_offset};
use heizer_wire::{ApiKey, ErrorCode, Message, Reader, RequestHeader, encode_response};

/// How long a rebalance waits for members.
const REBALANCE: Duration = Duration::from_millis(400);

/// One broker, id 0, that leads everything.
#[derive(Default)]
pub(super) struct Broker {
    port: Cell<u16>,
    pub(super) partitions: Cell<i32>,
    logs: RefCell<BTreeMap<(String, i32), Log>>,
    created: RefCell<BTreeSet<String>>,
    next_producer_id: Cell<i64>,
    /// What happens to the next produce requests, last first.
    pub(super) faults: RefCell<Vec<Fault>>,
    pub(super) produced: Cell<usize>,
    pub(super) commits: RefCell<BTreeMap<(String, i32), i64>>,
    group: RefCell<Group>,
    group_changed: Event,
    /// Requests of administrators, in order.
    pub(super) asked: RefCell<Vec<RequestBody>>,
    /// What the next of them are refused with, last first.
    pub(super) refusals: RefCell<Vec<ErrorCode>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Answers NOT_LEADER_OR_FOLLOWER.
    NotLeader,
    /// Appends, and closes the connection instead of answering.
    LoseAnswer,
    /// Closes the connection.
    LoseRequest,
    /// Answers TOPIC_AUTHORIZATION_FAILED.
    Refuse,
}

#[derive(Default)]
struct Log {
    batches: Vec<(i64, i64, Bytes)>,
    end: i64,
    /// Next sequence by producer id.
    sequences: BTreeMap<i64, i32>,
}

#[derive(Default)]
struct Group {
    generation: i32,
    members: BTreeMap<String, Bytes>,
    joining: Option<BTreeMap<String, Bytes>>,
    assignments: BTreeMap<String, Bytes>,
    next_member: u32,
}

impl Broker {
    /// A broker that serves, and its address.
    pub(super) fn start(partitions: i32) -> (Rc<Broker>, String) {
        let broker = Rc::new(Broker::default());
        broker.partitions.set(partitions);
        let listener = ListenerConfig { name: "PLAINTEXT".into(), addr: "127.0.0.1:0".parse().unwrap() };
        let limits = Limits::default();
        let budget = MemoryBudget::new(256 << 20, limits.request_bytes_max);
        let server =
            Server::bind(listener, limits, Census::new(usize::MAX, usize::MAX), budget, Rc::clone(&broker))
                .unwrap();
        let addr = server.local_addr();
        broker.port.set(addr.port());
        drop(spawn(async move { server.serve().await }));
        (broker, addr.to_string())
    }

    pub(super) fn end_offset(&self, topic: &str, partition: i32) -> i64 {
        self.logs.borrow().get(&(topic.to_owned(), partition)).map_or(0, |log| log.end)
    }

    async fn answer(self: &Rc<Self>, header: &RequestHeader, body: Bytes) -> Option<Vec<Bytes>> {
        let Ok(key) = header.key() else { return None };
        if key == ApiKey::ApiVersions && header.api_version > 2 {
            // As an old broker does (contract P1).
            let listed = ApiVersion { api_key: 18, min_version: 0, max_version: 2 };
            let response = ApiVersionsResponse {
                error_code: ErrorCode::UnsupportedVersion.code(),
                api_keys: vec![listed],
                ..Default::default()
            };
            return Some(encode_response(header.correlation_id, key, 0, &response));
        }
        let request = RequestBody::decode(key, &mut Reader::new(body), header.api_version).ok()?;
        match request {
            RequestBody::ApiVersions(_) => self.encode(header, key, &self.api_versions()),
            RequestBody::Metadata(request) => self.encode(header, key, &self.metadata(&request)),
            RequestBody::InitProducerId(request) => {
                assert_eq!(request.transactional_id, None, "an empty one is not none");
                let producer_id = self.next_producer_id.replace(self.next_producer_id.get() + 1);
                self.encode(header, key, &InitProducerIdResponse { producer_id, ..Default::default() })
            }
            RequestBody::Produce(request) => {
                let response = self.produce(request)?;
                self.encode(header, key, &response)
            }
            RequestBody::ListOffsets(request) => self.encode(header, key, &self.list_offsets(&request)),
            RequestBody::Fetch(request) => {
                let response = self.fetch(&request).await;
                self.encode(header, key, &response)
            }
            RequestBody::FindCoordinator(request) => {
                let coordinator = Coordinator {
                    key: request.coordinator_keys[0].clone(),
                    host: "127.0.0.1".into(),
                    port: self.port.get().into(),
                    ..Default::default()
                };
                let response =
                    FindCoordinatorResponse { coordinators: vec![coordinator], ..Default::default() };
                self.encode(header, key, &response)
            }
            RequestBody::JoinGroup(request) => {
                let response = self.join(request).await;
                self.encode(header, key, &response)
            }
            RequestBody::SyncGroup(request) => {
                let response = self.sync(request).await;
                self.encode(header, key, &response)
            }
            RequestBody::Heartbeat(request) => {
                let error_code = self.member_error(&request.member_id, request.generation_id).code();
                self.encode(header, key, &HeartbeatResponse { error_code, ..Default::default() })
            }
            RequestBody::LeaveGroup(request) => {
                let mut group = self.group.borrow_mut();
                request.members.iter().for_each(|member| drop(group.members.remove(&*member.member_id)));
                group.joining.get_or_insert_default();
                drop(group);
                self.close_join_later();
                self.encode(header, key, &LeaveGroupResponse::default())
            }
            RequestBody::OffsetCommit(request) => self.encode(header, key, &self.commit(&request)),
            RequestBody::OffsetFetch(request) => self.encode(header, key, &self.committed(&request)),
            request => self.administer(header, key, request),
        }
    }

    fn encode<M: Message>(&self, header: &RequestHeader, key: ApiKey, response: &M) -> Option<Vec<Bytes>> {
        Some(encode_response(header.correlation_id, key, header.api_version, response))
    }

    fn api_versions(&self) -> ApiVersionsResponse {
        let keys = [0i16, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 21, 22, 32, 35, 37, 42, 44, 47, 60];
        let listed = |api_key: i16| {
            let key = ApiKey::try_from(api_key).unwrap();
            let versions = key.valid_versions();
            let max = if key == ApiKey::ApiVersions { 2 } else { *versions.end() };
            ApiVersion { api_key, min_version: *versions.start(), max_version: max }
        };
        ApiVersionsResponse { api_keys: keys.map(listed).into(), ..Default::default() }
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let wanted: Vec<String> = match &request.topics {
            None => self.created.borrow().iter().cloned().collect(),
            Some(topics) => {
                topics.iter().filter_map(|topic| Some(topic.name.as_ref()?.to_string())).collect()
            }
        };
        let topics = wanted.into_iter().map(|name| self.topic(name, request.allow_auto_topic_creation));
        let host = MetadataResponseBroker {
            host: "127.0.0.1".into(),
            port: self.port.get().into(),
            ..Default::default()
        };
        MetadataResponse {
            brokers: vec![host],
            controller_id: 0,
            topics: topics.collect(),
            ..Default::default()
        }
    }

    /// The first answer about a topic that is created says that it is unknown (contract P7).
    fn topic(&self, name: String, create: bool) -> MetadataResponseTopic {
        let mut created = self.created.borrow_mut();
        if !created.contains(&name) {
            if create {
                created.insert(name.clone());
            }
            let error_code = ErrorCode::UnknownTopicOrPartition.code();
            return MetadataResponseTopic { error_code, name: Some(name.into()), ..Default::default() };
        }
        let partition = |partition_index| MetadataResponsePartition { partition_index, ..Default::default() };
        MetadataResponseTopic {
            name: Some(name.into()),
            partitions: (0..self.partitions.get()).map(partition).collect(),
            ..Default::default()
        }
    }

    fn produce(&self, request: ProduceRequest) -> Option<ProduceResponse> {
        self.produced.set(self.produced.get() + 1);
        let fault = self.faults.borrow_mut().pop();
        if fault == Some(Fault::LoseRequest) {
            return None;
        }
        let topic = &request.topic_data[0];
        let partition = &topic.partition_data[0];
        let (error, base_offset) = match fault {
            Some(Fault::NotLeader) => (ErrorCode::NotLeaderOrFollower, -1),
            Some(Fault::Refuse) => (ErrorCode::TopicAuthorizationFailed, -1),
            _ => self.append(&topic.name, partition.index, partition.records.as_ref().unwrap()),
        };
        if fault == Some(Fault::LoseAnswer) {
            return None;
        }
        let answer = PartitionProduceResponse {
            index: partition.index,
            error_code: error.code(),
            base_offset,
            ..Default::default()
        };
        let topic = TopicProduceResponse {
            name: topic.name.clone(),
            partition_responses: vec![answer],
            ..Default::default()
        };
        Some(ProduceResponse { responses: vec![topic], ..Default::default() })
    }

    fn append(&self, topic: &str, partition: i32, records: &Bytes) -> (ErrorCode, i64) {
        let header = BatchHeader::parse(records).unwrap();
        let mut logs = self.logs.borrow_mut();
        let log = logs.entry((topic.to_owned(), partition)).or_default();
        if header.producer_id >= 0 {
            let expected = log.sequences.get(&header.producer_id).copied().unwrap_or(0);
            if header.base_sequence < expected {
                return (ErrorCode::DuplicateSequenceNumber, -1);
            }
            if header.base_sequence > expected {
                return (ErrorCode::OutOfOrderSequenceNumber, -1);
            }
            log.sequences.insert(header.producer_id, expected + header.record_count);
        }
        let base = log.end;
        let mut stored = records.to_vec();
        set_base_offset(&mut stored, base);
        log.end += i64::from(header.record_count);
        log.batches.push((base, log.end, stored.into()));
        (ErrorCode::None, base)
    }

    fn list_offsets(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let refusal = self.refusals.borrow_mut().pop().unwrap_or(ErrorCode::None);
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                error_code: refusal.code(),
                offset: match asked.timestamp {
                    -2 => 0,
                    -1 => self.end_offset(&topic.name, asked.partition_index),
                    _ => -1,
                },
                ..Default::default()
            });
            ListOffsetsTopicResponse { name: topic.name.clone(), partitions: partitions.collect() }
        });
        ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
    }

    async fn fetch(&self, request: &FetchRequest) -> FetchResponse {
        let has_data = || {
            request.topics.iter().any(|topic| {
                topic.partitions.iter().any(|p| self.end_offset(&topic.topic, p.partition) != p.fetch_offset)
            })
        };
        let mut waited = 0;
        while !has_data() && waited < request.max_wait_ms {
            sleep(Duration::from_millis(10)).await;
            waited += 10;
        }
        let logs = self.logs.borrow();
        let responses = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let log = logs.get(&(topic.topic.to_string(), asked.partition));
                let end = log.map_or(0, |log| log.end);
                let out_of_range = asked.fetch_offset > end;
                let found =
                    log.and_then(|log| log.batches.iter().find(|(_, end, _)| *end > asked.fetch_offset));
                FetchPartitionData {
                    partition_index: asked.partition,
                    error_code: if out_of_range { ErrorCode::OffsetOutOfRange.code() } else { 0 },
                    high_watermark: end,
                    records: found.map(|(_, _, batch)| batch.clone().into()),
                    ..Default::default()
                }
            });
            FetchableTopicResponse {
                topic: topic.topic.clone(),
                partitions: partitions.collect(),
                ..Default::default()
            }
        });
        FetchResponse { responses: responses.collect(), ..Default::default() }
    }

    async fn join(self: &Rc<Self>, request: JoinGroupRequest) -> JoinGroupResponse {
        if request.member_id.is_empty() {
            let mut group = self.group.borrow_mut();
            group.next_member += 1;
            let member_id = format!("member-{}", group.next_member).into();
            let error_code = ErrorCode::MemberIdRequired.code();
            return JoinGroupResponse { error_code, member_id, ..Default::default() };
        }
        let first = {
            let mut group = self.group.borrow_mut();
            let first = group.joining.is_none();
            let metadata = request.protocols[0].metadata.clone();
            group.joining.get_or_insert_default().insert(request.member_id.to_string(), metadata);
            first
        };
        if first {
            self.close_join_later();
        }
        loop {
            let changed = self.group_changed.listen();
            if self.group.borrow().joining.is_none() {
                break;
            }
            changed.await;
        }
        let group = self.group.borrow();
        let leader = group.members.keys().next().cloned().unwrap_or_default();
        let members = group.members.iter().map(|(id, metadata)| JoinGroupResponseMember {
            member_id: id.as_str().into(),
            metadata: metadata.clone(),
            ..Default::default()
        });
        JoinGroupResponse {
            generation_id: group.generation,
            protocol_name: Some("range".into()),
            members: if *leader == *request.member_id { members.collect() } else { Vec::new() },
            leader: leader.into(),
            member_id: request.member_id,
            ..Default::default()
        }
    }

    fn close_join_later(self: &Rc<Self>) {
        let broker = Rc::clone(self);
        drop(spawn(async move {
            sleep(REBALANCE).await;
            let mut group = broker.group.borrow_mut();
            if let Some(joining) = group.joining.take() {
                group.members = joining;
                group.generation += 1;
                group.assignments.clear();
            }
            drop(group);
            broker.group_changed.notify_all();
        }));
    }

    async fn sync(self: &Rc<Self>, request: SyncGroupRequest) -> SyncGroupResponse {
        if !request.assignments.is_empty() {
            let given = request.assignments.iter().map(|a| (a.member_id.to_string(), a.assignment.clone()));
            self.group.borrow_mut().assignments = given.collect();
            self.group_changed.notify_all();
        }
        loop {
            let changed = self.group_changed.listen();
            let error = self.member_error(&request.member_id, request.generation_id);
            let assignment = self.group.borrow().assignments.get(&*request.member_id).cloned();
            if !error.is_none() || assignment.is_some() {
                let assignment = assignment.unwrap_or_default();
                return SyncGroupResponse { error_code: error.code(), assignment, ..Default::default() };
            }
            changed.await;
        }
    }

    fn member_error(&self, member_id: &str, generation: i32) -> ErrorCode {
        let group = self.group.borrow();
        match () {
            _ if !group.members.contains_key(member_id) => ErrorCode::UnknownMemberId,
            _ if group.joining.is_some() => ErrorCode::RebalanceInProgress,
            _ if group.generation != generation => ErrorCode::IllegalGeneration,
            _ => ErrorCode::None,
        }
    }

    fn commit(&self, request: &OffsetCommitRequest) -> OffsetCommitResponse {
        let from_outside = request.member_id.is_empty() && !self.group.borrow().members.is_empty();
        let error = if from_outside { ErrorCode::UnknownMemberId } else { ErrorCode::None };
        let mut commits = self.commits.borrow_mut();
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| {
                if error.is_none() {
                    commits.insert((topic.name.to_string(), p.partition_index), p.committed_offset);
                }
                let partition_index = p.partition_index;
                OffsetCommitResponsePartition { partition_index, error_code: error.code() }
            });
            OffsetCommitResponseTopic { name: topic.name.clone(), partitions: partitions.collect() }
        });
        OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
    }

    fn committed(&self, request: &OffsetFetchRequest) -> OffsetFetchResponse {
        let commits = self.commits.borrow();
        let group = &request.groups[0];
        let asked = group.topics.as_ref().map(|topics| {
            let all = topics.iter().flat_map(|topic| {
                topic.partition_indexes.iter().map(move |index| (topic.name.to_string(), *index))
            });
            all.collect::<Vec<_>>()
        });
        let topics = asked.unwrap_or_else(|| commits.keys().cloned().collect()).into_iter().map(|key| {
            let committed_offset = commits.get(&key).copied().unwrap_or(-1);
            let partition = OffsetFetchResponsePartitions {
                partition_index: key.1,
                committed_offset,
                ..Default::default()
            };
            OffsetFetchResponseTopics { name: key.0.into(), partitions: vec![partition] }
        });
        let answer = OffsetFetchResponseGroup {
            group_id: group.group_id.clone(),
            topics: topics.collect(),
            ..Default::default()
        };
        OffsetFetchResponse { groups: vec![answer], ..Default::default() }
    }
}

impl Service for Broker {
    fn call(self: &Rc<Self>, request: Request) -> impl Future<Output = Reply> + 'static {
        let broker = Rc::clone(self);
        async move {
            let no_answer = request.header.api_key == 0 && request.body.get(4..6) == Some(&[0, 0]);
            match broker.answer(&request.header, request.body).await {
                Some(_) if no_answer => Reply::nothing(),
                Some(frame) => Reply::send(frame),
                None => Reply::Close,
            }
        }
    }
}
