//! FindCoordinator (10): one key up to version 3, many from version 4 on (contract P8).

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};

use super::Call;
use super::groups::ensure_offsets_topic;

/// The first version that asks for several keys.
const BATCHED_FROM: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

pub(super) async fn handle(call: Call, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let keys = if call.version < BATCHED_FROM { vec![request.key] } else { request.coordinator_keys };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        found.push(find(&call, request.key_type, key).await);
    }
    if call.version >= BATCHED_FROM {
        return FindCoordinatorResponse { coordinators: found, ..FindCoordinatorResponse::default() };
    }
    let only = found.remove(0);
    FindCoordinatorResponse {
        error_code: only.error_code,
        error_message: only.error_message,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..FindCoordinatorResponse::default()
    }
}

async fn find(call: &Call, key_type: i8, key: ByteString) -> Coordinator {
    match locate(call, key_type).await {
        Ok((node_id, host, port)) => Coordinator { key, node_id, host, port, ..Coordinator::default() },
        Err((code, message)) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: code.into(),
            error_message: Some(message.into()),
            ..Coordinator::default()
        },
    }
}

async fn locate(call: &Call, key_type: i8) -> Result<(i32, ByteString, i32), (ErrorCode, &'static str)> {
    match key_type {
        GROUP => {}
        TRANSACTION => {
            return Err((ErrorCode::TransactionalIdAuthorizationFailed, "transactions are not served"));
        }
        SHARE => return Err((ErrorCode::InvalidRequest, "share groups are not served")),
        _ => return Err((ErrorCode::InvalidRequest, "unknown type of coordinator")),
    }
    ensure_offsets_topic(call).await.map_err(|code| (code, "the offsets topic cannot be created yet"))?;
    let node = call.shard.node();
    let image = call.shard.image();
    let broker =
        image.broker(node.id).ok_or((ErrorCode::CoordinatorNotAvailable, "no broker is registered"))?;
    Ok((broker.id, broker.host.as_str().into(), i32::from(broker.port)))
}
