//! One raft group on one node: raft-rs, its state machine, and the callers that wait for their commands. No I/O:
//! `collect` hands out what must become durable, `persisted` is told when it has.

use crate::figures::{GroupFigures, Role};
use crate::message::Message;
use crate::record::{GroupImage, encode_append, encode_checkpoint};
use crate::store::Store;
use crate::{GroupId, NodeId, ProposeError, RaftConfig, StateMachine, StepError, log};
use bytes::Bytes;
use futures::channel::oneshot;
use raft::eraftpb::{self, Entry, HardState, MessageType, Snapshot};
use raft::{Config, RawNode, SnapshotStatus, StateRole};
use std::collections::VecDeque;
use std::mem;

/// Where the entries of one ready are split into several records. Far below what the stream takes.
const RECORD_BYTES_MAX: usize = 4 << 20;

/// The answer to a proposal: its index and the state machine's result.
pub(crate) type Answer = Result<(u64, Bytes), ProposeError>;

/// What an entry or a snapshot did to a state machine; handed to the host's apply hook.
#[derive(Clone, Debug)]
pub enum Applied {
    /// One command.
    Command {
        /// The group it belongs to.
        group: GroupId,
        /// Its index in the group's log.
        index: u64,
        /// The command as it was proposed.
        command: Bytes,
        /// What the state machine answered.
        result: Bytes,
    },
    /// The state machine was replaced by a leader's snapshot.
    Restored {
        /// The group it belongs to.
        group: GroupId,
        /// The index that the new state includes.
        index: u64,
    },
}

/// What one pass over a group yields.
#[derive(Default)]
pub(crate) struct Output {
    /// For the stream, in order.
    pub(crate) records: Vec<Bytes>,
    /// Whether the records must be durable before `persisted` is called.
    pub(crate) must_sync: bool,
    /// To be sent right away.
    pub(crate) messages: Vec<Message>,
    pub(crate) applied: Vec<Applied>,
}

struct Waiter {
    index: u64,
    term: u64,
    answer: oneshot::Sender<Answer>,
}

/// Between `collect` and `persisted`.
struct InFlight {
    ready: u64,
    messages: Vec<Message>,
    restore: Option<Snapshot>,
}

/// Owned by the core's host, alive until it closes.
pub(crate) struct Group {
    id: GroupId,
    raw: RawNode<Store>,
    machine: Box<dyn StateMachine>,
    applied: u64,
    /// In order of index.
    waiters: VecDeque<Waiter>,
    in_flight: Option<InFlight>,
    /// Entries applied since the last checkpoint.
    pub(crate) since_checkpoint: u64,
    /// Bytes of the last checkpoint.
    pub(crate) checkpoint_bytes: u64,
    /// What the last checkpoint includes.
    checkpoint_index: u64,
    /// Ticks since a snapshot for followers was prepared, or since one was found on its way.
    snapshot_age_ticks: u32,
    election_timeout: usize,
    drawn_for: (u64, StateRole),
    entries_kept_max: u64,
}

impl Group {
    /// Rebuilds the group from what the stream held. `image.hard_state.commit` must lie within its entries.
    pub(crate) fn open(
        node: NodeId,
        config: &RaftConfig,
        image: &GroupImage,
        mut machine: Box<dyn StateMachine>,
    ) -> Result<Group, raft::Error> {
        let index = image.snapshot.get_metadata().index;
        if index > 0 {
            machine.restore(&image.snapshot.data);
        }
        let settings = Config {
            id: node.0,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: index,
            max_size_per_msg: config.message_bytes_max,
            max_inflight_msgs: config.messages_in_flight_max,
            check_quorum: true,
            pre_vote: true,
            // raft-rs 0.7 may batch entries onto an empty append of another index (is_continuous_ents).
            batch_append: false,
            max_uncommitted_size: config.uncommitted_bytes_max,
            max_committed_size_per_ready: config.message_bytes_max,
            ..Config::default()
        };
        let raw = RawNode::new(&settings, Store::new(image), &log::logger(image.group.0))?;
        let mut group = Group {
            id: image.group,
            drawn_for: (raw.raft.term, raw.raft.state),
            raw,
            machine,
            applied: index,
            waiters: VecDeque::new(),
            in_flight: None,
            since_checkpoint: image.entries.len() as u64,
            checkpoint_bytes: image.snapshot.data.len() as u64,
            checkpoint_index: index,
            snapshot_age_ticks: 0,
            election_timeout: 0,
            entries_kept_max: config.entries_kept_max,
        };
        group.draw_election_timeout();
        Ok(group)
    }

