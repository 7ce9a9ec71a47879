//! Settings that change while the broker runs: the cluster group keeps them, the image brings them to every core, and
//! there they are put in force at once, in open logs as well.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures::lock::Mutex;
use futures::{StreamExt, stream};
use heizer_runtime::cores;
use heizer_runtime::sync::Event;
use heizer_storage::Rate;
use uuid::Uuid;

use super::{ControlError, Shard};
use crate::config::{Alteration, BrokerConfig, Brokers, ConfigChanges};
use crate::metadata::{ClusterCommand, ClusterError, Configs, MetadataImage, TopicImage, check_topic_name};

/// Topics and brokers of one request whose settings are proposed at the same time.
const PROPOSALS_AT_ONCE: usize = 32;

/// Whose settings are to be altered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigTarget {
    /// A topic's, by its name.
    Topic(String),
    /// Those of all brokers, or of this one.
    Brokers(Brokers),
}

/// A request to alter settings of one topic or of brokers.
#[derive(Clone, Debug)]
pub struct AlterConfig {
    /// Whose.
    pub target: ConfigTarget,
    /// How.
    pub alteration: Alteration,
}

type Hook = Box<dyn Fn(&BrokerConfig)>;

/// What of a core follows settings that change.
pub(super) struct Settings {
    /// The broker's settings as they are now.
    in_force: RefCell<Rc<BrokerConfig>>,
    hooks: RefCell<Vec<Hook>>,
    /// Announced when there are others in force.
    pub(super) changed: Event,
    /// What copies of partitions may write.
    pub(super) move_rate: Rate,
    /// What the cleaner may read and write.
    pub(super) cleaner_rate: Rate,
    /// On the cluster core: held from the look at what is set until the change of it has been applied.
    altering: Mutex<()>,
}

impl Settings {
    /// Those that the broker was started with.
    pub(super) fn new(config: &BrokerConfig, move_rate: Rate) -> Settings {
        Settings {
            in_force: RefCell::new(Rc::new(config.clone())),
            hooks: RefCell::default(),
            changed: Event::default(),
            move_rate,
            cleaner_rate: Rate::new(cleaner_rate(config)),
            altering: Mutex::default(),
        }
    }
}

/// This core's share.
fn cleaner_rate(config: &BrokerConfig) -> f64 {
    config.cleaner_io_bytes_per_second / cores::count().max(1) as f64
}

impl Shard {
    /// The broker's settings as they are now, with what was set at run time.
    pub fn config(&self) -> Rc<BrokerConfig> {
        self.settings.in_force.borrow().clone()
    }

    /// Has `hook` called with the settings now, and whenever there are others in force on this core.
    pub fn on_settings(&self, hook: impl Fn(&BrokerConfig) + 'static) {
        hook(&self.config());
        self.settings.hooks.borrow_mut().push(Box::new(hook));
    }

    /// Puts in force what has changed from one image to the next, before anything else is answered from it.
    pub(super) fn follow_settings(&self, before: &MetadataImage, image: &MetadataImage) {
        if self.renew_config(before, image) {
            image.topics().for_each(|topic| self.configure(topic));
            return;
        }
        for topic in image.changed_topics(before) {
            let known = before.topic(topic.record.id);
            if known.is_none_or(|known| known.record.configs != topic.record.configs) {
                self.configure(topic);
            }
        }
    }

    /// Whether the broker's settings are others by the new image.
    fn renew_config(&self, before: &MetadataImage, image: &MetadataImage) -> bool {
        let (old, new) = (before.broker_configs(), image.broker_configs());
        if old == new {
            return false;
        }
        let of = |broker| new.get(&broker).cloned().unwrap_or_default();
        let (cluster, own): (Configs, Configs) = (of(None), of(Some(self.node.id)));
        let (config, refused) = self.node.config.with_dynamic(pairs(&cluster), pairs(&own));
        if self.core == self.node.cluster_core() {
            // Another version of the broker accepted it.
            refused.iter().for_each(|error| tracing::warn!(%error, "a setting of brokers is left out"));
        }
        let config = Rc::new(config);
        if *self.settings.in_force.replace(config.clone()) == *config {
            return false;
        }
        self.topic_configs.borrow_mut().clear();
        self.settings.move_rate.set(config.move_bytes_per_s.max(1) as f64);
        self.settings.cleaner_rate.set(cleaner_rate(&config));
        self.settings.hooks.borrow().iter().for_each(|hook| hook(&config));
        self.settings.changed.notify_all();
        true
    }

