//! Topics come, are described and go.

use std::collections::BTreeSet;

use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    CreatableReplicaAssignment, CreatableTopic, DeleteTopicState, DeleteTopicsRequest,
    DescribeConfigsRequest, DescribeConfigsResource, MetadataRequest, MetadataRequestTopic,
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use uuid::Uuid;

use crate::cluster::{Cluster, connect};
use crate::kafka::{self, ask, assert_code, batch, create_topics, describe, new_topic};

/// contract P7
#[test]
fn metadata_creates_a_topic_where_it_may() {
    let mut cluster = Cluster::with(1, 2, &[("num.partitions", "5")]);
    cluster.run(async {
        let connection = connect().await;
        let named = |name: &str, allow: bool| MetadataRequest {
            topics: Some(vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }]),
            allow_auto_topic_creation: allow,
            ..Default::default()
        };
        assert_code(describe(&connection, "auto").await.error_code, ErrorCode::UnknownTopicOrPartition);
        let first = ask(&connection, &named("auto", true)).await.topics.remove(0);
        let code = ErrorCode::from_code(first.error_code);
        assert!(code == ErrorCode::None || code.retriable(), "{code}");
        let second = ask(&connection, &named("auto", false)).await.topics.remove(0);
        assert_code(second.error_code, ErrorCode::None);
        assert_eq!(second.partitions.len(), 5);
        for (index, partition) in (0..).zip(&second.partitions) {
            assert_eq!((partition.partition_index, partition.error_code), (index, 0));
            assert_eq!(partition.replica_nodes, [partition.leader_id]);
            assert_eq!(partition.isr_nodes, [partition.leader_id]);
            assert_eq!(kafka::produced(&connection, "auto", index, batch(&["x"])).await, 0);
        }
        let bad = ask(&connection, &named("a b", true)).await.topics.remove(0);
        assert_code(bad.error_code, ErrorCode::InvalidTopicException);
        // Old versions, that cannot say whether, create.
        let old = kafka::ask_at(&connection, 3, &named("old", false)).await.topics.remove(0);
        assert!(old.error_code == 0 || ErrorCode::from_code(old.error_code).retriable());
        let all = ask(&connection, &MetadataRequest { topics: None, ..Default::default() }).await;
        let names: BTreeSet<_> = all.topics.iter().filter_map(|topic| topic.name.as_deref()).collect();
        assert_eq!(names, BTreeSet::from(["auto", "old"]));
        let [broker] = all.brokers.as_slice() else { panic!("{:?}", all.brokers) };
        assert_eq!((&*broker.host, broker.port), ("10.0.0.1", 9092));
        assert_eq!(all.controller_id, broker.node_id);
        assert_eq!(all.cluster_id.expect("a cluster has an id").len(), 22);
    });
    cluster.finish();
}

#[test]
fn metadata_creates_nothing_where_the_broker_forbids_it() {
    let mut cluster = Cluster::with(2, 2, &[("auto.create.topics.enable", "false")]);
    cluster.run(async {
        let connection = connect().await;
        let topic = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        for _ in 0..2 {
            let answer = ask(&connection, &request).await.topics.remove(0);
            assert_code(answer.error_code, ErrorCode::UnknownTopicOrPartition);
        }
    });
    cluster.finish();
}

