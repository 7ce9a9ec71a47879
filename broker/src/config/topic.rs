//! A topic's settings: the broker's defaults, then the topic's overrides.

use heizer_storage::{FLUSH_UNSET, Level, LogConfig};

use super::broker::BrokerConfig;
use super::definition::{ConfigDef, Value};
use super::describe::ConfigSource;
use super::registry::definition;
use super::values::{Layers, Values, known};

/// A topic setting that cannot be what it was asked to be; the wire calls it INVALID_CONFIG.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} cannot be `{value}`: {reason}")]
pub struct InvalidConfig {
    /// The setting.
    pub name: String,
    /// What was asked for.
    pub value: String,
    /// Why not, or what is allowed.
    pub reason: String,
}

/// The settings in force for one topic. Cheap to clone; built anew when an override changes.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `retention.ms`; negative: no limit.
    pub retention_ms: i64,
    /// `retention.bytes`; negative: no limit.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` contains `delete`.
    pub cleanup_delete: bool,
    /// Whether `cleanup.policy` contains `compact`.
    pub cleanup_compact: bool,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: i64,
    /// `max.message.bytes`.
    pub max_message_bytes: u32,
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: u32,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
    /// `heizer.durability`, where topic or broker set it.
    pub durability: Option<Level>,
    /// `flush.messages`; [`FLUSH_UNSET`] when unset.
    pub flush_messages: i64,
    /// `flush.ms`; [`FLUSH_UNSET`] when unset.
    pub flush_ms: i64,
    /// The broker's `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
}

impl TopicConfig {
    /// The settings of a topic with these overrides, which are refused if any of them cannot be, or they do not go
    /// together.
    pub fn parse<'a>(
        defaults: &BrokerConfig,
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<TopicConfig, InvalidConfig> {
        let set = TopicConfig::parse_overrides(overrides)?;
        let config = TopicConfig::read(&Reader { broker: &defaults.layers, set: &set }, defaults);
        config.check_lags("min.compaction.lag.ms", "max.compaction.lag.ms")?;
        Ok(config)
    }

    /// The settings of a topic with overrides that were checked when they were set. What is not understood all the same
    /// is left out, and told of.
    pub fn effective<'a>(
        defaults: &BrokerConfig,
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (TopicConfig, Vec<InvalidConfig>) {
        let (mut set, mut refused) = (Values::default(), Vec::new());
        for (name, text) in overrides {
            match parse_override(name, text) {
                Ok((def, value)) => set.set(def, value),
                Err(error) => refused.push(error),
            }
        }
        (TopicConfig::read(&Reader { broker: &defaults.layers, set: &set }, defaults), refused)
    }

    /// The broker's defaults: what a topic without overrides has.
    pub fn defaults(broker: &BrokerConfig) -> TopicConfig {
        let set = Values::default();
        TopicConfig::read(&Reader { broker: &broker.layers, set: &set }, broker)
    }

    /// What the two settings of these names say goes together.
    pub(super) fn check_lags(&self, min: &str, max: &str) -> Result<(), InvalidConfig> {
        if self.min_compaction_lag_ms <= self.max_compaction_lag_ms {
            return Ok(());
        }
        Err(InvalidConfig {
            name: min.to_owned(),
            value: self.min_compaction_lag_ms.to_string(),
            reason: format!("allowed: at most {max}, {}", self.max_compaction_lag_ms),
        })
    }

