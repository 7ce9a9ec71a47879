//! Verbs, flags, and their help: a file for each family of verbs.

mod check;
mod cluster;
mod config;
mod group;
mod log;
mod records;
mod serve;
mod shell;
mod topic;

use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use check::CheckArgs;
pub(super) use cluster::{ClusterArgs, ClusterVerb};
pub(super) use config::{ConfigArgs, ConfigKind, ConfigTarget, ConfigVerb};
pub(super) use group::{GroupArgs, GroupDescribeArgs, GroupResetArgs, GroupVerb, ResetTo, TopicScope};
pub(super) use log::{BytesFormat, DumpArgs, LogArgs, LogFormat, LogVerb, Which};
pub(super) use records::{ConsumeArgs, ProduceArgs, RecordFormat};
pub(super) use serve::ServeArgs;
pub(super) use shell::{CompletionsArgs, ManArgs};
pub(super) use topic::{AlterArgs, OffsetsArgs, TopicArgs, TopicVerb, TrimArgs};

const EXAMPLES: &str = "\
Examples:
  heizer serve                                          listen on 127.0.0.1:9092, keep data in ./data
  heizer serve --listen 0.0.0.0:9092 --advertise broker.example:9092 --data-dir /var/lib/heizer

  heizer topic create readings --partitions 5
  heizer topic describe readings
  echo 'sensor-1:21.5' | heizer produce readings --key-separator :
  heizer consume readings --from-beginning --print-key
  heizer consume readings --group dashboard             members of a group share the partitions

  heizer group describe dashboard                       where it is, and how far behind
  heizer group reset dashboard --topic readings --to-earliest --execute
  heizer config set topic readings retention.ms=3600000
  heizer topic trim readings --to-datetime 2026-03-01   records from before are deleted
  heizer cluster info                                   brokers, partitions, data directories, free space
  heizer topic list --output json                       every listing has it; `heizer topic --help` tells the fields

Any other Kafka client works as well. While the broker runs, http://127.0.0.1:9644 answers /healthz, /readyz and
/metrics. HEIZER_LOG says what is logged on standard error: error, warn, info, debug or trace.";

/// A broker for Apache Kafka's clients, and what it takes to look after one.
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
    /// Create, list, describe, alter, trim and delete topics.
    Topic(TopicArgs),
    /// Send each line of standard input as a record.
    Produce(ProduceArgs),
    /// Write records to standard output, one a line.
    Consume(ConsumeArgs),
    /// List, describe, reset and delete consumer groups.
    Group(GroupArgs),
    /// Show and change settings of topics and brokers.
    Config(ConfigArgs),
    /// Show the cluster: brokers, partitions, data directories.
    Cluster(ClusterArgs),
    /// Look at the files of logs, with or without a broker: dump, verify, what recovery would do.
    Log(LogArgs),
    /// Look at this host: what to change before a broker runs on it, and why.
    Check(CheckArgs),
    /// Write the reference of all settings, in Markdown.
    Reference,
    /// Write what makes a shell complete this program's command line.
    Completions(CompletionsArgs),
    /// Write manual pages.
    Man(ManArgs),
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

/// How a listing is written.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Listing {
    /// For people, or for programs.
    #[arg(long, value_enum, default_value_t = ListingFormat::Text)]
    pub(super) output: ListingFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ListingFormat {
    /// Tables.
    Text,
    /// One document of JSON, whose fields stay.
    Json,
}

