//! The result of a run: for machines as JSON, for people as a few lines.

use std::fmt;

use serde::Serialize;

use crate::tally::{Consumed, LatencySummary, Produced, Second, Tally, megabytes};
use crate::verify::Verdict;
use crate::watch::Usage;
use crate::workload::Workload;

/// See the module. Bytes are of record values, a MB is 10^6 of them.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) workload: Workload,
    /// The length of the window.
    pub(crate) seconds: f64,
    pub(crate) produced: ProducedReport,
    pub(crate) ack_latency_us: LatencySummary,
    pub(crate) consumed: ConsumedReport,
    pub(crate) end_to_end_us: LatencySummary,
    pub(crate) verified: Verdict,
    pub(crate) client_cpu: CpuReport,
    pub(crate) broker: Option<BrokerReport>,
    /// Which latencies the timeline has: `end_to_end` or `ack`.
    pub(crate) timeline_latency: &'static str,
    pub(crate) timeline: Vec<SecondReport>,
}

#[derive(Serialize)]
pub(crate) struct ProducedReport {
    records: u64,
    bytes: u64,
    batches: u64,
    requests: u64,
    records_per_s: f64,
    mb_per_s: f64,
}

#[derive(Serialize)]
pub(crate) struct ConsumedReport {
    records: u64,
    bytes: u64,
    fetches: u64,
    fetches_with_data: u64,
    records_per_s: f64,
    mb_per_s: f64,
    /// How long consumers with `until = "end"` took.
    caught_up_s: Option<f64>,
}

#[derive(Clone, Copy, Serialize)]
pub(crate) struct CpuReport {
    user_s: f64,
    kernel_s: f64,
}

/// What the watched process has used within the window.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct BrokerReport {
    user_s: f64,
    kernel_s: f64,
    /// At the window's end.
    resident_mib: f64,
    /// The most that was seen, once a second.
    resident_max_mib: f64,
    /// Null where the system does not let us read it.
    read_bytes: Option<u64>,
    write_bytes: Option<u64>,
    context_switches: u64,
}

/// One second of the window.
#[derive(Clone, Serialize)]
pub(crate) struct SecondReport {
    pub(crate) s: usize,
    produced_mb: f64,
    consumed_mb: f64,
    /// Produced ones, or consumed ones where nobody produces.
    records: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    /// Used within the second, if a process is watched.
    pub(crate) broker_cpu_s: Option<f64>,
    pub(crate) resident_mib: Option<f64>,
}

impl ProducedReport {
    pub(crate) fn new(produced: &Produced, seconds: f64) -> ProducedReport {
        ProducedReport {
            records: produced.records,
            bytes: produced.bytes,
            batches: produced.batches,
            requests: produced.requests,
            records_per_s: produced.records as f64 / seconds,
            mb_per_s: megabytes(produced.bytes) / seconds,
        }
    }
}

impl ConsumedReport {
    pub(crate) fn new(consumed: &Consumed, seconds: f64, caught_up_s: Option<f64>) -> ConsumedReport {
        ConsumedReport {
            records: consumed.records,
            bytes: consumed.bytes,
            fetches: consumed.fetches,
            fetches_with_data: consumed.fetches_with_data,
            records_per_s: consumed.records as f64 / seconds,
            mb_per_s: megabytes(consumed.bytes) / seconds,
            caught_up_s,
        }
    }
}

impl CpuReport {
    pub(crate) fn between(before: (f64, f64), after: (f64, f64)) -> CpuReport {
        CpuReport { user_s: after.0 - before.0, kernel_s: after.1 - before.1 }
    }
}

impl BrokerReport {
    pub(crate) fn between(before: &Usage, after: &Usage, resident_max_mib: f64) -> BrokerReport {
        let io = before.io.zip(after.io);
        BrokerReport {
            user_s: after.user_s - before.user_s,
            kernel_s: after.kernel_s - before.kernel_s,
            resident_mib: after.resident_mib,
            resident_max_mib: resident_max_mib.max(before.resident_mib).max(after.resident_mib),
            read_bytes: io.map(|(before, after)| after.0.saturating_sub(before.0)),
            write_bytes: io.map(|(before, after)| after.1.saturating_sub(before.1)),
            // Threads that have ended took their counts with them.
            context_switches: after.context_switches.saturating_sub(before.context_switches),
        }
    }
}

