//! DescribeConfigs (32): every setting with its source and what else could have set it (contract P9).

use std::collections::BTreeSet;

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::Call;
use super::configs::{self, BROKER, Refusal, TOPIC};
use crate::config::{Brokers, ConfigRow};
use crate::metadata::check_topic_name;

pub(super) async fn handle(call: Call, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let describe = |resource: &DescribeConfigsResource| {
        let rows = rows(&call, resource);
        let (code, message, rows) = match rows {
            Ok(rows) => (ErrorCode::None, None, rows),
            Err((code, message)) => (code, Some(message), Vec::new()),
        };
        let wanted = |row: &ConfigRow| match &resource.configuration_keys {
            Some(keys) if !keys.is_empty() => keys.iter().any(|key| **key == *row.name),
            // As Kafka has it, no names are all names.
            _ => true,
        };
        DescribeConfigsResult {
            error_code: code.into(),
            error_message: message.map(ByteString::from),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            configs: rows.into_iter().filter(wanted).map(|row| entry(row, &request)).collect(),
        }
    };
    // A resource is described once, however often it is named: the answer is bounded by what there is.
    let mut asked = BTreeSet::new();
    let once = |resource: &&DescribeConfigsResource| {
        let DescribeConfigsResource { resource_type, resource_name, configuration_keys } = resource;
        asked.insert((*resource_type, resource_name.clone(), configuration_keys.clone()))
    };
    DescribeConfigsResponse {
        results: request.resources.iter().filter(once).map(describe).collect(),
        ..DescribeConfigsResponse::default()
    }
}

fn rows(call: &Call, resource: &DescribeConfigsResource) -> Result<Vec<ConfigRow>, Refusal> {
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            check_topic_name(name).map_err(|error| (ErrorCode::InvalidTopicException, error.to_string()))?;
            let image = call.shard.image();
            let topic = image.topic_named(name).ok_or_else(|| {
                (ErrorCode::UnknownTopicOrPartition, format!("topic {name} does not exist"))
            })?;
            let configs = &topic.record.configs;
            let pairs = configs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            call.shard
                .config()
                .describe_topic(pairs)
                .map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))
        }
        BROKER => match configs::brokers(call, name)? {
            // The empty name asks for what is set for all brokers at run time, and for nothing else.
            Brokers::All => Ok(call.shard.config().describe_all_brokers()),
            Brokers::This => Ok(call.shard.config().describe_broker()),
        },
        other => Err(configs::no_settings(other)),
    }
}

fn entry(row: ConfigRow, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let synonyms = if request.include_synonyms { row.synonyms } else { Vec::new() };
    DescribeConfigsResourceResult {
        name: row.name.into(),
        value: row.value.map(ByteString::from),
        read_only: row.read_only,
        config_source: row.source as i8,
        is_sensitive: row.sensitive,
        synonyms: synonyms
            .into_iter()
            .map(|synonym| DescribeConfigsSynonym {
                name: synonym.name.into(),
                value: Some(synonym.value.into()),
                source: synonym.source as i8,
            })
            .collect(),
        config_type: row.config_type as i8,
        documentation: request.include_documentation.then(|| row.documentation.into()),
    }
}
