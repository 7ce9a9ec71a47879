//! The command line: one program, a verb for each thing to do.
//!
//! | file | what is in it |
//! |---|---|
//! | `args.rs`, `args/` | verbs, flags, and their help |
//! | `error.rs` | what a verb fails with: one line |
//! | `topic.rs`, `group.rs`, `settings.rs` (`heizer config`), `cluster.rs` | the verbs that look after a cluster |
//! | `produce.rs`, `consume.rs` | the verbs that write and read records |
//! | `log.rs`, `log/` | the verbs that look at files |
//! | `check.rs` | what is to be said of this host |
//! | `shell.rs` | completions and manual pages |
//! | `lines.rs`, `parse.rs`, `format.rs`, `data.rs` | records out of lines, lines out of records; no I/O |
//! | `table.rs`, `when.rs` | tables and documents; times and durations; no I/O |
//! | `partitions.rs` | partitions that a verb is about, and what became of them |
//! | `progress.rs` | how far long work is |
//! | `stdio.rs` | standard input and output, which block, beside the core |

mod args;
mod check;
mod cluster;
mod consume;
mod data;
mod error;
mod format;
mod group;
mod lines;
mod log;
mod parse;
mod partitions;
mod produce;
mod progress;
mod settings;
mod shell;
mod stdio;
mod table;
mod topic;
mod when;

use std::future::Future;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use heizer_client::{Client, ClientConfig};
use heizer_runtime::host;

use crate::config::BrokerConfig;
use crate::{logging, serve};
use args::{Bootstrap, Cli, Verb};
use error::CliError;

/// The program: 0 when the verb has done its work, 1 with one line on standard error when it could not, 2 when the
/// command line is wrong. Verbs that look at files tell with 1 that they have found something, and with 2 that they
/// could not look.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_usage(&error),
    };
    match run(cli.verb) {
        Ok(code) => code,
        Err(CliError::BrokenPipe) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("heizer: {error}");
            let code = if matches!(error, CliError::Usage(_) | CliError::Unusable(_)) { 2 } else { 1 };
            ExitCode::from(code)
        }
    }
}

/// Help and version as they are; what is wrong with a command line as one line.
fn refuse_usage(error: &clap::Error) -> ExitCode {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    if !error.use_stderr() || is_help {
        // Nobody may be there to read it.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
    }
    let text = error.to_string();
    let said = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = said.trim_start_matches("error: ").split_whitespace().collect();
    eprintln!("heizer: {}; see `heizer help`", words.join(" "));
    ExitCode::from(2)
}

fn run(verb: Verb) -> Result<ExitCode, CliError> {
    let filter = if matches!(verb, Verb::Serve(_)) { "info" } else { "error" };
    logging::init(filter).map_err(CliError::of)?;
    let done = match verb {
        Verb::Serve(args) => {
            let config =
                BrokerConfig::load(args.config.as_deref(), &args.overrides()).map_err(CliError::of)?;
            serve::run(config).map_err(CliError::of)
        }
        Verb::Topic(args) => {
            let verb = args.verb;
            with_client(&args.bootstrap, move |client| topic::run(client, verb.clone()))
        }
        Verb::Produce(args) => {
            let bootstrap = args.bootstrap.clone();
            with_client(&bootstrap, move |client| produce::run(client, args.clone()))
        }
        Verb::Consume(args) => {
            let bootstrap = args.bootstrap.clone();
            with_client(&bootstrap, move |client| consume::run(client, args.clone()))
        }
        Verb::Group(args) => {
            let verb = args.verb;
            with_client(&args.bootstrap, move |client| group::run(client, verb.clone()))
        }
        Verb::Config(args) => {
            let verb = args.verb;
            with_client(&args.bootstrap, move |client| settings::run(client, verb.clone()))
        }
        Verb::Cluster(args) => {
            let verb = args.verb;
            with_client(&args.bootstrap, move |client| cluster::run(client, verb.clone()))
        }
        Verb::Log(args) => return log::run(args),
        Verb::Check(args) => return check::run(&args),
        Verb::Completions(args) => shell::completions(&args),
        Verb::Man(args) => shell::man(&args),
        Verb::Reference => stdio::print(&crate::config::reference()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Runs a verb on one core with a client that has reached a broker.
fn with_client<F, Fut>(bootstrap: &Bootstrap, verb: F) -> Result<(), CliError>
where
    F: Fn(Client) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = Result<(), CliError>> + 'static,
{
    let config = ClientConfig::new(bootstrap.addresses());
    let main = move || {
        let client = Client::new(config.clone());
        let verb = verb.clone();
        async move {
            // Without retries: somebody who mistyped an address shall not wait for a minute to be told.
            client.any().await?;
            verb(client).await
        }
    };
    host::block_on(main).map_err(CliError::of)?
}
