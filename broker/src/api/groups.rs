//! What the APIs of groups share: from a group to its coordinator, and one core hop there.

use std::future::Future;
use std::rc::Rc;

use bytestring::ByteString;
use heizer_runtime::cores::{self, CoreId};
use heizer_wire::ErrorCode;

use super::{Call, topics};
use crate::coordinator::{Answer, Client, partition_for};
use crate::shard::{GroupRequest, Groups, OFFSETS_TOPIC, here};

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
    let partition = partition_for(group, topic.partitions.len() as i32);
    Ok(Coordinator { core: call.shard.node().owner(topic.record.id, partition), partition })
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
