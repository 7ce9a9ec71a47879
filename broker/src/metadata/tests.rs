//! Whole-module tests: commands, snapshots and the image together.

use super::*;
use heizer_raft::StateMachine;
use proptest::prelude::*;
use std::collections::BTreeMap;
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn topic(name: &str, n: u128, partitions: usize) -> NewTopic {
    NewTopic { name: name.to_owned(), id: id(n), replicas: vec![vec![1]; partitions], configs: Vec::new() }
}

fn broker(n: i32, incarnation: u128) -> ClusterCommand {
    ClusterCommand::RegisterBroker {
        id: n,
        host: format!("host-{n}"),
        port: 9092,
        rack: (n % 2 == 0).then(|| "a".to_owned()),
        incarnation: id(incarnation),
    }
}

fn run(state: &mut ClusterState, index: u64, command: ClusterCommand) -> ClusterOutcome {
    ClusterOutcome::decode(&state.apply(index, &command.encode())).expect("outcomes decode")
}

fn cluster() -> ClusterState {
    let mut state = ClusterState::new();
    run(&mut state, 1, broker(1, 1));
    run(&mut state, 2, broker(2, 2));
    state
}

#[test]
fn creating_a_topic_is_judged_by_kafkas_rules() {
    let mut state = cluster();
    let rejected = ClusterOutcome::Rejected;
    let mut create = |t: NewTopic| run(&mut state, 3, ClusterCommand::CreateTopic(t));
    assert_eq!(create(topic("a.b", 10, 3)), ClusterOutcome::Done);
    assert_eq!(create(topic("a.b", 11, 3)), rejected(ClusterError::TopicExists));
    assert_eq!(
        create(topic("a_b", 12, 3)),
        rejected(ClusterError::NameCollision { existing: "a.b".to_owned() })
    );
    assert_eq!(create(topic("c", 10, 3)), rejected(ClusterError::TopicIdInUse));
    assert_eq!(create(topic("c", 0, 3)), rejected(ClusterError::TopicIdInUse));
    assert_eq!(create(topic("..", 13, 3)), rejected(ClusterError::InvalidTopicName(TopicNameError::Dots)));
    assert_eq!(create(topic("c", 13, 0)), rejected(ClusterError::InvalidPartitions));
    assert_eq!(create(topic("c", 13, 100_001)), rejected(ClusterError::InvalidPartitions));
    let replicas = |replicas: Vec<Vec<i32>>| NewTopic { replicas, ..topic("c", 13, 1) };
    assert_eq!(create(replicas(vec![vec![]])), rejected(ClusterError::InvalidReplicationFactor));
    assert_eq!(create(replicas(vec![vec![1, 1]])), rejected(ClusterError::InvalidReplicaAssignment));
    assert_eq!(create(replicas(vec![vec![1], vec![1, 2]])), rejected(ClusterError::InvalidReplicaAssignment));
    assert_eq!(create(replicas(vec![vec![3]])), rejected(ClusterError::InvalidReplicaAssignment));
    assert_eq!(create(replicas(vec![vec![1, 2], vec![2, 1]])), ClusterOutcome::Done);
    assert_eq!(state.topics().count(), 2);
    assert!(state.topic_named("a_b").is_none() && state.topic_named("a.b").is_some());
}

#[test]
fn a_deleted_topics_name_is_free_again_and_its_id_unknown() {
    let mut state = cluster();
    run(&mut state, 3, ClusterCommand::CreateTopic(topic("t", 10, 1)));
    assert_eq!(run(&mut state, 4, ClusterCommand::DeleteTopic { id: id(10) }), ClusterOutcome::Done);
    let again = run(&mut state, 5, ClusterCommand::DeleteTopic { id: id(10) });
    assert_eq!(again, ClusterOutcome::Rejected(ClusterError::UnknownTopicId));
    let created = run(&mut state, 6, ClusterCommand::CreateTopic(topic("t", 11, 1)));
    assert_eq!(created, ClusterOutcome::Done);
    assert_eq!(state.topic_named("t").map(|t| t.id), Some(id(11)));
}

