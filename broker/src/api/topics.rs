//! What the APIs that make and find topics share.

use bytestring::ByteString;
use heizer_runtime::cores;
use heizer_wire::ErrorCode;
use uuid::Uuid;

use super::codes::control_code;
use crate::shard::{ControlError, OFFSETS_TOPIC, Shard, TopicPlan, here};

/// Whether Kafka calls the topic internal.
pub(super) fn is_internal(name: &str) -> bool {
    matches!(name, OFFSETS_TOPIC | "__transaction_state" | "__share_group_state")
}

/// Creates a topic on the cluster core and waits until every core knows it.
pub(super) async fn create(
    shard: &Shard,
    plan: TopicPlan,
    validate_only: bool,
) -> Result<Uuid, ControlError> {
    let call = cores::call(shard.node().cluster_core(), move || async move {
        here().create_topic(plan, validate_only).await
    });
    call.await?
}

/// Creates a topic because somebody asked for its metadata; one that exists by now is as good.
pub(super) async fn auto_create(shard: &Shard, name: &ByteString) -> Result<(), ErrorCode> {
    let config = shard.config();
    let plan = if &**name == OFFSETS_TOPIC {
        offsets_plan(shard)
    } else {
        TopicPlan {
            name: name.to_string(),
            partitions: config.num_partitions,
            replication_factor: config.default_replication_factor,
            assignments: None,
            configs: Vec::new(),
        }
    };
    match create(shard, plan, false).await.map_err(|error| (control_code(&error), error)) {
        Ok(_) | Err((ErrorCode::TopicAlreadyExists, _)) => Ok(()),
        Err((code @ ErrorCode::InvalidTopicException, _)) => Err(code),
        Err((code, error)) => {
            tracing::warn!(topic = %name, %error, "a topic was not created automatically");
            Err(code)
        }
    }
}

/// The offsets topic as Kafka makes it: compacted, in small segments, whatever the defaults are.
fn offsets_plan(shard: &Shard) -> TopicPlan {
    let config = shard.config();
    let brokers = i16::try_from(shard.image().brokers().count()).unwrap_or(i16::MAX).max(1);
    TopicPlan {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: config.offsets_topic_partitions,
        // Fewer brokers than the setting asks for make do with what there is.
        replication_factor: config.offsets_topic_replication_factor.min(brokers),
        assignments: None,
        configs: vec![
            ("cleanup.policy".to_owned(), "compact".to_owned()),
            ("compression.type".to_owned(), "producer".to_owned()),
            ("segment.bytes".to_owned(), config.offsets_topic_segment_bytes.to_string()),
        ],
    }
}
