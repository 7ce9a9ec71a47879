//! What every entry point of a coordinator takes and gives back: time, identifiers, answers, writes.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DeletableGroupResult, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse, OffsetCommitResponse,
    OffsetDeleteResponse, SyncGroupResponse,
};

/// Milliseconds since the Unix epoch, as the shell's clock tells them.
///
/// The same clock stamps committed offsets (which outlive a process) and drives the timers, so the shell hands
/// out values that never run backwards while a shard lives: wall time at the start plus monotonic time since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// This instant plus a Kafka timeout; a negative timeout counts as zero.
    #[must_use]
    pub fn plus(self, timeout_ms: i64) -> Self {
        Self(self.0.saturating_add(u64::try_from(timeout_ms).unwrap_or(0)))
    }

    /// The instant as Kafka's records carry it.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// The shell's name for one request that waits for its response. Chosen by the shell, opaque here; every id given
/// to an entry point comes back exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnswerId(pub u64);

/// The shard's name for one batch of records on its way to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// Who sent a request, and at which version of its API.
#[derive(Debug, Clone)]
pub struct Client {
    /// Version of the request.
    pub version: i16,
    /// The request header's client id; empty when it carried none.
    pub client_id: ByteString,
    /// The peer as Kafka shows it in DescribeGroups: a slash and the address, `/127.0.0.1`.
    pub host: ByteString,
}

/// One record for the coordinator's partition; no value is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Key, with its int16 version prefix.
    pub key: Bytes,
    /// Value, with its int16 version prefix, or a tombstone.
    pub value: Option<Bytes>,
}

/// Records that the shell appends to the partition as one batch, all or nothing.
#[derive(Debug)]
pub struct Write {
    /// To be named in `on_write_done`.
    pub id: WriteId,
    /// Never empty.
    pub records: Vec<Record>,
}

/// A response that has become due. The shell encodes it at the version of its request.
#[derive(Debug)]
pub enum Answer {
    /// To `handle_join`.
    Join(JoinGroupResponse),
    /// To `handle_sync`.
    Sync(SyncGroupResponse),
    /// To `handle_heartbeat`.
    Heartbeat(HeartbeatResponse),
    /// To `handle_leave`.
    Leave(LeaveGroupResponse),
    /// To `handle_offset_commit`.
    OffsetCommit(OffsetCommitResponse),
    /// To `delete_group`: one row of DeleteGroups' response.
    DeleteGroup(DeletableGroupResult),
    /// To `delete_offsets`.
    OffsetDelete(OffsetDeleteResponse),
}

impl Answer {
    /// Turns the success that was waiting for its records into the failure to write them.
    pub(super) fn fail(&mut self, code: ErrorCode) {
        match self {
            Self::Join(response) => response.error_code = code.into(),
            Self::Sync(response) => response.error_code = code.into(),
            Self::Heartbeat(response) => response.error_code = code.into(),
            Self::Leave(response) => {
                response.error_code = code.into();
                response.members.clear();
            }
            Self::OffsetCommit(response) => {
                let too_large = matches!(code, ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge);
                let code = if too_large { ErrorCode::InvalidCommitOffsetSize } else { code };
                let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
                partitions.for_each(|partition| partition.error_code = code.into());
            }
            Self::DeleteGroup(result) => result.error_code = code.into(),
            Self::OffsetDelete(response) => {
                response.error_code = code.into();
                response.topics.clear();
            }
        }
    }
}

/// What an entry point asks of the shell.
#[derive(Debug, Default)]
pub struct CoordinatorResult {
    /// Responses to send now: nothing they say waits for the log.
    pub answers: Vec<(AnswerId, Answer)>,
    /// Batches to append, in this order, and after those of earlier results.
    pub writes: Vec<Write>,
}

impl CoordinatorResult {
    /// Whether the shell has nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.writes.is_empty()
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write-{}", self.0)
    }
}
