//! ListConfigResources (74): what has settings (KIP-1000, KIP-1142). Version 0 knows client metrics alone, of which there
//! are none.

use std::collections::BTreeSet;

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse, ListedConfigResource};

use super::Call;
use super::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};

/// The kinds that can be asked for from version 1 on. Of those that have no settings here there are no resources.
const KINDS: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(super) async fn handle(call: Call, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let known: &[i8] = if call.version == 0 { &[CLIENT_METRICS] } else { &KINDS };
    if request.resource_types.iter().any(|kind| !known.contains(kind)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.into(),
            ..ListConfigResourcesResponse::default()
        };
    }
    let asked = |kind: i8| match request.resource_types.as_slice() {
        [] => known.contains(&kind),
        kinds => kinds.contains(&kind),
    };
    let image = call.shard.image();
    let mut config_resources = Vec::new();
    if asked(TOPIC) {
        let names: BTreeSet<&str> = image.topics().map(|topic| &*topic.record.name).collect();
        config_resources.extend(names.into_iter().map(|name| listed(TOPIC, name.into())));
    }
    if asked(BROKER) {
        config_resources.extend(image.brokers().map(|broker| listed(BROKER, broker.id.to_string().into())));
    }
    ListConfigResourcesResponse { config_resources, ..ListConfigResourcesResponse::default() }
}

fn listed(resource_type: i8, resource_name: ByteString) -> ListedConfigResource {
    ListedConfigResource { resource_name, resource_type }
}
