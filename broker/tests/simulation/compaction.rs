//! Compacted topics: what clients find of them, and what coordinators do.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use heizer_client::Connection;
use heizer_runtime::time;
use heizer_wire::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup,
};
use heizer_wire::record_batch::{BatchOptions, Compression, RecordBatchBuilder, batches};
use heizer_wire::{ErrorCode, Records};

use crate::cluster::{Cluster, connect};
use crate::kafka::{self, EARLIEST, LATEST, ask, assert_code};
use crate::seeds;

/// A cleaner that does not wait, and segments that are old after a few milliseconds.
const EAGER: [(&str, &str); 3] =
    [("log.cleaner.backoff.ms", "20"), ("log.roll.ms", "30"), ("log.cleaner.min.cleanable.ratio", "0")];

fn keyed(compression: Compression, pairs: &[(String, Option<String>)]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    for (key, value) in pairs {
        let value = value.as_ref().map(String::as_bytes);
        builder.append(time::wall_clock_ms(), Some(key.as_bytes()), value, &[]);
    }
    builder.build()
}

/// Every record of a partition: offset, key, value.
async fn records(connection: &Connection, topic: &str, partition: i32) -> Vec<(i64, Bytes, Option<Bytes>)> {
    let mut offset = kafka::list_offset(connection, topic, partition, EARLIEST).await.offset;
    let mut all = Vec::new();
    loop {
        let data = kafka::fetch_one(connection, topic, partition, offset).await;
        assert_code(data.error_code, ErrorCode::None);
        let before = offset;
        for batch in batches(data.records.as_ref().map(Records::to_bytes).unwrap_or_default()) {
            let batch = batch.expect("a whole batch");
            batch.verify_crc().expect("a sound batch");
            offset = batch.header().next_offset();
            for record in batch.records(64 << 20).expect("known compression") {
                let record = record.expect("a sound record");
                all.push((record.offset, record.key.expect("a key"), record.value));
            }
        }
        if offset == before {
            assert_eq!(data.high_watermark, offset, "nothing is left out");
            return all;
        }
    }
}

/// contract L9: exactly the last value of each key, whatever happens to the broker meanwhile.
#[test]
fn a_compacted_topic_comes_down_to_the_last_value_of_each_key() {
    seeds::each("a_compacted_topic_comes_down", 6, |seed| {
        let mut cluster = Cluster::with(seed, 2, &EAGER);
        let mut expected: BTreeMap<String, (i64, Option<String>)> = BTreeMap::new();
        cluster.run(async {
            let connection = connect().await;
            let configs = [("cleanup.policy", "compact"), ("delete.retention.ms", "0")];
            kafka::create(&connection, "table", 1, &configs).await;
        });
        for round in 0..3_u64 {
            let known = expected.clone();
            expected = cluster.run(async move {
                let (connection, mut expected) = (connect().await, known);
                for at in 0..40_u64 {
                    let key = format!("key-{}", (at * 7 + seed) % 11);
                    let value = (at % 6 != 5).then(|| format!("{round}-{at}"));
                    let compression = Compression::ALL[(at % 5) as usize];
                    let batch = keyed(compression, &[(key.clone(), value.clone())]);
                    let offset = kafka::produced(&connection, "table", 0, batch).await;
                    expected.insert(key, (offset, value));
                    time::sleep(Duration::from_millis(4)).await;
                }
                expected
            });
            if seed % 2 == 0 { cluster.crash() } else { cluster.kill() }
        }
        cluster.run(async move {
            let connection = connect().await;
            let end = kafka::list_offset(&connection, "table", 0, LATEST).await.offset;
            let deadline = time::now() + Duration::from_secs(60);
            let expected: BTreeMap<i64, (String, Option<String>)> = expected
                .into_iter()
                .filter(|(_, (_, value))| value.is_some())
                .map(|(key, (offset, value))| (offset, (key, value)))
                .collect();
            loop {
                // Rounds need something new, and the active segment is none of them.
                kafka::produced(&connection, "table", 0, keyed(Compression::None, &[("~".into(), None)]))
                    .await;
                time::sleep(Duration::from_millis(50)).await;
                let found = records(&connection, "table", 0).await;
                let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("text");
                let found: BTreeMap<i64, (String, Option<String>)> = found
                    .iter()
                    .filter(|(offset, ..)| *offset < end)
                    .map(|(offset, key, value)| (*offset, (text(key), value.as_ref().map(text))))
                    .collect();
                if found == expected {
                    break;
                }
                assert!(time::now() < deadline, "{found:?} instead of {expected:?}");
            }
            assert_eq!(kafka::list_offset(&connection, "table", 0, EARLIEST).await.offset, 0);
            for offset in 0..end {
                let data = kafka::fetch_one(&connection, "table", 0, offset).await;
                assert_code(data.error_code, ErrorCode::None);
            }
        });
        cluster.stop();
        cluster.start();
        cluster.run(async {
            let connection = connect().await;
            assert!(!records(&connection, "table", 0).await.is_empty());
        });
        cluster.finish();
    });
}

