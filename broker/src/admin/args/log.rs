//! `heizer log`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
pub(in crate::admin) struct LogArgs {
    #[command(subcommand)]
    pub(in crate::admin) verb: LogVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::admin) enum LogVerb {
    /// Show what is in files: batches, records, index entries, producers.
    Dump(DumpArgs),
    /// Check everything that can be checked, a line for each finding.
    Verify(Which),
    /// Say what a start after an unclean stop would scan, where it would cut, and what would be lost.
    RecoverDryRun(Which),
}

/// What to look at.
#[derive(Args, Clone, Debug)]
pub(in crate::admin) struct Which {
    /// A data directory, or a partition's directory.
    pub(in crate::admin) path: PathBuf,
    /// Of a data directory only this topic.
    #[arg(long, value_name = "NAME")]
    pub(in crate::admin) topic: Option<String>,
    /// Of the topic only this partition.
    #[arg(long, value_name = "NUMBER", requires = "topic", value_parser = clap::value_parser!(i32).range(0..))]
    pub(in crate::admin) partition: Option<i32>,
}

impl Which {
    /// Whether a partition is asked for.
    pub(in crate::admin) fn wants(&self, topic: &str, partition: i32) -> bool {
        self.topic.as_ref().is_none_or(|wanted| wanted == topic)
            && self.partition.is_none_or(|wanted| wanted == partition)
    }
}

#[derive(Args, Clone, Debug)]
pub(in crate::admin) struct DumpArgs {
    #[command(flatten)]
    pub(in crate::admin) which: Which,
    /// Show each record: offset, timestamp, key, size of the value, headers.
    #[arg(long)]
    pub(in crate::admin) records: bool,
    /// Show each record with its value.
    #[arg(long)]
    pub(in crate::admin) values: bool,
    /// Of segments only from this offset on.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub(in crate::admin) from: Option<i64>,
    /// Of segments only up to this offset, without it.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub(in crate::admin) to: Option<i64>,
    /// Lines of text, or an object of JSON a line.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(in crate::admin) format: LogFormat,
    /// How keys are shown.
    #[arg(long, value_enum, default_value_t = BytesFormat::Text)]
    pub(in crate::admin) key_format: BytesFormat,
    /// How values are shown, those of headers too.
    #[arg(long, value_enum, default_value_t = BytesFormat::Text)]
    pub(in crate::admin) value_format: BytesFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::admin) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::admin) enum BytesFormat {
    /// As UTF-8; what is not is replaced.
    Text,
    /// Two hexadecimal digits a byte.
    Hex,
}