/// `NAME=VALUE`, of a setting.
fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is not of the form NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A partition's index.
fn partition() -> RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(0..)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::CommandFactory;
    use heizer_client::OffsetAt;

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
    fn offsets_and_trims_name_partitions_and_times() {
        let line = "heizer topic offsets t --time -3 --partition 0,2 --output json";
        let Ok(Verb::Topic(args)) = parse(line) else { panic!("{line}") };
        let TopicVerb::Offsets(offsets) = args.verb else { panic!("offsets") };
        assert_eq!((offsets.time, offsets.partition), (Some(OffsetAt::MaxTimestamp), vec![0, 2]));
        assert_eq!(offsets.listing.output, ListingFormat::Json);
        let line = "heizer topic trim t --to-offset 0:5 --to-offset 1:7 --dry-run";
        let Ok(Verb::Topic(args)) = parse(line) else { panic!("{line}") };
        let TopicVerb::Trim(trim) = args.verb else { panic!("trim") };
        assert_eq!((trim.to_offset, trim.dry_run), (vec![(0, 5), (1, 7)], true));
    }

    #[test]
    fn a_reset_has_exactly_one_aim() {
        for (flags, to) in [
            ("--to-earliest", ResetTo::Earliest),
            ("--to-latest", ResetTo::Latest),
            ("--to-current", ResetTo::Current),
            ("--to-offset 7", ResetTo::Offset(7)),
            ("--shift-by -7", ResetTo::ShiftBy(-7)),
            ("--by-duration P1DT1S", ResetTo::Ago(86_401_000)),
            ("--to-datetime 1970-01-01T00:00:02.5", ResetTo::Time(2_500)),
        ] {
            let line = format!("heizer group reset g --topic t:0,1 {flags}");
            let Ok(Verb::Group(args)) = parse(&line) else { panic!("{line}") };
            let GroupVerb::Reset(reset) = args.verb else { panic!("reset") };
            assert_eq!(reset.to(), to);
            assert_eq!(reset.topic, [TopicScope { topic: "t".to_owned(), partitions: Some(vec![0, 1]) }]);
            assert!(!reset.executes());
        }
        let line = "heizer group reset g --from-file f --execute";
        let Ok(Verb::Group(args)) = parse(line) else { panic!("{line}") };
        let GroupVerb::Reset(reset) = args.verb else { panic!("reset") };
        assert_eq!((reset.to(), reset.executes()), (ResetTo::File(PathBuf::from("f")), true));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "heizer",
            "heizer frobnicate",
            "heizer topic create",
            "heizer topic create t --partitions 0",
            "heizer topic create t --config x",
            "heizer topic alter t",
            "heizer topic alter t --partitions 0",
            "heizer topic list --output yaml",
            "heizer topic describe t --internal",
            "heizer topic offsets t --time soon",
            "heizer topic offsets t --partition -1",
            "heizer topic trim t",
            "heizer topic trim t --to-offset 5",
            "heizer topic trim t --to-latest --to-offset 0:5",
            "heizer topic trim t --to-offset 0:5 --partition 0",
            "heizer produce t --acks 2",
            "heizer produce t --compression rar",
            "heizer produce t --format xml",
            "heizer produce t --header =x",
            "heizer produce t --rate 0",
            "heizer consume t --offset 5",
            "heizer consume t --group g --partition 0",
            "heizer consume t --partition 0 --offset 5 --from-beginning",
            "heizer consume t --from-timestamp 0 --from-beginning",
            "heizer group list --state Asleep",
            "heizer group describe",
            "heizer group describe g --all",
            "heizer group describe g --members --state",
            "heizer group reset g --to-earliest",
            "heizer group reset g --topic t",
            "heizer group reset g --topic t --to-earliest --to-latest",
            "heizer group reset g --topic t --from-file f",
            "heizer group reset g --topic t --all-topics --to-latest",
            "heizer group reset g --topic t --to-latest --execute --dry-run",
            "heizer group reset g --topic t --by-duration tomorrow",
            "heizer group delete",
            "heizer group delete-offsets g",
            "heizer config get t",
            "heizer config get user u",
            "heizer config get topic t k --all",
            "heizer config set topic t",
            "heizer config set topic t k",
            "heizer config unset topic t",
            "heizer completions",
            "heizer completions cmd",
            "heizer log dump",
            "heizer log dump d --from -1",
            "heizer log verify d --partition 0",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert!(parse("heizer produce t --acks -1").is_ok() && parse("heizer produce t --acks 0").is_ok());
        assert!(parse("heizer group list --state empty,stable").is_ok(), "in any case");
    }
}
