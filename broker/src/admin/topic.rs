//! `heizer topic`.

use std::fmt::Write;

use bytes::Bytes;
use heizer_client::{Admin, Client, ConfigEntry, NewTopic, TopicMetadata};
use heizer_wire::ErrorCode;

use super::args::TopicVerb;
use super::error::CliError;
use super::stdio::Output;

/// DescribeConfigs' number for a value that was set for the topic.
const SOURCE_TOPIC: i8 = 1;

pub(super) async fn run(client: Client, verb: TopicVerb) -> Result<(), CliError> {
    let admin = Admin::new(&client);
    let text = match verb {
        TopicVerb::Create { name, partitions, replication_factor, config, if_not_exists } => {
            let configs = config.into_iter().collect();
            let topic = NewTopic { name: name.clone(), partitions, replication_factor, configs };
            match admin.create_topic(&topic, false).await {
                Ok(()) => format!("created {name}\n"),
                Err(error) if if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {
                    format!("{name} exists\n")
                }
                Err(error) => return Err(error.into()),
            }
        }
        TopicVerb::List { internal } => list(&admin, internal).await?,
        TopicVerb::Describe { name } => {
            let metadata = admin.topic(&name).await?;
            let topic = metadata.topics.get(&name);
            let topic = topic.ok_or_else(|| CliError::of(format_args!("topic {name} does not exist")))?;
            describe(&name, topic, &admin.topic_configs(&name).await?)
        }
        TopicVerb::Delete { name, if_exists } => match admin.delete_topic(&name).await {
            Ok(()) => format!("deleted {name}\n"),
            Err(error) if if_exists && error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                format!("{name} does not exist\n")
            }
            Err(error) => return Err(error.into()),
        },
    };
    Output::open()?.write(Bytes::from(text)).await
}

async fn list(admin: &Admin, internal: bool) -> Result<String, CliError> {
    let metadata = admin.topics().await?;
    let shown = metadata.topics.iter().filter(|(_, topic)| internal || !topic.internal);
    Ok(shown.fold(String::new(), |text, (name, _)| text + name + "\n"))
}

/// A line for the topic, one for each setting of its own, one for each partition.
fn describe(name: &str, topic: &TopicMetadata, configs: &[ConfigEntry]) -> String {
    let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    let mut text = format!("topic {name}: {} partitions, {replicas} replicas\n", topic.partitions.len());
    for config in configs.iter().filter(|config| config.source == SOURCE_TOPIC) {
        let value = config.value.as_deref().unwrap_or("(hidden)");
        push(&mut text, format_args!("  {} = {value}\n", config.name));
    }
    for partition in &topic.partitions {
        let (replicas, in_sync) = (ids(&partition.replicas), ids(&partition.in_sync));
        let (index, leader, epoch) = (partition.index, partition.leader, partition.leader_epoch);
        let error = match partition.error {
            ErrorCode::None => String::new(),
            error => format!(", {error}"),
        };
        let line = format_args!(
            "  partition {index}: leader {leader}, epoch {epoch}, replicas {replicas}, in sync {in_sync}{error}\n"
        );
        push(&mut text, line);
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("writing to a string does not fail");
}

fn ids(brokers: &[i32]) -> String {
    brokers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use heizer_client::PartitionMetadata;

    use super::*;

    #[test]
    fn a_topic_is_described_by_its_own_settings_and_its_partitions() {
        let partition = |index, error| PartitionMetadata {
            index,
            error,
            leader: 1,
            leader_epoch: 3,
            replicas: vec![1, 2],
            in_sync: vec![1],
        };
        let partitions = vec![partition(0, ErrorCode::None), partition(1, ErrorCode::LeaderNotAvailable)];
        let topic = TopicMetadata { error: ErrorCode::None, internal: false, partitions };
        let config = |name: &str, source| ConfigEntry {
            name: name.to_owned(),
            value: Some("7".to_owned()),
            source,
            read_only: false,
            sensitive: false,
        };
        let text = describe("t", &topic, &[config("retention.ms", 1), config("segment.ms", 5)]);
        assert_eq!(
            text,
            "topic t: 2 partitions, 2 replicas\n  retention.ms = 7\n  \
             partition 0: leader 1, epoch 3, replicas 1,2, in sync 1\n  \
             partition 1: leader 1, epoch 3, replicas 1,2, in sync 1, LEADER_NOT_AVAILABLE\n"
        );
    }
}
