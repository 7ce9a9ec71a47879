//! ListOffsets and OffsetForLeaderEpoch.

use heizer_runtime::sim::EPOCH_MS;
use heizer_wire::ErrorCode;

use crate::cluster::{Cluster, connect};
use crate::kafka::{self, EARLIEST, LATEST, assert_code, batch, batch_at, epoch_end, list_offset};

const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// contract L7
#[test]
fn offsets_are_found_by_time_and_by_position_also_after_a_restart() {
    let mut cluster = Cluster::new(1);
    // Timestamps out of order: the first offset whose timestamp is at least the one asked for counts.
    const TIMES: [i64; 6] = [100, 300, 200, 500, 400, 500];
    let check = || async {
        let connection = connect().await;
        let table = [(0, 0, 100), (100, 0, 100), (101, 1, 300), (300, 1, 300), (301, 3, 500), (500, 3, 500)];
        for (asked, offset, timestamp) in table {
            let found = list_offset(&connection, "timed", 0, EPOCH_MS + asked).await;
            assert_code(found.error_code, ErrorCode::None);
            let expected = (offset, EPOCH_MS + timestamp);
            assert_eq!((found.offset, found.timestamp), expected, "asked for {asked}");
        }
        let none = list_offset(&connection, "timed", 0, EPOCH_MS + 501).await;
        assert_eq!((none.error_code, none.offset, none.timestamp), (0, -1, -1));
        let max = list_offset(&connection, "timed", 0, MAX_TIMESTAMP).await;
        assert_eq!((max.error_code, max.offset, max.timestamp), (0, 3, EPOCH_MS + 500));
        let positions = [(EARLIEST, 0), (EARLIEST_LOCAL, 0), (LATEST, 6), (LATEST_TIERED, -1)];
        for (asked, offset) in positions {
            let found = list_offset(&connection, "timed", 0, asked).await;
            assert_eq!((found.error_code, found.offset), (0, offset), "asked for {asked}");
        }
        let empty = list_offset(&connection, "empty", 0, MAX_TIMESTAMP).await;
        assert_eq!((empty.error_code, empty.offset, empty.timestamp), (0, -1, -1));
        for (topic, partition) in [("timed", 7), ("absent", 0)] {
            let unknown = list_offset(&connection, topic, partition, LATEST).await;
            assert_code(unknown.error_code, ErrorCode::UnknownTopicOrPartition);
        }
    };
    cluster.run(async move {
        let connection = connect().await;
        kafka::create(&connection, "timed", 1, &[]).await;
        kafka::create(&connection, "empty", 1, &[]).await;
        for time in TIMES {
            kafka::produced(&connection, "timed", 0, batch_at(EPOCH_MS + time, "x")).await;
        }
        check().await;
    });
    cluster.stop();
    cluster.start();
    cluster.run(check());
    cluster.finish();
}

/// contract L5
#[test]
fn an_epoch_ends_where_the_next_one_starts() {
    let mut cluster = Cluster::new(2);
    let first = cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "epochs", 1, &[]).await;
        for _ in 0..3 {
            kafka::produced(&connection, "epochs", 0, batch(&["a"])).await;
        }
        kafka::leader_epoch(&connection, "epochs", 0).await
    });
    cluster.crash();
    cluster.run(async move {
        let connection = connect().await;
        let second = kafka::leader_epoch(&connection, "epochs", 0).await;
        assert!(second > first, "an unclean stop raises the epoch: {first}, {second}");
        for _ in 0..2 {
            kafka::produced(&connection, "epochs", 0, batch(&["b"])).await;
        }
        let ended = epoch_end(&connection, "epochs", 0, -1, first).await;
        assert_eq!((ended.error_code, ended.leader_epoch, ended.end_offset), (0, first, 3));
        let latest = epoch_end(&connection, "epochs", 0, -1, second).await;
        assert_eq!((latest.error_code, latest.leader_epoch, latest.end_offset), (0, second, 5));
        let unknown = epoch_end(&connection, "epochs", 0, -1, second + 1).await;
        assert_eq!((unknown.error_code, unknown.leader_epoch, unknown.end_offset), (0, -1, -1));
        // contract F4
        let fenced = epoch_end(&connection, "epochs", 0, first, first).await;
        assert_code(fenced.error_code, ErrorCode::FencedLeaderEpoch);
        let ahead = epoch_end(&connection, "epochs", 0, second + 1, first).await;
        assert_code(ahead.error_code, ErrorCode::UnknownLeaderEpoch);
    });
    cluster.expect_warning("cut the end off a");
    cluster.finish();
}
