//! Hosts on simulated nodes: power cuts, lost messages, lagging followers.

use super::codec::{Reader, Writer};
use super::*;
use heizer_runtime::sim::{self, Sim};
use heizer_runtime::{random, task, time};
use heizer_storage::StorageContext;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const GROUP: GroupId = GroupId(5);

/// Remembers every command in order; answers how many there were before.
#[derive(Default)]
struct Journaled {
    commands: Vec<(u64, Bytes)>,
    restored: u32,
}

impl StateMachine for Journaled {
    fn apply(&mut self, index: u64, command: &[u8]) -> Bytes {
        assert!(self.commands.last().is_none_or(|(last, _)| *last < index), "applied in order, each once");
        let mut w = Writer::new();
        w.len(self.commands.len());
        self.commands.push((index, Bytes::copy_from_slice(command)));
        w.finish()
    }

    fn snapshot(&self) -> Bytes {
        let mut w = Writer::new();
        w.len(self.commands.len());
        for (index, command) in &self.commands {
            w.u64(*index);
            w.bytes(command);
        }
        w.finish()
    }

    fn restore(&mut self, snapshot: &[u8]) {
        let mut r = Reader::new(snapshot);
        let n = r.count(2).expect("count");
        let one = |r: &mut Reader<'_>| {
            (r.u64().expect("index"), Bytes::copy_from_slice(r.bytes().expect("command")))
        };
        self.commands = (0..n).map(|_| one(&mut r)).collect();
        self.restored += 1;
    }
}

type Shared = Rc<RefCell<Journaled>>;

fn storage() -> Rc<StorageContext> {
    StorageContext::new(heizer_storage::StorageLimits::default())
}

fn often() -> RaftConfig {
    RaftConfig { checkpoint_entries_max: 20, entries_kept_max: 5, ..RaftConfig::default() }
}

async fn open_groups(
    config: RaftConfig,
    ids: impl IntoIterator<Item = u32>,
) -> (RaftHost, BTreeMap<GroupId, Shared>) {
    let machines: BTreeMap<GroupId, Shared> =
        ids.into_iter().map(|id| (GroupId(id), Shared::default())).collect();
    let boxed = machines.iter().map(|(id, m)| (*id, Box::new(m.clone()) as Box<dyn StateMachine>)).collect();
    let host = RaftHost::open(Path::new("/raft"), &storage(), NodeId(1), config, boxed, &[NodeId(1)]).await;
    (host.expect("opens"), machines)
}

fn commands(machine: &Shared) -> Vec<Bytes> {
    machine.borrow().commands.iter().map(|(_, c)| c.clone()).collect()
}

fn bytes(text: String) -> Bytes {
    Bytes::from(text)
}

#[test]
fn a_proposal_answers_with_its_index_and_result() {
    sim::block_on(1, async {
        let (host, machines) = open_groups(RaftConfig::default(), [1, 5]).await;
        assert!(host.is_leader(GROUP) && host.leader(GROUP) == Some(NodeId(1)));
        let hooked = Rc::new(RefCell::new(Vec::new()));
        let seen = hooked.clone();
        let inner = host.clone();
        host.on_apply(move |a| {
            if let Applied::Command { group, index, command, .. } = a {
                assert!(inner.applied_index(*group) >= *index, "the hook may call the host");
                seen.borrow_mut().push((*group, command.clone()));
            }
        });
        let before = host.applied_index(GROUP);
        let (index, result) = host.propose(GROUP, bytes("a".into())).await.expect("committed");
        assert_eq!((index, &result[..]), (before + 1, &[0][..]));
        let (_, result) = host.propose(GROUP, bytes("b".into())).await.expect("committed");
        assert_eq!(&result[..], &[1]);
        assert_eq!(commands(&machines[&GROUP]), ["a", "b"]);
        assert_eq!(*hooked.borrow(), [(GROUP, bytes("a".into())), (GROUP, bytes("b".into()))]);
        let unknown = host.propose(GroupId(9), bytes("x".into())).await;
        assert_eq!(unknown, Err(ProposeError::UnknownGroup));
        let large = Bytes::from(vec![0; RaftConfig::default().command_bytes_max + 1]);
        assert_eq!(host.propose(GROUP, large).await, Err(ProposeError::TooLarge));
        host.shutdown().await;
        assert_eq!(host.propose(GROUP, bytes("x".into())).await, Err(ProposeError::ShuttingDown));

        let (host, machines) = open_groups(RaftConfig::default(), [1, 5]).await;
        assert_eq!(commands(&machines[&GROUP]), ["a", "b"]);
        let all = open_after(&host).await;
        assert!(
            matches!(all, Err(OpenError::MisplacedGroup(GroupId(1)))),
            "a group that isn't placed here is noticed"
        );
    });
}

