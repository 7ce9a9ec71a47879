//! The group coordinator of one partition of `__consumer_offsets`: classic groups and committed offsets.

mod classic;
mod config;
mod context;
mod delete;
mod describe;
mod figures;
mod join;
mod member;
mod membership;
mod offsets;
mod rebalance;
mod state;
mod sync;
#[cfg(test)]
mod tests;
mod writes;

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, LeaveGroupRequest, LeaveGroupResponse,
    MemberIdentity, OffsetCommitRequest, OffsetFetchRequestGroup, OffsetFetchResponseGroup, SyncGroupRequest,
};

use self::classic::ClassicGroup;
use self::context::{Context, MemberIds, Offsets, Outbox, TimerKey};
use self::join::Join;
use self::member::ParkedJoin;
use self::writes::PendingWrite;
use super::records::{self, DurableGroup, Fact, RecordError};
use super::result::{Answer, AnswerId, Client, CoordinatorResult, Millis, WriteId};
use super::timers::Timers;

pub use self::config::GroupConfig;
pub use self::figures::GroupSummary;
pub use self::offsets::{offset_fetch_error, offset_fetch_groups, offset_fetch_response};
pub use self::state::ClassicState;

/// LeaveGroup below this version names one member, outside the list.
const LEAVE_VERSION_WITH_MEMBERS: i16 = 3;
/// Deadlines handled in one call of [`GroupShard::on_timer`].
const TIMERS_PER_CALL_MAX: usize = 256;
/// Groups looked at for expired offsets per timer.
const GROUPS_PER_EXPIRY_MAX: usize = 256;

/// One group: what is durable, and what lives on top of it.
#[derive(Debug)]
struct Entry {
    live: ClassicGroup,
    /// The newest state in the log; none for a group that has only offsets, or nothing yet.
    durable: Option<DurableGroup>,
    /// Committed, and durable.
    offsets: Offsets,
}

impl Entry {
    fn new(live: ClassicGroup) -> Self {
        Self { live, durable: None, offsets: Offsets::new() }
    }
}

/// The coordinator of one partition of `__consumer_offsets`.
///
/// Owned by the core that owns the partition, driven by its shell, never shared. Its life: [`GroupShard::new`],
/// [`GroupShard::replay`] for every record of the partition, [`GroupShard::on_loaded`], then requests, timers and
/// finished writes in any order, and [`GroupShard::on_unloaded`] when the partition is led elsewhere.
#[derive(Debug)]
pub struct GroupShard {
    config: GroupConfig,
    ids: MemberIds,
    timers: Timers<TimerKey>,
    groups: BTreeMap<ByteString, Entry>,
    pending: BTreeMap<WriteId, PendingWrite>,
    next_write: u64,
    /// Where the search for expired offsets goes on.
    expiry_cursor: Option<ByteString>,
}

impl GroupShard {
    /// An empty shard. Member ids follow from `seed`: give every life of a shard another one.
    #[must_use]
    pub fn new(config: GroupConfig, seed: u64) -> Self {
        Self {
            config,
            ids: MemberIds::new(seed),
            timers: Timers::default(),
            groups: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_write: 0,
            expiry_cursor: None,
        }
    }

