//! What holds whatever happens: random clients against a shell whose writes finish late, and sometimes fail.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// One thing that happens; the numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Join { who: u8, is_static: bool, version: i16, protocol: u8 },
    Sync { who: u8 },
    Round,
    Heartbeat { who: u8 },
    Leave { who: u8 },
    Commit { who: u8, partition: i32, offset: i64 },
    SimpleCommit { partition: i32, offset: i64 },
    Delete,
    DeleteOffsets { partition: i32 },
    DeleteTopic,
    Pass { ms: u64 },
    Settle { count: usize },
    Fail,
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<u8>(), any::<bool>(), 0i16..=9, any::<u8>())
            .prop_map(|(who, is_static, version, protocol)| Step::Join { who, is_static, version, protocol }),
        4 => any::<u8>().prop_map(|who| Step::Sync { who }),
        12 => Just(Step::Round),
        3 => any::<u8>().prop_map(|who| Step::Heartbeat { who }),
        2 => any::<u8>().prop_map(|who| Step::Leave { who }),
        3 => (any::<u8>(), 0..3, 0i64..100)
            .prop_map(|(who, partition, offset)| Step::Commit { who, partition, offset }),
        1 => (0..3, 0i64..100).prop_map(|(partition, offset)| Step::SimpleCommit { partition, offset }),
        1 => Just(Step::Delete),
        1 => (0..3).prop_map(|partition| Step::DeleteOffsets { partition }),
        1 => Just(Step::DeleteTopic),
        6 => prop_oneof![20 => 0u64..4_000, 4 => 4_000u64..70_000, 1 => Just(8 * 24 * 60 * 60 * 1_000)]
            .prop_map(|ms| Step::Pass { ms }),
        6 => (1usize..4).prop_map(|count| Step::Settle { count }),
        1 => Just(Step::Fail),
        1 => Just(Step::Move),
    ]
}

