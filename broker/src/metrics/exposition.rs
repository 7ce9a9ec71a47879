//! The names of the metrics, and the text that Prometheus reads (OpenMetrics).

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use heizer_server::CloseReason;
use heizer_wire::ApiKey;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::core::{CoreSnapshot, LogDirFigures};
use super::process::ProcessFigures;

/// Upper bounds of the latency buckets, in microseconds.
const BUCKETS_US: [u64; 17] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000, 30_000_000,
];

/// All metrics as text: the cores added up, and figures of the process, which has been up for `uptime`.
pub fn render(cores: &[CoreSnapshot], process: &ProcessFigures, uptime: Duration) -> String {
    let (first, others) = cores.split_first().expect("there is at least one core");
    let mut merged = first.clone();
    others.iter().for_each(|other| merged.merge(other));
    let exposition = Exposition { cores: cores.len(), merged, process: *process, uptime };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(exposition));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

#[derive(Debug)]
struct Exposition {
    cores: usize,
    merged: CoreSnapshot,
    process: ProcessFigures,
    uptime: Duration,
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.encode_requests(&mut out)?;
        self.encode_connections(&mut out)?;
        self.encode_data(&mut out)?;
        self.encode_cleaner(&mut out)?;
        self.encode_process(&mut out)
    }
}

impl Exposition {
    fn encode_requests(&self, out: &mut Out<'_>) -> fmt::Result {
        let all = &self.merged;
        out.counters("heizer_requests", "Requests taken up", "api", by_api(&all.requests))?;
        out.counters(
            "heizer_request_errors",
            "Answers to Produce and Fetch with an error in them",
            "api",
            by_api(&all.errors),
        )?;
        let help = "From a request's last byte to its answer, waiting for data included";
        let latencies = [("Produce", &all.produce_latency), ("Fetch", &all.fetch_latency)];
        out.histograms("heizer_request_duration_seconds", help, "api", &latencies)?;
        out.gauge("heizer_fetches_waiting", "Fetches that wait for data", all.fetches_waiting as f64)
    }

    fn encode_connections(&self, out: &mut Out<'_>) -> fmt::Result {
        let all = &self.merged;
        out.gauge("heizer_connections", "Open connections", all.connections as f64)?;
        out.counter("heizer_connections_opened", "Connections accepted", all.connections_opened)?;
        let closed =
            CloseReason::ALL.iter().zip(all.connections_closed).map(|(reason, n)| (reason.name(), n));
        out.counters("heizer_connections_closed", "Connections ended, by reason", "reason", closed)?;
        let refused = ["max.connections", "max.connections.per.ip"].into_iter().zip(all.connections_refused);
        out.counters(
            "heizer_connections_refused",
            "Connections turned away, by setting",
            "setting",
            refused,
        )?;
        out.counter("heizer_network_receive_bytes", "Bytes received from clients", all.network_bytes_in)?;
        out.counter("heizer_network_transmit_bytes", "Bytes sent to clients", all.network_bytes_out)
    }

    fn encode_data(&self, out: &mut Out<'_>) -> fmt::Result {
        let all = &self.merged;
        out.counter("heizer_produced_records", "Records appended by producers", all.records_in)?;
        out.counter("heizer_produced_bytes", "Bytes of batches appended by producers", all.record_bytes_in)?;
        out.counter("heizer_fetched_bytes", "Bytes of batches sent to consumers", all.record_bytes_out)?;
        out.counter("heizer_log_appends", "Batches appended to logs", all.log_appends)?;
        let by_dir = |value: fn(&LogDirFigures) -> u64| {
            all.log_dirs.iter().map(move |dir| (dir.dir.as_str(), value(dir) as f64))
        };
        let free = by_dir(|dir| dir.free_bytes);
        out.gauges("heizer_log_dir_free_bytes", "Bytes free on a data directory's file system", "dir", free)?;
        let reserve = by_dir(|dir| dir.reserve_bytes);
        out.gauges("heizer_log_dir_reserve_bytes", "Bytes that producers leave free there", "dir", reserve)?;
        let refusing = by_dir(|dir| u64::from(dir.refusing));
        out.gauges(
            "heizer_log_dir_refusing",
            "1 while producers are refused for want of space",
            "dir",
            refusing,
        )?;
        let offline = all.partitions_offline as f64;
        out.gauge("heizer_partitions_offline", "Partitions whose log cannot be used", offline)?;
        let damaged = all.segments_damaged as f64;
        out.gauge("heizer_segments_damaged", "Segments found damaged since the start", damaged)?;
        let offline = all.log_dirs_offline as f64;
        out.gauge("heizer_log_dirs_offline", "Data directories that have failed", offline)?;
        let sends = &all.file_sends;
        out.counter("heizer_sendfile_bytes", "Bytes sent out of the page cache by sendfile", sends.bytes)?;
        out.counter("heizer_sendfile_calls", "Calls of sendfile", sends.calls)?;
        out.counter("heizer_sendfile_stalls", "Calls of sendfile that held their core up", sends.stalls)?;
        out.counter("heizer_sendfile_waits", "Waits of one connection for pages", sends.waits)?;
        let help = "Bytes that were not in the page cache when their turn to be sent came";
        out.counter("heizer_sendfile_missed_bytes", help, sends.missed_bytes)
    }

