//! Several data directories: where partitions go, what a failed directory takes with it, and moves between them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use heizer_client::Connection;
use heizer_runtime::{fs, task, time};
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResult,
};

use crate::cluster::{Cluster, DATA_DIR, connect};
use crate::kafka::{
    self, ALL, assert_code, batch, describe_log_dirs, fetch_one, move_to, produced, read_all,
};
use crate::seeds;

const DISK1: &str = "/disk1";
const DISK2: &str = "/disk2";
const TWO: (&str, &str) = ("log.dirs", "/var/lib/heizer,/disk1");
const THREE: (&str, &str) = ("log.dirs", "/var/lib/heizer,/disk1,/disk2");

/// Path of the directory of every replica of a topic that is not a future one.
async fn places(connection: &Connection, topic: &str) -> BTreeMap<i32, String> {
    let mut places = BTreeMap::new();
    for result in describe_log_dirs(connection).await {
        for found in result.topics.iter().filter(|found| &*found.name == topic) {
            for partition in found.partitions.iter().filter(|partition| !partition.is_future_key) {
                let before = places.insert(partition.partition_index, result.log_dir.to_string());
                assert_eq!(before, None, "a partition is in one place");
            }
        }
    }
    places
}

fn of<'a>(results: &'a [DescribeLogDirsResult], path: &str) -> &'a DescribeLogDirsResult {
    results.iter().find(|result| &*result.log_dir == path).expect("every directory is described")
}

async fn produce_code(connection: &Connection, topic: &str, partition: i32) -> ErrorCode {
    ErrorCode::from_code(kafka::produce(connection, topic, partition, ALL, batch(&["x"])).await.error_code)
}

/// One record for each partition, its number.
async fn fill(connection: &Connection, topic: &str, partitions: i32) {
    for partition in 0..partitions {
        produced(connection, topic, partition, batch(&[&partition.to_string()])).await;
    }
}

async fn holds(connection: &Connection, topic: &str, partition: i32) -> bool {
    read_all(connection, topic, partition).await == [(0, partition.to_string())]
}

#[test]
fn new_partitions_are_spread_and_found_where_they_were_put() {
    let mut cluster = Cluster::with(1, 2, &[THREE]);
    let before = cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 30, &[]).await;
        fill(&connection, "t", 30).await;
        let places = places(&connection, "t").await;
        assert_eq!(places.len(), 30);
        for path in [DATA_DIR, DISK1, DISK2] {
            assert_eq!(places.values().filter(|place| *place == path).count(), 10, "{places:?}");
        }
        places
    });
    for clean in [true, false] {
        if clean {
            cluster.stop();
            cluster.start();
        } else {
            cluster.crash();
        }
        let before = before.clone();
        cluster.run(async move {
            let connection = connect().await;
            assert_eq!(places(&connection, "t").await, before);
            for partition in 0..30 {
                assert!(holds(&connection, "t", partition).await, "partition {partition}");
            }
        });
    }
    assert_eq!(cluster.logged("partitions are open").len(), 3);
    assert!(cluster.logged("partitions are open")[1].contains("clean=true"), "each directory has its marker");
    cluster.finish();
}

