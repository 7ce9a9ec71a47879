"""What is measured: the parts of the suite with their workloads, and the rows that come of each."""

from dataclasses import dataclass, field
from typing import Optional

import limits as at_most
import results as of
from rows import Row

KAFKA_SYNCS = {"flush.messages": "1"}
# Retention and cleaning look every second instead of every few minutes, so that they are at work within a window.
ALWAYS_CLEANING = {
    "log.retention.check.interval.ms": 1000,
    "log.cleaner.backoff.ms": 1000,
}


@dataclass(frozen=True)
class Load:
    """A workload of the load generator. `quick` and `full` are settings over the file's own in each mode."""

    name: str
    title: str
    workload: str
    rows: tuple
    settings: dict = field(default_factory=dict)
    quick: Optional[dict] = None
    full: dict = field(default_factory=dict)
    broker_settings: dict = field(default_factory=dict)
    # How long a turn takes that ends when everything has been read.
    reading_s: float = 0.0
    # The page cache is emptied between the backlog and the reading.
    cold: bool = False


@dataclass(frozen=True)
class Life:
    """What is measured of brokers that are started for it: see life.py. `turn_s` is an estimate."""

    name: str
    title: str
    rows: tuple
    turn_s: float
    quick: bool = True
    # With Apache Kafka in quick mode, too.
    kafka_when_quick: bool = True
    # So many files Apache Kafka keeps open.
    kafka_files: int = 0


def receive_check_copy_write(found: at_most.Limits) -> Optional[float]:
    return found.sum(at_most.RECEIVE, f"{at_most.CRC}: CPU", f"{at_most.COPY}: CPU", at_most.WRITE_CPU)


def disk_rate(found: at_most.Limits) -> Optional[float]:
    return found.get(at_most.WRITE)


def loopback_send(found: at_most.Limits) -> Optional[float]:
    return found.get(at_most.SEND)


def receive_and_send(found: at_most.Limits) -> Optional[float]:
    return found.get(at_most.ECHO_CPU)


def due_durable_and_hops(share: str):
    """Of one percentile: how late a timer is, a durable write, two hops."""
    names = {"50": (at_most.LATE_P50, at_most.DURABLE_P50, at_most.ECHO_P50),
             "99": (at_most.LATE_P99, at_most.DURABLE_P99, at_most.ECHO_P99),
             "99.9": (at_most.LATE_P999, at_most.DURABLE_P999, at_most.ECHO_P999)}[share]  # fmt: skip
    return lambda found: None if found.sum(*names) is None else found.sum(*names) / 1000


def fixed(value: float):
    return lambda _: value


_FAST_DISK = "fio, O_DIRECT writes of 128 KiB, 8 under way"
_ECHO = "kernel time of one receive and one send of 2 KiB over loopback, 64 connections busy"
_HOPS = "a timer's lateness, one durable write by fio and two loopback hops, the same percentile of each"
# As shipped: heizer.memory.per.core.bytes and what the program takes itself.
_BUDGET = "heizer.memory.per.core.bytes, one core"

_REST = Life(
    "rest",
    "At rest, no topics",
    (
        Row("resident-idle", "resident memory at rest, no topics", "MiB",
            floor="<= 0.125", design=True, limit=fixed(64), limit_what=_BUDGET),
        Row("idle-cpu", "CPU at rest, no topics", "% of a core"),
    ),
    turn_s=10,
)  # fmt: skip

_START = Life(
    "start",
    "Start",
    (
        Row("start-1", "process start to a Metadata answer with all leaders, 1 partition", "ms",
            floor="<= 0.05", design=True, limit=fixed(50), limit_what="the aim set for it"),
        Row("start-1000", "process start to a Metadata answer with all leaders, 1,000 partitions", "ms",
            floor="<= 0.05", design=True, limit=fixed(200), limit_what="the aim set for it"),
    ),
    turn_s=20,
)  # fmt: skip

_TEN_THOUSAND = Life(
    "ten-thousand",
    "10,000 partitions",
    (
        Row("ten-thousand-create", "create 10,000 partitions (10 topics)", "ms", design=True),
        Row("ten-thousand-restart", "start after kill -9 to all leaders, 10,000 partitions with data", "ms",
            floor="<= 2000 ms", design=True),
        Row("ten-thousand-idle-cpu", "CPU at rest, 10,000 partitions with data", "% of a core",
            floor="<= 1 % of a core", design=True),
        Row("ten-thousand-resident", "resident memory at rest, 10,000 partitions with data", "MiB"),
    ),
    turn_s=45,
    kafka_when_quick=False,
    # A log, an index and a time index for each.
    kafka_files=31_000,
)  # fmt: skip

