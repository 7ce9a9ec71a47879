//! Reading as a member of a consumer group: the classic protocol, with the range assignor.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use heizer_runtime::sync::Event;
use heizer_runtime::task::spawn;
use heizer_runtime::time::{Instant, now, sleep};
use heizer_wire::messages::{
    AssignmentTopicPartition, ConsumerProtocolAssignment, ConsumerProtocolSubscription, HeartbeatRequest,
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, LeaveGroupRequest, MemberIdentity,
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, SyncGroupRequest,
    SyncGroupRequestAssignment,
};
use heizer_wire::{ApiKey, ErrorCode, Message, Reader, encode_versioned};

use crate::assignor::{Assignment, MemberKey, range};
use crate::client::Client;
use crate::connection::Connection;
use crate::consumer::{ConsumedRecord, Consumer, ConsumerConfig};
use crate::error::{ClientError, check};
use crate::offsets::StartOffset;
use crate::pool::Pool;

pub(crate) const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL_RANGE: &str = "range";
/// Version of the subscription and assignment that we write.
const CONSUMER_PROTOCOL_VERSION: i16 = 1;
/// How long an assignment waits for a topic that is being created.
const TOPIC_WAIT: Duration = Duration::from_secs(2);

/// Settings of a [`GroupConsumer`], under Kafka's names where Kafka has them.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// `group.id`.
    pub group_id: String,
    /// `group.instance.id`: makes a static member (KIP-345).
    pub group_instance_id: Option<String>,
    /// The topics to subscribe to.
    pub topics: Vec<String>,
    /// `session.timeout.ms`.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`: how long the others wait for this member in a rebalance.
    pub rebalance_timeout: Duration,
    /// `auto.commit.interval.ms`; `None` for `enable.auto.commit=false`.
    pub auto_commit: Option<Duration>,
    /// `auto.offset.reset`, for partitions without a committed offset.
    pub offset_reset: StartOffset,
    /// How partitions are read.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// Kafka's defaults.
    pub fn new(
        group_id: impl Into<String>,
        topics: impl IntoIterator<Item = impl Into<String>>,
    ) -> GroupConfig {
        GroupConfig {
            group_id: group_id.into(),
            group_instance_id: None,
            topics: topics.into_iter().map(Into::into).collect(),
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(300),
            auto_commit: Some(Duration::from_secs(5)),
            offset_reset: StartOffset::Latest,
            consumer: ConsumerConfig::default(),
        }
    }
}

/// A member of a consumer group.
pub struct GroupConsumer {
    client: Client,
    config: Rc<GroupConfig>,
    consumer: Consumer,
    pool: Rc<Pool>,
    member_id: String,
    session: Option<Rc<Session>>,
    committed: BTreeMap<(String, i32), i64>,
    commit_due: Instant,
}

/// One generation of this member's membership, shared with the task that sends its heartbeats.
struct Session {
    client: Client,
    pool: Rc<Pool>,
    config: Rc<GroupConfig>,
    generation: i32,
    member_id: String,
    coordinator: RefCell<Option<Connection>>,
    ended: Cell<Option<Ended>>,
    changed: Event,
}

/// Why a membership has to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The group rebalances: join again.
    Rebalance,
    /// The group has forgotten this member: join as a new one.
    Forgotten,
    /// Another member with this instance id took over (KIP-345).
    Fenced,
    /// This member leaves.
    Left,
}

impl GroupConsumer {
    /// A member-to-be: it joins at the first [`GroupConsumer::poll`].
    pub fn new(client: &Client, config: GroupConfig) -> GroupConsumer {
        let consumer = ConsumerConfig { offset_reset: Some(config.offset_reset), ..config.consumer.clone() };
        GroupConsumer {
            client: client.clone(),
            consumer: Consumer::new(client, consumer),
            pool: Rc::new(client.new_pool()),
            commit_due: Instant::ZERO,
            config: Rc::new(config),
            member_id: String::new(),
            session: None,
            committed: BTreeMap::new(),
        }
    }

    /// What this member has been assigned: topic, partition, and the offset it reads next.
    pub fn positions(&self) -> impl Iterator<Item = (&Rc<str>, i32, i64)> {
        self.consumer.positions()
    }

