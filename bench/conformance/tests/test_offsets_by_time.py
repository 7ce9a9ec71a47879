"""Offsets by timestamp, as clients ask for them, against a linear scan of what was produced: contract L7.

The topics differ in the order of their timestamps and in their codec; each has many segments of many batches.
"""

import random
import time

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from harness import dumplog, java, wait
from harness import librdkafka as lib
from harness.load import CODECS

RECORDS, RECORDS_A_BATCH = 1200, 20
PROBES = 60
NONE = -1
DAY_MS = 86_400_000
YEAR_2100_MS = 4_102_444_800_000
# An index entry for each batch, and indexes that are soon full: contract L6.
MANY_SEGMENTS = {"segment_index_bytes": 96, "index_interval_bytes": 0}
ANY_TIME = {"retention_ms": -1, "segment_ms": 100 * 365 * DAY_MS, "message_timestamp_after_max_ms": 1 << 62}
RECOVERY_LOG = r"recover|unclean|truncat|cut"


def ascending(_, start_ms):
    return [start_ms + 10 * n for n in range(RECORDS)]


def descending(_, start_ms):
    return [start_ms - 10 * n for n in range(RECORDS)]


def random_order(chance, start_ms):
    return [start_ms + chance.randrange(DAY_MS) for _ in range(RECORDS)]


def equal(_, start_ms):
    return [start_ms] * RECORDS


def few_values(chance, start_ms):
    return [start_ms + 1000 * chance.randrange(4) for _ in range(RECORDS)]


def future(chance, start_ms):
    """Now, but for some records of the year 2100."""
    return [YEAR_2100_MS + n if chance.randrange(100) == 0 else start_ms + n for n in range(RECORDS)]


ORDERS = (ascending, descending, random_order, equal, few_values, future)


@pytest.mark.parametrize("stage", ["while running", "after a restart", "after kill -9"])
def test_every_lookup_agrees_with_a_linear_scan(start_broker, stage):  # contract L7
    broker = start_broker()
    broker.expect_log(RECOVERY_LOG)
    stamps = produce_all_orders(broker)
    if stage == "after a restart":
        broker.restart()
    elif stage == "after kill -9":
        broker.kill()
        broker.start()
    check_lookups(broker.bootstrap, stamps)
    check_greatest(broker.bootstrap, stamps)


def test_what_comes_after_a_crash_is_found_as_well(start_broker):  # contract L7, L8
    broker = start_broker()
    broker.expect_log(RECOVERY_LOG)
    stamps = produce_all_orders(broker)
    broker.kill()
    broker.start()
    again = produce_all_orders(broker, create=False)
    both = {topic: stamps[topic] + again[topic] for topic in stamps}
    check_lookups(broker.bootstrap, both)
    check_greatest(broker.bootstrap, both)


@pytest.mark.jvm
@pytest.mark.slow
def test_kafka_get_offsets_agrees_with_a_linear_scan(start_broker):  # contract L7
    broker = start_broker()
    stamps = produce_all_orders(broker)
    chance = random.Random(4)

    def ask(when):
        line = ("--bootstrap-server", broker.bootstrap, "--topic", ".*-(none|zstd)", "--time", str(when))
        rows = [row.rsplit(":", 2) for row in java.run(java.GET_OFFSETS, *line).split()]
        return {topic: int(offset) if offset else NONE for topic, _, offset in rows}

    asked = [topic for topic in stamps if topic.endswith(("-none", "-zstd"))]
    assert ask("earliest") == dict.fromkeys(asked, 0)
    assert ask("latest") == dict.fromkeys(asked, RECORDS)
    assert ask("max-timestamp") == {topic: stamps[topic].index(max(stamps[topic])) for topic in asked}
    for when in (0, *chance.sample(stamps["random_order-zstd"], 3), YEAR_2100_MS, YEAR_2100_MS + DAY_MS):
        found = ask(when)
        # The tool leaves out a topic that has no such record, or leaves its offset empty.
        assert {topic: found.get(topic, NONE) for topic in asked} == {t: first_from(stamps[t], when) for t in asked}


