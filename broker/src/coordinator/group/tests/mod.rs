//! Scenarios, each named by what must hold.

mod deletion;
mod durability;
mod figures;
mod joining;
mod offsets;
mod properties;
mod rebalances;
mod static_members;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, MemberIdentity, OffsetCommitRequest, OffsetCommitRequestPartition,
    OffsetCommitRequestTopic, OffsetCommitResponse, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};

use super::{Answer, AnswerId, Client, CoordinatorResult, GroupConfig, GroupShard, Millis, WriteId};
use crate::coordinator::result::{Record, Write};

const GROUP: &str = "readers";
const START: Millis = Millis(1_700_000_000_000);

/// A shell in memory: a log, a clock, and the answers that have come.
struct Shell {
    shard: GroupShard,
    now: Millis,
    /// What is durable.
    log: Vec<Record>,
    /// Appended, and not yet below the high watermark.
    open: Vec<Write>,
    /// Whether appended records become durable at once.
    is_fast: bool,
    answers: BTreeMap<AnswerId, Answer>,
    next_answer: u64,
    /// Answers that a scenario has read.
    taken: BTreeSet<AnswerId>,
}

impl Shell {
    fn new() -> Self {
        Self::with_config(GroupConfig::default())
    }

    fn with_config(config: GroupConfig) -> Self {
        Self {
            shard: GroupShard::new(config, 7),
            now: START,
            log: Vec::new(),
            open: Vec::new(),
            is_fast: true,
            answers: BTreeMap::new(),
            next_answer: 0,
            taken: BTreeSet::new(),
        }
    }

    fn next_id(&mut self) -> AnswerId {
        self.next_answer += 1;
        AnswerId(self.next_answer)
    }

    fn take_in(&mut self, result: CoordinatorResult) {
        for (id, answer) in result.answers {
            let twin = self.answers.insert(id, answer);
            assert!(twin.is_none() && !self.taken.contains(&id), "{id:?} is answered once");
            assert!(id.0 <= self.next_answer, "{id:?} was asked");
        }
        self.open.extend(result.writes);
        self.shard.groups.values().for_each(|entry| entry.live.assert_consistent());
        if self.is_fast {
            self.settle(usize::MAX);
        }
    }

    /// Lets the high watermark pass the next writes.
    fn settle(&mut self, count: usize) {
        for _ in 0..count {
            if self.open.is_empty() {
                break;
            }
            let write = self.open.remove(0);
            assert!(!write.records.is_empty());
            self.log.extend(write.records);
            let result = self.shard.on_write_done(write.id, Ok(()), self.now);
            self.take_in(result);
        }
    }

    /// Fails the oldest open write.
    fn fail(&mut self, code: ErrorCode) -> WriteId {
        let id = self.open.remove(0).id;
        let result = self.shard.on_write_done(id, Err(code), self.now);
        self.take_in(result);
        id
    }