    /// The member id that the coordinator gave, empty before the first join.
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// Up to `max.poll.records` records; none when nothing comes within `wait` (a rebalance may take longer).
    /// Joins, rejoins and commits as needed.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        let deadline = now() + wait;
        loop {
            let session = match &self.session {
                Some(session) if session.ended.get().is_none() => Rc::clone(session),
                _ => self.join().await?,
            };
            self.commit_when_due().await;
            let changed = session.changed.listen();
            if session.ended.get().is_some() {
                continue;
            }
            let left = deadline.saturating_duration_since(now());
            let polled = {
                let poll = std::pin::pin!(self.consumer.poll(left));
                match select(poll, changed).await {
                    Either::Left((records, _)) => Some(records?),
                    Either::Right(_) => None,
                }
            };
            match polled {
                Some(records) => return Ok(records),
                None if now() >= deadline => return Ok(Vec::new()),
                None => {}
            }
        }
    }

    /// Commits what has been handed out.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        let Some(session) = self.session.as_ref().map(Rc::clone) else { return Ok(()) };
        let positions: BTreeMap<(String, i32), i64> = self
            .consumer
            .positions()
            .map(|(topic, partition, offset)| ((topic.to_string(), partition), offset))
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .collect();
        if positions.is_empty() {
            return Ok(());
        }
        let mut retry = self.client.retry();
        loop {
            match session.commit(&positions).await {
                Ok(()) => break,
                Err(error) => {
                    if !session.note(&error) {
                        session.coordinator.borrow_mut().take();
                    }
                    retry.after("committing offsets", error).await?;
                }
            }
        }
        self.committed.extend(positions);
        Ok(())
    }

    /// Commits (if it commits by itself) and leaves the group. Static members don't leave: they come back.
    pub async fn close(mut self) -> Result<(), ClientError> {
        let committed = if self.config.auto_commit.is_some() { self.commit().await } else { Ok(()) };
        self.leave().await?;
        committed
    }

    /// Leaves the group without committing what has been handed out since the last commit.
    pub async fn leave(mut self) -> Result<(), ClientError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        session.end(Ended::Left);
        if self.config.group_instance_id.is_none() {
            session.leave().await?;
        }
        Ok(())
    }

    async fn commit_when_due(&mut self) {
        let Some(interval) = self.config.auto_commit else { return };
        if now() < self.commit_due {
            return;
        }
        self.commit_due = now() + interval;
        if let Err(error) = self.commit().await {
            tracing::debug!(group = self.config.group_id, %error, "automatic commit; the next one covers it");
        }
    }

    /// Joins until there is an assignment, and reads on from the committed offsets.
    async fn join(&mut self) -> Result<Rc<Session>, ClientError> {
        if let Some(previous) = self.session.as_ref().map(Rc::clone) {
            match previous.ended.get() {
                Some(Ended::Fenced) => return Err(previous.fenced()),
                Some(Ended::Forgotten) => self.member_id.clear(),
                _ if self.config.auto_commit.is_some() => {
                    if let Err(error) = self.commit().await {
                        tracing::debug!(group = self.config.group_id, %error, "commit before a rebalance");
                    }
                }
                _ => {}
            }
            self.session = None;
        }
        let mut retry =
            self.client.retry_within(self.config.rebalance_timeout + self.client.config().api_timeout);
        loop {
            let error = match self.try_join().await {
                Ok(session) => {
                    drop(spawn(heartbeat(Rc::clone(&session))));
                    self.commit_due = now() + self.config.auto_commit.unwrap_or_default();
                    self.session = Some(Rc::clone(&session));
                    return Ok(session);
                }
                Err(error) => error,
            };
            let what = format!("joining group {}", self.config.group_id);
            match error.code() {
                // The id to come back with has been noted (KIP-394).
                Some(ErrorCode::MemberIdRequired) => {}
                Some(ErrorCode::RebalanceInProgress) => retry.again(&what, error).await?,
                Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => {
                    self.member_id.clear();
                    retry.again(&what, error).await?;
                }
                _ => retry.after(&what, error).await?,
            }
        }
    }

    async fn try_join(&mut self) -> Result<Rc<Session>, ClientError> {
        let addr = self.client.group_coordinator(&self.config.group_id).await?;
        let coordinator = self.pool.connect(&addr).await?;
        let joined =
            coordinator.request_with(&self.join_request(), i16::MAX, self.config.rebalance_timeout).await?;
        if !joined.member_id.is_empty() {
            // Also with MEMBER_ID_REQUIRED (KIP-394): it is the id to come back with.
            self.member_id = joined.member_id.to_string();
        }
        check(coordinator.addr(), ApiKey::JoinGroup, || self.subject(), joined.error_code, None)?;
        let assignments = if joined.leader == joined.member_id && !joined.skip_assignment {
            self.assign_members(&joined).await?
        } else {
            Vec::new()
        };
        let request = SyncGroupRequest {
            group_id: self.config.group_id.as_str().into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            group_instance_id: self.config.group_instance_id.as_deref().map(Into::into),
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: Some(PROTOCOL_RANGE.into()),
            assignments,
        };
        let synced = coordinator.request_with(&request, i16::MAX, self.config.rebalance_timeout).await?;
        check(coordinator.addr(), ApiKey::SyncGroup, || self.subject(), synced.error_code, None)?;
        let malformed = |source| ClientError::Decode {
            addr: coordinator.addr().to_owned(),
            api: ApiKey::SyncGroup,
            source,
        };
        let assignment = decode_newest::<ConsumerProtocolAssignment>(synced.assignment).map_err(malformed)?;
        let session = Rc::new(Session {
            client: self.client.clone(),
            pool: Rc::clone(&self.pool),
            config: Rc::clone(&self.config),
            generation: joined.generation_id,
            member_id: self.member_id.clone(),
            coordinator: RefCell::new(Some(coordinator)),
            ended: Cell::new(None),
            changed: Event::default(),
        });
        self.start_reading(&session, assignment.unwrap_or_default()).await?;
        Ok(session)
    }

    fn join_request(&self) -> JoinGroupRequest {
        let config = &self.config;
        let subscription = ConsumerProtocolSubscription {
            topics: config.topics.iter().map(|topic| topic.as_str().into()).collect(),
            ..Default::default()
        };
        JoinGroupRequest {
            group_id: config.group_id.as_str().into(),
            session_timeout_ms: millis(config.session_timeout),
            rebalance_timeout_ms: millis(config.rebalance_timeout),
            member_id: self.member_id.as_str().into(),
            group_instance_id: config.group_instance_id.as_deref().map(Into::into),
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: PROTOCOL_RANGE.into(),
                metadata: encode_versioned(&subscription, CONSUMER_PROTOCOL_VERSION),
            }],
            reason: None,
        }
    }

    fn subject(&self) -> String {
        format!("group {}", self.config.group_id)
    }

    /// As the group's leader: who gets what.
    async fn assign_members(
        &self,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<SyncGroupRequestAssignment>, ClientError> {
        let mut members = BTreeMap::new();
        for member in &joined.members {
            // A subscription that doesn't parse is the member's own fault: it gets nothing.
            let subscription = decode_newest::<ConsumerProtocolSubscription>(member.metadata.clone());
            let topics = subscription.ok().flatten().unwrap_or_default().topics;
            let key = MemberKey::new(&member.member_id, member.group_instance_id.as_deref());
            members.insert(key, topics.iter().map(ToString::to_string).collect::<Vec<String>>());
        }
        let topics: BTreeSet<String> = members.values().flatten().cloned().collect();
        let mut counts = BTreeMap::new();
        for topic in topics {
            match self.client.partition_count_within(&topic, true, TOPIC_WAIT).await {
                Ok(count) => drop(counts.insert(topic, count)),
                Err(error) => tracing::debug!(topic, %error, "subscribed, but not there to assign"),
            }
        }
        let assigned = range(&members, &counts);
        Ok(assigned
            .into_iter()
            .map(|(member_id, assignment)| encode_assignment(&member_id, &assignment))
            .collect())
    }

    async fn start_reading(
        &mut self,
        session: &Session,
        assignment: ConsumerProtocolAssignment,
    ) -> Result<(), ClientError> {
        let assigned: Assignment = assignment
            .assigned_partitions
            .into_iter()
            .map(|topic| (topic.topic.to_string(), topic.partitions))
            .collect();
        self.committed = session.committed(&assigned).await?;
        let mut starts = Vec::new();
        for (topic, partitions) in &assigned {
            for &partition in partitions {
                let committed = self.committed.get(&(topic.clone(), partition));
                let start = committed.map_or(self.config.offset_reset, |&offset| StartOffset::At(offset));
                starts.push((topic.as_str(), partition, start));
            }
        }
        self.consumer.assign(&starts).await
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.end(Ended::Left);
        }
    }
}

