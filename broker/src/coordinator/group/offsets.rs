//! Committed offsets: commit, fetch, expiry, and what goes when a topic goes.

use std::collections::BTreeSet;

use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic, OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use super::classic::ClassicGroup;
use super::config::GroupConfig;
use super::context::{Context, Draft, Effect, Offsets};
use super::state::ClassicState;
use crate::coordinator::records::{CommittedOffset, offset_record, subscribed_topics};
use crate::coordinator::result::{Answer, AnswerId, Millis};

/// Protocol type of consumers, whose subscriptions the coordinator can read.
const CONSUMER_PROTOCOL_TYPE: &str = "consumer";
/// From here on a commit to an unknown group is told so (KIP-848); older clients understand another error.
const COMMIT_VERSION_WITH_GROUP_NOT_FOUND: i16 = 9;
/// From here on OffsetFetch has an error code for the group as a whole.
const FETCH_VERSION_WITH_GROUP_ERROR: i16 = 2;
/// From here on OffsetFetch names many groups (KIP-709).
const FETCH_VERSION_WITH_GROUPS: i16 = 8;

impl ClassicGroup {
    pub(super) fn commit(&mut self, ctx: &mut Context<'_>, answer: AnswerId, request: OffsetCommitRequest) {
        if let Err(code) = self.validate_commit(&request) {
            return ctx.out.answer(answer, Answer::OffsetCommit(refused_commit(&request, code)));
        }
        // A commit is a sign of life.
        if matches!(self.state(), ClassicState::Stable | ClassicState::PreparingRebalance) {
            self.restart_session(ctx, &request.member_id);
        }
        let expire_timestamp = match request.retention_time_ms {
            given if given < 0 => None,
            given => Some(ctx.now.plus(given).as_i64()),
        };
        let mut records = Vec::new();
        let mut offsets = Vec::new();
        let mut response = OffsetCommitResponse::default();
        for topic in request.topics {
            let mut rows = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let index = partition.partition_index;
                let code = match committed(ctx, partition, expire_timestamp) {
                    Ok(value) => {
                        records.push(offset_record(&self.id, &topic.name, index, Some(&value)));
                        offsets.push((topic.name.clone(), index));
                        ErrorCode::None
                    }
                    Err(code) => code,
                };
                rows.push(OffsetCommitResponsePartition { partition_index: index, error_code: code.into() });
            }
            response.topics.push(OffsetCommitResponseTopic { name: topic.name, partitions: rows });
        }
        let mark = ctx.out.drafts.len();
        if !records.is_empty() {
            ctx.out.drafts.push(Draft { offsets, ..Draft::new(&self.id, records, Effect::Nothing) });
        }
        ctx.out.answer_after(mark, answer, Answer::OffsetCommit(response));
    }

    fn validate_commit(&self, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        if self.is(ClassicState::Dead) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if generation < 0 && self.is(ClassicState::Empty) {
            // An administrator, or a consumer that assigns its partitions itself.
            return Ok(());
        }
        if generation < 0 && request.member_id.is_empty() && request.group_instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.is(ClassicState::CompletingRebalance) {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether any of the group's offsets may be deleted: of a group with members only if they are consumers, whose
    /// subscriptions tell which.
    pub(super) fn validate_offset_delete(&self) -> Result<(), ErrorCode> {
        match self.state() {
            ClassicState::Dead => Err(ErrorCode::GroupIdNotFound),
            ClassicState::Empty => Ok(()),
            _ if self.has_consumers() => Ok(()),
            _ => Err(ErrorCode::NonEmptyGroup),
        }
    }

    fn has_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// The topics whose offsets are in use whatever their age; none if every topic is (the members' metadata is
    /// not for the coordinator to read).
    pub(super) fn topics_in_use(&self) -> Option<BTreeSet<ByteString>> {
        if !self.has_consumers() {
            // Nobody subscribes in a simple group; of other kinds only the empty ones expire.
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.clone().unwrap_or_default();
        let topics: Option<Vec<_>> =
            self.members().map(|member| subscribed_topics(member.metadata(&protocol))).collect();
        topics.map(|topics| topics.into_iter().flatten().collect())
    }

    /// Since when an offset has not been needed; none while it is.
    fn idle_since(&self, committed: &CommittedOffset) -> Option<i64> {
        match (&self.protocol_type, self.state()) {
            // A simple group has no members that could show that it lives.
            (None, _) => Some(committed.commit_timestamp),
            (Some(_), ClassicState::Empty) => {
                Some(self.state_since.map_or(committed.commit_timestamp, Millis::as_i64))
            }
            (Some(_), ClassicState::Stable) if self.has_consumers() => Some(committed.commit_timestamp),
            (Some(_), _) => None,
        }
    }

    /// The offsets that have outlived `offsets.retention.minutes`.
    pub(super) fn expired(
        &self,
        config: &GroupConfig,
        offsets: &Offsets,
        now: Millis,
    ) -> Vec<(ByteString, i32)> {
        let Some(in_use) = self.topics_in_use() else { return Vec::new() };
        let has_expired = |committed: &CommittedOffset| {
            let Some(idle_since) = self.idle_since(committed) else { return false };
            match committed.expire_timestamp {
                Some(at) => now.as_i64() >= at,
                None => now.as_i64().saturating_sub(idle_since) >= config.offsets_retention_ms,
            }
        };
        let unused = offsets.iter().filter(|(topic, _)| !in_use.contains(*topic));
        let rows = unused.flat_map(|(topic, rows)| rows.iter().map(move |(index, row)| (topic, *index, row)));
        rows.filter(|(.., row)| has_expired(row)).map(|(topic, index, _)| (topic.clone(), index)).collect()
    }
}

fn committed(
    ctx: &Context<'_>,
    partition: OffsetCommitRequestPartition,
    expire_timestamp: Option<i64>,
) -> Result<CommittedOffset, ErrorCode> {
    let metadata = partition.committed_metadata.unwrap_or_default();
    // Kafka counts Java's characters.
    if metadata.len() > ctx.config.offset_metadata_max
        && metadata.encode_utf16().count() > ctx.config.offset_metadata_max
    {
        return Err(ErrorCode::OffsetMetadataTooLarge);
    }
    Ok(CommittedOffset {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata,
        commit_timestamp: ctx.now.as_i64(),
        expire_timestamp,
    })
}

/// The response that refuses a whole commit: the same error for every partition.
pub(super) fn refused_commit(request: &OffsetCommitRequest, code: ErrorCode) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: code.into(),
        });
        OffsetCommitResponseTopic { name: topic.name.clone(), partitions: partitions.collect() }
    });
    OffsetCommitResponse { topics: topics.collect(), ..OffsetCommitResponse::default() }
}

