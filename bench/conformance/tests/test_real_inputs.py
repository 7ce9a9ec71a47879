"""What people really send: sensor readings, a text file, very large, absent and empty fields."""

import json
import random
import subprocess
import threading
from collections import defaultdict

import pytest
from confluent_kafka import KafkaError

from harness import librdkafka as lib
from harness import wait
from kafka import KafkaProducer

SENSORS, READINGS, PERIOD_S = 200, 1000, 20
START_S = 1_700_000_000


def readings():
    """Every sensor reports every 20 s: (sensor, number of the reading, JSON)."""
    source = random.Random(20)
    for number in range(READINGS):
        for sensor in range(SENSORS):
            name = f"sensor-{sensor:03}"
            body = {"id": name, "time": START_S + number * PERIOD_S, "celsius": round(source.gauss(70, 5), 2)}
            yield name, number, json.dumps({**body, "number": number}).encode()


def produce_with_confluent(bootstrap, topic):
    records = ({"key": name, "value": value} for name, _, value in readings())
    lib.produce_all(bootstrap, topic, records, linger_ms=5)


def produce_with_kafka_python(bootstrap, topic):
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, acks="all")
    for name, _, value in readings():
        producer.send(topic, key=name.encode(), value=value)
    producer.flush(120)
    producer.close(10)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "produce", [produce_with_confluent, pytest.param(produce_with_kafka_python, marks=pytest.mark.slow)]
)
def test_a_group_of_three_sees_every_reading_once_and_in_order_per_sensor(bootstrap, fresh, produce):
    topic, group = lib.create_topic(bootstrap, fresh("factory"), 5), fresh("g")
    members = [lib.consumer(bootstrap, group) for _ in range(3)]
    for member in members:
        member.subscribe([topic])
    seen = [[] for _ in members]
    keep = lambda m: seen[0].append((m.key(), m.partition(), m.value()))  # noqa: E731
    wait.until("all three have partitions", lambda: _all_assigned(members, keep))
    threads = [threading.Thread(target=_collect, args=(m, s, seen)) for m, s in zip(members, seen)]
    for thread in threads:
        thread.start()
    produce(bootstrap, topic)
    for thread in threads:
        thread.join(150)
    assert [len(s) > 0 for s in seen] == [True] * 3, "each of the three has work"
    _assert_complete_and_ordered(seen)
    for member in members:
        member.close()


def _all_assigned(members, keep):
    lib.poll_all(members, keep)
    held = sorted(len(lib.assignment_ids(m)) for m in members)
    return held == [1, 2, 2]


def _collect(member, mine, everybodys):
    def take(message):
        mine.append((message.key(), message.partition(), message.value()))

    lib.take_until(member, lambda: sum(map(len, everybodys)) >= SENSORS * READINGS, take, 140)


def _assert_complete_and_ordered(seen):
    per_sensor, partitions = defaultdict(list), defaultdict(set)
    for key, partition, value in (entry for mine in seen for entry in mine):
        per_sensor[key.decode()].append(value)
        partitions[key].add(partition)
    expected = defaultdict(list)
    for name, _, value in readings():
        expected[name].append(value)
    assert per_sensor == expected
    assert all(len(p) == 1 for p in partitions.values()), "a sensor stays in its partition"


def test_a_text_file_of_20_mib_comes_back_line_by_line(bootstrap, fresh, tmp_path):
    topic, file = fresh("text"), tmp_path / "book.txt"
    source = random.Random(1)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyzäöü", k=source.randint(1, 12))) for _ in range(5000)]
    with open(file, "w") as out:
        while out.tell() < 20 << 20:
            out.write(" ".join(source.choices(words, k=source.randint(1, 30))) + "\n")
    lib.create_topic(bootstrap, topic)
    sent = subprocess.run(["kcat", "-b", bootstrap, "-P", "-t", topic, "-l", str(file)], timeout=60)
    assert sent.returncode == 0
    line = ["kcat", "-b", bootstrap, "-C", "-t", topic, "-e", "-q"]
    read = subprocess.run(line, timeout=60, capture_output=True)
    assert read.stdout == file.read_bytes()


def test_a_record_of_8_mib_passes_where_the_topic_allows_it_and_only_there(bootstrap, fresh):
    value = random.Random(8).randbytes(8 << 20)
    large = lib.create_topic(bootstrap, fresh("large"), max_message_bytes=9 << 20)
    usual = lib.create_topic(bootstrap, fresh("usual"))
    settings = {"message_max_bytes": 9 << 20}
    lib.produce_all(bootstrap, large, [{"value": b"before"}, {"value": value}, {"value": b"after"}], **settings)
    assert [m.value() for m in lib.read_topic(bootstrap, large)[0]] == [b"before", value, b"after"]
    client, reports = lib.producer(bootstrap, **settings), lib.Deliveries()
    client.produce(usual, value=value, on_delivery=reports)
    assert client.flush(lib.TIMEOUT_S) == 0
    assert [e.code() for e in reports.errors] == [KafkaError.MSG_SIZE_TOO_LARGE]


def test_a_large_record_reaches_a_reader_with_small_limits(bootstrap, fresh):  # contract F1, KIP-74
    topic, value = lib.create_topic(bootstrap, fresh("large"), max_message_bytes=3 << 20), bytes(2 << 20)
    lib.produce_all(bootstrap, topic, [{"value": value}] * 3, message_max_bytes=3 << 20)
    client = lib.consumer(
        bootstrap, fresh("g"), fetch_message_max_bytes=1000, fetch_max_bytes=1000, message_max_bytes=1000
    )
    client.subscribe([topic])
    assert [m.value() for m in lib.drain(client, 3)] == [value] * 3
    client.close()


def test_null_and_empty_fields_and_headers_of_one_name_are_kept_apart(bootstrap, fresh):
    topic = lib.create_topic(bootstrap, fresh("nulls"))
    headers = [("trace", b"1"), ("trace", b"2"), ("trace", b""), ("none", None), ("ünïcode", b"\x00\xff")]
    records = [
        {"key": None, "value": b"v"},
        {"key": b"", "value": b"v"},
        {"key": b"k", "value": None},
        {"key": b"k", "value": b""},
        {"key": None, "value": None},
        {"key": b"k", "value": b"v", "headers": headers},
    ]
    lib.produce_all(bootstrap, topic, records)
    found = lib.read_topic(bootstrap, topic)[0]
    assert [(m.key(), m.value()) for m in found] == [(r["key"], r["value"]) for r in records]
    assert [m.headers() for m in found] == [None] * 5 + [headers]


def test_a_compacted_topic_refuses_a_record_without_key(bootstrap, fresh):  # contract L3
    topic = lib.create_topic(bootstrap, fresh("compacted"), cleanup_policy="compact")
    client, reports = lib.producer(bootstrap, enable_idempotence=False), lib.Deliveries()
    client.produce(topic, value=b"keyless", on_delivery=reports)
    assert client.flush(lib.TIMEOUT_S) == 0
    assert [e.code() for e in reports.errors] == [KafkaError.INVALID_RECORD]
    lib.produce_all(bootstrap, topic, [{"key": b"k", "value": b"v"}])
