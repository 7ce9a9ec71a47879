//! DeleteGroups and OffsetDelete: who may be deleted, and that it stays so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use heizer_client::Connection;
use heizer_runtime::{random, task};
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, JoinGroupRequest, JoinGroupRequestProtocol,
    LeaveGroupRequest, ListGroupsRequest, MemberIdentity, OffsetDeleteRequest, OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic, OffsetDeleteResponse,
};

use crate::cluster::{Cluster, connect};
use crate::groups::{commit_request, committed, find_coordinator, join, join_request, state, sync};
use crate::kafka::{self, ask, ask_at, assert_code};
use crate::seeds::{self, Choices};

const PARTITIONS: i32 = 3;
/// What Kafka lets be done with a group, in bits: read, delete, describe, describe and alter configs.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

fn delete_request(groups: &[&str]) -> DeleteGroupsRequest {
    DeleteGroupsRequest { groups_names: groups.iter().map(|group| (*group).into()).collect() }
}

/// Commits an offset to a group, and with that brings it about.
async fn commit(connection: &Connection, group: &str, partition: i32, offset: i64) {
    let answer = ask(connection, &commit_request(group, partition, offset)).await;
    assert_code(answer.topics[0].partitions[0].error_code, ErrorCode::None);
}

/// What a group has committed for partitions of "t".
async fn offsets(connection: &Connection, group: &str) -> Vec<(i32, i64)> {
    let rows = committed(connection, group).await;
    rows.into_iter().map(|row| (row.partition_index, row.committed_offset)).collect()
}

async fn listed(connection: &Connection) -> Vec<String> {
    let answer = ask(connection, &ListGroupsRequest::default()).await;
    assert_code(answer.error_code, ErrorCode::None);
    answer.groups.iter().map(|group| group.group_id.to_string()).collect()
}

#[test]
fn groups_are_deleted_each_for_itself_and_for_good() {
    let mut cluster = Cluster::new(1);
    cluster.expect_warning("cut the end off a");
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", PARTITIONS, &[]).await;
        // Groups of all coordinators.
        let groups: Vec<String> = (0..12).map(|number| format!("g{number:02}")).collect();
        for group in &groups {
            find_coordinator(&connection, group).await;
            commit(&connection, group, 1, 5).await;
        }
        find_coordinator(&connection, "live").await;
        let member = join(&connection, "live", None).await;
        sync(&connection, "live", &member, &[(&member.member_id, "all")]).await;
        for version in 0..=2 {
            let gone = &groups[version as usize * 3..][..3];
            let names = [&*gone[0], "live", &*gone[1], "nobody", &*gone[0], &*gone[2]];
            let answer = ask_at(&connection, version, &delete_request(&names)).await;
            let rows: Vec<_> = answer
                .results
                .iter()
                .map(|row| (&*row.group_id, ErrorCode::from_code(row.error_code)))
                .collect();
            let (none, not_found) = (ErrorCode::None, ErrorCode::GroupIdNotFound);
            let expected = [
                (&*gone[0], none),
                ("live", ErrorCode::NonEmptyGroup),
                (&*gone[1], none),
                ("nobody", not_found),
                (&*gone[2], none),
            ];
            assert_eq!(rows, expected, "version {version}: one that is named twice is answered once");
        }
        assert_eq!(state(&connection, "live").await, "Stable");
    });
    cluster.run(check_deleted());
    cluster.kill();
    cluster.run(check_deleted());
    cluster.crash();
    cluster.run(check_deleted());
    cluster.stop();
    cluster.start();
    cluster.run(check_deleted());
    cluster.run(async {
        // A name that was in use is a new group.
        let connection = connect().await;
        find_coordinator(&connection, "g00").await;
        commit(&connection, "g00", 0, 7).await;
        assert_eq!(offsets(&connection, "g00").await, [(0, 7)]);
    });
    cluster.finish();
}

