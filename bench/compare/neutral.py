"""Clients that are not ours repeat a part of it: librdkafka from Python, and Apache Kafka's own performance tools.

They run where all clients run. CPU is the broker's; the latencies are what each client says itself.
"""

import random
import re
import string
import threading
import time
from typing import NamedTuple

import brokers
import confluent_kafka
from confluent_kafka import KafkaException, TopicPartition
from harness import java, server
from harness import librdkafka as lib
from rows import median

RECORD_BYTES = 1024
BATCH_BYTES = 64 << 10
LINGER_MS = 20
PARTITIONS = 16
TIMEOUT_S = 900
GB = 1.0
LATENCY_RATE, LATENCY_RECORDS, LATENCY_WARMUP = 1000, 10_000, 3000
# The tool sends one record after the other.
JAVA_LATENCY_RECORDS = 5000
# Records that wait in confluent-kafka: enough to keep it busy.
QUEUED_MAX = 100_000
_PRODUCER = {"acks": "all", "batch.size": BATCH_BYTES, "linger.ms": LINGER_MS}
# A full queue makes librdkafka rest for a second, unless told otherwise.
_CONSUMER = {"fetch.queue.backoff.ms": 5}
# Does not compress.
_VALUE = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=RECORD_BYTES)).encode()


class Figure(NamedTuple):
    name: str
    unit: str
    value: float


class Librdkafka:
    """confluent-kafka, that is librdkafka, from Python."""

    name = f"librdkafka {confluent_kafka.libversion()[0]} (confluent-kafka {confluent_kafka.__version__})"

    def measure(self, broker: server.Server) -> list:
        topic = lib.create_topic(broker.bootstrap, f"librdkafka-{time.time_ns()}", PARTITIONS)
        records = int(GB * 1e9) // RECORD_BYTES
        found = _with_cpu(broker, "produce-64k", lambda: self.produce(broker.bootstrap, topic, records))
        found += _with_cpu(broker, "fetch-catchup", lambda: self.fetch(broker.bootstrap, topic, records))
        return found + self.latency(broker.bootstrap)

    def produce(self, bootstrap: str, topic: str, records: int) -> None:
        failed: list = []
        client = lib.producer(
            bootstrap,
            **_PRODUCER,
            queue_buffering_max_kbytes=256 << 10,
            queue_buffering_max_messages=2 * QUEUED_MAX,
            delivery_report_only_error=True,
        )
        note = lambda error, _: failed.append(error)  # noqa: E731
        messages = [{"value": _VALUE} for _ in range(1000)]
        sent, turn = 0, 0
        while sent < records:
            some = messages[: records - sent]
            sent += client.produce_batch(topic, some, partition=turn % PARTITIONS, on_delivery=note)
            turn += 1
            while len(client) > QUEUED_MAX:
                client.poll(0.01)
        left = client.flush(TIMEOUT_S)
        assert not failed and not left, f"{left} records undelivered, {len(failed)} failed: {failed[:1]}"
        there = lib.total_records(bootstrap, topic, PARTITIONS)
        assert there == records, f"{records} records were produced and {there} are there"

    def fetch(self, bootstrap: str, topic: str, records: int) -> None:
        client = lib.consumer(bootstrap, "neutral", **_CONSUMER)
        _read(client, [TopicPartition(topic, p, 0) for p in range(PARTITIONS)], records)
        client.close()

    def latency(self, bootstrap: str) -> list:
        """Due times on a fixed schedule travel in the records; a thread reads them as they come."""
        topic = lib.create_topic(bootstrap, f"librdkafka-latency-{time.time_ns()}", PARTITIONS)
        client = lib.producer(bootstrap, acks="all", linger_ms=0)
        reader = _LatencyReader(bootstrap, topic, LATENCY_WARMUP + LATENCY_RECORDS)
        reader.start()
        began = time.monotonic_ns()
        for number in range(LATENCY_WARMUP + LATENCY_RECORDS):
            due = began + number * 1_000_000_000 // LATENCY_RATE
            while (left := due - time.monotonic_ns()) > 0:
                time.sleep(left / 1e9)
            lib.send(client, topic, value=b"%020d" % due + _VALUE[20:], partition=number % PARTITIONS)
            client.poll(0)
        assert client.flush(TIMEOUT_S) == 0, "not everything was delivered"
        took = sorted(reader.result()[LATENCY_WARMUP:])
        return [Figure(f"e2e-{name}", "ms", took[int(share * len(took))] / 1e6) for name, share in _SHARES]


_SHARES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))