async fn commit(connection: &Connection, group: &str, offset: i64) {
    let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
    let topic = OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition] };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let answer = kafka::ask_at(connection, 9, &request).await;
    assert_code(answer.topics[0].partitions[0].error_code, ErrorCode::None);
}

async fn committed(connection: &Connection, group: &str) -> i64 {
    let group = OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let mut answer = kafka::ask_at(connection, 9, &request).await;
    answer.groups.remove(0).topics.remove(0).partitions.remove(0).committed_offset
}

/// contract G3, L9: the offsets topic is compacted, and a coordinator is none the worse for it.
#[test]
fn committed_offsets_survive_the_compaction_of_their_topic() {
    let mut cluster = Cluster::with(3, 2, &EAGER);
    const COMMITS: i64 = 60;
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 1, &[]).await;
        for offset in 0..=COMMITS {
            for group in ["g1", "g2", "g3", "g4"] {
                commit(&connection, group, offset).await;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
        let deadline = time::now() + Duration::from_secs(60);
        loop {
            let mut left = 0;
            for partition in 0..3 {
                left += records(&connection, "__consumer_offsets", partition).await.len();
            }
            if left < 80 {
                break;
            }
            assert!(time::now() < deadline, "{left} records are left");
            time::sleep(Duration::from_millis(50)).await;
        }
    });
    cluster.crash();
    cluster.run(async {
        let connection = connect().await;
        for group in ["g1", "g2", "g3", "g4"] {
            loop {
                let listed =
                    OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() };
                let request = OffsetFetchRequest { groups: vec![listed], ..Default::default() };
                let answer = ask(&connection, &request).await;
                if ErrorCode::from_code(answer.groups[0].error_code) == ErrorCode::None {
                    break;
                }
                time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(committed(&connection, group).await, COMMITS, "{group}");
        }
    });
    cluster.finish();
}

/// A topic that is deleted while it is cleaned goes at once, and its name is free.
#[test]
fn a_topic_can_be_deleted_while_it_is_compacted() {
    let settings = [EAGER[0], EAGER[1], EAGER[2], ("log.cleaner.io.max.bytes.per.second", "2000")];
    let mut cluster = Cluster::with(4, 2, &settings);
    cluster.run(async {
        let connection = connect().await;
        for life in 0..3 {
            kafka::create(&connection, "table", 2, &[("cleanup.policy", "compact,delete")]).await;
            for at in 0..30 {
                let pairs = [(format!("key-{}", at % 3), Some("v".repeat(300)))];
                let offset =
                    kafka::produced(&connection, "table", at % 2, keyed(Compression::None, &pairs)).await;
                assert_eq!(offset, i64::from(at / 2), "life {life} starts anew");
                time::sleep(Duration::from_millis(10)).await;
            }
            let asked = time::now();
            assert_code(kafka::delete(&connection, "table").await.error_code, ErrorCode::None);
            assert!(time::now() - asked < Duration::from_secs(2));
        }
    });
    cluster.finish();
}
