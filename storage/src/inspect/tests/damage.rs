//! A log in good order is clean, and every damage is found where it is.

use heizer_runtime::sim::block_on;
use heizer_wire::record_batch::set_partition_leader_epoch;

use super::*;
use crate::inspect::legacy::testing::message;
use crate::inspect::{BatchReader, FileKind, Next, TimeReader};

async fn content(name: &str) -> Vec<u8> {
    fs::read(&Path::new(DIR).join(name)).await.expect("there")
}

async fn replace(name: &str, content: Vec<u8>) {
    fs::write_atomic(&Path::new(DIR).join(name), content).await.expect("written");
}

/// Where the batches of a segment start, and where the last one ends.
async fn positions(name: &str) -> Vec<u64> {
    let mut reader = BatchReader::open(&Path::new(DIR).join(name)).await.expect("open");
    let mut positions = vec![0];
    while let Next::Batch(_) = reader.next().await.expect("read") {
        positions.push(reader.position());
    }
    positions
}

#[test]
fn a_closed_log_is_clean_and_all_of_it_is_looked_at() {
    block_on(1, async {
        closed_log().await;
        let (found, summary) = verify().await;
        assert_eq!(found, []);
        assert_eq!((summary.batches, summary.records, summary.errors), (60, 180, 0));
        assert!(summary.segments > 4 && summary.segments == names(".log").await.len() as u64);
        assert!(
            content(&names(".index").await[0]).await.len() > 16,
            "the indexes have entries to be checked"
        );
    });
}

#[test]
fn a_log_that_a_crash_has_left_is_not_damaged_but_for_its_torn_end() {
    for seed in 0..20 {
        let mut sim = heizer_runtime::sim::Sim::new(seed);
        let node = sim.node(1);
        sim.run(node, async {
            let (log, _) = open(10_000).await;
            (0..50).for_each(|at| append(&log, at, 0));
            log.flush().await.expect("flush");
        });
        sim.crash(node);
        sim.run(node, async move {
            let errors = errors().await;
            assert_eq!(errors, [], "seed {seed}");
        });
    }
}

/// Every byte of a batch counts but for base offset and leader epoch, which the CRC does not cover (contract L1) and which
/// the neighbours and the checkpoint tell.
#[test]
fn a_flipped_byte_anywhere_in_a_segment_is_found_where_it_is() {
    block_on(2, async {
        closed_log().await;
        let name = &names(".log").await[1];
        let (whole, positions) = (content(name).await, positions(name).await);
        let (start, end) = (positions[2], positions[3]);
        for at in (start..start + 61).chain((start + 61..end).step_by(37)) {
            let mut damaged = whole.clone();
            damaged[usize::try_from(at).expect("small")] ^= 0x40;
            replace(name, damaged).await;
            let errors = errors().await;
            let near = errors.iter().any(|error| {
                error.file.ends_with(name)
                    && error.position.is_some_and(|found| (start..=end).contains(&found))
            });
            assert!(near, "byte {} of the batch: {errors:?}", at - start);
        }
    });
}

#[test]
fn a_cut_segment_is_found_at_its_new_end() {
    block_on(3, async {
        closed_log().await;
        let logs = names(".log").await;
        for name in [&logs[1], &logs[logs.len() - 1]] {
            let (whole, positions) = (content(name).await, positions(name).await);
            let last = positions[positions.len() - 2];
            for cut in [last + 1, last + 30, last + 61, last + 500] {
                replace(name, whole[..usize::try_from(cut).expect("small")].to_vec()).await;
                let errors = errors().await;
                // One byte of an offset is a zero, as reserved space is: then the indexes tell.
                let told = |error: &Finding| {
                    error.position == Some(last)
                        || cut == last + 1 && error.what.contains("beyond the last batch")
                };
                assert!(errors.iter().any(told), "cut at {cut}: {errors:?}");
            }
            // Between two batches the indexes tell.
            replace(name, whole[..usize::try_from(last).expect("small")].to_vec()).await;
            let errors = errors().await;
            assert!(errors.iter().any(|error| error.what.contains("beyond the last batch")), "{errors:?}");
            replace(name, whole).await;
        }
        assert_eq!(errors().await, []);
    });
}

