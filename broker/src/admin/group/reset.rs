//! `heizer group reset`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use heizer_client::{Admin, CommittedOffset, ListedOffset, OffsetAt, TopicPartition};
use heizer_runtime::helper::Helper;
use heizer_runtime::time::wall_clock_ms;
use serde::Serialize;

use super::plan::{Aim, Known, Planned, plan};
use super::{explained, file, has_members};
use crate::admin::args::{GroupResetArgs, ListingFormat, ResetTo};
use crate::admin::error::CliError;
use crate::admin::partitions::{all, partitions_of};
use crate::admin::stdio::Report;
use crate::admin::table::{self, Table, cell};

/// A file of offsets may have this many bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Serialize)]
struct Reset<'a> {
    group: &'a str,
    executed: bool,
    offsets: Vec<Row>,
}

/// Where a group was, and where it goes on.
#[derive(Debug, Serialize)]
struct Row {
    topic: String,
    partition: i32,
    current: Option<i64>,
    new: i64,
    note: Option<&'static str>,
}

pub(super) async fn run(admin: &Admin, args: &GroupResetArgs) -> Result<Report, CliError> {
    let group = args.group.as_str();
    if let Some(found) = admin.describe_group(group).await?
        && !found.members.is_empty()
    {
        return Err(has_members(&found));
    }
    let committed = admin.group_offsets(group).await?;
    let aims = aims(admin, args, &committed).await?;
    let rows = rows(admin, aims, &committed).await?;
    if args.executes() {
        let new: BTreeMap<TopicPartition, i64> =
            rows.iter().map(|row| ((row.topic.clone(), row.partition), row.new)).collect();
        let failed = match admin.set_group_offsets(group, &new).await {
            Ok(outcomes) => outcomes.into_values().find_map(Result::err),
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            // Somebody may have joined meanwhile.
            return Err(explained(admin, group, error).await);
        }
    }
    Ok(match args.listing.output {
        ListingFormat::Text if args.export => export(&rows).into(),
        ListingFormat::Text => text(group, &rows, args.executes()).into(),
        ListingFormat::Json => table::json(&Reset { group, executed: args.executes(), offsets: rows }).into(),
    })
}

