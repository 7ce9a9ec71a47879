//! Settings as DescribeConfigs shows them (contract P9).

use super::broker::BrokerConfig;
use super::definition::{ConfigDef, Kind, UpdateMode};
use super::registry::DEFINITIONS;
use super::topic::{InvalidConfig, TopicConfig};

/// Where a value came from, with the numbers of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set for the topic.
    Topic = 1,
    /// Set at run time, for this broker.
    DynamicBroker = 2,
    /// Set at run time, for all brokers.
    DynamicDefault = 3,
    /// Set in the configuration file or on the command line.
    StaticBroker = 4,
    /// The built-in default.
    Default = 5,
}

/// A setting's type, with the numbers of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// A text.
    String = 2,
    /// A 32-bit number.
    Int = 3,
    /// A 64-bit number.
    Long = 5,
    /// A decimal number.
    Double = 6,
    /// Texts, separated by commas.
    List = 7,
}

/// One setting, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRow {
    /// Its name.
    pub name: &'static str,
    /// Its value; none when it is unset, or secret.
    pub value: Option<String>,
    /// Where the value came from.
    pub source: ConfigSource,
    /// Whether it cannot be altered.
    pub read_only: bool,
    /// Whether its value is secret.
    pub sensitive: bool,
    /// Its type.
    pub config_type: ConfigType,
    /// All that could determine the value, the strongest first; the first one does.
    pub synonyms: Vec<ConfigSynonym>,
    /// What it does.
    pub documentation: &'static str,
}

impl ConfigRow {
    /// Whether the value is the built-in default.
    pub fn is_default(&self) -> bool {
        self.source == ConfigSource::Default
    }
}

/// One of the places a value can come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The setting's name there.
    pub name: &'static str,
    /// Its value there, in its own unit.
    pub value: String,
    /// Where that is.
    pub source: ConfigSource,
}

impl BrokerConfig {
    /// All settings of the broker, sorted by name.
    pub fn describe_broker(&self) -> Vec<ConfigRow> {
        let defs = sorted(|def| def.scope.of_broker());
        defs.into_iter()
            .map(|def| {
                let (value, source) = match self.layers.resolve(def) {
                    Some((value, source)) => (Some(value.to_string()), source),
                    None => (None, ConfigSource::Default),
                };
                let read_only = def.update_mode == UpdateMode::ReadOnly;
                row(def, value, source, read_only, self.layers.synonyms(def))
            })
            .collect()
    }

    /// What is set for all brokers at run time, sorted by name.
    pub fn describe_all_brokers(&self) -> Vec<ConfigRow> {
        let rows = self.layers.cluster.all().map(|(def, value)| {
            let (value, source) = (value.to_string(), ConfigSource::DynamicDefault);
            let own = ConfigSynonym { name: def.name, value: value.clone(), source };
            row(def, Some(value), source, false, vec![own])
        });
        rows.collect()
    }

    /// All settings of a topic that has these overrides, sorted by name.
    pub fn describe_topic<'a>(
        &self,
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Vec<ConfigRow>, InvalidConfig> {
        let set = TopicConfig::parse_overrides(overrides)?;
        let defs = sorted(|def| def.scope.of_topic());
        let rows = defs.into_iter().map(|def| {
            let mut synonyms = self.layers.synonyms(def);
            let (value, source) = match set.explicit(def.name) {
                Some(value) => {
                    let (name, value, source) = (def.name, value.to_string(), ConfigSource::Topic);
                    synonyms.insert(0, ConfigSynonym { name, value: value.clone(), source });
                    (Some(value), source)
                }
                None => match self.layers.resolve(def) {
                    Some((value, source)) => (Some(value.to_string()), source),
                    None => (None, ConfigSource::Default),
                },
            };
            row(def, value, source, false, synonyms)
        });
        Ok(rows.collect())
    }
}

fn sorted(mut wanted: impl FnMut(&ConfigDef) -> bool) -> Vec<&'static ConfigDef> {
    let mut defs: Vec<_> = DEFINITIONS.iter().filter(|def| wanted(def)).collect();
    defs.sort_by_key(|def| def.name);
    defs
}

fn row(
    def: &'static ConfigDef,
    value: Option<String>,
    source: ConfigSource,
    read_only: bool,
    synonyms: Vec<ConfigSynonym>,
) -> ConfigRow {
    let sensitive = def.is_sensitive();
    ConfigRow {
        name: def.name,
        value: value.filter(|_| !sensitive),
        source,
        read_only,
        sensitive,
        config_type: type_of(def.kind),
        synonyms: if sensitive { Vec::new() } else { synonyms },
        documentation: def.doc,
    }
}

