"""Apache Kafka's own console programs, as in its quickstart (flags of 4.1)."""

import subprocess
import time
from collections import Counter

import pytest

from harness import java, wait
from harness import librdkafka as lib

pytestmark = pytest.mark.jvm


def console_produce(bootstrap, topic, lines, *more):
    return java.run(java.CONSOLE_PRODUCER, "--bootstrap-server", bootstrap, "--topic", topic, *more, stdin=lines)


def console_consume(bootstrap, topic, count, *more):
    bounds = ("--max-messages", str(count), "--timeout-ms", "20000")
    return java.run(java.CONSOLE_CONSUMER, "--bootstrap-server", bootstrap, "--topic", topic, *bounds, *more)


def test_lines_come_back_from_the_beginning(bootstrap, fresh):
    topic, lines = fresh("console"), "".join(f"line {n}\n" for n in range(500))
    console_produce(bootstrap, topic, lines)
    assert console_consume(bootstrap, topic, 500, "--from-beginning") == lines


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_of_the_java_client_is_read_by_librdkafka(bootstrap, fresh, codec):
    topic = lib.create_topic(bootstrap, fresh("console"))
    console_produce(bootstrap, topic, "".join(f"line {n}\n" for n in range(500)), "--compression-codec", codec)
    values = [m.value() for m in lib.read_topic(bootstrap, topic)[0]]
    assert values == [f"line {n}".encode() for n in range(500)]


def test_keys_come_back(bootstrap, fresh):
    topic = lib.create_topic(bootstrap, fresh("console"), 3)
    keyed = ("--property", "parse.key=true", "--property", "key.separator=:")
    console_produce(bootstrap, topic, "a:1\nb:2\na:3\nc:4\n", *keyed)
    shown = ("--property", "print.key=true", "--property", "key.separator=:")
    found = console_consume(bootstrap, topic, 4, "--from-beginning", *shown).splitlines()
    assert sorted(found) == ["a:1", "a:3", "b:2", "c:4"]
    assert found.index("a:1") < found.index("a:3")


def test_a_group_goes_on_where_it_stopped(bootstrap, fresh):
    topic, group = fresh("console"), ("--group", fresh("g"))
    console_produce(bootstrap, topic, "one\ntwo\n")
    assert console_consume(bootstrap, topic, 2, "--from-beginning", *group) == "one\ntwo\n"
    console_produce(bootstrap, topic, "three\n")
    assert console_consume(bootstrap, topic, 1, "--from-beginning", *group) == "three\n"


def test_topic_and_group_commands_list_and_describe(bootstrap, fresh):
    topic, group = fresh("console"), fresh("g")
    where = ("--bootstrap-server", bootstrap)
    java.run(java.TOPIC_COMMAND, *where, "--create", "--topic", topic, "--partitions", "3", "--replication-factor", "1")
    assert "PartitionCount: 3" in java.run(java.TOPIC_COMMAND, *where, "--describe", "--topic", topic)
    assert topic in java.run(java.TOPIC_COMMAND, *where, "--list").splitlines()
    console_produce(bootstrap, topic, "one\ntwo\n")
    console_consume(bootstrap, topic, 2, "--from-beginning", "--group", group)
    assert group in java.run(java.GROUP_COMMAND, *where, "--list").splitlines()
    rows = java.run(java.GROUP_COMMAND, *where, "--describe", "--group", group).splitlines()
    lags = [row.split()[5] for row in rows if row.startswith(group)]
    assert lags and set(lags) <= {"0", "-"}


class Member:
    """A console consumer that runs until it is stopped; knows what it has printed as (partition, value)."""

    def __init__(self, bootstrap, topic, group, out):
        self._out = out
        shown = ("--property", "print.partition=true", "--property", "print.offset=true")
        arguments = ("--bootstrap-server", bootstrap, "--topic", topic, "--group", group, "--from-beginning", *shown)
        with open(out, "wb") as stdout:
            line = java.command(java.CONSOLE_CONSUMER, *arguments)
            self.process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.DEVNULL)

    def seen(self):
        rows = [row.split("\t") for row in self._out.read_text().splitlines() if row.count("\t") == 2]
        return [(int(partition.removeprefix("Partition:")), value) for partition, _, value in rows]

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


@pytest.mark.timeout(180)
def test_two_members_share_three_partitions_and_one_takes_over(bootstrap, fresh, tmp_path):
    topic, group = lib.create_topic(bootstrap, fresh("console"), 3), fresh("g")
    sent = Counter()

    def tick():
        """One numbered record into each partition."""
        values = [f"{len(sent) + p}" for p in range(3)]
        lib.produce_all(bootstrap, topic, [{"value": v, "partition": p} for p, v in enumerate(values)])
        sent.update(values)
        time.sleep(0.3)

    first, second = (Member(bootstrap, topic, group, tmp_path / f"member-{n}") for n in range(2))

    def shared():
        tick()
        latest = [{p for p, _ in member.seen()[-6:]} for member in (first, second)]
        return all(latest) and latest[0] | latest[1] == {0, 1, 2} and not latest[0] & latest[1]

    try:
        wait.until("two members share three partitions", shared, 60)
        second.stop()
        wait.until("the first has all three", lambda: tick() or {p for p, _ in first.seen()[-6:]} == {0, 1, 2}, 60)
        got = lambda: Counter(value for member in (first, second) for _, value in member.seen())  # noqa: E731
        wait.until("every record was seen", lambda: set(got()) == set(sent), 30)
        assert max(got().values()) == 1, "members that leave cleanly see nothing twice"
    finally:
        first.stop()
        second.stop()
