//! `heizer topic offsets`.

use heizer_client::{Admin, ListedOffset, OffsetAt, PerPartition};
use serde::Serialize;

use crate::admin::args::{ListingFormat, OffsetsArgs};
use crate::admin::error::CliError;
use crate::admin::partitions::{failure, partitions_of};
use crate::admin::stdio::Report;
use crate::admin::table::{self, Table, cell};
use crate::admin::when::show_moment;

/// Where a partition starts and ends.
#[derive(Serialize)]
struct Ends<'a> {
    topic: &'a str,
    partition: i32,
    earliest: Option<i64>,
    latest: Option<i64>,
    error: Option<String>,
}

/// Where in a partition what was looked for is.
#[derive(Serialize)]
struct Found<'a> {
    topic: &'a str,
    partition: i32,
    offset: Option<i64>,
    timestamp: Option<i64>,
    error: Option<String>,
}

pub(super) async fn run(admin: &Admin, args: &OffsetsArgs) -> Result<Report, CliError> {
    let wanted = Some(args.partition.as_slice()).filter(|wanted| !wanted.is_empty());
    let partitions = partitions_of(admin, &args.name, wanted).await?;
    let Some(at) = args.time else {
        let earliest = admin.list_offsets_at(partitions.clone(), OffsetAt::Earliest).await;
        let latest = admin.list_offsets_at(partitions, OffsetAt::Latest).await;
        let failure = failure(&earliest).or_else(|| failure(&latest));
        let rows = ends(&earliest, &latest);
        return Ok(match args.listing.output {
            ListingFormat::Text => Report::new(ends_text(&rows), failure),
            ListingFormat::Json => Report::new(table::json(&rows), failure),
        });
    };
    let listed = admin.list_offsets_at(partitions, at).await;
    let (rows, failure) = (found(&listed), failure(&listed));
    Ok(match args.listing.output {
        ListingFormat::Text => Report::new(found_text(&rows, at), failure),
        ListingFormat::Json => Report::new(table::json(&rows), failure),
    })
}

fn ends<'a>(earliest: &'a PerPartition<ListedOffset>, latest: &PerPartition<ListedOffset>) -> Vec<Ends<'a>> {
    let rows = earliest.iter().map(|(key, earliest)| {
        let latest = latest.get(key);
        let error = earliest.as_ref().err().or_else(|| latest?.as_ref().err());
        Ends {
            topic: &key.0,
            partition: key.1,
            earliest: earliest.as_ref().ok().and_then(|listed| listed.offset),
            latest: latest.and_then(|listed| listed.as_ref().ok()?.offset),
            error: error.map(ToString::to_string),
        }
    });
    rows.collect()
}

fn ends_text(rows: &[Ends<'_>]) -> String {
    let mut table = Table::new(["PARTITION", "EARLIEST", "LATEST", "ERROR"]);
    for row in rows {
        let error = row.error.clone().unwrap_or_default();
        table.row([row.partition.to_string(), cell(row.earliest), cell(row.latest), error]);
    }
    let mut text = String::new();
    table.write("", &mut text);
    text
}

fn found(listed: &PerPartition<ListedOffset>) -> Vec<Found<'_>> {
    let rows = listed.iter().map(|(key, listed)| Found {
        topic: &key.0,
        partition: key.1,
        offset: listed.as_ref().ok().and_then(|listed| listed.offset),
        timestamp: listed.as_ref().ok().and_then(|listed| listed.timestamp),
        error: listed.as_ref().err().map(ToString::to_string),
    });
    rows.collect()
}

fn found_text(rows: &[Found<'_>], at: OffsetAt) -> String {
    // Of a partition's ends no record has a timestamp.
    let of_record = !matches!(at, OffsetAt::Earliest | OffsetAt::Latest);
    let mut table = Table::new(["PARTITION", "OFFSET", "TIMESTAMP", "TIME", "ERROR"]);
    for row in rows {
        let (timestamp, time) = match of_record {
            true => (cell(row.timestamp), cell(row.timestamp.map(show_moment))),
            false => (String::new(), String::new()),
        };
        let error = row.error.clone().unwrap_or_default();
        table.row([row.partition.to_string(), cell(row.offset), timestamp, time, error]);
    }
    let mut text = String::new();
    table.write("", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use heizer_client::ClientError;

    use super::*;

    fn listed(
        partition: i32,
        offset: i64,
        timestamp: i64,
    ) -> ((String, i32), Result<ListedOffset, ClientError>) {
        let known = |value: i64| Some(value).filter(|&value| value >= 0);
        let listed = ListedOffset { offset: known(offset), timestamp: known(timestamp) };
        (("t".to_owned(), partition), Ok(listed))
    }

    #[test]
    fn partitions_are_shown_from_where_to_where_they_go() {
        let earliest = PerPartition::from([listed(0, 5, -1), listed(1, 0, -1)]);
        let latest = PerPartition::from([listed(0, 1000, -1), listed(1, 0, -1)]);
        assert_eq!(
            ends_text(&ends(&earliest, &latest)),
            "PARTITION  EARLIEST  LATEST\n        0         5    1000\n        1         0       0\n"
        );
    }

    #[test]
    fn what_was_looked_for_has_its_time_and_what_was_not_found_a_dash() {
        let rows = PerPartition::from([listed(0, 5, 1_000), listed(1, -1, -1)]);
        assert_eq!(
            found_text(&found(&rows), OffsetAt::Timestamp(7)),
            "PARTITION  OFFSET  TIMESTAMP  TIME\n\
             \x20       0       5       1000  1970-01-01T00:00:01Z\n\
             \x20       1       -          -  -\n"
        );
        assert_eq!(
            found_text(&found(&rows), OffsetAt::Earliest),
            "PARTITION  OFFSET\n        0       5\n        1       -\n"
        );
        let json = serde_json::to_string(&found(&rows)).expect("json");
        assert!(
            json.ends_with(r#"{"topic":"t","partition":1,"offset":null,"timestamp":null,"error":null}]"#),
            "{json}"
        );
    }
}
