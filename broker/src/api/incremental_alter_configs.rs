//! IncrementalAlterConfigs (44): changes some settings of topics and brokers (KIP-339, contract P9).

use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource, IncrementalAlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse, IncrementalAlterableConfig,
};

use super::Call;
use super::configs::{self, Outcome, Refusal, Resource};
use crate::config::{Alteration, ConfigOp};

/// What can be done to a setting, by its number on the wire.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) async fn handle(
    call: Call,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let resources = request.resources.iter().map(|resource| Resource {
        key: (resource.resource_type, resource.resource_name.clone()),
        alteration: alteration(resource),
    });
    let outcomes = configs::alter(&call, resources.collect(), request.validate_only).await;
    let response = |outcome: Outcome| IncrementalAlterConfigsResourceResponse {
        error_code: outcome.code.into(),
        error_message: outcome.message,
        resource_type: outcome.key.0,
        resource_name: outcome.key.1,
    };
    IncrementalAlterConfigsResponse {
        responses: outcomes.into_iter().map(response).collect(),
        ..IncrementalAlterConfigsResponse::default()
    }
}

fn alteration(resource: &IncrementalAlterConfigsResource) -> Result<Alteration, Refusal> {
    configs::named_twice(resource.configs.iter().map(|config| &config.name))?;
    let ops = resource.configs.iter().map(|config| Ok((config.name.to_string(), op(config)?)));
    Ok(Alteration::Incremental(ops.collect::<Result<_, Refusal>>()?))
}

fn op(config: &IncrementalAlterableConfig) -> Result<ConfigOp, Refusal> {
    let value = || match &config.value {
        Some(value) => Ok(value.to_string()),
        None => Err(configs::no_value(&config.name)),
    };
    match config.config_operation {
        SET => value().map(ConfigOp::Set),
        DELETE => Ok(ConfigOp::Delete),
        APPEND => value().map(ConfigOp::Append),
        SUBTRACT => value().map(ConfigOp::Subtract),
        other => {
            let message = format!("{}: there is no operation {other} on a setting", config.name);
            Err((ErrorCode::InvalidRequest, message))
        }
    }
}
