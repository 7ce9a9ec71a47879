//! What there is, told a page at a time or by kind.

use heizer_client::Connection;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DescribeClusterRequest, DescribeTopicPartitionsCursor, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, DescribeTopicPartitionsTopic, ListConfigResourcesRequest,
};

use crate::cluster::{Cluster, connect};
use crate::kafka::{self, ask, ask_at, assert_code, describe};

/// Topic and partition to begin with.
type Place<'a> = (&'a str, i32);

fn pages(topics: &[&str], limit: i32, cursor: Option<Place<'_>>) -> DescribeTopicPartitionsRequest {
    let topic = |name: &&str| DescribeTopicPartitionsTopic { name: (*name).into() };
    DescribeTopicPartitionsRequest {
        topics: topics.iter().map(topic).collect(),
        response_partition_limit: limit,
        cursor: cursor.map(|(topic_name, partition_index)| DescribeTopicPartitionsCursor {
            topic_name: topic_name.into(),
            partition_index,
        }),
    }
}

/// Each topic with its code and its partitions, and where the next page begins, in one line.
fn shown(answer: &DescribeTopicPartitionsResponse) -> String {
    let mut words = Vec::new();
    for topic in &answer.topics {
        let name = topic.name.as_deref().unwrap_or("nameless");
        let indexes: Vec<String> = topic.partitions.iter().map(|p| p.partition_index.to_string()).collect();
        words.push(match topic.error_code {
            0 => format!("{name}:{}", indexes.join(",")),
            code => format!("{name}!{}", ErrorCode::from_code(code)),
        });
    }
    if let Some(next) = &answer.next_cursor {
        words.push(format!("then {}:{}", next.topic_name, next.partition_index));
    }
    words.join(" ")
}

async fn page(connection: &Connection, topics: &[&str], limit: i32, cursor: Option<Place<'_>>) -> String {
    shown(&ask(connection, &pages(topics, limit, cursor)).await)
}

async fn make_topics(connection: &Connection) {
    for (name, partitions) in [("c", 1), ("a", 3), ("b", 2)] {
        kafka::create(connection, name, partitions, &[]).await;
    }
}

/// KIP-966
#[test]
fn topics_are_described_page_by_page_in_the_order_of_their_names() {
    let mut cluster = Cluster::with(1, 2, &[("max.request.partition.size.limit", "5")]);
    cluster.run(async {
        let connection = connect().await;
        make_topics(&connection).await;
        let table: [(&[&str], i32, Option<Place<'_>>, &str); 18] = [
            (&[], 5, None, "a:0,1,2 b:0,1 then c:0"),
            // The broker's own limit.
            (&[], 2_000, None, "a:0,1,2 b:0,1 then c:0"),
            (&[], 5, Some(("c", 0)), "c:0"),
            (&[], 2, None, "a:0,1 then a:2"),
            (&[], 2, Some(("a", 2)), "a:2 b:0 then b:1"),
            (&[], 3, Some(("a", 0)), "a:0,1,2 then b:0"),
            (&[], 0, None, "a:0 then a:1"),
            (&[], -9, None, "a:0 then a:1"),
            (&[], 5, Some(("aa", 7)), "b:0,1 c:0"),
            (&[], 5, Some(("zzz", 0)), ""),
            (&[], 5, Some(("b", 9)), "b: c:0"),
            (&["c", "a"], 5, None, "a:0,1,2 c:0"),
            (&["c", "a", "c"], 3, None, "a:0,1,2 then c:0"),
            (
                &["c", "nobody", "a/b"],
                5,
                None,
                "a/b!INVALID_TOPIC_EXCEPTION c:0 nobody!UNKNOWN_TOPIC_OR_PARTITION",
            ),
            (&["b", "c"], 5, Some(("c", 0)), "c:0"),
            (&["b", "c"], 5, Some(("a", 0)), "b!INVALID_REQUEST c!INVALID_REQUEST"),
            (&["b"], 5, Some(("b", -1)), "b!INVALID_REQUEST"),
            (&[], 5, Some(("b", -1)), "b!INVALID_REQUEST"),
        ];
        for (topics, limit, cursor, expected) in table {
            let found = page(&connection, topics, limit, cursor).await;
            assert_eq!(found, expected, "{topics:?} {limit} {cursor:?}");
        }
        // Page after page it is everything once.
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let place = cursor.as_ref().map(|(name, index): &(String, i32)| (name.as_str(), *index));
            let answer = ask(&connection, &pages(&[], 2, place)).await;
            for topic in answer.topics {
                let name = topic.name.expect("a name").to_string();
                all.extend(topic.partitions.into_iter().map(|p| (name.clone(), p.partition_index)));
            }
            let Some(next) = answer.next_cursor else { break };
            cursor = Some((next.topic_name.to_string(), next.partition_index));
        }
        let expected = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("c", 0)];
        assert_eq!(all, expected.map(|(name, index)| (name.to_owned(), index)));
    });
    cluster.finish();
}

