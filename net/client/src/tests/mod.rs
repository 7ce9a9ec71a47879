//! The client against a broker in memory, on the simulated network.

mod admin;
mod broker;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use heizer_runtime::sim::block_on;
use heizer_runtime::task::spawn;
use heizer_runtime::time::{now, timeout};
use heizer_wire::ErrorCode;
use heizer_wire::messages::{MetadataRequest, PartitionProduceData, ProduceRequest, TopicProduceData};
use heizer_wire::record_batch::{BatchOptions, RecordBatchBuilder};

use self::broker::{Broker, Fault};
use crate::{
    Acks, Client, ClientConfig, ClientError, Compression, Connection, ConsumedRecord, Consumer,
    ConsumerConfig, GroupConfig, GroupConsumer, Producer, ProducerConfig, ProducerRecord, RecordHeader,
    StartOffset,
};

fn client(addr: &str) -> Client {
    Client::new(ClientConfig::new([addr]))
}

fn record(topic: &str, key: Option<&str>, value: &str) -> ProducerRecord {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    ProducerRecord::new(topic, key.map(bytes), Some(bytes(value)))
}

async fn read(consumer: &mut Consumer, count: usize) -> Vec<ConsumedRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        let more = consumer.poll(Duration::from_secs(20)).await.expect("poll");
        assert!(!more.is_empty(), "{} of {count} came", records.len());
        records.extend(more);
    }
    records
}

fn value(record: &ConsumedRecord) -> &str {
    std::str::from_utf8(record.value.as_deref().unwrap_or_default()).unwrap()
}

#[test]
fn what_is_produced_is_consumed_in_order_with_every_compression() {
    for (seed, compression) in Compression::ALL.into_iter().enumerate() {
        block_on(seed as u64, async move {
            let (_broker, addr) = Broker::start(3);
            let client = client(&addr);
            let producer =
                Producer::new(&client, ProducerConfig { compression, ..ProducerConfig::default() });
            let mut deliveries = Vec::new();
            for at in 0..1000 {
                let mut record = record("t", Some(&format!("key-{}", at % 7)), &format!("{at}"));
                record.headers = vec![RecordHeader { key: "h".into(), value: None }; 2];
                deliveries.push(producer.send(record));
            }
            producer.flush().await;
            assert_eq!(producer.buffered_bytes(), 0);
            for delivery in deliveries {
                assert!(delivery.await.expect("delivered").offset >= 0);
            }
            let mut consumer = Consumer::new(&client, ConsumerConfig::default());
            consumer.assign_topic("t", StartOffset::Earliest).await.unwrap();
            let records = read(&mut consumer, 1000).await;
            for key in 0..7 {
                let key = format!("key-{key}");
                let of_key: Vec<_> =
                    records.iter().filter(|r| r.key.as_deref() == Some(key.as_bytes())).collect();
                let values: Vec<usize> = of_key.iter().map(|record| value(record).parse().unwrap()).collect();
                assert!(values.is_sorted() && values.len() >= 142);
                assert!(of_key.iter().all(|record| record.partition == of_key[0].partition));
            }
            assert!(records.iter().all(|record| record.headers.len() == 2));
            let positions: i64 = consumer.positions().map(|(_, _, offset)| offset).sum();
            assert_eq!(positions, 1000);
            assert!(consumer.poll(Duration::from_millis(700)).await.unwrap().is_empty());
        });
    }
}

// contract T1
#[test]
fn retries_keep_order_and_double_nothing() {
    for seed in 0..10 {
        block_on(seed, async {
            let (broker, addr) = Broker::start(1);
            *broker.faults.borrow_mut() = vec![
                Fault::LoseAnswer,
                Fault::LoseRequest,
                Fault::NotLeader,
                Fault::LoseAnswer,
                Fault::NotLeader,
            ];
            let client = client(&addr);
            let config = ProducerConfig { batch_bytes: 200, ..ProducerConfig::default() };
            let producer = Producer::new(&client, config);
            let deliveries: Vec<_> =
                (0..50).map(|at| producer.send(record("t", None, &at.to_string()))).collect();
            for delivery in deliveries {
                delivery.await.expect("delivered in the end");
            }
            assert!(broker.faults.borrow().is_empty());
            let mut consumer = Consumer::new(&client, ConsumerConfig::default());
            consumer.assign(&[("t", 0, StartOffset::Earliest)]).await.unwrap();
            let records = read(&mut consumer, 50).await;
            let values: Vec<usize> = records.iter().map(|record| value(record).parse().unwrap()).collect();
            assert_eq!(values, (0..50).collect::<Vec<_>>());
            assert_eq!(broker.end_offset("t", 0), 50);
        });
    }
}

