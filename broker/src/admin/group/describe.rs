//! `heizer group describe`.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream;
use heizer_client::{
    Admin, CommittedOffset, GroupDescription, GroupMember, ListedOffset, OffsetAt, PerPartition,
    TopicPartition,
};
use serde::Serialize;

use super::missing;
use crate::admin::args::{GroupDescribeArgs, ListingFormat};
use crate::admin::error::CliError;
use crate::admin::progress::Progress;
use crate::admin::stdio::Report;
use crate::admin::table::{self, Table, cell, numbers, text_cell};

/// So many groups are asked for at the same time.
const AT_ONCE: usize = 16;

/// A group, its members, and how far it has come.
#[derive(Debug, Serialize)]
struct Described {
    group: String,
    state: String,
    protocol_type: String,
    assignor: String,
    coordinator: String,
    members: Vec<Member>,
    offsets: Vec<Position>,
}

#[derive(Debug, Serialize)]
struct Member {
    member: String,
    instance: Option<String>,
    client: String,
    host: String,
    topics: Vec<String>,
    partitions: Vec<Assigned>,
}

#[derive(Debug, Serialize)]
struct Assigned {
    topic: String,
    partition: i32,
}

/// Where a group is in a partition.
#[derive(Debug, Serialize)]
struct Position {
    topic: String,
    partition: i32,
    /// None has committed nothing.
    offset: Option<i64>,
    /// None could not be found out: the topic may be gone.
    end: Option<i64>,
    lag: Option<i64>,
    metadata: Option<String>,
    /// The member that has the partition.
    member: Option<String>,
    host: Option<String>,
    client: Option<String>,
}

pub(super) async fn run(admin: &Admin, args: &GroupDescribeArgs) -> Result<Report, CliError> {
    let names: Vec<String> = match args.all {
        true => admin.groups(&[]).await?.into_iter().map(|group| group.group_id).collect(),
        false => args.groups.clone(),
    };
    let json = args.listing.output == ListingFormat::Json;
    let with_offsets = json || !(args.members || args.state);
    let progress = Progress::start();
    let mut described = Vec::with_capacity(names.len());
    let mut found = stream::iter(&names).map(|name| describe(admin, name, with_offsets)).buffered(AT_ONCE);
    while let Some(group) = found.next().await {
        progress.tell(format_args!("described {} of {} groups", described.len(), names.len()));
        match group? {
            Some(group) => described.push(group),
            // One of all may have gone meanwhile.
            None if args.all => {}
            None => return Err(missing(&names[described.len()])),
        }
    }
    drop(progress);
    Ok(if json {
        table::json(&described).into()
    } else if args.state {
        states(&described).into()
    } else {
        joined(&described, if args.members { members } else { offsets }).into()
    })
}

fn joined(groups: &[Described], text: fn(&Described) -> String) -> String {
    groups.iter().map(text).collect::<Vec<_>>().join("\n")
}

async fn describe(admin: &Admin, name: &str, with_offsets: bool) -> Result<Option<Described>, CliError> {
    let Some(group) = admin.describe_group(name).await? else { return Ok(None) };
    if !with_offsets {
        return Ok(Some(put_together(group, &BTreeMap::new(), &PerPartition::new())));
    }
    let committed = admin.group_offsets(name).await?;
    let assigned = group.members.iter().flat_map(|member| member.partitions.iter().cloned());
    let partitions: BTreeSet<TopicPartition> = committed.keys().cloned().chain(assigned).collect();
    let ends = admin.list_offsets_at(partitions, OffsetAt::Latest).await;
    Ok(Some(put_together(group, &committed, &ends)))
}

/// `ends` has every partition that is committed or assigned.
fn put_together(
    group: GroupDescription,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
    ends: &PerPartition<ListedOffset>,
) -> Described {
    let mut owners: BTreeMap<&TopicPartition, &GroupMember> = BTreeMap::new();
    for member in &group.members {
        owners.extend(member.partitions.iter().map(|partition| (partition, member)));
    }
    let offsets = ends.iter().map(|(key, listed)| {
        let (found, owner) = (committed.get(key), owners.get(key));
        let offset = found.map(|found| found.offset);
        let end = listed.as_ref().ok().and_then(|listed| listed.offset);
        let metadata = found.map(|found| found.metadata.clone()).filter(|metadata| !metadata.is_empty());
        Position {
            topic: key.0.clone(),
            partition: key.1,
            offset,
            end,
            lag: end.zip(offset).map(|(end, offset)| end - offset),
            metadata,
            member: owner.map(|owner| owner.member_id.clone()),
            host: owner.map(|owner| owner.host.clone()),
            client: owner.map(|owner| owner.client_id.clone()),
        }
    });
    let offsets: Vec<Position> = offsets.collect();
    Described {
        group: group.group_id,
        state: group.state,
        protocol_type: group.protocol_type,
        assignor: group.assignor,
        coordinator: group.coordinator,
        members: group.members.into_iter().map(member).collect(),
        offsets,
    }
}

fn member(member: GroupMember) -> Member {
    let assigned = member.partitions.into_iter().map(|(topic, partition)| Assigned { topic, partition });
    Member {
        member: member.member_id,
        instance: member.instance_id,
        client: member.client_id,
        host: member.host,
        topics: member.topics,
        partitions: assigned.collect(),
    }
}

