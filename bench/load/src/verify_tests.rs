use heizer_wire::record_batch::{Compression, set_base_offset};

use super::*;
use crate::template::{Batch, Shape, Template};

const RUN: u32 = 77;

fn rules() -> Rules {
    Rules { run: RUN, pattern: Pattern::new(), compacted: false }
}

/// `count` records of `producer` from `sequence` on, at `base_offset`.
fn batch(base_offset: i64, producer: u32, sequence: u64, count: usize) -> Vec<u8> {
    batch_of(RUN, base_offset, producer, sequence, count, Compression::None)
}

fn batch_of(
    run: u32,
    base_offset: i64,
    producer: u32,
    sequence: u64,
    count: usize,
    compression: Compression,
) -> Vec<u8> {
    let shape =
        Shape { record_bytes: 100, batch_bytes: 10_000, random_fraction: 0.7, compression, keyed: false };
    let template = Template::new(shape, &Pattern::new());
    let due_ns = vec![1_000_000; count];
    let batch =
        Batch { run, producer, sequence, timestamp_ms: 5, identity: None, due_ns: &due_ns, keys: &[] };
    let mut bytes = template.make(&batch).to_vec();
    set_base_offset(&mut bytes, base_offset);
    bytes
}

/// What a reader from the start finds who gets these batches one answer after the other.
fn read(answers: &[Vec<u8>], rules: &Rules) -> (Verdict, Track) {
    let mut track = Track::from_the_start();
    let (mut tally, mut verdict) = (Tally::new(), Verdict::default());
    let mut position = 0;
    for answer in answers {
        let answer = Bytes::from(answer.clone());
        let next = next_position(&answer, position);
        track.examine(answer, position, 3_000_000, rules, &mut tally, &mut verdict);
        position = next;
    }
    (verdict, track)
}

#[test]
fn sound_records_are_counted_and_nothing_else() {
    for compression in Compression::ALL {
        let batches: Vec<Vec<u8>> =
            (0..4).map(|at| batch_of(RUN, at * 10, 3, at as u64 * 10, 10, compression)).collect();
        let (verdict, track) = read(&batches, &rules());
        assert_eq!(verdict, Verdict { records: 40, ..Verdict::default() });
        assert_eq!((verdict.faults(), track.advanced()), (None, 40));
        let (together, _) = read(&[batches.concat()], &rules());
        assert_eq!(together, verdict, "several batches in one answer are the same");
    }
}

#[test]
fn arrivals_and_bytes_are_tallied() {
    let (mut tally, mut verdict) = (Tally::new(), Verdict::default());
    tally.open(0);
    let mut track = Track::from_the_start();
    let answer = Bytes::from(batch(0, 0, 0, 10));
    let found = track.examine(answer, 4, 3_000_000, &rules(), &mut tally, &mut verdict);
    assert_eq!(found, Found { records: 6, bytes: 600 }, "those in front of the position are not asked for");
    assert_eq!((tally.end_to_end_us.count(), tally.end_to_end_us.max()), (6, 2_000));
}

#[test]
fn a_lost_record_is_missing() {
    let (verdict, track) = read(&[batch(0, 1, 0, 5), batch(5, 1, 7, 5)], &rules());
    assert_eq!(verdict, Verdict { records: 10, missing: 2, ..Verdict::default() });
    assert_eq!(track.advanced(), 12, "what is missing is not unread as well");
    let (first, _) = read(&[batch(0, 1, 3, 1)], &rules());
    assert_eq!(first.missing, 3, "from the start every producer begins with its first");
    assert_eq!(first.faults().as_deref(), Some("3 missing"));
}

#[test]
fn a_doubled_record_is_a_duplicate() {
    let (verdict, track) = read(&[batch(0, 1, 0, 5), batch(5, 1, 3, 4)], &rules());
    assert_eq!(verdict, Verdict { records: 9, duplicates: 2, ..Verdict::default() });
    assert_eq!(track.advanced(), 7);
}

#[test]
fn reordered_records_are_out_of_order_and_not_missing() {
    let (verdict, track) = read(&[batch(0, 1, 5, 5), batch(5, 1, 0, 5), batch(10, 1, 10, 1)], &rules());
    assert_eq!(verdict, Verdict { records: 11, out_of_order: 5, ..Verdict::default() });
    assert_eq!(track.advanced(), 11);
}

