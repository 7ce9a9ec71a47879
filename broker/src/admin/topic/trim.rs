//! `heizer topic trim`.

use std::collections::BTreeMap;

use heizer_client::{Admin, ListedOffset, OffsetAt, PerPartition, TopicPartition};
use serde::Serialize;

use crate::admin::args::{ListingFormat, TrimArgs};
use crate::admin::error::CliError;
use crate::admin::partitions::{all, failure, partitions_of};
use crate::admin::stdio::Report;
use crate::admin::table::{self, Table, cell};

/// Where a partition started, and where it starts then.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Trimmed {
    topic: String,
    partition: i32,
    start: i64,
    new_start: Option<i64>,
    error: Option<String>,
}

pub(super) async fn run(admin: &Admin, args: &TrimArgs) -> Result<Report, CliError> {
    let targets = targets(admin, args).await?;
    let partitions = || targets.keys().cloned();
    let starts = all(admin.list_offsets_at(partitions(), OffsetAt::Earliest).await)?;
    let ends = all(admin.list_offsets_at(partitions(), OffsetAt::Latest).await)?;
    let (rows, failure) = if args.dry_run {
        let foretold = foretell(&targets, &starts, &ends)?;
        (foretold.iter().map(|(key, start)| row(key, &starts, Ok(*start))).collect(), None)
    } else {
        let done = admin.delete_records(&targets).await;
        (rows(&done, &starts), failure(&done))
    };
    Ok(match args.listing.output {
        ListingFormat::Text => Report::new(text(&rows, args.dry_run), failure),
        ListingFormat::Json => Report::new(table::json(&rows), failure),
    })
}

/// The offset below which records go, of each partition; none where all there are go.
async fn targets(admin: &Admin, args: &TrimArgs) -> Result<BTreeMap<TopicPartition, Option<i64>>, CliError> {
    if !args.to_offset.is_empty() {
        let wanted: Vec<i32> = args.to_offset.iter().map(|(partition, _)| *partition).collect();
        partitions_of(admin, &args.name, Some(&wanted)).await?;
        let mut targets = BTreeMap::new();
        for &(partition, offset) in &args.to_offset {
            if targets.insert((args.name.clone(), partition), Some(offset)).is_some() {
                return Err(CliError::Usage(format!("--to-offset names partition {partition} twice")));
            }
        }
        return Ok(targets);
    }
    let wanted = Some(args.partition.as_slice()).filter(|wanted| !wanted.is_empty());
    let partitions = partitions_of(admin, &args.name, wanted).await?;
    let Some(time) = args.to_datetime else {
        return Ok(partitions.into_iter().map(|partition| (partition, None)).collect());
    };
    // Where no record is as new as that, all are older.
    let found = all(admin.list_offsets_at(partitions, OffsetAt::Timestamp(time)).await)?;
    Ok(found.into_iter().map(|(partition, listed)| (partition, listed.offset)).collect())
}

/// Where partitions would start, as the leaders would have it.
fn foretell(
    targets: &BTreeMap<TopicPartition, Option<i64>>,
    starts: &BTreeMap<TopicPartition, ListedOffset>,
    ends: &BTreeMap<TopicPartition, ListedOffset>,
) -> Result<BTreeMap<TopicPartition, i64>, CliError> {
    let mut foretold = BTreeMap::new();
    for (key, target) in targets {
        let known = |of: &BTreeMap<TopicPartition, ListedOffset>| of.get(key).and_then(|found| found.offset);
        let (start, end) = (known(starts).unwrap_or(0), known(ends).unwrap_or(0));
        let target = target.unwrap_or(end);
        if target > end {
            let (topic, partition) = key;
            return Err(CliError::of(format_args!(
                "{topic}-{partition} ends at offset {end}, in front of {target}; give an offset up to {end}"
            )));
        }
        foretold.insert(key.clone(), target.max(start));
    }
    Ok(foretold)
}

fn rows(done: &PerPartition<i64>, starts: &BTreeMap<TopicPartition, ListedOffset>) -> Vec<Trimmed> {
    let rows = done
        .iter()
        .map(|(key, outcome)| row(key, starts, outcome.as_ref().copied().map_err(ToString::to_string)));
    rows.collect()
}

fn row(
    key: &TopicPartition,
    starts: &BTreeMap<TopicPartition, ListedOffset>,
    outcome: Result<i64, String>,
) -> Trimmed {
    Trimmed {
        topic: key.0.clone(),
        partition: key.1,
        start: starts.get(key).and_then(|found| found.offset).unwrap_or(0),
        new_start: outcome.as_ref().ok().copied(),
        error: outcome.err(),
    }
}

fn text(rows: &[Trimmed], dry_run: bool) -> String {
    let mut table = Table::new(["PARTITION", "START", "NEW-START", "DELETED", "ERROR"]);
    for row in rows {
        table.row([
            row.partition.to_string(),
            row.start.to_string(),
            cell(row.new_start),
            cell(row.new_start.map(|new_start| (new_start - row.start).max(0))),
            row.error.clone().unwrap_or_default(),
        ]);
    }
    let mut text = String::new();
    table.write("", &mut text);
    if dry_run {
        text.push_str("nothing was deleted; without --dry-run it is\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(of: &[(i32, i64)]) -> BTreeMap<TopicPartition, ListedOffset> {
        let listed = |offset| ListedOffset { offset: Some(offset), timestamp: None };
        of.iter().map(|&(partition, offset)| (("t".to_owned(), partition), listed(offset))).collect()
    }

    fn targets(of: &[(i32, Option<i64>)]) -> BTreeMap<TopicPartition, Option<i64>> {
        of.iter().map(|&(partition, target)| (("t".to_owned(), partition), target)).collect()
    }

    #[test]
    fn a_dry_run_says_what_leaders_would_do() {
        let (starts, ends) = (offsets(&[(0, 5), (1, 7), (2, 0)]), offsets(&[(0, 10), (1, 9), (2, 0)]));
        let asked = targets(&[(0, Some(8)), (1, Some(3)), (2, None)]);
        let foretold = foretell(&asked, &starts, &ends).expect("all within");
        assert_eq!(foretold.values().copied().collect::<Vec<_>>(), [8, 7, 0]);
        let rows: Vec<Trimmed> = foretold.iter().map(|(key, start)| row(key, &starts, Ok(*start))).collect();
        assert_eq!(
            text(&rows, true),
            "PARTITION  START  NEW-START  DELETED\n\
             \x20       0      5          8        3\n\
             \x20       1      7          7        0\n\
             \x20       2      0          0        0\n\
             nothing was deleted; without --dry-run it is\n"
        );
        let error = foretell(&targets(&[(1, Some(10))]), &starts, &ends).expect_err("beyond the end");
        assert!(error.to_string().contains("t-1 ends at offset 9"), "{error}");
    }
}
