//! Workload files: what is produced and consumed, for how long.
//!
//! Every key that a file leaves out has the default that is written here; a key that nobody knows, or a value that
//! cannot be, is refused with the name of the file and of the key.

use std::collections::BTreeMap;

use heizer_client::Acks;
use heizer_wire::record_batch::Compression;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::failure::Failure;
use crate::value::VALUE_BYTES_MIN;

/// The largest value of a record; brokers take a MiB by default.
const RECORD_BYTES_MAX: usize = 64 << 20;
const PARTITIONS_MAX: usize = 100_000;
const CLIENTS_MAX: usize = 20_000;

/// A workload file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) description: String,
    /// Load that is not measured yet, in front of the window.
    pub(crate) warmup_s: f64,
    /// The measured window; 0: until the consumers with `until = "end"` are done.
    pub(crate) measure_s: f64,
    /// The longest that the backlog, a window without length and the reading after the window may take, each.
    pub(crate) limit_s: f64,
    pub(crate) topic: Topic,
    pub(crate) backlog: Option<Backlog>,
    pub(crate) producers: Vec<Producers>,
    pub(crate) consumers: Vec<Consumers>,
}

/// The topics, all alike.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Topic {
    /// The topic's name; with several topics, they are `name-0`, `name-1` and so on.
    pub(crate) name: String,
    pub(crate) topics: usize,
    /// Of each topic.
    pub(crate) partitions: usize,
    pub(crate) replication_factor: i16,
    /// Settings for the creation.
    pub(crate) config: BTreeMap<String, String>,
}

impl Default for Topic {
    fn default() -> Topic {
        let config = BTreeMap::new();
        Topic { name: String::new(), topics: 1, partitions: 1, replication_factor: 1, config }
    }
}

impl Topic {
    /// Whether compaction may take records away, so that offsets and sequences have gaps.
    pub(crate) fn is_compacted(&self) -> bool {
        self.config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"))
    }
}

/// What is in the topics before anything is measured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backlog {
    /// Of record values, over all partitions.
    pub(crate) bytes: u64,
    /// 0: as the first group of producers.
    pub(crate) record_bytes: usize,
    /// 0: as the first group of producers.
    pub(crate) batch_bytes: usize,
}

/// A group of alike producers, each with a connection of its own.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Producers {
    pub(crate) count: usize,
    pub(crate) acks: AcksSetting,
    pub(crate) idempotence: bool,
    /// Of the value of a record.
    pub(crate) record_bytes: usize,
    /// Of the values in a batch: every batch in a closed loop is this large, in an open loop none is larger. A
    /// batch has at least one record.
    pub(crate) batch_bytes: usize,
    /// How long a batch of an open loop may wait for more records.
    pub(crate) linger_ms: f64,
    pub(crate) compression: Codec,
    /// The share of each value that no compression makes smaller.
    pub(crate) random_fraction: f64,
    /// Distinct keys; 0: records have none.
    pub(crate) keys: usize,
    /// Requests under way per producer.
    pub(crate) in_flight: usize,
    /// Records a second of the whole group on a fixed schedule (open loop); 0: as fast as answers come (closed loop).
    pub(crate) rate: f64,
    pub(crate) partitions: Spread,
}

impl Default for Producers {
    fn default() -> Producers {
        Producers {
            count: 1,
            acks: AcksSetting::All,
            idempotence: false,
            record_bytes: 1024,
            batch_bytes: 16_384,
            linger_ms: 0.0,
            compression: Codec::None,
            random_fraction: 1.0,
            keys: 0,
            in_flight: 1,
            rate: 0.0,
            partitions: Spread::Spread,
        }
    }
}

/// A group of alike consumers, each with a connection of its own.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Consumers {
    pub(crate) count: usize,
    /// The consumer group that they are members of; empty: partitions are assigned by hand.
    pub(crate) group: String,
    /// Who reads which partitions when they are assigned by hand.
    pub(crate) assign: Spread,
    pub(crate) from: Begin,
    /// With `from = "replay"`: how much of each partition is read again and again.
    pub(crate) replay_bytes: u64,
    pub(crate) until: Until,
    pub(crate) fetch_min_bytes: i32,
    pub(crate) fetch_max_wait_ms: u32,
    pub(crate) fetch_max_bytes: i32,
    pub(crate) partition_max_bytes: i32,
}

impl Default for Consumers {
    fn default() -> Consumers {
        Consumers {
            count: 1,
            group: String::new(),
            assign: Spread::All,
            from: Begin::End,
            replay_bytes: 8_000_000,
            until: Until::Stopped,
            fetch_min_bytes: 1,
            fetch_max_wait_ms: 500,
            fetch_max_bytes: 52_428_800,
            partition_max_bytes: 1_048_576,
        }
    }
}

/// What a producer waits for. A number may be written as one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "Value", into = "&'static str")]
pub(crate) enum AcksSetting {
    All,
    Leader,
    None,
}

