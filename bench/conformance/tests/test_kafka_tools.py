"""The smaller programs of Apache Kafka 4.1: offsets, deleting records, log directories, versions, cluster id, dumps."""

import json
import re
import time
from typing import NamedTuple

import pytest
from confluent_kafka import TopicPartition

from harness import dumplog, java, tools, wait, wire
from harness import librdkafka as lib

pytestmark = pytest.mark.jvm

# What admin programs live on: API key -> versions of Apache Kafka 4.1.
ADMINISTRATION = {
    19: (2, 7),
    20: (1, 6),
    21: (0, 2),
    32: (1, 4),
    33: (0, 2),
    35: (1, 4),
    37: (0, 3),
    42: (0, 2),
    44: (0, 1),
    47: (0, 0),
    60: (0, 2),
    74: (0, 1),
    75: (0, 0),
}


class Filled(NamedTuple):
    """A topic of three partitions with ten, four and no records. A record's timestamp is `start_ms` + its offset, but
    for the record 6 of partition 0, which is the latest of all."""

    topic: str
    start_ms: int


@pytest.fixture
def filled(broker, fresh):
    topic = lib.create_topic(broker.bootstrap, fresh("filled"), 3)
    start_ms = int(time.time() * 1000) - 3_600_000
    stamps = {0: [start_ms + (5000 if n == 6 else n) for n in range(10)], 1: [start_ms + n for n in range(4)]}
    for partition, its_stamps in stamps.items():
        records = [{"value": b"%d" % n, "partition": partition, "timestamp": s} for n, s in enumerate(its_stamps)]
        lib.produce_all(broker.bootstrap, topic, records)
    return Filled(topic, start_ms)


def low_watermarks(broker, topic):
    client = lib.consumer(broker.bootstrap, "g")
    try:
        return [low for low, _ in lib.end_offsets(client, topic, 3).values()]
    finally:
        client.close()


def test_offsets_are_told_by_position_and_by_time(broker, filled, fresh):
    topic, start_ms = filled
    get = tools.Tool(java.GET_OFFSETS, broker.bootstrap)

    def offsets(*arguments):
        found = [line.rsplit(":", 2) for line in get(*arguments).splitlines()]
        assert all(name == topic for name, _, _ in found)
        return {int(partition): int(offset) for _, partition, offset in found}

    assert offsets("--topic", topic) == {0: 10, 1: 4, 2: 0}
    assert offsets("--topic", topic, "--time", "-1", "--partitions", "0,2") == {0: 10, 2: 0}
    assert offsets("--topic-partitions", f"{topic}:1-", "--time", "-2") == {1: 0, 2: 0}
    # An empty partition has no record with the greatest timestamp, nor one from a moment on.
    assert offsets("--topic-partitions", f"{topic}:0,{topic}:1-3", "--time", "-3") == {0: 6, 1: 3}
    assert offsets("--topic", topic, "--time", str(start_ms + 2)) == {0: 2, 1: 2}
    assert offsets("--topic", topic, "--time", str(start_ms + 10)) == {0: 6}
    assert "Could not match any topic-partitions" in get.fails("--topic", fresh("missing"))


def test_records_are_deleted_up_to_an_offset(broker, filled, tmp_path):
    topic, _ = filled
    delete = tools.Tool(java.DELETE_RECORDS, broker.bootstrap)
    path = tmp_path / "offsets.json"

    def deleted(offsets):
        """{partition: low watermark or the error's words}"""
        partitions = [{"topic": topic, "partition": n, "offset": offset} for n, offset in offsets.items()]
        path.write_text(json.dumps({"version": 1, "partitions": partitions}))
        said = delete("--offset-json-file", str(path))
        found = re.findall(rf"^partition: {topic}-(\d)\t(?:low_watermark|error): (.*)$", said, re.MULTILINE)
        return dict(found)

    found = deleted({0: 4, 1: -1, 2: 1})
    assert (found["0"], found["1"]) == ("4", "4")
    assert "OffsetOutOfRangeException" in found["2"]
    assert low_watermarks(broker, topic) == [4, 4, 0]
    # What is gone already is gone; the log does not grow back.
    assert deleted({0: 2}) == {"0": "4"}
    assert "OffsetOutOfRangeException" in deleted({0: 11})["0"]
    read = lib.read_topic(broker.bootstrap, topic, 3)
    assert [m.offset() for m in read[0]] == list(range(4, 10)) and not read[1]
    lib.produce_all(broker.bootstrap, topic, [{"value": b"next", "partition": 1}])
    broker.restart()
    wait.until("the leaders are back", lambda: low_watermarks(broker, topic) == [4, 4, 0])
    assert [(m.offset(), m.value()) for m in lib.read_topic(broker.bootstrap, topic, 3)[1]] == [(4, b"next")]
    path.write_text("{")
    assert "not a valid JSON" in delete.fails("--offset-json-file", str(path))


