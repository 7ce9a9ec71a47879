//! Altering settings while brokers run: what a request makes of those that are set, and whether it may (contract P9).

use std::collections::BTreeMap;

use super::broker::{BrokerConfig, distance, hint};
use super::definition::{ConfigDef, UpdateMode, split_list};
use super::registry::{DEFINITIONS, definition};
use super::topic::{InvalidConfig, TopicConfig};
use super::values::Values;

/// Longest text of a setting, as in Kafka.
pub const CONFIG_VALUE_BYTES_MAX: usize = i16::MAX as usize;

/// What is set for a topic or for brokers, by name.
type Set = BTreeMap<String, String>;

/// Names and their new texts; none takes a setting back to its default.
pub type ConfigChanges = Vec<(String, Option<String>)>;

/// What is to become of one setting (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOp {
    /// It has this text.
    Set(String),
    /// It has its default again.
    Delete,
    /// These items are added to a list that lacks them.
    Append(String),
    /// These items are taken off a list.
    Subtract(String),
}

/// What is to become of the settings of a topic or of brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// Those named change, the others stay.
    Incremental(Vec<(String, ConfigOp)>),
    /// Those named have these texts, all others their defaults.
    Whole(Vec<(String, String)>),
}

/// Which brokers' settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brokers {
    /// Those of all brokers of the cluster.
    All,
    /// Those of this one.
    This,
}

/// Why settings are not altered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterError {
    /// There is no such setting.
    #[error("{name} is not a setting of a {whose}{hint}")]
    Unknown {
        /// The name.
        name: String,
        /// Whose it should be.
        whose: &'static str,
        /// What might have been meant, ready to be shown.
        hint: String,
    },
    /// A topic's setting cannot be so, or not beside the others.
    #[error(transparent)]
    Topic(InvalidConfig),
    /// A broker's setting cannot be so, or not beside the others.
    #[error(transparent)]
    Broker(InvalidConfig),
    /// Nothing can be added to it, or taken off it.
    #[error(
        "{name} holds one value and no list: it can be set or deleted, not appended to or subtracted from"
    )]
    NotAList {
        /// The setting.
        name: String,
    },
    /// Its text is beyond all measure.
    #[error("{name} cannot have more than {CONFIG_VALUE_BYTES_MAX} bytes")]
    TooLong {
        /// The setting.
        name: String,
    },
    /// They are read at the start alone.
    #[error("cannot be changed while a broker runs, only in its configuration file: {names}")]
    ReadOnly {
        /// The settings.
        names: String,
    },
    /// They are not for all brokers alike.
    #[error("can be set for one broker by its node.id, not for all: {names}")]
    PerBroker {
        /// The settings.
        names: String,
    },
}

impl Alteration {
    fn names(&self) -> Vec<&str> {
        match self {
            Alteration::Incremental(ops) => ops.iter().map(|(name, _)| name.as_str()).collect(),
            Alteration::Whole(all) => all.iter().map(|(name, _)| name.as_str()).collect(),
        }
    }