/// Of g00 to g11 the first nine are gone.
async fn check_deleted() {
    let connection = connect().await;
    for number in 0..12 {
        let group = format!("g{number:02}");
        find_coordinator(&connection, &group).await;
        let (left, shown) = if number < 9 { (vec![], "Dead") } else { (vec![(1, 5)], "Empty") };
        assert_eq!(offsets(&connection, &group).await, left, "{group}");
        assert_eq!(state(&connection, &group).await, shown, "{group}");
    }
    assert_eq!(listed(&connection).await, ["g09", "g10", "g11", "live"]);
}

#[test]
fn without_any_group_the_coordinator_is_still_to_be_found() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let connection = connect().await;
        let answer = ask(&connection, &delete_request(&["a", "b"])).await;
        assert_eq!(answer.results.len(), 2);
        for row in &answer.results {
            assert_code(row.error_code, ErrorCode::CoordinatorNotAvailable);
        }
        let answer = ask(&connection, &offset_delete_request("a", &[("t", &[0])])).await;
        assert_code(answer.error_code, ErrorCode::CoordinatorNotAvailable);
        assert!(ask(&connection, &delete_request(&[])).await.results.is_empty());
    });
    cluster.finish();
}

fn offset_delete_request(group: &str, asked: &[(&str, &[i32])]) -> OffsetDeleteRequest {
    let partition = |&partition_index: &i32| OffsetDeleteRequestPartition { partition_index };
    let topic = |&(name, partitions): &(&str, &[i32])| OffsetDeleteRequestTopic {
        name: name.into(),
        partitions: partitions.iter().map(partition).collect(),
    };
    OffsetDeleteRequest { group_id: group.into(), topics: asked.iter().map(topic).collect() }
}

/// The group's code, and topic, partition and code of every row.
fn told(answer: &OffsetDeleteResponse) -> (ErrorCode, Vec<(&str, i32, ErrorCode)>) {
    let rows = answer.topics.iter().flat_map(|topic| {
        let row = |row: &heizer_wire::messages::OffsetDeleteResponsePartition| {
            (&*topic.name, row.partition_index, ErrorCode::from_code(row.error_code))
        };
        topic.partitions.iter().map(row).collect::<Vec<_>>()
    });
    (ErrorCode::from_code(answer.error_code), rows.collect())
}

