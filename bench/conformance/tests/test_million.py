"""1,000,000 records of 1 KiB: none lost, none doubled, in order, checked by content."""

import random
import re
import time

import pytest

from harness import java
from harness import librdkafka as lib

RECORDS, SIZE, PARTITIONS = 1_000_000, 1024, 3
_NOISE = random.Random(1024).randbytes(1 << 20)


def record_value(sequence: int) -> bytes:
    """The sequence number and a piece of noise that depends on it."""
    at = (sequence * 7919) % (len(_NOISE) - SIZE)
    return sequence.to_bytes(8, "big") + _NOISE[at : at + SIZE - 8]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_records_arrive_once_in_order_and_unchanged(bootstrap, fresh, measured):
    topic = lib.create_topic(bootstrap, fresh("million"), PARTITIONS)
    _produce(bootstrap, topic, measured)
    assert lib.total_records(bootstrap, topic, PARTITIONS) == RECORDS
    _consume_and_check(bootstrap, topic, fresh("g"), measured)


def _produce(bootstrap, topic, measured):
    client = lib.producer(bootstrap, acks="all", enable_idempotence=True, linger_ms=5, batch_size=256 << 10)
    failed, began = [], time.monotonic()
    note = lambda error, _: failed.append(error) if error else None  # noqa: E731
    for sequence in range(RECORDS):
        lib.send(client, topic, value=record_value(sequence), partition=sequence % PARTITIONS, on_delivery=note)
        if sequence % 1000 == 0:
            client.poll(0)
    assert client.flush(120) == 0 and not failed
    measured(f"produced {RECORDS * SIZE / 2**20 / (time.monotonic() - began):.0f} MiB/s from Python")


def _consume_and_check(bootstrap, topic, group, measured):
    client = lib.consumer(bootstrap, group)
    client.subscribe([topic])
    expected, began = list(range(PARTITIONS)), time.monotonic()

    def check(message):
        partition = message.partition()
        sequence = expected[partition]
        assert message.value() == record_value(sequence), f"{partition}@{message.offset()}: not record {sequence}"
        expected[partition] = sequence + PARTITIONS

    lib.take_until(client, lambda: min(expected) >= RECORDS, check, 150)
    measured(f"consumed {RECORDS * SIZE / 2**20 / (time.monotonic() - began):.0f} MiB/s into Python")
    assert client.consume(1, 1.0) == [], "nothing comes after the last one"
    client.close()


@pytest.mark.jvm
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kafkas_perf_tests_produce_and_consume_a_million(bootstrap, fresh, measured):
    topic = lib.create_topic(bootstrap, fresh("perf"), PARTITIONS)
    amount = ("--num-records", str(RECORDS), "--record-size", str(SIZE), "--throughput", "-1")
    props = ("--producer-props", f"bootstrap.servers={bootstrap}", "acks=all", "batch.size=65536", "linger.ms=5")
    produced = java.run(java.PRODUCER_PERFORMANCE, "--topic", topic, *amount, *props, timeout_s=150, heap="512m")
    assert re.search(rf"^{RECORDS} records sent", produced, re.MULTILINE), produced
    measured(produced.strip().splitlines()[-1])
    assert lib.total_records(bootstrap, topic, PARTITIONS) == RECORDS
    reader = ("--bootstrap-server", bootstrap, "--topic", topic, "--messages", str(RECORDS), "--timeout", "60000")
    consumed = java.run(java.CONSUMER_PERFORMANCE, *reader, timeout_s=150, heap="512m")
    assert re.search(rf", {RECORDS}, ", consumed), consumed
    measured("consumer-perf-test, MB.sec " + consumed.strip().splitlines()[-1].split(", ")[3])
