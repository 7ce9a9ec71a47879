//! What is deleted on request: groups, and offsets.

use heizer_wire::messages::{OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

use super::*;

impl Shell {
    fn delete(&mut self) -> AnswerId {
        let id = self.next_id();
        let result = self.shard.delete_group(id, &GROUP.into(), self.now);
        self.take_in(result);
        id
    }

    fn deleted(&mut self, id: AnswerId) -> ErrorCode {
        match self.take(id) {
            Some(Answer::DeleteGroup(row)) => code(row.error_code),
            other => panic!("no deletion for {id:?}: {other:?}"),
        }
    }

    /// OffsetDelete of these partitions of topics.
    pub(super) fn delete_offsets(&mut self, asked: &[(&str, &[i32])]) -> AnswerId {
        self.delete_offsets_of(GROUP, asked)
    }

    fn delete_offsets_of(&mut self, group: &str, asked: &[(&str, &[i32])]) -> AnswerId {
        let topic = |&(name, partitions): &(&str, &[i32])| OffsetDeleteRequestTopic {
            name: name.into(),
            partitions: partitions
                .iter()
                .map(|&partition_index| OffsetDeleteRequestPartition { partition_index })
                .collect(),
        };
        let request =
            OffsetDeleteRequest { group_id: group.into(), topics: asked.iter().map(topic).collect() };
        let id = self.next_id();
        let result = self.shard.delete_offsets(id, request);
        self.take_in(result);
        id
    }

    /// The group's code, and those of all rows.
    fn offsets_deleted(&mut self, id: AnswerId) -> (ErrorCode, Vec<ErrorCode>) {
        match self.take(id) {
            Some(Answer::OffsetDelete(response)) => {
                let rows = response.topics.iter().flat_map(|topic| &topic.partitions);
                (code(response.error_code), rows.map(|row| code(row.error_code)).collect())
            }
            other => panic!("no deletion for {id:?}: {other:?}"),
        }
    }

    /// What is fetched is what a coordinator that starts anew from the log finds.
    fn fetched_as_logged(&mut self, topic: &str, partition: i32) -> i64 {
        let fetched = self.fetched(topic, partition);
        let again = loaded(&self.log, self.shard.config.clone(), 0);
        let live = std::mem::replace(&mut self.shard, again);
        assert_eq!(self.fetched(topic, partition), fetched, "{topic}-{partition}");
        self.shard = live;
        fetched
    }
}

/// Joins as one who has subscribed to "t".
fn reader(protocol_type: &str, metadata: &'static [u8]) -> JoinGroupRequest {
    JoinGroupRequest {
        protocol_type: protocol_type.into(),
        protocols: vec![protocol("range", metadata)],
        ..join_as("")
    }
}

const READS_T: &[u8] = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";

#[test]
fn an_empty_group_is_deleted_with_its_offsets_a_live_one_is_not() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(1);
    let commit = shell.commit(commit_as(&ids[0], generation, "t", 0, 1));
    shell.committed(commit);
    let id = shell.delete();
    assert_eq!(shell.deleted(id), ErrorCode::NonEmptyGroup);
    shell.leave(&[(&ids[0], None)]);

    shell.is_fast = false;
    let commit = shell.commit(commit_as("", -1, "t", 1, 2));
    let id = shell.delete();
    assert!(shell.is_open(id));
    let refused = shell.commit(commit_as("", -1, "t", 0, 9));
    let refused = shell.committed(refused).topics[0].partitions[0].error_code;
    assert_eq!(code(refused), ErrorCode::CoordinatorNotAvailable);
    let join = shell.join(join_as(""), 9);
    assert_eq!(code(shell.joined(join).error_code), ErrorCode::CoordinatorNotAvailable);
    shell.settle(usize::MAX);
    shell.committed(commit);
    assert_eq!(shell.deleted(id), ErrorCode::None);
    assert!(shell.shard.groups.is_empty());
    assert!(loaded(&shell.log, GroupConfig::default(), 0).groups.is_empty());

    let id = shell.delete();
    assert_eq!(shell.deleted(id), ErrorCode::GroupIdNotFound);
}