#[test]
fn partitions_only_grow_and_concurrent_growths_do_not_add_up() {
    let mut state = cluster();
    run(&mut state, 3, ClusterCommand::CreateTopic(topic("t", 10, 2)));
    let grow = |total: u32, new: usize| ClusterCommand::CreatePartitions {
        id: id(10),
        total,
        replicas: vec![vec![2]; new],
    };
    assert_eq!(run(&mut state, 4, grow(4, 2)), ClusterOutcome::Done);
    let invalid = ClusterOutcome::Rejected(ClusterError::InvalidPartitions);
    assert_eq!(run(&mut state, 5, grow(4, 2)), invalid);
    assert_eq!(run(&mut state, 6, grow(3, 1)), invalid);
    let assignment = ClusterOutcome::Rejected(ClusterError::InvalidReplicaAssignment);
    assert_eq!(run(&mut state, 7, grow(6, 1)), assignment);
    assert_eq!(state.topic(id(10)).map(|t| t.replicas.len()), Some(4));
}

#[test]
fn a_brokers_epoch_grows_with_its_incarnation_only() {
    let mut state = ClusterState::new();
    assert_eq!(run(&mut state, 5, broker(1, 1)), ClusterOutcome::BrokerRegistered { epoch: 5 });
    assert_eq!(run(&mut state, 6, broker(1, 1)), ClusterOutcome::BrokerRegistered { epoch: 5 });
    assert_eq!(run(&mut state, 7, broker(1, 2)), ClusterOutcome::BrokerRegistered { epoch: 7 });
}

#[test]
fn producer_id_blocks_never_overlap_and_the_cluster_id_is_set_once() {
    let mut state = ClusterState::new();
    let take = |count| ClusterCommand::AllocateProducerIds { count };
    assert_eq!(run(&mut state, 1, take(10)), ClusterOutcome::ProducerIds { first: 0, count: 10 });
    assert_eq!(run(&mut state, 2, take(5)), ClusterOutcome::ProducerIds { first: 10, count: 5 });
    assert_eq!(run(&mut state, 3, take(0)), ClusterOutcome::Rejected(ClusterError::InvalidRequest));
    let set = |id: &str| ClusterCommand::SetClusterId { id: id.to_owned() };
    assert_eq!(run(&mut state, 4, set("x")), ClusterOutcome::ClusterId { id: "x".to_owned() });
    assert_eq!(run(&mut state, 5, set("y")), ClusterOutcome::ClusterId { id: "x".to_owned() });
}

#[test]
fn configs_are_set_and_taken_back() {
    let mut state = cluster();
    run(&mut state, 3, ClusterCommand::CreateTopic(topic("t", 10, 1)));
    let set = |key: &str, value: Option<&str>| ClusterCommand::SetTopicConfigs {
        id: id(10),
        changes: vec![(key.to_owned(), value.map(str::to_owned))],
    };
    run(&mut state, 4, set("retention.ms", Some("5")));
    run(&mut state, 5, set("cleanup.policy", Some("compact")));
    run(&mut state, 6, set("retention.ms", None));
    let configs = state.topic(id(10)).map(|t| t.configs.clone()).expect("exists");
    assert_eq!(*configs, BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]));
}

fn broker_config(broker: Option<i32>, key: &str, value: Option<&str>) -> ClusterCommand {
    let changes = vec![(key.to_owned(), value.map(str::to_owned))];
    ClusterCommand::SetBrokerConfigs { broker, changes }
}

#[test]
fn what_is_set_for_all_brokers_and_for_one_is_kept_apart_and_told_to_the_image() {
    let (mut state, mut builder) = (cluster(), ImageBuilder::new());
    let nothing = builder.apply(state.take_changes());
    run(&mut state, 3, broker_config(None, "log.retention.ms", Some("5")));
    run(&mut state, 4, broker_config(Some(2), "log.retention.ms", Some("6")));
    let set = builder.apply(state.take_changes());
    let of = |image: &MetadataImage, broker: Option<i32>| image.broker_configs().get(&broker).cloned();
    let value = |text: &str| Some(Configs::new([("log.retention.ms".to_owned(), text.to_owned())].into()));
    assert_eq!((of(&set, None), of(&set, Some(2)), of(&set, Some(1))), (value("5"), value("6"), None));
    assert!(nothing.broker_configs().is_empty(), "an image never changes");
    run(&mut state, 5, ClusterCommand::CreateTopic(topic("t", 10, 1)));
    let same = builder.apply(state.take_changes());
    assert!(std::sync::Arc::ptr_eq(set.broker_configs(), same.broker_configs()));
    run(&mut state, 6, broker_config(None, "log.retention.ms", None));
    let taken_back = builder.apply(state.take_changes());
    assert_eq!((of(&taken_back, None), of(&taken_back, Some(2))), (None, value("6")));
    assert!(state.broker_configs(None).is_empty() && state.broker_configs(Some(1)).is_empty());
}

