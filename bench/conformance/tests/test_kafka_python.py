"""kafka-python, the pure Python client that is strict about types."""

import pytest
from kafka.admin import KafkaAdminClient, NewTopic

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

READ_MS = 10_000


def read(bootstrap, topic, count, **settings):
    options = {"auto_offset_reset": "earliest", "consumer_timeout_ms": READ_MS, **settings}
    reader = KafkaConsumer(topic, bootstrap_servers=bootstrap, **options)
    try:
        return [message for _, message in zip(range(count), reader)]
    finally:
        reader.close()


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_with_keys_headers_and_times_round_trip(bootstrap, fresh, codec):
    topic = fresh("kp")
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, linger_ms=20)
    headers = [("h", b"1"), ("h", b"2")]
    sent = [(b"k%d" % n, b"value %d " % n * 10, headers, 1_700_000_000_000 + n) for n in range(500)]
    for key, value, headers, time_ms in sent:
        producer.send(topic, key=key, value=value, headers=headers, timestamp_ms=time_ms)
    producer.flush(30)
    producer.close(10)
    assert [(m.key, m.value, list(m.headers), m.timestamp) for m in read(bootstrap, topic, 500)] == sent


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_every_acks_level_stores_the_records(bootstrap, fresh, acks):
    topic = fresh("kp")
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks=acks, enable_idempotence=False)
    for n in range(200):
        producer.send(topic, value=str(n).encode())
    producer.flush(30)
    producer.close(10)
    assert [m.value for m in read(bootstrap, topic, 200)] == [str(n).encode() for n in range(200)]


def test_a_group_commits_and_goes_on(bootstrap, fresh):
    topic, group = fresh("kp"), fresh("g")
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    first = [producer.send(topic, value=b"%d" % n).get(10).offset for n in range(10)]
    assert first == list(range(10))
    assert [m.offset for m in read(bootstrap, topic, 10, group_id=group)] == first
    producer.send(topic, value=b"more").get(10)
    producer.close(10)
    assert [m.value for m in read(bootstrap, topic, 1, group_id=group)] == [b"more"]


def test_positions_ends_and_times_are_answered(bootstrap, fresh):
    topic = fresh("kp")
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for n in range(20):
        producer.send(topic, value=b"x", timestamp_ms=1_700_000_000_000 + n).get(10)
    producer.close(10)
    part = TopicPartition(topic, 0)
    reader = KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=READ_MS)
    reader.assign([part])
    assert reader.beginning_offsets([part]) == {part: 0}
    assert reader.end_offsets([part]) == {part: 20}
    assert reader.offsets_for_times({part: 1_700_000_000_007})[part].offset == 7
    reader.seek(part, 15)
    assert [m.offset for _, m in zip(range(5), reader)] == list(range(15, 20))
    reader.close()


def test_the_admin_client_creates_describes_and_deletes(bootstrap, fresh):
    topic = fresh("kp")
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)])
    assert topic in admin.list_topics()
    (seen,) = admin.describe_topics([topic])
    assert len(seen["partitions"]) == 3
    admin.delete_topics([topic])
    admin.close()
