//! Raft groups on storage's log: many groups a core, one durable stream for all of them.
//!
//! [`RaftHost`] drives one core's groups. A caller proposes a command and gets the state machine's result once
//! the command is committed and applied here; everything that all groups of the core have to write meanwhile
//! shares one durable write. A group whose only voter is this node leads from its opening on and costs nothing
//! while idle: no timer, no write.
//!
//! raft-rs is the consensus; this crate is its storage (`store`, `record`, `journal`), its driver (`group`
//! without I/O, `host` with) and its messages' encoding (`message`).

pub mod codec;
mod figures;
mod group;
mod host;
mod journal;
mod log;
mod message;
mod record;
mod store;

pub use figures::{GroupFigures, HostFigures, Role};
pub use group::Applied;
pub use host::{OpenError, RaftHost, read_groups};
pub use message::Message;
pub use record::GroupImage;

use bytes::Bytes;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// A broker as a raft voter. Never 0 (raft-rs's "nobody"): a broker's id plus one makes a good one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A raft group, the same number on every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a group replicates. Every replica applies the same commands in the same order: the outcome may depend on
/// nothing else. Called from within the host: an implementation must not call back into it.
pub trait StateMachine {
    /// Applies one committed command (never empty) and returns the result for its proposer.
    fn apply(&mut self, index: u64, command: &[u8]) -> Bytes;
    /// The whole state, for `restore`.
    fn snapshot(&self) -> Bytes;
    /// Replaces the whole state by a snapshot that `snapshot` of this or an earlier version has made.
    fn restore(&mut self, snapshot: &[u8]);
}

/// A state machine that its owner keeps reading while the host applies to it.
impl<M: StateMachine> StateMachine for Rc<RefCell<M>> {
    fn apply(&mut self, index: u64, command: &[u8]) -> Bytes {
        self.borrow_mut().apply(index, command)
    }

    fn snapshot(&self) -> Bytes {
        self.borrow().snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) {
        self.borrow_mut().restore(snapshot);
    }
}

/// Settings of a host, the same for all its groups.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// Length of a tick. Nothing ticks while every group has one voter.
    pub tick: Duration,
    /// Ticks without a leader before an election, at least; at most twice as many.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Most bytes of entries in one message, and of committed entries applied in one pass.
    pub message_bytes_max: u64,
    /// Most appends on their way to one follower.
    pub messages_in_flight_max: usize,
    /// Most bytes a group may have proposed and not yet committed; beyond, proposals are dropped.
    pub uncommitted_bytes_max: u64,
    /// Largest command.
    pub command_bytes_max: usize,
    /// Applied entries that a group with several voters keeps in memory for followers that are a little behind.
    pub entries_kept_max: u64,
    /// A group is snapshotted after this many entries.
    pub checkpoint_entries_max: u64,
    /// When the stream is longer than this, the groups that pin its oldest part are snapshotted. Grows to four
    /// times what all groups' snapshots take together.
    pub stream_bytes_max: u64,
    /// Most messages waiting for the transport; beyond, they are dropped, which raft tolerates.
    pub outgoing_max: usize,
}

impl Default for RaftConfig {
    fn default() -> RaftConfig {
        RaftConfig {
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 2,
            message_bytes_max: 1 << 20,
            messages_in_flight_max: 64,
            uncommitted_bytes_max: 64 << 20,
            command_bytes_max: 8 << 20,
            entries_kept_max: 1_000,
            checkpoint_entries_max: 10_000,
            stream_bytes_max: 32 << 20,
            outgoing_max: 16_384,
        }
    }
}

/// Why a proposal has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads the group, or none does at present.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<NodeId>,
    },
    /// Not committed, and never will be: too much is uncommitted, leadership is being handed over, or another
    /// leader's entry took its place.
    #[error("the proposal was dropped")]
    Dropped,
    /// The command is larger than `command_bytes_max`.
    #[error("the command is too large")]
    TooLarge,
    /// This node lost the leadership and caught up by a snapshot: the command may or may not be part of it.
    #[error("the proposal's fate is unknown")]
    Uncertain,
    /// The host is closing; the command may or may not survive.
    #[error("shutting down")]
    ShuttingDown,
    /// The stream can't be written; the host has stopped.
    #[error("the raft stream has failed")]
    Failed,
    /// This host doesn't have the group.
    #[error("no such group here")]
    UnknownGroup,
}

/// Why a peer's message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Sender or receiver don't fit the group's voters, or the group isn't here.
    #[error("message of a stranger, or for another node")]
    NotForUs,
    /// The leader says that more is committed than this node has: it has lost entries that it once confirmed.
    #[error("the leader committed {commit}, the log here ends at {last}")]
    CommitBeyondLog {
        /// The leader's commit index.
        commit: u64,
        /// Last index here.
        last: u64,
    },
    /// raft-rs refused it.
    #[error("refused: {0}")]
    Refused(String),
    /// The host is closing or has failed.
    #[error("the host has stopped")]
    Stopped,
}

#[cfg(test)]
mod tests;
