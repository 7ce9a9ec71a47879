//! `heizer consume`: records to standard output.

use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::{Either, select};
use heizer_client::{
    Client, ClientError, ConsumedRecord, Consumer, ConsumerConfig, GroupConfig, GroupConsumer, StartOffset,
};
use heizer_runtime::{host, time};

use super::args::ConsumeArgs;
use super::error::CliError;
use super::format::Format;
use super::partitions::check_partition;
use super::progress::Progress;
use super::stdio::Output;

/// How long one poll waits.
const POLL: Duration = Duration::from_secs(1);

pub(super) async fn run(client: Client, args: ConsumeArgs) -> Result<(), CliError> {
    let mut source = Source::open(&client, &args).await?;
    let mut written = 0;
    let outcome = copy(&mut source, &args, &mut written).await;
    let closed = source.close(outcome.is_ok()).await;
    if io::stderr().is_terminal() {
        eprintln!("heizer: {written} records from {}", args.topic);
    }
    outcome.and(closed)
}

/// Until a signal comes, enough have been written, or nothing has come for long enough.
async fn copy(source: &mut Source, args: &ConsumeArgs, written: &mut u64) -> Result<(), CliError> {
    let output = Output::open()?;
    let format = Format::of(args);
    // Where records are on the terminal, they tell themselves.
    let progress = if io::stdout().is_terminal() { Progress::silent() } else { Progress::start() };
    let silence_max = args.timeout_ms.map(Duration::from_millis);
    let mut heard = time::now();
    while args.max_messages.is_none_or(|max| *written < max) {
        let silence = time::now().saturating_duration_since(heard);
        if silence_max.is_some_and(|max| silence >= max) {
            return Ok(());
        }
        let wait = silence_max.map_or(POLL, |max| POLL.min(max.saturating_sub(silence)));
        let mut records = match select(pin!(source.poll(wait)), pin!(host::shutdown())).await {
            Either::Left((records, _)) => records?,
            Either::Right(_) => return Ok(()),
        };
        if records.is_empty() {
            continue;
        }
        heard = time::now();
        let left = args.max_messages.map_or(u64::MAX, |max| max - *written);
        records.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let mut text = BytesMut::new();
        records.iter().for_each(|record| format.write(record, &mut text));
        output.write(text.freeze()).await?;
        *written += records.len() as u64;
        progress.tell(format_args!("{written} records from {}", args.topic));
    }
    Ok(())
}

/// Where records come from.
enum Source {
    /// Partitions assigned by us.
    Partitions(Consumer),
    /// Partitions assigned by a group. It commits what has been handed out when it is polled again: by then we have
    /// written it.
    Group(Box<GroupConsumer>),
}

impl Source {
    async fn open(client: &Client, args: &ConsumeArgs) -> Result<Source, CliError> {
        let start = match args.from_timestamp {
            Some(time) => StartOffset::Timestamp(time),
            None if args.from_beginning => StartOffset::Earliest,
            None => StartOffset::Latest,
        };
        let mut config = ConsumerConfig { offset_reset: Some(start), ..ConsumerConfig::default() };
        let Some(group) = &args.group else {
            let mut consumer = Consumer::new(client, config);
            match args.partition {
                None => consumer.assign_topic(&args.topic, start).await?,
                Some(partition) => {
                    let start = args.offset.map_or(start, StartOffset::At);
                    check_partition(client, &args.topic, partition, false).await?;
                    consumer.assign(&[(&args.topic, partition, start)]).await?;
                }
            }
            return Ok(Source::Partitions(consumer));
        };
        if args.max_messages.is_some() {
            // One at a time: nothing is handed out, and so committed, that is not written.
            config.poll_records_max = 1;
        }
        let group = GroupConfig {
            offset_reset: start,
            consumer: config,
            ..GroupConfig::new(group.as_str(), [args.topic.as_str()])
        };
        Ok(Source::Group(Box::new(GroupConsumer::new(client, group))))
    }

    async fn poll(&mut self, wait: Duration) -> Result<Vec<ConsumedRecord>, ClientError> {
        match self {
            Source::Partitions(consumer) => consumer.poll(wait).await,
            Source::Group(consumer) => consumer.poll(wait).await,
        }
    }

    /// Leaves the group, and commits what was handed out if all of it was `written`.
    async fn close(self, written: bool) -> Result<(), CliError> {
        match self {
            Source::Partitions(_) => {}
            Source::Group(consumer) if written => consumer.close().await?,
            Source::Group(consumer) => consumer.leave().await?,
        }
        Ok(())
    }
}
