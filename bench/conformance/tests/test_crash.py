"""kill -9 while clients produce with acks=all, on real files: what was acknowledged is there, and nothing twice.

Writers live through all rounds. The idempotent ones, one for each codec, must find their records exactly once and in
order. The plain one may find a retried record twice, but every acknowledged record at the offset that its
acknowledgement named. Of the compacted topic, each key's last record must be there, and nothing that was not produced.
"""

import os
import random
import time

import pytest
from confluent_kafka import TopicPartition

from harness import dumplog
from harness import librdkafka as lib
from harness.load import CODECS, Writer, keyed

PARTITIONS = 2
RECOVERY_LOG = r"recover|unclean|truncat|cut"
MANY_ROUNDS = int(os.environ.get("HEIZER_CRASH_ROUNDS", "200"))
# Records each writer must have acknowledged between two crashes.
PROGRESS = 20
# A full offset index rolls a segment long before 1 MiB is there, the least that segment.bytes takes: contract L6.
ROLLING = {"segment_bytes": 1 << 20, "segment_index_bytes": 256}
COMPACTED = {"cleanup_policy": "compact", "min_cleanable_dirty_ratio": 0.01}


def survive(broker, rounds, seed):
    """Runs the rounds, checks the contents, and returns {topic: number of records}."""
    broker.expect_log(RECOVERY_LOG)
    chance, writers = random.Random(seed), start_writers(broker)
    try:
        for number in range(rounds):
            goals = [len(writer.delivered) + PROGRESS for writer in writers]
            for writer, goal in zip(writers, goals):
                writer.await_delivered(goal)
            time.sleep(chance.uniform(0, 0.1))
            broker.kill()
            if number % 5 == 4:
                _crash_while_starting(broker, chance)
            broker.start()
    finally:
        for writer in writers:
            writer.finish()
    return check_contents(broker, writers)


def start_writers(broker):
    """One for each codec, a plain one, and one to a compacted topic."""
    plans = [(f"idempotent-{codec}", {"idempotent": True, "codec": codec}, {}) for codec in CODECS]
    plans.append(("plain", {"idempotent": False}, {}))
    plans.append(("compacted", {"idempotent": True, "codec": "lz4", "record": keyed}, COMPACTED))
    writers = []
    for topic, how, configs in plans:
        lib.create_topic(broker.bootstrap, topic, PARTITIONS, **ROLLING, **configs)
        writers.append(Writer(broker.bootstrap, topic, PARTITIONS, **how))
    return [writer.start() for writer in writers]


def check_contents(broker, writers):
    counts = {}
    for writer in writers:
        found = lib.read_topic(broker.bootstrap, writer.topic, PARTITIONS, check_crcs=True)
        writer.check(found)
        counts[writer.topic] = sum(map(len, found.values()))
        for partition in range(PARTITIONS):
            codecs = {_codec_of_first_batch(path) for path in _segments(broker, writer.topic, partition)}
            assert writer.codec in codecs, f"{writer.topic}: written with {codecs}"
    return counts


def _crash_while_starting(broker, chance):
    broker.launch()
    time.sleep(chance.uniform(0, 0.1))
    broker.kill()


def _files(broker, topics):
    return [f for t in topics for p in range(PARTITIONS) for f in dumplog.partition_files(broker.data, t, p)]


def _segments(broker, topic, partition):
    return [f for f in dumplog.partition_files(broker.data, topic, partition) if f.suffix == ".log"]


def _codec_of_first_batch(segment):
    """The low bits of the batch's attributes, which are the last of its first 23 bytes."""
    with open(segment, "rb") as file:
        head = file.read(23)
    return CODECS[head[22] & 7] if len(head) == 23 else None


def _report(measured, broker, counts, rounds, took_s):
    segments = {topic: sum(len(_segments(broker, topic, p)) for p in range(PARTITIONS)) for topic in counts}
    assert min(segments.values()) > PARTITIONS, f"the rounds must have rolled segments: {segments}"
    measured(f"{rounds} rounds of {took_s / rounds:.2f} s, {sum(counts.values())} records, {segments} segments")


@pytest.mark.timeout(180)
def test_five_crashes_lose_and_double_nothing(start_broker):
    survive(start_broker(), 5, seed=5)