/// How a commit to a group that does not exist is refused.
pub(super) fn unknown_group_code(version: i16) -> ErrorCode {
    if version >= COMMIT_VERSION_WITH_GROUP_NOT_FOUND {
        ErrorCode::GroupIdNotFound
    } else {
        ErrorCode::IllegalGeneration
    }
}

/// The committed offsets that `wanted` asks for; all of them if it is none.
pub(super) fn fetch(
    group: &ByteString,
    offsets: Option<&Offsets>,
    wanted: Option<&[OffsetFetchRequestTopics]>,
) -> OffsetFetchResponseGroup {
    let topics = match wanted {
        Some(wanted) => wanted
            .iter()
            .map(|topic| {
                let rows = offsets.and_then(|offsets| offsets.get(&topic.name));
                let row = |index: &i32| fetched(*index, rows.and_then(|rows| rows.get(index)));
                OffsetFetchResponseTopics {
                    name: topic.name.clone(),
                    partitions: topic.partition_indexes.iter().map(row).collect(),
                }
            })
            .collect(),
        None => offsets
            .into_iter()
            .flatten()
            .map(|(topic, rows)| OffsetFetchResponseTopics {
                name: topic.clone(),
                partitions: rows.iter().map(|(index, row)| fetched(*index, Some(row))).collect(),
            })
            .collect(),
    };
    OffsetFetchResponseGroup { group_id: group.clone(), topics, ..OffsetFetchResponseGroup::default() }
}

fn fetched(index: i32, committed: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: committed.map_or(-1, |row| row.offset),
        committed_leader_epoch: committed.map_or(-1, |row| row.leader_epoch),
        metadata: Some(committed.map(|row| row.metadata.clone()).unwrap_or_default()),
        error_code: ErrorCode::None.into(),
    }
}

/// The groups an OffsetFetch of any version asks for, in the form of version 8 and up.
#[must_use]
pub fn offset_fetch_groups(request: OffsetFetchRequest, version: i16) -> Vec<OffsetFetchRequestGroup> {
    if version >= FETCH_VERSION_WITH_GROUPS {
        return request.groups;
    }
    let topics = request.topics.map(|topics| {
        let topic = topics.into_iter();
        topic.map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
        })
    });
    vec![OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics: topics.map(Iterator::collect),
        ..OffsetFetchRequestGroup::default()
    }]
}

/// The response of any version from the answers of its groups, which are in the order of
/// [`offset_fetch_groups`].
///
/// # Panics
/// If a version below 8 gets another number of groups than one.
#[must_use]
pub fn offset_fetch_response(mut groups: Vec<OffsetFetchResponseGroup>, version: i16) -> OffsetFetchResponse {
    if version >= FETCH_VERSION_WITH_GROUPS {
        return OffsetFetchResponse { groups, ..OffsetFetchResponse::default() };
    }
    assert_eq!(groups.len(), 1, "versions below {FETCH_VERSION_WITH_GROUPS} ask for one group");
    let group = groups.remove(0);
    let row = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    };
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(row).collect(),
    });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: group.error_code,
        ..OffsetFetchResponse::default()
    }
}

/// The answer of a version for a group that cannot be asked now: `code` for the group, or where there is no room for
/// that, at each partition it was asked for.
#[must_use]
pub fn offset_fetch_error(
    group: &OffsetFetchRequestGroup,
    code: ErrorCode,
    version: i16,
) -> OffsetFetchResponseGroup {
    // Below that version topics are never null.
    let topics = match version {
        ..FETCH_VERSION_WITH_GROUP_ERROR => group.topics.as_deref().unwrap_or_default(),
        _ => &[],
    };
    let mut response = fetch(&group.group_id, None, Some(topics));
    response.error_code = code.into();
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    partitions.for_each(|partition| partition.error_code = code.into());
    response
}
