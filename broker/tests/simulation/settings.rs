//! Settings of topics and brokers that change while the broker runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use heizer_client::Connection;
use heizer_runtime::{task, time};
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    AlterConfigsRequest, AlterConfigsResource, AlterableConfig, DescribeConfigsRequest,
    DescribeConfigsResource, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
    IncrementalAlterableConfig,
};

use crate::cluster::{ADDR, Cluster, DATA_DIR, connect};
use crate::kafka::{self, ALL, EARLIEST, LATEST, ask, assert_code, batch, list_offset};
use crate::seeds::{self, Choices};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// What can be done to a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Setting, what is done to it, and with what.
type Op<'a> = (&'a str, i8, Option<&'a str>);

fn incremental(kind: i8, name: &str, ops: &[Op<'_>]) -> IncrementalAlterConfigsResource {
    let config = |&(name, config_operation, value): &Op<'_>| IncrementalAlterableConfig {
        name: name.into(),
        config_operation,
        value: value.map(Into::into),
    };
    IncrementalAlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: ops.iter().map(config).collect(),
    }
}

async fn alter_all(
    connection: &Connection,
    resources: Vec<IncrementalAlterConfigsResource>,
    validate_only: bool,
) -> Vec<ErrorCode> {
    let request = IncrementalAlterConfigsRequest { resources, validate_only };
    let answer = ask(connection, &request).await;
    for (resource, response) in request.resources.iter().zip(&answer.responses) {
        assert_eq!(response.error_code == 0, response.error_message.is_none(), "{response:?}");
        assert_eq!(resource.resource_name, response.resource_name);
        assert_eq!(resource.resource_type, response.resource_type);
    }
    answer.responses.iter().map(|response| ErrorCode::from_code(response.error_code)).collect()
}

/// Alters settings of one resource, which has to work.
async fn alter(connection: &Connection, kind: i8, name: &str, ops: &[Op<'_>]) {
    let codes = alter_all(connection, vec![incremental(kind, name, ops)], false).await;
    assert_eq!(codes, [ErrorCode::None], "{name}: {ops:?}");
}

async fn set(connection: &Connection, kind: i8, name: &str, pairs: &[(&str, &str)]) {
    let ops: Vec<Op<'_>> = pairs.iter().map(|&(name, value)| (name, SET, Some(value))).collect();
    alter(connection, kind, name, &ops).await;
}

async fn legacy(
    connection: &Connection,
    kind: i8,
    name: &str,
    pairs: &[(&str, Option<&str>)],
    validate_only: bool,
) -> ErrorCode {
    let config = |&(name, value): &(&str, Option<&str>)| AlterableConfig {
        name: name.into(),
        value: value.map(Into::into),
    };
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: pairs.iter().map(config).collect(),
    };
    let request = AlterConfigsRequest { resources: vec![resource], validate_only };
    let answer = ask(connection, &request).await.responses.remove(0);
    assert_eq!(answer.error_code == 0, answer.error_message.is_none(), "{answer:?}");
    ErrorCode::from_code(answer.error_code)
}

/// Value and source of every setting of a resource.
async fn described(connection: &Connection, kind: i8, name: &str) -> BTreeMap<String, (String, i8)> {
    let resource =
        DescribeConfigsResource { resource_type: kind, resource_name: name.into(), configuration_keys: None };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let result = ask(connection, &request).await.results.remove(0);
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let row = |config: heizer_wire::messages::DescribeConfigsResourceResult| {
        let value = config.value.map_or_else(|| "unset".to_owned(), |value| value.to_string());
        (config.name.to_string(), (value, config.config_source))
    };
    result.configs.into_iter().map(row).collect()
}