@pytest.mark.slow
@pytest.mark.timeout(60 + 2 * MANY_ROUNDS)
def test_two_hundred_crashes_lose_and_double_nothing(start_broker, measured):
    """HEIZER_CRASH_ROUNDS sets another number."""
    broker, began = start_broker(), time.monotonic()
    counts = survive(broker, MANY_ROUNDS, seed=200)
    _report(measured, broker, counts, MANY_ROUNDS, time.monotonic() - began)


@pytest.mark.jvm
@pytest.mark.slow
@pytest.mark.timeout(590)
def test_thirty_crashes_and_kafka_dump_log_reads_every_segment(start_broker, measured):
    broker, began = start_broker(), time.monotonic()
    counts = survive(broker, 30, seed=30)
    _report(measured, broker, counts, 30, time.monotonic() - began)
    broker.stop()
    compacted = _files(broker, ["compacted"])
    # Compaction may have gone on since they were counted.
    assert 0 < dumplog.check(compacted, gaps=True) <= counts.pop("compacted")
    assert dumplog.check(_files(broker, counts)) == sum(counts.values())


@pytest.mark.parametrize("topic", ["idempotent-zstd", "plain", "compacted"])
def test_the_check_notices_when_a_record_is_lost(start_broker, topic):
    """The judge judged: the last batch of a partition, cut off by hand, looks like one that never reached the disk."""
    broker = start_broker()
    broker.expect_log(RECOVERY_LOG)
    writers = start_writers(broker)
    for writer in writers:
        writer.await_progress(PROGRESS)
        writer.finish()
    broker.kill()
    _cut_last_batch_off(_segments(broker, topic, 0)[-1])
    broker.start()
    with pytest.raises(AssertionError, match="lost"):
        check_contents(broker, [writer for writer in writers if writer.topic == topic])


def _cut_last_batch_off(segment):
    raw, at, last = segment.read_bytes(), 0, 0
    while at + 12 <= len(raw) and (size := int.from_bytes(raw[at + 8 : at + 12], "big")):
        at, last = at + 12 + size, at
    os.truncate(segment, last)


def test_committed_offsets_survive_a_crash(start_broker):  # contract G3
    broker = start_broker({"group.initial.rebalance.delay.ms": 0})
    broker.expect_log(RECOVERY_LOG)
    topic = lib.create_topic(broker.bootstrap, "survivor")
    lib.produce_all(broker.bootstrap, topic, ({"value": b"%d" % n} for n in range(100)))
    client = lib.consumer(broker.bootstrap, "g")
    client.subscribe([topic])
    lib.drain(client, 60)
    client.commit(offsets=[TopicPartition(topic, 0, 60)], asynchronous=False)
    broker.kill()
    broker.start()
    client.close()
    reader = lib.consumer(broker.bootstrap, "g")
    assert lib.committed(reader, topic, 0) == 60
    reader.close()


def test_topics_and_their_settings_survive_a_crash(start_broker):
    broker = start_broker()
    broker.expect_log(RECOVERY_LOG)
    names = [lib.create_topic(broker.bootstrap, f"t{n}", n + 1, retention_ms=1000 * (n + 1)) for n in range(5)]
    gone, client = lib.create_topic(broker.bootstrap, "gone"), lib.admin(broker.bootstrap)
    client.delete_topics([gone])[gone].result(lib.TIMEOUT_S)
    broker.kill()
    broker.start()
    client = lib.admin(broker.bootstrap)
    seen = client.list_topics(timeout=10).topics
    assert gone not in seen
    assert {name: len(seen[name].partitions) for name in names} == {f"t{n}": n + 1 for n in range(5)}
    resource = lib.topic_resource("t3")
    found = client.describe_configs([resource])[resource].result(lib.TIMEOUT_S)
    assert found["retention.ms"].value == "4000"


def test_a_clean_restart_keeps_everything_and_says_nothing(start_broker):
    broker = start_broker()
    topic = lib.create_topic(broker.bootstrap, "kept", 2)
    values = [b"%d" % n for n in range(1000)]
    lib.produce_all(broker.bootstrap, topic, ({"value": v, "partition": 0} for v in values))
    broker.restart()
    broker.check_log()
    lib.produce_all(broker.bootstrap, topic, [{"value": b"after", "partition": 0}])
    found = lib.read_topic(broker.bootstrap, topic, 2)
    assert [m.value() for m in found[0]] == [*values, b"after"] and found[1] == []
