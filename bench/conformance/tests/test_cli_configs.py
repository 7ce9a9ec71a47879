"""`heizer config`: settings of topics and brokers, and who set them."""

import pytest

from harness import librdkafka as lib
from harness.cli import Cli

pytestmark = pytest.mark.heizer


@pytest.fixture
def topic(bootstrap, fresh):
    return lib.create_topic(bootstrap, fresh("config"), retention_ms=3_600_000)


def values(heizer, *what):
    return {row["name"]: (row["value"], row["source"]) for row in heizer.json("config", "get", *what)}


def test_what_differs_from_the_defaults_is_shown_or_what_is_named(heizer, topic):
    assert heizer.rows("config", "get", "topic", topic) == [["retention.ms", "3600000", "DYNAMIC_TOPIC_CONFIG"]]
    assert values(heizer, "topic", topic) == {"retention.ms": ("3600000", "DYNAMIC_TOPIC_CONFIG")}
    assert values(heizer, "topic", topic, "cleanup.policy", "retention.ms") == {
        "cleanup.policy": ("delete", "DEFAULT_CONFIG"),
        "retention.ms": ("3600000", "DYNAMIC_TOPIC_CONFIG"),
    }
    everything = values(heizer, "topic", topic, "--all")
    assert len(everything) > 20 and everything["segment.bytes"] == (str(1 << 30), "DEFAULT_CONFIG")


def test_settings_of_a_topic_are_set_and_unset(heizer, bootstrap, topic):
    put = ("config", "set", "topic", topic, "cleanup.policy=compact", "segment.ms=60000")
    assert heizer(*put, "--dry-run").count("would set") == 2
    assert set(values(heizer, "topic", topic)) == {"retention.ms"}, "a dry run changes nothing"
    assert f"set cleanup.policy = compact of topic {topic}" in heizer(*put)
    resource = lib.topic_resource(topic)
    admin = lib.admin(bootstrap)
    seen = admin.describe_configs([resource])[resource].result(lib.TIMEOUT_S)
    assert (seen["cleanup.policy"].value, seen["segment.ms"].value) == ("compact", "60000")
    away = ("config", "unset", "topic", topic, "segment.ms", "retention.ms")
    assert heizer(*away, "--dry-run").count("would return") == 2
    assert len(values(heizer, "topic", topic)) == 3
    heizer(*away)
    assert values(heizer, "topic", topic) == {"cleanup.policy": ("compact", "DYNAMIC_TOPIC_CONFIG")}


def test_what_cannot_be_is_refused_in_one_line(failing, heizer, topic, fresh):
    for dry in ((), ("--dry-run",)):
        told = failing("config", "set", "topic", topic, "retention.ms=soon", *dry, code=1)
        assert topic in told and "retention.ms" in told
        assert "no.such" in failing("config", "set", "topic", topic, "no.such=1", *dry, code=1)
    failing("config", "set", "topic", topic, "segment.ms=1000", "retention.ms=soon", code=1)
    assert set(values(heizer, "topic", topic)) == {"retention.ms"}, "all or nothing"
    assert f"{topic} has no setting no.such" in failing("config", "get", "topic", topic, "no.such", code=1)
    missing = fresh("missing")
    for verb in (("get", "topic", missing), ("set", "topic", missing, "retention.ms=1"), ("unset", "topic", missing, "x")):
        assert missing in failing("config", *verb, code=1)
    assert "no broker 77" in failing("config", "get", "broker", "77", code=1)
    failing("config", "get", "broker", "first", code=2)
    failing("config", "set", "topic", topic, "a=1", "a=2", code=2)


def test_settings_of_brokers_are_of_one_or_of_all(broker):
    heizer = Cli(broker.bootstrap)
    node = heizer.json("cluster", "info")["controller"]
    assert "listeners" in values(heizer, "broker", node), "what the start was given differs from the defaults"
    assert values(heizer, "broker", "default") == {}
    name = "log.retention.ms"
    before = values(heizer, "broker", node, name)[name]
    heizer("config", "set", "broker", "default", f"{name}=7200000")
    assert values(heizer, "broker", "default") == {name: ("7200000", "DYNAMIC_DEFAULT_BROKER_CONFIG")}
    assert values(heizer, "broker", node, name)[name] == ("7200000", "DYNAMIC_DEFAULT_BROKER_CONFIG")
    heizer("config", "set", "broker", node, f"{name}=1800000")
    assert values(heizer, "broker", node, name)[name] == ("1800000", "DYNAMIC_BROKER_CONFIG")
    heizer("config", "unset", "broker", node, name)
    heizer("config", "unset", "broker", "default", name)
    assert values(heizer, "broker", node, name)[name] == before
    assert "node.id" in heizer.failing("config", "set", "broker", node, "node.id=7", code=1)
