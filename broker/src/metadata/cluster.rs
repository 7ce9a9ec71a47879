//! The cluster group's state: what exists. Topics with their ids, assignments and configs, brokers, id blocks.
//! Deterministic and without I/O; the raft group calls [`ClusterState::apply`].

use super::command::{ClusterCommand, NewTopic, put_broker, take_broker};
use super::image::ImageChange;
use super::names::{TopicNameError, check_topic_name, collision_key};
use super::outcome::{ClusterError, ClusterOutcome};
use bytes::Bytes;
use heizer_raft::StateMachine;
use heizer_raft::codec::{DecodeError, Reader, Writer};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Most partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: usize = 100_000;
/// Most replicas of one partition.
pub const REPLICAS_MAX: usize = 64;
/// Most producer ids in one block.
pub const PRODUCER_ID_BLOCK_MAX: u32 = 1_000_000;
/// Longest cluster id.
pub const CLUSTER_ID_BYTES_MAX: usize = 64;

/// Version 1 has no settings of brokers.
const SNAPSHOT_VERSION: u8 = 2;

/// A topic's configs: only what differs from the broker's defaults.
pub type Configs = Arc<BTreeMap<String, String>>;

/// What is set for brokers at run time, by broker; under none what is set for all.
pub type BrokerConfigs = BTreeMap<Option<i32>, Configs>;

/// A topic as the cluster group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, never used again after it was deleted.
    pub id: Uuid,
    /// Replicas of each partition, the preferred leader first.
    pub replicas: Vec<Arc<[i32]>>,
    /// Its configs.
    pub configs: Configs,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRecord {
    /// Its id.
    pub id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// Its rack.
    pub rack: Option<String>,
    /// Drawn anew at each start of the broker.
    pub incarnation: Uuid,
    /// Index of the registration in the cluster group's log (KIP-841's broker epoch).
    pub epoch: i64,
}

/// The cluster group's state machine.
#[derive(Debug, Default)]
pub struct ClusterState {
    cluster_id: Option<Arc<str>>,
    topics: BTreeMap<Uuid, Arc<TopicRecord>>,
    /// Topic by the key in which names collide: at most one topic has it.
    by_key: BTreeMap<String, Uuid>,
    brokers: BTreeMap<i32, Arc<BrokerRecord>>,
    broker_configs: BrokerConfigs,
    next_producer_id: i64,
    /// For the image; not part of the state.
    changes: Vec<ImageChange>,
}

impl ClusterState {
    /// A cluster in which nothing exists.
    pub fn new() -> ClusterState {
        ClusterState::default()
    }

