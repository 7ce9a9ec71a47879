//! `heizer group`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{Bootstrap, Listing};
use crate::admin::when;

const HELP: &str = "\
Examples:
  heizer group list --state Empty
  heizer group describe dashboard                       where it is in each partition, and how far behind
  heizer group describe --all --output json
  heizer group reset dashboard --topic readings --to-earliest            shows what would change
  heizer group reset dashboard --topic readings:0,2 --shift-by -100 --execute
  heizer group reset dashboard --all-topics --by-duration PT6H --execute
  heizer group delete-offsets dashboard --topic readings
  heizer group delete dashboard

Fields of --output json, one document:
  list      [{group, state, type, protocol_type}]
  describe  [{group, state, protocol_type, assignor, coordinator,
            members: [{member, instance, client, host, topics, partitions: [{topic, partition}]}],
            offsets: [{topic, partition, offset, end, lag, metadata, member, host, client}]}]
  reset     {group, executed, offsets: [{topic, partition, current, new, note}]}
What is not known is null.";

#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(in crate::admin) struct GroupArgs {
    #[command(subcommand)]
    pub(in crate::admin) verb: GroupVerb,
    #[command(flatten)]
    pub(in crate::admin) bootstrap: Bootstrap,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::admin) enum GroupVerb {
    /// Write the names and states of all groups.
    List {
        /// Only groups in this state; several, separated by commas.
        #[arg(long, value_enum, value_name = "STATE", value_delimiter = ',', ignore_case = true)]
        state: Vec<GroupState>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show how far groups have come, and who their members are.
    Describe(GroupDescribeArgs),
    /// Show or change where a group without members goes on reading.
    Reset(GroupResetArgs),
    /// Delete groups without members, with all their offsets.
    Delete {
        /// Their names.
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Delete what a group has committed for some topics.
    DeleteOffsets {
        /// The group's name.
        group: String,
        /// A topic, or some of its partitions; several times for several topics.
        #[arg(long, required = true, value_name = "TOPIC[:PARTITIONS]", value_parser = scope)]
        topic: Vec<TopicScope>,
    },
}

/// States of groups, by Kafka's names (contract G4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::admin) enum GroupState {
    #[value(name = "Empty")]
    Empty,
    #[value(name = "PreparingRebalance")]
    PreparingRebalance,
    #[value(name = "CompletingRebalance")]
    CompletingRebalance,
    #[value(name = "Assigning")]
    Assigning,
    #[value(name = "Reconciling")]
    Reconciling,
    #[value(name = "Stable")]
    Stable,
    #[value(name = "Dead")]
    Dead,
}

impl GroupState {
    pub(in crate::admin) fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Assigning => "Assigning",
            GroupState::Reconciling => "Reconciling",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("which").required(true)))]
pub(in crate::admin) struct GroupDescribeArgs {
    /// Their names.
    #[arg(group = "which", value_name = "GROUP")]
    pub(in crate::admin) groups: Vec<String>,
    /// All groups.
    #[arg(long, group = "which")]
    pub(in crate::admin) all: bool,
    /// Show the members and what they have, in place of the offsets.
    #[arg(long, conflicts_with = "state")]
    pub(in crate::admin) members: bool,
    /// Show a line for each group, in place of the offsets.
    #[arg(long)]
    pub(in crate::admin) state: bool,
    #[command(flatten)]
    pub(in crate::admin) listing: Listing,
}

const RESET_HELP: &str = "\
Without --execute nothing changes: what would is shown. An offset that a partition doesn't have becomes the nearest one
that it has, with a note. The file of --from-file has lines of topic,partition,offset (or group,topic,partition,offset,
of which those of this group count), as --export and kafka-consumer-groups --export write them.";