/// KIP-496
#[test]
fn offsets_are_deleted_as_far_as_nobody_reads_their_topic() {
    let mut cluster = Cluster::new(3);
    cluster.expect_warning("cut the end off a");
    cluster.run(async {
        let connection = connect().await;
        for topic in ["t", "unread"] {
            kafka::create(&connection, topic, PARTITIONS, &[]).await;
        }
        find_coordinator(&connection, "g").await;
        let (none, unknown) = (ErrorCode::None, ErrorCode::UnknownTopicOrPartition);
        for (group, code) in [("nobody", ErrorCode::GroupIdNotFound), ("", ErrorCode::InvalidGroupId)] {
            find_coordinator(&connection, group).await;
            let answer = ask(&connection, &offset_delete_request(group, &[("t", &[0])])).await;
            assert_eq!(told(&answer), (code, vec![]));
            // Also where nothing that was asked for exists.
            let answer = ask(&connection, &offset_delete_request(group, &[("absent", &[0])])).await;
            assert_eq!(told(&answer), (code, vec![]));
        }
        for partition in 0..PARTITIONS {
            commit(&connection, "g", partition, 5).await;
        }
        let asked = offset_delete_request("g", &[("absent", &[0]), ("t", &[2, 9, -1, 0]), ("unread", &[1])]);
        let answer = ask(&connection, &asked).await;
        let rows = vec![
            ("absent", 0, unknown),
            ("t", 2, none),
            ("t", 9, unknown),
            ("t", -1, unknown),
            ("t", 0, none),
            ("unread", 1, none),
        ];
        assert_eq!(told(&answer), (none, rows));
        assert_eq!(offsets(&connection, "g").await, [(1, 5)]);
        // A member reads "t", another kind of group comes and goes.
        let member = join_as(&connection, "g", "consumer", b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff").await;
        let asked = offset_delete_request("g", &[("t", &[1]), ("unread", &[1])]);
        let subscribed = ErrorCode::GroupSubscribedToTopic;
        let rows = vec![("t", 1, subscribed), ("unread", 1, none)];
        assert_eq!(told(&ask(&connection, &asked).await), (none, rows));
        assert_eq!(offsets(&connection, "g").await, [(1, 5)]);
        leave(&connection, "g", &member).await;
        find_coordinator(&connection, "other").await;
        let member = join_as(&connection, "other", "connect", b"").await;
        let asked = offset_delete_request("other", &[("t", &[1])]);
        assert_eq!(told(&ask(&connection, &asked).await), (ErrorCode::NonEmptyGroup, vec![]));
        leave(&connection, "other", &member).await;
        assert_eq!(told(&ask(&connection, &asked).await), (none, vec![("t", 1, none)]));
    });
    for crash in [false, true] {
        if crash {
            cluster.crash();
        } else {
            cluster.stop();
            cluster.start();
        }
        cluster.run(async {
            let connection = connect().await;
            find_coordinator(&connection, "g").await;
            assert_eq!(offsets(&connection, "g").await, [(1, 5)]);
        });
    }
    cluster.run(async {
        let connection = connect().await;
        let answer = ask(&connection, &offset_delete_request("g", &[("t", &[1])])).await;
        assert_eq!(told(&answer), (ErrorCode::None, vec![("t", 1, ErrorCode::None)]));
        assert_eq!(offsets(&connection, "g").await, []);
    });
    cluster.finish();
}

/// Joins a group as its only member, and gets an assignment; the member's id.
async fn join_as(
    connection: &Connection,
    group: &str,
    protocol_type: &str,
    subscription: &'static [u8],
) -> String {
    let protocols = vec![JoinGroupRequestProtocol { name: "range".into(), metadata: subscription.into() }];
    let request = |member: &str| JoinGroupRequest {
        protocol_type: protocol_type.into(),
        protocols: protocols.clone(),
        ..join_request(group, member, None)
    };
    let first = ask(connection, &request("")).await;
    assert_code(first.error_code, ErrorCode::MemberIdRequired);
    let joined = ask(connection, &request(&first.member_id)).await;
    assert_code(joined.error_code, ErrorCode::None);
    sync(connection, group, &joined, &[(&joined.member_id, "all")]).await;
    joined.member_id.to_string()
}

async fn leave(connection: &Connection, group: &str, member: &str) {
    let members = vec![MemberIdentity { member_id: member.into(), ..Default::default() }];
    let request = LeaveGroupRequest { group_id: group.into(), members, ..Default::default() };
    let answer = ask(connection, &request).await;
    assert_code(answer.error_code, ErrorCode::None);
    assert_code(answer.members[0].error_code, ErrorCode::None);
}

/// What a client knows of the offset that a group has committed for partition 0: none once it was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Sure(Option<i64>),
    /// It was the first, and the second was asked for, without an answer.
    Unclear(Option<i64>, Option<i64>),
}

type Groups = Rc<RefCell<BTreeMap<usize, Known>>>;

/// Commits and deletes, groups and offsets, for as long as the broker answers.
async fn commit_and_delete(connection: Connection, known: Groups, start: i64) {
    for offset in start.. {
        let number = random::below(4) as usize;
        let group = format!("g{number}");
        let before = match known.borrow().get(&number).copied() {
            Some(Known::Sure(before)) => before,
            Some(unclear) => panic!("{unclear:?} was cleared up at the start"),
            None => None,
        };
        let action = random::below(4);
        let wanted = if action < 2 { Some(offset) } else { None };
        known.borrow_mut().insert(number, Known::Unclear(before, wanted));
        let code = match action {
            0 | 1 => {
                let Ok(answer) = connection.request(&commit_request(&group, 0, offset)).await else { return };
                answer.topics[0].partitions[0].error_code
            }
            2 => {
                let Ok(answer) = connection.request(&delete_request(&[&group])).await else { return };
                answer.results[0].error_code
            }
            _ => {
                let request = offset_delete_request(&group, &[("t", &[0])]);
                let Ok(answer) = connection.request(&request).await else { return };
                answer.error_code
            }
        };
        match ErrorCode::from_code(code) {
            ErrorCode::None => {}
            ErrorCode::GroupIdNotFound if action >= 2 && before.is_none() => {}
            code => panic!("{group}: {code}, {before:?} to {wanted:?}"),
        }
        known.borrow_mut().insert(number, Known::Sure(wanted));
    }
}

