//! What metrics show of groups.

use std::ops::Bound;

use bytestring::ByteString;

use super::GroupShard;
use super::state::ClassicState;

/// A group as metrics show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    /// Its id.
    pub group: ByteString,
    /// Where it stands.
    pub state: ClassicState,
    /// How many members it has.
    pub members: usize,
    /// How many partitions it has committed an offset for.
    pub committed: usize,
}

impl GroupShard {
    /// The group that follows `after` in the order of their ids; the first one for none.
    #[must_use]
    pub fn summary_after(&self, after: Option<&ByteString>) -> Option<GroupSummary> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (group, entry) = self.groups.range::<ByteString, _>((from, Bound::Unbounded)).next()?;
        Some(GroupSummary {
            group: group.clone(),
            state: entry.live.state(),
            members: entry.live.member_count(),
            committed: entry.offsets.values().map(|rows| rows.len()).sum(),
        })
    }

    /// What a group has committed, by topic and partition: what is durable, as [`Self::offset_fetch`] tells.
    pub fn committed(&self, group: &ByteString) -> impl Iterator<Item = (&ByteString, i32, i64)> {
        let offsets = self.groups.get(group).into_iter().flat_map(|entry| &entry.offsets);
        offsets.flat_map(|(topic, rows)| rows.iter().map(move |(index, row)| (topic, *index, row.offset)))
    }
}
