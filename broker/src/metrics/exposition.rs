//! The text that Prometheus reads (OpenMetrics).

use std::fmt;
use std::sync::Arc;

use heizer_raft::{GroupFigures, Role};
use heizer_runtime::task::Pacer;
use heizer_server::CloseReason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelValue, LabelValueEncoder, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::registry::Registry;

use super::families::{self as of, Family};
use super::figures::{CoreFigures, LogDirFigures, Pool, PoolFigures};
use super::merge::{CoreRow, PartitionRow, Scrape, TopicRow};
use super::requests::BUCKETS_US;
use crate::coordinator::group::ClassicState;

/// A part of the text: some families, of which no two may have many series.
type Part = fn(&Scrape, &mut Out<'_>) -> fmt::Result;

/// The whole text, in order.
const PARTS: &[Part] = &[
    broker,
    requests,
    request_errors,
    request_durations,
    connections,
    records,
    totals_of_topics,
    |from, out| out.counters(&of::TOPIC_APPENDED_BYTES, topics(from, |row| row.counts.appended_bytes)),
    |from, out| out.counters(&of::TOPIC_APPENDED_RECORDS, topics(from, |row| row.counts.appended_records)),
    |from, out| out.counters(&of::TOPIC_FETCHED_BYTES, topics(from, |row| row.counts.fetched_bytes)),
    |from, out| out.counters(&of::TOPIC_PRODUCE_FAILURES, topics(from, |row| row.counts.produce_failures)),
    |from, out| out.counters(&of::TOPIC_FETCH_FAILURES, topics(from, |row| row.counts.fetch_failures)),
    |from, out| out.gauges(&of::TOPIC_PARTITIONS, topics(from, |row| row.partitions)),
    |from, out| out.gauges(&of::TOPIC_PARTITIONS_OFFLINE, topics(from, |row| row.offline)),
    |from, out| out.gauges(&of::TOPIC_LOG_BYTES, topics(from, |row| row.bytes)),
    |from, out| out.gauges(&of::TOPIC_LOG_SEGMENTS, topics(from, |row| row.segments)),
    |from, out| out.gauges(&of::PARTITION_LOG_START, partitions(from, |row| row.figures.log_start)),
    |from, out| out.gauges(&of::PARTITION_LOG_END, partitions(from, |row| row.figures.log_end)),
    |from, out| out.gauges(&of::PARTITION_HIGH_WATERMARK, partitions(from, |row| row.figures.high_watermark)),
    groups,
    group_states,
    group_members,
    group_lags,
    partition_lags,
    cores,
    memory,
    log_dirs,
    file_operations,
    cleaner,
    raft_groups,
    raft_hosts,
    left_out,
];

/// All metrics as text. Gives way to others between its parts, as `pacer` says.
pub async fn render(scrape: Scrape, pacer: &mut Pacer) -> String {
    let from = Arc::new(scrape);
    let mut text = String::new();
    for part in PARTS {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Piece { from: from.clone(), part: *part }));
        text::encode_registry(&mut text, &registry).expect(WRITES);
        pacer.checkpoint().await;
    }
    text::encode_eof(&mut text).expect(WRITES);
    text
}

const WRITES: &str = "writing to a string does not fail";

struct Piece {
    from: Arc<Scrape>,
    part: Part,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Piece")
    }
}

impl Collector for Piece {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.part)(&self.from, &mut Out(encoder))
    }
}

fn broker(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let (row, process) = (&from.broker, &from.broker.process);
    out.constant(&of::BUILD, [env!("CARGO_PKG_VERSION")])?;
    out.gauge(&of::READY, u64::from(row.ready))?;
    out.gauge_f64(&of::UPTIME, row.uptime.as_secs_f64())?;
    out.gauge(&of::CORES, from.cores.len() as u64)?;
    out.counter(&of::TASK_PANICS, from.counted.panics)?;
    out.gauge(&of::RESIDENT_MEMORY, process.resident_bytes)?;
    out.counter_f64(&of::CPU, process.cpu_seconds)?;
    out.gauge(&of::OPEN_FDS, process.open_fds)
}

fn requests(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let all = &from.counted.requests;
    out.counters(&of::REQUESTS, all.apis().map(|(api, figures)| ([api.into()], figures.taken)))?;
    let in_flight = all.apis().map(|(api, figures)| ([api.into()], figures.in_flight));
    out.gauges(&of::REQUESTS_IN_FLIGHT, in_flight)?;
    out.counters(&of::REQUEST_FAILURES, all.apis().map(|(api, figures)| ([api.into()], figures.failures)))
}

fn request_errors(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let of_each = from.counted.requests.apis().flat_map(|(api, figures)| {
        figures.errors().map(move |(error, count)| ([api.into(), error.into()], count))
    });
    out.counters(&of::REQUEST_ERRORS, of_each)
}