    /// Whether this node is the only voter: then it needs no ticks, and leads as soon as it campaigns.
    pub(crate) fn is_alone(&self) -> bool {
        self.raw.store().voters() == [self.raw.raft.id]
    }

    pub(crate) fn voters(&self) -> Vec<NodeId> {
        self.raw.store().voters().iter().map(|id| NodeId(*id)).collect()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.raw.raft.leader_id)).filter(|id| id.0 != 0)
    }

    pub(crate) fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    pub(crate) fn figures(&self) -> GroupFigures {
        GroupFigures {
            group: self.id,
            role: match self.raw.raft.state {
                StateRole::Leader => Role::Leader,
                StateRole::Follower => Role::Follower,
                StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            },
            term: self.term(),
            last_index: self.last_index(),
            commit_index: self.raw.raft.raft_log.committed,
            applied_index: self.applied,
            snapshot_index: self.checkpoint_index,
            proposals_waiting: self.waiters.len(),
        }
    }

    pub(crate) fn campaign(&mut self) {
        if let Err(error) = self.raw.campaign() {
            tracing::debug!(group = self.id.0, %error, "campaign refused");
        }
        self.reapply_election_timeout(true);
    }

    /// Appends a command to the leader's log; the receiver resolves when it is applied here or can't be any more.
    pub(crate) fn propose(&mut self, command: Bytes) -> Result<oneshot::Receiver<Answer>, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        let entry = Entry { data: command, ..Entry::default() };
        let mut m = eraftpb::Message::default();
        m.set_msg_type(MessageType::MsgPropose);
        m.from = self.raw.raft.id;
        m.set_entries(vec![entry].into());
        self.raw.step(m).map_err(|_| ProposeError::Dropped)?;
        let (answer, receiver) = oneshot::channel();
        let (index, term) = (self.last_index(), self.term());
        assert!(
            self.waiters.back().is_none_or(|w| w.index < index || w.term < term),
            "waiters stand in order"
        );
        self.waiters.push_back(Waiter { index, term, answer });
        Ok(receiver)
    }

    /// Takes a peer's message.
    pub(crate) fn step(&mut self, from: NodeId, message: Message) -> Result<(), StepError> {
        let m = message.raft;
        if m.from != from.0 || m.to != self.raw.raft.id || !self.raw.store().voters().contains(&m.from) {
            return Err(StepError::NotForUs);
        }
        // A leader's commit index within what this node confirmed to it; beyond, this node lost entries.
        if m.get_msg_type() == MessageType::MsgHeartbeat
            && m.term >= self.term()
            && m.commit > self.last_index()
        {
            return Err(StepError::CommitBeyondLog { commit: m.commit, last: self.last_index() });
        }
        let result = self.raw.step(m);
        self.reapply_election_timeout(false);
        match result {
            // raft-rs's way to say that a message is of no use (late, from a stale term).
            Ok(()) | Err(raft::Error::ProposalDropped) => Ok(()),
            Err(error) => Err(StepError::Refused(error.to_string())),
        }
    }

    /// One tick of the logical clock; returns whether something may have become ready.
    pub(crate) fn tick(&mut self) -> bool {
        let election = self.raw.tick() && !self.is_leader();
        self.reapply_election_timeout(election);
        self.watch_snapshots();
        self.raw.has_ready() || self.raw.store().snapshot_wanted()
    }

    pub(crate) fn report_unreachable(&mut self, node: NodeId) {
        self.raw.report_unreachable(node.0);
    }

    pub(crate) fn report_snapshot(&mut self, node: NodeId, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(node.0, status);
    }

    pub(crate) fn transfer_leader(&mut self, to: NodeId) {
        self.raw.transfer_leader(to.0);
    }

    pub(crate) fn has_work(&self) -> bool {
        self.in_flight.is_none() && (self.raw.has_ready() || self.raw.store().snapshot_wanted())
    }

    /// Takes the next ready, applies what it commits, and says what must be written. `persisted` must follow.
    pub(crate) fn collect(&mut self) -> Output {
        assert!(self.in_flight.is_none(), "one ready at a time");
        let mut out = Output::default();
        if self.raw.store().snapshot_wanted() {
            let data = self.machine.snapshot();
            let snapshot = self.raw.store().snapshot_at(self.applied, data);
            self.raw.mut_store().set_prepared(Some(snapshot));
            self.snapshot_age_ticks = 0;
        }
        if !self.raw.has_ready() {
            return out;
        }
        let mut ready = self.raw.ready();
        let restore = Some(ready.snapshot().clone()).filter(|s| !s.is_empty());
        self.write(&ready, restore.as_ref(), &mut out);
        out.messages = self.wrap(ready.take_messages());
        let after = self.wrap(ready.take_persisted_messages());
        let committed = ready.take_committed_entries();
        self.in_flight = Some(InFlight { ready: ready.number(), messages: after, restore });
        self.raw.advance_append_async(ready);
        for entry in committed {
            self.apply(entry, &mut out.applied);
        }
        self.raw.advance_apply_to(self.applied);
        out
    }

    /// Puts a ready's state into the store and its records into `out`.
    fn write(&mut self, ready: &raft::Ready, restore: Option<&Snapshot>, out: &mut Output) {
        out.must_sync = ready.must_sync();
        let store = self.raw.mut_store();
        if let Some(hs) = ready.hs() {
            store.set_hard_state(hs.clone());
        }
        if let Some(snapshot) = restore {
            store.install(snapshot);
            let image = GroupImage {
                group: self.id,
                hard_state: store.hard_state().clone(),
                snapshot: snapshot.clone(),
                entries: Vec::new(),
            };
            out.records.push(encode_checkpoint(&image));
        }
        store.append(ready.entries());
        let hard_state = store.hard_state().clone();
        if !ready.entries().is_empty() {
            append_records(self.id, &hard_state, ready.entries(), &mut out.records);
        } else if ready.hs().is_some() && restore.is_none() && (out.must_sync || !self.is_alone()) {
            // A commit index alone is worth a record where others vote: a restart applies up to it at once. A node
            // alone commits its whole log anyway.
            out.records.push(encode_append(self.id, Some(&hard_state), &[]));
        }
    }

    /// What `collect` handed out is durable (or need not be): returns the messages that waited for it.
    pub(crate) fn persisted(&mut self, applied: &mut Vec<Applied>) -> Vec<Message> {
        let Some(in_flight) = self.in_flight.take() else { return Vec::new() };
        self.raw.on_persist_ready(in_flight.ready);
        if let Some(snapshot) = in_flight.restore {
            let index = snapshot.get_metadata().index;
            assert!(index >= self.applied, "a snapshot never goes back");
            self.machine.restore(&snapshot.data);
            self.applied = index;
            self.since_checkpoint = 0;
            self.checkpoint_bytes = snapshot.data.len() as u64;
            self.checkpoint_index = index;
            self.raw.advance_apply_to(index);
            // What stood below the snapshot was decided while this node didn't look.
            while self.waiters.front().is_some_and(|w| w.index <= index) {
                let waiter = self.waiters.pop_front().expect("front exists");
                let _ = waiter.answer.send(Err(ProposeError::Uncertain));
            }
            applied.push(Applied::Restored { group: self.id, index });
        }
        self.reapply_election_timeout(false);
        in_flight.messages
    }

    fn apply(&mut self, entry: Entry, applied: &mut Vec<Applied>) {
        assert_eq!(entry.index, self.applied + 1, "entries are applied in order, each once");
        // The entry that opens a leader's term is empty, and not for the state machine.
        let result = match entry.data.is_empty() {
            true => Bytes::new(),
            false => self.machine.apply(entry.index, &entry.data),
        };
        self.applied = entry.index;
        self.since_checkpoint += 1;
        while self.waiters.front().is_some_and(|w| w.index <= entry.index) {
            let waiter = self.waiters.pop_front().expect("front exists");
            let ours = (waiter.index, waiter.term) == (entry.index, entry.term);
            // Another leader's entry stands where this one was to be: it was never committed and never will be.
            let answer = if ours { Ok((entry.index, result.clone())) } else { Err(ProposeError::Dropped) };
            // A caller that has gone away is no concern.
            let _ = waiter.answer.send(answer);
        }
        if !entry.data.is_empty() {
            applied.push(Applied::Command {
                group: self.id,
                index: entry.index,
                command: entry.data,
                result,
            });
        }
    }

    /// Answers everyone who waits.
    pub(crate) fn fail_waiters(&mut self, error: &ProposeError) {
        for waiter in mem::take(&mut self.waiters) {
            let _ = waiter.answer.send(Err(error.clone()));
        }
    }

    /// Snapshots the state machine and forgets what it includes; returns the record for the stream. A group
    /// alone keeps no older entries; others keep some for followers that are a little behind.
    pub(crate) fn checkpoint(&mut self) -> Bytes {
        let store = self.raw.store();
        let data = self.machine.snapshot();
        let image = GroupImage {
            group: self.id,
            hard_state: commit_at_least(store.hard_state(), self.applied),
            snapshot: store.snapshot_at(self.applied, data),
            entries: store.entries_after(self.applied),
        };
        let record = encode_checkpoint(&image);
        let kept = if self.is_alone() { 0 } else { self.entries_kept_max };
        let compact_to = self.applied.saturating_sub(kept);
        self.raw.mut_store().compact(compact_to);
        self.since_checkpoint = 0;
        self.checkpoint_bytes = record.len() as u64;
        self.checkpoint_index = self.applied;
        record
    }

    fn wrap(&self, messages: Vec<eraftpb::Message>) -> Vec<Message> {
        messages.into_iter().filter_map(|m| Message::outgoing(self.id, m)).collect()
    }

    /// A follower to whom a snapshot was sent and that never answered is tried again; a snapshot that nobody
    /// asks for any more is dropped.
    fn watch_snapshots(&mut self) {
        let waiting: Vec<u64> = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(_, pr)| self.is_leader() && pr.state == raft::ProgressState::Snapshot)
            .map(|(id, _)| *id)
            .collect();
        self.snapshot_age_ticks = self.snapshot_age_ticks.saturating_add(1);
        if self.snapshot_age_ticks < 4 * self.raw.raft.election_timeout() as u32 {
            return;
        }
        self.snapshot_age_ticks = 0;
        if waiting.is_empty() && !self.raw.store().snapshot_wanted() {
            self.raw.mut_store().set_prepared(None);
        }
        for id in waiting {
            self.raw.report_snapshot(id, SnapshotStatus::Failure);
        }
    }

    /// raft-rs draws its election timeout from the thread's random source at every reset, which no seed
    /// replays: put ours back, drawn anew whenever the role or the term changed or an election began.
    fn reapply_election_timeout(&mut self, election: bool) {
        let now = (self.raw.raft.term, self.raw.raft.state);
        if election || now != self.drawn_for {
            self.drawn_for = now;
            self.draw_election_timeout();
        } else {
            self.raw.raft.set_randomized_election_timeout(self.election_timeout);
        }
    }

    fn draw_election_timeout(&mut self) {
        let min = self.raw.raft.election_timeout();
        // raft-rs's range is [min, 2 * min).
        self.election_timeout = min + heizer_runtime::random::below(min as u64) as usize;
        self.raw.raft.set_randomized_election_timeout(self.election_timeout);
    }
}

