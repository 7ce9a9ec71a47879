//! The records of `__consumer_offsets`, in Kafka's own versions, so that Kafka's tools read them (contract G3).

use std::collections::BTreeSet;

use bytes::{Buf, Bytes};
use bytestring::ByteString;
use heizer_wire::messages::{
    ConsumerProtocolSubscription, GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey,
    OffsetCommitValue,
};
use heizer_wire::{DecodeError, Message, Reader, encode_versioned};

use super::result::{Millis, Record};

/// Offset keys are read at versions 0 and 1, which are the same, and written at 1.
const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
/// The newest versions every Kafka since 2.1 and 2.3 reads.
const OFFSET_VALUE_VERSION: i16 = 3;
const GROUP_VALUE_VERSION: i16 = 3;
/// The only version that carries an expiry of its own, which OffsetCommit 2-4 may ask for.
const OFFSET_VALUE_VERSION_WITH_EXPIRY: i16 = 1;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommittedOffset {
    /// The next offset the group will read.
    pub(super) offset: i64,
    /// Epoch of the record before it, -1 if unknown (KIP-320).
    pub(super) leader_epoch: i32,
    /// The consumer's note.
    pub(super) metadata: ByteString,
    /// When it was committed, Unix milliseconds.
    pub(super) commit_timestamp: i64,
    /// When it expires, if the client said so (OffsetCommit 2-4).
    pub(super) expire_timestamp: Option<i64>,
}

/// What the log says about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DurableGroup {
    /// `consumer`, `connect`, …
    pub(super) protocol_type: Option<ByteString>,
    /// Number of the rebalance that made this state.
    pub(super) generation: i32,
    /// The chosen assignor.
    pub(super) protocol: Option<ByteString>,
    /// Member id of the leader.
    pub(super) leader: Option<ByteString>,
    /// When the group entered its state.
    pub(super) state_since: Option<Millis>,
    /// None for an empty group.
    pub(super) members: Vec<DurableMember>,
}

/// A member as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DurableMember {
    /// Member id.
    pub(super) id: ByteString,
    /// Instance id of a static member.
    pub(super) instance_id: Option<ByteString>,
    /// Client id of the joining request.
    pub(super) client_id: ByteString,
    /// Address of the joining request.
    pub(super) client_host: ByteString,
    /// How long a rebalance waits for it.
    pub(super) rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub(super) session_timeout_ms: i32,
    /// Its metadata for the chosen protocol.
    pub(super) subscription: Bytes,
    /// What the leader gave it, byte for byte.
    pub(super) assignment: Bytes,
}

/// A record, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// A group committed an offset, or it is gone.
    Offset {
        /// Group id.
        group: ByteString,
        /// Topic name.
        topic: ByteString,
        /// Partition index.
        partition: i32,
        /// No value is a tombstone.
        value: Option<CommittedOffset>,
    },
    /// A group's state, or it is gone.
    Group {
        /// Group id.
        group: ByteString,
        /// No value is a tombstone.
        value: Option<DurableGroup>,
    },
    /// A key of a version that belongs to another kind of group; not ours to read.
    Foreign {
        /// The key's version.
        key_version: i16,
    },
}

/// A record that cannot be what it claims to be.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Key or value does not decode.
    #[error("a record of the offsets topic does not decode: {0}")]
    Malformed(#[from] DecodeError),
    /// Key or value is too short for its version.
    #[error("a record of the offsets topic has no version")]
    NoVersion,
}

/// The record of a committed offset, or its tombstone.
pub(super) fn offset_record(
    group: &ByteString,
    topic: &ByteString,
    partition: i32,
    value: Option<&CommittedOffset>,
) -> Record {
    let key = OffsetCommitKey { group: group.clone(), topic: topic.clone(), partition };
    let value = value.map(|committed| {
        let version = match committed.expire_timestamp {
            Some(_) => OFFSET_VALUE_VERSION_WITH_EXPIRY,
            None => OFFSET_VALUE_VERSION,
        };
        let value = OffsetCommitValue {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.clone(),
            commit_timestamp: committed.commit_timestamp,
            expire_timestamp: committed.expire_timestamp.unwrap_or(-1),
            ..OffsetCommitValue::default()
        };
        encode_versioned(&value, version)
    });
    Record { key: encode_versioned(&key, OFFSET_KEY_VERSION), value }
}