impl SecondReport {
    /// Second `s`, with end-to-end latencies or those of acknowledgements.
    pub(crate) fn new(s: usize, second: &Second, end_to_end: bool) -> SecondReport {
        let latency = if end_to_end { &second.end_to_end_us } else { &second.ack_us };
        let records = match second.produced_records {
            0 => second.consumed_records,
            produced => produced,
        };
        SecondReport {
            s,
            produced_mb: megabytes(second.produced_bytes),
            consumed_mb: megabytes(second.consumed_bytes),
            records,
            p50_us: latency.percentile(50.0),
            p99_us: latency.percentile(99.0),
            max_us: latency.max(),
            broker_cpu_s: None,
            resident_mib: None,
        }
    }

    /// For whoever watches.
    pub(crate) fn line(&self, phase: &str) -> String {
        let SecondReport { records, produced_mb, consumed_mb, .. } = self;
        let p99_ms = self.p99_us as f64 / 1_000.0;
        format!(
            "{phase:>8} {records:>10} records/s  produced {produced_mb:>8.2} MB/s  consumed {consumed_mb:>8.2} MB/s  \
             p99 {p99_ms:.3} ms"
        )
    }
}

/// The counted part of a report.
pub(crate) fn latencies(tally: &Tally) -> (LatencySummary, LatencySummary) {
    (tally.ack_us.summary(), tally.end_to_end_us.summary())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {:.2} s", self.workload.name, self.seconds)?;
        let (produced, consumed) = (&self.produced, &self.consumed);
        if !self.workload.producers.is_empty() {
            let (rate, mb) = (produced.records_per_s, produced.mb_per_s);
            writeln!(f, "  produced  {:>12} records  {rate:>12.0}/s  {mb:>9.2} MB/s", produced.records)?;
            write_latency(f, "acks", &self.ack_latency_us)?;
        }
        if !self.workload.consumers.is_empty() {
            let (rate, mb) = (consumed.records_per_s, consumed.mb_per_s);
            writeln!(f, "  consumed  {:>12} records  {rate:>12.0}/s  {mb:>9.2} MB/s", consumed.records)?;
            if let Some(seconds) = consumed.caught_up_s {
                writeln!(f, "  caught up in {seconds:.2} s")?;
            }
            write_latency(f, "end to end", &self.end_to_end_us)?;
            let faults = self.verified.faults().unwrap_or_else(|| "nothing wrong".to_owned());
            writeln!(f, "  verified  {:>12} records  {faults}", self.verified.records)?;
        }
        let (user, kernel) = (self.client_cpu.user_s, self.client_cpu.kernel_s);
        writeln!(f, "  client    {user:.2} s user, {kernel:.2} s kernel")?;
        if let Some(broker) = &self.broker {
            let (user, kernel, mib) = (broker.user_s, broker.kernel_s, broker.resident_max_mib);
            writeln!(f, "  broker    {user:.2} s user, {kernel:.2} s kernel, {mib:.1} MiB")?;
        }
        Ok(())
    }
}

fn write_latency(f: &mut fmt::Formatter<'_>, what: &str, latency: &LatencySummary) -> fmt::Result {
    if latency.count == 0 {
        return Ok(());
    }
    let ms = |us: u64| us as f64 / 1_000.0;
    writeln!(
        f,
        "  {what:<10} p50 {:.3}  p99 {:.3}  p99.9 {:.3}  p99.99 {:.3}  max {:.3} ms",
        ms(latency.p50),
        ms(latency.p99),
        ms(latency.p99_9),
        ms(latency.p99_99),
        ms(latency.max),
    )
}