/// contract G3: nothing is answered before it is durable.
#[test]
fn deletions_of_groups_and_offsets_survive_power_cuts_and_kills() {
    seeds::each("deletions_of_groups_and_offsets", 10, |seed| {
        let mut choices = Choices::new(seed);
        let mut cluster = Cluster::with(seed, 1 + choices.below(3) as usize, &[]);
        cluster.expect_warning("cut the end off a");
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "t", PARTITIONS, &[]).await;
            for number in 0..4 {
                find_coordinator(&connection, &format!("g{number}")).await;
            }
        });
        let mut known = Groups::default();
        for round in 0..4 {
            let knowing = known.clone();
            cluster.run(async move {
                let connection = connect().await;
                drop(task::spawn(commit_and_delete(connection, knowing, round * 1_000_000)));
            });
            cluster.sim.run_for(choices.micros(20_000..200_000));
            if choices.below(3) == 0 {
                cluster.kill()
            } else {
                cluster.crash()
            }
            // Answers that are still on their way tell the one that asked, and nobody else.
            known = Rc::new(RefCell::new(known.take()));
            let checked = known.clone();
            cluster.run(async move {
                let connection = connect().await;
                for number in 0..4 {
                    let before = checked.borrow().get(&number).copied().unwrap_or(Known::Sure(None));
                    let group = format!("g{number}");
                    find_coordinator(&connection, &group).await;
                    let found = offsets(&connection, &group).await.first().map(|(_, offset)| *offset);
                    let right = match before {
                        Known::Sure(offset) => found == offset,
                        Known::Unclear(one, other) => found == one || found == other,
                    };
                    assert!(right, "{group}: {found:?}, {before:?} was told");
                    checked.borrow_mut().insert(number, Known::Sure(found));
                }
            });
        }
        assert!(!known.borrow().is_empty(), "something was committed");
        cluster.finish();
    });
}

/// What may be done with a group is told of those that there are.
#[test]
fn operations_are_told_of_groups_that_are_there() {
    let mut cluster = Cluster::new(6);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", PARTITIONS, &[]).await;
        for group in ["there", "absent"] {
            find_coordinator(&connection, group).await;
        }
        commit(&connection, "there", 0, 1).await;
        for version in 3..=6 {
            for include in [true, false] {
                let request = DescribeGroupsRequest {
                    groups: ["there", "absent"].map(Into::into).to_vec(),
                    include_authorized_operations: include,
                };
                let answer = ask_at(&connection, version, &request).await;
                let rows: Vec<_> = answer
                    .groups
                    .iter()
                    .map(|group| {
                        let code = ErrorCode::from_code(group.error_code);
                        (&*group.group_id, &*group.group_state, code, group.authorized_operations)
                    })
                    .collect();
                let told = if include { GROUP_OPERATIONS } else { i32::MIN };
                // KIP-1043
                let (code, of_absent) = match version {
                    6 => (ErrorCode::GroupIdNotFound, i32::MIN),
                    _ => (ErrorCode::None, told),
                };
                let expected =
                    [("there", "Empty", ErrorCode::None, told), ("absent", "Dead", code, of_absent)];
                assert_eq!(rows, expected, "version {version}, {include}");
                assert_eq!(answer.groups[1].error_message.is_some(), version == 6);
            }
        }
    });
    cluster.finish();
}
