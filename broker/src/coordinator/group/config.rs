//! Settings of the group coordinator.

/// What a [`super::GroupShard`] needs to know; the shell fills it from the broker's settings of the same names.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members after the first.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one group.
    pub members_max: usize,
    /// `offset.metadata.max.bytes`: length of the note a consumer may commit with an offset, in UTF-16 units as
    /// Kafka counts it.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// Groups of one shard; beyond it no new group comes into being.
    pub groups_max: usize,
    /// Member ids of one group handed out and not yet used (KIP-394).
    pub pending_members_max: usize,
    /// Bytes of all protocols one member joins with. What is above it would not fit a record of the offsets topic.
    pub member_metadata_max: usize,
}

impl Default for GroupConfig {
    /// Apache Kafka's defaults, where Kafka has the setting.
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            members_max: i32::MAX as usize,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            groups_max: 100_000,
            pending_members_max: 10_000,
            member_metadata_max: 1_048_576,
        }
    }
}
