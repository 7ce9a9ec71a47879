"""200 topics of 5 partitions each: created, restarted, killed, listed; start-up time and memory are reported."""

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from harness import librdkafka as lib
from harness import wait

TOPICS, PARTITIONS = 200, 5
NAMES = [f"many-{n:03}" for n in range(TOPICS)]


def await_complete(bootstrap):
    """Waits until every topic is listed with a leader for each partition."""
    client = lib.admin(bootstrap)

    def complete():
        seen = client.list_topics(timeout=10).topics
        leaders = [sum(p.leader >= 0 for p in seen[name].partitions.values()) for name in NAMES if name in seen]
        return leaders == [PARTITIONS] * TOPICS

    wait.until("all partitions have leaders", complete, 60)


def _one_record_each(bootstrap):
    sender, reports = lib.producer(bootstrap), lib.Deliveries()
    for number, name in enumerate(NAMES):
        sender.produce(name, name.encode(), partition=number % PARTITIONS, on_delivery=reports)
    assert sender.flush(60) == 0
    reports.assert_all(TOPICS)


def contents(bootstrap):
    reader = lib.consumer(bootstrap, "reader-without-commits")
    reader.assign([TopicPartition(name, n % PARTITIONS, 0) for n, name in enumerate(NAMES)])
    found = {m.topic(): m.value() for m in lib.drain(reader, TOPICS)}
    reader.close()
    return found


@pytest.mark.timeout(300)
def test_a_thousand_partitions_are_created_and_survive_stop_and_kill(start_broker, measured):
    broker = start_broker()
    broker.expect_log(r"recover|unclean|truncat|cut")
    measured(f"empty broker: ready after {broker.start_ms:.0f} ms, resident {broker.resident_mib():.0f} MiB")
    client = lib.admin(broker.bootstrap)
    new = [NewTopic(name, num_partitions=PARTITIONS, replication_factor=1) for name in NAMES]
    for done in client.create_topics(new, request_timeout=60).values():
        done.result(60)
    await_complete(broker.bootstrap)
    _one_record_each(broker.bootstrap)
    expected = {name: name.encode() for name in NAMES}
    measured(f"1,000 partitions: resident {broker.resident_mib():.0f} MiB after creation")
    for how in (broker.stop, broker.kill):
        how()
        broker.start()
        measured(f"after {how.__name__}: ready {broker.start_ms:.0f} ms, resident {broker.resident_mib():.0f} MiB")
        await_complete(broker.bootstrap)
        assert contents(broker.bootstrap) == expected
