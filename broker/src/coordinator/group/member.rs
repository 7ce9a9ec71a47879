//! One member of a classic group.

use bytes::Bytes;
use bytestring::ByteString;
use heizer_wire::messages::{DescribedGroupMember, JoinGroupRequestProtocol};

use crate::coordinator::result::AnswerId;

/// A JoinGroup that waits for the rebalance to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ParkedJoin {
    pub(super) answer: AnswerId,
    pub(super) version: i16,
}

/// A member as the coordinator knows it. Owned by its group.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: ByteString,
    pub(super) instance_id: Option<ByteString>,
    pub(super) client_id: ByteString,
    pub(super) client_host: ByteString,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// In the member's order of preference.
    pub(super) protocols: Vec<JoinGroupRequestProtocol>,
    pub(super) assignment: Bytes,
    /// Has not completed its first join: its session timer is the long one, and waiting does not satisfy it.
    pub(super) is_new: bool,
    /// Changed only by its group, which counts the waiting ones.
    pub(super) parked_join: Option<ParkedJoin>,
    pub(super) parked_sync: Option<AnswerId>,
}

impl Member {
    pub(super) fn is_awaiting_join(&self) -> bool {
        self.parked_join.is_some()
    }

    /// A member whose request is parked here is alive without heartbeats.
    pub(super) fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.parked_join.is_some() || self.parked_sync.is_some())
    }

    /// The subscription the member sent with `protocol`; empty if it did not.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let offered = self.protocols.iter().find(|offered| *offered.name == *protocol);
        offered.map(|offered| offered.metadata.clone()).unwrap_or_default()
    }

    pub(super) fn offers_exactly(&self, protocols: &[JoinGroupRequestProtocol]) -> bool {
        self.protocols == protocols
    }

    /// The row of DescribeGroups, without what only a stable group tells.
    pub(super) fn describe(&self) -> DescribedGroupMember {
        DescribedGroupMember {
            member_id: self.id.clone(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            member_metadata: Bytes::new(),
            member_assignment: self.assignment.clone(),
        }
    }
}