/// KIP-113, KIP-827
#[test]
fn directories_are_described_with_sizes_and_only_the_topics_asked_for() {
    let mut cluster = Cluster::with(2, 2, &[TWO]);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "a", 4, &[]).await;
        kafka::create(&connection, "b", 1, &[]).await;
        fill(&connection, "a", 4).await;
        let bytes = batch(&["0"]).len() as i64;
        let all = describe_log_dirs(&connection).await;
        let partitions = |results: &[DescribeLogDirsResult], topic: &str| -> Vec<DescribeLogDirsPartition> {
            let topics = results.iter().flat_map(|result| &result.topics);
            topics.filter(|found| &*found.name == topic).flat_map(|found| found.partitions.clone()).collect()
        };
        assert_eq!((all.len(), partitions(&all, "a").len(), partitions(&all, "b").len()), (2, 4, 1));
        for partition in partitions(&all, "a") {
            let DescribeLogDirsPartition { partition_size, offset_lag, is_future_key, .. } = partition;
            assert_eq!((partition_size, offset_lag, is_future_key), (bytes, 0, false));
        }
        for result in &all {
            assert!(0 < result.usable_bytes && result.usable_bytes < result.total_bytes, "{result:?}");
        }
        let topics = Some(vec![DescribableLogDirTopic { topic: "a".into(), partitions: vec![1, 3, 9] }]);
        let some = kafka::ask_at(&connection, 3, &DescribeLogDirsRequest { topics }).await.results;
        let mut indexes: Vec<i32> =
            partitions(&some, "a").iter().map(|found| found.partition_index).collect();
        indexes.sort_unstable();
        assert_eq!((some.len(), indexes, partitions(&some, "b").len()), (2, vec![1, 3], 0));
        assert_eq!(some[0].total_bytes, -1, "version 3 does not have it");
    });
    cluster.finish();
}

#[test]
fn a_directory_that_fails_takes_down_its_partitions_and_no_other() {
    let mut cluster = Cluster::with(3, 2, &[TWO]);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 4, &[]).await;
        kafka::create(&connection, "gone", 2, &[]).await;
        for topic in ["t", "gone"] {
            fill(&connection, topic, if topic == "t" { 4 } else { 2 }).await;
        }
        move_to(&connection, DATA_DIR, "t", &[0, 1]).await;
        move_to(&connection, DISK1, "t", &[2, 3]).await;
        move_to(&connection, DISK1, "gone", &[0]).await;
        move_to(&connection, DATA_DIR, "gone", &[1]).await;
        // What the moves have left behind is removed.
        time::sleep(Duration::from_secs(1)).await;
    });
    cluster.expect_warning("has failed and is offline");
    cluster.expect_warning("a data directory is offline");
    cluster.expect_warning("a partition is offline");
    cluster.sim.kill_device(cluster.broker, Path::new(DISK1));
    // At once, and after a start that does not find it.
    for restarted in [false, true] {
        if restarted {
            cluster.kill();
        }
        cluster.run(async move {
            let connection = connect().await;
            for partition in [2, 3] {
                assert_eq!(produce_code(&connection, "t", partition).await, ErrorCode::KafkaStorageError);
                let read = fetch_one(&connection, "t", partition, 0).await;
                assert_code(read.error_code, ErrorCode::KafkaStorageError);
            }
            for partition in [0, 1] {
                assert_eq!(produce_code(&connection, "t", partition).await, ErrorCode::None);
            }
            let described = describe_log_dirs(&connection).await;
            assert_code(of(&described, DISK1).error_code, ErrorCode::KafkaStorageError);
            assert_code(of(&described, DATA_DIR).error_code, ErrorCode::None);
            // New partitions go where they can be kept.
            let name = if restarted { "after" } else { "before" };
            kafka::create(&connection, name, 6, &[]).await;
            fill(&connection, name, 6).await;
            let codes = kafka::ask_to_move(&connection, DISK1, name, &[0]).await;
            assert_eq!(codes, [ErrorCode::KafkaStorageError]);
            if restarted {
                // A topic goes, although one half of it cannot be reached.
                assert_code(kafka::delete(&connection, "gone").await.error_code, ErrorCode::None);
                kafka::create(&connection, "gone", 2, &[]).await;
                assert_eq!(read_all(&connection, "gone", 0).await, []);
            }
        });
    }
    assert_eq!(cluster.logged("has failed and is offline").len(), 1);
    assert_eq!(cluster.logged("a data directory is offline").len(), 1);
    // It is back: with what it had, but for what was deleted meanwhile.
    cluster.sim.revive_device(cluster.broker, Path::new(DISK1));
    cluster.stop();
    cluster.start();
    cluster.run(async {
        let connection = connect().await;
        for partition in [2, 3] {
            assert!(holds(&connection, "t", partition).await, "partition {partition}");
        }
        for partition in [0, 1] {
            assert_eq!(read_all(&connection, "gone", partition).await, []);
            assert_eq!(read_all(&connection, "t", partition).await.len(), 3);
        }
        let described = describe_log_dirs(&connection).await;
        assert_code(of(&described, DISK1).error_code, ErrorCode::None);
    });
    cluster.finish();
}

