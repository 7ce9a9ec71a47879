//! What a host shows of itself, for metrics.

use std::cell::Cell;

use crate::GroupId;

/// What a node is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows.
    Follower,
    /// It stands for election, or asks whether it could.
    Candidate,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 3] = [Role::Leader, Role::Follower, Role::Candidate];

    /// A label for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
        }
    }
}

/// One group at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFigures {
    /// Which.
    pub group: GroupId,
    /// What this node is in it.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Index of the last entry of its log.
    pub last_index: u64,
    /// Everything up to this entry is committed.
    pub commit_index: u64,
    /// The state machine has seen everything up to this entry.
    pub applied_index: u64,
    /// The last snapshot that a restart begins from includes everything up to this entry.
    pub snapshot_index: u64,
    /// Proposals of this node that wait for their result.
    pub proposals_waiting: usize,
}

/// One core's host at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFigures {
    /// Its groups.
    pub groups: Vec<GroupFigures>,
    /// Commands proposed here, so far.
    pub proposals: u64,
    /// Those of them that ended without a result: refused, dropped, or of unknown fate.
    pub proposal_failures: u64,
    /// Snapshots written to the stream, so far.
    pub snapshots: u64,
    /// Bytes of the stream, from the oldest record kept to its end.
    pub stream_bytes: u64,
    /// The stream cannot be written: the groups have stopped.
    pub failed: bool,
}

/// The counters of a host.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) proposals: Cell<u64>,
    pub(crate) proposal_failures: Cell<u64>,
    pub(crate) snapshots: Cell<u64>,
}

impl Counts {
    pub(crate) fn add(counter: &Cell<u64>) {
        counter.set(counter.get() + 1);
    }
}