fn head(group: &Described) -> String {
    let Described { group: name, state, assignor, coordinator, members, .. } = group;
    let members = match members.len() {
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    let assignor = if assignor.is_empty() { String::new() } else { format!(", assignor {assignor}") };
    format!("group {name}: {state}, {members}{assignor}, coordinator {coordinator}\n")
}

fn offsets(group: &Described) -> String {
    let mut text = head(group);
    let mut table =
        Table::new(["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "MEMBER", "HOST", "CLIENT", "METADATA"]);
    for position in &group.offsets {
        table.row([
            position.topic.clone(),
            position.partition.to_string(),
            cell(position.offset),
            cell(position.end),
            cell(position.lag),
            cell(position.member.as_ref()),
            cell(position.host.as_ref()),
            cell(position.client.as_ref()),
            position.metadata.clone().unwrap_or_default(),
        ]);
    }
    if group.offsets.is_empty() {
        text.push_str("  it has committed nothing\n");
    }
    table.write("  ", &mut text);
    text
}

fn members(group: &Described) -> String {
    let mut text = head(group);
    let mut table = Table::new(["MEMBER", "INSTANCE", "HOST", "CLIENT", "PARTITIONS", "ASSIGNMENT"]);
    for member in &group.members {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for Assigned { topic, partition } in &member.partitions {
            by_topic.entry(topic).or_default().push(*partition);
        }
        let assignment =
            by_topic.iter().map(|(topic, partitions)| format!("{topic}:{}", numbers(partitions)));
        table.row([
            member.member.clone(),
            member.instance.clone().unwrap_or_default(),
            member.host.clone(),
            member.client.clone(),
            member.partitions.len().to_string(),
            text_cell(&assignment.collect::<Vec<_>>().join(" ")),
        ]);
    }
    table.write("  ", &mut text);
    text
}

fn states(groups: &[Described]) -> String {
    let mut table = Table::new(["GROUP", "STATE", "MEMBERS", "PROTOCOL", "ASSIGNOR", "COORDINATOR"]);
    for group in groups {
        table.row([
            group.group.clone(),
            group.state.clone(),
            group.members.len().to_string(),
            text_cell(&group.protocol_type),
            text_cell(&group.assignor),
            group.coordinator.clone(),
        ]);
    }
    let mut text = String::new();
    table.write("", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use heizer_client::ClientError;

    use super::*;

    fn key(topic: &str, partition: i32) -> TopicPartition {
        (topic.to_owned(), partition)
    }

    fn described() -> Described {
        let member = GroupMember {
            member_id: "m1".to_owned(),
            instance_id: None,
            client_id: "app".to_owned(),
            host: "/10.0.0.7".to_owned(),
            topics: vec!["t".to_owned()],
            partitions: vec![key("t", 0), key("t", 2)],
        };
        let group = GroupDescription {
            group_id: "g".to_owned(),
            state: "Stable".to_owned(),
            protocol_type: "consumer".to_owned(),
            assignor: "range".to_owned(),
            coordinator: "h:1".to_owned(),
            members: vec![member],
        };
        let offset = |offset| CommittedOffset { offset, leader_epoch: -1, metadata: String::new() };
        let committed =
            BTreeMap::from([(key("gone", 0), offset(3)), (key("t", 0), offset(5)), (key("t", 1), offset(7))]);
        let end = |offset| Ok(ListedOffset { offset: Some(offset), timestamp: None });
        let ends = PerPartition::from([
            (key("gone", 0), Err(ClientError::UnknownTopic("gone".to_owned()))),
            (key("t", 0), end(25)),
            (key("t", 1), end(7)),
            (key("t", 2), end(1)),
        ]);
        put_together(group, &committed, &ends)
    }

    #[test]
    fn what_is_committed_and_what_is_assigned_is_shown_with_its_lag() {
        assert_eq!(
            offsets(&described()),
            "group g: Stable, 1 member, assignor range, coordinator h:1\n  \
             TOPIC  PARTITION  OFFSET  END  LAG  MEMBER  HOST       CLIENT\n  \
             gone           0       3    -    -  -       -          -\n  \
             t              0       5   25   20  m1      /10.0.0.7  app\n  \
             t              1       7    7    0  -       -          -\n  \
             t              2       -    1    -  m1      /10.0.0.7  app\n"
        );
    }

    #[test]
    fn members_are_shown_with_what_they_have_and_groups_with_their_state() {
        assert_eq!(
            members(&described()),
            "group g: Stable, 1 member, assignor range, coordinator h:1\n  \
             MEMBER  HOST       CLIENT  PARTITIONS  ASSIGNMENT\n  \
             m1      /10.0.0.7  app              2  t:0,2\n"
        );
        assert_eq!(
            states(&[described()]),
            "GROUP  STATE   MEMBERS  PROTOCOL  ASSIGNOR  COORDINATOR\n\
             g      Stable        1  consumer  range     h:1\n"
        );
    }

    #[test]
    fn the_document_has_the_same_in_fields() {
        let document: serde_json::Value = serde_json::from_slice(&table::json(&[described()])).expect("json");
        let group = &document[0];
        assert_eq!(group["group"], "g");
        assert_eq!(group["state"], "Stable");
        assert_eq!(group["members"][0]["partitions"][1]["partition"], 2);
        let lags: Vec<Option<i64>> = (0..4).map(|at| group["offsets"][at]["lag"].as_i64()).collect();
        assert_eq!(lags, [None, Some(20), Some(0), None]);
        assert_eq!(group["offsets"][1]["member"], "m1");
    }
}
