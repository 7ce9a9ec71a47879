"""A compacted topic, written to all the while, holds the last value of each key: contract L9.

The same seeded stream of records goes to Heizer and to Apache Kafka, in the same batches. When both have compacted
everything below their active segments, both must hold what the model says, at the same offsets.
"""

import random
import time
from typing import NamedTuple, Optional

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from harness import dumplog, wait
from harness import librdkafka as lib
from harness.load import CODECS
from harness.server import ApacheKafka, Heizer

pytestmark = [pytest.mark.jvm, pytest.mark.slow, pytest.mark.heizer]

KEYS, RECORDS, RECORDS_A_BATCH = 200, 12_000, 50
# Of the records, so many in a hundred delete their key.
TOMBSTONES = 15
EAGER = {"log.cleaner.backoff.ms": 100}
COMPACTED = {
    "cleanup_policy": "compact",
    "min_cleanable_dirty_ratio": 0.01,
    "min_compaction_lag_ms": 0,
    "segment_bytes": 1 << 20,
    "segment_ms": 500,
}
DELETE_AT_ONCE, DELETE_NEVER_MS = 1, 86_400_000
COMPACTED_WITHIN_S = 60
# What comes after the stream, under a key of its own, until the stream lies in closed segments: contract L6, L9.
CLOSING_KEY = b"the stream is over"


class Record(NamedTuple):
    offset: int
    key: bytes
    value: Optional[bytes]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Heizer and Apache Kafka with the same eager cleaners."""
    servers = []
    try:
        for kind in (Heizer, ApacheKafka):
            servers.append(kind(tmp_path_factory.mktemp(kind.__name__), EAGER).start())
        yield servers
        for server in servers:
            server.close()
    finally:
        for server in servers:
            server.abandon()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("codec", CODECS)
def test_the_last_value_of_each_key_remains_and_no_other(pair, fresh, codec):  # contract L9
    """Tombstones are kept for a day: each deleted key's is there."""
    check(pair, fresh(codec), codec, DELETE_NEVER_MS)


@pytest.mark.timeout(300)
def test_tombstones_go_when_their_horizon_has_passed(pair, fresh):  # contract L9, KIP-534
    check(pair, fresh("horizon"), "lz4", DELETE_AT_ONCE)


@pytest.mark.timeout(300)
def test_a_compacted_topic_is_the_same_after_a_crash(pair, fresh):  # contract L8, L9
    """Heizer alone: killed while it compacts, and again when it has. kafka-dump-log reads what is left."""
    heizer, topic = pair[0], fresh("crash")
    heizer.expect_log(r"recover|unclean|truncat|cut")
    stream = make_stream("crash")
    create(heizer, topic, DELETE_NEVER_MS)
    half = len(stream) // 2
    produce(heizer, topic, "zstd", stream[:half], first=0)
    heizer.kill()
    heizer.start()
    produce(heizer, topic, "zstd", stream[half:], first=half)
    expected = what_remains(stream, keep_tombstones=True)
    close_segments(heizer, topic)
    found = await_compacted(heizer, topic, expected)
    heizer.kill()
    heizer.start()
    assert of_stream(read(heizer, topic)) == found == expected
    heizer.stop()
    assert dumplog.check(dumplog.partition_files(heizer.data, topic, 0), gaps=True) >= len(expected)
    heizer.start()


def check(pair, topic, codec, delete_retention_ms):
    stream = make_stream(codec)
    for server in pair:
        create(server, topic, delete_retention_ms)
        produce(server, topic, codec, stream, first=0)
    keep = delete_retention_ms == DELETE_NEVER_MS
    expected = what_remains(stream, keep_tombstones=keep)
    for server in pair:
        close_segments(server, topic)
    ours, theirs = (await_compacted(server, topic, expected) for server in pair)
    assert ours == theirs == expected
    # What is read from the middle is what is read from the beginning, gaps or not.
    for start in random.Random(topic).sample(range(len(stream)), 20):
        assert of_stream(read(pair[0], topic, start, most=5)) == [r for r in ours if r.offset >= start][:5]


