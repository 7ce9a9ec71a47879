//! Every setting there is, sorted by subject.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::definition::{ConfigDef, Kind, Scope, Synonym, UpdateMode};

/// The definition of a setting, if there is one of that name.
pub fn definition(name: &str) -> Option<&'static ConfigDef> {
    // Settings of thousands of topics are read through this one after the other.
    static BY_NAME: LazyLock<BTreeMap<&'static str, &'static ConfigDef>> =
        LazyLock::new(|| DEFINITIONS.iter().map(|def| (def.name, def)).collect());
    BY_NAME.get(name).copied()
}

const ANY_LONG: Kind = Kind::Long(i64::MIN, i64::MAX);
const LONG_MAX: &str = "9223372036854775807";
const INT_MAX: &str = "2147483647";
const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

const fn int(min: i32) -> Kind {
    Kind::Int(min, i32::MAX)
}

const fn long(min: i64) -> Kind {
    Kind::Long(min, i64::MAX)
}

const fn one(name: &'static str) -> Synonym {
    Synonym { name, scale: 1 }
}

const fn times(name: &'static str, scale: i64) -> Synonym {
    Synonym { name, scale }
}

/// A setting of the broker alone.
const fn broker(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> ConfigDef {
    ConfigDef { default: Some(default), ..unset(name, kind, doc) }
}

/// A setting of the broker that is unset unless somebody sets it.
const fn unset(name: &'static str, kind: Kind, doc: &'static str) -> ConfigDef {
    let (scope, update_mode) = (Scope::Broker, UpdateMode::ReadOnly);
    ConfigDef { name, scope, kind, update_mode, default: None, doc, synonyms: &[] }
}

/// A topic's setting; its synonyms give the default.
const fn topic(name: &'static str, kind: Kind, synonyms: &'static [Synonym], doc: &'static str) -> ConfigDef {
    let (scope, update_mode) = (Scope::Topic, UpdateMode::ClusterWide);
    ConfigDef { name, scope, kind, update_mode, default: None, doc, synonyms }
}

/// A setting of one name for broker and topic.
const fn both(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    synonyms: &'static [Synonym],
    doc: &'static str,
) -> ConfigDef {
    let (scope, update_mode) = (Scope::Both, UpdateMode::ClusterWide);
    ConfigDef { name, scope, kind, update_mode, default: Some(default), doc, synonyms }
}

/// A setting of the broker that changes at any time, for all brokers or for one.
const fn dynamic(def: ConfigDef) -> ConfigDef {
    ConfigDef { update_mode: UpdateMode::ClusterWide, ..def }
}

/// A setting of the broker that changes at any time, for one broker.
const fn per_broker(def: ConfigDef) -> ConfigDef {
    ConfigDef { update_mode: UpdateMode::PerBroker, ..def }
}

/// All settings.
pub static DEFINITIONS: &[ConfigDef] = &[
    // The broker itself.
    broker("node.id", int(0), "1", "The number of this broker in its cluster."),
    broker(
        "listeners",
        Kind::Endpoints,
        "PLAINTEXT://127.0.0.1:9092",
        "Where to listen for clients. Port 0 takes a free one.",
    ),
    unset(
        "advertised.listeners",
        Kind::Endpoints,
        "Where clients are told to connect; unset: where the broker listens. Needed with 0.0.0.0, to which nobody \
         can connect.",
    ),
    broker(
        "log.dirs",
        Kind::Text,
        "./data",
        "The directories that hold the logs, separated by commas. New partitions go where most space is free.",
    ),
    unset("log.dir", Kind::Text, "What log.dirs is where that is not set."),
    unset(
        "metadata.log.dir",
        Kind::Text,
        "The one of log.dirs that holds the cluster's metadata and is indispensable; unset: the first.",
    ),
    dynamic(broker(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        long(1),
        "67108864",
        "Bytes a second that each core copies at most while it moves partitions between its directories.",
    )),
    // Cores, memory, raft, the admin listener.
    broker(
        "heizer.cores",
        Kind::Int(0, 1_024),
        "0",
        "How many cores to run on, a thread and a share of the partitions each; 0: every core the process may use.",
    ),
    broker(
        "heizer.spin.us",
        Kind::Int(0, 1_000_000),
        "0",
        "Microseconds an idle core spins before it sleeps. Lowers latency by some 20 µs and costs a whole CPU per core.",
    ),
    broker(
        "heizer.memory.per.core.bytes",
        Kind::Long(16 << 20, 1 << 40),
        "67108864",
        "Memory of each core: half for requests on their way, a quarter for answers to fetches, a quarter for the tails of logs. No request may be larger than a quarter.",
    ),
    broker(
        "heizer.raft.groups",
        Kind::Int(1, 4_096),
        "64",
        "Shard groups that partitions are spread over. Fixed when the cluster is created: another value is refused.",
    ),
    broker(
        "heizer.admin.listen",
        Kind::Endpoints,
        "127.0.0.1:9644",
        "Where /healthz, /readyz and /metrics are served over HTTP.",
    ),
    broker(
        "heizer.metrics.topics.max",
        Kind::Int(0, 1_000_000),
        "1000",
        "Topics that /metrics shows by name; the others are added up.",
    ),
    broker(
        "heizer.metrics.partitions.max",
        Kind::Int(0, 10_000_000),
        "1000",
        "Partitions whose offsets /metrics shows; all of a topic or none.",
    ),
    broker(
        "heizer.metrics.groups.max",
        Kind::Int(0, 1_000_000),
        "1000",
        "Consumer groups that /metrics shows by name.",
    ),
    broker(
        "heizer.metrics.lags.max",
        Kind::Int(0, 10_000_000),
        "10000",
        "Partitions of consumer groups whose lag /metrics shows; all of a group or none.",
    ),
    per_broker(broker(
        "heizer.disk.reserve.bytes",
        Kind::Long(-1, 1 << 50),
        "-1",
        "Free space that producers leave in every data directory: below it their requests are refused with \
         KAFKA_STORAGE_ERROR until there is more again, while reading, deleting and committing offsets go on. Never \
         more than a quarter of the file system. -1: 64 MiB, or half of the memory of all cores where that is more; \
         0: only a disk that is full refuses.",
    )),
    // Connections and requests.
    broker(
        "socket.request.max.bytes",
        int(1),
        "104857600",
        "The largest request. A client that announces a larger one is disconnected.",
    ),
    dynamic(broker(
        "max.connections",
        int(0),
        INT_MAX,
        "Connections to the broker at a time; more are closed at once.",
    )),
    dynamic(broker(
        "max.connections.per.ip",
        int(0),
        INT_MAX,
        "Connections from one address at a time; more are closed at once.",
    )),
    broker(
        "connections.max.idle.ms",
        ANY_LONG,
        "600000",
        "A connection without a request for so long is closed; negative: never.",
    ),
    broker(
        "fetch.max.bytes",
        int(1_024),
        "57671680",
        "The most one Fetch response carries, whatever the client asks for.",
    ),
    broker(
        "max.request.partition.size.limit",
        int(1),
        "2000",
        "The most partitions that one DescribeTopicPartitions response carries, whatever the client asks for.",
    ),
    broker(
        "max.incremental.fetch.session.cache.slots",
        int(0),
        "1000",
        "Fetch sessions that are remembered. Clients without one name all their partitions in every request.",
    ),
    // Topics.
    broker(
        "auto.create.topics.enable",
        Kind::Bool,
        "true",
        "Whether a topic that a client asks for and that is not there is created.",
    ),
    broker("num.partitions", int(1), "1", "Partitions of a topic that is created without a number of them."),
    broker(
        "default.replication.factor",
        Kind::Int(1, i16::MAX as i32),
        "1",
        "Replicas of a topic that is created without a number of them.",
    ),
    both(
        "min.insync.replicas",
        int(1),
        "1",
        &[one("min.insync.replicas")],
        "With acks=all: how many in-sync replicas there must be for a write to be accepted.",
    ),
    both(
        "unclean.leader.election.enable",
        Kind::Bool,
        "false",
        &[one("unclean.leader.election.enable")],
        "Whether a replica that may lack acknowledged records can become leader when no other is left.",
    ),
    // What a log takes.
    dynamic(broker("message.max.bytes", int(0), "1048588", "Broker default of max.message.bytes.")),
    topic(
        "max.message.bytes",
        int(0),
        &[one("message.max.bytes")],
        "The largest record batch, after compression.",
    ),
    both(
        "compression.type",
        Kind::OneOf(&["producer"]),
        "producer",
        &[one("compression.type")],
        "How batches are stored: as the producer compressed them. Other values are not supported yet.",
    ),
    both(
        "compression.gzip.level",
        Kind::Int(-1, 9),
        "-1",
        &[one("compression.gzip.level")],
        "Accepted for compatibility. Batches stay as the producer compressed them.",
    ),
    both(
        "compression.lz4.level",
        Kind::Int(1, 17),
        "9",
        &[one("compression.lz4.level")],
        "Accepted for compatibility. Batches stay as the producer compressed them.",
    ),
    both(
        "compression.zstd.level",
        Kind::Int(-131_072, 22),
        "3",
        &[one("compression.zstd.level")],
        "Accepted for compatibility. Batches stay as the producer compressed them.",
    ),
    dynamic(broker(
        "log.message.timestamp.type",
        TIMESTAMP_TYPE,
        "CreateTime",
        "Broker default of message.timestamp.type.",
    )),
    topic(
        "message.timestamp.type",
        TIMESTAMP_TYPE,
        &[one("log.message.timestamp.type")],
        "Whether a record keeps its producer's timestamp or gets that of its arrival.",
    ),
    dynamic(broker(
        "log.message.timestamp.before.max.ms",
        long(0),
        LONG_MAX,
        "Broker default of message.timestamp.before.max.ms.",
    )),
    topic(
        "message.timestamp.before.max.ms",
        long(0),
        &[one("log.message.timestamp.before.max.ms")],
        "How far a producer's timestamp may lie before the broker's clock.",
    ),
    dynamic(broker(
        "log.message.timestamp.after.max.ms",
        long(0),
        "3600000",
        "Broker default of message.timestamp.after.max.ms.",
    )),
    topic(
        "message.timestamp.after.max.ms",
        long(0),
        &[one("log.message.timestamp.after.max.ms")],
        "How far a producer's timestamp may lie after the broker's clock.",
    ),
    dynamic(broker(
        "producer.id.expiration.ms",
        int(1),
        "86400000",
        "How long a partition remembers an idempotent producer that sends nothing.",
    )),
    // Segments.
    dynamic(broker("log.segment.bytes", SEGMENT_BYTES, "1073741824", "Broker default of segment.bytes.")),
    topic(
        "segment.bytes",
        SEGMENT_BYTES,
        &[one("log.segment.bytes")],
        "The largest a segment of the log grows.",
    ),
    dynamic(unset("log.roll.ms", long(1), "Broker default of segment.ms.")),
    broker(
        "log.roll.hours",
        int(1),
        "168",
        "Broker default of segment.ms, in hours; log.roll.ms goes before it.",
    ),
    topic(
        "segment.ms",
        long(1),
        &[one("log.roll.ms"), times("log.roll.hours", HOUR_MS)],
        "A segment older than this is closed even if it is not full, so that retention can remove it.",
    ),
    dynamic(unset("log.roll.jitter.ms", long(0), "Broker default of segment.jitter.ms.")),
    broker(
        "log.roll.jitter.hours",
        int(0),
        "0",
        "Broker default of segment.jitter.ms, in hours; log.roll.jitter.ms goes before it.",
    ),
    topic(
        "segment.jitter.ms",
        long(0),
        &[one("log.roll.jitter.ms"), times("log.roll.jitter.hours", HOUR_MS)],
        "At most so much is taken off segment.ms, by chance, lest all segments roll at once.",
    ),
    dynamic(broker("log.index.size.max.bytes", int(4), "10485760", "Broker default of segment.index.bytes.")),
    topic(
        "segment.index.bytes",
        int(4),
        &[one("log.index.size.max.bytes")],
        "The largest a segment's index grows; a full one closes the segment.",
    ),
    dynamic(broker("log.index.interval.bytes", int(0), "4096", "Broker default of index.interval.bytes.")),
    topic(
        "index.interval.bytes",
        int(0),
        &[one("log.index.interval.bytes")],
        "About one index entry is written per so many bytes of log.",
    ),
    dynamic(broker("log.preallocate", Kind::Bool, "false", "Broker default of preallocate.")),
    topic(
        "preallocate",
        Kind::Bool,
        &[one("log.preallocate")],
        "Accepted for compatibility. Space is always reserved ahead of the log's end, in steps.",
    ),
    dynamic(broker(
        "log.segment.delete.delay.ms",
        long(0),
        "60000",
        "Broker default of file.delete.delay.ms.",
    )),
    topic(
        "file.delete.delay.ms",
        long(0),
        &[one("log.segment.delete.delay.ms")],
        "Accepted for Kafka's sake: the files of a removed segment go at once.",
    ),
    // Retention and compaction.
    dynamic(unset("log.retention.ms", long(-1), "Broker default of retention.ms.")),
    unset(
        "log.retention.minutes",
        int(-1),
        "Broker default of retention.ms, in minutes; log.retention.ms goes before it.",
    ),
    broker(
        "log.retention.hours",
        int(-1),
        "168",
        "Broker default of retention.ms, in hours; log.retention.minutes goes before it.",
    ),
    topic(
        "retention.ms",
        long(-1),
        &[
            one("log.retention.ms"),
            times("log.retention.minutes", MINUTE_MS),
            times("log.retention.hours", HOUR_MS),
        ],
        "Under the policy delete: records older than this are removed, a segment at a time; -1: age removes nothing.",
    ),
    dynamic(broker("log.retention.bytes", ANY_LONG, "-1", "Broker default of retention.bytes.")),
    topic(
        "retention.bytes",
        ANY_LONG,
        &[one("log.retention.bytes")],
        "Under the policy delete: the oldest segments of a partition beyond this size are removed; negative: size \
         removes nothing.",
    ),
    broker(
        "log.retention.check.interval.ms",
        long(1),
        "300000",
        "How often logs are looked at for what to remove.",
    ),
    dynamic(broker("log.cleanup.policy", CLEANUP_POLICY, "delete", "Broker default of cleanup.policy.")),
    topic(
        "cleanup.policy",
        CLEANUP_POLICY,
        &[one("log.cleanup.policy")],
        "What becomes of old records: delete removes them by age and size, compact keeps the last of each key.",
    ),
    broker(
        "log.cleaner.enable",
        Kind::Bool,
        "true",
        "Whether logs of the policy compact are compacted at all.",
    ),
    dynamic(broker(
        "log.cleaner.dedupe.buffer.size",
        long(1 << 20),
        "134217728",
        "Memory for the keys of logs that are being compacted, shared out over the cores. A core takes no more than an \
         eighth of heizer.memory.per.core.bytes; a log with more keys takes several rounds.",
    )),
    dynamic(broker(
        "log.cleaner.backoff.ms",
        long(0),
        "15000",
        "How long the cleaner of a core waits when no log is in need of it.",
    )),
    dynamic(broker(
        "log.cleaner.io.max.bytes.per.second",
        Kind::Double(1.0, f64::MAX),
        "1.7976931348623157E308",
        "Bytes that the cleaners of all cores together read and write in a second.",
    )),
    dynamic(broker(
        "log.cleaner.delete.retention.ms",
        long(0),
        "86400000",
        "Broker default of delete.retention.ms.",
    )),
    topic(
        "delete.retention.ms",
        long(0),
        &[one("log.cleaner.delete.retention.ms")],
        "Under the policy compact: how long the mark of a deleted key is kept.",
    ),
    dynamic(broker(
        "log.cleaner.min.compaction.lag.ms",
        long(0),
        "0",
        "Broker default of min.compaction.lag.ms.",
    )),
    topic(
        "min.compaction.lag.ms",
        long(0),
        &[one("log.cleaner.min.compaction.lag.ms")],
        "Under the policy compact: a record stays as it is for at least this long.",
    ),
    dynamic(broker(
        "log.cleaner.max.compaction.lag.ms",
        long(1),
        LONG_MAX,
        "Broker default of max.compaction.lag.ms.",
    )),
    topic(
        "max.compaction.lag.ms",
        long(1),
        &[one("log.cleaner.max.compaction.lag.ms")],
        "Under the policy compact: a record stays as it is for at most this long.",
    ),
    dynamic(broker(
        "log.cleaner.min.cleanable.ratio",
        Kind::Double(0.0, 1.0),
        "0.5",
        "Broker default of min.cleanable.dirty.ratio.",
    )),
    topic(
        "min.cleanable.dirty.ratio",
        Kind::Double(0.0, 1.0),
        &[one("log.cleaner.min.cleanable.ratio")],
        "Under the policy compact: the share of a log that must be new before it is compacted.",
    ),
    // Durability.
    both(
        "heizer.durability",
        Kind::OneOf(&["durable", "written", "memory"]),
        "durable",
        &[one("heizer.durability")],
        "When a record counts as written: durable, on stable storage; written, accepted by the device; memory, in this \
         process. Where it is set it goes before flush.messages and flush.ms.",
    ),
    dynamic(broker("log.flush.interval.messages", long(1), LONG_MAX, "Broker default of flush.messages.")),
    topic(
        "flush.messages",
        long(1),
        &[one("log.flush.interval.messages")],
        "1: every record is durable before it is acknowledged, as without it. Larger values say nothing here.",
    ),
    dynamic(unset("log.flush.interval.ms", long(0), "Broker default of flush.ms.")),
    broker(
        "log.flush.scheduler.interval.ms",
        long(0),
        LONG_MAX,
        "Broker default of flush.ms where log.flush.interval.ms is unset.",
    ),
    topic(
        "flush.ms",
        long(0),
        &[one("log.flush.interval.ms"), one("log.flush.scheduler.interval.ms")],
        "When set: records count once the device has accepted them, and are on stable storage within this time.",
    ),
    // Consumer groups.
    broker(
        "offsets.topic.num.partitions",
        int(1),
        "50",
        "Partitions of __consumer_offsets, when it is created.",
    ),
    broker("offsets.topic.segment.bytes", SEGMENT_BYTES, "104857600", "segment.bytes of __consumer_offsets."),
    broker(
        "offsets.topic.replication.factor",
        Kind::Int(1, i16::MAX as i32),
        "3",
        "Replicas of __consumer_offsets, when it is created; as many as there are brokers if those are fewer.",
    ),
    broker(
        "offsets.retention.minutes",
        int(1),
        "10080",
        "How long the offsets of a group without members are kept.",
    ),
    broker(
        "offsets.retention.check.interval.ms",
        long(1),
        "600000",
        "How often committed offsets are looked at for what has expired.",
    ),
    broker(
        "offset.metadata.max.bytes",
        int(0),
        "4096",
        "The longest note a consumer may commit with an offset.",
    ),
    broker(
        "group.min.session.timeout.ms",
        int(0),
        "6000",
        "The shortest session timeout a member may ask for.",
    ),
    broker(
        "group.max.session.timeout.ms",
        int(0),
        "1800000",
        "The longest session timeout a member may ask for.",
    ),
    broker("group.max.size", int(1), INT_MAX, "Members of one group."),
    broker(
        "group.initial.rebalance.delay.ms",
        int(0),
        "0",
        "How long an empty group waits for more members after the first. Kafka's default is 3000; here it is 0, so that \
         a single consumer starts at once.",
    ),
];

const TIMESTAMP_TYPE: Kind = Kind::OneOf(&["CreateTime", "LogAppendTime"]);
const CLEANUP_POLICY: Kind = Kind::ListOf(&["delete", "compact"]);
/// Kafka's smallest segment since 4.0 (KIP-1030).
const SEGMENT_BYTES: Kind = Kind::Int(1 << 20, i32::MAX);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_default_parses_within_its_own_range() {
        for def in DEFINITIONS {
            if let Some(default) = def.default {
                let value = def.parse(default).unwrap_or_else(|reason| panic!("{}: {reason}", def.name));
                assert_eq!(def.parse(&value.to_string()), Ok(value), "{} survives a round trip", def.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_explained() {
        let names: BTreeSet<&str> = DEFINITIONS.iter().map(|def| def.name).collect();
        assert_eq!(names.len(), DEFINITIONS.len());
        assert!(DEFINITIONS.iter().all(|def| def.doc.ends_with('.')));
    }

    /// What was set at run time goes before the file whatever its name: so only the strongest name can be set then.
    #[test]
    fn of_the_names_that_a_topics_default_has_the_strongest_changes_at_run_time_and_no_other() {
        for def in DEFINITIONS.iter().filter(|def| def.scope.of_topic()) {
            let modes: Vec<_> =
                def.synonyms.iter().map(|s| definition(s.name).map(|def| def.update_mode)).collect();
            assert_eq!(modes[0], Some(UpdateMode::ClusterWide), "{}", def.name);
            assert!(modes[1..].iter().all(|mode| *mode == Some(UpdateMode::ReadOnly)), "{}", def.name);
        }
    }

    #[test]
    fn every_topic_setting_gets_a_default_of_its_own_kind_from_the_broker() {
        for def in DEFINITIONS.iter().filter(|def| def.scope.of_topic()) {
            let last = def.synonyms.last().unwrap_or_else(|| panic!("{} has a synonym", def.name));
            for synonym in def.synonyms {
                let broker = definition(synonym.name).unwrap_or_else(|| panic!("{}", synonym.name));
                assert!(broker.scope.of_broker(), "{}", synonym.name);
                assert_eq!(broker.default.is_some(), synonym == last, "only the last one has a default");
                if let Some(default) = broker.default {
                    let value = broker.parse(default).expect("defaults parse").scaled(synonym.scale);
                    assert_eq!(
                        def.parse(&value.to_string()),
                        Ok(value),
                        "{} from {}",
                        def.name,
                        synonym.name
                    );
                }
            }
        }
    }
}
