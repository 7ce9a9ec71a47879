"""confluent-kafka (today's librdkafka) as a producer."""

import pytest
from confluent_kafka import KafkaError

from harness import librdkafka as lib

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_every_acks_level_stores_all_records_in_order(bootstrap, fresh, acks):
    topic = lib.create_topic(bootstrap, fresh("acks"))
    values = [f"{acks}-{n}".encode() for n in range(5000)]
    lib.produce_all(bootstrap, topic, ({"value": v} for v in values), acks=acks, enable_idempotence=False)
    assert [m.value() for m in lib.read_topic(bootstrap, topic)[0]] == values


def test_an_idempotent_producer_stores_all_records_in_order(bootstrap, fresh):
    topic = lib.create_topic(bootstrap, fresh("idempotent"), 3)
    values = [str(n).encode() for n in range(20_000)]
    records = ({"value": v, "partition": n % 3} for n, v in enumerate(values))
    lib.produce_all(bootstrap, topic, records, enable_idempotence=True)
    found = lib.read_topic(bootstrap, topic, 3)
    for partition in range(3):
        assert [m.value() for m in found[partition]] == values[partition::3]


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_round_trips(bootstrap, fresh, codec, idempotent):
    topic = lib.create_topic(bootstrap, fresh("codec"))
    values = [b"compressible " * 20 + str(n).encode() for n in range(3000)]
    settings = {"compression_type": codec, "enable_idempotence": idempotent, "linger_ms": 20}
    lib.produce_all(bootstrap, topic, ({"value": v} for v in values), **settings)
    assert [m.value() for m in lib.read_topic(bootstrap, topic)[0]] == values


def test_delivery_reports_name_the_offsets_that_are_read_later(bootstrap, fresh):
    topic = lib.create_topic(bootstrap, fresh("offsets"))
    reports = lib.produce_all(bootstrap, topic, ({"value": str(n).encode()} for n in range(500)))
    sent = {m.offset(): m.value() for m in reports}
    assert sent == {m.offset(): m.value() for m in lib.read_topic(bootstrap, topic)[0]}
    assert sorted(sent) == list(range(500))


def test_timestamps_are_kept(bootstrap, fresh):
    topic = lib.create_topic(bootstrap, fresh("times"))
    times = [1_700_000_000_000 + 1000 * n for n in range(50)]
    lib.produce_all(bootstrap, topic, ({"value": b"x", "timestamp": t} for t in times))
    assert [m.timestamp() for m in lib.read_topic(bootstrap, topic)[0]] == [(1, t) for t in times]


def test_log_append_time_replaces_the_producers_timestamp(bootstrap, fresh):  # contract L1
    topic = lib.create_topic(bootstrap, fresh("times"), message_timestamp_type="LogAppendTime")
    lib.produce_all(bootstrap, topic, [{"value": b"x", "timestamp": 1_700_000_000_000}])
    (message,) = lib.read_topic(bootstrap, topic, check_crcs=True)[0]
    kind, time_ms = message.timestamp()
    assert kind == 2 and time_ms > 1_750_000_000_000


def test_a_record_over_the_topics_limit_is_refused_and_the_next_one_is_not(bootstrap, fresh):  # contract L3
    topic = lib.create_topic(bootstrap, fresh("limit"), max_message_bytes=10_000)
    client, reports = lib.producer(bootstrap, acks="all", enable_idempotence=False), lib.Deliveries()
    client.produce(topic, value=bytes(20_000), on_delivery=reports)
    assert client.flush(lib.TIMEOUT_S) == 0
    assert [error.code() for error in reports.errors] == [KafkaError.MSG_SIZE_TOO_LARGE]
    client.produce(topic, value=b"small", on_delivery=reports)
    assert client.flush(lib.TIMEOUT_S) == 0
    assert [m.value() for m in lib.read_topic(bootstrap, topic)[0]] == [b"small"]


def test_producing_to_a_new_topic_creates_it(bootstrap, fresh):  # contract P7
    topic = fresh("auto")
    lib.produce_all(bootstrap, topic, [{"value": b"first"}])
    assert [m.value() for m in lib.read_topic(bootstrap, topic)[0]] == [b"first"]