    /// Takes over one record of the partition's log. At load only, in log order, before [`Self::on_loaded`].
    ///
    /// # Errors
    /// If the record does not decode; the state is as before.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        // Copies, since what is kept would else pin the buffer that the log was read into.
        let fact = records::decode(Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice))?;
        self.apply(fact);
        Ok(())
    }

    /// The log has been read: members have a whole session to show themselves, a group that is larger than it may
    /// be rebalances.
    pub fn on_loaded(&mut self, now: Millis) -> CoordinatorResult {
        let mut out = Outbox::default();
        let Self { config, ids, timers, groups, .. } = self;
        for (id, entry) in groups.iter_mut() {
            if let Some(durable) = &entry.durable {
                entry.live = ClassicGroup::from_durable(id.clone(), durable);
            }
            let mut ctx = Context { config, now, timers, ids, out: &mut out };
            for member in entry.live.member_ids() {
                entry.live.restart_session(&mut ctx, &member);
            }
            if entry.live.member_count() > ctx.config.members_max {
                entry.live.prepare_rebalance(&mut ctx);
            }
        }
        self.arm_expiry(now);
        self.finish(out)
    }

    /// The partition is led elsewhere: whoever waits is told so, and the shard is empty and silent.
    pub fn on_unloaded(&mut self, now: Millis) -> CoordinatorResult {
        let mut out = Outbox::default();
        let Self { config, ids, timers, groups, .. } = self;
        for entry in groups.values_mut() {
            entry.live.unload(&mut Context { config, now, timers, ids, out: &mut out });
        }
        for (_, write) in std::mem::take(&mut self.pending) {
            out.answers.extend(write.failed_answers(ErrorCode::NotCoordinator));
        }
        self.groups.clear();
        self.timers.clear();
        self.expiry_cursor = None;
        assert!(out.drafts.is_empty(), "an unloaded coordinator writes nothing");
        self.finish(out)
    }

    /// JoinGroup. The answer comes now, or when the rebalance completes.
    pub fn handle_join(
        &mut self,
        answer: AnswerId,
        request: JoinGroupRequest,
        client: Client,
        now: Millis,
    ) -> CoordinatorResult {
        let group_id = request.group_id.clone();
        let join = Join::new(answer, request, client);
        let outcome = self.admit_join(&group_id, &join).and_then(|()| {
            let is_new_member = join.member_id.is_empty();
            self.ensure_group(&group_id, is_new_member, ErrorCode::UnknownMemberId, now)
        });
        let parked: ParkedJoin = join.parked;
        let member_id = join.member_id.clone();
        self.with_group(&group_id, now, |group, ctx| match (outcome, group) {
            (Ok(()), Some(group)) => group.join(ctx, join),
            (Err(code), _) => ClassicGroup::refuse_join(ctx, parked, &member_id, code),
            (Ok(()), None) => unreachable!("the group was made sure of"),
        })
    }

    fn admit_join(&self, group_id: &str, join: &Join) -> Result<(), ErrorCode> {
        let session_timeouts = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        if group_id.is_empty() {
            Err(ErrorCode::InvalidGroupId)
        } else if session_timeouts.contains(&join.terms.session_timeout_ms) {
            Ok(())
        } else {
            Err(ErrorCode::InvalidSessionTimeout)
        }
    }

    /// SyncGroup. The answer comes now, or when the leader's assignment is durable.
    pub fn handle_sync(
        &mut self,
        answer: AnswerId,
        request: SyncGroupRequest,
        now: Millis,
    ) -> CoordinatorResult {
        let group_id = request.group_id.clone();
        let missing = missing_group_code(&group_id);
        self.with_group(&group_id, now, |group, ctx| match group {
            Some(group) => group.sync(ctx, answer, request),
            None => ClassicGroup::refuse_sync(ctx, answer, missing),
        })
    }

    /// Heartbeat. The answer comes now.
    pub fn handle_heartbeat(
        &mut self,
        answer: AnswerId,
        request: &HeartbeatRequest,
        now: Millis,
    ) -> CoordinatorResult {
        let missing = missing_group_code(&request.group_id);
        self.with_group(&request.group_id, now, |group, ctx| {
            let outcome = group.map_or(Err(missing), |group| group.heartbeat(ctx, request));
            let error_code = outcome.err().unwrap_or(ErrorCode::None).into();
            ctx.out.answer(answer, Answer::Heartbeat(HeartbeatResponse { error_code, ..Default::default() }));
        })
    }

    /// LeaveGroup. The answer comes now, or when the group is durably empty. Below version 3 the one member's
    /// result is the response's own error code.
    pub fn handle_leave(
        &mut self,
        answer: AnswerId,
        request: LeaveGroupRequest,
        version: i16,
        now: Millis,
    ) -> CoordinatorResult {
        let group_id = request.group_id;
        let missing = missing_group_code(&group_id);
        let is_single = version < LEAVE_VERSION_WITH_MEMBERS;
        let leaving = if is_single {
            vec![MemberIdentity { member_id: request.member_id, group_instance_id: None, reason: None }]
        } else {
            request.members
        };
        let mut out = Outbox::default();
        self.in_group(&group_id, now, &mut out, |group, ctx| match group {
            Some(group) => group.leave(ctx, answer, leaving),
            None => ctx.out.answer(answer, Answer::Leave(leave_of_missing_group(missing, leaving))),
        });
        if is_single {
            out.answers.iter_mut().for_each(fold_single_leave);
            out.drafts.iter_mut().flat_map(|draft| &mut draft.answers).for_each(fold_single_leave);
        }
        self.finish(out)
    }

    /// OffsetCommit. The answer comes when the offsets are durable, or now if none could be taken. The shell has
    /// taken out the topics that do not exist.
    pub fn handle_offset_commit(
        &mut self,
        answer: AnswerId,
        request: OffsetCommitRequest,
        version: i16,
        now: Millis,
    ) -> CoordinatorResult {
        let group_id = request.group_id.clone();
        let is_simple = request.generation_id_or_member_epoch < 0;
        let outcome = self.ensure_group(&group_id, is_simple, offsets::unknown_group_code(version), now);
        self.with_group(&group_id, now, |group, ctx| match (outcome, group) {
            (Ok(()), Some(group)) => group.commit(ctx, answer, request),
            (Err(code), _) => {
                ctx.out.answer(answer, Answer::OffsetCommit(offsets::refused_commit(&request, code)));
            }
            (Ok(()), None) => unreachable!("the group was made sure of"),
        })
    }

    /// OffsetFetch for one group, in the form of version 8 and up (see [`offset_fetch_groups`] and
    /// [`offset_fetch_response`]): what is durable. An unknown group has no offsets, which is no error.
    ///
    /// `require_stable` needs nothing here as long as no offsets are committed in transactions.
    #[must_use]
    pub fn offset_fetch(&self, request: &OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
        let entry = self.groups.get(&request.group_id);
        offsets::fetch(&request.group_id, entry.map(|entry| &entry.offsets), request.topics.as_deref())
    }

    /// When [`Self::on_timer`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// Handles deadlines that `now` has reached: a bounded number, so ask [`Self::next_deadline`] again after it.
    pub fn on_timer(&mut self, now: Millis) -> CoordinatorResult {
        let mut out = Outbox::default();
        for _ in 0..TIMERS_PER_CALL_MAX {
            let Some(key) = self.timers.pop_due(now) else { break };
            let group_id = match &key {
                TimerKey::Expiry => {
                    // As long as it is, one round a call.
                    self.expire_offsets(now, &mut out);
                    break;
                }
                TimerKey::Join { group } | TimerKey::Sync { group } | TimerKey::Session { group, .. } => {
                    group.clone()
                }
            };
            self.in_group(&group_id, now, &mut out, |group, ctx| match (key, group) {
                (TimerKey::Join { .. }, Some(group)) => group.on_join_timer(ctx),
                (TimerKey::Sync { .. }, Some(group)) => group.on_sync_timer(ctx),
                (TimerKey::Session { member, .. }, Some(group)) => group.on_session_timer(ctx, &member),
                (TimerKey::Expiry, _) | (_, None) => {}
            });
        }
        self.finish(out)
    }

    /// Makes sure that the group exists, creating it only if `may_create`; else `missing` says that it does not.
    fn ensure_group(
        &mut self,
        group_id: &ByteString,
        may_create: bool,
        missing: ErrorCode,
        now: Millis,
    ) -> Result<(), ErrorCode> {
        if self.groups.contains_key(group_id) {
            return Ok(());
        }
        if !may_create {
            return Err(missing);
        }
        if self.groups.len() >= self.config.groups_max {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let id = detached(group_id);
        self.groups.insert(id.clone(), Entry::new(ClassicGroup::new(id, Some(now))));
        self.arm_expiry(now);
        Ok(())
    }

    /// Runs one input against a group, if it is there, and gives back what follows.
    fn with_group(
        &mut self,
        group_id: &ByteString,
        now: Millis,
        input: impl FnOnce(Option<&mut ClassicGroup>, &mut Context<'_>),
    ) -> CoordinatorResult {
        let mut out = Outbox::default();
        self.in_group(group_id, now, &mut out, input);
        self.finish(out)
    }

    fn in_group(
        &mut self,
        group_id: &ByteString,
        now: Millis,
        out: &mut Outbox,
        input: impl FnOnce(Option<&mut ClassicGroup>, &mut Context<'_>),
    ) {
        let Self { config, ids, timers, groups, .. } = self;
        let group = groups.get_mut(group_id).map(|entry| &mut entry.live);
        input(group, &mut Context { config, now, timers, ids, out });
        let is_written = out.drafts.iter().any(|draft| draft.group == *group_id);
        if !is_written {
            self.drop_if_nothing(group_id);
        }
    }

    /// The only place where durable state changes: at load, and when a write of ours is known to be durable.
    fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Offset { group, topic, partition, value: Some(value) } => {
                let entry = entry_for(&mut self.groups, &group);
                entry.offsets.entry(topic).or_default().insert(partition, value);
            }
            Fact::Offset { group, topic, partition, value: None } => {
                let Some(entry) = self.groups.get_mut(&group) else { return };
                let Some(rows) = entry.offsets.get_mut(&topic) else { return };
                rows.remove(&partition);
                if rows.is_empty() {
                    entry.offsets.remove(&topic);
                }
                self.drop_if_nothing(&group);
            }
            Fact::Group { group, value: Some(value) } => {
                entry_for(&mut self.groups, &group).durable = Some(value);
            }
            Fact::Group { group, value: None } => {
                let Some(entry) = self.groups.get_mut(&group) else { return };
                entry.durable = None;
                self.drop_if_nothing(&group);
            }
            Fact::Foreign { key_version } => {
                tracing::debug!(key_version, "a record of another kind of group is left alone");
            }
        }
    }

    /// Forgets a group of which neither the log nor a client knows anything.
    fn drop_if_nothing(&mut self, group_id: &ByteString) {
        let Some(entry) = self.groups.get(group_id) else { return };
        let is_durable = entry.durable.is_some() || !entry.offsets.is_empty();
        let lives = !entry.live.is(ClassicState::Empty) || !entry.live.pending_joins.is_empty();
        if !is_durable && !lives && !self.has_writes(group_id) {
            self.groups.remove(group_id);
        }
    }
}

