//! DeleteRecords (KIP-107): what clients find afterwards, and what stays deleted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use heizer_client::Connection;
use heizer_runtime::{random, task, time};
use heizer_wire::ErrorCode;

use crate::cluster::{Cluster, connect};
use crate::groups::find_coordinator;
use crate::kafka::{
    self, ALL, EARLIEST, LATEST, assert_code, batch, decoded, delete_records, delete_records_request,
    fetch_one, list_offset, produced, read_all,
};
use crate::seeds::{self, Choices};

/// The offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// What is left of "t" begins at these offsets, partition after partition, and ends at 10.
async fn check(starts: &[i64]) {
    let connection = connect().await;
    for (partition, &start) in (0..).zip(starts) {
        let earliest = list_offset(&connection, "t", partition, EARLIEST).await;
        assert_eq!((earliest.error_code, earliest.offset), (0, start), "partition {partition}");
        assert_eq!(list_offset(&connection, "t", partition, LATEST).await.offset, 10);
        let by_time = list_offset(&connection, "t", partition, 0).await.offset;
        assert_eq!(by_time, if start < 10 { start } else { -1 });
        for offset in 0..start {
            let below = fetch_one(&connection, "t", partition, offset).await;
            assert_code(below.error_code, ErrorCode::OffsetOutOfRange);
            assert!(decoded(&below.records).is_empty());
        }
        let expected: Vec<_> = (start..10).map(|at| (at, at.to_string())).collect();
        assert_eq!(read_all(&connection, "t", partition).await, expected);
        let data = fetch_one(&connection, "t", partition, start).await;
        assert_eq!((data.error_code, data.log_start_offset, data.high_watermark), (0, start, 10));
    }
}

#[test]
fn deleted_records_are_out_of_range_at_once_and_after_every_restart() {
    let mut cluster = Cluster::new(1);
    cluster.expect_warning("cut the end off a");
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 4, &[]).await;
        for partition in 0..4 {
            for at in 0..10 {
                produced(&connection, "t", partition, batch(&[&at.to_string()])).await;
            }
        }
        let none = ErrorCode::None;
        let deleted = delete_records(&connection, "t", &[(0, 4), (1, HIGH_WATERMARK), (2, 0), (3, 10)]).await;
        assert_eq!(deleted, [(none, 4), (none, 10), (none, 0), (none, 10)]);
        check(&[4, 10, 0, 10]).await;
        // Less is no error, and changes nothing.
        let deleted = delete_records(&connection, "t", &[(0, 2), (3, 0)]).await;
        assert_eq!(deleted, [(none, 4), (none, 10)]);
        check(&[4, 10, 0, 10]).await;
    });
    let cleanly = |cluster: &mut Cluster| {
        cluster.stop();
        cluster.start();
    };
    let restarts: [fn(&mut Cluster); 3] = [Cluster::kill, Cluster::crash, cleanly];
    for restart in restarts {
        restart(&mut cluster);
        cluster.run(check(&[4, 10, 0, 10]));
    }
    cluster.run(async {
        let connection = connect().await;
        for partition in 0..4 {
            assert_eq!(produced(&connection, "t", partition, batch(&["new"])).await, 10, "offsets go on");
            assert_eq!(read_all(&connection, "t", partition).await.last(), Some(&(10, "new".to_owned())));
        }
    });
    cluster.finish();
}

