//! Fetch: sizes, waiting, sessions, epochs.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use heizer_client::Connection;
use heizer_runtime::net::Stream;
use heizer_runtime::{cores, net, task, time};
use heizer_wire::messages::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic};
use heizer_wire::{ErrorCode, encode_request};

use crate::cluster::{ADDR, Cluster, connect};
use crate::kafka::{self, assert_code, batch, decoded, fetch, fetch_one, fetch_request};

/// The partitions of the answer's first topic that have records, with how many bytes.
fn filled(answer: &FetchResponse) -> Vec<(i32, usize)> {
    let all = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let sized = all.map(|data| (data.partition_index, data.records.as_ref().map_or(0, |r| r.len())));
    sized.filter(|(_, bytes)| *bytes > 0).collect()
}

/// contract F1
#[test]
fn an_answer_keeps_its_limits_but_brings_the_first_batch_whole() {
    let mut cluster = Cluster::new(1);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "sized", 8, &[]).await;
        let value = "v".repeat(1_000);
        let size = batch(&[&value]).len();
        for partition in 0..8 {
            for _ in 0..10 {
                kafka::produced(&connection, "sized", partition, batch(&[&value])).await;
            }
        }
        let all: Vec<(i32, i64)> = (0..8).map(|partition| (partition, 0)).collect();
        let mut request = fetch_request("sized", &all);
        let bytes = |answer: &FetchResponse| filled(answer).iter().map(|(_, bytes)| bytes).sum::<usize>();
        // A limit below one batch: one whole batch, of one partition.
        request.max_bytes = 1;
        let answer = fetch(&connection, &request).await;
        assert_eq!(filled(&answer).len(), 1, "{:?}", filled(&answer));
        assert_eq!(bytes(&answer), size);
        assert_eq!(answer.responses[0].partitions.len(), 8, "the others are told of, without records");
        // A limit over all: kept, and used up as far as whole batches do.
        request.max_bytes = (size * 25) as i32;
        let answer = fetch(&connection, &request).await;
        assert!(bytes(&answer) <= size * 25 && bytes(&answer) > size * 20, "{:?}", filled(&answer));
        // A limit for each partition.
        request.max_bytes = i32::MAX;
        request.topics[0].partitions.iter_mut().for_each(|p| p.partition_max_bytes = (size * 3) as i32);
        let answer = fetch(&connection, &request).await;
        assert_eq!(filled(&answer).len(), 8);
        assert!(filled(&answer).iter().all(|(_, bytes)| *bytes <= size * 3), "{:?}", filled(&answer));
        for data in &answer.responses[0].partitions {
            assert_eq!(decoded(&data.records)[0], (0, value.clone()));
            assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (10, 10, 0));
        }
    });
    cluster.finish();
}

/// contract F1: whatever way the bytes take, out of memory, read from the disk, or as parts of files.
#[test]
fn what_is_long_sealed_is_fetched_whole_from_every_core() {
    let mut sent_as_files: u64 = 0;
    for seed in 40..44 {
        let mut cluster = Cluster::new(seed);
        cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "old", 4, &[("segment.bytes", "1048576")]).await;
            let value = |at: i64| format!("{at:06}").repeat(5_000);
            for at in 0..80 {
                for partition in 0..4 {
                    kafka::produced(&connection, "old", partition, batch(&[&value(at)])).await;
                }
            }
            // Two sweeps of the housekeeping take what is written out of memory.
            time::sleep(Duration::from_secs(30)).await;
            // Several connections, so that partitions of other cores are among them.
            for _ in 0..3 {
                let connection = connect().await;
                for partition in 0..4 {
                    let all = kafka::read_all(&connection, "old", partition).await;
                    assert_eq!(all.len(), 80);
                    assert!(
                        all.iter().zip(0..).all(|((offset, text), at)| *offset == at && *text == value(at))
                    );
                }
                let mut request = fetch_request("old", &[(2, 17), (0, 3), (3, 55), (1, 30)]);
                request.max_bytes = 700_000;
                let answer = fetch(&connection, &request).await;
                let bytes: usize = filled(&answer).iter().map(|(_, bytes)| bytes).sum();
                assert!(bytes <= 700_000 && bytes > 400_000, "{:?}", filled(&answer));
                for data in answer.responses.iter().flat_map(|topic| &topic.partitions) {
                    let texts = decoded(&data.records);
                    assert!(texts.iter().all(|(offset, text)| *text == value(*offset)));
                }
            }
        });
        let all_cores = || async { net::file_sends().bytes };
        let sent = cluster.sim.run(cluster.broker, async move { cores::call_all(all_cores).await });
        sent_as_files += sent.expect("the cores answer").iter().sum::<u64>();
        cluster.finish();
    }
    assert!(sent_as_files > 10_000_000, "{sent_as_files} bytes");
}

