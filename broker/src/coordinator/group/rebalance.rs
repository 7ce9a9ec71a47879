//! How a generation begins: waiting for members, completing the join, giving up on the late.

use bytes::Bytes;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{JoinGroupResponse, SyncGroupResponse};

use super::classic::{ClassicGroup, InitialDelay};
use super::context::{Context, Draft, Effect, TimerKey};
use super::member::ParkedJoin;
use super::state::ClassicState;
use crate::coordinator::records::group_record;
use crate::coordinator::result::{Answer, AnswerId};

/// How long a member may take to complete its first join, while its client cannot send heartbeats.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1_000;

impl ClassicGroup {
    fn join_timer(&self) -> TimerKey {
        TimerKey::Join { group: self.id.clone() }
    }

    fn sync_timer(&self) -> TimerKey {
        TimerKey::Sync { group: self.id.clone() }
    }

    pub(super) fn session_timer(&self, member: &str) -> TimerKey {
        TimerKey::Session { group: self.id.clone(), member: member.into() }
    }

    /// The member has shown itself: its session starts anew.
    pub(super) fn restart_session(&self, ctx: &mut Context<'_>, id: &str) {
        let Some(member) = self.member(id) else { return };
        let timeout_ms =
            if member.is_new { NEW_MEMBER_JOIN_TIMEOUT_MS } else { i64::from(member.session_timeout_ms) };
        let timer = TimerKey::Session { group: self.id.clone(), member: member.id.clone() };
        ctx.timers.set(timer, ctx.now.plus(timeout_ms));
    }

    /// Answers a join with an error and nothing else.
    pub(super) fn refuse_join(ctx: &mut Context<'_>, join: ParkedJoin, member_id: &str, code: ErrorCode) {
        let response = JoinGroupResponse {
            error_code: code.into(),
            member_id: member_id.into(),
            ..blank_join_response(join.version)
        };
        ctx.out.answer(join.answer, Answer::Join(response));
    }

    /// Answers a sync with an error and nothing else.
    pub(super) fn refuse_sync(ctx: &mut Context<'_>, answer: AnswerId, code: ErrorCode) {
        let response = SyncGroupResponse { error_code: code.into(), ..blank_sync_response() };
        ctx.out.answer(answer, Answer::Sync(response));
    }

