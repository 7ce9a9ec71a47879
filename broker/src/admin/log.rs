//! `heizer log`: looking at the files of logs, read-only, beside a broker or without one.
//!
//! | file | what is in it |
//! |---|---|
//! | `dump.rs` | what is in files |
//! | `render.rs`, `json.rs` | lines out of what was found, as text or as JSON; no I/O |

mod dump;
mod json;
mod render;

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::{Either, select};
use heizer_runtime::{host, time};
use heizer_storage::StorageError;
use heizer_storage::inspect::{
    DryRun, Finding, NotedLogs, PartitionDir, Summary, Target, Verifier, recover_dry_run,
};

use super::args::{LogArgs, LogVerb, Which};
use super::error::CliError;
use super::stdio::Output;

/// Output is written in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;
/// How often work that takes long says how far it is: on a terminal, and elsewhere.
const PROGRESS_TERMINAL: Duration = Duration::from_millis(200);
const PROGRESS_ELSEWHERE: Duration = Duration::from_secs(10);

/// Runs a verb on one core: 0 when all is well, 1 when it has found something, 2 when it could not look.
pub(super) fn run(args: LogArgs) -> Result<ExitCode, CliError> {
    let main = move || {
        let verb = args.verb.clone();
        async move {
            match select(pin!(look(verb)), pin!(host::shutdown())).await {
                Either::Left((outcome, _)) => outcome,
                Either::Right(_) => Err(CliError::Unusable("stopped by a signal before the end".to_owned())),
            }
        }
    };
    let found = host::block_on(main).map_err(CliError::of)??;
    Ok(if found { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether anything was found.
async fn look(verb: LogVerb) -> Result<bool, CliError> {
    match verb {
        LogVerb::Dump(args) => dump::run(args).await.map(|()| false),
        LogVerb::Verify(which) => verify(&which).await,
        LogVerb::RecoverDryRun(which) => recover(&which).await,
    }
}

async fn verify(which: &Which) -> Result<bool, CliError> {
    let target = find(&which.path).await?;
    let lines = RefCell::new(BytesMut::new());
    let progress = Progress::start("verified");
    let tell = |finding: Finding| render::line(&mut lines.borrow_mut(), format_args!("{finding}"));
    let advance = |path: &Path, bytes| progress.advance(path, bytes);
    let mut verifier = Verifier::new(&tell, &advance);
    let output = Printer::open()?;
    if which.topic.is_some() {
        for_each(&target, which, async |partition| {
            verifier.partition(&partition).await.map_err(unreadable)?;
            output.write_from(&lines).await
        })
        .await?;
    } else if let Target::DataDir(dir) = &target {
        // A directory at a time, so that what is found of it shows before the next one is looked at.
        verifier.holder(&target);
        for (topic, partition) in &dir.partitions {
            let partition = dir.partition(topic, *partition).await.map_err(unreadable)?;
            verifier.partition(&partition).await.map_err(unreadable)?;
            output.write_from(&lines).await?;
        }
        verifier.beside_partitions(dir).await.map_err(unreadable)?;
    } else {
        verifier.verify(&target).await.map_err(unreadable)?;
    }
    progress.end();
    let summary = verifier.summary();
    render::line(&mut lines.borrow_mut(), format_args!("{}", summed(&summary)));
    output.write_from(&lines).await?;
    Ok(summary.errors > 0)
}

fn summed(summary: &Summary) -> String {
    let Summary { partitions, segments, batches, records, bytes, stream_entries, errors, notes } = summary;
    let verdict = if *errors == 0 { "clean".to_owned() } else { format!("{errors} errors") };
    format!(
        "{verdict}: {partitions} partitions, {segments} segments, {batches} batches, {records} records, \
         {stream_entries} stream entries, {bytes} bytes; {notes} notes"
    )
}

async fn recover(which: &Which) -> Result<bool, CliError> {
    let target = find(&which.path).await?;
    let home = match &target {
        Target::DataDir(dir) => Some(dir.path.clone()),
        Target::Partition(dir) => dir.path.parent().map(Path::to_owned),
        Target::File(_) | Target::Stream(_) => None,
    };
    let noted = match &home {
        Some(home) => NotedLogs::read(home).await.map_err(unreadable)?,
        None => NotedLogs::default(),
    };
    let output = Printer::open()?;
    let progress = Progress::start("scanned");
    let lines = RefCell::new(BytesMut::new());
    let found = Cell::new(false);
    for_each(&target, which, async |partition| {
        let run = recover_dry_run(&partition, &noted, &|path, bytes| progress.advance(path, bytes)).await;
        let run = run.map_err(unreadable)?;
        found.set(found.get() || run.cut.is_some() || run.refused.is_some() || !run.damaged.is_empty());
        describe_run(&mut lines.borrow_mut(), &partition, &run);
        output.write_from(&lines).await
    })
    .await?;
    progress.end();
    Ok(found.get())
}

/// What recovery would do, a line for each thing.
fn describe_run(out: &mut BytesMut, partition: &PartitionDir, run: &DryRun) {
    let path = partition.path.display();
    if let Some(pid) = partition.held_by {
        render::line(out, format_args!("{path}: process {pid} is at work here: this is true of this moment"));
    }
    if let Some(reason) = &run.refused {
        return render::line(out, format_args!("{path}: would not be opened: {reason}"));
    }
    let Some(start) = run.start else {
        return render::line(out, format_args!("{path}: {} segments, nothing to scan", run.segments));
    };
    render::line(
        out,
        format_args!(
            "{path}: {} segments; would scan {} bytes from segment {} position {} offset {} on; log end {}",
            run.segments, run.scan_bytes, start.base, start.position, start.offset, run.log_end
        ),
    );
    for damaged in &run.damaged {
        let (file, position) = (damaged.file.display(), damaged.position);
        let what = "damaged in the middle of the log: would be kept, unreadable beyond";
        render::line(out, format_args!("{file}: position {position}: {what}: {}", damaged.reason));
    }
    match &run.cut {
        Some(cut) => {
            let (file, position, bytes, end) = (cut.file.display(), cut.position, cut.bytes, run.log_end);
            let removed = cut.segments_removed;
            render::line(
                out,
                format_args!(
                    "{file}: position {position}: would cut at offset {end}, {bytes} bytes and {removed} later \
                     segments lost: {}",
                    cut.reason
                ),
            );
        }
        None if run.reserved_bytes > 0 => {
            let bytes = run.reserved_bytes;
            render::line(out, format_args!("{path}: nothing lost; {bytes} bytes of reserved space would go"));
        }
        None => render::line(out, format_args!("{path}: nothing lost")),
    }
}

/// Does `work` for each partition that was asked for.
async fn for_each(
    target: &Target,
    which: &Which,
    mut work: impl AsyncFnMut(PartitionDir) -> Result<(), CliError>,
) -> Result<(), CliError> {
    match target {
        Target::Partition(_) if which.topic.is_some() => {
            Err(CliError::Unusable("--topic goes with a data directory, not with a partition's".to_owned()))
        }
        Target::Partition(partition) => work(partition.clone()).await,
        Target::DataDir(dir) => {
            let mut any = false;
            for (topic, partition) in &dir.partitions {
                if which.wants(topic, *partition) {
                    any = true;
                    work(dir.partition(topic, *partition).await.map_err(unreadable)?).await?;
                }
            }
            match &which.topic {
                Some(topic) if !any => {
                    let asked =
                        which.partition.map_or(topic.clone(), |partition| format!("{topic}-{partition}"));
                    let home = dir.path.display();
                    Err(CliError::Unusable(format!(
                        "{home}: holds no partition of {asked}; see what `ls` shows"
                    )))
                }
                _ => Ok(()),
            }
        }
        Target::File(path) | Target::Stream(path) => {
            let path = path.display();
            Err(CliError::Unusable(format!(
                "{path}: is no partition; name a partition's directory or a data directory"
            )))
        }
    }
}

async fn find(path: &Path) -> Result<Target, CliError> {
    Target::find(path).await.map_err(unreadable)
}

/// One line that names the file and says what to do.
fn unreadable(error: StorageError) -> CliError {
    use std::io::ErrorKind;
    let advice = match &error {
        StorageError::Io { source, .. } => match source.kind() {
            ErrorKind::NotFound => "name a data directory, a partition's directory or a file in one",
            ErrorKind::PermissionDenied => "run as the user that the broker runs as",
            _ => "see the kernel's log for the device",
        },
        StorageError::Corrupt { .. } => "see `heizer log --help` for what can be named",
        StorageError::Failed(_) | StorageError::Closed { .. } | StorageError::Full { .. } => "try again",
    };
    CliError::Unusable(format!("{error}; {advice}"))
}

/// Standard output, by the piece.
struct Printer(Output);

impl Printer {
    fn open() -> Result<Printer, CliError> {
        Output::open().map(Printer)
    }

    /// Writes what was put into `lines`, and empties it.
    async fn write_from(&self, lines: &RefCell<BytesMut>) -> Result<(), CliError> {
        let piece = lines.borrow_mut().split();
        if piece.is_empty() { Ok(()) } else { self.0.write(piece.freeze()).await }
    }

    /// Writes `lines` once they are enough for a piece.
    async fn write_if_many(&self, lines: &mut BytesMut) -> Result<(), CliError> {
        if lines.len() < PIECE_BYTES { Ok(()) } else { self.0.write(lines.split().freeze()).await }
    }
}

/// Says on standard error how far long work is.
struct Progress {
    verb: &'static str,
    terminal: bool,
    bytes: Cell<u64>,
    said: Cell<time::Instant>,
}

impl Progress {
    fn start(verb: &'static str) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        Progress { verb, terminal, bytes: Cell::new(0), said: Cell::new(time::now()) }
    }

    fn advance(&self, path: &Path, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        let interval = if self.terminal { PROGRESS_TERMINAL } else { PROGRESS_ELSEWHERE };
        let now = time::now();
        if now.saturating_duration_since(self.said.get()) < interval {
            return;
        }
        self.said.set(now);
        let (mib, path) = (self.bytes.get() >> 20, path.display());
        if self.terminal {
            eprint!("\r\x1b[K{} {mib} MiB, {path}", self.verb);
        } else {
            eprintln!("heizer: {} {mib} MiB, {path}", self.verb);
        }
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn errors_of_files_are_one_line_with_the_file_and_advice() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = StorageError::Io { path: PathBuf::from("/d/t-0"), action: "open", source };
        let CliError::Unusable(text) = unreadable(error) else { panic!("exit code 2") };
        assert!(
            text.starts_with("/d/t-0: open: ") && text.contains("run as the user") && !text.contains('\n')
        );
    }
}
