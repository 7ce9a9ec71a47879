//! Writes on their way to the log, and what follows when they arrive.

use std::collections::BTreeSet;

use bytestring::ByteString;
use heizer_wire::ErrorCode;

use super::GroupShard;
use super::context::{Context, Draft, Effect, Outbox};
use super::state::ClassicState;
use crate::coordinator::records;
use crate::coordinator::result::{Answer, AnswerId, CoordinatorResult, Millis, Record, Write, WriteId};

/// A write that the shell has been given and has not reported on.
#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) group: ByteString,
    records: Vec<Record>,
    effect: Effect,
    answers: Vec<(AnswerId, Answer)>,
    /// Offsets that it sets.
    pub(super) offsets: Vec<(ByteString, i32)>,
}

impl PendingWrite {
    pub(super) fn failed_answers(self, code: ErrorCode) -> impl Iterator<Item = (AnswerId, Answer)> {
        self.answers.into_iter().map(move |(id, mut answer)| {
            answer.fail(code);
            (id, answer)
        })
    }
}

impl GroupShard {
    /// A write has come to its end: `Ok` when the high watermark has passed it, `Err` with the append's error when
    /// it is not, or never will be known to be, in the log. Writes that succeed are reported in log order. A report
    /// on a write of before [`GroupShard::on_unloaded`] is ignored.
    ///
    /// # Panics
    /// If a write is reported while an earlier one, which precedes it in the log, is still open.
    pub fn on_write_done(
        &mut self,
        id: WriteId,
        outcome: Result<(), ErrorCode>,
        now: Millis,
    ) -> CoordinatorResult {
        let Some(write) = self.pending.remove(&id) else { return CoordinatorResult::default() };
        let mut out = Outbox::default();
        let outcome = outcome.map_err(response_code);
        match outcome {
            Ok(()) => {
                let is_first = self.pending.first_key_value().is_none_or(|(open, _)| *open > id);
                assert!(is_first, "{id} is durable before its predecessors");
                for record in write.records {
                    let fact = records::decode(record.key, record.value).expect("own records decode");
                    self.apply(fact);
                }
                self.conclude(&write.group, write.effect, Ok(()), now, &mut out);
                out.answers.extend(write.answers);
            }
            Err(code) => {
                let PendingWrite { group, records, effect, answers, offsets } = write;
                self.conclude(&group, effect, Err(code), now, &mut out);
                let rest = PendingWrite { group, records, effect: Effect::Nothing, answers, offsets };
                out.answers.extend(rest.failed_answers(code));
            }
        }
        self.finish(out)
    }

    fn conclude(
        &mut self,
        group_id: &ByteString,
        effect: Effect,
        outcome: Result<(), ErrorCode>,
        now: Millis,
        out: &mut Outbox,
    ) {
        if let (Effect::Removal { .. }, Ok(())) = (&effect, outcome) {
            self.groups.remove(group_id);
            return;
        }
        let Self { config, ids, timers, groups, .. } = self;
        let Some(entry) = groups.get_mut(group_id) else { return };
        let ctx = &mut Context { config, now, timers, ids, out };
        match effect {
            Effect::Nothing => {}
            Effect::Assignment { generation, assignments } => {
                entry.live.finish_assignment(ctx, generation, assignments, outcome);
            }
            Effect::StaticReturn(returned) => entry.live.finish_static_return(ctx, returned, outcome),
            Effect::Removal { state_since } => entry.live.revive(state_since),
        }
    }

    /// Gives what one input led to its form for the shell.
    pub(super) fn finish(&mut self, out: Outbox) -> CoordinatorResult {
        let mut result =
            CoordinatorResult { answers: out.answers, writes: Vec::with_capacity(out.drafts.len()) };
        for draft in out.drafts {
            let id = WriteId(self.next_write);
            self.next_write += 1;
            let Draft { group, records, effect, answers, offsets } = draft;
            result.writes.push(Write { id, records: records.clone() });
            self.pending.insert(id, PendingWrite { group, records, effect, answers, offsets });
        }
        result
    }

    pub(super) fn has_writes(&self, group_id: &ByteString) -> bool {
        self.pending.values().any(|write| write.group == *group_id)
    }

    pub(super) fn groups_with_writes(&self) -> BTreeSet<ByteString> {
        self.pending.values().map(|write| write.group.clone()).collect()
    }

    /// The group is on its way out. That it is not there is told once it is true: when its tombstones are durable.
    pub(super) fn answer_after_removal(
        &mut self,
        group_id: &ByteString,
        id: AnswerId,
        answer: Answer,
    ) -> CoordinatorResult {
        let mut removals =
            self.pending.values_mut().filter(|write| matches!(write.effect, Effect::Removal { .. }));
        let removal = removals.find(|write| write.group == *group_id);
        removal.expect("a dead group's tombstones are on their way").answers.push((id, answer));
        CoordinatorResult::default()
    }

    /// Marks an empty group as on its way out and writes the tombstones of all that the log knows of it.
    pub(super) fn bury(
        &mut self,
        group_id: &ByteString,
        offsets: Vec<(ByteString, i32)>,
        now: Millis,
    ) -> Draft {
        let entry = self.groups.get_mut(group_id).expect("the group was found empty");
        assert!(entry.live.is(ClassicState::Empty), "only an empty group is buried");
        let state_since = entry.live.state_since;
        for id in std::mem::take(&mut entry.live.pending_joins) {
            self.timers.cancel(&entry.live.session_timer(&id));
        }
        entry.live.become_state(ClassicState::Dead, now);
        let mut tombstones = offset_tombstones(group_id, &offsets);
        tombstones.push(records::group_record(group_id, None));
        Draft::new(group_id, tombstones, Effect::Removal { state_since })
    }
}

pub(super) fn offset_tombstones(group_id: &ByteString, offsets: &[(ByteString, i32)]) -> Vec<Record> {
    offsets.iter().map(|(topic, index)| records::offset_record(group_id, topic, *index, None)).collect()
}

/// What a client is told when its records could not be appended: to look for the coordinator, or to try again.
fn response_code(append: ErrorCode) -> ErrorCode {
    match append {
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        other => other,
    }
}
