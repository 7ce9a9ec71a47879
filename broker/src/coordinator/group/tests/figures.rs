//! What metrics show of groups.

use super::*;
use crate::coordinator::group::{ClassicState, GroupSummary};

#[test]
fn groups_come_one_after_the_other_with_what_is_durable() {
    let mut shell = Shell::new();
    let (_, generation) = shell.stable_group(2);
    assert!(generation > 0);
    for (group, partition) in [("a", 0), ("z", 1), ("z", 0)] {
        shell.commit(OffsetCommitRequest { group_id: group.into(), ..commit_as("", -1, "t", partition, 42) });
    }
    shell.is_fast = false;
    shell.commit(OffsetCommitRequest { group_id: "a".into(), ..commit_as("", -1, "t", 0, 43) });
    let (mut found, mut after) = (Vec::new(), None);
    while let Some(summary) = shell.shard.summary_after(after.as_ref()) {
        after = Some(summary.group.clone());
        found.push(summary);
    }
    let summary = |group: &str, state, members, committed| GroupSummary {
        group: group.into(),
        state,
        members,
        committed,
    };
    let expected = [
        summary("a", ClassicState::Empty, 0, 1),
        summary(GROUP, ClassicState::Stable, 2, 0),
        summary("z", ClassicState::Empty, 0, 2),
    ];
    assert_eq!(found, expected);
    let committed = |group: &str| -> Vec<(String, i32, i64)> {
        let group = ByteString::from(group);
        let rows = shell.shard.committed(&group);
        rows.map(|(topic, partition, offset)| (topic.to_string(), partition, offset)).collect()
    };
    assert_eq!(committed("z"), [("t".to_owned(), 0, 42), ("t".to_owned(), 1, 42)]);
    assert_eq!(committed("a"), [("t".to_owned(), 0, 42)], "the other one is not durable yet");
    assert!(committed("nobody").is_empty());
}