/// Answers that lie in files take no memory, so clients that leave them unread keep nobody from reading on.
#[test]
fn consumers_far_behind_that_do_not_read_leave_the_memory_to_others() {
    let (mut short, mut whole) = (0, 0);
    for seed in 50..58 {
        let mut cluster = Cluster::with(seed, 1, &[("heizer.memory.per.core.bytes", "67108864")]);
        let bytes = cluster.run(async {
            let connection = connect().await;
            kafka::create(&connection, "old", 1, &[("segment.bytes", "1048576")]).await;
            let value = "v".repeat(50_000);
            for _ in 0..45 {
                kafka::produced(&connection, "old", 0, batch(&[&value])).await;
            }
            time::sleep(Duration::from_secs(30)).await;
            let request = fetch_request("old", &[(0, 0)]);
            let mut unread = Vec::new();
            for _ in 0..24 {
                let stream = Stream::connect(ADDR.parse().expect("an address")).await.expect("it listens");
                let frame = encode_request(1, 12, Some("slow"), &request);
                stream.write_all(frame).await.expect("it reads");
                unread.push(stream);
            }
            time::sleep(Duration::from_secs(10)).await;
            let answer = fetch(&connection, &request).await;
            drop(unread);
            filled(&answer)[0].1
        });
        cluster.finish();
        // The budget is spent, and everybody gets the little that is always left; or nothing of it is.
        match bytes {
            0..=100_000 => short += 1,
            900_000.. => whole += 1,
            other => panic!("{other} bytes, seed {seed}"),
        }
    }
    assert!(short > 0 && whole > 0, "systems of both kinds: {short} read, {whole} sent as files");
}

/// contract F1
#[test]
fn an_offset_within_a_batch_brings_the_batch_and_one_outside_the_log_an_error() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 1, &[]).await;
        kafka::produced(&connection, "t", 0, batch(&["a", "b", "c"])).await;
        kafka::produced(&connection, "t", 0, batch(&["d"])).await;
        let data = fetch_one(&connection, "t", 0, 1).await;
        let values: Vec<_> = decoded(&data.records).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["a", "b", "c", "d"]);
        let end = fetch_one(&connection, "t", 0, 4).await;
        assert_eq!((end.error_code, decoded(&end.records).len()), (0, 0), "the end is no error");
        for offset in [5, 1_000, -1, i64::MAX] {
            let outside = fetch_one(&connection, "t", 0, offset).await;
            assert_code(outside.error_code, ErrorCode::OffsetOutOfRange);
            assert!(decoded(&outside.records).is_empty());
        }
        for (topic, partition) in [("t", 1), ("t", -1), ("absent", 0)] {
            let unknown = fetch_one(&connection, topic, partition, 0).await;
            assert_code(unknown.error_code, ErrorCode::UnknownTopicOrPartition);
        }
    });
    cluster.finish();
}

/// Starts a fetch on a connection of its own; where its answer and the time it took will be.
async fn waiting(request: FetchRequest) -> Rc<Cell<Option<(Duration, FetchResponse)>>> {
    let connection = connect().await;
    let answered = Rc::new(Cell::new(None));
    let there = answered.clone();
    task::spawn(async move {
        let started = time::now();
        let answer = fetch(&connection, &request).await;
        there.set(Some((time::now() - started, answer)));
    });
    time::sleep(Duration::from_millis(100)).await;
    answered
}

