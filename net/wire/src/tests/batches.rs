//! Record batches against the oracle, and every refusal of contract L3.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as kp;

use super::random::Gen;
use crate::record_batch::*;

const RULES: ProduceRules = ProduceRules { batch_bytes_max: 1 << 20, zstd_allowed: true };
const BYTES_MAX: usize = 1 << 20;

pub(super) fn sample(compression: Compression) -> Bytes {
    let mut builder = RecordBatchBuilder::new(BatchOptions { compression, ..Default::default() });
    builder
        .append(1000, Some(b"key"), Some(b"value"), &[(b"h", Some(b"1")), (b"h", None)])
        .append(1005, None, Some(b""), &[])
        .append(990, Some(b""), None, &[]);
    builder.build()
}

/// `sample` with a header field changed and the CRC made right again.
fn forged(change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut bytes = sample(Compression::None).to_vec();
    let mut header = BatchHeader::parse(&bytes).expect("a header");
    change(&mut header);
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    reseal(bytes)
}

fn reseal(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn refusal(bytes: &Bytes) -> ProduceError {
    validate_produce(bytes, &RULES).expect_err("must be refused")
}

fn oracle_compression(compression: Compression) -> kp::Compression {
    match compression {
        Compression::None => kp::Compression::None,
        Compression::Gzip => kp::Compression::Gzip,
        Compression::Snappy => kp::Compression::Snappy,
        Compression::Lz4 => kp::Compression::Lz4,
        Compression::Zstd => kp::Compression::Zstd,
    }
}

#[test]
fn the_oracle_reads_our_batches_in_every_compression() {
    for compression in Compression::ALL {
        let mut g = Gen::new(compression.id() as u64);
        let options = BatchOptions { compression, base_offset: 40, ..Default::default() };
        let mut builder = RecordBatchBuilder::new(options);
        let records: Vec<_> = (0..300).map(|i| (1_700_000_000_000 + i, g.bytes(), g.bytes())).collect();
        for (timestamp, key, value) in &records {
            builder.append(*timestamp, Some(key), Some(value), &[(b"name", Some(value))]);
        }
        let set = kp::RecordBatchDecoder::decode(&mut builder.build()).expect("the oracle decodes");
        assert_eq!(set.records.len(), records.len());
        for (index, (theirs, (timestamp, key, value))) in set.records.iter().zip(&records).enumerate() {
            assert_eq!(theirs.offset, 40 + index as i64);
            assert_eq!(theirs.timestamp, *timestamp);
            assert_eq!((theirs.key.as_ref(), theirs.value.as_ref()), (Some(key), Some(value)));
            assert_eq!(theirs.headers.len(), 1);
        }
    }
}

#[test]
fn we_read_the_oracles_batches_in_every_compression() {
    for compression in Compression::ALL {
        let mut g = Gen::new(100 + compression.id() as u64);
        let records: Vec<kp::Record> = (0..300)
            .map(|i| kp::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 3,
                producer_id: 77,
                producer_epoch: 1,
                timestamp_type: kp::TimestampType::Creation,
                offset: i,
                sequence: i as i32,
                timestamp: 5000 - i,
                key: (i % 3 != 0).then(|| g.bytes()),
                value: (i % 5 != 0).then(|| g.bytes()),
                headers: IndexMap::from([(StrBytes::from_static_str("a"), Some(g.bytes()))]),
            })
            .collect();
        let options = kp::RecordEncodeOptions { version: 2, compression: oracle_compression(compression) };
        let mut encoded = BytesMut::new();
        kp::RecordBatchEncoder::encode(&mut encoded, &records, &options).expect("the oracle encodes");
        let (batch, info) = validate_produce(&encoded.freeze(), &RULES).expect("valid");
        assert_eq!((info.record_count, info.compression, info.max_timestamp), (300, compression, 5000));
        assert_eq!((info.producer_id, info.producer_epoch), (77, 1));
        assert_eq!((info.first_sequence, info.last_sequence), (0, 299));
        let ours: Vec<Record> =
            batch.records(BYTES_MAX).expect("records").collect::<Result<_, _>>().expect("every record");
        assert_eq!(ours.len(), records.len());
        for (ours, theirs) in ours.iter().zip(&records) {
            assert_eq!((ours.offset, ours.timestamp), (theirs.offset, theirs.timestamp));
            assert_eq!((&ours.key, &ours.value), (&theirs.key, &theirs.value));
            assert_eq!(ours.headers[0].value, theirs.headers[0]);
        }
    }
}

