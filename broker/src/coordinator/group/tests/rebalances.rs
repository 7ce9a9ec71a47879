//! Generations: how they begin, who is in, and how they end.

use super::*;

#[test]
fn two_members_share_a_generation() {
    // contract G1
    let mut shell = Shell::new();
    let (first, join_1) = shell.enter();
    let (second, join_2) = shell.enter();
    shell.pass(6_000);
    let (one, two) = (shell.joined(join_1), shell.joined(join_2));
    assert_eq!((one.generation_id, two.generation_id), (1, 1));
    assert_eq!((&one.leader, &two.leader), (&first, &first));
    assert_eq!(one.members.len(), 2, "the leader learns who is there");
    assert!(two.members.is_empty());
    assert_eq!(shell.state(), "CompletingRebalance");

    let follower = shell.sync(sync_as(&second, 1, &[]));
    assert!(shell.is_open(follower));
    let leader = shell.sync(sync_as(&first, 1, &[first.clone(), second.clone()]));
    assert_eq!(shell.synced(leader).assignment, assignment_of(&first));
    let synced = shell.synced(follower);
    assert_eq!(synced.assignment, assignment_of(&second)); // byte for byte
    assert_eq!(synced.protocol_name.as_deref(), Some("range"));
    assert_eq!(synced.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(shell.state(), "Stable");
}

#[test]
fn the_first_rebalance_waits_on_as_long_as_members_come() {
    let mut shell = Shell::new();
    let first = shell.join(join_as(""), 3);
    shell.pass(2_000);
    let second = shell.join(join_as(""), 3);
    shell.pass(2_000); // 3 s have passed, and a member came: another 3 s
    assert!(shell.is_open(first));
    shell.pass(2_000);
    assert_eq!(shell.joined(first).generation_id, 1);
    assert_eq!(shell.joined(second).generation_id, 1);
}

#[test]
fn the_first_rebalance_never_outlasts_the_rebalance_timeout() {
    let mut shell = Shell::new();
    let request = JoinGroupRequest { rebalance_timeout_ms: 7_000, ..join_as("") };
    let first = shell.join(request.clone(), 3);
    for _ in 0..6 {
        shell.pass(1_000);
        shell.join(request.clone(), 3);
        assert!(shell.is_open(first));
    }
    shell.pass(4_000);
    assert_eq!(shell.joined(first).generation_id, 1);
}

#[test]
fn a_second_member_starts_a_rebalance_that_the_first_learns_of_by_heartbeat() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(1);
    assert_eq!(shell.heartbeat_code(&ids[0], generation), ErrorCode::None);
    let entered = shell.enter();
    assert!(shell.is_open(entered.1));
    assert_eq!(shell.state(), "PreparingRebalance");
    assert_eq!(shell.heartbeat_code(&ids[0], generation), ErrorCode::RebalanceInProgress);
    let again = shell.join(join_as(&ids[0]), 9);
    let (ids, next) = shell.settle_generation(&[(ids[0].clone(), again), entered]);
    assert_eq!((ids.len(), next), (2, generation + 1));
}

#[test]
fn cooperative_members_join_again_with_what_they_own() {
    // KIP-429: nothing but opaque metadata that changes
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(2);
    let owned = JoinGroupRequest { protocols: vec![protocol("range", b"owned: 0")], ..join_as(&ids[1]) };
    let follower = shell.join(owned, 9);
    assert!(shell.is_open(follower));
    let leader = shell.join(join_as(&ids[0]), 9);
    let response = shell.joined(leader);
    assert_eq!(response.generation_id, generation + 1);
    let row = response.members.iter().find(|row| row.member_id == ids[1]).unwrap();
    assert_eq!(&row.metadata[..], b"owned: 0");
}

#[test]
fn a_stable_follower_that_joins_unchanged_disturbs_nobody() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(2);
    let again = shell.join(join_as(&ids[1]), 9);
    assert_eq!(shell.joined(again).generation_id, generation);
    assert_eq!(shell.state(), "Stable");
}

#[test]
fn a_lost_join_response_is_given_again() {
    let mut shell = Shell::new();
    let (id, join) = shell.enter();
    shell.pass(3_000);
    let first = shell.joined(join);
    let again = shell.join(join_as(&id), 9);
    assert_eq!(shell.joined(again), first);
}

#[test]
fn a_join_that_is_repeated_takes_the_place_of_the_first() {
    let mut shell = Shell::new();
    let (id, join) = shell.enter();
    let again = shell.join(join_as(&id), 9);
    assert_eq!(code(shell.joined(join).error_code), ErrorCode::RebalanceInProgress);
    shell.pass(6_000);
    assert_eq!(shell.joined(again).generation_id, 1);
}

