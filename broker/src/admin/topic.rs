//! `heizer topic`.
//!
//! | file | what is in it |
//! |---|---|
//! | this one | creating, altering, listing and deleting topics |
//! | `describe.rs` | their partitions and settings |
//! | `offsets.rs` | where partitions start and end |
//! | `trim.rs` | deleting their oldest records |

mod describe;
mod offsets;
mod trim;

use std::fmt::Write;

use heizer_client::{Admin, Client, ConfigResource, Metadata, NewTopic};
use heizer_wire::ErrorCode;
use serde::Serialize;

use super::args::{AlterArgs, ListingFormat, TopicVerb};
use super::error::CliError;
use super::settings::{changes, tell_changes};
use super::stdio::Report;
use super::table;

pub(super) async fn run(client: Client, verb: TopicVerb) -> Result<(), CliError> {
    let admin = Admin::new(&client);
    let report: Report = match verb {
        TopicVerb::Create { name, partitions, replication_factor, config, if_not_exists } => {
            let configs = config.into_iter().collect();
            let topic = NewTopic { name: name.clone(), partitions, replication_factor, configs };
            match admin.create_topic(&topic, false).await {
                Ok(()) => format!("created {name}\n").into(),
                Err(error) if if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {
                    format!("{name} exists\n").into()
                }
                Err(error) => return Err(error.into()),
            }
        }
        TopicVerb::Alter(args) => alter(&admin, &args).await?.into(),
        TopicVerb::List { internal, listing } => {
            let metadata = admin.topics().await?;
            match listing.output {
                ListingFormat::Text => list(&metadata, internal).into(),
                ListingFormat::Json => table::json(&rows(&metadata, internal)).into(),
            }
        }
        TopicVerb::Describe { names, internal, listing } => {
            describe::run(&admin, names, internal, listing.output).await?
        }
        TopicVerb::Offsets(args) => offsets::run(&admin, &args).await?,
        TopicVerb::Trim(args) => trim::run(&admin, &args).await?,
        TopicVerb::Delete { name, if_exists } => match admin.delete_topic(&name).await {
            Ok(()) => format!("deleted {name}\n").into(),
            Err(error) if if_exists && error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {
                format!("{name} does not exist\n").into()
            }
            Err(error) => return Err(error.into()),
        },
    };
    report.publish().await
}

fn list(metadata: &Metadata, internal: bool) -> String {
    let shown = metadata.topics.iter().filter(|(_, topic)| internal || !topic.internal);
    shown.fold(String::new(), |text, (name, _)| text + name + "\n")
}

/// A topic in a list of them.
#[derive(Serialize)]
struct ListRow<'a> {
    name: &'a str,
    internal: bool,
    partitions: usize,
    replicas: usize,
}

fn rows(metadata: &Metadata, internal: bool) -> Vec<ListRow<'_>> {
    let shown = metadata.topics.iter().filter(|(_, topic)| internal || !topic.internal);
    let rows = shown.map(|(name, topic)| ListRow {
        name,
        internal: topic.internal,
        partitions: topic.partitions.len(),
        replicas: topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
    });
    rows.collect()
}

/// Asks for all of it first, so that nothing is left half done.
async fn alter(admin: &Admin, args: &AlterArgs) -> Result<String, CliError> {
    let AlterArgs { name, partitions, config, delete_config, dry_run } = args;
    let resource = ConfigResource::Topic(name.clone());
    let changes = changes(config, delete_config)?;
    let before = admin.topic(name).await?.partition_count(name).unwrap_or_default();
    for validate_only in [true, false] {
        if *dry_run && !validate_only {
            break;
        }
        if !changes.is_empty() {
            admin.alter_configs(&resource, &changes, validate_only).await?;
        }
        if let Some(count) = partitions {
            admin.create_partitions(name, *count, validate_only).await?;
        }
    }
    let mut text = tell_changes(&resource, &changes, *dry_run);
    if let Some(count) = partitions {
        let done = if *dry_run { "would give" } else { "gave" };
        let told = writeln!(
            text,
            "{done} {name} {count} partitions in place of {before}; records with a key may go to other ones than before"
        );
        told.expect("writing to a string does not fail");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use heizer_client::{PartitionMetadata, TopicMetadata};

    use super::*;

    #[test]
    fn a_list_leaves_out_the_clusters_own_topics_unless_asked() {
        let topic = |internal| TopicMetadata {
            id: None,
            error: ErrorCode::None,
            internal,
            partitions: vec![PartitionMetadata {
                index: 0,
                error: ErrorCode::None,
                leader: 1,
                leader_epoch: 0,
                replicas: vec![1, 2],
                in_sync: vec![1],
            }],
        };
        let topics = [("a", false), ("__o", true)].map(|(name, internal)| (name.to_owned(), topic(internal)));
        let metadata = Metadata { topics: topics.into(), ..Metadata::default() };
        assert_eq!(list(&metadata, false), "a\n");
        assert_eq!(list(&metadata, true), "__o\na\n");
        let json = serde_json::to_string(&rows(&metadata, false)).expect("json");
        assert_eq!(json, r#"[{"name":"a","internal":false,"partitions":1,"replicas":2}]"#);
    }
}