impl Session {
    fn end(&self, why: Ended) {
        self.ended.set(Some(why));
        self.changed.notify_all();
    }

    fn fenced(&self) -> ClientError {
        ClientError::Broker {
            addr: "the coordinator".to_owned(),
            api: ApiKey::Heartbeat,
            subject: format!("group {}", self.config.group_id),
            code: ErrorCode::FencedInstanceId,
            message: None,
        }
    }

    /// Whether an error says that the membership is over; if so, remembers it.
    fn note(&self, error: &ClientError) -> bool {
        let why = match error.code() {
            Some(ErrorCode::RebalanceInProgress) => Ended::Rebalance,
            Some(ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId) => Ended::Forgotten,
            Some(ErrorCode::FencedInstanceId) => Ended::Fenced,
            _ => return false,
        };
        self.end(why);
        true
    }

    async fn coordinator(&self) -> Result<Connection, ClientError> {
        let known = self.coordinator.borrow().as_ref().filter(|known| !known.is_closed()).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let addr = self.client.group_coordinator(&self.config.group_id).await?;
        let found = self.pool.connect(&addr).await?;
        *self.coordinator.borrow_mut() = Some(found.clone());
        Ok(found)
    }

    fn subject(&self) -> String {
        format!("group {}", self.config.group_id)
    }

