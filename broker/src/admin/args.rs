//! Verbs, flags, and their help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use heizer_client::{Acks, Compression};

use crate::config::Override;

const EXAMPLES: &str = "\
Examples:
  heizer serve                                          listen on 127.0.0.1:9092, keep data in ./data
  heizer serve --listen 0.0.0.0:9092 --advertise broker.example:9092 --data-dir /var/lib/heizer
  heizer topic create readings --partitions 5
  heizer topic describe readings
  echo 'sensor-1:21.5' | heizer produce readings --key-separator :
  heizer consume readings --from-beginning --print-key
  heizer consume readings --group dashboard             members of a group share the partitions

Any other Kafka client works as well. While the broker runs, http://127.0.0.1:9644 answers /healthz, /readyz and
/metrics. HEIZER_LOG says what is logged on standard error: error, warn, info, debug or trace.";

/// A broker for Apache Kafka's clients.
#[derive(Debug, Parser)]
#[command(name = "heizer", version, after_help = EXAMPLES, arg_required_else_help = true, args_override_self = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a broker.
    Serve(ServeArgs),
    /// Create, list, describe and delete topics.
    Topic(TopicArgs),
    /// Send each line of standard input as a record.
    Produce(ProduceArgs),
    /// Write records to standard output, one a line.
    Consume(ConsumeArgs),
    /// Look at the files of logs, with or without a broker: dump, verify, what recovery would do.
    Log(LogArgs),
}

/// Flags go before the configuration file, which goes before the defaults shown here.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Settings in TOML, under Kafka's names where Kafka has them.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where to listen for clients [default: 127.0.0.1:9092].
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where clients are told to connect, if not where the broker listens.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// A directory for data; several, separated by commas or by naming the flag again [default: ./data].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Vec<String>,
    /// The number of this broker in its cluster [default: 1].
    #[arg(long, value_name = "NUMBER")]
    node_id: Option<String>,
    /// How many cores to run on [default: all].
    #[arg(long, value_name = "NUMBER")]
    cores: Option<String>,
    /// Where /healthz, /readyz and /metrics are served [default: 127.0.0.1:9644].
    #[arg(long, value_name = "HOST:PORT")]
    admin_listen: Option<String>,
}

impl ServeArgs {
    /// The settings that were given as flags; their values are checked with all others.
    pub(super) fn overrides(&self) -> Vec<Override> {
        let data_dirs = (!self.data_dir.is_empty()).then(|| self.data_dir.join(","));
        [
            ("listeners", "--listen", &self.listen),
            ("advertised.listeners", "--advertise", &self.advertise),
            ("log.dirs", "--data-dir", &data_dirs),
            ("node.id", "--node-id", &self.node_id),
            ("heizer.cores", "--cores", &self.cores),
            ("heizer.admin.listen", "--admin-listen", &self.admin_listen),
        ]
        .into_iter()
        .filter_map(|(name, flag, value)| Some(Override { name, flag, value: value.clone()? }))
        .collect()
    }
}

/// Where the cluster is.
#[derive(Args, Clone, Debug)]
pub(super) struct Bootstrap {
    /// A broker of the cluster; several, separated by commas.
    #[arg(long, global = true, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap_server: String,
}

impl Bootstrap {
    pub(super) fn addresses(&self) -> Vec<String> {
        self.bootstrap_server.split(',').map(|addr| addr.trim().to_owned()).collect()
    }
}

