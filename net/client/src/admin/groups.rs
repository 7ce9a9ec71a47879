//! Consumer groups and their offsets: asked of their coordinators.

use std::collections::BTreeMap;

use heizer_wire::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, DeleteGroupsRequest, DescribeGroupsRequest,
    DescribedGroup, DescribedGroupMember, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, OffsetFetchRequest, OffsetFetchRequestGroup,
};
use heizer_wire::{ApiKey, ErrorCode};

use super::{Admin, PerPartition, TopicPartition, may_pass, not_carried_out};
use crate::connection::Connection;
use crate::error::{ClientError, check};
use crate::group::{PROTOCOL_TYPE, commit_topics, decode_newest};

/// What a group without members is called where nobody knows it.
const STATE_DEAD: &str = "Dead";

/// A group in a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Its name.
    pub group_id: String,
    /// What its members speak: `consumer`, or empty when it has only offsets.
    pub protocol_type: String,
    /// Its state, by Kafka's names; empty when the broker doesn't tell.
    pub state: String,
    /// `classic` or `consumer`; empty when the broker doesn't tell.
    pub group_type: String,
}

/// What there is to know of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group_id: String,
    /// Its state, by Kafka's names.
    pub state: String,
    /// What its members speak: `consumer`, or empty when it has only offsets.
    pub protocol_type: String,
    /// How partitions are assigned: `range`, `cooperative-sticky`, …; empty without members.
    pub assignor: String,
    /// Its coordinator, as `host:port`.
    pub coordinator: String,
    /// Its members, by id.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the coordinator gave.
    pub member_id: String,
    /// The id that it came with, if it is a static member (KIP-345).
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// The topics that it subscribes to.
    pub topics: Vec<String>,
    /// The partitions that it has.
    pub partitions: Vec<TopicPartition>,
}

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset.
    pub offset: i64,
    /// The epoch of the record before it, or -1.
    pub leader_epoch: i32,
    /// What was left with it.
    pub metadata: String,
}

impl Admin {
    /// The groups of all brokers that are in one of `states` (in any, when empty), by name.
    pub async fn groups(&self, states: &[&str]) -> Result<Vec<GroupListing>, ClientError> {
        let request = ListGroupsRequest {
            states_filter: states.iter().map(|state| (*state).into()).collect(),
            ..Default::default()
        };
        let brokers: Vec<i32> = self.refresh(Some(&[])).await?.brokers.keys().copied().collect();
        let mut groups = BTreeMap::new();
        for broker in brokers {
            for group in self.groups_of(broker, &request).await? {
                groups.insert(group.group_id.clone(), group);
            }
        }
        // Brokers from before the filter leave it to us.
        let wanted = |group: &GroupListing| states.is_empty() || states.contains(&group.state.as_str());
        Ok(groups.into_values().filter(wanted).collect())
    }

    async fn groups_of(
        &self,
        broker: i32,
        request: &ListGroupsRequest,
    ) -> Result<Vec<GroupListing>, ClientError> {
        self.retrying(&format!("groups of broker {broker}"), may_pass, async || {
            let connection = self.broker(broker).await?;
            let response = connection.request(request).await?;
            let subject = || format!("broker {broker}");
            check(connection.addr(), ApiKey::ListGroups, subject, response.error_code, None)?;
            let groups = response.groups.into_iter().map(|group| GroupListing {
                group_id: group.group_id.to_string(),
                protocol_type: group.protocol_type.to_string(),
                state: group.group_state.to_string(),
                group_type: group.group_type.to_string(),
            });
            Ok(groups.collect())
        })
        .await
    }

    /// A group and its members; `None` when there is no such group.
    pub async fn describe_group(&self, group: &str) -> Result<Option<GroupDescription>, ClientError> {
        let request = DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
        self.at_coordinator(group, may_pass, async |coordinator| {
            let mut response = coordinator.request(&request).await?;
            let Some(found) = response.groups.pop() else {
                return Err(ClientError::incomplete(coordinator.addr(), subject(group)));
            };
            // From version 6 on; before, an unknown group was a dead one.
            if found.error_code == ErrorCode::GroupIdNotFound.code() {
                return Ok(None);
            }
            let message = found.error_message.as_deref();
            let api = ApiKey::DescribeGroups;
            check(coordinator.addr(), api, || subject(group), found.error_code, message)?;
            Ok(Some(described(found, coordinator.addr())).filter(|group| group.state != STATE_DEAD))
        })
        .await
    }

