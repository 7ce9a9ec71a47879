//! `heizer produce`: each line of standard input is a record.

use std::future::{Future, poll_fn};
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use heizer_client::{
    Acks, Client, ClientError, Delivered, Delivery, Producer, ProducerConfig, ProducerRecord,
};
use heizer_runtime::host;

use super::args::ProduceArgs;
use super::error::CliError;
use super::lines::{Lines, split_key};
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
    let mut session = Session {
        producer: Producer::new(&client, config),
        args,
        deliveries: FuturesUnordered::new(),
        lines_read: 0,
        delivered: 0,
    };
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        eprintln!("heizer: a record a line; Ctrl-D ends");
    }
    let outcome = session.send_input().await;
    // What was read before an error or a signal is still sent.
    let settled = session.settle().await;
    if io::stderr().is_terminal() {
        eprintln!("heizer: {} records sent to {}", session.delivered, session.args.topic);
    }
    outcome.and(settled)
}

struct Session {
    producer: Producer,
    args: ProduceArgs,
    deliveries: FuturesUnordered<Delivery>,
    lines_read: u64,
    delivered: u64,
}

impl Session {
    /// Until the input ends, a record fails or a signal comes.
    async fn send_input(&mut self) -> Result<(), CliError> {
        let input = Input::open()?;
        let mut lines = Lines::default();
        while let Some(chunk) = self.read(&input).await? {
            if chunk.is_empty() {
                return match lines.finish() {
                    Some(line) => self.send(line).await,
                    None => Ok(()),
                };
            }
            lines.push(&chunk);
            while let Some(line) = lines.next() {
                self.send(line).await?;
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

    async fn send(&mut self, line: Bytes) -> Result<(), CliError> {
        self.lines_read += 1;
        let (key, value) = match &self.args.key_separator {
            None => (None, line),
            Some(separator) => match split_key(&line, separator.as_bytes()) {
                Some((key, value)) => (Some(key), value),
                None => {
                    let line = self.lines_read;
                    let missing = format_args!(
                        "line {line} of the input has no key separator `{separator}`; give the one it has with \
                         --key-separator"
                    );
                    return Err(CliError::of(missing));
                }
            },
        };
        self.producer.ready().await;
        let record = ProducerRecord {
            partition: self.args.partition,
            ..ProducerRecord::new(self.args.topic.as_str(), key, Some(value))
        };
        self.deliveries.push(self.producer.send(record));
        // Those already settled cost memory until they are looked at.
        while let Some(Some(outcome)) = self.deliveries.next().now_or_never() {
            tally(&mut self.delivered, outcome)?;
        }
        Ok(())
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
