//! Who is let in, and under which id.

use super::*;

#[test]
fn a_new_dynamic_member_is_given_an_id_and_comes_again() {
    // KIP-394
    let mut shell = Shell::new();
    let first = shell.join(join_as(""), 4);
    let response = shell.joined(first);
    assert_eq!(code(response.error_code), ErrorCode::MemberIdRequired);
    assert!(response.member_id.starts_with("app-"));
    assert_eq!(response.member_id.len(), "app-".len() + 36);
    let second = shell.join(join_as(&response.member_id), 4);
    assert!(shell.is_open(second));
    shell.pass(3_000);
    let joined = shell.joined(second);
    assert_eq!((code(joined.error_code), joined.generation_id), (ErrorCode::None, 1));
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
}

#[test]
fn before_version_4_a_member_is_in_at_once() {
    let mut shell = Shell::new();
    let join = shell.join(join_as(""), 3);
    assert!(shell.is_open(join));
    assert_eq!(shell.state(), "PreparingRebalance");
    shell.pass(3_000);
    assert_eq!(code(shell.joined(join).error_code), ErrorCode::None);
}

#[test]
fn version_0_waits_for_its_session_timeout_in_a_rebalance() {
    let mut shell = Shell::new();
    let request = JoinGroupRequest { rebalance_timeout_ms: -1, ..join_as("") };
    let join = shell.join(request, 0);
    shell.pass(3_000);
    let response = shell.joined(join);
    assert_eq!(code(response.error_code), ErrorCode::None);
    let member = shell.shard.groups[GROUP].live.member(&response.member_id).unwrap().clone();
    assert_eq!(member.rebalance_timeout_ms, 10_000);
}

#[test]
fn an_id_nobody_joins_with_is_forgotten_after_its_session() {
    // KIP-394
    let mut shell = Shell::new();
    let first = shell.join(join_as(""), 9);
    let id = shell.joined(first).member_id;
    assert_eq!(shell.state(), "Empty");
    shell.pass(10_000);
    let late = shell.join(join_as(&id), 9);
    assert_eq!(code(shell.joined(late).error_code), ErrorCode::UnknownMemberId);
    assert!(shell.shard.groups.is_empty(), "nothing is left of the group");
}

#[test]
fn a_rebalance_waits_for_ids_that_were_handed_out() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(1);
    let pending = shell.join(join_as(""), 9);
    let pending = shell.joined(pending).member_id;
    let again = shell.join(join_as(&ids[0]), 9); // the leader asks for a rebalance
    assert!(shell.is_open(again), "the new member is on its way");
    shell.join(join_as(&pending), 9);
    assert_eq!(shell.joined(again).generation_id, generation + 1);
}

