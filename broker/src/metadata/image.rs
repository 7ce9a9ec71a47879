//! The metadata image: everything a core needs to answer from, immutable and shared by all cores of a broker.
//!
//! One writer owns the [`ImageBuilder`] and feeds it what the state machines' `take_changes` yield; each core
//! swaps a pointer between tasks. Maps are cut into shared buckets, so that a change of one topic among 10,000
//! copies a few hundred pointers.

use super::cluster::{BrokerConfigs, BrokerRecord, Configs, TopicRecord};
use super::shard::PartitionState;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// A change for the builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageChange {
    /// The cluster group was restored: brokers and topics follow anew.
    ClusterReset,
    /// The cluster has its id.
    ClusterId(Arc<str>),
    /// A broker is known, or has changed.
    Broker(Arc<BrokerRecord>),
    /// What is set at run time has changed.
    BrokerConfigs {
        /// For this broker; none: for all of them.
        broker: Option<i32>,
        /// What is set now.
        configs: Configs,
    },
    /// The controller is known, or isn't any more.
    Controller(Option<i32>),
    /// A topic exists, or its assignment or configs have changed.
    Topic(Arc<TopicRecord>),
    /// A topic doesn't exist any more.
    TopicDeleted(Uuid),
    /// Partitions have new states.
    Partitions {
        /// The topic.
        topic_id: Uuid,
        /// Number and state.
        partitions: Vec<(i32, PartitionState)>,
    },
    /// A shard group has let partitions go.
    PartitionsRemoved {
        /// The topic.
        topic_id: Uuid,
        /// Their numbers.
        partitions: Vec<i32>,
    },
}

/// A topic in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// Name, id, assignment and configs.
    pub record: Arc<TopicRecord>,
    /// One per partition; None until its shard group has adopted it.
    pub partitions: Vec<Option<PartitionState>>,
}

impl TopicImage {
    /// One partition's state, if the partition exists and was adopted.
    pub fn partition(&self, partition: i32) -> Option<&PartitionState> {
        self.partitions.get(usize::try_from(partition).ok()?)?.as_ref()
    }

    /// Whether every partition was adopted.
    pub fn is_complete(&self) -> bool {
        self.partitions.iter().all(Option::is_some)
    }
}

/// The image. Cloning it copies a few pointers; it is handed around in an `Arc` all the same.
#[derive(Clone, Debug, Default)]
pub struct MetadataImage {
    version: u64,
    cluster_id: Option<Arc<str>>,
    controller_id: Option<i32>,
    brokers: Arc<BTreeMap<i32, Arc<BrokerRecord>>>,
    broker_configs: Arc<BrokerConfigs>,
    by_id: Buckets<Uuid, Arc<TopicImage>>,
    by_name: Buckets<Arc<str>, Uuid>,
}

impl MetadataImage {
    /// Grows with every published change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The cluster id, once set.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// The broker that leads the cluster group, where known.
    pub fn controller_id(&self) -> Option<i32> {
        self.controller_id
    }

    /// All brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<BrokerRecord>> {
        self.brokers.values()
    }

    /// A broker by id.
    pub fn broker(&self, id: i32) -> Option<&Arc<BrokerRecord>> {
        self.brokers.get(&id)
    }

    /// What is set for brokers at run time; the same pointer as long as nothing of it changes.
    pub fn broker_configs(&self) -> &Arc<BrokerConfigs> {
        &self.broker_configs
    }

    /// A topic by id.
    pub fn topic(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    /// A topic by name.
    pub fn topic_named(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// All topics, in an order that only a change of the set changes.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_id.values()
    }

    /// The topics that `before` does not have, or not as they are here. Looks only where the two differ.
    pub fn changed_topics<'a>(
        &'a self,
        before: &'a MetadataImage,
    ) -> impl Iterator<Item = &'a Arc<TopicImage>> {
        let is_new = move |topic: &&Arc<TopicImage>| {
            before.topic(topic.record.id).is_none_or(|known| !Arc::ptr_eq(known, topic))
        };
        self.by_id.differing(&before.by_id).filter(is_new)
    }

    /// Number of topics.
    pub fn topic_count(&self) -> usize {
        self.by_id.values().count()
    }
}

/// Makes one image from the one before. Changes of different groups may arrive in any order: states of a topic
/// that isn't known yet wait for it.
#[derive(Debug, Default)]
pub struct ImageBuilder {
    image: MetadataImage,
    /// Partition states without a topic: it is about to be created, or was deleted and its groups haven't let
    /// go yet.
    orphans: BTreeMap<Uuid, BTreeMap<i32, PartitionState>>,
}

impl ImageBuilder {
    /// A builder whose image holds nothing.
    pub fn new() -> ImageBuilder {
        ImageBuilder::default()
    }

    /// The image as of now.
    pub fn image(&self) -> Arc<MetadataImage> {
        Arc::new(self.image.clone())
    }

