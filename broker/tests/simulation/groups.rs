//! Consumer groups: members share, leave, die and come back; what they commit stays.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use heizer_client::{Connection, GroupConfig, GroupConsumer, StartOffset};
use heizer_runtime::{task, time};
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DescribeGroupsRequest, DescribedGroup, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    JoinGroupRequestProtocol, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, MemberIdentity,
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup, OffsetFetchResponsePartitions, SyncGroupRequest, SyncGroupRequestAssignment,
};

use crate::cluster::{Cluster, client, connect};
use crate::kafka::{self, ask, assert_code, batch};
use crate::seeds;

const PARTITIONS: i32 = 6;

/// Waits until the group has a coordinator that answers.
pub(crate) async fn find_coordinator(connection: &Connection, group: &str) {
    let deadline = time::now() + Duration::from_secs(30);
    loop {
        let request = FindCoordinatorRequest { coordinator_keys: vec![group.into()], ..Default::default() };
        let found = ErrorCode::from_code(ask(connection, &request).await.coordinators[0].error_code);
        if found == ErrorCode::None {
            let code = ErrorCode::from_code(describe(connection, group).await.error_code);
            if !code.retriable() {
                return;
            }
        }
        assert!(time::now() < deadline, "no coordinator of {group}: {found}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn describe(connection: &Connection, group: &str) -> DescribedGroup {
    let request = DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
    kafka::ask_at(connection, 5, &request).await.groups.remove(0)
}

/// The state of a group as both APIs tell it.
pub(crate) async fn state(connection: &Connection, group: &str) -> String {
    let described = describe(connection, group).await;
    assert_code(described.error_code, ErrorCode::None);
    let listed = ask(connection, &ListGroupsRequest::default()).await;
    assert_code(listed.error_code, ErrorCode::None);
    let listed = listed.groups.iter().find(|listed| &*listed.group_id == group);
    if let Some(listed) = listed {
        assert_eq!(listed.group_state, described.group_state);
        let filtered =
            ListGroupsRequest { states_filter: vec![described.group_state.clone()], ..Default::default() };
        let filtered = ask(connection, &filtered).await;
        assert!(filtered.groups.iter().any(|listed| &*listed.group_id == group));
    }
    described.group_state.to_string()
}

pub(crate) fn join_request(group: &str, member: &str, instance: Option<&str>) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.into(),
        group_instance_id: instance.map(Into::into),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: "m".into() }],
        reason: None,
    }
}

/// Joins, with the round trip for a member id (KIP-394).
pub(crate) async fn join(connection: &Connection, group: &str, instance: Option<&str>) -> JoinGroupResponse {
    let first = ask(connection, &join_request(group, "", instance)).await;
    if ErrorCode::from_code(first.error_code) != ErrorCode::MemberIdRequired {
        return first;
    }
    assert!(instance.is_none(), "static members have no such round trip");
    ask(connection, &join_request(group, &first.member_id, None)).await
}

pub(crate) async fn sync(
    connection: &Connection,
    group: &str,
    joined: &JoinGroupResponse,
    give: &[(&str, &str)],
) -> String {
    let assignment = |&(member, bytes): &(&str, &str)| SyncGroupRequestAssignment {
        member_id: member.into(),
        assignment: bytes.to_owned().into(),
    };
    let request = SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: joined.protocol_type.clone(),
        protocol_name: joined.protocol_name.clone(),
        assignments: give.iter().map(assignment).collect(),
    };
    let answer = ask(connection, &request).await;
    assert_code(answer.error_code, ErrorCode::None);
    String::from_utf8(answer.assignment.to_vec()).expect("what was sent")
}

async fn heartbeat(connection: &Connection, group: &str, joined: &JoinGroupResponse) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
    };
    ErrorCode::from_code(ask(connection, &request).await.error_code)
}