#[test]
fn null_and_empty_and_duplicate_headers_survive() {
    for compression in Compression::ALL {
        let bytes = sample(compression);
        let (batch, info) = validate_produce(&bytes, &RULES).expect("valid");
        assert_eq!(info.walked.is_some(), compression == Compression::None);
        let records: Vec<_> =
            batch.records(BYTES_MAX).expect("records").map(|r| r.expect("a record")).collect();
        assert_eq!(records[0].headers.len(), 2);
        assert_eq!(records[0].headers[0].key, records[0].headers[1].key);
        assert_eq!((&records[1].key, &records[1].value), (&None, &Some(Bytes::new())));
        assert_eq!((&records[2].key, &records[2].value), (&Some(Bytes::new()), &None));
        assert_eq!(records.iter().map(|r| r.timestamp).collect::<Vec<_>>(), [1000, 1005, 990]);
    }
}

#[test]
fn walking_shows_timestamps_and_missing_keys() {
    let (_, info) = validate_produce(&sample(Compression::None), &RULES).expect("valid");
    let walked = WalkedRecords { timestamp_min: 990, timestamp_max: 1005, all_keyed: false };
    assert_eq!((info.walked, info.max_timestamp), (Some(walked), 1005));
}

// contract L3
#[test]
fn a_batch_that_disagrees_with_itself_is_refused() {
    let header = BatchHeader::parse(&sample(Compression::None)).expect("a header");
    assert_eq!(refusal(&Bytes::new()), ProduceError::Empty);
    assert_eq!(refusal(&forged(|h| h.base_offset = 5)), ProduceError::BaseOffset(5));
    assert!(matches!(refusal(&forged(|h| h.record_count = 2)), ProduceError::Count { count: 2, .. }));
    assert!(matches!(refusal(&forged(|h| h.last_offset_delta = 7)), ProduceError::Count { .. }));
    let none = |h: &mut BatchHeader| (h.record_count, h.last_offset_delta) = (0, -1);
    assert!(matches!(refusal(&forged(none)), ProduceError::Count { count: 0, .. }));
    let fewer = |h: &mut BatchHeader| (h.record_count, h.last_offset_delta) = (2, 1);
    assert!(matches!(refusal(&forged(fewer)), ProduceError::Records(RecordError::Trailing(_))));
    let more = |h: &mut BatchHeader| (h.record_count, h.last_offset_delta) = (4, 3);
    assert_eq!(refusal(&forged(more)), ProduceError::Records(RecordError::Truncated));
    assert_eq!(refusal(&forged(|h| h.attributes = 1 << 5)), ProduceError::Control);
    assert_eq!(refusal(&forged(|h| h.attributes = 7)), ProduceError::UnknownCompression(7));
    assert!(matches!(refusal(&forged(|h| h.producer_id = 9)), ProduceError::Sequence { .. }));
    let mut bad = sample(Compression::None).to_vec();
    bad[70] ^= 1;
    assert!(matches!(refusal(&bad.into()), ProduceError::Batch(BatchError::Crc { .. })));
    let short = forged(|h| h.batch_length = header.batch_length + 1);
    assert!(matches!(refusal(&short), ProduceError::Batch(BatchError::Truncated { .. })));
    for length in [-1, 0, 48, i32::MIN] {
        let result = refusal(&forged(|h| h.batch_length = length));
        assert_eq!(result, ProduceError::Batch(BatchError::InvalidLength(length)));
    }
}

// contract L3
#[test]
fn offset_deltas_must_count_up_from_0() {
    let mut bytes = sample(Compression::None).to_vec();
    // length, attributes, timestamp delta, then the offset delta of the first record: 0 → 1
    assert_eq!(bytes[HEADER_BYTES + 3], 0);
    bytes[HEADER_BYTES + 3] = 2;
    assert_eq!(refusal(&reseal(bytes)), ProduceError::OffsetDelta { expected: 0, found: 1 });
}

