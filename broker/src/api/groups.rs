//! What the APIs of groups share: from a group to its coordinator, and one core hop there.

use std::future::Future;
use std::rc::Rc;

use bytestring::ByteString;
use futures::StreamExt;
use futures::stream;
use heizer_runtime::cores::{self, CoreId};
use heizer_wire::ErrorCode;

use super::{Call, topics};
use crate::coordinator::{Answer, Client, partition_for};
use crate::metadata::TopicImage;
use crate::shard::{GroupRequest, Groups, OFFSETS_TOPIC, by_owner, here};

/// Groups of one request that the coordinators of a core are asked about at the same time.
const GROUPS_AT_ONCE: usize = 64;

/// Where a group is coordinated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coordinator {
    /// The core.
    pub(super) core: CoreId,
    /// The partition of `__consumer_offsets`.
    pub(super) partition: i32,
}

/// The coordinator of `group`. Without an offsets topic there is none yet.
pub(super) fn coordinator(call: &Call, group: &str) -> Result<Coordinator, ErrorCode> {
    let image = call.shard.image();
    let topic = image.topic_named(OFFSETS_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    Ok(coordinator_in(call, topic, group))
}

fn coordinator_in(call: &Call, offsets_topic: &TopicImage, group: &str) -> Coordinator {
    let partition = partition_for(group, offsets_topic.partitions.len() as i32);
    Coordinator { core: call.shard.node().owner(offsets_topic.record.id, partition), partition }
}

/// Makes sure that there is an offsets topic: the first group brings it about.
pub(super) async fn ensure_offsets_topic(call: &Call) -> Result<(), ErrorCode> {
    if call.shard.image().topic_named(OFFSETS_TOPIC).is_some() {
        return Ok(());
    }
    topics::auto_create(&call.shard, &ByteString::from_static(OFFSETS_TOPIC))
        .await
        .map_err(|_| ErrorCode::CoordinatorNotAvailable)
}

/// Runs `f` with the coordinators on the group's core.
pub(super) async fn at_coordinator<F, Fut, T>(call: &Call, group: &str, f: F) -> Result<T, ErrorCode>
where
    F: FnOnce(Rc<Groups>, i32) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, ErrorCode>> + 'static,
    T: Send + 'static,
{
    let Coordinator { core, partition } = coordinator(call, group)?;
    let called = cores::call(core, move || f(here().groups.clone(), partition)).await;
    called.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
}

/// Runs `f` with the coordinators for each of `items`, whose group `group_of` tells: one message a core, all cores at
/// once. Answers in the order of the items.
pub(super) async fn at_coordinators<I, T, F, Fut>(
    call: &Call,
    items: Vec<I>,
    group_of: impl Fn(&I) -> &ByteString,
    f: F,
) -> Vec<Result<T, ErrorCode>>
where
    I: Send + 'static,
    T: Send + 'static,
    F: Fn(Rc<Groups>, i32, I) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = Result<T, ErrorCode>> + 'static,
{
    let unavailable = || Err(ErrorCode::CoordinatorNotAvailable);
    let mut answers: Vec<Result<T, ErrorCode>> = items.iter().map(|_| unavailable()).collect();
    let image = call.shard.image();
    let Some(topic) = image.topic_named(OFFSETS_TOPIC) else { return answers };
    let coordinators: Vec<Coordinator> =
        items.iter().map(|item| coordinator_in(call, topic, group_of(item))).collect();
    let owners = by_owner(coordinators.iter().map(|coordinator| coordinator.core));
    let mut items: Vec<Option<I>> = items.into_iter().map(Some).collect();
    let calls = owners.into_iter().map(|(core, places)| {
        let there = places.iter().filter_map(|at| Some((coordinators[*at].partition, items[*at].take()?)));
        let there: Vec<(i32, I)> = there.collect();
        async move { (places, cores::call(core, move || run_all(there, f)).await) }
    });
    for (places, found) in futures::future::join_all(calls).await {
        for (place, answer) in places.into_iter().zip(found.into_iter().flatten()) {
            answers[place] = answer;
        }
    }
    answers
}

/// On the coordinators' core.
async fn run_all<I, T, F, Fut>(items: Vec<(i32, I)>, f: F) -> Vec<Result<T, ErrorCode>>
where
    F: Fn(Rc<Groups>, i32, I) -> Fut,
    Fut: Future<Output = Result<T, ErrorCode>>,
{
    let groups = here().groups.clone();
    let answers = items.into_iter().map(|(partition, item)| f(groups.clone(), partition, item));
    stream::iter(answers).buffered(GROUPS_AT_ONCE).collect().await
}

/// Has the group's coordinator answer `request`.
pub(super) async fn submit(
    call: &Call,
    group: &ByteString,
    request: GroupRequest,
) -> Result<Answer, ErrorCode> {
    at_coordinator(call, group, |groups, partition| async move { groups.submit(partition, request).await })
        .await
}

/// The sender as group descriptions show it.
pub(super) fn client(call: &Call) -> Client {
    Client {
        version: call.version,
        client_id: call.client_id.clone(),
        host: format!("/{}", call.connection.peer.ip()).into(),
    }
}