fn type_of(kind: Kind) -> ConfigType {
    match kind {
        Kind::Bool => ConfigType::Boolean,
        Kind::Int(..) => ConfigType::Int,
        Kind::Long(..) => ConfigType::Long,
        Kind::Double(..) => ConfigType::Double,
        Kind::Text | Kind::OneOf(_) => ConfigType::String,
        Kind::ListOf(_) | Kind::Endpoints => ConfigType::List,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(rows: &'a [ConfigRow], name: &str) -> &'a ConfigRow {
        rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name} is described"))
    }

    fn config(overrides: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::from_settings(overrides.iter().copied()).expect("valid settings")
    }

    #[test]
    fn a_topic_without_overrides_shows_the_brokers_defaults() {
        // contract P9
        let rows = config(&[]).describe_topic([]).expect("no overrides");
        let row = find(&rows, "retention.ms");
        assert_eq!(row.value.as_deref(), Some("604800000"));
        assert!(row.is_default() && !row.read_only && !row.sensitive);
        assert_eq!(row.config_type, ConfigType::Long);
        let synonym = ConfigSynonym {
            name: "log.retention.hours",
            value: "168".to_owned(),
            source: ConfigSource::Default,
        };
        assert_eq!(row.synonyms, [synonym]);
        assert!(rows.iter().all(|row| row.value.is_some() && row.is_default()));
    }

    #[test]
    fn an_override_goes_before_the_file_which_goes_before_the_default() {
        // contract P9
        let config = config(&[("log.retention.minutes", "10"), ("log.segment.bytes", "2097152")]);
        let rows = config.describe_topic([("retention.ms", "5000")]).expect("valid");
        let row = find(&rows, "retention.ms");
        assert_eq!((row.value.as_deref(), row.source), (Some("5000"), ConfigSource::Topic));
        let order: Vec<_> = row.synonyms.iter().map(|s| (s.name, s.value.as_str(), s.source)).collect();
        assert_eq!(
            order,
            [
                ("retention.ms", "5000", ConfigSource::Topic),
                ("log.retention.minutes", "10", ConfigSource::StaticBroker),
                ("log.retention.hours", "168", ConfigSource::Default),
            ]
        );
        let row = find(&rows, "segment.bytes");
        assert_eq!((row.value.as_deref(), row.source), (Some("2097152"), ConfigSource::StaticBroker));
    }

    #[test]
    fn a_broker_shows_every_setting_of_its_own_and_which_can_change() {
        // contract P9
        let rows = config(&[("num.partitions", "3")]).describe_broker();
        assert!(rows.is_sorted_by_key(|row| row.name));
        assert!(rows.iter().all(|row| row.name != "retention.ms"));
        assert_eq!(find(&rows, "log.retention.ms").value, None);
        let row = find(&rows, "num.partitions");
        assert_eq!((row.value.as_deref(), row.source), (Some("3"), ConfigSource::StaticBroker));
        assert_eq!(find(&rows, "log.cleanup.policy").config_type, ConfigType::List);
        assert_eq!(find(&rows, "log.cleaner.min.cleanable.ratio").value.as_deref(), Some("0.5"));
        for (name, read_only) in [
            ("num.partitions", true),
            ("log.retention.hours", true),
            ("log.retention.ms", false),
            ("min.insync.replicas", false),
            ("max.connections", false),
            ("heizer.disk.reserve.bytes", false),
        ] {
            assert_eq!(find(&rows, name).read_only, read_only, "{name}");
        }
    }

    #[test]
    fn what_is_set_at_run_time_goes_before_the_file_and_for_one_broker_before_all() {
        // contract P9
        let file = config(&[("log.retention.hours", "2"), ("log.segment.bytes", "2097152")]);
        let cluster = [("log.retention.ms", "30"), ("log.segment.bytes", "3145728")];
        let (config, refused) = file.with_dynamic(cluster, [("log.retention.ms", "20")]);
        assert_eq!(refused, []);
        let order = |row: &ConfigRow| -> Vec<(&'static str, String, i8)> {
            row.synonyms.iter().map(|s| (s.name, s.value.clone(), s.source as i8)).collect()
        };
        let expected = vec![
            ("log.retention.ms", "20".to_owned(), 2),
            ("log.retention.ms", "30".to_owned(), 3),
            ("log.retention.hours", "2".to_owned(), 4),
            ("log.retention.hours", "168".to_owned(), 5),
        ];
        let rows = config.describe_topic([]).expect("no overrides");
        let row = find(&rows, "retention.ms");
        assert_eq!((row.value.as_deref(), row.source), (Some("20"), ConfigSource::DynamicBroker));
        assert_eq!(order(row), expected);
        let row = find(&rows, "segment.bytes");
        assert_eq!((row.value.as_deref(), row.source), (Some("3145728"), ConfigSource::DynamicDefault));
        let rows = config.describe_topic([("retention.ms", "10")]).expect("valid");
        let row = find(&rows, "retention.ms");
        assert_eq!((row.value.as_deref(), row.source), (Some("10"), ConfigSource::Topic));
        assert_eq!(order(row)[1..], expected);
        let rows = config.describe_broker();
        let row = find(&rows, "log.retention.ms");
        assert_eq!((row.value.as_deref(), row.source), (Some("20"), ConfigSource::DynamicBroker));
        assert_eq!(order(row), expected[..2]);
        // Of what is set for all, what is set for one is no part.
        let rows = config.describe_all_brokers();
        let values: Vec<_> = rows.iter().map(|row| (row.name, row.value.as_deref(), order(row))).collect();
        assert_eq!(
            values,
            [
                ("log.retention.ms", Some("30"), vec![("log.retention.ms", "30".to_owned(), 3)]),
                ("log.segment.bytes", Some("3145728"), vec![("log.segment.bytes", "3145728".to_owned(), 3)]),
            ]
        );
        assert_eq!(file.describe_all_brokers(), []);
    }
}
