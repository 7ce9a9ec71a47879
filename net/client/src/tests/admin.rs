//! Administration against the broker in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use heizer_runtime::sim::block_on;
use heizer_runtime::time::{now, timeout};
use heizer_wire::ErrorCode;
use heizer_wire::messages::RequestBody;

use super::broker::Broker;
use super::{client, member, record};
use crate::{
    Admin, Client, ClientError, ConfigChange, ConfigResource, OffsetAt, Producer, ProducerConfig,
    TopicPartition,
};

fn key(topic: &str, partition: i32) -> TopicPartition {
    (topic.to_owned(), partition)
}

/// Sends this many records to each partition, in order.
async fn fill(client: &Client, topic: &str, counts: &[usize]) {
    let producer = Producer::new(client, ProducerConfig::default());
    for (partition, &count) in counts.iter().enumerate() {
        for at in 0..count {
            let mut record = record(topic, None, &at.to_string());
            record.partition = Some(partition as i32);
            producer.send(record).await.expect("sent");
        }
    }
}

#[test]
fn a_change_is_asked_for_again_only_where_it_had_no_effect() {
    block_on(1, async {
        let (broker, addr) = Broker::start(3);
        let admin = Admin::new(&client(&addr));
        *broker.refusals.borrow_mut() = vec![ErrorCode::NotController, ErrorCode::NotController];
        admin.create_partitions("t", 6, false).await.expect("the third time");
        let asked = std::mem::take(&mut *broker.asked.borrow_mut());
        assert_eq!(asked.len(), 3);
        for request in asked {
            let RequestBody::CreatePartitions(request) = request else { panic!("{request:?}") };
            assert_eq!((&*request.topics[0].name, request.topics[0].count), ("t", 6));
            assert!(!request.validate_only);
        }
        broker.refusals.borrow_mut().push(ErrorCode::RequestTimedOut);
        let error = admin.create_partitions("t", 7, true).await.expect_err("it may have had an effect");
        assert_eq!(error.code(), Some(ErrorCode::RequestTimedOut));
        assert_eq!(broker.asked.borrow().len(), 1);
    });
}

#[test]
fn settings_are_set_and_returned_to_their_defaults() {
    block_on(2, async {
        let (broker, addr) = Broker::start(1);
        let admin = Admin::new(&client(&addr));
        let changes = [
            ConfigChange { name: "a".to_owned(), value: Some("1".to_owned()) },
            ConfigChange { name: "b".to_owned(), value: None },
        ];
        let resources = [
            (ConfigResource::Topic("t".to_owned()), (2, "t")),
            (ConfigResource::Broker(0), (4, "0")),
            (ConfigResource::Brokers, (4, "")),
        ];
        for (resource, on_the_wire) in resources {
            broker.refusals.borrow_mut().push(ErrorCode::NotController);
            admin.alter_configs(&resource, &changes, true).await.expect("the second time");
            let asked = std::mem::take(&mut *broker.asked.borrow_mut());
            let [_, RequestBody::IncrementalAlterConfigs(request)] = &asked[..] else { panic!("{asked:?}") };
            let named = &request.resources[0];
            assert_eq!((named.resource_type, &*named.resource_name), on_the_wire);
            let operations: Vec<_> = named
                .configs
                .iter()
                .map(|config| (&*config.name, config.config_operation, config.value.as_deref()))
                .collect();
            assert_eq!(operations, [("a", 0, Some("1")), ("b", 1, None)]);
            assert!(request.validate_only);
            let entries = admin.configs(&resource).await.expect("described");
            assert_eq!((&*entries[0].name, entries[0].value.as_deref()), ("retention.ms", Some("7")));
            broker.asked.borrow_mut().clear();
        }
        broker.refusals.borrow_mut().push(ErrorCode::InvalidConfig);
        let error =
            admin.alter_configs(&ConfigResource::Brokers, &changes, false).await.expect_err("refused");
        assert!(error.to_string().contains("all brokers: INVALID_CONFIG"), "{error}");
        let missing = admin.configs(&ConfigResource::Broker(9)).await;
        assert!(matches!(missing, Err(ClientError::UnknownBroker(9))), "{missing:?}");
    });
}