/// contract P6
#[test]
fn topic_ids_agree_and_a_new_topic_of_an_old_name_has_another() {
    let mut cluster = Cluster::new(3);
    cluster.run(async {
        let connection = connect().await;
        let created = create_topics(&connection, vec![new_topic("t", 2, &[])], false).await.remove(0);
        let described = describe(&connection, "t").await;
        assert!(!created.topic_id.is_nil());
        assert_eq!(created.topic_id, described.topic_id);
        let by_id = |topic_id| MetadataRequest {
            topics: Some(vec![MetadataRequestTopic { topic_id, name: None }]),
            ..Default::default()
        };
        let found = ask(&connection, &by_id(created.topic_id)).await.topics.remove(0);
        assert_eq!((found.error_code, found.name.as_deref()), (0, Some("t")));
        let unknown = ask(&connection, &by_id(Uuid::from_u128(9))).await.topics.remove(0);
        assert_code(unknown.error_code, ErrorCode::UnknownTopicId);
        let produce = |topic_id| ProduceRequest {
            acks: -1,
            timeout_ms: 1_000,
            topic_data: vec![TopicProduceData {
                topic_id,
                partition_data: vec![PartitionProduceData { index: 1, records: Some(batch(&["x"])) }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = ask(&connection, &produce(created.topic_id)).await.responses.remove(0);
        assert_eq!((answer.topic_id, answer.partition_responses[0].error_code), (created.topic_id, 0));
        let answer = ask(&connection, &produce(Uuid::from_u128(9))).await.responses.remove(0);
        assert_code(answer.partition_responses[0].error_code, ErrorCode::UnknownTopicId);
        // Deleted and made anew: another topic, which is empty.
        assert_code(kafka::delete(&connection, "t").await.error_code, ErrorCode::None);
        assert_code(describe(&connection, "t").await.error_code, ErrorCode::UnknownTopicOrPartition);
        kafka::create(&connection, "t", 2, &[]).await;
        assert_ne!(describe(&connection, "t").await.topic_id, created.topic_id);
        assert_eq!(kafka::read_all(&connection, "t", 1).await, []);
        let answer = ask(&connection, &produce(created.topic_id)).await.responses.remove(0);
        assert_code(answer.partition_responses[0].error_code, ErrorCode::UnknownTopicId);
    });
    cluster.finish();
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |&(partition_index, brokers): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index,
        broker_ids: brokers.to_vec(),
    };
    CreatableTopic { assignments: assignments.iter().map(assignment).collect(), ..new_topic(name, -1, &[]) }
}

#[test]
fn a_topic_that_cannot_be_is_refused_and_leaves_nothing() {
    let mut cluster = Cluster::new(4);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "there.now", 1, &[]).await;
        let broker = describe(&connection, "there.now").await.partitions[0].leader_id;
        let factor = |factor| CreatableTopic { replication_factor: factor, ..new_topic("f", 1, &[]) };
        let both = CreatableTopic { num_partitions: 1, ..assigned("b", &[(0, &[broker])]) };
        let long = "x".repeat(250);
        let cases = [
            (new_topic("there.now", 1, &[]), ErrorCode::TopicAlreadyExists),
            (new_topic("there_now", 1, &[]), ErrorCode::InvalidTopicException),
            (new_topic("", 1, &[]), ErrorCode::InvalidTopicException),
            (new_topic("..", 1, &[]), ErrorCode::InvalidTopicException),
            (new_topic("a/b", 1, &[]), ErrorCode::InvalidTopicException),
            (new_topic(&long, 1, &[]), ErrorCode::InvalidTopicException),
            (new_topic("zero", 0, &[]), ErrorCode::InvalidPartitions),
            (new_topic("minus", -2, &[]), ErrorCode::InvalidPartitions),
            (factor(2), ErrorCode::InvalidReplicationFactor),
            (factor(0), ErrorCode::InvalidReplicationFactor),
            (new_topic("c", 1, &[("no.such.setting", "1")]), ErrorCode::InvalidConfig),
            (new_topic("c", 1, &[("retention.ms", "soon")]), ErrorCode::InvalidConfig),
            (new_topic("c", 1, &[("cleanup.policy", "shred")]), ErrorCode::InvalidConfig),
            (assigned("gap", &[(0, &[broker]), (2, &[broker])]), ErrorCode::InvalidReplicaAssignment),
            (assigned("none", &[(0, &[])]), ErrorCode::InvalidReplicaAssignment),
            (assigned("twice", &[(0, &[broker, broker])]), ErrorCode::InvalidReplicaAssignment),
            (assigned("stranger", &[(0, &[broker + 1])]), ErrorCode::InvalidReplicaAssignment),
            (both, ErrorCode::InvalidRequest),
        ];
        for validate_only in [true, false] {
            for (topic, code) in &cases {
                let result = create_topics(&connection, vec![topic.clone()], validate_only).await.remove(0);
                let found = ErrorCode::from_code(result.error_code);
                assert_eq!(found, *code, "{topic:?}: {:?}", result.error_message);
                assert!(result.error_message.is_some(), "{topic:?}");
            }
        }
        // Named twice: refused once; the others of the request are made.
        let request = vec![new_topic("d", 1, &[]), new_topic("e", 1, &[]), new_topic("d", 2, &[])];
        let results = create_topics(&connection, request, false).await;
        let mut codes: Vec<_> = results.iter().map(|result| (&*result.name, result.error_code)).collect();
        codes.sort_unstable();
        assert_eq!(codes, [("d", i16::from(ErrorCode::InvalidRequest)), ("e", 0)]);
        let all = ask(&connection, &MetadataRequest { topics: None, ..Default::default() }).await;
        let names: BTreeSet<_> = all.topics.iter().filter_map(|topic| topic.name.as_deref()).collect();
        assert_eq!(names, BTreeSet::from(["there.now", "e"]));
    });
    cluster.finish();
}

