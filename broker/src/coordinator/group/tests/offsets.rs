//! Committed offsets.

use heizer_wire::messages::{OffsetFetchRequest, OffsetFetchRequestTopic};

use super::*;

const RETENTION_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
const CHECK_MS: u64 = 600_000;

fn codes(response: &OffsetCommitResponse) -> Vec<ErrorCode> {
    response.topics.iter().flat_map(|topic| &topic.partitions).map(|row| code(row.error_code)).collect()
}

fn refusal(shell: &mut Shell, request: OffsetCommitRequest) -> ErrorCode {
    let commit = shell.commit(request);
    codes(&shell.committed(commit))[0]
}

#[test]
fn a_commit_shows_and_is_answered_when_it_is_durable() {
    // contract G3
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(1);
    shell.is_fast = false;
    let commit = shell.commit(commit_as(&ids[0], generation, "t", 3, 42));
    assert!(shell.is_open(commit));
    assert_eq!(shell.fetched("t", 3), -1);
    shell.settle(1);
    assert_eq!(codes(&shell.committed(commit)), [ErrorCode::None]);
    assert_eq!(shell.fetched("t", 3), 42);
}

#[test]
fn offset_epoch_and_note_come_back() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 42));
    let all = OffsetFetchRequestGroup { group_id: GROUP.into(), topics: None, ..Default::default() };
    let fetched = shell.shard.offset_fetch(&all);
    let row = &fetched.topics[0].partitions[0];
    assert_eq!(
        (row.committed_offset, row.committed_leader_epoch, row.metadata.as_deref()),
        (42, 4, Some("note"))
    );
}

#[test]
fn a_consumer_without_a_group_commits_to_an_empty_one() {
    let mut shell = Shell::new();
    assert_eq!(refusal(&mut shell, commit_as("", -1, "t", 0, 1)), ErrorCode::None);
    assert_eq!(shell.state(), "Empty");
    assert_eq!(&*shell.shard.list(&[], &[])[0].protocol_type, "");
    let empty_id = OffsetCommitRequest { group_id: "".into(), ..commit_as("", -1, "t", 0, 1) };
    assert_eq!(refusal(&mut shell, empty_id), ErrorCode::None);
}

#[test]
fn commits_are_refused_as_kafka_does() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(1);
    let cases = [
        (commit_as("", -1, "t", 0, 1), ErrorCode::UnknownMemberId),
        (commit_as("stranger", generation, "t", 0, 1), ErrorCode::UnknownMemberId),
        (commit_as(&ids[0], generation + 1, "t", 0, 1), ErrorCode::IllegalGeneration),
        (commit_as(&ids[0], -1, "t", 0, 1), ErrorCode::IllegalGeneration),
        (
            OffsetCommitRequest { group_id: "new".into(), ..commit_as("m", 1, "t", 0, 1) },
            ErrorCode::GroupIdNotFound,
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(refusal(&mut shell, request.clone()), expected, "{request:?}");
    }
    let id = shell.next_id();
    let request = OffsetCommitRequest { group_id: "new".into(), ..commit_as("m", 1, "t", 0, 1) };
    let result = shell.shard.handle_offset_commit(id, request, 8, shell.now);
    shell.take_in(result);
    assert_eq!(codes(&shell.committed(id)), [ErrorCode::IllegalGeneration]);

    let (_, join) = shell.enter();
    assert_eq!(
        refusal(&mut shell, commit_as(&ids[0], generation, "t", 0, 5)),
        ErrorCode::None,
        "before it joins again"
    );
    let again = shell.join(join_as(&ids[0]), 9);
    let next = shell.joined(again).generation_id;
    assert_eq!(refusal(&mut shell, commit_as(&ids[0], next, "t", 0, 6)), ErrorCode::RebalanceInProgress);
    shell.joined(join);
}