_PRODUCE = Load(
    "produce",
    "Produce at full speed, 16 partitions",
    "produce",
    (
        Row("produce-64k-cpu", "broker CPU per GB produced, 64 KiB batches, acks=all", "CPU s/GB",
            of.produce_cpu_per_gb, "<= 0.5", design=True, limit=receive_check_copy_write,
            limit_what="receive over loopback + CRC32C + one copy + O_DIRECT write"),
        Row("produce-throughput-16", "produce, broker on one CPU, 16 partitions, 64 KiB batches, Kafka without fsync",
            "MB/s", of.produce_mb_per_s, ">= 2", "higher", design=True, limit=disk_rate, limit_what=_FAST_DISK),
        Row("resident-loaded", "resident memory while producing at full speed", "MiB", of.resident_max_mib,
            "<= 0.125", design=True, limit=fixed(64), limit_what=_BUDGET),
        Row("produce-disk-bytes", "bytes to disk per byte produced", "B/B", of.disk_bytes_per_byte),
    ),
    quick={"measure_s": 7, "warmup_s": 2},
)  # fmt: skip

_PRODUCE_ONE = Load(
    "produce-one",
    "Produce at full speed, 1 partition",
    "produce-one",
    (
        Row("produce-throughput-1", "produce, broker on one CPU, 1 partition, 64 KiB batches, Kafka without fsync",
            "MB/s", of.produce_mb_per_s, ">= 2", "higher", design=True, limit=disk_rate, limit_what=_FAST_DISK),
        Row("produce-one-cpu", "broker CPU per GB produced, 1 partition, 64 KiB batches", "CPU s/GB",
            of.produce_cpu_per_gb, limit=receive_check_copy_write,
            limit_what="receive over loopback + CRC32C + one copy + O_DIRECT write"),
    ),
    quick={"measure_s": 5, "warmup_s": 2},
)  # fmt: skip

_PRODUCE_FSYNC = Load(
    "produce-fsync",
    "Produce at full speed, durable on both sides",
    "produce",
    (
        Row("produce-throughput-fsync", "produce, 16 partitions, 64 KiB batches, Kafka with flush.messages=1",
            "MB/s", of.produce_mb_per_s, ">= 10", "higher", design=True, limit=disk_rate, limit_what=_FAST_DISK),
    ),
    settings={"topic.name": "produce-fsync", "topic.config": KAFKA_SYNCS},
    quick={"measure_s": 5, "warmup_s": 2},
)  # fmt: skip

_SMALL_REQUESTS = Load(
    "small-requests",
    "Many small requests",
    "small-requests",
    (
        Row("small-requests-cpu", "broker CPU per million Produce requests of 2 KiB, 64 producers, acks=all",
            "CPU s/million", of.produce_cpu_per_million_requests, "<= 0.25", design=True,
            limit=receive_and_send, limit_what=_ECHO),
        Row("small-requests-rate", "Produce requests of 2 KiB a second, 64 producers, one under way each", "1/s",
            lambda result: result["produced"]["requests"] / result["seconds"], better="higher"),
        Row("small-requests-ack-p99", "small requests, until the acknowledgement, p99", "ms", of.ack_ms("p99")),
    ),
    quick={"measure_s": 5, "warmup_s": 2},
)  # fmt: skip

_SMALL_REQUESTS_PIPELINED = Load(
    "small-requests-pipelined",
    "Many small requests, five under way each",
    "small-requests",
    (
        Row("small-requests-pipelined-cpu",
            "broker CPU per million Produce requests of 2 KiB, 64 producers, five under way each as clients have it",
            "CPU s/million", of.produce_cpu_per_million_requests, "<= 0.25"),
        Row("small-requests-pipelined-rate", "Produce requests of 2 KiB a second, 64 producers, five under way each",
            "1/s", lambda result: result["produced"]["requests"] / result["seconds"], better="higher"),
    ),
    settings={"producers.0.in_flight": 5},
    quick={"measure_s": 5, "warmup_s": 2},
)  # fmt: skip

_FETCH_TAIL = Load(
    "fetch-tail",
    "Large fetches of the hot tail",
    "fetch-tail",
    (
        Row("fetch-tail-cpu", "broker CPU per GB fetched, the hot tail again and again", "CPU s/GB",
            of.fetch_cpu_per_gb, "<= 0.75", design=True, limit=loopback_send, limit_what="sendfile over loopback"),
        Row("fetch-tail-rate", "fetched from the hot tail", "MB/s", of.fetch_mb_per_s, better="higher"),
    ),
    quick={"measure_s": 5, "warmup_s": 2},
)  # fmt: skip

