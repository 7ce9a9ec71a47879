"""Topics, settings and groups through confluent-kafka's admin client."""

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from harness import librdkafka as lib
from harness import wait


def refusal(future) -> int:
    with pytest.raises(KafkaException) as failure:
        future.result(lib.TIMEOUT_S)
    return failure.value.args[0].code()


def test_topics_are_created_listed_described_and_deleted(bootstrap, fresh):
    client, topic = lib.admin(bootstrap), fresh("admin")
    lib.create_topic(bootstrap, topic, 7)
    seen = client.list_topics(timeout=10).topics
    assert sorted(seen[topic].partitions) == list(range(7))
    client.delete_topics([topic])[topic].result(lib.TIMEOUT_S)
    wait.until("the topic is gone", lambda: topic not in client.list_topics(timeout=10).topics)


def test_a_deleted_topic_comes_back_empty(bootstrap, fresh):
    client, topic = lib.admin(bootstrap), lib.create_topic(bootstrap, fresh("again"))
    lib.produce_all(bootstrap, topic, [{"value": b"old"}])
    client.delete_topics([topic])[topic].result(lib.TIMEOUT_S)
    wait.until("the topic is gone", lambda: topic not in client.list_topics(timeout=10).topics)
    lib.create_topic(bootstrap, topic)
    lib.produce_all(bootstrap, topic, [{"value": b"new"}])
    assert [m.value() for m in lib.read_topic(bootstrap, topic)[0]] == [b"new"]


def test_configs_given_at_creation_are_described_with_their_source(bootstrap, fresh):  # contract P9
    topic = lib.create_topic(bootstrap, fresh("configs"), retention_ms=3_600_000, cleanup_policy="compact")
    resource = lib.topic_resource(topic)
    client = lib.admin(bootstrap)
    found = client.describe_configs([resource])[resource].result(lib.TIMEOUT_S)
    assert found["retention.ms"].value == "3600000"
    assert found["cleanup.policy"].value == "compact"
    assert not found["retention.ms"].is_default
    assert found["segment.bytes"].value == str(1 << 30) and found["segment.bytes"].is_default


def test_broker_configs_are_described(bootstrap):
    client = lib.admin(bootstrap)
    node = next(iter(client.list_topics(timeout=10).brokers))
    resource = ConfigResource(ResourceType.BROKER, str(node))
    found = client.describe_configs([resource])[resource].result(lib.TIMEOUT_S)
    assert found["auto.create.topics.enable"].value == "true"


@pytest.mark.parametrize(
    ("name", "partitions", "configs", "code"),
    [
        ("bad name!", 1, {}, KafkaError.TOPIC_EXCEPTION),
        ("x" * 250, 1, {}, KafkaError.TOPIC_EXCEPTION),
        ("{fresh}", 0, {}, KafkaError.INVALID_PARTITIONS),
        ("{fresh}", 1, {"no.such.setting": "1"}, KafkaError.INVALID_CONFIG),
        ("{fresh}", 1, {"retention.ms": "soon"}, KafkaError.INVALID_CONFIG),
        ("{fresh}", 1, {"cleanup.policy": "burn"}, KafkaError.INVALID_CONFIG),
    ],
)
def test_an_impossible_topic_is_refused_with_kafkas_error(bootstrap, fresh, name, partitions, configs, code):
    topic = name.replace("{fresh}", fresh("refused"))
    client = lib.admin(bootstrap)
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=configs)
    assert refusal(client.create_topics([new])[topic]) == code
    assert topic not in client.list_topics(timeout=10).topics


def test_more_replicas_than_brokers_are_refused(bootstrap, fresh):
    topic = fresh("replicas")
    new = NewTopic(topic, num_partitions=1, replication_factor=3)
    client = lib.admin(bootstrap)
    assert refusal(client.create_topics([new])[topic]) == KafkaError.INVALID_REPLICATION_FACTOR


def test_an_existing_topic_cannot_be_created_nor_a_missing_one_deleted(bootstrap, fresh):
    topic, client = lib.create_topic(bootstrap, fresh("twice")), lib.admin(bootstrap)
    again = NewTopic(topic, num_partitions=1, replication_factor=1)
    assert refusal(client.create_topics([again])[topic]) == KafkaError.TOPIC_ALREADY_EXISTS
    missing = fresh("missing")
    assert refusal(client.delete_topics([missing])[missing]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_validate_only_creates_nothing(bootstrap, fresh):
    topic, client = fresh("validated"), lib.admin(bootstrap)
    new = NewTopic(topic, num_partitions=1, replication_factor=1)
    client.create_topics([new], validate_only=True)[topic].result(lib.TIMEOUT_S)
    assert topic not in client.list_topics(timeout=10).topics


def test_groups_are_listed_and_described(bootstrap, fresh):  # contract G4
    topic, group = lib.create_topic(bootstrap, fresh("listed"), 2), fresh("g")
    member = lib.consumer(bootstrap, group, client_id="the-member")
    member.subscribe([topic])
    wait.until("the member has its partitions", lambda: member.poll(0.1) or lib.assignment_ids(member) == {0, 1})
    client = lib.admin(bootstrap)
    listed = {g.group_id: g.state for g in client.list_consumer_groups().result(lib.TIMEOUT_S).valid}
    assert listed[group] == ConsumerGroupState.STABLE
    seen = client.describe_consumer_groups([group])[group].result(lib.TIMEOUT_S)
    assert seen.state == ConsumerGroupState.STABLE
    assert [m.client_id for m in seen.members] == ["the-member"]
    assert {tp.partition for tp in seen.members[0].assignment.topic_partitions} == {0, 1}
    member.close()
    seen = client.describe_consumer_groups([group])[group].result(lib.TIMEOUT_S)
    assert seen.state in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)