/// What was set for the resource itself, not inherited.
async fn own(connection: &Connection, kind: i8, name: &str) -> Vec<(String, String)> {
    let source = match (kind, name) {
        (TOPIC, _) => 1,
        (_, "") => 3,
        _ => 2,
    };
    let all = described(connection, kind, name).await;
    let own = all.into_iter().filter(|(_, (_, from))| *from == source);
    own.map(|(name, (value, _))| (name, value)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// contract P9
#[test]
fn a_change_of_a_topics_settings_is_described_at_once_and_outlives_every_end() {
    let mut cluster = Cluster::new(1);
    cluster.expect_warning("cut the end off a");
    cluster.run(async {
        let (connection, other) = (connect().await, connect().await);
        kafka::create(&connection, "t", 3, &[("retention.ms", "5000"), ("segment.ms", "7")]).await;
        kafka::create(&connection, "u", 1, &[]).await;
        let ops = [
            ("max.message.bytes", SET, Some("900")),
            ("cleanup.policy", APPEND, Some("compact")),
            ("segment.ms", DELETE, None),
        ];
        alter(&connection, TOPIC, "t", &ops).await;
        let expected =
            [("cleanup.policy", "delete,compact"), ("max.message.bytes", "900"), ("retention.ms", "5000")];
        assert_eq!(own(&other, TOPIC, "t").await, pairs(&expected));
        assert_eq!(described(&other, TOPIC, "t").await["segment.ms"], ("604800000".to_owned(), 5));
        alter(&connection, TOPIC, "t", &[("cleanup.policy", SUBTRACT, Some("delete"))]).await;
        assert_eq!(own(&other, TOPIC, "u").await, []);
    });
    for end in 0..3 {
        match end {
            0 => {
                cluster.stop();
                cluster.start();
            }
            1 => cluster.kill(),
            _ => cluster.crash(),
        }
        cluster.run(async {
            let connection = connect().await;
            let expected =
                [("cleanup.policy", "compact"), ("max.message.bytes", "900"), ("retention.ms", "5000")];
            assert_eq!(own(&connection, TOPIC, "t").await, pairs(&expected));
            let large = batch(&["x".repeat(1_000).as_str()]);
            for partition in 0..3 {
                let refused = kafka::produce(&connection, "t", partition, ALL, large.clone()).await;
                assert_code(refused.error_code, ErrorCode::MessageTooLarge);
            }
            kafka::produced(&connection, "u", 0, large).await;
        });
    }
    cluster.finish();
}

/// contract P9
#[test]
fn what_cannot_be_is_refused_and_neither_that_nor_a_dry_run_changes_anything() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 1, &[("retention.ms", "5000")]).await;
        let good = ("retention.bytes", SET, Some("7"));
        let cases: [(i8, &str, &[Op<'_>], ErrorCode); 22] = [
            (TOPIC, "t", &[good, ("no.such.setting", SET, Some("1"))], ErrorCode::InvalidConfig),
            (TOPIC, "t", &[good, ("retention.ms", SET, Some("soon"))], ErrorCode::InvalidConfig),
            (TOPIC, "t", &[good, ("log.retention.ms", SET, Some("1"))], ErrorCode::InvalidConfig),
            (TOPIC, "t", &[good, ("retention.ms", APPEND, Some("1"))], ErrorCode::InvalidConfig),
            (TOPIC, "t", &[good, ("retention.ms", SUBTRACT, Some("1"))], ErrorCode::InvalidConfig),
            (TOPIC, "t", &[good, ("cleanup.policy", APPEND, Some("burn"))], ErrorCode::InvalidConfig),
            (TOPIC, "t", &[good, ("segment.ms", SET, None)], ErrorCode::InvalidRequest),
            (TOPIC, "t", &[good, ("segment.ms", 4, Some("1"))], ErrorCode::InvalidRequest),
            (TOPIC, "t", &[good, good], ErrorCode::InvalidRequest),
            (TOPIC, "nobody", &[good], ErrorCode::UnknownTopicOrPartition),
            (TOPIC, "a/b", &[good], ErrorCode::InvalidTopicException),
            (TOPIC, "", &[good], ErrorCode::InvalidRequest),
            (BROKER, "1", &[("num.partitions", SET, Some("2"))], ErrorCode::InvalidRequest),
            (BROKER, "", &[("node.id", SET, Some("2"))], ErrorCode::InvalidRequest),
            (BROKER, "", &[("heizer.disk.reserve.bytes", SET, Some("0"))], ErrorCode::InvalidRequest),
            (BROKER, "", &[("log.retention.ms", SET, Some("-2"))], ErrorCode::InvalidRequest),
            (BROKER, "", &[("retention.ms", SET, Some("1"))], ErrorCode::InvalidConfig),
            (BROKER, "7", &[("log.retention.ms", SET, Some("1"))], ErrorCode::InvalidRequest),
            (BROKER, "one", &[("log.retention.ms", SET, Some("1"))], ErrorCode::InvalidRequest),
            (8, "1", &[("root", SET, Some("DEBUG"))], ErrorCode::InvalidRequest),
            (16, "metrics", &[("interval.ms", SET, Some("1"))], ErrorCode::InvalidRequest),
            (32, "g", &[("consumer.session.timeout.ms", SET, Some("1"))], ErrorCode::InvalidRequest),
        ];
        for validate_only in [true, false] {
            for (kind, name, ops, code) in &cases {
                let resources = vec![incremental(*kind, name, ops)];
                let codes = alter_all(&connection, resources, validate_only).await;
                assert_eq!(codes, [*code], "{kind} {name}: {ops:?}");
            }
        }
        let dry = vec![
            incremental(TOPIC, "t", &[good]),
            incremental(BROKER, "", &[("log.retention.ms", SET, Some("1"))]),
        ];
        assert_eq!(alter_all(&connection, dry, true).await, [ErrorCode::None, ErrorCode::None]);
        for (pairs, code) in [
            (&[("retention.bytes", Some("7")), ("retention.ms", None)][..], ErrorCode::InvalidRequest),
            (&[("retention.bytes", Some("7")), ("retention.bytes", Some("8"))], ErrorCode::InvalidRequest),
            (&[("retention.bytes", Some("7")), ("no.such.setting", Some("8"))], ErrorCode::InvalidConfig),
        ] {
            assert_eq!(legacy(&connection, TOPIC, "t", pairs, false).await, code, "{pairs:?}");
        }
        assert_eq!(legacy(&connection, TOPIC, "t", &[], true).await, ErrorCode::None);
        assert_eq!(own(&connection, TOPIC, "t").await, pairs(&[("retention.ms", "5000")]));
        assert_eq!(own(&connection, BROKER, "").await, []);
        assert_eq!(own(&connection, BROKER, "1").await, []);
        // One resource of a request does not depend on another; one that is named twice is left alone.
        kafka::create(&connection, "u", 1, &[]).await;
        kafka::create(&connection, "v", 1, &[]).await;
        let resources = vec![
            incremental(TOPIC, "u", &[good]),
            incremental(TOPIC, "t", &[("retention.ms", SET, Some("soon"))]),
            incremental(TOPIC, "v", &[good]),
            incremental(TOPIC, "v", &[good]),
            incremental(BROKER, "", &[("log.retention.ms", SET, Some("1"))]),
        ];
        let invalid = ErrorCode::InvalidRequest;
        let expected = [ErrorCode::None, ErrorCode::InvalidConfig, invalid, invalid, ErrorCode::None];
        assert_eq!(alter_all(&connection, resources, false).await, expected);
        assert_eq!(own(&connection, TOPIC, "u").await, pairs(&[("retention.bytes", "7")]));
        assert_eq!(own(&connection, TOPIC, "v").await, []);
        assert_eq!(own(&connection, BROKER, "").await, pairs(&[("log.retention.ms", "1")]));
    });
    cluster.finish();
}

