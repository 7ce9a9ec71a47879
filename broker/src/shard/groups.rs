//! The shell of the group coordinators: it loads them from their partitions of `__consumer_offsets`, appends what
//! they write, answers when they say so, and keeps their time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures::channel::oneshot;
use futures::future::{Either, select};
use heizer_runtime::collections::HashMap;
use heizer_runtime::sync::Event;
use heizer_runtime::time::{self, Instant};
use heizer_runtime::{random, task};
use heizer_storage::AppendError;
use heizer_wire::ErrorCode;
use heizer_wire::messages::{
    DescribedGroup, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListedGroup, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequestGroup, OffsetFetchResponseGroup, SyncGroupRequest,
};
use heizer_wire::record_batch::{BatchOptions, RecordBatchBuilder, batches};

use crate::coordinator::group::{GroupConfig, GroupShard, GroupSummary};
use crate::coordinator::{Answer, AnswerId, Client, CoordinatorResult, Millis, Write, WriteId};
use crate::error::PartitionError;
use crate::metrics::Committed;
use crate::partition::Partition;

/// Bytes read at once while a coordinator loads.
const LOAD_BYTES: usize = 1 << 20;
/// Most bytes that one batch of coordinator records may unfold into.
const LOAD_DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// A request of a group's member, or about a group, that the coordinator answers, now or later.
#[derive(Debug)]
pub enum GroupRequest {
    /// JoinGroup, and who sent it.
    Join(JoinGroupRequest, Client),
    /// SyncGroup.
    Sync(SyncGroupRequest),
    /// Heartbeat.
    Heartbeat(HeartbeatRequest),
    /// LeaveGroup at a version.
    Leave(LeaveGroupRequest, i16),
    /// OffsetCommit at a version.
    OffsetCommit(OffsetCommitRequest, i16),
    /// OffsetDelete.
    OffsetDelete(OffsetDeleteRequest),
    /// One group of a DeleteGroups.
    Delete(ByteString),
}

/// Turns a partition's error into the code that a coordinator answers with.
pub type CodeOf = fn(&PartitionError) -> ErrorCode;

/// The coordinators of one core, by partition of `__consumer_offsets`.
pub struct Groups {
    config: GroupConfig,
    code_of: CodeOf,
    rooms: RefCell<BTreeMap<i32, Rc<Room>>>,
    clock: Clock,
    /// A deadline may have come nearer.
    deadlines_changed: Event,
}

/// One coordinator and its partition.
struct Room {
    partition: Rc<Partition>,
    state: RefCell<GroupShard>,
    loaded: Cell<bool>,
    parked: RefCell<HashMap<AnswerId, oneshot::Sender<Answer>>>,
    last_answer: Cell<u64>,
    /// Appended and not yet below the high watermark, in order.
    writes: RefCell<Vec<(WriteId, i64)>>,
    confirming: Cell<bool>,
}

/// Wall time that never runs backwards: read once, then carried on by the monotonic clock.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    start_ms: u64,
}

impl Clock {
    fn start() -> Clock {
        Clock { start: time::now(), start_ms: u64::try_from(time::wall_clock_ms()).unwrap_or(0) }
    }