/// Shuts the host down and opens its directory with group 5 only.
async fn open_after(host: &RaftHost) -> Result<RaftHost, OpenError> {
    host.shutdown().await;
    let machine: Box<dyn StateMachine> = Box::new(Journaled::default());
    let groups = vec![(GROUP, machine)];
    RaftHost::open(Path::new("/raft"), &storage(), NodeId(1), often(), groups, &[NodeId(1)]).await
}

#[test]
fn figures_follow_what_is_proposed_applied_and_snapshotted() {
    sim::block_on(3, async {
        let (host, _) = open_groups(often(), [1, 5]).await;
        for n in 0..30 {
            host.propose(GROUP, bytes(format!("{n}"))).await.expect("committed");
        }
        let large = Bytes::from(vec![0; often().command_bytes_max + 1]);
        assert_eq!(host.propose(GROUP, large).await, Err(ProposeError::TooLarge));
        let figures = host.figures();
        assert_eq!((figures.proposals, figures.proposal_failures, figures.failed), (31, 1, false));
        assert_eq!(figures.groups.iter().map(|g| g.group).collect::<Vec<_>>(), [GroupId(1), GROUP]);
        let group = figures.groups[1];
        assert_eq!((group.role, group.term, group.proposals_waiting), (Role::Leader, host.term(GROUP), 0));
        assert_eq!(group.applied_index, host.applied_index(GROUP));
        assert!(group.applied_index <= group.commit_index && group.commit_index <= group.last_index);
        assert!(figures.snapshots > 0 && group.snapshot_index > 0, "20 entries are worth a snapshot");
        assert!(group.snapshot_index <= group.applied_index && figures.stream_bytes > 0);
        host.shutdown().await;
    });
}

#[test]
fn concurrent_proposals_of_many_groups_share_durable_writes() {
    let elapsed = |groups: u32, each: u32| {
        sim::block_on(7, async move {
            let started = time::now();
            let (host, machines) = open_groups(RaftConfig::default(), 0..groups).await;
            let opened = time::now();
            let proposals = (0..groups).flat_map(|g| (0..each).map(move |i| (GroupId(g), i)));
            let tasks: Vec<_> = proposals
                .map(|(g, i)| {
                    let host = host.clone();
                    task::spawn(async move { host.propose(g, bytes(format!("{g}/{i}"))).await })
                })
                .collect();
            for t in tasks {
                t.await.expect("no panic").expect("committed");
            }
            let done = time::now();
            for m in machines.values() {
                assert_eq!(m.borrow().commands.len(), each as usize);
            }
            (opened - started, done - opened)
        })
    };
    let (open_one, propose_one) = elapsed(1, 1);
    let (open_many, propose_many) = elapsed(64, 20);
    assert!(open_many < open_one * 4, "opening 64 groups took {open_many:?}, one {open_one:?}");
    assert!(propose_many < propose_one * 8, "1,280 proposals took {propose_many:?}, one {propose_one:?}");
}

#[test]
fn a_host_whose_groups_have_one_voter_is_silent_while_idle() {
    let mut sim = Sim::new(3);
    let node = sim.node(1);
    let host = sim.run(node, open_groups(RaftConfig::default(), 0..64));
    sim.run_for(Duration::from_secs(1));
    let before = sim.schedule_hash();
    sim.run_for(Duration::from_secs(600));
    assert_eq!(sim.schedule_hash(), before, "nothing was scheduled in ten idle minutes");
    drop(host);
}

