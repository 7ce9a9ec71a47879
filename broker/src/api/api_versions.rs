//! ApiVersions (18): what is served.

use heizer_server::Reply;
use heizer_wire::messages::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use heizer_wire::{ApiKey, ErrorCode, encode_response};

use super::{Call, SERVED};

pub(super) async fn handle(call: Call, request: ApiVersionsRequest) -> ApiVersionsResponse {
    // KIP-511: names and versions of client software have a grammar.
    let named = |text: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        !text.is_empty()
            && text.chars().all(inner)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    let valid = named(&request.client_software_name) && named(&request.client_software_version);
    if call.version >= 3 && !valid {
        return ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.into(), ..Default::default() };
    }
    ApiVersionsResponse {
        api_keys: SERVED.iter().map(|key| served(*key)).collect(),
        // Without the features at all: librdkafka 2.0.x skips tagged fields wrongly (contract P2).
        ..ApiVersionsResponse::default()
    }
}

fn served(key: ApiKey) -> ApiVersion {
    // Of Produce more than is decoded: old clients look at version 0 (contract P2).
    let versions = key.advertised_versions();
    ApiVersion { api_key: key.into(), min_version: *versions.start(), max_version: *versions.end() }
}

/// Asked at a version that we don't know: error 35 in a v0 body that tells our own range (contract P1).
pub(super) fn unsupported(correlation_id: i32) -> Reply {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.into(),
        api_keys: vec![served(ApiKey::ApiVersions)],
        ..ApiVersionsResponse::default()
    };
    Reply::send(encode_response(correlation_id, ApiKey::ApiVersions, 0, &response))
}