/// The record of a group's state, or its tombstone.
pub(super) fn group_record(group: &ByteString, value: Option<&DurableGroup>) -> Record {
    let key = GroupMetadataKey { group: group.clone() };
    let value = value.map(|durable| {
        let members = durable.members.iter().map(|member| MemberMetadata {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.subscription.clone(),
            assignment: member.assignment.clone(),
        });
        let value = GroupMetadataValue {
            protocol_type: durable.protocol_type.clone().unwrap_or_default(),
            generation: durable.generation,
            protocol: durable.protocol.clone(),
            leader: durable.leader.clone(),
            current_state_timestamp: durable.state_since.map_or(-1, Millis::as_i64),
            members: members.collect(),
        };
        encode_versioned(&value, GROUP_VALUE_VERSION)
    });
    Record { key: encode_versioned(&key, GROUP_KEY_VERSION), value }
}

/// Reads a record back.
///
/// # Errors
/// If it does not decode as what its key's version says.
pub(super) fn decode(key: Bytes, value: Option<Bytes>) -> Result<Fact, RecordError> {
    let mut rest = key;
    let key_version = take_version(&mut rest)?;
    match key_version {
        0 | 1 => {
            let key: OffsetCommitKey = body(rest, key_version)?;
            let value = value.map(offset_value).transpose()?;
            Ok(Fact::Offset { group: key.group, topic: key.topic, partition: key.partition, value })
        }
        GROUP_KEY_VERSION => {
            let key: GroupMetadataKey = body(rest, key_version)?;
            Ok(Fact::Group { group: key.group, value: value.map(group_value).transpose()? })
        }
        key_version => Ok(Fact::Foreign { key_version }),
    }
}

fn offset_value(mut value: Bytes) -> Result<CommittedOffset, RecordError> {
    let version = take_version(&mut value)?;
    let value: OffsetCommitValue = body(value, version)?;
    Ok(CommittedOffset {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata,
        commit_timestamp: value.commit_timestamp,
        expire_timestamp: Some(value.expire_timestamp).filter(|at| *at >= 0),
    })
}

fn group_value(mut value: Bytes) -> Result<DurableGroup, RecordError> {
    let version = take_version(&mut value)?;
    let value: GroupMetadataValue = body(value, version)?;
    let members = value.members.into_iter().map(|member| DurableMember {
        id: member.member_id,
        instance_id: member.group_instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        // Version 0 does not have it; the session timeout stood for both then.
        rebalance_timeout_ms: if version == 0 || member.rebalance_timeout == -1 {
            member.session_timeout
        } else {
            member.rebalance_timeout
        },
        session_timeout_ms: member.session_timeout,
        subscription: member.subscription,
        assignment: member.assignment,
    });
    Ok(DurableGroup {
        members: members.collect(),
        protocol_type: Some(value.protocol_type).filter(|name| !name.is_empty()),
        generation: value.generation,
        protocol: value.protocol,
        leader: value.leader,
        state_since: u64::try_from(value.current_state_timestamp).ok().map(Millis),
    })
}

fn body<M: Message>(bytes: Bytes, version: i16) -> Result<M, RecordError> {
    Ok(M::decode(&mut Reader::new(bytes), version)?)
}

fn take_version(bytes: &mut Bytes) -> Result<i16, RecordError> {
    if bytes.len() < 2 {
        return Err(RecordError::NoVersion);
    }
    Ok(bytes.get_i16())
}

