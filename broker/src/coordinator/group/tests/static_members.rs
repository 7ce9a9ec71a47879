//! Static members (KIP-345).

use super::*;

/// A stable group of static members "a" and "b"; gives their ids, the leader's first.
fn stable(shell: &mut Shell) -> (ByteString, ByteString, i32) {
    let joins =
        ["a", "b"].map(|instance| (ByteString::from(instance), shell.join(static_join(instance, ""), 9)));
    shell.pass(6_000);
    let (ids, generation) = shell.settle_generation(&joins);
    (ids[0].clone(), ids[1].clone(), generation)
}

#[test]
fn a_static_member_joins_without_the_second_round() {
    let mut shell = Shell::new();
    let join = shell.join(static_join("a", ""), 9);
    assert!(shell.is_open(join));
    shell.pass(3_000);
    assert!(shell.joined(join).member_id.starts_with("a-"));
}

#[test]
fn a_returning_follower_gets_a_new_id_and_its_old_assignment_without_a_rebalance() {
    let mut shell = Shell::new();
    let (_, follower, generation) = stable(&mut shell);
    shell.is_fast = false;
    let back = shell.join(static_join("b", ""), 9);
    assert!(shell.is_open(back), "its new id is not durable yet"); // contract G3
    shell.settle(1);
    let response = shell.joined(back);
    assert_eq!((code(response.error_code), response.generation_id), (ErrorCode::None, generation));
    assert_ne!(response.member_id, follower);
    assert!(!response.skip_assignment && response.members.is_empty());
    assert_eq!(shell.state(), "Stable");
    let sync = shell.sync(sync_as(&response.member_id, generation, &[]));
    assert_eq!(shell.synced(sync).assignment, assignment_of(&follower));
}

#[test]
fn a_returning_leader_skips_its_assignment() {
    // KIP-814
    let mut shell = Shell::new();
    let (_, _, generation) = stable(&mut shell);
    let back = shell.join(static_join("a", ""), 9);
    let response = shell.joined(back);
    assert!(response.skip_assignment);
    assert_eq!((response.members.len(), response.generation_id), (2, generation));
    assert_eq!(response.leader, response.member_id);
}

#[test]
fn before_version_9_a_returning_leader_is_told_that_another_leads() {
    let mut shell = Shell::new();
    let (leader, _, _) = stable(&mut shell);
    let back = shell.join(static_join("a", ""), 8);
    let response = shell.joined(back);
    assert_eq!((&response.leader, response.skip_assignment), (&leader, false));
    assert_ne!(response.member_id, leader);
    assert!(response.members.is_empty());
}

#[test]
fn the_predecessor_is_fenced() {
    let mut shell = Shell::new();
    let (leader, _, generation) = stable(&mut shell);
    let back = shell.join(static_join("a", ""), 9);
    shell.joined(back);
    let id = shell.next_id();
    let request = HeartbeatRequest {
        group_id: GROUP.into(),
        member_id: leader.clone(),
        group_instance_id: Some("a".into()),
        generation_id: generation,
    };
    let result = shell.shard.handle_heartbeat(id, &request, shell.now);
    shell.take_in(result);
    let Some(Answer::Heartbeat(response)) = shell.take(id) else { panic!("no answer") };
    assert_eq!(code(response.error_code), ErrorCode::FencedInstanceId);

    let sync = shell
        .sync(SyncGroupRequest { group_instance_id: Some("a".into()), ..sync_as(&leader, generation, &[]) });
    assert_eq!(code(shell.synced(sync).error_code), ErrorCode::FencedInstanceId);
    let join = shell.join(static_join("a", &leader), 9);
    assert_eq!(code(shell.joined(join).error_code), ErrorCode::FencedInstanceId);
    let commit = OffsetCommitRequest {
        group_instance_id: Some("a".into()),
        ..commit_as(&leader, generation, "t", 0, 1)
    };
    let commit = shell.commit(commit);
    assert_eq!(code(shell.committed(commit).topics[0].partitions[0].error_code), ErrorCode::FencedInstanceId);
    let left = shell.leave(&[(&leader, Some("a"))]);
    assert_eq!(code(left.members[0].error_code), ErrorCode::FencedInstanceId);
}

