//! What one core counts.

use std::cell::Cell;
use std::time::Duration;

use heizer_runtime::net::FileSendCounts;
use heizer_server::{CloseReason, ServerMetrics};

use super::requests::{RequestFigures, RequestMetrics, add_each};
use super::topics::TopicTable;

/// Counters of one core, since its start. Owned by the core and counted into between its tasks: no atomics, no locks.
#[derive(Debug)]
pub struct CoreMetrics {
    /// Records appended by producers.
    pub records_in: Cell<u64>,
    /// Bytes of record batches appended by producers.
    pub record_bytes_in: Cell<u64>,
    /// Bytes of record batches sent to consumers.
    pub record_bytes_out: Cell<u64>,
    /// Fetches that wait for data, now.
    pub fetches_waiting: Cell<u64>,
    /// Batches appended to logs.
    pub log_appends: Cell<u64>,
    /// Partitions that cannot be served, now.
    pub partitions_offline: Cell<u64>,
    /// Segments found damaged.
    pub segments_damaged: Cell<u64>,
    /// Data directories that have failed, now; every core knows them all.
    pub log_dirs_offline: Cell<u64>,
    /// Rounds of compaction that came to their end.
    pub cleaner_rounds: Cell<u64>,
    /// Bytes that these read.
    pub cleaner_bytes_read: Cell<u64>,
    /// Bytes that these wrote.
    pub cleaner_bytes_written: Cell<u64>,
    /// Records that these left out.
    pub cleaner_records_removed: Cell<u64>,
    /// Rounds that failed for good.
    pub cleaner_failures: Cell<u64>,
    /// Partitions that are not compacted any more because of that, now.
    pub cleaner_uncleanable: Cell<u64>,
    /// The highest dirty ratio of a log when the cleaner last looked.
    pub cleaner_dirty_ratio_max: Cell<f64>,
    /// How long the last round took.
    pub cleaner_last_round: Cell<Duration>,
    /// Requests, by API.
    pub requests: RequestMetrics,
    /// What is counted by topic.
    pub topics: TopicTable,
}

impl CoreMetrics {
    /// All at zero.
    pub fn new() -> CoreMetrics {
        CoreMetrics {
            records_in: Cell::default(),
            record_bytes_in: Cell::default(),
            record_bytes_out: Cell::default(),
            fetches_waiting: Cell::default(),
            log_appends: Cell::default(),
            partitions_offline: Cell::default(),
            segments_damaged: Cell::default(),
            log_dirs_offline: Cell::default(),
            cleaner_rounds: Cell::default(),
            cleaner_bytes_read: Cell::default(),
            cleaner_bytes_written: Cell::default(),
            cleaner_records_removed: Cell::default(),
            cleaner_failures: Cell::default(),
            cleaner_uncleanable: Cell::default(),
            cleaner_dirty_ratio_max: Cell::default(),
            cleaner_last_round: Cell::default(),
            requests: RequestMetrics::new(),
            topics: TopicTable::default(),
        }
    }

    /// Adds to one of the counters.
    pub fn add(counter: &Cell<u64>, amount: u64) {
        counter.set(counter.get().wrapping_add(amount));
    }

    /// What has been counted so far, with what the core's server and runtime counted, to be sent to another core.
    pub fn snapshot(&self, server: &ServerMetrics) -> CoreSnapshot {
        CoreSnapshot {
            records_in: self.records_in.get(),
            record_bytes_in: self.record_bytes_in.get(),
            record_bytes_out: self.record_bytes_out.get(),
            fetches_waiting: self.fetches_waiting.get(),
            log_appends: self.log_appends.get(),
            partitions_offline: self.partitions_offline.get(),
            segments_damaged: self.segments_damaged.get(),
            log_dirs_offline: self.log_dirs_offline.get(),
            cleaner_rounds: self.cleaner_rounds.get(),
            cleaner_bytes: [self.cleaner_bytes_read.get(), self.cleaner_bytes_written.get()],
            cleaner_records_removed: self.cleaner_records_removed.get(),
            cleaner_failures: self.cleaner_failures.get(),
            cleaner_uncleanable: self.cleaner_uncleanable.get(),
            cleaner_dirty_ratio_max: self.cleaner_dirty_ratio_max.get(),
            cleaner_last_round: self.cleaner_last_round.get(),
            requests: self.requests.read(),
            connections: server.connections_current.get(),
            connections_opened: server.connections_opened.get(),
            connections_closed: CloseReason::ALL.map(|reason| server.closed(reason)),
            connections_refused: [server.refused_total.get(), server.refused_per_ip.get()],
            accept_errors: server.accept_errors.get(),
            network_bytes_in: server.bytes_in.get(),
            network_bytes_out: server.bytes_out.get(),
            file_sends: heizer_runtime::net::file_sends(),
            panics: heizer_runtime::task::panics(),
        }
    }
}