#[test]
fn a_commit_keeps_its_member_alive() {
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(1);
    for offset in 0..5 {
        shell.pass(9_000);
        assert_eq!(refusal(&mut shell, commit_as(&ids[0], generation, "t", 0, offset)), ErrorCode::None);
    }
}

#[test]
fn a_note_that_is_too_long_fails_alone() {
    let mut shell = Shell::with_config(GroupConfig { offset_metadata_max: 4, ..Default::default() });
    let mut request = commit_as("", -1, "t", 0, 1);
    let mut long = request.topics[0].partitions[0].clone();
    long.partition_index = 1;
    long.committed_metadata = Some("notes".into());
    let mut wide = long.clone();
    wide.partition_index = 2;
    wide.committed_metadata = Some("äöüß".into()); // 8 bytes, 4 of Java's characters
    let mut none = long.clone();
    none.partition_index = 3;
    none.committed_metadata = None;
    request.topics[0].partitions.extend([long.clone(), wide, none]);
    let commit = shell.commit(request);
    let expected = [ErrorCode::None, ErrorCode::OffsetMetadataTooLarge, ErrorCode::None, ErrorCode::None];
    assert_eq!(codes(&shell.committed(commit)), expected);
    assert_eq!((shell.fetched("t", 0), shell.fetched("t", 1)), (1, -1));

    let mut only = commit_as("", -1, "u", 0, 1);
    only.topics[0].partitions = vec![long];
    assert_eq!(refusal(&mut shell, only), ErrorCode::OffsetMetadataTooLarge);
}

#[test]
fn an_unknown_group_has_no_offsets_which_is_no_error() {
    let shell = Shell::new();
    assert_eq!(shell.fetched("t", 0), -1);
    let all = OffsetFetchRequestGroup { group_id: "nobody".into(), topics: None, ..Default::default() };
    let fetched = shell.shard.offset_fetch(&all);
    assert_eq!((fetched.error_code, fetched.topics.len()), (0, 0));
}

#[test]
fn old_fetch_versions_ask_for_one_group() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 42));
    let topics = vec![OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0, 1] }];
    let request = OffsetFetchRequest { group_id: GROUP.into(), topics: Some(topics), ..Default::default() };
    let groups = super::super::offset_fetch_groups(request, 7);
    let answers = groups.iter().map(|group| shell.shard.offset_fetch(group)).collect();
    let response = super::super::offset_fetch_response(answers, 7);
    let offsets: Vec<_> = response.topics[0].partitions.iter().map(|row| row.committed_offset).collect();
    assert_eq!(offsets, [42, -1]);
}

#[test]
fn a_coordinator_that_loads_is_told_of_where_the_version_has_room_for_it() {
    // contract P8
    let loading = ErrorCode::CoordinatorLoadInProgress;
    for version in 1..=9 {
        let topics = vec![OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0, 1] }];
        let group =
            OffsetFetchRequestGroup { group_id: GROUP.into(), topics: Some(topics), ..Default::default() };
        let answer = super::super::offset_fetch_error(&group, loading, version);
        let response = super::super::offset_fetch_response(vec![answer], version);
        let rows: Vec<_> = response.topics.iter().flat_map(|topic| &topic.partitions).collect();
        if version < 2 {
            let told: Vec<_> = rows.iter().map(|row| (code(row.error_code), row.committed_offset)).collect();
            assert_eq!(told, [(loading, -1), (loading, -1)]);
        } else if version < 8 {
            assert_eq!((code(response.error_code), rows.len()), (loading, 0), "version {version}");
        } else {
            let [group] = response.groups.as_slice() else { panic!("{response:?}") };
            assert_eq!((code(group.error_code), group.topics.len()), (loading, 0), "version {version}");
        }
    }
}

