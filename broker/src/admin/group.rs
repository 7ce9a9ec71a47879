//! `heizer group`.
//!
//! | file | what is in it |
//! |---|---|
//! | this one | listing and deleting groups, deleting their offsets |
//! | `describe.rs` | how far they have come, and who their members are |
//! | `reset.rs` | where they go on |
//! | `plan.rs`, `file.rs` | new offsets out of what is asked for and what there is; out of a file; no I/O |

mod describe;
mod file;
mod plan;
mod reset;

use std::collections::BTreeMap;

use heizer_client::{Admin, Client, ClientError, GroupDescription, GroupListing, TopicPartition};
use heizer_wire::ErrorCode;
use serde::Serialize;

use super::args::{GroupVerb, ListingFormat, TopicScope};
use super::error::CliError;
use super::partitions::all;
use super::stdio::Report;
use super::table::{self, Table, numbers, text_cell};

/// So many members are named where they are in the way.
const NAMED_MAX: usize = 3;

pub(super) async fn run(client: Client, verb: GroupVerb) -> Result<(), CliError> {
    let admin = Admin::new(&client);
    let report: Report = match verb {
        GroupVerb::List { state, listing } => {
            let states: Vec<&str> = state.iter().map(|state| state.name()).collect();
            let groups = admin.groups(&states).await?;
            match listing.output {
                ListingFormat::Text => list(&groups).into(),
                ListingFormat::Json => {
                    table::json(&groups.iter().map(ListRow::of).collect::<Vec<_>>()).into()
                }
            }
        }
        GroupVerb::Describe(args) => describe::run(&admin, &args).await?,
        GroupVerb::Reset(args) => reset::run(&admin, &args).await?,
        GroupVerb::Delete { groups } => delete(&admin, &groups).await,
        GroupVerb::DeleteOffsets { group, topic } => delete_offsets(&admin, &group, &topic).await?.into(),
    };
    report.publish().await
}

/// A group in a list of them.
#[derive(Serialize)]
struct ListRow<'a> {
    group: &'a str,
    state: &'a str,
    r#type: &'a str,
    protocol_type: &'a str,
}

impl ListRow<'_> {
    fn of(group: &GroupListing) -> ListRow<'_> {
        ListRow {
            group: &group.group_id,
            state: &group.state,
            r#type: &group.group_type,
            protocol_type: &group.protocol_type,
        }
    }
}

fn list(groups: &[GroupListing]) -> String {
    let mut table = Table::new(["GROUP", "STATE", "TYPE", "PROTOCOL"]);
    for group in groups {
        table.row([
            group.group_id.clone(),
            text_cell(&group.state),
            text_cell(&group.group_type),
            text_cell(&group.protocol_type),
        ]);
    }
    let mut text = String::new();
    table.write("", &mut text);
    text
}

/// Deletes one after the other; what fails does not hold up the rest.
async fn delete(admin: &Admin, groups: &[String]) -> Report {
    let (mut text, mut failures) = (String::new(), Vec::new());
    for group in groups {
        match delete_one(admin, group).await {
            Ok(()) => text.extend(["deleted ", group.as_str(), "\n"]),
            Err(error) => failures.push(error.to_string()),
        }
    }
    let failure = (!failures.is_empty()).then(|| CliError::of(failures.join("; ")));
    Report::new(text, failure)
}

async fn delete_one(admin: &Admin, group: &str) -> Result<(), CliError> {
    match admin.delete_group(group).await {
        Ok(()) => Ok(()),
        Err(error) => Err(explained(admin, group, error).await),
    }
}

async fn delete_offsets(admin: &Admin, group: &str, scopes: &[TopicScope]) -> Result<String, CliError> {
    let committed = admin.group_offsets(group).await?;
    let mut wanted: Vec<TopicPartition> = Vec::new();
    for scope in scopes {
        let before = wanted.len();
        wanted.extend(committed.keys().filter(|key| covers(scope, key)).cloned());
        if wanted.len() == before {
            if committed.is_empty() && admin.describe_group(group).await?.is_none() {
                return Err(missing(group));
            }
            return Err(CliError::of(format_args!(
                "group {group} has committed nothing for {}; `heizer group describe {group}` shows what it has",
                scope.topic
            )));
        }
    }
    wanted.sort();
    wanted.dedup();
    match admin.delete_group_offsets(group, &wanted).await {
        Ok(outcomes) => drop(all(outcomes)?),
        Err(error) => return Err(explained(admin, group, error).await),
    }
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in &wanted {
        by_topic.entry(topic).or_default().push(*partition);
    }
    let lines = by_topic.iter().map(|(topic, partitions)| {
        format!("deleted what {group} had committed for {topic}: partitions {}\n", numbers(partitions))
    });
    Ok(lines.collect())
}

