//! `heizer serve`.

use std::path::PathBuf;

use clap::Args;

use crate::config::Override;

/// Flags go before the configuration file, which goes before the defaults shown here.
#[derive(Debug, Args)]
pub(in crate::admin) struct ServeArgs {
    /// Settings in TOML, under Kafka's names where Kafka has them.
    #[arg(long, value_name = "FILE")]
    pub(in crate::admin) config: Option<PathBuf>,
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
    pub(in crate::admin) fn overrides(&self) -> Vec<Override> {
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
