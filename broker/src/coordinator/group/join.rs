//! JoinGroup: who is let in, under which id, and whether it starts a rebalance.

use bytes::Bytes;
use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};

use super::classic::ClassicGroup;
use super::context::{Context, Draft, Effect, MemberTerms, StaticReturn};
use super::detached;
use super::member::{Member, ParkedJoin};
use super::state::ClassicState;
use crate::coordinator::records::group_record;
use crate::coordinator::result::{Answer, AnswerId, Client};

/// From here on a dynamic member joins a second time with the id it was given (KIP-394).
const JOIN_VERSION_WITH_REQUIRED_ID: i16 = 4;
/// From here on a returning leader is told to skip its assignment (KIP-814).
const JOIN_VERSION_WITH_SKIPPED_ASSIGNMENT: i16 = 9;

/// A JoinGroup on its way through its group.
pub(super) struct Join {
    pub(super) parked: ParkedJoin,
    pub(super) client: Client,
    pub(super) member_id: ByteString,
    pub(super) instance_id: Option<ByteString>,
    pub(super) protocol_type: ByteString,
    pub(super) terms: MemberTerms,
}

impl Join {
    pub(super) fn new(answer: AnswerId, request: JoinGroupRequest, client: Client) -> Self {
        // Version 0 has one timeout for both.
        let rebalance_timeout_ms =
            if client.version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
        // A member outlives the frame of its request by far: what it keeps is copied out of it.
        Self {
            parked: ParkedJoin { answer, version: client.version },
            client,
            member_id: request.member_id,
            instance_id: request.group_instance_id.as_ref().map(detached),
            protocol_type: detached(&request.protocol_type),
            terms: MemberTerms {
                protocols: request.protocols.into_iter().map(detached_protocol).collect(),
                rebalance_timeout_ms,
                session_timeout_ms: request.session_timeout_ms,
            },
        }
    }

    fn metadata_bytes(&self) -> usize {
        self.terms.protocols.iter().map(|protocol| protocol.name.len() + protocol.metadata.len()).sum()
    }
}

impl ClassicGroup {
    pub(super) fn join(&mut self, ctx: &mut Context<'_>, join: Join) {
        let refusal = self.refusal_of(ctx, &join);
        if let Some((member_id, code)) = refusal {
            if code == ErrorCode::GroupMaxSizeReached {
                self.evict(ctx, &join.member_id, code);
            }
            Self::refuse_join(ctx, join.parked, &member_id, code);
        } else if join.member_id.is_empty() {
            self.join_without_id(ctx, join);
        } else if self.pending_joins.contains(&join.member_id) {
            self.add_and_rebalance(ctx, detached(&join.member_id), join);
        } else {
            self.rejoin(ctx, join);
        }
    }

    fn refusal_of(&self, ctx: &Context<'_>, join: &Join) -> Option<(ByteString, ErrorCode)> {
        let with = |code| Some((join.member_id.clone(), code));
        if self.is(ClassicState::Dead) {
            return with(ErrorCode::CoordinatorNotAvailable);
        }
        if join.metadata_bytes() > ctx.config.member_metadata_max {
            return with(ErrorCode::MessageTooLarge);
        }
        if !self.has_room_for(ctx, &join.member_id) {
            return Some((ByteString::new(), ErrorCode::GroupMaxSizeReached));
        }
        if !self.supports(&join.protocol_type, &join.terms.protocols) {
            return with(ErrorCode::InconsistentGroupProtocol);
        }
        if join.member_id.is_empty() {
            return None;
        }
        if self.pending_joins.contains(&join.member_id) {
            // An id is handed out to dynamic members only.
            return if join.instance_id.is_some() { with(ErrorCode::UnknownMemberId) } else { None };
        }
        self.validate_member(&join.member_id, join.instance_id.as_deref()).err().and_then(with)
    }

    /// Kafka's rule of group.max.size: in a rebalance, who comes first; else, who is in.
    fn has_room_for(&self, ctx: &Context<'_>, id: &str) -> bool {
        let members_max = ctx.config.members_max;
        match self.state() {
            ClassicState::Empty | ClassicState::Dead => true,
            ClassicState::PreparingRebalance => {
                self.member(id).is_some_and(Member::is_awaiting_join) || self.awaiting_join() < members_max
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                self.member(id).is_some() || self.member_count() < members_max
            }
        }
    }

