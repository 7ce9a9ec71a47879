use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use heizer_runtime::sim::{DiskFaults, Sim, block_on};
use heizer_runtime::{random, time};

use super::*;
use crate::context::StorageLimits;

const DIR: &str = "/raft";

async fn open() -> (Rc<Stream>, Vec<Entry>) {
    let ctx = StorageContext::new(StorageLimits::default());
    Stream::open(Path::new(DIR), &ctx).await.expect("open")
}

#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    acked: u64,
    needed_from: u64,
    counter: u64,
}

/// Appends and waits until the power goes.
async fn live(stream: Rc<Stream>, model: Rc<RefCell<Model>>) {
    loop {
        for _ in 0..1 + random::below(4) {
            let mut model = model.borrow_mut();
            model.counter += 1;
            let size = match random::below(30) {
                0 => random::below(3 << 20),
                1..5 => random::below(20_000),
                _ => random::below(300),
            };
            let mut payload =
                vec![u8::try_from(model.counter % 256).unwrap(); usize::try_from(size).unwrap()];
            payload.extend_from_slice(&model.counter.to_le_bytes());
            let start = stream.end();
            let end = stream.append(&payload).expect("append");
            model.entries.push(Entry { start, end, payload: payload.into() });
        }
        match random::below(4) {
            0 => {
                let end = stream.end();
                stream.flush().await.expect("flush");
                model.borrow_mut().acked = end;
            }
            1 => time::sleep(Duration::from_micros(random::below(500))).await,
            2 => {
                let mut model = model.borrow_mut();
                model.needed_from += random::below(stream.durable() - model.needed_from + 1);
                stream.truncate_before(model.needed_from);
            }
            _ => {
                let end = stream.end();
                stream.wait_durable(end).await.expect("durable");
                model.borrow_mut().acked = end;
            }
        }
    }
}

fn check(replayed: &[Entry], stream: &Stream, model: &mut Model) {
    assert!(stream.end() >= model.acked, "{} of {} acknowledged", stream.end(), model.acked);
    assert_eq!(stream.end(), stream.durable());
    model.entries.retain(|entry| entry.end <= stream.end());
    let first = replayed.first().map_or(stream.end(), |entry| entry.start);
    assert!(first <= model.needed_from);
    let expected: Vec<_> = model.entries.iter().filter(|entry| entry.start >= first).cloned().collect();
    assert_eq!(replayed.len(), expected.len());
    assert!(replayed == expected, "what is replayed is what was appended");
}

#[test]
fn what_was_acknowledged_is_replayed_after_any_power_cut_and_nothing_else() {
    let mut appended = 0;
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let model = Rc::new(RefCell::new(Model::default()));
        for life in 0..3 {
            let (stream, replayed) = sim.run(node, open());
            check(&replayed, &stream, &mut model.borrow_mut());
            let slot = Rc::new(RefCell::new(Some((stream, model.clone()))));
            sim.start(node, move || {
                let taken = slot.borrow_mut().take();
                async move {
                    if let Some((stream, model)) = taken {
                        live(stream, model).await;
                    }
                }
            });
            sim.run_for(Duration::from_micros(2_000 + seed * 7919 % 30_000 + life));
            sim.crash(node);
        }
        let (stream, replayed) = sim.run(node, open());
        check(&replayed, &stream, &mut model.borrow_mut());
        sim.crash(node);
        let (again, replayed_again) = sim.run(node, open());
        assert!(replayed == replayed_again && again.end() == stream.end(), "recovery is idempotent");
        assert_eq!(sim.panics(), 0);
        appended += model.borrow().counter;
    }
    assert!(appended > 60 * 20, "{appended} appends prove nothing");
}

#[test]
fn whole_old_files_go_and_positions_stay() {
    block_on(1, async {
        let (stream, _) = open().await;
        let payload = vec![1; 6 << 20];
        for _ in 0..9 {
            stream.append_parts(&[&payload, b"end"]).expect("append");
        }
        stream.flush().await.expect("flush");
        let end = stream.end();
        stream.truncate_before(end);
        assert!(stream.oldest() > 0 && stream.bytes() < end);
        stream.append(b"more").expect("append");
        stream.close().await.expect("close");
        assert!(stream.append(b"late").is_err());
        let oldest = stream.oldest();
        let (stream, entries) = open().await;
        assert_eq!((stream.oldest(), stream.end()), (oldest, end + 12));
        assert_eq!(entries[0].start, oldest);
        assert_eq!(entries.last().map(|entry| &entry.payload[..]), Some(&b"more"[..]));
        // The last of the large entries filled its file, so what came after it has a file of its own.
        assert_eq!(fs::read_dir(Path::new(DIR)).await.expect("list").len(), 2);
    });
}

