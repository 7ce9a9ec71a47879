//! Where a partition lives: partition → slot → shard group → core, and which brokers hold its replicas.
//!
//! Slots and groups are fixed for a cluster's life; the table from group to core is each broker's own.

use heizer_raft::GroupId;
use heizer_raft::codec::{DecodeError, Reader, Writer};
use uuid::Uuid;

/// Slots that partitions fall into.
pub const SLOTS: u16 = 4_096;
/// Shard groups of a cluster, unless it was created with another number.
pub const GROUPS_DEFAULT: u16 = 64;
/// The raft group of the cluster's state.
pub const CLUSTER_GROUP: GroupId = GroupId(0);

const LAYOUT_VERSION: u8 = 1;

/// A shard group: 0 to the cluster's number of groups, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardGroup(pub u16);

impl ShardGroup {
    /// The raft group that replicates it.
    pub fn raft_group(self) -> GroupId {
        GroupId(u32::from(self.0) + 1)
    }

    /// The shard group that a raft group replicates; None for the cluster group and for unknown ones.
    pub fn of_raft_group(group: GroupId) -> Option<ShardGroup> {
        u16::try_from(group.0.checked_sub(1)?).ok().map(ShardGroup)
    }
}

/// The slot of a partition. Consecutive partitions of a topic get consecutive slots, and thereby different groups
/// and cores; where a topic starts is spread by its id.
pub fn slot_of(topic_id: Uuid, partition: i32) -> u16 {
    let start = mix(topic_id.as_u128() as u64 ^ (topic_id.as_u128() >> 64) as u64);
    ((start % u64::from(SLOTS) + u64::from(partition as u32)) % u64::from(SLOTS)) as u16
}

/// The group of a slot.
pub fn group_of(slot: u16, groups: u16) -> ShardGroup {
    assert!(slot < SLOTS && (1..=SLOTS).contains(&groups));
    ShardGroup(slot % groups)
}

/// A 64-bit finaliser: ids that differ in few bits land far apart. Part of the placement of every existing
/// partition: never change it.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 32;
    x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

/// A broker's table from group to core, persisted so that a changed number of cores is noticed at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    cores: u16,
    /// Core of each shard group.
    table: Vec<u16>,
}

/// A group whose core differs between two layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The raft group that moves.
    pub group: GroupId,
    /// The core that has it in the old layout.
    pub from: u16,
    /// The core that has it in the new one.
    pub to: u16,
}

impl Layout {
    /// The layout of `groups` shard groups over `cores` cores: round robin, so that consecutive partitions of a
    /// topic land on consecutive cores.
    pub fn compute(groups: u16, cores: u16) -> Layout {
        assert!((1..=SLOTS).contains(&groups) && cores > 0);
        Layout { cores, table: (0..groups).map(|g| g % cores).collect() }
    }

    /// Number of shard groups.
    pub fn groups(&self) -> u16 {
        self.table.len() as u16
    }

    /// Number of cores.
    pub fn cores(&self) -> u16 {
        self.cores
    }

    /// The core of a shard group.
    pub fn core_of(&self, group: ShardGroup) -> u16 {
        self.table[usize::from(group.0)]
    }

    /// The core of the cluster group: always the first.
    pub fn cluster_core(&self) -> u16 {
        0
    }

    /// The core of a raft group; None where the cluster has no such group.
    pub fn core_of_raft_group(&self, group: GroupId) -> Option<u16> {
        if group == CLUSTER_GROUP {
            return Some(self.cluster_core());
        }
        self.table.get(usize::from(ShardGroup::of_raft_group(group)?.0)).copied()
    }

    /// The group of a partition.
    pub fn group_of_partition(&self, topic_id: Uuid, partition: i32) -> ShardGroup {
        group_of(slot_of(topic_id, partition), self.groups())
    }

    /// The core that owns a partition.
    pub fn core_of_partition(&self, topic_id: Uuid, partition: i32) -> u16 {
        self.core_of(self.group_of_partition(topic_id, partition))
    }

    /// The raft groups that a core hosts, the cluster group first where it is the core's.
    pub fn raft_groups_of(&self, core: u16) -> Vec<GroupId> {
        let cluster = (core == self.cluster_core()).then_some(CLUSTER_GROUP);
        let shards = (0..self.groups()).map(ShardGroup).filter(|g| self.core_of(*g) == core);
        cluster.into_iter().chain(shards.map(ShardGroup::raft_group)).collect()
    }

    /// The groups that change their core from `self` to `new`. Both must have the same number of groups.
    pub fn moves_to(&self, new: &Layout) -> Vec<Move> {
        assert_eq!(self.groups(), new.groups(), "the number of groups is fixed for a cluster's life");
        let all = (0..self.groups()).map(ShardGroup);
        all.filter(|g| self.core_of(*g) != new.core_of(*g))
            .map(|g| Move { group: g.raft_group(), from: self.core_of(g), to: new.core_of(g) })
            .collect()
    }

    /// The bytes to persist.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(LAYOUT_VERSION);
        w.u32(u32::from(self.cores));
        w.len(self.table.len());
        self.table.iter().for_each(|core| w.u32(u32::from(*core)));
        w.finish().to_vec()
    }

    /// Reads persisted bytes.
    pub fn decode(input: &[u8]) -> Result<Layout, DecodeError> {
        let mut r = Reader::new(input);
        match r.u8()? {
            LAYOUT_VERSION => {}
            other => return Err(DecodeError::Unknown(other)),
        }
        let u16_of = |v: u32| u16::try_from(v).map_err(|_| DecodeError::Invalid("core"));
        let cores = u16_of(r.u32()?)?;
        let groups = r.count(1)?;
        let table = (0..groups).map(|_| u16_of(r.u32()?)).collect::<Result<Vec<u16>, _>>()?;
        r.finish()?;
        if !(1..=usize::from(SLOTS)).contains(&groups) || table.iter().any(|core| *core >= cores) {
            return Err(DecodeError::Invalid("layout"));
        }
        Ok(Layout { cores, table })
    }
}