fn request_durations(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let bounds: Vec<f64> =
        BUCKETS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]).collect();
    let of_each = from.counted.requests.apis().map(|(api, figures)| {
        let buckets = bounds.iter().copied().zip(figures.buckets.iter().copied()).collect();
        ([api.into()], (figures.took_us as f64 / 1e6, buckets))
    });
    out.histograms(&of::REQUEST_DURATION, of_each)?;
    out.gauge(&of::FETCHES_WAITING, from.counted.fetches_waiting)
}

fn connections(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let all = &from.counted;
    out.gauge(&of::CONNECTIONS, all.connections)?;
    out.counter(&of::CONNECTIONS_OPENED, all.connections_opened)?;
    let closed = CloseReason::ALL.iter().zip(all.connections_closed);
    out.counters(&of::CONNECTIONS_CLOSED, closed.map(|(reason, count)| ([reason.name().into()], count)))?;
    let refused = ["max.connections", "max.connections.per.ip"].into_iter().zip(all.connections_refused);
    out.counters(&of::CONNECTIONS_REFUSED, refused.map(|(setting, count)| ([setting.into()], count)))?;
    out.counter(&of::ACCEPT_ERRORS, all.accept_errors)?;
    out.counter(&of::NETWORK_RECEIVE, all.network_bytes_in)?;
    out.counter(&of::NETWORK_TRANSMIT, all.network_bytes_out)
}

fn records(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let (all, sends) = (&from.counted, &from.counted.file_sends);
    out.counter(&of::PRODUCED_RECORDS, all.records_in)?;
    out.counter(&of::PRODUCED_BYTES, all.record_bytes_in)?;
    out.counter(&of::FETCHED_BYTES, all.record_bytes_out)?;
    out.counter(&of::LOG_APPENDS, all.log_appends)?;
    out.counter(&of::SENDFILE_BYTES, sends.bytes)?;
    out.counter(&of::SENDFILE_CALLS, sends.calls)?;
    out.counter(&of::SENDFILE_STALLS, sends.stalls)?;
    out.counter(&of::SENDFILE_WAITS, sends.waits)?;
    out.counter(&of::SENDFILE_MISSED, sends.missed_bytes)
}

fn totals_of_topics(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    out.gauge(&of::TOPICS, from.topic_count as u64)?;
    out.gauge(&of::PARTITIONS, from.partition_count)?;
    out.gauge(&of::PARTITIONS_OFFLINE, from.counted.partitions_offline)?;
    out.gauge(&of::SEGMENTS_DAMAGED, from.counted.segments_damaged)
}

