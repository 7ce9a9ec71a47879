//! Another number of cores: everything that was there is there, on whichever core it lives now.

use std::collections::BTreeMap;

use heizer_wire::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup,
};

use crate::cluster::{Cluster, connect};
use crate::kafka::{self, ask, assert_code, batch};
use crate::seeds;
use heizer_wire::ErrorCode;

const PARTITIONS: i32 = 7;
const GROUPS: [&str; 5] = ["g0", "g1", "g2", "g3", "g4"];

/// Everything that a round adds: a topic, a record to every partition of every topic, a commit of every group.
async fn add(round: i64) {
    let connection = connect().await;
    kafka::create(&connection, &format!("topic-{round}"), PARTITIONS, &[]).await;
    for topic in 0..=round {
        for partition in 0..PARTITIONS {
            let value = format!("{topic}/{partition}/{round}");
            let base =
                kafka::produced(&connection, &format!("topic-{topic}"), partition, batch(&[&value])).await;
            assert_eq!(base, round - topic);
        }
    }
    for group in GROUPS {
        let partitions = vec![OffsetCommitRequestPartition {
            partition_index: 3,
            committed_offset: 100 + round,
            committed_metadata: Some(format!("{group} in round {round}").into()),
            ..Default::default()
        }];
        let topics = vec![OffsetCommitRequestTopic { name: "topic-0".into(), partitions }];
        let request = OffsetCommitRequest { group_id: group.into(), topics, ..Default::default() };
        crate::groups::find_coordinator(&connection, group).await;
        let answer = ask(&connection, &request).await;
        assert_code(answer.topics[0].partitions[0].error_code, ErrorCode::None);
    }
}

/// Everything that the rounds up to `round` have added, and nothing else.
async fn check(round: i64) {
    let connection = connect().await;
    for topic in 0..=round {
        for partition in 0..PARTITIONS {
            let read = kafka::read_all(&connection, &format!("topic-{topic}"), partition).await;
            let expected: Vec<_> =
                (topic..=round).map(|at| (at - topic, format!("{topic}/{partition}/{at}"))).collect();
            assert_eq!(read, expected);
        }
    }
    for group in GROUPS {
        crate::groups::find_coordinator(&connection, group).await;
        let groups =
            vec![OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() }];
        let mut answer = ask(&connection, &OffsetFetchRequest { groups, ..Default::default() }).await;
        let found = answer.groups.remove(0);
        assert_code(found.error_code, ErrorCode::None);
        let committed: BTreeMap<_, _> = found
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|p| ((&*topic.name, p.partition_index), p)))
            .collect();
        assert_eq!(committed.len(), 1, "{committed:?}");
        let partition = committed[&("topic-0", 3)];
        assert_eq!(partition.committed_offset, 100 + round);
        assert_eq!(partition.metadata.as_deref(), Some(&*format!("{group} in round {round}")));
    }
}

/// DESIGN 7: after a change of layout the old streams are rewritten under the new one.
#[test]
fn topics_records_and_groups_move_with_the_number_of_cores() {
    seeds::each("topics_records_and_groups_move", 2, |seed| {
        for clean in [true, false] {
            let mut cluster = Cluster::with(seed, 1, &[]);
            cluster.run(add(0));
            for (round, cores) in [(1, 2), (2, 3), (3, 1), (4, 2)] {
                if clean {
                    cluster.stop()
                } else {
                    cluster.sim.crash(cluster.broker)
                }
                cluster.start_with_cores(cores);
                cluster.run(check(round - 1));
                cluster.run(add(round));
                cluster.run(check(round));
            }
            assert!(cluster.exists("raft/4/core-1"), "one generation for each change");
            assert!(!cluster.exists("raft/3"), "what was before is gone");
            cluster.expect_warning("cut the end off a");
            cluster.finish();
        }
    });
}

/// A move that is cut short at any moment, once or twice, loses nothing, whatever layout comes after.
#[test]
fn a_move_may_be_cut_short() {
    seeds::each("a_move_may_be_cut_short", 15, |seed| {
        let mut choices = seeds::Choices::new(seed);
        let mut cluster = Cluster::with(seed, 2, &[]);
        cluster.run(add(0));
        cluster.stop();
        for _ in 0..2 {
            cluster.start_with_cores(1 + choices.below(3) as usize);
            cluster.sim.run_for(choices.micros(100..15_000));
            cluster.sim.crash(cluster.broker);
        }
        cluster.start_with_cores(1 + choices.below(3) as usize);
        cluster.run(check(0));
        cluster.run(add(1));
        cluster.run(check(1));
        let left = (0..5).filter(|generation| cluster.exists(&format!("raft/{generation}"))).count();
        assert_eq!(left, 1, "one generation is left");
        cluster.expect_warning("cut the end off a");
        cluster.finish();
    });
}
