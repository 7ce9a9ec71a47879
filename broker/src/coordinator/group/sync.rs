//! SyncGroup: the leader's assignment goes to the log first and to the members then.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};

use super::classic::ClassicGroup;
use super::context::{Context, Draft, Effect};
use super::member::Member;
use super::state::ClassicState;
use crate::coordinator::records::group_record;
use crate::coordinator::result::{Answer, AnswerId};

impl ClassicGroup {
    pub(super) fn sync(&mut self, ctx: &mut Context<'_>, answer: AnswerId, request: SyncGroupRequest) {
        if let Err(code) = self.validate_sync(&request) {
            return Self::refuse_sync(ctx, answer, code);
        }
        let id = &request.member_id;
        match self.state() {
            ClassicState::PreparingRebalance => {
                Self::refuse_sync(ctx, answer, ErrorCode::RebalanceInProgress)
            }
            ClassicState::CompletingRebalance => self.await_assignment(ctx, answer, request),
            ClassicState::Stable => {
                self.note_sync(ctx, id);
                let assignment = self.member(id).map(|member| member.assignment.clone()).unwrap_or_default();
                self.hand_out(ctx, answer, assignment);
            }
            ClassicState::Empty | ClassicState::Dead => unreachable!("a group in this state has no members"),
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        if self.is(ClassicState::Dead) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        // From version 5 on the client says what it believes the group has agreed on.
        let agrees = |said: &Option<ByteString>, own: &Option<ByteString>| match (said, own) {
            (Some(said), Some(own)) => said == own,
            _ => true,
        };
        if agrees(&request.protocol_type, &self.protocol_type)
            && agrees(&request.protocol_name, &self.protocol)
        {
            Ok(())
        } else {
            Err(ErrorCode::InconsistentGroupProtocol)
        }
    }

    fn await_assignment(&mut self, ctx: &mut Context<'_>, answer: AnswerId, request: SyncGroupRequest) {
        let id = request.member_id;
        self.note_sync(ctx, &id);
        let member = self.member_mut(&id).expect("the member was validated");
        if let Some(superseded) = member.parked_sync.replace(answer) {
            Self::refuse_sync(ctx, superseded, ErrorCode::RebalanceInProgress);
        }
        // A leader that repeats itself waits for the assignment that is under way: a second one in the log could
        // differ from what the members were given.
        if self.is_leader(&id) && self.assignment_in_flight != Some(self.generation) {
            self.write_assignment(ctx, request.assignments);
        }
    }

    fn write_assignment(&mut self, ctx: &mut Context<'_>, given: Vec<SyncGroupRequestAssignment>) {
        // Copied out of the request's frame, which the members outlive.
        let copied =
            |entry: SyncGroupRequestAssignment| (entry.member_id, Bytes::copy_from_slice(&entry.assignment));
        let given: BTreeMap<ByteString, Bytes> = given.into_iter().map(copied).collect();
        let of = |member: &Member| given.get(&member.id).cloned().unwrap_or_default();
        let assignments = self.members().map(|member| (member.id.clone(), of(member))).collect();
        let durable = self.to_durable(of);
        self.assignment_in_flight = Some(self.generation);
        let effect = Effect::Assignment { generation: self.generation, assignments };
        ctx.out.drafts.push(Draft::new(&self.id, vec![group_record(&self.id, Some(&durable))], effect));
    }

    /// The assignment is durable, or could not be written. If the group has moved on, it is nobody's any more.
    pub(super) fn finish_assignment(
        &mut self,
        ctx: &mut Context<'_>,
        generation: i32,
        assignments: Vec<(ByteString, Bytes)>,
        outcome: Result<(), ErrorCode>,
    ) {
        if self.assignment_in_flight == Some(generation) {
            self.assignment_in_flight = None;
        }
        if !self.is(ClassicState::CompletingRebalance) || self.generation != generation {
            return;
        }
        if let Err(code) = outcome {
            self.drop_assignments(ctx, code);
            return self.prepare_rebalance(ctx);
        }
        self.become_state(ClassicState::Stable, ctx.now);
        for (id, assignment) in assignments {
            let Some(member) = self.member_mut(&id) else { continue };
            member.assignment = assignment.clone();
            if let Some(answer) = member.parked_sync.take() {
                self.hand_out(ctx, answer, assignment);
                self.restart_session(ctx, &id);
            }
        }
    }

    fn hand_out(&self, ctx: &mut Context<'_>, answer: AnswerId, assignment: Bytes) {
        let response = SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment,
            ..SyncGroupResponse::default()
        };
        ctx.out.answer(answer, Answer::Sync(response));
    }
}