/// contract F3
#[test]
fn a_waiting_fetch_wakes_when_there_is_enough_and_not_before() {
    let mut cluster = Cluster::new(3);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "w", 6, &[]).await;
        let size = batch(&["x"]).len() as i32;
        // Partitions of both cores, by connections that may be on either.
        for partition in 0..6 {
            let offset = kafka::list_offset(&connection, "w", partition, kafka::LATEST).await.offset;
            let all: Vec<_> = (0..6).map(|p| (p, if p == partition { offset } else { 0 })).collect();
            let mut request = fetch_request("w", &all);
            request.topics[0].partitions.retain(|p| p.partition >= partition);
            request.max_wait_ms = 60_000;
            request.min_bytes = 2 * size;
            let answered = waiting(request).await;
            kafka::produced(&connection, "w", partition, batch(&["x"])).await;
            time::sleep(Duration::from_millis(500)).await;
            assert!(answered.take().is_none(), "one batch is not enough");
            kafka::produced(&connection, "w", partition, batch(&["y"])).await;
            time::sleep(Duration::from_millis(50)).await;
            let (took, answer) = answered.take().expect("two batches are enough");
            assert!(took < Duration::from_secs(1), "{took:?}");
            assert_eq!(filled(&answer), [(partition, 2 * size as usize)]);
        }
    });
    cluster.finish();
}

/// contract F3
#[test]
fn a_waiting_fetch_ends_at_its_time_at_an_error_and_when_its_topic_goes() {
    let mut cluster = Cluster::new(4);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "w", 2, &[]).await;
        let mut request = fetch_request("w", &[(0, 0), (1, 0)]);
        request.max_wait_ms = 1_000;
        let started = time::now();
        let answer = fetch(&connection, &request).await;
        let took = time::now() - started;
        assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1_100), "{took:?}");
        assert!(filled(&answer).is_empty());
        // An error answers at once.
        request.max_wait_ms = 60_000;
        request.topics[0].partitions[1].fetch_offset = 9;
        let answer = fetch(&connection, &request).await;
        assert!(time::now() - started < Duration::from_secs(2));
        assert_code(answer.responses[0].partitions[1].error_code, ErrorCode::OffsetOutOfRange);
        // So does the end of the topic.
        request.topics[0].partitions[1].fetch_offset = 0;
        let answered = waiting(request).await;
        assert_code(kafka::delete(&connection, "w").await.error_code, ErrorCode::None);
        time::sleep(Duration::from_millis(100)).await;
        let (took, answer) = answered.take().expect("the topic has gone");
        assert!(took < Duration::from_secs(2), "{took:?}");
        let failed = |code| ErrorCode::from_code(code) == ErrorCode::UnknownTopicOrPartition;
        let partitions = &answer.responses[0].partitions;
        assert!(partitions.iter().any(|data| failed(data.error_code)), "{answer:?}");
    });
    cluster.finish();
}

/// contract F3, KIP-107
#[test]
fn a_waiting_fetch_is_told_that_what_it_waits_behind_was_deleted() {
    let mut cluster = Cluster::new(9);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "w", 4, &[]).await;
        for partition in 0..4 {
            kafka::produced(&connection, "w", partition, batch(&["x"])).await;
            let mut request = fetch_request("w", &[(partition, 0)]);
            (request.max_wait_ms, request.min_bytes) = (60_000, 1 << 20);
            let answered = waiting(request).await;
            assert!(answered.take().is_none(), "one batch is not enough");
            let deleted = kafka::delete_records(&connection, "w", &[(partition, 1)]).await;
            assert_eq!(deleted, [(ErrorCode::None, 1)]);
            time::sleep(Duration::from_millis(100)).await;
            let (_, answer) = answered.take().expect("there is news");
            assert_code(answer.responses[0].partitions[0].error_code, ErrorCode::OffsetOutOfRange);
        }
    });
    cluster.finish();
}

/// contract F3: where nothing will ever come, nobody waits for it.
#[test]
fn a_waiting_fetch_is_told_that_its_log_has_failed() {
    let mut cluster = Cluster::with(6, 2, &[("log.dirs", "/var/lib/heizer,/disk1")]);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "w", 1, &[]).await;
        kafka::produced(&connection, "w", 0, batch(&["kept"])).await;
        kafka::move_to(&connection, "/disk1", "w", &[0]).await;
    });
    cluster.expect_warning("has failed and is offline");
    cluster.sim.kill_device(cluster.broker, Path::new("/disk1"));
    cluster.run(async {
        let mut request = fetch_request("w", &[(0, 1)]);
        request.max_wait_ms = 600_000;
        let answered = waiting(request.clone()).await;
        let connection = connect().await;
        let refused = kafka::produce(&connection, "w", 0, kafka::ALL, batch(&["lost"])).await;
        assert_code(refused.error_code, ErrorCode::KafkaStorageError);
        time::sleep(Duration::from_millis(100)).await;
        let (_, answer) = answered.take().expect("the waiting fetch is answered");
        assert_code(answer.responses[0].partitions[0].error_code, ErrorCode::KafkaStorageError);
        let started = time::now();
        let answer = fetch(&connection, &request).await;
        assert_code(answer.responses[0].partitions[0].error_code, ErrorCode::KafkaStorageError);
        assert!(time::now() - started < Duration::from_secs(1), "the next one does not wait");
    });
    cluster.finish();
}