    /// What is set afterwards, where `set` is set now and a list that is not has the items `inherited`.
    fn apply(
        &self,
        set: &Set,
        inherited: impl Fn(&'static ConfigDef) -> Vec<String>,
    ) -> Result<Set, AlterError> {
        let ops = match self {
            Alteration::Incremental(ops) => ops,
            Alteration::Whole(all) => return Ok(all.iter().cloned().collect()),
        };
        let mut after = set.clone();
        for (name, op) in ops {
            let items = || -> Result<Vec<String>, AlterError> {
                let def = definition(name).filter(|def| def.is_list());
                let def = def.ok_or_else(|| AlterError::NotAList { name: name.clone() })?;
                Ok(set.get(name).map_or_else(|| inherited(def), |text| split_list(text)))
            };
            let text = match op {
                ConfigOp::Delete => {
                    after.remove(name);
                    continue;
                }
                ConfigOp::Set(text) => text.clone(),
                ConfigOp::Append(more) => {
                    let mut items = items()?;
                    for item in split_list(more) {
                        if !items.contains(&item) {
                            items.push(item);
                        }
                    }
                    items.join(",")
                }
                ConfigOp::Subtract(less) => {
                    let (mut items, less) = (items()?, split_list(less));
                    items.retain(|item| !less.contains(item));
                    items.join(",")
                }
            };
            after.insert(name.clone(), text);
        }
        Ok(after)
    }
}

impl BrokerConfig {
    /// What `alteration` changes of a topic that has `set` set, if it may.
    pub fn alter_topic(&self, set: &Set, alteration: &Alteration) -> Result<ConfigChanges, AlterError> {
        let is_known = |name: &str| definition(name).is_some_and(|def| def.scope.of_topic());
        // What was set under a name that nobody knows any more can still be taken away.
        let is_refused = |name: &&str| !is_known(name) && !set.contains_key(*name);
        if let Some(name) = alteration.names().into_iter().find(is_refused) {
            let (name, hint) = (name.to_owned(), topic_hint(name));
            return Err(AlterError::Unknown { name, whose: "topic", hint });
        }
        let inherited =
            |def| self.layers.resolve(def).map(|(value, _)| value.into_list()).unwrap_or_default();
        let after = alteration.apply(set, inherited)?;
        check_lengths(&after)?;
        TopicConfig::parse(self, after.iter().map(pair)).map_err(AlterError::Topic)?;
        Ok(difference(set, &after))
    }

    /// What `alteration` changes where `set` is set for `brokers` at run time, if it may.
    pub fn alter_brokers(
        &self,
        brokers: Brokers,
        set: &Set,
        alteration: &Alteration,
    ) -> Result<ConfigChanges, AlterError> {
        check_changeable(brokers, set, &alteration.names())?;
        let mut layers = self.layers.clone();
        // What an unset list of all brokers starts from does not depend on who answers.
        layers.own = Values::default();
        let inherited = |def| layers.resolve(def).map(|(value, _)| value.into_list()).unwrap_or_default();
        let after = alteration.apply(set, inherited)?;
        check_lengths(&after)?;
        let values = broker_values(&after)?;
        let mut layers = self.layers.clone();
        match brokers {
            Brokers::All => layers.cluster = values,
            Brokers::This => layers.own = values,
        }
        self.with_layers(layers).check_lags().map_err(AlterError::Broker)?;
        Ok(difference(set, &after))
    }
}

fn broker_values(set: &Set) -> Result<Values, AlterError> {
    let mut values = Values::default();
    for (name, text) in set {
        // One that is unknown can only be from before, and is left alone.
        let Some(def) = definition(name).filter(|def| def.scope.of_broker()) else { continue };
        let value = def.parse(text).map_err(|reason| {
            let (name, value, reason) = (name.clone(), text.clone(), format!("allowed: {reason}"));
            AlterError::Broker(InvalidConfig { name, value, reason })
        });
        values.set(def, value?);
    }
    Ok(values)
}

fn check_changeable(brokers: Brokers, set: &Set, names: &[&str]) -> Result<(), AlterError> {
    let (mut read_only, mut per_broker) = (Vec::new(), Vec::new());
    for name in names {
        match definition(name).filter(|def| def.scope.of_broker()) {
            None if set.contains_key(*name) => {}
            None => {
                let (name, hint) = ((*name).to_owned(), hint(name));
                return Err(AlterError::Unknown { name, whose: "broker", hint });
            }
            Some(def) => match def.update_mode {
                UpdateMode::ReadOnly => read_only.push(*name),
                UpdateMode::PerBroker if brokers == Brokers::All => per_broker.push(*name),
                UpdateMode::ClusterWide | UpdateMode::PerBroker => {}
            },
        }
    }
    if !read_only.is_empty() {
        return Err(AlterError::ReadOnly { names: read_only.join(", ") });
    }
    if !per_broker.is_empty() {
        return Err(AlterError::PerBroker { names: per_broker.join(", ") });
    }
    Ok(())
}

fn check_lengths(after: &Set) -> Result<(), AlterError> {
    match after.iter().find(|(_, text)| text.len() > CONFIG_VALUE_BYTES_MAX) {
        Some((name, _)) => Err(AlterError::TooLong { name: name.clone() }),
        None => Ok(()),
    }
}

fn pair<'a>((name, text): (&'a String, &'a String)) -> (&'a str, &'a str) {
    (name.as_str(), text.as_str())
}

