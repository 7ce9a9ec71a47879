//! DeleteGroups, OffsetDelete, and what goes when a topic goes.

use std::collections::BTreeSet;

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DeletableGroupResult, OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteResponse,
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use super::GroupShard;
use super::context::{Draft, Effect, Outbox};
use super::state::ClassicState;
use super::writes::offset_tombstones;
use crate::coordinator::result::{Answer, AnswerId, CoordinatorResult, Millis};

impl GroupShard {
    /// DeleteGroups for one group of this shard. The answer comes when its tombstones are durable, or now if it
    /// cannot be deleted.
    pub fn delete_group(
        &mut self,
        answer: AnswerId,
        group_id: &ByteString,
        now: Millis,
    ) -> CoordinatorResult {
        let state = self.groups.get(group_id).map(|entry| entry.live.state());
        let code = match state {
            Some(ClassicState::Empty) => ErrorCode::None,
            None | Some(ClassicState::Dead) => ErrorCode::GroupIdNotFound,
            Some(_) => ErrorCode::NonEmptyGroup,
        };
        let result = DeletableGroupResult { group_id: group_id.clone(), error_code: code.into() };
        let result = Answer::DeleteGroup(result);
        if state == Some(ClassicState::Dead) {
            return self.answer_after_removal(group_id, answer, result);
        }
        let mut out = Outbox::default();
        if code.is_none() {
            let offsets = self.offsets_of(group_id, |_| true);
            let draft = self.bury(group_id, offsets, now);
            out.drafts.push(draft);
        }
        out.answer_after(0, answer, result);
        self.finish(out)
    }

    /// OffsetDelete. The answer comes when the tombstones are durable, or now if there are none to write. The shell has
    /// taken out the partitions that do not exist.
    pub fn delete_offsets(&mut self, answer: AnswerId, request: OffsetDeleteRequest) -> CoordinatorResult {
        let OffsetDeleteRequest { group_id, topics } = request;
        let live = self.groups.get(&group_id).map(|entry| &entry.live);
        let is_dead = live.is_some_and(|live| live.is(ClassicState::Dead));
        let refusal = match live {
            _ if group_id.is_empty() => Some(ErrorCode::InvalidGroupId),
            None => Some(ErrorCode::GroupIdNotFound),
            Some(live) => live.validate_offset_delete().err(),
        };
        let mut out = Outbox::default();
        if let Some(code) = refusal {
            let refused = OffsetDeleteResponse { error_code: code.into(), ..OffsetDeleteResponse::default() };
            let refused = Answer::OffsetDelete(refused);
            if is_dead {
                return self.answer_after_removal(&group_id, answer, refused);
            }
            out.answer(answer, refused);
            return self.finish(out);
        }
        let (topics, doomed) = self.choose_offsets(&group_id, topics);
        if !doomed.is_empty() {
            let tombstones = offset_tombstones(&group_id, &doomed);
            out.drafts.push(Draft::new(&group_id, tombstones, Effect::Nothing));
        }
        let response = OffsetDeleteResponse { topics, ..OffsetDeleteResponse::default() };
        out.answer_after(0, answer, Answer::OffsetDelete(response));
        self.finish(out)
    }

    /// A row for every partition that is asked for, and which offsets are to go: those that there are, of topics that no
    /// member has subscribed to.
    fn choose_offsets(
        &self,
        group_id: &ByteString,
        asked: Vec<OffsetDeleteRequestTopic>,
    ) -> (Vec<OffsetDeleteResponseTopic>, Vec<(ByteString, i32)>) {
        let in_use = self.groups[group_id].live.topics_in_use();
        let is_in_use = |topic: &ByteString| in_use.as_ref().is_none_or(|topics| topics.contains(topic));
        let free: BTreeSet<&ByteString> =
            asked.iter().map(|topic| &topic.name).filter(|name| !is_in_use(name)).collect();
        let mut there: BTreeSet<_> =
            self.offsets_of(group_id, |topic| free.contains(topic)).into_iter().collect();
        let (mut rows, mut doomed) = (Vec::with_capacity(asked.len()), Vec::new());
        for topic in &asked {
            let code =
                if is_in_use(&topic.name) { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            let partitions = topic.partitions.iter().map(|partition| {
                let partition_index = partition.partition_index;
                doomed.extend(there.take(&(topic.name.clone(), partition_index)));
                OffsetDeleteResponsePartition { partition_index, error_code: code.into() }
            });
            let partitions = partitions.collect();
            rows.push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions });
        }
        (rows, doomed)
    }

    /// A topic is gone: so are the offsets that groups have committed for it. Those on their way to the log are
    /// cleared as well, since the tombstones come after them.
    pub fn on_topics_deleted(&mut self, topics: &BTreeSet<ByteString>) -> CoordinatorResult {
        let mut out = Outbox::default();
        let busy = self.groups_with_writes();
        for (group_id, entry) in &self.groups {
            if !busy.contains(group_id) && !entry.offsets.keys().any(|topic| topics.contains(topic)) {
                continue;
            }
            let offsets = self.offsets_of(group_id, |topic| topics.contains(topic));
            if !offsets.is_empty() {
                let tombstones = offset_tombstones(group_id, &offsets);
                out.drafts.push(Draft::new(group_id, tombstones, Effect::Nothing));
            }
        }
        self.finish(out)
    }

    /// The offsets of a group for the topics that `is_meant`: the durable ones and those on their way.
    fn offsets_of(
        &self,
        group_id: &ByteString,
        is_meant: impl Fn(&ByteString) -> bool,
    ) -> Vec<(ByteString, i32)> {
        let durable = self.groups.get(group_id).into_iter().flat_map(|entry| &entry.offsets);
        let durable = durable.flat_map(|(topic, rows)| rows.keys().map(move |index| (topic.clone(), *index)));
        let on_their_way = self.pending.values().filter(|write| write.group == *group_id);
        let on_their_way = on_their_way.flat_map(|write| write.offsets.iter().cloned());
        let all: BTreeSet<_> = durable.chain(on_their_way).filter(|(topic, _)| is_meant(topic)).collect();
        all.into_iter().collect()
    }
}