#[test]
fn a_silent_leader_is_replaced() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(2);
    for _ in 0..3 {
        shell.pass(3_000);
        assert_eq!(shell.heartbeat_code(&ids[1], generation), ErrorCode::None);
    }
    shell.pass(1_000); // the leader's session is over
    assert_eq!(shell.heartbeat_code(&ids[1], generation), ErrorCode::RebalanceInProgress);
    assert_eq!(shell.heartbeat_code(&ids[0], generation), ErrorCode::UnknownMemberId);
    let again = shell.join(join_as(&ids[1]), 9);
    let response = shell.joined(again);
    assert_eq!((response.generation_id, &response.leader), (generation + 1, &ids[1]));
}

#[test]
fn who_is_late_for_the_rebalance_is_out() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(2);
    let leader = shell.join(join_as(&ids[0]), 9);
    for _ in 0..12 {
        assert_eq!(shell.heartbeat_code(&ids[1], generation), ErrorCode::RebalanceInProgress);
        assert!(shell.is_open(leader));
        shell.pass(5_000);
    }
    assert_eq!(shell.joined(leader).members.len(), 1);
    assert_eq!(shell.heartbeat_code(&ids[1], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn who_joins_and_never_syncs_is_out() {
    let mut shell = Shell::new();
    let entered = [shell.enter(), shell.enter()];
    shell.pass(6_000);
    let generation = shell.joined(entered[0].1).generation_id;
    let leader = entered[0].0.clone();
    let synced = shell.sync(sync_as(&leader, generation, std::slice::from_ref(&leader)));
    assert_eq!(shell.synced(synced).assignment, assignment_of(&leader));
    for _ in 0..12 {
        // The other is alive, and does not sync.
        shell.heartbeat_code(&entered[1].0, generation);
        shell.heartbeat_code(&leader, generation);
        shell.pass(5_000);
    }
    assert_eq!(shell.state(), "PreparingRebalance");
    assert_eq!(shell.heartbeat_code(&entered[1].0, generation), ErrorCode::UnknownMemberId);
    assert_eq!(shell.heartbeat_code(&leader, generation), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_member_that_waits_needs_no_heartbeat() {
    let mut shell = Shell::new();
    let (ids, _) = shell.stable_group(2);
    let leader = shell.join(join_as(&ids[0]), 9);
    shell.pass(9_000);
    shell.heartbeat_code(&ids[1], 1);
    shell.pass(5_000); // beyond the leader's session
    let follower = shell.join(join_as(&ids[1]), 9);
    assert_eq!(shell.joined(leader).members.len(), 2);
    assert_eq!(code(shell.joined(follower).error_code), ErrorCode::None);
}

#[test]
fn sync_is_refused_as_kafka_does() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(1);
    let cases = [
        (SyncGroupRequest { group_id: "".into(), ..sync_as(&ids[0], 1, &[]) }, ErrorCode::InvalidGroupId),
        (
            SyncGroupRequest { group_id: "elsewhere".into(), ..sync_as(&ids[0], 1, &[]) },
            ErrorCode::UnknownMemberId,
        ),
        (sync_as("stranger", generation, &[]), ErrorCode::UnknownMemberId),
        (sync_as(&ids[0], generation - 1, &[]), ErrorCode::IllegalGeneration),
        (
            SyncGroupRequest { protocol_type: Some("connect".into()), ..sync_as(&ids[0], generation, &[]) },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            SyncGroupRequest { protocol_name: Some("sticky".into()), ..sync_as(&ids[0], generation, &[]) },
            ErrorCode::InconsistentGroupProtocol,
        ),
    ];
    for (request, expected) in cases {
        let sync = shell.sync(request.clone());
        assert_eq!(code(shell.synced(sync).error_code), expected, "{request:?}");
    }
    let silent =
        SyncGroupRequest { protocol_type: None, protocol_name: None, ..sync_as(&ids[0], generation, &[]) };
    let sync = shell.sync(silent);
    assert_eq!(shell.synced(sync).assignment, assignment_of(&ids[0]), "before version 5 nothing is said");

    shell.enter();
    let sync = shell.sync(sync_as(&ids[0], generation, &[]));
    assert_eq!(code(shell.synced(sync).error_code), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_rebalance_sends_waiting_followers_back_to_join() {
    let mut shell = Shell::new();
    let entered = [shell.enter(), shell.enter()];
    shell.pass(6_000);
    let generation = shell.joined(entered[1].1).generation_id;
    let follower = shell.sync(sync_as(&entered[1].0, generation, &[]));
    shell.enter();
    assert_eq!(code(shell.synced(follower).error_code), ErrorCode::RebalanceInProgress);
}

#[test]
fn members_leave_in_a_batch_with_a_result_each() {
    // KIP-345: LeaveGroup 3 and up
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(3);
    let pending = shell.join(join_as(""), 9);
    let pending = shell.joined(pending).member_id;
    let response = shell.leave(&[(&ids[0], None), ("stranger", None), (&ids[2], None), (&pending, None)]);
    assert_eq!(code(response.error_code), ErrorCode::None);
    let codes: Vec<_> = response.members.iter().map(|row| code(row.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownMemberId, ErrorCode::None, ErrorCode::None]);
    assert_eq!(shell.heartbeat_code(&ids[1], generation), ErrorCode::RebalanceInProgress);
    let last = shell.join(join_as(&ids[1]), 9);
    assert_eq!(shell.joined(last).members.len(), 1);
}

#[test]
fn before_version_3_leave_answers_with_the_members_own_error() {
    let mut shell = Shell::new();
    let (ids, _) = shell.stable_group(1);
    for (member, expected) in
        [(ByteString::from("stranger"), ErrorCode::UnknownMemberId), (ids[0].clone(), ErrorCode::None)]
    {
        let id = shell.next_id();
        let request = LeaveGroupRequest { group_id: GROUP.into(), member_id: member, ..Default::default() };
        let result = shell.shard.handle_leave(id, request, 2, shell.now);
        shell.take_in(result);
        let Some(Answer::Leave(response)) = shell.take(id) else { panic!("no answer") };
        assert_eq!(code(response.error_code), expected);
        assert!(response.members.is_empty());
    }
    assert_eq!(shell.state(), "Empty");
}

#[test]
fn leaving_during_a_rebalance_lets_the_others_go_on() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(2);
    let leader = shell.join(join_as(&ids[0]), 9);
    assert!(shell.is_open(leader));
    shell.leave(&[(&ids[1], None)]);
    assert_eq!(shell.joined(leader).generation_id, generation + 1);
}

#[test]
fn a_member_that_leaves_while_it_waits_gets_its_answers() {
    let mut shell = Shell::new();
    let entered = [shell.enter(), shell.enter()];
    shell.pass(6_000);
    let generation = shell.joined(entered[1].1).generation_id;
    let follower = shell.sync(sync_as(&entered[1].0, generation, &[]));
    shell.leave(&[(&entered[1].0, None)]);
    assert_eq!(code(shell.synced(follower).error_code), ErrorCode::UnknownMemberId);
}

#[test]
fn describe_and_list_tell_state_and_type() {
    // contract G4
    let mut shell = Shell::new();
    let missing = shell.shard.describe(&GROUP.into(), 6);
    assert_eq!((code(missing.error_code), &*missing.group_state), (ErrorCode::GroupIdNotFound, "Dead")); // KIP-1043
    let missing = shell.shard.describe(&GROUP.into(), 5);
    assert_eq!((code(missing.error_code), &*missing.group_state), (ErrorCode::None, "Dead"));

    let (ids, _) = shell.stable_group(1);
    let stable = shell.shard.describe(&GROUP.into(), 6);
    assert_eq!(
        (&*stable.group_state, &*stable.protocol_type, &*stable.protocol_data),
        ("Stable", "consumer", "range")
    );
    let row = &stable.members[0];
    assert_eq!((&row.member_id, &*row.client_id, &*row.client_host), (&ids[0], "app", "/127.0.0.1"));
    assert_eq!(row.member_assignment, assignment_of(&ids[0]));
    assert!(!row.member_metadata.is_empty());

    shell.enter();
    let rebalancing = shell.shard.describe(&GROUP.into(), 6);
    assert_eq!((&*rebalancing.group_state, &*rebalancing.protocol_data), ("PreparingRebalance", ""));

    let listed = |states: &[&str], types: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect::<Vec<ByteString>>();
        shell.shard.list(&texts(states), &texts(types)).len()
    };
    assert_eq!(listed(&[], &[]), 1);
    assert_eq!(listed(&["preparingrebalance "], &["classic"]), 1);
    assert_eq!(listed(&["Stable"], &[]), 0);
    assert_eq!(listed(&[], &["consumer", "Classic"]), 1);
    for types in ["consumer", "unknown", "classic ", ""] {
        assert_eq!(listed(&[], &[types]), 0, "`{types}`");
    }
    let row = &shell.shard.list(&[], &[])[0];
    assert_eq!((&*row.group_state, &*row.group_type), ("PreparingRebalance", "classic"));
}