    fn now(self) -> Millis {
        let passed = time::now().saturating_duration_since(self.start);
        Millis(self.start_ms + u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(self, at: Millis) -> Instant {
        self.start + Duration::from_millis(at.0.saturating_sub(self.start_ms))
    }
}

impl Groups {
    /// No coordinators yet.
    pub fn new(config: GroupConfig, code_of: CodeOf) -> Groups {
        Groups {
            config,
            code_of,
            rooms: RefCell::default(),
            clock: Clock::start(),
            deadlines_changed: Event::default(),
        }
    }

    /// Takes over a partition of `__consumer_offsets`: its coordinator answers once the log has been replayed.
    pub fn open(self: &Rc<Self>, partition: Rc<Partition>) {
        let index = partition.index();
        let room = Rc::new(Room {
            partition,
            state: RefCell::new(GroupShard::new(self.config.clone(), random::u64())),
            loaded: Cell::new(false),
            parked: RefCell::default(),
            last_answer: Cell::new(0),
            writes: RefCell::default(),
            confirming: Cell::new(false),
        });
        self.rooms.borrow_mut().insert(index, room.clone());
        let groups = self.clone();
        task::spawn(async move {
            match room.load().await {
                Ok(()) => {
                    room.loaded.set(true);
                    groups.act(&room, |state, now| state.on_loaded(now));
                }
                Err(error) => {
                    tracing::error!(partition = index, %error, "a group coordinator cannot be loaded");
                }
            }
        });
    }

    /// Lets go of a partition; whoever waits there is told that the coordinator is elsewhere.
    pub fn close(self: &Rc<Self>, index: i32) {
        let Some(room) = self.rooms.borrow_mut().remove(&index) else { return };
        if room.loaded.replace(false) {
            self.act(&room, |state, now| state.on_unloaded(now));
        }
        room.parked.borrow_mut().clear();
    }

    /// Lets go of everything: whoever waits is told that the coordinator is elsewhere, and asks again after a restart.
    pub fn close_all(self: &Rc<Self>) {
        let indexes: Vec<i32> = self.rooms.borrow().keys().copied().collect();
        indexes.into_iter().for_each(|index| self.close(index));
    }

    /// Answers a request; what must wait waits here.
    pub async fn submit(self: &Rc<Self>, index: i32, request: GroupRequest) -> Result<Answer, ErrorCode> {
        let room = self.loaded(index)?;
        let (sender, answer) = oneshot::channel();
        let id = room.park(sender);
        self.act(&room, |state, now| match request {
            GroupRequest::Join(request, client) => state.handle_join(id, request, client, now),
            GroupRequest::Sync(request) => state.handle_sync(id, request, now),
            GroupRequest::Heartbeat(request) => state.handle_heartbeat(id, &request, now),
            GroupRequest::Leave(request, version) => state.handle_leave(id, request, version, now),
            GroupRequest::OffsetCommit(request, version) => {
                state.handle_offset_commit(id, request, version, now)
            }
            GroupRequest::OffsetDelete(request) => state.delete_offsets(id, request),
            GroupRequest::Delete(group) => state.delete_group(id, &group, now),
        });
        drop(room);
        answer.await.map_err(|_| ErrorCode::NotCoordinator)
    }

    /// A group's committed offsets.
    pub fn offset_fetch(
        &self,
        index: i32,
        request: &OffsetFetchRequestGroup,
    ) -> Result<OffsetFetchResponseGroup, ErrorCode> {
        Ok(self.loaded(index)?.state.borrow().offset_fetch(request))
    }

    /// A group as DescribeGroups shows it.
    pub fn describe(
        &self,
        index: i32,
        group: &ByteString,
        version: i16,
    ) -> Result<DescribedGroup, ErrorCode> {
        Ok(self.loaded(index)?.state.borrow().describe(group, version))
    }

    /// The groups of all coordinators here that pass the filters; an error while one of them loads.
    pub fn list(&self, states: &[ByteString], types: &[ByteString]) -> Result<Vec<ListedGroup>, ErrorCode> {
        let mut listed = Vec::new();
        for room in self.rooms.borrow().values() {
            if !room.loaded.get() {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
            listed.extend(room.state.borrow().list(states, types));
        }
        Ok(listed)
    }

    /// The coordinators here, by their partitions.
    pub(super) fn partitions(&self) -> Vec<i32> {
        self.rooms.borrow().keys().copied().collect()
    }

    /// Of a coordinator that has loaded: the group that follows `after`, for metrics.
    pub(super) fn summary_after(&self, index: i32, after: Option<&ByteString>) -> Option<GroupSummary> {
        self.loaded(index).ok()?.state.borrow().summary_after(after)
    }

    /// What a group has committed, for metrics.
    pub(super) fn committed(&self, index: i32, group: &ByteString) -> Vec<Committed> {
        let Ok(room) = self.loaded(index) else { return Vec::new() };
        let state = room.state.borrow();
        // A note of how far it has come is never negative but where a client says so.
        let rows = state.committed(group).filter(|(_, _, offset)| *offset >= 0);
        rows.map(|(topic, partition, offset)| Committed { topic: topic.clone(), partition, offset }).collect()
    }

    /// How many coordinators are still reading their partitions.
    pub(super) fn loading(&self) -> usize {
        self.rooms.borrow().values().filter(|room| !room.loaded.get()).count()
    }

    /// Forgets the offsets that groups have committed for a topic that is gone.
    pub fn topic_deleted(self: &Rc<Self>, topic: &str) {
        let rooms: Vec<Rc<Room>> = self.rooms.borrow().values().cloned().collect();
        let gone = BTreeSet::from([ByteString::from(topic)]);
        for room in rooms.into_iter().filter(|room| room.loaded.get()) {
            self.act(&room, |state, _| state.on_topics_deleted(&gone));
        }
    }

    /// Keeps the coordinators' time, for ever. One timer for all of a core's coordinators.
    pub async fn keep_time(self: Rc<Self>) {
        loop {
            let changed = self.deadlines_changed.listen();
            match self.next_deadline() {
                None => changed.await,
                Some(deadline) => {
                    let due = time::sleep_until(self.clock.instant(deadline));
                    if let Either::Left(_) = select(due, changed).await {
                        self.run_due();
                    }
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Millis> {
        let rooms = self.rooms.borrow();
        rooms
            .values()
            .filter(|room| room.loaded.get())
            .filter_map(|room| room.state.borrow().next_deadline())
            .min()
    }

    fn run_due(self: &Rc<Self>) {
        let now = self.clock.now();
        let rooms: Vec<Rc<Room>> = self.rooms.borrow().values().cloned().collect();
        for room in rooms {
            let due = room.state.borrow().next_deadline().is_some_and(|deadline| deadline <= now);
            if due && room.loaded.get() {
                self.act(&room, GroupShard::on_timer);
            }
        }
    }

    fn loaded(&self, index: i32) -> Result<Rc<Room>, ErrorCode> {
        match self.rooms.borrow().get(&index) {
            Some(room) if room.loaded.get() => Ok(room.clone()),
            Some(_) => Err(ErrorCode::CoordinatorLoadInProgress),
            None => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Gives the coordinator an input and carries out what it asks for; its own failed appends are inputs as well.
    fn act(
        self: &Rc<Self>,
        room: &Rc<Room>,
        input: impl FnOnce(&mut GroupShard, Millis) -> CoordinatorResult,
    ) {
        let now = self.clock.now();
        let mut results = vec![input(&mut room.state.borrow_mut(), now)];
        while let Some(result) = results.pop() {
            for (id, answer) in result.answers {
                room.answer(id, answer);
            }
            for write in result.writes {
                if let Err((id, code)) = self.append(room, write) {
                    results.push(room.state.borrow_mut().on_write_done(id, Err(code), now));
                }
            }
        }
        self.deadlines_changed.notify_all();
    }

    fn append(self: &Rc<Self>, room: &Rc<Room>, write: Write) -> Result<(), (WriteId, ErrorCode)> {
        let appended = room.partition.append_records(&batch_of(&write)).map_err(|error| {
            let code = (self.code_of)(&error);
            // A full disk has been told of where it was found.
            if !matches!(error, PartitionError::Append(AppendError::NoSpace)) {
                tracing::warn!(partition = room.partition.index(), %error, "group records were not appended");
            }
            (write.id, code)
        })?;
        room.writes.borrow_mut().push((write.id, appended.last_offset + 1));
        if !room.confirming.replace(true) {
            let (groups, room) = (self.clone(), room.clone());
            task::spawn(async move { groups.confirm_writes(&room).await });
        }
        Ok(())
    }

    /// Tells the coordinator of its writes as the high watermark passes them, in order.
    async fn confirm_writes(self: &Rc<Self>, room: &Rc<Room>) {
        loop {
            let Some((id, end)) = room.writes.borrow().first().copied() else {
                room.confirming.set(false);
                return;
            };
            let outcome = room.partition.committed(end).await.map_err(|error| (self.code_of)(&error));
            room.writes.borrow_mut().remove(0);
            self.act(room, |state, now| state.on_write_done(id, outcome, now));
        }
    }
}

fn batch_of(write: &Write) -> Bytes {
    let mut builder = RecordBatchBuilder::new(BatchOptions::default());
    let now_ms = time::wall_clock_ms();
    for record in &write.records {
        builder.append(now_ms, Some(&record.key), record.value.as_deref(), &[]);
    }
    builder.build()
}

impl Room {
    fn park(&self, sender: oneshot::Sender<Answer>) -> AnswerId {
        let id = AnswerId(self.last_answer.get() + 1);
        self.last_answer.set(id.0);
        self.parked.borrow_mut().insert(id, sender);
        id
    }

    fn answer(&self, id: AnswerId, answer: Answer) {
        // A caller that is gone misses its answer, nothing else.
        if let Some(sender) = self.parked.borrow_mut().remove(&id) {
            let _ = sender.send(answer);
        }
    }

    /// Replays the partition from its first to its last record.
    async fn load(&self) -> Result<(), PartitionError> {
        let mut offset = self.partition.log_start_offset();
        let end = self.partition.log_end_offset();
        while offset < end {
            let read = self.partition.read_for_load(offset, LOAD_BYTES).await?;
            let before = offset;
            for batch in batches(read) {
                let batch = batch.map_err(|error| self.damaged(error.to_string()))?;
                offset = batch.header().last_offset() + 1;
                if !batch.header().is_control() {
                    self.replay(&batch)?;
                }
            }
            if offset == before {
                return Err(self.damaged(format!("nothing to read at offset {offset} of {end}")));
            }
            task::yield_now().await;
        }
        Ok(())
    }

    fn replay(&self, batch: &heizer_wire::record_batch::BatchView) -> Result<(), PartitionError> {
        let records =
            batch.records(LOAD_DECOMPRESSED_BYTES_MAX).map_err(|error| self.damaged(error.to_string()))?;
        let mut state = self.state.borrow_mut();
        for record in records {
            let record = record.map_err(|error| self.damaged(error.to_string()))?;
            let Some(key) = record.key else { continue };
            if let Err(error) = state.replay(&key, record.value.as_deref()) {
                tracing::warn!(partition = self.partition.index(), %error, "a group record is skipped");
            }
        }
        Ok(())
    }

    fn damaged(&self, reason: String) -> PartitionError {
        PartitionError::Storage(heizer_storage::StorageError::Corrupt {
            path: self.partition.directory(),
            reason,
        })
    }
}