fn difference(before: &Set, after: &Set) -> ConfigChanges {
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), None));
    let new = after.iter().filter(|(name, text)| before.get(*name) != Some(*text));
    gone.chain(new.map(|(name, text)| (name.clone(), Some(text.clone())))).collect()
}

/// What might have been meant by an unknown name: a topic's name of a broker's setting, or one spelt alike.
fn topic_hint(name: &str) -> String {
    let of_topic = || DEFINITIONS.iter().filter(|def| def.scope.of_topic());
    if let Some(def) = of_topic().find(|def| def.synonyms.iter().any(|synonym| synonym.name == name)) {
        return format!("; what {name} is for all topics, {} is for one", def.name);
    }
    match of_topic().map(|def| (distance(def.name, name), def.name)).min() {
        Some((steps, known)) if steps <= 1 + name.len() / 6 => format!("; did you mean {known}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(settings: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::from_settings(settings.iter().copied()).expect("valid settings")
    }

    fn set(pairs: &[(&str, &str)]) -> Set {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn one(name: &str, op: ConfigOp) -> Alteration {
        Alteration::Incremental(vec![(name.to_owned(), op)])
    }

    fn put(name: &str, text: &str) -> Alteration {
        one(name, ConfigOp::Set(text.to_owned()))
    }

    fn append(name: &str, text: &str) -> Alteration {
        one(name, ConfigOp::Append(text.to_owned()))
    }

    fn subtract(name: &str, text: &str) -> Alteration {
        one(name, ConfigOp::Subtract(text.to_owned()))
    }

    fn whole(pairs: &[(&str, &str)]) -> Alteration {
        Alteration::Whole(set(pairs).into_iter().collect())
    }

    fn changes(pairs: &[(&str, Option<&str>)]) -> ConfigChanges {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), text.map(str::to_owned))).collect()
    }

    /// contract P9
    #[test]
    fn an_incremental_alteration_touches_what_it_names_and_a_whole_one_resets_the_rest() {
        let now = set(&[("cleanup.policy", "compact"), ("retention.ms", "5")]);
        let alter = |alteration: Alteration| broker(&[]).alter_topic(&now, &alteration);
        let table = [
            (put("retention.ms", "6"), changes(&[("retention.ms", Some("6"))])),
            (put("retention.ms", "5"), changes(&[])),
            (one("retention.ms", ConfigOp::Delete), changes(&[("retention.ms", None)])),
            (one("segment.ms", ConfigOp::Delete), changes(&[])),
            (append("cleanup.policy", "delete"), changes(&[("cleanup.policy", Some("compact,delete"))])),
            (append("cleanup.policy", "compact"), changes(&[])),
            (subtract("cleanup.policy", "compact"), changes(&[("cleanup.policy", Some(""))])),
            (subtract("cleanup.policy", "delete"), changes(&[])),
            (whole(&[("retention.ms", "5")]), changes(&[("cleanup.policy", None)])),
            (
                whole(&[("segment.ms", "7")]),
                changes(&[("cleanup.policy", None), ("retention.ms", None), ("segment.ms", Some("7"))]),
            ),
            (whole(&[]), changes(&[("cleanup.policy", None), ("retention.ms", None)])),
        ];
        for (alteration, expected) in table {
            assert_eq!(alter(alteration.clone()), Ok(expected), "{alteration:?}");
        }
    }

    #[test]
    fn an_unset_list_starts_from_what_it_inherits() {
        let compacting = broker(&[("log.cleanup.policy", "compact")]);
        let alter = |alteration: Alteration| compacting.alter_topic(&set(&[]), &alteration);
        let both = changes(&[("cleanup.policy", Some("compact,delete"))]);
        assert_eq!(alter(append("cleanup.policy", "delete")), Ok(both));
        let none = changes(&[("cleanup.policy", Some(""))]);
        assert_eq!(alter(subtract("cleanup.policy", "compact")), Ok(none));
        let (config, _) = compacting.with_dynamic([], [("log.cleanup.policy", "delete")]);
        let both = changes(&[("log.cleanup.policy", Some("compact,delete"))]);
        let all = config.alter_brokers(Brokers::All, &set(&[]), &append("log.cleanup.policy", "delete"));
        assert_eq!(all, Ok(both), "whatever is set for the one that answers");
    }

    #[test]
    fn what_a_topic_cannot_have_is_refused_with_a_sentence() {
        let long = "1".repeat(CONFIG_VALUE_BYTES_MAX + 1);
        let table = [
            (
                put("retention.ms", "soon"),
                "retention.ms cannot be `soon`: allowed: a whole number, at least -1",
            ),
            (append("cleanup.policy", "burn"), "cleanup.policy cannot be `delete,burn`"),
            (append("retention.ms", "1"), "retention.ms holds one value and no list"),
            (subtract("retention.ms", "1"), "retention.ms holds one value and no list"),
            (put("retention.m", "1"), "retention.m is not a setting of a topic; did you mean retention.ms?"),
            (
                put("log.retention.ms", "1"),
                "log.retention.ms is not a setting of a topic; what log.retention.ms is for all topics, retention.ms \
                 is for one",
            ),
            (one("no.such.setting", ConfigOp::Delete), "no.such.setting is not a setting of a topic"),
            (put("min.compaction.lag.ms", "9"), "at most max.compaction.lag.ms, 8"),
            (put("retention.ms", &long), "retention.ms cannot have more than 32767 bytes"),
            (whole(&[("num.partitions", "2")]), "num.partitions is not a setting of a topic"),
        ];
        for (alteration, expected) in table {
            let now = set(&[("max.compaction.lag.ms", "8")]);
            let error = broker(&[]).alter_topic(&now, &alteration).expect_err("refused").to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        // From a version that knew more: it goes, and until then nothing else is altered unseen.
        let now = set(&[("once.there.was", "1")]);
        let gone = broker(&[]).alter_topic(&now, &one("once.there.was", ConfigOp::Delete));
        assert_eq!(gone, Ok(changes(&[("once.there.was", None)])));
    }

    /// contract P9
    #[test]
    fn of_a_brokers_settings_those_change_that_can_and_where_they_can() {
        let alter = |brokers: Brokers, alteration: Alteration| {
            let now = set(&[("log.retention.ms", "5")]);
            broker(&[]).alter_brokers(brokers, &now, &alteration)
        };
        let reserve = put("heizer.disk.reserve.bytes", "0");
        let expected = changes(&[("heizer.disk.reserve.bytes", Some("0"))]);
        assert_eq!(alter(Brokers::This, reserve.clone()), Ok(expected));
        let expected = changes(&[("max.connections", Some("7"))]);
        for brokers in [Brokers::All, Brokers::This] {
            assert_eq!(alter(brokers, put("max.connections", "7")), Ok(expected.clone()));
            let reset = changes(&[("log.retention.ms", None)]);
            assert_eq!(alter(brokers, whole(&[])), Ok(reset));
        }
        let table = [
            (reserve, "can be set for one broker by its node.id, not for all: heizer.disk.reserve.bytes"),
            (
                whole(&[("num.partitions", "2"), ("node.id", "3"), ("max.connections", "1")]),
                "cannot be changed while a broker runs, only in its configuration file: node.id, num.partitions",
            ),
            (put("log.retention.hours", "1"), "in its configuration file: log.retention.hours"),
            (
                put("retention.ms", "1"),
                "retention.ms is not a setting of a broker; a topic's retention.ms has",
            ),
            (
                put("log.retention.ms", "-2"),
                "log.retention.ms cannot be `-2`: allowed: a whole number, at least -1",
            ),
            (put("log.cleaner.min.compaction.lag.ms", "-1"), "at least 0"),
            (put("log.cleaner.max.compaction.lag.ms", "0"), "at least 1"),
        ];
        for (alteration, expected) in table {
            let error = alter(Brokers::All, alteration).expect_err(expected).to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let (config, _) = broker(&[]).with_dynamic([("log.cleaner.max.compaction.lag.ms", "8")], []);
        let lag = put("log.cleaner.min.compaction.lag.ms", "9");
        let error =
            config.alter_brokers(Brokers::This, &set(&[]), &lag).expect_err("the two do not go together");
        assert!(error.to_string().contains("at most log.cleaner.max.compaction.lag.ms, 8"), "{error}");
    }
}