impl Default for CoreMetrics {
    fn default() -> CoreMetrics {
        CoreMetrics::new()
    }
}

/// What a core, or all of them together, had counted at some moment.
#[derive(Clone, Debug)]
pub struct CoreSnapshot {
    pub(super) records_in: u64,
    pub(super) record_bytes_in: u64,
    pub(super) record_bytes_out: u64,
    pub(super) fetches_waiting: u64,
    pub(super) log_appends: u64,
    pub(super) partitions_offline: u64,
    pub(super) segments_damaged: u64,
    pub(super) log_dirs_offline: u64,
    pub(super) cleaner_rounds: u64,
    /// Read, written.
    pub(super) cleaner_bytes: [u64; 2],
    pub(super) cleaner_records_removed: u64,
    pub(super) cleaner_failures: u64,
    pub(super) cleaner_uncleanable: u64,
    /// The greatest of all cores, as the next one.
    pub(super) cleaner_dirty_ratio_max: f64,
    pub(super) cleaner_last_round: Duration,
    pub(super) requests: RequestFigures,
    pub(super) connections: u64,
    pub(super) connections_opened: u64,
    /// By reason, in the order of [`CloseReason::ALL`].
    pub(super) connections_closed: [u64; CloseReason::ALL.len()],
    /// By `max.connections`, by `max.connections.per.ip`.
    pub(super) connections_refused: [u64; 2],
    pub(super) accept_errors: u64,
    pub(super) network_bytes_in: u64,
    pub(super) network_bytes_out: u64,
    pub(super) file_sends: FileSendCounts,
    pub(super) panics: u64,
}

impl CoreSnapshot {
    /// Adds another core's.
    pub fn merge(&mut self, other: &CoreSnapshot) {
        let sums = [
            (&mut self.records_in, other.records_in),
            (&mut self.record_bytes_in, other.record_bytes_in),
            (&mut self.record_bytes_out, other.record_bytes_out),
            (&mut self.fetches_waiting, other.fetches_waiting),
            (&mut self.log_appends, other.log_appends),
            (&mut self.partitions_offline, other.partitions_offline),
            (&mut self.segments_damaged, other.segments_damaged),
            (&mut self.cleaner_rounds, other.cleaner_rounds),
            (&mut self.cleaner_records_removed, other.cleaner_records_removed),
            (&mut self.cleaner_failures, other.cleaner_failures),
            (&mut self.cleaner_uncleanable, other.cleaner_uncleanable),
            (&mut self.connections, other.connections),
            (&mut self.connections_opened, other.connections_opened),
            (&mut self.accept_errors, other.accept_errors),
            (&mut self.network_bytes_in, other.network_bytes_in),
            (&mut self.network_bytes_out, other.network_bytes_out),
            (&mut self.file_sends.bytes, other.file_sends.bytes),
            (&mut self.file_sends.calls, other.file_sends.calls),
            (&mut self.file_sends.stalls, other.file_sends.stalls),
            (&mut self.file_sends.waits, other.file_sends.waits),
            (&mut self.file_sends.missed_bytes, other.file_sends.missed_bytes),
            (&mut self.panics, other.panics),
        ];
        for (sum, amount) in sums {
            *sum = sum.wrapping_add(amount);
        }
        self.log_dirs_offline = self.log_dirs_offline.max(other.log_dirs_offline);
        self.cleaner_dirty_ratio_max = self.cleaner_dirty_ratio_max.max(other.cleaner_dirty_ratio_max);
        self.cleaner_last_round = self.cleaner_last_round.max(other.cleaner_last_round);
        add_each(&mut self.cleaner_bytes, &other.cleaner_bytes);
        self.requests.merge(&other.requests);
        add_each(&mut self.connections_closed, &other.connections_closed);
        add_each(&mut self.connections_refused, &other.connections_refused);
    }
}
