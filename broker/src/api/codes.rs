//! Typed errors to Kafka's error codes: the only place where that happens.

use heizer_storage::{AppendError, ProducerError};
use heizer_wire::ErrorCode;
use heizer_wire::record_batch::{BatchError, ProduceError};

use crate::config::AlterError;
use crate::error::PartitionError;
use crate::metadata::{ClusterError, GrowthError};
use crate::shard::ControlError;

/// The code of a partition's error.
pub fn error_code(error: &PartitionError) -> ErrorCode {
    match error {
        PartitionError::Unknown => ErrorCode::UnknownTopicOrPartition,
        PartitionError::UnknownTopicId => ErrorCode::UnknownTopicId,
        PartitionError::NotLeader => ErrorCode::NotLeaderOrFollower,
        PartitionError::FencedEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        PartitionError::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        PartitionError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        PartitionError::KeptByPolicy => ErrorCode::PolicyViolation,
        PartitionError::Append(error) => append_code(error),
        PartitionError::Offline { .. } | PartitionError::Failed(_) | PartitionError::Storage(_) => {
            ErrorCode::KafkaStorageError
        }
        PartitionError::TimedOut => ErrorCode::RequestTimedOut,
        PartitionError::CoreGone(_) => ErrorCode::UnknownServerError,
    }
}

fn append_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Invalid(_) => ErrorCode::InvalidRecord,
        AppendError::TooLarge { .. } => ErrorCode::RecordListTooLarge,
        AppendError::Producer(ProducerError::OutOfOrderSequence { .. }) => {
            ErrorCode::OutOfOrderSequenceNumber
        }
        AppendError::Producer(ProducerError::InvalidEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        // A producer tries again: there may be space by then.
        AppendError::NoSpace | AppendError::Failed(_) => ErrorCode::KafkaStorageError,
        // Closed: the partition is going. The others concern replicas and leadership.
        AppendError::Closed | AppendError::OffsetNotMonotonic { .. } | AppendError::EpochFell { .. } => {
            ErrorCode::NotLeaderOrFollower
        }
    }
}

/// The code for a produced batch that was refused before it reached its partition (contract L3, L4).
pub(super) fn produce_code(error: &ProduceError) -> ErrorCode {
    match error {
        // The old message formats are known, and not taken.
        ProduceError::Batch(BatchError::UnsupportedMagic(0 | 1) | BatchError::Truncated { .. }) => {
            ErrorCode::InvalidRecord
        }
        ProduceError::Batch(_) => ErrorCode::CorruptMessage,
        ProduceError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        ProduceError::ZstdNotAllowed | ProduceError::UnknownCompression(_) => {
            ErrorCode::UnsupportedCompressionType
        }
        ProduceError::Empty
        | ProduceError::SeveralBatches
        | ProduceError::BaseOffset(_)
        | ProduceError::Count { .. }
        | ProduceError::Control
        | ProduceError::Sequence { .. }
        | ProduceError::Records(_)
        | ProduceError::OffsetDelta { .. } => ErrorCode::InvalidRecord,
    }
}

/// The code of a refusal by the control plane.
pub(super) fn control_code(error: &ControlError) -> ErrorCode {
    match error {
        ControlError::Rejected(error) => cluster_code(error),
        ControlError::Raft(_) => ErrorCode::RequestTimedOut,
        ControlError::TooFewBrokers { .. } => ErrorCode::InvalidReplicationFactor,
        ControlError::Storage(_) => ErrorCode::KafkaStorageError,
        ControlError::UnknownTopic { .. } => ErrorCode::UnknownTopicOrPartition,
        ControlError::Growth(error) => growth_code(error),
        ControlError::Settings(error) => settings_code(error),
        ControlError::CoreGone(_) | ControlError::Unexpected(_) => ErrorCode::UnknownServerError,
    }
}

fn growth_code(error: &GrowthError) -> ErrorCode {
    match error {
        GrowthError::UnknownTopic { .. } => ErrorCode::UnknownTopicOrPartition,
        GrowthError::AsManyAlready { .. }
        | GrowthError::Fewer { .. }
        | GrowthError::TooMany { .. }
        | GrowthError::Fixed { .. } => ErrorCode::InvalidPartitions,
        GrowthError::AssignmentCount { .. } | GrowthError::Assignment { .. } => {
            ErrorCode::InvalidReplicaAssignment
        }
    }
}

/// What cannot be set for brokers is an invalid request in Kafka (KAFKA-13609); for a topic it is an invalid config.
fn settings_code(error: &AlterError) -> ErrorCode {
    match error {
        AlterError::Unknown { .. }
        | AlterError::Topic(_)
        | AlterError::NotAList { .. }
        | AlterError::TooLong { .. } => ErrorCode::InvalidConfig,
        AlterError::Broker(_) | AlterError::ReadOnly { .. } | AlterError::PerBroker { .. } => {
            ErrorCode::InvalidRequest
        }
    }
}

fn cluster_code(error: &ClusterError) -> ErrorCode {
    match error {
        ClusterError::InvalidTopicName(_) | ClusterError::NameCollision { .. } => {
            ErrorCode::InvalidTopicException
        }
        ClusterError::TopicExists => ErrorCode::TopicAlreadyExists,
        ClusterError::UnknownTopicId => ErrorCode::UnknownTopicId,
        ClusterError::InvalidPartitions => ErrorCode::InvalidPartitions,
        ClusterError::InvalidReplicationFactor => ErrorCode::InvalidReplicationFactor,
        ClusterError::InvalidReplicaAssignment => ErrorCode::InvalidReplicaAssignment,
        ClusterError::InvalidRequest => ErrorCode::InvalidRequest,
        ClusterError::TopicIdInUse | ClusterError::ProducerIdsExhausted | ClusterError::UnknownCommand => {
            ErrorCode::UnknownServerError
        }
    }
}
