"""`heizer topic`, `heizer produce` and `heizer consume`, as typed in a shell."""

import pytest

from harness import cli
from harness import librdkafka as lib
from harness.server import free_port

pytestmark = pytest.mark.heizer


def test_a_topic_is_created_listed_described_and_deleted(heizer, fresh):
    topic = fresh("cli")
    heizer("topic", "create", topic, "--partitions", "3", "--config", "retention.ms=60000")
    assert topic in heizer("topic", "list").splitlines()
    described = heizer("topic", "describe", topic)
    assert topic in described and "retention.ms" in described and "60000" in described
    heizer("topic", "delete", topic)
    assert topic not in heizer("topic", "list").splitlines()


def test_the_partitions_asked_for_are_there(heizer, bootstrap, fresh):
    topic = fresh("cli")
    heizer("topic", "create", topic, "--partitions", "7")
    assert len(lib.admin(bootstrap).list_topics(topic, timeout=10).topics[topic].partitions) == 7


@pytest.mark.parametrize("level", ["durable", "written", "memory"])
def test_each_durability_level_takes_records(heizer, fresh, level):
    topic = fresh("cli")
    heizer("topic", "create", topic, "--partitions", "1", "--config", f"heizer.durability={level}")
    heizer("produce", topic, stdin="one\ntwo\n")
    assert heizer("consume", topic, "--from-beginning", "--max-messages", "2") == "one\ntwo\n"


def test_lines_round_trip_with_keys(heizer, fresh):
    topic = fresh("cli")
    heizer("topic", "create", topic, "--partitions", "1")
    heizer("produce", topic, "--key-separator", ":", stdin="a:1\nb:2\nc:\n")
    assert heizer("consume", topic, "--from-beginning", "--max-messages", "3") == "1\n2\n\n"
    shown = heizer("consume", topic, "--from-beginning", "--max-messages", "3", "--print-key").splitlines()
    assert [line[0] for line in shown] == ["a", "b", "c"] and shown[0].endswith("1")


def test_other_clients_read_what_it_produces_and_the_other_way_round(heizer, bootstrap, fresh):
    topic = lib.create_topic(bootstrap, fresh("cli"))
    heizer("produce", topic, "--key-separator", "=", stdin="k=v\n")
    lib.produce_all(bootstrap, topic, ({"value": b"lz4 %d" % n} for n in range(100)), compression_type="lz4")
    found = lib.read_topic(bootstrap, topic)[0]
    assert (found[0].key(), found[0].value()) == (b"k", b"v")
    lines = heizer("consume", topic, "--from-beginning", "--max-messages", "101").splitlines()
    assert lines == ["v", *(f"lz4 {n}" for n in range(100))]


def test_a_group_goes_on_where_it_stopped(heizer, fresh):
    topic, group = fresh("cli"), fresh("g")
    heizer("topic", "create", topic, "--partitions", "1")
    heizer("produce", topic, stdin="one\ntwo\nthree\n")
    read = ("consume", topic, "--from-beginning", "--group", group)
    assert heizer(*read, "--max-messages", "2") == "one\ntwo\n"
    assert heizer(*read, "--max-messages", "1") == "three\n"


def test_consume_ends_when_nothing_comes_in_time(heizer, fresh):
    topic = fresh("cli")
    heizer("topic", "create", topic, "--partitions", "1")
    assert heizer("consume", topic, "--from-beginning", "--timeout-ms", "500") == ""


def test_errors_are_one_line(failing, heizer, fresh):
    topic = fresh("cli")
    heizer("topic", "create", topic, "--partitions", "1")
    assert topic in failing("topic", "create", topic, "--partitions", "1")
    failing("topic", "create", "bad name!", "--partitions", "1")
    failing("topic", "create", fresh("cli"), "--partitions", "0")
    assert "no.such" in failing("topic", "create", fresh("cli"), "--partitions", "1", "--config", "no.such=1")
    missing = fresh("missing")
    assert missing in failing("topic", "describe", missing)
    assert missing in failing("topic", "delete", missing)


def test_a_broker_that_is_not_there_is_named(failing):
    address = f"127.0.0.1:{free_port()}"
    for verb in (("topic", "list"), ("produce", "t"), ("consume", "t", "--timeout-ms", "1000")):
        assert address in failing(*verb, server=address, stdin="x\n")


def test_help_and_version_answer():
    for flag in ("--help", "--version"):
        done = cli.run(flag)
        assert done.returncode == 0 and "heizer" in done.stdout
