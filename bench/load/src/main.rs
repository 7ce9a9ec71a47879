//! `heizer-load`: the load generator. It speaks to any Kafka-compatible broker.
//!
//! One core drives any number of producers and consumers, as a workload file says, and checks every record that comes
//! back. An open loop sends on a fixed schedule and counts latencies from when a record was due, so that a stall of the
//! broker is not hidden by a client that waits for it; a closed loop finds the most that a broker takes.
//!
//! The rooms:
//! - `args`: the command line. `workload`: workload files. `failure`: what a run fails with.
//! - `run`: the phases of a run. `stage`: what its clients share.
//! - `producer`: producers; `schedule`: when records are due and which batches they make; `template`: batches.
//! - `consumer`: fetch sessions; `group`: members of consumer groups; `cluster`: topics, leaders, offsets.
//! - `value`: what stands in a record; `verify`: whether everything has come, once, in order, unchanged.
//! - `tally`: counts and latencies; `watch`: what a process costs; `report`: the result.

mod args;
mod cluster;
mod consumer;
mod failure;
mod group;
mod producer;
mod report;
mod run;
mod schedule;
mod stage;
mod tally;
mod template;
mod value;
mod verify;
mod watch;
mod workload;

use std::fs;
use std::process::ExitCode;

use clap::Parser;
use heizer_runtime::{host, preflight};

use args::{Cli, RunArgs, Verb};
use failure::Failure;
use report::Report;
use workload::Workload;

/// Requests of many clients wait for one submission.
const RING_ENTRIES: u32 = 4_096;

/// 0 when the run has ended and every record was as it should be, 1 with one line on standard error when not, 2 when
/// the command line is wrong.
fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return args::refuse(&error),
    };
    let outcome = match cli.verb {
        Verb::Run(args) => run(args),
        Verb::Check(args) => check(&args.files),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("heizer-load: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn check(files: &[String]) -> Result<(), Failure> {
    for file in files {
        let workload = load(file, &[])?;
        println!("{file}: {} ({})", workload.name, workload.description);
    }
    Ok(())
}

fn load(file: &str, overrides: &[String]) -> Result<Workload, Failure> {
    let text = fs::read_to_string(file).map_err(|error| Failure::new(format!("{file}: {error}")))?;
    Workload::parse(file, &text, overrides)
}

fn run(args: RunArgs) -> Result<(), Failure> {
    let workload = load(&args.file, &args.overrides)?;
    let options = args.options();
    preflight::check(&[]).map_err(Failure::new)?;
    // The first CPU that we may use: taskset decides which.
    let cpus = host::available_cpus().into_iter().take(1).collect();
    let config = host::Config { cpus, ring_entries: RING_ENTRIES, ..host::Config::default() };
    let main = move || run::run(workload.clone(), options.clone());
    let mut outputs = host::run(&config, main).map_err(Failure::new)?;
    let report = outputs.pop().expect("one core, one output")?;
    print!("{report}");
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    match report.verified.faults() {
        None => Ok(()),
        Some(faults) => Err(Failure::new(format!("records are not as they were written: {faults}"))),
    }
}

fn write_json(path: &str, report: &Report) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(format!("{path}: cannot write the result: {error}"));
    let mut json = serde_json::to_string(report).map_err(|error| failed(&error))?;
    json.push('\n');
    fs::write(path, json).map_err(|error| failed(&error))
}
