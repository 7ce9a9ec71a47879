//! Power cuts and kills at any moment: what was acknowledged is there, and a start afterwards makes sense of the rest.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use heizer_client::{Acks, Connection, Producer, ProducerConfig, ProducerRecord};
use heizer_runtime::{random, task, time};
use heizer_wire::ErrorCode;
use heizer_wire::messages::{CreateTopicsRequest, DeleteTopicState, DeleteTopicsRequest, MetadataRequest};

use crate::cluster::{Cluster, client, connect};
use crate::kafka::{self, ALL, EARLIEST, LATEST, assert_code, batch, list_offset};
use crate::seeds::{self, Choices};

const PARTITIONS: i32 = 3;
const TOPICS: [&str; 2] = ["left", "right"];

/// What a producer was told, by topic and partition: offset (-1 for none) and number of each record.
type Told = Rc<RefCell<BTreeMap<(&'static str, i32), Vec<(i64, usize)>>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    PowerCut,
    Kill,
}

fn strike(cluster: &mut Cluster, blow: Blow) {
    match blow {
        Blow::PowerCut => cluster.crash(),
        Blow::Kill => cluster.kill(),
    }
}

/// Sends `count` numbered records to every partition while the test goes on; resolves when all are settled.
fn send_everywhere(cluster: &mut Cluster, config: ProducerConfig, count: usize) -> (Told, Rc<RefCell<bool>>) {
    let told = Told::default();
    let done = Rc::new(RefCell::new(false));
    let (telling, ending) = (told.clone(), done.clone());
    cluster.run(async move {
        task::spawn(async move {
            let producer = Producer::new(&client(), config);
            let mut settling = Vec::new();
            for number in 0..count {
                for topic in TOPICS {
                    for partition in 0..PARTITIONS {
                        let value = Bytes::from(number.to_string());
                        let record = ProducerRecord::new(topic, Some("k".into()), Some(value));
                        let sent = producer.send(ProducerRecord { partition: Some(partition), ..record });
                        let telling = telling.clone();
                        settling.push(task::spawn(async move {
                            let delivered = sent.await.expect("retried until it works");
                            let told = (delivered.offset, number);
                            telling.borrow_mut().entry((topic, partition)).or_default().push(told);
                        }));
                    }
                }
                time::sleep(Duration::from_micros(random::below(3_000))).await;
            }
            producer.flush().await;
            for settled in settling {
                settled.await.expect("no panic");
            }
            *ending.borrow_mut() = true;
        });
    });
    (told, done)
}

/// After a restart: everything told so far lies below the high watermark. Returns the leader epochs.
fn check_told(cluster: &mut Cluster, told: &Told) -> BTreeMap<(&'static str, i32), i32> {
    let told = told.borrow().clone();
    cluster.run(async move {
        let connection = connect().await;
        let mut epochs = BTreeMap::new();
        for topic in TOPICS {
            for partition in 0..PARTITIONS {
                let high_watermark = list_offset(&connection, topic, partition, LATEST).await.offset;
                assert_eq!(list_offset(&connection, topic, partition, EARLIEST).await.offset, 0);
                let told = told.get(&(topic, partition)).into_iter().flatten();
                let last = told.map(|(offset, _)| *offset).max().unwrap_or(-1);
                assert!(last < high_watermark, "{topic}-{partition}: {last} lost, ends at {high_watermark}");
                let epoch = kafka::leader_epoch(&connection, topic, partition as usize).await;
                epochs.insert((topic, partition), epoch);
            }
        }
        epochs
    })
}

fn read_everywhere(cluster: &mut Cluster) -> BTreeMap<(&'static str, i32), Vec<(i64, String)>> {
    cluster.run(async {
        let connection = connect().await;
        let mut all = BTreeMap::new();
        for topic in TOPICS {
            for partition in 0..PARTITIONS {
                all.insert((topic, partition), kafka::read_all(&connection, topic, partition).await);
            }
        }
        all
    })
}

fn numbers(records: &[(i64, String)]) -> Vec<usize> {
    records.iter().map(|(_, value)| value.parse().expect("a number")).collect()
}