/// contract G1, G4
#[test]
fn a_group_goes_through_kafkas_states() {
    let mut cluster = Cluster::new(1);
    cluster.run(async {
        let connection = connect().await;
        find_coordinator(&connection, "g").await;
        assert_eq!(state(&connection, "g").await, "Dead", "a group that nobody knows");
        let one = join(&connection, "g", None).await;
        assert_eq!((one.error_code, one.generation_id), (0, 1));
        assert_eq!((&one.leader, one.members.len()), (&one.member_id, 1));
        assert_eq!(state(&connection, "g").await, "CompletingRebalance");
        assert_eq!(sync(&connection, "g", &one, &[(&one.member_id, "all")]).await, "all");
        assert_eq!(state(&connection, "g").await, "Stable");
        let described = describe(&connection, "g").await;
        assert_eq!((&*described.protocol_type, &*described.protocol_data), ("consumer", "range"));
        assert_eq!(&described.members[0].member_assignment[..], b"all");
        assert_eq!(heartbeat(&connection, "g", &one).await, ErrorCode::None);
        // A second member: the first hears of it by its heartbeat, and both join.
        let other = connect().await;
        let joining = task::spawn(async move { (join(&other, "g", None).await, other) });
        time::sleep(Duration::from_millis(200)).await;
        assert_eq!(state(&connection, "g").await, "PreparingRebalance");
        assert_eq!(heartbeat(&connection, "g", &one).await, ErrorCode::RebalanceInProgress);
        let one = ask(&connection, &join_request("g", &one.member_id, None)).await;
        let (two, other) = joining.await.expect("no panic");
        assert_eq!((one.generation_id, two.generation_id), (2, 2));
        assert_eq!((&one.leader, &two.leader), (&one.member_id, &one.member_id));
        assert_eq!((one.members.len(), two.members.len()), (2, 0), "only the leader is told of all");
        let give = [(&*one.member_id, "left"), (&*two.member_id, "right")];
        let (left, right) =
            futures::future::join(sync(&connection, "g", &one, &give), sync(&other, "g", &two, &[])).await;
        assert_eq!((&*left, &*right), ("left", "right"));
        // An old generation and a stranger are told so.
        let old = JoinGroupResponse { generation_id: 1, ..one.clone() };
        assert_eq!(heartbeat(&connection, "g", &old).await, ErrorCode::IllegalGeneration);
        let stranger = JoinGroupResponse { member_id: "stranger".into(), ..one.clone() };
        assert_eq!(heartbeat(&connection, "g", &stranger).await, ErrorCode::UnknownMemberId);
        let wrong = JoinGroupRequest { protocol_type: "connect".into(), ..join_request("g", "", None) };
        let wrong = ask(&connection, &wrong).await;
        assert_code(wrong.error_code, ErrorCode::InconsistentGroupProtocol);
        for member in [&one, &two] {
            let members = vec![MemberIdentity { member_id: member.member_id.clone(), ..Default::default() }];
            let request = LeaveGroupRequest { group_id: "g".into(), members, ..Default::default() };
            assert_code(ask(&connection, &request).await.error_code, ErrorCode::None);
        }
        assert_eq!(state(&connection, "g").await, "Empty");
    });
    cluster.finish();
}

/// contract G1: a static member that comes back within its session disturbs nobody (KIP-345).
#[test]
fn a_static_member_keeps_its_place() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let connection = connect().await;
        find_coordinator(&connection, "g").await;
        let first = join(&connection, "g", Some("a")).await;
        assert_code(first.error_code, ErrorCode::None);
        sync(&connection, "g", &first, &[(&first.member_id, "mine")]).await;
        let again = join(&connection, "g", Some("a")).await;
        assert_eq!((again.error_code, again.generation_id), (0, first.generation_id), "no rebalance");
        assert_ne!(again.member_id, first.member_id);
        assert_eq!(sync(&connection, "g", &again, &[]).await, "mine");
        assert_eq!(state(&connection, "g").await, "Stable");
        let request = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: first.generation_id,
            member_id: first.member_id.clone(),
            group_instance_id: Some("a".into()),
        };
        let fenced = ask(&connection, &request).await;
        assert_code(fenced.error_code, ErrorCode::FencedInstanceId);
    });
    cluster.finish();
}

/// What members have read: by value, how often.
type Read = Rc<RefCell<BTreeMap<String, usize>>>;

