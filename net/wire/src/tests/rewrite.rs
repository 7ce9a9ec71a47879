//! What compaction makes of a batch, read by the oracle.

use kafka_protocol::records as kp;

use super::batches::sample;
use crate::record_batch::*;

const BYTES_MAX: usize = 1 << 20;
const HORIZON: i64 = 1_700_000_000_000;

/// contract L9, KIP-534: clients see the records that are left, at their offsets and with their timestamps.
#[test]
fn the_oracle_reads_rewritten_batches_in_every_compression() {
    for compression in Compression::ALL {
        let original = BatchView::parse(&sample(compression)).expect("a batch");
        let unpacked = original.unpack(BYTES_MAX).expect("sound");
        let raw: Vec<_> = unpacked.records().map(|record| record.expect("sound")).collect();
        let facts: Vec<_> = raw
            .iter()
            .map(|record| (record.offset, record.timestamp, record.key, record.value.is_some()))
            .collect();
        let expected: [(i64, i64, Option<&[u8]>, bool); 3] =
            [(0, 1000, Some(b"key"), true), (1, 1005, None, true), (2, 990, Some(b""), false)];
        assert_eq!(facts, expected);
        for horizon in [None, Some(HORIZON)] {
            let mut rebuilt = unpacked.rebuild(&[true, false, true], horizon).expect("sound");
            let view = BatchView::parse(&rebuilt).expect("a batch");
            view.verify_crc().expect("a right CRC");
            let header = view.header();
            assert_eq!((header.record_count, header.last_offset(), header.max_timestamp), (2, 2, 1000));
            assert_eq!((header.delete_horizon_ms(), header.compression()), (horizon, Ok(compression)));
            let ours: Vec<Record> =
                view.records(BYTES_MAX).expect("records").map(|r| r.expect("sound")).collect();
            let all: Vec<Record> =
                original.records(BYTES_MAX).expect("records").map(|r| r.expect("sound")).collect();
            assert_eq!(ours, [all[0].clone(), all[2].clone()]);
            let set = kp::RecordBatchDecoder::decode(&mut rebuilt).expect("the oracle decodes");
            let theirs: Vec<_> = set
                .records
                .into_iter()
                .map(|record| (record.offset, record.timestamp, record.value))
                .collect();
            assert_eq!(theirs, [(0, 1000, all[0].value.clone()), (2, 990, None)]);
        }
        let mut empty = empty_batch(original.header());
        assert_eq!(
            (empty.len(), BatchHeader::parse(&empty).expect("a header").last_offset()),
            (HEADER_BYTES, 2)
        );
        let set = kp::RecordBatchDecoder::decode(&mut empty).expect("the oracle decodes");
        assert!(set.records.is_empty());
    }
}