#[test]
fn producers_are_told_apart() {
    let answers = [batch(0, 1, 0, 2), batch(2, 9, 0, 2), batch(4, 1, 2, 2), batch(6, 9, 3, 1)];
    let (verdict, _) = read(&answers, &rules());
    assert_eq!(verdict, Verdict { records: 7, missing: 1, ..Verdict::default() });
}

#[test]
fn a_changed_byte_anywhere_behind_the_header_is_corrupt() {
    let sound = batch(0, 1, 0, 3);
    for at in [17, 22, 30, 61, 70, 120, sound.len() - 1] {
        let mut changed = sound.clone();
        changed[at] ^= 0x10;
        let (verdict, _) = read(&[changed], &rules());
        assert_eq!((verdict.corrupt, verdict.records), (3, 0), "byte {at}");
    }
}

#[test]
fn a_changed_filler_under_a_right_crc_is_corrupt() {
    use heizer_wire::record_batch::{TimestampType, rewrite_timestamps};
    let mut changed = batch(0, 1, 0, 3);
    let last = changed.len() - 10;
    changed[last] ^= 1;
    // Whoever rewrites a batch seals it anew.
    rewrite_timestamps(&mut changed, TimestampType::CreateTime, 5);
    let (verdict, _) = read(&[changed], &rules());
    assert_eq!((verdict.corrupt, verdict.records), (1, 2));
}

#[test]
fn offsets_that_do_not_follow_each_other_are_out_of_order() {
    let (gap, _) = read(&[batch(0, 1, 0, 5), batch(6, 1, 5, 5)], &rules());
    assert_eq!(gap.out_of_order, 1);
    let (late_start, _) = read(&[batch(4, 1, 0, 5)], &rules());
    assert_eq!(late_start.out_of_order, 1, "the first answer begins where it was asked for");
}

#[test]
fn a_compacted_topic_may_have_gaps_and_nothing_worse() {
    let rules = Rules { compacted: true, ..rules() };
    let (gaps, _) = read(&[batch(3, 1, 2, 5), batch(20, 1, 15, 5)], &rules);
    assert_eq!(gaps, Verdict { records: 10, ..Verdict::default() });
    let (doubled, _) = read(&[batch(3, 1, 2, 5), batch(8, 1, 2, 5)], &rules);
    assert_eq!(doubled.duplicates, 5);
}

#[test]
fn an_earlier_runs_records_are_passed_over() {
    let earlier = batch_of(RUN + 1, 0, 1, 40, 5, Compression::None);
    let (verdict, track) = read(&[earlier, batch(5, 1, 0, 5)], &rules());
    assert_eq!(verdict, Verdict { records: 5, ..Verdict::default() });
    assert_eq!(track.advanced(), 5);
}

#[test]
fn whoever_goes_on_elsewhere_knows_nothing_of_what_was_before() {
    let (mut tally, mut verdict) = (Tally::new(), Verdict::default());
    let (mut track, rules) = (Track::from_the_start(), rules());
    for _ in 0..3 {
        track.jump();
        track.examine(batch(40, 1, 40, 10).into(), 45, 0, &rules, &mut tally, &mut verdict);
        track.examine(batch(50, 1, 50, 10).into(), 50, 0, &rules, &mut tally, &mut verdict);
    }
    assert_eq!(verdict, Verdict { records: 45, ..Verdict::default() });
}

#[test]
fn a_batch_that_is_cut_is_left_for_the_next_answer() {
    let whole = [batch(0, 1, 0, 5), batch(5, 1, 5, 5)].concat();
    let cut = whole[..whole.len() - 1].to_vec();
    assert_eq!(next_position(&Bytes::from(cut.clone()), 0), 5);
    assert_eq!(next_position(&Bytes::from(whole), 0), 10);
    let (verdict, _) = read(&[cut, batch(5, 1, 5, 5)], &rules());
    assert_eq!(verdict, Verdict { records: 10, ..Verdict::default() });
}

#[test]
fn records_of_a_group_are_followed_one_by_one() {
    let (mut track, mut verdict) = (Track::from_the_start(), Verdict::default());
    for offset in [7, 8, 10] {
        track.follow_record(offset, &rules(), &mut verdict);
    }
    assert_eq!(verdict.out_of_order, 1);
}