/// contract F3: a broker that stops lets nobody wait.
#[test]
fn a_waiting_fetch_does_not_hold_up_the_end_of_the_broker() {
    let mut cluster = Cluster::new(5);
    let answered = cluster.run(async {
        kafka::create(&connect().await, "w", 2, &[]).await;
        let mut request = fetch_request("w", &[(0, 0), (1, 0)]);
        request.max_wait_ms = 600_000;
        waiting(request).await
    });
    let before = cluster.sim.now();
    cluster.stop();
    assert!(cluster.sim.now() - before < Duration::from_secs(2), "{:?}", cluster.sim.now() - before);
    cluster.sim.run_for(Duration::from_millis(100));
    assert!(answered.take().is_some(), "it was answered");
    cluster.finish();
}

fn session_request(id: i32, epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
    let mut request = fetch_request("s", partitions);
    if partitions.is_empty() {
        request.topics.clear();
    }
    FetchRequest { session_id: id, session_epoch: epoch, ..request }
}

fn told(answer: &FetchResponse) -> Vec<i32> {
    answer.responses.iter().flat_map(|topic| &topic.partitions).map(|data| data.partition_index).collect()
}

/// contract F2
#[test]
fn a_session_repeats_only_what_has_changed() {
    let mut cluster = Cluster::new(6);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "s", 4, &[]).await;
        let all = [(0, 0), (1, 0), (2, 0), (3, 0)];
        let full = fetch(&connection, &session_request(0, 0, &all)).await;
        assert_ne!(full.session_id, 0);
        assert_eq!(told(&full), [0, 1, 2, 3]);
        let id = full.session_id;
        let nothing = fetch(&connection, &session_request(id, 1, &[])).await;
        assert_eq!((nothing.error_code, nothing.session_id), (0, id));
        assert!(told(&nothing).is_empty());
        kafka::produced(&connection, "s", 2, batch(&["x"])).await;
        let news = fetch(&connection, &session_request(id, 2, &[])).await;
        assert_eq!(filled(&news).iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [2]);
        assert_eq!(told(&news), [2]);
        // Not read on: it comes again, until the client moves its offset.
        let again = fetch(&connection, &session_request(id, 3, &[])).await;
        assert_eq!(told(&again), [2]);
        let moved = fetch(&connection, &session_request(id, 4, &[(2, 1)])).await;
        assert!(told(&moved).is_empty(), "{:?}", told(&moved));
        // What is forgotten is not told of any more.
        let mut forget = session_request(id, 5, &[]);
        forget.forgotten_topics_data =
            vec![ForgottenTopic { topic: "s".into(), partitions: vec![1], ..Default::default() }];
        fetch(&connection, &forget).await;
        kafka::produced(&connection, "s", 1, batch(&["y"])).await;
        kafka::produced(&connection, "s", 3, batch(&["z"])).await;
        let rest = fetch(&connection, &session_request(id, 6, &[])).await;
        assert_eq!(told(&rest), [3]);
        // A waiting incremental fetch wakes for any of its partitions.
        let mut wait = session_request(id, 7, &[(3, 1)]);
        wait.max_wait_ms = 60_000;
        let other = connect().await;
        let started = time::now();
        let produce = async {
            time::sleep(Duration::from_millis(300)).await;
            kafka::produced(&other, "s", 0, batch(&["w"])).await
        };
        let (woken, _) = futures::future::join(fetch(&connection, &wait), produce).await;
        assert_eq!(told(&woken), [0]);
        assert!(time::now() - started < Duration::from_secs(1));
    });
    cluster.finish();
}

/// contract F2
#[test]
fn session_ids_and_epochs_are_checked() {
    let mut cluster = Cluster::new(7);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "s", 1, &[]).await;
        let id = fetch(&connection, &session_request(0, 0, &[(0, 0)])).await.session_id;
        let unknown = fetch(&connection, &session_request(id ^ 1, 1, &[])).await;
        assert_code(unknown.error_code, ErrorCode::FetchSessionIdNotFound);
        let ahead = fetch(&connection, &session_request(id, 2, &[])).await;
        assert_code(ahead.error_code, ErrorCode::InvalidFetchSessionEpoch);
        let right = fetch(&connection, &session_request(id, 1, &[])).await;
        assert_code(right.error_code, ErrorCode::None);
        // The end of the session, and what comes after.
        let last = fetch(&connection, &session_request(id, -1, &[(0, 0)])).await;
        assert_eq!((last.error_code, last.session_id), (0, 0));
        let gone = fetch(&connection, &session_request(id, 2, &[])).await;
        assert_code(gone.error_code, ErrorCode::FetchSessionIdNotFound);
    });
    cluster.finish();
}

