//! A shard group's state: leader, epochs and in-sync replicas of the partitions it governs. Deterministic and
//! without I/O; the raft group calls [`ShardState::apply`](StateMachine::apply).

use super::cluster::{put_ids, take_ids};
use super::command::{PartitionAssignment, ShardCommand, take_uuid};
use super::image::ImageChange;
use super::outcome::{Epochs, ShardOutcome};
use bytes::Bytes;
use heizer_raft::StateMachine;
use heizer_raft::codec::{DecodeError, Reader, Writer};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

const SNAPSHOT_VERSION: u8 = 1;

/// A partition as its shard group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Broker that leads; -1 for none.
    pub leader: i32,
    /// Grows with every change of the leader, and when an unclean start may have cut the leader's log (contract R7).
    pub leader_epoch: i32,
    /// Grows with every change of anything here (contract R4).
    pub partition_epoch: i32,
    /// All replicas, the preferred leader first.
    pub replicas: Arc<[i32]>,
    /// The in-sync ones.
    pub isr: Arc<[i32]>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Arc<[i32]>,
}

impl PartitionState {
    /// A new partition: the preferred replica leads, all are in sync.
    fn new(replicas: &[i32]) -> PartitionState {
        let replicas: Arc<[i32]> = replicas.into();
        PartitionState {
            leader: replicas[0],
            leader_epoch: 0,
            partition_epoch: 0,
            isr: replicas.clone(),
            replicas,
            elr: Arc::new([]),
        }
    }

    fn epochs(&self) -> Epochs {
        Epochs { leader_epoch: self.leader_epoch, partition_epoch: self.partition_epoch }
    }

    fn encode(&self, w: &mut Writer) {
        w.i32(self.leader);
        w.i32(self.leader_epoch);
        w.i32(self.partition_epoch);
        [&self.replicas, &self.isr, &self.elr].into_iter().for_each(|ids| put_ids(w, ids));
    }

    fn decode(r: &mut Reader<'_>) -> Result<PartitionState, DecodeError> {
        Ok(PartitionState {
            leader: r.i32()?,
            leader_epoch: r.i32()?,
            partition_epoch: r.i32()?,
            replicas: take_ids(r)?.into(),
            isr: take_ids(r)?.into(),
            elr: take_ids(r)?.into(),
        })
    }
}

type Partitions = BTreeMap<i32, PartitionState>;

/// A shard group's state machine.
#[derive(Debug, Default)]
pub struct ShardState {
    topics: BTreeMap<Uuid, Partitions>,
    /// For the image; not part of the state.
    changes: Vec<ImageChange>,
}

impl ShardState {
    /// A group that governs nothing.
    pub fn new() -> ShardState {
        ShardState::default()
    }

    /// One partition, if the group governs it.
    pub fn partition(&self, topic_id: Uuid, partition: i32) -> Option<&PartitionState> {
        self.topics.get(&topic_id)?.get(&partition)
    }

    /// All partitions, by topic and number.
    pub fn partitions(&self) -> impl Iterator<Item = (Uuid, i32, &PartitionState)> {
        self.topics.iter().flat_map(|(id, partitions)| partitions.iter().map(|(p, state)| (*id, *p, state)))
    }

    /// The topics that the group has partitions of.
    pub fn topics(&self) -> impl Iterator<Item = Uuid> {
        self.topics.keys().copied()
    }

    /// What has changed since the last call, for the image's builder. After a restore: everything.
    pub fn take_changes(&mut self) -> Vec<ImageChange> {
        std::mem::take(&mut self.changes)
    }

    /// Applies one command: the only thing that changes the state.
    pub fn apply_command(&mut self, command: ShardCommand) -> ShardOutcome {
        match command {
            ShardCommand::Adopt { topic_id, partitions } => self.adopt(topic_id, &partitions),
            ShardCommand::Remove { topic_id } => self.remove(topic_id),
            ShardCommand::BumpLeaderEpoch { partitions } => self.bump_leader_epoch(&partitions),
        }
    }