#[test]
fn validate_only_makes_nothing_and_an_assignment_is_kept() {
    let mut cluster = Cluster::new(5);
    cluster.run(async {
        let connection = connect().await;
        let topic = new_topic("t", 3, &[("retention.ms", "1000")]);
        let dry = create_topics(&connection, vec![topic.clone()], true).await.remove(0);
        assert_eq!((dry.error_code, dry.num_partitions, dry.replication_factor), (0, 3, 1));
        assert_code(describe(&connection, "t").await.error_code, ErrorCode::UnknownTopicOrPartition);
        let made = create_topics(&connection, vec![topic], false).await.remove(0);
        assert_eq!((made.error_code, made.num_partitions, made.replication_factor), (0, 3, 1));
        let configs = made.configs.expect("the new topic's settings");
        let retention = configs.iter().find(|config| &*config.name == "retention.ms").expect("every setting");
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("1000"), 1));
        let broker = describe(&connection, "t").await.partitions[0].leader_id;
        let by_hand = assigned("hand", &[(1, &[broker]), (0, &[broker])]);
        assert_code(create_topics(&connection, vec![by_hand], false).await[0].error_code, ErrorCode::None);
        assert_eq!(describe(&connection, "hand").await.partitions.len(), 2);
    });
    cluster.finish();
}

#[test]
fn topics_are_deleted_by_name_and_by_id_and_only_once() {
    let mut cluster = Cluster::new(6);
    cluster.run(async {
        let connection = connect().await;
        for name in ["a", "b", "c"] {
            kafka::create(&connection, name, 4, &[]).await;
            kafka::produced(&connection, name, 3, batch(&["x"])).await;
        }
        let id = describe(&connection, "b").await.topic_id;
        let by_name = DeleteTopicState { name: Some("a".into()), ..Default::default() };
        let by_id = DeleteTopicState { name: None, topic_id: id };
        let nobody = DeleteTopicState { name: Some("nobody".into()), ..Default::default() };
        let stranger = DeleteTopicState { name: None, topic_id: Uuid::from_u128(9) };
        let topics = vec![by_name, by_id, nobody, stranger];
        let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        let answer = ask(&connection, &request).await;
        let codes: Vec<_> = answer.responses.iter().map(|r| ErrorCode::from_code(r.error_code)).collect();
        let unknown = [ErrorCode::UnknownTopicOrPartition, ErrorCode::UnknownTopicId];
        assert_eq!(codes, [ErrorCode::None, ErrorCode::None, unknown[0], unknown[1]]);
        let old = DeleteTopicsRequest {
            topic_names: vec!["c".into(), "a".into()],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let answer = kafka::ask_at(&connection, 4, &old).await;
        let codes: Vec<_> = answer.responses.iter().map(|r| ErrorCode::from_code(r.error_code)).collect();
        assert_eq!(codes, [ErrorCode::None, unknown[0]]);
        let all = ask(&connection, &MetadataRequest { topics: None, ..Default::default() }).await;
        assert!(all.topics.is_empty(), "{:?}", all.topics);
    });
    for topic in ["a", "b", "c"] {
        assert!(!cluster.exists(&format!("{topic}-3")), "files of {topic}");
    }
    cluster.finish();
}

/// contract P9
#[test]
fn every_setting_is_described_with_source_type_and_synonyms() {
    let mut cluster = Cluster::with(7, 2, &[("log.retention.ms", "7000")]);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 1, &[("max.message.bytes", "5000")]).await;
        let resource = |resource_type, name: &str, keys: Option<&[&str]>| DescribeConfigsResource {
            resource_type,
            resource_name: name.into(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).into()).collect()),
        };
        let request = DescribeConfigsRequest {
            resources: vec![
                resource(2, "t", None),
                resource(2, "t", Some(&["retention.ms"])),
                resource(2, "absent", None),
            ],
            include_synonyms: true,
            include_documentation: true,
        };
        let answer = ask(&connection, &request).await;
        let [all, one, absent] = answer.results.as_slice() else { panic!("{answer:?}") };
        assert_code(absent.error_code, ErrorCode::UnknownTopicOrPartition);
        let find = |name: &str| all.configs.iter().find(|config| &*config.name == name).expect("described");
        let own = find("max.message.bytes");
        assert_eq!((own.value.as_deref(), own.config_source, own.config_type), (Some("5000"), 1, 3));
        let sources: Vec<_> = own.synonyms.iter().map(|synonym| (&*synonym.name, synonym.source)).collect();
        assert_eq!(sources, [("max.message.bytes", 1), ("message.max.bytes", 5)]);
        assert!(own.documentation.is_some() && !own.read_only && !own.is_sensitive);
        let inherited = find("retention.ms");
        assert_eq!((inherited.value.as_deref(), inherited.config_source), (Some("7000"), 4));
        let default = find("cleanup.policy");
        assert_eq!((default.value.as_deref(), default.config_source), (Some("delete"), 5));
        let names: Vec<_> = one.configs.iter().map(|config| &*config.name).collect();
        assert_eq!(names, ["retention.ms"]);
    });
    cluster.finish();
}