#[test]
fn what_was_answered_survives_every_power_cut() {
    let mut answered_total = 0;
    for seed in 0..30 {
        let mut sim = Sim::new(seed);
        let node = sim.node(1);
        let answered: Rc<RefCell<BTreeSet<Bytes>>> = Rc::default();
        for life in 0..4u64 {
            let answered_by = answered.clone();
            sim.start(node, move || {
                let answered = answered_by.clone();
                async move {
                    let (host, machines) = open_groups(often(), [1, 5]).await;
                    check_answered(&machines[&GROUP], &answered);
                    for task_no in 0..4 {
                        let (host, answered) = (host.clone(), answered.clone());
                        drop(task::spawn(async move {
                            for i in 0..40 {
                                let command = bytes(format!("{life}/{task_no}/{i}"));
                                host.propose(GroupId(1), command.clone()).await.expect("committed");
                                host.propose(GROUP, command.clone()).await.expect("committed");
                                answered.borrow_mut().insert(command);
                            }
                        }));
                    }
                }
            });
            sim.run_for(Duration::from_micros(300 + (seed * 7919 + life * 104_729) % 30_000));
            sim.crash(node);
        }
        let end = answered.clone();
        sim.run(node, async move {
            let (host, machines) = open_groups(often(), [1, 5]).await;
            check_answered(&machines[&GROUP], &end);
            let before = commands(&machines[&GROUP]);
            host.shutdown().await;
            let (_host, machines) = open_groups(often(), [1, 5]).await;
            assert_eq!(commands(&machines[&GROUP]), before);
        });
        assert_eq!(sim.panics(), 0);
        answered_total += answered.borrow().len();
    }
    assert!(answered_total > 500, "the runs exercised something: {answered_total} answers");
}

fn check_answered(machine: &Shared, answered: &Rc<RefCell<BTreeSet<Bytes>>>) {
    let list = commands(machine);
    let set: BTreeSet<Bytes> = list.iter().cloned().collect();
    assert_eq!(set.len(), list.len(), "no command twice");
    assert!(set.is_superset(&answered.borrow()), "nothing answered is lost");
}

#[test]
fn the_stream_is_cut_behind_snapshots_though_a_quiet_group_pins_it() {
    sim::block_on(11, async {
        let config = RaftConfig { stream_bytes_max: 1 << 20, ..RaftConfig::default() };
        let (host, _machines) = open_groups(config.clone(), [1]).await;
        host.shutdown().await;
        let sink: Rc<RefCell<Last>> = Rc::default();
        let quiet: Shared = Rc::default();
        let groups: Vec<(GroupId, Box<dyn StateMachine>)> =
            vec![(GroupId(1), Box::new(quiet.clone())), (GroupId(2), Box::new(sink.clone()))];
        let open = |groups| async {
            let dir = Path::new("/raft");
            let host = RaftHost::open(dir, &storage(), NodeId(1), config.clone(), groups, &[NodeId(1)]).await;
            host.expect("opens")
        };
        let host = open(groups).await;
        host.propose(GroupId(1), bytes("quiet".into())).await.expect("committed");
        for i in 0..80u32 {
            let mut command = vec![0u8; 1 << 20];
            command[..4].copy_from_slice(&i.to_be_bytes());
            host.propose(GroupId(2), command.into()).await.expect("committed");
        }
        time::sleep(Duration::from_secs(1)).await;
        assert!(host.stream_bytes() < 40 << 20, "{} bytes are kept of 80 MiB", host.stream_bytes());
        host.shutdown().await;
        let groups: Vec<(GroupId, Box<dyn StateMachine>)> =
            vec![(GroupId(1), Box::new(quiet.clone())), (GroupId(2), Box::new(sink.clone()))];
        quiet.borrow_mut().commands.clear();
        sink.borrow_mut().0 = 0;
        open(groups).await;
        assert_eq!((commands(&quiet), sink.borrow().0), (vec![bytes("quiet".into())], 79));
    });
}

/// Keeps the number of the last command only.
#[derive(Default)]
struct Last(u32);

impl StateMachine for Last {
    fn apply(&mut self, _index: u64, command: &[u8]) -> Bytes {
        self.0 = u32::from_be_bytes(command[..4].try_into().expect("four bytes"));
        Bytes::new()
    }

