//! The metrics there are: names, kinds, labels, and what they say. `deploy/METRICS.md` is made of this.

use std::fmt::Write;

use prometheus_client::metrics::MetricType;

/// Metrics of one name.
#[derive(Debug)]
pub(super) struct Family {
    /// Without what is added to it: `_total` to counters, `_info` to constants, and what histograms consist of.
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// Families of one subject.
#[derive(Debug)]
pub(super) struct Section {
    title: &'static str,
    pub(super) families: &'static [&'static Family],
}

/// Declares families, and the sections that hold all of them in the order in which they are shown.
macro_rules! families {
    ($($title:literal { $($kind:ident $ident:ident $name:literal [$($label:literal),*] $help:literal)+ })+) => {
        $($(
            pub(super) static $ident: Family = Family {
                name: $name,
                kind: MetricType::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )+)+

        /// All of them.
        pub(super) static SECTIONS: &[Section] =
            &[$(Section { title: $title, families: &[$(&$ident),+] }),+];
    };
}

families! {
    "The broker" {
        Info BUILD "heizer_build" ["version"] "The program"
        Gauge READY "heizer_ready" [] "1 while clients are served"
        Gauge UPTIME "heizer_uptime_seconds" [] "Time since the start"
        Gauge CORES "heizer_cores" [] "Cores the broker runs on"
        Counter TASK_PANICS "heizer_task_panics" [] "Tasks that ended in a panic, each of them a bug"
        Gauge RESIDENT_MEMORY "process_resident_memory_bytes" [] "Memory in use"
        Counter CPU "process_cpu_seconds" [] "CPU time of user and kernel"
        Gauge OPEN_FDS "process_open_fds" [] "Open file descriptors"
    }
    "Requests" {
        Counter REQUESTS "heizer_requests" ["api"] "Requests taken up"
        Gauge REQUESTS_IN_FLIGHT "heizer_requests_in_flight" ["api"]
            "Requests taken up and neither answered nor given up; here a Fetch waits for data and a JoinGroup for \
             members"
        Counter REQUEST_FAILURES "heizer_request_failures" ["api"] "Answers with an error in them"
        Counter REQUEST_ERRORS "heizer_request_errors" ["api", "error"]
            "Errors in answers, one for each topic, partition or group that has one, by Kafka's name"
        Histogram REQUEST_DURATION "heizer_request_duration_seconds" ["api"]
            "From a request's last byte to its answer, waiting for data or members included"
        Gauge FETCHES_WAITING "heizer_fetches_waiting" [] "Fetches that wait for data"
    }
    "Connections" {
        Gauge CONNECTIONS "heizer_connections" [] "Open connections"
        Counter CONNECTIONS_OPENED "heizer_connections_opened" [] "Connections accepted"
        Counter CONNECTIONS_CLOSED "heizer_connections_closed" ["reason"] "Connections ended, by reason"
        Counter CONNECTIONS_REFUSED "heizer_connections_refused" ["setting"]
            "Connections turned away, by setting"
        Counter ACCEPT_ERRORS "heizer_accept_errors" []
            "Connections that could not be accepted, mostly for want of descriptors"
        Counter NETWORK_RECEIVE "heizer_network_receive_bytes" [] "Bytes received from clients"
        Counter NETWORK_TRANSMIT "heizer_network_transmit_bytes" [] "Bytes sent to clients"
    }
    "Records" {
        Counter PRODUCED_RECORDS "heizer_produced_records" [] "Records appended by producers"
        Counter PRODUCED_BYTES "heizer_produced_bytes" [] "Bytes of batches appended by producers"
        Counter FETCHED_BYTES "heizer_fetched_bytes" [] "Bytes of batches sent to consumers"
        Counter LOG_APPENDS "heizer_log_appends" [] "Batches that producers appended to logs"
        Counter SENDFILE_BYTES "heizer_sendfile_bytes" [] "Bytes sent out of the page cache by sendfile"
        Counter SENDFILE_CALLS "heizer_sendfile_calls" [] "Calls of sendfile"
        Counter SENDFILE_STALLS "heizer_sendfile_stalls" [] "Calls of sendfile that held their core up"
        Counter SENDFILE_WAITS "heizer_sendfile_waits" [] "Waits of one connection for pages"
        Counter SENDFILE_MISSED "heizer_sendfile_missed_bytes" []
            "Bytes that were not in the page cache when their turn to be sent came"
    }
    "Topics" {
        Gauge TOPICS "heizer_topics" [] "Topics"
        Gauge PARTITIONS "heizer_partitions" [] "Partitions, those that are offline included"
        Gauge PARTITIONS_OFFLINE "heizer_partitions_offline" [] "Partitions whose log cannot be used"
        Gauge SEGMENTS_DAMAGED "heizer_segments_damaged" [] "Segments found damaged since the start"
        Counter TOPIC_APPENDED_BYTES "heizer_topic_appended_bytes" ["topic"]
            "Bytes of batches appended, by producers or by the broker itself"
        Counter TOPIC_APPENDED_RECORDS "heizer_topic_appended_records" ["topic"] "Records of these"
        Counter TOPIC_FETCHED_BYTES "heizer_topic_fetched_bytes" ["topic"]
            "Bytes of batches sent to whoever fetched them"
        Counter TOPIC_PRODUCE_FAILURES "heizer_topic_produce_failures" ["topic"]
            "Partitions in produce requests that were answered with an error"
        Counter TOPIC_FETCH_FAILURES "heizer_topic_fetch_failures" ["topic"]
            "Partitions in fetch requests that were answered with an error"
        Gauge TOPIC_PARTITIONS "heizer_topic_partitions" ["topic"]
            "Partitions, those that are offline included"
        Gauge TOPIC_PARTITIONS_OFFLINE "heizer_topic_partitions_offline" ["topic"]
            "Partitions whose log cannot be used"
        Gauge TOPIC_LOG_BYTES "heizer_topic_log_bytes" ["topic"] "Bytes of all segments"
        Gauge TOPIC_LOG_SEGMENTS "heizer_topic_log_segments" ["topic"] "Segments"
        Gauge PARTITION_LOG_START "heizer_partition_log_start_offset" ["topic", "partition"]
            "The first offset there is"
        Gauge PARTITION_LOG_END "heizer_partition_log_end_offset" ["topic", "partition"]
            "The offset of the next record"
        Gauge PARTITION_HIGH_WATERMARK "heizer_partition_high_watermark" ["topic", "partition"]
            "What is committed ends here"
    }
    "Consumer groups" {
        Gauge GROUPS "heizer_groups" ["state"] "Groups, by Kafka's name of their state"
        Gauge COORDINATORS_LOADING "heizer_group_coordinators_loading" []
            "Coordinators that are still reading their logs; their groups are not shown yet"
        Gauge GROUP_STATE "heizer_group_state" ["group", "state"] "1 for the state that the group is in"
        Gauge GROUP_MEMBERS "heizer_group_members" ["group"] "Members"
        Gauge GROUP_LAG "heizer_group_lag_records" ["group"]
            "Records from the committed offsets to the high watermarks, of all partitions together"
        Gauge GROUP_PARTITION_LAG "heizer_group_partition_lag_records" ["group", "topic", "partition"]
            "Records from the committed offset to the high watermark"
    }
    "Cores" {
        Counter CORE_BUSY "heizer_core_busy_seconds" ["core"]
            "Time in which the core neither slept nor looked for work in vain: its rate is the part of the core that \
             is in use"
        Counter CORE_CPU "heizer_core_cpu_seconds" ["core"]
            "CPU time of the core's thread; far less than the busy time where others have the CPU"
        Gauge CORE_STALLED "heizer_core_stalled" ["core"]
            "1 for a core that does not answer within 0.3 s; its other metrics are then those that it told last"
        Gauge CORE_SILENT "heizer_core_silent_seconds" ["core"]
            "Time since the core answered last; 0 where it has just answered"
        Counter CORE_STALLS "heizer_core_stalls" ["core"]
            "Times that the core was kept from all but one thing for 0.1 s or longer"
        Counter CORE_STALL_SECONDS "heizer_core_stall_seconds" ["core"] "What these took together"
        Gauge CORE_MAILBOX "heizer_core_mailbox_messages" ["core"] "Messages of other cores that wait"
        Gauge CORE_CONNECTIONS "heizer_core_connections" ["core"] "Open connections of this core"
    }
    "Memory" {
        Gauge MEMORY_USED "heizer_memory_used_bytes" ["core", "pool"]
            "Memory in use: for requests on their way in, answers to fetches, tails of logs, indexes of segments, and \
             buffers kept for their next users"
        Gauge MEMORY_LIMIT "heizer_memory_limit_bytes" ["core", "pool"]
            "What that is bounded by; a single large batch may go beyond"
        Gauge MEMORY_WAITING "heizer_memory_waiting" ["core", "pool"]
            "Connections that wait for memory: requests that are not read, fetches that are not answered"
        Counter MEMORY_WAITS "heizer_memory_waits" ["core", "pool"] "Times that somebody had to wait for memory"
    }
    "Disks" {
        Gauge LOG_DIRS_OFFLINE "heizer_log_dirs_offline" [] "Data directories that have failed"
        Gauge LOG_DIR_OFFLINE "heizer_log_dir_offline" ["dir"] "1 for a data directory that has failed"
        Gauge LOG_DIR_FREE "heizer_log_dir_free_bytes" ["dir"]
            "Bytes free on a data directory's file system"
        Gauge LOG_DIR_SIZE "heizer_log_dir_size_bytes" ["dir"] "Bytes that the file system has in all"
        Gauge LOG_DIR_RESERVE "heizer_log_dir_reserve_bytes" ["dir"] "Bytes that producers leave free there"
        Gauge LOG_DIR_REFUSING "heizer_log_dir_refusing" ["dir"]
            "1 while producers are refused for want of space"
        Gauge LOG_DIR_WRITES "heizer_log_dir_writes_in_flight" ["dir"] "Writes of logs under way"
        Gauge LOG_DIR_WRITE_BYTES "heizer_log_dir_write_bytes_in_flight" ["dir"] "Bytes of these"
        Gauge LOG_DIR_WRITES_WAITING "heizer_log_dir_writes_waiting" ["dir"]
            "Writes of logs that wait for their turn"
        Counter LOG_DIR_DURABLE_WRITES "heizer_log_dir_durable_writes" ["dir", "by"]
            "Writes that became durable, by the file's own sync, by a flush of the device shared with others, or by \
             their completion"
        Counter LOG_DIR_FLUSHES "heizer_log_dir_device_flushes" ["dir"] "Flushes of the device"
        Gauge FILE_OPERATIONS "heizer_file_operations_in_flight" ["core"]
            "Reads, writes and syncs of files under way"
    }
    "Compaction" {
        Counter CLEANER_ROUNDS "heizer_cleaner_rounds" [] "Rounds of compaction"
        Counter CLEANER_READ "heizer_cleaner_read_bytes" [] "Bytes read by compaction"
        Counter CLEANER_WRITTEN "heizer_cleaner_written_bytes" [] "Bytes written by compaction"
        Counter CLEANER_REMOVED "heizer_cleaner_removed_records" [] "Records removed by compaction"
        Counter CLEANER_FAILURES "heizer_cleaner_failures" [] "Rounds that failed for good"
        Gauge CLEANER_UNCLEANABLE "heizer_cleaner_uncleanable_partitions" []
            "Partitions that cannot be compacted"
        Gauge CLEANER_DIRTY_RATIO "heizer_cleaner_dirty_ratio_max" []
            "Highest dirty ratio of a compacted log"
        Gauge CLEANER_LAST_ROUND "heizer_cleaner_last_round_seconds" [] "Longest of the cores' last rounds"
    }
    "Raft" {
        Gauge RAFT_GROUPS "heizer_raft_groups" ["role"] "Raft groups, by what this broker is in them"
        Gauge RAFT_TERM "heizer_raft_term" ["group"] "The group's term"
        Gauge RAFT_LAST "heizer_raft_last_index" ["group"] "The last entry of the group's log"
        Gauge RAFT_COMMIT "heizer_raft_commit_index" ["group"] "The last entry that is committed"
        Gauge RAFT_APPLIED "heizer_raft_applied_index" ["group"] "The last entry that has been applied"
        Gauge RAFT_SNAPSHOT "heizer_raft_snapshot_index" ["group"]
            "The last entry that the snapshot which a restart begins from includes"
        Gauge RAFT_WAITING "heizer_raft_proposals_waiting" [] "Proposals that wait for their result"
        Counter RAFT_PROPOSALS "heizer_raft_proposals" [] "Commands proposed"
        Counter RAFT_FAILURES "heizer_raft_proposal_failures" [] "Proposals that ended without a result"
        Counter RAFT_SNAPSHOTS "heizer_raft_snapshots" [] "Snapshots written"
        Gauge RAFT_LOG_BYTES "heizer_raft_log_bytes" ["core"] "Bytes of the core's raft stream"
        Gauge RAFT_FAILED "heizer_raft_failed" ["core"]
            "1 where the core's raft stream cannot be written; the broker is about to stop"
    }
    "The metrics themselves" {
        Gauge LEFT_OUT "heizer_metrics_left_out" ["of"]
            "Topics, partitions, groups and partitions of groups without series of their own, see \
             heizer.metrics.topics.max and its like; such topics are added up under the name (others)"
    }
}

/// The table of `deploy/METRICS.md`.
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    for Section { title, families } in SECTIONS {
        writeln!(text, "\n## {title}\n\n| metric | type | labels | |\n|---|---|---|---|").expect(WRITES);
        for Family { name, kind, labels, help } in *families {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = labels.join(", ");
            let (suffix, kind) = match kind {
                MetricType::Counter => ("_total", "counter"),
                MetricType::Info => ("_info", "info"),
                MetricType::Histogram => ("", "histogram"),
                MetricType::Gauge | MetricType::Unknown => ("", "gauge"),
            };
            writeln!(text, "| `{name}{suffix}` | {kind} | {labels} | {help} |").expect(WRITES);
        }
    }
    text
}

