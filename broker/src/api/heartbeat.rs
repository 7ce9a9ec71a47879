//! Heartbeat (12).

use heizer_wire::messages::{HeartbeatRequest, HeartbeatResponse};

use super::Call;
use super::groups::submit;
use crate::coordinator::Answer;
use crate::shard::GroupRequest;

pub(super) async fn handle(call: Call, request: HeartbeatRequest) -> HeartbeatResponse {
    let group = request.group_id.clone();
    match submit(&call, &group, GroupRequest::Heartbeat(request)).await {
        Ok(Answer::Heartbeat(response)) => response,
        Ok(other) => unreachable!("the coordinator answered a Heartbeat with {other:?}"),
        Err(code) => HeartbeatResponse { error_code: code.into(), ..HeartbeatResponse::default() },
    }
}