/// contract P9
#[test]
fn the_legacy_alteration_resets_what_it_does_not_name() {
    let mut cluster = Cluster::new(3);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 1, &[("retention.ms", "5000"), ("segment.ms", "7")]).await;
        let wanted = [("segment.ms", Some("8")), ("flush.ms", Some("9"))];
        assert_eq!(legacy(&connection, TOPIC, "t", &wanted, false).await, ErrorCode::None);
        assert_eq!(own(&connection, TOPIC, "t").await, pairs(&[("flush.ms", "9"), ("segment.ms", "8")]));
        assert_eq!(legacy(&connection, TOPIC, "t", &[], false).await, ErrorCode::None);
        assert_eq!(own(&connection, TOPIC, "t").await, []);
        set(&connection, BROKER, "", &[("log.roll.ms", "5"), ("max.connections", "100")]).await;
        let wanted = [("max.connections", Some("101"))];
        assert_eq!(legacy(&connection, BROKER, "", &wanted, false).await, ErrorCode::None);
        assert_eq!(own(&connection, BROKER, "").await, pairs(&[("max.connections", "101")]));
    });
    cluster.finish();
}

/// Additions to a list that several clients ask for at once all arrive.
#[test]
fn alterations_of_one_topic_at_the_same_time_do_not_lose_one_another() {
    let mut cluster = Cluster::new(4);
    cluster.run(async {
        let (one, other) = (connect().await, connect().await);
        for round in 0..10 {
            let name = format!("t{round}");
            kafka::create(&one, &name, 1, &[("cleanup.policy", "")]).await;
            let append = async |connection: &Connection, policy: &str| {
                alter(connection, TOPIC, &name, &[("cleanup.policy", APPEND, Some(policy))]).await;
            };
            futures::future::join(append(&one, "compact"), append(&other, "delete")).await;
            let both = described(&one, TOPIC, &name).await["cleanup.policy"].0.clone();
            assert!(both == "compact,delete" || both == "delete,compact", "{both}");
        }
    });
    cluster.finish();
}