    /// Applies changes and returns the new image.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = ImageChange>) -> Arc<MetadataImage> {
        for change in changes {
            self.apply_one(change);
        }
        self.image.version += 1;
        self.image()
    }

    fn apply_one(&mut self, change: ImageChange) {
        let image = &mut self.image;
        match change {
            ImageChange::ClusterReset => self.reset(),
            ImageChange::ClusterId(id) => image.cluster_id = Some(id),
            ImageChange::Controller(id) => image.controller_id = id,
            ImageChange::BrokerConfigs { broker, configs } => {
                let all = Arc::make_mut(&mut image.broker_configs);
                match configs.is_empty() {
                    true => all.remove(&broker),
                    false => all.insert(broker, configs),
                };
            }
            ImageChange::Broker(record) => {
                Arc::make_mut(&mut image.brokers).insert(record.id, record);
            }
            ImageChange::Topic(record) => self.put_topic(record),
            ImageChange::TopicDeleted(id) => {
                self.orphans.remove(&id);
                if let Some(topic) = image.by_id.remove(&id) {
                    image.by_name.remove(&*topic.record.name);
                }
            }
            ImageChange::Partitions { topic_id, partitions } => self.put_partitions(topic_id, partitions),
            ImageChange::PartitionsRemoved { topic_id, partitions } => {
                self.remove_partitions(topic_id, &partitions);
            }
        }
    }

    /// Forgets what the cluster group said; what the shard groups said stays valid.
    fn reset(&mut self) {
        let image = std::mem::take(&mut self.image);
        for topic in image.by_id.values() {
            let states =
                topic.partitions.iter().enumerate().filter_map(|(p, s)| Some((p as i32, s.clone()?)));
            self.orphans.entry(topic.record.id).or_default().extend(states);
        }
        self.image.version = image.version;
        self.image.controller_id = image.controller_id;
    }

    fn put_topic(&mut self, record: Arc<TopicRecord>) {
        let mut partitions = match self.image.by_id.get(&record.id) {
            Some(topic) => topic.partitions.clone(),
            None => Vec::new(),
        };
        partitions.resize(record.replicas.len(), None);
        if let Some(states) = self.orphans.remove(&record.id) {
            self.merge(&mut partitions, record.id, states);
        }
        let (id, name) = (record.id, record.name.clone());
        self.image.by_id.insert(id, Arc::new(TopicImage { record, partitions }));
        self.image.by_name.insert(name, id);
    }

    /// States beyond the topic's partitions wait: the growth of the topic is about to arrive.
    fn merge(
        &mut self,
        partitions: &mut [Option<PartitionState>],
        id: Uuid,
        states: impl IntoIterator<Item = (i32, PartitionState)>,
    ) {
        for (p, state) in states {
            match partitions.get_mut(p as usize) {
                Some(slot) => *slot = Some(state),
                None => {
                    self.orphans.entry(id).or_default().insert(p, state);
                }
            }
        }
    }

    fn put_partitions(&mut self, id: Uuid, states: Vec<(i32, PartitionState)>) {
        let Some(topic) = self.image.by_id.get(&id) else {
            self.orphans.entry(id).or_default().extend(states);
            return;
        };
        let mut topic = TopicImage::clone(topic);
        self.merge(&mut topic.partitions, id, states);
        self.image.by_id.insert(id, Arc::new(topic));
    }

    fn remove_partitions(&mut self, id: Uuid, numbers: &[i32]) {
        if let Some(states) = self.orphans.get_mut(&id) {
            states.retain(|p, _| !numbers.contains(p));
            if states.is_empty() {
                self.orphans.remove(&id);
            }
        }
        let Some(topic) = self.image.by_id.get(&id) else { return };
        let mut topic = TopicImage::clone(topic);
        for p in numbers {
            if let Some(slot) = topic.partitions.get_mut(*p as usize) {
                *slot = None;
            }
        }
        self.image.by_id.insert(id, Arc::new(topic));
    }
}

const BUCKETS: usize = 256;

/// A map whose copies share what they have in common: a change copies one bucket and the list of buckets.
#[derive(Clone, Debug)]
struct Buckets<K, V>(Arc<Vec<Arc<BTreeMap<K, V>>>>);

/// A key's bucket.
trait Bucket {
    fn bucket(&self) -> usize;
}

impl Bucket for Uuid {
    fn bucket(&self) -> usize {
        // Ids are random; folding covers those that aren't, in tests.
        self.as_bytes().iter().fold(0, |acc, b| acc ^ usize::from(*b)) % BUCKETS
    }
}

impl Bucket for str {
    fn bucket(&self) -> usize {
        let hash =
            self.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
        (hash >> 16 ^ hash) as usize % BUCKETS
    }
}

impl Bucket for Arc<str> {
    fn bucket(&self) -> usize {
        str::bucket(self)
    }
}

impl<K, V> Default for Buckets<K, V> {
    fn default() -> Buckets<K, V> {
        let empty: Arc<BTreeMap<K, V>> = Arc::new(BTreeMap::new());
        Buckets(Arc::new(vec![empty; BUCKETS]))
    }
}

impl<K: Bucket + Ord + Clone, V: Clone> Buckets<K, V> {
    fn get<Q: Bucket + Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0[key.bucket()].get(key)
    }

    fn insert(&mut self, key: K, value: V) {
        let bucket = &mut Arc::make_mut(&mut self.0)[key.bucket()];
        Arc::make_mut(bucket).insert(key, value);
    }

    fn remove<Q: Bucket + Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key)?;
        let bucket = &mut Arc::make_mut(&mut self.0)[key.bucket()];
        Arc::make_mut(bucket).remove(key)
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().flat_map(|bucket| bucket.values())
    }

    /// What is in buckets that the two do not share.
    fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a V> {
        let pairs = self.0.iter().zip(other.0.iter());
        pairs.filter(|(here, there)| !Arc::ptr_eq(here, there)).flat_map(|(here, _)| here.values())
    }
}