    /// Lets time pass, handling every deadline at its time.
    fn pass(&mut self, ms: u64) {
        let end = Millis(self.now.0 + ms);
        while let Some(at) = self.shard.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let result = self.shard.on_timer(self.now);
            self.take_in(result);
        }
        self.now = end;
    }

    /// The coordinator starts anew from the log.
    fn restart(&mut self) {
        self.shard = loaded(&self.log, self.shard.config.clone(), self.next_answer);
        self.open.clear();
        let result = self.shard.on_loaded(self.now);
        self.take_in(result);
    }

    fn join(&mut self, request: JoinGroupRequest, version: i16) -> AnswerId {
        let id = self.next_id();
        let client = Client { version, client_id: "app".into(), host: "/127.0.0.1".into() };
        let result = self.shard.handle_join(id, request, client, self.now);
        self.take_in(result);
        id
    }

    fn sync(&mut self, request: SyncGroupRequest) -> AnswerId {
        let id = self.next_id();
        let result = self.shard.handle_sync(id, request, self.now);
        self.take_in(result);
        id
    }

    fn heartbeat_code(&mut self, member: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            member_id: member.into(),
            generation_id: generation,
            ..Default::default()
        };
        let id = self.next_id();
        let result = self.shard.handle_heartbeat(id, &request, self.now);
        self.take_in(result);
        match self.take(id) {
            Some(Answer::Heartbeat(response)) => ErrorCode::from_code(response.error_code),
            other => panic!("a heartbeat is answered at once: {other:?}"),
        }
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> LeaveGroupResponse {
        let identity = |(id, instance): &(&str, Option<&str>)| MemberIdentity {
            member_id: (*id).into(),
            group_instance_id: instance.map(Into::into),
            reason: None,
        };
        let request = LeaveGroupRequest {
            group_id: GROUP.into(),
            members: members.iter().map(identity).collect(),
            ..Default::default()
        };
        let id = self.next_id();
        let result = self.shard.handle_leave(id, request, 5, self.now);
        self.take_in(result);
        match self.take(id) {
            Some(Answer::Leave(response)) => response,
            other => panic!("no answer to leave: {other:?}"),
        }
    }

    fn commit(&mut self, request: OffsetCommitRequest) -> AnswerId {
        let id = self.next_id();
        let result = self.shard.handle_offset_commit(id, request, 9, self.now);
        self.take_in(result);
        id
    }

    fn is_open(&self, id: AnswerId) -> bool {
        !self.answers.contains_key(&id) && !self.taken.contains(&id)
    }

    fn take(&mut self, id: AnswerId) -> Option<Answer> {
        let answer = self.answers.remove(&id)?;
        self.taken.insert(id);
        Some(answer)
    }

    fn joined(&mut self, id: AnswerId) -> JoinGroupResponse {
        match self.take(id) {
            Some(Answer::Join(response)) => response,
            other => panic!("no join for {id:?}: {other:?}"),
        }
    }

    fn synced(&mut self, id: AnswerId) -> SyncGroupResponse {
        match self.take(id) {
            Some(Answer::Sync(response)) => response,
            other => panic!("no sync for {id:?}: {other:?}"),
        }
    }

    fn committed(&mut self, id: AnswerId) -> OffsetCommitResponse {
        match self.take(id) {
            Some(Answer::OffsetCommit(response)) => response,
            other => panic!("no commit for {id:?}: {other:?}"),
        }
    }

    fn state(&self) -> String {
        self.shard.describe(&GROUP.into(), 5).group_state.to_string()
    }

    fn fetched(&self, topic: &str, partition: i32) -> i64 {
        let wanted = OffsetFetchRequestTopics { name: topic.into(), partition_indexes: vec![partition] };
        let request = OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            topics: Some(vec![wanted]),
            ..Default::default()
        };
        self.shard.offset_fetch(&request).topics[0].partitions[0].committed_offset
    }

    /// Lets a new dynamic member join at the newest version: the id first, then the wait.
    fn enter(&mut self) -> (ByteString, AnswerId) {
        let first = self.join(join_as(""), 9);
        let response = self.joined(first);
        assert_eq!(code(response.error_code), ErrorCode::MemberIdRequired); // KIP-394
        let second = self.join(join_as(&response.member_id), 9);
        (response.member_id, second)
    }

    /// A stable group of `size` dynamic members, the leader first, and its generation.
    fn stable_group(&mut self, size: usize) -> (Vec<ByteString>, i32) {
        let entered: Vec<_> = (0..size).map(|_| self.enter()).collect();
        self.pass(10_000);
        self.settle_generation(&entered)
    }

    /// Takes the members from their joins to a stable group; gives their ids, the leader first.
    fn settle_generation(&mut self, entered: &[(ByteString, AnswerId)]) -> (Vec<ByteString>, i32) {
        let responses: Vec<_> = entered.iter().map(|(_, join)| self.joined(*join)).collect();
        assert!(
            responses.iter().all(|response| code(response.error_code) == ErrorCode::None),
            "{responses:?}"
        );
        let leader = responses[0].leader.clone();
        let generation = responses[0].generation_id;
        let mut ids: Vec<_> = responses.into_iter().map(|response| response.member_id).collect();
        ids.sort_by_key(|id| *id != leader);
        let followers: Vec<_> = ids[1..].iter().map(|id| self.sync(sync_as(id, generation, &[]))).collect();
        assert!(followers.iter().all(|sync| self.is_open(*sync)));
        let lead = self.sync(sync_as(&leader, generation, &ids));
        for (id, sync) in ids.iter().zip([lead].into_iter().chain(followers)) {
            assert_eq!(self.synced(sync).assignment, assignment_of(id));
        }
        assert_eq!(self.state(), "Stable");
        (ids, generation)
    }
}

fn loaded(log: &[Record], config: GroupConfig, seed: u64) -> GroupShard {
    let mut shard = GroupShard::new(config, seed);
    for record in log {
        shard.replay(&record.key, record.value.as_deref()).expect("own records decode");
    }
    shard
}

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

fn protocol(name: &str, metadata: &'static [u8]) -> JoinGroupRequestProtocol {
    JoinGroupRequestProtocol { name: name.into(), metadata: Bytes::from_static(metadata) }
}

fn join_as(member: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", b"\0\0\0\0\0\0\xff\xff\xff\xff")],
        ..Default::default()
    }
}

fn static_join(instance: &str, member: &str) -> JoinGroupRequest {
    JoinGroupRequest { group_instance_id: Some(instance.into()), ..join_as(member) }
}

fn assignment_of(member: &str) -> Bytes {
    Bytes::from(format!("for {member}\0\u{1F525}"))
}

fn sync_as(member: &str, generation: i32, assigned: &[ByteString]) -> SyncGroupRequest {
    let given =
        |id: &ByteString| SyncGroupRequestAssignment { member_id: id.clone(), assignment: assignment_of(id) };
    SyncGroupRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        generation_id: generation,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: assigned.iter().map(given).collect(),
        ..Default::default()
    }
}

fn commit_as(member: &str, generation: i32, topic: &str, partition: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: partition,
        committed_offset: offset,
        committed_leader_epoch: 4,
        committed_metadata: Some("note".into()),
    };
    OffsetCommitRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        generation_id_or_member_epoch: generation,
        topics: vec![OffsetCommitRequestTopic { name: topic.into(), partitions: vec![partition] }],
        ..Default::default()
    }
}