fn topics(from: &Scrape, value: fn(&TopicRow) -> u64) -> impl Iterator<Item = ([Label<'_>; 1], u64)> {
    from.topics.iter().map(move |row| ([row.label().into()], value(row)))
}

fn partitions(from: &Scrape, value: fn(&PartitionRow) -> i64) -> impl Iterator<Item = ([Label<'_>; 2], u64)> {
    from.partitions.iter().map(move |row| {
        let labels = [(&*row.topic).into(), i64::from(row.figures.index).into()];
        // Offsets are never negative.
        (labels, value(row).unsigned_abs())
    })
}

fn groups(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let states = ClassicState::ALL.iter().zip(from.group_states);
    out.gauges(&of::GROUPS, states.map(|(state, count)| ([state.name().into()], count)))?;
    out.gauge(&of::COORDINATORS_LOADING, from.coordinators_loading)
}

fn group_states(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let row = from.groups.iter().map(|row| ([(&*row.group).into(), row.state.name().into()], 1));
    out.gauges(&of::GROUP_STATE, row)
}

fn group_members(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    out.gauges(&of::GROUP_MEMBERS, from.groups.iter().map(|row| ([(&*row.group).into()], row.members)))
}

fn group_lags(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let known = from.groups.iter().filter_map(|row| Some(([(&*row.group).into()], row.lag?)));
    out.gauges(&of::GROUP_LAG, known)
}

fn partition_lags(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let rows = from.lags.iter().map(|row| {
        let labels = [(&*row.group).into(), (&*row.topic).into(), i64::from(row.partition).into()];
        (labels, row.lag)
    });
    out.gauges(&of::GROUP_PARTITION_LAG, rows)
}

fn cores(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let told = |value: fn(&CoreFigures) -> f64| {
        each_core(from).filter_map(move |(core, row)| Some((core, value(row.figures.as_deref()?))))
    };
    let seen = |value: fn(&CoreRow) -> u64| each_core(from).map(move |(core, row)| (core, value(row)));
    out.counters_f64(&of::CORE_BUSY, told(|figures| figures.load.busy.as_secs_f64()))?;
    out.counters_f64(&of::CORE_CPU, told(|figures| figures.load.cpu.as_secs_f64()))?;
    out.gauges(&of::CORE_STALLED, seen(|row| u64::from(row.stalled)))?;
    out.gauges_f64(&of::CORE_SILENT, each_core(from).map(|(core, row)| (core, row.silent.as_secs_f64())))?;
    out.counters_f64(&of::CORE_STALLS, told(|figures| figures.load.stalls as f64))?;
    out.counters_f64(&of::CORE_STALL_SECONDS, told(|figures| figures.load.stalled.as_secs_f64()))?;
    out.gauges(&of::CORE_MAILBOX, seen(|row| row.mailbox as u64))?;
    out.gauges_f64(&of::CORE_CONNECTIONS, told(|figures| figures.counted.connections as f64))
}

fn each_core(from: &Scrape) -> impl Iterator<Item = ([Label<'_>; 1], &CoreRow)> {
    from.cores.iter().enumerate().map(|(core, row)| ([Label::Number(core as i64)], row))
}

fn each_told(from: &Scrape) -> impl Iterator<Item = (Label<'_>, &CoreFigures)> {
    each_core(from).filter_map(|([core], row)| Some((core, row.figures.as_deref()?)))
}

fn memory(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let each = |value: fn(&PoolFigures) -> u64| {
        each_told(from).flat_map(move |(core, figures)| {
            let pools = Pool::ALL.iter().zip(&figures.pools);
            pools.map(move |(pool, figures)| ([core, pool.name().into()], value(figures)))
        })
    };
    out.gauges(&of::MEMORY_USED, each(|pool| pool.used))?;
    out.gauges(&of::MEMORY_LIMIT, each(|pool| pool.limit))?;
    out.gauges(&of::MEMORY_WAITING, each(|pool| pool.waiting))?;
    out.counters(&of::MEMORY_WAITS, each(|pool| pool.waits))
}

fn log_dirs(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let each = |value: fn(&LogDirFigures) -> u64| {
        from.dirs.iter().map(move |dir| ([dir.dir.as_str().into()], value(dir)))
    };
    out.gauge(&of::LOG_DIRS_OFFLINE, from.counted.log_dirs_offline)?;
    out.gauges(&of::LOG_DIR_OFFLINE, each(|dir| u64::from(dir.offline)))?;
    out.gauges(&of::LOG_DIR_FREE, each(|dir| dir.free_bytes))?;
    out.gauges(&of::LOG_DIR_SIZE, each(|dir| dir.size_bytes))?;
    out.gauges(&of::LOG_DIR_RESERVE, each(|dir| dir.reserve_bytes))?;
    out.gauges(&of::LOG_DIR_REFUSING, each(|dir| u64::from(dir.refusing)))?;
    out.gauges(&of::LOG_DIR_WRITES, each(|dir| dir.writes.under_way as u64))?;
    out.gauges(&of::LOG_DIR_WRITE_BYTES, each(|dir| dir.writes.bytes))?;
    out.gauges(&of::LOG_DIR_WRITES_WAITING, each(|dir| dir.writes.waiting as u64))?;
    let durable = from.dirs.iter().flat_map(|dir| {
        let by = [
            ("file", dir.flushes.by_file),
            ("shared", dir.flushes.shared),
            ("completion", dir.flushes.by_nothing),
        ];
        by.map(|(by, count)| ([dir.dir.as_str().into(), by.into()], count))
    });
    out.counters(&of::LOG_DIR_DURABLE_WRITES, durable)?;
    out.counters(&of::LOG_DIR_FLUSHES, each(|dir| dir.flushes.device_flushes))
}

fn file_operations(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let each = each_told(from).map(|(core, figures)| ([core], figures.file_operations as u64));
    out.gauges(&of::FILE_OPERATIONS, each)
}

fn cleaner(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let all = &from.counted;
    let [read, written] = all.cleaner_bytes;
    out.counter(&of::CLEANER_ROUNDS, all.cleaner_rounds)?;
    out.counter(&of::CLEANER_READ, read)?;
    out.counter(&of::CLEANER_WRITTEN, written)?;
    out.counter(&of::CLEANER_REMOVED, all.cleaner_records_removed)?;
    out.counter(&of::CLEANER_FAILURES, all.cleaner_failures)?;
    out.gauge(&of::CLEANER_UNCLEANABLE, all.cleaner_uncleanable)?;
    out.gauge_f64(&of::CLEANER_DIRTY_RATIO, all.cleaner_dirty_ratio_max)?;
    out.gauge_f64(&of::CLEANER_LAST_ROUND, all.cleaner_last_round.as_secs_f64())
}

fn raft_groups(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let all = || {
        let hosts = each_told(from).filter_map(|(_, figures)| figures.raft.as_ref());
        hosts.flat_map(|host| &host.groups)
    };
    let in_role = |role: Role| all().filter(|group| group.role == role).count() as u64;
    out.gauges(&of::RAFT_GROUPS, Role::ALL.iter().map(|role| ([role.name().into()], in_role(*role))))?;
    let each = |value: fn(&GroupFigures) -> u64| {
        all().map(move |figures| ([i64::from(figures.group.0).into()], value(figures)))
    };
    out.gauges(&of::RAFT_TERM, each(|group| group.term))?;
    out.gauges(&of::RAFT_LAST, each(|group| group.last_index))?;
    out.gauges(&of::RAFT_COMMIT, each(|group| group.commit_index))?;
    out.gauges(&of::RAFT_APPLIED, each(|group| group.applied_index))?;
    out.gauges(&of::RAFT_SNAPSHOT, each(|group| group.snapshot_index))?;
    out.gauge(&of::RAFT_WAITING, all().map(|group| group.proposals_waiting as u64).sum())
}

fn raft_hosts(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let hosts = || each_told(from).filter_map(|(core, figures)| Some((core, figures.raft.as_ref()?)));
    out.counter(&of::RAFT_PROPOSALS, hosts().map(|(_, host)| host.proposals).sum())?;
    out.counter(&of::RAFT_FAILURES, hosts().map(|(_, host)| host.proposal_failures).sum())?;
    out.counter(&of::RAFT_SNAPSHOTS, hosts().map(|(_, host)| host.snapshots).sum())?;
    out.gauges(&of::RAFT_LOG_BYTES, hosts().map(|(core, host)| ([core], host.stream_bytes)))?;
    out.gauges(&of::RAFT_FAILED, hosts().map(|(core, host)| ([core], u64::from(host.failed))))
}

fn left_out(from: &Scrape, out: &mut Out<'_>) -> fmt::Result {
    let left = from.left_out;
    let rows = [
        ("topics", left.topics),
        ("partitions", left.partitions),
        ("groups", left.groups),
        ("lags", left.lags),
    ];
    out.gauges(&of::LEFT_OUT, rows.into_iter().map(|(what, count)| ([what.into()], count as u64)))
}

/// The value of a label.
#[derive(Clone, Copy, Debug)]
enum Label<'a> {
    Text(&'a str),
    Number(i64),
}

impl<'a> From<&'a str> for Label<'a> {
    fn from(text: &'a str) -> Label<'a> {
        Label::Text(text)
    }
}

impl From<i64> for Label<'_> {
    fn from(number: i64) -> Self {
        Label::Number(number)
    }
}

impl EncodeLabelValue for Label<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Label::Text(text) => EncodeLabelValue::encode(text, encoder),
            Label::Number(number) => EncodeLabelValue::encode(number, encoder),
        }
    }
}