#[test]
fn every_partition_has_its_own_answer_and_what_is_not_there_is_not_waited_for() {
    block_on(3, async {
        let (broker, addr) = Broker::start(2);
        let client = client(&addr);
        fill(&client, "t", &[3, 1]).await;
        fill(&client, "u", &[2]).await;
        let admin = Admin::new(&client);
        broker.refusals.borrow_mut().push(ErrorCode::NotLeaderOrFollower);
        let start = now();
        let asked = [key("t", 0), key("t", 1), key("u", 0), key("t", 7), key("nowhere", 0)];
        let ends = admin.list_offsets_at(asked, OffsetAt::Latest).await;
        assert!(now() - start < Duration::from_secs(2));
        let offsets: Vec<Option<i64>> = [key("t", 0), key("t", 1), key("u", 0)]
            .iter()
            .map(|key| ends[key].as_ref().expect("there").offset)
            .collect();
        assert_eq!(offsets, [Some(3), Some(1), Some(2)]);
        let missing = &ends[&key("t", 7)];
        assert!(matches!(missing, Err(ClientError::UnknownPartition { count: 2, .. })), "{missing:?}");
        assert!(matches!(&ends[&key("nowhere", 0)], Err(ClientError::UnknownTopic(_))));
        let none = admin.list_offsets_at([key("t", 0)], OffsetAt::Timestamp(5)).await;
        assert_eq!(none[&key("t", 0)].as_ref().expect("asked").offset, None);
    });
}

#[test]
fn records_are_deleted_below_an_offset_or_all_there_are() {
    block_on(4, async {
        let (broker, addr) = Broker::start(3);
        let client = client(&addr);
        fill(&client, "t", &[3, 4, 5]).await;
        let admin = Admin::new(&client);
        broker.refusals.borrow_mut().push(ErrorCode::NotLeaderOrFollower);
        let below = BTreeMap::from([(key("t", 0), Some(2)), (key("t", 1), None), (key("t", 2), Some(6))]);
        let outcomes = admin.delete_records(&below).await;
        assert_eq!(*outcomes[&key("t", 0)].as_ref().expect("deleted"), 2);
        assert_eq!(*outcomes[&key("t", 1)].as_ref().expect("deleted"), 4);
        let error = outcomes[&key("t", 2)].as_ref().expect_err("beyond the end");
        assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
        assert!(error.to_string().contains("DeleteRecords of t-2"), "{error}");
    });
}

#[test]
fn a_group_is_described_with_what_its_members_have() {
    block_on(5, async {
        let (broker, addr) = Broker::start(3);
        let client = client(&addr);
        fill(&client, "t", &[1, 1, 1]).await;
        let admin = Admin::new(&client);
        assert_eq!(admin.describe_group("g").await.expect("asked"), None);
        let mut reader = member(&client);
        let read = async {
            let mut seen = 0;
            while seen < 3 {
                seen += reader.poll(Duration::from_secs(1)).await.expect("poll").len();
            }
        };
        timeout(Duration::from_secs(20), read).await.expect("read");
        reader.commit().await.expect("committed");
        broker.refusals.borrow_mut().push(ErrorCode::CoordinatorLoadInProgress);
        let group = admin.describe_group("g").await.expect("the second time").expect("it is there");
        assert_eq!((&*group.state, &*group.assignor, group.members.len()), ("Stable", "range", 1));
        assert_eq!(group.coordinator, addr);
        assert_eq!(group.members[0].member_id, reader.member_id());
        assert_eq!(group.members[0].topics, ["t"]);
        assert_eq!(group.members[0].partitions, [key("t", 0), key("t", 1), key("t", 2)]);
        let offsets = admin.group_offsets("g").await.expect("asked");
        assert_eq!(offsets.values().map(|found| found.offset).collect::<Vec<_>>(), [1, 1, 1]);
        // Not from outside, while it is read.
        let new = BTreeMap::from([(key("t", 0), 0)]);
        let outcomes = admin.set_group_offsets("g", &new).await.expect("asked");
        let error = outcomes[&key("t", 0)].as_ref().expect_err("it has a member");
        assert_eq!(error.code(), Some(ErrorCode::UnknownMemberId));
        let error = admin.delete_group("g").await.expect_err("it has a member");
        assert_eq!(error.code(), Some(ErrorCode::NonEmptyGroup));
        reader.close().await.expect("left");
    });
}

