//! DescribeGroups (15).

use heizer_wire::messages::{DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup};

use super::Call;
use super::groups::at_coordinators;

/// What everybody may do with a group while authorisation is off: read, delete, describe, describe and alter configs.
const GROUP_OPERATIONS: i32 = 0x0d48;

pub(super) async fn handle(call: Call, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let version = call.version;
    let describe = at_coordinators(
        &call,
        request.groups.clone(),
        |group| group,
        move |groups, partition, group| async move { groups.describe(partition, &group, version) },
    );
    let described = request.groups.into_iter().zip(describe.await).map(|(group_id, described)| {
        let mut described = described.unwrap_or_else(|code| DescribedGroup {
            error_code: code.into(),
            group_id,
            ..DescribedGroup::default()
        });
        // Of one that is not there, nothing is told.
        if request.include_authorized_operations && described.error_code == 0 {
            described.authorized_operations = GROUP_OPERATIONS;
        }
        described
    });
    DescribeGroupsResponse { groups: described.collect(), ..DescribeGroupsResponse::default() }
}