    fn join_without_id(&mut self, ctx: &mut Context<'_>, join: Join) {
        let Some(instance_id) = &join.instance_id else {
            let new_id = self.unused_id(ctx, &join.client.client_id);
            if join.client.version < JOIN_VERSION_WITH_REQUIRED_ID {
                self.add_and_rebalance(ctx, new_id, join);
            } else {
                self.hand_out_id(ctx, new_id, &join);
            }
            return;
        };
        let new_id = self.unused_id(ctx, instance_id);
        match self.static_member_id(instance_id).cloned() {
            Some(old_id) => self.return_static_member(ctx, old_id, new_id, join),
            None => self.add_and_rebalance(ctx, new_id, join),
        }
    }

    fn unused_id(&self, ctx: &mut Context<'_>, name: &str) -> ByteString {
        loop {
            let id = ctx.ids.next(name);
            if self.member(&id).is_none() && !self.pending_joins.contains(&id) {
                return id;
            }
        }
    }

    /// KIP-394: the member is told its id and comes again, so that a client that gives up leaves no member behind.
    fn hand_out_id(&mut self, ctx: &mut Context<'_>, id: ByteString, join: &Join) {
        if self.pending_joins.len() >= ctx.config.pending_members_max {
            return Self::refuse_join(ctx, join.parked, "", ErrorCode::GroupMaxSizeReached);
        }
        self.pending_joins.insert(id.clone());
        let timeout_ms = i64::from(join.terms.session_timeout_ms);
        ctx.timers.set(self.session_timer(&id), ctx.now.plus(timeout_ms));
        Self::refuse_join(ctx, join.parked, &id, ErrorCode::MemberIdRequired);
    }

    fn add_and_rebalance(&mut self, ctx: &mut Context<'_>, id: ByteString, join: Join) {
        let Join { parked, client, instance_id, protocol_type, terms, .. } = join;
        let member = Member {
            id: id.clone(),
            instance_id,
            client_id: detached(&client.client_id),
            client_host: detached(&client.host),
            rebalance_timeout_ms: terms.rebalance_timeout_ms,
            session_timeout_ms: terms.session_timeout_ms,
            protocols: terms.protocols,
            assignment: Bytes::new(),
            is_new: true,
            parked_join: Some(parked),
            parked_sync: None,
        };
        if let Some(delay) = &mut self.initial_delay {
            delay.member_added = true;
        }
        self.add(member, &protocol_type);
        self.restart_session(ctx, &id);
        self.rebalance_or_complete(ctx);
    }

    /// A member that is in the group joins again.
    fn rejoin(&mut self, ctx: &mut Context<'_>, join: Join) {
        let member = self.member(&join.member_id).expect("the member was validated");
        let is_unchanged = member.offers_exactly(&join.terms.protocols);
        match self.state() {
            ClassicState::PreparingRebalance => self.update_and_rebalance(ctx, join),
            // The response to its join was lost: here it is again.
            ClassicState::CompletingRebalance if is_unchanged => {
                self.accept_join(ctx, join.parked, &join.member_id)
            }
            ClassicState::Stable if is_unchanged && !self.is_leader(&join.member_id) => {
                self.accept_join(ctx, join.parked, &join.member_id);
            }
            // A leader that joins again asks for a rebalance; so does changed metadata.
            ClassicState::CompletingRebalance | ClassicState::Stable => self.update_and_rebalance(ctx, join),
            ClassicState::Empty | ClassicState::Dead => unreachable!("a group in this state has no members"),
        }
    }

    fn update_and_rebalance(&mut self, ctx: &mut Context<'_>, join: Join) {
        let id = join.member_id;
        self.take_terms(ctx, &id, join.terms, join.parked);
        self.rebalance_or_complete(ctx);
    }

    /// Takes over a member's new terms and parks its join in the place of an older one.
    fn take_terms(&mut self, ctx: &mut Context<'_>, id: &str, terms: MemberTerms, parked: ParkedJoin) {
        self.update_member(id, terms.protocols, terms.rebalance_timeout_ms, terms.session_timeout_ms);
        if let Some(superseded) = self.park_join(id, parked) {
            Self::refuse_join(ctx, superseded, id, ErrorCode::RebalanceInProgress);
        }
    }