def make_stream(seed):
    """(key, value) in order; without a value it is a tombstone. Some keys are written often, some once."""
    chance, stream = random.Random(seed), []
    for number in range(RECORDS):
        key = b"key-%d" % int(KEYS * chance.random() ** 3)
        words = b"%d " % number * chance.randrange(1, 60)
        stream.append((key, None if chance.randrange(100) < TOMBSTONES else words))
    return stream


def what_remains(stream, keep_tombstones):
    """The model: the last record of each key, in the order of offsets."""
    last = {key: Record(offset, key, value) for offset, (key, value) in enumerate(stream)}
    kept = (record for record in last.values() if keep_tombstones or record.value is not None)
    return sorted(kept)


def create(server, topic, delete_retention_ms):
    lib.create_topic(server.bootstrap, topic, **COMPACTED, delete_retention_ms=delete_retention_ms)


def produce(server, topic, codec, records, first):
    """In batches of a few, slowly enough that segments close by their age on the way."""
    settings = {"compression_type": codec, "batch_num_messages": RECORDS_A_BATCH, "enable_idempotence": True}
    client, reports = lib.producer(server.bootstrap, **settings, linger_ms=1000), lib.Deliveries()
    for number, (key, value) in enumerate(records, 1):
        lib.send(client, topic, key=key, value=value, partition=0, on_delivery=reports)
        if number % 2000 == 0:
            client.flush(lib.TIMEOUT_S)
            time.sleep(0.3)
    assert client.flush(lib.TIMEOUT_S) == 0, "not everything was delivered in time"
    reports.assert_all(len(records))
    assert [m.offset() for m in reports.messages] == list(range(first, first + len(records)))


def close_segments(server, topic):
    """An append after segment.ms closes the segment before it; once more, so that the stream's is closed on each side."""
    for _ in range(2):
        time.sleep(COMPACTED["segment_ms"] / 1000 + 0.2)
        lib.produce_all(server.bootstrap, topic, [{"key": CLOSING_KEY, "value": b"closed", "partition": 0}])


def await_compacted(server, topic, expected):
    """What is there of the stream once no more than the model allows remains; the broker gets there alone."""
    deadline = time.monotonic() + COMPACTED_WITHIN_S
    while True:
        found = of_stream(read(server, topic))
        lost = {*expected} - {*found}
        assert not lost, f"{type(server).__name__} lost {len(lost)} records, the first: {min(lost)}"
        if len(found) <= len(expected):
            return found
        assert time.monotonic() < deadline, (
            f"{type(server).__name__} still holds {len(found)} records of {topic} where {len(expected)} should remain"
        )
        # Horizons are looked at when there is something to clean: more of the log than min.cleanable.dirty.ratio.
        lib.produce_all(server.bootstrap, topic, [{"key": CLOSING_KEY, "value": b"again" * 1000, "partition": 0}])
        time.sleep(0.5)


def of_stream(records):
    return [record for record in records if record.key != CLOSING_KEY]


def read(server, topic, start=0, most=1 << 30):
    """All records from an offset on, to where the broker says the partition ends: offsets do not tell their number."""
    settings = {"enable_partition_eof": True, "check_crcs": True}
    client, found = lib.consumer(server.bootstrap, "reader-without-commits", **settings), []
    try:
        client.assign([TopicPartition(topic, 0, start)])
        wait.until(f"the end of {topic}", lambda: _take(client, found) or len(found) >= most, lib.TIMEOUT_S, 0)
        return found[:most]
    finally:
        client.close()


def _take(client: Consumer, found: list) -> bool:
    """True at the end of the partition."""
    for message in client.consume(10_000, 0.05):
        if message.error() is None:
            found.append(Record(message.offset(), message.key(), message.value()))
        elif message.error().code() == KafkaError._PARTITION_EOF:
            return True
        else:
            raise KafkaException(message.error())
    return False