    fn read(read: &Reader<'_>, defaults: &BrokerConfig) -> TopicConfig {
        TopicConfig {
            segment_bytes: read.unsigned("segment.bytes"),
            segment_ms: read.long("segment.ms"),
            segment_jitter_ms: read.long("segment.jitter.ms"),
            segment_index_bytes: read.unsigned("segment.index.bytes"),
            index_interval_bytes: read.unsigned("index.interval.bytes"),
            retention_ms: read.long("retention.ms"),
            retention_bytes: read.long("retention.bytes"),
            cleanup_delete: read.list_has("cleanup.policy", "delete"),
            cleanup_compact: read.list_has("cleanup.policy", "compact"),
            delete_retention_ms: read.long("delete.retention.ms"),
            min_compaction_lag_ms: read.long("min.compaction.lag.ms"),
            max_compaction_lag_ms: read.long("max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: read.double("min.cleanable.dirty.ratio"),
            file_delete_delay_ms: read.long("file.delete.delay.ms"),
            max_message_bytes: read.unsigned("max.message.bytes"),
            log_append_time: read.text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max_ms: read.long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: read.long("message.timestamp.after.max.ms"),
            min_insync_replicas: read.unsigned("min.insync.replicas"),
            unclean_leader_election: read.bool("unclean.leader.election.enable"),
            durability: read.is_set("heizer.durability").then(|| level(&read.text("heizer.durability"))),
            flush_messages: read.long("flush.messages"),
            flush_ms: read.long("flush.ms"),
            producer_expiration_ms: i64::from(defaults.producer_id_expiration_ms),
        }
    }

    /// What the log of one of its partitions has to know.
    pub fn log_config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms,
            segment_jitter_ms: self.segment_jitter_ms,
            segment_index_bytes: self.segment_index_bytes,
            index_interval_bytes: self.index_interval_bytes,
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            cleanup_delete: self.cleanup_delete,
            cleanup_compact: self.cleanup_compact,
            min_cleanable_dirty_ratio: self.min_cleanable_dirty_ratio,
            min_compaction_lag_ms: self.min_compaction_lag_ms,
            max_compaction_lag_ms: self.max_compaction_lag_ms,
            delete_retention_ms: self.delete_retention_ms,
            durability: self.durability,
            flush_messages: self.flush_messages,
            flush_ms: self.flush_ms,
            log_append_time: self.log_append_time,
            producer_expiration_ms: self.producer_expiration_ms,
        }
    }

    /// Parses overrides by themselves. A name given twice has its last value.
    pub(super) fn parse_overrides<'a>(
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Values, InvalidConfig> {
        let mut set = Values::default();
        for (name, text) in overrides {
            let (def, value) = parse_override(name, text)?;
            set.set(def, value);
        }
        Ok(set)
    }
}

fn parse_override(name: &str, text: &str) -> Result<(&'static ConfigDef, Value), InvalidConfig> {
    let invalid = |reason| InvalidConfig { name: name.to_owned(), value: text.to_owned(), reason };
    let def = definition(name).filter(|def| def.scope.of_topic());
    let def = def.ok_or_else(|| invalid("there is no topic setting of this name".to_owned()))?;
    let value = def.parse(text).map_err(|reason| invalid(format!("allowed: {reason}")))?;
    Ok((def, value))
}

/// Reads topic settings in the types of their definitions. A name or type that the registry doesn't have is a bug
/// and panics; building one [`TopicConfig`] in a test reads them all.
struct Reader<'a> {
    broker: &'a Layers,
    set: &'a Values,
}

impl Reader<'_> {
    /// Whether anybody set it, for the topic or for the broker.
    fn is_set(&self, name: &'static str) -> bool {
        let of_broker = || self.broker.resolve(known(name)).map(|(_, source)| source);
        self.set.explicit(name).is_some() || of_broker().is_some_and(|source| source != ConfigSource::Default)
    }

    fn value(&self, name: &'static str) -> Value {
        let def: &ConfigDef = known(name);
        assert!(def.scope.of_topic(), "{name} is no topic setting");
        let default = || self.broker.resolve(def).map(|(value, _)| value);
        let value = self.set.explicit(name).cloned().or_else(default);
        value.expect("the last synonym of every topic setting has a default: tested in the registry")
    }

    fn bool(&self, name: &'static str) -> bool {
        self.value(name).into_bool()
    }

    fn unsigned(&self, name: &'static str) -> u32 {
        self.value(name).into_unsigned()
    }

    fn long(&self, name: &'static str) -> i64 {
        self.value(name).into_long()
    }

    fn double(&self, name: &'static str) -> f64 {
        self.value(name).into_double()
    }

    fn text(&self, name: &'static str) -> String {
        self.value(name).into_text()
    }

    fn list_has(&self, name: &'static str, item: &str) -> bool {
        self.value(name).into_list().iter().any(|other| other == item)
    }
}

fn level(name: &str) -> Level {
    name.parse().expect("the registry allows no other levels")
}

