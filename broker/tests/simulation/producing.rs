//! What a Produce is refused for, and what an idempotent producer may count on.

use bytes::{Bytes, BytesMut};
use heizer_client::Connection;
use heizer_runtime::time;
use heizer_wire::ErrorCode;
use heizer_wire::record_batch::{
    BatchHeader, BatchOptions, HEADER_BYTES, RecordBatchBuilder, rewrite_log_append_time,
};

use crate::cluster::{Cluster, connect};
use crate::kafka::{self, ALL, assert_code, batch, batch_at, sequenced};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// `batch` with another header, sealed anew.
fn altered(batch: &Bytes, alter: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).expect("a batch");
    let mut bytes = BytesMut::from(&batch[..]);
    alter(&mut header);
    let max_timestamp = header.max_timestamp;
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    // The only way to a new CRC: as if log append time were set, then the attributes and CRC of CreateTime.
    rewrite_log_append_time(&mut bytes, max_timestamp);
    heizer_wire::record_batch::rewrite_timestamps(
        &mut bytes,
        heizer_wire::record_batch::TimestampType::CreateTime,
        max_timestamp,
    );
    bytes.freeze()
}

fn keyless(compression: heizer_client::Compression) -> Bytes {
    let mut builder = RecordBatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    builder.append(time::wall_clock_ms(), Some(b"key"), Some(b"x"), &[]);
    builder.append(time::wall_clock_ms(), None, Some(b"x"), &[]);
    builder.build()
}

async fn assert_refused(connection: &Connection, topic: &str, records: Bytes, code: ErrorCode, why: &str) {
    let answer = kafka::produce(connection, topic, 0, ALL, records).await;
    assert_eq!(ErrorCode::from_code(answer.error_code), code, "{why}: {:?}", answer.error_message);
    assert_eq!(answer.base_offset, -1, "{why}");
}

/// contract L3
#[test]
fn a_refused_batch_leaves_nothing_behind() {
    let mut cluster = Cluster::new(1);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "strict", 1, &[("max.message.bytes", "10000")]).await;
        let good = batch(&["one", "two"]);
        let mut flipped = BytesMut::from(&good[..]);
        *flipped.last_mut().expect("bytes") ^= 1;
        let large = "x".repeat(10_001);
        let control = kafka::batch_with(BatchOptions { control: true, ..Default::default() }, &["c"]);
        let two = Bytes::from([&good[..], &good[..]].concat());
        let cases = [
            ("a bad CRC", flipped.freeze(), ErrorCode::CorruptMessage),
            ("half a batch", good.slice(..good.len() - 3), ErrorCode::InvalidRecord),
            ("too large", batch(&[&large]), ErrorCode::MessageTooLarge),
            ("fewer records than counted", altered(&good, |h| h.record_count = 3), ErrorCode::InvalidRecord),
            ("more records than counted", altered(&good, |h| h.record_count = 1), ErrorCode::InvalidRecord),
            ("no records", altered(&good, |h| h.record_count = 0), ErrorCode::InvalidRecord),
            ("a delta beyond", altered(&good, |h| h.last_offset_delta = 5), ErrorCode::InvalidRecord),
            ("a control batch", control, ErrorCode::InvalidRecord),
            ("two batches", two, ErrorCode::InvalidRecord),
            ("no sequence", sequenced(7, 0, -1, &["x"]), ErrorCode::InvalidRecord),
        ];
        for (why, records, code) in cases {
            assert_refused(&connection, "strict", records, code, why).await;
        }
        let latest = kafka::list_offset(&connection, "strict", 0, kafka::LATEST).await;
        assert_eq!(latest.offset, 0, "nothing was appended");
        assert_eq!(kafka::produced(&connection, "strict", 0, good).await, 0);
        for (topic, partition, code) in [
            ("strict", 1, ErrorCode::UnknownTopicOrPartition),
            ("strict", -1, ErrorCode::UnknownTopicOrPartition),
            ("absent", 0, ErrorCode::UnknownTopicOrPartition),
        ] {
            let answer = kafka::produce(&connection, topic, partition, ALL, batch(&["x"])).await;
            assert_code(answer.error_code, code);
        }
        let answer = kafka::produce(&connection, "strict", 0, 2, batch(&["x"])).await;
        assert_code(answer.error_code, ErrorCode::InvalidRequiredAcks);
        let read = kafka::read_all(&connection, "strict", 0).await;
        assert_eq!(read, [(0, "one".to_owned()), (1, "two".to_owned())]);
    });
    cluster.finish();
}

/// contract L3
#[test]
fn a_compacted_topic_takes_no_record_without_a_key() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "table", 1, &[("cleanup.policy", "compact")]).await;
        kafka::create(&connection, "stream", 1, &[]).await;
        for compression in heizer_client::Compression::ALL {
            let why = format!("{compression:?}");
            assert_refused(&connection, "table", keyless(compression), ErrorCode::InvalidRecord, &why).await;
            kafka::produced(&connection, "stream", 0, keyless(compression)).await;
        }
        assert_eq!(kafka::produced(&connection, "table", 0, batch(&["keyed"])).await, 0);
    });
    cluster.finish();
}

