"""kafka-configs.sh of Apache Kafka 4.1: settings of topics and brokers are described, changed, and hold at once."""

import time

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import ConfigSource

from harness import java, tools, wait
from harness import librdkafka as lib

pytestmark = pytest.mark.jvm

MIB = 1 << 20
OF_TOPIC, OF_BROKER, OF_ALL_BROKERS = "DYNAMIC_TOPIC_CONFIG", "DYNAMIC_BROKER_CONFIG", "DYNAMIC_DEFAULT_BROKER_CONFIG"


class Entity:
    """kafka-configs.sh for one topic, one broker, or the default of all brokers."""

    def __init__(self, bootstrap, *which):
        self._tool, self._which = tools.Tool(java.CONFIG_COMMAND, bootstrap), which

    def alter(self, *arguments):
        return self._tool("--alter", *self._which, *arguments)

    def refuses(self, *arguments):
        return self._tool.fails("--alter", *self._which, *arguments)

    def own(self):
        """What is set for this very entity: {name: value}. Each value's source is this entity."""
        (found,) = tools.settings(self._tool("--describe", *self._which)).values()
        for name, setting in found.items():
            assert setting.synonyms[0] == f"{self._source()}:{name}={setting.value}"
        return {name: setting.value for name, setting in found.items()}

    def all(self):
        """Every setting, whoever has set it."""
        (found,) = tools.settings(self._tool("--describe", "--all", *self._which)).values()
        return found

    def _source(self):
        if "topics" in self._which:
            return OF_TOPIC
        return OF_ALL_BROKERS if "--entity-default" in self._which else OF_BROKER


def entity_of_topic(broker, topic):
    return Entity(broker.bootstrap, "--entity-type", "topics", "--entity-name", topic)


def entity_of_broker(broker):
    return Entity(broker.bootstrap, "--entity-type", "brokers", "--entity-name", "1")


def entity_of_all_brokers(broker):
    return Entity(broker.bootstrap, "--entity-type", "brokers", "--entity-default")


def produce_error(broker, topic, size):
    """The code of the error that a record of so many bytes meets; None without one."""
    client, reports = lib.producer(broker.bootstrap), lib.Deliveries()
    lib.send(client, topic, value=bytes(size), on_delivery=reports)
    assert client.flush(lib.TIMEOUT_S) == 0
    return reports.errors[0].code() if reports.errors else None


def takes(broker, topic, size):
    return produce_error(broker, topic, size) is None


def refuses(broker, topic, size):
    return produce_error(broker, topic, size) == KafkaError.MSG_SIZE_TOO_LARGE


def low_watermark(broker, topic):
    client = lib.consumer(broker.bootstrap, "g")
    try:
        return lib.end_offsets(client, topic, 1)[0][0]
    finally:
        client.close()


def segments(broker, topic):
    return sorted((broker.data / f"{topic}-0").glob("*.log"))


@pytest.mark.timeout(180)
def test_a_topics_settings_are_changed_and_described_with_their_sources(broker, fresh):  # contract P9
    name = lib.create_topic(broker.bootstrap, fresh("tuned"))
    topic = entity_of_topic(broker, name)
    assert topic.own() == {}
    said = topic.alter("--add-config", "retention.ms=7200000,cleanup.policy=[compact,delete],max.message.bytes=20000")
    assert said == f"Completed updating config for topic {name}.\n"
    assert topic.own() == {
        "retention.ms": "7200000",
        "cleanup.policy": "compact,delete",
        "max.message.bytes": "20000",
    }
    found = topic.all()
    assert found["retention.ms"].synonyms[0] == f"{OF_TOPIC}:retention.ms=7200000"
    assert found["segment.bytes"] == (str(1 << 30), [f"DEFAULT_CONFIG:log.segment.bytes={1 << 30}"])
    assert found["min.compaction.lag.ms"] == ("0", ["DEFAULT_CONFIG:log.cleaner.min.compaction.lag.ms=0"])

    # In one go, some are added and some taken away; what is not named stays.
    topic.alter("--add-config", "retention.bytes=5000000", "--delete-config", "retention.ms,cleanup.policy")
    assert topic.own() == {"max.message.bytes": "20000", "retention.bytes": "5000000"}
    assert topic.all()["cleanup.policy"] == ("delete", ["DEFAULT_CONFIG:log.cleanup.policy=delete"])

    # One wrong setting, and nothing is changed.
    for arguments, reason in (
        (("--add-config", "retention.ms=5,no.such.setting=1"), "InvalidConfigurationException"),
        (("--add-config", "retention.ms=5,segment.ms=soon"), "InvalidConfigurationException"),
        (("--add-config", "retention.ms=5,segment.bytes=1"), "InvalidConfigurationException"),
        (("--add-config", "cleanup.policy=[compact,burn]"), "InvalidConfigurationException"),
        (("--delete-config", "segment.ms"), "Invalid config(s): segment.ms"),
    ):
        assert reason in topic.refuses(*arguments), arguments
    missing = entity_of_topic(broker, fresh("missing"))
    assert "UnknownTopicOrPartitionException" in missing.refuses("--add-config", "retention.ms=5")
    assert topic.own() == {"max.message.bytes": "20000", "retention.bytes": "5000000"}

    broker.restart()
    resource = lib.topic_resource(name)
    admin = lib.admin(broker.bootstrap)
    found = admin.describe_configs([resource])[resource].result(lib.TIMEOUT_S)
    assert found["retention.bytes"].value == "5000000"
    assert ConfigSource(found["retention.bytes"].source) == ConfigSource.DYNAMIC_TOPIC_CONFIG
    assert ConfigSource(found["retention.ms"].source) == ConfigSource.DEFAULT_CONFIG