#[test]
fn the_directory_with_the_metadata_is_indispensable() {
    for restart in [false, true] {
        let mut cluster = Cluster::with(4, 2, &[TWO, ("metadata.log.dir", DISK1)]);
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "t", 2, &[]).await;
            fill(&connection, "t", 2).await;
        });
        if restart {
            cluster.stop();
        } else {
            cluster.expect_warning("the broker cannot go on and stops");
        }
        cluster.sim.kill_device(cluster.broker, Path::new(DISK1));
        if restart {
            cluster.start();
        } else {
            cluster.expect_warning("raft");
            cluster.expect_warning("was not closed in good order");
            let client = cluster.client;
            // Whatever has to be written there tells.
            cluster.sim.run(client, async {
                let connection = connect().await;
                let topics = vec![kafka::new_topic("u", 4, &[])];
                task::spawn(async move { drop(kafka::create_topics(&connection, topics, false).await) });
                time::sleep(Duration::from_millis(1)).await;
            });
        }
        let reason = cluster.ends_by_itself();
        assert!(reason.contains(DISK1), "{reason}");
    }
}

/// A log that cannot be opened is offline by itself; deleting its topic clears it away.
#[test]
fn a_log_that_cannot_be_opened_takes_down_only_itself() {
    let mut cluster = Cluster::with(5, 2, &[TWO]);
    let places = cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 6, &[]).await;
        fill(&connection, "t", 6).await;
        places(&connection, "t").await
    });
    cluster.stop();
    let damaged: Vec<String> = [1, 4].iter().map(|index| format!("{}/t-{index}", places[index])).collect();
    let (paths, broker) = (damaged.clone(), cluster.broker);
    cluster.sim.run(broker, async move {
        fs::write_atomic(&Path::new(&paths[0]).join("partition.metadata"), b"garbage".to_vec())
            .await
            .expect("damaged");
        fs::remove_file(&Path::new(&paths[1]).join("partition.metadata")).await.expect("damaged");
        fs::sync_dir(Path::new(&paths[1])).await.expect("synced");
    });
    cluster.sim.kill(broker);
    cluster.expect_warning("a log cannot be opened: its partition is offline");
    cluster.start();
    cluster.run(async {
        let connection = connect().await;
        for partition in 0..6 {
            if partition == 1 || partition == 4 {
                assert_eq!(produce_code(&connection, "t", partition).await, ErrorCode::KafkaStorageError);
            } else {
                assert!(holds(&connection, "t", partition).await, "partition {partition}");
            }
        }
        assert_code(kafka::delete(&connection, "t").await.error_code, ErrorCode::None);
        kafka::create(&connection, "t", 1, &[]).await;
        fill(&connection, "t", 1).await;
    });
    assert_eq!(cluster.logged("a log cannot be opened").len(), 2, "a line for each");
    cluster.finish();
}