    fn adopt(&mut self, topic_id: Uuid, partitions: &[PartitionAssignment]) -> ShardOutcome {
        if partitions.iter().any(|p| p.partition < 0 || p.replicas.is_empty()) {
            return ShardOutcome::Rejected;
        }
        let mut added = Vec::new();
        for p in partitions {
            let topic = self.topics.entry(topic_id).or_default();
            topic.entry(p.partition).or_insert_with(|| {
                let state = PartitionState::new(&p.replicas);
                added.push((p.partition, state.clone()));
                state
            });
        }
        if !added.is_empty() {
            self.changes.push(ImageChange::Partitions { topic_id, partitions: added });
        }
        ShardOutcome::Done
    }

    fn remove(&mut self, topic_id: Uuid) -> ShardOutcome {
        if let Some(partitions) = self.topics.remove(&topic_id) {
            let partitions = partitions.into_keys().collect();
            self.changes.push(ImageChange::PartitionsRemoved { topic_id, partitions });
        }
        ShardOutcome::Done
    }

    fn bump_leader_epoch(&mut self, partitions: &[(Uuid, i32)]) -> ShardOutcome {
        let mut epochs = Vec::with_capacity(partitions.len());
        let mut changed: BTreeMap<Uuid, Vec<(i32, PartitionState)>> = BTreeMap::new();
        for (topic_id, partition) in partitions {
            let state = self.topics.get_mut(topic_id).and_then(|t| t.get_mut(partition));
            epochs.push(state.map(|state| {
                state.leader_epoch += 1;
                state.partition_epoch += 1;
                changed.entry(*topic_id).or_default().push((*partition, state.clone()));
                state.epochs()
            }));
        }
        let changes = changed.into_iter();
        self.changes
            .extend(changes.map(|(topic_id, partitions)| ImageChange::Partitions { topic_id, partitions }));
        ShardOutcome::Epochs(epochs)
    }

    fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(SNAPSHOT_VERSION);
        w.len(self.topics.len());
        for (id, partitions) in &self.topics {
            w.array16(id.as_bytes());
            w.len(partitions.len());
            for (partition, state) in partitions {
                w.i32(*partition);
                state.encode(&mut w);
            }
        }
        w.finish()
    }

    fn decode(input: &[u8]) -> Result<BTreeMap<Uuid, Partitions>, DecodeError> {
        let mut r = Reader::new(input);
        match r.u8()? {
            SNAPSHOT_VERSION => {}
            other => return Err(DecodeError::Unknown(other)),
        }
        let mut topics = BTreeMap::new();
        for _ in 0..r.count(17)? {
            let id = take_uuid(&mut r)?;
            let mut partitions = Partitions::new();
            for _ in 0..r.count(7)? {
                partitions.insert(r.i32()?, PartitionState::decode(&mut r)?);
            }
            topics.insert(id, partitions);
        }
        r.finish()?;
        Ok(topics)
    }
}

impl StateMachine for ShardState {
    fn apply(&mut self, _index: u64, command: &[u8]) -> Bytes {
        let outcome = match ShardCommand::decode(command) {
            Ok(command) => self.apply_command(command),
            // Every replica refuses it alike, as they all know the same commands.
            Err(_) => ShardOutcome::Rejected,
        };
        outcome.encode()
    }

    fn snapshot(&self) -> Bytes {
        self.encode()
    }

    /// Panics on bytes that no snapshot has: the stream's checksums and raft vouch for them.
    fn restore(&mut self, snapshot: &[u8]) {
        let topics = ShardState::decode(snapshot).expect("a shard snapshot decodes");
        let old = std::mem::replace(&mut self.topics, topics);
        let gone = |id: &Uuid, p: &i32| self.topics.get(id).is_none_or(|t| !t.contains_key(p));
        for (topic_id, partitions) in old {
            let partitions: Vec<i32> = partitions.into_keys().filter(|p| gone(&topic_id, p)).collect();
            if !partitions.is_empty() {
                self.changes.push(ImageChange::PartitionsRemoved { topic_id, partitions });
            }
        }
        for (id, partitions) in &self.topics {
            let partitions = partitions.iter().map(|(p, state)| (*p, state.clone())).collect();
            self.changes.push(ImageChange::Partitions { topic_id: *id, partitions });
        }
    }
}
