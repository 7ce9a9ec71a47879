//! What administrators ask of the broker in memory.

use bytes::Bytes;
use heizer_wire::messages::*;
use heizer_wire::{ApiKey, ErrorCode, RequestHeader};

use super::Broker;

impl Broker {
    /// Notes the request, and answers it, or refuses it as it was told to.
    pub(super) fn administer(
        &self,
        header: &RequestHeader,
        key: ApiKey,
        request: RequestBody,
    ) -> Option<Vec<Bytes>> {
        self.asked.borrow_mut().push(request.clone());
        let error_code = self.refusals.borrow_mut().pop().unwrap_or(ErrorCode::None).code();
        match request {
            RequestBody::CreatePartitions(request) => {
                let results = request.topics.into_iter().map(|topic| {
                    let name = topic.name;
                    CreatePartitionsTopicResult { name, error_code, ..Default::default() }
                });
                let response = CreatePartitionsResponse { results: results.collect(), ..Default::default() };
                self.encode(header, key, &response)
            }
            RequestBody::IncrementalAlterConfigs(request) => {
                let responses = request.resources.into_iter().map(|resource| {
                    let (resource_type, resource_name) = (resource.resource_type, resource.resource_name);
                    IncrementalAlterConfigsResourceResponse {
                        error_code,
                        resource_type,
                        resource_name,
                        ..Default::default()
                    }
                });
                let responses = responses.collect();
                self.encode(header, key, &IncrementalAlterConfigsResponse { responses, ..Default::default() })
            }
            RequestBody::DescribeConfigs(request) => {
                self.encode(header, key, &describe_configs(request, error_code))
            }
            RequestBody::DeleteRecords(request) => {
                self.encode(header, key, &self.delete_records(&request, error_code))
            }
            RequestBody::ListGroups(_) => self.encode(header, key, &list_groups()),
            RequestBody::DescribeGroups(request) => {
                self.encode(header, key, &self.describe_groups(request, error_code))
            }
            RequestBody::DeleteGroups(request) => {
                self.encode(header, key, &self.delete_groups(request, error_code))
            }
            RequestBody::OffsetDelete(request) => {
                self.encode(header, key, &self.offset_delete(&request, error_code))
            }
            RequestBody::DescribeCluster(_) => self.encode(header, key, &self.describe_cluster()),
            RequestBody::DescribeLogDirs(_) => self.encode(header, key, &describe_log_dirs()),
            _ => None,
        }
    }

    fn delete_records(&self, request: &DeleteRecordsRequest, error_code: i16) -> DeleteRecordsResponse {
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let end = self.end_offset(&topic.name, asked.partition_index);
                let beyond = if asked.offset > end { ErrorCode::OffsetOutOfRange.code() } else { error_code };
                DeleteRecordsPartitionResult {
                    partition_index: asked.partition_index,
                    low_watermark: if asked.offset < 0 { end } else { asked.offset },
                    error_code: beyond,
                }
            });
            DeleteRecordsTopicResult { name: topic.name.clone(), partitions: partitions.collect() }
        });
        DeleteRecordsResponse { topics: topics.collect(), ..Default::default() }
    }

    fn describe_groups(&self, request: DescribeGroupsRequest, error_code: i16) -> DescribeGroupsResponse {
        let group = self.group.borrow();
        let groups = request.groups.into_iter().map(|group_id| {
            if group.members.is_empty() && error_code == 0 {
                let error_code = ErrorCode::GroupIdNotFound.code();
                return DescribedGroup { error_code, group_id, ..Default::default() };
            }
            let members = group.members.iter().map(|(id, metadata)| DescribedGroupMember {
                member_id: id.as_str().into(),
                client_id: "app".into(),
                client_host: "/127.0.0.1".into(),
                member_metadata: metadata.clone(),
                member_assignment: group.assignments.get(id).cloned().unwrap_or_default(),
                ..Default::default()
            });
            DescribedGroup {
                error_code,
                group_id,
                group_state: "Stable".into(),
                protocol_type: "consumer".into(),
                protocol_data: "range".into(),
                members: members.collect(),
                ..Default::default()
            }
        });
        DescribeGroupsResponse { groups: groups.collect(), ..Default::default() }
    }

    fn delete_groups(&self, request: DeleteGroupsRequest, error_code: i16) -> DeleteGroupsResponse {
        let has_members = !self.group.borrow().members.is_empty();
        let results = request.groups_names.into_iter().map(|group_id| {
            let error_code = match () {
                _ if error_code != 0 => error_code,
                _ if has_members => ErrorCode::NonEmptyGroup.code(),
                _ if self.commits.borrow().is_empty() => ErrorCode::GroupIdNotFound.code(),
                _ => {
                    self.commits.borrow_mut().clear();
                    0
                }
            };
            DeletableGroupResult { group_id, error_code }
        });
        DeleteGroupsResponse { results: results.collect(), ..Default::default() }
    }

    fn offset_delete(&self, request: &OffsetDeleteRequest, error_code: i16) -> OffsetDeleteResponse {
        if error_code != 0 {
            return OffsetDeleteResponse { error_code, ..Default::default() };
        }
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let partition_index = asked.partition_index;
                let key = (topic.name.to_string(), partition_index);
                let found = self.commits.borrow_mut().remove(&key).is_some();
                let error_code = if found { 0 } else { ErrorCode::UnknownTopicOrPartition.code() };
                OffsetDeleteResponsePartition { partition_index, error_code }
            });
            OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() }
        });
        OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
    }

    fn describe_cluster(&self) -> DescribeClusterResponse {
        let broker = DescribeClusterBroker {
            host: "127.0.0.1".into(),
            port: self.port.get().into(),
            rack: Some("r1".into()),
            ..Default::default()
        };
        DescribeClusterResponse {
            cluster_id: "c".into(),
            controller_id: 0,
            brokers: vec![broker],
            ..Default::default()
        }
    }
}

fn describe_configs(request: DescribeConfigsRequest, error_code: i16) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        let config = DescribeConfigsResourceResult {
            name: "retention.ms".into(),
            value: Some("7".into()),
            config_source: 1,
            ..Default::default()
        };
        DescribeConfigsResult {
            error_code,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            configs: vec![config],
            ..Default::default()
        }
    });
    DescribeConfigsResponse { results: results.collect(), ..Default::default() }
}

/// Two groups, whatever states are asked for, as brokers did before the filter.
fn list_groups() -> ListGroupsResponse {
    let listed = |name: &str, state: &str| ListedGroup {
        group_id: name.into(),
        protocol_type: "consumer".into(),
        group_state: state.into(),
        group_type: "classic".into(),
    };
    ListGroupsResponse { groups: vec![listed("h", "Empty"), listed("g", "Stable")], ..Default::default() }
}

fn describe_log_dirs() -> DescribeLogDirsResponse {
    let partition = DescribeLogDirsPartition { partition_size: 512, ..Default::default() };
    let topic = DescribeLogDirsTopic { name: "t".into(), partitions: vec![partition] };
    let healthy = DescribeLogDirsResult {
        log_dir: "/d1".into(),
        topics: vec![topic],
        total_bytes: 1000,
        usable_bytes: 400,
        ..Default::default()
    };
    let failed = DescribeLogDirsResult {
        error_code: ErrorCode::KafkaStorageError.code(),
        log_dir: "/d2".into(),
        ..Default::default()
    };
    DescribeLogDirsResponse { results: vec![healthy, failed], ..Default::default() }
}