fn create_everywhere(cluster: &mut Cluster, configs: &'static [(&'static str, &'static str)]) {
    cluster.run(async move {
        let connection = connect().await;
        for topic in TOPICS {
            kafka::create(&connection, topic, PARTITIONS, configs).await;
        }
    });
}

/// Blows while a producer sends. Returns what it was told and what is there in the end.
fn produce_under_blows(
    cluster: &mut Cluster,
    choices: &mut Choices,
    config: ProducerConfig,
    blows: impl Fn(&mut Choices) -> Blow,
) -> Told {
    let (told, done) = send_everywhere(cluster, config, 60);
    let mut before = check_told(cluster, &told);
    for _ in 0..3 {
        cluster.sim.run_for(choices.micros(100..60_000));
        let blow = blows(choices);
        strike(cluster, blow);
        // Sometimes again before it is up.
        if choices.below(3) == 0 {
            cluster.sim.run_for(choices.micros(1..12_000));
            strike(cluster, blow);
        }
        let after = check_told(cluster, &told);
        for (partition, epoch) in &after {
            assert!(*epoch > before[partition], "{partition:?}: an unclean stop raises the leader epoch");
        }
        before = after;
    }
    let deadline = cluster.sim.now() + Duration::from_secs(100);
    while !*done.borrow() {
        assert!(cluster.sim.now() < deadline, "the producer comes to its end");
        cluster.sim.run_for(Duration::from_millis(50));
    }
    told
}

/// contract L8, T1
#[test]
fn what_was_acknowledged_survives_power_cuts_and_kills_once_and_in_order() {
    seeds::each("what_was_acknowledged_survives", 30, |seed| {
        let mut choices = Choices::new(seed);
        let mut cluster = Cluster::with(seed, 1 + choices.below(3) as usize, &[]);
        cluster.expect_warning("cut the end off a");
        create_everywhere(&mut cluster, &[]);
        let config = ProducerConfig {
            linger: Duration::from_millis(choices.below(4)),
            batch_bytes: 400,
            ..ProducerConfig::default()
        };
        let told = produce_under_blows(&mut cluster, &mut choices, config, |choices| {
            if choices.below(3) == 0 { Blow::Kill } else { Blow::PowerCut }
        });
        for (partition, records) in read_everywhere(&mut cluster) {
            assert_eq!(
                numbers(&records),
                (0..60).collect::<Vec<usize>>(),
                "{partition:?}: once and in order"
            );
            for (offset, number) in &told.borrow()[&partition] {
                assert!(
                    *offset == -1 || *offset == *number as i64,
                    "{partition:?}: told {offset} of {number}"
                );
            }
        }
        cluster.finish();
    });
}

/// DESIGN 4: acks=1, and level written, survive the process.
#[test]
fn what_was_written_survives_a_kill() {
    seeds::each("what_was_written_survives", 8, |seed| {
        for (acks, configs) in [(Acks::All, &[("heizer.durability", "written")][..]), (Acks::Leader, &[])] {
            let mut choices = Choices::new(seed);
            let mut cluster = Cluster::new(seed);
            cluster.expect_warning("cut the end off a");
            create_everywhere(&mut cluster, configs);
            let config = ProducerConfig { acks, idempotence: false, batch_bytes: 400, ..Default::default() };
            let told = produce_under_blows(&mut cluster, &mut choices, config, |_| Blow::Kill);
            for (partition, records) in read_everywhere(&mut cluster) {
                for (offset, number) in &told.borrow()[&partition] {
                    let at = usize::try_from(*offset).expect("an offset");
                    assert_eq!(records[at], (*offset, number.to_string()), "{partition:?}");
                }
            }
            cluster.finish();
        }
    });
}