#[test]
fn a_snapshot_from_before_there_were_settings_of_brokers_is_read() {
    let mut state = cluster();
    run(&mut state, 3, ClusterCommand::CreateTopic(topic("t", 10, 2)));
    let snapshot = state.snapshot();
    assert_eq!((snapshot[0], snapshot.last()), (2, Some(&0)), "the version, and that no settings follow");
    let mut old = snapshot[..snapshot.len() - 1].to_vec();
    old[0] = 1;
    let mut restored = ClusterState::new();
    restored.restore(&old);
    assert_eq!(restored.snapshot(), snapshot);
}

#[test]
fn an_image_tells_which_topics_another_one_has_otherwise() {
    let (mut state, mut builder) = (cluster(), ImageBuilder::new());
    for n in 1..=300 {
        run(&mut state, n + 2, ClusterCommand::CreateTopic(topic(&format!("t{n}"), u128::from(n), 1)));
    }
    let before = builder.apply(state.take_changes());
    assert_eq!(before.changed_topics(&MetadataImage::default()).count(), 300);
    assert_eq!(before.changed_topics(&before).count(), 0);
    let changes = vec![("retention.ms".to_owned(), Some("5".to_owned()))];
    run(&mut state, 400, ClusterCommand::SetTopicConfigs { id: id(7), changes });
    run(&mut state, 401, ClusterCommand::CreatePartitions { id: id(8), total: 2, replicas: vec![vec![1]] });
    run(&mut state, 402, ClusterCommand::DeleteTopic { id: id(9) });
    run(&mut state, 403, ClusterCommand::CreateTopic(topic("new", 301, 1)));
    let after = builder.apply(state.take_changes());
    let mut changed: Vec<u128> =
        after.changed_topics(&before).map(|topic| topic.record.id.as_u128()).collect();
    changed.sort_unstable();
    assert_eq!(changed, [7, 8, 301]);
}

#[test]
fn unknown_commands_are_refused_and_change_nothing() {
    let mut state = cluster();
    let before = state.snapshot();
    for bytes in [&b"\x01\x63"[..], b"\x02\x00", b"\x01", b"\x01\x00\xff\xff\xff\xff\x0f"] {
        let outcome = ClusterOutcome::decode(&state.apply(9, bytes)).expect("outcomes decode");
        assert_eq!(outcome, ClusterOutcome::Rejected(ClusterError::UnknownCommand));
        let mut shard = ShardState::new();
        assert_eq!(ShardOutcome::decode(&shard.apply(9, bytes)), Ok(ShardOutcome::Rejected));
    }
    assert_eq!(state.snapshot(), before);
}

fn assignment(partition: i32, replicas: &[i32]) -> PartitionAssignment {
    PartitionAssignment { partition, replicas: replicas.to_vec() }
}

#[test]
fn adoption_is_idempotent_and_keeps_epochs() {
    let mut shard = ShardState::new();
    let adopt = ShardCommand::Adopt { topic_id: id(1), partitions: vec![assignment(0, &[2, 1])] };
    assert_eq!(shard.apply_command(adopt.clone()), ShardOutcome::Done);
    let bump = ShardCommand::BumpLeaderEpoch { partitions: vec![(id(1), 0), (id(1), 9), (id(2), 0)] };
    let epochs = Epochs { leader_epoch: 1, partition_epoch: 1 };
    assert_eq!(shard.apply_command(bump), ShardOutcome::Epochs(vec![Some(epochs), None, None]));
    assert_eq!(shard.apply_command(adopt), ShardOutcome::Done);
    let state = shard.partition(id(1), 0).expect("adopted");
    assert_eq!((state.leader, state.leader_epoch, &*state.isr), (2, 1, &[2, 1][..]));
    assert_eq!(shard.apply_command(ShardCommand::Remove { topic_id: id(1) }), ShardOutcome::Done);
    assert_eq!(shard.partitions().count(), 0);
    let none = ShardCommand::Adopt { topic_id: id(1), partitions: vec![assignment(0, &[])] };
    assert_eq!(shard.apply_command(none), ShardOutcome::Rejected);
}