#[test]
fn a_page_says_of_each_partition_what_metadata_does() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let connection = connect().await;
        make_topics(&connection).await;
        let known = describe(&connection, "a").await;
        let found = ask(&connection, &pages(&["a"], 100, None)).await.topics.remove(0);
        assert_eq!((found.topic_id, found.is_internal), (known.topic_id, false));
        assert_eq!(found.partitions.len(), 3);
        for (page, metadata) in found.partitions.iter().zip(&known.partitions) {
            assert_eq!((page.partition_index, page.error_code), (metadata.partition_index, 0));
            assert_eq!((page.leader_id, page.leader_epoch), (metadata.leader_id, metadata.leader_epoch));
            assert_eq!(
                (&page.replica_nodes, &page.isr_nodes),
                (&metadata.replica_nodes, &metadata.isr_nodes)
            );
            assert_eq!(
                (page.eligible_leader_replicas.as_deref(), &*page.offline_replicas),
                (Some(&[][..]), &[][..])
            );
        }
    });
    cluster.finish();
}

/// KIP-1142
#[test]
fn what_has_settings_is_listed_by_kind() {
    let mut cluster = Cluster::new(3);
    cluster.run(async {
        let connection = connect().await;
        make_topics(&connection).await;
        let list = async |version: i16, kinds: &[i8]| {
            let request = ListConfigResourcesRequest { resource_types: kinds.to_vec() };
            let answer = ask_at(&connection, version, &request).await;
            let row = |row: &heizer_wire::messages::ListedConfigResource| {
                format!("{} {}", row.resource_type, row.resource_name)
            };
            (
                ErrorCode::from_code(answer.error_code),
                answer.config_resources.iter().map(row).collect::<Vec<_>>(),
            )
        };
        let rows =
            |rows: &[&str]| (ErrorCode::None, rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>());
        assert_eq!(list(0, &[]).await, rows(&[]), "of client metrics there are none");
        assert_eq!(list(1, &[]).await, rows(&["2 a", "2 b", "2 c", "4 1"]));
        assert_eq!(list(1, &[2]).await, rows(&["2 a", "2 b", "2 c"]));
        assert_eq!(list(1, &[4, 4]).await, rows(&["4 1"]));
        assert_eq!(list(1, &[8, 16, 32]).await, rows(&[]));
        for unknown in [&[0][..], &[2, 99], &[-1]] {
            assert_eq!(list(1, unknown).await, (ErrorCode::UnsupportedVersion, vec![]));
        }
    });
    cluster.finish();
}

#[test]
fn a_cluster_is_described_by_its_brokers_and_not_by_its_controllers() {
    let mut cluster = Cluster::new(4);
    cluster.run(async {
        let connection = connect().await;
        for version in 0..=2 {
            for (endpoint_type, code) in [
                (1, ErrorCode::None),
                (2, ErrorCode::MismatchedEndpointType),
                (0, ErrorCode::UnsupportedEndpointType),
                (9, ErrorCode::UnsupportedEndpointType),
            ] {
                let request = DescribeClusterRequest {
                    include_cluster_authorized_operations: true,
                    endpoint_type,
                    include_fenced_brokers: true,
                };
                let answer = ask_at(&connection, version, &request).await;
                // Version 0 has no other endpoints.
                let code = if version == 0 { ErrorCode::None } else { code };
                assert_code(answer.error_code, code);
                let brokers: Vec<_> =
                    answer.brokers.iter().map(|b| (b.broker_id, &*b.host, b.port)).collect();
                if code == ErrorCode::None {
                    assert_eq!(brokers, [(1, "10.0.0.1", 9092)]);
                    assert_eq!((answer.controller_id, answer.cluster_id.len()), (1, 22));
                    assert!(answer.brokers.iter().all(|broker| !broker.is_fenced));
                } else {
                    assert!(brokers.is_empty() && answer.error_message.is_some());
                }
            }
        }
    });
    cluster.finish();
}
