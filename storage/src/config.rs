//! What a partition log can be told, under the meanings of Kafka's topic settings.

use std::fmt;
use std::str::FromStr;

/// How safe an appended batch is. Ordered: each level implies those before it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// In this process.
    Memory,
    /// Accepted by the device: survives the process, as Kafka's page cache does.
    Written,
    /// On stable storage: survives the power going.
    Durable,
}

impl Level {
    /// The name used for the setting `heizer.durability`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Memory => "memory",
            Level::Written => "written",
            Level::Durable => "durable",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no [`Level`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("durability is one of memory, written, durable; not {0:?}")]
pub struct UnknownLevel(pub String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        [Level::Memory, Level::Written, Level::Durable]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// The value of `flush.messages` and `flush.ms` that means "never on their account".
pub const FLUSH_UNSET: i64 = i64::MAX;

/// A log's settings. All of them may change while the log is open.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment never grows beyond this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment whose first batch is older than this (less its jitter) is rolled at the next append.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to this much is taken off `segment_ms`, by chance, per segment.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: a full index rolls the segment.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: about one index entry per so many bytes of log.
    pub index_interval_bytes: u32,
    /// `retention.ms`; negative: no limit.
    pub retention_ms: i64,
    /// `retention.bytes`; negative: no limit.
    pub retention_bytes: i64,
    /// Whether `cleanup.policy` contains `delete`: without it time and size remove nothing.
    pub cleanup_delete: bool,
    /// Whether `cleanup.policy` contains `compact`.
    pub cleanup_compact: bool,
    /// `min.cleanable.dirty.ratio`, from 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`: younger segments are not cleaned.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: older records are cleaned whatever the ratio.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long tombstones stay once a round has seen them.
    pub delete_retention_ms: i64,
    /// `heizer.durability`, where it is set.
    pub durability: Option<Level>,
    /// `flush.messages`; [`FLUSH_UNSET`] when unset.
    pub flush_messages: i64,
    /// `flush.ms`; [`FLUSH_UNSET`] when unset.
    pub flush_ms: i64,
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time: bool,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * 3600 * 1000,
            retention_bytes: -1,
            cleanup_delete: true,
            cleanup_compact: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 3600 * 1000,
            durability: None,
            flush_messages: FLUSH_UNSET,
            flush_ms: FLUSH_UNSET,
            log_append_time: false,
            producer_expiration_ms: 24 * 3600 * 1000,
        }
    }
}

impl LogConfig {
    /// The level that appends of this log are flushed to: `heizer.durability` beats `flush.messages=1` (durable),
    /// which beats `flush.ms` (written, and synced within that time); without any of them, durable.
    pub fn level(&self) -> Level {
        match self.durability {
            Some(level) => level,
            None if self.flush_messages == 1 => Level::Durable,
            None if self.flush_ms != FLUSH_UNSET => Level::Written,
            None => Level::Durable,
        }
    }

    /// The age at which a segment is rolled: under the policy compact no later than records have to be cleaned, which
    /// they cannot be in the active segment (KIP-354).
    pub(crate) fn roll_ms(&self) -> i64 {
        match self.cleanup_compact && self.max_compaction_lag_ms > 0 {
            true => self.segment_ms.min(self.max_compaction_lag_ms),
            false => self.segment_ms,
        }
    }

    /// How long written data may stay unsynced, where the level leaves that open and `flush.ms` bounds it.
    pub(crate) fn sync_within_ms(&self) -> Option<u64> {
        let bounded = self.level() < Level::Durable && self.flush_ms != FLUSH_UNSET;
        bounded.then(|| self.flush_ms.max(0).unsigned_abs())
    }

    /// How many messages may be unsynced, where the level leaves that open and `flush.messages` bounds it. Where that is
    /// one, it asks for level durable instead.
    pub(crate) fn sync_after_messages(&self) -> Option<i64> {
        let bounded = self.level() < Level::Durable && (2..FLUSH_UNSET).contains(&self.flush_messages);
        bounded.then_some(self.flush_messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_beats_flush_messages_which_beats_flush_ms() {
        let table = [
            (None, FLUSH_UNSET, FLUSH_UNSET, Level::Durable, None),
            (None, 1, FLUSH_UNSET, Level::Durable, None),
            (None, 1, 500, Level::Durable, None),
            (None, FLUSH_UNSET, 500, Level::Written, Some(500)),
            (None, 10_000, FLUSH_UNSET, Level::Durable, None),
            (Some(Level::Written), 1, FLUSH_UNSET, Level::Written, None),
            (Some(Level::Memory), 1, 7, Level::Memory, Some(7)),
            (Some(Level::Durable), FLUSH_UNSET, 500, Level::Durable, None),
        ];
        for (durability, flush_messages, flush_ms, level, within) in table {
            let config = LogConfig { durability, flush_messages, flush_ms, ..LogConfig::default() };
            assert_eq!((config.level(), config.sync_within_ms()), (level, within), "{config:?}");
        }
    }

    #[test]
    fn flush_messages_above_one_bounds_what_is_unsynced_below_level_durable() {
        let table = [
            (None, 10_000, 500, Some(10_000)),
            (Some(Level::Memory), 2, FLUSH_UNSET, Some(2)),
            (Some(Level::Written), 1, FLUSH_UNSET, None),
            (Some(Level::Written), FLUSH_UNSET, 500, None),
            (Some(Level::Durable), 10, 500, None),
            (None, 10_000, FLUSH_UNSET, None),
        ];
        for (durability, flush_messages, flush_ms, messages) in table {
            let config = LogConfig { durability, flush_messages, flush_ms, ..LogConfig::default() };
            assert_eq!(config.sync_after_messages(), messages, "{config:?}");
        }
    }

    #[test]
    fn levels_are_ordered_and_parse_from_their_names() {
        assert!(Level::Memory < Level::Written && Level::Written < Level::Durable);
        for level in [Level::Memory, Level::Written, Level::Durable] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert!("fsync".parse::<Level>().is_err());
    }
}
