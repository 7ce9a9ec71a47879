//! A disk that fills up under the whole broker: producers are told before it is full, and it goes on by itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use heizer_client::Connection;
use heizer_runtime::sim::DiskFaults;
use heizer_runtime::time;
use heizer_wire::ErrorCode;

use crate::cluster::{Cluster, connect};
use crate::kafka::{self, ALL, EARLIEST, LATEST, assert_code, batch};

const MIB: u64 = 1 << 20;
const FULL: &str = "the disk is full";
const RECOVERED: &str = "there is space again";

/// What the broker has acknowledged, by offset.
type Told = Rc<RefCell<BTreeMap<i64, String>>>;

fn set_capacity(cluster: &mut Cluster, capacity_bytes: u64) {
    let faults = DiskFaults { capacity_bytes, ..DiskFaults::default() };
    cluster.sim.set_disk_faults(cluster.broker, faults);
}

fn small(seed: u64, capacity_bytes: u64) -> Cluster {
    let mut cluster = Cluster::with(seed, 2, &[("heizer.disk.reserve.bytes", "2097152")]);
    set_capacity(&mut cluster, capacity_bytes);
    cluster.expect_warning(FULL);
    cluster
}

/// One record of some 20 kB: the answer's code.
async fn produce_one(connection: &Connection, topic: &str, number: usize, told: &Told) -> ErrorCode {
    let value = format!("{number:06}").repeat(3_500);
    let answer = kafka::produce(connection, topic, 0, ALL, batch(&[&value])).await;
    let code = ErrorCode::from_code(answer.error_code);
    if code == ErrorCode::None {
        told.borrow_mut().insert(answer.base_offset, value);
    }
    code
}

/// Produces until the broker refuses, and returns with which code.
async fn produce_until_refused(connection: &Connection, topic: &str, told: &Told) -> ErrorCode {
    for number in 0..5_000 {
        match produce_one(connection, topic, number, told).await {
            ErrorCode::None => {}
            code => return code,
        }
    }
    panic!("5,000 records and no end of the disk");
}

async fn produce_until_taken(connection: &Connection, topic: &str, told: &Told) {
    let deadline = time::now() + Duration::from_secs(30);
    loop {
        match produce_one(connection, topic, 0, told).await {
            ErrorCode::None => return,
            code => assert!(code.retriable() && time::now() < deadline, "{code}"),
        }
        time::sleep(Duration::from_millis(50)).await;
    }
}

/// Everything told is there, where it was told.
async fn check_told(connection: &Connection, topic: &str, told: &Told) {
    let found: BTreeMap<i64, String> = kafka::read_all(connection, topic, 0).await.into_iter().collect();
    for (offset, value) in told.borrow().iter() {
        assert_eq!(found.get(offset), Some(value), "{topic} at {offset}");
    }
}

/// contract P: KAFKA_STORAGE_ERROR is retriable, and nothing was appended when it comes.
#[test]
fn producers_are_refused_at_the_reserve_and_taken_again_when_a_topic_is_deleted() {
    let mut cluster = small(1, 24 * MIB);
    let told = Told::default();
    cluster.run({
        let told = told.clone();
        async move {
            let connection = connect().await;
            kafka::create(&connection, "kept", 1, &[("segment.bytes", "1048576")]).await;
            kafka::create(&connection, "doomed", 1, &[("segment.bytes", "1048576")]).await;
            let doomed = Told::default();
            for number in 0..200 {
                let code = produce_one(&connection, "doomed", number, &doomed).await;
                assert_eq!(code, ErrorCode::None);
            }
            let code = produce_until_refused(&connection, "kept", &told).await;
            assert_eq!(code, ErrorCode::KafkaStorageError);
            let end = kafka::list_offset(&connection, "kept", 0, LATEST).await.offset;
            assert_eq!(produce_one(&connection, "kept", 0, &told).await, ErrorCode::KafkaStorageError);
            assert_eq!(
                kafka::list_offset(&connection, "kept", 0, LATEST).await.offset,
                end,
                "nothing appended"
            );
            check_told(&connection, "kept", &told).await;
        }
    });
    assert_eq!(cluster.logged(FULL).len(), 1, "one line for both cores");
    assert!(cluster.logged(FULL)[0].contains("missing_bytes"));
    assert_eq!(cluster.logged(RECOVERED).len(), 0);
    cluster.run(async move {
        let connection = connect().await;
        assert_code(kafka::delete(&connection, "doomed").await.error_code, ErrorCode::None);
        produce_until_taken(&connection, "kept", &told).await;
        check_told(&connection, "kept", &told).await;
    });
    cluster.sim.run_for(Duration::from_secs(2));
    assert_eq!(cluster.logged(RECOVERED).len(), 1);
    cluster.finish();
}

#[test]
fn a_disk_that_somebody_else_has_filled_to_the_brim_costs_nothing_but_time() {
    for seed in 0..6 {
        let mut cluster = small(seed, 64 * MIB);
        let told = Told::default();
        cluster.run({
            let told = told.clone();
            async move {
                let connection = connect().await;
                kafka::create(&connection, "busy", 1, &[("segment.bytes", "1048576")]).await;
                kafka::create(&connection, "doomed", 1, &[]).await;
                for number in 0..100 {
                    assert_eq!(produce_one(&connection, "busy", number, &told).await, ErrorCode::None);
                }
            }
        });
        set_capacity(&mut cluster, MIB / 2);
        cluster.run({
            let told = told.clone();
            async move {
                let connection = connect().await;
                let code = produce_until_refused(&connection, "busy", &told).await;
                assert!(code.retriable(), "{code}");
                check_told(&connection, "busy", &told).await;
                // Raft has kept room for this much.
                assert_code(kafka::delete(&connection, "doomed").await.error_code, ErrorCode::None);
            }
        });
        if seed % 2 == 0 {
            cluster.sim.run_for(Duration::from_secs(seed));
            set_capacity(&mut cluster, 64 * MIB);
            if seed == 2 {
                cluster.crash();
            }
        } else {
            cluster.kill();
            cluster.sim.run_for(Duration::from_secs(seed));
            set_capacity(&mut cluster, 64 * MIB);
        }
        cluster.expect_warning("cut the end off");
        cluster.run(async move {
            let connection = connect().await;
            produce_until_taken(&connection, "busy", &told).await;
            check_told(&connection, "busy", &told).await;
            assert_eq!(kafka::list_offset(&connection, "busy", 0, EARLIEST).await.offset, 0);
        });
        cluster.finish();
    }
}

#[test]
fn a_stop_does_not_wait_for_space() {
    let mut cluster = small(9, 64 * MIB);
    let told = Told::default();
    cluster.run({
        let told = told.clone();
        async move {
            let connection = connect().await;
            kafka::create(&connection, "busy", 1, &[("heizer.durability", "memory")]).await;
            assert_eq!(produce_one(&connection, "busy", 0, &told).await, ErrorCode::None);
        }
    });
    set_capacity(&mut cluster, 0);
    cluster.expect_warning("a log was not closed in good order");
    cluster.stop();
    cluster.finish();
}