/// contract L6
#[test]
fn retention_and_segment_sizes_that_change_take_effect_in_open_logs() {
    let mut cluster = Cluster::with(5, 2, &[("log.retention.check.interval.ms", "200")]);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 4, &[]).await;
        let write = async |from: i64| {
            for number in from..from + 5 {
                for partition in 0..4 {
                    assert_eq!(kafka::produced(&connection, "t", partition, batch(&["x"])).await, number);
                }
                time::sleep(Duration::from_millis(30)).await;
            }
        };
        write(0).await;
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(list_offset(&connection, "t", 0, EARLIEST).await.offset, 0);
        // By age segments are rolled from now on, each by the next batch.
        set(&connection, TOPIC, "t", &[("segment.ms", "20"), ("retention.ms", "1000")]).await;
        write(5).await;
        time::sleep(Duration::from_secs(3)).await;
        for partition in 0..4 {
            assert_eq!(list_offset(&connection, "t", partition, EARLIEST).await.offset, 10);
            assert_eq!(list_offset(&connection, "t", partition, LATEST).await.offset, 10);
        }
        alter(&connection, TOPIC, "t", &[("retention.ms", DELETE, None)]).await;
        write(10).await;
        time::sleep(Duration::from_secs(3)).await;
        assert_eq!(list_offset(&connection, "t", 3, EARLIEST).await.offset, 10, "the default holds again");
        // The same for topics without settings of their own, by the defaults of all brokers.
        alter(&connection, TOPIC, "t", &[("segment.ms", DELETE, None)]).await;
        set(&connection, BROKER, "", &[("log.retention.ms", "1000"), ("log.roll.ms", "20")]).await;
        write(15).await;
        time::sleep(Duration::from_secs(3)).await;
        for partition in 0..4 {
            assert_eq!(list_offset(&connection, "t", partition, EARLIEST).await.offset, 20);
        }
    });
    cluster.finish();
}

/// contract L9
#[test]
fn a_topic_that_becomes_compacted_is_compacted_and_takes_no_record_without_a_key() {
    let settings = [("log.roll.ms", "30"), ("log.cleaner.min.cleanable.ratio", "0")];
    let mut cluster = Cluster::with(6, 2, &settings);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 1, &[]).await;
        // The cleaner's own rest is one of 15 seconds until it is told otherwise.
        set(&connection, BROKER, "", &[("log.cleaner.backoff.ms", "20")]).await;
        for number in 0..10 {
            kafka::produced(&connection, "t", 0, batch(&[&number.to_string()])).await;
            time::sleep(Duration::from_millis(40)).await;
        }
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(kafka::read_all(&connection, "t", 0).await.len(), 10);
        set(&connection, TOPIC, "t", &[("cleanup.policy", "compact")]).await;
        let deadline = time::now() + Duration::from_secs(5);
        while kafka::read_all(&connection, "t", 0).await.len() > 2 {
            assert!(time::now() < deadline, "{:?}", kafka::read_all(&connection, "t", 0).await);
            time::sleep(Duration::from_millis(50)).await;
        }
        let keyless = {
            let mut builder = heizer_wire::record_batch::RecordBatchBuilder::new(Default::default());
            builder.append(time::wall_clock_ms(), None, Some(b"x"), &[]);
            builder.build()
        };
        let refused = kafka::produce(&connection, "t", 0, ALL, keyless.clone()).await;
        assert_code(refused.error_code, ErrorCode::InvalidRecord);
        set(&connection, TOPIC, "t", &[("cleanup.policy", "delete")]).await;
        kafka::produced(&connection, "t", 0, keyless).await;
    });
    cluster.finish();
}

