//! What can go wrong, always with the address and the API it concerns.

use std::io;
use std::rc::Rc;

use heizer_wire::{ApiKey, DecodeError, ErrorCode};

/// An operation of the client that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// An address that can't be turned into one to connect to.
    #[error("{addr}: not an address of the form host:port that resolves: {reason}")]
    Address {
        /// As configured, or as a broker advertised it.
        addr: String,
        /// Why not.
        reason: String,
    },
    /// No connection could be made.
    #[error("{addr}: cannot connect: {source}")]
    Connect {
        /// The broker.
        addr: String,
        /// What the system said.
        source: Rc<io::Error>,
    },
    /// The connection ended before the answer.
    #[error("{addr}: connection lost before the answer to {api}: {source}")]
    Lost {
        /// The broker.
        addr: String,
        /// The request.
        api: ApiKey,
        /// What the system said.
        source: Rc<io::Error>,
    },
    /// No answer in time.
    #[error("{addr}: no answer to {api} within {after_ms} ms")]
    Timeout {
        /// The broker.
        addr: String,
        /// The request.
        api: ApiKey,
        /// The time given.
        after_ms: u64,
    },
    /// An answer that doesn't parse.
    #[error("{addr}: malformed answer to {api}: {source}")]
    Decode {
        /// The broker.
        addr: String,
        /// The request.
        api: ApiKey,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The broker and this client have no version of the API in common.
    #[error("{addr}: the broker serves no version of {api} that this client speaks")]
    Unsupported {
        /// The broker.
        addr: String,
        /// The request.
        api: ApiKey,
    },
    /// The broker answered with an error.
    #[error("{addr}: {api} of {subject}: {code}{}", detail(message))]
    Broker {
        /// The broker.
        addr: String,
        /// The request.
        api: ApiKey,
        /// The topic, partition or group that the error is about.
        subject: String,
        /// Kafka's error.
        code: ErrorCode,
        /// The broker's own words, if any.
        message: Option<String>,
    },
    /// The metadata doesn't (yet) say who leads a partition, or who a broker is.
    #[error("no leader known for {0}")]
    NoLeader(String),
    /// A topic that doesn't exist, and was not to be created.
    #[error("topic {0} does not exist")]
    UnknownTopic(String),
    /// A partition that its topic doesn't have.
    #[error("topic {topic} has no partition {partition}; it has {count}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// How many there are.
        count: usize,
    },
    /// A broker that the cluster doesn't have.
    #[error("the cluster has no broker {0}")]
    UnknownBroker(i32),
    /// An answer that doesn't say what was asked.
    #[error("{addr}: the answer leaves out {subject}")]
    Incomplete {
        /// The broker.
        addr: String,
        /// What it should have been about.
        subject: String,
    },
    /// Tried until the deadline.
    #[error("gave up on {what} after {after_ms} ms; last: {last}")]
    Deadline {
        /// What was tried.
        what: String,
        /// The time given.
        after_ms: u64,
        /// The last failure.
        last: Box<ClientError>,
    },
    /// The producer's buffer is full: await [`crate::Producer::ready`] before sending more.
    #[error("the producer's buffer of {0} bytes is full")]
    BufferFull(usize),
    /// A record larger than a request may be.
    #[error("a record of {bytes} bytes is above max.request.size of {max}")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A record batch that doesn't parse.
    #[error("{topic}-{partition}: malformed record batch near offset {offset}: {reason}")]
    Batch {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The producer or consumer was closed.
    #[error("closed")]
    Closed,
}

fn detail(message: &Option<String>) -> String {
    message.as_ref().map(|message| format!(" ({message})")).unwrap_or_default()
}

impl ClientError {
    pub(crate) fn incomplete(addr: &str, subject: String) -> ClientError {
        ClientError::Incomplete { addr: addr.to_owned(), subject }
    }

    /// Whether trying again, perhaps with fresh metadata, can help.
    pub fn retriable(&self) -> bool {
        match self {
            ClientError::Connect { .. }
            | ClientError::Lost { .. }
            | ClientError::Timeout { .. }
            | ClientError::NoLeader(_) => true,
            ClientError::Broker { code, .. } => code.retriable(),
            _ => false,
        }
    }

    /// Kafka's error code, when the broker answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Broker { code, .. } => Some(*code),
            ClientError::Deadline { last, .. } => last.code(),
            _ => None,
        }
    }
}

/// `Ok` when `code` is none.
pub(crate) fn check(
    addr: &str,
    api: ApiKey,
    subject: impl FnOnce() -> String,
    code: i16,
    message: Option<&str>,
) -> Result<(), ClientError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(ClientError::Broker {
            addr: addr.to_owned(),
            api,
            subject: subject(),
            code,
            message: message.map(str::to_owned),
        }),
    }
}