fn covers(scope: &TopicScope, (topic, partition): &TopicPartition) -> bool {
    scope.topic == *topic && scope.partitions.as_ref().is_none_or(|wanted| wanted.contains(partition))
}

/// An error that says who is in the way, where somebody is.
async fn explained(admin: &Admin, group: &str, error: ClientError) -> CliError {
    match error.code() {
        Some(ErrorCode::GroupIdNotFound) => missing(group),
        Some(ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId) => {
            match admin.describe_group(group).await {
                Ok(Some(found)) if !found.members.is_empty() => has_members(&found),
                _ => error.into(),
            }
        }
        _ => error.into(),
    }
}

fn missing(group: &str) -> CliError {
    CliError::of(format_args!("group {group} does not exist; `heizer group list` shows those that do"))
}

/// Why a group is left alone.
fn has_members(group: &GroupDescription) -> CliError {
    let named = group.members.iter().take(NAMED_MAX).map(|member| {
        let host = member.host.trim_start_matches('/');
        format!("{} of client {} at {host}", member.member_id, member.client_id)
    });
    let mut named: Vec<String> = named.collect();
    let count = group.members.len();
    if count > NAMED_MAX {
        named.push(format!("{} more", count - NAMED_MAX));
    }
    let (members, them) = if count == 1 { ("member", "it") } else { ("members", "them") };
    let (id, named) = (&group.group_id, named.join(", "));
    CliError::of(format_args!("group {id} has {count} {members}: {named}; stop {them} first"))
}

#[cfg(test)]
mod tests {
    use heizer_client::GroupMember;

    use super::*;

    fn member(id: &str) -> GroupMember {
        GroupMember {
            member_id: id.to_owned(),
            instance_id: None,
            client_id: "app".to_owned(),
            host: "/10.0.0.7".to_owned(),
            topics: Vec::new(),
            partitions: Vec::new(),
        }
    }

    fn group(members: &[&str]) -> GroupDescription {
        GroupDescription {
            group_id: "g".to_owned(),
            state: "Stable".to_owned(),
            protocol_type: "consumer".to_owned(),
            assignor: "range".to_owned(),
            coordinator: "h:1".to_owned(),
            members: members.iter().map(|id| member(id)).collect(),
        }
    }

    #[test]
    fn members_in_the_way_are_named_but_not_all_of_many() {
        let told = has_members(&group(&["m1"])).to_string();
        assert_eq!(told, "group g has 1 member: m1 of client app at 10.0.0.7; stop it first");
        let told = has_members(&group(&["m1", "m2", "m3", "m4", "m5"])).to_string();
        assert!(told.starts_with("group g has 5 members: m1 of "), "{told}");
        assert!(
            told.contains("m3 of") && !told.contains("m4") && told.contains(", 2 more; stop them"),
            "{told}"
        );
    }

    #[test]
    fn groups_are_listed_with_dashes_for_what_is_not_told() {
        let listing = |group: &str, state: &str, kind: &str| GroupListing {
            group_id: group.to_owned(),
            protocol_type: kind.to_owned(),
            state: state.to_owned(),
            group_type: "classic".to_owned(),
        };
        let groups = [listing("a", "Stable", "consumer"), listing("bcdefg", "Empty", "")];
        assert_eq!(
            list(&groups),
            "GROUP   STATE   TYPE     PROTOCOL\na       Stable  classic  consumer\nbcdefg  Empty   classic  -\n"
        );
        let json = serde_json::to_string(&ListRow::of(&groups[0])).expect("json");
        assert_eq!(json, r#"{"group":"a","state":"Stable","type":"classic","protocol_type":"consumer"}"#);
    }

    #[test]
    fn a_scope_covers_a_topic_or_some_of_its_partitions() {
        let scope = |partitions: Option<Vec<i32>>| TopicScope { topic: "t".to_owned(), partitions };
        let key = |topic: &str, partition| (topic.to_owned(), partition);
        assert!(covers(&scope(None), &key("t", 5)) && covers(&scope(Some(vec![4, 5])), &key("t", 5)));
        assert!(!covers(&scope(None), &key("u", 5)) && !covers(&scope(Some(vec![4])), &key("t", 5)));
    }
}