/// contract L8, R1: what is acknowledged once the alteration has been answered survives the power going, and what
/// consumers could see before stays visible.
#[test]
fn a_level_that_is_raised_holds_for_all_that_is_acknowledged_from_then_on() {
    let kept = Cell::new(0);
    seeds::each("a_level_that_is_raised", 20, |seed| {
        let mut choices = Choices::new(seed);
        let mut cluster = Cluster::new(seed);
        cluster.expect_warning("cut the end off a");
        let level = ["memory", "written"][(seed % 2) as usize];
        let raised = Rc::new(RefCell::new(false));
        let told: Rc<RefCell<Vec<(i64, bool)>>> = Rc::default();
        let (was_raised, telling) = (raised.clone(), told.clone());
        cluster.run(async move {
            let connection = connect().await;
            kafka::create(&connection, "t", 1, &[("heizer.durability", level)]).await;
            task::spawn(async move {
                loop {
                    let raised = *was_raised.borrow();
                    let request = kafka::produce_request("t", 0, ALL, batch(&["x"]));
                    let answer = connection.request_with(&request, 12, Duration::ZERO).await;
                    // The broker is gone.
                    let Ok(mut answer) = answer else { return };
                    let answer = answer.responses.remove(0).partition_responses.remove(0);
                    assert_code(answer.error_code, ErrorCode::None);
                    telling.borrow_mut().push((answer.base_offset, raised));
                }
            });
        });
        cluster.sim.run_for(choices.micros(1_000..20_000));
        let raising = raised.clone();
        cluster.run(async move {
            let connection = connect().await;
            let before = list_offset(&connection, "t", 0, LATEST).await.offset;
            set(&connection, TOPIC, "t", &[("heizer.durability", "durable")]).await;
            *raising.borrow_mut() = true;
            let after = list_offset(&connection, "t", 0, LATEST).await.offset;
            assert!(after >= before, "the high watermark falls from {before} to {after}");
        });
        cluster.sim.run_for(choices.micros(0..4_000));
        cluster.crash();
        let end = cluster.run(async { list_offset(&connect().await, "t", 0, LATEST).await.offset });
        let told = told.take();
        let promised = told.iter().filter(|(_, raised)| *raised).map(|(offset, _)| *offset).max();
        assert!(promised.is_none_or(|offset| offset < end), "{promised:?} of {end}");
        kept.set(kept.get() + u32::from(promised.is_some()));
        cluster.finish();
    });
    assert!(kept.get() > 0, "nothing was acknowledged after the level was raised");
}

/// contract P9: set for one broker goes before set for all, which goes before the file; a topic's own before all of them.
#[test]
fn settings_of_brokers_hold_at_once_in_their_order_and_are_described_with_it() {
    let mut cluster = Cluster::with(7, 3, &[("message.max.bytes", "4000")]);
    cluster.expect_warning("cut the end off a");
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "plain", 6, &[]).await;
        kafka::create(&connection, "own", 6, &[("max.message.bytes", "5000")]).await;
        // On every core, in logs that are open.
        let takes = async |topic: &str, bytes: usize| {
            let mut codes = Vec::new();
            for partition in 0..6 {
                let other = connect().await;
                let records = batch(&["x".repeat(bytes).as_str()]);
                let answer = kafka::produce(&other, topic, partition, ALL, records).await;
                codes.push(ErrorCode::from_code(answer.error_code));
            }
            assert!(codes.iter().all(|code| *code == codes[0]), "{codes:?}");
            assert!(matches!(codes[0], ErrorCode::None | ErrorCode::MessageTooLarge), "{codes:?}");
            codes[0] == ErrorCode::None
        };
        let source = async |topic: &str| described(&connection, TOPIC, topic).await["max.message.bytes"].1;
        assert_eq!((takes("plain", 3_000).await, source("plain").await), (true, 4));
        set(&connection, BROKER, "", &[("message.max.bytes", "1000")]).await;
        assert_eq!((takes("plain", 3_000).await, source("plain").await), (false, 3));
        set(&connection, BROKER, "1", &[("message.max.bytes", "2000")]).await;
        assert_eq!((takes("plain", 3_000).await, source("plain").await), (false, 2));
        assert!(takes("plain", 1_500).await);
        assert_eq!((takes("own", 4_500).await, source("own").await), (true, 1));
        alter(&connection, BROKER, "1", &[("message.max.bytes", DELETE, None)]).await;
        assert!(!takes("plain", 1_500).await);
        // A topic that is made now has them from the beginning.
        kafka::create(&connection, "new", 6, &[]).await;
        assert_eq!((takes("new", 1_500).await, source("new").await), (false, 3));
    });
    cluster.crash();
    cluster.run(async {
        let connection = connect().await;
        assert_eq!(own(&connection, BROKER, "").await, pairs(&[("message.max.bytes", "1000")]));
        assert_eq!(own(&connection, BROKER, "1").await, []);
        let broker = described(&connection, BROKER, "1").await;
        assert_eq!(broker["message.max.bytes"], ("1000".to_owned(), 3));
        assert_eq!(broker["num.partitions"], ("1".to_owned(), 4));
        let records = batch(&["x".repeat(3_000).as_str()]);
        let refused = kafka::produce(&connection, "plain", 0, ALL, records.clone()).await;
        assert_code(refused.error_code, ErrorCode::MessageTooLarge);
        alter(&connection, BROKER, "", &[("message.max.bytes", DELETE, None)]).await;
        kafka::produced(&connection, "plain", 0, records).await;
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: BROKER,
                resource_name: "1".into(),
                configuration_keys: None,
            }],
            ..Default::default()
        };
        let rows = ask(&connection, &request).await.results.remove(0).configs;
        let read_only = |name: &str| rows.iter().find(|row| &*row.name == name).map(|row| row.read_only);
        assert_eq!(read_only("message.max.bytes"), Some(false));
        assert_eq!(read_only("num.partitions"), Some(true));
    });
    cluster.finish();
}

