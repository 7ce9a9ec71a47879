//! The command line.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::run::Options;

/// Producers and consumers against a Kafka-compatible broker, as a workload file says
#[derive(Debug, Parser)]
#[command(name = "heizer-load", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a workload and report what was measured
    Run(RunArgs),
    /// Read workload files and say what is wrong with them
    Check(CheckArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// A workload file
    pub(crate) file: String,
    /// A broker of the cluster; several, separated by commas
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap_server: String,
    /// Put another value in the place of what the file says, such as `producers.0.rate=5000` or `measure_s=5`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Report what this process, the broker on this machine, costs within the window
    #[arg(long, value_name = "PID")]
    watch_pid: Option<u32>,
    /// Write the result to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<String>,
    /// No line a second on standard error
    #[arg(long)]
    quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Workload files
    #[arg(required = true)]
    pub(crate) files: Vec<String>,
}

impl RunArgs {
    /// What the run is told beside the workload.
    pub(crate) fn options(&self) -> Options {
        Options {
            bootstrap: self.bootstrap_server.split(',').map(|addr| addr.trim().to_owned()).collect(),
            watch_pid: self.watch_pid,
            quiet: self.quiet,
        }
    }
}

/// Help and version as they are; what is wrong with a command line as one line.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    if !error.use_stderr() || is_help {
        // Nobody may be there to read it.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    let text = error.to_string();
    let said = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = said.trim_start_matches("error: ").split_whitespace().collect();
    eprintln!("heizer-load: {}; see `heizer-load help`", words.join(" "));
    ExitCode::from(2)
}
