//! DescribeCluster (60): the brokers.

use heizer_wire::ErrorCode;
use heizer_wire::messages::{DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse};

use super::Call;
use super::metadata::CLUSTER_OPERATIONS;

/// The endpoint type of brokers.
const BROKERS: i8 = 1;
/// That of controllers, which have no endpoint of their own.
const CONTROLLERS: i8 = 2;

pub(super) async fn handle(call: Call, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let refusal = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((ErrorCode::MismatchedEndpointType, "only brokers are listed here")),
        _ => Some((
            ErrorCode::UnsupportedEndpointType,
            "an endpoint is of a broker (1) or of a controller (2)",
        )),
    };
    if let Some((code, message)) = refusal {
        return DescribeClusterResponse {
            error_code: code.into(),
            error_message: Some(message.into()),
            ..DescribeClusterResponse::default()
        };
    }
    let image = call.shard.image();
    let brokers = image.brokers().map(|broker| DescribeClusterBroker {
        broker_id: broker.id,
        host: broker.host.as_str().into(),
        port: i32::from(broker.port),
        rack: broker.rack.as_deref().map(Into::into),
        ..DescribeClusterBroker::default()
    });
    let mut response = DescribeClusterResponse {
        cluster_id: image.cluster_id().unwrap_or_default().into(),
        controller_id: image.controller_id().unwrap_or(-1),
        brokers: brokers.collect(),
        ..DescribeClusterResponse::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}