/// Writes whole families. Counters get their suffix `_total` from the encoder.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, family: &Family, value: u64) -> fmt::Result {
        self.counters(family, [([], value)].into_iter())
    }

    fn counter_f64(&mut self, family: &Family, value: f64) -> fmt::Result {
        self.counters_f64(family, [([], value)].into_iter())
    }

    fn gauge(&mut self, family: &Family, value: u64) -> fmt::Result {
        self.gauges(family, [([], value)].into_iter())
    }

    fn gauge_f64(&mut self, family: &Family, value: f64) -> fmt::Result {
        self.gauges_f64(family, [([], value)].into_iter())
    }

    fn counters<'l, const N: usize>(
        &mut self,
        family: &Family,
        series: impl Iterator<Item = ([Label<'l>; N], u64)>,
    ) -> fmt::Result {
        self.family(family, series, |metric, value| metric.encode_counter::<NoLabelSet, _, f64>(&value, None))
    }

    fn counters_f64<'l, const N: usize>(
        &mut self,
        family: &Family,
        series: impl Iterator<Item = ([Label<'l>; N], f64)>,
    ) -> fmt::Result {
        self.family(family, series, |metric, value| metric.encode_counter::<NoLabelSet, _, f64>(&value, None))
    }

    fn gauges<'l, const N: usize>(
        &mut self,
        family: &Family,
        series: impl Iterator<Item = ([Label<'l>; N], u64)>,
    ) -> fmt::Result {
        self.family(family, series, |metric, value| metric.encode_gauge(&value))
    }

    fn gauges_f64<'l, const N: usize>(
        &mut self,
        family: &Family,
        series: impl Iterator<Item = ([Label<'l>; N], f64)>,
    ) -> fmt::Result {
        self.family(family, series, |metric, value| metric.encode_gauge(&value))
    }

    /// Each series with the sum of what it has counted, and how many fell into each bucket by its upper bound.
    fn histograms<'l, const N: usize>(
        &mut self,
        family: &Family,
        series: impl Iterator<Item = ([Label<'l>; N], (f64, Vec<(f64, u64)>))>,
    ) -> fmt::Result {
        self.family(family, series, |metric, (sum, buckets)| {
            let count = buckets.iter().map(|(_, count)| count).sum();
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }

    fn family<'l, const N: usize, V>(
        &mut self,
        family: &Family,
        series: impl Iterator<Item = ([Label<'l>; N], V)>,
        write: impl Fn(&mut MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(family.name, family.help, None, family.kind)?;
        for (labels, value) in series {
            let labels = named(family, labels);
            match N {
                0 => write(&mut metric, value)?,
                _ => write(&mut metric.encode_family(&labels)?, value)?,
            }
        }
        Ok(())
    }

    /// A constant, as labels.
    fn constant<const N: usize>(&mut self, family: &Family, values: [&str; N]) -> fmt::Result {
        let labels = named(family, values.map(Label::Text));
        self.0.encode_descriptor(family.name, family.help, None, family.kind)?.encode_info(&labels)
    }
}

fn named<'l, const N: usize>(family: &Family, values: [Label<'l>; N]) -> [(&'static str, Label<'l>); N] {
    assert_eq!(family.labels.len(), N, "{} has other labels", family.name);
    std::array::from_fn(|at| (family.labels[at], values[at]))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use heizer_raft::{GroupId, HostFigures};
    use heizer_runtime::load::CoreLoad;
    use heizer_runtime::sim;
    use heizer_runtime::time::now;
    use heizer_server::ServerMetrics;
    use heizer_storage::{FlushCounts, WriteQueue};
    use heizer_wire::ApiKey;
    use uuid::Uuid;

    use super::super::core::CoreMetrics;
    use super::super::figures::{
        Bounds, Committed, GroupFigures as Group, Holdings, PartitionFigures, TopicFigures,
    };
    use super::super::merge::BrokerRow;
    use super::super::process::ProcessFigures;
    use super::super::requests::UnderWay;
    use super::super::topics::{TopicBoard, TopicCounts};
    use super::*;

    const BOUNDS: Bounds = Bounds { topics: 10, partitions: 10, groups: 10, lags: 10 };

    fn core_row(metrics: &CoreMetrics) -> CoreRow {
        let figures = CoreFigures {
            counted: metrics.snapshot(&ServerMetrics::default()),
            load: CoreLoad::default(),
            file_operations: 0,
            pools: [PoolFigures::default(); 5],
            raft: None,
        };
        CoreRow { figures: Some(Arc::new(figures)), silent: Duration::ZERO, stalled: false, mailbox: 0 }
    }

    async fn text_of(
        cores: Vec<CoreRow>,
        holdings: Vec<Holdings>,
        bounds: Bounds,
        board: &mut TopicBoard,
    ) -> String {
        let process = ProcessFigures { resident_bytes: 4_096, cpu_seconds: 1.5, open_fds: 9 };
        let broker = BrokerRow { ready: true, uptime: Duration::from_secs(3), process };
        let holdings: Vec<Arc<Holdings>> = holdings.into_iter().map(Arc::new).collect();
        let mut pacer = Pacer::new(50);
        let scrape = Scrape::put_together(broker, cores, &holdings, bounds, board, &mut pacer).await;
        render(scrape, &mut pacer).await
    }

    /// Of so many cores that count the same.
    fn text(cores: usize, count: impl Fn(&Rc<CoreMetrics>) + 'static) -> String {
        sim::block_on(7, async move {
            let metrics = Rc::new(CoreMetrics::new());
            count(&metrics);
            let rows = (0..cores).map(|_| core_row(&metrics)).collect();
            text_of(rows, Vec::new(), BOUNDS, &mut TopicBoard::new(10)).await
        })
    }

    /// Of what one core holds.
    fn held(holdings: Holdings, bounds: Bounds) -> String {
        sim::block_on(8, async move {
            let rows = vec![core_row(&CoreMetrics::new())];
            text_of(rows, vec![holdings], bounds, &mut TopicBoard::new(bounds.topics)).await
        })
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|other| other == line), "{line} is missing in:\n{text}");
    }

    fn topic(number: u128, name: &str, partitions: &[(i32, i64)]) -> TopicFigures {
        let served = |&(index, end): &(i32, i64)| PartitionFigures {
            index,
            log_start: 1,
            log_end: end + 1,
            high_watermark: end,
            bytes: 100,
            segments: 2,
        };
        TopicFigures {
            id: Uuid::from_u128(number),
            name: name.into(),
            counts: TopicCounts { appended_bytes: 10 * number as u64, ..TopicCounts::default() },
            partitions: partitions.iter().map(served).collect(),
            offline: 0,
        }
    }

    fn group(name: &'static str, committed: Option<&[(&'static str, i32, i64)]>) -> Group {
        let one = |&(topic, partition, offset): &(&'static str, i32, i64)| Committed {
            topic: topic.into(),
            partition,
            offset,
        };
        Group {
            partition: 0,
            group: name.into(),
            state: ClassicState::Stable,
            members: 2,
            committed_count: committed.map_or(7, <[_]>::len),
            committed: committed.map(|rows| rows.iter().map(one).collect()),
        }
    }

    #[test]
    fn every_family_is_shown_in_its_order_also_without_series() {
        let text = text(1, |_| ());
        let declared = |family: &&Family| family.name;
        let families = of::SECTIONS.iter().flat_map(|section| section.families);
        let shown: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(shown, families.map(declared).collect::<Vec<_>>());
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn counters_of_all_cores_are_added_up() {
        let text = text(2, |metrics| {
            UnderWay::new(metrics, ApiKey::Produce, now()).answered();
            drop(UnderWay::new(metrics, ApiKey::Produce, now()));
            let mut tally = metrics.requests.tally(ApiKey::Produce);
            [56, 56, 7].into_iter().for_each(|code| tally.error(code));
            CoreMetrics::add(&metrics.records_in, 5);
            metrics.partitions_offline.set(3);
            metrics.segments_damaged.set(1);
            metrics.log_dirs_offline.set(1);
        });
        has(&text, "heizer_requests_total{api=\"Produce\"} 4");
        has(&text, "heizer_requests_in_flight{api=\"Produce\"} 0");
        has(&text, "heizer_request_failures_total{api=\"Produce\"} 2");
        has(&text, "heizer_request_errors_total{api=\"Produce\",error=\"KAFKA_STORAGE_ERROR\"} 4");
        has(&text, "heizer_request_errors_total{api=\"Produce\",error=\"REQUEST_TIMED_OUT\"} 2");
        has(&text, "heizer_produced_records_total 10");
        has(&text, "heizer_partitions_offline 6");
        has(&text, "heizer_segments_damaged 2");
        has(&text, "heizer_log_dirs_offline 1");
        has(&text, "# TYPE heizer_produced_records counter");
        assert!(!text.contains("api=\"Heartbeat\""), "what never happened is left out");
    }

    #[test]
    fn latencies_fall_into_cumulative_buckets_of_seconds() {
        let text = text(2, |metrics| {
            let began = now();
            UnderWay::new(metrics, ApiKey::Fetch, began).answered();
        });
        let bucket = |le: &str| {
            has(&text, &format!("heizer_request_duration_seconds_bucket{{le=\"{le}\",api=\"Fetch\"}} 2"));
        };
        ["0.0001", "0.002", "30.0", "+Inf"].into_iter().for_each(bucket);
        has(&text, "heizer_request_duration_seconds_count{api=\"Fetch\"} 2");
        has(&text, "heizer_request_duration_seconds_sum{api=\"Fetch\"} 0.0");
    }

    #[test]
    fn compaction_is_added_up_and_its_gauges_are_the_greatest() {
        let text = text(2, |metrics| {
            CoreMetrics::add(&metrics.cleaner_bytes_written, 700);
            metrics.cleaner_uncleanable.set(1);
            metrics.cleaner_dirty_ratio_max.set(0.25);
            metrics.cleaner_last_round.set(Duration::from_millis(1_500));
        });
        has(&text, "heizer_cleaner_written_bytes_total 1400");
        has(&text, "heizer_cleaner_uncleanable_partitions 2");
        has(&text, "heizer_cleaner_dirty_ratio_max 0.25");
        has(&text, "heizer_cleaner_last_round_seconds 1.5");
    }

    #[test]
    fn the_process_is_described() {
        let text = text(3, |_| ());
        has(&text, &format!("heizer_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
        has(&text, "heizer_ready 1");
        has(&text, "heizer_cores 3");
        has(&text, "heizer_uptime_seconds 3.0");
        has(&text, "process_resident_memory_bytes 4096");
        has(&text, "process_cpu_seconds_total 1.5");
        has(&text, "process_open_fds 9");
    }

    #[test]
    fn a_core_is_shown_with_its_load_its_memory_and_its_raft_groups() {
        let text = sim::block_on(9, async {
            let mut silent = core_row(&CoreMetrics::new());
            (silent.stalled, silent.silent, silent.mailbox) = (true, Duration::from_millis(2_500), 7);
            let told = silent.figures.take().expect("it has answered before");
            let load = CoreLoad {
                busy: Duration::from_secs(5),
                cpu: Duration::from_secs(4),
                stalls: 2,
                stalled: Duration::from_millis(300),
            };
            let group = GroupFigures {
                group: GroupId(3),
                role: Role::Leader,
                term: 4,
                last_index: 9,
                commit_index: 8,
                applied_index: 7,
                snapshot_index: 6,
                proposals_waiting: 2,
            };
            let raft = HostFigures {
                groups: vec![group],
                proposals: 11,
                proposal_failures: 1,
                snapshots: 5,
                stream_bytes: 1_000,
                failed: false,
            };
            let mut pools = [PoolFigures::default(); 5];
            pools[1] = PoolFigures { used: 10, limit: 20, waiting: 1, waits: 3 };
            let told = CoreFigures { load, pools, file_operations: 6, raft: Some(raft), ..(*told).clone() };
            silent.figures = Some(Arc::new(told));
            let never = CoreRow { figures: None, ..silent.clone() };
            let rows = vec![core_row(&CoreMetrics::new()), silent, never];
            text_of(rows, Vec::new(), BOUNDS, &mut TopicBoard::new(1)).await
        });
        has(&text, "heizer_core_stalled{core=\"0\"} 0");
        has(&text, "heizer_core_stalled{core=\"1\"} 1");
        has(&text, "heizer_core_stalled{core=\"2\"} 1");
        has(&text, "heizer_core_silent_seconds{core=\"1\"} 2.5");
        has(&text, "heizer_core_mailbox_messages{core=\"1\"} 7");
        has(&text, "heizer_core_busy_seconds_total{core=\"1\"} 5.0");
        has(&text, "heizer_core_cpu_seconds_total{core=\"1\"} 4.0");
        has(&text, "heizer_core_stalls_total{core=\"1\"} 2.0");
        has(&text, "heizer_core_stall_seconds_total{core=\"1\"} 0.3");
        has(&text, "heizer_memory_used_bytes{core=\"1\",pool=\"fetches\"} 10");
        has(&text, "heizer_memory_limit_bytes{core=\"1\",pool=\"fetches\"} 20");
        has(&text, "heizer_memory_waiting{core=\"1\",pool=\"fetches\"} 1");
        has(&text, "heizer_memory_waits_total{core=\"1\",pool=\"fetches\"} 3");
        has(&text, "heizer_file_operations_in_flight{core=\"1\"} 6");
        has(&text, "heizer_raft_groups{role=\"leader\"} 1");
        has(&text, "heizer_raft_groups{role=\"follower\"} 0");
        has(&text, "heizer_raft_commit_index{group=\"3\"} 8");
        has(&text, "heizer_raft_snapshot_index{group=\"3\"} 6");
        has(&text, "heizer_raft_proposals_waiting 2");
        has(&text, "heizer_raft_proposals_total 11");
        has(&text, "heizer_raft_log_bytes{core=\"1\"} 1000");
        has(&text, "heizer_raft_failed{core=\"1\"} 0");
        assert!(!text.contains("heizer_core_busy_seconds_total{core=\"2\"}"), "it has never told");
    }

    #[test]
    fn of_a_data_directory_the_least_free_space_that_any_core_has_seen_is_told() {
        let seen = |free_bytes, refusing| {
            let dir = LogDirFigures {
                dir: "/data".to_owned(),
                free_bytes,
                size_bytes: 99,
                reserve_bytes: 64,
                refusing,
                offline: false,
                writes: WriteQueue { under_way: 2, bytes: 8_192, waiting: 1 },
                flushes: FlushCounts { by_file: 5, shared: 3, by_nothing: 0, device_flushes: 1 },
            };
            Holdings { dirs: vec![dir], ..Holdings::default() }
        };
        let text = sim::block_on(7, async move {
            let rows = vec![core_row(&CoreMetrics::new())];
            let holdings = vec![seen(9, false), seen(7, true)];
            text_of(rows, holdings, BOUNDS, &mut TopicBoard::new(1)).await
        });
        has(&text, "heizer_log_dir_free_bytes{dir=\"/data\"} 7");
        has(&text, "heizer_log_dir_size_bytes{dir=\"/data\"} 99");
        has(&text, "heizer_log_dir_reserve_bytes{dir=\"/data\"} 64");
        has(&text, "heizer_log_dir_refusing{dir=\"/data\"} 1");
        has(&text, "heizer_log_dir_offline{dir=\"/data\"} 0");
        has(&text, "heizer_log_dir_writes_in_flight{dir=\"/data\"} 4");
        has(&text, "heizer_log_dir_writes_waiting{dir=\"/data\"} 2");
        has(&text, "heizer_log_dir_durable_writes_total{dir=\"/data\",by=\"file\"} 10");
        has(&text, "heizer_log_dir_device_flushes_total{dir=\"/data\"} 2");
    }

    #[test]
    fn topics_of_all_cores_are_put_together_by_name() {
        let text = sim::block_on(10, async {
            let rows = vec![core_row(&CoreMetrics::new())];
            let mut offline = topic(1, "a", &[(1, 5)]);
            offline.offline = 1;
            let one = Holdings { topics: vec![topic(2, "b", &[]), offline], ..Holdings::default() };
            let other = Holdings { topics: vec![topic(1, "a", &[(0, 7)])], ..Holdings::default() };
            text_of(rows, vec![one, other], BOUNDS, &mut TopicBoard::new(10)).await
        });
        has(&text, "heizer_topics 2");
        has(&text, "heizer_partitions 3");
        has(&text, "heizer_topic_appended_bytes_total{topic=\"a\"} 20");
        has(&text, "heizer_topic_partitions{topic=\"a\"} 3");
        has(&text, "heizer_topic_partitions_offline{topic=\"a\"} 1");
        has(&text, "heizer_topic_log_bytes{topic=\"a\"} 200");
        has(&text, "heizer_topic_log_segments{topic=\"a\"} 4");
        has(&text, "heizer_topic_partitions{topic=\"b\"} 0");
        has(&text, "heizer_partition_log_start_offset{topic=\"a\",partition=\"0\"} 1");
        has(&text, "heizer_partition_log_end_offset{topic=\"a\",partition=\"0\"} 8");
        has(&text, "heizer_partition_high_watermark{topic=\"a\",partition=\"1\"} 5");
        has(&text, "heizer_metrics_left_out{of=\"topics\"} 0");
        assert!(!text.contains("topic=\"(others)\""));
    }

    #[test]
    fn what_is_beyond_the_bounds_is_added_up_or_left_out_and_counted() {
        let topics =
            vec![topic(1, "a", &[(0, 1), (1, 1)]), topic(2, "b", &[(0, 1)]), topic(3, "c", &[(0, 1)])];
        let bounds = Bounds { topics: 2, partitions: 2, groups: 1, lags: 1 };
        let groups = vec![group("g", Some(&[("a", 0, 0), ("a", 1, 0)])), group("h", None)];
        let group_states = [0, 0, 0, 2, 0];
        let text = held(Holdings { topics, groups, group_states, ..Holdings::default() }, bounds);
        has(&text, "heizer_topic_appended_bytes_total{topic=\"b\"} 20");
        has(&text, "heizer_topic_appended_bytes_total{topic=\"(others)\"} 30");
        has(&text, "heizer_topic_partitions{topic=\"(others)\"} 1");
        has(&text, "heizer_metrics_left_out{of=\"topics\"} 1");
        has(&text, "heizer_partition_high_watermark{topic=\"a\",partition=\"1\"} 1");
        has(&text, "heizer_metrics_left_out{of=\"partitions\"} 2");
        has(&text, "heizer_group_members{group=\"g\"} 2");
        has(&text, "heizer_metrics_left_out{of=\"groups\"} 1");
        has(&text, "heizer_metrics_left_out{of=\"lags\"} 2");
        assert!(!text.contains("topic=\"c\"") && !text.contains("group=\"h\""));
        assert!(!text.contains("heizer_partition_high_watermark{topic=\"b\""), "all of a topic or none");
        assert!(!text.contains("heizer_group_lag_records{"), "all of a group or none");
    }

    #[test]
    fn a_lag_is_what_a_group_has_still_to_read_of_partitions_that_are_served() {
        let topics = vec![topic(1, "a", &[(0, 100), (2, 50)])];
        let committed = [("a", 0, 60), ("a", 1, 3), ("a", 2, 50), ("gone", 0, 1)];
        let odd = group("a \"b\"\\\n", Some(&[("a", 0, 200)]));
        let groups = vec![group("g", Some(&committed)), odd, group("m", None)];
        let holdings = Holdings {
            topics,
            groups,
            group_states: [0, 0, 0, 3, 0],
            coordinators_loading: 1,
            ..Holdings::default()
        };
        let text = held(holdings, BOUNDS);
        has(&text, "heizer_groups{state=\"Stable\"} 3");
        has(&text, "heizer_groups{state=\"Empty\"} 0");
        has(&text, "heizer_group_coordinators_loading 1");
        has(&text, "heizer_group_state{group=\"g\",state=\"Stable\"} 1");
        has(&text, "heizer_group_members{group=\"g\"} 2");
        has(&text, "heizer_group_lag_records{group=\"g\"} 40");
        has(&text, "heizer_group_partition_lag_records{group=\"g\",topic=\"a\",partition=\"0\"} 40");
        has(&text, "heizer_group_partition_lag_records{group=\"g\",topic=\"a\",partition=\"2\"} 0");
        // An offset beyond the end is no lag, and names are written so that they can be read back.
        has(&text, "heizer_group_lag_records{group=\"a \\\"b\\\"\\\\\\n\"} 0");
        assert!(
            !text.contains("group=\"g\",topic=\"a\",partition=\"1\"") && !text.contains("topic=\"gone\"")
        );
        assert!(!text.contains("heizer_group_lag_records{group=\"m\"}"), "its offsets were too many");
        has(&text, "heizer_metrics_left_out{of=\"lags\"} 7");
    }
}