    /// KIP-345: a static member that restarted comes without an id. It gets a new one and its old place; its
    /// predecessor is fenced. In a stable group whose protocol stays the same nobody else notices.
    fn return_static_member(
        &mut self,
        ctx: &mut Context<'_>,
        old_id: ByteString,
        new_id: ByteString,
        join: Join,
    ) {
        let old_leader = self.leader.clone();
        self.fence(ctx, &old_id);
        self.rename_static(&old_id, &new_id);
        let before = self.terms_of(&new_id);
        let answer = join.parked.answer;
        self.take_terms(ctx, &new_id, join.terms, join.parked);
        self.restart_session(ctx, &new_id);
        match self.state() {
            ClassicState::Stable if self.select_protocol() == self.protocol => {
                let durable = self.to_durable(|member| member.assignment.clone());
                let generation = self.generation;
                let returned = StaticReturn { old_id, new_id, generation, answer, old_leader, before };
                let records = vec![group_record(&self.id, Some(&durable))];
                ctx.out.drafts.push(Draft::new(&self.id, records, Effect::StaticReturn(returned)));
            }
            ClassicState::Stable | ClassicState::CompletingRebalance => self.prepare_rebalance(ctx),
            ClassicState::PreparingRebalance => self.maybe_complete_join(ctx),
            ClassicState::Empty | ClassicState::Dead => unreachable!("a group in this state has no members"),
        }
    }

    /// Whoever still waits under this id is told that its instance id has a new holder.
    fn fence(&mut self, ctx: &mut Context<'_>, id: &str) {
        if let Some(join) = self.take_parked_join(id) {
            Self::refuse_join(ctx, join, id, ErrorCode::FencedInstanceId);
        }
        if let Some(answer) = self.member_mut(id).and_then(|member| member.parked_sync.take()) {
            Self::refuse_sync(ctx, answer, ErrorCode::FencedInstanceId);
        }
        ctx.timers.cancel(&self.session_timer(id));
    }

    fn terms_of(&self, id: &str) -> MemberTerms {
        let member = self.member(id).expect("the member is in the group");
        MemberTerms {
            protocols: member.protocols.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
        }
    }

    /// The return of a static member is durable, or could not be made so. A rebalance that began meanwhile has
    /// taken the member and its join along; then nothing is left to do here.
    pub(super) fn finish_static_return(
        &mut self,
        ctx: &mut Context<'_>,
        returned: StaticReturn,
        outcome: Result<(), ErrorCode>,
    ) {
        let is_waiting = self.is(ClassicState::Stable) && self.generation == returned.generation;
        let waits_for_this = |join: ParkedJoin| join.answer == returned.answer;
        let parked = self.member(&returned.new_id).and_then(|member| member.parked_join);
        let Some(parked) = parked.filter(|join| is_waiting && waits_for_this(*join)) else { return };
        self.take_parked_join(&returned.new_id);
        match outcome {
            Ok(()) => self.welcome_back(ctx, parked, &returned),
            Err(code) => {
                Self::refuse_join(ctx, parked, "", code);
                let StaticReturn { old_id, new_id, before, .. } = returned;
                self.update_member(
                    &new_id,
                    before.protocols,
                    before.rebalance_timeout_ms,
                    before.session_timeout_ms,
                );
                ctx.timers.cancel(&self.session_timer(&new_id));
                self.rename_static(&new_id, &old_id);
                self.restart_session(ctx, &old_id);
            }
        }
    }

    fn welcome_back(&self, ctx: &mut Context<'_>, join: ParkedJoin, returned: &StaticReturn) {
        let leads = self.is_leader(&returned.new_id);
        let skips = join.version >= JOIN_VERSION_WITH_SKIPPED_ASSIGNMENT;
        let leader = if skips { &self.leader } else { &returned.old_leader };
        let response = JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: leader.clone().unwrap_or_default(),
            skip_assignment: skips && leads,
            member_id: returned.new_id.clone(),
            members: if skips && leads { self.subscriptions() } else { Vec::new() },
            ..JoinGroupResponse::default()
        };
        ctx.out.answer(join.answer, Answer::Join(response));
        self.restart_session(ctx, &returned.new_id);
    }
}

fn detached_protocol(protocol: JoinGroupRequestProtocol) -> JoinGroupRequestProtocol {
    JoinGroupRequestProtocol {
        name: detached(&protocol.name),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    }
}