#[test]
fn offsets_of_an_empty_group_expire_after_the_retention_and_the_group_with_them() {
    // contract G3
    let mut shell = Shell::new();
    let (ids, generation) = shell.stable_group(1);
    shell.commit(commit_as(&ids[0], generation, "t", 0, 42));
    shell.leave(&[(&ids[0], None)]);
    shell.pass(RETENTION_MS - CHECK_MS);
    assert_eq!(shell.fetched("t", 0), 42);
    shell.pass(2 * CHECK_MS);
    assert_eq!(shell.fetched("t", 0), -1);
    assert!(shell.shard.groups.is_empty());
    assert!(loaded(&shell.log, GroupConfig::default(), 0).groups.is_empty(), "tombstones say so in the log");
    shell.pass(2 * CHECK_MS);
    assert_eq!(shell.shard.next_deadline(), None, "an idle shard has no timer");
}

#[test]
fn offsets_of_a_live_group_stay() {
    let mut shell = Shell::new();
    let metadata = protocol("range", b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff"); // subscribed to "t"
    let request =
        JoinGroupRequest { protocols: vec![metadata], session_timeout_ms: 1_800_000, ..join_as("") };
    let join = shell.join(request, 3);
    shell.pass(3_000);
    let (ids, generation) = shell.settle_generation(&[("".into(), join)]);
    shell.commit(commit_as(&ids[0], generation, "t", 0, 42));
    shell.commit(commit_as(&ids[0], generation, "unread", 0, 43));
    let end = shell.now.0 + RETENTION_MS + 2 * CHECK_MS;
    while shell.now.0 < end {
        shell.pass(CHECK_MS);
        assert_eq!(shell.heartbeat_code(&ids[0], generation), ErrorCode::None);
    }
    assert_eq!(shell.fetched("t", 0), 42);
    assert_eq!(shell.fetched("unread", 0), -1, "a topic that nobody reads any more");
}

#[test]
fn a_simple_groups_offsets_expire_each_by_its_own_age() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 1));
    shell.pass(RETENTION_MS / 2);
    shell.commit(commit_as("", -1, "t", 1, 2));
    shell.pass(RETENTION_MS / 2 + CHECK_MS);
    assert_eq!((shell.fetched("t", 0), shell.fetched("t", 1)), (-1, 2));
    shell.pass(RETENTION_MS / 2 + CHECK_MS);
    assert!(shell.shard.groups.is_empty());
}

#[test]
fn a_commit_may_bring_its_own_retention() {
    let mut shell = Shell::new();
    shell.commit(OffsetCommitRequest { retention_time_ms: 60_000, ..commit_as("", -1, "t", 0, 1) });
    shell.restart();
    assert_eq!(shell.fetched("t", 0), 1);
    shell.pass(CHECK_MS);
    assert_eq!(shell.fetched("t", 0), -1);
}

#[test]
fn a_commit_on_its_way_is_not_expired() {
    let mut shell = Shell::new();
    shell.commit(commit_as("", -1, "t", 0, 1));
    shell.now = Millis(shell.now.0 + RETENTION_MS + CHECK_MS);
    shell.is_fast = false;
    let commit = shell.commit(commit_as("", -1, "t", 0, 2));
    shell.pass(0);
    shell.settle(usize::MAX);
    shell.committed(commit);
    assert_eq!(shell.fetched("t", 0), 2);
}

#[test]
fn many_groups_expire_a_bounded_number_at_a_time() {
    let mut shell = Shell::new();
    for index in 0..600 {
        let group_id = format!("group-{index}").into();
        shell.commit(OffsetCommitRequest { group_id, ..commit_as("", -1, "t", 0, 1) });
    }
    shell.now = Millis(shell.now.0 + RETENTION_MS + CHECK_MS);
    shell.is_fast = false;
    let result = shell.shard.on_timer(shell.now);
    assert_eq!(result.writes.len(), 256);
    assert_eq!(
        shell.shard.next_deadline(),
        Some(shell.now),
        "the rest at once, after whoever waits for the core"
    );
    shell.take_in(result);
    shell.pass(0);
    shell.settle(usize::MAX);
    assert!(shell.shard.groups.is_empty());
}
