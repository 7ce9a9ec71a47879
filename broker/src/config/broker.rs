//! The broker's settings: defaults, then the configuration file, then the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::definition::{ConfigDef, UpdateMode, Value, split_list};
use super::endpoint::{self, Endpoint};
use super::file;
use super::registry::{DEFINITIONS, definition};
use super::topic::{InvalidConfig, TopicConfig};
use super::values::{Layers, Values};

/// Settings that the broker cannot start with: one line that says where, what, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: {reason}")]
    File {
        /// Which.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// The file is no TOML.
    #[error("{file}:{line}: not TOML: {reason}")]
    Syntax {
        /// Which.
        file: String,
        /// The line, counted from one.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// There is no such setting.
    #[error("{origin}: {name} is not a setting{hint}")]
    Unknown {
        /// The file or flag it was in.
        origin: String,
        /// The name.
        name: String,
        /// What might have been meant, ready to be shown.
        hint: String,
    },
    /// The value cannot be.
    #[error("{origin}: {name} cannot be `{value}`; allowed: {allowed}")]
    Value {
        /// The file or flag it was in.
        origin: String,
        /// The setting.
        name: String,
        /// What was asked for.
        value: String,
        /// What can be.
        allowed: String,
    },
}

/// A setting given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The setting's name.
    pub name: &'static str,
    /// The flag, for messages.
    pub flag: &'static str,
    /// Its text.
    pub value: String,
}

