//! OffsetFetch (9).

use heizer_wire::messages::{OffsetFetchRequest, OffsetFetchResponse};

use super::Call;
use super::groups::at_coordinator;
use crate::coordinator::group::{offset_fetch_error, offset_fetch_groups, offset_fetch_response};

pub(super) async fn handle(call: Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let mut answers = Vec::new();
    for group in offset_fetch_groups(request, call.version) {
        let asked = group.clone();
        let fetched = at_coordinator(&call, &group.group_id, |groups, partition| async move {
            groups.offset_fetch(partition, &asked)
        });
        answers.push(match fetched.await {
            Ok(answer) => answer,
            Err(code) => offset_fetch_error(&group, code),
        });
    }
    offset_fetch_response(answers, call.version)
}
