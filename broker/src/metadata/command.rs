//! The commands of the two kinds of groups, and their bytes in the log.

use super::cluster::{put_ids, take_ids};
use bytes::Bytes;
use heizer_raft::codec::{DecodeError, Reader, Writer};
use uuid::Uuid;

const VERSION: u8 = 1;

/// A topic to be created: everything that isn't a function of the cluster's state was chosen by the proposer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Random, not nil.
    pub id: Uuid,
    /// Replicas of each partition, the preferred leader first.
    pub replicas: Vec<Vec<i32>>,
    /// Its configs, validated by the proposer.
    pub configs: Vec<(String, String)>,
}

/// What the cluster group replicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterCommand {
    /// Makes a topic.
    CreateTopic(NewTopic),
    /// Deletes a topic.
    DeleteTopic {
        /// Its id.
        id: Uuid,
    },
    /// Changes some of a topic's configs.
    SetTopicConfigs {
        /// Its id.
        id: Uuid,
        /// Key and new value; None takes the key back to its default.
        changes: Vec<(String, Option<String>)>,
    },
    /// Adds partitions to a topic.
    CreatePartitions {
        /// Its id.
        id: Uuid,
        /// The number of partitions that it shall have.
        total: u32,
        /// Replicas of each new partition.
        replicas: Vec<Vec<i32>>,
    },
    /// Makes a broker known, or tells its new address.
    RegisterBroker {
        /// Its id.
        id: i32,
        /// Advertised host.
        host: String,
        /// Advertised port.
        port: u16,
        /// Its rack.
        rack: Option<String>,
        /// Drawn at its start.
        incarnation: Uuid,
    },
    /// Takes a block of producer ids.
    AllocateProducerIds {
        /// Size of the block.
        count: u32,
    },
    /// Gives the cluster its id, if it has none.
    SetClusterId {
        /// The id.
        id: String,
    },
    /// Changes some of what is set for brokers at run time.
    SetBrokerConfigs {
        /// The broker; none: all of them.
        broker: Option<i32>,
        /// Key and new value; None takes the key back to what the broker's file says.
        changes: Vec<(String, Option<String>)>,
    },
}

impl ClusterCommand {
    /// The bytes to propose.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            ClusterCommand::CreateTopic(topic) => {
                w.u8(0);
                w.str(&topic.name);
                w.array16(topic.id.as_bytes());
                put_replicas(&mut w, &topic.replicas);
                w.len(topic.configs.len());
                for (key, value) in &topic.configs {
                    w.str(key);
                    w.str(value);
                }
            }
            ClusterCommand::DeleteTopic { id } => {
                w.u8(1);
                w.array16(id.as_bytes());
            }
            ClusterCommand::SetTopicConfigs { id, changes } => {
                w.u8(2);
                w.array16(id.as_bytes());
                put_changes(&mut w, changes);
            }
            ClusterCommand::CreatePartitions { id, total, replicas } => {
                w.u8(3);
                w.array16(id.as_bytes());
                w.u32(*total);
                put_replicas(&mut w, replicas);
            }
            ClusterCommand::RegisterBroker { id, host, port, rack, incarnation } => {
                w.u8(4);
                w.i32(*id);
                w.str(host);
                w.u32(u32::from(*port));
                w.opt_str(rack.as_deref());
                w.array16(incarnation.as_bytes());
            }
            ClusterCommand::AllocateProducerIds { count } => {
                w.u8(5);
                w.u32(*count);
            }
            ClusterCommand::SetClusterId { id } => {
                w.u8(6);
                w.str(id);
            }
            ClusterCommand::SetBrokerConfigs { broker, changes } => {
                w.u8(7);
                put_broker(&mut w, *broker);
                put_changes(&mut w, changes);
            }
        }
        w.finish()
    }

    /// Reads a command from the log.
    pub fn decode(input: &[u8]) -> Result<ClusterCommand, DecodeError> {
        let mut r = Reader::new(input);
        check_version(&mut r)?;
        let command = match r.u8()? {
            0 => {
                let (name, id) = (r.str()?.to_owned(), take_uuid(&mut r)?);
                let replicas = take_replicas(&mut r)?;
                let n = r.count(2)?;
                let pair = |r: &mut Reader<'_>| Ok((r.str()?.to_owned(), r.str()?.to_owned()));
                let configs = (0..n).map(|_| pair(&mut r)).collect::<Result<_, _>>()?;
                ClusterCommand::CreateTopic(NewTopic { name, id, replicas, configs })
            }
            1 => ClusterCommand::DeleteTopic { id: take_uuid(&mut r)? },
            2 => ClusterCommand::SetTopicConfigs { id: take_uuid(&mut r)?, changes: take_changes(&mut r)? },
            3 => ClusterCommand::CreatePartitions {
                id: take_uuid(&mut r)?,
                total: r.u32()?,
                replicas: take_replicas(&mut r)?,
            },
            4 => ClusterCommand::RegisterBroker {
                id: r.i32()?,
                host: r.str()?.to_owned(),
                port: u16::try_from(r.u32()?).map_err(|_| DecodeError::Invalid("port"))?,
                rack: r.opt_str()?.map(str::to_owned),
                incarnation: take_uuid(&mut r)?,
            },
            5 => ClusterCommand::AllocateProducerIds { count: r.u32()? },
            6 => ClusterCommand::SetClusterId { id: r.str()?.to_owned() },
            7 => {
                let (broker, changes) = (take_broker(&mut r)?, take_changes(&mut r)?);
                ClusterCommand::SetBrokerConfigs { broker, changes }
            }
            other => return Err(DecodeError::Unknown(other)),
        };
        r.finish()?;
        Ok(command)
    }
}

