//! `heizer produce`: each line of standard input is a record.

use std::future::{Future, poll_fn};
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use heizer_client::{
    Acks, Client, ClientError, Delivered, Delivery, Producer, ProducerConfig, ProducerRecord, RecordHeader,
};
use heizer_runtime::host;
use heizer_runtime::time::{Instant, now, sleep_until};

use super::args::ProduceArgs;
use super::error::CliError;
use super::lines::Lines;
use super::parse::Parser;
use super::partitions::check_partition;
use super::progress::Progress;
use super::stdio::Input;

/// The longest line. What the broker takes is the topic's max.message.bytes.
const LINE_BYTES_MAX: usize = 128 << 20;
const BATCH_BYTES: usize = 64 << 10;
const BUFFER_BYTES_MAX: usize = 32 << 20;

pub(super) async fn run(client: Client, args: ProduceArgs) -> Result<(), CliError> {
    let acks: Acks = args.acks.into();
    let config = ProducerConfig {
        acks,
        compression: args.compression.into(),
        idempotence: acks == Acks::All,
        batch_bytes: BATCH_BYTES,
        // The producer has room for the next record once less than the difference is waiting.
        buffer_bytes_max: LINE_BYTES_MAX + BUFFER_BYTES_MAX,
        request_bytes_max: LINE_BYTES_MAX,
        ..ProducerConfig::default()
    };
    if let Some(partition) = args.partition {
        // One that isn't there would be waited for. The topic may be about to be created.
        check_partition(&client, &args.topic, partition, true).await?;
    }
    let typed = io::stdin().is_terminal();
    if typed && io::stderr().is_terminal() {
        eprintln!("heizer: a record a line; Ctrl-D ends");
    }
    let mut session = Session {
        producer: Producer::new(&client, config),
        client,
        parser: Parser {
            format: args.format,
            key_separator: args.key_separator.clone(),
            null_marker: args.null_marker.clone(),
        },
        headers: args.header.iter().map(|(name, value)| header(name, value, &args)).collect(),
        pace: args.rate.map(|rate| Pace { interval: Duration::from_secs(1) / rate, due: now() }),
        args,
        deliveries: FuturesUnordered::new(),
        lines_read: 0,
        delivered: 0,
        progress: if typed { Progress::silent() } else { Progress::start() },
    };
    let outcome = session.send_input().await;
    // What was read before an error or a signal is still sent.
    let settled = session.settle().await;
    session.progress.clear();
    if io::stderr().is_terminal() {
        eprintln!("heizer: {} records sent to {}", session.delivered, session.args.topic);
    }
    outcome.and(settled)
}

struct Session {
    client: Client,
    producer: Producer,
    args: ProduceArgs,
    parser: Parser,
    /// For every record.
    headers: Vec<RecordHeader>,
    pace: Option<Pace>,
    deliveries: FuturesUnordered<Delivery>,
    lines_read: u64,
    delivered: u64,
    progress: Progress,
}

/// When the next record may be sent.
struct Pace {
    interval: Duration,
    due: Instant,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    More,
    /// A signal has come.
    Stop,
}

impl Session {
    /// Until the input ends, a record fails or a signal comes.
    async fn send_input(&mut self) -> Result<(), CliError> {
        let input = Input::open()?;
        let mut lines = Lines::default();
        while let Some(chunk) = self.read(&input).await? {
            let ended = chunk.is_empty();
            lines.push(&chunk);
            while let Some(line) = lines.next().or_else(|| ended.then(|| lines.finish()).flatten()) {
                if self.send(line).await? == Next::Stop {
                    return Ok(());
                }
            }
            if ended {
                return Ok(());
            }
            if lines.pending_bytes() > LINE_BYTES_MAX {
                let line = self.lines_read + 1;
                return Err(CliError::of(format_args!("line {line} is longer than {LINE_BYTES_MAX} bytes")));
            }
        }
        Ok(())
    }

    /// The next chunk, empty at the end of the input; none when a signal comes.
    async fn read(&mut self, input: &Input) -> Result<Option<Bytes>, CliError> {
        let (mut reading, mut shutdown) = (pin!(input.read()), pin!(host::shutdown()));
        loop {
            let settled = next(&mut self.deliveries);
            match select(reading.as_mut(), select(shutdown.as_mut(), settled)).await {
                Either::Left((chunk, _)) => return chunk.map(Some),
                Either::Right((Either::Left(_), _)) => return Ok(None),
                Either::Right((Either::Right((outcome, _)), _)) => tally(&mut self.delivered, outcome)?,
            }
        }
    }

    async fn send(&mut self, line: Bytes) -> Result<Next, CliError> {
        self.lines_read += 1;
        let number = self.lines_read;
        let parsed = self.parser.parse(&line);
        let mut parsed =
            parsed.map_err(|error| CliError::of(format_args!("line {number} of the input: {error}")))?;
        if self.args.partition.is_none()
            && let Some(partition) = parsed.partition
        {
            let checked = check_partition(&self.client, &self.args.topic, partition, true).await;
            checked.map_err(|error| CliError::of(format_args!("line {number} of the input: {error}")))?;
        }
        if self.wait_for_turn().await == Next::Stop {
            return Ok(Next::Stop);
        }
        parsed.headers.extend_from_slice(&self.headers);
        self.producer.ready().await;
        self.deliveries.push(self.producer.send(ProducerRecord {
            topic: self.args.topic.clone(),
            partition: self.args.partition.or(parsed.partition),
            key: parsed.key,
            value: parsed.value,
            headers: parsed.headers,
            timestamp: self.args.timestamp.or(parsed.timestamp),
        }));
        // Those already settled cost memory until they are looked at.
        while let Some(Some(outcome)) = self.deliveries.next().now_or_never() {
            tally(&mut self.delivered, outcome)?;
        }
        self.progress.tell(format_args!("{} records sent to {}", self.delivered, self.args.topic));
        Ok(Next::More)
    }

    /// At most so many a second as were asked for.
    async fn wait_for_turn(&mut self) -> Next {
        let Some(pace) = &mut self.pace else { return Next::More };
        let due = pace.due;
        // Time that the input took is not made up for.
        pace.due = due.max(now()) + pace.interval;
        if due <= now() {
            return Next::More;
        }
        match select(pin!(sleep_until(due)), pin!(host::shutdown())).await {
            Either::Left(_) => Next::More,
            Either::Right(_) => Next::Stop,
        }
    }

    /// Waits for everything sent; the first error, if any.
    async fn settle(&mut self) -> Result<(), CliError> {
        self.producer.flush().await;
        let mut first = Ok(());
        while let Some(outcome) = self.deliveries.next().await {
            first = first.and(tally(&mut self.delivered, outcome));
        }
        first
    }
}

/// A header for every record; its value may be null as any value may.
fn header(name: &str, value: &str, args: &ProduceArgs) -> RecordHeader {
    let null = args.null_marker.as_deref() == Some(value);
    RecordHeader {
        key: Bytes::copy_from_slice(name.as_bytes()),
        value: (!null).then(|| Bytes::copy_from_slice(value.as_bytes())),
    }
}

/// The next delivery that settles; never, while there is none.
fn next(
    deliveries: &mut FuturesUnordered<Delivery>,
) -> impl Future<Output = Result<Delivered, ClientError>> + Unpin {
    poll_fn(|cx| match deliveries.poll_next_unpin(cx) {
        Poll::Ready(Some(outcome)) => Poll::Ready(outcome),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    })
}

fn tally(delivered: &mut u64, outcome: Result<Delivered, ClientError>) -> Result<(), CliError> {
    outcome?;
    *delivered += 1;
    Ok(())
}