_CATCH_UP = Load(
    "catch-up",
    "Catch-up of a backlog, the page cache as writing left it",
    "catch-up",
    (
        Row("fetch-catchup-cpu", "broker CPU per GB of a backlog just written, from the beginning", "CPU s/GB",
            of.fetch_cpu_per_gb, "<= 0.75", design=True, limit=loopback_send, limit_what="sendfile over loopback"),
        Row("fetch-catchup-rate", "a backlog just written, from the beginning", "MB/s", of.fetch_mb_per_s,
            better="higher"),
    ),
    quick={"backlog.bytes": 1_500_000_000},
    reading_s=30,
)  # fmt: skip

_CATCH_UP_COLD = Load(
    "catch-up-cold",
    "Catch-up of a backlog, the page cache empty",
    "catch-up",
    (
        Row("fetch-catchup-cold-cpu", "broker CPU per GB of a backlog from disk, from the beginning", "CPU s/GB",
            of.fetch_cpu_per_gb, "<= 0.75", design=True, limit=loopback_send, limit_what="sendfile over loopback"),
        Row("fetch-catchup-cold-rate", "a backlog from disk, from the beginning", "MB/s", of.fetch_mb_per_s,
            better="higher"),
    ),
    settings={"topic.name": "catch-up-cold"},
    quick={"backlog.bytes": 1_000_000_000, "warmup_s": 5},
    full={"warmup_s": 15},
    reading_s=35,
    cold=True,
)  # fmt: skip

_SMALL_FETCH = Load(
    "small-fetch",
    "Many small fetches",
    "small-fetch",
    (
        Row("small-fetch-cpu", "broker CPU per million fetches with data, 1,000 consumers waiting", "CPU s/million",
            of.fetch_cpu_per_million, "<= 0.25", design=True, limit=receive_and_send, limit_what=_ECHO),
        Row("small-fetch-p99", "from a record's due time to a waiting consumer, p99", "ms", of.end_to_end_ms("p99")),
    ),
    quick={"measure_s": 5, "warmup_s": 2},
)  # fmt: skip

_LATENCY = Load(
    "latency",
    "Latency at 2,000 records a second",
    "latency",
    (
        Row("e2e-p99", "produce to consume at 2,000 records/s, p99, Kafka without fsync", "ms",
            of.end_to_end_ms("p99"), "<= 0.3333", design=True,
            limit=due_durable_and_hops("99"), limit_what=_HOPS),
        Row("e2e-p99.9", "produce to consume at 2,000 records/s, p99.9", "ms", of.end_to_end_ms("p99_9"),
            "<= 0.1", design=True,
            limit=due_durable_and_hops("99.9"), limit_what=_HOPS),
        Row("e2e-p50", "produce to consume at 2,000 records/s, p50", "ms", of.end_to_end_ms("p50"),
            limit=due_durable_and_hops("50"), limit_what=_HOPS),
        Row("e2e-p99.99", "produce to consume at 2,000 records/s, p99.99", "ms", of.end_to_end_ms("p99_99")),
        Row("e2e-max", "produce to consume at 2,000 records/s, the longest", "ms", of.end_to_end_ms("max")),
        Row("ack-p99", "at 2,000 records/s, until the acknowledgement, p99", "ms", of.ack_ms("p99")),
    ),
    quick={"measure_s": 10, "warmup_s": 3},
)  # fmt: skip


def _latency_rows(stem: str, load: str, acks: bool = False) -> tuple:
    figure = of.ack_ms if acks else of.end_to_end_ms
    until = "until the acknowledgement" if acks else "produce to consume"
    shares = (("p50", "p50"), ("p99", "p99"), ("p99.9", "p99_9"), ("p99.99", "p99_99"), ("max", "max"))
    return tuple(Row(f"{stem}-{name}", f"{until} at {load}, {name}", "ms", figure(key)) for name, key in shares)


def _produce_max(size: str, record_bytes: int, partitions: int) -> Load:
    what = f"{size} records, {partitions} partition{'s' if partitions > 1 else ''}"
    rate = Row(f"produce-max-{size.replace(' ', '')}-{partitions}", f"produce at most, {what}, 512 KiB batches", "MB/s",
               of.produce_mb_per_s, better="higher", limit=disk_rate, limit_what=_FAST_DISK)  # fmt: skip
    settings = {"producers.0.record_bytes": record_bytes, "topic.partitions": partitions}
    return Load(rate.name, f"Produce at most: {what}", "produce-max", (rate,), settings)