/// contract L3
#[test]
fn timestamps_out_of_range_are_refused() {
    let mut cluster = Cluster::new(3);
    cluster.run(async {
        let connection = connect().await;
        let configs =
            [("message.timestamp.before.max.ms", "86400000"), ("message.timestamp.after.max.ms", "3600000")];
        kafka::create(&connection, "timely", 1, &configs).await;
        kafka::create(&connection, "default", 1, &[]).await;
        let now_ms = time::wall_clock_ms();
        let refused = [now_ms - DAY_MS - 60_000, now_ms + DAY_MS / 2];
        for timestamp in refused {
            let records = batch_at(timestamp, "x");
            assert_refused(&connection, "timely", records, ErrorCode::InvalidTimestamp, "out of range").await;
        }
        for timestamp in [now_ms - DAY_MS / 2, now_ms, now_ms + DAY_MS / 48] {
            kafka::produced(&connection, "timely", 0, batch_at(timestamp, "x")).await;
        }
        // By default the past is open, and the future is an hour.
        kafka::produced(&connection, "default", 0, batch_at(1, "x")).await;
        let records = batch_at(now_ms + DAY_MS, "x");
        assert_refused(&connection, "default", records, ErrorCode::InvalidTimestamp, "a day ahead").await;
        assert_eq!(kafka::list_offset(&connection, "timely", 0, kafka::LATEST).await.offset, 3);
    });
    cluster.finish();
}

/// A partition with seven batches of two records by one producer, of which the broker remembers five.
async fn fill(connection: &Connection, id: i64, epoch: i16) {
    for at in 0..7 {
        let records = sequenced(id, epoch, at * 2, &["a", "b"]);
        assert_eq!(kafka::produced(connection, "once", 0, records).await, i64::from(at) * 2);
    }
}

/// The last `known` batches are known again, and nothing else is taken for one of them.
async fn assert_idempotent(connection: &Connection, (id, epoch): (i64, i16), known: i32) {
    for at in 7 - known..7 {
        let records = sequenced(id, epoch, at * 2, &["a", "b"]);
        let base = kafka::produced(connection, "once", 0, records).await;
        assert_eq!(base, i64::from(at) * 2, "a duplicate gets its original offset");
    }
    let gap = kafka::produce(connection, "once", 0, ALL, sequenced(id, epoch, 16, &["a"])).await;
    assert_code(gap.error_code, ErrorCode::OutOfOrderSequenceNumber);
    let older = kafka::produce(connection, "once", 0, ALL, sequenced(id, epoch - 1, 14, &["a"])).await;
    assert_code(older.error_code, ErrorCode::InvalidProducerEpoch);
    let half = kafka::produce(connection, "once", 0, ALL, sequenced(id, epoch + 1, 3, &["a"])).await;
    assert_code(half.error_code, ErrorCode::OutOfOrderSequenceNumber);
    let end = kafka::list_offset(connection, "once", 0, kafka::LATEST).await;
    assert_eq!(end.offset, 14, "nothing was appended");
}

/// contract T1
#[test]
fn duplicates_get_their_original_offset_and_gaps_are_refused_also_after_restarts() {
    // A producer snapshot in Kafka's format holds the last batch of each producer; the log, which is read again after
    // an unclean stop, holds all.
    for (how, known) in [("stop", 1), ("kill", 5), ("crash", 5)] {
        let mut cluster = Cluster::new(4);
        let id = cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "once", 1, &[]).await;
            // A first epoch above zero, so that there is an older one.
            let (id, epoch) = kafka::producer_id(&connection).await;
            fill(&connection, id, epoch + 1).await;
            assert_idempotent(&connection, (id, epoch + 1), 5).await;
            (id, epoch + 1)
        });
        match how {
            "stop" => {
                cluster.stop();
                cluster.start();
            }
            "kill" => cluster.kill(),
            _ => cluster.crash(),
        }
        cluster.run(async move {
            let connection = connect().await;
            assert_idempotent(&connection, id, known).await;
            let (id, epoch) = id;
            assert_eq!(kafka::produced(&connection, "once", 0, sequenced(id, epoch, 14, &["c"])).await, 14);
            // A new epoch starts at zero, an unknown producer anywhere (KIP-360).
            assert_eq!(
                kafka::produced(&connection, "once", 0, sequenced(id, epoch + 1, 0, &["d"])).await,
                15
            );
            let (other, other_epoch) = kafka::producer_id(&connection).await;
            assert_ne!(other, id, "ids are never given twice");
            let records = sequenced(other, other_epoch, 40, &["e"]);
            assert_eq!(kafka::produced(&connection, "once", 0, records).await, 16);
        });
        cluster.expect_warning("cut the end off a");
        cluster.finish();
    }
}

/// contract T1: sequences wrap at int32.
#[test]
fn sequences_wrap() {
    let mut cluster = Cluster::new(5);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "wrap", 1, &[]).await;
        let (id, epoch) = kafka::producer_id(&connection).await;
        kafka::produced(&connection, "wrap", 0, sequenced(id, epoch, i32::MAX - 1, &["a", "b", "c"])).await;
        assert_eq!(kafka::produced(&connection, "wrap", 0, sequenced(id, epoch, 1, &["d"])).await, 3);
        let again = sequenced(id, epoch, i32::MAX - 1, &["a", "b", "c"]);
        assert_eq!(kafka::produced(&connection, "wrap", 0, again).await, 0);
    });
    cluster.finish();
}

/// contract T1: every connection and both cores give ids that nobody else has.
#[test]
fn producer_ids_are_unique_over_cores_and_restarts() {
    let mut cluster = Cluster::new(6);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..3 {
        let ids = cluster.run(async {
            let mut ids = Vec::new();
            for _ in 0..6 {
                let connection = connect().await;
                ids.push(kafka::producer_id(&connection).await);
                ids.push(kafka::producer_id(&connection).await);
            }
            ids
        });
        for (id, epoch) in ids {
            assert!(id >= 0 && epoch == 0 && seen.insert(id), "round {round}: {id} epoch {epoch}");
        }
        cluster.crash();
    }
    cluster.run(async { drop(connect().await) });
    cluster.finish();
}
