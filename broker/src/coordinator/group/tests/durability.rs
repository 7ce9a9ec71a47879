//! What survives, what is lost, and what is said about it.

use super::*;

#[test]
fn an_assignment_is_handed_out_when_it_is_durable() {
    // contract G3
    let mut shell = Shell::new();
    let entered = [shell.enter(), shell.enter()];
    shell.pass(6_000);
    let ids = entered.each_ref().map(|(id, _)| id.clone());
    shell.is_fast = false;
    let follower = shell.sync(sync_as(&ids[1], 1, &[]));
    let leader = shell.sync(sync_as(&ids[0], 1, &ids));
    assert!(shell.is_open(leader) && shell.is_open(follower));
    assert_eq!(shell.state(), "CompletingRebalance");

    let again = shell.sync(sync_as(&ids[0], 1, &[]));
    assert_eq!(code(shell.synced(leader).error_code), ErrorCode::RebalanceInProgress, "superseded");
    assert_eq!(shell.open.len(), 1, "the assignment under way is the one");
    shell.settle(1);
    assert_eq!(shell.synced(again).assignment, assignment_of(&ids[0]));
    assert_eq!(shell.synced(follower).assignment, assignment_of(&ids[1]));
}

#[test]
fn an_assignment_that_cannot_be_written_is_answered_with_the_reason_and_made_anew() {
    for (append, answer) in [
        (ErrorCode::NotLeaderOrFollower, ErrorCode::NotCoordinator),
        (ErrorCode::KafkaStorageError, ErrorCode::NotCoordinator),
        (ErrorCode::NotEnoughReplicas, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::RequestTimedOut, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::MessageTooLarge, ErrorCode::MessageTooLarge),
    ] {
        let mut shell = Shell::new();
        let (id, _) = shell.enter();
        shell.pass(3_000);
        shell.is_fast = false;
        let sync = shell.sync(sync_as(&id, 1, &[]));
        shell.fail(append);
        assert_eq!(code(shell.synced(sync).error_code), answer, "{append}");
        assert_eq!(shell.state(), "PreparingRebalance");
        assert!(shell.log.is_empty());
    }
}

#[test]
fn an_assignment_of_a_generation_that_is_over_is_nobodys() {
    let mut shell = Shell::new();
    let (id, _) = shell.enter();
    shell.pass(3_000);
    shell.is_fast = false;
    let sync = shell.sync(sync_as(&id, 1, &[]));
    shell.enter();
    assert_eq!(code(shell.synced(sync).error_code), ErrorCode::RebalanceInProgress);
    shell.settle(1);
    assert_eq!(shell.state(), "PreparingRebalance");
}

#[test]
fn a_commit_that_cannot_be_written_changes_nothing() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 1));
    shell.is_fast = false;
    for (append, answer) in [
        (ErrorCode::NotEnoughReplicasAfterAppend, ErrorCode::CoordinatorNotAvailable),
        (ErrorCode::MessageTooLarge, ErrorCode::InvalidCommitOffsetSize),
    ] {
        let commit = shell.commit(commit_as("", -1, "t", 0, 2));
        shell.fail(append);
        assert_eq!(code(shell.committed(commit).topics[0].partitions[0].error_code), answer);
        assert_eq!(shell.fetched("t", 0), 1);
    }
}

#[test]
fn the_last_member_has_left_when_the_empty_group_is_durable() {
    let mut shell = Shell::new();
    let (ids, _) = shell.stable_group(1);
    shell.is_fast = false;
    let id = shell.next_id();
    let leaving = MemberIdentity { member_id: ids[0].clone(), group_instance_id: None, reason: None };
    let request = LeaveGroupRequest { group_id: GROUP.into(), members: vec![leaving], ..Default::default() };
    let result = shell.shard.handle_leave(id, request, 5, shell.now);
    shell.take_in(result);
    assert!(shell.is_open(id));
    shell.fail(ErrorCode::NotLeaderOrFollower);
    let Some(Answer::Leave(response)) = shell.take(id) else { panic!("no answer") };
    assert_eq!(code(response.error_code), ErrorCode::NotCoordinator);
}