@pytest.mark.heizer
def test_a_future_timestamp_does_not_freeze_retention(start_broker):  # contract L6
    broker = start_broker({"log.retention.check.interval.ms": 100})
    short = {**ANY_TIME, "retention_ms": 500}
    topic = lib.create_topic(broker.bootstrap, "dated-2100", **MANY_SEGMENTS, **short)
    client = lib.consumer(broker.bootstrap, "g")
    produce(broker.bootstrap, {topic: [YEAR_2100_MS] * RECORDS}, "none")
    produce(broker.bootstrap, {topic: [int(time.time() * 1000)] * RECORDS}, "none")
    wait.until("the records of 2100 are gone", lambda: lib.end_offsets(client, topic, 1)[0][0] >= RECORDS, 20)
    found = client.offsets_for_times([TopicPartition(topic, 0, YEAR_2100_MS)], timeout=10)
    assert found[0].offset == NONE, "what retention has removed is not found"
    client.close()


def produce_all_orders(broker, create=True):
    """A topic for each order and codec; returns {topic: its timestamps by offset}."""
    start_ms, stamps = int(time.time() * 1000) - 2 * DAY_MS, {}
    for codec in CODECS:
        topics = {f"{order.__name__}-{codec}": order for order in ORDERS}
        stamps.update({topic: order(random.Random(topic), start_ms) for topic, order in topics.items()})
        for topic in topics if create else ():
            lib.create_topic(broker.bootstrap, topic, **MANY_SEGMENTS, **ANY_TIME)
        produce(broker.bootstrap, {topic: stamps[topic] for topic in topics}, codec)
    for topic in stamps:
        logs = [f for f in dumplog.partition_files(broker.data, topic, 0) if f.suffix == ".log"]
        assert len(logs) > 3, f"{topic} must have several segments"
    return stamps


def produce(bootstrap, stamps, codec):
    """Records with the given timestamps to each topic, in batches of a few."""
    settings = {"compression_type": codec, "batch_num_messages": RECORDS_A_BATCH, "linger_ms": 20}
    client, reports = lib.producer(bootstrap, enable_idempotence=True, **settings), lib.Deliveries()
    for topic in stamps:
        for number, stamp in enumerate(stamps[topic]):
            value = b"%d: the same words again and again" % number
            lib.send(client, topic, value=value, timestamp=stamp, partition=0, on_delivery=reports)
        client.poll(0)
    assert client.flush(lib.TIMEOUT_S) == 0, "not everything was delivered in time"
    reports.assert_all(sum(map(len, stamps.values())))
    for topic in stamps:
        offsets = [m.offset() for m in reports.messages if m.topic() == topic]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))), f"{topic}: out of order"


def first_from(stamps, when):
    """The linear scan: the first offset whose timestamp is not below `when`."""
    return next((offset for offset, stamp in enumerate(stamps) if stamp >= when), NONE)


def check_lookups(bootstrap, stamps):
    chance, client = random.Random(5), lib.consumer(bootstrap, "g")
    probes = {topic: _probes(chance, stamps[topic]) for topic in stamps}
    for number in range(PROBES):
        asked = [TopicPartition(topic, 0, probes[topic][number]) for topic in stamps]
        for found in client.offsets_for_times(asked, timeout=30):
            when = probes[found.topic][number]
            expected = first_from(stamps[found.topic], when)
            assert found.error is None and found.offset == expected, f"{found.topic} at {when}: {found}, not {expected}"
    client.close()


def _probes(chance, stamps):
    edges = [0, min(stamps) - 1, min(stamps), max(stamps), max(stamps) + 1, YEAR_2100_MS - 1, 1 << 62]
    near = [stamp + chance.randrange(-1, 2) for stamp in chance.choices(stamps, k=PROBES - len(edges))]
    return edges + near


def check_greatest(bootstrap, stamps):
    """ListOffsets at -3: the first of the records with the greatest timestamp (KIP-734)."""
    asked = {TopicPartition(topic, 0): OffsetSpec.max_timestamp() for topic in stamps}
    client = lib.admin(bootstrap)
    for place, answer in client.list_offsets(asked, request_timeout=30).items():
        found, there = answer.result(lib.TIMEOUT_S), stamps[place.topic]
        expected = (there.index(max(there)), max(there))
        assert (found.offset, found.timestamp) == expected, f"{place.topic}: {found}, not {expected}"