#[test]
fn offsets_of_a_group_without_members_are_set_and_deleted() {
    block_on(6, async {
        let (broker, addr) = Broker::start(2);
        let admin = Admin::new(&client(&addr));
        let new = BTreeMap::from([(key("t", 0), 5), (key("t", 1), 6), (key("u", 0), 7)]);
        let outcomes = admin.set_group_offsets("g", &new).await.expect("asked");
        assert!(outcomes.len() == 3 && outcomes.values().all(Result::is_ok), "{outcomes:?}");
        let found = admin.group_offsets("g").await.expect("asked");
        assert_eq!(
            found.into_iter().map(|(key, found)| (key, found.offset)).collect::<BTreeMap<_, _>>(),
            new
        );
        broker.refusals.borrow_mut().push(ErrorCode::NotCoordinator);
        let gone = [key("u", 0), key("t", 1), key("t", 9)];
        let outcomes = admin.delete_group_offsets("g", &gone).await;
        // What is not there is told of each partition.
        let outcomes = outcomes.expect("the second time");
        assert!(outcomes[&key("u", 0)].is_ok() && outcomes[&key("t", 1)].is_ok());
        assert_eq!(
            outcomes[&key("t", 9)].as_ref().expect_err("not committed").code(),
            Some(ErrorCode::UnknownTopicOrPartition)
        );
        assert_eq!(broker.commits.borrow().len(), 1);
        admin.delete_group("g").await.expect("deleted");
        let error = admin.delete_group("g").await.expect_err("gone");
        assert_eq!(error.code(), Some(ErrorCode::GroupIdNotFound));
    });
}

#[test]
fn groups_are_listed_by_name_in_the_states_asked_for() {
    block_on(7, async {
        let (_broker, addr) = Broker::start(1);
        let admin = Admin::new(&client(&addr));
        let names = |groups: Vec<crate::GroupListing>| -> Vec<String> {
            groups.into_iter().map(|group| group.group_id).collect()
        };
        assert_eq!(names(admin.groups(&[]).await.expect("asked")), ["g", "h"]);
        assert_eq!(names(admin.groups(&["Empty"]).await.expect("asked")), ["h"]);
    });
}

#[test]
fn a_cluster_is_described_down_to_its_directories() {
    block_on(8, async {
        let (_broker, addr) = Broker::start(1);
        let admin = Admin::new(&client(&addr));
        let cluster = admin.describe_cluster().await.expect("asked");
        assert_eq!((&*cluster.cluster_id, cluster.controller_id), ("c", 0));
        assert_eq!((&cluster.brokers[0].addr, cluster.brokers[0].rack.as_deref()), (&addr, Some("r1")));
        assert!(admin.features().await.expect("asked").is_empty(), "an old broker has none");
        let dirs = admin.log_dirs(0).await.expect("asked");
        assert_eq!((dirs[0].usable_bytes, dirs[0].replicas[0].bytes), (Some(400), 512));
        assert_eq!((dirs[1].error, dirs[1].usable_bytes), (ErrorCode::KafkaStorageError, None));
        assert!(matches!(admin.log_dirs(4).await, Err(ClientError::UnknownBroker(4))));
    });
}
