"""kafka-topics.sh of Apache Kafka 4.1: every action, every filter, and what it refuses."""

import base64

import pytest

from harness import java, tools, wait
from harness import librdkafka as lib
from harness.typed import Talk

pytestmark = pytest.mark.jvm

# Apache Kafka stores the default of this one as a dynamic one (KIP-966), and so its topics show it as their own.
SHOWN_BY_KAFKA = "min.insync.replicas"


@pytest.fixture
def topics(broker):
    return tools.Tool(java.TOPIC_COMMAND, broker.bootstrap)


def own_settings(topic):
    return {name: value for name, value in topic.settings.items() if name != SHOWN_BY_KAFKA}


def names(broker):
    return set(lib.admin(broker.bootstrap).list_topics(timeout=10).topics)


def partition_count(broker, topic):
    return len(lib.admin(broker.bootstrap).list_topics(topic, timeout=10).topics[topic].partitions)


def topic_id(broker, topic):
    """As Kafka's tools write it."""
    with Talk(broker.bootstrap) as talk:
        (found,) = talk.ask("Metadata", 12, topics=[{"name": topic}])["topics"]
    return base64.urlsafe_b64encode(found["topic_id"].bytes).decode().rstrip("=")


def test_topics_are_created_listed_described_and_deleted(topics, broker, fresh):
    plain, tuned = fresh("plain"), fresh("tuned")
    said = topics("--create", "--topic", plain, "--partitions", "3", "--replication-factor", "1")
    assert said == f"Created topic {plain}.\n"
    configs = ("--config", "retention.ms=3600000", "--config", "cleanup.policy=compact,delete")
    topics("--create", "--topic", tuned, "--partitions", "2", *configs)
    assert topics("--list").split() == [plain, tuned]

    found = tools.topics(topics("--describe"))
    assert set(found) == {plain, tuned}
    assert found[plain].fields == {
        "TopicId": topic_id(broker, plain),
        "PartitionCount": "3",
        "ReplicationFactor": "1",
    }
    assert own_settings(found[plain]) == {}
    assert found[tuned].fields["PartitionCount"] == "2"
    assert own_settings(found[tuned]) == {"retention.ms": "3600000", "cleanup.policy": "compact,delete"}
    for topic, count in ((plain, 3), (tuned, 2)):
        seen = [(p["Partition"], p["Leader"], p["Replicas"], p["Isr"]) for p in found[topic].partitions]
        assert seen == [(str(n), "1", "1", "1") for n in range(count)]
    by_id = tools.topics(topics("--describe", "--topic-id", topic_id(broker, tuned)))
    assert list(by_id) == [tuned]

    topics("--delete", "--topic", tuned)
    wait.until("the topic is gone", lambda: names(broker) == {plain})


def test_partitions_are_added_and_take_records(topics, broker, fresh):
    topic = lib.create_topic(broker.bootstrap, fresh("grows"), 2)
    lib.produce_all(broker.bootstrap, topic, [{"value": b"before", "partition": n} for n in range(2)])
    topics("--alter", "--topic", topic, "--partitions", "5")
    lib.await_topic(lib.admin(broker.bootstrap), topic, 5)
    lib.produce_all(broker.bootstrap, topic, [{"value": b"after", "partition": n} for n in range(5)])
    read = lib.read_topic(broker.bootstrap, topic, 5)
    assert {n: [m.value() for m in found] for n, found in read.items()} == {
        **{n: [b"before", b"after"] for n in range(2)},
        **{n: [b"after"] for n in range(2, 5)},
    }
    (found,) = tools.topics(topics("--describe", "--topic", topic)).values()
    assert found.fields["PartitionCount"] == "5"
    assert [(p["Leader"], p["Isr"]) for p in found.partitions] == [("1", "1")] * 5
    broker.restart()
    lib.await_topic(lib.admin(broker.bootstrap), topic, 5)
    assert lib.total_records(broker.bootstrap, topic, 5) == 7


def test_describe_shows_what_is_asked_for_and_no_more(topics, broker, fresh):
    plain = lib.create_topic(broker.bootstrap, fresh("plain"), 2)
    # One replica of two that must be in sync: below its minimum, and yet neither under-replicated nor unavailable.
    below = lib.create_topic(broker.bootstrap, fresh("below"), 2, min_insync_replicas=2)
    member = lib.consumer(broker.bootstrap, fresh("g"))
    member.subscribe([plain])
    wait.until("the member has its partitions", lambda: member.poll(0.1) or lib.assignment_ids(member) == {0, 1})
    member.close()

    assert topics("--describe", "--under-replicated-partitions", "--unavailable-partitions").strip() == ""
    found = tools.topics(topics("--describe", "--under-min-isr-partitions"))
    assert {topic: [p["Partition"] for p in seen.partitions] for topic, seen in found.items()} == {below: ["0", "1"]}
    found = tools.topics(topics("--describe", "--at-min-isr-partitions", "--exclude-internal"))
    assert {topic: [p["Partition"] for p in seen.partitions] for topic, seen in found.items()} == {plain: ["0", "1"]}

    found = tools.topics(topics("--describe", "--topics-with-overrides"))
    assert found[below].settings == {"min.insync.replicas": "2"}
    assert plain not in found or set(found[plain].settings) == {SHOWN_BY_KAFKA}
    assert own_settings(found["__consumer_offsets"])["cleanup.policy"] == "compact"
    assert not any(seen.partitions for seen in found.values()), "only the topics' own lines"

    assert topics("--list").split() == ["__consumer_offsets", below, plain]
    assert topics("--list", "--exclude-internal").split() == [below, plain]


def test_if_exists_and_if_not_exists_ask_for_nothing_more(topics, broker, fresh):
    topic, missing = lib.create_topic(broker.bootstrap, fresh("there"), 2), fresh("missing")
    for arguments in (
        ("--create", "--topic", topic, "--partitions", "7", "--if-not-exists"),
        ("--alter", "--topic", missing, "--partitions", "7", "--if-exists"),
        ("--describe", "--topic", missing, "--if-exists"),
        ("--delete", "--topic", missing, "--if-exists"),
    ):
        assert topics(*arguments).strip() == "", arguments
    assert names(broker) == {topic}
    assert partition_count(broker, topic) == 2


def test_what_cannot_be_is_refused_in_kafkas_words(topics, broker, fresh):
    topic, missing = lib.create_topic(broker.bootstrap, fresh("there"), 2), fresh("missing")
    for arguments, reason in (
        (("--create", "--topic", topic, "--partitions", "2"), "TopicExistsException"),
        (("--create", "--topic", missing, "--replication-factor", "3"), "InvalidReplicationFactorException"),
        (("--create", "--topic", "bad name!", "--partitions", "1"), "InvalidTopicException"),
        (("--create", "--topic", missing, "--config", "no.such.setting=1"), "no.such.setting"),
        (("--alter", "--topic", topic, "--partitions", "1"), "InvalidPartitionsException"),
        (("--alter", "--topic", topic, "--partitions", "2"), "InvalidPartitionsException"),
        (("--alter", "--topic", missing, "--partitions", "3"), "does not exist as expected"),
        (("--describe", "--topic", missing), "does not exist as expected"),
        (("--delete", "--topic", missing), "does not exist as expected"),
    ):
        said = topics.fails(*arguments)
        assert said.startswith("Error while executing topic command : ") and reason in said, (arguments, said)
    assert names(broker) == {topic}
    assert partition_count(broker, topic) == 2
