//! What becomes of single batches.

use heizer_wire::record_batch::{TimestampType, empty_batch, rewrite_log_append_time, set_base_offset};

use super::super::filter::{Fate, Filter, Removed};
use super::super::{DECOMPRESSED_BYTES_MAX, Marker, OffsetMap};
use super::*;

const HORIZON: i64 = 5_000;

fn at(bytes: &Bytes, offset: i64) -> BatchView {
    let mut bytes = bytes.to_vec();
    set_base_offset(&mut bytes, offset);
    BatchView::parse(&bytes.into()).expect("a batch of our own")
}

fn of(batch: &BatchView) -> Vec<Record> {
    records(std::slice::from_ref(batch))
}

fn map(keys: &[(&str, i64)]) -> OffsetMap {
    let mut map = OffsetMap::new(4096, [1; 16]);
    assert!(keys.iter().all(|(key, offset)| map.put(key.as_bytes(), *offset)));
    map
}

fn filter(map: &OffsetMap, now_ms: i64) -> Filter<'_> {
    Filter { map, now_ms, delete_retention_ms: HORIZON - 1_000 }
}

fn replaced(fate: Fate) -> BatchView {
    let Fate::Replace(bytes) = fate else { panic!("{fate:?}") };
    let view = BatchView::parse(&bytes).expect("a whole batch");
    view.verify_crc().expect("a right CRC");
    assert_eq!(view.bytes().len(), bytes.len());
    view
}

/// contract L9: the last of each key, whatever the compression; nothing else about a record changes.
#[test]
fn a_batch_keeps_the_last_of_each_key_under_its_compression() {
    let pairs = [("a", Some("1")), ("b", Some("2")), ("a", Some("3")), ("c", Some("")), ("b", Some("5"))];
    for compression in Compression::ALL {
        let original = at(&batch(compressed(compression), 700, &pairs), 40);
        let map = map(&[("a", 42), ("c", 43), ("b", 90)]);
        let (fate, removed) = filter(&map, 0).data(&original, false, false).expect("sound");
        assert_eq!(removed, Removed { records: 3, keyless: 0 });
        let rewritten = replaced(fate);
        let all = of(&original);
        assert_eq!(of(&rewritten), [all[2].clone(), all[3].clone()], "{compression:?}");
        let (old, new) = (original.header(), rewritten.header());
        assert_eq!(new.compression(), Ok(compression));
        assert_eq!((new.record_count, new.max_timestamp), (2, 703), "the greatest timestamp of what stays");
        let same = |header: &BatchHeader| {
            (
                header.base_offset,
                header.last_offset_delta,
                header.partition_leader_epoch,
                header.base_timestamp,
            )
        };
        assert_eq!(same(new), same(old), "offsets never move");
    }
}

#[test]
fn a_batch_that_loses_nothing_is_copied_and_one_that_loses_all_is_gone_or_a_header() {
    let original = at(&batch(sequenced(7, 30), 700, &[("a", Some("1")), ("b", Some("2"))]), 40);
    let (fate, _) = filter(&map(&[("a", 40), ("b", 41)]), 0).data(&original, false, false).expect("sound");
    assert_eq!(fate, Fate::Copy);
    let later = map(&[("a", 50), ("b", 51)]);
    let (fate, removed) = filter(&later, 0).data(&original, false, false).expect("sound");
    assert_eq!((fate, removed.records), (Fate::Drop, 2));
    let (fate, _) = filter(&later, 0).data(&original, false, true).expect("sound");
    let emptied = replaced(fate);
    let header = emptied.header();
    assert_eq!((header.record_count, header.base_offset, header.last_offset()), (0, 40, 41));
    assert_eq!((header.producer_id, header.base_sequence, header.last_sequence()), (7, 30, 31));
    assert_eq!((emptied.bytes().len(), of(&emptied).len()), (61, 0));
    // The next round copies it, or lets it go.
    let fates = [true, false].map(|retain| filter(&later, 0).data(&emptied, false, retain).expect("sound").0);
    assert_eq!(fates, [Fate::Copy, Fate::Drop]);
    let (aborted, _) = filter(&map(&[]), 0).data(&original, true, false).expect("sound");
    assert_eq!(aborted, Fate::Drop, "aborted data goes at once, last of its key or not");
}

/// What the map knows nothing of stays: records behind its range, and under it those whose key it has never seen.
#[test]
fn records_beyond_the_maps_range_stay() {
    let original = at(&batch(BatchOptions::default(), 700, &[("a", Some("1")), ("a", Some("2"))]), 40);
    let (fate, _) = filter(&map(&[("z", 39)]), 0).data(&original, false, false).expect("sound");
    assert_eq!(fate, Fate::Copy);
    let (fate, removed) = filter(&map(&[("a", 40)]), 0).data(&original, false, false).expect("sound");
    assert_eq!((fate, removed.records), (Fate::Copy, 0));
}