/// contract F2
#[test]
fn without_room_for_a_session_a_fetch_is_answered_without_one() {
    let mut cluster = Cluster::with(8, 2, &[("max.incremental.fetch.session.cache.slots", "0")]);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "s", 1, &[]).await;
        kafka::produced(&connection, "s", 0, batch(&["x"])).await;
        let answer = fetch(&connection, &session_request(0, 0, &[(0, 0)])).await;
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
        assert_eq!(told(&answer), [0]);
    });
    cluster.finish();
}

async fn fetch_in(connection: &Connection, current: i32, last: i32, offset: i64) -> kafka::Data {
    let mut request = fetch_request("e", &[(0, offset)]);
    request.topics[0].partitions[0].current_leader_epoch = current;
    request.topics[0].partitions[0].last_fetched_epoch = last;
    fetch(connection, &request).await.responses.remove(0).partitions.remove(0)
}

/// contract F4
#[test]
fn leader_epochs_are_compared() {
    let mut cluster = Cluster::new(9);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "e", 1, &[]).await;
        kafka::produced(&connection, "e", 0, batch(&["x"])).await;
    });
    cluster.crash();
    cluster.run(async {
        let connection = connect().await;
        let epoch = kafka::leader_epoch(&connection, "e", 0).await;
        kafka::produced(&connection, "e", 0, batch(&["y"])).await;
        let fenced = fetch_in(&connection, epoch - 1, -1, 0).await;
        assert_code(fenced.error_code, ErrorCode::FencedLeaderEpoch);
        assert_eq!(fenced.current_leader.leader_epoch, epoch, "where to look is told (KIP-951)");
        let ahead = fetch_in(&connection, epoch + 1, -1, 0).await;
        assert_code(ahead.error_code, ErrorCode::UnknownLeaderEpoch);
        let right = fetch_in(&connection, epoch, -1, 0).await;
        assert_eq!((right.error_code, decoded(&right.records).len()), (0, 2));
        let old = kafka::list_offset_in(&connection, "e", 0, kafka::LATEST, epoch - 1).await;
        assert_code(old.error_code, ErrorCode::FencedLeaderEpoch);
        let new = kafka::list_offset_in(&connection, "e", 0, kafka::LATEST, epoch + 1).await;
        assert_code(new.error_code, ErrorCode::UnknownLeaderEpoch);
        // contract R7: who claims two records of the first epoch has another history.
        let diverging = fetch_in(&connection, epoch, epoch - 1, 2).await;
        let ours = (diverging.diverging_epoch.epoch, diverging.diverging_epoch.end_offset);
        assert_eq!(ours, (epoch - 1, 1));
        assert!(decoded(&diverging.records).is_empty());
    });
    cluster.expect_warning("cut the end off a");
    cluster.finish();
}

/// contract P6
#[test]
fn topics_are_fetched_by_id() {
    let mut cluster = Cluster::new(10);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "t", 1, &[]).await;
        kafka::produced(&connection, "t", 0, batch(&["x"])).await;
        let id = kafka::describe(&connection, "t").await.topic_id;
        for (topic_id, code, records) in
            [(id, ErrorCode::None, 1), (uuid::Uuid::from_u128(7), ErrorCode::UnknownTopicId, 0)]
        {
            let partition =
                FetchPartition { partition: 0, partition_max_bytes: 1 << 20, ..Default::default() };
            let topic = FetchTopic { topic_id, partitions: vec![partition], ..Default::default() };
            let request = FetchRequest { topics: vec![topic], ..Default::default() };
            for version in 13..=18 {
                let answer = kafka::ask_at(&connection, version, &request).await;
                assert_eq!(answer.responses[0].topic_id, topic_id);
                let data = &answer.responses[0].partitions[0];
                assert_code(data.error_code, code);
                assert_eq!(decoded(&data.records).len(), records);
            }
        }
    });
    cluster.finish();
}