/// The topics of a consumer's subscription metadata; none if it is not one. Every version of it starts as version 0.
pub(super) fn subscribed_topics(mut metadata: Bytes) -> Option<BTreeSet<ByteString>> {
    let version = take_version(&mut metadata).ok()?;
    let subscription: ConsumerProtocolSubscription = body(metadata, 0).ok().filter(|_| version >= 0)?;
    Some(subscription.topics.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> ByteString {
        "g".into()
    }

    fn committed() -> CommittedOffset {
        CommittedOffset {
            offset: 42,
            leader_epoch: 7,
            metadata: "note".into(),
            commit_timestamp: 1_700_000_000_000,
            expire_timestamp: None,
        }
    }

    fn durable() -> DurableGroup {
        let member = DurableMember {
            id: "m".into(),
            instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 10_000,
            subscription: Bytes::from_static(b"\x01\x02"),
            assignment: Bytes::from_static(b"\x03"),
        };
        DurableGroup {
            protocol_type: Some("consumer".into()),
            generation: 5,
            protocol: Some("range".into()),
            leader: Some("m".into()),
            state_since: Some(Millis(9)),
            members: vec![member],
        }
    }

    /// Laid out by hand after Kafka's schemas of OffsetCommitKey 1 and OffsetCommitValue 3.
    #[test]
    fn an_offset_record_has_kafkas_bytes() {
        let record = offset_record(&group(), &"t".into(), 3, Some(&committed()));
        assert_eq!(&record.key[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
        let mut value = Vec::new();
        value.extend(b"\0\x03");
        value.extend(42i64.to_be_bytes());
        value.extend(7i32.to_be_bytes());
        value.extend(b"\0\x04note");
        value.extend(1_700_000_000_000i64.to_be_bytes());
        assert_eq!(record.value.unwrap(), value);
    }

    /// Laid out by hand after Kafka's schemas of GroupMetadataKey 2 and GroupMetadataValue 3.
    #[test]
    fn a_group_record_has_kafkas_bytes() {
        let record = group_record(&group(), Some(&durable()));
        assert_eq!(&record.key[..], b"\0\x02\0\x01g");
        let mut value = Vec::new();
        value.extend(b"\0\x03\0\x08consumer\0\0\0\x05\0\x05range\0\x01m");
        value.extend(9i64.to_be_bytes());
        value.extend(b"\0\0\0\x01\0\x01m\0\x01i\0\x01c\0\x02/h");
        value.extend(60_000i32.to_be_bytes());
        value.extend(10_000i32.to_be_bytes());
        value.extend(b"\0\0\0\x02\x01\x02\0\0\0\x01\x03");
        assert_eq!(record.value.unwrap(), value);
    }

    #[test]
    fn records_come_back_as_they_were() {
        let with_expiry = CommittedOffset { expire_timestamp: Some(99), leader_epoch: -1, ..committed() };
        for value in [None, Some(committed()), Some(with_expiry)] {
            let record = offset_record(&group(), &"t".into(), 3, value.as_ref());
            let fact = Fact::Offset { group: group(), topic: "t".into(), partition: 3, value };
            assert_eq!(decode(record.key, record.value).unwrap(), fact);
        }
        let empty = DurableGroup {
            protocol_type: None,
            protocol: None,
            leader: None,
            state_since: None,
            members: Vec::new(),
            ..durable()
        };
        for value in [None, Some(durable()), Some(empty)] {
            let record = group_record(&group(), value.as_ref());
            let fact = Fact::Group { group: group(), value };
            assert_eq!(decode(record.key, record.value).unwrap(), fact);
        }
    }

    /// A Kafka data directory may hold what older brokers wrote.
    #[test]
    fn the_oldest_versions_are_read() {
        let key = b"\0\0\0\x01g\0\x01t\0\0\0\x03";
        let mut value = b"\0\0".to_vec();
        value.extend(42i64.to_be_bytes());
        value.extend(b"\0\0");
        value.extend(1i64.to_be_bytes());
        let fact = decode(Bytes::from_static(key), Some(value.into())).unwrap();
        let Fact::Offset { value: Some(committed), .. } = fact else { panic!("{fact:?}") };
        assert_eq!((committed.offset, committed.leader_epoch, committed.expire_timestamp), (42, -1, None));

        let mut value = b"\0\0\0\x01x\0\0\0\x01\0\x01p\xff\xff\0\0\0\x01\0\x01m\0\0\0\0".to_vec();
        value.extend(10_000i32.to_be_bytes());
        value.extend([0; 8]);
        let fact = decode(Bytes::from_static(b"\0\x02\0\x01g"), Some(value.into())).unwrap();
        let Fact::Group { value: Some(durable), .. } = fact else { panic!("{fact:?}") };
        assert_eq!((durable.leader.clone(), durable.state_since), (None, None));
        assert_eq!(durable.members[0].rebalance_timeout_ms, 10_000, "the session timeout stood for both");
    }

    #[test]
    fn a_subscription_tells_its_topics_whatever_its_version() {
        let topics = |bytes: &'static [u8]| subscribed_topics(Bytes::from_static(bytes)).map(Vec::from_iter);
        let expected = Some(vec![ByteString::from("a"), ByteString::from("b")]);
        assert_eq!(topics(b"\0\0\0\0\0\x02\0\x01b\0\x01a\xff\xff\xff\xff"), expected);
        assert_eq!(topics(b"\0\x09\0\0\0\x02\0\x01b\0\x01a\xff\xff\xff\xffwhatever follows"), expected);
        assert_eq!(topics(b"\0\0\x7f\xff\xff\xff"), None);
        assert_eq!(topics(b"cooked"), None);
        assert_eq!(topics(b""), None);
    }
}
