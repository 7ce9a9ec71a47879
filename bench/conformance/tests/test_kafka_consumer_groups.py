"""kafka-consumer-groups.sh of Apache Kafka 4.1: listing, describing, resetting and deleting, and what it refuses.

The program prints most of its errors and exits with 0: what counts is what it says, and what the offsets are.
"""

import csv
import time
from datetime import datetime, timezone

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaException, TopicPartition

from harness import java, tools, wait
from harness import librdkafka as lib

pytestmark = pytest.mark.jvm

MINUTE_MS = 60_000
# Partition 0 has this many records, partition 1 fewer, ten minutes apart, the first of both a hundred minutes ago.
RECORDS, FEWER, APART_MS = 10, 4, 10 * MINUTE_MS


@pytest.fixture
def groups(broker):
    return tools.Tool(java.GROUP_COMMAND, broker.bootstrap)


@pytest.fixture
def start_ms():
    """When the first records were written."""
    return int(time.time() * 1000) - RECORDS * APART_MS


@pytest.fixture
def topic(broker, fresh, start_ms):
    name = lib.create_topic(broker.bootstrap, fresh("orders"), 2)
    for partition, count in ((0, RECORDS), (1, FEWER)):
        stamps = [start_ms + n * APART_MS for n in range(count)]
        records = [{"value": b"%d" % n, "partition": partition, "timestamp": s} for n, s in enumerate(stamps)]
        lib.produce_all(broker.bootstrap, name, records)
    return name


def commit(broker, group, topic, *offsets):
    """Commits as a consumer without a subscription does: an offset for each partition, from 0 on."""
    client = lib.consumer(broker.bootstrap, group)
    places = [TopicPartition(topic, n, offset) for n, offset in enumerate(offsets)]

    def attempt():
        try:
            return client.commit(offsets=places, asynchronous=False)
        except KafkaException:  # the coordinator is not there yet
            return None

    answers = wait.until("the offsets are committed", attempt)
    assert all(place.error is None for place in answers), answers
    client.close()


def committed(broker, group, topic, count=2):
    """What the group has committed, by partition."""
    client = lib.consumer(broker.bootstrap, group)
    try:
        found = client.committed([TopicPartition(topic, n) for n in range(count)], timeout=10)
        return [place.offset for place in found]
    finally:
        client.close()


def new_offsets(text, topic):
    """The table that a reset prints: {partition: offset}."""
    return {int(row["PARTITION"]): int(row["NEW-OFFSET"]) for row in tools.rows(text, "GROUP") if row["TOPIC"] == topic}


def by_place(text):
    return {(row["TOPIC"], row["PARTITION"]): row for row in tools.rows(text, "GROUP")}