    /// Puts a topic's settings in force in its logs on this core.
    fn configure(&self, topic: &TopicImage) {
        let mut config = None;
        for index in 0..topic.partitions.len() as i32 {
            let open = self.partitions.borrow().get(&(topic.record.id, index)).cloned();
            if let Some(partition) = open {
                let config = config.get_or_insert_with(|| self.topic_config(topic).log_config());
                partition.set_config(config.clone());
            }
        }
    }

    /// Alters settings, each target's all or none; on the cluster core. Resolves when what was altered is in force on
    /// every core. No target may be named twice.
    pub async fn alter_configs(
        &self,
        requests: Vec<AlterConfig>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        // From the look at what is set now to its change nobody else may change it: what is added to a list, or reset
        // because it was not named, depends on it.
        let altering = self.settings.altering.lock().await;
        let altered = requests.iter().map(|request| self.alter(request, validate_only));
        let mut outcomes: Vec<_> = stream::iter(altered).buffered(PROPOSALS_AT_ONCE).collect().await;
        drop(altering);
        if outcomes.iter().any(|outcome| matches!(outcome, Ok(true))) && self.share_image().await.is_err() {
            // They are kept, but not known to be in force.
            let unknown = || Err(ControlError::CoreGone(cores::CoreGone));
            outcomes.iter_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| *outcome = unknown());
        }
        outcomes.into_iter().map(|outcome| outcome.map(|_| ())).collect()
    }

    /// Whether anything was changed.
    async fn alter(&self, request: &AlterConfig, validate_only: bool) -> Result<bool, ControlError> {
        let (command, changes) = match &request.target {
            ConfigTarget::Topic(name) => {
                let (id, changes) = self.altered_topic(name, &request.alteration)?;
                (ClusterCommand::SetTopicConfigs { id, changes: changes.clone() }, changes)
            }
            ConfigTarget::Brokers(brokers) => {
                let broker = (*brokers == Brokers::This).then_some(self.node.id);
                let set = self.cluster_state().borrow().broker_configs(broker);
                let changes = self.config().alter_brokers(*brokers, &set, &request.alteration)?;
                (ClusterCommand::SetBrokerConfigs { broker, changes: changes.clone() }, changes)
            }
        };
        if validate_only || changes.is_empty() {
            return Ok(false);
        }
        match self.propose_cluster(command).await {
            Ok(_) => {}
            Err(ControlError::Rejected(ClusterError::UnknownTopicId)) => {
                return Err(unknown_topic(&request.target));
            }
            Err(error) => return Err(error),
        }
        log_changes(&request.target, self.node.id, &changes);
        Ok(true)
    }

    /// What is to be changed of a topic's settings. As in Kafka, what cannot be is refused before it is looked whether
    /// the topic is there.
    fn altered_topic(
        &self,
        name: &str,
        alteration: &Alteration,
    ) -> Result<(Uuid, ConfigChanges), ControlError> {
        check_topic_name(name).map_err(ClusterError::InvalidTopicName)?;
        let record = self.cluster_state().borrow().topic_named(name).cloned();
        let none = BTreeMap::new();
        let set = record.as_ref().map_or(&none, |record| &*record.configs);
        let changes = self.config().alter_topic(set, alteration)?;
        let record = record.ok_or_else(|| ControlError::UnknownTopic { topic: name.to_owned() })?;
        Ok((record.id, changes))
    }
}

fn unknown_topic(target: &ConfigTarget) -> ControlError {
    match target {
        ConfigTarget::Topic(name) => ControlError::UnknownTopic { topic: name.clone() },
        ConfigTarget::Brokers(_) => ControlError::Unexpected("a change of brokers' settings"),
    }
}

fn pairs(configs: &Configs) -> impl Iterator<Item = (&str, &str)> {
    configs.iter().map(|(name, text)| (name.as_str(), text.as_str()))
}

fn log_changes(target: &ConfigTarget, node_id: i32, changes: &ConfigChanges) {
    let text = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => format!("{name} reset"),
    };
    let changes = changes.iter().map(text).collect::<Vec<_>>().join(", ");
    match target {
        ConfigTarget::Topic(topic) => tracing::info!(topic, changes, "settings of a topic were changed"),
        ConfigTarget::Brokers(Brokers::All) => {
            tracing::info!(changes, "settings of all brokers were changed")
        }
        ConfigTarget::Brokers(Brokers::This) => {
            tracing::info!(broker = node_id, changes, "settings of a broker were changed");
        }
    }
}