#[test]
fn a_deleted_group_is_there_until_its_tombstones_are_durable() {
    // contract G3
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 1));
    shell.is_fast = false;
    let (first, second) = (shell.delete(), shell.delete());
    let offsets = shell.delete_offsets(&[("t", &[0])]);
    assert!([first, second, offsets].iter().all(|id| shell.is_open(*id)));
    let described = shell.shard.describe(&GROUP.into(), 6);
    assert_eq!((code(described.error_code), &*described.group_state), (ErrorCode::None, "Empty"));
    assert_eq!(shell.shard.list(&["empty".into()], &[]).len(), 1);
    assert_eq!(shell.fetched("t", 0), 1);

    shell.settle(1);
    assert_eq!((shell.deleted(first), shell.deleted(second)), (ErrorCode::None, ErrorCode::GroupIdNotFound));
    assert_eq!(shell.offsets_deleted(offsets), (ErrorCode::GroupIdNotFound, vec![]));
    assert_eq!((shell.state().as_str(), shell.shard.list(&[], &[]).len()), ("Dead", 0));
    assert_eq!(shell.fetched_as_logged("t", 0), -1);
}

#[test]
fn a_group_that_cannot_be_deleted_lives_on() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 1));
    shell.is_fast = false;
    let (first, second) = (shell.delete(), shell.delete());
    let offsets = shell.delete_offsets(&[("t", &[0])]);
    shell.fail(ErrorCode::RequestTimedOut);
    let answer = ErrorCode::CoordinatorNotAvailable;
    assert_eq!((shell.deleted(first), shell.deleted(second)), (answer, answer));
    assert_eq!(shell.offsets_deleted(offsets), (answer, vec![]));
    assert_eq!((shell.state().as_str(), shell.fetched_as_logged("t", 0)), ("Empty", 1));
    let again = shell.delete();
    shell.settle(1);
    assert_eq!(shell.deleted(again), ErrorCode::None);
}

#[test]
fn deleted_offsets_go_when_that_is_durable_and_the_others_stay() {
    // contract G3, KIP-496
    let mut shell = Shell::new();
    for (topic, partition) in [("t", 0), ("t", 1), ("u", 0)] {
        shell.commit(commit_as("", -1, topic, partition, 5));
    }
    shell.is_fast = false;
    let id = shell.delete_offsets(&[("t", &[1, 7]), ("never", &[0])]);
    assert!(shell.is_open(id));
    assert_eq!(shell.fetched("t", 1), 5);
    shell.settle(1);
    let none = ErrorCode::None;
    assert_eq!(shell.offsets_deleted(id), (none, vec![none; 3]));
    let left = [("t", 0), ("t", 1), ("u", 0)].map(|(topic, at)| shell.fetched_as_logged(topic, at));
    assert_eq!(left, [5, -1, 5]);
    // Where there is nothing to write there is nothing to wait for.
    let id = shell.delete_offsets(&[("t", &[1])]);
    assert_eq!(shell.offsets_deleted(id), (none, vec![none]));
    assert!(shell.open.is_empty());
    // With its last offset the group is gone.
    let id = shell.delete_offsets(&[("t", &[0, 0]), ("u", &[0])]);
    shell.settle(1);
    assert_eq!(shell.offsets_deleted(id), (none, vec![none; 3]));
    assert!(shell.shard.groups.is_empty());
    assert!(loaded(&shell.log, GroupConfig::default(), 0).groups.is_empty());
}

#[test]
fn offsets_that_cannot_be_deleted_stay() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 1));
    shell.is_fast = false;
    let id = shell.delete_offsets(&[("t", &[0])]);
    shell.fail(ErrorCode::NotLeaderOrFollower);
    assert_eq!(shell.offsets_deleted(id), (ErrorCode::NotCoordinator, vec![]));
    assert_eq!(shell.fetched_as_logged("t", 0), 1);
}