impl TryFrom<Value> for AcksSetting {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<AcksSetting, &'static str> {
        match (value.as_str(), value.as_integer()) {
            (Some("all" | "-1"), _) | (_, Some(-1)) => Ok(AcksSetting::All),
            (Some("1"), _) | (_, Some(1)) => Ok(AcksSetting::Leader),
            (Some("0"), _) | (_, Some(0)) => Ok(AcksSetting::None),
            _ => Err("acks is \"all\", \"1\" or \"0\""),
        }
    }
}

impl From<AcksSetting> for &'static str {
    fn from(acks: AcksSetting) -> &'static str {
        match acks {
            AcksSetting::All => "all",
            AcksSetting::Leader => "1",
            AcksSetting::None => "0",
        }
    }
}

impl AcksSetting {
    /// As the client names it.
    pub(crate) fn acks(self) -> Acks {
        match self {
            AcksSetting::All => Acks::All,
            AcksSetting::Leader => Acks::Leader,
            AcksSetting::None => Acks::None,
        }
    }
}

/// A compression by its name.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// As batches name it.
    pub(crate) fn compression(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

/// How clients share the partitions of all topics.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Spread {
    /// Client i has partition i modulo their number, and no other.
    Spread,
    /// Every client has all of them.
    All,
}

/// Where consumers begin.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Begin {
    /// Behind what is there.
    End,
    /// At the first record there is.
    Beginning,
    /// At the newest `replay_bytes` of each partition, again and again.
    Replay,
}

/// When consumers are done.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Until {
    /// At the end of the run.
    #[serde(rename = "")]
    Stopped,
    /// When they have what was there as the window began, which they begin to read only then (catch-up).
    #[serde(rename = "end")]
    End,
}

impl Workload {
    /// The workload in `text`, which came from `file`, with `overrides` (KEY=VALUE) in the place of what it says.
    pub(crate) fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Workload, Failure> {
        let refuse = |what: String| Failure::new(format!("{file}: {what}"));
        let mut table: Table =
            text.parse().map_err(|error: toml::de::Error| refuse(one_line(&error.to_string())))?;
        for assignment in overrides {
            set(&mut table, assignment)
                .map_err(|what| Failure::new(format!("--set {assignment}: {what}")))?;
        }
        let mut workload: Workload = Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| refuse(one_line(&error.to_string())))?;
        workload.fill_in();
        workload.check().map_err(|(key, what)| refuse(format!("{key}: {what}")))?;
        Ok(workload)
    }

    /// Defaults that depend on other keys.
    fn fill_in(&mut self) {
        if self.limit_s == 0.0 {
            self.limit_s = 120.0;
        }
        let first = self.producers.first().cloned().unwrap_or_default();
        if let Some(backlog) = &mut self.backlog {
            if backlog.record_bytes == 0 {
                backlog.record_bytes = first.record_bytes;
            }
            if backlog.batch_bytes == 0 {
                backlog.batch_bytes = first.batch_bytes;
            }
        }
    }

    fn check(&self) -> Result<(), (String, String)> {
        require(!self.name.is_empty(), "name", "is missing")?;
        require(!self.topic.name.is_empty(), "topic.name", "is missing")?;
        require(
            (1..=PARTITIONS_MAX).contains(&self.topic.topics),
            "topic.topics",
            "is not between 1 and 100000",
        )?;
        require(self.topic.partitions >= 1, "topic.partitions", "is not at least 1")?;
        require(self.places() <= PARTITIONS_MAX, "topic.partitions", "more than 100000 over all topics")?;
        require(self.topic.replication_factor >= 1, "topic.replication_factor", "is not at least 1")?;
        for (key, seconds) in
            [("warmup_s", self.warmup_s), ("measure_s", self.measure_s), ("limit_s", self.limit_s)]
        {
            require(
                (0.0..=1e6).contains(&seconds),
                key,
                "is not a number of seconds between 0 and a million",
            )?;
        }
        let catch_up = self.consumers.iter().any(|group| group.until == Until::End);
        require(
            self.measure_s > 0.0 || catch_up,
            "measure_s",
            "is 0, and no group of consumers has until = \"end\" to end the window",
        )?;
        require(
            !(self.producers.is_empty() && self.consumers.is_empty()),
            "producers",
            "there are neither producers nor consumers",
        )?;
        if let Some(backlog) = &self.backlog {
            check_record("backlog", backlog.record_bytes, backlog.batch_bytes)?;
        }
        for (at, group) in self.producers.iter().enumerate() {
            group.check(&format!("producers.{at}"), self.places())?;
        }
        for (at, group) in self.consumers.iter().enumerate() {
            group.check(&format!("consumers.{at}"), self)?;
        }
        Ok(())
    }

    /// Partitions of all topics.
    pub(crate) fn places(&self) -> usize {
        self.topic.topics.saturating_mul(self.topic.partitions)
    }
}

