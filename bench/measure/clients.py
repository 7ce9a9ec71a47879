"""The clients that make the load: each one produces, and reads a topic from its beginning, and says how long it took.

The time is the client's own, from its first record to its last; a JVM's start does not count.
"""

import random
import re
import string
import subprocess
import time

from confluent_kafka import KafkaException, TopicPartition
from harness import java
from harness import librdkafka as lib

RECORD_BYTES = 1024
BATCH_BYTES = 64 << 10
LINGER_MS = 20
TIMEOUT_S = 900
# Records that wait in confluent-kafka: enough to keep it busy.
QUEUED_MAX = 100_000
_PRODUCER = {"acks": "all", "batch.size": BATCH_BYTES, "linger.ms": LINGER_MS}
# A full queue makes librdkafka rest for a second, unless told otherwise.
_CONSUMER = {"fetch.queue.backoff.ms": 5}
# Does not compress, and kcat can take it for a line.
_VALUE = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=RECORD_BYTES)).encode()


class Confluent:
    """confluent-kafka, that is librdkafka, from Python."""

    name = "confluent"

    def produce(self, bootstrap: str, topic: str, partitions: int, records: int) -> float:
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
        began = time.monotonic()
        sent, turn = 0, 0
        while sent < records:
            some = messages[: records - sent]
            sent += client.produce_batch(topic, some, partition=turn % partitions, on_delivery=note)
            turn += 1
            while len(client) > QUEUED_MAX:
                client.poll(0.01)
        left = client.flush(TIMEOUT_S)
        took = time.monotonic() - began
        if failed or left:
            raise SystemExit(f"measure: {left} records undelivered, {len(failed)} failed: {failed[:1]}")
        return took

    def fetch(self, bootstrap: str, topic: str, partitions: int, records: int) -> float:
        client = lib.consumer(bootstrap, "measure", **_CONSUMER)
        began = time.monotonic()
        _read(client, [TopicPartition(topic, p, 0) for p in range(partitions)], records)
        took = time.monotonic() - began
        client.close()
        return took


class Kcat:
    """Debian's kcat: librdkafka without Python in between."""

    name = "kcat"

    def produce(self, bootstrap: str, topic: str, partitions: int, records: int) -> float:
        line = ["kcat", "-P", "-q", "-b", bootstrap, "-t", topic]
        for name, value in _PRODUCER.items():
            line += ["-X", f"{name}={value}"]
        began = time.monotonic()
        process = subprocess.Popen(line, stdin=subprocess.PIPE)
        chunk = (_VALUE + b"\n") * 256
        for first in range(0, records, 256):
            process.stdin.write(chunk[: (records - first) * (RECORD_BYTES + 1)])
        process.stdin.close()
        _expect_success("kcat", process.wait(TIMEOUT_S))
        return time.monotonic() - began

    def fetch(self, bootstrap: str, topic: str, partitions: int, records: int) -> float:
        line = ["kcat", "-C", "-q", "-u", "-b", bootstrap, "-t", topic, "-o", "beginning", "-c", str(records)]
        # Its librdkafka may be too old for fetch.queue.backoff.ms, so the queue must not fill.
        line += ["-X", "queued.min.messages=1000000", "-X", "queued.max.messages.kbytes=1048576", "-f", "."]
        began = time.monotonic()
        done = subprocess.run(line, stdout=subprocess.DEVNULL, timeout=TIMEOUT_S)
        _expect_success("kcat", done.returncode)
        return time.monotonic() - began


class Java:
    """Apache Kafka's own performance tools."""

    name = "java"

    def produce(self, bootstrap: str, topic: str, partitions: int, records: int) -> float:
        props = [f"bootstrap.servers={bootstrap}", *(f"{name}={value}" for name, value in _PRODUCER.items())]
        amount = ("--num-records", str(records), "--record-size", str(RECORD_BYTES), "--throughput", "-1")
        line = ("--topic", topic, *amount, "--producer-props", *props)
        said = java.run(java.PRODUCER_PERFORMANCE, *line, timeout_s=TIMEOUT_S, heap="512m")
        rate = re.search(rf"^{records} records sent, ([\d.]+) records/sec", said, re.MULTILINE)
        if rate is None:
            raise SystemExit(f"measure: not everything was delivered:\n{said}")
        return records / float(rate.group(1))

    def fetch(self, bootstrap: str, topic: str, partitions: int, records: int) -> float:
        line = ("--bootstrap-server", bootstrap, "--topic", topic, "--messages", str(records), "--timeout", "60000")
        said = java.run(java.CONSUMER_PERFORMANCE, *line, timeout_s=TIMEOUT_S, heap="512m")
        names, values = [row.split(", ") for row in said.strip().splitlines()[-2:]]
        return float(values[names.index("fetch.time.ms")]) / 1000


ALL = {kind.name: kind() for kind in (Confluent, Kcat, Java)}


def fetch_tail(bootstrap: str, topic: str, partitions: int, records: int, passes: int) -> float:
    """Reads the newest `records` again and again with confluent-kafka; the time of the reading alone.

    A record to each partition before every pass keeps the tail alive: brokers let go of what nobody appends to.
    """
    writer, reader = lib.producer(bootstrap), lib.consumer(bootstrap, "measure", **_CONSUMER)
    took = 0.0
    for _ in range(passes):
        for partition in range(partitions):
            lib.send(writer, topic, value=_VALUE, partition=partition)
        if writer.flush(TIMEOUT_S):
            raise SystemExit("measure: the tail's records were not delivered")
        ends = lib.end_offsets(reader, topic, partitions)
        each = records // partitions
        began = time.monotonic()
        _read(reader, [TopicPartition(topic, p, end - each) for p, (_, end) in ends.items()], each * partitions)
        took += time.monotonic() - began
    reader.close()
    return took


def _read(client, starts: list, records: int) -> None:
    """Takes `records` from the given offsets on."""
    client.assign(starts)
    deadline = time.monotonic() + TIMEOUT_S
    read = 0
    while read < records:
        if time.monotonic() > deadline:
            raise SystemExit(f"measure: {read} of {records} records read after {TIMEOUT_S} s")
        # It waits for as many as it is asked for, so never for more than there are.
        for message in client.consume(min(10_000, records - read), 0.2):
            if message.error():
                raise KafkaException(message.error())
            read += 1
    client.unassign()


def _expect_success(program: str, code: int) -> None:
    if code != 0:
        raise SystemExit(f"measure: {program} exited {code}")