/// The broker's settings, and the defaults of its topics' ([`super::TopicConfig`]). Made at the start, and anew when what
/// is set at run time changes ([`BrokerConfig::with_dynamic`]).
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node_id: i32,
    /// `listeners`.
    pub listeners: Vec<Endpoint>,
    /// `advertised.listeners`; empty when unset. See [`BrokerConfig::advertised`].
    pub advertised_listeners: Vec<Endpoint>,
    /// `log.dirs`, or `log.dir` where that is not set; at least one, none twice or within another.
    pub log_dirs: Vec<PathBuf>,
    /// `metadata.log.dir`, as its place in `log_dirs`.
    pub metadata_log_dir: usize,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`.
    pub move_bytes_per_s: u64,
    /// `heizer.cores`; none: every core.
    pub cores: Option<usize>,
    /// `heizer.spin.us`.
    pub spin: Duration,
    /// `heizer.memory.per.core.bytes`.
    pub memory_per_core_bytes: u64,
    /// `heizer.raft.groups`.
    pub raft_groups: u16,
    /// `heizer.disk.reserve.bytes`; none: as much as [`BrokerConfig::disk_reserve`] says.
    pub disk_reserve_bytes: Option<u64>,
    /// `heizer.admin.listen`.
    pub admin_listen: Endpoint,
    /// `heizer.metrics.topics.max`.
    pub metrics_topics_max: u32,
    /// `heizer.metrics.partitions.max`.
    pub metrics_partitions_max: u32,
    /// `heizer.metrics.groups.max`.
    pub metrics_groups_max: u32,
    /// `heizer.metrics.lags.max`.
    pub metrics_lags_max: u32,
    /// `socket.request.max.bytes`.
    pub socket_request_max_bytes: u32,
    /// `max.connections`.
    pub max_connections: u32,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: u32,
    /// `connections.max.idle.ms`; none: no limit.
    pub connections_max_idle: Option<Duration>,
    /// `fetch.max.bytes`.
    pub fetch_max_bytes: u32,
    /// `max.request.partition.size.limit`.
    pub request_partitions_max: u32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: u32,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `num.partitions`.
    pub num_partitions: u32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i32,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// `log.cleaner.enable`.
    pub cleaner_enable: bool,
    /// `log.cleaner.dedupe.buffer.size`, for all cores together.
    pub cleaner_dedupe_buffer_bytes: u64,
    /// `log.cleaner.backoff.ms`.
    pub cleaner_backoff: Duration,
    /// `log.cleaner.io.max.bytes.per.second`, for all cores together.
    pub cleaner_io_bytes_per_second: f64,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_partitions: u32,
    /// `offsets.topic.segment.bytes`.
    pub offsets_topic_segment_bytes: u32,
    /// `offsets.topic.replication.factor`.
    pub offsets_topic_replication_factor: i16,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: u32,
    /// `group.min.session.timeout.ms`.
    pub group_min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub group_max_session_timeout_ms: i32,
    /// `group.max.size`.
    pub group_max_size: u32,
    /// `group.initial.rebalance.delay.ms`.
    pub group_initial_rebalance_delay_ms: i32,
    pub(super) layers: Layers,
}

impl BrokerConfig {
    /// Reads the file, if any, and puts the overrides on top. Blocks: it is called before the cores start.
    pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<BrokerConfig, ConfigError> {
        let mut values = Values::default();
        if let Some(path) = file {
            let origin = path.display().to_string();
            let failed =
                |error: std::io::Error| ConfigError::File { file: origin.clone(), reason: error.to_string() };
            let text = std::fs::read_to_string(path).map_err(failed)?;
            for (name, value) in file::settings(&origin, &text)? {
                set(&mut values, &origin, &name, &value)?;
            }
        }
        for Override { name, flag, value } in overrides {
            set(&mut values, flag, name, value)?;
        }
        BrokerConfig::from_values(values)
    }

    /// The settings with these names and texts, and defaults for the rest.
    pub fn from_settings<'a>(
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<BrokerConfig, ConfigError> {
        let mut values = Values::default();
        for (name, value) in settings {
            set(&mut values, "settings", name, value)?;
        }
        BrokerConfig::from_values(values)
    }

    /// Where clients are told to connect for the listener called `name` that is bound to `bound`.
    pub fn advertised(&self, name: &str, bound: SocketAddr) -> Endpoint {
        let of_name = |list: &[Endpoint]| list.iter().find(|endpoint| endpoint.name == name).cloned();
        of_name(&self.advertised_listeners).unwrap_or_else(|| {
            // The name that was configured, so that certificates and resolvers agree; the port that was bound.
            let host =
                of_name(&self.listeners).map_or_else(|| bound.ip().to_string(), |endpoint| endpoint.host);
            Endpoint { name: name.to_owned(), host, port: bound.port() }
        })
    }

    /// Bytes that producers leave free in a data directory, with so many cores: by default enough for what may be in
    /// memory and not written yet, which is half of theirs.
    pub fn disk_reserve(&self, cores: usize) -> u64 {
        const DEFAULT_MIN: u64 = 64 << 20;
        let unwritten = (self.memory_per_core_bytes / 2).saturating_mul(cores as u64);
        self.disk_reserve_bytes.unwrap_or(unwritten.max(DEFAULT_MIN))
    }

    /// These settings under what was set at run time for all brokers and for this one. What cannot be set so, or is not
    /// understood, is left out and told of: it was checked when it was set, by another version of the broker perhaps.
    pub fn with_dynamic<'a>(
        &self,
        cluster: impl IntoIterator<Item = (&'a str, &'a str)>,
        own: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (BrokerConfig, Vec<InvalidConfig>) {
        let (mut layers, mut refused) = (self.layers.clone(), Vec::new());
        layers.cluster = dynamic(cluster, &mut refused);
        layers.own = dynamic(own, &mut refused);
        (self.with_layers(layers), refused)
    }

    /// The same broker with other settings, none of which changes where its data are.
    pub(super) fn with_layers(&self, layers: Layers) -> BrokerConfig {
        BrokerConfig::read(layers, self.log_dirs.clone(), self.metadata_log_dir)
    }

    fn from_values(fixed: Values) -> Result<BrokerConfig, ConfigError> {
        let layers = Layers { fixed, ..Layers::default() };
        let log_dirs = log_dirs(&layers);
        let metadata_log_dir = metadata_log_dir(&layers, &log_dirs)?;
        let config = BrokerConfig::read(layers, log_dirs, metadata_log_dir);
        config.check()?;
        Ok(config)
    }

    fn read(layers: Layers, log_dirs: Vec<PathBuf>, metadata_log_dir: usize) -> BrokerConfig {
        let read = Reader(&layers);
        let idle_ms = read.long("connections.max.idle.ms");
        let cores = read.unsigned("heizer.cores");
        BrokerConfig {
            log_dirs,
            metadata_log_dir,
            move_bytes_per_s: read.long("replica.alter.log.dirs.io.max.bytes.per.second").unsigned_abs(),
            node_id: read.int("node.id"),
            listeners: read.endpoints("listeners"),
            advertised_listeners: read.endpoints("advertised.listeners"),
            cores: (cores > 0).then_some(cores as usize),
            spin: Duration::from_micros(u64::from(read.unsigned("heizer.spin.us"))),
            memory_per_core_bytes: read.long("heizer.memory.per.core.bytes").unsigned_abs(),
            raft_groups: read.short("heizer.raft.groups").unsigned_abs(),
            disk_reserve_bytes: u64::try_from(read.long("heizer.disk.reserve.bytes")).ok(),
            admin_listen: read.endpoints("heizer.admin.listen").remove(0),
            metrics_topics_max: read.unsigned("heizer.metrics.topics.max"),
            metrics_partitions_max: read.unsigned("heizer.metrics.partitions.max"),
            metrics_groups_max: read.unsigned("heizer.metrics.groups.max"),
            metrics_lags_max: read.unsigned("heizer.metrics.lags.max"),
            socket_request_max_bytes: read.unsigned("socket.request.max.bytes"),
            max_connections: read.unsigned("max.connections"),
            max_connections_per_ip: read.unsigned("max.connections.per.ip"),
            connections_max_idle: u64::try_from(idle_ms).ok().map(Duration::from_millis),
            fetch_max_bytes: read.unsigned("fetch.max.bytes"),
            request_partitions_max: read.unsigned("max.request.partition.size.limit"),
            fetch_sessions_max: read.unsigned("max.incremental.fetch.session.cache.slots"),
            auto_create_topics: read.value("auto.create.topics.enable").into_bool(),
            num_partitions: read.unsigned("num.partitions"),
            default_replication_factor: read.short("default.replication.factor"),
            producer_id_expiration_ms: read.int("producer.id.expiration.ms"),
            retention_check_interval: Duration::from_millis(
                read.long("log.retention.check.interval.ms").unsigned_abs(),
            ),
            cleaner_enable: read.value("log.cleaner.enable").into_bool(),
            cleaner_dedupe_buffer_bytes: read.long("log.cleaner.dedupe.buffer.size").unsigned_abs(),
            cleaner_backoff: Duration::from_millis(read.long("log.cleaner.backoff.ms").unsigned_abs()),
            cleaner_io_bytes_per_second: read.value("log.cleaner.io.max.bytes.per.second").into_double(),
            offsets_topic_partitions: read.unsigned("offsets.topic.num.partitions"),
            offsets_topic_segment_bytes: read.unsigned("offsets.topic.segment.bytes"),
            offsets_topic_replication_factor: read.short("offsets.topic.replication.factor"),
            offsets_retention_ms: i64::from(read.int("offsets.retention.minutes")) * 60_000,
            offsets_retention_check_interval_ms: read.long("offsets.retention.check.interval.ms"),
            offset_metadata_max_bytes: read.unsigned("offset.metadata.max.bytes"),
            group_min_session_timeout_ms: read.int("group.min.session.timeout.ms"),
            group_max_session_timeout_ms: read.int("group.max.session.timeout.ms"),
            group_max_size: read.unsigned("group.max.size"),
            group_initial_rebalance_delay_ms: read.int("group.initial.rebalance.delay.ms"),
            layers,
        }
    }

    /// What no single setting can tell.
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |name: &str, value: String, allowed: &str| {
            let (origin, name, allowed) = ("settings".to_owned(), name.to_owned(), allowed.to_owned());
            Err(ConfigError::Value { origin, name, value, allowed })
        };
        for endpoint in &self.advertised_listeners {
            if endpoint.is_unspecified() || endpoint.port == 0 {
                let allowed = "an address and port that clients can connect to; give --advertise HOST:PORT";
                return refuse("advertised.listeners", endpoint.host_port(), allowed);
            }
            if !self.listeners.iter().any(|listener| listener.name == endpoint.name) {
                return refuse("advertised.listeners", endpoint.to_string(), "names out of listeners");
            }
        }
        let told = |name: &str| self.advertised_listeners.iter().any(|endpoint| endpoint.name == name);
        if let Some(listener) = self.listeners.iter().find(|l| l.is_unspecified() && !told(&l.name)) {
            let allowed =
                "an address that clients can connect to, or any together with --advertise HOST:PORT";
            return refuse("listeners", listener.host_port(), allowed);
        }
        if let Some((outer, inner)) = overlapping(&self.log_dirs) {
            let value = format!("{}` and `{}", outer.display(), inner.display());
            return refuse("log.dirs", value, "directories that are not the same and not within one another");
        }
        if self.log_dirs.is_empty() {
            return refuse("log.dirs", ",".to_owned(), "at least one directory");
        }
        if let Some(Value::List(several)) = self.layers.broker("heizer.admin.listen").filter(has_several) {
            return refuse("heizer.admin.listen", several.join(","), "one HOST:PORT");
        }
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms {
            let value = self.group_min_session_timeout_ms.to_string();
            return refuse("group.min.session.timeout.ms", value, "at most group.max.session.timeout.ms");
        }
        if let Err(error) = self.check_lags() {
            return refuse(&error.name, error.value, "at most log.cleaner.max.compaction.lag.ms");
        }
        Ok(())
    }

    /// What the defaults of topics say goes together.
    pub(super) fn check_lags(&self) -> Result<(), InvalidConfig> {
        let (min, max) = ("log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms");
        TopicConfig::defaults(self).check_lags(min, max)
    }
}

impl Default for BrokerConfig {
    fn default() -> BrokerConfig {
        BrokerConfig::from_values(Values::default()).expect("the defaults are valid: tested below")
    }
}

/// What `log.dirs` names, or `log.dir` where only that was set.
fn log_dirs(layers: &Layers) -> Vec<PathBuf> {
    let name = match (layers.fixed.explicit("log.dirs"), layers.fixed.explicit("log.dir")) {
        (None, Some(_)) => "log.dir",
        _ => "log.dirs",
    };
    let text = layers.broker(name).map(Value::into_text).unwrap_or_default();
    split_list(&text).into_iter().map(PathBuf::from).collect()
}

fn metadata_log_dir(layers: &Layers, log_dirs: &[PathBuf]) -> Result<usize, ConfigError> {
    let Some(wanted) = layers.broker("metadata.log.dir").map(Value::into_text) else { return Ok(0) };
    let is_wanted = |path: &PathBuf| lexical(path) == lexical(Path::new(&wanted));
    log_dirs.iter().position(is_wanted).ok_or_else(|| ConfigError::Value {
        origin: "settings".to_owned(),
        name: "metadata.log.dir".to_owned(),
        value: wanted,
        allowed: "one of log.dirs".to_owned(),
    })
}

/// Two directories of which the second is the first or lies within it. By their names alone: what links lead to the
/// same place is found when the directories are claimed.
fn overlapping(log_dirs: &[PathBuf]) -> Option<(&PathBuf, &PathBuf)> {
    let pairs = log_dirs.iter().enumerate().flat_map(|(at, outer)| {
        log_dirs
            .iter()
            .enumerate()
            .filter(move |(other, _)| *other != at)
            .map(move |(_, inner)| (outer, inner))
    });
    pairs.into_iter().find(|(outer, inner)| lexical(inner).starts_with(lexical(outer)))
}

/// An absolute path without `.` and `..`.
fn lexical(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut clean = PathBuf::new();
    for component in absolute.components() {
        match component {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::CurDir => {}
            component => clean.push(component),
        }
    }
    clean
}

fn has_several(value: &Value) -> bool {
    matches!(value, Value::List(items) if items.len() > 1)
}

fn set(values: &mut Values, origin: &str, name: &str, text: &str) -> Result<(), ConfigError> {
    let Some(def) = definition(name).filter(|def| def.scope.of_broker()) else {
        return Err(ConfigError::Unknown {
            origin: origin.to_owned(),
            name: name.to_owned(),
            hint: hint(name),
        });
    };
    let value = def.parse(text).map_err(|allowed| ConfigError::Value {
        origin: origin.to_owned(),
        name: name.to_owned(),
        value: text.to_owned(),
        allowed,
    })?;
    values.set(def, value);
    Ok(())
}

/// What was set at run time; what is refused of it is told of.
fn dynamic<'a>(
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    refused: &mut Vec<InvalidConfig>,
) -> Values {
    let mut values = Values::default();
    for (name, text) in settings {
        let changes = |def: &&ConfigDef| def.scope.of_broker() && def.update_mode != UpdateMode::ReadOnly;
        let parsed = match definition(name).filter(changes) {
            Some(def) => def.parse(text).map(|value| values.set(def, value)),
            None => Err("no setting of this name changes at run time".to_owned()),
        };
        if let Err(reason) = parsed {
            refused.push(InvalidConfig { name: name.to_owned(), value: text.to_owned(), reason });
        }
    }
    values
}

/// What might have been meant by an unknown name: the broker's name of a topic setting, or one spelt alike.
pub(super) fn hint(name: &str) -> String {
    if let Some(synonym) = definition(name).and_then(|def| def.synonyms.first()) {
        return format!("; a topic's {name} has its broker-wide default in {}", synonym.name);
    }
    let of_broker = DEFINITIONS.iter().filter(|def| def.scope.of_broker());
    let nearest = of_broker.map(|def| (distance(def.name, name), def.name)).min();
    match nearest {
        Some((steps, known)) if steps <= 1 + name.len() / 6 => format!("; did you mean {known}?"),
        _ => String::new(),
    }
}

/// Insertions, removals and replacements of bytes between two names.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Reads broker settings in the types of their definitions; a name or type that the registry doesn't have panics.
struct Reader<'a>(&'a Layers);

impl Reader<'_> {
    fn value(&self, name: &'static str) -> Value {
        self.0.broker(name).unwrap_or_else(|| panic!("{name} has no default"))
    }

    fn int(&self, name: &'static str) -> i32 {
        self.value(name).into_int()
    }

    fn unsigned(&self, name: &'static str) -> u32 {
        self.value(name).into_unsigned()
    }

    fn short(&self, name: &'static str) -> i16 {
        i16::try_from(self.int(name)).expect("the setting's range fits")
    }

    fn long(&self, name: &'static str) -> i64 {
        self.value(name).into_long()
    }

    fn endpoints(&self, name: &'static str) -> Vec<Endpoint> {
        let Some(value) = self.0.broker(name) else { return Vec::new() };
        endpoint::parse_list(&value.to_string()).expect("parsed before")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, overrides: &[Override]) -> Result<BrokerConfig, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("heizer.toml");
        std::fs::write(&path, text).expect("the file is written");
        BrokerConfig::load(Some(&path), overrides)
    }

    fn flag(name: &'static str, value: &str) -> Override {
        Override { name, flag: "--flag", value: value.to_owned() }
    }

    #[test]
    fn without_a_file_it_listens_on_loopback_and_keeps_data_beside_it() {
        let config = BrokerConfig::default();
        assert_eq!(config.listeners[0].host_port(), "127.0.0.1:9092");
        assert_eq!(config.admin_listen.host_port(), "127.0.0.1:9644");
        assert_eq!(config.log_dirs, [PathBuf::from("./data")]);
        assert_eq!((config.node_id, config.cores, config.raft_groups), (1, None, 64));
        assert_eq!(config.offsets_retention_ms, 7 * 24 * 3_600_000);
        assert_eq!(BrokerConfig::load(None, &[]), Ok(config));
    }

    #[test]
    fn the_reserve_of_the_disk_grows_with_what_may_be_unwritten_unless_it_is_set() {
        let reserve = |settings: &[(&str, &str)], cores| {
            BrokerConfig::from_settings(settings.iter().copied()).expect("valid").disk_reserve(cores)
        };
        assert_eq!(reserve(&[], 1), 64 << 20);
        assert_eq!(reserve(&[], 8), 256 << 20);
        assert_eq!(reserve(&[("heizer.disk.reserve.bytes", "0")], 8), 0);
        assert_eq!(reserve(&[("heizer.disk.reserve.bytes", "1048576")], 8), 1 << 20);
    }

    #[test]
    fn the_command_line_goes_before_the_file_which_goes_before_defaults() {
        let text = "\"node.id\" = 5\nlog.dirs = '/srv/heizer'\n[heizer]\ncores = 3\n[num]\npartitions = 4\n";
        let config = load(text, &[flag("node.id", "6")]).expect("valid");
        assert_eq!((config.node_id, config.cores, config.num_partitions), (6, Some(3), 4));
        assert_eq!(config.log_dirs, [PathBuf::from("/srv/heizer")]);
        assert_eq!(config.fetch_sessions_max, 1_000);
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line_with_file_name_value_and_what_is_allowed() {
        let table = [
            (
                "num.partitions = 0",
                "heizer.toml: num.partitions cannot be `0`; allowed: a whole number, at least 1",
            ),
            ("num.partitions = 'many'", "num.partitions cannot be `many`; allowed: a whole number"),
            ("num.partitions = true", "num.partitions cannot be `true`"),
            ("num.partition = 1", "num.partition is not a setting; did you mean num.partitions?"),
            ("frobnicate = 1", "heizer.toml: frobnicate is not a setting"),
            (
                "retention.ms = 1",
                "retention.ms is not a setting; a topic's retention.ms has its broker-wide default",
            ),
            ("node.id = 1\nnode.id = 2", "heizer.toml:2: not TOML"),
            ("node.id = 1.5", "node.id cannot be `1.5`"),
            ("listeners = 'SSL://h:1'", "listener SSL would need TLS"),
            ("listeners = '0.0.0.0:9092'", "--advertise HOST:PORT"),
            ("listeners = '0.0.0.0:9092'\nadvertised.listeners = '0.0.0.0:1'", "clients can connect to"),
            ("advertised.listeners = 'OTHER://h:1'", "names out of listeners"),
            (
                "log.dirs = ['/a', '/b', '/a/']",
                "log.dirs cannot be `/a` and `/a/`; allowed: directories that are not the same",
            ),
            ("log.dirs = '/a/b/../c,/a'", "log.dirs cannot be `/a` and `/a/b/../c`"),
            ("log.dirs = ','", "log.dirs cannot be `,`; allowed: at least one directory"),
            (
                "log.dirs = '/a,/b'\nmetadata.log.dir = '/c'",
                "metadata.log.dir cannot be `/c`; allowed: one of log.dirs",
            ),
            ("heizer.admin.listen = 'A://a:1,B://b:2'", "allowed: one HOST:PORT"),
            ("group.min.session.timeout.ms = 9000000", "at most group.max.session.timeout.ms"),
            (
                "log.cleaner.min.compaction.lag.ms = 9\nlog.cleaner.max.compaction.lag.ms = 8",
                "log.cleaner.min.compaction.lag.ms cannot be `9`; allowed: at most log.cleaner.max.compaction.lag.ms",
            ),
        ];
        for (text, expected) in table {
            let error = load(text, &[]).expect_err(text).to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
        let error = BrokerConfig::load(None, &[flag("node.id", "-1")]).expect_err("negative");
        assert_eq!(error.to_string(), "--flag: node.id cannot be `-1`; allowed: a whole number, at least 0");
        let error = BrokerConfig::load(Some(Path::new("/no/such.toml")), &[]).expect_err("missing");
        assert!(error.to_string().starts_with("/no/such.toml: No such file"), "{error}");
    }

    #[test]
    fn data_is_spread_over_several_directories_one_of_which_has_the_metadata() {
        let dirs = |text: &str| {
            let config = load(text, &[]).expect(text);
            let names =
                config.log_dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" ");
            (names, config.metadata_log_dir)
        };
        assert_eq!(dirs("log.dirs = '/a, /b,/ab'"), ("/a /b /ab".to_owned(), 0));
        assert_eq!(dirs("log.dirs = ['/a', '/b']\nmetadata.log.dir = '/b/'"), ("/a /b".to_owned(), 1));
        assert_eq!(dirs("log.dir = '/x'"), ("/x".to_owned(), 0));
        assert_eq!(dirs("log.dir = '/x'\nlog.dirs = '/y'"), ("/y".to_owned(), 0));
    }

    #[test]
    fn what_is_set_at_run_time_holds_as_far_as_it_may() {
        let file = BrokerConfig::from_settings([("max.connections", "5"), ("node.id", "3")]).expect("valid");
        let cluster = [("max.connections", "6"), ("node.id", "9"), ("log.retention.ms", "soon")];
        let (config, refused) = file.with_dynamic(cluster, [("max.connections.per.ip", "2")]);
        assert_eq!((config.max_connections, config.max_connections_per_ip, config.node_id), (6, 2, 3));
        let names: Vec<_> = refused.iter().map(|error| error.name.as_str()).collect();
        assert_eq!(names, ["node.id", "log.retention.ms"]);
        let (config, _) = config.with_dynamic([], []);
        assert_eq!(config, file, "nothing is left of it");
    }

    #[test]
    fn clients_are_told_the_bound_port_unless_something_is_advertised() {
        let bound: SocketAddr = "127.0.0.1:45678".parse().expect("an address");
        let config = BrokerConfig::from_settings([("listeners", "localhost:0")]).expect("valid");
        assert_eq!(config.advertised("PLAINTEXT", bound).host_port(), "localhost:45678");
        let settings = [("listeners", "0.0.0.0:0"), ("advertised.listeners", "broker.example:9092")];
        let config = BrokerConfig::from_settings(settings).expect("valid");
        assert_eq!(config.advertised("PLAINTEXT", bound).host_port(), "broker.example:9092");
    }
}
