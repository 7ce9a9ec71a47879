//! SyncGroup (14).

use heizer_wire::messages::{SyncGroupRequest, SyncGroupResponse};

use super::Call;
use super::groups::submit;
use crate::coordinator::Answer;
use crate::shard::GroupRequest;

pub(super) async fn handle(call: Call, request: SyncGroupRequest) -> SyncGroupResponse {
    let group = request.group_id.clone();
    match submit(&call, &group, GroupRequest::Sync(request)).await {
        Ok(Answer::Sync(response)) => response,
        Ok(other) => unreachable!("the coordinator answered a SyncGroup with {other:?}"),
        Err(code) => SyncGroupResponse { error_code: code.into(), ..SyncGroupResponse::default() },
    }
}
