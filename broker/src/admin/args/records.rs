//! `heizer produce` and `heizer consume`.

use clap::{Args, ValueEnum};
use heizer_client::{Acks, Compression};

use super::Bootstrap;
use crate::admin::when;

const PRODUCE_HELP: &str = "\
Formats of the input, a record a line:
  text  the value, or with --key-separator key and value
  hex   the same in hexadecimal digits: any bytes, line ends among them
  json  {\"key\": …, \"value\": …, \"headers\": [[NAME, VALUE], …], \"partition\": N, \"timestamp\": MS}
        Only value has to be there. Texts are \"texts\", other bytes {\"hex\": \"00ff\"}, and null is null. What `heizer
        consume --format json` writes goes in as it is; its topic and offset are passed over.

Examples:
  heizer produce readings < lines.txt
  echo 'sensor-1:21.5' | heizer produce readings --key-separator : --header unit=celsius
  heizer consume a --from-beginning --timeout-ms 2000 --format json | heizer produce b --format json";

#[derive(Args, Clone, Debug)]
#[command(after_help = PRODUCE_HELP)]
pub(in crate::admin) struct ProduceArgs {
    /// The topic; a broker with auto.create.topics.enable creates it if need be.
    pub(in crate::admin) topic: String,
    /// What a line of the input is.
    #[arg(long, value_enum, default_value_t = RecordFormat::Text)]
    pub(in crate::admin) format: RecordFormat,
    /// What stands between key and value; without it lines are values and records have no key.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(in crate::admin) key_separator: Option<String>,
    /// What stands for a key or a value that is null, a tombstone for one: a text that is not data.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::admin) null_marker: Option<String>,
    /// A header for every record, behind those of its own; several times for several.
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    pub(in crate::admin) header: Vec<(String, String)>,
    /// The partition for every record; its own, by key, or any, if not given.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    pub(in crate::admin) partition: Option<i32>,
    /// The timestamp for every record, in ms since 1970 or as 2026-03-01T08:00:00Z; its own, or now, if not given.
    #[arg(long, value_name = "TIME", value_parser = when::parse_moment)]
    pub(in crate::admin) timestamp: Option<i64>,
    /// Who has to have a record before it counts as sent.
    #[arg(long, value_enum, default_value_t = AcksArg::All, allow_negative_numbers = true)]
    pub(in crate::admin) acks: AcksArg,
    /// How batches of records are compressed.
    #[arg(long, value_enum, default_value_t = CompressionArg::None)]
    pub(in crate::admin) compression: CompressionArg,
    /// Send so many records a second at most.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::admin) rate: Option<u32>,
    #[command(flatten)]
    pub(in crate::admin) bootstrap: Bootstrap,
}

/// What a record is on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::admin) enum RecordFormat {
    /// Key and value as they are.
    Text,
    /// An object of JSON with everything there is.
    Json,
    /// Key and value in hexadecimal digits.
    Hex,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::admin) enum AcksArg {
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
pub(in crate::admin) enum CompressionArg {
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

const CONSUME_HELP: &str = "\
A line has what was asked for, in this order and with the separator between: timestamp, partition, offset, headers, key,
value. With --format json it is an object with all of them:
  {topic, partition, offset, timestamp, timestamp_type, key, value, headers: [[NAME, VALUE], …]}
where what is no UTF-8 is {\"hex\": \"00ff\"}. `heizer produce --format json` takes it back.

Examples:
  heizer consume readings --from-beginning --print-key --max-messages 10
  heizer consume readings --partition 3 --offset 1000 --print-offset --print-timestamp
  heizer consume readings --from-timestamp 2026-03-01T08:00:00Z --timeout-ms 2000 --format json
  heizer consume readings --group dashboard             members of a group share the partitions";

#[derive(Args, Clone, Debug)]
#[command(after_help = CONSUME_HELP)]
pub(in crate::admin) struct ConsumeArgs {
    /// The topic.
    pub(in crate::admin) topic: String,
    /// Start at the oldest records; in a group, where it has committed nothing yet.
    #[arg(long, conflicts_with_all = ["offset", "from_timestamp"])]
    pub(in crate::admin) from_beginning: bool,
    /// Start at the first records from this time on, in ms since 1970 or as 2026-03-01T08:00:00Z; in a group, where it
    /// has committed nothing yet.
    #[arg(long, value_name = "TIME", value_parser = when::parse_moment, conflicts_with = "offset")]
    pub(in crate::admin) from_timestamp: Option<i64>,
    /// Share the partitions with the other members of this group, and go on where the group stopped.
    #[arg(long, value_name = "NAME", conflicts_with = "partition")]
    pub(in crate::admin) group: Option<String>,
    /// Only this partition.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    pub(in crate::admin) partition: Option<i32>,
    /// Start at this offset of the partition.
    #[arg(long, value_name = "NUMBER", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    pub(in crate::admin) offset: Option<i64>,
    /// Stop after so many records.
    #[arg(long, value_name = "NUMBER")]
    pub(in crate::admin) max_messages: Option<u64>,
    /// Stop when nothing has come for so many milliseconds.
    #[arg(long, value_name = "NUMBER")]
    pub(in crate::admin) timeout_ms: Option<u64>,
    /// What a record is on a line.
    #[arg(long, visible_alias = "output", value_enum, default_value_t = RecordFormat::Text)]
    pub(in crate::admin) format: RecordFormat,
    /// Write the key before the value.
    #[arg(long)]
    pub(in crate::admin) print_key: bool,
    /// Write the headers before key and value.
    #[arg(long)]
    pub(in crate::admin) print_headers: bool,
    /// Write the offset.
    #[arg(long)]
    pub(in crate::admin) print_offset: bool,
    /// Write the partition.
    #[arg(long)]
    pub(in crate::admin) print_partition: bool,
    /// Write the timestamp, in ms since 1970.
    #[arg(long)]
    pub(in crate::admin) print_timestamp: bool,
    /// What to write between the parts of a line [default: a tab].
    #[arg(long, value_name = "TEXT", default_value = "\t", hide_default_value = true)]
    pub(in crate::admin) key_separator: String,
    /// What to write for a key or a value that is null.
    #[arg(long, value_name = "TEXT", default_value = "null")]
    pub(in crate::admin) null_marker: String,
    #[command(flatten)]
    pub(in crate::admin) bootstrap: Bootstrap,
}

/// A value may have blanks at its ends, a name is what stands before the first `=`.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is not of the form NAME=VALUE")?;
    if name.is_empty() {
        return Err("its name is empty".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}