    fn instance_id<S: for<'a> From<&'a str>>(&self) -> Option<S> {
        self.config.group_instance_id.as_deref().map(Into::into)
    }

    async fn heartbeat(&self) -> Result<(), ClientError> {
        let coordinator = self.coordinator().await?;
        let request = HeartbeatRequest {
            group_id: self.config.group_id.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.as_str().into(),
            group_instance_id: self.instance_id(),
        };
        let response = coordinator.request(&request).await?;
        check(coordinator.addr(), ApiKey::Heartbeat, || self.subject(), response.error_code, None)
    }

    async fn leave(&self) -> Result<(), ClientError> {
        let coordinator = self.coordinator().await?;
        let member = MemberIdentity { member_id: self.member_id.as_str().into(), ..Default::default() };
        let request = LeaveGroupRequest {
            group_id: self.config.group_id.as_str().into(),
            member_id: self.member_id.as_str().into(),
            members: vec![member],
        };
        let response = coordinator.request(&request).await?;
        check(coordinator.addr(), ApiKey::LeaveGroup, || self.subject(), response.error_code, None)
    }

    async fn commit(&self, positions: &BTreeMap<(String, i32), i64>) -> Result<(), ClientError> {
        let coordinator = self.coordinator().await?;
        let topics = commit_topics(positions);
        let request = OffsetCommitRequest {
            group_id: self.config.group_id.as_str().into(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.as_str().into(),
            group_instance_id: self.instance_id(),
            topics,
            ..Default::default()
        };
        let response = coordinator.request(&request).await?;
        for topic in &response.topics {
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let subject = || format!("group {}, {}-{index}", self.config.group_id, topic.name);
                check(coordinator.addr(), ApiKey::OffsetCommit, subject, partition.error_code, None)?;
            }
        }
        Ok(())
    }