#[test]
fn an_empty_mount_point_is_not_taken_for_the_directory_that_was_there() {
    let mut cluster = Cluster::with(6, 2, &[TWO]);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 2, &[]).await;
        fill(&connection, "t", 2).await;
        move_to(&connection, DISK1, "t", &[0]).await;
        move_to(&connection, DATA_DIR, "t", &[1]).await;
    });
    cluster.stop();
    let rename = |cluster: &mut Cluster, from: &'static str, to: &'static str| {
        let broker = cluster.broker;
        cluster.sim.run(broker, async move {
            fs::rename(Path::new(from), Path::new(to)).await.expect("renamed");
            fs::create_dir_all(Path::new(from)).await.expect("made");
            fs::sync_dir(Path::new("/")).await.expect("synced");
        });
        cluster.sim.kill(broker);
    };
    rename(&mut cluster, DISK1, "/unmounted");
    cluster.expect_warning("is its file system mounted?");
    cluster.expect_warning("it may be in /disk1, which is missing");
    cluster.start();
    cluster.run(async {
        let connection = connect().await;
        assert_eq!(produce_code(&connection, "t", 0).await, ErrorCode::KafkaStorageError);
        assert!(holds(&connection, "t", 1).await);
    });
    cluster.stop();
    let broker = cluster.broker;
    cluster.sim.run(broker, async { fs::remove_dir_all(Path::new(DISK1)).await.expect("removed") });
    rename(&mut cluster, "/unmounted", DISK1);
    cluster.start();
    cluster.run(async {
        let connection = connect().await;
        assert!(holds(&connection, "t", 0).await && holds(&connection, "t", 1).await);
    });
    cluster.finish();
}

/// KIP-113
#[test]
fn what_cannot_be_moved_is_refused_with_kafkas_errors() {
    let mut cluster = Cluster::with(7, 2, &[TWO]);
    cluster.run(async {
        let connection = connect().await;
        let long = "x".repeat(230);
        kafka::create(&connection, "t", 1, &[]).await;
        kafka::create(&connection, &long, 1, &[]).await;
        let table = [
            ("/nowhere", "t", 0, ErrorCode::LogDirNotFound),
            ("disk1", "t", 0, ErrorCode::LogDirNotFound),
            (DISK1, "unknown", 0, ErrorCode::UnknownTopicOrPartition),
            (DISK1, "t", 1, ErrorCode::UnknownTopicOrPartition),
            (DISK1, "t", -1, ErrorCode::UnknownTopicOrPartition),
            (DISK1, &long, 0, ErrorCode::InvalidTopicException),
        ];
        for (path, topic, partition, code) in table {
            assert_eq!(
                kafka::ask_to_move(&connection, path, topic, &[partition]).await,
                [code],
                "{path} {topic}"
            );
        }
        // Where it is already: nothing to do.
        let place = places(&connection, "t").await[&0].clone();
        assert_eq!(kafka::ask_to_move(&connection, &place, "t", &[0]).await, [ErrorCode::None]);
        assert_eq!(places(&connection, "t").await[&0], place);
    });
    cluster.finish();
}

/// A move shows itself while it goes on, turns round when told to, and ends with its topic.
#[test]
fn a_move_is_described_turned_round_and_ended_by_deletion() {
    let slow = ("replica.alter.log.dirs.io.max.bytes.per.second", "1000");
    let mut cluster = Cluster::with(8, 2, &[THREE, slow]);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 1, &[]).await;
        let value = "v".repeat(1_000);
        for _ in 0..100 {
            produced(&connection, "t", 0, batch(&[&value])).await;
        }
        let home = places(&connection, "t").await[&0].clone();
        let others: Vec<&str> = [DATA_DIR, DISK1, DISK2].into_iter().filter(|path| *path != home).collect();
        for target in &others {
            assert_eq!(kafka::ask_to_move(&connection, target, "t", &[0]).await, [ErrorCode::None]);
            time::sleep(Duration::from_secs(5)).await;
            let described = describe_log_dirs(&connection).await;
            for path in [DATA_DIR, DISK1, DISK2] {
                let found: Vec<_> = of(&described, path).topics.iter().flat_map(|t| &t.partitions).collect();
                match path {
                    _ if path == *target => {
                        assert!(found[0].is_future_key && found[0].offset_lag > 0, "{found:?}");
                    }
                    _ if path == home => assert!(!found[0].is_future_key && found[0].offset_lag == 0),
                    _ => assert!(found.is_empty(), "{found:?}"),
                }
            }
        }
        // To where it is: the move ends.
        assert_eq!(kafka::ask_to_move(&connection, &home, "t", &[0]).await, [ErrorCode::None]);
        let described = describe_log_dirs(&connection).await;
        let all: Vec<_> = described.iter().flat_map(|d| &d.topics).flat_map(|t| &t.partitions).collect();
        assert!(all.len() == 1 && !all[0].is_future_key, "{all:?}");
        assert_eq!(kafka::ask_to_move(&connection, others[0], "t", &[0]).await, [ErrorCode::None]);
        time::sleep(Duration::from_secs(1)).await;
        assert_code(kafka::delete(&connection, "t").await.error_code, ErrorCode::None);
    });
    for path in [DATA_DIR, DISK1, DISK2] {
        let names = cluster.sim.run(cluster.broker, async move {
            fs::read_dir(Path::new(path))
                .await
                .expect("listed")
                .into_iter()
                .map(|e| e.name)
                .collect::<Vec<_>>()
        });
        assert!(!names.iter().any(|name| name.starts_with("t-")), "{names:?}");
    }
    cluster.finish();
}