#[test]
fn a_refused_batch_fails_with_its_name_and_later_ones_go_through() {
    block_on(1, async {
        let (broker, addr) = Broker::start(1);
        broker.faults.borrow_mut().push(Fault::Refuse);
        let producer = Producer::new(&client(&addr), ProducerConfig::default());
        let error = producer.send(record("t", None, "a")).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::TopicAuthorizationFailed));
        let told = error.to_string();
        assert!(told.contains(&addr) && told.contains("Produce") && told.contains("t-0"), "{told}");
        assert_eq!(producer.send(record("t", None, "b")).await.unwrap().offset, 0);
    });
}

#[test]
fn acks_0_is_sent_without_an_answer() {
    block_on(2, async {
        let (broker, addr) = Broker::start(1);
        let config = ProducerConfig { acks: Acks::None, idempotence: false, ..ProducerConfig::default() };
        let client = client(&addr);
        let producer = Producer::new(&client, config);
        assert_eq!(producer.send(record("t", None, "a")).await.unwrap().offset, -1);
        let mut consumer = Consumer::new(&client, ConsumerConfig::default());
        consumer.assign(&[("t", 0, StartOffset::Earliest)]).await.unwrap();
        assert_eq!(value(&read(&mut consumer, 1).await[0]), "a");
        assert_eq!(broker.produced.get(), 1);
    });
}

#[test]
fn whoever_waits_for_no_answers_can_wait_for_the_socket() {
    block_on(2, async {
        let (broker, addr) = Broker::start(1);
        let connection = Connection::connect(&addr, "me", Duration::from_secs(5)).await.unwrap();
        assert_eq!(connection.flushed().now_or_never().map(|flushed| flushed.is_ok()), Some(true));
        let mut batch = RecordBatchBuilder::new(BatchOptions::default());
        batch.append(0, None, Some(b"a"), &[]);
        let partition = PartitionProduceData { index: 0, records: Some(batch.build()) };
        let topic =
            TopicProduceData { name: "t".into(), partition_data: vec![partition], ..Default::default() };
        let request = ProduceRequest { acks: 0, topic_data: vec![topic], ..Default::default() };
        for _ in 0..3 {
            connection.send_only(&request, 9).unwrap();
        }
        assert!(connection.flushed().now_or_never().is_none(), "the requests are still here");
        connection.flushed().await.unwrap();
        // In order behind them, so they have arrived.
        connection.request(&MetadataRequest::default()).await.unwrap();
        assert_eq!(broker.produced.get(), 3);
    });
}

#[test]
fn the_producers_buffer_is_bounded() {
    block_on(3, async {
        let (_broker, addr) = Broker::start(1);
        let config =
            ProducerConfig { buffer_bytes_max: 1000, request_bytes_max: 500, ..ProducerConfig::default() };
        let producer = Producer::new(&client(&addr), config);
        let big = "x".repeat(400);
        let first = producer.send(record("t", None, &big));
        let second = producer.send(record("t", None, &big));
        let third = producer.send(record("t", None, &big)).await;
        assert!(matches!(third, Err(ClientError::BufferFull(1000))));
        let huge = producer.send(record("t", None, &"x".repeat(600))).await;
        assert!(matches!(huge, Err(ClientError::RecordTooLarge { .. })));
        producer.ready().await;
        let fourth = producer.send(record("t", None, &big));
        for delivery in [first, second, fourth] {
            delivery.await.unwrap();
        }
    });
}