// contract L3
#[test]
fn one_batch_per_partition_and_not_too_large() {
    let one = sample(Compression::None);
    assert_eq!(refusal(&[&one[..], &one[..]].concat().into()), ProduceError::SeveralBatches);
    let rules = ProduceRules { batch_bytes_max: one.len() - 1, ..RULES };
    let result = validate_produce(&one, &rules).map(|_| ());
    assert_eq!(result, Err(ProduceError::TooLarge { size: one.len(), max: one.len() - 1 }));
    let rules = ProduceRules { zstd_allowed: false, ..RULES };
    let result = validate_produce(&sample(Compression::Zstd), &rules).map(|_| ());
    assert_eq!(result, Err(ProduceError::ZstdNotAllowed));
}

// contract L4
#[test]
fn message_formats_0_and_1_are_refused_by_their_magic() {
    for magic in [0, 1, 3, -1] {
        let mut old = vec![0; 40];
        old[16] = magic as u8;
        let error = refusal(&old.into());
        assert_eq!(error, ProduceError::Batch(BatchError::UnsupportedMagic(magic)));
    }
}

// contract L4
#[test]
fn raw_snappy_is_read_like_xerials() {
    let plain = Bytes::from(vec![b'x'; 100_000]);
    let raw = snap::raw::Encoder::new().compress_vec(&plain).expect("compresses");
    assert_eq!(Compression::Snappy.decompress(&raw.into(), BYTES_MAX), Ok(plain.clone()));
    let framed = Bytes::from(Compression::Snappy.compress(&plain));
    assert!(framed.starts_with(b"\x82SNAPPY\0"));
    assert_eq!(Compression::Snappy.decompress(&framed, BYTES_MAX), Ok(plain));
}

#[test]
fn decompression_stops_at_its_bound() {
    let plain = vec![0; 1 << 20];
    for compression in Compression::ALL {
        let bomb = Bytes::from(compression.compress(&plain));
        assert_eq!(compression.decompress(&bomb, plain.len()).map(|out| out.len()), Ok(plain.len()));
        let result = compression.decompress(&bomb, plain.len() - 1);
        assert_eq!(result, Err(CompressionError::TooLarge(plain.len() - 1)), "{compression:?}");
        if compression != Compression::None {
            let cut = bomb.slice(..bomb.len() / 2);
            assert!(compression.decompress(&cut, plain.len()).is_err(), "{compression:?}");
        }
    }
}

// contract L1
#[test]
fn offset_and_epoch_are_patched_without_a_new_crc() {
    let mut bytes = sample(Compression::Lz4).to_vec();
    set_base_offset(&mut bytes, 123_456_789_012);
    set_partition_leader_epoch(&mut bytes, 7);
    let batch = BatchView::parse(&bytes.into()).expect("a batch");
    batch.verify_crc().expect("the CRC does not cover them");
    let header = batch.header();
    assert_eq!((header.base_offset, header.partition_leader_epoch), (123_456_789_012, 7));
    assert_eq!((header.last_offset(), header.next_offset()), (123_456_789_014, 123_456_789_015));
}

// contract L1
#[test]
fn log_append_time_gets_a_new_crc_and_holds_for_every_record() {
    let mut bytes = sample(Compression::Gzip).to_vec();
    rewrite_log_append_time(&mut bytes, 4242);
    let batch = BatchView::parse(&bytes.into()).expect("a batch");
    batch.verify_crc().expect("a new CRC");
    assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(batch.header().compression(), Ok(Compression::Gzip));
    assert!(
        batch.records(BYTES_MAX).expect("records").all(|record| record.is_ok_and(|r| r.timestamp == 4242))
    );
}

// contract T1
#[test]
fn sequences_wrap_at_int32() {
    let bytes = forged(|h| (h.producer_id, h.producer_epoch, h.base_sequence) = (1, 0, i32::MAX - 1));
    let (_, info) = validate_produce(&bytes, &RULES).expect("valid");
    assert_eq!((info.first_sequence, info.last_sequence), (i32::MAX - 1, 0));
}

#[test]
fn batches_follow_each_other_until_one_is_cut() {
    let one = sample(Compression::None);
    let two = Bytes::from([&one[..], &one[..], &one[..30]].concat());
    let mut iter = batches(two);
    assert!(iter.next().is_some_and(|batch| batch.is_ok_and(|batch| batch.bytes() == &one)));
    assert!(iter.next().is_some_and(|batch| batch.is_ok()));
    assert!(matches!(iter.next(), Some(Err(BatchError::Truncated { remaining: 30, .. }))));
    assert!(iter.next().is_none());
}