/// What is asked for, of each partition that it is asked of.
async fn aims(
    admin: &Admin,
    args: &GroupResetArgs,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<BTreeMap<TopicPartition, Aim>, CliError> {
    let (aim, time) = match args.to() {
        ResetTo::File(path) => return aims_of_file(path, &args.group).await,
        ResetTo::Earliest => (Aim::Earliest, None),
        ResetTo::Latest => (Aim::Latest, None),
        ResetTo::Current => (Aim::Current, None),
        ResetTo::Offset(offset) => (Aim::Offset(offset), None),
        ResetTo::ShiftBy(by) => (Aim::ShiftBy(by), None),
        ResetTo::Ago(millis) => (Aim::Found(None), Some(wall_clock_ms().saturating_sub(millis).max(0))),
        ResetTo::Time(time) => (Aim::Found(None), Some(time)),
    };
    let partitions = scope(admin, args, committed).await?;
    let Some(time) = time else {
        return Ok(partitions.into_iter().map(|key| (key, aim)).collect());
    };
    let found = all(admin.list_offsets_at(partitions, OffsetAt::Timestamp(time)).await)?;
    Ok(found.into_iter().map(|(key, listed)| (key, Aim::Found(listed.offset))).collect())
}

async fn aims_of_file(path: PathBuf, group: &str) -> Result<BTreeMap<TopicPartition, Aim>, CliError> {
    let shown = path.display().to_string();
    let offsets = file::parse(&read(path).await?, group);
    let offsets = offsets.map_err(|error| CliError::of(format_args!("{shown}: {error}")))?;
    Ok(offsets.into_iter().map(|(key, offset)| (key, Aim::Offset(offset))).collect())
}

/// The partitions that the command line names.
async fn scope(
    admin: &Admin,
    args: &GroupResetArgs,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<Vec<TopicPartition>, CliError> {
    let mut partitions = Vec::new();
    if args.all_topics {
        partitions.extend(committed.keys().cloned());
    }
    for scope in &args.topic {
        partitions.extend(partitions_of(admin, &scope.topic, scope.partitions.as_deref()).await?);
    }
    if partitions.is_empty() {
        let group = &args.group;
        return Err(CliError::of(format_args!(
            "group {group} has committed nothing; name topics with --topic, see `heizer group list`"
        )));
    }
    Ok(partitions)
}

async fn rows(
    admin: &Admin,
    aims: BTreeMap<TopicPartition, Aim>,
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<Vec<Row>, CliError> {
    let partitions = || aims.keys().cloned();
    let starts = all(admin.list_offsets_at(partitions(), OffsetAt::Earliest).await)?;
    let ends = all(admin.list_offsets_at(partitions(), OffsetAt::Latest).await)?;
    let offset = |of: &BTreeMap<TopicPartition, ListedOffset>, key: &TopicPartition| {
        of.get(key).and_then(|listed| listed.offset).unwrap_or(0)
    };
    let mut rows = Vec::with_capacity(aims.len());
    for (key, aim) in &aims {
        let current = committed.get(key).map(|found| found.offset);
        let known = Known { committed: current, earliest: offset(&starts, key), latest: offset(&ends, key) };
        let Planned { offset: new, note } = plan(*aim, known).ok_or_else(|| {
            let (topic, partition) = key;
            CliError::of(format_args!(
                "nothing is committed for {topic}-{partition} that could be shifted; give --to-offset, or leave it out"
            ))
        })?;
        rows.push(Row { topic: key.0.clone(), partition: key.1, current, new, note });
    }
    Ok(rows)
}

/// A file as it is; `-` is standard input.
async fn read(path: PathBuf) -> Result<String, CliError> {
    let shown = path.display().to_string();
    let failed = |error: io::Error| {
        CliError::of(format_args!("{shown}: {error}; name a file with lines of topic,partition,offset"))
    };
    let helper = Helper::start("file").map_err(failed)?;
    helper.run(move || read_bounded(&path)).await.map_err(failed)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(path)?),
    };
    let mut text = String::new();
    source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn export(rows: &[Row]) -> String {
    rows.iter().map(|row| file::line(&(row.topic.clone(), row.partition), row.new)).collect()
}

fn text(group: &str, rows: &[Row], executed: bool) -> String {
    let mut table = Table::new(["TOPIC", "PARTITION", "CURRENT", "NEW", "CHANGE", "NOTE"]);
    for row in rows {
        table.row([
            row.topic.clone(),
            row.partition.to_string(),
            cell(row.current),
            row.new.to_string(),
            cell(row.current.map(|current| format!("{:+}", row.new - current))),
            row.note.unwrap_or_default().to_owned(),
        ]);
    }
    let mut text = String::new();
    table.write("", &mut text);
    text.push_str(&match executed {
        true => format!("group {group} goes on at these offsets\n"),
        false => "nothing was changed; add --execute to do it\n".to_owned(),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row =
            |partition, current, new, note| Row { topic: "t".to_owned(), partition, current, new, note };
        vec![row(0, Some(20), 15, None), row(1, None, 0, Some("why")), row(10, Some(3), 3, None)]
    }

    #[test]
    fn a_reset_shows_what_changes_and_whether_it_has() {
        let shown = "TOPIC  PARTITION  CURRENT  NEW  CHANGE  NOTE\n\
                     t              0       20   15      -5\n\
                     t              1        -    0       -  why\n\
                     t             10        3    3      +0\n";
        let dry = text("g", &rows(), false);
        assert_eq!(dry, format!("{shown}nothing was changed; add --execute to do it\n"));
        assert_eq!(text("g", &rows(), true), format!("{shown}group g goes on at these offsets\n"));
    }

    #[test]
    fn an_export_is_what_from_file_reads() {
        let parsed = file::parse(&export(&rows()), "g").expect("parses");
        let offsets: Vec<(i32, i64)> =
            parsed.into_iter().map(|((_, index), offset)| (index, offset)).collect();
        assert_eq!(offsets, [(0, 15), (1, 0), (10, 3)]);
    }

    #[test]
    fn a_file_is_read_as_it_is_or_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("offsets.csv");
        std::fs::write(&path, "t,0,1\n").expect("written");
        assert_eq!(read_bounded(&path).expect("read"), "t,0,1\n");
        std::fs::write(&path, [0xff]).expect("written");
        assert!(read_bounded(&path).is_err(), "no text");
        assert!(read_bounded(&dir.path().join("missing")).is_err());
    }
}