impl Shell {
    fn some_member(&self, who: u8) -> (ByteString, Option<ByteString>, i32) {
        let Some(entry) = self.shard.groups.get(GROUP) else { return ("".into(), None, 0) };
        let pending = entry.live.pending_joins.iter().map(|id| (id.clone(), None));
        let members = entry.live.members().map(|member| (member.id.clone(), member.instance_id.clone()));
        let all: Vec<_> = members.chain(pending).chain([("".into(), None)]).collect();
        let (id, instance) = all[usize::from(who) % all.len()].clone();
        (id, instance, entry.live.generation)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join { who, is_static, version, protocol: choice } => {
                let (id, instance, _) = self.some_member(who);
                let fresh = (id.is_empty() && is_static).then(|| ["a", "b"][usize::from(who) % 2].into());
                // Now and then a static member comes back without its id.
                let forgets = instance.is_some() && choice % 4 == 0;
                let names: &[&str] =
                    [&["range"][..], &["range", "sticky"], &["sticky", "range"]][usize::from(choice) % 3];
                let request = JoinGroupRequest {
                    member_id: if forgets { "".into() } else { id },
                    group_instance_id: instance.or(fresh),
                    protocols: names.iter().map(|name| protocol(name, b"m")).collect(),
                    ..join_as("")
                };
                self.join(request, version);
            }
            Step::Sync { who } => {
                let (id, instance, generation) = self.some_member(who);
                let all: Vec<_> =
                    self.shard.groups.get(GROUP).map(|entry| entry.live.member_ids()).unwrap_or_default();
                let request = SyncGroupRequest {
                    group_instance_id: instance,
                    protocol_name: None,
                    ..sync_as(&id, generation, &all)
                };
                self.sync(request);
            }
            Step::Round => self.round(),
            Step::Heartbeat { who } => {
                let (id, _, generation) = self.some_member(who);
                self.heartbeat_code(&id, generation);
            }
            Step::Leave { who } => {
                let (id, _, _) = self.some_member(who);
                let leaving = MemberIdentity { member_id: id, group_instance_id: None, reason: None };
                let request = LeaveGroupRequest {
                    group_id: GROUP.into(),
                    members: vec![leaving],
                    ..Default::default()
                };
                let answer = self.next_id();
                let result = self.shard.handle_leave(answer, request, 5, self.now);
                self.take_in(result);
            }
            Step::Commit { who, partition, offset } => {
                let (id, _, generation) = self.some_member(who);
                self.commit(commit_as(&id, generation, "t", partition, offset));
            }
            Step::SimpleCommit { partition, offset } => {
                self.commit(commit_as("", -1, "u", partition, offset));
            }
            Step::Delete => {
                let answer = self.next_id();
                let result = self.shard.delete_group(answer, &GROUP.into(), self.now);
                self.take_in(result);
            }
            Step::DeleteOffsets { partition } => {
                self.delete_offsets(&[("t", &[partition]), ("u", &[partition])]);
            }
            Step::DeleteTopic => {
                let result = self.shard.on_topics_deleted(&BTreeSet::from(["t".into()]));
                self.take_in(result);
            }
            Step::Pass { ms } => self.pass(ms),
            Step::Settle { count } => self.settle(count),
            Step::Fail if self.open.is_empty() => {}
            Step::Fail => {
                self.fail(ErrorCode::RequestTimedOut);
            }
            Step::Move => {
                let result = self.shard.on_unloaded(self.now);
                self.take_in(result);
                self.assert_all_answered();
                self.restart();
            }
        }
    }

    /// Every member that does not wait does what its client would do next.
    fn round(&mut self) {
        let Some(entry) = self.shard.groups.get(GROUP) else { return };
        let (state, generation) = (entry.live.state().name(), entry.live.generation);
        let pending = entry.live.pending_joins.iter().map(|id| (id.clone(), None, Vec::new()));
        let members = entry
            .live
            .members()
            .filter(|member| member.parked_join.is_none() && member.parked_sync.is_none());
        let members =
            members.map(|member| (member.id.clone(), member.instance_id.clone(), member.protocols.clone()));
        let all = entry.live.member_ids();
        let idle: Vec<_> = pending.chain(members).collect();
        for (id, group_instance_id, protocols) in idle {
            if protocols.is_empty() {
                self.join(join_as(&id), 9);
            } else if state == "PreparingRebalance" {
                self.join(JoinGroupRequest { group_instance_id, protocols, ..join_as(&id) }, 9);
            } else if state == "CompletingRebalance" {
                self.sync(SyncGroupRequest {
                    group_instance_id,
                    protocol_name: None,
                    ..sync_as(&id, generation, &all)
                });
            } else {
                self.heartbeat_code(&id, generation);
            }
        }
    }

    fn assert_all_answered(&self) {
        let owed = (1..=self.next_answer).map(AnswerId).find(|id| self.is_open(*id));
        assert_eq!(owed, None, "every answer comes");
    }

    /// The durable state is a replay of the log, at every moment (contract G3).
    fn assert_replay_is_equal(&self) {
        let replayed = loaded(&self.log, GroupConfig::default(), 0);
        let durable = |shard: &GroupShard| {
            let entries =
                shard.groups.iter().filter(|(_, entry)| entry.durable.is_some() || !entry.offsets.is_empty());
            entries
                .map(|(id, entry)| (id.clone(), entry.durable.clone(), entry.offsets.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(durable(&self.shard), durable(&replayed));
    }

    /// A stable group with nothing on its way is what its record says.
    fn assert_stable_is_durable(&self) {
        let Some(entry) = self.shard.groups.get(GROUP) else { return };
        if &*self.state() == "Stable" && self.open.is_empty() {
            let mut live = entry.live.to_durable(|member| member.assignment.clone());
            let durable = entry.durable.clone().expect("a stable group is in the log");
            live.state_since = durable.state_since;
            assert_eq!(live, durable);
        }
    }
}

/// How often a run came to what is worth testing.
#[derive(Default)]
struct Reached {
    stable: Cell<u32>,
    rebalanced: Cell<u32>,
    records: Cell<usize>,
}

impl Reached {
    fn note(&self, shell: &Shell) {
        let state = shell.state();
        self.stable.set(self.stable.get() + u32::from(state == "Stable"));
        self.rebalanced.set(self.rebalanced.get() + u32::from(state == "CompletingRebalance"));
        self.records.set(self.records.get().max(shell.log.len()));
    }

    fn assert_enough(&self) {
        let reached = (self.stable.get(), self.rebalanced.get(), self.records.get());
        let is_enough = reached.0 > 100 && reached.1 > 100 && reached.2 > 10;
        assert!(is_enough, "the runs exercised too little: {reached:?}");
    }
}

fn for_random_steps(steps_max: usize, run: impl Fn(Vec<Step>, &Reached)) {
    let reached = Reached::default();
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 1..steps_max), |steps| {
        run(steps, &reached);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    reached.assert_enough();
}

fn run(steps: Vec<Step>, can_fail: bool, reached: &Reached) {
    let mut shell = Shell::new();
    shell.is_fast = false;
    for step in steps.into_iter().filter(|step| can_fail || !matches!(step, Step::Fail)) {
        shell.step(step);
        reached.note(&shell);
        shell.assert_replay_is_equal();
        if !can_fail {
            shell.assert_stable_is_durable();
        }
    }
    let result = shell.shard.on_unloaded(shell.now);
    shell.take_in(result);
    shell.assert_all_answered();
}

#[test]
fn state_is_a_replay_of_the_log_and_every_answer_comes_once() {
    for_random_steps(120, |steps, reached| run(steps, false, reached));
}

#[test]
fn the_same_holds_when_writes_fail() {
    for_random_steps(120, |steps, reached| run(steps, true, reached));
}

#[test]
fn left_alone_every_group_comes_to_rest() {
    for_random_steps(80, |steps, reached| {
        let mut shell = Shell::new();
        for step in steps {
            shell.step(step);
            reached.note(&shell);
        }
        // Sessions end, then retentions.
        shell.pass(60 * 60 * 1_000);
        assert!(shell.shard.groups.values().all(|entry| entry.live.member_count() == 0));
        shell.pass(9 * 24 * 60 * 60 * 1_000);
        assert!(shell.shard.groups.is_empty(), "{:?}", shell.shard.groups);
        assert!(shell.shard.next_deadline().is_none());
        shell.assert_all_answered();
    });
}