def test_log_directories_versions_and_the_cluster_are_described(broker, filled):
    topic, _ = filled
    said = tools.Tool(java.LOG_DIRS, broker.bootstrap)("--describe", "--topic-list", topic)
    described = json.loads(said.splitlines()[-1])
    (node,) = described["brokers"]
    (directory,) = node["logDirs"]
    assert (node["broker"], directory["logDir"], directory["error"]) == (1, str(broker.data), None)
    partitions = {row.pop("partition"): row for row in directory["partitions"]}
    assert set(partitions) == {f"{topic}-{n}" for n in range(3)}
    sizes = [partitions[f"{topic}-{n}"].pop("size") for n in range(3)]
    assert sizes[0] > sizes[1] > 0 and sizes[2] == 0
    assert all(row == {"offsetLag": 0, "isFuture": False} for row in partitions.values())
    said = tools.Tool(java.LOG_DIRS, broker.bootstrap).fails("--describe", "--broker-list", "1,7")
    assert "do not exist from --broker-list: 7" in said

    said = tools.Tool(java.BROKER_API_VERSIONS, broker.bootstrap)()
    assert said.startswith(f"{broker.bootstrap} (id: 1 rack: null")
    lines = re.findall(r"^\t(\w+)\((\d+)\): (\d+)(?: to (\d+))? \[usable: (\d+)\]", said, re.MULTILINE)
    told = {int(key): (int(low), int(high or low)) for _, key, low, high, _ in lines}
    with wire.Connection(broker.bootstrap) as link:
        assert told == wire.api_versions(link)
    assert {key: told.get(key) for key in ADMINISTRATION} == ADMINISTRATION

    said = tools.Tool(java.CLUSTER, broker.bootstrap)("cluster-id")
    admin = lib.admin(broker.bootstrap)
    assert said == f"Cluster ID: {admin.describe_cluster().result(lib.TIMEOUT_S).cluster_id}\n"


def test_resources_with_settings_are_listed(broker, filled):
    """Nobody has settings for client metrics or groups: there is nothing, and no error."""
    assert tools.Tool(java.CLIENT_METRICS, broker.bootstrap)("--list").strip() == ""
    configs = tools.Tool(java.CONFIG_COMMAND, broker.bootstrap)
    assert configs("--describe", "--entity-type", "client-metrics").strip() == ""
    assert configs("--describe", "--entity-type", "groups").strip() == ""
    headings = tools.settings(configs("--describe", "--entity-type", "topics"))
    assert list(headings) == [f"Dynamic configs for topic {filled.topic} are:"]


def test_committed_offsets_are_read_out_of_the_segments(broker, filled, fresh):  # contract G3
    """kafka-dump-log.sh --offsets-decoder, once the broker has sealed the segments."""
    group = fresh("g")
    member = lib.consumer(broker.bootstrap, group)
    member.subscribe([filled.topic])
    wait.until("the member has its partitions", lambda: member.poll(0.1) or lib.assignment_ids(member) == {0, 1, 2})
    member.commit(offsets=[TopicPartition(filled.topic, 0, 7, "a note")], asynchronous=False)
    member.commit(offsets=[TopicPartition(filled.topic, 0, 9)], asynchronous=False)
    member.close()
    broker.stop()
    files = [path for path in sorted(broker.data.glob("__consumer_offsets-*/*.log")) if path.stat().st_size]
    assert files
    asked = ("--offsets-decoder", "--deep-iteration", "--files", ",".join(map(str, files)))
    said = java.run(java.DUMP_LOG, *asked)
    found = re.findall(r"^\| offset: .* key: (\{.*\}) payload: (\{.*\})$", said, re.MULTILINE)
    records = [(json.loads(key)["data"], json.loads(value)) for key, value in found]
    place = {"group": group, "topic": filled.topic, "partition": 0}
    commits = [value["data"] for key, value in records if key == place]
    # This client sends the zero at the end of its text along, and a broker keeps what it was sent.
    assert [(commit["offset"], commit["metadata"].rstrip("\0")) for commit in commits] == [(7, "a note"), (9, "")]
    states = [value["data"] for key, value in records if key == {"group": group}]
    assert [state["protocolType"] for state in states] == ["consumer"] * len(states)
    assert [len(state["members"]) for state in states][-2:] == [1, 0]
    assert dumplog.check(files) >= len(commits) + len(states)