#[test]
fn refusals_are_kafkas() {
    let config = GroupConfig { member_metadata_max: 100, ..Default::default() };
    let mut shell = Shell::with_config(config);
    shell.stable_group(1);
    let big = protocol("range", &[0; 101]);
    let cases = [
        (JoinGroupRequest { group_id: "".into(), ..join_as("") }, ErrorCode::InvalidGroupId),
        (JoinGroupRequest { session_timeout_ms: 5_999, ..join_as("") }, ErrorCode::InvalidSessionTimeout),
        (JoinGroupRequest { session_timeout_ms: 1_800_001, ..join_as("") }, ErrorCode::InvalidSessionTimeout),
        (
            JoinGroupRequest { protocol_type: "connect".into(), ..join_as("") },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            JoinGroupRequest { protocols: vec![protocol("other", b"")], ..join_as("") },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (JoinGroupRequest { protocols: vec![], ..join_as("") }, ErrorCode::InconsistentGroupProtocol),
        (JoinGroupRequest { protocols: vec![big], ..join_as("") }, ErrorCode::MessageTooLarge),
        (join_as("stranger"), ErrorCode::UnknownMemberId),
        (static_join("nobody", "stranger"), ErrorCode::UnknownMemberId),
        (
            JoinGroupRequest { group_id: "elsewhere".into(), ..join_as("stranger") },
            ErrorCode::UnknownMemberId,
        ),
    ];
    for (request, expected) in cases {
        let join = shell.join(request.clone(), 9);
        let response = shell.joined(join);
        assert_eq!(code(response.error_code), expected, "{request:?}");
        assert_eq!((response.generation_id, response.protocol_name), (-1, None));
    }
    assert_eq!(shell.state(), "Stable");
    assert_eq!(shell.shard.groups.len(), 1, "a refused join leaves no group behind");
}

#[test]
fn a_refusal_below_version_7_has_an_empty_protocol_name() {
    let mut shell = Shell::new();
    let join = shell.join(join_as("stranger"), 6);
    assert_eq!(shell.joined(join).protocol_name.as_deref(), Some(""));
}

#[test]
fn an_empty_group_needs_a_protocol_and_a_type() {
    let mut shell = Shell::new();
    for request in [
        JoinGroupRequest { protocols: vec![], ..join_as("") },
        JoinGroupRequest { protocol_type: "".into(), ..join_as("") },
    ] {
        let join = shell.join(request, 9);
        assert_eq!(code(shell.joined(join).error_code), ErrorCode::InconsistentGroupProtocol);
    }
}

#[test]
fn a_full_group_takes_nobody_new() {
    let mut shell = Shell::with_config(GroupConfig { members_max: 2, ..Default::default() });
    let (ids, _) = shell.stable_group(2);
    let third = shell.join(join_as(""), 9);
    assert_eq!(code(shell.joined(third).error_code), ErrorCode::GroupMaxSizeReached);
    let known = shell.join(join_as(&ids[1]), 9);
    assert_eq!(code(shell.joined(known).error_code), ErrorCode::None);
}

#[test]
fn in_a_rebalance_of_a_full_group_the_first_to_come_are_in() {
    let mut shell = Shell::with_config(GroupConfig { members_max: 1, ..Default::default() });
    let first = shell.join(join_as(""), 3);
    let second = shell.join(join_as(""), 3);
    assert_eq!(code(shell.joined(second).error_code), ErrorCode::GroupMaxSizeReached);
    shell.pass(3_000);
    assert_eq!(code(shell.joined(first).error_code), ErrorCode::None);
}

#[test]
fn handed_out_ids_are_bounded() {
    let mut shell = Shell::with_config(GroupConfig { pending_members_max: 2, ..Default::default() });
    let codes = [(); 3].map(|()| {
        let join = shell.join(join_as(""), 9);
        code(shell.joined(join).error_code)
    });
    use ErrorCode::{GroupMaxSizeReached, MemberIdRequired};
    assert_eq!(codes, [MemberIdRequired, MemberIdRequired, GroupMaxSizeReached]);
}

#[test]
fn groups_are_bounded() {
    let mut shell = Shell::with_config(GroupConfig { groups_max: 1, ..Default::default() });
    shell.stable_group(1);
    let other = shell.join(JoinGroupRequest { group_id: "other".into(), ..join_as("") }, 9);
    assert_eq!(code(shell.joined(other).error_code), ErrorCode::CoordinatorNotAvailable);
}

#[test]
fn the_protocol_is_the_one_most_prefer_of_those_all_offer() {
    let mut shell = Shell::new();
    let offers: [&[&str]; 3] = [&["sticky", "range"], &["range", "sticky", "own"], &["range", "sticky"]];
    let joins = offers.map(|names| {
        let protocols = names.iter().map(|name| protocol(name, b"m")).collect();
        shell.join(JoinGroupRequest { protocols, ..join_as("") }, 3)
    });
    shell.pass(10_000);
    for join in joins {
        assert_eq!(shell.joined(join).protocol_name.as_deref(), Some("range"));
    }
}
