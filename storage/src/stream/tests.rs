use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use heizer_runtime::sim::{DiskFaults, NodeId, Sim, block_on};
use heizer_runtime::{random, time};

use super::*;
use crate::context::StorageLimits;
use crate::exploring::{Dice, Exploration};

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

/// What one seed does to a stream.
#[derive(Clone, Copy)]
enum Step {
    /// Appends an entry of so many bytes.
    Append(usize),
    /// Waits until all of it is durable.
    Flush,
    /// Gives up a share of what is durable, per mille.
    Truncate(u64),
    Pause(u64),
    /// Closes it in good order and opens it again.
    Reopen,
}

fn steps(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let small = |value: u64| usize::try_from(value).expect("small");
    let count = 10 + dice.below(30);
    let step = |_| match dice.below(100) {
        // Large enough for several files in some scenarios.
        0 => Step::Append(small(6 << 20)),
        1..20 => Step::Append(small(1 + dice.below(40_000))),
        20..70 => Step::Append(small(1 + dice.below(300))),
        70..82 => Step::Flush,
        82..90 => Step::Truncate(dice.below(1_001)),
        90..97 => Step::Pause(dice.below(2_000)),
        _ => Step::Reopen,
    };
    (0..count).map(step).collect()
}

type Slot = Rc<RefCell<Option<Rc<Stream>>>>;

async fn take_steps(steps: Vec<Step>, slot: Slot, model: Rc<RefCell<Model>>) {
    let (mut stream, replayed) = open().await;
    check(&replayed, &stream, &mut model.borrow_mut());
    *slot.borrow_mut() = Some(stream.clone());
    for step in steps {
        match step {
            Step::Append(bytes) => {
                let mut model = model.borrow_mut();
                model.counter += 1;
                let mut payload = vec![u8::try_from(model.counter % 256).unwrap(); bytes];
                payload.extend_from_slice(&model.counter.to_le_bytes());
                let start = stream.end();
                let end = stream.append(&payload).expect("append");
                model.entries.push(Entry { start, end, payload: payload.into() });
            }
            Step::Flush => stream.flush().await.expect("flush"),
            Step::Truncate(share) => {
                let mut model = model.borrow_mut();
                model.needed_from += (stream.durable() - model.needed_from) * share / 1_000;
                stream.truncate_before(model.needed_from);
            }
            Step::Pause(micros) => time::sleep(Duration::from_micros(micros)).await,
            Step::Reopen => {
                let end = stream.end();
                stream.close().await.expect("close");
                model.borrow_mut().acked = end;
                let (again, replayed) = open().await;
                assert_eq!(again.end(), end, "a clean stop keeps everything");
                check(&replayed, &again, &mut model.borrow_mut());
                stream = again;
                *slot.borrow_mut() = Some(stream.clone());
            }
        }
    }
}

/// Takes the steps of a seed on a new node, which goes down at a disk operation, or when all is done. Gives the number
/// of disk operations.
fn take_steps_until(seed: u64, at: Option<u64>, model: &Rc<RefCell<Model>>) -> (Sim, NodeId, u64) {
    let mut sim = Sim::new(seed);
    let node = sim.node(1);
    let short_transfer_ppm = if seed.is_multiple_of(2) { 300_000 } else { 0 };
    sim.set_disk_faults(node, DiskFaults { short_transfer_ppm, ..DiskFaults::default() });
    if let Some(at) = at {
        sim.crash_at_disk_operation(node, at);
    }
    let slot = Slot::default();
    let done = sim.run_until_down(node, take_steps(steps(seed), slot.clone(), model.clone()));
    if done.is_some() {
        sim.crash(node);
    }
    if let Some(stream) = slot.borrow_mut().take() {
        let mut model = model.borrow_mut();
        model.acked = model.acked.max(stream.durable());
    }
    let operations = sim.disk_operations(node);
    (sim, node, operations)
}

/// Opens the stream after a crash, in half of the cases after one more on the way, twice, and goes on with it.
fn recover(sim: &mut Sim, node: NodeId, model: &Rc<RefCell<Model>>, dice: &mut Dice) -> u64 {
    let mut ends = 0;
    while dice.chance(50) {
        sim.crash_at_disk_operation(node, 1 + dice.below(12));
        ends += u64::from(sim.run_until_down(node, open()).is_none());
        sim.crash(node);
    }
    let (stream, replayed) = sim.run(node, open());
    check(&replayed, &stream, &mut model.borrow_mut());
    if dice.chance(50) {
        sim.crash(node);
    }
    drop(stream);
    let (stream, again) = sim.run(node, open());
    assert!(replayed == again, "recovery is idempotent");
    let (start, payload) = (stream.end(), Bytes::from_static(b"after the crash"));
    let appended = payload.clone();
    let end = sim.run(node, async move {
        let end = stream.append(&appended).expect("append");
        stream.flush().await.expect("flush");
        end
    });
    sim.crash(node);
    model.borrow_mut().entries.push(Entry { start, end, payload });
    model.borrow_mut().acked = end;
    let (stream, replayed) = sim.run(node, open());
    check(&replayed, &stream, &mut model.borrow_mut());
    assert_eq!(sim.panics(), 0);
    ends
}

#[test]
fn nothing_durable_is_lost_by_a_power_cut_at_any_disk_operation() {
    let test = "nothing_durable_is_lost_by_a_power_cut_at_any_disk_operation";
    let exploration = Exploration::new(test, 60, 10);
    let (mut cuts, mut in_recovery, mut replayed) = (0, 0, 0);
    for seed in exploration.seeds() {
        let whole = exploration.attempt(seed, None, || take_steps_until(seed, None, &Rc::default()));
        for at in exploration.points(seed, whole.2) {
            exploration.attempt(seed, Some(at), || {
                let model = Rc::default();
                let (mut sim, node, _) = take_steps_until(seed, Some(at), &model);
                in_recovery += recover(&mut sim, node, &model, &mut Dice::new(seed << 20 | at));
                replayed += model.borrow().entries.len();
                cuts += 1;
            });
        }
    }
    let explored = cuts > 500 && in_recovery > 100 && replayed > 2_000;
    assert!(
        explored || !exploration.is_default(),
        "{cuts} cuts, {in_recovery} in recovery, {replayed} entries"
    );
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