/// Replicas for `count` partitions from `first` on, over `brokers` (sorted): leaders go round robin from `start`,
/// and at every turn around the brokers the followers' distance from the leader grows by one, so that a dead
/// broker's leaderships spread over all others. None when there are fewer brokers than replicas.
pub fn assign_replicas(
    brokers: &[i32],
    first: u32,
    count: u32,
    replication_factor: u16,
    start: u64,
) -> Option<Vec<Vec<i32>>> {
    let n = brokers.len() as u64;
    let factor = u64::from(replication_factor);
    if factor == 0 || factor > n {
        return None;
    }
    let replicas = |p: u64| {
        let leader = start.wrapping_add(p) % n;
        let shift = (start % n).wrapping_add(p / n);
        let follower = |i: u64| 1 + (shift + i) % (n - 1);
        let places = std::iter::once(leader).chain((0..factor - 1).map(|i| (leader + follower(i)) % n));
        places.map(|place| brokers[place as usize]).collect()
    };
    Some((u64::from(first)..u64::from(first) + u64::from(count)).map(replicas).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn consecutive_partitions_spread_over_groups_and_cores() {
        for id in [0u128, 1, 0xdead_beef, u128::MAX] {
            let id = Uuid::from_u128(id);
            for cores in [1u16, 2, 3, 4, 16, 64] {
                let layout = Layout::compute(64, cores);
                let groups: BTreeSet<_> = (0..64).map(|p| layout.group_of_partition(id, p)).collect();
                assert_eq!(groups.len(), 64, "64 partitions use every group once");
                let mut per_core = vec![0u32; usize::from(cores)];
                (0..64).for_each(|p| per_core[usize::from(layout.core_of_partition(id, p))] += 1);
                let (min, max) = (per_core.iter().min().copied(), per_core.iter().max().copied());
                assert!(max.unwrap_or(0) - min.unwrap_or(0) <= 1, "{cores} cores: {per_core:?}");
            }
        }
    }

    #[test]
    fn single_partition_topics_spread_over_groups() {
        let mut per_group = [0u32; 64];
        for i in 0..6_400u128 {
            per_group[usize::from(group_of(slot_of(Uuid::from_u128(i << 3), 0), 64).0)] += 1;
        }
        assert!(per_group.iter().all(|n| (50..=160).contains(n)), "{per_group:?}");
    }

    #[test]
    fn placement_never_changes() {
        // A changed slot loses every partition that exists: these values are for ever.
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        let slots: Vec<u16> = [0, 1, 5_000].map(|p| slot_of(id, p)).to_vec();
        assert_eq!(slots[1], (slots[0] + 1) % SLOTS);
        assert_eq!(slots[2], ((u32::from(slots[0]) + 5_000) % u32::from(SLOTS)) as u16);
        assert_eq!(slots[0], 1_855);
    }

    #[test]
    fn a_layout_survives_the_round_trip_and_a_changed_core_count_names_its_moves() {
        let old = Layout::compute(8, 2);
        assert_eq!(Layout::decode(&old.encode()), Ok(old.clone()));
        assert!(old.moves_to(&old.clone()).is_empty());
        let new = Layout::compute(8, 3);
        assert_ne!(old, new);
        for m in old.moves_to(&new) {
            assert_eq!(old.core_of_raft_group(m.group), Some(m.from));
            assert_eq!(new.core_of_raft_group(m.group), Some(m.to));
            assert_ne!(m.from, m.to);
        }
        let hosted: usize = (0..3).map(|core| new.raft_groups_of(core).len()).sum();
        assert_eq!(hosted, 9, "eight shard groups and the cluster group, each on one core");
        let mut bytes = old.encode();
        *bytes.last_mut().expect("not empty") = 2;
        assert!(Layout::decode(&bytes).is_err(), "a core beyond the count");
    }

    #[test]
    fn replicas_spread_and_never_repeat() {
        // contract R9: leaders are spread over brokers.
        let table = "
            0,1,2  6 2 0   0,1 1,2 2,0 0,2 1,0 2,1
            0,1,2  3 3 1   1,0,2 2,1,0 0,2,1
            7      3 1 0   7 7 7
            1,2    2 3 0   none";
        for line in table.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let mut words = line.split_whitespace();
            let ids = |s: &str| s.split(',').map(|n| n.parse().expect("number")).collect::<Vec<i32>>();
            let brokers = ids(words.next().expect("brokers"));
            let mut number = || words.next().expect("column").parse::<u64>().expect("number");
            let (count, factor, start) = (number(), number(), number());
            let expected: Vec<&str> = words.collect();
            let got = assign_replicas(&brokers, 0, count as u32, factor as u16, start);
            match got {
                None => assert_eq!(expected, ["none"], "{line}"),
                Some(got) => {
                    assert_eq!(got, expected.iter().map(|s| ids(s)).collect::<Vec<_>>(), "{line}");
                    for replicas in got {
                        let distinct: BTreeSet<_> = replicas.iter().collect();
                        assert_eq!(distinct.len(), replicas.len());
                    }
                }
            }
        }
    }
}