#[test]
fn an_offset_on_its_way_is_deleted_too() {
    let mut shell = Shell::new();
    shell.is_fast = false;
    let commit = shell.commit(commit_as("", -1, "t", 0, 1));
    let id = shell.delete_offsets(&[("t", &[0])]);
    shell.settle(1);
    shell.committed(commit);
    assert!(shell.is_open(id));
    shell.settle(1);
    assert_eq!(shell.offsets_deleted(id), (ErrorCode::None, vec![ErrorCode::None]));
    assert_eq!(shell.fetched_as_logged("t", 0), -1);
}

#[test]
fn offsets_of_a_topic_that_a_member_reads_stay() {
    // KIP-496
    let mut shell = Shell::new();
    for topic in ["t", "unread"] {
        shell.commit(commit_as("", -1, topic, 0, 5));
    }
    let join = shell.join(reader("consumer", READS_T), 3);
    shell.pass(3_000);
    let (ids, _) = shell.settle_generation(&[("".into(), join)]);
    let asked: [(&str, &[i32]); 2] = [("t", &[0, 1]), ("unread", &[0])];
    let id = shell.delete_offsets(&asked);
    let (none, subscribed) = (ErrorCode::None, ErrorCode::GroupSubscribedToTopic);
    assert_eq!(shell.offsets_deleted(id), (none, vec![subscribed, subscribed, none]));
    assert_eq!((shell.fetched_as_logged("t", 0), shell.fetched_as_logged("unread", 0)), (5, -1));
    shell.leave(&[(&ids[0], None)]);
    let id = shell.delete_offsets(&asked);
    assert_eq!(shell.offsets_deleted(id), (none, vec![none; 3]));
    assert_eq!(shell.fetched_as_logged("t", 0), -1);
}

#[test]
fn where_nobody_can_tell_what_members_read_all_offsets_stay() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 5));
    let join = shell.join(reader("consumer", b"cooked"), 3);
    shell.pass(3_000);
    shell.settle_generation(&[("".into(), join)]);
    let id = shell.delete_offsets(&[("t", &[0])]);
    assert_eq!(shell.offsets_deleted(id), (ErrorCode::None, vec![ErrorCode::GroupSubscribedToTopic]));
    assert_eq!(shell.fetched_as_logged("t", 0), 5);
}

#[test]
fn offsets_of_a_group_that_is_none_of_consumers_go_only_when_it_is_empty() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 5));
    shell.join(reader("connect", READS_T), 3);
    for state in ["PreparingRebalance", "CompletingRebalance"] {
        assert_eq!(shell.state(), state);
        let id = shell.delete_offsets(&[("t", &[0])]);
        assert_eq!(shell.offsets_deleted(id), (ErrorCode::NonEmptyGroup, vec![]));
        shell.pass(3_000);
    }
    // It never asks for its assignment.
    shell.pass(10 * 60 * 1_000);
    assert_eq!(shell.state(), "Empty");
    let id = shell.delete_offsets(&[("t", &[0])]);
    assert_eq!(shell.offsets_deleted(id), (ErrorCode::None, vec![ErrorCode::None]));
    assert_eq!(shell.fetched_as_logged("t", 0), -1);
}

#[test]
fn offsets_of_a_group_that_is_not_there_cannot_be_deleted() {
    let mut shell = Shell::new();
    shell.commit(OffsetCommitRequest { group_id: "".into(), ..commit_as("", -1, "t", 0, 1) });
    for (group, refusal) in [("", ErrorCode::InvalidGroupId), ("nobody", ErrorCode::GroupIdNotFound)] {
        let id = shell.delete_offsets_of(group, &[("t", &[0])]);
        assert_eq!(shell.offsets_deleted(id), (refusal, vec![]));
    }
}

#[test]
fn offsets_of_a_deleted_topic_go_those_on_their_way_too() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "gone", 0, 1));
    shell.commit(commit_as("", -1, "kept", 0, 2));
    shell.is_fast = false;
    shell.commit(commit_as("", -1, "gone", 1, 3));
    let result = shell.shard.on_topics_deleted(&BTreeSet::from(["gone".into()]));
    shell.take_in(result);
    shell.settle(usize::MAX);
    assert_eq!([shell.fetched("gone", 0), shell.fetched("gone", 1), shell.fetched("kept", 0)], [-1, -1, 2]);
}
