//! `heizer completions` and `heizer man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

const COMPLETIONS_HELP: &str = "\
Examples:
  heizer completions bash > /usr/share/bash-completion/completions/heizer
  heizer completions zsh > /usr/local/share/zsh/site-functions/_heizer
  heizer completions fish > ~/.config/fish/completions/heizer.fish";

#[derive(Args, Debug)]
#[command(after_help = COMPLETIONS_HELP)]
pub(in crate::admin) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(in crate::admin) shell: Shell,
}

const MAN_HELP: &str = "\
Examples:
  heizer man | man -l -
  heizer man --dir /usr/local/share/man/man1            a page for each verb";

#[derive(Args, Debug)]
#[command(after_help = MAN_HELP)]
pub(in crate::admin) struct ManArgs {
    /// Write a page for each verb into this directory, in place of the first one to standard output.
    #[arg(long, value_name = "DIRECTORY")]
    pub(in crate::admin) dir: Option<PathBuf>,
}