#[test]
fn partition_states_wait_for_their_topic_in_the_image() {
    let (mut state, mut shard, mut builder) = (cluster(), ShardState::new(), ImageBuilder::new());
    let partitions = vec![assignment(0, &[1]), assignment(1, &[1])];
    shard.apply_command(ShardCommand::Adopt { topic_id: id(10), partitions });
    let image = builder.apply(shard.take_changes());
    assert_eq!(image.topic_count(), 0);
    run(&mut state, 3, ClusterCommand::CreateTopic(topic("t", 10, 1)));
    let image = builder.apply(state.take_changes());
    let t = image.topic_named("t").expect("created");
    assert!(t.is_complete() && t.partitions.len() == 1, "partition 1 waits for the topic to grow");
    let grow = ClusterCommand::CreatePartitions { id: id(10), total: 3, replicas: vec![vec![1]; 2] };
    run(&mut state, 4, grow);
    let grown = builder.apply(state.take_changes());
    let t = grown.topic_named("t").expect("exists");
    assert!(t.partition(1).is_some() && t.partition(2).is_none());
    assert_eq!(image.topic_named("t").map(|t| t.partitions.len()), Some(1), "an image never changes");
    run(&mut state, 5, ClusterCommand::DeleteTopic { id: id(10) });
    let gone = builder.apply(state.take_changes());
    assert!(gone.topic_named("t").is_none() && gone.topic(id(10)).is_none());
}

#[test]
fn a_change_of_one_topic_among_many_shares_all_others() {
    let mut state = cluster();
    for n in 0..2_000 {
        run(&mut state, n + 3, ClusterCommand::CreateTopic(topic(&format!("t{n}"), u128::from(n) + 1, 1)));
    }
    let mut builder = ImageBuilder::new();
    let before = builder.apply(state.take_changes());
    run(&mut state, 9_000, ClusterCommand::DeleteTopic { id: id(7) });
    let after = builder.apply(state.take_changes());
    assert_eq!((before.topic_count(), after.topic_count()), (2_000, 1_999));
    let shared = |t: &&std::sync::Arc<TopicImage>| {
        after.topic(t.record.id).is_some_and(|other| std::sync::Arc::ptr_eq(t, other))
    };
    assert_eq!(before.topics().filter(shared).count(), 1_999);
}

/// A command out of few names, ids and brokers, so that they meet.
fn any_cluster_command() -> impl Strategy<Value = ClusterCommand> {
    let name = prop::sample::select(vec!["a", "b", "a.b", "a_b", "..", ""]);
    let ids = || (0u128..6).prop_map(id);
    let replicas = prop::collection::vec(prop::collection::vec(0i32..4, 0..3), 0..4);
    let key = || prop::sample::select(vec!["x", "y", "z"]).prop_map(str::to_owned);
    let value = || prop::option::of(prop::sample::select(vec!["1", "2"]).prop_map(str::to_owned));
    prop_oneof![
        4 => (name, ids(), 1usize..4, prop::collection::vec((key(), key()), 0..3)).prop_map(
            |(name, id, partitions, configs)| ClusterCommand::CreateTopic(NewTopic {
                name: name.to_owned(), id, replicas: vec![vec![1]; partitions], configs,
            })
        ),
        2 => ids().prop_map(|id| ClusterCommand::DeleteTopic { id }),
        2 => (ids(), prop::collection::vec((key(), value()), 0..3))
            .prop_map(|(id, changes)| ClusterCommand::SetTopicConfigs { id, changes }),
        2 => (ids(), 0u32..6, replicas)
            .prop_map(|(id, total, replicas)| ClusterCommand::CreatePartitions { id, total, replicas }),
        2 => (0i32..4, 0u128..3).prop_map(|(n, incarnation)| broker(n, incarnation)),
        1 => (0u32..4).prop_map(|count| ClusterCommand::AllocateProducerIds { count }),
        1 => key().prop_map(|id| ClusterCommand::SetClusterId { id }),
        2 => (prop::option::of(0i32..3), prop::collection::vec((key(), value()), 0..3))
            .prop_map(|(broker, changes)| ClusterCommand::SetBrokerConfigs { broker, changes }),
    ]
}