@pytest.mark.timeout(180)
def test_an_active_group_is_described_and_left_alone(groups, broker, topic, fresh):
    other, idle, active = lib.create_topic(broker.bootstrap, fresh("other")), fresh("idle"), fresh("live")
    commit(broker, idle, topic, 1)
    commit(broker, active, other, 0)
    commit(broker, active, topic, 4)
    members = [lib.consumer(broker.bootstrap, active, client_id=name) for name in ("first", "second")]
    for member in members:
        member.subscribe([topic])

    def shared():
        lib.poll_all(members)
        return sorted(sorted(lib.assignment_ids(member)) for member in members) == [[0], [1]]

    wait.until("the members share the partitions", shared)

    # Lists.
    assert sorted(groups("--list").split()) == [idle, active]
    listed = tools.rows(groups("--list", "--state", "--type"), "GROUP")
    assert {row["GROUP"]: (row["TYPE"], row["STATE"]) for row in listed} == {
        active: ("Classic", "Stable"),
        idle: ("Classic", "Empty"),
    }
    assert [row["GROUP"] for row in tools.rows(groups("--list", "--state", "Empty"), "GROUP")] == [idle]
    assert tools.rows(groups("--list", "--type", "consumer"), "GROUP") == []

    # Descriptions: a partition with an offset, one without, and one of a topic that is not subscribed any more.
    found = by_place(groups("--describe", "--group", active))
    assert set(found) == {(topic, "0"), (topic, "1"), (other, "0")}
    columns = ("CURRENT-OFFSET", "LOG-END-OFFSET", "LAG")
    assert [found[topic, "0"][c] for c in columns] == ["4", str(RECORDS), str(RECORDS - 4)]
    assert [found[topic, "1"][c] for c in columns] == ["-", str(FEWER), "-"]
    assert [found[other, "0"][c] for c in columns] == ["0", "0", "0"]
    assert [found[other, "0"][c] for c in ("CONSUMER-ID", "HOST", "CLIENT-ID")] == ["-", "-", "-"]
    for member in members:
        (partition,) = lib.assignment_ids(member)
        row = found[topic, str(partition)]
        assert row["CLIENT-ID"] in ("first", "second") and row["CONSUMER-ID"] == member.memberid()
        assert row["HOST"] == "/127.0.0.1"
    listed = tools.rows(groups("--describe", "--group", active, "--members", "--verbose"), "GROUP")
    assert sorted(row["CLIENT-ID"] for row in listed) == ["first", "second"]
    assert [row["#PARTITIONS"] for row in listed] == ["1", "1"]
    assert sorted(row["CURRENT-ASSIGNMENT"] for row in listed) == [f"{topic}:0", f"{topic}:1"]
    (row,) = tools.rows(groups("--describe", "--group", active, "--state"), "GROUP")
    assert (row["COORDINATOR"], row["(ID)"]) == (broker.bootstrap, "(1)")
    assert (row["ASSIGNMENT-STRATEGY"], row["STATE"], row["#MEMBERS"]) == ("range", "Stable", "2")

    # What would pull the offsets away under the members is refused.
    said = groups.call("--reset-offsets", "--group", active, "--topic", topic, "--to-earliest", "--execute").both
    assert f"the group '{active}' is inactive, but the current state is Stable" in said
    assert "GroupNotEmptyException" in groups.call("--delete", "--group", active).both
    said = groups.call("--delete-offsets", "--group", active, "--topic", f"{topic}:0").both
    assert "GroupSubscribedToTopicException" in said
    assert committed(broker, active, topic) == [4, OFFSET_INVALID]
    # A topic that nobody in the group reads may be forgotten while it is at work.
    (row,) = tools.rows(groups("--delete-offsets", "--group", active, "--topic", other), "TOPIC")
    assert row == {"TOPIC": other, "PARTITION": "0", "STATUS": "Successful"}
    assert committed(broker, active, other, 1) == [OFFSET_INVALID]
    for member in members:
        member.close()


