//! `heizer topic`.

use clap::{ArgGroup, Args, Subcommand};
use heizer_client::OffsetAt;

use super::{Bootstrap, Listing, partition, setting};
use crate::admin::when;

const HELP: &str = "\
Examples:
  heizer topic create readings --partitions 5 --config retention.ms=86400000
  heizer topic describe                                 every topic
  heizer topic describe readings --output json
  heizer topic alter readings --partitions 10 --dry-run
  heizer topic alter readings --config retention.ms=3600000 --delete-config segment.bytes
  heizer topic offsets readings                         where each partition starts and ends
  heizer topic offsets readings --time 2026-03-01T08:00:00Z
  heizer topic trim readings --to-datetime 2026-03-01 --dry-run

Fields of --output json, one document:
  list      [{name, internal, partitions, replicas}]
  describe  [{name, id, internal, configs: {NAME: VALUE}, partitions: [{partition, leader, leader_epoch, replicas,
            in_sync, error}]}]
  offsets   [{topic, partition, earliest, latest, error}], with --time [{topic, partition, offset, timestamp, error}]
  trim      [{topic, partition, start, new_start, error}]
What is not known is null.";

#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(in crate::admin) struct TopicArgs {
    #[command(subcommand)]
    pub(in crate::admin) verb: TopicVerb,
    #[command(flatten)]
    pub(in crate::admin) bootstrap: Bootstrap,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::admin) enum TopicVerb {
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
    /// Give a topic more partitions, or change its settings.
    Alter(AlterArgs),
    /// Write the names of all topics.
    List {
        /// The cluster's own topics too.
        #[arg(long)]
        internal: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show the partitions of topics, and the settings that differ from the defaults.
    Describe {
        /// Their names; all topics if not given.
        names: Vec<String>,
        /// Of all topics the cluster's own too.
        #[arg(long, conflicts_with = "names")]
        internal: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show where partitions start and end, or where the records of a time are.
    Offsets(OffsetsArgs),
    /// Delete the oldest records of a topic.
    Trim(TrimArgs),
    /// Delete a topic with all its records.
    Delete {
        /// Its name.
        name: String,
        /// A topic that isn't there is no error.
        #[arg(long)]
        if_exists: bool,
    },
}

#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("change").required(true).multiple(true)))]
pub(in crate::admin) struct AlterArgs {
    /// The topic's name.
    pub(in crate::admin) name: String,
    /// How many partitions it is to have; never fewer than now.
    #[arg(long, group = "change", value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..))]
    pub(in crate::admin) partitions: Option<i32>,
    /// A setting of the topic, such as retention.ms=3600000; several times for several.
    #[arg(long, group = "change", value_name = "NAME=VALUE", value_parser = setting)]
    pub(in crate::admin) config: Vec<(String, String)>,
    /// A setting that returns to the broker's default; several times for several.
    #[arg(long, group = "change", value_name = "NAME")]
    pub(in crate::admin) delete_config: Vec<String>,
    /// Only ask the broker whether it would do it.
    #[arg(long)]
    pub(in crate::admin) dry_run: bool,
}

#[derive(Args, Clone, Debug)]
pub(in crate::admin) struct OffsetsArgs {
    /// The topic's name.
    pub(in crate::admin) name: String,
    /// The offset to look for: earliest, latest, max-timestamp (the newest record's), or that of the first record
    /// from a time on, in ms since 1970 or as 2026-03-01T08:00:00Z; earliest and latest if not given.
    #[arg(long, value_name = "WHICH", value_parser = offset_at, allow_hyphen_values = true)]
    pub(in crate::admin) time: Option<OffsetAt>,
    /// Only these partitions, separated by commas.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = partition())]
    pub(in crate::admin) partition: Vec<i32>,
    #[command(flatten)]
    pub(in crate::admin) listing: Listing,
}

#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("end").required(true)))]
pub(in crate::admin) struct TrimArgs {
    /// The topic's name.
    pub(in crate::admin) name: String,
    /// Of this partition the records below this offset; several times for several partitions.
    #[arg(long, group = "end", value_name = "PARTITION:OFFSET", value_parser = partition_offset)]
    pub(in crate::admin) to_offset: Vec<(i32, i64)>,
    /// All records there are.
    #[arg(long, group = "end")]
    pub(in crate::admin) to_latest: bool,
    /// The records in front of the first one from this time on, in ms since 1970 or as 2026-03-01T08:00:00Z.
    #[arg(long, group = "end", value_name = "TIME", value_parser = when::parse_moment)]
    pub(in crate::admin) to_datetime: Option<i64>,
    /// Only these partitions, separated by commas.
    #[arg(
        long,
        value_name = "NUMBERS",
        value_delimiter = ',',
        value_parser = partition(),
        conflicts_with = "to_offset"
    )]
    pub(in crate::admin) partition: Vec<i32>,
    /// Only show what would be deleted.
    #[arg(long)]
    pub(in crate::admin) dry_run: bool,
    #[command(flatten)]
    pub(in crate::admin) listing: Listing,
}

/// Kafka's tools take its numbers for the first three as well.
fn offset_at(text: &str) -> Result<OffsetAt, String> {
    match text {
        "earliest" | "-2" => Ok(OffsetAt::Earliest),
        "latest" | "-1" => Ok(OffsetAt::Latest),
        "max-timestamp" | "-3" => Ok(OffsetAt::MaxTimestamp),
        _ => when::parse_moment(text)
            .map(OffsetAt::Timestamp)
            .map_err(|error| format!("{error}; or earliest, latest, max-timestamp")),
    }
}

fn partition_offset(text: &str) -> Result<(i32, i64), String> {
    let form = || "it is not of the form PARTITION:OFFSET, two numbers from 0 on".to_owned();
    let (partition, offset) = text.split_once(':').ok_or_else(form)?;
    let partition: i32 = partition.trim().parse().map_err(|_| form())?;
    let offset: i64 = offset.trim().parse().map_err(|_| form())?;
    if partition < 0 || offset < 0 { Err(form()) } else { Ok((partition, offset)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_asked_for_by_name_number_or_time() {
        assert_eq!(offset_at("earliest"), Ok(OffsetAt::Earliest));
        assert_eq!(offset_at("-1"), Ok(OffsetAt::Latest));
        assert_eq!(offset_at("max-timestamp"), Ok(OffsetAt::MaxTimestamp));
        assert_eq!(offset_at("1700000000000"), Ok(OffsetAt::Timestamp(1_700_000_000_000)));
        assert_eq!(offset_at("1970-01-01T00:00:01Z"), Ok(OffsetAt::Timestamp(1_000)));
        assert!(offset_at("-9").is_err() && offset_at("yesterday").is_err());
    }

    #[test]
    fn offsets_of_partitions_are_two_numbers() {
        assert_eq!(partition_offset("3:17"), Ok((3, 17)));
        for text in ["3", "3:", ":3", "-1:3", "3:-1", "a:b", "3:1:2"] {
            assert!(partition_offset(text).is_err(), "{text}");
        }
    }
}
