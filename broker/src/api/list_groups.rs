//! ListGroups (16): the groups of every core.

use heizer_runtime::cores;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{ListGroupsRequest, ListGroupsResponse};

use super::Call;
use crate::shard::here;

pub(super) async fn handle(_call: Call, request: ListGroupsRequest) -> ListGroupsResponse {
    let (states, types) = (request.states_filter, request.types_filter);
    let listed = cores::call_all(move || {
        let (states, types) = (states.clone(), types.clone());
        async move { here().groups.list(&states, &types) }
    });
    let listed = match listed.await {
        Ok(by_core) => by_core.into_iter().collect::<Result<Vec<_>, _>>(),
        Err(_) => Err(ErrorCode::CoordinatorNotAvailable),
    };
    match listed {
        Ok(by_core) => {
            let mut groups: Vec<_> = by_core.into_iter().flatten().collect();
            groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
            ListGroupsResponse { groups, ..ListGroupsResponse::default() }
        }
        Err(code) => ListGroupsResponse { error_code: code.into(), ..ListGroupsResponse::default() },
    }
}