/// Records of bounded size. Each is sound without those after it: its commit index stays within its entries.
fn append_records(group: GroupId, hard_state: &HardState, entries: &[Entry], records: &mut Vec<Bytes>) {
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let mut bytes = first.data.len();
        let fits = |e: &&Entry| {
            bytes += e.data.len();
            bytes <= RECORD_BYTES_MAX
        };
        let n = 1 + rest[1..].iter().take_while(fits).count();
        let (head, tail) = rest.split_at(n);
        let mut hs = hard_state.clone();
        hs.commit = hs.commit.min(head[n - 1].index);
        records.push(encode_append(group, Some(&hs), head));
        rest = tail;
    }
}

/// The hard state as written, with a commit index that covers what has been applied.
fn commit_at_least(hs: &HardState, applied: u64) -> HardState {
    let mut hs = hs.clone();
    hs.commit = hs.commit.max(applied);
    hs
}

/// Checks what replay has put together before raft-rs, which would panic, sees it.
pub(crate) fn image_is_sound(image: &GroupImage) -> bool {
    let commit = image.hard_state.commit;
    !image.snapshot.get_metadata().get_conf_state().voters.is_empty()
        && commit <= image.last_index()
        && image.entries.windows(2).all(|pair| pair[0].term <= pair[1].term)
        && image.entries.last().is_none_or(|e| e.term <= image.hard_state.term)
}