/// A member that reads until it is told to end, by leaving or by dying.
fn member(read: &Read, leave: &Rc<RefCell<Option<bool>>>) -> task::JoinHandle<BTreeSet<i32>> {
    let (read, leave) = (read.clone(), leave.clone());
    task::spawn(async move {
        let config = GroupConfig {
            offset_reset: StartOffset::Earliest,
            session_timeout: Duration::from_secs(6),
            heartbeat_interval: Duration::from_millis(500),
            auto_commit: Some(Duration::from_millis(200)),
            ..GroupConfig::new("g", ["t"])
        };
        let mut consumer = GroupConsumer::new(&client(), config);
        loop {
            let records = consumer.poll(Duration::from_millis(100)).await.expect("polling works");
            for record in records {
                let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("text");
                *read.borrow_mut().entry(value).or_default() += 1;
            }
            if let Some(leave) = *leave.borrow() {
                let mine = consumer.positions().map(|(_, partition, _)| partition).collect();
                if leave {
                    drop(task::spawn(async move { consumer.leave().await.expect("left") }));
                }
                return mine;
            }
        }
    })
}

async fn write(connection: &Connection, round: usize) {
    for partition in 0..PARTITIONS {
        kafka::produced(connection, "t", partition, batch(&[&format!("{round}/{partition}")])).await;
    }
}

fn count(read: &Read, round: usize) -> usize {
    read.borrow().keys().filter(|value| value.starts_with(&format!("{round}/"))).count()
}

/// contract G1
#[test]
fn members_share_the_partitions_and_take_over_from_one_that_leaves_or_dies() {
    for leaves in [true, false] {
        let mut cluster = Cluster::new(3);
        cluster.run(async move {
            let connection = connect().await;
            kafka::create(&connection, "t", PARTITIONS, &[]).await;
            let read = Read::default();
            let ends = [Rc::new(RefCell::new(None)), Rc::new(RefCell::new(None))];
            let [one, two] = [0, 1].map(|at| member(&read, &ends[at]));
            time::sleep(Duration::from_secs(15)).await;
            write(&connection, 1).await;
            time::sleep(Duration::from_secs(1)).await;
            assert_eq!(count(&read, 1), PARTITIONS as usize);
            let described = describe(&connection, "g").await;
            assert_eq!((&*described.group_state, described.members.len()), ("Stable", 2));
            *ends[0].borrow_mut() = Some(leaves);
            let first = one.await.expect("no panic");
            assert_eq!(first.len(), 3, "half of the partitions each: {first:?}");
            write(&connection, 2).await;
            let patience = if leaves { 5 } else { 15 };
            time::sleep(Duration::from_secs(patience)).await;
            assert_eq!(count(&read, 2), PARTITIONS as usize, "the other has taken over");
            *ends[1].borrow_mut() = Some(true);
            assert_eq!(two.await.expect("no panic").len(), PARTITIONS as usize);
            if leaves {
                assert!(read.borrow().values().all(|times| *times == 1), "{:?}", read.borrow());
            }
        });
        cluster.finish();
    }
}

pub(crate) fn commit_request(group: &str, partition: i32, offset: i64) -> OffsetCommitRequest {
    let partitions = vec![OffsetCommitRequestPartition {
        partition_index: partition,
        committed_offset: offset,
        committed_leader_epoch: 4,
        committed_metadata: Some(format!("at {offset}").into()),
    }];
    let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions }];
    OffsetCommitRequest { group_id: group.into(), topics, ..Default::default() }
}

pub(crate) async fn committed(connection: &Connection, group: &str) -> Vec<OffsetFetchResponsePartitions> {
    let groups = vec![OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() }];
    let request = OffsetFetchRequest { groups, ..Default::default() };
    let found = ask(connection, &request).await.groups.remove(0);
    assert_code(found.error_code, ErrorCode::None);
    let mut partitions: Vec<_> = found.topics.into_iter().flat_map(|topic| topic.partitions).collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    partitions
}

/// contract G3: what a consumer without a group's membership commits.
#[test]
fn simple_commits_are_kept_with_their_metadata() {
    let mut cluster = Cluster::new(4);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 2, &[]).await;
        find_coordinator(&connection, "simple").await;
        for (partition, offset) in [(0, 5), (1, 6), (0, 7)] {
            let answer = ask(&connection, &commit_request("simple", partition, offset)).await;
            assert_code(answer.topics[0].partitions[0].error_code, ErrorCode::None);
        }
    });
    cluster.stop();
    cluster.start();
    cluster.run(async {
        let connection = connect().await;
        find_coordinator(&connection, "simple").await;
        let found: Vec<_> = committed(&connection, "simple")
            .await
            .into_iter()
            .map(|p| (p.partition_index, p.committed_offset, p.committed_leader_epoch, p.metadata))
            .collect();
        assert_eq!(found, [(0, 7, 4, Some("at 7".into())), (1, 6, 4, Some("at 6".into()))]);
        assert_eq!(state(&connection, "simple").await, "Empty");
        let listed = ask(&connection, &ListGroupsRequest::default()).await;
        assert!(listed.groups.iter().any(|group| &*group.group_id == "simple"));
        let none = committed(&connection, "nobody").await;
        assert!(none.is_empty());
    });
    cluster.finish();
}