class _LatencyReader(threading.Thread):
    """Nanoseconds from each record's due time to its arrival, in the order of arrival."""

    def __init__(self, bootstrap: str, topic: str, records: int):
        super().__init__(daemon=True)
        self._client = lib.consumer(bootstrap, "neutral", fetch_wait_max_ms=500)
        self._client.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
        self._records, self._took, self._failure = records, [], None
        # The partitions' leaders are known, and fetches wait at the broker.
        self._client.poll(1.0)

    def run(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while len(self._took) < self._records and time.monotonic() < deadline:
            message = self._client.poll(0.5)
            if message is None:
                continue
            if message.error():
                self._failure = message.error()
                return
            self._took.append(time.monotonic_ns() - int(message.value()[:20]))

    def result(self) -> list:
        self.join(60)
        self._client.close()
        assert self._failure is None, f"the reader failed: {self._failure}"
        assert len(self._took) == self._records, f"{len(self._took)} of {self._records} records came"
        return self._took


class Java:
    """Apache Kafka's own performance tools."""

    name = "Apache Kafka's perf tools (Java)"

    def measure(self, broker: server.Server) -> list:
        topic = lib.create_topic(broker.bootstrap, f"java-{time.time_ns()}", PARTITIONS)
        records = int(GB * 1e9) // RECORD_BYTES
        found = _with_cpu(broker, "produce-64k", lambda: self.produce(broker.bootstrap, topic, records))
        found += _with_cpu(broker, "fetch-catchup", lambda: self.fetch(broker.bootstrap, topic, records))
        return found + self.latency(broker.bootstrap)

    def produce(self, bootstrap: str, topic: str, records: int) -> None:
        props = [f"bootstrap.servers={bootstrap}", *(f"{name}={value}" for name, value in _PRODUCER.items())]
        amount = ("--num-records", str(records), "--record-size", str(RECORD_BYTES), "--throughput", "-1")
        line = ("--topic", topic, *amount, "--producer-props", *props)
        said = java.run(java.PRODUCER_PERFORMANCE, *line, timeout_s=TIMEOUT_S, heap="512m")
        assert re.search(rf"^{records} records sent", said, re.MULTILINE), f"not everything was delivered:\n{said}"

    def fetch(self, bootstrap: str, topic: str, records: int) -> None:
        line = ("--bootstrap-server", bootstrap, "--topic", topic, "--messages", str(records), "--timeout", "60000")
        java.run(java.CONSUMER_PERFORMANCE, *line, timeout_s=TIMEOUT_S, heap="512m")

    def latency(self, bootstrap: str) -> list:
        """One record at a time, there and back."""
        topic = lib.create_topic(bootstrap, f"java-latency-{time.time_ns()}", 1)
        line = (bootstrap, topic, str(JAVA_LATENCY_RECORDS), "all", str(RECORD_BYTES))
        said = java.run(java.END_TO_END_LATENCY, *line, timeout_s=TIMEOUT_S)
        found = re.search(r"Percentiles: 50th = (\d+), 99th = (\d+), 99.9th = (\d+)", said)
        assert found, f"EndToEndLatency did not say what it measured:\n{said}"
        return [Figure(f"one-at-a-time-{name}", "ms", float(ms)) for (name, _), ms in zip(_SHARES, found.groups())]


def measure(makers: brokers.Makers, home, rounds: int, say) -> list:
    """Rows for the report: medians of the rounds, both brokers in turn."""
    values: dict = {}
    with brokers.Stage(makers, home / "neutral") as stage:
        for name in stage.brokers:
            say(f"      {name}: once without counting, a JVM compiles as it goes")
            with stage.turn(name) as broker:
                Librdkafka().measure(broker)
        for number in range(1, rounds + 1):
            for client in (Librdkafka(), Java()):
                for name in stage.brokers:
                    with stage.turn(name) as broker:
                        figures = client.measure(broker)
                    for figure in figures:
                        values.setdefault((client.name, figure.name, figure.unit), {}).setdefault(name, []).append(
                            figure.value
                        )
                    told = ", ".join(f"{figure.name} {figure.value:.4g} {figure.unit}" for figure in figures)
                    say(f"      round {number}, {name}, {client.name}: {told}")
    return [_row(key, found) for key, found in values.items()]


def _row(key: tuple, found: dict) -> dict:
    client, name, unit = key
    ours, theirs = median(found.get("heizer", [])), median(found.get("kafka", []))
    ratio = ours / theirs if ours is not None and theirs else None
    return {"client": client, "name": name, "unit": unit, "heizer": ours, "kafka": theirs, "ratio": ratio}


def _with_cpu(broker: server.Server, name: str, work) -> list:
    """The broker's CPU for each GB of record values that `work` moves."""
    before = brokers.cpu(broker)
    work()
    used = brokers.cpu(broker) - before
    return [Figure(f"{name}-cpu", "CPU s/GB", used.both / GB)]


def _read(client, starts: list, records: int) -> None:
    """Takes `records` from the given offsets on."""
    client.assign(starts)
    deadline = time.monotonic() + TIMEOUT_S
    read = 0
    while read < records:
        assert time.monotonic() < deadline, f"{read} of {records} records read after {TIMEOUT_S} s"
        # It waits for as many as it is asked for, so never for more than there are.
        for message in client.consume(min(10_000, records - read), 0.2):
            if message.error():
                raise KafkaException(message.error())
            read += 1
    client.unassign()