#[test]
fn a_consumer_starts_where_it_is_told_and_resets_when_out_of_range() {
    block_on(4, async {
        let (_broker, addr) = Broker::start(1);
        let client = client(&addr);
        let producer = Producer::new(&client, ProducerConfig::default());
        for at in 0..10 {
            producer.send(record("t", None, &at.to_string())).await.unwrap();
        }
        let config =
            ConsumerConfig { offset_reset: Some(StartOffset::Earliest), ..ConsumerConfig::default() };
        let mut consumer = Consumer::new(&client, config);
        consumer.assign(&[("t", 0, StartOffset::At(7))]).await.unwrap();
        assert_eq!(value(&read(&mut consumer, 3).await[0]), "7");
        consumer.seek("t", 0, StartOffset::At(2)).await.unwrap();
        assert_eq!(value(&read(&mut consumer, 1).await[0]), "2");
        consumer.seek("t", 0, StartOffset::At(500)).await.unwrap();
        assert_eq!(value(&read(&mut consumer, 1).await[0]), "0");
        consumer.assign(&[("t", 0, StartOffset::Latest)]).await.unwrap();
        let sent = producer.clone();
        drop(spawn(async move { sent.send(record("t", None, "new")).await }));
        assert_eq!(value(&read(&mut consumer, 1).await[0]), "new");
        let unknown = consumer.assign_topic("nowhere", StartOffset::Earliest).await;
        assert!(matches!(unknown, Err(ClientError::UnknownTopic(_))));
    });
}

#[test]
fn an_address_where_nobody_listens_is_named() {
    block_on(5, async {
        let config =
            ClientConfig { api_timeout: Duration::from_secs(2), ..ClientConfig::new(["127.0.0.1:9"]) };
        let start = now();
        let error = Client::new(config).partition_count("t", false).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
        assert!(now() - start <= Duration::from_secs(2));
    });
}

fn member(client: &Client) -> GroupConsumer {
    let mut config = GroupConfig::new("g", ["t"]);
    config.heartbeat_interval = Duration::from_millis(100);
    config.offset_reset = StartOffset::Earliest;
    GroupConsumer::new(client, config)
}

#[test]
fn a_group_shares_partitions_and_goes_on_from_what_was_committed() {
    for seed in 0..5 {
        block_on(seed, async {
            let (broker, addr) = Broker::start(3);
            let client = client(&addr);
            let producer = Rc::new(Producer::new(&client, ProducerConfig::default()));
            let send = |from: usize| {
                let producer = Rc::clone(&producer);
                async move {
                    for at in from..from + 30 {
                        let mut record = record("t", None, &at.to_string());
                        record.partition = Some((at % 3) as i32);
                        producer.send(record).await.unwrap();
                    }
                }
            };
            send(0).await;
            let mut seen = BTreeSet::new();
            let mut first = member(&client);
            while seen.len() < 30 {
                for record in first.poll(Duration::from_secs(5)).await.unwrap() {
                    assert!(seen.insert(value(&record).to_owned()), "{record:?} twice");
                }
            }
            assert_eq!(first.positions().count(), 3);
            let second = Background::start(member(&client));
            let shared = async {
                while first.positions().count() == 3 {
                    assert!(first.poll(Duration::from_millis(200)).await.unwrap().is_empty());
                }
            };
            timeout(Duration::from_secs(20), shared).await.expect("the second takes its share");
            send(30).await;
            while seen.len() + second.seen.borrow().len() < 60 {
                for record in first.poll(Duration::from_secs(1)).await.unwrap() {
                    assert!(seen.insert(value(&record).to_owned()), "{record:?} twice");
                }
            }
            assert!(!second.seen.borrow().is_empty(), "both read");
            first.close().await.unwrap();
            send(60).await;
            let all = async {
                while second.seen.borrow().len() + seen.len() < 90 {
                    heizer_runtime::time::sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(Duration::from_secs(20), all).await.expect("the second takes over");
            second.stop().await;
            assert_eq!(broker.commits.borrow().values().sum::<i64>(), 90);
        });
    }
}

/// A second member that reads by itself.
struct Background {
    seen: Rc<std::cell::RefCell<BTreeSet<String>>>,
    stopping: Rc<std::cell::Cell<bool>>,
    task: heizer_runtime::task::JoinHandle<()>,
}

impl Background {
    fn start(mut member: GroupConsumer) -> Background {
        let seen: Rc<std::cell::RefCell<BTreeSet<String>>> = Rc::default();
        let stopping: Rc<std::cell::Cell<bool>> = Rc::default();
        let (into, stop) = (Rc::clone(&seen), Rc::clone(&stopping));
        let task = spawn(async move {
            while !stop.get() {
                for record in member.poll(Duration::from_millis(200)).await.unwrap() {
                    assert!(into.borrow_mut().insert(value(&record).to_owned()), "{record:?} twice");
                }
            }
            member.close().await.unwrap();
        });
        Background { seen, stopping, task }
    }

    async fn stop(self) {
        self.stopping.set(true);
        self.task.await.expect("it ran to its end");
    }
}