/// Partitions move to and fro while they are produced to, and the broker dies again and again: nothing acknowledged is
/// lost or doubled, and every partition is in one place.
#[test]
fn moves_lose_nothing_whenever_the_broker_dies() {
    let moved = std::cell::Cell::new(0);
    seeds::each("moves_lose_nothing_whenever_the_broker_dies", 6, |seed| {
        let mut cluster = Cluster::with(seed, 2, &[THREE]);
        cluster.expect_warning("cut the end off a log");
        let mut acknowledged: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "t", 4, &[]).await;
        });
        for life in 0..4_u64 {
            let told = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
            let (telling, client) = (told.clone(), cluster.client);
            cluster.sim.run(client, async move {
                let connection = connect().await;
                for path in [DATA_DIR, DISK1, DISK2].into_iter().cycle().skip(life as usize).take(2) {
                    let connection = connect().await;
                    task::spawn(async move {
                        drop(kafka::ask_to_move(&connection, path, "t", &[0, 1, 2, 3]).await)
                    });
                }
                task::spawn(async move {
                    for number in 0..40 {
                        for partition in 0..4 {
                            let value = format!("{life}-{number}-{}", "v".repeat(500));
                            let answer =
                                kafka::produce(&connection, "t", partition, ALL, batch(&[&value])).await;
                            match ErrorCode::from_code(answer.error_code) {
                                ErrorCode::None => telling.borrow_mut().push((partition, value)),
                                code => assert!(code.retriable(), "{code}"),
                            }
                        }
                    }
                });
            });
            cluster.sim.run_for(Duration::from_micros(20_000 + (seed * 7_919 + life * 104_729) % 150_000));
            if life % 2 == 0 {
                cluster.crash()
            } else {
                cluster.kill()
            }
            for (partition, value) in told.take() {
                acknowledged.entry(partition).or_default().push(value);
            }
            let expected = acknowledged.clone();
            // The client's tasks of this life die with their connections.
            cluster.sim.kill(cluster.client);
            let found = cluster.run(async move {
                let connection = connect().await;
                let mut all = BTreeMap::new();
                for partition in 0..4 {
                    let found: Vec<String> = read_all(&connection, "t", partition)
                        .await
                        .into_iter()
                        .map(|(_, value)| value)
                        .collect();
                    let mut unique = found.clone();
                    unique.sort();
                    unique.dedup();
                    assert_eq!(unique.len(), found.len(), "nothing is doubled");
                    for value in expected.get(&partition).into_iter().flatten() {
                        assert!(found.contains(value), "{value:.8} of partition {partition} is lost");
                    }
                    all.insert(partition, found);
                }
                assert_eq!(places(&connection, "t").await.len(), 4);
                all
            });
            acknowledged = found;
        }
        moved.set(moved.get() + cluster.logged("moved a partition").len());
        cluster.finish();
    });
    assert!(moved.get() > 10, "{}", moved.get());
}
