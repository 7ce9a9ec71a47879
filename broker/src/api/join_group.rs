//! JoinGroup (11).

use heizer_wire::messages::{JoinGroupRequest, JoinGroupResponse};

use super::Call;
use super::groups::{client, submit};
use crate::coordinator::Answer;
use crate::shard::GroupRequest;

pub(super) async fn handle(call: Call, request: JoinGroupRequest) -> JoinGroupResponse {
    let (group, member_id) = (request.group_id.clone(), request.member_id.clone());
    match submit(&call, &group, GroupRequest::Join(request, client(&call))).await {
        Ok(Answer::Join(response)) => response,
        Ok(other) => unreachable!("the coordinator answered a JoinGroup with {other:?}"),
        Err(code) => JoinGroupResponse { error_code: code.into(), member_id, ..JoinGroupResponse::default() },
    }
}