#[test]
fn a_join_that_waits_is_fenced_by_the_next_of_its_instance() {
    let mut shell = Shell::new();
    let first = shell.join(static_join("a", ""), 9);
    let second = shell.join(static_join("a", ""), 9);
    assert_eq!(code(shell.joined(first).error_code), ErrorCode::FencedInstanceId);
    shell.pass(3_000);
    assert_eq!(shell.joined(second).generation_id, 1);
}

#[test]
fn a_sync_that_waits_is_fenced_and_the_group_rebalances() {
    let mut shell = Shell::new();
    let joins = ["a", "b"].map(|instance| shell.join(static_join(instance, ""), 9));
    shell.pass(6_000);
    let responses = joins.map(|join| shell.joined(join));
    let follower = responses.iter().find(|response| response.member_id != response.leader).unwrap();
    let instance = &follower.member_id[..1];
    let sync = shell.sync(sync_as(&follower.member_id, 1, &[]));
    let back = shell.join(static_join(instance, ""), 9);
    assert_eq!(code(shell.synced(sync).error_code), ErrorCode::FencedInstanceId);
    assert!(shell.is_open(back));
    assert_eq!(shell.state(), "PreparingRebalance");
}

#[test]
fn a_return_that_changes_the_protocol_rebalances() {
    let mut shell = Shell::new();
    let both = |instance: &str, names: [&str; 2]| JoinGroupRequest {
        protocols: names.map(|name| protocol(name, b"m")).to_vec(),
        ..static_join(instance, "")
    };
    let join = shell.join(both("a", ["range", "sticky"]), 9);
    shell.pass(3_000);
    shell.settle_generation(&[("a".into(), join)]);
    let back = shell.join(both("a", ["sticky", "range"]), 9);
    let response = shell.joined(back);
    assert_eq!((response.generation_id, response.protocol_name.as_deref()), (2, Some("sticky")));
}

#[test]
fn a_static_member_that_misses_a_rebalance_stays_until_its_session_ends() {
    let mut shell = Shell::new();
    let long = JoinGroupRequest { session_timeout_ms: 300_000, ..static_join("a", "") };
    let joins = [("a".into(), shell.join(long, 9)), ("b".into(), shell.join(static_join("b", ""), 9))];
    shell.pass(6_000);
    let (ids, _) = shell.settle_generation(&joins);
    let other = ids.iter().find(|id| id.starts_with("b-")).unwrap().clone();
    let changed = JoinGroupRequest { protocols: vec![protocol("range", b"new")], ..static_join("b", &other) };
    let again = shell.join(changed, 9);
    shell.pass(60_000);
    assert_eq!(shell.joined(again).generation_id, 2);
    assert_eq!(shell.shard.describe(&GROUP.into(), 5).members.len(), 2);
}

#[test]
fn a_failed_return_leaves_the_old_member_in_its_place() {
    let mut shell = Shell::new();
    let (leader, follower, generation) = stable(&mut shell);
    shell.is_fast = false;
    let back = shell.join(static_join("b", ""), 9);
    shell.fail(ErrorCode::NotLeaderOrFollower);
    assert_eq!(code(shell.joined(back).error_code), ErrorCode::NotCoordinator);
    assert_eq!(shell.heartbeat_code(&follower, generation), ErrorCode::None);
    assert_eq!(shell.heartbeat_code(&leader, generation), ErrorCode::None);
}

#[test]
fn a_rebalance_that_overtakes_a_return_takes_the_member_along() {
    let mut shell = Shell::new();
    let (leader, _, generation) = stable(&mut shell);
    shell.is_fast = false;
    let back = shell.join(static_join("b", ""), 9);
    let again = shell.join(static_join("a", &leader), 9);
    assert_eq!(shell.joined(back).generation_id, generation + 1);
    assert_eq!(shell.joined(again).members.len(), 2);
    shell.settle(usize::MAX);
    assert_eq!(shell.state(), "CompletingRebalance");
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let mut shell = Shell::new();
    let (_, _, generation) = stable(&mut shell);
    let left = shell.leave(&[("", Some("a")), ("", Some("nobody")), ("", None)]);
    let codes: Vec<_> = left.members.iter().map(|row| code(row.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownMemberId, ErrorCode::UnknownMemberId]);
    assert_eq!(shell.state(), "PreparingRebalance");
    let _ = generation;
}