#[test]
fn the_number_of_connections_that_are_taken_changes_at_once() {
    let mut cluster = Cluster::new(8);
    cluster.run(async {
        let first = connect().await;
        let try_one = || Connection::connect(ADDR, "simulation", Duration::from_secs(5));
        set(&first, BROKER, "1", &[("max.connections.per.ip", "2")]).await;
        let _second = try_one().await.expect("the second one is taken");
        assert!(try_one().await.is_err(), "the third one is not");
        set(&first, BROKER, "", &[("max.connections", "3")]).await;
        alter(&first, BROKER, "1", &[("max.connections.per.ip", DELETE, None)]).await;
        let _third = try_one().await.expect("the third one is taken");
        assert!(try_one().await.is_err(), "the fourth one is not");
        alter(&first, BROKER, "", &[("max.connections", DELETE, None)]).await;
        try_one().await.expect("any number again");
    });
    cluster.finish();
}

/// The settings follow a partition through its move to another directory, whenever they change.
#[test]
fn settings_that_change_while_a_partition_moves_hold_afterwards() {
    seeds::each("settings_that_change_while_a_partition", 20, |seed| {
        let mut choices = Choices::new(seed);
        let mut cluster = Cluster::with(seed, 2, &[("log.dirs", "/var/lib/heizer,/disk1")]);
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "t", 1, &[]).await;
            for _ in 0..5 {
                kafka::produced(&connection, "t", 0, batch(&["x"])).await;
            }
        });
        let from = cluster.run(async {
            let dirs = kafka::describe_log_dirs(&connect().await).await;
            let holds = |dir: &&heizer_wire::messages::DescribeLogDirsResult| {
                dir.topics.iter().any(|topic| &*topic.name == "t")
            };
            dirs.iter().find(holds).map(|dir| dir.log_dir.to_string()).expect("it is somewhere")
        });
        let to = if from == "/disk1" { DATA_DIR } else { "/disk1" };
        let pause = choices.micros(0..6_000);
        cluster.run(async move {
            let (connection, other) = (connect().await, connect().await);
            let moving = task::spawn(async move { kafka::move_to(&other, to, "t", &[0]).await });
            time::sleep(pause).await;
            set(&connection, TOPIC, "t", &[("message.timestamp.type", "LogAppendTime")]).await;
            moving.await.expect("no panic");
            let answer = kafka::produce(&connection, "t", 0, ALL, batch(&["y"])).await;
            assert_code(answer.error_code, ErrorCode::None);
            assert!(answer.log_append_time_ms >= 0, "stamped by the log where it is now");
        });
        cluster.finish();
    });
}
