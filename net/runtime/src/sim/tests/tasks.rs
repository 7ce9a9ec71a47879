use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{join, join_all};

use crate::collections::HashMap;
use crate::cores::{self, CoreId};
use crate::load::load;
use crate::sim::{EPOCH_MS, Sim, block_on};
use crate::sync::Event;
use crate::task::{self, Pacer, SLICE_MAX, spawn, yield_now};
use crate::time::{Elapsed, now, sleep, sleep_until, timeout, wall_clock_ms};
use crate::{host, random};

const MS: Duration = Duration::from_millis(1);

#[test]
fn timers_fire_in_order_of_their_deadlines_and_not_early() {
    block_on(1, async {
        let fired = Rc::new(RefCell::new(Vec::new()));
        let tasks = [5_u32, 1, 3, 2, 4].map(|ms| {
            let fired = fired.clone();
            spawn(async move {
                let deadline = now() + MS * ms;
                sleep_until(deadline).await;
                assert!(now() >= deadline);
                fired.borrow_mut().push(ms);
            })
        });
        join_all(tasks).await;
        assert_eq!(*fired.borrow(), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn virtual_time_jumps_and_the_wall_clock_follows() {
    let before = wall_and_mono_after(Duration::ZERO);
    let after = wall_and_mono_after(Duration::from_secs(86_400));
    assert_eq!(before, (EPOCH_MS, 0));
    assert_eq!(after.0 - EPOCH_MS, 86_400_000);
    assert_eq!(after.1, 86_400_000);
}

fn wall_and_mono_after(duration: Duration) -> (i64, u64) {
    block_on(2, async move {
        sleep(duration).await;
        (wall_clock_ms(), now().as_millis())
    })
}

#[test]
fn a_timeout_ends_what_takes_longer_and_only_that() {
    block_on(3, async {
        assert_eq!(timeout(MS * 10, async { 7 }).await, Ok(7));
        assert_eq!(timeout(MS * 10, sleep(MS * 20)).await, Err(Elapsed));
        assert_eq!(timeout(MS * 10, sleep(MS * 5)).await, Ok(()));
    });
}

#[test]
fn dropping_a_sleep_cancels_its_timer() {
    let mut sim = Sim::new(4);
    let node = sim.node(1);
    sim.run(node, async {
        let mut dropped = sleep(Duration::from_secs(3600));
        assert!((&mut dropped).now_or_never().is_none());
        drop(dropped);
        sleep(MS).await;
        assert!(crate::core::current().timers.borrow().next_deadline().is_none());
    });
}

#[test]
fn an_event_wakes_all_who_listen() {
    block_on(5, async {
        let (event, woken) = (Event::new(), Rc::new(Cell::new(0)));
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let (listen, woken) = (event.listen(), woken.clone());
                spawn(async move {
                    listen.await;
                    woken.set(woken.get() + 1);
                })
            })
            .collect();
        sleep(MS).await;
        assert_eq!(woken.get(), 0);
        event.notify_all();
        join_all(tasks).await;
        assert_eq!(woken.get(), 5);
    });
}

#[test]
fn a_busy_loop_that_yields_cannot_stop_time_or_other_tasks() {
    block_on(6, async {
        let other = spawn(async {
            for _ in 0..10 {
                yield_now().await;
            }
        });
        let deadline = now() + MS;
        while now() < deadline || !other.is_finished() {
            yield_now().await;
        }
    });
}

#[test]
fn ready_tasks_run_in_an_order_that_depends_on_the_seed() {
    let order = |seed| {
        block_on(seed, async {
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks = [0, 1, 2, 3].map(|number| {
                let order = order.clone();
                spawn(async move { order.borrow_mut().push(number) })
            });
            join_all(tasks).await;
            order.take()
        })
    };
    let orders: BTreeSet<Vec<i32>> = (0..200).map(order).collect();
    assert_eq!(orders.len(), 24, "every order of four tasks comes up");
}

#[test]
fn a_panicking_task_is_caught_counted_and_told_to_its_joiner() {
    let mut sim = Sim::new(7);
    let node = sim.node(1);
    let message = sim.run(node, async {
        let error = spawn(async { panic!("on purpose") }).await.expect_err("it panicked");
        assert_eq!(task::panics(), 1);
        assert_eq!(spawn(async { 1 }).await, Ok(1));
        error.to_string()
    });
    assert_eq!(message, "task panicked: on purpose");
    assert_eq!(sim.panics(), 1);
    sim.crash(node);
    assert_eq!(sim.panics(), 1);
}

#[test]
#[should_panic(expected = "the main future's own message")]
fn a_panic_of_the_driven_future_reaches_the_test() {
    block_on(8, async { panic!("the main future's own message") });
}

#[test]
#[should_panic(expected = "a main's own message")]
fn a_panic_of_a_main_reaches_whoever_drives_the_simulation() {
    let mut sim = Sim::new(8);
    let node = sim.node(2);
    sim.start(node, || async {
        sleep(MS).await;
        assert!(cores::current() == CoreId(0), "a main's own message");
    });
    sim.run_for(MS * 2);
}

#[test]
fn calls_and_casts_between_two_cores_start_in_order() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed);
        let node = sim.node(2);
        let seen = sim.run(node, async {
            let other = CoreId(1);
            cores::call(other, || async { cores::set_room(Rc::new(RefCell::new(Vec::<u32>::new()))) })
                .await
                .expect("no panic there");
            let note = |number| cores::room::<RefCell<Vec<u32>>>().borrow_mut().push(number);
            let calls: Vec<_> = (0..10)
                .map(|number| {
                    if number % 2 == 0 {
                        cores::cast(other, move || note(number));
                        async {}.left_future()
                    } else {
                        // Sent at its first poll, which is here.
                        let mut call = Box::pin(cores::call(other, move || async move {
                            note(number);
                            sleep(MS).await;
                        }));
                        assert!((&mut call).now_or_never().is_none());
                        call.map(|done| done.expect("no panic there")).right_future()
                    }
                })
                .collect();
            join_all(calls).await;
            let collect = || async { cores::room::<RefCell<Vec<u32>>>().take() };
            cores::call(other, collect).await.expect("no panic there")
        });
        assert_eq!(seen, (0..10).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_call_runs_on_its_core_and_a_panic_there_is_an_error_here() {
    let mut sim = Sim::new(9);
    let node = sim.node(3);
    sim.run(node, async {
        assert_eq!(cores::count(), 3);
        let where_it_ran = cores::call_all(|| async { cores::current() }).await;
        assert_eq!(where_it_ran, Ok(vec![CoreId(0), CoreId(1), CoreId(2)]));
        let panicking = cores::call(CoreId(2), || async { assert!(now().as_nanos() == 0, "on purpose") });
        assert_eq!(panicking.await, Err(cores::CoreGone));
    });
    assert_eq!(sim.panics(), 1);
}

#[test]
#[should_panic(expected = "sim/tests/tasks.rs")]
fn a_deadlock_names_the_seed_and_where_the_waiting_tasks_were_spawned() {
    block_on(10, async {
        let event = Event::new();
        let waiting = event.listen();
        let _ = spawn(waiting).await;
    });
}

#[test]
#[should_panic(expected = "doesn't end")]
fn a_future_that_others_keep_company_for_ever_is_given_up() {
    let mut sim = Sim::new(15);
    sim.run_steps_max = 1000;
    let node = sim.node(1);
    sim.start(node, || async {
        loop {
            sleep(Duration::from_secs(1)).await;
        }
    });
    sim.run(node, std::future::pending::<()>());
}

/// A bit of everything, as material for comparing schedules.
fn busy(seed: u64) -> (u64, Vec<u64>) {
    let mut sim = Sim::new(seed);
    let nodes = [sim.node(2), sim.node(3)];
    for node in nodes {
        sim.start(node, || async {
            let mut map = HashMap::default();
            for round in 0..20 {
                map.insert(random::u64(), round);
                sleep(Duration::from_micros(random::below(300))).await;
                let target = CoreId(random::below(cores::count() as u64) as u16);
                let sum = cores::call(target, move || async move { round + 1 }).await;
                assert_eq!(sum, Ok(round + 1));
                join(yield_now(), crate::fs::create_dir_all("/some/where".as_ref()))
                    .await
                    .1
                    .expect("created");
            }
            for round in map.into_values() {
                sleep(Duration::from_nanos(round)).await;
            }
        });
    }
    sim.run_for(MS);
    sim.crash(nodes[1]);
    sim.run_for(MS * 100);
    let randoms = sim.run(nodes[1], async { (0..3).map(|_| random::u64()).collect() });
    (sim.schedule_hash(), randoms)
}

#[test]
fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
    let schedules: Vec<_> = (0..20).map(busy).collect();
    let again: Vec<_> = (0..20).map(busy).collect();
    assert_eq!(schedules, again);
    let hashes: BTreeSet<u64> = schedules.iter().map(|(hash, _)| *hash).collect();
    assert_eq!(hashes.len(), 20);
}

#[test]
fn a_crash_drops_tasks_timers_and_rooms_and_the_node_comes_up_empty() {
    struct Dropped(Rc<Cell<u32>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            // A destructor may look at its core, and what it starts there is dropped too.
            self.0.set(self.0.get() + 1 + u32::from(cores::current().0));
            spawn(async { unreachable!("its node is gone") });
            cores::cast(CoreId(1 - cores::current().0), || unreachable!("its node is gone"));
        }
    }
    let mut sim = Sim::new(11);
    let (node, dropped) = (sim.node(2), Rc::new(Cell::new(0)));
    let counter = dropped.clone();
    sim.start(node, move || {
        let (held, room) = (Dropped(counter.clone()), Dropped(counter.clone()));
        async move {
            cores::set_room(Rc::new(room));
            sleep(Duration::from_secs(3600)).await;
            drop(held);
        }
    });
    sim.run_for(MS);
    assert_eq!(dropped.get(), 0);
    sim.crash(node);
    assert!(!sim.is_up(node));
    assert_eq!(dropped.get(), 6, "two on core 0 and two on core 1");
    sim.crash(node);
    sim.run_for(MS);
    sim.run(node, async { assert!(cores::try_room::<Dropped>().is_none()) });
}