/// A compacted log cannot keep what has no key; it may have been there before its policy was.
#[test]
fn records_without_a_key_go() {
    let mut builder = RecordBatchBuilder::new(BatchOptions::default());
    builder.append(1, None, Some(b"x"), &[]).append(2, Some(b"k"), Some(b"y"), &[]);
    let original = at(&builder.build(), 0);
    let (fate, removed) = filter(&map(&[("k", 1)]), 0).data(&original, false, false).expect("sound");
    assert_eq!(removed, Removed { records: 1, keyless: 1 });
    assert_eq!(of(&replaced(fate)).len(), 1);
}

/// KIP-534: the horizon is stamped at the first pass, timestamps stay right, the tombstone goes when it has passed.
#[test]
fn a_tombstone_stays_until_the_horizon_of_its_batch() {
    let pairs = [("a", None), ("b", Some("2")), ("c", None)];
    let latest = map(&[("a", 40), ("b", 41), ("c", 42)]);
    for (compression, log_append_time) in Compression::ALL.into_iter().flat_map(|c| [(c, false), (c, true)]) {
        let mut bytes = batch(compressed(compression), 700, &pairs).to_vec();
        if log_append_time {
            rewrite_log_append_time(&mut bytes, 900);
        }
        let original = at(&bytes.into(), 40);
        let (fate, removed) = filter(&latest, 1_000).data(&original, false, false).expect("sound");
        assert_eq!(removed.records, 0);
        let stamped = replaced(fate);
        assert_eq!(stamped.header().delete_horizon_ms(), Some(HORIZON));
        assert_eq!(of(&stamped), of(&original), "{compression:?}");
        assert_eq!(stamped.header().max_timestamp, original.header().max_timestamp);
        let type_ = if log_append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        assert_eq!(stamped.header().timestamp_type(), type_);
        let (fate, _) = filter(&latest, HORIZON - 1).data(&stamped, false, false).expect("sound");
        assert_eq!(fate, Fate::Copy, "stamped once");
        let (fate, removed) = filter(&latest, HORIZON).data(&stamped, false, false).expect("sound");
        assert_eq!(removed.records, 2);
        let rest = replaced(fate);
        assert_eq!(of(&rest), [of(&original)[1].clone()]);
        assert_eq!(rest.header().delete_horizon_ms(), Some(HORIZON), "what is there stays");
    }
    let original = at(&batch(BatchOptions::default(), 700, &[("a", None)]), 40);
    let (fate, _) = filter(&map(&[("z", 39)]), 1_000).data(&original, false, false).expect("sound");
    assert_eq!(fate, Fate::Copy, "a tombstone that no pass has seen yet gets no horizon");
}

/// contract L9: a marker goes only after the data of its transaction and the horizon.
#[test]
fn a_marker_gets_its_horizon_when_its_data_is_gone_and_goes_after_it() {
    for (kind, marker) in [(0, Marker::Abort), (1, Marker::Commit)] {
        let options = BatchOptions { transactional: true, control: true, ..sequenced(7, -1) };
        let mut builder = RecordBatchBuilder::new(options);
        builder.append(700, Some(&[0, 0, 0, kind]), Some(&[0, 0, 0, 0, 0, 1]), &[]);
        let original = at(&builder.build(), 40);
        let unpack = |batch: &BatchView| batch.unpack(DECOMPRESSED_BYTES_MAX).expect("sound");
        assert_eq!(Marker::of(&unpack(&original)), Some(marker));
        let map = map(&[("z", 90)]);
        let judge = |batch: &BatchView, now_ms, done, retain| {
            filter(&map, now_ms).control(batch.header(), &unpack(batch), done, retain).expect("sound").0
        };
        assert_eq!(judge(&original, 9_999, false, false), Fate::Copy, "its data is there");
        let stamped = replaced(judge(&original, 1_000, true, false));
        assert_eq!(stamped.header().delete_horizon_ms(), Some(HORIZON));
        assert_eq!(of(&stamped), of(&original));
        assert_eq!(judge(&stamped, HORIZON - 1, true, false), Fate::Copy);
        assert_eq!(judge(&stamped, HORIZON, false, false), Fate::Copy);
        assert_eq!(judge(&stamped, HORIZON, true, false), Fate::Drop);
        let last = replaced(judge(&stamped, HORIZON, true, true));
        assert!(last.header().is_control() && last.header().is_transactional());
        assert_eq!((last.header().record_count, last.header().delete_horizon_ms()), (0, None));
        assert_eq!(Marker::of(&unpack(&last)), None);
    }
}

#[test]
fn damaged_records_are_an_error_and_no_loss() {
    let whole = batch(compressed(Compression::Gzip), 700, &[("a", Some("1"))]);
    let mut cut = whole.to_vec();
    let at_end = cut.len() - 12;
    cut[at_end..].fill(0xff);
    let result = filter(&map(&[("a", 90)]), 0).data(&at(&cut.into(), 0), false, true);
    assert!(result.is_err(), "{result:?}");
    let header = *at(&whole, 3).header();
    let empty = BatchView::parse(&empty_batch(&header)).expect("a batch");
    assert_eq!((empty.header().base_offset, empty.header().max_timestamp), (3, 700));
}
