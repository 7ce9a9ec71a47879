//! SyncGroup (14).

use heizer_wire::ErrorCode;
use heizer_wire::messages::{SyncGroupRequest, SyncGroupResponse};

use super::Call;
use super::groups::submit;
use crate::coordinator::Answer;
use crate::shard::GroupRequest;

/// From here on the type and the name of the protocol are told (KIP-559).
const PROTOCOL_FROM: i16 = 5;

pub(super) async fn handle(call: Call, request: SyncGroupRequest) -> SyncGroupResponse {
    let is_named = request.protocol_type.is_some() && request.protocol_name.is_some();
    if call.version >= PROTOCOL_FROM && !is_named {
        let error_code = ErrorCode::InconsistentGroupProtocol.into();
        return SyncGroupResponse { error_code, ..SyncGroupResponse::default() };
    }
    let group = request.group_id.clone();
    match submit(&call, &group, GroupRequest::Sync(request)).await {
        Ok(Answer::Sync(response)) => response,
        Ok(other) => unreachable!("the coordinator answered a SyncGroup with {other:?}"),
        Err(code) => SyncGroupResponse { error_code: code.into(), ..SyncGroupResponse::default() },
    }
}
