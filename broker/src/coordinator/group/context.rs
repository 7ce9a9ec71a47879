//! What a group needs from its shard while it handles one input, and what it leaves behind.

use bytes::Bytes;
use bytestring::ByteString;
use uuid::Builder;

use super::config::GroupConfig;
use crate::coordinator::records::CommittedOffset;
use crate::coordinator::result::{Answer, AnswerId, Millis, Record};
use crate::coordinator::timers::Timers;

/// The deadlines of a shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKey {
    /// A rebalance stops waiting for members.
    Join { group: ByteString },
    /// A generation stops waiting for members to ask for their assignment.
    Sync { group: ByteString },
    /// A member, or an id handed out, has been silent for too long.
    Session { group: ByteString, member: ByteString },
    /// Time to look for expired offsets.
    Expiry,
}

/// What happens to the live state once a write is durable, or has failed.
#[derive(Debug)]
pub(super) enum Effect {
    /// Nothing beyond the answers.
    Nothing,
    /// The leader's assignment is handed to the members.
    Assignment { generation: i32, assignments: Vec<(ByteString, Bytes)> },
    /// A static member that came back under a new id has its place again.
    StaticReturn(StaticReturn),
    /// The group is gone.
    Removal { state_since: Option<Millis> },
}

/// What it takes to finish, or to undo, the return of a static member.
#[derive(Debug)]
pub(super) struct StaticReturn {
    pub(super) old_id: ByteString,
    pub(super) new_id: ByteString,
    pub(super) generation: i32,
    /// The join that caused it.
    pub(super) answer: AnswerId,
    /// The leader's id before, which versions below 9 are told, so that a returning leader does not assign anew.
    pub(super) old_leader: Option<ByteString>,
    pub(super) before: MemberTerms,
}

/// What a member joined with.
#[derive(Debug)]
pub(super) struct MemberTerms {
    pub(super) protocols: Vec<heizer_wire::messages::JoinGroupRequestProtocol>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
}

/// Records of one group and what follows from them.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) group: ByteString,
    pub(super) records: Vec<Record>,
    pub(super) effect: Effect,
    /// Released with success, or turned into failures.
    pub(super) answers: Vec<(AnswerId, Answer)>,
    /// Offsets that the records set, for those who must clear them before they are durable.
    pub(super) offsets: Vec<(ByteString, i32)>,
}

impl Draft {
    pub(super) fn new(group: &ByteString, records: Vec<Record>, effect: Effect) -> Self {
        assert!(!records.is_empty(), "a write has records");
        Self { group: group.clone(), records, effect, answers: Vec::new(), offsets: Vec::new() }
    }
}

/// What one input leads to.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) answers: Vec<(AnswerId, Answer)>,
    pub(super) drafts: Vec<Draft>,
}

impl Outbox {
    pub(super) fn answer(&mut self, id: AnswerId, answer: Answer) {
        self.answers.push((id, answer));
    }

    /// Sends `answer` when all that this input wrote since `mark` is durable; at once if it wrote nothing.
    pub(super) fn answer_after(&mut self, mark: usize, id: AnswerId, answer: Answer) {
        assert!(mark <= self.drafts.len(), "drafts are only added");
        if self.drafts.len() == mark {
            self.answers.push((id, answer));
        } else if let Some(last) = self.drafts.last_mut() {
            last.answers.push((id, answer));
        }
    }
}

/// Borrowed from the shard for the time of one input.
pub(super) struct Context<'a> {
    pub(super) config: &'a GroupConfig,
    pub(super) now: Millis,
    pub(super) timers: &'a mut Timers<TimerKey>,
    pub(super) ids: &'a mut MemberIds,
    pub(super) out: &'a mut Outbox,
}

/// Makes member ids: a name the client knows and 122 bits that it cannot guess.
#[derive(Debug)]
pub(super) struct MemberIds {
    state: u64,
}

impl MemberIds {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A new id that starts with `name`.
    pub(super) fn next(&mut self, name: &str) -> ByteString {
        let (high, low) = (self.draw(), self.draw());
        let uuid = Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes());
        format!("{name}-{}", uuid.as_uuid()).into()
    }

    /// splitmix64 (Steele, Lea, Flood 2014): a full period of 2^64 from any seed.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Committed offsets of one group, by topic and partition.
pub(super) type Offsets =
    std::collections::BTreeMap<ByteString, std::collections::BTreeMap<i32, CommittedOffset>>;
