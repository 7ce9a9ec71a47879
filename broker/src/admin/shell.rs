//! `heizer completions` and `heizer man`: what shells and manuals want to know of the command line.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::generate;
use clap_mangen::Man;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::error::CliError;
use super::stdio::print;

const PROGRAM: &str = "heizer";

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), PROGRAM, &mut script);
    print(&String::from_utf8(script).map_err(CliError::of)?)
}

pub(super) fn man(args: &ManArgs) -> Result<(), CliError> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    match &args.dir {
        None => print(&page(&root).map_err(CliError::of)?.1),
        Some(dir) => write_pages(&root, dir).map_err(|error| {
            CliError::of(format_args!("{}: {error}; name a directory that can be written to", dir.display()))
        }),
    }
}

/// A page for the command, and one for each below it.
fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    let (name, page) = page(command)?;
    std::fs::write(dir.join(name), page)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, dir)?;
    }
    Ok(())
}

/// A command's page, and the name of its file.
fn page(command: &Command) -> io::Result<(String, String)> {
    // Help on the command line has examples in columns, which a page would fill into paragraphs.
    let examples = command.get_after_help().map(ToString::to_string);
    let man = Man::new(command.clone().after_help(None::<&str>));
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut page = String::from_utf8(page).map_err(io::Error::other)?;
    if let Some(examples) = examples {
        page.push_str(&preformatted(&examples));
    }
    Ok((man.get_filename(), page))
}

/// A section whose lines stay as they are.
fn preformatted(text: &str) -> String {
    let mut section = ".SH NOTES\n.nf\n".to_owned();
    for line in text.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // At the start of a line these would be taken for requests.
        if line.starts_with(['.', '\'']) {
            section.push_str("\\&");
        }
        section.push_str(&line);
        section.push('\n');
    }
    section.push_str(".fi\n");
    section
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use clap_complete::Shell;

    use super::*;

    #[test]
    fn every_shell_completes_every_verb() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            generate(*shell, &mut Cli::command(), PROGRAM, &mut script);
            let script = String::from_utf8(script).expect("text");
            for word in ["topic", "delete-offsets", "--bootstrap-server", "--to-earliest"] {
                let word = if *shell == Shell::Fish { word.trim_start_matches("--") } else { word };
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn every_verb_has_a_page_with_its_examples_as_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        write_pages(&root, dir.path()).expect("written");
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect(name);
        for name in
            ["heizer.1", "heizer-topic.1", "heizer-topic-trim.1", "heizer-group-reset.1", "heizer-man.1"]
        {
            assert!(read(name).starts_with(".") || read(name).contains("\n.TH "), "{name}");
        }
        let topic = read("heizer-topic.1");
        assert!(
            topic.contains(".nf\nExamples:\n  heizer topic create readings \\-\\-partitions 5"),
            "{topic}"
        );
        assert!(!topic.contains(".SH EXTRA"), "the examples are there once");
        let missing = man(&ManArgs { dir: Some(dir.path().join("missing")) }).expect_err("no directory");
        assert!(missing.to_string().contains("missing"), "{missing}");
    }

    #[test]
    fn lines_of_a_page_are_no_requests() {
        assert_eq!(preformatted(".a\n'b\n\\c -d"), ".SH NOTES\n.nf\n\\&.a\n\\&'b\n\\ec \\-d\n.fi\n");
    }
}