    /// The cluster id, once set.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// All topics, by id.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicRecord>> {
        self.topics.values()
    }

    /// A topic by id.
    pub fn topic(&self, id: Uuid) -> Option<&Arc<TopicRecord>> {
        self.topics.get(&id)
    }

    /// A topic by name.
    pub fn topic_named(&self, name: &str) -> Option<&Arc<TopicRecord>> {
        let topic = &self.topics[self.by_key.get(&collision_key(name))?];
        Some(topic).filter(|t| &*t.name == name)
    }

    /// All brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<BrokerRecord>> {
        self.brokers.values()
    }

    /// A broker by id.
    pub fn broker(&self, id: i32) -> Option<&Arc<BrokerRecord>> {
        self.brokers.get(&id)
    }

    /// What is set for a broker at run time, or with none for all of them.
    pub fn broker_configs(&self, broker: Option<i32>) -> Configs {
        self.broker_configs.get(&broker).cloned().unwrap_or_default()
    }

    /// What has changed since the last call, for the image's builder. After a restore: everything.
    pub fn take_changes(&mut self) -> Vec<ImageChange> {
        std::mem::take(&mut self.changes)
    }

    /// Whether a topic may be created, as `apply` will judge it on the same state; for validate-only requests.
    pub fn check_create(&self, topic: &NewTopic) -> Result<(), ClusterError> {
        check_topic_name(&topic.name)
            .map_err(|error: TopicNameError| ClusterError::InvalidTopicName(error))?;
        if let Some(id) = self.by_key.get(&collision_key(&topic.name)) {
            let existing = &self.topics[id].name;
            return Err(match **existing == *topic.name {
                true => ClusterError::TopicExists,
                false => ClusterError::NameCollision { existing: existing.to_string() },
            });
        }
        if topic.id.is_nil() || self.topics.contains_key(&topic.id) {
            return Err(ClusterError::TopicIdInUse);
        }
        if topic.replicas.is_empty() || topic.replicas.len() > PARTITIONS_PER_TOPIC_MAX {
            return Err(ClusterError::InvalidPartitions);
        }
        self.check_replicas(&topic.replicas, topic.replicas[0].len())
    }

    /// Every partition has `factor` replicas, all on distinct registered brokers.
    fn check_replicas(&self, replicas: &[Vec<i32>], factor: usize) -> Result<(), ClusterError> {
        if factor == 0 || factor > REPLICAS_MAX {
            return Err(ClusterError::InvalidReplicationFactor);
        }
        for partition in replicas {
            let distinct = partition.iter().enumerate().all(|(i, b)| !partition[..i].contains(b));
            let known = partition.iter().all(|b| self.brokers.contains_key(b));
            if partition.len() != factor || !distinct || !known {
                return Err(ClusterError::InvalidReplicaAssignment);
            }
        }
        Ok(())
    }

    /// Applies one command at a log index: the only thing that changes the state.
    pub fn apply_command(&mut self, index: u64, command: ClusterCommand) -> ClusterOutcome {
        let outcome = match command {
            ClusterCommand::CreateTopic(topic) => self.create_topic(topic),
            ClusterCommand::DeleteTopic { id } => self.delete_topic(id),
            ClusterCommand::SetTopicConfigs { id, changes } => self.set_configs(id, changes),
            ClusterCommand::CreatePartitions { id, total, replicas } => {
                self.create_partitions(id, total, replicas)
            }
            ClusterCommand::RegisterBroker { id, host, port, rack, incarnation } => {
                Ok(self.register_broker(index, id, host, port, rack, incarnation))
            }
            ClusterCommand::AllocateProducerIds { count } => self.allocate_producer_ids(count),
            ClusterCommand::SetClusterId { id } => self.set_cluster_id(id),
            ClusterCommand::SetBrokerConfigs { broker, changes } => {
                Ok(self.set_broker_configs(broker, changes))
            }
        };
        outcome.unwrap_or_else(ClusterOutcome::Rejected)
    }

    fn create_topic(&mut self, topic: NewTopic) -> Result<ClusterOutcome, ClusterError> {
        self.check_create(&topic)?;
        self.put_topic(TopicRecord {
            name: topic.name.into(),
            id: topic.id,
            replicas: topic.replicas.into_iter().map(Arc::from).collect(),
            configs: Arc::new(topic.configs.into_iter().collect()),
        });
        Ok(ClusterOutcome::Done)
    }

    fn put_topic(&mut self, record: TopicRecord) {
        let record = Arc::new(record);
        self.by_key.insert(collision_key(&record.name), record.id);
        self.topics.insert(record.id, record.clone());
        self.changes.push(ImageChange::Topic(record));
    }

    fn delete_topic(&mut self, id: Uuid) -> Result<ClusterOutcome, ClusterError> {
        let topic = self.topics.remove(&id).ok_or(ClusterError::UnknownTopicId)?;
        self.by_key.remove(&collision_key(&topic.name));
        self.changes.push(ImageChange::TopicDeleted(id));
        Ok(ClusterOutcome::Done)
    }

    fn set_configs(
        &mut self,
        id: Uuid,
        changes: Vec<(String, Option<String>)>,
    ) -> Result<ClusterOutcome, ClusterError> {
        let mut record = TopicRecord::clone(self.topics.get(&id).ok_or(ClusterError::UnknownTopicId)?);
        change(&mut record.configs, changes);
        self.put_topic(record);
        Ok(ClusterOutcome::Done)
    }

    fn set_broker_configs(
        &mut self,
        broker: Option<i32>,
        changes: Vec<(String, Option<String>)>,
    ) -> ClusterOutcome {
        let mut configs = self.broker_configs(broker);
        change(&mut configs, changes);
        self.put_broker_configs(broker, configs);
        ClusterOutcome::Done
    }

    fn put_broker_configs(&mut self, broker: Option<i32>, configs: Configs) {
        match configs.is_empty() {
            true => self.broker_configs.remove(&broker),
            false => self.broker_configs.insert(broker, configs.clone()),
        };
        self.changes.push(ImageChange::BrokerConfigs { broker, configs });
    }

    fn create_partitions(
        &mut self,
        id: Uuid,
        total: u32,
        replicas: Vec<Vec<i32>>,
    ) -> Result<ClusterOutcome, ClusterError> {
        let mut record = TopicRecord::clone(self.topics.get(&id).ok_or(ClusterError::UnknownTopicId)?);
        let total = total as usize;
        // Compared with the count as of now: two concurrent growths to the same total don't add up.
        if total <= record.replicas.len() || total > PARTITIONS_PER_TOPIC_MAX {
            return Err(ClusterError::InvalidPartitions);
        }
        if total - record.replicas.len() != replicas.len() {
            return Err(ClusterError::InvalidReplicaAssignment);
        }
        self.check_replicas(&replicas, record.replicas[0].len())?;
        record.replicas.extend(replicas.into_iter().map(Arc::from));
        self.put_topic(record);
        Ok(ClusterOutcome::Done)
    }

    /// The same incarnation keeps its epoch; a new one gets the index of its registration.
    fn register_broker(
        &mut self,
        index: u64,
        id: i32,
        host: String,
        port: u16,
        rack: Option<String>,
        incarnation: Uuid,
    ) -> ClusterOutcome {
        let same = self.brokers.get(&id).filter(|b| b.incarnation == incarnation);
        let epoch = same.map_or(index as i64, |b| b.epoch);
        let record = Arc::new(BrokerRecord { id, host, port, rack, incarnation, epoch });
        self.brokers.insert(id, record.clone());
        self.changes.push(ImageChange::Broker(record));
        ClusterOutcome::BrokerRegistered { epoch }
    }

    fn allocate_producer_ids(&mut self, count: u32) -> Result<ClusterOutcome, ClusterError> {
        if count == 0 || count > PRODUCER_ID_BLOCK_MAX {
            return Err(ClusterError::InvalidRequest);
        }
        let first = self.next_producer_id;
        self.next_producer_id =
            first.checked_add(i64::from(count)).ok_or(ClusterError::ProducerIdsExhausted)?;
        Ok(ClusterOutcome::ProducerIds { first, count })
    }

    /// Set once; every later proposer gets the one that was first.
    fn set_cluster_id(&mut self, id: String) -> Result<ClusterOutcome, ClusterError> {
        if id.is_empty() || id.len() > CLUSTER_ID_BYTES_MAX {
            return Err(ClusterError::InvalidRequest);
        }
        let id = self.cluster_id.get_or_insert_with(|| id.into()).clone();
        self.changes.push(ImageChange::ClusterId(id.clone()));
        Ok(ClusterOutcome::ClusterId { id: id.to_string() })
    }

    fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(SNAPSHOT_VERSION);
        w.opt_str(self.cluster_id.as_deref());
        w.i64(self.next_producer_id);
        w.len(self.brokers.len());
        for b in self.brokers.values() {
            w.i32(b.id);
            w.str(&b.host);
            w.u32(u32::from(b.port));
            w.opt_str(b.rack.as_deref());
            w.array16(b.incarnation.as_bytes());
            w.i64(b.epoch);
        }
        w.len(self.topics.len());
        for t in self.topics.values() {
            w.str(&t.name);
            w.array16(t.id.as_bytes());
            w.len(t.replicas.len());
            t.replicas.iter().for_each(|replicas| put_ids(&mut w, replicas));
            put_configs(&mut w, &t.configs);
        }
        w.len(self.broker_configs.len());
        for (broker, configs) in &self.broker_configs {
            put_broker(&mut w, *broker);
            put_configs(&mut w, configs);
        }
        w.finish()
    }

    fn decode(input: &[u8]) -> Result<ClusterState, DecodeError> {
        let mut r = Reader::new(input);
        let version = r.u8()?;
        if !(1..=SNAPSHOT_VERSION).contains(&version) {
            return Err(DecodeError::Unknown(version));
        }
        let mut state = ClusterState { changes: vec![ImageChange::ClusterReset], ..ClusterState::default() };
        state.cluster_id = r.opt_str()?.map(Arc::from);
        state.changes.extend(state.cluster_id.clone().map(ImageChange::ClusterId));
        state.next_producer_id = r.i64()?;
        for _ in 0..r.count(22)? {
            let record = Arc::new(BrokerRecord {
                id: r.i32()?,
                host: r.str()?.to_owned(),
                port: u16::try_from(r.u32()?).map_err(|_| DecodeError::Invalid("port"))?,
                rack: r.opt_str()?.map(str::to_owned),
                incarnation: Uuid::from_bytes(r.array16()?),
                epoch: r.i64()?,
            });
            state.brokers.insert(record.id, record.clone());
            state.changes.push(ImageChange::Broker(record));
        }
        for _ in 0..r.count(20)? {
            let name = Arc::from(r.str()?);
            let id = Uuid::from_bytes(r.array16()?);
            let partitions = r.count(1)?;
            let replicas =
                (0..partitions).map(|_| take_ids(&mut r).map(Arc::from)).collect::<Result<_, _>>()?;
            let configs = take_configs(&mut r)?;
            state.put_topic(TopicRecord { name, id, replicas, configs });
        }
        let broker_configs = if version >= 2 { r.count(2)? } else { 0 };
        for _ in 0..broker_configs {
            let broker = take_broker(&mut r)?;
            state.put_broker_configs(broker, take_configs(&mut r)?);
        }
        r.finish()?;
        Ok(state)
    }
}

