//! The shell around a core's groups: the stream, the task that drives them, and the callers' side.
//!
//! One task per host goes in rounds: take a ready from every group that has one, write all their records, wait
//! once until they are durable, release what waited for that. What is proposed meanwhile joins the next round.

use crate::figures::{Counts, HostFigures};
use crate::group::{Applied, Group, Output, image_is_sound};
use crate::journal::Journal;
use crate::message::Message;
use crate::record::{self, GroupImage, Record};
use crate::{GroupId, NodeId, ProposeError, RaftConfig, StateMachine, StepError};
use bytes::Bytes;
use heizer_runtime::sync::Event;
use heizer_runtime::{task, time};
use heizer_storage::{LogFailed, StorageContext, StorageError};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

/// Why a host didn't open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The stream can't be read or written.
    #[error("raft stream: {0}")]
    Storage(#[from] StorageError),
    /// The stream holds what no group can have written.
    #[error("raft stream is corrupt at position {position}: {reason}")]
    Corrupt {
        /// Of the record, in the stream.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// The stream holds a group that this core no longer hosts: the layout has changed.
    #[error("the raft stream holds group {0}, which is not placed on this core")]
    MisplacedGroup(GroupId),
    /// raft-rs refused the settings or the state.
    #[error("group {group}: {reason}")]
    Group {
        /// The group.
        group: GroupId,
        /// raft-rs's words.
        reason: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Stopping,
    Failed,
}

type Hook = Rc<dyn Fn(&Applied)>;

/// One core's raft groups. Cheap to clone; all clones are the same host. Belongs to the core that opened it, and
/// works until [`RaftHost::shutdown`].
#[derive(Clone)]
pub struct RaftHost {
    inner: Rc<Inner>,
}

struct Inner {
    node: NodeId,
    config: RaftConfig,
    groups: BTreeMap<GroupId, RefCell<Group>>,
    journal: Journal,
    /// Where each group's latest checkpoint stands in the stream.
    checkpoints: RefCell<BTreeMap<GroupId, u64>>,
    /// Groups that may have a ready.
    dirty: RefCell<BTreeSet<GroupId>>,
    work: Event,
    /// Notified after every round.
    progress: Event,
    outgoing: RefCell<Vec<(NodeId, Message)>>,
    outgoing_ready: Event,
    hook: RefCell<Option<Hook>>,
    counts: Counts,
    state: Cell<State>,
    driver_done: Cell<bool>,
}

impl RaftHost {
    /// Opens the stream in `dir` (made if missing), rebuilds every group of `groups`, and starts driving them.
    /// Groups that the stream doesn't hold start empty with `voters`; the others keep the voters they have.
    /// The directory above `dir` must already be durable.
    /// Resolves when all groups whose only voter is this node lead and have applied their whole log.
    pub async fn open(
        dir: &Path,
        storage: &Rc<StorageContext>,
        node_id: NodeId,
        config: RaftConfig,
        groups: Vec<(GroupId, Box<dyn StateMachine>)>,
        voters: &[NodeId],
    ) -> Result<RaftHost, OpenError> {
        RaftHost::open_importing(dir, storage, node_id, config, groups, voters, Vec::new()).await
    }

    /// Like [`RaftHost::open`]; groups that the stream doesn't hold, but `imports` does, start from there: the
    /// way a group moves to another core's stream, see [`read_groups`]. Once it returns, imports are durable.
    pub async fn open_importing(
        dir: &Path,
        storage: &Rc<StorageContext>,
        node_id: NodeId,
        config: RaftConfig,
        groups: Vec<(GroupId, Box<dyn StateMachine>)>,
        voters: &[NodeId],
        imports: Vec<GroupImage>,
    ) -> Result<RaftHost, OpenError> {
        assert!(node_id.0 != 0, "raft-rs's node 0 is nobody");
        assert!(!voters.is_empty(), "a group needs a voter");
        let (journal, records) = Journal::open(dir, storage).await?;
        let mut images = replay(&records)?;
        drop(records);
        let mut imports: BTreeMap<GroupId, GroupImage> = imports.into_iter().map(|i| (i.group, i)).collect();
        let imports_given = imports.len();
        let voter_ids: Vec<u64> = voters.iter().map(|v| v.0).collect();
        let mut open = BTreeMap::new();
        let mut checkpoints = BTreeMap::new();
        for (id, machine) in groups {
            let (position, image) = match images.remove(&id) {
                Some(found) => found,
                None => {
                    let image = imports.remove(&id).unwrap_or_else(|| GroupImage::empty(id, &voter_ids));
                    (journal.append(&record::encode_checkpoint(&image)).map_err(StorageError::from)?, image)
                }
            };
            let group = Group::open(node_id, &config, &image, machine)
                .map_err(|e| OpenError::Group { group: id, reason: e.to_string() })?;
            checkpoints.insert(id, position);
            assert!(open.insert(id, RefCell::new(group)).is_none(), "group {id} given twice");
        }
        if let Some(id) = images.keys().next() {
            return Err(OpenError::MisplacedGroup(*id));
        }
        if imports.len() < imports_given {
            journal.sync().await.map_err(StorageError::from)?;
        }
        let inner = Rc::new(Inner {
            node: node_id,
            config,
            groups: open,
            journal,
            checkpoints: RefCell::new(checkpoints),
            dirty: RefCell::default(),
            work: Event::default(),
            progress: Event::default(),
            outgoing: RefCell::default(),
            outgoing_ready: Event::default(),
            hook: RefCell::default(),
            counts: Counts::default(),
            state: Cell::new(State::Running),
            driver_done: Cell::new(false),
        });
        let host = RaftHost { inner };
        host.start().await?;
        Ok(host)
    }

    async fn start(&self) -> Result<(), OpenError> {
        let inner = &self.inner;
        let mut ticking = false;
        for (id, group) in &inner.groups {
            let mut group = group.borrow_mut();
            match group.is_alone() {
                true => group.campaign(),
                false => ticking = true,
            }
            inner.dirty.borrow_mut().insert(*id);
        }
        let driver = task::spawn(drive(inner.clone()));
        let watched = inner.clone();
        drop(task::spawn(async move {
            // A bug, logged by the runtime; callers must not wait for ever.
            if driver.await.is_err() {
                watched.state.set(State::Failed);
                watched.stop(&ProposeError::Failed);
            }
        }));
        if ticking {
            drop(task::spawn(tick(inner.clone())));
        }
        loop {
            let progress = inner.progress.listen();
            if inner.state.get() == State::Failed {
                let failed = LogFailed { reason: "its first write failed".into() };
                return Err(StorageError::from(failed).into());
            }
            let caught_up = |g: &Group| g.is_leader() && g.applied() == g.last_index();
            if inner.groups.values().map(RefCell::borrow).all(|g| !g.is_alone() || caught_up(&g)) {
                return Ok(());
            }
            progress.await;
        }
    }

    /// Commits `command` (not empty) through the group's log; resolves to its index and the state machine's
    /// result after it was applied on this node. Dropping the future doesn't take the command back.
    pub async fn propose(&self, group: GroupId, command: Bytes) -> Result<(u64, Bytes), ProposeError> {
        assert!(!command.is_empty(), "an empty command is raft's own");
        let counts = &self.inner.counts;
        Counts::add(&counts.proposals);
        let result = self.try_propose(group, command).await;
        if result.is_err() {
            Counts::add(&counts.proposal_failures);
        }
        result
    }

    async fn try_propose(&self, group: GroupId, command: Bytes) -> Result<(u64, Bytes), ProposeError> {
        let inner = &self.inner;
        inner.check_running()?;
        if command.len() > inner.config.command_bytes_max {
            return Err(ProposeError::TooLarge);
        }
        let receiver = inner.group(group)?.borrow_mut().propose(command)?;
        inner.mark(group);
        receiver.await.unwrap_or(Err(ProposeError::ShuttingDown))
    }

    /// The group's leader, as far as this node knows.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.inner.groups.get(&group)?.borrow().leader()
    }

    /// Whether this node leads the group.
    pub fn is_leader(&self, group: GroupId) -> bool {
        self.inner.groups.get(&group).is_some_and(|g| g.borrow().is_leader())
    }

    /// The group's current raft term; 0 for a group that isn't here.
    pub fn term(&self, group: GroupId) -> u64 {
        self.inner.groups.get(&group).map_or(0, |g| g.borrow().term())
    }

    /// Index of the last entry that the group's state machine has seen; 0 before the first.
    pub fn applied_index(&self, group: GroupId) -> u64 {
        self.inner.groups.get(&group).map_or(0, |g| g.borrow().applied())
    }

    /// The group's voters.
    pub fn voters(&self, group: GroupId) -> Vec<NodeId> {
        self.inner.groups.get(&group).map_or(Vec::new(), |g| g.borrow().voters())
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.inner.node
    }

    /// Calls `hook` after every applied command and every restored snapshot from now on, in the order of each
    /// group's log. No borrow is held meanwhile: it may call the host.
    pub fn on_apply(&self, hook: impl Fn(&Applied) + 'static) {
        *self.inner.hook.borrow_mut() = Some(Rc::new(hook));
    }

    /// Resolves after the next round in which anything may have changed (applied indexes, leaders). Create it,
    /// check the condition, then await it.
    pub fn progress(&self) -> impl Future<Output = ()> + Unpin + use<> {
        self.inner.progress.listen()
    }

    /// Resolves when `group` has applied `index` here.
    pub async fn wait_applied(&self, group: GroupId, index: u64) -> Result<(), ProposeError> {
        loop {
            let progress = self.progress();
            if self.inner.group(group)?.borrow().applied() >= index {
                return Ok(());
            }
            self.inner.check_running()?;
            progress.await;
        }
    }

    /// Whether the stream failed and the host has stopped.
    pub fn has_failed(&self) -> bool {
        self.inner.state.get() == State::Failed
    }

    /// Takes the messages that wait for the transport, each with its receiver.
    pub fn take_outgoing(&self) -> Vec<(NodeId, Message)> {
        std::mem::take(&mut *self.inner.outgoing.borrow_mut())
    }

    /// Resolves when messages have been queued since the call.
    pub fn outgoing_ready(&self) -> impl Future<Output = ()> + Unpin + use<> {
        self.inner.outgoing_ready.listen()
    }

    /// Takes a message that arrived from `from`.
    pub fn step(&self, from: NodeId, message: Message) -> Result<(), StepError> {
        self.inner.check_running().map_err(|_| StepError::Stopped)?;
        let id = message.group();
        let group = self.inner.groups.get(&id).ok_or(StepError::NotForUs)?;
        group.borrow_mut().step(from, message)?;
        self.inner.mark(id);
        Ok(())
    }

    /// Tells the groups that messages to `node` don't arrive at present.
    pub fn report_unreachable(&self, node: NodeId) {
        for group in self.inner.groups.values() {
            group.borrow_mut().report_unreachable(node);
        }
    }

    /// Tells the group whether a snapshot message reached `node`.
    pub fn report_snapshot(&self, group: GroupId, node: NodeId, delivered: bool) {
        if let Some(g) = self.inner.groups.get(&group) {
            g.borrow_mut().report_snapshot(node, delivered);
            self.inner.mark(group);
        }
    }

    /// Asks the group's leader, if this node is it, to hand the leadership to `to`.
    pub fn transfer_leader(&self, group: GroupId, to: NodeId) {
        if let Some(g) = self.inner.groups.get(&group).filter(|g| g.borrow().is_leader()) {
            g.borrow_mut().transfer_leader(to);
            self.inner.mark(group);
        }
    }

    /// Bytes of the stream, from the oldest record kept to its end.
    pub fn stream_bytes(&self) -> u64 {
        self.inner.journal.bytes()
    }

    /// What there is to show of the host and its groups.
    pub fn figures(&self) -> HostFigures {
        let inner = &self.inner;
        HostFigures {
            groups: inner.groups.values().map(|group| group.borrow().figures()).collect(),
            proposals: inner.counts.proposals.get(),
            proposal_failures: inner.counts.proposal_failures.get(),
            snapshots: inner.counts.snapshots.get(),
            stream_bytes: self.stream_bytes(),
            failed: self.has_failed(),
        }
    }

    /// Stops driving the groups, once the round in progress is over. Proposals without a result end with
    /// `ShuttingDown`.
    pub async fn shutdown(&self) {
        if self.inner.state.get() == State::Running {
            self.inner.state.set(State::Stopping);
        }
        self.inner.work.notify_all();
        self.inner.journal.give_up_waiting();
        loop {
            let progress = self.inner.progress.listen();
            if self.inner.driver_done.get() {
                break;
            }
            progress.await;
        }
        if let Err(error) = self.inner.journal.close().await {
            tracing::error!(%error, "the raft stream didn't close cleanly");
        }
    }
}

/// Reads the groups that the stream in `dir` holds, without starting them: after a change of the layout, what a
/// core's old stream held is handed to `open_importing` of the cores that now host the groups.
pub async fn read_groups(dir: &Path, storage: &Rc<StorageContext>) -> Result<Vec<GroupImage>, OpenError> {
    let (journal, records) = Journal::open(dir, storage).await?;
    journal.close().await?;
    Ok(replay(&records)?.into_values().map(|(_, image)| image).collect())
}

/// Puts every group together from the stream's records, with the position of its latest checkpoint.
fn replay(records: &[(u64, Bytes)]) -> Result<BTreeMap<GroupId, (u64, GroupImage)>, OpenError> {
    let mut images: BTreeMap<GroupId, (u64, GroupImage)> = BTreeMap::new();
    // Groups of which only the tail of an already superseded past was seen so far.
    let mut headless = BTreeMap::new();
    for (position, bytes) in records {
        let corrupt = |reason: String| OpenError::Corrupt { position: *position, reason };
        match record::decode(bytes).map_err(|e| corrupt(e.to_string()))? {
            Record::Checkpoint(image) => {
                headless.remove(&image.group);
                images.insert(image.group, (*position, image));
            }
            Record::Append { group, hard_state, entries } => match images.get_mut(&group) {
                Some((_, image)) => {
                    image.append(hard_state, entries).map_err(|e| corrupt(format!("group {group}: {e}")))?
                }
                None => {
                    headless.entry(group).or_insert(*position);
                }
            },
        }
    }
    if let Some((group, position)) = headless.into_iter().next() {
        let reason = format!("group {group} has no checkpoint");
        return Err(OpenError::Corrupt { position, reason });
    }
    for (group, (position, image)) in &mut images {
        let index = image.snapshot.get_metadata().index;
        image.hard_state.commit = image.hard_state.commit.max(index);
        if !image_is_sound(image) {
            let reason = format!("group {group}: hard state and entries disagree");
            return Err(OpenError::Corrupt { position: *position, reason });
        }
    }
    Ok(images)
}

impl Inner {
    fn group(&self, id: GroupId) -> Result<&RefCell<Group>, ProposeError> {
        self.groups.get(&id).ok_or(ProposeError::UnknownGroup)
    }

    fn check_running(&self) -> Result<(), ProposeError> {
        match self.state.get() {
            State::Running => Ok(()),
            State::Stopping => Err(ProposeError::ShuttingDown),
            State::Failed => Err(ProposeError::Failed),
        }
    }

    fn mark(&self, id: GroupId) {
        self.dirty.borrow_mut().insert(id);
        self.work.notify_all();
    }

    /// One round over the groups of `batch`.
    async fn round(&self, batch: BTreeSet<GroupId>) -> Result<(), LogFailed> {
        let mut records = Vec::new();
        let mut must_sync = false;
        let mut collected = Vec::new();
        for id in batch {
            let output = {
                let mut group = self.groups[&id].borrow_mut();
                if !group.has_work() {
                    continue;
                }
                group.collect()
            };
            let Output { records: more, must_sync: sync, messages, applied } = output;
            records.extend(more);
            must_sync |= sync;
            collected.push(id);
            self.send(messages);
            self.announce(&applied);
        }
        for record in records {
            self.journal.append(&record)?;
        }
        self.progress.notify_all();
        if must_sync {
            self.journal.sync().await?;
        }
        for id in collected {
            let mut applied = Vec::new();
            let messages = {
                let mut group = self.groups[&id].borrow_mut();
                let messages = group.persisted(&mut applied);
                if group.has_work() {
                    self.dirty.borrow_mut().insert(id);
                }
                messages
            };
            self.send(messages);
            self.announce(&applied);
        }
        self.progress.notify_all();
        self.checkpoint().await
    }

    fn send(&self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        for message in messages {
            if self.outgoing.borrow().len() < self.config.outgoing_max {
                self.outgoing.borrow_mut().push((message.to(), message));
                continue;
            }
            let mut group = self.groups[&message.group()].borrow_mut();
            match message.is_snapshot() {
                true => group.report_snapshot(message.to(), false),
                false => group.report_unreachable(message.to()),
            }
        }
        self.outgoing_ready.notify_all();
    }

    fn announce(&self, applied: &[Applied]) {
        let hook = self.hook.borrow().clone();
        if let Some(hook) = hook {
            applied.iter().for_each(|a| hook(a));
        }
    }

    /// Snapshots the groups that have applied much or pin the stream's oldest part, then cuts the stream.
    async fn checkpoint(&self) -> Result<(), LogFailed> {
        let due = self.checkpoint_due();
        if due.is_empty() {
            return Ok(());
        }
        for id in due {
            let record = self.groups[&id].borrow_mut().checkpoint();
            let position = self.journal.append(&record)?;
            Counts::add(&self.counts.snapshots);
            self.checkpoints.borrow_mut().insert(id, position);
        }
        self.journal.sync().await?;
        let oldest = self.checkpoints.borrow().values().copied().min();
        if let Some(position) = oldest {
            self.journal.truncate_before(position);
        }
        Ok(())
    }

    fn checkpoint_due(&self) -> Vec<GroupId> {
        let snapshots: u64 = self.groups.values().map(|g| g.borrow().checkpoint_bytes).sum();
        let bytes_max = self.config.stream_bytes_max.max(4 * snapshots);
        // Whoever's checkpoint lies in the older half goes, so that a cut frees a good part at once.
        let end = self.journal.end();
        let too_long = self.journal.bytes() > bytes_max;
        let pin_before = if too_long { end.saturating_sub(bytes_max / 2) } else { 0 };
        let checkpoints = self.checkpoints.borrow();
        let due = |id: &GroupId, group: &Group| {
            group.since_checkpoint >= self.config.checkpoint_entries_max || checkpoints[id] < pin_before
        };
        self.groups.iter().filter(|(id, g)| due(id, &g.borrow())).map(|(id, _)| *id).collect()
    }

    fn stop(&self, error: &ProposeError) {
        for group in self.groups.values() {
            group.borrow_mut().fail_waiters(error);
        }
        self.driver_done.set(true);
        self.progress.notify_all();
    }
}

/// Drives the groups until the host stops.
async fn drive(inner: Rc<Inner>) {
    loop {
        let work = inner.work.listen();
        if inner.state.get() != State::Running {
            return inner.stop(&ProposeError::ShuttingDown);
        }
        let batch = std::mem::take(&mut *inner.dirty.borrow_mut());
        if batch.is_empty() {
            work.await;
            continue;
        }
        if let Err(error) = inner.round(batch).await {
            tracing::error!(%error, "the raft stream has failed; its groups stop");
            inner.state.set(State::Failed);
            return inner.stop(&ProposeError::Failed);
        }
    }
}

/// The logical clock of groups with several voters.
async fn tick(inner: Rc<Inner>) {
    while inner.state.get() == State::Running {
        time::sleep(inner.config.tick).await;
        for (id, group) in &inner.groups {
            let mut group = group.borrow_mut();
            if !group.is_alone() && group.tick() {
                inner.dirty.borrow_mut().insert(*id);
            }
        }
        if !inner.dirty.borrow().is_empty() {
            inner.work.notify_all();
        }
    }
}
