//! LeaveGroup (13).

use heizer_wire::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::Call;
use super::groups::submit;
use crate::coordinator::Answer;
use crate::shard::GroupRequest;

pub(super) async fn handle(call: Call, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let group = request.group_id.clone();
    match submit(&call, &group, GroupRequest::Leave(request, call.version)).await {
        Ok(Answer::Leave(response)) => response,
        Ok(other) => unreachable!("the coordinator answered a LeaveGroup with {other:?}"),
        Err(code) => LeaveGroupResponse { error_code: code.into(), ..LeaveGroupResponse::default() },
    }
}