@pytest.mark.timeout(180)
def test_offsets_are_reset_by_every_specification(groups, broker, topic, start_ms, fresh, tmp_path):
    group = fresh("g")
    commit(broker, group, topic, 7, 2)

    def reset(*arguments, of=group):
        return groups("--reset-offsets", "--group", of, *arguments)

    # Dry runs, asked for or not, change nothing.
    assert new_offsets(reset("--to-earliest", "--topic", topic, "--dry-run"), topic) == {0: 0, 1: 0}
    assert new_offsets(reset("--to-latest", "--all-topics"), topic) == {0: RECORDS, 1: FEWER}
    assert committed(broker, group, topic) == [7, 2]

    # Offsets beyond the ends are brought back to them.
    said = reset("--to-offset", "5", "--topic", f"{topic}:0,1", "--execute")
    assert new_offsets(said, topic) == {0: 5, 1: FEWER}
    assert committed(broker, group, topic) == [5, FEWER]
    assert new_offsets(reset("--shift-by", "-2", "--topic", f"{topic}:0", "--execute"), topic) == {0: 3}
    assert committed(broker, group, topic) == [3, FEWER]
    assert new_offsets(reset("--shift-by", "-100", "--all-topics", "--dry-run"), topic) == {0: 0, 1: 0}

    # By time: the first record at or after the moment; where there is none, the end.
    assert new_offsets(reset("--by-duration", "PT75M", "--all-topics", "--dry-run"), topic) == {0: 3, 1: 3}
    moment = datetime.fromtimestamp((start_ms + 5 * APART_MS) / 1000, timezone.utc)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
    assert new_offsets(reset("--to-datetime", text, "--topic", topic, "--execute"), topic) == {0: 5, 1: FEWER}
    assert committed(broker, group, topic) == [5, FEWER]

    # Out into a file and in again.
    exported = reset("--to-current", "--all-topics", "--dry-run", "--export")
    plan = sorted(csv.reader(filter(str.strip, exported.splitlines())))
    assert plan == [[topic, "0", "5"], [topic, "1", str(FEWER)]]
    path = tmp_path / "plan.csv"
    path.write_text(f"{topic},0,8\n{topic},1,1\n")
    assert new_offsets(reset("--from-file", str(path), "--execute"), topic) == {0: 8, 1: 1}
    assert committed(broker, group, topic) == [8, 1]

    # A group that is not there comes to be.
    newcomer = fresh("new")
    reset("--to-latest", "--topic", topic, "--execute", of=newcomer)
    assert committed(broker, newcomer, topic) == [RECORDS, FEWER]
    every = groups("--reset-offsets", "--all-groups", "--all-topics", "--to-earliest", "--dry-run", "--export")
    plan = {tuple(row[:3]) for row in csv.reader(filter(str.strip, every.splitlines()))}
    assert plan == {(name, topic, part) for name in (group, newcomer) for part in "01"}


def test_groups_and_offsets_are_deleted(groups, broker, topic, fresh):
    first, second, third, missing = (fresh(name) for name in ("first", "second", "third", "missing"))
    for group in (first, second, third):
        commit(broker, group, topic, 3, 2)
    (row,) = tools.rows(groups("--delete-offsets", "--group", first, "--topic", f"{topic}:0"), "TOPIC")
    assert row == {"TOPIC": topic, "PARTITION": "0", "STATUS": "Successful"}
    assert committed(broker, first, topic) == [OFFSET_INVALID, 2]
    assert "GroupIdNotFoundException" in groups.call("--delete-offsets", "--group", missing, "--topic", topic).both
    said = groups.call("--delete-offsets", "--group", first, "--topic", f"{topic}:9").both
    assert "UnknownTopicOrPartitionException" in said

    found = tools.rows(groups("--describe", "--all-groups", "--offsets"), "GROUP")
    rows = {(row["GROUP"], row["PARTITION"]): (row["CURRENT-OFFSET"], row["LAG"]) for row in found}
    assert rows == {
        (first, "1"): ("2", str(FEWER - 2)),
        **{(group, "0"): ("3", str(RECORDS - 3)) for group in (second, third)},
        **{(group, "1"): ("2", str(FEWER - 2)) for group in (second, third)},
    }

    said = groups.call("--delete", "--group", first, "--group", missing).both
    assert f"'{missing}' could not be deleted" in said and "GroupIdNotFoundException" in said
    assert f"were deleted successfully: '{first}'" in said
    said = groups("--delete", "--group", second, "--group", third)
    assert "was successful" in said and second in said and third in said
    assert groups("--list").split() == []
    said = groups.call("--describe", "--group", second).both
    assert "does not exist" in said or "GroupIdNotFoundException" in said
    broker.restart()
    wait.until("nothing came back", lambda: all(forgotten(broker, group, topic) for group in (first, second, third)))


def forgotten(broker, group, topic):
    """Whether the group has no offsets; False while its coordinator loads."""
    try:
        return committed(broker, group, topic) == [OFFSET_INVALID] * 2
    except KafkaException:
        return False