#[test]
fn every_partition_has_its_own_refusal() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let connection = connect().await;
        for (topic, policy) in [("t", "delete"), ("compacted", "compact"), ("both", "compact,delete")] {
            kafka::create(&connection, topic, 2, &[("cleanup.policy", policy)]).await;
            for partition in 0..2 {
                produced(&connection, topic, partition, batch(&["a", "b", "c"])).await;
            }
        }
        find_coordinator(&connection, "g").await;
        const UNKNOWN: ErrorCode = ErrorCode::UnknownTopicOrPartition;
        /// A topic, what of it is asked for by partition, and the answers with their low watermarks.
        type Case = (&'static str, &'static [(i32, i64)], &'static [(ErrorCode, i64)]);
        let table: [Case; 6] = [
            ("absent", &[(0, 0), (5, -1)], &[(UNKNOWN, -1), (UNKNOWN, -1)]),
            ("t", &[(7, 0), (-1, 0), (1, 1)], &[(UNKNOWN, -1), (UNKNOWN, -1), (ErrorCode::None, 1)]),
            ("t", &[(0, 4), (0, -2), (0, i64::MAX), (0, i64::MIN)], &[(ErrorCode::OffsetOutOfRange, -1); 4]),
            (
                "__consumer_offsets",
                &[(0, 0), (99, 0)],
                &[(ErrorCode::InvalidTopicException, -1), (UNKNOWN, -1)],
            ),
            ("compacted", &[(0, 1), (1, HIGH_WATERMARK)], &[(ErrorCode::PolicyViolation, -1); 2]),
            ("both", &[(0, 1), (1, HIGH_WATERMARK)], &[(ErrorCode::None, 1), (ErrorCode::None, 3)]),
        ];
        for version in 0..=2 {
            let mut request = delete_records_request("", &[]);
            request.topics.clear();
            for (topic, below, _) in table {
                request.topics.append(&mut delete_records_request(topic, below).topics);
            }
            let answer = kafka::ask_at(&connection, version, &request).await;
            assert_eq!(answer.topics.len(), table.len());
            for (found, (topic, below, expected)) in answer.topics.iter().zip(table) {
                let rows = found.partitions.iter();
                let rows: Vec<_> = rows.map(|row| (row.partition_index, row.low_watermark)).collect();
                let expected_rows: Vec<_> =
                    below.iter().zip(expected).map(|((at, _), (_, low))| (*at, *low)).collect();
                assert_eq!((&*found.name, rows), (topic, expected_rows), "version {version}");
                for (row, (code, _)) in found.partitions.iter().zip(expected) {
                    assert_code(row.error_code, *code);
                }
            }
        }
        assert_eq!(read_all(&connection, "compacted", 0).await.len(), 3);
        assert_eq!(list_offset(&connection, "t", 0, EARLIEST).await.offset, 0);
    });
    cluster.finish();
}

/// Which segments with these bases there are of a partition of "t".
fn there(cluster: &mut Cluster, bases: [i64; 4]) -> [bool; 4] {
    bases.map(|base| cluster.exists(&format!("t-0/{base:020}.log")))
}

#[test]
fn segments_below_the_log_start_go_soon() {
    const BASES: [i64; 4] = [0, 2, 4, 6];
    let mut cluster = Cluster::new(3);
    let delete = |cluster: &mut Cluster, below: i64, start: i64| {
        cluster.run(async move {
            let deleted = delete_records(&connect().await, "t", &[(0, below)]).await;
            assert_eq!(deleted, [(ErrorCode::None, start)]);
            // Retention looks at all partitions every five minutes.
            time::sleep(Duration::from_secs(2)).await;
        });
    };
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 1, &[("segment.bytes", "1048576")]).await;
        let value = "v".repeat(350_000);
        for base in BASES {
            assert_eq!(produced(&connection, "t", 0, batch(&[&value, &value])).await, base);
        }
    });
    delete(&mut cluster, 1, 1);
    assert_eq!(there(&mut cluster, BASES), [true; 4], "one is in use from its middle on");
    delete(&mut cluster, 5, 5);
    assert_eq!(there(&mut cluster, BASES), [false, false, true, true]);
    delete(&mut cluster, HIGH_WATERMARK, 8);
    assert_eq!(there(&mut cluster, BASES), [false; 4]);
    cluster.run(async {
        let connection = connect().await;
        assert_eq!(produced(&connection, "t", 0, batch(&["next"])).await, 8);
        assert_eq!(read_all(&connection, "t", 0).await, [(8, "next".to_owned())]);
    });
    cluster.finish();
}

/// By partition: the furthest deletion asked for, and the furthest answered.
type Deletions = Rc<RefCell<BTreeMap<i32, (i64, i64)>>>;