#[test]
fn a_stable_group_goes_on_after_a_move() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(2);
    shell.commit(commit_as(&ids[0], generation, "t", 0, 42));
    let before = shell.shard.describe(&GROUP.into(), 6);
    shell.pass(9_000);
    shell.restart();
    assert_eq!(shell.shard.describe(&GROUP.into(), 6), before);
    assert_eq!(shell.fetched("t", 0), 42);
    shell.pass(9_000); // a whole session from the load on
    assert_eq!(shell.heartbeat_code(&ids[0], generation), ErrorCode::None);
    shell.pass(1_000);
    assert_eq!(
        shell.heartbeat_code(&ids[0], generation),
        ErrorCode::RebalanceInProgress,
        "the other kept silent"
    );
}

#[test]
fn a_rebalance_that_a_move_cuts_short_starts_again() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(1);
    let (new, join) = shell.enter();
    let again = shell.join(join_as(&ids[0]), 9);
    assert_eq!(shell.joined(again).generation_id, generation + 1);
    shell.joined(join);
    assert_eq!(shell.state(), "CompletingRebalance");

    shell.restart();
    assert_eq!(shell.state(), "Stable", "as it was when it last was");
    assert_eq!(shell.heartbeat_code(&ids[0], generation + 1), ErrorCode::IllegalGeneration);
    let sync = shell.sync(sync_as(&new, generation + 1, &[]));
    assert_eq!(code(shell.synced(sync).error_code), ErrorCode::UnknownMemberId);
    let entered = shell.enter();
    let again = shell.join(join_as(&ids[0]), 9);
    shell.settle_generation(&[(ids[0].clone(), again), entered]);
}

#[test]
fn a_group_that_is_too_large_after_a_move_rebalances() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(2);
    let config = GroupConfig { members_max: 1, ..Default::default() };
    shell.shard = loaded(&shell.log, config, 1);
    let result = shell.shard.on_loaded(shell.now);
    shell.take_in(result);
    assert_eq!(shell.heartbeat_code(&ids[0], generation), ErrorCode::RebalanceInProgress);
}

#[test]
fn an_unloaded_coordinator_owes_nobody_an_answer() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(2);
    shell.is_fast = false;
    let commit = shell.commit(commit_as(&ids[0], generation, "t", 0, 1));
    let join = shell.join(join_as(&ids[0]), 9);
    let result = shell.shard.on_unloaded(shell.now);
    shell.take_in(result);
    assert_eq!(code(shell.joined(join).error_code), ErrorCode::NotCoordinator);
    assert_eq!(code(shell.committed(commit).topics[0].partitions[0].error_code), ErrorCode::NotCoordinator);
    assert_eq!(shell.shard.next_deadline(), None);
    shell.settle(usize::MAX); // late news of a write is no news
    assert!(shell.shard.groups.is_empty());
}

#[test]
fn records_of_other_kinds_are_left_alone_and_broken_ones_are_errors() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 1));
    shell.shard.replay(b"\0\x03\0\x01g", Some(b"\0\0")).unwrap(); // ConsumerGroupMetadata (KIP-848)
    assert!(shell.shard.replay(b"", None).is_err());
    assert!(shell.shard.replay(b"\0\x01\0\x05g", None).is_err());
    let key = shell.log[0].key.clone();
    assert!(shell.shard.replay(&key, Some(b"\0")).is_err());
    assert!(shell.shard.replay(&key, Some(b"\0\x63\0")).is_err());
    assert_eq!(shell.fetched("t", 0), 1);
}

#[test]
fn a_foreign_group_record_cannot_break_the_load() {
    use crate::coordinator::records::{DurableGroup, DurableMember, group_record};
    let member = |id: &str| DurableMember {
        id: id.into(),
        instance_id: Some("same".into()),
        client_id: "app".into(),
        client_host: "/::1".into(),
        rebalance_timeout_ms: 1_000,
        session_timeout_ms: 1_000,
        subscription: Bytes::new(),
        assignment: Bytes::new(),
    };
    let strange = DurableGroup {
        protocol_type: None,
        generation: i32::MAX,
        protocol: None,
        leader: Some("nobody".into()),
        state_since: None,
        members: vec![member("x"), member("x")],
    };
    let mut shell = Shell::new();
    shell.log.push(group_record(&GROUP.into(), Some(&strange)));
    shell.restart();
    assert_eq!(shell.state(), "Stable");
    shell.pass(60_000);
    assert_eq!(shell.state(), "Empty");
}
