//! `heizer check`.

use clap::Args;

use super::{Listing, ServeArgs};

const CHECK_HELP: &str = "\
Every finding is ok, advice or a problem; advice and problems come with what to do about them. Exit code 0 without a
problem, 1 with one. Nothing is changed, and a broker may run meanwhile. Limits of memory and files are those of the
shell: a systemd unit has its own.

Examples:
  heizer check                                          this host, for a broker with the defaults
  sudo -u heizer heizer check --config /etc/heizer/heizer.toml
  heizer check --data-dir /srv/disk1,/srv/disk2 --listen 10.0.0.1:9092 --output json";

/// The flags of `serve` say which broker is meant.
#[derive(Args, Debug)]
#[command(after_help = CHECK_HELP)]
pub(in crate::admin) struct CheckArgs {
    #[command(flatten)]
    pub(in crate::admin) serve: ServeArgs,
    #[command(flatten)]
    pub(in crate::admin) listing: Listing,
}