_FURTHER = (
    Load("latency-10000", "Latency at 10,000 records a second", "latency",
         _latency_rows("e2e-10000", "10,000 records/s"), {"producers.0.rate": 10000.0, "topic.name": "latency-10000"}),
    Load("latency-fsync", "Latency at 2,000 records a second, durable on both sides", "latency",
         _latency_rows("fsync-ack", "2,000 records/s, Kafka with flush.messages=1", acks=True),
         {"topic.name": "latency-fsync", "topic.config": KAFKA_SYNCS}),
    *(_produce_max(size, record_bytes, partitions)
      for size, record_bytes in (("100 B", 100), ("1 KiB", 1024), ("16 KiB", 16384)) for partitions in (1, 16)),
    Load("fan-out", "One producer, eight consumers at the tail", "fan-out", (
        Row("fan-out-cpu", "broker CPU per GB fetched, 20,000 records/s to 8 consumers", "CPU s/GB",
            of.fetch_cpu_per_gb),
        Row("fan-out-p99", "produce to consume, p99", "ms", of.end_to_end_ms("p99")),
    )),
    Load("catch-up-while-producing", "Catch-up while producing", "catch-up-while-producing", (
        Row("catch-up-while-producing-rate", "a backlog of 2 GB read while 20,000 records/s come in", "MB/s",
            of.fetch_mb_per_s, better="higher"),
        Row("catch-up-while-producing-ack-p99", "acknowledgements meanwhile, p99", "ms", of.ack_ms("p99")),
    ), reading_s=25),
    Load("thousand-partitions", "1,000 partitions busy", "thousand-partitions", (
        Row("thousand-partitions-cpu", "broker CPU per million Produce requests, 1,000 partitions in turn",
            "CPU s/million", of.produce_cpu_per_million_requests),
        Row("thousand-partitions-ack-p99", "acknowledgements meanwhile, p99", "ms", of.ack_ms("p99")),
    )),
    Load("retention", "Retention at work", "retention", (
        Row("retention-busy", "broker at 30,000 records/s while old segments go", "% of a core",
            of.broker_busy_percent),
        Row("retention-ack-p99", "acknowledgements meanwhile, p99", "ms", of.ack_ms("p99")),
    ), broker_settings=ALWAYS_CLEANING),
    Load("compaction", "Compaction at work", "compaction", (
        Row("compaction-busy", "broker at 20,000 keyed records/s while logs are compacted", "% of a core",
            of.broker_busy_percent),
        Row("compaction-ack-p99", "acknowledgements meanwhile, p99", "ms", of.ack_ms("p99")),
    ), broker_settings=ALWAYS_CLEANING),
)  # fmt: skip

# Its rows depend on the clients: see neutral.py.
NEUTRAL = Life("neutral", "With clients that are not ours: librdkafka, Apache Kafka's perf tools", (), 45, quick=False)

PARTS = (
    _START,
    _TEN_THOUSAND,
    _REST,
    _PRODUCE,
    _SMALL_REQUESTS,
    _SMALL_REQUESTS_PIPELINED,
    _FETCH_TAIL,
    _CATCH_UP,
    _CATCH_UP_COLD,
    _SMALL_FETCH,
    _LATENCY,
    _PRODUCE_ONE,
    _PRODUCE_FSYNC,
    *_FURTHER,
)
ROW_NAMES = tuple(row.name for part in PARTS for row in part.rows)


def long_run(minutes: float) -> Load:
    """Latency over a long time, once for each broker."""
    rows = _latency_rows("long", f"2,000 records/s for {minutes:g} minutes")
    settings = {"measure_s": minutes * 60, "topic.name": "long", "limit_s": 300}
    return Load("long", f"Latency over {minutes:g} minutes", "latency", rows, settings, quick=settings)


def chosen(quick: bool, names: list) -> list:
    """The parts that this run measures: those that yield one of the named rows, else those of the mode."""
    if names:
        return [part for part in PARTS if part.name in names or any(row.name in names for row in part.rows)]
    return [part for part in PARTS if not quick or is_quick(part)]


def is_quick(part) -> bool:
    return part.quick is not None and part.quick is not False


def wants_neutral(quick: bool, names: list) -> bool:
    return NEUTRAL.name in names if names else not quick