// The registry's "unset" is storage's.
const _: () = assert!(FLUSH_UNSET == i64::MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(settings: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::from_settings(settings.iter().copied()).expect("valid settings")
    }

    fn topic(settings: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<TopicConfig, InvalidConfig> {
        TopicConfig::parse(&broker(settings), overrides.iter().copied())
    }

    #[test]
    fn without_anything_set_a_topic_has_kafkas_defaults() {
        let config = topic(&[], &[]).expect("defaults are valid");
        assert_eq!(config, TopicConfig::defaults(&broker(&[])));
        assert_eq!(config.log_config(), LogConfig::default());
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.timestamp_after_max_ms, 3_600_000);
        assert_eq!((config.min_insync_replicas, config.unclean_leader_election), (1, false));
    }

    #[test]
    fn broker_settings_give_defaults_in_their_own_units_and_order() {
        let table: [(&[(&str, &str)], i64); 5] = [
            (&[("log.retention.hours", "2")], 7_200_000),
            (&[("log.retention.hours", "2"), ("log.retention.minutes", "3")], 180_000),
            (&[("log.retention.minutes", "3"), ("log.retention.ms", "7")], 7),
            (&[("log.retention.hours", "-1")], -1),
            (&[("log.retention.hours", "2147483647")], 7_730_941_129_200_000),
        ];
        for (settings, expected) in table {
            let config = topic(settings, &[]).expect("valid");
            assert_eq!(config.retention_ms, expected, "{settings:?}");
        }
        let config = topic(&[("log.retention.ms", "7")], &[("retention.ms", "9")]).expect("valid");
        assert_eq!(config.retention_ms, 9);
    }

    #[test]
    fn overrides_are_checked_one_by_one_and_together() {
        let refused = [
            ("retention.ms", "-2", "at least -1"),
            ("retention.ms", "soon", "whole number"),
            ("segment.bytes", "1000", "at least 1048576"),
            ("cleanup.policy", "shrink", "delete, compact"),
            ("compression.type", "zstd", "only producer"),
            ("min.cleanable.dirty.ratio", "NaN", "from 0 to 1"),
            ("preallocate", "yes", "true or false"),
            ("message.timestamp.type", "createtime", "CreateTime, LogAppendTime"),
            ("no.such.setting", "1", "no topic setting"),
            ("log.segment.bytes", "2097152", "no topic setting"),
            ("min.insync.replicas", "0", "at least 1"),
        ];
        for (name, value, why) in refused {
            let error = topic(&[], &[(name, value)]).expect_err(name);
            assert_eq!((error.name.as_str(), error.value.as_str()), (name, value));
            assert!(error.reason.contains(why), "{error}");
        }
        let error = topic(&[], &[("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "8")]);
        assert!(error.expect_err("min above max").reason.contains("at most max.compaction.lag.ms, 8"));
    }

    #[test]
    fn what_is_not_understood_any_more_is_left_out_and_the_rest_holds() {
        let overrides = [("cleanup.policy", "compact"), ("no.such.setting", "1"), ("retention.ms", "soon")];
        let (config, refused) = TopicConfig::effective(&broker(&[]), overrides);
        assert!(config.cleanup_compact && !config.cleanup_delete);
        assert_eq!(config.retention_ms, 604_800_000);
        let names: Vec<_> = refused.iter().map(|error| error.name.as_str()).collect();
        assert_eq!(names, ["no.such.setting", "retention.ms"]);
        // A default that does not go with an override makes it no less an override.
        let defaults = broker(&[("log.cleaner.max.compaction.lag.ms", "8")]);
        let (config, refused) = TopicConfig::effective(&defaults, [("min.compaction.lag.ms", "9")]);
        assert_eq!((config.min_compaction_lag_ms, config.max_compaction_lag_ms, refused), (9, 8, vec![]));
    }

    #[test]
    fn cleanup_policies_combine() {
        for (text, delete, compact) in
            [("delete", true, false), ("compact", false, true), ("compact, delete", true, true)]
        {
            let config = topic(&[], &[("cleanup.policy", text)]).expect(text);
            assert_eq!((config.cleanup_delete, config.cleanup_compact), (delete, compact), "{text}");
        }
    }

    #[test]
    fn durability_counts_only_where_somebody_set_it() {
        type Settings = &'static [(&'static str, &'static str)];
        let table: [(Settings, Settings, Level); 5] = [
            (&[], &[], Level::Durable),
            (&[], &[("flush.ms", "100")], Level::Written),
            (&[("heizer.durability", "durable")], &[("flush.ms", "100")], Level::Durable),
            (&[("heizer.durability", "memory")], &[], Level::Memory),
            (&[("heizer.durability", "memory")], &[("heizer.durability", "written")], Level::Written),
        ];
        for (settings, overrides, expected) in table {
            let config = topic(settings, overrides).expect("valid");
            assert_eq!(config.log_config().level(), expected, "{settings:?} {overrides:?}");
        }
    }
}
