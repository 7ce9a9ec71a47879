//! DescribeGroups, ListGroups, and the search for what has outlived its use.

use std::collections::BTreeSet;

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{DescribedGroup, ListedGroup};

use super::classic::ClassicGroup;
use super::context::{Draft, Effect, Outbox, TimerKey};
use super::state::ClassicState;
use super::writes::offset_tombstones;
use super::{Entry, GROUPS_PER_EXPIRY_MAX, GroupShard};
use crate::coordinator::result::Millis;

/// From here on a missing group is an error (KIP-1043); before, it is described as dead.
const DESCRIBE_VERSION_WITH_NOT_FOUND: i16 = 6;
/// How Kafka names the kind of group that this shard serves.
const CLASSIC_TYPE: &str = "classic";

impl GroupShard {
    /// DescribeGroups for one group of this shard.
    #[must_use]
    pub fn describe(&self, group_id: &ByteString, version: i16) -> DescribedGroup {
        match self.groups.get(group_id) {
            Some(entry) => entry.live.describe(),
            None => missing_group(group_id, version),
        }
    }

    /// ListGroups over this shard. Empty filters let everything pass; states and types are compared without case.
    #[must_use]
    pub fn list(&self, states_filter: &[ByteString], types_filter: &[ByteString]) -> Vec<ListedGroup> {
        let states: BTreeSet<String> =
            states_filter.iter().map(|state| state.trim().to_lowercase()).collect();
        let is_type_wanted = types_filter.is_empty()
            || types_filter.iter().any(|kind| kind.eq_ignore_ascii_case(CLASSIC_TYPE));
        let is_state_wanted = |live: &ClassicGroup| {
            states.is_empty() || states.contains(&live.shown_state().name().to_lowercase())
        };
        let wanted = self.groups.values().filter(|entry| is_type_wanted && is_state_wanted(&entry.live));
        wanted.map(|entry| entry.live.list()).collect()
    }

    /// Sets the timer of the search for expired offsets, if there is anything that could expire.
    pub(super) fn arm_expiry(&mut self, now: Millis) {
        if !self.groups.is_empty() && !self.timers.is_set(&TimerKey::Expiry) {
            self.timers.set(TimerKey::Expiry, now.plus(self.config.offsets_retention_check_interval_ms));
        }
    }

    /// Looks at the next groups; the rest waits for the next call, which follows at once.
    pub(super) fn expire_offsets(&mut self, now: Millis, out: &mut Outbox) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.expiry_cursor.take().map_or(Unbounded, Excluded);
        let mut ids = self.groups.range((from, Unbounded)).map(|(id, _)| id.clone());
        let chunk: Vec<ByteString> = ids.by_ref().take(GROUPS_PER_EXPIRY_MAX).collect();
        let has_more = ids.next().is_some();
        drop(ids);
        self.expiry_cursor = chunk.last().filter(|_| has_more).cloned();
        // A commit on its way would land before the tombstone that was decided without it.
        let busy = self.groups_with_writes();
        for group_id in chunk.iter().filter(|id| !busy.contains(*id)) {
            self.expire_group(group_id, now, out);
        }
        if has_more {
            self.timers.set(TimerKey::Expiry, now);
        } else {
            self.arm_expiry(now);
        }
    }

    fn expire_group(&mut self, group_id: &ByteString, now: Millis, out: &mut Outbox) {
        // Neither does one that this very call has drafted a write for.
        if out.drafts.iter().any(|draft| draft.group == *group_id) {
            return;
        }
        let Some(Entry { live, offsets, .. }) = self.groups.get(group_id) else { return };
        let expired = live.expired(&self.config, offsets, now);
        let is_over = expired.len() == offsets.values().map(|rows| rows.len()).sum::<usize>();
        if is_over && live.is(ClassicState::Empty) && live.pending_joins.is_empty() {
            let draft = self.bury(group_id, expired, now);
            out.drafts.push(draft);
        } else if !expired.is_empty() {
            let tombstones = offset_tombstones(group_id, &expired);
            out.drafts.push(Draft::new(group_id, tombstones, Effect::Nothing));
        }
    }
}

impl ClassicGroup {
    /// The state as others see it: a group on its way out is there, and empty, until its tombstones are durable.
    fn shown_state(&self) -> ClassicState {
        match self.state() {
            ClassicState::Dead => ClassicState::Empty,
            state => state,
        }
    }

    fn describe(&self) -> DescribedGroup {
        let is_stable = self.is(ClassicState::Stable);
        let protocol = self.protocol.clone().filter(|_| is_stable).unwrap_or_default();
        let rows = self.members().map(|member| {
            let mut row = member.describe();
            if is_stable {
                row.member_metadata = member.metadata(&protocol);
            }
            row
        });
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: self.shown_state().name().into(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: rows.collect(),
            protocol_data: protocol,
            ..DescribedGroup::default()
        }
    }

    fn list(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            group_state: self.shown_state().name().into(),
            group_type: CLASSIC_TYPE.into(),
        }
    }
}

fn missing_group(group_id: &ByteString, version: i16) -> DescribedGroup {
    let mut group = DescribedGroup {
        group_id: group_id.clone(),
        group_state: ClassicState::Dead.name().into(),
        ..DescribedGroup::default()
    };
    if version >= DESCRIBE_VERSION_WITH_NOT_FOUND {
        group.error_code = ErrorCode::GroupIdNotFound.into();
        group.error_message = Some(format!("Group {group_id} not found.").into());
    }
    group
}