    /// The committed offsets of what is assigned, as far as there are any.
    async fn committed(&self, assigned: &Assignment) -> Result<BTreeMap<(String, i32), i64>, ClientError> {
        let mut committed = BTreeMap::new();
        if assigned.is_empty() {
            return Ok(committed);
        }
        let coordinator = self.coordinator().await?;
        let response = coordinator.request(&self.committed_request(assigned)).await?;
        let api = ApiKey::OffsetFetch;
        check(coordinator.addr(), api, || self.subject(), response.error_code, None)?;
        let mut found = Vec::new();
        for topic in response.topics {
            for p in topic.partitions {
                found.push((topic.name.to_string(), p.partition_index, p.committed_offset, p.error_code));
            }
        }
        for group in response.groups {
            check(coordinator.addr(), api, || self.subject(), group.error_code, None)?;
            for topic in group.topics {
                for p in topic.partitions {
                    found.push((topic.name.to_string(), p.partition_index, p.committed_offset, p.error_code));
                }
            }
        }
        for (topic, partition, offset, code) in found {
            let subject = || format!("group {}, {topic}-{partition}", self.config.group_id);
            check(coordinator.addr(), api, subject, code, None)?;
            if offset >= 0 {
                committed.insert((topic, partition), offset);
            }
        }
        Ok(committed)
    }

    /// Filled for both shapes of the request; each version sends the one that it has.
    fn committed_request(&self, assigned: &Assignment) -> OffsetFetchRequest {
        let topics = assigned.iter().map(|(topic, partitions)| OffsetFetchRequestTopic {
            name: topic.as_str().into(),
            partition_indexes: partitions.clone(),
        });
        let batched = assigned.iter().map(|(topic, partitions)| OffsetFetchRequestTopics {
            name: topic.as_str().into(),
            partition_indexes: partitions.clone(),
        });
        OffsetFetchRequest {
            group_id: self.config.group_id.as_str().into(),
            topics: Some(topics.collect()),
            groups: vec![OffsetFetchRequestGroup {
                group_id: self.config.group_id.as_str().into(),
                topics: Some(batched.collect()),
                ..Default::default()
            }],
            require_stable: true,
        }
    }
}

/// Keeps a membership alive until it ends.
async fn heartbeat(session: Rc<Session>) {
    loop {
        let changed = session.changed.listen();
        if session.ended.get().is_some() {
            return;
        }
        select(sleep(session.config.heartbeat_interval), changed).await;
        if session.ended.get().is_some() {
            return;
        }
        if let Err(error) = session.heartbeat().await {
            tracing::debug!(group = session.config.group_id, %error, "heartbeat");
            if session.ended.get().is_none() && !session.note(&error) {
                session.coordinator.borrow_mut().take();
            }
        }
    }
}

fn encode_assignment(member_id: &str, assignment: &Assignment) -> SyncGroupRequestAssignment {
    let assigned_partitions = assignment.iter().map(|(topic, partitions)| AssignmentTopicPartition {
        topic: topic.as_str().into(),
        partitions: partitions.clone(),
    });
    let message = ConsumerProtocolAssignment {
        assigned_partitions: assigned_partitions.collect(),
        ..Default::default()
    };
    SyncGroupRequestAssignment {
        member_id: member_id.into(),
        assignment: encode_versioned(&message, CONSUMER_PROTOCOL_VERSION),
    }
}

/// Positions by partition, as OffsetCommit wants them.
pub(crate) fn commit_topics(positions: &BTreeMap<(String, i32), i64>) -> Vec<OffsetCommitRequestTopic> {
    let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
    for ((topic, partition), &offset) in positions {
        let partition = OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: offset,
            committed_metadata: Some("".into()),
            ..Default::default()
        };
        match topics.last_mut() {
            Some(last) if *last.name == **topic => last.partitions.push(partition),
            _ => topics
                .push(OffsetCommitRequestTopic { name: topic.as_str().into(), partitions: vec![partition] }),
        }
    }
    topics
}

/// A versioned message, or `None` for no bytes. Newer versions only append fields: they read as the newest we know.
pub(crate) fn decode_newest<M: Message>(bytes: Bytes) -> Result<Option<M>, heizer_wire::DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes);
    let version = reader.i16()?.min(*M::VERSIONS.end());
    M::decode(&mut reader, version).map(Some)
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