    fn encode_cleaner(&self, out: &mut Out<'_>) -> fmt::Result {
        let all = &self.merged;
        out.counter("heizer_cleaner_rounds", "Rounds of compaction", all.cleaner_rounds)?;
        let [read, written] = all.cleaner_bytes;
        out.counter("heizer_cleaner_read_bytes", "Bytes read by compaction", read)?;
        out.counter("heizer_cleaner_written_bytes", "Bytes written by compaction", written)?;
        let removed = all.cleaner_records_removed;
        out.counter("heizer_cleaner_removed_records", "Records removed by compaction", removed)?;
        out.counter("heizer_cleaner_failures", "Rounds that failed for good", all.cleaner_failures)?;
        let uncleanable = all.cleaner_uncleanable as f64;
        out.gauge(
            "heizer_cleaner_uncleanable_partitions",
            "Partitions that cannot be compacted",
            uncleanable,
        )?;
        let ratio = all.cleaner_dirty_ratio_max;
        out.gauge("heizer_cleaner_dirty_ratio_max", "Highest dirty ratio of a compacted log", ratio)?;
        let last = all.cleaner_last_round.as_secs_f64();
        out.gauge("heizer_cleaner_last_round_seconds", "Longest of the cores' last rounds", last)
    }

    fn encode_process(&self, out: &mut Out<'_>) -> fmt::Result {
        let process = &self.process;
        out.counter(
            "heizer_task_panics",
            "Tasks that ended in a panic, each of them a bug",
            self.merged.panics,
        )?;
        out.gauge("heizer_cores", "Cores the broker runs on", self.cores as f64)?;
        out.gauge("heizer_uptime_seconds", "Time since the start", self.uptime.as_secs_f64())?;
        let memory = process.resident_bytes as f64;
        out.gauge("process_resident_memory_bytes", "Memory in use", memory)?;
        out.seconds("process_cpu_seconds", "CPU time of user and kernel", process.cpu_seconds)?;
        out.gauge("process_open_fds", "Open file descriptors", process.open_fds as f64)
    }
}

/// The API keys that were counted at all, by name.
fn by_api(counts: &[u64]) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    ApiKey::ALL.iter().filter_map(|api| {
        let count = counts[usize::from(i16::from(*api).unsigned_abs())];
        (count > 0).then(|| (api.name(), count))
    })
}

