//! OffsetFetch (9).

use heizer_wire::messages::{OffsetFetchRequest, OffsetFetchResponse};

use super::Call;
use super::groups::at_coordinators;
use crate::coordinator::group::{offset_fetch_error, offset_fetch_groups, offset_fetch_response};

pub(super) async fn handle(call: Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let version = call.version;
    let asked = offset_fetch_groups(request, version);
    let fetch = at_coordinators(
        &call,
        asked.clone(),
        |group| &group.group_id,
        |groups, partition, group| async move { groups.offset_fetch(partition, &group) },
    );
    let fetched = asked.iter().zip(fetch.await);
    let answers = fetched
        .map(|(group, answer)| answer.unwrap_or_else(|code| offset_fetch_error(group, code, version)))
        .collect();
    offset_fetch_response(answers, version)
}