const WRITES: &str = "writing to a string does not fail";

const HEAD: &str = "# Metrics

What `/metrics` of the admin listener shows, as OpenMetrics text. Everything is as of the moment it is asked for; counters
begin at 0 when the broker starts. Made of `broker/src/metrics/families.rs` by
`cargo test -p heizer-broker write_the_table_of_metrics -- --ignored`; a test sees to it that it is up to date.

Topics have series of their own up to `heizer.metrics.topics.max`, in the order in which they are found, and at the start
by name. The rest is added up under `(others)`, a name that no topic can have; a topic stays there until the next start.
`heizer.metrics.partitions.max` bounds the series by partition, `heizer.metrics.groups.max` the groups, and
`heizer.metrics.lags.max` their lags by partition: what is beyond is left out, and `heizer_metrics_left_out` tells how
much that is. Groups whose names are longer than 255 bytes are left out too. What is gone has no series any more.
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/METRICS.md");

    fn all() -> impl Iterator<Item = &'static Family> {
        SECTIONS.iter().flat_map(|section| section.families).copied()
    }

    #[test]
    fn the_table_of_metrics_is_up_to_date() {
        let found = std::fs::read_to_string(Path::new(TABLE)).expect("deploy/METRICS.md");
        let how = "write it with: cargo test -p heizer-broker write_the_table_of_metrics -- --ignored";
        assert!(found == document(), "deploy/METRICS.md says something else than the code; {how}");
    }

    #[test]
    #[ignore = "writes deploy/METRICS.md"]
    fn write_the_table_of_metrics() {
        std::fs::write(Path::new(TABLE), document()).expect("deploy/METRICS.md can be written");
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for family in all() {
            let name = family.name;
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("heizer_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            let added = ["_total", "_info", "_count", "_sum", "_bucket", "_created"];
            assert!(!added.iter().any(|suffix| name.ends_with(suffix)), "{name}: added by the format");
            let not_a_base_unit = ["_ms", "_us", "_kb", "_mib", "_percent", "_minutes"];
            assert!(!not_a_base_unit.iter().any(|suffix| name.ends_with(suffix)), "{name}");
            assert!(!family.help.ends_with('.') && !family.help.contains('\n'), "{name}: {}", family.help);
        }
    }
}
