//! DescribeGroups (15).

use heizer_wire::messages::{DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup};

use super::Call;
use super::groups::at_coordinator;

/// What everybody may do with a group while authorisation is off: read, delete, describe, describe and alter configs.
const GROUP_OPERATIONS: i32 = 0x0d48;

pub(super) async fn handle(call: Call, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let (id, version) = (group.clone(), call.version);
        let described = at_coordinator(&call, &group, move |groups, partition| async move {
            groups.describe(partition, &id, version)
        });
        let mut described = match described.await {
            Ok(described) => described,
            Err(code) => {
                DescribedGroup { error_code: code.into(), group_id: group, ..DescribedGroup::default() }
            }
        };
        if request.include_authorized_operations {
            described.authorized_operations = GROUP_OPERATIONS;
        }
        groups.push(described);
    }
    DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() }
}
