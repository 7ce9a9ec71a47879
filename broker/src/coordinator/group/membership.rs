//! Heartbeat and LeaveGroup.

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{HeartbeatRequest, LeaveGroupResponse, MemberIdentity, MemberResponse};

use super::classic::ClassicGroup;
use super::context::Context;
use super::state::ClassicState;
use crate::coordinator::result::{Answer, AnswerId};

impl ClassicGroup {
    /// Keeps a member alive; the error tells it what to do next.
    pub(super) fn heartbeat(
        &mut self,
        ctx: &mut Context<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        if self.is(ClassicState::Dead) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        self.restart_session(ctx, &request.member_id);
        match self.state() {
            ClassicState::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Takes members out, each with its own result; one rebalance follows for all.
    pub(super) fn leave(&mut self, ctx: &mut Context<'_>, answer: AnswerId, leaving: Vec<MemberIdentity>) {
        let mark = ctx.out.drafts.len();
        let mut response = LeaveGroupResponse::default();
        if self.is(ClassicState::Dead) {
            response.error_code = ErrorCode::CoordinatorNotAvailable.into();
            return ctx.out.answer(answer, Answer::Leave(response));
        }
        let mut has_left = false;
        for identity in leaving {
            let outcome = self.leave_one(ctx, &identity.member_id, identity.group_instance_id.as_ref());
            has_left |= outcome.is_ok();
            response.members.push(MemberResponse {
                member_id: identity.member_id,
                group_instance_id: identity.group_instance_id,
                error_code: outcome.err().unwrap_or(ErrorCode::None).into(),
            });
        }
        if has_left {
            match self.state() {
                ClassicState::Stable | ClassicState::CompletingRebalance => self.rebalance_or_complete(ctx),
                ClassicState::PreparingRebalance => self.maybe_complete_join(ctx),
                ClassicState::Empty | ClassicState::Dead => {}
            }
        }
        ctx.out.answer_after(mark, answer, Answer::Leave(response));
    }

    fn leave_one(
        &mut self,
        ctx: &mut Context<'_>,
        id: &ByteString,
        instance_id: Option<&ByteString>,
    ) -> Result<(), ErrorCode> {
        if id.is_empty() {
            // An administrator removes a static member by its instance id alone (KIP-345).
            let holder = instance_id.and_then(|instance_id| self.static_member_id(instance_id));
            let holder = holder.cloned().ok_or(ErrorCode::UnknownMemberId)?;
            self.evict(ctx, &holder, ErrorCode::UnknownMemberId);
        } else if self.pending_joins.contains(id) {
            ctx.timers.cancel(&self.session_timer(id));
            self.remove(id);
        } else {
            self.validate_member(id, instance_id.map(|instance_id| &**instance_id))?;
            self.evict(ctx, id, ErrorCode::UnknownMemberId);
        }
        Ok(())
    }
}