fn any_shard_command() -> impl Strategy<Value = ShardCommand> {
    let ids = || (0u128..4).prop_map(id);
    let one = || {
        (0i32..5, prop::collection::vec(0i32..4, 0..3))
            .prop_map(|(partition, replicas)| PartitionAssignment { partition, replicas })
    };
    prop_oneof![
        3 => (ids(), prop::collection::vec(one(), 0..4))
            .prop_map(|(topic_id, partitions)| ShardCommand::Adopt { topic_id, partitions }),
        1 => ids().prop_map(|topic_id| ShardCommand::Remove { topic_id }),
        2 => prop::collection::vec((ids(), 0i32..6), 0..4)
            .prop_map(|partitions| ShardCommand::BumpLeaderEpoch { partitions }),
    ]
}

/// Everything an image says, in a comparable order.
fn contents(image: &MetadataImage) -> impl PartialEq + std::fmt::Debug + use<> {
    let topics: BTreeMap<_, _> = image.topics().map(|t| (t.record.id, t.clone())).collect();
    let named = topics.values().all(|t| image.topic_named(&t.record.name) == Some(t));
    let brokers: Vec<_> = image.brokers().cloned().collect();
    (topics, named, brokers, image.broker_configs().clone(), image.cluster_id().map(str::to_owned))
}

proptest! {
    #[test]
    fn commands_survive_the_round_trip(c in any_cluster_command(), s in any_shard_command()) {
        prop_assert_eq!(ClusterCommand::decode(&c.encode()), Ok(c));
        prop_assert_eq!(ShardCommand::decode(&s.encode()), Ok(s));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = ClusterCommand::decode(&bytes);
        let _ = ShardCommand::decode(&bytes);
        let _ = ClusterOutcome::decode(&bytes);
        let _ = ShardOutcome::decode(&bytes);
        let _ = Layout::decode(&bytes);
    }

    #[test]
    fn a_snapshot_and_the_rest_equal_the_whole_replay(
        cluster_commands in prop::collection::vec(any_cluster_command(), 0..40),
        shard_commands in prop::collection::vec(any_shard_command(), 0..40),
        cut in 0usize..40,
    ) {
        let (mut whole, mut whole_shard) = (cluster(), ShardState::new());
        let (mut restored, mut restored_shard) = (ClusterState::new(), ShardState::new());
        let mut builder = ImageBuilder::new();
        builder.apply(whole.take_changes());
        let cut = cut.min(cluster_commands.len()).min(shard_commands.len());
        restored.restore(&{
            let mut s = cluster();
            cluster_commands[..cut].iter().enumerate().for_each(|(i, c)| { s.apply(i as u64 + 3, &c.encode()); });
            s.snapshot()
        });
        restored_shard.restore(&{
            let mut s = ShardState::new();
            shard_commands[..cut].iter().for_each(|c| { s.apply(1, &c.encode()); });
            s.snapshot()
        });
        for (i, c) in cluster_commands.iter().enumerate() {
            let expected = whole.apply(i as u64 + 3, &c.encode());
            if i >= cut {
                prop_assert_eq!(restored.apply(i as u64 + 3, &c.encode()), expected);
            }
            builder.apply(whole.take_changes());
        }
        for (i, c) in shard_commands.iter().enumerate() {
            let expected = whole_shard.apply(1, &c.encode());
            if i >= cut {
                prop_assert_eq!(restored_shard.apply(1, &c.encode()), expected);
            }
            builder.apply(whole_shard.take_changes());
        }
        prop_assert_eq!(restored.snapshot(), whole.snapshot());
        prop_assert_eq!(restored_shard.snapshot(), whole_shard.snapshot());

        // The image built change by change is the image built from the states at once, in either order.
        let (mut restored, mut restored_shard) = (ClusterState::new(), ShardState::new());
        restored.restore(&whole.snapshot());
        restored_shard.restore(&whole_shard.snapshot());
        let mut at_once = ImageBuilder::new();
        at_once.apply(restored_shard.take_changes());
        let fresh = at_once.apply(restored.take_changes());
        prop_assert_eq!(contents(&fresh), contents(&builder.image()));
        // And restoring under a live image leaves what it says.
        restored.restore(&whole.snapshot());
        restored_shard.restore(&whole_shard.snapshot());
        at_once.apply(restored.take_changes());
        let again = at_once.apply(restored_shard.take_changes());
        prop_assert_eq!(contents(&again), contents(&fresh));
    }
}