#[derive(Args, Clone, Debug)]
#[command(after_help = RESET_HELP, group(ArgGroup::new("to").required(true)))]
pub(in crate::admin) struct GroupResetArgs {
    /// The group's name.
    pub(in crate::admin) group: String,
    /// A topic, or some of its partitions; several times for several topics.
    #[arg(
        long,
        value_name = "TOPIC[:PARTITIONS]",
        value_parser = scope,
        required_unless_present_any = ["all_topics", "from_file"],
        conflicts_with = "from_file"
    )]
    pub(in crate::admin) topic: Vec<TopicScope>,
    /// Every partition that the group has committed an offset of.
    #[arg(long, conflicts_with_all = ["topic", "from_file"])]
    pub(in crate::admin) all_topics: bool,
    /// To the first record there is.
    #[arg(long, group = "to")]
    to_earliest: bool,
    /// Behind the last record there is.
    #[arg(long, group = "to")]
    to_latest: bool,
    /// To what is committed; where nothing is, behind the last record.
    #[arg(long, group = "to")]
    to_current: bool,
    /// To this offset.
    #[arg(long, group = "to", value_name = "OFFSET", allow_negative_numbers = true)]
    to_offset: Option<i64>,
    /// By so many records ahead of what is committed, or back with a minus.
    #[arg(long, group = "to", value_name = "NUMBER", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// To the first record of this time before now: P1DT12H, or 36h.
    #[arg(long, group = "to", value_name = "DURATION", value_parser = when::parse_duration)]
    by_duration: Option<i64>,
    /// To the first record from this time on: 2026-03-01T08:00:00.000, in UTC unless it ends in an offset such as
    /// +01:00, or ms since 1970.
    #[arg(long, group = "to", value_name = "TIME", value_parser = when::parse_moment)]
    to_datetime: Option<i64>,
    /// To the offsets in this file; - is standard input.
    #[arg(long, group = "to", value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Do it.
    #[arg(long)]
    execute: bool,
    /// Only show what would change; this is so anyway.
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// Write topic,partition,offset lines, for --from-file.
    #[arg(long, conflicts_with = "output")]
    pub(in crate::admin) export: bool,
    #[command(flatten)]
    pub(in crate::admin) listing: Listing,
}

/// Where a group is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) enum ResetTo {
    Earliest,
    Latest,
    Current,
    Offset(i64),
    ShiftBy(i64),
    /// So many ms before now.
    Ago(i64),
    /// In ms since the epoch.
    Time(i64),
    File(PathBuf),
}

impl GroupResetArgs {
    /// Whether it is to be done, and not only shown.
    pub(in crate::admin) fn executes(&self) -> bool {
        self.execute && !self.dry_run
    }

    /// The one that was given: the command line has exactly one.
    pub(in crate::admin) fn to(&self) -> ResetTo {
        let flags = [
            (self.to_earliest, ResetTo::Earliest),
            (self.to_latest, ResetTo::Latest),
            (self.to_current, ResetTo::Current),
        ];
        let flag = flags.into_iter().find(|(given, _)| *given).map(|(_, to)| to);
        flag.or(self.to_offset.map(ResetTo::Offset))
            .or(self.shift_by.map(ResetTo::ShiftBy))
            .or(self.by_duration.map(ResetTo::Ago))
            .or(self.to_datetime.map(ResetTo::Time))
            .or(self.from_file.clone().map(ResetTo::File))
            .expect("the group of arguments is required")
    }
}

/// A topic, or some of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct TopicScope {
    pub(in crate::admin) topic: String,
    /// All of them, when `None`.
    pub(in crate::admin) partitions: Option<Vec<i32>>,
}

/// `TOPIC` or `TOPIC:0,2`: no topic has a colon in its name.
fn scope(text: &str) -> Result<TopicScope, String> {
    let Some((topic, partitions)) = text.split_once(':') else {
        return Ok(TopicScope { topic: text.to_owned(), partitions: None });
    };
    let partitions: Result<Vec<i32>, String> = partitions
        .split(',')
        .map(|index| match index.trim().parse::<i32>() {
            Ok(index) if index >= 0 => Ok(index),
            _ => Err("it is not of the form TOPIC or TOPIC:0,1,2".to_owned()),
        })
        .collect();
    Ok(TopicScope { topic: topic.to_owned(), partitions: Some(partitions?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_topics_or_some_of_their_partitions() {
        let some = |partitions: &[i32]| TopicScope { topic: "t".into(), partitions: Some(partitions.into()) };
        assert_eq!(scope("t"), Ok(TopicScope { topic: "t".into(), partitions: None }));
        assert_eq!(scope("t:0"), Ok(some(&[0])));
        assert_eq!(scope("t:0, 2,11"), Ok(some(&[0, 2, 11])));
        for text in ["t:", "t:a", "t:-1", "t:1,", "t:1:2", "t:2147483648"] {
            assert!(scope(text).is_err(), "{text}");
        }
    }

    #[test]
    fn states_are_named_as_kafka_names_them() {
        for state in GroupState::value_variants() {
            assert_eq!(state.to_possible_value().expect("none is hidden").get_name(), state.name());
        }
    }
}