    fn snapshot(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn restore(&mut self, snapshot: &[u8]) {
        self.0 = u32::from_be_bytes(snapshot.try_into().expect("four bytes"));
    }
}

#[test]
fn groups_move_to_another_stream_by_import() {
    sim::block_on(13, async {
        let (host, _) = open_groups(often(), [1, 5]).await;
        for i in 0..50 {
            host.propose(GROUP, bytes(format!("{i}"))).await.expect("committed");
        }
        host.shutdown().await;
        let images = read_groups(Path::new("/raft"), &storage()).await.expect("reads");
        assert_eq!(images.iter().map(GroupImage::group).collect::<Vec<_>>(), [GroupId(1), GROUP]);
        for life in 0..2 {
            let machine: Shared = Rc::default();
            let groups: Vec<(GroupId, Box<dyn StateMachine>)> = vec![(GROUP, Box::new(machine.clone()))];
            // The second time the new stream holds the group, and the import is ignored.
            let imports = images.iter().filter(|i| i.group() == GROUP).cloned().collect();
            let dir = Path::new("/raft-2");
            let voters = [NodeId(1)];
            let host =
                RaftHost::open_importing(dir, &storage(), NodeId(1), often(), groups, &voters, imports).await;
            let host = host.expect("opens");
            assert_eq!(commands(&machine).len(), 50 + life);
            host.propose(GROUP, bytes(format!("after {life}"))).await.expect("committed");
            host.shutdown().await;
        }
    });
}

/// Three nodes whose messages pass through mailboxes, some of them lost.
struct Cluster {
    sim: Sim,
    nodes: Vec<sim::NodeId>,
    shared: Rc<Network>,
}

#[derive(Default)]
struct Network {
    mailboxes: RefCell<BTreeMap<u64, Vec<(u64, Bytes)>>>,
    machines: RefCell<BTreeMap<u64, Shared>>,
    hosts: RefCell<BTreeMap<u64, RaftHost>>,
    answered: RefCell<BTreeSet<Bytes>>,
    /// Whether clients propose; without them the cluster comes to rest.
    busy: Cell<bool>,
    /// One message in so many is lost; 0 for none.
    loss: Cell<u64>,
    snapshots: Cell<u32>,
    lives: Cell<u32>,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let mut sim = Sim::new(seed);
        let nodes = (0..3).map(|_| sim.node(1)).collect();
        let shared = Rc::new(Network::default());
        shared.busy.set(true);
        Cluster { sim, nodes, shared }
    }

    fn start(&mut self, n: u64) {
        let shared = self.shared.clone();
        self.sim.start(self.nodes[n as usize - 1], move || live(n, shared.clone()));
    }

    fn crash(&mut self, n: u64) {
        self.sim.crash(self.nodes[n as usize - 1]);
        self.shared.machines.borrow_mut().remove(&n);
        self.shared.hosts.borrow_mut().remove(&n);
        self.shared.mailboxes.borrow_mut().remove(&n);
    }

    /// Lets everything heal and come to rest, then compares the replicas.
    fn settle(mut self) -> (usize, u32, u64, Vec<Bytes>) {
        self.shared.loss.set(0);
        for n in 1..=3 {
            if !self.sim.is_up(self.nodes[n as usize - 1]) {
                self.start(n);
            }
        }
        self.sim.run_for(Duration::from_secs(8));
        self.shared.busy.set(false);
        self.sim.run_for(Duration::from_secs(20));
        assert_eq!(self.sim.panics(), 0);
        let machines = self.shared.machines.borrow();
        let lists: Vec<Vec<Bytes>> = machines.values().map(commands).collect();
        assert_eq!(lists.len(), 3);
        assert!(lists[0] == lists[1] && lists[1] == lists[2], "replicas are equal");
        for m in machines.values() {
            check_answered_set(m, &self.shared.answered.borrow());
        }
        let answered = self.shared.answered.borrow().len();
        (answered, self.shared.snapshots.get(), self.sim.schedule_hash(), lists[0].clone())
    }
}

fn check_answered_set(machine: &Shared, answered: &BTreeSet<Bytes>) {
    let set: BTreeSet<Bytes> = commands(machine).into_iter().collect();
    let lost: Vec<_> = answered.difference(&set).collect();
    assert!(lost.is_empty(), "nothing committed is lost: {lost:?}");
}