    /// Every offset that a group has committed; none when there is no such group.
    pub async fn group_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        // Filled for both shapes of the request; each version sends the one that it has.
        let request = OffsetFetchRequest {
            group_id: group.into(),
            topics: None,
            groups: vec![OffsetFetchRequestGroup {
                group_id: group.into(),
                topics: None,
                ..Default::default()
            }],
            require_stable: false,
        };
        self.at_coordinator(group, may_pass, async |coordinator| {
            let api = ApiKey::OffsetFetch;
            let response = coordinator.request(&request).await?;
            check(coordinator.addr(), api, || subject(group), response.error_code, None)?;
            let mut found = Vec::new();
            for topic in response.topics {
                for p in topic.partitions {
                    let (offset, leader_epoch) = (p.committed_offset, p.committed_leader_epoch);
                    let committed = (offset, leader_epoch, p.metadata, p.error_code);
                    found.push(((topic.name.to_string(), p.partition_index), committed));
                }
            }
            for answer in response.groups {
                check(coordinator.addr(), api, || subject(group), answer.error_code, None)?;
                for topic in answer.topics {
                    for p in topic.partitions {
                        let (offset, leader_epoch) = (p.committed_offset, p.committed_leader_epoch);
                        let committed = (offset, leader_epoch, p.metadata, p.error_code);
                        found.push(((topic.name.to_string(), p.partition_index), committed));
                    }
                }
            }
            let mut offsets = BTreeMap::new();
            for (partition, (offset, leader_epoch, metadata, code)) in found {
                let subject = || format!("{}, {}-{}", subject(group), partition.0, partition.1);
                check(coordinator.addr(), api, subject, code, None)?;
                if offset >= 0 {
                    let metadata = metadata.map(|text| text.to_string()).unwrap_or_default();
                    offsets.insert(partition, CommittedOffset { offset, leader_epoch, metadata });
                }
            }
            Ok(offsets)
        })
        .await
    }

    /// Commits offsets from outside of a group, which must have no members.
    pub async fn set_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<PerPartition<()>, ClientError> {
        let topics = commit_topics(offsets);
        let request = OffsetCommitRequest { group_id: group.into(), topics, ..Default::default() };
        self.at_coordinator(group, may_pass, async |coordinator| {
            let response = coordinator.request(&request).await?;
            let answers = response.topics.iter().flat_map(|topic| {
                let name = topic.name.to_string();
                topic.partitions.iter().map(move |p| ((name.clone(), p.partition_index), p.error_code))
            });
            per_partition(coordinator, ApiKey::OffsetCommit, group, answers)
        })
        .await
    }

    /// Deletes a group with its offsets. It must have no members.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        let request = DeleteGroupsRequest { groups_names: vec![group.into()] };
        self.at_coordinator(group, not_carried_out, async |coordinator| {
            let response = coordinator.request(&request).await?;
            for result in &response.results {
                check(coordinator.addr(), ApiKey::DeleteGroups, || subject(group), result.error_code, None)?;
            }
            Ok(())
        })
        .await
    }

    /// Deletes offsets that a group has committed. It must have no members that read these topics.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<PerPartition<()>, ClientError> {
        let mut by_topic: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for (topic, partition) in partitions {
            let partition = OffsetDeleteRequestPartition { partition_index: *partition };
            by_topic.entry(topic).or_default().push(partition);
        }
        let topics = by_topic
            .into_iter()
            .map(|(topic, partitions)| OffsetDeleteRequestTopic { name: topic.into(), partitions });
        let request = OffsetDeleteRequest { group_id: group.into(), topics: topics.collect() };
        self.at_coordinator(group, may_pass, async |coordinator| {
            let api = ApiKey::OffsetDelete;
            let response = coordinator.request(&request).await?;
            check(coordinator.addr(), api, || subject(group), response.error_code, None)?;
            let answers = response.topics.iter().flat_map(|topic| {
                let name = topic.name.to_string();
                topic.partitions.iter().map(move |p| ((name.clone(), p.partition_index), p.error_code))
            });
            per_partition(coordinator, api, group, answers)
        })
        .await
    }

    /// Asks a group's coordinator, which is looked for anew before each attempt.
    async fn at_coordinator<T>(
        &self,
        group: &str,
        again: fn(&ClientError) -> bool,
        ask: impl AsyncFn(&Connection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.retrying(&subject(group), again, async || {
            let addr = self.client.group_coordinator(group).await?;
            ask(&self.client.at(&addr).await?).await
        })
        .await
    }
}

fn subject(group: &str) -> String {
    format!("group {group}")
}

/// What became of each partition, or the first error that is worth trying again for.
fn per_partition(
    coordinator: &Connection,
    api: ApiKey,
    group: &str,
    answers: impl Iterator<Item = (TopicPartition, i16)>,
) -> Result<PerPartition<()>, ClientError> {
    let mut outcomes = BTreeMap::new();
    for (partition, code) in answers {
        let subject = || format!("{}, {}-{}", subject(group), partition.0, partition.1);
        let outcome = check(coordinator.addr(), api, subject, code, None);
        if let Err(error) = &outcome
            && may_pass(error)
        {
            return Err(error.clone());
        }
        outcomes.insert(partition, outcome);
    }
    Ok(outcomes)
}

fn described(group: DescribedGroup, coordinator: &str) -> GroupDescription {
    let speaks_consumer = &*group.protocol_type == PROTOCOL_TYPE;
    let mut members: Vec<GroupMember> =
        group.members.into_iter().map(|found| member(found, speaks_consumer)).collect();
    members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
    GroupDescription {
        group_id: group.group_id.to_string(),
        state: group.group_state.to_string(),
        protocol_type: group.protocol_type.to_string(),
        assignor: group.protocol_data.to_string(),
        coordinator: coordinator.to_owned(),
        members,
    }
}

/// What other protocols than the consumers' leave with the group is theirs alone.
fn member(found: DescribedGroupMember, speaks_consumer: bool) -> GroupMember {
    let (mut topics, mut partitions) = (Vec::new(), Vec::new());
    if speaks_consumer {
        // What doesn't parse shows as nothing: it is the member's affair.
        let subscription = decode_newest::<ConsumerProtocolSubscription>(found.member_metadata);
        let subscription = subscription.ok().flatten().unwrap_or_default();
        topics.extend(subscription.topics.iter().map(ToString::to_string));
        let assignment = decode_newest::<ConsumerProtocolAssignment>(found.member_assignment);
        for topic in assignment.ok().flatten().unwrap_or_default().assigned_partitions {
            partitions.extend(topic.partitions.iter().map(|&index| (topic.topic.to_string(), index)));
        }
        partitions.sort();
    }
    GroupMember {
        member_id: found.member_id.to_string(),
        instance_id: found.group_instance_id.map(|id| id.to_string()),
        client_id: found.client_id.to_string(),
        host: found.client_host.to_string(),
        topics,
        partitions,
    }
}
