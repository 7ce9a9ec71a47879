"""kill -9 while clients produce with acks=all, on real files: what was acknowledged is there, and nothing twice.

Two writers live through all rounds. The idempotent one must find its records exactly once and in order. The plain
one may find a retried record twice, but every acknowledged record at the offset that its acknowledgement named.
"""

import random
import time

import pytest
from confluent_kafka import TopicPartition

from harness import dumplog
from harness import librdkafka as lib
from harness.load import Writer, value_of

PARTITIONS = 3
RECOVERY_LOG = r"recover|unclean|truncat|cut"


def survive(broker, rounds, seed):
    """Runs the rounds, checks the contents, and returns {topic: number of records}."""
    broker.expect_log(RECOVERY_LOG)
    chance, writers = random.Random(seed), []
    for name in ("idempotent", "plain"):
        lib.create_topic(broker.bootstrap, name, PARTITIONS, segment_bytes=1 << 20)
        writers.append(Writer(broker.bootstrap, name, PARTITIONS, idempotent=name == "idempotent").start())
    try:
        for number in range(rounds):
            for writer in writers:
                writer.await_progress(100)
            time.sleep(chance.uniform(0, 0.5))
            broker.kill()
            if number % 5 == 4:
                _crash_while_starting(broker, chance)
            broker.start()
    finally:
        for writer in writers:
            writer.finish()
    _assert_acknowledged_records_are_where_they_were(broker, writers)
    return {w.topic: lib.total_records(broker.bootstrap, w.topic, PARTITIONS) for w in writers}


def _crash_while_starting(broker, chance):
    broker.launch()
    time.sleep(chance.uniform(0, 0.1))
    broker.kill()


def _assert_acknowledged_records_are_where_they_were(broker, writers):
    idempotent, plain = writers
    for writer in writers:
        found = lib.read_topic(broker.bootstrap, writer.topic, PARTITIONS, check_crcs=True)
        values = {(p, m.offset()): m.value() for p in found for m in found[p]}
        present = set(values.values())
        for partition, sequence, offset in writer.delivered:
            expected = value_of(partition, sequence)
            assert expected in present, f"{writer.topic}: acknowledged record {partition}:{sequence} is lost"
            # A duplicate may be acknowledged without its offset.
            assert offset < 0 or values.get((partition, offset)) == expected, (
                f"{writer.topic}-{partition}@{offset} is not the acknowledged record {sequence}"
            )
        if writer is idempotent:
            for partition in range(PARTITIONS):
                count = len(range(partition, writer.produced, PARTITIONS))
                order = [int(m.value().split(b":", 2)[1]) for m in found[partition]]
                assert order == list(range(count)), f"partition {partition}: not every record once and in order"


@pytest.mark.timeout(180)
def test_three_crashes_lose_and_double_nothing(start_broker):
    survive(start_broker(), 3, seed=3)


@pytest.mark.jvm
@pytest.mark.slow
@pytest.mark.timeout(590)
def test_thirty_crashes_lose_and_double_nothing_and_kafka_dump_log_reads_every_segment(start_broker, measured):
    broker = start_broker()
    counts = survive(broker, 30, seed=30)
    broker.stop()
    for topic, expected in counts.items():
        files = [f for p in range(PARTITIONS) for f in dumplog.partition_files(broker.data, topic, p)]
        segments = sum(f.suffix == ".log" for f in files)
        assert segments > 2 * PARTITIONS, "the rounds must have rolled segments"
        assert dumplog.check(files) == expected
        measured(f"{topic}: {expected} records in {segments} segments")


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
