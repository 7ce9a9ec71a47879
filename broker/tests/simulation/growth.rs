//! Topics that grow.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use heizer_client::Connection;
use heizer_runtime::{task, time};
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic, FindCoordinatorRequest,
};

use crate::cluster::{Cluster, connect};
use crate::kafka::{self, ask, assert_code, batch, describe};
use crate::seeds;

fn growth(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let one = |brokers: &&[i32]| CreatePartitionsAssignment { broker_ids: brokers.to_vec() };
    let assignments = assignments.map(|all| all.iter().map(one).collect());
    CreatePartitionsTopic { name: name.into(), count, assignments }
}

fn request(topics: Vec<CreatePartitionsTopic>, validate_only: bool) -> CreatePartitionsRequest {
    CreatePartitionsRequest { topics, timeout_ms: 30_000, validate_only }
}

/// Names and codes in the order of the answer; every refusal has a sentence.
async fn grow_all(
    connection: &Connection,
    topics: Vec<CreatePartitionsTopic>,
    validate_only: bool,
) -> Vec<(String, ErrorCode)> {
    let answer = ask(connection, &request(topics, validate_only)).await;
    let row = |result: &heizer_wire::messages::CreatePartitionsTopicResult| {
        assert_eq!(result.error_code == 0, result.error_message.is_none(), "{result:?}");
        (result.name.to_string(), ErrorCode::from_code(result.error_code))
    };
    answer.results.iter().map(row).collect()
}

async fn grow(connection: &Connection, name: &str, count: i32) {
    let grown = grow_all(connection, vec![growth(name, count, None)], false).await;
    assert_eq!(grown, [(name.to_owned(), ErrorCode::None)]);
}

async fn partitions(connection: &Connection, name: &str) -> usize {
    describe(connection, name).await.partitions.len()
}

#[test]
fn when_the_answer_comes_every_new_partition_is_led_and_takes_records() {
    let mut cluster = Cluster::with(1, 3, &[]);
    cluster.expect_warning("cut the end off a");
    cluster.run(async {
        let (asking, other) = (connect().await, connect().await);
        kafka::create(&asking, "t", 2, &[("max.message.bytes", "5000")]).await;
        for partition in 0..2 {
            kafka::produced(&asking, "t", partition, batch(&["before"])).await;
        }
        for count in [3, 17] {
            grow(&asking, "t", count).await;
            // Without a second try, whatever core answers.
            let described = describe(&other, "t").await;
            assert_eq!(described.partitions.len(), count as usize);
            assert!(
                described.partitions.iter().all(|p| p.error_code == 0 && p.leader_id == 1),
                "{described:?}"
            );
            for partition in 0..count {
                kafka::produced(&other, "t", partition, batch(&["after"])).await;
            }
        }
        let large = "x".repeat(6_000);
        let refused = kafka::produce(&other, "t", 16, kafka::ALL, batch(&[&large])).await;
        assert_code(refused.error_code, ErrorCode::MessageTooLarge);
    });
    for crash in [false, true] {
        if crash {
            cluster.crash();
        } else {
            cluster.stop();
            cluster.start();
        }
        cluster.run(async {
            let connection = connect().await;
            assert_eq!(partitions(&connection, "t").await, 17);
            for partition in 0..17 {
                let records: Vec<_> = kafka::read_all(&connection, "t", partition).await;
                let values: Vec<_> = records.iter().map(|(_, value)| value.as_str()).collect();
                let expected: &[&str] = match partition {
                    0..2 => &["before", "after", "after"],
                    2 => &["after", "after"],
                    _ => &["after"],
                };
                assert_eq!(values, expected, "partition {partition}");
            }
        });
    }
    cluster.finish();
}

#[test]
fn growth_that_cannot_be_is_refused_and_changes_nothing() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 2, &[]).await;
        // It is made for the first who looks for a coordinator.
        let single = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        while kafka::ask_at(&connection, 3, &single).await.error_code != 0 {
            time::sleep(Duration::from_millis(5)).await;
        }
        let cases: [(CreatePartitionsTopic, ErrorCode); 12] = [
            (growth("nobody", 3, None), ErrorCode::UnknownTopicOrPartition),
            (growth("", 3, None), ErrorCode::UnknownTopicOrPartition),
            (growth("t", 2, None), ErrorCode::InvalidPartitions),
            (growth("t", 1, None), ErrorCode::InvalidPartitions),
            (growth("t", -1, None), ErrorCode::InvalidPartitions),
            (growth("t", i32::MAX, None), ErrorCode::InvalidPartitions),
            (growth("t", 3, Some(&[])), ErrorCode::InvalidReplicaAssignment),
            (growth("t", 3, Some(&[&[1], &[1]])), ErrorCode::InvalidReplicaAssignment),
            (growth("t", 3, Some(&[&[7]])), ErrorCode::InvalidReplicaAssignment),
            (growth("t", 3, Some(&[&[1, 1]])), ErrorCode::InvalidReplicaAssignment),
            (growth("t", 3, Some(&[&[]])), ErrorCode::InvalidReplicaAssignment),
            // contract G3: groups would look for their offsets elsewhere.
            (growth("__consumer_offsets", 4, None), ErrorCode::InvalidPartitions),
        ];
        for validate_only in [true, false] {
            for (topic, code) in &cases {
                let refused = grow_all(&connection, vec![topic.clone()], validate_only).await;
                assert_eq!(refused, [(topic.name.to_string(), *code)], "{topic:?}");
            }
        }
        let dry = grow_all(&connection, vec![growth("t", 9, None)], true).await;
        assert_eq!(dry, [("t".to_owned(), ErrorCode::None)]);
        assert_eq!(partitions(&connection, "t").await, 2);
        assert_eq!(partitions(&connection, "__consumer_offsets").await, 3);
        // Named twice: refused once; the others of the request grow, and be it as the client says.
        kafka::create(&connection, "u", 1, &[]).await;
        let topics = vec![growth("t", 3, None), growth("u", 3, Some(&[&[1], &[1]])), growth("t", 4, None)];
        let mut grown = grow_all(&connection, topics, false).await;
        grown.sort_unstable();
        let expected = [("t".to_owned(), ErrorCode::InvalidRequest), ("u".to_owned(), ErrorCode::None)];
        assert_eq!(grown, expected);
        assert_eq!((partitions(&connection, "t").await, partitions(&connection, "u").await), (2, 3));
        // Every version says the same.
        for version in 0..=3 {
            let request = request(vec![growth("u", 4 + i32::from(version), None)], false);
            let answer = kafka::ask_at(&connection, version, &request).await;
            assert_eq!((answer.results.len(), answer.results[0].error_code), (1, 0));
        }
        assert_eq!(partitions(&connection, "u").await, 7);
    });
    cluster.finish();
}