#[test]
fn background_work_keeps_to_its_share_and_lets_others_in() {
    block_on(14, async {
        let worked = Rc::new(Cell::new(0));
        let counter = worked.clone();
        spawn(async move {
            let mut pacer = Pacer::new(20);
            loop {
                let before = now();
                pacer.checkpoint().await;
                if now() - before < SLICE_MAX {
                    counter.set(counter.get() + (now() - before).as_nanos());
                }
            }
        });
        sleep(Duration::from_secs(1)).await;
        let share = worked.get() * 100 / 1_000_000_000;
        assert!((10..=25).contains(&share), "{share} percent");
    });
}

#[test]
fn a_core_is_busy_for_as_long_as_its_tasks_are_polled() {
    block_on(14, async {
        let before = load();
        sleep(Duration::from_secs(10)).await;
        let slept = load();
        assert!(slept.busy - before.busy < MS, "a sleeping core is idle");
        let mut pacer = Pacer::new(100);
        for _ in 0..1_000 {
            pacer.checkpoint().await;
        }
        let worked = load();
        assert!(worked.busy > slept.busy && worked.cpu == worked.busy, "{worked:?}");
        assert_eq!(worked.stalls, 0);
    });
}

#[test]
fn a_shutdown_request_reaches_every_core_of_that_node_alone() {
    let mut sim = Sim::new(12);
    let nodes = [sim.node(2), sim.node(1)];
    let ended = Rc::new(Cell::new(0));
    for node in nodes {
        let ended = ended.clone();
        sim.start(node, move || {
            let ended = ended.clone();
            async move {
                host::shutdown().await;
                ended.set(ended.get() + 1);
            }
        });
    }
    sim.run_for(MS);
    sim.request_shutdown(nodes[0]);
    sim.run_for(MS);
    assert_eq!(ended.get(), 2);
    sim.run(nodes[1], async {
        assert!(!host::shutdown_requested());
        host::request_shutdown();
    });
    sim.run_for(MS);
    assert_eq!(ended.get(), 3);
}

#[test]
fn a_finished_simulation_leaves_nothing_behind() {
    let mut sim = Sim::new(13);
    let node = sim.node(2);
    let held = Rc::new(());
    let weak = Rc::downgrade(&held);
    sim.run(node, async move {
        spawn(async move {
            sleep(Duration::from_secs(3600)).await;
            drop(held);
        });
        let addr = "127.0.0.1:9092".parse().expect("an address");
        let listener = crate::net::Listener::bind(addr).expect("a free port");
        spawn(async move {
            listener.accept().await.expect("a peer").0.read(bytes::BytesMut::with_capacity(1)).await
        });
        let stream = crate::net::Stream::connect(addr).await.expect("a listener");
        spawn(async move {
            sleep(MS).await;
            stream.shutdown();
        });
    });
    let world = Rc::downgrade(&sim.world);
    drop(sim);
    assert!(weak.upgrade().is_none());
    assert_eq!(world.strong_count(), 0);
}