/// Writes whole metrics. Counters get their suffix `_total` from the encoder.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, f64, f64>(&value, None)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            family.encode_family(&[(label, of)])?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'a str, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            family.encode_family(&[(label, of)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        of_each: &[(&str, &Histogram<u64>)],
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (of, histogram) in of_each {
            let (sum, buckets) = (sum_seconds(histogram), buckets(histogram));
            let labels = [(label, *of)];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                sum,
                histogram.len(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

/// Each bucket's upper bound in seconds and its own count.
fn buckets(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let mut below = 0;
    let bounded = BUCKETS_US.iter().map(|bound| {
        // Counted by the upper end of the histogram's own steps, so that nothing falls between two buckets.
        let up_to = histogram.iter_recorded().take_while(|step| step.value_iterated_to() <= *bound);
        let total: u64 = up_to.map(|step| step.count_at_value()).sum();
        let own = total - below;
        below = total;
        (*bound as f64 / 1e6, own)
    });
    let mut buckets: Vec<(f64, u64)> = bounded.collect();
    buckets.push((f64::INFINITY, histogram.len() - below));
    buckets
}

fn sum_seconds(histogram: &Histogram<u64>) -> f64 {
    let us = |step: f64, count: u64| step * count as f64;
    let steps = histogram.iter_recorded();
    steps.fold(0.0, |sum, step| sum + us(step.value_iterated_to() as f64, step.count_at_value())) / 1e6
}

#[cfg(test)]
mod tests {
    use heizer_runtime::sim;
    use heizer_server::ServerMetrics;

    use super::super::core::CoreMetrics;
    use super::*;

    fn text(count: impl Fn(&CoreMetrics) + 'static, cores: usize) -> String {
        let snapshots = sim::block_on(7, async move {
            let metrics = CoreMetrics::new();
            count(&metrics);
            vec![metrics.snapshot(&ServerMetrics::default()); cores]
        });
        let process = ProcessFigures { resident_bytes: 4_096, cpu_seconds: 1.5, open_fds: 9 };
        render(&snapshots, &process, Duration::from_secs(3))
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|other| other == line), "{line} is missing in:\n{text}");
    }

    #[test]
    fn counters_of_all_cores_are_added_up() {
        let count = |metrics: &CoreMetrics| {
            metrics.count_request(ApiKey::Produce);
            metrics.count_request(ApiKey::Produce);
            metrics.count_error(ApiKey::Fetch);
            CoreMetrics::add(&metrics.records_in, 5);
            metrics.partitions_offline.set(3);
            metrics.segments_damaged.set(1);
            metrics.log_dirs_offline.set(1);
        };
        let text = text(count, 2);
        has(&text, "heizer_requests_total{api=\"Produce\"} 4");
        has(&text, "heizer_request_errors_total{api=\"Fetch\"} 2");
        has(&text, "heizer_produced_records_total 10");
        has(&text, "heizer_partitions_offline 6.0");
        has(&text, "heizer_segments_damaged 2.0");
        has(&text, "heizer_log_dirs_offline 1.0");
        has(&text, "# TYPE heizer_produced_records counter");
        assert!(!text.contains("api=\"Heartbeat\""), "what never happened is left out");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn compaction_is_added_up_and_its_gauges_are_the_greatest() {
        let count = |metrics: &CoreMetrics| {
            CoreMetrics::add(&metrics.cleaner_bytes_written, 700);
            metrics.cleaner_uncleanable.set(1);
            metrics.cleaner_dirty_ratio_max.set(0.25);
            metrics.cleaner_last_round.set(Duration::from_millis(1_500));
        };
        let text = text(count, 2);
        has(&text, "heizer_cleaner_written_bytes_total 1400");
        has(&text, "heizer_cleaner_uncleanable_partitions 2.0");
        has(&text, "heizer_cleaner_dirty_ratio_max 0.25");
        has(&text, "heizer_cleaner_last_round_seconds 1.5");
    }

    #[test]
    fn latencies_fall_into_cumulative_buckets_of_seconds() {
        let count = |metrics: &CoreMetrics| {
            for us in [50, 150, 1_500, 45_000_000, 100_000_000] {
                metrics.record_produce(Duration::from_micros(us));
            }
        };
        let text = text(count, 1);
        let bucket = |le: &str, n: u64| {
            has(&text, &format!("heizer_request_duration_seconds_bucket{{le=\"{le}\",api=\"Produce\"}} {n}"));
        };
        bucket("0.0001", 1);
        bucket("0.0002", 2);
        bucket("0.001", 2);
        bucket("0.002", 3);
        bucket("30.0", 3);
        bucket("+Inf", 5);
        has(&text, "heizer_request_duration_seconds_count{api=\"Produce\"} 5");
    }

    #[test]
    fn of_a_data_directory_the_least_free_space_that_any_core_has_seen_is_told() {
        let snapshots = sim::block_on(7, async {
            let snapshot = |free_bytes, refusing| {
                let mut snapshot = CoreMetrics::new().snapshot(&ServerMetrics::default());
                let dir = "/data".to_owned();
                snapshot.log_dirs.push(LogDirFigures { dir, free_bytes, reserve_bytes: 64, refusing });
                snapshot
            };
            [snapshot(9, false), snapshot(7, true)]
        });
        let process = ProcessFigures { resident_bytes: 4_096, cpu_seconds: 1.5, open_fds: 9 };
        let text = render(&snapshots, &process, Duration::from_secs(3));
        has(&text, "heizer_log_dir_free_bytes{dir=\"/data\"} 7.0");
        has(&text, "heizer_log_dir_reserve_bytes{dir=\"/data\"} 64.0");
        has(&text, "heizer_log_dir_refusing{dir=\"/data\"} 1.0");
    }

    #[test]
    fn the_process_is_described() {
        let text = text(|_| (), 3);
        has(&text, "heizer_cores 3.0");
        has(&text, "heizer_uptime_seconds 3.0");
        has(&text, "process_resident_memory_bytes 4096.0");
        has(&text, "process_cpu_seconds_total 1.5");
        has(&text, "process_open_fds 9.0");
    }
}
