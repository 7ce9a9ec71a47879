//! DeleteGroups (42): each group for itself, and its offsets with it.

use std::collections::BTreeSet;

use bytestring::ByteString;
use heizer_wire::messages::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};

use super::Call;
use super::groups::at_coordinators;
use crate::coordinator::Answer;
use crate::shard::GroupRequest;

pub(super) async fn handle(call: Call, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    // One that is named more than once is answered once.
    let mut named = BTreeSet::new();
    let groups: Vec<ByteString> =
        request.groups_names.into_iter().filter(|group| named.insert(group.clone())).collect();
    let delete = at_coordinators(
        &call,
        groups.clone(),
        |group| group,
        |groups, partition, group| async move { groups.submit(partition, GroupRequest::Delete(group)).await },
    );
    let results = groups.into_iter().zip(delete.await).map(|(group_id, deleted)| match deleted {
        Ok(Answer::DeleteGroup(result)) => result,
        Ok(other) => unreachable!("the coordinator answered the deletion of a group with {other:?}"),
        Err(code) => DeletableGroupResult { group_id, error_code: code.into() },
    });
    DeleteGroupsResponse { results: results.collect(), ..DeleteGroupsResponse::default() }
}
