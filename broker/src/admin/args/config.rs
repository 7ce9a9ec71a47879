//! `heizer config`.

use clap::{Args, Subcommand, ValueEnum};

use super::{Bootstrap, Listing, setting};

const HELP: &str = "\
NAME is a topic's name, a broker's number, or `default` for what holds for all brokers that have nothing of their own.

Examples:
  heizer config get topic readings                      what differs from the defaults, and who set it
  heizer config get topic readings retention.ms cleanup.policy
  heizer config get broker 1 --all
  heizer config set topic readings retention.ms=3600000 --dry-run
  heizer config set broker default log.retention.ms=604800000
  heizer config unset topic readings retention.ms

Fields of --output json: [{name, value, source, read_only, sensitive}], where source is one of DYNAMIC_TOPIC_CONFIG,
DYNAMIC_BROKER_CONFIG, DYNAMIC_DEFAULT_BROKER_CONFIG, STATIC_BROKER_CONFIG, DEFAULT_CONFIG.";

#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(in crate::admin) struct ConfigArgs {
    #[command(subcommand)]
    pub(in crate::admin) verb: ConfigVerb,
    #[command(flatten)]
    pub(in crate::admin) bootstrap: Bootstrap,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::admin) enum ConfigVerb {
    /// Show settings: those that differ from the defaults, or those named.
    Get {
        #[command(flatten)]
        target: ConfigTarget,
        /// Settings to show, whatever they are.
        #[arg(value_name = "KEY")]
        keys: Vec<String>,
        /// Show those at their defaults too.
        #[arg(long, conflicts_with = "keys")]
        all: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// Change settings.
    Set {
        #[command(flatten)]
        target: ConfigTarget,
        /// Settings with their new values.
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, String)>,
        /// Only ask the broker whether it would do it.
        #[arg(long)]
        dry_run: bool,
    },
    /// Return settings to their defaults.
    Unset {
        #[command(flatten)]
        target: ConfigTarget,
        /// The settings.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        /// Only ask the broker whether it would do it.
        #[arg(long)]
        dry_run: bool,
    },
}

/// What has the settings.
#[derive(Args, Clone, Debug)]
pub(in crate::admin) struct ConfigTarget {
    /// What has the settings.
    #[arg(value_enum)]
    pub(in crate::admin) kind: ConfigKind,
    /// The topic's name, the broker's number, or `default`.
    pub(in crate::admin) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::admin) enum ConfigKind {
    /// A topic, by its name.
    Topic,
    /// A broker, by its number, or all of them, by `default`.
    Broker,
}