    /// Answers a join with the current generation.
    pub(super) fn accept_join(&self, ctx: &mut Context<'_>, join: ParkedJoin, member_id: &str) {
        let leads = self.is_leader(member_id);
        let response = JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone().or(blank_join_response(join.version).protocol_name),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.into(),
            members: if leads { self.subscriptions() } else { Vec::new() },
            ..blank_join_response(join.version)
        };
        ctx.out.answer(join.answer, Answer::Join(response));
    }

    /// Removes a member or a handed-out id. Whatever it had parked is answered with `code`: an answer that is
    /// owed must come, or its connection waits for ever.
    pub(super) fn evict(&mut self, ctx: &mut Context<'_>, id: &str, code: ErrorCode) {
        ctx.timers.cancel(&self.session_timer(id));
        let Some(member) = self.remove(id) else { return };
        if let Some(join) = member.parked_join {
            Self::refuse_join(ctx, join, "", code);
        }
        if let Some(answer) = member.parked_sync {
            Self::refuse_sync(ctx, answer, code);
        }
    }

    /// A change of membership: a new rebalance, or a step in the one that runs.
    pub(super) fn rebalance_or_complete(&mut self, ctx: &mut Context<'_>) {
        if self.state().may_become(ClassicState::PreparingRebalance) {
            self.prepare_rebalance(ctx);
        } else {
            self.maybe_complete_join(ctx);
        }
    }

    /// Begins to wait for the members to join.
    pub(super) fn prepare_rebalance(&mut self, ctx: &mut Context<'_>) {
        if self.is(ClassicState::CompletingRebalance) {
            self.drop_assignments(ctx, ErrorCode::RebalanceInProgress);
        }
        self.pending_syncs.clear();
        ctx.timers.cancel(&self.sync_timer());
        let is_initial = self.is(ClassicState::Empty);
        self.become_state(ClassicState::PreparingRebalance, ctx.now);
        if is_initial {
            let delay_ms = ctx.config.initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
            self.wait_for_first_members(ctx, delay_ms, remaining_ms);
        } else if self.have_all_joined() {
            self.complete_join(ctx);
        } else {
            ctx.timers.set(self.join_timer(), ctx.now.plus(i64::from(self.rebalance_timeout_ms())));
        }
    }

    fn wait_for_first_members(&mut self, ctx: &mut Context<'_>, delay_ms: i32, remaining_ms: i32) {
        self.initial_delay = Some(InitialDelay { delay_ms, remaining_ms, member_added: false });
        ctx.timers.set(self.join_timer(), ctx.now.plus(i64::from(delay_ms)));
    }

    /// Completes the join if everybody is there, unless the initial delay is still running.
    pub(super) fn maybe_complete_join(&mut self, ctx: &mut Context<'_>) {
        let is_waiting = self.is(ClassicState::PreparingRebalance);
        if is_waiting && self.previous_state() != ClassicState::Empty && self.have_all_joined() {
            self.complete_join(ctx);
        }
    }

    /// The join timer fired: the initial delay goes on as long as members keep coming, everything else ends.
    pub(super) fn on_join_timer(&mut self, ctx: &mut Context<'_>) {
        if !self.is(ClassicState::PreparingRebalance) {
            return;
        }
        match self.initial_delay {
            Some(delay) if delay.member_added && delay.remaining_ms > 0 => {
                let next_delay_ms = ctx.config.initial_rebalance_delay_ms.min(delay.remaining_ms);
                let next_remaining_ms = delay.remaining_ms.saturating_sub(delay.delay_ms).max(0);
                self.wait_for_first_members(ctx, next_delay_ms, next_remaining_ms);
            }
            _ => self.complete_join(ctx),
        }
    }

    /// Ends the wait: who has not joined is out (static members stay until their session ends), and the next
    /// generation starts with the others.
    pub(super) fn complete_join(&mut self, ctx: &mut Context<'_>) {
        ctx.timers.cancel(&self.join_timer());
        self.initial_delay = None;
        let late = self.members().filter(|member| !member.is_awaiting_join() && member.instance_id.is_none());
        for id in late.map(|member| member.id.clone()).collect::<Vec<_>>() {
            self.evict(ctx, &id, ErrorCode::UnknownMemberId);
        }
        if !self.elect_joined_leader() && self.member_count() > 0 {
            // Only static members are left, and none of them joined: wait on.
            ctx.timers.set(self.join_timer(), ctx.now.plus(i64::from(self.rebalance_timeout_ms())));
            return;
        }
        self.start_generation(ctx.now);
        if self.is(ClassicState::Empty) {
            let empty = self.to_durable(|_| Bytes::new());
            ctx.out.drafts.push(Draft::new(
                &self.id,
                vec![group_record(&self.id, Some(&empty))],
                Effect::Nothing,
            ));
            return;
        }
        for id in self.member_ids() {
            if let Some(join) = self.take_parked_join(&id) {
                self.accept_join(ctx, join, &id);
            }
            if let Some(member) = self.member_mut(&id) {
                member.is_new = false;
            }
            self.restart_session(ctx, &id);
            self.pending_syncs.insert(id);
        }
        ctx.timers.set(self.sync_timer(), ctx.now.plus(i64::from(self.rebalance_timeout_ms())));
    }

    /// The sync timer fired: who took part in the join and never asked for the assignment is out.
    pub(super) fn on_sync_timer(&mut self, ctx: &mut Context<'_>) {
        let in_generation = matches!(self.state(), ClassicState::CompletingRebalance | ClassicState::Stable);
        if !in_generation || self.pending_syncs.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_syncs) {
            self.evict(ctx, &id, ErrorCode::UnknownMemberId);
        }
        self.prepare_rebalance(ctx);
    }

    /// A session timer fired: a handed-out id that nobody joined with, or a member that fell silent.
    pub(super) fn on_session_timer(&mut self, ctx: &mut Context<'_>, id: &str) {
        if self.pending_joins.contains(id) {
            self.remove_pending(ctx, id);
        } else if self.member(id).is_some_and(|member| !member.has_satisfied_heartbeat()) {
            self.evict(ctx, id, ErrorCode::UnknownMemberId);
            match self.state() {
                ClassicState::Stable | ClassicState::CompletingRebalance => self.rebalance_or_complete(ctx),
                _ => self.complete_join_if_last(ctx),
            }
        }
    }

    /// Forgets an id that was handed out (KIP-394).
    pub(super) fn remove_pending(&mut self, ctx: &mut Context<'_>, id: &str) {
        ctx.timers.cancel(&self.session_timer(id));
        self.remove(id);
        self.complete_join_if_last(ctx);
    }

    fn complete_join_if_last(&mut self, ctx: &mut Context<'_>) {
        if self.is(ClassicState::PreparingRebalance) && self.have_all_joined() {
            self.complete_join(ctx);
        }
    }

    /// Takes the assignments back and answers the waiting syncs with `code`.
    pub(super) fn drop_assignments(&mut self, ctx: &mut Context<'_>, code: ErrorCode) {
        assert!(self.is(ClassicState::CompletingRebalance), "assignments are dropped while they are made");
        let mut waiting = Vec::new();
        for member in self.members_mut() {
            member.assignment = Bytes::new();
            waiting.extend(member.parked_sync.take().map(|answer| (member.id.clone(), answer)));
        }
        for (id, answer) in waiting {
            Self::refuse_sync(ctx, answer, code);
            self.restart_session(ctx, &id);
        }
    }

    /// The group has heard of this member's wish to sync.
    pub(super) fn note_sync(&mut self, ctx: &mut Context<'_>, id: &str) {
        self.pending_syncs.remove(id);
        if self.pending_syncs.is_empty() {
            ctx.timers.cancel(&self.sync_timer());
        }
    }

    /// The coordinator moves away: everybody who waits is sent to the new one.
    pub(super) fn unload(&mut self, ctx: &mut Context<'_>) {
        for id in self.member_ids() {
            if let Some(join) = self.take_parked_join(&id) {
                Self::refuse_join(ctx, join, &id, ErrorCode::NotCoordinator);
            }
            if let Some(answer) = self.member_mut(&id).and_then(|member| member.parked_sync.take()) {
                Self::refuse_sync(ctx, answer, ErrorCode::NotCoordinator);
            }
        }
    }
}

/// The first version whose protocol name may be null.
const JOIN_VERSION_WITH_NULL_PROTOCOL: i16 = 7;

fn blank_join_response(version: i16) -> JoinGroupResponse {
    let protocol_name = if version < JOIN_VERSION_WITH_NULL_PROTOCOL { Some("".into()) } else { None };
    JoinGroupResponse {
        generation_id: -1,
        protocol_type: None,
        protocol_name,
        ..JoinGroupResponse::default()
    }
}

fn blank_sync_response() -> SyncGroupResponse {
    SyncGroupResponse { protocol_type: None, protocol_name: None, ..SyncGroupResponse::default() }
}
