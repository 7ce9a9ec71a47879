//! `heizer topic describe`.

use std::collections::BTreeMap;
use std::fmt::Write;

use heizer_client::{Admin, ConfigEntry, PartitionMetadata, TopicMetadata};
use heizer_storage::encode_id;
use serde::Serialize;

use crate::admin::args::ListingFormat;
use crate::admin::error::CliError;
use crate::admin::progress::Progress;
use crate::admin::stdio::Report;
use crate::admin::table::{self, Table, cell, numbers};

/// DescribeConfigs' number for a value that was set for the topic.
const SOURCE_TOPIC: i8 = 1;

/// A topic, its partitions, and its own settings.
#[derive(Serialize)]
struct Described {
    name: String,
    id: Option<String>,
    internal: bool,
    /// None is a secret one.
    configs: BTreeMap<String, Option<String>>,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    /// None has none.
    leader: Option<i32>,
    leader_epoch: Option<i32>,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    error: Option<String>,
}

pub(super) async fn run(
    admin: &Admin,
    names: Vec<String>,
    internal: bool,
    format: ListingFormat,
) -> Result<Report, CliError> {
    let names = if names.is_empty() { all(admin, internal).await? } else { names };
    let progress = Progress::start();
    let mut topics = Vec::with_capacity(names.len());
    for name in &names {
        progress.tell(format_args!("described {} of {} topics", topics.len(), names.len()));
        let metadata = admin.topic(name).await?;
        let topic = metadata.topics.get(name);
        let topic = topic.ok_or_else(|| CliError::of(format_args!("topic {name} does not exist")))?;
        topics.push(described(name, topic, admin.topic_configs(name).await?));
    }
    Ok(match format {
        ListingFormat::Text => topics.iter().map(text).collect::<Vec<_>>().join("\n").into(),
        ListingFormat::Json => table::json(&topics).into(),
    })
}

async fn all(admin: &Admin, internal: bool) -> Result<Vec<String>, CliError> {
    let metadata = admin.topics().await?;
    let shown = metadata.topics.iter().filter(|(_, topic)| internal || !topic.internal);
    Ok(shown.map(|(name, _)| name.clone()).collect())
}

fn described(name: &str, topic: &TopicMetadata, configs: Vec<ConfigEntry>) -> Described {
    let own = configs.into_iter().filter(|config| config.source == SOURCE_TOPIC);
    Described {
        name: name.to_owned(),
        id: topic.id.map(encode_id),
        internal: topic.internal,
        configs: own.map(|config| (config.name, config.value)).collect(),
        partitions: topic.partitions.iter().map(partition).collect(),
    }
}

fn partition(found: &PartitionMetadata) -> Partition {
    let known = |number: i32| Some(number).filter(|&number| number >= 0);
    Partition {
        partition: found.index,
        leader: known(found.leader),
        leader_epoch: known(found.leader_epoch),
        replicas: found.replicas.clone(),
        in_sync: found.in_sync.clone(),
        error: Some(found.error).filter(|error| !error.is_none()).map(|error| error.to_string()),
    }
}

/// A line for the topic, one for each setting of its own, one for each partition.
fn text(topic: &Described) -> String {
    let Described { name, id, configs, partitions, .. } = topic;
    let replicas = partitions.first().map_or(0, |partition| partition.replicas.len());
    let id = id.as_ref().map_or(String::new(), |id| format!(", id {id}"));
    let mut text = format!("topic {name}: {} partitions, {replicas} replicas{id}\n", partitions.len());
    for (name, value) in configs {
        let value = value.as_deref().unwrap_or("(hidden)");
        writeln!(text, "  {name} = {value}").expect("writing to a string does not fail");
    }
    let mut table = Table::new(["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC", "ERROR"]);
    for partition in partitions {
        table.row([
            partition.partition.to_string(),
            cell(partition.leader),
            cell(partition.leader_epoch),
            numbers(&partition.replicas),
            numbers(&partition.in_sync),
            partition.error.clone().unwrap_or_default(),
        ]);
    }
    table.write("  ", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use heizer_wire::ErrorCode;

    use super::*;

    #[test]
    fn a_topic_is_described_by_its_own_settings_and_its_partitions() {
        let partition = |index, leader, error| PartitionMetadata {
            index,
            error,
            leader,
            leader_epoch: 3,
            replicas: vec![1, 2],
            in_sync: vec![1],
        };
        let partitions =
            vec![partition(0, 1, ErrorCode::None), partition(1, -1, ErrorCode::LeaderNotAvailable)];
        let topic = TopicMetadata { id: None, error: ErrorCode::None, internal: false, partitions };
        let config = |name: &str, source| ConfigEntry {
            name: name.to_owned(),
            value: Some("7".to_owned()),
            source,
            read_only: false,
            sensitive: false,
        };
        let configs = vec![config("retention.ms", 1), config("segment.ms", 5)];
        let described = described("t", &topic, configs);
        assert_eq!(
            text(&described),
            "topic t: 2 partitions, 2 replicas\n  retention.ms = 7\n  \
             PARTITION  LEADER  EPOCH  REPLICAS  IN-SYNC  ERROR\n  \
             \x20       0       1      3  1,2             1\n  \
             \x20       1       -      3  1,2             1  LEADER_NOT_AVAILABLE\n"
        );
        let json = serde_json::to_string(&described).expect("json");
        assert_eq!(
            json,
            r#"{"name":"t","id":null,"internal":false,"configs":{"retention.ms":"7"},"partitions":["#
                .to_owned()
                + r#"{"partition":0,"leader":1,"leader_epoch":3,"replicas":[1,2],"in_sync":[1],"error":null},"#
                + r#"{"partition":1,"leader":null,"leader_epoch":3,"replicas":[1,2],"in_sync":[1],"#
                + r#""error":"LEADER_NOT_AVAILABLE"}]}"#
        );
    }
}