#[test]
fn partitions_are_added_while_others_are_written_to() {
    seeds::each("partitions_are_added_while_others", 10, |seed| {
        let mut cluster = Cluster::with(seed, 2, &[]);
        let done = Rc::new(Cell::new(0));
        let told = done.clone();
        cluster.run(async move {
            let connection = connect().await;
            kafka::create(&connection, "t", 2, &[]).await;
            for partition in 0..2 {
                let told = told.clone();
                task::spawn(async move {
                    let connection = connect().await;
                    for number in 0..60 {
                        let records = batch(&[&number.to_string()]);
                        assert_eq!(kafka::produced(&connection, "t", partition, records).await, number);
                        time::sleep(Duration::from_micros(300)).await;
                    }
                    told.set(told.get() + 1);
                });
            }
            // Two at once to one number: one of them grows, the other one finds it grown.
            for count in [3, 5, 9] {
                let (one, other) = (connect().await, connect().await);
                let grown = async |connection: &Connection| {
                    grow_all(connection, vec![growth("t", count, None)], false).await.remove(0).1
                };
                let (one, other) = futures::future::join(grown(&one), grown(&other)).await;
                let mut codes = [one, other];
                codes.sort_unstable();
                assert_eq!(codes, [ErrorCode::None, ErrorCode::InvalidPartitions]);
                assert_eq!(partitions(&connection, "t").await, count as usize);
                kafka::produced(&connection, "t", count - 1, batch(&["new"])).await;
            }
        });
        let deadline = cluster.sim.now() + Duration::from_secs(60);
        while done.get() < 2 {
            assert!(cluster.sim.now() < deadline, "the producers come to their end");
            cluster.sim.run_for(Duration::from_millis(5));
        }
        cluster.crash();
        cluster.expect_warning("cut the end off a");
        cluster.run(async {
            let connection = connect().await;
            for partition in 0..2 {
                assert_eq!(kafka::read_all(&connection, "t", partition).await.len(), 60);
            }
            for partition in [2, 4, 8] {
                assert_eq!(kafka::read_all(&connection, "t", partition).await.len(), 1);
            }
        });
        cluster.finish();
    });
}

/// The cluster group has decided, and the power goes before the shard groups have taken over: the next start finishes it.
#[test]
fn a_growth_that_a_crash_cuts_short_is_done_or_undone_by_the_next_start() {
    let (mut unacknowledged, mut undone) = (0, 0);
    // The first operation is the one that decides: by the seed it is done or not.
    for (seed, at) in (41..=56).map(|seed| (seed, 1)).chain((1..=40).map(|at| (at, at))) {
        let mut cluster = Cluster::with(seed, 2, &[]);
        cluster.expect_warning("cut the end off a");
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "t", 2, &[]).await;
            kafka::produced(&connection, "t", 1, batch(&["old"])).await;
        });
        cluster.sim.crash_at_disk_operation(cluster.broker, at);
        let acknowledged = Rc::new(RefCell::new(false));
        let telling = acknowledged.clone();
        cluster.run(async move {
            task::spawn(async move {
                let connection = connect().await;
                let request = request(vec![growth("t", 8, None)], false);
                let answer = connection.request_with(&request, i16::MAX, Duration::from_secs(600)).await;
                if let Ok(answer) = answer {
                    assert_code(answer.results[0].error_code, ErrorCode::None);
                    *telling.borrow_mut() = true;
                }
            });
        });
        cluster.sim.run_for(Duration::from_millis(500));
        cluster.sim.cancel_end(cluster.broker);
        cluster.crash();
        let count = cluster.run(async {
            let connection = connect().await;
            let described = describe(&connection, "t").await;
            assert!(described.partitions.iter().all(|p| p.error_code == 0), "{described:?}");
            let count = described.partitions.len();
            for partition in 0..count as i32 {
                kafka::produced(&connection, "t", partition, batch(&["new"])).await;
            }
            assert_eq!(kafka::read_all(&connection, "t", 1).await.len(), 2);
            if count == 2 {
                grow(&connection, "t", 8).await;
            }
            count
        });
        match (count, *acknowledged.borrow()) {
            (8, true) => {}
            (8, false) => unacknowledged += 1,
            (2, false) => undone += 1,
            other => panic!("seed {seed}, operation {at}: {other:?}"),
        }
        cluster.finish();
    }
    assert!(unacknowledged > 0 && undone > 0, "{unacknowledged} finished, {undone} undone");
}