/// contract G3: nothing is answered before it is durable.
#[test]
fn commits_that_were_answered_survive_power_cuts() {
    seeds::each("commits_that_were_answered", 8, |seed| {
        let mut choices = seeds::Choices::new(seed);
        let mut cluster = Cluster::new(seed);
        cluster.expect_warning("cut the end off a");
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "t", PARTITIONS, &[]).await;
        });
        /// By group and partition: the last commit asked for, and the last answered.
        type Commits = Rc<RefCell<BTreeMap<(usize, i32), (i64, i64)>>>;
        let commits = Commits::default();
        for round in 0..3 {
            let told = commits.clone();
            cluster.run(async move {
                let connection = connect().await;
                drop(task::spawn(async move {
                    for group in 0..3 {
                        find_coordinator(&connection, &format!("g{group}")).await;
                    }
                    for number in 1.. {
                        let (group, partition) = (number as usize % 3, number as i32 % PARTITIONS);
                        let offset = round * 1_000_000 + number;
                        let before = told.borrow().get(&(group, partition)).map_or(-1, |(_, last)| *last);
                        told.borrow_mut().insert((group, partition), (offset, before));
                        let request = commit_request(&format!("g{group}"), partition, offset);
                        let Ok(answer) = connection.request(&request).await else { return };
                        assert_code(answer.topics[0].partitions[0].error_code, ErrorCode::None);
                        told.borrow_mut().insert((group, partition), (offset, offset));
                    }
                }));
            });
            cluster.sim.run_for(choices.micros(50_000..400_000));
            if choices.below(4) == 0 {
                cluster.kill()
            } else {
                cluster.crash()
            }
            let told = commits.borrow().clone();
            cluster.run(async move {
                let connection = connect().await;
                for group in 0..3 {
                    let name = format!("g{group}");
                    find_coordinator(&connection, &name).await;
                    let found: BTreeMap<_, _> = committed(&connection, &name)
                        .await
                        .into_iter()
                        .map(|p| (p.partition_index, p.committed_offset))
                        .collect();
                    for (&(of, partition), &(asked, answered)) in told.range((group, 0)..(group + 1, 0)) {
                        assert_eq!(of, group);
                        let found = found.get(&partition).copied().unwrap_or(-1);
                        let right = found == asked || found == answered;
                        assert!(right, "{name} {partition}: {found}, not {answered} or {asked}");
                    }
                }
            });
        }
        assert!(!commits.borrow().is_empty(), "something was committed");
        cluster.finish();
    });
}

/// contract G3: a group's members survive the broker's restart; they go on without a rebalance.
#[test]
fn a_group_goes_on_after_a_crash_of_the_broker() {
    let mut cluster = Cluster::new(6);
    let joined = cluster.run(async {
        let connection = connect().await;
        find_coordinator(&connection, "g").await;
        let joined = join(&connection, "g", None).await;
        sync(&connection, "g", &joined, &[(&joined.member_id, "kept")]).await;
        joined
    });
    cluster.crash();
    cluster.run(async move {
        let connection = connect().await;
        find_coordinator(&connection, "g").await;
        assert_eq!(heartbeat(&connection, "g", &joined).await, ErrorCode::None);
        assert_eq!(sync(&connection, "g", &joined, &[]).await, "kept");
        assert_eq!(state(&connection, "g").await, "Stable");
        // And its session goes on too: it ends when nothing is heard.
        time::sleep(Duration::from_secs(8)).await;
        assert_eq!(state(&connection, "g").await, "Empty");
        assert_eq!(heartbeat(&connection, "g", &joined).await, ErrorCode::UnknownMemberId);
    });
    cluster.expect_warning("cut the end off a");
    cluster.finish();
}