impl Producers {
    fn check(&self, at: &str, places: usize) -> Result<(), (String, String)> {
        let key = |name: &str| format!("{at}.{name}");
        require((1..=CLIENTS_MAX).contains(&self.count), &key("count"), "is not between 1 and 20000")?;
        check_record(at, self.record_bytes, self.batch_bytes)?;
        require((0.0..=60_000.0).contains(&self.linger_ms), &key("linger_ms"), "is not between 0 and 60000")?;
        require(
            (0.0..=1.0).contains(&self.random_fraction),
            &key("random_fraction"),
            "is not between 0 and 1",
        )?;
        require((1..=1000).contains(&self.in_flight), &key("in_flight"), "is not between 1 and 1000")?;
        require((0.0..=1e9).contains(&self.rate), &key("rate"), "is not between 0 and a billion")?;
        require(
            !self.idempotence || self.acks == AcksSetting::All,
            &key("idempotence"),
            "asks for acks = \"all\"",
        )?;
        require(
            !self.idempotence || self.in_flight <= 5,
            &key("in_flight"),
            "brokers keep five batches of an idempotent producer: not more than 5",
        )?;
        let keyed_alone = self.keys > 0 && self.partitions == Spread::Spread && places > 1;
        require(
            !keyed_alone,
            &key("keys"),
            "keys choose the partitions: say partitions = \"all\" with them",
        )?;
        require(self.keys <= 10_000_000, &key("keys"), "is more than ten million")
    }
}

impl Consumers {
    fn check(&self, at: &str, workload: &Workload) -> Result<(), (String, String)> {
        let key = |name: &str| format!("{at}.{name}");
        require((1..=CLIENTS_MAX).contains(&self.count), &key("count"), "is not between 1 and 20000")?;
        let replays = self.from == Begin::Replay;
        require(!replays || self.replay_bytes > 0, &key("replay_bytes"), "is 0")?;
        require(
            !replays || self.until == Until::Stopped,
            &key("until"),
            "what is read again and again has no end",
        )?;
        require(
            !(self.until == Until::End && self.from == Begin::End),
            &key("from"),
            "catching up begins elsewhere than at the end: say from = \"beginning\"",
        )?;
        let by_hand = self.group.is_empty();
        require(
            by_hand || (!replays && self.until == Until::Stopped),
            &key("group"),
            "members of a group neither replay nor end before the run does",
        )?;
        require(
            !replays || workload.backlog.is_some() || !workload.producers.is_empty(),
            &key("from"),
            "to replay, the size of records has to be known: give a [backlog]",
        )?;
        for (name, bytes) in
            [("fetch_max_bytes", self.fetch_max_bytes), ("partition_max_bytes", self.partition_max_bytes)]
        {
            require(bytes >= 1, &key(name), "is not at least 1")?;
        }
        require(self.fetch_min_bytes >= 0, &key("fetch_min_bytes"), "is negative")?;
        require(self.fetch_max_wait_ms <= 60_000, &key("fetch_max_wait_ms"), "is more than 60000")
    }
}

fn check_record(at: &str, record_bytes: usize, batch_bytes: usize) -> Result<(), (String, String)> {
    require(
        (VALUE_BYTES_MIN..=RECORD_BYTES_MAX).contains(&record_bytes),
        &format!("{at}.record_bytes"),
        &format!("{record_bytes} is not between {VALUE_BYTES_MIN} and {RECORD_BYTES_MAX}"),
    )?;
    require(
        (1..=RECORD_BYTES_MAX).contains(&batch_bytes),
        &format!("{at}.batch_bytes"),
        &format!("{batch_bytes} is not between 1 and {RECORD_BYTES_MAX}"),
    )
}

fn require(holds: bool, key: &str, otherwise: &str) -> Result<(), (String, String)> {
    if holds { Ok(()) } else { Err((key.to_owned(), otherwise.to_owned())) }
}

/// What the parser says, with its picture of the line left out.
fn one_line(error: &str) -> String {
    let said = error
        .lines()
        .filter(|line| !line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|'));
    said.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Puts the value of `KEY=VALUE` into its place. What is no TOML value is taken for a string.
fn set(table: &mut Table, assignment: &str) -> Result<(), String> {
    let (key, text) = assignment.split_once('=').ok_or("is not of the form KEY=VALUE")?;
    let parsed = format!("value = {text}").parse::<Table>();
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    let value = value.unwrap_or_else(|| Value::String(text.to_owned()));
    // A topic's settings have dots in their names.
    let mut steps: Vec<&str> = match key.strip_prefix("topic.config.") {
        Some(setting) => vec!["topic", "config", setting],
        None => key.split('.').collect(),
    };
    let last = steps.pop().filter(|last| !last.is_empty()).ok_or("the key is empty")?;
    let mut at = table;
    let mut steps = steps.into_iter();
    while let Some(step) = steps.next() {
        let next = at.entry(step).or_insert_with(|| Value::Table(Table::new()));
        at = match next {
            Value::Table(table) => table,
            Value::Array(groups) => {
                let index = steps.next().unwrap_or(last);
                let count = groups.len();
                let group = index.parse::<usize>().ok().and_then(|index| groups.get_mut(index));
                let none = || format!("{step} has {count} groups, and none is number {index}");
                group.ok_or_else(none)?.as_table_mut().ok_or_else(none)?
            }
            _ => return Err(format!("{step} is a value and has no keys")),
        };
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