@pytest.mark.timeout(180)
def test_a_topics_changed_settings_take_effect(start_broker, fresh):
    broker = start_broker({"log.retention.check.interval.ms": 200})
    name = lib.create_topic(broker.bootstrap, fresh("effect"))
    topic = entity_of_topic(broker, name)
    records = [{"value": bytes(600_000)} for _ in range(3)]
    # Each in a batch of its own.
    settings = {"batch_num_messages": 1, "linger_ms": 0}

    lib.produce_all(broker.bootstrap, name, records, **settings)
    assert len(segments(broker, name)) == 1
    topic.alter("--add-config", f"max.message.bytes={MIB},segment.bytes={MIB}")
    lib.produce_all(broker.bootstrap, name, records, **settings)
    wait.until("each batch has a segment", lambda: len(segments(broker, name)) == 4)
    assert low_watermark(broker, name) == 0

    topic.alter("--add-config", "retention.ms=100,max.message.bytes=1000")
    wait.until("the messages are too large now", lambda: refuses(broker, name, 2000))
    assert takes(broker, name, 500)
    # What came last may stay where it is written to.
    wait.until("what is old is gone", lambda: low_watermark(broker, name) >= 5, 60)

    topic.alter("--delete-config", "retention.ms,max.message.bytes")
    wait.until("the default holds again", lambda: takes(broker, name, 2000))
    first = lib.produce_all(broker.bootstrap, name, records, **settings)[0].offset()
    time.sleep(1)
    assert low_watermark(broker, name) <= first, "what came since is kept, closed segments included"
    assert topic.own() == {"segment.bytes": str(MIB)}


@pytest.mark.timeout(180)
def test_broker_settings_are_changed_for_one_broker_and_for_all(broker, fresh):
    name = lib.create_topic(broker.bootstrap, fresh("inherits"))
    topic, one, every = entity_of_topic(broker, name), entity_of_broker(broker), entity_of_all_brokers(broker)
    # Apache Kafka stores one of the defaults there (KIP-966).
    before = every.own()
    assert one.own() == {} and set(before) <= {"min.insync.replicas"}
    assert takes(broker, name, 5000)

    said = every.alter("--add-config", f"log.segment.bytes={2 * MIB},message.max.bytes=9000")
    assert said == "Completed updating default config for brokers in the cluster.\n"
    said = one.alter("--add-config", "log.retention.ms=7200000,message.max.bytes=3000")
    assert said == "Completed updating config for broker 1.\n"
    wait.until("the broker's own goes before that of all", lambda: refuses(broker, name, 5000))
    assert every.own() == {**before, "log.segment.bytes": str(2 * MIB), "message.max.bytes": "9000"}
    assert one.own() == {"log.retention.ms": "7200000", "message.max.bytes": "3000"}
    found = one.all()
    assert found["message.max.bytes"] == (
        "3000",
        [
            f"{OF_BROKER}:message.max.bytes=3000",
            f"{OF_ALL_BROKERS}:message.max.bytes=9000",
            "DEFAULT_CONFIG:message.max.bytes=1048588",
        ],
    )
    assert found["log.segment.bytes"].synonyms[0] == f"{OF_ALL_BROKERS}:log.segment.bytes={2 * MIB}"
    # The topic has nothing of its own and takes what its broker says.
    found = topic.all()
    assert (found["retention.ms"].value, found["segment.bytes"].value) == ("7200000", str(2 * MIB))
    assert found["retention.ms"].synonyms[0] == f"{OF_BROKER}:log.retention.ms=7200000"
    assert found["max.message.bytes"].synonyms[:2] == [
        f"{OF_BROKER}:message.max.bytes=3000",
        f"{OF_ALL_BROKERS}:message.max.bytes=9000",
    ]

    # What can only be set at a start is refused, and what cannot be at all.
    for entity, config in (
        (one, "num.partitions=3"),
        (every, "auto.create.topics.enable=false"),
        (one, "log.retention.ms=60000,log.dirs=/elsewhere"),
        (one, "message.max.bytes=-1"),
        (one, "log.segment.bytes=many"),
    ):
        assert "InvalidRequestException" in entity.refuses("--add-config", config), config
    assert "Invalid config(s): log.segment.bytes" in one.refuses("--delete-config", "log.segment.bytes")

    one.alter("--delete-config", "message.max.bytes")
    wait.until("that of all brokers holds", lambda: takes(broker, name, 5000))
    assert refuses(broker, name, 10_000)
    broker.restart()
    wait.until("it is not forgotten", lambda: refuses(broker, name, 10_000))
    found = tools.settings(tools.Tool(java.CONFIG_COMMAND, broker.bootstrap)("--describe", "--entity-type", "brokers"))
    assert [{name: s.value for name, s in settings.items()} for settings in found.values()] == [
        {"log.retention.ms": "7200000"},
        {**before, "log.segment.bytes": str(2 * MIB), "message.max.bytes": "9000"},
    ]