/// One node's life: the host, its transport, and a client that proposes where it leads.
async fn live(n: u64, net: Rc<Network>) {
    let machine: Shared = Rc::default();
    let groups: Vec<(GroupId, Box<dyn StateMachine>)> = vec![(GROUP, Box::new(machine.clone()))];
    let voters = [NodeId(1), NodeId(2), NodeId(3)];
    let config = RaftConfig { tick: Duration::from_millis(10), ..often() };
    let host = RaftHost::open(Path::new("/raft"), &storage(), NodeId(n), config, groups, &voters).await;
    let host = host.expect("opens");
    net.machines.borrow_mut().insert(n, machine);
    net.hosts.borrow_mut().insert(n, host.clone());
    net.lives.set(net.lives.get() + 1);
    let life = net.lives.get();
    for client in 0..3 {
        let (host, net) = (host.clone(), net.clone());
        drop(task::spawn(async move {
            for i in 0.. {
                time::sleep(Duration::from_millis(1 + random::below(10))).await;
                let command = bytes(format!("{life}/{client}/{i}"));
                if net.busy.get() && host.propose(GROUP, command.clone()).await.is_ok() {
                    net.answered.borrow_mut().insert(command);
                }
            }
        }));
    }
    loop {
        for (to, message) in host.take_outgoing() {
            if message.is_snapshot() {
                net.snapshots.set(net.snapshots.get() + 1);
            }
            if net.loss.get() == 0 || random::below(net.loss.get()) > 0 {
                net.mailboxes.borrow_mut().entry(to.0).or_default().push((n, message.encode()));
            }
        }
        let mut arrived = net.mailboxes.borrow_mut().remove(&n).unwrap_or_default();
        // The network reorders, too.
        if arrived.len() > 1 && net.loss.get() > 0 {
            let at = random::below(arrived.len() as u64) as usize;
            arrived.rotate_left(at);
        }
        for (from, bytes) in arrived {
            let message = Message::decode(&bytes).expect("decodes");
            host.step(NodeId(from), message).expect("accepted");
        }
        time::sleep(Duration::from_millis(1)).await;
    }
}

/// A run of 12 rounds: nodes go and come back, links lose messages.
fn storm(seed: u64) -> (usize, u32, u64, Vec<Bytes>) {
    let mut cluster = Cluster::new(seed);
    (1..=3).for_each(|n| cluster.start(n));
    let mut x = seed;
    for _ in 0..12 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let n = 1 + (x >> 33) % 3;
        cluster.shared.loss.set([0, 20, 4][(x >> 40) as usize % 3]);
        match cluster.sim.is_up(cluster.nodes[n as usize - 1]) {
            true => cluster.crash(n),
            false => cluster.start(n),
        }
        cluster.sim.run_for(Duration::from_millis(50 + (x >> 45) % 900));
    }
    cluster.settle()
}

#[test]
fn three_voters_elect_and_replicate() {
    let mut cluster = Cluster::new(2);
    (1..=3).for_each(|n| cluster.start(n));
    cluster.sim.run_for(Duration::from_secs(3));
    let leaders = |c: &Cluster| c.shared.hosts.borrow().values().filter(|h| h.is_leader(GROUP)).count();
    assert_eq!(leaders(&cluster), 1);
    let follower = cluster.shared.hosts.borrow().values().find(|h| !h.is_leader(GROUP)).cloned();
    let follower = follower.expect("two of them");
    let leader = follower.leader(GROUP);
    assert!(leader.is_some());
    let node = cluster.nodes[follower.node_id().0 as usize - 1];
    let refused = cluster.sim.run(node, async move { follower.propose(GROUP, bytes("x".into())).await });
    assert_eq!(refused, Err(ProposeError::NotLeader { leader }));
    let (answered, ..) = cluster.settle();
    assert!(answered > 100, "{answered} proposals were answered");
}

#[test]
fn a_follower_that_was_away_for_long_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::new(4);
    (1..=3).for_each(|n| cluster.start(n));
    cluster.sim.run_for(Duration::from_secs(1));
    let away = (1..=3).find(|n| !cluster.shared.hosts.borrow()[n].is_leader(GROUP)).expect("a follower");
    cluster.crash(away);
    cluster.sim.run_for(Duration::from_secs(4));
    let shared = cluster.shared.clone();
    let (_, snapshots, ..) = cluster.settle();
    assert!(snapshots > 0 && shared.machines.borrow()[&away].borrow().restored > 0);
}

#[test]
fn three_voters_lose_nothing_committed_through_crashes_and_lost_messages() {
    let (mut answered, mut snapshots) = (0, 0);
    for seed in 100..112 {
        let (a, s, ..) = storm(seed);
        answered += a;
        snapshots += s;
    }
    assert!(answered > 1_000 && snapshots > 5, "{answered} answers, {snapshots} snapshots");
}

#[test]
fn a_seed_replays_the_same_run() {
    assert_eq!(storm(42), storm(42));
}