#[derive(Args, Debug)]
pub(super) struct TopicArgs {
    #[command(subcommand)]
    pub(super) verb: TopicVerb,
    #[command(flatten)]
    pub(super) bootstrap: Bootstrap,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum TopicVerb {
    /// Create a topic.
    Create {
        /// Its name.
        name: String,
        /// How many partitions; the broker's num.partitions if not given.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// How many replicas; the broker's default.replication.factor if not given.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i16).range(1..))]
        replication_factor: Option<i16>,
        /// A setting of the topic, such as retention.ms=3600000; several times for several.
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// Leave a topic that is there as it is.
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Write the names of all topics.
    List {
        /// The cluster's own topics too.
        #[arg(long)]
        internal: bool,
    },
    /// Show the partitions of a topic, and the settings that differ from the defaults.
    Describe {
        /// Its name.
        name: String,
    },
    /// Delete a topic with all its records.
    Delete {
        /// Its name.
        name: String,
        /// A topic that isn't there is no error.
        #[arg(long)]
        if_exists: bool,
    },
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is not of the form NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[derive(Args, Clone, Debug)]
pub(super) struct ProduceArgs {
    /// The topic; a broker with auto.create.topics.enable creates it if need be.
    pub(super) topic: String,
    /// What stands between key and value; without it lines are values and records have no key.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(super) key_separator: Option<String>,
    /// The partition; by key, or any, if not given.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) partition: Option<i32>,
    /// Who has to have a record before it counts as sent.
    #[arg(long, value_enum, default_value_t = AcksArg::All, allow_negative_numbers = true)]
    pub(super) acks: AcksArg,
    /// How batches of records are compressed.
    #[arg(long, value_enum, default_value_t = CompressionArg::None)]
    pub(super) compression: CompressionArg,
    #[command(flatten)]
    pub(super) bootstrap: Bootstrap,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum AcksArg {
    /// Nobody: the broker does not answer.
    #[value(name = "0")]
    None,
    /// The partition's leader.
    #[value(name = "1")]
    Leader,
    /// All in-sync replicas.
    #[value(alias = "-1")]
    All,
}

impl From<AcksArg> for Acks {
    fn from(arg: AcksArg) -> Acks {
        match arg {
            AcksArg::None => Acks::None,
            AcksArg::Leader => Acks::Leader,
            AcksArg::All => Acks::All,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum CompressionArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Compression {
        match arg {
            CompressionArg::None => Compression::None,
            CompressionArg::Gzip => Compression::Gzip,
            CompressionArg::Snappy => Compression::Snappy,
            CompressionArg::Lz4 => Compression::Lz4,
            CompressionArg::Zstd => Compression::Zstd,
        }
    }
}

#[derive(Args, Clone, Debug)]
pub(super) struct ConsumeArgs {
    /// The topic.
    pub(super) topic: String,
    /// Start at the oldest records; in a group, where it has committed nothing yet.
    #[arg(long, conflicts_with = "offset")]
    pub(super) from_beginning: bool,
    /// Share the partitions with the other members of this group, and go on where the group stopped.
    #[arg(long, value_name = "NAME", conflicts_with = "partition")]
    pub(super) group: Option<String>,
    /// Only this partition.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) partition: Option<i32>,
    /// Start at this offset of the partition.
    #[arg(long, value_name = "NUMBER", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    pub(super) offset: Option<i64>,
    /// Stop after so many records.
    #[arg(long, value_name = "NUMBER")]
    pub(super) max_messages: Option<u64>,
    /// Stop when nothing has come for so many milliseconds.
    #[arg(long, value_name = "NUMBER")]
    pub(super) timeout_ms: Option<u64>,
    /// Write the key before the value.
    #[arg(long)]
    pub(super) print_key: bool,
    /// What to write between headers, key and value [default: a tab].
    #[arg(long, value_name = "TEXT", default_value = "\t", hide_default_value = true)]
    pub(super) key_separator: String,
    /// Write the headers before key and value.
    #[arg(long)]
    pub(super) print_headers: bool,
    #[command(flatten)]
    pub(super) bootstrap: Bootstrap,
}

const LOG_HELP: &str = "\
Nothing is written or locked, so all of this works while a broker runs (what lies at the very ends of its logs may then
be in motion), and on data directories of Apache Kafka.

PATH is a data directory (log.dirs), a partition's directory in it, or, for dump, a file:
  *.log *.index *.timeindex *.txnindex *.snapshot *.stream leader-epoch-checkpoint partition.metadata

Examples:
  heizer log verify /var/lib/heizer                     everything; exit code 0 clean, 1 damage, 2 not readable
  heizer log verify /var/lib/heizer --topic orders --partition 3
  heizer log dump /var/lib/heizer/orders-3 --records --from 1000 --to 1010
  heizer log dump 00000000000000000000.log --format json | head
  heizer log recover-dry-run /var/lib/heizer            what a start after a crash would scan, cut and keep

`verify` tells errors, which are damage, and notes, which are worth knowing and do no harm: reserved space, offsets that
compaction has taken. `recover-dry-run` exits with 1 if anything would be lost or refused.";

#[derive(Args, Clone, Debug)]
#[command(after_help = LOG_HELP)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    pub(super) verb: LogVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum LogVerb {
    /// Show what is in files: batches, records, index entries, producers.
    Dump(DumpArgs),
    /// Check everything that can be checked, a line for each finding.
    Verify(Which),
    /// Say what a start after an unclean stop would scan, where it would cut, and what would be lost.
    RecoverDryRun(Which),
}

/// What to look at.
#[derive(Args, Clone, Debug)]
pub(super) struct Which {
    /// A data directory, or a partition's directory.
    pub(super) path: PathBuf,
    /// Of a data directory only this topic.
    #[arg(long, value_name = "NAME")]
    pub(super) topic: Option<String>,
    /// Of the topic only this partition.
    #[arg(long, value_name = "NUMBER", requires = "topic", value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) partition: Option<i32>,
}

impl Which {
    /// Whether a partition is asked for.
    pub(super) fn wants(&self, topic: &str, partition: i32) -> bool {
        self.topic.as_ref().is_none_or(|wanted| wanted == topic)
            && self.partition.is_none_or(|wanted| wanted == partition)
    }
}

#[derive(Args, Clone, Debug)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    pub(super) which: Which,
    /// Show each record: offset, timestamp, key, size of the value, headers.
    #[arg(long)]
    pub(super) records: bool,
    /// Show each record with its value.
    #[arg(long)]
    pub(super) values: bool,
    /// Of segments only from this offset on.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub(super) from: Option<i64>,
    /// Of segments only up to this offset, without it.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub(super) to: Option<i64>,
    /// Lines of text, or an object of JSON a line.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(super) format: LogFormat,
    /// How keys are shown.
    #[arg(long, value_enum, default_value_t = BytesFormat::Text)]
    pub(super) key_format: BytesFormat,
    /// How values are shown, those of headers too.
    #[arg(long, value_enum, default_value_t = BytesFormat::Text)]
    pub(super) value_format: BytesFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BytesFormat {
    /// As UTF-8; what is not is replaced.
    Text,
    /// Two hexadecimal digits a byte.
    Hex,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::BrokerConfig;

    fn parse(line: &str) -> Result<Verb, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.verb)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_serve_become_settings() {
        let line = "heizer serve --listen 127.0.0.1:0 --data-dir /d --node-id 4 --cores 2 --admin-listen 127.0.0.1:0";
        let Ok(Verb::Serve(args)) = parse(line) else { panic!("{line}") };
        let config = BrokerConfig::load(None, &args.overrides()).expect("valid");
        assert_eq!((config.node_id, config.cores, config.listeners[0].port), (4, Some(2), 0));
        let Ok(Verb::Serve(args)) = parse("heizer serve --data-dir /a --data-dir /b,/c") else {
            panic!("several")
        };
        let config = BrokerConfig::load(None, &args.overrides()).expect("valid");
        assert_eq!(config.log_dirs, ["/a", "/b", "/c"].map(PathBuf::from));
        let Ok(Verb::Serve(args)) = parse("heizer serve --cores none") else { panic!("parsed later") };
        let error = BrokerConfig::load(None, &args.overrides()).expect_err("no number");
        assert!(error.to_string().starts_with("--cores: heizer.cores cannot be `none`"), "{error}");
    }

    #[test]
    fn topics_take_settings_and_the_address_on_either_side_of_the_verb() {
        let line =
            "heizer topic --bootstrap-server a:1,b:2 create t --partitions 3 --config a=b=c --config d=";
        let Ok(Verb::Topic(args)) = parse(line) else { panic!("{line}") };
        assert_eq!(args.bootstrap.addresses(), ["a:1", "b:2"]);
        let TopicVerb::Create { partitions, config, .. } = args.verb else { panic!("create") };
        assert_eq!(partitions, Some(3));
        assert_eq!(config, [("a".to_owned(), "b=c".to_owned()), ("d".to_owned(), String::new())]);
        let Ok(Verb::Topic(args)) = parse("heizer topic list --bootstrap-server a:1") else { panic!("list") };
        assert_eq!(args.bootstrap.addresses(), ["a:1"]);
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "heizer",
            "heizer frobnicate",
            "heizer topic create",
            "heizer topic create t --partitions 0",
            "heizer topic create t --config x",
            "heizer produce t --acks 2",
            "heizer produce t --compression rar",
            "heizer consume t --offset 5",
            "heizer consume t --group g --partition 0",
            "heizer consume t --partition 0 --offset 5 --from-beginning",
            "heizer log dump",
            "heizer log dump d --from -1",
            "heizer log verify d --partition 0",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert!(parse("heizer produce t --acks -1").is_ok() && parse("heizer produce t --acks 0").is_ok());
    }
}
