//! What is produced is consumed: through the client, over topics and cores, in every shape.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use heizer_client::{
    Acks, Compression, ConsumedRecord, Consumer, ConsumerConfig, Producer, ProducerConfig, ProducerRecord,
    RecordHeader, StartOffset,
};
use heizer_runtime::sim::EPOCH_MS;
use heizer_runtime::time;

use crate::cluster::{Cluster, client, connect};
use crate::kafka;

const WAIT: Duration = Duration::from_secs(20);

fn text(bytes: &Option<Bytes>) -> &str {
    std::str::from_utf8(bytes.as_deref().unwrap_or_default()).expect("tests write text")
}

fn record(topic: &str, partition: i32, value: String) -> ProducerRecord {
    let record = ProducerRecord::new(topic, Some("key".into()), Some(value.into()));
    ProducerRecord { partition: Some(partition), ..record }
}

async fn read(consumer: &mut Consumer, count: usize) -> Vec<ConsumedRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        let more = consumer.poll(WAIT).await.expect("fetching works");
        assert!(!more.is_empty(), "{} of {count} came", records.len());
        records.extend(more);
    }
    let more = consumer.poll(Duration::from_millis(600)).await.expect("fetching works");
    assert!(more.is_empty(), "nothing comes twice: {more:?}");
    records
}

/// contract L2
#[test]
fn every_record_comes_once_and_in_order_at_every_acks_over_topics_and_cores() {
    let mut cluster = Cluster::new(1);
    cluster.run(async {
        const TOPICS: [&str; 3] = ["alpha", "beta", "gamma"];
        const PARTITIONS: i32 = 6;
        const EACH: i64 = 40;
        let connection = connect().await;
        for topic in TOPICS {
            kafka::create(&connection, topic, PARTITIONS, &[]).await;
        }
        let client = client();
        for (topic, acks) in TOPICS.into_iter().zip([Acks::None, Acks::Leader, Acks::All]) {
            let config = ProducerConfig {
                acks,
                idempotence: acks == Acks::All,
                batch_bytes: 500,
                ..ProducerConfig::default()
            };
            let producer = Producer::new(&client, config);
            let mut deliveries = Vec::new();
            for number in 0..EACH {
                for partition in 0..PARTITIONS {
                    let sent = producer.send(record(topic, partition, format!("{partition}:{number}")));
                    deliveries.push((partition, number, sent));
                }
            }
            producer.flush().await;
            for (partition, number, delivery) in deliveries {
                let delivered = delivery.await.expect("delivered");
                let offset = if acks == Acks::None { -1 } else { number };
                assert_eq!((delivered.partition, delivered.offset), (partition, offset), "{topic}");
            }
        }
        for topic in TOPICS {
            let mut consumer = Consumer::new(&client, ConsumerConfig::default());
            consumer.assign_topic(topic, StartOffset::Earliest).await.expect("assigned");
            let records = read(&mut consumer, (PARTITIONS as i64 * EACH) as usize).await;
            let mut next = BTreeMap::new();
            for record in &records {
                let next: &mut i64 = next.entry(record.partition).or_default();
                assert_eq!(record.offset, *next, "{topic}-{}", record.partition);
                assert_eq!(text(&record.value), format!("{}:{next}", record.partition));
                assert_eq!((text(&record.key), &*record.topic), ("key", topic));
                *next += 1;
            }
            assert_eq!(next.len(), PARTITIONS as usize);
        }
    });
    cluster.finish();
}

/// contract L2
#[test]
fn batches_of_every_compression_come_back_as_they_were_sent() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "packed", 1, &[]).await;
        let client = client();
        for compression in Compression::ALL {
            let producer = Producer::new(&client, ProducerConfig { compression, ..Default::default() });
            for number in 0..50 {
                let mut record = record("packed", 0, format!("{compression:?} {number}"));
                record.headers = vec![RecordHeader { key: "h".into(), value: Some("v".into()) }; 2];
                drop(producer.send(record));
            }
            producer.flush().await;
        }
        let mut consumer = Consumer::new(&client, ConsumerConfig::default());
        consumer.assign_topic("packed", StartOffset::Earliest).await.expect("assigned");
        let records = read(&mut consumer, 50 * Compression::ALL.len()).await;
        let values =
            Compression::ALL.iter().flat_map(|c| (0..50).map(move |number| format!("{c:?} {number}")));
        for (record, value) in records.iter().zip(values) {
            assert_eq!(text(&record.value), value);
            assert_eq!(record.headers.len(), 2, "headers with one name are all kept");
        }
        // The bytes are the producer's, but for offset and epoch.
        let sent = kafka::batch_with(
            heizer_wire::record_batch::BatchOptions { compression: Compression::Zstd, ..Default::default() },
            &["some", "values"],
        );
        let base = kafka::produced(&connection, "packed", 0, sent.clone()).await;
        let data = kafka::fetch_one(&connection, "packed", 0, base).await;
        let stored = data.records.expect("records").to_bytes();
        assert_eq!(stored[16..], sent[16..], "from the magic on");
    });
    cluster.finish();
}

#[test]
fn log_append_time_replaces_the_producers_timestamps() {
    let mut cluster = Cluster::new(3);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
        time::sleep(Duration::from_secs(5)).await;
        let before = time::wall_clock_ms();
        let old = EPOCH_MS - 1_000_000_000;
        let answer = kafka::produce(&connection, "stamped", 0, kafka::ALL, kafka::batch_at(old, "x")).await;
        assert!(answer.log_append_time_ms >= before, "{answer:?}");
        let mut consumer = Consumer::new(&client(), ConsumerConfig::default());
        consumer.assign(&[("stamped", 0, StartOffset::At(0))]).await.expect("assigned");
        // The client checks the CRC, which is a new one (contract L1).
        assert_eq!(read(&mut consumer, 1).await[0].timestamp, answer.log_append_time_ms);
    });
    cluster.finish();
}

#[test]
fn large_records_survive_the_trip_and_a_restart() {
    let mut cluster = Cluster::new(4);
    let value = |number: usize| {
        (0..900_000).map(|at| char::from(b'a' + ((at * 7 + number) % 26) as u8)).collect::<String>()
    };
    let check = move || async move {
        let config = ConsumerConfig { partition_bytes_max: 100_000, ..ConsumerConfig::default() };
        let mut consumer = Consumer::new(&client(), config);
        consumer.assign_topic("large", StartOffset::Earliest).await.expect("assigned");
        let records = read(&mut consumer, 5).await;
        for (number, record) in records.iter().enumerate() {
            assert!(text(&record.value) == value(number), "record {number} is what was sent");
        }
    };
    cluster.run(async move {
        kafka::create(&connect().await, "large", 1, &[]).await;
        let producer = Producer::new(&client(), ProducerConfig::default());
        for number in 0..5 {
            producer.send(record("large", 0, value(number))).await.expect("delivered");
        }
        check().await;
    });
    cluster.stop();
    cluster.start();
    cluster.run(check());
    cluster.finish();
}