/// DESIGN 4: level memory promises nothing. That this shows is what tells the tests above from ones that see nothing.
#[test]
fn what_is_only_in_memory_goes_with_the_power() {
    let mut lost = 0;
    for seed in 0..5 {
        let mut cluster = Cluster::new(seed);
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "t", 1, &[("heizer.durability", "memory")]).await;
            for number in 0..50 {
                let base = kafka::produced(&connection, "t", 0, batch(&[&number.to_string()])).await;
                assert_eq!(base, number);
            }
        });
        cluster.crash();
        let read = cluster.run(async { kafka::read_all(&connect().await, "t", 0).await });
        assert_eq!(numbers(&read), (0..read.len()).collect::<Vec<_>>(), "what is left has no holes");
        lost += 50 - read.len();
        cluster.expect_warning("cut the end off a");
        cluster.finish();
    }
    assert!(lost > 0, "a power cut takes something");
}

/// The first start is cut short at any moment; the next one works, with any number of cores, and keeps what it is told.
#[test]
fn a_first_start_may_be_cut_short() {
    seeds::each("a_first_start_may_be_cut_short", 40, |seed| {
        let mut choices = Choices::new(seed);
        let mut cluster = Cluster::new(seed);
        cluster.sim.run_for(choices.micros(1..15_000));
        cluster.sim.crash(cluster.broker);
        cluster.start_with_cores(1 + choices.below(3) as usize);
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "t", 2, &[]).await;
            kafka::produced(&connection, "t", 1, batch(&["x"])).await;
        });
        cluster.crash();
        cluster.expect_warning("cut the end off a");
        let read = cluster.run(async { kafka::read_all(&connect().await, "t", 1).await });
        assert_eq!(read, [(0, "x".to_owned())]);
        cluster.finish();
    });
}

/// What a client that creates and deletes topics knows of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    There,
    Gone,
    /// Asked for, without an answer.
    Unclear,
}

/// Creates and deletes topics at random for as long as the broker answers.
async fn churn(connection: Connection, known: Rc<RefCell<BTreeMap<String, Known>>>) {
    let set = |name: &str, state| {
        known.borrow_mut().insert(name.to_owned(), state);
    };
    loop {
        let name = format!("t{}", random::below(6));
        let state = known.borrow().get(&name).copied().unwrap_or(Known::Gone);
        set(&name, Known::Unclear);
        let timeout_ms = 30_000;
        match state {
            Known::Gone => {
                let topics = vec![kafka::new_topic(&name, PARTITIONS, &[])];
                let request = CreateTopicsRequest { topics, timeout_ms, validate_only: false };
                let Ok(answer) = connection.request(&request).await else { return };
                assert_code(answer.topics[0].error_code, ErrorCode::None);
                set(&name, Known::There);
                for partition in 0..PARTITIONS {
                    let request = kafka::produce_request(&name, partition, ALL, batch(&["old"]));
                    let Ok(answer) = connection.request_with(&request, 12, Duration::ZERO).await else {
                        return;
                    };
                    assert_code(answer.responses[0].partition_responses[0].error_code, ErrorCode::None);
                }
            }
            _ => {
                let topic = DeleteTopicState { name: Some(name.as_str().into()), ..Default::default() };
                let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms, ..Default::default() };
                let Ok(answer) = connection.request(&request).await else { return };
                assert_code(answer.responses[0].error_code, ErrorCode::None);
                set(&name, Known::Gone);
            }
        }
    }
}

/// Every topic is whole or absent, as far as it is known; afterwards all are there, and everything is known.
async fn check_topics(known: Rc<RefCell<BTreeMap<String, Known>>>) {
    let connection = connect().await;
    let request = MetadataRequest { topics: None, ..Default::default() };
    let all = kafka::ask(&connection, &request).await;
    let there: BTreeSet<String> =
        all.topics.iter().filter_map(|topic| topic.name.as_ref()).map(ToString::to_string).collect();
    for topic in &all.topics {
        assert_eq!(topic.partitions.len(), PARTITIONS as usize, "{topic:?}");
        assert!(topic.partitions.iter().all(|p| p.error_code == 0), "{topic:?}");
    }
    let states: Vec<_> = known.borrow().iter().map(|(name, state)| (name.clone(), *state)).collect();
    for (name, state) in states {
        match state {
            Known::There => assert!(there.contains(&name), "{name} was acknowledged"),
            Known::Gone => assert!(!there.contains(&name), "{name} was deleted"),
            Known::Unclear => {}
        }
        if !there.contains(&name) {
            kafka::create(&connection, &name, PARTITIONS, &[]).await;
        }
        for partition in 0..PARTITIONS {
            let old = kafka::read_all(&connection, &name, partition).await;
            assert!(old.len() <= usize::from(there.contains(&name)), "{name}-{partition}: {old:?}");
            let offset = kafka::produced(&connection, &name, partition, batch(&["new"])).await;
            assert_eq!(offset, old.len() as i64);
        }
        kafka::delete(&connection, &name).await;
        known.borrow_mut().insert(name, Known::Gone);
    }
}