#[test]
fn a_damaged_offset_index_is_found_entry_by_entry() {
    block_on(4, async {
        closed_log().await;
        let name = &names(".index").await[1];
        let whole = content(name).await;
        let mut swapped = whole.clone();
        swapped[..16].rotate_left(8);
        let mut inside = whole.clone();
        inside[7] ^= 1;
        let mut offset = whole.clone();
        offset[3] ^= 1;
        let tables = [
            (swapped, 8, "does not rise"),
            (inside, 0, "inside the batch"),
            (offset, 0, "no batch ends with it"),
            ([&whole[..], &[0, 0, 1]].concat(), whole.len() as u64, "no whole entry"),
            ([&whole[..], &[0, 9, 0, 0, 0, 9, 0, 0]].concat(), whole.len() as u64, "beyond the last batch"),
            ([&whole[..], &[0; 16]].concat(), whole.len() as u64, "zeros"),
        ];
        for (damaged, position, what) in tables {
            replace(name, damaged).await;
            let errors = errors().await;
            let found = errors.iter().any(|error| {
                error.file.ends_with(name) && error.position == Some(position) && error.what.contains(what)
            });
            assert!(found, "{what}: {errors:?}");
        }
    });
}

/// contract L7
#[test]
fn a_time_index_that_hides_records_is_found() {
    block_on(5, async {
        closed_log().await;
        let name = &names(".timeindex").await[1];
        let whole = content(name).await;
        let entry =
            |timestamp: i64, relative: u32| [&timestamp.to_be_bytes()[..], &relative.to_be_bytes()].concat();
        let mut reader = TimeReader::open(&Path::new(DIR).join(name)).await.expect("open");
        let first = reader.next().await.expect("read").expect("an entry");
        let base = FileKind::base_of(name).expect("a numbered file");
        let mut batches =
            BatchReader::open(&Path::new(DIR).join(&names(".log").await[1])).await.expect("open");
        let mut above = None;
        while let Next::Batch(batch) = batches.next().await.expect("read") {
            let mut records = batch.records().expect("readable").map(|record| record.expect("readable"));
            above = above.or(records.find(|record| record.timestamp > first.timestamp));
        }
        let above = above.expect("a later record");
        let relative = u32::try_from(above.offset - base).expect("in the segment");
        let mut swapped = whole.clone();
        swapped[..24].rotate_left(12);
        let tables = [
            (swapped, 12, "does not rise"),
            ([&entry(first.timestamp - 1, first.relative), &whole[12..]].concat(), 0, "lie after it"),
            // In mid-batch the records themselves tell.
            ([&entry(first.timestamp, relative), &whole[12..]].concat(), 0, "lie after it"),
            (whole[..whole.len() - 12].to_vec(), whole.len() as u64 - 24, "the segment's greatest is"),
            (Vec::new(), 0, "has no entry"),
        ];
        for (damaged, position, what) in tables {
            replace(name, damaged).await;
            let errors = errors().await;
            let found = errors.iter().any(|error| {
                error.file.ends_with(name) && error.position == Some(position) && error.what.contains(what)
            });
            assert!(found, "{what}: {errors:?}");
        }
    });
}

/// contract L5
#[test]
fn epochs_that_fall_or_disagree_with_the_checkpoint_are_found() {
    block_on(6, async {
        closed_log().await;
        let logs = names(".log").await;
        let name = &logs[logs.len() - 2];
        let (whole, positions) = (content(name).await, positions(name).await);
        let mut damaged = whole.clone();
        set_partition_leader_epoch(&mut damaged[usize::try_from(positions[1]).expect("small")..], 0);
        replace(name, damaged).await;
        let errors_now = errors().await;
        let at = |what: &str| {
            let found = |error: &Finding| error.position == Some(positions[1]) && error.what.contains(what);
            errors_now.iter().any(found)
        };
        assert!(
            at("leader epoch falls from 2 to 0") && at("leader-epoch-checkpoint says 2"),
            "{errors_now:?}"
        );
        replace(name, whole).await;
        let epochs = content("leader-epoch-checkpoint").await;
        for (text, what) in
            [(&b"0\n1\n0 0\n"[..], "leader-epoch-checkpoint says 0"), (b"0\n9\n0 0\n", "is not a list")]
        {
            replace("leader-epoch-checkpoint", text.to_vec()).await;
            let errors = errors().await;
            assert!(errors.iter().any(|error| error.what.contains(what)), "{errors:?}");
        }
        replace("leader-epoch-checkpoint", epochs).await;
        assert_eq!(errors().await, []);
    });
}

