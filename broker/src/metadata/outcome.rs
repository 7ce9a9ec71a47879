//! What commands answer, and its bytes on the way from the state machine to the proposer.

use super::names::TopicNameError;
use bytes::Bytes;
use heizer_raft::codec::{DecodeError, Reader, Writer};

/// Why the cluster's state refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The name breaks a rule (INVALID_TOPIC_EXCEPTION).
    #[error("{0}")]
    InvalidTopicName(TopicNameError),
    /// The name differs from an existing topic's in `.` and `_` only (INVALID_TOPIC_EXCEPTION).
    #[error("the name collides with existing topic {existing}")]
    NameCollision {
        /// The other topic.
        existing: String,
    },
    /// TOPIC_ALREADY_EXISTS.
    #[error("the topic exists already")]
    TopicExists,
    /// The proposer drew an id that is taken, or nil: it should draw again.
    #[error("the topic id is in use")]
    TopicIdInUse,
    /// UNKNOWN_TOPIC_ID.
    #[error("no topic has this id")]
    UnknownTopicId,
    /// INVALID_PARTITIONS.
    #[error("invalid number of partitions")]
    InvalidPartitions,
    /// INVALID_REPLICATION_FACTOR.
    #[error("invalid replication factor")]
    InvalidReplicationFactor,
    /// INVALID_REPLICA_ASSIGNMENT.
    #[error("invalid replica assignment")]
    InvalidReplicaAssignment,
    /// INVALID_REQUEST.
    #[error("a field is out of range")]
    InvalidRequest,
    /// No producer id is left.
    #[error("producer ids are exhausted")]
    ProducerIdsExhausted,
    /// A command that this version doesn't know.
    #[error("unknown command")]
    UnknownCommand,
}

/// The answer to a cluster command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterOutcome {
    /// It was done.
    Done,
    /// To RegisterBroker.
    BrokerRegistered {
        /// The broker's epoch from now on.
        epoch: i64,
    },
    /// To AllocateProducerIds.
    ProducerIds {
        /// First id of the block.
        first: i64,
        /// Size of the block.
        count: u32,
    },
    /// To SetClusterId.
    ClusterId {
        /// The id that the cluster has.
        id: String,
    },
    /// Nothing was changed.
    Rejected(ClusterError),
}

const NAME_ERRORS: [TopicNameError; 4] =
    [TopicNameError::Empty, TopicNameError::Dots, TopicNameError::TooLong, TopicNameError::Character];

/// Errors without a payload, by their number on the way.
const PLAIN_ERRORS: [ClusterError; 9] = [
    ClusterError::TopicExists,
    ClusterError::TopicIdInUse,
    ClusterError::UnknownTopicId,
    ClusterError::InvalidPartitions,
    ClusterError::InvalidReplicationFactor,
    ClusterError::InvalidReplicaAssignment,
    ClusterError::InvalidRequest,
    ClusterError::ProducerIdsExhausted,
    ClusterError::UnknownCommand,
];

impl ClusterOutcome {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        match self {
            ClusterOutcome::Done => w.u8(0),
            ClusterOutcome::BrokerRegistered { epoch } => {
                w.u8(1);
                w.i64(*epoch);
            }
            ClusterOutcome::ProducerIds { first, count } => {
                w.u8(2);
                w.i64(*first);
                w.u32(*count);
            }
            ClusterOutcome::ClusterId { id } => {
                w.u8(3);
                w.str(id);
            }
            ClusterOutcome::Rejected(ClusterError::InvalidTopicName(e)) => {
                w.u8(4);
                w.len(NAME_ERRORS.iter().position(|n| n == e).expect("listed"));
            }
            ClusterOutcome::Rejected(ClusterError::NameCollision { existing }) => {
                w.u8(5);
                w.str(existing);
            }
            ClusterOutcome::Rejected(e) => {
                w.u8(6);
                w.len(PLAIN_ERRORS.iter().position(|p| p == e).expect("listed"));
            }
        }
        w.finish()
    }

    /// Reads the bytes of an answer.
    pub fn decode(input: &[u8]) -> Result<ClusterOutcome, DecodeError> {
        let mut r = Reader::new(input);
        let pick = |r: &mut Reader<'_>| r.u32().map(|n| n as usize);
        let invalid = DecodeError::Invalid("error");
        let outcome = match r.u8()? {
            0 => ClusterOutcome::Done,
            1 => ClusterOutcome::BrokerRegistered { epoch: r.i64()? },
            2 => ClusterOutcome::ProducerIds { first: r.i64()?, count: r.u32()? },
            3 => ClusterOutcome::ClusterId { id: r.str()?.to_owned() },
            4 => {
                let error = NAME_ERRORS.get(pick(&mut r)?).ok_or(invalid)?;
                ClusterOutcome::Rejected(ClusterError::InvalidTopicName(*error))
            }
            5 => ClusterOutcome::Rejected(ClusterError::NameCollision { existing: r.str()?.to_owned() }),
            6 => ClusterOutcome::Rejected(PLAIN_ERRORS.get(pick(&mut r)?).ok_or(invalid)?.clone()),
            other => return Err(DecodeError::Unknown(other)),
        };
        r.finish()?;
        Ok(outcome)
    }
}

/// Epochs of a partition after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epochs {
    /// Leader epoch.
    pub leader_epoch: i32,
    /// Partition epoch.
    pub partition_epoch: i32,
}

/// The answer to a shard command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardOutcome {
    /// It was done, or had been before.
    Done,
    /// To BumpLeaderEpoch: the new epochs, in the command's order; None for a partition that isn't here.
    Epochs(Vec<Option<Epochs>>),
    /// Nothing was changed: a command that this version doesn't know, or an assignment without replicas.
    Rejected,
}

impl ShardOutcome {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        match self {
            ShardOutcome::Done => w.u8(0),
            ShardOutcome::Epochs(epochs) => {
                w.u8(1);
                w.len(epochs.len());
                for e in epochs {
                    w.bool(e.is_some());
                    if let Some(e) = e {
                        w.i32(e.leader_epoch);
                        w.i32(e.partition_epoch);
                    }
                }
            }
            ShardOutcome::Rejected => w.u8(2),
        }
        w.finish()
    }

    /// Reads the bytes of an answer.
    pub fn decode(input: &[u8]) -> Result<ShardOutcome, DecodeError> {
        let mut r = Reader::new(input);
        let outcome = match r.u8()? {
            0 => ShardOutcome::Done,
            1 => {
                let n = r.count(1)?;
                let one = |r: &mut Reader<'_>| {
                    let some = r.bool()?;
                    let epochs =
                        |r: &mut Reader<'_>| Ok(Epochs { leader_epoch: r.i32()?, partition_epoch: r.i32()? });
                    if some { epochs(r).map(Some) } else { Ok(None) }
                };
                ShardOutcome::Epochs((0..n).map(|_| one(&mut r)).collect::<Result<_, _>>()?)
            }
            2 => ShardOutcome::Rejected,
            other => return Err(DecodeError::Unknown(other)),
        };
        r.finish()?;
        Ok(outcome)
    }
}