/// A partition that a shard group shall govern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAssignment {
    /// Its number.
    pub partition: i32,
    /// Its replicas, the preferred leader first; not empty.
    pub replicas: Vec<i32>,
}

/// What a shard group replicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardCommand {
    /// Takes over partitions of a topic; those that it has already stay as they are.
    Adopt {
        /// The topic.
        topic_id: Uuid,
        /// The partitions of this group.
        partitions: Vec<PartitionAssignment>,
    },
    /// Lets go of all partitions of a topic.
    Remove {
        /// The topic.
        topic_id: Uuid,
    },
    /// Starts a new leader epoch under the same leader: committed before the first append after an unclean start.
    BumpLeaderEpoch {
        /// Topic and partition.
        partitions: Vec<(Uuid, i32)>,
    },
}

impl ShardCommand {
    /// The bytes to propose.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            ShardCommand::Adopt { topic_id, partitions } => {
                w.u8(0);
                w.array16(topic_id.as_bytes());
                w.len(partitions.len());
                for p in partitions {
                    w.i32(p.partition);
                    put_ids(&mut w, &p.replicas);
                }
            }
            ShardCommand::Remove { topic_id } => {
                w.u8(1);
                w.array16(topic_id.as_bytes());
            }
            ShardCommand::BumpLeaderEpoch { partitions } => {
                w.u8(2);
                w.len(partitions.len());
                for (topic_id, partition) in partitions {
                    w.array16(topic_id.as_bytes());
                    w.i32(*partition);
                }
            }
        }
        w.finish()
    }

    /// Reads a command from the log.
    pub fn decode(input: &[u8]) -> Result<ShardCommand, DecodeError> {
        let mut r = Reader::new(input);
        check_version(&mut r)?;
        let command = match r.u8()? {
            0 => {
                let topic_id = take_uuid(&mut r)?;
                let n = r.count(2)?;
                let one = |r: &mut Reader<'_>| {
                    Ok(PartitionAssignment { partition: r.i32()?, replicas: take_ids(r)? })
                };
                let partitions = (0..n).map(|_| one(&mut r)).collect::<Result<_, _>>()?;
                ShardCommand::Adopt { topic_id, partitions }
            }
            1 => ShardCommand::Remove { topic_id: take_uuid(&mut r)? },
            2 => {
                let n = r.count(17)?;
                let one = |r: &mut Reader<'_>| Ok((take_uuid(r)?, r.i32()?));
                ShardCommand::BumpLeaderEpoch {
                    partitions: (0..n).map(|_| one(&mut r)).collect::<Result<_, _>>()?,
                }
            }
            other => return Err(DecodeError::Unknown(other)),
        };
        r.finish()?;
        Ok(command)
    }
}

fn check_version(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    match r.u8()? {
        VERSION => Ok(()),
        other => Err(DecodeError::Unknown(other)),
    }
}

pub(super) fn take_uuid(r: &mut Reader<'_>) -> Result<Uuid, DecodeError> {
    r.array16().map(Uuid::from_bytes)
}

fn put_replicas(w: &mut Writer, replicas: &[Vec<i32>]) {
    w.len(replicas.len());
    replicas.iter().for_each(|ids| put_ids(w, ids));
}

fn take_replicas(r: &mut Reader<'_>) -> Result<Vec<Vec<i32>>, DecodeError> {
    let n = r.count(1)?;
    (0..n).map(|_| take_ids(r)).collect()
}

fn put_changes(w: &mut Writer, changes: &[(String, Option<String>)]) {
    w.len(changes.len());
    for (key, value) in changes {
        w.str(key);
        w.opt_str(value.as_deref());
    }
}

fn take_changes(r: &mut Reader<'_>) -> Result<Vec<(String, Option<String>)>, DecodeError> {
    let n = r.count(2)?;
    (0..n).map(|_| Ok((r.str()?.to_owned(), r.opt_str()?.map(str::to_owned)))).collect()
}

/// Whose settings: a broker's, or those of all.
pub(super) fn put_broker(w: &mut Writer, broker: Option<i32>) {
    w.bool(broker.is_some());
    if let Some(id) = broker {
        w.i32(id);
    }
}

pub(super) fn take_broker(r: &mut Reader<'_>) -> Result<Option<i32>, DecodeError> {
    if r.bool()? { r.i32().map(Some) } else { Ok(None) }
}
