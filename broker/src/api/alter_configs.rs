//! AlterConfigs (33): sets all settings of topics and brokers at once. What is not named has its default again, which is
//! why clients prefer IncrementalAlterConfigs (KIP-339).

use heizer_wire::messages::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};

use super::Call;
use super::configs::{self, Outcome, Refusal, Resource};
use crate::config::Alteration;

pub(super) async fn handle(call: Call, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let resources = request.resources.iter().map(|resource| Resource {
        key: (resource.resource_type, resource.resource_name.clone()),
        alteration: alteration(resource),
    });
    let outcomes = configs::alter(&call, resources.collect(), request.validate_only).await;
    let response = |outcome: Outcome| AlterConfigsResourceResponse {
        error_code: outcome.code.into(),
        error_message: outcome.message,
        resource_type: outcome.key.0,
        resource_name: outcome.key.1,
    };
    AlterConfigsResponse {
        responses: outcomes.into_iter().map(response).collect(),
        ..AlterConfigsResponse::default()
    }
}

fn alteration(resource: &AlterConfigsResource) -> Result<Alteration, Refusal> {
    configs::named_twice(resource.configs.iter().map(|config| &config.name))?;
    let all = resource.configs.iter().map(|config| match &config.value {
        Some(value) => Ok((config.name.to_string(), value.to_string())),
        None => Err(configs::no_value(&config.name)),
    });
    Ok(Alteration::Whole(all.collect::<Result<_, _>>()?))
}
