//! `heizer cluster`.

use clap::{Args, Subcommand};

use super::{Bootstrap, Listing};

const HELP: &str = "\
Fields of --output json:
  info      {cluster_id, controller, topics, partitions, features: {NAME: LEVEL},
            brokers: [{broker, address, rack, controller, leads, replicas,
            log_dirs: [{path, replicas, bytes, usable_bytes, total_bytes, error}], error}]}
What is not known is null.";

#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(in crate::admin) struct ClusterArgs {
    #[command(subcommand)]
    pub(in crate::admin) verb: ClusterVerb,
    #[command(flatten)]
    pub(in crate::admin) bootstrap: Bootstrap,
}

#[derive(Clone, Debug, Subcommand)]
pub(in crate::admin) enum ClusterVerb {
    /// Show the cluster's brokers, what they lead, and their data directories.
    Info {
        #[command(flatten)]
        listing: Listing,
    },
}