#[test]
fn after_a_crash_a_topic_is_whole_or_absent_and_its_name_is_usable() {
    seeds::each("after_a_crash_a_topic_is_whole", 15, |seed| {
        let mut choices = Choices::new(seed);
        let mut cluster = Cluster::with(seed, 1 + choices.below(2) as usize, &[]);
        cluster.expect_warning("cut the end off a");
        let mut known = Rc::new(RefCell::new(BTreeMap::new()));
        for _ in 0..4 {
            let churning = known.clone();
            cluster.run(async { drop(task::spawn(churn(connect().await, churning))) });
            cluster.sim.run_for(choices.micros(5_000..120_000));
            let blow = if choices.below(4) == 0 { Blow::Kill } else { Blow::PowerCut };
            strike(&mut cluster, blow);
            // Answers that are still on their way tell the one that asked, and nobody else.
            let told = known.borrow().clone();
            known = Rc::new(RefCell::new(told));
            cluster.run(check_topics(known.clone()));
        }
        cluster.finish();
    });
}

/// contract L8: what was closed in order is opened without a look.
#[test]
fn a_clean_stop_makes_a_start_that_scans_nothing() {
    let mut cluster = Cluster::new(1);
    create_everywhere(&mut cluster, &[]);
    let (told, done) = send_everywhere(&mut cluster, ProducerConfig::default(), 40);
    while !*done.borrow() {
        cluster.sim.run_for(Duration::from_millis(10));
    }
    let before = check_told(&mut cluster, &told);
    cluster.stop();
    assert!(cluster.exists(".kafka_cleanshutdown"));
    // The power may go now: everything was synced.
    cluster.crash();
    let after = check_told(&mut cluster, &told);
    assert_eq!(before, after, "a clean stop leaves the leader epochs alone");
    assert!(!cluster.exists(".kafka_cleanshutdown"), "the next stop has to earn it again");
    let opened = cluster.logged("partitions are open");
    assert!(
        opened.last().is_some_and(|line| {
            line.contains("partitions=6") && line.contains("clean=true") && line.contains("scanned_bytes=0")
        }),
        "{opened:?}"
    );
    for (partition, records) in read_everywhere(&mut cluster) {
        assert_eq!(records.len(), 40, "{partition:?}");
    }
    cluster.finish();
}

/// A stop under load loses nothing that was acknowledged, and is clean.
#[test]
fn a_stop_under_load_is_clean_and_loses_nothing() {
    seeds::each("a_stop_under_load", 10, |seed| {
        let mut choices = Choices::new(seed);
        let mut cluster = Cluster::new(seed);
        create_everywhere(&mut cluster, &[]);
        let (told, done) = send_everywhere(&mut cluster, ProducerConfig::default(), 60);
        for _ in 0..2 {
            cluster.sim.run_for(choices.micros(1_000..60_000));
            cluster.stop();
            assert!(cluster.exists(".kafka_cleanshutdown"), "seed {seed}");
            cluster.start();
            check_told(&mut cluster, &told);
        }
        while !*done.borrow() {
            cluster.sim.run_for(Duration::from_millis(50));
        }
        for (partition, records) in read_everywhere(&mut cluster) {
            assert_eq!(numbers(&records), (0..60).collect::<Vec<usize>>(), "{partition:?}");
        }
        cluster.finish();
    });
}