#[test]
fn small_files_that_are_damaged_or_missing_are_found() {
    block_on(7, async {
        closed_log().await;
        let snapshot = &names(".snapshot").await[0];
        for name in [snapshot, "partition.metadata"] {
            let whole = content(name).await;
            let mut damaged = whole.clone();
            damaged[3] ^= 1;
            replace(name, damaged).await;
            let found = errors().await;
            assert!(found.len() == 1 && found[0].file.ends_with(name), "{found:?}");
            replace(name, whole).await;
        }
        for name in ["partition.metadata", "leader-epoch-checkpoint"] {
            let whole = content(name).await;
            fs::remove_file(&Path::new(DIR).join(name)).await.expect("removed");
            let found = errors().await;
            assert!(found.len() == 1 && found[0].what.contains("missing"), "{found:?}");
            replace(name, whole).await;
        }
        replace("log-start-offset-checkpoint", b"0\n9999\n".to_vec()).await;
        assert!(errors().await.iter().any(|error| error.what.contains("starts at 9999")));
    });
}

/// contract L9: compaction leaves gaps, which are worth a note and no more.
#[test]
fn missing_offsets_are_noted_and_overlaps_are_errors() {
    block_on(8, async {
        closed_log().await;
        let logs = names(".log").await;
        for suffix in ["log", "index", "timeindex"] {
            let name = logs[1].replace("log", suffix);
            fs::remove_file(&Path::new(DIR).join(name)).await.expect("removed");
        }
        let (found, summary) = verify().await;
        assert_eq!(summary.errors, 0, "{found:?}");
        assert!(
            found.iter().any(|note| note.file.ends_with(&logs[2]) && note.what.contains("missing before"))
        );
        // The third segment's batches in the first one's file.
        let both = [content(&logs[0]).await, content(&logs[2]).await].concat();
        replace(&logs[0], both).await;
        let found = errors().await;
        assert!(found.iter().any(|error| error.what.contains("the next segment starts at")), "{found:?}");
    });
}

/// Formats that Kafka wrote long ago are told, and nothing of them is taken for damage.
#[test]
fn messages_of_older_formats_are_counted_and_their_crc_is_checked() {
    block_on(9, async {
        let name = "00000000000000000000.log";
        fs::create_dir_all(Path::new(DIR)).await.expect("made");
        let mut bytes = [message(0, 0, -1, b"k", b"v"), message(1, 1, 50, b"k", b"v")].concat();
        let spec = BatchSpec { leader_epoch: 0, ..BatchSpec::default() };
        bytes.extend(spec.base_offset(2).bytes());
        replace(name, bytes.clone()).await;
        replace("leader-epoch-checkpoint", b"0\n1\n0 2\n".to_vec()).await;
        replace("partition.metadata", crate::paths::encode_metadata(TOPIC_ID)).await;
        let (found, summary) = verify().await;
        assert_eq!((summary.batches, summary.errors), (3, 0), "{found:?}");
        assert!(found.iter().any(|note| note.what.starts_with("2 messages of formats v0 and v1")));
        bytes[63] ^= 1;
        replace(name, bytes).await;
        let found = errors().await;
        assert!(found.len() == 1 && found[0].what.contains("CRC"), "{found:?}");
    });
}

/// Whatever a file holds, it is told and not believed.
#[test]
fn noise_is_no_log_and_no_panic() {
    for seed in 0..40 {
        block_on(seed, async {
            closed_log().await;
            for suffix in [".log", ".index", ".timeindex", ".snapshot", "checkpoint", "metadata"] {
                let name = &names(suffix).await[0];
                let mut noise = content(name).await;
                let from = usize::try_from(heizer_runtime::random::below(noise.len() as u64)).expect("small");
                noise[from..].fill_with(|| u8::try_from(heizer_runtime::random::below(256)).expect("a byte"));
                replace(name, noise).await;
            }
            assert!(!errors().await.is_empty());
        });
    }
}
