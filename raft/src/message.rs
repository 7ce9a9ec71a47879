//! Raft messages between nodes, in our own encoding: protobuf never sees a peer's bytes (RUSTSEC-2024-0437).

use crate::codec::{DecodeError, Reader, Writer};
use crate::record::{put_entries, put_snapshot, take_entries, take_snapshot};
use crate::{GroupId, NodeId};
use bytes::Bytes;
use raft::eraftpb::{self, MessageType};

const VERSION: u8 = 1;

/// One raft message of one group, on its way between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub(crate) group: GroupId,
    pub(crate) raft: eraftpb::Message,
}

/// The kinds that travel. Forwarded proposals, read-index requests and leadership requests of followers are
/// refused: each would let a peer put words into the leader's mouth, and nobody here sends them.
const KINDS: [(MessageType, u8); 10] = [
    (MessageType::MsgAppend, 1),
    (MessageType::MsgAppendResponse, 2),
    (MessageType::MsgRequestVote, 3),
    (MessageType::MsgRequestVoteResponse, 4),
    (MessageType::MsgSnapshot, 5),
    (MessageType::MsgHeartbeat, 6),
    (MessageType::MsgHeartbeatResponse, 7),
    (MessageType::MsgTimeoutNow, 8),
    (MessageType::MsgRequestPreVote, 9),
    (MessageType::MsgRequestPreVoteResponse, 10),
];

impl Message {
    /// Wraps what raft-rs sends; None for a kind that doesn't travel.
    pub(crate) fn outgoing(group: GroupId, raft: eraftpb::Message) -> Option<Message> {
        kind_byte(raft.get_msg_type()).map(|_| Message { group, raft })
    }

    /// The group that it concerns.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The node that sent it.
    pub fn from(&self) -> NodeId {
        NodeId(self.raft.from)
    }

    /// The node that it is for.
    pub fn to(&self) -> NodeId {
        NodeId(self.raft.to)
    }

    /// Whether it carries a whole snapshot: its delivery or failure should be reported to the sender by
    /// [`crate::RaftHost::report_snapshot`].
    pub fn is_snapshot(&self) -> bool {
        self.raft.get_msg_type() == MessageType::MsgSnapshot
    }

    /// The bytes that go over the network, without any outer framing.
    pub fn encode(&self) -> Bytes {
        let m = &self.raft;
        let bytes: usize = m.entries.iter().map(|e| e.data.len() + 24).sum();
        let mut w = Writer::with_capacity(96 + bytes + m.get_snapshot().data.len());
        w.u8(VERSION);
        w.u8(kind_byte(m.get_msg_type()).expect("checked by outgoing()"));
        w.u32(self.group.0);
        for v in [m.to, m.from, m.term, m.log_term, m.index, m.commit, m.commit_term] {
            w.u64(v);
        }
        w.u64(m.request_snapshot);
        w.bool(m.reject);
        w.u64(m.reject_hint);
        w.i64(m.priority);
        w.bytes(&m.context);
        put_entries(&mut w, &m.entries);
        w.bool(m.has_snapshot());
        if m.has_snapshot() {
            put_snapshot(&mut w, m.get_snapshot());
        }
        w.finish()
    }

    /// Reads and checks a peer's message: the entries of an append follow one another from its index on, and
    /// none is of a later term than the message.
    pub fn decode(input: &[u8]) -> Result<Message, DecodeError> {
        let mut r = Reader::new(input);
        match r.u8()? {
            VERSION => {}
            other => return Err(DecodeError::Unknown(other)),
        }
        let mut m = eraftpb::Message::default();
        let kind = r.u8()?;
        m.set_msg_type(KINDS.iter().find(|k| k.1 == kind).ok_or(DecodeError::Unknown(kind))?.0);
        let group = GroupId(r.u32()?);
        for field in [
            &mut m.to,
            &mut m.from,
            &mut m.term,
            &mut m.log_term,
            &mut m.index,
            &mut m.commit,
            &mut m.commit_term,
            &mut m.request_snapshot,
        ] {
            *field = r.u64()?;
        }
        m.reject = r.bool()?;
        m.reject_hint = r.u64()?;
        m.priority = r.i64()?;
        m.context = Bytes::copy_from_slice(r.bytes()?);
        m.set_entries(take_entries(&mut r)?.into());
        if r.bool()? {
            m.set_snapshot(take_snapshot(&mut r)?);
        }
        r.finish()?;
        check(&m)?;
        Ok(Message { group, raft: m })
    }
}

fn kind_byte(kind: MessageType) -> Option<u8> {
    KINDS.iter().find(|k| k.0 == kind).map(|k| k.1)
}

/// What raft-rs takes for granted and panics over.
fn check(m: &eraftpb::Message) -> Result<(), DecodeError> {
    if m.from == 0 || m.to == 0 || m.from == m.to {
        return Err(DecodeError::Invalid("sender or receiver"));
    }
    // A term of zero marks a local message in raft-rs.
    if m.term == 0 {
        return Err(DecodeError::Invalid("term"));
    }
    let mut previous = (m.index, m.log_term);
    for e in &m.entries {
        if Some(e.index) != previous.0.checked_add(1) || e.term < previous.1 || e.term > m.term {
            return Err(DecodeError::Invalid("entry"));
        }
        previous = (e.index, e.term);
    }
    let kind = m.get_msg_type();
    if !m.entries.is_empty() && kind != MessageType::MsgAppend {
        return Err(DecodeError::Invalid("entries"));
    }
    if m.has_snapshot() != (kind == MessageType::MsgSnapshot) {
        return Err(DecodeError::Invalid("snapshot"));
    }
    if m.has_snapshot() && (m.get_snapshot().get_metadata().term > m.term || m.get_snapshot().is_empty()) {
        return Err(DecodeError::Invalid("snapshot"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::Entry;

    fn append() -> Message {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(MessageType::MsgAppend);
        (m.from, m.to, m.term, m.index, m.log_term, m.commit) = (1, 2, 5, 9, 4, 8);
        let mut e = Entry::default();
        (e.index, e.term) = (10, 5);
        e.data = Bytes::from_static(b"x");
        m.set_entries(vec![e].into());
        Message::outgoing(GroupId(3), m).expect("travels")
    }

    #[test]
    fn messages_survive_the_round_trip_and_no_cut_one_decodes() {
        let m = append();
        let bytes = m.encode();
        assert_eq!(Message::decode(&bytes), Ok(m));
        for n in 0..bytes.len() {
            assert!(Message::decode(&bytes[..n]).is_err(), "cut at {n}");
        }
    }

    #[test]
    fn a_forwarded_proposal_does_not_travel() {
        for kind in [MessageType::MsgPropose, MessageType::MsgHup, MessageType::MsgReadIndex] {
            let mut m = append();
            m.raft.set_msg_type(kind);
            assert_eq!(Message::outgoing(GroupId(3), m.raft), None);
        }
        let mut bytes = append().encode().to_vec();
        bytes[1] = 11;
        assert_eq!(Message::decode(&bytes), Err(DecodeError::Unknown(11)));
    }

    #[test]
    fn entries_with_a_gap_or_a_later_term_are_refused() {
        let mut m = append();
        m.raft.mut_entries()[0].index = 11;
        assert_eq!(Message::decode(&m.encode()), Err(DecodeError::Invalid("entry")));
        let mut m = append();
        m.raft.mut_entries()[0].term = 6;
        assert_eq!(Message::decode(&m.encode()), Err(DecodeError::Invalid("entry")));
    }
}