/// Produces and deletes for as long as the broker answers.
async fn produce_and_delete(connection: Connection, partitions: i32, told: Deletions) {
    loop {
        let partition = random::below(partitions as u64) as i32;
        let request = kafka::produce_request("t", partition, ALL, batch(&["a", "b", "c"]));
        let Ok(answer) = connection.request_with(&request, 12, Duration::ZERO).await else { return };
        let row = &answer.responses[0].partition_responses[0];
        assert_code(row.error_code, ErrorCode::None);
        let below = row.base_offset + random::below(4) as i64;
        let (asked, answered) = told.borrow().get(&partition).copied().unwrap_or_default();
        told.borrow_mut().insert(partition, (asked.max(below), answered));
        let Ok(answer) = connection.request(&delete_records_request("t", &[(partition, below)])).await else {
            return;
        };
        let row = &answer.topics[0].partitions[0];
        assert_eq!((row.error_code, row.low_watermark), (0, below));
        told.borrow_mut().entry(partition).and_modify(|(_, answered)| *answered = below);
    }
}

#[test]
fn deletions_that_were_answered_survive_power_cuts_and_kills() {
    const PARTITIONS: i32 = 4;
    seeds::each("deletions_that_were_answered", 12, |seed| {
        let mut choices = Choices::new(seed);
        let mut cluster = Cluster::with(seed, 1 + choices.below(3) as usize, &[]);
        cluster.expect_warning("cut the end off a");
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "t", PARTITIONS, &[("segment.bytes", "1048576")]).await;
        });
        let mut told = Deletions::default();
        for _ in 0..4 {
            let telling = told.clone();
            cluster.run(async move {
                let connection = connect().await;
                drop(task::spawn(produce_and_delete(connection, PARTITIONS, telling)));
            });
            cluster.sim.run_for(choices.micros(10_000..200_000));
            if choices.below(3) == 0 {
                cluster.kill()
            } else {
                cluster.crash()
            }
            // Answers that are still on their way tell the one that asked, and nobody else.
            told = Rc::new(RefCell::new(told.take()));
            let checked = told.borrow().clone();
            cluster.run(async move {
                let connection = connect().await;
                for (partition, (asked, answered)) in checked {
                    let start = list_offset(&connection, "t", partition, EARLIEST).await.offset;
                    let right = (answered..=asked).contains(&start);
                    assert!(right, "{partition}: {start}, of {answered} answered and {asked} asked");
                    let records = read_all(&connection, "t", partition).await;
                    // The log may start within a batch, which comes whole.
                    let begins = |(first, _): &(i64, String)| (start - 2..=start).contains(first);
                    assert!(records.first().is_none_or(begins), "{partition}: {records:?} from {start} on");
                }
            });
        }
        assert!(told.borrow().values().any(|(_, answered)| *answered > 0), "something was deleted");
        cluster.finish();
    });
}

/// KIP-113: the copy takes over what was deleted while it was made.
#[test]
fn a_deletion_during_a_move_counts_in_the_new_place() {
    let settings = [
        ("log.dirs", "/var/lib/heizer,/disk1"),
        ("replica.alter.log.dirs.io.max.bytes.per.second", "200000"),
    ];
    let mut cluster = Cluster::with(5, 2, &settings);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 2, &[]).await;
        for partition in 0..2 {
            for _ in 0..30 {
                produced(&connection, "t", partition, batch(&[&"v".repeat(20_000)])).await;
            }
        }
        for (partition, path) in
            [(0, "/disk1"), (1, "/disk1"), (0, "/var/lib/heizer"), (1, "/var/lib/heizer")]
        {
            let moving = kafka::move_to(&connection, path, "t", std::slice::from_ref(&partition));
            let deleting = async {
                let start = list_offset(&connection, "t", partition, EARLIEST).await.offset;
                for below in start + 1..=start + 10 {
                    time::sleep(Duration::from_millis(200)).await;
                    let deleted = delete_records(&connection, "t", &[(partition, below)]).await;
                    assert_eq!(deleted, [(ErrorCode::None, below)]);
                }
                start + 10
            };
            let ((), start) = futures::join!(moving, deleting);
            let records = read_all(&connection, "t", partition).await;
            assert_eq!(records.first().map(|(offset, _)| *offset), Some(start));
        }
    });
    cluster.stop();
    cluster.start();
    cluster.run(async {
        let connection = connect().await;
        for partition in 0..2 {
            assert_eq!(list_offset(&connection, "t", partition, EARLIEST).await.offset, 20);
            assert_eq!(read_all(&connection, "t", partition).await.len(), 10);
        }
    });
    cluster.finish();
}