#[test]
fn a_failed_write_is_final() {
    let mut sim = Sim::new(2);
    let node = sim.node(1);
    let (stream, _) = sim.run(node, open());
    sim.set_disk_faults(node, DiskFaults { write_error_ppm: 1_000_000, ..DiskFaults::default() });
    sim.run(node, async move {
        let end = stream.append(b"entry").expect("append");
        stream.wait_durable(end).await.expect_err("the write failed");
        stream.append(b"entry").expect_err("no more");
    });
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_lost_or_out_of_order() {
    for seed in 0..8 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let full = |capacity_bytes| DiskFaults { capacity_bytes, ..DiskFaults::default() };
        sim.set_disk_faults(node, full(2 << 20));
        let (stream, appended) = sim.run(node, async {
            let (stream, _) = open().await;
            let mut appended: Vec<Vec<u8>> = Vec::new();
            // More than the disk takes, appended all the same: the caller bounds that.
            while stream.end() < 3 << 20 {
                let number = appended.len();
                let payload = vec![u8::try_from(number % 256).unwrap(); 1 + number * 7919 % 50_000];
                stream.append(&payload).expect("a full disk refuses no entry");
                appended.push(payload);
                time::sleep(Duration::from_micros(random::below(3_000))).await;
            }
            (stream, appended)
        });
        sim.run_for(Duration::from_secs(5));
        let durable = stream.durable();
        assert!((1 << 20..2 << 20).contains(&durable), "{durable}");
        if seed % 2 == 0 {
            sim.set_disk_faults(node, full(1 << 30));
            let stream = stream.clone();
            sim.run(node, async move { stream.flush().await.expect("there is space") });
        }
        let expected = stream.durable();
        sim.crash(node);
        sim.set_disk_faults(node, full(1 << 30));
        sim.run(node, async move {
            let (stream, replayed) = open().await;
            assert!(stream.end() >= expected);
            let payloads: Vec<_> = replayed.iter().map(|entry| entry.payload.to_vec()).collect();
            assert_eq!(payloads, appended[..payloads.len()]);
        });
        assert_eq!(sim.panics(), 0);
    }
}

#[test]
fn old_files_go_while_new_entries_wait_for_their_space() {
    let mut sim = Sim::new(3);
    let node = sim.node(1);
    let full = |capacity_bytes| DiskFaults { capacity_bytes, ..DiskFaults::default() };
    sim.set_disk_faults(node, full(20 << 20));
    sim.run(node, async {
        let (stream, _) = open().await;
        let payload = vec![1; 6 << 20];
        for _ in 0..3 {
            stream.append(&payload).expect("append");
        }
        stream.flush().await.expect("there is space for this much");
        let needed = stream.end();
        stream.append(&payload).expect("append");
        let late = time::timeout(Duration::from_secs(3), stream.flush()).await;
        assert!(late.is_err(), "the disk is full");
        stream.truncate_before(needed);
        // Only what was appended before may go for it.
        time::timeout(Duration::from_secs(3), stream.flush()).await.expect_err("not durable yet");
        assert_eq!(fs::read_dir(Path::new(DIR)).await.expect("list").len(), 2);
    });
    sim.crash(node);
    sim.run(node, async {
        let (stream, _) = open().await;
        let needed = stream.end();
        stream.append(&vec![2; 1 << 10]).expect("append");
        stream.flush().await.expect("the headroom, or what was given back");
        stream.truncate_before(needed);
        stream.append(&vec![3; 6 << 20]).expect("append");
        stream.flush().await.expect("the old file went first");
        assert_eq!(fs::read_dir(Path::new(DIR)).await.expect("list").len(), 1);
    });
}

#[test]
fn at_the_end_of_the_process_nobody_waits_for_space() {
    let mut sim = Sim::new(4);
    let node = sim.node(1);
    let (stream, _) = sim.run(node, open());
    sim.set_disk_faults(node, DiskFaults { no_space_ppm: 1_000_000, ..DiskFaults::default() });
    sim.run(node, async move {
        stream.append(b"entry").expect("append");
        let late = time::timeout(Duration::from_secs(3), stream.flush()).await;
        assert!(late.is_err() && stream.append(b"another").is_ok(), "it waits");
        time::timeout(Duration::from_millis(500), stream.close())
            .await
            .expect("at once")
            .expect_err("not all is written");
    });
}