fn entry_for<'a>(groups: &'a mut BTreeMap<ByteString, Entry>, group_id: &ByteString) -> &'a mut Entry {
    let new = || Entry::new(ClassicGroup::new(group_id.clone(), None));
    groups.entry(group_id.clone()).or_insert_with(new)
}

/// How a request to a group that does not exist is refused.
fn missing_group_code(group_id: &str) -> ErrorCode {
    if group_id.is_empty() { ErrorCode::InvalidGroupId } else { ErrorCode::UnknownMemberId }
}

fn leave_of_missing_group(code: ErrorCode, leaving: Vec<MemberIdentity>) -> LeaveGroupResponse {
    let error_code = code.into();
    let mut response = LeaveGroupResponse::default();
    if code == ErrorCode::InvalidGroupId {
        response.error_code = error_code;
    } else {
        response.members.extend(leaving.into_iter().map(|identity| heizer_wire::messages::MemberResponse {
            member_id: identity.member_id,
            group_instance_id: identity.group_instance_id,
            error_code,
        }));
    }
    response
}

/// Below version 3 a response has room for one error only.
fn fold_single_leave((_, answer): &mut (AnswerId, Answer)) {
    if let Answer::Leave(response) = answer
        && let Some(member) = response.members.pop()
    {
        response.error_code = member.error_code;
    }
}

/// A copy that does not keep the request's frame alive.
fn detached(text: &ByteString) -> ByteString {
    ByteString::from(&**text)
}