fn change(configs: &mut Configs, changes: Vec<(String, Option<String>)>) {
    let configs = Arc::make_mut(configs);
    for (key, value) in changes {
        match value {
            Some(value) => configs.insert(key, value),
            None => configs.remove(&key),
        };
    }
}

fn put_configs(w: &mut Writer, configs: &Configs) {
    w.len(configs.len());
    for (key, value) in configs.iter() {
        w.str(key);
        w.str(value);
    }
}

fn take_configs(r: &mut Reader<'_>) -> Result<Configs, DecodeError> {
    let n = r.count(2)?;
    let pairs = (0..n).map(|_| Ok((r.str()?.to_owned(), r.str()?.to_owned())));
    pairs.collect::<Result<_, _>>().map(Arc::new)
}

pub(super) fn put_ids(w: &mut Writer, ids: &[i32]) {
    w.len(ids.len());
    ids.iter().for_each(|id| w.i32(*id));
}

pub(super) fn take_ids(r: &mut Reader<'_>) -> Result<Vec<i32>, DecodeError> {
    let n = r.count(1)?;
    (0..n).map(|_| r.i32()).collect()
}

impl StateMachine for ClusterState {
    fn apply(&mut self, index: u64, command: &[u8]) -> Bytes {
        let outcome = match ClusterCommand::decode(command) {
            Ok(command) => self.apply_command(index, command),
            // Every replica refuses it alike, as they all know the same commands.
            Err(_) => ClusterOutcome::Rejected(ClusterError::UnknownCommand),
        };
        outcome.encode()
    }

    fn snapshot(&self) -> Bytes {
        self.encode()
    }

    /// Panics on bytes that no snapshot has: the stream's checksums and raft vouch for them.
    fn restore(&mut self, snapshot: &[u8]) {
        *self = ClusterState::decode(snapshot).expect("a cluster snapshot decodes");
    }
}
