//! InitProducerId (22): an id for an idempotent producer.

use heizer_wire::ErrorCode;
use heizer_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::Call;
use super::codes::control_code;

pub(super) async fn handle(call: Call, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refused = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.into(),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if let Some(id) = &request.transactional_id {
        // There is no transaction coordinator; a client takes this as final, where others would have it wait.
        let empty = id.is_empty();
        return refused(if empty {
            ErrorCode::InvalidRequest
        } else {
            ErrorCode::TransactionalIdAuthorizationFailed
        });
    }
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        // One without the other names no producer.
        return refused(ErrorCode::InvalidRequest);
    }
    // Without a transactional id every call gives a new identity, also where the client names an old one (KIP-360).
    match call.shard.next_producer_id().await {
        Ok(producer_id) => {
            InitProducerIdResponse { producer_id, producer_epoch: 0, ..InitProducerIdResponse::default() }
        }
        Err(error) => {
            tracing::warn!(%error, "no producer id could be given");
            refused(control_code(&error))
        }
    }
}
